//! The printouts of llama-perplexity, with its formulas for standard errors and percentiles.
//!
//! Its own numbers are computed from f32 exponentials, and against a base from log-probabilities stored in 16 bits; these are from
//! f64, so that the last printed digits may differ.

use std::fmt::Write as _;

use crate::error::ScoreError;
use crate::protocol::Protocol;
use crate::schedule::Schedule;
use crate::scores::{ComparedScores, Scores};

/// Fewer scored tokens than this have no statistics in the printout.
const LEAST: usize = 100;
const HEADING: &str =
    "chunk             PPL               ln(PPL(Q)/PPL(base))          KL Divergence              Δp RMS            Same top p\n";

/// Perplexity after each chunk, and the final estimate: what `llama-perplexity -m MODEL -f TEXT` prints.
///
/// # Errors
/// [`ScoreError::WrongProtocol`] for a schedule of another protocol than `llama`; [`ScoreError::Mismatch`] when the scores are not those
/// of the schedule.
pub fn perplexity_text(schedule: &Schedule, scores: &Scores) -> Result<String, ScoreError> {
    check(schedule, scores, "a printout as llama-perplexity's")?;
    let mut out = String::new();
    let mut nll = Moments::default();
    for (number, window) in schedule.windows.iter().enumerate() {
        scores.nll[window.scores.clone()].iter().for_each(|value| nll.add(*value));
        line(&mut out, format_args!("[{}]{:.4},", number + 1, libm::exp(nll.mean())));
    }
    let (mean, variance) = (nll.mean(), nll.variance());
    let perplexity = libm::exp(mean);
    if variance > 0.0 {
        let error = libm::sqrt(variance / (nll.count - 1.0)) * perplexity;
        line(&mut out, format_args!("\nFinal estimate: PPL = {perplexity:.4} +/- {error:.5}\n"));
    } else {
        line(&mut out, format_args!("\nFinal estimate: PPL = {perplexity:.4}\n"));
    }
    Ok(out)
}

/// A line per chunk with all numbers so far, then the statistics: what `llama-perplexity --kl-divergence` prints. The statistics are
/// left out below 100 scored tokens, as there.
///
/// # Errors
/// As [`perplexity_text`], and [`ScoreError::Mismatch`] for scores without a reference.
pub fn divergence_text(schedule: &Schedule, scores: &Scores) -> Result<String, ScoreError> {
    check(schedule, scores, "a printout as llama-perplexity's")?;
    let Some(compared) = &scores.compared else {
        return Err(ScoreError::Mismatch { what: "scores against a reference", found: 0, expected: scores.len() });
    };
    let mut out = format!("\n{HEADING}");
    let mut so_far = Running::default();
    for (number, window) in schedule.windows.iter().enumerate() {
        window.scores.clone().for_each(|index| so_far.add(scores.nll[index], compared, index));
        line(&mut out, format_args!("{:4}", number + 1));
        so_far.chunk(&mut out);
    }
    out.push('\n');
    if scores.len() >= LEAST {
        so_far.perplexity(&mut out);
        divergence(&mut out, &so_far, &compared.kl);
        probabilities(&mut out, &so_far, &compared.delta_p);
    }
    Ok(out)
}

fn check(schedule: &Schedule, scores: &Scores, what: &'static str) -> Result<(), ScoreError> {
    if !matches!(schedule.protocol, Protocol::Llama { .. }) {
        return Err(ScoreError::WrongProtocol { what, needed: "llama", found: schedule.protocol.name() });
    }
    scores.check(schedule)
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = out.write_fmt(text);
}

/// Count, sum and sum of squares.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    count: f64,
    sum: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        self.sum += value;
        self.squares += value * value;
    }

    fn mean(&self) -> f64 {
        self.sum / self.count
    }

    fn variance(&self) -> f64 {
        self.squares / self.count - self.mean() * self.mean()
    }

    /// Standard error of the mean; 0 for at most ten values.
    fn error(&self) -> f64 {
        if self.count > 10.0 && self.variance() > 0.0 { libm::sqrt(self.variance() / (self.count - 1.0)) } else { 0.0 }
    }
}

/// Everything that is summed from chunk to chunk.
#[derive(Clone, Copy, Debug, Default)]
struct Running {
    nll: Moments,
    base: Moments,
    products: f64,
    kl: Moments,
    delta_p: Moments,
    delta_p_squared: Moments,
    same: f64,
}

impl Running {
    fn add(&mut self, nll: f64, compared: &ComparedScores, index: usize) {
        let (base, delta_p) = (compared.nll_reference[index], compared.delta_p[index]);
        self.nll.add(nll);
        self.base.add(base);
        self.products += nll * base;
        self.kl.add(compared.kl[index]);
        self.delta_p.add(delta_p);
        self.delta_p_squared.add(delta_p * delta_p);
        self.same += f64::from(u8::from(compared.same_top1[index]));
    }

    /// Covariance of the two means.
    fn covariance(&self) -> f64 {
        let count = self.nll.count;
        if count < 10.0 { 0.0 } else { (self.products / count - self.nll.mean() * self.base.mean()) / (count - 1.0) }
    }

    /// ln of the ratio of the perplexities and its standard error.
    fn ln_ratio(&self) -> (f64, f64) {
        let (error, base) = (self.nll.error(), self.base.error());
        // Of two equal models rounding can leave a negative variance.
        let variance = (error * error + base * base - 2.0 * self.covariance()).max(0.0);
        (self.nll.mean() - self.base.mean(), libm::sqrt(variance))
    }

    /// Root of the mean square of the change of probability, in percent, and its standard error.
    fn rms(&self) -> (f64, f64) {
        let rms = libm::sqrt(self.delta_p_squared.mean());
        let error = if rms > 0.0 { 0.5 / rms * self.delta_p_squared.error() } else { 0.0 };
        (100.0 * rms, 100.0 * error)
    }

    /// Same most likely tokens, in percent, and the standard error.
    fn top1(&self) -> (f64, f64) {
        let p = self.same / self.nll.count;
        (100.0 * p, 100.0 * libm::sqrt(p * (1.0 - p) / (self.nll.count - 1.0)))
    }

    fn chunk(&self, out: &mut String) {
        let perplexity = libm::exp(self.nll.mean());
        line(out, format_args!("    {perplexity:9.4} ± {:9.4}", perplexity * self.nll.error()));
        let (ln_ratio, error) = self.ln_ratio();
        line(out, format_args!("    {ln_ratio:10.5} ± {error:10.5}    {:10.5} ± {:10.5}", self.kl.mean(), self.kl.error()));
        let ((rms, rms_error), (top1, top1_error)) = (self.rms(), self.top1());
        line(out, format_args!("    {rms:6.3} ± {rms_error:6.3} %    {top1:6.3} ± {top1_error:6.3} %\n"));
    }

    fn perplexity(&self, out: &mut String) {
        let (candidate, base) = (libm::exp(self.nll.mean()), libm::exp(self.base.mean()));
        let (candidate_error, base_error) = (candidate * self.nll.error(), base * self.base.error());
        let (ln_ratio, ln_error) = self.ln_ratio();
        let correlation = self.covariance() / (self.nll.error() * self.base.error());
        let variance = candidate_error * candidate_error + base_error * base_error - 2.0 * candidate * base * self.covariance();
        let row = |name: &str, value: f64, error: f64| format!("{name:30}: {value:10.6} ± {error:10.6}\n");
        out.push_str("====== Perplexity statistics ======\n");
        out.push_str(&row("Mean PPL(Q)", candidate, candidate_error));
        out.push_str(&row("Mean PPL(base)", base, base_error));
        line(out, format_args!("Cor(ln(PPL(Q)), ln(PPL(base))): {:6.2}%\n", 100.0 * correlation));
        out.push_str(&row("Mean ln(PPL(Q)/PPL(base))", ln_ratio, ln_error));
        out.push_str(&row("Mean PPL(Q)/PPL(base)", libm::exp(ln_ratio), libm::exp(ln_ratio) * ln_error));
        out.push_str(&row("Mean PPL(Q)-PPL(base)", candidate - base, libm::sqrt(variance.max(0.0))));
        out.push('\n');
    }
}

/// Percentiles that are printed, with their names; the median where there is no number. True for those of divergences.
const PERCENTILES: [(&str, Option<f32>, bool); 13] = [
    ("Maximum", Some(1.0), true),
    ("99.9%  ", Some(0.999), true),
    ("99.0%  ", Some(0.99), true),
    ("95.0%  ", Some(0.95), true),
    ("90.0%  ", Some(0.9), true),
    ("75.0%  ", Some(0.75), false),
    ("Median ", None, true),
    ("25.0%  ", Some(0.25), false),
    ("10.0%  ", Some(0.1), true),
    (" 5.0%  ", Some(0.05), true),
    (" 1.0%  ", Some(0.01), true),
    (" 0.1%  ", Some(0.001), true),
    ("Minimum", Some(0.0), true),
];

fn divergence(out: &mut String, so_far: &Running, kl: &[f64]) {
    let sorted = sorted(kl);
    line(
        out,
        format_args!("====== KL divergence statistics ======\nMean    KLD: {:10.6} ± {:10.6}\n", so_far.kl.mean(), so_far.kl.error()),
    );
    for (name, fraction, _) in PERCENTILES.iter().filter(|(_, _, divergence)| *divergence) {
        line(out, format_args!("{name} KLD: {:10.6}\n", percentile(&sorted, *fraction)));
    }
    out.push('\n');
}

fn probabilities(out: &mut String, so_far: &Running, delta_p: &[f64]) {
    let sorted = sorted(delta_p);
    let (mean, error) = (100.0 * so_far.delta_p.mean(), 100.0 * so_far.delta_p.error());
    line(out, format_args!("====== Token probability statistics ======\nMean    Δp: {mean:6.3} ± {error:5.3} %\n"));
    for (name, fraction, _) in PERCENTILES {
        line(out, format_args!("{name} Δp: {:6.3}%\n", 100.0 * percentile(&sorted, fraction)));
    }
    let ((rms, rms_error), (top1, top1_error)) = (so_far.rms(), so_far.top1());
    line(out, format_args!("RMS Δp    : {rms:6.3} ± {rms_error:5.3} %\nSame top p: {top1:6.3} ± {top1_error:5.3} %\n"));
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut out = values.to_vec();
    out.sort_by(f64::total_cmp);
    out
}

/// Between the two values nearest to the fraction of the way through, in proportion; `None` is the median.
fn percentile(sorted: &[f64], fraction: Option<f32>) -> f64 {
    let last = sorted.len() - 1;
    let Some(fraction) = fraction else {
        return f64::midpoint(sorted[last / 2], sorted[last.div_ceil(2)]);
    };
    // The place is computed in f32 there, which tells for more than some 10,000 values.
    #[allow(clippy::cast_precision_loss, reason = "as there")]
    let place = fraction * last as f32;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to the last index")]
    let index = (place as usize).min(last);
    let part = f64::from(place - place.floor());
    (1.0 - part) * sorted[index] + part * sorted[(index + 1).min(last)]
}
