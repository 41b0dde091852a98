//! Replaced tensors give the numbers of a file that holds them.

use std::sync::Arc;

use rwkv_forge_model::{ValueForm, Version};
use rwkv_forge_tensor::{Diagnostic, Encoding, TensorSource};
use rwkv_forge_testkit::models::{Sizes, random_model};
use rwkv_forge_weights::{Model, Overlay, ReplaceError, Weight};

/// Rows of whole blocks of 32, factors included.
const SIZES: Sizes = Sizes { ffn: 64, ranks: [32, 32, 32, 64], ..Sizes::TINY };

fn encoded(values: &[f32], name: &str, importance: Option<&[f32]>) -> (Encoding, Vec<u8>, Vec<f32>) {
    let format = rwkv_forge_quant::by_name(name).expect("a format");
    let encoding = format.encoding();
    let length = usize::try_from(encoding.row_bytes(values.len() as u64).expect("whole blocks")).expect("a few kilobytes");
    let mut bytes = vec![0; length];
    match importance {
        Some(importance) => format.encode_weighted(values, importance, &mut bytes).expect("finite"),
        None => format.encode(values, &mut bytes).expect("finite"),
    };
    let mut decoded = vec![0.0; values.len()];
    format.decode(&bytes, &mut decoded);
    (encoding, bytes, decoded)
}

/// Every matrix of every version, encoded when read, encoded before, in memory and in a file: the values of the format.
#[test]
fn replaced_tensors_have_the_values_of_their_format() {
    for version in Version::ALL {
        let model = Model::describe(random_model(version, &SIZES, 3)).expect("a model");
        let description = model.description();
        for spec in description.tensors.iter().filter(|spec| spec.role.is_matrix() || spec.role.is_lora()) {
            let weight = Weight::of(spec).expect("a matrix");
            if !weight.columns.is_multiple_of(32) {
                continue;
            }
            let values = Weight::read(&model, spec).expect("it is in memory");
            let importance: Vec<f32> = (0..weight.columns).map(|column| 1.0 + (column % 7) as f32).collect();
            let (encoding, bytes, decoded) = encoded(&values, "q4_0", Some(&importance));
            let mut lazy = Overlay::new(&model);
            lazy.encode(&spec.name, encoding, Some(Arc::from(importance))).expect("it fits");
            let mut kept = Overlay::new(&model);
            kept.replace(&spec.name, encoding, ValueForm::Canonical, bytes.clone()).expect("it fits");
            let mut filed = Overlay::in_file(&model, None).expect("a temporary file");
            filed.replace(&spec.name, encoding, ValueForm::Canonical, bytes.clone()).expect("it fits");
            let [lazy, kept, filed] = [lazy, kept, filed].map(Overlay::into_model);
            for overlay in [&lazy, &kept, &filed] {
                let own = overlay.description().find(&spec.name).expect("it is still there");
                assert_eq!(Weight::read(overlay, own).expect("it reads"), decoded, "{version} {}", spec.name);
                // Ranges that begin and end inside rows.
                let mut part = vec![0; bytes.len() - 5];
                overlay.read_at(own.source_index, 3, &mut part).expect("it is inside");
                assert_eq!(part, bytes[3..bytes.len() - 2], "{version} {}", spec.name);
                let mut beyond = vec![0; 4];
                assert!(overlay.read_at(own.source_index, bytes.len() as u64 - 3, &mut beyond).is_err());
            }
            // The others are as they were.
            for other in description.tensors.iter().filter(|other| other.name != spec.name) {
                let own = lazy.description().find(&other.name).expect("it is still there");
                let (a, b) = (lazy.values::<f32>(own), model.values::<f32>(other));
                assert_eq!(a.expect("it reads"), b.expect("it reads"), "{version} {}", other.name);
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let model = Model::describe(random_model(Version::V7, &SIZES, 3)).expect("a model");
    let mut overlay = Overlay::new(&model);
    let q4 = rwkv_forge_quant::by_name("q4_0").expect("a format").encoding();
    let kind = |result: Result<(), ReplaceError>| result.expect_err("it does not fit").kind();
    assert_eq!(kind(overlay.encode("blocks.9.att.key.weight", q4, None)), "NoSuchTensor");
    assert_eq!(kind(overlay.encode("blocks.0.ln1.weight", q4, None)), "NotAMatrix");
    assert_eq!(kind(overlay.replace("head.weight", q4, ValueForm::Canonical, vec![0; 7])), "BufferMismatch");
    overlay.encode("head.weight", q4, None).expect("it fits");
    assert_eq!(kind(overlay.encode("head.weight", q4, None)), "Encode");
}
