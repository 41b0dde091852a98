//! What a packed format can do.

use rwkv_forge_simd::Isa;
use rwkv_forge_tensor::Encoding;

use crate::activations::Activations;
use crate::arena::Line;
use crate::band::ByColumns;

/// Rows a panel: one lane each.
pub const PANEL: usize = 16;

/// A way to keep 16 rows side by side. Panels lie one after the other, each `panel_lines` lines long, aligned to lines.
pub(crate) trait Format: Sync {
    /// How the rows are stored in files.
    fn encoding(&self) -> Encoding;

    /// Whether products multiply integers when the activations have codes.
    fn is_integer(&self) -> bool;

    /// The format by columns; `None` where it has no such layout, and always lies in panels.
    fn by_columns(&self) -> Option<&dyn ByColumns>;

    /// Lines that a panel takes; `columns` are whole blocks of the encoding.
    fn panel_lines(&self, columns: usize) -> usize;

    /// Packs 1 to 16 rows as stored in files, one after the other in `stored`. The panel consists of zeros before, and rows
    /// that are not given must come out as zeros.
    fn pack(&self, columns: usize, stored: &[u8], panel: &mut [Line]);

    /// The products of whole panels with all tokens: `out` `[panels, tokens]` of 16 rows each, whatever it held before.
    fn product(&self, isa: Isa, columns: usize, panels: &[Line], x: &Activations, out: &mut [[f32; 16]]);
}
