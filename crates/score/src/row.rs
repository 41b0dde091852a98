//! One row of logits and the token that really follows, into numbers.
//!
//! Everything is summed in f64 in a fixed number of lanes, so that results have the same bits on every instruction set.

use rwkv_forge_simd::{Isa, Pass};
use rwkv_forge_tensor::{bf16_to_f32, f32_to_bf16};
use serde::Serialize;

use crate::error::ScoreError;
use crate::exponential::exp_of_negative;

/// Partial sums; enough of them that additions do not wait for each other.
const LANES: usize = 32;

/// On what numbers negative log-probabilities are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// On the logits as they are.
    #[default]
    F32,
    /// On logits rounded to bf16, in f32, the result rounded to bf16: what `cross_entropy` of PyTorch does with a bf16 tensor on CUDA.
    /// (On the CPU it also rounds the sum of the exponentials and its logarithm to bf16.) Only `nll` is computed so; divergences and
    /// most likely tokens are those of the logits as they are.
    Bf16,
}

impl Precision {
    /// `f32` or `bf16`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::F32 => 0,
            Self::Bf16 => 1,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::F32),
            1 => Some(Self::Bf16),
            _ => None,
        }
    }
}

/// What a row says about the token that follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Negative natural logarithm of the token's probability, 0 or more.
    pub nll: f64,
    /// The most likely token; the lowest id among equal logits.
    pub argmax: u32,
    /// The token's probability, 0 to 1, always from the logits as they are.
    pub p: f64,
}

/// What two rows for the same place say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    /// The reference alone.
    pub reference: Row,
    /// The candidate alone.
    pub candidate: Row,
    /// KL(reference || candidate) in nats, 0 or more.
    pub kl: f64,
}

impl Compared {
    /// Whether both have the same most likely token.
    #[must_use]
    pub fn same_top1(&self) -> bool {
        self.reference.argmax == self.candidate.argmax
    }

    /// Probability of the token by the candidate, less that by the reference.
    #[must_use]
    pub fn delta_p(&self) -> f64 {
        self.candidate.p - self.reference.p
    }
}

/// Turns rows of logits into numbers; one for each thread, since it keeps buffers of a row's length.
///
/// ```
/// use rwkv_forge_score::{Precision, Scorer};
///
/// let mut scorer = Scorer::new(Precision::F32);
/// // The second of three tokens is as likely as the two others together; the third follows.
/// let logits = [0.0, 2f32.ln(), 0.0];
/// let row = scorer.row(&logits, 2)?;
/// assert!((row.p - 0.25).abs() < 1e-6 && (row.nll - 4f64.ln()).abs() < 1e-6);
/// assert_eq!(row.argmax, 1);
///
/// let compared = scorer.reference(&logits, 2)?.compare(&[0.0, 0.0, 0.0])?;
/// assert!(compared.kl > 0.0 && compared.delta_p() > 0.0);
/// # Ok::<(), rwkv_forge_score::ScoreError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Scorer {
    isa: Isa,
    precision: Precision,
    /// exp(logit - maximum) of the reference.
    weights: Vec<f64>,
    /// A row rounded to bf16.
    rounded: Vec<f32>,
}

impl Scorer {
    /// With the widest instructions of the CPU.
    #[must_use]
    pub fn new(precision: Precision) -> Self {
        Self::with_isa(precision, Isa::best())
    }

    /// With other instructions; results are the same.
    #[must_use]
    pub fn with_isa(precision: Precision, isa: Isa) -> Self {
        Self { isa, precision, weights: Vec::new(), rounded: Vec::new() }
    }

    /// Scores `target` by its row of logits `[vocabulary]`.
    ///
    /// # Errors
    /// [`ScoreError::NonFinite`] naming the first logit that is NaN or infinite; [`ScoreError::Mismatch`] for a target outside the row.
    pub fn row(&mut self, logits: &[f32], target: u32) -> Result<Row, ScoreError> {
        let (peak, index) = checked(self.isa, logits, target, "the row")?;
        let sum = self.isa.run(SumExp { row: logits, max: peak.max });
        self.finish(logits, index, peak, sum)
    }

    /// Prepares a row of the reference, to which rows of several candidates can be compared.
    ///
    /// # Errors
    /// As [`Scorer::row`].
    pub fn reference<'a>(&'a mut self, logits: &'a [f32], target: u32) -> Result<Reference<'a>, ScoreError> {
        let (peak, index) = checked(self.isa, logits, target, "the reference's row")?;
        self.weights.resize(logits.len(), 0.0);
        let sum = self.isa.run(Weigh { row: logits, max: peak.max, weights: &mut self.weights });
        let row = self.finish(logits, index, peak, sum)?;
        Ok(Reference { scorer: self, logits, target, row, peak, sum })
    }

    fn finish(&mut self, logits: &[f32], target: usize, peak: Peak, sum: f64) -> Result<Row, ScoreError> {
        let exact = negative_log(logits, target, peak.max, sum);
        let nll = match self.precision {
            Precision::F32 => exact,
            Precision::Bf16 => self.rounded_nll(logits, target)?,
        };
        Ok(Row { nll, argmax: peak.token, p: libm::exp(-exact) })
    }

    /// See [`Precision::Bf16`]. The logarithm of the sum is rounded to f32 together with the largest logit, which for the smallest
    /// losses matters more than the last rounding.
    fn rounded_nll(&mut self, logits: &[f32], target: usize) -> Result<f64, ScoreError> {
        self.rounded.clear();
        self.rounded.extend_from_slice(logits);
        self.isa.run(RoundToBf16 { row: &mut self.rounded });
        let peak = find_peak(self.isa, &self.rounded, "the row in bf16")?;
        let sum = self.isa.run(SumExp { row: &self.rounded, max: peak.max });
        #[allow(clippy::cast_possible_truncation, reason = "rounding is what is wanted")]
        let log_sum = peak.max + libm::log(sum) as f32;
        Ok(round_to_bf16(f64::from(log_sum - self.rounded[target])).max(0.0))
    }
}

/// The nearest bf16 of the nearest f32: what is computed in f32 and returned in bf16.
pub(crate) fn round_to_bf16(value: f64) -> f64 {
    #[allow(clippy::cast_possible_truncation, reason = "rounding is what is wanted")]
    let single = value as f32;
    f64::from(bf16_to_f32(f32_to_bf16(single)))
}

/// A row of the reference and what is known of it.
#[derive(Debug)]
pub struct Reference<'a> {
    scorer: &'a mut Scorer,
    logits: &'a [f32],
    target: u32,
    row: Row,
    peak: Peak,
    sum: f64,
}

impl Reference<'_> {
    /// The reference alone.
    #[must_use]
    pub fn row(&self) -> Row {
        self.row
    }

    /// Compares a candidate's row `[vocabulary]` for the same place.
    ///
    /// # Errors
    /// [`ScoreError::NonFinite`] naming the first logit that is NaN or infinite; [`ScoreError::Mismatch`] for rows of two lengths.
    pub fn compare(&mut self, candidate: &[f32]) -> Result<Compared, ScoreError> {
        if candidate.len() != self.logits.len() {
            let (found, expected) = (candidate.len(), self.logits.len());
            return Err(ScoreError::Mismatch { what: "logits of the candidate and of the reference", found, expected });
        }
        let isa = self.scorer.isa;
        let (peak, index) = checked(isa, candidate, self.target, "the candidate's row")?;
        let pass = Diverge { reference: self.logits, candidate, weights: &self.scorer.weights, max: peak.max };
        let (sum, weighted) = isa.run(pass);
        let row = self.scorer.finish(candidate, index, peak, sum)?;
        let shift = f64::from(self.peak.max) - f64::from(peak.max);
        let kl = weighted / self.sum - shift + libm::log(sum / self.sum);
        Ok(Compared { reference: self.row, candidate: row, kl: kl.max(0.0) })
    }
}

/// The largest logit of a row.
#[derive(Clone, Copy, Debug)]
struct Peak {
    max: f32,
    token: u32,
}

fn checked(isa: Isa, logits: &[f32], target: u32, row: &'static str) -> Result<(Peak, usize), ScoreError> {
    let index = usize::try_from(target).unwrap_or(usize::MAX);
    if index >= logits.len() {
        return Err(ScoreError::Mismatch { what: "token to score and logits", found: index, expected: logits.len() });
    }
    Ok((find_peak(isa, logits, row)?, index))
}

fn find_peak(isa: Isa, logits: &[f32], row: &'static str) -> Result<Peak, ScoreError> {
    let Some(max) = isa.run(FindMax { row: logits }) else {
        let (element, value) = logits.iter().copied().enumerate().find(|(_, value)| !value.is_finite()).unwrap_or_default();
        return Err(ScoreError::NonFinite { row, element, value });
    };
    let token = isa.run(FindFirst { row: logits, value: max });
    Ok(Peak { max, token: u32::try_from(token).unwrap_or(u32::MAX) })
}

fn negative_log(logits: &[f32], target: usize, max: f32, sum: f64) -> f64 {
    (libm::log(sum) - (f64::from(logits[target]) - f64::from(max))).max(0.0)
}

/// The largest logit, and the natural logarithm of the sum of exp(logit - largest).
pub(crate) fn row_log_sum(isa: Isa, logits: &[f32]) -> Result<(f32, f64), ScoreError> {
    let peak = find_peak(isa, logits, "the row")?;
    Ok((peak.max, libm::log(isa.run(SumExp { row: logits, max: peak.max }))))
}

/// The largest value, `None` when one of them is NaN or infinite.
struct FindMax<'a> {
    row: &'a [f32],
}

impl Pass for FindMax<'_> {
    type Output = Option<f32>;

    #[inline(always)]
    fn run(self) -> Option<f32> {
        const EXPONENT: u32 = 0x7f80_0000;
        let (chunks, tail) = self.row.as_chunks::<LANES>();
        let mut largest = [f32::NEG_INFINITY; LANES];
        let mut bad = [0u32; LANES];
        for chunk in chunks {
            for lane in 0..LANES {
                let value = chunk[lane];
                bad[lane] |= u32::from(value.to_bits() & EXPONENT == EXPONENT);
                largest[lane] = if value > largest[lane] { value } else { largest[lane] };
            }
        }
        let finite = bad.iter().all(|bad| *bad == 0) && tail.iter().all(|value| value.is_finite());
        finite.then(|| largest.iter().chain(tail).fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a }))
    }
}

/// The index of the first element with a value that is in the row.
struct FindFirst<'a> {
    row: &'a [f32],
    value: f32,
}

impl Pass for FindFirst<'_> {
    type Output = usize;

    #[inline(always)]
    fn run(self) -> usize {
        let (chunks, _) = self.row.as_chunks::<LANES>();
        let mut start = 0;
        for chunk in chunks {
            let mut found = 0u32;
            for value in chunk {
                found |= u32::from(*value == self.value);
            }
            if found != 0 {
                break;
            }
            start += LANES;
        }
        let rest = self.row.get(start..).unwrap_or_default();
        start + rest.iter().position(|value| *value == self.value).unwrap_or(0)
    }
}

/// Sum of exp(value - max).
struct SumExp<'a> {
    row: &'a [f32],
    max: f32,
}

impl Pass for SumExp<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let max = f64::from(self.max);
        let (chunks, tail) = self.row.as_chunks::<LANES>();
        let mut sums = [0f64; LANES];
        for chunk in chunks {
            for lane in 0..LANES {
                sums[lane] += exp_of_negative(f64::from(chunk[lane]) - max);
            }
        }
        for (lane, value) in tail.iter().enumerate() {
            sums[lane] += exp_of_negative(f64::from(*value) - max);
        }
        sums.iter().sum()
    }
}

/// As [`SumExp`], keeping the terms.
struct Weigh<'a> {
    row: &'a [f32],
    max: f32,
    weights: &'a mut [f64],
}

impl Pass for Weigh<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let max = f64::from(self.max);
        let (chunks, tail) = self.row.as_chunks::<LANES>();
        let (weights, weights_tail) = self.weights.as_chunks_mut::<LANES>();
        let mut sums = [0f64; LANES];
        for (chunk, weights) in chunks.iter().zip(weights) {
            for lane in 0..LANES {
                weights[lane] = exp_of_negative(f64::from(chunk[lane]) - max);
                sums[lane] += weights[lane];
            }
        }
        for (lane, (value, weight)) in tail.iter().zip(weights_tail).enumerate() {
            *weight = exp_of_negative(f64::from(*value) - max);
            sums[lane] += *weight;
        }
        sums.iter().sum()
    }
}

/// Sums of exp(candidate - max) and of weight * (reference - candidate).
struct Diverge<'a> {
    reference: &'a [f32],
    candidate: &'a [f32],
    weights: &'a [f64],
    max: f32,
}

impl Pass for Diverge<'_> {
    type Output = (f64, f64);

    #[inline(always)]
    fn run(self) -> (f64, f64) {
        let max = f64::from(self.max);
        let (references, reference_tail) = self.reference.as_chunks::<LANES>();
        let (candidates, candidate_tail) = self.candidate.as_chunks::<LANES>();
        let (weights, weights_tail) = self.weights.as_chunks::<LANES>();
        let mut sums = [0f64; LANES];
        let mut products = [0f64; LANES];
        for ((reference, candidate), weights) in references.iter().zip(candidates).zip(weights) {
            for lane in 0..LANES {
                let value = f64::from(candidate[lane]);
                sums[lane] += exp_of_negative(value - max);
                products[lane] = weights[lane].mul_add(f64::from(reference[lane]) - value, products[lane]);
            }
        }
        for (lane, ((reference, candidate), weight)) in reference_tail.iter().zip(candidate_tail).zip(weights_tail).enumerate() {
            let value = f64::from(*candidate);
            sums[lane] += exp_of_negative(value - max);
            products[lane] = weight.mul_add(f64::from(*reference) - value, products[lane]);
        }
        (sums.iter().sum(), products.iter().sum())
    }
}

/// Rounds to the nearest bf16, ties to even.
struct RoundToBf16<'a> {
    row: &'a mut [f32],
}

impl Pass for RoundToBf16<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for value in self.row {
            let bits = value.to_bits();
            let up = 0x7fff + ((bits >> 16) & 1);
            // Rows are finite, so that the sum stays within 32 bits.
            *value = f32::from_bits(bits.wrapping_add(up) & 0xffff_0000);
        }
    }
}
