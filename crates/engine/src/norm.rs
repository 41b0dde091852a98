//! Layer norm of rows of the residual stream.

use crate::load::Norm;
use crate::machine::{Machine, pass};

pass! {
    LayerNorm { x: &'a [f32], weight: &'a [f32], bias: &'a [f32], out: &'a mut [f32] } { crate::ops::layer_norm(x, weight, bias, out) }
}

impl Norm {
    pub(crate) fn elements(&self) -> usize {
        self.weight.len() + self.bias.len()
    }

    /// Layer norm of every token: `x [tokens, channels]` to `out`.
    pub(crate) fn rows(&self, machine: &mut Machine, x: &[f32], out: &mut [f32]) {
        let channels = self.weight.len();
        machine.for_each_row(out, channels, |isa, _, token, out| {
            let x = &x[token * channels..(token + 1) * channels];
            isa.run(LayerNorm { x, weight: &self.weight, bias: &self.bias, out });
        });
    }
}
