//! RWKV-7a and 7b through the binary: what carries them, what refuses them by name, and what a state that grows comes to.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::path::{Path, PathBuf};

use crate::support::{Dir, error_kind, fixture, json, npy, run};
use rwkv_forge_convert::container::CONTAINERS;
use rwkv_forge_model::Version;
use rwkv_forge_testkit::models::{Options, Sizes, random_model_with};

const VERSIONS: [(&str, Version); 2] = [("7a", Version::V7a), ("7b", Version::V7b)];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A model with a token for every byte, and tables as wide as candle has them.
fn model(dir: &Dir, version: Version) -> PathBuf {
    let sizes = Sizes { channels: 64, head_size: 32, vocabulary: 272, ..Sizes::TINY };
    let options = Options { deep: Options::RELEASED, ..Options::default() };
    let path = dir.join(&format!("random-{}.safetensors", version.name()));
    std::fs::write(&path, random_model_with(version, &sizes, &options, 31).to_safetensors()).unwrap();
    path
}

fn tokens(dir: &Dir) -> PathBuf {
    let path = dir.join("tokens.json");
    let tokens: Vec<u32> = (0..48u32).map(|i| (i * i * 3 + i * 5 + 1) % 32).collect();
    std::fs::write(&path, serde_json::to_vec(&tokens).unwrap()).unwrap();
    path
}

#[test]
fn three_containers_carry_them_and_all_others_refuse_by_name() {
    let dir = Dir::new();
    let tokens = tokens(&dir);
    for (name, version) in VERSIONS {
        let source = fixture(&format!("deep/tiny-rwkv{name}.safetensors"));
        assert_eq!(json(&["inspect", text(source)], 0)["model"]["version"], name);
        for container in CONTAINERS.iter().map(|container| container.name()) {
            let output = dir.join(&format!("{name}.{container}"));
            let args = |encoding: &'static str| {
                ["convert", text(source), "--to", container, "--type", encoding, "--force", "-o", text(&output)].map(str::to_owned)
            };
            if !["pth", "safetensors", "candle"].contains(&container) {
                assert_eq!(error_kind(&args("f16"), 2), "CannotCarry", "{container}");
                let words = String::from_utf8(run(&args("f16")).stderr).unwrap();
                assert!(
                    words.contains(&format!("RWKV-{name}")) && words.contains("containers that carry it: candle, pth, safetensors"),
                    "{words}"
                );
                continue;
            }
            for (encoding, lossless) in [("f32", true), ("bf16", true), ("f16", false)] {
                let record = json(&args(encoding), 0)["record"].clone();
                let kl = record["agreement"]["kl"]["mean"].as_f64().unwrap();
                assert!(if lossless { record["agreement"]["identical"] == true } else { kl < 1e-9 }, "{container} {encoding}: {record}");
                let seen = json(&["inspect", text(&output)], 0);
                assert_eq!(seen["model"]["version"], name, "{container}");
                // Tables are kept in the type that was asked for, and nowhere blocks.
                let table =
                    seen["tensors"].as_array().unwrap().iter().find(|tensor| tensor["name"] == "blocks.1.ffn.s_emb.weight").unwrap();
                assert_eq!((table["type"].as_str(), table["shape"].clone()), (Some(encoding), serde_json::json!([32, 1024])));
            }
            // The numbers are those of candle itself and of a script in float64.
            json(&args("bf16"), 0);
            let rows = dir.join("logits.npy");
            json(&["logits", text(&output), "--tokens", text(&tokens), "--force", "-o", text(&rows)], 0);
            for by in ["logits", "candle"] {
                let (found, wanted) = (npy(&rows), npy(fixture(&format!("deep/tiny-rwkv{name}.{by}.npy"))));
                assert_eq!(found.0, wanted.0);
                let worst = found.1.iter().zip(&wanted.1).map(|(found, wanted)| (found - wanted).abs()).fold(0.0, f32::max);
                assert!(worst < 3e-5, "{container}, {by}: {worst:e}");
            }
        }
        // Blocks are for containers that hold them, none of which has these versions.
        let output = dir.join("blocks");
        let args = ["convert", text(source), "--to", "safetensors", "--type", "q8_0", "-o", text(&output)];
        assert_eq!(error_kind(&args, 2), "TypeNotCarried", "{version}");
    }
    // candle has sizes of the tables built in.
    let odd = dir.join("odd.safetensors");
    std::fs::write(&odd, random_model_with(Version::V7a, &Sizes::TINY, &Options::default(), 1).to_safetensors()).unwrap();
    let output = dir.join("odd.candle");
    assert_eq!(error_kind(&["convert", text(&odd), "--to", "candle", "--type", "f32", "-o", text(&output)], 2), "FixedSize");
}

#[test]
fn both_forms_agree_and_the_engine_runs_one_of_them() {
    let dir = Dir::new();
    for (name, version) in VERSIONS {
        let path = model(&dir, version);
        let seen = json(&["forms", text(&path), "--quick", "--tokens", "24", "--vocab", "bytes"], 0);
        assert_eq!((seen["agrees"].as_bool(), seen["version"].as_str().unwrap().ends_with(name)), (Some(true), true), "{seen}");
        let args = ["generate", text(&path), "--vocab", "bytes", "--prompt", "The ", "--tokens", "12", "--temperature", "0"];
        let by = |kernel: &str| json(&[&args[..], &["--kernel", kernel]].concat(), 0);
        let (engine, reference) = (by("engine"), by("reference"));
        assert_eq!(engine["tokens"], reference["tokens"], "{name}");
        let runs = version == Version::V7a;
        assert_eq!(engine["kernel"], if runs { "engine" } else { "reference" });
        let verify = ["verify", text(&path), text(&path), "--vocab", "bytes", "--kernel", "engine"];
        if runs {
            assert_eq!(json(&verify, 0)["agreement"]["identical"], true);
        } else {
            let words = String::from_utf8(run(&args).stderr).unwrap();
            assert!(words.contains("the engine does not run RWKV-7b, for want of an attention over all earlier tokens (DEA)"), "{words}");
            assert_eq!(error_kind(&verify, 3), "UnsupportedVersion");
            assert_eq!(error_kind(&["bench", text(&path)], 3), "UnsupportedVersion");
        }
        json(&["verify", text(&path), text(&path), "--vocab", "bytes", "--against-parallel"], 0);
    }
}

#[test]
fn what_grows_has_no_initial_state() {
    let dir = Dir::new();
    let (with_tables, with_attention) = (model(&dir, Version::V7a), model(&dir, Version::V7b));
    // A tuned state of RWKV-7a is one of RWKV-7.
    let tuned = dir.join("tuned.bin");
    let (heads, size, layers) = (2, 32, 2);
    let values: Vec<u8> = (0..layers * (2 * heads * size + heads * size * size))
        .flat_map(|i| (if i % (128 + 2048) < 128 { 0.0f32 } else { (i % 7) as f32 / 64.0 }).to_le_bytes())
        .collect();
    std::fs::write(&tuned, values).unwrap();
    let pth = dir.join("tuned.pth");
    json(
        &[
            "state",
            text(&tuned),
            "--from",
            "rwkv-cpp",
            "--model-version",
            "7",
            "--layers",
            "2",
            "--heads",
            "2",
            "--to",
            "pth",
            "-o",
            text(&pth),
        ],
        0,
    );
    let generate = |model: &Path| {
        ["generate", text(model), "--vocab", "bytes", "--prompt", "The ", "--tokens", "8", "--state", text(&pth)].map(str::to_owned)
    };
    json(&generate(&with_tables), 0);
    let [from_it, from_zeros] = ["from-it.npy", "from-zeros.npy"].map(|name| dir.join(name));
    let start = ["--tokens", text(&tokens(&dir)), "-o"].map(str::to_owned);
    let logits = |out: &Path, more: &[&str]| {
        let args: Vec<String> = ["logits", text(&with_tables)].into_iter().map(str::to_owned).chain(start.clone()).collect();
        json(&[args, vec![text(out).to_owned()], more.iter().map(|word| (*word).to_owned()).collect()].concat(), 0);
        std::fs::read(out).unwrap()
    };
    assert_ne!(logits(&from_it, &["--state", text(&pth)]), logits(&from_zeros, &[]));
    // rwkv.cpp has none of these models, so it has no states of them.
    let never = dir.join("never.bin");
    let to_cpp = |model: &str| ["state", text(&pth), "--to", "rwkv-cpp", "--model", model, "-o", text(&never)].map(str::to_owned);
    assert_eq!(error_kind(&to_cpp(text(&with_tables)), 2), "StateNotInRwkvCpp");
    // The way that the refusal names.
    let again = dir.join("again.pth");
    json(&["state", text(&pth), "--to", "pth", "--model", text(&with_tables), "-o", text(&again)], 0);
    assert_eq!(error_kind(&["state", text(&pth), "--to", "pth", "--model-version", "7b", "-o", text(&never)], 2), "StateGrows");
    // What RWKV-7b remembers has no fixed size.
    for args in [generate(&with_attention).to_vec(), to_cpp(text(&with_attention)).to_vec()] {
        assert_eq!(error_kind(&args, 2), "StateGrows");
    }
    let words = String::from_utf8(run(&generate(&with_attention)).stderr).unwrap();
    assert!(words.contains("RWKV-7b") && words.contains("feed it the tokens themselves"), "{words}");
    assert_eq!(json(&generate(&with_attention)[..8], 0)["kernel"], "reference");
}

#[test]
fn the_curve_shows_what_grows() {
    let dir = Dir::new();
    // Of two layers of 64 channels and two heads of 32: token shifts and matrices, in f32.
    let fixed = 2 * (2 * 64 + 2 * 32 * 32) * 4;
    for (name, version) in VERSIONS {
        let stem = dir.join(name);
        let document = json(&["bench", "curve", text(&model(&dir, version)), "--positions", "32", "-o", text(&stem)], 0);
        let series = document["series"].as_array().unwrap();
        let forms: Vec<&str> = series.iter().map(|series| series["form"].as_str().unwrap()).collect();
        let points = series.iter().find(|series| series["form"] == "recurrent, on candle").unwrap()["points"].as_array().unwrap();
        let bytes: Vec<u64> = points.iter().map(|point| point["bytes"].as_u64().unwrap()).collect();
        if version == Version::V7a {
            assert_eq!(forms, ["recurrent", "attention with a cache", "recurrent, on candle", "parallel, computed anew"]);
            assert_eq!(bytes, [fixed; 6]);
            continue;
        }
        assert_eq!(forms, ["attention with a cache", "recurrent, on candle", "parallel, computed anew"]);
        // Query, key and value of the last token; a key of 256 numbers and a value of 64 for each token before the one to come.
        let last = 2 * (256 + 256 + 64) * 4;
        let expected: Vec<u64> = (0..6).map(|power| fixed + last + 2 * (256 + 64) * 4 * ((1 << power) - 1)).collect();
        assert_eq!(bytes, expected);
        let method = series.iter().find(|series| series["form"] == "recurrent, on candle").unwrap()["method"].as_str().unwrap();
        assert!(method.contains("The engine does not run this model"), "{method}");
    }
}

/// Nobody said how long a text is: what is remembered of it must not grow with it.
#[test]
fn texts_are_bounded_where_every_token_is_remembered() {
    let dir = Dir::new();
    let words = dir.join("words.txt");
    std::fs::write(&words, "It is a truth universally acknowledged").unwrap();
    let (with_tables, with_attention) = (model(&dir, Version::V7a), model(&dir, Version::V7b));
    let of = |models: &[&Path], more: &[&str]| {
        let line = ["--vocab", "bytes", "--no-cache", "--text", text(&words)];
        let line = line.iter().chain(more).map(|word| (*word).to_owned());
        std::iter::once("eval".to_owned()).chain(models.iter().map(|path| text(path).to_owned())).chain(line).collect::<Vec<_>>()
    };
    let windows = |tokens: u32| serde_json::json!({ "name": "windows", "tokens": tokens });
    let plain = json(&of(&[&with_tables], &[]), 0);
    assert_eq!((&plain["protocol"]["name"], &plain["bounded"]), (&"stream".into(), &serde_json::Value::Null));
    // One among several is enough, since all read the same windows.
    for models in [vec![with_attention.as_path()], vec![&with_tables, &with_attention]] {
        let seen = json(&of(&models, &[]), 0);
        assert_eq!(seen["protocol"], windows(4096));
        assert!(seen["bounded"].as_str().unwrap().contains("what RWKV-7b remembers grows"), "{seen}");
        let said = String::from_utf8(run(&of(&models, &[])).stderr).unwrap();
        assert!(said.contains("note: random-7b.safetensors: what RWKV-7b remembers grows") && said.contains("--context N"), "{said}");
    }
    // The way that the note names, and protocols with pieces of their own.
    let asked = json(&of(&[&with_attention], &["--context", "16"]), 0);
    assert_eq!((&asked["protocol"], &asked["bounded"]), (&windows(16), &serde_json::Value::Null));
    let chunks = json(&of(&[&with_attention], &["--protocol", "llama", "--context", "16"]), 0);
    assert_eq!((&chunks["protocol"]["name"], &chunks["bounded"]), (&"llama".into(), &serde_json::Value::Null));

    let (all, some) = (dir.join("all.npy"), dir.join("some.npy"));
    let logits = |out: &Path, more: &[&str]| {
        let args = ["logits", text(&with_attention), "--tokens", text(&tokens(&dir)), "-o", text(out)].map(str::to_owned);
        json(&[&args[..], &more.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()].concat(), 0)
    };
    assert_eq!(logits(&all, &[])["left_out"], 0);
    let cut = logits(&some, &["--context", "8"]);
    assert_eq!((&cut["left_out"], cut["tokens"].as_array().unwrap().len()), (&40.into(), 8));
    let (all, some) = (npy(&all), npy(&some));
    assert_eq!((some.0[0], &some.1[..]), (8, &all.1[..some.1.len()]));
}
