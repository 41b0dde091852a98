//! A reader for the one kind of zip archive that `torch.save` writes: nothing compressed, nothing hidden.
//!
//! Two zip readers can see two different archives in one file. This one accepts a file only when every byte of it is
//! accounted for: local headers, data, data descriptors, central directory and end records follow each other without
//! gap or overlap, and all records agree. Start at [`Archive::open`]; `records` decodes the single records, `end` finds
//! the central directory.

mod end;
mod records;

use std::collections::HashSet;

use rwkv_forge_io::InputFile;

use crate::error::{CheckpointError, Refusal, Result, refuse};
use crate::limits::Limits;
use records::{Central, Local};

/// One stored entry.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Full name, checked.
    pub(crate) name: String,
    /// First byte of the data in the file.
    pub(crate) start: u64,
    /// Bytes of the data.
    pub(crate) len: u64,
    pub(crate) crc: u32,
}

/// All entries, sorted by their place in the file.
#[derive(Debug)]
pub(crate) struct Archive {
    pub(crate) entries: Vec<Entry>,
}

impl Archive {
    /// Reads and checks all records of the archive; no data yet.
    ///
    /// # Errors
    /// The refusals of the zip rules, or [`CheckpointError::Io`].
    pub(crate) fn open(file: &InputFile, limits: &Limits) -> Result<Self> {
        let directory = end::find(file, limits)?;
        let bytes = file.read_vec(directory.start, directory.len, limits.zip_directory_bytes)?;
        let mut central = records::central_directory(&bytes, directory.entries)?;
        // Only a Zip64 field can hold such a size.
        if let Some(record) = central.iter().find(|record| record.len > u64::from(u32::MAX) && record.len > file.len()) {
            let message = format!("the entry `{}` claims {} bytes in a file of {}", record.name, record.len, file.len());
            return refuse(Refusal::BadZip64, message);
        }
        central.sort_by_key(|record| record.offset);
        check_names(&central, limits)?;
        check_methods(&central)?;
        let mut entries = Vec::with_capacity(central.len());
        let mut position = 0u64;
        let mut following = central.iter().skip(1).map(|record| record.offset).chain(std::iter::once(directory.start));
        for record in &central {
            let next = following.next().unwrap_or(directory.start);
            entries.push(locate(file, record, position, next, directory.start)?);
            position = next;
        }
        if position != directory.start {
            let message = format!("{} bytes before the central directory belong to no entry", directory.start.saturating_sub(position));
            return refuse(Refusal::TrailingData, message);
        }
        Ok(Self { entries })
    }

    /// Reads the data of an entry and compares its CRC-32.
    ///
    /// # Errors
    /// `Crc`, `TooLarge`, or [`CheckpointError::Io`].
    pub(crate) fn read(file: &InputFile, entry: &Entry, limit: u64) -> Result<Vec<u8>> {
        if entry.len > limit {
            return refuse(Refusal::TooLarge, format!("the entry `{}` has {} bytes; the limit is {limit}", entry.name, entry.len));
        }
        let bytes = file.read_vec(entry.start, entry.len, limit)?;
        check_crc(entry, crc32fast::hash(&bytes))?;
        Ok(bytes)
    }
}

/// Compares the CRC-32 of an entry's data with the recorded one.
pub(crate) fn check_crc(entry: &Entry, found: u32) -> Result<()> {
    if found == entry.crc {
        return Ok(());
    }
    let message = format!(
        "the CRC-32 of the entry `{}` is {found:08x}, but {:08x} is recorded; the file is damaged (or was saved with torch's CRC-32 switched off): \
         download or save it again",
        entry.name, entry.crc
    );
    refuse(Refusal::Crc, message)
}

/// Finds the data of one entry, which must begin at `position` and be followed by something at `next`.
fn locate(file: &InputFile, record: &Central, position: u64, next: u64, directory: u64) -> Result<Entry> {
    let name = &record.name;
    if record.offset != position {
        if position == 0 {
            let message = format!("{} bytes lie before the first entry; such a file can be read in two ways", record.offset);
            return refuse(Refusal::PrefixData, message);
        }
        return refuse(Refusal::BadOffset, format!("the entry `{name}` begins at {}, expected {position}", record.offset));
    }
    if next <= record.offset {
        return refuse(Refusal::Overlap, format!("two entries begin at byte {}", record.offset));
    }
    let local = Local::read(file, record, directory)?;
    local.agrees_with(record)?;
    let start = local.data_start;
    let Some(data_end) = start.checked_add(record.len).filter(|end| *end <= next) else {
        let message = format!(
            "the entry `{name}` has {} bytes from {start}, which reach beyond {next}, where the next part of the file begins",
            record.len
        );
        return refuse(Refusal::Overlap, message);
    };
    let gap = next.saturating_sub(data_end);
    check_gap(file, record, data_end, gap)?;
    Ok(Entry { name: name.clone(), start, len: record.len, crc: record.crc })
}

/// What lies between the data and the next part: a data descriptor when the flags promise one, else nothing.
fn check_gap(file: &InputFile, record: &Central, at: u64, gap: u64) -> Result<()> {
    let name = &record.name;
    // Writers leave the descriptor out when there are no data.
    if gap == 0 && (!record.has_descriptor() || record.len == 0) {
        return Ok(());
    }
    if !record.has_descriptor() {
        return refuse(Refusal::TrailingData, format!("{gap} bytes after the entry `{name}` belong to nothing"));
    }
    if gap > 24 {
        return refuse(Refusal::TrailingData, format!("{gap} bytes after the entry `{name}`; a data descriptor has 12 to 24"));
    }
    let bytes = file.read_vec(at, gap, 24)?;
    if records::descriptor_agrees(&bytes, record) {
        return Ok(());
    }
    refuse(
        Refusal::HeaderMismatch,
        format!("the data descriptor of the entry `{name}` contradicts the central directory; the file is damaged"),
    )
}

/// Refuses TorchScript programs and, after them, compressed entries: a program's code is compressed, but that is not
/// what its owner needs to hear.
fn check_methods(central: &[Central]) -> Result<()> {
    let is_code = |record: &&Central| {
        let inner = record.name.split_once('/').map_or("", |(_, inner)| inner);
        matches!(inner, "constants.pkl" | "bytecode.pkl") || inner.starts_with("code/")
    };
    if let Some(record) = central.iter().find(is_code) {
        let message =
            format!("`{}` shows that this is a TorchScript program; save the state dict of the original model instead", record.name);
        return refuse(Refusal::TorchScript, message);
    }
    match central.iter().find(|record| record.method != 0) {
        Some(record) => {
            let message = format!(
                "the entry `{}` is compressed (method {}); torch stores everything plain: unpack the archive and save it again with torch",
                record.name, record.method
            );
            refuse(Refusal::CompressedEntry, message)
        }
        None => Ok(()),
    }
}

fn check_names(central: &[Central], limits: &Limits) -> Result<()> {
    let mut seen = HashSet::new();
    for record in central {
        let name = record.name.as_str();
        if let Some(fault) = name_fault(name, record, limits) {
            let shown: String = name.chars().take(80).collect();
            return refuse(Refusal::BadEntryName, format!("the entry `{}` {fault}; torch never writes that", shown.escape_default()));
        }
        if !seen.insert(name) {
            return refuse(
                Refusal::DuplicateEntry,
                format!("two entries are named `{name}`; readers would disagree about which one counts"),
            );
        }
    }
    Ok(())
}

fn name_fault(name: &str, record: &Central, limits: &Limits) -> Option<&'static str> {
    if name.is_empty() {
        Some("has an empty name")
    } else if name.len() > limits.zip_name_bytes {
        Some("has a name that is too long")
    } else if name.chars().any(char::is_control) {
        Some("has a name with control characters")
    } else if name.contains('\\') {
        Some("has a backslash in its name")
    } else if name.ends_with('/') || record.is_directory() {
        Some("is a directory")
    } else if record.is_symlink() {
        Some("is a symbolic link")
    } else if name.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        Some("has an absolute or relative path as its name")
    } else {
        None
    }
}

/// The refusal for a record that ends too early.
fn short(what: &str) -> CheckpointError {
    CheckpointError::refused(Refusal::Truncated, format!("{what} is cut off; the file may be an incomplete download"))
}
