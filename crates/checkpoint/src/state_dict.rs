//! Finds the state dict in what a pickle made: unwraps the usual wrappings, takes what stands under a key that is given, refuses whatever
//! is ambiguous and says what there is. Names stay as they are: what stands before all of them is for `rwkv_forge_model::names::Wrapping`.

use std::collections::{HashSet, VecDeque};

use rwkv_forge_model::names::{LoraName, StateNames};
use rwkv_forge_tensor::{Encoding, TensorInfo};

use crate::error::{Refusal, Result, refuse};
use crate::limits::Limits;
use crate::pickle::{Arena, Id, Node};

/// Keys that only the shards of DeepSpeed's ZeRO have, of a model's states or the optimizer's.
const OF_ZERO: [&str; 6] = ["param_shapes", "zero_stage", "ds_config", "ds_version", "partition_count", "base_optimizer_state"];

/// What such a file is, and what is done with it.
const SHARD_OF_ZERO: &str = "this is a shard of DeepSpeed's ZeRO, of which every one has a part of the weights: put them together with the script \
                             zero_to_fp32.py that lies beside them";

/// Keys of what an optimizer of torch keeps by itself.
const OF_OPTIMIZERS: [&str; 2] = ["state", "param_groups"];
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
/// Names that a message lists.
const SHOWN: usize = 8;
/// Dictionaries that are looked at in search of state dicts. A trainer has some dozens.
const CANDIDATES: usize = 1 << 10;

/// Names of the tensors and the indices of their specifications, in the file's order.
pub(crate) type Named = Vec<(String, u32)>;

/// What a file is opened for. Where nobody names a key and several state dicts could be meant, the only one that is of use is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// For weights.
    #[default]
    Weights,
    /// For the pairs of an adapter.
    Adapter,
    /// For a tuned initial state.
    State,
}

impl Purpose {
    /// What a state dict with these names holds of what is looked for, in words; `None` where it is of no use.
    fn of<'n>(self, names: impl Iterator<Item = &'n str>) -> Option<&'static str> {
        let names: Vec<&str> = names.collect();
        let of_adapter = |name: &str| LoraName::parse(name).is_some();
        match self {
            Self::Weights => None,
            Self::Adapter => names.iter().any(|name| of_adapter(name)).then_some("an adapter"),
            Self::State => {
                let rest = names.iter().filter(|name| !of_adapter(name));
                let info = |name: &&str| TensorInfo { name: (*name).to_owned(), shape: Vec::new(), encoding: Encoding::F32 };
                StateNames::of(&rest.map(info).collect::<Vec<_>>()).is_all().then_some("an initial state")
            }
        }
    }

    /// Whether a state dict with these names has any of what is looked for, whatever else it has.
    fn serves<'n>(self, mut names: impl Iterator<Item = &'n str>) -> bool {
        let info = |name: &str| TensorInfo { name: name.to_owned(), shape: Vec::new(), encoding: Encoding::F32 };
        match self {
            Self::Weights => true,
            Self::Adapter => names.any(|name| LoraName::parse(name).is_some()),
            Self::State => StateNames::of(&names.map(info).collect::<Vec<_>>()).is_some(),
        }
    }

    /// What is looked for, in words.
    fn words(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Adapter => "adapter",
            Self::State => "initial state",
        }
    }
}

/// Which of several state dicts is meant.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted<'k> {
    /// The key under which it stands, `a.b` for `b` in what stands under `a`.
    pub(crate) key: Option<&'k str>,
    /// Whether whoever asks can give a key, for messages.
    pub(crate) takes_keys: bool,
    /// What for.
    pub(crate) purpose: Purpose,
}

/// The tensors of the state dict that `root` is or contains. Adds remarks to `notes`.
///
/// # Errors
/// `NotAStateDict`, `NoSuchKey`, `TooManyTensors`, `DuplicateTensor`, `UnsupportedEntry`, `UnsupportedDtype`, `TooLarge`.
pub(crate) fn find(arena: &Arena<'_>, root: Id, limits: &Limits, wanted: Wanted<'_>, notes: &mut Vec<String>) -> Result<Named> {
    let search = Search { arena, limits, wanted };
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
    let is_empty =
        |index: u32| arena.tensors.get(index as usize).and_then(|spec| arena.ints(spec.size)).is_some_and(|size| size.contains(&0));
    if let Some((name, _)) = named.iter().find(|(_, index)| is_empty(*index)).filter(|_| search.is_of_zero(root)) {
        return refuse(Refusal::NotAStateDict, format!("tensor `{name}` has no elements here; {SHARD_OF_ZERO}"));
    }
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
    wanted: Wanted<'s>,
}

/// A dictionary with tensors of its own.
struct Candidate {
    key: String,
    dict: Id,
    tensors: usize,
}

impl Search<'_, '_> {
    /// Whether a dictionary has keys that only shards of DeepSpeed's ZeRO have.
    fn is_of_zero(&self, dict: Id) -> bool {
        let dict = self.arena.dict(dict).unwrap_or(dict);
        self.arena.pairs(dict).any(|(key, _)| matches!(self.arena.get(key), Node::Str(name) if OF_ZERO.contains(&name)))
    }

    /// The dictionary under a key.
    fn take(&self, root: Id, key: &str, notes: &mut Vec<String>) -> Result<Id> {
        let shown = key.escape_default();
        let found = self.follow(root, key);
        let problem = match (found, found.and_then(|id| self.arena.dict(id))) {
            (_, Some(id)) if self.is_beside(root, id, key) => {
                format!("what the file has under the key `{shown}` is no {}", self.wanted.purpose.words())
            }
            (_, Some(id)) => {
                notes.push(format!("the state dict lies under the key `{shown}`, as asked for"));
                let others: Vec<String> = self.candidates(root, "").into_iter().map(|candidate| candidate.key).collect();
                let within = |name: &&String| *name == key || name.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
                let others: Vec<&str> = others.iter().filter(|name| !within(name)).map(String::as_str).collect();
                if !others.is_empty() {
                    notes.push(format!("other state dicts in the file, not used: {}", shorten(&others)));
                }
                return Ok(id);
            }
            (Some(id), None) => {
                format!("the file has {} under the key `{shown}`, where a dictionary of tensors is expected", self.arena.get(id).describe())
            }
            (None, None) => format!("the file has no key `{shown}`"),
        };
        let next = match self.choice(root, "") {
            Some(choice) => choice,
            None => "it holds one state dict at most: leave --key out".to_owned(),
        };
        refuse(Refusal::NoSuchKey, format!("{problem}; {next}"))
    }

    /// Whether a dictionary has nothing of what is looked for while another one in the file has: one key may be meant for another file, or
    /// for this file as something else.
    fn is_beside(&self, root: Id, dict: Id, key: &str) -> bool {
        let serves = |dict: Id| self.wanted.purpose.serves(self.names(dict));
        let is_within = |name: &str| name.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let any = |found: Vec<Candidate>, inside: bool| found.iter().any(|one| is_within(&one.key) == inside && serves(one.dict));
        self.wanted.purpose != Purpose::Weights
            && !serves(dict)
            && !any(self.candidates(dict, key), true)
            && any(self.candidates(root, ""), false)
    }

    /// Names of the tensors of a dictionary.
    fn names(&self, dict: Id) -> impl Iterator<Item = &str> {
        let tensors = self.arena.pairs(dict).filter(|(_, value)| matches!(self.arena.get(*value), Node::Tensor(_)));
        tensors.filter_map(|(key, _)| if let Node::Str(name) = self.arena.get(key) { Some(name) } else { None })
    }

    /// What stands under a key: under the whole of it, else under what follows a dot in what stands under what precedes the dot.
    fn follow(&self, dict: Id, key: &str) -> Option<Id> {
        let dict = self.arena.dict(dict)?;
        let under = |name: &str| self.arena.pairs(dict).find(|(key, _)| self.arena.get(*key) == Node::Str(name)).map(|(_, value)| value);
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
            let Some(own) = arena.dict(dict) else {
                let found = arena.get(dict).describe();
                return refuse(Refusal::NotAStateDict, format!("the file holds {found}; expected a dictionary from names to tensors"));
            };
            dict = own;
            let count = arena.pairs(dict).count();
            if count > limits.tensors {
                return refuse(Refusal::TooManyTensors, format!("the state dict has {count} entries; the limit is {}", limits.tensors));
            }
            let nested = |(_, value): &(Id, Id)| matches!(arena.get(*value), Node::Dict(_));
            if !arena.pairs(dict).any(|pair| nested(&pair)) {
                return Ok(dict);
            }
            (path, dict) = self.descend(dict, &path, notes)?;
        }
    }

    /// The one wrapped dict inside of a dict that contains dicts, and its key in the file.
    fn descend(&self, dict: Id, path: &str, notes: &mut Vec<String>) -> Result<(String, Id)> {
        let Self { arena, limits, .. } = *self;
        let (mut wrapped, mut empty) = (Vec::new(), Vec::new());
        let (mut others, mut of_training, mut rivals) = (Vec::new(), Vec::new(), Vec::new());
        for (key, value) in arena.pairs(dict) {
            let name = name_of(arena, key, limits)?;
            let is_wrapper = matches!(arena.get(value), Node::Dict(_)) && WRAPPERS.contains(&name);
            match (below(arena, value, &is_data), is_wrapper) {
                (true, true) => wrapped.push((name, value)),
                (false, true) => empty.push((name, value)),
                (true, false) if OF_TRAINING.contains(&name) => of_training.push(name),
                (true, false) => rivals.push((name, key, value)),
                (false, false) => others.push(name),
            }
        }
        if wrapped.is_empty() {
            wrapped.append(&mut empty);
        }
        others.extend(empty.iter().map(|(name, _)| *name));
        match wrapped.as_slice() {
            [(name, value)] if !rivals.iter().any(|(_, key, rival)| self.rivals(*value, (*key, *rival))) => {
                notes.push(format!("the state dict lies under the key `{name}`"));
                if !of_training.is_empty() {
                    notes.push(format!("what a trainer keeps beside it was left out: {}", shorten(&of_training)));
                }
                if !rivals.is_empty() {
                    let rivals: Vec<&str> = rivals.iter().map(|(name, ..)| *name).collect();
                    notes.push(format!("tensors beside it that are no modules' were left out: {}", shorten(&rivals)));
                }
                if !others.is_empty() {
                    notes.push(format!("keys beside it, without tensors and not used: {}", shorten(&others)));
                }
                Ok((joined(path, name), *value))
            }
            _ => match self.only_one_of_use(dict, path, notes) {
                Some(found) => Ok(found),
                None => self.refuse_nested(dict, path),
            },
        }
    }

    /// Whether both could be the weights of a model: then nobody may guess. A single tensor, or some with names of no modules, beside a state
    /// dict with such names are none.
    fn rivals(&self, wrapped: Id, (key, other): (Id, Id)) -> bool {
        let of_modules = |id: Id| self.arena.pairs(id).any(|(key, value)| is_of_module(self.arena, key, value));
        let with_tensors = |id: Id| self.arena.pairs(id).any(|(_, value)| is_data(self.arena, value));
        let holds =
            |root: Id, test: &dyn Fn(Id) -> bool| below(self.arena, root, &|arena, id| matches!(arena.get(id), Node::Dict(_)) && test(id));
        is_of_module(self.arena, key, other) || holds(other, &of_modules) || holds(other, &with_tensors) && !holds(wrapped, &of_modules)
    }

    /// Of several state dicts the only one that holds what the file is opened for, and its key.
    fn only_one_of_use(&self, dict: Id, path: &str, notes: &mut Vec<String>) -> Option<(String, Id)> {
        let all = self.candidates(dict, path);
        let mut of_use = all.iter().filter_map(|candidate| Some((candidate, self.wanted.purpose.of(self.names(candidate.dict))?)));
        let (Some((found, what)), None) = (of_use.next(), of_use.next()) else { return None };
        let others: Vec<&str> = all.iter().map(|candidate| candidate.key.as_str()).filter(|key| *key != found.key).collect();
        notes.push(format!("what lies under the key `{}` is taken, the only one that holds {what}", found.key.escape_default()));
        if !others.is_empty() {
            notes.push(format!("other state dicts in the file, not used: {}", shorten(&others)));
        }
        Some((found.key.clone(), found.dict))
    }

    fn refuse_nested<T>(&self, dict: Id, path: &str) -> Result<T> {
        let keys: Vec<&str> = self.arena.pairs(dict).filter_map(|(key, _)| name_of(self.arena, key, self.limits).ok()).collect();
        let next = if self.is_of_zero(dict) {
            SHARD_OF_ZERO.to_owned()
        } else if OF_OPTIMIZERS.iter().all(|key| keys.contains(key)) {
            "this is what an optimizer keeps, which holds no weights: give the file of the model that was saved beside it".to_owned()
        } else {
            let choice = self.choice(dict, path);
            let choice = choice.unwrap_or_else(|| "none of them holds named tensors: save the state dict alone with torch".to_owned());
            format!("which of them is the state dict cannot be told: {choice}")
        };
        refuse(Refusal::NotAStateDict, format!("the file holds nested dictionaries with the keys {}; {next}", shorten(&keys)))
    }

    /// How to name one of the state dicts below `dict`; `None` where there is none.
    fn choice(&self, dict: Id, path: &str) -> Option<String> {
        let mut found = self.candidates(dict, path);
        let serves = |candidate: &Candidate| self.wanted.purpose.serves(self.names(candidate.dict));
        if found.iter().any(serves) {
            found.retain(serves);
        }
        let shown = |candidate: &Candidate| format!("`{}` ({} tensor(s))", candidate.key.escape_default(), candidate.tensors);
        let mut list: Vec<String> = found.iter().take(SHOWN).map(shown).collect();
        if found.len() > SHOWN {
            list.push(format!("and {} more", found.len().saturating_sub(SHOWN)));
        }
        let list = list.join(", ");
        match (found.is_empty(), self.wanted.takes_keys) {
            (true, _) => None,
            (false, true) => Some(format!("name one with --key: {list}")),
            (false, false) => Some(format!("it holds {list}; save the one that is meant alone with torch")),
        }
    }

    /// Dictionaries below `dict` with tensors of their own, but for what a trainer keeps; where some have names of modules, those alone.
    fn candidates(&self, dict: Id, path: &str) -> Vec<Candidate> {
        let arena = self.arena;
        let is_tensor = |id: Id| matches!(arena.get(id), Node::Tensor(_) | Node::Foreign(_));
        let mut found = Vec::new();
        let dict = arena.dict(dict).unwrap_or(dict);
        let (mut open, mut seen) = (VecDeque::from([(dict, path.to_owned())]), HashSet::from([dict]));
        while let Some((dict, path)) = open.pop_front() {
            for (key, value) in arena.pairs(dict) {
                let Node::Str(name) = arena.get(key) else { continue };
                let is_usable = name.len() <= self.limits.tensor_name_bytes && !OF_TRAINING.contains(&name);
                let Some(value) = arena.dict(value).filter(|_| is_usable) else { continue };
                if seen.len() >= CANDIDATES || !seen.insert(value) {
                    continue;
                }
                let path = joined(&path, name);
                match arena.pairs(value).filter(|(_, value)| is_tensor(*value)).count() {
                    0 => open.push_back((value, path)),
                    tensors => found.push(Candidate { key: path, dict: value, tensors }),
                }
            }
        }
        let of_modules = |candidate: &Candidate| arena.pairs(candidate.dict).any(|(key, value)| is_of_module(arena, key, value));
        if found.iter().any(of_modules) {
            found.retain(of_modules);
        }
        found
    }
}

/// The key of what is called `name` in what stands under `path`.
fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Whether a value passes, or anything below it. What is shared is looked at each time, which the limit of values written out bounds.
fn below(arena: &Arena<'_>, root: Id, passes: &dyn Fn(&Arena<'_>, Id) -> bool) -> bool {
    let mut open = vec![root];
    while let Some(id) = open.pop() {
        if passes(arena, id) {
            return true;
        }
        open.extend_from_slice(arena.children(id));
    }
    false
}

/// Whether a value is made of stored numbers.
fn is_data(arena: &Arena<'_>, id: Id) -> bool {
    matches!(arena.get(id), Node::Tensor(_) | Node::Foreign(_) | Node::Storage(_))
}

/// Whether an entry of a dictionary can be a parameter of a module in a model: a tensor of one dimension or more whose name has a dot.
fn is_of_module(arena: &Arena<'_>, key: Id, value: Id) -> bool {
    let is_named = matches!(arena.get(key), Node::Str(name) if name.trim_matches('.').contains('.'));
    is_named
        && match arena.get(value) {
            Node::Tensor(index) => arena.tensors.get(index as usize).is_some_and(|tensor| !arena.children(tensor.size).is_empty()),
            Node::Foreign(_) => true,
            _ => false,
        }
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

/// The first few names, quoted.
fn shorten(names: &[&str]) -> String {
    let mut text: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{}`", name.escape_default())).collect();
    if names.len() > SHOWN {
        text.push(format!("and {} more", names.len().saturating_sub(SHOWN)));
    }
    text.join(", ")
}
