//! Small random models of every version, as f32 tensors that tests may change.

use rwkv_forge_model::{ModelDescription, Version};
use rwkv_forge_testkit::models::{Decay, Options, Sizes, random_model_with};
use rwkv_forge_weights::Model;

use super::MemorySource;

/// 3 layers of 64 channels in 4 heads, 50 tokens, every rank different.
const SIZES: Sizes = Sizes { layers: 3, channels: 64, head_size: 16, ffn: 96, vocabulary: 50, ranks: [8, 9, 7, 10] };

/// RWKV-5.0 and 5.1 have the logarithm of the bonus, 5.2 the bonus itself; the decay cycles with the seed through
/// typical, as fast as possible, and nearly none.
pub(crate) fn random_model(version: Version, seed: u64) -> (MemorySource, ModelDescription) {
    let decay = [Decay::Typical, Decay::Fast, Decay::Slow][(seed % 3) as usize];
    let bonus_as_logarithm = [Version::V5_0, Version::V5_1].contains(&version);
    let source = random_model_with(version, &SIZES, &Options { decay, bonus_as_logarithm, ..Options::default() }, seed);
    let model = Model::describe(source).expect("a random model is complete");
    assert_eq!(model.description().version, version);
    MemorySource::copy_of(&model)
}
