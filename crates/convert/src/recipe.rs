//! Decides the encoding of every tensor, and says why: a type for the whole file, what the container allows, and rules.

use std::collections::HashMap;

use rwkv_forge_model::{ChannelMix, Choice, Constraint, ModelDescription, TensorRole, TensorSpec, TimeMix};
use rwkv_forge_quantizer::Quantizer;
use rwkv_forge_tensor::Encoding;
use rwkv_forge_weights::Model;
use serde::{Deserialize, Serialize};

use crate::container::Container;
use crate::error::ConvertError;
use crate::pattern::{Budget, Pattern, Refused};
pub use crate::taken::Taken;

use crate::preset::{Names, Preset, format_by_name, is_unfit, preset_for, stand_in, type_names};

/// One override: tensors whose canonical name matches get this type.
#[derive(Clone, Debug)]
pub struct Rule {
    pattern: Pattern,
    /// The regular expression, as it was given.
    expression: String,
    encoding: Encoding,
    /// What chooses the codes; that of the recipe when `None`.
    quantizer: Option<Quantizer>,
    /// What was measured of it, in nats a token, for the record.
    harm: Option<f64>,
    /// As the user wrote it.
    text: String,
}

/// What a recipe was made with, so that `convert --recipe` can demand the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationRecord {
    /// SHA-256 over the tokens that were used of the text, window by window.
    pub digest: String,
    /// Tokens of the text that were used.
    pub tokens: u64,
    /// Channels whose products were gathered together: less memory for statistics gives other codes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<usize>,
}

impl CalibrationRecord {
    /// Of the statistics that have this key.
    #[must_use]
    pub fn of(key: &rwkv_forge_calibrate::Key) -> Self {
        Self { digest: key.sequences.clone(), tokens: key.tokens, block: Some(key.block) }
    }

    /// As long as any other: what a recipe has before its text is read, so that sizes are known.
    #[must_use]
    pub fn placeholder() -> Self {
        Self { digest: "0".repeat(64), tokens: 0, block: None }
    }

    /// The record as one text: equal texts mean the same statistics of one model.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{} {} {:?}", self.digest, self.tokens, self.block)
    }

    /// Whether statistics of this record are what the recipe was made with.
    ///
    /// # Errors
    /// [`ConvertError::OtherCalibration`]; `found` is `None` where there are no statistics at all.
    pub fn demand(&self, found: Option<&Self>) -> Result<(), ConvertError> {
        let same = |found: &Self| {
            let block = self.block.is_none() || self.block == found.block;
            self.digest == found.digest && self.tokens == found.tokens && block
        };
        if found.is_some_and(same) {
            return Ok(());
        }
        let show = |record: &Self| {
            let block = record.block.map_or_else(String::new, |block| format!(" with products of {block} channels"));
            format!("{} of {} tokens{block}", record.digest, record.tokens)
        };
        Err(ConvertError::OtherCalibration { expected: show(self), found: found.map_or_else(|| "none".to_owned(), show) })
    }
}

/// A type for the file and overrides in order; the last matching rule wins.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The type of everything that may be quantized.
    pub preset: Preset,
    rules: Rules,
    /// Refuse rows that are no whole number of blocks instead of storing them in f16.
    pub strict: bool,
    /// Store low-rank factors in 16 or 32 bits, as llama-quantize does, even where a ready type would not.
    pub keep_factors: bool,
    /// Use importance as it is even where it ruins blocks, as llama-quantize does. See [`rwkv_forge_quantizer::judge`].
    pub keep_importance: bool,
    /// What chooses the codes where no rule says otherwise, if that was said; [`Recipe::quantizer`] is what it comes to.
    pub quantizer: Option<Quantizer>,
    /// What the recipe was made with.
    pub calibration: Option<CalibrationRecord>,
    /// First digits of the SHA-256 of the recipe file, if it came from one or could be one.
    origin: Option<String>,
}

/// A recipe file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecipeFile {
    #[serde(rename = "type")]
    base: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quantizer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    calibration: Option<CalibrationRecord>,
    #[serde(default, rename = "set")]
    rules: Vec<RuleEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleEntry {
    tensors: String,
    #[serde(rename = "type")]
    encoding: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quantizer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    harm: Option<f64>,
}

/// What was said of types, where the type of all that no rule names may be left open. See [`Recipe::new`].
#[derive(Debug)]
pub struct Wanted {
    base: Option<Preset>,
    rules: Rules,
    quantizer: Option<Quantizer>,
    calibration: Option<CalibrationRecord>,
    origin: Option<String>,
    /// Where it was said.
    location: String,
}

impl Wanted {
    /// Reads the text of a recipe file, the `--type` option and the `--set` options. The command line wins over the file. `container` is
    /// the one that the file will be of, if it is known: what is said of unknown types is about its own.
    ///
    /// # Errors
    /// Unknown types, bad regular expressions, bad TOML.
    pub fn new(
        file: Option<(&str, &str)>,
        base: Option<&str>,
        sets: &[String],
        container: Option<&dyn Container>,
    ) -> Result<Self, ConvertError> {
        let (mut rules, mut budget) = (Rules::default(), Budget::default());
        let (mut file_base, mut quantizer, mut calibration) = (None, None, None);
        if let Some((path, text)) = file {
            let parsed: RecipeFile =
                toml::from_str(text).map_err(|error| ConvertError::BadRecipe { location: path.to_owned(), reason: error.to_string() })?;
            for entry in &parsed.rules {
                let by = entry.quantizer.as_ref().map_or_else(String::new, |name| format!(":{name}"));
                let rule = Rule::new(&format!("{}={}{by}", entry.tensors, entry.encoding), &mut budget, container)?;
                rules.push(Rule { harm: entry.harm, ..rule });
            }
            quantizer = parsed.quantizer.as_deref().map(quantizer_by_name).transpose()?;
            (file_base, calibration) = (parsed.base, parsed.calibration);
        }
        for text in sets {
            rules.push(Rule::new(text, &mut budget, container)?);
        }
        let base = base.or(file_base.as_deref()).map(|name| preset_for(name, container)).transpose()?;
        let location = file.map_or("command line", |(path, _)| path).to_owned();
        Ok(Self { base, rules, quantizer, calibration, origin: file.map(|(_, text)| digest(text)), location })
    }

    /// The recipe, where a type was given.
    ///
    /// # Errors
    /// [`ConvertError::BadRecipe`] where none was.
    pub fn recipe(self) -> Result<Recipe, ConvertError> {
        let Some(base) = self.base else {
            let reason = format!("no type is given: add --type with one of {}", type_names().join(", "));
            return Err(ConvertError::BadRecipe { location: self.location, reason });
        };
        Ok(self.with(base))
    }

    /// The recipe for a file of this model, and where no type was given what was taken and why.
    ///
    /// # Errors
    /// For a container whose registration names a type that there is not.
    pub fn recipe_for(self, model: &Model, container: &dyn Container) -> Result<(Recipe, Option<Taken>), ConvertError> {
        if let Some(base) = self.base {
            return Ok((self.with(base), None));
        }
        let taken = Taken::for_file(model, container);
        Ok((self.with(preset_for(taken.name, Some(container))?), Some(taken)))
    }

    fn with(self, preset: Preset) -> Recipe {
        let Self { rules, quantizer, calibration, origin, .. } = self;
        let (strict, keep_factors, keep_importance) = Default::default();
        Recipe { preset, rules, strict, keep_factors, keep_importance, quantizer, calibration, origin }
    }
}

impl Recipe {
    /// Builds a recipe from the text of a recipe file, the `--type` option and the `--set` options. The command line
    /// wins over the file.
    ///
    /// # Errors
    /// Unknown types, bad regular expressions, bad TOML, or no type at all.
    pub fn new(file: Option<(&str, &str)>, base: Option<&str>, sets: &[String]) -> Result<Self, ConvertError> {
        Wanted::new(file, base, sets, None)?.recipe()
    }

    /// What chooses the codes where no rule says otherwise: what the recipe names, else what its type comes with. Plain types come with
    /// [`Quantizer::Ggml`], which gives llama-quantize's bytes; ready types with the best that there are statistics for.
    #[must_use]
    pub fn quantizer(&self) -> Quantizer {
        match (self.quantizer, self.preset.ready, &self.calibration) {
            (Some(quantizer), ..) => quantizer,
            (None, None, _) => Quantizer::Ggml,
            (None, Some(_), None) => Quantizer::Search,
            (None, Some(_), Some(_)) => Quantizer::Gptq,
        }
    }

    /// The recipe in one line, as it is recorded in the output.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("type={}", self.preset.name);
        let quantizer = self.quantizer();
        if quantizer != Quantizer::Ggml {
            text.push_str(&format!("; quantizer {quantizer}"));
        }
        if let Some(calibration) = &self.calibration {
            text.push_str(&format!("; calibration {}", calibration.digest.get(..16).unwrap_or(&calibration.digest)));
        }
        if let Some(origin) = self.origin.as_ref().filter(|_| self.rules.all.len() > LISTED) {
            text.push_str(&format!("; {} rules of recipe {origin}", self.rules.all.len()));
            return text;
        }
        for rule in &self.rules.all {
            text.push_str("; set ");
            text.push_str(&rule.text);
        }
        text
    }

    /// The recipe as a file that `--recipe` reads.
    ///
    /// # Errors
    /// Never for recipes that were made by [`Recipe::new`].
    pub fn to_toml(&self) -> Result<String, ConvertError> {
        let rules = self
            .rules
            .all
            .iter()
            .map(|rule| RuleEntry {
                tensors: rule.expression.clone(),
                encoding: rule.encoding.name.to_owned(),
                quantizer: rule.quantizer.map(|quantizer| quantizer.name().to_owned()),
                harm: rule.harm,
            })
            .collect();
        // A plain type comes with ggml's rule, which needs no line.
        let said = self.quantizer.filter(|quantizer| self.preset.ready.is_some() || *quantizer != Quantizer::Ggml);
        let quantizer = said.map(|quantizer| quantizer.name().to_owned());
        toml::to_string(&RecipeFile { base: Some(self.preset.name.to_owned()), quantizer, calibration: self.calibration.clone(), rules })
            .map_err(|error| ConvertError::Internal(error.to_string()))
    }

    /// Chooses an encoding for every tensor of the model, in the order of the description.
    ///
    /// # Errors
    /// When the container cannot hold the type, a rule contradicts the container or matches nothing, or, with
    /// `strict`, rows are no whole number of blocks.
    pub fn resolve(&self, model: &Model, container: &dyn Container) -> Result<Vec<Choice>, ConvertError> {
        self.check_container(container)?;
        let (model, stored) = (model.description(), model.source().tensors());
        if !self.preset.base.is_dense() {
            check_support(self.quantizer(), self.preset.base, self.preset.name)?;
        }
        let mut used = vec![false; self.rules.all.len()];
        let mut choices = Vec::with_capacity(model.tensors.len());
        for spec in &model.tensors {
            let kept = stored.get(spec.source_index).map(|info| info.encoding).filter(|_| self.preset.keeps);
            choices.push(self.choose(spec, kept, model, container, &mut used)?);
        }
        if let Some(index) = used.iter().position(|used| !used) {
            let example = model.tensors.iter().rev().find(|spec| spec.layer.is_some()).map_or_else(String::new, |spec| spec.name.clone());
            return Err(ConvertError::RuleMatchesNothing { rule: self.rules.all[index].text.clone(), example });
        }
        Ok(choices)
    }

    /// The recipe with a type for each of some tensors, after all its rules: what [`Recipe::new`] makes of its [`Recipe::to_toml`],
    /// whose digest counts where a file says what it was made by. Harms are in nats a token.
    ///
    /// # Errors
    /// As [`Recipe::to_toml`].
    pub fn with_types<'t>(&self, types: impl IntoIterator<Item = (&'t str, Encoding, Option<f64>)>) -> Result<Self, ConvertError> {
        let mut recipe = self.clone();
        types.into_iter().for_each(|(tensor, encoding, harm)| recipe.rules.push(Rule::of_tensor(tensor, encoding, harm)));
        recipe.origin = Some(digest(&recipe.to_toml()?));
        Ok(recipe)
    }

    /// The recipe with further rules, as `--set` has them, after all its own.
    ///
    /// # Errors
    /// As [`Recipe::new`].
    pub fn with_rules(mut self, sets: &[String]) -> Result<Self, ConvertError> {
        let mut budget = Budget::default();
        for text in sets {
            self.rules.push(Rule::new(text, &mut budget, None)?);
        }
        Ok(self)
    }

    /// The recipe for statistics of this record, or for none. One that was made with statistics demands the same.
    ///
    /// # Errors
    /// [`ConvertError::OtherCalibration`].
    pub fn with_calibration(mut self, found: Option<CalibrationRecord>) -> Result<Self, ConvertError> {
        if let Some(wanted) = &self.calibration {
            wanted.demand(found.as_ref())?;
        }
        self.calibration = found;
        Ok(self)
    }

    /// Whether a rule decides this tensor.
    #[must_use]
    pub fn is_set(&self, tensor: &str) -> bool {
        self.rules.matching(tensor).next().is_some()
    }

    /// What chooses the codes of a tensor of this encoding.
    #[must_use]
    pub fn quantizer_of(&self, tensor: &str, encoding: Encoding) -> Quantizer {
        let rule = self.rules.last(tensor);
        let wanted = rule.and_then(|rule| rule.quantizer).unwrap_or_else(|| self.quantizer());
        if !encoding.is_dense() && rwkv_forge_quantizer::supports(wanted, encoding) { wanted } else { Quantizer::Ggml }
    }

    /// Whether codes are chosen by anything but the formats' own rule.
    #[must_use]
    pub fn needs_preparation(&self) -> bool {
        self.uses(Quantizer::Search) || self.uses(Quantizer::Gptq)
    }

    /// Whether the codes of any tensor are to be chosen by `quantizer`.
    #[must_use]
    pub fn uses(&self, quantizer: Quantizer) -> bool {
        self.quantizer() == quantizer || self.rules.all.iter().any(|rule| rule.quantizer == Some(quantizer))
    }

    fn check_container(&self, container: &dyn Container) -> Result<(), ConvertError> {
        // As it was asked for: a preset has a name of its own.
        let rules = self.rules.all.iter().map(|rule| (rule.encoding, rule.encoding.name));
        for (encoding, name) in std::iter::once((self.preset.base, self.preset.name)).chain(rules) {
            if !container.holds(encoding) {
                let carried: Vec<&str> =
                    rwkv_forge_quant::encodable().map(|format| format.encoding()).filter(|e| container.holds(*e)).map(|e| e.name).collect();
                return Err(ConvertError::TypeNotCarried {
                    container: container.name(),
                    encoding: name,
                    carried: carried.join(", "),
                    instead: Names::of(container).instead_of(name),
                });
            }
        }
        Ok(())
    }

    fn choose(
        &self,
        spec: &TensorSpec,
        kept: Option<Encoding>,
        model: &ModelDescription,
        container: &dyn Container,
        used: &mut [bool],
    ) -> Result<Choice, ConvertError> {
        let constraint = container.constraint(model, spec);
        for index in self.rules.matching(&spec.name) {
            used[index] = true;
        }
        let choice = match self.rules.last(&spec.name) {
            Some(rule) => {
                if let Some(why) = constraint.refuses(rule.encoding) {
                    return Err(ConvertError::RuleViolatesContainer {
                        rule: rule.text.clone(),
                        tensor: spec.name.clone(),
                        encoding: rule.encoding.name,
                        why: why.to_owned(),
                    });
                }
                Choice { encoding: rule.encoding, reason: format!("set {}", rule.text) }
            }
            None => match kept.filter(|encoding| container.holds(*encoding) && constraint.refuses(*encoding).is_none()) {
                Some(encoding) => Choice { encoding, reason: "kept as it is in the source".to_owned() },
                None => self.default_choice(spec, model, constraint),
            },
        };
        self.fit_blocks(spec, model.mechanisms.time_mix, choice)
    }

    fn default_choice(&self, spec: &TensorSpec, model: &ModelDescription, constraint: Constraint) -> Choice {
        let Preset { name, base, head, .. } = self.preset;
        let float = if base.is_float() { base } else { Encoding::F16 };
        let by_type = |encoding| Choice { encoding, reason: format!("type {name}") };
        match constraint {
            Constraint::F32Only(why) => Choice { encoding: Encoding::F32, reason: why.to_owned() },
            Constraint::Float(_) | Constraint::FloatUnlessAsked(_) if base.is_float() => by_type(base),
            Constraint::Float(why) | Constraint::FloatUnlessAsked(why) => {
                Choice { encoding: float, reason: format!("{float}, since {why}") }
            }
            Constraint::F32UnlessAsked(why) => Choice { encoding: Encoding::F32, reason: why.to_owned() },
            Constraint::Any if base.is_float() => by_type(base),
            Constraint::Any if !spec.role.is_matrix() => {
                Choice { encoding: float, reason: format!("{float}: {} is small and sensitive", spec.role.name()) }
            }
            Constraint::Any if spec.role == TensorRole::Head => by_type(head),
            Constraint::Any if spec.role == TensorRole::FfnValue && is_llama_down(model.mechanisms.channel_mix) => {
                let layer = spec.layer.unwrap_or(0);
                by_type(self.preset.ffn_down(layer, model.hyperparameters.layers).unwrap_or(base))
            }
            Constraint::Any => by_type(base),
        }
    }

    /// Rows that are no whole number of blocks are stored in a format of shorter blocks, else in f16 (M4 in
    /// `docs/bad-inputs.md`); under `strict` they are refused.
    fn fit_blocks(&self, spec: &TensorSpec, time_mix: TimeMix, choice: Choice) -> Result<Choice, ConvertError> {
        // Low-rank factors are quantized in rows of inputs, which is how files hold them then.
        let row = match rwkv_forge_weights::Weight::of(spec) {
            Ok(weight) if spec.role.is_lora() && !choice.encoding.is_dense() => weight.columns as u64,
            _ => spec.shape.last().copied().unwrap_or(1),
        };
        let fits = |encoding: &Encoding| encoding.row_bytes(row).is_ok();
        if fits(&choice.encoding) {
            return Ok(choice);
        }
        let Encoding { name, block_len, .. } = choice.encoding;
        if self.strict {
            return Err(ConvertError::BlockLength { tensor: spec.name.clone(), row, block: block_len, encoding: name });
        }
        let encoding = stand_in(choice.encoding).filter(|other| fits(other) && !is_unfit(time_mix, *other)).unwrap_or(Encoding::F16);
        let reason = format!("{encoding} instead of {name}, since rows of {row} are not whole blocks of {block_len}");
        Ok(Choice { encoding, reason })
    }
}

/// Whether the channel mix's last matrix is what llama-quantize calls `ffn_down` and has rules of its own for.
fn is_llama_down(mix: ChannelMix) -> bool {
    match mix {
        ChannelMix::SwiGlu => true,
        ChannelMix::ReluSquared { .. } | ChannelMix::DeepEmbed { .. } => false,
    }
}

/// Rules in order. Those for one tensor each are found by its name: a plan has as many as the model has tensors.
#[derive(Clone, Debug, Default)]
struct Rules {
    all: Vec<Rule>,
    by_name: HashMap<String, Vec<usize>>,
    expressions: Vec<usize>,
}

impl Rules {
    fn push(&mut self, rule: Rule) {
        let index = self.all.len();
        match &rule.pattern {
            Pattern::Name(name) => self.by_name.entry(name.clone()).or_default().push(index),
            Pattern::Expression(_) => self.expressions.push(index),
        }
        self.all.push(rule);
    }

    /// Indices of the rules for this tensor, in no particular order.
    fn matching(&self, tensor: &str) -> impl Iterator<Item = usize> {
        let named = self.by_name.get(tensor).into_iter().flatten();
        let others = self.expressions.iter().filter(move |index| self.all[**index].pattern.is_match(tensor));
        named.chain(others).copied()
    }

    /// The last rule for this tensor, which decides.
    fn last(&self, tensor: &str) -> Option<&Rule> {
        self.matching(tensor).max().map(|index| &self.all[index])
    }
}

impl Rule {
    /// For one tensor, as its file will say it.
    fn of_tensor(tensor: &str, encoding: Encoding, harm: Option<f64>) -> Self {
        let expression = format!("^{}$", regex::escape(tensor));
        let text = format!("{expression}={}", encoding.name);
        Self { pattern: Pattern::Name(tensor.to_owned()), expression, encoding, quantizer: None, harm, text }
    }

    /// Parses `REGEX=TYPE` and `REGEX=TYPE:QUANTIZER`.
    fn new(text: &str, budget: &mut Budget, container: Option<&dyn Container>) -> Result<Self, ConvertError> {
        let bad = |reason: String| ConvertError::BadRecipe { location: format!("'{text}'"), reason };
        let Some((expression, name)) = text.rsplit_once('=') else {
            return Err(bad("expected REGEX=TYPE, for example --set 'ffn\\.value=q8_0'".to_owned()));
        };
        let (name, quantizer) = match name.split_once(':') {
            Some((name, quantizer)) => (name, Some(quantizer_by_name(quantizer.trim())?)),
            None => (name, None),
        };
        let pattern = Pattern::compile(expression, budget).map_err(|refused| match refused {
            Refused::Syntax(reason) => bad(reason),
            Refused::TooLarge(limit) => ConvertError::PatternsTooLarge { rule: text.chars().take(RULE_SHOWN).collect(), limit },
        })?;
        let encoding = format_by_name(name.trim(), container)?;
        if let Some(quantizer) = quantizer {
            check_support(quantizer, encoding, text)?;
        }
        Ok(Self { pattern, expression: expression.to_owned(), encoding, quantizer, harm: None, text: text.to_owned() })
    }
}

/// Refuses a quantizer for a type that it cannot make, instead of taking another one without a word.
fn check_support(quantizer: Quantizer, encoding: Encoding, location: &str) -> Result<(), ConvertError> {
    if rwkv_forge_quantizer::supports(quantizer, encoding) {
        return Ok(());
    }
    let known = rwkv_forge_quantizer::supported(quantizer).map(|encoding| encoding.name).collect::<Vec<_>>().join(", ");
    let reason = format!("the quantizer {quantizer} does not make {encoding}; it makes {known}");
    Err(ConvertError::BadRecipe { location: format!("'{location}'"), reason })
}

/// What files that were made by a recipe of many rules say of its text.
fn digest(text: &str) -> String {
    rwkv_forge_io::sha256_hex(text.as_bytes()).chars().take(16).collect()
}

/// Characters of a rule that is too large in its refusal.
const RULE_SHOWN: usize = 80;
/// Rules of a recipe file that are repeated in the metadata of a file one by one.
const LISTED: usize = 16;

/// The quantizer of this name.
///
/// # Errors
/// [`ConvertError::BadRecipe`] with the names that exist.
pub fn quantizer_by_name(name: &str) -> Result<Quantizer, ConvertError> {
    Quantizer::by_name(name).ok_or_else(|| {
        let known = Quantizer::ALL.map(Quantizer::name).join(", ");
        ConvertError::BadRecipe { location: format!("quantizer '{name}'"), reason: format!("there are {known}") }
    })
}
