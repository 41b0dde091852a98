//! The names of web-rwkv's `.st` files, which look like BlinkDL's and mean something else in a few places: low-rank factors
//! are transposed, RWKV-6's `time_maa` is called `time_mix`, and the bonus of RWKV-5 is called `time_first` and is no
//! logarithm.
//!
//! RWKV-4 is the same in both. RWKV-6 is told by its names, RWKV-5 by f16 throughout and a bonus for each channel under a name that
//! trainers gave to one for each head, and RWKV-7 by the shapes of its factors, which are no square in any released model.

use rwkv_forge_tensor::{Encoding, TensorInfo};

use super::{BLINKDL, Convention, split};
use crate::error::ModelError;
use crate::tensor::Recover;

/// A start state, which web-rwkv's converter turns as it does factors.
const STATE: (&str, &str, Recover) = ("att.time_state", "att.time_state", Recover::TRANSPOSED);

/// RWKV-5.2 in a `.st`.
static WEB_RWKV_5: Convention =
    Convention { name: "web-rwkv (RWKV-5)", exact: &[("att.time_first", "att.time_faaaa", Recover::AS_IS), STATE], ..BLINKDL };

/// RWKV-6 in a `.st`.
static WEB_RWKV_6: Convention = Convention {
    name: "web-rwkv (RWKV-6)",
    exact: &[
        ("att.time_mix_x", "att.time_maa_x", Recover::AS_IS),
        ("att.time_mix_w", "att.time_maa_w", Recover::AS_IS),
        ("att.time_mix_k", "att.time_maa_k", Recover::AS_IS),
        ("att.time_mix_v", "att.time_maa_v", Recover::AS_IS),
        ("att.time_mix_r", "att.time_maa_r", Recover::AS_IS),
        ("att.time_mix_g", "att.time_maa_g", Recover::AS_IS),
        ("att.time_mix_w1", "att.time_maa_w1", Recover::TRANSPOSED),
        ("att.time_mix_w2", "att.time_maa_w2", Recover::TRANSPOSED),
        ("att.time_decay_w1", "att.time_decay_w1", Recover::TRANSPOSED),
        ("att.time_decay_w2", "att.time_decay_w2", Recover::TRANSPOSED),
        ("att.time_first", "att.time_faaaa", Recover::AS_IS),
        ("ffn.time_mix_k", "ffn.time_maa_k", Recover::AS_IS),
        ("ffn.time_mix_r", "ffn.time_maa_r", Recover::AS_IS),
        STATE,
    ],
    ..BLINKDL
};

/// RWKV-7 in a `.st`.
static WEB_RWKV_7: Convention = Convention {
    name: "web-rwkv (RWKV-7)",
    exact: &[
        ("att.w1", "att.w1", Recover::TRANSPOSED),
        ("att.w2", "att.w2", Recover::TRANSPOSED),
        ("att.a1", "att.a1", Recover::TRANSPOSED),
        ("att.a2", "att.a2", Recover::TRANSPOSED),
        ("att.v1", "att.v1", Recover::TRANSPOSED),
        ("att.v2", "att.v2", Recover::TRANSPOSED),
        ("att.g1", "att.g1", Recover::TRANSPOSED),
        ("att.g2", "att.g2", Recover::TRANSPOSED),
        STATE,
    ],
    ..BLINKDL
};

/// web-rwkv's convention, if a file with BlinkDL's layer prefix follows it.
pub(super) fn refine(infos: &[TensorInfo]) -> Result<Option<&'static Convention>, ModelError> {
    let is = |suffix: &str| infos.iter().any(|info| suffix_of(info) == Some(suffix));
    if is("att.time_mix_x") || is("att.time_mix_w1") || is("att.time_mix_w2") {
        return Ok(Some(&WEB_RWKV_6));
    }
    // web-rwkv reads nothing but f16.
    let all_f16 = infos.iter().all(|info| info.encoding == Encoding::F16);
    if all_f16 && is("att.ln_x.weight") && is("att.gate.weight") && bonus_per_channel(infos) {
        return Ok(Some(&WEB_RWKV_5));
    }
    factors(infos, all_f16)
}

fn suffix_of(info: &TensorInfo) -> Option<&str> {
    split(BLINKDL.layer_prefix, &info.name).ok()?.map(|(_, suffix)| suffix)
}

fn bonus_per_channel(infos: &[TensorInfo]) -> bool {
    let wide = |info: &TensorInfo| info.shape.iter().filter(|dim| **dim > 1).count() > 1;
    infos.iter().any(|info| suffix_of(info) == Some("att.time_first") && wide(info))
}

/// Looks at each low-rank factor of RWKV-7 for the side that has C channels.
fn factors(infos: &[TensorInfo], all_f16: bool) -> Result<Option<&'static Convention>, ModelError> {
    let embedding = infos.iter().find(|info| info.name == "emb.weight");
    let Some(channels) = embedding.and_then(|info| info.shape.last().copied()) else { return Ok(None) };
    let (mut as_trained, mut swapped, mut square) = (false, false, None);
    for info in infos {
        let inputs_first = match suffix_of(info) {
            Some("att.w1" | "att.a1" | "att.v1" | "att.g1") => true,
            Some("att.w2" | "att.a2" | "att.v2" | "att.g2") => false,
            _ => continue,
        };
        let [.., rows, columns] = info.shape.as_slice() else { continue };
        match (*rows == channels, *columns == channels) {
            (true, true) => square = Some(info),
            (true, false) if inputs_first => as_trained = true,
            (false, true) if !inputs_first => as_trained = true,
            (true, false) | (false, true) => swapped = true,
            (false, false) => {}
        }
    }
    match (as_trained, swapped, square) {
        (false, true, _) => Ok(Some(&WEB_RWKV_7)),
        (false, false, Some(info)) if all_f16 => {
            Err(ModelError::AmbiguousOrientation { name: info.name.clone(), shape: info.shape.clone() })
        }
        _ => Ok(None),
    }
}
