//! Tells kinds of files apart by their first bytes.

use std::path::Path;

use rwkv_forge_container::{Claim, DISTRIBUTED, DISTRIBUTED_SHARDS, Head, looks_like};

use crate::error::{CheckpointError, Refusal, Result, refuse};
use crate::rwkvq::PICKLED;
use crate::safetensors::{INDEX, MAX_HEADER_BYTES, SINGLE};

/// The kinds of files that this crate reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `torch.save` since 1.6.
    TorchZip,
    /// `torch.save` before 1.6.
    TorchLegacy,
    /// safetensors, one file or several.
    Safetensors,
}

impl Kind {
    /// True for both kinds of torch's files.
    #[must_use]
    pub fn is_torch(self) -> bool {
        match self {
            Self::TorchZip | Self::TorchLegacy => true,
            Self::Safetensors => false,
        }
    }
}

/// Whether the name says that a file is an index of shards.
pub(crate) fn is_index_name(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(".index.json"))
}

/// Why a file is refused whose name says what it is, whatever form of pickle is in it. safetensors are looked into by whatever name.
fn by_name(head: &Head) -> Option<CheckpointError> {
    let start = head.start();
    if start.get(8) == Some(&b'{') {
        return None;
    }
    if head.is_named(DISTRIBUTED) {
        return Some(CheckpointError::refused(Refusal::NotACheckpoint, DISTRIBUTED_SHARDS));
    }
    // A dictionary or an object in a pickle of the oldest protocols has no header.
    let is_pickle = is_zip(start) || [b"\x80", b"(", b"}", b"c"].iter().any(|first| start.starts_with(*first));
    (head.is_named(".rwkvq") && is_pickle).then(|| CheckpointError::refused(Refusal::LegacyFormat, PICKLED))
}

/// Whether a file is torch's, or a relative of which the reader says why it is not read.
pub(crate) fn torch_claim(head: &Head) -> Option<Claim> {
    let start = head.start();
    if by_name(head).is_some() || is_zip(start) || legacy_header(start).is_some() {
        return Some(Claim::Bytes);
    }
    // An archive with something before it can be read in two ways: whoever claims the beginning, the end is torch's.
    if head.tail().starts_with(ZIP_END) && !is_tar(start) {
        return Some(Claim::Bytes);
    }
    is_tar(start).then_some(Claim::Relative)
}

/// Whether a file or directory is one of safetensors, or at least called one.
pub(crate) fn safetensors_claim(head: &Head) -> Option<Claim> {
    if head.is_directory() {
        return (head.contains(SINGLE) || head.contains(INDEX)).then_some(Claim::Bytes);
    }
    if is_index_name(head.path()) {
        return Some(Claim::Name);
    }
    if head.len() < 4 || looks_like(head.start()).is_some() || is_tar(head.start()) {
        return None;
    }
    let has_brace = head.start().get(8) == Some(&b'{');
    let length = head.start().first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    match (has_brace, length) {
        (true, Some(length)) if length <= MAX_HEADER_BYTES => Some(Claim::Bytes),
        (true, _) => Some(Claim::Relative),
        (false, _) => head.is_named(".safetensors").then_some(Claim::Name),
    }
}

/// Begins the record at the end of a zip archive.
const ZIP_END: &[u8] = b"PK\x05\x06";

fn is_zip(start: &[u8]) -> bool {
    start.starts_with(b"PK\x03\x04") || start.starts_with(ZIP_END)
}

/// The 80-bit number that begins a legacy file, as LONG1 of 10 bytes.
pub(crate) const LEGACY_MAGIC: [u8; 12] = [0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Bytes of the pickle with the magic number, if the file begins with one.
pub(crate) fn legacy_header(head: &[u8]) -> Option<usize> {
    let frame: &[u8] = &[0x95, 13, 0, 0, 0, 0, 0, 0, 0];
    let (prefix, rest) = head.split_at_checked(2)?;
    let body = match prefix {
        [0x80, 2 | 3] => rest,
        [0x80, 4 | 5] => rest.strip_prefix(frame)?,
        _ => return None,
    };
    let rest = body.strip_prefix(&LEGACY_MAGIC)?.strip_prefix(b".")?;
    head.len().checked_sub(rest.len())
}

/// Which reader a file is for. A file of no other known kind that is called safetensors is taken for it, since its reader can say what is
/// wrong with it.
///
/// # Errors
/// `NotACheckpoint` and `LegacyFormat`, naming what the file looks like or is by its name; `PrefixData` for a zip archive that does not
/// begin at the first byte.
pub(crate) fn kind_of(head: &Head) -> Result<Kind> {
    if let Some(error) = by_name(head) {
        return Err(error);
    }
    kind_of_bytes(head.start(), head.tail(), head.len(), head.path().extension().is_some_and(|extension| extension == "safetensors"))
}

fn kind_of_bytes(head: &[u8], tail: &[u8], len: u64, named_safetensors: bool) -> Result<Kind> {
    if len < 4 {
        let what = if len == 0 { "the file is empty".to_owned() } else { format!("the file has only {len} bytes") };
        return refuse(Refusal::NotACheckpoint, format!("{what}; the download may have failed"));
    }
    if is_zip(head) {
        return Ok(Kind::TorchZip);
    }
    if legacy_header(head).is_some() {
        return Ok(Kind::TorchLegacy);
    }
    if is_tar(head) {
        let message = "this is a tar archive, perhaps a torch file older than 0.1.10; load it with the torch that wrote it and save it \
                       again with torch.save(state_dict, path)";
        return refuse(Refusal::LegacyFormat, message);
    }
    if tail.starts_with(ZIP_END) {
        return refuse(
            Refusal::PrefixData,
            "a zip archive ends this file, but does not begin at its first byte; such a file can be read in two ways",
        );
    }
    if let Some(what) = looks_like(head) {
        return refuse(Refusal::NotACheckpoint, format!("this is {what}; expected a .pth file or safetensors"));
    }
    if head.get(8) == Some(&b'{') || named_safetensors {
        return Ok(Kind::Safetensors);
    }
    let shown: Vec<String> = head.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    refuse(Refusal::NotACheckpoint, format!("the file begins with the bytes {}; expected a .pth file or safetensors", shown.join(" ")))
}

fn is_tar(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
}

#[cfg(test)]
mod tests {
    use super::{Kind, kind_of_bytes};

    #[test]
    fn a_header_whose_length_looks_like_text_is_safetensors_all_the_same() {
        for length in [u64::from(b'{'), 0x7b20, 0x7b0a0d] {
            let head = [&length.to_le_bytes()[..], b"{\"emb.weight\":"].concat();
            assert!(matches!(kind_of_bytes(&head, &[], 1 << 30, false), Ok(Kind::Safetensors)), "{length:x}");
        }
        for text in [&b"{\"a\": 1, {"[..], b"  {\"abcd\":{}}"] {
            assert!(kind_of_bytes(text, &[], 100, false).is_err());
        }
    }
}
