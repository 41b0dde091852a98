//! Every operation on lanes, of every instruction set and for every number of lanes, against f32 one by one.

use rwkv_forge_simd::{Isa, LanePass, Lanes, ROUND, Registers};

use crate::registers::draws;

/// The most lanes of a group.
const MOST: usize = 64;

/// The inputs of one round.
pub(crate) struct Round {
    /// Any floats.
    pub(crate) values: [[f32; MOST]; 3],
    /// Floats that are not NaN.
    numbers: [f32; MOST],
    /// 0 or 1: all alike, all but one alike, or random.
    truths: [f32; MOST],
    table: [f32; 32],
}

impl Round {
    pub(crate) fn new(draw: &mut impl FnMut() -> u32) -> Self {
        let special = [0, 1, 0x007f_ffff, 0x0080_0000, 0x3f80_0000, 0x4a80_0000, 0x7f7f_ffff, 0x7f80_0000, 0x7fc0_0000];
        let float = |bits: u32| {
            let pick = special[(bits >> 3) as usize % special.len()] | bits & 0x8000_0000;
            let near = bits & 0x807f_ffff | (120 + (bits >> 24 & 31)) << 23;
            f32::from_bits(if bits & 7 == 0 { pick } else { near })
        };
        let mut values = [[0.0; MOST]; 3];
        values.as_flattened_mut().fill_with(|| float(draw()));
        // Equal numbers, and zeros of both signs, side by side.
        let [first, second, _] = &mut values;
        for (a, b) in first.iter_mut().zip(second) {
            match draw() % 9 {
                0 => *b = *a,
                1 => (*a, *b) = (0.0, -0.0),
                _ => {}
            }
        }
        let numbers = values[0].map(|value| if value.is_nan() { 2.5 } else { value });
        let (kind, odd) = (draw() % 5, draw() as usize % 16);
        let truths = std::array::from_fn(|lane| match kind {
            0 => 0.0,
            1 => 1.0,
            2 => f32::from(u8::from(lane % 16 == odd)),
            3 => f32::from(u8::from(lane % 16 != odd)),
            _ => f32::from(u8::from(values[2][lane] > 0.0)),
        });
        Self { values, numbers, truths, table: std::array::from_fn(|_| float(draw())) }
    }
}

/// Names of operations and their results as bits, a lane each.
pub(crate) type Results = Vec<(&'static str, Vec<u32>)>;

/// Which NaN an operation makes is not specified.
fn bits(value: f32) -> u32 {
    if value.is_nan() { 0x7fc0_0000 } else { value.to_bits() }
}

/// All operations on the inputs of one round.
#[inline(always)]
pub(crate) fn every<S: Lanes>(round: &Round) -> Results {
    let [a, b, c] = [S::load(&round.values[0]), S::load(&round.values[1]), S::load(&round.values[2])];
    let numbers = S::load(&round.numbers);
    let (zero, one) = (S::splat(0.0), S::splat(1.0));
    let truths = S::load(&round.truths).unequal(zero);
    let truth = |truth: bool| if truth { one } else { zero };
    let mut results = Results::new();
    for (name, value) in [
        ("splat", S::splat(round.values[0][3])),
        ("load", a),
        ("add", a.add(b)),
        ("sub", a.sub(b)),
        ("mul", a.mul(b)),
        ("div", a.div(b)),
        ("mul_add", a.mul_add(b, c)),
        ("sqrt", a.sqrt()),
        ("abs", a.abs()),
        ("min", a.min(b)),
        ("max", a.max(b)),
        ("less", S::select(a.less(b), one, zero)),
        ("unequal", S::select(a.unequal(b), one, zero)),
        ("both", S::select(S::both(truths, a.less(b)), one, zero)),
        ("any", truth(S::any(truths))),
        ("all", truth(S::all(truths))),
        ("select", S::select(truths, a, b)),
        ("nearest", numbers.nearest()),
        ("look_up", numbers.look_up(&round.table)),
    ] {
        let mut lanes = [0.0; MOST];
        value.store(&mut lanes);
        results.push((name, lanes[..S::COUNT].iter().map(|lane| bits(*lane)).collect()));
    }
    results
}

/// What the operations must give, lane by lane, without [`Lanes`].
pub(crate) fn expected(round: &Round, count: usize) -> Results {
    let truth = |truth: bool| f32::from(u8::from(truth));
    let truths = &round.truths[..count];
    let (any, all) = (truth(truths.contains(&1.0)), truth(!truths.contains(&0.0)));
    let lane = |lane: usize| {
        let [a, b, c] = round.values.map(|values| values[lane]);
        let (number, chosen) = (round.numbers[lane], round.truths[lane] == 1.0);
        let wrapped = ((number + ROUND).to_bits() & 0x007f_ffff).cast_signed() - 0x0040_0000;
        [
            ("splat", round.values[0][3]),
            ("load", a),
            ("add", a + b),
            ("sub", a - b),
            ("mul", a * b),
            ("div", a / b),
            ("mul_add", a.mul_add(b, c)),
            ("sqrt", a.sqrt()),
            ("abs", a.abs()),
            ("min", if a < b { a } else { b }),
            ("max", if a > b { a } else { b }),
            ("less", truth(a < b)),
            ("unequal", truth(a.to_bits() != b.to_bits() && (a != 0.0 || b != 0.0) || a.is_nan())),
            ("both", truth(chosen && a < b)),
            ("any", any),
            ("all", all),
            ("select", if chosen { a } else { b }),
            ("nearest", if number.abs() < 4_194_304.0 { number.round_ties_even() + 0.0 } else { wrapped as f32 }),
            ("look_up", round.table[(number.to_bits() & 31) as usize]),
        ]
    };
    let lanes: Vec<_> = (0..count).map(lane).collect();
    (0..lanes[0].len()).map(|index| (lanes[0][index].0, lanes.iter().map(|lane| bits(lane[index].1)).collect())).collect()
}

/// Names of the operations whose results differ.
pub(crate) fn differing(results: &Results, expected: &Results) -> Vec<&'static str> {
    assert_eq!(results.len(), expected.len());
    results.iter().zip(expected).filter(|(result, expected)| result != expected).map(|((name, _), _)| *name).collect()
}

/// The operations on all groups of lanes that a set has.
struct Groups<'a>(&'a Round);

impl LanePass for Groups<'_> {
    type Output = [(usize, Results); 3];
    const BYTE_PRODUCTS: bool = false;

    #[inline(always)]
    fn run<R: Registers>(self) -> Self::Output {
        [
            (R::F::COUNT, every::<R::F>(self.0)),
            (R::Throughput::COUNT, every::<R::Throughput>(self.0)),
            (R::Latency::COUNT, every::<R::Latency>(self.0)),
        ]
    }
}

#[test]
fn every_operation_does_what_f32_does() {
    let mut draw = draws(5);
    for _ in 0..2000 {
        let round = Round::new(&mut draw);
        for isa in Isa::all() {
            let groups = isa.run_lanes(Groups(&round));
            assert_eq!(groups[0].0, 16);
            for (count, results) in groups {
                assert!(MOST.is_multiple_of(count), "{isa}");
                let differing = differing(&results, &expected(&round, count));
                assert!(differing.is_empty(), "{isa}, {count} lanes: {differing:?} of {:x?}", round.values);
            }
        }
    }
}

#[test]
fn arrays_of_any_length_are_lanes() {
    let mut draw = draws(6);
    for _ in 0..500 {
        let round = Round::new(&mut draw);
        assert_eq!(every::<[f32; 1]>(&round), expected(&round, 1));
        assert_eq!(every::<[f32; 3]>(&round), expected(&round, 3));
        assert_eq!(every::<[f32; 64]>(&round), expected(&round, 64));
    }
}
