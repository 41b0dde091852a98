//! What a text is once it is read.

use std::path::PathBuf;

use sha2::{Digest, Sha256};

/// One text, scored from an empty state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Unique in what one call of [`crate::read`] returns: the path below the one given, or `FILE#index` (from 0) in a file of many.
    pub name: String,
    /// What the file says about the kind of text.
    pub category: Option<String>,
    /// The bytes, nearly always UTF-8.
    pub text: Vec<u8>,
}

/// One data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    /// Name of the data set: the file's without its extension, or the directory's where files are the parts of one set.
    pub name: String,
    /// The file, or the directory of the parts.
    pub path: PathBuf,
    /// In the order of the file.
    pub documents: Vec<Document>,
    /// Sentences about what was left out or is unusual.
    pub notes: Vec<String>,
}

impl Collection {
    /// Bytes of text in all documents.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.documents.iter().fold(0u64, |sum, document| sum.saturating_add(document.text.len() as u64))
    }

    /// SHA-256, in lower-case hex, over the collection's name and each document's name, category and text, each with its length
    /// before it. Equal digests mean equal results; where the file lies does not matter.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut digest = CollectionDigest::new(&self.name);
        self.documents.iter().for_each(|document| digest.add(document));
        digest.finish()
    }
}

/// [`Collection::digest`] of a collection whose documents come one after the other.
#[derive(Clone, Debug)]
pub struct CollectionDigest(Sha256);

impl CollectionDigest {
    /// Of a collection of this name, without documents.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut digest = Self(Sha256::new());
        digest.field(name.as_bytes());
        digest
    }

    /// With the next document.
    pub fn add(&mut self, document: &Document) {
        self.field(document.name.as_bytes());
        // No category and an empty one differ.
        self.field(document.category.as_ref().map_or(Vec::new(), |category| [b"=", category.as_bytes()].concat()).as_slice());
        self.field(&document.text);
    }

    /// Of all documents so far.
    #[must_use]
    pub fn finish(self) -> String {
        rwkv_forge_io::hex(&self.0.finalize())
    }

    fn field(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }
}
