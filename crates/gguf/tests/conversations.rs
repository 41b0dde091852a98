//! Conversations for the chat template and the engine that renders them, for the tests here and for the comparison with llama.cpp in `peers/`,
//! which includes this file.

use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, context};

/// Role and content.
pub(crate) type Message = (&'static str, &'static str);

/// One to five turns, with and without a system prompt and a last answer; contents that are empty, end in blanks or look like a
/// template among them.
pub(crate) fn conversations() -> Vec<Vec<Message>> {
    let turns = [
        ("hi", "Hello!"),
        ("  trailing blanks \n", "kept\n\nparagraphs \t"),
        ("", ""),
        ("{{ bos_token }} '\\n'", "{% raw %}"),
        ("Grüße 世界", "…"),
    ];
    let mut out = Vec::new();
    for count in 1..=turns.len() {
        for system in [None, Some(" Answer briefly. "), Some("")] {
            for answered in [false, true] {
                let mut messages: Vec<Message> = system.iter().map(|text| ("system", *text)).collect();
                messages.extend(turns[..count].iter().flat_map(|(user, assistant)| [("user", *user), ("assistant", *assistant)]));
                messages.truncate(messages.len() - usize::from(!answered));
                out.push(messages);
            }
        }
    }
    out
}

/// An engine with what templates expect besides Jinja: `raise_exception`, and methods of Python's texts, which every engine that reads chat
/// templates has, and minijinja has not.
pub(crate) fn engine() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.add_function("raise_exception", |message: String| Err::<String, _>(Error::new(ErrorKind::InvalidOperation, message)));
    environment.set_unknown_method_callback(|_, value, name, arguments| method(value, name, arguments));
    environment
}

fn method(value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let given = arguments.first().and_then(Value::as_str).unwrap_or_default();
    match (value.as_str(), name) {
        (Some(text), "split") => Ok(Value::from(text.split(given).map(Value::from).collect::<Vec<_>>())),
        (Some(text), "startswith") => Ok(Value::from(text.starts_with(given))),
        _ => Err(Error::new(ErrorKind::UnknownMethod, name.to_owned())),
    }
}

/// Messages as templates get them.
pub(crate) fn said(messages: &[Message]) -> Vec<Value> {
    messages.iter().map(|(role, content)| context! { role => *role, content => *content }).collect()
}
