//! IQ2_XXS: 256 weights in vectors of eight. `[d: f16]`, then for each 32 weights `[codes: u8 x 4] [signs of 7 bits x 4, scale of 4 bits:
//! u32]`, value = sign * point * d * (scale + 1/2) / 4.

use rwkv_forge_tensor::Encoding;

use crate::block::{Block, Flushed, Job};
use crate::book::{IQ2, eight, first_half, first_half_is_finite, scaled, signs, word32};
use crate::super_block::Values;
use crate::{Facts, Family, books};

/// 2.0625 bits a weight.
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types, reason = "the name that everybody knows")]
pub struct IQ2_XXS;

impl Block for IQ2_XXS {
    type Values = Values;
    type Stored = [u8; 66];
    const ENCODING: Encoding = Encoding::new("iq2_xxs", 256, 66);
    const FACTS: Facts = Facts::new(Family::Book).ggml(16, 19).read_only();

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.refused()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 66], out: &mut Values) {
        let d = first_half(stored);
        for (part, values) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let at = 2 + 8 * part;
            let word = word32(&stored[at..], 1);
            let scale = d * (0.5 + (word >> 28) as f32) * 0.25;
            for (vector, values) in values.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                let entry = books::IQ2_XXS[usize::from(stored[at + vector])];
                scaled(eight(entry, IQ2), scale, signs(word, vector), values);
            }
        }
    }

    fn is_finite(stored: &[u8; 66]) -> bool {
        first_half_is_finite(stored)
    }
}
