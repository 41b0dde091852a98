//! Files in a temporary directory, and conversions that are planned, for the tests of this crate.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test support may fail loudly; the numbers in it are small")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rwkv_forge_checkpoint::safetensors::PlannedTensor;
use rwkv_forge_convert::container::by_name;
use rwkv_forge_convert::recipe::Recipe;
use rwkv_forge_convert::{ConvertOptions, OpenModel, Plan, Vocabulary, plan};
use rwkv_forge_model::Assembly;
use rwkv_forge_tensor::{BoxError, TensorSource};
use rwkv_forge_testkit::models::MemorySource;

/// A path that no other test uses; the file or folder goes when the test ends.
pub struct Temp(pub PathBuf);

impl Temp {
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("forge-convert-{}-{}-{name}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(unique))
    }

    /// An empty folder.
    pub fn folder(name: &str) -> Self {
        let folder = Self::new(name);
        std::fs::create_dir(&folder.0).unwrap();
        folder
    }

    /// A safetensors file of these tensors.
    pub fn safetensors(source: &MemorySource) -> Self {
        let file = Self::new("model.safetensors");
        write_safetensors(&file.0, source);
        file
    }
}

/// Writes these tensors as a safetensors file.
pub fn write_safetensors(path: &Path, source: &MemorySource) {
    let plan = |(index, info): (usize, &rwkv_forge_tensor::TensorInfo)| PlannedTensor {
        name: info.name.clone(),
        shape: info.shape.clone(),
        encoding: info.encoding,
        reason: String::new(),
        assembly: Assembly::of(index),
    };
    let layout = rwkv_forge_checkpoint::safetensors::layout(source.tensors().iter().enumerate().map(plan).collect(), &[], &[]).unwrap();
    let mut bytes = layout.header;
    bytes.resize(layout.total_bytes as usize, 0);
    for tensor in &layout.tensors {
        bytes[tensor.offset as usize..][..tensor.bytes as usize].copy_from_slice(source.bytes(&tensor.name).unwrap());
    }
    std::fs::write(path, bytes).unwrap();
}

/// Plans a conversion of which nothing but this is said.
pub fn planned(model: &OpenModel, container: &str, recipe: &Recipe, vocabulary: &Vocabulary, name: Option<&str>) -> Result<Plan, BoxError> {
    let options = ConvertOptions { name, ..ConvertOptions::new(by_name(container).unwrap(), recipe, vocabulary) };
    plan(model, &options)
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = if self.0.is_dir() { std::fs::remove_dir_all(&self.0) } else { std::fs::remove_file(&self.0) };
    }
}
