//! What an input or an option may ask for, and what it takes: memory is held under bounds in a process of its own, and numbers of
//! threads are kept to what helps.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use crate::support;

use crate::support::{Dir, checkpoint, error_kind, json};
use rwkv_forge_convert::recipe::Recipe;
use rwkv_forge_model::Version;
use rwkv_forge_tensor::Diagnostic;
use rwkv_forge_testkit::memory::peak_of;
use rwkv_forge_testkit::models::{Sizes, random_model};

/// A model in `dir` that takes next to nothing, with this many channels and tokens.
fn model(dir: &Dir, channels: usize, vocabulary: usize) -> String {
    let sizes = Sizes { layers: 1, channels, head_size: 8, ffn: 16, vocabulary, ranks: [4, 4, 4, 4] };
    let path = dir.join(&format!("model-{channels}-{vocabulary}.safetensors"));
    std::fs::write(&path, random_model(Version::V7, &sizes, 5).to_safetensors()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "needs Linux, which tells the resident memory")]
fn logits_of_a_long_sequence_take_no_more_than_those_of_a_short_one() {
    let dir = Dir::new();
    let model = model(&dir, 64, 8);
    let peak = |count: usize| {
        let ids: Vec<String> = (0..count).map(|index| (index * index % 8).to_string()).collect();
        let (tokens, output) = (dir.join("tokens.json"), dir.join("logits.npy"));
        std::fs::write(&tokens, format!("[{}]", ids.join(","))).unwrap();
        let args = ["logits", &model, "--tokens", tokens.to_str().unwrap(), "-f", "-o", output.to_str().unwrap()];
        json(&args, 0)["peak_memory_bytes"].as_u64().unwrap()
    };
    // The residual stream and the values of layer 0 of 300,000 tokens take 512 bytes each, 154 MB; a quarter of 64 MiB of them is at work at
    // a time, in a few copies. The ids themselves are two megabytes and a half.
    let (short, long) = (peak(1000), peak(300_000));
    assert!(long < short + (100 << 20), "{short} bytes, then {long}");
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "needs Linux, which tells the resident memory")]
fn a_long_text_takes_little_more_than_its_bytes() {
    let dir = Dir::new();
    let model = model(&dir, 8, 256);
    let peak = |bytes: usize| {
        let text = dir.join("text.txt");
        std::fs::write(&text, "A text of so many bytes. ".repeat(bytes / 25)).unwrap();
        let args = ["eval", &model, "--vocab", "bytes", "--text", text.to_str().unwrap(), "--max-memory", "1M"];
        json(&args, 0)["peak_memory_bytes"].as_u64().unwrap()
    };
    // Of half a million tokens: a byte each for the text, and eight for the number that is found of it, 4.5 MB; 5.6 measured. With lists
    // of tokens, of their lengths and of what is fed it was 10.4.
    let (short, long) = (peak(25_000), peak(500_000));
    assert!(long < short + 8_000_000, "{short} bytes, then {long}");
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "needs Linux, which tells the resident memory")]
fn a_set_of_texts_is_not_held_at_once() {
    let dir = Dir::new();
    let vocabulary = dir.join("vocabulary.txt");
    // A token of 200 bytes, so that a text of many bytes has few tokens and takes little time.
    let bytes = (0..256u32).map(|byte| format!("{} b'\\x{byte:02x}' 1\n", byte + 1)).collect::<String>();
    std::fs::write(&vocabulary, format!("{bytes}257 '{}' 200\n", "a".repeat(200))).unwrap();
    let model = model(&dir, 8, 258);
    let peak = |texts: usize| {
        let path = dir.join("set.jsonl");
        std::fs::write(&path, format!("\"{}\"\n", "a".repeat(100_000)).repeat(texts)).unwrap();
        let args = ["eval", &model, "--vocab", vocabulary.to_str().unwrap(), "--text", path.to_str().unwrap(), "--max-memory", "1M"];
        json(&args, 0)["peak_memory_bytes"].as_u64().unwrap()
    };
    // Some megabytes of text are tokenized together, whether there are five or forty. All at once were 42 MB more.
    let (few, many) = (peak(50), peak(400));
    assert!(many < few + 20_000_000, "{few} bytes, then {many}");
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "needs Linux, which tells the resident memory")]
fn a_recipe_of_large_expressions_is_refused_before_it_takes_memory() {
    let rules = (0..3750).map(|index| format!("[[set]]\ntensors=\"zz{index}(a{{250}}){{250}}\"\ntype=\"q4_0\"\n"));
    let text = format!("type=\"q8_0\"\n{}", rules.collect::<String>());
    let peak = peak_of("limits::a_recipe_of_large_expressions_is_refused_before_it_takes_memory", || {
        let refused = Recipe::new(Some(("recipe.toml", &text)), None, &[]).unwrap_err();
        assert_eq!(refused.kind(), "PatternsTooLarge", "{refused}");
    });
    // 16 MiB of compiled expressions, as much again for what is built on the way, and a few times the text. All of them take three gigabytes.
    assert!(peak < 96 << 20, "{peak} bytes");
    let dir = Dir::new();
    let recipe = dir.join("recipe.toml");
    std::fs::write(&recipe, text).unwrap();
    let output = dir.join("never.gguf");
    let mut args = support::convert_args(checkpoint("7"), "gguf", "q8_0", &output);
    args.extend(["--recipe".to_owned(), recipe.to_str().unwrap().to_owned()]);
    assert_eq!(error_kind(&args, 2), "PatternsTooLarge");
    assert!(!output.exists());
}

#[test]
fn more_threads_than_help_are_not_started() {
    let file = checkpoint("7").to_str().unwrap();
    let most = rwkv_forge_pool::most_threads().to_string();
    let memory = |threads: &str| json(&["inspect", "--memory", "--threads", threads, file], 0)["engine_memory"].clone();
    // Buffers are for each thread, so that their size tells how many there are.
    assert_eq!(memory("100000"), memory(&most));
    assert_ne!(memory("1"), memory(&most));
    let said = |args: &[&str]| String::from_utf8(support::run(args).stderr).unwrap();
    let note = format!("--threads 100000: {most} threads are used, since more do not help on this machine");
    assert!(said(&["inspect", "--threads", "100000", file]).contains(&note));
    assert!(!said(&["inspect", "--threads", &most, file]).contains("do not help"));
    let bench = ["bench", file, "--scaling", "1,100000,200000", "--tokens", "1", "--repeat", "1", "--read-mib", "1", "--prompt", "0"];
    assert!(said(&bench).contains(&format!("--scaling 200000: {most} threads are used")));
    let reported = json(&bench, 0)["models"].as_array().unwrap().iter().map(|model| model["threads"].to_string()).collect::<Vec<_>>();
    assert_eq!(reported, ["1", &most]);
}
