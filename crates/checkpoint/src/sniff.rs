//! Tells kinds of files apart by their first bytes.

use crate::error::{Refusal, Result, refuse};

/// The kinds that this crate reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `torch.save` since 1.6.
    TorchZip,
    /// `torch.save` before 1.6.
    TorchLegacy,
    Safetensors,
}

/// Bytes at the start of a file that [`kind_of`] wants to see.
pub(crate) const HEAD_BYTES: u64 = 512;

/// Bytes at the end of a file that [`kind_of`] wants to see: a zip archive's end record.
pub(crate) const TAIL_BYTES: u64 = 22;

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

/// Which reader a file is for. `head` is its beginning, `tail` its last 22 bytes, `len` its length. With `named_safetensors`, a file
/// of no other known kind is taken for safetensors, whose reader can say what is wrong with it.
///
/// # Errors
/// `NotACheckpoint` and `LegacyFormat`, naming what the file looks like; `PrefixData` for a zip archive that does not
/// begin at the first byte.
pub(crate) fn kind_of(head: &[u8], tail: &[u8], len: u64, named_safetensors: bool) -> Result<Kind> {
    if len < 4 {
        let what = if len == 0 { "the file is empty".to_owned() } else { format!("the file has only {len} bytes") };
        return refuse(Refusal::NotACheckpoint, format!("{what}; the download may have failed"));
    }
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
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
    if tail.starts_with(b"PK\x05\x06") {
        return refuse(
            Refusal::PrefixData,
            "a zip archive ends this file, but does not begin at its first byte; such a file can be read in two ways",
        );
    }
    if let Some(what) = name_of(head) {
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

fn name_of(head: &[u8]) -> Option<&'static str> {
    const MAGICS: [(&[u8], &str); 22] = [
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
        (b"\x1f\x8b", "a gzip file: unpack it first"),
        (b"\xfd7zXZ\0", "an xz file: unpack it first"),
        (b"\x28\xb5\x2f\xfd", "a Zstandard file: unpack it first"),
        (b"BZh", "a bzip2 file: unpack it first"),
        (b"Rar!", "a RAR archive: unpack it first"),
        (b"GGUF", "a GGUF file"),
        (b"FUGG", "a byte-swapped GGUF file"),
        (b"fmgg", "an rwkv.cpp (ggml) file"),
        (b"lmgg", "a ggml file"),
        (b"tjgg", "a ggml file"),
        (b"\x89HDF", "an HDF5 file"),
        (b"\x93NUMPY", "a NumPy file"),
        (b"PAR1", "a Parquet file"),
        (b"%PDF", "a PDF document"),
        (b"\x7fELF", "an ELF program"),
        (b"MZ", "a Windows program"),
        (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
        (b"#!", "a script"),
        (b"PK\x07\x08", "a split zip archive"),
        (b"PK", "a damaged zip archive"),
        (b"\x80", "a plain Python pickle without torch's header"),
    ];
    if let Some((_, what)) = MAGICS.into_iter().find(|(magic, _)| head.starts_with(magic) && head.get(8) != Some(&b'{')) {
        return Some(what);
    }
    let text = head.trim_ascii_start();
    let lower: Vec<u8> = text.iter().take(16).map(u8::to_ascii_lowercase).collect();
    if lower.starts_with(b"<!doctype") || lower.starts_with(b"<html") || lower.starts_with(b"<?xml") {
        return Some("an HTML page, perhaps an error message instead of the download");
    }
    // The length of a safetensors header may look like an opening brace, but its upper half is always zero.
    if text.starts_with(b"{") && head.get(4..8) != Some(&[0; 4]) {
        return Some("a JSON text");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Kind, kind_of};

    #[test]
    fn a_header_whose_length_looks_like_text_is_safetensors_all_the_same() {
        for length in [u64::from(b'{'), 0x7b20, 0x7b0a0d] {
            let head = [&length.to_le_bytes()[..], b"{\"emb.weight\":"].concat();
            assert!(matches!(kind_of(&head, &[], 1 << 30, false), Ok(Kind::Safetensors)), "{length:x}");
        }
        for text in [&b"{\"a\": 1, {"[..], b"  {\"abcd\":{}}"] {
            assert!(kind_of(text, &[], 100, false).is_err());
        }
    }
}
