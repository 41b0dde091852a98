//! Which mechanisms the engine computes.

use rwkv_forge_model::{Attention, ChannelMix, Mechanisms, ModelDescription, Norm, TimeMix, TokenShift};
use rwkv_forge_weights::WeightsError;

use crate::error::EngineError;

/// Whether the engine computes all of these.
///
/// # Errors
/// What people call the first of them that it does not.
pub fn supports(mechanisms: &Mechanisms) -> Result<(), &'static str> {
    // Taken apart, so that whatever is added to a model is thought of here.
    let Mechanisms { time_mix, time_shift, channel_mix, channel_shift, attention, norms, vocabulary: _ } = *mechanisms;
    let group = match time_mix {
        TimeMix::Wkv4 => false,
        TimeMix::Wkv5 { .. } | TimeMix::Wkv6 { .. } | TimeMix::Wkv7 { gate: Some(_), .. } => true,
        TimeMix::Wkv7 { gate: None, .. } => return Err("the time mix of RWKV-7 without its gate"),
        TimeMix::Qrwkv6 { .. } => return Err(time_mix.name()),
    };
    match (time_mix, time_shift) {
        (TimeMix::Wkv4 | TimeMix::Wkv5 { .. }, TokenShift::Blend { .. })
        | (TimeMix::Wkv6 { .. } | TimeMix::Qrwkv6 { .. }, TokenShift::Lerp { lora: Some(_), .. })
        | (TimeMix::Wkv7 { .. }, TokenShift::Lerp { lora: None, .. }) => {}
        (TimeMix::Wkv4 | TimeMix::Wkv5 { .. }, TokenShift::Lerp { .. } | TokenShift::None)
        | (
            TimeMix::Wkv6 { .. } | TimeMix::Qrwkv6 { .. },
            TokenShift::Blend { .. } | TokenShift::Lerp { lora: None, .. } | TokenShift::None,
        )
        | (TimeMix::Wkv7 { .. }, TokenShift::Blend { .. } | TokenShift::Lerp { lora: Some(_), .. } | TokenShift::None) => {
            return Err(time_shift.name());
        }
    }
    let receptance = match channel_mix {
        ChannelMix::ReluSquared { receptance } => receptance,
        ChannelMix::DeepEmbed { .. } => false,
        ChannelMix::SwiGlu => return Err(channel_mix.name()),
    };
    match channel_shift {
        TokenShift::Blend { factors } | TokenShift::Lerp { factors, lora: None } if factors.len() == 1 + usize::from(receptance) => {}
        TokenShift::Blend { .. } | TokenShift::Lerp { .. } | TokenShift::None => return Err(channel_shift.name()),
    }
    match attention {
        Attention::None => {}
        Attention::Deep { .. } => return Err(attention.name()),
    }
    match norms.kind {
        Norm::Layer => {}
        Norm::Rms { .. } => return Err(norms.kind.name()),
    }
    if !norms.ln0 {
        return Err("an embedding without a norm");
    }
    match (group, norms.group) {
        (true, true) | (false, false) => Ok(()),
        (true, false) => Err("a time mix without its group norm"),
        (false, true) => Err("a time mix with a group norm that it is not known to have"),
    }
}

/// The model has this mechanism, which the engine does not compute.
pub(crate) fn unsupported(description: &ModelDescription, mechanism: &'static str) -> EngineError {
    EngineError::UnsupportedVersion { version: description.version.to_string(), mechanism }
}

/// Refuses a model that the engine does not run.
///
/// # Errors
/// When a mechanism is not [supported](supports), or the sizes contradict each other.
pub fn check(description: &ModelDescription) -> Result<(), EngineError> {
    supports(&description.mechanisms).map_err(|mechanism| unsupported(description, mechanism))?;
    let sizes = &description.hyperparameters;
    let heads = if sizes.heads == 0 { sizes.attention } else { sizes.heads.saturating_mul(sizes.head_size) };
    if sizes.channels == 0 || sizes.ffn == 0 || sizes.layers == 0 || sizes.attention != sizes.channels || heads != sizes.attention {
        let found = format!("C {}, A {}, F {}, H {}, N {}", sizes.channels, sizes.attention, sizes.ffn, sizes.heads, sizes.head_size);
        let expected = "C = A = H * N, all positive".to_owned();
        return Err(WeightsError::ShapeMismatch { tensor: "(hyperparameters)".to_owned(), found, expected }.into());
    }
    Ok(())
}
