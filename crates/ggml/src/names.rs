//! From the records of a file to canonical tensors, and the comparison of its header with them. Start at [`mapped`].

use std::collections::BTreeSet;

use rwkv_forge_model::{MappedTensor, Recover};
use rwkv_forge_tensor::{TensorInfo, format_shape};

use crate::error::GgmlError;
use crate::map::{self, Row, Shape};
use crate::records::{Header, Records};

/// The tensors as consumers see them: as stored, but the decay of RWKV-6 `[H, N, 1]` in the shape of the checkpoint,
/// `[1, 1, C]`. The elements and their order are the same.
pub(crate) fn logical_infos(records: &Records) -> Vec<TensorInfo> {
    let mut infos = records.tensors.clone();
    if row_of(&infos).is_some_and(|row| row.decay_in_one) {
        for info in infos.iter_mut().filter(|info| info.name.ends_with(".att.time_decay")) {
            if let Ok(elements) = info.elements() {
                info.shape = vec![1, 1, elements];
            }
        }
    }
    infos
}

/// The row whose forms the file has.
pub(crate) fn row_of(infos: &[TensorInfo]) -> Option<&'static Row> {
    map::row_of(infos.iter().map(|info| info.name.as_str()))
}

/// Every tensor under its canonical name.
///
/// # Errors
/// [`GgmlError::BadShape`], [`GgmlError::MissingTensor`], [`GgmlError::Contradiction`].
pub(crate) fn mapped(header: &Header, infos: &[TensorInfo]) -> Result<Vec<MappedTensor>, GgmlError> {
    check_header(header, infos)?;
    let row = row_of(infos);
    let mut out = Vec::new();
    for (source_index, info) in infos.iter().enumerate() {
        let entry = map::split(&info.name).and_then(|(prefix, suffix)| Some((prefix, row?.by_stored(suffix)?)));
        let Some((prefix, entry)) = entry else {
            out.push(MappedTensor { name: info.name.clone(), source_index, recover: Recover::AS_IS });
            continue;
        };
        let of = u32::try_from(entry.canonical.len()).unwrap_or(u32::MAX);
        if entry.shape == Shape::Stack && info.shape.first() != Some(&u64::from(of)) {
            let problem = format!("{} has shape {}, expected a stack of {of}", info.name, format_shape(&info.shape));
            return Err(GgmlError::BadShape { record: u64::try_from(source_index).unwrap_or(u64::MAX), offset: 0, problem });
        }
        for (part, canonical) in (0u32..).zip(entry.canonical) {
            let recover = Recover { part: (part, of), transposed: entry.shape == Shape::Transposed, form: entry.form, ..Recover::AS_IS };
            out.push(MappedTensor { name: format!("{prefix}{canonical}"), source_index, recover });
        }
    }
    Ok(out)
}

/// The header's sizes are those of the tensors. A file that was cut between two records parses cleanly; here the missing
/// layers show, and what is missing within a layer shows when the model is described.
fn check_header(header: &Header, infos: &[TensorInfo]) -> Result<(), GgmlError> {
    let names: BTreeSet<&str> = infos.iter().map(|info| info.name.as_str()).collect();
    let says = |layers: u64| format!(", though the header says {layers} layers: the file may be cut off");
    let Some(embedding) = infos.iter().find(|info| info.name == "emb.weight") else {
        return Err(GgmlError::MissingTensor { name: "emb.weight".to_owned(), hint: String::new() });
    };
    let sizes = [("rows of the embedding", header.vocabulary), ("channels", header.channels)];
    for ((what, found), expected) in sizes.into_iter().zip(&embedding.shape) {
        if found != *expected {
            return Err(GgmlError::Contradiction { what, found, tensor: embedding.name.clone(), expected: *expected });
        }
    }
    // At most as many steps as there are records: the first layer that is missing ends the search.
    for layer in 0..header.layers {
        let name = format!("blocks.{layer}.ln1.weight");
        if !names.contains(name.as_str()) {
            return Err(GgmlError::MissingTensor { name, hint: says(header.layers) });
        }
    }
    let beyond = format!("blocks.{}.ln1.weight", header.layers);
    if names.contains(beyond.as_str()) {
        let expected = header.layers.saturating_add(1);
        return Err(GgmlError::Contradiction { what: "the number of layers", found: header.layers, tensor: beyond, expected });
    }
    Ok(())
}
