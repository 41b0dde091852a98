//! Comparisons of models that are equal, slightly different, damaged, or of different kinds.
#![allow(clippy::unwrap_used, reason = "test code: failing loudly is its purpose")]

use crate::support;

use std::num::NonZeroUsize;

use crate::support::{Loaded, random, tokens};
use rwkv_forge_eval::{Agreement, CompareOptions, EvalError, Kernel, PassOptions, Progress, Runnable, Thresholds, compare, compare_all};
use rwkv_forge_kernel::RecurrentModel;
use rwkv_forge_model::Version;
use rwkv_forge_tensor::Diagnostic;
use rwkv_forge_weights::State;

fn agreement(a: &Loaded, b: &Loaded, tokens: &[u32]) -> Agreement {
    try_compare(a, b, &CompareOptions::new(tokens, Kernel::Reference)).unwrap()
}

fn try_compare(a: &Loaded, b: &Loaded, options: &CompareOptions<'_>) -> Result<Agreement, EvalError> {
    compare(&a.runnable(), &b.runnable(), options, &mut |_| ())
}

#[test]
fn a_model_agrees_with_itself() {
    for version in Version::ALL {
        let model = random(version, 1);
        let result = agreement(&model, &model, &tokens(60));
        assert!(result.identical, "{version}");
        assert_eq!((result.positions, result.vocabulary), (60, 50));
        assert_eq!((result.kl.mean, result.kl.max, result.kl.interval), (0.0, 0.0, None), "{version}");
        assert_eq!(result.kl.no_interval.unwrap().to_string(), "1 of the 8 windows of 32 positions that an interval needs", "{version}");
        assert_eq!((result.max_abs.value, result.rms_ratio, result.nmse), (0.0, 0.0, 0.0), "{version}");
        assert_eq!((result.top1.agree, result.top1.fraction, result.first_divergence), (60, 1.0, None), "{version}");
        assert_eq!(result.perplexity.map(|p| p.ratio), Some(1.0), "{version}");
        assert_eq!(result.layers.len(), 3, "{version}");
        for layer in &result.layers {
            for part in [layer.residual.unwrap(), layer.state.unwrap()] {
                assert!(part.identical && part.max_abs == 0.0 && part.rms_ratio == 0.0, "{version}: {layer:?}");
            }
        }
        let strict = Thresholds { max_kl: Some(0.0), max_abs: Some(0.0), min_top1: Some(1.0), ..Thresholds::default() };
        assert_eq!(strict.violations(&result), Vec::<String>::new());
    }
}

#[test]
fn a_changed_tensor_is_located() {
    for version in Version::ALL {
        let model = random(version, 2);
        for (name, layer) in [("blocks.1.att.value.weight", 1), ("blocks.2.ffn.key.weight", 2)] {
            let changed = model.edited(name, |index, value| if index == 5 { value + 0.25 } else { value });
            let result = agreement(&model, &changed, &tokens(40));
            assert!(!result.identical && result.kl.mean > 0.0 && result.max_abs.value > 0.0, "{version}: {name}");
            let first = result.layers.iter().position(|l| !l.residual.unwrap().identical);
            assert_eq!(first, Some(layer), "{version}: {name}");
            assert!(result.layers[layer].residual.unwrap().rms_ratio > 0.0);
            let state_differs = !result.layers[layer].state.unwrap().identical;
            // The value feeds the WKV state; the channel mix's key feeds no state of its own layer.
            assert_eq!(state_differs, layer == 1, "{version}: {name}");
        }
        // A change of the head shows in the logits only.
        let changed = model.edited("head.weight", |index, value| if index == 0 { value + 1.0 } else { value });
        let result = agreement(&model, &changed, &tokens(40));
        assert!(!result.identical && result.layers.iter().all(|l| l.residual.unwrap().identical), "{version}");
        assert_eq!(result.max_abs.token, 0, "{version}");
    }
}

#[test]
fn results_do_not_depend_on_threads_or_groups() {
    for (version, kernel) in [Version::V4, Version::V7].into_iter().flat_map(|v| [(v, Kernel::Reference), (v, Kernel::Engine)]) {
        let model = random(version, 3);
        let changed = model.edited("blocks.0.ffn.value.weight", |index, value| if index % 7 == 0 { value * 1.02 } else { value });
        let fed = tokens(150);
        // A token takes 512 bytes of activations, and a group a quarter of what they may take; with fewer than 150 they are on the disk.
        let run = |threads, tokens_in_memory: u64| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let at_once = NonZeroUsize::new(threads).unwrap();
            let whole_head = tokens_in_memory.is_multiple_of(2);
            let pass = PassOptions { kernel, threads: at_once, whole_head, max_memory: tokens_in_memory * 512, ..PassOptions::default() };
            pool.install(|| try_compare(&model, &changed, &CompareOptions { tokens: &fed, pass }).unwrap())
        };
        let one = run(1, 1 << 20);
        assert!(one.kl.mean > 0.0);
        for (threads, memory) in [(2, 1 << 20), (7, 1 << 20), (1, 0), (2, 4), (7, 40), (3, 149), (2, 151), (2, 590)] {
            assert_eq!(run(threads, memory), one, "{version} by {}: {threads} threads, {memory} tokens in memory", kernel.name());
        }
    }
}

/// Log-probabilities of dense f64 logits.
fn log_softmax(row: &[f64]) -> Vec<f64> {
    let max = row.iter().copied().fold(f64::MIN, f64::max);
    let sum: f64 = row.iter().map(|v| (v - max).exp()).sum();
    row.iter().map(|v| v - max - sum.ln()).collect()
}

fn dense(model: &Loaded, tokens: &[u32]) -> Vec<Vec<f64>> {
    let m = model.runnable();
    let kernel = RecurrentModel::<f32>::load(&m.model, &m.options).unwrap();
    let logits = kernel.forward(tokens, &mut State::zero(m.description())).unwrap();
    logits.chunks(m.description().hyperparameters.vocabulary).map(|row| row.iter().map(|v| f64::from(*v)).collect()).collect()
}

#[test]
fn measures_equal_a_dense_computation() {
    let model = random(Version::V6, 4);
    let changed = model.edited("blocks.1.att.key.weight", |_, value| (value * 8.0).round() / 8.0);
    let fed = tokens(80);
    let result = agreement(&model, &changed, &fed);
    let (a, b) = (dense(&model, &fed), dense(&changed, &fed));
    let (la, lb): (Vec<_>, Vec<_>) = (a.iter().map(|r| log_softmax(r)).collect(), b.iter().map(|r| log_softmax(r)).collect());
    let kl: Vec<f64> = la.iter().zip(&lb).map(|(p, q)| p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum()).collect();
    for (position, (got, want)) in result.per_position.kl.iter().zip(&kl).enumerate() {
        // Both sides in f64: sums of 50 terms of order 1.
        assert!((got - want).abs() < 1e-13, "position {position}: {got} against {want}");
    }
    assert!((result.kl.mean - kl.iter().sum::<f64>() / 80.0).abs() < 1e-13 && result.kl.mean > 1e-6);
    assert!(result.kl.median <= result.kl.p99 && result.kl.p99 <= result.kl.max);
    let best = |row: &[f64]| row.iter().enumerate().fold((0, f64::MIN), |m, (i, v)| if *v > m.1 { (i, *v) } else { m }).0;
    let same: Vec<bool> = a.iter().zip(&b).map(|(a, b)| best(a) == best(b)).collect();
    assert_eq!(result.per_position.top1, same);
    assert_eq!(result.top1.agree, same.iter().filter(|s| **s).count());
    assert_eq!(result.first_divergence, same.iter().position(|s| !s));
    let differences = || a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs());
    assert_eq!(result.max_abs.value, differences().fold(0.0, f64::max));
    let worst = (a[result.max_abs.position][result.max_abs.token] - b[result.max_abs.position][result.max_abs.token]).abs();
    assert_eq!(worst, result.max_abs.value);
    let nmse = differences().map(|d| d * d).sum::<f64>() / a.iter().flatten().map(|v| v * v).sum::<f64>();
    assert!((result.nmse / nmse - 1.0).abs() < 1e-12);
    let nll = |rows: &[Vec<f64>]| rows.iter().zip(&fed[1..]).map(|(row, next)| -row[*next as usize]).sum::<f64>() / 79.0;
    let perplexity = result.perplexity.unwrap();
    assert!((perplexity.reference / nll(&la).exp() - 1.0).abs() < 1e-12);
    assert!((perplexity.candidate / nll(&lb).exp() - 1.0).abs() < 1e-12);
    assert!((perplexity.ratio - perplexity.candidate / perplexity.reference).abs() < 1e-12);
    assert_eq!(perplexity.tokens, 79);
}

#[test]
fn intervals_draw_windows_of_32_positions() {
    let model = random(Version::V5_1, 10);
    let changed = model.edited("blocks.2.att.value.weight", |_, value| (value * 16.0).round() / 16.0);
    let fed = tokens(300);
    let few = agreement(&model, &changed, &fed[..255]);
    assert_eq!((few.kl.interval, few.kl.no_interval.map(|few| few.found)), (None, Some(7)));
    let json = serde_json::to_value(&few).unwrap();
    assert!(json["kl"]["interval"].is_null());
    assert_eq!(json["kl"]["no_interval"], "7 of the 8 windows of 32 positions that an interval needs");
    let result = agreement(&model, &changed, &fed);
    let ([low, high], mean) = (result.kl.interval.unwrap(), result.kl.mean);
    assert!(low < mean && mean < high && result.kl.no_interval.is_none());
    let perplexity = result.perplexity.unwrap();
    assert!(perplexity.ratio_interval.is_some_and(|[low, high]| low < perplexity.ratio && perplexity.ratio < high));
    // The interval is that of means of 9 windows, not of 300 positions: drawn by hand from another seed, it is as wide.
    let kl = &result.per_position.kl;
    let windows: Vec<&[f64]> = (0..9).map(|window| &kl[window * 32..if window == 8 { 300 } else { window * 32 + 32 }]).collect();
    let mut random = 7u64;
    let mut draw = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        windows[(random >> 33) as usize % 9]
    };
    let mut means: Vec<f64> = (0..4000)
        .map(|_| {
            let drawn: Vec<&[f64]> = (0..9).map(|_| draw()).collect();
            drawn.concat().iter().sum::<f64>() / drawn.concat().len() as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    // Ends of 1000 drawings scatter by a few hundredths of the width.
    let ratio = (high - low) / (means[3899] - means[99]);
    assert!((0.85..1.15).contains(&ratio), "{ratio}");
}

#[test]
fn damage_is_refused_with_its_place() {
    let model = random(Version::V7, 5);
    let fed = tokens(20);
    let broken = model.edited("blocks.1.ffn.value.weight", |index, value| if index == 3 { f32::NAN } else { value });
    let error = try_compare(&model, &broken, &CompareOptions::new(&fed, Kernel::Reference)).unwrap_err();
    assert!(error.kind() == "NonFinite" && error.to_string().contains("blocks.1.ffn.value.weight"), "{error}");
    // Finite weights whose products are not.
    let broken = model.edited("blocks.1.ffn.value.weight", |_, _| 3e38);
    for (a, b, who) in [(&model, &broken, "candidate"), (&broken, &model, "reference")] {
        match try_compare(a, b, &CompareOptions::new(&fed, Kernel::Reference)).unwrap_err() {
            EvalError::NonFinite { model, place, position, .. } => {
                assert_eq!((model, place.as_str(), position), (who, "the output of layer 1", 0));
            }
            other => panic!("{other}"),
        }
    }
    let broken = model.edited("head.weight", |index, value| if index / 64 == 7 { 3e38 } else { value });
    match try_compare(&model, &broken, &CompareOptions::new(&fed, Kernel::Reference)).unwrap_err() {
        error @ EvalError::NonFinite { model: "candidate", element: 7, .. } => assert_eq!(error.kind(), "NonFinite"),
        other => panic!("{other}"),
    }
    let zero = model.edited("head.weight", |_, _| 0.0);
    let error = try_compare(&zero, &zero, &CompareOptions::new(&fed, Kernel::Reference)).unwrap_err();
    assert_eq!(error.kind(), "VanishingReference");
    assert_eq!(try_compare(&model, &model, &CompareOptions::new(&[], Kernel::Reference)).unwrap_err().kind(), "NoTokens");
    assert_eq!(try_compare(&model, &model, &CompareOptions::new(&[1, 50], Kernel::Reference)).unwrap_err().kind(), "TokenOutOfRange");
    let larger = support::random_with_vocabulary(Version::V7, 5, 51);
    let error = try_compare(&model, &larger, &CompareOptions::new(&fed, Kernel::Reference)).unwrap_err();
    assert_eq!(error.kind(), "VocabularyMismatch");
    assert!(error.to_string().contains("50") && error.to_string().contains("51"), "{error}");
}

#[test]
fn different_versions_compare_by_their_logits() {
    let (a, b) = (random(Version::V4, 6), random(Version::V7, 6));
    let result = agreement(&a, &b, &tokens(30));
    assert!(result.kl.mean > 1e-3);
    assert!(result.layers.iter().all(|l| l.residual.is_some() && l.state.is_none()));
    assert!(agreement(&b, &a, &tokens(1)).perplexity.is_none());
}

#[test]
fn thresholds_name_what_they_miss() {
    let model = random(Version::V5_2, 7);
    let changed = model.edited("head.weight", |index, value| if index % 3 == 0 { -value } else { value });
    let result = agreement(&model, &changed, &tokens(40));
    let zero = Some(0.0);
    let all =
        Thresholds { max_kl: zero, max_kl_p99: zero, min_top1: Some(1.0), max_abs: zero, max_rms_ratio: zero, max_perplexity_ratio: zero };
    let found = all.violations(&result);
    assert_eq!(found.len(), 6, "{found:?}");
    assert!(found[0].starts_with("mean KL is ") && found[0].ends_with(", more than 0"), "{found:?}");
    assert!(Thresholds::default().violations(&result).is_empty());
    let loose = Thresholds { max_kl: Some(1e9), min_top1: Some(0.0), max_abs: Some(1e9), ..Thresholds::default() };
    assert!(loose.violations(&result).is_empty());
    let nan = Thresholds { min_top1: Some(f64::NAN), ..Thresholds::default() };
    assert_eq!(nan.violations(&result).len(), 1);
}

#[test]
fn progress_counts_to_its_total() {
    let model = random(Version::V6, 8);
    let fed = tokens(10);
    let mut seen = Vec::new();
    let options = CompareOptions::new(&fed, Kernel::Reference);
    compare(&model.runnable(), &model.runnable(), &options, &mut |p| seen.push(p)).unwrap();
    assert_eq!(seen.len(), 3 + 3 + 1);
    assert!(seen.iter().enumerate().all(|(i, p)| p.done == i + 1 && p.total == 7));
    assert_eq!(seen.last(), Some(&Progress { stage: "head", done: 7, total: 7 }));
    // Of more positions than the head takes at once, and of two candidates.
    let fed = tokens(600);
    let options = CompareOptions::new(&fed, Kernel::Engine);
    let run = || model.runnable().runner(&options.pass).unwrap();
    seen.clear();
    compare_all(run(), vec![run(), run()], &options, &mut |p| seen.push(p)).unwrap();
    assert!(seen.windows(2).all(|pair| pair[0].done <= pair[1].done) && seen.iter().all(|p| p.total == 9 + 3));
    assert_eq!(seen.last(), Some(&Progress { stage: "head", done: 12, total: 12 }));
}

#[test]
fn candidates_in_lock_step_are_compared_as_each_alone() {
    let model = random(Version::V7, 20);
    let close = model.edited("blocks.1.att.value.weight", |index, value| if index == 5 { value + 0.25 } else { value });
    let far = model.edited("blocks.0.ffn.key.weight", |_, value| (value * 4.0).round() / 4.0);
    let deep = support::random_with_layers(Version::V7, 20, 5);
    let fed = tokens(400);
    let options = CompareOptions::new(&fed, Kernel::Reference);
    let candidates = [&close, &far, &deep, &model];
    let runners = candidates.map(|candidate| candidate.runnable().runner(&options.pass).unwrap());
    let found = compare_all(model.runnable().runner(&options.pass).unwrap(), runners.into(), &options, &mut |_| ()).unwrap();
    let alone = candidates.map(|candidate| agreement(&model, candidate, &fed));
    assert_eq!(found, alone);
    assert!(found[0].kl.mean > 0.0 && found[1].kl.mean > found[0].kl.mean && found[3].identical);
    assert!(found[2].layers.is_empty() && found[1].layers.len() == 3);
    let empty = compare_all(model.runnable().runner(&options.pass).unwrap(), Vec::new(), &options, &mut |_| ()).unwrap();
    assert!(empty.is_empty());
}

#[test]
fn a_record_has_the_documented_fields() {
    let model = random(Version::V4, 9);
    let result = agreement(&model, &model, &tokens(5));
    let full = serde_json::to_value(&result).unwrap();
    assert_eq!(full["per_position"]["kl"].as_array().unwrap().len(), 5);
    let short = serde_json::to_value(result.summary()).unwrap();
    assert!(short.get("per_position").is_none());
    for field in ["positions", "identical", "max_abs", "rms_ratio", "nmse", "top1", "kl", "perplexity", "first_divergence", "layers"] {
        assert!(short.get(field).is_some(), "{field}");
    }
    assert_eq!(short["identical"], true);
}

#[test]
fn perplexity_of_a_trained_model_is_the_recorded_one() {
    for name in ["tiny-rwkv4", "tiny-rwkv7"] {
        let model = Loaded::fixture(name);
        let mut fed = vec![0];
        fed.extend(support::recorded_tokens());
        let result = agreement(&model, &model, &fed);
        let suffix = if name == "tiny-rwkv7" { "" } else { "-from-f32-file" };
        let recorded = support::npy_f32(&format!("oracles/{name}.logprobs4096{suffix}.npy"));
        let mean = recorded.iter().map(|v| -f64::from(*v)).sum::<f64>() / recorded.len() as f64;
        // The kernel's log-probabilities are within 1e-5 of the recorded ones, one by one.
        assert!((result.perplexity.unwrap().reference.ln() - mean).abs() < 1e-5, "{name}");
    }
}

#[test]
fn fewer_bits_diverge_more() {
    let model = Loaded::fixture("tiny-rwkv7");
    let fed = &support::recorded_tokens()[..512];
    let kl = |format: &str| agreement(&model, &model.quantized(format), fed).kl.mean;
    let (q8, q5, q4) = (kl("q8_0"), kl("q5_1"), kl("q4_0"));
    assert!(0.0 < q8 && 4.0 * q8 < q5 && q5 < q4 && q4 < 0.5, "{q8} {q5} {q4}");
    let model = Runnable { options: rwkv_forge_kernel::KernelOptions { group_norm_eps: 1e-5 }, ..model.runnable() };
    let original = Loaded::fixture("tiny-rwkv7");
    let result = compare(&original.runnable(), &model, &CompareOptions::new(fed, Kernel::Reference), &mut |_| ()).unwrap();
    assert!(!result.identical && result.kl.mean > 0.0, "the options of each model count");
}
