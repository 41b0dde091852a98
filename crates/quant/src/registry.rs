//! The registry of all block formats.

use rwkv_forge_tensor::Encoding;

use crate::{
    ASYM, ASYM_8, BF16, BlockFormat, F16, F32, INT4_ROW, INT8_ROW, IQ1_M, IQ1_S, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS, IQ4_NL, IQ4_XS,
    Int8, MXFP4, NF4, NVFP4, Q1_0, Q2_0, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, RTN, SB6_4, SB6_5, SB6_6, SF4, SYM6,
    SYM8, TQ1_0, TQ2_0,
};

/// All formats, dense ones first, those that are only read last: a line each.
///
/// ```
/// use rwkv_forge_quant::FORMATS;
///
/// // What takes less than three bits a weight, and can be made here.
/// let few_bits = FORMATS.iter().filter(|format| format.bits() < 3.0 && format.facts().encodes);
/// assert_eq!(few_bits.map(|format| format.encoding().name).collect::<Vec<_>>(), ["q2_k"]);
/// ```
#[rustfmt::skip]
pub const FORMATS: &[&dyn BlockFormat] = &[
    &F32,
    &F16,
    &BF16,
    &Q8_0,
    &Q6_K,
    &Q5_K,
    &Q5_1,
    &Q5_0,
    &Q4_K,
    &Q4_1,
    &Q4_0,
    &IQ4_NL,
    &IQ4_XS,
    &MXFP4,
    &NVFP4,
    &Q3_K,
    &Q2_K,
    &Int8,
    &NF4,
    &SF4,
    &IQ3_S,
    &IQ3_XXS,
    &IQ2_S,
    &IQ2_XS,
    &Q2_0,
    &TQ2_0,
    &IQ2_XXS,
    &IQ1_M,
    &TQ1_0,
    &IQ1_S,
    &Q1_0,
    &SYM8,
    &SYM6,
    &SB6_6,
    &SB6_5,
    &SB6_4,
    &ASYM,
    &ASYM_8,
    &INT8_ROW,
    &INT4_ROW,
    &RTN,
];

/// The formats that values can be encoded to.
pub fn encodable() -> impl Iterator<Item = &'static dyn BlockFormat> {
    FORMATS.iter().copied().filter(|format| format.facts().encodes)
}

/// The format that users call `name` (`q8_0`, `bf16`; lower case).
#[must_use]
pub fn by_name(name: &str) -> Option<&'static dyn BlockFormat> {
    FORMATS.iter().copied().find(|format| format.encoding().name == name)
}

/// The format that stores `encoding`.
#[must_use]
pub fn by_encoding(encoding: Encoding) -> Option<&'static dyn BlockFormat> {
    FORMATS.iter().copied().find(|format| format.encoding() == encoding)
}

/// The format with this ggml/GGUF type number.
#[must_use]
pub fn by_ggml_type(number: u32) -> Option<&'static dyn BlockFormat> {
    FORMATS.iter().copied().find(|format| format.ggml_type() == Some(number))
}
