//! Run-time choice of the instruction set. The only module with `unsafe`, here and in its two register types.
//!
//! A [`Pass`] is a whole loop in plain Rust, a [`LanePass`] one over [`Lanes`]. [`Level`] compiles them for the baseline, for
//! AVX2 and, where lanes are concerned, for AVX-512; all do the same operations in the same order, so results are equal bit
//! for bit. AVX-512 implies `fma`, but the compiler never fuses operations that the source does not fuse.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use crate::lanes::Lanes;

/// A loop over data that can be compiled for several instruction sets.
pub(crate) trait Pass {
    /// What the loop returns.
    type Output;
    /// Runs the loop. Implementations are `#[inline(always)]`, or else they keep the baseline instruction set.
    fn run(self) -> Self::Output;
}

/// A loop over groups of lanes.
pub(crate) trait LanePass {
    /// What the loop returns.
    type Output;
    /// True when each step of a lane waits for the one before, so that more lanes at once are faster.
    const WAITS: bool;
    /// Runs the loop. Implementations are `#[inline(always)]`, with everything they call on lanes.
    fn run<S: Lanes>(self) -> Self::Output;
}

/// An instruction set that this CPU has: only [`Level::all`] makes the wider ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Level(Kind);

#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "there is only the baseline"))]
enum Kind {
    Baseline,
    Avx2,
    Avx512,
}

impl Level {
    /// What the compiler may assume on every CPU of this architecture.
    #[cfg(test)]
    pub(crate) const BASELINE: Self = Self(Kind::Baseline);

    /// The widest level of this CPU.
    pub(crate) fn best() -> Self {
        Self::all().last().unwrap_or(Self(Kind::Baseline))
    }

    /// All levels of this CPU, narrow to wide.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let avx2 = is_x86_feature_detected!("avx2");
        let wide = avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        let wide = wide && is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512dq");
        let levels = [(true, Kind::Baseline), (avx2, Kind::Avx2), (wide, Kind::Avx512)];
        levels.into_iter().filter(|(present, _)| *present).map(|(_, kind)| Self(kind))
    }

    /// All levels of this CPU, narrow to wide.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        std::iter::once(Self(Kind::Baseline))
    }

    /// Runs a loop compiled for this level. AVX-512 gains nothing here and runs the copy for AVX2.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn run<P: Pass>(self, pass: P) -> P::Output {
        match self.0 {
            Kind::Baseline => pass.run(),
            // SAFETY: a level above the baseline exists only where `all` saw AVX2 on this CPU, all that `run_avx2` requires.
            Kind::Avx2 | Kind::Avx512 => unsafe { run_avx2(pass) },
        }
    }

    /// Runs a loop compiled for this level.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn run<P: Pass>(self, pass: P) -> P::Output {
        pass.run()
    }

    /// Runs a loop over lanes compiled for this level.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn run_lanes<P: LanePass>(self, pass: P) -> P::Output {
        match self.0 {
            Kind::Baseline => pass.run::<[f32; 8]>(),
            // SAFETY: this level exists only where `all` saw AVX2 on this CPU, all that the function requires.
            Kind::Avx2 => unsafe { avx2::run(pass) },
            // SAFETY: this level exists only where `all` saw every feature that the function requires.
            Kind::Avx512 => unsafe { avx512::run(pass) },
        }
    }

    /// Runs a loop over lanes compiled for this level.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn run_lanes<P: LanePass>(self, pass: P) -> P::Output {
        pass.run::<[f32; 8]>()
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn run_avx2<P: Pass>(pass: P) -> P::Output {
    pass.run()
}

#[cfg(test)]
mod tests {
    use std::marker::PhantomData;

    use super::{LanePass, Level};
    use crate::block::{self, Block, Job};
    use crate::dense::{self, Half};
    use crate::searched::{SearchPass, Searched};
    use crate::{
        BF16, EncodeError, F16, IQ4_NL, IQ4_XS, Int8, MXFP4, NF4, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, SF4,
    };

    /// A generator of 32-bit numbers.
    fn draws() -> impl FnMut() -> u32 {
        let mut state = 7u64;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u32::try_from(state >> 32).unwrap()
        }
    }

    /// All kinds of bit patterns in runs of 32 of one scale: random mantissas, then zeros, subnormals, extremes, NaN and infinity.
    fn inputs() -> Vec<f32> {
        let mut draw = draws();
        let special = [0, 1, 0x007f_ffff, 0x3f80_0000, 0x477f_e000, 0x477f_f000, 0x7f7f_ffff, 0x7f80_0000, 0x7fc0_0000, 0x7f80_0001];
        let mut values = Vec::new();
        for block in 0..4000u32 {
            let exponent = block % 255;
            for _ in 0..32 {
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

    /// Values as weights have them, and worse: normal, heavy tails, outliers, zeros, constants, scales from part to part.
    fn weights() -> Vec<f32> {
        let mut draw = draws();
        let mut uniform = move || draw() as f32 / 2f32.powi(31) - 1.0;
        let mut values = Vec::new();
        for run in 0..3000 {
            let (scale, level) = (2f32.powi(-10 - run % 13), uniform());
            for _ in 0..16 {
                let normal = uniform() + uniform() + uniform();
                values.push(match run / 16 % 8 {
                    0 => normal * 0.02,
                    1 => normal.powi(9),
                    2 => {
                        if uniform() > 0.97 {
                            normal * 50.0
                        } else {
                            normal * 0.1
                        }
                    }
                    3 => {
                        if uniform() > -0.9 {
                            0.0
                        } else {
                            normal
                        }
                    }
                    4 => level,
                    5 => (normal * 8.0).round() / 8.0,
                    6 => normal.abs() * if run % 2 == 0 { 1.0 } else { -1.0 } + level,
                    _ => normal * scale,
                });
            }
        }
        values
    }

    fn same_blocks<B: Block>() {
        let (length, size) = (B::ENCODING.block_len as usize, B::ENCODING.block_bytes as usize);
        for values in inputs().chunks(length * 5).chain(weights().chunks(length * 131)) {
            let values = &values[..values.len() / length * length];
            let bytes = values.len() / length * size;
            let mut first = vec![0; bytes];
            let one = block::encode_at::<B>(Level::BASELINE, values, None, &mut first);
            // Any bytes must decode alike, NaN scales included.
            let stored: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).take(bytes).collect();
            let mut decoded = vec![1.0; values.len()];
            block::decode_at::<B>(Level::BASELINE, &stored, &mut decoded);
            for level in Level::all() {
                let mut second = vec![0; bytes];
                assert_eq!(block::encode_at::<B>(level, values, None, &mut second), one, "{} {level:?}", B::ENCODING);
                assert!(one.is_err() || first == second, "{} {level:?}", B::ENCODING);
                let mut again = vec![2.0; values.len()];
                block::decode_at::<B>(level, &stored, &mut again);
                let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                assert!(decoded.iter().zip(&again).all(same), "{} {level:?}", B::ENCODING);
            }
        }
    }

    /// Every level against one lane, block by block, so that no two blocks meet in a register.
    fn same_searches<B: Searched>(plain: bool) {
        let (length, size) = (B::ENCODING.block_len as usize, B::ENCODING.block_bytes as usize);
        let importance: Vec<f32> = weights().iter().map(|weight| weight * weight).take(512).collect();
        for values in [inputs(), weights()] {
            for row in values.chunks_exact(512) {
                for importance in [plain.then_some(None), Some(Some(importance.as_slice()))].into_iter().flatten() {
                    let mut scalar = vec![0; row.len() / length * size];
                    let job = Job { level: Level::BASELINE, values: row, importance, out: &mut scalar };
                    let one = SearchPass::<B>(job, PhantomData).run::<[f32; 1]>();
                    for level in Level::all() {
                        let mut wide = vec![0; scalar.len()];
                        let job = Job { level, values: row, importance, out: &mut wide };
                        assert_eq!(level.run_lanes(SearchPass::<B>(job, PhantomData)), one, "{} {level:?}", B::ENCODING);
                        assert!(one.is_err() || wide == scalar, "{} {level:?}", B::ENCODING);
                    }
                }
            }
        }
    }

    fn same_halves<H: Half>() {
        let values = inputs();
        for length in (0..70).chain([4095, 4096, 4097, values.len()]) {
            for start in [0, 1, 7 * 32] {
                let values = &values[start..values.len().min(start + length)];
                let (mut a, mut b) = (vec![0; 2 * values.len()], vec![0; 2 * values.len()]);
                let one = dense::encode_at::<H>(Level::BASELINE, values, &mut a);
                let other = dense::encode_at::<H>(Level::best(), values, &mut b);
                assert_eq!(one, other);
                assert!(!matches!(one, Err(EncodeError::Length { .. })));
                assert!(one.is_err() || a == b);
                let bytes: Vec<u8> = values.iter().flat_map(|value| [value.to_le_bytes()[0], value.to_le_bytes()[3]]).collect();
                let (mut a, mut b) = (vec![1.0; values.len()], vec![2.0; values.len()]);
                dense::decode_at::<H>(Level::BASELINE, &bytes, &mut a);
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
        same_blocks::<Int8>();
        same_blocks::<NF4>();
        same_blocks::<SF4>();
        same_blocks::<MXFP4>();
        same_halves::<F16>();
        same_halves::<BF16>();
    }

    #[test]
    fn searches_agree_with_one_lane_bit_for_bit() {
        same_blocks::<Q6_K>();
        same_blocks::<Q3_K>();
        same_blocks::<IQ4_XS>();
        same_searches::<Q2_K>(true);
        same_searches::<Q3_K>(true);
        same_searches::<Q4_K>(true);
        same_searches::<Q5_K>(true);
        same_searches::<Q6_K>(true);
        same_searches::<IQ4_NL>(true);
        same_searches::<IQ4_XS>(true);
        same_searches::<Q4_0>(false);
        same_searches::<Q4_1>(false);
        same_searches::<Q5_0>(false);
        same_searches::<Q5_1>(false);
    }
}
