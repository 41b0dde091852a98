//! How many threads commands compute with.

use std::num::NonZeroUsize;

use crate::args::Global;
use crate::terminal::Terminal;

/// Keeps `--threads` to what helps, and says so where that is less.
pub(crate) fn limit(global: &mut Global, terminal: &Terminal) {
    if let Some(asked) = global.threads {
        global.threads = useful(&[asked], "--threads", terminal).first().copied();
    }
}

/// What helps of each number of threads that `option` asks for, each once.
pub(crate) fn useful(asked: &[NonZeroUsize], option: &str, terminal: &Terminal) -> Vec<NonZeroUsize> {
    let mut out: Vec<NonZeroUsize> = Vec::new();
    for asked in asked {
        let used = rwkv_forge_pool::useful_threads(*asked);
        if used < *asked {
            terminal.note(&format!("{option} {asked}: {used} threads are used, since more do not help on this machine"));
        }
        if used == *asked || !out.contains(&used) {
            out.push(used);
        }
    }
    out
}
