//! What weights are multiplied with, for those who gather statistics of it.

/// The same rows of inputs of one or more weights, in the order of the tokens.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Canonical names of the tensors that are multiplied with these rows. RWKV-6's `time_maa_w2` has five matrices with inputs
    /// of their own: its name comes five times in a row, for one matrix after the other.
    pub weights: &'a [&'a str],
    /// Length of a row.
    pub columns: usize,
    /// `[tokens, columns]`.
    pub rows: &'a [f32],
}

/// Sees the inputs of every weight of a layer, some tokens at a time. Called by the thread that runs the layer.
pub trait Tap: Sync {
    /// Inputs of some weights. The tokens of a call come in the same pieces to all weights of a layer.
    fn inputs(&self, inputs: &Inputs<'_>);
}
