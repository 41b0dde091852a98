//! Streams the tensors of a layout into an output file: read, decode, arrange, encode, write, in pieces of bounded size.
//!
//! Pieces are independent and each has its place in the file, so the bytes do not depend on the number of threads.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use rwkv_forge_container::Container;
use rwkv_forge_io::{InputFile, OutputFile};
use rwkv_forge_model::{Choice, FileLayout, OutputTensor, TensorSpec};
use rwkv_forge_quant::{EncodeError, EncodeStats};
use rwkv_forge_tensor::{BoxError, Encoding, bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use rwkv_forge_weights::{Model, Order, View};
use serde::Serialize;

use crate::error::ConvertError;

/// Elements of a piece: a multiple of every block length; its buffers stay in the second-level cache.
const PIECE: u64 = 1 << 17;

/// Elements up to which a tensor that must be rearranged is held in memory whole: low-rank factors and mixes of the
/// largest models stay below it.
const WHOLE_LIMIT: u64 = 1 << 28;

/// What rounding to f16 lost of one stored tensor. Overflow is no loss but an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct F16Loss {
    /// Name in the output.
    pub tensor: String,
    /// Values that were not zero before.
    pub non_zero: u64,
    /// Of these, how many became zero: magnitudes up to about 3e-8.
    pub flushed: u64,
    /// How many became subnormal, below about 6e-5, and lost digits.
    pub subnormal: u64,
}

/// Blocks of one stored tensor that became zero although their values are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ZeroedBlocks {
    /// Name in the output; that of the source for tensors that were quantized before.
    pub tensor: String,
    /// Such blocks.
    pub zeroed: u64,
    /// All its blocks.
    pub blocks: u64,
}

/// What a whole file lost when its values were rounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rounding {
    /// Counts over all tensors.
    pub total: EncodeStats,
    /// Tensors that were rounded to f16 and lost something, in the order of the file.
    pub f16: Vec<F16Loss>,
    /// Tensors with blocks that became zero, in the order of the file.
    pub zeroed: Vec<ZeroedBlocks>,
    /// Values that are others in 16 bits than they were.
    pub changed: u64,
}

/// What a piece lost.
#[derive(Clone, Copy, Default)]
struct PieceLoss {
    stats: EncodeStats,
    /// Values other than zero that were rounded to f16.
    non_zero: u64,
    /// Values that are others in 16 bits.
    changed: u64,
}

/// A part of an output tensor that one thread writes on its own.
enum Task {
    /// Elements `start .. start + count` of a tensor that is stored in the source's own order.
    Run { tensor: usize, start: u64, count: u64 },
    /// A tensor that is transposed, repeated, padded, or stacked from several.
    Whole { tensor: usize },
}

impl Task {
    fn tensor(&self) -> usize {
        match self {
            Self::Run { tensor, .. } | Self::Whole { tensor } => *tensor,
        }
    }
}

/// Buffers that a thread keeps between pieces.
#[derive(Default)]
struct Buffers {
    values: Vec<f32>,
    encoded: Vec<u8>,
}

/// A model, and where its tensors go.
pub struct Job<'a> {
    /// What is read.
    pub model: &'a Model,
    /// The file that is written.
    pub layout: &'a FileLayout,
    /// What it is written as.
    pub container: &'a dyn Container,
    /// The type of each tensor of the description.
    pub choices: &'a [Choice],
}

impl Job<'_> {
    /// Writes the header, all tensors and the padding between them. `progress` is called with the number of stored
    /// bytes just written, from several threads.
    ///
    /// # Errors
    /// NaN or infinities in the weights, values that do not fit their type, and the errors of reader and writer. Of
    /// several errors the one of the first tensor is returned.
    pub fn run(&self, output: &OutputFile, progress: &(dyn Fn(u64) + Sync)) -> Result<Rounding, BoxError> {
        output.set_len(self.layout.total_bytes)?;
        output.write_all_at(0, &self.layout.header)?;
        for (offset, bytes) in &self.layout.literals {
            output.write_all_at(*offset, bytes)?;
        }
        let tasks = self.tasks()?;
        let failed = AtomicBool::new(false);
        let results: Vec<(usize, Result<PieceLoss, BoxError>)> = tasks
            .par_iter()
            .with_max_len(1)
            .map_init(Buffers::default, |buffers, task| {
                if failed.load(Ordering::Relaxed) {
                    return (usize::MAX, Ok(PieceLoss::default()));
                }
                let result = self.execute(task, buffers, output);
                match &result {
                    Ok(_) => progress(self.task_bytes(task)),
                    Err(_) => failed.store(true, Ordering::Relaxed),
                }
                (task.tensor(), result)
            })
            .collect();
        self.sum(results)
    }

    /// Adds up what the pieces lost, for all and for each tensor; or the first error.
    fn sum(&self, results: Vec<(usize, Result<PieceLoss, BoxError>)>) -> Result<Rounding, BoxError> {
        let (mut total, mut changed) = (EncodeStats::default(), 0);
        let mut tensors = vec![PieceLoss::default(); self.layout.tensors.len()];
        for (tensor, result) in results {
            let piece = result?;
            total.add(piece.stats);
            changed += piece.changed;
            if let Some(sum) = tensors.get_mut(tensor) {
                sum.stats.add(piece.stats);
                sum.non_zero += piece.non_zero;
            }
        }
        let lost =
            |out: &OutputTensor, stats: EncodeStats| out.encoding == Encoding::F16 && stats.flushed_values + stats.subnormal_values > 0;
        let blocks = |out: &OutputTensor| out.shape.iter().product::<u64>() / u64::from(out.encoding.block_len).max(1);
        let zeroed = self.layout.tensors.iter().zip(&tensors).filter(|(_, loss)| loss.stats.zeroed_blocks > 0);
        let zeroed = zeroed
            .map(|(out, loss)| ZeroedBlocks { tensor: out.name.clone(), zeroed: loss.stats.zeroed_blocks, blocks: blocks(out) })
            .collect();
        let tensors = self.layout.tensors.iter().zip(tensors).filter(|(out, loss)| lost(out, loss.stats));
        let f16 = tensors
            .map(|(out, loss)| F16Loss {
                tensor: out.name.clone(),
                non_zero: loss.non_zero,
                flushed: loss.stats.flushed_values,
                subnormal: loss.stats.subnormal_values,
            })
            .collect();
        Ok(Rounding { total, f16, zeroed, changed })
    }

    fn tasks(&self) -> Result<Vec<Task>, BoxError> {
        let mut tasks = Vec::new();
        for (tensor, out) in self.layout.tensors.iter().enumerate() {
            if out.assembly.parts.is_empty() {
                if !out.encoding.is_dense() {
                    return Err(ConvertError::Internal(format!("{} is made of nothing, as {}", out.name, out.encoding)).into());
                }
                // A new file is zeros already.
                continue;
            }
            let elements = out.shape.iter().product::<u64>() - out.assembly.pad;
            if self.is_direct(out)? {
                let mut start = 0;
                while start < elements {
                    let count = PIECE.min(elements - start);
                    tasks.push(Task::Run { tensor, start, count });
                    start += count;
                }
            } else if elements > WHOLE_LIMIT {
                return Err(ConvertError::Internal(format!("{} is too large to be rearranged in memory", out.name)).into());
            } else {
                tasks.push(Task::Whole { tensor });
            }
        }
        Ok(tasks)
    }

    /// True when the stored order of elements is the source's own.
    fn is_direct(&self, out: &OutputTensor) -> Result<bool, BoxError> {
        let assembly = &out.assembly;
        let [part] = assembly.parts.as_slice() else { return Ok(false) };
        let stored = self.model.stored(self.part(*part)?)?;
        let plain = stored.pieces() == 1 && stored.order == Some(view(out).order);
        // The zeros of padding are what a new file has anyway, but for blocks, whose zeros are not all zero bytes.
        let padding = assembly.pad == 0 || out.encoding.is_dense();
        Ok(plain && assembly.repeat == 1 && padding)
    }

    /// The tensor that an assembly calls by this number.
    fn part(&self, index: usize) -> Result<&TensorSpec, ConvertError> {
        let none = || ConvertError::Internal(format!("an output is made of tensor {index}, which the model does not have"));
        self.model.description().part(index).ok_or_else(none)
    }

    fn task_bytes(&self, task: &Task) -> u64 {
        match task {
            Task::Run { tensor, count, .. } => stored_bytes(self.layout.tensors[*tensor].encoding, *count),
            Task::Whole { tensor } => self.layout.tensors[*tensor].bytes,
        }
    }

    fn execute(&self, task: &Task, buffers: &mut Buffers, output: &OutputFile) -> Result<PieceLoss, BoxError> {
        match *task {
            Task::Run { tensor, start, count } => self.run_piece(&self.layout.tensors[tensor], start, count, buffers, output),
            Task::Whole { tensor } => self.whole(&self.layout.tensors[tensor], buffers, output),
        }
    }

    fn run_piece(
        &self,
        out: &OutputTensor,
        start: u64,
        count: u64,
        buffers: &mut Buffers,
        output: &OutputFile,
    ) -> Result<PieceLoss, BoxError> {
        let spec = self.part(out.assembly.parts[0])?;
        let stored = self.model.stored(spec)?;
        if stored.encoding == out.encoding && stored.view() == Some(view(out)) {
            // The same bits.
            buffers.encoded.resize(to_usize(stored_bytes(out.encoding, count))?, 0);
            self.model.read_blocks(spec, &stored, to_usize(start)?, &mut buffers.encoded)?;
            write_blocks(output, out, start, &buffers.encoded)?;
            return Ok(PieceLoss::default());
        }
        buffers.values.resize(to_usize(count)?, 0.0);
        self.model.elements_into(spec, to_usize(start)?, view(out), &mut buffers.values)?;
        let stats = self.encode(out, spec, &buffers.values, start, &mut buffers.encoded)?;
        write_blocks(output, out, start, &buffers.encoded)?;
        Ok(stats)
    }

    fn whole(&self, out: &OutputTensor, buffers: &mut Buffers, output: &OutputFile) -> Result<PieceLoss, BoxError> {
        buffers.values.clear();
        for part in &out.assembly.parts {
            let spec = self.part(*part)?;
            let values = self.model.read::<f32>(spec, view(out))?;
            buffers.values.extend(values.iter().flat_map(|value| std::iter::repeat_n(*value, out.assembly.repeat)));
        }
        buffers.values.extend(std::iter::repeat_n(0.0, to_usize(out.assembly.pad)?));
        let spec = self.part(out.assembly.parts[0])?;
        let stats = self.encode(out, spec, &buffers.values, 0, &mut buffers.encoded)?;
        write_blocks(output, out, 0, &buffers.encoded)?;
        Ok(stats)
    }

    fn encode(
        &self,
        out: &OutputTensor,
        spec: &TensorSpec,
        values: &[f32],
        start: u64,
        encoded: &mut Vec<u8>,
    ) -> Result<PieceLoss, BoxError> {
        let Some(format) = rwkv_forge_quant::by_encoding(out.encoding) else {
            return Err(ConvertError::Internal(format!("no encoder for {}", out.encoding)).into());
        };
        encoded.resize(to_usize(stored_bytes(out.encoding, values.len() as u64))?, 0);
        let stats: Result<EncodeStats, BoxError> = format.encode(values, encoded).map_err(|error| match error {
            EncodeError::NonFinite { index, .. } => self.non_finite(spec, out, start + index as u64),
            EncodeError::Overflow { block, .. } => ConvertError::Overflow {
                tensor: spec.name.clone(),
                element: start + block as u64 * u64::from(out.encoding.block_len),
                encoding: out.encoding.name,
                reason: "a value or the scale of a block is too large".to_owned(),
                instead: self.instead(spec, out),
            }
            .into(),
            EncodeError::ReadOnly { .. } | EncodeError::Length { .. } | EncodeError::Importance { .. } | EncodeError::Rows { .. } => {
                ConvertError::Internal(format!("{}: {error}", out.name)).into()
            }
        });
        let non_zero = if out.encoding == Encoding::F16 { values.iter().filter(|value| **value != 0.0).count() as u64 } else { 0 };
        Ok(PieceLoss { stats: stats?, non_zero, changed: changed(out.encoding, values) })
    }

    /// What to do about a tensor that its type cannot hold.
    fn instead(&self, spec: &TensorSpec, out: &OutputTensor) -> String {
        crate::wider::instead(self.container, self.choices, out.encoding, &[spec.name.as_str()])
    }

    /// Reads the tensor again, to say where the first bad value is and how many there are. `element` is one of the output.
    fn non_finite(&self, spec: &TensorSpec, out: &OutputTensor, element: u64) -> BoxError {
        match rwkv_forge_quant::non_finite(self.model, spec.source_index, &|_| ()) {
            Ok(Some(found)) => found.into(),
            // Finite as it is stored: the function of it that the container wants is not.
            Ok(None) => ConvertError::Overflow {
                tensor: spec.name.clone(),
                element,
                encoding: out.encoding.name,
                reason: "the container stores a function of the values, and that of one is infinite".to_owned(),
                instead: self.instead(spec, out),
            }
            .into(),
            Err(error) => error,
        }
    }
}

/// How many values are others in 16 bits, where the encoding has so many.
fn changed(encoding: Encoding, values: &[f32]) -> u64 {
    let narrow: fn(f32) -> f32 = match encoding {
        Encoding::F16 => |value| f16_to_f32(f32_to_f16(value)),
        Encoding::BF16 => |value| bf16_to_f32(f32_to_bf16(value)),
        _ => return 0,
    };
    values.iter().filter(|value| narrow(**value).to_bits() != value.to_bits()).count() as u64
}

/// How an output holds the values of the tensors that it is made of.
fn view(out: &OutputTensor) -> View {
    let order = if out.assembly.transposed { Order::Turned } else { Order::Canonical };
    View { order, form: out.assembly.form }
}

/// Writes encoded blocks from element `start` on to their place, or, where the container keeps parts of blocks apart, to
/// their places.
fn write_blocks(output: &OutputFile, out: &OutputTensor, start: u64, encoded: &[u8]) -> Result<(), BoxError> {
    if out.planes.is_empty() {
        return Ok(output.write_all_at(out.offset + stored_bytes(out.encoding, start), encoded)?);
    }
    let first_block = start / u64::from(out.encoding.block_len);
    let blocks = encoded.chunks_exact(out.encoding.block_bytes as usize);
    for plane in &out.planes {
        let range = plane.start as usize..(plane.start + plane.bytes) as usize;
        let bytes: Vec<u8> = blocks.clone().flat_map(|block| block[range.clone()].iter().copied()).collect();
        output.write_all_at(plane.offset + first_block * u64::from(plane.bytes), &bytes)?;
    }
    Ok(())
}

/// Fills in the checksums of a layout from what has been written to `written`.
///
/// # Errors
/// When reading or writing fails.
pub fn write_checksums(layout: &FileLayout, written: &Path, output: &OutputFile) -> Result<(), BoxError> {
    if layout.checksums.is_empty() {
        return Ok(());
    }
    let input = InputFile::open(written)?;
    let mut buffer = vec![0; 1 << 20];
    let mut results = Vec::with_capacity(layout.checksums.len());
    for checksum in &layout.checksums {
        let mut hasher = crc32fast::Hasher::new();
        let (mut offset, end) = (checksum.start, checksum.start + checksum.bytes);
        while offset < end {
            let count = to_usize((end - offset).min(buffer.len() as u64))?;
            input.read_exact_at(offset, &mut buffer[..count])?;
            hasher.update(&buffer[..count]);
            offset += count as u64;
        }
        results.push(hasher.finalize());
    }
    drop(input);
    for (checksum, value) in layout.checksums.iter().zip(results) {
        for place in &checksum.places {
            output.write_all_at(*place, &value.to_le_bytes())?;
        }
    }
    Ok(())
}

/// Bytes of `elements` elements that are whole blocks.
fn stored_bytes(encoding: Encoding, elements: u64) -> u64 {
    elements / u64::from(encoding.block_len) * u64::from(encoding.block_bytes)
}

fn to_usize(bytes: u64) -> Result<usize, ConvertError> {
    usize::try_from(bytes).map_err(|_| ConvertError::Internal(format!("{bytes} bytes do not fit in memory")))
}
