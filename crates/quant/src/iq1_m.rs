//! IQ1_M: 256 weights in vectors of eight. `[codes: u8 x 32] [bits 8 to 10 of a code and its direction, twice: u8 x 16] [scales of 3 bits x
//! 4, a quarter of d: u16 x 4]`, value = (point + 1/8 or - 1/8) * d * (2 * scale + 1).

use rwkv_forge_tensor::Encoding;

use crate::block::{Block, Flushed, Job};
use crate::book::{moved, word16};
use crate::convert::f16_to_f32;
use crate::super_block::Values;
use crate::{Facts, Family, books};

/// 1.75 bits a weight.
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types, reason = "the name that everybody knows")]
pub struct IQ1_M;

impl Block for IQ1_M {
    type Values = Values;
    type Stored = [u8; 56];
    const ENCODING: Encoding = Encoding::new("iq1_m", 256, 56);
    const FACTS: Facts = Facts::new(Family::Book).ggml(29, 31).read_only();

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.refused()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 56], out: &mut Values) {
        let d = f16_to_f32(half_of(stored));
        for (index, values) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            // A scale for each 16 weights, four scales a word.
            let scale = word16(&stored[48..], index / 8) >> (3 * (index / 2 % 4)) & 7;
            let scale = d * (2.0 * f32::from(scale) + 1.0);
            let four = stored[32 + index / 2] >> (4 * (index % 2)) & 15;
            let entry = books::IQ1[usize::from(stored[index]) | usize::from(four & 7) << 8];
            moved(entry, scale, four & 8 != 0, values);
        }
    }

    fn is_finite(stored: &[u8; 56]) -> bool {
        half_of(stored) & 0x7c00 != 0x7c00
    }
}

/// The f16 whose quarters are the upper bits of the four words of scales.
#[inline(always)]
fn half_of(stored: &[u8; 56]) -> u16 {
    (0..4).fold(0, |half, index| half | word16(&stored[48..], index) >> 12 << (4 * index))
}
