//! What PEFT's `adapter_config.json` says of an adapter: which formula, which scale, which matrices. Start at [`Config::read`].
//!
//! Everything that changes a number is honoured or refused by name. What only decided how the training began or went on changes none.

use std::path::{Path, PathBuf};

use rwkv_forge_container::{BesideFile, looks_like};
use rwkv_forge_io::InputFile;
use rwkv_forge_tensor::{BoxError, shorten};
use serde_json::{Map, Value};

use super::error::LoraError;
use crate::pattern::{Budget, Pattern};

/// Its name.
pub(crate) const ADAPTER_CONFIG: &str = "adapter_config.json";
/// Real ones have a few hundred bytes; those with a pattern for each matrix some thousand.
const MAX_BYTES: u64 = 1 << 20;

/// What some editors begin a file with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// What the name of a switch of PEFT's begins with that makes another model of the same tensors.
const SWITCH: &str = "use_";

/// Keys that change no number of the merged model, whatever they say.
const WITHOUT_EFFECT: [&str; 19] = [
    "arrow_alpha",
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "inference_mode",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
    // Orientation of the stored weight: factors are `[rank, in]` and `[out, rank]` of the layer's function either way.
    "fan_in_fan_out",
    // Which class of layers holds the numbered ones; the numbers are looked at.
    "layers_pattern",
    "ensure_weight_tying",
];
/// Keys that are read below.
const READ: [&str; 12] = [
    "alpha_pattern",
    "bias",
    "exclude_modules",
    "init_lora_weights",
    "layers_to_transform",
    "lora_alpha",
    "modules_to_save",
    "peft_type",
    "r",
    "rank_pattern",
    "target_modules",
    "use_rslora",
];
/// Switches and lists that make another model of the same tensors, with what they are.
const UNSUPPORTED: [(&str, &str); 8] = [
    ("use_dora", "DoRA, which scales every row of the merged matrix to a trained length"),
    ("lora_bias", "a LoRA with biases of its own, for which the model has no place"),
    ("use_qalora", "QA-LoRA, whose factors see sums of their inputs"),
    ("layer_replication", "an adapter of a model some of whose layers are repeated"),
    ("trainable_token_indices", "an adapter with rows of the embedding trained by themselves"),
    ("target_parameters", "an adapter of parameters that are no layers"),
    ("alora_invocation_tokens", "an activated LoRA, which begins to act in the middle of a text"),
    ("arrow_config", "a mixture of several adapters"),
];

/// An adapter's configuration.
pub(super) struct Config {
    /// The file, as it was read.
    pub(super) file: BesideFile,
    rank: u64,
    /// Alpha of every matrix that no pattern names, where it is said.
    pub(super) alpha: Option<f64>,
    /// The same from the user, for a configuration that does not say it.
    pub(super) given: Option<f64>,
    ranks: Vec<(Modules, u64)>,
    alphas: Vec<(Modules, f64)>,
    rank_stabilized: bool,
    targets: Option<Modules>,
    excluded: Option<Modules>,
    layers: Option<Vec<u64>>,
    /// Modules that were trained in full.
    pub(super) saved: Vec<String>,
    has_biases: bool,
    /// Name of the model that it was trained on.
    pub(super) base: Option<String>,
    /// Keys that this program does not know, with a value that may mean something.
    pub(super) unknown: Vec<String>,
}

/// How strongly one matrix is changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Strength {
    pub(super) rank: u64,
    pub(super) alpha: f64,
    pub(super) scale: f64,
}

impl Config {
    /// Reads the configuration in a folder; `None` where there is none.
    ///
    /// # Errors
    /// [`LoraError::BadConfig`], [`LoraError::Unsupported`], and failures to read.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, BoxError> {
        let path = folder.join(ADAPTER_CONFIG);
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        let file = InputFile::open(&path)?;
        if file.len() > MAX_BYTES {
            let problem = format!("the file has {} bytes, and a configuration of an adapter at most {MAX_BYTES}", file.len());
            return Err(LoraError::BadConfig { file: path, problem }.into());
        }
        let bytes = file.read_vec(0, file.len(), MAX_BYTES)?;
        let beside = BesideFile { path, identity: file.identity(), sha256: rwkv_forge_io::sha256_hex(&bytes) };
        Ok(Some(Self::parse(beside, &bytes)?))
    }

    fn parse(file: BesideFile, bytes: &[u8]) -> Result<Self, LoraError> {
        let keys = Keys::of(&file.path, bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes))?;
        keys.refuse_other_formulas()?;
        let mut budget = Budget::default();
        let ranks = keys.patterns("rank_pattern", &mut budget)?.into_iter().map(|(pattern, value)| Ok((pattern, keys.rank(value)?)));
        let ranks = ranks.collect::<Result<_, LoraError>>()?;
        let alphas = keys.patterns("alpha_pattern", &mut budget)?.into_iter().map(|(pattern, value)| Ok((pattern, keys.number(value)?)));
        let alphas = alphas.collect::<Result<_, LoraError>>()?;
        let has_biases = match keys.text("bias")?.as_deref() {
            None | Some("none") => false,
            Some("all" | "lora_only") => true,
            Some(other) => return Err(keys.bad(format!("bias is \"{}\", expected none, all or lora_only", shorten(other)))),
        };
        Ok(Self {
            rank: keys.rank(keys.rank_of_all()?)?,
            alpha: keys.get("lora_alpha").map(|value| keys.number(value)).transpose()?,
            given: None,
            ranks,
            alphas,
            rank_stabilized: keys.switch("use_rslora")?,
            targets: keys.modules("target_modules", &mut budget)?,
            excluded: keys.modules("exclude_modules", &mut budget)?,
            layers: keys.layers()?,
            saved: keys.names("modules_to_save")?,
            has_biases,
            base: keys.text("base_model_name_or_path")?,
            unknown: keys.unknown(),
            file,
        })
    }

    /// What the configuration says of the pair of a module.
    ///
    /// # Errors
    /// [`LoraError::Contradiction`] when two patterns that match it differ, [`LoraError::AlphaNotStated`] when nobody says its alpha.
    pub(super) fn strength(&self, module: &str) -> Result<Strength, LoraError> {
        let rank = self.matching("rank_pattern", &self.ranks, module)?.unwrap_or(self.rank);
        let alpha = self.matching("alpha_pattern", &self.alphas, module)?.or(self.alpha).or(self.given);
        let alpha = alpha.ok_or_else(|| LoraError::AlphaNotStated { config: self.file.path.clone(), rank })?;
        #[allow(clippy::cast_precision_loss, reason = "ranks are small")]
        let divisor = if self.rank_stabilized { (rank as f64).sqrt() } else { rank as f64 };
        Ok(Strength { rank, alpha, scale: alpha / divisor })
    }

    /// PEFT takes the first of the patterns that match, in an order that JSON does not promise; so they must agree.
    fn matching<T: Copy + PartialEq>(&self, key: &str, patterns: &[(Modules, T)], module: &str) -> Result<Option<T>, LoraError> {
        let mut values = patterns.iter().filter(|(pattern, _)| pattern.has(module)).map(|(_, value)| *value);
        let first = values.next();
        if values.any(|value| Some(value) != first) {
            return Err(self.contradiction(format!("several entries of {key} match {}, with different values", shorten(module))));
        }
        Ok(first)
    }

    /// Whether the pair of a module in a layer is among those that the configuration tells of.
    pub(super) fn targets(&self, module: &str, layer: Option<usize>) -> bool {
        let in_layers = match (&self.layers, layer) {
            (None, _) => true,
            (Some(layers), Some(layer)) => layers.iter().any(|wanted| usize::try_from(*wanted) == Ok(layer)),
            (Some(_), None) => false,
        };
        let excluded = self.excluded.as_ref().is_some_and(|modules| modules.has(module));
        in_layers && !excluded && self.targets.as_ref().is_none_or(|modules| modules.has(module))
    }

    /// Names in `target_modules`; none where it is an expression.
    pub(super) fn target_names(&self) -> &[String] {
        match &self.targets {
            Some(Modules::Names(names)) => names,
            Some(Modules::Matching(_) | Modules::AllLinear) | None => &[],
        }
    }

    /// Whether the modules are told one by one, so that it can be said which of them has no pair.
    pub(super) fn tells_modules(&self) -> bool {
        match &self.targets {
            Some(Modules::Names(_) | Modules::Matching(_)) => true,
            Some(Modules::AllLinear) | None => false,
        }
    }

    /// What `target_modules` says where it tells of no single modules.
    pub(super) fn target_words(&self) -> &'static str {
        match &self.targets {
            Some(Modules::AllLinear) => "target_modules is all-linear, every linear layer but the head",
            Some(Modules::Names(_) | Modules::Matching(_)) | None => "there is no target_modules",
        }
    }

    /// Whether a tensor that stands in the adapter in full is announced: as part of a module that was trained so, or as a bias.
    pub(super) fn announces(&self, tensor: &str) -> bool {
        self.has_biases && tensor.ends_with(".bias") || self.saved.iter().any(|module| is_within(tensor, module))
    }

    /// One line about the scales.
    pub(super) fn summary(&self) -> String {
        let root = if self.rank_stabilized { ", divided by the root of the rank" } else { "" };
        let patterns = if self.ranks.is_empty() && self.alphas.is_empty() { "" } else { " and its patterns for single matrices" };
        match (self.alpha, self.given) {
            (Some(alpha), _) => format!("alpha {alpha} and rank {} of {ADAPTER_CONFIG}{root}{patterns}", self.rank),
            (None, Some(alpha)) => {
                format!("alpha {alpha} as given, since {ADAPTER_CONFIG} says none, and its rank {}{root}{patterns}", self.rank)
            }
            (None, None) => format!("rank {} of {ADAPTER_CONFIG}{root}{patterns}", self.rank),
        }
    }

    /// What the record of a conversion says.
    pub(super) fn record(&self) -> String {
        let root = if self.rank_stabilized { " rslora" } else { "" };
        let patterns = if self.ranks.is_empty() && self.alphas.is_empty() { "" } else { " and patterns" };
        match self.alpha.or(self.given) {
            Some(alpha) => format!("alpha={alpha}{root}{patterns}"),
            None => format!("alpha=by-matrix{root}{patterns}"),
        }
    }

    pub(super) fn contradiction(&self, what: String) -> LoraError {
        LoraError::Contradiction { config: self.file.path.clone(), what }
    }
}

/// Whether a tensor lies in a module of this name, however deep.
pub(super) fn is_within(tensor: &str, module: &str) -> bool {
    !module.is_empty()
        && tensor.match_indices(module).any(|(at, _)| {
            let (before, rest) = (&tensor[..at], &tensor[at + module.len()..]);
            (before.is_empty() || before.ends_with('.')) && rest.starts_with('.')
        })
}

/// Some modules of a model.
enum Modules {
    /// Those whose names end in one of these.
    Names(Vec<String>),
    /// Those that an expression matches.
    Matching(Box<Pattern>),
    /// All linear layers but the last.
    AllLinear,
}

impl Modules {
    fn has(&self, module: &str) -> bool {
        match self {
            Self::Names(names) => {
                names.iter().any(|name| module.strip_suffix(name.as_str()).is_some_and(|before| before.is_empty() || before.ends_with('.')))
            }
            Self::Matching(pattern) => pattern.is_match(module),
            Self::AllLinear => true,
        }
    }
}

/// The keys of a configuration.
struct Keys<'p> {
    path: &'p Path,
    map: Map<String, Value>,
}

impl<'p> Keys<'p> {
    fn of(path: &'p Path, bytes: &[u8]) -> Result<Self, LoraError> {
        let bad = |problem: String| LoraError::BadConfig { file: path.to_owned(), problem };
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(map)) => Ok(Self { path, map }),
            Ok(_) => Err(bad("expected a JSON object, as PEFT writes it".to_owned())),
            Err(error) => Err(bad(match looks_like(bytes) {
                Some(what) if what != "a JSON text" => format!("this is {what}"),
                Some(_) | None => format!("it is no JSON: {error}"),
            })),
        }
    }

    fn bad(&self, problem: String) -> LoraError {
        LoraError::BadConfig { file: self.path.to_owned(), problem }
    }

    /// A value that is not null.
    fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn rank_of_all(&self) -> Result<&Value, LoraError> {
        let problem = "it has no r, the rank, by which the scale is divided and the factors are checked: write the rank of the training \
                       into it, as \"r\": 16, the first dimension of the tensors lora_A";
        self.get("r").ok_or_else(|| self.bad(problem.to_owned()))
    }

    /// What is not merged by W + scale B A.
    fn refuse_other_formulas(&self) -> Result<(), LoraError> {
        let unsupported = |what: String| Err(LoraError::Unsupported { file: self.path.to_owned(), what });
        match self.text("peft_type")? {
            Some(kind) if kind == "LORA" => {}
            Some(kind) => return unsupported(format!("this is an adapter of the kind {} (peft_type), no LoRA", shorten(&kind))),
            None => return Err(self.bad("it has no peft_type: which formula the adapter is merged by is not known".to_owned())),
        }
        for (key, what) in UNSUPPORTED {
            if self.get(key).is_some_and(|value| !is_empty(value)) {
                return unsupported(format!("this is {what} ({key})"));
            }
        }
        let is_switch = |(key, value): &(&String, &Value)| key.starts_with(SWITCH) && !READ.contains(&key.as_str()) && !is_empty(value);
        if let Some((key, _)) = self.map.iter().find(is_switch) {
            return unsupported(format!("this is an adapter with {} switched on, a formula that this program does not know", shorten(key)));
        }
        match self.get("init_lora_weights") {
            None | Some(Value::Bool(_)) => Ok(()),
            Some(Value::String(name)) => match name.to_ascii_lowercase().as_str() {
                // What is trained starts elsewhere, beside the same weights.
                "true" | "false" | "gaussian" | "eva" | "orthogonal" => Ok(()),
                _ => unsupported(format!(
                    "init_lora_weights is \"{}\": such a training takes the first factors out of the weights, so that the adapter does not belong \
                     to the weights of the base model unless it was converted (path_initial_model_for_weight_conversion of save_pretrained)",
                    shorten(name)
                )),
            },
            Some(other) => Err(self.bad(format!("init_lora_weights is {}", shorten(&other.to_string())))),
        }
    }

    fn text(&self, key: &str) -> Result<Option<String>, LoraError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(self.bad(format!("{key} is {}, expected a text", shorten(&other.to_string())))),
        }
    }

    fn switch(&self, key: &str) -> Result<bool, LoraError> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => Err(self.bad(format!("{key} is {}, expected true or false", shorten(&other.to_string())))),
        }
    }

    fn rank(&self, value: &Value) -> Result<u64, LoraError> {
        let rank = value.as_u64().filter(|rank| (1..=u64::from(u32::MAX)).contains(rank));
        rank.ok_or_else(|| self.bad(format!("a rank is {}, expected a positive integer", shorten(&value.to_string()))))
    }

    fn number(&self, value: &Value) -> Result<f64, LoraError> {
        let number = value.as_f64().filter(|number| number.is_finite());
        number.ok_or_else(|| self.bad(format!("an alpha is {}, expected a number", shorten(&value.to_string()))))
    }

    fn names(&self, key: &str) -> Result<Vec<String>, LoraError> {
        let bad = |found: &Value| self.bad(format!("{key} has {}, expected names of modules", shorten(&found.to_string())));
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(all)) => all.iter().map(|name| name.as_str().map(str::to_owned).ok_or_else(|| bad(name))).collect(),
            Some(other) => Err(bad(other)),
        }
    }

    /// A list of names, or one expression for whole names.
    fn modules(&self, key: &str, budget: &mut Budget) -> Result<Option<Modules>, LoraError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) if text == "all-linear" => Ok(Some(Modules::AllLinear)),
            Some(Value::String(text)) => self.expression(key, &format!("^(?:{text})$"), budget).map(Some),
            Some(_) => match self.names(key)? {
                names if names.is_empty() => Ok(None),
                names => Ok(Some(Modules::Names(names))),
            },
        }
    }

    /// Entries from an expression for the end of a name to a value.
    fn patterns(&self, key: &str, budget: &mut Budget) -> Result<Vec<(Modules, &Value)>, LoraError> {
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Object(map)) => {
                let entry = |(text, value)| Ok((self.expression(key, &format!(r"^(?:.*\.)?(?:{text})$"), budget)?, value));
                map.iter().map(entry).collect()
            }
            Some(other) => Err(self.bad(format!("{key} is {}, expected an object", shorten(&other.to_string())))),
        }
    }

    fn expression(&self, key: &str, text: &str, budget: &mut Budget) -> Result<Modules, LoraError> {
        let compiled = Pattern::compile(text, budget);
        let compiled = compiled.map_err(|refused| self.bad(format!("{key} has an expression that cannot be taken: {refused}")))?;
        Ok(Modules::Matching(Box::new(compiled)))
    }

    fn layers(&self) -> Result<Option<Vec<u64>>, LoraError> {
        let key = "layers_to_transform";
        let number = |value: &Value| {
            value.as_u64().ok_or_else(|| self.bad(format!("{key} has {}, expected numbers of layers", shorten(&value.to_string()))))
        };
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(all)) if all.is_empty() => Ok(None),
            Some(Value::Array(all)) => all.iter().map(number).collect::<Result<_, _>>().map(Some),
            Some(one) => Ok(Some(vec![number(one)?])),
        }
    }

    fn unknown(&self) -> Vec<String> {
        let known = |key: &str| {
            WITHOUT_EFFECT.contains(&key) || READ.contains(&key) || UNSUPPORTED.iter().any(|(unsupported, _)| *unsupported == key)
        };
        let may_mean_something = |(key, value): &(&String, &Value)| !known(key) && !is_empty(value);
        self.map.iter().filter(may_mean_something).map(|(key, _)| shorten(key)).collect()
    }
}

/// Whether a value says that there is nothing of the kind.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Array(all) => all.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
    }
}

/// Path of the configuration that belongs to a file of tensors, if its name is one that PEFT gives.
pub(super) fn folder_of(file: &Path) -> Option<PathBuf> {
    let name = file.file_name()?.to_str()?;
    super::TENSORS.contains(&name).then(|| file.parent().map_or_else(PathBuf::new, Path::to_path_buf))
}
