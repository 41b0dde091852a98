//! Bytes of a file in order: buffered, decompressed if the name ends in `.gz`, and never more than a limit.

use std::io::{self, BufReader, Read};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use rwkv_forge_io::InputFile;

/// Bytes fetched at a time.
const STEP: usize = 1 << 18;

/// Reads an open file from an offset to its end.
pub(crate) struct FileReader {
    file: Arc<InputFile>,
    offset: u64,
}

impl FileReader {
    pub(crate) fn new(file: Arc<InputFile>, offset: u64) -> Self {
        Self { file, offset }
    }
}

impl Read for FileReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.file.len().saturating_sub(self.offset);
        let step = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
        let out = out.get_mut(..step).unwrap_or_default();
        self.file.read_exact_at(self.offset, out).map_err(io::Error::other)?;
        self.offset = self.offset.saturating_add(step as u64);
        Ok(step)
    }
}

/// Ends with an error when the text goes on after the limit, so that a small compressed file cannot fill the memory.
struct Limited<R> {
    inner: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            let limit = self.limit;
            io::Error::other(format!("more than {limit} bytes of text, which is the limit for one file; split it"))
        })?;
        Ok(read)
    }
}

/// The text of a file.
pub(crate) fn text(file: &Arc<InputFile>, gzip: bool, limit: u64) -> BufReader<Box<dyn Read>> {
    let raw = FileReader::new(Arc::clone(file), 0);
    let inner: Box<dyn Read> = if gzip { Box::new(MultiGzDecoder::new(BufReader::with_capacity(STEP, raw))) } else { Box::new(raw) };
    BufReader::with_capacity(STEP, Box::new(Limited { inner, left: limit, limit }))
}
