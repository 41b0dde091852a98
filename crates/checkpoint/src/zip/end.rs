//! The end of an archive: where the central directory is, and that nothing else is there.

use rwkv_forge_io::InputFile;

use super::records::Fields;
use super::short;
use crate::error::{CheckpointError, Refusal, Result, refuse};
use crate::limits::Limits;

const EOCD: &[u8; 4] = b"PK\x05\x06";
const EOCD_BYTES: u64 = 22;
const LOCATOR: &[u8; 4] = b"PK\x06\x07";
const LOCATOR_BYTES: u64 = 20;
const ZIP64: &[u8; 4] = b"PK\x06\x06";
const ZIP64_BYTES: u64 = 56;
/// Bytes of the shortest record of the central directory.
const CENTRAL_BYTES: u64 = 46;

/// Where the central directory lies.
pub(super) struct Directory {
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) entries: u64,
}

/// The fields of the end record, widened.
struct End {
    disks: [u64; 2],
    entries: [u64; 2],
    len: u64,
    start: u64,
}

/// Reads the end records and checks that they follow the central directory without gap.
///
/// # Errors
/// `Truncated`, `TrailingData`, `PrefixData`, `BadZip64`, `BadOffset`, `TooManyEntries`.
pub(super) fn find(file: &InputFile, limits: &Limits) -> Result<Directory> {
    let at = file.len().checked_sub(EOCD_BYTES).ok_or_else(|| short("the zip archive"))?;
    let bytes = file.read_vec(at, EOCD_BYTES, EOCD_BYTES)?;
    if !bytes.starts_with(EOCD) || bytes.get(20..) != Some(&[0, 0]) {
        return Err(diagnose(file)?);
    }
    let mut fields = Fields::new(bytes.get(4..).unwrap_or_default());
    let plain = End {
        disks: [u64::from(fields.u16()?), u64::from(fields.u16()?)],
        entries: [u64::from(fields.u16()?), u64::from(fields.u16()?)],
        len: u64::from(fields.u32()?),
        start: u64::from(fields.u32()?),
    };
    let (end, records_at) = match zip64(file, at)? {
        Some((wide, records_at)) => {
            check_zip64(&plain, &wide)?;
            (wide, records_at)
        }
        None => {
            if plain.start == 0xffff_ffff || plain.len == 0xffff_ffff || plain.entries.contains(&0xffff) {
                return refuse(Refusal::BadZip64, "the end of the zip archive refers to Zip64 records, but there are none");
            }
            (plain, at)
        }
    };
    check(file, &end, records_at, limits)
}

/// The Zip64 end record, if a locator lies before the end record; and where it begins.
fn zip64(file: &InputFile, at: u64) -> Result<Option<(End, u64)>> {
    let Some(locator_at) = at.checked_sub(LOCATOR_BYTES) else { return Ok(None) };
    let locator = file.read_vec(locator_at, LOCATOR_BYTES, LOCATOR_BYTES)?;
    if !locator.starts_with(LOCATOR) {
        return Ok(None);
    }
    let mut fields = Fields::new(locator.get(4..).unwrap_or_default());
    let (disk, offset, disks) = (fields.u32()?, fields.u64()?, fields.u32()?);
    if disk != 0 || disks > 1 {
        return refuse(Refusal::BadOffset, format!("the Zip64 locator names disk {disk} of {disks}; split archives are not read"));
    }
    let Some(record_at) = locator_at.checked_sub(ZIP64_BYTES) else {
        return refuse(Refusal::BadZip64, "there is no room for the Zip64 end record");
    };
    let record = file.read_vec(record_at, ZIP64_BYTES, ZIP64_BYTES)?;
    if !record.starts_with(ZIP64) {
        return refuse(Refusal::BadZip64, format!("no Zip64 end record at byte {record_at}, right before its locator"));
    }
    let mut fields = Fields::new(record.get(4..).unwrap_or_default());
    let size = fields.u64()?;
    if size != 44 {
        return refuse(Refusal::BadZip64, format!("the Zip64 end record has {size} bytes; expected 44"));
    }
    fields.u32()?;
    let end = End {
        disks: [u64::from(fields.u32()?), u64::from(fields.u32()?)],
        entries: [fields.u64()?, fields.u64()?],
        len: fields.u64()?,
        start: fields.u64()?,
    };
    if offset != record_at {
        return Err(shifted(file, record_at, offset, &end)?);
    }
    Ok(Some((end, record_at)))
}

/// The locator points elsewhere: either the whole archive is shifted, or the value is wrong.
fn shifted(file: &InputFile, record_at: u64, offset: u64, end: &End) -> Result<CheckpointError> {
    let consistent = end.start.checked_add(end.len) == Some(offset);
    match record_at.checked_sub(offset) {
        Some(shift) if consistent && shift > 0 => Ok(shift_refusal(file, shift)?),
        _ => {
            let message = format!("the Zip64 locator points to byte {offset}, but the Zip64 end record is at {record_at}");
            Ok(CheckpointError::refused(Refusal::BadZip64, message))
        }
    }
}

/// An archive whose offsets are all too small by `shift`.
fn shift_refusal(file: &InputFile, shift: u64) -> Result<CheckpointError> {
    let head = file.read_vec(0, 4, 4)?;
    if head == b"PK\x03\x04" {
        let message = format!(
            "the file holds more than one zip archive: the last one begins at byte {shift}; readers would disagree about which one counts"
        );
        return Ok(CheckpointError::refused(Refusal::TrailingData, message));
    }
    Ok(CheckpointError::refused(
        Refusal::PrefixData,
        format!("{shift} bytes lie before the zip archive; such a file can be read in two ways"),
    ))
}

/// Every field of the plain end record either says "see Zip64" or agrees.
fn check_zip64(plain: &End, wide: &End) -> Result<()> {
    let agrees = |plain: u64, marker: u64, wide: u64| plain == marker || plain == wide;
    let pairs = [
        (plain.disks[0], 0xffff, wide.disks[0]),
        (plain.disks[1], 0xffff, wide.disks[1]),
        (plain.entries[0], 0xffff, wide.entries[0]),
        (plain.entries[1], 0xffff, wide.entries[1]),
        (plain.len, 0xffff_ffff, wide.len),
        (plain.start, 0xffff_ffff, wide.start),
    ];
    match pairs.into_iter().find(|(plain, marker, wide)| !agrees(*plain, *marker, *wide)) {
        Some((plain, _, wide)) => {
            refuse(Refusal::BadZip64, format!("the end records of the zip archive disagree: {plain} and, in Zip64, {wide}"))
        }
        None => Ok(()),
    }
}

fn check(file: &InputFile, end: &End, records_at: u64, limits: &Limits) -> Result<Directory> {
    if end.disks != [0, 0] {
        return refuse(
            Refusal::BadOffset,
            format!("the zip archive claims to be split over disks ({:?}); split archives are not read", end.disks),
        );
    }
    let [here, entries] = end.entries;
    if entries > limits.zip_entries || entries > end.len.checked_div(CENTRAL_BYTES).unwrap_or(0) {
        let message = format!(
            "the zip archive claims {entries} entries in a central directory of {} bytes; the limit is {}",
            end.len, limits.zip_entries
        );
        return refuse(Refusal::TooManyEntries, message);
    }
    if here != entries {
        return refuse(Refusal::BadOffset, format!("the zip archive claims {here} of {entries} entries on its only disk"));
    }
    let Some(directory_end) = end.start.checked_add(end.len).filter(|directory_end| *directory_end <= file.len()) else {
        let message = format!(
            "the central directory is said to take {} bytes from {}, beyond the end of the file at {}",
            end.len,
            end.start,
            file.len()
        );
        return refuse(Refusal::BadOffset, message);
    };
    if directory_end > records_at {
        let message = format!("the central directory ends at {directory_end}, inside of the end records, which begin at {records_at}");
        return refuse(Refusal::BadOffset, message);
    }
    if end.len > limits.zip_directory_bytes {
        let message = format!("the central directory has {} bytes; the limit is {}", end.len, limits.zip_directory_bytes);
        return refuse(Refusal::TooManyEntries, message);
    }
    let gap = records_at.saturating_sub(directory_end);
    if gap > 0 {
        return Err(gap_refusal(file, end, directory_end, gap)?);
    }
    Ok(Directory { start: end.start, len: end.len, entries })
}

/// Bytes between the central directory and the end records: a second archive, a prefix, or something hidden.
fn gap_refusal(file: &InputFile, end: &End, directory_end: u64, gap: u64) -> Result<CheckpointError> {
    let head = file.read_vec(directory_end, gap.min(4), 4)?;
    let hidden = || format!("{gap} bytes lie between the central directory and the end of the zip archive");
    if head == EOCD || head == ZIP64 {
        return Ok(CheckpointError::refused(Refusal::TrailingData, format!("{}; they look like another archive's end", hidden())));
    }
    // With all offsets too small by the gap, the central directory would be found where the gap ends.
    let moved = end.start.checked_add(gap).filter(|moved| moved.checked_add(4).is_some_and(|end| end <= file.len()));
    match moved.map(|moved| file.read_vec(moved, 4, 4)).transpose()? {
        Some(signature) if signature == b"PK\x01\x02" || end.len == 0 => shift_refusal(file, gap),
        _ => Ok(CheckpointError::refused(Refusal::TrailingData, hidden())),
    }
}

/// The last 22 bytes are no end record without comment: finds out why.
fn diagnose(file: &InputFile) -> Result<CheckpointError> {
    const LONGEST_TAIL: u64 = EOCD_BYTES + 0xffff;
    let tail_len = file.len().min(LONGEST_TAIL);
    let tail = file.read_vec(file.len().saturating_sub(tail_len), tail_len, LONGEST_TAIL)?;
    let found = tail.windows(4).rposition(|window| window == EOCD);
    let after = found
        .and_then(|at| tail.len().checked_sub(at))
        .and_then(|rest| u64::try_from(rest).ok())
        .and_then(|rest| rest.checked_sub(EOCD_BYTES));
    match after {
        Some(bytes) if bytes > 0 => {
            let message =
                format!("{bytes} bytes follow the end of the zip archive (a comment, or something appended); torch never writes any");
            Ok(CheckpointError::refused(Refusal::TrailingData, message))
        }
        Some(_) => Ok(CheckpointError::refused(Refusal::Truncated, "the zip archive announces a comment, but the file ends before it")),
        None => Ok(short("the end of the zip archive")),
    }
}
