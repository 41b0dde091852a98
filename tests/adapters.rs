//! Adapters of PEFT through the program, and models that were saved with their own pairs.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use std::path::{Path, PathBuf};

use crate::support::{Dir, checkpoint, convert_args, error_kind, forge, json, vocab};
use rwkv_forge_convert::{OpenOptions, open};
use rwkv_forge_testkit::models::{MemorySource, MemoryTensor, SplitMix64};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Pairs of rank 4 for two matrices of the tiny RWKV-7, whose names are made of these.
fn pairs(name: impl Fn(&str, &str) -> String) -> MemorySource {
    let mut random = SplitMix64::new(9);
    let mut tensors = Vec::new();
    for (stem, rows, columns) in [("blocks.1.att.receptance", 128, 128), ("blocks.2.ffn.value", 128, 512)] {
        tensors.push((name(stem, "A"), vec![4, columns], (0..4 * columns).map(|_| 0.05 * random.normal()).collect()));
        tensors.push((name(stem, "B"), vec![rows, 4], (0..rows * 4).map(|_| 0.05 * random.normal()).collect()));
    }
    MemorySource::from_f32(tensors)
}

/// A directory as PEFT saves it.
fn adapter(dir: &Dir, name: &str, change: &str) -> PathBuf {
    let folder = dir.join(name);
    std::fs::create_dir(&folder).unwrap();
    let config = format!(
        r#"{{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["receptance", "value"], "use_rslora": false, "bias": "none"{change}}}"#
    );
    std::fs::write(folder.join("adapter_config.json"), config).unwrap();
    let named = pairs(|stem, half| format!("base_model.model.{stem}.lora_{half}.weight"));
    std::fs::write(folder.join("adapter_model.safetensors"), named.to_safetensors()).unwrap();
    folder
}

/// The checkpoint with these tensors beside its own.
fn beside_all_weights(path: &Path, pairs: MemorySource) {
    let model = open(checkpoint("7"), OpenOptions::default()).unwrap();
    let mut tensors: Vec<MemoryTensor> = Vec::new();
    for (index, info) in model.source().tensors().iter().enumerate() {
        let mut bytes = vec![0; usize::try_from(info.byte_len().unwrap()).unwrap()];
        model.source().read_at(index, 0, &mut bytes).unwrap();
        tensors.push(MemoryTensor { info: info.clone(), bytes });
    }
    tensors.extend(pairs.into_tensors());
    std::fs::write(path, MemorySource::from_tensors(tensors).to_safetensors()).unwrap();
}

fn same(left: &Path, right: &Path) -> bool {
    json(&["verify", text(left), text(right), "--vocab", text(vocab())], 0)["agreement"]["identical"] == true
}

#[test]
fn an_adapter_says_its_alpha_itself() {
    let dir = Dir::new();
    let plain = dir.join("plain.safetensors");
    std::fs::write(&plain, pairs(|stem, half| format!("{stem}.lora_{half}")).to_safetensors()).unwrap();
    let merged = |name: &str, lora: &Path, more: &[&str]| {
        let output = dir.join(name);
        let mut args = convert_args(checkpoint("7"), "pth", "f32", &output);
        args.extend(["--lora", text(lora)].iter().chain(more).map(|arg| (*arg).to_owned()));
        (json(&args, 0), output)
    };
    let (_, expected) = merged("expected.pth", &plain, &["--lora-alpha", "8"]);
    let folder = adapter(&dir, "adapter", "");
    let (record, output) = merged("merged.pth", &folder, &[]);
    assert!(same(&expected, &output) && !same(checkpoint("7"), &output));
    assert_eq!(record["recipe"], "type=f32; lora=adapter alpha=8");
    assert_eq!(record["record"]["source_sha256"].as_array().unwrap().len(), 2);
    let (record, output) = merged("by-file.pth", &folder.join("adapter_model.safetensors"), &["--lora-alpha", "8"]);
    assert_eq!(record["recipe"], "type=f32; lora=adapter_model.safetensors alpha=8");
    assert!(same(&expected, &output));
    // Another scale is another model: that of alpha 16, since the root of the rank is 2.
    let (record, output) = merged("stable.pth", &adapter(&dir, "stable", r#", "use_rslora": true"#), &[]);
    assert_eq!(record["recipe"], "type=f32; lora=stable alpha=8 rslora");
    assert!(same(&merged("sixteen.pth", &plain, &["--lora-alpha", "16"]).1, &output) && !same(&expected, &output));
    // What the two files do not agree on is said.
    let output =
        forge().args(convert_args(checkpoint("7"), "pth", "f32", &dir.join("noted.pth"))).arg("--lora").arg(&folder).output().unwrap();
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(notes.contains("alpha 8 and rank 4 of adapter_config.json") && notes.contains("have no pair and stay as they are"), "{notes}");
    let refused = |change: &str, more: &[&str], code: i32| {
        let folder = adapter(&dir, &format!("refused-{}", dir.names().len()), change);
        let mut args = convert_args(checkpoint("7"), "pth", "f32", &dir.join("never.pth"));
        args.extend(["--lora", text(&folder)].iter().chain(more).map(|arg| (*arg).to_owned()));
        error_kind(&args, code)
    };
    assert_eq!(refused("", &["--lora-alpha", "9"], 2), "LoraAlphaContradiction");
    assert_eq!(refused(r#", "init_lora_weights": "pissa""#, &[], 3), "UnsupportedAdapter");
    assert_eq!(refused(r#", "r": 5"#, &[], 3), "AdapterContradiction");
    assert!(!dir.join("never.pth").exists());
}

#[test]
fn pairs_in_the_model_itself_are_merged_by_their_alpha() {
    let dir = Dir::new();
    let (model, lora) = (dir.join("kept.safetensors"), dir.join("lora.safetensors"));
    let named = |stem: &str, half: &str| format!("{stem}.lora_{half}");
    beside_all_weights(&model, pairs(named));
    std::fs::write(&lora, pairs(named).to_safetensors()).unwrap();
    let (expected, output) = (dir.join("expected.pth"), dir.join("merged.pth"));
    let mut args = convert_args(checkpoint("7"), "pth", "f32", &expected);
    args.extend(["--lora", text(&lora), "--lora-alpha", "8"].map(str::to_owned));
    json(&args, 0);
    let args = convert_args(&model, "pth", "f32", &output);
    let error = json(&args, 3);
    assert_eq!(error["error"]["kind"], "UnmergedLora");
    assert!(error["error"]["message"].as_str().unwrap().contains("2 pair(s)"), "{error}");
    let record = json(&[&args[..], &["--lora-alpha".to_owned(), "8".to_owned()]].concat(), 0);
    assert_eq!(record["recipe"], "type=f32; lora=own alpha=8");
    assert_eq!(record["record"]["source_sha256"].as_array().unwrap().len(), 1);
    assert!(same(&expected, &output));
    // Every other command names the way too.
    assert_eq!(error_kind(&["generate", text(&model), "--vocab", text(vocab())], 3), "UnmergedLora");
}

/// A model as PEFT saves it before merging: pairs beside `base_layer`, and modules that were trained in full beside what they were.
fn wrapped_by_peft(path: &Path, pairs: &[MemoryTensor], trained: &str) {
    let model = open(checkpoint("7"), OpenOptions::default()).unwrap();
    let mut tensors: Vec<MemoryTensor> = Vec::new();
    let is_adapted = |name: &str| {
        name.strip_suffix(".weight").is_some_and(|stem| pairs.iter().any(|pair| pair.info.name.starts_with(&format!("{stem}.lora_"))))
    };
    for (index, info) in model.source().tensors().iter().enumerate() {
        let mut bytes = vec![0; usize::try_from(info.byte_len().unwrap()).unwrap()];
        model.source().read_at(index, 0, &mut bytes).unwrap();
        let mut put = |name: String, bytes: Vec<u8>| {
            let info = rwkv_forge_tensor::TensorInfo { name: format!("base_model.model.{name}"), ..info.clone() };
            tensors.push(MemoryTensor { info, bytes });
        };
        match info.name.rsplit_once('.') {
            Some((stem, "weight")) if is_adapted(&info.name) => put(format!("{stem}.base_layer.weight"), bytes),
            Some((stem, end)) if stem == trained => {
                put(format!("{stem}.original_module.{end}"), bytes.clone());
                // The copy counts: it is half of what it was made of.
                let halves = bytes.as_chunks::<2>().0.iter();
                let half = |two: &[u8; 2]| {
                    rwkv_forge_tensor::f32_to_bf16(rwkv_forge_tensor::bf16_to_f32(u16::from_le_bytes(*two)) / 2.0).to_le_bytes()
                };
                put(format!("{stem}.modules_to_save.default.{end}"), halves.flat_map(half).collect());
            }
            _ => put(info.name.clone(), bytes),
        }
    }
    for pair in pairs {
        let name = format!("base_model.model.{}.default.weight", pair.info.name);
        tensors.push(MemoryTensor { info: rwkv_forge_tensor::TensorInfo { name, ..pair.info.clone() }, bytes: pair.bytes.clone() });
    }
    std::fs::write(path, MemorySource::from_tensors(tensors).to_safetensors()).unwrap();
}

#[test]
fn a_model_that_peft_has_wrapped_is_its_base_with_its_pairs() {
    let dir = Dir::new();
    let factors = || pairs(|stem, half| format!("{stem}.lora_{half}"));
    let (wrapped, lora, full) = (dir.join("wrapped.safetensors"), dir.join("lora.safetensors"), dir.join("full.safetensors"));
    wrapped_by_peft(&wrapped, &factors().into_tensors(), "blocks.1.ln2");
    std::fs::write(&lora, factors().to_safetensors()).unwrap();
    // What it stands for: the same pairs, and the trained copies in place of what they were made of.
    let model = open(&wrapped, OpenOptions::default()).err().expect("it has pairs");
    assert_eq!(model.kind(), "UnmergedLora");
    let convert = |source: &Path, output: &Path, more: &[&str], code: i32| {
        let mut args = convert_args(source, "pth", "f32", output);
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        json(&args, code)
    };
    // A twin of it without pairs, whose copies replace the modules.
    wrapped_by_peft(&full, &[], "blocks.1.ln2");
    let (twin, expected, output) = (dir.join("twin.pth"), dir.join("expected.pth"), dir.join("merged.pth"));
    convert(&full, &twin, &[], 0);
    assert!(!same(checkpoint("7"), &twin), "the copy is another module");
    let noted = String::from_utf8(forge().args(["inspect", text(&full)]).output().unwrap().stdout).unwrap();
    assert!(noted.contains("`modules_to_save.default.` (PEFT)") && noted.contains("before its training by PEFT"), "{noted}");
    convert(&twin, &expected, &["--lora", text(&lora), "--lora-alpha", "8"], 0);
    let record = convert(&wrapped, &output, &["--lora-alpha", "8"], 0);
    assert_eq!(record["recipe"], "type=f32; lora=own alpha=8");
    assert!(same(&expected, &output));
    // Given as an adapter, it is its own base, whatever the model is.
    let other = dir.join("other.pth");
    convert(checkpoint("7"), &other, &["--lora", text(&lora), "--lora-alpha", "100"], 0);
    for base in [checkpoint("7"), other.as_path()] {
        let again = dir.join(&format!("again-{}.pth", dir.names().len()));
        convert(base, &again, &["--lora", text(&wrapped), "--lora-alpha", "8"], 0);
        assert!(same(&expected, &again), "{}", base.display());
    }
    let mut args = convert_args(checkpoint("7"), "pth", "f32", &dir.join("noted.pth"));
    args.extend(["--lora", text(&wrapped), "--lora-alpha", "8"].map(str::to_owned));
    let notes = String::from_utf8(forge().args(args).output().unwrap().stderr).unwrap();
    assert!(
        notes.contains("2 of the pairs lie beside the matrices that they adapt (base_layer)")
            && notes.contains("(original_module) are not used"),
        "{notes}"
    );
    // A pair beside a matrix that is no base_layer is still one that may be merged already.
    let doubled = dir.join("doubled.safetensors");
    beside_all_weights(&doubled, factors());
    let mut args = convert_args(checkpoint("7"), "pth", "f32", &dir.join("never.pth"));
    args.extend(["--lora", text(&doubled), "--lora-alpha", "8"].map(str::to_owned));
    assert_eq!(error_kind(&args, 3), "LoraConflict");
}

#[test]
fn what_a_configuration_leaves_open_is_said_and_what_it_switches_on_is_known() {
    let dir = Dir::new();
    let run = |folder: &Path, more: &[&str]| {
        let mut args = convert_args(checkpoint("7"), "pth", "f32", &dir.join("out.pth"));
        args.extend(["--force", "--lora", text(folder)].iter().chain(more).map(|arg| (*arg).to_owned()));
        forge().args(args).output().unwrap()
    };
    let written = |name: &str, config: &[u8]| {
        let folder = adapter(&dir, name, "");
        std::fs::write(folder.join("adapter_config.json"), config).unwrap();
        folder
    };
    let all = br#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": "all-linear"}"#;
    // A byte order mark before it, as editors leave one.
    for (name, config) in [("all", all.to_vec()), ("marked", [b"\xef\xbb\xbf", &all[..]].concat())] {
        let output = run(&written(name, &config), &[]);
        let notes = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && notes.contains("all-linear") && notes.contains("all 2 pairs in the file are merged"), "{notes}");
    }
    let unnamed = run(&written("unnamed", br#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8}"#), &[]);
    assert!(String::from_utf8(unnamed.stderr).unwrap().contains("there is no target_modules"));
    // Patterns decide rank and alpha of single matrices.
    let patterns = |ranks: &str, alphas: &str| {
        let config = format!(
            r#"{{"peft_type": "LORA", "r": 2, "lora_alpha": 8, "target_modules": ["receptance", "value"], "rank_pattern": {ranks}, "alpha_pattern": {alphas}}}"#
        );
        written(&format!("patterns-{}", dir.names().len()), config.as_bytes())
    };
    let ranked = run(&patterns(r#"{"receptance": 4, "ffn.value": 4}"#, r#"{"^blocks.1.att.receptance": 16}"#), &[]);
    assert!(ranked.status.success(), "{}", String::from_utf8(ranked.stderr).unwrap());
    let refused = |folder: &Path| {
        let said = String::from_utf8(run(folder, &[]).stderr).unwrap();
        assert!(said.contains("error["), "{said}");
        said
    };
    assert!(refused(&patterns(r#"{"receptance": 4}"#, "{}")).contains("it says 2"));
    // A switch that nobody here knows is another formula until somebody does.
    let switched = refused(&adapter(&dir, "switched", r#", "use_block_diagonal": true"#));
    assert!(switched.contains("use_block_diagonal switched on"), "{switched}");
    assert!(run(&adapter(&dir, "off", r#", "use_block_diagonal": false"#), &[]).status.success());
}

/// A configuration that leaves alpha open is completed by the option.
#[test]
fn an_alpha_that_the_configuration_leaves_open_is_given() {
    let dir = Dir::new();
    let plain = dir.join("plain.safetensors");
    std::fs::write(&plain, pairs(|stem, half| format!("{stem}.lora_{half}")).to_safetensors()).unwrap();
    let merged = |name: &str, lora: &Path, more: &[&str], code: i32| {
        let output = dir.join(name);
        let mut args = convert_args(checkpoint("7"), "pth", "f32", &output);
        args.extend(["--lora", text(lora)].iter().chain(more).map(|arg| (*arg).to_owned()));
        (json(&args, code), output)
    };
    let without = |name: &str, config: &str| {
        let folder = adapter(&dir, name, "");
        std::fs::write(folder.join("adapter_config.json"), config).unwrap();
        folder
    };
    let (_, expected) = merged("expected.pth", &plain, &["--lora-alpha", "16"], 0);
    for (name, alpha) in [("null", r#""lora_alpha": null, "#), ("absent", "")] {
        let config = format!(r#"{{"peft_type": "LORA", "r": 4, {alpha}"target_modules": ["receptance", "value"]}}"#);
        let folder = without(name, &config);
        let (seen, _) = merged("never.pth", &folder, &[], 2);
        assert_eq!(seen["error"]["kind"], "LoraAlphaMissing");
        let said = seen["error"]["message"].as_str().unwrap();
        let option = said.split("as --lora-alpha ").nth(1).unwrap();
        assert!(said.contains("adapter_config.json has no lora_alpha"), "{said}");
        merged(&format!("{name}-as-said.pth"), &folder, &["--lora-alpha", option], 0);
        let (record, output) = merged(&format!("{name}.pth"), &folder, &["--lora-alpha", "16"], 0);
        assert_eq!(record["recipe"], format!("type=f32; lora={name} alpha=16"));
        assert!(same(&expected, &output));
    }
    // What the configuration says of single matrices stands; the option is for the rest, scaled as it says.
    let patterns = without(
        "patterns",
        r#"{"peft_type": "LORA", "r": 4, "lora_alpha": null, "use_rslora": true, "target_modules": ["receptance", "value"],
            "alpha_pattern": {"value": 8}}"#,
    );
    let all =
        without("all", r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": true, "target_modules": ["receptance", "value"]}"#);
    let (left, right) = (merged("patterns.pth", &patterns, &["--lora-alpha", "8"], 0).1, merged("all.pth", &all, &[], 0).1);
    assert!(same(&left, &right));
    let (seen, _) = merged("never.pth", &patterns, &[], 2);
    assert_eq!(seen["error"]["kind"], "LoraAlphaMissing");
    // Without a rank the message says where it stands.
    let ranked = without("ranked", r#"{"peft_type": "LORA", "lora_alpha": 8, "target_modules": ["receptance", "value"]}"#);
    let (seen, _) = merged("never.pth", &ranked, &[], 3);
    assert!(seen["error"]["message"].as_str().unwrap().contains("the first dimension of the tensors lora_A"), "{seen}");
    assert!(!dir.join("never.pth").exists());
}

/// The checkpoint with other names: each of its tensors under every name that is given for it.
fn renamed(path: &Path, names: impl Fn(&str) -> Vec<String>, more: MemorySource) {
    let model = open(checkpoint("7"), OpenOptions::default()).unwrap();
    let mut tensors: Vec<MemoryTensor> = Vec::new();
    for (index, info) in model.source().tensors().iter().enumerate() {
        let mut bytes = vec![0; usize::try_from(info.byte_len().unwrap()).unwrap()];
        model.source().read_at(index, 0, &mut bytes).unwrap();
        for name in names(&info.name) {
            let info = rwkv_forge_tensor::TensorInfo { name, ..info.clone() };
            tensors.push(MemoryTensor { info, bytes: bytes.clone() });
        }
    }
    tensors.extend(more.into_tensors());
    std::fs::write(path, MemorySource::from_tensors(tensors).to_safetensors()).unwrap();
}

fn nothing() -> MemorySource {
    MemorySource::from_f32(Vec::new())
}

/// What PEFT wrapped and nothing in the file has trained is what it was, and is named.
#[test]
fn what_peft_wrapped_without_training_it_is_read_and_named() {
    let dir = Dir::new();
    let convert = |source: &Path, name: &str, more: &[&str]| {
        let output = dir.join(name);
        let mut args = convert_args(source, "pth", "f32", &output);
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        let run = forge().args(args).output().unwrap();
        let notes = String::from_utf8(run.stderr).unwrap();
        assert!(run.status.success(), "{notes}");
        (output, notes)
    };
    let (plain, _) = convert(checkpoint("7"), "plain.pth", &[]);
    let wrap = |name: &str, part: &str| match name.rsplit_once('.') {
        Some((stem, end)) => format!("{stem}.{part}.{end}"),
        None => name.to_owned(),
    };
    let file = dir.join("wrapped.safetensors");
    // Matrices without any pair, and modules that were to be trained in full, behind other wrappers each time.
    for (prefix, part, of) in [
        ("base_model.model.", "base_layer", "att.receptance.weight"),
        ("base_model.model.", "original_module", "head.weight"),
        ("module.base_model.model.", "original_module", "ln2.weight"),
        ("_orig_mod.", "base_layer", "ffn.value.weight"),
    ] {
        renamed(&file, |name| vec![format!("{prefix}{}", if name.ends_with(of) { wrap(name, part) } else { name.to_owned() })], nothing());
        let (output, notes) = convert(&file, &format!("{}.pth", dir.names().len()), &[]);
        assert!(same(&plain, &output), "{part}");
        let said = notes.lines().find(|line| line.contains(&format!("PEFT's {part} have no "))).unwrap_or_else(|| panic!("{notes}"));
        assert!(said.contains(&format!(".{part}.weight")) || said.contains(&wrap(of, part)), "{said}");
        let seen = String::from_utf8(forge().args(["inspect", text(&file)]).output().unwrap().stdout).unwrap();
        assert!(seen.contains(&format!("PEFT's {part} have no ")), "{seen}");
    }
    // One of the matrices has its pair, another has none.
    let one = || {
        let pair = pairs(|stem, half| format!("{stem}.lora_{half}")).into_tensors().into_iter();
        MemorySource::from_tensors(pair.filter(|tensor| tensor.info.name.starts_with("blocks.1.")))
    };
    let (lora, wrapped) = (dir.join("one.safetensors"), dir.join("own.safetensors"));
    std::fs::write(&lora, one().to_safetensors()).unwrap();
    let with_pair = |names: &dyn Fn(&str) -> Vec<String>| {
        let pair = one().into_tensors().into_iter().map(|mut tensor| {
            tensor.info.name = format!("base_model.model.{}.default.weight", tensor.info.name);
            tensor
        });
        renamed(&wrapped, names, MemorySource::from_tensors(pair));
    };
    let in_peft = |name: &str, head: &str| {
        let is_wrapped = name.ends_with("att.receptance.weight");
        let name = if is_wrapped { wrap(name, "base_layer") } else { name.replace("head.", &format!("head.{head}")) };
        format!("base_model.model.{name}")
    };
    with_pair(&|name| vec![in_peft(name, "")]);
    let (merged, _) = convert(checkpoint("7"), "merged.pth", &["--lora", text(&lora), "--lora-alpha", "8"]);
    let (own, notes) = convert(&wrapped, "own.pth", &["--lora-alpha", "8"]);
    let said = notes.lines().find(|line| line.contains("have no pair of a LoRA")).unwrap();
    assert!(same(&merged, &own) && said.contains("blocks.0.att.receptance.base_layer.weight"), "{said}");
    assert!(!said.contains("blocks.1."), "the other one has its pair: {said}");
    // As an adapter of another model it says so, too.
    with_pair(&|name| vec![in_peft(name, "original_module.")]);
    let (again, notes) = convert(checkpoint("7"), "again.pth", &["--lora", text(&wrapped), "--lora-alpha", "8"]);
    assert!(same(&merged, &again));
    for said in ["of the LoRA, 2 tensors of PEFT's base_layer have no pair", "head.original_module.weight"] {
        assert!(notes.contains(said), "{said}: {notes}");
    }
    // The same module twice is no module.
    with_pair(&|name| {
        let mut both = vec![in_peft(name, ""), in_peft(name, "original_module.")];
        both.dedup();
        both
    });
    let mut args = convert_args(checkpoint("7"), "pth", "f32", &dir.join("never.pth"));
    args.extend(["--lora", text(&wrapped), "--lora-alpha", "8"].map(str::to_owned));
    assert_eq!(error_kind(&args, 3), "UnsupportedAdapter");
}

/// Of several adapters none is taken, whether they have pairs or modules that were trained in full.
#[test]
fn modules_of_several_adapters_are_refused_by_their_names() {
    let dir = Dir::new();
    let file = dir.join("several.safetensors");
    let copies = |adapters: &'static [&'static str]| {
        move |name: &str| match name {
            "head.weight" => adapters.iter().map(|adapter| format!("base_model.model.head.modules_to_save.{adapter}.weight")).collect(),
            name => vec![format!("base_model.model.{name}")],
        }
    };
    let of = |adapter: &str| pairs(|stem, half| format!("base_model.model.{stem}.lora_{half}.{adapter}.weight"));
    for (adapters, pairs, names) in [
        (&["default", "second"][..], nothing(), "'default', 'second'"),
        (&["one"], of("two"), "'one', 'two'"),
        (&[], MemorySource::from_tensors(of("a").into_tensors().into_iter().chain(of("b").into_tensors())), "'a', 'b'"),
    ] {
        renamed(&file, copies(adapters), pairs);
        // Without a pair there is nothing that an alpha would scale.
        let scaled = if adapters.len() > 1 { &[][..] } else { &["--lora-alpha", "8"] };
        for more in [&[][..], scaled] {
            let mut args = convert_args(&file, "pth", "f32", &dir.join("never.pth"));
            args.extend(more.iter().map(|arg| (*arg).to_owned()));
            let error = json(&args, 3);
            let said = error["error"]["message"].as_str().unwrap();
            assert!(error["error"]["kind"] == "SeveralAdapters" && said.contains(names), "{error}");
        }
        let mut args = convert_args(checkpoint("7"), "pth", "f32", &dir.join("never.pth"));
        args.extend(["--lora", text(&file), "--lora-alpha", "8"].map(str::to_owned));
        assert_eq!(error_kind(&args, 3), "SeveralAdapters");
    }
    // One of them alone is none of several.
    renamed(&file, copies(&["second"]), nothing());
    json(&convert_args(&file, "pth", "f32", &dir.join("fine.pth")), 0);
}
