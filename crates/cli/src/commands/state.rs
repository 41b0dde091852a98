//! `state`: a tuned initial state from one runtime's layout into another's.

use rwkv_forge_convert::state::{self, FoundState, StateHints, StateSizes, StateTarget};
use rwkv_forge_tensor::Encoding;
use serde_json::json;

use super::models::Models;
use crate::args::{Global, State};
use crate::failure::Failure;
use crate::stdio::Destination;
use crate::terminal::{Terminal, thousands};

/// Runs the command.
pub(crate) fn run(args: &State, global: &Global, terminal: &Terminal) -> Result<u8, Failure> {
    let mut models = Models::unweighed(&args.key, global);
    let model = args.model.as_ref().map(|path| models.open(path, terminal)).transpose()?;
    let version = match &model {
        Some(model) => Some(model.description().version),
        None => args.model_version,
    };
    let sizes = model.as_ref().map(|model| StateSizes::of(model.description())).transpose()?;
    let hints = StateHints { format: args.from, version, layers: args.layers.map(usize::from), heads: args.heads.map(usize::from), sizes };
    let FoundState { state: tuned, format: from, version: said, in_model, notes, package } =
        models.open_by(|key| state::find_at(&args.source, key, &hints))?;
    models.finish()?;
    let version = version.or(said);
    for note in &notes {
        terminal.note(note);
    }
    let from = if in_model { "model" } else { from.name() };
    let format = args.to;
    let encoding = [Encoding::F32, Encoding::F16, Encoding::BF16]
        .into_iter()
        .find(|e| args.encoding.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(e.name)));
    let target = StateTarget { format, version, encoding, allow_loss: args.allow_f16_loss, package: &package };
    let beside = rwkv_forge_convert::output_beside(&args.source, Some(format.name()), format.extension());
    let output = Destination::new(args.output.as_deref(), &beside)?;
    let record = state::write(&tuned, &target, output.path(), &global.output("--output", args.force))?;
    output.deliver(terminal)?;
    terminal.wrote_result(output.named());
    if record.rounded > 0 {
        // Where it matters the file is refused, unless the user takes it as it is.
        let lost = format!(
            "{} values were rounded to {}: {} became zero, {} lost digits at the small end",
            thousands(record.rounded),
            record.encoding,
            record.flushed,
            record.subnormal
        );
        if args.allow_f16_loss {
            terminal.note(&lost);
        } else {
            terminal.aside(&format!("{lost}; nothing is to be done: they are far below the others"));
        }
    }
    terminal.print(&format!(
        "{} state of {} -> {} ({} bytes, {})\n",
        from,
        record.sizes,
        output.shown(),
        thousands(record.output_bytes),
        record.encoding
    ));
    terminal.print_json(
        "state",
        &json!({
            "source": args.source.display().to_string(),
            "from": from,
            "output": output.named().display().to_string(),
            "to": format.name(),
            "record": record,
        }),
    )?;
    Ok(0)
}
