//! Which of several files to take.

/// How much larger a best buy may be than the file that is taken.
const LITTLE_MORE: f64 = 1.25;
/// How much of that file's loss a best buy may have.
const MUCH_LESS: f64 = 1.0 / 3.0;

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

    /// Index of a file for which a little more size buys much less loss than that of `taken`, which [`Wish::choose`] has chosen: at most a
    /// quarter larger, at most a third of its mean KL, and within all limits. Of several such files the one whose loss falls most for its
    /// size, by the ratio of both logarithms. `None` where there is none: the file that is taken is the best buy as well.
    #[must_use]
    pub fn best_buy(&self, files: &[Choosable], taken: usize) -> Option<usize> {
        let first = files.get(taken)?;
        let larger = |file: &Choosable| file.bytes as f64 / first.bytes as f64;
        let is_one = |file: &Choosable| {
            let size = larger(file);
            // Of no loss a third is no less.
            self.is_met(file) && size > 1.0 && size <= LITTLE_MORE && file.kl <= first.kl * MUCH_LESS && file.kl < first.kl
        };
        // A loss of zero is as far below as any.
        let worth = |file: &Choosable| libm::log(first.kl / file.kl.max(f64::MIN_POSITIVE)) / libm::log(larger(file));
        let good = files.iter().enumerate().filter(|(_, file)| is_one(file));
        good.max_by(|a, b| worth(a.1).total_cmp(&worth(b.1)).then(b.1.bytes.cmp(&a.1.bytes))).map(|(index, _)| index)
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
    fn a_best_buy_is_a_little_larger_and_loses_much_less() {
        let file = |bytes: u64, kl: f64| Choosable { bytes, kl, top1: 1.0, ratio: 1.0 };
        let files = [file(100, 9e-3), file(110, 4e-3), file(120, 2.5e-3), file(125, 2e-3), file(126, 1e-4), file(90, 2e-2)];
        let all = wish(Some(1e-2), None, None);
        assert_eq!(all.choose(&files), Some(0));
        // 1.10 times is not much less of the loss, 1.26 times not a little more of the size; of two that are both, the steeper one.
        assert_eq!(all.best_buy(&files, 0), Some(2));
        assert_eq!(all.best_buy(&files[..2], 0), None);
        assert_eq!(all.best_buy(&files[..1], 0), None);
        assert_eq!(all.best_buy(&[file(100, 9e-3), file(125, 2.9e-3)], 0), Some(1), "the bound of the size belongs to it");
        // One beyond a limit is none: with a limit of the size nothing loses less than what is taken.
        let within = wish(Some(1e-2), None, Some(115));
        let taken = within.choose(&files).unwrap();
        assert_eq!((taken, within.best_buy(&files, taken)), (1, None));
        assert_eq!(wish(None, Some(0.9), None).best_buy(&[file(100, 9e-3), Choosable { top1: 0.5, ..file(110, 1e-4) }], 0), None);
        // Nothing is lost at all.
        assert_eq!(all.best_buy(&[file(100, 9e-3), file(120, 0.0), file(122, 1e-9)], 0), Some(1));
        assert_eq!(all.best_buy(&[file(100, f64::NAN), file(120, 0.0)], 0), None);
        assert_eq!(all.best_buy(&[], 0), None);
    }

    /// Of any files: what is advised is beaten by none that is as good as asked for.
    #[test]
    fn nothing_is_advised_that_another_file_beats() {
        let file = |bytes: u64, kl: f64| Choosable { bytes, kl, top1: 1.0, ratio: 1.0 };
        // Larger and worse than another one, of the same size, of the same loss, and a loss of zero twice.
        let kls = [9e-3, 7e-3, 1.4e-3, 1.4e-3, 1e-3, 0.0, 0.0];
        for turn in 0..kls.len() {
            let files: Vec<Choosable> = [100, 112, 100, 111, 101, 124, 120]
                .iter()
                .zip(kls.iter().cycle().skip(turn))
                .map(|(bytes, kl)| file(*bytes, *kl))
                .collect();
            let wishes = [
                wish(Some(1e-2), None, None),
                wish(Some(2e-3), None, None),
                wish(None, None, Some(112)),
                wish(Some(8e-3), None, Some(124)),
            ];
            for wish in wishes {
                let taken = wish.choose(&files).unwrap();
                for advised in std::iter::once(taken).chain(wish.best_buy(&files, taken)) {
                    let one = &files[advised];
                    let beats = |other: &Choosable| {
                        wish.is_met(other)
                            && other.bytes <= one.bytes
                            && other.kl <= one.kl
                            && (other.bytes < one.bytes || other.kl < one.kl)
                    };
                    assert!(!files.iter().any(beats), "{turn}: {one:?} of {files:?}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_chosen_without_a_wish_or_beyond_it() {
        assert_eq!(wish(None, None, None).choose(&FILES), None);
        assert_eq!(wish(Some(1e-5), None, None).choose(&FILES), None);
        assert_eq!(wish(None, None, Some(32)).choose(&FILES), None);
        assert_eq!(wish(None, None, Some(40)).choose(&[Choosable { kl: f64::NAN, ..FILES[0] }]), None);
    }
}
