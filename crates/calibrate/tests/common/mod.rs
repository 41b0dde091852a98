//! Models and texts for the tests.
#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses a part of it, and tests may fail loudly")]

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rwkv_forge_calibrate::{CalibrateError, Hessians, InputStatistics, Options, Receiver};
use rwkv_forge_engine::Batch;
use rwkv_forge_model::{ModelDescription, describe};
use rwkv_forge_tensor::TensorSource;
use rwkv_forge_tokenizer::Tokenizer;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) fn fixtures() -> PathBuf {
    root().join("fixtures")
}

/// A file that disappears with the value.
pub(crate) struct TestFile(pub(crate) PathBuf);

impl TestFile {
    pub(crate) fn new(name: &str) -> Self {
        // Tests of one program may give one name to two files.
        static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let path = std::env::temp_dir().join(format!(
            "forge-calibrate-{}-{}-{name}",
            std::process::id(),
            NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
        ));
        let _none = std::fs::remove_file(&path);
        Self(path)
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.0);
    }
}

pub(crate) struct Loaded {
    pub(crate) source: Arc<dyn TensorSource>,
    pub(crate) description: ModelDescription,
}

impl Loaded {
    pub(crate) fn open(path: &Path) -> Self {
        let source = rwkv_forge_checkpoint::open(path, &rwkv_forge_checkpoint::Limits::default()).unwrap();
        let description = describe(source.tensors()).unwrap();
        Self { source: source.into(), description }
    }

    pub(crate) fn model(&self) -> rwkv_forge_weights::Model {
        rwkv_forge_weights::Model::over(Arc::clone(&self.source), self.description.clone())
    }

    pub(crate) fn tiny(version: u32) -> Self {
        Self::open(&fixtures().join(format!("checkpoints/tiny-rwkv{version}.pth")))
    }
}

/// Token ids of the beginning of the fixture text, in the vocabulary of the tiny models.
pub(crate) fn tokens(bytes: usize) -> Vec<u32> {
    let vocabulary = std::fs::read(fixtures().join("checkpoints/vocab-320.txt")).unwrap();
    let text = std::fs::read(fixtures().join("text/public-domain-100k.txt")).unwrap();
    Tokenizer::from_bytes("vocab-320", &vocabulary).unwrap().encode(&text[..bytes]).unwrap()
}

pub(crate) fn options(threads: usize, hessians: Hessians) -> Options {
    let mut options = Options { hessians, ..Options::default() };
    options.engine.threads = NonZeroUsize::new(threads).unwrap();
    options
}

/// Keeps everything.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) inputs: Vec<(usize, InputStatistics)>,
    pub(crate) residuals: Vec<Vec<f32>>,
}

impl Receiver for Kept {
    fn before(&mut self, layer: usize, batch: &Batch) -> Result<(), CalibrateError> {
        assert_eq!(layer, self.residuals.len());
        self.residuals.push(batch.x.clone());
        Ok(())
    }

    fn input(&mut self, layer: usize, statistics: InputStatistics) -> Result<(), CalibrateError> {
        self.inputs.push((layer, statistics));
        Ok(())
    }
}

impl Kept {
    pub(crate) fn of(model: &Loaded, sequences: &[&[u32]], options: &Options) -> Self {
        let mut kept = Self::default();
        rwkv_forge_calibrate::calibrate(&model.model(), sequences, options, &mut kept, &|_| {}).unwrap();
        kept
    }

    pub(crate) fn find(&self, weight: &str, part: usize) -> &InputStatistics {
        let named = |input: &&(usize, InputStatistics)| input.1.part == part && input.1.weights.iter().any(|name| name == weight);
        &self.inputs.iter().find(named).unwrap_or_else(|| panic!("no statistics of {weight}")).1
    }
}
