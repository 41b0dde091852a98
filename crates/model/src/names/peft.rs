//! Modules as Hugging Face's PEFT wraps them: the matrix that a pair adapts, and the trained copy of what is trained in full.

use std::collections::BTreeSet;

use rwkv_forge_tensor::{TensorInfo, shorten};

use super::LoraName;

/// What stands in front of the matrix that a pair adapts.
pub(super) const BASE: &str = "base_layer.";
/// What stands in front of the trained copy of a module that PEFT trains in full, before the name of the adapter.
pub(super) const SAVED: &str = "modules_to_save.";
/// What stands in front of the module that the copy was made of, which nothing uses any more.
pub(super) const ORIGINAL: &str = "original_module.";
/// Names listed in one note.
const LISTED: usize = 4;

/// Where a part stands at the beginning of a name or after a dot.
fn places<'n>(name: &'n str, part: &'static str) -> impl Iterator<Item = usize> + 'n {
    let is_whole = move |at: &usize| name.get(..*at).is_some_and(|before| before.is_empty() || before.ends_with('.'));
    name.match_indices(part).map(|(at, _)| at).filter(is_whole)
}

/// What stands before and behind such a part.
fn around<'n>(name: &'n str, part: &'static str) -> Option<(&'n str, &'n str)> {
    let at = places(name, part).next()?;
    Some((name.get(..at)?, name.get(at.saturating_add(part.len())..)?))
}

/// What stands before and behind [`ORIGINAL`].
pub(super) fn original(name: &str) -> Option<(&str, &str)> {
    around(name, ORIGINAL)
}

/// Module, with the dot behind it, and adapter of a trained copy.
fn copy(name: &str) -> Option<(&str, &str)> {
    let (module, rest) = around(name, SAVED)?;
    let (adapter, tensor) = rest.split_once('.')?;
    (!adapter.is_empty() && !tensor.is_empty()).then_some((module, adapter))
}

/// Modules of which there is a trained copy.
pub(super) fn copied(infos: &[TensorInfo]) -> BTreeSet<String> {
    infos.iter().filter_map(|info| Some(copy(&info.name)?.0.to_owned())).collect()
}

/// [`SAVED`] with the name of the adapter, where it is one for all names.
pub(super) fn saved(infos: &[TensorInfo]) -> Option<String> {
    let mut adapters = infos.iter().filter_map(|info| Some(copy(&info.name)?.1));
    let first = adapters.next()?;
    adapters.all(|adapter| adapter == first).then(|| format!("{SAVED}{first}."))
}

/// The adapters that names speak of, of pairs and of trained copies. More than one cannot be meant at once.
///
/// ```
/// use rwkv_forge_model::names::adapters;
/// use rwkv_forge_tensor::{Encoding, TensorInfo};
///
/// let names = ["head.modules_to_save.one.weight", "blocks.0.att.key.lora_A.two.weight", "blocks.0.att.key.weight"];
/// let infos = names.map(|name| TensorInfo { name: name.to_owned(), shape: vec![4, 4], encoding: Encoding::F32 });
/// assert_eq!(adapters(&infos).into_iter().collect::<Vec<_>>(), ["one", "two"]);
/// ```
#[must_use]
pub fn adapters(infos: &[TensorInfo]) -> BTreeSet<&str> {
    infos.iter().filter_map(|info| LoraName::parse(&info.name).map_or_else(|| Some(copy(&info.name)?.1), |name| name.adapter)).collect()
}

/// What of a file is taken as it was before the training, since the file has nothing else of it: matrices that PEFT wrapped without a
/// pair beside them, and modules without the copy that was trained. One sentence each.
#[must_use]
pub fn untrained(infos: &[TensorInfo]) -> Vec<String> {
    let pairs: BTreeSet<&str> = infos.iter().filter_map(|info| Some(LoraName::parse(&info.name)?.stem)).collect();
    let copied = copied(infos);
    let of_names = |wanted: &dyn Fn(&str) -> bool| -> Vec<&str> {
        infos.iter().map(|info| info.name.as_str()).filter(|name| LoraName::parse(name).is_none() && wanted(name)).collect()
    };
    let is_adapted = |name: &str| {
        let mut modules = places(name, BASE).filter_map(|at| name.get(..at)?.strip_suffix('.'));
        modules.any(|module| pairs.contains(module))
    };
    let bare = of_names(&|name| places(name, BASE).next().is_some() && !is_adapted(name));
    let alone = of_names(&|name| original(name).is_some_and(|(module, _)| !copied.contains(module)));
    let mut notes = Vec::new();
    let mut say = |names: &[&str], what: &str| {
        if !names.is_empty() {
            notes.push(format!("{} tensors {what}: {}", names.len(), listed(names)));
        }
    };
    say(&bare, "of PEFT's base_layer have no pair of a LoRA beside them and are read as they are, without an adapter");
    say(&alone, "of PEFT's original_module have no trained copy (modules_to_save) beside them and are read in its place");
    notes
}

/// The first few names.
fn listed(names: &[&str]) -> String {
    let mut shown: Vec<String> = names.iter().take(LISTED).map(|name| shorten(name)).collect();
    if names.len() > LISTED {
        shown.push(format!("and {} more", names.len().saturating_sub(LISTED)));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rwkv_forge_tensor::Encoding;

    #[test]
    fn what_has_neither_a_pair_nor_a_copy_is_named() {
        let infos = |names: &[&str]| -> Vec<TensorInfo> {
            let info = |name: &&str| TensorInfo { name: (*name).to_owned(), shape: vec![4], encoding: Encoding::F32 };
            names.iter().map(info).collect()
        };
        let whole = infos(&[
            "m.a.key.base_layer.weight",
            "m.a.key.lora_A.default.weight",
            "m.a.key.lora_B.default.weight",
            "m.b.key.base_layer.base_layer.weight",
            "m.b.key.base_layer.lora_A.default.weight",
            "m.head.original_module.weight",
            "m.head.modules_to_save.default.weight",
            "m.my_base_layer.weight",
        ]);
        assert_eq!(untrained(&whole), Vec::<String>::new());
        let part = infos(&["m.a.key.base_layer.weight", "m.b.key.lora_A", "m.head.original_module.weight", "ln.original_module.bias"]);
        let notes = untrained(&part);
        assert!(notes.len() == 2 && notes.iter().all(|note| !note.contains("lora_A")), "{notes:?}");
        assert!(
            notes.first().is_some_and(|note| note.starts_with("1 tensors") && note.ends_with(": m.a.key.base_layer.weight")),
            "{notes:?}"
        );
        assert!(notes.last().is_some_and(|note| note.ends_with(": m.head.original_module.weight, ln.original_module.bias")), "{notes:?}");
    }
}
