//! Lays out a file before a byte is written. Start at [`layout`].

use rwkv_forge_model::{
    Assembly, Choice, Constraint, FileLayout, ModelDescription, OutputTensor, TensorRole, TensorSpec, TensorUse, Version,
};
use rwkv_forge_tensor::{Encoding, TensorInfo};

use crate::error::GgmlError;
use crate::map::{self, Entry, Row, Shape};
use crate::records::{HEADER_BYTES, Header, VERSION, byte_len, header_bytes, record_head};
use crate::types;

/// Whether the format has a number for this encoding.
#[must_use]
pub fn holds(encoding: Encoding) -> bool {
    types::number(encoding).is_some()
}

/// Whether files can carry models of this version: all of RWKV itself. 5.0 is what rwkv.cpp calls 5.1, and 5.1 becomes
/// 5.2.
///
/// # Errors
/// [`GgmlError::CannotCarry`] for the hybrids with other architectures.
pub fn can_carry(version: Version) -> Result<(), GgmlError> {
    map::row(version).map(|_| ())
}

/// What a file can hold for one canonical tensor of a model.
#[must_use]
pub fn constraint(spec: &TensorSpec) -> Constraint {
    match spec.role.tensor_use() {
        TensorUse::RowByToken | TensorUse::Linear if [TensorRole::Embedding, TensorRole::Head].contains(&spec.role) => {
            Constraint::FloatUnlessAsked("rwkv.cpp keeps embedding and head in 16 bits: quantized, they cost far more than they save")
        }
        TensorUse::RowByToken | TensorUse::Linear => Constraint::Any,
        // The factors of RWKV-6 are few and sensitive; rwkv.cpp's converter keeps them, as everything named time_*, in f32.
        TensorUse::Factor if !spec.name.contains(".time_") => Constraint::Float("rwkv.cpp keeps low-rank factors in 16 bits or more"),
        TensorUse::Factor | TensorUse::Vector => {
            Constraint::F32Only("rwkv.cpp computes with norms, mixes, decays and other small tensors in f32")
        }
    }
}

/// Lays out the whole file. `choices` has one encoding for each of `model.tensors`. The format has no place for metadata.
///
/// ```
/// use rwkv_forge_ggml::{constraint, layout};
/// use rwkv_forge_model::{Choice, Constraint};
/// use rwkv_forge_tensor::Encoding;
///
/// # let checkpoint = rwkv_forge_testkit::models::random_model(rwkv_forge_model::Version::V7, &rwkv_forge_testkit::models::Sizes::TINY, 1);
/// # let model = rwkv_forge_model::describe(rwkv_forge_tensor::TensorSource::tensors(&checkpoint))?;
/// // 16 bits wherever the runtime reads them.
/// let choices = model.tensors.iter().map(|spec| match constraint(spec) {
///     Constraint::F32Only(why) => Choice { encoding: Encoding::F32, reason: why.to_owned() },
///     _ => Choice { encoding: Encoding::F16, reason: "a wish".to_owned() },
/// });
/// let file = layout(&model, &choices.collect::<Vec<_>>())?;
///
/// // The whole file is known, and no tensor was read.
/// let head = file.tensors.iter().find(|tensor| tensor.name == "head.weight").expect("a head");
/// assert_eq!((head.encoding, head.bytes), (Encoding::F16, 40 * 32 * 2));
/// assert_eq!(file.tensors.last().map(|last| last.offset + last.bytes), Some(file.total_bytes));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`GgmlError::CannotCarry`], [`GgmlError::EncodingNotAllowed`], [`GgmlError::BlockLength`], and [`GgmlError::Internal`] for sizes beyond 31 bits.
pub fn layout(model: &ModelDescription, choices: &[Choice]) -> Result<FileLayout, GgmlError> {
    let row = map::row(model.version)?;
    if choices.len() != model.tensors.len() {
        return Err(GgmlError::Internal(format!("{} encodings were chosen for {} tensors", choices.len(), model.tensors.len())));
    }
    let sizes = &model.hyperparameters;
    let size = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
    let main = types::number(main_encoding(model, choices)).unwrap_or(0);
    let header = Header {
        version: VERSION,
        vocabulary: size(sizes.vocabulary),
        channels: size(sizes.channels),
        layers: size(sizes.layers),
        data_type: main,
    };
    let mut out = FileLayout { header: header_bytes(&header)?, total_bytes: HEADER_BYTES, ..FileLayout::default() };
    for (index, (spec, choice)) in model.tensors.iter().zip(choices).enumerate() {
        check_choice(spec, choice)?;
        let place = Place { row, model, choices, index, spec };
        if let Some(tensor) = place.tensor(choice)? {
            append(&mut out, tensor)?;
        }
    }
    Ok(out)
}

/// Adds a record at the end.
fn append(out: &mut FileLayout, mut tensor: OutputTensor) -> Result<(), GgmlError> {
    let info = TensorInfo { name: tensor.name.clone(), shape: tensor.shape.clone(), encoding: tensor.encoding };
    let number = types::number(tensor.encoding).ok_or_else(|| not_allowed(&info.name, info.encoding, "it has no type number"))?;
    let head = record_head(&info, number)?;
    tensor.offset = add(out.total_bytes, u64::try_from(head.len()).unwrap_or(u64::MAX))?;
    tensor.bytes = byte_len(&info)?;
    let at = std::mem::replace(&mut out.total_bytes, add(tensor.offset, tensor.bytes)?);
    if out.tensors.is_empty() {
        // The header of a layout reaches up to the first tensor.
        out.header.extend(head);
    } else {
        out.literals.push((at, head));
    }
    out.tensors.push(tensor);
    Ok(())
}

/// One canonical tensor on its way into the file.
struct Place<'a> {
    row: &'static Row,
    model: &'a ModelDescription,
    choices: &'a [Choice],
    index: usize,
    spec: &'a TensorSpec,
}

impl Place<'_> {
    /// The stored tensor that begins with this canonical one; nothing for the later parts of a stack.
    fn tensor(&self, choice: &Choice) -> Result<Option<OutputTensor>, GgmlError> {
        let spec = self.spec;
        let (prefix, suffix) = map::split(&spec.name).unwrap_or(("", &spec.name));
        let fallback = if suffix.contains(".time_") { Shape::Squeezed } else { Shape::Same };
        let (stored, shape, assembly) = match self.row.by_canonical(suffix) {
            None => (suffix, fallback, Assembly::of(self.index)),
            Some(entry) if entry.shape == Shape::Stack && entry.canonical.first() != Some(&suffix) => return Ok(None),
            Some(entry) => (entry.stored, entry.shape, self.assembly(entry, prefix)?),
        };
        Ok(Some(OutputTensor {
            name: format!("{prefix}{stored}"),
            shape: self.shape(shape, assembly.parts.len())?,
            encoding: choice.encoding,
            reason: choice.reason.clone(),
            offset: 0,
            bytes: 0,
            assembly,
            planes: Vec::new(),
        }))
    }

    fn assembly(&self, entry: &Entry, prefix: &str) -> Result<Assembly, GgmlError> {
        let sizes = &self.model.hyperparameters;
        let assembly = Assembly::of(self.index).with_form(entry.form);
        Ok(match entry.shape {
            Shape::Same | Shape::Squeezed | Shape::PerHead => assembly,
            Shape::Transposed => assembly.transposed(),
            Shape::PerChannel if self.spec.elements() == u64::try_from(sizes.heads).unwrap_or(0) => assembly.repeated(sizes.head_size),
            Shape::PerChannel => assembly,
            Shape::Stack => Assembly::stack(self.parts(entry, prefix)?),
        })
    }

    fn parts(&self, entry: &Entry, prefix: &str) -> Result<Vec<usize>, GgmlError> {
        let mut parts = Vec::new();
        for suffix in entry.canonical {
            let name = format!("{prefix}{suffix}");
            let index = self.model.find_index(&name);
            let index = index.ok_or_else(|| GgmlError::MissingTensor { name: name.clone(), hint: String::new() })?;
            let encoding = |index: usize| self.choices.get(index).map(|choice| choice.encoding);
            if encoding(index) != encoding(self.index) {
                let encoding = encoding(index).map_or("", |encoding| encoding.name);
                return Err(GgmlError::EncodingNotAllowed {
                    tensor: name,
                    encoding,
                    why: "its neighbours in one tensor differ".to_owned(),
                });
            }
            parts.push(index);
        }
        Ok(parts)
    }

    fn shape(&self, shape: Shape, parts: usize) -> Result<Vec<u64>, GgmlError> {
        let dims = &self.spec.shape;
        let size = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        let sizes = &self.model.hyperparameters;
        Ok(match (shape, dims.as_slice()) {
            (Shape::Same, _) => dims.clone(),
            (Shape::Squeezed, _) if dims.iter().all(|dim| *dim == 1) => vec![1],
            (Shape::Squeezed, _) => dims.iter().copied().filter(|dim| *dim != 1).collect(),
            (Shape::Transposed, [outer @ .., rows, columns]) => [outer, &[*columns, *rows]].concat(),
            (Shape::Transposed, _) => return Err(GgmlError::Internal("only matrices can be transposed".to_owned())),
            (Shape::PerHead, _) => vec![size(sizes.heads), 1, 1],
            (Shape::PerChannel, _) => vec![size(sizes.heads), size(sizes.head_size), 1],
            (Shape::Stack, _) => vec![size(parts), 1, self.spec.elements()],
        })
    }
}

fn check_choice(spec: &TensorSpec, choice: &Choice) -> Result<(), GgmlError> {
    let encoding = choice.encoding;
    constraint(spec).refuses(encoding).map_or(Ok(()), |why| Err(not_allowed(&spec.name, encoding, why)))
}

fn not_allowed(tensor: &str, encoding: Encoding, why: &str) -> GgmlError {
    GgmlError::EncodingNotAllowed { tensor: tensor.into(), encoding: encoding.name, why: why.into() }
}

fn add(a: u64, b: u64) -> Result<u64, GgmlError> {
    a.checked_add(b).ok_or_else(|| GgmlError::Internal("the file would exceed 64 bits".to_owned()))
}

/// The encoding of most elements of the layers' matrices; the first of equals.
fn main_encoding(model: &ModelDescription, choices: &[Choice]) -> Encoding {
    let mut totals: Vec<(Encoding, u64)> = Vec::new();
    for (spec, choice) in model.tensors.iter().zip(choices).filter(|(spec, _)| spec.role.is_matrix() && spec.layer.is_some()) {
        match totals.iter_mut().find(|(encoding, _)| *encoding == choice.encoding) {
            Some((_, total)) => *total = total.saturating_add(spec.elements()),
            None => totals.push((choice.encoding, spec.elements())),
        }
    }
    let most = totals.iter().map(|(_, total)| *total).max();
    totals.iter().find(|(_, total)| Some(*total) == most).map_or(Encoding::F32, |(encoding, _)| *encoding)
}
