//! Files in a temporary directory, and conversions that are decided, for the tests of this crate.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this")]
#![allow(clippy::unwrap_used, reason = "test support may fail loudly")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rwkv_forge_convert::container::by_name;
use rwkv_forge_convert::recipe::Recipe;
use rwkv_forge_convert::{Blueprint, ConvertOptions, OpenModel, Vocabulary, blueprint};
use rwkv_forge_tensor::BoxError;
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
    std::fs::write(path, source.to_safetensors()).unwrap();
}

/// Decides a conversion of which nothing but this is said.
pub fn decided(
    model: &OpenModel,
    container: &str,
    recipe: &Recipe,
    vocabulary: &Vocabulary,
    name: Option<&str>,
) -> Result<Blueprint, BoxError> {
    let words = name.map(|name| rwkv_forge_convert::named_after(Path::new(name)));
    let options = ConvertOptions { words: words.as_ref(), ..ConvertOptions::new(by_name(container).unwrap(), recipe, vocabulary) };
    blueprint(model, &options)
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = if self.0.is_dir() { std::fs::remove_dir_all(&self.0) } else { std::fs::remove_file(&self.0) };
    }
}
