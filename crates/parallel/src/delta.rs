//! The generalised delta rule of RWKV-7 in chunks. Token t decays the memory S (key by value), takes out of it what lies in
//! one direction, writes that back under another, and writes its value under its key:
//!
//! ```text
//! S <- diag(w) S + b (a' S) + k v'        out = r' S
//! ```
//!
//! Within a chunk, what token t takes out depends on what earlier tokens of the chunk wrote: a unit lower triangular system
//! of equations, solved for all tokens at once. Decays between tokens are exponentials of sums of logarithms. In blocks of
//! [`BLOCK`] tokens they are the product of exp(sum) at the reader and exp(-sum) at the writer; over longer distances pairs
//! of tokens meet at the middle between two halves, with exponents that are all negative.

use candle_core::{Result, Tensor};

use crate::faults::{Fault, Planted};
use crate::scan::{Covers, by_heads, by_tokens, halves, pad_tokens, pieces};
use crate::triangle::inverse_of_one_minus;

/// Tokens over which decays may be divided out. A logarithm is above -0.607, so that exp(-sum) stays below e^19.5, and its
/// rounding in f32 costs about 20 units in the last place.
pub(crate) const BLOCK: usize = 32;

/// What the recurrence gets for a sequence, all `[tokens, channels]`.
pub(crate) struct Inputs<'a> {
    pub(crate) heads: usize,
    /// Logarithm of the decay, in (-0.607, 0).
    pub(crate) log_decay: &'a Tensor,
    /// Receptance.
    pub(crate) r: &'a Tensor,
    /// The direction in which the memory is read before it is written to.
    pub(crate) a: &'a Tensor,
    /// The direction in which what was read is written back.
    pub(crate) b: &'a Tensor,
    /// Key.
    pub(crate) k: &'a Tensor,
    /// Value.
    pub(crate) v: &'a Tensor,
    pub(crate) planted: Planted,
}

/// The outputs `[tokens, channels]`, and the memory behind the last token, from `start [heads, key, value]`.
pub(crate) fn chunked(inputs: &Inputs<'_>, start: &Tensor, chunk: usize) -> Result<(Tensor, Tensor)> {
    let (tokens, channels) = inputs.r.dims2()?;
    let (mut memory, mut outputs) = (start.clone(), Vec::new());
    for (first, chunks, len) in pieces(tokens, chunk) {
        // Beyond a block, tokens are halved again and again.
        let padded = if len <= BLOCK { len } else { len.next_power_of_two() };
        let part = |x: &Tensor| pad_tokens(&x.narrow(0, first, chunks * len)?.reshape((chunks, len, channels))?, padded);
        let piece = Piece {
            heads: inputs.heads,
            len,
            log_decay: part(inputs.log_decay)?,
            r: part(inputs.r)?,
            a: part(inputs.a)?,
            b: part(inputs.b)?,
            k: part(inputs.k)?,
            v: part(inputs.v)?,
            planted: inputs.planted,
        };
        let read = piece.prepare()?.run(memory)?;
        let out = by_tokens(&(read.within + read.across)?, inputs.heads)?;
        outputs.push(out.narrow(1, 0, len)?.flatten(0, 1)?);
        memory = read.end;
    }
    Ok((Tensor::cat(&outputs, 0)?, memory))
}

/// Chunks of one length, `[chunks, tokens, channels]`, padded with tokens that neither decay nor write.
struct Piece {
    heads: usize,
    /// Tokens before the padding.
    len: usize,
    log_decay: Tensor,
    r: Tensor,
    a: Tensor,
    b: Tensor,
    k: Tensor,
    v: Tensor,
    planted: Planted,
}

impl Piece {
    fn prepare(&self) -> Result<Prepared> {
        let (chunks, tokens, channels) = self.r.dims3()?;
        let size = channels / self.heads;
        let upto = Covers::UpTo.sum(&self.log_decay)?;
        let reads = self.reads(&self.a, &self.r, &self.log_decay, &upto)?;
        let kept = upto.narrow(1, self.carried() - 1, 1)?.exp()?;
        let (meetings, writes, seen_from) = if tokens <= BLOCK {
            let writes = self.writes(&self.b, &self.k, &upto.neg()?)?;
            (meet_in_block(&reads, &writes)?, writes, End::First)
        } else {
            (self.meet()?, self.writes(&self.b, &self.k, &Covers::After.sum(&self.log_decay)?)?, End::Last)
        };
        let kept = kept.reshape((chunks, self.heads, size, 1))?;
        Ok(Prepared { reads, meetings, writes, seen_from, v: by_heads(&self.v, self.heads)?, kept })
    }

    /// Tokens whose decay the memory goes through from chunk to chunk.
    fn carried(&self) -> usize {
        if self.planted.is(Fault::ChunkCarry) { self.len.saturating_sub(1).max(1) } else { self.len }
    }

    /// `a` and then `r`, decayed back to the beginning of their blocks, by heads: `[batch, 2 * tokens, size]`. `a` reads
    /// before the decay of its own token, `r` after it.
    fn reads(&self, a: &Tensor, r: &Tensor, log_decay: &Tensor, upto: &Tensor) -> Result<Tensor> {
        let before = if self.planted.is(Fault::DecayPower) { upto.clone() } else { Covers::Before.sum(log_decay)? };
        Tensor::cat(&[by_heads(&(a * before.exp()?)?, self.heads)?, by_heads(&(r * upto.exp()?)?, self.heads)?], 1)
    }

    /// `b` and then `k`, times exp of the exponent, by heads: `[batch, 2 * tokens, size]`.
    fn writes(&self, b: &Tensor, k: &Tensor, exponent: &Tensor) -> Result<Tensor> {
        let factor = exponent.exp()?;
        Tensor::cat(&[by_heads(&(b * &factor)?, self.heads)?, by_heads(&(k * &factor)?, self.heads)?], 1)
    }

    /// As [`meet_in_block`], for chunks that are longer than a block.
    fn meet(&self) -> Result<Tensor> {
        let (chunks, tokens, channels) = self.r.dims3()?;
        let blocks = |x: &Tensor| x.reshape((chunks * tokens / BLOCK, BLOCK, channels));
        let log_decay = blocks(&self.log_decay)?;
        let upto = Covers::UpTo.sum(&log_decay)?;
        let reads = self.reads(&blocks(&self.a)?, &blocks(&self.r)?, &log_decay, &upto)?;
        let writes = self.writes(&blocks(&self.b)?, &blocks(&self.k)?, &upto.neg()?)?;
        let mut quadrants = quadrants(&meet_in_block(&reads, &writes)?)?;
        let mut half = BLOCK;
        while half < tokens {
            let (earlier, later) = halves(&self.log_decay, half)?;
            let (a, r, b, k) = (halves(&self.a, half)?.1, halves(&self.r, half)?.1, halves(&self.b, half)?.0, halves(&self.k, half)?.0);
            let reads = self.reads(&a, &r, &later, &Covers::UpTo.sum(&later)?)?;
            let writes = self.writes(&b, &k, &Covers::After.sum(&earlier)?)?;
            let across = reads.matmul(&writes.t()?)?;
            let join = |(blocks, corner): (&Tensor, &Tensor)| self.join(blocks, corner);
            quadrants = quadrants.iter().zip(&self::quadrants(&across)?).map(join).collect::<Result<_>>()?;
            half *= 2;
        }
        let [ab, ak, rb, rk] = quadrants.as_slice() else { candle_core::bail!("a matrix has four quadrants") };
        Tensor::cat(&[Tensor::cat(&[ab, ak], 2)?, Tensor::cat(&[rb, rk], 2)?], 1)
    }

    /// Neighbouring blocks `[blocks * heads, n, n]` become the diagonal of blocks twice the size; `corner` goes below it.
    fn join(&self, blocks: &Tensor, corner: &Tensor) -> Result<Tensor> {
        let (batch, n, _) = blocks.dims3()?;
        let pairs = blocks.reshape((batch / self.heads / 2, 2, self.heads, n, n))?;
        let one = |index: usize| pairs.narrow(1, index, 1)?.contiguous()?.reshape((batch / 2, n, n));
        let upper = Tensor::cat(&[one(0)?, corner.zeros_like()?], 2)?;
        Tensor::cat(&[upper, Tensor::cat(&[corner, &one(1)?], 2)?], 1)
    }
}

/// How much of what was written each token reads, decays included: `[batch, 2 n, 2 n]` for blocks of n tokens. Rows: what
/// `a` reads, then what `r` reads. Columns: what was written under `b`, then under `k`. `a` sees earlier tokens only, `r` its
/// own as well.
pub(crate) fn meet_in_block(reads: &Tensor, writes: &Tensor) -> Result<Tensor> {
    let n = reads.dim(1)? / 2;
    let mask = |covers: Covers| {
        let half = covers.matrix(n, writes.dtype(), writes.device())?;
        Tensor::cat(&[&half, &half], 1)
    };
    let mask = Tensor::cat(&[mask(Covers::Before)?, mask(Covers::UpTo)?], 0)?;
    reads.matmul(&writes.t()?)?.broadcast_mul(&mask)
}

/// Upper left, upper right, lower left, lower right.
fn quadrants(matrix: &Tensor) -> Result<Vec<Tensor>> {
    let n = matrix.dim(1)? / 2;
    [(0, 0), (0, n), (n, 0), (n, n)].into_iter().map(|(row, column)| matrix.narrow(1, row, n)?.narrow(2, column, n)?.contiguous()).collect()
}

/// Chunks ready for products of matrices; batch = chunks * heads.
pub(crate) struct Prepared {
    /// The directions a and then r, decayed back to the beginning of the chunk: `[batch, 2 * tokens, key]`.
    pub(crate) reads: Tensor,
    /// As [`meet_in_block`] has it, for whole chunks.
    pub(crate) meetings: Tensor,
    /// The directions b and then k: `[batch, 2 * tokens, key]`.
    pub(crate) writes: Tensor,
    /// Where in the chunk the writes are seen from.
    pub(crate) seen_from: End,
    /// `[batch, tokens, value]`.
    pub(crate) v: Tensor,
    /// What is left of the memory after a chunk: `[chunks, heads, key, 1]`.
    pub(crate) kept: Tensor,
}

/// One of the two ends of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Decays of the chunk have been divided out: what is written goes through all of them.
    First,
    /// What is written has gone through all decays of its chunk.
    Last,
}

/// What the tokens of all chunks read, by heads `[batch, tokens, value]`.
pub(crate) struct Read {
    /// Of what their chunk wrote.
    pub(crate) within: Tensor,
    /// Of the memory before their chunk.
    pub(crate) across: Tensor,
    /// The memory behind the last chunk `[heads, key, value]`.
    pub(crate) end: Tensor,
}

impl Prepared {
    pub(crate) fn run(&self, start: Tensor) -> Result<Read> {
        let tokens = self.v.dim(1)?;
        let a_meets = self.meetings.narrow(1, 0, tokens)?;
        let solved = inverse_of_one_minus(&a_meets.narrow(2, 0, tokens)?)?;
        // What token t takes out: of the memory before the chunk, and of what the chunk itself wrote.
        let of_values = a_meets.narrow(2, tokens, tokens)?.matmul(&self.v)?;
        let of_memory = solved.matmul(&self.reads.narrow(1, 0, tokens)?)?;
        let of_chunk = solved.matmul(&of_values)?;
        let readers = Tensor::cat(&[&of_memory, &self.reads.narrow(1, tokens, tokens)?], 1)?;
        let writes = self.writes.t()?;
        let (mut memory, mut written, mut across) = (start, Vec::new(), Vec::new());
        let (chunks, heads, ..) = self.kept.dims4()?;
        for index in 0..chunks {
            let of = |x: &Tensor| x.narrow(0, index * heads, heads);
            let read = of(&readers)?.matmul(&memory)?;
            let taken = (of(&of_chunk)? + read.narrow(1, 0, tokens)?)?;
            let both = Tensor::cat(&[&taken, &of(&self.v)?], 1)?;
            let (added, kept) = (of(&writes)?.matmul(&both)?, self.kept.get(index)?);
            memory = match self.seen_from {
                End::First => (memory + added)?.broadcast_mul(&kept)?,
                End::Last => (memory.broadcast_mul(&kept)? + added)?,
            };
            written.push(both);
            across.push(read.narrow(1, tokens, tokens)?);
        }
        let within = self.meetings.narrow(1, tokens, tokens)?.matmul(&Tensor::cat(&written, 0)?)?;
        Ok(Read { within, across: Tensor::cat(&across, 0)?.contiguous()?, end: memory })
    }
}
