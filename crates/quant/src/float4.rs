//! The four-bit float tables of web-rwkv: the largest magnitude and 64 codes into a table of 16 numbers between -1 and 1.
//! `[largest magnitude: f16] [nibbles: u8 x 32]`, two codes a byte, the first in the lower nibble, value = table[code] * largest.
//!
//! The block is interleaved here; web-rwkv keeps the nibbles and the f16 in two tensors and the table in a third.

use rwkv_forge_tensor::Encoding;

use crate::block::{Block, Flushed, Job, OneByOne, Outcome, half_is_finite, load};
use crate::convert::{MAGNITUDE, f32_to_f16};
use crate::int8::through_f16;
use crate::parts::{self, Parted, Parts};
use crate::{Facts, Family, Grid, Rows, Scheme};

/// Quantiles of the normal distribution, scaled to the range -1..1; the table of bitsandbytes.
pub const NF4_TABLE: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Quantiles of Student's t-distribution with five degrees of freedom, scaled to the range -1..1: seven below 1/2, from
/// (1/32 + 1/30) / 2 in equal steps, then 1/2 and eight above it.
pub const SF4_TABLE: [f32; 16] = [
    -1.0,
    -0.627_780_56,
    -0.454_736,
    -0.334_330_74,
    -0.237_434_37,
    -0.152_898_71,
    -0.074_982_464,
    0.0,
    0.065_513_074,
    0.132_964_73,
    0.204_661_01,
    0.283_834_7,
    0.375_804_84,
    0.491_075_58,
    0.656_781_14,
    1.0,
];

/// 4.25 bits a weight with the table [`NF4_TABLE`].
///
/// Values are rounded to f16 first, as web-rwkv holds them. The code is the nearest entry to the value times the inverse of
/// the largest magnitude, both in f32; of two equally near entries the one with the larger index. A block of zeros has the
/// code of zero.
#[derive(Clone, Copy, Debug)]
pub struct NF4;

/// 4.25 bits a weight with the table [`SF4_TABLE`], otherwise as [`NF4`].
#[derive(Clone, Copy, Debug)]
pub struct SF4;

/// Elements a block.
const LEN: usize = 64;

/// Index of zero in both tables.
const ZERO: u8 = 7;

macro_rules! float4_format {
    ($format:ident, $name:literal, $table:ident, $facts:expr) => {
        impl Block for $format {
            type Values = [f32; LEN];
            type Stored = [u8; 34];
            const ENCODING: Encoding = Encoding::new($name, 64, 34);
            const FACTS: Facts = $facts.grid(Grid::table(&$format, LEN, &$table, Scheme::One));

            fn encode(job: Job) -> Result<Flushed, usize> {
                job.one_by_one::<Self>()
            }

            #[inline(always)]
            fn decode(stored: &[u8; 34], out: &mut [f32; LEN]) {
                let largest = load(stored[0], stored[1]);
                for (pair, byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(&stored[2..]) {
                    pair[0] = $table[usize::from(byte & 15)] * largest;
                    pair[1] = $table[usize::from(byte >> 4)] * largest;
                }
            }

            fn is_finite(stored: &[u8; 34]) -> bool {
                half_is_finite(stored[0], stored[1])
            }
        }

        impl Parted for $format {
            fn take_apart(&self, block: &[u8]) -> Parts {
                let Some(stored) = block.first_chunk::<34>() else { return Parts::ZERO };
                let mut codes = [0; LEN];
                for (pair, byte) in codes.as_chunks_mut::<2>().0.iter_mut().zip(&stored[2..]) {
                    *pair = [byte & 15, byte >> 4];
                }
                Parts { halves: [parts::half(stored, 0), 0], codes: parts::spread(&codes), ..Parts::ZERO }
            }

            fn put_together(&self, from: &Parts, block: &mut [u8]) {
                let Some(stored) = block.first_chunk_mut::<34>() else { return };
                parts::set_half(stored, 0, from.halves[0]);
                for (byte, pair) in stored[2..].iter_mut().zip(parts::first::<LEN>(from).as_chunks::<2>().0) {
                    *byte = pair[0] & 15 | pair[1] << 4;
                }
            }
        }

        impl OneByOne for $format {
            #[inline(always)]
            fn encode_one(values: &[f32; LEN], out: &mut [u8; 34]) -> Outcome {
                encode(&$table, values, out)
            }
        }
    };
}

float4_format!(NF4, "nf4", NF4_TABLE, Facts::new(Family::Table).planned(Rows::Short).harm(1.3));
float4_format!(SF4, "sf4", SF4_TABLE, Facts::new(Family::Table));

#[inline(always)]
fn encode(table: &[f32; 16], values: &[f32; LEN], out: &mut [u8; 34]) -> Outcome {
    let (halves, outcome) = through_f16(values);
    let largest = f32::from_bits(halves.iter().fold(0, |most, half| most.max(half.to_bits() & MAGNITUDE)));
    // The smallest f16 is 6e-8: its inverse is finite.
    let inverse = if largest == 0.0 { 0.0 } else { 1.0 / largest };
    out[..2].copy_from_slice(&f32_to_f16(largest).to_le_bytes());
    let mut codes = [0; LEN];
    for (code, half) in codes.iter_mut().zip(&halves) {
        *code = nearest(table, half * inverse);
    }
    for (byte, pair) in out[2..].iter_mut().zip(codes.as_chunks::<2>().0) {
        *byte = pair[0] | pair[1] << 4;
    }
    outcome
}

/// The nearest entry, the larger index of a tie. Distances are compared as f32, one rounding each.
#[inline(always)]
fn nearest(table: &[f32; 16], share: f32) -> u8 {
    let (mut best, mut index) = (f32::INFINITY, ZERO);
    for (candidate, entry) in (0..).zip(table) {
        let distance = (entry - share).abs();
        let nearer = distance <= best;
        best = if nearer { distance } else { best };
        index = if nearer { candidate } else { index };
    }
    index
}
