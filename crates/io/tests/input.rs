//! Inputs that are no files (F1), that change while they are read (F2, W10), or that are hard to map (W11): `docs/bad-inputs.md`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test support may fail loudly")]

use crate::common;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use crate::common::Folder;
use rwkv_forge_io::{Backend, InputFile, IoError};
use rwkv_forge_tensor::{Class, Diagnostic};

/// Opens in another thread, so that a hanging open fails the test instead of stopping it.
fn kind_of_open(path: &Path) -> &'static str {
    let (sender, receiver) = mpsc::channel();
    let path = path.to_path_buf();
    std::thread::spawn(move || sender.send(InputFile::open(&path).map(|_| ()).map_err(|e| (e.kind(), e.class()))));
    match receiver.recv_timeout(Duration::from_secs(5)).expect("opening hangs") {
        Ok(()) => "opened",
        Err((kind, class)) => {
            assert_eq!(class, Class::Io);
            kind
        }
    }
}

#[test]
fn f1_a_directory_is_no_file() {
    let folder = Folder::new("f1_directory");
    assert_eq!(kind_of_open(folder.path()), "NotARegularFile");
}

#[test]
fn f1_a_fifo_does_not_hang() {
    let folder = Folder::new("f1_fifo");
    let fifo = folder.join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o644)).unwrap();
    assert_eq!(kind_of_open(&fifo), "NotARegularFile");
    let link = folder.join("link");
    symlink(&fifo, &link).unwrap();
    assert_eq!(kind_of_open(&link), "NotARegularFile");
}

#[test]
fn f1_a_device_is_no_file() {
    assert_eq!(kind_of_open(Path::new("/dev/zero")), "NotARegularFile");
    assert_eq!(kind_of_open(Path::new("/dev/null")), "NotARegularFile");
}

#[test]
fn f1_a_socket_is_no_file() {
    // Socket paths are limited to about 100 bytes, so not in the test's folder.
    let path = std::env::temp_dir().join(format!("forge-io-{}.sock", std::process::id()));
    let _absent = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let kind = kind_of_open(&path);
    drop(listener);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(kind, "NotARegularFile");
}

#[test]
fn f1_nothing_and_dangling_links_are_not_found() {
    let folder = Folder::new("f1_nothing");
    assert_eq!(kind_of_open(&folder.join("absent")), "NotFound");
    assert_eq!(kind_of_open(&folder.file("file", b"x").join("below")), "NotFound");
    let link = folder.join("link");
    symlink(folder.join("absent"), &link).unwrap();
    assert_eq!(kind_of_open(&link), "NotFound");
    let message = InputFile::open(&link).unwrap_err().to_string();
    assert!(message.contains("symbolic link that leads nowhere"), "{message}");
}

#[test]
#[ignore = "needs a user other than root, or root that may become one"]
fn f1_an_unreadable_file_is_denied() {
    if let Some(path) = common::part() {
        // The file is what cannot be read, not a folder on the way to it.
        assert!(std::fs::read_dir(path.parent().unwrap()).is_ok(), "{} cannot be listed", path.display());
        assert_eq!(kind_of_open(&path), "PermissionDenied");
        return;
    }
    let folder = Folder::new("f1_unreadable");
    let path = folder.file("secret", b"x");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).unwrap();
    common::as_somebody("input::f1_an_unreadable_file_is_denied", &path);
}

#[test]
fn f1_a_link_to_a_file_is_followed() {
    let folder = Folder::new("f1_link");
    let file = folder.file("file", b"abc");
    let link = folder.join("link");
    symlink(&file, &link).unwrap();
    let input = InputFile::open(&link).unwrap();
    assert_eq!((input.len(), input.path()), (3, link.as_path()));
    assert_eq!(input.read_vec(1, 2, 2).unwrap(), b"bc");
}

/// Longer than one piece of a sequential pass, and no round number.
const LENGTH: usize = 2_500_007;

fn content() -> Vec<u8> {
    (0..LENGTH).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect()
}

/// Opens a file with both backends, lets `change` at it, and returns the kinds of: a read at the start, a read at the
/// end, a comparison, a sequential pass.
fn after_change(test: &str, change: impl Fn(&Path)) -> Vec<[&'static str; 4]> {
    let folder = Folder::new(test);
    let kind = |result: Result<(), IoError>| result.map_or_else(|e| e.kind(), |()| "ok");
    let observe = |backend| {
        let path = folder.file("input", &content());
        let input = InputFile::open_with(&path, backend).unwrap();
        assert_eq!(input.backend(), backend);
        let mut out = [0u8; 16];
        input.read_exact_at(0, &mut out).unwrap();
        input.check_unchanged().unwrap();
        // A modification in the same tick of the file system's clock as the creation would be invisible.
        std::thread::sleep(Duration::from_millis(30));
        change(&path);
        [
            kind(input.read_exact_at(0, &mut out)),
            kind(input.read_exact_at(LENGTH as u64 - 16, &mut out)),
            kind(input.check_unchanged()),
            kind(input.sha256(&|_| (), &mut |_, _| ()).map(|_| ())),
        ]
    };
    vec![observe(Backend::Pread), observe(Backend::Mmap)]
}

fn reopen(path: &Path) -> File {
    OpenOptions::new().write(true).open(path).unwrap()
}

#[test]
fn f2_the_file_grows() {
    let kinds = after_change("f2_grows", |path| OpenOptions::new().append(true).open(path).unwrap().write_all(b"more").unwrap());
    assert_eq!(kinds, vec![["InputChanged"; 4]; 2]);
}

#[test]
fn f2_w10_the_file_shrinks_under_a_map_and_nobody_dies() {
    let kinds = after_change("f2_shrinks", |path| reopen(path).set_len(4096).unwrap());
    assert_eq!(kinds, vec![["InputChanged"; 4]; 2]);
    let kinds = after_change("f2_empties", |path| reopen(path).set_len(0).unwrap());
    assert_eq!(kinds, vec![["InputChanged"; 4]; 2]);
}

#[test]
fn f2_the_file_is_rewritten_in_place() {
    let kinds = after_change("f2_rewritten", |path| reopen(path).write_all_at(b"!", 7).unwrap());
    assert_eq!(kinds, vec![["InputChanged"; 4]; 2]);
}

#[test]
fn f2_the_file_is_replaced_by_another_of_the_same_length() {
    let kinds = after_change("f2_replaced", |path| {
        let other = path.with_extension("new");
        std::fs::write(&other, vec![7u8; LENGTH]).unwrap();
        std::fs::rename(&other, path).unwrap();
    });
    // The open handle still shows the old file, whole: reads are right, and only the comparison by path can tell.
    assert_eq!(kinds, vec![["ok", "ok", "InputChanged", "InputChanged"]; 2]);
}

#[test]
fn f2_the_file_is_removed() {
    let kinds = after_change("f2_removed", |path| std::fs::remove_file(path).unwrap());
    assert_eq!(kinds, vec![["ok", "ok", "InputChanged", "InputChanged"]; 2]);
}

#[test]
fn f2_a_change_in_the_middle_of_a_pass_is_noticed_before_its_bytes_are_used() {
    let folder = Folder::new("f2_middle");
    let path = folder.file("input", &content());
    let input = InputFile::open(&path).unwrap();
    std::thread::sleep(Duration::from_millis(30));
    let mut seen = 0usize;
    let result = input.sha256(&|_| (), &mut |offset, piece| {
        if offset == 0 {
            reopen(&path).write_all_at(&[0xff; 64], LENGTH as u64 - 64).unwrap();
        }
        seen += piece.len();
    });
    assert_eq!(result.unwrap_err().kind(), "InputChanged");
    assert!(seen < LENGTH, "all {seen} bytes were handed out although the last ones had changed");
}

#[test]
fn reads_are_the_same_bytes_through_both_backends() {
    let folder = Folder::new("both");
    let bytes = content();
    let path = folder.file("input", &bytes);
    for backend in [Backend::Pread, Backend::Mmap] {
        let input = InputFile::open_with(&path, backend).unwrap();
        for (offset, len) in [(0, 1), (0, LENGTH), (1, 4096), (LENGTH - 1, 1), (LENGTH, 0), (12_345, 1_000_000)] {
            let mut out = vec![0u8; len];
            input.read_exact_at(offset as u64, &mut out).unwrap();
            assert_eq!(out, bytes[offset..offset + len], "{backend:?} {offset}+{len}");
        }
        // From `sha256sum` of the same bytes, so that hashing and reading order are both pinned.
        let mut pieces = Vec::new();
        let progress = std::sync::atomic::AtomicU64::new(0);
        let count = |n| {
            progress.fetch_add(n, std::sync::atomic::Ordering::Relaxed);
        };
        let digest = input.sha256(&count, &mut |offset, piece| pieces.push((offset, piece.len() as u64))).unwrap();
        assert_eq!(digest, "f14401173098d46b85b2e9438a698d47026e35335faf7f0090a416ad51a3c248");
        assert_eq!(progress.into_inner(), LENGTH as u64);
        let mut next = 0;
        for (offset, len) in pieces {
            assert_eq!(offset, next);
            next += len;
        }
        assert_eq!(next, LENGTH as u64);
    }
}

#[test]
fn ranges_outside_the_file_are_refused_before_anything_is_allocated() {
    let folder = Folder::new("ranges");
    let input = InputFile::open(&folder.file("input", b"0123456789")).unwrap();
    let mut out = [0u8; 4];
    for offset in [7, 10, 11, u64::MAX - 3, u64::MAX] {
        assert_eq!(input.read_exact_at(offset, &mut out).unwrap_err().kind(), "Truncated", "{offset}");
    }
    assert_eq!(input.read_vec(0, 11, 100).unwrap_err().kind(), "Truncated");
    assert_eq!(input.read_vec(0, 11, 10).unwrap_err().kind(), "TooLarge");
    assert_eq!(input.read_vec(0, u64::MAX, u64::MAX).unwrap_err().kind(), "Truncated");
    assert_eq!(input.read_vec(u64::MAX, u64::MAX, u64::MAX).unwrap_err().kind(), "Truncated");
    assert_eq!(input.read_vec(3, 4, 4).unwrap(), b"3456");
    assert_eq!(input.read_vec(10, 0, 0).unwrap(), b"");
}

#[test]
fn w10_w11_an_empty_file_is_never_mapped() {
    let folder = Folder::new("empty");
    let input = InputFile::open_with(&folder.file("input", b""), Backend::Mmap).unwrap();
    assert_eq!(input.backend(), Backend::Pread);
    assert_eq!(input.read_exact_at(0, &mut [0u8]).unwrap_err().kind(), "Truncated");
    let digest = input.sha256(&|_| (), &mut |_, _| ()).unwrap();
    assert_eq!(digest, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

#[test]
fn w11_without_address_space_reading_goes_on_through_the_handle() {
    if let Some(path) = common::part() {
        let whole = InputFile::open_with(&path, Backend::Mmap).unwrap();
        assert_eq!(whole.backend(), Backend::Pread, "64 GiB were mapped although only 4 GiB may be");
        let mut out = [1u8; 8];
        whole.read_exact_at(whole.len() - 8, &mut out).unwrap();
        assert_eq!(out, [0u8; 8]);
        return;
    }
    let folder = Folder::new("w11");
    let path = folder.join("sparse");
    File::create(&path).unwrap().set_len(64 << 30).unwrap();
    let mut child = std::process::Command::new("sh");
    child.args(["-c", "ulimit -v 4194304; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
    child.args(["input::w11_without_address_space_reading_goes_on_through_the_handle", "--exact"]).env("FORGE_IO_PART", &path);
    let output = child.output().unwrap();
    common::assert_passed(&output);
}

#[test]
fn w19_offsets_beyond_four_gib() {
    let folder = Folder::new("w19_input");
    let path: PathBuf = folder.join("sparse");
    let file = File::create(&path).unwrap();
    let far = (5u64 << 30) + 3;
    file.write_all_at(b"far away", far).unwrap();
    drop(file);
    for backend in [Backend::Pread, Backend::Mmap] {
        let input = InputFile::open_with(&path, backend).unwrap();
        assert_eq!(input.len(), far + 8);
        assert_eq!(input.read_vec(far, 8, 8).unwrap(), b"far away", "{backend:?}");
        // Where an offset cut to 32 bits would have ended up.
        assert_eq!(input.read_vec(far & 0xffff_ffff, 8, 8).unwrap(), [0u8; 8], "{backend:?}");
    }
}

#[test]
fn the_same_file_is_recognised_under_other_names() {
    let folder = Folder::new("identity");
    let path = folder.file("a", b"x");
    let (hard, soft) = (folder.join("hard"), folder.join("soft"));
    std::fs::hard_link(&path, &hard).unwrap();
    symlink(&path, &soft).unwrap();
    let other = InputFile::open(&folder.file("b", b"x")).unwrap().identity();
    let first = InputFile::open(&path).unwrap().identity();
    for name in [hard, soft] {
        assert!(first.same_file(&InputFile::open(&name).unwrap().identity()));
    }
    assert!(!first.same_file(&other));
}
