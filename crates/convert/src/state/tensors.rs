//! States as named tensors: alone in a file, or among the weights of a model.

use std::path::Path;

use rwkv_forge_checkpoint::{CheckpointError, Kind, Limits, Purpose, Refusal};
use rwkv_forge_container::{OpenOptions, Place};
use rwkv_forge_io::{Backend, InputFile};
use rwkv_forge_model::names::{StateNames, StatePart};
use rwkv_forge_tensor::{BoxError, Encoding, TensorInfo, TensorSource, decode_dense, format_shape, shorten};
use rwkv_forge_weights::turned;

use super::{FoundState, InitState, LARGEST, StateError, StateFormat, StateSizes, TokenShifts};

/// What names of adapters have, which trainers tune beside a state.
const ADAPTER: [&str; 2] = [".lora_A", ".lora_B"];

/// Reads the state in a file of named tensors, or in what stands under a key of it, in the order of `given` where nothing else says it.
pub(super) fn read(path: &Path, key: Option<&str>, given: Option<StateFormat>) -> Result<FoundState, BoxError> {
    if path.is_dir() {
        return of_model(path, key, "a directory");
    }
    let (kind, source) = open_tensors(path, key)?;
    let names = StateNames::of(source.tensors());
    let others: Vec<&TensorInfo> =
        source.tensors().iter().zip(&names.tensors).filter(|(_, name)| name.is_none()).map(|(info, _)| info).collect();
    let is_adapter = others.iter().all(|info| ADAPTER.iter().any(|part| info.name.contains(part)));
    match others.first() {
        Some(other) if !names.is_some() => {
            let other = format!("the tensor {}", shorten(&other.name));
            // What is no model either is told by what it holds.
            match of_model(path, key, &other) {
                Err(error) if ["NotAState", "NoMatrixState", "StateGrows"].contains(&error.kind()) => Err(error),
                Ok(found) => Ok(found),
                Err(_) => Err(not_a_state(path, other).into()),
            }
        }
        Some(other) if !is_adapter => of_model(path, key, &format!("the tensor {}", shorten(&other.name))),
        _ => {
            // Checksums are cheap here, and a damaged state still writes fluent text.
            source.check_integrity(&|_| ())?;
            let mut found = alone(source.as_ref(), &names, kind, given)?;
            if !others.is_empty() {
                found.notes.push(format!("{} tensors of an adapter are left aside", others.len()));
            }
            Ok(found)
        }
    }
}

fn not_a_state(path: &Path, what: String) -> StateError {
    StateError::NotAState { file: path.to_owned(), what }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "one refusal is told otherwise")]
fn open_tensors(path: &Path, key: Option<&str>) -> Result<(Kind, Box<dyn TensorSource>), BoxError> {
    let opened = rwkv_forge_checkpoint::open_for(path, key, Purpose::State, &Limits::default(), Backend::default());
    opened.map_err(|error| match error {
        CheckpointError::Refused { kind: Refusal::NotACheckpoint, .. } if !is_pointer(path) => {
            BoxError::from(match crate::container::described(path) {
                Some(what) => StateError::OtherFile { file: path.to_owned(), what },
                None => StateError::UnknownFormat { file: path.to_owned() },
            })
        }
        other => other.into(),
    })
}

/// Whether a pointer of Git LFS stands in the file's place, which the reader of checkpoints calls by its name.
fn is_pointer(path: &Path) -> bool {
    const START: u64 = 64;
    let start = InputFile::open(path).and_then(|file| file.read_vec(0, file.len().min(START), START));
    start.is_ok_and(|start| rwkv_forge_io::lfs_pointer(&start).is_some())
}

/// The state that lies among the weights of a model. `other` is what there is besides states.
fn of_model(path: &Path, key: Option<&str>, other: &str) -> Result<FoundState, BoxError> {
    let place = match key {
        Some(key) => Place::of(path).under(key),
        None => Place::of(path),
    };
    // The weights do not matter here.
    let options = OpenOptions { allow_zero_tensors: true, ..OpenOptions::default() };
    let model = match crate::open::open_at(&place, options) {
        // Neither a model nor a state: what is in the way of the state helps more.
        Err(error) if error.kind() == "NotRwkv" => return Err(not_a_state(path, other.to_owned()).into()),
        opened => opened?,
    };
    if model.description().start.is_empty() {
        StateSizes::of(model.description())?;
        return Err(StateError::NoStateInModel { file: path.to_owned(), version: model.description().version }.into());
    }
    model.source().check_integrity(&|_| ())?;
    let notes = vec!["the state was taken out of a model, whose weights are left aside".to_owned()];
    let state = InitState::of_start(&model.model)?;
    let version = Some(model.description().version);
    Ok(FoundState { version, in_model: true, notes, ..FoundState::new(state, StateFormat::Pth) })
}

/// A layer's tensors by their places in the source.
#[derive(Clone, Copy, Default)]
struct Parts {
    matrices: Option<usize>,
    att_shift: Option<usize>,
    ffn_shift: Option<usize>,
}

/// A state that is all that the file holds.
fn alone(source: &dyn TensorSource, names: &StateNames, kind: Kind, given: Option<StateFormat>) -> Result<FoundState, BoxError> {
    let path = source.path();
    // web-rwkv's are f16: in other types they are a trainer's, saved anew.
    let all_f16 = source.tensors().iter().all(|info| info.encoding == Encoding::F16);
    let by_container = if kind.is_torch() || !all_f16 { StateFormat::Pth } else { StateFormat::WebRwkv };
    let format = given.unwrap_or(if names.torch_titan { StateFormat::Pth } else { by_container });
    let parts = parts(source, names)?;
    let sizes = sizes(source, &parts)?;
    check_bytes(source)?;
    let mut layers = Vec::with_capacity(parts.len());
    for index in parts.iter().filter_map(|parts| parts.matrices) {
        let values = read_tensor(source, index)?;
        layers.push(if format == StateFormat::WebRwkv { turned(&values, sizes.head_size) } else { values });
    }
    let mut shifts = Vec::new();
    for (att, ffn) in parts.iter().filter_map(|parts| parts.att_shift.zip(parts.ffn_shift)) {
        shifts.push(TokenShifts { att: read_tensor(source, att)?, ffn: read_tensor(source, ffn)? });
    }
    if !shifts.is_empty() && shifts.len() != parts.len() {
        return Err(not_a_state(path, format!("token shifts of {} of its {} layers", shifts.len(), parts.len())).into());
    }
    let mut notes: Vec<String> = source.notes().iter().cloned().chain(names.note()).collect();
    if given.is_none() && !kind.is_torch() && !names.torch_titan {
        let (what, other) =
            if format == StateFormat::WebRwkv { ("key, value], as web-rwkv's", "pth") } else { ("value, key], as trainers'", "web-rwkv") };
        notes.push(format!("safetensors do not say how matrices of a state lie: they are read as [heads, {what}; `state --from {other}` takes the other order"));
    }
    if names.torch_titan {
        let what = if format == StateFormat::WebRwkv { "key, value" } else { "value, key" };
        notes.push(format!("the names are TorchTitan's, whose file does not say how matrices lie: they are read as [heads, {what}]"));
    }
    Ok(FoundState { notes, ..FoundState::new(InitState { sizes, layers, shifts: Vec::new() }.with_shifts(shifts), format) })
}

/// The tensors of every layer, each there once.
fn parts(source: &dyn TensorSource, names: &StateNames) -> Result<Vec<Parts>, StateError> {
    let count = names.tensors.iter().flatten().filter(|(_, part)| *part == StatePart::Matrices).count();
    let mut layers = vec![Parts::default(); count];
    for (index, (info, name)) in source.tensors().iter().zip(&names.tensors).enumerate() {
        let Some((layer, part)) = *name else { continue };
        let place = layers.get_mut(layer).map(|layer| match part {
            StatePart::Matrices => &mut layer.matrices,
            StatePart::AttShift => &mut layer.att_shift,
            StatePart::FfnShift => &mut layer.ffn_shift,
        });
        match place {
            Some(place @ None) => *place = Some(index),
            Some(Some(_)) => return Err(not_a_state(source.path(), format!("{} twice", shorten(&info.name)))),
            None => return Err(not_a_state(source.path(), format!("{}, but {count} states", shorten(&info.name)))),
        }
    }
    match layers.iter().position(|parts| parts.matrices.is_none()) {
        Some(missing) => Err(not_a_state(source.path(), format!("{count} states, but none of layer {missing}"))),
        None => Ok(layers),
    }
}

/// The sizes that all tensors agree on.
fn sizes(source: &dyn TensorSource, parts: &[Parts]) -> Result<StateSizes, StateError> {
    let infos = source.tensors();
    let wrong =
        |info: &TensorInfo| not_a_state(source.path(), format!("{} of the shape {}", shorten(&info.name), format_shape(&info.shape)));
    let dense = |info: &TensorInfo| [Encoding::F32, Encoding::F16, Encoding::BF16].contains(&info.encoding);
    if let Some(info) = infos.iter().find(|info| !dense(info)) {
        return Err(not_a_state(source.path(), format!("{} as {}", shorten(&info.name), info.encoding)));
    }
    let matrices = |parts: &Parts| parts.matrices.and_then(|index| infos.get(index));
    let Some(first) = parts.first().and_then(matrices) else { return Err(not_a_state(source.path(), "no state".to_owned())) };
    let [heads, rows, columns] = *first.shape.as_slice() else { return Err(wrong(first)) };
    let channels = heads.checked_mul(rows).filter(|_| rows == columns && heads > 0 && rows > 0);
    let Some(channels) = channels else { return Err(wrong(first)) };
    for parts in parts {
        if let Some(info) = matrices(parts).filter(|info| info.shape != first.shape) {
            return Err(wrong(info));
        }
        let shifts = [parts.att_shift, parts.ffn_shift].into_iter().flatten().filter_map(|index| infos.get(index));
        if let Some(info) = shifts.into_iter().find(|info| info.elements().ok() != Some(channels)) {
            return Err(wrong(info));
        }
    }
    let size = |size: u64| usize::try_from(size).map_err(|_| wrong(first));
    Ok(StateSizes { layers: parts.len(), heads: size(heads)?, head_size: size(rows)? })
}

/// Refuses tensors that would take more memory than there are bytes in the file: a stored tensor may repeat its values.
fn check_bytes(source: &dyn TensorSource) -> Result<(), BoxError> {
    let mut stored = 0u64;
    for file in source.files() {
        stored = stored.saturating_add(InputFile::open(&file)?.len());
    }
    let bytes = source.tensors().iter().map(|info| info.byte_len().unwrap_or(u64::MAX)).fold(0, u64::saturating_add);
    if bytes > stored.min(LARGEST) {
        let what = format!("states of {bytes} bytes in {stored} bytes");
        return Err(not_a_state(source.path(), what).into());
    }
    Ok(())
}

/// A whole tensor as f32.
fn read_tensor(source: &dyn TensorSource, index: usize) -> Result<Vec<f32>, BoxError> {
    let info = &source.tensors()[index];
    let bytes = info.byte_len().ok().and_then(|bytes| usize::try_from(bytes).ok());
    let Some(bytes) = bytes else {
        return Err(not_a_state(source.path(), format!("{} of the shape {}", shorten(&info.name), format_shape(&info.shape))).into());
    };
    let mut raw = vec![0; bytes];
    source.read_at(index, 0, &mut raw)?;
    let mut values = Vec::new();
    decode_dense(info.encoding, &raw, &mut values);
    Ok(values)
}
