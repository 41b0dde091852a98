//! Norms and the sums under them.
//!
//! A sum is sixteen partial sums, element `i` going to sum `i % 16`, added up as a tree: the order depends on nothing but the
//! length.

/// Partial sums.
const LANES: usize = 16;
/// Epsilon of every layer norm in RWKV.
pub const LAYER_NORM_EPS: f32 = 1e-5;
/// Smallest length that [`l2_normalise`] divides by.
pub const MIN_LENGTH: f32 = 1e-12;

/// Adds sixteen numbers pairwise. Written out, because the compiler leaves bounds checks in a loop over shrinking widths.
#[inline(always)]
fn tree(lanes: [f32; LANES]) -> f32 {
    // Keeps the pairing below from deciding how the loop before it is vectorized.
    let lanes = std::hint::black_box(lanes);
    let mut eight = [0.0; 8];
    for i in 0..8 {
        eight[i] = lanes[i] + lanes[i + 8];
    }
    let mut four = [0.0; 4];
    for i in 0..4 {
        four[i] = eight[i] + eight[i + 4];
    }
    (four[0] + four[2]) + (four[1] + four[3])
}

/// Sum of all elements.
#[inline(always)]
#[must_use]
pub fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] += chunk[lane];
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += *value;
    }
    tree(lanes)
}

/// Sum of `a[i] * b[i]` over two slices of the same length.
#[inline(always)]
#[must_use]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let ((a_chunks, a_rest), (b_chunks, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] = a[lane].mul_add(b[lane], lanes[lane]);
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane = a.mul_add(*b, *lane);
    }
    tree(lanes)
}

/// Sum of `a[i] * b[i] * c[i]` over three slices of the same length.
#[inline(always)]
#[must_use]
pub fn weighted_dot(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let ((a_chunks, a_rest), (b_chunks, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let (c_chunks, c_rest) = c.as_chunks::<LANES>();
    for ((a, b), c) in a_chunks.iter().zip(b_chunks).zip(c_chunks) {
        for lane in 0..LANES {
            lanes[lane] = (a[lane] * b[lane]).mul_add(c[lane], lanes[lane]);
        }
    }
    for (((lane, a), b), c) in lanes.iter_mut().zip(a_rest).zip(b_rest).zip(c_rest) {
        *lane = (*a * *b).mul_add(*c, *lane);
    }
    tree(lanes)
}

/// Sum of `(values[i] - shift)^2`.
#[inline(always)]
fn squares_about(values: &[f32], shift: f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            let distance = chunk[lane] - shift;
            lanes[lane] = distance.mul_add(distance, lanes[lane]);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        let distance = *value - shift;
        *lane = distance.mul_add(distance, *lane);
    }
    tree(lanes)
}

/// Mean, and 1 / sqrt(biased variance + eps).
#[inline(always)]
fn moments(values: &[f32], eps: f32) -> (f32, f32) {
    let count = values.len() as f32;
    let mean = sum(values) / count;
    (mean, 1.0 / (squares_about(values, mean) / count + eps).sqrt())
}

/// (x - mean) / sqrt(biased variance + 1e-5) * weight + bias; all slices `[channels]`.
#[inline(always)]
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]) {
    let (mean, scale) = moments(x, LAYER_NORM_EPS);
    for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *out = ((*x - mean) * scale).mul_add(*weight, *bias);
    }
}

/// x / sqrt(mean of squares + eps) * weight, the norm of hybrids with Qwen; all slices `[channels]`.
#[inline(always)]
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let scale = 1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = *x * scale * *weight;
    }
}

/// As [`layer_norm`], of one head and in place: all slices `[head_size]`.
#[inline(always)]
pub fn group_norm(row: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    let (mean, scale) = moments(row, eps);
    for ((value, weight), bias) in row.iter_mut().zip(weight).zip(bias) {
        *value = ((*value - mean) * scale).mul_add(*weight, *bias);
    }
}

/// Scales `row [head_size]` to length 1; lengths below 1e-12 count as 1e-12.
#[inline(always)]
pub fn l2_normalise(row: &mut [f32]) {
    let length = dot(row, row).sqrt();
    let scale = 1.0 / if length > MIN_LENGTH { length } else { MIN_LENGTH };
    for value in row {
        *value *= scale;
    }
}
