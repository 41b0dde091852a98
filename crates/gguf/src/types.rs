//! The type numbers of ggml: which exist, how many bytes they take, and which this program can decode.

use rwkv_forge_tensor::Encoding;

/// Plain integer and f64 types: read as they are, never quantized to.
const DENSE: &[(u32, Encoding)] = &[(24, Encoding::I8), (25, Encoding::I16), (26, Encoding::I32), (27, Encoding::I64), (28, Encoding::F64)];

/// Types that ggml defines and no block format is registered for: files that use them are listed, not decoded.
const DEFINED: &[(u32, Encoding)] = &[
    (16, Encoding::new("iq2_xxs", 256, 66)),
    (17, Encoding::new("iq2_xs", 256, 74)),
    (18, Encoding::new("iq3_xxs", 256, 98)),
    (19, Encoding::new("iq1_s", 256, 50)),
    (21, Encoding::new("iq3_s", 256, 110)),
    (22, Encoding::new("iq2_s", 256, 82)),
    (29, Encoding::new("iq1_m", 256, 56)),
    (34, Encoding::new("tq1_0", 256, 54)),
    (35, Encoding::new("tq2_0", 256, 66)),
];

/// How elements of this type are stored; `None` for numbers that do not exist, were removed (4, 5, 31 to 33, 36 to 38)
/// or only exist while a model runs (9, 15).
pub(crate) fn encoding(number: u32) -> Option<Encoding> {
    if let Some(format) = rwkv_forge_quant::by_ggml_type(number) {
        return Some(format.encoding());
    }
    DENSE.iter().chain(DEFINED).find(|(id, _)| *id == number).map(|(_, encoding)| *encoding)
}

/// The type number of an encoding that can be written.
pub(crate) fn number(encoding: Encoding) -> Option<u32> {
    rwkv_forge_quant::by_encoding(encoding).and_then(rwkv_forge_quant::BlockFormat::ggml_type)
}

/// Names of the types that can be written.
pub(crate) fn names() -> Vec<&'static str> {
    let numbered = rwkv_forge_quant::FORMATS.iter().filter(|format| format.ggml_type().is_some());
    numbered.map(|format| format.encoding().name).collect()
}

/// True when values can be read back.
pub(crate) fn is_decodable(encoding: Encoding) -> bool {
    encoding == Encoding::F64 || rwkv_forge_quant::by_encoding(encoding).is_some()
}

/// True for formats that share scales, which oblige a file to carry `general.quantization_version`.
pub(crate) fn is_quantized(encoding: Encoding) -> bool {
    !encoding.is_dense()
}

/// `general.file_type` of a file whose main type is this. Where llama.cpp has several mixes of one type (S, M, L), this
/// is the M one.
pub(crate) fn file_type(encoding: Encoding) -> Option<u32> {
    let known = [
        ("f32", 0),
        ("f16", 1),
        ("q4_0", 2),
        ("q4_1", 3),
        ("q8_0", 7),
        ("q5_0", 8),
        ("q5_1", 9),
        ("q2_k", 10),
        ("q3_k", 12),
        ("q4_k", 15),
        ("q5_k", 17),
        ("q6_k", 18),
        ("iq4_nl", 25),
        ("iq3_s", 26),
        ("iq4_xs", 30),
        ("bf16", 32),
        ("tq1_0", 36),
        ("tq2_0", 37),
        ("mxfp4", 38),
    ];
    known.iter().find(|(name, _)| *name == encoding.name).map(|(_, number)| *number)
}
