//! Tensors that lie beside a language model in the files of known families and are no part of it: encoders, projectors, heads of embedding
//! models. They are named and left out; whatever else remains is an error.

use std::collections::BTreeSet;
use std::sync::Arc;

use rwkv_forge_tensor::TensorInfo;

use super::Wrapping;
use super::peft::original;

/// A family of models around an RWKV.
struct Family {
    name: &'static str,
    /// What stands before the names of its language model.
    language_model: &'static str,
    /// What the names of all others begin with, and what those are.
    beside: &'static [(&'static str, &'static str)],
}

static FAMILIES: [Family; 3] = [
    Family {
        name: "EmbeddingRWKV",
        language_model: "rwkv.",
        beside: &[
            ("head.cls_head.", "embedding head"),
            ("head.sts_head.", "embedding head"),
            ("head.retr_head.", "embedding head"),
            ("vit.", "encoder"),
            ("proj.", "projector"),
        ],
    },
    Family {
        name: "ModRWKV",
        language_model: "model.llm.",
        beside: &[("model.encoder.", "encoder"), ("model.proj.", "projector"), ("model.projector.", "projector")],
    },
    Family {
        name: "ModRWKV",
        language_model: "llm.",
        beside: &[("encoder.", "encoder"), ("proj.", "projector"), ("projector.", "projector")],
    },
];

/// What belongs to a family and not to its language model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Companions {
    /// What their names begin with, and what they are.
    known: Vec<(String, &'static str)>,
    family: &'static str,
    /// Modules that have a copy which was trained by PEFT.
    copied: Arc<BTreeSet<String>>,
}

/// What a module is that has such a copy.
const OF_COPIES: &str = "module before its training by PEFT";

impl Companions {
    /// Those of the family whose language model is wrapped like this.
    #[must_use]
    pub fn of(wrapping: &Wrapping) -> Self {
        let found = FAMILIES.iter().find_map(|family| Some((family, wrapping.prefix().strip_suffix(family.language_model)?)));
        let copied = Arc::clone(wrapping.copied());
        let Some((family, outer)) = found else { return Self { copied, ..Self::default() } };
        let known = family.beside.iter().map(|(start, what)| (format!("{outer}{start}"), *what)).collect();
        Self { known, family: family.name, copied }
    }

    /// What the tensor of this name is, if it is one of them.
    #[must_use]
    pub fn kind(&self, name: &str) -> Option<&'static str> {
        if original(name).is_some_and(|(module, _)| self.copied.contains(module)) {
            return Some(OF_COPIES);
        }
        self.known.iter().find(|(start, _)| name.starts_with(start)).map(|(_, what)| *what)
    }

    /// One line about those that a file has; `None` where it has none.
    #[must_use]
    pub fn note(&self, infos: &[TensorInfo]) -> Option<String> {
        let all: Vec<(&str, &'static str)> = infos.iter().filter_map(|info| Some((info.name.as_str(), self.kind(&info.name)?))).collect();
        let (first, _) = all.first()?;
        let mut kinds: Vec<&str> = all.iter().map(|(_, kind)| *kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let family = if self.family.is_empty() { "the file" } else { self.family };
        Some(format!(
            "{} tensors of {family} are no part of the language model and are left out ({}), such as {}",
            all.len(),
            kinds.join(", "),
            rwkv_forge_tensor::shorten(first)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rwkv_forge_tensor::Encoding;

    #[test]
    fn only_what_is_known_of_a_family_is_left_out() {
        let infos = |names: &[&str]| -> Vec<TensorInfo> {
            let info = |name: &&str| TensorInfo { name: (*name).to_owned(), shape: vec![4], encoding: Encoding::F32 };
            names.iter().map(info).collect()
        };
        for (outer, names, beside, strange) in [
            ("", ["rwkv.emb.weight", "rwkv.blocks.0.att.key.weight"], "head.cls_head.fc1.weight", "head.other.weight"),
            ("module.", ["rwkv.emb.weight", "rwkv.blocks.0.att.key.weight"], "vit.conv.weight", "vision.conv.weight"),
            ("", ["model.llm.embeddings.weight", "model.llm.layers.0.attn.k_proj.weight"], "model.encoder.a", "encoder.a"),
            ("", ["llm.emb.weight", "llm.blocks.0.att.key.weight"], "projector.up.weight", "model.projector.up.weight"),
        ] {
            let all: Vec<String> = names.iter().chain([&beside, &strange]).map(|name| format!("{outer}{name}")).collect();
            let infos = infos(&all.iter().map(String::as_str).collect::<Vec<_>>());
            let companions = Companions::of(&Wrapping::of(&infos));
            let left: Vec<bool> = infos.iter().map(|info| companions.kind(&info.name).is_some()).collect();
            assert_eq!(left, [false, false, true, false], "{all:?}");
            assert!(companions.note(&infos).is_some_and(|note| note.starts_with("1 tensors of") && note.contains(beside)));
        }
        // What PEFT trained a copy of.
        let copied =
            infos(&["emb.weight", "head.modules_to_save.default.weight", "head.original_module.weight", "blocks.0.att.key.weight"]);
        let companions = Companions::of(&Wrapping::of(&copied));
        let left: Vec<bool> = copied.iter().map(|info| companions.kind(&info.name).is_some()).collect();
        assert_eq!(left, [false, false, true, false]);
        assert!(companions.note(&copied).is_some_and(|note| note.contains("before its training by PEFT")));
        assert_eq!(
            Companions::of(&Wrapping::of(&infos(&["emb.weight", "head.original_module.weight"]))).kind("head.original_module.weight"),
            None
        );
        // A plain model has none, whatever its names are.
        let plain = infos(&["emb.weight", "blocks.0.att.key.weight", "vit.conv.weight"]);
        assert_eq!(Companions::of(&Wrapping::of(&plain)), Companions::default());
    }
}
