//! Tensor semantics: T1 to T8 of `docs/bad-inputs.md`, and the layouts that must be copied right.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may fail loudly")]

use crate::common;

use crate::common::{bytes_of, contents, kind_at_open, read_all};
use rwkv_forge_checkpoint::{Limits, open};
use rwkv_forge_testkit::pickle::{Pickle, Tensor, state_dict};
use rwkv_forge_testkit::zip::{Archive, Entry};

fn counting(len: u16) -> Vec<f32> {
    (0..len).map(f32::from).collect()
}

/// The kind of error of one f32 view of a storage of 24 elements.
fn kind_of_view(offset: i64, size: &[i64], stride: &[i64]) -> &'static str {
    let tensor = Tensor { numel: 24, offset, stride: stride.to_vec(), ..Tensor::dense("w", "FloatStorage", 0, size) };
    kind_at_open(&Archive::torch(&state_dict(&[tensor]), &[&bytes_of(&counting(24))]).build().bytes)
}

fn kind_of(tensors: &[Tensor], storages: &[&[u8]]) -> &'static str {
    kind_at_open(&Archive::torch(&state_dict(tensors), storages).build().bytes)
}

/// What a view contains, element by element, straight from the definition.
fn naive(base: &[f32], offset: i64, size: &[i64], stride: &[i64]) -> Vec<f32> {
    let count: i64 = size.iter().product();
    let element = |mut flat: i64| {
        let mut at = offset;
        for (dim, step) in size.iter().zip(stride).rev() {
            at += (flat % dim) * step;
            flat /= dim;
        }
        base[usize::try_from(at).unwrap()]
    };
    (0..count).map(element).collect()
}

#[test]
fn t1_missing_storage() {
    assert_eq!(kind_of(&[Tensor::dense("w", "FloatStorage", 1, &[6])], &[&[0; 24]]), "MissingStorage");
    // `.data/` is not `data/`.
    let mut archive = Archive::torch(&state_dict(&[Tensor::dense("w", "FloatStorage", 0, &[6])]), &[&[0; 24]]);
    archive.entry("m/data/0").name = b"m/.data/0".to_vec();
    assert_eq!(kind_at_open(&archive.build().bytes), "MissingStorage");
}

#[test]
fn t2_storage_size() {
    for numel in [5, 7, 0, i64::MAX, 1 << 62] {
        let tensor = Tensor { numel, ..Tensor::dense("w", "FloatStorage", 0, &[5]) };
        assert_eq!(kind_of(&[tensor], &[&[0; 24]]), "StorageSize", "{numel} elements");
    }
    for bytes in [0, 23, 25] {
        assert_eq!(kind_of(&[Tensor::dense("w", "FloatStorage", 0, &[6])], &[&vec![0; bytes]]), "StorageSize", "{bytes} bytes");
    }
}

#[test]
fn t3_bounds() {
    for (offset, size, stride) in [
        (-1, vec![6], vec![1]),
        (19, vec![6], vec![1]),
        (i64::MAX, vec![1], vec![1]),
        (i64::MIN, vec![1], vec![1]),
        (0, vec![25], vec![1]),
        (0, vec![2, 2], vec![23, 2]),
    ] {
        assert_eq!(kind_of_view(offset, &size, &stride), "OutOfBounds", "{offset} {size:?} {stride:?}");
    }
    let huge = 1i64 << 32;
    assert_eq!(kind_of_view(0, &[huge, huge, huge], &[1, 1, 1]), "SizeOverflow");
    assert_eq!(kind_of_view(0, &[huge, 1 << 31], &[1 << 31, 1]), "SizeOverflow");
    assert_eq!(kind_of_view(0, &[i64::MAX], &[1]), "SizeOverflow");
    assert_eq!(kind_of_view(0, &[3, 3], &[i64::MAX, i64::MAX]), "SizeOverflow");
    assert_eq!(kind_of_view(0, &[2, 2], &[i64::MAX, 1]), "OutOfBounds");
    // The last element that fits.
    assert_eq!(kind_of_view(18, &[6], &[1]), "nothing");
}

#[test]
fn t4_layouts_refused() {
    for (size, stride) in [
        (vec![6, 2], vec![1, 0]),
        (vec![3], vec![0]),
        (vec![3], vec![-1]),
        (vec![3, 2], vec![2, -1]),
        (vec![3, 3], vec![1, 1]),
        (vec![3, 4], vec![2, 1]),
        (vec![2, 3], vec![3, 2]),
        (vec![6], vec![]),
        (vec![2, 3], vec![1]),
        (vec![2], vec![2, 1]),
        (vec![1; 9], vec![1; 9]),
    ] {
        assert_eq!(kind_of_view(0, &size, &stride), "UnsupportedLayout", "{size:?} {stride:?}");
    }
}

#[test]
fn t4_strided_views_are_copied_right() {
    let base = counting(24);
    let cases: [(i64, &[i64], &[i64]); 12] = [
        (0, &[4, 6], &[6, 1]),
        (0, &[6, 4], &[1, 6]),
        (0, &[2, 3, 4], &[12, 4, 1]),
        (0, &[4, 3, 2], &[1, 4, 12]),
        (0, &[3, 2, 4], &[4, 12, 1]),
        (1, &[2, 3], &[6, 2]),
        (2, &[3, 2], &[2, 12]),
        (5, &[1, 1, 6], &[999, -3, 1]),
        (0, &[12], &[2]),
        (3, &[4], &[6]),
        (23, &[1], &[7]),
        (0, &[2, 2, 2, 3], &[12, 3, 6, 1]),
    ];
    for (offset, size, stride) in cases {
        let tensor = Tensor { numel: 24, offset, stride: stride.to_vec(), ..Tensor::dense("w", "FloatStorage", 0, size) };
        let bytes = Archive::torch(&state_dict(&[tensor]), &[&bytes_of(&base)]).build().bytes;
        let expected = bytes_of(&naive(&base, offset, size, &stride.iter().map(|s| s.abs()).collect::<Vec<_>>()));
        assert_eq!(read_all(&bytes).unwrap()[0].1, expected, "{offset} {size:?} {stride:?}");
        // In pieces that do not end between elements.
        let file = common::TempFile::new(&bytes);
        let source = open(&file.0, &Limits::default()).unwrap();
        for step in [1, 3, 5] {
            let mut pieces = vec![0; expected.len()];
            let mut start = 0;
            for piece in pieces.chunks_mut(step) {
                source.read_at(0, start, piece).unwrap();
                start += piece.len() as u64;
            }
            assert_eq!(pieces, expected);
        }
    }
}

/// Larger than the read-ahead window, dense and sparse, 2-byte elements.
#[test]
fn t4_large_transposed_matrix() {
    let (rows, columns) = (1500usize, 2003usize);
    let storage: Vec<u8> = (0..rows * columns).flat_map(|i| u16::try_from(i % 65_521).unwrap().to_le_bytes()).collect();
    let numel = i64::try_from(rows * columns).unwrap();
    let dim = |n: usize| i64::try_from(n).unwrap();
    let transposed = Tensor { numel, stride: vec![1, dim(columns)], ..Tensor::dense("t", "HalfStorage", 0, &[dim(columns), dim(rows)]) };
    let column = Tensor { numel, offset: 7, stride: vec![dim(columns), 1], ..Tensor::dense("c", "HalfStorage", 0, &[dim(rows), 2]) };
    for (tensor, check) in [(transposed, [columns, rows, 1, columns, 0]), (column, [rows, 2, columns, 1, 7])] {
        let file = common::TempFile::new(&Archive::torch(&state_dict(&[tensor]), &[&storage]).build().bytes);
        let source = open(&file.0, &Limits::default()).unwrap();
        let all = contents(source.as_ref()).unwrap();
        let [outer, inner, outer_step, inner_step, offset] = check;
        for i in 0..outer {
            for j in 0..inner {
                let at = (offset + i * outer_step + j * inner_step) * 2;
                let found = (i * inner + j) * 2;
                assert_eq!(all[0].1[found..found + 2], storage[at..at + 2], "element {i}, {j}");
            }
        }
    }
}

#[test]
fn t5_aliased_tensors() {
    let view = |name: &str, offset: i64, len: i64| Tensor { numel: 6, offset, ..Tensor::dense(name, "FloatStorage", 0, &[len]) };
    let storage = [0u8; 24];
    // A fused storage in parts is fine, and so is a part of it.
    assert_eq!(kind_of(&[view("a", 0, 2), view("b", 2, 4)], &[&storage]), "nothing");
    assert_eq!(kind_of(&[view("a", 4, 2)], &[&storage]), "nothing");
    assert_eq!(kind_of(&[view("a", 0, 6), view("b", 0, 6)], &[&storage]), "AliasedTensors");
    assert_eq!(kind_of(&[view("a", 0, 6), view("b", 5, 1)], &[&storage]), "AliasedTensors");
    // 10,000 views of one megabyte.
    let many: Vec<Tensor> = (0..10_000).map(|i| Tensor::dense(&format!("w{i}"), "ByteStorage", 0, &[1 << 20])).collect();
    assert_eq!(kind_of(&many, &[&vec![0; 1 << 20]]), "AliasedTensors");
}

#[test]
fn t6_element_types() {
    for (storage, size) in [
        ("BoolStorage", 1),
        ("ComplexFloatStorage", 8),
        ("ComplexDoubleStorage", 16),
        ("QInt8Storage", 1),
        ("QUInt8Storage", 1),
        ("QInt32Storage", 4),
    ] {
        let bytes = Archive::torch(&state_dict(&[Tensor::dense("blocks.0.w", storage, 0, &[4])]), &[&vec![0; 4 * size]]).build().bytes;
        let error = read_all(&bytes).unwrap_err();
        assert_eq!(error.kind(), "UnsupportedDtype");
        assert!(error.to_string().contains("blocks.0.w"), "{error}");
    }
    // Two types on one storage, through typed and untyped storages.
    let two = [
        Tensor { numel: 6, ..Tensor::dense("a", "FloatStorage", 0, &[3]) },
        Tensor { numel: 6, ..Tensor::dense("b", "IntStorage", 0, &[3]) },
    ];
    assert_eq!(kind_of(&two, &[&[0; 24]]), "UnsupportedDtype");
    for dtype in ["float8_e4m3fn", "float8_e5m2", "complex32", "bool", "uint16"] {
        assert_eq!(kind_at_open(&untyped(dtype, 24, 3)), "UnsupportedDtype", "{dtype}");
    }
    for (function, args) in [("_rebuild_qtensor", b"NNN".as_slice()), ("_rebuild_sparse_tensor", b"NN")] {
        let pickle = Pickle::new(2).raw(b"}").text("w").global("torch._utils", function).raw(b"(").raw(args).raw(b"tRs").stop();
        assert_eq!(kind_at_open(&common::with_pickle(&pickle, &[])), "UnsupportedDtype", "{function}");
    }
}

/// An archive with one tensor of `len` elements made by `_rebuild_tensor_v3` of an untyped storage of 24 bytes.
fn untyped(dtype: &str, numel: i64, len: i64) -> Vec<u8> {
    let begun =
        Pickle::new(2).raw(b"}").text("w").global("torch._utils", "_rebuild_tensor_v3").raw(b"(").storage("UntypedStorage", "0", numel);
    let pickle = begun.int(0).ints(&[len]).ints(&[1]).raw(b"\x89").ordered_dict().global("torch", dtype).raw(b"tRs").stop();
    common::with_pickle(&pickle, &bytes_of(&counting(6)))
}

#[test]
fn t6_readable_types() {
    let kinds = [
        ("DoubleStorage", 8, "f64"),
        ("FloatStorage", 4, "f32"),
        ("HalfStorage", 2, "f16"),
        ("BFloat16Storage", 2, "bf16"),
        ("LongStorage", 8, "i64"),
    ];
    let kinds =
        kinds.into_iter().chain([("IntStorage", 4, "i32"), ("ShortStorage", 2, "i16"), ("CharStorage", 1, "i8"), ("ByteStorage", 1, "u8")]);
    for (storage, size, name) in kinds {
        let data: Vec<u8> = (0..4 * size).collect();
        let file = common::TempFile::new(&Archive::torch(&state_dict(&[Tensor::dense("w", storage, 0, &[4])]), &[&data]).build().bytes);
        let source = open(&file.0, &Limits::default()).unwrap();
        assert_eq!(source.tensors()[0].encoding.name, name);
        assert_eq!(contents(source.as_ref()).unwrap()[0].1, data);
    }
    assert_eq!(read_all(&untyped("float32", 24, 6)).unwrap()[0].1, bytes_of(&counting(6)));
    assert_eq!(read_all(&untyped("bfloat16", 24, 12)).unwrap()[0].1, bytes_of(&counting(6)));
    assert_eq!(kind_at_open(&untyped("float32", 6, 6)), "StorageSize");
}

#[test]
fn t7_shapes() {
    for (size, stride) in
        [(vec![0], vec![1]), (vec![2, 0], vec![1, 1]), (vec![0, 0], vec![0, 0]), (vec![-1], vec![1]), (vec![3, i64::MIN], vec![1, 1])]
    {
        assert_eq!(kind_of_view(0, &size, &stride), "BadShape", "{size:?}");
    }
    // An empty storage, as torch writes it: its entry has no data and no descriptor.
    let mut archive = Archive::torch(&state_dict(&[Tensor::dense("w", "FloatStorage", 0, &[0])]), &[]);
    archive.entries.push(Entry::torch("m/data/0", b""));
    assert_eq!(kind_at_open(&archive.build().bytes), "BadShape");
    // A scalar is read as such; where a matrix belongs, the model's description refuses it.
    assert_eq!(kind_of_view(3, &[], &[]), "nothing");
}

#[test]
fn t8_non_finite_values_arrive_unchanged() {
    // Refusing them is the business of whoever uses the values; the reader must not hide or quiet them.
    let bits = [0x7fc0_0000u32, 0x7f80_0000, 0xff80_0000, 0x7f80_0001, 0xffff_ffff, 0x8000_0000];
    let data: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
    let bytes = Archive::torch(&state_dict(&[Tensor::dense("w", "FloatStorage", 0, &[2, 3])]), &[&data]).build().bytes;
    assert_eq!(read_all(&bytes).unwrap()[0].1, data);
    assert_eq!(rwkv_forge_tensor::first_non_finite(rwkv_forge_tensor::Encoding::F32, &data), Some(0));
    assert_eq!(rwkv_forge_tensor::first_non_finite(rwkv_forge_tensor::Encoding::F32, &data[20..]), None);
}
