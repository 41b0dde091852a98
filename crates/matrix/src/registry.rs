//! The packed formats that there are.

use rwkv_forge_tensor::Encoding;

use crate::band::ByColumns;
use crate::float;
use crate::format::Format;
use crate::integer;

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

/// Those that lie by columns too. In the others eight columns share a line, and the sums of blocks wait for their scales.
static BY_COLUMNS: &[&dyn ByColumns] = &[
    &float::F32,
    &float::F16,
    &float::BF16,
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

/// The format by columns for rows of so many columns, if there is one.
pub(crate) fn find_by_columns(encoding: Encoding, columns: usize) -> Option<&'static dyn ByColumns> {
    let format = BY_COLUMNS.iter().copied().find(|format| format.encoding() == encoding)?;
    columns.is_multiple_of(encoding.block_len as usize).then_some(format)
}
