//! How far the forms may be apart, and why.

use std::fmt;

use serde::Serialize;

use crate::cases::Tier;
use crate::measure::Measure;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// The residual stream after a layer, `[tokens, channels]`.
    Output,
    /// The state of the time mix's token shift after the last token, `[channels]`.
    AttShift,
    /// The state of the channel mix's token shift after the last token, `[channels]`.
    FfnShift,
    /// RWKV-5 to RWKV-7: the matrices of the state after the last token, `[heads, head size, head size]`.
    Wkv,
    /// RWKV-4: the weighted sum of values after the last token, `[channels]`.
    Aa,
    /// RWKV-4: the sum of weights after the last token, `[channels]`.
    Bb,
    /// RWKV-4: the logarithm of the common factor of both sums after the last token, `[channels]`.
    Pp,
    /// RWKV-7b: what its attention remembers: the query, key and value of the last token, then all finished keys and values.
    Past,
    /// The logits, `[tokens, vocabulary]`.
    Logits,
}

impl Quantity {
    /// True for what a layer remembers.
    #[must_use]
    pub fn is_state(self) -> bool {
        !matches!(self, Self::Output | Self::Logits)
    }

    /// What an element of it is called.
    pub(crate) fn element(self) -> &'static str {
        match self {
            Self::Logits => "token",
            Self::Wkv | Self::Past => "element",
            Self::Output | Self::AttShift | Self::FfnShift | Self::Aa | Self::Bb | Self::Pp => "channel",
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Output => "output",
            Self::AttShift => "att_shift",
            Self::FfnShift => "ffn_shift",
            Self::Wkv => "wkv",
            Self::Aa => "aa",
            Self::Bb => "bb",
            Self::Pp => "pp",
            Self::Past => "past",
            Self::Logits => "logits",
        })
    }
}

/// The largest differences of one quantity that are still agreement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bounds {
    /// Of the RMS of the difference over the RMS of the reference.
    pub ratio: f64,
    /// Of |difference| / (1 + |reference|) of each element; not checked in f32, where the ratio says enough.
    pub relative: Option<f64>,
}

/// f64 has 1.1e-16 a rounding. Sums of thousands of terms, hundreds of steps of a recurrence that forgets, and some dozens of
/// layers make at most 1e-12 of it; a wrong formula makes 1e-3 or more. Between them this is a bound that neither comes near.
const F64_RATIO: f64 = 1e-10;
/// The same for single elements, which may be smaller than the RMS of their array.
const F64_RELATIVE: f64 = 1e-9;
/// f32: four times the worst that 100 seeds of random models of every version showed (docs/verification.md), rounded up.
/// Outputs of layers: 6.8e-6, RWKV-5.2 with decays near 1 over 4096 tokens.
const F32_OUTPUT_RATIO: f64 = 3e-5;
/// States: 4.8e-5, RWKV-4 with decays near 1 over 4096 tokens, whose sums never forget a rounding.
const F32_STATE_RATIO: f64 = 2e-4;
/// Logits: 6.7e-6, as the outputs.
const F32_LOGITS_RATIO: f64 = 3e-5;
/// Arrays with an RMS below this say nothing by agreeing: one of zeros would agree, too.
pub(crate) const MIN_RMS: f64 = 1e-3;

impl Bounds {
    /// The bounds of a quantity.
    #[must_use]
    pub fn of(tier: Tier, quantity: Quantity) -> Self {
        match (tier, quantity) {
            (Tier::F64, _) => Self { ratio: F64_RATIO, relative: Some(F64_RELATIVE) },
            (Tier::F32, Quantity::Logits) => Self { ratio: F32_LOGITS_RATIO, relative: None },
            (Tier::F32, Quantity::Output) => Self { ratio: F32_OUTPUT_RATIO, relative: None },
            (Tier::F32, _) => Self { ratio: F32_STATE_RATIO, relative: None },
        }
    }

    /// How many times the bound a measure is: above 1 is beyond it.
    ///
    /// A state whose reference vanishes is judged by its elements alone, since a ratio to almost nothing says nothing. Outputs
    /// and logits must not vanish: then the excess is infinite.
    #[must_use]
    pub fn excess(&self, quantity: Quantity, measure: &Measure) -> f64 {
        if vanishes(measure) || measure.non_finite.is_some() {
            let judged = quantity.is_state() && measure.non_finite.is_none();
            return if judged { measure.relative / self.relative.unwrap_or(self.ratio) } else { f64::INFINITY };
        }
        let ratio = measure.ratio / self.ratio;
        self.relative.map_or(ratio, |limit| ratio.max(measure.relative / limit))
    }
}

/// Whether the reference is too small for agreement to mean anything.
pub(crate) fn vanishes(measure: &Measure) -> bool {
    measure.reference_rms <= MIN_RMS
}
