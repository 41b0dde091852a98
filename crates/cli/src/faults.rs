//! What should not happen: a mistake of this program, and the end of memory.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use crate::failure::{Failure, exit_code};

/// What the last panic said and where. A panic of any thread reaches the main thread, but its place does not come along.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// To be called first: panics are kept instead of printed, since readers of foreign formats may panic and be caught; and the end of
/// memory is an orderly end.
pub(crate) fn watch() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("without a message");
        let place = panic.location().map_or_else(String::new, |place| format!(" ({}:{})", place.file(), place.line()));
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{message}{place}"));
    }));
    rwkv_forge_io::when_exhausted(exhausted);
}

/// Runs the program; a panic anywhere in it becomes a failure. Temporaries are gone then.
pub(crate) fn caught(task: impl FnOnce() -> Result<u8, Failure>) -> Result<u8, Failure> {
    catch_unwind(AssertUnwindSafe(task)).unwrap_or_else(|_| {
        rwkv_forge_io::remove_temporaries();
        let what = PANIC.lock().unwrap_or_else(PoisonError::into_inner).take();
        let what = what.unwrap_or_else(|| "a panic without a message".to_owned()).split_whitespace().collect::<Vec<_>>().join(" ");
        Err(Failure::bug(
            "Panic",
            format!("this is a fault of rwkv-forge: {what}; please report it with the command line and this message"),
        ))
    })
}

/// Says that memory has run out. Nothing is locked and next to nothing allocated: any thread may be here, in any state.
fn exhausted(bytes: usize) -> u8 {
    let mut line = [0u8; 160];
    let mut room = &mut line[..];
    // A line that does not fit is cut.
    let _cut = writeln!(
        room,
        "error[OutOfMemory]: no memory for {bytes} bytes more; free memory, or ask for less at a time (--threads, lengths, sizes)"
    );
    let left = room.len();
    let length = line.len() - left;
    let _unheard = rustix::io::write(rustix::stdio::stderr(), &line[..length]);
    exit_code(rwkv_forge_tensor::Class::Io)
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::{caught, watch};

    #[test]
    fn a_panic_of_any_thread_is_a_failure_and_leaves_nothing() {
        const TEST: &str = "faults::tests::a_panic_of_any_thread_is_a_failure_and_leaves_nothing";
        const CHILD: &str = "FORGE_FAULTS_TEST_CHILD";
        let Some(folder) = std::env::var_os(CHILD).map(std::path::PathBuf::from) else {
            // In a process of its own, whose panics and temporaries are nobody else's.
            let folder = std::env::temp_dir().join(format!("forge-faults-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            let child = child.args(["--exact", TEST]).env(CHILD, &folder).output().unwrap();
            let said = String::from_utf8_lossy(&child.stdout).into_owned();
            assert!(child.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&child.stderr));
            std::fs::remove_dir(&folder).expect("it is empty");
            return;
        };
        watch();
        let file = rwkv_forge_io::OutputFile::create(&folder.join("out"), &rwkv_forge_io::OutputOptions::default()).unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        let failure = caught(|| {
            // As if the program had ended in the middle of it.
            std::mem::forget(file);
            (0..64).into_par_iter().for_each(|index| assert!(index != 37, "two\nlines"));
            Ok(0)
        })
        .unwrap_err();
        assert_eq!((failure.code, failure.kind.as_str()), (5, "Panic"));
        assert!(failure.message.contains("this is a fault of rwkv-forge: two lines (") && !failure.message.contains('\n'), "{failure:?}");
        assert!(failure.message.contains("faults.rs:"), "it says where: {failure:?}");
        assert_eq!(caught(|| Ok(3)).unwrap(), 3);
    }
}
