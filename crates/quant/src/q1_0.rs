//! Q1_0: a scale and 128 signs. `[d: f16] [signs: u8 x 16]`, value = d where the bit is set, otherwise -d.

use rwkv_forge_tensor::Encoding;

use crate::block::{Block, Flushed, Job, half_is_finite, load};
use crate::{Facts, Family};

/// 1.125 bits a weight.
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types, reason = "the name that everybody knows")]
pub struct Q1_0;

impl Block for Q1_0 {
    type Values = [f32; 128];
    type Stored = [u8; 18];
    const ENCODING: Encoding = Encoding::new("q1_0", 128, 18);
    const FACTS: Facts = Facts::new(Family::Even).ggml(41, 40).exact_in_f16().read_only();

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.refused()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 18], out: &mut [f32; 128]) {
        let d = load(stored[0], stored[1]);
        for (values, byte) in out.as_chunks_mut::<8>().0.iter_mut().zip(&stored[2..]) {
            for (j, value) in values.iter_mut().enumerate() {
                *value = if byte >> j & 1 == 1 { d } else { -d };
            }
        }
    }

    fn is_finite(stored: &[u8; 18]) -> bool {
        half_is_finite(stored[0], stored[1])
    }
}
