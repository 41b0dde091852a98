//! Opening bytes as if they were a file, and the small genuine checkpoint that the tests break.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail loudly")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use rwkv_forge_checkpoint::{CheckpointError, Limits, open};
use rwkv_forge_tensor::{Diagnostic, TensorSource};
use rwkv_forge_testkit::pickle::{Tensor, state_dict};
use rwkv_forge_testkit::zip::Archive;

/// A file that disappears with its owner.
pub struct TempFile(pub PathBuf);

impl TempFile {
    pub fn new(bytes: &[u8]) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("forge-checkpoint-{}-{}.pth", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Names and bytes of all tensors.
pub type Contents = Vec<(String, Vec<u8>)>;

/// Opens, reads every tensor and checks every checksum, as a conversion does.
pub fn read_all(bytes: &[u8]) -> Result<Contents, Box<dyn Diagnostic>> {
    read_all_with(bytes, &Limits::default())
}

pub fn read_all_with(bytes: &[u8], limits: &Limits) -> Result<Contents, Box<dyn Diagnostic>> {
    let file = TempFile::new(bytes);
    let source = open(&file.0, limits)?;
    let content = contents(source.as_ref())?;
    source.check_integrity(&|_| {})?;
    Ok(content)
}

pub fn contents(source: &dyn TensorSource) -> Result<Contents, Box<dyn Diagnostic>> {
    let mut all = Vec::new();
    for (index, info) in source.tensors().iter().enumerate() {
        let mut bytes = vec![0; usize::try_from(info.byte_len().unwrap()).unwrap()];
        source.read_at(index, 0, &mut bytes)?;
        all.push((info.name.clone(), bytes));
    }
    Ok(all)
}

/// The kind of error that opening gives.
pub fn kind_at_open(bytes: &[u8]) -> &'static str {
    let file = TempFile::new(bytes);
    match open(&file.0, &Limits::default()) {
        Ok(_) => "nothing",
        Err(error) => check_message(&error),
    }
}

/// The kind of error that opening or reading everything gives.
pub fn kind(bytes: &[u8]) -> &'static str {
    match read_all(bytes) {
        Ok(_) => "nothing",
        Err(error) => error.kind(),
    }
}

/// Every refusal names the file and reads like a sentence of ours.
fn check_message(error: &CheckpointError) -> &'static str {
    let text = error.to_string();
    assert!(text.contains("forge-checkpoint-"), "no file in: {text}");
    assert!(!text.ends_with('.') && !text.contains('\n') && text.len() < 1200, "{text}");
    error.kind()
}

pub const FIRST: [f32; 6] = [1.0, -2.0, 0.5, 4.0, 1e-3, 7.0];

pub fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Two tensors in two storages: `w` f32 [2, 3] and `b` bf16 [4].
pub fn small() -> Archive {
    let tensors = [Tensor::dense("w", "FloatStorage", 0, &[2, 3]), Tensor::dense("b", "BFloat16Storage", 1, &[4])];
    Archive::torch(&state_dict(&tensors), &[&bytes_of(&FIRST), &[0x80, 0x3f, 0, 0x40, 0, 0xc0, 0, 0]])
}

/// One storage `0` with the given bytes, and a pickle.
pub fn with_pickle(pickle: &[u8], storage: &[u8]) -> Vec<u8> {
    Archive::torch(pickle, &[storage]).build().bytes
}
