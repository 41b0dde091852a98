//! Linear attention with a decay, as RWKV-5 and RWKV-6 have it: token t reads, by its receptance, the sum of the outer
//! products of earlier keys and values, each decayed once for every token between; and the current one times a bonus.
//!
//! Within a chunk the decay between two tokens has to be applied inside the product of receptance and key. It is never
//! divided out: exp of a running sum may be 0. Instead blocks are halved again and again, and pairs of tokens from both
//! halves of a block meet at its middle: the receptance is decayed back to the middle, the key on to the middle, so that
//! every exponent is a sum of negative numbers.

use candle_core::{Result, Tensor};

use crate::faults::{Fault, Planted};
use crate::scan::{Covers, by_heads, by_tokens, halves, pad_tokens, pieces};

/// What the recurrence gets for a sequence.
pub(crate) struct Inputs<'a> {
    pub(crate) heads: usize,
    /// Receptance `[tokens, channels]`.
    pub(crate) r: &'a Tensor,
    /// Key.
    pub(crate) k: &'a Tensor,
    /// Value.
    pub(crate) v: &'a Tensor,
    /// `[1, channels]`.
    pub(crate) bonus: &'a Tensor,
    pub(crate) planted: Planted,
}

/// The outputs `[tokens, channels]`, and the memory behind the last token, from `start [heads, key, value]`.
/// `log_decay [tokens, channels]` is at most 0.
pub(crate) fn by_channel(inputs: &Inputs<'_>, log_decay: &Tensor, start: &Tensor, chunk: usize) -> Result<(Tensor, Tensor)> {
    let (tokens, channels) = inputs.r.dims2()?;
    let (mut carry, mut outputs) = (start.clone(), Vec::new());
    for (first, chunks, len) in pieces(tokens, chunk) {
        let part = |x: &Tensor| x.narrow(0, first, chunks * len)?.reshape((chunks, len, channels));
        let (r, k, v, log_decay) = (part(inputs.r)?, part(inputs.k)?, part(inputs.v)?, part(log_decay)?);
        let within = within_chunks(inputs, &r, &k, &v, &log_decay)?;
        let (across, end) = across_chunks(inputs, &r, &k, &v, &log_decay, carry)?;
        outputs.push((within + across)?.flatten(0, 1)?);
        carry = end;
    }
    Ok((Tensor::cat(&outputs, 0)?, carry))
}

/// What each token gets from the tokens of its own chunk; all arguments and the result are `[chunks, tokens, channels]`.
fn within_chunks(inputs: &Inputs<'_>, r: &Tensor, k: &Tensor, v: &Tensor, log_decay: &Tensor) -> Result<Tensor> {
    let (chunks, tokens, channels) = r.dims3()?;
    let (heads, size) = (inputs.heads, channels / inputs.heads);
    let current = if inputs.planted.is(Fault::MissingBonus) { r.zeros_like()? } else { (r * k)?.broadcast_mul(inputs.bonus)? };
    let weight = current.reshape((chunks, tokens, heads, size))?.sum_keepdim(3)?;
    let mut out = v.reshape((chunks, tokens, heads, size))?.broadcast_mul(&weight)?.reshape((chunks, tokens, channels))?;
    let padded = tokens.next_power_of_two();
    let (r, k, v) = (pad_tokens(r, padded)?, pad_tokens(k, padded)?, pad_tokens(v, padded)?);
    let log_decay = pad_tokens(log_decay, padded)?;
    let mut half = 1;
    while half < padded {
        let later = meet(inputs, (&r, &k, &v), &log_decay, half)?;
        let both = Tensor::cat(&[&later.zeros_like()?, &later], 1)?;
        out = (out + both.reshape((chunks, padded, channels))?.narrow(1, 0, tokens)?)?;
        half *= 2;
    }
    Ok(out)
}

/// What the later half of each block of `2 * half` tokens gets from the earlier one, `[blocks, half, channels]`.
fn meet(inputs: &Inputs<'_>, (r, k, v): (&Tensor, &Tensor, &Tensor), log_decay: &Tensor, half: usize) -> Result<Tensor> {
    let (earlier_decay, later_decay) = halves(log_decay, half)?;
    let (_, r) = halves(r, half)?;
    let (k, _) = halves(k, half)?;
    let (v, _) = halves(v, half)?;
    let since = if inputs.planted.is(Fault::DecayPower) { Covers::UpTo } else { Covers::Before };
    let r = by_heads(&(r * since.sum(&later_decay)?.exp()?)?, inputs.heads)?;
    let k = by_heads(&(k * Covers::After.sum(&earlier_decay)?.exp()?)?, inputs.heads)?;
    let weights = r.matmul(&k.t()?)?;
    by_tokens(&weights.matmul(&by_heads(&v, inputs.heads)?)?, inputs.heads)
}

/// What each token gets from before its chunk, and the memory behind the last chunk.
fn across_chunks(inputs: &Inputs<'_>, r: &Tensor, k: &Tensor, v: &Tensor, log_decay: &Tensor, start: Tensor) -> Result<(Tensor, Tensor)> {
    let (chunks, tokens, channels) = r.dims3()?;
    let (heads, size) = (inputs.heads, channels / inputs.heads);
    let reads = by_heads(&(r * Covers::Before.sum(log_decay)?.exp()?)?, heads)?;
    let writes = by_heads(&(k * Covers::After.sum(log_decay)?.exp()?)?, heads)?;
    let added = writes.t()?.matmul(&by_heads(v, heads)?)?.reshape((chunks, heads, size, size))?;
    let carried = if inputs.planted.is(Fault::ChunkCarry) { tokens - 1 } else { tokens };
    let kept = log_decay.narrow(1, 0, carried)?.sum(1)?.exp()?.reshape((chunks, heads, size, 1))?;
    let (states, end) = carry(&kept, &added, start)?;
    Ok((by_tokens(&reads.matmul(&states)?, heads)?, end))
}

/// From chunk to chunk: `kept [chunks, heads, key, 1]` of the memory stays, `added [chunks, heads, key, value]` comes in.
/// The memories before each chunk `[chunks * heads, key, value]`, and the one behind the last.
pub(crate) fn carry(kept: &Tensor, added: &Tensor, start: Tensor) -> Result<(Tensor, Tensor)> {
    let (mut memory, mut before) = (start, Vec::new());
    for index in 0..added.dim(0)? {
        let next = (memory.broadcast_mul(&kept.get(index)?)? + added.get(index)?)?;
        before.push(std::mem::replace(&mut memory, next));
    }
    Ok((Tensor::cat(&before, 0)?, memory))
}

/// As [`by_channel`] for one decay a head that is the same for all tokens, `log_decay [heads]`: its powers between any two
/// tokens of a chunk are one matrix, applied to the product of receptance and key.
pub(crate) fn by_head(inputs: &Inputs<'_>, log_decay: &[f64], start: &Tensor, chunk: usize) -> Result<(Tensor, Tensor)> {
    let (tokens, channels) = inputs.r.dims2()?;
    let (heads, size) = (inputs.heads, channels / inputs.heads);
    let (mut memory, mut outputs) = (start.clone(), Vec::new());
    for (first, chunks, len) in pieces(tokens, chunk) {
        let part = |x: &Tensor| by_heads(&x.narrow(0, first, chunks * len)?.reshape((chunks, len, channels))?, heads);
        let (r, k, v) = (part(inputs.r)?, part(inputs.k)?, part(inputs.v)?);
        let powers = Powers { log_decay, len, like: &r };
        let extra = if inputs.planted.is(Fault::DecayPower) { 1 } else { 0 };
        let between = powers.table(len, |t, i| (i < t).then(|| t + extra - 1 - i))?;
        let per_head = |x: &Tensor| x.reshape((chunks, heads, len, x.dim(2)?));
        let decayed = per_head(&r.matmul(&k.t()?)?)?.broadcast_mul(&between)?.reshape((chunks * heads, len, len))?;
        let bonus = inputs.bonus.reshape((1, heads, 1, size))?;
        let bonus = if inputs.planted.is(Fault::MissingBonus) { bonus.zeros_like()? } else { bonus };
        let current = per_head(&(&r * &k)?)?.broadcast_mul(&bonus)?.sum_keepdim(3)?.reshape((chunks * heads, len, 1))?;
        let within = (decayed.matmul(&v)? + v.broadcast_mul(&current)?)?;
        let writes = per_head(&k)?.broadcast_mul(&powers.table(1, |i, _| Some(len - 1 - i))?)?.reshape(k.shape())?;
        let added = writes.t()?.matmul(&v)?.reshape((chunks, heads, size, size))?;
        let carried = if inputs.planted.is(Fault::ChunkCarry) { len - 1 } else { len };
        let kept = powers.table(1, |_, _| Some(carried))?.narrow(1, 0, 1)?.expand((chunks, heads, 1, 1))?;
        let (states, end) = carry(&kept, &added, memory)?;
        let reads = per_head(&r)?.broadcast_mul(&powers.table(1, |t, _| Some(t))?)?.reshape(r.shape())?;
        outputs.push(by_tokens(&(within + reads.matmul(&states)?)?, heads)?.flatten(0, 1)?);
        memory = end;
    }
    Ok((Tensor::cat(&outputs, 0)?, memory))
}

/// Powers of one decay a head.
struct Powers<'a> {
    log_decay: &'a [f64],
    /// Tokens a chunk.
    len: usize,
    /// Gives type and device.
    like: &'a Tensor,
}

impl Powers<'_> {
    /// `[heads, len, columns]`: the decay to the power of `exponent(row, column)`, or 0.
    fn table(&self, columns: usize, exponent: impl Fn(usize, usize) -> Option<usize>) -> Result<Tensor> {
        let shape = (self.log_decay.len(), self.len, columns);
        let power = |log: f64, at: usize| exponent(at / columns, at % columns).map_or(0.0, |power| (log * power as f64).exp());
        let values: Vec<f64> = self
            .log_decay
            .iter()
            .flat_map(|log| (0..self.len * columns).map(move |at| (*log, at)))
            .map(|(log, at)| power(log, at))
            .collect();
        Tensor::from_vec(values, shape, self.like.device())?.to_dtype(self.like.dtype())
    }
}
