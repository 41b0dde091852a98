//! The formats of conversations, as a Jinja engine renders them, against prompts as they are published, written out.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use minijinja::value::Value;
use minijinja::{Error, context};
use rwkv_forge_container::{CHAT_FORMATS, ChatFormat};

use crate::conversations::{Message, conversations, engine, said};

fn rendered(format: &str, messages: Vec<Value>, more: Value) -> Result<String, Error> {
    let template = ChatFormat::by_name(format).unwrap().template();
    engine().render_str(template, context! { messages => messages, ..more })
}

/// The cleaning that is published with the formats: line ends, runs of them, and what stands around.
fn clean(text: &str) -> String {
    let mut text = text.replace("\r\n", "\n");
    while text.contains("\n\n") {
        text = text.replace("\n\n", "\n");
    }
    text.trim().to_owned()
}

/// Systems and users are cleaned, answers only at their ends.
fn content(role: &str, text: &str) -> String {
    if role == "assistant" { text.trim().to_owned() } else { clean(text) }
}

/// A turn by hand.
fn turn(format: &str, role: &str, text: &str) -> String {
    let text = content(role, text);
    let name = match (format, role) {
        (_, "system") => "System",
        (_, "user") => "User",
        ("bot", _) => "Bot",
        _ => "Assistant",
    };
    match format {
        "assistant" if text.is_empty() => format!("{name}:"),
        "assistant" => format!("{name}: {text}"),
        "bot" => format!("{name}✿{text}✿"),
        _ if text.is_empty() && role == "system" => String::new(),
        _ if text.is_empty() && role == "assistant" => format!("### {name}"),
        _ => format!("### {name}\n{text}"),
    }
}

/// A conversation by hand.
fn expected(format: &str, messages: &[Message], generate: Option<bool>) -> String {
    let mut turns: Vec<String> = messages.iter().map(|(role, text)| turn(format, role, text)).filter(|turn| !turn.is_empty()).collect();
    if let Some(thinking) = generate {
        let thought = if thinking { "<think" } else { "<think></think" };
        turns.push(match format {
            "assistant" => format!("Assistant: {thought}"),
            "bot" => format!("Bot✿{thought}"),
            _ => format!("### Assistant\n{thought}"),
        });
    }
    turns.join(if format == "assistant" { "\n\n" } else { "\n" })
}

#[test]
fn conversations_are_what_the_models_were_trained_on() {
    for format in ["assistant", "bot", "tools"] {
        for messages in conversations() {
            let of = |more: Value| rendered(format, said(&messages), more).unwrap();
            assert_eq!(of(context! {}), expected(format, &messages, None), "{format} {messages:?}");
            assert_eq!(of(context! { add_generation_prompt => false, enable_thinking => true }), expected(format, &messages, None));
            let generate = context! { add_generation_prompt => true, bos_token => "<s>" };
            assert_eq!(of(generate), "<s>".to_owned() + &expected(format, &messages, Some(true)));
            for thinking in [true, false] {
                let more = context! { add_generation_prompt => true, enable_thinking => thinking };
                assert_eq!(of(more), expected(format, &messages, Some(thinking)), "{format} {thinking} {messages:?}");
            }
        }
    }
}

#[test]
fn prompts_are_those_that_are_published() {
    let prompt = |format: &str, messages: &[Message], thinking: bool| {
        rendered(format, said(messages), context! { add_generation_prompt => true, enable_thinking => thinking }).unwrap()
    };
    let first = [("user", "xxx")];
    let second = [("user", "xxx"), ("assistant", "yyy"), ("user", "zzz")];
    let told = [("system", "sss"), ("user", "xxx")];
    for (format, messages, thinking, text) in [
        ("assistant", &first[..], true, "User: xxx\n\nAssistant: <think"),
        ("assistant", &first, false, "User: xxx\n\nAssistant: <think></think"),
        ("assistant", &second, true, "User: xxx\n\nAssistant: yyy\n\nUser: zzz\n\nAssistant: <think"),
        ("assistant", &told, true, "System: sss\n\nUser: xxx\n\nAssistant: <think"),
        ("bot", &first, true, "User✿xxx✿\nBot✿<think"),
        ("bot", &first, false, "User✿xxx✿\nBot✿<think></think"),
        ("bot", &second, true, "User✿xxx✿\nBot✿yyy✿\nUser✿zzz✿\nBot✿<think"),
        ("bot", &told, true, "System✿sss✿\nUser✿xxx✿\nBot✿<think"),
        ("tools", &first, true, "### User\nxxx\n### Assistant\n<think"),
        ("tools", &first, false, "### User\nxxx\n### Assistant\n<think></think"),
        ("tools", &told, true, "### System\nsss\n### User\nxxx\n### Assistant\n<think"),
        // Empty lines, other line ends and blanks around are nothing that a user says; a carriage return within a line is.
        ("bot", &[("user", "A  \r\n\r\nB\t  \n\n\n")], true, "User✿A  \nB✿\nBot✿<think"),
        ("bot", &[("user", "\n\n\n a\n \nb\rc ")], true, "User✿a\n \nb\rc✿\nBot✿<think"),
        ("assistant", &[("user", "  \n\n ")], true, "User:\n\nAssistant: <think"),
    ] {
        assert_eq!(prompt(format, messages, thinking), text);
    }
    for format in CHAT_FORMATS.iter().filter(|format| format.name != "world") {
        let nothing = rendered(format.name, Vec::new(), context! { add_generation_prompt => true }).unwrap();
        assert_eq!(nothing, expected(format.name, &[], Some(true)), "no empty line before the first answer");
    }
}

#[test]
fn contents_may_come_in_parts_or_be_none() {
    let parts = vec![context! { type => "text", text => "a\n\nb" }, context! { type => "text", text => "c " }];
    let messages = vec![context! { role => "user", content => parts }, context! { role => "assistant", content => () }];
    let text = rendered("assistant", messages, context! {}).unwrap();
    assert_eq!(text, "User: a\nb\nc\n\nAssistant:");
}

/// System, tools, a call, its output and an answer, as the published template writes them.
#[test]
fn tools_are_listed_called_and_answered() {
    let weather = context! {
        type => "function",
        function => context! {
            name => "weather", description => "Get weather",
            parameters => context! { properties => context! { city => context! { type => "string" } }, type => "object" },
        },
    };
    let call = |arguments: Value| vec![context! { function => context! { name => "weather", arguments => arguments } }];
    let with = |arguments: Value, output: Value| {
        vec![
            context! { role => "system", content => "Use tools.  " },
            context! { role => "user", content => "Paris?\n\nUse Celsius.  " },
            context! { role => "assistant", content => "", tool_calls => call(arguments) },
            context! { role => "tool", content => output },
            context! { role => "assistant", content => "Warm." },
        ]
    };
    let told = "### System
Use tools.
### `weather`
**Description:** Get weather
**Parameters:**
```json
{
  \"properties\": {
    \"city\": {
      \"type\": \"string\"
    }
  },
  \"type\": \"object\"
}
```
To call one of these tools, write exactly this format:
**Tool Call:**
```json
{\"name\": \"tool_name\", \"arguments\": {\"key\": \"value\"}}
```
Do not invent tool call IDs or write tool outputs yourself.
";
    let talk = |arguments: &str, output: &str| {
        format!(
            "### User
Paris?
Use Celsius.
### Assistant
**Tool Call:**
```json
{{
  \"name\": \"weather\",
  \"arguments\": {arguments}
}}
```
### Tool Output
```json
{output}
```
### Assistant
Warm."
        )
    };
    let of = |messages: Vec<Value>, more: Value| rendered("tools", messages, more).unwrap();
    let pretty = "{\n    \"city\": \"Paris\"\n  }";
    let messages = || with(context! { city => "Paris" }, context! { temperature => 20 });
    let all = of(messages(), context! { tools => vec![weather.clone()] });
    assert_eq!(all, told.to_owned() + &talk(pretty, "{\n  \"temperature\": 20\n}"));
    let ended = of(messages(), context! { tools => vec![weather.clone()], add_generation_prompt => true });
    assert_eq!(ended, all + "\n### Assistant\n<think");
    // What comes as JSON's text already is passed on, and other text becomes JSON.
    let texts = with(Value::from("{\"city\": \"Paris\"}"), Value::from("{\"temperature\": 20}"));
    let system = "### System\nUse tools.\n";
    assert_eq!(of(texts, context! {}), system.to_owned() + &talk("{\"city\": \"Paris\"}", "{\"temperature\": 20}"));
    let plain = of(with(context! { city => "Paris" }, Value::from("it is \"warm\"")), context! { tools => () });
    assert_eq!(plain, system.to_owned() + &talk(pretty, "\"it is \\\"warm\\\"\""));
    // Without a system the tools are one; they are listed once.
    let alone = vec![context! { role => "user", content => "hi" }, context! { role => "system", content => "more" }];
    let list = told.replacen("Use tools.\n", "", 1);
    assert_eq!(of(alone, context! { tools => vec![weather.clone()] }), list.clone() + "### User\nhi\n### System\nmore");
    assert_eq!(of(Vec::new(), context! { tools => vec![weather] }), list.trim_end());
}

#[test]
fn other_roles_are_refused() {
    for (format, role) in [("assistant", "tool"), ("bot", "tool"), ("tools", "critic")] {
        let error = rendered(format, said(&[(role, "42")]), context! {}).unwrap_err().to_string();
        assert!(error.contains("knows the roles"), "{error}");
    }
}

/// What llama.cpp's C API, which reads no Jinja, takes each for.
#[test]
fn the_c_api_takes_the_assistant_for_world_and_nothing_for_another_model() {
    // What it looks for before RWKV's marks, as far as a template of this kind could have it.
    let earlier = [
        "<|",
        "[INST]",
        "[SYSTEM_PROMPT]",
        "[gMASK]",
        "<start_of_turn>",
        "bos_token + message",
        "eos_token",
        "USER: ",
        "GPT4",
        "### Instruction:",
    ];
    for format in &CHAT_FORMATS {
        for text in earlier {
            assert!(!format.template().contains(text), "{}: {text}", format.name);
        }
        let is_known = format.template().contains("rwkv-world") || format.name == "world";
        assert_eq!(is_known, ["assistant", "world"].contains(&format.name));
    }
}
