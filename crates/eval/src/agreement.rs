//! The result of a comparison, and the thresholds that it can be held against.

use rwkv_forge_score::{AgainstUnigram, Interval, KlSummary, UnigramLoss};
use serde::{Serialize, Serializer};

use crate::difference::Difference;

/// How well a candidate follows a reference over one sequence of tokens, both starting from the empty state.
///
/// `reference` and `candidate` are in this order everywhere; differences are candidate - reference. Logarithms are
/// natural. Numbers that do not exist (a perplexity over one token) are `None`.
///
/// As JSON, channels of a residual stream have no most likely token, and the divergence of their softmax is called `softmax_kl`.
#[derive(Clone, Debug, PartialEq)]
pub struct Agreement {
    /// Tokens fed, each of which gives one position with logits.
    pub positions: usize,
    /// Logits a position.
    pub vocabulary: usize,
    /// True when the models have no head: what is compared are the channels of the residual stream after the last norm, in place of logits.
    pub of_residual_stream: bool,
    /// True when all logits have the same bits.
    pub identical: bool,
    /// The largest difference of a logit.
    pub max_abs: WorstLogit,
    /// RMS of the difference of the logits over the RMS of the reference's.
    pub rms_ratio: f64,
    /// Normalised mean squared error of the logits: the square of `rms_ratio`.
    pub nmse: f64,
    /// RMS of the reference's logits.
    pub reference_rms: f64,
    /// How often both predict the same token.
    pub top1: Top1,
    /// Kullback-Leibler divergence KL(reference || candidate) of the predicted distributions, in nats. Its intervals draw windows of 32
    /// positions.
    pub kl: KlSummary,
    /// Of the tokens that follow in the sequence; `None` for a sequence of one token.
    pub perplexity: Option<Perplexity>,
    /// First position at which the most likely tokens differ.
    pub first_divergence: Option<usize>,
    /// One entry a layer, in order; empty when the two models have different numbers of layers.
    pub layers: Vec<LayerAgreement>,
    /// The measures position by position; empty after [`Agreement::summary`].
    pub per_position: PerPosition,
}

/// An [`Agreement`] as its readers get it.
#[derive(Serialize)]
struct Shown<'a> {
    positions: usize,
    vocabulary: usize,
    of_residual_stream: bool,
    identical: bool,
    max_abs: WorstLogit,
    rms_ratio: f64,
    nmse: f64,
    reference_rms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    top1: Option<Top1>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kl: Option<&'a KlSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    softmax_kl: Option<&'a KlSummary>,
    perplexity: Option<Perplexity>,
    first_divergence: Option<usize>,
    layers: &'a [LayerAgreement],
    #[serde(skip_serializing_if = "Option::is_none")]
    per_position: Option<ShownPositions<'a>>,
}

/// [`PerPosition`] likewise.
#[derive(Serialize)]
#[serde(untagged)]
enum ShownPositions<'a> {
    OfLogits(&'a PerPosition),
    OfResidualStream { softmax_kl: &'a [f64], max_abs: &'a [f64] },
}

impl Serialize for Agreement {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (of_logits, positions) = (!self.of_residual_stream, &self.per_position);
        let per_position = match (positions.is_empty(), of_logits) {
            (true, _) => None,
            (false, true) => Some(ShownPositions::OfLogits(positions)),
            (false, false) => Some(ShownPositions::OfResidualStream { softmax_kl: &positions.kl, max_abs: &positions.max_abs }),
        };
        let shown = Shown {
            positions: self.positions,
            vocabulary: self.vocabulary,
            of_residual_stream: self.of_residual_stream,
            identical: self.identical,
            max_abs: self.max_abs,
            rms_ratio: self.rms_ratio,
            nmse: self.nmse,
            reference_rms: self.reference_rms,
            top1: of_logits.then_some(self.top1),
            kl: of_logits.then_some(&self.kl),
            softmax_kl: self.of_residual_stream.then_some(&self.kl),
            perplexity: self.perplexity,
            first_divergence: self.first_divergence.filter(|_| of_logits),
            layers: &self.layers,
            per_position,
        };
        shown.serialize(serializer)
    }
}

impl Agreement {
    /// A copy without the vectors over positions, for records.
    #[must_use]
    pub fn summary(&self) -> Self {
        Self { per_position: PerPosition::default(), ..self.clone() }
    }

    /// How well the reference predicts `tokens`, the sequence that was fed, beside an adaptive unigram; `None` for a sequence of one
    /// token. It means something where the tokens are those of a text in the model's vocabulary.
    #[must_use]
    pub fn against_unigram(&self, tokens: &[u32]) -> Option<AgainstUnigram> {
        let perplexity = self.perplexity?;
        Some(UnigramLoss::of_sequence(tokens, self.vocabulary)?.against(libm::log(perplexity.reference)))
    }
}

/// The largest difference of a logit and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct WorstLogit {
    /// |candidate - reference|.
    pub value: f64,
    /// Index in the sequence.
    pub position: usize,
    /// Token id of the logit.
    pub token: usize,
}

/// Agreement of the most likely tokens. Among equal logits the lowest id counts as the most likely.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Top1 {
    /// Positions where both agree.
    pub agree: usize,
    /// All positions.
    pub count: usize,
    /// agree / count, 0 to 1.
    pub fraction: f64,
    /// Positions where the reference's two largest logits are more than 0.001 apart, so that rounding does not decide.
    pub clear_count: usize,
    /// Positions among those where both agree.
    pub clear_agree: usize,
}

/// exp of the mean negative log-probability of the tokens that really follow.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Perplexity {
    /// Of the reference.
    pub reference: f64,
    /// Of the candidate.
    pub candidate: f64,
    /// candidate / reference.
    pub ratio: f64,
    /// Of `ratio`, over windows of 32 tokens; `None` where the divergence has none either.
    pub ratio_interval: Interval,
    /// Standard error of the natural logarithm of `ratio`, positions taken as independent.
    pub log_ratio_standard_error: f64,
    /// Number of tokens predicted: one less than fed.
    pub tokens: usize,
}

/// Agreement after one layer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LayerAgreement {
    /// Layer number, from 0.
    pub layer: usize,
    /// The residual stream `[positions, channels]`; `None` when the models differ in width.
    pub residual: Option<Difference>,
    /// The state after the last token, in the order of `LayerState::values`; `None` when its sizes differ.
    pub state: Option<Difference>,
}

/// Measures of every position, all of the same length.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PerPosition {
    /// KL(reference || candidate) in nats.
    pub kl: Vec<f64>,
    /// Largest difference of a logit.
    pub max_abs: Vec<f64>,
    /// Whether both predict the same token.
    pub top1: Vec<bool>,
}

impl PerPosition {
    /// True when there are no positions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kl.is_empty()
    }
}

/// Limits for an [`Agreement`]; what is `None` is not checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Thresholds {
    /// Largest mean KL in nats.
    pub max_kl: Option<f64>,
    /// Largest KL that 99 % of the positions may have, in nats.
    pub max_kl_p99: Option<f64>,
    /// Smallest fraction of positions with the same most likely token, 0 to 1.
    pub min_top1: Option<f64>,
    /// Largest difference of a logit.
    pub max_abs: Option<f64>,
    /// Largest RMS ratio of the logits.
    pub max_rms_ratio: Option<f64>,
    /// Largest perplexity of the candidate over that of the reference.
    pub max_perplexity_ratio: Option<f64>,
}

impl Thresholds {
    /// One sentence for every limit that is not met, with the value found and the limit. A value that is not a number
    /// meets no limit.
    #[must_use]
    pub fn violations(&self, agreement: &Agreement) -> Vec<String> {
        let mut out = Vec::new();
        let mut at_most = |what: &str, found: f64, limit: Option<f64>| {
            if let Some(limit) = limit
                && (found.is_nan() || found > limit)
            {
                out.push(format!("{what} is {found:.6}, more than {limit}"));
            }
        };
        at_most("mean KL", agreement.kl.mean, self.max_kl);
        at_most("99 % KL", agreement.kl.p99, self.max_kl_p99);
        at_most("the largest logit difference", agreement.max_abs.value, self.max_abs);
        at_most("the RMS ratio of the logits", agreement.rms_ratio, self.max_rms_ratio);
        if let Some(perplexity) = &agreement.perplexity {
            at_most("the perplexity ratio", perplexity.ratio, self.max_perplexity_ratio);
        }
        if let Some(limit) = self.min_top1
            && (limit.is_nan() || agreement.top1.fraction < limit)
        {
            let Top1 { agree, count, fraction, .. } = agreement.top1;
            out.push(format!("the same token is first at {agree} of {count} positions ({fraction:.6}), less than {limit}"));
        }
        out
    }
}
