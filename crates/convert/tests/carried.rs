//! Which container carries which architecture: every pair is answered, and every refusal names both.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use rwkv_forge_convert::container::{CONTAINERS, by_name};
use rwkv_forge_model::architecture::{ARCHITECTURES, HYBRIDS};
use rwkv_forge_model::{Version, VocabularyFamily};
use rwkv_forge_tensor::Class;

/// The versions that a container carries, by their names.
fn carried(container: &str) -> Vec<&'static str> {
    let container = by_name(container).unwrap();
    let rows = ARCHITECTURES.iter().chain(HYBRIDS);
    rows.filter(|row| container.carries(row.version).is_ok()).map(|row| row.version.name()).collect()
}

#[test]
fn what_each_container_carries() {
    let itself = ["4", "5.0", "5.1", "5.2", "6", "7"];
    let without_5_0 = ["4", "5.1", "5.2", "6", "7"];
    let expected: [(&str, &[&str]); 9] = [
        ("candle", &["5.1", "5.2", "6", "7"]),
        ("candle-gguf", &["5.1", "5.2", "6"]),
        ("gguf", &["6", "7", "rwkv6qwen2", "arwkv7"]),
        ("hf", &without_5_0),
        ("pth", &itself),
        ("rwkv-cpp", &itself),
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
