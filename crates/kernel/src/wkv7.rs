//! RWKV-7 (x070) time mix, also of ARWKV, which may lack gate and group norm: a matrix state per head, updated by a generalised delta rule.
//!
//! The order of operations matters and mistakes still give fluent text: the removal key kk is made from the projected
//! key before that key is rescaled; the readout comes after the state update; the bonus is added after group norm.

use crate::error::KernelError;
use crate::heads::{by_token, for_each_head, normalise};
use crate::linear::{Matrix, dot};
use crate::load::{Weights, tensor_name};
use crate::norm::{Norm, RowNorm, Shifted, add, map};
use crate::real::Real;

/// e^(-1/2): the decay is exp(-e^(-1/2) sigmoid(..)), so it lies between 0.5452 and 1.
const DECAY_SCALE: f64 = 0.606_530_659_712_633_4;
/// Smallest length that a removal key is divided by.
const MIN_LENGTH: f64 = 1e-12;

/// A low-rank map: down to the rank, an activation, up again.
#[derive(Clone, Debug)]
struct Lora<F> {
    down: Matrix<F>,
    up: Matrix<F>,
}

impl<F: Real> Lora<F> {
    /// Tensors `att.{letter}1 [C, rank]` and `att.{letter}2 [rank, outputs]`.
    fn load(weights: &Weights<'_>, layer: usize, letter: &str, rank: usize, outputs: usize) -> Result<Self, KernelError> {
        let channels = weights.description.hyperparameters.channels;
        Ok(Self {
            down: weights.factor(&tensor_name(layer, &format!("att.{letter}1")), channels, rank)?,
            up: weights.factor(&tensor_name(layer, &format!("att.{letter}2")), rank, outputs)?,
        })
    }

    /// `x [tokens, C]` to `[tokens, outputs]`, `inner` applied at the rank.
    fn apply(&self, x: &[F], inner: impl Fn(F) -> F) -> Vec<F> {
        self.up.apply(&map(self.down.apply(x), inner))
    }
}

/// A low-rank map with a bias and a logistic function at the end.
#[derive(Clone, Debug)]
struct BiasedLora<F> {
    bias: Vec<F>,
    lora: Lora<F>,
}

impl<F: Real> BiasedLora<F> {
    fn load(weights: &Weights<'_>, layer: usize, letter: &str, rank: usize) -> Result<Self, KernelError> {
        let a = weights.description.hyperparameters.attention;
        let bias = weights.vector(&tensor_name(layer, &format!("att.{letter}0")), a)?;
        Ok(Self { bias, lora: Lora::load(weights, layer, letter, rank, a)? })
    }

    /// sigmoid(bias + lora(x)), `[tokens, A]`.
    fn gate(&self, x: &[F], inner: impl Fn(F) -> F) -> Vec<F> {
        let mut out = self.lora.apply(x, inner);
        for (out, bias) in out.iter_mut().zip(self.bias.iter().cycle()) {
            *out = (*bias + *out).sigmoid();
        }
        out
    }
}

/// Inner widths of the low-rank pairs; `None` for those that the model lacks.
#[derive(Clone, Copy)]
pub(crate) struct Ranks {
    pub(crate) decay: usize,
    pub(crate) iclr: usize,
    pub(crate) value: Option<usize>,
    pub(crate) gate: Option<usize>,
}

/// Weights of ln1 and the time mix of one layer.
#[derive(Clone, Debug)]
pub(crate) struct TimeMix<F> {
    norm: RowNorm<F>,
    /// x_r, x_w, x_k, x_v, x_a, each `[C]`.
    mix: [Vec<F>; 5],
    decay: BiasedLora<F>,
    /// In-context learning rate.
    rate: BiasedLora<F>,
    /// How much of layer 0's value replaces this layer's; layer 0 has none.
    value_mix: Option<BiasedLora<F>>,
    /// x_g and the pair g1, g2.
    gate: Option<(Vec<F>, Lora<F>)>,
    /// k_k `[A]`.
    removal: Vec<F>,
    /// k_a `[A]`.
    rescale: Vec<F>,
    /// r_k `[H, N]`.
    bonus: Vec<F>,
    receptance: Matrix<F>,
    key: Matrix<F>,
    value: Matrix<F>,
    output: Matrix<F>,
    group_norm: Option<Norm<F>>,
    group_norm_eps: f64,
    head_size: usize,
}

/// What the recurrence reads, each `[tokens, A]`.
struct Inputs<F> {
    r: Vec<F>,
    /// Decay.
    w: Vec<F>,
    /// Rescaled key.
    k: Vec<F>,
    v: Vec<F>,
    /// Removal key, of length 1 in each head.
    kk: Vec<F>,
    /// In-context learning rate.
    a: Vec<F>,
}

impl<F: Real> TimeMix<F> {
    pub(crate) fn load(weights: &Weights<'_>, layer: usize, ranks: Ranks, group_norm_eps: f64) -> Result<Self, KernelError> {
        let sizes = &weights.description.hyperparameters;
        let (c, a) = (sizes.channels, sizes.attention);
        let name = |suffix: &str| tensor_name(layer, &format!("att.{suffix}"));
        let mix = |letter: &str| weights.vector(&name(&format!("x_{letter}")), c);
        // A rank of 0 fits no tensor.
        let value_mix = if layer == 0 { None } else { Some(BiasedLora::load(weights, layer, "v", ranks.value.unwrap_or(0))?) };
        let gate = match ranks.gate {
            Some(rank) => Some((mix("g")?, Lora::load(weights, layer, "g", rank, a)?)),
            None => None,
        };
        let group_norm = if weights.description.mechanisms.norms.group { Some(Norm::load(weights, &name("ln_x"), a)?) } else { None };
        Ok(Self {
            norm: RowNorm::load(weights, &tensor_name(layer, "ln1"), c)?,
            mix: [mix("r")?, mix("w")?, mix("k")?, mix("v")?, mix("a")?],
            decay: BiasedLora::load(weights, layer, "w", ranks.decay)?,
            rate: BiasedLora::load(weights, layer, "a", ranks.iclr)?,
            value_mix,
            gate,
            removal: weights.vector(&name("k_k"), a)?,
            rescale: weights.vector(&name("k_a"), a)?,
            bonus: weights.vector(&name("r_k"), a)?,
            receptance: weights.matrix(&name("receptance.weight"), a, c)?,
            key: weights.matrix(&name("key.weight"), a, c)?,
            value: weights.matrix(&name("value.weight"), a, c)?,
            output: weights.matrix(&name("output.weight"), c, a)?,
            group_norm,
            group_norm_eps,
            head_size: sizes.head_size,
        })
    }

    /// Adds the time mix of `x [tokens, channels]` to it. `state` is `[heads, value, key]`; `v_first [tokens, A]` is
    /// written by layer 0 and read by the others.
    pub(crate) fn forward(&self, x: &mut [F], shift_state: &mut [F], state: &mut [F], v_first: &mut [F]) {
        let tokens = x.len() / shift_state.len();
        let input = Shifted::new(self.norm.apply(x), shift_state);
        let n = self.head_size;
        let inputs = self.inputs(&input, v_first);
        let heads = recur(state, n, &inputs);
        let mut out = match &self.group_norm {
            Some(norm) => normalise(&heads, n, tokens, norm, self.group_norm_eps),
            None => by_token(&heads, n, tokens),
        };
        self.add_bonus(&mut out, &inputs);
        if let Some((mix, gate)) = &self.gate {
            for (out, g) in out.iter_mut().zip(gate.apply(&input.lerp(mix), F::sigmoid)) {
                *out = *out * g;
            }
        }
        add(x, &self.output.apply(&out));
    }

    fn inputs(&self, input: &Shifted<F>, v_first: &mut [F]) -> Inputs<F> {
        let r = self.receptance.apply(&input.lerp(&self.mix[0]));
        let scale = F::from_f64(-DECAY_SCALE);
        let w = map(self.decay.gate(&input.lerp(&self.mix[1]), F::tanh), |s| (scale * s).exp());
        let mut k = self.key.apply(&input.lerp(&self.mix[2]));
        let xv = input.lerp(&self.mix[3]);
        let mut v = self.value.apply(&xv);
        let a = self.rate.gate(&input.lerp(&self.mix[4]), |x| x);
        let kk = self.removal_keys(&k);
        let channels = self.rescale.len();
        for (k, a) in k.chunks_exact_mut(channels).zip(a.chunks_exact(channels)) {
            for ((k, a), rescale) in k.iter_mut().zip(a).zip(&self.rescale) {
                *k = *k * (F::ONE + (*a - F::ONE) * *rescale);
            }
        }
        match &self.value_mix {
            None => v_first.copy_from_slice(&v),
            Some(mix) => {
                let amount = mix.gate(&xv, |x| x);
                for ((v, first), amount) in v.iter_mut().zip(v_first).zip(amount) {
                    *v = *v + (*first - *v) * amount;
                }
            }
        }
        Inputs { r, w, k, v, kk, a }
    }

    /// k * k_k, scaled to length 1 in each head.
    fn removal_keys(&self, k: &[F]) -> Vec<F> {
        let mut kk: Vec<F> = k.iter().zip(self.removal.iter().cycle()).map(|(k, removal)| *k * *removal).collect();
        for head in kk.chunks_exact_mut(self.head_size) {
            let length = dot(head, head).sqrt().max(F::from_f64(MIN_LENGTH));
            for value in head {
                *value = *value / length;
            }
        }
        kk
    }

    /// Adds (sum of r k r_k over a head) * v to the normalised output.
    fn add_bonus(&self, out: &mut [F], inputs: &Inputs<F>) {
        let n = self.head_size;
        let scaled: Vec<F> = inputs.k.iter().zip(self.bonus.iter().cycle()).map(|(k, bonus)| *k * *bonus).collect();
        let rows = inputs.r.chunks_exact(n).zip(scaled.chunks_exact(n)).zip(inputs.v.chunks_exact(n));
        for (out, ((r, k), v)) in out.chunks_exact_mut(n).zip(rows) {
            let weight = dot(r, k);
            for (out, v) in out.iter_mut().zip(v) {
                *out += weight * *v;
            }
        }
    }
}

/// S = S diag(w) - (S kk) (kk a)^T + v k^T, then out = S r, token by token; S is `[heads, value, key]`. Returns
/// `[heads, tokens, head_size]`.
fn recur<F: Real>(state: &mut [F], n: usize, inputs: &Inputs<F>) -> Vec<F> {
    let heads = state.len() / (n * n).max(1);
    let tokens = inputs.r.len() / (heads * n).max(1);
    for_each_head(state, n, tokens, |head, state, out| {
        let mut rate_key = vec![F::ZERO; n];
        for (token, out) in out.chunks_exact_mut(n).enumerate() {
            let first = (token * heads + head) * n;
            let at = first..first + n;
            let (r, w, k) = (&inputs.r[at.clone()], &inputs.w[at.clone()], &inputs.k[at.clone()]);
            let (v, kk, a) = (&inputs.v[at.clone()], &inputs.kk[at.clone()], &inputs.a[at]);
            for ((to, kk), a) in rate_key.iter_mut().zip(kk).zip(a) {
                *to = *kk * *a;
            }
            for ((row, v), out) in state.chunks_exact_mut(n).zip(v).zip(out) {
                let removed = -dot(row, kk);
                let factors = w.iter().zip(&rate_key).zip(k);
                for (s, ((w, rate_key), k)) in row.iter_mut().zip(factors) {
                    *s = *s * *w + removed * *rate_key + *v * *k;
                }
                *out = dot(row, r);
            }
        }
    })
}
