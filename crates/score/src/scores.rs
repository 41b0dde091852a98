//! The numbers of every scored token, as columns in the order of a schedule, and their form in a cache.

use serde::Serialize;

use crate::error::ScoreError;
use crate::row::{Compared, Precision, Row};
use crate::schedule::Schedule;

/// First bytes of the form in a cache: a name and the version of this form.
const MAGIC: [u8; 8] = *b"rfscore1";
/// Bytes of the head of that form: magic, precision, whether compared, length.
const HEAD: usize = 8 + 1 + 1 + 8;

/// One entry per scored token, in the order of the schedule's sequences.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// On what numbers `nll` was computed.
    pub precision: Precision,
    /// Negative natural logarithm of the token's probability.
    pub nll: Vec<f64>,
    /// Against a reference; of the same length.
    pub compared: Option<ComparedScores>,
}

/// How the distributions differ from those of a reference, one entry per scored token.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ComparedScores {
    /// KL(reference || candidate) in nats.
    pub kl: Vec<f64>,
    /// `nll` of the reference.
    pub nll_reference: Vec<f64>,
    /// Probability of the token less that of the reference.
    pub delta_p: Vec<f64>,
    /// Whether both have the same most likely token.
    pub same_top1: Vec<bool>,
}

impl Scores {
    /// No scores of one model.
    #[must_use]
    pub fn new(precision: Precision) -> Self {
        Self { precision, nll: Vec::new(), compared: None }
    }

    /// No scores of one model against a reference.
    #[must_use]
    pub fn against_reference(precision: Precision) -> Self {
        Self { compared: Some(ComparedScores::default()), ..Self::new(precision) }
    }

    /// Number of scored tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nll.len()
    }

    /// True without any score.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nll.is_empty()
    }

    /// Adds the next token of a model alone. With scores against a reference nothing may be added so: see [`Scores::push_compared`].
    ///
    /// # Errors
    /// [`ScoreError::Mismatch`] when the scores are against a reference.
    pub fn push(&mut self, row: Row) -> Result<(), ScoreError> {
        if let Some(compared) = &self.compared {
            return Err(ScoreError::Mismatch { what: "rows without a reference", found: self.nll.len() + 1, expected: compared.kl.len() });
        }
        self.nll.push(row.nll);
        Ok(())
    }

    /// Adds the next token, against a reference.
    ///
    /// # Errors
    /// [`ScoreError::Mismatch`] when the scores are of one model alone.
    pub fn push_compared(&mut self, row: Compared) -> Result<(), ScoreError> {
        let Some(compared) = &mut self.compared else {
            return Err(ScoreError::Mismatch { what: "rows with a reference", found: self.nll.len() + 1, expected: 0 });
        };
        self.nll.push(row.candidate.nll);
        compared.kl.push(row.kl);
        compared.nll_reference.push(row.reference.nll);
        compared.delta_p.push(row.delta_p());
        compared.same_top1.push(row.same_top1());
        Ok(())
    }

    /// Adds the scores that follow these.
    ///
    /// # Errors
    /// [`ScoreError::Mismatch`] when only one of them is against a reference, or the precisions differ.
    pub fn append(&mut self, mut next: Self) -> Result<(), ScoreError> {
        match (&mut self.compared, &mut next.compared) {
            (None, None) if self.precision == next.precision => {}
            (Some(here), Some(next_compared)) if self.precision == next.precision => {
                here.kl.append(&mut next_compared.kl);
                here.nll_reference.append(&mut next_compared.nll_reference);
                here.delta_p.append(&mut next_compared.delta_p);
                here.same_top1.append(&mut next_compared.same_top1);
            }
            _ => return Err(ScoreError::Mismatch { what: "scores of different kinds", found: next.len(), expected: self.len() }),
        }
        self.nll.append(&mut next.nll);
        Ok(())
    }

    /// That there is one score for each scored token of the schedule.
    pub(crate) fn check(&self, schedule: &Schedule) -> Result<(), ScoreError> {
        let mut lengths = vec![self.nll.len()];
        if let Some(compared) = &self.compared {
            lengths.extend([compared.kl.len(), compared.nll_reference.len(), compared.delta_p.len(), compared.same_top1.len()]);
        }
        let expected = schedule.scored();
        match lengths.into_iter().find(|length| *length != expected) {
            Some(found) => Err(ScoreError::Mismatch { what: "scores for the scored tokens", found, expected }),
            None => Ok(()),
        }
    }

    /// The form in a cache: little-endian, `[magic: 8] [precision: 1] [compared: 1] [tokens: u64] [nll: f64 each]` and, against a
    /// reference, `[kl: f64 each] [nll_reference: f64 each] [delta_p: f64 each] [same_top1: 1 each]`.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(self.precision.code());
        out.push(u8::from(self.compared.is_some()));
        out.extend_from_slice(&(self.nll.len() as u64).to_le_bytes());
        let mut column = |values: &[f64]| values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
        column(&self.nll);
        if let Some(compared) = &self.compared {
            column(&compared.kl);
            column(&compared.nll_reference);
            column(&compared.delta_p);
            out.extend(compared.same_top1.iter().map(|same| u8::from(*same)));
        }
        out
    }

    /// Reads what [`Scores::to_bytes`] made.
    ///
    /// # Errors
    /// [`ScoreError::Damaged`] for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ScoreError> {
        let damaged = |field: &str, found: String, expected: String| ScoreError::Damaged {
            what: format!("the record of scores, {field}"),
            found,
            expected,
        };
        let Some((head, mut rest)) = bytes.split_at_checked(HEAD) else {
            return Err(damaged("length", format!("{} bytes", bytes.len()), format!("{HEAD} or more")));
        };
        if head[..8] != MAGIC {
            return Err(damaged("first bytes", format!("{:?}", &head[..8]), format!("{MAGIC:?}")));
        }
        let precision = Precision::from_code(head[8]).ok_or_else(|| damaged("precision", head[8].to_string(), "0 or 1".to_owned()))?;
        let width = match head[9] {
            0 => 8,
            1 => 33,
            other => return Err(damaged("kind", other.to_string(), "0 or 1".to_owned())),
        };
        let tokens = u64::from_le_bytes(std::array::from_fn(|i| head[10 + i]));
        let needed = tokens.checked_mul(width);
        if needed != Some(rest.len() as u64) {
            return Err(damaged("length", format!("{} bytes", rest.len()), format!("{tokens} times {width}")));
        }
        let count = rest.len() / if width == 8 { 8 } else { 33 };
        let nll = column(&mut rest, count);
        let compared = (head[9] == 1).then(|| ComparedScores {
            kl: column(&mut rest, count),
            nll_reference: column(&mut rest, count),
            delta_p: column(&mut rest, count),
            same_top1: rest.iter().map(|byte| *byte != 0).collect(),
        });
        Ok(Self { precision, nll, compared })
    }
}

/// Takes `count` numbers from the front.
fn column(bytes: &mut &[u8], count: usize) -> Vec<f64> {
    let (here, rest) = bytes.split_at(count * 8);
    *bytes = rest;
    here.as_chunks().0.iter().map(|value| f64::from_le_bytes(*value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(count: u32) -> Scores {
        let mut scores = Scores::against_reference(Precision::Bf16);
        for i in 0..count {
            let row = |shift: f64| Row { nll: f64::from(i) + shift, argmax: i % 3, p: 0.25 };
            scores.push_compared(Compared { reference: row(0.0), candidate: row(0.5), kl: f64::from(i) * 1e-3 }).unwrap();
        }
        scores
    }

    #[test]
    fn records_lead_back_to_the_scores() {
        let mut plain = Scores::new(Precision::F32);
        plain.push(Row { nll: 1.25, argmax: 7, p: 0.3 }).unwrap();
        for scores in [plain, compared(5), compared(0)] {
            assert_eq!(Scores::from_bytes(&scores.to_bytes()).unwrap(), scores);
        }
    }

    #[test]
    fn damaged_records_are_refused() {
        let good = compared(3).to_bytes();
        for length in 0..good.len() {
            assert!(Scores::from_bytes(&good[..length]).is_err(), "{length}");
        }
        for (at, value) in [(0, b'R'), (8, 2), (9, 2), (9, 0), (10, 4), (17, 255)] {
            let mut bad = good.clone();
            bad[at] = value;
            let error = Scores::from_bytes(&bad).unwrap_err();
            assert!(matches!(error, ScoreError::Damaged { .. }), "{at}: {error}");
        }
    }

    #[test]
    fn scores_are_appended_in_order_and_only_to_their_kind() {
        let mut scores = compared(2);
        scores.append(compared(3)).unwrap();
        assert_eq!(scores.nll, [0.5, 1.5, 0.5, 1.5, 2.5]);
        assert_eq!(scores.compared.as_ref().map(|c| c.same_top1.len()), Some(5));
        assert!(scores.append(Scores::new(Precision::Bf16)).is_err());
        assert!(scores.push(Row { nll: 1.0, argmax: 0, p: 0.5 }).is_err());
        let mut plain = Scores::new(Precision::F32);
        assert!(plain.append(Scores::new(Precision::Bf16)).is_err());
    }
}
