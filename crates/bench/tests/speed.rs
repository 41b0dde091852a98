//! A whole run on small random models: what the report says must fit together.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::cell::Cell;
use std::num::NonZeroUsize;

use rwkv_forge_bench::{BenchError, Doubt, Quiet, Report, Settings, Subject, run};
use rwkv_forge_engine::{Arithmetic, EngineOptions, Isa};
use rwkv_forge_model::Version;
use rwkv_forge_testkit::models::{MemorySource, Sizes, random_model};
use rwkv_forge_weights::Model;

const SETTINGS: Settings = Settings { tokens: 5, repeat: 3, prompts: Vec::new(), loads: 2, position: 9, buffer_bytes: Some(8 << 20) };

fn model(version: Version) -> MemorySource {
    random_model(version, &Sizes::TINY, 1)
}

fn measured(versions: &[Version], ways: &[EngineOptions], settings: &Settings) -> Report {
    let models = versions.iter().map(|version| Model::describe(model(*version)).unwrap());
    let mut subjects = Vec::new();
    for model in models {
        let name = model.description().version.to_string();
        subjects.extend(ways.iter().map(|options| Subject {
            name: name.clone(),
            model: model.clone(),
            file_bytes: 1_000_000,
            options: *options,
        }));
    }
    let (next, total) = (Cell::new(0), Cell::new(0));
    let report = run(&subjects, settings, &|done, all, what| {
        assert!(done == next.get() && done <= all, "{done} of {all}, expected {}", next.get());
        assert_eq!(what.is_empty(), done == all, "every step says what it is: {what:?}");
        next.set(done + 1);
        total.set(all);
    });
    assert_eq!(next.get(), total.get() + 1, "the steps come to an end");
    report.unwrap()
}

fn way(threads: usize) -> EngineOptions {
    EngineOptions { threads: NonZeroUsize::new(threads).unwrap(), ..EngineOptions::default() }
}

#[test]
fn the_figures_fit_together() {
    let versions = [Version::V4, Version::V7];
    let settings = Settings { prompts: vec![7, 20], ..SETTINGS };
    let report = measured(&versions, &[way(1), way(2)], &settings);
    assert_eq!(report.models.len(), 4);
    assert_eq!(
        report.bandwidth.iter().map(|b| (b.threads, b.buffer_bytes, b.bytes_per_second.count)).collect::<Vec<_>>(),
        [(1, 8 << 20, 3), (2, 8 << 20, 3)]
    );
    for (index, model) in report.models.iter().enumerate() {
        let bandwidth = report.bandwidth[index % 2].bytes_per_second.median;
        let decode = &model.decode;
        assert_eq!((model.threads, model.version.as_str()), (index % 2 + 1, ["RWKV-4", "RWKV-7"][index / 2]));
        assert_eq!((decode.tokens_per_second.count, decode.token_seconds.count), (3, 15));
        assert_eq!(decode.read_bytes_per_second, decode.tokens_per_second.median * decode.read_bytes_per_token as f64);
        assert!((decode.bandwidth_share * bandwidth / decode.read_bytes_per_second - 1.0).abs() < 1e-12);
        // A round's time is the sum of its tokens' times, so no rate is outside of what single tokens allow.
        assert!(
            decode.tokens_per_second.max <= 1.0 / decode.token_seconds.min
                && decode.tokens_per_second.min >= 1.0 / decode.token_seconds.max
        );
        assert_eq!(model.prompt.iter().map(|p| (p.tokens, p.tokens_per_second.count)).collect::<Vec<_>>(), [(7, 3), (20, 3)]);
        assert_eq!(model.positions.iter().map(|p| (p.position, p.tokens_per_second.count)).collect::<Vec<_>>(), [(1, 3), (4, 3), (9, 3)]);
        let medians: Vec<f64> = model.positions.iter().map(|p| p.tokens_per_second.median).collect();
        let (min, max) = medians.iter().fold((f64::MAX, 0.0), |(low, high): (f64, f64), m| (low.min(*m), high.max(*m)));
        assert_eq!(model.position_spread, Some((max - min) / max));
        assert_eq!(model.load.seconds.count, 2);
        let memory = &model.memory;
        assert_eq!(memory.predicted.state, memory.used.state);
        // Vectors that are kept in another form than in the file are not predicted one by one.
        assert!(memory.predicted.weights.abs_diff(memory.used.weights) * 100 <= memory.used.weights);
        assert!(memory.used.batch > 0, "prompts need room");
        // All in f32, of which the embedding stays in the file.
        assert_eq!((model.encoding.as_str(), model.file_bytes), ("f32", 1_000_000));
        assert!(decode.read_bytes_per_token < model.parameters * 4 && decode.read_bytes_per_token <= memory.used.weights + 4096);
    }
}

#[test]
fn documents() {
    let scalar = EngineOptions { isa: Some(Isa::by_name("scalar").unwrap()), arithmetic: Arithmetic::Float, ..way(1) };
    let settings = Settings { prompts: vec![4], ..SETTINGS };
    let report = measured(&[Version::V6], &[way(1), scalar], &settings);
    let json = serde_json::to_value(&report).unwrap();
    assert!(json["models"][0]["decode"]["tokens_per_second"]["median"].as_f64().unwrap() > 0.0);
    assert!(json["models"][1]["prompt"][0]["tokens_per_second"]["quartile_3"].as_f64().unwrap() > 0.0);
    assert_eq!((&json["models"][1]["isa"], &json["models"][1]["form"]), (&"scalar".into(), &"float".into()));
    assert!(json["machine"]["cpu"].as_str().is_some_and(|cpu| !cpu.is_empty()));

    let csv = report.to_csv().unwrap();
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!((lines.len(), lines[1].len()), (3, lines[0].len()));
    let column = lines[0].iter().position(|name| *name == "decode_tokens_per_second").unwrap();
    assert_eq!(lines[1][column].parse::<f64>().unwrap(), report.models[0].decode.tokens_per_second.median);

    // How quiet it was is in all of them, and what is to be distrusted is marked.
    assert!(json["quiet"].get("others_share").is_some() && json["models"][0]["doubts"].is_array());
    assert!(lines[0].contains(&"doubts") && lines[0].contains(&"others_cpu_share"));
    let mut noisy = report.clone();
    noisy.models[0].doubts =
        vec![Doubt::BeyondMemory { share: 2.18 }, Doubt::Spread { relative: 0.3 }, Doubt::OtherPrograms { share: 0.25 }];
    noisy.models[1].doubts = vec![Doubt::OtherPrograms { share: 0.25 }];
    noisy.quiet = Quiet { load_average: Some(3.5), others_share: Some(0.25) };
    let told = noisy.to_markdown(false).unwrap();
    assert!(told.contains("other programs took 25.0 % of the processors' time; the load average before was 3.50."), "{told}");
    assert!(
        told.contains("To be distrusted (?): RWKV-6") && told.contains("218 % of the memory's bandwidth is more than there is"),
        "{told}"
    );
    assert_eq!(told.matches(" % ?").count(), 3, "{told}");
    assert_eq!(told.matches("all speeds: other programs took 25 %").count(), 1, "{told}");
    assert!(noisy.to_csv().unwrap().contains(",0.25,beyond_memory spread other_programs,"), "{}", noisy.to_csv().unwrap());

    let text = report.to_markdown(true).unwrap();
    assert!(text.contains("RWKV-6 scalar float") && text.contains("prompt 4 ratio") && text.contains("at 9"), "{text}");
    assert!(!report.to_markdown(false).unwrap().contains("ratio"));
    assert!(report.to_svg().unwrap().contains("position"));
    let without = measured(&[Version::V5_2], &[way(2)], &Settings { position: 0, ..SETTINGS });
    assert!(without.models[0].prompt.is_empty() && without.models[0].position_spread.is_none() && without.position_table().is_none());
    let svg = without.to_svg().unwrap();
    assert!(svg.contains("read bandwidth") && svg.contains(">RWKV-5.2</text>"), "every point has its name beside it: {svg}");
}

#[test]
fn what_measures_nothing_is_refused() {
    let subject = Subject { name: "m".to_owned(), model: Model::describe(model(Version::V7)).unwrap(), file_bytes: 1, options: way(1) };
    let error = run(&[subject], &Settings { repeat: 0, ..SETTINGS }, &|_, _, _| ()).unwrap_err();
    assert!(matches!(error, BenchError::Setting { found: 0, .. }), "{error}");
}
