//! `torch.save` before 1.6 (and with `_use_new_zipfile_serialization=False`): a sequence of pickles, then raw storages.
//!
//! Layout: `[magic number] [protocol 1001] [system info] [object] [list of storage keys]`, each a pickle of its own,
//! then for each key in that order `[number of elements: i64] [elements]`. There are no checksums.

use std::collections::HashMap;

use rwkv_forge_io::InputFile;

use crate::error::{Refusal, Result, refuse};
use crate::limits::Limits;
use crate::pickle::{self, Arena, Dtype, Node, Outcome, Rules};
use crate::sniff::legacy_header;
use crate::source::{Bound, Place, TorchFile, bind};
use crate::state_dict::{self, Wanted};

const PLAIN: Rules = Rules { persistent_id: 0, trailing: true };
const OBJECT: Rules = Rules { persistent_id: 6, trailing: true };
/// Bytes that are read at first in search of the pickles' end.
const FIRST_WINDOW: u64 = 1 << 20;

/// Opens a legacy file.
///
/// # Errors
/// The refusals of sections "Pickle" and "Tensor semantics"; `LegacyFormat` for another protocol than 1001,
/// `UnsupportedByteOrder`, `TrailingData`, `Truncated`, `DuplicateEntry`.
pub(crate) fn open(file: InputFile, limits: &Limits, wanted: Wanted<'_>) -> Result<TorchFile> {
    let longest = file.len().min(limits.pickle_bytes);
    let mut window = longest.min(FIRST_WINDOW);
    loop {
        let bytes = file.read_vec(0, window, longest)?;
        let mut notes = Vec::new();
        match read(&file, &bytes, limits, wanted, &mut notes) {
            Ok(bound) => {
                notes.push("this kind of file has no checksums".to_owned());
                return Ok(TorchFile::new(file, "torch legacy", bound, Vec::new(), notes));
            }
            // The fault may only be that the window ends inside of a pickle.
            Err(_) if window < longest => window = window.saturating_mul(8).min(longest),
            Err(error) => return Err(error),
        }
    }
}

/// The bytes of the object's pickle within a window that begins at the first byte of the file.
///
/// # Errors
/// As [`open`], for the pickles before the object.
pub(crate) fn object_pickle<'a>(bytes: &'a [u8], limits: &Limits) -> Result<&'a [u8]> {
    let mut rest = bytes.get(legacy_header(bytes).unwrap_or(0)..).unwrap_or_default();
    let protocol = next(&mut rest, limits, PLAIN)?;
    if protocol.arena.get(protocol.root) != Node::Int(1001) {
        return refuse(
            Refusal::LegacyFormat,
            "the file has another protocol than 1001; load it with the torch that wrote it and save it again",
        );
    }
    let system = next(&mut rest, limits, PLAIN)?;
    check_system(&system.arena, system.root)?;
    Ok(rest)
}

fn read(file: &InputFile, bytes: &[u8], limits: &Limits, wanted: Wanted<'_>, notes: &mut Vec<String>) -> Result<Bound> {
    let mut rest = object_pickle(bytes, limits)?;
    let object = next(&mut rest, limits, OBJECT)?;
    let keys = next(&mut rest, limits, PLAIN)?;
    let data_start = (bytes.len() as u64).saturating_sub(rest.len() as u64);
    let named = state_dict::find(&object.arena, object.root, limits, wanted, notes)?;
    let places = storages(file, data_start, &keys, &object.arena, limits)?;
    let bound = bind(&object.arena, &named, &|key| places.get(key).copied())?;
    notes.extend(bound.note());
    notes.extend(object.ignored.notes());
    Ok(bound)
}

/// Runs the pickle at the beginning of `rest` and steps over it.
fn next<'a>(rest: &mut &'a [u8], limits: &Limits, rules: Rules) -> Result<Outcome<'a>> {
    let outcome = pickle::run(rest, limits, rules)?;
    *rest = rest.get(outcome.consumed..).unwrap_or_default();
    Ok(outcome)
}

fn check_system(arena: &Arena<'_>, root: pickle::Id) -> Result<()> {
    let little = arena.pairs(root).find(|(key, _)| arena.get(*key) == Node::Str("little_endian")).map(|(_, value)| arena.get(value));
    match little {
        Some(Node::Bool(true)) => Ok(()),
        Some(Node::Bool(false)) => {
            let message = "the file was saved on a big-endian machine; load it with torch there and save it on another machine";
            refuse(Refusal::UnsupportedByteOrder, message)
        }
        _ => refuse(Refusal::UnsupportedByteOrder, "the file does not say in which byte order its tensors are"),
    }
}

/// Walks over the storages from `position` to the end of the file.
fn storages<'a>(
    file: &InputFile,
    mut position: u64,
    keys: &Outcome<'a>,
    arena: &Arena<'_>,
    limits: &Limits,
) -> Result<HashMap<&'a str, Place>> {
    if !matches!(keys.arena.get(keys.root), Node::List(_)) {
        return refuse(
            Refusal::BadStorageId,
            format!("the file has {} where the list of storages belongs", keys.arena.get(keys.root).describe()),
        );
    }
    let mut items: HashMap<&str, u64> = HashMap::new();
    for storage in &arena.storages {
        let item = match storage.dtype {
            Dtype::Known(encoding) => u64::from(encoding.block_bytes),
            Dtype::Untyped => 1,
            // The length of such elements is not known here, so what follows cannot be found either.
            Dtype::Unsupported(name) => {
                return refuse(
                    Refusal::UnsupportedDtype,
                    format!("the storage `{}` has the element type {name}; expected floats", storage.key),
                );
            }
        };
        items.insert(storage.key, item);
    }
    let mut places = HashMap::new();
    for child in keys.arena.children(keys.root) {
        let Node::Str(key) = keys.arena.get(*child) else {
            return refuse(Refusal::BadStorageId, "the list of storages contains something that is no string");
        };
        if places.len() >= limits.tensors {
            return refuse(Refusal::TooManyEntries, format!("the file has more than {} storages", limits.tensors));
        }
        let Some(item) = items.get(key) else {
            return refuse(Refusal::StorageSize, format!("the file has a storage `{}` that nothing refers to", key.escape_default()));
        };
        let place = storage(file, position, key, *item)?;
        position = place.start.saturating_add(place.len);
        if places.insert(key, place).is_some() {
            return refuse(Refusal::DuplicateEntry, format!("the file lists the storage `{key}` twice"));
        }
    }
    if position != file.len() {
        let message = format!("{} bytes follow the last storage; torch never writes any", file.len().saturating_sub(position));
        return refuse(Refusal::TrailingData, message);
    }
    Ok(places)
}

/// One storage: its number of elements, then the elements.
fn storage(file: &InputFile, position: u64, key: &str, item: u64) -> Result<Place> {
    let mut count = [0u8; 8];
    let truncated = || {
        refuse(
            Refusal::Truncated,
            format!("the file ends inside of the storage `{key}` at byte {position}; it may be an incomplete download"),
        )
    };
    let Some(start) = position.checked_add(8).filter(|start| *start <= file.len()) else { return truncated() };
    file.read_exact_at(position, &mut count)?;
    let count = i64::from_le_bytes(count);
    let len = u64::try_from(count).ok().and_then(|count| count.checked_mul(item));
    let Some(len) = len else {
        return refuse(Refusal::StorageSize, format!("the storage `{key}` at byte {position} claims {count} elements"));
    };
    match start.checked_add(len) {
        Some(end) if end <= file.len() => Ok(Place { start, len }),
        _ => truncated(),
    }
}
