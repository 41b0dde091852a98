//! Recipes as files and as data.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use crate::common::Temp;
use rwkv_forge_convert::recipe::{CalibrationRecord, Recipe};
use rwkv_forge_convert::{Blueprint, OpenModel, OpenOptions, Vocabulary, open};
use rwkv_forge_model::Version;
use rwkv_forge_quantizer::Quantizer;
use rwkv_forge_tensor::BoxError;
use rwkv_forge_testkit::models::{Sizes, random_model};

/// Rows of whole blocks of 256.
const WIDE: Sizes = Sizes { layers: 3, channels: 256, head_size: 64, ffn: 512, vocabulary: 256, ranks: [32, 32, 32, 64] };

/// A model, and the file that it is in.
fn made() -> (Temp, OpenModel) {
    let file = Temp::safetensors(&random_model(Version::V7, &WIDE, 7));
    let model = open(&file.0, OpenOptions::default()).unwrap();
    (file, model)
}

fn decided(model: &OpenModel, recipe: &Recipe) -> Result<Blueprint, BoxError> {
    crate::common::decided(model, "gguf", recipe, &Vocabulary::Bytes, Some("model"))
}

#[test]
fn ready_types_are_not_decided_here() {
    let made = made();
    let error = decided(&made.1, &Recipe::new(None, Some("4bit"), &[]).unwrap()).err().unwrap();
    assert_eq!(error.kind(), "ReadyType");
    assert!(error.to_string().contains("4bit"), "{error}");
}

#[test]
fn recipes_survive_their_file() {
    let mut recipe = Recipe::new(None, Some("q4_k_m"), &["ffn=q5_k:search".to_owned()]).unwrap();
    recipe.quantizer = Some(Quantizer::Gptq);
    recipe.calibration = Some(CalibrationRecord { digest: "ab".repeat(32), tokens: 1024, block: Some(256) });
    let format = rwkv_forge_quant::by_name("q6_k").unwrap().encoding();
    let recipe = recipe.with_types([("blocks.0.att.key.weight", format, Some(0.25))]).unwrap();
    let text = recipe.to_toml().unwrap();
    let again = Recipe::new(Some(("recipe.toml", &text)), None, &[]).unwrap();
    assert_eq!((again.to_toml().unwrap(), again.text()), (text, recipe.text()));
    assert_eq!((again.quantizer, &again.calibration), (Some(Quantizer::Gptq), &recipe.calibration));
    let other = rwkv_forge_quant::by_name("q5_k").unwrap().encoding();
    assert_eq!(again.quantizer_of("blocks.1.ffn.key.weight", other), Quantizer::Search);
    assert_eq!(again.quantizer_of("blocks.0.att.key.weight", format), Quantizer::Gptq);
    // What it was made with is demanded, but for what an older file does not say.
    let record = again.calibration.unwrap();
    assert!(record.demand(Some(&record)).is_ok());
    let others = [
        CalibrationRecord { tokens: 512, ..record.clone() },
        CalibrationRecord { block: Some(128), ..record.clone() },
        CalibrationRecord { digest: "cd".repeat(32), ..record.clone() },
    ];
    assert!(others.iter().all(|other| record.demand(Some(other)).is_err()) && record.demand(None).is_err());
    assert!(CalibrationRecord { block: None, ..record.clone() }.demand(Some(&record)).is_ok());
}

/// A recipe that is handed over as data is the one that its file is read as, to the digest that files say.
#[test]
fn a_recipe_of_types_is_its_file() {
    let made = made();
    let encoding = |name: &str| rwkv_forge_quant::by_name(name).unwrap().encoding();
    let matrices = made.1.description().tensors.iter().filter(|spec| spec.role.is_matrix());
    let types: Vec<_> =
        matrices.zip(["q4_k", "q6_k", "f16"].iter().cycle()).map(|(spec, name)| (spec.name.as_str(), encoding(name))).collect();
    for quantizer in [None, Some(Quantizer::Ggml), Some(Quantizer::Search)] {
        for count in [0, 1, types.len()] {
            let mut start = Recipe::new(None, Some("q4_k_m"), &[r"att\.(key|value)\.weight=q8_0:ggml".to_owned()]).unwrap();
            start.quantizer = quantizer;
            let given = start.with_types(types[..count].iter().map(|(name, encoding)| (*name, *encoding, Some(0.1 / 3.0)))).unwrap();
            let read = Recipe::new(Some(("plan", &given.to_toml().unwrap())), None, &[]).unwrap();
            assert_eq!((given.text(), given.to_toml().unwrap()), (read.text(), read.to_toml().unwrap()));
            assert_eq!(given.text().contains("rules of recipe"), count > 1, "the digest counts where rules are many");
            let (ours, theirs) = (decided(&made.1, &given).unwrap(), decided(&made.1, &read).unwrap());
            assert_eq!((&ours.choices, &ours.recipe), (&theirs.choices, &theirs.recipe));
            assert_eq!(ours.layout.files().next().unwrap().1.header, theirs.layout.files().next().unwrap().1.header);
            for (spec, choice) in made.1.description().tensors.iter().zip(&ours.choices) {
                assert_eq!(given.quantizer_of(&spec.name, choice.encoding), read.quantizer_of(&spec.name, choice.encoding));
                assert_eq!(given.is_set(&spec.name), read.is_set(&spec.name));
            }
        }
    }
}
