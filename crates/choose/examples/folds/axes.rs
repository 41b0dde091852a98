//! What the axes of every tensor stand for. All rewrites follow from this table: a permutation of a space reorders each axis in it, a
//! fold divides the axes that make a space's channels and multiplies those that read them.

use rwkv_forge_model::TimeMix;

/// Channels that belong together: the same number means the same channel on every axis of a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// The residual stream.
    Residual,
    /// Output of ln1 in this layer; its channels are those of the residual stream.
    AttentionInput,
    /// Output of ln2 in this layer; likewise.
    FfnInput,
    /// Output of ln_out; likewise.
    HeadInput,
    /// Channels of receptance, key and decay: the state's key index.
    Key,
    /// Channels of value, output norm and gate: the state's value index.
    Value,
    /// Hidden channels of the channel mix.
    Hidden,
}

/// What an axis does with the channels of its space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The channel is proportional to it; all that are marked so in a layer are terms of one sum.
    Makes,
    /// The channel is multiplied with it.
    Reads,
    /// It acts on each channel in a way that a factor does not change, or does not pass through.
    Acts,
}

/// An axis of a tensor in its canonical shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Axis {
    First,
    Last,
    /// All elements in a row: vectors with dimensions of size 1, and `[heads, head size]`.
    All,
}

/// One axis of one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) axis: Axis,
    pub(crate) space: Space,
    pub(crate) part: Part,
}

const fn vector(space: Space, part: Part) -> [Option<Use>; 2] {
    [Some(Use { axis: Axis::All, space, part }), None]
}

const fn first(space: Space, part: Part) -> Option<Use> {
    Some(Use { axis: Axis::First, space, part })
}

const fn last(space: Space, part: Part) -> Option<Use> {
    Some(Use { axis: Axis::Last, space, part })
}

/// The tensor whose values att.output's inputs are proportional to. The group norm of RWKV-5 and 6 is followed by nothing but the gate;
/// that of RWKV-7 by the bonus, so that only the linear end of the gate is left; RWKV-4 has no norm there at all.
const fn makes_output_input(time_mix: TimeMix) -> Option<&'static str> {
    match time_mix {
        TimeMix::Wkv4 => Some("att.value.weight"),
        TimeMix::Wkv5 { .. } | TimeMix::Wkv6 { .. } => Some("att.ln_x"),
        TimeMix::Wkv7 { .. } => Some("att.g2"),
        // Only hybrids have it, which are refused.
        TimeMix::Qrwkv6 { .. } => None,
    }
}

/// The axes of a tensor that a rewrite may touch, `suffix` being its name within the layer. Axes of low-rank pairs' inner
/// widths, of the vocabulary, and of RWKV-6's five mixes belong to no space. `None` for a name that no version has.
pub(crate) fn uses(time_mix: TimeMix, suffix: &str) -> Option<[Option<Use>; 2]> {
    use Part::{Acts, Makes, Reads};
    use Space::{AttentionInput, FfnInput, HeadInput, Hidden, Key, Residual, Value};
    let value = |name: &str| if Some(name) == makes_output_input(time_mix) { Makes } else { Acts };
    Some(match suffix {
        "emb.weight" => [last(Residual, Acts), None],
        "ln0.weight" | "ln0.bias" => vector(Residual, Acts),
        "ln1.weight" | "ln1.bias" => vector(AttentionInput, Makes),
        "ln2.weight" | "ln2.bias" => vector(FfnInput, Makes),
        "ln_out.weight" | "ln_out.bias" => vector(HeadInput, Makes),
        "head.weight" => [last(HeadInput, Reads), None],
        "att.receptance.weight" | "att.key.weight" => [first(Key, Acts), last(AttentionInput, Reads)],
        "att.value.weight" => [first(Value, value("att.value.weight")), last(AttentionInput, Reads)],
        "att.gate.weight" => [first(Value, Acts), last(AttentionInput, Reads)],
        "att.output.weight" => [first(Residual, Acts), last(Value, Reads)],
        "att.ln_x.weight" | "att.ln_x.bias" => vector(Value, value("att.ln_x")),
        "att.w0" | "att.a0" | "att.k_k" | "att.k_a" | "att.r_k" => vector(Key, Acts),
        "att.time_decay" | "att.time_first" | "att.time_faaaa" => vector(Key, Acts),
        "att.v0" => vector(Value, Acts),
        "att.w1" | "att.a1" | "att.v1" | "att.g1" | "att.time_decay_w1" | "att.time_maa_w1" => [first(AttentionInput, Reads), None],
        "att.w2" | "att.a2" | "att.time_decay_w2" => [last(Key, Acts), None],
        "att.v2" => [last(Value, Acts), None],
        "att.g2" => [last(Value, value("att.g2")), None],
        // How much of the previous token a channel takes is the same before and after a factor.
        "att.time_maa_w2" => [last(AttentionInput, Acts), None],
        "ffn.key.weight" => [first(Hidden, Makes), last(FfnInput, Reads)],
        "ffn.value.weight" => [first(Residual, Acts), last(Hidden, Reads)],
        "ffn.receptance.weight" => [first(Residual, Acts), last(FfnInput, Reads)],
        _ if is_mix(suffix, "att.") => vector(AttentionInput, Acts),
        _ if is_mix(suffix, "ffn.") => vector(FfnInput, Acts),
        _ => return None,
    })
}

/// `time_mix_*`, `time_maa_*` and `x_*` with a letter.
fn is_mix(suffix: &str, module: &str) -> bool {
    let name = suffix.strip_prefix(module).unwrap_or("");
    ["time_mix_", "time_maa_", "x_"].iter().any(|start| name.strip_prefix(start).is_some_and(|letter| letter.len() == 1))
}
