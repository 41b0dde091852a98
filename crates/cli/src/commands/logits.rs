//! `logits`: what the reference computes, as NumPy files for other people's comparisons.

use std::path::Path;

use forge_convert::{OpenModel, vocabulary_for};
use forge_eval::npy;
use forge_io::{InputFile, OutputFile, OutputOptions};
use forge_kernel::{KernelOptions, Layer, LayerState, Real, SequenceContext, State, Wkv, check_tokens, embed};
use serde_json::json;

use super::{open_options, read_small, read_text, vocabulary};
use crate::args::{Global, Logits, Precision};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::terminal::Terminal;

/// Vocabulary rows whose logits are computed at a time.
const HEAD_ROWS: usize = 2048;

/// Runs the command.
pub fn run(args: &Logits, global: &Global, terminal: &Terminal) -> Result<u8, Failure> {
    let model = forge_convert::open(&args.model, open_options(global))?;
    let tokens = tokens(args, &model)?;
    check_tokens(&model.description, &tokens)?;
    model.source().check_integrity(&|_| ())?;
    match args.precision {
        Precision::F32 => compute::<f32>(args, &model, &tokens, terminal)?,
        Precision::F64 => compute::<f64>(args, &model, &tokens, terminal)?,
    }
    let vocabulary = model.description.hyperparameters.vocabulary;
    terminal.print(&format!("wrote {} (float32 [{}, {vocabulary}])\n", args.output.display(), tokens.len()));
    terminal.print_json(
        "logits",
        &json!({ "model": args.model.display().to_string(), "output": args.output.display().to_string(),
                 "shape": [tokens.len(), vocabulary], "tokens": tokens }),
    )?;
    Ok(0)
}

/// The token ids to feed.
fn tokens(args: &Logits, model: &OpenModel) -> Result<Vec<u32>, Failure> {
    let tokens = match (&args.tokens, &args.text) {
        (Some(path), _) => serde_json::from_str::<Vec<u32>>(&read_text(path)?).map_err(|error| {
            Failure::refused("BadTokens", format!("{} is no JSON array of token ids: {error}", path.display()))
        })?,
        (None, Some(path)) => {
            let rows = model.description.hyperparameters.vocabulary;
            vocabulary_for(&vocabulary(&args.vocabulary)?, rows, "reading the text")?.encode(&read_small(path)?)?
        }
        (None, None) => Vec::new(),
    };
    if tokens.is_empty() {
        return Err(Failure::refused("EmptyText", "there are no tokens to feed".to_owned()));
    }
    Ok(tokens)
}

/// Layer by layer over all tokens, so that memory is one layer and the activations.
fn compute<F: Real>(args: &Logits, model: &OpenModel, tokens: &[u32], terminal: &Terminal) -> Result<(), Failure> {
    let (source, description) = (model.source(), &model.description);
    let h = &description.hyperparameters;
    let inputs = model.source().files().iter().map(|path| Ok(InputFile::open(path)?.identity())).collect::<Result<Vec<_>, Failure>>()?;
    let header = npy::header_f32(&[tokens.len(), h.vocabulary]);
    let bytes = header.len() as u64 + tokens.len() as u64 * h.vocabulary as u64 * 4;
    let file = OutputFile::create(&args.output, &OutputOptions { force: args.force, inputs: &inputs, expected_bytes: bytes })?;
    let progress = Progress::new(terminal, "computing", false);
    let steps = h.layers as u64 + 1;
    let mut x = embed::<F>(source, description, tokens)?;
    let mut state = State::<F>::zero(description);
    let mut context = SequenceContext::default();
    for index in 0..h.layers {
        let layer = Layer::load(source, description, index, &KernelOptions::default())?;
        layer.forward(&mut x, &mut state.layers[index], &mut context);
        if let Some(directory) = &args.layers {
            let sink = LayerSink { directory, force: args.force, heads: [h.heads, h.head_size, h.head_size] };
            sink.write(index, &x, [tokens.len(), h.channels], &state.layers[index])?;
        }
        progress.set(index as u64 + 1, steps);
    }
    file.set_len(bytes)?;
    file.write_all_at(0, &header)?;
    let mut failure = Ok(());
    forge_kernel::for_each_chunk(source, description, &x, HEAD_ROWS, |first, rows, logits: &[F]| {
        for (position, row) in logits.chunks_exact(rows).enumerate() {
            let data: Vec<u8> = row.iter().flat_map(|value| value.to_f32().to_le_bytes()).collect();
            let offset = header.len() as u64 + (position as u64 * h.vocabulary as u64 + first as u64) * 4;
            if failure.is_ok() {
                failure = file.write_all_at(offset, &data);
            }
        }
    })?;
    failure?;
    Ok(file.commit()?)
}

/// Where the layers' outputs and states go.
struct LayerSink<'a> {
    directory: &'a Path,
    force: bool,
    /// `[heads, head size, head size]`: the shape of a matrix state.
    heads: [usize; 3],
}

impl LayerSink<'_> {
    /// Writes a layer's output `x` and its state after the last token.
    fn write<F: Real>(&self, index: usize, x: &[F], shape: [usize; 2], state: &LayerState<F>) -> Result<(), Failure> {
        let array = |name: &str, shape: &[usize], values: &[F]| self.array(index, name, shape, values);
        array("output", &shape, x)?;
        array("att-shift", &[state.att_shift.len()], &state.att_shift)?;
        array("ffn-shift", &[state.ffn_shift.len()], &state.ffn_shift)?;
        match &state.wkv {
            Wkv::Scalars { aa, bb, pp } => {
                array("aa", &[aa.len()], aa)?;
                array("bb", &[bb.len()], bb)?;
                array("pp", &[pp.len()], pp)
            }
            Wkv::Matrix(values) => array("wkv", &self.heads, values),
        }
    }

    fn array<F: Real>(&self, index: usize, name: &str, shape: &[usize], values: &[F]) -> Result<(), Failure> {
        let path = self.directory.join(format!("layer-{index:03}-{name}.npy"));
        let mut data = npy::header_f32(shape);
        data.extend(values.iter().flat_map(|value| value.to_f32().to_le_bytes()));
        let options = OutputOptions { force: self.force, inputs: &[], expected_bytes: data.len() as u64 };
        let file = OutputFile::create(&path, &options)?;
        file.write_all_at(0, &data)?;
        Ok(file.commit()?)
    }
}
