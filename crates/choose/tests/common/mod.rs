//! Files in a temporary directory for the tests of this crate.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this")]
#![allow(clippy::unwrap_used, reason = "test support may fail loudly")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

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
        std::fs::write(&file.0, source.to_safetensors()).unwrap();
        file
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
