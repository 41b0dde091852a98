//! Which tensors of a LoRA belong to which tensor of the model. Start at [`Assignment::new`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rwkv_forge_model::names::{self, Convention, LoraName, LoraPart, Part, Wrapping};
use rwkv_forge_model::{ModelDescription, Recover, TensorSpec};
use rwkv_forge_tensor::{Encoding, TensorInfo, TensorSource, format_shape, shorten};

use super::error::LoraError;

/// Names listed in one message.
const LISTED: usize = 8;
/// What PEFT puts before all names.
const PEFT: &str = "base_model.model.";
/// Where PEFT keeps the trained copy of a module, in a state dict that it has not tidied up.
const COPY: &str = ".modules_to_save.";
/// Where it keeps what the copy was made of.
const ORIGINAL: &str = ".original_module.";
/// Where it keeps the matrix that a pair adapts.
const BASE: &str = ".base_layer.";

/// Which tensors of a LoRA file belong to which tensor of the model.
pub(super) struct Assignment {
    /// By index in the description.
    pub(super) pairs: BTreeMap<usize, Pair>,
    /// By index in the description.
    pub(super) replaced: BTreeMap<usize, Whole>,
    /// By index in the description: matrices that lie beside the pair by which they are adapted.
    pub(super) bases: BTreeMap<usize, Whole>,
    /// Tensors of modules of which there is a trained copy.
    pub(super) originals: usize,
    /// Tensors that a file of the model may have, and no model of its kind uses.
    pub(super) unused: usize,
    /// What stands before the names, and whose they are.
    pub(super) wrapping: Wrapping,
    pub(super) convention: &'static Convention,
}

/// Two factors, and whose they are.
pub(super) struct Pair {
    /// Index in the LoRA file.
    pub(super) a: usize,
    /// Index in the LoRA file.
    pub(super) b: usize,
    /// They are those of the matrix with rows and columns swapped.
    pub(super) turned: bool,
    /// Name of the module as PEFT has it.
    pub(super) module: String,
    pub(super) rank: u64,
}

/// A tensor that is given in full.
pub(super) struct Whole {
    /// Index in the LoRA file.
    pub(super) index: usize,
    /// Rows and columns are swapped.
    pub(super) turned: bool,
}

/// What a name of the model gets from the LoRA file.
#[derive(Default)]
struct Parts {
    a: Option<usize>,
    b: Option<usize>,
    whole: Option<usize>,
    /// The matrix that a pair adapts.
    base: Option<usize>,
    of_embedding: bool,
}

impl Parts {
    /// Index of some tensor of these.
    fn any(&self) -> Option<usize> {
        self.a.or(self.b).or(self.whole).or(self.base)
    }
}

impl Assignment {
    /// Finds for each tensor of the file what it belongs to, and compares shapes and types, before anything is read.
    pub(super) fn new(lora: &dyn TensorSource, model: &ModelDescription) -> Result<Self, LoraError> {
        let (by_name, originals) = parts(lora)?;
        let specs: BTreeMap<&str, usize> = model.tensors.iter().enumerate().map(|(index, spec)| (spec.name.as_str(), index)).collect();
        let infos: Vec<TensorInfo> = by_name
            .iter()
            .map(|(name, parts)| {
                let shape = parts.whole.or(parts.base).map_or_else(Vec::new, |index| lora.tensors()[index].shape.clone());
                TensorInfo { name: name.clone(), shape, encoding: Encoding::F32 }
            })
            .collect();
        // What only later layers have, layer 0 may have in vain.
        let in_vain = |name: &str| {
            let later = name.strip_prefix("blocks.0.").map(|rest| format!("blocks.1.{rest}"));
            !specs.contains_key(name) && later.is_some_and(|later| specs.contains_key(later.as_str()))
        };
        let part = Part::of(&infos, &|name| specs.contains_key(name) || in_vain(name));
        let known: BTreeSet<usize> = part.mapped.iter().map(|tensor| tensor.source_index).collect();
        let unknown = by_name.values().enumerate().filter(|(index, _)| !known.contains(index));
        let unknown: Vec<&str> = unknown.filter_map(|(_, parts)| parts.any()).map(|index| lora.tensors()[index].name.as_str()).collect();
        if !unknown.is_empty() {
            return Err(unknown_tensor(lora.path().to_owned(), &unknown));
        }
        let mut assignment = Self {
            pairs: BTreeMap::new(),
            replaced: BTreeMap::new(),
            bases: BTreeMap::new(),
            originals,
            unused: 0,
            wrapping: part.wrapping,
            convention: part.convention,
        };
        let all: Vec<(&String, &Parts)> = by_name.iter().collect();
        for tensor in &part.mapped {
            let (name, parts) = all[tensor.source_index];
            let Some(index) = specs.get(tensor.name.as_str()).copied() else {
                if parts.a.or(parts.b).is_some() {
                    return Err(unknown_tensor(lora.path().to_owned(), &[name.as_str()]));
                }
                assignment.unused += 1;
                continue;
            };
            assignment.add(lora, &model.tensors[index], index, (name, parts), tensor.recover)?;
        }
        Ok(assignment)
    }

    fn add(
        &mut self,
        lora: &dyn TensorSource,
        spec: &TensorSpec,
        index: usize,
        (name, parts): (&str, &Parts),
        recover: Recover,
    ) -> Result<(), LoraError> {
        let file = || lora.path().to_owned();
        if (Recover { transposed: false, ..recover }) != Recover::AS_IS {
            let what = format!("{} is a part of {}, which several matrices share", spec.name, shorten(name));
            return Err(LoraError::Unsupported { file: file(), what });
        }
        let missing = |found: usize, from: &str, to: &str| {
            let name = lora.tensors()[found].name.clone();
            LoraError::Unpaired { file: file(), missing: name.replacen(from, to, 1), name }
        };
        let pair = match (parts.a, parts.b) {
            (None, None) => None,
            (Some(a), Some(b)) => Some((a, b)),
            (Some(a), None) => return Err(missing(a, "_A", "_B")),
            (None, Some(b)) => return Err(missing(b, "_B", "_A")),
        };
        let is_taken = self.pairs.contains_key(&index) || self.replaced.contains_key(&index);
        if is_taken || parts.whole.is_some() && (pair.is_some() || parts.base.is_some()) {
            return Err(LoraError::Conflict { file: file(), name: spec.name.clone() });
        }
        if let Some((a, b)) = pair {
            // A table of rows is adapted from the other side.
            let turned = recover.transposed != parts.of_embedding;
            let module = name.strip_suffix(".weight").unwrap_or(name);
            let module = module.strip_prefix(PEFT).unwrap_or(module).to_owned();
            let rank = rank(lora, spec, (a, b), turned)?;
            self.pairs.insert(index, Pair { a, b, turned, module, rank });
            if let Some(base) = parts.base {
                check_whole(lora, spec, base, recover.transposed)?;
                self.bases.insert(index, Whole { index: base, turned: recover.transposed });
            }
        } else if let Some(whole) = parts.whole.or(parts.base) {
            check_whole(lora, spec, whole, recover.transposed)?;
            self.replaced.insert(index, Whole { index: whole, turned: recover.transposed });
        }
        Ok(())
    }

    /// Rank of the first pair.
    pub(super) fn rank(&self) -> u64 {
        self.pairs.values().next().map_or(1, |pair| pair.rank)
    }

    /// Name of the module of a matrix of the model, as an adapter of this file's names has it; `None` for what is no module's weight.
    pub(super) fn module_of(&self, spec: &TensorSpec) -> Option<String> {
        let (stored, _) = self.convention.stored_name(&spec.name)?;
        let outer = self.wrapping.prefix();
        let outer = outer.strip_prefix(PEFT).unwrap_or(outer);
        Some(format!("{outer}{}", stored.strip_suffix(".weight")?))
    }
}

/// The tensors of the file by the name of the model's tensor that they change, and the number of those that change nothing.
fn parts(lora: &dyn TensorSource) -> Result<(BTreeMap<String, Parts>, usize), LoraError> {
    let file = || lora.path().to_owned();
    let unsupported = |what: String| Err(LoraError::Unsupported { file: file(), what });
    let (mut by_name, mut originals) = (BTreeMap::<String, Parts>::new(), 0);
    let copied: BTreeSet<&str> = lora.tensors().iter().filter_map(|info| Some(info.name.split_once(COPY)?.0)).collect();
    let several = |adapters: &BTreeSet<Option<&str>>| {
        let names = adapters.iter().take(LISTED).map(|name| shorten(name.unwrap_or("without a name"))).collect();
        Err(LoraError::Several { file: file(), names })
    };
    // Those of pairs and of trained copies.
    let named: BTreeSet<Option<&str>> = names::adapters(lora.tensors()).into_iter().map(Some).collect();
    if named.len() > 1 {
        return several(&named);
    }
    let mut adapters = BTreeSet::new();
    for (index, info) in lora.tensors().iter().enumerate() {
        if ![Encoding::F32, Encoding::F16, Encoding::BF16].contains(&info.encoding) {
            return Err(LoraError::UnsupportedDtype { file: file(), name: shorten(&info.name), encoding: info.encoding.name });
        }
        let Some(LoraName { stem, part, adapter }) = LoraName::parse(&info.name) else {
            let name = match (info.name.split_once(ORIGINAL), info.name.split_once(BASE)) {
                (Some((module, _)), _) if copied.contains(module) => {
                    originals += 1;
                    continue;
                }
                (None, Some((module, tensor))) => {
                    by_name.entry(format!("{module}.{tensor}")).or_default().base = Some(index);
                    continue;
                }
                // Without a trained copy it is the module itself.
                (Some((module, tensor)), _) => format!("{module}.{tensor}"),
                (None, None) => untidied(&info.name),
            };
            if let Some(first) = by_name.entry(name).or_default().whole.replace(index) {
                let [first, second] = [first, index].map(|index| shorten(&lora.tensors()[index].name));
                return unsupported(format!("{first} and {second} are the same tensor of the model"));
            }
            continue;
        };
        adapters.insert(adapter);
        let parts = by_name.entry(format!("{stem}.weight")).or_default();
        let place = match part {
            LoraPart::A | LoraPart::EmbeddingA => &mut parts.a,
            LoraPart::B | LoraPart::EmbeddingB => &mut parts.b,
            LoraPart::Magnitude => {
                return unsupported(format!("this is DoRA (it has {}), which scales every row of the merged matrix", shorten(&info.name)));
            }
            LoraPart::Bias => {
                return unsupported(format!("it has a bias of its own ({}), for which the model has no place", shorten(&info.name)));
            }
        };
        *place = Some(index);
        parts.of_embedding = part.is_of_embedding();
    }
    if adapters.len() > 1 {
        return several(&adapters);
    }
    Ok((by_name, originals))
}

/// The name of a module's own tensor for that of the trained copy.
fn untidied(name: &str) -> String {
    let inner = name.split_once(COPY).and_then(|(module, rest)| Some(format!("{module}.{}", rest.split_once('.')?.1)));
    inner.unwrap_or_else(|| name.to_owned())
}

/// The rank of a pair whose shapes are those that the matrix asks for.
fn rank(lora: &dyn TensorSource, spec: &TensorSpec, (a, b): (usize, usize), turned: bool) -> Result<u64, LoraError> {
    let (a, b) = (&lora.tensors()[a], &lora.tensors()[b]);
    let (outputs, inputs) = match spec.shape.as_slice() {
        [rows, columns] if turned => (*columns, *rows),
        [rows, columns] => (*rows, *columns),
        other => return mismatch(lora.path(), a, format!("no pair at all: {} is {}", spec.name, format_shape(other))),
    };
    let rank = match a.shape.as_slice() {
        [rank, found] if *found == inputs && *rank > 0 => *rank,
        _ => return mismatch(lora.path(), a, format!("[rank, {inputs}], since {} is {}", spec.name, format_shape(&spec.shape))),
    };
    if b.shape != [outputs, rank] {
        let expected = format!("{}, since {} is {}", format_shape(&[outputs, rank]), a.name, format_shape(&a.shape));
        return mismatch(lora.path(), b, expected);
    }
    Ok(rank)
}

fn check_whole(lora: &dyn TensorSource, spec: &TensorSpec, index: usize, turned: bool) -> Result<(), LoraError> {
    let info = &lora.tensors()[index];
    let sizes = |shape: &[u64]| shape.iter().copied().filter(|dim| *dim != 1).collect::<Vec<_>>();
    let mut expected = spec.shape.clone();
    if let (true, [.., rows, columns]) = (turned, expected.as_mut_slice()) {
        std::mem::swap(rows, columns);
    }
    if sizes(&expected) == sizes(&info.shape) {
        return Ok(());
    }
    mismatch(lora.path(), info, format!("{}, that of the model's tensor", format_shape(&expected)))
}

fn mismatch<T>(file: &Path, info: &TensorInfo, expected: String) -> Result<T, LoraError> {
    Err(LoraError::ShapeMismatch { file: file.to_owned(), name: info.name.clone(), found: info.shape.clone(), expected })
}

fn unknown_tensor(file: PathBuf, unknown: &[&str]) -> LoraError {
    let hint = if unknown.iter().any(|name| name.ends_with(".time_state")) {
        "; time_state is a tuned initial state, which the command `state` converts"
    } else {
        ""
    };
    let names = unknown.iter().take(LISTED).map(|name| shorten(name)).collect();
    LoraError::UnknownTensor { file, names, total: unknown.len(), hint }
}
