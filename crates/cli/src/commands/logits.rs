//! `logits`: what the reference or the engine computes, as NumPy files for other people's comparisons.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use forge_convert::OpenModel;
use forge_eval::{LogitsOptions, LogitsSink, Model, npy};
use forge_io::{OutputFile, OutputOptions};
use forge_kernel::{KernelOptions, LayerState, Wkv};
use serde_json::json;

use super::{kernel, open_options, read_small, read_text, tokenizer, vocabulary};
use crate::args::{Global, Logits};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::terminal::Terminal;

/// Runs the command.
pub(crate) fn run(args: &Logits, global: &Global, terminal: &Terminal) -> Result<u8, Failure> {
    let model = forge_convert::open(&args.model, open_options(global))?;
    let tokens = tokens(args, &model, terminal)?;
    model.source().check_integrity(&|_| ())?;
    let inputs = model.input_identities()?;
    let h = model.description.hyperparameters;
    let expected_bytes = tokens.len() as u64 * h.vocabulary as u64 * 4;
    let file = OutputFile::create(&args.output, &OutputOptions { force: args.force, inputs: &inputs, expected_bytes })?;
    let progress = Progress::new(terminal, "computing", false);
    let reference = Model { source: model.source(), description: &model.description, options: KernelOptions { group_norm_eps: args.eps } };
    let mut sink = Sink {
        logits: npy::Writer::new(Appender { file: &file, offset: 0 }, &[tokens.len() as u64, h.vocabulary as u64]).map_err(write_failed)?,
        layers: args.layers.clone(),
        force: args.force,
        channels: h.channels,
        heads: [h.heads as u64, h.head_size as u64, h.head_size as u64],
    };
    let runner = reference.runner_by(kernel(&args.kernel))?;
    forge_eval::logits_of(runner, &tokens, &LogitsOptions::for_model(&reference), &mut sink, &mut |step| {
        progress.set(step.done as u64, step.total as u64);
    })?;
    sink.logits.finish().map_err(write_failed)?;
    drop(progress);
    file.commit()?;
    terminal.print(&format!("wrote {} (float32 [{}, {}])\n", args.output.display(), tokens.len(), h.vocabulary));
    terminal.print_json(
        "logits",
        &json!({ "model": args.model.display().to_string(), "output": args.output.display().to_string(),
                 "kernel": args.kernel, "shape": [tokens.len(), h.vocabulary], "tokens": tokens }),
    )?;
    Ok(0)
}

/// The token ids to feed.
fn tokens(args: &Logits, model: &OpenModel, terminal: &Terminal) -> Result<Vec<u32>, Failure> {
    let tokens = match (&args.tokens, &args.text) {
        (Some(path), _) => serde_json::from_str::<Vec<u32>>(&read_text(path)?)
            .map_err(|error| Failure::refused("BadTokens", format!("{} is no JSON array of token ids: {error}", path.display())))?,
        (None, Some(path)) => {
            let rows = model.description.hyperparameters.vocabulary;
            tokenizer(&vocabulary(&args.vocabulary)?, rows, "reading the text", terminal)?.encode(&read_small(path)?)?
        }
        (None, None) => Vec::new(),
    };
    if tokens.is_empty() {
        return Err(Failure::refused("EmptyText", "there are no tokens to feed".to_owned()));
    }
    Ok(tokens)
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
    layers: Option<PathBuf>,
    force: bool,
    channels: usize,
    /// `[heads, head size, head size]`: the shape of a matrix state.
    heads: [u64; 3],
}

impl LogitsSink for Sink<'_> {
    fn logits(&mut self, _position: usize, logits: &[f32]) -> io::Result<()> {
        self.logits.write(logits)
    }

    fn layer(&mut self, layer: usize, x: &[f32], state: &LayerState<f32>) -> io::Result<()> {
        let Some(directory) = &self.layers else { return Ok(()) };
        let array = |name: &str, shape: &[u64], values: &[f32]| {
            write_array(&directory.join(format!("layer-{layer:03}-{name}.npy")), self.force, shape, values).map_err(io::Error::other)
        };
        let vector = |name: &str, values: &[f32]| array(name, &[values.len() as u64], values);
        array("output", &[(x.len() / self.channels) as u64, self.channels as u64], x)?;
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

fn write_array(path: &Path, force: bool, shape: &[u64], values: &[f32]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let options = OutputOptions { force, inputs: &[], expected_bytes: values.len() as u64 * 4 };
    let file = OutputFile::create(path, &options)?;
    let mut writer = npy::Writer::new(Appender { file: &file, offset: 0 }, shape)?;
    writer.write(values)?;
    writer.finish()?;
    Ok(file.commit()?)
}
