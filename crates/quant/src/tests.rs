//! Every format on every instruction set: the same bytes, the same values.

use std::collections::BTreeSet;
use std::marker::PhantomData;

use rwkv_forge_simd::{Isa, Lanes};

use crate::block::{self, Block, Flushed, Job};
use crate::dense::{self, Half};
use crate::searched::{SearchPass, Searched};
use crate::{BF16, EncodeError, F16, IQ4_NL, IQ4_XS, Int8, MXFP4, NF4, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, SF4};

fn scalar() -> Isa {
    Isa::all()[0]
}

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
        let (scale, offset) = (2f32.powi(-10 - run % 13), uniform());
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
                4 => offset,
                5 => (normal * 8.0).round() / 8.0,
                6 => normal.abs() * if run % 2 == 0 { 1.0 } else { -1.0 } + offset,
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
        let one = block::encode_at::<B>(scalar(), values, None, &mut first);
        // Any bytes must decode alike, NaN scales included.
        let stored: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).take(bytes).collect();
        let mut decoded = vec![1.0; values.len()];
        block::decode_at::<B>(scalar(), &stored, &mut decoded);
        for isa in Isa::all() {
            let mut second = vec![0; bytes];
            assert_eq!(block::encode_at::<B>(isa, values, None, &mut second), one, "{} {isa}", B::ENCODING);
            assert!(one.is_err() || first == second, "{} {isa}", B::ENCODING);
            let mut again = vec![2.0; values.len()];
            block::decode_at::<B>(isa, &stored, &mut again);
            let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
            assert!(decoded.iter().zip(&again).all(same), "{} {isa}", B::ENCODING);
        }
    }
}

/// A way to run a search.
type Run<'a, B> = (String, &'a dyn Fn(SearchPass<'_, B>) -> Result<Flushed, usize>);

fn pass<'a, B: Searched>(values: &'a [f32], importance: Option<&'a [f32]>, out: &'a mut [u8]) -> SearchPass<'a, B> {
    SearchPass(Job { isa: scalar(), values, importance, out }, PhantomData)
}

/// The ways whose bytes or results differ from those of one lane, where no two blocks meet in a register; with importance and, if
/// `plain`, without.
fn differing_searches<B: Searched>(plain: bool, ways: &[Run<B>]) -> BTreeSet<String> {
    let (length, size) = (B::ENCODING.block_len as usize, B::ENCODING.block_bytes as usize);
    let importance: Vec<f32> = weights().iter().map(|weight| weight * weight).take(512).collect();
    let mut differing = BTreeSet::new();
    for values in [inputs(), weights()] {
        for row in values.chunks_exact(512) {
            for importance in [plain.then_some(None), Some(Some(importance.as_slice()))].into_iter().flatten() {
                let mut narrow = vec![0; row.len() / length * size];
                let one = pass::<B>(row, importance, &mut narrow).search::<[f32; 1]>();
                for (name, run) in ways {
                    let mut wide = vec![0; narrow.len()];
                    if run(pass(row, importance, &mut wide)) != one || one.is_ok() && wide != narrow {
                        differing.insert(name.clone());
                    }
                }
            }
        }
    }
    differing
}

fn same_searches<B: Searched>(plain: bool) {
    let sets: Vec<_> = Isa::all().into_iter().map(|isa| (isa, move |pass: SearchPass<'_, B>| isa.run_lanes(pass))).collect();
    let ways: Vec<Run<B>> = sets.iter().map(|(isa, run)| (isa.to_string(), run as _)).collect();
    assert_eq!(differing_searches(plain, &ways), BTreeSet::new(), "{}", B::ENCODING);
}

fn same_halves<H: Half>() {
    let values = inputs();
    for length in (0..70).chain([4095, 4096, 4097, values.len()]) {
        for start in [0, 1, 7 * 32] {
            let values = &values[start..values.len().min(start + length)];
            let (mut a, mut b) = (vec![0; 2 * values.len()], vec![0; 2 * values.len()]);
            let one = dense::encode_at::<H>(scalar(), values, &mut a);
            assert!(!matches!(one, Err(EncodeError::Length { .. })));
            for isa in Isa::all() {
                assert_eq!(dense::encode_at::<H>(isa, values, &mut b), one, "{isa}");
                assert!(one.is_err() || a == b, "{isa}");
            }
            let bytes: Vec<u8> = values.iter().flat_map(|value| [value.to_le_bytes()[0], value.to_le_bytes()[3]]).collect();
            let (mut a, mut b) = (vec![1.0; values.len()], vec![2.0; values.len()]);
            dense::decode_at::<H>(scalar(), &bytes, &mut a);
            for isa in Isa::all() {
                dense::decode_at::<H>(isa, &bytes, &mut b);
                assert!(a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits()), "{isa}");
            }
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

/// Eight lanes that divide as fast code is tempted to: by the product with the reciprocal, which rounds twice.
#[derive(Clone, Copy)]
struct Reciprocal([f32; 8]);

/// Declares the operations that are those of arrays.
macro_rules! as_arrays {
    ($($name:ident($($arg:ident),*);)*) => {
        $(
            #[inline(always)]
            fn $name(self $(, $arg: Self)*) -> Self {
                Self(self.0.$name($($arg.0),*))
            }
        )*
    };
}

impl Lanes for Reciprocal {
    const COUNT: usize = 8;
    type Mask = [bool; 8];

    as_arrays! {
        add(other);
        sub(other);
        mul(other);
        mul_add(factor, summand);
        sqrt();
        abs();
        min(other);
        max(other);
        nearest();
    }

    fn div(self, other: Self) -> Self {
        self.mul(Self([1.0; 8].div(other.0)))
    }

    fn splat(value: f32) -> Self {
        Self([value; 8])
    }

    fn load(from: &[f32]) -> Self {
        Self(Lanes::load(from))
    }

    fn store(self, to: &mut [f32]) {
        self.0.store(to);
    }

    fn less(self, other: Self) -> [bool; 8] {
        self.0.less(other.0)
    }

    fn unequal(self, other: Self) -> [bool; 8] {
        self.0.unequal(other.0)
    }

    fn both(one: [bool; 8], other: [bool; 8]) -> [bool; 8] {
        <[f32; 8]>::both(one, other)
    }

    fn any(mask: [bool; 8]) -> bool {
        <[f32; 8]>::any(mask)
    }

    fn all(mask: [bool; 8]) -> bool {
        <[f32; 8]>::all(mask)
    }

    fn select(mask: [bool; 8], yes: Self, no: Self) -> Self {
        Self(Lanes::select(mask, yes.0, no.0))
    }

    fn look_up(self, table: &[f32; 32]) -> Self {
        Self(self.0.look_up(table))
    }
}

/// That the comparison of searches can fail.
#[test]
fn a_division_that_rounds_twice_is_found() {
    fn found<B: Searched>() -> bool {
        let way: Run<B> = ("reciprocal".to_owned(), &|pass: SearchPass<'_, B>| pass.search::<Reciprocal>());
        !differing_searches(true, &[way]).is_empty()
    }
    assert!(found::<Q2_K>() && found::<Q4_K>() && found::<Q6_K>() && found::<IQ4_NL>());
}
