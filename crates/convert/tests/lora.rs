//! LoRA files merged on reading, against the formula written out.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test support may fail loudly; the numbers in it are small")]

use crate::common::Temp;
use rwkv_forge_convert::lora::merge;
use rwkv_forge_convert::{OpenFile, OpenModel};
use rwkv_forge_kernel::{KernelOptions, RecurrentModel};
use rwkv_forge_model::{Recover, Version, describe};
use rwkv_forge_quant::by_name;
use rwkv_forge_tensor::{BoxError, Encoding, TensorInfo, TensorSource, decode_dense};
use rwkv_forge_testkit::models::{MemorySource, MemoryTensor, Sizes, SplitMix64, encode, random_model};
use rwkv_forge_weights::{Model, State};

const RANK: usize = 3;
const ALPHA: f64 = 5.0;

fn open(source: MemorySource) -> OpenModel {
    let description = describe(source.tensors()).unwrap();
    OpenModel::new(OpenFile::of(Box::new(source)), description)
}

fn base() -> MemorySource {
    random_model(Version::V7, &Sizes::TINY, 3)
}

fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut random = SplitMix64::new(seed);
    (0..count).map(|_| 0.1 * random.normal()).collect()
}

/// The pairs of these matrices `[out, in]`, and vectors in full.
fn lora() -> Vec<(String, Vec<u64>, Vec<f32>)> {
    let mut tensors = Vec::new();
    for (seed, (stem, rows, columns)) in
        (1..).zip([("blocks.0.att.key", 32, 32), ("blocks.1.ffn.key", 48, 32), ("blocks.1.ffn.value", 32, 48), ("head", 40, 32)])
    {
        tensors.push((format!("{stem}.lora_A"), vec![RANK as u64, columns as u64], random(seed, RANK * columns)));
        tensors.push((format!("{stem}.lora_B"), vec![rows as u64, RANK as u64], random(100 + seed, rows * RANK)));
    }
    tensors.push(("blocks.1.ln1.weight".to_owned(), vec![32], random(50, 32)));
    tensors.push(("blocks.0.att.x_k".to_owned(), vec![1, 1, 32], random(51, 32)));
    tensors
}

fn file(tensors: Vec<(String, Vec<u64>, Vec<f32>)>) -> Temp {
    Temp::safetensors(&MemorySource::from_f32(tensors))
}

fn values(model: &OpenModel, name: &str) -> Vec<f32> {
    let spec = model.description().find(name).unwrap();
    let info = &model.source().tensors()[spec.source_index];
    let mut bytes = vec![0; info.byte_len().unwrap() as usize];
    model.source().read_at(spec.source_index, 0, &mut bytes).unwrap();
    let mut out = Vec::new();
    assert!(decode_dense(info.encoding, &bytes, &mut out));
    out
}

fn tensor(name: &str) -> Vec<f32> {
    lora().into_iter().find(|(found, ..)| found == name).unwrap().2
}

/// W + (alpha / rank) B A, one element after the other.
fn naive(weights: &[f32], stem: &str, columns: usize, alpha: f64) -> Vec<f32> {
    let (a, b) = (tensor(&format!("{stem}.lora_A")), tensor(&format!("{stem}.lora_B")));
    let element = |(index, weight): (usize, &f32)| {
        let (row, column) = (index / columns, index % columns);
        let mut sum = 0.0f64;
        for k in 0..RANK {
            sum += f64::from(b[row * RANK + k]) * f64::from(a[k * columns + column]);
        }
        (f64::from(*weight) + alpha / RANK as f64 * sum) as f32
    };
    weights.iter().enumerate().map(element).collect()
}

#[test]
fn merged_matrices_equal_the_formula_and_the_rest_is_untouched() {
    let lora_file = file(lora());
    let before = open(base());
    let after = merge(open(base()), &lora_file.0, Some(ALPHA), false).unwrap();
    assert_eq!(before.description().tensors.len(), after.description().tensors.len());
    for spec in &before.description().tensors {
        let old = values(&before, &spec.name);
        let stem = spec.name.trim_end_matches(".weight");
        let expected = if lora().iter().any(|(name, ..)| name == &format!("{stem}.lora_A")) {
            let columns = *spec.shape.last().unwrap() as usize;
            let merged = naive(&old, stem, columns, ALPHA);
            // The planted fault: another alpha is another model.
            assert_ne!(merged, naive(&old, stem, columns, ALPHA + 1.0), "{}", spec.name);
            assert_ne!(merged, old, "{}", spec.name);
            merged
        } else if lora().iter().any(|(name, ..)| name == &spec.name) {
            tensor(&spec.name)
        } else {
            old
        };
        assert!(values(&after, &spec.name) == expected, "{}", spec.name);
    }
    assert!(after.source().notes().iter().any(|note| note.contains("4 matrices merged, 2 tensors replaced")));
    // The merged model computes, and something else than before.
    let logits = |model: &OpenModel| {
        let loaded = RecurrentModel::<f32>::load(&model.model, &KernelOptions::default()).unwrap();
        loaded.forward(&[1, 2, 3], &mut State::zero(model.description())).unwrap()
    };
    assert_ne!(logits(&before), logits(&after));
}

#[test]
fn pieces_of_any_size_give_the_same_bits() {
    let lora_file = file(lora());
    let model = merge(open(base()), &lora_file.0, Some(ALPHA), false).unwrap();
    let index = model.description().find("blocks.1.ffn.value.weight").unwrap().source_index;
    let len = model.source().tensors()[index].byte_len().unwrap() as usize;
    let mut whole = vec![0; len];
    model.source().read_at(index, 0, &mut whole).unwrap();
    for piece in [1, 3, 4, 20, 191, 192, 193, 1000, len - 1] {
        let mut pieces = vec![0; len];
        for (number, part) in pieces.chunks_mut(piece).enumerate() {
            model.source().read_at(index, (number * piece) as u64, part).unwrap();
        }
        assert!(pieces == whole, "pieces of {piece} bytes");
    }
    assert!(model.source().read_at(index, len as u64, &mut [0]).is_err());
}

/// A base in 16 bits, in blocks, or stored the other way round: the same formula on the values that it stands for.
#[test]
fn the_base_may_be_stored_in_any_way() {
    let name = "blocks.0.att.key.weight";
    let lora_file = file(lora());
    let stored = |change: &dyn Fn(&mut MemoryTensor)| {
        MemorySource::from_tensors(base().into_tensors().into_iter().map(|mut tensor| {
            if tensor.info.name == name {
                change(&mut tensor);
            }
            tensor
        }))
    };
    let original = values(&open(base()), name);
    // bf16.
    let half = stored(&|tensor| {
        tensor.bytes = encode(Encoding::BF16, &original);
        tensor.info.encoding = Encoding::BF16;
    });
    let mut rounded = Vec::new();
    decode_dense(Encoding::BF16, half.bytes(name).unwrap(), &mut rounded);
    let merged = merge(open(half), &lora_file.0, Some(ALPHA), false).unwrap();
    assert!(values(&merged, name) == naive(&rounded, "blocks.0.att.key", 32, ALPHA));
    // Blocks: quantized weights are merged only on request.
    let format = by_name("q8_0").unwrap();
    let blocks = || {
        stored(&|tensor| {
            tensor.bytes = vec![0; 32 * 34];
            format.encode(&original, &mut tensor.bytes).unwrap();
            tensor.info.encoding = format.encoding();
        })
    };
    let mut decoded = Vec::new();
    rwkv_forge_quant::decode_rows(format.encoding(), blocks().bytes(name).unwrap(), &mut decoded).unwrap();
    assert_eq!(merge(open(blocks()), &lora_file.0, Some(ALPHA), false).err().unwrap().kind(), "Requantize");
    let merged = merge(open(blocks()), &lora_file.0, Some(ALPHA), true).unwrap();
    assert!(values(&merged, name) == naive(&decoded, "blocks.0.att.key", 32, ALPHA));
    // Transposed.
    let turned = stored(&|tensor| {
        let swapped: Vec<f32> = (0..1024).map(|index| original[index % 32 * 32 + index / 32]).collect();
        tensor.bytes = encode(Encoding::F32, &swapped);
    });
    let mut turned = open(turned);
    let mut description = turned.description().clone();
    description.tensors.iter_mut().find(|spec| spec.name == name).unwrap().recover = Recover::TRANSPOSED;
    turned.model = Model::over(turned.model.shared_source(), description);
    let merged = merge(turned, &lora_file.0, Some(ALPHA), false).unwrap();
    assert!(values(&merged, name) == naive(&original, "blocks.0.att.key", 32, ALPHA));
}

fn refusal(tensors: Vec<(String, Vec<u64>, Vec<f32>)>, alpha: Option<f64>) -> BoxError {
    let lora_file = file(tensors);
    merge(open(base()), &lora_file.0, alpha, false).err().unwrap()
}

#[test]
fn what_does_not_fit_is_named() {
    let with = |name: &str, shape: &[u64]| {
        let mut tensors = lora();
        tensors.retain(|(found, ..)| found != name);
        tensors.push((name.to_owned(), shape.to_vec(), vec![0.5; shape.iter().product::<u64>() as usize]));
        tensors
    };
    let named = |error: BoxError, kind: &str, name: &str| {
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    };
    named(refusal(lora(), None), "LoraAlphaMissing", "--lora-alpha 3");
    named(refusal(lora(), Some(f64::NAN)), "BadLoraAlpha", "NaN");
    named(refusal(with("blocks.7.att.key.lora_A", &[3, 32]), Some(1.0)), "UnknownLoraTensor", "blocks.7.att.key.lora_A");
    named(refusal(with("base_model.x", &[3]), Some(1.0)), "UnknownLoraTensor", "base_model.x");
    named(refusal(with("blocks.0.att.time_state", &[4, 8, 8]), Some(1.0)), "UnknownLoraTensor", "`state`");
    named(refusal(with("blocks.0.att.output.lora_B", &[32, 3]), Some(1.0)), "LoraPairIncomplete", "blocks.0.att.output.lora_A");
    named(refusal(with("head.lora_A", &[3, 31]), Some(1.0)), "LoraShapeMismatch", "head.lora_A");
    named(refusal(with("head.lora_B", &[40, 4]), Some(1.0)), "LoraShapeMismatch", "head.lora_B");
    named(refusal(with("blocks.1.ln1.weight", &[31]), Some(1.0)), "LoraShapeMismatch", "blocks.1.ln1.weight");
    named(refusal(with("head.weight", &[40, 32]), Some(1.0)), "LoraConflict", "head.weight");
    let mut bad = lora();
    bad[0].2[5] = f32::INFINITY;
    named(refusal(bad, Some(1.0)), "NonFinite", "blocks.0.att.key.lora_A");
    // Another model, which would take the whole place of the first.
    let other = Temp::safetensors(&random_model(Version::V7, &Sizes::TINY, 4));
    for alpha in [None, Some(8.0)] {
        named(merge(open(base()), &other.0, alpha, false).err().unwrap(), "LoraIsAModel", "convert this one by itself");
    }
    // Without pairs, alpha scales nothing and is not asked for.
    let only_vectors = file(lora().into_iter().filter(|(name, ..)| !name.contains(".lora_")).collect());
    let model = merge(open(base()), &only_vectors.0, None, false).unwrap();
    assert!(values(&model, "blocks.1.ln1.weight") == tensor("blocks.1.ln1.weight"));
}

/// Layer-0 tensors of RWKV-7 that are stored in vain stay listed as such.
#[test]
fn unused_tensors_keep_their_place() {
    let options = rwkv_forge_testkit::models::Options { value_in_layer_0: true, ..rwkv_forge_testkit::models::Options::default() };
    let source = rwkv_forge_testkit::models::random_model_with(Version::V7, &Sizes::TINY, &options, 3);
    let lora_file = file(lora());
    let model = merge(open(source), &lora_file.0, Some(ALPHA), false).unwrap();
    let names: Vec<&str> = model.description().unused.iter().map(|index| model.source().tensors()[*index].name.as_str()).collect();
    assert_eq!(names, ["blocks.0.att.v0", "blocks.0.att.v1", "blocks.0.att.v2"]);
    let listed: Vec<&TensorInfo> = model.source().tensors().iter().filter(|info| info.name == "head.weight").collect();
    assert_eq!(listed.len(), 1);
}
