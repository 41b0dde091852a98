//! Codes with one scale a row, which stands before each piece of the row that is read: what .rwkvq files call rtn, and int8 of Albatross.
//! value = code * scale, but for outliers, which stand beside the codes.

use rwkv_forge_tensor::Encoding;

use super::decodes_to_numbers;
use crate::block::{Block, Flushed, Job, Values, load};
use crate::convert::bf16_to_f32;
use crate::{Facts, Family};

/// Codes of eight bits, in pieces of 32: `[scale: f16] [codes: i8 x 32]`. 8.5 bits a weight as it is read, 8 and a scale a row in the file.
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types, reason = "codes and what has a scale")]
pub struct INT8_ROW;

/// Codes of four bits, in pieces of 32: `[scale: f16] [code + 8: 4 bits x 32]`, two neighbours a byte, the first one below. 4.5 bits a weight
/// as it is read.
#[derive(Clone, Copy, Debug)]
#[allow(non_camel_case_types, reason = "codes and what has a scale")]
pub struct INT4_ROW;

/// Pieces of eight with room for outliers: `[scale: f16] [codes: i8 x 8] [which are outliers: u8] [outliers: bf16 x 8]`, for matrices with
/// outliers and rows that are no multiples of 32. 27 bits a weight as it is read, far less in the file.
#[derive(Clone, Copy, Debug)]
pub struct RTN;

impl Block for INT8_ROW {
    type Values = Values;
    type Stored = [u8; 34];
    const ENCODING: Encoding = Encoding::new("int8_row", 32, 34);
    const FACTS: Facts = Facts::new(Family::Even).read_only();

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.refused()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 34], out: &mut Values) {
        let scale = load(stored[0], stored[1]);
        for (value, code) in out.iter_mut().zip(&stored[2..]) {
            *value = f32::from(code.cast_signed()) * scale;
        }
    }

    fn is_finite(stored: &[u8; 34]) -> bool {
        decodes_to_numbers::<Self, 32>(stored)
    }
}

impl Block for INT4_ROW {
    type Values = Values;
    type Stored = [u8; 18];
    const ENCODING: Encoding = Encoding::new("int4_row", 32, 18);
    const FACTS: Facts = Facts::new(Family::Even).read_only();

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.refused()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 18], out: &mut Values) {
        let scale = load(stored[0], stored[1]);
        for (values, byte) in out.chunks_exact_mut(2).zip(&stored[2..]) {
            values[0] = (f32::from(byte & 15) - 8.0) * scale;
            values[1] = (f32::from(byte >> 4) - 8.0) * scale;
        }
    }

    fn is_finite(stored: &[u8; 18]) -> bool {
        decodes_to_numbers::<Self, 32>(stored)
    }
}

impl Block for RTN {
    type Values = [f32; 8];
    type Stored = [u8; 27];
    const ENCODING: Encoding = Encoding::new("rtn", 8, 27);
    const FACTS: Facts = Facts::new(Family::Even).read_only();

    fn encode(job: Job) -> Result<Flushed, usize> {
        job.refused()
    }

    #[inline(always)]
    fn decode(stored: &[u8; 27], out: &mut [f32; 8]) {
        let scale = load(stored[0], stored[1]);
        for (place, value) in out.iter_mut().enumerate() {
            let is_outlier = stored[10] >> place & 1 == 1;
            let outlier = u16::from_le_bytes([stored[11 + 2 * place], stored[12 + 2 * place]]);
            *value = if is_outlier { bf16_to_f32(outlier) } else { f32::from(stored[2 + place].cast_signed()) * scale };
        }
    }

    fn is_finite(stored: &[u8; 27]) -> bool {
        decodes_to_numbers::<Self, 8>(stored)
    }
}
