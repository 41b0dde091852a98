//! Files of states for other people's runtimes, byte by byte, and what is wrong with them; names of other trainers.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test support may fail loudly; the numbers in it are small")]

use crate::common::Temp;
use rwkv_forge_convert::state::{InitState, StateFormat, StateHints, StateSizes, StateTarget, TokenShifts, find, read, write};
use rwkv_forge_io::OutputOptions;
use rwkv_forge_model::{Version, describe};
use rwkv_forge_tensor::{BoxError, Encoding, TensorSource, f32_to_f16};
use rwkv_forge_testkit::models::{MemorySource, Sizes, encode, random_model};
use rwkv_forge_weights::Model;

/// Two layers of two heads of two channels.
const SIZES: StateSizes = StateSizes { layers: 2, heads: 2, head_size: 2 };

/// 1 to 8 and 101 to 108.
fn small() -> InitState {
    let layer = |first: u8| (first..first + 8).map(f32::from).collect();
    InitState { sizes: SIZES, layers: vec![layer(1), layer(101)], shifts: Vec::new() }
}

fn shifted() -> InitState {
    let shifts = |first: f32| TokenShifts { att: vec![first, 0.0, -1.0, 2.0], ffn: vec![0.5, first, 0.0, 0.0] };
    InitState { shifts: vec![shifts(3.0), shifts(4.0)], ..small() }
}

fn stored(state: &InitState, format: StateFormat, version: Version) -> Result<Temp, BoxError> {
    let file = Temp::new(format.name());
    let target = StateTarget { format, version: Some(version), encoding: None, allow_loss: false, package: &[] };
    write(state, &target, &file.0, &OutputOptions::default())?;
    Ok(file)
}

fn kind<T: std::fmt::Debug>(result: Result<T, BoxError>) -> &'static str {
    result.unwrap_err().kind()
}

/// The words of a file, numbers as they are and floats by their bits.
struct Words(Vec<u8>);

impl Words {
    fn u32(mut self, values: &[u32]) -> Self {
        self.0.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self
    }

    fn row(mut self, values: &[f32]) -> Self {
        self.0.extend(0i32.to_le_bytes());
        self.0.extend((values.len() as u64 * 4).to_le_bytes());
        self.0.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self
    }
}

#[test]
fn llama_files_are_these_bytes() {
    let zeros = [0.0; 8];
    // Heads of [[1, 2], [3, 4]]: by value for RWKV-7, by key for RWKV-6.
    let orders: [(Version, &str, [[f32; 8]; 2]); 2] = [
        (Version::V7, "rwkv7", [[1., 2., 3., 4., 5., 6., 7., 8.], [101., 102., 103., 104., 105., 106., 107., 108.]]),
        (Version::V6, "rwkv6", [[1., 3., 2., 4., 5., 7., 6., 8.], [101., 103., 102., 104., 105., 107., 106., 108.]]),
    ];
    for (version, name, [first, second]) in orders {
        let data = |words: Words| words.u32(&[0, 2]).row(&zeros).row(&zeros).row(&first).row(&second).0;
        let mut head = Words(b"nsgg".to_vec()).u32(&[10, 0, 5]);
        head.0.extend(name.as_bytes());
        let session = data(head.u32(&[1, u32::MAX, 1, 0]));
        let sequence = data(Words(b"qsgg".to_vec()).u32(&[3, 0, 1, u32::MAX, 0]));
        for (format, expected) in [(StateFormat::LlamaSession, session), (StateFormat::LlamaSequence, sequence)] {
            let file = stored(&small(), format, version).unwrap();
            assert_eq!(std::fs::read(&file.0).unwrap(), expected, "{name} {}", format.name());
            // A session says its version; of a sequence it has to be known.
            let hints = StateHints { version: (format == StateFormat::LlamaSequence).then_some(version), ..StateHints::default() };
            let found = find(&file.0, &hints).unwrap();
            assert_eq!((found.state, found.format, found.version), (small(), format, Some(version)));
        }
    }
    let file = stored(&small(), StateFormat::LlamaSequence, Version::V7).unwrap();
    assert_eq!(kind(find(&file.0, &StateHints::default())), "StateSizesNeeded");
    let file = stored(&small(), StateFormat::LlamaSession, Version::V7).unwrap();
    let other = StateHints { version: Some(Version::V6), ..StateHints::default() };
    assert_eq!(kind(find(&file.0, &other)), "StateSizeMismatch");
    for version in [Version::V5_0, Version::V5_2] {
        let error = stored(&small(), StateFormat::LlamaSession, version).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), "NotInLlama");
        // The formats that it names take it.
        for format in [StateFormat::WebRwkv, StateFormat::Pth] {
            assert!(error.to_string().contains(format.name()));
            stored(&small(), format, version).unwrap();
        }
    }
    // Of RWKV-7a web-rwkv knows nothing either.
    let error = stored(&small(), StateFormat::LlamaSession, Version::V7a).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("--to pth") && !error.contains(StateFormat::WebRwkv.name()), "{error}");
}

#[test]
fn token_shifts_go_where_there_is_a_place() {
    for format in [StateFormat::LlamaSession, StateFormat::LlamaSequence] {
        for version in [Version::V6, Version::V7] {
            let file = stored(&shifted(), format, version).unwrap();
            let hints = StateHints { version: Some(version), ..StateHints::default() };
            assert_eq!(read(&file.0, &hints).unwrap().0, shifted());
        }
    }
    // rwkv.cpp has the channel mix first.
    let file = stored(&shifted(), StateFormat::RwkvCpp, Version::V7).unwrap();
    let bytes = std::fs::read(&file.0).unwrap();
    let first: Vec<u8> = [0.5f32, 3.0, 0.0, 0.0, 3.0, 0.0, -1.0, 2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(bytes[..32], first);
    for format in [StateFormat::Pth, StateFormat::WebRwkv, StateFormat::Rmpack] {
        let error = stored(&shifted(), format, Version::V7).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), "ShiftsNotCarried");
        assert!(error.to_string().contains("llama-session"));
    }
}

/// A session with some of its bytes changed.
fn changed(at: usize, bytes: &[u8]) -> Result<InitState, BoxError> {
    let file = stored(&shifted(), StateFormat::LlamaSession, Version::V7)?;
    let mut all = std::fs::read(&file.0).unwrap();
    all[at..at + bytes.len()].copy_from_slice(bytes);
    std::fs::write(&file.0, all).unwrap();
    Ok(read(&file.0, &StateHints { format: Some(StateFormat::LlamaSession), ..StateHints::default() })?.0)
}

#[test]
fn hostile_llama_files_are_refused() {
    let word = |value: u32| value.to_le_bytes();
    assert!(changed(0, b"nsgg").is_ok(), "a change that is none");
    let version_9 = changed(4, &word(9)).unwrap_err();
    assert_eq!(version_9.kind(), "DamagedState");
    assert!(version_9.to_string().contains("version 9") && version_9.to_string().contains("state --to llama-session"));
    assert_eq!(kind(changed(8, &word(7))), "StateHasTokens");
    for (at, bytes) in [
        (0, word(1)),
        // Lengths of names, cells, sequences; the order of matrices; layers.
        (12, word(u32::MAX)),
        (21, word(2)),
        (29, word(u32::MAX)),
        (37, word(1)),
        (41, word(0)),
        (41, word(u32::MAX)),
        (41, word(4096)),
        (41, word(1)),
        // Type and bytes of the first row.
        (45, word(1)),
        (49, word(u32::MAX)),
        (53, word(u32::MAX)),
        (49, word(30)),
        (49, word(0)),
        (49, word(28)),
    ] {
        assert_eq!(kind(changed(at, &bytes)), "DamagedState", "at {at}");
    }
    let hybrid = changed(16, b"arwkv").unwrap_err();
    assert!(hybrid.to_string().contains("arwkv") && hybrid.to_string().contains("rwkv6 and rwkv7"), "{hybrid}");
    // With token shifts after the first token, it is the state of a text.
    assert_eq!(kind(changed(25, &word(0))), "StateHasTokens");
    assert_eq!(kind(changed(57, &f32::NAN.to_le_bytes())), "NonFinite");
    // Cut anywhere, or too long.
    let file = stored(&small(), StateFormat::LlamaSession, Version::V7).unwrap();
    let all = std::fs::read(&file.0).unwrap();
    for length in 8..all.len() {
        std::fs::write(&file.0, &all[..length]).unwrap();
        assert_eq!(kind(read(&file.0, &StateHints::default())), "DamagedState", "{length} bytes");
    }
    std::fs::write(&file.0, [all.as_slice(), &[0; 3]].concat()).unwrap();
    assert_eq!(kind(read(&file.0, &StateHints::default())), "DamagedState");
    // A position of 0 is what an older script wrote: without token shifts nothing was read.
    let mut zero = all;
    zero[25..29].fill(0);
    std::fs::write(&file.0, &zero).unwrap();
    assert_eq!(read(&file.0, &StateHints::default()).unwrap().0, small());
}

/// A package as rwkv-mobile's script writes it.
fn package(configuration: &str, files: &[(&str, u64, u64)], data: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let word = |length: usize| (length as u32).to_le_bytes();
    let mut out = b"RWKVMBLE".to_vec();
    out.extend(word(configuration.len()));
    out.extend(configuration.as_bytes());
    out.extend(word(files.len()));
    for (name, size, offset) in files {
        out.extend(word(name.len()));
        out.extend(name.as_bytes());
        out.extend(size.to_le_bytes());
        out.extend(offset.to_le_bytes());
    }
    for (offset, bytes) in data {
        out.resize(*offset, 0);
        out.extend(bytes);
    }
    out
}

const FIRST: &str = "blocks.0.att.time_state";
const SECOND: &str = "blocks.1.att.time_state";

fn halves(state: &InitState, layer: usize) -> Vec<u8> {
    state.layers[layer].iter().flat_map(|value| f32_to_f16(*value).to_le_bytes()).collect()
}

#[test]
fn packages_of_rwkv_mobile_are_these_bytes() {
    let data = [(4096, halves(&small(), 0)), (8192, halves(&small(), 1))];
    let expected = package("{\"hidden_size\": 4}", &[(FIRST, 16, 4096), (SECOND, 16, 8192)], &data);
    let file = stored(&small(), StateFormat::Rmpack, Version::V7).unwrap();
    assert_eq!(std::fs::read(&file.0).unwrap(), expected);
    let found = find(&file.0, &StateHints::default()).unwrap();
    assert_eq!((found.state, found.format, found.notes.len()), (small(), StateFormat::Rmpack, 0));
    // Layers in another order, and a word for the app alone, which is said to be lost.
    let flower = package("{\"flower_template\": true, \"hidden_size\": 4}", &[(SECOND, 16, 8192), (FIRST, 16, 4096)], &data);
    std::fs::write(&file.0, flower).unwrap();
    let found = find(&file.0, &StateHints::default()).unwrap();
    assert_eq!(found.state, small());
    assert!(found.notes[0].contains("flower_template = true"), "{:?}", found.notes);
    // Another package keeps it; so it does with whatever else there is, quotes and all.
    for said in ["\"flower_template\": true", "\"a \\\"b\\\"\": [1, {\"c\": null}], \"flower_template\": \"no\""] {
        let whole = package(&format!("{{\"hidden_size\": 4, {said}}}"), &[(FIRST, 16, 4096), (SECOND, 16, 8192)], &data);
        std::fs::write(&file.0, whole).unwrap();
        let found = find(&file.0, &StateHints::default()).unwrap();
        let again = Temp::new("again.rmpack");
        let target = StateTarget { format: StateFormat::Rmpack, version: None, encoding: None, allow_loss: false, package: &found.package };
        write(&found.state, &target, &again.0, &OutputOptions::default()).unwrap();
        let kept = find(&again.0, &StateHints::default()).unwrap();
        assert!(kept == found && kept.package.iter().any(|(key, _)| key == "flower_template"), "{kept:?}");
    }
}

/// What no runtime of a format runs is not written for it.
#[test]
fn states_of_rwkv7a_are_for_trainers_alone() {
    for (format, runtime) in [(StateFormat::WebRwkv, "web-rwkv"), (StateFormat::Rmpack, "rwkv-mobile")] {
        let error = stored(&small(), format, Version::V7a).err().expect("a refusal");
        assert_eq!(error.kind(), "StateNotInRuntime");
        assert!(
            error.to_string().contains(runtime) && error.to_string().contains("RWKV-7a") && error.to_string().contains("--to pth"),
            "{error}"
        );
        assert!(stored(&small(), format, Version::V7).is_ok());
    }
    assert!(stored(&small(), StateFormat::Pth, Version::V7a).is_ok(), "what is named instead works");
}

#[test]
fn hostile_packages_are_refused() {
    let data = [(4096, halves(&small(), 0)), (8192, halves(&small(), 1))];
    let size = "{\"hidden_size\": 4}";
    let refused = |configuration: &str, files: &[(&str, u64, u64)]| {
        let file = Temp::new("hostile.rmpack");
        std::fs::write(&file.0, package(configuration, files, &data)).unwrap();
        let error = read(&file.0, &StateHints::default()).unwrap_err();
        assert_eq!(error.kind(), "DamagedState", "{configuration} {files:?}");
        error.to_string()
    };
    let good = [(FIRST, 16, 4096), (SECOND, 16, 8192)];
    for configuration in
        ["", "[]", "{}", "{\"hidden_size\": 0}", "{\"hidden_size\": 3}", "{\"hidden_size\": \"4\"}", "{\"hidden_size\": 1e30}"]
    {
        refused(configuration, &good);
    }
    for files in [
        vec![],
        vec![(FIRST, 16, 4096), (SECOND, 16, 8193)],
        vec![(FIRST, 16, 4096), (SECOND, 16, u64::MAX)],
        vec![(FIRST, u64::MAX, 4096), (SECOND, u64::MAX, 8192)],
        vec![(FIRST, 16, 4096), (SECOND, 8, 8192)],
        vec![(FIRST, 16, 4096), (FIRST, 16, 8192)],
        vec![(SECOND, 16, 4096)],
        vec![(FIRST, 0, 4096)],
        vec![("blocks.00.att.time_state", 16, 4096)],
    ] {
        refused(size, &files);
    }
    // Many names for the same bytes take no memory beyond them.
    let names: Vec<String> = (0..2000).map(|layer| format!("blocks.{layer}.att.time_state")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), 8192, 0)).collect();
    refused("{\"hidden_size\": 64}", &many);
    assert!(refused(size, &[("model.bin", 16, 4096)]).contains("model.bin"));
    // Cut within the header.
    let file = stored(&small(), StateFormat::Rmpack, Version::V7).unwrap();
    let all = std::fs::read(&file.0).unwrap();
    for length in (8..140).chain([4096, 4100, 8192, 8207]) {
        std::fs::write(&file.0, &all[..length]).unwrap();
        assert_eq!(kind(read(&file.0, &StateHints::default())), "DamagedState", "{length} bytes");
    }
}

fn tensor(name: String, shape: &[u64], values: &[f32], encoding: Encoding) -> (String, Vec<u64>, Encoding, Vec<u8>) {
    (name, shape.to_vec(), encoding, encode(encoding, values))
}

/// TorchTitan's artifact: matrices in f32, token shifts in bf16.
fn torch_titan(state: &InitState, prefix: &str) -> MemorySource {
    let layers = state.layers.iter().zip(&state.shifts).enumerate();
    MemorySource::new(
        layers
            .flat_map(|(layer, (values, shifts))| {
                let name = |suffix: &str| format!("{prefix}layers.{layer}.{suffix}");
                [
                    tensor(name("linear_attn.initial_shift"), &[4], &shifts.att, Encoding::BF16),
                    tensor(name("linear_attn.initial_wkv_state"), &[2, 2, 2], values, Encoding::F32),
                    tensor(name("mlp.initial_shift"), &[4], &shifts.ffn, Encoding::BF16),
                ]
            })
            .collect(),
    )
}

#[test]
fn torch_titans_states_are_read_with_their_token_shifts() {
    for prefix in ["", "model.", "_orig_mod."] {
        let file = Temp::safetensors(&torch_titan(&shifted(), prefix));
        let found = find(&file.0, &StateHints::default()).unwrap();
        assert_eq!((&found.state, found.format), (&shifted(), StateFormat::Pth));
        assert!(found.notes.iter().any(|note| note.contains("[heads, value, key]")), "{:?}", found.notes);
    }
    // The other order, for whoever knows better.
    let file = Temp::safetensors(&torch_titan(&shifted(), ""));
    let hints = StateHints { format: Some(StateFormat::WebRwkv), ..StateHints::default() };
    assert_eq!(find(&file.0, &hints).unwrap().state.layers[0], [1., 3., 2., 4., 5., 7., 6., 8.]);
    // Zeros are no token shifts.
    let zero = TokenShifts { att: vec![0.0; 4], ffn: vec![0.0; 4] };
    let file = Temp::safetensors(&torch_titan(&InitState { shifts: vec![zero.clone(), zero], ..small() }, ""));
    assert_eq!(find(&file.0, &StateHints::default()).unwrap().state, small());
    // A part that is missing, or of another size.
    let without =
        |name: &str| MemorySource::from_tensors(torch_titan(&shifted(), "").into_tensors().into_iter().filter(|t| t.info.name != name));
    for name in ["layers.1.linear_attn.initial_shift", "layers.0.linear_attn.initial_wkv_state"] {
        assert_eq!(kind(find(&Temp::safetensors(&without(name)).0, &StateHints::default())), "NotAState", "{name}");
    }
    let mut wide = shifted();
    wide.shifts[1].att.pop();
    let short = tensor("layers.1.linear_attn.initial_shift".to_owned(), &[3], &wide.shifts[1].att, Encoding::BF16);
    let tensors = without("layers.1.linear_attn.initial_shift").into_tensors();
    let short = MemorySource::new(vec![short]).into_tensors();
    let file = Temp::safetensors(&MemorySource::from_tensors(tensors.into_iter().chain(short)));
    assert_eq!(kind(find(&file.0, &StateHints::default())), "NotAState");
}

#[test]
fn wrappers_and_adapters_around_a_state_are_left_off() {
    let states = |prefix: &str| -> Vec<_> {
        let of = |layer: usize| format!("{prefix}blocks.{layer}.att.time_state");
        (0..2).map(|layer| tensor(of(layer), &[2, 2, 2], &small().layers[layer], Encoding::BF16)).collect()
    };
    let hints = StateHints { format: Some(StateFormat::Pth), ..StateHints::default() };
    for prefix in ["module.", "base_model.model.", "model._orig_mod."] {
        let file = Temp::safetensors(&MemorySource::new(states(prefix)));
        let found = find(&file.0, &hints).unwrap();
        assert_eq!(found.state, small(), "{prefix}");
        assert!(found.notes[0].starts_with("names are read without"), "{:?}", found.notes);
    }
    // Trainers save a state with the LoRA that was tuned beside it.
    let mut tensors = states("");
    tensors.push(tensor("blocks.0.att.key.lora_A".to_owned(), &[1, 4], &[1.0; 4], Encoding::BF16));
    tensors.push(tensor("blocks.0.att.key.lora_B".to_owned(), &[4, 1], &[1.0; 4], Encoding::BF16));
    let file = Temp::safetensors(&MemorySource::new(tensors));
    let found = find(&file.0, &hints).unwrap();
    assert_eq!(found.state, small());
    assert!(found.notes.iter().any(|note| note.contains("2 tensors of an adapter")), "{:?}", found.notes);
}

/// A state of another trainer makes the numbers that its matrices and token shifts make.
#[test]
fn models_start_from_token_shifts_too() {
    let source = random_model(Version::V7, &Sizes::TINY, 4);
    let model = Model::new(source.clone(), describe(source.tensors()).unwrap());
    let sizes = StateSizes::of(model.description()).unwrap();
    let values = |scale: f32, count: usize| (0..count).map(|index| scale * (index % 7) as f32).collect::<Vec<_>>();
    let channels = sizes.heads * sizes.head_size;
    let shifts = TokenShifts { att: values(0.25, channels), ffn: values(-0.5, channels) };
    let layers = vec![values(0.125, channels * sizes.head_size); sizes.layers];
    let state = InitState { sizes, layers, shifts: vec![shifts; sizes.layers] };
    let started = state.start(&model).unwrap();
    assert!(started.has_start() && !model.has_start());
    assert_eq!(started.start(1).unwrap().att_shift, state.shifts[1].att);
    assert_eq!(started.start(0).unwrap().ffn_shift, state.shifts[0].ffn);
    assert_eq!(InitState::of_start(&started).unwrap(), state);
    assert!(model.start(0).unwrap().values().all(|value| value == 0.0));
    let other = InitState { sizes: SIZES, ..small() };
    assert_eq!(kind(other.start(&model)), "StateSizeMismatch");
}
