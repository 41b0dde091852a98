//! What the engine's tests share: models in memory, fixtures, and the reference's results for them.
#![allow(dead_code, reason = "each test binary uses its own part of this module")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "a test helper that fails should fail loudly"
)]

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rwkv_forge_engine::{Arithmetic, Engine, EngineOptions, Isa, State};
use rwkv_forge_kernel::{KernelOptions, RecurrentModel};
use rwkv_forge_model::{ModelDescription, Version, describe};
use rwkv_forge_tensor::{Encoding, TensorSource};
use rwkv_forge_testkit::models::{MemorySource, Options, Sizes, random_model_with};
use rwkv_forge_weights::Model;

/// The trained models that are always there.
pub(crate) const TINY: [&str; 4] = ["tiny-rwkv4", "tiny-rwkv5", "tiny-rwkv6", "tiny-rwkv7"];

/// The versions that the engine runs: all but one, whose attention it refuses (`what_is_supported_is_said_by_mechanism`).
pub(crate) fn versions() -> impl Iterator<Item = Version> {
    Version::ALL.into_iter().filter(|version| *version != Version::V7b)
}

/// Channels that all super-blocks divide.
pub(crate) const WIDE: Sizes = Sizes { layers: 3, channels: 256, head_size: 64, ffn: 512, vocabulary: 70, ranks: [32, 16, 24, 40] };
/// Small, and no number of rows a multiple of 16 that need not be.
pub(crate) const ODD: Sizes = Sizes { layers: 3, channels: 72, head_size: 12, ffn: 104, vocabulary: 50, ranks: [8, 9, 7, 10] };

/// A model and what it is.
pub(crate) struct Loaded {
    pub(crate) source: Arc<dyn TensorSource>,
    pub(crate) description: ModelDescription,
}

impl Loaded {
    /// As everything takes it.
    pub(crate) fn model(&self) -> Model {
        Model::over(Arc::clone(&self.source), self.description.clone())
    }

    pub(crate) fn new(source: Arc<dyn TensorSource>) -> Self {
        let description = describe(source.tensors()).expect("a complete model");
        Self { source, description }
    }

    /// None when there is no such file.
    pub(crate) fn open(path: &Path) -> Self {
        Self::new(rwkv_forge_checkpoint::open(path, &rwkv_forge_checkpoint::Limits::default()).expect("the file opens").into())
    }

    /// One of [`TINY`].
    pub(crate) fn tiny(name: &str) -> Self {
        Self::open(&fixture(&format!("checkpoints/{name}.pth")))
    }

    pub(crate) fn random(version: Version, sizes: &Sizes, seed: u64) -> Self {
        let bonus_as_logarithm = [Version::V5_0, Version::V5_1].contains(&version);
        // Tables of whole super-blocks, where the other matrices have them too.
        let deep = if sizes.channels.is_multiple_of(256) { Options::RELEASED } else { Options::DEEP };
        let options = Options { bonus_as_logarithm, deep, ..Options::default() };
        Self::new(Arc::new(random_model_with(version, sizes, &options, seed)))
    }

    /// A copy with all large matrices in one format, and the factors of low-rank pairs as well if `factors`; the rest in f32.
    pub(crate) fn stored_as(&self, encoding: Encoding) -> Self {
        let model = self.model();
        let tensors = self.description.tensors.iter().map(|spec| {
            let values: Vec<f32> = model.values(spec).unwrap();
            let whole = spec.role.is_matrix() && encoding.row_bytes(*spec.shape.last().unwrap()).is_ok();
            let encoding = if whole { encoding } else { Encoding::F32 };
            let mut bytes = vec![0; encoding.byte_len(&spec.shape).unwrap() as usize];
            rwkv_forge_quant::by_encoding(encoding).expect("a known format").encode(&values, &mut bytes).unwrap();
            (spec.name.clone(), spec.shape.clone(), encoding, bytes)
        });
        Self::new(Arc::new(MemorySource::new(tensors.collect())))
    }

    /// A copy in f32 with every element of the tensors whose name ends in `suffix` replaced by `f(value)`.
    pub(crate) fn edited(&self, suffix: &str, f: impl Fn(f32) -> f32) -> Self {
        assert!(self.description.tensors.iter().any(|spec| spec.name.ends_with(suffix)), "no tensor ends in {suffix}");
        let model = self.model();
        let tensors = self.description.tensors.iter().map(|spec| {
            let mut values: Vec<f32> = model.values(spec).unwrap();
            if spec.name.ends_with(suffix) {
                values.iter_mut().for_each(|value| *value = f(*value));
            }
            (spec.name.clone(), spec.shape.clone(), values)
        });
        Self::new(Arc::new(MemorySource::from_f32(tensors.collect())))
    }

    pub(crate) fn engine(&self, options: &EngineOptions) -> Engine {
        Engine::load(&self.model(), options, &mut |_, _| ()).expect("the model loads")
    }

    /// Logits of the reference kernel for every token, one after the other, and its final state.
    pub(crate) fn reference(&self, tokens: &[u32]) -> (Vec<f32>, rwkv_forge_weights::State<f32>) {
        let model = RecurrentModel::<f32>::load(&self.model(), &KernelOptions::default()).unwrap();
        let mut state = rwkv_forge_weights::State::zero(&self.description);
        (model.forward(tokens, &mut state).unwrap(), state)
    }

    /// Logits of the engine for every token, token by token, and its final state.
    pub(crate) fn steps(&self, options: &EngineOptions, tokens: &[u32]) -> (Vec<f32>, State) {
        let mut engine = self.engine(options);
        let mut state = engine.new_state();
        let vocabulary = self.description.hyperparameters.vocabulary;
        let mut logits = vec![0.0; vocabulary * tokens.len()];
        for (token, logits) in tokens.iter().zip(logits.chunks_exact_mut(vocabulary)) {
            engine.step(*token, &mut state, logits).unwrap();
        }
        (logits, state)
    }
}

/// A file below `fixtures/`.
pub(crate) fn fixture(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(relative)
}

/// Options of one thread, or of several.
pub(crate) fn options(arithmetic: Arithmetic, threads: usize) -> EngineOptions {
    EngineOptions { arithmetic, threads: NonZeroUsize::new(threads).expect("at least one"), ..EngineOptions::default() }
}

/// As [`options`], on an instruction set.
pub(crate) fn on(isa: Isa, arithmetic: Arithmetic) -> EngineOptions {
    EngineOptions { isa: Some(isa), ..options(arithmetic, 1) }
}

/// A fixed sequence of ids below `vocabulary`.
pub(crate) fn tokens(count: usize, vocabulary: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * i * 7 + i * 3 + 11) % vocabulary) as u32).collect()
}

/// Agreement of two sets of logits `[positions, vocabulary]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Agreement {
    /// rms(difference) / rms(reference).
    pub(crate) rms_ratio: f64,
    /// Mean KL divergence in nats.
    pub(crate) kl: f64,
    /// Share of positions with the same most probable token.
    pub(crate) top1: f64,
}

pub(crate) fn agreement(reference: &[f32], found: &[f32], vocabulary: usize) -> Agreement {
    assert_eq!(reference.len(), found.len());
    assert!(found.iter().all(|value| value.is_finite()), "logits are finite");
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let difference = square(&mut reference.iter().zip(found).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    let size = square(&mut reference.iter().map(|a| f64::from(*a)));
    let positions = (reference.len() / vocabulary) as f64;
    let (mut kl, mut top1) = (0.0, 0.0);
    for (a, b) in reference.chunks_exact(vocabulary).zip(found.chunks_exact(vocabulary)) {
        let (p, q) = (log_softmax(a), log_softmax(b));
        kl += p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
        top1 += f64::from(u8::from(best(a) == best(b)));
    }
    Agreement { rms_ratio: (difference / size).sqrt(), kl: kl / positions, top1: top1 / positions }
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let most = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|value| (f64::from(*value) - most).exp()).sum();
    logits.iter().map(|value| f64::from(*value) - most - sum.ln()).collect()
}

fn best(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap_or(0)
}

/// The bits of numbers, for comparisons that must be exact.
pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}
