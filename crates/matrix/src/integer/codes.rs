//! How the codes of 16 rows and 32 columns lie in lines of 64 bytes.
//!
//! In a register of 64 bytes, byte 4 * row + j belongs to column 4 * quad + j: one dot product of four columns for all rows.
//! The eight quads of 32 columns are eight such registers; codes of fewer bits share lines.

use rwkv_forge_simd::Registers;

use crate::activations::GROUP;
use crate::arena::Line;

/// A packing of the codes of 16 rows and 32 columns.
pub(crate) trait Code {
    /// Lines they take.
    const LINES: usize;
    /// Whether what kernels multiply may exceed 127.
    const WIDE: bool = false;
    /// Adds the codes of a row, as stored, to lines where the row is zero.
    fn put(codes: &[u8; GROUP], row: usize, lines: &mut [Line]);
    /// The eight quads, each `#[inline(always)]` computed from `lines`.
    fn quads<R: Registers>(lines: &[Line]) -> [R::B; 8];
}

/// Eight bits: a line a quad.
pub(crate) struct Eight;
/// Four bits: line k has quad k below and quad k + 4 above.
pub(crate) struct Four;
/// As [`Four`], indices into the table of IQ4; what is multiplied is the entry plus 128.
pub(crate) struct Table;
/// Two bits: line k has quads k, k + 2, k + 4 and k + 6 from the lowest bits up.
pub(crate) struct Two;
/// [`Two`] and a line with the third bits, quad k in bit k.
pub(crate) struct Three;
/// [`Four`] and a line with the fifth bits, quad k in bit k.
pub(crate) struct Five;
/// [`Four`] and the upper bits as in [`Two`].
pub(crate) struct Six;

/// The entries of IQ4 plus 128.
const ENTRIES: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

/// Four codes of a row, as they lie in a line.
type Quad = u32;

fn split(codes: &[u8; GROUP]) -> [Quad; 8] {
    let mut quads = [0; 8];
    for (quad, codes) in quads.iter_mut().zip(codes.as_chunks::<4>().0) {
        *quad = u32::from_le_bytes(*codes);
    }
    quads
}

fn put_quad(line: &mut Line, row: usize, quad: Quad) {
    line[4 * row..4 * row + 4].copy_from_slice(&quad.to_le_bytes());
}

/// Bit `bit` of four codes in the lowest bits.
fn bit(quad: Quad, bit: u32) -> Quad {
    quad >> bit & 0x0101_0101
}

/// One line with bit `place` of all codes.
fn put_bits(quads: &[Quad; 8], place: u32, row: usize, line: &mut Line) {
    let mut bits = 0;
    for (quad, k) in quads.iter().zip(0..) {
        bits |= bit(*quad, place) << k;
    }
    put_quad(line, row, bits);
}

fn put_fours(quads: &[Quad; 8], row: usize, lines: &mut [Line]) {
    for (k, line) in lines.iter_mut().take(4).enumerate() {
        put_quad(line, row, quads[k] & 0x0f0f_0f0f | (quads[k + 4] & 0x0f0f_0f0f) << 4);
    }
}

/// Two lines with bits `place` and `place` + 1 of all codes.
fn put_twos(quads: &[Quad; 8], place: u32, row: usize, lines: &mut [Line]) {
    for (k, line) in lines.iter_mut().take(2).enumerate() {
        let pair = |quad: usize| quads[quad] >> place & 0x0303_0303;
        put_quad(line, row, pair(k) | pair(k + 2) << 2 | pair(k + 4) << 4 | pair(k + 6) << 6);
    }
}

#[inline(always)]
fn fours<R: Registers>(lines: &[Line]) -> [R::B; 8] {
    let mask = R::splat_u8(15);
    let [a, b, c, d] = [R::load_bytes(&lines[0]), R::load_bytes(&lines[1]), R::load_bytes(&lines[2]), R::load_bytes(&lines[3])];
    [R::and(a, mask), R::and(b, mask), R::and(c, mask), R::and(d, mask), R::shr::<4>(a), R::shr::<4>(b), R::shr::<4>(c), R::shr::<4>(d)]
}

#[inline(always)]
fn twos<R: Registers>(lines: &[Line]) -> [R::B; 8] {
    let mask = R::splat_u8(3);
    let [a, b] = [R::load_bytes(&lines[0]), R::load_bytes(&lines[1])];
    [
        R::and(a, mask),
        R::and(b, mask),
        R::and(R::shr::<2>(a), mask),
        R::and(R::shr::<2>(b), mask),
        R::and(R::shr::<4>(a), mask),
        R::and(R::shr::<4>(b), mask),
        R::shr::<6>(a),
        R::shr::<6>(b),
    ]
}

impl Code for Eight {
    const LINES: usize = 8;
    const WIDE: bool = true;

    fn put(codes: &[u8; GROUP], row: usize, lines: &mut [Line]) {
        for (line, quad) in lines.iter_mut().zip(split(codes)) {
            put_quad(line, row, quad);
        }
    }

    #[inline(always)]
    fn quads<R: Registers>(lines: &[Line]) -> [R::B; 8] {
        let [a, b, c, d] = [&lines[0], &lines[1], &lines[2], &lines[3]];
        let [e, f, g, h] = [&lines[4], &lines[5], &lines[6], &lines[7]];
        [
            R::load_bytes(a),
            R::load_bytes(b),
            R::load_bytes(c),
            R::load_bytes(d),
            R::load_bytes(e),
            R::load_bytes(f),
            R::load_bytes(g),
            R::load_bytes(h),
        ]
    }
}

impl Code for Four {
    const LINES: usize = 4;

    fn put(codes: &[u8; GROUP], row: usize, lines: &mut [Line]) {
        put_fours(&split(codes), row, lines);
    }

    #[inline(always)]
    fn quads<R: Registers>(lines: &[Line]) -> [R::B; 8] {
        fours::<R>(lines)
    }
}

impl Code for Table {
    const LINES: usize = 4;
    const WIDE: bool = true;

    fn put(codes: &[u8; GROUP], row: usize, lines: &mut [Line]) {
        put_fours(&split(codes), row, lines);
    }

    #[inline(always)]
    fn quads<R: Registers>(lines: &[Line]) -> [R::B; 8] {
        let table = R::four_times(&ENTRIES);
        let [a, b, c, d, e, f, g, h] = fours::<R>(lines);
        [
            R::look_up(table, a),
            R::look_up(table, b),
            R::look_up(table, c),
            R::look_up(table, d),
            R::look_up(table, e),
            R::look_up(table, f),
            R::look_up(table, g),
            R::look_up(table, h),
        ]
    }
}

impl Code for Two {
    const LINES: usize = 2;

    fn put(codes: &[u8; GROUP], row: usize, lines: &mut [Line]) {
        put_twos(&split(codes), 0, row, lines);
    }

    #[inline(always)]
    fn quads<R: Registers>(lines: &[Line]) -> [R::B; 8] {
        twos::<R>(lines)
    }
}

impl Code for Three {
    const LINES: usize = 3;

    fn put(codes: &[u8; GROUP], row: usize, lines: &mut [Line]) {
        let quads = split(codes);
        put_twos(&quads, 0, row, lines);
        put_bits(&quads, 2, row, &mut lines[2]);
    }

    #[inline(always)]
    fn quads<R: Registers>(lines: &[Line]) -> [R::B; 8] {
        let [a, b, c, d, e, f, g, h] = twos::<R>(lines);
        let (third, mask) = (R::load_bytes(&lines[2]), R::splat_u8(4));
        [
            R::or(a, R::and(R::shl::<2>(third), mask)),
            R::or(b, R::and(R::shl::<1>(third), mask)),
            R::or(c, R::and(third, mask)),
            R::or(d, R::and(R::shr::<1>(third), mask)),
            R::or(e, R::and(R::shr::<2>(third), mask)),
            R::or(f, R::and(R::shr::<3>(third), mask)),
            R::or(g, R::and(R::shr::<4>(third), mask)),
            R::or(h, R::and(R::shr::<5>(third), mask)),
        ]
    }
}

impl Code for Five {
    const LINES: usize = 5;

    fn put(codes: &[u8; GROUP], row: usize, lines: &mut [Line]) {
        let quads = split(codes);
        put_fours(&quads, row, lines);
        put_bits(&quads, 4, row, &mut lines[4]);
    }

    #[inline(always)]
    fn quads<R: Registers>(lines: &[Line]) -> [R::B; 8] {
        let [a, b, c, d, e, f, g, h] = fours::<R>(lines);
        let (fifth, mask) = (R::load_bytes(&lines[4]), R::splat_u8(16));
        [
            R::or(a, R::and(R::shl::<4>(fifth), mask)),
            R::or(b, R::and(R::shl::<3>(fifth), mask)),
            R::or(c, R::and(R::shl::<2>(fifth), mask)),
            R::or(d, R::and(R::shl::<1>(fifth), mask)),
            R::or(e, R::and(fifth, mask)),
            R::or(f, R::and(R::shr::<1>(fifth), mask)),
            R::or(g, R::and(R::shr::<2>(fifth), mask)),
            R::or(h, R::and(R::shr::<3>(fifth), mask)),
        ]
    }
}

impl Code for Six {
    const LINES: usize = 6;

    fn put(codes: &[u8; GROUP], row: usize, lines: &mut [Line]) {
        let quads = split(codes);
        put_fours(&quads, row, lines);
        put_twos(&quads, 4, row, &mut lines[4..]);
    }

    #[inline(always)]
    fn quads<R: Registers>(lines: &[Line]) -> [R::B; 8] {
        let [a, b, c, d, e, f, g, h] = fours::<R>(lines);
        let (even, odd, mask) = (R::load_bytes(&lines[4]), R::load_bytes(&lines[5]), R::splat_u8(0x30));
        [
            R::or(a, R::and(R::shl::<4>(even), mask)),
            R::or(b, R::and(R::shl::<4>(odd), mask)),
            R::or(c, R::and(R::shl::<2>(even), mask)),
            R::or(d, R::and(R::shl::<2>(odd), mask)),
            R::or(e, R::and(even, mask)),
            R::or(f, R::and(odd, mask)),
            R::or(g, R::and(R::shr::<2>(even), mask)),
            R::or(h, R::and(R::shr::<2>(odd), mask)),
        ]
    }
}
