//! A model that is rendered is the model of the file.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use crate::common::Temp;
use rwkv_forge_convert::container::{CONTAINERS, Container, by_name};
use rwkv_forge_convert::recipe::Recipe;
use rwkv_forge_convert::{ConvertOptions, OpenModel, OpenOptions, Preparation, Rendering, Vocabulary, blueprint, convert, open};
use rwkv_forge_model::Version;
use rwkv_forge_quantizer::Quantizer;
use rwkv_forge_testkit::models::{Sizes, random_model};

const SIZES: Sizes = Sizes { layers: 2, channels: 256, head_size: 64, ffn: 512, vocabulary: 320, ranks: [32, 32, 32, 64] };
const VERSIONS: [Version; 6] = [Version::V4, Version::V5_0, Version::V5_1, Version::V5_2, Version::V6, Version::V7];

/// A vocabulary of as many tokens as the models have rows.
fn vocabulary() -> Vocabulary {
    let lines = (1..320).map(|id| format!("{id} 't{id}' {}\n", format!("t{id}").len()));
    Vocabulary::File("vocabulary.txt".to_owned(), lines.collect::<String>().into_bytes())
}

/// Writes the model, and compares every matrix and factor of the file with the rendered one. False where the container has no such file.
fn is_the_file(model: &OpenModel, container: &'static dyn Container, recipe: &Recipe, output: &Temp) -> bool {
    let vocabulary = vocabulary();
    let words = rwkv_forge_convert::named_after(std::path::Path::new("model.pth"));
    let options = ConvertOptions {
        words: Some(&words),
        requantize: true,
        allow_f16_loss: true,
        ..ConvertOptions::new(container, recipe, &vocabulary)
    };
    let Ok(blueprint) = blueprint(model, &options) else { return false };
    let rendering = Rendering { model, blueprint: &blueprint, recipe, calibration: None, directory: None };
    let made = rendering.prepared(&|_, _, _| ()).unwrap();
    let prepared = Some(Preparation { model: &made.model, tensors: &made.prepared, importance: None });
    let record = convert(model, &blueprint, &output.0, &ConvertOptions { prepared, ..options }, &|_, _, _| ()).unwrap();
    let written = open(&output.0, OpenOptions::default()).unwrap();
    let heard = std::cell::RefCell::new(Vec::new());
    let whole = rendering.whole(&|done, total, tensor| heard.borrow_mut().push((done, total, tensor.to_owned()))).unwrap();
    // Every step is of another tensor, further than the one before and not beyond the end.
    let heard = heard.into_inner();
    assert!(heard.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].2 != pair[1].2), "{heard:?}");
    assert!(heard.iter().all(|(done, total, _)| done < total), "{heard:?}");
    assert_eq!(whole.prepared, made.prepared);
    assert_eq!(whole.zeroed_blocks, record.zeroed_blocks);
    let what = format!("{} {} {}", model.description().version, container.name(), recipe.text());
    let mut changed = 0;
    for spec in model.description().tensors.iter().filter(|spec| spec.role.is_matrix() || spec.role.is_lora()) {
        // What a container does without it has in no other form.
        let Some(stored) = written.description().find(&spec.name) else { continue };
        let rendered = whole.model.description().find(&spec.name).unwrap();
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let (file, memory) = (written.model.values::<f32>(stored).unwrap(), whole.model.values::<f32>(rendered).unwrap());
        changed += usize::from(memory != model.model.values::<f32>(spec).unwrap());
        assert_eq!(bits(file), bits(memory), "{what}: {}", spec.name);
    }
    assert!(changed > 0 || record.lossless || recipe.preset.base.is_dense(), "{what}");
    true
}

#[test]
fn what_is_rendered_is_what_is_written() {
    let mut files = 0;
    for version in VERSIONS {
        let source = Temp::safetensors(&random_model(version, &SIZES, 11));
        let model = open(&source.0, OpenOptions::default()).unwrap();
        for container in CONTAINERS.iter().copied() {
            for name in ["f16", "bf16", "q8_0", "q4_0", "q4_k_m", "nf4", "int8"] {
                let mut recipe = Recipe::new(None, Some(name), &[]).unwrap();
                for quantizer in [None, Some(Quantizer::Search)] {
                    recipe.quantizer = quantizer;
                    if quantizer.is_some() && (recipe.preset.base.is_dense() || version != Version::V7) {
                        continue;
                    }
                    let output = Temp::new(&format!("rendered.{}", container.extension()));
                    files += usize::from(is_the_file(&model, container, &recipe, &output));
                }
            }
        }
    }
    assert!(files >= 60, "{files}");
}

#[test]
fn quantized_sources_are_rendered_too() {
    let source = Temp::safetensors(&random_model(Version::V6, &SIZES, 12));
    let model = open(&source.0, OpenOptions::default()).unwrap();
    let gguf = by_name("gguf").unwrap();
    let quantized = Temp::new("quantized.gguf");
    assert!(is_the_file(&model, gguf, &Recipe::new(None, Some("q8_0"), &[]).unwrap(), &quantized));
    let model = open(&quantized.0, OpenOptions::default()).unwrap();
    let mut files = 0;
    for container in CONTAINERS.iter().copied() {
        for name in ["f16", "q8_0", "q4_k_m", "q6_k"] {
            let output = Temp::new(&format!("again.{}", container.extension()));
            files += usize::from(is_the_file(&model, container, &Recipe::new(None, Some(name), &[]).unwrap(), &output));
        }
    }
    assert!(files >= 10, "{files}");
}
