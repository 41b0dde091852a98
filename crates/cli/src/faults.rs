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
    forge_io::when_exhausted(exhausted);
}

/// Runs the program; a panic anywhere in it becomes a failure. Temporaries are gone then.
pub(crate) fn caught(task: impl FnOnce() -> Result<u8, Failure>) -> Result<u8, Failure> {
    catch_unwind(AssertUnwindSafe(task)).unwrap_or_else(|_| {
        forge_io::remove_temporaries();
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
        "error[OutOfMemory]: no memory for {bytes} bytes more; free memory, or take fewer --threads or a smaller --max-memory"
    );
    let left = room.len();
    let length = line.len() - left;
    let _unheard = rustix::io::write(rustix::stdio::stderr(), &line[..length]);
    exit_code(forge_tensor::Class::Io)
}
