//! The chat template: what llama.cpp recognises it by without reading it, and what engines that do read it make of it.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, context};

use crate::conversations::{Message, conversations};

/// The template as files carry it.
fn template() -> &'static str {
    rwkv_forge_container::WORLD_TEMPLATE.trim_end()
}

/// What a Jinja engine makes of a conversation.
fn rendered(messages: &[Message], bos: &str, more: &[(&str, bool)]) -> Result<String, Error> {
    let mut environment = Environment::new();
    let raise = |message: String| Err::<String, _>(Error::new(ErrorKind::InvalidOperation, message));
    environment.add_function("raise_exception", raise);
    let list: Vec<Value> = messages.iter().map(|(role, content)| context! { role => *role, content => *content }).collect();
    environment.render_str(template(), context! { messages => list, bos_token => bos, ..Value::from_pairs(more.iter().copied()) })
}

/// What it has to be, by hand.
fn expected(messages: &[Message], generate: bool) -> String {
    let mut out = String::new();
    for (role, content) in messages {
        let name = match *role {
            "system" => "System",
            "user" => "User",
            _ => "Assistant",
        };
        out.push_str(&format!("{name}: {}\n\n", content.trim()));
    }
    out + if generate { "Assistant:" } else { "" }
}

/// llama.cpp's C API reads no Jinja: it looks for substrings, one kind of template after the other, and writes the conversation by
/// rules of its own.
#[test]
fn the_c_api_recognises_it() {
    assert!(template().contains(r"{{- 'User: ' + message['content']|trim + '\n\n' -}}"));
    // What it looks for before that, as far as a template of this kind could have it.
    let earlier =
        ["<|", "[INST]", "[SYSTEM_PROMPT]", "[gMASK]", "<start_of_turn>", "bos_token + message", "eos_token", "USER: ", "GPT4", "###"];
    for text in earlier {
        assert!(!template().contains(text), "{text}");
    }
    assert!(!template().starts_with("mistral"));
}

#[test]
fn conversations_are_what_the_models_were_trained_on() {
    for messages in conversations() {
        for (flags, generate) in
            [(&[("add_generation_prompt", true)][..], true), (&[("add_generation_prompt", false)], false), (&[], false)]
        {
            assert_eq!(rendered(&messages, "", flags).unwrap(), expected(&messages, generate), "{messages:?}");
            assert_eq!(rendered(&messages, "<s>", flags).unwrap(), "<s>".to_owned() + &expected(&messages, generate));
        }
    }
    assert_eq!(rendered(&[("user", "hi")], "", &[("add_generation_prompt", true)]).unwrap(), "User: hi\n\nAssistant:");
}

#[test]
fn thinking_is_begun_or_skipped() {
    let with = |thinking| rendered(&[("user", "hi")], "", &[("add_generation_prompt", true), ("enable_thinking", thinking)]).unwrap();
    assert_eq!(with(true), "User: hi\n\nAssistant: <think>");
    assert_eq!(with(false), "User: hi\n\nAssistant: <think>\n</think>");
}

#[test]
fn other_roles_are_refused() {
    let error = rendered(&[("tool", "42")], "", &[]).unwrap_err().to_string();
    assert!(error.contains("system, user and assistant only"), "{error}");
}
