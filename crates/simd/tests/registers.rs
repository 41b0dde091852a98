//! Every operation of every instruction set against the scalar one, on random and extreme inputs.
#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "test numbers are small; tests may fail loudly")]

use rwkv_forge_simd::{Isa, LanePass, Lanes, Registers, Scalar};

/// A generator of 32-bit numbers.
pub(crate) fn draws(seed: u64) -> impl FnMut() -> u32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(state >> 32).unwrap()
    }
}

/// The inputs of one round.
pub(crate) struct Round {
    floats: [[f32; 16]; 3],
    bytes: [[u8; 64]; 2],
    x: i32,
}

impl Round {
    pub(crate) fn new(draw: &mut impl FnMut() -> u32) -> Self {
        let extreme = [0u8, 1, 15, 16, 126, 127, 128, 129, 254, 255];
        let special = [0, 1, 0x007f_ffff, 0x0080_0000, 0x3f80_0000, 0x7f7f_ffff, 0x7f80_0000, 0x7fc0_0000];
        let kind = draw() % 4;
        let mut byte = || {
            let bits = draw();
            if kind == 0 || bits.is_multiple_of(5) { extreme[(bits >> 8) as usize % 10] } else { bits.to_le_bytes()[3] }
        };
        let bytes = [std::array::from_fn(|_| byte()), std::array::from_fn(|_| byte())];
        let x = [byte(), byte(), byte(), byte()].map(|byte| if byte == 128 { 129 } else { byte });
        let mut float = || {
            let bits = draw();
            let pick = special[(bits >> 3) as usize % special.len()] | bits & 0x8000_0000;
            // Exponents near 1, so that sums and products of three of them round rather than overflow.
            let near = bits & 0x807f_ffff | (120 + (bits >> 24 & 15)) << 23;
            f32::from_bits(if bits & 7 == 0 { pick } else { near })
        };
        let mut row = || std::array::from_fn(|_| float());
        Self { floats: [row(), row(), row()], bytes, x: i32::from_le_bytes(x) }
    }
}

/// Names of operations and their results as bits.
pub(crate) type Results = Vec<(&'static str, [u32; 16])>;

/// All operations on the inputs of one round.
pub(crate) struct Every<'a>(pub(crate) &'a Round);

#[inline(always)]
fn bits<R: Registers>(value: R::F) -> [u32; 16] {
    let mut out = [0.0; 16];
    R::F::store(value, &mut out);
    // Which NaN an operation makes is not specified.
    out.map(|number| if number.is_nan() { 0x7fc0_0000 } else { number.to_bits() })
}

/// Integers as two exact halves, since there is no operation that writes them.
#[inline(always)]
fn push<R: Registers>(results: &mut Results, name: &'static str, value: R::I) {
    results.push((name, bits::<R>(R::to_f32(R::and_i32(value, R::splat_i32(0xffff))))));
    results.push((name, bits::<R>(R::to_f32(R::shr_i32::<16>(value)))));
}

#[inline(always)]
fn push_bytes<R: Registers>(results: &mut Results, name: &'static str, value: R::B) {
    for column in [R::column::<0>(value), R::column::<1>(value), R::column::<2>(value), R::column::<3>(value)] {
        results.push((name, bits::<R>(R::to_f32(column))));
    }
}

impl LanePass for Every<'_> {
    type Output = Results;
    const BYTE_PRODUCTS: bool = true;

    #[inline(always)]
    fn run<R: Registers>(self) -> Results {
        let Round { floats, bytes, x } = self.0;
        let mut out = Results::new();
        let [a, b, c] = [R::F::load(&floats[0]), R::F::load(&floats[1]), R::F::load(&floats[2])];
        for (name, value) in [
            ("load", a),
            ("splat", R::F::splat(floats[0][3])),
            ("add", R::F::add(a, b)),
            ("mul", R::F::mul(a, b)),
            ("mul_add", R::F::mul_add(a, b, c)),
            ("load_f32", R::load_f32(&bytes[0])),
            ("load_f16", R::load_f16(bytes[0].first_chunk().unwrap())),
            ("load_bf16", R::load_bf16(bytes[0].last_chunk().unwrap())),
            ("entry", R::entry(R::table(&floats[0]), R::load_i32(&bytes[0]))),
            ("to_f32", R::to_f32(R::load_i32(&bytes[1]))),
        ] {
            out.push((name, bits::<R>(value)));
        }
        let [i, j] = [R::load_i32(&bytes[0]), R::load_i32(&bytes[1])];
        for (name, value) in [
            ("splat_i32", R::splat_i32(*x)),
            ("load_i32", i),
            ("load_u8", R::load_u8(bytes[0].first_chunk().unwrap())),
            ("load_i8", R::load_i8(bytes[0].last_chunk().unwrap())),
            ("sub_i32", R::sub_i32(i, j)),
            ("and_i32", R::and_i32(i, j)),
            ("shr_i32", R::shr_i32::<0>(i)),
            ("shr_i32", R::shr_i32::<5>(i)),
            ("shr_i32", R::shr_i32::<31>(i)),
        ] {
            push::<R>(&mut out, name, value);
        }
        let [p, q] = [R::load_bytes(&bytes[0]), R::load_bytes(&bytes[1])];
        let low = R::and(q, R::splat_u8(15));
        for (name, value) in [
            ("load_bytes", p),
            ("splat_u8", R::splat_u8(bytes[0][9])),
            ("and", R::and(p, q)),
            ("or", R::or(p, q)),
            ("shr", R::shr::<0>(p)),
            ("shr", R::shr::<4>(p)),
            ("shr", R::shr::<7>(p)),
            ("shl", R::shl::<0>(p)),
            ("shl", R::shl::<3>(p)),
            ("shl", R::shl::<7>(p)),
            ("four_times", R::four_times(bytes[0].first_chunk().unwrap())),
            ("look_up", R::look_up(R::four_times(bytes[0].first_chunk().unwrap()), low)),
        ] {
            push_bytes::<R>(&mut out, name, value);
        }
        for quads in R::interleave([p, q, low, R::or(p, q)]) {
            push_bytes::<R>(&mut out, "interleave", quads);
        }
        let shift = -R::SHIFT * x.to_le_bytes().map(|byte| i32::from(byte.cast_signed())).iter().sum::<i32>();
        push::<R>(&mut out, "dot_u7", R::dot_u7(j, R::and(p, R::splat_u8(127)), *x));
        push::<R>(&mut out, "dot_u8", R::sub_i32(R::dot_u8(j, p, *x), R::splat_i32(shift)));
        R::prefetch(&bytes[0], 1 << 40);
        out
    }
}

/// Names of the operations whose results differ.
pub(crate) fn differing(results: &Results, expected: &Results) -> Vec<&'static str> {
    assert_eq!(results.len(), expected.len());
    results.iter().zip(expected).filter(|(result, expected)| result != expected).map(|((name, _), _)| *name).collect()
}

#[test]
fn every_operation_does_what_the_scalar_one_does() {
    let mut draw = draws(11);
    for _ in 0..3000 {
        let round = Round::new(&mut draw);
        let expected = Every(&round).run::<Scalar>();
        for isa in Isa::all() {
            let differing = differing(&isa.run_lanes(Every(&round)), &expected);
            assert!(differing.is_empty(), "{isa}: {differing:?} of {:x?} {:x?} {:x}", round.bytes, round.floats, round.x);
        }
    }
}

#[test]
fn scalar_operations_do_what_their_names_say() {
    let bytes = std::array::from_fn(|i| u8::try_from(255 - 3 * i).unwrap());
    let floats: [[f32; 16]; 3] = std::array::from_fn(|part| std::array::from_fn(|row| (part * 16 + row) as f32 - 20.5));
    let round = Round { floats, bytes: [bytes, [200; 64]], x: i32::from_le_bytes([1, 255, 127, 129]) };
    let results = Every(&round).run::<Scalar>();
    let float = |name| results.iter().find(|(found, _)| *found == name).map(|(_, bits)| f32::from_bits(bits[2])).unwrap();
    let integer = |name| {
        let halves: Vec<i64> =
            results.iter().filter(|(found, _)| *found == name).map(|(_, bits)| f32::from_bits(bits[2]) as i64).take(2).collect();
        halves[0] | halves[1] << 16
    };
    // Row 2 has the numbers -18.5, -2.5 and 13.5, and the codes 231, 228, 225 and 222, beside 200 four times.
    assert_eq!((float("add"), float("mul"), float("mul_add")), (-21.0, 46.25, 59.75));
    assert_eq!(float("entry"), floats[0][231 % 16]);
    assert_eq!(float("load_bf16"), f32::from_bits(u32::from_le_bytes([0, 0, bytes[36], bytes[37]])));
    let start = i64::from(u32::from_le_bytes([200; 4]));
    let dot = |mask: i64| (231 & mask) - (228 & mask) + 127 * (225 & mask) - 127 * (222 & mask);
    assert_eq!(integer("dot_u8"), start + dot(255));
    assert_eq!(integer("dot_u7"), start + dot(127));
    assert_eq!(integer("sub_i32"), i64::from(u32::from_le_bytes([231, 228, 225, 222])).wrapping_sub(start) & 0xffff_ffff);
}

/// The same, from the copy for sets that lack byte products.
struct Undeclared<'a>(&'a Round);

impl LanePass for Undeclared<'_> {
    type Output = Results;
    const BYTE_PRODUCTS: bool = false;

    #[inline(always)]
    fn run<R: Registers>(self) -> Results {
        Every(self.0).run::<R>()
    }
}

#[test]
fn what_a_pass_says_of_byte_products_changes_no_result() {
    let mut draw = draws(12);
    for _ in 0..300 {
        let round = Round::new(&mut draw);
        for isa in Isa::all() {
            assert_eq!(isa.run_lanes(Undeclared(&round)), isa.run_lanes(Every(&round)), "{isa}");
        }
    }
}

/// Sixteen floats from sixteen 16-bit patterns.
struct Widen<'a>(&'a [u8; 32]);

impl LanePass for Widen<'_> {
    type Output = [[u32; 16]; 2];
    const BYTE_PRODUCTS: bool = false;

    #[inline(always)]
    fn run<R: Registers>(self) -> [[u32; 16]; 2] {
        [bits::<R>(R::load_f16(self.0)), bits::<R>(R::load_bf16(self.0))]
    }
}

#[test]
fn all_16_bit_floats_widen_exactly() {
    for isa in Isa::all() {
        for start in (0..=u16::MAX).step_by(16) {
            let bytes: [u8; 32] = std::array::from_fn(|i| (start + i as u16 / 2).to_le_bytes()[i % 2]);
            let [halves, brains] = isa.run_lanes(Widen(&bytes));
            for (lane, (half, brain)) in halves.into_iter().zip(brains).enumerate() {
                let pattern = start + lane as u16;
                let same = |bits: u32, value: f32| if value.is_nan() { f32::from_bits(bits).is_nan() } else { bits == value.to_bits() };
                assert!(same(half, rwkv_forge_tensor::f16_to_f32(pattern)), "{isa} f16 {pattern:x}");
                assert!(same(brain, f32::from_bits(u32::from(pattern) << 16)), "{isa} bf16 {pattern:x}");
            }
        }
    }
}
