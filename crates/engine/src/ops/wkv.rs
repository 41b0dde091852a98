//! The matrix-state recurrences of RWKV-5, RWKV-6 and RWKV-7, one head at a time.
//!
//! The state of a head is `[key, value]`, row-major, for all versions. Lanes run over the value index: each column is a
//! recurrence of its own that sums over the keys in ascending order, so neither the width of a register nor the number of
//! tokens in a call changes its bits. Columns are taken in strips whose sums stay in registers; a strip of the state
//! stays in the first-level cache for all tokens of a call.
//!
//! There is no chunked form: with the state in the first-level cache RWKV-7 needs five multiplications an element and token, four
//! of them fused with additions, and runs at the speed of the multipliers. Chunks would still need four, and products of their own.

use super::norm::weighted_dot;

/// Columns of the widest strip: four AVX-512 registers a sum, whose latencies overlap. Half as many took twice the time for
/// RWKV-7 (AVX-512; 1.5 times with AVX2, although sums then leave the registers).
const STRIP: usize = 64;
/// Columns of the strips of small heads.
const NARROW: usize = 16;

/// What RWKV-5 and RWKV-6 read, of one head.
#[derive(Clone, Copy, Debug)]
pub struct Inputs5<'a> {
    /// Receptance `[tokens, head_size]`.
    pub r: &'a [f32],
    /// Key `[tokens, head_size]`.
    pub k: &'a [f32],
    /// Value `[tokens, head_size]`.
    pub v: &'a [f32],
    /// Factor of the state at each token: RWKV-6 `[tokens, head_size]`, RWKV-5 `[head_size]`.
    pub w: &'a [f32],
    /// Factor of the current token's k v^T `[head_size]`.
    pub u: &'a [f32],
}

/// out = r^T (u k v^T + S), then S = k v^T + w S, token by token, with u and w scaling the key index.
/// `state [head_size, head_size]`, `out [tokens, head_size]`.
#[inline(always)]
pub fn wkv5(state: &mut [f32], head_size: usize, inputs: Inputs5<'_>, out: &mut [f32]) {
    let n = head_size;
    let step = if inputs.w.len() == n { 0 } else { n };
    for (token, out) in out.chunks_exact_mut(n).enumerate() {
        let at = token * n;
        let token = Inputs5 {
            r: &inputs.r[at..at + n],
            k: &inputs.k[at..at + n],
            v: &inputs.v[at..at + n],
            w: &inputs.w[token * step..token * step + n],
            u: &inputs.u[..n],
        };
        let current = weighted_dot(token.r, token.k, token.u);
        let mut column = 0;
        while n - column >= STRIP {
            strip5::<STRIP>(state, column, token, current, out);
            column += STRIP;
        }
        while n - column >= NARROW {
            strip5::<NARROW>(state, column, token, current, out);
            column += NARROW;
        }
        while n - column >= 1 {
            strip5::<1>(state, column, token, current, out);
            column += 1;
        }
    }
}

/// One token, columns `column .. column + W`. `current` is the sum of r u k.
#[inline(always)]
fn strip5<const W: usize>(state: &mut [f32], column: usize, token: Inputs5<'_>, current: f32, out: &mut [f32]) {
    let n = token.r.len();
    let v: [f32; W] = part(token.v, column);
    let mut sums = [0.0; W];
    for lane in 0..W {
        sums[lane] = current * v[lane];
    }
    for (((row, r), k), w) in state.chunks_exact_mut(n).zip(token.r).zip(token.k).zip(token.w) {
        let row = part_mut::<W>(row, column);
        for lane in 0..W {
            let s = row[lane];
            sums[lane] = r.mul_add(s, sums[lane]);
            row[lane] = w.mul_add(s, *k * v[lane]);
        }
    }
    *part_mut(out, column) = sums;
}

/// What RWKV-7 reads, of one head, each `[tokens, head_size]`.
#[derive(Clone, Copy, Debug)]
pub struct Inputs7<'a> {
    /// Receptance.
    pub r: &'a [f32],
    /// Decay, the factor of the state.
    pub w: &'a [f32],
    /// Key after its rescaling.
    pub k: &'a [f32],
    /// Value.
    pub v: &'a [f32],
    /// Removal key kk, of length 1.
    pub removal: &'a [f32],
    /// -kk * a: what the removed value is written back with.
    pub replacement: &'a [f32],
}

/// S = w S + replacement (removal^T S) + k v^T, then out = r^T S, token by token, with w scaling the key index.
/// `state [head_size, head_size]`, `out [tokens, head_size]`.
#[inline(always)]
pub fn wkv7(state: &mut [f32], head_size: usize, inputs: Inputs7<'_>, out: &mut [f32]) {
    let n = head_size;
    let mut column = 0;
    while n - column >= STRIP {
        strip7::<STRIP>(state, n, column, inputs, out);
        column += STRIP;
    }
    while n - column >= NARROW {
        strip7::<NARROW>(state, n, column, inputs, out);
        column += NARROW;
    }
    while n - column >= 1 {
        strip7::<1>(state, n, column, inputs, out);
        column += 1;
    }
}

/// All tokens, columns `column .. column + W`. After the first token, one pass over the strip does the update and
/// the readout of a token and the removal of the next one.
#[inline(always)]
fn strip7<const W: usize>(state: &mut [f32], n: usize, column: usize, inputs: Inputs7<'_>, out: &mut [f32]) {
    let tokens = out.len() / n;
    if tokens == 0 {
        return;
    }
    let mut removed = [0.0f32; W];
    for (row, removal) in state.chunks_exact(n).zip(&inputs.removal[..n]) {
        let row = part::<W>(row, column);
        for lane in 0..W {
            removed[lane] = removal.mul_add(row[lane], removed[lane]);
        }
    }
    for token in 0..tokens {
        let now = token * n..(token + 1) * n;
        // The last token has no next one: its own removal key, whose result nobody reads, keeps the loop the same.
        let next = (token + 1).min(tokens - 1) * n;
        let v: [f32; W] = part(&inputs.v[now.clone()], column);
        let keys = inputs.w[now.clone()].iter().zip(&inputs.replacement[now.clone()]).zip(&inputs.k[now.clone()]);
        let keys = keys.zip(&inputs.r[now.clone()]).zip(&inputs.removal[next..next + n]);
        let mut sums = [0.0f32; W];
        let mut next_removed = [0.0f32; W];
        for (row, ((((w, replacement), k), r), removal)) in state.chunks_exact_mut(n).zip(keys) {
            let row = part_mut::<W>(row, column);
            for lane in 0..W {
                let s = k.mul_add(v[lane], replacement.mul_add(removed[lane], *w * row[lane]));
                row[lane] = s;
                sums[lane] = r.mul_add(s, sums[lane]);
                next_removed[lane] = removal.mul_add(s, next_removed[lane]);
            }
        }
        removed = next_removed;
        *part_mut(&mut out[now], column) = sums;
    }
}

/// Elements `first .. first + W`.
#[inline(always)]
fn part<const W: usize>(values: &[f32], first: usize) -> [f32; W] {
    let mut out = [0.0; W];
    out.copy_from_slice(&values[first..first + W]);
    out
}

/// Elements `first .. first + W`.
#[inline(always)]
fn part_mut<const W: usize>(values: &mut [f32], first: usize) -> &mut [f32; W] {
    values[first..].first_chunk_mut().expect("the strip lies inside the row")
}
