//! Which mechanisms the kernel computes.

use rwkv_forge_model::{Attention, ChannelMix, Mechanisms, ModelDescription, Norm, TimeMix, TokenShift};

use crate::error::KernelError;

/// Whether the kernel computes all of these.
///
/// # Errors
/// What people call the first of them that it does not.
pub fn supports(mechanisms: &Mechanisms) -> Result<(), &'static str> {
    // Taken apart, so that whatever is added to a model is thought of here.
    let Mechanisms { time_mix, time_shift, channel_mix, channel_shift, attention, norms, vocabulary: _ } = *mechanisms;
    match norms.kind {
        Norm::Layer | Norm::Rms { .. } => {}
    }
    match attention {
        Attention::None | Attention::Deep { .. } => {}
    }
    group_norm(time_mix, norms.group)?;
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
    match (channel_mix, channel_shift) {
        (ChannelMix::ReluSquared { receptance }, TokenShift::Blend { factors } | TokenShift::Lerp { factors, lora: None })
            if factors.len() == 1 + usize::from(receptance) => {}
        (ChannelMix::DeepEmbed { .. }, TokenShift::Lerp { factors: ["ffn.x_k"], lora: None }) | (ChannelMix::SwiGlu, TokenShift::None) => {}
        (
            ChannelMix::ReluSquared { .. } | ChannelMix::DeepEmbed { .. },
            TokenShift::Blend { .. } | TokenShift::Lerp { .. } | TokenShift::None,
        )
        | (ChannelMix::SwiGlu, TokenShift::Blend { .. } | TokenShift::Lerp { .. }) => return Err(channel_shift.name()),
    }
    Ok(())
}

/// Whether heads are normalised is a part of most time mixes.
fn group_norm(time_mix: TimeMix, there: bool) -> Result<(), &'static str> {
    match (time_mix, there) {
        (TimeMix::Wkv4 | TimeMix::Qrwkv6 { .. }, false)
        | (TimeMix::Wkv5 { .. } | TimeMix::Wkv6 { .. }, true)
        | (TimeMix::Wkv7 { .. }, _) => Ok(()),
        (TimeMix::Wkv4 | TimeMix::Qrwkv6 { .. }, true) => Err("a time mix with a group norm that it is not known to have"),
        (TimeMix::Wkv5 { .. } | TimeMix::Wkv6 { .. }, false) => Err("a time mix without its group norm"),
    }
}

/// Refuses a model with other mechanisms.
pub(crate) fn check(description: &ModelDescription) -> Result<(), KernelError> {
    supports(&description.mechanisms).map_err(|mechanism| unsupported(description, mechanism))
}

/// The model has this mechanism, which the kernel does not compute.
pub(crate) fn unsupported(description: &ModelDescription, mechanism: &'static str) -> KernelError {
    KernelError::UnsupportedVersion { version: description.version.to_string(), mechanism }
}
