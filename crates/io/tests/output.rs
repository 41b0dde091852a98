//! Outputs appear whole or not at all, whatever happens on the way (W1 to W9, W19, W20, W22, W23 of `docs/bad-inputs.md`).
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test support may fail loudly")]

use crate::common;

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use crate::common::Folder;
use rwkv_forge_io::{Claims, InputFile, IoError, OutputFile, OutputOptions, RawFile};
use rwkv_forge_tensor::{Class, Diagnostic};

const FORCE: OutputOptions<'static> = OutputOptions { force: true, claims: None, role: "", expected_bytes: 0 };
const NEW: OutputOptions<'static> = OutputOptions { force: false, claims: None, role: "", expected_bytes: 0 };

fn kind<T>(result: Result<T, IoError>) -> &'static str {
    result.map_or_else(|e| e.kind(), |_| "ok")
}

#[test]
fn a_committed_output_has_exactly_the_written_bytes() {
    let folder = Folder::new("commit");
    let path = folder.join("out");
    let output = OutputFile::create(&path, &NEW).unwrap();
    assert_eq!(output.temp_path().parent(), Some(folder.path()), "the temporary is a sibling (W9)");
    output.set_len(12).unwrap();
    output.write_all_at(8, b"tail").unwrap();
    output.write_all_at(0, b"head").unwrap();
    assert!(!path.exists(), "nothing has the name before the commit");
    output.commit().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"head\0\0\0\0tail");
    assert_eq!(folder.names(), ["out"]);
}

#[test]
fn dropping_leaves_no_trace() {
    let folder = Folder::new("drop");
    let output = OutputFile::create(&folder.join("out"), &NEW).unwrap();
    output.write_all_at(0, b"bytes").unwrap();
    assert_eq!(folder.names().len(), 1);
    drop(output);
    assert_eq!(folder.names(), Vec::<String>::new());
}

/// A file whose n-th byte cannot be written, or whose data or directory cannot be synced.
struct Faulty {
    file: File,
    room: AtomicU64,
    errno: i32,
    fail_sync: bool,
    fail_directory: bool,
    log: Arc<Mutex<Vec<String>>>,
}

impl Faulty {
    fn new(file: File, room: u64, errno: i32) -> Self {
        Self { file, room: AtomicU64::new(room), errno, fail_sync: false, fail_directory: false, log: Arc::default() }
    }

    fn error(&self) -> io::Error {
        io::Error::from_raw_os_error(self.errno)
    }
}

impl RawFile for Faulty {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let room = self.room.load(Ordering::Relaxed).min(bytes.len() as u64);
        if room == 0 {
            return Err(self.error());
        }
        self.room.fetch_sub(room, Ordering::Relaxed);
        FileExt::write_at(&self.file, &bytes[..usize::try_from(room).unwrap()], offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.log.lock().unwrap().push("sync data".to_owned());
        if self.fail_sync { Err(self.error()) } else { self.file.sync_all() }
    }

    fn sync_directory(&self, directory: &File) -> io::Result<()> {
        let names: Vec<String> = std::fs::read_dir(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(directory)))
            .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
            .unwrap_or_default();
        self.log.lock().unwrap().push(format!("sync directory with {}", names.join(" ")));
        if self.fail_directory { Err(self.error()) } else { directory.sync_all() }
    }
}

const ENOSPC: i32 = 28;
const EIO: i32 = 5;
const EDQUOT: i32 = 122;

/// Writes 1,000 bytes in three pieces and commits.
fn write_model(path: &Path, wrap: impl FnOnce(File) -> Box<dyn RawFile>) -> Result<(), IoError> {
    let options = OutputOptions { expected_bytes: 1000, ..FORCE };
    let output = OutputFile::create_through(path, &options, wrap)?;
    output.write_all_at(600, &[3; 400])?;
    output.write_all_at(0, &[1; 100])?;
    output.write_all_at(100, &[2; 500])?;
    output.commit()
}

#[test]
fn w1_w20_the_disk_fills_up_at_every_byte() {
    let folder = Folder::new("w1_every_byte");
    let path = folder.file("out", b"old");
    for (errno, expected) in [(ENOSPC, "NoSpace"), (EDQUOT, "NoSpace"), (EIO, "Write")] {
        for room in 0..1000 {
            let error = write_model(&path, |file| Box::new(Faulty::new(file, room, errno))).unwrap_err();
            assert_eq!((error.kind(), error.class()), (expected, Class::Io), "room for {room}");
            if expected == "NoSpace" {
                assert!(error.to_string().contains("1000 bytes needed"), "{error}");
            }
            assert_eq!(std::fs::read(&path).unwrap(), b"old", "room for {room}");
            assert_eq!(folder.names(), ["out"], "room for {room}");
        }
    }
    write_model(&path, |file| Box::new(Faulty::new(file, 1000, ENOSPC))).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), [[1; 100].as_slice(), &[2; 500], &[3; 400]].concat());
}

#[test]
fn w1_the_disk_turns_out_to_be_full_when_data_is_flushed() {
    let folder = Folder::new("w1_sync");
    let path = folder.file("out", b"old");
    let result = write_model(&path, |file| Box::new(Faulty { fail_sync: true, ..Faulty::new(file, 1000, ENOSPC) }));
    assert_eq!(kind(result), "NoSpace");
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(folder.names(), ["out"]);
}

#[test]
fn w1_too_little_space_is_said_before_anything_is_written() {
    let folder = Folder::new("w1_early");
    let wanted = 1u64 << 60;
    let error = OutputFile::create(&folder.join("out"), &OutputOptions { expected_bytes: wanted, ..NEW }).unwrap_err();
    let IoError::NoSpace { needed, free, .. } = &error else { panic!("{error}") };
    assert!(*needed == wanted && *free < wanted);
    let message = error.to_string();
    assert!(message.contains(&needed.to_string()) && message.contains(&free.to_string()), "{message}");
    assert_eq!(folder.names(), Vec::<String>::new());
}

#[test]
fn w1_the_largest_file_size_is_reached() {
    const TEST: &str = "output::w1_the_largest_file_size_is_reached";
    if let Some(path) = common::part() {
        let limit = rustix::process::Rlimit { current: Some(10_000), maximum: Some(10_000) };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
        let output = OutputFile::create(&path, &OutputOptions { expected_bytes: 20_000, ..FORCE }).unwrap();
        output.write_all_at(0, &[1; 9_000]).unwrap();
        let error = output.write_all_at(9_000, &[2; 11_000]).unwrap_err();
        assert_eq!(error.kind(), "NoSpace");
        assert!(error.to_string().contains("20000 bytes needed") && error.to_string().contains("largest file size"), "{error}");
        return;
    }
    let folder = Folder::new("w1_fsize");
    let path = folder.file("out", b"old");
    let output = common::child(TEST, &path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(folder.names(), ["out"]);
}

/// Unmounts when dropped, also when the test fails.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _left = Command::new("umount").arg(self.0).status();
    }
}

#[test]
#[ignore = "needs root that may mount a file system"]
fn w1_a_real_small_disk_fills_up() {
    let folder = Folder::new("w1_tmpfs");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(folder.path()).stderr(Stdio::null()).status();
    assert!(mounted.is_ok_and(|status| status.success()), "no file system can be mounted here");
    let _mounted = Mounted(folder.path());
    let path = folder.file("out", b"old");
    // The expectation is wrong on purpose: the early check passes, the late failure must still be handled.
    let output = OutputFile::create(&path, &OutputOptions { expected_bytes: 4096, ..FORCE }).unwrap();
    let result = output.write_all_at(0, &vec![1; 2 << 20]);
    drop(output);
    let (content, names) = (std::fs::read(&path).unwrap(), folder.names());
    let error = result.unwrap_err();
    assert_eq!(error.kind(), "NoSpace");
    assert!(error.to_string().contains(&format!("{} bytes needed", 2 << 20)), "{error}");
    assert_eq!((content.as_slice(), names), (b"old".as_slice(), vec!["out".to_owned()]));
}

/// Waits until a child has replaced the parent's content, which begins with 0xee.
fn wait_for_first_output(path: &Path) {
    for _ in 0..30_000 {
        if std::fs::read(path).unwrap().first() != Some(&0xee) {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("the child has written nothing in 30 seconds");
}

/// Bytes that the child of the kill test writes in many steps.
const WHOLE: usize = 256 << 10;

#[test]
fn w2_killed_at_fifty_moments() {
    const TEST: &str = "output::w2_killed_at_fifty_moments";
    if let Some(path) = common::part() {
        for round in (0u8..0xee).cycle() {
            let output = OutputFile::create(&path, &FORCE).unwrap();
            for step in 0..64 {
                output.write_all_at(step * (WHOLE as u64 / 64), &[round; WHOLE / 64]).unwrap();
            }
            output.commit().unwrap();
        }
    }
    let folder = Folder::new("w2");
    let mut strays = 0;
    for moment in 0..50u64 {
        let path = folder.file("out", &vec![0xee; WHOLE]);
        let mut child = common::child(TEST, &path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for_first_output(&path);
        std::thread::sleep(Duration::from_micros(353 * moment));
        child.kill().unwrap();
        child.wait().unwrap();
        let content = std::fs::read(&path).unwrap();
        let first = *content.first().unwrap();
        assert!(content.len() == WHOLE && content.iter().all(|byte| *byte == first), "moment {moment}: a mixture of two outputs");
        strays += folder.names().len() - 1;
        drop(OutputFile::create(&path, &FORCE).unwrap());
        assert_eq!(folder.names(), ["out"], "moment {moment}: the stray temporary is still there");
    }
    assert!(strays > 0, "no kill hit a running write, so nothing was tested");
}

#[test]
fn w2_only_abandoned_temporaries_of_the_same_output_are_removed() {
    let folder = Folder::new("w2_others");
    let path = folder.join("out");
    let running = OutputFile::create(&path, &NEW).unwrap();
    let alive = running.temp_path().file_name().unwrap().to_str().unwrap().to_owned();
    folder.file(".out.999999999.0.tmp", b"abandoned");
    folder.file(".out.0.tmp", b"not ours");
    folder.file(".other.999999999.0.tmp", b"of another output");
    std::fs::create_dir(folder.join(".out.999999998.0.tmp")).unwrap();
    symlink(folder.join("elsewhere"), folder.join(".out.999999997.0.tmp")).unwrap();
    drop(OutputFile::create(&path, &NEW).unwrap());
    let mut expected = vec![".other.999999999.0.tmp", ".out.0.tmp", ".out.999999997.0.tmp", ".out.999999998.0.tmp", alive.as_str()];
    expected.sort_unstable();
    assert_eq!(folder.names(), expected);
    running.write_all_at(0, b"x").unwrap();
    running.commit().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"x");
}

#[test]
fn w3_every_live_temporary_can_be_removed_at_once() {
    const TEST: &str = "output::w3_every_live_temporary_can_be_removed_at_once";
    // In a process of its own: other tests' temporaries must survive.
    if let Some(path) = common::part() {
        let folder = path.parent().unwrap();
        let count = || std::fs::read_dir(folder).unwrap().count();
        let first = OutputFile::create(&path, &FORCE).unwrap();
        let second = OutputFile::create(&folder.join("second"), &FORCE).unwrap();
        first.write_all_at(0, b"partial").unwrap();
        let done = OutputFile::create(&folder.join("done"), &FORCE).unwrap();
        done.commit().unwrap();
        assert_eq!(count(), 4);
        rwkv_forge_io::remove_temporaries();
        assert_eq!(count(), 2, "the old output and the finished one");
        assert_eq!(kind(first.commit()), "Write", "what was taken away cannot be committed");
        drop(second);
        return;
    }
    let folder = Folder::new("w3");
    let path = folder.file("out", b"old");
    let output = common::child(TEST, &path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(folder.names(), ["done", "out"]);
}

#[test]
fn w4_data_is_on_the_device_before_the_name_and_the_name_before_success() {
    let folder = Folder::new("w4");
    let path = folder.join("out");
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    let shared = Arc::clone(&log);
    write_model(&path, |file| Box::new(Faulty { log: shared, ..Faulty::new(file, 1000, EIO) })).unwrap();
    let mut steps = log.lock().unwrap().clone();
    if !Path::new("/proc/self/fd").exists() {
        steps = steps.iter().map(|step| step.replace("directory with ", "directory with out")).collect();
    }
    assert_eq!(steps, ["sync data", "sync directory with out"]);
}

#[test]
fn w4_a_directory_that_cannot_be_flushed_is_no_success() {
    let folder = Folder::new("w4_directory");
    let path = folder.join("out");
    let result = write_model(&path, |file| Box::new(Faulty { fail_directory: true, ..Faulty::new(file, 1000, EIO) }));
    assert_eq!(kind(result), "Write");
    assert_eq!(std::fs::read(&path).unwrap().len(), 1000, "the name shows the complete file all the same");
    assert_eq!(folder.names(), ["out"]);
}

#[test]
fn w5_an_existing_output_needs_force() {
    let folder = Folder::new("w5");
    let path = folder.file("out", b"old");
    let error = OutputFile::create(&path, &NEW).unwrap_err();
    assert_eq!((error.kind(), error.class()), ("OutputExists", Class::Usage));
    assert!(error.to_string().contains("--force"), "{error}");
    assert_eq!(folder.names(), ["out"]);
    let output = OutputFile::create(&path, &FORCE).unwrap();
    output.write_all_at(0, b"new").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    output.commit().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
}

#[test]
fn w5_an_output_that_appears_meanwhile_is_kept() {
    let folder = Folder::new("w5_race");
    let path = folder.join("out");
    let output = OutputFile::create(&path, &NEW).unwrap();
    folder.file("out", b"somebody else's");
    assert_eq!(kind(output.commit()), "OutputExists");
    assert_eq!(std::fs::read(&path).unwrap(), b"somebody else's");
    assert_eq!(folder.names(), ["out"]);
}

/// A folder with an input, and claims that know it.
fn with_input(test: &str) -> (Folder, PathBuf, Claims) {
    let folder = Folder::new(test);
    let path = folder.file("input", b"precious");
    let claims = Claims::default();
    claims.input("SOURCE", &path);
    (folder, path, claims)
}

fn refuses_input(folder: &Folder, output: &Path, claims: &Claims) {
    for force in [false, true] {
        let error =
            OutputFile::create(output, &OutputOptions { force, claims: Some(claims), role: "--output", expected_bytes: 0 }).unwrap_err();
        assert_eq!((error.kind(), error.class()), ("OutputIsInput", Class::Usage));
    }
    assert_eq!(std::fs::read(folder.join("input")).unwrap(), b"precious");
    assert!(!folder.names().iter().any(|name| name.ends_with(".tmp")));
}

#[test]
fn w6_output_is_the_input() {
    let (folder, path, inputs) = with_input("w6_same");
    refuses_input(&folder, &path, &inputs);
    std::fs::create_dir(folder.join("below")).unwrap();
    refuses_input(&folder, &folder.join("below/../input"), &inputs);
}

#[test]
fn w6_output_is_a_hard_link_of_the_input() {
    let (folder, path, inputs) = with_input("w6_hard");
    std::fs::hard_link(&path, folder.join("other")).unwrap();
    refuses_input(&folder, &folder.join("other"), &inputs);
}

#[test]
fn w6_output_is_a_symbolic_link_to_the_input() {
    let (folder, path, inputs) = with_input("w6_soft");
    symlink(&path, folder.join("other")).unwrap();
    refuses_input(&folder, &folder.join("other"), &inputs);
}

#[test]
fn w6_the_output_becomes_a_link_of_the_input_before_the_commit() {
    let (folder, path, inputs) = with_input("w6_late");
    let target = folder.join("out");
    let output = OutputFile::create(&target, &OutputOptions { claims: Some(&inputs), role: "--output", ..FORCE }).unwrap();
    std::fs::hard_link(&path, &target).unwrap();
    assert_eq!(kind(output.commit()), "OutputIsInput");
    assert_eq!(std::fs::read(&target).unwrap(), b"precious");
}

#[test]
fn w7_unusable_directories_and_names_fail_at_once() {
    let folder = Folder::new("w7");
    let file = folder.file("file", b"x");
    let long = "n".repeat(300);
    let cases =
        [folder.join("absent/out"), file.join("out"), folder.join(&long), folder.join("name/"), folder.join("absent/.."), "/".into()];
    for path in cases {
        let error = OutputFile::create(&path, &FORCE).unwrap_err();
        let expected = if path == Path::new("/") { "OutputNotRegular" } else { "OutputDirectory" };
        assert_eq!((error.kind(), error.class()), (expected, Class::Io), "{}", path.display());
    }
    assert_eq!(folder.names(), ["file"]);
}

#[test]
#[ignore = "needs a user other than root, or root that may become one"]
fn w7_a_read_only_directory_fails_at_once() {
    if let Some(folder) = common::part() {
        assert!(std::fs::read_dir(&folder).is_ok(), "{} cannot be listed", folder.display());
        assert_eq!(kind(OutputFile::create(&folder.join("out"), &NEW)), "OutputDirectory");
        return;
    }
    let folder = Folder::new("w7_read_only");
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o555)).unwrap();
    common::as_somebody("output::w7_a_read_only_directory_fails_at_once", folder.path());
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
#[cfg(target_os = "linux")]
fn w7_where_nobody_may_write_it_fails_at_once() {
    assert_eq!(kind(OutputFile::create(Path::new("/proc/out"), &NEW)), "OutputDirectory");
}

#[test]
fn w8_nothing_is_written_through_links_and_special_files() {
    let folder = Folder::new("w8");
    let victim = folder.file("victim", b"untouched");
    symlink(&victim, folder.join("link")).unwrap();
    symlink(folder.join("absent"), folder.join("dangling")).unwrap();
    std::fs::create_dir(folder.join("directory")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.join("fifo"), rustix::fs::Mode::from_raw_mode(0o644)).unwrap();
    let before = folder.names();
    let paths = ["link", "dangling", "directory", "fifo"].map(|name| folder.join(name));
    for path in paths.iter().map(PathBuf::as_path).chain([Path::new("/dev/null")]) {
        for options in [NEW, FORCE] {
            assert_eq!(kind(OutputFile::create(path, &options)), "OutputNotRegular", "{}", path.display());
        }
    }
    assert_eq!(folder.names(), before);
    assert_eq!(std::fs::read(&victim).unwrap(), b"untouched");
}

#[test]
fn w19_writes_beyond_four_gib() {
    let folder = Folder::new("w19");
    let path = folder.join("out");
    let far = (6u64 << 30) + 5;
    let output = OutputFile::create(&path, &NEW).unwrap();
    output.write_all_at(far, b"end").unwrap();
    output.write_all_at(0, b"start").unwrap();
    output.commit().unwrap();
    let input = InputFile::open(&path).unwrap();
    assert_eq!(input.len(), far + 3);
    assert_eq!(input.read_vec(far, 3, 3).unwrap(), b"end");
    assert_eq!(input.read_vec(0, 8, 8).unwrap(), b"start\0\0\0");
}

/// Writes at most `step` bytes a call and is interrupted every third call.
struct Halting {
    file: File,
    step: usize,
    calls: AtomicU64,
}

impl RawFile for Halting {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if self.calls.fetch_add(1, Ordering::Relaxed) % 3 == 1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        FileExt::write_at(&self.file, &bytes[..bytes.len().min(self.step)], offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn w20_short_and_interrupted_writes_are_continued() {
    let folder = Folder::new("w20");
    let path = folder.join("out");
    for step in [1, 7, 99, 400] {
        write_model(&path, |file| Box::new(Halting { file, step, calls: AtomicU64::new(0) })).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [[1; 100].as_slice(), &[2; 500], &[3; 400]].concat(), "step {step}");
    }
    // Also beyond 4 GiB, where the second call would go astray if offsets were cut to 32 bits.
    let far = 5u64 << 30;
    let output = OutputFile::create_through(&path, &FORCE, |file| Box::new(Halting { file, step: 3, calls: AtomicU64::new(0) })).unwrap();
    output.write_all_at(far, b"0123456789").unwrap();
    output.commit().unwrap();
    assert_eq!(InputFile::open(&path).unwrap().read_vec(far, 10, 10).unwrap(), b"0123456789");
    std::fs::write(&path, b"old").unwrap();
    let stuck = write_model(&path, |file| Box::new(Halting { file, step: 0, calls: AtomicU64::new(0) }));
    assert_eq!(kind(stuck), "Write", "a device that takes nothing must not be asked for ever");
}

#[test]
fn w22_of_many_writers_without_force_exactly_one_wins() {
    let folder = Folder::new("w22");
    for round in 0..20 {
        let path = folder.join(&format!("out{round}"));
        let barrier = Barrier::new(8);
        let write = |mark: u8| {
            let output = OutputFile::create(&path, &NEW).unwrap();
            barrier.wait();
            output.write_all_at(0, &[mark; 50_000]).unwrap();
            output.commit().map(|()| mark)
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|mark| scope.spawn(move || write(mark))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (winners, losers): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!(winners.len(), 1);
        assert!(losers.into_iter().all(|loser| loser.unwrap_err().kind() == "OutputExists"));
        let winner = winners.into_iter().next().unwrap().unwrap();
        assert!(std::fs::read(&path).unwrap().iter().all(|byte| *byte == winner));
    }
    assert_eq!(folder.names().len(), 20);
}

#[test]
fn w22_names_of_temporaries_are_never_used_again() {
    let folder = Folder::new("w22_names");
    let name = || OutputFile::create(&folder.join("out"), &NEW).unwrap().temp_path().to_path_buf();
    assert_ne!(name(), name(), "whoever removes the first one late would hit the second");
}

#[test]
fn w22_two_processes_with_force_never_mix() {
    const TEST: &str = "output::w22_two_processes_with_force_never_mix";
    if let Some(path) = common::part() {
        let mark = std::process::id().to_le_bytes()[0];
        for _ in 0..40 {
            let output = OutputFile::create(&path, &FORCE).unwrap();
            output.write_all_at(0, &vec![mark; WHOLE]).unwrap();
            output.commit().unwrap();
            let content = std::fs::read(&path).unwrap();
            assert!(content.len() == WHOLE && content.iter().all(|byte| *byte == content[0]));
        }
        return;
    }
    let folder = Folder::new("w22_processes");
    let path = folder.join("out");
    let children: Vec<_> = (0..2).map(|_| common::child(TEST, &path).stdout(Stdio::piped()).spawn().unwrap()).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    assert_eq!(folder.names(), ["out"]);
}

#[test]
fn w23_permissions_follow_the_umask() {
    const TEST: &str = "output::w23_permissions_follow_the_umask";
    if let Some(path) = common::part() {
        let digits = path.extension().unwrap().to_str().unwrap();
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(u32::from_str_radix(digits, 8).unwrap()));
        OutputFile::create(&path, &NEW).unwrap().commit().unwrap();
        return;
    }
    let folder = Folder::new("w23");
    for (mask, mode) in [("000", 0o666), ("022", 0o644), ("027", 0o640), ("077", 0o600)] {
        let path = folder.join(&format!("out.{mask}"));
        assert!(common::child(TEST, &path).stdout(Stdio::null()).status().unwrap().success());
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, mode, "umask {mask}");
    }
}

#[test]
fn outputs_that_appeared_can_be_taken_back() {
    let folder = Folder::new("appear");
    let (new, old, late) = (folder.join("new"), folder.join("old"), folder.join("late"));
    std::fs::write(&old, "before").unwrap();
    let create = |path: &Path, options: &OutputOptions<'_>| {
        let file = OutputFile::create(path, options).unwrap();
        file.write_all_at(0, b"after").unwrap();
        file
    };
    let names = || std::fs::read_dir(old.parent().unwrap()).unwrap().count();
    // Taken back: nothing, and what was there before.
    let (first, second) = (create(&new, &NEW).appear().unwrap(), create(&old, &FORCE).appear().unwrap());
    assert_eq!((std::fs::read(&new).unwrap(), std::fs::read(&old).unwrap()), (b"after".to_vec(), b"after".to_vec()));
    drop((first, second));
    assert_eq!((names(), std::fs::read(&old).unwrap()), (1, b"before".to_vec()));
    // Kept: both, and no temporary.
    create(&new, &NEW).appear().unwrap().keep().unwrap();
    create(&old, &FORCE).appear().unwrap().keep().unwrap();
    assert_eq!((names(), std::fs::read(&old).unwrap()), (2, b"after".to_vec()));
    // What exists is not replaced unasked, even when it came late.
    let output = create(&late, &NEW);
    std::fs::write(&late, "other").unwrap();
    assert_eq!(kind(output.appear()), "OutputExists");
    assert_eq!((names(), std::fs::read(&late).unwrap()), (3, b"other".to_vec()));
}
