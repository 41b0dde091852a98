//! Loops written once and compiled for every instruction set of a CPU, with the same bits from all of them.
//!
//! An [`Isa`] is an instruction set that this CPU has. A loop over data is a struct that holds the data and implements [`Pass`] (plain Rust,
//! vectorized by the compiler) or [`LanePass`] (over registers); [`Isa::run`] and [`Isa::run_lanes`] run the copy that was compiled for
//! the set. No formats, no models, no threads.
//!
//! # How a loop is written
//!
//! A [`LanePass`] gets a type parameter, [`Registers`], and never learns which set it is. `R::F` are 16 f32 side by side; they and other
//! groups of f32 implement [`Lanes`], which is all that most algorithms need to know:
//!
//! ```
//! use rwkv_forge_simd::{Isa, LanePass, Lanes, Registers};
//!
//! /// Adds a multiple of `x` to `y`.
//! struct AddScaled<'a> {
//!     factor: f32,
//!     x: &'a [f32],
//!     y: &'a mut [f32],
//! }
//!
//! impl LanePass for AddScaled<'_> {
//!     type Output = ();
//!     // Nothing here multiplies bytes: one copy serves CPUs with byte products and without.
//!     const BYTE_PRODUCTS: bool = false;
//!
//!     #[inline(always)]
//!     fn run<R: Registers>(self) {
//!         let (x, x_rest) = self.x.as_chunks::<16>();
//!         let (y, y_rest) = self.y.as_chunks_mut::<16>();
//!         let factor = R::F::splat(self.factor);
//!         for (x, y) in x.iter().zip(y) {
//!             factor.mul_add(R::F::load(x), R::F::load(y)).store(y);
//!         }
//!         // What fills no register: the same operation, one by one.
//!         for (x, y) in x_rest.iter().zip(y_rest) {
//!             *y = self.factor.mul_add(*x, *y);
//!         }
//!     }
//! }
//!
//! let x: Vec<f32> = (0..100u8).map(|i| f32::from(i) / 7.0).collect();
//! let mut results = Vec::new();
//! for isa in Isa::all() {
//!     let mut y = vec![0.1; x.len()];
//!     isa.run_lanes(AddScaled { factor: 0.3, x: &x, y: &mut y });
//!     results.push(y.iter().map(|y| y.to_bits()).collect::<Vec<_>>());
//! }
//! assert!(results.iter().all(|bits| *bits == results[0]));
//! ```
//!
//! # How a pass is dispatched
//!
//! `run_lanes` matches on the set and calls a function that has its instructions enabled (`#[target_feature]`), which calls the pass
//! with that set's registers. Everything that the pass calls on lanes must be `#[inline(always)]`, so that it is compiled inside that
//! function: on its own it would get the baseline's instructions, be correct, and slow. Closures count as functions. One dispatch should do
//! much work: rows, not elements.
//!
//! # Why every set gives the same bits
//!
//! - Each operation of [`Lanes`] and [`Registers`] is one IEEE operation, or exact integer arithmetic, in each lane. [`Scalar`] says in
//!   plain Rust which; the tests compare every operation of every set with it.
//! - No operation crosses lanes, so that no sum changes its order with the width of a register. A lane is a row, a sub-block, a column:
//!   something with a sum of its own. Where one long sum is wanted, sum in a fixed number of lanes and add those up in a fixed order.
//! - The compiler neither fuses nor reorders what the source keeps apart; a fused multiply-add is written as one ([`Lanes::mul_add`],
//!   [`f32::mul_add`]) and is one everywhere.
//! - Where algorithms take a group of [`Lanes`] of any width ([`Registers::Throughput`], [`Registers::Latency`]), lanes do not know of each
//!   other, so the width decides nothing but speed.
//!
//! What is not the same: which NaN an operation makes. Results must not depend on its payload.
//!
//! # Where the unsafe code is
//!
//! In three kinds of places, and code outside this crate needs none:
//! - `isa.rs` calls functions that require CPU features. An [`Isa`] above `scalar` can only be made by detection, which saw those features.
//! - The register types (`avx2.rs`, `avx512.rs`, `neon.rs`, and the macro of `register.rs` that writes out what they have in common) call
//!   intrinsics. The types are private: nobody can name them, and they exist only as the type parameter that `isa.rs` passes to a
//!   [`LanePass`] after detection. Their values can only be made by their operations. So where an operation runs, its instructions exist.
//! - The same types load and store. They take arrays of exactly the bytes, or check the length of a slice, and no instruction used needs
//!   alignment.
#![deny(unsafe_code)]

mod array;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "operations on registers of CPU features that `isa` has detected")]
mod avx2;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "operations on registers of CPU features that `isa` has detected")]
mod avx512;
mod error;
#[allow(unsafe_code, reason = "calls functions compiled for CPU features that were detected first")]
mod isa;
mod lanes;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
#[allow(unsafe_code, reason = "operations on registers of CPU features that `isa` has detected")]
mod neon;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod pair;
mod pass;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod register;
mod registers;
mod scalar;

pub use error::SimdError;
pub use isa::Isa;
pub use lanes::{Lanes, ROUND, nearest};
pub use pass::Pass;
pub use registers::{LanePass, Registers};
pub use scalar::Scalar;
