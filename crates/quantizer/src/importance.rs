//! Importance that a search of scales cannot use. Start at [`judge`].
//!
//! Columns that share a scale and of which none counts leave the search without a reason to prefer any scale to zero, and their weights
//! become zero, whatever they are. A single value beyond all others does the same to its neighbours.

use std::borrow::Cow;
use std::ops::Range;

use rwkv_forge_tensor::Encoding;
use serde::Serialize;

use crate::format;

/// Beyond this many times the median of its matrix a value says nothing of inputs any more: trained models reach 7e6.
const ABSURD: f64 = 1e12;

/// Medians beyond 2^40 and below 2^-40 bring products with weights and sums of them near the ends of f32. Only the ratios of
/// importance count, so such importance is multiplied by a power of two.
const LARGEST_EXPONENT: i32 = 40;

/// What is wrong with some columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// All of them are zero or subnormal.
    Zero,
    /// One of them is more than 1e12 times the median.
    Absurd,
}

/// Columns whose importance is of no use: whole groups of columns that share a scale.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Degenerate {
    /// The columns.
    pub columns: Range<usize>,
    /// What is wrong with them.
    pub fault: Fault,
}

/// Importance with its faults.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged<'a> {
    /// The importance to use, `[columns]`: that of degenerate columns is the median of the others, so that they count alike and as much
    /// as others. `None` when nothing is left of it.
    pub neutral: Option<Cow<'a, [f32]>>,
    /// Degenerate columns, from the first on; neighbours with the same fault are one entry.
    pub degenerate: Vec<Degenerate>,
}

/// Columns of a format that share a scale: those of a block, or of a sub-block with a scale of its own.
#[must_use]
pub fn columns_a_scale(format: Encoding) -> usize {
    format::by_encoding(format).map_or(format.block_len as usize, |format| format.length)
}

/// Looks for columns whose importance would ruin blocks of a format: groups that share a scale and are all zero or subnormal, or that
/// have a value of more than 1e12 times the median. Single zeros among others are sound: inputs that were never used on the text.
/// The median is that of all normal values, since many inputs of a channel mix may be zero on a text. Importance with a value that is
/// negative, NaN or infinite comes back as it is: the quantizers refuse it.
#[must_use]
pub fn judge(importance: &[f32], format: Encoding) -> Judged<'_> {
    if importance.iter().any(|value| !(0.0..f32::INFINITY).contains(value)) {
        return Judged { neutral: Some(Cow::Borrowed(importance)), degenerate: Vec::new() };
    }
    let mut sound: Vec<f32> = importance.iter().copied().filter(|value| value.is_normal()).collect();
    sound.sort_unstable_by(f32::total_cmp);
    let Some(median) = sound.get(sound.len() / 2).copied() else {
        let whole = (!importance.is_empty()).then_some(Degenerate { columns: 0..importance.len(), fault: Fault::Zero });
        return Judged { neutral: None, degenerate: whole.into_iter().collect() };
    };
    let group = columns_a_scale(format).max(1);
    let mut degenerate: Vec<Degenerate> = Vec::new();
    for (index, values) in importance.chunks(group).enumerate() {
        let Some(fault) = fault(values, median) else { continue };
        let columns = index * group..index * group + values.len();
        match degenerate.last_mut().filter(|last| last.fault == fault && last.columns.end == columns.start) {
            Some(last) => last.columns.end = columns.end,
            None => degenerate.push(Degenerate { columns, fault }),
        }
    }
    let lost: usize = degenerate.iter().map(|found| found.columns.len()).sum();
    if degenerate.is_empty() {
        return Judged { neutral: Some(near_one(Cow::Borrowed(importance), median)), degenerate };
    }
    let mut neutral = importance.to_vec();
    for found in &degenerate {
        neutral[found.columns.clone()].fill(median);
    }
    Judged { neutral: (lost < importance.len()).then(|| near_one(Cow::Owned(neutral), median)), degenerate }
}

/// The same ratios around 1, where the median is far from it; otherwise the same bits.
fn near_one(importance: Cow<'_, [f32]>, median: f32) -> Cow<'_, [f32]> {
    let (_, exponent) = libm::frexpf(median);
    if exponent.abs() <= LARGEST_EXPONENT {
        return importance;
    }
    Cow::Owned(importance.iter().map(|value| libm::ldexpf(*value, -exponent)).collect())
}

fn fault(values: &[f32], median: f32) -> Option<Fault> {
    let limit = f64::from(median) * ABSURD;
    if values.iter().any(|value| f64::from(*value) > limit) {
        return Some(Fault::Absurd);
    }
    (!values.iter().any(|value| value.is_normal())).then_some(Fault::Zero)
}

#[cfg(test)]
mod tests {
    use rwkv_forge_quant::{BlockFormat, IQ4_NL, IQ4_XS, MXFP4, NF4, Q4_0, Q6_K};

    use super::{Degenerate, Fault, columns_a_scale, judge};

    #[test]
    fn columns_that_share_a_scale_are_judged_together() {
        assert_eq!(columns_a_scale(Q6_K.encoding()), 16);
        assert_eq!(columns_a_scale(IQ4_XS.encoding()), 32);
        assert_eq!(columns_a_scale(NF4.encoding()), 64);
        assert_eq!(columns_a_scale(MXFP4.encoding()), 32);
        let mut importance = vec![2.0f32; 256];
        importance[16..48].fill(0.0);
        importance[20] = 1e-40;
        let zero = |columns| Degenerate { columns, fault: Fault::Zero };
        let narrow = judge(&importance, Q6_K.encoding());
        assert_eq!(narrow.degenerate, [zero(16..48)]);
        assert!(narrow.neutral.unwrap().iter().all(|value| *value == 2.0));
        // No group of 32 is zero: single zeros are kept.
        let wide = judge(&importance, Q4_0.encoding());
        assert!(wide.degenerate.is_empty());
        assert_eq!(wide.neutral.unwrap()[20], 1e-40);
        importance[32..64].fill(0.0);
        assert_eq!(judge(&importance, IQ4_NL.encoding()).degenerate, [zero(32..64)]);
    }

    #[test]
    fn what_a_trained_model_reaches_is_sound_and_what_none_reaches_is_not() {
        let mut importance: Vec<f32> = (0..128u8).map(|column| 0.5 + f32::from(column) / 128.0).collect();
        // Many inputs of a channel mix are zero.
        importance.iter_mut().step_by(2).for_each(|value| *value = 0.0);
        importance[77] = 7e6;
        assert!(judge(&importance, Q4_0.encoding()).degenerate.is_empty());
        importance[77] = 9e11;
        assert!(judge(&importance, Q4_0.encoding()).degenerate.is_empty());
        importance[77] = 2e12;
        let judged = judge(&importance, Q4_0.encoding());
        assert_eq!(judged.degenerate, [Degenerate { columns: 64..96, fault: Fault::Absurd }]);
        let neutral = judged.neutral.unwrap();
        assert!(neutral[64..96].iter().all(|value| (0.5..1.5).contains(value)) && neutral[..64] == importance[..64]);
    }

    #[test]
    fn only_ratios_count() {
        let importance: Vec<f32> = (0..64u8).map(|column| 0.5 + f32::from(column) / 128.0).collect();
        for factor in [1e38f32, 1e-30] {
            let huge: Vec<f32> = importance.iter().map(|value| value * factor).collect();
            let found = judge(&huge, Q4_0.encoding());
            let neutral = found.neutral.unwrap();
            assert!(found.degenerate.is_empty() && neutral.iter().all(|value| (0.25..4.0).contains(value)), "{neutral:?}");
            // Powers of two change no digit.
            let ratios = |values: &[f32]| values.iter().map(|value| value / values[0]).collect::<Vec<_>>();
            assert_eq!(ratios(&neutral), ratios(&huge));
        }
        let near = judge(&importance, Q4_0.encoding()).neutral.unwrap();
        assert!(matches!(near, std::borrow::Cow::Borrowed(_)), "the bits of the file");
    }

    #[test]
    fn nothing_is_left_of_zeros() {
        for nothing in [0.0, 1e-40] {
            let judged = judge(&[nothing; 64], Q4_0.encoding()).degenerate;
            assert_eq!(judged, [Degenerate { columns: 0..64, fault: Fault::Zero }]);
            assert_eq!(judge(&[nothing; 64], Q4_0.encoding()).neutral, None);
        }
        assert!(judge(&[], Q4_0.encoding()).degenerate.is_empty());
        // What is no importance at all is not made up for.
        let judged = judge(&[f32::NAN; 64], Q4_0.encoding());
        assert!(judged.degenerate.is_empty() && judged.neutral.unwrap()[0].is_nan());
    }
}
