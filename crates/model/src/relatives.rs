//! Files that are related to RWKV checkpoints and that no architecture here describes. Each is refused by its name,
//! which helps more than a list of unknown tensors would.

use std::collections::BTreeSet;

use rwkv_forge_tensor::TensorInfo;

use crate::error::{LISTED_NAMES, ModelError};
use crate::names::{Convention, LoraName, StateNames};

/// One kind of file that is recognised in order to be refused.
struct Relative {
    name: &'static str,
    why: &'static str,
    advice: &'static str,
    /// Patterns that must each be met by some tensor name; the first one's tensor is named in the message.
    marks: &'static [Mark],
}

/// A property of a tensor name.
enum Mark {
    /// Ends like this.
    Ends(&'static str),
    /// Starts like this.
    Starts(&'static str),
    /// Has this inside.
    Contains(&'static str),
}

impl Mark {
    fn meets(&self, name: &str) -> bool {
        match self {
            Self::Ends(end) => name.ends_with(end),
            Self::Starts(start) => name.starts_with(start),
            Self::Contains(part) => name.contains(part),
        }
    }
}

const NO_READER: &str = "convert it with the tools of its authors, or give an RWKV-4 to RWKV-7b checkpoint";

/// Special cases stand before the general ones that share their marks.
static RELATIVES: &[Relative] = &[
    Relative {
        name: "a reranker of EmbeddingRWKV",
        why: "it starts from the states of another model and ends in a score, not in logits",
        advice: "convert the language model whose states it reads, which is a file of its own",
        marks: &[Mark::Ends("head.0.weight"), Mark::Ends("head.2.weight")],
    },
    Relative {
        name: "a reranker of EmbeddingRWKV",
        why: "it starts from the states of another model and ends in a score, not in logits",
        advice: "convert the language model whose states it reads, which is a file of its own",
        marks: &[Mark::Ends("reranker_layer_idx")],
    },
    Relative {
        name: "an int8 checkpoint converted by the rwkv Python package",
        why: "its weights are rescaled, transposed and rounded for that package alone",
        advice: "convert the checkpoint that it was made from",
        marks: &[Mark::Ends(".weight_mx"), Mark::Ends(".weight_rx")],
    },
    Relative {
        name: "RWKV-8 with ROSA",
        why: "its suffix-automaton layers are research in progress and no format can carry them",
        advice: NO_READER,
        marks: &[Mark::Contains("rosa")],
    },
    Relative {
        name: "RWKV-8 with ROSA",
        why: "its suffix-automaton layers are research in progress and no format can carry them",
        advice: NO_READER,
        marks: &[Mark::Contains("qkv_lr")],
    },
    Relative {
        name: "a release candidate of RWKV-8",
        why: "its channel mix multiplies by a table per token, which this program does not compute",
        advice: NO_READER,
        marks: &[Mark::Ends("ffn.enn.weight")],
    },
    Relative {
        name: "a shard of FSDP",
        why: "it has flat pieces of parameters, of which every process saved its own",
        advice: "let the trainer save a full state dict, or put the shards together with `python -m torch.distributed.checkpoint.format_utils \
                 dcp_to_torch`",
        marks: &[Mark::Ends("flat_param")],
    },
    Relative {
        name: "RWKV-X",
        why: "blocks of attention stand between its layers, which this program does not compute and no format can carry",
        advice: NO_READER,
        marks: &[Mark::Starts("moba.")],
    },
    Relative {
        name: "a research variant of RWKV-6 (x060a, x060b or x060c)",
        why: "it was never released and no format can carry it",
        advice: NO_READER,
        marks: &[Mark::Contains(".att.time_maa_rkvw_w")],
    },
    Relative {
        name: "a research variant of RWKV-6 (x060a, x060b or x060c)",
        why: "it was never released and no format can carry it",
        advice: NO_READER,
        marks: &[Mark::Contains(".att.gate_w")],
    },
    Relative {
        name: "RWKV-4neo with an attention head",
        why: "head_q, head_k and copy_mask belong to an experiment that no runtime computes",
        advice: NO_READER,
        marks: &[Mark::Starts("head_q")],
    },
    Relative {
        name: "RWKV-4neo with an attention head",
        why: "head_q, head_k and copy_mask belong to an experiment that no runtime computes",
        advice: NO_READER,
        marks: &[Mark::Starts("copy_mask")],
    },
    Relative {
        name: "an RWKV-7 and Qwen hybrid (RADLADS, Qwerky, HRWKV7)",
        why: "RWKV-7 attention inside the layers of Qwen is another architecture",
        advice: NO_READER,
        marks: &[Mark::Contains(".self_attn.w0")],
    },
    Relative {
        name: "RWKV-6 of the flash-linear-attention library",
        why: "its tensors are arranged differently from those of the released RWKV-6 models",
        advice: "give the checkpoint in BlinkDL's or Hugging Face's RWKV-6 names",
        marks: &[Mark::Contains(".attn.x_proj.")],
    },
];

/// Refused unless the names are those of a hybrid.
static TRANSFORMER: Relative = Relative {
    name: "a transformer",
    why: "self-attention is no part of any RWKV version",
    advice: "give an RWKV-4 to RWKV-7b checkpoint",
    marks: &[Mark::Contains(".self_attn.")],
};

/// Refuses what is recognised as one of the relatives.
pub(crate) fn refuse(infos: &[TensorInfo]) -> Result<(), ModelError> {
    if let Some(first) = infos.first().filter(|_| StateNames::of(infos).is_all()) {
        return Err(ModelError::UnsupportedArchitecture {
            name: "a tuned initial state",
            why: "it holds states only and no weights",
            advice: "give the model that the state was tuned for: `generate MODEL --state FILE` starts it there, and `state FILE --to FORMAT` \
                     converts the state",
            witness: first.name.clone(),
        });
    }
    refuse_pairs(infos)?;
    let transformer = (!crate::names::needs_configuration(infos)).then_some(&TRANSFORMER);
    for relative in RELATIVES.iter().chain(transformer) {
        let witnesses: Option<Vec<&TensorInfo>> =
            relative.marks.iter().map(|mark| infos.iter().find(|info| mark.meets(&info.name))).collect();
        if let Some(witness) = witnesses.as_ref().and_then(|all| all.first()) {
            return Err(ModelError::UnsupportedArchitecture {
                name: relative.name,
                why: relative.why,
                advice: relative.advice,
                witness: witness.name.clone(),
            });
        }
    }
    Ok(())
}

/// Refuses what several adapters have a part of: names as the file has them.
pub(crate) fn refuse_several_adapters(infos: &[TensorInfo]) -> Result<(), ModelError> {
    let names = crate::names::adapters(infos);
    if names.len() < 2 {
        return Ok(());
    }
    Err(ModelError::SeveralAdapters { names: names.into_iter().take(LISTED_NAMES).map(str::to_owned).collect() })
}

/// Pairs of a LoRA: an adapter, or a whole model that was saved with them beside its weights.
fn refuse_pairs(infos: &[TensorInfo]) -> Result<(), ModelError> {
    let (pairs, weights): (Vec<&TensorInfo>, Vec<&TensorInfo>) = infos.iter().partition(|info| LoraName::parse(&info.name).is_some());
    let Some(first) = pairs.first() else { return Ok(()) };
    let weights: Vec<TensorInfo> = weights.into_iter().cloned().collect();
    let mapped = Convention::of(&weights).map(&weights).unwrap_or_default();
    let has = |wanted: &str| mapped.iter().any(|tensor| tensor.name == wanted);
    // An adapter may have the embedding in full, but not the matrices of a layer.
    if has("emb.weight") && has("blocks.0.att.key.weight") && has("blocks.0.att.value.weight") {
        let stems: BTreeSet<&str> = pairs.iter().filter_map(|info| Some(LoraName::parse(&info.name)?.stem)).collect();
        return Err(ModelError::UnmergedLora { pairs: stems.len(), witness: first.name.clone() });
    }
    Err(ModelError::UnsupportedArchitecture {
        name: "a LoRA adapter",
        why: "it holds differences to a model",
        advice: "convert the model that it was trained on with --lora and this file, and with --lora-alpha unless an adapter_config.json beside \
                 it says alpha",
        witness: first.name.clone(),
    })
}

/// What tensors of these names may be, in a file that is otherwise a model.
pub(crate) fn explain(names: &[String]) -> &'static str {
    if names.iter().any(|name| name.ends_with(".time_state")) {
        return "time_state is a tuned initial state merged into the model, and models of this version have none; \
                save the model without it";
    }
    if names.iter().any(|name| name.contains("lm_head") || name.contains("embed_tokens")) {
        return "these names belong to another naming convention; give a file that follows one convention throughout";
    }
    "nothing is left out silently; remove them from the checkpoint if the model works without them"
}
