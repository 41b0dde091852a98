//! IQ3_XXS: 256 weights in vectors of four. `[d: f16] [codes: u8 x 64]`, then for each 32 weights `[signs of 7 bits x 4, scale of 4 bits:
//! u32]`, value = sign * point * d * (scale + 1/2) / 2.

use rwkv_forge_tensor::Encoding;

use crate::block::{Block, Flushed, Job};
use crate::book::{first_half, first_half_is_finite, scaled, signs, twice_four, word32};
use crate::super_block::Values;
use crate::{Facts, Family, books};

/// 3.0625 bits a weight.
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types, reason = "the name that everybody knows")]
pub struct IQ3_XXS;

impl Block for IQ3_XXS {
    type Values = Values;
    type Stored = [u8; 98];
    const ENCODING: Encoding = Encoding::new("iq3_xxs", 256, 98);
    const FACTS: Facts = Facts::new(Family::Book).ggml(18, 23).read_only();

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.refused()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 98], out: &mut Values) {
        let d = first_half(stored);
        for (part, values) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let word = word32(&stored[66..], part);
            let scale = d * (0.5 + (word >> 28) as f32) * 0.5;
            for (vector, values) in values.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                let at = 2 + 8 * part + 2 * vector;
                let entries = [stored[at], stored[at + 1]].map(|code| books::IQ3_XXS[usize::from(code)]);
                scaled(twice_four(entries, POINTS), scale, signs(word, vector), values);
            }
        }
    }

    fn is_finite(stored: &[u8; 98]) -> bool {
        first_half_is_finite(stored)
    }
}

/// What the digits of the book stand for.
const POINTS: [f32; 8] = [4.0, 12.0, 20.0, 28.0, 36.0, 44.0, 52.0, 62.0];
