//! IQ2_XS: 256 weights in vectors of eight. `[d: f16] [signs of 7 bits above a code of 9: u16 x 32] [scales of 4 bits: u8 x 8]`, value =
//! sign * point * d * (scale + 1/2) / 4.

use rwkv_forge_tensor::Encoding;

use crate::block::{Block, Flushed, Job};
use crate::book::{IQ2, eight, first_half, first_half_is_finite, scaled, signs, word16};
use crate::super_block::Values;
use crate::{Facts, Family, books};

/// 2.3125 bits a weight.
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types, reason = "the name that everybody knows")]
pub struct IQ2_XS;

impl Block for IQ2_XS {
    type Values = Values;
    type Stored = [u8; 74];
    const ENCODING: Encoding = Encoding::new("iq2_xs", 256, 74);
    const FACTS: Facts = Facts::new(Family::Book).ggml(17, 20).read_only();

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.refused()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 74], out: &mut Values) {
        let d = first_half(stored);
        for (index, values) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let code = word16(&stored[2..], index);
            let scale = stored[66 + index / 4] >> (4 * (index / 2 % 2)) & 15;
            let scale = d * (0.5 + f32::from(scale)) * 0.25;
            let entry = books::IQ2_XS[usize::from(code & 511)];
            scaled(eight(entry, IQ2), scale, signs(u32::from(code >> 9), 0), values);
        }
    }

    fn is_finite(stored: &[u8; 74]) -> bool {
        first_half_is_finite(stored)
    }
}
