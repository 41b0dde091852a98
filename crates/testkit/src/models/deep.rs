//! What RWKV-7a and 7b have beyond RWKV-7.

use super::{Maker, Sizes};

impl Maker {
    pub(super) fn layer_7a(&mut self) {
        self.layer_7();
        let Sizes { channels, ffn, vocabulary, .. } = self.sizes;
        let [rank, ..] = self.options.deep;
        self.table("ffn.s_emb", vocabulary, rank * rank, 1.0);
        self.factor("ffn.s1", channels, rank, 1.0);
        self.factor("ffn.s2", rank, ffn, 0.5);
        let scale = self.normals(ffn, 1.0, 0.2);
        self.wide("ffn.s0", &scale);
    }

    pub(super) fn layer_7b(&mut self) {
        self.layer_7a();
        let Sizes { channels, vocabulary, .. } = self.sizes;
        let [_, rank, width] = self.options.deep;
        self.matrix("qkv.qq.weight", width, channels, 1.0);
        self.factor("qkv.k1", channels, rank, 1.0);
        self.factor("qkv.k2", rank, width, 1.0);
        self.factor("qkv.v1", channels, rank, 1.0);
        self.factor("qkv.v2", rank, channels, 1.0);
        self.table("qkv.k_emb", vocabulary, width, 1.0);
        self.table("qkv.v_emb", vocabulary, channels, 1.0);
        for (name, width) in [("q", width), ("k", width), ("v", channels)] {
            let shares: Vec<f32> = (0..width).map(|_| self.rng.uniform()).collect();
            self.wide(&format!("qkv.x_{name}"), &shares);
            // Weights of queries and keys by which products come near the bounds of the scores.
            let gain = if name == "v" { 0.5 * self.residual_gain() } else { 16.0 / (width as f32).sqrt() };
            let (weight, bias) = (self.normals(width, gain, 0.1 * gain), self.normals(width, 0.0, 0.02));
            self.put_in_layer(&format!("qkv.ln{name}.weight"), &[width], &weight);
            self.put_in_layer(&format!("qkv.ln{name}.bias"), &[width], &bias);
        }
    }

    /// A table `[vocabulary, width]`, and the matrix that makes the rest of a row of the token's embedding.
    fn table(&mut self, suffix: &str, vocabulary: usize, width: usize, gain: f32) {
        let values = self.normals(vocabulary * width, 0.0, gain);
        self.put_in_layer(&format!("{suffix}.weight"), &[vocabulary, width], &values);
        self.matrix(&format!("{suffix}_x.weight"), width, self.sizes.channels, gain);
    }
}
