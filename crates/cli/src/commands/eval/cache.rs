//! Results that are kept, so that a run that was stopped goes on where it was. Keys are digests of all that decides a result.

use std::path::{Path, PathBuf};

use forge_eval::LayerError;
use forge_io::{InputFile, OutputFile, OutputOptions};
use forge_score::{Plan, Scores};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::failure::Failure;

/// Raised when the same inputs give other numbers than before: the kernels, the block formats, the recipes of types.
const REVISION: &str = "rwkv-forge eval 1";
/// Entries larger than this are none of ours.
const LIMIT: u64 = 1 << 32;

/// A directory of results; without one, nothing is kept.
pub(crate) struct Cache {
    directory: Option<PathBuf>,
}

/// What is kept of a measurement besides its scores.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// What the result is of, for people who look into the directory.
    pub what: String,
    /// Errors after each layer: number, of the residual stream, of the state.
    pub layers: Vec<(usize, Option<f64>, Option<f64>)>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// Tokens a second and bytes of memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Speed {
    /// Median over rounds of decoding, by the engine.
    pub tokens_per_second: f64,
    /// Weights, one state and buffers.
    pub memory_bytes: u64,
}

impl Cache {
    /// In a directory, which is made; `None` keeps nothing.
    pub(crate) fn new(directory: Option<PathBuf>) -> Result<Self, Failure> {
        if let Some(directory) = &directory {
            std::fs::create_dir_all(directory).map_err(|error| {
                let place = directory.display();
                Failure { kind: "Cache".to_owned(), message: format!("{place}: {error}; name another place with --cache"), code: 4 }
            })?;
        }
        Ok(Self { directory })
    }

    /// Where results are kept when nobody says where.
    pub(crate) fn usual_place() -> Option<PathBuf> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let base = variable("XDG_CACHE_HOME").filter(|path| path.is_absolute());
        Some(base.or_else(|| Some(variable("HOME")?.join(".cache")))?.join("rwkv-forge"))
    }

    fn path(&self, key: &str, extension: &str) -> Option<PathBuf> {
        Some(self.directory.as_ref()?.join(format!("{key}.{extension}")))
    }

    /// A measurement; `None` when there is none, or what lies there is damaged.
    pub(crate) fn scores(&self, key: &str) -> Option<(Note, Scores)> {
        let bytes = read(&self.path(key, "scores")?)?;
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let note = serde_json::from_slice(bytes.get(..end)?).ok()?;
        Some((note, Scores::from_bytes(bytes.get(end + 1..)?).ok()?))
    }

    /// Keeps a measurement: a line of JSON, then the scores.
    pub(crate) fn keep_scores(&self, key: &str, note: &Note, scores: &Scores) -> Result<(), Failure> {
        let Some(path) = self.path(key, "scores") else { return Ok(()) };
        let mut bytes = json(note)?;
        bytes.extend(scores.to_bytes());
        write(&path, &bytes)
    }

    /// A speed.
    pub(crate) fn speed(&self, key: &str) -> Option<Speed> {
        serde_json::from_slice(&read(&self.path(key, "speed")?)?).ok()
    }

    /// Keeps a speed.
    pub(crate) fn keep_speed(&self, key: &str, speed: &Speed) -> Result<(), Failure> {
        self.path(key, "speed").map_or(Ok(()), |path| write(&path, &json(speed)?))
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    let mut bytes = serde_json::to_vec(value).map_err(|error| Failure::bug("Json", error.to_string()))?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let file = InputFile::open(path).ok()?;
    file.read_vec(0, file.len(), LIMIT).ok()
}

/// Complete or not at all, whatever happens meanwhile.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let file = OutputFile::create(path, &OutputOptions { force: true, expected_bytes: bytes.len() as u64, ..OutputOptions::default() })?;
    file.write_all_at(0, bytes)?;
    Ok(file.commit()?)
}

/// What decides a result becomes a key, part after part.
#[derive(Clone)]
pub(crate) struct Key(Sha256);

impl Key {
    /// Of a kind of result.
    pub(crate) fn new(kind: &str) -> Self {
        Self(Sha256::new()).with(REVISION).with(kind)
    }

    /// And this.
    pub(crate) fn with(mut self, part: &str) -> Self {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part.as_bytes());
        self
    }

    /// And everything that a plan feeds and scores.
    pub(crate) fn with_plan(mut self, plan: &Plan) -> Self {
        self = self.with(plan.protocol.name());
        for sequence in &plan.sequences {
            for number in [sequence.tokens.len(), sequence.scored.start, sequence.scored.end] {
                self.0.update((number as u64).to_le_bytes());
            }
            for token in &sequence.tokens {
                self.0.update(token.to_le_bytes());
            }
        }
        self
    }

    /// The key as a file name.
    pub(crate) fn finish(self) -> String {
        forge_io::hex(&self.0.finalize())
    }
}

/// Layers as they are kept.
pub(crate) fn kept_layers(layers: &[LayerError]) -> Vec<(usize, Option<f64>, Option<f64>)> {
    layers.iter().map(|layer| (layer.layer, layer.residual, layer.state)).collect()
}

/// And back.
pub(crate) fn layers(kept: &[(usize, Option<f64>, Option<f64>)]) -> Vec<LayerError> {
    kept.iter().map(|(layer, residual, state)| LayerError { layer: *layer, residual: *residual, state: *state }).collect()
}
