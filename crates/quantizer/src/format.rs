//! The formats as the quantizers see them: a block is sub-blocks of values `scale * level + offset`.
//!
//! One entry of [`FORMATS`] a format. [`Scheme`] says how the scale and the offset of a sub-block follow from what is stored.

use rwkv_forge_quant::{
    IQ4_NL, IQ4_XS, Int8, NF4, NF4_TABLE, Parted, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, SF4, SF4_TABLE,
};
use rwkv_forge_tensor::Encoding;

use crate::levels::{Even, Shares, Table};

/// Most sub-blocks of a block.
pub(crate) const MOST_SUBS: usize = 16;

/// A format of blocks of some sub-blocks.
pub(crate) struct Format {
    /// How blocks are stored.
    pub(crate) stored: &'static dyn Parted,
    /// Values a sub-block, a multiple of 16.
    pub(crate) length: usize,
    /// Sub-blocks a block, at most [`MOST_SUBS`].
    pub(crate) subs: usize,
    /// What codes stand for.
    pub(crate) levels: Kind,
    /// What scales stand for.
    pub(crate) scheme: Scheme,
}

/// The levels of a format.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Even(Even),
    Shares(Shares),
    Table(Table),
}

/// How a block stores the scales and offsets of its sub-blocks, in two f16 and integer codes.
///
/// A value is `level * (a * one) + c * two`, where `a` and `c` are the [`Scheme::factors`] of the sub-block and `one` and `two`
/// belong to the block: linear, so that least squares find them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// One scale a block.
    One,
    /// A scale and an offset a block.
    Two,
    /// The smallest and the largest value of a block.
    Ends,
    /// A scale for each sub-block, with the least and the largest code.
    Scales(i8, i8),
    /// A scale and a minimum for each sub-block, coded from 0 to a largest code.
    ScalesAndMinima(i8),
}

/// Adding it changes no number, not even -0.
const NOTHING: f32 = -0.0;

impl Scheme {
    /// The least and the largest code of a scale.
    pub(crate) fn scales(self) -> (i8, i8) {
        match self {
            Self::Scales(least, most) => (least, most),
            Self::ScalesAndMinima(most) => (0, most),
            Self::One | Self::Two | Self::Ends => (0, 0),
        }
    }

    /// The largest code of a minimum; 0 where there is none.
    pub(crate) fn most_minimum(self) -> u8 {
        if let Self::ScalesAndMinima(most) = self { most.cast_unsigned() } else { 0 }
    }

    /// True when both halves are used.
    pub(crate) fn has_offset(self) -> bool {
        !matches!(self, Self::One | Self::Scales(..))
    }

    /// Scale and offset exactly as the decoder computes them.
    #[inline(always)]
    pub(crate) fn line(self, [first, second]: [f32; 2], scale: i8, minimum: u8) -> (f32, f32) {
        match self {
            Self::One => (first, NOTHING),
            Self::Two => (first, second),
            Self::Ends => (second - first, first),
            Self::Scales(..) => (first * f32::from(scale), NOTHING),
            Self::ScalesAndMinima(_) => (first * f32::from(scale), -(second * f32::from(minimum))),
        }
    }

    /// `a` and `c`.
    pub(crate) fn factors(self, scale: i8, minimum: u8) -> (f32, f32) {
        match self {
            Self::One => (1.0, 0.0),
            Self::Two | Self::Ends => (1.0, 1.0),
            Self::Scales(..) => (f32::from(scale), 0.0),
            Self::ScalesAndMinima(_) => (f32::from(scale), -f32::from(minimum)),
        }
    }

    /// What the halves would be without rounding.
    pub(crate) fn halves(self, one: f32, two: f32) -> [f32; 2] {
        match self {
            Self::One | Self::Scales(..) => [one, 0.0],
            Self::Two => [one, two],
            Self::Ends => [two, two + one],
            // Readers may rely on the signs that the reference encoder gives these.
            Self::ScalesAndMinima(_) => [one.max(0.0), two.max(0.0)],
        }
    }
}

const fn even(least: f32, most: f32, bias: i16) -> Kind {
    Kind::Even(Even { least, most, bias })
}

const fn format(stored: &'static dyn Parted, (length, subs): (usize, usize), levels: Kind, scheme: Scheme) -> Format {
    Format { stored, length, subs, levels, scheme }
}

/// The table of IQ4_NL and IQ4_XS.
const IQ4: [f32; 16] = [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];

/// All formats that have a grid.
pub(crate) static FORMATS: &[Format] = &[
    format(&Q4_0, (32, 1), even(-8.0, 7.0, 8), Scheme::One),
    format(&Q4_1, (32, 1), even(0.0, 15.0, 0), Scheme::Two),
    format(&Q5_0, (32, 1), even(-16.0, 15.0, 16), Scheme::One),
    format(&Q5_1, (32, 1), even(0.0, 31.0, 0), Scheme::Two),
    // -128 has no counterpart of the other sign, which kernels for products of bytes may need.
    format(&Q8_0, (32, 1), even(-127.0, 127.0, 0), Scheme::One),
    format(&Q2_K, (16, 16), even(0.0, 3.0, 0), Scheme::ScalesAndMinima(15)),
    format(&Q3_K, (16, 16), even(-4.0, 3.0, 4), Scheme::Scales(-32, 31)),
    format(&Q4_K, (32, 8), even(0.0, 15.0, 0), Scheme::ScalesAndMinima(63)),
    format(&Q5_K, (32, 8), even(0.0, 31.0, 0), Scheme::ScalesAndMinima(63)),
    format(&Q6_K, (16, 16), even(-32.0, 31.0, 32), Scheme::Scales(-128, 127)),
    format(&IQ4_NL, (32, 1), Kind::Table(Table(&IQ4)), Scheme::One),
    format(&IQ4_XS, (32, 8), Kind::Table(Table(&IQ4)), Scheme::Scales(-32, 31)),
    format(&Int8, (128, 1), Kind::Shares(Shares), Scheme::Ends),
    format(&NF4, (64, 1), Kind::Table(Table(&NF4_TABLE)), Scheme::One),
    format(&SF4, (64, 1), Kind::Table(Table(&SF4_TABLE)), Scheme::One),
];

/// The format of an encoding, if it has a grid.
pub(crate) fn by_encoding(encoding: Encoding) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.stored.encoding() == encoding)
}

impl Format {
    /// Values a block.
    pub(crate) fn block(&self) -> usize {
        self.length * self.subs
    }

    /// Bytes a block.
    pub(crate) fn bytes(&self) -> usize {
        self.stored.encoding().block_bytes as usize
    }
}
