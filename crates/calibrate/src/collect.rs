//! Sees the inputs of a layer's weights and sums them up. Start at [`Collector`].

use std::sync::{Mutex, PoisonError};

use rayon::ThreadPool;
use rayon::prelude::*;
use rwkv_forge_engine::{Inputs, Isa, Tap};
use rwkv_forge_model::{ModelDescription, TensorRole};

use crate::error::CalibrateError;
use crate::hessian::{Hessian, InputStatistics, block_ranges};
use crate::options::Hessians;
use crate::product::{Products, ROWS};

/// Columns that a task transposes.
const STRIP: usize = 64;

/// Gathers the statistics of one layer.
pub(crate) struct Collector<'a> {
    pool: &'a ThreadPool,
    isa: Isa,
    hessians: Hessians,
    block: usize,
    description: &'a ModelDescription,
    gathered: Mutex<Gathered>,
    /// Hears how many tokens the first input has been seen of: they come in the same pieces to all inputs.
    heard: Option<&'a (dyn Fn(u64) + Sync)>,
}

#[derive(Default)]
struct Gathered {
    inputs: Vec<Input>,
    /// Index of the input that the call before was of.
    last: Option<usize>,
    failed: Option<CalibrateError>,
}

/// One input on the way.
struct Input {
    weights: Vec<String>,
    part: usize,
    columns: usize,
    tokens: u64,
    squares: Vec<f64>,
    /// Rows not multiplied yet, fewer than [`ROWS`]: `[rows, columns]`.
    waiting: Vec<f32>,
    /// A product for each block; none when no Hessian is wanted.
    products: Vec<(usize, Products)>,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(pool: &'a ThreadPool, isa: Isa, hessians: Hessians, block: usize, description: &'a ModelDescription) -> Self {
        Self { pool, isa, hessians, block, description, gathered: Mutex::default(), heard: None }
    }

    /// The same, of which `heard` is told how many tokens it has seen.
    pub(crate) fn heard_by(self, heard: &'a (dyn Fn(u64) + Sync)) -> Self {
        Self { heard: Some(heard), ..self }
    }

    /// Matrices in a tensor that have inputs of their own.
    fn parts(&self, name: &str) -> usize {
        let spec = self.description.find(name);
        spec.filter(|spec| spec.role == TensorRole::TokenShiftLora && spec.shape.len() == 3)
            .map_or(1, |spec| spec.shape.first().and_then(|parts| usize::try_from(*parts).ok()).unwrap_or(1))
    }

    /// The statistics, in the order in which inputs were first seen, each made when it is asked for.
    pub(crate) fn finish(self) -> Result<impl Iterator<Item = Result<InputStatistics, CalibrateError>> + use<'a>, CalibrateError> {
        let (pool, isa, block) = (self.pool, self.isa, self.block);
        let gathered = self.gathered.into_inner().unwrap_or_else(PoisonError::into_inner);
        match gathered.failed {
            Some(error) => Err(error),
            None => Ok(gathered.inputs.into_iter().map(move |input| input.finish(pool, isa, block))),
        }
    }
}

impl Tap for Collector<'_> {
    fn inputs(&self, inputs: &Inputs<'_>) {
        let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        if gathered.failed.is_some() {
            return;
        }
        let parts = inputs.weights.first().map_or(1, |name| self.parts(name));
        let index = gathered.find(inputs, parts, self.hessians, self.block);
        gathered.last = Some(index);
        if let Err(error) = gathered.inputs[index].push(inputs.rows, self.pool, self.isa) {
            gathered.failed = Some(error);
        }
        if let Some(heard) = self.heard.filter(|_| index == 0) {
            heard(gathered.inputs[index].tokens);
        }
    }
}

impl Gathered {
    /// The input of this call, new or known. Of a tensor with several matrices, calls one after the other are of one after the other.
    fn find(&mut self, inputs: &Inputs<'_>, parts: usize, hessians: Hessians, block: usize) -> usize {
        let same = |input: &Input| input.weights.iter().map(String::as_str).eq(inputs.weights.iter().copied());
        let part = self.last.map(|last| &self.inputs[last]).filter(|last| same(last)).map_or(0, |last| (last.part + 1) % parts);
        if let Some(known) = self.inputs.iter().position(|input| input.part == part && same(input)) {
            return known;
        }
        let columns = inputs.columns;
        let ranges = hessians.wants(inputs.weights).then(|| block_ranges(columns, block));
        self.inputs.push(Input {
            weights: inputs.weights.iter().map(|name| (*name).to_owned()).collect(),
            part,
            columns,
            tokens: 0,
            squares: vec![0.0; columns],
            waiting: Vec::new(),
            products: ranges.into_iter().flatten().map(|range| (range.start, Products::new(range.len()))).collect(),
        });
        self.inputs.len() - 1
    }
}

impl Input {
    fn push(&mut self, mut rows: &[f32], pool: &ThreadPool, isa: Isa) -> Result<(), CalibrateError> {
        self.tokens += (rows.len() / self.columns) as u64;
        for row in rows.chunks_exact(self.columns) {
            for (sum, value) in self.squares.iter_mut().zip(row) {
                *sum += f64::from(*value) * f64::from(*value);
            }
        }
        if self.products.is_empty() {
            return Ok(());
        }
        // Always the same pieces, however the engine divides the tokens: sums depend on them in the last digits.
        while !rows.is_empty() {
            let room = ROWS * self.columns - self.waiting.len();
            let (now, later) = rows.split_at(room.min(rows.len()));
            self.waiting.extend_from_slice(now);
            rows = later;
            if self.waiting.len() == ROWS * self.columns {
                self.multiply(pool, isa)?;
            }
        }
        Ok(())
    }

    fn multiply(&mut self, pool: &ThreadPool, isa: Isa) -> Result<(), CalibrateError> {
        let rows = self.waiting.len() / self.columns;
        if rows == 0 {
            return Ok(());
        }
        let (waiting, columns, products) = (&self.waiting, self.columns, &mut self.products);
        let done = pool.install(|| {
            let transposed = transpose(waiting, columns);
            for (first, products) in products {
                products.add(isa, &transposed[*first * rows..][..products.columns() * rows], rows)?;
            }
            Ok(())
        });
        self.waiting.clear();
        done
    }

    fn finish(mut self, pool: &ThreadPool, isa: Isa, block: usize) -> Result<InputStatistics, CalibrateError> {
        if let Some(column) = self.squares.iter().position(|sum| !sum.is_finite()) {
            return Err(CalibrateError::NonFinite { weights: self.weights.join(", "), column });
        }
        self.multiply(pool, isa)?;
        #[allow(clippy::cast_precision_loss, reason = "fewer than 2^24 tokens, or digits that do not matter")]
        let scale = 1.0 / self.tokens as f32;
        let hessian = (!self.products.is_empty()).then(|| {
            let blocks = self.products.into_iter().map(|(_, products)| pool.install(|| products.finish(scale)));
            let data = blocks.reduce(|mut all, block| {
                all.extend(block);
                all
            });
            Hessian { size: self.columns, block: block.min(self.columns), data: data.unwrap_or_default() }
        });
        Ok(InputStatistics { weights: self.weights, part: self.part, tokens: self.tokens, squares: self.squares, hessian })
    }
}

/// `[rows, columns]` to `[columns, rows]`.
fn transpose(values: &[f32], columns: usize) -> Vec<f32> {
    let rows = values.len() / columns;
    let mut out = vec![0.0; values.len()];
    out.par_chunks_mut(STRIP * rows).enumerate().for_each(|(strip, out)| {
        for (row, values) in values.chunks_exact(columns).enumerate() {
            for (out, value) in out.chunks_exact_mut(rows).zip(&values[strip * STRIP..]) {
                out[row] = *value;
            }
        }
    });
    out
}
