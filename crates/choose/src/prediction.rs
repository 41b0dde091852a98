//! Whether what was evaluated predicts text at all: beside an adaptive unigram, over the same tokens.

use rwkv_forge_score::{AgainstUnigram, Evaluation, Schedule, ScoreError, UnigramLoss};

use crate::measure::Results;

/// The source beside a unigram: the baseline, or without one each model.
#[derive(Default)]
pub struct Predictions {
    /// Of the baseline, if there is one.
    pub baseline: Option<AgainstUnigram>,
    /// Of each model in order; empty with a baseline, from which the others are told apart by their divergence.
    pub models: Vec<Option<AgainstUnigram>>,
    /// What is to be said, one sentence a model.
    pub warnings: Vec<String>,
}

impl Predictions {
    /// Of models over `rows` rows. `baseline` is what sentences call the baseline.
    ///
    /// # Errors
    /// When tokens that lie in a file cannot be read.
    pub fn of(schedule: &Schedule, rows: usize, baseline: Option<&str>, results: &Results) -> Result<Self, ScoreError> {
        let unigram = UnigramLoss::of_schedule(schedule, rows)?;
        let against = |evaluation: &Evaluation| Some(unigram?.against(evaluation.nll_per_token));
        let mut out = Self::default();
        if let Some((name, evaluation)) = baseline.zip(results.baseline.as_ref()) {
            out.baseline = against(evaluation);
            out.warnings.extend(out.baseline.and_then(|found| found.warning(name)));
            return Ok(out);
        }
        for measured in &results.models {
            let found = against(&measured.evaluation);
            out.warnings.extend(found.and_then(|found| found.warning(&measured.name)));
            out.models.push(found);
        }
        Ok(out)
    }
}
