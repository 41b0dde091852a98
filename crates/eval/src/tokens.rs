//! Tokens of texts that may be longer than memory is large.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rwkv_forge_io::{IoError, Spill};
use rwkv_forge_score::{TokenStore, Tokens};

/// Tokens that are written at a time.
const PIECE: usize = 1 << 16;

/// Takes the tokens of one text after the other and keeps them in memory, or in a nameless file once they would take more than they may.
#[derive(Debug)]
pub struct TokenWriter {
    /// All of them, or those that are not in the file yet.
    waiting: Vec<u32>,
    file: Option<Spill>,
    written: u64,
    limit: u64,
    directory: Option<PathBuf>,
}

/// Tokens in a file, four bytes each.
struct Spilled(Spill);

impl TokenStore for Spilled {
    fn read(&self, first: u64, out: &mut [u32]) -> io::Result<()> {
        let mut bytes = vec![0; out.len() * 4];
        self.0.read_at(first.saturating_mul(4), &mut bytes).map_err(io::Error::other)?;
        for (token, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *token = u32::from_le_bytes(*bytes);
        }
        Ok(())
    }
}

impl TokenWriter {
    /// Nothing yet. Up to `limit` bytes are kept in memory; the file is made in `directory`, or where the system keeps temporary files.
    #[must_use]
    pub fn new(limit: u64, directory: Option<&Path>) -> Self {
        Self { waiting: Vec::new(), file: None, written: 0, limit, directory: directory.map(Path::to_path_buf) }
    }

    /// Tokens so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.written + self.waiting.len() as u64
    }

    /// True before the first one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds tokens.
    ///
    /// # Errors
    /// When the file cannot be made or written.
    pub fn push(&mut self, tokens: &[u32]) -> Result<(), IoError> {
        for piece in tokens.chunks(PIECE) {
            self.waiting.extend_from_slice(piece);
            let full = if self.file.is_some() { self.waiting.len() >= PIECE } else { self.waiting.len() as u64 * 4 > self.limit };
            if full {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), IoError> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(Spill::create(self.directory.as_deref())?),
        };
        let mut bytes = Vec::with_capacity(PIECE * 4);
        for piece in self.waiting.chunks(PIECE) {
            bytes.clear();
            bytes.extend(piece.iter().flat_map(|token| token.to_le_bytes()));
            let offset = file.reserve(bytes.len() as u64);
            file.write_at(offset, &bytes)?;
        }
        self.written += self.waiting.len() as u64;
        self.waiting.clear();
        // What was in memory before there was a file is given back.
        self.waiting.shrink_to(PIECE);
        Ok(())
    }

    /// All of them.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(mut self) -> Result<Tokens, IoError> {
        if self.file.is_some() {
            self.flush()?;
        }
        let len = self.len();
        let store: Arc<dyn TokenStore> = match self.file {
            Some(file) => Arc::new(Spilled(file)),
            None => Arc::new(self.waiting),
        };
        Ok(Tokens::of_store(store, 0..len))
    }
}

#[cfg(test)]
mod tests {
    use super::{PIECE, TokenWriter};

    #[test]
    fn tokens_on_the_disk_are_those_in_memory() {
        let tokens: Vec<u32> = (0..300_000u32).map(|index| index.wrapping_mul(2_654_435_761)).collect();
        for limit in [0, 40, 4 * PIECE as u64, 1 << 30] {
            let mut writer = TokenWriter::new(limit, None);
            for piece in [&tokens[..3], &tokens[3..3], &tokens[3..200_000], &tokens[200_000..]] {
                writer.push(piece).unwrap();
            }
            assert_eq!((writer.len(), writer.file.is_some()), (300_000, limit < 1 << 30));
            assert!(writer.file.is_none() || writer.waiting.len() < PIECE);
            let found = writer.finish().unwrap();
            assert_eq!(found.to_vec().unwrap(), tokens, "{limit}");
            assert_eq!(found.slice(199_990..200_010).to_vec().unwrap(), tokens[199_990..200_010]);
        }
        assert!(TokenWriter::new(0, None).finish().unwrap().is_empty());
    }
}
