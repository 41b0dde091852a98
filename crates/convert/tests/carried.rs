//! Which container carries which architecture: every pair is answered, and every refusal names both.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use std::collections::BTreeSet;

use rwkv_forge_convert::container::{CONTAINERS, by_name};
use rwkv_forge_convert::recipe::Recipe;
use rwkv_forge_convert::{ConvertOptions, OpenFile, OpenModel, Vocabulary, check};
use rwkv_forge_model::architecture::{ARCHITECTURES, HYBRIDS};
use rwkv_forge_model::{Version, VocabularyFamily, describe};
use rwkv_forge_tensor::{Class, TensorSource};
use rwkv_forge_testkit::models::{Sizes, random_model};

/// The versions that a container carries, by their names.
fn carried(container: &str) -> Vec<&'static str> {
    let container = by_name(container).unwrap();
    let rows = ARCHITECTURES.iter().chain(HYBRIDS);
    rows.filter(|row| container.carries(row.version).is_ok()).map(|row| row.version.name()).collect()
}

#[test]
fn what_each_container_carries() {
    let itself = ["4", "5.0", "5.1", "5.2", "6", "7", "7a", "7b"];
    let without_5_0 = ["4", "5.1", "5.2", "6", "7"];
    let expected: [(&str, &[&str]); 10] = [
        ("candle", &["5.1", "5.2", "6", "7", "7a", "7b"]),
        ("candle-gguf", &["5.1", "5.2", "6"]),
        ("gguf", &["6", "7", "rwkv6qwen2", "arwkv7"]),
        ("hf", &without_5_0),
        ("hf-native", &["7"]),
        ("pth", &itself),
        ("rwkv-cpp", &["4", "5.0", "5.1", "5.2", "6", "7"]),
        ("safetensors", &itself),
        ("web-rwkv", &without_5_0),
        ("prefab", &without_5_0),
    ];
    assert_eq!(CONTAINERS.len(), expected.len());
    for (container, versions) in expected {
        assert_eq!(carried(container), versions, "{container}");
    }
}

#[test]
fn refusals_name_container_and_architecture() {
    let mut refusals = 0;
    for container in CONTAINERS {
        for row in ARCHITECTURES.iter().chain(HYBRIDS) {
            let Err(error) = container.carries(row.version) else { continue };
            let message = error.to_string();
            // A vocabulary without a place is the container's lack, other things are what the program behind it does not compute.
            let program = match row.vocabulary {
                VocabularyFamily::Qwen => format!("container {} ", container.name()),
                VocabularyFamily::World => container.name().replace("prefab", "web-rwkv").replace("rwkv-cpp", "rwkv.cpp"),
            };
            assert_eq!((error.kind(), error.class()), ("CannotCarry", Class::Usage), "{message}");
            assert!(message.contains(&row.version.to_string()), "{message}");
            assert!(message.to_lowercase().contains(&program), "{program} is not in: {message}");
            refusals += 1;
        }
    }
    assert!(refusals > 15, "{refusals}");
}

/// The way out is said once, by whoever knows all containers; a container's own words name no other one.
#[test]
fn refusals_list_the_containers_that_carry_the_model() {
    let sizes = Sizes { layers: 2, channels: 128, head_size: 64, ffn: 256, vocabulary: 256, ranks: [32, 64, 24, 48] };
    let odd = [
        sizes,
        Sizes { layers: 1, ..sizes },
        Sizes { vocabulary: 260, ..sizes },
        Sizes { head_size: 32, ranks: [16, 16, 24, 48], ..sizes },
        Sizes { channels: 60, head_size: 30, ..sizes },
    ];
    let (recipe, vocabulary) = (Recipe::new(None, Some("f16"), &[]).unwrap(), Vocabulary::Bytes);
    let mut kinds = BTreeSet::new();
    for (version, sizes) in Version::ALL.into_iter().flat_map(|version| odd.iter().map(move |sizes| (version, sizes))) {
        let source = random_model(version, sizes, 7);
        let description = describe(source.tensors()).unwrap();
        let model = OpenModel::new(OpenFile::of(Box::new(source)), description);
        for container in CONTAINERS {
            let options = ConvertOptions { pad_vocabulary: true, ..ConvertOptions::new(*container, &recipe, &vocabulary) };
            let Err(error) = check(&model, &options) else { continue };
            let message = error.to_string();
            let (reason, listed) = message.rsplit_once(" (containers that carry it: ").unwrap_or_else(|| panic!("{message}"));
            let carrying = CONTAINERS.iter().filter(|other| check(&model, &ConvertOptions { container: **other, ..options }).is_ok());
            let carrying: Vec<&str> = carrying.map(|other| other.name()).collect();
            assert_eq!(listed.trim_end_matches(')').split(", ").collect::<Vec<_>>(), carrying, "{message}");
            assert!(!carrying.is_empty(), "{message}");
            assert!(!reason.contains("--to"), "{message}");
            for other in CONTAINERS.iter().filter(|other| other.name() != container.name()) {
                assert!(!reason.contains(&format!("container {} ", other.name())), "{message}");
            }
            kinds.insert(error.kind());
        }
    }
    assert_eq!(kinds, BTreeSet::from(["CannotCarry", "FixedSize"]));
}

#[test]
fn vocabularies_of_hybrids_are_held_where_there_is_a_place_for_them() {
    let holding = |family: VocabularyFamily| -> Vec<&str> {
        let rows: Vec<_> = ARCHITECTURES.iter().chain(HYBRIDS).filter(|row| row.vocabulary == family).collect();
        let holding = CONTAINERS.iter().filter(|container| rows.iter().any(|row| container.carries(row.version).is_ok()));
        holding.map(|container| container.name()).collect()
    };
    assert_eq!(holding(VocabularyFamily::Qwen), ["gguf"]);
    assert_eq!(holding(VocabularyFamily::World).len(), CONTAINERS.len());
    assert_eq!(Version::QRwkv6.architecture().vocabulary, VocabularyFamily::Qwen);
    // The reason is the vocabulary, before anything else.
    for container in CONTAINERS {
        let Err(refusal) = container.carries(Version::QRwkv6) else { continue };
        assert!(refusal.to_string().contains("norms and vocabulary"), "{}: {refusal}", container.name());
    }
}
