//! Commands, options, exit codes and documents, as users and scripts see them.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use crate::support;

use crate::support::{Dir, checkpoint, convert_args, error_kind, fixture, forge, json, npy, run, vocab};

#[test]
fn wrong_usage_exits_with_2_and_help_with_0() {
    assert_eq!(run(&["--help"]).status.code(), Some(0));
    assert_eq!(run::<&str>(&[]).status.code(), Some(2));
    assert_eq!(run(&["convert"]).status.code(), Some(2));
    assert_eq!(run(&["inspect", "--no-such-option", "x"]).status.code(), Some(2));
    assert_eq!(run(&["inspect", "--threads", "0", "x"]).status.code(), Some(2));
    let help = String::from_utf8(run(&["convert", "--help"]).stdout).unwrap();
    // Long summaries are wrapped.
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for format in rwkv_forge_quant::encodable() {
        assert!(help.contains(format.encoding().name), "the help lists {}", format.encoding());
    }
    // What is only read is offered to nobody, and who asks for it hears why.
    let read_only = rwkv_forge_quant::FORMATS.iter().map(|format| (format.encoding().name, format.facts().encodes));
    for (name, _) in read_only.filter(|(_, encodes)| !encodes) {
        assert!(!help.contains(name), "the help offers {name}");
        let args = convert_args(checkpoint("7"), "gguf", name, std::path::Path::new("never.gguf"));
        assert_eq!(error_kind(&args, 2), "ReadOnlyType", "{name}");
        let mut set = convert_args(checkpoint("7"), "gguf", "q8_0", std::path::Path::new("never.gguf"));
        set.extend(["--set".to_owned(), format!("head={name}")]);
        assert_eq!(error_kind(&set, 2), "ReadOnlyType", "{name}");
    }
    for container in rwkv_forge_convert::container::CONTAINERS {
        assert!(help.contains(container.name()) && help.contains(container.summary()), "the help lists {}", container.name());
    }
}

/// Who asks for documents gets one of every mistake, also of those on the command line itself.
#[test]
fn wrong_usage_is_a_document_too() {
    for args in [&["convert"][..], &["inspect", "--no-such-option", "x"], &["eval", "m.pth", "--max-kl", "-1"], &["bench"], &[]] {
        let seen = json(args, 2);
        assert_eq!((seen["error"]["kind"].as_str(), seen["error"]["exit_code"].as_u64()), (Some("Usage"), Some(2)), "{seen}");
        assert!(!seen["error"]["message"].as_str().unwrap().starts_with("error"), "{seen}");
        // Without the option nothing of it goes to stdout.
        let plain = run(args);
        assert!(plain.stdout.is_empty() && !plain.stderr.is_empty());
    }
    assert!(String::from_utf8(run(&["--json", "--help"]).stdout).unwrap().contains("Usage:"), "help is asked for by people");
}

#[test]
fn pages_of_the_manual_say_what_help_says() {
    let man = |words: &[&str]| String::from_utf8(run(&[&["man"], words].concat()).stdout).unwrap();
    for command in ["inspect", "convert", "verify", "generate", "logits"] {
        assert!(man(&[]).contains(command), "man: {command}");
    }
    let convert = man(&["convert"]);
    // One that only `--help` shows, with what it does, and the examples line by line.
    assert!(convert.contains("\\fB\\-\\-split\\-size\\fR \\fI<SIZE>\\fR\nWrite parts"), "{convert}");
    assert!(convert.contains(".SH EXAMPLES\n.nf\nrwkv\\-forge convert model.pth \\-\\-to gguf\n"), "{convert}");
    for name in ["Convert", "rwkv-forge-convert"] {
        assert_eq!(man(&[name]), convert, "{name}");
    }
    assert_eq!(man(&["bench", "curve"]), man(&["bench-curve"]));
    assert_eq!(man(&["rwkv-forge"]), man(&[]));
}

#[test]
fn inspect_says_what_a_checkpoint_is() {
    for (version, name, parameters) in [("4", "4", 725_632), ("5", "5.2", 726_784), ("6", "6", 899_584)] {
        let seen = json(&["inspect", "--hashes", checkpoint(version).to_str().unwrap()], 0);
        assert_eq!(seen["model"]["version"], name);
        assert_eq!(seen["model"]["hyperparameters"]["layers"], 3);
        assert_eq!(seen["model"]["hyperparameters"]["vocabulary"], 320);
        assert_eq!(seen["model"]["parameters"], parameters, "as fixtures/README.md lists it");
        let digest = seen["sha256"].as_object().unwrap().values().next().unwrap();
        assert_eq!(digest.as_str().unwrap(), support::sha256(checkpoint(version)));
    }
    // Tensors have the digests that PyTorch's own copies of them have.
    let recorded: serde_json::Value = serde_json::from_slice(&std::fs::read(fixture("checkpoints/digests.json")).unwrap()).unwrap();
    let seen = json(&["inspect", "--hashes", checkpoint("7").to_str().unwrap()], 0);
    for tensor in seen["tensors"].as_array().unwrap() {
        let name = tensor["name"].as_str().unwrap();
        assert_eq!(tensor["sha256"], recorded["files"]["tiny-rwkv7.pth"]["tensors"][name]["sha256"], "{name}");
    }
    assert_eq!(seen["model"]["unused"].as_array().unwrap().len(), 3, "v0, v1, v2 of layer 0");
    let text = String::from_utf8(run(&["inspect", "--tensors", checkpoint("7").to_str().unwrap()]).stdout).unwrap();
    assert!(text.contains("RWKV-7: 3 layers, 128 channels, 2 heads of 64"), "{text}");
    assert!(text.contains("blocks.2.att.r_k"), "{text}");
    let globals = json(&["inspect", "--globals", checkpoint("4").to_str().unwrap()], 0);
    assert!(globals["globals"].as_array().unwrap().iter().any(|name| name == "torch._utils._rebuild_tensor_v2"));
}

#[test]
fn a_dry_run_knows_the_exact_size_and_writes_nothing() {
    let dir = Dir::new();
    for (version, container, encoding) in [("7", "gguf", "q4_0"), ("6", "gguf", "f16"), ("5", "safetensors", "bf16")] {
        let output = dir.join("out");
        let mut args = convert_args(checkpoint(version), container, encoding, &output);
        args.push("--dry-run".to_owned());
        let decided = json(&args, 0);
        assert_eq!(dir.names(), Vec::<String>::new());
        assert!(decided["tensors"].as_array().unwrap().iter().all(|tensor| !tensor["reason"].as_str().unwrap().is_empty()));
        json(&convert_args(checkpoint(version), container, encoding, &output), 0);
        assert_eq!(decided["total_bytes"].as_u64().unwrap(), output.metadata().unwrap().len());
        std::fs::remove_file(&output).unwrap();
    }
}

#[test]
fn the_record_goes_into_the_file_and_beside_it() {
    let dir = Dir::new();
    let (output, record) = (dir.join("out.gguf"), dir.join("record.json"));
    let mut args = convert_args(checkpoint("7"), "gguf", "q8_0", &output);
    args.extend(["--record".to_owned(), record.to_str().unwrap().to_owned()]);
    let printed = json(&args, 0);
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    assert_eq!(written["record"]["agreement"], printed["record"]["agreement"]);
    assert_eq!(written["record"]["output_sha256"][0][1], support::sha256(&output));
    let metadata = json(&["inspect", output.to_str().unwrap()], 0)["metadata"].clone();
    assert_eq!(metadata["rwkv_forge.source.sha256"], support::sha256(checkpoint("7")));
    assert_eq!(metadata["rwkv_forge.verify.status"], "verified");
    let kl: f64 = metadata["rwkv_forge.verify.kl_mean"].as_str().unwrap().parse().unwrap();
    let agreement = &printed["record"]["agreement"];
    assert_eq!(kl, agreement["kl"]["mean"].as_f64().unwrap());
    // 128 positions are no eight windows: null, with the reason, which the file has too.
    let why = "4 of the 8 windows of 32 positions that an interval needs";
    assert_eq!((&agreement["kl"]["interval"], agreement["kl"]["no_interval"].as_str()), (&serde_json::Value::Null, Some(why)));
    assert_eq!(metadata["rwkv_forge.verify.kl_interval"].as_str().unwrap().trim_end(), format!("none: {why}"));
    let longer = dir.join("longer.gguf");
    let mut args = convert_args(checkpoint("7"), "gguf", "q8_0", &longer);
    args.extend(["--probe-tokens".to_owned(), "256".to_owned()]);
    let kl = json(&args, 0)["record"]["agreement"]["kl"].clone();
    let metadata = json(&["inspect", longer.to_str().unwrap()], 0)["metadata"].clone();
    let [low, high] = [0, 1].map(|end| kl["interval"][end].as_f64().unwrap());
    assert!(low < kl["mean"].as_f64().unwrap() && kl["mean"].as_f64().unwrap() < high && kl["no_interval"].is_null());
    assert_eq!(metadata["rwkv_forge.verify.kl_interval"].as_str().unwrap().trim_end(), format!("{low:e} to {high:e}"));
    for (tokens, words) in [("255", "none: 7 of the 8 windows of 32 positions that an interval needs"), ("256", " to ")] {
        let args = ["verify", "--probe-tokens", tokens, "--vocab", vocab().to_str().unwrap()];
        let files = [checkpoint("7").to_str().unwrap().to_owned(), output.to_str().unwrap().to_owned()];
        let printed = run(&[args.map(str::to_owned).to_vec(), files.to_vec()].concat());
        let printed = String::from_utf8(printed.stdout).unwrap();
        let row = printed.lines().find(|line| line.contains("95 % interval")).unwrap();
        assert!(row.contains(words), "{row}");
    }
    let unverified = dir.join("unverified.gguf");
    let mut args = convert_args(checkpoint("7"), "gguf", "q8_0", &unverified);
    args.push("--no-verify".to_owned());
    json(&args, 0);
    assert_eq!(json(&["inspect", unverified.to_str().unwrap()], 0)["metadata"]["rwkv_forge.verify.status"], "skipped");
}

#[test]
fn verify_measures_and_judges() {
    let dir = Dir::new();
    let output = dir.join("out.gguf");
    json(&convert_args(checkpoint("6"), "gguf", "q4_0", &output), 0);
    let base =
        ["verify", checkpoint("6").to_str().unwrap(), output.to_str().unwrap(), "--vocab", vocab().to_str().unwrap()].map(str::to_owned);
    let with = |extra: &[&str], code: i32| {
        let mut args = base.to_vec();
        args.extend(extra.iter().map(|s| (*s).to_owned()));
        json(&args, code)
    };
    let good = with(&["--max-kl", "1", "--min-top1", "0.5"], 0);
    assert_eq!(good["violations"].as_array().unwrap().len(), 0);
    let kl = good["agreement"]["kl"]["mean"].as_f64().unwrap();
    // The verdict turns exactly at the measured value.
    assert_eq!(with(&["--max-kl", &format!("{}", kl * 0.999)], 1)["violations"].as_array().unwrap().len(), 1);
    with(&["--max-kl", &format!("{}", kl * 1.001)], 0);
    assert_eq!(with(&["--min-top1", "1", "--max-abs", "0"], 1)["violations"].as_array().unwrap().len(), 2);
    // Another epsilon in the group norm is another model (`docs/traps.md`, "Group norm epsilon").
    let source = checkpoint("6");
    let same =
        ["verify", source.to_str().unwrap(), source.to_str().unwrap(), "--candidate-eps", "1e-5", "--vocab", vocab().to_str().unwrap()];
    let eps = json(&same, 0);
    assert_eq!(eps["agreement"]["identical"], false);
    // Another model over the same vocabulary can be compared, and does not agree.
    let mut other = base.to_vec();
    other[1] = checkpoint("7").to_str().unwrap().to_owned();
    assert!(json(&other, 0)["agreement"]["kl"]["mean"].as_f64().unwrap() > 2.0 * kl);
}

#[test]
fn logits_are_the_oracles() {
    let dir = Dir::new();
    for (version, oracle) in [("4", "-from-f32-file"), ("5", "-from-f32-file"), ("6", "-from-f32-file"), ("7", "")] {
        let about: serde_json::Value =
            serde_json::from_slice(&std::fs::read(fixture(&format!("oracles/tiny-rwkv{version}.json"))).unwrap()).unwrap();
        let tokens = dir.join("tokens.json");
        std::fs::write(&tokens, about["token_ids"].to_string()).unwrap();
        let output = dir.join(&format!("{version}.npy"));
        let args = ["logits", checkpoint(version).to_str().unwrap(), "--tokens", tokens.to_str().unwrap(), "-o", output.to_str().unwrap()];
        json(&args, 0);
        let (shape, ours) = npy(&output);
        let (expected_shape, theirs) = npy(fixture(&format!("oracles/tiny-rwkv{version}.logits{oracle}.npy")));
        assert_eq!(shape, expected_shape);
        let worst = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // The bound that the reference kernel is held to everywhere: f32 rounding over three layers, with a margin.
        assert!(worst <= 2e-4, "RWKV-{version}: {worst}");
        // Text instead of ids gives the same numbers.
        let text = dir.join("text.txt");
        let whole = std::fs::read(fixture("text/public-domain-100k.txt")).unwrap();
        std::fs::write(&text, &whole[..2000]).unwrap();
        let again = dir.join(&format!("{version}-text.npy"));
        let args = [
            "logits",
            checkpoint(version).to_str().unwrap(),
            "--text",
            text.to_str().unwrap(),
            "--vocab",
            vocab().to_str().unwrap(),
            "-o",
            again.to_str().unwrap(),
        ];
        json(&args, 0);
        let (_, from_text) = npy(&again);
        assert_eq!(&from_text[..ours.len()], &ours[..]);
    }
}

#[test]
fn logits_and_the_layers_beside_them() {
    let dir = Dir::new();
    let tokens = dir.join("tokens.json");
    std::fs::write(&tokens, "[10, 20, 30, 40]").unwrap();
    let layers = dir.join("layers");
    std::fs::create_dir(&layers).unwrap();
    let output = dir.join("out.npy");
    let args = [
        "logits",
        checkpoint("7").to_str().unwrap(),
        "--tokens",
        tokens.to_str().unwrap(),
        "--layers",
        layers.to_str().unwrap(),
        "-o",
        output.to_str().unwrap(),
    ];
    json(&args, 0);
    assert_eq!(npy(&output).0, [4, 320]);
    assert_eq!(npy(&layers.join("layer-002-output.npy")).0, [4, 128]);
    assert_eq!(npy(&layers.join("layer-001-wkv.npy")).0, [2, 64, 64]);
    assert_eq!(npy(&layers.join("layer-000-att-shift.npy")).0, [128]);
    assert_eq!(error_kind(&args, 2), "OutputExists");
    std::fs::write(&tokens, "[320]").unwrap();
    let output = dir.join("other.npy");
    let args = ["logits", checkpoint("7").to_str().unwrap(), "--tokens", tokens.to_str().unwrap(), "-o", output.to_str().unwrap()];
    assert_ne!(forge().args(args).output().unwrap().status.code(), Some(0));
    for bad in ["[]", "[1.5]", "[-1]", "{}", "not json"] {
        std::fs::write(&tokens, bad).unwrap();
        let result = forge().args(args).output().unwrap();
        assert_eq!(result.status.code(), Some(3), "{bad}: {}", String::from_utf8_lossy(&result.stderr));
    }
}

#[test]
fn generate_continues_a_prompt_the_same_way_each_time() {
    let model = checkpoint("7");
    let base = ["generate", model.to_str().unwrap(), "--vocab", vocab().to_str().unwrap(), "--prompt", "Sir Walter Elliot, ", "-n", "40"];
    let greedy = json(&base, 0);
    assert_eq!(greedy["tokens"].as_array().unwrap().len(), 40);
    assert_eq!(json(&base, 0)["text"], greedy["text"]);
    let sampled = |seed: &str| {
        let mut args = base.to_vec();
        args.extend(["--temperature", "1", "--top-p", "0.9", "--seed", seed]);
        json(&args, 0)["text"].as_str().unwrap().to_owned()
    };
    assert_eq!(sampled("1"), sampled("1"));
    assert_ne!(sampled("1"), sampled("2"));
    let plain = run(&base);
    assert!(String::from_utf8_lossy(&plain.stdout).starts_with("Sir Walter Elliot, "));
    assert!(String::from_utf8_lossy(&plain.stdout).contains(greedy["text"].as_str().unwrap()));
    assert_eq!(error_kind(&["generate", model.to_str().unwrap()], 2), "VocabularyNeeded");
    assert_eq!(error_kind(&["generate", model.to_str().unwrap(), "--vocab", "world"], 2), "VocabularyTooLarge");
}

#[test]
fn a_missing_vocabulary_is_asked_for() {
    let dir = Dir::new();
    let output = dir.join("out.gguf");
    let args = ["convert", checkpoint("7").to_str().unwrap(), "--to", "gguf", "--type", "q8_0", "-o", output.to_str().unwrap()];
    assert_eq!(error_kind(&args, 2), "VocabularyNeeded");
    // A container without a tokenizer does not need one.
    let output = dir.join("out.safetensors");
    let args = ["convert", checkpoint("7").to_str().unwrap(), "--to", "safetensors", "--type", "f16", "-o", output.to_str().unwrap()];
    json(&args, 0);
}

#[test]
fn output_to_a_pipe_has_no_colour_and_no_bars() {
    let dir = Dir::new();
    let output = dir.join("out.gguf");
    let result = run(&convert_args(checkpoint("7"), "gguf", "q8_0", &output));
    assert!(result.status.success());
    assert!(!result.stdout.contains(&0x1b) && !result.stderr.contains(&0x1b));
    let text = String::from_utf8(result.stdout).unwrap();
    for line in ["largest difference", "same top-1 token", "KL divergence, mean", "perplexity on this text", "wrote "] {
        assert!(text.contains(line), "{line}: {text}");
    }
}
