//! Q5_0: a scale and 32 codes of five bits. `[d: f16] [fifth bits: u32] [nibbles: u8 x 16]`, value = (code - 16) * d.

use forge_tensor::Encoding;

use crate::block::{
    Block, Outcome, Scale, Values, add_fifth_bits, codes, half_is_finite, load, pack_fifth_bits, pack_nibbles, peak, unpack_nibbles,
};

/// 5.5 bits a weight. The value of largest magnitude gets code 0, so `d` has the opposite sign of it.
///
/// A block of zeros has `d` = -0 and code 16 throughout, as in ggml: it decodes to zeros (of negative sign).
#[derive(Clone, Copy, Debug)]
pub struct Q5_0;

impl Block for Q5_0 {
    type Values = Values;
    type Stored = [u8; 22];
    const ENCODING: Encoding = Encoding::new("q5_0", 32, 22);
    const GGML_TYPE: Option<u32> = Some(6);

    #[inline(always)]
    fn encode(values: &Values, out: &mut [u8; 22]) -> Outcome {
        let scale = Scale::new(peak(values) / -16.0);
        let codes = codes(values, 0.0, scale.inverse, 16.5, 31);
        out[..2].copy_from_slice(&scale.stored);
        out[2..6].copy_from_slice(&pack_fifth_bits(&codes));
        out[6..].copy_from_slice(&pack_nibbles(&codes));
        scale.outcome
    }

    #[inline(always)]
    fn decode(stored: &[u8; 22], out: &mut Values) {
        let scale = load(stored[0], stored[1]);
        let mut codes = unpack_nibbles(&stored[6..]);
        add_fifth_bits(&mut codes, [stored[2], stored[3], stored[4], stored[5]]);
        for (value, code) in out.iter_mut().zip(codes) {
            *value = (f32::from(code) - 16.0) * scale;
        }
    }

    fn is_finite(stored: &[u8; 22]) -> bool {
        half_is_finite(stored[0], stored[1])
    }
}
