//! No output takes the place of an input or of another output, by whatever name (W6 of `docs/bad-inputs.md`).
#![allow(clippy::unwrap_used, clippy::panic, reason = "test support may fail loudly")]

use crate::common;

use std::os::unix::fs::symlink;
use std::path::Path;

use crate::common::Folder;
use rwkv_forge_io::{Claims, InputFile, OutputDirectory, OutputFile, OutputOptions};
use rwkv_forge_tensor::{Class, Diagnostic};

fn options<'a>(claims: &'a Claims, role: &'a str) -> OutputOptions<'a> {
    OutputOptions { force: true, claims: Some(claims), role, expected_bytes: 0 }
}

/// The kind of the error, after a look at its class and at the two names in it.
fn refused(claims: &Claims, role: &str, path: &Path, named: [&str; 2]) -> &'static str {
    let error = OutputFile::create(path, &options(claims, role)).unwrap_err();
    assert_eq!(error.class(), Class::Usage);
    assert!(named.iter().all(|name| error.to_string().contains(name)), "{error}");
    error.kind()
}

#[test]
fn w6_two_outputs_of_one_place_are_refused_by_whatever_names() {
    let folder = Folder::new("c_twice");
    let claims = Claims::default();
    std::fs::create_dir(folder.join("sub")).unwrap();
    symlink(folder.path(), folder.join("elsewhere")).unwrap();
    let _first = OutputFile::create(&folder.join("x"), &options(&claims, "--output")).unwrap();
    for name in ["x", "./x", "sub/../x", "elsewhere/x"] {
        assert_eq!(refused(&claims, "--record", &folder.join(name), ["--record", "--output"]), "OutputTwice", "{name}");
    }
    // Existing files by their inode.
    folder.file("a", b"old");
    std::fs::hard_link(folder.join("a"), folder.join("b")).unwrap();
    claims.output("--csv", &folder.join("a")).unwrap();
    assert_eq!(refused(&claims, "--svg", &folder.join("b"), ["--svg", "--csv"]), "OutputTwice");
    // Once more for the same role, and another name, are no trouble.
    claims.output("--csv", &folder.join("a")).unwrap();
    claims.output("--svg", &folder.join("c")).unwrap();
}

#[test]
fn w6_nothing_else_lies_in_a_directory_that_is_written_as_a_whole() {
    let folder = Folder::new("c_whole");
    let claims = Claims::default();
    std::fs::create_dir_all(folder.join("out/deep")).unwrap();
    claims.output_directory("--output", &folder.join("out")).unwrap();
    assert_eq!(refused(&claims, "--record", &folder.join("out/record.json"), ["--record", "--output"]), "OutputTwice");
    assert_eq!(refused(&claims, "--record", &folder.join("out/deep/record.json"), ["--record", "--output"]), "OutputTwice");
    claims.output("--record", &folder.join("outer.json")).unwrap();
    // The other way round, and for inputs.
    let claims = Claims::default();
    claims.output("--record", &folder.join("out/record.json")).unwrap();
    let error = OutputDirectory::check(&folder.join("out"), &options(&claims, "--output"), &|_| true).unwrap_err();
    assert_eq!(error.kind(), "OutputTwice");
    let claims = Claims::default();
    folder.file("out/text.txt", b"text");
    claims.input("--text", &folder.join("out/text.txt"));
    let error = OutputDirectory::check(&folder.join("out"), &options(&claims, "--output"), &|_| true).unwrap_err();
    assert!(error.kind() == "OutputIsInput" && error.to_string().contains("--text"), "{error}");
    let claims = Claims::default();
    claims.input("MODEL", &folder.join("out"));
    let error = OutputDirectory::check(&folder.join("out"), &options(&claims, "--output"), &|_| true).unwrap_err();
    assert_eq!(error.kind(), "OutputIsInput");
    claims.output("--record", &folder.join("out/record.json")).unwrap();
}

#[test]
fn w6_every_input_is_known_by_its_inode_and_by_its_place() {
    let folder = Folder::new("c_inputs");
    let claims = Claims::default();
    let text = folder.file("text", b"words");
    claims.input("--text", &text);
    claims.input("--vocab", &folder.join("missing"));
    std::fs::hard_link(&text, folder.join("hard")).unwrap();
    symlink(&text, folder.join("soft")).unwrap();
    for name in ["text", "hard", "soft"] {
        assert_eq!(refused(&claims, "--output", &folder.join(name), ["--output", "--text"]), "OutputIsInput", "{name}");
    }
    // Removed meanwhile, and still not to be taken.
    std::fs::remove_file(&text).unwrap();
    assert_eq!(refused(&claims, "--output", &text, ["--output", "--text"]), "OutputIsInput");
    claims.output("--output", &folder.join("missing")).unwrap();
}

#[test]
fn w6_whatever_is_opened_is_an_input_once_all_reads_are_watched() {
    const TEST: &str = "claims::w6_whatever_is_opened_is_an_input_once_all_reads_are_watched";
    // In a process of its own, since the watch never ends.
    let folder = Folder::new("c_watch");
    if let Some(path) = common::part() {
        let claims = Claims::default();
        claims.watch_all_reads();
        let at = |name: &str| path.join(name);
        std::fs::write(at("shard"), b"1").unwrap();
        drop(InputFile::open(&at("shard")).unwrap());
        drop(InputFile::open(&at("shard")).unwrap());
        assert_eq!(claims.files_read(), [at("shard")]);
        assert_eq!(refused(&claims, "--output", &at("shard"), ["--output", "shard"]), "OutputIsInput");
        // Reading back what is being written, or what an output replaces, makes no input of it.
        std::fs::write(at("kept"), b"old").unwrap();
        let file = OutputFile::create(&at("kept"), &options(&claims, "--statistics")).unwrap();
        file.write_all_at(0, b"new").unwrap();
        drop(InputFile::open(&at("kept")).unwrap());
        drop(InputFile::open(file.temp_path()).unwrap());
        assert_eq!(claims.files_read(), [at("shard")]);
        file.commit().unwrap();
        // Opened between the beginning and the end of an output, by another name.
        let late = OutputFile::create(&at("late"), &options(&claims, "--csv")).unwrap();
        std::fs::write(at("other"), b"precious").unwrap();
        drop(InputFile::open(&at("other")).unwrap());
        std::fs::hard_link(at("other"), at("late")).unwrap();
        assert_eq!(late.commit().unwrap_err().kind(), "OutputIsInput");
        return;
    }
    let output = common::child(TEST, folder.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}
