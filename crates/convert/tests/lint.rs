//! Every rule finds the fault that it is about, and nothing in files without it.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test support may fail loudly; the numbers in it are small")]

use crate::common::Temp;
use rwkv_forge_convert::lint::{Severity, lint, rules};
use rwkv_forge_convert::{OpenOptions, open_file};
use rwkv_forge_testkit::gguf::{GgufBuilder, RawValue};
use rwkv_forge_testkit::models::{MemorySource, Options, Sizes, random_model_with};

/// Ids of what is found in a file.
fn found(file: &Temp) -> Vec<&'static str> {
    let file = open_file(&file.0, OpenOptions::default()).unwrap();
    let model = file.describe().ok();
    let lints = lint(&file, model.as_ref()).unwrap();
    for lint in &lints {
        let rule = rules().into_iter().find(|rule| rule.id == lint.id).unwrap();
        assert_eq!(rule.severity, lint.severity);
        assert!(!lint.message.ends_with('.') && lint.message.len() > 20, "{}", lint.message);
    }
    lints.into_iter().map(|lint| lint.id).collect()
}

fn strings(tokens: &[&str]) -> RawValue {
    let elements: Vec<u8> = tokens.iter().flat_map(|token| [&(token.len() as u64).to_le_bytes()[..], token.as_bytes()].concat()).collect();
    RawValue::array(8, tokens.len() as u64, &elements)
}

fn types(count: u64) -> RawValue {
    RawValue::array(5, count, &1i32.to_le_bytes().repeat(count as usize))
}

const TOKENS: [&str; 4] = ["<s>", "\\x0a\\xff", "\\n\\n", "\\\\xAB"];

/// Not a whole model, but everything that the rules look at, as it should be.
fn good() -> GgufBuilder {
    let f32s = |count: usize| vec![0; count * 4];
    let mut builder = GgufBuilder::default().key("general.architecture", RawValue::text("rwkv7"));
    for key in ["context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count", "wkv.head_size"] {
        builder = builder.key(&format!("rwkv7.{key}"), RawValue::u32(1));
    }
    for key in ["decay", "iclr", "value_residual_mix"] {
        builder = builder.key(&format!("rwkv7.attention.{key}_lora_rank"), RawValue::u32(1));
    }
    builder
        .key("rwkv7.attention.layer_norm_epsilon", RawValue::f32(1e-5))
        .key("tokenizer.ggml.model", RawValue::text("rwkv"))
        .key("tokenizer.ggml.tokens", strings(&TOKENS))
        .key("tokenizer.ggml.token_type", types(4))
        .key("tokenizer.ggml.eot_token_id", RawValue::u32(2))
        .key("tokenizer.chat_template", RawValue::text(rwkv_forge_convert::WORLD_TEMPLATE))
        .tensor("token_embd.weight", &[8, 4], 1, vec![0; 64])
        .tensor("output_norm.weight", &[8], 0, f32s(8))
        .tensor("blk.0.time_mix_lerp_fused.weight", &[8, 1, 1, 6], 0, f32s(48))
        .tensor("blk.0.time_mix_a0.weight", &[8], 0, f32s(8))
        .tensor("blk.0.time_mix_a1.weight", &[8, 2], 0, f32s(16))
        .tensor("blk.0.time_mix_a2.weight", &[2, 8], 0, f32s(16))
        .tensor("blk.0.time_mix_v0.weight", &[8], 0, f32s(8))
        .tensor("blk.0.time_mix_v1.weight", &[8, 2], 0, f32s(16))
        .tensor("blk.0.time_mix_v2.weight", &[2, 8], 0, f32s(16))
}

fn gguf(builder: &GgufBuilder) -> Vec<&'static str> {
    let file = Temp::new("model.gguf");
    std::fs::write(&file.0, builder.build()).unwrap();
    found(&file)
}

/// The good file without a tensor.
fn without_tensor(name: &str) -> GgufBuilder {
    let mut builder = good();
    builder.tensors.retain(|tensor| tensor.name != name.as_bytes());
    builder
}

#[test]
fn a_gguf_file_as_it_should_be_has_no_findings() {
    assert_eq!(gguf(&good()), [""; 0]);
}

#[test]
fn each_fault_of_a_gguf_file_is_found_alone() {
    assert_eq!(gguf(&good().without("rwkv7.attention.head_count")), ["gguf-required-key"]);
    assert_eq!(gguf(&good().without("rwkv7.context_length")), ["gguf-required-key"]);
    assert_eq!(gguf(&without_tensor("blk.0.time_mix_v0.weight")), ["gguf-layer-0-value"]);
    let other_rank = without_tensor("blk.0.time_mix_v1.weight").tensor("blk.0.time_mix_v1.weight", &[8, 3], 0, vec![0; 96]);
    assert_eq!(gguf(&other_rank), ["gguf-layer-0-value"]);
    let half = without_tensor("output_norm.weight").tensor("output_norm.weight", &[8], 1, vec![0; 16]);
    assert_eq!(gguf(&half), ["gguf-f32"]);
    let half = without_tensor("blk.0.time_mix_lerp_fused.weight").tensor("blk.0.time_mix_lerp_fused.weight", &[8, 1, 1, 6], 1, vec![0; 96]);
    assert_eq!(gguf(&half), ["gguf-f32"]);
    let short = good().without("tokenizer.ggml.tokens").key("tokenizer.ggml.tokens", strings(&TOKENS[..3]));
    assert_eq!(gguf(&short), ["gguf-token-count"]);
    let short = good().without("tokenizer.ggml.token_type").key("tokenizer.ggml.token_type", types(3));
    assert_eq!(gguf(&short), ["gguf-token-count"]);
    // What conversions refuse: tokens of another kind, twice the same, no list.
    let other = good().without("tokenizer.ggml.model").key("tokenizer.ggml.model", RawValue::text("gpt2"));
    assert!(gguf(&other).contains(&"gguf-vocabulary"));
    let twice = good().without("tokenizer.ggml.tokens").key("tokenizer.ggml.tokens", strings(&["<s>", "a", "\\n\\n", "a"]));
    assert_eq!(gguf(&twice), ["gguf-vocabulary"]);
    assert_eq!(gguf(&good().without("tokenizer.ggml.tokens")), ["gguf-vocabulary"]);
    let upper = good().without("tokenizer.ggml.tokens").key("tokenizer.ggml.tokens", strings(&["<s>", "a\\xFf", "\\n\\n", "b"]));
    assert_eq!(gguf(&upper), ["gguf-token-escape"]);
    assert_eq!(gguf(&good().without("tokenizer.ggml.eot_token_id")), ["gguf-end-of-turn"]);
    let other = good().without("tokenizer.ggml.eot_token_id").key("tokenizer.ggml.eot_token_id", RawValue::u32(0));
    assert_eq!(gguf(&other), ["gguf-end-of-turn"]);
    assert_eq!(gguf(&good().without("tokenizer.chat_template")), ["gguf-chat-template"]);
    let world = |text: &str| good().without("tokenizer.chat_template").key("tokenizer.chat_template", RawValue::text(text));
    // Each turn ends with the empty line, whoever spells the template.
    let turns = |of: &str| format!("{{% for message in messages %}}{{{{- 'User: ' + {of} + '\\n\\n' -}}}}{{% endfor %}}");
    assert_eq!(gguf(&world(&turns("(message['content'] | trim)"))), ["gguf-chat-template-c-api"]);
    assert_eq!(gguf(&world(&turns("message['content']|trim"))), [""; 0]);
    assert_eq!(gguf(&world(&format!("{{# rwkv-world #}}{}", turns("(message['content'] | trim)")))), [""; 0]);
    let marked = |of: &str| world(&format!("{{% for message in messages %}}<|im_start|>{{{{ message['content'] }}}}{of}{{% endfor %}}"));
    // What llama.cpp takes for ChatML; answers that end with the end of text end, those that end with nothing do not.
    assert_eq!(gguf(&marked("{{ eos_token }}").key("tokenizer.ggml.eos_token_id", RawValue::u32(0))), [""; 0]);
    assert_eq!(gguf(&marked("{{ eos_token }}")), ["gguf-end-of-turn"]);
    assert_eq!(gguf(&marked("<|im_end|>")), ["gguf-end-of-turn"]);
    assert_eq!(gguf(&world("{% for message in messages %}")), ["gguf-chat-template-jinja", "gguf-chat-template-c-api"]);
    // A template that is read and makes no text of a conversation.
    let fails = "{{ '\\n\\n' ~ messages[0].x.y ~ 'rwkv-world' }}";
    assert_eq!(gguf(&world(fails)), ["gguf-chat-template-jinja"]);
    let outside = good().key("tokenizer.ggml.unknown_token_id", RawValue::u32(4));
    assert_eq!(gguf(&outside), ["gguf-special-id"]);
    // What no engine here runs is read: filters may be known elsewhere.
    assert_eq!(gguf(&world("{{ 'rwkv-world\\n\\n'|unheard_of }}")), [""; 0]);
    assert_eq!(gguf(&world("{{ 'rwkv-world'|unheard_of }}")), ["gguf-end-of-turn"]);
    // Every format of ours: what llama.cpp's C API knows, and where a token ends a turn.
    let flower = ["<s>", "\\xe2\\x9c\\xbf", "\\n\\n", "b"];
    for (name, eot, findings) in [
        ("assistant", 2, &[][..]),
        ("assistant", 1, &["gguf-end-of-turn"]),
        ("bot", 1, &["gguf-chat-template-c-api"]),
        ("bot", 2, &["gguf-end-of-turn", "gguf-chat-template-c-api"]),
        ("tools", 2, &["gguf-end-of-turn", "gguf-chat-template-c-api"]),
        ("world", 2, &[]),
        ("world", 1, &["gguf-end-of-turn"]),
    ] {
        let format = rwkv_forge_convert::ChatFormat::by_name(name).unwrap();
        let file = world(format.template()).without("tokenizer.ggml.tokens").key("tokenizer.ggml.tokens", strings(&flower));
        let file = file.without("tokenizer.ggml.eot_token_id").key("tokenizer.ggml.eot_token_id", RawValue::u32(eot));
        assert_eq!(gguf(&file), findings, "{name} {eot}");
    }
    // 600 rows: with 512 of them unused it is padding, with 513 it is not.
    let unused = |count: usize| {
        let kinds: Vec<u8> = (0..600).flat_map(|id: usize| if id + count < 600 { 1i32 } else { 5 }.to_le_bytes()).collect();
        let tokens: Vec<String> = TOKENS.into_iter().map(str::to_owned).chain((4..600).map(|id| format!("x{id}"))).collect();
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        without_tensor("token_embd.weight")
            .without("tokenizer.ggml.tokens")
            .without("tokenizer.ggml.token_type")
            .key("tokenizer.ggml.tokens", strings(&tokens))
            .key("tokenizer.ggml.token_type", RawValue::array(5, 600, &kinds))
            .tensor("token_embd.weight", &[8, 600], 1, vec![0; 9600])
    };
    assert_eq!(gguf(&unused(513)), ["gguf-unused-tokens"]);
    assert_eq!(gguf(&unused(512)), [""; 0]);
    let blank = good().without("tokenizer.chat_template").key("tokenizer.chat_template", RawValue::text(" \n"));
    assert_eq!(gguf(&blank), ["gguf-chat-template"]);
}

/// Other architectures and other tokenizers have other needs.
#[test]
fn rules_keep_to_their_own_models() {
    let mut other = good().without("general.architecture").key("general.architecture", RawValue::text("llama"));
    other.tensors.retain(|tensor| !tensor.name.starts_with(b"blk.0.time_mix_v"));
    assert_eq!(gguf(&other.without("rwkv7.context_length")), [""; 0]);
    let qwen = good()
        .without("general.architecture")
        .key("general.architecture", RawValue::text("arwkv7"))
        .without("tokenizer.ggml.model")
        .key("tokenizer.ggml.model", RawValue::text("gpt2"));
    let qwen = qwen.without("tokenizer.ggml.eot_token_id").without("tokenizer.ggml.tokens");
    assert_eq!(gguf(&qwen.key("tokenizer.ggml.tokens", strings(&["a\\xFF", "b", "c", "\\n\\n"]))), [""; 0]);
}

#[test]
fn checkpoints_have_findings_of_their_own() {
    use rwkv_forge_model::Version;
    let sizes = Sizes { channels: 256, head_size: 64, ffn: 512, ..Sizes::TINY };
    let model = |value_in_layer_0| random_model_with(Version::V7, &sizes, &Options { value_in_layer_0, ..Options::default() }, 1);
    assert_eq!(found(&Temp::safetensors(&model(false))), [""; 0]);
    assert_eq!(found(&Temp::safetensors(&model(true))), ["layer-0-value"]);
    let rows = |ffn| random_model_with(Version::V7, &Sizes { ffn, ..sizes }, &Options::default(), 1);
    assert_eq!(found(&Temp::safetensors(&rows(320))), ["block-length"]);
    assert_eq!(found(&Temp::safetensors(&rows(48))), ["block-length"]);
    let long = MemorySource::from_f32(vec![("n".repeat(64), vec![1], vec![0.5]), ("n".repeat(63), vec![1], vec![0.5])]);
    assert_eq!(found(&Temp::safetensors(&long)), ["name-length"]);
}

#[test]
fn the_order_of_keys_counts_in_pth_files() {
    use rwkv_forge_testkit::pickle::{Tensor, state_dict};
    let pth = |letters: &str| {
        let names: Vec<String> = letters.chars().map(|letter| format!("blocks.0.att.x_{letter}")).collect();
        let tensors: Vec<Tensor> = names.iter().enumerate().map(|(key, name)| Tensor::dense(name, "FloatStorage", key, &[1])).collect();
        let storages: Vec<&[u8]> = names.iter().map(|_| &[0u8; 4][..]).collect();
        let file = Temp::new("model.pth");
        std::fs::write(&file.0, rwkv_forge_testkit::zip::Archive::torch(&state_dict(&tensors), &storages).build().bytes).unwrap();
        found(&file)
    };
    assert_eq!(pth("rwkvag"), [""; 0]);
    assert_eq!(pth("agkrvw"), ["key-order"]);
}

#[test]
fn rules_have_names_of_their_own() {
    let mut ids: Vec<&str> = rules().iter().map(|rule| rule.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), rules().len());
    assert!(rules().iter().all(|rule| !rule.about.is_empty()));
    assert!(rules().iter().any(|rule| rule.severity == Severity::Error));
}

/// A part of a matrix that is zero, at either end or within it, stored as it is or in blocks; rows of tokens that nobody uses are none.
#[test]
fn matrices_with_a_hole_are_found() {
    use rwkv_forge_model::Version;
    let sizes = Sizes { channels: 256, head_size: 64, ffn: 512, ..Sizes::TINY };
    let with_hole = |name: &str, part: std::ops::Range<usize>| {
        let mut tensors =
            random_model_with(Version::V7, &sizes, &Options { value_in_layer_0: false, ..Options::default() }, 1).into_tensors();
        let tensor = tensors.iter_mut().find(|tensor| tensor.info.name == name).unwrap();
        let eighth = tensor.bytes.len() / 8;
        tensor.bytes[part.start * eighth..part.end * eighth].fill(0);
        Temp::safetensors(&MemorySource::from_tensors(tensors))
    };
    for (name, part) in [("blocks.1.ffn.key.weight", 0..1), ("blocks.0.att.output.weight", 3..5), ("blocks.1.att.key.weight", 7..8)] {
        assert_eq!(found(&with_hole(name, part)), ["zero-run"], "{name}");
    }
    for name in ["emb.weight", "head.weight"] {
        assert_eq!(found(&with_hole(name, 4..8)), [""; 0], "{name}");
    }
    // A little less than an eighth in one run is none, and all of a matrix is another rule's.
    let mut tensors = random_model_with(Version::V7, &sizes, &Options { value_in_layer_0: false, ..Options::default() }, 1).into_tensors();
    let tensor = tensors.iter_mut().find(|tensor| tensor.info.name == "blocks.1.ffn.key.weight").unwrap();
    let eighth = tensor.bytes.len() / 8;
    for start in [0, 2 * eighth, 5 * eighth] {
        tensor.bytes[start..start + eighth - 8].fill(0);
    }
    assert_eq!(found(&Temp::safetensors(&MemorySource::from_tensors(tensors))), [""; 0]);
    assert_eq!(found(&with_hole("blocks.1.ffn.key.weight", 0..8)), ["zero-tensor"]);
}
