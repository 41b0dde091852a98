//! Packages of rwkv-mobile: `RWKVMBLE`, u32 length and JSON of a configuration, u32 number of files, for each u32 length and name, u64 size,
//! u64 offset, then the files, each at a multiple of 4096. Those of a state are the trainers' tensors in f16, and the configuration says
//! the number of channels.

use std::path::Path;

use rwkv_forge_io::InputFile;
use rwkv_forge_model::TIME_STATE;
use rwkv_forge_tensor::{BoxError, Encoding, decode_dense, shorten};
use serde_json::{Value, json};

use super::cursor::Cursor;
use super::{FoundState, InitState, LARGEST, MOST_LAYERS, StateFormat, StateSizes};

/// First bytes of a package.
pub(super) const MAGIC: &[u8; 8] = b"RWKVMBLE";
/// Files begin at multiples of this.
const ALIGNMENT: u64 = 4096;
/// Longest configuration that is read.
const LONGEST_CONFIGURATION: u32 = 1 << 20;
/// Longest name of a file that is read.
const LONGEST_NAME: u32 = 1024;
/// Bytes of an f16.
const F16_BYTES: u64 = 2;
/// The number of channels.
const CHANNELS: &str = "hidden_size";

/// The header with what else a package says, and where each layer goes.
pub(super) fn header(sizes: StateSizes, said: &[(String, String)]) -> (Vec<u8>, Vec<u64>) {
    let size = sizes.layer() as u64 * F16_BYTES;
    let name = |layer: usize| format!("blocks.{layer}.{TIME_STATE}");
    // As Python's json writes it.
    let said: String = said.iter().map(|(key, value)| format!(", {}: {value}", json!(key))).collect();
    let configuration = format!("{{\"{CHANNELS}\": {}{said}}}", json!(sizes.channels()));
    let table: usize = (0..sizes.layers).map(|layer| 4 + name(layer).len() + 8 + 8).sum();
    let mut offset = (MAGIC.len() + 4 + configuration.len() + 4 + table) as u64;
    let word = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    let mut out = MAGIC.to_vec();
    out.extend(word(configuration.len()));
    out.extend(configuration.as_bytes());
    out.extend(word(sizes.layers));
    let mut offsets = Vec::with_capacity(sizes.layers);
    for layer in 0..sizes.layers {
        offset = offset.next_multiple_of(ALIGNMENT);
        out.extend(word(name(layer).len()));
        out.extend(name(layer).as_bytes());
        out.extend(size.to_le_bytes());
        out.extend(offset.to_le_bytes());
        offsets.push(offset);
        offset += size;
    }
    (out, offsets)
}

/// One file of a package.
struct Entry {
    layer: usize,
    size: u64,
    offset: u64,
}

/// Reads a package with a state.
pub(super) fn read(path: &Path) -> Result<FoundState, BoxError> {
    let file = InputFile::open(path)?;
    let mut cursor = Cursor::new(&file, StateFormat::Rmpack);
    if cursor.bytes(MAGIC.len() as u64, "the magic number")? != MAGIC {
        return Err(cursor.bad("it does not begin with RWKVMBLE"));
    }
    let (channels, package) = configuration(&mut cursor)?;
    let count = u64::from(cursor.u32("the number of files")?);
    if count == 0 || count > MOST_LAYERS {
        return Err(cursor.bad(format!("it holds {count} files, expected one for each layer of a state")));
    }
    let mut entries = (0..count).map(|_| entry(&mut cursor)).collect::<Result<Vec<_>, _>>()?;
    entries.sort_unstable_by_key(|entry| entry.layer);
    let size = entries.first().map_or(0, |entry| entry.size);
    if let Some((expected, entry)) = entries.iter().enumerate().find(|(expected, entry)| *expected != entry.layer || entry.size != size) {
        let what =
            format!("layer {expected} would be blocks.{}.{TIME_STATE} with {} bytes, where the first has {size}", entry.layer, entry.size);
        return Err(cursor.bad(what));
    }
    let fits = |entry: &Entry| entry.offset.checked_add(entry.size).is_some_and(|end| end <= file.len());
    // All of them together as well: several entries may name the same bytes.
    if size.saturating_mul(count) > file.len().min(LARGEST) || !entries.iter().all(fits) {
        return Err(cursor.bad(format!("its {count} files of {size} bytes do not lie within its {} bytes", file.len())));
    }
    let mut offsets: Vec<u64> = entries.iter().map(|entry| entry.offset).collect();
    offsets.sort_unstable();
    if offsets.windows(2).any(|pair| pair.first().zip(pair.last()).is_some_and(|(first, next)| first.saturating_add(size) > *next)) {
        return Err(cursor.bad("some of its files lie over each other"));
    }
    let sizes = sizes_of(channels, size, entries.len());
    let Some(sizes) = sizes else {
        return Err(cursor.bad(format!("{size} bytes are no state of {channels} channels, which its configuration names as {CHANNELS}")));
    };
    let mut layers = Vec::with_capacity(entries.len());
    for entry in entries {
        let mut values = Vec::new();
        decode_dense(Encoding::F16, &file.read_vec(entry.offset, entry.size, LARGEST)?, &mut values);
        layers.push(values);
    }
    let state = InitState { sizes, layers, shifts: Vec::new() };
    let shown: Vec<String> = package.iter().map(|(key, value)| format!("{} = {}", shorten(key), shorten(value))).collect();
    let note = (!shown.is_empty())
        .then(|| format!("the package says for rwkv-mobile alone, and only another .rmpack keeps: {}", shown.join(", ")));
    Ok(FoundState { notes: note.into_iter().collect(), package, ..FoundState::new(state, StateFormat::Rmpack) })
}

/// The number of channels, and whatever else is said: keys, and values as JSON.
fn configuration(cursor: &mut Cursor<'_>) -> Result<(u64, Vec<(String, String)>), BoxError> {
    let length = cursor.u32("the length of the configuration")?;
    if length > LONGEST_CONFIGURATION {
        return Err(cursor.bad(format!("its configuration would have {length} bytes")));
    }
    let text = cursor.bytes(u64::from(length), "the configuration")?;
    let value: Value = serde_json::from_slice(&text).map_err(|error| cursor.bad(format!("its configuration is no JSON: {error}")))?;
    let Some(channels) = value.get(CHANNELS).and_then(Value::as_u64).filter(|channels| *channels > 0) else {
        return Err(cursor.bad(format!("its configuration has no {CHANNELS}, so it is no package of a state")));
    };
    let other = value.as_object().into_iter().flatten().filter(|(key, _)| key.as_str() != CHANNELS);
    Ok((channels, other.map(|(key, value)| (key.clone(), value.to_string())).collect()))
}

fn entry(cursor: &mut Cursor<'_>) -> Result<Entry, BoxError> {
    let length = cursor.u32("the length of a name")?;
    if length > LONGEST_NAME {
        return Err(cursor.bad(format!("the name of a file would have {length} bytes")));
    }
    let name = cursor.bytes(u64::from(length), "the name of a file")?;
    let name = String::from_utf8_lossy(&name).into_owned();
    let size = cursor.u64("the size of a file")?;
    let offset = cursor.u64("the offset of a file")?;
    let digits = name.strip_prefix("blocks.").and_then(|rest| rest.strip_suffix(TIME_STATE)?.strip_suffix('.'));
    match digits.and_then(|digits| digits.parse().ok().filter(|layer: &usize| layer.to_string() == digits)) {
        Some(layer) => Ok(Entry { layer, size, offset }),
        None => Err(cursor.bad(format!(
            "it holds {}, which is no part of a state: packages of models and of anything else belong to rwkv-mobile alone",
            shorten(&name)
        ))),
    }
}

fn sizes_of(channels: u64, bytes: u64, layers: usize) -> Option<StateSizes> {
    let values = bytes.is_multiple_of(F16_BYTES).then_some(bytes / F16_BYTES)?;
    let head_size = values.checked_div(channels).filter(|size| *size > 0 && size.checked_mul(channels) == Some(values))?;
    let heads = channels.checked_div(head_size).filter(|heads| heads.checked_mul(head_size) == Some(channels))?;
    Some(StateSizes { layers, heads: usize::try_from(heads).ok()?, head_size: usize::try_from(head_size).ok()? })
}
