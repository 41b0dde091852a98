//! The state between two pieces of a sequence, as plain data, and its way to candle and back.

use candle_core::{Device, Tensor};
use rwkv_forge_model::{Attention, ModelDescription, TimeMix};
use rwkv_forge_weights::Past;

use crate::error::ParallelError;
use crate::real::Real;

/// The exponent of an empty sum of RWKV-4: vanishes beside any real one, and is finite.
pub(crate) const NOTHING: f64 = -1e30;

/// The memory of the time mix of one layer.
#[derive(Clone, Debug, PartialEq)]
pub enum Wkv<F> {
    /// RWKV-4: a weighted mean as numerator and denominator, both relative to exp(`pp`).
    Scalars {
        /// Weighted sum of values `[channels]`.
        aa: Vec<F>,
        /// Sum of weights `[channels]`.
        bb: Vec<F>,
        /// Logarithm of the common factor `[channels]`; -1e30 before the first token.
        pp: Vec<F>,
    },
    /// RWKV-5 and RWKV-6: `[heads, key, value]`; RWKV-7: `[heads, value, key]`. Row-major.
    Matrix(Vec<F>),
}

/// The state of one layer: what it knows of the tokens so far.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerState<F> {
    /// Output of ln1 for the last token `[channels]`; zeros before the first one.
    pub att_shift: Vec<F>,
    /// Output of ln2 for the last token `[channels]`; zeros before the first one.
    pub ffn_shift: Vec<F>,
    /// The memory of the time mix.
    pub wkv: Wkv<F>,
    /// What an attention remembers, in models that have one (RWKV-7b).
    pub past: Past<F>,
}

impl<F: Real> LayerState<F> {
    /// The state before the first token.
    #[must_use]
    pub fn zero(description: &ModelDescription) -> Self {
        let sizes = &description.hyperparameters;
        let zeros = |len: usize| vec![F::default(); len];
        let wkv = match description.mechanisms.time_mix {
            TimeMix::Wkv4 => {
                Wkv::Scalars { aa: zeros(sizes.attention), bb: zeros(sizes.attention), pp: vec![F::from_f64(NOTHING); sizes.attention] }
            }
            TimeMix::Wkv5 { .. } | TimeMix::Wkv6 { .. } | TimeMix::Wkv7 { .. } | TimeMix::Qrwkv6 { .. } => {
                Wkv::Matrix(zeros(sizes.heads * sizes.head_size * sizes.head_size))
            }
        };
        let past = match description.mechanisms.attention {
            Attention::None => Past::default(),
            Attention::Deep { width, .. } => {
                Past { query: zeros(width), key: zeros(width), value: zeros(sizes.channels), keys: Vec::new(), values: Vec::new() }
            }
        };
        Self { att_shift: zeros(sizes.channels), ffn_shift: zeros(sizes.channels), wkv, past }
    }

    /// Refuses a state that belongs to another model.
    pub(crate) fn check(&self, description: &ModelDescription) -> Result<(), ParallelError> {
        let right = Self::zero(description);
        let same = |what, found: &[F], expected: &[F]| check_len(what, found.len(), expected.len());
        same("the time mix's token shift", &self.att_shift, &right.att_shift)?;
        same("the channel mix's token shift", &self.ffn_shift, &right.ffn_shift)?;
        let past = "what an attention remembers";
        same(past, &self.past.query, &right.past.query)?;
        same(past, &self.past.key, &right.past.key)?;
        same(past, &self.past.value, &right.past.value)?;
        let tokens = self.past.keys.len() / right.past.query.len().max(1);
        check_len(past, self.past.keys.len(), tokens * right.past.query.len())?;
        check_len(past, self.past.values.len(), tokens * right.past.value.len())?;
        match (&self.wkv, &right.wkv) {
            (Wkv::Scalars { aa, bb, pp }, Wkv::Scalars { aa: expected, .. }) => {
                [aa, bb, pp].into_iter().try_for_each(|found| same("a sum of the time mix's memory", found, expected))
            }
            (Wkv::Matrix(found), Wkv::Matrix(expected)) => same("the time mix's memory", found, expected),
            (Wkv::Scalars { aa: found, .. }, Wkv::Matrix(expected)) | (Wkv::Matrix(found), Wkv::Scalars { aa: expected, .. }) => {
                let expected = expected.len();
                Err(ParallelError::BufferMismatch { what: "the time mix's memory, of another version,", found: found.len(), expected })
            }
        }
    }
}

pub(crate) fn check_len(what: &'static str, found: usize, expected: usize) -> Result<(), ParallelError> {
    if found == expected { Ok(()) } else { Err(ParallelError::BufferMismatch { what, found, expected }) }
}

/// The memory of the time mix on the device.
#[derive(Clone, Debug)]
pub(crate) enum Memory {
    /// RWKV-4: three tensors `[1, channels]`.
    Scalars { aa: Tensor, bb: Tensor, pp: Tensor },
    /// `[heads, key, value]` whatever the version.
    Matrix(Tensor),
}

/// [`LayerState`] on the device.
#[derive(Clone, Debug)]
pub(crate) struct DeviceState {
    /// `[1, channels]`.
    pub(crate) att_shift: Tensor,
    /// `[1, channels]`.
    pub(crate) ffn_shift: Tensor,
    pub(crate) memory: Memory,
    pub(crate) past: Option<DevicePast>,
}

/// What an attention remembers, on the device: [`Past`].
#[derive(Clone, Debug)]
pub(crate) struct DevicePast {
    /// `[1, width]`, as are key and value.
    pub(crate) query: Tensor,
    pub(crate) key: Tensor,
    pub(crate) value: Tensor,
    /// `[tokens, width]`; none before the first token.
    pub(crate) keys: Option<Tensor>,
    /// `[tokens, channels]`.
    pub(crate) values: Option<Tensor>,
}

impl DevicePast {
    fn upload<F: Real>(past: &Past<F>, device: &Device) -> Result<Self, ParallelError> {
        let rows = |values: &[F], width: usize| match values.len() / width.max(1) {
            0 => Ok(None),
            tokens => Tensor::from_slice(values, (tokens, width), device).map(Some),
        };
        let row = |values: &[F]| Tensor::from_slice(values, (1, values.len()), device);
        Ok(Self {
            query: row(&past.query)?,
            key: row(&past.key)?,
            value: row(&past.value)?,
            keys: rows(&past.keys, past.key.len())?,
            values: rows(&past.values, past.value.len())?,
        })
    }

    fn download<F: Real>(&self) -> Result<Past<F>, ParallelError> {
        let all = |rows: &Option<Tensor>| rows.as_ref().map_or_else(|| Ok(Vec::new()), values);
        Ok(Past {
            query: values(&self.query)?,
            key: values(&self.key)?,
            value: values(&self.value)?,
            keys: all(&self.keys)?,
            values: all(&self.values)?,
        })
    }
}

impl DeviceState {
    pub(crate) fn upload<F: Real>(state: &LayerState<F>, description: &ModelDescription, device: &Device) -> Result<Self, ParallelError> {
        state.check(description)?;
        let sizes = &description.hyperparameters;
        let row = |values: &[F]| Tensor::from_slice(values, (1, values.len()), device);
        let memory = match &state.wkv {
            Wkv::Scalars { aa, bb, pp } => Memory::Scalars { aa: row(aa)?, bb: row(bb)?, pp: row(pp)? },
            Wkv::Matrix(values) => {
                let stored = Tensor::from_slice(values, (sizes.heads, sizes.head_size, sizes.head_size), device)?;
                let by_key = if description.mechanisms.time_mix.is_value_first() { stored.transpose(1, 2)?.contiguous()? } else { stored };
                Memory::Matrix(by_key)
            }
        };
        let past = match description.mechanisms.attention {
            Attention::None => None,
            Attention::Deep { .. } => Some(DevicePast::upload(&state.past, device)?),
        };
        Ok(Self { att_shift: row(&state.att_shift)?, ffn_shift: row(&state.ffn_shift)?, memory, past })
    }

    pub(crate) fn download<F: Real>(&self, time_mix: TimeMix) -> Result<LayerState<F>, ParallelError> {
        let wkv = match &self.memory {
            Memory::Scalars { aa, bb, pp } => Wkv::Scalars { aa: values(aa)?, bb: values(bb)?, pp: values(pp)? },
            Memory::Matrix(by_key) if time_mix.is_value_first() => Wkv::Matrix(values(&by_key.transpose(1, 2)?)?),
            Memory::Matrix(by_key) => Wkv::Matrix(values(by_key)?),
        };
        let past = match &self.past {
            Some(past) => past.download()?,
            None => Past::default(),
        };
        Ok(LayerState { att_shift: values(&self.att_shift)?, ffn_shift: values(&self.ffn_shift)?, wkv, past })
    }
}

/// All elements in row-major order.
pub(crate) fn values<F: Real>(tensor: &Tensor) -> Result<Vec<F>, ParallelError> {
    Ok(tensor.flatten_all()?.to_vec1()?)
}
