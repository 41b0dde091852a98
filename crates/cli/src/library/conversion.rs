//! A conversion in a chain of calls, and a plan for one.

use std::path::Path;

use rwkv_forge_choose::{Cache, Finished, Goal, PlanTexts, Planner, Silent, container_for};
use rwkv_forge_convert::recipe::{Recipe, Wanted};
use rwkv_forge_convert::{
    BROKEN_KL, Calibration, ConvertOptions, FromImatrix, OpenModel, Preparation, Record, Rendering, Sourced, Value, VerifyOptions,
    Vocabulary, Words, origin_of_importance, treatment,
};
use rwkv_forge_eval::{Kernel, Thresholds};

use super::{Error, Evaluated, Inputs};

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
    container: Option<&'a str>,
    types: Types<'a>,
    sets: Vec<String>,
    inputs: Option<&'a Inputs>,
    imatrix: Option<&'a Path>,
    vocabulary: Vocabulary,
    said: Words,
    thresholds: Thresholds,
    replace: bool,
    requantize: bool,
    split_bytes: Option<u64>,
}

/// Where types come from, besides rules.
enum Types<'a> {
    /// The name of a type; nobody has said one when `None`.
    Named(Option<&'a str>),
    /// A recipe as data.
    Recipe(Box<Recipe>),
}

impl<'a> Conversion<'a> {
    /// A conversion to the usual container of the model, GGUF where that carries it, until something else is said, in the types that
    /// the container is mostly used with, or those of a quantized source ([`rwkv_forge_convert::recipe::Taken`]).
    #[must_use]
    pub fn of(model: &'a OpenModel) -> Self {
        Self {
            model,
            container: None,
            types: Types::Named(None),
            sets: Vec::new(),
            inputs: None,
            imatrix: None,
            vocabulary: Vocabulary::Auto,
            said: Words::default(),
            thresholds: Thresholds { max_kl: Some(BROKEN_KL), ..Thresholds::default() },
            replace: false,
            requantize: false,
            split_bytes: None,
        }
    }

    /// The container, by its name on the command line: `gguf`, `rwkv-cpp`, `prefab`, `hf` …
    #[must_use]
    pub fn to(mut self, container: &'a str) -> Self {
        self.container = Some(container);
        self
    }

    /// A type, a preset or a ready type: `q8_0`, `q4_k_m`, `4bit`.
    #[must_use]
    pub fn types(mut self, name: &'a str) -> Self {
        self.types = Types::Named(Some(name));
        self
    }

    /// A recipe, as [`Conversion::plan`] makes it, instead of a type. One that was made with statistics needs the same
    /// [`Conversion::inputs`].
    #[must_use]
    pub fn recipe(mut self, recipe: Recipe) -> Self {
        self.types = Types::Recipe(Box::new(recipe));
        self
    }

    /// Another type for the tensors of a pattern, as `--set` has it: `set("head.weight=q6_k")`. Later rules win, and all of them win over
    /// those of a recipe.
    #[must_use]
    pub fn set(mut self, rule: impl Into<String>) -> Self {
        self.sets.push(rule.into());
        self
    }

    /// Statistics of what the weights are multiplied with, for quantizers that weigh errors by them.
    #[must_use]
    pub fn inputs(mut self, inputs: &'a Inputs) -> Self {
        (self.inputs, self.imatrix) = (Some(inputs), None);
        self
    }

    /// The same from a file of llama.cpp's, which knows importance alone.
    #[must_use]
    pub fn imatrix(mut self, path: &'a Path) -> Self {
        (self.inputs, self.imatrix) = (None, Some(path));
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
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.said.name = Some(Sourced::option("name", name.into()));
        self
    }

    /// The model's licence, by SPDX's name where there is one, instead of what its source says.
    #[must_use]
    pub fn licence(mut self, licence: impl Into<String>) -> Self {
        self.said.licence = Some(Sourced::option("licence", licence.into()));
        self
    }

    /// Who made the model, instead of what its source says.
    #[must_use]
    pub fn author(mut self, author: impl Into<String>) -> Self {
        self.said.author = Some(Sourced::option("author", author.into()));
        self
    }

    /// The conversation format, in Jinja, instead of what the source says.
    #[must_use]
    pub fn template(mut self, template: impl Into<String>) -> Self {
        self.said.template = Some(Sourced::option("template", template.into()));
        self
    }

    /// Anything else that the file shall say, by the container's key; what is said later of the same key counts.
    #[must_use]
    pub fn meta(mut self, key: impl Into<String>, value: Value) -> Self {
        let key = key.into();
        self.said.other.retain(|(known, _)| *known != key);
        self.said.other.push((key, Sourced::option("meta", value)));
        self
    }

    /// What the written file must reach to be kept; until something else is said, a mean KL of at most [`BROKEN_KL`].
    #[must_use]
    pub fn within(mut self, thresholds: Thresholds) -> Self {
        self.thresholds = thresholds;
        self
    }

    /// Writes parts of at most so many bytes of tensors each: `NAME-00001-of-0000N.gguf` and so on for an output `NAME.gguf`.
    #[must_use]
    pub fn in_parts_of(mut self, bytes: u64) -> Self {
        self.split_bytes = Some(bytes);
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

    /// Plans a type for each tensor of this conversion's file, within bytes or within a loss: see [`Goal`]. The whole is measured on
    /// `text`, which the text of `inputs` must not repeat. What the conversion says of types does not count.
    ///
    /// Minutes for a model of some hundred million parameters; [`Planner`] has what can be said about time and memory.
    ///
    /// ```
    /// # fn main() -> Result<(), rwkv_forge::Error> {
    /// use rwkv_forge::{Conversion, Evaluated, Goal, Inputs, Vocabulary};
    /// # let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/checkpoints");
    /// # let output = std::env::temp_dir().join(format!("rwkv-forge-plan-{}.gguf", std::process::id()));
    /// # let (novel, letters) = ("It is a truth universally acknowledged, ".repeat(20), "My dear Mr. Bennet, ".repeat(8));
    /// # let bytes = std::fs::read(format!("{root}/vocab-320.txt")).expect("a fixture");
    /// # let vocabulary = Vocabulary::File("vocab-320.txt".to_owned(), bytes);
    /// let model = rwkv_forge::open(format!("{root}/tiny-rwkv7.pth"))?;
    /// let inputs = Inputs::on(&model, &vocabulary, &novel)?;
    /// let text = Evaluated::on(&model, &vocabulary, &letters)?;
    /// let conversion = Conversion::of(&model).to("gguf").vocabulary(vocabulary);
    /// let plan = conversion.plan(Goal::BitsPerWeight(6.5), &inputs, &text)?;
    /// let record = conversion.recipe(plan.recipe).inputs(&inputs).write(&output)?;
    /// assert_eq!(record.output_bytes, plan.planned.bytes);
    /// # std::fs::remove_file(output).expect("the file is there");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What the container refuses, a goal that no types reach, texts that are too short, and what computing fails with.
    pub fn plan(&self, goal: Goal, inputs: &Inputs, text: &Evaluated) -> Result<Finished, Error> {
        let container = container_for(self.model.description(), self.container)?;
        let recipe = rwkv_forge_choose::start(container)?;
        let options = ConvertOptions {
            words: Some(&self.said),
            requantize: self.requantize,
            ..ConvertOptions::new(container, &recipe, &self.vocabulary)
        };
        let planner = Planner::new(self.model, options, goal);
        planner.check()?;
        let texts = PlanTexts { calibration: inputs.tokens(), measured: text.schedule() };
        Ok(planner.run(texts, inputs.statistics(), &Cache::new(None, &Silent), &Silent, &mut |_| ())?)
    }

    /// Writes the file, or the directory, reads it back, and compares it with its source. Nothing is left under the name unless all of it
    /// succeeds.
    ///
    /// # Errors
    /// Everything that the readers, the recipe, the container and the comparison refuse, and what the system does.
    pub fn write(self, output: impl AsRef<Path>) -> Result<Record, Error> {
        let output = output.as_ref();
        let container = container_for(self.model.description(), self.container)?;
        let recipe = match self.types {
            Types::Named(name) => Wanted::new(None, name, &self.sets, Some(container))?.recipe_for(&self.model.model, container)?.0,
            Types::Recipe(recipe) => recipe.with_rules(&self.sets)?,
        };
        let recipe = recipe.with_calibration(self.inputs.map(|inputs| inputs.statistics().record()))?;
        let verify = VerifyOptions { text: None, tokens: PROBE_TOKENS, thresholds: self.thresholds, kernel: Kernel::Reference };
        let treatment = treatment(self.model.merged(), self.imatrix);
        let mut options = ConvertOptions {
            treatment: treatment.as_deref(),
            words: Some(&self.said),
            requantize: self.requantize,
            split_bytes: self.split_bytes,
            force: self.replace,
            verify: Some(verify),
            ..ConvertOptions::new(container, &recipe, &self.vocabulary)
        };
        let blueprint = rwkv_forge_choose::decide(self.model, &options).map_err(Error::of)?;
        rwkv_forge_convert::check_output(self.model, &blueprint, output, &options).map_err(Error::of)?;
        let imatrix = self.imatrix.map(|path| FromImatrix::read(path, self.model.description())).transpose().map_err(Error::of)?;
        let calibration = match (self.inputs, &imatrix) {
            (Some(inputs), _) => Some(inputs.statistics() as &dyn Calibration),
            (None, imatrix) => imatrix.as_ref().map(|imatrix| imatrix as &dyn Calibration),
        };
        let rendering = Rendering { model: self.model, blueprint: &blueprint, recipe: &recipe, calibration, directory: None };
        let rendered = rendering.prepared_for(output, &|_, _, _| ()).map_err(Error::of)?;
        let importance = origin_of_importance(self.imatrix, None);
        options.prepared = rendered.as_ref().map(|rendered| Preparation {
            model: &rendered.model,
            tensors: &rendered.prepared,
            importance: importance.as_deref(),
        });
        rwkv_forge_convert::convert(self.model, &blueprint, output, &options, &|_, _, _| ()).map_err(Error::of)
    }
}
