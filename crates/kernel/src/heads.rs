//! What RWKV-5 and RWKV-6 share: the matrix state of a head, group norm and gate.

use rayon::prelude::*;

use crate::norm::Norm;
use crate::real::Real;

/// Heads below which the recurrence runs on one thread: state elements times tokens.
const SMALL: usize = 1 << 15;

/// Runs `task(head, state [N, N], out [tokens, N])` for every head, in parallel when that pays, and returns the outputs
/// as `[heads, tokens, N]`. Heads are independent, so threads do not change results.
pub(crate) fn for_each_head<F: Real>(
    state: &mut [F],
    head_size: usize,
    tokens: usize,
    task: impl Fn(usize, &mut [F], &mut [F]) + Sync,
) -> Vec<F> {
    let square = head_size * head_size;
    let heads = state.len() / square.max(1);
    let mut out = vec![F::ZERO; heads * tokens * head_size];
    if state.len() * tokens < SMALL {
        let pairs = state.chunks_exact_mut(square).zip(out.chunks_exact_mut(tokens * head_size));
        pairs.enumerate().for_each(|(head, (state, out))| task(head, state, out));
    } else {
        let pairs = state.par_chunks_exact_mut(square).zip(out.par_chunks_exact_mut(tokens * head_size));
        pairs.enumerate().for_each(|(head, (state, out))| task(head, state, out));
    }
    out
}

/// Receptance, key and value of a block of tokens, each `[tokens, heads * head_size]`.
pub(crate) struct Projections<F> {
    pub(crate) r: Vec<F>,
    pub(crate) k: Vec<F>,
    pub(crate) v: Vec<F>,
}

/// The recurrence of RWKV-5 and RWKV-6: out = r^T (u k v^T + S), then S = k v^T + w S, with u and w scaling the key
/// index. S is `[heads, key, value]`; the result is `[heads, tokens, head_size]`.
///
/// `decay(token, head)` gives w `[head_size]`; `bonus` is `[heads, head_size]`.
pub(crate) fn wkv<'a, F: Real>(
    state: &mut [F],
    head_size: usize,
    inputs: &Projections<F>,
    bonus: &[F],
    decay: impl Fn(usize, usize) -> &'a [F] + Sync,
) -> Vec<F> {
    let heads = state.len() / (head_size * head_size).max(1);
    let tokens = inputs.r.len() / (heads * head_size).max(1);
    for_each_head(state, head_size, tokens, |head, state, out| {
        let u = &bonus[head * head_size..(head + 1) * head_size];
        for (token, out) in out.chunks_exact_mut(head_size).enumerate() {
            let first = (token * heads + head) * head_size;
            let at = first..first + head_size;
            let (r, k, v) = (&inputs.r[at.clone()], &inputs.k[at.clone()], &inputs.v[at]);
            let w = decay(token, head);
            for (key, row) in state.chunks_exact_mut(head_size).enumerate() {
                for ((out, s), v) in out.iter_mut().zip(row).zip(v) {
                    let kv = k[key] * *v;
                    *out += r[key] * (u[key] * kv + *s);
                    *s = kv + w[key] * *s;
                }
            }
        }
    })
}

/// `by_head [heads, tokens, head_size]` as `[tokens, heads * head_size]`.
pub(crate) fn by_token<F: Real>(by_head: &[F], head_size: usize, tokens: usize) -> Vec<F> {
    let mut out = vec![F::ZERO; by_head.len()];
    let heads = by_head.len() / (tokens * head_size).max(1);
    for (index, row) in by_head.chunks_exact(head_size).enumerate() {
        let (head, token) = (index / tokens, index % tokens);
        let first = (token * heads + head) * head_size;
        out[first..first + head_size].copy_from_slice(row);
    }
    out
}

/// Group norm of `by_head [heads, tokens, head_size]`, returned as `[tokens, heads * head_size]`.
pub(crate) fn normalise<F: Real>(by_head: &[F], head_size: usize, tokens: usize, norm: &Norm<F>, eps: f64) -> Vec<F> {
    let mut out = by_token(by_head, head_size, tokens);
    let heads = by_head.len() / (tokens * head_size).max(1);
    for (index, row) in out.chunks_exact_mut(head_size).enumerate() {
        norm.group_norm(row, index % heads * head_size, eps);
    }
    out
}
