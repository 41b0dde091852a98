//! `logits`: what the reference or the engine computes, as NumPy files for other people's comparisons.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use rwkv_forge_choose::Unit;
use rwkv_forge_convert::OpenModel;
use rwkv_forge_eval::{LogitsSink, PassOptions, Runnable, npy};
use rwkv_forge_io::{OutputFile, OutputOptions};
use rwkv_forge_kernel::KernelOptions;
use rwkv_forge_model::TimeMix;
use rwkv_forge_score::GROWING_CONTEXT;
use rwkv_forge_weights::{LayerState, Wkv};
use serde::Serialize;

use super::models::Models;
use super::start::started;
use super::{called, check_integrity, kernel, needs_head, read_small, read_text, shown, stage, tokenizer, vocabulary};
use crate::args::{Global, Logits};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::stdio::Destination;
use crate::terminal::{Terminal, thousands};

/// Bytes of activations in memory; those of more tokens are in a temporary file between layers.
const ACTIVATIONS: u64 = 64 << 20;

/// The result for programs.
#[derive(Serialize)]
struct Written<'a> {
    model: String,
    output: String,
    kernel: &'a str,
    shape: [usize; 2],
    tokens: &'a [u32],
    left_out: usize,
    peak_memory_bytes: Option<u64>,
}

/// Runs the command.
pub(crate) fn run(args: &Logits, global: &Global, terminal: &Terminal) -> Result<u8, Failure> {
    let mut models = Models::new(&args.source_args, global);
    let model = models.open(&args.model, terminal)?;
    needs_head(&model)?;
    let model = started(model, &args.state, &mut models, terminal)?;
    models.finish()?;
    let mut tokens = tokens(args, &model, terminal)?;
    let left_out = cut(&mut tokens, args.context, &model, terminal);
    check_integrity(&model, terminal)?;
    let h = model.description().hyperparameters;
    let expected_bytes = tokens.len() as u64 * h.vocabulary as u64 * 4;
    let output = Destination::new(Some(&args.output), Path::new("logits.npy"))?;
    let file = OutputFile::create(output.path(), &OutputOptions { expected_bytes, ..global.output("--output", args.force) })?;
    let layers = args.layers.as_ref().map(|directory| Layers { directory, options: global.output("--layers", args.force) });
    if let Some(layers) = &layers {
        layers.check(h.layers, model.description().mechanisms.time_mix)?;
    }
    let progress = Progress::new(terminal, "computing", Unit::Steps);
    let reference = Runnable { options: KernelOptions { group_norm_eps: args.eps }, ..Runnable::new(&model.model) };
    let mut sink = Sink {
        logits: npy::Writer::new(Appender { file: &file, offset: 0 }, &[tokens.len() as u64, h.vocabulary as u64]).map_err(write_failed)?,
        layers,
        open: None,
        tokens: tokens.len() as u64,
        channels: h.channels,
        heads: [h.heads as u64, h.head_size as u64, h.head_size as u64],
    };
    let options = PassOptions { kernel: kernel(&args.kernel), max_memory: ACTIVATIONS, ..PassOptions::default() };
    rwkv_forge_eval::logits(reference, &tokens, &options, &mut sink, &mut |step| {
        progress.set(step.done as u64, step.total as u64);
        progress.at(stage(step.stage));
    })?;
    sink.logits.finish().map_err(write_failed)?;
    drop(progress);
    file.commit()?;
    output.deliver(terminal)?;
    terminal.wrote_result(output.named());
    args.layers.iter().for_each(|directory| terminal.wrote("--layers", directory));
    terminal.print(&format!("wrote {} (float32 [{}, {}])\n", output.shown(), tokens.len(), h.vocabulary));
    terminal.print_json(
        "logits",
        &Written {
            model: args.model.display().to_string(),
            output: output.named().display().to_string(),
            kernel: &args.kernel,
            shape: [tokens.len(), h.vocabulary],
            tokens: &tokens,
            left_out,
            peak_memory_bytes: rwkv_forge_io::peak_memory_bytes(),
        },
    )?;
    Ok(0)
}

/// The token ids to feed.
fn tokens(args: &Logits, model: &OpenModel, terminal: &Terminal) -> Result<Vec<u32>, Failure> {
    let tokens = match (&args.tokens, &args.text) {
        (Some(path), _) => serde_json::from_str::<Vec<u32>>(&read_text(path)?)
            .map_err(|error| Failure::refused("BadTokens", format!("{} is no JSON array of token ids: {error}", called(path).display())))?,
        (None, Some(path)) => tokenizer(model, &vocabulary(&args.vocabulary)?, "reading the text", terminal)?.encode(&read_small(path)?)?,
        (None, None) => Vec::new(),
    };
    if tokens.is_empty() {
        return Err(Failure::refused("EmptyText", "there are no tokens to feed".to_owned()));
    }
    Ok(tokens)
}

/// Cuts the tokens off after those that are to be fed, and says how many are left out.
fn cut(tokens: &mut Vec<u32>, context: Option<NonZeroUsize>, model: &OpenModel, terminal: &Terminal) -> usize {
    let limit = limit(context, model.description().mechanisms.remembers_tokens());
    let left_out = tokens.len().saturating_sub(limit.unwrap_or(usize::MAX));
    tokens.truncate(tokens.len() - left_out);
    if left_out > 0 && context.is_none() {
        terminal.note(&format!(
            "what {} remembers grows with every token, so only the first {} tokens are fed, and {} are left out: --context N feeds others",
            model.description().version,
            thousands(tokens.len() as u64),
            thousands(left_out as u64)
        ));
    }
    left_out
}

/// How many tokens are fed at most; `remembers` is true for models that remember every token, whose cost is the square of their number.
fn limit(context: Option<NonZeroUsize>, remembers: bool) -> Option<usize> {
    context.map(NonZeroUsize::get).or(remembers.then_some(GROWING_CONTEXT))
}

fn write_failed(error: io::Error) -> Failure {
    Failure { kind: "Write".to_owned(), message: error.to_string(), code: 4 }
}

/// Writes a file from its beginning on.
pub(super) struct Appender<'a> {
    pub(super) file: &'a OutputFile,
    pub(super) offset: u64,
}

impl Write for Appender<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(self.offset, bytes).map_err(io::Error::other)?;
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Puts logits into one file, and layers, if they are wanted, into files of their own.
struct Sink<'a> {
    logits: npy::Writer<Appender<'a>>,
    layers: Option<Layers<'a>>,
    /// The residual stream of the layer that is at work.
    open: Option<npy::Writer<Owned>>,
    tokens: u64,
    channels: usize,
    /// `[heads, head size, head size]`: the shape of a matrix state.
    heads: [u64; 3],
}

impl LogitsSink for Sink<'_> {
    fn logits(&mut self, _position: usize, logits: &[f32]) -> io::Result<()> {
        self.logits.write(logits)
    }

    fn residual(&mut self, layer: usize, position: usize, x: &[f32]) -> io::Result<()> {
        let Some(layers) = &self.layers else { return Ok(()) };
        let shape = [self.tokens, self.channels as u64];
        let writer = match self.open.take() {
            Some(writer) if position > 0 => writer,
            _ => layers.writer(layer, "output", &shape)?,
        };
        self.open.insert(writer).write(x)
    }

    fn state(&mut self, layer: usize, state: &LayerState<f32>) -> io::Result<()> {
        let Some(layers) = &self.layers else { return Ok(()) };
        if let Some(writer) = self.open.take() {
            writer.finish()?.file.commit().map_err(io::Error::other)?;
        }
        let array = |name: &str, shape: &[u64], values: &[f32]| {
            let mut writer = layers.writer(layer, name, shape)?;
            writer.write(values)?;
            writer.finish()?.file.commit().map_err(io::Error::other)
        };
        let vector = |name: &str, values: &[f32]| array(name, &[values.len() as u64], values);
        vector("att-shift", &state.att_shift)?;
        vector("ffn-shift", &state.ffn_shift)?;
        match &state.wkv {
            Wkv::Scalars { aa, bb, pp } => {
                vector("aa", aa)?;
                vector("bb", bb)?;
                vector("pp", pp)
            }
            Wkv::Matrix(values) => array("wkv", &self.heads, values),
        }
    }
}

/// The files of `--layers`: those of the names below replace files of the same names with `--force`, and nothing else in the
/// directory is touched.
struct Layers<'a> {
    directory: &'a Path,
    options: OutputOptions<'a>,
}

impl Layers<'_> {
    fn path(&self, layer: usize, name: &str) -> PathBuf {
        self.directory.join(format!("layer-{layer:03}-{name}.npy"))
    }

    /// Refuses names that cannot be before the work, and makes the directory.
    fn check(&self, layers: usize, time_mix: TimeMix) -> Result<(), Failure> {
        let state: Vec<&str> = time_mix.memory().iter().map(|buffer| buffer.name).collect();
        for layer in 0..layers {
            for name in ["output", "att-shift", "ffn-shift"].iter().chain(&state) {
                OutputFile::check(&self.path(layer, name), &self.options)?;
            }
        }
        std::fs::create_dir_all(self.directory).map_err(|error| {
            let directory = shown(self.directory);
            write_failed(io::Error::new(error.kind(), format!("{directory}: the directory of --layers cannot be made: {error}")))
        })
    }

    fn writer(&self, layer: usize, name: &str, shape: &[u64]) -> io::Result<npy::Writer<Owned>> {
        let expected_bytes = shape.iter().product::<u64>().saturating_mul(4);
        let file = OutputFile::create(&self.path(layer, name), &OutputOptions { expected_bytes, ..self.options });
        npy::Writer::new(Owned { file: file.map_err(io::Error::other)?, offset: 0 }, shape)
    }
}

/// A file of its own that is written from its beginning on, while others are.
struct Owned {
    file: OutputFile,
    offset: u64,
}

impl Write for Owned {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut appender = Appender { file: &self.file, offset: self.offset };
        let written = appender.write(bytes)?;
        self.offset = appender.offset;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::limit;

    #[test]
    fn only_what_grows_is_bounded_unasked() {
        assert_eq!((limit(None, false), limit(None, true)), (None, Some(4096)));
        let asked = NonZeroUsize::new(9000);
        assert_eq!((limit(asked, false), limit(asked, true)), (Some(9000), Some(9000)));
    }
}
