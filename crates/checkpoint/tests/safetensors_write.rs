//! Safetensors files that our own layout makes, read back by the format's own crate and by ourselves.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test support may fail loudly; the numbers in it are small")]

use rwkv_forge_checkpoint::safetensors::{NewTensor, SafetensorsError, layout, open};
use rwkv_forge_model::{Assembly, FileLayout};
use rwkv_forge_tensor::{Class, Diagnostic, Encoding, TensorSource};

fn tensor(name: &str, shape: &[u64], encoding: Encoding) -> NewTensor {
    let assembly = Assembly::of(0);
    NewTensor { name: name.to_owned(), shape: shape.to_vec(), encoding, reason: "test".to_owned(), assembly }
}

fn tensors() -> Vec<NewTensor> {
    vec![
        tensor("head.weight", &[3, 5], Encoding::F16),
        tensor("emb.weight", &[3, 5], Encoding::F16),
        tensor("quote \" and \\ and ä", &[7], Encoding::BF16),
        tensor("blocks.0.att.w0", &[1, 1, 3], Encoding::F32),
        tensor("scalar", &[], Encoding::F32),
    ]
}

/// The whole file: header, and each tensor filled with a byte of its own.
fn assemble(layout: &FileLayout) -> Vec<u8> {
    let mut file = layout.header.clone();
    file.resize(layout.total_bytes as usize, 0);
    for (mark, tensor) in (1u8..).zip(&layout.tensors) {
        file[tensor.offset as usize..(tensor.offset + tensor.bytes) as usize].fill(mark);
    }
    file
}

#[test]
fn layouts_are_read_back_by_the_crate_and_by_ourselves() {
    let metadata = [("format".to_owned(), "pt".to_owned()), ("note".to_owned(), "a \"b\"\n".to_owned())];
    let layout = layout(tensors(), &metadata, &[("source.sha256", 64), ("empty", 0)]).unwrap();
    assert!(layout.header.len().is_multiple_of(8));
    let mut file = assemble(&layout);
    let digest = "0123456789abcdef".repeat(4);
    assert_eq!(layout.patches.iter().map(|patch| (patch.name, patch.bytes)).collect::<Vec<_>>(), [("source.sha256", 64), ("empty", 0)]);
    let place = layout.patches[0].offset as usize;
    assert_eq!(file[place..place + 64], [b' '; 64]);
    file[place..place + 64].copy_from_slice(digest.as_bytes());

    let parsed = safetensors::SafeTensors::deserialize(&file).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&file).unwrap();
    let strings = header.metadata().clone().unwrap();
    assert_eq!(strings.len(), 4);
    assert_eq!(
        (strings["source.sha256"].as_str(), strings["note"].as_str(), strings["empty"].as_str()),
        (digest.as_str(), "a \"b\"\n", "")
    );
    assert_eq!(parsed.len(), layout.tensors.len());
    for (mark, tensor) in (1u8..).zip(&layout.tensors) {
        let view = parsed.tensor(&tensor.name).unwrap();
        assert_eq!(view.dtype().to_string().to_lowercase(), tensor.encoding.name);
        assert!(view.shape().iter().map(|dim| *dim as u64).eq(tensor.shape.iter().copied()));
        assert!(view.data().len() as u64 == tensor.bytes && view.data().iter().all(|byte| *byte == mark), "{}", tensor.name);
    }

    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("round-trip-{}.safetensors", std::process::id()));
    std::fs::write(&path, &file).unwrap();
    let source = open(&path).unwrap();
    let names: Vec<&str> = source.tensors().iter().map(|info| info.name.as_str()).collect();
    assert_eq!(names, ["blocks.0.att.w0", "scalar", "quote \" and \\ and ä", "emb.weight", "head.weight"]);
    for (index, tensor) in layout.tensors.iter().enumerate() {
        let mut out = vec![0; tensor.bytes as usize];
        source.read_at(index, 0, &mut out).unwrap();
        assert_eq!(out, vec![index as u8 + 1; tensor.bytes as usize]);
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn b3_the_bytes_are_those_of_the_reference_writer_and_independent_of_the_order() {
    let mut tensors = tensors();
    let metadata = [("format".to_owned(), "pt".to_owned())];
    let file = assemble(&layout(tensors.clone(), &metadata, &[]).unwrap());
    let views = safetensors::SafeTensors::deserialize(&file).unwrap();
    let reference = safetensors::serialize(views.tensors(), Some(metadata.iter().cloned().collect())).unwrap();
    assert_eq!(file, reference);
    for _ in 0..tensors.len() {
        tensors.rotate_left(1);
        assert_eq!(assemble(&layout(tensors.clone(), &metadata, &[]).unwrap()), file);
    }
}

#[test]
fn layouts_without_metadata_or_tensors() {
    let bare = layout(vec![tensor("a", &[2], Encoding::F32)], &[], &[]).unwrap();
    assert_eq!(safetensors::SafeTensors::deserialize(&assemble(&bare)).unwrap().names(), ["a"]);
    let empty = layout(vec![], &[], &[]).unwrap();
    assert_eq!(empty.header, b"\x08\0\0\0\0\0\0\0{}      ");
    let reserved = layout(vec![], &[], &[("k", 100_000)]).unwrap();
    assert!(safetensors::SafeTensors::deserialize(&assemble(&reserved)).unwrap().is_empty());
}

#[test]
fn layouts_that_cannot_be_files() {
    let kind = |tensors: Vec<NewTensor>| layout(tensors, &[], &[]).map_or_else(|error| error.kind(), |_| "ok");
    let f32 = |name: &str, shape: &[u64]| tensor(name, shape, Encoding::F32);
    assert_eq!(kind(vec![f32("a", &[1]), f32("a", &[1])]), "DuplicateTensor");
    assert_eq!(kind(vec![tensor("a", &[32], Encoding::new("q8_0", 32, 34))]), "UnsupportedDtype");
    assert_eq!(kind(vec![tensor("a", &[32], Encoding::I64)]), "UnsupportedDtype");
    assert_eq!(kind(vec![f32("", &[1])]), "BadEntry");
    assert_eq!(kind(vec![f32("__metadata__", &[1])]), "BadEntry");
    assert_eq!(kind(vec![f32(&"n".repeat(1025), &[1])]), "BadEntry");
    assert_eq!(kind(vec![f32("a", &[1 << 32, 1 << 32])]), "BadEntry");
    assert_eq!(kind(vec![f32("a", &[1 << 61]), f32("b", &[1 << 61])]), "BadEntry");
    assert_eq!(kind((0..65_536).map(|i| f32(&i.to_string(), &[0])).collect()), "TooManyTensors");
    let twice: SafetensorsError = layout(vec![], &[("k".to_owned(), String::new())], &[("k", 1)]).unwrap_err();
    assert_eq!((twice.kind(), twice.class()), ("BadEntry", Class::Refused));
    // Metadata that no reader takes, and names that are longer once they are escaped.
    let metadata =
        |bytes: usize| layout(vec![], &[("k".to_owned(), "x".repeat(bytes))], &[("late", 8)]).map_or_else(|error| error.kind(), |_| "ok");
    assert_eq!([metadata((16 << 20) - 13), metadata((16 << 20) - 12), metadata(100_000_000)], ["ok", "BadEntry", "BadEntry"]);
    assert_eq!(kind((0..17_000).map(|i| f32(&format!("{i:05}{}", "\u{1}".repeat(1019)), &[0])).collect()), "BadHeader");
}
