//! Builds the bytes of a header, and remembers where values stand that are known later.

use std::collections::BTreeSet;

use rwkv_forge_container::{Array, Value};
use rwkv_forge_model::Patch;
use rwkv_forge_tensor::TensorInfo;

/// Bytes before the first metadata key: magic, version and two counts.
const FIXED: u64 = 24;

/// Collects metadata and tensor infos.
#[derive(Default)]
pub(crate) struct HeaderWriter {
    pairs: Vec<u8>,
    pair_count: u64,
    infos: Vec<u8>,
    info_count: u64,
    patches: Vec<Patch>,
    keys: BTreeSet<String>,
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&length(text.len()).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// The number that a file has for the type of a value.
fn type_number(value: &Value) -> u32 {
    match value {
        Value::U8(_) => 0,
        Value::I8(_) => 1,
        Value::U16(_) => 2,
        Value::I16(_) => 3,
        Value::U32(_) => 4,
        Value::I32(_) => 5,
        Value::F32(_) => 6,
        Value::Bool(_) => 7,
        Value::String(_) => 8,
        Value::Array(_) => 9,
        Value::U64(_) => 10,
        Value::I64(_) => 11,
        Value::F64(_) => 12,
    }
}

/// Type number of the elements, their number, and the elements.
fn push_array(out: &mut Vec<u8>, array: &Array) {
    fn begin(out: &mut Vec<u8>, kind: u32, count: usize) {
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&length(count).to_le_bytes());
    }
    fn numbers<T: Copy, const N: usize>(out: &mut Vec<u8>, kind: u32, values: &[T], bytes: fn(T) -> [u8; N]) {
        begin(out, kind, values.len());
        values.iter().for_each(|value| out.extend_from_slice(&bytes(*value)));
    }
    match array {
        Array::U8(values) => numbers(out, 0, values, u8::to_le_bytes),
        Array::I8(values) => numbers(out, 1, values, i8::to_le_bytes),
        Array::U16(values) => numbers(out, 2, values, u16::to_le_bytes),
        Array::I16(values) => numbers(out, 3, values, i16::to_le_bytes),
        Array::U32(values) => numbers(out, 4, values, u32::to_le_bytes),
        Array::I32(values) => numbers(out, 5, values, i32::to_le_bytes),
        Array::F32(values) => numbers(out, 6, values, f32::to_le_bytes),
        Array::Bool(values) => numbers(out, 7, values, |value| [u8::from(value)]),
        Array::String(values) => {
            begin(out, 8, values.len());
            values.iter().for_each(|value| push_text(out, value));
        }
        Array::Array(values) => {
            begin(out, 9, values.len());
            values.iter().for_each(|value| push_array(out, value));
        }
        Array::U64(values) => numbers(out, 10, values, u64::to_le_bytes),
        Array::I64(values) => numbers(out, 11, values, i64::to_le_bytes),
        Array::F64(values) => numbers(out, 12, values, f64::to_le_bytes),
    }
}

fn length(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

impl HeaderWriter {
    fn key(&mut self, key: &str, kind: u32) {
        self.keys.insert(key.to_owned());
        push_text(&mut self.pairs, key);
        self.pairs.extend_from_slice(&kind.to_le_bytes());
        self.pair_count = self.pair_count.saturating_add(1);
    }

    /// Whether a key was written.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.keys.contains(key)
    }

    pub(crate) fn u32(&mut self, key: &str, value: u32) {
        self.key(key, 4);
        self.pairs.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn f32(&mut self, key: &str, value: f32) {
        self.key(key, 6);
        self.pairs.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn flag(&mut self, key: &str, value: bool) {
        self.key(key, 7);
        self.pairs.push(u8::from(value));
    }

    pub(crate) fn text(&mut self, key: &str, value: &str) {
        self.key(key, 8);
        push_text(&mut self.pairs, value);
    }

    pub(crate) fn texts(&mut self, key: &str, values: &[String]) {
        self.array(key, 8, values.len());
        for value in values {
            push_text(&mut self.pairs, value);
        }
    }

    pub(crate) fn i32s(&mut self, key: &str, values: &[i32]) {
        self.array(key, 5, values.len());
        for value in values {
            self.pairs.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// A value of any type.
    pub(crate) fn value(&mut self, key: &str, value: &Value) {
        self.key(key, type_number(value));
        let out = &mut self.pairs;
        match value {
            Value::U8(value) => out.push(*value),
            Value::I8(value) => out.extend_from_slice(&value.to_le_bytes()),
            Value::U16(value) => out.extend_from_slice(&value.to_le_bytes()),
            Value::I16(value) => out.extend_from_slice(&value.to_le_bytes()),
            Value::U32(value) => out.extend_from_slice(&value.to_le_bytes()),
            Value::I32(value) => out.extend_from_slice(&value.to_le_bytes()),
            Value::F32(value) => out.extend_from_slice(&value.to_le_bytes()),
            Value::Bool(value) => out.push(u8::from(*value)),
            Value::String(value) => push_text(out, value),
            Value::Array(value) => push_array(out, value),
            Value::U64(value) => out.extend_from_slice(&value.to_le_bytes()),
            Value::I64(value) => out.extend_from_slice(&value.to_le_bytes()),
            Value::F64(value) => out.extend_from_slice(&value.to_le_bytes()),
        }
    }

    fn array(&mut self, key: &str, kind: u32, count: usize) {
        self.key(key, 9);
        self.pairs.extend_from_slice(&kind.to_le_bytes());
        self.pairs.extend_from_slice(&length(count).to_le_bytes());
    }

    /// The value just to be written is a late one.
    fn late(&mut self, name: &'static str, bytes: usize) {
        self.patches.push(Patch { name, offset: FIXED.saturating_add(length(self.pairs.len())), bytes });
    }

    /// A text of the length of `initial` that is filled in later. `name` is the key without its prefix.
    pub(crate) fn late_text(&mut self, prefix: &str, name: &'static str, initial: &str) {
        self.key(&format!("{prefix}.{name}"), 8);
        self.pairs.extend_from_slice(&length(initial.len()).to_le_bytes());
        self.late(name, initial.len());
        self.pairs.extend_from_slice(initial.as_bytes());
    }

    pub(crate) fn late_u32(&mut self, prefix: &str, name: &'static str) {
        self.key(&format!("{prefix}.{name}"), 4);
        self.late(name, 4);
        self.pairs.extend_from_slice(&0u32.to_le_bytes());
    }

    pub(crate) fn late_f64(&mut self, prefix: &str, name: &'static str) {
        self.key(&format!("{prefix}.{name}"), 12);
        self.late(name, 8);
        self.pairs.extend_from_slice(&0f64.to_le_bytes());
    }

    /// Adds a tensor; `offset` is relative to the data.
    pub(crate) fn tensor(&mut self, info: &TensorInfo, kind: u32, offset: u64) {
        push_text(&mut self.infos, &info.name);
        let rank = u32::try_from(info.shape.len()).unwrap_or(u32::MAX);
        self.infos.extend_from_slice(&rank.to_le_bytes());
        for dim in info.shape.iter().rev() {
            self.infos.extend_from_slice(&dim.to_le_bytes());
        }
        self.infos.extend_from_slice(&kind.to_le_bytes());
        self.infos.extend_from_slice(&offset.to_le_bytes());
        self.info_count = self.info_count.saturating_add(1);
    }

    /// All bytes up to the first tensor, and the places of late values.
    pub(crate) fn finish(self, alignment: usize) -> (Vec<u8>, Vec<Patch>) {
        let mut out = b"GGUF".to_vec();
        out.extend_from_slice(&3u32.to_le_bytes());
        out.extend_from_slice(&self.info_count.to_le_bytes());
        out.extend_from_slice(&self.pair_count.to_le_bytes());
        out.extend_from_slice(&self.pairs);
        out.extend_from_slice(&self.infos);
        out.resize(out.len().checked_next_multiple_of(alignment).unwrap_or(out.len()), 0);
        (out, self.patches)
    }
}
