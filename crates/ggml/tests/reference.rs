//! Files that `data/make.py` made, as rwkv.cpp's converter and quantizer make theirs.
#![allow(clippy::unwrap_used, reason = "a failure must stop the test")]

use crate::common::{arranged, open};
use rwkv_forge_model::{ModelDescription, TensorSpec, ValueForm, Version};
use rwkv_forge_tensor::TensorSource;

fn data(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let bytes = std::fs::read(folder.join(name)).unwrap();
    let sums = std::fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    assert!(sums.contains(&format!("{}  {name}\n", rwkv_forge_io::sha256_hex(&bytes))), "{name} is not what make.py made");
    bytes
}

/// The value that the script gives to an element of a tensor of the checkpoint.
fn value(name: &str, index: usize) -> f32 {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let factor = u32::try_from(2 * index + 1).unwrap();
    let byte = u8::try_from(hash.wrapping_mul(factor) >> 24).unwrap();
    (f32::from(byte) - 128.0) / 128.0
}

/// What is read as `spec`, in the form in which it is stored, beside what the script had.
fn compare(file: &dyn TensorSource, model: &ModelDescription, spec: &TensorSpec, tolerance: f32) {
    let is_log = model.version == Version::V5_0 && spec.name.ends_with("time_faaaa");
    let (name, form) = match is_log {
        // rwkv.cpp's 5.1 stores exp of the checkpoint's time_first.
        true => (spec.name.replace("time_faaaa", "time_first"), ValueForm::Exp),
        // The converter does not divide the value matrix; that it is to be taken eightfold is checked below.
        false if spec.recover.form == ValueForm::Eighth => (spec.name.clone(), ValueForm::Canonical),
        false => (spec.name.clone(), spec.recover.form),
    };
    let computed = form != ValueForm::Canonical;
    for (index, found) in arranged(file, spec).into_iter().enumerate() {
        let expected = form.apply(value(&name, index));
        // NumPy's exp and ours differ in the last bit or two.
        let allowed = if computed { 5e-7 } else { tolerance };
        assert!((found - expected).abs() <= allowed, "{} [{index}]: {found}, expected {expected}", spec.name);
    }
}

#[test]
fn float_files_of_every_version_are_read() {
    let files = [
        ("4-f32.bin", Version::V4),
        ("4-f16.bin", Version::V4),
        ("5.1-f32.bin", Version::V5_0),
        ("5.2-f16.bin", Version::V5_2),
        ("6-f32.bin", Version::V6),
        ("7-f16.bin", Version::V7),
    ];
    for (name, version) in files {
        let (file, model) = open(name, &data(name)).unwrap();
        assert_eq!(model.version, version);
        assert_eq!((model.hyperparameters.channels, model.hyperparameters.ffn, model.hyperparameters.vocabulary), (16, 32, 8));
        assert_eq!(model.hyperparameters.head_size, if version == Version::V4 { 0 } else { 8 });
        assert_eq!(file.format(), if name.starts_with('4') { "rwkv.cpp 100" } else { "rwkv.cpp 101" });
        // v0, v1, v2 of layer 0, which the converter leaves in.
        assert_eq!(model.unused.len(), if version == Version::V7 { 3 } else { 0 });
        for spec in &model.tensors {
            compare(&file, &model, spec, 0.0);
        }
        let value = model.find("blocks.0.att.value.weight").unwrap();
        let is_v5 = [Version::V5_0, Version::V5_2].contains(&version);
        assert_eq!(value.recover.form == ValueForm::Eighth, is_v5, "RWKV-5 runs with 1e-5 there, which is 8 times the values at 64e-5");
        assert_eq!(file.notes().len(), usize::from(is_v5));
    }
}

#[test]
fn a_quantized_file_is_read() {
    let (file, model) = open("5.2-q8_0.bin", &data("5.2-q8_0.bin")).unwrap();
    let mut quantized = 0;
    for spec in &model.tensors {
        let is_q8 = file.tensors()[spec.source_index].encoding.name == "q8_0";
        quantized += usize::from(is_q8);
        // Half a step of 1/127, and the rounding of the scale to f16.
        compare(&file, &model, spec, if is_q8 { 0.5 / 127.0 + 1.0 / 2048.0 } else { 0.0 });
    }
    assert_eq!(quantized, 8, "five matrices of the time mix, three of the channel mix");
}
