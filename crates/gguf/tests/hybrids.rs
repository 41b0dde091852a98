//! Files of hybrids with Qwen: laid out, written, read back; and what is wrong with others.
#![allow(clippy::unwrap_used, reason = "helpers of tests; a failure must stop the test")]

use crate::common::{SIZES, Scratch, apart, canonical, choices, encoded, said, written};
use rwkv_forge_container::{Opened, Sourced, TokenTable, Word, Words};
use rwkv_forge_gguf::{GgufFile, configuration, layout, mapped};
use rwkv_forge_model::{Configuration, Epsilon, FileLayout, ModelDescription, Version, describe_mapped_with, describe_with};
use rwkv_forge_tensor::{Diagnostic, TensorSource};
use rwkv_forge_testkit::gguf::RawValue;
use rwkv_forge_testkit::hybrids::{Variant, random_hybrid, tokenizer_json};
use rwkv_forge_testkit::models::MemorySource;
use rwkv_forge_tokenizer::TokenizerFiles;
use std::sync::Arc;

/// Every arrangement of both architectures.
fn cases() -> Vec<(Version, Variant)> {
    vec![
        (Version::ARwkv7, Variant::FULL),
        (Version::ARwkv7, Variant { stacked: true, ..Variant::BARE }),
        (Version::QRwkv6, Variant::FULL),
        (Version::QRwkv6, Variant { kv_heads: 2, ..Variant::BARE }),
        (Version::QRwkv6, Variant::BARE),
    ]
}

fn hybrid(version: Version, variant: &Variant) -> (MemorySource, ModelDescription) {
    let source = random_hybrid(version, &SIZES, variant, 9);
    let configuration = Configuration {
        rms_epsilon: Epsilon::new(1e-5),
        heads: Some(4),
        kv_heads: Some(variant.kv_heads as u64),
        ..Configuration::default()
    };
    let description = describe_with(source.tensors(), &configuration).unwrap();
    (source, description)
}

fn words() -> Words {
    let config = br#"{"eos_token": "<|im_end|>", "chat_template": "{{ messages }}"}"#;
    let read = TokenizerFiles::from_json(tokenizer_json().to_string().as_bytes(), Some(config), None, SIZES.vocabulary).unwrap();
    let tokens = TokenTable::BytePairs(Arc::new(read.vocabulary));
    Words {
        tokens: Some(Sourced::option("--vocab", tokens)),
        special: read.special.map(|(id, _)| Sourced::option("--vocab", id)),
        template: read.chat_template.map(|text| Sourced::option("--vocab", text)),
        ..said()
    }
}

/// What a file says is what it was written with: the origins alone differ.
fn assert_same_words(read: &Words, written: &Words) {
    let pair = |words: &Words| match &words.tokens.as_ref().unwrap().value {
        TokenTable::BytePairs(vocabulary) => Arc::clone(vocabulary),
        TokenTable::LongestMatch(tokenizer) | TokenTable::Merges(tokenizer) => panic!("{} is no vocabulary of pairs", tokenizer.name()),
    };
    assert_eq!(pair(read), pair(written));
    let said = |words: &Words| words.entries().into_iter().map(|entry| (entry.word, entry.key, entry.value)).collect::<Vec<_>>();
    // What is counted is in every file.
    let (mut found, expected) = (said(read), said(written));
    let counted = found.pop().unwrap();
    assert_eq!((counted.1.as_str(), counted.2.ends_with('K')), ("general.size_label", true), "{counted:?}");
    // So is the length of context that llama.cpp's converter writes, which says nothing of the model.
    let fixed = found.pop().unwrap();
    assert_eq!((fixed.0, fixed.2.as_str()), (Word::Context, "1048576"));
    assert_eq!(found, expected);
    assert_eq!(read.provenance, written.provenance);
    assert!(read.entries().iter().all(|entry| entry.origin.kind() == "source" || entry.word == Word::Context));
}

fn laid_out(description: &ModelDescription, matrices: &str) -> FileLayout {
    layout(description, &choices(description, matrices), &words()).unwrap()
}

fn described(file: &GgufFile) -> Result<ModelDescription, Box<dyn std::error::Error + Send + Sync>> {
    Ok(describe_mapped_with(file.tensors(), mapped(file)?, &configuration(file)?)?)
}

fn describe(file: &GgufFile) -> ModelDescription {
    described(file).unwrap()
}

#[test]
fn what_was_written_is_what_is_read() {
    for (number, (version, variant)) in cases().into_iter().enumerate() {
        for matrices in ["f32", "f16", "q8_0"] {
            let (source, before) = hybrid(version, &variant);
            let bytes = written(&source, &before, &laid_out(&before, matrices));
            let scratch = Scratch::new(&format!("hybrid-{number}-{matrices}"), &bytes);
            let file = scratch.open();
            let after = describe(&file);
            assert_eq!(after.hyperparameters, before.hyperparameters);
            assert_eq!(after.tensors.len(), before.tensors.len());
            for ((old, new), choice) in before.tensors.iter().zip(&after.tensors).zip(choices(&before, matrices)) {
                assert_eq!((&old.name, &old.shape, old.role), (&new.name, &new.shape, new.role));
                let mut expected = Vec::new();
                let bytes = encoded(choice.encoding, &canonical(&source, old));
                rwkv_forge_quant::decode_rows(choice.encoding, &bytes, &mut expected).unwrap();
                assert!(canonical(&file, new) == expected, "{version} {matrices} {}", old.name);
            }
            assert_same_words(&Words { tokens: file.tokens(&after).unwrap(), ..file.words(&after).unwrap() }, &words());
        }
    }
}

#[test]
fn names_shapes_and_types_are_what_runtimes_ask_for() {
    let expect = |version: Version, variant: &Variant, wanted: &[(&str, &[u64], &str)]| {
        let layout = laid_out(&hybrid(version, variant).1, "q8_0");
        for (name, dims, encoding) in wanted {
            let tensor = layout.tensors.iter().find(|tensor| tensor.name == *name).unwrap_or_else(|| panic!("{name} is missing"));
            let reversed: Vec<u64> = tensor.shape.iter().rev().copied().collect();
            assert_eq!((reversed.as_slice(), tensor.encoding.name), (*dims, *encoding), "{name}");
        }
        layout.tensors.into_iter().map(|tensor| tensor.name).collect::<Vec<_>>()
    };
    // Dimensions as ggml prints them: C = 64, F = 96, V = 300, H x N = 4 x 16.
    let bare = expect(
        Version::ARwkv7,
        &Variant::BARE,
        &[
            ("token_embd.weight", &[64, 300], "q8_0"),
            ("output_norm.weight", &[64], "f32"),
            ("blk.1.time_mix_lerp_fused.weight", &[64, 1, 1, 5], "f32"),
            ("blk.0.time_mix_v1.weight", &[64, 7], "f16"),
            ("blk.1.time_mix_v1.weight", &[64, 3], "f16"),
            ("blk.1.time_mix_r_k.weight", &[64], "f32"),
            ("blk.1.ffn_down.weight", &[96, 64], "q8_0"),
        ],
    );
    assert!(!bare.iter().any(|name| name.contains("_norm.bias") || name.contains("time_mix_ln") || name.contains("time_mix_g")));
    expect(
        Version::ARwkv7,
        &Variant::FULL,
        &[("blk.0.time_mix_lerp_fused.weight", &[64, 1, 1, 6], "f32"), ("blk.1.time_mix_g1.weight", &[64, 9], "f16")],
    );
    expect(
        Version::QRwkv6,
        &Variant { kv_heads: 2, ..Variant::FULL },
        &[
            ("blk.0.time_mix_w1.weight", &[64, 30], "f32"),
            ("blk.0.time_mix_w2.weight", &[6, 64, 5], "f32"),
            ("blk.0.time_mix_lerp_fused.weight", &[64, 1, 1, 5], "f32"),
            ("blk.0.time_mix_decay_w1.weight", &[64, 7], "f32"),
            ("blk.1.time_mix_key.weight", &[64, 32], "q8_0"),
            ("blk.1.time_mix_value.bias", &[32], "f32"),
            ("blk.1.time_mix_receptance.bias", &[64], "f32"),
            ("blk.1.ffn_gate.weight", &[64, 96], "q8_0"),
        ],
    );
}

#[test]
fn metadata_that_contradict_the_tensors_are_refused() {
    let changed = |version: Version, variant: Variant, key: &str, value: Option<RawValue>| {
        let (source, description) = hybrid(version, &variant);
        let mut builder = apart(&written(&source, &description, &laid_out(&description, "f32")));
        let key = format!("{}.{key}", version.name());
        builder.pairs.retain(|(name, _)| name.as_slice() != key.as_bytes());
        if let Some(value) = value {
            builder = builder.key(&key, value);
        }
        let scratch = Scratch::new(&format!("odd-{}", key.replace('.', "-")), &builder.build());
        let file = scratch.open();
        let result = mapped(&file).map_err(|error| error.kind()).and_then(|mapped| {
            let configuration = configuration(&file).map_err(|error| error.kind())?;
            describe_mapped_with(file.tensors(), mapped, &configuration).map_err(|error| error.kind())
        });
        result.map(|description| description.version).unwrap_err()
    };
    let (a, q) = ((Version::ARwkv7, Variant::BARE), (Version::QRwkv6, Variant { kv_heads: 2, ..Variant::FULL }));
    for (version, variant) in [a, q] {
        for key in ["embedding_length", "block_count", "feed_forward_length", "wkv.head_size", "token_shift_count"] {
            assert_eq!(changed(version, variant, key, None), "MissingKey", "{key}");
        }
        let epsilon = "attention.layer_norm_rms_epsilon";
        assert_eq!(changed(version, variant, epsilon, None), "MissingKey");
        assert_eq!(changed(version, variant, epsilon, Some(RawValue::f32(f32::NAN))), "Contradiction");
        assert_eq!(changed(version, variant, epsilon, Some(RawValue::u32(1))), "BadValue");
        assert_eq!(changed(version, variant, "token_shift_count", Some(RawValue::u32(2))), "Contradiction");
        assert_eq!(changed(version, variant, "feed_forward_length", Some(RawValue::u32(95))), "Contradiction");
    }
    assert_eq!(changed(a.0, a.1, "attention.gate_lora_rank", Some(RawValue::u32(9))), "Contradiction");
    assert_eq!(changed(a.0, a.1, "attention.iclr_lora_rank", Some(RawValue::u32(8))), "Contradiction");
    assert_eq!(changed(q.0, q.1, "time_mix_extra_dim", Some(RawValue::u32(5))), "Contradiction");
    // Two key heads are stored: one, three or (the meaning of no number) four contradict the tensors.
    for heads in [Some(RawValue::u32(1)), Some(RawValue::u32(3)), Some(RawValue::u32(0)), None] {
        assert_eq!(changed(q.0, q.1, "attention.head_count_kv", heads), "ShapeMismatch");
    }
}

#[test]
fn tensors_more_or_less_are_refused() {
    for (version, variant) in cases() {
        let (source, description) = hybrid(version, &variant);
        let whole = apart(&written(&source, &description, &laid_out(&description, "f32")));
        for index in 0..whole.tensors.len() {
            let name = String::from_utf8(whole.tensors[index].name.clone()).unwrap();
            // What stands in for the value residual of layer 0 is for runtimes alone.
            if name.starts_with("blk.0.time_mix_v") && name.trim_end_matches(".weight").ends_with(['0', '1', '2']) {
                continue;
            }
            let mut fewer = whole.clone();
            fewer.tensors.remove(index);
            let scratch = Scratch::new("fewer", &fewer.build());
            let file = scratch.open();
            let refused = mapped(&file).map_err(|error| error.kind()).and_then(|mapped| {
                let configuration = configuration(&file).map_err(|error| error.kind())?;
                describe_mapped_with(file.tensors(), mapped, &configuration).map(|_| ()).map_err(|error| error.kind())
            });
            // The rank of the gate is compared with its factor first.
            let expected = if name == "blk.0.time_mix_g1.weight" { "Contradiction" } else { "MissingTensor" };
            assert!(refused == Err(expected), "{version} without {name}: {refused:?}");
        }
        let mut odd = whole.clone();
        odd.tensors[0].name = b"token_embd_norm.weight".to_vec();
        let scratch = Scratch::new("odd", &odd.build());
        assert_eq!(mapped(&scratch.open()).unwrap_err().kind(), "UnknownTensor");
    }
}

#[test]
fn cut_and_changed_headers_never_panic() {
    for (version, variant) in [(Version::ARwkv7, Variant::FULL), (Version::QRwkv6, Variant::FULL)] {
        let (source, description) = hybrid(version, &variant);
        let layout = laid_out(&description, "q8_0");
        let whole = written(&source, &description, &layout);
        let try_all = |bytes: &[u8]| {
            let scratch = Scratch::new(&format!("bent-{}", version.name()), bytes);
            let Ok(file) = GgufFile::open(scratch.path()) else { return false };
            drop(described(&file).map(|model| (file.words(&model), file.tokens(&model))));
            let (Ok(mapped), Ok(configuration)) = (mapped(&file), configuration(&file)) else { return false };
            describe_mapped_with(file.tensors(), mapped, &configuration).is_ok()
        };
        assert!(try_all(&whole));
        let header = layout.header.len();
        for end in (0..header).step_by(61) {
            assert!(!try_all(&whole[..end]), "cut at {end}");
        }
        for place in (0..header).step_by(17) {
            for bit in [0x01u8, 0x80] {
                let mut changed = whole.clone();
                changed[place] ^= bit;
                try_all(&changed);
            }
        }
    }
}
