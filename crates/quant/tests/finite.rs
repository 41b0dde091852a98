//! Values that are no numbers are found in every format, wherever they are.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests may fail loudly; their numbers are small")]

use rwkv_forge_quant::{BlockFormat, FORMATS, Family, all_non_finite, check_values, examine, first_non_finite, non_finite};
use rwkv_forge_tensor::{Class, Diagnostic, Encoding, TensorSource};
use rwkv_forge_testkit::models::MemorySource;

/// Four bytes that are no number: the scale of IQ1_M lies in quarters, two of them in every fourth byte.
const ALL: &[u8] = &[0xff; 4];

/// Rows of 256 ones, stored; rows of zeros in formats that are only read.
fn rows(encoding: Encoding, count: usize) -> Vec<u8> {
    let format = FORMATS.iter().find(|format| format.encoding() == encoding).unwrap();
    let mut bytes = vec![0; encoding.byte_len(&[count as u64, 256]).unwrap() as usize];
    if format.facts().encodes {
        format.encode(&vec![1.0; count * 256], &mut bytes).unwrap();
    }
    bytes
}

/// Floats of four bits have scales of eight, of which some stand for no number whatever the codes are.
fn reserves(format: &dyn BlockFormat) -> bool {
    format.facts().family == Family::Float4
}

/// Blocks with one bit pattern after the other in every pair of bytes: some make the block NaN or infinite.
#[test]
fn a_block_is_bad_exactly_when_a_value_of_it_is() {
    for format in FORMATS {
        let encoding = format.encoding();
        let good = rows(encoding, 1)[..encoding.block_bytes as usize].to_vec();
        let mut found = 0;
        for at in 0..good.len() {
            for special in [&[0xff, 0xff][..], &[0x00, 0x7e], &[0x00, 0x7c], &[0x80, 0xff], ALL] {
                let mut block = good.clone();
                let Some(place) = block.get_mut(at..at + special.len()) else { continue };
                place.copy_from_slice(special);
                let mut values = vec![0.0; encoding.block_len as usize];
                format.decode(&block, &mut values);
                let is_bad = values.iter().any(|value| !value.is_finite());
                let told = first_non_finite(encoding, &block).is_some();
                assert!(told == is_bad || reserves(*format) && told, "{encoding} {at} {special:x?}");
                found += u32::from(told);
            }
        }
        assert!(found > 0, "{encoding}");
        assert_eq!(first_non_finite(encoding, &good), None, "{encoding}");
    }
}

#[test]
fn the_first_of_several_is_named_and_all_are_counted() {
    let encoding = Encoding::F32;
    // More than one piece of a MiB.
    let mut bytes = rows(encoding, 3000);
    let mut poison = |element: usize, value: f32| bytes[element * 4..][..4].copy_from_slice(&value.to_le_bytes());
    for element in [2000 * 256 + 7, 2999 * 256 + 255, 1500 * 256] {
        poison(element, f32::NAN);
    }
    let whole = |name: &str, bytes: Vec<u8>| (name.to_owned(), vec![bytes.len() as u64 / 1024, 256], encoding, bytes);
    let ids = ("ids".to_owned(), vec![4], Encoding::I32, vec![0xff; 16]);
    let source = MemorySource::new(vec![whole("good", rows(encoding, 2)), ids, whole("bad", bytes.clone()), whole("worse", bytes)]);
    let found = non_finite(&source, 2, &|_| ()).unwrap().unwrap();
    assert_eq!((found.tensor.as_str(), found.first, found.columns, found.count), ("bad", 1500 * 256, 256, 3));
    let said = found.to_string();
    assert!(said.contains("bad in memory holds 3 value(s)") && said.contains("element 384000 (row 1500, column 0)"), "{said}");
    assert_eq!((found.kind(), found.class()), ("NonFinite", Class::Refused));
    assert_eq!(all_non_finite(&source).unwrap().iter().map(|found| found.tensor.clone()).collect::<Vec<_>>(), ["bad", "worse"]);
    assert!(check_values(&source, 0..2, &|_| ()).is_ok());
    assert_eq!(check_values(&source, 0..source.tensors().len(), &|_| ()).unwrap_err().to_string(), said);
    assert_eq!(examine(&source, &|_| ()).unwrap_err().to_string(), said);
    let vector = MemorySource::new(vec![("v".to_owned(), vec![1, 1, 4], Encoding::F16, vec![0, 0, 0, 0x7c, 0, 0, 0, 0xfe])]);
    let said = non_finite(&vector, 0, &|_| ()).unwrap().unwrap().to_string();
    assert!(said.contains("2 value(s)") && said.contains("at element 1:"), "{said}");
}

#[test]
fn a_bad_scale_spoils_its_whole_block() {
    for format in FORMATS.iter().filter(|format| !format.encoding().is_dense()) {
        let encoding = format.encoding();
        let mut bytes = rows(encoding, 4);
        let block = encoding.block_bytes as usize;
        let one_byte: &[u8] = if reserves(*format) { &[0xff] } else { &[0x00, 0x7e] };
        // The scale: the first place where no number is noticed.
        let place = |special: &[u8]| {
            (0..=block - special.len()).find(|at| {
                let mut one = bytes[..block].to_vec();
                one[*at..at + special.len()].copy_from_slice(special);
                format.validate(&one).is_err()
            })
        };
        let (at, special) = place(one_byte).map(|at| (at, one_byte)).or_else(|| Some((place(ALL)?, ALL))).unwrap();
        bytes[256 / encoding.block_len as usize * block + at..][..special.len()].copy_from_slice(special);
        let source = MemorySource::new(vec![("w".to_owned(), vec![4, 256], encoding, bytes)]);
        let found = non_finite(&source, 0, &|_| ()).unwrap().unwrap();
        assert_eq!((found.first, found.columns), (256, 256), "{encoding}");
        assert!(found.count == u64::from(encoding.block_len) || reserves(*format), "{encoding}: {}", found.count);
    }
}
