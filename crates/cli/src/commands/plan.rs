//! `plan`: a type for each tensor, within a budget of bytes or of accuracy loss.

use std::cell::Cell;
use std::time::Instant;

use rwkv_forge_calibrate::Hessians;
use rwkv_forge_choose::cache::{Cache, Key, Kind, of_tokens};
use rwkv_forge_choose::{Goal, HarmOptions, Planned, Planning, Probe, ProbeOptions, Probed, TensorHarm, check, harms};
use rwkv_forge_convert::container::by_name;
use rwkv_forge_convert::recipe::{CalibrationRecord, Recipe, quantizer_by_name};
use rwkv_forge_convert::{Calibrated, ConvertOptions, OpenModel, Prepared, Vocabulary};
use rwkv_forge_corpus::ReadOptions;
use rwkv_forge_eval::{Baseline, LossOptions, Model, PassOptions};
use rwkv_forge_io::OutputFile;
use rwkv_forge_score::{AgainstUnigram, UnigramLoss};
use serde_json::json;

use super::eval::texts::Texts;
use super::{calibration, model_line, number, open_options, shown, tokenizer, vocabulary};
use crate::args::{EvalTexts, Global, Plan};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::terminal::{Terminal, table, thousands};

/// Runs the command.
pub(crate) fn run(args: &Plan, global: &Global, terminal: &Terminal) -> Result<u8, Failure> {
    let model = rwkv_forge_convert::open(&args.source, open_options(global))?;
    let vocabulary = vocabulary(&args.vocabulary)?;
    if args.calibration.calibrate.is_empty() {
        let message = "a plan weighs errors by the inputs that weights have on a text: give one with --calibrate".to_owned();
        return Err(Failure::usage("CalibrationNeeded", message));
    }
    let goal = goal(args);
    let mut recipe = Recipe::new(None, Some(base_type(args)), &[])?;
    // As convert names it: the name is a part of the file's bytes.
    let name = args.source.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    // All that can be refused without a text is refused before one is read.
    let quantizer = quantizer_by_name(&args.quantizer)?;
    recipe.calibration = Some(CalibrationRecord::placeholder());
    check(&model, &convert_options(args, &recipe, &vocabulary, name.as_deref(), global)?, quantizer, goal)?;
    let text = calibration::collections(&args.calibration.calibrate, &ReadOptions::default())?;
    let tokens = calibration::tokens(&model, &vocabulary, &text)?;
    let texts = texts(args, &model, &vocabulary, terminal)?;
    let output = args.output.clone().unwrap_or_else(|| {
        let stem = args.source.file_stem().map_or_else(|| "model".to_owned(), |stem| stem.to_string_lossy().into_owned());
        args.source.with_file_name(format!("{stem}-plan.toml"))
    });
    let options = probe_options(args, global);
    if args.dry_run {
        return dry_run(args, &model, &tokens, options, terminal);
    }
    // Begun before the work, so that a name that cannot be fails early.
    let file = OutputFile::create(&output, &global.output("--output", args.force))?;
    let started = Instant::now();
    let statistics = calibration::calibrated(&args.calibration, &model, &tokens, Hessians::All, args.force, global, terminal)?;
    let calibrating = started.elapsed().as_secs_f64();
    let started = Instant::now();
    let (harms, exponents) = probe(args, &model, &tokens, options, &statistics, terminal)?;
    let probing = started.elapsed().as_secs_f64();
    let started = Instant::now();
    recipe.calibration = Some(statistics.record());
    let convert = convert_options(args, &recipe, &vocabulary, name.as_deref(), global)?;
    let loss = LossOptions { pass: pass_options(args, global), ..LossOptions::default() };
    let planning = Planning { model: &model, convert, calibration: Some(&statistics), quantizer, harms: &harms, loss: loss.clone() };
    planning.estimate(goal)?;
    let progress = Progress::new(terminal, "measuring", false);
    let mut step = |step: rwkv_forge_eval::Step| progress.set(step.done as u64, step.total as u64);
    let mut baseline = Baseline::new(Model::new(&model.model), &texts.plan, &loss, &mut step)?;
    let mut heard = |planned: &Planned| terminal.detail(&sentence(planned));
    let (planned, chosen) = planning.run(goal, &mut baseline, &mut heard, &mut step)?;
    drop(progress);
    let measuring = started.elapsed().as_secs_f64();
    for note in planned.prepared.iter().filter_map(Prepared::note) {
        terminal.warn(&note);
    }
    let written = header(args, &model, &planned) + &chosen.to_toml()?;
    file.write_all_at(0, written.as_bytes())?;
    file.commit()?;
    print(args, &model, &harms, &planned, terminal);
    let prediction = prediction(&model, &texts, &planned)?;
    if let Some(warning) = prediction.and_then(|prediction| prediction.warning("the source")) {
        terminal.warn(&warning);
    }
    terminal.print(&format!(
        "wrote {} in {calibrating:.0} s of calibrating, {probing:.0} s of probing, {measuring:.0} s of quantizing and measuring\n",
        shown(&output)
    ));
    terminal.print_json(
        "plan",
        &json!({
            "source": args.source.display().to_string(),
            "recipe": output.display().to_string(),
            "goal": goal,
            "planned": planned,
            "prediction": prediction,
            "exponents": exponents,
            "harms": harms,
            "texts": texts.sources,
            "seconds": { "calibrating": calibrating, "probing": probing, "measuring": measuring },
            "peak_memory_bytes": rwkv_forge_io::peak_memory_bytes(),
        }),
    )?;
    Ok(u8::from(!planned.met))
}

/// What the planned file will be written with.
fn convert_options<'a>(
    args: &Plan,
    recipe: &'a Recipe,
    vocabulary: &'a Vocabulary,
    name: Option<&'a str>,
    global: &Global,
) -> Result<ConvertOptions<'a>, Failure> {
    Ok(ConvertOptions {
        container: by_name(&args.to)?,
        recipe,
        vocabulary,
        treatment: None,
        name,
        // Nothing is written: what a short vocabulary means is said where the text is read.
        pad_vocabulary: true,
        requantize: false,
        allow_f16_loss: false,
        force: false,
        claims: None,
        open: open_options(global),
        verify: None,
        prepared: None,
    })
}

/// How well the source predicts the text on which the plan was measured.
fn prediction(model: &OpenModel, texts: &Texts, planned: &Planned) -> Result<Option<AgainstUnigram>, Failure> {
    let unigram = UnigramLoss::of_plan(&texts.plan, model.description().hyperparameters.vocabulary)?;
    let ratio = planned.measured.as_ref().and_then(|measured| measured.perplexity_ratio.as_ref());
    Ok(unigram.zip(ratio).map(|(unigram, ratio)| unigram.against(ratio.reference.ln())))
}

fn goal(args: &Plan) -> Goal {
    match (args.size, args.bpw, args.max_kl, args.max_ppl_ratio) {
        (Some(bytes), ..) => Goal::Size(bytes),
        (_, Some(bits), ..) => Goal::BitsPerWeight(bits),
        (.., Some(limit), _) => Goal::MaxKl(limit),
        (.., ratio) => Goal::MaxPerplexityRatio(ratio.unwrap_or(1.0)),
    }
}

/// The type that a recipe's tensors have when no rule names one: vectors and the like, which the container decides.
fn base_type(args: &Plan) -> &'static str {
    match args.to.as_str() {
        "gguf" => "q4_k_m",
        "prefab" => "int8",
        _ => "q8_0",
    }
}

/// What the whole is measured on: windows of 512 tokens, the second halves scored.
fn texts(args: &Plan, model: &OpenModel, vocabulary: &Vocabulary, terminal: &Terminal) -> Result<Texts, Failure> {
    let tokenizer = tokenizer(vocabulary, model.description().hyperparameters.vocabulary, "reading the text", terminal)?;
    let texts = EvalTexts {
        paths: args.texts.clone(),
        pairs: None,
        protocol: "llama".to_owned(),
        context: None,
        bytes: args.bytes,
        calibration: args.calibration.calibrate.clone(),
        allow_leak: args.allow_leak,
    };
    Texts::read(&texts, &tokenizer, args.max_memory, terminal)
}

fn pass_options(args: &Plan, global: &Global) -> PassOptions {
    let default = PassOptions::default();
    PassOptions { threads: global.threads.unwrap_or(default.threads), max_memory: args.max_memory / 4, ..default }
}

fn probe_options(args: &Plan, global: &Global) -> ProbeOptions {
    let default = ProbeOptions::default();
    ProbeOptions {
        threads: global.threads.unwrap_or(default.threads),
        windows: args.probe_windows.get(),
        max_memory: args.max_memory / 2,
        ..default
    }
}

/// Probes all tensors, going on from what an earlier run has measured.
fn probe(
    args: &Plan,
    model: &OpenModel,
    tokens: &[u32],
    options: ProbeOptions,
    statistics: &Calibrated,
    terminal: &Terminal,
) -> Result<(Vec<TensorHarm>, rwkv_forge_choose::Exponents), Failure> {
    let cache = Cache::usual(terminal);
    let (identity, text, record) = (rwkv_forge_choose::model_identity(model)?, of_tokens(tokens), statistics.record().key());
    let how: [(&str, &dyn std::fmt::Display); 2] = [("statistics", &record), ("windows", &options.windows)];
    let name = Key { kind: Kind::Probes, model: &identity, against: None, text: Some(&text), how: &how }.name();
    let known: Probed = cache.get(&name).and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let mut probe = Probe::new(&model.model, tokens, options)?;
    let with = HarmOptions { container: by_name(&args.to)?, calibration: Some(statistics), budget: args.budget, known };
    let progress = Progress::new(terminal, "probing", false);
    let saved = Cell::new(Instant::now());
    let found = harms(&mut probe, &with, &mut |done, total, _, probed| {
        progress.set(done as u64, total as u64);
        // What was measured is kept now and then, and at the end.
        if done == total || saved.get().elapsed().as_secs() >= 10 {
            saved.set(Instant::now());
            // What cannot be kept costs time in the next run, nothing else.
            if let Ok(bytes) = serde_json::to_vec(probed) {
                cache.put(&name, &bytes);
            }
        }
    })?;
    Ok(found)
}

/// Measures one pass over the probes' windows and says what all of them will take.
fn dry_run(args: &Plan, model: &OpenModel, tokens: &[u32], options: ProbeOptions, terminal: &Terminal) -> Result<u8, Failure> {
    let started = Instant::now();
    let probe = Probe::new(&model.model, tokens, options)?;
    let pass = started.elapsed().as_secs_f64();
    let container = by_name(&args.to)?;
    let open = model.description().tensors.iter().filter(|spec| rwkv_forge_choose::is_open(model.description(), container, spec));
    let (mut count, mut work) = (0u64, 0.0);
    for spec in open {
        count += 1;
        work += probe.work(rwkv_forge_choose::Place::of(spec)) + 0.1;
    }
    let fed = options.windows.min(tokens.len() / options.window) * options.window;
    let windows = args.calibration.calibration_windows.get().min(tokens.len() / options.window) * options.window;
    // Hessians cost about as much again as the pass that gathers them.
    let calibrating = pass / fed.max(1) as f64 * windows as f64 * 2.5;
    let probing = (pass * work).min(args.budget.as_secs_f64());
    terminal.print(&format!("{}\n", model_line(model.description())));
    terminal.print(&format!(
        "{count} tensors to choose types for; about {calibrating:.0} s of calibrating and {probing:.0} s of probing, then quantizing and measuring\n"
    ));
    terminal
        .print_json("plan", &json!({ "dry_run": true, "tensors": count, "seconds": { "calibrating": calibrating, "probing": probing } }))?;
    Ok(0)
}

/// What a reader of the recipe wants to know.
fn header(args: &Plan, model: &OpenModel, planned: &Planned) -> String {
    // A name with a line end would go on as a line of the recipe.
    let source = shown(args.source.file_name().unwrap_or(args.source.as_os_str()).as_ref());
    let windows = args.calibration.calibration_windows;
    let command = format!("rwkv-forge convert {source} --to {} --recipe FILE --calibrate TEXT --calibration-windows {windows}", args.to);
    format!("# Plan for {source} ({})\n# {}\n# {command}\n", model_line(model.description()), sentence(planned))
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

fn print(args: &Plan, model: &OpenModel, harms: &[TensorHarm], planned: &Planned, terminal: &Terminal) {
    terminal.print(&format!("{}\n", model_line(model.description())));
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
    terminal.print(&table(&["role", "types", "predicted KL"], rows.collect(), &[2]));
    terminal.print(&format!("{}\n", sentence(planned)));
    if let Some(measured) = &planned.measured {
        let top1 = measured.top1.map_or_else(String::new, |top1| format!(", same most likely token {:.2} %", top1 * 100.0));
        let ratio = measured.perplexity_ratio.as_ref().map_or_else(String::new, |ratio| format!(", perplexity ratio {:.4}", ratio.ratio));
        terminal.print(&format!("on {} tokens{top1}{ratio}\n", thousands(measured.tokens)));
    }
    if !planned.met {
        terminal.print("not met: the goal was not reached\n");
    }
    let source = shown(&args.source);
    terminal.detail(&format!("write the file with: rwkv-forge convert {source} --to {} --recipe RECIPE --calibrate TEXT", args.to));
}
