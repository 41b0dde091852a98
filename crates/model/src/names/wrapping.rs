//! What programs put in front of every name: compilers, parallel wrappers, adapters, models around a language model. Start at [`Wrapping`].

use std::borrow::Cow;

use rwkv_forge_tensor::TensorInfo;

use super::{BLINKDL, Convention};

/// What stands in front of names, with whose it is.
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
/// torch.compile's, which stands wherever a module was compiled.
const COMPILED: &str = "_orig_mod.";
/// Most wrappers around each other.
const DEPTH: usize = 4;
/// Most ways that are followed at a depth: those that most names have.
const WIDTH: usize = 4;

/// What has to be taken off the names of a file before a convention knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wrapping {
    prefix: String,
    compiled: bool,
}

impl Wrapping {
    /// The shortest that lets most names be known; none where names are known as they are.
    #[must_use]
    pub fn of(infos: &[TensorInfo]) -> Self {
        Self::by(infos, |wrapping| wrapping.known(infos))
    }

    /// The shortest for which `known` is the largest: the number of names that are known once it is off.
    pub(crate) fn by(infos: &[TensorInfo], known: impl Fn(&Self) -> usize) -> Self {
        let compiled = infos.iter().any(|info| info.name.contains(COMPILED));
        let bare = Self { compiled, ..Self::default() };
        let mut best = (known(&bare), bare);
        let mut open = vec![best.1.clone()];
        for _ in 0..DEPTH {
            let longer = open.iter().flat_map(|wrapping| {
                WRAPPERS.iter().map(|prefix| Self { prefix: format!("{}{prefix}", wrapping.prefix), ..wrapping.clone() })
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

    /// A name without it; `None` for one that is not wrapped as the others are.
    #[must_use]
    pub fn strip<'n>(&self, name: &'n str) -> Option<Cow<'n, str>> {
        let name = if self.compiled { Cow::Owned(name.replace(COMPILED, "")) } else { Cow::Borrowed(name) };
        match name {
            Cow::Borrowed(name) => name.strip_prefix(self.prefix.as_str()).map(Cow::Borrowed),
            Cow::Owned(name) => name.strip_prefix(self.prefix.as_str()).map(|name| Cow::Owned(name.to_owned())),
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
        let compiled = self.compiled.then(|| format!("`{COMPILED}` (torch.compile)"));
        let prefix = (!self.prefix.is_empty()).then(|| format!("`{}`", self.prefix));
        let all: Vec<String> = [compiled, prefix].into_iter().flatten().collect();
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
            "reranker.rwkv.",
        ] {
            let wrapped = BARE.map(|name| format!("{prefix}{name}"));
            let (names, note) = unwrapped(&wrapped.each_ref().map(String::as_str));
            assert_eq!(names, BARE, "{prefix}");
            assert!(note.unwrap().starts_with("names are read without `"), "{prefix}");
        }
        // A module that was compiled by itself, and tensors that are not the language model's.
        let (names, _) = unwrapped(&["llm.emb.weight", "llm.blocks.0._orig_mod.att.key.weight", "llm.head.weight", "encoder.conv.weight"]);
        assert_eq!(names, ["emb.weight", "blocks.0.att.key.weight", "head.weight", "encoder.conv.weight"]);
    }
}
