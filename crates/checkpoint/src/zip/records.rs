//! The single records of a zip archive, decoded field by field.

use rwkv_forge_io::InputFile;

use super::short;
use crate::error::{Refusal, Result, refuse};

/// Reads little-endian numbers from a slice.
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.bytes.split_at_checked(count).ok_or_else(|| short("a record of the zip archive"))?;
        self.bytes = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        // `take` returned exactly N bytes.
        Ok(self.take(N)?.try_into().unwrap_or([0; N]))
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }
}

const FLAG_DESCRIPTOR: u16 = 1 << 3;
const FLAG_UTF8: u16 = 1 << 11;
/// Encryption, strong encryption, hidden headers.
const FLAGS_ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
const MARKER: u32 = 0xffff_ffff;

/// A record of the central directory, which is where sizes and offsets come from.
#[derive(Clone, Debug)]
pub(super) struct Central {
    pub(super) name: String,
    pub(super) flags: u16,
    pub(super) method: u16,
    pub(super) crc: u32,
    pub(super) len: u64,
    pub(super) offset: u64,
    made_by: u16,
    attributes: u32,
}

impl Central {
    pub(super) fn has_descriptor(&self) -> bool {
        self.flags & FLAG_DESCRIPTOR != 0
    }

    pub(super) fn is_directory(&self) -> bool {
        self.attributes & 0x10 != 0
    }

    pub(super) fn is_symlink(&self) -> bool {
        // The upper half is a Unix mode when the record says that it was made on Unix or macOS.
        matches!(self.made_by >> 8, 3 | 19) && (self.attributes >> 16) & 0o17_0000 == 0o12_0000
    }
}

/// Decodes the whole central directory, which must consist of exactly `count` records.
pub(super) fn central_directory(bytes: &[u8], count: u64) -> Result<Vec<Central>> {
    let mut fields = Fields::new(bytes);
    let mut records = Vec::new();
    for _ in 0..count {
        records.push(central(&mut fields)?);
    }
    if !fields.bytes.is_empty() {
        return refuse(Refusal::TrailingData, format!("{} bytes follow the last record of the central directory", fields.bytes.len()));
    }
    Ok(records)
}

fn central(fields: &mut Fields<'_>) -> Result<Central> {
    if fields.take(4)? != b"PK\x01\x02" {
        return refuse(Refusal::BadOffset, "a record of the central directory does not begin with its signature");
    }
    let made_by = fields.u16()?;
    let _needed = fields.u16()?;
    let (flags, method) = (fields.u16()?, fields.u16()?);
    let _time_and_date = fields.u32()?;
    let (crc, packed, len) = (fields.u32()?, fields.u32()?, fields.u32()?);
    let (name_len, extra_len, comment_len) = (fields.u16()?, fields.u16()?, fields.u16()?);
    let (disk, _internal, attributes, offset) = (fields.u16()?, fields.u16()?, fields.u32()?, fields.u32()?);
    let name = name_of(fields.take(usize::from(name_len))?)?;
    let extra = fields.take(usize::from(extra_len))?;
    if comment_len > 0 {
        return refuse(Refusal::TrailingData, format!("the entry `{name}` has a comment; torch never writes one"));
    }
    check_flags(&name, flags)?;
    let mut wide = Wide::find(&name, extra)?;
    let (len, packed) = (wide.widen(len)?, wide.widen(packed)?);
    let offset = wide.widen(offset)?;
    if disk != 0 && disk != 0xffff {
        return refuse(Refusal::BadOffset, format!("the entry `{name}` is on disk {disk}; split archives are not read"));
    }
    if len != packed && method == 0 {
        return refuse(Refusal::HeaderMismatch, format!("the stored entry `{name}` has two sizes, {packed} and {len}"));
    }
    Ok(Central { name, flags, method, crc, len, offset, made_by, attributes })
}

fn name_of(bytes: &[u8]) -> Result<String> {
    match std::str::from_utf8(bytes) {
        Ok(name) => Ok(name.to_owned()),
        Err(_) => refuse(Refusal::BadEntryName, format!("an entry has the name `{}`, which is not UTF-8", bytes.escape_ascii())),
    }
}

fn check_flags(name: &str, flags: u16) -> Result<()> {
    if flags & FLAGS_ENCRYPTED != 0 {
        return refuse(Refusal::Encrypted, format!("the entry `{name}` is encrypted; decrypt the archive first"));
    }
    if flags & !(FLAG_DESCRIPTOR | FLAG_UTF8) != 0 {
        return refuse(Refusal::HeaderMismatch, format!("the entry `{name}` has the flags {flags:#06x}, which a stored entry never has"));
    }
    Ok(())
}

/// The 64-bit values of a Zip64 extra field, used up in their fixed order.
struct Wide<'a> {
    name: &'a str,
    fields: Option<Fields<'a>>,
}

impl<'a> Wide<'a> {
    fn find(name: &'a str, extra: &'a [u8]) -> Result<Self> {
        let mut all = zip64_fields(extra);
        let fields = all.next().map(Fields::new);
        if all.next().is_some() {
            return refuse(Refusal::BadZip64, format!("the entry `{name}` has two Zip64 fields"));
        }
        Ok(Self { name, fields })
    }

    fn widen(&mut self, value: u32) -> Result<u64> {
        if value != MARKER {
            return Ok(u64::from(value));
        }
        let missing = || refuse(Refusal::BadZip64, format!("the entry `{}` refers to a Zip64 value that is not there", self.name));
        match self.fields.as_mut().map(Fields::u64) {
            Some(Ok(value)) => Ok(value),
            _ => missing(),
        }
    }
}

/// Contents of the Zip64 fields among the extra fields. Extra fields that do not parse end the list: they serve as
/// padding, and only a Zip64 field has a meaning here.
fn zip64_fields(extra: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = extra;
    let next = move || -> Option<(u16, &[u8])> {
        let (head, tail) = rest.split_first_chunk::<4>()?;
        let [id_low, id_high, len_low, len_high] = *head;
        let (content, tail) = tail.split_at_checked(usize::from(u16::from_le_bytes([len_low, len_high])))?;
        rest = tail;
        Some((u16::from_le_bytes([id_low, id_high]), content))
    };
    std::iter::from_fn(next).filter(|(id, _)| *id == 1).map(|(_, content)| content)
}

/// What a local header says about its entry.
pub(super) struct Local {
    flags: u16,
    method: u16,
    crc: u32,
    packed: u32,
    len: u32,
    name: Vec<u8>,
    extra: Vec<u8>,
    pub(super) data_start: u64,
}

/// Bytes of a local header before the name.
const LOCAL_BYTES: u64 = 30;

impl Local {
    /// Reads the header of an entry; it must end before the central directory.
    pub(super) fn read(file: &InputFile, record: &Central, directory: u64) -> Result<Self> {
        let name = &record.name;
        let beyond = |at: u64| {
            refuse(Refusal::Overlap, format!("the local header of the entry `{name}` at byte {at} reaches into the central directory"))
        };
        let Some(after) = record.offset.checked_add(LOCAL_BYTES).filter(|after| *after <= directory) else { return beyond(record.offset) };
        let bytes = file.read_vec(record.offset, LOCAL_BYTES, LOCAL_BYTES)?;
        let mut fields = Fields::new(&bytes);
        if fields.take(4)? != b"PK\x03\x04" {
            return refuse(Refusal::BadOffset, format!("no local header at byte {}, where the entry `{name}` should begin", record.offset));
        }
        let _needed = fields.u16()?;
        let (flags, method) = (fields.u16()?, fields.u16()?);
        let _time_and_date = fields.u32()?;
        let (crc, packed, len) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let (name_len, extra_len) = (fields.u16()?, fields.u16()?);
        let variable = u64::from(name_len).saturating_add(u64::from(extra_len));
        let Some(data_start) = after.checked_add(variable).filter(|start| *start <= directory) else { return beyond(record.offset) };
        let mut name = file.read_vec(after, variable, variable)?;
        let extra = name.split_off(usize::from(name_len).min(name.len()));
        Ok(Self { flags, method, crc, packed, len, name, extra, data_start })
    }

    /// Compares with the central record. With a data descriptor the header may leave the values open (zero).
    pub(super) fn agrees_with(&self, record: &Central) -> Result<()> {
        let name = &record.name;
        check_flags(name, self.flags)?;
        let mismatch = |what: &str| {
            refuse(Refusal::HeaderMismatch, format!("local header and central directory disagree about the {what} of the entry `{name}`"))
        };
        if self.name != record.name.as_bytes() {
            return mismatch("name");
        }
        if self.method != 0 {
            return mismatch("method");
        }
        if self.flags != record.flags {
            return mismatch("flags");
        }
        let open = record.has_descriptor();
        if self.crc != record.crc && !(open && self.crc == 0) {
            return mismatch("CRC-32");
        }
        let wide = self.wide_values(name)?;
        let size_agrees = |value: u32| match value {
            MARKER => !wide.is_empty(),
            0 if open => true,
            value => u64::from(value) == record.len,
        };
        if !size_agrees(self.len) || !size_agrees(self.packed) {
            return mismatch("size");
        }
        let size = |value: &u64| *value == record.len || (open && *value == 0);
        let wide_agrees = match wide.as_slice() {
            [] => true,
            [offset] => *offset == record.offset || size(offset),
            [len, packed] => size(len) && size(packed),
            [len, packed, offset] => size(len) && size(packed) && *offset == record.offset,
            _ => false,
        };
        if wide_agrees { Ok(()) } else { mismatch("Zip64 values") }
    }

    fn wide_values(&self, name: &str) -> Result<Vec<u64>> {
        let mut all = zip64_fields(&self.extra);
        let content = all.next().unwrap_or_default();
        if all.next().is_some() || !content.len().is_multiple_of(8) {
            return refuse(Refusal::BadZip64, format!("the local header of the entry `{name}` has a malformed Zip64 field"));
        }
        Ok(content.as_chunks::<8>().0.iter().map(|value| u64::from_le_bytes(*value)).collect())
    }
}

/// Compares a data descriptor, whose form follows from its length: with or without signature, sizes of 4 or 8 bytes.
pub(super) fn descriptor_agrees(bytes: &[u8], record: &Central) -> bool {
    let body = match bytes.len() {
        12 | 20 => bytes,
        16 | 24 => match bytes.strip_prefix(b"PK\x07\x08") {
            Some(body) => body,
            None => return false,
        },
        _ => return false,
    };
    let mut expected = record.crc.to_le_bytes().to_vec();
    for _ in 0..2 {
        match u32::try_from(record.len) {
            Ok(len) if body.len() == 12 => expected.extend(len.to_le_bytes()),
            _ => expected.extend(record.len.to_le_bytes()),
        }
    }
    expected == body
}
