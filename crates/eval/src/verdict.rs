//! What a divergence means to whoever reads what the model writes. Start at [`Verdict::of`].

use rwkv_forge_score::KlSummary;
use serde::Serialize;

use crate::agreement::Agreement;

/// Up to this mean KL, in nats a token, a loss is negligible: at least 98.7 % of the most likely tokens are the same, and perplexities differ in
/// the fourth digit (`8bit`, q8_0, `6bit`, q6_k, `5bit` on a trained RWKV-7; docs/measurements.md).
pub const NEGLIGIBLE_KL: f64 = 1e-3;

/// Up to this mean KL a loss is small: at least 95 % of the most likely tokens are the same, and perplexity grows by less than one percent (`4bit`,
/// q5_k_m, q4_k_m, q4_0 there).
pub const SMALL_KL: f64 = 1e-2;

/// Mean KL in nats a token beyond which a file is no rendering of its source but a broken one.
pub const BROKEN_KL: f64 = 1.0;

/// How much a model has lost, in one word. The order is that of the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// A mean KL of at most [`NEGLIGIBLE_KL`]: no reader could tell the two apart.
    Negligible,
    /// At most [`SMALL_KL`]: what a good type of 4 bits loses.
    Small,
    /// At most [`BROKEN_KL`]: one word in twenty or more is another, and texts read worse.
    Visible,
    /// More than that, or no number.
    Broken,
}

impl Damage {
    /// Of a mean KL in nats a token.
    ///
    /// ```
    /// use rwkv_forge_eval::Damage;
    ///
    /// assert_eq!(Damage::of(4.7e-5), Damage::Negligible); // q8_0
    /// assert_eq!(Damage::of(0.0057), Damage::Small); // q4_k_m
    /// assert_eq!(Damage::of(0.12), Damage::Visible); // q2_k
    /// assert_eq!(Damage::of(f64::NAN), Damage::Broken);
    /// ```
    #[must_use]
    pub fn of(mean_kl: f64) -> Self {
        if mean_kl <= NEGLIGIBLE_KL {
            Self::Negligible
        } else if mean_kl <= SMALL_KL {
            Self::Small
        } else if mean_kl <= BROKEN_KL {
            Self::Visible
        } else {
            Self::Broken
        }
    }

    /// The word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Negligible => "negligible",
            Self::Small => "small",
            Self::Visible => "visible",
            Self::Broken => "broken",
        }
    }
}

/// What a comparison says of a file, and on how much it stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// In one word.
    pub damage: Damage,
    /// Where the upper end of the interval of the mean lies; `None` without an interval.
    pub at_most: Option<Damage>,
    /// Mean KL in nats a token.
    pub mean_kl: f64,
    /// Tokens that were compared.
    pub tokens: usize,
    /// Whether all numbers of the models are bit-identical.
    pub identical: bool,
    /// Whether they are too few for an interval, so that another text may say something else.
    pub is_short: bool,
}

impl Verdict {
    /// Of a comparison of logits. `None` where models without a head were compared: their numbers predict no token.
    #[must_use]
    pub fn of(agreement: &Agreement) -> Option<Self> {
        let Agreement { kl, positions, identical, of_residual_stream, .. } = agreement;
        (!of_residual_stream).then(|| Self::of_divergence(kl, *positions, *identical))
    }

    /// Of a divergence over so many tokens; `identical` where all numbers are known to be.
    ///
    /// ```
    /// use rwkv_forge_eval::{Damage, Verdict};
    /// use rwkv_forge_score::KlSummary;
    ///
    /// let verdict = Verdict::of_divergence(&KlSummary::of_positions(&[0.002; 100]), 100, false);
    /// assert_eq!(verdict.damage, Damage::Small);
    /// assert!(verdict.is_short && !verdict.asks_for_more());
    /// ```
    #[must_use]
    pub fn of_divergence(kl: &KlSummary, tokens: usize, identical: bool) -> Self {
        Self {
            damage: Damage::of(kl.mean),
            at_most: kl.interval.map(|[_, high]| Damage::of(high)),
            mean_kl: kl.mean,
            tokens,
            identical,
            is_short: kl.interval.is_none() && !identical,
        }
    }

    /// Whether another type is to be advised: a reader would see the loss.
    #[must_use]
    pub fn asks_for_more(&self) -> bool {
        self.damage >= Damage::Visible
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_belong_to_the_better_side() {
        let above = |bound: f64| bound * (1.0 + f64::EPSILON);
        for (bound, within, beyond) in [
            (NEGLIGIBLE_KL, Damage::Negligible, Damage::Small),
            (SMALL_KL, Damage::Small, Damage::Visible),
            (BROKEN_KL, Damage::Visible, Damage::Broken),
        ] {
            assert_eq!((Damage::of(bound), Damage::of(above(bound))), (within, beyond), "{bound}");
        }
        // Rounding can make a divergence of nothing a little less than nothing.
        assert_eq!((Damage::of(0.0), Damage::of(-1e-18)), (Damage::Negligible, Damage::Negligible));
        assert_eq!((Damage::of(f64::NAN), Damage::of(f64::INFINITY)), (Damage::Broken, Damage::Broken));
        assert_eq!(
            [Damage::Negligible, Damage::Small, Damage::Visible, Damage::Broken].map(Damage::name),
            ["negligible", "small", "visible", "broken"]
        );
    }

    /// Mean KL of types on a trained RWKV-7, docs/measurements.md.
    #[test]
    fn types_are_called_what_they_are_known_for() {
        for (damage, measured) in [
            (Damage::Negligible, &[("q8_0", 4.662e-5), ("8bit", 2.038e-5), ("q6_k", 5.384e-4), ("6bit", 1.471e-4), ("5bit", 4.433e-4)][..]),
            (Damage::Small, &[("4bit", 1.432e-3), ("q5_k_m", 1.605e-3), ("q4_k_m", 5.712e-3), ("q4_0", 8.367e-3), ("iq4_xs", 6.814e-3)]),
            (Damage::Visible, &[("mxfp4", 0.01575), ("q3_k_m", 0.02578), ("q2_k", 0.1217)]),
        ] {
            for (name, kl) in measured {
                assert_eq!(Damage::of(*kl), damage, "{name}");
            }
        }
    }
}
