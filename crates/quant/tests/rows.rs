//! Reading rows of a tensor through a source.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rwkv_forge_quant::{BlockFormat, DecodeError, Q8_0, read_rows};
use rwkv_forge_tensor::{BoxError, Class, Diagnostic, Encoding, TensorInfo, TensorSource};

/// A source in memory that notes what was read.
struct Memory {
    tensors: Vec<TensorInfo>,
    bytes: Vec<Vec<u8>>,
    reads: Mutex<Vec<(u64, usize)>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the file changed")]
struct Changed;

impl Diagnostic for Changed {
    fn kind(&self) -> &'static str {
        "Changed"
    }
    fn class(&self) -> Class {
        Class::Io
    }
}

impl TensorSource for Memory {
    fn path(&self) -> &Path {
        Path::new("memory")
    }
    fn format(&self) -> &'static str {
        "memory"
    }
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }
    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }
    fn read_at(&self, index: usize, start: u64, out: &mut [u8]) -> Result<(), BoxError> {
        self.reads.lock().expect("no panic inside").push((start, out.len()));
        let start = usize::try_from(start).expect("small");
        let bytes = self.bytes[index].get(start..start + out.len()).ok_or(Changed)?;
        out.copy_from_slice(bytes);
        Ok(())
    }
    fn check_integrity(&self, _: &(dyn Fn(u64) + Sync)) -> Result<Vec<String>, BoxError> {
        Ok(Vec::new())
    }
}

fn source(shape: &[u64], encoding: Encoding, bytes: Vec<u8>) -> Memory {
    let info = TensorInfo { name: "weight".into(), shape: shape.to_vec(), encoding };
    Memory { tensors: vec![info], bytes: vec![bytes], reads: Mutex::default() }
}

fn rows(source: &Memory, index: usize, first: u64, count: u64) -> Result<Vec<f32>, DecodeError> {
    let mut out = Vec::new();
    read_rows(source, index, first, count, &mut out).map(|()| out)
}

#[test]
fn dense_and_block_rows_are_the_rows_of_the_flattened_tensor() {
    let values: Vec<f32> = (0..6 * 64).map(|i| i as f32).collect();
    let mut bytes = vec![0; 6 * 64 / 32 * 34];
    Q8_0.encode(&values, &mut bytes).expect("finite");
    let mut whole = vec![0.0; values.len()];
    Q8_0.decode(&bytes, &mut whole);
    let blocks = source(&[2, 3, 64], Q8_0.encoding(), bytes);
    assert_eq!(rows(&blocks, 0, 0, 6).expect("all"), whole);
    assert_eq!(rows(&blocks, 0, 4, 2).expect("the last two"), whole[256..]);
    assert_eq!(rows(&blocks, 0, 6, 0).expect("none"), [0.0; 0]);

    let doubles: Vec<u8> = values.iter().flat_map(|value| f64::from(*value).to_le_bytes()).collect();
    assert_eq!(rows(&source(&[6, 64], Encoding::F64, doubles), 0, 1, 2).expect("f64"), values[64..192]);
    let scalar = source(&[], Encoding::F32, 2.5f32.to_le_bytes().to_vec());
    assert_eq!(rows(&scalar, 0, 0, 1).expect("a scalar"), [2.5]);
    assert_eq!(rows(&source(&[0, 64], Encoding::F32, Vec::new()), 0, 0, 0).expect("no rows"), [0.0; 0]);
}

#[test]
fn large_tensors_are_read_in_whole_blocks_of_bounded_size() {
    let count = 1_000_000 / 32 * 32;
    let bytes = vec![0; count / 32 * 34];
    let source = source(&[1, count as u64], Q8_0.encoding(), bytes);
    assert_eq!(rows(&source, 0, 0, 1).expect("one row").len(), count);
    let reads = source.reads.lock().expect("no panic inside").clone();
    assert!(reads.len() > 1 && reads.iter().all(|(start, length)| start % 34 == 0 && length % 34 == 0 && *length <= 1 << 18));
}

#[test]
fn what_cannot_be_read_is_an_error_with_its_kind() {
    let short = source(&[2, 32], Encoding::F32, vec![0; 128]);
    let kind = |result: Result<Vec<f32>, DecodeError>| result.expect_err("refused").kind();
    assert_eq!(kind(rows(&short, 1, 0, 1)), "NoSuchRows");
    assert_eq!(kind(rows(&short, 0, 1, 2)), "NoSuchRows");
    assert_eq!(kind(rows(&short, 0, u64::MAX, 2)), "NoSuchRows");
    let error = rows(&short, 0, 1, 1).expect_err("the second row is missing");
    assert_eq!((error.kind(), error.class(), error.to_string()), ("Changed", Class::Io, "the file changed".to_owned()));
    assert_eq!(kind(rows(&source(&[2, 33], Q8_0.encoding(), vec![0; 100]), 0, 0, 1)), "BadShape");
    assert_eq!(kind(rows(&source(&[u64::MAX, u64::MAX, 1], Encoding::F32, Vec::new()), 0, 0, 1)), "BadShape");
    assert_eq!(kind(rows(&source(&[2, 32], Encoding::I32, vec![0; 256]), 0, 0, 2)), "UnsupportedEncoding");
    // A size that no memory has must be an error, not an abort.
    assert_eq!(kind(rows(&source(&[1 << 60, 1], Encoding::F16, Vec::new()), 0, 0, 1 << 60)), "OutOfMemory");
}
