//! The type numbers of ggml: which exist, how many bytes they take, and which this program can decode.

use rwkv_forge_tensor::Encoding;

/// Plain integer and f64 types: read as they are, never quantized to.
const DENSE: &[(u32, Encoding)] = &[(24, Encoding::I8), (25, Encoding::I16), (26, Encoding::I32), (27, Encoding::I64), (28, Encoding::F64)];

/// How elements of this type are stored; `None` for numbers that do not exist, were removed (4, 5, 31 to 33, 36 to 38)
/// or only exist while a model runs (9, 15).
pub(crate) fn encoding(number: u32) -> Option<Encoding> {
    if let Some(format) = rwkv_forge_quant::by_ggml_type(number) {
        return Some(format.encoding());
    }
    DENSE.iter().find(|(id, _)| *id == number).map(|(_, encoding)| *encoding)
}

/// The type number of an encoding that was read.
pub(crate) fn stored_number(wanted: Encoding) -> Option<u32> {
    /// Beyond all numbers that ggml has.
    const END: u32 = 128;
    (0..END).find(|number| encoding(*number) == Some(wanted))
}

/// The type number of an encoding that can be written.
pub(crate) fn number(encoding: Encoding) -> Option<u32> {
    rwkv_forge_quant::by_encoding(encoding).and_then(rwkv_forge_quant::BlockFormat::ggml_type)
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
    rwkv_forge_quant::by_encoding(encoding)?.facts().ggml.map(|ggml| ggml.file_type)
}

/// Whether tensors of this encoding can be written: ggml has a number for it and there is an encoder.
pub(crate) fn holds(encoding: Encoding) -> bool {
    rwkv_forge_quant::by_encoding(encoding).is_some_and(is_written)
}

/// Names of the types that can be written.
pub(crate) fn names() -> Vec<&'static str> {
    rwkv_forge_quant::FORMATS.iter().filter(|format| is_written(**format)).map(|format| format.encoding().name).collect()
}

fn is_written(format: &dyn rwkv_forge_quant::BlockFormat) -> bool {
    format.facts().ggml.is_some() && format.facts().encodes
}
