//! Weight matrices packed for the widest instructions of the CPU, and their products with activations.
//!
//! Start at [`Matrix::pack`] and [`Matrix::product`]; [`Activations`] are what matrices are multiplied with. Rows lie in panels of
//! 16 side by side, one SIMD lane a row, so that every row's sum runs over the columns in their order: all instruction sets give
//! the same bits, and one token gives the same bits alone or in a batch. Kernels are written once over
//! [`rwkv_forge_simd::Registers`].
//!
//! No files, no models, no threads but those that pack. Unsafe code is in `arena.rs`.
#![deny(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

mod activations;
#[allow(unsafe_code, reason = "gives out disjoint parts of shared mappings")]
mod arena;
mod band;
#[cfg(test)]
mod column_tests;
mod error;
mod float;
mod format;
mod integer;
mod matrix;
mod registry;
#[cfg(test)]
mod tests;

pub use activations::{Activations, Arithmetic, Part};
pub use band::{Band, Columns};
pub use error::MatrixError;
pub use format::PANEL;
pub use matrix::{Matrix, ReadRows};
pub use rwkv_forge_simd::{Isa, Pass, SimdError};
