//! int8 with a scale a row, as Albatross has it (R6 of `docs/bad-inputs.md`).
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests may fail loudly")]

use rwkv_forge_checkpoint::{Safetensors, Torch};
use rwkv_forge_container::{Format, OpenOptions, Opened, Place};
use rwkv_forge_quant::{all_non_finite, decode_rows};
use rwkv_forge_tensor::{BoxError, Class, Encoding, TensorSource, f16_to_f32};
use rwkv_forge_testkit::models::MemorySource;
use rwkv_forge_testkit::pickle::{Tensor, state_dict};
use rwkv_forge_testkit::zip::Archive;

use crate::common::TempFile;

fn codes(count: u64) -> Vec<u8> {
    (0..count).map(|at| (at * 37 % 251) as u8).collect()
}

fn scales(rows: u64) -> Vec<u8> {
    (0..rows).flat_map(|row| (0x1c00 + 3 * row as u16).to_le_bytes()).collect()
}

/// A matrix of these rows and columns with its scales, and a vector.
fn pth([rows, columns]: [u64; 2], of_scale: &[i64], kind: &'static str) -> Vec<u8> {
    let matrix = Tensor::dense("head.weight", "CharStorage", 0, &[rows as i64, columns as i64]);
    let scale = Tensor::dense("head.weight_scale", kind, 1, of_scale);
    let vector = Tensor::dense("ln_out.weight", "HalfStorage", 2, &[2]);
    let item = if kind == "HalfStorage" { 2 } else { 4 };
    let bytes = vec![0x11; of_scale.iter().product::<i64>() as usize * item];
    let of_scale = if kind == "HalfStorage" { scales(of_scale.iter().product::<i64>() as u64) } else { bytes };
    Archive::torch(&state_dict(&[matrix, scale, vector]), &[&codes(rows * columns), &of_scale, &[0, 0x3c, 0, 0xbc]]).build().bytes
}

fn open(format: &dyn Format, bytes: &[u8]) -> Result<(TempFile, Box<dyn Opened>), BoxError> {
    let file = TempFile::new(bytes);
    let opened = format.open(&Place::of(&file.0), OpenOptions::default())?;
    Ok((file, opened))
}

fn check(opened: &dyn TensorSource, [rows, columns]: [u64; 2], encoding: &str) {
    let seen: Vec<_> = opened.tensors().iter().map(|info| (info.name.as_str(), info.shape.clone(), info.encoding.name)).collect();
    assert_eq!(seen, [("head.weight", vec![rows, columns], encoding), ("ln_out.weight", vec![2], "f16")]);
    let info = &opened.tensors()[0];
    let mut bytes = vec![0; info.byte_len().unwrap() as usize];
    opened.read_at(0, 0, &mut bytes).unwrap();
    let mut values = Vec::new();
    decode_rows(info.encoding, &bytes, &mut values).unwrap();
    let codes = codes(rows * columns);
    for (place, value) in values.iter().enumerate() {
        let scale = f16_to_f32(0x1c00 + 3 * (place as u64 / columns) as u16);
        assert_eq!(value.to_bits(), (f32::from(codes[place].cast_signed()) * scale).to_bits(), "element {place}");
    }
    // A range from the middle of one block to the middle of another one.
    let (from, until) = (bytes.len() / 3, bytes.len() * 2 / 3);
    let mut part = vec![0; until - from];
    opened.read_at(0, from as u64, &mut part).unwrap();
    assert_eq!(part, bytes[from..until]);
    let mut vector = [0; 4];
    opened.read_at(1, 0, &mut vector).unwrap();
    assert_eq!(vector, [0, 0x3c, 0, 0xbc]);
}

#[test]
fn matrices_are_put_together_with_their_scales() {
    for (shape, encoding) in [([5, 64], "int8_row"), ([300, 96], "int8_row"), ([4, 40], "rtn")] {
        for of_scale in [&[shape[0] as i64][..], &[shape[0] as i64, 1]] {
            let (_file, opened) = open(&Torch, &pth(shape, of_scale, "HalfStorage")).unwrap();
            check(opened.as_ref(), shape, encoding);
            assert_eq!(opened.format(), "torch zip, int8 by rows (Albatross)");
            opened.check_integrity(&|_| {}).unwrap();
        }
    }
    let tensors = vec![
        ("head.weight".to_owned(), vec![5, 64], Encoding::I8, codes(320)),
        ("head.weight_scale".to_owned(), vec![5], Encoding::F16, scales(5)),
        ("ln_out.weight".to_owned(), vec![2], Encoding::F16, vec![0, 0x3c, 0, 0xbc]),
    ];
    let (_file, opened) = open(&Safetensors, &MemorySource::new(tensors).to_safetensors()).unwrap();
    check(opened.as_ref(), [5, 64], "int8_row");
}

#[test]
fn r6_scales_that_are_missing_or_others() {
    let refused = |bytes: &[u8]| {
        let error = open(&Torch, bytes).err().unwrap();
        assert!(error.class() == Class::Refused && error.to_string().contains("forge-checkpoint-"), "{error}");
        (error.kind(), error.to_string())
    };
    for (of_scale, kind) in [(&[4i64][..], "HalfStorage"), (&[64], "HalfStorage"), (&[1, 5], "HalfStorage"), (&[5], "FloatStorage")] {
        let (found, said) = refused(&pth([5, 64], of_scale, kind));
        assert_eq!(found, "BadBuffer", "{said}");
        assert!(said.contains("head.weight_scale") && said.contains("f16 of [5]"), "{said}");
    }
    let (found, said) = refused(&pth([5, 12], &[5], "HalfStorage"));
    assert_eq!(found, "UnsupportedKind", "{said}");
    // One of two has none.
    let matrices = ["emb.weight", "head.weight"].map(|name| Tensor::dense(name, "CharStorage", 0, &[2, 32]));
    let scale = Tensor::dense("head.weight_scale", "HalfStorage", 1, &[2]);
    let [first, second] = matrices;
    let second = Tensor { key: 2.to_string(), ..second };
    let (found, said) = refused(&Archive::torch(&state_dict(&[first, second, scale]), &[&codes(64), &scales(2), &codes(64)]).build().bytes);
    assert_eq!(found, "MissingBuffer", "{said}");
    assert!(said.contains("emb.weight_scale"), "{said}");
    // A scale without a matrix of codes is a tensor like any other.
    let lone = [Tensor::dense("head.weight", "HalfStorage", 0, &[2, 2]), Tensor::dense("head.weight_scale", "HalfStorage", 1, &[2])];
    let (_file, opened) = open(&Torch, &Archive::torch(&state_dict(&lone), &[&[0; 8], &scales(2)]).build().bytes).unwrap();
    assert_eq!((opened.tensors().len(), opened.format()), (2, "torch zip"));
}

#[test]
fn r5_a_scale_that_is_no_number_spoils_its_row() {
    let mut scale = scales(3);
    scale[2..4].copy_from_slice(&[0x00, 0x7e]);
    let tensors = [Tensor::dense("head.weight", "CharStorage", 0, &[3, 64]), Tensor::dense("head.weight_scale", "HalfStorage", 1, &[3])];
    let (_file, opened) = open(&Torch, &Archive::torch(&state_dict(&tensors), &[&codes(192), &scale]).build().bytes).unwrap();
    let found = all_non_finite(opened.as_ref()).unwrap();
    assert_eq!((found[0].tensor.as_str(), found[0].first, found[0].count), ("head.weight", 64, 64));
}
