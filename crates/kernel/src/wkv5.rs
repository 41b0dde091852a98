//! RWKV-5 time mix (5.0, 5.1 and 5.2): a matrix state per head with a constant decay.
//!
//! 5.0 has no gate; 5.0 and 5.1 have one decay and one bonus a head, 5.2 has one a key channel. A bonus named
//! `time_first` is stored as a logarithm, one named `time_faaaa` as it is used.

use rwkv_forge_model::{Per, StoredBonus, ValueForm};

use crate::error::KernelError;
use crate::heads::{Projections, normalise, wkv};
use crate::linear::Matrix;
use crate::load::{Weights, tensor_name};
use crate::norm::{Norm, RowNorm, Shifted, add};
use crate::real::Real;

/// The gate of 5.1 and 5.2: output * silu(gate).
#[derive(Clone, Debug)]
struct Gate<F> {
    mix: Vec<F>,
    weight: Matrix<F>,
}

/// What models of RWKV-5 differ in.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    /// What has a decay and a bonus of its own.
    pub(crate) decay: Per,
    pub(crate) gate: bool,
    /// What the stored bonus is.
    pub(crate) bonus: StoredBonus,
}

/// Weights of ln1 and the time mix of one layer.
#[derive(Clone, Debug)]
pub(crate) struct TimeMix<F> {
    norm: RowNorm<F>,
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
    pub(crate) fn load(weights: &Weights<'_>, layer: usize, options: Options, group_norm_eps: f64) -> Result<Self, KernelError> {
        let sizes = &weights.description.hyperparameters;
        let (c, a, n) = (sizes.channels, sizes.attention, sizes.head_size);
        let name = |suffix: &str| tensor_name(layer, &format!("att.{suffix}"));
        let gate = match options.gate {
            false => None,
            true => Some(Gate { mix: weights.vector(&name("time_mix_g"), c)?, weight: weights.matrix(&name("gate.weight"), a, c)? }),
        };
        let (bonus, form) = match options.bonus {
            StoredBonus::Logarithm => ("time_first", ValueForm::Exp),
            StoredBonus::Value => ("time_faaaa", ValueForm::Canonical),
        };
        Ok(Self {
            norm: RowNorm::load(weights, &tensor_name(layer, "ln1"), c)?,
            mix_k: weights.vector(&name("time_mix_k"), c)?,
            mix_v: weights.vector(&name("time_mix_v"), c)?,
            mix_r: weights.vector(&name("time_mix_r"), c)?,
            decay: per_channel(weights, &name("time_decay"), options.decay, ValueForm::ExpNegExp)?,
            bonus: per_channel(weights, &name(bonus), options.decay, form)?,
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
        let input = Shifted::new(self.norm.apply(x), shift_state);
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
fn per_channel<F: Real>(weights: &Weights<'_>, name: &str, per: Per, form: ValueForm) -> Result<Vec<F>, KernelError> {
    let sizes = &weights.description.hyperparameters;
    let (h, n) = (sizes.heads, sizes.head_size);
    match per {
        Per::Channel => weights.vector_in_form(name, h * n, form),
        Per::Head => {
            let heads: Vec<F> = weights.vector_in_form(name, h, form)?;
            Ok(heads.into_iter().flat_map(|value| std::iter::repeat_n(value, n)).collect())
        }
    }
}
