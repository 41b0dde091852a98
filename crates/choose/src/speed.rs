//! Tokens a second and memory of models, measured once on a machine.

use std::num::NonZeroUsize;

use rwkv_forge_bench::{Machine, Settings, Subject};
use rwkv_forge_engine::EngineOptions;
use rwkv_forge_eval::Runnable;
use serde::{Deserialize, Serialize};

use crate::cache::{Cache, Key, Kind};
use crate::error::ChooseError;
use crate::observer::{Observer, Work};

/// Tokens decoded a round, and rounds.
const ROUNDS: (usize, usize) = (32, 5);
/// Bytes of the buffer whose reading bench times, of which nothing is shown here.
const BUFFER: usize = 8 << 20;

/// Tokens a second and bytes of memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Median over rounds of decoding, by the engine.
    pub tokens_per_second: f64,
    /// Weights, one state and buffers.
    pub memory_bytes: u64,
}

/// Measures speeds, and keeps them.
pub struct Speeds<'a> {
    cache: &'a Cache<'a>,
    machine: Machine,
}

impl<'a> Speeds<'a> {
    /// Of this machine.
    #[must_use]
    pub fn new(cache: &'a Cache<'a>) -> Self {
        Self { cache, machine: Machine::this() }
    }

    fn name(&self, identity: &str) -> String {
        let how: [(&str, &dyn std::fmt::Display); 2] = [("cpu", &self.machine.cpu), ("threads", &rayon::current_num_threads())];
        Key { kind: Kind::Speed, model: identity, against: None, text: None, how: &how }.name()
    }

    /// That of an earlier run.
    pub(crate) fn known(&self, identity: &str) -> Option<Speed> {
        serde_json::from_slice(&self.cache.get(&self.name(identity))?).ok()
    }

    /// Of a model that may be known from an earlier run, by its name and its identity.
    pub(crate) fn of(
        &self,
        (name, identity): (&str, &str),
        runnable: &Runnable,
        file_bytes: u64,
        observer: &dyn Observer,
    ) -> Result<Option<Speed>, ChooseError> {
        if let Some(speed) = self.known(identity) {
            return Ok(Some(speed));
        }
        let threads = NonZeroUsize::new(rayon::current_num_threads()).unwrap_or(NonZeroUsize::MIN);
        let options = EngineOptions { threads, ..EngineOptions::default() };
        let subject = Subject { name: name.to_owned(), model: runnable.model.clone(), file_bytes, options };
        let (tokens, repeat) = ROUNDS;
        let settings = Settings { tokens, repeat, prompts: Vec::new(), loads: 1, position: 0, buffer_bytes: Some(BUFFER) };
        let steps = observer.begin(Work::Timing);
        let report = rwkv_forge_bench::run(&[subject], &settings, &|done, total, what| {
            steps.set(done as u64, total as u64);
            steps.at(what);
        })?;
        let Some(found) = report.models.first() else { return Ok(None) };
        let memory = found.memory.used;
        let speed = Speed {
            tokens_per_second: found.decode.tokens_per_second.median,
            memory_bytes: memory.weights + memory.state + memory.scratch,
        };
        let mut bytes = serde_json::to_vec(&speed)?;
        bytes.push(b'\n');
        self.cache.put(&self.name(identity), &bytes);
        Ok(Some(speed))
    }
}
