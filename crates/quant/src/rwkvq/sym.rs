//! sym: 256 weights in sixteen blocks of 16, each with a scale that is a code of eight bits itself, without minima.
//! `[d: f16] [scales: i8 x 16]`, then `[codes: i8 x 256]`, or codes plus 32 as `[nibbles: u8 x 128] [bit 4: u8 x 32] [bit 5: u8 x 32]`.
//! s = half(scale * d); value = code * s.

use rwkv_forge_tensor::Encoding;

use super::{add_plane, decodes_to_numbers, half, nibbles};
use crate::block::{Block, Flushed, Job, load};
use crate::super_block::Values;
use crate::{Facts, Family};

/// Weights in a part with a scale of its own.
const PART: usize = 16;

/// 6.5625 bits a weight: the grid of Q6_K, but for the rounding of the scales of parts.
#[derive(Clone, Copy, Debug)]
pub struct SYM6;

/// 8.5625 bits a weight.
#[derive(Clone, Copy, Debug)]
pub struct SYM8;

impl Block for SYM6 {
    type Values = Values;
    type Stored = [u8; 210];
    const ENCODING: Encoding = Encoding::new("sym6", 256, 210);
    const FACTS: Facts = Facts::new(Family::Super).read_only();

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.refused()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 210], out: &mut Values) {
        let mut codes = [0; 256];
        nibbles(&stored[18..146], PART, &mut codes);
        add_plane(&mut codes, &stored[146..178], 4);
        add_plane(&mut codes, &stored[178..210], 5);
        for ((value, code), scale) in out.iter_mut().zip(codes).zip(scales(stored)) {
            *value = (f32::from(code) - 32.0) * scale;
        }
    }

    fn is_finite(stored: &[u8; 210]) -> bool {
        decodes_to_numbers::<Self, 256>(stored)
    }
}

impl Block for SYM8 {
    type Values = Values;
    type Stored = [u8; 274];
    const ENCODING: Encoding = Encoding::new("sym8", 256, 274);
    const FACTS: Facts = Facts::new(Family::Super).read_only();

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.refused()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 274], out: &mut Values) {
        for ((value, code), scale) in out.iter_mut().zip(&stored[18..]).zip(scales(stored)) {
            *value = f32::from(code.cast_signed()) * scale;
        }
    }

    fn is_finite(stored: &[u8; 274]) -> bool {
        decodes_to_numbers::<Self, 256>(stored)
    }
}

/// The scale of every weight.
#[inline(always)]
fn scales(stored: &[u8]) -> Values {
    let d = load(stored[0], stored[1]);
    let mut scales = [0.0; 256];
    for (scales, code) in scales.chunks_exact_mut(PART).zip(&stored[2..18]) {
        scales.fill(half(f32::from(code.cast_signed()) * d));
    }
    scales
}
