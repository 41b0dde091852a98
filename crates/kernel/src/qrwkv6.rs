//! QRWKV6 time mix: a gated linear attention whose token shift and decay are those of RWKV-6.
//!
//! Against RWKV-6: no bonus, and the readout comes after the state update; the key is multiplied by 1 - decay; the
//! readout is scaled by 1 / sqrt(head size); no group norm; the gate is a logistic function; keys and values may have
//! fewer heads, each of which serves a run of neighbouring heads.

use rwkv_forge_weights::WeightsError;

use crate::error::KernelError;
use crate::heads::{Projections, by_token, for_each_head};
use crate::linear::Matrix;
use crate::load::{Weights, tensor_name};
use crate::norm::{RowNorm, Shifted, add, map};
use crate::real::Real;

/// One of the five inputs: how much of the previous token it takes.
#[derive(Clone, Debug)]
struct Mix<F> {
    /// time_maa_* `[C]`.
    base: Vec<F>,
    /// time_maa_w1_* as `[D, C]`.
    down: Matrix<F>,
    /// time_maa_w2_* as `[C, D]`.
    up: Matrix<F>,
}

impl<F: Real> Mix<F> {
    fn load(weights: &Weights<'_>, layer: usize, letter: &str, rank: usize) -> Result<Self, KernelError> {
        let channels = weights.description.hyperparameters.channels;
        let name = |part: &str| tensor_name(layer, &format!("att.time_maa_{part}{letter}"));
        Ok(Self {
            base: weights.vector(&name(""), channels)?,
            down: weights.factor(&name("w1_"), channels, rank)?,
            up: weights.factor(&name("w2_"), rank, channels)?,
        })
    }

    /// The input after its token shift, `[tokens, C]`. `shifted` is the input after the token shift that does not depend
    /// on the data.
    fn apply(&self, input: &Shifted<F>, shifted: &[F]) -> Vec<F> {
        let mut amount = self.up.apply(&map(self.down.apply(shifted), F::tanh));
        for (amount, base) in amount.iter_mut().zip(self.base.iter().cycle()) {
            *amount = *base + *amount;
        }
        input.lerp(&amount)
    }
}

/// A linear layer with a bias in some models.
#[derive(Clone, Debug)]
struct Linear<F> {
    weight: Matrix<F>,
    bias: Option<Vec<F>>,
}

impl<F: Real> Linear<F> {
    fn load(weights: &Weights<'_>, name: &str, outputs: usize, inputs: usize) -> Result<Self, KernelError> {
        let bias = format!("{name}.bias");
        Ok(Self {
            weight: weights.matrix(&format!("{name}.weight"), outputs, inputs)?,
            bias: if weights.has(&bias) { Some(weights.vector(&bias, outputs)?) } else { None },
        })
    }

    fn apply(&self, x: &[F]) -> Vec<F> {
        let mut out = self.weight.apply(x);
        if let Some(bias) = &self.bias {
            for (out, bias) in out.iter_mut().zip(bias.iter().cycle()) {
                *out += *bias;
            }
        }
        out
    }
}

/// Inner widths of the low-rank pairs, and heads of keys and values.
#[derive(Clone, Copy)]
pub(crate) struct Widths {
    /// D.
    pub(crate) mix: usize,
    pub(crate) decay: usize,
    pub(crate) kv_heads: usize,
}

/// Weights of ln1 and the time mix of one layer.
#[derive(Clone, Debug)]
pub(crate) struct TimeMix<F> {
    norm: RowNorm<F>,
    /// time_maa_x `[C]`.
    mix_x: Vec<F>,
    mix_r: Mix<F>,
    mix_k: Mix<F>,
    mix_v: Mix<F>,
    mix_w: Mix<F>,
    mix_g: Mix<F>,
    /// time_decay `[A]`.
    decay: Vec<F>,
    decay_down: Matrix<F>,
    decay_up: Matrix<F>,
    receptance: Linear<F>,
    key: Linear<F>,
    value: Linear<F>,
    gate: Matrix<F>,
    output: Matrix<F>,
    head_size: usize,
    /// Heads that share a key and a value.
    shared: usize,
}

impl<F: Real> TimeMix<F> {
    pub(crate) fn load(weights: &Weights<'_>, layer: usize, widths: Widths) -> Result<Self, KernelError> {
        let sizes = &weights.description.hyperparameters;
        let (c, a) = (sizes.channels, sizes.attention);
        let name = |suffix: &str| tensor_name(layer, &format!("att.{suffix}"));
        let Widths { mix: rank, decay: decay_rank, kv_heads } = widths;
        if sizes.heads.checked_rem(kv_heads) != Some(0) {
            return Err(WeightsError::ShapeMismatch {
                tensor: name("key.weight"),
                found: format!("{} heads and {kv_heads} of keys", sizes.heads),
                expected: "heads of keys that divide the heads".to_owned(),
            }
            .into());
        }
        let kv = kv_heads * sizes.head_size;
        let mix = |letter: &str| Mix::load(weights, layer, letter, rank);
        Ok(Self {
            norm: RowNorm::load(weights, &tensor_name(layer, "ln1"), c)?,
            mix_x: weights.vector(&name("time_maa_x"), c)?,
            mix_r: mix("r")?,
            mix_k: mix("k")?,
            mix_v: mix("v")?,
            mix_w: mix("w")?,
            mix_g: mix("g")?,
            decay: weights.vector(&name("time_decay"), a)?,
            decay_down: weights.factor(&name("time_decay_w1"), c, decay_rank)?,
            decay_up: weights.factor(&name("time_decay_w2"), decay_rank, a)?,
            receptance: Linear::load(weights, &name("receptance"), a, c)?,
            key: Linear::load(weights, &name("key"), kv, c)?,
            value: Linear::load(weights, &name("value"), kv, c)?,
            gate: weights.matrix(&name("gate.weight"), a, c)?,
            output: weights.matrix(&name("output.weight"), c, a)?,
            head_size: sizes.head_size,
            shared: sizes.heads / kv_heads,
        })
    }

    /// Adds the time mix of `x [tokens, channels]` to it. `state` is `[heads, key, value]`.
    pub(crate) fn forward(&self, x: &mut [F], shift_state: &mut [F], state: &mut [F]) {
        let tokens = x.len() / shift_state.len();
        let input = Shifted::new(self.norm.apply(x), shift_state);
        let shifted = input.lerp(&self.mix_x);
        let n = self.head_size;
        let r = self.receptance.apply(&self.mix_r.apply(&input, &shifted));
        let mut k = self.for_all_heads(self.key.apply(&self.mix_k.apply(&input, &shifted)));
        let v = self.for_all_heads(self.value.apply(&self.mix_v.apply(&input, &shifted)));
        let w = self.decay(&self.mix_w.apply(&input, &shifted));
        for (k, w) in k.iter_mut().zip(&w) {
            *k = *k - *k * *w;
        }
        let heads = recur(state, n, &Projections { r, k, v }, &w);
        let mut out = by_token(&heads, n, tokens);
        for (out, g) in out.iter_mut().zip(self.gate.apply(&self.mix_g.apply(&input, &shifted))) {
            *out = *out * g.sigmoid();
        }
        add(x, &self.output.apply(&out));
    }

    /// `[tokens, kv heads * N]` to `[tokens, heads * N]`: each head of keys or values `shared` times in a row.
    fn for_all_heads(&self, x: Vec<F>) -> Vec<F> {
        if self.shared == 1 {
            return x;
        }
        x.chunks_exact(self.head_size).flat_map(|head| std::iter::repeat_n(head, self.shared).flatten()).copied().collect()
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

/// S = w S + k v^T with w on the key index, then out = r^T S / sqrt(N), token by token; S is `[heads, key, value]`. All
/// inputs are `[tokens, heads * N]`. Returns `[heads, tokens, N]`.
fn recur<F: Real>(state: &mut [F], n: usize, inputs: &Projections<F>, w: &[F]) -> Vec<F> {
    let heads = state.len() / (n * n).max(1);
    let tokens = inputs.r.len() / (heads * n).max(1);
    let scale = F::ONE / F::from_f64(n as f64).sqrt();
    for_each_head(state, n, tokens, |head, state, out| {
        for (token, out) in out.chunks_exact_mut(n).enumerate() {
            let first = (token * heads + head) * n;
            let at = first..first + n;
            let (r, k, v, w) = (&inputs.r[at.clone()], &inputs.k[at.clone()], &inputs.v[at.clone()], &w[at]);
            for (key, row) in state.chunks_exact_mut(n).enumerate() {
                let weight = r[key] * scale;
                for ((out, s), v) in out.iter_mut().zip(row).zip(v) {
                    *s = *s * w[key] + k[key] * *v;
                    *out += weight * *s;
                }
            }
        }
    })
}
