//! What is asked for when a model is converted.

use rwkv_forge_container::{OpenOptions, Words};
use rwkv_forge_eval::{Kernel, Thresholds};
use rwkv_forge_io::Claims;

use crate::container::Container;
use crate::prepare::Preparation;
use crate::probe::Vocabulary;
use crate::recipe::Recipe;

/// What is to be converted into what. Made by [`ConvertOptions::new`], and then what differs from it.
#[derive(Clone, Copy)]
pub struct ConvertOptions<'a> {
    /// The container to write.
    pub container: &'static dyn Container,
    /// Types of the tensors.
    pub recipe: &'a Recipe,
    /// Vocabulary of the model.
    pub vocabulary: &'a Vocabulary,
    /// What was done to the source before it was handed over, for provenance: `lora=FILE alpha=16`.
    pub treatment: Option<&'a str>,
    /// What the caller says of the model besides its vocabulary, such as its name.
    pub words: Option<&'a Words>,
    /// Let a container carry a vocabulary with fewer tokens than padding explains: the other rows are named `[PADn]`.
    pub pad_vocabulary: bool,
    /// Quantize tensors anew that are quantized in the source.
    pub requantize: bool,
    /// Keep a file in which f16 lost more than [`crate::MAX_FLUSHED_PERCENT`] of a tensor's values.
    pub allow_f16_loss: bool,
    /// Write parts of at most so many bytes of tensors each, where the container has that form.
    pub split_bytes: Option<u64>,
    /// Replace an existing output.
    pub force: bool,
    /// What else the program reads and writes, with which the output must not collide. The model's own files are added to it.
    pub claims: Option<&'a Claims>,
    /// How input files are read.
    pub open: OpenOptions,
    /// How the result is compared with its source; `None` skips it.
    pub verify: Option<VerifyOptions<'a>>,
    /// Tensors whose blocks were made before: see [`crate::Rendering::prepared`].
    pub prepared: Option<Preparation<'a>>,
}

impl<'a> ConvertOptions<'a> {
    /// A file that is new, of which nothing is said, and which is compared with nothing; every doubt is a refusal.
    #[must_use]
    pub fn new(container: &'static dyn Container, recipe: &'a Recipe, vocabulary: &'a Vocabulary) -> Self {
        Self {
            container,
            recipe,
            vocabulary,
            treatment: None,
            words: None,
            pad_vocabulary: false,
            requantize: false,
            allow_f16_loss: false,
            split_bytes: None,
            force: false,
            claims: None,
            open: OpenOptions::default(),
            verify: None,
            prepared: None,
        }
    }
}

/// How the written file is compared with its source.
#[derive(Clone, Copy)]
pub struct VerifyOptions<'a> {
    /// Text to compare on; the built-in probe text when `None`.
    pub text: Option<&'a [u8]>,
    /// Number of tokens.
    pub tokens: usize,
    /// What the file must reach to be kept.
    pub thresholds: Thresholds,
    /// What computes both models.
    pub kernel: Kernel,
}
