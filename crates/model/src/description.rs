//! A recognised model.

use std::ops::Range;

use crate::mechanism::Mechanisms;
use crate::names::split_layer;
use crate::sizes::Hyperparameters;
use crate::start::StartTensor;
use crate::tensor::{TensorRole, TensorSpec};
use crate::version::Version;

/// A recognised model: complete, consistent, and nothing left over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelDescription {
    /// Architecture.
    pub version: Version,
    /// How its layers compute, as far as this model goes.
    pub mechanisms: Mechanisms,
    /// Sizes.
    pub hyperparameters: Hyperparameters,
    /// Every tensor in canonical order: emb, layers in order (each in the order of its architecture's table), ln_out,
    /// head. The order does not depend on the file's.
    pub tensors: Vec<TensorSpec>,
    /// Source indices of tensors that inference never uses and that were left out on purpose (layer-0 v0/v1/v2 of
    /// RWKV-7), for reports.
    pub unused: Vec<usize>,
    /// The state that each layer starts from, where a tuned one lies among the weights; else none. No weights: what counts, quantizes or
    /// writes [`ModelDescription::tensors`] does not see them.
    pub start: Vec<StartTensor>,
}

impl ModelDescription {
    /// The tensor that an [`Assembly`](crate::Assembly) calls by this number: those of [`ModelDescription::tensors`], then those of
    /// [`ModelDescription::start`].
    #[must_use]
    pub fn part(&self, index: usize) -> Option<&TensorSpec> {
        let of_start = || Some(&self.start.get(index.checked_sub(self.tensors.len())?)?.spec);
        self.tensors.get(index).or_else(of_start)
    }

    /// The tensor with this canonical name. Looked for among those of its layer alone, so that finding all tensors takes no square of
    /// the number of layers.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&TensorSpec> {
        self.find_index(name).and_then(|index| self.tensors.get(index))
    }

    /// Index in [`ModelDescription::tensors`] of the tensor with this canonical name.
    #[must_use]
    pub fn find_index(&self, name: &str) -> Option<usize> {
        let within = |range: Range<usize>| {
            let start = range.start;
            let position = self.tensors.get(range)?.iter().position(|spec| spec.name == name)?;
            start.checked_add(position)
        };
        match split_layer(name) {
            Ok(Some((layer, _))) => within(self.layer_range(usize::try_from(layer).ok()?)),
            _ => {
                let inner = self.inner();
                within(0..inner.start).or_else(|| within(inner.end..self.tensors.len()))
            }
        }
    }

    /// How many canonical tensors each of `stored` stored tensors holds, by index in the source.
    #[must_use]
    pub fn stored_counts(&self, stored: usize) -> Vec<u32> {
        let mut counts = vec![0u32; stored];
        for spec in &self.tensors {
            if let Some(count) = counts.get_mut(spec.source_index) {
                *count = count.saturating_add(1);
            }
        }
        counts
    }

    /// The tensors of a layer in canonical order; none for a layer that the model does not have.
    #[must_use]
    pub fn layer_tensors(&self, layer: usize) -> &[TensorSpec] {
        self.tensors.get(self.layer_range(layer)).unwrap_or_default()
    }

    /// Where the tensors of a layer stand: layers follow each other in the canonical order.
    fn layer_range(&self, layer: usize) -> Range<usize> {
        let inner = self.inner();
        let specs = self.tensors.get(inner.clone()).unwrap_or_default();
        let start = specs.partition_point(|spec| spec.layer < Some(layer));
        let end = specs.partition_point(|spec| spec.layer <= Some(layer));
        inner.start.saturating_add(start)..inner.start.saturating_add(end)
    }

    /// Where the tensors of all layers stand: between the embedding and what follows the last layer.
    fn inner(&self) -> Range<usize> {
        let start = self.tensors.iter().position(|spec| spec.layer.is_some()).unwrap_or(self.tensors.len());
        let end = self.tensors.iter().rposition(|spec| spec.layer.is_some()).map_or(start, |last| last.saturating_add(1));
        start..end
    }

    /// The tensors outside of the layers: embedding, final norm, head.
    pub fn outer_tensors(&self) -> impl Iterator<Item = &TensorSpec> {
        self.tensors.iter().filter(|spec| spec.layer.is_none())
    }

    /// Bytes of a layer's tensors as f32: what holding one layer costs.
    #[must_use]
    pub fn layer_bytes_f32(&self, layer: usize) -> u64 {
        self.layer_tensors(layer).iter().map(|spec| spec.elements().saturating_mul(4)).fold(0, u64::saturating_add)
    }

    /// False for a model whose residual stream is what it is for, such as an embedding model: no logits come of it.
    #[must_use]
    pub fn has_head(&self) -> bool {
        self.outer_tensors().any(|spec| spec.role == TensorRole::Head)
    }

    /// Numbers that the model gives a token: logits, one for each entry of the vocabulary, or without a head the channels of the residual
    /// stream after the last norm.
    #[must_use]
    pub fn outputs(&self) -> usize {
        if self.has_head() { self.hyperparameters.vocabulary } else { self.hyperparameters.channels }
    }

    /// True when the file has one tensor for the embedding and the head.
    #[must_use]
    pub fn has_tied_head(&self) -> bool {
        let index = |role: TensorRole| self.outer_tensors().find(|spec| spec.role == role).map(|spec| spec.source_index);
        index(TensorRole::Head).is_some_and(|head| index(TensorRole::Embedding) == Some(head))
    }

    /// True for a tensor that holds the logarithm of RWKV-5's bonus, which most containers want as it is.
    #[must_use]
    pub fn is_logarithmic_bonus(&self, spec: &TensorSpec) -> bool {
        spec.role == TensorRole::Bonus && self.mechanisms.time_mix.has_logarithmic_bonus()
    }

    /// True for a decay or a bonus of one number a head.
    #[must_use]
    pub fn is_per_head(&self, spec: &TensorSpec) -> bool {
        [TensorRole::Decay, TensorRole::Bonus].contains(&spec.role) && self.mechanisms.time_mix.is_per_head()
    }

    /// One line for people: `RWKV-7, 12 layers, 768 channels, 12 heads of 64, ffn 3072, vocabulary 65536`.
    #[must_use]
    pub fn summary(&self) -> String {
        let sizes = &self.hyperparameters;
        let heads = match sizes.heads {
            0 => String::new(),
            heads => format!(", {heads} heads of {}", sizes.head_size),
        };
        format!(
            "{}, {} layers, {} channels{heads}, ffn {}, vocabulary {}{}",
            self.version,
            sizes.layers,
            sizes.channels,
            sizes.ffn,
            sizes.vocabulary,
            if self.has_head() { "" } else { ", no head" }
        )
    }

    /// Number of parameters of all listed tensors.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(TensorSpec::elements).fold(0, u64::saturating_add)
    }
}
