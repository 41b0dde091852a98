//! What RWKV-5 and RWKV-6 do in each head: the recurrence, group norm, the gate.

use std::ops::Range;

use rwkv_forge_matrix::{Isa, PANEL};

use crate::error::EngineError;
use crate::linear::gather;
use crate::load::{Loader, Norm};
use crate::machine::{HeadPart, Local, pass};
use crate::ops;
use crate::ops::wkv::Inputs5;

/// Tokens of a head that are computed together, so that their rows stay in the first-level cache.
pub(crate) const TOKENS: usize = 16;

/// Weights that belong to the heads.
pub(crate) struct Heads {
    /// Factor of the current token's k v^T, one a key channel `[channels]`.
    bonus: Vec<f32>,
    group_norm: Norm,
    group_norm_eps: f32,
    pub(crate) head_size: usize,
}

/// Where the results of the projections are.
pub(crate) struct Projections<'a> {
    /// `[panels, tokens, 16]`.
    pub(crate) panels: &'a [f32],
    pub(crate) tokens: usize,
    /// First rows of receptance, key and value.
    pub(crate) rows: [usize; 3],
    /// First row of the gate after its activation.
    pub(crate) gate: Option<usize>,
}

/// The decay of a head.
#[derive(Clone, Copy)]
pub(crate) enum Decay<'a> {
    /// The factor of the state, the same for all tokens `[head_size]`.
    Constant(&'a [f32]),
    /// The factor is exp(-exp(base + amount)): `base [head_size]`, `amount` depends on the token.
    Base(&'a [f32]),
}

impl Heads {
    /// `bonus [channels]` as it is used.
    pub(crate) fn load(loader: &Loader<'_>, group_norm: &str, bonus: Vec<f32>) -> Result<Self, EngineError> {
        let sizes = &loader.description.hyperparameters;
        let group_norm = loader.norm(group_norm, sizes.channels)?;
        Ok(Self { bonus, group_norm, group_norm_eps: loader.group_norm_eps(), head_size: sizes.head_size })
    }

    /// Numbers that belong to no matrix.
    pub(crate) fn vector_elements(&self) -> usize {
        self.bonus.len() + self.group_norm.elements()
    }

    /// Channels of a head.
    pub(crate) fn channels(&self, head: usize) -> Range<usize> {
        head * self.head_size..(head + 1) * self.head_size
    }

    /// All tokens of one head of one sequence. For [`Decay::Base`], `amount(isa, token, to, panels)` gives a token's
    /// row `to [head_size]`, with `panels` as room for the panels that a head's rows lie in.
    pub(crate) fn run(
        &self,
        (isa, local, part): (Isa, &mut Local, &mut HeadPart<'_>),
        from: &Projections<'_>,
        decay: Decay<'_>,
        amount: impl Fn(Isa, usize, &mut [f32], &mut [f32]),
    ) {
        let n = self.head_size;
        let own = self.channels(part.head);
        let [r, k, v, w, g, panels] = local.rows((TOKENS * n).max(n + 2 * PANEL));
        for (chunk, out) in part.out.chunks_mut(TOKENS * n).enumerate() {
            let (len, first) = (out.len(), part.span.first + chunk * TOKENS);
            let (r, k, v) = (&mut r[..len], &mut k[..len], &mut v[..len]);
            for (row, to) in from.rows.iter().zip([&mut *r, &mut *k, &mut *v]) {
                from.collect(row + own.start, n, first, to);
            }
            let w = match decay {
                Decay::Constant(_) => &mut w[..0],
                Decay::Base(_) => {
                    for (token, to) in w[..len].chunks_exact_mut(n).enumerate() {
                        amount(isa, first + token, to, panels);
                    }
                    &mut w[..len]
                }
            };
            let g = match from.gate {
                None => &mut g[..0],
                Some(row) => {
                    from.collect(row + own.start, n, first, &mut g[..len]);
                    &mut g[..len]
                }
            };
            isa.run(Head { heads: self, own: own.clone(), rows: Rows { r, k, v, w, g }, decay, state: &mut *part.state, out });
        }
    }
}

impl Projections<'_> {
    /// Rows `row .. row + width` of the tokens from `first` on, into `to [tokens, width]`.
    fn collect(&self, row: usize, width: usize, first: usize, to: &mut [f32]) {
        for (token, to) in to.chunks_exact_mut(width).enumerate() {
            gather(self.panels, self.tokens, row, first + token, to);
        }
    }
}

/// Rows of one head for some tokens, each `[tokens, head_size]`.
pub(crate) struct Rows<'a> {
    r: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    /// Amounts, then decays; empty for a constant decay.
    w: &'a mut [f32],
    /// Empty without gate.
    g: &'a [f32],
}

pass! {
    /// Everything between the products, for some tokens of one head.
    Head { heads: &'a Heads, own: Range<usize>, rows: Rows<'a>, decay: Decay<'a>, state: &'a mut [f32], out: &'a mut [f32] } {
        let n = own.len();
        let Rows { r, k, v, w, g } = rows;
        let w = match decay {
            Decay::Constant(w) => w,
            Decay::Base(base) => {
                for w in w.chunks_exact_mut(n) {
                    for (w, base) in w.iter_mut().zip(base) {
                        *w = ops::exp(-ops::exp(*base + *w));
                    }
                }
                &*w
            }
        };
        ops::wkv::wkv5(state, n, Inputs5 { r, k, v, w, u: &heads.bonus[own.clone()] }, out);
        let (weight, bias) = (&heads.group_norm.weight[own.clone()], &heads.group_norm.bias[own]);
        for out in out.chunks_exact_mut(n) {
            ops::group_norm(out, weight, bias, heads.group_norm_eps);
        }
        ops::multiply(out, g);
    }
}
