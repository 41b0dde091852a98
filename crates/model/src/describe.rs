//! From names and shapes to a [`ModelDescription`]: which version, which sizes, and nothing missing or left over.

use std::collections::BTreeSet;

use rwkv_forge_tensor::{BoxError, TensorInfo};

use crate::architecture::{ARCHITECTURES, Architecture, BEFORE_LAYERS, Common, Expected, HYBRID_MARKERS, HYBRIDS, Presence};
use crate::description::ModelDescription;
use crate::error::{LISTED_NAMES, MISSING_COUNTED, ModelError};
use crate::found::{Entry, Found, LayerEvidence};
use crate::mechanism::{Attention, Mechanisms, Norm, NormKind, Norms, TimeMix, VocabularyFamily};
use crate::names::{Companions, Convention, Wrapping};
use crate::relatives;
use crate::sizes::{Configuration, Hyperparameters, LoraRanks};
use crate::start;
use crate::tensor::{MappedTensor, ModelFile, TensorRole, TensorSpec};
use crate::version::Version;

/// Rows by token.
const EMBEDDING: &str = "emb.weight";
/// What gives the logits.
const HEAD: &str = "head.weight";
/// What every model has behind its layers.
const LAST_NORM: &str = "ln_out.weight";

/// Recognises a model from the names and shapes of its tensors, in any of the supported naming conventions and in any
/// order.
///
/// ```
/// use rwkv_forge_model::{TensorRole, describe};
/// use rwkv_forge_tensor::TensorSource;
///
/// # let checkpoint = rwkv_forge_testkit::models::random_model(rwkv_forge_model::Version::V7, &rwkv_forge_testkit::models::Sizes::TINY, 1);
/// // `checkpoint` is any open file with the names that trainers save, as `rwkv_forge_checkpoint::open` returns it.
/// let model = describe(checkpoint.tensors())?;
/// assert_eq!(model.version.to_string(), "RWKV-7");
/// assert_eq!((model.hyperparameters.layers, model.hyperparameters.channels), (2, 32));
/// assert_eq!(model.find("blocks.1.att.key.weight").map(|spec| spec.role), Some(TensorRole::AttKey));
///
/// // Half a model is none.
/// assert!(describe(&checkpoint.tensors()[1..]).is_err());
/// # Ok::<(), rwkv_forge_model::ModelError>(())
/// ```
///
/// # Errors
/// A [`ModelError`] that names the tensor at fault. A description is given only for a complete and consistent model
/// in which every tensor is accounted for.
pub fn describe(infos: &[TensorInfo]) -> Result<ModelDescription, ModelError> {
    describe_with(infos, &Configuration::default())
}

/// As [`describe`], with what a `config.json` says about a hybrid.
///
/// # Errors
/// As [`describe`]; [`ModelError::ConfigurationNeeded`] when a hybrid's configuration lacks something.
pub fn describe_with(infos: &[TensorInfo], configuration: &Configuration) -> Result<ModelDescription, ModelError> {
    describe_all(infos, map_by_convention(infos)?, configuration, true)
}

/// The model in a file.
///
/// # Errors
/// As [`describe_with`], and those of the file's names and configuration.
pub fn describe_file(file: &dyn ModelFile) -> Result<ModelDescription, BoxError> {
    Ok(describe_all(file.tensors(), file.mapped()?, &file.configuration()?, file.may_lack_head())?)
}

/// The canonical names of tensors whose own names say whose conventions they follow.
///
/// # Errors
/// A [`ModelError`] for the names of other models, and for those that are none of any convention.
pub fn map_by_convention(infos: &[TensorInfo]) -> Result<Vec<MappedTensor>, ModelError> {
    relatives::refuse_several_adapters(infos)?;
    let infos = &*Wrapping::of(infos).unwrapped(infos);
    relatives::refuse(infos)?;
    Convention::detect(infos)?.map(infos)
}

/// As [`describe`], for containers that translate their names themselves. Tensors of `infos` that `mapped` does not
/// mention count as unknown and are refused.
///
/// `r_k` of RWKV-7 must come as `[heads, head size]`, from which the head size is read: a container that stores it
/// flat gives that shape in `infos` from its own metadata.
///
/// # Errors
/// As [`describe`].
pub fn describe_mapped(infos: &[TensorInfo], mapped: Vec<MappedTensor>) -> Result<ModelDescription, ModelError> {
    describe_mapped_with(infos, mapped, &Configuration::default())
}

/// As [`describe_mapped`], with what a container's metadata say about a hybrid.
///
/// # Errors
/// As [`describe_with`].
pub fn describe_mapped_with(
    infos: &[TensorInfo],
    mapped: Vec<MappedTensor>,
    configuration: &Configuration,
) -> Result<ModelDescription, ModelError> {
    describe_all(infos, mapped, configuration, false)
}

/// As [`describe_mapped_with`]; the head may be missing where the container says of itself that it is complete.
fn describe_all(
    infos: &[TensorInfo],
    mapped: Vec<MappedTensor>,
    configuration: &Configuration,
    may_lack_head: bool,
) -> Result<ModelDescription, ModelError> {
    let mapped = if configuration.tied_head { tied(mapped) } else { mapped };
    let found = Found::new(infos, &mapped)?;
    let not_rwkv = || ModelError::NotRwkv { tensors: infos.len(), example: infos.first().map(|info| info.name.clone()) };
    let architecture = recognise(&found)?.ok_or_else(not_rwkv)?;
    let layers = count_layers(&found)?;
    // Of the hybrids with Qwen there are no models of that kind.
    let may_lack_head = may_lack_head && architecture.vocabulary == VocabularyFamily::World;
    let is_needed = |wanted: &Wanted| !(may_lack_head && wanted.row.role == TensorRole::Head);
    check_complete(architecture.version, &found, wanted(architecture, &found, layers).filter(is_needed))?;
    let all: Vec<Wanted> = wanted(architecture, &found, layers).collect();
    let unused = account_for_all(architecture, infos, &mapped, &found, &all)?;
    let (hyperparameters, mechanisms) = resolve(architecture, &found, layers, configuration)?;
    let mut tensors = Vec::with_capacity(all.len());
    for wanted in &all {
        if let Some(entry) = found.entry(&wanted.name) {
            tensors.push(specify(architecture, &hyperparameters, wanted, entry)?);
        }
    }
    for row in architecture.layer_rows().filter(|row| row.presence == Presence::Later) {
        if let Some(entry) = found.entry(&format!("blocks.0.{}", row.suffix)) {
            check_unused_shape(&hyperparameters, mechanisms.time_mix, entry)?;
        }
    }
    let start = start::of_layers(&found, architecture.version, &hyperparameters)?;
    Ok(ModelDescription { version: architecture.version, mechanisms, hyperparameters, tensors, unused, start })
}

/// The tensors of a model whose head is its embedding: what the file has of the two stands for both. A file that has neither gains none.
fn tied(mut mapped: Vec<MappedTensor>) -> Vec<MappedTensor> {
    let find = |name: &str| mapped.iter().find(|tensor| tensor.name == name);
    let copy = match (find(EMBEDDING), find(HEAD)) {
        (Some(embedding), None) => Some(MappedTensor { name: HEAD.to_owned(), ..embedding.clone() }),
        (None, Some(head)) => Some(MappedTensor { name: EMBEDDING.to_owned(), ..head.clone() }),
        (Some(_), Some(_)) | (None, None) => None,
    };
    mapped.extend(copy);
    mapped
}

/// A tensor that the model must have.
struct Wanted {
    name: String,
    layer: Option<usize>,
    row: &'static Expected,
}

/// The one version that the layers speak for.
fn recognise(found: &Found<'_>) -> Result<Option<&'static Architecture>, ModelError> {
    let decay = found.layers().keys().find_map(|layer| found.shape(&format!("blocks.{layer}.att.time_decay")));
    let channels = found.shape("emb.weight").and_then(<[u64]>::last).copied().unwrap_or(0);
    let hybrid = found.layers().values().any(|suffixes| HYBRID_MARKERS.iter().any(|marker| suffixes.contains(marker)));
    let architectures = if hybrid { HYBRIDS } else { ARCHITECTURES };
    let mut chosen: Option<(&'static Architecture, String)> = None;
    for (layer, suffixes) in found.layers() {
        let evidence = LayerEvidence { suffixes, decay_shape: decay, channels };
        for architecture in architectures.iter().copied() {
            let Some(suffix) = (architecture.recognise)(&evidence) else { continue };
            let witness = format!("blocks.{layer}.{suffix}");
            match &chosen {
                None => chosen = Some((architecture, witness)),
                Some((first, _)) if first.version == architecture.version => {}
                Some((first, first_witness)) => {
                    return Err(ModelError::AmbiguousVersion {
                        first: first.version,
                        first_witness: first_witness.clone(),
                        second: architecture.version,
                        second_witness: witness,
                    });
                }
            }
        }
    }
    Ok(chosen.map(|(architecture, _)| architecture))
}

/// L. Layer numbers come from names, so they are compared with the layers that are there and never counted up to.
fn count_layers(found: &Found<'_>) -> Result<usize, ModelError> {
    refuse_stray_layers(found)?;
    let layers = found.layers();
    let highest = layers.keys().next_back().copied().unwrap_or(0);
    match (0u32..).zip(layers.keys()).find(|(expected, layer)| expected != *layer) {
        Some((missing, _)) => Err(ModelError::MissingLayer { layer: u64::from(missing), highest: u64::from(highest) }),
        None => Ok(layers.len()),
    }
}

/// Refuses layers above all others that have less than half of what each of those has: no download breaks off like this, but where a
/// format has no end of its own. There what follows the layers is missing, too.
fn refuse_stray_layers(found: &Found<'_>) -> Result<(), ModelError> {
    let layers = found.layers();
    if found.entry(LAST_NORM).is_none() {
        return Ok(());
    }
    let Some(first) = layers.get(&0).map(BTreeSet::len) else { return Ok(()) };
    let is_stray = |count: usize| count.saturating_mul(2) < first;
    let below = layers.values().take_while(|suffixes| !is_stray(suffixes.len())).count();
    let are_numbered = (0u32..).zip(layers.keys()).take(below).all(|(expected, layer)| expected == *layer);
    if below == 0 || !are_numbered || !layers.values().skip(below).all(|suffixes| is_stray(suffixes.len())) {
        return Ok(());
    }
    let Some((layer, suffixes)) = layers.iter().nth(below) else { return Ok(()) };
    let each = layers.values().take(below).map(BTreeSet::len).min().unwrap_or(first);
    let example = format!("blocks.{layer}.{}", suffixes.iter().next().copied().unwrap_or_default());
    Err(ModelError::StrayLayer { layer: *layer, tensors: suffixes.len(), example, below, each })
}

/// All tensors of a complete model of this many layers, in canonical order. Made one by one: a hostile file can have
/// so many nearly empty layers that the list of what they lack would not fit in memory.
fn wanted(architecture: &'static Architecture, found: &Found<'_>, layers: usize) -> impl Iterator<Item = Wanted> {
    let outside = |row: &'static Expected| Wanted { name: row.suffix.to_owned(), layer: None, row };
    let rows: Vec<(&'static Expected, &'static str)> =
        architecture.layer_rows().filter(|row| is_there(row, found)).map(|row| (row, row.chosen_suffix(found))).collect();
    let of_layer = move |layer: usize| {
        let required = rows.clone().into_iter().filter(move |(row, _)| row.presence.requires(layer));
        required.map(move |(row, suffix)| Wanted { name: format!("blocks.{layer}.{suffix}"), layer: Some(layer), row })
    };
    BEFORE_LAYERS.iter().map(outside).chain((0..layers).flat_map(of_layer)).chain(architecture.after_layers.iter().map(outside))
}

/// False for a tensor that this model has in no layer, as it may.
fn is_there(row: &Expected, found: &Found<'_>) -> bool {
    match row.presence {
        Presence::Together(names) => names.iter().any(|name| found.has_in_a_layer(name)),
        Presence::First | Presence::Every | Presence::Later => true,
    }
}

fn check_complete(version: Version, found: &Found<'_>, wanted: impl Iterator<Item = Wanted>) -> Result<(), ModelError> {
    let mut missing = wanted.filter(|wanted| found.entry(&wanted.name).is_none());
    match missing.next() {
        Some(Wanted { name, layer, .. }) => {
            Err(ModelError::MissingTensor { name, layer, version, more: missing.take(MISSING_COUNTED).count() })
        }
        None => Ok(()),
    }
}

/// Every tensor of the file is wanted, or is one that layer 0 may have in vain. Gives the source indices of the
/// latter.
fn account_for_all(
    architecture: &Architecture,
    infos: &[TensorInfo],
    mapped: &[MappedTensor],
    found: &Found<'_>,
    wanted: &[Wanted],
) -> Result<Vec<usize>, ModelError> {
    let names: BTreeSet<&str> = wanted.iter().map(|wanted| wanted.name.as_str()).collect();
    let in_vain: BTreeSet<String> =
        architecture.layer_rows().filter(|row| row.presence == Presence::Later).map(|row| format!("blocks.0.{}", row.suffix)).collect();
    let mut unknown: BTreeSet<usize> = (0..infos.len()).collect();
    for tensor in mapped {
        unknown.remove(&tensor.source_index);
    }
    let mut unused = BTreeSet::new();
    let is_start = |entry: &&Entry<'_>| start::is_start(architecture.version, &entry.mapped.name);
    for entry in found.entries().filter(|entry| !names.contains(entry.mapped.name.as_str()) && !is_start(entry)) {
        let set = if in_vain.contains(&entry.mapped.name) { &mut unused } else { &mut unknown };
        set.insert(entry.mapped.source_index);
    }
    if !unknown.is_empty() {
        let companions = Companions::of(&Wrapping::of(infos));
        unknown.retain(|index| infos.get(*index).is_none_or(|info| companions.kind(&info.name).is_none()));
    }
    if unknown.is_empty() {
        return Ok(unused.into_iter().collect());
    }
    let all: Vec<String> = unknown.iter().filter_map(|index| infos.get(*index)).map(|info| info.name.clone()).collect();
    let hint = relatives::explain(&all);
    let names = all.iter().take(LISTED_NAMES).cloned().collect();
    Err(ModelError::UnknownTensor { names, total: all.len(), version: architecture.version, hint })
}

fn resolve(
    architecture: &Architecture,
    found: &Found<'_>,
    layers: usize,
    configuration: &Configuration,
) -> Result<(Hyperparameters, Mechanisms), ModelError> {
    let version = architecture.version;
    let norm = match (architecture.norm, configuration.rms_epsilon) {
        (NormKind::Layer, _) => Norm::Layer,
        (NormKind::Rms, Some(epsilon)) => Norm::Rms { epsilon },
        (NormKind::Rms, None) => {
            return Err(ModelError::ConfigurationNeeded { version, what: "epsilon of the RMS norms", key: "rms_norm_eps" });
        }
    };
    let (vocabulary, channels) = found.matrix("emb.weight", "[V, C]")?;
    let ffn_name = architecture.hidden;
    let (ffn, _) = found.matrix(ffn_name, "[F, C]")?;
    let sizes = (architecture.resolve)(found, Common { layers, channels, configuration: *configuration })?;
    let checked = |name: &str, value: u64| {
        usize::try_from(value).map_err(|_| ModelError::UnreadableSize {
            name: name.to_owned(),
            found: found.shape(name).unwrap_or(&[]).to_vec(),
            rule: "it exceeds what this machine can address".to_owned(),
        })
    };
    let channels = checked("emb.weight", channels)?;
    let hyperparameters = Hyperparameters {
        layers,
        channels,
        attention: channels,
        ffn: checked(ffn_name, ffn)?,
        vocabulary: checked("emb.weight", vocabulary)?,
        heads: checked("emb.weight", sizes.heads)?,
        head_size: checked("emb.weight", sizes.head_size)?,
        ranks: LoraRanks { deep: sizes.channel_mix.rank(), kept: sizes.attention.rank(), ..sizes.time_mix.ranks() },
        kv_heads: match sizes.time_mix {
            TimeMix::Qrwkv6 { kv_heads, .. } => Some(kv_heads),
            TimeMix::Wkv4 | TimeMix::Wkv5 { .. } | TimeMix::Wkv6 { .. } | TimeMix::Wkv7 { .. } => None,
        },
        query: match sizes.attention {
            Attention::None => None,
            Attention::Deep { width, .. } => Some(width),
        },
        rms_epsilon: match norm {
            Norm::Layer => None,
            Norm::Rms { epsilon } => Some(epsilon),
        },
    };
    let mechanisms = Mechanisms {
        time_mix: sizes.time_mix,
        time_shift: sizes.time_shift,
        channel_mix: sizes.channel_mix,
        channel_shift: architecture.channel_shift,
        attention: sizes.attention,
        norms: Norms { kind: norm, ln0: architecture.ln0, group: sizes.group_norm },
        vocabulary: architecture.vocabulary,
    };
    Ok((hyperparameters, mechanisms))
}

/// The description of one tensor, its shape checked against the sizes.
fn specify(architecture: &Architecture, sizes: &Hyperparameters, wanted: &Wanted, entry: &Entry<'_>) -> Result<TensorSpec, ModelError> {
    let shape: Vec<u64> = wanted.row.shape.iter().map(|dim| dim.value(sizes)).collect();
    if !same_but_for_ones(&shape, &entry.shape) {
        let symbols: Vec<&str> = wanted.row.shape.iter().map(|dim| dim.symbol()).collect();
        return Err(ModelError::ShapeMismatch {
            name: entry.info.name.clone(),
            found: entry.shape.clone(),
            expected: shape,
            formula: format!("[{}]", symbols.join(", ")),
            origin: origin(architecture),
        });
    }
    Ok(TensorSpec {
        name: wanted.name.clone(),
        shape,
        role: wanted.row.role,
        layer: wanted.layer,
        source_index: entry.mapped.source_index,
        recover: entry.mapped.recover,
    })
}

fn origin(architecture: &Architecture) -> String {
    let common = format!("V and C from emb.weight, F from {}", architecture.hidden);
    match architecture.origin {
        "" => common,
        own => format!("{common}, {own}"),
    }
}

/// Equal once dimensions of size 1 are dropped: vectors are stored as `[C]` by some and `[1, 1, C]` by others.
pub(crate) fn same_but_for_ones(one: &[u64], other: &[u64]) -> bool {
    let sizes = |shape: &[u64]| shape.iter().copied().filter(|dim| *dim != 1).collect::<Vec<_>>();
    sizes(one) == sizes(other)
}

/// What layer 0 stores in vain has no rank to be compared with, but one dimension must still be C.
fn check_unused_shape(sizes: &Hyperparameters, time_mix: TimeMix, entry: &Entry<'_>) -> Result<(), ModelError> {
    let channels = sizes.channels as u64;
    let others = entry.shape.iter().filter(|dim| **dim != 1 && **dim != channels).count();
    if entry.shape.contains(&channels) && others <= 1 {
        return Ok(());
    }
    Err(ModelError::ShapeMismatch {
        name: entry.info.name.clone(),
        found: entry.shape.clone(),
        expected: vec![channels, value_rank(time_mix)],
        formula: "[C, value rank] or its transpose".to_owned(),
        origin: "C from emb.weight (never used in layer 0)".to_owned(),
    })
}

fn value_rank(time_mix: TimeMix) -> u64 {
    match time_mix {
        TimeMix::Wkv7 { value, .. } => value.unwrap_or(0) as u64,
        TimeMix::Wkv4 | TimeMix::Wkv5 { .. } | TimeMix::Wkv6 { .. } | TimeMix::Qrwkv6 { .. } => 0,
    }
}
