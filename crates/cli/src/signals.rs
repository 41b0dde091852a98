//! Signals that end a program: temporary files are removed first, then it leaves with 128 + the signal's number.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::failure::{Failure, exit_code};

/// Every signal that somebody sends to end a program, or that ends it unless it is handled: schedulers warn with USR1, USR2 or XCPU before
/// they kill.
const ENDING: [i32; 10] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGALRM, SIGVTALRM, SIGPROF, SIGUSR1, SIGUSR2, SIGXCPU];

/// Starts the thread that waits for signals. Others that come while temporaries are removed change nothing: a
/// terminal that closes sends several. A signal that was ignored when the program started stays ignored: `nohup` means that.
pub(crate) fn install() -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure {
        kind: "Signals".to_owned(),
        message: error.to_string(),
        code: exit_code(rwkv_forge_tensor::Class::Io),
    };
    if !rwkv_forge_io::is_ignored(SIGXFSZ) {
        // With any handler at all, the write beyond the limit returns an error, which says more than an end would.
        signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false))).map_err(failed)?;
    }
    let heard: Vec<i32> = ENDING.into_iter().filter(|signal| !rwkv_forge_io::is_ignored(*signal)).collect();
    let mut signals = Signals::new(&heard).map_err(failed)?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                rwkv_forge_io::remove_temporaries();
                std::process::exit(128 + signal);
            }
        })
        .map_err(failed)?;
    Ok(())
}
