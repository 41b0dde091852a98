//! Directories appear whole or not at all, whatever happens on the way (W1 to W9, W22, W23 of
//! `docs/bad-inputs.md`, for several files).
#![allow(clippy::unwrap_used, clippy::panic, reason = "test support may fail loudly")]

use crate::common;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::common::Folder;
use rwkv_forge_io::{Claims, IoError, MANIFEST, OutputDirectory, OutputOptions, manifest};
use rwkv_forge_tensor::{Class, Diagnostic};

const FORCE: OutputOptions<'static> = OutputOptions { force: true, claims: None, role: "", expected_bytes: 0 };
const NEW: OutputOptions<'static> = OutputOptions { force: false, claims: None, role: "", expected_bytes: 0 };

/// A writer of files with names of one letter.
fn create(path: &Path, options: &OutputOptions<'_>) -> Result<OutputDirectory, IoError> {
    OutputDirectory::create(path, options, |name| name.len() == 1)
}

fn kind<T>(result: Result<T, IoError>) -> &'static str {
    result.map_or_else(|error| error.kind(), |_| "ok")
}

/// Writes two files that hold `byte`, and commits.
fn write(path: &Path, options: &OutputOptions<'_>, byte: u8) -> Result<(), IoError> {
    let directory = create(path, options)?;
    let files = ["a", "b"].map(|name| directory.file(name, 1000).unwrap());
    for file in &files {
        file.set_len(1000)?;
        file.write_all_at(0, &[byte; 400])?;
        file.write_all_at(400, &[byte; 600])?;
    }
    directory.commit(files.into())
}

/// The one byte that both files consist of.
fn content(path: &Path) -> u8 {
    let files = ["a", "b"].map(|name| std::fs::read(path.join(name)).unwrap());
    let first = files[0][0];
    assert!(files.iter().all(|file| file.len() == 1000 && file.iter().all(|byte| *byte == first)), "a mixture");
    first
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_committed_directory_has_exactly_the_files() {
    let folder = Folder::new("d_commit");
    let path = folder.join("out");
    let directory = create(&path, &NEW).unwrap();
    assert_eq!(directory.temp_path().parent(), Some(folder.path()), "the temporary is a sibling (W9)");
    let file = directory.file("config.json", 2).unwrap();
    file.write_all_at(0, b"{}").unwrap();
    let dropped = directory.file("dropped", 2).unwrap();
    drop(dropped);
    assert!(!path.exists(), "nothing has the name before the commit");
    assert_eq!(std::fs::read(directory.temp_path().join("config.json")).unwrap(), b"{}", "readers find the files before");
    directory.commit(vec![file]).unwrap();
    assert_eq!((names(&path), folder.names()), (vec!["config.json".to_owned()], vec!["out".to_owned()]));
}

#[test]
fn dropping_leaves_no_trace_and_the_old_output() {
    let folder = Folder::new("d_drop");
    let path = folder.join("out");
    write(&path, &NEW, 1).unwrap();
    let directory = create(&path, &FORCE).unwrap();
    let file = directory.file("a", 5).unwrap();
    file.write_all_at(0, b"bytes").unwrap();
    assert_eq!(folder.names().len(), 2);
    drop(directory);
    drop(file);
    assert_eq!((content(&path), folder.names()), (1, vec!["out".to_owned()]));
}

#[test]
fn w1_too_little_space_is_said_before_anything_is_written() {
    let folder = Folder::new("d_w1");
    let error = create(&folder.join("out"), &OutputOptions { expected_bytes: 1 << 60, ..NEW }).err().unwrap();
    assert_eq!(error.kind(), "NoSpace");
    assert_eq!(folder.names(), Vec::<String>::new());
}

#[test]
fn w2_killed_at_fifty_moments() {
    const TEST: &str = "directory::w2_killed_at_fifty_moments";
    if let Some(path) = common::part() {
        for round in (1u8..0xee).cycle() {
            write(&path, &FORCE, round).unwrap();
        }
    }
    let folder = Folder::new("d_w2");
    let path = folder.join("out");
    let mut strays = 0;
    for moment in 0..50u64 {
        write(&path, &FORCE, 0xee).unwrap();
        let mut child = common::child(TEST, &path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        for _ in 0..20_000 {
            if std::fs::read(path.join("a")).is_ok_and(|bytes| bytes.first() != Some(&0xee)) {
                break;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        std::thread::sleep(Duration::from_micros(353 * moment));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(names(&path), ["a", "b"], "moment {moment}");
        content(&path);
        strays += folder.names().len() - 1;
        drop(create(&path, &FORCE).unwrap());
        assert_eq!(folder.names(), ["out"], "moment {moment}: the stray temporary is still there");
    }
    assert!(strays > 0, "no kill hit a running write, so nothing was tested");
}

#[test]
fn w2_only_abandoned_directories_of_the_same_output_are_removed() {
    let folder = Folder::new("d_w2_others");
    let path = folder.join("out");
    let running = create(&path, &NEW).unwrap();
    let alive = running.temp_path().file_name().unwrap().to_str().unwrap().to_owned();
    for name in [".out.999999999.0.tmp", ".out.0.tmp", ".other.999999999.0.tmp", ".out.1.2.old.tmp"] {
        std::fs::create_dir(folder.join(name)).unwrap();
        std::fs::write(folder.join(name).join("x"), b"x").unwrap();
    }
    std::fs::create_dir(folder.join("elsewhere")).unwrap();
    symlink(folder.join("elsewhere"), folder.join(".out.999999997.0.tmp")).unwrap();
    // By its name one of ours, by what is in it somebody's.
    std::fs::create_dir_all(folder.join(".out.999999998.0.tmp/deep")).unwrap();
    std::fs::create_dir(folder.join(".out.999999996.0.tmp")).unwrap();
    std::fs::write(folder.join(".out.999999996.0.tmp/thesis"), b"x").unwrap();
    drop(create(&path, &NEW).unwrap());
    let mut expected = vec![
        ".other.999999999.0.tmp",
        ".out.0.tmp",
        ".out.1.2.old.tmp",
        ".out.999999996.0.tmp",
        ".out.999999997.0.tmp",
        ".out.999999998.0.tmp",
        alive.as_str(),
        "elsewhere",
    ];
    expected.sort_unstable();
    assert_eq!(folder.names(), expected);
    running.commit(Vec::new()).unwrap();
    assert_eq!(names(&path), Vec::<String>::new());
}

#[test]
fn w3_live_directories_are_removed_at_once_and_cannot_be_committed() {
    const TEST: &str = "directory::w3_live_directories_are_removed_at_once_and_cannot_be_committed";
    // In a process of its own: other tests' temporaries must survive.
    if let Some(path) = common::part() {
        let directory = create(&path, &FORCE).unwrap();
        let file = directory.file("a", 1).unwrap();
        file.write_all_at(0, b"x").unwrap();
        rwkv_forge_io::remove_temporaries();
        assert!(!directory.temp_path().exists());
        assert_eq!(kind(directory.commit(vec![file])), "Write");
        return;
    }
    let folder = Folder::new("d_w3");
    let path = folder.join("out");
    write(&path, &NEW, 7).unwrap();
    let output = common::child(TEST, &path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((content(&path), folder.names()), (7, vec!["out".to_owned()]));
}

#[test]
fn w5_an_existing_directory_is_replaced_only_on_request_and_as_a_whole() {
    let folder = Folder::new("d_w5");
    let path = folder.join("out");
    write(&path, &NEW, 1).unwrap();
    std::fs::write(path.join("c"), b"of another version").unwrap();
    assert_eq!(kind(write(&path, &NEW, 2)), "OutputExists");
    assert_eq!(content(&path), 1);
    write(&path, &FORCE, 3).unwrap();
    assert_eq!((content(&path), names(&path), folder.names()), (3, vec!["a".to_owned(), "b".to_owned()], vec!["out".to_owned()]));
    // With a slash at the end it is the same directory.
    let slash = Path::new(&format!("{}/", path.display())).to_path_buf();
    write(&slash, &FORCE, 4).unwrap();
    assert_eq!(content(&path), 4);
}

#[test]
fn w5_a_directory_that_is_somebodys_own_is_never_replaced() {
    let folder = Folder::new("d_w5_own");
    let path = folder.join("home");
    std::fs::create_dir_all(path.join("letters")).unwrap();
    std::fs::write(path.join("letters/one"), b"dear").unwrap();
    let error = write(&path, &FORCE, 1).unwrap_err();
    assert!(error.kind() == "ForeignFiles" && error.to_string().contains("letters/"), "{error}");
    assert_eq!(std::fs::read(path.join("letters/one")).unwrap(), b"dear");
    std::fs::remove_dir_all(path.join("letters")).unwrap();
    symlink("/etc", path.join("link")).unwrap();
    assert_eq!(kind(write(&path, &FORCE, 1)), "ForeignFiles");
    // Found out late, too: the folder appeared while the files were written.
    std::fs::remove_file(path.join("link")).unwrap();
    let directory = create(&path, &FORCE).unwrap();
    std::fs::create_dir(path.join("new")).unwrap();
    assert_eq!(kind(directory.commit(Vec::new())), "ForeignFiles");
    assert_eq!((names(&path), folder.names()), (vec!["new".to_owned()], vec!["home".to_owned()]));
}

#[test]
fn w5_a_file_that_is_not_of_our_writing_keeps_its_directory() {
    let folder = Folder::new("d_w5_foreign");
    let path = folder.join("out");
    write(&path, &NEW, 1).unwrap();
    for name in ["thesis.tex", "notes", "zz", "photo.raw"] {
        std::fs::write(path.join(name), b"mine").unwrap();
    }
    let error = write(&path, &FORCE, 2).unwrap_err();
    assert_eq!((error.kind(), error.class()), ("ForeignFiles", Class::Usage));
    assert!(error.to_string().contains(r#""notes", "photo.raw", "thesis.tex" and 1 more"#), "{error}");
    assert_eq!((content(&path), std::fs::read(path.join("thesis.tex")).unwrap()), (1, b"mine".to_vec()));
    // A manifest decides alone: what it does not list is foreign, whatever its name; what it lists is ours.
    for name in ["thesis.tex", "zz", "photo.raw"] {
        std::fs::remove_file(path.join(name)).unwrap();
    }
    std::fs::write(path.join(MANIFEST), manifest(["a", "notes"])).unwrap();
    let error = write(&path, &FORCE, 2).unwrap_err();
    assert!(error.kind() == "ForeignFiles" && error.to_string().contains(r#": "b";"#), "{error}");
    std::fs::write(path.join(MANIFEST), manifest(["a", "b", "notes"])).unwrap();
    // Found out late, too: the file appeared while the files were written.
    let directory = create(&path, &FORCE).unwrap();
    std::fs::write(path.join("late"), b"mine").unwrap();
    assert_eq!(kind(directory.commit(Vec::new())), "ForeignFiles");
    assert_eq!(std::fs::read(path.join("late")).unwrap(), b"mine");
    std::fs::remove_file(path.join("late")).unwrap();
    write(&path, &FORCE, 3).unwrap();
    assert_eq!((content(&path), names(&path)), (3, vec!["a".to_owned(), "b".to_owned()]));
    // One that cannot be read is no manifest, and its own name is no name of ours then.
    std::fs::write(path.join(MANIFEST), b"\xff\n").unwrap();
    assert_eq!(kind(write(&path, &FORCE, 4)), "ForeignFiles");
}

#[test]
fn w6_a_directory_that_holds_an_input_is_never_replaced() {
    let folder = Folder::new("d_w6");
    let path = folder.join("model");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("model.safetensors"), b"input").unwrap();
    let claims = Claims::default();
    claims.input("SOURCE", &path.join("model.safetensors"));
    let options = OutputOptions { claims: Some(&claims), role: "--output", ..FORCE };
    assert_eq!(kind(create(&path, &options)), "OutputIsInput");
    // By another name of the directory, by a hard link, by a symbolic link in it, and as the file itself.
    std::fs::create_dir(folder.join("other")).unwrap();
    std::fs::hard_link(path.join("model.safetensors"), folder.join("other/weights")).unwrap();
    assert_eq!(kind(create(&folder.join("other"), &options)), "OutputIsInput");
    std::fs::create_dir(folder.join("third")).unwrap();
    symlink(path.join("model.safetensors"), folder.join("third/weights")).unwrap();
    assert_eq!(kind(create(&folder.join("third"), &options)), "OutputIsInput");
    assert_eq!(kind(create(&path.join("model.safetensors"), &options)), "OutputIsInput");
    assert_eq!(std::fs::read(path.join("model.safetensors")).unwrap(), b"input");
}

#[test]
fn w7_w8_names_that_cannot_be_written() {
    let folder = Folder::new("d_w7");
    assert_eq!(kind(create(&folder.join("missing/out"), &NEW)), "OutputDirectory");
    assert_eq!(kind(create(Path::new("/"), &FORCE)), "ForeignFiles");
    assert_eq!(kind(create(&folder.join(".."), &FORCE)), "ForeignFiles");
    assert_eq!(kind(create(&folder.join(&"n".repeat(300)), &NEW)), "OutputDirectory");
    let file = folder.file("file", b"somebody's");
    assert_eq!(kind(create(&file, &FORCE)), "OutputNotRegular");
    assert_eq!(kind(create(&file.join("out"), &FORCE)), "OutputDirectory");
    std::fs::create_dir(folder.join("real")).unwrap();
    symlink(folder.join("real"), folder.join("link")).unwrap();
    assert_eq!(kind(create(&folder.join("link"), &FORCE)), "OutputNotRegular");
    let directory = create(&folder.join("out"), &NEW).unwrap();
    for name in ["../escape", "sub/file", "", ".", ".."] {
        assert_eq!(kind(directory.file(name, 0)), "OutputDirectory", "{name:?}");
    }
}

#[test]
#[ignore = "needs a user other than root, or root that may become one"]
fn w7_a_read_only_parent_fails_at_once() {
    if let Some(folder) = common::part() {
        assert!(std::fs::read_dir(&folder).is_ok(), "{} cannot be listed", folder.display());
        assert_eq!(kind(create(&folder.join("out"), &NEW)), "OutputDirectory");
        return;
    }
    let folder = Folder::new("d_w7_read_only");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
    common::as_somebody("directory::w7_a_read_only_parent_fails_at_once", folder.path());
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn w22_of_two_writers_one_wins_whole() {
    let folder = Folder::new("d_w22");
    let path = folder.join("out");
    let (first, second) = (create(&path, &NEW).unwrap(), create(&path, &NEW).unwrap());
    let fill = |directory: &OutputDirectory, byte: u8| {
        ["a", "b"].map(|name| {
            let file = directory.file(name, 1000).unwrap();
            file.write_all_at(0, &[byte; 1000]).unwrap();
            file
        })
    };
    let (one, two) = (fill(&first, 1), fill(&second, 2));
    second.commit(two.into()).unwrap();
    assert_eq!(kind(first.commit(one.into())), "OutputExists");
    assert_eq!((content(&path), folder.names()), (2, vec!["out".to_owned()]));
}

#[test]
fn w23_the_umask_decides_permissions() {
    let folder = Folder::new("d_w23");
    let path = folder.join("out");
    write(&path, &NEW, 1).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    std::fs::create_dir(folder.join("plain")).unwrap();
    std::fs::write(folder.join("plain/file"), b"").unwrap();
    assert_eq!((mode(&path), mode(&path.join("a"))), (mode(&folder.join("plain")), mode(&folder.join("plain/file"))));
}
