//! Files in a temporary directory for the tests of this crate.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test support may fail loudly; the numbers in it are small")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use rwkv_forge_checkpoint::safetensors::PlannedTensor;
use rwkv_forge_model::Assembly;
use rwkv_forge_tensor::TensorSource;
use rwkv_forge_testkit::models::MemorySource;

/// A path that no other test uses; the file goes when the test ends.
pub struct Temp(pub PathBuf);

impl Temp {
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("forge-choose-{}-{}-{name}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(unique))
    }

    /// A safetensors file of these tensors.
    pub fn safetensors(source: &MemorySource) -> Self {
        let file = Self::new("model.safetensors");
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
        std::fs::write(&file.0, bytes).unwrap();
        file
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
