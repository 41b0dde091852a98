//! Types that need no planning: what they choose, in every container, for every version.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test support may fail loudly")]

use crate::common::Temp;
use rwkv_forge_choose::decide;
use rwkv_forge_convert::container::{CONTAINERS, by_name};
use rwkv_forge_convert::recipe::{CalibrationRecord, Recipe};
use rwkv_forge_convert::{Blueprint, ConvertOptions, OpenModel, OpenOptions, Vocabulary, is_unfit, open};
use rwkv_forge_model::{TensorRole, TensorSpec, Version};
use rwkv_forge_quantizer::Quantizer;
use rwkv_forge_tensor::{BoxError, Encoding};
use rwkv_forge_testkit::models::{Sizes, random_model};

/// Rows of whole blocks of 256 in the body, factors whose second halves have rows of 32 and 64.
const WIDE: Sizes = Sizes { layers: 3, channels: 256, head_size: 64, ffn: 512, vocabulary: 320, ranks: [32, 32, 32, 64] };
/// Rows of whole blocks of 32 alone.
const NARROW: Sizes = Sizes { layers: 2, channels: 96, head_size: 32, ffn: 160, vocabulary: 320, ranks: [32, 32, 32, 64] };

const VERSIONS: [Version; 6] = [Version::V4, Version::V5_0, Version::V5_1, Version::V5_2, Version::V6, Version::V7];
const READY: [&str; 4] = ["4bit", "5bit", "6bit", "8bit"];

struct Made {
    model: OpenModel,
    _file: Temp,
}

fn made(version: Version, sizes: &Sizes) -> Made {
    let file = Temp::safetensors(&random_model(version, sizes, 7));
    Made { model: open(&file.0, OpenOptions::default()).unwrap(), _file: file }
}

/// A vocabulary of as many tokens as the models have rows.
fn vocabulary() -> Vocabulary {
    let lines = (1..320).map(|id| format!("{id} 't{id}' {}\n", format!("t{id}").len()));
    Vocabulary::File("vocabulary.txt".to_owned(), lines.collect::<String>().into_bytes())
}

fn decided_with(made: &Made, container: &str, recipe: &Recipe) -> Result<Blueprint, BoxError> {
    let vocabulary = vocabulary();
    let words = rwkv_forge_convert::named_after(std::path::Path::new("model.pth"));
    let options = ConvertOptions { words: Some(&words), ..ConvertOptions::new(by_name(container).unwrap(), recipe, &vocabulary) };
    decide(&made.model, &options)
}

fn recipe(name: &str) -> Recipe {
    Recipe::new(None, Some(name), &[]).unwrap()
}

fn decided(made: &Made, container: &str, name: &str) -> Result<Blueprint, BoxError> {
    decided_with(made, container, &recipe(name))
}

/// The type of each tensor.
fn types<'m>(made: &'m Made, blueprint: &Blueprint) -> Vec<(&'m TensorSpec, Encoding)> {
    made.model.description().tensors.iter().zip(blueprint.choices.iter().map(|choice| choice.encoding)).collect()
}

/// Bits of a weight of the matrices, embedding and head apart.
fn bits(made: &Made, blueprint: &Blueprint) -> f64 {
    let body = |spec: &TensorSpec| spec.role.is_matrix() && spec.layer.is_some();
    let (mut bits, mut weights) = (0.0, 0.0);
    for (spec, encoding) in types(made, blueprint).into_iter().filter(|(spec, _)| body(spec)) {
        bits += spec.elements() as f64 * f64::from(encoding.block_bytes) * 8.0 / f64::from(encoding.block_len);
        weights += spec.elements() as f64;
    }
    bits / weights
}

/// The plain types whose bytes the ready ones keep to.
fn plain(container: &str, ready: &str) -> Option<&'static str> {
    match (container, ready) {
        ("prefab", "4bit") => Some("nf4"),
        ("prefab", "8bit") => Some("int8"),
        ("prefab", _) => None,
        (_, "4bit") => Some("q4_k_m"),
        (_, "5bit") => Some("q5_k_m"),
        (_, "6bit") => Some("q6_k"),
        _ => Some("q8_0"),
    }
}

#[test]
fn no_file_is_larger_than_the_plain_type() {
    let mut compared = 0;
    for version in VERSIONS {
        for sizes in [&WIDE, &NARROW] {
            let made = made(version, sizes);
            for (container, ready) in CONTAINERS.iter().flat_map(|container| READY.map(|ready| (container.name(), ready))) {
                let Some(other) = plain(container, ready) else { continue };
                let (Ok(found), Ok(other)) = (decided(&made, container, ready), decided(&made, container, other)) else { continue };
                let (own, limit) = (found.layout.total_bytes(), other.layout.total_bytes());
                // Where there is nothing to free, as in versions without factors, the same types have the longer name in the metadata.
                let encodings = |blueprint: &Blueprint| blueprint.choices.iter().map(|choice| choice.encoding).collect::<Vec<_>>();
                let limit = if encodings(&found) == encodings(&other) { limit + 64 } else { limit };
                assert!(own <= limit, "{version} {container} {ready}: {own} bytes, the plain type takes {limit}");
                // Freed bytes are spent: what is left is less than the step from Q8_0 to F16 of a matrix, 62 kB of 2 MB here.
                let wide = sizes.channels == WIDE.channels && ready != "8bit";
                assert!(!wide || own as f64 > 0.97 * limit as f64, "{version} {container} {ready}: {own} of {limit}");
                compared += 1;
            }
        }
    }
    assert!(compared > 60, "{compared}");
}

#[test]
fn the_name_and_the_metadata_count_too() {
    // Longer metadata than the plain type's: the tensors make room for it.
    let made = made(Version::V7, &WIDE);
    let mut long = recipe("4bit");
    long.quantizer = Some(Quantizer::Gptq);
    long.calibration = Some(CalibrationRecord { digest: "0".repeat(64), tokens: 32768, block: Some(512) });
    let limit = decided(&made, "gguf", "q4_k_m").unwrap().layout.total_bytes();
    let found = decided_with(&made, "gguf", &long).unwrap();
    assert!(found.layout.total_bytes() <= limit && found.recipe.contains("calibration 0000000000000000"), "{}", found.recipe);
}

#[test]
fn aliases_are_the_same_types() {
    let made = made(Version::V7, &WIDE);
    for (alias, ready) in ["rwkv-q4", "rwkv-q5", "rwkv-q6", "rwkv-q8"].into_iter().zip(READY) {
        assert_eq!(decided(&made, "gguf", alias).unwrap().choices, decided(&made, "gguf", ready).unwrap().choices);
        assert_eq!(recipe(alias).preset.name, ready);
    }
}

#[test]
fn more_bits_in_the_name_are_more_bits_in_the_file() {
    for version in VERSIONS {
        let made = made(version, &WIDE);
        for container in CONTAINERS.iter().map(|container| container.name()) {
            let found: Vec<f64> = READY.iter().filter_map(|ready| Some(bits(&made, &decided(&made, container, ready).ok()?))).collect();
            assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "{version} {container}: {found:?}");
        }
    }
}

#[test]
fn web_rwkv_gets_mixtures_where_it_has_no_type() {
    let made = made(Version::V5_2, &WIDE);
    let of = |name: &str| bits(&made, &decided(&made, "prefab", name).unwrap());
    // As many bits as Q5_K and Q6_K have, less what no matrix of this model is small enough for.
    assert!((5.2..=5.5).contains(&of("5bit")), "{}", of("5bit"));
    assert!((6.2..=6.5625).contains(&of("6bit")), "{}", of("6bit"));
    // All matrices in one type: nothing can be freed there.
    assert_eq!((of("4bit"), of("8bit")), (of("nf4"), of("int8")));
}

#[test]
fn factors_are_q8_0_and_strict_keeps_them() {
    for version in [Version::V6, Version::V7] {
        let made = made(version, &WIDE);
        let factors = |recipe: &Recipe| -> Vec<&'static str> {
            let blueprint = decided_with(&made, "gguf", recipe).unwrap();
            types(&made, &blueprint).into_iter().filter(|(spec, _)| spec.role.is_lora()).map(|(_, encoding)| encoding.name).collect()
        };
        for ready in READY {
            let mut recipe = recipe(ready);
            let found = factors(&recipe);
            assert!(!found.is_empty() && found.iter().all(|name| *name == "q8_0"), "{version} {ready}: {found:?}");
            recipe.keep_factors = true;
            let kept = factors(&recipe);
            assert!(kept.iter().all(|name| ["f16", "f32"].contains(name)), "{version} {ready}: {kept:?}");
            assert_eq!(kept, factors(&self::recipe("q8_0")), "as the plain types have them");
        }
    }
    // RWKV-6's five matrices in one tensor, RWKV-7's second halves: rows of inputs, which are whole blocks.
    let made = made(Version::V6, &Sizes { ranks: [24, 32, 32, 64], ..WIDE });
    let blueprint = decided(&made, "gguf", "4bit").unwrap();
    let found: Vec<_> = types(&made, &blueprint).into_iter().filter(|(spec, _)| spec.role == TensorRole::TokenShiftLora).collect();
    let of = |suffix: &str| found.iter().find(|(spec, _)| spec.name.ends_with(suffix)).unwrap().1.name;
    assert_eq!((of("time_maa_w1"), of("time_maa_w2")), ("q8_0", "f32"), "rows of 24 are no blocks");
}

/// Whatever is asked for by another name than its own.
#[test]
fn no_default_gives_rwkv_4_a_plain_q4_0() {
    let q4_0 = rwkv_forge_quant::by_name("q4_0").unwrap().encoding();
    assert!(is_unfit(made(Version::V4, &NARROW).model.description().mechanisms.time_mix, q4_0));
    for version in VERSIONS.into_iter().filter(|version| *version != Version::V4) {
        assert!(!is_unfit(made(version, &NARROW).model.description().mechanisms.time_mix, q4_0), "{version}");
    }
    let mut looked_at = 0;
    for sizes in [&WIDE, &NARROW] {
        let made = made(Version::V4, sizes);
        let names = rwkv_forge_convert::preset::type_names().into_iter().filter(|name| *name != "q4_0");
        for (container, name) in CONTAINERS.iter().flat_map(|container| names.clone().map(|name| (container.name(), name))) {
            let Ok(blueprint) = decided(&made, container, name) else { continue };
            for (spec, encoding) in types(&made, &blueprint) {
                assert_ne!(encoding.name, "q4_0", "{container} {name} {}", spec.name);
            }
            looked_at += 1;
        }
    }
    assert!(looked_at > 40, "{looked_at}");
    // It is what stands in for two bits elsewhere, so the above can fail; and who asks for it gets it.
    let count = |made: &Made, name: &str| {
        let blueprint = decided(made, "rwkv-cpp", name).unwrap();
        blueprint.choices.iter().filter(|choice| choice.encoding == q4_0).count()
    };
    assert!(count(&made(Version::V7, &NARROW), "q2_k") > 10);
    assert!(count(&made(Version::V4, &NARROW), "q4_0") > 10);
}

#[test]
fn rules_win_and_reasons_are_given() {
    let made = made(Version::V7, &WIDE);
    let recipe = Recipe::new(None, Some("4bit"), &[r"blocks\.1\.ffn\.value=q8_0".to_owned(), "att.w2=f16".to_owned()]).unwrap();
    let blueprint = decided_with(&made, "gguf", &recipe).unwrap();
    for (spec, choice) in made.model.description().tensors.iter().zip(&blueprint.choices) {
        assert!(!choice.reason.is_empty(), "{}", spec.name);
        let wanted = match spec.name.as_str() {
            "blocks.1.ffn.value.weight" => Some("q8_0"),
            name if name.contains("att.w2") => Some("f16"),
            _ => None,
        };
        if let Some(wanted) = wanted {
            assert!(choice.encoding.name == wanted && choice.reason.starts_with("set "), "{}: {}", spec.name, choice.reason);
        }
    }
    let reasons: Vec<&str> = blueprint.choices.iter().map(|choice| choice.reason.as_str()).collect();
    assert!(reasons.contains(&"4bit: factors need no more") && reasons.contains(&"4bit: what its role needs"), "{reasons:?}");
}

#[test]
fn the_same_weights_matter_more_at_the_ends() {
    // The first layer's output has the channels of largest energy: it never gets fewer bits than those in the middle.
    let sizes = Sizes { layers: 6, ..WIDE };
    let made = made(Version::V7, &sizes);
    for ready in READY {
        let blueprint = decided(&made, "gguf", ready).unwrap();
        let all = types(&made, &blueprint);
        let of = |layer: usize| {
            let own = all.iter().find(|(spec, _)| spec.role == TensorRole::AttOutput && spec.layer == Some(layer)).unwrap().1;
            f64::from(own.block_bytes) / f64::from(own.block_len)
        };
        assert!((1..5).all(|layer| of(0) >= of(layer)), "{ready}");
    }
}

#[test]
fn containers_without_blocks_say_so() {
    let made = made(Version::V6, &WIDE);
    for container in ["hf", "pth", "safetensors", "candle", "web-rwkv"] {
        for ready in READY {
            let Err(error) = decided(&made, container, ready) else { panic!("{container} took {ready}") };
            assert_eq!(error.kind(), "TypeNotCarried", "{container}: {error}");
            let text = error.to_string();
            assert!(text.contains(container) && text.contains(ready) && text.contains("f16"), "{text}");
        }
    }
}

#[test]
fn nothing_left_to_allocate_is_a_result_at_once() {
    // No row is a whole number of blocks; every matrix fixed by a rule, with factors kept as llama-quantize keeps them; both.
    let tiny = Sizes { layers: 2, channels: 16, head_size: 4, ffn: 24, vocabulary: 256, ranks: [4, 4, 4, 4] };
    let mut planned_ones = 0;
    for version in VERSIONS {
        let fixed = |name: &str| vec![format!("(emb|head|key|value|receptance|output|gate)\\.weight$={name}")];
        for (sizes, sets) in [(&tiny, Vec::new()), (&WIDE, fixed("f16")), (&tiny, fixed("f16"))] {
            let made = made(version, sizes);
            for (container, ready) in CONTAINERS.iter().flat_map(|container| READY.map(|ready| (container.name(), ready))) {
                let mut recipe = Recipe::new(None, Some(ready), &sets).unwrap();
                recipe.keep_factors = !sets.is_empty();
                let Ok(found) = decided_with(&made, container, &recipe) else { continue };
                let reason = |choice: &rwkv_forge_model::Choice| choice.reason.contains("what its role needs");
                assert!(sets.is_empty() || !found.choices.iter().any(reason), "{version} {container} {ready}");
                planned_ones += 1;
            }
        }
    }
    assert!(planned_ones >= 60, "{planned_ones}");
}
