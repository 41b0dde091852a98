//! IQ2_S: 256 weights in vectors of eight. `[d: f16] [codes: u8 x 32] [signs: u8 x 32] [bits 8 and 9 of codes: u8 x 8] [scales of 4 bits:
//! u8 x 8]`, value = sign * point * d * (scale + 1/2) / 4.

use rwkv_forge_tensor::Encoding;

use crate::block::{Block, Flushed, Job};
use crate::book::{IQ2, eight, first_half, first_half_is_finite, scaled};
use crate::super_block::Values;
use crate::{Facts, Family, books};

/// 2.5625 bits a weight.
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types, reason = "the name that everybody knows")]
pub struct IQ2_S;

impl Block for IQ2_S {
    type Values = Values;
    type Stored = [u8; 82];
    const ENCODING: Encoding = Encoding::new("iq2_s", 256, 82);
    const FACTS: Facts = Facts::new(Family::Book).ggml(22, 28).read_only();

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.refused()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 82], out: &mut Values) {
        let d = first_half(stored);
        for (index, values) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let (part, vector) = (index / 4, index % 4);
            let high = usize::from(stored[66 + part] >> (2 * vector) & 3);
            let scale = stored[74 + part] >> (4 * (vector / 2)) & 15;
            let scale = d * (0.5 + f32::from(scale)) * 0.25;
            let entry = books::IQ2_S[usize::from(stored[2 + index]) | high << 8];
            scaled(eight(entry, IQ2), scale, stored[34 + index], values);
        }
    }

    fn is_finite(stored: &[u8; 82]) -> bool {
        first_half_is_finite(stored)
    }
}
