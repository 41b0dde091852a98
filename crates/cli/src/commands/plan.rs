//! `plan`: a type for each tensor, within a budget of bytes or of accuracy loss. Planning is `rwkv-forge-choose`'s.

use std::borrow::Cow;
use std::path::Path;
use std::time::Instant;

use rwkv_forge_calibrate::Hessians;
use rwkv_forge_choose::{Cache, Estimate, Finished, Goal, PlanTexts, Planned, Planner, TensorHarm, Unit, start};
use rwkv_forge_convert::container::by_name;
use rwkv_forge_convert::recipe::quantizer_by_name;
use rwkv_forge_convert::{ConvertOptions, OpenModel, Vocabulary};
use rwkv_forge_corpus::BUILT_IN;
use rwkv_forge_io::OutputFile;
use rwkv_forge_score::Protocol;
use serde_json::json;

use super::eval::texts::Texts;
use super::models::open_model;
use super::start::note_own;
use super::{calibration, model_line, needs_head, number, open_options, options_again, shell_path, shown, tokenizer, vocabulary};
use crate::args::{EvalTexts, Global, Plan};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::stdio::Destination;
use crate::terminal::{Terminal, table, thousands};

/// Runs the command.
pub(crate) fn run(args: &Plan, global: &Global, terminal: &Terminal) -> Result<u8, Failure> {
    let args = &*calibrated_on_something(args);
    let model = open_model(&args.source, &args.source_args, global, terminal)?;
    needs_head(&model)?;
    note_own(&model, terminal);
    let vocabulary = vocabulary(&args.vocabulary)?;
    let container = by_name(&args.to)?;
    let recipe = start(container)?;
    if args.calibration.calibrate == [Path::new(BUILT_IN)] {
        terminal.note("calibrated on the built-in text; one of the kind that the model will read does better: --calibrate FILE");
    }
    let stem = rwkv_forge_convert::name_of(&args.source);
    let words = rwkv_forge_convert::named_after(&args.source);
    let convert = ConvertOptions {
        // As convert names it: the name is a part of the file's bytes.
        words: Some(&words),
        open: open_options(global),
        ..ConvertOptions::new(container, &recipe, &vocabulary)
    };
    let mut planner = Planner::new(&model, convert, goal(args));
    (planner.quantizer, planner.budget) = (quantizer_by_name(&args.quantizer)?, args.budget);
    planner.probes.windows = args.probe_windows.get();
    planner.limit(global.threads, args.max_memory);
    // All that can be refused without a text is refused before one is read.
    planner.check()?;
    let shown = Progress::new(terminal, "reading the text", Unit::Steps);
    let text = calibration::collections(&args.calibration.calibrate)?;
    let tokens = calibration::tokens(&model, &vocabulary, &text)?;
    drop(shown);
    let texts = texts(args, &model, &vocabulary, terminal)?;
    if args.dry_run {
        let _shown = Progress::new(terminal, "estimating", Unit::Steps);
        let estimate = planner.estimate(&tokens, args.calibration.calibration_windows.get())?;
        return dry_run(&model, estimate, terminal);
    }
    let beside = args.source.with_file_name(format!("{}-plan.toml", stem.as_deref().unwrap_or("model")));
    let output = Destination::new(args.output.as_deref(), &beside)?;
    // Begun before the work, so that a name that cannot be fails early.
    let file = OutputFile::create(output.path(), &global.output("--output", args.force))?;
    let started = Instant::now();
    let statistics = calibration::calibrated(&args.calibration, &model, &tokens, Hessians::All, args.force, global, terminal)?;
    let calibrating = started.elapsed().as_secs_f64();
    let of = PlanTexts { calibration: &tokens, measured: &texts.schedule };
    let mut heard = |planned: &Planned| terminal.detail(&sentence(planned));
    let finished = planner.run(of, &statistics, &Cache::usual(terminal), terminal, &mut heard)?;
    let written = header(args, &model, &finished.planned) + &finished.recipe.to_toml()?;
    file.write_all_at(0, written.as_bytes())?;
    file.commit()?;
    output.deliver(terminal)?;
    terminal.wrote_result(output.named());
    report(args, &planner, &finished, &Written { output: &output, texts: &texts, calibrating }, terminal)?;
    Ok(u8::from(!finished.planned.met))
}

/// What there is to tell besides the plan.
struct Written<'a> {
    output: &'a Destination,
    texts: &'a Texts,
    calibrating: f64,
}

/// Says what was planned.
fn report(args: &Plan, planner: &Planner<'_>, finished: &Finished, written: &Written<'_>, terminal: &Terminal) -> Result<(), Failure> {
    let Finished { planned, harms, exponents, prediction, probing, measuring, .. } = finished;
    let Written { output, texts, calibrating } = written;
    print(planner.model, harms, planned, terminal)?;
    if let Some(warning) = prediction.and_then(|prediction| prediction.warning("the source")) {
        terminal.warn(&warning);
    }
    if let Some(words) = beyond(*probing, args.budget) {
        terminal.note(&words);
    }
    terminal.print(&format!(
        "wrote {} in {:.1} s: calibrating {calibrating:.1} s, probing {probing:.1} s, quantizing and measuring {measuring:.1} s\n",
        output.shown(),
        calibrating + probing + measuring
    ));
    if let Destination::File(recipe) = output {
        terminal.print(&format!("=> write the file with: {}\n", conversion(args, &shell_path(recipe), |path| path)));
    }
    terminal.print_json(
        "plan",
        &json!({
            "source": args.source.display().to_string(),
            "recipe": output.named().display().to_string(),
            "goal": planner.goal,
            "planned": planned,
            "prediction": prediction,
            "exponents": exponents,
            "harms": harms,
            "texts": texts.sources,
            "seconds": { "calibrating": calibrating, "probing": probing, "measuring": measuring },
            "peak_memory_bytes": rwkv_forge_io::peak_memory_bytes(),
        }),
    )
}

/// That probing took longer than it was given: whole probes alone are made, and some are made whatever the time.
fn beyond(probing: f64, budget: std::time::Duration) -> Option<String> {
    let budget = budget.as_secs_f64();
    (probing > budget * 1.1).then(|| {
        format!(
            "probing took {probing:.1} s, more than --budget {budget} s: one tensor of each kind is probed in any case; --probe-windows \
             makes each probe shorter"
        )
    })
}

fn goal(args: &Plan) -> Goal {
    match (args.size, args.bpw, args.max_kl, args.max_ppl_ratio) {
        (Some(bytes), ..) => Goal::Size(bytes),
        (_, Some(bits), ..) => Goal::BitsPerWeight(bits),
        (.., Some(limit), _) => Goal::MaxKl(limit),
        (.., ratio) => Goal::MaxPerplexityRatio(ratio.unwrap_or(1.0)),
    }
}

/// A plan weighs errors by the inputs that weights have on a text: without one, on the built-in text.
fn calibrated_on_something(args: &Plan) -> Cow<'_, Plan> {
    if !args.calibration.calibrate.is_empty() {
        return Cow::Borrowed(args);
    }
    let mut args = args.clone();
    args.calibration.calibrate.push(BUILT_IN.into());
    Cow::Owned(args)
}

/// What the whole is measured on: windows of 512 tokens, the second halves scored.
fn texts(args: &Plan, model: &OpenModel, vocabulary: &Vocabulary, terminal: &Terminal) -> Result<Texts, Failure> {
    let tokenizer = tokenizer(model, vocabulary, "reading the text", terminal)?;
    let texts = EvalTexts {
        paths: args.texts.clone(),
        pairs: None,
        protocol: "llama".to_owned(),
        context: None,
        bytes: args.bytes,
        calibration: args.calibration.calibrate.clone(),
        allow_leak: args.allow_leak,
    };
    Texts::read(&texts, Protocol::by_name(&texts.protocol, None)?, &tokenizer, args.max_memory, terminal)
}

/// Says what a plan will take.
fn dry_run(model: &OpenModel, estimate: Estimate, terminal: &Terminal) -> Result<u8, Failure> {
    let Estimate { tensors, calibrating, probing } = estimate;
    terminal.print(&format!("{}\n", model_line(model.description())));
    terminal.print(&format!(
        "{tensors} tensors to choose types for; about {calibrating:.0} s of calibrating and {probing:.0} s of probing, then quantizing and measuring\n"
    ));
    terminal.print_json(
        "plan",
        &json!({ "dry_run": true, "tensors": tensors, "seconds": { "calibrating": calibrating, "probing": probing } }),
    )?;
    Ok(0)
}

/// What a reader of the recipe wants to know.
fn header(args: &Plan, model: &OpenModel, planned: &Planned) -> String {
    // A name with a line end would go on as a line of the recipe.
    let source = shown(args.source.file_name().unwrap_or(args.source.as_os_str()).as_ref());
    // Names without folders: the same plan of the same files is the same file, wherever they lie.
    let command = conversion(args, "FILE", |path| path.file_name().map_or(path, Path::new));
    format!("# Plan for {source} ({})\n# {}\n# {command}\n", model_line(model.description()), sentence(planned))
}

/// What to type to get the file that is planned. `place` is how a path is named.
fn conversion(args: &Plan, recipe: &str, place: impl Fn(&Path) -> &Path) -> String {
    let named = |path: &Path| shell_path(place(path));
    let mut command = format!("rwkv-forge convert {} --to {} --recipe {recipe}", named(&args.source), args.to);
    command.push_str(&options_again(&args.source_args, &args.vocabulary, named));
    command.push_str(&calibration::option(&args.calibration, named));
    command
}

fn sentence(planned: &Planned) -> String {
    let predicted = format!("{} bytes; predicted KL {}", thousands(planned.bytes), number(planned.predicted_kl));
    match planned.measured.as_ref().and_then(|measured| measured.kl.as_ref()) {
        None => predicted,
        Some(kl) => {
            let interval = match (kl.interval, kl.no_interval) {
                (Some([low, high]), _) => format!(" [{}, {}]", number(low), number(high)),
                (None, Some(why)) => format!(" (no interval: {why})"),
                (None, None) => String::new(),
            };
            format!("{predicted}, measured {}{interval} nats a token", number(kl.mean))
        }
    }
}

fn print(model: &OpenModel, harms: &[TensorHarm], planned: &Planned, terminal: &Terminal) -> Result<(), Failure> {
    terminal.print(&format!("{}\n\n", model_line(model.description())));
    let mut roles: Vec<&str> = Vec::new();
    for harm in harms {
        if !roles.contains(&harm.role) {
            roles.push(harm.role);
        }
    }
    let rows = roles.into_iter().map(|role| {
        let own: Vec<_> = harms.iter().zip(&planned.types).filter(|(harm, _)| harm.role == role).collect();
        let mut names: Vec<(&str, usize)> = Vec::new();
        for (_, (_, name, _)) in &own {
            match names.iter_mut().find(|(known, _)| known == name) {
                Some((_, count)) => *count += 1,
                None => names.push((name, 1)),
            }
        }
        names.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let types = names.iter().map(|(name, count)| if *count > 1 { format!("{count} {name}") } else { (*name).to_owned() });
        let harm: f64 = own.iter().map(|(_, (_, _, harm))| harm).sum();
        vec![role.to_owned(), types.collect::<Vec<_>>().join(", "), number(harm)]
    });
    terminal.print(&table(&["role", "types", "predicted KL"], rows.collect(), &[2])?);
    terminal.print(&format!("{}\n", sentence(planned)));
    if let Some(measured) = &planned.measured {
        let top1 = measured.top1.map_or_else(String::new, |top1| format!(", same most likely token {:.2} %", top1 * 100.0));
        let ratio = measured.perplexity_ratio.as_ref().map_or_else(String::new, |ratio| format!(", perplexity ratio {:.4}", ratio.ratio));
        terminal.print(&format!("on {} tokens{top1}{ratio}\n", thousands(measured.tokens)));
    }
    if !planned.met {
        terminal.print("not met: the goal was not reached\n");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_budget_that_was_not_kept_is_told() {
        assert_eq!(beyond(10.9, Duration::from_secs(10)), None);
        assert!(
            beyond(30.0, Duration::from_secs(10)).is_some_and(|words| words.starts_with("probing took 30.0 s, more than --budget 10 s: "))
        );
    }
}
