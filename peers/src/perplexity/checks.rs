//! What has to hold between the two programs' figures, and why.
//!
//! Both read the same file and the same tokens, but llama.cpp rounds activations: to f16 before products with f16 matrices on some
//! paths, to blocks of 8-bit integers before products with quantized ones. So its logits differ from ours, by a divergence that is
//! measured here (`runtimes`), and everything else may differ by as much as that explains and by chance, and no more.

use super::programs::{Divergence, Estimate, Ours};

/// Everything that was measured of one file.
pub(super) struct Measured {
    /// `eval`'s perplexity.
    pub(super) perplexity: f64,
    /// llama-perplexity's of its own run, for the baseline.
    pub(super) their_perplexity: Option<Estimate>,
    /// llama-perplexity on this file against the logits that ours saved of this file.
    pub(super) runtimes: Divergence,
    /// For the other files, against the baseline.
    pub(super) against: Option<Against>,
    /// Whether both programs read the text as the same tokens in the same chunks.
    pub(super) same_tokens: bool,
}

/// Figures of a file against the baseline: llama-perplexity's, ours, ours with rounded activations.
pub(super) type Against = (Divergence, Ours, Ours);

/// Something that has to hold.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) what: &'static str,
    /// What was found, in words.
    pub(super) found: String,
    pub(super) passed: bool,
}

/// Standard errors that chance may take: four, which happens once in 16,000 times.
const ERRORS: f64 = 4.0;
/// llama-perplexity keeps logarithms of probabilities as 16-bit codes over 16 nats or more: steps of 2.4e-4, so an error of at most
/// 1.2e-4 each, of either sign, which leaves less than this of a mean over hundreds of tokens.
const CODES: f64 = 3e-5;
/// Share of a divergence by which the sum of two may be off, since errors of weights and of activations need not be independent.
const SHARED: f64 = 0.02;
/// Share of tokens whose two most probable successors have the same 16-bit code.
const TIES: f64 = 1e-3;
/// Half of the last digit of a perplexity with four decimals.
const PRINTED: f64 = 5e-5;

/// The largest divergence between the runtimes on one file. f16: rounding activations to 11 bits and the 16-bit codes. Quantized:
/// rounding activations to 8-bit integers in every layer; as in the comparison of logits, whose bounds these are.
fn runtimes_bound(encoding: &str) -> f64 {
    if encoding == "f16" { 2e-5 } else { 6e-4 }
}

/// All that has to hold for a file; `baseline_flips` is the share of tokens on which the runtimes disagree on the baseline.
pub(super) fn all(encoding: &str, measured: &Measured, baseline_flips: f64) -> Vec<Check> {
    let runtimes = &measured.runtimes;
    let mut out = vec![
        Check {
            what: "the same tokens and chunks",
            found: if measured.same_tokens { "the same bytes" } else { "other bytes" }.to_owned(),
            passed: measured.same_tokens,
        },
        saved(measured.perplexity, runtimes.base),
        at_most("divergence of llama.cpp's logits from ours, same file", runtimes.kl.value, runtimes_bound(encoding)),
        // Noise of the logits costs about its divergence.
        at_most(
            "ln of the ratio of perplexities, same file",
            runtimes.log_ratio.value.abs(),
            ERRORS * runtimes.log_ratio.error + 2.0 * runtimes.kl.value.max(0.0) + CODES,
        ),
    ];
    if let Some(theirs) = measured.their_perplexity {
        out.push(printed(measured.perplexity, theirs, runtimes));
    }
    if let Some(compared) = &measured.against {
        out.extend(against(encoding, compared, runtimes, baseline_flips));
    }
    out
}

/// The perplexity that llama-perplexity computes from our saved logits is the one that we print.
fn saved(ours: f64, base: Estimate) -> Check {
    at_most("our perplexity, from our saved logits by llama-perplexity", (ours / base.value).ln().abs(), CODES)
}

/// What llama-perplexity prints as its final estimate.
fn printed(ours: f64, theirs: Estimate, runtimes: &Divergence) -> Check {
    let admitted = ours * (ERRORS * runtimes.log_ratio.error + 2.0 * runtimes.kl.value.max(0.0) + CODES) + PRINTED;
    let mut check = at_most("perplexities as printed", (ours - theirs.value).abs(), admitted.min(theirs.error));
    check.found += &format!("; its printed error is {:.5}", theirs.error);
    check
}

/// Whether llama.cpp rounds activations in blocks of 256 values before products with this type. We round in blocks of 32 always, as it
/// does for the other types, which is less of an error.
fn coarse(encoding: &str) -> bool {
    encoding.contains("_k") || encoding == "iq4_xs"
}

/// Divergence from the baseline. With activations as they are, theirs is that of the weights, which ours is, plus that of the runtime;
/// with activations rounded as llama.cpp rounds them, ours is theirs.
fn against(encoding: &str, (theirs, ours, rounded): &Against, runtimes: &Divergence, baseline_flips: f64) -> [Check; 3] {
    // All is of the same tokens, so that chance has no part in it; but the two errors need not be quite independent, and the rounding
    // happens in another order.
    let admitted = SHARED * theirs.kl.value + CODES;
    let runtime = runtimes.kl.value.max(0.0);
    let rest = theirs.kl.value - ours.kl - runtime;
    let coarser = if coarse(encoding) { runtime } else { 0.0 };
    // As with any distance: ours and theirs lie apart by no more than the runtimes do on the two files.
    let flips = 1.0 - runtimes.top1.value + baseline_flips;
    [
        at_most("KL mean: theirs, less ours, less that between the runtimes", rest.abs(), admitted),
        at_most("KL mean: theirs, less ours with int8 activations", (theirs.kl.value - rounded.kl).abs(), admitted + coarser),
        at_most("same top-1: difference", (theirs.top1.value - ours.top1).abs(), flips + TIES),
    ]
}

/// llama-perplexity computed another file than the one whose logits it was given, which has to be out of bounds.
pub(super) fn planted(given: &str, computed: &str, found: &Divergence) -> Check {
    let (kl, bound) = (found.kl.value, runtimes_bound(given));
    let found = format!("{computed} computed in its place: {kl:.2e}, at most {bound:.2e} would be admitted");
    Check { what: "planted: another file", found, passed: kl > bound }
}

fn at_most(what: &'static str, value: f64, bound: f64) -> Check {
    Check { what, found: format!("{:.2e}, at most {bound:.2e}", value.max(0.0)), passed: value <= bound }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(value: f64, error: f64) -> Estimate {
        Estimate { value, error }
    }

    fn divergence(kl: f64, top1: f64) -> Divergence {
        Divergence {
            perplexity: estimate(6.5, 0.2),
            base: estimate(6.5, 0.2),
            log_ratio: estimate(1e-5, 1e-5),
            kl: estimate(kl, kl / 30.0),
            kl_p99: 8.0 * kl,
            top1: estimate(top1, 0.003),
        }
    }

    fn measured() -> Measured {
        let ours = Ours { perplexity: 6.5, kl: 5.4e-3, kl_p99: 0.04, top1: 0.95 };
        let rounded = Ours { kl: 5.51e-3, ..ours };
        Measured {
            perplexity: 6.5,
            their_perplexity: Some(estimate(6.5001, 0.2)),
            runtimes: divergence(1e-4, 0.99),
            against: Some((divergence(5.5e-3, 0.947), ours, rounded)),
            same_tokens: true,
        }
    }

    fn failures(measured: &Measured) -> Vec<&'static str> {
        all("q4_0", measured, 1e-3).into_iter().filter(|check| !check.passed).map(|check| check.what).collect()
    }

    #[test]
    fn every_check_can_fail() {
        assert!(failures(&measured()).is_empty(), "{:?}", all("q4_k_m", &measured(), 1e-3));
        type Fault = fn(&mut Measured);
        let cases: [(Fault, &str); 7] = [
            (|m| m.same_tokens = false, "the same tokens"),
            (|m| m.perplexity *= 1.001, "our perplexity"),
            (|m| m.runtimes.kl.value = 1e-3, "divergence of"),
            (|m| m.runtimes.log_ratio.value = 1e-3, "ln of"),
            (|m| m.against.as_mut().unwrap().1.kl *= 1.5, "KL mean"),
            (|m| m.against.as_mut().unwrap().2.kl *= 1.1, "KL mean: theirs, less ours with"),
            (|m| m.against.as_mut().unwrap().1.top1 = 0.9, "same top-1"),
        ];
        for (fault, what) in cases {
            let mut faulty = measured();
            fault(&mut faulty);
            assert!(failures(&faulty).iter().any(|failure| failure.starts_with(what)), "{what}");
        }
        let mut coarser = measured();
        coarser.against.as_mut().unwrap().2.kl -= 2.2e-4;
        let failures_of = |encoding: &str| all(encoding, &coarser, 1e-3).iter().filter(|check| !check.passed).count();
        assert_eq!((failures_of("q4_0"), failures_of("q4_k_m")), (1, 0), "larger blocks admit the part of the runtime");
        let mut faulty = measured();
        faulty.their_perplexity = Some(estimate(6.51, 0.2));
        assert_eq!(failures(&faulty), ["perplexities as printed"]);
        assert!(planted("q8_0", "q4_0", &divergence(5e-3, 0.9)).passed && !planted("q8_0", "q4_0", &divergence(1e-4, 0.9)).passed);
    }
}
