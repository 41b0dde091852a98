//! The formats whose scales are searched: groups of sub-blocks are turned so that each lane holds one, searched together,
//! and put together block by block.

use std::marker::PhantomData;

use rwkv_forge_simd::{LanePass, Registers};

use crate::block::{Block, ByteArray, FloatArray, Flushed, Job, Outcome};
use crate::convert::{INFINITY, MAGNITUDE};
use crate::lanes::{Lanes, MOST, nearest};
use crate::search::{Columns, Fit, LONGEST};

/// A format of sub-blocks. `search` and `finish` are `#[inline(always)]` so that every instruction set gets its own copy.
pub(crate) trait Searched: Block {
    /// Elements of a sub-block; [`LONGEST`] or half of it. A block has at most 16.
    const SUB_LENGTH: usize;
    /// True when each step of the search waits for the one before.
    const WAITS: bool = false;

    /// What is added to a squared value before the root is taken that weighs it; `row` is the mean square of its row.
    fn spread(block: &[f32], row: f32) -> f32;

    /// Searches sub-blocks `x`. With importance, `w` holds it on entry and `spread` is that of each block.
    fn search<S: Lanes>(x: &Columns<S>, w: &mut Columns<S>, spread: Option<S>) -> Fit<S>;

    /// Puts a block together from its values and the fits of its sub-blocks.
    fn finish(values: &Self::Values, fits: &[Fit<f32>], weighted: bool, out: &mut Self::Stored) -> Outcome;
}

/// Encodes all blocks of a job.
pub(crate) struct SearchPass<'a, B>(pub(crate) Job<'a>, pub(crate) PhantomData<B>);

impl Job<'_> {
    /// Encodes sub-blocks side by side.
    pub(crate) fn searched<B: Searched>(self) -> Result<Flushed, usize> {
        self.isa.run_lanes(SearchPass::<B>(self, PhantomData))
    }
}

/// Values of a group, element by element.
type Rows = [f32; LONGEST * MOST];

/// The fits of the sub-blocks of a batch.
type Fits = [Fit<f32>; MOST];

impl<B: Searched> LanePass for SearchPass<'_, B> {
    type Output = Result<Flushed, usize>;
    const BYTE_PRODUCTS: bool = false;

    #[inline(always)]
    fn run<R: Registers>(self) -> Self::Output {
        if B::WAITS { self.search::<R::Latency>() } else { self.search::<R::Throughput>() }
    }
}

impl<B: Searched> SearchPass<'_, B> {
    /// Encodes the blocks with so many lanes at once, which decides nothing but speed.
    #[inline(always)]
    pub(crate) fn search<S: Lanes>(self) -> Result<Flushed, usize> {
        let length = B::ENCODING.block_len as usize;
        let blocks_a_batch = MOST * B::SUB_LENGTH / length;
        let importance = self.0.importance.map(|columns| Importance::new(columns, self.0.values));
        let out = B::Stored::cut_mut(self.0.out);
        let mut flushed = Flushed::default();
        let batches = self.0.values.chunks(blocks_a_batch * length).zip(out.chunks_mut(blocks_a_batch));
        for (index, (values, out)) in batches.enumerate() {
            let largest = values.iter().fold(0, |most, value| most.max(value.to_bits() & MAGNITUDE));
            let held = if largest < BEYOND { out.len() } else { values.iter().position(|value| beyond(*value)).unwrap_or(0) / length };
            let first = index * blocks_a_batch;
            let fits = fit_batch::<B, S>(values, first * length, importance.as_ref());
            let blocks = B::Values::cut(values).0.iter().zip(out).zip(fits.chunks(length / B::SUB_LENGTH));
            for (block, ((values, out), fits)) in blocks.enumerate() {
                if block >= held {
                    return Err(first + block);
                }
                let outcome = B::finish(values, fits, importance.is_some(), out);
                if outcome.refused {
                    return Err(first + block);
                }
                flushed.count::<B>(outcome, values, out);
            }
        }
        Ok(flushed)
    }
}

/// 2^36 as bits. No searched format can hold magnitudes from there on (65,504 times the largest scale and code is below 2^29), and
/// sums of their powers would overflow, so that a search could find a scale of zero.
const BEYOND: u32 = 0x5180_0000;

/// True for NaN, too.
fn beyond(value: f32) -> bool {
    value.to_bits() & MAGNITUDE >= BEYOND
}

/// The importance of the columns of a matrix.
struct Importance<'a> {
    columns: &'a [f32],
    /// Mean square of each row.
    rows: Vec<f32>,
}

impl<'a> Importance<'a> {
    fn new(columns: &'a [f32], values: &[f32]) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "the reference divides by the length as a float, too")]
        let mean = |row: &[f32]| sum_of_squares(row) / row.len() as f32;
        Self { columns, rows: values.chunks(columns.len().max(1)).map(mean).collect() }
    }
}

/// Searches all sub-blocks of a batch that starts at element `start` of the job.
#[inline(always)]
fn fit_batch<B: Searched, S: Lanes>(values: &[f32], start: usize, importance: Option<&Importance>) -> Fits {
    let zero = Fit { scale: 0.0, offset: 0.0, code_scale: 0.0, code_offset: 0.0, weight: 0.0 };
    let mut fits = [zero; MOST];
    let mut rows = [0.0; LONGEST * MOST];
    let spreads = importance.map_or([0.0; MOST], |importance| spreads::<B>(values, start, importance));
    for (group, (values, fits)) in values.chunks(S::COUNT * B::SUB_LENGTH).zip(fits.chunks_mut(S::COUNT)).enumerate() {
        let x = turn::<B, S>(|lane| values.get(lane * B::SUB_LENGTH..(lane + 1) * B::SUB_LENGTH), &mut rows);
        let mut w = [S::splat(0.0); LONGEST];
        let mut spread = None;
        if let Some(importance) = importance {
            let start = start + group * S::COUNT * B::SUB_LENGTH;
            let row_length = importance.columns.len();
            let lanes = values.len() / B::SUB_LENGTH;
            let columns = |lane| {
                let column = (start + lane * B::SUB_LENGTH) % row_length;
                (lane < lanes).then(|| &importance.columns[column..column + B::SUB_LENGTH])
            };
            w = turn::<B, S>(columns, &mut rows);
            let at = start / B::SUB_LENGTH % MOST;
            spread = Some(S::load(&spreads[at..]));
        }
        let found = B::search(&x, &mut w, spread);
        spread_out(&found, fits);
    }
    fits
}

/// Gives every sub-block its own fit.
#[inline(always)]
fn spread_out<S: Lanes>(found: &Fit<S>, fits: &mut [Fit<f32>]) {
    let [mut scale, mut offset, mut code_scale, mut code_offset, mut weight] = [[0.0; MOST]; 5];
    found.scale.store(&mut scale);
    found.offset.store(&mut offset);
    found.code_scale.store(&mut code_scale);
    found.code_offset.store(&mut code_offset);
    found.weight.store(&mut weight);
    for (lane, fit) in fits.iter_mut().enumerate().take(S::COUNT) {
        *fit = Fit {
            scale: scale[lane],
            offset: offset[lane],
            code_scale: code_scale[lane],
            code_offset: code_offset[lane],
            weight: weight[lane],
        };
    }
}

/// Loads lane k from the elements of sub-block k; lanes without one hold zeros.
#[inline(always)]
fn turn<'a, B: Searched, S: Lanes>(sub_block: impl Fn(usize) -> Option<&'a [f32]>, rows: &mut Rows) -> Columns<S> {
    for lane in 0..S::COUNT {
        let values = sub_block(lane).unwrap_or(&[0.0; LONGEST]);
        for (element, value) in values[..B::SUB_LENGTH].iter().enumerate() {
            rows[element * S::COUNT + lane] = *value;
        }
    }
    let mut columns = [S::splat(0.0); LONGEST];
    for (column, row) in columns.iter_mut().zip(rows.chunks(S::COUNT)).take(B::SUB_LENGTH) {
        *column = S::load(row);
    }
    columns
}

/// [`Searched::spread`] of the block of each sub-block of a batch.
fn spreads<B: Searched>(values: &[f32], start: usize, importance: &Importance) -> [f32; MOST] {
    let length = B::ENCODING.block_len as usize;
    let mut spreads = [0.0; MOST];
    for (block, (values, spreads)) in values.chunks(length).zip(spreads.chunks_mut(length / B::SUB_LENGTH)).enumerate() {
        let row = (start + block * length) / importance.columns.len();
        spreads.fill(B::spread(values, importance.rows[row]));
    }
    spreads
}

/// The weights of elements of a given importance.
#[inline(always)]
pub(crate) fn weigh<S: Lanes>(x: &[S], w: &mut [S], spread: S) {
    for (x, w) in x.iter().zip(w) {
        *w = w.mul(spread.add(x.mul(*x)).sqrt());
    }
}

/// Sum of squares from first to last.
pub(crate) fn sum_of_squares(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |sum, x| sum + x * x)
}

/// True when a number is NaN or infinite, in a form that vectorises.
#[inline(always)]
pub(crate) fn is_special(value: f32) -> bool {
    value.to_bits() & MAGNITUDE >= INFINITY
}

/// The weights of formats whose errors weigh as much as the squared values, unless there is importance.
#[inline(always)]
pub(crate) fn square_or_weigh<S: Lanes>(x: &[S], w: &mut [S], spread: Option<S>) {
    match spread {
        Some(spread) => weigh(x, w, spread),
        None => {
            for (x, w) in x.iter().zip(w) {
                *w = x.mul(*x);
            }
        }
    }
}

/// The scale of largest magnitude, the first one of several; 0 where all are.
#[inline(always)]
pub(crate) fn largest_scale(fits: &[Fit<f32>]) -> f32 {
    fits.iter().fold(0.0, |largest: f32, fit| if fit.scale.abs() > largest.abs() { fit.scale } else { largest })
}

/// 1 / value, or 0 for 0.
#[inline(always)]
pub(crate) fn inverse(value: f32) -> f32 {
    if value == 0.0 { 0.0 } else { 1.0 / value }
}

/// The codes of a search as they are stored.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range of the codes")]
pub(crate) fn search_codes<const N: usize>(values: &[f32; N], fit: &Fit<f32>, least: i32, most: i32) -> [u8; N] {
    let mut codes = [0; N];
    if fit.code_scale == 0.0 {
        return codes;
    }
    for (code, x) in codes.iter_mut().zip(values) {
        *code = (nearest(fit.code_scale * (x - fit.code_offset)).clamp(least, most) - least) as u8;
    }
    codes
}

/// The codes of `(x + minimum) / scale` as they are stored.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range of the codes")]
pub(crate) fn codes_of<const N: usize>(values: &[f32; N], scale: f32, minimum: f32, least: i32, most: i32) -> [u8; N] {
    let mut codes = [0; N];
    for (code, x) in codes.iter_mut().zip(values) {
        *code = (nearest((x + minimum) / scale).clamp(least, most) - least) as u8;
    }
    codes
}
