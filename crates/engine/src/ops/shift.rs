//! Token shift: the mixes of a token's normalised input with that of the token before.
//!
//! All slices are `[channels]`.

/// now * mix + before * (1 - mix), as RWKV-4 and RWKV-5 write it.
#[inline(always)]
pub fn blend(now: &[f32], before: &[f32], mix: &[f32], out: &mut [f32]) {
    for (((out, now), before), mix) in out.iter_mut().zip(now).zip(before).zip(mix) {
        *out = now.mul_add(*mix, *before * (1.0 - *mix));
    }
}

/// now + (before - now) * mix, as RWKV-6 and RWKV-7 write it.
#[inline(always)]
pub fn lerp(now: &[f32], before: &[f32], mix: &[f32], out: &mut [f32]) {
    for (((out, now), before), mix) in out.iter_mut().zip(now).zip(before).zip(mix) {
        *out = (*before - *now).mul_add(*mix, *now);
    }
}

/// now + (before - now) * (base + amount): RWKV-6's shift, whose `amount` depends on the input.
#[inline(always)]
pub fn lerp_by_sum(now: &[f32], before: &[f32], base: &[f32], amount: &[f32], out: &mut [f32]) {
    let mix = base.iter().zip(amount);
    for (((out, now), before), (base, amount)) in out.iter_mut().zip(now).zip(before).zip(mix) {
        *out = (*before - *now).mul_add(*base + *amount, *now);
    }
}
