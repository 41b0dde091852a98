//! A vocabulary that is not the model's: what the number of its tokens gives away, and what the prediction of a text does.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use crate::support;

use std::path::{Path, PathBuf};

use crate::support::{Dir, checkpoint, convert_args, error_kind, fixture, forge, json, vocab};
use rwkv_forge_model::Version;
use rwkv_forge_testkit::hybrids::{Variant, config_json, random_hybrid, tokenizer_json};
use rwkv_forge_testkit::models::{Sizes, random_model};
use serde_json::Value;

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// An RWKV-7 with random weights and so many rows.
fn model(dir: &Dir, rows: usize) -> PathBuf {
    model_of(dir, &Sizes { vocabulary: rows, ..Sizes::TINY })
}

fn model_of(dir: &Dir, sizes: &Sizes) -> PathBuf {
    let path = dir.join(&format!("random-{}.safetensors", sizes.vocabulary));
    std::fs::write(&path, random_model(Version::V7, sizes, 11).to_safetensors()).unwrap();
    path
}

/// What a command that succeeds prints on stderr, and its document.
fn said(args: &[String]) -> (String, Value) {
    let output = forge().arg("--json").args(args).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    (stderr, serde_json::from_slice(&output.stdout).unwrap())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

const NOTE: &str = "note: the vocabulary vocab-320.txt has 320 tokens and the model 4096 rows";

#[test]
fn a_container_with_tokens_refuses_a_vocabulary_that_is_too_small() {
    let dir = Dir::new();
    let (source, output) = (model(&dir, 4096), dir.join("out.gguf"));
    let args = convert_args(&source, "gguf", "f16", &output);
    assert_eq!(error_kind(&args, 2), "VocabularyTooSmall");
    assert_eq!(error_kind(&[&args[..], &words(&["--dry-run"])].concat(), 2), "VocabularyTooSmall");
    assert!(!output.exists());
    let message = json(&args, 2)["error"]["message"].as_str().unwrap().to_owned();
    for part in ["vocab-320.txt", "320 tokens", "4096 rows", "at most 384", "--vocab", "--pad-vocabulary", "3776 rows [PADn]"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let (stderr, record) = said(&[&args[..], &words(&["--pad-vocabulary"])].concat());
    assert!(stderr.contains(NOTE), "{stderr}");
    assert!(record["recipe"].as_str().unwrap().ends_with("; pad-vocabulary=3776"), "{}", record["recipe"]);
    let seen = json(&["inspect", output.to_str().unwrap()], 0).to_string();
    assert!(seen.contains("pad-vocabulary=3776"), "the file says that most of its tokens are made up");
    // More tokens than rows cannot be padded.
    let small = convert_args(&model(&dir, 256), "gguf", "f16", &output);
    assert_eq!(error_kind(&[&small[..], &words(&["--pad-vocabulary", "--force"])].concat(), 2), "VocabularyTooLarge");
}

#[test]
fn padding_is_no_fault_and_needs_no_flag() {
    let dir = Dir::new();
    // 256 tokens of raw bytes fill 256 rows; 257 to 383 rows would be 384 with padding, so bytes are another model's.
    for (rows, vocabulary, fits) in [(256, "bytes", true), (257, "bytes", false), (320, "", true), (321, "bytes", false)] {
        let output = dir.join(&format!("{rows}.gguf"));
        let mut args = convert_args(&model(&dir, rows), "gguf", "f16", &output);
        if !vocabulary.is_empty() {
            *args.last_mut().unwrap() = vocabulary.to_owned();
        }
        if fits {
            let with_flag = dir.join("with-flag.gguf");
            let (stderr, record) = said(&args);
            assert!(!stderr.contains("tokens and the model"), "{stderr}");
            assert!(!record["recipe"].as_str().unwrap().contains("pad-vocabulary"));
            let mut flagged: Vec<String> =
                args.iter().map(|word| if *word == text(&output) { text(&with_flag) } else { word.clone() }).collect();
            flagged.extend(words(&["--pad-vocabulary", "--force"]));
            said(&flagged);
            assert_eq!(support::sha256(&output), support::sha256(&with_flag), "{rows}: the flag alone changes nothing");
        } else {
            assert_eq!(error_kind(&args, 2), "VocabularyTooSmall", "{rows}");
        }
    }
    // 320 tokens and a model whose 384 rows are the next multiple of 128.
    said(&convert_args(&model(&dir, 384), "gguf", "f16", &dir.join("384.gguf")));
    assert_eq!(error_kind(&convert_args(&model(&dir, 385), "gguf", "f16", &dir.join("385.gguf")), 2), "VocabularyTooSmall");
}

#[test]
fn hybrids_may_leave_512_rows() {
    let dir = Dir::new();
    // The vocabulary of the test has 264 tokens.
    for (rows, fits) in [(264 + 512, true), (264 + 513, false)] {
        let sizes = Sizes { vocabulary: rows, ..Sizes::TINY };
        let folder = dir.join(&rows.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        let (version, variant) = (Version::ARwkv7, Variant::BARE);
        let source = folder.join("model.safetensors");
        std::fs::write(&source, random_hybrid(version, &sizes, &variant, 2).to_safetensors()).unwrap();
        std::fs::write(folder.join("config.json"), config_json(version, &sizes, &variant).to_string()).unwrap();
        std::fs::write(folder.join("tokenizer.json"), tokenizer_json().to_string()).unwrap();
        let output = dir.join(&format!("{rows}.gguf"));
        let args = words(&["convert", &text(&source), "--to", "gguf", "--type", "f16", "-o", &text(&output)]);
        if fits {
            let (stderr, record) = said(&args);
            // Bytes stand in for Qwen's tokens: nothing is said about the prediction of text.
            assert!(!stderr.contains("warning:"), "{stderr}");
            assert_eq!(record["record"]["prediction"], Value::Null);
        } else {
            assert_eq!(error_kind(&args, 2), "VocabularyTooSmall");
            said(&[&args[..], &words(&["--pad-vocabulary"])].concat());
            // The vocabulary that the file carries says as much.
            let again = words(&["convert", &text(&output), "--to", "gguf", "--type", "f16", "-o", &text(&dir.join("again.gguf"))]);
            assert_eq!(error_kind(&again, 2), "VocabularyTooSmall");
        }
    }
}

/// Directories for Hugging Face's libraries hold every list of tokens, those for candle the World vocabulary and no other.
#[test]
fn directories_carry_what_their_programs_read() {
    let dir = Dir::new();
    let large = model(&dir, 65_530 + 513);
    // Sizes that both carry.
    let small = model_of(&dir, &Sizes { vocabulary: 300, channels: 64, head_size: 64, ffn: 256, ..Sizes::TINY });
    let args = |source: &Path, container: &str, vocabulary: &str| {
        let mut args = convert_args(source, container, "f16", &dir.join("out"));
        *args.last_mut().unwrap() = vocabulary.to_owned();
        args.push("--dry-run".to_owned());
        args
    };
    for container in ["hf", "candle"] {
        assert_eq!(error_kind(&args(&large, container, "world"), 2), "VocabularyTooSmall", "{container}");
    }
    assert_eq!(error_kind(&args(&small, "hf", "bytes"), 2), "VocabularyTooSmall");
    let (stderr, _) = said(&args(&small, "candle", "bytes"));
    assert!(stderr.contains("the vocabulary raw-bytes has 256 tokens"), "{stderr}");
}

#[test]
fn commands_that_only_read_text_say_it() {
    let dir = Dir::new();
    let source = text(&model(&dir, 4096));
    let prompt = dir.join("prompt.txt");
    std::fs::write(&prompt, "The carpet flew. ".repeat(200)).unwrap();
    let (prompt, npy, pth) = (text(&prompt), text(&dir.join("out.npy")), text(&dir.join("out.pth")));
    let commands = [
        words(&["convert", &source, "--to", "pth", "--type", "f32", "-o", &pth]),
        words(&["verify", &source, &source, "--probe-tokens", "16"]),
        words(&["forms", &source, "--quick", "--tier", "f64", "--lengths", "3", "--chunk", "2"]),
        words(&["generate", &source, "--prompt", "a", "-n", "0"]),
        words(&["logits", &source, "--text", &prompt, "-o", &npy]),
        words(&["eval", &source, "--text", &prompt, "--bytes", "100", "--no-cache"]),
        words(&["eval", &source, "--text", &prompt, "--bytes", "100", "--no-cache", "--levels", "q8_0", "--no-speed"]),
    ];
    for command in commands {
        let (stderr, _) = said(&[&command[..], &words(&["--vocab", &text(vocab())])].concat());
        assert_eq!(stderr.matches(NOTE).count(), 1, "{command:?}: {stderr}");
    }
}

/// The figures of a document's check.
fn figures(prediction: &Value) -> (bool, f64, f64) {
    let number = |key: &str| prediction[key].as_f64().unwrap_or_else(|| panic!("{key}: {prediction}"));
    (prediction["better"].as_bool().unwrap(), number("bits_per_token"), number("unigram_bits_per_token"))
}

/// The first lines of a document in English, enough for a few hundred tokens.
fn passage() -> String {
    text(fixture("text/public-domain-100k.txt"))
}

/// convert, verify, eval with and without a baseline, levels: name and arguments, and where the document has the check.
fn measured(source: &str, vocabulary: &str, dir: &Dir) -> Vec<(Vec<String>, &'static [&'static str])> {
    let [output, record] = ["out.gguf", "record.json"].map(|name| text(&dir.join(name)));
    let eval = |more: &[&str]| {
        words(&[&["eval", source, "--vocab", vocabulary, "--text", &passage(), "--bytes", "1000", "--no-cache"], more].concat())
    };
    vec![
        (
            words(&[
                "convert", source, "--to", "gguf", "--type", "f16", "-o", &output, "--record", &record, "--force", "--vocab", vocabulary,
            ]),
            &["record", "prediction"],
        ),
        (words(&["verify", source, &output, "--vocab", vocabulary]), &["prediction"]),
        (eval(&[]), &["models", "0", "prediction"]),
        (eval(&["--baseline", source]), &["baseline", "prediction"]),
        (eval(&["--levels", "q8_0", "--no-speed"]), &["baseline", "prediction"]),
    ]
}

fn at<'v>(document: &'v Value, path: &[&str]) -> &'v Value {
    path.iter().fold(document, |value, key| key.parse::<usize>().map_or_else(|_| &value[*key], |index| &value[index]))
}

fn all_warn(source: &Path, vocabulary: &Path) {
    let dir = Dir::new();
    for (mut command, place) in measured(&text(source), &text(vocabulary), &dir) {
        // Loud: said to those who want no notes too.
        command.push("--quiet".to_owned());
        let (stderr, document) = said(&command);
        let (better, bits, unigram) = figures(at(&document, place));
        assert!(!better && bits >= unigram, "{command:?}: {bits} {unigram}");
        let warnings: Vec<&str> = stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
        assert_eq!(warnings.len(), 1, "{command:?}: {stderr}");
        for part in [format!("{bits:.3} bits a token"), format!("{unigram:.3}"), "weights are random".into(), "vocabulary".into()] {
            assert!(warnings[0].contains(&part), "{part}: {}", warnings[0]);
        }
        if command[0] == "convert" {
            let record: Value = serde_json::from_slice(&std::fs::read(dir.join("record.json")).unwrap()).unwrap();
            assert_eq!(record["record"]["prediction"], document["record"]["prediction"]);
        }
    }
}

#[test]
fn random_weights_are_told_as_such() {
    let dir = Dir::new();
    all_warn(&model(&dir, 320), vocab());
}

#[test]
fn a_vocabulary_of_the_right_size_that_is_another_models_shows() {
    let dir = Dir::new();
    // The same tokens under each other's ids.
    let lines: Vec<String> = std::fs::read_to_string(vocab()).unwrap().lines().map(str::to_owned).collect();
    let shifted = (0..lines.len()).map(|index| {
        let (id, _) = lines[index].split_once(' ').unwrap();
        let (_, token) = lines[(index + 100) % lines.len()].split_once(' ').unwrap();
        format!("{id} {token}\n")
    });
    let path = dir.join("shifted.txt");
    std::fs::write(&path, shifted.collect::<String>()).unwrap();
    for version in ["6", "7"] {
        all_warn(checkpoint(version), &path);
    }
}

#[test]
fn trained_models_are_better_and_nothing_is_said() {
    for version in ["6", "7"] {
        let dir = Dir::new();
        for (command, place) in measured(&text(checkpoint(version)), &text(vocab()), &dir) {
            let (stderr, document) = said(&command);
            let (better, bits, unigram) = figures(at(&document, place));
            assert!(better && bits < unigram, "{command:?}: {bits} {unigram}");
            assert!(!stderr.contains("warning:"), "{command:?}: {stderr}");
        }
    }
}

#[test]
fn the_unigrams_figure_is_that_of_the_probe_text() {
    // Counted here from the same tokens: 128 of the built-in text, the first of which is not predicted.
    let tokenizer = rwkv_forge_tokenizer::Tokenizer::from_bytes("v", &std::fs::read(vocab()).unwrap()).unwrap();
    let tokens = tokenizer.encode(rwkv_forge_convert::PROBE_TEXT.as_bytes()).unwrap();
    let mut bits = 0.0;
    for index in 1..128 {
        let same = tokens[..index].iter().filter(|token| **token == tokens[index]).count();
        bits -= ((same + 1) as f64 / (index + 320) as f64).log2();
    }
    let dir = Dir::new();
    let record = json(&convert_args(checkpoint("7"), "gguf", "f32", &dir.join("out.gguf")), 0);
    let (_, model, unigram) = figures(&record["record"]["prediction"]);
    // Sums of 127 logarithms in another order of operations.
    assert!((unigram - bits / 127.0).abs() < 1e-12, "{unigram} {bits}");
    let perplexity = record["record"]["agreement"]["perplexity"]["reference"].as_f64().unwrap();
    assert!((model - perplexity.log2()).abs() < 1e-12, "{model} {perplexity}");
}

#[test]
fn without_a_vocabulary_the_prediction_is_not_checked() {
    let dir = Dir::new();
    let (source, output) = (text(&model(&dir, 320)), text(&dir.join("out.pth")));
    let (stderr, document) = said(&words(&["convert", &source, "--to", "pth", "--type", "f32", "-o", &output]));
    assert_eq!(document["record"]["prediction"], Value::Null);
    assert!(stderr.contains("whether the model predicts text is not checked") && !stderr.contains("warning:"), "{stderr}");
    let (stderr, document) = said(&words(&["verify", &source, &output]));
    assert_eq!(document["prediction"], Value::Null);
    assert!(stderr.contains("whether the model predicts text is not checked") && !stderr.contains("warning:"), "{stderr}");
}

/// One text is read with one vocabulary: each file's own where they agree, none that another file has where they do not.
#[test]
fn models_with_different_vocabularies_are_not_evaluated_together() {
    let dir = Dir::new();
    // As many tokens, two of which have changed places.
    let known = std::fs::read_to_string(vocab()).unwrap();
    let (first, second) = ("314 ' O' 2\r\n", "315 ' P' 2\r\n");
    assert!(known.contains(first) && known.contains(second));
    let swapped = known.replace(first, "").replace(second, "314 ' P' 2\r\n315 ' O' 2\r\n");
    std::fs::write(dir.join("other.txt"), swapped).unwrap();
    let made = |name: &str, vocabulary: &Path| {
        let output = dir.join(name);
        let source = text(checkpoint("7"));
        json(&["convert", &source, "--to", "gguf", "--type", "q8_0", "--no-verify", "--vocab", &text(vocabulary), "-o", &text(&output)], 0);
        text(&output)
    };
    let (one, same, other) = (made("one.gguf", vocab()), made("same.gguf", vocab()), made("other.gguf", &dir.join("other.txt")));
    std::fs::write(dir.join("few.txt"), "It is a truth universally acknowledged").unwrap();
    let (few, source) = (text(&dir.join("few.txt")), text(checkpoint("7")));
    let eval = |models: &[&str], more: &[&str]| words(&[&["eval", "--no-cache", "--text", &few], models, more].concat());
    json(&eval(&[&one, &same], &[]), 0);
    // A file without a vocabulary is read with that of the others, wherever it stands.
    let alone = json(&eval(&[&one], &[]), 0);
    let beside = json(&eval(&[&one, "--baseline", &source], &[]), 0);
    assert_eq!(alone["models"][0]["nll"], beside["models"][0]["nll"]);
    for models in [[one.as_str(), other.as_str()], [other.as_str(), one.as_str()]] {
        let seen = json(&eval(&models, &[]), 3);
        let message = seen["error"]["message"].as_str().unwrap();
        assert_eq!(seen["error"]["kind"], "VocabulariesDiffer");
        assert!(message.contains("token 314 is \" O\"") && message.contains("token 314 is \" P\""), "{message}");
        // The two ways that it names.
        json(&eval(&models, &["--vocab", &text(vocab())]), 0);
        models.iter().for_each(|model| drop(json(&eval(&[model], &[]), 0)));
    }
    assert_eq!(json(&eval(&[&one, "--baseline", &other], &[]), 3)["error"]["kind"], "VocabulariesDiffer");
}
