//! Holds what a file gives to the limits. Every reader hands its texts to a [`Sink`].

use std::path::Path;

use crate::collection::Document;
use crate::error::CorpusError;

/// How much is accepted. The defaults are far above every data set used for evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of text in one file, after decompression; also bytes of one line.
    pub file_bytes: u64,
    /// Bytes of text in all files of one call.
    pub total_bytes: u64,
    /// Documents in all files of one call.
    pub documents: u64,
    /// Files in a directory and below it.
    pub files: u64,
    /// Bytes of one page of a Parquet file after decompression.
    pub page_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { file_bytes: 1 << 30, total_bytes: 2 << 30, documents: 1 << 22, files: 1 << 16, page_bytes: 256 << 20 }
    }
}

/// What to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Take only this many bytes of each file's text. The cut moves back to the beginning of a character where the text is
    /// UTF-8. In a file of many documents, those before the cut are whole and none begins after it.
    pub bytes_per_file: Option<u64>,
    /// How much is accepted.
    pub limits: Limits,
}

/// What is left of the limits in this call.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) options: ReadOptions,
    bytes: u64,
    documents: u64,
}

impl Budget {
    pub(crate) fn new(options: &ReadOptions) -> Self {
        Self { options: *options, bytes: options.limits.total_bytes, documents: options.limits.documents }
    }
}

/// Takes the documents of a file, one after the other.
pub(crate) type Receiver<'a> = &'a mut dyn FnMut(Document) -> Result<(), CorpusError>;

/// Hands the documents of one file on, as far as the limits allow.
pub(crate) struct Sink<'a> {
    path: &'a Path,
    name: &'a str,
    budget: &'a mut Budget,
    /// Bytes that this file may still give: of its limit, or of the caller's wish.
    left: u64,
    many: bool,
    count: usize,
    receive: Receiver<'a>,
    /// The wished number of bytes is reached: the reader can stop.
    pub(crate) full: bool,
}

impl<'a> Sink<'a> {
    /// For the file at `path`, whose documents are called after `name`; `many` adds `#index`.
    pub(crate) fn new(path: &'a Path, name: &'a str, many: bool, budget: &'a mut Budget, receive: Receiver<'a>) -> Self {
        let limit = budget.options.limits.file_bytes;
        let left = budget.options.bytes_per_file.unwrap_or(limit);
        Self { path, name, budget, left, many, count: 0, receive, full: false }
    }

    /// Bytes of text that the file may still give before it is cut or refused.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Adds a document.
    pub(crate) fn push(&mut self, mut text: Vec<u8>, category: Option<String>) -> Result<(), CorpusError> {
        if text.len() as u64 > self.left {
            if self.budget.options.bytes_per_file.is_none() {
                return Err(self.too_large("text in one file, in bytes,", self.budget.options.limits.file_bytes));
            }
            cut(&mut text, self.left);
            self.full = true;
            if text.is_empty() {
                return Ok(());
            }
        }
        let bytes = text.len() as u64;
        self.left = self.left.saturating_sub(bytes);
        self.full |= self.left == 0 && self.budget.options.bytes_per_file.is_some();
        let limits = self.budget.options.limits;
        self.budget.bytes = self.budget.bytes.checked_sub(bytes).ok_or_else(|| self.too_large("text, in bytes,", limits.total_bytes))?;
        self.budget.documents = self.budget.documents.checked_sub(1).ok_or_else(|| self.too_large("documents", limits.documents))?;
        let name = if self.many { format!("{}#{}", self.name, self.count) } else { self.name.to_owned() };
        self.count = self.count.saturating_add(1);
        (self.receive)(Document { name, category, text })
    }

    pub(crate) fn too_large(&self, what: &'static str, limit: u64) -> CorpusError {
        CorpusError::TooLarge { path: self.path.to_path_buf(), what, limit }
    }
}

/// Shortens a text to at most `len` bytes, not inside a character if what remains is UTF-8 up to the cut.
pub(crate) fn cut(text: &mut Vec<u8>, len: u64) {
    text.truncate(usize::try_from(len).unwrap_or(usize::MAX));
    if let Err(error) = std::str::from_utf8(text)
        && error.error_len().is_none()
    {
        text.truncate(error.valid_up_to());
    }
}
