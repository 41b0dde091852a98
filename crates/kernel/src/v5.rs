//! RWKV-5 time mix (5.0, 5.1 and 5.2): a matrix state per head with a constant decay.
//!
//! 5.0 has no gate; 5.0 and 5.1 have one decay and one bonus a head, 5.2 has one a key channel. A bonus named
//! `time_first` is stored as a logarithm, one named `time_faaaa` as it is used.

use rwkv_forge_model::{ValueForm, Version};

use crate::channel_mix::tensor_name;
use crate::error::KernelError;
use crate::heads::{Projections, normalise, wkv};
use crate::linear::Matrix;
use crate::load::Weights;
use crate::norm::{Norm, Shifted, add};
use crate::real::Real;

/// The gate of 5.1 and 5.2: output * silu(gate).
#[derive(Clone, Debug)]
struct Gate<F> {
    mix: Vec<F>,
    weight: Matrix<F>,
}

/// Weights of ln1 and the time mix of one layer.
#[derive(Clone, Debug)]
pub(crate) struct TimeMix<F> {
    norm: Norm<F>,
    mix_k: Vec<F>,
    mix_v: Vec<F>,
    mix_r: Vec<F>,
    /// exp(-exp(time_decay)), one a key channel `[H, N]`.
    decay: Vec<F>,
    /// Factor of the current token's k v^T, one a key channel `[H, N]`.
    bonus: Vec<F>,
    receptance: Matrix<F>,
    key: Matrix<F>,
    value: Matrix<F>,
    output: Matrix<F>,
    gate: Option<Gate<F>>,
    group_norm: Norm<F>,
    group_norm_eps: f64,
    head_size: usize,
}

impl<F: Real> TimeMix<F> {
    pub(crate) fn load(weights: &Weights<'_>, layer: usize, group_norm_eps: f64) -> Result<Self, KernelError> {
        let sizes = &weights.description.hyperparameters;
        let (c, a, n) = (sizes.channels, sizes.attention, sizes.head_size);
        let name = |suffix: &str| tensor_name(layer, &format!("att.{suffix}"));
        let gate = if weights.description.version == Version::V5_0 {
            None
        } else {
            Some(Gate { mix: weights.vector(&name("time_mix_g"), c)?, weight: weights.matrix(&name("gate.weight"), a, c)? })
        };
        Ok(Self {
            norm: Norm::load(weights, &tensor_name(layer, "ln1"), c)?,
            mix_k: weights.vector(&name("time_mix_k"), c)?,
            mix_v: weights.vector(&name("time_mix_v"), c)?,
            mix_r: weights.vector(&name("time_mix_r"), c)?,
            decay: per_channel(weights, &name("time_decay"), ValueForm::ExpNegExp)?,
            bonus: load_bonus(weights, &name("time_first"), &name("time_faaaa"))?,
            receptance: weights.matrix(&name("receptance.weight"), a, c)?,
            key: weights.matrix(&name("key.weight"), a, c)?,
            value: weights.matrix(&name("value.weight"), a, c)?,
            output: weights.matrix(&name("output.weight"), c, a)?,
            gate,
            group_norm: Norm::load(weights, &name("ln_x"), a)?,
            group_norm_eps,
            head_size: n,
        })
    }

    /// Adds the time mix of `x [tokens, channels]` to it. `state` is `[heads, key, value]`.
    pub(crate) fn forward(&self, x: &mut [F], shift_state: &mut [F], state: &mut [F]) {
        let tokens = x.len() / shift_state.len();
        let input = Shifted::new(self.norm.layer_norm(x), shift_state);
        let n = self.head_size;
        let inputs = Projections {
            r: self.receptance.apply(&input.blend(&self.mix_r)),
            k: self.key.apply(&input.blend(&self.mix_k)),
            v: self.value.apply(&input.blend(&self.mix_v)),
        };
        let heads = wkv(state, n, &inputs, &self.bonus, |_, head| &self.decay[head * n..(head + 1) * n]);
        let mut out = normalise(&heads, n, tokens, &self.group_norm, self.group_norm_eps);
        if let Some(gate) = &self.gate {
            for (out, g) in out.iter_mut().zip(gate.weight.apply(&input.blend(&gate.mix))) {
                *out = *out * g.silu();
            }
        }
        add(x, &self.output.apply(&out));
    }
}

/// A function of a tensor of `[H]` or `[H, N]` elements, as `[H, N]`.
fn per_channel<F: Real>(weights: &Weights<'_>, name: &str, form: ValueForm) -> Result<Vec<F>, KernelError> {
    let sizes = &weights.description.hyperparameters;
    let (h, n) = (sizes.heads, sizes.head_size);
    let elements: u64 = weights.spec(name)?.shape.iter().product();
    if elements == h as u64 {
        let heads: Vec<F> = weights.vector_in_form(name, h, form)?;
        return Ok(heads.into_iter().flat_map(|value| std::iter::repeat_n(value, n)).collect());
    }
    weights.vector_in_form(name, h * n, form)
}

/// The bonus as it is used: `time_first` files store its logarithm.
fn load_bonus<F: Real>(weights: &Weights<'_>, logarithm: &str, plain: &str) -> Result<Vec<F>, KernelError> {
    if weights.description.find(logarithm).is_some() {
        return per_channel(weights, logarithm, ValueForm::Exp);
    }
    per_channel(weights, plain, ValueForm::Canonical)
}
