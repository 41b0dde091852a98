//! Models and tokens for the tests.
#![allow(dead_code, reason = "each test binary uses its own part of this module")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test helper that fails should fail loudly")]

use std::sync::Arc;

use std::path::{Path, PathBuf};

use rwkv_forge_forms::{FormsOptions, FormsReport, Progress, compare};
use rwkv_forge_model::{ModelDescription, Version, describe};
use rwkv_forge_tensor::TensorSource;
use rwkv_forge_testkit::models::{Decay, MemorySource, Options, Sizes, SplitMix64, random_model_with};
use rwkv_forge_weights::Model;

/// Trained models that are always there.
pub(crate) const TINY: [&str; 4] = ["tiny-rwkv4", "tiny-rwkv5", "tiny-rwkv6", "tiny-rwkv7"];

/// 3 layers of 64 channels in 4 heads, 50 tokens, every rank different.
pub(crate) const SIZES: Sizes = Sizes { layers: 3, channels: 64, head_size: 16, ffn: 96, vocabulary: 50, ranks: [8, 9, 7, 10] };

/// A source and what it holds.
pub(crate) struct Loaded {
    pub(crate) source: Arc<dyn TensorSource>,
    pub(crate) description: ModelDescription,
}

impl Loaded {
    pub(crate) fn of(source: Arc<dyn TensorSource>) -> Self {
        let description = describe(source.tensors()).unwrap();
        Self { source, description }
    }

    pub(crate) fn model(&self) -> Model {
        Model::over(Arc::clone(&self.source), self.description.clone())
    }
}

pub(crate) fn open(path: &Path) -> Loaded {
    let source = rwkv_forge_checkpoint::open(path, &rwkv_forge_checkpoint::Limits::default());
    Loaded::of(source.unwrap_or_else(|error| panic!("{}: {error}", path.display())).into())
}

pub(crate) fn repository(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(relative)
}

/// One of [`TINY`].
pub(crate) fn tiny(name: &str) -> Loaded {
    open(&repository(&format!("fixtures/checkpoints/{name}.pth")))
}

/// Typical decays, decays as fast as the version can have, and decays near 1, by the seed.
pub(crate) fn decay(seed: u64) -> Decay {
    [Decay::Typical, Decay::Fast, Decay::Slow][(seed % 3) as usize]
}

pub(crate) fn random_source(version: Version, seed: u64) -> MemorySource {
    let bonus_as_logarithm = [Version::V5_0, Version::V5_1].contains(&version);
    random_model_with(version, &SIZES, &Options { decay: decay(seed), bonus_as_logarithm, ..Options::default() }, seed)
}

pub(crate) fn random(version: Version, seed: u64) -> Loaded {
    Loaded::of(Arc::new(random_source(version, seed)))
}

/// Token ids below the model's vocabulary.
pub(crate) fn tokens(model: &Loaded, count: usize, seed: u64) -> Vec<u32> {
    let mut numbers = SplitMix64::new(seed);
    (0..count).map(|_| numbers.below(model.description.hyperparameters.vocabulary) as u32).collect()
}

/// Both forms of one model.
pub(crate) fn forms(model: &Loaded, tokens: &[u32], options: &FormsOptions) -> FormsReport {
    compare(&model.model(), &model.model(), tokens, options, &mut |_: Progress| ()).unwrap()
}
