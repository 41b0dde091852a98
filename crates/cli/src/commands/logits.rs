//! `logits`: what the reference or the engine computes, as NumPy files for other people's comparisons.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use forge_convert::OpenModel;
use forge_eval::{LogitsSink, Model, PassOptions, npy};
use forge_io::{OutputFile, OutputOptions};
use forge_kernel::{KernelOptions, LayerState, Wkv};
use serde::Serialize;

use super::{kernel, open_options, read_small, read_text, tokenizer, vocabulary};
use crate::args::{Global, Logits};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::terminal::Terminal;

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
    peak_memory_bytes: Option<u64>,
}

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
        open: None,
        tokens: tokens.len() as u64,
        force: args.force,
        channels: h.channels,
        heads: [h.heads as u64, h.head_size as u64, h.head_size as u64],
    };
    let options = PassOptions { kernel: kernel(&args.kernel), max_memory: ACTIVATIONS, ..PassOptions::default() };
    forge_eval::logits(reference, &tokens, &options, &mut sink, &mut |step| {
        progress.set(step.done as u64, step.total as u64);
    })?;
    sink.logits.finish().map_err(write_failed)?;
    drop(progress);
    file.commit()?;
    terminal.print(&format!("wrote {} (float32 [{}, {}])\n", args.output.display(), tokens.len(), h.vocabulary));
    terminal.print_json(
        "logits",
        &Written {
            model: args.model.display().to_string(),
            output: args.output.display().to_string(),
            kernel: &args.kernel,
            shape: [tokens.len(), h.vocabulary],
            tokens: &tokens,
            peak_memory_bytes: forge_io::peak_memory_bytes(),
        },
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
    /// The residual stream of the layer that is at work.
    open: Option<npy::Writer<Owned>>,
    tokens: u64,
    force: bool,
    channels: usize,
    /// `[heads, head size, head size]`: the shape of a matrix state.
    heads: [u64; 3],
}

impl LogitsSink for Sink<'_> {
    fn logits(&mut self, _position: usize, logits: &[f32]) -> io::Result<()> {
        self.logits.write(logits)
    }

    fn residual(&mut self, layer: usize, position: usize, x: &[f32]) -> io::Result<()> {
        let Some(path) = self.array(layer, "output") else { return Ok(()) };
        let shape = [self.tokens, self.channels as u64];
        let writer = match self.open.take() {
            Some(writer) if position > 0 => writer,
            _ => npy::Writer::new(Owned::create(&path, self.force, &shape).map_err(io::Error::other)?, &shape)?,
        };
        self.open.insert(writer).write(x)
    }

    fn state(&mut self, layer: usize, state: &LayerState<f32>) -> io::Result<()> {
        if let Some(writer) = self.open.take() {
            writer.finish()?.file.commit().map_err(io::Error::other)?;
        }
        let array = |name: &str, shape: &[u64], values: &[f32]| {
            let Some(path) = self.array(layer, name) else { return Ok(()) };
            write_array(&path, self.force, shape, values).map_err(io::Error::other)
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

impl Sink<'_> {
    /// The file of one array of a layer, where layers are wanted.
    fn array(&self, layer: usize, name: &str) -> Option<PathBuf> {
        self.layers.as_ref().map(|directory| directory.join(format!("layer-{layer:03}-{name}.npy")))
    }
}

/// A file of its own that is written from its beginning on, while others are.
struct Owned {
    file: OutputFile,
    offset: u64,
}

impl Owned {
    fn create(path: &Path, force: bool, shape: &[u64]) -> Result<Self, forge_io::IoError> {
        let expected_bytes = shape.iter().product::<u64>().saturating_mul(4);
        Ok(Self { file: OutputFile::create(path, &OutputOptions { force, inputs: &[], expected_bytes })?, offset: 0 })
    }
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

fn write_array(path: &Path, force: bool, shape: &[u64], values: &[f32]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut writer = npy::Writer::new(Owned::create(path, force, shape)?, shape)?;
    writer.write(values)?;
    Ok(writer.finish()?.file.commit()?)
}
