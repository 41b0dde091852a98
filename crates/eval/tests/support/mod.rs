//! What the tests of this crate share: models in memory that can be changed, fixtures.
#![allow(dead_code, reason = "each test binary uses its own part of this module")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "a test helper that fails should fail loudly"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rwkv_forge_eval::Runnable;
use rwkv_forge_eval::npy::{Array, Elements};
use rwkv_forge_model::{Configuration, Epsilon, ModelDescription, Version, describe, describe_with};
use rwkv_forge_tensor::{Encoding, TensorSource};
use rwkv_forge_testkit::hybrids::{Variant, random_hybrid};
use rwkv_forge_testkit::models::{MemorySource, Options, Sizes, random_model_with};

/// A model and what it is.
pub(crate) struct Loaded {
    pub(crate) source: Arc<dyn TensorSource>,
    pub(crate) description: ModelDescription,
}

fn fixture(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(relative)
}

impl Loaded {
    fn new(source: Arc<dyn TensorSource>) -> Self {
        let description = describe(source.tensors()).expect("a complete model");
        Self { source, description }
    }

    /// A trained checkpoint of the repository.
    pub(crate) fn fixture(name: &str) -> Self {
        let path = fixture(&format!("checkpoints/{name}.pth"));
        Self::new(rwkv_forge_checkpoint::open(&path, &rwkv_forge_checkpoint::Limits::default()).expect("the fixture opens").into())
    }

    /// The model itself.
    pub(crate) fn model(&self) -> rwkv_forge_weights::Model {
        rwkv_forge_weights::Model::over(Arc::clone(&self.source), self.description.clone())
    }

    pub(crate) fn runnable(&self) -> Runnable {
        Runnable::new(&self.model())
    }

    /// A copy in f32 with every element of one tensor replaced by `f(index, value)`.
    pub(crate) fn edited(&self, name: &str, f: impl Fn(usize, f32) -> f32) -> Self {
        assert!(self.description.find(name).is_some(), "no tensor {name}");
        let model = self.model();
        let tensors = self.description.tensors.iter().map(|spec| {
            let mut values: Vec<f32> = model.values(spec).unwrap();
            if spec.name == name {
                values.iter_mut().enumerate().for_each(|(i, value)| *value = f(i, *value));
            }
            (spec.name.clone(), spec.shape.clone(), values)
        });
        Self::new(Arc::new(MemorySource::from_f32(tensors.collect())))
    }

    /// A copy with all large matrices in a block format.
    pub(crate) fn quantized(&self, format: &str) -> Self {
        let format = rwkv_forge_quant::by_name(format).expect("a known format");
        let model = self.model();
        let tensors = self.description.tensors.iter().map(|spec| {
            let values: Vec<f32> = model.values(spec).unwrap();
            if !spec.role.is_matrix() {
                let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                return (spec.name.clone(), spec.shape.clone(), Encoding::F32, bytes);
            }
            let mut bytes = vec![0; format.encoding().byte_len(&spec.shape).unwrap() as usize];
            format.encode(&values, &mut bytes).unwrap();
            (spec.name.clone(), spec.shape.clone(), format.encoding(), bytes)
        });
        Self::new(Arc::new(MemorySource::new(tensors.collect())))
    }
}

/// 3 layers of 64 channels in heads of 16, 50 tokens.
pub(crate) fn random(version: Version, seed: u64) -> Loaded {
    random_with_vocabulary(version, seed, 50)
}

const SIZES: Sizes = Sizes { layers: 3, channels: 64, head_size: 16, ffn: 96, vocabulary: 50, ranks: [8, 9, 7, 10] };

pub(crate) fn random_with_vocabulary(version: Version, seed: u64, vocabulary: usize) -> Loaded {
    Loaded::new(Arc::new(random_model_with(version, &Sizes { vocabulary, ..SIZES }, &Options::default(), seed)))
}

pub(crate) fn random_with_layers(version: Version, seed: u64, layers: usize) -> Loaded {
    Loaded::new(Arc::new(random_model_with(version, &Sizes { layers, ..SIZES }, &Options::default(), seed)))
}

/// A hybrid with Qwen of the same sizes.
pub(crate) fn hybrid(version: Version, seed: u64) -> Loaded {
    let source = random_hybrid(version, &SIZES, &Variant::FULL, seed);
    let configuration = Configuration {
        rms_epsilon: Epsilon::new(1e-6),
        heads: Some(4),
        kv_heads: Some(Variant::FULL.kv_heads as u64),
        ..Configuration::default()
    };
    let description = describe_with(source.tensors(), &configuration).expect("a complete hybrid");
    Loaded { source: Arc::new(source), description }
}

/// A fixed sequence of ids below 50.
pub(crate) fn tokens(count: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * i * 7 + i * 3 + 11) % 50) as u32).collect()
}

/// A float32 array below `fixtures/`.
pub(crate) fn npy_f32(relative: &str) -> Vec<f32> {
    match Array::parse(&std::fs::read(fixture(relative)).unwrap()).unwrap().elements {
        Elements::F32(values) => values,
        Elements::U16(_) => panic!("{relative} is uint16"),
    }
}

/// The 4,096 token ids that the recorded results belong to.
pub(crate) fn recorded_tokens() -> Vec<u32> {
    match Array::parse(&std::fs::read(fixture("oracles/tokens-320.npy")).unwrap()).unwrap().elements {
        Elements::U16(values) => values.into_iter().map(u32::from).collect(),
        Elements::F32(_) => panic!("token ids are uint16"),
    }
}
