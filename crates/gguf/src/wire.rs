//! A cursor over the header: reads it in bounded pieces and never asks for more than the file has.

use crate::error::GgufError;

/// Where the bytes come from: a file, or memory in tests.
pub(crate) trait Input {
    /// Length in bytes.
    fn len(&self) -> u64;
    /// Fills `out` from `offset`; the caller has compared with [`Input::len`].
    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), GgufError>;
}

impl Input for [u8] {
    fn len(&self) -> u64 {
        u64::try_from(<[u8]>::len(self)).unwrap_or(u64::MAX)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), GgufError> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let source = self.get(start..).and_then(|rest| rest.get(..out.len()));
        match source {
            Some(bytes) => {
                out.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(GgufError::Truncated { len: Input::len(self), needed: offset, what: "a read".into() }),
        }
    }
}

impl Input for rwkv_forge_io::InputFile {
    fn len(&self) -> u64 {
        rwkv_forge_io::InputFile::len(self)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), GgufError> {
        self.read_exact_at(offset, out).map_err(|error| GgufError::Input(Box::new(error)))
    }
}

/// Bytes fetched at a time when less is asked for.
const PIECE: u64 = 1 << 18;

/// The cursor. All positions count from the start of the file.
pub(crate) struct Wire<'a> {
    input: &'a dyn Input,
    len: u64,
    limit: u64,
    position: u64,
    window: Vec<u8>,
    window_start: u64,
}

impl<'a> Wire<'a> {
    /// A cursor at offset 0 that goes no further than `limit`.
    pub(crate) fn new(input: &'a dyn Input, limit: u64) -> Self {
        Self { input, len: input.len(), limit, position: 0, window: Vec::new(), window_start: 0 }
    }

    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Bytes between here and the end of the file.
    pub(crate) fn left(&self) -> u64 {
        self.len.saturating_sub(self.position)
    }

    /// The largest header that is accepted.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// The next `count` bytes; `what` names them in errors.
    pub(crate) fn take(&mut self, count: u64, what: &str) -> Result<&[u8], GgufError> {
        let end = self.position.checked_add(count).filter(|end| *end <= self.len).ok_or_else(|| GgufError::Truncated {
            len: self.len,
            needed: self.position.saturating_add(count),
            what: what.into(),
        })?;
        if end > self.limit {
            return Err(GgufError::HeaderTooLarge { offset: end, limit: self.limit });
        }
        let window_end = self.window_start.saturating_add(Input::len(self.window.as_slice()));
        if end > window_end {
            self.refill(count)?;
        }
        let from = usize::try_from(self.position.saturating_sub(self.window_start)).unwrap_or(usize::MAX);
        let size = usize::try_from(count).unwrap_or(usize::MAX);
        self.position = end;
        self.window.get(from..).and_then(|rest| rest.get(..size)).ok_or_else(|| GgufError::Truncated {
            len: self.len,
            needed: end,
            what: what.into(),
        })
    }

    /// Makes the window start at the position and hold at least `count` bytes, which are in the file and the limit.
    fn refill(&mut self, count: u64) -> Result<(), GgufError> {
        let size = count.max(PIECE).min(self.left());
        let size = usize::try_from(size).map_err(|_| GgufError::HeaderTooLarge { offset: self.position, limit: self.limit })?;
        self.window.clear();
        self.window.resize(size, 0);
        self.window_start = self.position;
        self.input.read(self.position, &mut self.window)
    }

    /// The next bytes as an array.
    pub(crate) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(u64::try_from(N).unwrap_or(u64::MAX), what)?);
        Ok(out)
    }

    pub(crate) fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(crate) fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// Reads a count and compares it with what the rest of the file can hold at `smallest` bytes an entry.
    pub(crate) fn count(&mut self, smallest: u64, what: &str) -> Result<usize, GgufError> {
        let count = self.u64(what)?;
        let left = self.left().min(self.limit.saturating_sub(self.position));
        let most = left.checked_div(smallest).unwrap_or(0);
        let too_large = || GgufError::CountTooLarge { what: what.into(), count, left, most };
        if count > most {
            return Err(too_large());
        }
        usize::try_from(count).map_err(|_| too_large())
    }
}
