//! Canonical (BlinkDL) names from the names that other programs write: one table a convention.
//!
//! Only names are translated here. Whether the tensors make up a model is decided in [`crate::describe`].

mod companions;
mod lora;
mod part;
mod peft;
mod qwen;
mod state;
mod web_rwkv;
mod wrapping;

use rwkv_forge_tensor::TensorInfo;

use crate::error::ModelError;
use crate::tensor::{MappedTensor, Recover};

pub use companions::Companions;
pub use lora::{LoraName, LoraPart};
pub use part::Part;
pub use peft::{adapters, untrained};
pub use state::{StateNames, StatePart};
pub use wrapping::{WRAPPERS, Wrapping};

/// Longest name that a ggml-based container stores, in bytes: its field has 64, the last one is a zero.
pub const GGML_NAME_LIMIT: usize = 63;

/// How one family of programs names the tensors of a model.
#[derive(Debug)]
pub struct Convention {
    /// What people call it.
    pub name: &'static str,
    /// In front of the layer number.
    layer_prefix: &'static str,
    /// Beginnings of names within a layer of which a file must have one; empty for a convention that any file with the
    /// layer prefix may follow.
    only_with: &'static [&'static str],
    /// Whole names outside of the layers: (file's, canonical).
    outside: &'static [(&'static str, &'static str)],
    /// Whole names within a layer.
    exact: &'static [(&'static str, &'static str, Recover)],
    /// Tensors that hold several canonical ones: (file's name within the layer, canonical names in their order).
    stacked: &'static [(&'static str, &'static [&'static str])],
    /// Beginnings of names within a layer that are replaced, tried after `exact`.
    prefixes: &'static [(&'static str, &'static str)],
}

/// All conventions. Of those whose marks a file bears, the one whose layer prefix most names have is taken; in a tie, the
/// earlier one.
pub static CONVENTIONS: &[&Convention] =
    &[&BLINKDL, &PREFIXED, &CANDLE_6, &HUGGING_FACE, &LAYERS, &NATIVE, &qwen::ARWKV, &qwen::QRWKV6, &FLA];

/// RWKV-LM and all checkpoints published as `.pth`.
pub static BLINKDL: Convention = Convention {
    name: "BlinkDL",
    layer_prefix: "blocks.",
    only_with: &[],
    outside: &[
        ("emb.weight", "emb.weight"),
        ("ln_out.weight", "ln_out.weight"),
        ("ln_out.bias", "ln_out.bias"),
        ("head.weight", "head.weight"),
    ],
    exact: &[],
    stacked: &[],
    prefixes: &[("", "")],
};

/// Ports to Transformers that put `model.` in front of BlinkDL's names, some with the longer words of RWKV-4's port.
static PREFIXED: Convention = Convention {
    name: "BlinkDL with the prefix model.",
    layer_prefix: "model.blocks.",
    only_with: &[],
    outside: &[
        ("model.emb.weight", "emb.weight"),
        ("model.embeddings.weight", "emb.weight"),
        ("model.ln_out.weight", "ln_out.weight"),
        ("model.ln_out.bias", "ln_out.bias"),
        ("model.head.weight", "head.weight"),
        ("head.weight", "head.weight"),
        ("model.pre_ln.weight", "blocks.0.ln0.weight"),
        ("model.pre_ln.bias", "blocks.0.ln0.bias"),
    ],
    exact: &[("pre_ln.weight", "ln0.weight", Recover::AS_IS), ("pre_ln.bias", "ln0.bias", Recover::AS_IS)],
    stacked: &[],
    prefixes: &[("attention.", "att."), ("feed_forward.", "ffn."), ("", "")],
};

/// RWKV-4 in Transformers, and the RWKV-5 and RWKV-6 models published in its style.
pub static HUGGING_FACE: Convention = Convention {
    name: "Hugging Face (RWKV-4 to 6)",
    layer_prefix: "rwkv.blocks.",
    only_with: &[],
    outside: HUGGING_FACE_OUTSIDE,
    exact: &[
        ("pre_ln.weight", "ln0.weight", Recover::AS_IS),
        ("pre_ln.bias", "ln0.bias", Recover::AS_IS),
        ("attention.time_mix_key", "att.time_mix_k", Recover::AS_IS),
        ("attention.time_mix_value", "att.time_mix_v", Recover::AS_IS),
        ("attention.time_mix_receptance", "att.time_mix_r", Recover::AS_IS),
        ("attention.time_mix_gate", "att.time_mix_g", Recover::AS_IS),
        ("feed_forward.time_mix_key", "ffn.time_mix_k", Recover::AS_IS),
        ("feed_forward.time_mix_receptance", "ffn.time_mix_r", Recover::AS_IS),
    ],
    stacked: &[],
    prefixes: &[("attention.", "att."), ("feed_forward.", "ffn."), ("ln", "ln")],
};

static HUGGING_FACE_OUTSIDE: &[(&str, &str)] = &[
    ("rwkv.embeddings.weight", "emb.weight"),
    ("rwkv.ln_out.weight", "ln_out.weight"),
    ("rwkv.ln_out.bias", "ln_out.bias"),
    ("head.weight", "head.weight"),
];

/// RWKV-6 of the candle library: Hugging Face's names, but with RWKV-5's words for the token shift.
pub static CANDLE_6: Convention = Convention {
    name: "candle (RWKV-6)",
    layer_prefix: "rwkv.blocks.",
    only_with: &["attention.time_mix_w"],
    outside: HUGGING_FACE_OUTSIDE,
    exact: &[
        ("pre_ln.weight", "ln0.weight", Recover::AS_IS),
        ("pre_ln.bias", "ln0.bias", Recover::AS_IS),
        ("attention.time_mix_x", "att.time_maa_x", Recover::AS_IS),
        ("attention.time_mix_w", "att.time_maa_w", Recover::AS_IS),
        ("attention.time_mix_key", "att.time_maa_k", Recover::AS_IS),
        ("attention.time_mix_value", "att.time_maa_v", Recover::AS_IS),
        ("attention.time_mix_receptance", "att.time_maa_r", Recover::AS_IS),
        ("attention.time_mix_gate", "att.time_maa_g", Recover::AS_IS),
        ("attention.time_mix_w1", "att.time_maa_w1", Recover::AS_IS),
        ("attention.time_mix_w2", "att.time_maa_w2", Recover::AS_IS),
        ("feed_forward.time_mix_key", "ffn.time_maa_k", Recover::AS_IS),
        ("feed_forward.time_mix_receptance", "ffn.time_maa_r", Recover::AS_IS),
    ],
    stacked: &[],
    prefixes: &[("attention.", "att."), ("feed_forward.", "ffn."), ("ln", "ln")],
};

/// RWKV-7 ports that number `layers` but keep BlinkDL's short names and orientation within them, some with one module
/// more around the time mix.
pub static LAYERS: Convention = Convention {
    name: "BlinkDL's names within model.layers (RWKV-7)",
    layer_prefix: "model.layers.",
    only_with: &["attention.", "attn.time_mixer."],
    outside: &[
        ("model.embeddings.weight", "emb.weight"),
        ("model.emb.weight", "emb.weight"),
        ("model.ln_out.weight", "ln_out.weight"),
        ("model.ln_out.bias", "ln_out.bias"),
        ("model.norm.weight", "ln_out.weight"),
        ("model.norm.bias", "ln_out.bias"),
        ("head.weight", "head.weight"),
        ("model.head.weight", "head.weight"),
        ("lm_head.weight", "head.weight"),
        ("model.pre_ln.weight", "blocks.0.ln0.weight"),
        ("model.pre_ln.bias", "blocks.0.ln0.bias"),
        ("model.ln0.weight", "blocks.0.ln0.weight"),
        ("model.ln0.bias", "blocks.0.ln0.bias"),
    ],
    exact: &[
        ("pre_ln.weight", "ln0.weight", Recover::AS_IS),
        ("pre_ln.bias", "ln0.bias", Recover::AS_IS),
        ("pre_norm.weight", "ln0.weight", Recover::AS_IS),
        ("pre_norm.bias", "ln0.bias", Recover::AS_IS),
        ("attention.g_norm.weight", "att.ln_x.weight", Recover::AS_IS),
        ("attention.g_norm.bias", "att.ln_x.bias", Recover::AS_IS),
    ],
    stacked: &[("attention.x_x", TIME_MIX_7), ("attention.time_mixer.x_x", TIME_MIX_7), ("attn.time_mixer.x_x", TIME_MIX_7)],
    prefixes: &[
        ("attention.time_mixer.", "att."),
        ("attn.time_mixer.", "att."),
        ("attention.", "att."),
        ("feed_forward.", "ffn."),
        ("ffn.", "ffn."),
        ("ln", "ln"),
    ],
};

/// RWKV-7 of Transformers itself (`RwkvForCausalLM`, since August 2026). Low-rank factors lie as in BlinkDL's files.
pub static NATIVE: Convention = Convention {
    name: "Hugging Face (RwkvForCausalLM, RWKV-7)",
    layer_prefix: "model.layers.",
    only_with: &["linear_attn."],
    outside: &[
        ("model.embed_tokens.weight", "emb.weight"),
        ("model.embedding_norm.weight", "blocks.0.ln0.weight"),
        ("model.embedding_norm.bias", "blocks.0.ln0.bias"),
        ("model.norm.weight", "ln_out.weight"),
        ("model.norm.bias", "ln_out.bias"),
        ("lm_head.weight", "head.weight"),
    ],
    exact: &[
        ("input_layernorm.weight", "ln1.weight", Recover::AS_IS),
        ("input_layernorm.bias", "ln1.bias", Recover::AS_IS),
        ("post_attention_layernorm.weight", "ln2.weight", Recover::AS_IS),
        ("post_attention_layernorm.bias", "ln2.bias", Recover::AS_IS),
        ("linear_attn.r_proj.weight", "att.receptance.weight", Recover::AS_IS),
        ("linear_attn.k_proj.weight", "att.key.weight", Recover::AS_IS),
        ("linear_attn.v_proj.weight", "att.value.weight", Recover::AS_IS),
        ("linear_attn.o_proj.weight", "att.output.weight", Recover::AS_IS),
        ("linear_attn.g_norm.weight", "att.ln_x.weight", Recover::AS_IS),
        ("linear_attn.g_norm.bias", "att.ln_x.bias", Recover::AS_IS),
        ("mlp.key.weight", "ffn.key.weight", Recover::AS_IS),
        ("mlp.value.weight", "ffn.value.weight", Recover::AS_IS),
        // Of a draft; what was released has the words above, which are written, since they come first.
        ("mlp.up_proj.weight", "ffn.key.weight", Recover::AS_IS),
        ("mlp.down_proj.weight", "ffn.value.weight", Recover::AS_IS),
    ],
    stacked: &[],
    prefixes: &[("linear_attn.", "att."), ("mlp.", "ffn.")],
};

/// The order in which the token-shift vectors of RWKV-7 are stacked.
static TIME_MIX_7: &[&str] = &["att.x_r", "att.x_w", "att.x_k", "att.x_v", "att.x_a", "att.x_g"];

/// RWKV-7 of the flash-linear-attention library. Low-rank factors are stored as linear layers, that is transposed.
pub static FLA: Convention = Convention {
    name: "flash-linear-attention (RWKV-7)",
    layer_prefix: "model.layers.",
    only_with: &[],
    outside: &[
        ("model.embeddings.weight", "emb.weight"),
        ("model.norm.weight", "ln_out.weight"),
        ("model.norm.bias", "ln_out.bias"),
        ("lm_head.weight", "head.weight"),
    ],
    exact: &[
        ("pre_norm.weight", "ln0.weight", Recover::AS_IS),
        ("pre_norm.bias", "ln0.bias", Recover::AS_IS),
        ("attn_norm.weight", "ln1.weight", Recover::AS_IS),
        ("attn_norm.bias", "ln1.bias", Recover::AS_IS),
        ("ffn_norm.weight", "ln2.weight", Recover::AS_IS),
        ("ffn_norm.bias", "ln2.bias", Recover::AS_IS),
        ("attn.x_r", "att.x_r", Recover::AS_IS),
        ("attn.x_w", "att.x_w", Recover::AS_IS),
        ("attn.x_k", "att.x_k", Recover::AS_IS),
        ("attn.x_v", "att.x_v", Recover::AS_IS),
        ("attn.x_a", "att.x_a", Recover::AS_IS),
        ("attn.x_g", "att.x_g", Recover::AS_IS),
        ("attn.k_k", "att.k_k", Recover::AS_IS),
        ("attn.k_a", "att.k_a", Recover::AS_IS),
        ("attn.r_k", "att.r_k", Recover::AS_IS),
        ("attn.r_proj.weight", "att.receptance.weight", Recover::AS_IS),
        ("attn.k_proj.weight", "att.key.weight", Recover::AS_IS),
        ("attn.v_proj.weight", "att.value.weight", Recover::AS_IS),
        ("attn.o_proj.weight", "att.output.weight", Recover::AS_IS),
        ("attn.g_norm.weight", "att.ln_x.weight", Recover::AS_IS),
        ("attn.g_norm.bias", "att.ln_x.bias", Recover::AS_IS),
        ("attn.w_lora.lora.0.weight", "att.w1", Recover::TRANSPOSED),
        ("attn.w_lora.lora.2.weight", "att.w2", Recover::TRANSPOSED),
        ("attn.w_lora.lora.2.bias", "att.w0", Recover::AS_IS),
        ("attn.a_lora.lora.0.weight", "att.a1", Recover::TRANSPOSED),
        ("attn.a_lora.lora.2.weight", "att.a2", Recover::TRANSPOSED),
        ("attn.a_lora.lora.2.bias", "att.a0", Recover::AS_IS),
        ("attn.v_lora.lora.0.weight", "att.v1", Recover::TRANSPOSED),
        ("attn.v_lora.lora.2.weight", "att.v2", Recover::TRANSPOSED),
        ("attn.v_lora.lora.2.bias", "att.v0", Recover::AS_IS),
        ("attn.g_lora.lora.0.weight", "att.g1", Recover::TRANSPOSED),
        ("attn.g_lora.lora.2.weight", "att.g2", Recover::TRANSPOSED),
        ("ffn.x_k", "ffn.x_k", Recover::AS_IS),
        ("ffn.key.weight", "ffn.key.weight", Recover::AS_IS),
        ("ffn.value.weight", "ffn.value.weight", Recover::AS_IS),
    ],
    stacked: &[("attn.x_x", TIME_MIX_7)],
    prefixes: &[],
};

impl Convention {
    /// As [`Convention::of`], with a look at shapes where BlinkDL's names are used for something else.
    ///
    /// # Errors
    /// [`ModelError::AmbiguousOrientation`] when the shapes do not say which way the factors lie.
    pub fn detect(infos: &[TensorInfo]) -> Result<&'static Self, ModelError> {
        let convention = Self::of(infos);
        if convention.layer_prefix != BLINKDL.layer_prefix {
            return Ok(convention);
        }
        Ok(web_rwkv::refine(infos)?.unwrap_or(convention))
    }

    /// The convention that most of the names follow; BlinkDL's if none has a layer.
    #[must_use]
    pub fn of(infos: &[TensorInfo]) -> &'static Self {
        let mut best = (0, &BLINKDL);
        for convention in CONVENTIONS.iter().copied().filter(|convention| convention.is_marked(infos)) {
            let names = infos.iter().filter(|info| info.name.starts_with(convention.layer_prefix)).count();
            if names > best.0 {
                best = (names, convention);
            }
        }
        best.1
    }

    /// True when nothing speaks against this convention: it asks for no marks, or a tensor bears one.
    fn is_marked(&self, infos: &[TensorInfo]) -> bool {
        let within = |info: &TensorInfo| {
            let rest = info.name.strip_prefix(self.layer_prefix)?;
            let (_, suffix) = rest.split_once('.')?;
            Some(self.only_with.iter().any(|mark| suffix.starts_with(mark)))
        };
        self.only_with.is_empty() || infos.iter().any(|info| within(info) == Some(true))
    }

    /// The name under which this convention stores a canonical tensor, and how the canonical one is found in it; `None`
    /// when the convention has no such tensor. Where it has several names for one tensor, the first in its tables.
    ///
    /// ```
    /// let (name, recover) = rwkv_forge_model::names::FLA.stored_name("blocks.3.att.w1").unwrap();
    /// assert_eq!((name.as_str(), recover.transposed), ("model.layers.3.attn.w_lora.lora.0.weight", true));
    /// ```
    #[must_use]
    pub fn stored_name(&self, canonical: &str) -> Option<(String, Recover)> {
        if let Some((stored, _)) = self.outside.iter().find(|(_, name)| *name == canonical) {
            return Some(((*stored).to_owned(), Recover::AS_IS));
        }
        let (layer, suffix) = split_layer(canonical).ok()??;
        if let Some((stored, _, recover)) = self.exact.iter().find(|(_, name, _)| *name == suffix) {
            return Some((format!("{}{layer}.{stored}", self.layer_prefix), *recover));
        }
        let replaced = self.prefixes.iter().find_map(|(from, to)| Some(format!("{from}{}", suffix.strip_prefix(to)?)))?;
        Some((format!("{}{layer}.{replaced}", self.layer_prefix), Recover::AS_IS))
    }

    /// Canonical names for everything whose name this convention knows; the rest is left out.
    ///
    /// # Errors
    /// [`ModelError::BadName`] when a name has the layer prefix but no proper layer number.
    pub fn map(&self, infos: &[TensorInfo]) -> Result<Vec<MappedTensor>, ModelError> {
        let mut mapped = Vec::with_capacity(infos.len());
        for (source_index, info) in infos.iter().enumerate() {
            let Some((layer, suffix)) = split(self.layer_prefix, &info.name)? else {
                if let Some((_, name)) = self.outside.iter().find(|(source, _)| *source == info.name) {
                    mapped.push(MappedTensor { name: (*name).to_owned(), source_index, recover: Recover::AS_IS });
                }
                continue;
            };
            for (suffix, recover) in self.within_layer(suffix, info) {
                mapped.push(MappedTensor { name: format!("blocks.{layer}.{suffix}"), source_index, recover });
            }
        }
        Ok(mapped)
    }

    /// Canonical names within a layer for a name within a layer: none, one, or those of a stack.
    fn within_layer(&self, suffix: &str, info: &TensorInfo) -> Vec<(String, Recover)> {
        let exact = self.exact.iter().filter(|(source, ..)| *source == suffix);
        let exact: Vec<_> = exact.map(|(_, canonical, recover)| ((*canonical).to_owned(), *recover)).collect();
        if !exact.is_empty() {
            return exact;
        }
        let mut stacks = self.stacked.iter().filter(|(source, _)| *source == suffix);
        let fits = |parts: &[&str]| info.shape.first() == u64::try_from(parts.len()).ok().as_ref();
        // Of stacks with one name the one of the tensor's height; if none fits, the first, whose shape is then refused.
        if let Some((_, parts)) = stacks.clone().find(|(_, parts)| fits(parts)).or_else(|| stacks.next()) {
            let of = u32::try_from(parts.len()).unwrap_or(u32::MAX);
            return (0..of).zip(*parts).map(|(part, name)| ((*name).to_owned(), Recover { part: (part, of), ..Recover::AS_IS })).collect();
        }
        let replaced = self.prefixes.iter().find_map(|(from, to)| Some(format!("{to}{}", suffix.strip_prefix(from)?)));
        replaced.map(|name| (name, Recover::AS_IS)).into_iter().collect()
    }
}

/// True if the names are those of an architecture of which a configuration says what no tensor does: a hybrid with Qwen.
#[must_use]
pub fn needs_configuration(infos: &[TensorInfo]) -> bool {
    qwen::ALL.iter().any(|convention| convention.is_marked(infos))
}

/// Splits a canonical name of a layer's tensor into layer number and the name within the layer; `None` for a tensor
/// outside of the layers.
pub(crate) fn split_layer(name: &str) -> Result<Option<(u32, &str)>, ModelError> {
    split("blocks.", name)
}

fn split<'a>(prefix: &str, name: &'a str) -> Result<Option<(u32, &'a str)>, ModelError> {
    let Some(rest) = name.strip_prefix(prefix) else { return Ok(None) };
    let bad = |why| Err(ModelError::BadName { name: name.to_owned(), why });
    let Some((digits, suffix)) = rest.split_once('.') else {
        return bad("a layer number, a dot and a name must follow the prefix");
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return bad("the layer number must consist of decimal digits");
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return bad("the layer number must not start with 0");
    }
    match digits.parse() {
        Ok(layer) => Ok(Some((layer, suffix))),
        Err(_) => bad("the layer number must be below 4294967296"),
    }
}

/// Whether a name is one that some convention has for this canonical tensor outside of the layers, whatever wraps it.
///
/// ```
/// use rwkv_forge_model::names::is_called;
///
/// assert!(is_called("head.weight", "head.weight") && is_called("model.llm.lm_head.weight", "head.weight"));
/// assert!(is_called("model.embed_tokens.weight", "emb.weight") && !is_called("blocks.0.att.key.weight", "emb.weight"));
/// ```
#[must_use]
pub fn is_called(name: &str, canonical: &str) -> bool {
    let own = |stored: &str| name.strip_suffix(stored).is_some_and(|before| before.is_empty() || before.ends_with('.'));
    let outside = CONVENTIONS.iter().flat_map(|convention| convention.outside);
    outside.filter(|(_, known)| *known == canonical).any(|(stored, _)| own(stored))
}

/// Checks that a ggml-based container can store this name.
///
/// # Errors
/// [`ModelError::NameTooLong`] above [`GGML_NAME_LIMIT`] bytes, [`ModelError::BadName`] for an empty name or one with
/// control characters.
pub fn check_name_for_ggml(name: &str) -> Result<(), ModelError> {
    if name.len() > GGML_NAME_LIMIT {
        return Err(ModelError::NameTooLong { name: name.to_owned(), bytes: name.len(), limit: GGML_NAME_LIMIT });
    }
    if name.is_empty() {
        return Err(ModelError::BadName { name: String::new(), why: "an empty name cannot be stored" });
    }
    if name.chars().any(char::is_control) {
        return Err(ModelError::BadName { name: name.to_owned(), why: "control characters cannot be stored" });
    }
    Ok(())
}
