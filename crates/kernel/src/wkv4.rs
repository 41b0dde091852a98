//! RWKV-4 time mix: one decaying weighted mean per channel.
//!
//! With decay d = -exp(time_decay) and bonus u = time_first, the output of channel c at token t is the mean of
//! v_0 .. v_t weighted by exp(k_i + (t-1-i) d) for earlier tokens and exp(k_t + u) for the current one. Numerator `aa`
//! and denominator `bb` are kept relative to exp(`pp`), the largest exponent so far, so that nothing overflows.

use rwkv_forge_model::ValueForm;

use crate::error::KernelError;
use crate::linear::Matrix;
use crate::load::{Weights, tensor_name};
use crate::norm::{RowNorm, Shifted, add};
use crate::real::Real;

/// Weights of ln1 and the time mix of one layer.
#[derive(Clone, Debug)]
pub(crate) struct TimeMix<F> {
    norm: RowNorm<F>,
    mix_k: Vec<F>,
    mix_v: Vec<F>,
    mix_r: Vec<F>,
    /// -exp(time_decay) `[C]`.
    decay: Vec<F>,
    /// time_first `[C]`.
    bonus: Vec<F>,
    receptance: Matrix<F>,
    key: Matrix<F>,
    value: Matrix<F>,
    output: Matrix<F>,
}

/// The scalars of RWKV-4's state, each `[channels]`.
pub(crate) struct Sums<'a, F> {
    pub(crate) aa: &'a mut [F],
    pub(crate) bb: &'a mut [F],
    pub(crate) pp: &'a mut [F],
}

impl<F: Real> TimeMix<F> {
    pub(crate) fn load(weights: &Weights<'_>, layer: usize) -> Result<Self, KernelError> {
        let c = weights.description.hyperparameters.channels;
        let a = weights.description.hyperparameters.attention;
        let name = |suffix: &str| tensor_name(layer, &format!("att.{suffix}"));
        Ok(Self {
            norm: RowNorm::load(weights, &tensor_name(layer, "ln1"), c)?,
            mix_k: weights.vector(&name("time_mix_k"), c)?,
            mix_v: weights.vector(&name("time_mix_v"), c)?,
            mix_r: weights.vector(&name("time_mix_r"), c)?,
            decay: weights.vector_in_form(&name("time_decay"), a, ValueForm::NegExp)?,
            bonus: weights.vector(&name("time_first"), a)?,
            receptance: weights.matrix(&name("receptance.weight"), a, c)?,
            key: weights.matrix(&name("key.weight"), a, c)?,
            value: weights.matrix(&name("value.weight"), a, c)?,
            output: weights.matrix(&name("output.weight"), c, a)?,
        })
    }

    /// Adds the time mix of `x [tokens, channels]` to it.
    pub(crate) fn forward(&self, x: &mut [F], shift_state: &mut [F], mut state: Sums<'_, F>) {
        let input = Shifted::new(self.norm.apply(x), shift_state);
        let r = self.receptance.apply(&input.blend(&self.mix_r));
        let k = self.key.apply(&input.blend(&self.mix_k));
        let v = self.value.apply(&input.blend(&self.mix_v));
        let channels = self.decay.len();
        let mut out = vec![F::ZERO; k.len()];
        for (t, out) in out.chunks_exact_mut(channels).enumerate() {
            let at = t * channels..(t + 1) * channels;
            self.token(&k[at.clone()], &v[at.clone()], &mut state, out);
            for (out, r) in out.iter_mut().zip(&r[at]) {
                *out = r.sigmoid() * *out;
            }
        }
        add(x, &self.output.apply(&out));
    }

    /// One token; all slices `[channels]`.
    fn token(&self, k: &[F], v: &[F], state: &mut Sums<'_, F>, out: &mut [F]) {
        for c in 0..out.len() {
            let (aa, bb, pp) = (state.aa[c], state.bb[c], state.pp[c]);
            let now = self.bonus[c] + k[c];
            let max = pp.max(now);
            let (old, new) = ((pp - max).exp(), (now - max).exp());
            out[c] = (old * aa + new * v[c]) / (old * bb + new);
            let faded = pp + self.decay[c];
            let max = faded.max(k[c]);
            let (old, new) = ((faded - max).exp(), (k[c] - max).exp());
            state.aa[c] = old * aa + new * v[c];
            state.bb[c] = old * bb + new;
            state.pp[c] = max;
        }
    }
}
