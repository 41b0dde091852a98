//! Tokens a second and memory of models, as they are on this machine now: nothing of it is kept for later runs, since another minute
//! may be another machine.

use std::num::NonZeroUsize;

use rwkv_forge_bench::{Doubt, ModelReport, Settings, Subject};
use rwkv_forge_engine::EngineOptions;
use rwkv_forge_eval::Runnable;
use serde::Serialize;

use crate::error::ChooseError;
use crate::observer::{Observer, Work};

/// Tokens decoded a round, and rounds.
const ROUNDS: (usize, usize) = (32, 5);
/// Bytes of the buffer whose reading bench times, of which nothing is shown here.
const BUFFER: usize = 8 << 20;
/// Times that a speed is measured at most, while there are doubts.
const TRIES: usize = 3;

/// Tokens a second and bytes of memory.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Speed {
    /// Median over rounds of decoding, by the engine.
    pub tokens_per_second: f64,
    /// A quarter of the rounds was slower.
    pub quartile_1: f64,
    /// A quarter of the rounds was faster.
    pub quartile_3: f64,
    /// Weights, one state and buffers.
    pub memory_bytes: u64,
    /// What speaks against it after the last try; empty for a speed that was measured in quiet.
    pub doubts: Vec<Doubt>,
}

impl Speed {
    fn of(found: &ModelReport) -> Self {
        let (rate, memory) = (found.decode.tokens_per_second, found.memory.used);
        Self {
            tokens_per_second: rate.median,
            quartile_1: rate.quartile_1,
            quartile_3: rate.quartile_3,
            memory_bytes: memory.weights + memory.state + memory.scratch,
            // What memory allows is not asked here.
            doubts: found.doubts.iter().copied().filter(|doubt| !doubt.is_of_bandwidth()).collect(),
        }
    }

    /// Distance of the quartiles over the median.
    #[must_use]
    pub fn spread(&self) -> f64 {
        (self.quartile_3 - self.quartile_1) / self.tokens_per_second
    }

    /// Whether nothing speaks against it.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.doubts.is_empty()
    }
}

/// Measures the speed of a model: again while something else runs, and of all tries the one with the least spread is told.
/// The second name is what progress calls it.
pub(crate) fn measure(
    (name, step): (&str, &str),
    runnable: &Runnable,
    file_bytes: u64,
    observer: &dyn Observer,
) -> Result<Option<Speed>, ChooseError> {
    let threads = NonZeroUsize::new(rayon::current_num_threads()).unwrap_or(NonZeroUsize::MIN);
    let options = EngineOptions { threads, ..EngineOptions::default() };
    let subject = Subject { name: name.to_owned(), model: runnable.model.clone(), file_bytes, options };
    let (tokens, repeat) = ROUNDS;
    let settings = Settings { tokens, repeat, prompts: Vec::new(), loads: 1, position: 0, buffer_bytes: Some(BUFFER) };
    let steps = observer.begin(Work::Timing);
    let mut best: Option<Speed> = None;
    for _ in 0..TRIES {
        let report = rwkv_forge_bench::run(std::slice::from_ref(&subject), &settings, &|done, total, what| {
            steps.set(done as u64, total as u64);
            steps.at(&format!("{step}: {what}"));
        })?;
        let Some(found) = report.models.first().map(Speed::of) else { break };
        if best.as_ref().is_none_or(|best| found.is_sound() || found.spread() < best.spread()) {
            best = Some(found);
        }
        if best.as_ref().is_some_and(Speed::is_sound) {
            break;
        }
    }
    Ok(best)
}
