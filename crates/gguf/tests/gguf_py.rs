//! Against gguf-py, an implementation that shares nothing with this one: we read its file, it reads ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Scratch, laid_out, model, values, written};
use rwkv_forge_gguf::{Array, GgufFile, Value};
use rwkv_forge_model::Version;
use rwkv_forge_tensor::TensorSource;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

#[test]
fn metadata_of_every_type_is_read() {
    let file = GgufFile::open(&data("small.gguf")).unwrap();
    let expected = [
        ("value.u8", Value::U8(200)),
        ("value.i8", Value::I8(-100)),
        ("value.u16", Value::U16(60_000)),
        ("value.i16", Value::I16(-30_000)),
        ("value.u32", Value::U32(4_000_000_000)),
        ("value.i32", Value::I32(-2_000_000_000)),
        ("value.u64", Value::U64((1 << 63) + 1)),
        ("value.i64", Value::I64(-(1 << 62))),
        ("value.f32", Value::F32(1.5)),
        ("value.f64", Value::F64(0.1)),
        ("value.bool", Value::Bool(true)),
        ("value.string", Value::String("Zoë\n".into())),
        ("array.strings", Value::Array(Array::String(["a", "", "ß"].map(str::to_owned).to_vec()))),
        ("array.ints", Value::Array(Array::I32(vec![1, -2, 3]))),
        ("array.floats", Value::Array(Array::F32(vec![0.5, 0.25]))),
    ];
    for (key, value) in expected {
        assert_eq!(file.metadata().get(key), Some(&value), "{key}");
    }
    assert_eq!((file.architecture(), file.format()), ("test", "GGUF v3"));
    file.check_integrity(&|_| {}).unwrap();
}

#[test]
fn tensors_of_every_type_are_read() {
    let file = GgufFile::open(&data("small.gguf")).unwrap();
    let index = |name: &str| file.tensors().iter().position(|info| info.name == name).unwrap();
    let grid: Vec<f32> = (0..128u8).map(|i| (f32::from(i) - 64.0) / 8.0).collect();
    // Exact in f16 and bf16; and in q5_1, whose 31 steps over a block's range of 3.875 are the grid's own of 1/8.
    for name in ["dense.f32", "dense.f16", "packed.bf16", "packed.q5_1"] {
        assert_eq!(file.tensors()[index(name)].shape, [2, 64]);
        assert_eq!(values(&file, index(name)), grid, "{name}");
    }
    // Half a step: without a minimum the range is twice the largest magnitude, 8; one step at the clipped end of q5_0
    // and q4_0. The scale is rounded to f16, which adds 2^-11 of a value of at most 8. A shift by one element changes
    // values by 1/8 everywhere and by 16 at the end.
    for (name, bound) in [("q8_0", 8.0 / 127.0 / 2.0), ("q4_1", 3.875 / 15.0 / 2.0), ("q5_0", 0.5), ("q4_0", 1.0)] {
        let read = values(&file, index(&format!("packed.{name}")));
        let worst = read.iter().zip(&grid).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
        assert!(read.len() == grid.len() && worst <= bound + 8.0 / 2048.0, "{name}: {worst}");
    }
    let cube = &file.tensors()[index("cube")];
    assert_eq!((cube.shape.as_slice(), values(&file, index("cube"))[23]), ([2, 3, 4].as_slice(), 23.0));
    let mut last = [0; 4];
    file.read_at(index("ints"), 8, &mut last).unwrap();
    assert_eq!(i32::from_le_bytes(last), i32::MAX);
}

#[test]
#[ignore = "needs a Python with gguf and jinja2 in RWKV_FORGE_PYTHON"]
fn gguf_py_reads_our_files() {
    let python = std::env::var("RWKV_FORGE_PYTHON").unwrap();
    for (version, matrices, file_type) in [(Version::V6, "q4_0", 2), (Version::V7, "q8_0", 7)] {
        let (source, description) = model(version);
        let layout = laid_out(&description, matrices);
        let bytes = written(&source, &description, &layout);
        let path = std::env::temp_dir().join(format!("rwkv-forge-gguf-py-{}-{matrices}.gguf", std::process::id()));
        std::fs::write(&path, &bytes).unwrap();
        let output = Command::new(&python).arg(data("read_back.py")).arg(&path).output().unwrap();
        std::fs::remove_file(&path).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines: Vec<&str> = text.lines().collect();
        for (line, tensor) in lines.iter().zip(&layout.tensors) {
            let start = usize::try_from(tensor.offset).unwrap();
            let content = Scratch::new("content", &bytes[start..start + usize::try_from(tensor.bytes).unwrap()]);
            let dims: Vec<String> = tensor.shape.iter().rev().map(u64::to_string).collect();
            let digest = content.digest();
            assert_eq!(*line, format!("tensor {} {} {} {digest}", tensor.name, tensor.encoding.name, dims.join("x")));
        }
        let architecture = format!("rwkv{}", version.name());
        let expected = [
            format!("key general.architecture {architecture}"),
            format!("key general.file_type {file_type}"),
            "key tokenizer.ggml.model rwkv".into(),
            "key rwkv_forge.verify.status pending ".into(),
            "tokens 300 \\x00 \\n ' \\\\ \\xff [PAD256]".into(),
            chat(""),
            chat("Assistant:"),
            chat("Assistant: <think>"),
            chat("Assistant: <think>\\n</think>"),
            "chat refuses other roles".into(),
        ];
        assert_eq!(lines[layout.tensors.len()..], expected, "{version}");
    }
}

/// The conversation of the script, ready to be continued, as JSON has it.
fn chat(end: &str) -> String {
    format!("chat \"<s>System: Be brief.\\n\\nUser: Hello\\n\\nAssistant: Hi.\\n\\nUser: Who?\\n\\n{end}\"")
}
