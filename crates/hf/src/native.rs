//! A directory for `RwkvForCausalLM` of Transformers, RWKV-7 as its makers publish it since August 2026. Start at [`native`].

use rwkv_forge_container::{
    CONTEXT_GUESS, Decoding, FAKE_THINK, GENERATION_CONFIG, Origin, Sourced, TEMPLATE, TOKENIZER, TOKENIZER_CONFIG, TOOLS, Words,
};
use rwkv_forge_model::{Choice, DigestOf, DigestPlace, FileLayout, ModelDescription, OutputLayout, Patch, TimeMix, Version};
use rwkv_forge_tokenizer::SpecialId;
use serde_json::{Value, json};

use crate::config::{END_OF_TURN, dtype, ends, id, turn};
use crate::error::HfError;
use crate::hugging_face::{CONFIG, WORLD, template, vocabulary};
use crate::shards::{files, is_weights, text_file};
use crate::table::native_row;
use crate::tensors::{Squeezed, Style, tensors};

/// What the weights were made of.
const PROVENANCE: &str = "PROVENANCE.md";
/// Who says how tokens are chosen where nobody else does.
const PUBLISHED: &str = "what is published with models of this class";
/// The length of context that is stated where neither the name nor the source says what the model was trained with.
const CONTEXT: u64 = 4096;
/// Who says that.
const GUESSED: &str = "a guess: nobody says what the model was trained with, and no length limits it";
/// The same of a source with a number of no meaning.
const GUESSED_ANYHOW: &str = "a guess: nobody says what the model was trained with (1048576, which llama.cpp's converter writes into every file, says \
    nothing), and no length limits it";
/// The name of a model does.
const BY_NAME: &str = "by the model's name";
/// What stands behind a place of which the rest stays blank, so that no line ends in blanks.
const END_OF_PLACE: &str = "<!-- -->";
/// Bytes kept for the result of the comparison, and for whether it changed a value.
const VERIFY_BYTES: usize = 400;
const LOSSLESS_BYTES: usize = 64;
/// Hexadecimal digits of a SHA-256.
const DIGEST_BYTES: usize = 64;

/// Whether a directory of [`native`] may have a file of this name.
#[must_use]
pub fn native_writes(name: &str) -> bool {
    [CONFIG, GENERATION_CONFIG, FAKE_THINK, TOOLS, TEMPLATE, WORLD, TOKENIZER, TOKENIZER_CONFIG, PROVENANCE].contains(&name)
        || is_weights(name)
}

/// Whether the class reads models of this version.
///
/// # Errors
/// [`HfError::CannotCarry`] for all but RWKV-7.
pub fn can_carry_native(version: Version) -> Result<(), HfError> {
    native_row(version).map(|_| ())
}

/// Lays out a directory: the weights in one file or in shards with an index, `config.json`, the decoding that is published for answers with
/// thought, almost without, and for tools, `chat_template.jinja` where a template is known, the vocabulary as [`crate::hugging_face()`] has it, and
/// `PROVENANCE.md` with the digests of the source and of the weights. `shard_bytes` are the bytes of tensors in a file,
/// [`crate::SHARD_BYTES`] but for tests.
///
/// ```
/// use rwkv_forge_container::Words;
/// use rwkv_forge_hf::{SHARD_BYTES, native};
/// use rwkv_forge_model::Choice;
/// use rwkv_forge_tensor::Encoding;
///
/// # use rwkv_forge_testkit::models::{Sizes, random_model};
/// # let checkpoint = random_model(rwkv_forge_model::Version::V7, &Sizes::TINY, 1);
/// # let model = rwkv_forge_model::describe(rwkv_forge_tensor::TensorSource::tensors(&checkpoint))?;
/// let choice = Choice { encoding: Encoding::BF16, reason: "a wish".to_owned() };
/// let directory = native(&model, &vec![choice; model.tensors.len()], &Words::default(), SHARD_BYTES)?;
///
/// // Every file is known, and no tensor was read.
/// let (_, config) = directory.files().find(|(name, _)| *name == "config.json").expect("a configuration");
/// assert!(std::str::from_utf8(&config.header)?.contains("RwkvForCausalLM"));
/// let (_, weights) = directory.files().find(|(name, _)| *name == "model.safetensors").expect("one file of weights");
/// assert!(weights.tensors.iter().any(|tensor| tensor.name == "model.layers.1.linear_attn.k_proj.weight"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`HfError::CannotCarry`], and the errors of safetensors layouts.
pub fn native(model: &ModelDescription, choices: &[Choice], words: &Words, shard_bytes: u64) -> Result<OutputLayout, HfError> {
    let row = native_row(model.version)?;
    let style = Style { convention: row.convention, squeezed: Squeezed::All, eighth_value: false, stand_ins: false };
    let mut all = files(tensors(model, choices, style)?, model.version, &[], words, shard_bytes)?;
    let context = context(words);
    let provenance = provenance(model, words, &all, &context);
    all.push(text_file(CONFIG, format!("{:#}\n", config(model, choices, row.kind, words, &context)?)));
    for (name, decoding) in decoding(words) {
        all.push(text_file(&name, format!("{:#}\n", generation(decoding.value, words))));
    }
    all.extend(template(words));
    // World has no padding of its own.
    let pad = words.special.get(SpecialId::Pad).map(|_| SpecialId::Pad);
    all.extend(vocabulary(words, &[SpecialId::Bos, SpecialId::Eos].into_iter().chain(pad).collect::<Vec<_>>()));
    all.push((PROVENANCE.to_owned(), provenance));
    Ok(OutputLayout::Directory(all))
}

/// How tokens are chosen where nobody says it.
struct Usual {
    temperature: f64,
    top_p: f64,
    top_k: u32,
    /// Presence, frequency, and what the counts are multiplied with at each token.
    penalties: Option<[f64; 3]>,
}

/// With open thought.
static OPEN: Usual = Usual { temperature: 0.96, top_p: 0.76, top_k: 32, penalties: Some([1.0, 0.1, 0.988]) };
/// With thought that is closed at once.
static FAKE: Usual = Usual { temperature: 1.0, top_p: 0.28, top_k: 32, penalties: None };
/// For calls of tools: as with open thought, without penalties.
static CALLS: Usual = Usual { temperature: 0.96, top_p: 0.76, top_k: 32, penalties: Some([0.0, 0.0, OPEN_DECAY]) };
const OPEN_DECAY: f64 = 0.988;

impl Usual {
    fn keys(&self) -> Decoding {
        let said = [
            ("do_sample", json!(true)),
            ("temperature", json!(self.temperature)),
            ("top_p", json!(self.top_p)),
            ("top_k", json!(self.top_k)),
        ];
        let penalties = self.penalties.map(|[presence, frequency, decay]| {
            [("presence_penalty", json!(presence)), ("frequency_penalty", json!(frequency)), ("penalty_decay", json!(decay))]
        });
        said.into_iter().chain(penalties.into_iter().flatten()).map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

/// What each of the files says of decoding: what somebody says, else what is published with the models. Asked again of what it answered, it
/// answers the same.
pub(crate) fn decoding(words: &Words) -> Vec<(String, Sourced<Decoding>)> {
    let said = |name: &str| words.decoding.iter().find(|(known, _)| known == name).map(|(_, said)| said.clone());
    let each = [(GENERATION_CONFIG, &OPEN), (FAKE_THINK, &FAKE), (TOOLS, &CALLS)];
    each.map(|(name, usual)| (name.to_owned(), said(name).unwrap_or_else(|| Sourced::default_of(PUBLISHED, usual.keys())))).to_vec()
}

fn generation(decoding: Decoding, words: &Words) -> Value {
    let mut config = decoding;
    let ids = [("bos_token_id", json!(id(&words.special, SpecialId::Bos))), ("eos_token_id", ends(&words.special))];
    // World has no padding of its own.
    let pad = words.special.get(SpecialId::Pad).map(|pad| ("pad_token_id", json!(pad.value)));
    let turn = turn(&words.special).map(|turn| (END_OF_TURN, json!(turn)));
    config.extend(ids.into_iter().chain(turn).chain(pad).map(|(key, value)| (key.to_owned(), value)));
    Value::Object(config)
}

fn config(model: &ModelDescription, choices: &[Choice], kind: &str, words: &Words, context: &Sourced<u64>) -> Result<Value, HfError> {
    let sizes = &model.hyperparameters;
    let TimeMix::Wkv7 { decay, iclr, value, gate } = model.mechanisms.time_mix else {
        return Err(HfError::Internal(format!("RwkvForCausalLM has no {}", model.mechanisms.time_mix.name())));
    };
    let mut config = json!({
        "architectures": ["RwkvForCausalLM"],
        "model_type": "rwkv",
        "architecture_version": kind,
        "a_low_rank_dim": iclr,
        "bos_token_id": id(&words.special, SpecialId::Bos),
        "context_length": context.value,
        "decay_low_rank_dim": decay,
        "eos_token_id": id(&words.special, SpecialId::Eos),
        "gate_low_rank_dim": gate.unwrap_or(0),
        "group_norm_epsilon": 64e-5,
        "head_size": sizes.head_size,
        "hidden_size": sizes.channels,
        "intermediate_size": sizes.ffn,
        "layer_norm_epsilon": 1e-5,
        "num_attention_heads": sizes.heads,
        "num_hidden_layers": sizes.layers,
        "tie_word_embeddings": false,
        "torch_dtype": dtype(model, choices),
        "v_low_rank_dim": value.unwrap_or(0),
        "vocab_size": sizes.vocabulary,
        "wkv_mode": "fp32io16",
    });
    let is_guess = matches!(context.origin, Origin::Default(why) if why != BY_NAME);
    if let Some(entries) = config.as_object_mut().filter(|_| is_guess) {
        entries.insert(CONTEXT_GUESS.to_owned(), json!(context.value));
    }
    Ok(config)
}

/// The length of context that the model was trained with, and who says so. Who is asked first says it; no tensor does. Names of released models do
/// (`-ctx8192`), and a number that a class has for all its models is better than none. Asked again of what it answered, it answers the same.
pub(crate) fn context(words: &Words) -> Sourced<u64> {
    let said = words.own_context();
    if let Some(said) = said.filter(|said| !said.is_default()) {
        return said.clone();
    }
    let name = words.name.as_ref().map_or("", |name| name.value.as_str());
    let digits = name.rsplit_once("-ctx").map_or("", |(_, rest)| rest);
    let end = digits.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(digits.len());
    match (digits.get(..end).unwrap_or_default().parse(), said) {
        (Ok(length), _) if length > 0 => Sourced::default_of(BY_NAME, length),
        (_, Some(said)) => said.clone(),
        (_, None) => Sourced::default_of(if words.context.is_some() { GUESSED_ANYHOW } else { GUESSED }, CONTEXT),
    }
}

/// Who says it, after the number and a comma.
fn said_by(context: &Sourced<u64>) -> String {
    match &context.origin {
        Origin::Default(why) => (*why).to_owned(),
        origin @ (Origin::Option(_) | Origin::Source { .. } | Origin::Beside(_)) => format!("by {}", plain(&origin.to_string())),
    }
}

/// The text of `PROVENANCE.md`, with places for what is known when the weights are written.
fn provenance(model: &ModelDescription, words: &Words, weights: &[(String, FileLayout)], context: &Sourced<u64>) -> FileLayout {
    let mut page = Page::default();
    page.text("# Provenance\n\n");
    let made = words.provenance.clone().unwrap_or_default();
    page.text(&format!("Written by rwkv-forge {} from a checkpoint of {}.\n\n", made.tool_version, model.version));
    page.text(&format!("- recipe: `{}`\n", plain(&made.recipe)));
    page.text(&format!(
        "- source revision: {}\n",
        made.revision.as_deref().map_or("not known".to_owned(), |said| format!("`{}`", plain(said)))
    ));
    page.text("- every tensor holds the values of the source: ");
    page.late("lossless", LOSSLESS_BYTES);
    page.text(&format!("{END_OF_PLACE}\n- logits compared with those of the source: "));
    page.late("verify", VERIFY_BYTES);
    page.text(&format!("{END_OF_PLACE}\n- context_length of config.json: {}, {}\n", context.value, said_by(context)));
    if !model.unused.is_empty() {
        let count = model.unused.len();
        page.text(&format!("- left out: {count} tensors of the source that no model of its kind uses\n"));
    }
    page.text("\nSHA-256 of the source:\n\n```\n");
    for (index, name) in made.sources.iter().enumerate() {
        page.digest(DigestOf::Source(index));
        page.text(&format!("  {}\n", plain(name)));
    }
    page.text("```\n\nSHA-256 of the weights, for `sha256sum -c`:\n\n```\n");
    for (name, _) in weights {
        page.digest(DigestOf::Output(name.clone()));
        page.text(&format!("  {name}\n"));
    }
    page.text("```\n");
    page.finish()
}

/// Without what would end the code that it stands in.
fn plain(text: &str) -> String {
    rwkv_forge_tensor::shorten(text).replace('`', "'")
}

/// A text with places that are filled in later.
#[derive(Default)]
struct Page {
    text: Vec<u8>,
    patches: Vec<Patch>,
    digests: Vec<DigestPlace>,
}

impl Page {
    fn text(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    fn offset(&self) -> u64 {
        u64::try_from(self.text.len()).unwrap_or(u64::MAX)
    }

    fn gap(&mut self, bytes: usize, filler: u8) {
        self.text.resize(self.text.len().saturating_add(bytes), filler);
    }

    fn late(&mut self, name: &'static str, bytes: usize) {
        self.patches.push(Patch { name, offset: self.offset(), bytes });
        self.gap(bytes, b' ');
    }

    fn digest(&mut self, of: DigestOf) {
        self.digests.push(DigestPlace { of, offset: self.offset() });
        self.gap(DIGEST_BYTES, b'0');
    }

    fn finish(self) -> FileLayout {
        let total_bytes = self.offset();
        FileLayout { header: self.text, total_bytes, patches: self.patches, digests: self.digests, ..FileLayout::default() }
    }
}

#[cfg(test)]
mod tests {
    use rwkv_forge_container::{Sourced, Words};

    use super::{CALLS, OPEN, OPEN_DECAY, context, said_by};

    #[test]
    fn decoding_for_tools_is_that_of_open_thought_without_penalties() {
        assert_eq!(OPEN.penalties.map(|penalties| penalties[2]), Some(OPEN_DECAY));
        assert_eq!(CALLS.penalties, Some([0.0, 0.0, OPEN_DECAY]));
        assert!((CALLS.top_p - OPEN.top_p).abs() < 1e-9 && CALLS.top_k == OPEN.top_k);
    }

    #[test]
    fn the_context_is_that_of_the_name() {
        for (name, length) in [
            ("rwkv7-g1j-1.5b-20260831-ctx16384", 16_384),
            ("rwkv7-g1d-0.1b-20260129-ctx8192-q8_0", 8192),
            ("rwkv-g1k-3b-temp-5441", 4096),
            ("x-ctx", 4096),
            ("x-ctx0", 4096),
            ("x-ctx99999999999999999999", 4096),
        ] {
            let words = Words { name: Some(Sourced::option("--name", name.to_owned())), ..Words::default() };
            assert_eq!(context(&words).value, length, "{name}");
            // What the source says comes first; what a class says of all its models comes after the name.
            let said = Words { context: Some(Sourced::option("--meta", 77)), ..words.clone() };
            assert_eq!(context(&said).value, 77);
            let usual = Words { context: Some(Sourced::default_of("its class", 2048)), ..words.clone() };
            let found = context(&usual);
            assert_eq!((found.value, said_by(&found).contains("its class")), if length == 4096 { (2048, true) } else { (length, false) });
            // Asked again, and where a converter's number says nothing.
            assert_eq!(context(&Words { context: Some(found.clone()), ..words.clone() }), found);
            let nothing = Words { context: Some(Sourced::default_of("a converter", 1_048_576)), ..words };
            let found = context(&nothing);
            assert_eq!((found.value, said_by(&found).contains("1048576")), (length, length == 4096));
        }
    }
}
