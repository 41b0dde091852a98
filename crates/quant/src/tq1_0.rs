//! TQ1_0: 256 weights of -1, 0 and 1, five a byte. `[codes: u8 x 48] [codes of the last 16: u8 x 4] [d: f16]`. A byte is the fraction of 256
//! whose digits to base 3 are the codes, the first one in front; value = (code - 1) * d.

use rwkv_forge_tensor::Encoding;

use crate::block::{Block, Flushed, Job, half_is_finite, load};
use crate::super_block::Values;
use crate::{Facts, Family};

/// 1.6875 bits a weight.
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types, reason = "the name that everybody knows")]
pub struct TQ1_0;

impl Block for TQ1_0 {
    type Values = Values;
    type Stored = [u8; 54];
    const ENCODING: Encoding = Encoding::new("tq1_0", 256, 54);
    const FACTS: Facts = Facts::new(Family::Even).ggml(34, 36).exact_in_f16().read_only();

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.refused()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 54], out: &mut Values) {
        let d = load(stored[52], stored[53]);
        let (first, rest) = out.split_at_mut(160);
        let (second, last) = rest.split_at_mut(80);
        digits(&stored[..32], d, first);
        digits(&stored[32..48], d, second);
        digits(&stored[48..52], d, last);
    }

    fn is_finite(stored: &[u8; 54]) -> bool {
        half_is_finite(stored[52], stored[53])
    }
}

/// The first digits of all bytes, then their second ones, and so on.
#[inline(always)]
fn digits(bytes: &[u8], d: f32, out: &mut [f32]) {
    for (values, power) in out.chunks_exact_mut(bytes.len()).zip([1u8, 3, 9, 27, 81]) {
        for (value, byte) in values.iter_mut().zip(bytes) {
            let digit = (u16::from(byte.wrapping_mul(power)) * 3).to_le_bytes()[1];
            *value = (f32::from(digit) - 1.0) * d;
        }
    }
}
