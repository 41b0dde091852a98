//! Time and memory against position: the recurrent form, the parallel form computed anew for each token, and an attention
//! stack of the same size. Start at [`run`], which measures all of them, and at [`measure`], which measures one; [`Law`]
//! is how the complexities are told from the measurements, `figure.rs` turns them into tables and plots.
//!
//! Every form is measured by the same code: it is brought to a position, the token there is generated several times, and
//! the median counts. Between the sampled positions, powers of two, the cost is taken to be a straight line.
//!
//! ```
//! use std::time::Duration;
//!
//! use rwkv_forge_bench::curve::{CurveOptions, RecurrentForm, measure};
//! use rwkv_forge_engine::EngineOptions;
//! # use rwkv_forge_weights::Model;
//!
//! # let checkpoint = rwkv_forge_testkit::models::random_model(rwkv_forge_model::Version::V7, &rwkv_forge_testkit::models::Sizes::TINY, 1);
//! # let model = Model::describe(checkpoint)?;
//! let mut recurrent = RecurrentForm::load(&model, &EngineOptions::default())?;
//! let options = CurveOptions { positions: 64, limit: Duration::from_secs(1) };
//! let series = measure(&mut recurrent, &options, &mut |_done| ())?;
//! // The state has the same size wherever it is.
//! let (first, last) = (&series.points[0], &series.points[series.points.len() - 1]);
//! assert!(first.position < last.position);
//! assert_eq!(first.bytes, last.bytes);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attention;
mod figure;
mod generators;
mod law;

use std::time::{Duration, Instant};

use rwkv_forge_engine::EngineOptions;
use rwkv_forge_parallel::{ParallelModel, ParallelOptions};
use rwkv_forge_weights::Model;
use serde::Serialize;

pub use attention::{Attention, AttentionSizes};
pub use figure::{costs, laws, memory_plot, points, time_plot};
pub use generators::{AttentionForm, ParallelForm, RecurrentForm, StepwiseForm};
pub use law::{Law, Slope};

use crate::error::BenchError;
use crate::noise::{Listener, Quiet, WIDE_SPREAD};
use crate::statistics::Spread;
use crate::system::{peak_resident_memory, resident_memory, restart_peak_resident_memory};

/// Runs of a token at one position, when the time allows for that many.
const RUNS: usize = 25;
/// Runs that a median needs.
const FEW: usize = 3;
/// Time after which no more than [`FEW`] runs are made.
const ENOUGH: Duration = Duration::from_millis(200);
/// Positions that are measured even if the time is up: fewer give no slope.
const LEAST_POINTS: usize = 6;

/// Something that generates tokens one after the other.
pub trait Generator {
    /// What it is, in a few words.
    fn name(&self) -> &'static str;

    /// How its figures come about, in one sentence.
    fn method(&self) -> &'static str;

    /// Brings it to where `position` tokens have been generated; not timed. Positions only grow.
    ///
    /// # Errors
    /// What the form itself refuses.
    fn seek(&mut self, position: usize) -> Result<(), BenchError>;

    /// Gets ready for one [`Generator::token`] without advancing; not timed.
    fn rewind(&mut self) {}

    /// Generates the token that follows: all that must be computed between two tokens, logits included.
    ///
    /// # Errors
    /// What the form itself refuses.
    fn token(&mut self) -> Result<(), BenchError>;

    /// Bytes of the tensors that grow, or do not, with the position: the state, the cache, or what the last computation
    /// over all tokens held. Weights are not among them.
    ///
    /// # Errors
    /// What the form itself refuses.
    fn bytes(&self) -> Result<u64, BenchError>;

    /// Bytes of the weights as this form holds them.
    fn weight_bytes(&self) -> u64;
}

/// How far to measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurveOptions {
    /// Last position; rounded down to a power of two.
    pub positions: usize,
    /// Time for one form; it ends at the position before the one that would take longer.
    pub limit: Duration,
}

impl CurveOptions {
    /// 1, 2, 4, ... up to the last position.
    pub fn sampled(&self) -> impl Iterator<Item = usize> + '_ {
        (0..usize::BITS).map(|power| 1usize << power).take_while(|position| *position <= self.positions)
    }
}

/// What one token at one position costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Tokens generated, this one included.
    pub position: u64,
    /// Seconds for this token: the median of `runs`.
    pub seconds: f64,
    /// Seconds of the fastest run.
    pub fastest: f64,
    /// How often the token was generated for the measurement.
    pub runs: usize,
    /// How far the middle half of the runs spreads, as a share of the median.
    pub spread: f64,
    /// Seconds for all tokens up to this one: the sum over a straight line between the sampled positions.
    pub cumulative_seconds: f64,
    /// Bytes of state, cache or intermediate tensors, counted.
    pub bytes: u64,
    /// Largest resident memory of the process while the token was generated, in bytes, when the system tells.
    pub resident: Option<u64>,
}

/// One form's measurements.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Series {
    /// What was measured.
    pub form: &'static str,
    /// How.
    pub method: &'static str,
    /// Bytes of its weights.
    pub weight_bytes: u64,
    /// Resident memory before the first token, weights included, in bytes, when the system tells.
    pub resident_before: Option<u64>,
    /// True when the time was up before the last position.
    pub cut_short: bool,
    /// One entry a sampled position, ascending.
    pub points: Vec<Point>,
}

impl Series {
    /// Law of the seconds a token.
    #[must_use]
    pub fn seconds_law(&self) -> Option<Law> {
        Law::of(&self.of(|point| point.seconds), 0)
    }

    /// Law of the seconds for all tokens.
    #[must_use]
    pub fn cumulative_law(&self) -> Option<Law> {
        Law::of(&self.of(|point| point.cumulative_seconds), 1)
    }

    /// Law of the bytes.
    #[must_use]
    pub fn bytes_law(&self) -> Option<Law> {
        Law::of(&self.of(|point| point.bytes as f64), 0)
    }

    /// (position, y) of every point.
    fn of(&self, y: impl Fn(&Point) -> f64) -> Vec<(u64, f64)> {
        self.points.iter().map(|point| (point.position, y(point))).collect()
    }
}

/// All forms of one model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    /// What the model is.
    pub model: String,
    /// Threads that each form computes with.
    pub threads: usize,
    /// One entry a form.
    pub series: Vec<Series>,
    /// What else the machine did meanwhile.
    pub quiet: Quiet,
}

impl Curve {
    /// How quiet the machine was, and which figures are to be distrusted, line by line.
    #[must_use]
    pub fn quietness(&self) -> String {
        let mut text = self.quiet.line().map_or_else(String::new, |line| format!("{line}\n"));
        if let Some(doubt) = self.quiet.doubt() {
            text += &format!("To be distrusted (?): all times: {doubt}.\n");
        }
        for series in &self.series {
            let wide = || series.points.iter().filter(|point| point.spread > WIDE_SPREAD);
            // At some position something else always runs for a moment, and medians bear that.
            if wide().count() * 4 > series.points.len() {
                let widest = wide().map(|point| point.spread).fold(0.0, f64::max);
                let (count, all, bound) = (wide().count(), series.points.len(), WIDE_SPREAD * 100.0);
                text += &format!(
                    "To be distrusted (?): {}: at {count} of {all} positions half of the runs spread over more than {bound:.0} % of the median, up to {:.0} %: \
                     measure again on a quiet machine.\n",
                    series.form,
                    widest * 100.0
                );
            }
        }
        text
    }
}

/// Measures all forms of a model, one after the other, with one of them in memory at a time. Candle computes with the threads
/// of the pool that the caller runs in, which should be as many as `engine` says. `progress` hears how many of all positions
/// are done. A model that has a parallel form, but that the engine does not run, is measured without the engine.
///
/// # Errors
/// What one of the forms refuses: hybrids with Qwen, for example, have no parallel form.
pub fn run(
    model: &Model,
    engine: &EngineOptions,
    options: &CurveOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Curve, BenchError> {
    let each = options.sampled().count();
    let listener = Listener::begin();
    let engine_runs = rwkv_forge_engine::supports(&model.description().mechanisms).is_ok();
    let forms = 3 + usize::from(engine_runs);
    let mut series = Vec::new();
    let mut next = |generator: &mut dyn Generator| {
        let done = series.len() * each;
        series.push(measure(generator, options, &mut |positions| progress(done + positions, forms * each))?);
        Ok::<_, BenchError>(())
    };
    // What only the engine refuses is measured without it.
    if engine_runs || rwkv_forge_parallel::supports(&model.description().mechanisms).is_err() {
        next(&mut RecurrentForm::load(model, engine)?)?;
    }
    next(&mut AttentionForm::new(model.description(), options.positions)?)?;
    let parallel = ParallelModel::load(model, &ParallelOptions::default())?;
    next(&mut StepwiseForm::new(&parallel))?;
    next(&mut ParallelForm::new(model, &parallel))?;
    Ok(Curve { model: model.description().version.to_string(), threads: engine.threads.get(), series, quiet: listener.heard() })
}

/// Measures one form at each sampled position. `progress` hears how many positions are done.
///
/// # Errors
/// What the form itself refuses.
pub fn measure(generator: &mut dyn Generator, options: &CurveOptions, progress: &mut dyn FnMut(usize)) -> Result<Series, BenchError> {
    let started = Instant::now();
    let mut series = Series {
        form: generator.name(),
        method: generator.method(),
        weight_bytes: generator.weight_bytes(),
        resident_before: resident_memory(),
        cut_short: false,
        points: Vec::new(),
    };
    // Threads wake up and caches fill before the first measurement.
    generator.seek(0)?;
    generator.rewind();
    generator.token()?;
    let mut last_took = Duration::ZERO;
    for (done, position) in options.sampled().enumerate() {
        // A step takes up to four times as long as the one before it, when the cost of a token grows with the square.
        if done >= LEAST_POINTS && started.elapsed() + last_took * 4 > options.limit {
            series.cut_short = true;
            break;
        }
        let before = Instant::now();
        generator.seek(position - 1)?;
        restart_peak_resident_memory();
        let runs = runs(generator, options.limit / 8)?;
        let Spread { median: seconds, min: fastest, .. } = runs;
        let cumulative_seconds = add(series.points.last(), position, seconds);
        let (position, bytes, resident) = (position as u64, generator.bytes()?, peak_resident_memory());
        series.points.push(Point {
            position,
            seconds,
            fastest,
            runs: runs.count,
            spread: runs.relative(),
            cumulative_seconds,
            bytes,
            resident,
        });
        last_took = before.elapsed();
        progress(done + 1);
    }
    Ok(series)
}

/// Seconds of several runs of the same token. A token that takes longer than `long` runs only once.
fn runs(generator: &mut dyn Generator, long: Duration) -> Result<Spread, BenchError> {
    let (started, mut seconds) = (Instant::now(), Vec::new());
    while seconds.len() < FEW || (seconds.len() < RUNS && started.elapsed() < ENOUGH) {
        generator.rewind();
        let before = Instant::now();
        generator.token()?;
        let took = before.elapsed();
        // A clock too coarse for a tiny model must not give a time without a logarithm.
        seconds.push(took.as_secs_f64().max(1e-9));
        if took > long {
            break;
        }
    }
    Spread::of(&seconds).ok_or(BenchError::Setting { what: "the number of runs", found: 0 })
}

/// Seconds for all tokens up to `position`, whose own token takes `seconds`: those up to the last point, and for the tokens
/// since then the sum over the straight line between both.
fn add(last: Option<&Point>, position: usize, seconds: f64) -> f64 {
    let Some(last) = last else { return seconds * position as f64 };
    let tokens = (position as u64 - last.position) as f64;
    // Token i of n after the last point costs last + (seconds - last) i / n; the sum over i = 1 to n.
    last.cumulative_seconds + tokens * last.seconds + (seconds - last.seconds) * (tokens + 1.0) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A form whose cost is known: it sleeps.
    struct Sleeper {
        position: usize,
        nanoseconds: fn(usize) -> u64,
        bytes: fn(usize) -> u64,
    }

    impl Generator for Sleeper {
        fn name(&self) -> &'static str {
            "sleeper"
        }

        fn method(&self) -> &'static str {
            "asleep"
        }

        fn seek(&mut self, position: usize) -> Result<(), BenchError> {
            assert!(position >= self.position, "positions only grow");
            self.position = position;
            Ok(())
        }

        fn token(&mut self) -> Result<(), BenchError> {
            std::thread::sleep(Duration::from_nanos((self.nanoseconds)(self.position)));
            Ok(())
        }

        fn bytes(&self) -> Result<u64, BenchError> {
            Ok((self.bytes)(self.position))
        }

        fn weight_bytes(&self) -> u64 {
            7
        }
    }

    #[test]
    fn positions_are_powers_of_two() {
        let sampled = |positions| CurveOptions { positions, limit: Duration::ZERO }.sampled().collect::<Vec<_>>();
        assert_eq!(sampled(1), [1]);
        assert_eq!(sampled(9), [1, 2, 4, 8]);
        assert_eq!(sampled(16), [1, 2, 4, 8, 16]);
        assert_eq!(sampled(0), [0usize; 0]);
    }

    #[test]
    fn sums_over_a_line_are_exact() {
        let cost = |position: usize| 3.0 + 0.5 * position as f64;
        let mut last: Option<Point> = None;
        for position in [1, 2, 4, 8, 16, 32] {
            let cumulative_seconds = add(last.as_ref(), position, cost(position));
            let all: f64 = (1..=position).map(cost).sum();
            assert!((cumulative_seconds - all).abs() < 1e-12 * all, "{position}: {cumulative_seconds} {all}");
            let (position, seconds) = (position as u64, cost(position));
            last = Some(Point { position, seconds, fastest: seconds, runs: 1, spread: 0.0, cumulative_seconds, bytes: 0, resident: None });
        }
    }

    #[test]
    fn a_form_is_measured_at_each_position_until_its_time_is_up() {
        let options = CurveOptions { positions: 256, limit: Duration::from_secs(60) };
        let mut sleeper = Sleeper { position: 0, nanoseconds: |_| 20_000, bytes: |p| 64 * (p as u64 + 1) };
        let mut steps = Vec::new();
        let series = measure(&mut sleeper, &options, &mut |done| steps.push(done)).unwrap();
        assert_eq!(steps, (1..=9).collect::<Vec<_>>());
        assert!(!series.cut_short && series.points.len() == 9);
        assert!(series.points.iter().all(|point| point.runs >= FEW && point.fastest <= point.seconds && point.seconds >= 20e-6));
        assert_eq!(series.points.iter().map(|point| point.bytes).collect::<Vec<_>>(), (0..9).map(|k| 64 << k).collect::<Vec<_>>());
        assert_eq!(series.bytes_law().unwrap().order(), "p");
        let mut slow = Sleeper { position: 0, nanoseconds: |p| 1000 * p as u64 * p as u64, bytes: |_| 1 };
        let limit = Duration::from_millis(200);
        let started = Instant::now();
        let series = measure(&mut slow, &CurveOptions { positions: 1 << 20, limit }, &mut |_| ()).unwrap();
        assert!(series.cut_short && series.points.len() >= LEAST_POINTS && series.points.len() < 12, "{series:?}");
        assert!(started.elapsed() < Duration::from_secs(5), "the limit holds");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_resident_memory_shows_what_a_token_touches() {
        struct Touches;
        impl Generator for Touches {
            fn name(&self) -> &'static str {
                "touches"
            }
            fn method(&self) -> &'static str {
                ""
            }
            fn seek(&mut self, _: usize) -> Result<(), BenchError> {
                Ok(())
            }
            fn token(&mut self) -> Result<(), BenchError> {
                std::hint::black_box(vec![1u8; 96 << 20]);
                Ok(())
            }
            fn bytes(&self) -> Result<u64, BenchError> {
                Ok(96 << 20)
            }
            fn weight_bytes(&self) -> u64 {
                0
            }
        }
        let series = measure(&mut Touches, &CurveOptions { positions: 1, limit: Duration::ZERO }, &mut |_| ()).unwrap();
        let grown = series.points[0].resident.unwrap() - series.resident_before.unwrap();
        assert!(grown > 80 << 20, "{grown}");
    }
}
