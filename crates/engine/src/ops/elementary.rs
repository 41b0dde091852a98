//! Exponential, logistic function and their kin, branch-free so that loops over them vectorize.
//!
//! The polynomials were fitted here by iteratively reweighted least squares against the relative error.

/// Above this e^x is infinite in f32; large enough that rounding, not the clamp, decides.
const EXP_MAX: f32 = 89.0;
/// Below this e^x rounds to zero in f32.
const EXP_MIN: f32 = -104.0;
/// Below this x e^x rounds to zero in f32.
const SILU_MIN: f32 = -110.0;
/// 1.5 * 2^23: adding it rounds to an integer, which is then in the low bits.
const ROUND: f32 = 12_582_912.0;
/// ln 2 rounded to f32.
const LN2_HIGH: f32 = std::f32::consts::LN_2;
/// ln 2 - `LN2_HIGH`.
const LN2_LOW: f32 = -1.904_654_3e-9;
/// (e^r - 1 - r) / r^2 for |r| <= 0.3466, constant first; relative error of e^r 0.06 * 2^-24.
const EXP_TERMS: [f32; 5] = [0.499_999_94, 0.166_665_21, 0.041_668_39, 0.008_368_716, 0.001_381_460_2];
/// (tanh x - x) / x^3 in x^2 for |x| < `TANH_SMALL`, constant first; relative error of tanh x 0.15 * 2^-24.
const TANH_TERMS: [f32; 5] = [-0.333_332_8, 0.133_314_42, -0.053_739_71, 0.020_639_08, -0.005_704_979];
/// Where tanh changes from its polynomial to the exponential.
const TANH_SMALL: f32 = 0.625;

/// e^x as `mantissa * scale.0 * scale.1`, for x between -112 and `EXP_MAX`. Both scales are powers of two that are normal
/// numbers, and so is `mantissa * scale.0`: only the last product rounds, to a subnormal number or to infinity.
#[inline(always)]
fn split_exp(x: f32) -> (f32, f32, f32) {
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let [c0, c1, c2, c3, c4] = EXP_TERMS;
    let terms = c4.mul_add(r, c3).mul_add(r, c2).mul_add(r, c1).mul_add(r, c0);
    let mantissa = (r * r).mul_add(terms, r) + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).cast_signed();
    let half = exponent >> 1;
    (mantissa, power_of_two(half), power_of_two(exponent.wrapping_sub(half)))
}

/// 2^n for n from -126 to 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) << 23).cast_unsigned())
}

/// The smaller of `x` and `limit`; NaN stays NaN.
#[inline(always)]
fn at_most(x: f32, limit: f32) -> f32 {
    if x > limit { limit } else { x }
}

/// The larger of `x` and `limit`; NaN stays NaN.
#[inline(always)]
fn at_least(x: f32, limit: f32) -> f32 {
    if x < limit { limit } else { x }
}

/// e^x, within 1 ulp; subnormal results included.
#[inline(always)]
#[must_use]
pub fn exp(x: f32) -> f32 {
    let (mantissa, first, second) = split_exp(at_least(at_most(x, EXP_MAX), EXP_MIN));
    mantissa * first * second
}

/// 1 / (1 + e^-x), within 3 ulp; subnormal results included.
#[inline(always)]
#[must_use]
pub fn sigmoid(x: f32) -> f32 {
    let small = exp(-x.abs());
    let numerator = if x < 0.0 { small } else { 1.0 };
    numerator / (1.0 + small)
}

/// Hyperbolic tangent, within 3 ulp.
#[inline(always)]
#[must_use]
pub fn tanh(x: f32) -> f32 {
    let square = x * x;
    let [c0, c1, c2, c3, c4] = TANH_TERMS;
    let terms = c4.mul_add(square, c3).mul_add(square, c2).mul_add(square, c1).mul_add(square, c0);
    let small = (x * square).mul_add(terms, x);
    let size = x.abs();
    let large = 1.0 - 2.0 / (exp(size + size) + 1.0);
    // The polynomial loses the sign of zero; NaN stays NaN on both ways.
    (if size < TANH_SMALL { small } else { large }).copysign(x)
}

/// x * sigmoid(x), within 4 ulp; subnormal results included; -0 at -infinity.
#[inline(always)]
#[must_use]
pub fn silu(x: f32) -> f32 {
    let x = at_least(x, SILU_MIN);
    let (mantissa, first, second) = split_exp(at_least(-x.abs(), SILU_MIN));
    let small = mantissa * first * second;
    // x e^x is formed before its scale, so that no factor is subnormal.
    let numerator = if x < 0.0 { x * mantissa * first * second } else { x };
    numerator / (1.0 + small)
}

/// max(x, 0)^2; NaN stays NaN.
#[inline(always)]
#[must_use]
pub fn squared_relu(x: f32) -> f32 {
    let x = at_least(x, 0.0);
    x * x
}

/// x = f(x), element by element.
#[inline(always)]
pub fn map(values: &mut [f32], f: impl Fn(f32) -> f32) {
    for value in values {
        *value = f(*value);
    }
}

/// x += y, element by element.
#[inline(always)]
pub fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += *y;
    }
}

/// x *= y, element by element.
#[inline(always)]
pub fn multiply(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x *= *y;
    }
}
