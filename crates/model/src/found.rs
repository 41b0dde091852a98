//! The tensors of a file under canonical names: looked up by name, by layer, and with their canonical shapes.

use std::collections::{BTreeMap, BTreeSet};

use rwkv_forge_tensor::{TensorInfo, element_count};

use crate::error::ModelError;
use crate::names::split_layer;
use crate::tensor::{MappedTensor, Recover};

/// Names of one layer, and what else tells versions apart.
pub(crate) struct LayerEvidence<'a> {
    /// Names within the layer: `att.key.weight`.
    pub(crate) suffixes: &'a BTreeSet<&'a str>,
    /// Shape of `att.time_decay` in the lowest layer that has one. One layer speaks for all: a deviating shape
    /// elsewhere is an error in that tensor, not another version.
    pub(crate) decay_shape: Option<&'a [u64]>,
    /// Width of the embedding, 0 when it is missing.
    pub(crate) channels: u64,
}

impl LayerEvidence<'_> {
    /// The first of these names that the layer has.
    pub(crate) fn any(&self, names: &[&'static str]) -> Option<&'static str> {
        names.iter().copied().find(|name| self.suffixes.contains(name))
    }
}

/// A tensor with the shape that it has once recovered.
pub(crate) struct Entry<'a> {
    pub(crate) mapped: &'a MappedTensor,
    pub(crate) info: &'a TensorInfo,
    /// Shape of the recovered tensor.
    pub(crate) shape: Vec<u64>,
}

/// All tensors of a file by canonical name.
pub(crate) struct Found<'a> {
    entries: BTreeMap<&'a str, Entry<'a>>,
    layers: BTreeMap<u32, BTreeSet<&'a str>>,
}

impl<'a> Found<'a> {
    /// Checks names, shapes and encodings one by one and indexes them.
    pub(crate) fn new(infos: &'a [TensorInfo], mapped: &'a [MappedTensor]) -> Result<Self, ModelError> {
        let mut found = Self { entries: BTreeMap::new(), layers: BTreeMap::new() };
        for tensor in mapped {
            let info = infos.get(tensor.source_index).ok_or_else(|| ModelError::BadMapping {
                name: tensor.name.clone(),
                index: tensor.source_index,
                count: infos.len(),
            })?;
            check_storage(info)?;
            let entry = Entry { mapped: tensor, info, shape: recovered_shape(info, tensor.recover)? };
            if let Some(other) = found.entries.insert(&tensor.name, entry) {
                return Err(ModelError::DuplicateTensor {
                    name: tensor.name.clone(),
                    first: other.info.name.clone(),
                    second: info.name.clone(),
                });
            }
            if let Some((layer, suffix)) = split_layer(&tensor.name)? {
                found.layers.entry(layer).or_default().insert(suffix);
            }
        }
        Ok(found)
    }

    pub(crate) fn entry(&self, name: &str) -> Option<&Entry<'a>> {
        self.entries.get(name)
    }

    /// Every tensor, sorted by canonical name.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry<'a>> {
        self.entries.values()
    }

    /// Shape of the canonical tensor as recovered, dimensions of size 1 as the file has them.
    pub(crate) fn shape(&self, name: &str) -> Option<&[u64]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// Layer numbers with the names that each has.
    pub(crate) fn layers(&self) -> &BTreeMap<u32, BTreeSet<&'a str>> {
        &self.layers
    }

    /// True if some layer has a tensor of this name.
    pub(crate) fn has_in_a_layer(&self, suffix: &str) -> bool {
        self.layers.values().any(|suffixes| suffixes.contains(suffix))
    }

    /// A canonical tensor of two dimensions; further dimensions must be of size 1.
    pub(crate) fn matrix(&self, name: &str, meaning: &str) -> Result<(u64, u64), ModelError> {
        let mut dims = self.shape(name).unwrap_or(&[]);
        while let (true, [head @ .., 1]) = (dims.len() > 2, dims) {
            dims = head;
        }
        while let (true, [1, tail @ ..]) = (dims.len() > 2, dims) {
            dims = tail;
        }
        match dims {
            [rows, columns] => Ok((*rows, *columns)),
            _ => Err(ModelError::UnreadableSize {
                name: name.to_owned(),
                found: self.shape(name).unwrap_or(&[]).to_vec(),
                rule: format!("it must have the two dimensions {meaning}"),
            }),
        }
    }
}

/// Refuses what no weight is: scalars, empty tensors, integers, sizes beyond 64 bits.
fn check_storage(info: &TensorInfo) -> Result<(), ModelError> {
    let bad = |why| Err(ModelError::BadShape { name: info.name.clone(), shape: info.shape.clone(), why });
    if info.encoding.is_dense() && !info.encoding.is_float() {
        return Err(ModelError::UnsupportedDtype { name: info.name.clone(), encoding: info.encoding });
    }
    if info.shape.is_empty() {
        return bad("a single number is no weight of any RWKV version; expected at least one dimension");
    }
    if info.shape.contains(&0) {
        return bad("a dimension is 0; expected at least 1 in each");
    }
    if element_count(&info.shape).is_err() {
        return bad("the number of elements does not fit in 64 bits");
    }
    Ok(())
}

/// Shape after taking a part and swapping the last two dimensions.
fn recovered_shape(info: &TensorInfo, recover: Recover) -> Result<Vec<u64>, ModelError> {
    let mut shape = info.shape.clone();
    let (part, of) = recover.part;
    if of != 1 {
        let rows = shape.first_mut();
        match rows.map(|rows| (rows.checked_rem(u64::from(of)), rows)) {
            Some((Some(0), rows)) if part < of => *rows /= u64::from(of),
            _ => {
                return Err(ModelError::BadShape {
                    name: info.name.clone(),
                    shape: info.shape.clone(),
                    why: "it holds several vectors, and its first dimension must be a multiple of their number",
                });
            }
        }
    }
    let (piece, pieces) = recover.columns;
    if pieces != 1 {
        let columns = shape.last_mut();
        match columns.map(|columns| (columns.checked_rem(u64::from(pieces)), columns)) {
            Some((Some(0), columns)) if piece < pieces && of == 1 => *columns /= u64::from(pieces),
            _ => {
                return Err(ModelError::BadShape {
                    name: info.name.clone(),
                    shape: info.shape.clone(),
                    why: "its rows hold several vectors, and its last dimension must be a multiple of their number",
                });
            }
        }
    }
    if let (true, [.., rows, columns]) = (recover.transposed, shape.as_mut_slice()) {
        std::mem::swap(rows, columns);
    }
    Ok(shape)
}
