//! What is registered is whole: names are unique, and every container's files are read back as the format that it says.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::collections::BTreeSet;

use rwkv_forge_convert::container::{CONTAINERS, FORMATS, NAMINGS, by_name};
use rwkv_forge_convert::published::{LAYOUTS, Reading};
use rwkv_forge_convert::recipe::Recipe;
use rwkv_forge_convert::{ConvertOptions, OpenFile, OpenModel, OpenOptions, Value, Vocabulary, Word, blueprint, convert, open, open_file};
use rwkv_forge_model::{Version, describe};
use rwkv_forge_tensor::TensorSource;
use rwkv_forge_testkit::models::{Options, Sizes, random_model_with};

use crate::common::Temp;

/// Sizes that every container carries for some version: heads as flash-linear-attention wants them, ranks as candle does.
const SIZES: Sizes = Sizes { layers: 2, channels: 128, head_size: 64, ffn: 256, vocabulary: 256, ranks: [32, 64, 24, 48] };

#[test]
fn names_are_there_once_and_mean_something() {
    let mut names = BTreeSet::new();
    for container in CONTAINERS {
        for name in std::iter::once(container.name()).chain(container.aliases().iter().copied()) {
            assert!(names.insert(name), "{name} is there twice");
            assert_eq!(by_name(name).unwrap().name(), container.name());
        }
        assert!(FORMATS.iter().any(|format| format.name() == container.reads_back_as().name()), "{}", container.name());
        assert!(!container.types().is_empty());
        // Words of several kinds are declared one by one, and as a whole.
        assert_eq!(container.words().contains(&Word::Special), !container.special().is_empty(), "{}", container.name());
        let text = Value::String("x".to_owned());
        assert_eq!(container.words().contains(&Word::Other), container.holds_entry("general.version", &text), "{}", container.name());
        for name in container.types() {
            assert!(rwkv_forge_quant::by_name(name).is_some(), "{} names the type {name}, which does not exist", container.name());
        }
    }
    let formats: BTreeSet<&str> = FORMATS.iter().map(|format| format.name()).collect();
    assert_eq!(formats.len(), FORMATS.len());
    let namings: BTreeSet<&str> = NAMINGS.iter().map(|naming| naming.name()).collect();
    assert_eq!(namings.len(), NAMINGS.len());
    assert!(NAMINGS.iter().all(|naming| formats.contains(naming.format().name())));
}

#[test]
fn every_container_reads_back_through_its_format() {
    for container in CONTAINERS {
        let recipe = Recipe::new(None, Some("f16"), &[]).unwrap();
        let options = ConvertOptions {
            container: *container,
            recipe: &recipe,
            vocabulary: &Vocabulary::Bytes,
            treatment: None,
            words: None,
            pad_vocabulary: false,
            requantize: false,
            allow_f16_loss: false,
            split_bytes: None,
            force: false,
            claims: None,
            open: OpenOptions::default(),
            verify: None,
            prepared: None,
        };
        let mut written = 0;
        for version in Version::ALL.into_iter().filter(|version| container.carries(*version).is_ok()) {
            let ranks = if container.extension().starts_with("candle") { [2, 4, 24, 48] } else { SIZES.ranks };
            let options_of_model = Options { deep: Options::RELEASED, ..Options::default() };
            let source = random_model_with(version, &Sizes { ranks, ..SIZES }, &options_of_model, 7);
            let description = describe(source.tensors()).unwrap();
            let model = OpenModel::new(OpenFile::of(Box::new(source)), description);
            container.carries_model(model.description()).unwrap();
            let output = Temp::new("output");
            let blueprint = blueprint(&model, &options).unwrap();
            convert(&model, &blueprint, &output.0, &options, &|_, _, _| ()).unwrap();
            let file = open_file(&output.0, OpenOptions::default()).unwrap();
            assert_eq!(file.format().unwrap().name(), container.reads_back_as().name(), "{} of {version}", container.name());
            let back = open(&output.0, OpenOptions::default()).unwrap();
            let described = back.description();
            assert_eq!(described.hyperparameters, model.description().hyperparameters, "{} of {version}", container.name());
            if output.0.is_dir() {
                std::fs::remove_dir_all(&output.0).unwrap();
            }
            written += 1;
        }
        assert!(written > 0, "{} carries nothing", container.name());
    }
}

/// Whoever asks what can be read is told of every layout that is.
#[test]
fn formats_list_the_files_of_every_layout_that_they_read() {
    let endings: Vec<&str> = FORMATS.iter().flat_map(|format| format.endings()).copied().collect();
    assert!(FORMATS.iter().all(|format| !format.endings().is_empty()));
    for layout in LAYOUTS.iter().filter(|layout| matches!(layout.reading, Reading::As(_))) {
        for named in layout.name.split('`').skip(1).step_by(2).filter(|named| named.starts_with('.')) {
            assert!(endings.contains(&named), "{named} of {} is read, and no format lists it", layout.name);
        }
    }
}
