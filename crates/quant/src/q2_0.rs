//! Q2_0: a scale and 64 codes of two bits. `[d: f16] [codes: u8 x 16]`, value = (code - 1) * d. A byte holds four codes, the first one lowest.

use rwkv_forge_tensor::Encoding;

use crate::block::{Block, Flushed, Job, half_is_finite, load};
use crate::{Facts, Family};

/// 2.25 bits a weight.
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types, reason = "the name that everybody knows")]
pub struct Q2_0;

impl Block for Q2_0 {
    type Values = [f32; 64];
    type Stored = [u8; 18];
    const ENCODING: Encoding = Encoding::new("q2_0", 64, 18);
    const FACTS: Facts = Facts::new(Family::Even).ggml(42, 41).exact_in_f16().read_only();

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.refused()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 18], out: &mut [f32; 64]) {
        let d = load(stored[0], stored[1]);
        for (values, byte) in out.as_chunks_mut::<4>().0.iter_mut().zip(&stored[2..]) {
            for (j, value) in values.iter_mut().enumerate() {
                *value = (f32::from(byte >> (2 * j) & 3) - 1.0) * d;
            }
        }
    }

    fn is_finite(stored: &[u8; 18]) -> bool {
        half_is_finite(stored[0], stored[1])
    }
}
