//! Which of several files to take.

/// A file to choose, or not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choosable {
    /// Its size.
    pub bytes: u64,
    /// Mean KL divergence from the source, in nats a token.
    pub kl: f64,
    /// Share of tokens with the same most probable token, 0 to 1.
    pub top1: f64,
    /// Perplexity over that of the source.
    pub ratio: f64,
}

/// Limits of the loss against a baseline.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Largest mean KL divergence, in nats a token.
    pub max_kl: Option<f64>,
    /// Smallest share of tokens with the same most probable token, 0 to 1.
    pub min_top1: Option<f64>,
    /// Largest perplexity over that of the baseline.
    pub max_ppl_ratio: Option<f64>,
}

impl Limits {
    /// True when there is any.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.max_kl.is_some() || self.min_top1.is_some() || self.max_ppl_ratio.is_some()
    }
}

/// Limits of the loss and of the size.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Of the loss.
    pub limits: Limits,
    /// Of the size, in bytes.
    pub max_size: Option<u64>,
}

impl Wish {
    /// True when there is any limit: without one there is nothing to choose by.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.max_size.is_some() || self.limits.is_there()
    }

    /// Whether a file is within all limits.
    #[must_use]
    pub fn is_met(&self, file: &Choosable) -> bool {
        let at_most = |value: f64, limit: Option<f64>| limit.is_none_or(|limit| value <= limit);
        at_most(file.kl, self.limits.max_kl)
            && self.limits.min_top1.is_none_or(|limit| file.top1 >= limit)
            && at_most(file.ratio, self.limits.max_ppl_ratio)
            && self.max_size.is_none_or(|limit| file.bytes <= limit)
    }

    /// Index of the file to take: with a limit of the size the one that loses least, without one the smallest; `None` when there is
    /// no wish or no file meets it.
    #[must_use]
    pub fn choose(&self, files: &[Choosable]) -> Option<usize> {
        if !self.is_there() {
            return None;
        }
        let met = files.iter().enumerate().filter(|(_, file)| self.is_met(file));
        let better = |a: &Choosable, b: &Choosable| {
            let (by_loss, by_size) = (a.kl.total_cmp(&b.kl), a.bytes.cmp(&b.bytes));
            if self.max_size.is_some() { by_loss.then(by_size) } else { by_size.then(by_loss) }
        };
        met.min_by(|a, b| better(a.1, b.1)).map(|(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [Choosable; 4] = [
        Choosable { bytes: 53, kl: 1e-4, top1: 0.995, ratio: 1.001 },
        Choosable { bytes: 38, kl: 1.5e-3, top1: 0.977, ratio: 1.002 },
        Choosable { bytes: 33, kl: 5.5e-3, top1: 0.959, ratio: 1.006 },
        // As large as the one before and worse.
        Choosable { bytes: 33, kl: 8e-3, top1: 0.952, ratio: 1.008 },
    ];

    fn wish(max_kl: Option<f64>, min_top1: Option<f64>, max_size: Option<u64>) -> Wish {
        Wish { limits: Limits { max_kl, min_top1, max_ppl_ratio: None }, max_size }
    }

    #[test]
    fn a_limit_of_the_loss_takes_the_smallest_and_of_the_size_the_best() {
        assert_eq!(wish(Some(2e-3), None, None).choose(&FILES), Some(1));
        assert_eq!(wish(Some(1e-2), None, None).choose(&FILES), Some(2));
        assert_eq!(wish(Some(1e-2), Some(0.97), None).choose(&FILES), Some(1));
        assert_eq!(wish(None, None, Some(40)).choose(&FILES), Some(1));
        assert_eq!(wish(Some(1e-2), None, Some(33)).choose(&FILES), Some(2));
        // A limit is met by equality.
        assert_eq!(wish(Some(1e-4), None, None).choose(&FILES), Some(0));
    }

    #[test]
    fn nothing_is_chosen_without_a_wish_or_beyond_it() {
        assert_eq!(wish(None, None, None).choose(&FILES), None);
        assert_eq!(wish(Some(1e-5), None, None).choose(&FILES), None);
        assert_eq!(wish(None, None, Some(32)).choose(&FILES), None);
        assert_eq!(wish(None, None, Some(40)).choose(&[Choosable { kl: f64::NAN, ..FILES[0] }]), None);
    }
}
