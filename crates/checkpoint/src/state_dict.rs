//! Finds the state dict in what a pickle made: unwraps the usual wrappings, takes what stands under a key that is given, refuses whatever
//! is ambiguous and says what there is.

use std::collections::{HashSet, VecDeque};

use crate::error::{Refusal, Result, refuse};
use crate::limits::Limits;
use crate::pickle::{Arena, Id, Node};

/// Keys that only the shards of DeepSpeed's ZeRO have, of a model's states or the optimizer's.
const OF_ZERO: [&str; 6] = ["param_shapes", "zero_stage", "ds_config", "ds_version", "partition_count", "base_optimizer_state"];

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

/// Names that a message lists.
const SHOWN: usize = 8;
/// Dictionaries that are looked at in search of state dicts. A trainer has some dozens.
const CANDIDATES: usize = 1 << 10;

/// Names of the tensors and the indices of their specifications, in the file's order.
pub(crate) type Named = Vec<(String, u32)>;

/// Which of several state dicts is meant.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted<'k> {
    /// The key under which it stands, `a.b` for `b` in what stands under `a`.
    pub(crate) key: Option<&'k str>,
    /// Whether whoever asks can give a key, for messages.
    pub(crate) takes_keys: bool,
}

/// The tensors of the state dict that `root` is or contains. Adds remarks to `notes`.
///
/// # Errors
/// `NotAStateDict`, `NoSuchKey`, `TooManyTensors`, `DuplicateTensor`, `UnsupportedEntry`, `UnsupportedDtype`, `TooLarge`.
pub(crate) fn find(arena: &Arena<'_>, root: Id, limits: &Limits, wanted: Wanted<'_>, notes: &mut Vec<String>) -> Result<Named> {
    let search = Search { arena, limits, takes_keys: wanted.takes_keys };
    let (start, path) = match wanted.key {
        Some(key) => (search.take(root, key, notes)?, key.to_owned()),
        None => (root, String::new()),
    };
    let dict = search.unwrap(start, path, notes)?;
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

/// A graph of values in which a state dict is looked for.
#[derive(Clone, Copy)]
struct Search<'s, 'a> {
    arena: &'s Arena<'a>,
    limits: &'s Limits,
    takes_keys: bool,
}

impl Search<'_, '_> {
    /// The dictionary under a key.
    fn take(&self, root: Id, key: &str, notes: &mut Vec<String>) -> Result<Id> {
        let shown = key.escape_default();
        let problem = match self.follow(root, key) {
            Some(id) if matches!(self.arena.get(id), Node::Dict(_)) => {
                notes.push(format!("the state dict lies under the key `{shown}`, as asked for"));
                let others: Vec<String> = self.candidates(root, "").into_iter().map(|(name, _)| name).collect();
                let within = |name: &&String| *name == key || name.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
                let others: Vec<&str> = others.iter().filter(|name| !within(name)).map(String::as_str).collect();
                if !others.is_empty() {
                    notes.push(format!("other state dicts in the file, not used: {}", shorten(&others)));
                }
                return Ok(id);
            }
            Some(id) => {
                format!("the file has {} under the key `{shown}`, where a dictionary of tensors is expected", self.arena.get(id).describe())
            }
            None => format!("the file has no key `{shown}`"),
        };
        let next = match self.choice(root, "") {
            Some(choice) => choice,
            None => "it holds one state dict at most: leave --key out".to_owned(),
        };
        refuse(Refusal::NoSuchKey, format!("{problem}; {next}"))
    }

    /// What stands under a key: under the whole of it, else under what follows a dot in what stands under what precedes the dot.
    fn follow(&self, dict: Id, key: &str) -> Option<Id> {
        let under = |name: &str| self.arena.pairs(dict).find(|(key, _)| self.arena.get(*key) == Node::Str(name)).map(|(_, value)| value);
        if !matches!(self.arena.get(dict), Node::Dict(_)) {
            return None;
        }
        under(key).or_else(|| {
            let mut splits = key.match_indices('.').filter_map(|(at, _)| Some((key.get(..at)?, key.get(at.saturating_add(1)..)?)));
            splits.find_map(|(first, rest)| self.follow(under(first)?, rest))
        })
    }

    /// Follows `state_dict`, `model` and `module` keys as long as a dict has no tensors of its own. `path` is the key of `root`.
    fn unwrap(&self, root: Id, mut path: String, notes: &mut Vec<String>) -> Result<Id> {
        let Self { arena, limits, .. } = *self;
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
            let name;
            (name, dict) = self.descend(dict, &path, notes)?;
            path = joined(&path, name);
        }
    }

    /// The one wrapped dict inside of a dict that contains dicts, and its name there.
    fn descend(&self, dict: Id, path: &str, notes: &mut Vec<String>) -> Result<(&str, Id)> {
        let Self { arena, limits, .. } = *self;
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
                Ok((name, value))
            }
            _ => self.refuse_nested(dict, path),
        }
    }

    fn refuse_nested<T>(&self, dict: Id, path: &str) -> Result<T> {
        let keys: Vec<&str> = self.arena.pairs(dict).filter_map(|(key, _)| name_of(self.arena, key, self.limits).ok()).collect();
        let next = if OF_ZERO.iter().any(|key| keys.contains(key)) {
            "this is a shard of DeepSpeed's ZeRO, of which every one has a part of the weights: put them together with the script zero_to_fp32.py \
             that lies beside them"
                .to_owned()
        } else {
            let choice = self.choice(dict, path);
            let choice = choice.unwrap_or_else(|| "none of them holds named tensors: save the state dict alone with torch".to_owned());
            format!("which of them is the state dict cannot be told: {choice}")
        };
        refuse(Refusal::NotAStateDict, format!("the file holds nested dictionaries with the keys {}; {next}", shorten(&keys)))
    }

    /// How to name one of the state dicts below `dict`; `None` where there is none.
    fn choice(&self, dict: Id, path: &str) -> Option<String> {
        let found = self.candidates(dict, path);
        let list = found.iter().take(SHOWN).map(|(name, tensors)| format!("`{}` ({tensors} tensor(s))", name.escape_default()));
        let mut list: Vec<String> = list.collect();
        if found.len() > SHOWN {
            list.push(format!("and {} more", found.len().saturating_sub(SHOWN)));
        }
        let list = list.join(", ");
        match (found.is_empty(), self.takes_keys) {
            (true, _) => None,
            (false, true) => Some(format!("name one with --key: {list}")),
            (false, false) => Some(format!("it holds {list}; save the one that is meant alone with torch")),
        }
    }

    /// Dictionaries below `dict` with tensors of their own, but for what a trainer keeps: their keys, and how many tensors each has.
    fn candidates(&self, dict: Id, path: &str) -> Vec<(String, usize)> {
        let arena = self.arena;
        let is_tensor = |id: Id| matches!(arena.get(id), Node::Tensor(_) | Node::Foreign(_));
        let mut found = Vec::new();
        let (mut open, mut seen) = (VecDeque::from([(dict, path.to_owned())]), HashSet::from([dict]));
        while let Some((dict, path)) = open.pop_front() {
            for (key, value) in arena.pairs(dict) {
                let Node::Str(name) = arena.get(key) else { continue };
                let is_usable = name.len() <= self.limits.tensor_name_bytes && !OF_TRAINING.contains(&name);
                if !is_usable || !matches!(arena.get(value), Node::Dict(_)) || seen.len() >= CANDIDATES || !seen.insert(value) {
                    continue;
                }
                let path = joined(&path, name);
                match arena.pairs(value).filter(|(_, value)| is_tensor(*value)).count() {
                    0 => open.push_back((value, path)),
                    tensors => found.push((path, tensors)),
                }
            }
        }
        found
    }
}

/// The key of what is called `name` in what stands under `path`.
fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
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
    let mut text: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{}`", name.escape_default())).collect();
    if names.len() > SHOWN {
        text.push(format!("and {} more", names.len().saturating_sub(SHOWN)));
    }
    text.join(", ")
}
