//! Files of ours: laid out, written, read back, and found to hold the model that went in.

#![allow(clippy::unwrap_used, reason = "helpers of tests; a failure must stop the test")]

use crate::common::{Scratch, apart, canonical, choices, encoded, laid_out, model, values, words, written};
use rwkv_forge_gguf::{GgufFile, mapped};
use rwkv_forge_model::{ModelDescription, ValueForm, Version, describe_mapped};
use rwkv_forge_tensor::{Class, Diagnostic, Encoding, TensorSource};
use rwkv_forge_testkit::gguf::{GgufBuilder, RawValue};
use rwkv_forge_tokenizer::Tokenizer;

const BOTH: [Version; 2] = [Version::V6, Version::V7];

fn describe(file: &GgufFile) -> ModelDescription {
    describe_mapped(file.tensors(), mapped(file).unwrap()).unwrap()
}

#[test]
fn what_was_written_is_what_is_read() {
    for version in BOTH {
        for matrices in ["f32", "f16", "bf16", "q8_0", "q4_0"] {
            let (source, before) = model(version);
            let layout = laid_out(&before, matrices);
            let file = Scratch::new(&format!("same-{}-{matrices}", version.name()), &written(&source, &before, &layout)).open_kept();
            let after = describe(&file.1);
            assert_eq!(after.hyperparameters, before.hyperparameters);
            assert_eq!(after.tensors.len(), before.tensors.len());
            let choices = choices(&before, matrices);
            for ((old, new), choice) in before.tensors.iter().zip(&after.tensors).zip(&choices) {
                assert_eq!((&old.name, &old.shape, old.role), (&new.name, &new.shape, new.role));
                // Transposed tensors are encoded in the stored order; only f16 and f32 occur there, value by value.
                let mut expected = Vec::new();
                let bytes = encoded(choice.encoding, &canonical(&source, old));
                rwkv_forge_quant::decode_rows(choice.encoding, &bytes, &mut expected).unwrap();
                assert!(canonical(&file.1, new) == expected, "{version} {matrices} {}", old.name);
            }
        }
    }
}

trait OpenKept {
    fn open_kept(self) -> (Scratch, GgufFile);
}

impl OpenKept for Scratch {
    /// The file stays on disk while it is read.
    fn open_kept(self) -> (Scratch, GgufFile) {
        let file = self.open();
        (self, file)
    }
}

#[test]
fn names_shapes_and_types_are_what_runtimes_ask_for() {
    let expect = |version: Version, wanted: &[(&str, &[u64], &str)]| {
        let (_, description) = model(version);
        let layout = laid_out(&description, "q8_0");
        for (name, dims, encoding) in wanted {
            let tensor = layout.tensors.iter().find(|tensor| tensor.name == *name).unwrap_or_else(|| panic!("{name} is missing"));
            let reversed: Vec<u64> = tensor.shape.iter().rev().copied().collect();
            assert_eq!((reversed.as_slice(), tensor.encoding.name), (*dims, *encoding), "{name}");
        }
        layout.tensors.len()
    };
    // Dimensions as ggml prints them: C = 64, F = 96, V = 300, H x N = 4 x 16.
    let count = expect(
        Version::V7,
        &[
            ("token_embd.weight", &[64, 300], "q8_0"),
            ("token_embd_norm.bias", &[64], "f32"),
            ("blk.1.time_mix_lerp_fused.weight", &[64, 1, 1, 6], "f32"),
            ("blk.0.time_mix_w1.weight", &[64, 6], "f32"),
            ("blk.0.time_mix_w2.weight", &[6, 64], "f32"),
            ("blk.0.time_mix_a1.weight", &[64, 7], "f16"),
            ("blk.0.time_mix_v1.weight", &[64, 7], "f16"),
            ("blk.1.time_mix_v1.weight", &[64, 3], "f16"),
            ("blk.1.time_mix_g2.weight", &[9, 64], "f16"),
            ("blk.1.time_mix_r_k.weight", &[64], "f32"),
            ("blk.1.channel_mix_lerp_k.weight", &[64], "f32"),
            ("blk.1.channel_mix_key.weight", &[64, 96], "q8_0"),
            ("blk.1.channel_mix_value.weight", &[96, 64], "q8_0"),
        ],
    );
    assert_eq!(count, 6 + 2 * 28);
    let count = expect(
        Version::V6,
        &[
            ("blk.0.time_mix_lerp_fused.weight", &[64, 1, 1, 5], "f32"),
            ("blk.0.time_mix_w1.weight", &[64, 30], "f32"),
            ("blk.0.time_mix_w2.weight", &[6, 64, 5], "f32"),
            ("blk.0.time_mix_first.weight", &[16, 4], "f32"),
            ("blk.0.time_mix_decay.weight", &[64], "f32"),
            ("blk.0.time_mix_decay_w1.weight", &[64, 7], "f32"),
            ("blk.1.time_mix_gate.weight", &[64, 64], "q8_0"),
        ],
    );
    assert_eq!(count, 6 + 2 * 24);
}

#[test]
fn stacks_and_stand_ins_hold_the_right_tensors() {
    let (source, description) = model(Version::V7);
    let file = Scratch::new("stacks", &written(&source, &description, &laid_out(&description, "f32"))).open_kept().1;
    let stored = |name: &str| values(&file, file.tensors().iter().position(|info| info.name == name).unwrap());
    let original = |name: &str| canonical(&source, description.find(name).unwrap());
    let order = ["r", "w", "k", "v", "a", "g"].map(|letter| original(&format!("blocks.1.att.x_{letter}")));
    assert_eq!(stored("blk.1.time_mix_lerp_fused.weight"), order.concat());
    for number in 0..3 {
        let a = stored(&format!("blk.0.time_mix_a{number}.weight"));
        assert_eq!(stored(&format!("blk.0.time_mix_v{number}.weight")), a);
        assert_ne!(stored(&format!("blk.1.time_mix_v{number}.weight")), a);
    }
    let (source, description) = model(Version::V6);
    let file = Scratch::new("stacks6", &written(&source, &description, &laid_out(&description, "f32"))).open_kept().1;
    let order = ["w", "k", "v", "r", "g"].map(|x| canonical(&source, description.find(&format!("blocks.0.att.time_maa_{x}")).unwrap()));
    let index = file.tensors().iter().position(|info| info.name == "blk.0.time_mix_lerp_fused.weight").unwrap();
    assert_eq!(values(&file, index), order.concat());
}

#[test]
fn late_values_are_found_where_the_layout_says() {
    let (source, description) = model(Version::V7);
    let layout = laid_out(&description, "q8_0");
    let mut file = written(&source, &description, &layout);
    let names: Vec<&str> = layout.patches.iter().map(|patch| patch.name).collect();
    let all = ["source.sha256", "verify.status", "verify.positions", "verify.kl_mean", "verify.kl_max", "verify.top1"];
    assert_eq!(names, [&all[..], &["verify.max_abs", "verify.rms_ratio", "verify.kl_interval", "verify.text_sha256"]].concat());
    let untouched = Scratch::new("late-0", &file).open_kept().1;
    assert_eq!(untouched.metadata().str("rwkv_forge.verify.status").unwrap(), Some("pending "));
    for (patch, letter) in layout.patches.iter().zip(b'a'..) {
        let value = match patch.bytes {
            4 => 77u32.to_le_bytes().to_vec(),
            8 if patch.name != "verify.status" => f64::from(letter).to_le_bytes().to_vec(),
            _ => vec![letter; patch.bytes],
        };
        let start = usize::try_from(patch.offset).unwrap();
        file[start..start + patch.bytes].copy_from_slice(&value);
    }
    let patched = Scratch::new("late-1", &file).open_kept().1;
    let metadata = patched.metadata();
    assert_eq!(metadata.str("rwkv_forge.source.sha256").unwrap(), Some("a".repeat(64).as_str()));
    assert_eq!(metadata.str("rwkv_forge.verify.status").unwrap(), Some("bbbbbbbb"));
    assert_eq!(metadata.u64("rwkv_forge.verify.positions").unwrap(), Some(77));
    assert_eq!(metadata.f64("rwkv_forge.verify.kl_mean").unwrap(), Some(f64::from(b'd')));
    assert_eq!(metadata.f64("rwkv_forge.verify.rms_ratio").unwrap(), Some(f64::from(b'h')));
    assert_eq!(metadata.str("rwkv_forge.verify.kl_interval").unwrap(), Some("i".repeat(96).as_str()));
    assert_eq!(metadata.str("rwkv_forge.verify.text_sha256").unwrap(), Some("j".repeat(64).as_str()));
    assert_eq!(patched.metadata().entries().len(), untouched.metadata().entries().len());
}

#[test]
fn metadata_says_what_the_model_is() {
    let (source, description) = model(Version::V7);
    let file = Scratch::new("metadata", &written(&source, &description, &laid_out(&description, "q8_0"))).open_kept().1;
    let number = |key: &str| file.metadata().u64(key).unwrap();
    let text = |key: &str| file.metadata().str(key).unwrap().map(str::to_owned);
    assert_eq!(text("general.architecture").as_deref(), Some("rwkv7"));
    assert_eq!(text("general.name").as_deref(), Some("a test"));
    assert_eq!((number("general.file_type"), number("general.quantization_version")), (Some(7), Some(2)));
    assert_eq!((number("rwkv7.block_count"), number("rwkv7.embedding_length")), (Some(2), Some(64)));
    assert_eq!((number("rwkv7.attention.head_count"), number("rwkv7.wkv.head_size")), (Some(0), Some(16)));
    assert_eq!(number("rwkv7.attention.value_residual_mix_lora_rank"), Some(3));
    assert_eq!(text("tokenizer.ggml.model").as_deref(), Some("rwkv"));
    assert_eq!(file.metadata().get("tokenizer.ggml.tokens").unwrap().to_string(), "300 x string");
    assert_eq!(text("tokenizer.chat_template").as_deref(), Some(rwkv_forge_container::WORLD_TEMPLATE.trim_end()));
    assert!(text("rwkv_forge.recipe").is_some());
}

#[test]
fn layouts_depend_on_nothing_but_their_arguments() {
    let (_, description) = model(Version::V6);
    assert_eq!(laid_out(&description, "q4_0"), laid_out(&description, "q4_0"));
}

#[test]
fn older_files_with_separate_mixes_are_read() {
    let (source, description) = model(Version::V6);
    let mut builder = apart(&written(&source, &description, &laid_out(&description, "f32")));
    for layer in 0..2 {
        let name = format!("blk.{layer}.time_mix_lerp_fused.weight");
        let index = builder.tensors.iter().position(|tensor| tensor.name == name.as_bytes()).unwrap();
        let fused = builder.tensors.remove(index);
        for (letter, data) in ["w", "k", "v", "r", "g"].iter().zip(fused.data.chunks(64 * 4)) {
            builder = builder.tensor(&format!("blk.{layer}.time_mix_lerp_{letter}.weight"), &[64, 1, 1], 0, data.to_vec());
        }
    }
    let file = Scratch::new("older", &builder.build()).open_kept().1;
    let after = describe(&file);
    for (old, new) in description.tensors.iter().zip(&after.tensors) {
        assert_eq!((&old.name, canonical(&source, old)), (&new.name, canonical(&file, new)));
    }
}

fn refusal(builder: &GgufBuilder, name: &str) -> (&'static str, String) {
    let file = Scratch::new(name, &builder.build()).open_kept().1;
    let error = mapped(&file).unwrap_err();
    assert_eq!(error.class(), Class::Refused);
    (error.kind(), error.to_string())
}

/// One key replaced or, without a value, removed.
fn with(builder: &GgufBuilder, key: &str, value: Option<RawValue>) -> GgufBuilder {
    assert!(builder.pairs.iter().any(|(name, _)| name == key.as_bytes()), "{key} is not written");
    let without = builder.clone().without(key);
    match value {
        Some(value) => without.key(key, value),
        None => without,
    }
}

#[test]
fn g9_missing_and_contradictory_hyperparameters() {
    let (source, description) = model(Version::V7);
    let whole = apart(&written(&source, &description, &laid_out(&description, "f32")));
    let required = ["embedding_length", "block_count", "feed_forward_length", "wkv.head_size", "attention.decay_lora_rank"];
    let required = required.into_iter().chain(["attention.iclr_lora_rank", "attention.value_residual_mix_lora_rank"]);
    for key in required.map(|key| format!("rwkv7.{key}")) {
        let (kind, message) = refusal(&with(&whole, &key, None), "g9-a");
        assert!(kind == "MissingKey" && message.contains(&key), "{key}: {kind} {message}");
        let (kind, message) = refusal(&with(&whole, &key, Some(RawValue::u32(1_000_003))), "g9-b");
        assert!(kind == "Contradiction" && message.contains(&key), "{key}: {kind} {message}");
        assert_eq!(refusal(&with(&whole, &key, Some(RawValue::text("64"))), "g9-c").0, "BadValue");
    }
    for (key, value) in [
        ("rwkv7.wkv.head_size", RawValue::u32(0)),
        ("rwkv7.token_shift_count", RawValue::u32(1)),
        ("rwkv7.attention.gate_lora_rank", RawValue::u32(8)),
        ("rwkv7.attention.layer_norm_epsilon", RawValue::f32(1e-6)),
        ("tokenizer.ggml.tokens", RawValue::array(8, 1, &[0; 8])),
    ] {
        assert_eq!(refusal(&with(&whole, key, Some(value)), "g9-d").0, "Contradiction", "{key}");
    }
}

#[test]
fn g9_rwkv6_hyperparameters_and_rescaling() {
    let (source, description) = model(Version::V6);
    let whole = apart(&written(&source, &description, &laid_out(&description, "f32")));
    for key in ["rwkv6.time_mix_extra_dim", "rwkv6.time_decay_extra_dim", "rwkv6.wkv.head_size"] {
        assert_eq!(refusal(&with(&whole, key, None), "g9-6a").0, "MissingKey", "{key}");
        assert_eq!(refusal(&with(&whole, key, Some(RawValue::u32(32))), "g9-6b").0, "Contradiction", "{key}");
    }
    // Halved after every layer: the matrices that add to the residual stream of the second one are stored as halves.
    let halved = |every: u32| {
        let rescaled = with(&whole, "rwkv6.rescale_every_n_layers", Some(RawValue::u32(every)));
        let file = Scratch::new(&format!("g9-6c-{every}"), &rescaled.build()).open_kept().1;
        let forms = mapped(&file).unwrap().into_iter().filter(|tensor| tensor.recover.form != ValueForm::Canonical);
        forms.map(|tensor| (tensor.name, tensor.recover.form)).collect::<Vec<_>>()
    };
    let second = ["blocks.1.att.output.weight", "blocks.1.ffn.value.weight"].map(|name| (name.to_owned(), ValueForm::Halved(1)));
    let mut found = halved(1);
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    assert_eq!(found, second);
    assert_eq!(halved(6), []);
    let without = with(&whole, "rwkv6.rescale_every_n_layers", None);
    let file = Scratch::new("g9-6d", &without.build()).open_kept().1;
    assert!(mapped(&file).is_ok());
}

#[test]
fn tensors_that_do_not_belong_are_named() {
    let (source, description) = model(Version::V7);
    let whole = apart(&written(&source, &description, &laid_out(&description, "f32")));
    for name in ["blk.0.attn_q.weight", "blk.00.attn_norm_2.weight", "blk.-1.attn_norm.weight", "rope_freqs.weight", "blk.0.time_mix_w1"] {
        let (kind, message) = refusal(&whole.clone().tensor(name, &[1], 0, vec![0; 4]), "unknown");
        assert!(kind == "UnknownTensor" && message.contains(name), "{name}: {kind} {message}");
    }
    // A scale is named together with what it scales; one that belongs to nothing is a tensor like others that nobody knows.
    for (weight, scale) in [("blk.0.time_mix_key", "scale"), ("blk.1.channel_mix_value", "input_scale"), ("output", "scale")] {
        let scaled = whole.clone().tensor(&format!("{weight}.{scale}"), &[1], 0, 2.0f32.to_le_bytes().to_vec());
        let (kind, message) = refusal(&scaled, "scaled");
        let both = message.contains(&format!("{weight}.{scale}")) && message.contains(&format!("{weight}.weight"));
        assert!(kind == "ScaleBeside" && both, "{kind} {message}");
    }
    assert_eq!(refusal(&whole.clone().tensor("blk.0.other.scale", &[1], 0, vec![0; 4]), "scale").0, "UnknownTensor");
    let mut lerp = whole.clone();
    let fused = lerp.tensors.iter_mut().find(|tensor| tensor.name == b"blk.0.time_mix_lerp_fused.weight").unwrap();
    fused.dims = vec![64 * 6 / 5, 1, 1, 5];
    fused.data.truncate(64 * 6 / 5 * 5 * 4);
    assert_eq!(refusal(&lerp, "lerp").0, "BadShape");
    let mut headless = whole.clone();
    headless.tensors.retain(|tensor| tensor.name != b"token_embd.weight");
    assert_eq!(refusal(&headless, "headless").0, "MissingTensor");
    for architecture in ["llama", "rwkv8", "qwen2"] {
        let (kind, message) = refusal(&with(&whole, "general.architecture", Some(RawValue::text(architecture))), "other");
        assert!(kind == "UnsupportedArchitecture" && message.contains(architecture), "{kind} {message}");
    }
    // Bytes are known, listed, and refused only when their values are needed.
    let listed = with(&whole, "general.quantization_version", Some(RawValue::u32(2))).tensor("blk.0.x", &[256], 24, vec![0; 256]);
    let file = Scratch::new("listed", &listed.build()).open_kept().1;
    assert_eq!(file.tensors().last().map(|info| info.encoding), Some(Encoding::I8));
    assert!(file.notes()[0].contains("i8"));
    let (kind, message) = refusal(&listed, "listed-2");
    assert!(kind == "UnsupportedType" && message.contains("blk.0.x") && message.contains("i8"), "{kind} {message}");
}

#[test]
fn wishes_that_cannot_be_granted() {
    for version in [Version::V4, Version::V5_0, Version::V5_1, Version::V5_2] {
        let error = rwkv_forge_gguf::can_carry(version).unwrap_err();
        assert_eq!((error.kind(), error.class()), ("CannotCarry", Class::Usage));
        // Why, and of what; where else it goes is said by who knows all containers.
        let message = error.to_string();
        assert!(message.contains(version.name()) && message.contains("no runtime reads it") && !message.contains("--to"), "{message}");
        let (_, description) = model(version);
        let choices = vec![rwkv_forge_model::Choice { encoding: Encoding::F32, reason: String::new() }; description.tensors.len()];
        let error = rwkv_forge_gguf::layout(&description, &choices, &words(Tokenizer::raw_bytes())).unwrap_err();
        assert_eq!(error.kind(), "CannotCarry");
    }
    let (_, description) = model(Version::V7);
    let wish = |name: &str, encoding: Encoding| {
        let mut choices = choices(&description, "f16");
        let index = description.tensors.iter().position(|spec| spec.name == name).unwrap();
        choices[index].encoding = encoding;
        rwkv_forge_gguf::layout(&description, &choices, &words(Tokenizer::raw_bytes())).map_err(|error| error.kind())
    };
    let q8_0 = rwkv_forge_quant::by_name("q8_0").unwrap().encoding();
    assert!(wish("head.weight", q8_0).is_ok());
    assert_eq!(wish("blocks.0.att.w0", Encoding::F16), Err("EncodingNotAllowed"));
    // Low-rank factors are f32 or f16 unless they are asked for in another type; their rows in the file are rows of inputs.
    assert!(wish("blocks.0.att.w1", Encoding::BF16).is_ok());
    assert!(wish("blocks.0.att.a1", q8_0).is_ok());
    assert_eq!(wish("blocks.0.att.a2", q8_0), Err("BlockLength"));
    assert_eq!(wish("head.weight", Encoding::F64), Err("EncodingNotAllowed"));
    // Types that are only read, by whatever program they were written.
    for format in rwkv_forge_quant::FORMATS.iter().filter(|format| !format.facts().encodes) {
        assert_eq!(wish("head.weight", format.encoding()), Err("EncodingNotAllowed"), "{}", format.encoding());
    }
    let world = rwkv_forge_gguf::layout(&description, &choices(&description, "f16"), &words(Tokenizer::world()));
    assert_eq!(world.unwrap_err().kind(), "VocabularyMismatch");
}

#[test]
fn m5_names_beyond_63_bytes() {
    // The longest name in use leaves room for layer numbers that no model has; the check is on the stored name.
    let (_, description) = model(Version::V6);
    let longest = laid_out(&description, "f32").tensors.iter().map(|tensor| tensor.name.len()).max().unwrap();
    assert!(longest < 63, "{longest}");
    let long = GgufBuilder::small().tensor(&"n".repeat(64), &[1], 0, vec![0; 4]);
    let error = rwkv_forge_gguf::Header::from_bytes(&long.build(), &rwkv_forge_gguf::Limits::default()).unwrap_err();
    assert_eq!(error.kind(), "NameTooLong");
}

#[test]
fn reads_outside_of_a_tensor_are_refused() {
    let file = Scratch::new("outside", &GgufBuilder::small().build()).open_kept().1;
    let mut four = [0; 4];
    file.read_at(0, 20, &mut four).unwrap();
    assert_eq!(f32::from_le_bytes(four), 6.0);
    for (index, start) in [(0, 21), (0, u64::MAX), (2, 0)] {
        assert!(file.read_at(index, start, &mut four).is_err(), "{index} {start}");
    }
}

#[test]
fn w19_tensors_beyond_4_gib_are_read_at_their_end() {
    let elements = (1u64 << 32) + 64;
    let header = GgufBuilder::default().key("general.architecture", RawValue::text("test")).tensor("big", &[elements, 1], 1, Vec::new());
    let header = header.build();
    let kept = Scratch::new("sparse", &header);
    // A sparse file: only the last two bytes take space.
    let disk = std::fs::OpenOptions::new().write(true).open(kept.path()).unwrap();
    let end = header.len() as u64 + elements * 2;
    disk.set_len(end).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&disk, &[0x00, 0x3c], end - 2).unwrap();
    let file = kept.open();
    let mut last = [0; 2];
    file.read_at(0, (elements - 1) * 2, &mut last).unwrap();
    assert_eq!(last, [0x00, 0x3c]);
    disk.set_len(end - 1).unwrap();
    let error = GgufFile::open(kept.path()).unwrap_err();
    assert_eq!(error.kind(), "Truncated");
}
