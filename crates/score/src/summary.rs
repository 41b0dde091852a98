//! All scores of a model in a few numbers.

use std::collections::HashMap;

use serde::Serialize;

use crate::bootstrap::{Interval, MIN_WINDOWS, Sums, TooFew, drawn, interval, intervals, resample, runs};
use crate::divergence::FirstDivergence;
use crate::error::ScoreError;
use crate::pairs::{PairScores, pair_scores};
use crate::protocol::Protocol;
use crate::quantile::{Sorted, mean, quantile, standard_error};
use crate::row::Precision;
use crate::schedule::{Schedule, Window};
use crate::scores::{ComparedScores, Scores};
use crate::slices::{Slice, by_key, by_position};
use crate::uncheatable::{Uncheatable, uncheatable};

/// How well a model predicts texts, and against a reference how much it lost.
///
/// Logarithms are natural unless a name says bits. Every `*_interval` is a 95 % bootstrap interval over the schedule's windows; numbers
/// against the reference are paired, that is, both models are drawn on the same windows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// How texts became sequences.
    pub protocol: Protocol,
    /// On what numbers negative log-probabilities were computed.
    pub precision: Precision,
    /// Texts or pairs.
    pub documents: usize,
    /// Sequences fed from the empty state.
    pub sequences: usize,
    /// Windows that the bootstrap draws.
    pub windows: usize,
    /// Why there are no intervals, where there are too few windows.
    pub no_interval: Option<TooFew>,
    /// Scored tokens.
    pub tokens: u64,
    /// Bytes of the scored tokens.
    pub bytes: u64,
    /// Sum of the negative log-probabilities of the scored tokens.
    pub nll: f64,
    /// Mean of the same.
    pub nll_per_token: f64,
    /// Standard error of that mean, tokens taken as independent.
    pub nll_per_token_standard_error: f64,
    /// exp of the mean negative log-probability.
    pub perplexity: f64,
    /// Of `perplexity`, tokens taken as independent.
    pub perplexity_standard_error: f64,
    /// Of `perplexity`.
    pub perplexity_interval: Interval,
    /// Bits per scored token.
    pub bits_per_token: f64,
    /// Bits per byte of the scored tokens; `None` when they have no bytes.
    pub bits_per_byte: Option<f64>,
    /// Of `bits_per_byte`.
    pub bits_per_byte_interval: Interval,
    /// `bits_per_byte` less that of the reference.
    pub bits_per_byte_increase: Option<f64>,
    /// Of `bits_per_byte_increase`.
    pub bits_per_byte_increase_interval: Interval,
    /// Divergence from the reference.
    pub kl: Option<KlSummary>,
    /// Fraction of tokens at which both have the same most likely token, 0 to 1.
    pub top1: Option<f64>,
    /// Of `top1`.
    pub top1_interval: Interval,
    /// Perplexity against that of the reference.
    pub perplexity_ratio: Option<PerplexityRatio>,
    /// Change of the probability of the token that follows.
    pub delta_p: Option<DeltaP>,
    /// How long both predict the same tokens.
    pub first_divergence: Option<FirstDivergence>,
    /// By the position in the sequence: 0-128, 128-512, 512-2k, 2k-8k, 8k and more; those without tokens left out.
    pub by_position: Vec<Slice>,
    /// By text, in order; empty when there is one, and for pairs.
    pub by_document: Vec<Slice>,
    /// By category, in the order in which they first appear; empty when there is one.
    pub by_category: Vec<Slice>,
    /// The score of the uncheatable evaluation, for its two protocols.
    pub uncheatable: Option<Uncheatable>,
    /// Conditional scores, for pairs.
    pub pairs: Option<PairScores>,
}

/// KL(reference || candidate) over all scored tokens, in nats.
///
/// ```
/// use rwkv_forge_score::KlSummary;
///
/// // Divergences at 320 positions: ten windows of 32.
/// let kl: Vec<f64> = (0..320).map(|position| f64::from(position % 10) / 1000.0).collect();
/// let summary = KlSummary::of_positions(&kl);
/// assert!((summary.mean - 0.0045).abs() < 1e-12);
/// assert_eq!(summary.max, 0.009);
/// let [low, high] = summary.interval.expect("enough windows");
/// assert!(low < summary.mean && summary.mean < high);
///
/// // Fewer than eight windows give no interval.
/// assert!(KlSummary::of_positions(&kl[..100]).interval.is_none());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct KlSummary {
    /// Mean.
    pub mean: f64,
    /// Of `mean`.
    pub interval: Interval,
    /// Why there are no intervals, where there are too few windows.
    pub no_interval: Option<TooFew>,
    /// Standard error of `mean`, tokens taken as independent.
    pub standard_error: f64,
    /// Half of the tokens have at most this.
    pub median: f64,
    /// Of `median`.
    pub median_interval: Interval,
    /// 99 % of the tokens have at most this.
    pub p99: f64,
    /// Of `p99`.
    pub p99_interval: Interval,
    /// 99.9 % of the tokens have at most this.
    pub p999: f64,
    /// Of `p999`.
    pub p999_interval: Interval,
    /// Largest.
    pub max: f64,
    /// Smallest.
    pub min: f64,
}

/// Perplexity against that of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PerplexityRatio {
    /// Perplexity of the reference.
    pub reference: f64,
    /// candidate / reference.
    pub ratio: f64,
    /// Of `ratio`.
    pub ratio_interval: Interval,
    /// Natural logarithm of `ratio`.
    pub ln_ratio: f64,
    /// Of `ln_ratio`.
    pub ln_ratio_interval: Interval,
    /// Standard error of `ln_ratio`, tokens taken as independent.
    pub ln_ratio_standard_error: f64,
}

/// Change of the probability of the token that follows, candidate less reference, -1 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DeltaP {
    /// Mean.
    pub mean: f64,
    /// Of `mean`.
    pub mean_interval: Interval,
    /// Root of the mean square.
    pub rms: f64,
    /// Of `rms`.
    pub rms_interval: Interval,
    /// Largest.
    pub max: f64,
    /// 99.9 % of the tokens have at most this; the others likewise.
    pub p999: Quantile,
    /// 99 %.
    pub p99: Quantile,
    /// 95 %.
    pub p95: Quantile,
    /// 90 %.
    pub p90: Quantile,
    /// 75 %.
    pub p75: Quantile,
    /// 50 %.
    pub median: Quantile,
    /// 25 %.
    pub p25: Quantile,
    /// 10 %.
    pub p10: Quantile,
    /// 5 %.
    pub p5: Quantile,
    /// 1 %.
    pub p1: Quantile,
    /// 0.1 %.
    pub p01: Quantile,
    /// Smallest.
    pub min: f64,
}

/// A quantile with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantile {
    /// The quantile.
    pub value: f64,
    /// Of `value`.
    pub interval: Interval,
}

/// Fractions of the quantiles of a KL divergence.
const KL_FRACTIONS: [f64; 3] = [0.5, 0.99, 0.999];
/// Fractions of the quantiles of a change of probability.
const DELTA_P_FRACTIONS: [f64; 11] = [0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999];

/// Sums up the scores of a schedule.
///
/// ```
/// use rwkv_forge_score::{Document, Precision, Protocol, Scorer, Scores, Tokens, evaluate};
///
/// let tokens = Tokens::from(vec![7, 8, 9]);
/// let document = Document { name: "a text".to_owned(), category: String::new(), bytes: 9, tokens };
/// let schedule = Protocol::Stream.schedule(&[document], &|_token| Some(3))?;
///
/// // A model of 16 tokens that takes all of them for equally likely.
/// let (mut scorer, mut scores) = (Scorer::new(Precision::F32), Scores::new(Precision::F32));
/// for token in [7, 8, 9] {
///     scores.push(scorer.row(&[0.0; 16], token)?)?;
/// }
/// let found = evaluate(&schedule, &scores)?;
/// assert!((found.perplexity - 16.0).abs() < 1e-9 && (found.bits_per_token - 4.0).abs() < 1e-9);
/// assert!(found.no_interval.is_some(), "three tokens are too few for an interval, and that is said");
/// # Ok::<(), rwkv_forge_score::ScoreError>(())
/// ```
///
/// # Errors
/// [`ScoreError::Mismatch`] when there is not one score for each scored token of the schedule, or none at all.
pub fn evaluate(schedule: &Schedule, scores: &Scores) -> Result<Evaluation, ScoreError> {
    scores.check(schedule)?;
    if scores.is_empty() {
        return Err(ScoreError::Mismatch { what: "scored tokens", found: 0, expected: 1 });
    }
    let windows = Sums::of_windows(schedule, scores);
    let total = Sums::total(&windows);
    let [perplexity, bits_per_byte] = alone(&total);
    let [perplexity_interval, bits_per_byte_interval] = intervals(&windows, alone);
    let nll_per_token = mean(&scores.nll);
    let error = standard_error(&scores.nll);
    let has_bytes = total.bytes > 0.0;
    let mut out = Evaluation {
        protocol: schedule.protocol,
        precision: scores.precision,
        documents: schedule.documents.len(),
        sequences: schedule.sequences.len(),
        windows: windows.len(),
        no_interval: TooFew::of(windows.len(), drawn_things(schedule.protocol)),
        tokens: scores.len() as u64,
        bytes: schedule.bytes(),
        nll: total.nll,
        nll_per_token,
        nll_per_token_standard_error: error,
        perplexity,
        perplexity_standard_error: perplexity * error,
        perplexity_interval,
        bits_per_token: nll_per_token / std::f64::consts::LN_2,
        bits_per_byte: has_bytes.then_some(bits_per_byte),
        bits_per_byte_interval: if has_bytes { bits_per_byte_interval } else { None },
        bits_per_byte_increase: None,
        bits_per_byte_increase_interval: None,
        kl: None,
        top1: None,
        top1_interval: None,
        perplexity_ratio: None,
        delta_p: None,
        first_divergence: None,
        by_position: by_position(schedule, scores),
        by_document: Vec::new(),
        by_category: by_category(schedule, &windows, scores),
        uncheatable: None,
        pairs: None,
    };
    match schedule.protocol {
        Protocol::Pairs => out.pairs = Some(pair_scores(schedule, scores, &windows)),
        _ => out.by_document = by_document(schedule, &windows, scores),
    }
    if matches!(schedule.protocol, Protocol::Uncheatable | Protocol::Uncheatable2024) {
        out.uncheatable = Some(uncheatable(schedule, scores));
    }
    if let Some(compared) = &scores.compared {
        out.compare(schedule, scores, compared, &windows, &total);
    }
    Ok(out)
}

/// Windows of [`crate::SHORT_RUN`] positions, for people.
const SHORT_WINDOWS: &str = "windows of 32 positions";

/// What the bootstrap draws, for people.
fn drawn_things(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Stream | Protocol::Windows { .. } | Protocol::Llama { .. } => "windows",
        Protocol::Uncheatable | Protocol::Uncheatable2024 => "texts",
        Protocol::Pairs => "pairs",
    }
}

/// Perplexity and bits per byte.
fn alone(sums: &Sums) -> [f64; 2] {
    [libm::exp(sums.nll / sums.tokens), sums.nll / std::f64::consts::LN_2 / sums.bytes]
}

/// In the order of the fields that they fill.
fn against(sums: &Sums) -> [f64; 7] {
    let ln_ratio = (sums.nll - sums.nll_reference) / sums.tokens;
    let bits = (sums.nll - sums.nll_reference) / std::f64::consts::LN_2 / sums.bytes;
    let rms = libm::sqrt(sums.delta_p_squared / sums.tokens);
    [sums.kl / sums.tokens, sums.same_top1 / sums.tokens, libm::exp(ln_ratio), ln_ratio, bits, sums.delta_p / sums.tokens, rms]
}

impl Evaluation {
    /// Fills in what there is against a reference.
    fn compare(&mut self, schedule: &Schedule, scores: &Scores, compared: &ComparedScores, windows: &[Sums], total: &Sums) {
        let [kl, top1, ratio, ln_ratio, bits, delta_p, rms] = against(total);
        let [kl_interval, top1_interval, ratio_interval, ln_ratio_interval, bits_interval, delta_p_interval, rms_interval] =
            intervals(windows, against);
        self.top1 = Some(top1);
        self.top1_interval = top1_interval;
        if self.bits_per_byte.is_some() {
            self.bits_per_byte_increase = Some(bits);
            self.bits_per_byte_increase_interval = bits_interval;
        }
        let differences: Vec<f64> = scores.nll.iter().zip(&compared.nll_reference).map(|(nll, reference)| nll - reference).collect();
        self.perplexity_ratio = Some(PerplexityRatio {
            reference: libm::exp(total.nll_reference / total.tokens),
            ratio,
            ratio_interval,
            ln_ratio,
            ln_ratio_interval,
            ln_ratio_standard_error: standard_error(&differences),
        });
        let (kl_sorted, delta_sorted) = (Sorted::new(&compared.kl, &schedule.windows), Sorted::new(&compared.delta_p, &schedule.windows));
        let delta_quantiles = quantiles(&delta_sorted, &DELTA_P_FRACTIONS, windows);
        let no_interval = self.no_interval;
        self.kl = Some(KlSummary { no_interval, ..KlSummary::new((kl, kl_interval), &compared.kl, &kl_sorted, windows) });
        self.delta_p = Some(DeltaP::new((delta_p, delta_p_interval), (rms, rms_interval), delta_quantiles, delta_sorted.values()));
        self.first_divergence = Some(FirstDivergence::of(schedule, &compared.same_top1));
    }
}

/// Quantiles of a column with their intervals; all columns of a schedule are drawn alike.
fn quantiles<const N: usize>(sorted: &Sorted, fractions: &[f64; N], windows: &[Sums]) -> [Quantile; N] {
    let mut found: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
    if windows.len() >= MIN_WINDOWS {
        resample(windows.len(), |counts| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
            let tokens = drawn(windows, counts).tokens as u64;
            sorted.weighted(fractions, counts, tokens, |number, value| found[number].push(value));
        });
    }
    std::array::from_fn(|number| Quantile {
        value: quantile(sorted.values(), fractions[number]),
        interval: interval(std::mem::take(&mut found[number])),
    })
}

impl KlSummary {
    /// Of the divergences at all positions of one sequence, drawn in windows of [`crate::SHORT_RUN`] positions.
    #[must_use]
    pub fn of_positions(kl: &[f64]) -> Self {
        let windows = runs(kl.len());
        let sums: Vec<Sums> = windows.iter().map(|window| Sums::of_kl(&kl[window.scores.clone()])).collect();
        let [interval] = intervals(&sums, |sums| [sums.kl / sums.tokens]);
        let no_interval = TooFew::of(windows.len(), SHORT_WINDOWS);
        Self { no_interval, ..Self::new((mean(kl), interval), kl, &Sorted::new(kl, &windows), &sums) }
    }

    /// `kl` in the schedule's order and sorted. Who has drawn what says why there are no intervals.
    fn new((mean, interval): (f64, Interval), kl: &[f64], sorted: &Sorted, windows: &[Sums]) -> Self {
        let [median, p99, p999] = quantiles(sorted, &KL_FRACTIONS, windows);
        let (sorted, standard_error) = (sorted.values(), standard_error(kl));
        Self {
            mean,
            interval,
            no_interval: None,
            standard_error,
            median: median.value,
            median_interval: median.interval,
            p99: p99.value,
            p99_interval: p99.interval,
            p999: p999.value,
            p999_interval: p999.interval,
            max: quantile(sorted, 1.0),
            min: quantile(sorted, 0.0),
        }
    }
}

impl PerplexityRatio {
    /// Of the negative log-probabilities of all tokens of one sequence, drawn in windows of [`crate::SHORT_RUN`] tokens; `None` for no tokens
    /// or for columns of two lengths.
    #[must_use]
    pub fn of_positions(nll: &[f64], nll_reference: &[f64]) -> Option<Self> {
        if nll.is_empty() || nll.len() != nll_reference.len() {
            return None;
        }
        let of = |window: &Window| Sums::of_nll(&nll[window.scores.clone()], &nll_reference[window.scores.clone()]);
        let windows: Vec<Sums> = runs(nll.len()).iter().map(of).collect();
        let numbers = |sums: &Sums| {
            let ln_ratio = (sums.nll - sums.nll_reference) / sums.tokens;
            [ln_ratio, libm::exp(ln_ratio)]
        };
        let total = Sums::total(&windows);
        let ([ln_ratio, ratio], [ln_ratio_interval, ratio_interval]) = (numbers(&total), intervals(&windows, numbers));
        let differences: Vec<f64> = nll.iter().zip(nll_reference).map(|(nll, reference)| nll - reference).collect();
        Some(Self {
            reference: libm::exp(total.nll_reference / total.tokens),
            ratio,
            ratio_interval,
            ln_ratio,
            ln_ratio_interval,
            ln_ratio_standard_error: standard_error(&differences),
        })
    }
}

impl DeltaP {
    fn new(mean: (f64, Interval), rms: (f64, Interval), quantiles: [Quantile; 11], sorted: &[f64]) -> Self {
        let [p01, p1, p5, p10, p25, median, p75, p90, p95, p99, p999] = quantiles;
        let (max, min) = (quantile(sorted, 1.0), quantile(sorted, 0.0));
        let ((mean, mean_interval), (rms, rms_interval)) = (mean, rms);
        Self { mean, mean_interval, rms, rms_interval, max, p999, p99, p95, p90, p75, median, p25, p10, p5, p1, p01, min }
    }
}

fn by_document(schedule: &Schedule, windows: &[Sums], scores: &Scores) -> Vec<Slice> {
    let name = |document: usize| schedule.documents[document].name.clone();
    by_key(schedule, windows, scores.compared.is_some(), |document| document, name)
}

fn by_category(schedule: &Schedule, windows: &[Sums], scores: &Scores) -> Vec<Slice> {
    // A category is known by the first text that has it.
    let category = |document: usize| &schedule.documents[document].category;
    let mut known: HashMap<&str, usize> = HashMap::new();
    let first: Vec<usize> = (0..schedule.documents.len()).map(|document| *known.entry(category(document)).or_insert(document)).collect();
    by_key(schedule, windows, scores.compared.is_some(), |document| first[document], |document| category(document).clone())
}
