//! Models that are evaluated together: what they must have in common. Start at [`tokenizer_of_all`].

use std::path::PathBuf;

use rwkv_forge_choose::Candidate;
use rwkv_forge_convert::{OpenModel, Vocabulary, Words};
use rwkv_forge_score::{GROWING_CONTEXT, Protocol};
use rwkv_forge_tokenizer::Tokenizer;

use super::super::start::like;
use super::super::tokenizer;
use super::Checked;
use crate::args;
use crate::failure::Failure;
use crate::terminal::{Terminal, thousands};

type Named = (PathBuf, OpenModel);

/// Models that are compared start alike: those without an initial state from that of the others.
pub(super) fn comparable(models: Vec<Named>, baseline: Option<Named>, terminal: &Terminal) -> Result<(Vec<Named>, Option<Named>), Failure> {
    let Some((path, mut baseline)) = baseline else { return Ok((models, None)) };
    if let Some((_, first)) = models.iter().find(|(_, model)| model.model.has_start()) {
        baseline = like(baseline, first, terminal)?;
    }
    let models = models.into_iter().map(|(path, model)| Ok((path, like(model, &baseline, terminal)?)));
    Ok((models.collect::<Result<_, Failure>>()?, Some((path, baseline))))
}

/// Only distributions over the same tokens can be compared; and one text is read with one vocabulary.
pub(super) fn same_vocabulary(first: &Checked, all: &[&Checked]) -> Result<(), Failure> {
    let rows = |checked: &Checked| checked.open.description().hyperparameters.vocabulary;
    match all.iter().find(|checked| rows(checked) != rows(first)) {
        None => Ok(()),
        Some(other) => Err(rwkv_forge_eval::EvalError::VocabularyMismatch { reference: rows(first), candidate: rows(other) }.into()),
    }
}

/// The vocabulary that texts are read with: the one given, else the one that the files have, which must be the same in all. Files that have
/// none, as a checkpoint of torch's, are read with that of the others.
pub(super) fn tokenizer_of_all(all: &[&Checked], choice: &Vocabulary, terminal: &Terminal) -> Result<Tokenizer, Failure> {
    let mut speaker: Option<(&Checked, Words)> = None;
    // One that is given is that of all.
    let own = all.iter().filter(|_| matches!(choice, Vocabulary::Auto));
    for checked in own {
        let Some(tokens) = checked.open.words()?.tokens.clone() else { continue };
        let said = Words { tokens: Some(tokens), ..Words::default() };
        let Some((first, known)) = &speaker else {
            speaker = Some((checked, said));
            continue;
        };
        if let Some(difference) = known.compare(&said).first() {
            return Err(different(first, difference.first.as_deref(), checked, difference.second.as_deref()));
        }
    }
    let Some(speaker) = speaker.map(|(checked, _)| checked).or(all.first().copied()) else {
        return Err(Failure::usage("NoModel", "there is no model to evaluate".to_owned()));
    };
    Ok(tokenizer(&speaker.open, choice, "reading the text", terminal)?)
}

fn different(first: &Checked, has: Option<&str>, second: &Checked, other: Option<&str>) -> Failure {
    let message = format!(
        "{} and {} do not have the same vocabulary ({} there, {} here), and one text is read with one: evaluate them one by one, or name with \
         --vocab the one that all are read with",
        first.name(),
        second.name(),
        has.unwrap_or("no tokens"),
        other.unwrap_or("no tokens"),
    );
    Failure::refused("VocabulariesDiffer", message)
}

/// Why texts are read in windows where nobody said how long they are: a model among all remembers every token.
pub(super) fn bounded(args: &args::EvalTexts, all: &[&Checked], terminal: &Terminal) -> Option<String> {
    let whole = args.pairs.is_none() && args.context.is_none() && args.protocol == Protocol::Stream.name();
    let growing = all.iter().find(|checked| checked.open.description().mechanisms.remembers_tokens()).filter(|_| whole)?;
    let why = format!(
        "{}: what {} remembers grows with every token, so texts are read in windows of {} tokens; --context N takes others",
        growing.name(),
        growing.open.description().version,
        thousands(GROWING_CONTEXT as u64)
    );
    terminal.note(&why);
    Some(why)
}
