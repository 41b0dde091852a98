//! llama.cpp's files of states: sessions (`llama_state_load_file`, `--prompt-cache`) and sequences (`llama_state_seq_load_file`, slots of
//! llama-server).
//!
//! | | session | sequence |
//! |---|---|---|
//! | head | u32 `ggsn`, u32 10, u32 number of tokens, the tokens | u32 `ggsq`, u32 3, u32 number of tokens, the tokens |
//! | model | u32 length and name of the architecture | nothing |
//! | cells | u32 1; i32 position, u32 1, i32 0 | u32 1; i32 position, u32 0 |
//! | data | u32 0, u32 layers; for each layer i32 0 (f32), u64 bytes, the token shifts of time mix and channel mix; for each layer i32 0, u64 bytes, the matrices | the same |
//!
//! The position is that of the last token: -1 before the first one. With 0 a file loads, and the first token is refused then.

use std::path::Path;

use rwkv_forge_io::InputFile;
use rwkv_forge_model::Version;
use rwkv_forge_tensor::BoxError;
use rwkv_forge_weights::turned;

use super::cursor::Cursor;
use super::{
    F32_BYTES, FoundState, InitState, LARGEST, MOST_LAYERS, RUNTIMES, Runtime, StateError, StateFormat, StateSizes, TokenShifts, runtime_of,
};

/// `ggsn`, as a number.
pub(super) const SESSION: u32 = 0x6767_736e;
/// `ggsq`, as a number.
pub(super) const SEQUENCE: u32 = 0x6767_7371;
/// The version of session files that llama.cpp loads.
const SESSION_VERSION: u32 = 10;
/// That of sequence files.
const SEQUENCE_VERSION: u32 = 3;
/// Position of the last token, before the first one.
const BEFORE_THE_FIRST: i32 = -1;
/// ggml's number of f32.
const F32: i32 = 0;
/// Longest name of an architecture that is read.
const LONGEST_NAME: u32 = 64;

/// Magic and version of a kind of file.
fn signature(format: StateFormat) -> (u32, u32) {
    if format == StateFormat::LlamaSession { (SESSION, SESSION_VERSION) } else { (SEQUENCE, SEQUENCE_VERSION) }
}

/// How llama.cpp holds states of a version, with its name there.
fn known(version: Version) -> Result<(&'static Runtime, &'static str), StateError> {
    let row = runtime_of(version)?;
    let others = if row.others { "pth or --to web-rwkv" } else { "pth" };
    row.llama.map(|name| (row, name)).ok_or(StateError::NotInLlama { version, others })
}

/// The bytes of a file.
pub(super) fn bytes(state: &InitState, format: StateFormat, version: Version) -> Result<Vec<u8>, StateError> {
    let (row, name) = known(version)?;
    let (magic, number) = signature(format);
    let mut out = Vec::new();
    let word = |out: &mut Vec<u8>, value: u32| out.extend(value.to_le_bytes());
    // Tokens so far.
    [magic, number, 0].into_iter().for_each(|value| word(&mut out, value));
    if format == StateFormat::LlamaSession {
        word(&mut out, u32::try_from(name.len()).unwrap_or(u32::MAX));
        out.extend(name.as_bytes());
    }
    // One cell, of sequence 0 in a session and of whichever it is loaded into else.
    word(&mut out, 1);
    out.extend(BEFORE_THE_FIRST.to_le_bytes());
    if format == StateFormat::LlamaSession {
        word(&mut out, 1);
    }
    word(&mut out, 0);
    // Matrices are not laid out by columns.
    word(&mut out, 0);
    word(&mut out, u32::try_from(state.sizes.layers).unwrap_or(u32::MAX));
    let row_of = |out: &mut Vec<u8>, parts: &[&[f32]]| {
        let values = parts.iter().copied().flatten();
        out.extend(F32.to_le_bytes());
        out.extend((parts.iter().map(|part| part.len() as u64).sum::<u64>() * F32_BYTES).to_le_bytes());
        out.extend(values.flat_map(|value| value.to_le_bytes()));
    };
    let zeros = vec![0.0; state.sizes.channels()];
    for layer in 0..state.sizes.layers {
        match state.shifts.get(layer) {
            Some(shifts) => row_of(&mut out, &[&shifts.att, &shifts.ffn]),
            None => row_of(&mut out, &[&zeros, &zeros]),
        }
    }
    for values in &state.layers {
        match row.key_first {
            true => row_of(&mut out, &[&turned(values, state.sizes.head_size)]),
            false => row_of(&mut out, &[values]),
        }
    }
    Ok(out)
}

/// Reads a session or a sequence that has no tokens yet.
pub(super) fn read(path: &Path, format: StateFormat, version: Option<Version>) -> Result<FoundState, BoxError> {
    let file = InputFile::open(path)?;
    let mut cursor = Cursor::new(&file, format);
    let (magic, number) = signature(format);
    let found = cursor.u32("the magic number")?;
    if found != magic {
        return Err(cursor.bad(format!("it begins with {found:#010x}, expected {magic:#010x}")));
    }
    let found = cursor.u32("the version")?;
    if found != number {
        let what = format!(
            "it has version {found} of llama.cpp's files; version {number} is known: make it anew with `state --to {}`",
            format.name()
        );
        return Err(cursor.bad(what));
    }
    let tokens = cursor.u32("the number of tokens")?;
    if tokens != 0 {
        return Err(StateError::AfterTokens { file: path.to_owned(), tokens: u64::from(tokens) }.into());
    }
    let row = if format == StateFormat::LlamaSession { architecture(&mut cursor, version)? } else { of_hint(format, version)? };
    let position = cell(&mut cursor, format)?;
    let (state, is_shifted) = layers(&mut cursor, row)?;
    if cursor.left() != 0 {
        return Err(cursor.bad(format!("{} bytes follow after the last layer", cursor.left())));
    }
    // Only what was tuned starts before the first token with token shifts.
    if is_shifted && position != BEFORE_THE_FIRST {
        return Err(StateError::AfterTokens { file: path.to_owned(), tokens: u64::from(position.unsigned_abs()) + 1 }.into());
    }
    Ok(FoundState { version: Some(row.version), ..FoundState::new(state, format) })
}

/// The version that a session says.
fn architecture(cursor: &mut Cursor<'_>, version: Option<Version>) -> Result<&'static Runtime, BoxError> {
    let length = cursor.u32("the length of the architecture's name")?;
    if length > LONGEST_NAME {
        return Err(cursor.bad(format!("the name of the architecture would have {length} bytes")));
    }
    let name = cursor.bytes(u64::from(length), "the architecture's name")?;
    let name = String::from_utf8_lossy(&name).into_owned();
    let Some(row) = RUNTIMES.iter().find(|row| row.llama == Some(name.as_str())) else {
        let known: Vec<&str> = RUNTIMES.iter().filter_map(|row| row.llama).collect();
        return Err(
            cursor.bad(format!("it is a state of the architecture {name:?}; tuned states are known of {} alone", known.join(" and ")))
        );
    };
    match version {
        Some(version) if version != row.version => {
            let detail = format!("the state is one of {}, but the model is {version}", row.version);
            Err(StateError::SizeMismatch { file: cursor.path().to_owned(), detail }.into())
        }
        _ => Ok(row),
    }
}

fn of_hint(format: StateFormat, version: Option<Version>) -> Result<&'static Runtime, StateError> {
    let version = version.ok_or(StateError::Unknowable { format: format.name(), missing: "--model-version".to_owned() })?;
    Ok(known(version)?.0)
}

/// The only cell there is: the position of its last token.
fn cell(cursor: &mut Cursor<'_>, format: StateFormat) -> Result<i32, BoxError> {
    let cells = cursor.u32("the number of cells")?;
    if cells != 1 {
        return Err(cursor.bad(format!("it holds the states of {cells} sequences, expected one")));
    }
    let position = cursor.i32("the position")?;
    let sequences = cursor.u32("the number of sequences")?;
    let expected = u32::from(format == StateFormat::LlamaSession);
    if sequences != expected {
        return Err(cursor.bad(format!("its cell belongs to {sequences} sequences, expected {expected}")));
    }
    for _ in 0..sequences {
        cursor.i32("the sequence")?;
    }
    Ok(position)
}

/// All layers, and whether a token shift is another than zero.
fn layers(cursor: &mut Cursor<'_>, row: &Runtime) -> Result<(InitState, bool), BoxError> {
    if cursor.u32("the order of matrices")? != 0 {
        return Err(cursor.bad("its matrices lie by columns, which llama.cpp refuses for recurrent models"));
    }
    let count = u64::from(cursor.u32("the number of layers")?);
    if count == 0 || count > MOST_LAYERS || cursor.left() > LARGEST {
        return Err(cursor.bad(format!("it would have {count} layers in {} bytes", cursor.left())));
    }
    let row_of = |cursor: &mut Cursor<'_>, what: &str| -> Result<Vec<f32>, BoxError> {
        let kind = cursor.i32("the type of a row")?;
        if kind != F32 {
            return Err(cursor.bad(format!("{what} are of ggml's type {kind}, expected {F32} (f32)")));
        }
        let bytes = cursor.u64("the length of a row")?;
        if bytes % F32_BYTES != 0 {
            return Err(cursor.bad(format!("{what} have {bytes} bytes, which is no number of f32")));
        }
        cursor.floats(bytes / F32_BYTES, what)
    };
    let shifts = (0..count).map(|_| row_of(cursor, "token shifts")).collect::<Result<Vec<_>, _>>()?;
    let channels = shifts.first().map_or(0, |row| row.len() / 2);
    let mut layers = Vec::new();
    let mut sizes = None;
    for _ in 0..count {
        let values = row_of(cursor, "matrices")?;
        let own = sizes_of(channels, values.len(), shifts.len()).filter(|own| sizes.is_none_or(|first| first == *own));
        let Some(own) = own else {
            return Err(cursor.bad(format!("{} values of matrices are no state of {channels} channels", values.len())));
        };
        sizes = Some(own);
        layers.push(if row.key_first { turned(&values, own.head_size) } else { values });
    }
    let Some(sizes) = sizes.filter(|_| shifts.iter().all(|row| row.len() == 2 * channels)) else {
        return Err(cursor.bad("its layers have token shifts of several lengths"));
    };
    let of_layer = |row: &Vec<f32>| {
        let (att, ffn) = row.split_at(channels);
        TokenShifts { att: att.to_vec(), ffn: ffn.to_vec() }
    };
    let state = InitState { sizes, layers, shifts: Vec::new() }.with_shifts(shifts.iter().map(of_layer).collect());
    let is_shifted = !state.shifts.is_empty();
    Ok((state, is_shifted))
}

/// Heads of N channels with N x N values each.
fn sizes_of(channels: usize, values: usize, layers: usize) -> Option<StateSizes> {
    let head_size = values.checked_div(channels).filter(|size| *size > 0 && size.checked_mul(channels) == Some(values))?;
    let heads = channels.checked_div(head_size).filter(|heads| heads.checked_mul(head_size) == Some(channels))?;
    Some(StateSizes { layers, heads, head_size })
}
