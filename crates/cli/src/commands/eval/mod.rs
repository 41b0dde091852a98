//! `eval`: how well models predict text, and what quantization costs.
//!
//! `texts.rs` makes a schedule of what is fed and scored, `checked.rs` opens models, `together.rs` says what they must have in common,
//! `levels.rs` asks for a model in many types;
//! `tables.rs` and `page.rs` show what was found.

mod checked;
mod level_findings;
mod levels;
mod outputs;
mod page;
mod tables;
pub(crate) mod texts;
mod together;

use std::path::PathBuf;

use rwkv_forge_choose::{Cache, Candidate, Job, Measured, Predictions, Reference, Results};
use rwkv_forge_convert::{OpenModel, Verdict};
use rwkv_forge_engine::Arithmetic;
use rwkv_forge_eval::Kernel;
use rwkv_forge_report::sink;
use rwkv_forge_score::{Evaluation, Precision, Protocol};
use rwkv_forge_tokenizer::Tokenizer;
use serde_json::{Value, json};

use self::checked::Checked;
use self::outputs::Outputs;
use self::texts::Texts;
use self::together::{bounded, comparable, same_vocabulary, tokenizer_of_all};
use super::models::Models;
use super::start::started;
use super::{kernel, shell_word, vocabulary};
use crate::args::{self, EvalLimits, Global};
use crate::failure::Failure;
use crate::terminal::{Terminal, thousands};

/// Runs the command.
pub(crate) fn run(args: &args::Eval, global: &Global, terminal: &Terminal) -> Result<u8, Failure> {
    check(args)?;
    let mut opening = Models::new(&args.source_args, global);
    let mut open = |path: &PathBuf| {
        let model = Checked::open(path, &mut opening, terminal)?;
        Ok::<_, Failure>((path.clone(), started(model, &args.state, &mut opening, terminal)?))
    };
    let opened = args.models.iter().map(&mut open).collect::<Result<Vec<_>, _>>()?;
    let opened_baseline = args.baseline.as_ref().map(open).transpose()?;
    opening.finish()?;
    let (opened, opened_baseline) = comparable(opened, opened_baseline, terminal)?;
    // What no level can be is said before models and texts are read.
    let decided = match opened.as_slice() {
        [(path, source)] if !args.levels.is_empty() => Some(levels::Decided::new(args, path, source, global, terminal)?),
        _ => None,
    };
    let read = |(path, open): (PathBuf, OpenModel)| Checked::read(&path, open, terminal);
    let mut models = opened.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let mut baseline = opened_baseline.map(read).transpose()?;
    Checked::tell_apart(&mut baseline.iter_mut().chain(&mut models).collect::<Vec<_>>());
    let all: Vec<&Checked> = baseline.iter().chain(&models).collect();
    let Some(first) = all.first() else { return Err(Failure::usage("NoModel", "there is no model to evaluate".to_owned())) };
    same_vocabulary(first, &all)?;
    let rows = first.open.description().hyperparameters.vocabulary;
    let tokenizer = tokenizer_of_all(&all, &vocabulary(&args.vocabulary)?, terminal)?;
    let bounded = bounded(&args.texts, &all, terminal);
    let protocol = Protocol::by_name(&args.texts.protocol, args.texts.context.map(std::num::NonZeroUsize::get))?;
    let protocol = if bounded.is_some() { protocol.bounded() } else { protocol };
    let texts = Texts::read(&args.texts, protocol, &tokenizer, args.computing.max_memory, terminal)?;
    // After everything is read, whose place no output takes, and before the work, so that a name that cannot be fails early.
    let mut outputs = Outputs::create(args, global)?;
    let cache = cache(args, texts.schedule.protocol, terminal);
    let asked = kernel(&args.computing.kernel);
    let job = Job {
        schedule: &texts.schedule,
        parts: &texts.parts,
        vocabulary: tokenizer.sha256(),
        precision: precision(args, texts.schedule.protocol),
        kernel: if all.iter().any(|checked| rwkv_forge_engine::supports(&checked.open.description().mechanisms).is_ok()) {
            asked
        } else {
            Kernel::Reference
        },
        arithmetic: if args.computing.activations == "int8" { Arithmetic::Int8 } else { Arithmetic::Float },
        max_memory: args.computing.max_memory,
        cache: &cache,
        observer: terminal,
    };
    note_hybrids(&job, asked, &all, terminal);
    let setting = Setting { args, tokenizer: &tokenizer, texts: &texts, bounded: bounded.as_deref(), job: &job };
    if let ([source], Some(decided)) = (models.as_slice(), &decided) {
        return levels::run(&setting, source, decided, outputs, terminal);
    }
    let compared = baseline.as_ref().map(|checked| (checked.runnable(), checked));
    let reference = compared.as_ref().map(|(model, checked)| Reference { model, identity: checked.identity() });
    let candidates: Vec<&dyn Candidate> = models.iter().map(|checked| checked as &dyn Candidate).collect();
    let results = outputs.logits(&texts.schedule, rows, |logits| Ok(job.run(reference, &candidates, logits)?))?;
    let predictions = Predictions::of(&texts.schedule, rows, baseline.as_ref().map(Checked::name), &results)?;
    predictions.warnings.iter().for_each(|warning| terminal.warn(warning));
    let findings = Findings { setting: &setting, baseline: baseline.as_ref(), models: &models, results: &results, predictions };
    let violations = findings.violations();
    terminal.print(&findings.text()?);
    for violation in violations.iter().flatten() {
        terminal.print(&format!("not met: {}\n", sink::word(violation)));
    }
    outputs.write(|| page::of_models(&findings, &violations), || Ok(tables::models(&findings)), terminal)?;
    terminal.print_json("eval", &findings.to_json(&violations)?)?;
    Ok(u8::from(violations.iter().any(|violations| !violations.is_empty())))
}

/// What the whole run has in common.
pub(crate) struct Setting<'a> {
    /// What was asked for.
    pub args: &'a args::Eval,
    /// The vocabulary.
    pub tokenizer: &'a Tokenizer,
    /// What is read.
    pub texts: &'a Texts,
    /// Why texts are read in windows that nobody asked for.
    pub bounded: Option<&'a str>,
    /// How it is measured.
    pub job: &'a Job<'a>,
}

/// What was found of models that lie in files.
pub(crate) struct Findings<'a> {
    /// What the run has in common.
    pub setting: &'a Setting<'a>,
    /// The model that the others are compared with.
    pub baseline: Option<&'a Checked>,
    /// The models, in order.
    pub models: &'a [Checked],
    /// Numbers, in the same order.
    pub results: &'a Results,
    /// Whether they predict text.
    pub predictions: Predictions,
}

/// Combinations that the parser cannot know to be wrong.
fn check(args: &args::Eval) -> Result<(), Failure> {
    let limits = &args.limits;
    let limited = limits.max_kl.is_some() || limits.min_top1.is_some() || limits.max_ppl_ratio.is_some();
    if args.levels.is_empty() && args.baseline.is_none() && limited {
        let message = "limits of the loss need a model to compare with: add --baseline MODEL, or --levels".to_owned();
        return Err(Failure::usage("BaselineNeeded", message));
    }
    if !args.levels.is_empty() && args.models.len() > 1 {
        return Err(Failure::usage("OneModel", format!("--levels quantizes one model; {} are given", args.models.len())));
    }
    if args.outputs.save_logits.is_some() && (args.texts.protocol != "llama" || args.texts.pairs.is_some()) {
        let message = "the file of logits has the chunks of llama-perplexity: add --protocol llama".to_owned();
        return Err(Failure::usage("LlamaNeeded", message));
    }
    let alone = args.baseline.is_none() && args.models.len() > 1 || !args.levels.is_empty();
    if args.outputs.save_logits.is_some() && alone {
        let message = "--save-logits writes the logits of one model: give one, or a --baseline".to_owned();
        return Err(Failure::usage("OneModel", message));
    }
    if args.computing.activations == "int8" && args.computing.kernel == "reference" {
        return Err(Failure::usage("ReferenceIsExact", "the reference does not round activations: use --kernel engine".to_owned()));
    }
    Ok(())
}

fn note_hybrids(job: &Job<'_>, asked: Kernel, all: &[&Checked], terminal: &Terminal) {
    if let Some(hybrid) = all.iter().find(|checked| job.kernel_of(&checked.runnable()) != asked)
        && let Err(reason) = rwkv_forge_engine::check(hybrid.open.description())
    {
        terminal.note(&format!("{}: computed by the reference ({reason})", hybrid.name()));
    }
}

fn precision(args: &args::Eval, protocol: Protocol) -> Precision {
    match (args.computing.logits_precision.as_deref(), protocol) {
        (Some("bf16"), _) | (None, Protocol::Uncheatable) => Precision::Bf16,
        _ => Precision::F32,
    }
}

/// Long runs keep what is finished; one that asked for logits needs them all.
fn cache<'t>(args: &args::Eval, protocol: Protocol, terminal: &'t Terminal) -> Cache<'t> {
    let long = !args.levels.is_empty() || matches!(protocol, Protocol::Uncheatable | Protocol::Uncheatable2024);
    if args.computing.no_cache || args.outputs.save_logits.is_some() {
        return Cache::new(None, terminal);
    }
    match &args.computing.cache {
        Some(directory) => Cache::new(Some(directory.clone()), terminal),
        None if long => Cache::usual(terminal),
        None => Cache::new(None, terminal),
    }
}

impl Setting<'_> {
    /// What is the same for all models, as JSON.
    pub(crate) fn to_json(&self) -> Value {
        let Job { schedule, precision, kernel, .. } = self.job;
        let texts = self.texts;
        json!({
            "protocol": schedule.protocol,
            "bounded": self.bounded,
            "logits_precision": precision,
            "kernel": kernel.name(),
            "activations": self.args.computing.activations,
            "vocabulary": { "name": self.tokenizer.name(), "sha256": self.tokenizer.sha256() },
            "texts": texts.sources,
            "plan": {
                "documents": schedule.documents.len(), "sequences": schedule.sequences.len(), "windows": schedule.windows.len(),
                "fed": schedule.fed(), "scored": schedule.scored(), "bytes": schedule.bytes(),
            },
            "calibration": texts.leak.as_ref().map(texts::Leak::to_json),
            "threads": rayon::current_num_threads(),
            "peak_memory_bytes": rwkv_forge_io::peak_memory_bytes(),
        })
    }

    /// What was scored, in one line.
    pub(crate) fn line(&self) -> String {
        let schedule = self.job.schedule;
        let names: Vec<&str> = self.texts.sources.iter().map(|source| source.name.as_str()).collect();
        let names = if names.len() > 6 { format!("{} texts", names.len()) } else { sink::word(&names.join(", ")).into_owned() };
        let protocol = match schedule.protocol {
            Protocol::Windows { tokens } => format!("stream in windows of {tokens}"),
            Protocol::Llama { context, .. } => format!("llama in chunks of {context}"),
            other => other.name().to_owned(),
        };
        let by = if self.job.kernel == Kernel::Reference { "reference" } else { "engine" };
        format!(
            "{names}: {} tokens scored, {} bytes, protocol {protocol}, logits in {}, by the {by}",
            thousands(schedule.scored() as u64),
            thousands(schedule.bytes()),
            self.job.precision.name(),
        )
    }
}

/// What of a model is beyond the limits.
pub(crate) fn violations(limits: &EvalLimits, measured: &Measured) -> Vec<String> {
    let evaluation = &measured.evaluation;
    let mut out = Vec::new();
    let mut check = |what: &str, found: Option<f64>, limit: Option<f64>, is_met: fn(f64, f64) -> bool| {
        if let (Some(found), Some(limit)) = (found, limit)
            && !is_met(found, limit)
        {
            out.push(format!("{}: {what} is {}, the limit is {limit}", measured.name, super::number(found)));
        }
    };
    check("the mean KL divergence", evaluation.kl.as_ref().map(|kl| kl.mean), limits.max_kl, |found, limit| found <= limit);
    check("the share of equal top-1 tokens", evaluation.top1, limits.min_top1, |found, limit| found >= limit);
    let ratio = evaluation.perplexity_ratio.as_ref().map(|ratio| ratio.ratio);
    check("the perplexity ratio", ratio, limits.max_ppl_ratio, |found, limit| found <= limit);
    out
}

impl Findings<'_> {
    fn violations(&self) -> Vec<Vec<String>> {
        self.results.models.iter().map(|measured| violations(&self.setting.args.limits, measured)).collect()
    }

    fn to_json(&self, violations: &[Vec<String>]) -> Result<Value, Failure> {
        let mut models = Vec::new();
        let models_with_results = self.models.iter().zip(&self.results.models).zip(violations);
        for (number, ((checked, measured), violations)) in models_with_results.enumerate() {
            let fed = self.setting.texts.schedule.fed() as f64;
            let own = json!({
                "layers": measured.layers,
                "seconds": measured.seconds,
                "tokens_per_second": fed / measured.seconds.max(1e-9),
                "kept_parts": measured.kept_parts,
                "prediction": self.predictions.models.get(number),
                "verdict": verdict_of(&measured.evaluation),
                "violations": violations,
            });
            models.push(merged([checked.to_json(), to_value(&measured.evaluation)?, own]));
        }
        let baseline = match self.baseline.zip(self.results.baseline.as_ref()) {
            Some((checked, evaluation)) => {
                merged([checked.to_json(), to_value(evaluation)?, json!({ "prediction": self.predictions.baseline })])
            }
            None => Value::Null,
        };
        Ok(merged([self.setting.to_json(), json!({ "baseline": baseline, "models": models })]))
    }
}

/// A result as JSON.
pub(crate) fn to_value(value: &impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(value).map_err(|error| Failure::bug("Json", error.to_string()))
}

/// One object with the fields of all.
pub(crate) fn merged<const N: usize>(objects: [Value; N]) -> Value {
    let fields = objects.into_iter().filter_map(|object| if let Value::Object(fields) = object { Some(fields) } else { None });
    Value::Object(fields.flatten().collect())
}

/// What the divergence of a model from the baseline means; `None` without one.
pub(crate) fn verdict_of(evaluation: &Evaluation) -> Option<Verdict> {
    let tokens = usize::try_from(evaluation.tokens).unwrap_or(usize::MAX);
    Some(Verdict::of_divergence(evaluation.kl.as_ref()?, tokens, false))
}

/// The command as it was typed, without the folder of the program.
pub(crate) fn command_line() -> String {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let program = words.next().unwrap_or_default();
    let program = std::path::Path::new(&program).file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    std::iter::once(program).chain(words.map(|word| shell_word(&word))).collect::<Vec<_>>().join(" ")
}
