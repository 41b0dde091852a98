//! Run-time choice of the instruction set, in one binary.
//!
//! [`Isa::run`] compiles a plain loop for each set, [`Isa::run_lanes`] one over [`Registers`](crate::Registers). The compiler
//! neither fuses nor reorders floating-point operations that the source keeps apart, so results are equal bit for bit.

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
use crate::neon;
use crate::{LanePass, Pass, Scalar, SimdError};
#[cfg(target_arch = "x86_64")]
use crate::{avx2, avx512};

/// An instruction set that this CPU has: only detection makes one.
///
/// ```
/// use rwkv_forge_simd::{Isa, Pass};
///
/// /// The largest value.
/// struct Largest<'a>(&'a [f32]);
///
/// impl Pass for Largest<'_> {
///     type Output = f32;
///
///     #[inline(always)]
///     fn run(self) -> f32 {
///         self.0.iter().copied().fold(f32::NEG_INFINITY, f32::max)
///     }
/// }
///
/// assert_eq!(Isa::best().run(Largest(&[1.0, 3.0, 2.0])), 3.0);
/// assert_eq!(Isa::by_name("scalar")?.run(Largest(&[])), f32::NEG_INFINITY);
/// # Ok::<(), rwkv_forge_simd::SimdError>(())
/// ```
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

    /// The set with the given [`Isa::name`], in letters of either case.
    ///
    /// # Errors
    /// [`SimdError::UnknownIsa`] when there is no such set or this CPU lacks it; the message lists those it has.
    pub fn by_name(name: &str) -> Result<Self, SimdError> {
        detected().find(|isa| isa.name().eq_ignore_ascii_case(name)).ok_or_else(|| SimdError::UnknownIsa {
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
            // SAFETY: these kinds exist only where `detected` saw every feature that the function requires.
            Kind::Avx512 | Kind::Avx512Vnni if P::WIDE => unsafe { avx512::run_plain(pass) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: these kinds exist only where `detected` saw AVX2, FMA and F16C on this CPU, all that the function requires.
            Kind::Avx2 | Kind::Avx2Vnni if P::WIDE => unsafe { avx2::run_plain(pass) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: these kinds exist only where `detected` saw AVX2 on this CPU, all that the function requires.
            Kind::Avx2 | Kind::Avx2Vnni | Kind::Avx512 | Kind::Avx512Vnni => unsafe { avx2::run_narrow(pass) },
            // The architecture's baseline has NEON with its fused multiply-add.
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Kind::Neon | Kind::NeonDotprod => pass.run(),
        }
    }

    /// Runs a loop over registers compiled for this set.
    pub fn run_lanes<P: LanePass>(self, pass: P) -> P::Output {
        match self.0 {
            Kind::Scalar => pass.run::<Scalar>(),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this kind exists only where `detected` saw every feature that the function requires.
            Kind::Avx2Vnni if P::BYTE_PRODUCTS => unsafe { avx2::run_vnni(pass) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: these kinds exist only where `detected` saw AVX2, FMA and F16C on this CPU, all that the function requires.
            Kind::Avx2 | Kind::Avx2Vnni => unsafe { avx2::run(pass) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this kind exists only where `detected` saw every feature that the function requires.
            Kind::Avx512Vnni if P::BYTE_PRODUCTS => unsafe { avx512::run_vnni(pass) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: these kinds exist only where `detected` saw every feature that the function requires.
            Kind::Avx512 | Kind::Avx512Vnni => unsafe { avx512::run(pass) },
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            // SAFETY: this kind exists only where `detected` saw the dot products, all that the function requires above the baseline.
            Kind::NeonDotprod if P::BYTE_PRODUCTS => unsafe { neon::run_dotprod(pass) },
            // NEON belongs to the baseline of the architecture.
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Kind::Neon | Kind::NeonDotprod => neon::run(pass),
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
