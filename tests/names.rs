//! The names that people type: in either case, as programs are called, nearly right, or left out.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::collections::BTreeSet;
use std::path::Path;

use rwkv_forge_convert::container::{CONTAINERS, Container, by_name};
use rwkv_forge_convert::preset::{aliases, preset_for, type_names};
use serde_json::Value;

use crate::support::{Dir, checkpoint, convert_args, json, run, vocab};

/// What a conversion of a tiny checkpoint would be, or its refusal.
fn decided(version: &str, extra: &[&str], code: i32) -> Value {
    decided_of(checkpoint(version), extra, code)
}

fn decided_of(source: &Path, extra: &[&str], code: i32) -> Value {
    let base = ["convert", source.to_str().unwrap(), "--dry-run", "--vocab", vocab().to_str().unwrap()];
    json(&[&base[..], extra].concat(), code)
}

/// A version that the container carries.
fn carried(container: &dyn Container) -> &'static str {
    let versions = ["7", "5", "6", "4"];
    let name = |version: &str| rwkv_forge_model::architecture::by_name(if version == "5" { "5.2" } else { version }).unwrap().version;
    versions.into_iter().find(|version| container.carries(name(version)).is_ok()).unwrap()
}

#[test]
fn names_are_there_once() {
    let mut all: Vec<String> = CONTAINERS.iter().flat_map(|one| [&[one.name()], one.aliases()].concat()).map(str::to_owned).collect();
    all.extend(CONTAINERS.iter().map(|one| format!(".{}", one.extension())));
    all.extend(type_names().into_iter().chain(aliases().map(|(old, _)| old)).map(|name| format!("type {name}")));
    let once: BTreeSet<&String> = all.iter().collect();
    assert_eq!(once.len(), all.len(), "{all:?}");
    assert!(all.iter().all(|name| *name == name.to_lowercase()), "names are in small letters: {all:?}");
}

#[test]
fn names_are_taken_in_either_case_and_as_programs_are_called() {
    for container in CONTAINERS {
        let version = carried(*container);
        for name in [&[container.name()], container.aliases()].concat() {
            for written in [name.to_owned(), name.to_uppercase()] {
                let seen = decided(version, &["--to", &written, "--type", "F16"], 0);
                assert_eq!((seen["container"].as_str(), seen["recipe"].as_str()), (Some(container.name()), Some("type=f16")), "{written}");
            }
        }
    }
    for written in ["llamacpp", "Llama_Cpp", "llama-cpp"] {
        assert_eq!(decided("7", &["--to", written, "--type", "f16"], 0)["container"], "gguf", "{written}");
    }
    for (written, meant) in [
        ("float16", "f16"),
        ("FP16", "f16"),
        ("bfloat16", "bf16"),
        ("Q4_K_M", "q4_k_m"),
        ("Q8_0", "q8_0"),
        ("BF16", "bf16"),
        ("RWKV-Q5", "5bit; quantizer search"),
    ] {
        let seen = decided("7", &["--to", "gguf", "--type", written], 0);
        assert_eq!(seen["recipe"], format!("type={meant}"), "{written}");
    }
    let seen = decided("7", &["--to", "gguf", "--type", "f16", "--set", "head=Q8_0"], 0);
    assert!(seen["tensors"].as_array().unwrap().iter().any(|tensor| tensor["type"] == "q8_0"));
    // Wherever a container or a type is asked for.
    let model = checkpoint("4").to_str().unwrap();
    let levels = ["eval", model, "--levels", "Q8_0", "--to", "RWKV.CPP", "--no-speed", "--no-cache", "--bytes", "300"];
    let seen = json(&[&levels[..], &["--vocab", vocab().to_str().unwrap()]].concat(), 0);
    assert_eq!((&seen["models"][0]["type"], &seen["container"]), (&Value::from("q8_0"), &Value::from("rwkv-cpp")));
}

/// Every answer names what works: the offers are followed, all of them.
#[test]
fn what_is_typed_for_a_width_is_answered_with_what_the_container_offers() {
    let mut followed = 0;
    for container in CONTAINERS {
        let version = carried(*container);
        for typed in ["int4", "int8", "4-bit", "q4", "Q6", "fp8"] {
            if container.holds(rwkv_forge_quant::by_name("int8").unwrap().encoding()) && typed == "int8" {
                continue;
            }
            let refused = decided(version, &["--to", container.name(), "--type", typed], 2);
            let message = refused["error"]["message"].as_str().unwrap();
            let digit = typed.chars().find(char::is_ascii_digit).unwrap();
            let offered: Vec<&str> = match message.split_once(&format!("of {digit} bits ")) {
                Some((_, offers)) => offers.split_once(" has ").unwrap().1.split(", ").collect(),
                None => type_names().into_iter().filter(|name| message.split_once(": ").unwrap().1.contains(name)).collect(),
            };
            assert!(!offered.is_empty(), "{message}");
            // A container without types of so many bits says what it has.
            let has_some = type_names().into_iter().any(|name| {
                let held = preset_for(name, None).is_ok_and(|preset| container.holds(preset.base) && !preset.keeps);
                held && name.chars().find(char::is_ascii_digit) == Some(digit)
            });
            assert!(!has_some || offered.iter().all(|name| name.contains(digit)), "{container}: {message}", container = container.name());
            for name in offered {
                decided(version, &["--to", container.name(), "--type", name], 0);
                followed += 1;
            }
        }
    }
    assert!(followed > 100, "{followed}");
}

#[test]
fn names_that_are_nearly_right_are_answered_with_the_right_one() {
    let said = |args: &[&str]| decided("7", args, 2)["error"]["message"].as_str().unwrap().to_owned();
    for (typed, meant) in [("q4_k_mm", "q4_k_m"), ("q4-k-m", "q4_k_m"), ("q80", "q8_0"), ("4bits", "4bit"), ("f61", "f16"), ("kep", "keep")]
    {
        let message = said(&["--to", "gguf", "--type", typed]);
        assert!(message.contains(&format!("did you mean {meant}?")), "{typed}: {message}");
        decided("7", &["--to", "gguf", "--type", meant], 0);
    }
    for (typed, meant) in
        [("ggfu", "gguf"), ("lama.cpp", "llama.cpp"), ("safetensor", "safetensors"), ("rwkvcp", "rwkv-cpp"), ("olama", "ollama")]
    {
        let message = said(&["--to", typed, "--type", "f16"]);
        assert!(message.contains(&format!("did you mean {meant}?")), "{typed}: {message}");
        decided("7", &["--to", meant, "--type", "f16"], 0);
    }
    // What is like nothing is answered with all there is.
    let message = said(&["--to", "onnx"]);
    assert!(!message.contains("did you mean") && CONTAINERS.iter().all(|one| message.contains(one.name())), "{message}");
    let message = said(&["--to", "gguf", "--type", "small"]);
    assert!(!message.contains("did you mean") && message.contains("4bit, 5bit") && message.contains("q4_k_m"), "{message}");
    // No type has seven bits, so that none of the others is meant.
    let message = said(&["--to", "gguf", "--type", "7bit"]);
    assert!(!message.contains("did you mean") && message.contains("4bit, 5bit"), "{message}");
    // A type that exists, and not there.
    let message = said(&["--to", "gguf", "--type", "nf4"]);
    assert!(message.contains("of 4 bits it has 4bit, "), "{message}");
    let message = said(&["--to", "prefab", "--type", "q8_0"]);
    assert!(message.contains("of 8 bits it has 8bit, int8"), "{message}");
}

#[test]
fn the_name_of_the_output_says_the_container() {
    for container in CONTAINERS {
        let output = format!("never.{}", container.extension());
        let seen = decided(carried(*container), &["-o", &output, "--type", "f16"], 0);
        assert_eq!((seen["container"].as_str(), seen["output"].as_str()), (Some(container.name()), Some(output.as_str())));
    }
    assert_eq!(decided("7", &["-o", "never.GGUF", "--type", "f16"], 0)["container"], "gguf");
    assert_eq!(decided("7", &["-o", "never.gguf", "--to", "pth", "--type", "f16"], 0)["container"], "pth", "--to says more than a name");
    for args in [&[][..], &["-o", "never.onnx"], &["-o", "never"]] {
        let refused = decided("7", args, 2);
        let message = refused["error"]["message"].as_str().unwrap();
        assert_eq!(refused["error"]["kind"], "ContainerNeeded");
        assert!(CONTAINERS.iter().all(|one| message.contains(one.name())) && message.contains("--to"), "{message}");
    }
}

#[test]
fn types_that_nobody_names_are_taken_and_said() {
    let expected = [
        ("candle", "bf16"),
        ("candle-gguf", "4bit"),
        ("gguf", "4bit"),
        ("hf", "bf16"),
        ("hf-native", "bf16"),
        ("prefab", "int8"),
        ("pth", "bf16"),
        ("rwkv-cpp", "4bit"),
        ("safetensors", "bf16"),
        ("web-rwkv", "f16"),
    ];
    assert_eq!(CONTAINERS.len(), expected.len(), "a container whose default is not tested");
    for (container, taken) in expected {
        let version = carried(by_name(container).unwrap());
        let seen = decided(version, &["--to", container], 0);
        assert_eq!(seen["type_taken"]["name"], taken, "{container}");
        assert!(seen["recipe"].as_str().unwrap().starts_with(&format!("type={taken}")), "{container}: {}", seen["recipe"]);
        // The same as asked for, and then nothing was taken.
        let asked = decided(version, &["--to", container, "--type", taken], 0);
        assert_eq!((&asked["tensors"], &asked["type_taken"]), (&seen["tensors"], &Value::Null), "{container}");
        let source = checkpoint(version).to_str().unwrap();
        let said = run(&["convert", source, "--to", container, "--dry-run", "--vocab", vocab().to_str().unwrap()]);
        let said = String::from_utf8(said.stderr).unwrap();
        let why = seen["type_taken"]["why"].as_str().unwrap();
        assert!(said.contains(&format!("note: type {taken}, since {why}; --type takes another")), "{said}");
    }
    // A recipe without a type leaves it open too.
    let dir = Dir::new();
    let recipe = dir.join("recipe.toml");
    std::fs::write(&recipe, "[[set]]\ntensors = 'head'\ntype = 'q8_0'\n").unwrap();
    let seen = decided("7", &["--to", "gguf", "--recipe", recipe.to_str().unwrap()], 0);
    assert_eq!(seen["type_taken"]["name"], "4bit");
}

#[test]
fn a_quantized_source_keeps_its_types() {
    let dir = Dir::new();
    let write = |container: &str, encoding: &str, name: &str| {
        let output = dir.join(name);
        json(&convert_args(checkpoint("6"), container, encoding, &output), 0);
        output
    };
    let types = |seen: &Value| -> Vec<(String, String)> {
        let text = |tensor: &Value, key: &str| tensor[key].as_str().unwrap().to_owned();
        seen["tensors"].as_array().unwrap().iter().map(|tensor| (text(tensor, "name"), text(tensor, "type"))).collect()
    };
    let mixed = write("gguf", "4bit", "mixed.gguf");
    let again = decided_of(&mixed, &["--to", "gguf"], 0);
    assert_eq!((&again["recipe"], &again["type_taken"]["name"]), (&Value::from("type=keep"), &Value::from("keep")));
    assert_eq!(types(&again), types(&json(&["inspect", mixed.to_str().unwrap()], 0)));
    assert_eq!(again["output"], dir.join("mixed-new.gguf").to_str().unwrap(), "not the source itself");
    // It is written, and nothing of it is rounded again.
    let output = dir.join("again.gguf");
    let record = json(&["convert", mixed.to_str().unwrap(), "-o", output.to_str().unwrap()], 0);
    assert_eq!(record["record"]["agreement"]["identical"], true);
    // What the next container does not hold is named; the rest stays.
    let float = decided_of(&write("rwkv-cpp", "q8_0", "whole.bin"), &["--to", "pth"], 0);
    assert_eq!(float["type_taken"]["name"], "f16");
    assert!(float["type_taken"]["why"].as_str().unwrap().contains("q8_0"), "{float}");
    let refused = decided_of(&write("gguf", "q2_k", "small.gguf"), &["--to", "prefab"], 2);
    assert_eq!(refused["error"]["kind"], "Requantize", "another loss is taken by nobody who did not ask for it");
    // Several float types are as they are too.
    let rule = ["--set".to_owned(), "head=f32".to_owned()];
    let floats = dir.join("floats.safetensors");
    json(&[convert_args(checkpoint("6"), "safetensors", "bf16", &floats), rule.to_vec()].concat(), 0);
    let seen = decided_of(&floats, &["--to", "pth"], 0);
    assert_eq!(seen["type_taken"]["name"], "keep");
    assert!(types(&seen).contains(&("head.weight".to_owned(), "f32".to_owned())), "{seen}");
}

#[test]
fn older_names_of_ready_types_are_read_and_no_longer_written() {
    let dir = Dir::new();
    let bytes = |seen: &Value| seen["total_bytes"].clone();
    for (old, new) in aliases() {
        let recipe = dir.join("old.toml");
        std::fs::write(&recipe, format!("type = \"{old}\"\n")).unwrap();
        let wanted = decided("7", &["--to", "gguf", "--type", new], 0);
        for seen in
            [decided("7", &["--to", "gguf", "--type", old], 0), decided("7", &["--to", "gguf", "--recipe", recipe.to_str().unwrap()], 0)]
        {
            assert_eq!((&seen["tensors"], bytes(&seen)), (&wanted["tensors"], bytes(&wanted)), "{old}");
            assert!(seen["recipe"].as_str().unwrap().starts_with(&format!("type={new}")), "{}", seen["recipe"]);
            assert!(!seen["output"].as_str().unwrap().contains(old), "{}", seen["output"]);
        }
        let help = String::from_utf8(run(&["convert", "--help"]).stdout).unwrap();
        assert!(help.contains(new) && !help.contains(old), "the help speaks of {new}");
    }
}

#[test]
fn names_of_outputs_say_nothing_twice() {
    let dir = Dir::new();
    for (source, args, name) in [
        ("m.pth", &["--to", "gguf", "--type", "q8_0"][..], "m-q8_0.gguf"),
        ("m.pth", &["--to", "gguf"], "m-4bit.gguf"),
        ("m-bf16.pth", &["--to", "safetensors"], "m-bf16.safetensors"),
        ("bf16.pth", &["--to", "safetensors"], "bf16.safetensors"),
        ("m-bf16.pth", &["--to", "pth"], "m-bf16-new.pth"),
    ] {
        let path = dir.join(source);
        std::fs::copy(checkpoint("7"), &path).unwrap();
        assert_eq!(decided_of(&path, args, 0)["output"], dir.join(name).to_str().unwrap());
    }
}

/// A name that is another container's is not taken for a mistake, and said.
#[test]
fn an_output_that_is_called_like_another_container_is_said() {
    let dir = Dir::new();
    let notes = |name: &str, extra: &[&str]| {
        let output = dir.join(name);
        decided("7", &[&["-o", output.to_str().unwrap()], extra].concat(), 0)["notes"].to_string()
    };
    assert!(notes("x.bin", &["--to", "gguf"]).contains("its name ends in .bin as that of rwkv-cpp"));
    assert!(notes("x.safetensors", &["--to", "hf"]).contains("its name ends in .safetensors"));
    for (name, container) in [("x.gguf", "gguf"), ("x", "hf"), ("x.model", "rwkv-cpp")] {
        assert!(!notes(name, &["--to", container]).contains("though its name"), "{name}");
    }
}

/// What the run itself would refuse, a dry run says.
#[test]
fn a_dry_run_says_what_would_be_refused() {
    let dir = Dir::new();
    std::fs::write(dir.join("there.gguf"), "mine").unwrap();
    std::fs::create_dir(dir.join("folder.gguf")).unwrap();
    let refused = |name: &str, extra: &[&str]| {
        let output = dir.join(name);
        decided("7", &[&["--to", "gguf", "-o", output.to_str().unwrap()], extra].concat(), 0)["refused"].clone()
    };
    assert!(refused("there.gguf", &[]).as_str().unwrap().contains("--force"));
    assert!(refused("folder.gguf", &["--force"]).is_string());
    assert!(refused("there.gguf", &["--force"]).is_null() && refused("new.gguf", &[]).is_null());
    assert_eq!(std::fs::read(dir.join("there.gguf")).unwrap(), b"mine");
    assert!(!dir.join("no").exists() && !dir.join("new.gguf").exists());
}

/// Every type finds the missing folder at once, with what makes it, also where the name has what a shell takes for its own.
#[test]
fn a_missing_folder_is_named_for_every_type() {
    let dir = Dir::new();
    let output = dir.join("it's new/x.gguf");
    for encoding in ["4bit", "q8_0", "q4_k_m"] {
        let refused = json(&convert_args(checkpoint("7"), "gguf", encoding, &output), 4);
        let message = refused["error"]["message"].as_str().unwrap();
        let (_, command) = message.split_once("make it first (").unwrap();
        let command = command.split_once("')").map(|(command, _)| format!("{command}'")).unwrap();
        let made = Dir::new();
        let status = std::process::Command::new("sh").args(["-c", &command]).current_dir(made.path()).status().unwrap();
        assert!(status.success() && output.parent().unwrap().is_dir(), "{command}");
        std::fs::remove_dir(output.parent().unwrap()).unwrap();
    }
}
