//! Parts appear all or not at all, whatever happens on the way (W2 to W5, W22, W23 of `docs/bad-inputs.md`, for files side by side).
#![allow(clippy::unwrap_used, clippy::panic, reason = "test support may fail loudly")]

use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::common::Folder;
use rwkv_forge_io::{Claims, IoError, OutputOptions, OutputParts};
use rwkv_forge_tensor::Diagnostic;

const FORCE: OutputOptions<'static> = OutputOptions { force: true, claims: None, role: "", expected_bytes: 0 };
const NEW: OutputOptions<'static> = OutputOptions { force: false, claims: None, role: "", expected_bytes: 0 };

fn names() -> [OsString; 3] {
    ["out-1", "out-2", "out-3"].map(Into::into)
}

fn create(folder: &Folder, options: &OutputOptions<'_>) -> Result<OutputParts, IoError> {
    OutputParts::create(&folder.join("out"), &names(), options, |name| name.starts_with("out-") && name.len() == 5)
}

/// Writes three files that hold `byte`, and does something before they take their names.
fn write(folder: &Folder, options: &OutputOptions<'_>, byte: u8, before: impl FnOnce()) -> Result<(), IoError> {
    let parts = create(folder, options)?;
    let files: Vec<_> = names().iter().map(|name| parts.file(name, 10).unwrap()).collect();
    for file in &files {
        file.write_all_at(0, &[byte; 10])?;
    }
    before();
    parts.commit(files)
}

fn contents(folder: &Folder) -> Vec<(String, u8)> {
    folder.names().into_iter().map(|name| (name.clone(), std::fs::read(folder.join(&name)).unwrap()[0])).collect()
}

fn all(byte: u8) -> Vec<(String, u8)> {
    ["out-1", "out-2", "out-3"].map(|name| (name.to_owned(), byte)).to_vec()
}

fn kind<T>(result: Result<T, IoError>) -> &'static str {
    result.map_or_else(|error| error.kind(), |_| "ok")
}

#[test]
fn all_appear_and_nothing_else() {
    let folder = Folder::new("p_commit");
    write(&folder, &NEW, 1, || ()).unwrap();
    assert_eq!(contents(&folder), all(1));
    write(&folder, &FORCE, 2, || ()).unwrap();
    assert_eq!(contents(&folder), all(2), "what is replaced leaves no trace");
}

#[test]
fn dropping_leaves_no_trace() {
    let folder = Folder::new("p_drop");
    let parts = create(&folder, &NEW).unwrap();
    let file = parts.file(&names()[0], 5).unwrap();
    file.write_all_at(0, b"bytes").unwrap();
    assert_eq!(parts.file("other".as_ref(), 5).unwrap_err().kind(), "OutputDirectory", "names are those that were given");
    drop((file, parts));
    assert_eq!(folder.names(), Vec::<String>::new());
}

#[test]
fn any_that_exists_is_a_refusal_before_and_after_the_work() {
    for name in ["out-1", "out-2", "out-3"] {
        let folder = Folder::new(&format!("p_exists_{name}"));
        std::fs::write(folder.join(name), [9]).unwrap();
        assert_eq!(kind(create(&folder, &NEW)), "OutputExists", "{name}");
        assert_eq!(contents(&folder), [(name.to_owned(), 9)]);
        std::fs::remove_file(folder.join(name)).unwrap();
        // Somebody makes it while the work is done: those that have their names already lose them again.
        let late = write(&folder, &NEW, 1, || std::fs::write(folder.join(name), [9]).unwrap());
        assert_eq!(kind(late), "OutputExists", "{name}");
        assert_eq!(contents(&folder), [(name.to_owned(), 9)]);
    }
}

#[test]
fn what_fails_in_the_middle_brings_the_old_files_back() {
    let folder = Folder::new("p_middle");
    write(&folder, &NEW, 1, || ()).unwrap();
    let parts = create(&folder, &FORCE).unwrap();
    let files: Vec<_> = names().iter().map(|name| parts.file(name, 10).unwrap()).collect();
    files.iter().for_each(|file| file.write_all_at(0, &[2; 10]).unwrap());
    // The new first file is gone, so that it cannot take its name after the others have.
    std::fs::remove_file(parts.temp_path().join("out-1")).unwrap();
    assert_eq!(kind(parts.commit(files)), "Write");
    assert_eq!(contents(&folder), all(1));
}

#[test]
fn only_plain_files_are_replaced_and_no_inputs() {
    let folder = Folder::new("p_targets");
    std::fs::create_dir(folder.join("out-2")).unwrap();
    assert_eq!(kind(create(&folder, &FORCE)), "OutputNotRegular");
    std::fs::remove_dir(folder.join("out-2")).unwrap();
    std::fs::write(folder.join("source"), "a source").unwrap();
    symlink(folder.join("source"), folder.join("out-3")).unwrap();
    assert_eq!(kind(create(&folder, &FORCE)), "OutputNotRegular");
    let claims = Claims::default();
    claims.input("SOURCE", &folder.join("source"));
    let claimed = OutputOptions { claims: Some(&claims), role: "--output", ..FORCE };
    assert_eq!(kind(create(&folder, &claimed)), "OutputIsInput");
    assert_eq!(std::fs::read(folder.join("source")).unwrap(), b"a source");
}

#[test]
fn abandoned_directories_are_removed_unless_something_else_is_in_them() {
    let folder = Folder::new("p_abandoned");
    let leave = |number: u32, name: &str| {
        let abandoned = folder.join(&format!(".out.1.{number}.tmp"));
        std::fs::create_dir(&abandoned).unwrap();
        std::fs::write(abandoned.join(name), [7]).unwrap();
    };
    // A part of any number, and a file that was about to be replaced.
    leave(0, "out-9");
    leave(1, "out-1.replaced");
    write(&folder, &NEW, 1, || ()).unwrap();
    assert_eq!(folder.names(), [".out.1.1.tmp", "out-1", "out-2", "out-3"]);
    assert!(Path::new(&folder.join(".out.1.1.tmp")).join("out-1.replaced").exists());
}
