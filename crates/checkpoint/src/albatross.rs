//! int8 as Albatross and rwkv_lightning read it: matrices of i8 in a checkpoint, and beside each a vector of f16 with the scale of every row,
//! called like it with `_scale`. The same names in safetensors are understood, too.

use std::collections::HashMap;

use rwkv_forge_tensor::{Encoding, TensorInfo, TensorSource, format_shape};

use crate::assembled::{self, Assembled, Parts, Piece, Rule};
use crate::error::{Refusal, Result, refuse};

/// What is added to a matrix's name for that of its scales.
const SCALE: &str = "_scale";

/// The same source, matrices and their scales put together, if it has any.
///
/// # Errors
/// `MissingBuffer` for a matrix without scales beside others with them, `BadBuffer` for scales of another type or number, `UnsupportedKind`
/// for rows that no block divides.
pub(crate) fn join(source: Box<dyn TensorSource>) -> Result<Box<dyn TensorSource>> {
    let by_name: HashMap<&str, usize> = source.tensors().iter().enumerate().map(|(index, info)| (info.name.as_str(), index)).collect();
    let scale_of = |info: &TensorInfo| by_name.get(format!("{}{SCALE}", info.name).as_str()).copied();
    let is_matrix = |info: &TensorInfo| info.encoding == Encoding::I8 && info.shape.len() == 2;
    if !source.tensors().iter().any(|info| is_matrix(info) && scale_of(info).is_some()) {
        return Ok(source);
    }
    let (mut tensors, mut parts) = (Vec::new(), Vec::new());
    for (index, info) in source.tensors().iter().enumerate() {
        let matrix = info.name.strip_suffix(SCALE).and_then(|name| source.tensors().get(*by_name.get(name)?));
        if matrix.is_some_and(is_matrix) {
            continue;
        }
        let (info, of) = match is_matrix(info) {
            true => joined(source.as_ref(), index, info, scale_of(info))?,
            false => (info.clone(), Parts::Whole(index)),
        };
        tensors.push(info);
        parts.push(of);
    }
    let format = match source.format() {
        "torch zip" => "torch zip, int8 by rows (Albatross)",
        "torch legacy" => "torch legacy, int8 by rows (Albatross)",
        _ => "int8 by rows (Albatross)",
    };
    let (metadata, notes) = (source.metadata(), source.notes().to_vec());
    Ok(Box::new(Assembled { source, format, tensors, parts, metadata, notes }))
}

fn joined(source: &dyn TensorSource, codes: usize, info: &TensorInfo, scale: Option<usize>) -> Result<(TensorInfo, Parts)> {
    let (rows, row) = (info.shape.first().copied().unwrap_or(0), info.shape.last().copied().unwrap_or(0));
    let Some((scale, found)) = scale.and_then(|scale| Some((scale, source.tensors().get(scale)?))) else {
        let what = format!(
            "tensor `{}` is int8, but there is no `{}{SCALE}`; make the file anew with Albatross's quantize_int8.py",
            info.name, info.name
        );
        return refuse(Refusal::MissingBuffer, what);
    };
    if found.encoding != Encoding::F16 || ![vec![rows], vec![rows, 1]].contains(&found.shape) {
        let (is, shape) = (found.encoding, format_shape(&found.shape));
        let what =
            format!("tensor `{}` is {is} of {shape}; expected f16 of [{rows}], a number for each row of `{}`", found.name, info.name);
        return refuse(Refusal::BadBuffer, what);
    }
    let shared = Piece::Shared { tensor: scale, bytes: 2, row, group: row, groups: 1, rule: Rule::Scales(Encoding::F16) };
    let (encoding, pieces) = assembled::by_row(&info.name, row, shared, codes, 8)?;
    Ok((TensorInfo { encoding, ..info.clone() }, Parts::Blocks(pieces)))
}
