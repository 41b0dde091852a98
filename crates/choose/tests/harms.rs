//! Probes, harms and types without the command line, on tiny trained models.
#![allow(clippy::unwrap_used, reason = "test support may fail loudly")]

use std::path::Path;
use std::time::Duration;

use rwkv_forge_checkpoint::Limits;
use rwkv_forge_choose::{HarmOptions, Place, Probe, ProbeOptions, Probed, TensorHarm, harms, is_open, tensor_types_with_errors};
use rwkv_forge_convert::container::by_name;
use rwkv_forge_model::{TensorRole, TimeMix, describe};
use rwkv_forge_tensor::Diagnostic;
use rwkv_forge_tokenizer::Tokenizer;
use rwkv_forge_weights::{Model, Overlay};

struct Loaded {
    model: Model,
    tokens: Vec<u32>,
}

fn loaded(version: &str) -> Loaded {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let path = fixtures.join(format!("checkpoints/tiny-rwkv{version}.pth"));
    let source = rwkv_forge_checkpoint::open(&path, &Limits::default()).unwrap();
    let description = describe(source.tensors()).unwrap();
    let model = Model::over(source.into(), description);
    let vocabulary = std::fs::read(fixtures.join("checkpoints/vocab-320.txt")).unwrap();
    let tokenizer = Tokenizer::from_bytes("vocab-320", &vocabulary).unwrap();
    let book = std::fs::read(fixtures.join("text/public-domain-100k.txt")).unwrap();
    let tokens = tokenizer.encode(&book[..6000]).unwrap();
    Loaded { model, tokens }
}

fn options() -> ProbeOptions {
    ProbeOptions { window: 128, windows: 2, ..ProbeOptions::default() }
}

fn changed(model: &Model, tensor: &str) -> Model {
    let mut overlay = Overlay::new(model);
    overlay.encode(tensor, rwkv_forge_quant::by_name("q4_0").unwrap().encoding(), None).unwrap();
    overlay.into_model()
}

fn harms_of(probe: &mut Probe<'_>, known: Probed, seconds: u64) -> (Vec<TensorHarm>, Probed) {
    let container = by_name("gguf").unwrap();
    let with = HarmOptions { container, calibration: None, budget: Duration::from_secs(seconds), known };
    let mut last = Probed::default();
    let (found, _) = harms(probe, &with, &mut |step| last = step.probed.clone()).unwrap();
    (found, last)
}

/// A probe that starts at its own layer finds what is found from the other side, with everything else recomputed.
#[test]
fn restarting_changes_nothing() {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    for version in ["4", "6", "7"] {
        let Loaded { model, tokens } = loaded(version);
        let mut probe = Probe::new(&model, &tokens, options()).unwrap();
        for name in ["emb.weight", "blocks.0.att.value.weight", "blocks.2.ffn.key.weight", "head.weight"] {
            let overlay = changed(&model, name);
            let place = Place::of(model.description().find(name).unwrap());
            let own = probe.divergence(&overlay, place).unwrap();
            assert!(own.len() == probe.scored() && own.iter().all(|kl| *kl >= 0.0), "{name}");
            // The whole changed model as the reference, and its tensor put back.
            let mut other = Probe::new(&overlay, &tokens, options()).unwrap();
            let reverse = other.divergence(&Overlay::new(&model).into_model(), place).unwrap();
            // KL(a || b) and KL(b || a) agree to second order. Restarted at another layer, or with other values of layer 0, they would
            // differ by orders of magnitude.
            let (own, reverse) = (mean(&own), mean(&reverse));
            assert!(own > 1e-5 && (own / reverse).ln().abs() < 0.2, "RWKV-{version} {name}: {own:e} {reverse:e}");
        }
    }
}

#[test]
fn an_unchanged_model_does_no_harm() {
    let Loaded { model, tokens } = loaded("7");
    let mut probe = Probe::new(&model, &tokens, options()).unwrap();
    let same = Overlay::new(&model).into_model();
    for place in [Place::Embedding, Place::Layer(0), Place::Layer(1), Place::Layer(2), Place::Head] {
        assert!(probe.divergence(&same, place).unwrap().iter().all(|kl| *kl == 0.0), "{place:?}");
    }
    // Planted: a change in a layer before the one that is restarted is not seen, so a wrong place would show.
    let overlay = changed(&model, "blocks.0.att.value.weight");
    assert!(probe.divergence(&overlay, Place::Layer(2)).unwrap().iter().all(|kl| *kl == 0.0));
    assert!(probe.divergence(&overlay, Place::Layer(0)).unwrap().iter().any(|kl| *kl > 0.0));
}

#[test]
fn memory_and_threads_change_no_digit() {
    let Loaded { model, tokens } = loaded("7");
    let of = |threads: usize, max_memory: u64| {
        let options = ProbeOptions { threads: threads.try_into().unwrap(), max_memory, ..options() };
        harms_of(&mut Probe::new(&model, &tokens, options).unwrap(), Probed::default(), 600)
    };
    let one = of(1, 1 << 30);
    assert!(of(3, 0) == one);
    // One layer of three is kept.
    assert!(of(2, 600_000) == one);
}

#[test]
fn known_probes_are_not_made_again() {
    let Loaded { model, tokens } = loaded("7");
    let mut probe = Probe::new(&model, &tokens, options()).unwrap();
    let (all, probes) = harms_of(&mut probe, Probed::default(), 600);
    assert!(all.iter().all(|harm| harm.divergence.is_some()) && probes.0.len() > all.len(), "a few at two types");
    // Without any time, what is known is used.
    assert!(harms_of(&mut probe, probes.clone(), 0).0 == all);
    // What is not is interpolated, after one probe of each kind.
    let (some, fewest) = harms_of(&mut probe, Probed::default(), 0);
    let kinds = some.iter().filter(|harm| harm.divergence.is_some()).count();
    assert!(kinds == 16 && fewest.0.len() < probes.0.len(), "{kinds}");
    let mut off: Vec<f64> = some.iter().zip(&all).map(|(some, all)| (some.harms[0] / all.harms[0]).ln().abs()).collect();
    off.sort_by(f64::total_cmp);
    // Half are right within a factor of 2, and none is off by 30: measured 1.1 and 11. Neighbours of another kind are off by 100.
    assert!(off[off.len() / 2] < 2f64.ln() && off[off.len() - 1] < 30f64.ln(), "{off:?}");
}

#[test]
fn types_are_those_that_the_container_and_the_rows_allow() {
    let Loaded { model, .. } = loaded("7");
    let own = model.description().mechanisms.time_mix;
    let names = |container: &str, time_mix: TimeMix, tensor: &str| -> Vec<&'static str> {
        let spec = model.description().find(tensor).unwrap();
        let found = tensor_types_with_errors(&model, time_mix, spec, by_name(container).unwrap(), None).unwrap();
        let falls = found.windows(2).all(|pair| pair[0].bytes < pair[1].bytes && pair[0].error > pair[1].error);
        assert!(falls, "{found:?}");
        found.iter().map(|kind| kind.encoding.name).collect()
    };
    let (value, key) = ("blocks.1.ffn.value.weight", "blocks.1.att.key.weight");
    assert_eq!(names("gguf", own, value), ["q2_k", "q3_k", "iq4_xs", "q4_k", "q5_k", "q6_k", "q8_0", "f16"]);
    assert_eq!(names("rwkv-cpp", own, value), ["q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "q8_0", "f16"]);
    assert_eq!(names("prefab", own, value), ["nf4", "int8", "f16"]);
    assert_eq!(names("gguf", own, key), ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "f16"]);
    assert_eq!(names("rwkv-cpp", TimeMix::Wkv4, key), ["q4_1", "q5_0", "q5_1", "q8_0", "f16"], "never a plain Q4_0 for RWKV-4");
    // The decay's second factor does not go below five bits.
    assert_eq!(names("gguf", own, "blocks.1.att.w2"), ["q5_0", "q5_1", "q8_0", "f16"]);
    // What containers fix is not open.
    let open = |container: &str| -> Vec<TensorRole> {
        let container = by_name(container).unwrap();
        model.description().tensors.iter().filter(|spec| is_open(model.description(), container, spec)).map(|spec| spec.role).collect()
    };
    assert!(open("gguf").contains(&TensorRole::DecayLora) && open("gguf").contains(&TensorRole::Embedding));
    assert!(!open("rwkv-cpp").contains(&TensorRole::DecayLora) && open("rwkv-cpp").contains(&TensorRole::Head));
    assert!(!open("prefab").contains(&TensorRole::Head) && open("prefab").len() == 18);
    assert!(open("hf").is_empty());
}

#[test]
fn too_little_text_is_refused() {
    let Loaded { model, tokens } = loaded("7");
    let found = Probe::new(&model, &tokens[..100], options());
    assert!(found.is_err_and(|error| error.kind() == "TooLittleText"));
}
