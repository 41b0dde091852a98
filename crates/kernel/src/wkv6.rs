//! RWKV-6 (x060) time mix: RWKV-5.2 with a token shift and a decay that depend on the input.

use crate::error::KernelError;
use crate::heads::{Projections, normalise, wkv};
use crate::linear::{Matrix, transpose};
use crate::load::{Weights, tensor_name};
use crate::norm::{Norm, RowNorm, Shifted, add, map};
use crate::real::Real;

/// One of the five inputs: how much of the previous token it takes.
#[derive(Clone, Debug)]
struct Mix<F> {
    /// time_maa_* `[C]`.
    base: Vec<F>,
    /// Its slice of time_maa_w2, `[C, D]`.
    lora: Matrix<F>,
}

/// Inner widths of the low-rank pairs.
#[derive(Clone, Copy)]
pub(crate) struct Ranks {
    /// D.
    pub(crate) mix: usize,
    pub(crate) decay: usize,
}

/// Weights of ln1 and the time mix of one layer.
#[derive(Clone, Debug)]
pub(crate) struct TimeMix<F> {
    norm: RowNorm<F>,
    mix_x: Vec<F>,
    /// time_maa_w1 as `[5 * D, C]`.
    mix_down: Matrix<F>,
    /// In the order of time_maa_w2's first dimension: w, k, v, r, g.
    mixes: [Mix<F>; 5],
    rank: usize,
    /// time_decay `[A]`.
    decay: Vec<F>,
    decay_down: Matrix<F>,
    decay_up: Matrix<F>,
    /// time_faaaa `[H, N]`.
    bonus: Vec<F>,
    receptance: Matrix<F>,
    key: Matrix<F>,
    value: Matrix<F>,
    gate: Matrix<F>,
    output: Matrix<F>,
    group_norm: Norm<F>,
    group_norm_eps: f64,
    head_size: usize,
}

impl<F: Real> TimeMix<F> {
    pub(crate) fn load(weights: &Weights<'_>, layer: usize, ranks: Ranks, group_norm_eps: f64) -> Result<Self, KernelError> {
        let sizes = &weights.description.hyperparameters;
        let (c, a, n) = (sizes.channels, sizes.attention, sizes.head_size);
        let Ranks { mix: rank, decay: decay_rank } = ranks;
        let name = |suffix: &str| tensor_name(layer, &format!("att.{suffix}"));
        Ok(Self {
            norm: RowNorm::load(weights, &tensor_name(layer, "ln1"), c)?,
            mix_x: weights.vector(&name("time_maa_x"), c)?,
            mix_down: weights.factor(&name("time_maa_w1"), c, 5 * rank)?,
            mixes: load_mixes(weights, layer, rank)?,
            rank,
            decay: weights.vector(&name("time_decay"), a)?,
            decay_down: weights.factor(&name("time_decay_w1"), c, decay_rank)?,
            decay_up: weights.factor(&name("time_decay_w2"), decay_rank, a)?,
            bonus: weights.vector(&name("time_faaaa"), a)?,
            receptance: weights.matrix(&name("receptance.weight"), a, c)?,
            key: weights.matrix(&name("key.weight"), a, c)?,
            value: weights.matrix(&name("value.weight"), a, c)?,
            gate: weights.matrix(&name("gate.weight"), a, c)?,
            output: weights.matrix(&name("output.weight"), c, a)?,
            group_norm: Norm::load(weights, &name("ln_x"), a)?,
            group_norm_eps,
            head_size: n,
        })
    }

    /// Adds the time mix of `x [tokens, channels]` to it. `state` is `[heads, key, value]`.
    pub(crate) fn forward(&self, x: &mut [F], shift_state: &mut [F], state: &mut [F]) {
        let tokens = x.len() / shift_state.len();
        let input = Shifted::new(self.norm.apply(x), shift_state);
        // [tokens, 5 * D]: the low-rank description of all five mixes.
        let codes = map(self.mix_down.apply(&input.lerp(&self.mix_x)), F::tanh);
        let mixed = |index: usize| self.mixed(&input, &codes, index);
        let decay = self.decay(&mixed(0));
        let inputs = Projections { k: self.key.apply(&mixed(1)), v: self.value.apply(&mixed(2)), r: self.receptance.apply(&mixed(3)) };
        let gate = self.gate.apply(&mixed(4));
        let (n, a) = (self.head_size, self.decay.len());
        let heads = wkv(state, n, &inputs, &self.bonus, |token, head| {
            let first = token * a + head * n;
            &decay[first..first + n]
        });
        let mut out = normalise(&heads, n, tokens, &self.group_norm, self.group_norm_eps);
        for (out, g) in out.iter_mut().zip(gate) {
            *out = *out * g.silu();
        }
        add(x, &self.output.apply(&out));
    }

    /// Input number `index` after its token shift, `[tokens, C]`.
    fn mixed(&self, input: &Shifted<F>, codes: &[F], index: usize) -> Vec<F> {
        let mix = &self.mixes[index];
        let code: Vec<F> =
            codes.chunks_exact(5 * self.rank).flat_map(|row| &row[index * self.rank..(index + 1) * self.rank]).copied().collect();
        let mut amount = mix.lora.apply(&code);
        for (amount, base) in amount.iter_mut().zip(mix.base.iter().cycle()) {
            *amount = *base + *amount;
        }
        input.lerp(&amount)
    }

    /// exp(-exp(time_decay + tanh(xw w1) w2)), `[tokens, A]`.
    fn decay(&self, xw: &[F]) -> Vec<F> {
        let code = map(self.decay_down.apply(xw), F::tanh);
        let mut out = self.decay_up.apply(&code);
        for (out, base) in out.iter_mut().zip(self.decay.iter().cycle()) {
            *out = (-(*base + *out).exp()).exp();
        }
        out
    }
}

/// time_maa_w2 is `[5, D, C]`, its parts in the order w, k, v, r, g.
fn load_mixes<F: Real>(weights: &Weights<'_>, layer: usize, rank: usize) -> Result<[Mix<F>; 5], KernelError> {
    let c = weights.description.hyperparameters.channels;
    let name = tensor_name(layer, "att.time_maa_w2");
    let up: Vec<F> = weights.vector(&name, 5 * rank * c)?;
    let mix = |index: usize, suffix: &str| -> Result<Mix<F>, KernelError> {
        let part = &up[index * rank * c..(index + 1) * rank * c];
        let base = weights.vector(&tensor_name(layer, &format!("att.time_maa_{suffix}")), c)?;
        Ok(Mix { base, lora: Matrix::new(c, rank, transpose(part, rank, c)) })
    };
    Ok([mix(0, "w")?, mix(1, "k")?, mix(2, "v")?, mix(3, "r")?, mix(4, "g")?])
}
