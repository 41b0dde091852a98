//! States of the reference kernel, mistakes of the caller, and files that store tensors in other ways.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails should fail loudly")]

use std::sync::Arc;

use crate::support::{Loaded, ODD, WIDE, agreement, bits, options, tokens, versions};
use rwkv_forge_engine::{Arithmetic, Batch, Engine, EngineError, EngineOptions, Inputs, LayerStream, Logits, State, Tap, memory, supports};
use rwkv_forge_kernel::{KernelOptions, RecurrentModel};
use rwkv_forge_model::{Attention, ChannelMix, Mechanisms, Norms, Recover, TimeMix, TokenShift, ValueForm, Version, describe};
use rwkv_forge_quant::BlockFormat;
use rwkv_forge_tensor::{Diagnostic, Encoding, TensorSource};
use rwkv_forge_testkit::models::{MemorySource, Sizes, SplitMix64, random_model};
use rwkv_forge_weights::Wkv;

/// As in `agreement.rs`: rounding.
const FLOAT: f64 = 1e-5;

#[test]
fn states_go_to_the_reference_and_back() {
    for version in versions() {
        let model = Loaded::random(version, &ODD, 1);
        let (_, state) = model.steps(&options(Arithmetic::Float, 1), &tokens(7, 50));
        let kernel = state.to_kernel(&model.description);
        kernel.check(&model.description).expect("a state of this model");
        assert_eq!(State::from_kernel(&kernel, &model.description).expect("a state of this model"), state, "{version}");
        assert_eq!(State::new(&model.description).to_kernel(&model.description), rwkv_forge_weights::State::zero(&model.description));
    }
}

/// The first half of a sequence by the reference, the second by the engine: a state in the wrong orientation would show.
#[test]
fn the_engine_goes_on_where_the_reference_stopped() {
    for version in versions() {
        let model = Loaded::random(version, &ODD, 2);
        let tokens = tokens(30, 50);
        let (expected, _) = model.reference(&tokens);
        let (_, half) = model.reference(&tokens[..15]);
        let mut engine = model.engine(&options(Arithmetic::Float, 2));
        let mut state = State::from_kernel(&half, &model.description).unwrap();
        let mut found = Vec::new();
        let sink = |_: usize, _: usize, row: &[f32]| found.extend_from_slice(row);
        engine.forward(&[&tokens[15..]], std::slice::from_mut(&mut state), Logits::All, sink).unwrap();
        let found = agreement(&expected[15 * 50..], &found, 50);
        assert!(found.rms_ratio < FLOAT, "{version}: {found:?}");
        // From an empty state the same tokens give something else.
        let (fresh, _) = model.steps(&options(Arithmetic::Float, 1), &tokens[15..]);
        assert!(agreement(&expected[15 * 50..], &fresh, 50).rms_ratio > 100.0 * FLOAT, "{version}");
    }
}

#[test]
fn mistakes_of_the_caller_are_refused_and_change_nothing() {
    let model = Loaded::random(Version::V7, &ODD, 1);
    let mut engine = model.engine(&options(Arithmetic::Int8, 1));
    let mut state = engine.new_state();
    let mut logits = vec![0.0; 50];
    engine.step(1, &mut state, &mut logits).unwrap();
    let before = (state.clone(), bits(&logits));
    let error = engine.step(50, &mut state, &mut logits).unwrap_err();
    assert_eq!(error.kind(), "TokenOutOfRange", "{error}");
    let error = engine.step(1, &mut state, &mut logits[1..]).unwrap_err();
    assert_eq!(error.kind(), "BufferMismatch", "{error}");
    let foreign = Loaded::random(Version::V7, &WIDE, 1);
    let error = engine.step(1, &mut State::new(&foreign.description), &mut logits).unwrap_err();
    assert_eq!(error.kind(), "BufferMismatch", "{error}");
    let sink = |_: usize, _: usize, _: &[f32]| panic!("nothing is computed");
    let error = engine.forward(&[&[1, 2], &[3, 99]], &mut [state.clone(), state.clone()], Logits::All, sink).unwrap_err();
    assert_eq!(error.kind(), "TokenOutOfRange", "{error}");
    let error = engine.forward(&[&[1, 2]], &mut [], Logits::All, sink).unwrap_err();
    assert_eq!(error.kind(), "BufferMismatch", "{error}");
    assert!((state, bits(&logits)) == before);
    assert!(State::from_kernel(&rwkv_forge_weights::State::zero(&foreign.description), &model.description).is_err());
    let version_4 = Loaded::random(Version::V4, &ODD, 1);
    assert!(State::from_kernel(&rwkv_forge_weights::State::zero(&version_4.description), &model.description).is_err());
}

#[test]
fn what_a_stream_does_not_have_is_refused() {
    let model = Loaded::random(Version::V6, &ODD, 1);
    let mut stream = LayerStream::new(&model.model(), &EngineOptions::default()).unwrap();
    let mut batch = stream.embed(&[&[1, 2, 3]]).unwrap();
    let layer = stream.load(0).unwrap();
    assert_eq!(stream.load(model.description.hyperparameters.layers).err().unwrap().kind(), "NoSuchLayer");
    let mut states = stream.new_states(2);
    assert_eq!(stream.forward(&layer, &mut batch, &mut states, None).unwrap_err().kind(), "BufferMismatch");
    assert_eq!(stream.forward(&layer, &mut batch, &mut states[..1], Some(&Nobody)).unwrap_err().kind(), "RoundedInputs");
    stream.forward(&layer, &mut batch, &mut states[..1], None).unwrap();
    assert_eq!(stream.embed(&[&[50]]).err().unwrap().kind(), "TokenOutOfRange");
    assert!(stream.load_head(40, 11).is_err());
    let mut head = stream.load_head(40, 10).unwrap();
    assert_eq!(stream.logits(&mut head, &batch.x, &mut [0.0; 29], None).unwrap_err().kind(), "BufferMismatch");
    let shorter = batch.x[1..].to_vec();
    assert_eq!(
        Batch::resume(&model.description, &[3], shorter, rwkv_forge_weights::Context::new()).err().unwrap().kind(),
        "BufferMismatch"
    );
}

/// A tap that drops what it sees.
struct Nobody;

impl Tap for Nobody {
    fn inputs(&self, _: &Inputs<'_>) {}
}

#[test]
fn hybrids_are_refused_by_name() {
    let sizes = Sizes { layers: 1, ..Sizes::TINY };
    for version in Version::HYBRIDS {
        let mut model = Loaded::random(Version::V7, &sizes, 1);
        model.description.version = version;
        model.description.mechanisms.channel_mix = ChannelMix::SwiGlu;
        let errors = [
            Engine::load(&model.model(), &EngineOptions::default(), &mut |_, _| ()).err(),
            LayerStream::new(&model.model(), &EngineOptions::default()).err(),
            memory(&model.model(), &EngineOptions::default()).err(),
        ];
        for error in errors {
            let Some(error @ EngineError::UnsupportedVersion { .. }) = error else { panic!("{version}: {error:?}") };
            let message = error.to_string();
            assert!(message.contains(&version.to_string()) && message.contains("reference") && message.contains("SwiGLU"), "{message}");
        }
    }
}

/// A copy in which one tensor is stored differently: `change` gives its stored shape, encoding, bytes and how to undo it.
fn stored(model: &Loaded, name: &str, change: impl Fn(&[u64], &[f32]) -> (Vec<u64>, Encoding, Vec<u8>, Recover)) -> Loaded {
    let mut description = model.description.clone();
    let mut tensors = Vec::new();
    for spec in &mut description.tensors {
        let values: Vec<f32> = model.model().values(spec).unwrap();
        spec.source_index = tensors.len();
        if spec.name == name {
            let (shape, encoding, bytes, recover) = change(&spec.shape, &values);
            spec.recover = recover;
            tensors.push((spec.name.clone(), shape, encoding, bytes));
        } else {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            tensors.push((spec.name.clone(), spec.shape.clone(), Encoding::F32, bytes));
        }
    }
    Loaded { source: Arc::new(MemorySource::new(tensors)), description }
}

fn encode(encoding: Encoding, values: &[f32]) -> Vec<u8> {
    let format = rwkv_forge_quant::by_encoding(encoding).unwrap();
    let mut bytes = vec![0; values.len() / encoding.block_len as usize * encoding.block_bytes as usize];
    format.encode(values, &mut bytes).unwrap();
    bytes
}

fn swapped(shape: &[u64]) -> Vec<u64> {
    let mut shape = shape.to_vec();
    let last = shape.len() - 1;
    shape.swap(last - 1, last);
    shape
}

/// The last two dimensions swapped.
fn transposed(shape: &[u64], values: &[f32]) -> Vec<f32> {
    let [.., rows, columns] = shape.iter().map(|dim| usize::try_from(*dim).unwrap()).collect::<Vec<_>>()[..] else { panic!() };
    let planes = values.chunks_exact(rows * columns);
    planes.flat_map(|plane| (0..columns).flat_map(|c| (0..rows).map(move |r| plane[r * columns + c])).collect::<Vec<_>>()).collect()
}

/// Compares engine and reference on the same file, and returns the engine's notes.
fn check(model: &Loaded, what: &str) -> Vec<String> {
    let tokens = tokens(20, model.description.hyperparameters.vocabulary);
    let kernel = RecurrentModel::<f32>::load(&model.model(), &KernelOptions::default()).unwrap();
    let mut state = rwkv_forge_weights::State::zero(&model.description);
    let expected = kernel.forward(&tokens, &mut state).unwrap();
    let (found, _) = model.steps(&options(Arithmetic::Float, 1), &tokens);
    let found = agreement(&expected, &found, model.description.hyperparameters.vocabulary);
    assert!(found.rms_ratio < FLOAT, "{what}: {found:?}");
    model.engine(&options(Arithmetic::Float, 1)).notes().to_vec()
}

#[test]
fn every_way_to_store_a_tensor_is_read() {
    let q8_0 = rwkv_forge_quant::by_name("q8_0").unwrap().encoding();
    let wide = Loaded::random(Version::V7, &WIDE, 1);
    let six = Loaded::random(Version::V6, &WIDE, 1);
    // Factors stored [outputs, inputs], as GGUF has them, in dense and block types.
    for (model, name) in [(&wide, "blocks.1.att.w1"), (&wide, "blocks.2.att.g2"), (&six, "blocks.1.att.time_maa_w2")] {
        for encoding in [Encoding::F16, q8_0] {
            // Only rows of whole blocks exist.
            let Some(spec) = model.description.find(name).filter(|spec| encoding.row_bytes(*swapped(&spec.shape).last().unwrap()).is_ok())
            else {
                continue;
            };
            let model = stored(model, &spec.name, |shape, values| {
                (swapped(shape), encoding, encode(encoding, &transposed(shape, values)), Recover::TRANSPOSED)
            });
            assert!(check(&model, &format!("{name} {encoding}")).is_empty(), "{name} {encoding} is kept");
        }
    }
    // A factor in blocks along the wrong dimension must be decoded; bf16 turned loses nothing.
    let model = stored(&wide, "blocks.1.att.w2", |shape, values| (shape.to_vec(), q8_0, encode(q8_0, values), Recover::AS_IS));
    // Decoded to f32, since a code of seven bits times a scale of eleven is more than f16 holds.
    let notes = check(&model, "blocks.1.att.w2 q8_0");
    assert!(notes.len() == 1 && notes[0].contains("blocks.1.att.w2") && notes[0].contains("f32, since f16"), "{notes:?}");
    let model =
        stored(&wide, "blocks.1.att.w2", |shape, values| (shape.to_vec(), Encoding::BF16, encode(Encoding::BF16, values), Recover::AS_IS));
    assert!(check(&model, "bf16 factor").is_empty());
    // A matrix and the embedding stored the other way round.
    for name in ["blocks.0.ffn.key.weight", "emb.weight"] {
        let model = stored(&wide, name, |shape, values| {
            (swapped(shape), Encoding::F32, encode(Encoding::F32, &transposed(shape, values)), Recover::TRANSPOSED)
        });
        let notes = check(&model, name);
        assert_eq!(notes.len(), usize::from(name == "emb.weight"), "{notes:?}");
    }
    // f64 is held in f32.
    let doubles = |shape: &[u64], values: &[f32]| {
        let bytes = values.iter().flat_map(|value| f64::from(*value).to_le_bytes()).collect();
        (shape.to_vec(), Encoding::F64, bytes, Recover::AS_IS)
    };
    for name in ["blocks.0.att.key.weight", "emb.weight", "blocks.1.att.a1"] {
        check(&stored(&wide, name, doubles), name);
    }
}

#[test]
fn powers_of_two_in_stored_values_are_exact() {
    let model = Loaded::random(Version::V6, &WIDE, 1);
    let (expected, _) = model.steps(&options(Arithmetic::Int8, 1), &tokens(9, 70));
    for (name, form) in [("blocks.1.att.value.weight", ValueForm::Eighth), ("blocks.2.ffn.value.weight", ValueForm::Halved(3))] {
        let model = stored(&model, name, |shape, values| {
            let values: Vec<f32> = values.iter().map(|value| form.apply(*value)).collect();
            (shape.to_vec(), Encoding::F32, encode(Encoding::F32, &values), Recover::AS_IS.with_form(form))
        });
        let (found, _) = model.steps(&options(Arithmetic::Int8, 1), &tokens(9, 70));
        assert_eq!(bits(&found), bits(&expected), "{name}");
    }
}

#[test]
fn parts_of_stacked_tensors_are_found() {
    let model = Loaded::random(Version::V7, &WIDE, 1);
    let (expected, _) = model.steps(&options(Arithmetic::Int8, 1), &tokens(9, 70));
    // A stack in which the wanted tensor is the second of three.
    for name in ["blocks.1.att.key.weight", "emb.weight"] {
        let model = stored(&model, name, |shape, values| {
            let stack: Vec<f32> =
                [1.0, 2.0, -1.0].iter().flat_map(|f| values.iter().map(move |v| if *f == 2.0 { *v } else { v * f + 1.0 })).collect();
            let recover = Recover { part: (1, 3), ..Recover::AS_IS };
            (vec![shape[0] * 3, shape[1]], Encoding::F32, encode(Encoding::F32, &stack), recover)
        });
        let (found, _) = model.steps(&options(Arithmetic::Int8, 1), &tokens(9, 70));
        assert_eq!(bits(&found), bits(&expected), "{name}");
    }
}

#[test]
fn a_state_knows_its_version() {
    let model = Loaded::random(Version::V7, &ODD, 1);
    let (_, state) = model.steps(&options(Arithmetic::Float, 1), &tokens(3, 50));
    let kernel = state.to_kernel(&model.description);
    let Wkv::Matrix(matrix) = &kernel.layers[0].wkv else { panic!("RWKV-7 has matrices") };
    // The kernel's matrices are [value, key], which only symmetric ones would not show.
    assert_ne!(matrix[1].to_bits(), matrix[12].to_bits());
}

/// Random blocks of any format. For formats that are only read those whose largest value is between 0.001 and 0.1: found by trying, since
/// where scales stand differs.
fn random_blocks(format: &dyn BlockFormat, count: usize, random: &mut SplitMix64) -> Vec<u8> {
    let encoding = format.encoding();
    if format.facts().encodes {
        let values: Vec<f32> = (0..count * encoding.block_len as usize).map(|_| random.normal() * 0.03).collect();
        return encode(encoding, &values);
    }
    let mut bytes = Vec::new();
    let mut values = vec![0.0f32; encoding.block_len as usize];
    while bytes.len() < count * encoding.block_bytes as usize {
        let block: Vec<u8> = (0..encoding.block_bytes).map(|_| random.next_u64().to_le_bytes()[7]).collect();
        format.decode(&block, &mut values);
        let largest = values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
        if format.validate(&block).is_ok() && values.iter().all(|value| value.is_finite()) && (1e-3..0.1).contains(&largest) {
            bytes.extend(block);
        }
    }
    bytes
}

/// Types with a kernel are held as they are stored; all others are decoded, to f16 where that loses nothing, and a note says to what.
#[test]
fn every_registered_type_runs() {
    let name = "blocks.1.ffn.key.weight";
    let wide = Loaded::random(Version::V7, &WIDE, 1);
    let mut decoded = 0;
    for format in rwkv_forge_quant::FORMATS.iter().filter(|format| !format.encoding().is_dense()) {
        let encoding = format.encoding();
        let mut random = SplitMix64::new(11);
        let blocks = random_blocks(*format, WIDE.channels * WIDE.ffn / encoding.block_len as usize, &mut random);
        let made = |bytes: &[u8]| stored(&wide, name, |shape, _| (shape.to_vec(), encoding, bytes.to_vec(), Recover::AS_IS));
        let model = made(&blocks);
        let notes = check(&model, encoding.name);
        let held = model.engine(&options(Arithmetic::Float, 1)).held_as(name).unwrap();
        if held == encoding {
            assert!(notes.is_empty(), "{notes:?}");
            continue;
        }
        decoded += 1;
        assert_eq!(held, if format.facts().exact_in_f16 { Encoding::F16 } else { Encoding::F32 }, "{encoding}");
        let said = format!("{name} is stored as {encoding}, which cannot be multiplied as it is: decoded to {held}");
        assert!(notes.len() == 1 && notes[0].starts_with(&said), "{notes:?}");
        // Planted fault: the last block in place of the first is beyond the bound; of blocks below 32 weights as many as hold those.
        let mut other = blocks.clone();
        let size = encoding.block_bytes as usize * (32 / encoding.block_len as usize).max(1);
        other.copy_within(blocks.len() - size.., 0);
        let tokens = tokens(20, WIDE.vocabulary);
        let (expected, _) = model.reference(&tokens);
        let (found, _) = made(&other).steps(&options(Arithmetic::Float, 1), &tokens);
        assert!(agreement(&expected, &found, WIDE.vocabulary).rms_ratio > FLOAT, "{encoding}");
    }
    assert!(decoded > 0, "there are formats without a kernel");
}

/// A type that f16 holds but for its range: one block of values below the smallest f16 makes the tensor f32, and the note says so.
#[test]
fn what_f16_would_change_is_held_in_f32() {
    let name = "blocks.1.ffn.key.weight";
    let wide = Loaded::random(Version::V7, &WIDE, 1);
    let mxfp4 = rwkv_forge_quant::by_name("mxfp4").unwrap();
    let mut blocks = random_blocks(mxfp4, WIDE.channels * WIDE.ffn / 32, &mut SplitMix64::new(3));
    // 2^(100 - 128) times odd numbers: the smallest f16 is 2^-24.
    blocks[17 * 40] = 100;
    blocks[17 * 40 + 1..17 * 41].fill(0x31);
    let model = stored(&wide, name, |shape, _| (shape.to_vec(), mxfp4.encoding(), blocks.clone(), Recover::AS_IS));
    let notes = check(&model, "mxfp4");
    assert_eq!(model.engine(&options(Arithmetic::Float, 1)).held_as(name), Some(Encoding::F32));
    assert!(notes.len() == 1 && notes[0].contains("decoded to f32, since f16"), "{notes:?}");
}

#[test]
fn what_is_supported_is_said_by_mechanism() {
    for version in Version::ALL {
        let mechanisms = describe(random_model(version, &Sizes::TINY, 1).tensors()).unwrap().mechanisms;
        if !versions().any(|run| run == version) {
            assert_eq!(supports(&mechanisms), Err(mechanisms.attention.name()), "{version}");
            assert_eq!(supports(&Mechanisms { attention: Attention::None, ..mechanisms }), Ok(()), "{version}");
            continue;
        }
        assert_eq!(supports(&mechanisms), Ok(()), "{version}");
        let without = Mechanisms { norms: Norms { ln0: false, ..mechanisms.norms }, ..mechanisms };
        assert_eq!(supports(&without), Err("an embedding without a norm"), "{version}");
        let regrouped = Mechanisms { norms: Norms { group: !mechanisms.norms.group, ..mechanisms.norms }, ..mechanisms };
        assert!(supports(&regrouped).unwrap_err().contains("group norm"), "{version}");
        let still = Mechanisms { time_shift: TokenShift::None, ..mechanisms };
        assert_eq!(supports(&still), Err(TokenShift::None.name()), "{version}");
        let attention = TimeMix::Qrwkv6 { mix: 6, decay: 7, kv_heads: 4 };
        assert_eq!(supports(&Mechanisms { time_mix: attention, ..mechanisms }), Err(attention.name()), "{version}");
        assert_eq!(supports(&Mechanisms { channel_mix: ChannelMix::SwiGlu, ..mechanisms }), Err(ChannelMix::SwiGlu.name()), "{version}");
    }
}
