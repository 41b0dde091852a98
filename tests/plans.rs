//! `plan` as users see it: goals, the recipe and its replay, what is kept between runs, refusals.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use crate::support;

use std::path::{Path, PathBuf};

use crate::support::{Dir, checkpoint, fixture, sha256};
use rwkv_forge_model::Version;
use rwkv_forge_testkit::models::{Sizes, random_model};
use serde_json::Value;

/// Runs the program with `--json` and a cache of its own, expects the exit code, and parses what it printed.
fn json(dir: &Dir, args: &[String], code: i32) -> Value {
    let output = support::forge().env("XDG_CACHE_HOME", dir.join("cache")).arg("--json").args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}{}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("no JSON ({error}); stderr: {stderr}"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A directory with a text to calibrate on, and one to measure on that shares nothing with it.
fn directory() -> Dir {
    let dir = Dir::new();
    let book = std::fs::read(fixture("text/public-domain-100k.txt")).unwrap();
    std::fs::write(dir.join("calibration.txt"), &book[..9_000]).unwrap();
    std::fs::write(dir.join("unseen.txt"), &book[60_000..63_000]).unwrap();
    dir
}

/// A plan that takes seconds.
fn plan_args(dir: &Dir, version: &str, output: &Path, more: &[&str]) -> Vec<String> {
    let mut args: Vec<String> = ["plan", "--probe-windows", "1", "--calibration-windows", "3", "--vocab"].map(str::to_owned).to_vec();
    args.extend([support::vocab(), checkpoint(version)].map(text));
    args.extend(["--calibrate".to_owned(), text(&dir.join("calibration.txt")), "--text".to_owned(), text(&dir.join("unseen.txt"))]);
    args.extend(["-o".to_owned(), text(output)]);
    args.extend(more.iter().map(|word| (*word).to_owned()));
    args
}

fn plan(dir: &Dir, version: &str, more: &[&str]) -> (PathBuf, Value) {
    let output = dir.join(&format!("plan-{}.toml", dir.names().len()));
    let seen = json(dir, &plan_args(dir, version, &output, more), 0);
    (output, seen)
}

fn convert_args(dir: &Dir, version: &str, container: &str, recipe: &Path, output: &Path, more: &[&str]) -> Vec<String> {
    let mut args = ["convert", "--to", container, "--recipe", &text(recipe), "-o", &text(output), "--vocab"].map(str::to_owned).to_vec();
    args.extend([support::vocab(), checkpoint(version)].map(text));
    if !more.contains(&"--calibrate") && !more.contains(&"--imatrix") {
        args.extend(["--calibrate".to_owned(), text(&dir.join("calibration.txt"))]);
    }
    args.extend(more.iter().map(|word| (*word).to_owned()));
    args
}

/// Mean KL of a file, measured as the plan measured it.
fn divergence(dir: &Dir, version: &str, file: &Path) -> f64 {
    let mut args = ["eval", "--protocol", "llama", "--no-cache"].map(str::to_owned).to_vec();
    args.extend([text(file), "--baseline".to_owned(), text(checkpoint(version)), "--vocab".to_owned(), text(support::vocab())]);
    args.extend(["--text".to_owned(), text(&dir.join("unseen.txt"))]);
    number(&json(dir, &args, 0)["models"][0]["kl"]["mean"])
}

#[test]
fn a_size_is_kept_and_the_recipe_makes_that_file() {
    let dir = directory();
    for (version, container, size) in [("7", "gguf", 640_000), ("6", "gguf", 700_000), ("4", "rwkv-cpp", 540_000), ("5", "prefab", 620_000)]
    {
        let (recipe, seen) = plan(&dir, version, &["--size", &size.to_string(), "--to", container]);
        let planned = &seen["planned"];
        let bytes = planned["bytes"].as_u64().unwrap();
        assert!(bytes <= size && bytes as f64 > 0.97 * size as f64, "{bytes} of {size}");
        assert!(planned["met"] == true && planned["exact"] == true);
        let measured = &planned["measured"]["kl"];
        let (mean, interval) = (number(&measured["mean"]), &measured["interval"]);
        assert!(number(&interval[0]) < mean && mean < number(&interval[1]), "{interval}");
        // Twice, by different numbers of threads, and with statistics that are computed anew: the same file.
        let file = |name: &str, more: &[&str]| {
            let output = dir.join(name);
            let fixed = ["--calibration-windows", "3"];
            json(&dir, &convert_args(&dir, version, container, &recipe, &output, &[&fixed[..], more].concat()), 0);
            output
        };
        let one = file(&format!("{version}-1"), &["--threads", "1"]);
        let two = file(&format!("{version}-2"), &["--threads", "2", "--statistics", &text(&dir.join(&format!("{version}-statistics")))]);
        assert_eq!(sha256(&one), sha256(&two));
        assert_eq!(std::fs::metadata(&one).unwrap().len(), bytes, "the size that was promised");
        // The plan measured the matrices of this file, those in 16 bits included. A prefab has vectors in 16 bits too; rounding there is
        // worth less than a hundredth of the loss, and a wrong type of one matrix more.
        let found = divergence(&dir, version, &one);
        let apart = if container == "prefab" { 0.01 * mean } else { 0.0 };
        assert!((found - mean).abs() <= apart, "RWKV-{version}: {found} in the file, {mean} in the plan");
    }
}

#[test]
fn the_recipe_says_what_was_measured() {
    let dir = directory();
    let (recipe, seen) = plan(&dir, "7", &["--bpw", "6.5"]);
    assert!(seen["planned"]["bytes"].as_f64().unwrap() * 8.0 / 794_112.0 <= 6.5);
    let written = std::fs::read_to_string(&recipe).unwrap();
    let head: Vec<&str> = written.lines().take(3).collect();
    assert!(head[2].contains("convert tiny-rwkv7.pth --to gguf") && head[2].ends_with("--calibration-windows 3"), "{}", head[2]);
    assert!(
        head[0].starts_with("# Plan for tiny-rwkv7.pth") && head[1].contains("predicted KL") && head[1].contains("measured"),
        "{head:?}"
    );
    let harms = seen["harms"].as_array().unwrap();
    assert_eq!(written.matches("[[set]]").count(), harms.len(), "every tensor whose type is open");
    assert_eq!(written.matches("\nharm = ").count(), harms.len());
    assert!(written.contains("quantizer = \"gptq\"") && written.contains("[calibration]") && written.contains("tokens = 1536"));
    for harm in harms {
        let of = |field: &str| harm["levels"].as_array().unwrap().iter().map(|level| number(&level[field])).collect::<Vec<_>>();
        let harms: Vec<f64> = harm["harms"].as_array().unwrap().iter().map(number).collect();
        assert!(of("bytes").is_sorted() && harms.len() == of("bytes").len(), "{harm}");
        assert!(harms.iter().rev().is_sorted() && of("error").iter().rev().is_sorted(), "more bytes, less harm: {harm}");
        assert!(number(&harm["divergence"]) > 0.0);
    }
    // Of the types that fit, those that matter more got more: the sum of harms is far below that of the probes.
    let probed: f64 = harms.iter().map(|harm| number(&harm["divergence"])).sum();
    assert!(number(&seen["planned"]["predicted_kl"]) < 0.3 * probed);
}

#[test]
fn losses_are_met_by_what_was_measured() {
    let dir = directory();
    let (_, seen) = plan(&dir, "7", &["--max-kl", "0.003"]);
    let kl = number(&seen["planned"]["measured"]["kl"]["mean"]);
    assert!(seen["planned"]["met"] == true && kl <= 0.003, "{kl}");
    // Corrected until it is close; without corrections sums of harms are off by half.
    assert!(kl > 0.75 * 0.003, "{kl}");
    let (_, finer) = plan(&dir, "7", &["--max-kl", "0.0003"]);
    assert!(number(&finer["planned"]["measured"]["kl"]["mean"]) <= 0.0003);
    assert!(finer["planned"]["bytes"].as_u64() > seen["planned"]["bytes"].as_u64());
    let (_, seen) = plan(&dir, "6", &["--max-ppl-ratio", "1.01"]);
    let ratio = number(&seen["planned"]["measured"]["perplexity_ratio"]["ratio"]);
    assert!(seen["planned"]["met"] == true && ratio <= 1.01, "{ratio}");
}

#[test]
fn what_cannot_be_is_said() {
    let dir = directory();
    let output = dir.join("x.toml");
    let kind = |more: &[&str], code: i32| {
        let seen = json(&dir, &plan_args(&dir, "7", &output, more), code);
        assert!(!output.exists());
        let of = |field: &str| seen["error"][field].as_str().unwrap().to_owned();
        (of("kind"), of("message"))
    };
    let (found, message) = kind(&["--size", "100K"], 2);
    assert!(found == "BudgetTooSmall" && message.contains("100000"), "{message}");
    // Of the container, not of a type that nobody named; and the containers that it names take a plan.
    let (found, message) = kind(&["--bpw", "6", "--to", "hf"], 2);
    assert!(found == "NoTypes" && message.starts_with("hf holds matrices in 16 or 32 bits alone"), "{message}");
    let (_, others) = message.split_once("smaller types: ").unwrap();
    assert_eq!(others.split(", ").collect::<Vec<_>>(), ["candle-gguf", "gguf", "rwkv-cpp", "prefab"]);
    let calibration = text(&dir.join("calibration.txt"));
    let (found, message) = kind(&["--bpw", "6", "--text", &calibration], 3);
    assert!(found == "CalibrationLeak" && message.contains("allow-leak"), "{message}");
    // Without a text there is one, and what would do better is said.
    let without = ["plan", &text(checkpoint("7")), "--bpw", "6", "--vocab", &text(support::vocab()), "--dry-run"].map(str::to_owned);
    let estimated = support::forge().env("XDG_CACHE_HOME", dir.join("cache")).args(without).output().unwrap();
    let said = String::from_utf8(estimated.stderr).unwrap();
    assert!(estimated.status.success() && said.contains("calibrated on the built-in text"), "{said}");
    let goals = support::forge().args(plan_args(&dir, "7", &output, &["--bpw", "6", "--size", "1M"])).output().unwrap();
    assert_eq!(goals.status.code(), Some(2), "one goal");
    assert!(!dir.names().iter().any(|name| name.contains("x.toml")), "{:?}", dir.names());
    // Allowed on request, and the file that exists is not replaced.
    json(&dir, &plan_args(&dir, "7", &output, &["--bpw", "6", "--text", &calibration, "--allow-leak"]), 0);
    assert_eq!(json(&dir, &plan_args(&dir, "7", &output, &["--bpw", "6"]), 2)["error"]["kind"], "OutputExists");
}

/// Known from the arguments and the model's description: nobody reads a text for it, which here is not there to be read.
#[test]
fn refusals_come_before_any_work() {
    let dir = directory();
    std::fs::remove_file(dir.join("calibration.txt")).unwrap();
    std::fs::remove_file(dir.join("unseen.txt")).unwrap();
    let kind = |version: &str, more: &[&str], code: i32| {
        let seen = json(&dir, &plan_args(&dir, version, &dir.join("x.toml"), more), code);
        assert!(!dir.join("cache").exists() && !dir.join("x.toml").exists(), "{:?}", dir.names());
        seen["error"]["kind"].as_str().unwrap().to_owned()
    };
    for goal in [["--bpw", "6"], ["--max-kl", "0.1"]] {
        for container in ["hf", "hf-native", "pth", "safetensors", "candle", "web-rwkv"] {
            assert_eq!(kind("7", &[&goal[..], &["--to", container]].concat(), 2), "NoTypes", "{container}");
        }
        assert_eq!(kind("4", &[&goal[..], &["--to", "gguf"]].concat(), 2), "CannotCarry");
        // With nothing to refuse, the text is what is missed.
        assert_eq!(kind("7", &goal, 4), "NotFound");
    }
    assert_eq!(kind("7", &["--size", "100K"], 2), "BudgetTooSmall");
    assert_eq!(kind("7", &["--bpw", "2"], 2), "BudgetTooSmall");
    // Of a container that the refusal above names a plan is made: only the text is missing.
    assert_eq!(kind("7", &["--bpw", "9", "--to", "prefab"], 4), "NotFound");
}

#[test]
fn a_recipe_demands_its_calibration() {
    let dir = directory();
    let (recipe, _) = plan(&dir, "7", &["--bpw", "7", "--quantizer", "search"]);
    let output = dir.join("x.gguf");
    let other = text(&dir.join("unseen.txt"));
    let imatrix = text(fixture("imatrix/tiny-rwkv7.gguf"));
    for more in [
        &["--calibrate", &other, "--calibration-windows", "3"][..],
        &["--calibration-windows", "2"],
        &["--calibration-windows", "3", "--calibration-memory", "400K"],
        &["--imatrix", &imatrix],
    ] {
        let seen = json(&dir, &convert_args(&dir, "7", "gguf", &recipe, &output, more), 2);
        assert_eq!(seen["error"]["kind"], "OtherCalibration", "{more:?}");
        assert!(!output.exists());
    }
    let mut none = convert_args(&dir, "7", "gguf", &recipe, &output, &["--calibration-windows", "3"]);
    none.truncate(none.iter().position(|word| word == "--calibrate").unwrap());
    assert_eq!(json(&dir, &none, 2)["error"]["kind"], "OtherCalibration");
    json(&dir, &convert_args(&dir, "7", "gguf", &recipe, &output, &["--calibration-windows", "3"]), 0);
}

#[test]
fn dry_runs_estimate_and_write_nothing() {
    let dir = directory();
    let output = dir.join("x.toml");
    let before = dir.names();
    let seen = json(&dir, &plan_args(&dir, "7", &output, &["--bpw", "6", "--dry-run"]), 0);
    assert!(seen["dry_run"] == true && seen["tensors"].as_u64().unwrap() > 30);
    assert!(number(&seen["seconds"]["probing"]) > 0.0 && number(&seen["seconds"]["calibrating"]) > 0.0);
    assert_eq!(dir.names(), before);
}

#[test]
fn a_later_plan_goes_on_from_the_probes() {
    let dir = directory();
    let (first, seen) = plan(&dir, "7", &["--bpw", "6"]);
    let entries = std::fs::read_dir(dir.join("cache/rwkv-forge")).unwrap();
    let probes: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|path| text(path).contains("probes-")).collect();
    assert_eq!(probes.len(), 1);
    let (second, again) = plan(&dir, "7", &["--bpw", "6"]);
    assert!(std::fs::read(&first).unwrap() == std::fs::read(&second).unwrap() && seen["harms"] == again["harms"], "to the last digit");
    // They are what is used: other numbers there are other harms here.
    let cache = rwkv_forge_io::Cache::new(Some(dir.join("cache/rwkv-forge")));
    let name = probes[0].file_name().unwrap().to_str().unwrap();
    let known: Value = serde_json::from_slice(&cache.get(name, 1 << 20).unwrap().unwrap()).unwrap();
    let other: serde_json::Map<String, Value> = known.as_object().unwrap().keys().map(|key| (key.clone(), 0.5.into())).collect();
    cache.put(name, Value::from(other).to_string().as_bytes()).unwrap();
    let (_, told) = plan(&dir, "7", &["--bpw", "6"]);
    assert!(told["harms"].as_array().unwrap().iter().all(|harm| harm["divergence"] == 0.5));
    // A damaged file is no reason to stop, and another container has the same probes where it has the same types.
    std::fs::write(&probes[0], "{").unwrap();
    assert!(plan(&dir, "7", &["--bpw", "6"]).1["harms"] == seen["harms"]);
}

#[test]
fn without_time_neighbours_are_asked() {
    let dir = directory();
    let (_, seen) = plan(&dir, "7", &["--bpw", "6", "--budget", "0.01s"]);
    let harms = seen["harms"].as_array().unwrap();
    let probed = harms.iter().filter(|harm| !harm["divergence"].is_null()).count();
    // One of each: embedding, head, six matrices of a layer, four pairs of factors.
    assert!((16..22).contains(&probed) && harms.len() == 42, "{probed} of {}", harms.len());
    assert!(harms.iter().all(|harm| harm["harms"].as_array().unwrap().iter().all(|value| number(value) >= 0.0)));
    assert_eq!(seen["planned"]["met"], true);
    // What was guessed is of the size of what is measured with more time.
    let (_, all) = plan(&dir, "7", &["--bpw", "6"]);
    let measured = all["harms"].as_array().unwrap();
    assert!(measured.iter().all(|harm| !harm["divergence"].is_null()));
    let logarithms = harms.iter().zip(measured).filter(|(guess, _)| guess["divergence"].is_null()).map(|(guess, known)| {
        assert_eq!(guess["tensor"], known["tensor"]);
        (number(&guess["harms"][0]) / number(&known["harms"][0])).ln().abs()
    });
    let mut logarithms: Vec<f64> = logarithms.collect();
    logarithms.sort_by(f64::total_cmp);
    // Another layer's stand in for them: half are right within a factor of 2, and none is off by 30. Those of another kind would be
    // off by 100.
    assert!(logarithms[logarithms.len() / 2] < 2f64.ln() && logarithms[logarithms.len() - 1] < 30f64.ln(), "{logarithms:?}");
}

#[test]
fn rwkv_4_is_never_planned_with_a_plain_q4_0() {
    let dir = directory();
    let types = |version: &str, bits: &str| {
        let (recipe, seen) = plan(&dir, version, &["--bpw", bits, "--to", "rwkv-cpp", "--quantizer", "ggml"]);
        let offered = seen["harms"].to_string().contains("\"q4_0\"");
        (offered, std::fs::read_to_string(recipe).unwrap().contains("\"q4_0\""))
    };
    assert_eq!(types("4", "6.2"), (false, false));
    assert!(types("5", "6.2").0, "the other versions have it to choose from");
}

#[test]
fn a_model_with_nothing_to_choose_has_a_plan_or_a_refusal() {
    let dir = directory();
    // No row of any matrix is a whole number of blocks, so that every tensor has one type alone.
    let sizes = Sizes { layers: 2, channels: 16, head_size: 4, ffn: 24, vocabulary: 256, ranks: [4, 4, 4, 4] };
    let source = dir.join("narrow.safetensors");
    std::fs::write(&source, random_model(Version::V7, &sizes, 3).to_safetensors()).unwrap();
    let args = |bits: &str| -> Vec<String> {
        let mut args: Vec<String> = ["plan", "--vocab", "bytes", "--bpw", bits, "--probe-windows", "1"].map(str::to_owned).to_vec();
        args.extend(["--calibration-windows".to_owned(), "2".to_owned(), text(&source)]);
        args.extend(["--calibrate".to_owned(), text(&dir.join("calibration.txt")), "--text".to_owned(), text(&dir.join("unseen.txt"))]);
        args.extend(["-f".to_owned(), "-o".to_owned(), text(&dir.join("recipe.toml"))]);
        args
    };
    let refused = json(&dir, &args("6"), 2);
    assert_eq!(refused["error"]["kind"], "BudgetTooSmall");
    let planned = json(&dir, &args("60"), 0)["planned"].clone();
    assert!(planned["met"] == true && planned["types"].as_array().unwrap().is_empty(), "{planned}");
    // The file that the refusal speaks of is the one that there is.
    let least = format!("need {}; allow more: a larger --size or --bpw", planned["bytes"]);
    assert!(refused["error"]["message"].as_str().unwrap().contains(&least), "{refused} {least}");
}

/// What `plan` and `eval --levels` say to type next works as it is printed, with names that a shell would take apart, and makes the file
/// that was measured.
#[test]
fn the_commands_that_are_printed_work_as_they_stand() {
    let dir = directory();
    let folder = dir.join("sp ace/it's $x");
    std::fs::create_dir_all(&folder).unwrap();
    let (model, vocab, recipe) = (folder.join("my model.pth"), folder.join("v o.txt"), folder.join("a plan.toml"));
    std::fs::copy(checkpoint("7"), &model).unwrap();
    std::fs::copy(support::vocab(), &vocab).unwrap();
    let quantized = folder.join("model-8bit.gguf");
    let mut made = support::forge();
    made.args(["convert", "--to", "gguf", "--type", "q8_0", "--no-verify", "--vocab"]).args([&vocab, &model]).arg("-o").arg(&quantized);
    assert!(made.output().unwrap().status.success());
    let typed = |command: &str, mark: &str| {
        let program = Path::new(env!("CARGO_BIN_EXE_rwkv-forge")).parent().unwrap().display().to_string();
        let run = |line: &str| {
            let path = format!("{program}:{}", std::env::var("PATH").unwrap());
            let mut shell = std::process::Command::new("sh");
            shell.args(["-c", line]).current_dir(&folder).env("PATH", path).env("XDG_CACHE_HOME", dir.join("cache"));
            let done = shell.output().unwrap();
            assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
            String::from_utf8(done.stdout).unwrap()
        };
        let said = run(command);
        let next = said.lines().find_map(|line| Some(format!("rwkv-forge convert {}", line.split_once(mark)?.1.trim_end()))).unwrap();
        run(&format!("{next} --force"));
        next
    };
    let next = typed(
        "rwkv-forge plan \"$PWD/my model.pth\" --vocab 'v o.txt' --bpw 6.5 --probe-windows 1 --calibration-windows 3 --calibrate ../../calibration.txt \
         --text ../../unseen.txt -o 'a plan.toml'",
        "file with: rwkv-forge convert ",
    );
    assert!(next.contains("'v o.txt'") && recipe.is_file(), "{next}");
    let levels = |model: &str| format!("rwkv-forge eval {model} --vocab 'v o.txt' --levels q4_0 --no-speed --max-kl 1 --bytes 600");
    typed(&levels("'my model.pth'"), "rwkv-forge convert ");
    assert!(typed(&levels("model-8bit.gguf"), "rwkv-forge convert ").ends_with("--requantize"));
}
