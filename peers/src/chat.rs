//! The chat template in our GGUF files: what llama.cpp makes of conversations by it, through its C API, which recognises templates by
//! substrings and has rules of its own for each kind, and by its Jinja engine, against minijinja.

use std::path::{Path, PathBuf};
use std::process::Command;

use minijinja::context;

use crate::llama::{build_llama, compile};
use crate::table::{Fact, Report};
use crate::tools::{Workshop, capture};

/// The conversations that the template's own tests go through, and their engine.
#[path = "../../crates/gguf/tests/conversations.rs"]
mod shared;

/// A format that files carry: its name on the command line, its template, and what llama.cpp's C API takes it for.
struct Format {
    name: &'static str,
    template: &'static str,
    c_api: CApi,
}

/// What the C API, which reads no Jinja, makes of a template.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CApi {
    /// World's turns.
    World,
    /// Nothing: it answers -1.
    Unknown,
}

/// World's template, by whose rules the C API writes.
const TEMPLATE: &str = include_str!("../../crates/container/src/words/world.jinja");

/// All formats, as files carry them but for the newline at the end.
const FORMATS: [Format; 4] = [
    Format { name: "world", template: TEMPLATE, c_api: CApi::World },
    Format {
        name: "assistant",
        template: concat!(
            include_str!("../../crates/container/src/words/clean.jinja"),
            include_str!("../../crates/container/src/words/assistant.jinja")
        ),
        c_api: CApi::World,
    },
    Format {
        name: "bot",
        template: concat!(
            include_str!("../../crates/container/src/words/clean.jinja"),
            include_str!("../../crates/container/src/words/bot.jinja")
        ),
        c_api: CApi::Unknown,
    },
    Format {
        name: "tools",
        template: concat!(
            include_str!("../../crates/container/src/words/clean.jinja"),
            include_str!("../../crates/container/src/words/tools.jinja")
        ),
        c_api: CApi::Unknown,
    },
];
/// llama.cpp's Jinja engine and what it needs, which its library does not have.
const ENGINE: &[&str] = &[
    "common/jinja/lexer.cpp",
    "common/jinja/parser.cpp",
    "common/jinja/runtime.cpp",
    "common/jinja/string.cpp",
    "common/jinja/value.cpp",
    "common/unicode.cpp",
    "common/json.cpp",
];
/// Begins a text that says why a conversation was not rendered.
const REFUSED: char = '\u{1}';

/// Faults that have to be found: bytes of the template, and what they are replaced with, of the same length.
const PLANTED: [(&str, &str, &str); 2] = [
    ("a filter changed, so that the C API does not know the template", "message['content']|trim", "message['content']|safe"),
    ("a word changed, which the C API does not read", "'Assistant: '", "'assistant: '"),
];

/// A conversation: role and content of each message, and whether an answer is to be begun.
struct Conversation {
    messages: Vec<shared::Message>,
    begin_answer: bool,
}

/// What llama.cpp makes of one.
struct Theirs {
    c_api: String,
    jinja: String,
}

/// The check alone, on a converted fixture; `llama` contains it.
pub fn run() -> Result<Report, String> {
    let shop = Workshop::new("chat", 1)?;
    let llama = build_llama(&shop.root, &[])?;
    let vocabulary = shop.root.join("fixtures/checkpoints/vocab-320.txt");
    let mut all = Vec::new();
    for format in &FORMATS {
        let gguf = shop.work.join(format!("tiny-rwkv7-{}.gguf", format.name));
        let mut convert = Command::new(&shop.forge);
        convert.args(["--quiet", "convert"]).arg(shop.fixture(7)).args(["--to", "gguf", "--type", "q8_0", "--force", "--no-verify"]);
        convert.args(["--chat", format.name, "--vocab"]).arg(&vocabulary);
        capture(convert.arg("-o").arg(&gguf))?;
        all.extend(of_format(&shop.root, &shop.work, &llama, &gguf, format)?);
    }
    Ok(Report {
        peer: "llama.cpp".to_owned(),
        about: "Conversations by the chat template in a converted file".to_owned(),
        rows: Vec::new(),
        facts: all,
        bounds: Vec::new(),
        remarks: vec![
            "The C API begins an answer when the user spoke last and never otherwise, whatever it is told; the Jinja engine goes by what it is told.",
        ],
    })
}

/// Compares all conversations on a file of ours that has World's format, and on copies with planted faults.
pub fn facts(root: &Path, work: &Path, llama: &Path, gguf: &Path) -> Result<Vec<Fact>, String> {
    of_format(root, work, llama, gguf, &FORMATS[0])
}

/// The same for any format.
fn of_format(root: &Path, work: &Path, llama: &Path, gguf: &Path, format: &Format) -> Result<Vec<Fact>, String> {
    let program = compile(root, work, llama, "chat", ENGINE)?;
    let conversations = conversations();
    let [c_api, jinja] = differences(&conversations, &theirs(&program, work, gguf, &conversations)?, format)?;
    let fact = |what: &str, different: &[String]| Fact {
        what: format!("{}: {what}, {} conversations", format.name, conversations.len()),
        found: different
            .first()
            .map_or_else(|| "as minijinja renders them".to_owned(), |first| format!("{} differ: {first}", different.len())),
        passed: different.is_empty(),
    };
    let mut out = vec![fact("llama_chat_apply_template", &c_api), fact("llama.cpp's Jinja engine", &jinja)];
    for (what, from, to) in PLANTED.into_iter().filter(|_| format.name == "world") {
        let copy = planted(gguf, work, from, to)?;
        let found = differences(&conversations, &theirs(&program, work, &copy, &conversations)?, format)?;
        let count: usize = found.iter().map(Vec::len).sum();
        out.push(Fact { what: format!("planted: {what}"), found: format!("{count} renderings differ"), passed: count > 0 });
    }
    Ok(out)
}

/// All conversations, each with and without an answer that is to be begun.
fn conversations() -> Vec<Conversation> {
    let all = shared::conversations().into_iter();
    all.flat_map(|messages| [false, true].map(|begin_answer| Conversation { messages: messages.clone(), begin_answer })).collect()
}

/// What minijinja makes of a template.
fn rendered(conversation: &Conversation, begin_answer: bool, template: &str) -> Result<String, String> {
    let values = context! { messages => shared::said(&conversation.messages), bos_token => "", add_generation_prompt => begin_answer };
    shared::engine().render_str(template.trim_end(), values).map_err(|error| format!("minijinja: {error}"))
}

/// What differs, of both ways: the C API's and the Jinja engine's.
fn differences(conversations: &[Conversation], theirs: &[Theirs], format: &Format) -> Result<[Vec<String>; 2], String> {
    let (mut c_api, mut jinja) = (Vec::new(), Vec::new());
    for (conversation, theirs) in conversations.iter().zip(theirs) {
        // The C API begins an answer when the user spoke last, whatever it is told.
        let user_spoke = conversation.messages.last().is_some_and(|(role, _)| *role == "user");
        // A template that it does not know is refused, which is what is expected then.
        if format.c_api == CApi::Unknown && !theirs.c_api.starts_with(REFUSED) {
            c_api.push(format!("{:?} where a refusal is expected", theirs.c_api));
        }
        let by_substrings = (format.c_api == CApi::World).then_some((&theirs.c_api, user_spoke, TEMPLATE, &mut c_api));
        let by_engine = (&theirs.jinja, conversation.begin_answer, format.template, &mut jinja);
        for (found, begin, template, out) in by_substrings.into_iter().chain([by_engine]) {
            let expected = rendered(conversation, begin, template)?;
            if *found != expected {
                out.push(match found.strip_prefix(REFUSED) {
                    Some(why) => why.to_owned(),
                    None => format!("{found:?} where {expected:?} is expected"),
                });
            }
        }
    }
    Ok([c_api, jinja])
}

/// Runs llama.cpp on all conversations.
fn theirs(program: &Path, work: &Path, gguf: &Path, conversations: &[Conversation]) -> Result<Vec<Theirs>, String> {
    let (input, output) = (work.join("conversations"), work.join("rendered"));
    let mut texts = Vec::new();
    for conversation in conversations {
        texts.push(u8::from(conversation.begin_answer).to_string());
        texts.push(conversation.messages.len().to_string());
        texts.extend(conversation.messages.iter().flat_map(|(role, content)| [(*role).to_owned(), (*content).to_owned()]));
    }
    let bytes: Vec<u8> = texts.iter().flat_map(|text| text.bytes().chain([0])).collect();
    std::fs::write(&input, bytes).map_err(|error| format!("{}: {error}", input.display()))?;
    capture(Command::new(program).arg(gguf).arg(&input).arg(&output))?;
    let text = std::fs::read_to_string(&output).map_err(|error| format!("{}: {error}", output.display()))?;
    let mut parts = text.split_terminator('\0').map(str::to_owned);
    let mut found = Vec::new();
    while let (Some(c_api), Some(jinja)) = (parts.next(), parts.next()) {
        found.push(Theirs { c_api, jinja });
    }
    if found.len() == conversations.len() {
        Ok(found)
    } else {
        Err(format!("{} of {} conversations rendered", found.len(), conversations.len()))
    }
}

/// A copy of a file in which these bytes are others of the same length.
fn planted(gguf: &Path, work: &Path, from: &str, to: &str) -> Result<PathBuf, String> {
    let mut bytes = std::fs::read(gguf).map_err(|error| format!("{}: {error}", gguf.display()))?;
    let places: Vec<usize> =
        bytes.windows(from.len()).enumerate().filter(|(_, window)| *window == from.as_bytes()).map(|(at, _)| at).collect();
    if places.is_empty() || from.len() != to.len() {
        return Err(format!("nothing to plant: {from:?} is not in {}", gguf.display()));
    }
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    let copy = work.join("planted-template.gguf");
    std::fs::write(&copy, bytes).map_err(|error| format!("{}: {error}", copy.display()))?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversations_have_one_to_five_turns_and_what_may_go_wrong() {
        let all = conversations();
        assert_eq!(all.len(), 5 * 3 * 2 * 2);
        let has = |test: &dyn Fn(&str) -> bool| all.iter().flat_map(|one| &one.messages).any(|(_, content)| test(content));
        assert!(has(&str::is_empty) && has(&|text| text.ends_with(' ')) && has(&|text| text.ends_with('\n')));
        let simple = all.iter().find(|one| one.messages.len() == 1 && one.begin_answer).unwrap();
        assert_eq!(rendered(simple, true, TEMPLATE).unwrap(), "User: hi\n\nAssistant:");
        assert_eq!(rendered(simple, true, FORMATS[2].template).unwrap(), "User✿hi✿\nBot✿<think");
    }

    #[test]
    fn a_refusal_and_a_difference_are_found() {
        let conversation = |begin_answer| Conversation { messages: vec![("user", "hi")], begin_answer };
        let theirs = |c_api: &str, jinja: &str| Theirs { c_api: c_api.to_owned(), jinja: jinja.to_owned() };
        let good = "User: hi\n\nAssistant:";
        let found = differences(&[conversation(true)], &[theirs(good, good)], &FORMATS[0]).unwrap();
        assert!(found.iter().all(Vec::is_empty));
        // Not asked for an answer, the engine begins none, the C API does.
        let found = differences(&[conversation(false)], &[theirs(good, "User: hi\n\n")], &FORMATS[0]).unwrap();
        assert!(found.iter().all(Vec::is_empty));
        let found = differences(&[conversation(true)], &[theirs("\u{1}it returns -1", "User: hi")], &FORMATS[0]).unwrap();
        assert_eq!(found[0], ["it returns -1"]);
        assert_eq!(found[1].len(), 1);
        // Of a format that the C API does not know, a refusal is right and anything else is not.
        let bot = "User✿hi✿\nBot✿<think";
        let found = differences(&[conversation(true)], &[theirs("\u{1}it returns -1", bot)], &FORMATS[2]).unwrap();
        assert!(found.iter().all(Vec::is_empty));
        let found = differences(&[conversation(true)], &[theirs(bot, bot)], &FORMATS[2]).unwrap();
        assert_eq!(found[0].len(), 1);
    }
}
