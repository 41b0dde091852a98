//! Finds the state dict in what a pickle made: unwraps the usual wrappings, refuses whatever is ambiguous.

use std::collections::HashSet;

use crate::error::{Refusal, Result, refuse};
use crate::limits::Limits;
use crate::pickle::{Arena, Id, Node};

/// Keys under which trainers put the state dict.
const WRAPPERS: [&str; 4] = ["state_dict", "model_state_dict", "model", "module"];
/// Keys under which trainers keep what is needed to go on training. Tensors below them are no weights of the model.
const OF_TRAINING: [&str; 15] = [
    "optimizer",
    "optimizer_state_dict",
    "optimizer_states",
    "optim",
    "lr_scheduler",
    "lr_schedulers",
    "scheduler",
    "scheduler_state_dict",
    "rng",
    "rng_state",
    "rng_states",
    "scaler",
    "callbacks",
    "loops",
    "data_sampler",
];
/// Prefixes that parallel wrappers put before every name.
const PREFIXES: [&str; 2] = ["_forward_module.", "module."];

/// Names of the tensors and the indices of their specifications, in the file's order.
pub(crate) type Named = Vec<(String, u32)>;

/// The tensors of the state dict that `root` is or contains. Adds remarks to `notes`.
///
/// # Errors
/// `NotAStateDict`, `TooManyTensors`, `DuplicateTensor`, `UnsupportedEntry`, `UnsupportedDtype`, `TooLarge`.
pub(crate) fn find(arena: &Arena<'_>, root: Id, limits: &Limits, notes: &mut Vec<String>) -> Result<Named> {
    let dict = unwrap(arena, root, limits, notes)?;
    let mut names = HashSet::new();
    let mut named = Named::new();
    for (key, value) in arena.pairs(dict) {
        let name = name_of(arena, key, limits)?;
        if !names.insert(name) {
            return refuse(Refusal::DuplicateTensor, format!("two entries of the state dict are named `{name}`"));
        }
        match arena.get(value) {
            Node::Tensor(index) => named.push((name.to_owned(), index)),
            Node::Foreign(kind) => {
                return refuse(Refusal::UnsupportedDtype, format!("tensor `{name}` is {kind}; expected a plain dense tensor of floats"));
            }
            other => {
                return refuse(
                    Refusal::UnsupportedEntry,
                    format!("the state dict has {} as `{name}`; {}", other.describe(), meaning(name)),
                );
            }
        }
    }
    if named.is_empty() {
        return refuse(Refusal::NotAStateDict, "the state dict is empty");
    }
    strip_prefixes(&mut named, notes);
    Ok(named)
}

/// What an entry that is no tensor tells about the file.
fn meaning(name: &str) -> &'static str {
    match name {
        "_strategy" | "_version" | "_rescale_layer" => {
            "files with this key were converted by the rwkv pip package for one strategy: the first layer norm is folded into the embedding, \
             whose rows have lost their mean and scale by it, layers are rescaled, and matrices may be cut to 8 bits. The original weights \
             cannot be computed from that; use the original checkpoint"
        }
        _ => "expected tensors only; save the plain state_dict() with torch",
    }
}

/// Follows `state_dict`, `model` and `module` keys as long as a dict has no tensors of its own.
fn unwrap(arena: &Arena<'_>, root: Id, limits: &Limits, notes: &mut Vec<String>) -> Result<Id> {
    let mut dict = root;
    // The graph was checked: it is finite and no deeper than the limit.
    loop {
        if !matches!(arena.get(dict), Node::Dict(_)) {
            let found = arena.get(dict).describe();
            return refuse(Refusal::NotAStateDict, format!("the file holds {found}; expected a dictionary from names to tensors"));
        }
        let count = arena.pairs(dict).count();
        if count > limits.tensors {
            return refuse(Refusal::TooManyTensors, format!("the state dict has {count} entries; the limit is {}", limits.tensors));
        }
        let nested = |(_, value): &(Id, Id)| matches!(arena.get(*value), Node::Dict(_));
        if !arena.pairs(dict).any(|pair| nested(&pair)) {
            return Ok(dict);
        }
        dict = descend(arena, dict, limits, notes)?;
    }
}

/// The one wrapped dict inside of a dict that contains dicts.
fn descend(arena: &Arena<'_>, dict: Id, limits: &Limits, notes: &mut Vec<String>) -> Result<Id> {
    let mut wrapped = None;
    let (mut others, mut of_training) = (Vec::new(), Vec::new());
    let mut ambiguous = false;
    let mut seen = HashSet::new();
    for (key, value) in arena.pairs(dict) {
        let name = name_of(arena, key, limits)?;
        let is_dict = matches!(arena.get(value), Node::Dict(_));
        if is_dict && WRAPPERS.contains(&name) {
            ambiguous |= wrapped.is_some();
            wrapped = Some((name, value));
        } else {
            // Something beside the wrapped dict that contains tensors could be weights too: then nobody may guess.
            if has_tensors(arena, value, &mut seen) {
                ambiguous |= !OF_TRAINING.contains(&name);
                of_training.push(name);
            } else {
                others.push(name);
            }
        }
    }
    match wrapped {
        Some((name, value)) if !ambiguous => {
            notes.push(format!("the state dict lies under the key `{name}`"));
            if !of_training.is_empty() {
                notes.push(format!("what a trainer keeps beside it was left out: {}", shorten(&of_training)));
            }
            if !others.is_empty() {
                notes.push(format!("keys beside it, without tensors and not used: {}", shorten(&others)));
            }
            Ok(value)
        }
        _ => {
            let keys: Vec<&str> = arena.pairs(dict).filter_map(|(key, _)| name_of(arena, key, limits).ok()).collect();
            let next = if keys.contains(&"param_shapes") || keys.contains(&"zero_stage") {
                "this is a shard of DeepSpeed's ZeRO, of which every one has a part of the weights: put them together with the script zero_to_fp32.py \
                 that lies beside them"
            } else {
                "which of them is the state dict cannot be told. Save that one alone with torch"
            };
            let message = format!("the file holds nested dictionaries with the keys {}; {next}", shorten(&keys));
            refuse(Refusal::NotAStateDict, message)
        }
    }
}

/// Whether a tensor lies anywhere below a value. Values in `seen` were visited before, and had none.
fn has_tensors(arena: &Arena<'_>, root: Id, seen: &mut HashSet<Id>) -> bool {
    let mut open = if seen.insert(root) { vec![root] } else { Vec::new() };
    while let Some(id) = open.pop() {
        if matches!(arena.get(id), Node::Tensor(_) | Node::Foreign(_) | Node::Storage(_)) {
            return true;
        }
        open.extend(arena.children(id).iter().copied().filter(|child| seen.insert(*child)));
    }
    false
}

fn name_of<'a>(arena: &Arena<'a>, key: Id, limits: &Limits) -> Result<&'a str> {
    let Node::Str(name) = arena.get(key) else {
        let found = arena.get(key).describe();
        return refuse(Refusal::NotAStateDict, format!("the dictionary has {found} as a key; expected names of tensors"));
    };
    if name.len() > limits.tensor_name_bytes {
        let message = format!("a tensor's name of {} bytes; the limit is {}", name.len(), limits.tensor_name_bytes);
        return refuse(Refusal::TooLarge, message);
    }
    Ok(name)
}

fn strip_prefixes(named: &mut Named, notes: &mut Vec<String>) {
    while let Some(prefix) =
        PREFIXES.into_iter().find(|prefix| named.iter().all(|(name, _)| name.len() > prefix.len() && name.starts_with(prefix)))
    {
        for (name, _) in named.iter_mut() {
            name.drain(..prefix.len());
        }
        notes.push(format!("every name begins with `{prefix}`, which was removed"));
    }
}

/// The first few names, quoted.
fn shorten(names: &[&str]) -> String {
    const SHOWN: usize = 8;
    let mut text: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{}`", name.escape_default())).collect();
    if names.len() > SHOWN {
        text.push(format!("and {} more", names.len().saturating_sub(SHOWN)));
    }
    text.join(", ")
}
