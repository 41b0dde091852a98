//! States before the first token, the same for every form and precision.

use rwkv_forge_model::ModelDescription;
use rwkv_forge_parallel as parallel;
use rwkv_forge_tensor::SplitMix64;
use rwkv_forge_weights::{LayerState, Past, State, Wkv};

use crate::cases::Start;

/// f32 or f64, as both forms need it.
pub(crate) trait Number: rwkv_forge_kernel::Real + rwkv_forge_parallel::Real {}

impl Number for f32 {}
impl Number for f64 {}

/// The states of all layers in f64. `half` is the state after the first half of the tokens.
pub(crate) fn state(start: Start, description: &ModelDescription, half: Option<&State<f64>>, seed: u64) -> State<f64> {
    match (start, half) {
        (Start::Half, Some(half)) => half.clone(),
        (Start::Random, Some(half)) => random(half, seed),
        _ => State::zero(description),
    }
}

/// Random numbers of the size that each part of `like` has.
fn random(like: &State<f64>, seed: u64) -> State<f64> {
    let mut numbers = SplitMix64::new(seed ^ 0x666f_726d_7320_5337);
    let mut layers = like.layers.clone();
    for layer in &mut layers {
        fill(&mut numbers, &mut layer.att_shift);
        fill(&mut numbers, &mut layer.ffn_shift);
        match &mut layer.wkv {
            Wkv::Matrix(values) => fill(&mut numbers, values),
            Wkv::Scalars { aa, bb, pp } => {
                // A weighted mean of values: weights are positive, and the mean is as large as values are.
                let means: Vec<f64> = aa.iter().zip(&*bb).map(|(aa, bb)| if *bb > 0.0 { aa / bb } else { 0.0 }).collect();
                let size = rms(&means);
                let (middle, spread) = middle_and_spread(pp);
                for ((aa, bb), pp) in aa.iter_mut().zip(bb).zip(pp) {
                    *bb = 0.5 + 2.0 * numbers.uniform_f64();
                    *aa = *bb * size * numbers.normal_f64();
                    *pp = middle + spread * numbers.normal_f64();
                }
            }
        }
        let Past { query, key, value, keys, values } = &mut layer.past;
        for part in [query, key, value, keys, values] {
            fill(&mut numbers, part);
        }
    }
    State { layers }
}

fn fill(numbers: &mut SplitMix64, values: &mut [f64]) {
    let size = rms(values);
    for value in values {
        *value = size * numbers.normal_f64();
    }
}

fn rms(values: &[f64]) -> f64 {
    libm::sqrt(values.iter().map(|v| v * v).sum::<f64>() / values.len().max(1) as f64)
}

fn middle_and_spread(values: &[f64]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let middle = values.iter().sum::<f64>() / count;
    (middle, libm::sqrt(values.iter().map(|v| (v - middle) * (v - middle)).sum::<f64>() / count))
}

/// Rounds a state for the recurrent form.
pub(crate) fn for_kernel<F: Number>(state: &LayerState<f64>) -> LayerState<F> {
    let round = |values: &[f64]| values.iter().map(|v| <F as rwkv_forge_weights::Float>::from_f64(*v)).collect();
    let wkv = match &state.wkv {
        Wkv::Scalars { aa, bb, pp } => Wkv::Scalars { aa: round(aa), bb: round(bb), pp: round(pp) },
        Wkv::Matrix(values) => Wkv::Matrix(round(values)),
    };
    let Past { query, key, value, keys, values } = &state.past;
    let past = Past { query: round(query), key: round(key), value: round(value), keys: round(keys), values: round(values) };
    LayerState { att_shift: round(&state.att_shift), ffn_shift: round(&state.ffn_shift), wkv, past }
}

/// Rounds a state for the parallel form.
pub(crate) fn for_parallel<F: Number>(state: &LayerState<f64>) -> parallel::LayerState<F> {
    to_parallel(for_kernel::<F>(state))
}

/// The kernel's state as the parallel form takes it.
pub(crate) fn to_parallel<F: Number>(state: LayerState<F>) -> parallel::LayerState<F> {
    let LayerState { att_shift, ffn_shift, wkv, past } = state;
    let wkv = match wkv {
        Wkv::Scalars { aa, bb, pp } => parallel::Wkv::Scalars { aa, bb, pp },
        Wkv::Matrix(values) => parallel::Wkv::Matrix(values),
    };
    parallel::LayerState { att_shift, ffn_shift, wkv, past }
}

/// The parallel form's state as the kernel writes it.
pub(crate) fn from_parallel<F: Number>(state: parallel::LayerState<F>) -> LayerState<F> {
    let parallel::LayerState { att_shift, ffn_shift, wkv, past } = state;
    let wkv = match wkv {
        parallel::Wkv::Scalars { aa, bb, pp } => Wkv::Scalars { aa, bb, pp },
        parallel::Wkv::Matrix(values) => Wkv::Matrix(values),
    };
    LayerState { att_shift, ffn_shift, wkv, past }
}

/// The named parts of a state.
pub(crate) fn parts<F: Number>(state: &LayerState<F>) -> Vec<(crate::Quantity, Vec<f64>)> {
    use crate::Quantity::{Aa, AttShift, Bb, FfnShift, Past, Pp, Wkv as Matrix};
    let wide = |values: &[F]| values.iter().map(|v| rwkv_forge_weights::Float::to_f64(*v)).collect::<Vec<f64>>();
    let mut out = vec![(AttShift, wide(&state.att_shift)), (FfnShift, wide(&state.ffn_shift))];
    match &state.wkv {
        Wkv::Matrix(values) => out.push((Matrix, wide(values))),
        Wkv::Scalars { aa, bb, pp } => out.extend([(Aa, wide(aa)), (Bb, wide(bb)), (Pp, wide(pp))]),
    }
    if !state.past.query.is_empty() {
        let numbers: Vec<F> = state.past.numbers().collect();
        out.push((Past, wide(&numbers)));
    }
    out
}
