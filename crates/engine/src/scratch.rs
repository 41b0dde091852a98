//! Buffers between the products, sized once for a number of tokens and shared by all layers.

use crate::linear::{Group, Stage};

/// Scratch for up to `tokens` tokens at a time.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Output of a layer norm `[tokens, channels]`.
    pub(crate) normed: Vec<f32>,
    /// Output of the recurrence `[spans, heads, span.len, head_size]`.
    pub(crate) heads: Vec<f32>,
    /// One a group of a layer, in their order; the last two are the channel mix's.
    pub(crate) stages: Vec<Stage>,
}

impl Scratch {
    /// Makes room for the groups of a layer.
    pub(crate) fn reserve(&mut self, groups: Vec<&Group>, tokens: usize, channels: usize) {
        for (index, group) in groups.into_iter().enumerate() {
            self.reserve_stage(index, group, tokens);
        }
        for buffer in [&mut self.normed, &mut self.heads] {
            if buffer.len() < tokens * channels {
                buffer.resize(tokens * channels, 0.0);
            }
        }
    }

    fn reserve_stage(&mut self, index: usize, group: &Group, tokens: usize) {
        if self.stages.len() <= index {
            self.stages.resize_with(index + 1, Stage::default);
        }
        self.stages[index].reserve(group, tokens);
    }

    pub(crate) fn bytes(&self) -> usize {
        let stages: usize = self.stages.iter().map(Stage::bytes).sum();
        (self.normed.capacity() + self.heads.capacity()) * size_of::<f32>() + stages
    }
}
