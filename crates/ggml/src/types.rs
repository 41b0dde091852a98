//! The data type numbers of rwkv.cpp, which are not ggml's.

use rwkv_forge_quant::{BlockFormat, F16, F32, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0};
use rwkv_forge_tensor::Encoding;

/// Numbers that a record may have: the types that this container carries. The 256-element types are not in rwkv.cpp's documentation, but
/// its loader takes them.
const TYPES: &[(i32, &dyn BlockFormat)] = &[
    (0, &F32),
    (1, &F16),
    (2, &Q4_0),
    (3, &Q4_1),
    (7, &Q5_0),
    (8, &Q5_1),
    (9, &Q8_0),
    (11, &Q2_K),
    (12, &Q3_K),
    (13, &Q4_K),
    (14, &Q5_K),
    (15, &Q6_K),
];

/// How elements of this type are stored; `None` for numbers that do not exist, were removed (4 to 6), or only exist while
/// a model runs (10, 16).
pub(crate) fn encoding(number: i32) -> Option<Encoding> {
    TYPES.iter().find(|(id, _)| *id == number).map(|(_, format)| format.encoding())
}

/// The number of an encoding that can be written.
pub(crate) fn number(encoding: Encoding) -> Option<i32> {
    TYPES.iter().find(|(_, format)| format.encoding() == encoding).map(|(id, _)| *id)
}

/// Names of the types that can be written: those whose numbers rwkv.cpp's loader takes.
pub(crate) fn names() -> Vec<&'static str> {
    TYPES.iter().map(|(_, format)| format.encoding().name).collect()
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
    use super::{encoding, names, number};

    #[test]
    fn every_type_that_is_named_has_a_number_and_every_other_none() {
        let expected = ["f32", "f16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k"];
        assert_eq!(names(), expected);
        for format in rwkv_forge_quant::FORMATS {
            let known = format.encoding();
            assert_eq!(number(known).and_then(encoding), expected.contains(&known.name).then_some(known), "{known}");
        }
    }
}
