//! Formats as searches see them: a block is sub-blocks of values `scale * point + offset`.
//!
//! [`Grid`] is what a format declares. [`Scheme`] says how the scale and the offset of a sub-block follow from what is stored.

use crate::Parted;

/// How a block is made of points.
#[derive(Clone, Copy)]
pub struct Grid {
    /// Takes blocks apart and puts them together.
    pub parted: &'static dyn Parted,
    /// Values that share a scale, a multiple of 16.
    pub length: usize,
    /// What codes stand for.
    pub points: Points,
    /// What scales stand for.
    pub scheme: Scheme,
}

/// What the codes of a format stand for, before scale and offset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Points {
    /// All integers from `least` to `most`; the code of a point is `point + bias`, as a byte.
    Even {
        /// The lowest point.
        least: f32,
        /// The highest point.
        most: f32,
        /// What is added to a point.
        bias: i16,
    },
    /// The shares 0/255 to 255/255.
    Shares,
    /// A table of sixteen rising points.
    Table(&'static [f32; 16]),
}

/// How a block stores the scales and offsets of its sub-blocks, in two f16 and integer codes.
///
/// A value is `point * (a * one) + c * two`, where `a` and `c` are the [`Scheme::factors`] of the sub-block and `one` and `two`
/// belong to the block: linear, so that least squares find them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
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

impl Grid {
    /// Integer points from `least` to `most`.
    #[must_use]
    pub const fn even(parted: &'static dyn Parted, length: usize, (least, most): (f32, f32), bias: i16, scheme: Scheme) -> Self {
        Self { parted, length, points: Points::Even { least, most, bias }, scheme }
    }

    /// The points of a table.
    #[must_use]
    pub const fn table(parted: &'static dyn Parted, length: usize, table: &'static [f32; 16], scheme: Scheme) -> Self {
        Self { parted, length, points: Points::Table(table), scheme }
    }
}

/// Adding it changes no number, not even -0.
const NOTHING: f32 = -0.0;

impl Scheme {
    /// The least and the largest code of a scale.
    #[must_use]
    pub fn scales(self) -> (i8, i8) {
        match self {
            Self::Scales(least, most) => (least, most),
            Self::ScalesAndMinima(most) => (0, most),
            Self::One | Self::Two | Self::Ends => (0, 0),
        }
    }

    /// The largest code of a minimum; 0 where there is none.
    #[must_use]
    pub fn most_minimum(self) -> u8 {
        if let Self::ScalesAndMinima(most) = self { most.cast_unsigned() } else { 0 }
    }

    /// True when both halves are used.
    #[must_use]
    pub fn has_offset(self) -> bool {
        !matches!(self, Self::One | Self::Scales(..))
    }

    /// Scale and offset exactly as the decoder computes them.
    #[inline(always)]
    #[must_use]
    pub fn line(self, [first, second]: [f32; 2], scale: i8, minimum: u8) -> (f32, f32) {
        match self {
            Self::One => (first, NOTHING),
            Self::Two => (first, second),
            Self::Ends => (second - first, first),
            Self::Scales(..) => (first * f32::from(scale), NOTHING),
            Self::ScalesAndMinima(_) => (first * f32::from(scale), -(second * f32::from(minimum))),
        }
    }

    /// `a` and `c`.
    #[must_use]
    pub fn factors(self, scale: i8, minimum: u8) -> (f32, f32) {
        match self {
            Self::One => (1.0, 0.0),
            Self::Two | Self::Ends => (1.0, 1.0),
            Self::Scales(..) => (f32::from(scale), 0.0),
            Self::ScalesAndMinima(_) => (f32::from(scale), -f32::from(minimum)),
        }
    }

    /// What the halves would be without rounding.
    #[must_use]
    pub fn halves(self, one: f32, two: f32) -> [f32; 2] {
        match self {
            Self::One | Self::Scales(..) => [one, 0.0],
            Self::Two => [one, two],
            Self::Ends => [two, two + one],
            // Readers may rely on the signs that the reference encoder gives these.
            Self::ScalesAndMinima(_) => [one.max(0.0), two.max(0.0)],
        }
    }
}
