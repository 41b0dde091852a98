//! TQ2_0: 256 weights of two bits. `[codes: u8 x 64] [d: f16]`, value = (code - 1) * d. Byte j of each 32 holds the codes j, j + 32, j + 64 and
//! j + 96.

use rwkv_forge_tensor::Encoding;

use crate::block::{Block, Flushed, Job, half_is_finite, load};
use crate::super_block::Values;
use crate::{Facts, Family};

/// 2.0625 bits a weight, made for weights of -1, 0 and 1.
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types, reason = "the name that everybody knows")]
pub struct TQ2_0;

impl Block for TQ2_0 {
    type Values = Values;
    type Stored = [u8; 66];
    const ENCODING: Encoding = Encoding::new("tq2_0", 256, 66);
    const FACTS: Facts = Facts::new(Family::Even).ggml(35, 37).exact_in_f16().read_only();

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.refused()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 66], out: &mut Values) {
        let d = load(stored[64], stored[65]);
        for (index, values) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let bytes = &stored[index / 4 * 32..];
            for (value, byte) in values.iter_mut().zip(bytes) {
                *value = (f32::from(byte >> (2 * (index % 4)) & 3) - 1.0) * d;
            }
        }
    }

    fn is_finite(stored: &[u8; 66]) -> bool {
        half_is_finite(stored[64], stored[65])
    }
}
