//! Q4_0: a scale and 32 codes of four bits. `[d: f16] [nibbles: u8 x 16]`, value = (code - 8) * d.

use forge_tensor::Encoding;

use crate::block::{Block, Outcome, Scale, Values, codes, half_is_finite, load, pack_nibbles, peak, unpack_nibbles};

/// 4.5 bits a weight. The value of largest magnitude gets code 0, so `d` has the opposite sign of it.
///
/// A block of zeros has `d` = -0 and code 8 throughout, as in ggml: it decodes to zeros (of negative sign).
#[derive(Clone, Copy, Debug)]
pub struct Q4_0;

impl Block for Q4_0 {
    type Values = Values;
    type Stored = [u8; 18];
    const ENCODING: Encoding = Encoding::new("q4_0", 32, 18);
    const GGML_TYPE: Option<u32> = Some(2);

    #[inline(always)]
    fn encode(values: &Values, out: &mut [u8; 18]) -> Outcome {
        let scale = Scale::new(peak(values) / -8.0);
        out[..2].copy_from_slice(&scale.stored);
        out[2..].copy_from_slice(&pack_nibbles(&codes(values, 0.0, scale.inverse, 8.5, 15)));
        scale.outcome
    }

    #[inline(always)]
    fn decode(stored: &[u8; 18], out: &mut Values) {
        let scale = load(stored[0], stored[1]);
        for (value, code) in out.iter_mut().zip(unpack_nibbles(&stored[2..])) {
            *value = (f32::from(code) - 8.0) * scale;
        }
    }

    fn is_finite(stored: &[u8; 18]) -> bool {
        half_is_finite(stored[0], stored[1])
    }
}
