//! What the programs that read these directories make of each architecture: one table a container. An architecture that a table does
//! not have is refused by name.

use rwkv_forge_model::Version;
use rwkv_forge_model::names::{BLINKDL, CANDLE_6, Convention, FLA, HUGGING_FACE, NATIVE};

use crate::error::HfError;

/// Name of the container for Transformers and flash-linear-attention.
pub(crate) const HF: &str = "hf";
/// Name of the container for Transformers' own RWKV-7.
pub(crate) const HF_NATIVE: &str = "hf-native";
/// Name of the container for candle's float models.
pub(crate) const CANDLE: &str = "candle";
/// Name of the container for candle's quantized models.
pub(crate) const CANDLE_GGUF: &str = "candle-gguf";

/// Why a container has no place for an architecture.
struct Refusal {
    version: Version,
    why: &'static str,
}

const fn refusal(version: Version, why: &'static str) -> Refusal {
    Refusal { version, why }
}

fn refused(container: &'static str, version: Version, refusals: &[Refusal]) -> HfError {
    let known = refusals.iter().find(|refusal| refusal.version == version);
    let why = known.map_or("no program is known that reads it from there", |known| known.why);
    HfError::CannotCarry { container, version, why }
}

/// The library that a directory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Library {
    /// Transformers, or classes published for it.
    Transformers(Class),
    /// flash-linear-attention, which keeps vectors as `[C]`.
    FlashLinearAttention {
        /// The class.
        class: &'static str,
        /// `model_type`.
        kind: &'static str,
    },
}

/// A class of Transformers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    /// Its name.
    pub(crate) name: &'static str,
    /// `model_type`.
    pub(crate) kind: &'static str,
    /// `context_length`.
    pub(crate) context: u32,
    /// Whether it has heads.
    pub(crate) heads: bool,
}

/// An architecture for Hugging Face's libraries.
pub(crate) struct HfRow {
    version: Version,
    /// Names and orientation.
    pub(crate) convention: &'static Convention,
    /// Who reads it.
    pub(crate) library: Library,
    /// The version that the written tensors make up.
    pub(crate) written: Version,
}

const RWKV_5: Library = Library::Transformers(Class { name: "Rwkv5ForCausalLM", kind: "rwkv5", context: 4096, heads: true });

static HF_ROWS: &[HfRow] = &[
    HfRow {
        version: Version::V4,
        convention: &HUGGING_FACE,
        library: Library::Transformers(Class { name: "RwkvForCausalLM", kind: "rwkv", context: 1024, heads: false }),
        written: Version::V4,
    },
    HfRow { version: Version::V5_1, convention: &HUGGING_FACE, library: RWKV_5, written: Version::V5_2 },
    HfRow { version: Version::V5_2, convention: &HUGGING_FACE, library: RWKV_5, written: Version::V5_2 },
    HfRow {
        version: Version::V6,
        convention: &HUGGING_FACE,
        library: Library::Transformers(Class { name: "Rwkv6ForCausalLM", kind: "rwkv6", context: 4096, heads: true }),
        written: Version::V6,
    },
    HfRow {
        version: Version::V7,
        convention: &FLA,
        library: Library::FlashLinearAttention { class: "RWKV7ForCausalLM", kind: "rwkv7" },
        written: Version::V7,
    },
];

static HF_REFUSALS: &[Refusal] = &[
    refusal(Version::V5_0, "the class of RWKV-5 has a gate, which this version has not"),
    refusal(Version::V7a, "flash-linear-attention's RWKV-7 has no tables of a row a token"),
    refusal(Version::V7b, "flash-linear-attention's RWKV-7 has neither tables of a row a token nor an attention beside the time mix"),
    refusal(Version::QRwkv6, "its own repository has the files of this form already"),
    refusal(Version::ARwkv7, "its own repository has the files of this form already"),
];

/// The row of a version for Hugging Face's libraries.
pub(crate) fn hf_row(version: Version) -> Result<&'static HfRow, HfError> {
    HF_ROWS.iter().find(|row| row.version == version).ok_or_else(|| refused(HF, version, HF_REFUSALS))
}

/// An architecture for Transformers' own class.
pub(crate) struct NativeRow {
    version: Version,
    /// Names and orientation.
    pub(crate) convention: &'static Convention,
    /// `architecture_version`.
    pub(crate) kind: &'static str,
}

static NATIVE_ROWS: &[NativeRow] = &[NativeRow { version: Version::V7, convention: &NATIVE, kind: "rwkv7" }];

static NATIVE_REFUSALS: &[Refusal] = &[
    refusal(Version::V4, OLDER),
    refusal(Version::V5_0, OLDER),
    refusal(Version::V5_1, OLDER),
    refusal(Version::V5_2, OLDER),
    refusal(Version::V6, OLDER),
    refusal(Version::V7a, "Transformers' own class has no tables of a row a token"),
    refusal(Version::V7b, "Transformers' own class has neither tables of a row a token nor an attention beside the time mix"),
    refusal(Version::QRwkv6, "Transformers' own class has no hybrids with Qwen"),
    refusal(Version::ARwkv7, "Transformers' own class has no hybrids with Qwen"),
];

const OLDER: &str = "Transformers' own class has RWKV-7 alone; the classes of older versions are those of hf";

/// The row of a version for Transformers' own class.
pub(crate) fn native_row(version: Version) -> Result<&'static NativeRow, HfError> {
    NATIVE_ROWS.iter().find(|row| row.version == version).ok_or_else(|| refused(HF_NATIVE, version, NATIVE_REFUSALS))
}

/// An architecture for candle.
pub(crate) struct CandleRow {
    version: Version,
    /// Names and orientation.
    pub(crate) convention: &'static Convention,
    /// The version that the written tensors make up.
    pub(crate) written: Version,
    /// `general.architecture` of a GGUF file, where candle has a quantized model.
    pub(crate) quantized: Option<&'static str>,
    /// Whether candle normalises heads with the epsilon 1e-5, which value matrices divided by 8 make up for
    /// (`docs/traps.md`, "Group norm epsilon").
    pub(crate) eighth_value: bool,
    /// Whether candle asks for v0, v1, v2 in layer 0, though they are never used.
    pub(crate) stand_ins: bool,
    /// `version` of the configuration, where it has one.
    pub(crate) named: Option<&'static str>,
}

const CANDLE_5: CandleRow = CandleRow {
    version: Version::V5_2,
    convention: &HUGGING_FACE,
    written: Version::V5_2,
    quantized: Some("rwkv5"),
    eighth_value: true,
    stand_ins: false,
    named: None,
};

const CANDLE_7: CandleRow = CandleRow {
    version: Version::V7,
    convention: &BLINKDL,
    written: Version::V7,
    quantized: None,
    eighth_value: false,
    stand_ins: true,
    named: Some("V7"),
};

static CANDLE_ROWS: &[CandleRow] = &[
    CandleRow { version: Version::V5_1, ..CANDLE_5 },
    CANDLE_5,
    CandleRow { version: Version::V6, convention: &CANDLE_6, written: Version::V6, quantized: Some("rwkv6"), ..CANDLE_5 },
    CANDLE_7,
    CandleRow { version: Version::V7a, written: Version::V7a, named: Some("V7a"), ..CANDLE_7 },
    CandleRow { version: Version::V7b, written: Version::V7b, named: Some("V7b"), ..CANDLE_7 },
];

static CANDLE_REFUSALS: &[Refusal] = &[
    refusal(Version::V4, "candle has RWKV-5 and later"),
    refusal(Version::V5_0, "candle's RWKV-5 has a gate, which this version has not"),
    refusal(Version::QRwkv6, "candle has no hybrids with Qwen"),
    refusal(Version::ARwkv7, "candle has no hybrids with Qwen"),
];

static QUANTIZED_REFUSALS: &[Refusal] = &[
    refusal(Version::V7, "candle has no quantized RWKV-7"),
    refusal(Version::V7a, "candle has no quantized RWKV-7"),
    refusal(Version::V7b, "candle has no quantized RWKV-7"),
];

/// The row of a version for candle's float models.
pub(crate) fn candle_row(version: Version) -> Result<&'static CandleRow, HfError> {
    CANDLE_ROWS.iter().find(|row| row.version == version).ok_or_else(|| refused(CANDLE, version, CANDLE_REFUSALS))
}

/// The row of a version for candle's quantized models, and the name of its architecture.
pub(crate) fn candle_gguf_row(version: Version) -> Result<(&'static CandleRow, &'static str), HfError> {
    let Some(row) = CANDLE_ROWS.iter().find(|row| row.version == version) else {
        return Err(refused(CANDLE_GGUF, version, CANDLE_REFUSALS));
    };
    let name = row.quantized.ok_or_else(|| refused(CANDLE_GGUF, version, QUANTIZED_REFUSALS))?;
    Ok((row, name))
}
