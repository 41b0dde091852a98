//! What the process was told about signals by whoever started it.
#![allow(unsafe_code, reason = "asks the system for the action of a signal")]

use std::mem::MaybeUninit;

/// True when this signal is ignored, as `nohup` and `trap '' HUP` leave it: a program that then handles it does what its user asked it
/// not to. False for numbers that are no signals.
#[must_use]
pub fn is_ignored(signal: i32) -> bool {
    let mut now = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only writes the current one to `now`, which is a valid place for it; any number may be
    // asked for, and a wrong one is an error.
    let answer = unsafe { libc::sigaction(signal, std::ptr::null(), now.as_mut_ptr()) };
    // SAFETY: the system has filled the structure, whose bytes were zeros before, which is a valid value of it.
    answer == 0 && unsafe { now.assume_init() }.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
mod tests {
    #[test]
    fn signals_are_not_ignored_unless_somebody_said_so() {
        // Rust's runtime ignores SIGPIPE, and nothing else.
        assert!(super::is_ignored(libc::SIGPIPE));
        assert!(!super::is_ignored(libc::SIGUSR2));
        assert!(!super::is_ignored(-1) && !super::is_ignored(10_000));
    }
}
