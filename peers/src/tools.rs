//! What every check needs: the binary under test, the oracles' tokens, our logits, and running programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::npy::{self, Matrix};

/// Runs a command and returns its stdout; its stderr goes into the error when it fails.
pub fn capture(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}\n{}", output.status, stderr.trim_end()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The repository's root.
pub fn root() -> Result<PathBuf, String> {
    Ok(Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no folder above peers")?.to_path_buf())
}

/// The binary under test: `$RWKV_FORGE`, else built from this checkout.
pub fn forge(root: &Path) -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("RWKV_FORGE") {
        return Ok(path.into());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    // Named outright, because cargo would else take the folder meant for this package.
    capture(
        Command::new("cargo")
            .current_dir(root)
            .args(["build", "--release", "--locked", "--bin", "rwkv-forge", "--target-dir"])
            .arg(&target),
    )?;
    Ok(target.join("release/rwkv-forge"))
}

/// Builds the package in `peers/NAME` and gives its program. One crate at a time: these bring hundreds, and the machine may
/// have other work.
pub fn build(root: &Path, name: &str, program: &str) -> Result<PathBuf, String> {
    let package = root.join("peers").join(name);
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("peers/target"), PathBuf::from);
    eprintln!("building {program}: minutes at the first run");
    capture(
        Command::new("nice")
            .arg("cargo")
            .current_dir(&package)
            .args(["build", "--release", "--locked", "-j1", "--target-dir"])
            .arg(&target),
    )?;
    Ok(target.join("release").join(program))
}

/// What the checks with converted files have in common.
pub struct Workshop {
    pub root: PathBuf,
    /// For this check's files.
    pub work: PathBuf,
    pub forge: PathBuf,
    /// A JSON file with the first ids of the oracles' text.
    pub tokens: PathBuf,
    /// How many ids.
    pub count: usize,
}

impl Workshop {
    /// In `peers/.work/NAME`, with the first `count` tokens of the oracles' text.
    pub fn new(name: &str, count: usize) -> Result<Self, String> {
        let root = root()?;
        let work = root.join("peers/.work").join(name);
        std::fs::create_dir_all(&work).map_err(|error| format!("{}: {error}", work.display()))?;
        let ids = npy::tokens(&root.join("fixtures/oracles/tokens-320.npy"))?;
        let ids = ids.get(..count).ok_or("too few tokens in the fixture")?;
        let tokens = work.join("tokens.json");
        std::fs::write(&tokens, json!(ids).to_string()).map_err(|error| format!("{}: {error}", tokens.display()))?;
        Ok(Self { forge: forge(&root)?, root, work, tokens, count })
    }

    /// A tiny trained checkpoint: 4, 5, 6 or 7.
    pub fn fixture(&self, version: u8) -> PathBuf {
        self.root.join(format!("fixtures/checkpoints/tiny-rwkv{version}.pth"))
    }

    /// Converts, and says where the file or directory is.
    pub fn convert(&self, source: &Path, container: &str, encoding: &str, out: &str) -> Result<PathBuf, String> {
        let out = self.work.join(out);
        if out.is_dir() {
            std::fs::remove_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;
        }
        let mut command = Command::new(&self.forge);
        command.args(["--quiet", "convert"]).arg(source).args(["--to", container, "--type", encoding, "--force", "--no-verify", "-o"]);
        capture(command.arg(&out))?;
        Ok(out)
    }

    /// Our logits from a file, `[tokens, vocabulary]`.
    pub fn logits(&self, file: &Path) -> Result<Matrix, String> {
        let out = self.work.join("ours.npy");
        capture(
            Command::new(&self.forge)
                .args(["--quiet", "logits"])
                .arg(file)
                .arg("--tokens")
                .arg(&self.tokens)
                .arg("--force")
                .arg("-o")
                .arg(&out),
        )?;
        Matrix::from_npy(&out)
    }

    /// The peer's logits of the same tokens, by a program that writes them to the path it is given last.
    pub fn theirs(&self, command: &mut Command) -> Result<(Matrix, String), String> {
        let out = self.work.join("theirs.f32");
        let said = capture(command.arg(&out))?;
        Ok((Matrix::from_raw(&out, self.count)?, said.trim().to_owned()))
    }
}
