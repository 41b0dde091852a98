//! IQ1_S: 256 weights in vectors of eight. `[d: f16] [codes: u8 x 32] [bits 8 to 10 of four codes, scale of 3 bits, direction: u16 x 8]`,
//! value = (point + 1/8 or - 1/8) * d * (2 * scale + 1).

use rwkv_forge_tensor::Encoding;

use crate::block::{Block, Flushed, Job};
use crate::book::{first_half, first_half_is_finite, moved, word16};
use crate::super_block::Values;
use crate::{Facts, Family, books};

/// 1.5625 bits a weight.
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types, reason = "the name that everybody knows")]
pub struct IQ1_S;

impl Block for IQ1_S {
    type Values = Values;
    type Stored = [u8; 50];
    const ENCODING: Encoding = Encoding::new("iq1_s", 256, 50);
    const FACTS: Facts = Facts::new(Family::Book).ggml(19, 24).read_only();

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.refused()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 50], out: &mut Values) {
        let d = first_half(stored);
        for (index, values) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let word = word16(&stored[34..], index / 4);
            let scale = d * (2.0 * f32::from(word >> 12 & 7) + 1.0);
            let high = usize::from(word >> (3 * (index % 4)) & 7);
            let entry = books::IQ1[usize::from(stored[2 + index]) | high << 8];
            moved(entry, scale, word >> 15 == 1, values);
        }
    }

    fn is_finite(stored: &[u8; 50]) -> bool {
        first_half_is_finite(stored)
    }
}
