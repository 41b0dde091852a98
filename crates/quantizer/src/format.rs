//! The formats as the quantizers see them: a block is sub-blocks of values `scale * point + offset`.
//!
//! One entry of [`FORMATS`] for every registered format that declares a grid.

use std::sync::LazyLock;

use rwkv_forge_quant::{Grid, Parted, Points, Scheme};
use rwkv_forge_tensor::Encoding;

use crate::points::{Even, Shares, Table};

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
    pub(crate) points: Kind,
    /// What scales stand for.
    pub(crate) scheme: Scheme,
}

/// The points of a format.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Even(Even),
    Shares(Shares),
    Table(Table),
}

/// All formats that have a grid.
pub(crate) static FORMATS: LazyLock<Vec<Format>> =
    LazyLock::new(|| rwkv_forge_quant::FORMATS.iter().filter_map(|format| format.facts().grid).map(Format::new).collect());

/// The format of an encoding, if it has a grid.
pub(crate) fn by_encoding(encoding: Encoding) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.stored.encoding() == encoding)
}

impl Format {
    fn new(grid: Grid) -> Self {
        let points = match grid.points {
            Points::Even { least, most, bias } => Kind::Even(Even { least, most, bias }),
            Points::Shares => Kind::Shares(Shares),
            Points::Table(table) => Kind::Table(Table(table)),
        };
        let subs = grid.parted.encoding().block_len as usize / grid.length;
        Self { stored: grid.parted, length: grid.length, subs, points, scheme: grid.scheme }
    }

    /// Values a block.
    pub(crate) fn block(&self) -> usize {
        self.length * self.subs
    }

    /// Bytes a block.
    pub(crate) fn bytes(&self) -> usize {
        self.stored.encoding().block_bytes as usize
    }
}
