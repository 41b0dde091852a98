//! `verify`: agreement of any two readable files of one model.

use rwkv_forge_choose::Unit;
use rwkv_forge_convert::{ComparedWords, PROBE_TEXT, Verdict, WordDifference, compare_words, probe_tokens, vocabulary_of};
use rwkv_forge_eval::{Activations, CompareOptions, HeadInRanges, Runnable, Runner, RunnerHead, RunnerLayer};
use rwkv_forge_forms::{ParallelLayer, ParallelRunner};
use rwkv_forge_kernel::KernelOptions;
use rwkv_forge_model::ModelDescription;
use rwkv_forge_parallel::ParallelOptions;
use rwkv_forge_report::sink;
use rwkv_forge_tensor::BoxError;
use rwkv_forge_weights::{Context, LayerState};
use serde_json::json;

use super::models::Models;
use super::start::{alike, started};
use super::verdict::said;
use super::{agreement_table, kernel, model_line, needs_head, read_small, stage, thresholds, tokenizer_or_bytes, vocabulary, words};
use crate::args::{Global, Verify};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::terminal::Terminal;

/// Runs the command.
pub(crate) fn run(args: &Verify, global: &Global, terminal: &Terminal) -> Result<u8, Failure> {
    let mut models = Models::new(&args.source_args, global);
    let reference = models.open(&args.reference, terminal)?;
    let candidate = models.open(&args.candidate, terminal)?;
    if args.against_parallel {
        // The parallel form has logits for its end.
        needs_head(&reference)?;
    }
    let reference = started(reference, &args.state, &mut models, terminal)?;
    let candidate = started(candidate, &args.state, &mut models, terminal)?;
    models.finish()?;
    let (reference, candidate) = alike(reference, candidate, terminal)?;
    let text = args.text.as_ref().map(|path| read_small(path)).transpose()?;
    let rows = reference.description().hyperparameters.vocabulary;
    let choice = vocabulary(&args.vocabulary)?;
    // One of them may have it: a checkpoint has none, a GGUF that was made of it has. The other's may be damaged.
    let has_one = |model| matches!(vocabulary_of(model, &choice), Ok(Some(_)));
    let speaker = if has_one(&reference) || !has_one(&candidate) { &reference } else { &candidate };
    let tokenizer = tokenizer_or_bytes(speaker, &choice, text.is_some(), terminal)?;
    let tokens = probe_tokens(text.as_deref().unwrap_or(PROBE_TEXT.as_bytes()), tokenizer.as_ref(), rows, args.probe_tokens.get())?;
    for (path, model) in [(&args.reference, &reference), (&args.candidate, &candidate)] {
        let progress = Progress::new(terminal, "checking", Unit::Bytes);
        progress.at(&path.display().to_string());
        let bytes = model.source_bytes()?;
        rwkv_forge_quant::examine(model.source(), &|read| progress.add(read, bytes))?;
    }
    let progress = Progress::new(terminal, "comparing", Unit::Steps);
    let reference_runnable = Runnable::new(&reference.model);
    let options = KernelOptions { group_norm_eps: args.candidate_eps };
    let candidate_runnable = Runnable { options, ..Runnable::new(&candidate.model) };
    let by = kernel(&args.kernel);
    let compare = CompareOptions::new(&tokens, by);
    let agreement = rwkv_forge_eval::compare_runners(
        if args.against_parallel { in_parallel(&reference_runnable)? } else { reference_runnable.runner(&compare.pass)? },
        candidate_runnable.runner(&compare.pass)?,
        &compare,
        &mut |step| {
            progress.set(step.done as u64, step.total as u64);
            progress.at(stage(step.stage));
        },
    )?;
    drop(progress);
    let violations = thresholds(&args.thresholds, None).violations(&agreement);
    terminal.print(&format!("{}\n\n{}", model_line(reference.description()), agreement_table(&agreement)?));
    // Without a vocabulary no text was read that a model could predict.
    let prediction = tokenizer.as_ref().and_then(|_| agreement.against_unigram(&tokens));
    let verdict = Verdict::of(&agreement);
    if let Some(verdict) = &verdict {
        let unpredicted = prediction.is_some_and(|prediction| !prediction.better).then_some("the reference");
        terminal.print(&format!("loss: {}\n", said(verdict, "--probe-tokens takes more", unpredicted)));
    }
    if args.against_parallel {
        terminal.print("the source was computed in its parallel form\n");
    }
    let ComparedWords { differences, notes } = compare_words(&reference, &candidate, &choice);
    for note in &notes {
        terminal.warn(note);
    }
    terminal.print(&words::comparison(&differences)?);
    for violation in &violations {
        terminal.print(&format!("not met: {}\n", sink::word(&violation.to_string())));
    }
    if let Some(warning) = prediction.and_then(|prediction| prediction.warning("the reference")) {
        terminal.warn(&warning);
    }
    terminal.print_json(
        "verify",
        &json!({
            "reference": args.reference.display().to_string(),
            "candidate": args.candidate.display().to_string(),
            "key": args.source_args.key.keys.first(),
            "reference_key": reference.key(),
            "candidate_key": candidate.key(),
            "kernel": by.name(),
            "reference_form": if args.against_parallel { "parallel" } else { "recurrent" },
            "agreement": agreement,
            "prediction": prediction,
            "verdict": verdict,
            "violations": violations,
            "words": differences,
        }),
    )?;
    Ok(u8::from(!violations.is_empty() || differences.iter().any(WordDifference::is_contradiction)))
}

/// The model as its parallel form computes it.
fn in_parallel(runnable: &Runnable) -> Result<Box<dyn Runner>, Failure> {
    let options = ParallelOptions::default().with_group_norm_eps(runnable.options.group_norm_eps);
    Ok(Box::new(InParallel(ParallelRunner::new(&runnable.model, options)?)))
}

/// Joins the comparison, which knows nothing of the parallel form, to it.
struct InParallel(ParallelRunner);

impl Runner for InParallel {
    fn description(&self) -> &ModelDescription {
        self.0.description()
    }

    fn embed(&mut self, pieces: &[&[u32]]) -> Result<Activations, BoxError> {
        let tokens = pieces.concat();
        let x = self.0.embed(&tokens)?;
        Ok(Activations { context: Context::of_tokens(self.0.description(), &tokens, &x), x })
    }

    fn layer(&mut self, index: usize) -> Result<Box<dyn RunnerLayer + '_>, BoxError> {
        Ok(Box::new(LayerInParallel(self.0.layer(index)?)))
    }

    fn head(&mut self) -> Result<Box<dyn RunnerHead + '_>, BoxError> {
        let vocabulary = self.0.description().hyperparameters.vocabulary;
        Ok(Box::new(HeadInRanges::new(vocabulary, |x: &[f32], first, rows| Ok(self.0.logits(x, first, rows)?))))
    }
}

struct LayerInParallel(ParallelLayer);

impl RunnerLayer for LayerInParallel {
    fn forward(&mut self, lengths: &[usize], activations: Activations, goes_on: bool) -> Result<Activations, BoxError> {
        let (x, context) = self.0.forward(lengths, &activations.x, activations.context, goes_on)?;
        Ok(Activations { x, context })
    }

    fn state(&self, piece: usize) -> Result<LayerState<f32>, BoxError> {
        Ok(self.0.state(piece))
    }
}
