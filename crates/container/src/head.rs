//! What a format sees of a file before it opens it. Start at [`Head`].

use std::path::{Path, PathBuf};

use rwkv_forge_io::{InputFile, IoError, lfs_pointer};
use rwkv_forge_tensor::shorten;

use crate::folder::FROM_WHERE;

/// Bytes at the start of a file that formats see.
pub const HEAD_BYTES: u64 = 512;
/// Bytes at the end of a file that formats see: a zip archive's end record.
pub const TAIL_BYTES: u64 = 22;

/// The ends of a file, or a directory.
#[derive(Clone, Debug)]
pub struct Head {
    path: PathBuf,
    is_directory: bool,
    start: Vec<u8>,
    tail: Vec<u8>,
    len: u64,
}

impl Head {
    /// Looks at what is at `path`.
    ///
    /// # Errors
    /// When a file cannot be opened or read.
    pub fn read(path: &Path) -> Result<Self, IoError> {
        if path.is_dir() {
            return Ok(Self { path: path.to_path_buf(), is_directory: true, start: Vec::new(), tail: Vec::new(), len: 0 });
        }
        Self::of(&InputFile::open(path)?)
    }

    /// Looks at a file that is open already.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(file: &InputFile) -> Result<Self, IoError> {
        let len = file.len();
        let start = file.read_vec(0, len.min(HEAD_BYTES), HEAD_BYTES)?;
        let tail_len = len.min(TAIL_BYTES);
        let tail = file.read_vec(len.saturating_sub(tail_len), tail_len, TAIL_BYTES)?;
        Ok(Self { path: file.path().to_path_buf(), is_directory: false, start, tail, len })
    }

    /// The path as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is a directory, in which nothing was looked at yet.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.is_directory
    }

    /// The first [`HEAD_BYTES`] bytes of a file, or all of a shorter one.
    #[must_use]
    pub fn start(&self) -> &[u8] {
        &self.start
    }

    /// The last [`TAIL_BYTES`] bytes of a file, or all of a shorter one.
    #[must_use]
    pub fn tail(&self) -> &[u8] {
        &self.tail
    }

    /// Length of a file in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True for a file without a byte, and for directories.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the name ends like this.
    #[must_use]
    pub fn is_named(&self, ending: &str) -> bool {
        self.path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(ending))
    }

    /// Whether a directory has an entry of this name, be it a link that leads nowhere.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.is_directory && self.path.join(name).symlink_metadata().is_ok()
    }

    /// Whether a directory is known to be something else than a model, which the refusal says.
    pub(crate) fn is_of_something_else(&self) -> bool {
        self.revisions().is_some() || self.of_training().is_some()
    }

    /// What is wrong with a directory of shards without their index.
    pub(crate) fn lacks(index: &str) -> String {
        format!("this is a directory with shards of a model whose index {index} is missing: {FROM_WHERE}")
    }

    /// What is wrong with a directory of several models, each by the name of the file that opens it.
    pub(crate) fn several(models: &[String]) -> String {
        let shown: Vec<String> = models.iter().take(LISTED).map(|name| shorten(name)).collect();
        match models.len() {
            ..=LISTED => format!("this is a directory with several files that may be its model: give the path of {}", shown.join(" or ")),
            more => format!(
                "this is a directory with several files that may be its model: give the path of the one that is meant, of {more} such as {}",
                shown.join(", ")
            ),
        }
    }

    /// What the only file of a directory that is called like a model is instead of one.
    fn instead(&self, name: &str) -> String {
        let what = Self::read(&self.path.join(name)).ok().and_then(|file| match file.len {
            0 => Some("it is empty".to_owned()),
            _ => looks_like(&file.start).map(|what| format!("that is {what}")),
        });
        what.unwrap_or_else(|| "it is none".to_owned())
    }

    /// What a directory holds instead of a model.
    fn looks_inside(&self) -> String {
        if self.contains(ADAPTER) {
            return format!(
                "this is an adapter of PEFT's ({ADAPTER}), which holds differences to a model: convert the model that it was trained on, with \
                 --lora and this directory"
            );
        }
        if let Some(revisions) = self.revisions() {
            return revisions;
        }
        if let Some(of_training) = self.of_training() {
            return of_training;
        }
        let models = self.models();
        match models.as_slice() {
            [] => "this is a directory without a model in it: expected model.safetensors, pytorch_model.bin, or the index of shards of either \
                  (model.safetensors.index.json, pytorch_model.bin.index.json)"
                .to_owned(),
            [only] => format!("this is a directory in which only {} has the name of a model, and {}", shorten(only), self.instead(only)),
            several => Self::several(several),
        }
    }

    /// Names of the files of a directory that may be its model, in order.
    pub(crate) fn models(&self) -> Vec<String> {
        let is_of_training = |name: &str| OF_TRAINING.contains(&name) || name.starts_with(RNG_STATE);
        let is_else = |name: &str| name.starts_with('.') || name.starts_with(ADAPTER_MODEL) || is_of_training(name);
        let ends = |name: &str| ENDINGS.iter().any(|ending| name.ends_with(ending));
        let is_model = |name: &str| ends(&name.to_ascii_lowercase()) && !is_else(name);
        if self.is_directory { rwkv_forge_io::names_in(&self.path, is_model).unwrap_or_default() } else { Vec::new() }
    }

    /// The folder of a repository in the cache of the Hub, whose revisions lie two folders below.
    fn revisions(&self) -> Option<String> {
        let is_cache = self.contains(SNAPSHOTS) && self.path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(REPOSITORY));
        let folder = match is_cache {
            true => self.path.join(SNAPSHOTS),
            false if self.path.file_name().is_some_and(|name| name == SNAPSHOTS) => self.path.clone(),
            false => return None,
        };
        let found = rwkv_forge_io::names_in(&folder, |name| !name.starts_with('.') && folder.join(name).is_dir()).unwrap_or_default();
        let shown: Vec<String> = found.iter().take(LISTED).map(|name| folder.join(shorten(name)).display().to_string()).collect();
        Some(match found.len() {
            0 => "this is the folder of a repository in the Hub's cache, and no revision of it was downloaded: download the model first"
                .to_owned(),
            1..=LISTED => format!("this is the folder of a repository in the Hub's cache: give that of a revision, {}", shown.join(" or ")),
            more => format!(
                "this is the folder of a repository in the Hub's cache: give that of one of its {more} revisions, such as {}",
                shown.join(", ")
            ),
        })
    }

    /// A directory in which a trainer keeps shards of a model, by whose tool they become one.
    fn of_training(&self) -> Option<String> {
        // DeepSpeed names the folder of a step in `latest`, beside which its script lies.
        let is_step = |name: &str| name.starts_with(STEP) || self.contains(LATEST);
        let is_folder = |name: &str| is_step(name) && self.path.join(name).is_dir();
        let steps = rwkv_forge_io::names_in(&self.path, is_folder).unwrap_or_default();
        let mut folders = std::iter::once(self.path.clone()).chain(steps.iter().take(LISTED).map(|name| self.path.join(name)));
        folders.find_map(|folder| of_training_in(&folder))
    }

    /// What it looks like, for whoever cannot read it.
    pub(crate) fn looks(&self) -> String {
        if self.is_directory {
            return self.looks_inside();
        }
        match self.len {
            0 => return "the file is empty; the download may have failed".to_owned(),
            1..4 => return format!("the file has only {} bytes; the download may have failed", self.len),
            _ => {}
        }
        if let Some(what) = looks_like(&self.start) {
            return format!("this is {what}");
        }
        let shown: Vec<String> = self.start.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("the file begins with the bytes {}", shown.join(" "))
    }
}

/// What the shards of a trainer in a folder are, and what puts them together.
fn of_training_in(folder: &Path) -> Option<String> {
    let has = |is: &dyn Fn(&str) -> bool| !rwkv_forge_io::names_in(folder, is).unwrap_or_default().is_empty();
    let of_zero = |name: &str| name.contains(ZERO_SHARD) || name.ends_with("_optim_states.pt") || name == "zero_to_fp32.py";
    let is_whole = |name: &str| name == WHOLE_OF_ZERO;
    // In the third stage the weights themselves are divided.
    let in_parts = has(&|name| name.contains(ZERO_SHARD) && name.ends_with("_model_states.pt"));
    let whole = (has(&is_whole) && !in_parts).then(|| folder.join(WHOLE_OF_ZERO).display().to_string());
    if has(&of_zero) {
        let or_whole = whole.map(|path| format!("; or give {path}, which has all weights as they were computed with")).unwrap_or_default();
        return Some(format!(
            "these are shards of DeepSpeed's ZeRO: put them together with `python zero_to_fp32.py DIRECTORY OUT`, a script that lies beside them \
             or in the directory above, and give its output{or_whole}"
        ));
    }
    if let Some(path) = whole {
        return Some(format!("this is a checkpoint of DeepSpeed's: give {path}, which has the weights"));
    }
    has(&|name| name.ends_with(DISTRIBUTED)).then(|| DISTRIBUTED_SHARDS.to_owned())
}

/// What the name of a folder of a step of DeepSpeed's begins with, where the file [`LATEST`] does not say another.
const STEP: &str = "global_step";
/// The file in which DeepSpeed names the last one.
const LATEST: &str = "latest";
/// What names of the shards of DeepSpeed's ZeRO contain: `bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt`.
const ZERO_SHARD: &str = "zero_pp_rank_";
/// The file of all weights, but in the third stage of ZeRO.
const WHOLE_OF_ZERO: &str = "mp_rank_00_model_states.pt";
/// How the names of the shards of PyTorch's distributed checkpoints end: `__0_0.distcp`.
pub const DISTRIBUTED: &str = ".distcp";
/// What they are, and what puts them together.
pub const DISTRIBUTED_SHARDS: &str = "this is a distributed checkpoint of PyTorch's (FSDP), in shards: put them together with `python -m \
                                      torch.distributed.checkpoint.format_utils dcp_to_torch DIRECTORY OUT.pth`, and give its output";

/// Entries of a directory that are listed to whoever takes it for a model.
const LISTED: usize = 4;
/// How names of models end that lie in a directory without being its model.
const ENDINGS: [&str; 9] = [".pth", ".pt", ".ckpt", ".safetensors", ".gguf", ".st", ".prefab", ".bin", ".rwkvq"];
/// Files that trainers leave beside a model, and that are none.
const OF_TRAINING: [&str; 5] = ["optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "training_args.bin"];
/// Such a file, of each process: `rng_state_0.pth`.
const RNG_STATE: &str = "rng_state";
/// What the name of a repository's folder in the cache of the Hub begins with.
const REPOSITORY: &str = "models--";
/// In it, the folder of the revisions.
const SNAPSHOTS: &str = "snapshots";
/// How names of files with an adapter of PEFT's begin.
pub(crate) const ADAPTER_MODEL: &str = "adapter_model.";
/// By this file a directory is known to be an adapter of PEFT's.
const ADAPTER: &str = "adapter_config.json";

/// What a file that begins like this is known to be, where that is worth a word to whoever takes it for a model.
#[must_use]
pub fn looks_like(start: &[u8]) -> Option<&'static str> {
    const MAGICS: [(&[u8], &str); 24] = [
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
        (b"\x1f\x8b", "a gzip file: unpack it first"),
        (b"\xfd7zXZ\0", "an xz file: unpack it first"),
        (b"\x28\xb5\x2f\xfd", "a Zstandard file: unpack it first"),
        (b"BZh", "a bzip2 file: unpack it first"),
        (b"Rar!", "a RAR archive: unpack it first"),
        (b"GGUF", "a GGUF file"),
        (b"FUGG", "a byte-swapped GGUF file"),
        (b"fmgg", "an rwkv.cpp (ggml) file"),
        (b"lmgg", "a ggml file"),
        (b"tjgg", "a ggml file"),
        (b"\x89HDF", "an HDF5 file"),
        (b"\x93NUMPY", "a NumPy file"),
        (b"PAR1", "a Parquet file"),
        (b"%PDF", "a PDF document"),
        (b"\x7fELF", "an ELF program"),
        (b"MZ", "a Windows program"),
        (b"#!", "a script"),
        (
            b"nsgg",
            "a session of llama.cpp, which holds a state and no model: `rwkv-forge state FILE --model MODEL --to pth` makes a .pth of an initial state",
        ),
        (
            b"qsgg",
            "a sequence of llama.cpp, which holds a state and no model: `rwkv-forge state FILE --model MODEL --to pth` makes a .pth of an initial state",
        ),
        (
            b"RWKVMBLE",
            "a package of rwkv-mobile, which holds an initial state and no model: `rwkv-forge state FILE --to pth` makes a .pth of it",
        ),
        (b"PK\x07\x08", "a split zip archive"),
        (b"PK", "a damaged zip archive"),
        (b"\x80", "a plain Python pickle without torch's header"),
    ];
    if let Some(what) = lfs_pointer(start) {
        return Some(what);
    }
    // The length of a safetensors header may begin like any of these but the longest; an opening brace follows it.
    let is_length = |magic: &[u8]| magic.len() < 8 && start.get(8) == Some(&b'{');
    if let Some((_, what)) = MAGICS.into_iter().find(|(magic, _)| start.starts_with(magic) && !is_length(magic)) {
        return Some(what);
    }
    let text = start.trim_ascii_start();
    // What the Hub answers for a file that is not there, which some programs keep under its name.
    if text.starts_with(b"Entry not found")
        || text.starts_with(b"Repository not found")
        || text.starts_with(b"Invalid username or password")
    {
        return Some("an error message of the Hub's instead of the download");
    }
    let lower: Vec<u8> = text.iter().take(16).map(u8::to_ascii_lowercase).collect();
    if lower.starts_with(b"<!doctype") || lower.starts_with(b"<html") || lower.starts_with(b"<?xml") {
        return Some("an HTML page, perhaps an error message instead of the download");
    }
    // The length of a safetensors header may look like an opening brace, but its upper half is always zero.
    if text.starts_with(b"{") && start.get(4..8) != Some(&[0; 4]) {
        return Some("a JSON text");
    }
    None
}
