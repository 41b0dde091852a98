//! The baseline: a plain stack of attention layers with a cache of keys and values, on candle, in f32.
//!
//! It has the width, depth, heads, feed-forward width and vocabulary of the model that it stands beside, and random
//! weights: a stand-in for what attention costs, not for what it can do. One layer is
//! x += O attention(Q ln(x), K ln(x), V ln(x)), x += V' relu(K' ln(x))^2, so 4 C^2 + 2 C F weights as in RWKV.

use candle_core::{D, Device, Result, Tensor};
use rwkv_forge_tensor::SplitMix64;

/// Sizes of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionSizes {
    /// C: width of the residual stream.
    pub channels: usize,
    /// Number of layers.
    pub layers: usize,
    /// Heads, each of C / heads channels.
    pub heads: usize,
    /// Width of the feed-forward part.
    pub ffn: usize,
    /// Rows of the embedding and of the head.
    pub vocabulary: usize,
    /// Positions that the cache has room for. The room is address space: pages cost memory when they are first used.
    pub capacity: usize,
}

/// The stack with its cache.
pub struct Attention {
    sizes: AttentionSizes,
    embedding: Tensor,
    layers: Vec<AttentionLayer>,
    head: Tensor,
    random: Random,
    length: usize,
}

struct AttentionLayer {
    /// Queries, keys and values in one matrix `[C, 3 C]`.
    inputs: Tensor,
    /// `[C, C]`.
    output: Tensor,
    /// `[C, F]`.
    key: Tensor,
    /// `[F, C]`.
    value: Tensor,
    /// Keys `[heads, capacity, C / heads]`.
    keys: Tensor,
    /// Values, as the keys.
    values: Tensor,
}

impl Attention {
    /// Random weights from a fixed seed, and an empty cache.
    ///
    /// # Errors
    /// When candle cannot make a tensor.
    ///
    /// # Panics
    /// When the heads do not divide the channels: a mistake of the caller.
    pub fn new(sizes: AttentionSizes) -> Result<Self> {
        assert!(sizes.heads > 0 && sizes.channels.is_multiple_of(sizes.heads), "{sizes:?}");
        let AttentionSizes { channels, heads, ffn, vocabulary, capacity, .. } = sizes;
        let mut random = Random::new(1);
        let room = || Tensor::zeros((heads, capacity, channels / heads), candle_core::DType::F32, &Device::Cpu);
        let layers = (0..sizes.layers).map(|_| {
            Ok(AttentionLayer {
                inputs: random.matrix(channels, 3 * channels)?,
                output: random.matrix(channels, channels)?,
                key: random.matrix(channels, ffn)?,
                value: random.matrix(ffn, channels)?,
                keys: room()?,
                values: room()?,
            })
        });
        let layers = layers.collect::<Result<Vec<_>>>()?;
        Ok(Self {
            sizes,
            embedding: random.matrix(vocabulary, channels)?,
            layers,
            head: random.matrix(channels, vocabulary)?,
            random,
            length: 0,
        })
    }

    /// Positions in the cache.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Fills the cache up to `length` positions with random keys and values. What a token costs does not depend on what
    /// the values are, so this stands for having generated so many tokens.
    ///
    /// # Errors
    /// When `length` is beyond the capacity.
    pub fn fill(&mut self, length: usize) -> Result<()> {
        let AttentionSizes { channels, heads, .. } = self.sizes;
        while self.length < length {
            let rows = (length - self.length).min(256);
            for layer in &self.layers {
                for cache in [&layer.keys, &layer.values] {
                    let values = self.random.values(rows * channels, 1.0);
                    cache.slice_set(&Tensor::from_vec(values, (heads, rows, channels / heads), &Device::Cpu)?, 1, self.length)?;
                }
            }
            self.length += rows;
        }
        Ok(())
    }

    /// Bytes of keys and values of the first `positions` positions, counted from the tensors.
    ///
    /// # Errors
    /// When there are more positions than the cache has room for.
    pub fn cache_bytes(&self, positions: usize) -> Result<u64> {
        let mut bytes = 0;
        for cache in self.layers.iter().flat_map(|layer| [&layer.keys, &layer.values]) {
            let used = cache.narrow(1, 0, positions)?;
            bytes += (used.elem_count() * used.dtype().size_in_bytes()) as u64;
        }
        Ok(bytes)
    }

    /// Bytes of all weights, counted from the tensors.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        let layers = self.layers.iter().flat_map(|layer| [&layer.inputs, &layer.output, &layer.key, &layer.value]);
        layers.chain([&self.embedding, &self.head]).map(|t| (t.elem_count() * t.dtype().size_in_bytes()) as u64).sum()
    }

    /// The logits after `token` at the position that follows the cache. Its key and value are written there, but the cache
    /// is not made longer, so the same position can be timed again.
    ///
    /// # Errors
    /// When the cache is full or the token beyond the vocabulary.
    pub fn token(&self, token: u32) -> Result<Vec<f32>> {
        let mut x = norm(&self.embedding.narrow(0, token as usize, 1)?)?;
        for layer in &self.layers {
            x = (&x + self.attend(layer, &norm(&x)?)?)?;
            let hidden = norm(&x)?.matmul(&layer.key)?.relu()?.sqr()?;
            x = (&x + hidden.matmul(&layer.value)?)?;
        }
        norm(&x)?.matmul(&self.head)?.flatten_all()?.to_vec1()
    }

    /// One layer's attention over the cache and the token itself: `x [1, C]`.
    fn attend(&self, layer: &AttentionLayer, x: &Tensor) -> Result<Tensor> {
        let AttentionSizes { channels, heads, .. } = self.sizes;
        let size = channels / heads;
        let inputs = x.matmul(&layer.inputs)?.reshape((3, heads, 1, size))?;
        layer.keys.slice_set(&inputs.get(1)?, 1, self.length)?;
        layer.values.slice_set(&inputs.get(2)?, 1, self.length)?;
        let (keys, values) = (layer.keys.narrow(1, 0, self.length + 1)?, layer.values.narrow(1, 0, self.length + 1)?);
        let scores = (inputs.get(0)?.matmul(&keys.t()?)? * (1.0 / (size as f64).sqrt()))?;
        let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        weights.matmul(&values)?.reshape((1, channels))?.matmul(&layer.output)
    }
}

/// Layer norm without weights: with random ones it would cost the same.
fn norm(x: &Tensor) -> Result<Tensor> {
    let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    x.broadcast_div(&(x.sqr()?.mean_keepdim(D::Minus1)? + 1e-5)?.sqrt()?)
}

/// Weights at random.
struct Random(SplitMix64);

impl Random {
    const fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    /// `count` values, uniform in [-scale, scale).
    fn values(&mut self, count: usize, scale: f32) -> Vec<f32> {
        (0..count).map(|_| ((self.0.next_u64() >> 40) as f32 / (1u32 << 23) as f32 - 1.0) * scale).collect()
    }

    /// A matrix `[inputs, outputs]` that keeps the size of what goes through it about the same.
    fn matrix(&mut self, inputs: usize, outputs: usize) -> Result<Tensor> {
        let scale = (3.0 / inputs as f32).sqrt();
        Tensor::from_vec(self.values(inputs * outputs, scale), (inputs, outputs), &Device::Cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: AttentionSizes = AttentionSizes { channels: 32, layers: 2, heads: 4, ffn: 64, vocabulary: 50, capacity: 40 };

    #[test]
    fn bytes_are_exact() {
        let mut stack = Attention::new(SIZES).unwrap();
        // Embedding and head 50 x 32, a layer 4 x 32 x 32 + 2 x 32 x 64, four bytes each.
        assert_eq!(stack.weight_bytes(), 4 * (2 * 50 * 32 + 2 * (4 * 32 * 32 + 2 * 32 * 64)));
        for length in [0, 1, 7, 40] {
            stack.fill(length).unwrap();
            // Keys and values of two layers of 32 channels.
            assert_eq!(stack.cache_bytes(length).unwrap(), (2 * 2 * length * 32 * 4) as u64);
        }
        assert!(stack.token(0).is_err(), "a full cache has no place for another token");
        assert!(stack.fill(41).is_err());
    }

    /// The tensor code against attention written as loops, over a cache that the stack itself filled.
    #[test]
    fn attention_is_what_the_formula_says() {
        let mut stack = Attention::new(SIZES).unwrap();
        stack.fill(9).unwrap();
        let x: Vec<f32> = Random::new(7).values(32, 1.0);
        let layer = &stack.layers[0];
        let got = stack.attend(layer, &Tensor::from_slice(&x, (1, 32), &Device::Cpu).unwrap()).unwrap();
        let got = got.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let product = |x: &[f32], w: &Tensor| -> Vec<f32> {
            let w = w.to_vec2::<f32>().unwrap();
            (0..w[0].len()).map(|o| x.iter().zip(&w).map(|(x, row)| x * row[o]).sum()).collect()
        };
        let inputs = product(&x, &layer.inputs);
        // Key and value of the token itself are in the cache by now.
        let (keys, values) = (layer.keys.to_vec3::<f32>().unwrap(), layer.values.to_vec3::<f32>().unwrap());
        let mut mixed = Vec::new();
        for head in 0..4 {
            let query = &inputs[head * 8..(head + 1) * 8];
            let scores: Vec<f32> =
                (0..10).map(|p| (query.iter().zip(&keys[head][p]).map(|(q, k)| q * k).sum::<f32>() / 8f32.sqrt()).exp()).collect();
            let total: f32 = scores.iter().sum();
            mixed.extend((0..8).map(|n| (0..10).map(|p| scores[p] / total * values[head][p][n]).sum::<f32>()));
        }
        let expected = product(&mixed, &layer.output);
        // The key of the token lies at its position.
        for (got, expected) in got.iter().zip(&expected).chain(keys[1][9].iter().zip(&inputs[32 + 8..32 + 16])) {
            // Sums of at most 32 products of numbers near 1 in f32, in another order: some 1e-6 each.
            assert!((got - expected).abs() < 1e-4, "{got} {expected}");
        }
        // Without the token's own key the result is another one, by more than ten times that.
        let other = stack.token(3).unwrap();
        stack.fill(10).unwrap();
        let moved = stack.token(3).unwrap();
        assert!(other.iter().zip(&moved).any(|(a, b)| (a - b).abs() > 1e-3));
        assert!(other.iter().all(|logit| logit.is_finite()) && other.len() == 50);
    }
}
