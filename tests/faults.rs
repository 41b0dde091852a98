//! What writers survive: the ids are those of the list of faults in docs/security.md's contract.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use crate::support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Dir, checkpoint, convert_args, error_kind, forge, json, run};

/// A conversion of the RWKV-7 fixture into `output`.
fn args(output: &std::path::Path) -> Vec<String> {
    convert_args(checkpoint("7"), "gguf", "q8_0", output)
}

#[test]
fn w1_a_full_disk_leaves_nothing_behind() {
    let dir = Dir::new();
    let output = dir.join("out.gguf");
    std::fs::write(&output, "old").unwrap();
    // The shell's limit on file sizes (in blocks of 512 bytes) makes the write fail late, as a disk that fills up does.
    let mut line = format!("trap '' XFSZ; ulimit -f 100; exec {}", env!("CARGO_BIN_EXE_rwkv-forge"));
    for arg in args(&output) {
        line.push_str(&format!(" '{arg}'"));
    }
    line.push_str(" --force");
    let result = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert_eq!(result.status.code(), Some(4), "{}", String::from_utf8_lossy(&result.stderr));
    assert_eq!(std::fs::read(&output).unwrap(), b"old");
    assert_eq!(dir.names(), ["out.gguf"]);
}

#[test]
fn w2_killed_at_any_moment_the_old_output_stays_and_the_next_run_cleans_up() {
    let dir = Dir::new();
    let output = dir.join("out.gguf");
    std::fs::write(&output, "old").unwrap();
    let mut complete = 0;
    for round in 0..25u64 {
        let mut child = forge().args(args(&output)).arg("--force").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(round * 4));
        child.kill().unwrap();
        child.wait().unwrap();
        let content = std::fs::read(&output).unwrap();
        if content == b"old" {
            continue;
        }
        complete += 1;
        assert_eq!(json(&["inspect", output.to_str().unwrap()], 0)["metadata"]["rwkv_forge.verify.status"], "verified");
        std::fs::write(&output, "old").unwrap();
    }
    let mut last = args(&output);
    last.push("--force".to_owned());
    json(&last, 0);
    assert_eq!(dir.names(), ["out.gguf"], "stray temporaries of killed runs are removed ({complete} rounds finished)");
}

#[test]
fn w3_signals_remove_the_temporary_file() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let dir = Dir::new();
        let output = dir.join("out.gguf");
        // Many tokens make the comparison long enough to be interrupted.
        let mut long = args(&output);
        long.extend(["--probe-tokens".to_owned(), "100000".to_owned(), "--text".to_owned()]);
        long.push(support::fixture("text/public-domain-100k.txt").to_str().unwrap().to_owned());
        let mut child = forge().args(&long).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut waited = 0;
        while dir.names().is_empty() && waited < 6000 {
            std::thread::sleep(Duration::from_millis(10));
            waited += 1;
        }
        assert!(dir.names()[0].starts_with(".out.gguf."), "the temporary is a hidden sibling: {:?}", dir.names());
        Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "SIG{signal}");
        assert_eq!(dir.names(), Vec::<String>::new());
    }
}

#[test]
fn w5_an_existing_output_needs_force() {
    let dir = Dir::new();
    let output = dir.join("out.gguf");
    std::fs::write(&output, "old").unwrap();
    assert_eq!(error_kind(&args(&output), 2), "OutputExists");
    assert_eq!(std::fs::read(&output).unwrap(), b"old");
    let mut forced = args(&output);
    forced.push("--force".to_owned());
    json(&forced, 0);
    assert_eq!(&std::fs::read(&output).unwrap()[..4], b"GGUF");
    assert_eq!(dir.names(), ["out.gguf"]);
}

#[test]
fn w6_the_input_is_never_the_output() {
    let dir = Dir::new();
    let source = dir.join("model.pth");
    std::fs::copy(checkpoint("7"), &source).unwrap();
    let before = support::sha256(&source);
    let hard = dir.join("hard.gguf");
    std::fs::hard_link(&source, &hard).unwrap();
    for output in [source.clone(), dir.path().join("../").join(dir.path().file_name().unwrap()).join("model.pth"), hard] {
        let mut forced = convert_args(&source, "gguf", "q8_0", &output);
        forced.push("--force".to_owned());
        assert_eq!(error_kind(&forced, 2), "OutputIsInput", "{}", output.display());
    }
    assert_eq!(support::sha256(&source), before);
}

#[test]
fn w7_w8_outputs_that_cannot_be_are_refused_before_the_work() {
    let dir = Dir::new();
    let link = dir.join("link.gguf");
    std::os::unix::fs::symlink(dir.join("elsewhere"), &link).unwrap();
    let fifo = dir.join("fifo.gguf");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for output in [link, fifo, dir.path().to_owned()] {
        let mut forced = args(&output);
        forced.push("--force".to_owned());
        let result = run(&forced);
        assert_ne!(result.status.code(), Some(0), "{}", output.display());
        assert!(String::from_utf8_lossy(&result.stderr).contains("error[OutputNotRegular]"), "{}", String::from_utf8_lossy(&result.stderr));
    }
    let missing = dir.join("no/such/directory/out.gguf");
    assert_eq!(error_kind(&args(&missing), 4), "OutputDirectory");
    assert!(!dir.join("elsewhere").exists());
}

#[test]
fn w22_of_two_converters_one_wins_whole() {
    let dir = Dir::new();
    let output = dir.join("out.gguf");
    let mut children: Vec<_> =
        (0..2).map(|_| forge().args(args(&output)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()).collect();
    let codes: Vec<Option<i32>> = children.iter_mut().map(|child| child.wait().unwrap().code()).collect();
    assert!(codes.contains(&Some(0)), "{codes:?}");
    assert!(codes.iter().all(|code| matches!(code, Some(0 | 2))), "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{codes:?}");
    assert_eq!(dir.names(), ["out.gguf"]);
    assert_eq!(json(&["inspect", output.to_str().unwrap()], 0)["metadata"]["rwkv_forge.verify.status"], "verified");
}

#[test]
fn w23_permissions_follow_the_umask() {
    let dir = Dir::new();
    let output = dir.join("out.gguf");
    let mut line = format!("umask 027; exec {}", env!("CARGO_BIN_EXE_rwkv-forge"));
    for arg in args(&output) {
        line.push_str(&format!(" '{arg}'"));
    }
    assert!(Command::new("sh").args(["-c", &line]).output().unwrap().status.success());
    assert_eq!(output.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(output.metadata().unwrap().nlink(), 1);
}

#[test]
fn w25_a_reader_that_leaves_is_no_failure() {
    let dir = Dir::new();
    let line = format!("{} inspect --tensors {} | head -n 1", env!("CARGO_BIN_EXE_rwkv-forge"), checkpoint("7").display());
    let result = Command::new("bash").args(["-o", "pipefail", "-c", &line]).output().unwrap();
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    assert!(result.stderr.is_empty(), "{}", String::from_utf8_lossy(&result.stderr));
    drop(dir);
}

#[test]
fn a_file_that_misses_its_threshold_does_not_appear() {
    let dir = Dir::new();
    let output = dir.join("out.gguf");
    let mut strict = convert_args(checkpoint("7"), "gguf", "q4_0", &output);
    strict.extend(["--max-kl".to_owned(), "1e-9".to_owned()]);
    assert_eq!(error_kind(&strict, 1), "ThresholdNotMet");
    assert_eq!(dir.names(), Vec::<String>::new());
}

#[test]
fn w5_w6_side_files_fail_before_the_work_and_never_replace_the_source() {
    let dir = Dir::new();
    let source = dir.join("model.pth");
    std::fs::copy(checkpoint("7"), &source).unwrap();
    let before = support::sha256(&source);
    for option in ["--record", "--vocab-json"] {
        let mut with = convert_args(&source, "gguf", "q8_0", &dir.join("out.gguf"));
        with.extend([option.to_owned(), source.to_str().unwrap().to_owned()]);
        assert_eq!(error_kind(&with, 2), "OutputIsInput");
        with.push("--force".to_owned());
        assert_eq!(error_kind(&with, 2), "OutputIsInput");
    }
    assert_eq!(support::sha256(&source), before);
    assert_eq!(dir.names(), ["model.pth"], "no model file without the files that were to lie beside it");
}
