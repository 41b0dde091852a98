//! Run-time choice of the instruction set. The only module with `unsafe`.
//!
//! A [`Pass`] is a whole loop in plain Rust. [`Level::run`] compiles it once for the baseline and once for AVX2; both do the
//! same operations in the same order, so results are equal bit for bit. `fma` is never enabled.

/// A loop over data that can be compiled for several instruction sets.
pub(crate) trait Pass {
    /// What the loop returns.
    type Output;
    /// Runs the loop. Implementations are `#[inline(always)]`, or else they keep the baseline instruction set.
    fn run(self) -> Self::Output;
}

/// Proof that this CPU has AVX2: only [`Avx2::detect`] makes one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx2 {
    #[cfg(target_arch = "x86_64")]
    fn detect() -> Option<Self> {
        std::arch::is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn detect() -> Option<Self> {
        None
    }

    #[cfg(target_arch = "x86_64")]
    fn run<P: Pass>(self, pass: P) -> P::Output {
        // SAFETY: `self` exists, so `detect` saw AVX2 on this CPU, the only requirement of `run_avx2`.
        unsafe { run_avx2(pass) }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn run<P: Pass>(self, pass: P) -> P::Output {
        pass.run()
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn run_avx2<P: Pass>(pass: P) -> P::Output {
    pass.run()
}

/// An instruction set that this CPU has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Level {
    /// What the compiler may assume on every CPU of this architecture.
    Baseline,
    /// AVX2.
    Avx2(Avx2),
}

impl Level {
    /// The widest level of this CPU.
    pub(crate) fn best() -> Self {
        Avx2::detect().map_or(Self::Baseline, Self::Avx2)
    }

    /// Runs a loop compiled for this level.
    pub(crate) fn run<P: Pass>(self, pass: P) -> P::Output {
        match self {
            Self::Baseline => pass.run(),
            Self::Avx2(token) => token.run(pass),
        }
    }
}
