//! SIGINT and SIGTERM: remove temporary files, then leave with 128 + the signal's number (W3).

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::Failure;

/// Starts the thread that waits for signals. A second signal while the first is being handled ends the program at once.
pub(crate) fn install() -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure { kind: "Signals".to_owned(), message: error.to_string(), code: 4 };
    let term_now = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Registered in this order, so that the first signal only arms the flag and the second one ends the program.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, term_now.clone()).map_err(failed)?;
        signal_hook::flag::register(signal, term_now.clone()).map_err(failed)?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                forge_io::remove_temporaries();
                std::process::exit(128 + signal);
            }
        })
        .map_err(failed)?;
    Ok(())
}
