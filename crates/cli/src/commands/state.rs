//! `state`: a tuned initial state from one runtime's layout into another's.

use rwkv_forge_convert::state::{self, FoundState, StateHints, StateSizes, StateTarget};
use rwkv_forge_tensor::Encoding;
use serde_json::json;

use super::models::Models;
use super::shown;
use crate::args::{Global, State};
use crate::failure::Failure;
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
    let output =
        args.output.clone().unwrap_or_else(|| rwkv_forge_convert::output_beside(&args.source, Some(format.name()), format.extension()));
    let record = state::write(&tuned, &target, &output, &global.output("--output", args.force))?;
    if record.rounded > 0 {
        terminal.note(&format!(
            "{} values were rounded to {}: {} became zero, {} lost digits at the small end",
            thousands(record.rounded),
            record.encoding,
            record.flushed,
            record.subnormal
        ));
    }
    terminal.print(&format!(
        "{} state of {} -> {} ({} bytes, {})\n",
        from,
        record.sizes,
        shown(&output),
        thousands(record.output_bytes),
        record.encoding
    ));
    terminal.print_json(
        "state",
        &json!({
            "source": args.source.display().to_string(),
            "from": from,
            "output": output.display().to_string(),
            "to": format.name(),
            "record": record,
        }),
    )?;
    Ok(0)
}
