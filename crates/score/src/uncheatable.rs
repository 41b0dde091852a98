//! The score of the uncheatable evaluation.

use serde::Serialize;

use crate::bootstrap::{Interval, Sums, TooFew, intervals};
use crate::row::{Precision, round_to_bf16};
use crate::schedule::Schedule;
use crate::scores::Scores;

/// Scores of all data sets; a data set is a category of the schedule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Uncheatable {
    /// Mean of the data sets' scores, in percent.
    pub average: f64,
    /// Every data set, in the order in which they first appear.
    pub sets: Vec<UncheatableSet>,
    /// All texts as one data set.
    pub total: UncheatableSet,
}

/// The score of one data set. Intervals draw texts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UncheatableSet {
    /// Name of the data set.
    pub name: String,
    /// Compressed size in percent of the size: mean negative log-probability of a text in bits over eight times its mean bytes.
    /// Lower is better.
    pub score: f64,
    /// Of `score`.
    pub interval: Interval,
    /// Why there are no intervals, where there are too few texts.
    pub no_interval: Option<TooFew>,
    /// `score` of the reference.
    pub score_reference: Option<f64>,
    /// Of `score` less `score_reference`.
    pub change_interval: Interval,
    /// Texts.
    pub texts: u64,
    /// Their bytes of UTF-8.
    pub bytes: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Mean over texts of the negative log-probability, in nats.
    pub nll_per_text: f64,
}

/// Of a schedule of one of the two protocols.
pub(crate) fn uncheatable(schedule: &Schedule, scores: &Scores) -> Uncheatable {
    let mut texts: Vec<Sums> = schedule.documents.iter().map(|document| Sums { bytes: document.bytes as f64, ..Sums::default() }).collect();
    for sequence in &schedule.sequences {
        let range = sequence.first..sequence.first + sequence.scored.len();
        let text = &mut texts[sequence.document];
        text.nll += chunk_sum(&scores.nll[range.clone()], scores.precision);
        if let Some(compared) = &scores.compared {
            text.nll_reference += chunk_sum(&compared.nll_reference[range], scores.precision);
        }
    }
    let mut names: Vec<&str> = Vec::new();
    for document in &schedule.documents {
        if !names.contains(&document.category.as_str()) {
            names.push(&document.category);
        }
    }
    let set = |name: &str, member: &dyn Fn(&str) -> bool| data_set(schedule, &texts, name, member, scores.compared.is_some());
    let sets: Vec<UncheatableSet> = names.iter().map(|name| set(name, &|category| category == *name)).collect();
    let average = sets.iter().map(|set| set.score).sum::<f64>() / sets.len() as f64;
    Uncheatable { average, sets, total: set("total", &|_| true) }
}

/// The loss of a chunk. On bf16 logits the losses are a bf16 tensor, whose sum PyTorch computes in f32 and returns in bf16.
fn chunk_sum(nll: &[f64], precision: Precision) -> f64 {
    let sum = nll.iter().sum();
    match precision {
        Precision::F32 => sum,
        Precision::Bf16 => round_to_bf16(sum),
    }
}

fn data_set(schedule: &Schedule, texts: &[Sums], name: &str, member: &dyn Fn(&str) -> bool, compared: bool) -> UncheatableSet {
    let members = schedule.documents.iter().zip(texts).filter(|(document, _)| member(&document.category));
    let (documents, sums): (Vec<_>, Vec<Sums>) = members.map(|(document, sums)| (document, *sums)).unzip();
    let percent = |nll: f64, bytes: f64| nll / bytes / std::f64::consts::LN_2 / 8.0 * 100.0;
    let total = Sums::total(&sums);
    let [interval, change] =
        intervals(&sums, |drawn| [percent(drawn.nll, drawn.bytes), percent(drawn.nll - drawn.nll_reference, drawn.bytes)]);
    UncheatableSet {
        name: name.to_owned(),
        score: percent(total.nll, total.bytes),
        interval,
        no_interval: TooFew::of(sums.len(), "texts"),
        score_reference: compared.then(|| percent(total.nll_reference, total.bytes)),
        change_interval: if compared { change } else { None },
        texts: documents.len() as u64,
        bytes: documents.iter().map(|document| document.bytes).sum(),
        tokens: documents.iter().map(|document| document.tokens).sum(),
        nll_per_text: total.nll / documents.len() as f64,
    }
}
