//! Functions, norms, token shifts and recurrences against f64, on every instruction set of this CPU with the same bits.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test code: failing loudly is its purpose, numbers are small")]

use rwkv_forge_engine::{Isa, ops};
use rwkv_forge_matrix::Pass;
use rwkv_forge_testkit::models::SplitMix64;

/// A function of one number with its exact counterpart and the bound that its documentation states, in ulp.
#[derive(Clone, Copy)]
struct Function {
    name: &'static str,
    kind: Kind,
    exact: fn(f64) -> f64,
    ulp: f64,
}

#[derive(Clone, Copy)]
enum Kind {
    Exp,
    Sigmoid,
    Tanh,
    Silu,
    SquaredRelu,
}

const FUNCTIONS: [Function; 5] = [
    Function { name: "exp", kind: Kind::Exp, exact: f64::exp, ulp: 1.0 },
    Function { name: "sigmoid", kind: Kind::Sigmoid, exact: exact_sigmoid, ulp: 3.0 },
    Function { name: "tanh", kind: Kind::Tanh, exact: f64::tanh, ulp: 3.0 },
    Function { name: "silu", kind: Kind::Silu, exact: |x| x * exact_sigmoid(x), ulp: 4.0 },
    Function { name: "squared_relu", kind: Kind::SquaredRelu, exact: |x| x.max(0.0) * x.max(0.0), ulp: 0.5 },
];

fn exact_sigmoid(x: f64) -> f64 {
    // Not 1 / (1 + e^-x), which is 0 or infinity too early in f64 as well.
    if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) }
}

struct Map<'a>(&'a mut [f32], Kind);

impl Pass for Map<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        match self.1 {
            Kind::Exp => ops::map(self.0, ops::exp),
            Kind::Sigmoid => ops::map(self.0, ops::sigmoid),
            Kind::Tanh => ops::map(self.0, ops::tanh),
            Kind::Silu => ops::map(self.0, ops::silu),
            Kind::SquaredRelu => ops::map(self.0, ops::squared_relu),
        }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Every exponent with both signs and random mantissas, then numbers where the functions are neither 0 nor infinite.
fn points() -> Vec<f32> {
    let mut rng = SplitMix64::new(5);
    let mut points = Vec::new();
    for exponent in 0..255u32 {
        for index in 0..2000u32 {
            let mantissa = if index < 2 { index * 0x007f_ffff } else { rng.next_u64() as u32 & 0x007f_ffff };
            points.push(f32::from_bits(((index % 2) << 31) | (exponent << 23) | mantissa));
        }
    }
    points.extend((0..600_000).map(|_| rng.uniform() * 230.0 - 120.0));
    points.extend((0..200_000).map(|_| rng.uniform() * 4.0 - 2.0));
    points
}

/// Distance of `found` from `exact` in units of the last place of the f32 nearest to `exact`.
fn ulps(found: f32, exact: f64) -> f64 {
    let nearest = exact as f32;
    if nearest.is_infinite() || found.is_infinite() {
        // Next to the largest number a rounding may go either way; elsewhere both are infinite or neither.
        let near = exact.abs() < f64::from(f32::MAX) * (1.0 + 1e-6) && exact.abs() > f64::from(f32::MAX) * (1.0 - 1e-6);
        return if found == nearest || near { 0.0 } else { f64::INFINITY };
    }
    let exponent = (nearest.abs().to_bits() >> 23).max(1);
    let unit = 2f64.powi(exponent as i32 - 150);
    (f64::from(found) - exact).abs() / unit
}

#[test]
fn functions_are_within_their_bounds_and_equal_on_all_sets() {
    let points = points();
    for function in FUNCTIONS {
        let mut expected: Option<Vec<f32>> = None;
        for isa in Isa::all() {
            let mut values = points.clone();
            isa.run(Map(&mut values, function.kind));
            match &expected {
                Some(expected) => assert_eq!(bits(&values), bits(expected), "{} on {isa}", function.name),
                None => expected = Some(values),
            }
        }
        let (mut worst, mut at) = (0.0, 0.0);
        for (x, found) in points.iter().zip(expected.unwrap()) {
            let error = ulps(found, (function.exact)(f64::from(*x)));
            if error > worst || error.is_nan() {
                (worst, at) = (error, *x);
            }
        }
        assert!(worst <= function.ulp, "{}: {worst} ulp at {at:e}, stated {}", function.name, function.ulp);
        // A bound that is far from what is reached would not notice a lost coefficient.
        assert!(worst > function.ulp / 4.0, "{}: only {worst} ulp", function.name);
    }
}

#[test]
fn functions_have_their_limits() {
    let (infinity, nan) = (f32::INFINITY, f32::NAN);
    for isa in Isa::all() {
        let run = |kind, x: f32| {
            // Long enough for the vectorized part of the loop, and not a whole number of registers.
            let mut values = [x; 37];
            isa.run(Map(&mut values, kind));
            assert!(values.iter().all(|value| value.to_bits() == values[0].to_bits() || value.is_nan()), "{isa}");
            values[0]
        };
        let limits = [
            (Kind::Exp, 0.0, infinity),
            (Kind::Sigmoid, 0.0, 1.0),
            (Kind::Tanh, -1.0, 1.0),
            (Kind::Silu, 0.0, infinity),
            (Kind::SquaredRelu, 0.0, infinity),
        ];
        for (kind, low, high) in limits {
            assert_eq!((run(kind, -infinity), run(kind, infinity)), (low, high), "{isa}");
            let most = if matches!(kind, Kind::Silu) { f32::MAX } else { high };
            assert_eq!((run(kind, -f32::MAX), run(kind, f32::MAX)), (low, most), "{isa}");
            assert!(run(kind, nan).is_nan() && run(kind, -nan).is_nan(), "{isa}");
        }
        for zero in [0.0f32, -0.0] {
            assert_eq!((run(Kind::Exp, zero), run(Kind::Sigmoid, zero)), (1.0, 0.5));
            assert_eq!(run(Kind::Tanh, zero).to_bits(), zero.to_bits(), "tanh keeps the sign of zero");
            assert_eq!(run(Kind::Silu, zero).to_bits(), zero.to_bits(), "silu keeps the sign of zero");
        }
        assert_eq!(run(Kind::Exp, -103.9), f32::from_bits(1), "the smallest subnormal number");
        assert!(run(Kind::Exp, 88.722).is_finite() && run(Kind::Exp, 88.723).is_infinite(), "the largest number lies between");
    }
}

/// The operations on rows, one after the other, into `out`.
struct Rows<'a> {
    x: &'a [f32],
    y: &'a [f32],
    weight: &'a [f32],
    out: &'a mut [Vec<f32>; 7],
}

impl Pass for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { x, y, weight, out: [layer, rms, group, unit, blend, lerp, by_sum] } = self;
        ops::layer_norm(x, weight, y, layer);
        ops::rms_norm(x, weight, 1e-6, rms);
        group.copy_from_slice(x);
        ops::group_norm(group, weight, y, 64e-5);
        unit.copy_from_slice(x);
        ops::l2_normalise(unit);
        ops::blend(x, y, weight, blend);
        ops::lerp(x, y, weight, lerp);
        ops::lerp_by_sum(x, y, weight, weight, by_sum);
        ops::add(blend, lerp);
        ops::multiply(by_sum, weight);
    }
}

/// What [`Rows`] computes, in f64.
fn exact_rows(x: &[f32], y: &[f32], weight: &[f32]) -> [Vec<f64>; 7] {
    let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<f64>>();
    let (x, y, weight) = (wide(x), wide(y), wide(weight));
    let count = x.len() as f64;
    let mean = x.iter().sum::<f64>() / count;
    let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count;
    let squares = x.iter().map(|v| v * v).sum::<f64>();
    let each = |f: &dyn Fn(f64, f64, f64) -> f64| x.iter().zip(&y).zip(&weight).map(|((x, y), w)| f(*x, *y, *w)).collect();
    [
        each(&|x, y, w| (x - mean) / (variance + 1e-5).sqrt() * w + y),
        each(&|x, _, w| x / (squares / count + 1e-6).sqrt() * w),
        each(&|x, y, w| (x - mean) / (variance + 64e-5).sqrt() * w + y),
        each(&|x, _, _| x / squares.sqrt().max(1e-12)),
        each(&|x, y, w| x * w + y * (1.0 - w) + x + (y - x) * w),
        each(&|x, y, w| x + (y - x) * w),
        each(&|x, y, w| (x + (y - x) * (w + w)) * w),
    ]
}

#[test]
fn rows_agree_with_f64_and_are_equal_on_all_sets() {
    let mut rng = SplitMix64::new(8);
    for len in (1..70).chain([100, 255, 256, 768, 1000, 2560]) {
        // A mean of several deviations: a one-pass variance would lose digits.
        let mut row = |mean: f32, deviation: f32| -> Vec<f32> { (0..len).map(|_| mean + deviation * rng.normal()).collect() };
        let (x, y, weight) = (row(30.0, 2.0), row(0.1, 1.0), row(0.5, 0.2));
        let run = |isa: Isa| {
            let mut out: [Vec<f32>; 7] = std::array::from_fn(|_| vec![0.0; len]);
            isa.run(Rows { x: &x, y: &y, weight: &weight, out: &mut out });
            out
        };
        let found = run(Isa::all()[0]);
        for isa in Isa::all() {
            for (index, (other, found)) in run(isa).iter().zip(&found).enumerate() {
                assert_eq!(bits(other), bits(found), "operation {index} of {len} on {isa}");
            }
        }
        for (index, (found, exact)) in found.iter().zip(exact_rows(&x, &y, &weight)).enumerate() {
            // Norms subtract a mean that is 15 deviations large and itself rounded, shifts add numbers near 30: 4 or 5 bits are lost.
            // A wrong count of elements (len - 1 for len) would be off by 1 / (2 len), at least 2e-4.
            let tolerance = 1e-5;
            for (found, exact) in found.iter().zip(exact) {
                assert!(
                    (f64::from(*found) - exact).abs() <= tolerance * exact.abs().max(1.0),
                    "operation {index} of {len}: {found} {exact}"
                );
            }
        }
    }
    let mut zeros = vec![0.0; 64];
    ops::l2_normalise(&mut zeros);
    assert_eq!(zeros, vec![0.0; 64], "a head of zeros stays one");
}

/// Inputs of a recurrence of one head.
struct Case {
    n: usize,
    tokens: usize,
    /// r, w, k, v, removal, replacement, each `[tokens, n]`.
    rows: [Vec<f32>; 6],
    /// Bonus `[n]`.
    u: Vec<f32>,
    state: Vec<f32>,
}

/// Where the factor of the state lies.
#[derive(Clone, Copy, Debug)]
enum Decay {
    NearZero,
    NearOne,
    Any,
}

impl Case {
    fn new(n: usize, tokens: usize, decay: Decay, seed: u64) -> Self {
        let mut rng = SplitMix64::new(seed);
        let mut normals = |count: usize, size: f32| -> Vec<f32> { (0..count).map(|_| size * rng.normal()).collect() };
        let count = n * tokens;
        let mut removal = normals(count, 1.0);
        removal.chunks_exact_mut(n).for_each(ops::l2_normalise);
        let (r, k, v, u, state) = (normals(count, 1.0), normals(count, 1.0), normals(count, 1.0), normals(n, 0.5), normals(n * n, 1.0));
        let mut uniform = |low: f32, high: f32| -> Vec<f32> { (0..count).map(|_| low + (high - low) * rng.uniform()).collect() };
        let w = match decay {
            Decay::NearZero => uniform(0.0, 1e-12),
            Decay::NearOne => uniform(0.999_99, 1.0),
            Decay::Any => uniform(0.0, 1.0),
        };
        let replacement = removal.iter().zip(uniform(0.0, 1.0)).map(|(removal, rate)| -removal * rate).collect();
        Self { n, tokens, rows: [r, w, k, v, removal, replacement], u, state }
    }

    /// Outputs and the final state, `tokens_at_once` tokens a call.
    fn run(&self, isa: Isa, version: Version, tokens_at_once: usize) -> (Vec<f32>, Vec<f32>) {
        let (mut out, mut state) = (vec![0.0; self.n * self.tokens], self.state.clone());
        for (index, out) in out.chunks_mut(tokens_at_once * self.n).enumerate() {
            let first = index * tokens_at_once * self.n;
            let rows = self.rows.each_ref().map(|row| &row[first..first + out.len()]);
            isa.run(Recur { version, n: self.n, rows, u: &self.u, state: &mut state, out });
        }
        (out, state)
    }

    /// The same in f64, element by element. With a fault, as somebody could have got it wrong.
    fn exact(&self, version: Version, fault: Fault) -> (Vec<f64>, Vec<f64>) {
        let (n, mut state) = (self.n, self.state.iter().map(|s| f64::from(*s)).collect::<Vec<f64>>());
        let mut out = Vec::new();
        for token in 0..self.tokens {
            let [r, w, k, v, removal, replacement] =
                self.rows.each_ref().map(|row| row[token * n..(token + 1) * n].iter().map(|v| f64::from(*v)).collect::<Vec<f64>>());
            let before = state.clone();
            for value in 0..n {
                let removed: f64 = (0..n).map(|key| removal[key] * before[key * n + value]).sum();
                for key in 0..n {
                    let s = &mut state[key * n + value];
                    let w = if fault == Fault::DecayOfTheValue { w[value] } else { w[key] };
                    let back = if fault == Fault::Sign { -replacement[key] } else { replacement[key] };
                    *s = w * *s + k[key] * v[value] + if version == Version::V7 { back * removed } else { 0.0 };
                }
            }
            for value in 0..n {
                let at = |state: &[f64]| (0..n).map(|key| r[key] * state[key * n + value]).sum::<f64>();
                out.push(match (version, fault) {
                    (Version::V7, Fault::ReadoutAtTheWrongTime) => at(&before),
                    (Version::V7, _) | (Version::V5, Fault::ReadoutAtTheWrongTime) => at(&state),
                    (Version::V5, Fault::NoBonus) => at(&before),
                    (Version::V5, _) => at(&before) + (0..n).map(|key| r[key] * f64::from(self.u[key]) * k[key]).sum::<f64>() * v[value],
                });
            }
        }
        (out, state)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// And RWKV-6.
    V5,
    V7,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    NoBonus,
    ReadoutAtTheWrongTime,
    DecayOfTheValue,
    Sign,
}

struct Recur<'a> {
    version: Version,
    n: usize,
    rows: [&'a [f32]; 6],
    u: &'a [f32],
    state: &'a mut [f32],
    out: &'a mut [f32],
}

impl Pass for Recur<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let [r, w, k, v, removal, replacement] = self.rows;
        match self.version {
            Version::V5 => ops::wkv::wkv5(self.state, self.n, ops::wkv::Inputs5 { r, k, v, w, u: self.u }, self.out),
            Version::V7 => ops::wkv::wkv7(self.state, self.n, ops::wkv::Inputs7 { r, w, k, v, removal, replacement }, self.out),
        }
    }
}

/// Largest difference relative to the largest number.
fn distance(found: &[f32], exact: &[f64]) -> f64 {
    let largest = exact.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
    found.iter().zip(exact).fold(0.0, |most: f64, (found, exact)| most.max((f64::from(*found) - exact).abs())) / largest
}

#[test]
fn recurrences_agree_with_f64_and_are_equal_on_all_sets() {
    // Sums of up to 128 products over up to 40 tokens of states that grow to some tens: rounding errors of 2^-24 add up to less
    // than this. The faults below are 1,000 times larger.
    const TOLERANCE: f64 = 3e-6;
    for (seed, n) in [1, 3, 8, 12, 16, 17, 48, 64, 80, 128].into_iter().enumerate() {
        for decay in [Decay::NearZero, Decay::NearOne, Decay::Any] {
            for version in [Version::V5, Version::V7] {
                let case = Case::new(n, 40, decay, seed as u64);
                let (out, state) = case.run(Isa::all()[0], version, 40);
                let (exact_out, exact_state) = case.exact(version, Fault::None);
                let seen = (distance(&out, &exact_out), distance(&state, &exact_state));
                assert!(seen.0 < TOLERANCE && seen.1 < TOLERANCE, "{version:?}, {n}, {decay:?}: {seen:?}");
                for isa in Isa::all() {
                    for at_once in [1, 7, 40] {
                        let (other_out, other_state) = case.run(isa, version, at_once);
                        assert_eq!(bits(&other_out), bits(&out), "{version:?}, {n}, {decay:?}, {at_once} tokens on {isa}");
                        assert_eq!(bits(&other_state), bits(&state), "{version:?}, {n}, {decay:?}, {at_once} tokens on {isa}");
                    }
                }
            }
        }
    }
    let case = Case::new(64, 40, Decay::Any, 9);
    for (version, fault) in [
        (Version::V5, Fault::NoBonus),
        (Version::V5, Fault::ReadoutAtTheWrongTime),
        (Version::V5, Fault::DecayOfTheValue),
        (Version::V7, Fault::ReadoutAtTheWrongTime),
        (Version::V7, Fault::DecayOfTheValue),
        (Version::V7, Fault::Sign),
    ] {
        let (out, _) = case.run(Isa::best(), version, 40);
        let seen = distance(&out, &case.exact(version, fault).0);
        assert!(seen > 1000.0 * TOLERANCE, "{version:?} with {fault:?}: {seen}");
    }
}

#[test]
fn a_constant_decay_counts_for_all_tokens() {
    let mut case = Case::new(64, 6, Decay::Any, 4);
    let constant = case.rows[1][..64].to_vec();
    case.rows[1] = constant.repeat(6);
    let (expected, expected_state) = case.run(Isa::best(), Version::V5, 6);
    let (mut out, mut state) = (vec![0.0; 64 * 6], case.state.clone());
    let [r, _, k, v, ..] = case.rows.each_ref().map(Vec::as_slice);
    ops::wkv::wkv5(&mut state, 64, ops::wkv::Inputs5 { r, k, v, w: &constant, u: &case.u }, &mut out);
    assert_eq!((bits(&out), bits(&state)), (bits(&expected), bits(&expected_state)));
}

struct Step4<'a> {
    inputs: ops::wkv4::Inputs<'a>,
    sums: ops::wkv4::Sums<'a>,
    out: &'a mut [f32],
}

impl Pass for Step4<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        ops::wkv4::step(self.inputs, self.sums, self.out);
    }
}

/// The weighted mean over all tokens so far, straight from its definition in f64; `fade_now` as a fault also fades the current token.
fn exact_mean(k: &[f64], v: &[f64], decay: f64, bonus: f64, fade_now: bool) -> f64 {
    let last = k.len() - 1;
    let exponent = |i: usize| {
        let steps = (last - i) as f64 - if fade_now { 0.0 } else { 1.0 };
        if i == last { k[i] + bonus } else { k[i] + decay * steps }
    };
    let most = (0..=last).map(exponent).fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = (0..=last).map(|i| (exponent(i) - most).exp()).collect();
    weights.iter().zip(v).map(|(w, v)| w * v).sum::<f64>() / weights.iter().sum::<f64>()
}

#[test]
fn weighted_means_agree_with_their_definition() {
    // A mean has the rounding of its weights, whose exponents of up to 100 are rounded at each of 30 tokens: 30 * 100 * 2^-24 if
    // all went one way. Values are at most 5.
    const TOLERANCE: f64 = 3e-4;
    const CHANNELS: usize = 37;
    const TOKENS: usize = 30;
    let mut rng = SplitMix64::new(12);
    let mut normals = |count: usize, size: f32| -> Vec<f32> { (0..count).map(|_| size * rng.normal()).collect() };
    // Keys of very different sizes: weights from e^-100 to e^100.
    let (k, v) = (normals(CHANNELS * TOKENS, 30.0), normals(CHANNELS * TOKENS, 1.0));
    let bonus = normals(CHANNELS, 2.0);
    let decay: Vec<f32> = (0..CHANNELS).map(|c| -(0.3 * c as f32 - 8.0).exp()).collect();
    let run = |isa: Isa| {
        let (mut aa, mut bb, mut pp) = (vec![0.0; CHANNELS], vec![0.0; CHANNELS], vec![-1e30; CHANNELS]);
        let mut out = vec![0.0; CHANNELS * TOKENS];
        for (token, out) in out.chunks_exact_mut(CHANNELS).enumerate() {
            let at = token * CHANNELS..(token + 1) * CHANNELS;
            let inputs = ops::wkv4::Inputs { k: &k[at.clone()], v: &v[at], decay: &decay, bonus: &bonus };
            isa.run(Step4 { inputs, sums: ops::wkv4::Sums { aa: &mut aa, bb: &mut bb, pp: &mut pp }, out });
        }
        (out, [aa, bb, pp])
    };
    let (found, sums) = run(Isa::all()[0]);
    for isa in Isa::all() {
        let (out, other) = run(isa);
        assert_eq!(bits(&out), bits(&found), "{isa}");
        assert_eq!(other.map(|sum| bits(&sum)), sums.each_ref().map(|sum| bits(sum)), "{isa}");
    }
    let (mut worst, mut faulty) = (0.0f64, 0.0f64);
    for channel in 0..CHANNELS {
        let column = |rows: &[f32], tokens: usize| (0..tokens).map(|t| f64::from(rows[t * CHANNELS + channel])).collect::<Vec<f64>>();
        for token in 0..TOKENS {
            let (k, v) = (column(&k, token + 1), column(&v, token + 1));
            let (decay, bonus) = (f64::from(decay[channel]), f64::from(bonus[channel]));
            let found = f64::from(found[token * CHANNELS + channel]);
            worst = worst.max((found - exact_mean(&k, &v, decay, bonus, false)).abs());
            faulty = faulty.max((found - exact_mean(&k, &v, decay, bonus, true)).abs());
        }
    }
    assert!(worst < TOLERANCE, "{worst}");
    assert!(faulty > 100.0 * TOLERANCE, "{faulty}");
}
