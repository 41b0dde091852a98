//! `eval` as users see it: known figures, comparisons, protocols, outputs, refusals.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use crate::support;

use std::path::{Path, PathBuf};

use crate::support::{Dir, checkpoint, convert_args, error_kind, fixture, json, run, vocab};
use rwkv_forge_score::kl_base;
use rwkv_forge_testkit::hybrids::{Variant, config_json, random_hybrid};
use rwkv_forge_testkit::models::Sizes;
use serde_json::Value;

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// `eval` of models of the small vocabulary, with no results of earlier runs.
fn eval(models: &[&Path], more: &[&str]) -> Vec<String> {
    let mut args = vec!["eval".to_owned()];
    args.extend(models.iter().map(|path| text(path)));
    args.extend(["--vocab".to_owned(), text(vocab())]);
    if !more.contains(&"--cache") {
        args.push("--no-cache".to_owned());
    }
    args.extend(more.iter().map(|word| (*word).to_owned()));
    args
}

/// A file of English, not the built-in text's beginning.
fn passage() -> &'static str {
    fixture("text/public-domain-100k.txt").to_str().unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// A tiny RWKV-7 in a GGUF of this type.
fn gguf(dir: &Dir, encoding: &str) -> PathBuf {
    let path = dir.join(&format!("{encoding}.gguf"));
    let mut args = convert_args(checkpoint("7"), "gguf", encoding, &path);
    args.push("--no-verify".to_owned());
    json(&args, 0);
    path
}

/// Data too large for the repository, beside it.
fn shared(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(name)
}

/// Bits per byte that the official package gives, as the data's README states them.
#[test]
#[ignore = "needs the data beside the repository"]
fn bits_per_byte_are_the_known_figures() {
    let bits = |args: &[String]| number(&json(args, 0)["models"][0]["bits_per_byte"]);
    // Half a unit of the last digit that is stated.
    let is = |found: f64, want: f64| assert!((found - want).abs() <= 5e-5, "{found} instead of {want}");
    let prose = shared("text/eval-prose.txt");
    is(bits(&eval(&[checkpoint("7")], &["--text", &text(&prose)])), 2.1392);
    let small = shared("checkpoints/small-rwkv7.pth");
    let [vocabulary, refdocs] = ["checkpoints/vocab-4096.txt", "text/eval-refdocs.txt"].map(|name| text(&shared(name)).to_owned());
    is(bits(&["eval", &text(&small), "--vocab", &vocabulary, "--text", &refdocs, "--bytes", "24000"].map(str::to_owned)), 0.9951);
}

/// Two files of one name are two models in every table.
#[test]
fn files_of_one_name_are_told_apart() {
    let dir = Dir::new();
    let [first, second] = ["first", "second"].map(|folder| {
        std::fs::create_dir(dir.join(folder)).unwrap();
        let path = dir.join(folder).join("model.pth");
        std::fs::copy(checkpoint("7"), &path).unwrap();
        path
    });
    let (html, csv) = (dir.join("page.html"), dir.join("all.csv"));
    let more = ["--text", passage(), "--bytes", "3000", "--baseline", &text(&second), "--html", &text(&html), "--csv", &text(&csv)];
    let seen = json(&eval(&[&first], &more), 0);
    assert_eq!([&seen["models"][0]["name"], &seen["baseline"]["name"]], ["first/model.pth", "second/model.pth"]);
    assert!(std::fs::read_to_string(&csv).unwrap().contains("first/model.pth"));
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(["first/model.pth", "second/model.pth"].iter().all(|name| page.contains(name)), "{page:.3000}");
}

#[test]
fn one_model_alone_is_described() {
    let seen = json(&eval(&[checkpoint("7")], &["--text", passage(), "--bytes", "3000"]), 0);
    let model = &seen["models"][0];
    assert_eq!((seen["command"].as_str(), seen["protocol"]["name"].as_str()), (Some("eval"), Some("stream")));
    assert_eq!((seen["kernel"].as_str(), seen["logits_precision"].as_str()), (Some("engine"), Some("f32")));
    assert_eq!(model["bytes"], 3000);
    let (bits, perplexity, tokens) = (number(&model["bits_per_byte"]), number(&model["perplexity"]), number(&model["tokens"]));
    // The same total in two units.
    assert!((bits * 3000.0 - perplexity.log2() * tokens).abs() < 1e-6 * bits * 3000.0, "{bits} {perplexity}");
    assert!((1.9..2.5).contains(&bits), "{bits}");
    assert_eq!(model["sha256"][0]["sha256"], support::sha256(checkpoint("7")).as_str());
    assert_eq!(seen["texts"][0]["bytes"], 3000);
    assert!(seen["baseline"].is_null() && model["kl"].is_null() && model["layers"].as_array().unwrap().is_empty());
    // The reference agrees up to rounding.
    let reference = json(&eval(&[checkpoint("7")], &["--text", passage(), "--bytes", "3000", "--kernel", "reference"]), 0);
    let other = number(&reference["models"][0]["bits_per_byte"]);
    assert!(other != bits && (other - bits).abs() < 1e-6, "{other} {bits}");
}

#[test]
fn without_a_text_there_is_one() {
    let seen = json(&eval(&[checkpoint("4")], &["--bytes", "40000"]), 0);
    assert_eq!(seen["texts"][0]["name"], "built-in");
    assert_eq!(seen["texts"][0]["bytes"], 40_000);
    assert!(seen["models"][0]["by_document"].as_array().unwrap().len() >= 2);
}

#[test]
fn threads_and_memory_change_no_digit() {
    let dir = Dir::new();
    let quantized = gguf(&dir, "q4_0");
    let baseline = text(checkpoint("7"));
    let of = |more: &[&str]| {
        let words = [&["--text", passage(), "--bytes", "4000", "--baseline", &baseline][..], more].concat();
        let seen = json(&eval(&[&quantized], &words), 0);
        let mut model = seen["models"][0].clone();
        for field in ["seconds", "tokens_per_second"] {
            model.as_object_mut().unwrap().remove(field);
        }
        (model, seen["baseline"].clone())
    };
    let one = of(&["--threads", "1"]);
    assert_eq!(of(&["--threads", "3", "--max-memory", "64K"]), one);
    // The baseline's own numbers are those of a run without any comparison.
    let alone = json(&eval(&[checkpoint("7")], &["--text", passage(), "--bytes", "4000"]), 0);
    assert_eq!(alone["models"][0]["nll"], one.1["nll"]);
}

#[test]
fn a_baseline_shows_what_is_lost() {
    let dir = Dir::new();
    let (fine, coarse) = (gguf(&dir, "q8_0"), gguf(&dir, "q4_0"));
    let baseline = text(checkpoint("7"));
    let words = ["--text", passage(), "--bytes", "6000", "--baseline", &baseline];
    let seen = json(&eval(&[&fine, &coarse, checkpoint("7")], &words), 0);
    let kl = |index: usize| number(&seen["models"][index]["kl"]["mean"]);
    assert!(kl(0) > 0.0 && kl(1) > 20.0 * kl(0), "{} {}", kl(0), kl(1));
    assert_eq!((kl(2), number(&seen["models"][2]["top1"])), (0.0, 1.0), "a model does not differ from itself");
    assert_eq!(seen["models"][2]["perplexity_ratio"]["ratio"], 1.0);
    for index in 0..2 {
        let model = &seen["models"][index];
        let (mean, interval) = (kl(index), &model["kl"]["interval"]);
        assert!(number(&interval[0]) < mean && mean < number(&interval[1]), "{interval}");
        assert!(number(&model["kl"]["median"]) < mean && mean < number(&model["kl"]["p99"]));
        let layers = model["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 3);
        assert!(layers.iter().all(|layer| number(&layer["residual"]) > 0.0 && number(&layer["state"]) > 0.0));
        assert!(model["by_position"].as_array().unwrap().len() >= 3);
    }
    // A runtime's rounding of activations comes on top: without it a file does not differ from itself.
    let own = text(&fine);
    let rounded = json(&eval(&[&fine], &["--text", passage(), "--bytes", "1500", "--baseline", &own, "--activations", "int8"]), 0);
    let kl = number(&rounded["models"][0]["kl"]["mean"]);
    assert!(kl > 1e-7 && kl < 1e-2, "{kl:e}");
}

#[test]
fn limits_decide_the_exit_code() {
    let dir = Dir::new();
    let quantized = gguf(&dir, "q4_0");
    let baseline = text(checkpoint("7"));
    let words = |limits: &[&'static str]| {
        let mut args = eval(&[&quantized], &["--text", passage(), "--bytes", "1000", "--baseline", &baseline]);
        args.extend(limits.iter().map(|word| (*word).to_owned()));
        args
    };
    json(&words(&["--max-kl", "1", "--min-top1", "0.5", "--max-ppl-ratio", "2"]), 0);
    for limit in [["--max-kl", "1e-6"], ["--min-top1", "0.9999"], ["--max-ppl-ratio", "0.5"]] {
        let seen = json(&words(&limit), 1);
        assert_eq!(seen["models"][0]["violations"].as_array().unwrap().len(), 1, "{limit:?}");
    }
    let printed = String::from_utf8(run(&words(&["--max-kl", "1e-6"])).stdout).unwrap();
    assert!(printed.contains("not met: q4_0.gguf: the mean KL divergence is"), "{printed}");
}

/// Scores that a plain Python program computed from the official package's log-probabilities.
#[test]
fn uncheatable_scores_are_those_of_python() {
    let want: Value = serde_json::from_slice(&std::fs::read(fixture("score/uncheatable.json")).unwrap()).unwrap();
    let (prose, addresses) = (text(fixture("score/prose.json")), text(fixture("score/addresses.json")));
    for protocol in ["uncheatable", "uncheatable-2024"] {
        for precision in ["f32", "bf16"] {
            let words = ["--protocol", protocol, "--logits-precision", precision, "--text", &prose, "--text", &addresses];
            let seen = json(&eval(&[checkpoint("7")], &words), 0);
            let found = &seen["models"][0]["uncheatable"];
            for (index, set) in ["prose", "addresses"].into_iter().enumerate() {
                let (found, want) = (&found["sets"][index], &want[format!("{protocol} {precision}")][set]);
                assert_eq!(found["name"], set);
                for count in ["texts", "bytes", "tokens"] {
                    assert_eq!(found[count], want[count], "{protocol} {precision} {set}");
                }
                let (found, want) = (number(&found["score"]), number(&want["score"]));
                // f32 differs by rounding alone; of rounded logits some fall on the other side, each by 1/256 of itself.
                let bound = if precision == "f32" { 2e-4 } else { 2e-2 };
                assert!((found - want).abs() < bound, "{protocol} {precision} {set}: {found} {want}");
            }
        }
    }
    let words = ["--protocol", "uncheatable", "--text", &prose];
    assert_eq!(json(&eval(&[checkpoint("7")], &words), 0)["logits_precision"], "bf16");
}

#[test]
fn finished_data_sets_are_not_measured_again() {
    let dir = Dir::new();
    let (prose, addresses, cache) = (text(fixture("score/prose.json")), text(fixture("score/addresses.json")), text(&dir.join("cache")));
    let base = ["--protocol", "uncheatable-2024", "--cache", &cache, "--text", &addresses];
    let first = json(&eval(&[checkpoint("7")], &base), 0);
    assert_eq!(first["models"][0]["kept_parts"], 0);
    let words = [&base[..], &["--text", &prose]].concat();
    let both = json(&eval(&[checkpoint("7")], &words), 0);
    assert_eq!(both["models"][0]["kept_parts"], 1);
    let fresh = ["--protocol", "uncheatable-2024", "--text", &addresses, "--text", &prose];
    let fresh = json(&eval(&[checkpoint("7")], &fresh), 0);
    assert_eq!(both["models"][0]["uncheatable"], fresh["models"][0]["uncheatable"]);
    // Another model, precision or text is another result.
    for other in [eval(&[checkpoint("6")], &base), eval(&[checkpoint("7")], &[&base[..], &["--logits-precision", "bf16"]].concat())] {
        assert_eq!(json(&other, 0)["models"][0]["kept_parts"], 0);
    }
    // What is damaged is measured again.
    for entry in std::fs::read_dir(dir.join("cache")).unwrap() {
        std::fs::write(entry.unwrap().path(), b"{}\nnothing").unwrap();
    }
    assert_eq!(json(&eval(&[checkpoint("7")], &base), 0)["models"][0]["kept_parts"], 0);
}

/// Continuations by hand: the sum of what a stream of context and continuation gives for the continuation's tokens.
#[test]
fn pairs_are_scored_given_their_contexts() {
    let dir = Dir::new();
    let (context, continuation) = ("It is a truth universally acknowledged, ", "that a single man must be in want of a wife.");
    let line = |id: &str, context: &str, continuation: &str| {
        format!("{}\n", serde_json::json!({ "id": id, "context": context, "continuation": continuation }))
    };
    let pairs = dir.join("pairs.jsonl");
    let lines = [line("given", context, continuation), line("alone", "", continuation), line("context", "", context)];
    std::fs::write(&pairs, lines.concat()).unwrap();
    let (name, pairs_of_eight) = (text(&pairs), dir.join("eight.jsonl"));
    let seen = json(&eval(&[checkpoint("7")], &["--pairs", &name]), 0);
    let each = seen["models"][0]["pairs"]["each"].as_array().unwrap();
    let score = |index: usize| number(&each[index]["log_probability"]);
    assert_eq!((each[0]["name"].as_str(), each[0]["bytes"].as_u64()), (Some("given"), Some(continuation.len() as u64)));
    let whole = dir.join("whole.txt");
    std::fs::write(&whole, [context, continuation].concat()).unwrap();
    let whole = json(&eval(&[checkpoint("7")], &["--text", &text(&whole)]), 0);
    // The context ends with a space, at which tokens of this vocabulary end too.
    let total = -number(&whole["models"][0]["nll"]);
    assert!((score(0) + score(2) - total).abs() < 1e-4, "{} {} {total}", score(0), score(2));
    assert!(score(0) != score(1));
    let quantized = gguf(&dir, "q4_0");
    let baseline = text(checkpoint("7"));
    let compared = json(&eval(&[&quantized], &["--pairs", &name, "--baseline", &baseline]), 0);
    let pairs = &compared["models"][0]["pairs"];
    assert_eq!(number(&pairs["each"][0]["log_probability_reference"]), score(0));
    // Three pairs are too few for an interval, which is said; eight are enough.
    assert!(pairs["change_per_pair_interval"].is_null());
    assert_eq!(compared["models"][0]["no_interval"], "3 of the 8 pairs that an interval needs");
    let many: Vec<String> = (0..8).map(|number| line(&number.to_string(), &context[..number + 1], continuation)).collect();
    std::fs::write(&pairs_of_eight, many.concat()).unwrap();
    let compared = json(&eval(&[&quantized], &["--pairs", &text(&pairs_of_eight), "--baseline", &baseline]), 0);
    let pairs = &compared["models"][0]["pairs"];
    let change = number(&pairs["change_per_pair"]);
    let ends = &pairs["change_per_pair_interval"];
    assert!(number(&ends[0]) <= change && change <= number(&ends[1]), "{pairs:#}");
    assert!(compared["models"][0]["no_interval"].is_null());
}

#[test]
fn the_printout_and_the_logits_of_llama_perplexity() {
    let dir = Dir::new();
    let logits = dir.join("base.kld");
    let path = text(&logits);
    let words = ["--protocol", "llama", "--context", "64", "--text", passage(), "--bytes", "1000"];
    let saved = [&words[..], &["--save-logits", &path]].concat();
    let printed = String::from_utf8(run(&eval(&[checkpoint("7")], &saved)).stdout).unwrap();
    assert!(printed.contains("Final estimate: PPL = "), "{printed}");
    let seen = json(&eval(&[checkpoint("7")], &words), 0);
    let scored = usize::try_from(seen["plan"]["scored"].as_u64().unwrap()).unwrap();
    let mut reader = kl_base::Reader::new(std::io::BufReader::new(std::fs::File::open(&logits).unwrap())).unwrap();
    assert_eq!((reader.context(), reader.vocabulary(), reader.rows_left()), (64, 320, scored));
    // Log-probabilities in 16 bits: their sum over the tokens is the model's to four digits.
    let (tokens, mut row, mut nll, mut count) = (reader.tokens().to_vec(), Vec::new(), 0.0, 0);
    while reader.row(&mut row).unwrap() {
        let (chunk, place) = (count / 31, count % 31);
        let target = tokens[chunk * 64 + 33 + place] as usize;
        nll -= f64::from(row[target]);
        count += 1;
    }
    let want = number(&seen["models"][0]["nll"]);
    assert!(count == scored && (nll - want).abs() < 1e-3 * want, "{nll} {want}");
    let baseline = text(checkpoint("7"));
    let quantized = gguf(&dir, "q4_0");
    let printed = String::from_utf8(run(&eval(&[&quantized], &[&words[..], &["--baseline", &baseline]].concat())).stdout).unwrap();
    assert!(printed.contains("====== KL divergence statistics ======"), "{printed}");
}

/// The real tool printed these for files that this program's converter made.
#[test]
fn perplexities_are_those_of_llama_perplexity() {
    let dir = Dir::new();
    let words = ["--protocol", "llama", "--context", "16", "--text", passage(), "--bytes", "330"];
    for encoding in ["f16", "q4_0"] {
        let printed = String::from_utf8(run(&eval(&[&gguf(&dir, encoding)], &words)).stdout).unwrap();
        let recorded = std::fs::read_to_string(fixture(&format!("score/llama-{encoding}.txt"))).unwrap();
        // `[1]12.3456,[2]...`: the perplexity after each chunk.
        let chunks = |text: &str| -> Vec<f64> {
            let list = text.lines().find(|line| line.contains("[1]")).unwrap_or_else(|| panic!("no chunks: {text}"));
            list.split(',').filter_map(|part| part.split_once(']')?.1.parse().ok()).collect()
        };
        let (found, want) = (chunks(&printed), chunks(&recorded));
        assert_eq!(found.len(), want.len(), "{printed}");
        // The tool multiplies with f16 activations (and 8-bit ones for q4_0), and prints four digits.
        let bound = if encoding == "f16" { 2e-3 } else { 2e-2 };
        assert!(found.iter().zip(&want).all(|(found, want)| (found / want - 1.0).abs() < bound), "{encoding}: {found:?} {want:?}");
    }
}

#[test]
fn pages_and_tables_are_written_and_nothing_is_overwritten() {
    let dir = Dir::new();
    let quantized = gguf(&dir, "q8_0");
    let names = ["page.html", "page.md", "table.csv"].map(|name| text(&dir.join(name)));
    let baseline = text(checkpoint("7"));
    let words =
        ["--text", passage(), "--bytes", "2000", "--baseline", &baseline, "--html", &names[0], "--markdown", &names[1], "--csv", &names[2]];
    json(&eval(&[&quantized], &words), 0);
    let html = std::fs::read_to_string(&names[0]).unwrap();
    assert!(html.contains("q8_0.gguf against tiny-rwkv7.pth") && html.contains(&support::sha256(checkpoint("7"))) && html.contains("<svg"));
    assert!(!html.contains("<script") && !html.contains("href=\"http") && !html.contains("src=\""), "the page refers to nothing outside");
    let markdown = std::fs::read_to_string(&names[1]).unwrap();
    let links = markdown.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link.trim_matches(['<', '>']));
    let plots: Vec<&str> = links.filter(|link| link.ends_with(".svg")).collect();
    assert!(!plots.is_empty() && plots.iter().all(|link| dir.join(link).exists()), "{plots:?}");
    let csv = std::fs::read_to_string(&names[2]).unwrap();
    assert_eq!(csv.lines().count(), 2, "{csv}");
    assert!(csv.starts_with("model,protocol,file_bytes"), "{csv}");
    assert_eq!(error_kind(&eval(&[&quantized], &words), 2), "OutputExists");
    json(&eval(&[&quantized], &[&words[..], &["--force"]].concat()), 0);
    // A model is never overwritten, not even by force.
    let own = text(&quantized);
    let before = support::sha256(&quantized);
    error_kind(&eval(&[&quantized], &["--text", passage(), "--bytes", "500", "--csv", &own, "--force"]), 2);
    assert_eq!(support::sha256(&quantized), before);
}

#[test]
fn text_that_calibration_has_seen_is_refused() {
    let dir = Dir::new();
    let whole = std::fs::read_to_string(passage()).unwrap();
    let (seen, unseen) = (dir.join("seen.txt"), dir.join("unseen.txt"));
    std::fs::write(&seen, &whole[2000..9000]).unwrap();
    std::fs::write(&unseen, &whole[60_000..70_000]).unwrap();
    let words = ["--text", passage(), "--bytes", "5000"];
    let with = |calibration: &Path, more: &[&str]| {
        let mut args = eval(&[checkpoint("4")], &words);
        args.extend(["--calibration".to_owned(), text(calibration)]);
        args.extend(more.iter().map(|word| (*word).to_owned()));
        args
    };
    assert_eq!(error_kind(&with(&seen, &[]), 3), "CalibrationLeak");
    let allowed = json(&with(&seen, &["--allow-leak"]), 0);
    assert_eq!(allowed["calibration"]["leaks"], true);
    assert!(number(&allowed["calibration"]["share"]) > 0.5);
    let clean = json(&with(&unseen, &[]), 0);
    assert_eq!((&clean["calibration"]["leaks"], &clean["calibration"]["shared"]), (&Value::from(false), &Value::from(0)));
}

#[test]
fn hybrids_are_computed_by_the_reference() {
    let dir = Dir::new();
    let sizes = Sizes { vocabulary: 300, ..Sizes::TINY };
    let model = rwkv_forge_model::Version::ARwkv7;
    std::fs::write(dir.join("model.safetensors"), random_hybrid(model, &sizes, &Variant::FULL, 3).to_safetensors()).unwrap();
    std::fs::write(dir.join("config.json"), serde_json::to_vec(&config_json(model, &sizes, &Variant::FULL)).unwrap()).unwrap();
    let args = ["eval", dir.path().to_str().unwrap(), "--vocab", "bytes", "--text", passage(), "--bytes", "200"];
    let output = run(&args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("computed by the reference"), "{said}");
}

#[test]
fn wrong_calls_say_what_to_do() {
    let dir = Dir::new();
    let short = dir.join("short.txt");
    std::fs::write(&short, "too short").unwrap();
    let (tiny, short) = (checkpoint("7"), text(&short));
    let other = dir.join("other.safetensors");
    let model = rwkv_forge_testkit::models::random_model(rwkv_forge_model::Version::V7, &Sizes::TINY, 5);
    std::fs::write(&other, model.to_safetensors()).unwrap();
    let baseline = text(&other);
    for (more, code, kind) in [
        (&["--max-kl", "1"][..], 2, "BaselineNeeded"),
        (&["--save-logits", "x.kld"], 2, "LlamaNeeded"),
        (&["--protocol", "llama", "--text", &short], 2, "TooFewTokens"),
        (&["--protocol", "uncheatable", "--context", "9"], 2, "FixedLength"),
        (&["--activations", "int8", "--kernel", "reference"], 2, "ReferenceIsExact"),
        (&["--baseline", &baseline], 2, "VocabularyMismatch"),
        (&["--text", "nowhere.txt"], 4, "NotFound"),
        (&["--pairs", &short], 3, "BadJson"),
    ] {
        assert_eq!(error_kind(&eval(&[tiny], more), code), kind, "{more:?}");
    }
    assert_eq!(error_kind(&["eval", &text(tiny), "--text", passage()], 2), "VocabularyNeeded");
    assert_eq!(error_kind(&eval(&[tiny, tiny], &["--levels", "q8_0"]), 2), "OneModel");
}
