//! Quantized checkpoints of other programs as sources: .rwkvq, packed here from a trained checkpoint by the format's description, and int8 as
//! Albatross has it, through every command.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "tests may fail loudly; codes are small")]

use std::path::{Path, PathBuf};

use rwkv_forge_convert::OpenOptions;
use rwkv_forge_tensor::{Encoding, f16_to_f32, f32_to_bf16, f32_to_f16};
use rwkv_forge_testkit::models::{MemorySource, MemoryTensor};
use rwkv_forge_weights::View;
use serde_json::{Value, json as object};

use crate::support::{Dir, checkpoint, error_kind, fixture, json, run, vocab};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Names, shapes and values.
type Tensors = Vec<(String, Vec<u64>, Vec<f32>)>;

/// Every tensor of the trained RWKV-7.
fn trained() -> Tensors {
    let model = rwkv_forge_convert::open(checkpoint("7"), OpenOptions::default()).unwrap();
    let read =
        |spec: &rwkv_forge_model::TensorSpec| (spec.name.clone(), spec.shape.clone(), model.model.read(spec, View::CANONICAL).unwrap());
    model.description().tensors.iter().map(read).collect()
}

fn half(value: f32) -> f32 {
    f16_to_f32(f32_to_f16(value))
}

/// A buffer: field, type, shape, bytes.
type Buffer = (&'static str, &'static str, Vec<u64>, Vec<u8>);

/// A tensor as such a file has it, and the values that it stands for.
struct Packed {
    entry: Value,
    buffers: Vec<Buffer>,
    values: Vec<f32>,
}

impl Packed {
    fn new(kind: &str, shape: &[u64], bits: u64, [group, groups, blocks]: [u64; 3], buffers: Vec<Buffer>, values: Vec<f32>) -> Self {
        let fields: Vec<&str> = buffers.iter().map(|(field, ..)| *field).collect();
        let entry = object!({
            "kind": kind, "shape": shape, "bits": bits, "group": "proj", "gw_gs": group, "gw_sb": groups, "n_blocks": blocks, "transposed": false,
            "fields": fields,
        });
        Self { entry, buffers, values }
    }
}

fn dense(shape: &[u64], values: &[f32]) -> Packed {
    let bytes = values.iter().flat_map(|value| f32_to_bf16(*value).to_le_bytes()).collect();
    Packed::new("dense", shape, 16, [0; 3], vec![("dense", "BF16", shape.to_vec(), bytes)], values.to_vec())
}

/// Codes of eight bits with a scale a row.
fn rtn([rows, row]: [u64; 2], values: &[f32]) -> Packed {
    let (mut codes, mut scales, mut found) = (Vec::new(), Vec::new(), Vec::new());
    for line in values.chunks_exact(row as usize) {
        let scale = half(line.iter().fold(0f32, |most, value| most.max(value.abs())) / 127.0).max(1e-7);
        scales.extend(f32_to_f16(scale).to_le_bytes());
        for value in line {
            let code = (value / half(scale)).round().clamp(-128.0, 127.0) as i8;
            codes.push(code.cast_unsigned());
            found.push(f32::from(code) * half(scale));
        }
    }
    let buffers = vec![("codes", "I8", vec![rows, row], codes), ("scale", "F16", vec![rows, 1], scales)];
    Packed::new("rtn", &[rows, row], 8, [0; 3], buffers, found)
}

/// Codes of eight bits with scale and minimum in f32 for groups of 64.
fn asym([rows, row]: [u64; 2], values: &[f32]) -> Packed {
    let (mut codes, mut scales, mut minima, mut found) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for group in values.chunks_exact(row as usize).flat_map(|line| line.chunks(64)) {
        let low = group.iter().copied().fold(f32::INFINITY, f32::min);
        let scale = ((group.iter().copied().fold(f32::NEG_INFINITY, f32::max) - low) / 255.0).max(1e-8);
        scales.extend(scale.to_le_bytes());
        minima.extend(low.to_le_bytes());
        for value in group {
            let code = ((value - low) / scale).round().clamp(0.0, 255.0) as u8;
            codes.push(code);
            found.push(f32::from(code) * scale + low);
        }
    }
    let groups = row.div_ceil(64);
    let buffers = vec![
        ("codes", "U8", vec![rows, row], codes),
        ("gw_scale", "F32", vec![rows, groups], scales),
        ("gw_min", "F32", vec![rows, groups], minima),
    ];
    Packed::new("asym", &[rows, row], 8, [64, 0, groups], buffers, found)
}

/// A stream of six-bit numbers, the first one in the lowest bits.
fn six_bits(numbers: &[u8]) -> Vec<u8> {
    let word = numbers.iter().rev().fold(0u64, |word, number| word << 6 | u64::from(*number));
    word.to_le_bytes()[..6].to_vec()
}

/// One bit of each code.
fn plane(codes: &[u8], bit: u8) -> Vec<u8> {
    codes.chunks(8).map(|codes| codes.iter().enumerate().fold(0, |byte, (place, code)| byte | (code >> bit & 1) << place)).collect()
}

/// Codes of five bits in groups of 32, scales and minima of six bits.
fn sb6([rows, row]: [u64; 2], values: &[f32]) -> Packed {
    let (mut codes, mut steps, mut scales, mut minima, mut found) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for block in values.chunks_exact(256) {
        let fits: Vec<[f32; 2]> = block
            .chunks_exact(32)
            .map(|part| {
                let low = part.iter().copied().fold(0f32, f32::min);
                [(part.iter().copied().fold(0f32, f32::max) - low) / 31.0, low]
            })
            .collect();
        let most = |at: usize| fits.iter().fold(1e-6f32, |most, fit| most.max(fit[at].abs()));
        let (d, dm) = (half(most(0) / 63.0), half(most(1) / 31.0));
        scales.extend(f32_to_f16(d).to_le_bytes());
        minima.extend(f32_to_f16(dm).to_le_bytes());
        let qs: Vec<u8> = fits.iter().map(|fit| (fit[0] / d).round().clamp(1.0, 63.0) as u8).collect();
        let qm: Vec<u8> = fits.iter().map(|fit| ((fit[1] / dm).round().clamp(-31.0, 31.0) + 31.0) as u8).collect();
        steps.extend(six_bits(&qs).into_iter().chain(six_bits(&qm)));
        for (part, (qs, qm)) in block.chunks_exact(32).zip(qs.iter().zip(&qm)) {
            let (scale, low) = (half(f32::from(*qs) * d), half((f32::from(*qm) - 31.0) * dm));
            for value in part {
                let code = ((value - low) / scale).round().clamp(0.0, 31.0) as u8;
                codes.push(code);
                found.push(f32::from(code) * scale + low);
            }
        }
    }
    let nibbles = codes.chunks_exact(32).flat_map(|part| (0..16).map(|at| part[at] & 15 | (part[at + 16] & 15) << 4)).collect();
    let supers = row / 256;
    let buffers = vec![
        ("codes_packed", "U8", vec![rows, row / 2], nibbles),
        ("gw_d", "F16", vec![rows, supers], scales),
        ("gw_dm", "F16", vec![rows, supers], minima),
        ("gw_qsqm", "U8", vec![rows, supers, 12], steps),
        ("gw_qh", "U8", vec![rows, row / 8], plane(&codes, 4)),
    ];
    Packed::new("sb6", &[rows, row], 5, [32, 8, row / 32], buffers, found)
}

/// Columns and rows exchanged.
fn turned(shape: &[u64], values: &[f32]) -> Vec<f32> {
    let (rows, columns) = (shape[0] as usize, shape[1] as usize);
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

/// The trained model as such a file; and the values of its tensors as checkpoints have them.
fn rwkvq(dir: &Dir) -> (PathBuf, Tensors) {
    let (mut entries, mut header, mut data, mut expected) = (serde_json::Map::new(), serde_json::Map::new(), Vec::new(), Vec::new());
    for (name, shape, values) in trained() {
        let suffix = name.rsplit('.').next().unwrap();
        let is_factor = suffix.len() == 2 && suffix.starts_with(['w', 'a', 'v', 'g']) && suffix.ends_with(['1', '2']);
        let (packed, as_trained) = match shape[..] {
            // The first factors are constant in some layers; what the trainer wrote stays.
            [rows, columns] if is_factor => {
                let packed = asym([columns, rows], &turned(&shape, &values));
                let back = turned(&[columns, rows], &packed.values);
                (packed, Some(back))
            }
            [rows, 512] => (sb6([rows, 512], &values), None),
            [rows, row] if name.contains("att.output") || name == "head.weight" => (asym([rows, row], &values), None),
            [rows, row] if name.ends_with("weight") => (rtn([rows, row], &values), None),
            _ => (dense(&shape, &values), None),
        };
        for (field, dtype, shape, bytes) in &packed.buffers {
            let offsets = [data.len(), data.len() + bytes.len()];
            data.extend_from_slice(bytes);
            header.insert(format!("{name}::{field}"), object!({ "dtype": dtype, "shape": shape, "data_offsets": offsets }));
        }
        expected.push((name.clone(), shape, as_trained.unwrap_or(packed.values)));
        entries.insert(name, packed.entry);
    }
    let manifest = object!({
        "format": "rwkvq", "format_version": 2, "naming": "world", "n_layer": 3, "n_embd": 128, "head_size": 64, "vocab_size": 320,
        "config_repr": "QuantConfig(proj=8)", "config": null, "runtime": { "fast_ln": true }, "tokenizer": "vocab-320.txt", "tensors": entries,
    });
    header.insert("__metadata__".to_owned(), object!({ "rwkvq": manifest.to_string() }));
    let header = Value::Object(header).to_string();
    let path = dir.join("tiny.rwkvq");
    std::fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()).unwrap();
    (path, expected)
}

/// Every value is the one that was packed, factors turned back.
fn has_values(file: &Path, expected: &[(String, Vec<u64>, Vec<f32>)]) {
    let model = rwkv_forge_convert::open(file, OpenOptions::default()).unwrap();
    for (name, shape, values) in expected {
        let spec = model.model.spec(name).unwrap();
        assert_eq!(&spec.shape, shape, "{name}");
        let found: Vec<f32> = model.model.read(spec, View::CANONICAL).unwrap();
        assert!(found.iter().zip(values).all(|(a, b)| a.to_bits() == b.to_bits()), "{name}");
    }
}

#[test]
fn an_rwkvq_is_a_source_for_every_command() {
    let dir = Dir::new();
    let (file, expected) = rwkvq(&dir);
    let (file, base, vocabulary) = (text(&file), text(checkpoint("7")), text(vocab()));
    has_values(Path::new(file), &expected);

    let seen = json(&["inspect", file, "--hashes"], 0);
    assert_eq!((seen["format"].as_str(), seen["model"]["version"].as_str()), (Some("rwkvq v2"), Some("7")), "{seen}");
    let types: Vec<&String> = seen["types"].as_object().unwrap().keys().collect();
    assert_eq!(types, ["asym", "asym_8", "bf16", "int8_row", "sb6_5"], "{types:?}");
    assert_eq!(seen["metadata"]["rwkvq.tokenizer"], "vocab-320.txt");

    // Candidate, and reference.
    let agreement = json(&["verify", base, file, "--vocab", vocabulary, "--max-kl", "0.05"], 0);
    let kl = agreement["agreement"]["kl"]["mean"].as_f64().unwrap();
    assert!(kl > 0.0, "{agreement}");
    let measured = json(&["eval", file, "--baseline", base, "--vocab", vocabulary, "--no-cache", "--bytes", "3000"], 0);
    let kl = measured["models"][0]["kl"]["mean"].as_f64().unwrap();
    assert!(kl > 0.0 && kl < 0.05, "{kl}");

    let generated = run(&["generate", file, "--prompt", "The ", "-n", "8", "--vocab", vocabulary]);
    assert!(generated.status.success(), "{}", String::from_utf8_lossy(&generated.stderr));

    // Quantizing anew is asked for; floats are not.
    let output = dir.join("again.gguf");
    let again = ["convert", file, "--to", "gguf", "--type", "q8_0", "--vocab", vocabulary, "-o", text(&output)];
    assert_eq!(error_kind(&again, 2), "Requantize");
    assert!(!output.exists());
    json(&[&again[..], &["--requantize"]].concat(), 0);
    let kept = dir.join("f32.safetensors");
    let report = json(&["convert", file, "--to", "safetensors", "--type", "f32", "--vocab", vocabulary, "-o", text(&kept)], 0);
    assert_eq!(report["record"]["agreement"]["identical"], true, "{report}");
    has_values(&kept, &expected);
    let words = run(&["inspect", text(&output)]);
    assert!(String::from_utf8_lossy(&words.stdout).contains("QuantConfig(proj=8)"), "what the file says is kept");
}

/// The trained model as Albatross's script leaves it: f16, dimensions of 1 dropped, six kinds of matrices in int8.
fn albatross() -> (MemorySource, Tensors) {
    let (mut tensors, mut expected) = (Vec::new(), Vec::new());
    let quantized = ["att.receptance.weight", "att.key.weight", "att.value.weight", "att.output.weight", "ffn.key.weight", "head.weight"];
    for (name, shape, values) in trained() {
        let squeezed: Vec<u64> = shape.iter().copied().filter(|dim| *dim > 1).collect();
        if quantized.iter().any(|suffix| name.ends_with(suffix)) {
            let packed = rtn([shape[0], shape[1]], &values);
            for (field, dtype, shape, bytes) in packed.buffers {
                let (name, encoding, shape) = match dtype {
                    "I8" => (name.clone(), Encoding::I8, shape),
                    _ => (format!("{name}_{field}"), Encoding::F16, vec![shape[0]]),
                };
                tensors.push(MemoryTensor { info: rwkv_forge_tensor::TensorInfo { name, shape, encoding }, bytes });
            }
            expected.push((name, shape, packed.values));
        } else {
            let bytes = values.iter().flat_map(|value| f32_to_f16(*value).to_le_bytes()).collect();
            tensors.push(MemoryTensor {
                info: rwkv_forge_tensor::TensorInfo { name: name.clone(), shape: squeezed, encoding: Encoding::F16 },
                bytes,
            });
            expected.push((name, shape, values.iter().map(|value| half(*value)).collect()));
        }
    }
    (MemorySource::from_tensors(tensors), expected)
}

/// The same tensors in a file of torch's.
fn to_pth(source: &MemorySource) -> Vec<u8> {
    use rwkv_forge_tensor::TensorSource;
    use rwkv_forge_testkit::pickle::{Tensor, state_dict};
    let storage = |encoding: Encoding| if encoding == Encoding::I8 { "CharStorage" } else { "HalfStorage" };
    let tensor = |(key, info): (usize, &rwkv_forge_tensor::TensorInfo)| {
        let size: Vec<i64> = info.shape.iter().map(|dim| *dim as i64).collect();
        Tensor::dense(&info.name, storage(info.encoding), key, &size)
    };
    let tensors: Vec<Tensor> = source.tensors().iter().enumerate().map(tensor).collect();
    let storages: Vec<&[u8]> = source.tensors().iter().map(|info| source.bytes(&info.name).unwrap()).collect();
    rwkv_forge_testkit::zip::Archive::torch(&state_dict(&tensors), &storages).build().bytes
}

#[test]
fn int8_of_albatross_is_a_source() {
    let dir = Dir::new();
    let (source, expected) = albatross();
    let (base, vocabulary) = (text(checkpoint("7")), text(vocab()));
    for (name, bytes) in [("int8.pth", to_pth(&source)), ("int8.safetensors", source.to_safetensors())] {
        let path = dir.join(name);
        std::fs::write(&path, bytes).unwrap();
        has_values(&path, &expected);
        let file = text(&path);
        let seen = json(&["inspect", file], 0);
        assert!(seen["format"].as_str().unwrap().contains("Albatross"), "{seen}");
        assert_eq!(seen["types"]["int8_row"]["tensors"], 16, "five matrices a layer, and the head");
        let measured = json(&["eval", file, "--baseline", base, "--vocab", vocabulary, "--no-cache", "--bytes", "3000"], 0);
        let kl = measured["models"][0]["kl"]["mean"].as_f64().unwrap();
        assert!(kl > 0.0 && kl < 0.01, "{kl}");
        json(&["verify", base, file, "--vocab", vocabulary, "--max-kl", "0.01"], 0);
        let output = dir.join(&format!("{name}.gguf"));
        let again = ["convert", file, "--to", "gguf", "--type", "q8_0", "--vocab", vocabulary, "-o", text(&output)];
        assert_eq!(error_kind(&again, 2), "Requantize");
        json(&[&again[..], &["--requantize"]].concat(), 0);
    }
}

/// What is no model at all is inspected by what it holds.
#[test]
fn a_file_of_every_kind_is_inspected() {
    let seen = json(&["inspect", text(fixture("rwkvq/kinds.rwkvq")), "--hashes"], 0);
    let types: Vec<&String> = seen["types"].as_object().unwrap().keys().collect();
    assert_eq!(types, ["asym", "asym_8", "bf16", "int4_row", "int8_row", "rtn", "sb6_4", "sb6_5", "sb6_6", "sym6", "sym8"]);
    assert!(seen["model"].is_null() && seen["notes"].to_string().contains("pieces of 8 weights"), "{seen}");
}

/// Before the format had a version its files were pickles, of objects or of plain dictionaries: the name says what they are.
#[test]
fn pickled_rwkvq_is_named_whatever_the_pickle_is() {
    use rwkv_forge_testkit::pickle::{Pickle, Tensor};
    let dir = Dir::new();
    let dictionary = |protocol: u8| {
        let weights =
            Pickle::new(protocol).raw(b"}(").text("weights").raw(b"}(").item(&Tensor::dense("emb.weight", "FloatStorage", 0, &[1]));
        weights.raw(b"u").text("bits").int(4).raw(b"u").stop()
    };
    let storage: &[u8] = &[0; 4];
    let zip = rwkv_forge_testkit::zip::Archive::torch(&dictionary(2), &[storage]).build().bytes;
    let empty = Pickle::new(4).raw(b"}").stop();
    let forms = [("zip", zip), ("plain", dictionary(2)), ("four", empty), ("oldest", b"(dp0\nS'weights'\np1\n(dp2\ns.".to_vec())];
    for (name, bytes) in forms {
        let file = dir.join(&format!("{name}.rwkvq"));
        std::fs::write(&file, bytes).unwrap();
        for command in [&["inspect", text(&file)][..], &["convert", text(&file), "--to", "pth", "-o", text(&dir.join("never.pth"))]] {
            let seen = json(command, 3);
            let said = seen["error"]["message"].as_str().unwrap();
            assert_eq!(seen["error"]["kind"], "LegacyFormat", "{name}: {said}");
            assert!(said.contains(".rwkvq file of the old kind") && said.contains("writer.save_rwkvq(reader.load_raw("), "{name}: {said}");
        }
    }
    assert!(!dir.join("never.pth").exists());
}
