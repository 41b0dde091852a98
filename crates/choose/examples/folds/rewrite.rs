//! The rewrites: which there are, for which versions, and which axes each of them touches.

use rwkv_forge_model::{ChannelMix, ModelDescription};
use rwkv_forge_tensor::format_shape;

use crate::axes::{Part, Space, uses};
use crate::edit::{Action, Edit};
use crate::error::RewriteError;

/// A change of weights that leaves every logit as it is. Versions are those of RWKV itself; hybrids with Qwen are refused.
///
/// C are the channels of the residual stream, A those of the time mix, F those inside the channel mix. Factors are positive and finite.
/// Orders say for each new place which old one comes there: `order[new] = old`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Rewrite {
    /// Weight and bias of ln1 divided by `scale [C]`; what reads them multiplied: receptance, key, value, gate and the first
    /// halves of low-rank pairs. The token shift is linear in each channel, so that it is not touched. All versions.
    Ln1Scale {
        /// The layer.
        layer: usize,
        /// Factors.
        scale: Vec<f64>,
    },
    /// The inputs of att.output divided by `scale [A]`, its columns multiplied. What is divided: the outputs of g2 in RWKV-7, weight and
    /// bias of ln_x in RWKV-5 and 6, the rows of value in RWKV-4. All versions.
    OutputScale {
        /// The layer.
        layer: usize,
        /// Factors.
        scale: Vec<f64>,
    },
    /// Weight and bias of ln2 divided by `scale [C]`, the columns of ffn.key, and up to RWKV-6 of ffn.receptance, multiplied. All versions.
    Ln2Scale {
        /// The layer.
        layer: usize,
        /// Factors.
        scale: Vec<f64>,
    },
    /// The rows of ffn.key divided by the square root of `scale [F]`, the columns of ffn.value multiplied by it: between them lies the
    /// square of the positive part. All versions.
    HiddenScale {
        /// The layer.
        layer: usize,
        /// Factors.
        scale: Vec<f64>,
    },
    /// Weight and bias of ln_out divided by `scale [C]`, the columns of the head multiplied. All versions.
    LnOutScale {
        /// Factors.
        scale: Vec<f64>,
    },
    /// The hidden channels of a channel mix in another order, `[F]`. All versions.
    HiddenOrder {
        /// The layer.
        layer: usize,
        /// Old places.
        order: Vec<usize>,
    },
    /// The value channels in another order inside their heads, `[A]`. RWKV-5, 6 and 7; RWKV-4 has no heads, see
    /// [`Rewrite::HeadOrder`].
    ValueOrder {
        /// One layer, or all with `None`. RWKV-7 mixes the value of layer 0 into every other, so that there only all will do.
        layer: Option<usize>,
        /// Old places.
        order: Vec<usize>,
    },
    /// The channels of the residual stream in another order, `[C]`. All versions.
    ChannelOrder {
        /// Old places.
        order: Vec<usize>,
    },
    /// The heads in another order, `[heads]`; in RWKV-4 every channel of the time mix is a head of its own, `[A]`. All versions.
    HeadOrder {
        /// As in [`Rewrite::ValueOrder`].
        layer: Option<usize>,
        /// Old places.
        order: Vec<usize>,
    },
}

/// What a rewrite comes to: a list of spaces and what happens to them.
enum Effect<'a> {
    /// A fold of one space; the factors by which makers are divided, and readers multiplied.
    Fold(Space, Vec<f64>, &'a [f64]),
    /// All axes of some spaces in another order.
    Order(&'static [Space], &'a [usize]),
}

/// The spaces whose channels are those of the residual stream.
const STREAM: &[Space] = &[Space::Residual, Space::AttentionInput, Space::FfnInput, Space::HeadInput];

impl Rewrite {
    /// `Ln1Scale`, `OutputScale` and so on.
    #[must_use]
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Ln1Scale { .. } => "Ln1Scale",
            Self::OutputScale { .. } => "OutputScale",
            Self::Ln2Scale { .. } => "Ln2Scale",
            Self::HiddenScale { .. } => "HiddenScale",
            Self::LnOutScale { .. } => "LnOutScale",
            Self::HiddenOrder { .. } => "HiddenOrder",
            Self::ValueOrder { .. } => "ValueOrder",
            Self::ChannelOrder { .. } => "ChannelOrder",
            Self::HeadOrder { .. } => "HeadOrder",
        }
    }

    /// The layer, for those that belong to one.
    #[must_use]
    pub(crate) fn layer(&self) -> Option<usize> {
        match self {
            Self::Ln1Scale { layer, .. }
            | Self::OutputScale { layer, .. }
            | Self::Ln2Scale { layer, .. }
            | Self::HiddenScale { layer, .. }
            | Self::HiddenOrder { layer, .. } => Some(*layer),
            Self::ValueOrder { layer, .. } | Self::HeadOrder { layer, .. } => *layer,
            Self::LnOutScale { .. } | Self::ChannelOrder { .. } => None,
        }
    }

    /// The name for messages.
    pub(crate) fn title(&self) -> String {
        self.layer().map_or_else(|| self.name().to_owned(), |layer| format!("{} of layer {layer}", self.name()))
    }

    /// Checks that the rewrite is one of this model.
    ///
    /// # Errors
    /// [`RewriteError::Unsupported`], [`RewriteError::LayerOutOfRange`], [`RewriteError::Length`], [`RewriteError::NotPositive`],
    /// [`RewriteError::NotAPermutation`], [`RewriteError::LeavesHead`].
    pub(crate) fn check(&self, description: &ModelDescription) -> Result<(), RewriteError> {
        let sizes = &description.hyperparameters;
        let layers = sizes.layers;
        if let Some(reason) = self.obstacle(description) {
            return Err(RewriteError::Unsupported { rewrite: self.title(), version: description.version, reason });
        }
        if self.layer().is_some_and(|layer| layer >= layers) {
            return Err(RewriteError::LayerOutOfRange { rewrite: self.title(), layers });
        }
        match self {
            Self::Ln1Scale { scale, .. } | Self::Ln2Scale { scale, .. } | Self::LnOutScale { scale } => {
                self.check_scale(scale, sizes.channels)
            }
            Self::OutputScale { scale, .. } => self.check_scale(scale, sizes.attention),
            Self::HiddenScale { scale, .. } => self.check_scale(scale, sizes.ffn),
            Self::HiddenOrder { order, .. } => self.check_order(order, sizes.ffn),
            Self::ChannelOrder { order } => self.check_order(order, sizes.channels),
            Self::HeadOrder { order, .. } => self.check_order(order, heads(description)),
            Self::ValueOrder { order, .. } => {
                self.check_order(order, sizes.attention)?;
                let head_size = sizes.head_size.max(1);
                match order.iter().enumerate().find(|(to, from)| to / head_size != **from / head_size) {
                    None => Ok(()),
                    Some((to, from)) => Err(RewriteError::LeavesHead { rewrite: self.title(), from: *from, to, head_size }),
                }
            }
        }
    }

    /// Why this version does not have the rewrite.
    fn obstacle(&self, description: &ModelDescription) -> Option<&'static str> {
        let mechanisms = &description.mechanisms;
        let linked = mechanisms.time_mix.has_value_residual();
        match self {
            _ if mechanisms.channel_mix == ChannelMix::SwiGlu => Some("rewrites are of RWKV itself"),
            _ if mechanisms.looks_tokens_up() => Some("rewrites know no tables of a row a token"),
            Self::ValueOrder { .. } if description.hyperparameters.heads == 0 => Some("without heads, values are ordered by HeadOrder"),
            Self::ValueOrder { layer: Some(_), .. } | Self::HeadOrder { layer: Some(_), .. } if linked => {
                Some("the value of layer 0 goes into all layers, so that they need the same order")
            }
            _ => None,
        }
    }

    fn check_scale(&self, scale: &[f64], expected: usize) -> Result<(), RewriteError> {
        if scale.len() != expected {
            return Err(RewriteError::Length { rewrite: self.title(), what: "factors", found: scale.len(), expected });
        }
        match scale.iter().enumerate().find(|(_, factor)| !(factor.is_finite() && **factor > 0.0)) {
            None => Ok(()),
            Some((index, value)) => Err(RewriteError::NotPositive { rewrite: self.title(), index, value: *value }),
        }
    }

    fn check_order(&self, order: &[usize], expected: usize) -> Result<(), RewriteError> {
        if order.len() != expected {
            return Err(RewriteError::Length { rewrite: self.title(), what: "indices", found: order.len(), expected });
        }
        let mut seen = vec![false; expected];
        for (entry, value) in order.iter().enumerate() {
            let problem = match seen.get_mut(*value) {
                None => "out of range",
                Some(true) => "there already",
                Some(seen) => {
                    *seen = true;
                    continue;
                }
            };
            return Err(RewriteError::NotAPermutation { rewrite: self.title(), entry, value: *value, problem, expected });
        }
        Ok(())
    }

    fn effect(&self) -> Effect<'_> {
        match self {
            Self::Ln1Scale { scale, .. } => Effect::Fold(Space::AttentionInput, scale.clone(), scale),
            Self::OutputScale { scale, .. } => Effect::Fold(Space::Value, scale.clone(), scale),
            Self::Ln2Scale { scale, .. } => Effect::Fold(Space::FfnInput, scale.clone(), scale),
            Self::HiddenScale { scale, .. } => Effect::Fold(Space::Hidden, scale.iter().map(|factor| factor.sqrt()).collect(), scale),
            Self::LnOutScale { scale } => Effect::Fold(Space::HeadInput, scale.clone(), scale),
            Self::HiddenOrder { order, .. } => Effect::Order(&[Space::Hidden], order),
            Self::ValueOrder { order, .. } => Effect::Order(&[Space::Value], order),
            Self::ChannelOrder { order } => Effect::Order(STREAM, order),
            Self::HeadOrder { order, .. } => Effect::Order(&[Space::Key, Space::Value], order),
        }
    }

    /// The checked rewrite as changes of axes, in the order of the description's tensors.
    pub(crate) fn edits(&self, description: &ModelDescription) -> Result<Vec<Edit>, RewriteError> {
        self.check(description)?;
        let effect = self.effect();
        let mut edits = Vec::new();
        for (tensor, spec) in description.tensors.iter().enumerate() {
            if self.layer().is_some() && spec.layer != self.layer() {
                continue;
            }
            let unknown = || RewriteError::UnknownTensor { tensor: spec.name.clone(), shape: format_shape(&spec.shape) };
            for found in uses(description.mechanisms.time_mix, spec.suffix()).ok_or_else(unknown)?.into_iter().flatten() {
                let action = match &effect {
                    Effect::Fold(space, divide, _) if *space == found.space && found.part == Part::Makes => Action::Divide(divide.clone()),
                    Effect::Fold(space, _, multiply) if *space == found.space && found.part == Part::Reads => {
                        Action::Multiply(multiply.to_vec())
                    }
                    Effect::Order(spaces, order) if spaces.contains(&found.space) => Action::Reorder(order.to_vec()),
                    _ => continue,
                };
                edits.push(Edit { tensor, axis: found.axis, action });
            }
        }
        Ok(edits)
    }
}

/// Heads; in RWKV-4 channels of the time mix, each with a scalar state.
pub(crate) fn heads(description: &ModelDescription) -> usize {
    let sizes = &description.hyperparameters;
    if sizes.heads == 0 { sizes.attention } else { sizes.heads }
}
