//! What a packed format can do, and the registry of those there are.

use rwkv_forge_simd::Isa;
use rwkv_forge_tensor::Encoding;

use crate::activations::Activations;
use crate::arena::Line;
use crate::float;
use crate::integer;

/// A way to keep 16 rows side by side. Panels lie one after the other, each `panel_lines` lines long, aligned to lines.
pub(crate) trait Format: Sync {
    /// How the rows are stored in files.
    fn encoding(&self) -> Encoding;

    /// Whether products multiply integers when the activations have codes.
    fn is_integer(&self) -> bool;

    /// Lines that a panel takes; `columns` are whole blocks of the encoding.
    fn panel_lines(&self, columns: usize) -> usize;

    /// Packs 1 to 16 rows as stored in files, one after the other in `stored`. The panel consists of zeros before, and rows
    /// that are not given must come out as zeros.
    fn pack(&self, columns: usize, stored: &[u8], panel: &mut [Line]);

    /// The products of whole panels with all tokens: `out` `[panels, tokens]` of 16 rows each, whatever it held before.
    fn product(&self, isa: Isa, columns: usize, panels: &[Line], x: &Activations, out: &mut [[f32; 16]]);
}

/// All formats.
pub(crate) static FORMATS: &[&dyn Format] = &[
    &float::F32,
    &float::F16,
    &float::BF16,
    &float::NF4,
    &float::SF4,
    &integer::Q8_0,
    &integer::Q6_K,
    &integer::Q5_K,
    &integer::Q5_1,
    &integer::Q5_0,
    &integer::Q4_K,
    &integer::Q4_1,
    &integer::Q4_0,
    &integer::IQ4_NL,
    &integer::IQ4_XS,
    &integer::Q3_K,
    &integer::Q2_K,
    &integer::INT8,
];

/// The format for rows of so many columns, if there is one.
pub(crate) fn find(encoding: Encoding, columns: usize) -> Option<&'static dyn Format> {
    let format = FORMATS.iter().copied().find(|format| format.encoding() == encoding)?;
    columns.is_multiple_of(encoding.block_len as usize).then_some(format)
}
