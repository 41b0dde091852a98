//! Tuned initial states: where each value lies in each layout, and that a model continues from them.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test support may fail loudly; the numbers in it are small")]

use std::path::Path;

use crate::common::Temp;
use rwkv_forge_convert::state::{InitState, StateFormat, StateHints, StateRecord, StateSizes, StateTarget, read, write};
use rwkv_forge_io::OutputOptions;
use rwkv_forge_kernel::{KernelOptions, RecurrentModel};
use rwkv_forge_model::{ModelDescription, Version, describe};
use rwkv_forge_tensor::{BoxError, Encoding, TensorSource, f16_to_f32, f32_to_f16};
use rwkv_forge_testkit::models::{MemorySource, Sizes, random_model};
use rwkv_forge_weights::{Model, State, Wkv};

/// Versions with a matrix state.
const VERSIONS: [Version; 5] = [Version::V5_0, Version::V5_1, Version::V5_2, Version::V6, Version::V7];
/// Those of `Sizes::TINY`.
const SIZES: StateSizes = StateSizes { layers: 2, heads: 4, head_size: 8 };

fn target(format: StateFormat, version: Version) -> StateTarget<'static> {
    StateTarget { format, version: Some(version), encoding: None, allow_loss: false, package: &[] }
}

fn hints(format: StateFormat, version: Version) -> StateHints {
    StateHints { format: Some(format), version: Some(version), sizes: Some(SIZES), ..StateHints::default() }
}

fn store(state: &InitState, target: &StateTarget, path: &Path) -> Result<StateRecord, BoxError> {
    write(state, target, path, &OutputOptions { force: true, ..OutputOptions::default() })
}

/// Value i of key j in head h of layer l, all different and exact in every type, also after a division by 8.
fn numbered() -> InitState {
    let n = SIZES.head_size;
    let layer = |l: usize| (0..SIZES.heads * n * n).map(|index| (l * 1000 + index) as f32).collect();
    InitState { sizes: SIZES, layers: (0..SIZES.layers).map(layer).collect(), shifts: Vec::new() }
}

/// Whether a format has a place for states of this version.
fn is_for(format: StateFormat, version: Version) -> bool {
    let llama = [StateFormat::LlamaSession, StateFormat::LlamaSequence].contains(&format);
    !llama || [Version::V6, Version::V7].contains(&version)
}

/// The number of `numbered` at these places.
fn number(layer: usize, head: usize, value: usize, key: usize) -> f32 {
    (layer * 1000 + head * 64 + value * 8 + key) as f32
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

#[test]
fn every_value_has_its_documented_place() {
    let state = numbered();
    for version in VERSIONS {
        let file = Temp::new("buffer.bin");
        store(&state, &target(StateFormat::RwkvCpp, version), &file.0).unwrap();
        let values = floats(&std::fs::read(&file.0).unwrap());
        let (channels, square) = (32, 64);
        assert_eq!(values.len(), 2 * (2 * channels + 4 * square));
        for (layer, chunk) in values.chunks_exact(2 * channels + 4 * square).enumerate() {
            assert!(chunk[..2 * channels].iter().all(|value| *value == 0.0), "token shifts");
            for (head, value, key) in places() {
                let within = if version == Version::V7 { value * 8 + key } else { key * 8 + value };
                let divisor = if [Version::V6, Version::V7].contains(&version) { 1.0 } else { 8.0 };
                assert_eq!(chunk[2 * channels + head * square + within], number(layer, head, value, key) / divisor, "{version}");
            }
        }
    }
    for (format, extension) in [(StateFormat::Pth, "pth"), (StateFormat::WebRwkv, "st")] {
        let file = Temp::new(extension);
        store(&state, &target(format, Version::V6), &file.0).unwrap();
        let source = rwkv_forge_checkpoint::open(&file.0, &rwkv_forge_checkpoint::Limits::default()).unwrap();
        for (index, info) in source.tensors().iter().enumerate() {
            let layer = if info.name == "blocks.0.att.time_state" { 0 } else { 1 };
            assert_eq!((info.name.as_str(), info.shape.as_slice()), (format!("blocks.{layer}.att.time_state").as_str(), &[4, 8, 8][..]));
            let mut bytes = vec![0; info.byte_len().unwrap() as usize];
            source.read_at(index, 0, &mut bytes).unwrap();
            for (head, value, key) in places() {
                let (found, expected) = if format == StateFormat::Pth {
                    assert_eq!(info.encoding, Encoding::F32);
                    (floats(&bytes)[head * 64 + value * 8 + key], number(layer, head, value, key))
                } else {
                    assert_eq!(info.encoding, Encoding::F16);
                    let at = (head * 64 + key * 8 + value) * 2;
                    (f16_to_f32(u16::from_le_bytes([bytes[at], bytes[at + 1]])), number(layer, head, value, key))
                };
                assert_eq!(found, expected, "{}: head {head}, value {value}, key {key}", format.name());
            }
        }
    }
}

fn places() -> impl Iterator<Item = (usize, usize, usize)> {
    (0..256).map(|index| (index / 64, index / 8 % 8, index % 8))
}

#[test]
fn round_trips_are_exact() {
    let state = numbered();
    for version in VERSIONS {
        for format in StateFormat::ALL {
            let file = Temp::new("state");
            if !is_for(format, version) {
                assert_eq!(kind(store(&state, &target(format, version), &file.0)), "NotInLlama", "{version}");
                continue;
            }
            let record = store(&state, &target(format, version), &file.0).unwrap();
            assert_eq!((record.rounded, record.output_bytes), (0, file.0.metadata().unwrap().len()), "{version} {}", format.name());
            let (back, found) = read(&file.0, &hints(format, version)).unwrap();
            assert_eq!((back, found), (state.clone(), format), "{version} {}", format.name());
        }
    }
    // Files with names say themselves what they are; bf16 widens to f32 without loss.
    for (format, encoding) in [(StateFormat::Pth, Encoding::BF16), (StateFormat::Pth, Encoding::F16), (StateFormat::WebRwkv, Encoding::F16)]
    {
        let file = Temp::new("state");
        // bf16 holds integers up to 256 only.
        let state = InitState { layers: state.layers.iter().map(|l| l.iter().map(|v| v % 256.0).collect()).collect(), ..state.clone() };
        store(&state, &StateTarget { encoding: Some(encoding), ..target(format, Version::V7) }, &file.0).unwrap();
        assert_eq!(read(&file.0, &StateHints::default()).unwrap(), (state, format));
    }
    // Sizes of a buffer follow from its length, layers and heads.
    let file = Temp::new("buffer.bin");
    store(&state, &target(StateFormat::RwkvCpp, Version::V6), &file.0).unwrap();
    let sparse = StateHints { sizes: None, layers: Some(2), heads: Some(4), ..hints(StateFormat::RwkvCpp, Version::V6) };
    assert_eq!(read(&file.0, &sparse).unwrap().0, state);
}

/// A model in which one channel makes the keys and another one the values.
fn one_key_one_value(version: Version, key: usize, value: usize) -> MemorySource {
    MemorySource::from_tensors(random_model(version, &Sizes::TINY, 5).into_tensors().into_iter().map(|mut tensor| {
        let kept = match tensor.info.name.as_str() {
            name if name.ends_with("att.key.weight") => Some(key),
            name if name.ends_with("att.value.weight") => Some(value),
            _ => None,
        };
        if let Some(kept) = kept {
            let row = Sizes::TINY.channels * 4;
            for (index, bytes) in tensor.bytes.chunks_exact_mut(row).enumerate() {
                if index != kept {
                    bytes.fill(0);
                }
            }
        }
        tensor
    }))
}

fn load(source: &MemorySource) -> (ModelDescription, RecurrentModel<f32>) {
    let description = describe(source.tensors()).unwrap();
    let model = RecurrentModel::load(&Model::new(source.clone(), description.clone()), &KernelOptions::default()).unwrap();
    (description, model)
}

/// The layout's axes by what they mean: after one token the state is k v^T, and here k has one channel and v another.
#[test]
fn the_first_axis_is_the_value_and_the_second_the_key() {
    for version in VERSIONS {
        let (key, value) = (3, 5);
        let source = one_key_one_value(version, key, value);
        let (description, model) = load(&source);
        let mut state = State::zero(&description);
        model.residual(&[7], &mut state).unwrap();
        let state = InitState::of_kernel(&state, &description).unwrap();
        for (layer, values) in state.layers.iter().enumerate() {
            let non_zero: Vec<usize> = (0..values.len()).filter(|index| values[*index] != 0.0).collect();
            assert_eq!(non_zero, [value * 8 + key], "{version}, layer {layer}");
        }
    }
}

/// A prompt's matrix state through a file and back into the kernel: the model goes on as if nothing had happened. A
/// state with its axes swapped makes another continuation, so that the test would see it.
#[test]
fn models_continue_from_a_state_file_bit_for_bit() {
    let prompt: Vec<u32> = (0..17).map(|i| i * 7 % 40).collect();
    let rest: Vec<u32> = (0..9).map(|i| i * 11 % 40).collect();
    for version in VERSIONS {
        let source = random_model(version, &Sizes::TINY, 21);
        let (description, model) = load(&source);
        let mut after = State::zero(&description);
        model.residual(&prompt, &mut after).unwrap();
        // Values that f16 holds, so that each of the formats holds them.
        for layer in &mut after.layers {
            let Wkv::Matrix(values) = &mut layer.wkv else { panic!("{version} has matrices") };
            values.iter_mut().for_each(|value| *value = f16_to_f32(f32_to_f16(*value)));
        }
        let logits = |mut state: State<f32>| model.forward(&rest, &mut state).unwrap();
        let expected = logits(after.clone());
        let tuned = InitState::of_kernel(&after, &description).unwrap();
        for format in StateFormat::ALL.into_iter().filter(|format| is_for(*format, version)) {
            let file = Temp::new("state");
            store(&tuned, &StateTarget { allow_loss: true, ..target(format, version) }, &file.0).unwrap();
            let (back, _) = read(&file.0, &hints(format, version)).unwrap();
            let mut resumed = State::zero(&description);
            for (resumed, after) in resumed.layers.iter_mut().zip(&after.layers) {
                resumed.att_shift.clone_from(&after.att_shift);
                resumed.ffn_shift.clone_from(&after.ffn_shift);
            }
            back.put_into_kernel(&mut resumed, &description).unwrap();
            assert!(logits(resumed.clone()) == expected, "{version} {}", format.name());
            // The planted fault: the same file read as if its axes were the other way round.
            if format == StateFormat::WebRwkv {
                let (swapped, _) = read(&file.0, &hints(StateFormat::Pth, version)).unwrap();
                swapped.put_into_kernel(&mut resumed, &description).unwrap();
                assert!(logits(resumed) != expected, "{version}: swapped axes go unnoticed");
            }
        }
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T, BoxError>) -> &'static str {
    result.unwrap_err().kind()
}

#[test]
fn losses_are_refused_unless_allowed() {
    let mut state = numbered();
    let web = target(StateFormat::WebRwkv, Version::V6);
    let file = Temp::new("state");
    // 256 values a layer, the first of them zero: up to a hundredth may vanish, as of any tensor.
    state.layers[1][9] = 1e-9;
    state.layers[1][10] = 1e-5;
    state.layers[0][3] = 1.0 + f32::EPSILON;
    for format in [StateFormat::WebRwkv, StateFormat::Rmpack] {
        let file = Temp::new("state");
        let record = store(&state, &target(format, Version::V6), &file.0).unwrap();
        assert_eq!((record.flushed, record.subnormal, record.rounded), (1, 1, 3), "{}", format.name());
    }
    state.layers[1][11..13].fill(-1e-9);
    for format in [StateFormat::WebRwkv, StateFormat::Rmpack] {
        let error = store(&state, &target(format, Version::V6), &file.0).unwrap_err();
        assert_eq!(error.kind(), "StateLoss");
        let said = error.to_string();
        assert!(said.contains("3 of the 256 values of layer 1") && said.contains("--allow-f16-loss") && said.contains("a .pth"), "{said}");
        assert!(!file.0.exists(), "nothing is left behind");
    }
    let record = store(&state, &StateTarget { allow_loss: true, ..web }, &file.0).unwrap();
    assert_eq!((record.flushed, record.subnormal, record.rounded), (3, 1, 5));
    // What the refusal names: a .pth holds them all.
    assert_eq!(store(&state, &target(StateFormat::Pth, Version::V6), &file.0).unwrap().rounded, 0);
    state.layers[0][0] = 70_000.0;
    assert_eq!(kind(store(&state, &StateTarget { allow_loss: true, ..web }, &file.0)), "Overflow");
    assert_eq!(kind(store(&numbered(), &StateTarget { encoding: Some(Encoding::F32), ..web }, &file.0)), "TypeNotCarried");
    // An eighth of the smallest numbers is nothing.
    state.layers[0][..2].fill(f32::from_bits(1));
    assert_eq!(store(&state, &target(StateFormat::RwkvCpp, Version::V5_2), &file.0).unwrap().flushed, 2);
    state.layers[0][2] = f32::from_bits(1);
    assert_eq!(kind(store(&state, &target(StateFormat::RwkvCpp, Version::V5_2), &file.0)), "StateLoss");
    assert_eq!(store(&state, &target(StateFormat::RwkvCpp, Version::V6), &file.0).unwrap().rounded, 0);
}

#[test]
fn what_cannot_be_known_is_asked_for() {
    let file = Temp::new("buffer.bin");
    store(&numbered(), &target(StateFormat::RwkvCpp, Version::V7), &file.0).unwrap();
    let full = hints(StateFormat::RwkvCpp, Version::V7);
    let read_kind = |hints: StateHints| kind(read(&file.0, &hints));
    assert_eq!(read_kind(StateHints::default()), "UnknownStateFormat");
    assert_eq!(read_kind(StateHints { version: None, ..full }), "StateSizesNeeded");
    assert_eq!(read_kind(StateHints { sizes: None, layers: Some(2), ..full }), "StateSizesNeeded");
    assert_eq!(read_kind(StateHints { version: Some(Version::V4), ..full }), "NoMatrixState");
    assert_eq!(read_kind(StateHints { sizes: None, layers: Some(2), heads: Some(3), ..full }), "StateSizeMismatch");
    assert_eq!(read_kind(StateHints { sizes: Some(StateSizes { layers: 3, ..SIZES }), ..full }), "StateSizeMismatch");
    assert_eq!(
        kind(store(&numbered(), &StateTarget { version: None, ..target(StateFormat::RwkvCpp, Version::V7) }, &file.0)),
        "StateSizesNeeded"
    );
    // A buffer after some tokens is no initial state.
    let mut bytes = std::fs::read(&file.0).unwrap();
    bytes[..4].copy_from_slice(&1.0f32.to_le_bytes());
    std::fs::write(&file.0, &bytes).unwrap();
    assert_eq!(read_kind(full), "StateHasTokens");
    bytes[..4].copy_from_slice(&[0; 4]);
    bytes[1024..1028].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&file.0, &bytes).unwrap();
    assert_eq!(read_kind(full), "NonFinite");
}

#[test]
fn files_that_hold_something_else_are_refused() {
    let tensor = |name: &str, shape: &[u64]| {
        let elements: u64 = shape.iter().product();
        (name.to_owned(), shape.to_vec(), vec![0.5; elements as usize])
    };
    let refused = |tensors: Vec<(String, Vec<u64>, Vec<f32>)>| {
        let file = Temp::safetensors(&MemorySource::from_f32(tensors));
        kind(read(&file.0, &StateHints::default()))
    };
    let state = |layer: usize| tensor(&format!("blocks.{layer}.att.time_state"), &[2, 4, 4]);
    assert_eq!(refused(vec![state(0), tensor("emb.weight", &[2, 2])]), "NotAState");
    // A whole model without one is told as that, and what is no model by what it holds.
    let model = Temp::safetensors(&random_model(Version::V7, &Sizes::TINY, 7));
    let error = read(&model.0, &StateHints::default()).unwrap_err();
    assert!(
        error.kind() == "NotAState" && error.to_string().contains("starts from zeros") && error.to_string().contains("state tuning"),
        "{error}"
    );
    let file = Temp::safetensors(&MemorySource::from_f32(vec![tensor("other", &[2, 2])]));
    assert!(read(&file.0, &StateHints::default()).unwrap_err().to_string().contains("holds the tensor other"));
    assert_eq!(refused(vec![state(0), state(2)]), "NotAState");
    assert_eq!(refused(vec![state(0), tensor("blocks.1.att.time_state", &[2, 4, 5])]), "NotAState");
    assert_eq!(refused(vec![state(0), tensor("blocks.1.att.time_state", &[3, 4, 4])]), "NotAState");
    assert_eq!(refused(vec![tensor("blocks.00.att.time_state", &[2, 4, 4])]), "NotAState");
    let file = Temp::safetensors(&MemorySource::from_f32(vec![state(0), state(1)]));
    assert_eq!(kind(read(&file.0, &StateHints { sizes: Some(SIZES), ..StateHints::default() })), "StateSizeMismatch");
    assert!(read(&file.0, &StateHints::default()).is_ok());
}

/// web-rwkv's are f16; in another type a safetensors file is a trainer's state saved anew, and in each case a note says what was taken.
#[test]
fn safetensors_do_not_say_the_order() {
    let layer = |layer: usize| {
        let values: Vec<f32> = (0..32).map(|index| (layer * 100 + index) as f32).collect();
        (format!("blocks.{layer}.att.time_state"), vec![2, 4, 4], values)
    };
    let wide = Temp::safetensors(&MemorySource::from_f32(vec![layer(0), layer(1)]));
    let found = rwkv_forge_convert::state::find(&wide.0, &StateHints::default()).unwrap();
    assert_eq!((found.format, &found.state.layers[0]), (StateFormat::Pth, &layer(0).2));
    assert!(found.notes.iter().any(|note| note.contains("--from web-rwkv")), "{:?}", found.notes);
    let other = StateHints { format: Some(StateFormat::WebRwkv), ..StateHints::default() };
    let turned = rwkv_forge_convert::state::find(&wide.0, &other).unwrap();
    assert!(turned.notes.is_empty() && turned.state.layers != found.state.layers, "{:?}", turned.notes);
}

#[test]
fn files_of_a_package_do_not_lie_over_each_other() {
    let good = Temp::safetensors(&MemorySource::from_f32(vec![("x".to_owned(), vec![1], vec![0.0])]));
    store(&numbered(), &target(StateFormat::Rmpack, Version::V7), &good.0).unwrap();
    let bytes = std::fs::read(&good.0).unwrap();
    let size = (SIZES.heads * SIZES.head_size * SIZES.head_size * 2) as u64;
    // An entry ends with its size and its offset; both files at the place of the first.
    let entry = |offset: u64| [size.to_le_bytes(), offset.to_le_bytes()].concat();
    let second = bytes.windows(16).rposition(|window| window[..8] == size.to_le_bytes() && window[8..] == 8192u64.to_le_bytes()).unwrap();
    let mut over = bytes.clone();
    over[second..second + 16].copy_from_slice(&entry(4096));
    std::fs::write(&good.0, over).unwrap();
    let error = read(&good.0, &StateHints::default()).err().unwrap();
    assert!(error.to_string().contains("over each other"), "{error}");
}

/// The reference: what the rwkv package computes from a state merged into the model's file. The kernel and the package
/// sum in different orders, which makes 6e-6 here; a state with its axes swapped is off by 5 and more.
#[test]
fn the_rwkv_package_starts_from_the_same_state() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let tokens: Vec<u32> = (0..16).map(|index| index * 37 % 320).collect();
    for version in ["5", "6"] {
        let open = rwkv_forge_convert::open(
            &fixtures.join(format!("checkpoints/tiny-rwkv{version}.pth")),
            rwkv_forge_convert::OpenOptions::default(),
        );
        let open = open.unwrap();
        let model = RecurrentModel::<f32>::load(&open.model, &KernelOptions::default()).unwrap();
        let expected = floats(&std::fs::read(fixtures.join(format!("states/tiny-rwkv{version}.logits.f32"))).unwrap());
        let sizes = Some(StateSizes::of(open.description()).unwrap());
        let furthest = |format| {
            let hints = StateHints { format: Some(format), sizes, ..StateHints::default() };
            let (tuned, _) = read(&fixtures.join("states/tiny-state.pth"), &hints).unwrap();
            let mut state = State::zero(open.description());
            tuned.put_into_kernel(&mut state, open.description()).unwrap();
            let logits = model.forward(&tokens, &mut state).unwrap();
            assert_eq!(logits.len(), expected.len());
            logits.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        let (right, swapped) = (furthest(StateFormat::Pth), furthest(StateFormat::WebRwkv));
        assert!(right < 5e-5, "RWKV-{version}: {right}");
        assert!(swapped > 0.5, "RWKV-{version}: swapped axes make {swapped}");
    }
}
