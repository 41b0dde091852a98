//! Block formats: how rows of f32 become stored bytes and come back. One file a format, one line in [`FORMATS`].
//!
//! Start at [`BlockFormat`]; formats whose blocks are encoded one by one implement the smaller trait in `block.rs` instead and
//! get [`BlockFormat`] from it. [`Int8Matrix`] is no block format: its scales belong to rows and columns. No file access except through [`rwkv_forge_tensor::TensorSource`], no model knowledge.
//!
//! Encoding follows ggml's reference formulas in f32, one rounding an operation, never fused multiply-add, so the bytes do
//! not depend on the machine. The inner loops are plain Rust or written over lanes; `rwkv_forge_simd` compiles
//! them for each instruction set.
#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

mod block;
mod book;
mod books;
mod chatrwkv_int8;
mod convert;
mod decode;
mod dense;
mod error;
mod facts;
mod finite;
mod float4;
mod format;
mod grid;
mod int8;
mod iq1_m;
mod iq1_s;
mod iq2_s;
mod iq2_xs;
mod iq2_xxs;
mod iq3_s;
mod iq3_xxs;
mod iq4;
mod iq4_nl;
mod iq4_xs;
mod lanes;
mod mxfp4;
mod nvfp4;
mod parts;
mod q1_0;
mod q2_0;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod registry;
mod rwkvq;
mod search;
mod searched;
mod six_bits;
mod super_block;
#[cfg(test)]
mod tests;
mod tq1_0;
mod tq2_0;

pub use chatrwkv_int8::Int8Matrix;
pub use decode::{DecodeError, decode_rows, read_rows};
pub use dense::{BF16, F16, F32};
pub use error::{EncodeError, EncodeStats};
pub use facts::{Facts, Family, Ggml, Rows};
pub use finite::{NonFinite, all_non_finite, check_values, examine, first_non_finite, non_finite};
pub use float4::{NF4, NF4_TABLE, SF4, SF4_TABLE};
pub use format::BlockFormat;
pub use grid::{Grid, Points, Scheme};
pub use int8::Int8;
pub use iq1_m::IQ1_M;
pub use iq1_s::IQ1_S;
pub use iq2_s::IQ2_S;
pub use iq2_xs::IQ2_XS;
pub use iq2_xxs::IQ2_XXS;
pub use iq3_s::IQ3_S;
pub use iq3_xxs::IQ3_XXS;
pub use iq4_nl::IQ4_NL;
pub use iq4_xs::IQ4_XS;
pub use mxfp4::MXFP4;
pub use nvfp4::NVFP4;
pub use parts::{MOST_CODES, Parted, Parts};
pub use q1_0::Q1_0;
pub use q2_0::Q2_0;
pub use q2_k::Q2_K;
pub use q3_k::Q3_K;
pub use q4_0::Q4_0;
pub use q4_1::Q4_1;
pub use q4_k::Q4_K;
pub use q5_0::Q5_0;
pub use q5_1::Q5_1;
pub use q5_k::Q5_K;
pub use q6_k::Q6_K;
pub use q8_0::Q8_0;
pub use registry::{FORMATS, by_encoding, by_ggml_type, by_name, encodable};
pub use rwkvq::{ASYM, ASYM_8, INT4_ROW, INT8_ROW, RTN, SB6_4, SB6_5, SB6_6, SYM6, SYM8};
pub use tq1_0::TQ1_0;
pub use tq2_0::TQ2_0;
