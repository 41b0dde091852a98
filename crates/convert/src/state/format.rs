//! The layouts of states: names, and how they are recognised.

use rwkv_forge_io::InputFile;
use rwkv_forge_tensor::{BoxError, Encoding};

use super::{llama, rmpack};

/// How a file holds an initial state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateFormat {
    /// `.pth` of trainers.
    Pth,
    /// safetensors of web-rwkv.
    WebRwkv,
    /// The state buffer of rwkv.cpp.
    RwkvCpp,
    /// A session file of llama.cpp.
    LlamaSession,
    /// A sequence file of llama.cpp.
    LlamaSequence,
    /// A package of rwkv-mobile.
    Rmpack,
}

impl StateFormat {
    /// All formats.
    pub const ALL: [Self; 6] = [Self::Pth, Self::WebRwkv, Self::RwkvCpp, Self::LlamaSession, Self::LlamaSequence, Self::Rmpack];

    /// Name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pth => "pth",
            Self::WebRwkv => "web-rwkv",
            Self::RwkvCpp => "rwkv-cpp",
            Self::LlamaSession => "llama-session",
            Self::LlamaSequence => "llama-seq",
            Self::Rmpack => "rmpack",
        }
    }

    /// Other names that it answers to: programs that load it.
    #[must_use]
    pub fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::Pth => &["pytorch"],
            Self::WebRwkv => &["ai00"],
            Self::RwkvCpp => &["rwkv.cpp"],
            Self::LlamaSession | Self::LlamaSequence => &[],
            Self::Rmpack => &["rwkv-mobile"],
        }
    }

    /// What it is, in a few words.
    #[must_use]
    pub fn summary(self) -> &'static str {
        match self {
            Self::Pth => "blocks.i.att.time_state in PyTorch's file, as trainers save it",
            Self::WebRwkv => "safetensors in f16 for web-rwkv and Ai00",
            Self::RwkvCpp => "the f32 buffer that rwkv.cpp takes as its state",
            Self::LlamaSession => "what llama-completion loads with --prompt-cache",
            Self::LlamaSequence => "what llama-server restores into a slot",
            Self::Rmpack => "the package of f16 that rwkv-mobile loads",
        }
    }

    /// Usual extension of file names.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Pth => "pth",
            Self::WebRwkv => "st",
            Self::RwkvCpp | Self::LlamaSession | Self::LlamaSequence => "bin",
            Self::Rmpack => "rmpack",
        }
    }

    /// The format of this name or other name, in letters of either case.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let is_it = |known: &&str| known.eq_ignore_ascii_case(name);
        Self::ALL.into_iter().find(|format| is_it(&format.name()) || format.aliases().iter().any(is_it))
    }

    /// Whether it has a place for token shifts.
    #[must_use]
    pub fn has_shifts(self) -> bool {
        match self {
            Self::RwkvCpp | Self::LlamaSession | Self::LlamaSequence => true,
            Self::Pth | Self::WebRwkv | Self::Rmpack => false,
        }
    }

    /// The runtime that it is for, where the file does not depend on the version and yet not every version has such a runtime.
    pub(super) fn runtime_by_version(self) -> Option<&'static str> {
        match self {
            Self::WebRwkv => Some("web-rwkv"),
            Self::Rmpack => Some("rwkv-mobile"),
            // Trainers save those of all; the others say themselves which they know.
            Self::Pth | Self::RwkvCpp | Self::LlamaSession | Self::LlamaSequence => None,
        }
    }

    /// Its own type, the other types that it holds, and all of them in words.
    pub(super) fn types(self) -> (Encoding, &'static [Encoding], &'static str) {
        match self {
            Self::Pth => (Encoding::F32, &[Encoding::F16, Encoding::BF16], "f32, f16 or bf16"),
            Self::WebRwkv | Self::Rmpack => (Encoding::F16, &[], "f16"),
            Self::RwkvCpp | Self::LlamaSession | Self::LlamaSequence => (Encoding::F32, &[], "f32"),
        }
    }
}

/// The format that the first bytes of a file are of, if they are of one.
pub(super) fn of_head(file: &InputFile) -> Result<Option<StateFormat>, BoxError> {
    let mut head = [0; 8];
    if file.len() < head.len() as u64 {
        return Ok(None);
    }
    file.read_exact_at(0, &mut head)?;
    Ok(match head.first_chunk().map(|word| u32::from_le_bytes(*word)) {
        Some(llama::SESSION) => Some(StateFormat::LlamaSession),
        Some(llama::SEQUENCE) => Some(StateFormat::LlamaSequence),
        _ => (head == *rmpack::MAGIC).then_some(StateFormat::Rmpack),
    })
}
