//! What programs make of the chat template of a file. The rules of [`crate::lint`] about it.

use rwkv_forge_container::lint::first_of;
use rwkv_forge_container::{Array, ChatFormat, NAMED_TEMPLATE, Value, check_template, failure_of_template};
use rwkv_forge_tensor::shorten;

use crate::lint::{has_rwkv_tokens, tokens};
use crate::reader::GgufFile;
use crate::vocabulary::{CONTROL, UNUSED, USER_DEFINED, unspell};

/// What llama.cpp's C API recognises RWKV's chat template by.
const C_API_MARKS: [&str; 2] = ["rwkv-world", r"{{- 'User: ' + message['content']|trim + '\n\n' -}}"];
/// Templates of others that it recognises before RWKV's, as far as one of an RWKV model may have their marks.
const C_API_OTHERS: [&str; 5] = ["<|im_start|>", "[INST]", "[gMASK]", "<start_of_turn>", "<|start_header_id|>"];

const TEMPLATE: &str = "tokenizer.chat_template";

/// The template, where there is one with anything in it.
fn template(file: &GgufFile) -> Option<&str> {
    let text = file.metadata().get(TEMPLATE).and_then(Value::as_str)?;
    (!text.trim().is_empty()).then_some(text)
}

pub(crate) fn chat_template(file: &GgufFile) -> Option<String> {
    tokens(file)?;
    match template(file) {
        Some(_) => None,
        None => Some("tokenizer.chat_template is missing: programs take the format of another model's conversations".to_owned()),
    }
}

pub(crate) fn chat_template_jinja(file: &GgufFile) -> Option<String> {
    let named = file.metadata().entries().iter().filter(|(key, _)| key.starts_with(NAMED_TEMPLATE));
    let named = named.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)));
    let all: Vec<(&str, &str)> = template(file).map(|text| (TEMPLATE, text)).into_iter().chain(named).collect();
    let unreadable = all.iter().find_map(|(key, text)| check_template(&shorten(key), text).err());
    if let Some(why) = unreadable {
        return Some(format!("{}: programs with an engine for Jinja, such as llama-server, cannot read it", shorten(&why.to_string())));
    }
    let problem = failure_of_template(template(file)?)?;
    Some(format!("{TEMPLATE} {}: programs with an engine for Jinja, such as llama-server, make no prompt of it", shorten(&problem)))
}

/// Ids that are those of no token, by their keys.
pub(crate) fn special_ids(file: &GgufFile) -> Option<String> {
    let count = tokens(file)?.len();
    let is_outside = |value: &Value| value.as_u64().and_then(|id| usize::try_from(id).ok()).is_none_or(|id| id >= count);
    let is_id = |key: &str| key.starts_with("tokenizer.ggml.") && key.ends_with("_token_id");
    let outside = file.metadata().entries().iter().filter(|(key, value)| is_id(key) && is_outside(value));
    let outside = first_of(outside.map(|(key, value)| format!("{} is {}", shorten(key), shorten(&value.to_string()))))?;
    Some(format!("{outside}, and the vocabulary has the ids 0 to {}: programs take another token for it, or none", count.saturating_sub(1)))
}

pub(crate) fn chat_template_c_api(file: &GgufFile) -> Option<String> {
    let template = template(file).filter(|_| has_rwkv_tokens(file))?;
    let has = |marks: &[&str]| marks.iter().any(|mark| template.contains(mark));
    if has(&C_API_MARKS) || has(&C_API_OTHERS) {
        return None;
    }
    let format = ChatFormat::of(template).map(|format| format!(", which is the format {},", format.name)).unwrap_or_default();
    let [name, mark] = C_API_MARKS;
    Some(format!(
        "tokenizer.chat_template{format} does not contain {mark} or {name}, by which llama_chat_apply_template recognises RWKV's \
         conversations: it answers -1, so that programs need an engine for Jinja (such as llama-server's), and those without refuse the \
         conversation or take another format"
    ))
}

/// A special token: its id and its text.
fn special(file: &GgufFile, name: &str) -> Option<(u64, Vec<u8>)> {
    let metadata = file.metadata();
    let id = metadata.get(&format!("tokenizer.ggml.{name}_token_id")).and_then(Value::as_u64)?;
    let place = usize::try_from(id).ok();
    let kind = match metadata.get("tokenizer.ggml.token_type") {
        Some(Value::Array(Array::I32(kinds))) => place.and_then(|place| kinds.get(place)),
        _ => None,
    };
    let text = place.and_then(|place| tokens(file)?.get(place)).map(String::as_str).unwrap_or_default();
    // The names of those are no spelled bytes.
    let is_name = kind.is_some_and(|kind| [CONTROL, USER_DEFINED, UNUSED].contains(kind));
    Some((id, if is_name { text.as_bytes().to_vec() } else { unspell(text) }))
}

/// Whether a template can end an answer with a token: of a known format that is known; another one has to have its text somewhere, as it
/// is or as Jinja escapes it, or the variable that stands for it.
fn ends_with(template: Option<&str>, name: &str, token: &(u64, Vec<u8>)) -> bool {
    let Some(text) = std::str::from_utf8(&token.1).ok().filter(|text| !text.is_empty()) else { return false };
    // Without a template programs that know RWKV take World's.
    let known = template.map_or_else(|| ChatFormat::by_name("world"), ChatFormat::of);
    match (known, template) {
        (Some(format), _) => format.end_of_turn == Some(text),
        (None, template) => {
            let writes = |text: &str| template.is_some_and(|template| template.contains(text));
            writes(text) || writes(&text.replace('\n', "\\n")) || writes(&format!("{name}_token"))
        }
    }
}

pub(crate) fn end_of_turn(file: &GgufFile) -> Option<String> {
    // Of other tokens nothing is known by which programs stop.
    let tokens = tokens(file).filter(|_| has_rwkv_tokens(file))?;
    let template = template(file);
    if template.is_some_and(|template| check_template("", template).is_err()) {
        // Another rule's matter.
        return None;
    }
    let end = special(file, "eot");
    let stops = |name: &str, token: &Option<(u64, Vec<u8>)>| token.as_ref().is_some_and(|token| ends_with(template, name, token));
    if stops("eot", &end) || stops("eos", &special(file, "eos")) {
        return None;
    }
    let found = match end {
        None => "tokenizer.ggml.eot_token_id is missing".to_owned(),
        Some((id, text)) => format!("tokenizer.ggml.eot_token_id is {id} ({:?})", shorten(&String::from_utf8_lossy(&text))),
    };
    let known = template.map_or_else(|| ChatFormat::by_name("world"), ChatFormat::of);
    let wanted = known.and_then(|format| format.end_of_turn);
    let place = wanted.and_then(|wanted| tokens.iter().position(|token| unspell(token) == wanted.as_bytes()));
    Some(match (known, place) {
        (Some(_), Some(id)) => format!("{found}; with {id} ({:?}), chats stop at the end of a turn", wanted.unwrap_or_default()),
        // No template and no such token: nothing is known of the conversations of such a model.
        (Some(_), None) if template.is_none() => return None,
        (Some(format), None) => format!(
            "{found}, and no token ends a turn of the format {}: chats stop only in programs that are told to stop at the text {:?}",
            format.name, format.stop
        ),
        (None, _) => format!(
            "{found}, and tokenizer.chat_template has neither its text nor that of the end of text in it: chats stop only in programs that are \
             told to stop at a text"
        ),
    })
}
