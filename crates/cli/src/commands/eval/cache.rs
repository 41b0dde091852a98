//! What of an evaluation is kept, so that a run that was stopped goes on where it was.

use rwkv_forge_eval::LayerError;
use rwkv_forge_io::CacheKey;
use rwkv_forge_score::{Plan, Scores};
use serde::{Deserialize, Serialize};

use super::super::cache::Cache;
use crate::failure::Failure;

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

impl Cache<'_> {
    /// A measurement: a line of JSON, then the scores.
    pub(crate) fn scores(&self, name: &str) -> Option<(Note, Scores)> {
        let bytes = self.get(name)?;
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let note = serde_json::from_slice(bytes.get(..end)?).ok()?;
        Some((note, Scores::from_bytes(bytes.get(end + 1..)?).ok()?))
    }

    /// Keeps a measurement.
    pub(crate) fn keep_scores(&self, name: &str, note: &Note, scores: &Scores) -> Result<(), Failure> {
        if !self.keeps() {
            return Ok(());
        }
        let mut bytes = json(note)?;
        bytes.extend(scores.to_bytes());
        self.put(name, &bytes);
        Ok(())
    }

    /// A speed.
    pub(crate) fn speed(&self, name: &str) -> Option<Speed> {
        serde_json::from_slice(&self.get(name)?).ok()
    }

    /// Keeps a speed.
    pub(crate) fn keep_speed(&self, name: &str, speed: &Speed) -> Result<(), Failure> {
        self.put(name, &json(speed)?);
        Ok(())
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    let mut bytes = serde_json::to_vec(value).map_err(|error| Failure::bug("Json", error.to_string()))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// A key, and everything that a plan feeds and scores.
pub(crate) fn with_plan(key: CacheKey, plan: &Plan) -> Result<CacheKey, Failure> {
    let mut key = key.with(plan.protocol.name());
    for sequence in &plan.sequences {
        key = key.with_numbers([sequence.tokens.len() as u64, sequence.scored.start as u64, sequence.scored.end as u64]);
        sequence.tokens.pieces(|piece| {
            piece.iter().for_each(|token| key.add(token.to_le_bytes()));
            Ok(())
        })?;
    }
    Ok(key)
}

/// Layers as they are kept.
pub(crate) fn kept_layers(layers: &[LayerError]) -> Vec<(usize, Option<f64>, Option<f64>)> {
    layers.iter().map(|layer| (layer.layer, layer.residual, layer.state)).collect()
}

/// And back.
pub(crate) fn layers(kept: &[(usize, Option<f64>, Option<f64>)]) -> Vec<LayerError> {
    kept.iter().map(|(layer, residual, state)| LayerError { layer: *layer, residual: *residual, state: *state }).collect()
}
