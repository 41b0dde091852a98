//! What the tests through the built binary share: a directory of their own, the binary, and its answers.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

pub(crate) mod schema;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use rwkv_forge_model::Version;
use rwkv_forge_testkit::models::{Sizes, random_model};
use serde_json::Value;

/// A file or folder of the repository's fixtures. Leaked, since arguments of a test live as long as the test anyway.
pub(crate) fn fixture(name: &str) -> &'static Path {
    Box::leak(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name).into_boxed_path())
}

/// A tiny trained checkpoint: `4`, `5`, `6` or `7`.
pub(crate) fn checkpoint(version: &str) -> &'static Path {
    fixture(&format!("checkpoints/tiny-rwkv{version}.pth"))
}

/// The vocabulary of the tiny checkpoints.
pub(crate) fn vocab() -> &'static Path {
    fixture("checkpoints/vocab-320.txt")
}

/// A directory that is removed when the test passes or fails.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("rwkv-forge-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Names of everything in the directory, hidden files too.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The program under test.
pub(crate) fn forge() -> Command {
    Command::new(env!("CARGO_BIN_EXE_rwkv-forge"))
}

/// Runs the program with these arguments.
pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Output {
    forge().args(args).output().unwrap()
}

/// A folder of a random RWKV-7 with World's rows, as Hugging Face's programs name its file.
pub(crate) fn world(dir: &Dir, name: &str) -> PathBuf {
    let folder = dir.join(name);
    std::fs::create_dir(&folder).unwrap();
    let sizes = Sizes { channels: 64, head_size: 64, ffn: 64, vocabulary: 65_536, ..Sizes::TINY };
    std::fs::write(folder.join("model.safetensors"), random_model(Version::V7, &sizes, 3).to_safetensors()).unwrap();
    folder
}

/// Runs the program with `--json`, expects the exit code, and parses what it printed.
pub(crate) fn json<S: AsRef<std::ffi::OsStr>>(args: &[S], code: i32) -> Value {
    let output = forge().arg("--json").args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "stderr: {stderr}");
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("no JSON ({error}); stderr: {stderr}"));
    assert_eq!(value["schema_version"], 1, "every document carries its schema version");
    schema::check(&value);
    value
}

/// The kind of the error that these arguments lead to, with this exit code.
pub(crate) fn error_kind<S: AsRef<std::ffi::OsStr>>(args: &[S], code: i32) -> String {
    json(args, code)["error"]["kind"].as_str().unwrap().to_owned()
}

/// Arguments of a conversion of a tiny checkpoint.
pub(crate) fn convert_args(source: &Path, container: &str, encoding: &str, output: &Path) -> Vec<String> {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    ["convert", &text(source), "--to", container, "--type", encoding, "-o", &text(output), "--vocab", &text(vocab())]
        .map(str::to_owned)
        .to_vec()
}

/// A GGUF with another value of a key whose values are u32.
#[allow(clippy::indexing_slicing, reason = "tests may fail loudly")]
pub(crate) fn patched(file: &Path, key: &str, value: u32, output: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let at = bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap() + key.len() + 4;
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    std::fs::write(output, bytes).unwrap();
}

/// Lower-case SHA-256 of a file.
pub(crate) fn sha256(path: &Path) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(std::fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads the float32 values of a NumPy file.
pub(crate) fn npy(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00", "NumPy format 1.0");
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
    assert!(header.contains("'<f4'"), "little-endian float32: {header}");
    let shape = header.split("'shape': (").nth(1).unwrap().split(')').next().unwrap();
    let shape: Vec<usize> = shape.split(',').filter_map(|dim| dim.trim().parse().ok()).collect();
    let values = bytes[10 + length..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    (shape, values)
}
