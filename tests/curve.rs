//! `bench curve`, as users see it.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use crate::support;

use crate::support::{Dir, checkpoint, error_kind, json};
use serde_json::Value;

/// The documents of `--json` for one form.
fn of<'a>(document: &'a Value, list: &str, form: &str) -> &'a Value {
    document[list].as_array().unwrap().iter().find(|entry| entry["form"] == form).unwrap()
}

#[test]
fn the_curve_of_a_tiny_model_has_files_laws_and_exact_bytes() {
    let dir = Dir::new();
    let stem = dir.join("curve");
    let model = checkpoint("7");
    let args = ["bench", "curve", model.to_str().unwrap(), "--positions", "64", "-o", stem.to_str().unwrap()];
    let document = json(&args, 0);
    assert_eq!(document["command"], "bench curve");
    assert_eq!(dir.names(), ["curve-memory.svg", "curve-time.svg", "curve.csv"]);

    let positions = |form: &str| {
        let points = of(&document, "series", form)["points"].as_array().unwrap().clone();
        points.iter().map(|point| (point["position"].as_u64().unwrap(), point["bytes"].as_u64().unwrap())).collect::<Vec<_>>()
    };
    // Three layers: two token shifts of 128 and two heads of 64 x 64, in f32.
    let state = 3 * (2 * 128 + 2 * 64 * 64) * 4;
    for form in ["recurrent", "recurrent, on candle"] {
        assert_eq!(positions(form), (0..7).map(|k| (1 << k, state)).collect::<Vec<_>>(), "{form}");
        assert_eq!(of(&document, "laws", form)["bytes"]["whole"], 0, "{form}");
    }
    // Keys and values of 128 channels in three layers.
    assert_eq!(positions("attention with a cache"), (0..7).map(|k| (1 << k, (3 * 2 * 128 * 4) << k)).collect::<Vec<_>>());
    // A token id and the residual stream.
    assert_eq!(positions("parallel, computed anew"), (0..7).map(|k| (1 << k, (4 + 128 * 4) << k)).collect::<Vec<_>>());
    assert_eq!(of(&document, "laws", "attention with a cache")["bytes"]["whole"], 1);

    for series in document["series"].as_array().unwrap() {
        let seconds: Vec<f64> =
            series["points"].as_array().unwrap().iter().map(|point| point["cumulative_seconds"].as_f64().unwrap()).collect();
        assert!(seconds.is_sorted_by(|a, b| a < b) && seconds[0] > 0.0, "{seconds:?}");
    }
    // What else ran is told, as `bench` tells it.
    assert!(document["quiet"].is_object(), "{document}");
    let csv = std::fs::read_to_string(dir.join("curve.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 4 * 7);
    for name in ["curve-time.svg", "curve-memory.svg"] {
        let svg = std::fs::read_to_string(dir.join(name)).unwrap();
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"), "{name}");
        // Each form has a shape of its own, and what stands in a point's title is what it is.
        assert_eq!(svg.matches("<title>").count(), 4 * 7 + 4 + 1, "{name}: every point, every form, and the whole");
    }
    // What is there is not replaced, and nothing is left beside it.
    assert_eq!(error_kind(&args, 2), "OutputExists");
    assert_eq!(dir.names().len(), 3);
}

/// Files are written where somebody asked for them, never beside the model.
#[test]
fn nothing_is_written_unasked() {
    let dir = Dir::new();
    let model = dir.join("model.pth");
    std::fs::copy(checkpoint("7"), &model).unwrap();
    let args = ["bench", "curve", model.to_str().unwrap(), "--positions", "8"];
    let output = support::forge().current_dir(dir.path()).args(args).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && printed.contains("attention with a cache") && !printed.contains("wrote"), "{printed}");
    assert_eq!(json(&args, 0)["files"], serde_json::json!([]));
    assert_eq!(dir.names(), ["model.pth"]);
    assert_eq!(support::run(&[&args[..], &["--force"]].concat()).status.code(), Some(2), "there is nothing to replace");
}

#[test]
fn every_version_has_a_curve_and_usage_is_checked() {
    let dir = Dir::new();
    for version in ["4", "5", "6"] {
        let (stem, model) = (dir.join(version), checkpoint(version));
        let args = ["bench", "curve", model.to_str().unwrap(), "--positions", "8", "-o", stem.to_str().unwrap()];
        let document = json(&args, 0);
        let whole = &of(&document, "laws", "recurrent")["bytes"]["whole"];
        assert_eq!(whole, 0, "RWKV-{version}");
    }
    assert_eq!(support::run(&["bench", "curve"]).status.code(), Some(2));
    assert_eq!(support::run(&["bench", "curve", "x", "--positions", "0"]).status.code(), Some(2));
    let stem = dir.join("absent");
    assert!(!error_kind(&["bench", "curve", "absent.pth", "-o", stem.to_str().unwrap()], 4).is_empty());
    assert_eq!(dir.names().len(), 9, "three files for each of three versions");
}
