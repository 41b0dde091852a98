//! Models with a tuned initial state among their weights: read, computed, taken out, kept, or written beside.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test support may fail loudly; the numbers in it are small")]

use std::path::{Path, PathBuf};

use crate::common::{Temp, decided, write_safetensors};
use rwkv_forge_convert::container::{CONTAINERS, by_name};
use rwkv_forge_convert::recipe::Recipe;
use rwkv_forge_convert::state::{InitState, StateFormat, StateHints, StateSizes, find, read};
use rwkv_forge_convert::{
    ConvertOptions, OpenModel, OpenOptions, Record, Stage, VerifyOptions, Vocabulary, convert, open, start_beside, starting_like,
};
use rwkv_forge_eval::{Kernel, LogitsSink, PassOptions, Runnable, Thresholds, logits};
use rwkv_forge_model::Version;
use rwkv_forge_tensor::{BoxError, Encoding};
use rwkv_forge_testkit::models::{MemorySource, Sizes, encode, random_model};
use rwkv_forge_weights::Model;

const TUNED: [Version; 5] = [Version::V5_0, Version::V5_1, Version::V5_2, Version::V6, Version::V7];

/// Value i of a layer; exact in every type.
fn value(layer: usize, index: usize) -> f32 {
    ((index * 7 + layer * 3) % 31) as f32 / 8.0 - 1.5
}

fn state() -> InitState {
    let sizes = StateSizes { layers: 2, heads: 4, head_size: 8 };
    let layer = |layer: usize| (0..256).map(|index| value(layer, index)).collect();
    InitState { sizes, layers: (0..2).map(layer).collect(), shifts: Vec::new() }
}

/// A model, and the same with `state` among its weights.
fn with_states(version: Version, encoding: Encoding, layers: &[usize]) -> [MemorySource; 2] {
    let bare = random_model(version, &Sizes::TINY, 3);
    let states = layers.iter().map(|layer| {
        let values: Vec<f32> = (0..256).map(|index| value(*layer, index)).collect();
        (format!("blocks.{layer}.att.time_state"), vec![4, 8, 8], encoding, encode(encoding, &values))
    });
    let states = MemorySource::new(states.collect()).into_tensors();
    let both = bare.clone().into_tensors().into_iter().chain(states);
    [bare, MemorySource::from_tensors(both)]
}

fn opened(source: &MemorySource) -> (Temp, OpenModel) {
    let file = Temp::safetensors(source);
    let model = open(&file.0, OpenOptions::default()).unwrap();
    (file, model)
}

#[derive(Default)]
struct Rows(Vec<f32>);

impl LogitsSink for Rows {
    fn logits(&mut self, _: usize, row: &[f32]) -> std::io::Result<()> {
        self.0.extend_from_slice(row);
        Ok(())
    }
}

fn computed(model: &Model, kernel: Kernel) -> Vec<f32> {
    let tokens: Vec<u32> = (0..11).map(|index| index * 13 % 40).collect();
    let mut rows = Rows::default();
    let options = PassOptions { kernel, ..PassOptions::default() };
    logits(Runnable::new(model), &tokens, &options, &mut rows, &mut |_| ()).unwrap();
    rows.0
}

#[test]
fn a_state_among_the_weights_is_where_texts_start() {
    for version in TUNED {
        for encoding in [Encoding::F32, Encoding::BF16] {
            let [bare, both] = with_states(version, encoding, &[0, 1]);
            let ((_a, bare), (file, both)) = (opened(&bare), opened(&both));
            assert!(both.model.has_start() && both.model.start_is_stored() && !bare.model.has_start());
            // No weight is more than before.
            assert_eq!(both.description().parameters(), bare.description().parameters());
            assert_eq!(InitState::of_start(&both.model).unwrap(), state(), "{version}");
            let given = state().start(&bare.model).unwrap();
            for kernel in [Kernel::Reference, Kernel::Engine] {
                let found = computed(&both.model, kernel);
                assert_eq!(found, computed(&given, kernel), "{version}");
                assert_ne!(found, computed(&bare.model, kernel), "{version}: the state has no effect");
            }
            // `state` takes it out, whatever else the file holds.
            let found = find(&file.0, &StateHints::default()).unwrap();
            assert_eq!((found.state, found.version, found.in_model), (state(), Some(version), true));
        }
    }
}

#[test]
fn models_that_are_compared_start_alike() {
    let [bare, both] = with_states(Version::V6, Encoding::F32, &[0, 1]);
    let ((_a, bare), (_b, both)) = (opened(&bare), opened(&both));
    let started = starting_like(&bare.model, &both.model).unwrap().unwrap();
    assert_eq!(computed(&started, Kernel::Reference), computed(&both.model, Kernel::Reference));
    assert!(starting_like(&both.model, &bare.model).unwrap().is_none(), "it has a state of its own");
    assert!(starting_like(&bare.model, &bare.model).unwrap().is_none(), "zeros and zeros");
    let deeper = Sizes { layers: 3, ..Sizes::TINY };
    let (_c, deeper) = opened(&random_model(Version::V6, &deeper, 3));
    assert!(starting_like(&deeper.model, &both.model).unwrap().is_none(), "of another size");
}

#[test]
fn states_that_fit_no_model_are_refused() {
    let kind = |source: &MemorySource| open(&Temp::safetensors(source).0, OpenOptions::default()).map(|_| ()).unwrap_err();
    let [_, half] = with_states(Version::V7, Encoding::F32, &[0]);
    let error = kind(&half);
    assert_eq!(error.kind(), "MissingStart");
    assert!(error.to_string().contains("layer 1"), "{error}");
    let [_, deeper] = with_states(Version::V7, Encoding::F32, &[0, 1, 2]);
    assert_eq!(kind(&deeper).kind(), "StrayLayer");
    let [bare, _] = with_states(Version::V7, Encoding::F32, &[]);
    let narrow = |layer: usize| (format!("blocks.{layer}.att.time_state"), vec![4, 8, 4], vec![0.5; 128]);
    let narrow = MemorySource::from_f32((0..2).map(narrow).collect()).into_tensors();
    let narrow = MemorySource::from_tensors(bare.into_tensors().into_iter().chain(narrow));
    assert_eq!(kind(&narrow).kind(), "ShapeMismatch");
    // RWKV-4 has no matrices to start from.
    let [_, old] = with_states(Version::V4, Encoding::F32, &[0, 1]);
    assert_eq!(kind(&old).kind(), "UnknownTensor");
    // A number that is none is seen when the file is checked, as that of any tensor.
    let [bare, _] = with_states(Version::V7, Encoding::F32, &[]);
    let bad = |layer: usize| (format!("blocks.{layer}.att.time_state"), vec![4, 8, 8], vec![f32::NAN; 256]);
    let bad = MemorySource::from_f32((0..2).map(bad).collect()).into_tensors();
    let (file, bad) = opened(&MemorySource::from_tensors(bare.into_tensors().into_iter().chain(bad)));
    assert!(rwkv_forge_quant::examine(bad.source(), &|_| ()).is_err());
    assert!(find(&file.0, &StateHints::default()).is_err());
}

/// Converts, reading back and comparing.
fn converted(model: &OpenModel, to: &str, kind: &str, output: &Path, force: bool) -> Result<Record, BoxError> {
    meanwhile(model, (to, kind), output, force, &|_| ())
}

/// The same, while something else happens.
fn meanwhile(
    model: &OpenModel,
    (to, kind): (&str, &str),
    output: &Path,
    force: bool,
    run: &(dyn Fn(Stage) + Sync),
) -> Result<Record, BoxError> {
    let recipe = Recipe::new(None, Some(kind), &[])?;
    let vocabulary = Vocabulary::Auto;
    let verify = VerifyOptions { text: None, tokens: 24, thresholds: Thresholds::default(), kernel: Kernel::Reference };
    let options = ConvertOptions { verify: Some(verify), force, ..ConvertOptions::new(by_name(to)?, &recipe, &vocabulary) };
    let blueprint = rwkv_forge_convert::blueprint(model, &options)?;
    convert(model, &blueprint, output, &options, &|stage, _, _| run(stage))
}

#[test]
fn checkpoints_keep_the_state_bit_for_bit() {
    for (version, encoding) in [(Version::V5_2, Encoding::F32), (Version::V6, Encoding::F16), (Version::V7, Encoding::BF16)] {
        let [_, both] = with_states(version, encoding, &[0, 1]);
        let (_source, both) = opened(&both);
        for (to, kind) in [("pth", "f32"), ("pth", "bf16"), ("safetensors", "f32"), ("safetensors", "f16")] {
            let folder = Temp::folder("kept");
            let output = folder.0.join(format!("out.{to}"));
            let record = converted(&both, to, kind, &output, false).unwrap();
            assert!(record.start_state.is_none());
            assert_eq!(record.lossless, kind == "f32", "{version} {to} {kind}");
            assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1, "nothing beside it");
            let back = open(&output, OpenOptions::default()).unwrap();
            assert_eq!(InitState::of_start(&back.model).unwrap(), state(), "{version} {to} {kind}");
            assert!(back.description().start.iter().all(|start| start.encoding == encoding));
        }
    }
}

/// Where the state goes beside a file of this name.
fn beside(folder: &Temp, name: &str) -> PathBuf {
    folder.0.join(name)
}

#[test]
fn other_containers_get_the_state_beside_them() {
    let sizes = Sizes::TINY;
    let mut tried = 0;
    for container in CONTAINERS.iter().filter(|container| !container.keeps_start()) {
        for (version, encoding) in [(Version::V6, Encoding::BF16), (Version::V7, Encoding::F32)] {
            let [bare, both] = with_states(version, encoding, &[0, 1]);
            let ((_a, bare), (_b, both)) = (opened(&bare), opened(&both));
            let kind = if container.types().contains(&"f16") { "f16" } else { "f32" };
            let recipe = Recipe::new(None, Some(kind), &[]).unwrap();
            // What carries no model so small, or wants a vocabulary, has no file to put the state beside.
            if decided(&both, container.name(), &recipe, &Vocabulary::Auto, None).is_err() {
                continue;
            }
            tried += 1;
            let folder = Temp::folder("beside");
            let output = folder.0.join(format!("out-0.1b.{}", container.extension()));
            let record = converted(&both, container.name(), kind, &output, false).unwrap();
            let path = start_beside(&both.model, *container, &output).unwrap();
            assert_eq!(path, beside(&folder, "out-0.1b.state.pth"), "{}", container.name());
            assert_eq!(record.start_state.unwrap().0, "out-0.1b.state.pth");
            assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 2);
            assert_eq!(read(&path, &StateHints::default()).unwrap(), (state(), StateFormat::Pth));
            let stored = rwkv_forge_checkpoint::open(&path, &rwkv_forge_checkpoint::Limits::default()).unwrap();
            assert!(stored.tensors().iter().all(|info| info.encoding == encoding));
            // The weights alone are what they are without a state.
            let alone = folder.0.join(format!("alone.{}", container.extension()));
            assert!(converted(&bare, container.name(), kind, &alone, false).unwrap().start_state.is_none());
            if output.is_file() {
                assert_eq!(output.metadata().unwrap().len(), alone.metadata().unwrap().len());
            }
        }
    }
    assert!(tried >= 7, "{tried} conversions of models of {} channels", sizes.channels);
}

#[test]
fn both_files_appear_or_none() {
    let [_, both] = with_states(Version::V7, Encoding::F32, &[0, 1]);
    let (_source, both) = opened(&both);
    let folder = Temp::folder("together");
    let (output, path) = (folder.0.join("out.bin"), folder.0.join("out.state.pth"));
    std::fs::write(&path, "somebody's").unwrap();
    let error = converted(&both, "rwkv-cpp", "f32", &output, false).unwrap_err();
    assert_eq!(error.kind(), "OutputExists");
    assert!(error.to_string().contains("out.state.pth"), "{error}");
    assert!(!output.exists() && std::fs::read(&path).unwrap() == b"somebody's");
    // The output that cannot be leaves no state behind, and the one that was there where it was.
    std::fs::create_dir(&output).unwrap();
    assert_eq!(converted(&both, "rwkv-cpp", "f32", &output, true).unwrap_err().kind(), "OutputNotRegular");
    assert_eq!(std::fs::read(&path).unwrap(), b"somebody's");
    std::fs::remove_dir(&output).unwrap();
    // Somebody takes the output's name while the file is compared: the state beside it, which had its name, gives it back.
    std::fs::remove_file(&path).unwrap();
    let faster = |stage: Stage| {
        if stage == Stage::Verifying {
            std::fs::write(&output, "somebody's").unwrap()
        }
    };
    let error = meanwhile(&both, ("rwkv-cpp", "f32"), &output, false, &faster).unwrap_err();
    assert_eq!(error.kind(), "OutputExists");
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1, "only what somebody wrote");
    std::fs::write(&path, "somebody's").unwrap();
    let record = converted(&both, "rwkv-cpp", "f32", &output, true).unwrap();
    let digest = rwkv_forge_io::sha256_hex(&std::fs::read(&path).unwrap());
    assert_eq!(record.start_state.unwrap(), ("out.state.pth".to_owned(), digest));
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 2, "no temporary is left");
}

#[test]
fn names_beside_outputs() {
    let [_, both] = with_states(Version::V7, Encoding::F32, &[0, 1]);
    let folder = Temp::folder("names");
    write_safetensors(&folder.0.join("both.safetensors"), &both);
    let both = open(&folder.0.join("both.safetensors"), OpenOptions::default()).unwrap();
    for (to, output, expected) in [
        ("gguf", "a/model.gguf", "a/model.state.pth"),
        ("gguf", "rwkv7-0.1b", "rwkv7-0.1b.state.pth"),
        ("rwkv-cpp", "model.gguf", "model.gguf.state.pth"),
        ("hf", "folder-0.4b", "folder-0.4b.state.pth"),
    ] {
        assert_eq!(start_beside(&both.model, by_name(to).unwrap(), Path::new(output)), Some(PathBuf::from(expected)), "{output}");
    }
    assert_eq!(start_beside(&both.model, by_name("pth").unwrap(), Path::new("a.pth")), None);
    // A state that was given is not among the weights, so a checkpoint does not have it either.
    let given = state().start(&both.model).unwrap();
    assert!(start_beside(&given, by_name("pth").unwrap(), Path::new("a.pth")).is_some());
}
