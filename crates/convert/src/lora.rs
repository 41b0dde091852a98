//! LoRA files merged while converting: W + (alpha / rank) B A, computed when a piece of W is read. Start at [`merge`].
//!
//! The files are those of RWKV-LM-LoRA and RWKV-PEFT: `blocks.i.att.key.lora_A` `[rank, in]` with
//! `blocks.i.att.key.lora_B` `[out, rank]` belongs to `blocks.i.att.key.weight` `[out, in]`, and whatever was trained in
//! full stands under its own name and replaces the model's tensor. Alpha is in no file. Relatives of LoRA (PiSSA, Bone,
//! DiSHA, MiSS) use the same names for other formulas and cannot be told apart: their own tools must merge them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rwkv_forge_checkpoint::Limits;
use rwkv_forge_model::{ModelDescription, TensorSpec};
use rwkv_forge_tensor::{BoxError, Class, Diagnostic, Encoding, TensorInfo, TensorSource, decode_dense, format_shape, shorten};
use rwkv_forge_weights::{Bytes, Make, Replacement, Replacements, View};
use strum::IntoStaticStr;
use thiserror::Error;

use crate::error::ConvertError;
use crate::open::{OpenFile, OpenModel};

/// Largest factor of a pair that is held in memory.
const LARGEST_FACTOR: u64 = 1 << 30;
/// Names listed in one message.
const LISTED: usize = 8;

/// What can be wrong with a LoRA file, or with what is asked of it.
#[derive(Debug, Error, IntoStaticStr)]
#[non_exhaustive]
pub enum LoraError {
    /// Alpha is not in the file.
    #[strum(serialize = "LoraAlphaMissing")]
    #[error(
        "a LoRA file does not say which alpha it was trained with, and the merged weights are W + (alpha / rank) B A: give the alpha of the \
         training with --lora-alpha (the rank of {} is {rank}, so --lora-alpha {rank} adds B A as it is)", file.display()
    )]
    AlphaMissing {
        /// The LoRA file.
        file: PathBuf,
        /// Rank of its first pair.
        rank: u64,
    },
    /// Not a number that can scale anything.
    #[strum(serialize = "BadLoraAlpha")]
    #[error("--lora-alpha {alpha} is no finite number")]
    BadAlpha {
        /// As given.
        alpha: f64,
    },
    /// Tensors that the model does not have.
    #[strum(serialize = "UnknownLoraTensor")]
    #[error(
        "{} has {total} tensors that belong to nothing in the model: {}; expected NAME.lora_A and NAME.lora_B for a matrix NAME.weight of the \
         model, or a tensor of the model{hint}", file.display(), names.join(", ")
    )]
    UnknownTensor {
        /// The LoRA file.
        file: PathBuf,
        /// The first of them.
        names: Vec<String>,
        /// How many there are.
        total: usize,
        /// What they may be.
        hint: &'static str,
    },
    /// One half of a pair.
    #[strum(serialize = "LoraPairIncomplete")]
    #[error("{} has {name}, but not {missing}; both are needed", file.display())]
    Unpaired {
        /// The LoRA file.
        file: PathBuf,
        /// The half that is there.
        name: String,
        /// The half that is not.
        missing: String,
    },
    /// Shapes that do not fit together.
    #[strum(serialize = "LoraShapeMismatch")]
    #[error("{}: {name} has the shape {}, expected {expected}", file.display(), format_shape(found))]
    ShapeMismatch {
        /// The LoRA file.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<u64>,
        /// What it must be.
        expected: String,
    },
    /// A matrix given twice.
    #[strum(serialize = "LoraConflict")]
    #[error("{} has {name} both in full and as a pair: whether the pair is already merged cannot be told", file.display())]
    Conflict {
        /// The LoRA file.
        file: PathBuf,
        /// The matrix.
        name: String,
    },
    /// Something that is no number in a pair.
    #[error("{}: {name} holds a value that is NaN or infinite", file.display())]
    NonFinite {
        /// The LoRA file.
        file: PathBuf,
        /// The tensor.
        name: String,
    },
    /// An element type that is no weight.
    #[error("{}: {name} is stored as {encoding}; expected f32, f16 or bf16", file.display())]
    UnsupportedDtype {
        /// The LoRA file.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        encoding: &'static str,
    },
}

impl Diagnostic for LoraError {
    fn kind(&self) -> &'static str {
        self.into()
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "what is not listed is of the class that most errors of this crate have")]
    fn class(&self) -> Class {
        match self {
            Self::AlphaMissing { .. } | Self::BadAlpha { .. } => Class::Usage,
            _ => Class::Refused,
        }
    }
}

/// The model with a LoRA merged into it: affected tensors read as f32. Nothing is merged yet; each piece is computed
/// when it is read, in f64 and one fixed order, so that the bits depend neither on pieces nor on threads.
///
/// `requantize` accepts a model whose affected matrices are stored in blocks of few bits.
///
/// # Errors
/// [`LoraError`], [`ConvertError::Requantize`], and those of opening the file.
pub fn merge(base: OpenModel, lora: &Path, alpha: Option<f64>, requantize: bool) -> Result<OpenModel, BoxError> {
    let source: Arc<dyn TensorSource> = rwkv_forge_checkpoint::open(lora, &Limits::default())?.into();
    let assignment = Assignment::new(source.as_ref(), base.description())?;
    // Without a pair there is nothing to scale.
    let alpha = match alpha {
        None if assignment.pairs.is_empty() => 1.0,
        None => return Err(assignment.alpha_missing(lora).into()),
        Some(alpha) => alpha,
    };
    if !alpha.is_finite() {
        return Err(LoraError::BadAlpha { alpha }.into());
    }
    let words = base.words()?.clone();
    let OpenModel { model, key, constants, beside, .. } = base;
    let specs = &model.description().tensors;
    let mut changes = Replacements::new();
    let (merged, replaced) = (assignment.pairs.len(), assignment.replaced.len());
    for (tensor, Pair { a, b }) in assignment.pairs {
        let spec = &specs[tensor];
        let stored = model.stored(spec)?.encoding;
        if !stored.is_dense() && !requantize {
            return Err(ConvertError::Requantize { tensor: spec.name.clone(), from: stored.name, to: "the merged weights" }.into());
        }
        let bytes = Bytes::Made(Arc::new(Merged::new(source.as_ref(), spec, (a, b), alpha)?));
        changes.put(&spec.name, Replacement::new(Encoding::F32, View::CANONICAL, bytes));
    }
    for (tensor, index) in assignment.replaced {
        let bytes = Bytes::Tensor(Arc::clone(&source), index);
        changes.put(&specs[tensor].name, Replacement::new(source.tensors()[index].encoding, View::CANONICAL, bytes));
    }
    changes.call("model with a LoRA");
    changes.files_of(source);
    changes.note(format!("LoRA with alpha {alpha}: {merged} matrices merged, {replaced} tensors replaced"));
    let model = model.with(changes)?;
    Ok(OpenModel { file: OpenFile::of(Box::new(model.clone())), model, key, constants, beside, words: words.into() })
}

/// Which tensors of a LoRA file belong to which tensor of the model.
#[derive(Default)]
struct Assignment {
    /// Index in the description -> indices in the LoRA file.
    pairs: BTreeMap<usize, Pair>,
    replaced: BTreeMap<usize, usize>,
    /// Rank of the first pair.
    rank: u64,
}

/// Indices of the two factors in the LoRA file.
#[derive(Clone, Copy)]
struct Pair {
    a: usize,
    b: usize,
}

impl Assignment {
    fn new(lora: &dyn TensorSource, model: &ModelDescription) -> Result<Self, LoraError> {
        let file = lora.path().to_owned();
        let by_name: BTreeMap<&str, usize> = lora.tensors().iter().enumerate().map(|(index, info)| (info.name.as_str(), index)).collect();
        let specs: BTreeMap<&str, usize> = model.tensors.iter().enumerate().map(|(index, spec)| (spec.name.as_str(), index)).collect();
        let mut assignment = Self::default();
        let mut unknown = Vec::new();
        for (name, index) in &by_name {
            let half = [(".lora_A", ".lora_B"), (".lora_B", ".lora_A")].into_iter().find_map(|(own, other)| {
                let stem = name.strip_suffix(own)?;
                Some((stem, format!("{stem}{other}"), own == ".lora_A"))
            });
            let Some((stem, other, is_a)) = half else {
                match specs.get(name) {
                    Some(tensor) => _ = assignment.replaced.insert(*tensor, *index),
                    None => unknown.push((*name).to_owned()),
                }
                continue;
            };
            let Some(tensor) = specs.get(format!("{stem}.weight").as_str()) else {
                unknown.push((*name).to_owned());
                continue;
            };
            match by_name.get(other.as_str()) {
                Some(b) if is_a => _ = assignment.pairs.insert(*tensor, Pair { a: *index, b: *b }),
                Some(_) => {}
                None => return Err(LoraError::Unpaired { file, name: (*name).to_owned(), missing: other }),
            }
        }
        if !unknown.is_empty() {
            return Err(unknown_tensor(file, &unknown));
        }
        assignment.check(lora, model)?;
        Ok(assignment)
    }

    /// Shapes and types, before anything is read.
    fn check(&mut self, lora: &dyn TensorSource, model: &ModelDescription) -> Result<(), LoraError> {
        let file = || lora.path().to_owned();
        let mismatch = |info: &TensorInfo, expected: String| {
            Err(LoraError::ShapeMismatch { file: file(), name: info.name.clone(), found: info.shape.clone(), expected })
        };
        for info in lora.tensors() {
            if ![Encoding::F32, Encoding::F16, Encoding::BF16].contains(&info.encoding) {
                return Err(LoraError::UnsupportedDtype { file: file(), name: shorten(&info.name), encoding: info.encoding.name });
            }
        }
        for (tensor, Pair { a, b }) in &self.pairs {
            let spec = &model.tensors[*tensor];
            if self.replaced.contains_key(tensor) {
                return Err(LoraError::Conflict { file: file(), name: spec.name.clone() });
            }
            let (a, b) = (&lora.tensors()[*a], &lora.tensors()[*b]);
            let (rows, columns) = match spec.shape.as_slice() {
                [rows, columns] => (*rows, *columns),
                other => return mismatch(a, format!("no pair at all: {} is {}", spec.name, format_shape(other))),
            };
            let rank = match a.shape.as_slice() {
                [rank, inputs] if *inputs == columns => *rank,
                _ => return mismatch(a, format!("[rank, {columns}], since {} is {}", spec.name, format_shape(&spec.shape))),
            };
            if b.shape != [rows, rank] {
                return mismatch(b, format!("{}, since {} is {}", format_shape(&[rows, rank]), a.name, format_shape(&a.shape)));
            }
            if self.rank == 0 {
                self.rank = rank;
            }
        }
        for (tensor, index) in &self.replaced {
            let (spec, info) = (&model.tensors[*tensor], &lora.tensors()[*index]);
            let sizes = |shape: &[u64]| shape.iter().copied().filter(|dim| *dim != 1).collect::<Vec<_>>();
            if sizes(&spec.shape) != sizes(&info.shape) {
                return mismatch(info, format!("{}, that of the model's tensor", format_shape(&spec.shape)));
            }
        }
        Ok(())
    }

    fn alpha_missing(&self, lora: &Path) -> LoraError {
        LoraError::AlphaMissing { file: lora.to_owned(), rank: self.rank }
    }
}

fn unknown_tensor(file: PathBuf, unknown: &[String]) -> LoraError {
    let hint = if unknown.iter().any(|name| name.ends_with(".time_state")) {
        "; time_state is a tuned initial state, which the command `state` converts"
    } else {
        ""
    };
    let names = unknown.iter().take(LISTED).map(|name| shorten(name)).collect();
    LoraError::UnknownTensor { file, names, total: unknown.len(), hint }
}

/// W + (alpha / rank) B A, of a matrix and its pair.
struct Merged {
    columns: usize,
    rank: usize,
    /// alpha / rank.
    scale: f64,
    /// `[rank, columns]`.
    a: Vec<f32>,
    /// `[rows, rank]`.
    b: Vec<f32>,
}

impl Merged {
    fn new(lora: &dyn TensorSource, spec: &TensorSpec, (a, b): (usize, usize), alpha: f64) -> Result<Self, BoxError> {
        let (a, b) = (read_factor(lora, a)?, read_factor(lora, b)?);
        // The shapes were compared before: a is [rank, columns].
        let columns = spec.shape.last().and_then(|columns| usize::try_from(*columns).ok()).unwrap_or(1).max(1);
        let rank = a.len() / columns;
        Ok(Self { columns, rank, scale: alpha / rank as f64, a, b })
    }

    /// Adds the product to elements `first .. first + values.len()` of W.
    fn add_to(&self, values: &mut [f32], first: usize) {
        let mut sums = Vec::new();
        let mut done = 0;
        while done < values.len() {
            let (row, column) = ((first + done) / self.columns, (first + done) % self.columns);
            let count = (self.columns - column).min(values.len() - done);
            sums.clear();
            sums.resize(count, 0.0f64);
            let weights = &self.b[row * self.rank..][..self.rank];
            for (weight, inputs) in weights.iter().zip(self.a.chunks_exact(self.columns)) {
                for (sum, input) in sums.iter_mut().zip(&inputs[column..]) {
                    *sum += f64::from(*weight) * f64::from(*input);
                }
            }
            for (value, sum) in values[done..].iter_mut().zip(&sums) {
                *value = round(f64::from(*value) + self.scale * sum);
            }
            done += count;
        }
    }
}

impl Make for Merged {
    fn unit(&self) -> usize {
        1
    }

    fn make(&self, first: usize, values: &mut [f32], out: &mut [u8]) -> Result<(), BoxError> {
        self.add_to(values, first);
        for (to, value) in out.as_chunks_mut().0.iter_mut().zip(values) {
            *to = value.to_le_bytes();
        }
        Ok(())
    }
}

#[allow(clippy::cast_possible_truncation, reason = "rounding to nearest is what is wanted")]
fn round(value: f64) -> f32 {
    value as f32
}

/// A whole tensor of the LoRA file.
fn read_factor(lora: &dyn TensorSource, index: usize) -> Result<Vec<f32>, BoxError> {
    let info = &lora.tensors()[index];
    let bytes = info.byte_len().ok().filter(|bytes| *bytes <= LARGEST_FACTOR).and_then(|bytes| usize::try_from(bytes).ok());
    let mut raw = vec![0; bytes.ok_or_else(|| ConvertError::Internal(format!("{} is too large to be held in memory", info.name)))?];
    lora.read_at(index, 0, &mut raw)?;
    let mut values = Vec::new();
    decode_dense(info.encoding, &raw, &mut values);
    if values.iter().any(|value| !value.is_finite()) {
        return Err(LoraError::NonFinite { file: lora.path().to_owned(), name: info.name.clone() }.into());
    }
    Ok(values)
}
