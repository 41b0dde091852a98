//! What the formats of blocks share: the loops; and for 32 elements a block the search for extremes, scales, nibbles.

use rwkv_forge_simd::{Isa, Pass};
use rwkv_forge_tensor::Encoding;

use crate::convert::{INFINITY, MAGNITUDE, f16_to_f32, f32_to_f16};
use crate::format::check_importance;
use crate::{BlockFormat, EncodeError, EncodeStats, Facts};

/// Elements a block of most formats.
pub(crate) const LEN: usize = 32;

/// The values of such a block.
pub(crate) type Values = [f32; LEN];

/// An array of floats that slices can be cut into.
pub(crate) trait FloatArray: Sized + AsRef<[f32]> + 'static {
    fn cut(values: &[f32]) -> (&[Self], &[f32]);
    fn cut_mut(values: &mut [f32]) -> &mut [Self];
}

impl<const N: usize> FloatArray for [f32; N] {
    fn cut(values: &[f32]) -> (&[Self], &[f32]) {
        values.as_chunks()
    }

    fn cut_mut(values: &mut [f32]) -> &mut [Self] {
        values.as_chunks_mut().0
    }
}

/// An array of bytes that slices can be cut into.
pub(crate) trait ByteArray: Sized + 'static {
    fn cut(bytes: &[u8]) -> &[Self];
    fn cut_mut(bytes: &mut [u8]) -> &mut [Self];
}

impl<const N: usize> ByteArray for [u8; N] {
    fn cut(bytes: &[u8]) -> &[Self] {
        bytes.as_chunks().0
    }

    fn cut_mut(bytes: &mut [u8]) -> &mut [Self] {
        bytes.as_chunks_mut().0
    }
}

/// A format of blocks: [`BlockFormat`] follows from it. `decode` is `#[inline(always)]` so that [`Isa::run`] can compile it.
pub(crate) trait Block: Sync + Sized {
    /// The values of a block.
    type Values: FloatArray;
    /// The stored bytes.
    type Stored: ByteArray;
    const ENCODING: Encoding;
    const FACTS: Facts;

    /// Encodes the blocks of a job; how many were flushed, or the first refused block.
    fn encode(job: Job) -> Result<Flushed, usize>;
    fn decode(stored: &Self::Stored, out: &mut Self::Values);
    /// True when scale and minimum are finite.
    fn is_finite(stored: &Self::Stored) -> bool;
}

/// A format whose blocks are encoded one by one. `encode_one` is `#[inline(always)]`, too.
pub(crate) trait OneByOne: Block {
    fn encode_one(values: &Self::Values, out: &mut Self::Stored) -> Outcome;
}

/// Whole blocks to encode.
pub(crate) struct Job<'a> {
    pub(crate) isa: Isa,
    pub(crate) values: &'a [f32],
    /// The importance of each column, `[row length]`; rows are whole blocks, and `values` whole rows.
    pub(crate) importance: Option<&'a [f32]>,
    pub(crate) out: &'a mut [u8],
}

impl Job<'_> {
    /// What formats for reading answer. They are never asked: [`encode_at`] has refused before.
    pub(crate) fn refused(self) -> Result<Flushed, usize> {
        Err(0)
    }

    /// Encodes block after block; importance does not matter.
    pub(crate) fn one_by_one<B: OneByOne>(self) -> Result<Flushed, usize> {
        self.isa.run(EncodePass::<B> { blocks: B::Values::cut(self.values).0, out: B::Stored::cut_mut(self.out) })
    }
}

/// What happened to one block.
#[derive(Clone, Copy)]
pub(crate) struct Outcome {
    /// A value was not finite, or a scale does not fit in f16.
    pub(crate) refused: bool,
    /// A scale or minimum became zero in f16.
    pub(crate) flushed: bool,
}

impl Outcome {
    /// Both of two stored numbers.
    #[inline(always)]
    pub(crate) fn and(self, other: Self) -> Self {
        Self { refused: self.refused | other.refused, flushed: self.flushed | other.flushed }
    }
}

/// Blocks that lost their scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flushed {
    /// A scale or minimum became zero.
    scales: u64,
    /// All values became zero.
    blocks: u64,
}

impl Flushed {
    /// Counts a block. Whatever loses all its values has lost its scale, so that others need not be looked at.
    #[inline(always)]
    pub(crate) fn count<B: Block>(&mut self, outcome: Outcome, values: &B::Values, stored: &B::Stored) {
        if outcome.flushed {
            self.scales += 1;
            self.blocks += u64::from(became_zero::<B>(values, stored));
        }
    }
}

#[cold]
#[inline(never)]
fn became_zero<B: Block>(values: &B::Values, stored: &B::Stored) -> bool {
    let mut decoded = vec![0.0; B::ENCODING.block_len as usize];
    B::Values::cut_mut(&mut decoded).iter_mut().for_each(|out| B::decode(stored, out));
    decoded.iter().all(|value| *value == 0.0) && values.as_ref().iter().any(|value| *value != 0.0)
}

impl<B: Block> BlockFormat for B {
    fn encoding(&self) -> Encoding {
        B::ENCODING
    }

    fn facts(&self) -> Facts {
        B::FACTS
    }

    fn encode(&self, values: &[f32], out: &mut [u8]) -> Result<EncodeStats, EncodeError> {
        encode_at::<B>(Isa::best(), values, None, out)
    }

    fn encode_weighted(&self, values: &[f32], importance: &[f32], out: &mut [u8]) -> Result<EncodeStats, EncodeError> {
        check_importance(self.encoding(), values, importance)?;
        encode_at::<B>(Isa::best(), values, Some(importance), out)
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        decode_at::<B>(Isa::best(), bytes, out);
    }

    fn validate(&self, bytes: &[u8]) -> Result<(), usize> {
        B::Stored::cut(bytes).iter().position(|stored| !B::is_finite(stored)).map_or(Ok(()), Err)
    }
}

/// [`BlockFormat::encode`], or with importance [`BlockFormat::encode_weighted`], with a chosen instruction set.
pub(crate) fn encode_at<B: Block>(
    isa: Isa,
    values: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
) -> Result<EncodeStats, EncodeError> {
    let format = B::ENCODING.name;
    if !B::FACTS.encodes {
        return Err(EncodeError::ReadOnly { format });
    }
    let error = EncodeError::Length { values: values.len(), bytes: out.len(), format };
    let (blocks, rest) = B::Values::cut(values);
    if !rest.is_empty() || out.len() != size_of::<B::Stored>() * blocks.len() {
        return Err(error);
    }
    match B::encode(Job { isa, values, importance, out }) {
        Ok(Flushed { scales, blocks }) => Ok(EncodeStats { flushed_blocks: scales, zeroed_blocks: blocks, ..EncodeStats::default() }),
        Err(block) => Err(match blocks[block].as_ref().iter().position(|value| !value.is_finite()) {
            Some(offset) => EncodeError::NonFinite { index: block * blocks[block].as_ref().len() + offset, format },
            None => EncodeError::Overflow { block, format },
        }),
    }
}

/// [`BlockFormat::decode`] with a chosen instruction set.
pub(crate) fn decode_at<B: Block>(isa: Isa, bytes: &[u8], out: &mut [f32]) {
    isa.run(DecodePass::<B> { stored: B::Stored::cut(bytes), out: B::Values::cut_mut(out) });
}

struct EncodePass<'a, B: OneByOne> {
    blocks: &'a [B::Values],
    out: &'a mut [B::Stored],
}

impl<B: OneByOne> Pass for EncodePass<'_, B> {
    type Output = Result<Flushed, usize>;
    const WIDE: bool = false;

    #[inline(always)]
    fn run(self) -> Self::Output {
        let mut flushed = Flushed::default();
        for (index, (values, out)) in self.blocks.iter().zip(self.out).enumerate() {
            let outcome = B::encode_one(values, out);
            if outcome.refused {
                return Err(index);
            }
            flushed.count::<B>(outcome, values, out);
        }
        Ok(flushed)
    }
}

struct DecodePass<'a, B: Block> {
    stored: &'a [B::Stored],
    out: &'a mut [B::Values],
}

impl<B: Block> Pass for DecodePass<'_, B> {
    type Output = ();
    const WIDE: bool = false;

    #[inline(always)]
    fn run(self) {
        for (stored, out) in self.stored.iter().zip(self.out) {
            B::decode(stored, out);
        }
    }
}

/// Largest magnitude in the block; NaN or infinity when the block has one. Integer comparison orders magnitudes as float
/// comparison does, and unlike it may be reordered by the compiler.
#[inline(always)]
pub(crate) fn largest_magnitude(values: &Values) -> f32 {
    f32::from_bits(values.iter().fold(0, |most, value| most.max(value.to_bits() & MAGNITUDE)))
}

/// Smallest and largest value; a NaN or infinity shows up in one of the two.
#[inline(always)]
pub(crate) fn extremes<const N: usize>(values: &[f32; N]) -> (f32, f32) {
    let mut low = i32::MAX;
    let mut high = i32::MIN;
    for value in values {
        let key = order_key(value.to_bits());
        low = low.min(key);
        high = high.max(key);
    }
    (from_order_key(low), from_order_key(high))
}

/// Maps float bits to integers of the same order: the magnitude bits of negative numbers are inverted.
#[inline(always)]
fn order_key(bits: u32) -> i32 {
    let signed = bits.cast_signed();
    signed ^ ((signed >> 31) & i32::MAX)
}

#[inline(always)]
fn from_order_key(key: i32) -> f32 {
    f32::from_bits((key ^ ((key >> 31) & i32::MAX)).cast_unsigned())
}

/// The smallest value and the difference from it to the largest. Of zeros of both signs the first one is the minimum, as in
/// a search from the front.
#[inline(always)]
pub(crate) fn minimum_and_span(values: &Values) -> (f32, f32) {
    let (low, high) = extremes(values);
    let low = if low == 0.0 { first_of_magnitude(values, 0.0) } else { low };
    // abs: a block of zeros of both signs could give -0, where a search from the front gives 0 - 0.
    (low, (high - low).abs())
}

/// The value of largest magnitude with its sign; the first one wins. 0 for a block of zeros.
#[inline(always)]
pub(crate) fn peak(values: &Values) -> f32 {
    let (low, high) = extremes(values);
    if high > -low {
        high
    } else if high < -low {
        low
    } else if high == 0.0 && low == 0.0 {
        0.0
    } else {
        peak_of_tie(values, low, high)
    }
}

/// Both signs have the same magnitude, or one of the extremes is NaN.
#[cold]
#[inline(never)]
fn peak_of_tie(values: &Values, low: f32, high: f32) -> f32 {
    if high == -low { first_of_magnitude(values, high) } else { f32::NAN }
}

#[cold]
#[inline(never)]
fn first_of_magnitude(values: &Values, magnitude: f32) -> f32 {
    values.iter().copied().find(|value| value.abs() == magnitude.abs()).unwrap_or(f32::NAN)
}

/// A scale in f32 as the codes are computed with it, and in f16 as it is stored.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    /// 1 / scale, or 0 where the scale is zero or its inverse infinite.
    pub(crate) inverse: f32,
    /// f16 bits, little endian.
    pub(crate) stored: [u8; 2],
    pub(crate) outcome: Outcome,
}

impl Scale {
    #[inline(always)]
    pub(crate) fn new(scale: f32) -> Self {
        let safe = if scale == 0.0 { 1.0 } else { scale };
        let inverse = 1.0 / safe;
        let usable = scale != 0.0 && inverse.to_bits() & MAGNITUDE < INFINITY;
        let (stored, outcome) = store(scale);
        Self { inverse: if usable { inverse } else { 0.0 }, stored, outcome }
    }
}

/// Rounds a scale or a minimum to f16.
#[inline(always)]
pub(crate) fn store(value: f32) -> ([u8; 2], Outcome) {
    let half = f32_to_f16(value);
    let magnitude = half & 0x7fff;
    (half.to_le_bytes(), Outcome { refused: magnitude >= 0x7c00, flushed: magnitude == 0 && value != 0.0 })
}

/// Reads a stored scale or minimum.
#[inline(always)]
pub(crate) fn load(low: u8, high: u8) -> f32 {
    f16_to_f32(u16::from_le_bytes([low, high]))
}

/// True when the f16 is neither NaN nor infinite.
pub(crate) fn half_is_finite(low: u8, high: u8) -> bool {
    u16::from_le_bytes([low, high]) & 0x7c00 != 0x7c00
}

/// A float in 0..256, cut off toward zero. Adding 2^23 leaves the integer in the lowest bits; `as` would add saturation.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "the lowest byte is the integer")]
pub(crate) fn truncate(value: f32) -> u8 {
    (value.trunc() + 8_388_608.0).to_bits() as u8
}

/// Code of each value: `min(most, trunc((value - offset) * inverse + bias))`.
#[inline(always)]
pub(crate) fn codes(values: &Values, offset: f32, inverse: f32, bias: f32, most: u8) -> [u8; LEN] {
    let mut codes = [0; LEN];
    for (code, value) in codes.iter_mut().zip(values) {
        *code = truncate((value - offset) * inverse + bias).min(most);
    }
    codes
}

/// Lower four bits of the codes: byte j holds code j below and code j + 16 above.
#[inline(always)]
pub(crate) fn pack_nibbles(codes: &[u8; LEN]) -> [u8; 16] {
    let mut packed = [0; 16];
    for (j, byte) in packed.iter_mut().enumerate() {
        *byte = codes[j] & 0x0f | codes[j + 16] << 4;
    }
    packed
}

/// Inverse of [`pack_nibbles`].
#[inline(always)]
pub(crate) fn unpack_nibbles(packed: &[u8]) -> [u8; LEN] {
    let mut codes = [0; LEN];
    for (j, byte) in packed.iter().take(16).enumerate() {
        codes[j] = byte & 0x0f;
        codes[j + 16] = byte >> 4;
    }
    codes
}

/// Bit 4 of the codes: bit j of the word is that of code j.
#[inline(always)]
pub(crate) fn pack_fifth_bits(codes: &[u8; LEN]) -> [u8; 4] {
    let mut packed = [0; 4];
    for (byte, eight) in packed.iter_mut().zip(codes.as_chunks::<8>().0) {
        let bits = u64::from_le_bytes(*eight) >> 4 & 0x0101_0101_0101_0101;
        // The multiplier moves the bit of code i to place 56 + i; the products of no other pair reach the top byte.
        *byte = bits.wrapping_mul(0x0102_0408_1020_4080).to_le_bytes()[7];
    }
    packed
}

/// Adds the fifth bits to codes of four bits.
#[inline(always)]
pub(crate) fn add_fifth_bits(codes: &mut [u8; LEN], stored: [u8; 4]) {
    let word = u32::from_le_bytes(stored);
    for (j, code) in codes.iter_mut().enumerate() {
        *code |= if word >> j & 1 == 1 { 16 } else { 0 };
    }
}
