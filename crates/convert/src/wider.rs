//! What to ask for where a type cannot hold the values of some tensors: something that the container has. Start at [`instead`].

use rwkv_forge_container::Container;
use rwkv_forge_model::Choice;
use rwkv_forge_tensor::Encoding;

/// Most tensors that a hint names: whatever else is too small or too large is named by the next refusal.
const NAMED: usize = 4;
/// The types that hold whatever f16 cannot, the shorter one first.
const WIDE: [Encoding; 2] = [Encoding::BF16, Encoding::F32];

/// How to get a file of these tensors, canonical names, whose values `found` cannot hold.
pub(crate) fn instead(container: &dyn Container, choices: &[Choice], found: Encoding, tensors: &[&str]) -> String {
    let wide: Vec<Encoding> = WIDE.into_iter().filter(|encoding| container.holds(*encoding) && found != Encoding::F32).collect();
    let (Some(shortest), Some(widest)) = (wide.first(), wide.last()) else {
        return format!(
            "nothing that {} files have is wider: convert to another container, for example --to safetensors --type f32",
            container.name()
        );
    };
    let names = tensors.iter().take(NAMED).map(|name| name.replace('.', "\\.")).collect::<Vec<_>>();
    let set = match names.as_slice() {
        [name] => format!("--set '^{name}$={widest}'"),
        several => format!("--set '^({})$={widest}'", several.join("|")),
    };
    // Another type for all is no way out where the others were to be blocks.
    let of_floats = choices.iter().all(|choice| choice.encoding.is_float());
    let all = if of_floats { format!("--type {shortest} or ") } else { String::new() };
    format!("choose a wider type for it, for example {all}{set}")
}
