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

#[cfg(test)]
mod tests {
    use super::Level;
    use crate::block::{self, Block};
    use crate::dense::{self, Half};
    use crate::{BF16, EncodeError, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

    /// All kinds of bit patterns in blocks of one scale: random mantissas, then zeros, subnormals, extremes, NaN and infinity.
    fn inputs() -> Vec<f32> {
        let mut state = 7u64;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u32::try_from(state >> 32).unwrap()
        };
        let special = [0, 1, 0x007f_ffff, 0x3f80_0000, 0x477f_e000, 0x477f_f000, 0x7f7f_ffff, 0x7f80_0000, 0x7fc0_0000, 0x7f80_0001];
        let mut values = Vec::new();
        for block in 0..4000u32 {
            let exponent = block % 255;
            for _ in 0..block::LEN {
                let bits = draw();
                let near = exponent.saturating_sub(bits >> 20 & 7);
                values.push(f32::from_bits(bits & 0x807f_ffff | near << 23));
            }
            if block % 3 == 0 {
                let place = values.len() - 1 - draw() as usize % 32;
                values[place] = f32::from_bits(special[draw() as usize % special.len()] | draw() & 0x8000_0000);
            }
        }
        values
    }

    fn same_blocks<B: Block>() {
        let size = B::ENCODING.block_bytes as usize;
        for values in inputs().chunks(block::LEN * 5) {
            let length = values.len() / block::LEN * size;
            let (mut a, mut b) = (vec![0; length], vec![0; length]);
            let one = block::encode_at::<B>(Level::Baseline, values, &mut a);
            let other = block::encode_at::<B>(Level::best(), values, &mut b);
            assert_eq!(one, other, "{}", B::ENCODING);
            if one.is_ok() {
                assert_eq!(a, b, "{}", B::ENCODING);
            }
            // Any bytes must decode alike, NaN scales included.
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).take(length).collect();
            let (mut a, mut b) = (vec![1.0; values.len()], vec![2.0; values.len()]);
            block::decode_at::<B>(Level::Baseline, &bytes, &mut a);
            block::decode_at::<B>(Level::best(), &bytes, &mut b);
            assert!(a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()), "{}", B::ENCODING);
        }
    }

    fn same_halves<H: Half>() {
        let values = inputs();
        for length in (0..70).chain([4095, 4096, 4097, values.len()]) {
            for start in [0, 1, 7 * 32] {
                let values = &values[start..values.len().min(start + length)];
                let (mut a, mut b) = (vec![0; 2 * values.len()], vec![0; 2 * values.len()]);
                let one = dense::encode_at::<H>(Level::Baseline, values, &mut a);
                let other = dense::encode_at::<H>(Level::best(), values, &mut b);
                assert_eq!(one, other);
                assert!(!matches!(one, Err(EncodeError::Length { .. })));
                assert!(one.is_err() || a == b);
                let bytes: Vec<u8> = values.iter().flat_map(|value| [value.to_le_bytes()[0], value.to_le_bytes()[3]]).collect();
                let (mut a, mut b) = (vec![1.0; values.len()], vec![2.0; values.len()]);
                dense::decode_at::<H>(Level::Baseline, &bytes, &mut a);
                dense::decode_at::<H>(Level::best(), &bytes, &mut b);
                assert!(a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()));
            }
        }
    }

    #[test]
    fn instruction_sets_agree_bit_for_bit() {
        same_blocks::<Q8_0>();
        same_blocks::<Q5_1>();
        same_blocks::<Q5_0>();
        same_blocks::<Q4_1>();
        same_blocks::<Q4_0>();
        same_halves::<F16>();
        same_halves::<BF16>();
    }
}
