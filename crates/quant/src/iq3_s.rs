//! IQ3_S: 256 weights in vectors of four. `[d: f16] [codes: u8 x 64] [bit 8 of codes: u8 x 8] [signs: u8 x 32] [scales of 4 bits: u8 x 4]`,
//! value = sign * point * d * (2 * scale + 1).

use rwkv_forge_tensor::Encoding;

use crate::block::{Block, Flushed, Job};
use crate::book::{first_half, first_half_is_finite, scaled, twice_four};
use crate::super_block::Values;
use crate::{Facts, Family, books};

/// 3.4375 bits a weight.
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types, reason = "the name that everybody knows")]
pub struct IQ3_S;

impl Block for IQ3_S {
    type Values = Values;
    type Stored = [u8; 110];
    const ENCODING: Encoding = Encoding::new("iq3_s", 256, 110);
    const FACTS: Facts = Facts::new(Family::Book).ggml(21, 26).read_only();

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.refused()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 110], out: &mut Values) {
        let d = first_half(stored);
        for (index, values) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let (part, vector) = (index / 4, index % 4);
            let scale = stored[106 + part / 2] >> (4 * (part % 2)) & 15;
            let scale = d * (1.0 + 2.0 * f32::from(scale));
            let entries = [0, 1].map(|second| {
                let place = 2 * vector + second;
                let high = usize::from(stored[66 + part] >> place & 1);
                books::IQ3_S[usize::from(stored[2 + 8 * part + place]) | high << 8]
            });
            scaled(twice_four(entries, POINTS), scale, stored[74 + index], values);
        }
    }

    fn is_finite(stored: &[u8; 110]) -> bool {
        first_half_is_finite(stored)
    }
}

/// What the digits of the book stand for.
const POINTS: [f32; 8] = [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0];
