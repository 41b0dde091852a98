//! A conversion in a chain of calls.

use std::path::Path;

use rwkv_forge_convert::container::by_name;
use rwkv_forge_convert::recipe::Recipe;
use rwkv_forge_convert::{BROKEN_KL, ConvertOptions, OpenModel, Preparation, Record, Rendering, Sourced, VerifyOptions, Vocabulary, Words};
use rwkv_forge_eval::{Kernel, Thresholds};

use super::Error;

/// Tokens on which a written file is compared with its source.
const PROBE_TOKENS: usize = 128;

/// What is to be made of a model.
///
/// Every file is read back and compared with its source before it appears, as the program does it: see [`Conversion::within`].
///
/// ```
/// # fn main() -> Result<(), rwkv_forge::Error> {
/// use rwkv_forge::{Conversion, Vocabulary};
/// # let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/checkpoints");
/// # let vocabulary = std::fs::read(format!("{root}/vocab-320.txt")).expect("a fixture");
/// # let output = std::env::temp_dir().join(format!("rwkv-forge-conversion-{}.gguf", std::process::id()));
/// let model = rwkv_forge::open(format!("{root}/tiny-rwkv7.pth"))?;
/// let vocabulary = Vocabulary::File("vocab-320.txt".to_owned(), vocabulary);
/// let record = Conversion::of(&model).to("gguf").types("q8_0").vocabulary(vocabulary).write(&output)?;
/// println!("{} bytes", record.output_bytes);
/// # std::fs::remove_file(output).expect("the file is there");
/// # Ok(())
/// # }
/// ```
pub struct Conversion<'a> {
    model: &'a OpenModel,
    container: &'a str,
    types: Option<&'a str>,
    sets: Vec<String>,
    vocabulary: Vocabulary,
    name: Option<&'a str>,
    thresholds: Thresholds,
    replace: bool,
    requantize: bool,
}

impl<'a> Conversion<'a> {
    /// A conversion to GGUF in the container's usual type, until something else is said.
    #[must_use]
    pub fn of(model: &'a OpenModel) -> Self {
        Self {
            model,
            container: "gguf",
            types: None,
            sets: Vec::new(),
            vocabulary: Vocabulary::Auto,
            name: None,
            thresholds: Thresholds { max_kl: Some(BROKEN_KL), ..Thresholds::default() },
            replace: false,
            requantize: false,
        }
    }

    /// The container, by its name on the command line: `gguf`, `rwkv-cpp`, `prefab`, `hf` …
    #[must_use]
    pub fn to(mut self, container: &'a str) -> Self {
        self.container = container;
        self
    }

    /// A type, a preset or a ready type: `q8_0`, `q4_k_m`, `4bit`.
    #[must_use]
    pub fn types(mut self, name: &'a str) -> Self {
        self.types = Some(name);
        self
    }

    /// Another type for the tensors of a pattern, as `--set` has it: `set("head.weight=q6_k")`. Later rules win.
    #[must_use]
    pub fn set(mut self, rule: impl Into<String>) -> Self {
        self.sets.push(rule.into());
        self
    }

    /// The vocabulary, for containers that carry one and for the comparison.
    #[must_use]
    pub fn vocabulary(mut self, vocabulary: Vocabulary) -> Self {
        self.vocabulary = vocabulary;
        self
    }

    /// Name of the model in the file.
    #[must_use]
    pub fn named(mut self, name: &'a str) -> Self {
        self.name = Some(name);
        self
    }

    /// What the written file must reach to be kept; until something else is said, a mean KL of at most [`BROKEN_KL`].
    #[must_use]
    pub fn within(mut self, thresholds: Thresholds) -> Self {
        self.thresholds = thresholds;
        self
    }

    /// Lets a file of this name be replaced.
    #[must_use]
    pub fn replacing(mut self) -> Self {
        self.replace = true;
        self
    }

    /// Lets tensors that are quantized in the source be quantized anew.
    #[must_use]
    pub fn requantizing(mut self) -> Self {
        self.requantize = true;
        self
    }

    /// Writes the file, or the directory, reads it back, and compares it with its source. Nothing is left under the name unless all of it
    /// succeeds.
    ///
    /// # Errors
    /// Everything that the readers, the recipe, the container and the comparison refuse, and what the system does.
    pub fn write(self, output: impl AsRef<Path>) -> Result<Record, Error> {
        let recipe = Recipe::new(None, self.types, &self.sets)?;
        let verify = VerifyOptions { text: None, tokens: PROBE_TOKENS, thresholds: self.thresholds, kernel: Kernel::Reference };
        let name = self.name.map(|name| Sourced::option("name", name.to_owned()));
        let words = Words { name, ..Words::default() };
        let mut options = ConvertOptions {
            words: Some(&words),
            requantize: self.requantize,
            force: self.replace,
            verify: Some(verify),
            ..ConvertOptions::new(by_name(self.container)?, &recipe, &self.vocabulary)
        };
        let blueprint = rwkv_forge_choose::decide(self.model, &options).map_err(Error::of)?;
        let rendered = if recipe.needs_preparation() {
            let rendering = Rendering { model: self.model, blueprint: &blueprint, recipe: &recipe, calibration: None, directory: None };
            Some(rendering.prepared(&|_, _| ()).map_err(Error::of)?)
        } else {
            None
        };
        options.prepared =
            rendered.as_ref().map(|rendered| Preparation { model: &rendered.model, tensors: &rendered.prepared, importance: None });
        rwkv_forge_convert::convert(self.model, &blueprint, output.as_ref(), &options, &|_, _, _| ()).map_err(Error::of)
    }
}
