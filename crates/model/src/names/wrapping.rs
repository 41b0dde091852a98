//! What programs put in front of every name: compilers, parallel wrappers, adapters, models around a language model. Start at [`Wrapping`].

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use rwkv_forge_tensor::TensorInfo;

use super::peft::{ORIGINAL, copied, original, saved};
use super::{BLINKDL, Convention};

/// What stands in front of names.
pub const WRAPPERS: &[&str] = &[
    // torch.nn.parallel, DeepSpeed and Lightning.
    "module.",
    "_forward_module.",
    "model.",
    // PEFT.
    "base_model.model.",
    // ModRWKV, EmbeddingRWKV and its reranker.
    "model.llm.",
    "llm.",
    "rwkv.",
    "reranker.",
];
/// What stands in place of another beginning of names: ModRWKV has a language model of fla's without the head that goes with it.
const INSTEAD: [(&str, &str); 1] = [("model.llm.", "model.")];
/// What stands wherever a module was compiled or adapted, with whose it is.
const INNER: [(&str, &str); 4] = [
    ("_orig_mod.", "torch.compile"),
    ("_fsdp_wrapped_module.", "FSDP"),
    ("_checkpoint_wrapped_module.", "PyTorch's checkpoints of activations"),
    ("base_layer.", "PEFT"),
];
/// Most wrappers around each other.
const DEPTH: usize = 4;
/// Most ways that are followed at a depth: those that most names have.
const WIDTH: usize = 5;

/// What has to be taken off the names of a file before a convention knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wrapping {
    prefix: String,
    /// What stood in its place before; nothing for most.
    instead: &'static str,
    /// Those of [`INNER`] that names have.
    inner: Vec<&'static str>,
    /// [`SAVED`] and the name of the adapter, where names have that.
    saved: Option<String>,
    /// What stands before [`SAVED`]: modules of which there is a trained copy.
    copied: Arc<BTreeSet<String>>,
    /// Some names have [`ORIGINAL`], and no such copy beside them.
    original: bool,
}

impl Wrapping {
    /// The shortest that lets most names be known; none where names are known as they are.
    #[must_use]
    pub fn of(infos: &[TensorInfo]) -> Self {
        Self::by(infos, |wrapping| wrapping.known(infos))
    }

    /// The shortest for which `known` is the largest: the number of names that are known once it is off.
    pub(crate) fn by(infos: &[TensorInfo], known: impl Fn(&Self) -> usize) -> Self {
        let inner = INNER.into_iter().filter(|part| infos.iter().any(|info| info.name.contains(part.0))).map(|(part, _)| part).collect();
        let copied = copied(infos);
        let is_only = |info: &TensorInfo| original(&info.name).is_some_and(|(module, _)| !copied.contains(module));
        let original = infos.iter().any(is_only);
        let bare = Self { prefix: String::new(), instead: "", inner, saved: saved(infos), copied: Arc::new(copied), original };
        let mut best = (known(&bare), bare);
        let mut open = vec![best.1.clone()];
        for _ in 0..DEPTH {
            let all = || WRAPPERS.iter().map(|prefix| (*prefix, "")).chain(INSTEAD);
            // Nothing stands behind a beginning that belongs to the names.
            let longer = open.iter().filter(|wrapping| wrapping.instead.is_empty()).flat_map(|wrapping| {
                all().map(|(prefix, instead)| Self { prefix: format!("{}{prefix}", wrapping.prefix), instead, ..wrapping.clone() })
            });
            let stripped = |wrapping: &Self| infos.iter().filter(|info| wrapping.strip(&info.name).is_some()).count();
            let mut counted: Vec<_> = longer.map(|wrapping| (stripped(&wrapping), wrapping)).filter(|(count, _)| *count > 0).collect();
            // A file with every wrapper there is would have thousands of ways.
            counted.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
            counted.truncate(WIDTH);
            open = counted.into_iter().map(|(_, wrapping)| wrapping).collect();
            for wrapping in &open {
                let known = known(wrapping);
                if known > best.0 {
                    best = (known, wrapping.clone());
                }
            }
        }
        best.1
    }

    /// What is taken off the beginning of every name; empty where that is nothing.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Modules of which there are trained copies (PEFT's `modules_to_save`), beside which what those were made of is nothing: what stands
    /// before the names of both.
    pub(super) fn copied(&self) -> &Arc<BTreeSet<String>> {
        &self.copied
    }

    /// A name without it; `None` for one that is not wrapped as the others are.
    #[must_use]
    pub fn strip<'n>(&self, name: &'n str) -> Option<Cow<'n, str>> {
        let mut name = Cow::Borrowed(name);
        if let Some((module, tensor)) = original(&name) {
            if self.copied.contains(module) {
                return None;
            }
            // Without a copy it is the module itself.
            name = Cow::Owned(format!("{module}{tensor}"));
        }
        for part in self.inner.iter().copied().chain(self.saved.as_deref()) {
            if name.contains(part) {
                name = Cow::Owned(without(&name, part));
            }
        }
        match name {
            Cow::Borrowed(name) if self.instead.is_empty() => name.strip_prefix(self.prefix.as_str()).map(Cow::Borrowed),
            name @ (Cow::Borrowed(_) | Cow::Owned(_)) => {
                name.strip_prefix(self.prefix.as_str()).map(|name| Cow::Owned(format!("{}{name}", self.instead)))
            }
        }
    }

    /// The tensors without it; names that are not wrapped stay as they are.
    #[must_use]
    pub fn unwrapped<'i>(&self, infos: &'i [TensorInfo]) -> Cow<'i, [TensorInfo]> {
        if self == &Self::default() {
            return Cow::Borrowed(infos);
        }
        let stripped = |info: &TensorInfo| match self.strip(&info.name) {
            Some(name) => TensorInfo { name: name.into_owned(), ..info.clone() },
            None => info.clone(),
        };
        Cow::Owned(infos.iter().map(stripped).collect())
    }

    /// What was taken off, for people; `None` where nothing was.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        let inner = INNER.into_iter().filter(|(part, _)| self.inner.contains(part)).map(|(part, whose)| format!("`{part}` ({whose})"));
        let prefix = match (self.prefix.as_str(), self.instead) {
            ("", _) => None,
            (prefix, "") => Some(format!("`{prefix}`")),
            (prefix, instead) => Some(format!("`{prefix}`, in whose place is `{instead}`")),
        };
        let original = self.original.then(|| ORIGINAL.to_owned());
        let peft = self.saved.iter().cloned().chain(original).map(|part| format!("`{part}` (PEFT)"));
        let all: Vec<String> = inner.chain(peft).chain(prefix).collect();
        (!all.is_empty()).then(|| format!("names are read without {}", all.join(" and ")))
    }

    /// How many names a convention knows once it is off, the embedding among them.
    fn known(&self, infos: &[TensorInfo]) -> usize {
        let infos = self.unwrapped(infos);
        let convention = Convention::of(&infos);
        let Ok(mapped) = convention.map(&infos) else { return 0 };
        let has_embedding = mapped.iter().any(|tensor| tensor.name == "emb.weight");
        // BlinkDL's convention takes every name within a layer for its own.
        let within = |name: &str| ["att.", "ffn.", "ln"].iter().any(|part| name.contains(&format!(".{part}")));
        let own = |name: &str| convention.layer_prefix != BLINKDL.layer_prefix || !name.starts_with(BLINKDL.layer_prefix) || within(name);
        if has_embedding { mapped.iter().filter(|tensor| own(&tensor.name)).count() } else { 0 }
    }
}

/// A name without a part that stands at its beginning or after a dot.
fn without(name: &str, part: &str) -> String {
    let mut rest = name.strip_prefix(part).unwrap_or(name);
    let mut out = String::with_capacity(name.len());
    while let Some(at) = rest.find(part) {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        // Part of a longer word, as in `my_base_layer.`, it is no wrapper.
        if !before.is_empty() && !before.ends_with('.') {
            out.push_str(part);
        }
        rest = after.get(part.len()..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;
    use rwkv_forge_tensor::Encoding;

    fn infos(names: &[&str]) -> Vec<TensorInfo> {
        let info = |name: &&str| TensorInfo { name: (*name).to_owned(), shape: vec![4], encoding: Encoding::F32 };
        names.iter().map(info).collect()
    }

    fn unwrapped(names: &[&str]) -> (Vec<String>, Option<String>) {
        let infos = infos(names);
        let wrapping = Wrapping::of(&infos);
        (wrapping.unwrapped(&infos).iter().map(|info| info.name.clone()).collect(), wrapping.note())
    }

    const BARE: [&str; 4] = ["emb.weight", "blocks.0.att.key.weight", "blocks.0.ffn.key.weight", "head.weight"];

    #[test]
    fn what_needs_nothing_loses_nothing() {
        assert_eq!(unwrapped(&BARE), (BARE.map(str::to_owned).to_vec(), None));
        let hugging_face = ["rwkv.embeddings.weight", "rwkv.blocks.0.attention.key.weight", "rwkv.blocks.0.ln1.weight", "head.weight"];
        assert_eq!(unwrapped(&hugging_face).1, None);
        let prefixed = ["model.embeddings.weight", "model.blocks.0.attention.key.weight", "head.weight"];
        assert_eq!(unwrapped(&prefixed).1, None);
        assert_eq!(unwrapped(&["a", "b"]), (vec!["a".to_owned(), "b".to_owned()], None));
    }

    #[test]
    fn wrappers_come_off_one_within_the_other() {
        for prefix in [
            "_orig_mod.",
            "module.",
            "_forward_module.",
            "base_model.model.",
            "model.llm.",
            "rwkv.",
            "module._orig_mod.",
            "_orig_mod.module.",
            "_fsdp_wrapped_module.",
            "_fsdp_wrapped_module._checkpoint_wrapped_module.",
            "module._fsdp_wrapped_module.",
            "reranker.rwkv.",
        ] {
            let wrapped = BARE.map(|name| format!("{prefix}{name}"));
            let (names, note) = unwrapped(&wrapped.each_ref().map(String::as_str));
            assert_eq!(names, BARE, "{prefix}");
            assert!(note.unwrap().starts_with("names are read without `"), "{prefix}");
        }
        // ModRWKV: the beginning belongs to fla's names, and the head stands outside.
        let (names, note) = unwrapped(&["model.llm.embeddings.weight", "model.llm.layers.0.attn.k_proj.weight", "lm_head.weight"]);
        assert_eq!(names, ["model.embeddings.weight", "model.layers.0.attn.k_proj.weight", "lm_head.weight"]);
        assert_eq!(note.unwrap(), "names are read without `model.llm.`, in whose place is `model.`");
        // What PEFT puts around an adapted matrix.
        let (names, note) = unwrapped(&["emb.weight", "blocks.0.att.key.base_layer.weight", "blocks.0.att.my_base_layer.weight"]);
        assert_eq!(names, ["emb.weight", "blocks.0.att.key.weight", "blocks.0.att.my_base_layer.weight"]);
        assert_eq!(note.unwrap(), "names are read without `base_layer.` (PEFT)");
        // Modules that PEFT trained in full: their copies count, and what those were made of is no part of the model.
        let (names, note) = unwrapped(&[
            "base_model.model.emb.weight",
            "base_model.model.blocks.0.att.key.base_layer.weight",
            "base_model.model.blocks.0.ln1.modules_to_save.default.weight",
            "base_model.model.blocks.0.ln1.original_module.weight",
        ]);
        assert_eq!(
            names,
            ["emb.weight", "blocks.0.att.key.weight", "blocks.0.ln1.weight", "base_model.model.blocks.0.ln1.original_module.weight"]
        );
        let said = "names are read without `base_layer.` (PEFT) and `modules_to_save.default.` (PEFT) and `base_model.model.`";
        assert_eq!(note.unwrap(), said);
        // Without a copy it is the module that the model has, whatever the others have.
        let (names, note) = unwrapped(&[
            "base_model.model.emb.weight",
            "base_model.model.blocks.0.ln1.modules_to_save.default.weight",
            "base_model.model.blocks.0.ln1.original_module.weight",
            "base_model.model.head.original_module.weight",
            "base_model.model.blocks.0.att.my_original_module.weight",
        ]);
        let left = "base_model.model.blocks.0.ln1.original_module.weight";
        assert_eq!(names, ["emb.weight", "blocks.0.ln1.weight", left, "head.weight", "blocks.0.att.my_original_module.weight"]);
        let said = "names are read without `modules_to_save.default.` (PEFT) and `original_module.` (PEFT) and `base_model.model.`";
        assert_eq!(note.unwrap(), said);
        // Copies of several adapters cannot all be meant.
        let two = ["emb.weight", "head.modules_to_save.a.weight", "head.modules_to_save.b.weight", "blocks.0.att.key.weight"];
        assert_eq!(unwrapped(&two), (two.map(str::to_owned).to_vec(), None));
        // A module that was compiled by itself, and tensors that are not the language model's.
        let within = ["emb.weight", "blocks.0._fsdp_wrapped_module._checkpoint_wrapped_module.att.key.weight", "head.weight"];
        assert_eq!(unwrapped(&within).0, ["emb.weight", "blocks.0.att.key.weight", "head.weight"]);
        let (names, _) = unwrapped(&["llm.emb.weight", "llm.blocks.0._orig_mod.att.key.weight", "llm.head.weight", "encoder.conv.weight"]);
        assert_eq!(names, ["emb.weight", "blocks.0.att.key.weight", "head.weight", "encoder.conv.weight"]);
    }
}
