//! The `config.json` beside tensors: what no tensor says, and what must not contradict them. Start at [`Config::read`].
//!
//! Published files are wrong often enough: sizes come from the shapes of tensors, and other numbers in the file are notes. What changes how a
//! model is computed is used, or refused by its name. `rescale_every` of RWKV-4 to RWKV-6 is about the arithmetic of one library: the
//! weights in its files are not rescaled.

use std::path::PathBuf;

use rwkv_forge_container::{Beside, CONFIG, ContainerError};
use rwkv_forge_model::{ChannelMix, Configuration, Epsilon, ModelDescription, Norm};
use rwkv_forge_tensor::{BoxError, shorten};
use serde_json::Value;

/// Epsilon of the layer norms of RWKV.
const LAYER_NORM: f64 = 1e-5;
/// Epsilon of the group norm over heads.
const GROUP_NORM: f64 = 64e-5;
/// Names of the epsilon of layer norms: flash-linear-attention's, Transformers', and one that others have.
const LAYER_NORM_KEYS: [&str; 3] = [FLA_NORM, "layer_norm_epsilon", "layer_norm_eps"];
/// flash-linear-attention's, whose group norm has this times the head size.
const FLA_NORM: &str = "norm_eps";
/// Names of the epsilon of the group norm where it has one.
const GROUP_NORM_KEYS: [&str; 2] = ["group_norm_epsilon", "group_norm_eps"];
/// The number whose square times 1e-5 is the epsilon of the group norm of RWKV-5 and RWKV-6 in Transformers' style.
const DIVISOR: &str = "head_size_divisor";
/// flash-linear-attention's switches of what every RWKV has: a norm before the first layer, and biases in its layer norms.
const NORM_KEYS: [&str; 2] = ["norm_first", "norm_bias"];
/// Names of the square of what is positive.
const RELU_SQUARED: [&str; 4] = ["sqrelu", "relu2", "relu_squared", "squared_relu"];
/// Names of x sigmoid(x).
const SILU: [&str; 2] = ["silu", "swish"];

/// A parsed configuration.
pub(crate) struct Config {
    path: PathBuf,
    value: Value,
}

impl Config {
    /// The one beside a model; `None` when there is none.
    pub(crate) fn read(beside: &Beside) -> Result<Option<Self>, BoxError> {
        let Some((path, bytes)) = beside.bytes(CONFIG)? else { return Ok(None) };
        let bad = |problem: String| ContainerError::BadBeside { path: path.clone(), problem };
        match serde_json::from_slice(&bytes) {
            Ok(value @ Value::Object(_)) => Ok(Some(Self { path, value })),
            Ok(other) => Err(bad(format!("it is {}, expected an object, `{{...}}`: correct or remove it", text(&other))).into()),
            Err(error) => Err(bad(format!("it is no JSON: {error}; correct or remove it")).into()),
        }
    }

    pub(crate) fn bad(&self, problem: String) -> ContainerError {
        ContainerError::BadBeside { path: self.path.clone(), problem }
    }

    /// What is said under a key; null is nothing.
    fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    /// What it says beyond the tensors; of RWKV itself that is only whether the head is the embedding, and what its keys call heads is often
    /// something else.
    pub(crate) fn configuration(&self, hybrid: bool) -> Result<Configuration, ContainerError> {
        let tied_head = match self.get("tie_word_embeddings") {
            None => false,
            Some(Value::Bool(tied)) => *tied,
            Some(found) => return Err(self.bad(format!("tie_word_embeddings is {}, expected true or false", text(found)))),
        };
        if !hybrid {
            return Ok(Configuration { tied_head, ..Configuration::default() });
        }
        let rms_epsilon = match self.get("rms_norm_eps") {
            None => None,
            Some(number) => {
                #[allow(clippy::cast_possible_truncation, reason = "runtimes compute with the nearest f32")]
                let epsilon = number.as_f64().and_then(|eps| Epsilon::new(eps as f32));
                Some(epsilon.ok_or_else(|| self.bad(format!("rms_norm_eps is {number}, expected a positive number")))?)
            }
        };
        let count = |key: &str| match self.get(key) {
            None => Ok(None),
            Some(number) => match number.as_u64().filter(|count| *count > 0) {
                Some(count) => Ok(Some(count)),
                None => Err(self.bad(format!("{key} is {number}, expected a positive integer"))),
            },
        };
        Ok(Configuration { rms_epsilon, heads: count("num_attention_heads")?, kv_heads: count("num_key_value_heads")?, tied_head })
    }

    /// Refuses what would have to be computed otherwise than it is.
    pub(crate) fn check(&self, model: &ModelDescription) -> Result<(), ContainerError> {
        let norms = model.mechanisms.norms;
        if norms.kind == Norm::Layer {
            LAYER_NORM_KEYS.iter().try_for_each(|key| self.check_number(model, key, LAYER_NORM))?;
            NORM_KEYS.iter().try_for_each(|key| self.check_switch(model, key))?;
        }
        if norms.group {
            GROUP_NORM_KEYS.iter().try_for_each(|key| self.check_number(model, key, GROUP_NORM))?;
            self.check_number(model, DIVISOR, (GROUP_NORM / LAYER_NORM).sqrt())?;
            self.check_fla_group_norm(model)?;
        }
        let known: &[&str] = match model.mechanisms.channel_mix {
            ChannelMix::ReluSquared { .. } | ChannelMix::DeepEmbed { .. } => &RELU_SQUARED,
            ChannelMix::SwiGlu => &SILU,
        };
        match self.get("hidden_act") {
            Some(found) if !found.as_str().is_some_and(|name| known.contains(&name)) => {
                Err(self.setting(model, "hidden_act", text(found), known.first().copied().unwrap_or_default().to_owned()))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_switch(&self, model: &ModelDescription, key: &str) -> Result<(), ContainerError> {
        match self.get(key) {
            Some(found) if found.as_bool() != Some(true) => Err(self.setting(model, key, text(found), "true".to_owned())),
            Some(_) | None => Ok(()),
        }
    }

    fn check_number(&self, model: &ModelDescription, key: &str, expected: f64) -> Result<(), ContainerError> {
        match self.get(key) {
            Some(found) if !found.as_f64().is_some_and(|number| is_same(number, expected)) => {
                Err(self.setting(model, key, text(found), format!("{expected}")))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// flash-linear-attention has no setting for the group norm's epsilon: with other heads than those of 64 channels it has another one.
    fn check_fla_group_norm(&self, model: &ModelDescription) -> Result<(), ContainerError> {
        let size = u32::try_from(model.hyperparameters.head_size).map_or(f64::INFINITY, f64::from);
        match self.get(FLA_NORM) {
            Some(_) if !is_same(LAYER_NORM * size, GROUP_NORM) => {
                let key = format!("{FLA_NORM} times the size of a head, the epsilon of the group norm,");
                Err(self.setting(model, &key, format!("{LAYER_NORM} * {size}"), format!("{GROUP_NORM}")))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn setting(&self, model: &ModelDescription, key: &str, found: String, expected: String) -> ContainerError {
        ContainerError::Setting { path: self.path.clone(), key: key.to_owned(), found, expected, version: model.version }
    }

    /// What it says of sizes that the tensors contradict, and that the head is the embedding: a sentence each.
    pub(crate) fn notes(&self, model: &ModelDescription) -> Vec<String> {
        let sizes = &model.hyperparameters;
        let of = |rank: Option<usize>| rank.filter(|rank| *rank > 0);
        let known = [
            ("hidden_size", Some(sizes.channels)),
            ("num_hidden_layers", Some(sizes.layers)),
            ("intermediate_size", Some(sizes.ffn)),
            ("vocab_size", Some(sizes.vocabulary)),
            ("head_dim", of(Some(sizes.head_size))),
            ("head_size", of(Some(sizes.head_size))),
            ("num_heads", of(Some(sizes.heads))),
            ("decay_low_rank_dim", of(sizes.ranks.decay)),
            ("a_low_rank_dim", of(sizes.ranks.iclr)),
            ("v_low_rank_dim", of(sizes.ranks.value)),
            ("gate_low_rank_dim", of(sizes.ranks.gate)),
        ];
        let differs = |(key, size): (&str, Option<usize>)| {
            let (found, size) = (self.get(key)?, size?);
            let is_same = found.as_f64().is_some_and(|found| is_same(found, u32::try_from(size).map_or(f64::NAN, f64::from)));
            (!is_same).then(|| format!("{key} {} for {size}", text(found)))
        };
        let wrong: Vec<String> = known.into_iter().filter_map(differs).collect();
        let wrong = self.other_kind(model).into_iter().chain(wrong).collect::<Vec<_>>();
        (!wrong.is_empty()).then(|| format!("{CONFIG} contradicts the tensors, which count: {}", wrong.join(", "))).into_iter().collect()
    }

    /// A `model_type` that is an RWKV of another number.
    fn other_kind(&self, model: &ModelDescription) -> Option<String> {
        let digit = |name: &str| name.chars().find(char::is_ascii_digit);
        let kind = self.get("model_type")?.as_str()?;
        let said = kind.to_ascii_lowercase().strip_prefix("rwkv").and_then(digit)?;
        let version = model.version.to_string();
        (digit(&version) != Some(said)).then(|| format!("model_type \"{}\" for {version}", shorten(kind)))
    }
}

/// A value from the file as a message has it.
fn text(value: &Value) -> String {
    shorten(&value.to_string())
}

/// Equal as f32, which runtimes compute with.
fn is_same(one: f64, other: f64) -> bool {
    #[allow(clippy::cast_possible_truncation, reason = "the nearest f32 is meant")]
    let (one, other) = (one as f32, other as f32);
    one.to_bits() == other.to_bits()
}
