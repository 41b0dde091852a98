//! Tokens with a meaning of their own, which files name by their ids. Start at [`SpecialId`].

use std::collections::BTreeMap;

use strum::IntoEnumIterator;

/// A meaning that a token may have, whatever a file calls it. Containers say for each whether their files have a place for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::EnumIter)]
pub enum SpecialId {
    /// Beginning of a text.
    Bos,
    /// End of a text.
    Eos,
    /// End of a turn.
    Eot,
    /// Filling.
    Pad,
    /// End of a message, after which the turn goes on.
    Eom,
    /// What stands for a text that has no token.
    Unk,
    /// What separates two texts.
    Sep,
    /// What a classification is read from.
    Cls,
    /// What stands for a text that is to be found.
    Mask,
    /// Before what a gap is filled after.
    FimPre,
    /// Before what a gap is filled before.
    FimSuf,
    /// Where the filling of a gap begins.
    FimMid,
    /// Filling around a gap.
    FimPad,
    /// Name of a repository.
    FimRep,
    /// Between files of a repository.
    FimSep,
    /// [`SpecialId::FimPre`] as older files call it.
    Prefix,
    /// [`SpecialId::FimSuf`] as older files call it.
    Suffix,
    /// [`SpecialId::FimMid`] as older files call it.
    Middle,
}

impl SpecialId {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::iter()
    }

    /// What it is called, for people and machines: `eos`. Hugging Face's files have the same names.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bos => "bos",
            Self::Eos => "eos",
            Self::Eot => "eot",
            Self::Pad => "pad",
            Self::Eom => "eom",
            Self::Unk => "unk",
            Self::Sep => "sep",
            Self::Cls => "cls",
            Self::Mask => "mask",
            Self::FimPre => "fim_pre",
            Self::FimSuf => "fim_suf",
            Self::FimMid => "fim_mid",
            Self::FimPad => "fim_pad",
            Self::FimRep => "fim_rep",
            Self::FimSep => "fim_sep",
            Self::Prefix => "prefix",
            Self::Suffix => "suffix",
            Self::Middle => "middle",
        }
    }

    /// The one with this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::all().find(|id| id.name() == name)
    }
}

/// What is known of special tokens: an id, or an id and who says so.
///
/// ```
/// use rwkv_forge_tokenizer::{SpecialId, SpecialIds};
///
/// let mut ids: SpecialIds = [(SpecialId::Eos, 0)].into_iter().collect();
/// ids.set(SpecialId::Eot, Some(261));
/// assert_eq!(ids.get(SpecialId::Eot), Some(&261));
/// assert_eq!(ids.iter().map(|(id, _)| id.name()).collect::<Vec<_>>(), ["eos", "eot"]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecialIds<T = u32>(BTreeMap<SpecialId, T>);

impl<T> Default for SpecialIds<T> {
    /// None of them.
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> FromIterator<(SpecialId, T)> for SpecialIds<T> {
    fn from_iter<I: IntoIterator<Item = (SpecialId, T)>>(ids: I) -> Self {
        Self(ids.into_iter().collect())
    }
}

impl<T> IntoIterator for SpecialIds<T> {
    type Item = (SpecialId, T);
    type IntoIter = std::collections::btree_map::IntoIter<SpecialId, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<T> SpecialIds<T> {
    /// What is known of one.
    #[must_use]
    pub fn get(&self, id: SpecialId) -> Option<&T> {
        self.0.get(&id)
    }

    /// Sets one, and returns what was known of it.
    pub fn set(&mut self, id: SpecialId, value: Option<T>) -> Option<T> {
        match value {
            Some(value) => self.0.insert(id, value),
            None => self.0.remove(&id),
        }
    }

    /// The same of what `change` makes of each.
    pub fn map<U>(self, mut change: impl FnMut(T) -> U) -> SpecialIds<U> {
        self.into_iter().map(|(id, value)| (id, change(value))).collect()
    }

    /// Those that are known.
    pub fn iter(&self) -> impl Iterator<Item = (SpecialId, &T)> {
        self.0.iter().map(|(id, value)| (*id, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_there_once() {
        for id in SpecialId::all() {
            assert_eq!(SpecialId::by_name(id.name()), Some(id));
        }
        assert_eq!(SpecialId::by_name("padding"), None);
    }
}
