//! What to take instead of a type whose loss is too large. Start at [`better_types`].

use rwkv_forge_tensor::Encoding;

use crate::container::Container;
use crate::preset::{Preset, READY, Ready, bits_named};

/// Types that lose less than `preset` does, as a container has them: the smallest first. Ready types of at least as many bits, by their number
/// of bits a weight or by the number in the name, which lose least of all types of their size and of those that are called like them; and
/// then a float type.
///
/// ```
/// use rwkv_forge_convert::better_types;
/// use rwkv_forge_convert::container::by_name;
/// use rwkv_forge_convert::preset::preset_by_name;
///
/// let instead_of = |name, container| Ok::<_, rwkv_forge_convert::ConvertError>(better_types(&preset_by_name(name)?, by_name(container)?));
/// assert_eq!(instead_of("q2_k", "gguf")?[..2], ["4bit", "5bit"]);
/// // At the same bytes there is a better one.
/// assert_eq!(instead_of("q4_k_m", "gguf")?[0], "4bit");
/// // Smaller and better all the same: blocks with a minimum have 5 bits a weight.
/// assert_eq!(instead_of("q4_1", "gguf")?[0], "4bit");
/// assert_eq!(instead_of("8bit", "gguf")?, ["bf16"]);
/// assert_eq!(instead_of("f16", "web-rwkv")?, Vec::<&str>::new());
/// # Ok::<(), rwkv_forge_convert::ConvertError>(())
/// ```
#[must_use]
pub fn better_types(preset: &Preset, container: &dyn Container) -> Vec<&'static str> {
    let is_float = preset.base.is_dense();
    // What is kept as it is in a quantized source gets no better by more bits.
    let own = bits(preset.base).filter(|_| !preset.keeps && !is_float);
    let is_better = |ready: &&Ready| match (preset.ready, own, bits_in(ready, container)) {
        (Some(taken), ..) => rank(ready) > rank(taken) && ready.reference_in(container).is_ok(),
        (None, Some(own), Some(bits)) => bits >= own || bits_named(ready.name) >= bits_named(preset.name),
        (None, ..) => false,
    };
    let ready = READY.iter().filter(is_better).map(|ready| ready.name);
    let floats: &[Encoding] = if is_float { &[Encoding::F32] } else { &[Encoding::BF16, Encoding::F16, Encoding::F32] };
    let float = floats.iter().find(|float| **float != preset.base && container.holds(**float)).filter(|_| !preset.keeps);
    ready.chain(float.map(|float| float.name)).collect()
}

/// Ready types are listed in the order of their bits.
fn rank(ready: &Ready) -> Option<usize> {
    READY.iter().position(|known| known.name == ready.name)
}

/// Bits of a weight, which a mixture has on the whole.
pub(crate) fn bits_in(ready: &Ready, container: &dyn Container) -> Option<f64> {
    let reference = ready.reference_in(container).ok()?;
    let plain = bits(reference.base)?;
    // Only where another type stands in is the mixture one of its own.
    let is_own = ready.reference().base == reference.base;
    #[allow(clippy::cast_precision_loss, reason = "a few hundred at most")]
    let mixed = ready.sixteenths.filter(|_| !is_own).map(|sixteenths| sixteenths as f64 / 16.0);
    Some(mixed.unwrap_or(plain))
}

pub(crate) fn bits(encoding: Encoding) -> Option<f64> {
    Some(rwkv_forge_quant::by_encoding(encoding)?.bits())
}

#[cfg(test)]
mod tests {
    use super::better_types;
    use crate::container::CONTAINERS;
    use crate::preset::{preset_by_name, type_names};

    #[test]
    fn what_is_better_is_held_by_the_container_and_another_type() {
        for container in CONTAINERS {
            for name in type_names() {
                let preset = preset_by_name(name).unwrap();
                for better in better_types(&preset, *container) {
                    assert_ne!(better, name, "{}", container.name());
                    let better = preset_by_name(better).unwrap();
                    let held = better.ready.map_or_else(|| container.holds(better.base), |ready| ready.reference_in(*container).is_ok());
                    assert!(held, "{}: {} instead of {name}", container.name(), better.name);
                }
            }
        }
    }

    /// What is larger and loses more than a ready type of the same container is answered with that type first.
    #[test]
    fn a_type_that_another_one_beats_is_answered_with_that() {
        for (container, name, first) in [
            ("gguf", "q4_1", "4bit"),
            ("gguf", "q5_1", "5bit"),
            ("gguf", "q5_0", "5bit"),
            ("gguf", "iq4_nl", "4bit"),
            ("rwkv-cpp", "q5_1", "5bit"),
        ] {
            let better = better_types(&preset_by_name(name).unwrap(), crate::container::by_name(container).unwrap());
            assert_eq!(better.first(), Some(&first), "{container}: {name}: {better:?}");
        }
    }

    #[test]
    fn types_of_few_bits_have_better_ones_wherever_they_are_held() {
        for container in CONTAINERS {
            for name in ["q2_k", "q3_k_m", "q4_0", "nf4", "sf4", "4bit", "int8"] {
                let preset = preset_by_name(name).unwrap();
                if preset.ready.map_or_else(|| container.holds(preset.base), |ready| ready.reference_in(*container).is_ok()) {
                    assert!(!better_types(&preset, *container).is_empty(), "{}: {name}", container.name());
                }
            }
        }
        assert!(better_types(&preset_by_name("keep").unwrap(), CONTAINERS[0]).is_empty());
    }
}
