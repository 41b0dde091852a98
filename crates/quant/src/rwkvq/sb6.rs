//! sb6: 256 weights in eight blocks of 32, each with a scale and a minimum that are codes of six bits themselves.
//! `[d: f16] [dm: f16] [scales: 6 bits x 8] [minima: 6 bits x 8] [nibbles: u8 x 128] [bit 4: u8 x 32] [bit 5: u8 x 32]`, the last two where
//! codes are that wide. s = half(scale * d), at least 1e-8; m = half((minimum - 31) * dm); value = code * s + m.

use rwkv_forge_tensor::Encoding;

use super::{add_plane, decodes_to_numbers, half, nibbles};
use crate::block::{Block, Flushed, Job, load};
use crate::super_block::Values;
use crate::{Facts, Family};

/// Weights in a part with a scale of its own.
const PART: usize = 32;
/// What scales are at least. No f16, but the scale of a block in which every code means the minimum.
const LEAST: f32 = 1e-8;

macro_rules! sb6 {
    ($(#[$doc:meta])* $name:ident, $label:literal, $bits:literal, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        #[allow(non_camel_case_types, reason = "kind and bits")]
        pub struct $name;

        impl Block for $name {
            type Values = Values;
            type Stored = [u8; $bytes];
            const ENCODING: Encoding = Encoding::new($label, 256, $bytes);
            const FACTS: Facts = Facts::new(Family::Super).read_only();

            fn encode(job: Job) -> Result<Flushed, usize> {
                job.refused()
            }

            #[inline(always)]
            fn decode(stored: &[u8; $bytes], out: &mut Values) {
                decode(stored, $bits, out);
            }

            fn is_finite(stored: &[u8; $bytes]) -> bool {
                decodes_to_numbers::<Self, 256>(stored)
            }
        }
    };
}

sb6!(
    /// 4.5 bits a weight.
    SB6_4, "sb6_4", 4, 144
);
sb6!(
    /// 5.5 bits a weight.
    SB6_5, "sb6_5", 5, 176
);
sb6!(
    /// 6.5 bits a weight.
    SB6_6, "sb6_6", 6, 208
);

/// Eight numbers of six bits, the first one in the lowest bits.
#[inline(always)]
fn six_bits(packed: &[u8]) -> [u8; 8] {
    let mut word = [0; 8];
    word[..6].copy_from_slice(&packed[..6]);
    let word = u64::from_le_bytes(word);
    let mut numbers = [0; 8];
    for (place, number) in numbers.iter_mut().enumerate() {
        *number = (word >> (6 * place)).to_le_bytes()[0] & 63;
    }
    numbers
}

#[inline(always)]
fn decode(stored: &[u8], bits: u8, out: &mut Values) {
    let (d, dm) = (load(stored[0], stored[1]), load(stored[2], stored[3]));
    let (scales, minima) = (six_bits(&stored[4..10]), six_bits(&stored[10..16]));
    let mut codes = [0; 256];
    nibbles(&stored[16..144], PART, &mut codes);
    for bit in 4..bits {
        let at = 144 + 32 * usize::from(bit - 4);
        add_plane(&mut codes, &stored[at..at + 32], bit);
    }
    let parts = scales.iter().zip(&minima);
    for ((values, codes), (scale, minimum)) in out.chunks_exact_mut(PART).zip(codes.chunks_exact(PART)).zip(parts) {
        let scale = half(f32::from(*scale) * d);
        // What is no number stays none.
        let scale = if scale < LEAST { LEAST } else { scale };
        let minimum = half((f32::from(*minimum) - 31.0) * dm);
        for (value, code) in values.iter_mut().zip(codes) {
            *value = f32::from(*code) * scale + minimum;
        }
    }
}
