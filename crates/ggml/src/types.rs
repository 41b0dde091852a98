//! The data type numbers of rwkv.cpp, which are not ggml's.

use rwkv_forge_tensor::Encoding;

/// Numbers that a record may have. The 256-element types are not in rwkv.cpp's documentation, but its loader takes them.
const TYPES: &[(i32, Encoding)] = &[
    (0, Encoding::F32),
    (1, Encoding::F16),
    (2, Encoding::new("q4_0", 32, 18)),
    (3, Encoding::new("q4_1", 32, 20)),
    (7, Encoding::new("q5_0", 32, 22)),
    (8, Encoding::new("q5_1", 32, 24)),
    (9, Encoding::new("q8_0", 32, 34)),
    (11, Encoding::new("q2_k", 256, 84)),
    (12, Encoding::new("q3_k", 256, 110)),
    (13, Encoding::new("q4_k", 256, 144)),
    (14, Encoding::new("q5_k", 256, 176)),
    (15, Encoding::new("q6_k", 256, 210)),
];

/// How elements of this type are stored; `None` for numbers that do not exist, were removed (4 to 6), or only exist while
/// a model runs (10, 16).
pub(crate) fn encoding(number: i32) -> Option<Encoding> {
    TYPES.iter().find(|(id, _)| *id == number).map(|(_, encoding)| *encoding)
}

/// The number of an encoding that can be written.
pub(crate) fn number(encoding: Encoding) -> Option<i32> {
    TYPES.iter().find(|(_, known)| *known == encoding).map(|(id, _)| *id).filter(|_| is_decodable(encoding))
}

/// Names of the types that can be written: those whose numbers rwkv.cpp's loader takes.
pub(crate) const NAMES: &[&str] = &["f32", "f16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k"];

/// True when values can be read back.
pub(crate) fn is_decodable(encoding: Encoding) -> bool {
    rwkv_forge_quant::by_encoding(encoding).is_some()
}

/// What is known of a number that no record may have.
pub(crate) fn why_not(number: i32) -> &'static str {
    match number {
        4..=6 => "it was removed from rwkv.cpp years ago; make the file anew from the checkpoint",
        10 | 16 => "it only exists while a model runs",
        _ => "rwkv.cpp defines 0 to 3, 7 to 9 and 11 to 15",
    }
}

#[cfg(test)]
mod tests {
    use super::{NAMES, TYPES, number};

    #[test]
    fn every_type_that_is_named_has_a_number_and_every_other_none() {
        let numbered: Vec<&str> =
            TYPES.iter().filter(|(_, encoding)| number(*encoding).is_some()).map(|(_, encoding)| encoding.name).collect();
        assert_eq!(numbered, NAMES);
    }
}
