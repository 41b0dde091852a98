//! Numbers of a file one after the other, none of which is believed before it is compared with the file's length.

use std::path::Path;

use rwkv_forge_io::InputFile;
use rwkv_forge_tensor::{BoxError, Encoding, decode_dense};

use super::{F32_BYTES, StateError, StateFormat};

/// A place in a file.
pub(super) struct Cursor<'a> {
    file: &'a InputFile,
    format: StateFormat,
    offset: u64,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(file: &'a InputFile, format: StateFormat) -> Self {
        Self { file, format, offset: 0 }
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// What is wrong with the file, as an error.
    pub(super) fn bad(&self, what: impl Into<String>) -> BoxError {
        StateError::Damaged { file: self.path().to_owned(), format: self.format.name(), what: what.into() }.into()
    }

    /// Bytes after the cursor.
    pub(super) fn left(&self) -> u64 {
        self.file.len().saturating_sub(self.offset)
    }

    /// The next `len` bytes, which `what` they are.
    pub(super) fn bytes(&mut self, len: u64, what: &str) -> Result<Vec<u8>, BoxError> {
        if len > self.left() {
            return Err(self.bad(format!("{what} would have {len} bytes at offset {}, and {} are left", self.offset, self.left())));
        }
        let bytes = self.file.read_vec(self.offset, len, len)?;
        self.offset += len;
        Ok(bytes)
    }

    fn word<const N: usize>(&mut self, what: &str) -> Result<[u8; N], BoxError> {
        let bytes = self.bytes(N as u64, what)?;
        Ok(bytes.first_chunk().copied().unwrap_or([0; N]))
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, BoxError> {
        Ok(u32::from_le_bytes(self.word(what)?))
    }

    pub(super) fn i32(&mut self, what: &str) -> Result<i32, BoxError> {
        Ok(i32::from_le_bytes(self.word(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, BoxError> {
        Ok(u64::from_le_bytes(self.word(what)?))
    }

    /// The next `count` numbers of 32 bits.
    pub(super) fn floats(&mut self, count: u64, what: &str) -> Result<Vec<f32>, BoxError> {
        let bytes = self.bytes(count.saturating_mul(F32_BYTES), what)?;
        let mut values = Vec::new();
        decode_dense(Encoding::F32, &bytes, &mut values);
        Ok(values)
    }
}
