//! What a format says of itself: everything that others ask of a type without knowing it by name. Start at [`Facts`].

use crate::{BlockFormat, Grid};

/// How codes become numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Every element is a float of its own.
    Dense,
    /// Evenly spaced points; a block has one scale, and perhaps a minimum.
    Even,
    /// Evenly spaced points; a block has scales of parts, and perhaps minima, which are codes themselves.
    Super,
    /// A table of unevenly spaced points.
    Table,
    /// Floats of four bits.
    Float4,
    /// Groups of weights stand together in a book of vectors.
    Book,
}

/// What ggml calls a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ggml {
    /// The number of the type, in GGUF the type of a tensor.
    pub number: u32,
    /// `general.file_type` of a GGUF whose main type this is. Where llama.cpp has several mixes of one type (S, M, L), that of the M one.
    pub file_type: u32,
}

/// Rows for which a planner tries a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Rows of whole blocks of 256, where the container has types of such blocks.
    Long,
    /// All other rows.
    Short,
    /// Both.
    All,
}

/// All that a format says of itself. Whatever it does not say is what keeps others from touching it: a new format has no number in other
/// people's tables, and no plan knows it.
///
/// ```
/// use rwkv_forge_quant::Family;
///
/// let facts = rwkv_forge_quant::by_name("q4_k").expect("a type of this name").facts();
/// assert_eq!(facts.family, Family::Super);
/// assert_eq!(facts.ggml.map(|ggml| ggml.number), Some(12));
/// // Its blocks have 256 weights: shorter rows get the next larger type with blocks of 32.
/// assert_eq!(facts.stand_in.map(|format| format.encoding().name), Some("q5_0"));
/// ```
#[derive(Clone, Copy)]
pub struct Facts {
    /// How codes become numbers.
    pub family: Family,
    /// What ggml calls it, if it has it.
    pub ggml: Option<Ggml>,
    /// How the quantizers that search see its blocks; without a grid there is only the format's own rule.
    pub grid: Option<Grid>,
    /// Whether values can be encoded. What cannot is there to read other people's files.
    pub encodes: bool,
    /// Whether f16 holds every decoded value, unless it is too large or too small for f16.
    pub exact_in_f16: bool,
    /// Rows for which a planner tries it; `None` keeps it out of plans.
    pub planned: Option<Rows>,
    /// Its harm relative to that of Q4_K, from measured divergences of trained models: with it, ready types choose this type.
    pub harm: Option<f64>,
    /// What stands in where rows are no whole blocks: the format of shorter blocks nearest above it.
    pub stand_in: Option<&'static dyn BlockFormat>,
}

impl Facts {
    /// A format that is encoded and decoded, and of which nothing else is known.
    #[must_use]
    pub const fn new(family: Family) -> Self {
        Self { family, ggml: None, grid: None, encodes: true, exact_in_f16: false, planned: None, harm: None, stand_in: None }
    }

    /// With ggml's number of the type and of a file of it.
    #[must_use]
    pub const fn ggml(self, number: u32, file_type: u32) -> Self {
        Self { ggml: Some(Ggml { number, file_type }), ..self }
    }

    /// With a grid for searches.
    #[must_use]
    pub const fn grid(self, grid: Grid) -> Self {
        Self { grid: Some(grid), ..self }
    }

    /// For reading only.
    #[must_use]
    pub const fn read_only(self) -> Self {
        Self { encodes: false, ..self }
    }

    /// Products of scale and code have no more than the eleven bits of f16.
    #[must_use]
    pub const fn exact_in_f16(self) -> Self {
        Self { exact_in_f16: true, ..self }
    }

    /// Tried by planners for these rows.
    #[must_use]
    pub const fn planned(self, rows: Rows) -> Self {
        Self { planned: Some(rows), ..self }
    }

    /// Chosen by ready types, which weigh it by this harm.
    #[must_use]
    pub const fn harm(self, harm: f64) -> Self {
        Self { harm: Some(harm), ..self }
    }

    /// With a stand-in for rows that are no whole blocks.
    #[must_use]
    pub const fn stand_in(self, format: &'static dyn BlockFormat) -> Self {
        Self { stand_in: Some(format), ..self }
    }
}
