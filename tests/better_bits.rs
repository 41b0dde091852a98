//! Better bits as users see them: ready types, quantizers, calibration, imatrix files, in every container.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use crate::support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::{Dir, checkpoint, convert_args, fixture, sha256};
use rwkv_forge_calibrate::{Imatrix, ImatrixFormat, Statistics};
use rwkv_forge_model::Version;
use rwkv_forge_testkit::hybrids::{Variant, config_json, random_hybrid, tokenizer_json};
use rwkv_forge_testkit::models::{MemorySource, Sizes, SplitMix64, random_model};
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

/// Two pieces of the same book that share nothing: to calibrate on, and to measure on.
struct Texts {
    calibration: String,
    unseen: String,
}

fn texts(dir: &Dir) -> Texts {
    let book = std::fs::read(fixture("text/public-domain-100k.txt")).unwrap();
    let write = |name: &str, piece: &[u8]| {
        std::fs::write(dir.join(name), piece).unwrap();
        text(&dir.join(name))
    };
    Texts { calibration: write("calibration.txt", &book[..12_000]), unseen: write("unseen.txt", &book[60_000..66_000]) }
}

/// Converts a tiny checkpoint, or another source; returns the file and the record.
fn convert(dir: &Dir, source: &Path, container: &str, encoding: &str, more: &[&str]) -> (PathBuf, Value) {
    let output = dir.join(&format!("out-{}.{container}", dir.names().len()));
    let mut args = convert_args(source, container, encoding, &output);
    args.extend(more.iter().map(|word| (*word).to_owned()));
    let record = json(dir, &args, 0);
    (output, record)
}

/// The kind of the error of a conversion, which leaves nothing behind.
fn refused(dir: &Dir, source: &Path, container: &str, encoding: &str, more: &[&str], code: i32) -> (String, String) {
    let output = dir.join("refused");
    let mut args = convert_args(source, container, encoding, &output);
    args.extend(more.iter().map(|word| (*word).to_owned()));
    let seen = json(dir, &args, code);
    assert!(!output.exists() && dir.names().iter().all(|name| !name.contains("refused")), "{:?}", dir.names());
    let of = |field: &str| seen["error"][field].as_str().unwrap().to_owned();
    (of("kind"), of("message"))
}

fn kl(record: &Value) -> f64 {
    number(&record["record"]["agreement"]["kl"]["mean"])
}

fn bytes(record: &Value) -> u64 {
    record["record"]["output_bytes"].as_u64().unwrap()
}

/// The types of the tensors in a record.
fn types(record: &Value) -> BTreeMap<String, String> {
    let name = |tensor: &Value, field: &str| tensor[field].as_str().unwrap().to_owned();
    record["tensors"].as_array().unwrap().iter().map(|tensor| (name(tensor, "name"), name(tensor, "type"))).collect()
}

/// SHA-256 of every tensor of a file.
fn digests(dir: &Dir, file: &Path) -> BTreeMap<String, String> {
    let seen = json(dir, &["inspect".to_owned(), text(file), "--hashes".to_owned()], 0);
    let name = |tensor: &Value, field: &str| tensor[field].as_str().unwrap().to_owned();
    seen["tensors"].as_array().unwrap().iter().map(|tensor| (name(tensor, "name"), name(tensor, "sha256"))).collect()
}

/// Names of the tensors that differ.
fn changed(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Vec<String> {
    assert!(a.keys().eq(b.keys()));
    a.iter().filter(|(name, digest)| b[*name] != **digest).map(|(name, _)| name.clone()).collect()
}

/// Mean KL of files against their source on a text.
fn divergences(dir: &Dir, source: &Path, files: &[&Path], on: &str) -> Vec<f64> {
    let mut args = vec!["eval".to_owned()];
    args.extend(files.iter().map(|file| text(file)));
    args.extend(["--baseline".to_owned(), text(source), "--text".to_owned(), on.to_owned(), "--no-cache".to_owned()]);
    args.extend(["--vocab".to_owned(), text(support::vocab())]);
    let seen = json(dir, &args, 0);
    (0..files.len()).map(|index| number(&seen["models"][index]["kl"]["mean"])).collect()
}

/// A made-up model whose rows are whole blocks of 256.
fn wide(dir: &Dir, version: Version, seed: u64) -> PathBuf {
    let sizes = Sizes { layers: 2, channels: 256, head_size: 64, ffn: 512, vocabulary: 320, ranks: [32, 32, 32, 64] };
    let path = dir.join(&format!("wide-{seed}.safetensors"));
    std::fs::write(&path, random_model(version, &sizes, seed).to_safetensors()).unwrap();
    path
}

const READY: [(&str, &str); 4] = [("4bit", "q4_k_m"), ("5bit", "q5_k_m"), ("6bit", "q6_k"), ("8bit", "q8_0")];

#[test]
fn ready_types_lose_less_in_no_more_bytes() {
    let dir = Dir::new();
    let made = wide(&dir, Version::V7, 3);
    for (source, container) in [(checkpoint("7"), "gguf"), (checkpoint("6"), "gguf"), (&made, "gguf"), (checkpoint("4"), "rwkv-cpp")] {
        for (ready, plain) in READY {
            let (_, ready_record) = convert(&dir, source, container, ready, &[]);
            let (_, plain_record) = convert(&dir, source, container, plain, &["--quantizer", "ggml"]);
            let (own, other) = (bytes(&ready_record), bytes(&plain_record));
            assert!(own <= other, "{} {container} {ready}: {own} bytes, {plain} {other}", source.display());
            // Measured: 0.02 to 0.9 of the plain type's loss.
            let (own, other) = (kl(&ready_record), kl(&plain_record));
            assert!(own < other, "{} {container} {ready}: KL {own:e}, {plain} {other:e}", source.display());
        }
    }
}

#[test]
fn calibration_lowers_the_loss_on_text_that_it_has_not_seen() {
    let dir = Dir::new();
    let texts = texts(&dir);
    let calibrate = ["--calibrate", &texts.calibration, "--no-verify"];
    for (version, container, encoding) in
        [("7", "gguf", "4bit"), ("4", "rwkv-cpp", "q4_1"), ("6", "prefab", "nf4"), ("5", "prefab", "int8")]
    {
        let source = checkpoint(version);
        let of = |quantizer: &str| {
            let known = if quantizer == "gptq" { &calibrate[..] } else { &calibrate[2..] };
            convert(&dir, source, container, encoding, &[&["--quantizer", quantizer], known].concat()).0
        };
        let files = ["gptq", "search", "ggml"].map(of);
        let sizes: Vec<u64> = files.iter().map(|file| std::fs::metadata(file).unwrap().len()).collect();
        assert!(sizes[0].abs_diff(sizes[2]) < 256 && sizes[1].abs_diff(sizes[2]) < 256, "as many bytes but for the metadata: {sizes:?}");
        let found = divergences(&dir, source, &[&files[0], &files[1], &files[2]], &texts.unseen);
        assert!(found[0] < 0.95 * found[1] && found[1] < 1.02 * found[2], "{version} {container} {encoding}: {found:?}");
        // Read back without the program's own bookkeeping.
        let verify = ["verify".to_owned(), text(source), text(&files[0]), "--vocab".to_owned(), text(support::vocab())];
        assert!(number(&json(&dir, &verify, 0)["agreement"]["kl"]["mean"]) < 0.1);
    }
}

#[test]
fn threads_change_no_byte() {
    let dir = Dir::new();
    let texts = texts(&dir);
    let made = wide(&dir, Version::V6, 5);
    for (source, container, encoding) in [
        (checkpoint("7"), "gguf", "4bit"),
        (&made, "gguf", "4bit"),
        (checkpoint("4"), "rwkv-cpp", "5bit"),
        (checkpoint("5"), "prefab", "5bit"),
    ] {
        let of = |threads: &str, statistics: &str| {
            let statistics = text(&dir.join(statistics));
            let more = ["--calibrate", &texts.calibration, "--calibration-windows", "3", "--statistics", &statistics, "--threads", threads];
            sha256(&convert(&dir, source, container, encoding, &more).0)
        };
        // Each computes its own statistics.
        let name = format!("{container}-{encoding}-{}", dir.names().len());
        let one = of("1", &format!("{name}-1"));
        assert_eq!(one, of("2", &format!("{name}-2")));
        assert_eq!(one, of("3", &format!("{name}-1")), "and from a file");
    }
}

#[test]
fn quantizers_are_chosen_for_all_or_by_rules() {
    let dir = Dir::new();
    let texts = texts(&dir);
    let made = wide(&dir, Version::V7, 4);
    let of = |more: &[&str]| digests(&dir, &convert(&dir, &made, "gguf", "q4_k_m", &[more, &["--no-verify"]].concat()).0);
    let plain = of(&[]);
    assert!(changed(&plain, &of(&["--quantizer", "ggml"])).is_empty(), "ggml is what types mean");
    let is_quantized = |name: &String| ["weight"].iter().all(|end| name.ends_with(end)) && !name.contains("norm");
    let searched = changed(&plain, &of(&["--quantizer", "search"]));
    assert!(searched.len() == 14 && searched.iter().all(is_quantized), "{searched:?}");
    let calibrate = ["--calibrate", &texts.calibration, "--calibration-windows", "2"];
    let fed_back = changed(&of(&["--quantizer", "search"]), &of(&[&["--quantizer", "gptq"], &calibrate[..]].concat()));
    assert!(fed_back.len() >= 13, "{fed_back:?}");
    // One tensor by another quantizer, the others with importance and by the format's own rule.
    let weighted = of(&calibrate);
    assert!(changed(&plain, &weighted).len() >= 13);
    let one = changed(&weighted, &of(&[&["--set", r"blocks\.1\.ffn\.key=q4_k:gptq"], &calibrate[..]].concat()));
    assert_eq!(one, ["blk.1.channel_mix_key.weight"]);
    let one = changed(&plain, &of(&["--set", "head=q6_k:search"]));
    assert_eq!(one, ["output.weight"]);
}

/// What a recipe file names is what is done, and what is recorded.
#[test]
fn a_recipe_file_names_the_quantizer_of_a_ready_type() {
    let dir = Dir::new();
    let texts = texts(&dir);
    let of = |name: &str, recipe: &str, more: &[&str]| {
        let file = dir.join(&format!("{name}.toml"));
        std::fs::write(&file, recipe).unwrap();
        let output = dir.join(&format!("{name}.gguf"));
        let mut args = convert_args(checkpoint("7"), "gguf", "4bit", &output);
        let at = args.iter().position(|word| word == "--type").unwrap();
        args.drain(at..at + 2);
        args.extend(["--recipe".to_owned(), text(&file), "--no-verify".to_owned()]);
        args.extend(more.iter().map(|word| (*word).to_owned()));
        let record = json(&dir, &args, 0);
        (digests(&dir, &output), record["recipe"].as_str().unwrap().to_owned())
    };
    let (plain, said) = of("plain", "type = \"4bit\"\n", &[]);
    assert_eq!(said, "type=4bit; quantizer search");
    let (ggml, said) = of("ggml", "type = \"4bit\"\nquantizer = \"ggml\"\n", &[]);
    assert_eq!(said, "type=4bit");
    assert!(changed(&plain, &ggml).len() > 10, "{:?}", changed(&plain, &ggml));
    let (asked, said) = of("asked", "type = \"4bit\"\n", &["--quantizer", "ggml"]);
    assert!(said == "type=4bit" && asked == ggml, "as on the command line, which wins over the file: {said}");
    let (search, said) = of("search", "type = \"4bit\"\nquantizer = \"ggml\"\n", &["--quantizer", "search"]);
    assert!(said == "type=4bit; quantizer search" && search == plain, "{said}");
    // With statistics too: what is named stays, and what is not becomes the best that there is.
    let calibrate = ["--calibrate", &texts.calibration, "--calibration-windows", "2"];
    let (weighed, said) = of("weighed", "type = \"4bit\"\nquantizer = \"ggml\"\n", &calibrate);
    assert!(said.starts_with("type=4bit; calibration ") && weighed != ggml, "{said}");
    let (_, said) = of("gptq", "type = \"4bit\"\n", &calibrate);
    assert!(said.starts_with("type=4bit; quantizer gptq; calibration "), "{said}");
}

/// Known from the arguments and the model's description: nobody reads a text for it, which here is not there to be read.
#[test]
fn refusals_come_before_any_text_is_read() {
    let dir = Dir::new();
    let missing = text(&dir.join("missing.txt"));
    let kind = |version: &str, container: &str, encoding: &str, more: &[&str], code: i32| {
        let more = [more, &["--calibrate", &missing]].concat();
        let found = refused(&dir, checkpoint(version), container, encoding, &more, code).0;
        assert!(!dir.join("cache").exists());
        found
    };
    assert_eq!(kind("7", "hf", "q4_k_m", &[], 2), "TypeNotCarried");
    assert_eq!(kind("4", "gguf", "4bit", &[], 2), "CannotCarry");
    assert_eq!(kind("7", "gguf", "q4_0", &["--set", "no.such=q8_0"], 2), "RuleMatchesNothing");
    assert_eq!(kind("7", "gguf", "mxfp4", &["--quantizer", "gptq"], 2), "BadRecipe");
    assert_eq!(kind("7", "gguf", "4bit", &[], 4), "NotFound");
}

#[test]
fn gptq_needs_a_text() {
    let dir = Dir::new();
    let imatrix = text(fixture("imatrix/tiny-rwkv7.gguf"));
    for more in [
        &["--quantizer", "gptq"][..],
        &["--set", "ffn.key=q4_0:gptq"],
        // An imatrix has no products of channels.
        &["--quantizer", "gptq", "--imatrix", &imatrix],
    ] {
        let (kind, message) = refused(&dir, checkpoint("7"), "gguf", "q4_0", more, 2);
        assert_eq!(kind, "CalibrationNeeded");
        assert!(message.contains("--calibrate") && message.contains("search"), "{message}");
    }
    let (kind, _) = refused(&dir, checkpoint("7"), "prefab", "nf4", &["--quantizer", "gptq"], 2);
    assert_eq!(kind, "CalibrationNeeded");
    let short = dir.join("short.txt");
    std::fs::write(&short, "too little\n").unwrap();
    let (kind, _) = refused(&dir, checkpoint("7"), "gguf", "4bit", &["--calibrate", &text(&short)], 2);
    assert_eq!(kind, "TooLittleText");
    let (kind, message) = refused(&dir, checkpoint("7"), "gguf", "q4_0", &["--set", "ffn.key=q4_0:best"], 2);
    assert!(kind == "BadRecipe" && message.contains("gptq"), "{message}");
    // What a quantizer cannot make is not made by another one.
    for more in [&["--set", "ffn.key=mxfp4:search"][..], &["--set", "ffn.key=f16:gptq"]] {
        let (kind, message) = refused(&dir, checkpoint("7"), "gguf", "q4_0", more, 2);
        assert!(kind == "BadRecipe" && message.contains("iq4_xs"), "{message}");
    }
    assert_eq!(refused(&dir, checkpoint("7"), "gguf", "mxfp4", &["--quantizer", "search"], 2).0, "BadRecipe");
}

#[test]
fn imatrix_files_weigh_the_errors() {
    let dir = Dir::new();
    for version in ["6", "7"] {
        let of = |extension: &str| text(fixture(&format!("imatrix/tiny-rwkv{version}.{extension}")));
        let with = |imatrix: &str, encoding: &str| convert(&dir, checkpoint(version), "gguf", encoding, &["--imatrix", imatrix]);
        let (plain, _) = convert(&dir, checkpoint(version), "gguf", "q4_0", &[]);
        let (new, record) = with(&of("gguf"), "q4_0");
        assert!(record["recipe"].as_str().unwrap().ends_with(&format!("imatrix=tiny-rwkv{version}.gguf")), "{}", record["recipe"]);
        // All matrices of the body; the embedding has no inputs, and a head of Q8_0 has no weights.
        let expected = if version == "7" { 18 } else { 24 };
        assert_eq!(changed(&digests(&dir, &plain), &digests(&dir, &new)).len(), expected, "RWKV-{version}");
        let (old, _) = with(&of("dat"), "q4_0");
        assert!(changed(&digests(&dir, &old), &digests(&dir, &new)).is_empty(), "both forms say the same");
        let (ready, _) = with(&of("gguf"), "4bit");
        assert!(!changed(&digests(&dir, &ready), &digests(&dir, &convert(&dir, checkpoint(version), "gguf", "4bit", &[]).0)).is_empty());
    }
    let other = text(fixture("imatrix/tiny-rwkv6.gguf"));
    assert_eq!(refused(&dir, checkpoint("7"), "gguf", "q4_0", &["--imatrix", &other], 3).0, "UnknownTensor");
    // The same names in another width.
    let (kind, message) =
        refused(&dir, &wide(&dir, Version::V7, 6), "gguf", "q4_0", &["--imatrix", &text(fixture("imatrix/tiny-rwkv7.dat"))], 3);
    assert!(kind == "BadImatrix" && message.contains("128 channels") && message.contains("256"), "{message}");
    assert_eq!(refused(&dir, checkpoint("7"), "gguf", "q4_0", &["--imatrix", &text(checkpoint("7"))], 3).0, "BadImatrix");
}

/// The fixture's imatrix with one entry changed.
fn changed_imatrix(dir: &Dir, entry: &str, change: impl Fn(&mut rwkv_forge_calibrate::Channels)) -> String {
    let (mut imatrix, format) = Imatrix::read(fixture("imatrix/tiny-rwkv7.gguf")).unwrap();
    change(imatrix.entries.get_mut(entry).unwrap());
    let path = dir.join(&format!("changed-{}.gguf", dir.names().len()));
    imatrix.write(&path, format, false).unwrap();
    text(&path)
}

fn notes(record: &Value) -> Vec<String> {
    record["record"]["importance"].as_array().unwrap().iter().map(|note| note.as_str().unwrap().to_owned()).collect()
}

#[test]
fn importance_without_use_is_named_and_replaced() {
    let dir = Dir::new();
    let good = text(fixture("imatrix/tiny-rwkv7.gguf"));
    let (stored, own) = ("blk.1.time_mix_key.weight", "blocks.1.att.key.weight");
    let zero = changed_imatrix(&dir, stored, |channels| channels.sums.fill(0.0));
    for encoding in ["q4_0", "q4_k_m", "iq4_xs", "iq4_nl"] {
        let (plain, _) = convert(&dir, checkpoint("7"), "gguf", encoding, &[]);
        let (sound, before) = convert(&dir, checkpoint("7"), "gguf", encoding, &["--imatrix", &good]);
        assert!(notes(&before).is_empty() && before["record"]["zeroed_blocks"] == 0, "{encoding}: {:?}", notes(&before));
        let (found, record) = convert(&dir, checkpoint("7"), "gguf", encoding, &["--imatrix", &zero]);
        assert_eq!(record["record"]["zeroed_blocks"], 0, "{encoding}");
        let note = notes(&record).concat();
        assert!(note.contains(own) && note.contains("columns 0 to 127") && note.contains("as without importance"), "{encoding}: {note}");
        // That one matrix is what it is without importance; all others are weighed.
        assert!(!changed(&digests(&dir, &plain), &digests(&dir, &found)).contains(&stored.to_owned()), "{encoding}");
        assert_eq!(changed(&digests(&dir, &sound), &digests(&dir, &found)), [stored], "{encoding}");
        // A matrix of zeros costs ten times as much.
        assert!(kl(&record) < kl(&before) * 2.0, "{encoding}: {} {}", kl(&record), kl(&before));
        // As llama-quantize has it, with its loss said.
        let strict = ["--imatrix", &zero, "--compat", "strict"];
        let (_, record) = convert(&dir, checkpoint("7"), "gguf", encoding, &strict);
        assert_eq!(record["record"]["zeroed_blocks"], 512, "{encoding}");
        let zeroed = &record["record"]["zeroed"][0];
        assert!(zeroed["tensor"] == own && zeroed["zeroed"] == 512 && zeroed["blocks"] == 512, "{encoding}: {zeroed}");
        assert!(notes(&record).concat().contains("--compat strict"), "{encoding}");
        let gate = [&strict[..], &["--max-kl", "0.1"]].concat();
        let (kind, message) = refused(&dir, checkpoint("7"), "gguf", encoding, &gate, 1);
        let name = Path::new(&zero).file_name().unwrap().to_str().unwrap();
        assert!(kind == "ThresholdNotMet" && message.contains(&format!("the imatrix {name}")), "{encoding}: {message}");
    }
    // Said to people, too.
    let mut args = convert_args(checkpoint("7"), "gguf", "q4_0", &dir.join("said.gguf"));
    args.extend(["--imatrix", &zero, "--compat", "strict"].map(str::to_owned));
    let said = String::from_utf8_lossy(&support::run(&args).stderr).into_owned();
    assert!(said.contains(own) && said.contains("512 of 512 blocks") && said.contains("became zero"), "{said}");
    // Other quantizers, and the ready types.
    for more in [&["--quantizer", "search"][..], &[]] {
        let encoding = if more.is_empty() { "4bit" } else { "q4_0" };
        let (_, record) = convert(&dir, checkpoint("7"), "gguf", encoding, &[&["--imatrix", &zero], more].concat());
        assert!(record["record"]["zeroed_blocks"] == 0 && notes(&record).concat().contains(own), "{encoding} {more:?}");
    }
}

#[test]
fn a_part_of_importance_may_be_of_no_use() {
    let dir = Dir::new();
    let stored = "blk.1.channel_mix_value.weight";
    let convert_with = |change: &dyn Fn(&mut rwkv_forge_calibrate::Channels)| {
        let imatrix = changed_imatrix(&dir, stored, change);
        let (_, record) = convert(&dir, checkpoint("7"), "gguf", "q4_0", &["--imatrix", &imatrix]);
        assert_eq!(record["record"]["zeroed_blocks"], 0);
        notes(&record).concat()
    };
    // A whole block, with a subnormal mean among the zeros.
    let note = convert_with(&|channels| {
        channels.sums[64..96].fill(0.0);
        channels.sums[70] = 1e-39;
        channels.sums[256..320].fill(0.0);
    });
    assert!(
        note.contains("blocks.1.ffn.value.weight") && note.contains("columns 64 to 95, 256 to 319: these columns weigh alike"),
        "{note}"
    );
    // Single columns, and one as far above the others as a trained model has them.
    let note = convert_with(&|channels| {
        (0..512).step_by(2).for_each(|column| channels.sums[column] = 0.0);
        let largest = channels.sums.iter().copied().fold(0.0, f32::max);
        channels.sums[201] = largest * 7e6;
    });
    assert_eq!(note, "");
    let note = convert_with(&|channels| channels.sums[200] = 1e30);
    assert!(note.contains("1e12 times") && note.contains("columns 192 to 223:"), "{note}");
    let note = convert_with(&|channels| channels.counts.fill(0));
    assert!(note.contains("count is zero") && note.contains("without importance"), "{note}");
    // What is no sum of squares stays an error.
    for bad in [f32::NAN, f32::INFINITY, -1.0] {
        let imatrix = changed_imatrix(&dir, stored, |channels| channels.sums[3] = bad);
        assert_eq!(refused(&dir, checkpoint("7"), "gguf", "q4_0", &["--imatrix", &imatrix], 3).0, "BadImatrix", "{bad}");
    }
}

#[test]
fn our_own_statistics_may_be_zero() {
    let dir = Dir::new();
    let texts = texts(&dir);
    // Units of the channel mix that never fire: their keys are zero.
    let mut tensors =
        random_model(Version::V7, &Sizes { layers: 2, channels: 256, head_size: 64, ffn: 512, vocabulary: 320, ranks: [32; 4] }, 8)
            .into_tensors();
    let keys = tensors.iter_mut().find(|tensor| tensor.info.name == "blocks.1.ffn.key.weight").unwrap();
    keys.bytes[..256 * 256 * 4].fill(0);
    let source = dir.join("dead.safetensors");
    std::fs::write(&source, MemorySource::from_tensors(tensors).to_safetensors()).unwrap();
    for quantizer in ["ggml", "search", "gptq"] {
        for encoding in ["q4_0", "q4_k", "q6_k"] {
            let more = ["--calibrate", &texts.calibration, "--calibration-windows", "2", "--quantizer", quantizer, "--no-verify"];
            let (_, record) = convert(&dir, &source, "gguf", encoding, &more);
            assert_eq!(record["record"]["zeroed_blocks"], 0, "{encoding} {quantizer}");
            let note = notes(&record).concat();
            assert!(note.contains("blocks.1.ffn.value.weight") && note.contains("columns 0 to 255"), "{encoding} {quantizer}: {note}");
        }
    }
}

#[test]
fn importance_is_saved_as_an_imatrix() {
    let dir = Dir::new();
    let texts = texts(&dir);
    for version in ["6", "7"] {
        let statistics = dir.join(&format!("statistics-{version}"));
        let mut files = Vec::new();
        for (extension, format) in [("gguf", ImatrixFormat::Gguf), ("dat", ImatrixFormat::Legacy)] {
            let saved = dir.join(&format!("saved-{version}.{extension}"));
            let own = text(&saved);
            let more = [
                "--calibrate",
                &texts.calibration,
                "--calibration-windows",
                "2",
                "--statistics",
                &text(&statistics),
                "--save-imatrix",
                &own,
            ];
            let (calibrated, _) = convert(&dir, checkpoint(version), "gguf", "q4_0", &more);
            let (imatrix, found) = Imatrix::read(&saved).unwrap();
            assert_eq!(found, format);
            // The same numbers under other names. The legacy format has means times evaluations, which rounds once more.
            let known = Statistics::open(&statistics).unwrap();
            let read = imatrix.importance(if version == "6" { Version::V6 } else { Version::V7 }, &saved).unwrap();
            assert!(read.contains_key("head.weight") && known.names().all(|name| read.contains_key(name)));
            let near =
                |a: &[f32], b: &[f32], bound: f32| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= bound * b.abs());
            for (name, values) in &read {
                let expected = known.importance(name).unwrap().unwrap();
                // Three roundings to f32: the sum, its inverse as counts, the mean. A shift by one channel is far outside.
                assert!(near(values, &expected, 4.0 * f32::EPSILON), "{name}");
                let mut shifted = expected.clone();
                shifted.rotate_left(1);
                assert!(!near(values, &shifted, 4.0 * f32::EPSILON), "{name}");
            }
            // What other tools make of it is what we make of the statistics.
            let (by_file, _) = convert(&dir, checkpoint(version), "gguf", "q4_0", &["--imatrix", &own]);
            let different = changed(&digests(&dir, &calibrated), &digests(&dir, &by_file));
            assert!(different.is_empty(), "{version} {extension}: {different:?}");
            let (kind, _) = refused(&dir, checkpoint(version), "gguf", "q4_0", &more, 2);
            assert_eq!(kind, "OutputExists");
            files.push(saved);
        }
        assert_ne!(std::fs::read(&files[0]).unwrap(), std::fs::read(&files[1]).unwrap());
    }
    let of = |name: &str| text(&dir.join(name));
    let calibrate = ["--calibrate", &texts.calibration, "--calibration-windows", "2", "--save-imatrix"];
    let (kind, _) = refused(&dir, checkpoint("4"), "rwkv-cpp", "q5_1", &[&calibrate[..], &[&of("4.gguf")]].concat(), 2);
    assert_eq!(kind, "CannotCarry");
    assert!(!dir.join("4.gguf").exists());
    let mut args = convert_args(checkpoint("7"), "gguf", "q4_0", &dir.join("x.gguf"));
    args.extend([&calibrate[..], &[&of("imatrix.bin")]].concat().iter().map(|word| (*word).to_owned()));
    let output = support::run(&args);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains(".dat"), "says what it may be");
}

#[test]
fn statistics_are_kept_and_belong_to_their_source() {
    let dir = Dir::new();
    let texts = texts(&dir);
    let statistics = dir.join("statistics");
    let of = |source: &Path, more: &[&str]| {
        let own = ["--calibrate", &texts.calibration, "--calibration-windows", "2", "--statistics", &text(&statistics), "--no-verify"];
        sha256(&convert(&dir, source, "gguf", "4bit", &[&own[..], more].concat()).0)
    };
    let first = of(checkpoint("7"), &[]);
    let kept = (sha256(&statistics), std::fs::metadata(&statistics).unwrap().modified().unwrap());
    assert_eq!(of(checkpoint("7"), &[]), first);
    assert_eq!((sha256(&statistics), std::fs::metadata(&statistics).unwrap().modified().unwrap()), kept, "not computed again");
    // Statistics of another model or of other products are not what is wanted: said, and the file is left alone.
    let sizes = Sizes { layers: 3, channels: 128, head_size: 64, ffn: 512, vocabulary: 320, ranks: [32; 4] };
    let other = dir.join("other.safetensors");
    std::fs::write(&other, random_model(Version::V7, &sizes, 9).to_safetensors()).unwrap();
    let named = text(&statistics);
    let own = ["--calibrate", &texts.calibration, "--calibration-windows", "2", "--statistics", &named];
    assert_eq!(refused(&dir, &other, "gguf", "4bit", &own, 3).0, "OtherStatistics");
    let narrow = [&own[..], &["--calibration-memory", "400K"]].concat();
    assert_eq!(refused(&dir, checkpoint("7"), "gguf", "4bit", &narrow, 3).0, "OtherStatistics");
    assert_eq!(sha256(&statistics), kept.0);
    // A file that is something else is never replaced.
    std::fs::write(&statistics, "somebody's notes").unwrap();
    let own = ["--calibrate", &texts.calibration, "--statistics", &text(&statistics)];
    assert_eq!(refused(&dir, checkpoint("7"), "gguf", "4bit", &own, 3).0, "BadStatistics");
    assert_eq!(std::fs::read(&statistics).unwrap(), b"somebody's notes");
}

#[test]
fn a_merged_lora_has_statistics_of_its_own() {
    let dir = Dir::new();
    let texts = texts(&dir);
    let mut rng = SplitMix64::new(1);
    let mut values = |count: usize| (0..count).map(|_| 0.2 * rng.normal()).collect::<Vec<f32>>();
    let name = |half: &str| format!("blocks.0.att.value.lora_{half}");
    let lora = vec![(name("A"), vec![4, 128], values(512)), (name("B"), vec![128, 4], values(512))];
    let path = dir.join("lora.safetensors");
    std::fs::write(&path, MemorySource::from_f32(lora).to_safetensors()).unwrap();
    let of = |alpha: &str| {
        let more = ["--lora", &text(&path), "--lora-alpha", alpha, "--calibrate", &texts.calibration, "--calibration-windows", "2"];
        convert(&dir, checkpoint("7"), "gguf", "q4_0", &more);
        std::fs::read_dir(dir.join("cache/rwkv-forge")).unwrap().count()
    };
    assert_eq!((of("4"), of("4"), of("8")), (1, 1, 2), "another alpha is another model");
}

#[test]
fn records_and_dry_runs_give_reasons() {
    let dir = Dir::new();
    let texts = texts(&dir);
    let mut args = convert_args(checkpoint("7"), "gguf", "4bit", &dir.join("x.gguf"));
    args.extend(["--dry-run", "--calibrate", &texts.calibration, "--calibration-windows", "2"].map(str::to_owned));
    let before = dir.names();
    let seen = json(&dir, &args, 0);
    assert_eq!(dir.names(), before, "nothing is written");
    let reasons: Vec<&str> = seen["tensors"].as_array().unwrap().iter().map(|tensor| tensor["reason"].as_str().unwrap()).collect();
    assert!(reasons.contains(&"4bit: factors need no more") && reasons.contains(&"4bit: what its role needs"));
    assert!(reasons.iter().all(|reason| !reason.is_empty()));
    let (file, record) = convert(&dir, checkpoint("7"), "gguf", "4bit", &["--calibrate", &texts.calibration, "--calibration-windows", "2"]);
    assert_eq!(record["tensors"], seen["tensors"], "what was said is what is written");
    assert_eq!(std::fs::metadata(&file).unwrap().len(), seen["total_bytes"].as_u64().unwrap());
    let recipe = record["recipe"].as_str().unwrap();
    assert!(recipe.starts_with("type=4bit; quantizer gptq; calibration ") && seen["recipe"] == recipe, "{recipe}");
    let (_, record) = convert(&dir, checkpoint("7"), "gguf", "4bit", &[]);
    assert_eq!(record["recipe"], "type=4bit; quantizer search");
}

#[test]
fn strict_keeps_what_llama_quantize_keeps() {
    let dir = Dir::new();
    for version in ["6", "7"] {
        let (_, ready) = convert(&dir, checkpoint(version), "gguf", "4bit", &["--no-verify"]);
        let (_, strict) = convert(&dir, checkpoint(version), "gguf", "4bit", &["--compat", "strict", "--no-verify"]);
        let (_, plain) = convert(&dir, checkpoint(version), "gguf", "q4_k_m", &["--no-verify"]);
        let factor = |name: &&String| {
            let last = name.rsplit('.').nth(1).unwrap_or_default();
            ["w", "a", "v", "g"].iter().any(|letter| ["1", "2"].iter().any(|half| last.ends_with(&format!("_{letter}{half}"))))
        };
        let of = |record: &Value| types(record).into_iter().filter(|(name, _)| factor(&name)).collect::<BTreeMap<_, _>>();
        assert!(of(&ready).len() >= 12 && of(&ready).values().all(|name| name == "q8_0"), "{:?}", of(&ready));
        assert_eq!(of(&strict), of(&plain));
        assert!(of(&strict).values().all(|name| name == "f16" || name == "f32"));
        assert!(bytes(&strict) <= bytes(&plain));
    }
}

#[test]
fn other_containers_take_mixed_types_and_read_them_back() {
    let dir = Dir::new();
    let texts = texts(&dir);
    for version in ["4", "5", "6", "7"] {
        for (container, plain) in [("rwkv-cpp", "q4_k_m"), ("prefab", "nf4")] {
            let more = ["--calibrate", &texts.calibration, "--calibration-windows", "4"];
            let (file, record) = convert(&dir, checkpoint(version), container, "4bit", &more);
            let (_, other) = convert(&dir, checkpoint(version), container, plain, &[]);
            assert!(bytes(&record) <= bytes(&other), "RWKV-{version} {container}");
            assert!(kl(&record) < 0.9 * kl(&other), "RWKV-{version} {container}: {} {}", kl(&record), kl(&other));
            let types = types(&record);
            let mut names: Vec<&String> = types.values().collect();
            names.sort();
            names.dedup();
            if container == "rwkv-cpp" {
                assert!(names.len() >= 4, "several types in one file: {names:?}");
                assert!(!["emb.weight", "head.weight"].iter().any(|name| types[*name].starts_with('f')), "{types:?}");
                assert!(version != "4" || !names.iter().any(|name| *name == "q4_0"), "{names:?}");
            }
            let mut verify = ["verify", "--probe-tokens", "128", "--vocab"].map(str::to_owned).to_vec();
            verify.extend([support::vocab(), checkpoint(version), &file].map(text));
            assert_eq!(number(&json(&dir, &verify, 0)["agreement"]["kl"]["mean"]), kl(&record), "RWKV-{version} {container}");
        }
    }
}

#[test]
fn float_containers_refuse() {
    let dir = Dir::new();
    for container in ["hf", "pth", "safetensors", "web-rwkv"] {
        let (kind, message) = refused(&dir, checkpoint("7"), container, "4bit", &[], 2);
        assert!(kind == "TypeNotCarried" && message.contains("4bit") && message.contains("f16"), "{message}");
        assert_eq!(refused(&dir, checkpoint("7"), container, "f16", &["--set", "head=q8_0:search"], 2).0, "TypeNotCarried");
    }
}

/// Hybrids with Qwen, whose tensors have other roles and whose presets are mixtures.
#[test]
fn hybrids_take_ready_types() {
    let dir = Dir::new();
    for version in [Version::ARwkv7, Version::QRwkv6] {
        let sizes = Sizes { layers: 2, channels: 256, head_size: 64, ffn: 512, vocabulary: 272, ranks: [32, 32, 32, 64] };
        let folder = dir.join(version.name());
        std::fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, value: &Value| std::fs::write(folder.join(name), value.to_string()).unwrap();
        write("config.json", &config_json(version, &sizes, &Variant::BARE));
        write("tokenizer.json", &tokenizer_json());
        write("tokenizer_config.json", &serde_json::json!({ "eos_token": "<|im_end|>", "chat_template": "{{ messages }}" }));
        let source = folder.join("model.safetensors");
        std::fs::write(&source, random_hybrid(version, &sizes, &Variant::BARE, 2).to_safetensors()).unwrap();
        for (ready, plain) in READY {
            let of = |name: &str| {
                let output = dir.join(&format!("{}-{name}.gguf", version.name()));
                let args = ["convert", &text(&source), "--to", "gguf", "--type", name, "-o", &text(&output)].map(str::to_owned);
                json(&dir, &args, 0)
            };
            let (own, other) = (of(ready), of(plain));
            assert!(bytes(&own) <= bytes(&other), "{version} {ready}: {} {}", bytes(&own), bytes(&other));
            assert!(kl(&own) < kl(&other), "{version} {ready}: {} {}", kl(&own), kl(&other));
        }
    }
}
