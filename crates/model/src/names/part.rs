//! Whose names a file has that holds some tensors of a model and not all of them: an adapter, states. Start at [`Part::of`].

use rwkv_forge_tensor::TensorInfo;

use super::{CONVENTIONS, Convention, Wrapping};
use crate::tensor::MappedTensor;

/// Some tensors of a model under their canonical names.
#[derive(Debug)]
pub struct Part {
    /// What stands before all names.
    pub wrapping: Wrapping,
    /// Whose names they are.
    pub convention: &'static Convention,
    /// The tensors that are known, by canonical name.
    pub mapped: Vec<MappedTensor>,
}

impl Part {
    /// The reading of the names under which most of them are tensors of the model, where `is_known` says which canonical names it has.
    /// A whole model is recognised by what no part of it needs to have, such as the embedding.
    #[must_use]
    pub fn of(infos: &[TensorInfo], is_known: &dyn Fn(&str) -> bool) -> Self {
        let read = |wrapping: &Wrapping, convention: &'static Convention| {
            let mut mapped = convention.map(&wrapping.unwrapped(infos)).unwrap_or_default();
            mapped.retain(|tensor| is_known(&tensor.name));
            mapped
        };
        let best = |wrapping: &Wrapping| {
            let mut best = (CONVENTIONS.first().copied().unwrap_or(&super::BLINKDL), Vec::new());
            for convention in CONVENTIONS.iter().copied() {
                let mapped = read(wrapping, convention);
                if mapped.len() > best.1.len() {
                    best = (convention, mapped);
                }
            }
            best
        };
        let wrapping = Wrapping::by(infos, |wrapping| best(wrapping).1.len());
        let (convention, mapped) = best(&wrapping);
        Self { wrapping, convention, mapped }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;
    use rwkv_forge_tensor::Encoding;

    #[test]
    fn a_few_tensors_are_enough_to_know_whose_they_are() {
        let known = ["blocks.3.att.key.weight", "blocks.3.ffn.key.weight", "blocks.3.att.w1", "head.weight"];
        for (name, canonical, prefix) in [
            ("base_model.model.blocks.3.att.key.weight", 0, "base_model.model."),
            ("base_model.model.model.layers.3.attn.k_proj.weight", 0, "base_model.model."),
            ("base_model.model.model.layers.3.linear_attn.k_proj.weight", 0, "base_model.model."),
            ("base_model.model.model.layers.3.mlp.key.weight", 1, "base_model.model."),
            ("base_model.model.rwkv.blocks.3.attention.key.weight", 0, "base_model.model."),
            ("base_model.model.model.layers.3.attn.w_lora.lora.0.weight", 2, "base_model.model."),
            ("base_model.model.lm_head.weight", 3, "base_model.model."),
            ("model.layers.3.ffn.key.weight", 1, ""),
            ("_orig_mod.module.blocks.3.ffn.key.weight", 1, "module."),
        ] {
            let info = TensorInfo { name: name.to_owned(), shape: vec![4, 4], encoding: Encoding::F32 };
            let part = Part::of(&[info], &|name| known.contains(&name));
            let found: Vec<&str> = part.mapped.iter().map(|tensor| tensor.name.as_str()).collect();
            assert_eq!(found, [known[canonical]], "{name}");
            assert_eq!(part.wrapping.prefix(), prefix, "{name}");
        }
    }
}
