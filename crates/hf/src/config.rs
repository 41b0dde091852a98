//! The `config.json` of each family, from the sizes that the tensors have.

use rwkv_forge_container::{Decoding, Sourced};
use rwkv_forge_model::{Choice, Hyperparameters, ModelDescription, TimeMix};
use rwkv_forge_tensor::Encoding;
use rwkv_forge_tokenizer::bpe::TokenKind;
use rwkv_forge_tokenizer::{Mark, SpecialId, SpecialIds, Tokenizer, name_in_tokenizer_json};
use serde_json::{Map, Value, json};

use crate::error::HfError;
use crate::table::{CandleRow, Class};

/// Special ids of a model.
type Special = SpecialIds<Sourced<u32>>;

/// The special ids that configurations have a place for, the end of a turn among those that end a text.
pub(crate) const HELD: &[SpecialId] = &[SpecialId::Bos, SpecialId::Eos, SpecialId::Eot, SpecialId::Pad];

/// An id; 0, the end of text of World, where none is known.
pub(crate) fn id(special: &Special, which: SpecialId) -> u32 {
    special.get(which).map_or(0, |id| id.value)
}

/// `tokenizer_config.json`: the class that reads `tokenizer.json` as it is, the texts of these special ids, and what is added to a vocabulary. An id
/// that is an ordinary token has no text there: the class would add that text as a token of its own.
pub(crate) fn tokenizer(tokenizer: &Tokenizer, special: &Special, texts: &[SpecialId]) -> Value {
    let mut config = Map::new();
    config.extend(added(tokenizer).map(|added| ("added_tokens_decoder".to_owned(), added)));
    for which in texts {
        let text = name_in_tokenizer_json(tokenizer, id(special, *which));
        config.extend(text.map(|text| (format!("{}_token", which.name()), json!(text))));
    }
    config.insert("clean_up_tokenization_spaces".to_owned(), json!(false));
    config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
    Value::Object(config)
}

/// What is added to the tokens of a list; `None` where nothing is.
fn added(tokenizer: &Tokenizer) -> Option<Value> {
    // Rows without a token are none, whatever they are called, and the end of text has no text.
    let is_added =
        |(id, mark): &(u32, &Mark)| mark.kind != TokenKind::Unused && tokenizer.token_bytes(*id).is_some_and(|bytes| !bytes.is_empty());
    let entry = |(id, mark): (u32, &Mark)| {
        let is_control = mark.kind == TokenKind::Control;
        let entry = json!({
            "content": mark.text, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": is_control,
        });
        (id.to_string(), entry)
    };
    let added: Map<String, Value> = tokenizer.marks().filter(is_added).map(entry).collect();
    (!added.is_empty()).then(|| added.into())
}

/// RWKV-7 of flash-linear-attention. `value_dim` is a list, one width a layer.
pub(crate) fn fla(model: &ModelDescription, choices: &[Choice], class: &str, kind: &str, special: &Special) -> Result<Value, HfError> {
    let sizes = &model.hyperparameters;
    let TimeMix::Wkv7 { decay, iclr, value, gate } = model.mechanisms.time_mix else {
        return Err(HfError::Internal(format!("flash-linear-attention has no {}", model.mechanisms.time_mix.name())));
    };
    let (value, gate) = (value.unwrap_or(0), gate.unwrap_or(0));
    Ok(json!({
        "architectures": [class],
        "model_type": kind,
        "a_low_rank_dim": iclr,
        "attn": null,
        "attn_mode": "chunk",
        "bos_token_id": id(special, SpecialId::Bos),
        "decay_low_rank_dim": decay,
        "eos_token_id": id(special, SpecialId::Eos),
        "fuse_cross_entropy": true,
        "fuse_norm": false,
        "gate_low_rank_dim": gate,
        "head_dim": sizes.head_size,
        "hidden_act": "sqrelu",
        "hidden_ratio": ratio(sizes),
        "hidden_size": sizes.channels,
        "initializer_range": 0.02,
        "intermediate_size": sizes.ffn,
        "max_position_embeddings": 2048,
        "norm_bias": true,
        "norm_eps": 1e-5,
        "norm_first": true,
        "num_heads": sizes.heads,
        "num_hidden_layers": sizes.layers,
        "tie_word_embeddings": false,
        "torch_dtype": dtype(model, choices),
        "use_cache": true,
        "v_low_rank_dim": value,
        "value_dim": vec![sizes.channels; sizes.layers],
        "vocab_size": sizes.vocabulary,
    }))
}

/// F / C as a number that JSON readers take for the float it is declared as.
fn ratio(sizes: &Hyperparameters) -> f64 {
    let float = |value: usize| u32::try_from(value).map_or(f64::NAN, f64::from);
    float(sizes.ffn) / float(sizes.channels)
}

/// RWKV-4 of Transformers, and the classes of RWKV-5 and RWKV-6 that are published with their models.
pub(crate) fn transformers(model: &ModelDescription, choices: &[Choice], class: &Class, special: &Special) -> Value {
    let sizes = &model.hyperparameters;
    let mut config = json!({
        "architectures": [class.name],
        "model_type": class.kind,
        "attention_hidden_size": sizes.attention,
        "bos_token_id": id(special, SpecialId::Bos),
        "context_length": class.context,
        "eos_token_id": id(special, SpecialId::Eos),
        "hidden_size": sizes.channels,
        "intermediate_size": sizes.ffn,
        "layer_norm_epsilon": 1e-5,
        "num_hidden_layers": sizes.layers,
        "rescale_every": 6,
        "tie_word_embeddings": false,
        "torch_dtype": dtype(model, choices),
        "use_cache": true,
        "vocab_size": sizes.vocabulary,
    });
    if class.heads {
        add_heads(&mut config, sizes);
    }
    config
}

/// candle's RWKV-5 and RWKV-6 read a part of what Transformers' have.
pub(crate) fn candle(row: &CandleRow, model: &ModelDescription) -> Value {
    let sizes = &model.hyperparameters;
    if let Some(name) = row.named {
        return json!({
            "version": name,
            "head_size": sizes.head_size,
            "hidden_size": sizes.channels,
            "intermediate_size": sizes.ffn,
            "num_hidden_layers": sizes.layers,
            "rescale_every": 0,
            "vocab_size": sizes.vocabulary,
        });
    }
    let mut config = json!({
        "attention_hidden_size": sizes.attention,
        "hidden_size": sizes.channels,
        "intermediate_size": sizes.ffn,
        "layer_norm_epsilon": 1e-5,
        "num_hidden_layers": sizes.layers,
        "rescale_every": 6,
        "vocab_size": sizes.vocabulary,
    });
    add_heads(&mut config, sizes);
    config
}

/// `num_attention_heads` is read as the size of a head by all programs that have this configuration
/// (`docs/traps.md`, "Heads in config.json").
fn add_heads(config: &mut Value, sizes: &Hyperparameters) {
    if let Some(entries) = config.as_object_mut() {
        entries.insert("head_size".to_owned(), json!(sizes.head_size));
        entries.insert("head_size_divisor".to_owned(), json!(8));
        entries.insert("num_attention_heads".to_owned(), json!(sizes.head_size));
    }
}

/// How most elements are stored; the widest of equals.
pub(crate) fn dtype(model: &ModelDescription, choices: &[Choice]) -> &'static str {
    let names = [(Encoding::F32, "float32"), (Encoding::BF16, "bfloat16"), (Encoding::F16, "float16")];
    let elements = |encoding: Encoding| {
        let of = model.tensors.iter().zip(choices).filter(|(_, choice)| choice.encoding == encoding);
        of.map(|(spec, _)| spec.elements()).fold(0u64, u64::saturating_add)
    };
    let most = names.iter().map(|(encoding, _)| elements(*encoding)).max();
    names.iter().find(|(encoding, _)| Some(elements(*encoding)) == most).map_or("float32", |(_, name)| name)
}

/// What `generate` of Transformers starts and stops with, and how it chooses tokens where somebody says so.
pub(crate) fn generation(special: &Special, decoding: Option<&Decoding>) -> Value {
    let mut config = json!({
        "bos_token_id": id(special, SpecialId::Bos),
        "eos_token_id": ends(special),
        "pad_token_id": id(special, SpecialId::Pad),
    });
    if let Some(entries) = config.as_object_mut() {
        entries.extend(turn(special).map(|turn| (END_OF_TURN.to_owned(), json!(turn))));
        match decoding {
            Some(said) => entries.extend(said.clone()),
            None => entries.extend([("_from_model_config".to_owned(), json!(true))]),
        }
    }
    config
}

/// Where the end of a turn stands that a list of ids cannot say.
pub(crate) const END_OF_TURN: &str = "eot_token_id";

/// The end of a turn, where somebody says so and it is the end of a text too: programs that stop at that need nothing more, and whoever reads
/// the file finds it.
pub(crate) fn turn(special: &Special) -> Option<u32> {
    let said = special.get(SpecialId::Eot).filter(|said| !said.is_default())?;
    (said.value == id(special, SpecialId::Eos)).then_some(said.value)
}

/// What a text ends with; and a turn, where somebody says so: a list ends with any of its ids.
pub(crate) fn ends(special: &Special) -> Value {
    let eos = id(special, SpecialId::Eos);
    match special.get(SpecialId::Eot) {
        Some(eot) if !eot.is_default() && eot.value != eos => json!([eos, eot.value]),
        Some(_) | None => json!(eos),
    }
}
