//! What models start from: the state that `--state` names, the one among their weights, or zeros.

use rwkv_forge_convert::state::{self, StateHints};
use rwkv_forge_convert::{OpenModel, starting_like};

use super::models::Models;
use super::shown;
use crate::args::StateArg;
use crate::failure::Failure;
use crate::terminal::Terminal;

/// The model as its texts start, which is said where they do not start from zeros.
pub(crate) fn started(mut model: OpenModel, arg: &StateArg, models: &mut Models<'_>, terminal: &Terminal) -> Result<OpenModel, Failure> {
    let Some(path) = &arg.state else {
        note_own(&model, terminal);
        return Ok(model);
    };
    let hints = StateHints::of(model.description())?;
    let found = models.open_by(|key| state::find_at(path, key, &hints))?;
    for note in &found.notes {
        models.note_once(format!("{}: {note}", shown(path)), terminal);
    }
    if model.model.has_start() {
        let name = shown(model.source().path());
        terminal.note(&format!("the tuned initial state in {name} is not used, since --state names another"));
    }
    model.model = found.state.start(&model.model)?;
    Ok(model)
}

/// Says that a model has a state of its own.
pub(crate) fn note_own(model: &OpenModel, terminal: &Terminal) {
    if model.model.has_start() {
        let name = shown(model.source().path());
        terminal.note(&format!("{name} holds a tuned initial state (time_state), from which every text starts"));
    }
}

/// Models as they are compared with `reference`: those that start from zeros start as it does, and it as they do.
pub(crate) fn alike(reference: OpenModel, candidate: OpenModel, terminal: &Terminal) -> Result<(OpenModel, OpenModel), Failure> {
    let candidate = like(candidate, &reference, terminal)?;
    Ok((like(reference, &candidate, terminal)?, candidate))
}

/// The model, starting as `other` does unless it has a state of its own.
pub(crate) fn like(mut model: OpenModel, other: &OpenModel, terminal: &Terminal) -> Result<OpenModel, Failure> {
    if let Some(started) = starting_like(&model.model, &other.model)? {
        let [own, other] = [&model, other].map(|model| shown(model.source().path()));
        terminal.note(&format!("{own} has no initial state: it starts from that in {other}, so that both can be compared"));
        model.model = started;
    }
    Ok(model)
}
