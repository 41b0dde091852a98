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

/// What random numbers are made from.
pub(crate) fn seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("expected a whole number from 0 to {}", u64::MAX))
}

/// A number whose range is the command's affair.
pub(crate) fn decimal(text: &str) -> Result<f32, String> {
    text.parse().map_err(|_| "expected a number".to_owned())
}

/// Any number but NaN and infinities.
pub(crate) fn finite(text: &str) -> Result<f64, String> {
    between(text, |number| number.is_finite(), "expected a number")
}

/// A limit of a loss, a ratio or bits: with NaN nothing would ever be beyond it.
pub(crate) fn loss(text: &str) -> Result<f64, String> {
    between(text, |number| number.is_finite() && number >= 0.0, "expected a number of 0 or more")
}

/// A share. Who writes a percentage is told how it is written here.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    const EXPECTED: &str = "expected a number from 0 to 1";
    let is_percentage = |number: &f64| *number <= 100.0 && (*number > 1.0 || (*number >= 0.0 && text.ends_with('%')));
    match text.trim_end_matches('%').trim_end().parse().ok().filter(is_percentage) {
        Some(percent) => {
            let digits = format!("{:.6}", percent / 100.0);
            Err(format!("{EXPECTED}: {percent} % is {}", digits.trim_end_matches('0').trim_end_matches('.')))
        }
        None => between(text, |number| (0.0..=1.0).contains(&number), EXPECTED),
    }
}

/// What keeps a norm from dividing by zero.
pub(crate) fn epsilon(text: &str) -> Result<f64, String> {
    between(text, |number| number > 0.0 && number <= 1.0, "expected a number above 0, at most 1")
}

fn between(text: &str, is_fit: fn(f64) -> bool, expected: &str) -> Result<f64, String> {
    text.parse().ok().filter(|number| is_fit(*number)).ok_or_else(|| expected.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{count, epsilon, finite, loss, number, share};

    #[test]
    fn no_limit_is_switched_off_by_a_word() {
        for text in ["nan", "NaN", "inf", "-inf", "1e999", "x", ""] {
            assert!([finite, loss, share, epsilon].iter().all(|parse| parse(text).is_err()), "{text}");
        }
        assert_eq!((finite("-2"), loss("0"), share("1"), epsilon("64e-5")), (Ok(-2.0), Ok(0.0), Ok(1.0), Ok(64e-5)));
        assert!(loss("-1").is_err() && share("1.5").is_err() && epsilon("0").is_err() && epsilon("2").is_err());
    }

    #[test]
    fn percentages_are_told_how_they_are_written() {
        for (text, way) in [("95", "0.95"), ("95%", "0.95"), ("99.9 %", "0.999"), ("100", "1"), ("1%", "0.01"), ("0%", "0")] {
            let said = share(text).unwrap_err();
            assert_eq!(said.rsplit_once(" % is ").unwrap().1, way, "{text}: {said}");
            assert!(share(way).is_ok(), "the way that it names");
        }
        for text in ["101", "-5%", "x%", "%"] {
            assert_eq!(share(text).unwrap_err(), "expected a number from 0 to 1", "{text}");
        }
    }

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
