//! Decides the encoding of every tensor, and says why: a type for the whole file, what the container allows, and rules.

use forge_model::{Choice, Constraint, ModelDescription, TensorRole, TensorSpec};
use forge_tensor::Encoding;
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::container::Container;
use crate::error::ConvertError;
use crate::preset::{Preset, format_by_name, preset_by_name, stand_in, type_names};

/// One override: tensors whose canonical name matches get this type.
#[derive(Clone, Debug)]
pub struct Rule {
    pattern: Regex,
    encoding: Encoding,
    /// As the user wrote it.
    text: String,
}

/// A type for the file and overrides in order; the last matching rule wins.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The type of everything that may be quantized.
    pub preset: Preset,
    rules: Vec<Rule>,
    /// Refuse rows that are no whole number of blocks instead of storing them in f16.
    pub strict: bool,
}

/// A recipe file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecipeFile {
    #[serde(rename = "type")]
    base: Option<String>,
    #[serde(default, rename = "set")]
    rules: Vec<RuleEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleEntry {
    tensors: String,
    #[serde(rename = "type")]
    encoding: String,
}

impl Recipe {
    /// Builds a recipe from the text of a recipe file, the `--type` option and the `--set` options. The command line
    /// wins over the file.
    ///
    /// # Errors
    /// Unknown types, bad regular expressions, bad TOML, or no type at all.
    pub fn new(file: Option<(&str, &str)>, base: Option<&str>, sets: &[String]) -> Result<Self, ConvertError> {
        let mut rules = Vec::new();
        let mut file_base = None;
        if let Some((path, text)) = file {
            let parsed: RecipeFile =
                toml::from_str(text).map_err(|error| ConvertError::BadRecipe { location: path.to_owned(), reason: error.to_string() })?;
            for entry in &parsed.rules {
                rules.push(Rule::new(&format!("{}={}", entry.tensors, entry.encoding))?);
            }
            file_base = parsed.base;
        }
        for text in sets {
            rules.push(Rule::new(text)?);
        }
        let Some(base) = base.or(file_base.as_deref()) else {
            return Err(ConvertError::BadRecipe {
                location: file.map_or("command line", |(path, _)| path).to_owned(),
                reason: format!("no type is given: add --type with one of {}", type_names().join(", ")),
            });
        };
        Ok(Self { preset: preset_by_name(base)?, rules, strict: false })
    }

    /// The recipe in one line, as it is recorded in the output.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("type={}", self.preset.name);
        for rule in &self.rules {
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
            .iter()
            .map(|rule| RuleEntry { tensors: rule.pattern.as_str().to_owned(), encoding: rule.encoding.name.to_owned() })
            .collect();
        toml::to_string(&RecipeFile { base: Some(self.preset.name.to_owned()), rules })
            .map_err(|error| ConvertError::Internal(error.to_string()))
    }

    /// Chooses an encoding for every tensor of the model, in the order of the description.
    ///
    /// # Errors
    /// When the container cannot hold the type, a rule contradicts the container or matches nothing, or, with
    /// `strict`, rows are no whole number of blocks.
    pub fn resolve(&self, model: &ModelDescription, container: &dyn Container) -> Result<Vec<Choice>, ConvertError> {
        self.check_container(container)?;
        let mut used = vec![false; self.rules.len()];
        let mut choices = Vec::with_capacity(model.tensors.len());
        for spec in &model.tensors {
            choices.push(self.choose(spec, model, container, &mut used)?);
        }
        if let Some(index) = used.iter().position(|used| !used) {
            let example = model.tensors.iter().rev().find(|spec| spec.layer.is_some()).map_or_else(String::new, |spec| spec.name.clone());
            return Err(ConvertError::RuleMatchesNothing { rule: self.rules[index].text.clone(), example });
        }
        Ok(choices)
    }

    fn check_container(&self, container: &dyn Container) -> Result<(), ConvertError> {
        for encoding in std::iter::once(self.preset.base).chain(self.rules.iter().map(|rule| rule.encoding)) {
            if !container.holds(encoding) {
                let carried: Vec<&str> =
                    forge_quant::FORMATS.iter().map(|format| format.encoding()).filter(|e| container.holds(*e)).map(|e| e.name).collect();
                return Err(ConvertError::TypeNotCarried {
                    container: container.name(),
                    encoding: encoding.name,
                    carried: carried.join(", "),
                });
            }
        }
        Ok(())
    }

    fn choose(
        &self,
        spec: &TensorSpec,
        model: &ModelDescription,
        container: &dyn Container,
        used: &mut [bool],
    ) -> Result<Choice, ConvertError> {
        let constraint = container.constraint(model.version, spec);
        let mut rule = None;
        for (index, candidate) in self.rules.iter().enumerate() {
            if candidate.pattern.is_match(&spec.name) {
                used[index] = true;
                rule = Some(candidate);
            }
        }
        let choice = match rule {
            Some(rule) => {
                let violation = match constraint {
                    Constraint::F32Only(why) if rule.encoding != Encoding::F32 => Some(why),
                    Constraint::Float(why) if !rule.encoding.is_float() => Some(why),
                    _ => None,
                };
                if let Some(why) = violation {
                    return Err(ConvertError::RuleViolatesContainer {
                        rule: rule.text.clone(),
                        tensor: spec.name.clone(),
                        encoding: rule.encoding.name,
                        why: why.to_owned(),
                    });
                }
                Choice { encoding: rule.encoding, reason: format!("set {}", rule.text) }
            }
            None => self.default_choice(spec, model, constraint),
        };
        self.fit_blocks(spec, choice)
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
            Constraint::Any if base.is_float() => by_type(base),
            Constraint::Any if !spec.role.is_matrix() => {
                Choice { encoding: float, reason: format!("{float}: {} is small and sensitive", spec.role.name()) }
            }
            Constraint::Any if spec.role == TensorRole::Head => by_type(head),
            Constraint::Any if spec.role == TensorRole::FfnValue && model.version.is_hybrid() => {
                let layer = spec.layer.unwrap_or(0);
                by_type(self.preset.ffn_down(layer, model.hyperparameters.layers).unwrap_or(base))
            }
            Constraint::Any => by_type(base),
        }
    }

    /// Rows that are no whole number of blocks are stored in a format of shorter blocks, else in f16 (M4); under
    /// `strict` they are refused.
    fn fit_blocks(&self, spec: &TensorSpec, choice: Choice) -> Result<Choice, ConvertError> {
        let row = spec.shape.last().copied().unwrap_or(1);
        let fits = |encoding: &Encoding| encoding.row_bytes(row).is_ok();
        if fits(&choice.encoding) {
            return Ok(choice);
        }
        let Encoding { name, block_len, .. } = choice.encoding;
        if self.strict {
            return Err(ConvertError::BlockLength { tensor: spec.name.clone(), row, block: block_len, encoding: name });
        }
        let encoding = stand_in(choice.encoding).filter(fits).unwrap_or(Encoding::F16);
        let reason = format!("{encoding} instead of {name}, since rows of {row} are not whole blocks of {block_len}");
        Ok(Choice { encoding, reason })
    }
}

impl Rule {
    /// Parses `REGEX=TYPE`.
    fn new(text: &str) -> Result<Self, ConvertError> {
        let bad = |reason: String| ConvertError::BadRecipe { location: format!("'{text}'"), reason };
        let Some((pattern, name)) = text.rsplit_once('=') else {
            return Err(bad("expected REGEX=TYPE, for example --set 'ffn\\.value=q8_0'".to_owned()));
        };
        let pattern = Regex::new(pattern).map_err(|error| bad(error.to_string()))?;
        Ok(Self { pattern, encoding: format_by_name(name.trim())?, text: text.to_owned() })
    }
}
