//! What is said of a model in the file that is made of it: by the user, by what the model was read from, and by what models of its kind
//! have. Start at [`words`].

use std::path::{Path, PathBuf};

use rwkv_forge_container::{
    ADDED_AROUND, ADDED_TOKENS, CARD, CONFIG, Container, FAKE_THINK, GENERATION_CONFIG, Given, Origin, SPECIAL_TOKENS, Sourced, TEMPLATE,
    TEMPLATE_JSON, TOKENIZER, TOKENIZER_CONFIG, TOOLS, TokenTable, Value, Word, Words, check_template, words_beside,
};
use rwkv_forge_model::VocabularyFamily;
use rwkv_forge_tensor::{BoxError, shorten};
use rwkv_forge_tokenizer::{SpecialId, Tokenizer};

use crate::container::CONTAINERS;
use crate::error::ConvertError;
use crate::open::OpenModel;
use crate::options::ConvertOptions;
use crate::preset::{aliases, type_names};
use crate::probe::{Vocabulary, check_size, known_vocabulary};
use crate::templates;

/// Names of all files that are ever read because they lie beside a checkpoint; for models with the World vocabulary only in a folder that
/// is the model's own.
pub const COMPANIONS: [&str; 13] = [
    CONFIG,
    TOKENIZER,
    TOKENIZER_CONFIG,
    SPECIAL_TOKENS,
    ADDED_TOKENS,
    GENERATION_CONFIG,
    FAKE_THINK,
    TOOLS,
    TEMPLATE,
    TEMPLATE_JSON,
    "additional_chat_templates/*.jinja",
    CARD,
    "rwkv_vocab*.txt",
];

/// The name of a model for whose name nobody is asked: [`name_of`] the source.
#[must_use]
pub fn named_after(source: &Path) -> Words {
    let name = name_of(source).map(|name| Sourced::default_of("the source's file name", name));
    Words { name, ..Words::default() }
}

/// What a source is called: a file without its extension, a directory without that of a container, an index of shards like the model that it is of. Where that
/// is `model` or `pytorch_model`, as every index is called, it is the directory's name. What lies in the Hub's cache, where directories are
/// called like revisions, is called like its repository.
///
/// ```
/// use std::path::Path;
/// let name = |path: &str| rwkv_forge_convert::name_of(Path::new(path)).unwrap();
/// assert_eq!(name("models/rwkv7-g1-1.5b.pth"), "rwkv7-g1-1.5b");
/// assert_eq!(name("rwkv7-1.5b/model.safetensors.index.json"), "rwkv7-1.5b");
/// assert_eq!(name("rwkv7-1.5b/rwkv7.safetensors.index.json"), "rwkv7");
/// assert_eq!(name("rwkv7-00001-of-00003.gguf"), "rwkv7");
/// let snapshot = "hub/models--org--rwkv7-1.5b/snapshots/0123456789abcdef0123456789abcdef01234567";
/// assert_eq!(name(&format!("{snapshot}/model.safetensors.index.json")), "rwkv7-1.5b");
/// ```
#[must_use]
pub fn name_of(source: &Path) -> Option<String> {
    let own = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let whole = |path: &Path| repository_of(path).or_else(|| own(path).map(without_ending));
    // `.` has a name only where it lies.
    let source = std::path::absolute(source).unwrap_or_else(|_| source.to_path_buf());
    if source.is_dir() {
        return whole(&source);
    }
    let name = own(&source)?;
    if let Some(parts) = rwkv_forge_gguf::split_name(&source) {
        return Some(parts.to_string_lossy().into_owned());
    }
    let Some(indexed) = name.strip_suffix(".index.json") else {
        let stem = source.file_stem().map(|stem| stem.to_string_lossy().into_owned())?;
        // There the name of a file says nothing that its repository does not say.
        let is_any = stem == "model" || stem == "pytorch_model";
        return source.parent().filter(|_| is_any).and_then(repository_of).or(Some(stem));
    };
    let indexed = indexed.strip_suffix(".safetensors").or_else(|| indexed.strip_suffix(".bin")).unwrap_or(indexed);
    match indexed {
        "model" | "pytorch_model" => source.parent().and_then(whole).or_else(|| Some(indexed.to_owned())),
        own => Some(own.to_owned()),
    }
}

/// The name of a directory without the ending that a container's have.
fn without_ending(name: String) -> String {
    let ending = CONTAINERS.iter().filter_map(|container| name.strip_suffix(container.extension())?.strip_suffix('.'));
    ending.min_by_key(|rest| rest.len()).filter(|rest| !rest.is_empty()).map(str::to_owned).unwrap_or(name)
}

/// The name of the repository whose revision a directory of the Hub's cache is.
fn repository_of(directory: &Path) -> Option<String> {
    let (repository, revision) = hub_revision(directory)?;
    // A folder within it has a name of its own.
    directory.file_name().filter(|name| name.to_str() == Some(revision.as_str()))?;
    repository.rsplit('/').next().map(str::to_owned).filter(|name| !name.is_empty())
}

/// Repository and revision of a path in the Hub's cache, `.../models--ORG--NAME/snapshots/REVISION/...`: `ORG/NAME` and the digits.
pub(crate) fn hub_revision(path: &Path) -> Option<(String, String)> {
    let path = std::path::absolute(path).ok()?;
    let parts: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.windows(3).rev().find_map(|parts| {
        let [repository, snapshots, revision] = parts else { return None };
        let is_revision = revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit());
        let name = repository.strip_prefix("models--").filter(|_| snapshots == "snapshots" && is_revision)?;
        Some((name.replace("--", "/"), revision.to_string()))
    })
}

/// The path of what is made of a source where none is given: `SOURCE-WHAT.EXTENSION` beside it. What the source's name or the extension says
/// already is not said again, a type that the source's name ends in gives way to that of the file, and it is never the source's own path. Beside a
/// folder means beside it, also where it is the one that one is in (`.`).
///
/// ```
/// use std::path::Path;
/// let path = |source: &str, what, extension| rwkv_forge_convert::output_beside(Path::new(source), what, extension);
/// assert_eq!(path("m/rwkv7.pth", Some("4bit"), "gguf"), Path::new("m/rwkv7-4bit.gguf"));
/// assert_eq!(path("m/rwkv7-F16.pth", Some("f16"), "st"), Path::new("m/rwkv7-F16.st"));
/// assert_eq!(path("state.st", Some("pth"), "pth"), Path::new("state.pth"));
/// assert_eq!(path("rwkv7.gguf", None, "gguf"), Path::new("rwkv7-new.gguf"));
/// assert_eq!(path("rwkv7-new.gguf", None, "gguf"), Path::new("rwkv7-new2.gguf"));
/// // The source's own type is not that of the file.
/// assert_eq!(path("rwkv7-f16.gguf", Some("q8_0"), "gguf"), Path::new("rwkv7-q8_0.gguf"));
/// assert_eq!(path("q8_0.gguf", Some("4bit"), "gguf"), Path::new("q8_0-4bit.gguf"));
/// // The only model in the folder that one is in stays the only one.
/// assert!(path(".", Some("4bit"), "gguf").starts_with(".."));
/// ```
#[must_use]
pub fn output_beside(source: &Path, what: Option<&str>, extension: &str) -> PathBuf {
    let stem = beside_named(source).unwrap_or_else(|| "model".to_owned());
    let place = |name: String| match source.file_name() {
        Some(_) => source.with_file_name(name),
        // `.` and its like: beside the folder, not in it, where it would be a second model.
        None if source == Path::new(".") => Path::new("..").join(name),
        None => source.join("..").join(name),
    };
    let name = match what.filter(|what| *what != extension && !ends_with(&stem, what)) {
        Some(what) if is_type(what) => format!("{}-{what}.{extension}", without_type(&stem)),
        Some(what) => format!("{stem}-{what}.{extension}"),
        None => format!("{stem}.{extension}"),
    };
    let path = place(name);
    if path == source { place(format!("{}.{extension}", another(&stem))) } else { path }
}

fn beside_named(source: &Path) -> Option<String> {
    match source.file_name() {
        Some(_) => name_of(source),
        // What `..` is called is known only where it lies.
        None => name_of(&source.canonicalize().ok()?),
    }
}

/// Whether a name ends in this word.
fn ends_with(stem: &str, word: &str) -> bool {
    before(stem, word).is_some_and(|before| before.is_empty() || before.ends_with(['-', '_', '.']))
}

fn before<'s>(stem: &'s str, word: &str) -> Option<&'s str> {
    let (before, end) = stem.split_at_checked(stem.len().checked_sub(word.len())?)?;
    end.eq_ignore_ascii_case(word).then_some(before)
}

fn is_type(word: &str) -> bool {
    type_names().contains(&word) || aliases().any(|(older, _)| older == word)
}

/// A name without the type that it ends in, which is that of the source.
fn without_type(stem: &str) -> &str {
    let types = type_names().into_iter().chain(aliases().map(|(older, _)| older));
    let rest = types.filter(|name| ends_with(stem, name)).filter_map(|name| before(stem, name));
    // Of `rwkv-q4` and `q4` the longer one.
    rest.map(|rest| rest.trim_end_matches(['-', '_', '.'])).filter(|rest| !rest.is_empty()).min_by_key(|rest| rest.len()).unwrap_or(stem)
}

/// The name of a file beside one of this name: `x-new`, and beside that `x-new2`.
fn another(stem: &str) -> String {
    let counted =
        stem.rsplit_once("-new").and_then(|(base, count)| Some((base, if count.is_empty() { 1 } else { count.parse::<u32>().ok()? })));
    match counted {
        Some((base, count)) => format!("{base}-new{}", count.saturating_add(1)),
        None => format!("{stem}-new"),
    }
}

/// What is said of a model, in this order: by the caller, by the files beside it and the source itself, and what models of its kind have.
/// Nothing is said yet of the making of the file.
///
/// # Errors
/// Refusals of the vocabulary, [`ConvertError::QwenVocabularyNeeded`] when there is none for a hybrid, what is wrong with one that
/// is there, and [`ConvertError::SpecialOutside`].
pub(crate) fn words(model: &OpenModel, options: &ConvertOptions<'_>) -> Result<Words, BoxError> {
    let said = match model.description().mechanisms.vocabulary {
        VocabularyFamily::Qwen => of_hybrid(model, options.vocabulary)?,
        VocabularyFamily::World => of_world(model, options.vocabulary, options.container)?,
    };
    let own_template = said.template.clone();
    let mut words = options.words.cloned().unwrap_or_default().or(said);
    templates::with_end_of_turn(&mut words, own_template.as_ref(), options.container);
    weigh_faults(&mut words, options.container)?;
    with_types(&mut words, options.container)?;
    if let Some(Sourced { value, origin: Origin::Beside(path) }) = &words.template {
        check_template(&path.display().to_string(), value)?;
    }
    words.notes.extend(of_class(model, &words, options.container));
    if options.container.words().contains(&Word::Template) {
        let found = templates::problems(&words);
        words.notes.extend(found.into_iter().chain(templates::unknown_marks(&words, options.container)));
    }
    check_special(&words, model.description().hyperparameters.vocabulary)?;
    without_lost_tokens(&mut words, options.container);
    let found = other_tokens(model, &words, options.container);
    words.notes.extend(found);
    with_stated_context(&mut words, options.container);
    with_stated_decoding(&mut words, options.container);
    settle(&mut words, options.container);
    Ok(words)
}

/// Refuses what somebody says in a way that cannot be read, unless an option says it or the container has no place for it.
fn weigh_faults(words: &mut Words, container: &dyn Container) -> Result<(), BoxError> {
    for fault in std::mem::take(&mut words.faults) {
        let said = match SpecialId::by_name(&fault.key).filter(|_| fault.word == Word::Special) {
            Some(id) => words.special.get(id).map(|said| &said.origin),
            // Whoever chooses a format of conversations has no need of the others.
            None => words.template.as_ref().map(|said| &said.origin),
        };
        let said = said.filter(|origin| matches!(origin, Origin::Option(_)));
        if said.is_none() && has_place(container, fault.word, &fault.key) {
            return Err(fault.error().into());
        }
        words.notes.push(fault.passed_over(said));
    }
    Ok(())
}

/// Texts under keys that a container has in another type become that, or are named and left out.
fn with_types(words: &mut Words, container: &dyn Container) -> Result<(), ConvertError> {
    let mut lost = Vec::new();
    for (key, said) in &mut words.other {
        match container.retyped(key, &said.value) {
            Ok(None) => {}
            Ok(Some(value)) => said.value = value,
            Err(expected) => lost.push((key.clone(), said.clone(), expected)),
        }
    }
    for (key, said, expected) in lost {
        let (found, container) = (shorten(&said.value.shown()), container.name());
        if let Origin::Option(option) = said.origin {
            return Err(ConvertError::MetaType { option, key, found, container, expected });
        }
        words.other.retain(|(other, _)| *other != key);
        let from = shorten(&said.origin.to_string());
        words.notes.push(format!("{from} is {found}, and not kept: a file of {container} has {expected} there"));
    }
    Ok(())
}

/// Whether a container has a place for what is said.
fn has_place(container: &dyn Container, word: Word, key: &str) -> bool {
    let is_special = || SpecialId::by_name(key).is_some_and(|id| container.special().contains(&id));
    container.words().contains(&word) && (word != Word::Special || is_special())
}

/// What is said of a vocabulary that a file gets in the place of another one that the source has.
fn other_tokens(model: &OpenModel, words: &Words, container: &dyn Container) -> Option<String> {
    let given = words.tokens.as_ref().filter(|given| matches!(given.origin, Origin::Option(_)))?;
    if !container.carries_tokens(&given.value) {
        return None;
    }
    let own = match model.words() {
        Ok(own) => own.tokens.as_ref()?,
        // Whoever brings a vocabulary has no need of the source's, be it damaged.
        Err(error) => return Some(format!("the vocabulary of {} is taken, and that of the source passed over: {error}", given.origin)),
    };
    let difference = own.value.difference(&given.value)?;
    let (option, source) = (&given.origin, shorten(&own.origin.to_string()));
    let (first, second) = (shorten(&difference.first), shorten(&difference.second));
    Some(match difference.count {
        Some(count) if count > 0 => format!(
            "the vocabulary of {option} is taken, which is not that of {source}: tokens that are others: {count}; the first: {first} in the \
             source, {second} in the file"
        ),
        Some(_) | None => {
            format!("the vocabulary of {option} is taken, which is not that of {source}: {first} in the source, {second} in the file")
        }
    })
}

/// The length of context is the one that the file states; one that somebody says and it cannot state is named.
fn with_stated_context(words: &mut Words, container: &dyn Container) {
    let stated = container.context(words);
    if let (Some(said), Some(stated)) = (words.context.as_ref().filter(|said| !said.is_default()), &stated)
        && said.value != stated.value
    {
        let (length, from) = (said.value, shorten(&said.origin.to_string()));
        let note = format!(
            "the length of context is {length} by {from}, which a file of {} cannot say: it says {}",
            container.name(),
            stated.value
        );
        words.notes.push(note);
    }
    words.context = stated;
}

/// How tokens are chosen is what the file states; what somebody says and it has no place for is named.
fn with_stated_decoding(words: &mut Words, container: &dyn Container) {
    const MOST: usize = 16;
    let stated = container.decoding(words);
    let said = std::mem::replace(&mut words.decoding, stated);
    for (name, said) in said.iter().filter(|(_, said)| !said.is_default()) {
        if words.decoding.iter().any(|(stated, _)| stated == name) {
            continue;
        }
        let keys: Vec<String> = said.value.keys().take(MOST).map(|key| shorten(key)).collect();
        words.notes.push(format!("how {} says to decode is not kept: {}", said.origin, keys.join(", ")));
    }
}

/// Says of what two files do not agree on who is heard, now that all have been.
fn settle(words: &mut Words, container: &dyn Container) {
    let found = std::mem::take(&mut words.disagreements);
    if found.is_empty() {
        return;
    }
    let entries = words.entries();
    words.notes.extend(found.iter().map(|one| {
        let said = entries.iter().find(|entry| entry.word == one.word && entry.key == one.key);
        one.settled(said.filter(|_| has_place(container, one.word, &one.key)).map(|entry| &entry.origin))
    }));
}

/// What `config.json` says of the end of texts, which is not read since it is that of a class and often wrong for RWKV, where it is not what the
/// file gets.
fn of_class(model: &OpenModel, words: &Words, container: &dyn Container) -> Option<String> {
    let is_read = matches!(model.description().mechanisms.vocabulary, VocabularyFamily::Qwen);
    if is_read || !model.beside.is_own() || !has_place(container, Word::Special, SpecialId::Eos.name()) {
        return None;
    }
    let written = words.special.get(SpecialId::Eos)?;
    let (path, bytes) = model.beside.bytes(CONFIG).ok()??;
    let config: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    let said = config.get("eos_token_id").filter(|said| !said.is_null())?;
    let is_written = |id: &serde_json::Value| id.as_u64() == Some(u64::from(written.value));
    if is_written(said) || said.as_array().is_some_and(|ids| ids.iter().any(is_written)) {
        return None;
    }
    let (said, from) = (shorten(&said.to_string()), shorten(&written.origin.to_string()));
    Some(format!(
        "{} says that eos_token_id is {said}, and the file gets {} by {from}: ids of a class are often wrong for RWKV, so they are not read; \
         --meta tokenizer.ggml.eos_token_id=ID takes another",
        path.display(),
        written.value
    ))
}

/// In a container without a place for the tokens, the id of one that was added to the vocabulary would be that of nothing.
fn without_lost_tokens(words: &mut Words, container: &dyn Container) {
    let Some(tokens) = &words.tokens else { return };
    if container.carries_tokens(&tokens.value) {
        return;
    }
    // The end of text is no addition, whatever it is called.
    let is_added = |tokenizer: &Tokenizer, id| tokenizer.mark(id).is_some() && tokenizer.end_of_text() != Some(id);
    let added = |id: u32| words.tokenizer().is_some_and(|tokenizer| is_added(tokenizer, id));
    let is_lost = |(which, id): &(SpecialId, u32)| container.special().contains(which) && added(*id);
    let lost: Vec<(SpecialId, u32)> = words.special.iter().map(|(which, said)| (which, said.value)).filter(is_lost).collect();
    for (which, id) in lost {
        words.special.set(which, None);
        words.notes.push(format!(
            "the {} token is {id}, which was added to the vocabulary and which {} has no place for: it is not kept",
            which.name(),
            container.name()
        ));
    }
}

/// A special id must be the id of something.
pub(crate) fn check_special(words: &Words, rows: usize) -> Result<(), ConvertError> {
    let exists = |id: u32| match words.tokenizer() {
        Some(tokenizer) => tokenizer.token_bytes(id).is_some() || tokenizer.mark(id).is_some(),
        None => usize::try_from(id).is_ok_and(|id| id < rows),
    };
    match words.special.iter().find(|(_, said)| !exists(said.value)) {
        None => Ok(()),
        Some((which, said)) => Err(ConvertError::SpecialOutside {
            name: which.name(),
            id: said.value,
            from: said.origin.to_string(),
            vocabulary: words.tokens.as_ref().map_or_else(|| format!("{rows} rows"), |tokens| tokens.value.summary()),
        }),
    }
}

/// The vocabulary that texts are read with: the caller's, else the one that the source or what lies beside it has, else World where the
/// model has its rows. `None` when nobody knows it.
///
/// # Errors
/// [`ConvertError::VocabularyTooLarge`] when it does not belong to the model, the tokenizer's own errors for a bad file, and what is wrong
/// with what the source says.
pub fn vocabulary_of(model: &OpenModel, choice: &Vocabulary) -> Result<Option<Sourced<Tokenizer>>, BoxError> {
    let rows = model.description().hyperparameters.vocabulary;
    if let Vocabulary::Auto = choice {
        let said = match model.words()?.tokens.as_ref() {
            Some(Sourced { value: TokenTable::LongestMatch(tokenizer) | TokenTable::Merges(tokenizer), origin }) => {
                Some((tokenizer, origin))
            }
            Some(Sourced { value: TokenTable::BytePairs(_), .. }) | None => None,
        };
        if let Some((tokenizer, origin)) = said {
            check_size(tokenizer, rows)?;
            return Ok(Some(Sourced { value: tokenizer.clone(), origin: origin.clone() }));
        }
    }
    let sourced = |value| match choice {
        Vocabulary::Auto => Sourced::default_of("the vocabulary of models with 65,536 rows", value),
        Vocabulary::World | Vocabulary::Bytes | Vocabulary::File(..) => Sourced::option("--vocab", value),
    };
    Ok(known_vocabulary(choice, rows)?.map(sourced))
}

/// The vocabulary of [`vocabulary_of`], for `what`, which cannot do without.
///
/// # Errors
/// As [`vocabulary_of`], and [`ConvertError::VocabularyNeeded`].
pub fn vocabulary_for(model: &OpenModel, choice: &Vocabulary, what: &str) -> Result<Tokenizer, BoxError> {
    Ok(vocabulary_of(model, choice)?.ok_or_else(|| vocabulary_needed(model, what))?.value)
}

/// The refusal of `what`, which cannot do without a vocabulary. One that lies beside the model's file is named, and not taken: beside a single
/// file may lie anybody's.
#[must_use]
pub fn vocabulary_needed(model: &OpenModel, what: &str) -> ConvertError {
    let rows = model.description().hyperparameters.vocabulary;
    ConvertError::VocabularyNeeded { what: what.to_owned(), rows, beside: crate::probe::vocabulary_beside(model.source().path(), rows) }
}

/// The vocabulary, what stands around it in the source, and what belongs to it by default.
fn of_world(model: &OpenModel, choice: &Vocabulary, container: &dyn Container) -> Result<Words, BoxError> {
    let known = vocabulary_of(model, choice)?;
    if container.needs_vocabulary() {
        let needed = || vocabulary_needed(model, &format!("container {}", container.name()));
        let Sourced { value: tokenizer, origin } = known.as_ref().ok_or_else(needed)?;
        if !container.carries_tokens(&TokenTable::of(tokenizer.clone())) {
            return Err(ConvertError::VocabularyIsNoList {
                what: format!("container {}", container.name()),
                vocabulary: match origin {
                    Origin::Beside(path) => path.display().to_string(),
                    Origin::Option(_) | Origin::Source { .. } | Origin::Default(_) => tokenizer.name().to_owned(),
                },
            }
            .into());
        }
    }
    let around = match (choice, &known) {
        (Vocabulary::Auto, _) | (_, None) => model.words()?.clone(),
        // Whoever brings a vocabulary has no need of the source's, be it damaged.
        (Vocabulary::World | Vocabulary::Bytes | Vocabulary::File(..), Some(given)) => {
            let around = model.words_around(Some(&given.value))?;
            without_other_tokens(around, model.description().hyperparameters.vocabulary, &given.origin)
        }
    };
    let usual = known.map(Words::world).unwrap_or_default();
    Ok(Words { tokens: None, provenance: None, ..around }.or(usual))
}

/// What the source says around its vocabulary, where that of `taken` is taken instead: what is said token by token is said of the source's own,
/// by its key or by its length; templates with names are not.
fn without_other_tokens(mut around: Words, rows: usize, taken: &Origin) -> Words {
    const MOST: usize = 16;
    let is_kept = |key: &str| key.starts_with("tokenizer.chat_template") || ADDED_AROUND.contains(&key);
    let is_of_tokens = |key: &str, value: &Value| {
        let is_list = matches!(value, Value::Array(list) if list.len() == rows && rows > 1);
        (key.starts_with("tokenizer.") || is_list) && !is_kept(key)
    };
    let lost = around.other.iter().filter(|(key, said)| is_of_tokens(key, &said.value));
    let mut lost: Vec<String> = lost.map(|(key, _)| shorten(key)).collect();
    around.other.retain(|(key, said)| !is_of_tokens(key, &said.value));
    if !lost.is_empty() {
        let more = lost.len().saturating_sub(MOST);
        lost.truncate(MOST);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let keys = lost.join(", ");
        around.notes.push(format!("what the source says of its own tokens is not kept, since {taken} is the vocabulary: {keys}{more}"));
    }
    around
}

/// The `tokenizer.json` that the user gives with `--vocab`, else the one beside the checkpoint, else the vocabulary in the source, each
/// with what stands around it.
fn of_hybrid(model: &OpenModel, choice: &Vocabulary) -> Result<Words, BoxError> {
    let given = match choice {
        Vocabulary::Auto => None,
        Vocabulary::File(name, bytes) => Some(Sourced::option("--vocab", (name.clone(), bytes.clone()))),
        Vocabulary::World | Vocabulary::Bytes => return Err(needed("RWKV's vocabularies do not belong to it").into()),
    };
    let given = Given { tokenizer_json: given.as_ref(), ..Given::default() };
    let beside = words_beside(&model.beside, model.description(), given)?;
    let around = match &beside.tokens {
        Some(taken) => without_other_tokens(model.words_around(None)?, model.description().hyperparameters.vocabulary, &taken.origin),
        None => model.words()?.clone(),
    };
    let said = beside.or(Words { provenance: None, ..around });
    if said.has(Word::Tokens) { Ok(said) } else { Err(needed("there is none beside the checkpoint").into()) }
}

fn needed(why: &str) -> ConvertError {
    ConvertError::QwenVocabularyNeeded { why: why.to_owned() }
}
