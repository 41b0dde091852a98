//! Numbers on the command line, within what a computer can hold: beyond it, sums and sizes would overflow.

use std::num::NonZeroUsize;

/// Tokens and positions: 4 TB of ids, more than any text.
pub(crate) const TOKENS: usize = 1 << 40;
/// Times that something is repeated, and windows.
pub(crate) const TIMES: usize = 1 << 24;
/// Layers, heads.
pub(crate) const SIZES: usize = 1 << 24;
/// MiB of memory: 16 TiB.
pub(crate) const MIB: usize = 1 << 24;
/// Seconds: a hundred years.
pub(crate) const SECONDS: usize = 3_155_760_000;
/// Threads.
pub(crate) const THREADS: usize = 1 << 24;

/// A number from 1 to `MAX`.
pub(crate) fn count<const MAX: usize>(text: &str) -> Result<NonZeroUsize, String> {
    text.parse::<NonZeroUsize>().ok().filter(|number| number.get() <= MAX).ok_or_else(|| format!("expected a whole number from 1 to {MAX}"))
}

/// A number from 0 to `MAX`.
pub(crate) fn number<const MAX: usize>(text: &str) -> Result<usize, String> {
    text.parse::<usize>().ok().filter(|number| *number <= MAX).ok_or_else(|| format!("expected a whole number from 0 to {MAX}"))
}

#[cfg(test)]
mod tests {
    use super::{count, number};

    #[test]
    fn the_ends_of_a_range_belong_to_it() {
        assert_eq!(count::<5>("5").map(usize::from), Ok(5));
        assert_eq!(number::<5>("0"), Ok(0));
        for text in ["0", "6", "-1", "x", "", "18446744073709551616", "1.5"] {
            assert!(count::<5>(text).is_err(), "{text}");
        }
        assert!(number::<5>("6").is_err());
    }
}
