//! Run-time choice of the instruction set, in one binary.
//!
//! [`Isa::run`] compiles a plain loop for each set, [`Isa::run_lanes`] a kernel over [`Lanes`](crate::lanes::Lanes). The compiler
//! neither fuses nor reorders floating-point operations that the source keeps apart, so results are equal bit for bit.

use crate::error::MatrixError;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
use crate::lanes::neon;
use crate::lanes::{LanePass, scalar};
#[cfg(target_arch = "x86_64")]
use crate::lanes::{avx2, avx512};

/// A loop over data that can be compiled for several instruction sets.
///
/// Every set but `scalar` has a fused multiply-add, so that [`f32::mul_add`] is one instruction; in `scalar` it is a slow call with
/// the same result.
pub trait Pass {
    /// What the loop returns.
    type Output;
    /// Runs the loop. Implementations are `#[inline(always)]`, with everything they call, or else they keep the baseline's
    /// instructions.
    fn run(self) -> Self::Output;
}

/// An instruction set that this CPU has: only detection makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx2Vnni,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    Neon,
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    NeonDotprod,
}

impl Isa {
    /// The widest set of this CPU.
    #[must_use]
    pub fn best() -> Self {
        detected().last().unwrap_or(Self(Kind::Scalar))
    }

    /// All sets of this CPU, from `scalar` to the widest.
    #[must_use]
    pub fn all() -> Vec<Self> {
        detected().collect()
    }

    /// The set with the given [`Isa::name`].
    ///
    /// # Errors
    /// [`MatrixError::UnknownIsa`] when there is no such set or this CPU lacks it; the message lists those it has.
    pub fn by_name(name: &str) -> Result<Self, MatrixError> {
        detected().find(|isa| isa.name() == name).ok_or_else(|| MatrixError::UnknownIsa {
            name: name.to_owned(),
            known: detected().map(Self::name).collect::<Vec<_>>().join(", "),
        })
    }

    /// `scalar`, `avx2`, `avx2-vnni`, `avx512`, `avx512-vnni`, `neon` or `neon-dotprod`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2Vnni => "avx2-vnni",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => "avx512-vnni",
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Kind::Neon => "neon",
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Kind::NeonDotprod => "neon-dotprod",
        }
    }

    /// Runs a loop compiled for this set.
    pub fn run<P: Pass>(self, pass: P) -> P::Output {
        match self.0 {
            Kind::Scalar => pass.run(),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: these kinds exist only where `detected` saw AVX2, FMA and F16C on this CPU, all that the function requires.
            Kind::Avx2 | Kind::Avx2Vnni => unsafe { avx2::run_plain(pass) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: these kinds exist only where `detected` saw every feature that the function requires.
            Kind::Avx512 | Kind::Avx512Vnni => unsafe { avx512::run_plain(pass) },
            // The architecture's baseline has NEON with its fused multiply-add.
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Kind::Neon | Kind::NeonDotprod => pass.run(),
        }
    }

    /// Runs a kernel compiled for this set.
    pub(crate) fn run_lanes<P: LanePass>(self, pass: P) -> P::Output {
        match self.0 {
            Kind::Scalar => scalar::run(pass),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this kind exists only where `detected` saw every feature that the function requires.
            Kind::Avx2 => unsafe { avx2::run(pass) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this kind exists only where `detected` saw every feature that the function requires.
            Kind::Avx2Vnni => unsafe { avx2::run_vnni(pass) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this kind exists only where `detected` saw every feature that the function requires.
            Kind::Avx512 => unsafe { avx512::run(pass) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this kind exists only where `detected` saw every feature that the function requires.
            Kind::Avx512Vnni => unsafe { avx512::run_vnni(pass) },
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            // SAFETY: NEON belongs to the baseline of the architecture, and the function requires nothing else.
            Kind::Neon => unsafe { neon::run(pass) },
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            // SAFETY: this kind exists only where `detected` saw the dot products, all that the function requires above the baseline.
            Kind::NeonDotprod => unsafe { neon::run_dotprod(pass) },
        }
    }
}

impl std::fmt::Display for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// What this CPU has, narrow to wide.
#[cfg(target_arch = "x86_64")]
fn detected() -> impl Iterator<Item = Isa> {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
    let avx512 = avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
    let avx512 = avx512 && is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512dq");
    let kinds = [
        (true, Kind::Scalar),
        (avx2, Kind::Avx2),
        (avx2 && is_x86_feature_detected!("avxvnni"), Kind::Avx2Vnni),
        (avx512, Kind::Avx512),
        (avx512 && is_x86_feature_detected!("avx512vnni"), Kind::Avx512Vnni),
    ];
    kinds.into_iter().filter(|(present, _)| *present).map(|(_, kind)| Isa(kind))
}

/// What this CPU has, narrow to wide.
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
fn detected() -> impl Iterator<Item = Isa> {
    let dotprod = std::arch::is_aarch64_feature_detected!("dotprod");
    let kinds = [(true, Kind::Scalar), (true, Kind::Neon), (dotprod, Kind::NeonDotprod)];
    kinds.into_iter().filter(|(present, _)| *present).map(|(_, kind)| Isa(kind))
}

/// What this CPU has: without kernels of its own, what the compiler makes of plain loops.
#[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little"))))]
fn detected() -> impl Iterator<Item = Isa> {
    std::iter::once(Isa(Kind::Scalar))
}

#[cfg(test)]
mod tests {
    use super::{Isa, Pass};

    /// Sums of products in a form that an optimizer allowed to fuse, or to reorder, would change.
    struct Mixed<'a>(&'a [f32], &'a mut [f32]);

    impl Pass for Mixed<'_> {
        type Output = f32;

        #[inline(always)]
        fn run(self) -> f32 {
            let mut sums = [0f32; 16];
            for (i, (out, x)) in self.1.iter_mut().zip(self.0).enumerate() {
                let square = x * x + 1.000_1;
                *out = x.mul_add(square, -0.3) / (square * 3.3 - x);
                sums[i % 16] = out.mul_add(*x, sums[i % 16]);
            }
            sums.iter().sum()
        }
    }

    #[test]
    fn plain_loops_give_the_same_bits_on_every_set() {
        let values: Vec<f32> = (0..1000u16).map(|i| (f32::from(i) * 0.37).sin()).collect();
        let mut expected = vec![0.0; values.len()];
        let sum = Isa::by_name("scalar").unwrap().run(Mixed(&values, &mut expected));
        for isa in Isa::all() {
            let mut out = vec![0.0; values.len()];
            assert_eq!(isa.run(Mixed(&values, &mut out)).to_bits(), sum.to_bits(), "{isa}");
            assert_eq!(out, expected, "{isa}");
        }
        // The values tell a fused operation from two: otherwise the comparison above would show nothing.
        assert!(values.iter().any(|x| x.mul_add(*x, 1.000_1).to_bits() != (x * x + 1.000_1).to_bits()));
    }

    #[test]
    fn names_lead_back_and_unknown_ones_list_what_there_is() {
        let all = Isa::all();
        assert_eq!(all.first().map(|isa| isa.name()), Some("scalar"));
        assert_eq!(all.last(), Some(&Isa::best()));
        for isa in all {
            assert_eq!(Isa::by_name(isa.name()).unwrap(), isa);
        }
        let message = Isa::by_name("sse9").unwrap_err().to_string();
        assert!(message.contains("sse9") && message.contains("scalar"), "{message}");
    }
}
