//! Values that are no numbers are found in every format, wherever they are.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests may fail loudly; their numbers are small")]

use rwkv_forge_quant::{FORMATS, all_non_finite, check_values, examine, first_non_finite, non_finite};
use rwkv_forge_tensor::{Class, Diagnostic, Encoding, TensorSource};
use rwkv_forge_testkit::models::MemorySource;

/// Rows of 256 ones, stored.
fn rows(encoding: Encoding, count: usize) -> Vec<u8> {
    let format = FORMATS.iter().find(|format| format.encoding() == encoding).unwrap();
    let mut bytes = vec![0; encoding.byte_len(&[count as u64, 256]).unwrap() as usize];
    format.encode(&vec![1.0; count * 256], &mut bytes).unwrap();
    bytes
}

/// Blocks with one bit pattern after the other in every pair of bytes: some make the block NaN or infinite.
#[test]
fn a_block_is_bad_exactly_when_a_value_of_it_is() {
    for format in FORMATS {
        let encoding = format.encoding();
        let good = rows(encoding, 1)[..encoding.block_bytes as usize].to_vec();
        let mut found = 0;
        for at in 0..good.len().saturating_sub(1) {
            for special in [[0xff, 0xff], [0x00, 0x7e], [0x00, 0x7c], [0x80, 0xff]] {
                let mut block = good.clone();
                block[at..at + 2].copy_from_slice(&special);
                let mut values = vec![0.0; encoding.block_len as usize];
                format.decode(&block, &mut values);
                let is_bad = values.iter().any(|value| !value.is_finite());
                let told = first_non_finite(encoding, &block).is_some();
                // The exponent that MXFP4 reserves for NaN counts whatever the codes are.
                assert!(told == is_bad || encoding.name == "mxfp4" && told && block[0] == 255, "{encoding} {at} {special:x?}");
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
        // Most formats begin with the scale.
        let block = encoding.block_bytes as usize;
        let at = match encoding.name {
            "q6_k" | "q3_k" => block - 2,
            "q2_k" => 80,
            _ => 0,
        };
        let special: &[u8] = if encoding.name == "mxfp4" { &[0xff] } else { &[0x00, 0x7e] };
        bytes[256 / encoding.block_len as usize * block + at..][..special.len()].copy_from_slice(special);
        let source = MemorySource::new(vec![("w".to_owned(), vec![4, 256], encoding, bytes)]);
        let found = non_finite(&source, 0, &|_| ()).unwrap().unwrap();
        assert_eq!((found.first, found.columns), (256, 256), "{encoding}");
        assert!(found.count == u64::from(encoding.block_len) || encoding.name == "mxfp4", "{encoding}: {}", found.count);
    }
}
