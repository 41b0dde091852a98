//! Names of tuned states in files that hold them alone. Start at [`StateNames`].

use rwkv_forge_tensor::TensorInfo;

use super::Wrapping;
use crate::start::TIME_STATE;

/// What a tensor of a state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StatePart {
    /// The matrices `[heads, value, key]` of a layer.
    Matrices,
    /// What the time mix takes for the token before the first, `[channels]`.
    AttShift,
    /// The same of the channel mix.
    FfnShift,
}

/// Whose words the names are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Words {
    /// `blocks.0.att.time_state`: RWKV-LM, RWKV-PEFT, the rwkv package.
    Trainers,
    /// TorchTitan's, older and newer ones.
    TorchTitan,
}

/// Prefix before the number of the layer, name within it.
static KNOWN: &[(Words, &str, &str, StatePart)] = &[
    (Words::Trainers, "blocks.", TIME_STATE, StatePart::Matrices),
    (Words::TorchTitan, "layers.", "linear_attn.initial_wkv_state", StatePart::Matrices),
    (Words::TorchTitan, "layers.", "linear_attn._wkv_state.initial_wkv_state", StatePart::Matrices),
    (Words::TorchTitan, "layers.", "linear_attn.initial_shift", StatePart::AttShift),
    (Words::TorchTitan, "layers.", "linear_attn.initial_attention_shift", StatePart::AttShift),
    (Words::TorchTitan, "layers.", "mlp.initial_shift", StatePart::FfnShift),
    (Words::TorchTitan, "layers.", "mlp.initial_feed_forward_shift", StatePart::FfnShift),
];

/// What the tensors of a file are, if it holds a tuned state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateNames {
    /// Layer and part of each tensor, in the file's order; `None` for those of something else.
    pub tensors: Vec<Option<(usize, StatePart)>>,
    /// Names are TorchTitan's, whose matrices lie as its kernel takes them: `[heads, value, key]`, whatever the container.
    pub torch_titan: bool,
    wrapping: Wrapping,
}

impl StateNames {
    /// Reads the names, without whatever wrappers stand in front of them.
    #[must_use]
    pub fn of(infos: &[TensorInfo]) -> Self {
        let of = |wrapping: &Wrapping, info: &TensorInfo| part(&wrapping.strip(&info.name)?);
        let wrapping = Wrapping::by(infos, |wrapping| infos.iter().filter(|info| of(wrapping, info).is_some()).count());
        let found: Vec<_> = infos.iter().map(|info| of(&wrapping, info)).collect();
        let words = found.iter().flatten().map(|(words, ..)| *words).next();
        // Names of two kinds in one file are not two halves of one state.
        let tensors = found.into_iter().map(|found| found.filter(|(own, ..)| Some(*own) == words).map(|(_, layer, part)| (layer, part)));
        Self { tensors: tensors.collect(), torch_titan: words == Some(Words::TorchTitan), wrapping }
    }

    /// True where every tensor is one of a state.
    #[must_use]
    pub fn is_all(&self) -> bool {
        !self.tensors.is_empty() && self.tensors.iter().all(Option::is_some)
    }

    /// True where some tensor is one of a state.
    #[must_use]
    pub fn is_some(&self) -> bool {
        self.tensors.iter().any(Option::is_some)
    }

    /// What was taken off the names, for people; `None` where nothing was.
    #[must_use]
    pub fn note(&self) -> Option<String> {
        self.wrapping.note()
    }
}

/// Whose words a name is made of, the number of its layer, and what it is.
fn part(name: &str) -> Option<(Words, usize, StatePart)> {
    KNOWN.iter().find_map(|(words, prefix, suffix, part)| {
        let digits = name.strip_prefix(prefix)?.strip_suffix(suffix)?.strip_suffix('.')?;
        let layer: usize = digits.parse().ok()?;
        (layer.to_string() == digits).then_some((*words, layer, *part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rwkv_forge_tensor::Encoding;

    fn names(names: &[&str]) -> StateNames {
        let info = |name: &&str| TensorInfo { name: (*name).to_owned(), shape: vec![2, 4, 4], encoding: Encoding::F32 };
        StateNames::of(&names.iter().map(info).collect::<Vec<_>>())
    }

    #[test]
    fn wrappers_come_off_states_too() {
        for prefix in ["", "module.", "_orig_mod.", "base_model.model.", "model.", "_forward_module.module."] {
            let all = ["blocks.1.att.time_state", "blocks.0.att.time_state"].map(|name| format!("{prefix}{name}"));
            let found = names(&all.each_ref().map(String::as_str));
            assert_eq!(found.tensors, [Some((1, StatePart::Matrices)), Some((0, StatePart::Matrices))], "{prefix}");
            assert_eq!((found.torch_titan, found.note().is_some()), (false, !prefix.is_empty()), "{prefix}");
        }
    }

    #[test]
    fn torch_titan_has_words_of_its_own() {
        let found = names(&["layers.0.linear_attn.initial_wkv_state", "layers.0.linear_attn.initial_shift", "layers.0.mlp.initial_shift"]);
        assert!(found.torch_titan && found.is_all());
        assert_eq!(found.tensors[1..], [Some((0, StatePart::AttShift)), Some((0, StatePart::FfnShift))]);
        let older = ["linear_attn._wkv_state.initial_wkv_state", "linear_attn.initial_attention_shift", "mlp.initial_feed_forward_shift"];
        let older = older.map(|name| format!("model.layers.10.{name}"));
        assert!(names(&older.each_ref().map(String::as_str)).is_all());
    }

    #[test]
    fn other_names_are_of_no_state() {
        let found = names(&["blocks.0.att.time_state", "emb.weight", "blocks.01.att.time_state", "layers.0.linear_attn.initial_wkv_state"]);
        assert_eq!(found.tensors, [Some((0, StatePart::Matrices)), None, None, None]);
        assert!(found.is_some() && !found.is_all());
        assert!(!names(&["emb.weight"]).is_some() && !names(&[]).is_all());
    }
}
