//! What programs make of the chat template of a file. The rules of [`crate::lint`] about it.

use rwkv_forge_container::{Array, ChatFormat, Unrendered, Value, rendered};
use rwkv_forge_tensor::shorten;

use crate::lint::{has_rwkv_tokens, tokens};
use crate::reader::GgufFile;
use crate::vocabulary::{NORMAL, unspell};

/// What llama.cpp's C API recognises RWKV's chat template by.
const C_API_MARKS: [&str; 2] = ["rwkv-world", r"{{- 'User: ' + message['content']|trim + '\n\n' -}}"];
/// Templates of others that it recognises before RWKV's, as far as one of an RWKV model may have their marks.
const C_API_OTHERS: [&str; 5] = ["<|im_start|>", "[INST]", "[gMASK]", "<start_of_turn>", "<|start_header_id|>"];
/// How a token of the empty line is spelled.
const EMPTY_LINE: &str = "\\n\\n";
/// An answer that no template writes by itself.
const ANSWER: &str = "an-answer-of-nobody";

/// The template, where there is one with anything in it.
fn template(file: &GgufFile) -> Option<&str> {
    let text = file.metadata().get("tokenizer.chat_template").and_then(Value::as_str)?;
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
    match conversation(file, template(file)?) {
        Ok(_) | Err(Unrendered::Beyond(_)) => None,
        Err(Unrendered::Fails(why)) => Some(format!(
            "tokenizer.chat_template fails on a question and an answer ({}): programs with an engine for Jinja refuse the conversation or \
             the file",
            shorten(&why)
        )),
    }
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

/// A question, an answer and a question by the template.
fn conversation(file: &GgufFile, template: &str) -> Result<String, Unrendered> {
    let text = |name: &str| special(file, name).map(|(_, text)| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
    let turns = [("user", "a question"), ("assistant", ANSWER), ("user", "a question")];
    rendered(template, &turns, [&text("bos"), &text("eos")], true)
}

/// A special token: its id and its text.
fn special(file: &GgufFile, name: &str) -> Option<(u64, Vec<u8>)> {
    let metadata = file.metadata();
    let id = metadata.get(&format!("tokenizer.ggml.{name}_token_id")).and_then(Value::as_u64)?;
    let place = usize::try_from(id).ok();
    let kind = match metadata.get("tokenizer.ggml.token_type") {
        Some(Value::Array(Array::I32(kinds))) => place.and_then(|place| kinds.get(place)).copied().unwrap_or(NORMAL),
        _ => NORMAL,
    };
    let text = place.and_then(|place| tokens(file)?.get(place)).map(String::as_str).unwrap_or_default();
    Some((id, if kind == NORMAL && has_rwkv_tokens(file) { unspell(text) } else { text.as_bytes().to_vec() }))
}

pub(crate) fn end_of_turn(file: &GgufFile) -> Option<String> {
    // Of other tokens nothing is known by which programs stop.
    let tokens = tokens(file).filter(|_| has_rwkv_tokens(file))?;
    let after = match template(file).map(|template| conversation(file, template)) {
        None => "\n\n".to_owned(),
        Some(Ok(text)) => text.rsplit_once(ANSWER)?.1.to_owned(),
        // Another rule's matter.
        Some(Err(_)) => return None,
    };
    let end = special(file, "eot");
    let stops =
        |special: &Option<(u64, Vec<u8>)>| special.as_ref().is_some_and(|(_, text)| !text.is_empty() && after.as_bytes().starts_with(text));
    if stops(&end) || stops(&special(file, "eos")) {
        return None;
    }
    let found = match end {
        None => "tokenizer.ggml.eot_token_id is missing".to_owned(),
        Some((id, text)) => format!("tokenizer.ggml.eot_token_id is {id} ({:?})", shorten(&String::from_utf8_lossy(&text))),
    };
    let empty_line = after.starts_with("\n\n").then(|| tokens.iter().position(|token| token == EMPTY_LINE)).flatten();
    let stop = after.chars().take(16).collect::<String>();
    Some(match empty_line {
        Some(id) => format!("{found}; with {id}, the empty line, chats stop at the end of a turn"),
        None if template(file).is_none() => return None,
        None => format!(
            "{found}, and by the template {stop:?} follows an answer, which begins neither with that token nor with the end of text: chats stop \
             only in programs that are told to stop at a text"
        ),
    })
}
