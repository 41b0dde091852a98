//! `eval --levels`: what files of several types would lose, without writing any.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::support::{Dir, checkpoint, convert_args, error_kind, fixture, forge, json, run, vocab};
use serde_json::Value;

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// `eval --levels` of a tiny model on a few kilobytes.
fn levels(version: &str, types: &str, cache: &Path, more: &[&str]) -> Vec<String> {
    let words = ["eval", &text(checkpoint(version)), "--levels", types, "--vocab", &text(vocab()), "--cache", &text(cache)];
    let passage = ["--text", &text(fixture("text/public-domain-100k.txt"))].map(str::to_owned);
    let mut args: Vec<String> = words.map(str::to_owned).into_iter().chain(passage).collect();
    if !more.contains(&"--bytes") {
        args.extend(["--bytes", "2000"].map(str::to_owned));
    }
    args.extend(more.iter().map(|word| (*word).to_owned()));
    args
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn level<'v>(seen: &'v Value, name: &str) -> &'v Value {
    seen["models"].as_array().unwrap().iter().find(|level| level["type"] == name).unwrap_or_else(|| panic!("no {name}"))
}

/// The central promise: numbers and sizes are those of the file that `convert` writes.
#[test]
fn levels_are_what_the_files_would_be() {
    let dir = Dir::new();
    for (version, container, types) in
        [("7", "gguf", ["q8_0", "q4_0", "4bit"]), ("6", "gguf", ["q5_1", "q6_k", "iq4_nl"]), ("4", "rwkv-cpp", ["q8_0", "q5_0", "q4_1"])]
    {
        let seen = json(&levels(version, &types.join(","), &dir.join("cache"), &["--no-speed"]), 0);
        assert_eq!(seen["container"], container);
        for name in types {
            let file = dir.join(&format!("{version}-{name}"));
            let mut args = convert_args(checkpoint(version), container, name, &file);
            args.extend(["--no-verify", "--name", &format!("tiny-rwkv{version}")].map(str::to_owned));
            json(&args, 0);
            let found = level(&seen, name);
            assert_eq!(found["file_bytes"], std::fs::metadata(&file).unwrap().len(), "{version} {name}");
            let passage = text(fixture("text/public-domain-100k.txt"));
            let (file, source) = (text(&file), text(checkpoint(version)));
            let args = ["eval", &file, "--baseline", &source, "--vocab", &text(vocab()), "--text", &passage, "--bytes", "2000"];
            let written = &json(&args, 0)["models"][0];
            for field in ["nll", "kl", "top1", "perplexity_ratio", "by_position", "layers"] {
                assert_eq!(found[field], written[field], "{version} {name}: {field}");
            }
            assert!(number(&found["kl"]["mean"]) > 1e-6);
        }
    }
}

#[test]
fn all_types_are_compared_and_the_best_marked() {
    let dir = Dir::new();
    let seen = json(&levels("7", "all", &dir.join("cache"), &["--no-speed", "--bytes", "1200"]), 0);
    let found = seen["models"].as_array().unwrap();
    let named: Vec<String> = found
        .iter()
        .flat_map(|level| std::iter::once(&level["type"]).chain(level["same_as"].as_array().unwrap()))
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    for name in ["q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_k_s", "q3_k_m", "q2_k", "iq4_xs", "q4_0", "mxfp4"] {
        assert!(named.iter().any(|other| other == name), "{name} is missing from {named:?}");
    }
    for name in ["f16", "bf16", "int8", "nf4"] {
        assert!(!named.iter().any(|other| other == name), "{name} is among {named:?}");
    }
    // The front by its definition.
    let cost = |level: &Value| (number(&level["file_bytes"]), number(&level["kl"]["mean"]));
    for level in found {
        let (bytes, kl) = cost(level);
        let beaten = found.iter().map(cost).any(|(b, k)| b <= bytes && k <= kl && (b < bytes || k < kl));
        assert_eq!(level["on_front"], !beaten, "{}", level["type"]);
    }
    let sizes: Vec<f64> = found.iter().map(|level| cost(level).0).collect();
    assert!(sizes.is_sorted_by(|a, b| a >= b), "the largest first");
    assert!(seen["recommended"].is_null() && seen["recommendation"].is_null(), "nothing was asked");
}

#[test]
fn a_wish_leads_to_one_level_or_to_exit_code_1() {
    let dir = Dir::new();
    let of = |wish: &[&str], code: i32| json(&levels("7", "q8_0,q5_1,q4_0", &dir.join("cache"), &[&["--no-speed"], wish].concat()), code);
    let all = of(&[], 0);
    let kl = |name: &str| number(&level(&all, name)["kl"]["mean"]);
    assert!(kl("q8_0") < kl("q5_1") && kl("q5_1") < kl("q4_0"));
    let between = format!("{}", (kl("q5_1") + kl("q4_0")) / 2.0);
    let seen = of(&["--max-kl", &between], 0);
    assert_eq!(seen["recommended"], "q5_1", "the smallest file within the limit");
    assert_eq!(level(&seen, "q4_0")["meets_limits"], false);
    let size = format!("{}", level(&all, "q5_1")["file_bytes"]);
    assert_eq!(of(&["--max-size", &size], 0)["recommended"], "q5_1", "the least loss within the size");
    assert_eq!(of(&["--max-size", "2G"], 0)["recommended"], "q8_0");
    assert!(of(&["--max-kl", "1e-9"], 1)["recommended"].is_null());
    let printed =
        String::from_utf8(run(&levels("7", "q8_0,q5_1,q4_0", &dir.join("cache"), &["--no-speed", "--max-kl", &between])).stdout).unwrap();
    assert!(printed.contains("=> take q5_1: the smallest file within --max-kl") && printed.contains("--type q5_1"), "{printed}");
    // A little more size that buys much less loss is named as well, and never instead.
    let best = |seen: &Value| {
        let (taken, all) = (level(seen, seen["recommended"].as_str().unwrap()), seen["models"].as_array().unwrap());
        let (bytes, kl) = (number(&taken["file_bytes"]), number(&taken["kl"]["mean"]));
        let is_one = |other: &&Value| {
            let larger = number(&other["file_bytes"]) / bytes;
            larger > 1.0 && larger <= 1.25 && number(&other["kl"]["mean"]) <= kl / 3.0
        };
        all.iter().any(|other| is_one(&other))
    };
    let seen = of(&["--max-kl", "1"], 0);
    assert_eq!(seen["recommended"], "q4_0");
    assert_eq!(!seen["best_buy"].is_null(), best(&seen), "{seen}");
    assert_eq!(seen["best_buy"].is_null(), seen["best_buy_reason"].is_null());
    assert!(all["best_buy"].is_null() && of(&["--max-size", "2G"], 0)["best_buy"].is_null());
}

#[test]
fn speeds_and_pages_come_with_the_levels() {
    let dir = Dir::new();
    let (html, csv) = (dir.join("levels.html"), dir.join("levels.csv"));
    let more = ["--html", &text(&html), "--csv", &text(&csv), "--max-kl", "1"].map(str::to_owned);
    let seen = json(&levels("7", "q8_0,q4_0", &dir.join("cache"), &more.each_ref().map(String::as_str)), 0);
    for level in seen["models"].as_array().unwrap().iter().chain([&seen["baseline"]]) {
        assert!(number(&level["speed"]["tokens_per_second"]) > 1.0 && number(&level["speed"]["memory_bytes"]) > 1e5, "{level}");
    }
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.contains("Take q4_0") && page.contains("tokens/s") && page.contains("--levels q8_0,q4_0"), "{page:.3000}");
    assert!(page.contains("* No other level is both as small and as close") && page.contains("No other level beats one on the line"));
    let rows = std::fs::read_to_string(&csv).unwrap();
    // As the table has it: the source, then the levels.
    let names: Vec<&str> = rows.lines().skip(1).filter_map(|row| row.split(',').next()).collect();
    assert_eq!(names, ["(the source)", "q8_0", "q4_0"], "{rows}");
    let place = |name: &str| rows.lines().next().unwrap().split(',').position(|column| column == name).unwrap();
    let source: Vec<&str> = rows.lines().nth(1).unwrap().split(',').collect();
    assert_eq!(["kl_mean", "kl_max", "top1", "ppl_ratio"].map(|name| source[place(name)]), ["0", "0", "1", "1"], "{rows}");
    assert!(number(&seen["baseline"]["speed"]["tokens_per_second"]) > 1.0 && !source[place("tokens_per_second")].is_empty(), "{rows}");
    // Two lines can be told apart: both are drawn, and have their names.
    assert!(!page.contains("Not drawn"), "{page:.3000}");
    assert!(page.matches(">q8_0</text>").count() >= 2 && page.matches(">q4_0</text>").count() >= 2, "{page:.3000}");
    // However many speeds are doubtful, a reason stands there once.
    assert!(page.matches("to be distrusted: other programs took").count() <= 1);
}

/// Killed without warning once the first level is finished: it is not measured again, and the numbers are the same.
#[test]
fn a_run_that_was_killed_goes_on() {
    let dir = Dir::new();
    let cache = dir.join("cache");
    let args = levels("7", "q8_0,q6_k,q5_1,q4_0", &cache, &["--no-speed", "--bytes", "60000", "--threads", "1"]);
    let mut child = forge().args(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let finished = || {
        let is_score = |name: std::ffi::OsString| name.to_str().unwrap().starts_with("scores-");
        std::fs::read_dir(&cache).map_or(0, |entries| entries.filter(|e| is_score(e.as_ref().unwrap().file_name())).count())
    };
    // However long that takes: a run that ends by itself has finished all of them.
    while finished() == 0 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let kept = finished();
    assert!((1..4).contains(&kept), "{kept} levels were finished");
    let again = json(&args, 0);
    let parts: Vec<u64> = again["models"].as_array().unwrap().iter().map(|level| level["kept_parts"].as_u64().unwrap()).collect();
    assert_eq!(parts.iter().sum::<u64>(), kept as u64, "{parts:?}");
    assert_eq!(parts[0], 1, "the first level was kept");
    let fresh = json(&levels("7", "q8_0", &dir.join("other"), &["--no-speed", "--bytes", "60000"]), 0);
    for field in ["nll", "kl", "top1", "delta_p"] {
        assert_eq!(again["models"][0][field], fresh["models"][0][field], "{field}");
    }
}

#[test]
fn one_level_is_compared_with_no_other() {
    let dir = Dir::new();
    let (html, cache) = (dir.join("level.html"), dir.join("cache"));
    let done = run(&levels("7", "q4_0", &cache, &["--no-speed", "--html", &text(&html)]));
    let (printed, page) = (String::from_utf8(done.stdout).unwrap(), std::fs::read_to_string(&html).unwrap());
    assert!(printed.contains("| q4_0 ") && !printed.contains("no other level"), "{printed}");
    assert!(page.contains(">1 level against the model") && !page.contains("o other level"), "{page:.3000}");
}

#[test]
fn types_that_cannot_be_are_refused() {
    let dir = Dir::new();
    let cache = dir.join("cache");
    assert_eq!(error_kind(&levels("7", "q9_9", &cache, &[]), 2), "UnknownType");
    assert_eq!(error_kind(&levels("7", "nf4", &cache, &[]), 2), "TypeNotCarried");
    // Nobody reads a text for it, which here is not there to be read.
    let (model, missing, words) = (text(checkpoint("7")), text(&dir.join("missing.txt")), text(vocab()));
    let early = |types: &str, more: &[&str], code: i32| {
        let own = ["eval", &model, "--levels", types, "--vocab", &words, "--cache", cache.to_str().unwrap(), "--text", &missing];
        let found = error_kind(&[&own[..], more].concat().iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(), code);
        assert!(!cache.exists());
        found
    };
    assert_eq!(early("q8_0,q9_9", &[], 2), "UnknownType");
    assert_eq!(early("q8_0,nf4", &[], 2), "TypeNotCarried");
    assert_eq!(early("q8_0", &["--to", "hf"], 2), "TypeNotCarried");
    // No table without rows.
    for container in ["hf", "pth", "web-rwkv"] {
        assert_eq!(early("all", &["--to", container], 2), "NoTypes", "{container}");
    }
    assert_eq!(early("q8_0", &[], 4), "NotFound");
    let both = ["--baseline", checkpoint("7").to_str().unwrap()];
    assert_eq!(run(&levels("7", "q8_0", &cache, &both)).status.code(), Some(2), "the baseline is the source");
}
