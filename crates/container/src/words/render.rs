//! Whether a template makes a text of a plain conversation. It comes from anybody, so it runs with a measure of steps and bytes that it may
//! take. Start at [`failure_of_template`].

use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior, context};

use super::ChatFormat;
use super::bounded::is_bounded;
use super::jinja::{said, without_marks};

/// Steps that a template may take, and for each some bytes that it may make; the formats of ours take some hundreds.
const FUEL: u64 = 50_000;
/// The end of texts, as templates are given it.
pub(super) const END_OF_TEXT: &str = "</s>";
/// How deep macros may call each other.
const MAX_CALLS: usize = 64;
/// Most bytes of a text that a method divides.
const MAX_DIVIDED: usize = 1 << 16;

/// What is tried: what it is called, and its messages.
const CONVERSATIONS: [(&str, &[(&str, &str)]); 3] = [
    ("one question", &[("user", "Hello, who are you?")]),
    ("a question, an answer and a question", &[("user", "Hello."), ("assistant", "Hello to you."), ("user", "Who are you?")]),
    ("a system prompt and a question", &[("system", "You are a goose."), ("user", "Who are you?")]),
];

/// What happens to the first of a few plain conversations of which a template that can be read makes no text, as the end of a sentence;
/// `None` where it makes one of each that is more than blanks, or where nobody can tell here: one that could make values larger than its input is not tried.
///
/// ```
/// use rwkv_forge_container::failure_of_template;
///
/// let template = "{% for message in messages %}{{ message.content.strip() }}{% endfor %}";
/// assert_eq!(failure_of_template(template), None);
/// let problem = failure_of_template("{{ messages[0].text.upper() }}").expect("messages have no text");
/// assert!(problem.starts_with("fails for a conversation of one question: line 1: "), "{problem}");
/// ```
#[must_use]
pub fn failure_of_template(template: &str) -> Option<String> {
    let known = renderable(template)?;
    let environment = environment();
    let compiled = environment.template_from_str(&known).ok()?;
    let (mut empty, mut unheard) = (None, None);
    let mut is_heard = false;
    for (name, said_in) in CONVERSATIONS {
        let all = given(said_in, true);
        let error = match compiled.render(all) {
            Ok(text) => {
                empty = empty.or_else(|| text.trim().is_empty().then_some(name));
                unheard = unheard.or(Some(name));
                is_heard |= has_what_users_say(&text, said_in);
                continue;
            }
            Err(error) => error,
        };
        let line = error.line().map(|line| format!("line {line}: ")).unwrap_or_default();
        // Python has more methods than are known here, and engines may have filters of their own.
        if [ErrorKind::UnknownMethod, ErrorKind::UnknownFilter, ErrorKind::UnknownTest].contains(&error.kind()) {
            continue;
        }
        return Some(match error.kind() == ErrorKind::OutOfFuel {
            true => format!("does not come to an end for a conversation of {name} within {FUEL} steps"),
            false => format!("fails for a conversation of {name}: {line}{}", said(&error)),
        });
    }
    // One that fails says why, so it comes first.
    let unheard = unheard.filter(|_| !is_heard).map(|name| format!("leaves out what the user says in a conversation of {name}"));
    empty.map(|name| format!("makes an empty text of a conversation of {name}")).or(unheard)
}

/// The template as engines know it, unless it could make values larger than its input.
fn renderable(template: &str) -> Option<String> {
    let known = without_marks(template);
    // The formats that come with the program are known.
    (ChatFormat::of(template).is_some() || is_bounded(&known)).then_some(known)
}

/// An engine with a measure, and with what those have that run templates of conversations.
fn environment<'t>() -> Environment<'t> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(MAX_CALLS);
    environment.add_function("raise_exception", |message: String| Err::<String, _>(Error::new(ErrorKind::InvalidOperation, message)));
    environment.add_function("strftime_now", |_: String| "2026-01-01".to_owned());
    environment.set_unknown_method_callback(method);
    environment
}

/// What a template is given for a conversation.
fn given(messages: &[(&str, &str)], goes_on: bool) -> Value {
    let messages: Vec<Value> = messages.iter().map(|(role, content)| context! { role => *role, content => *content }).collect();
    let none = Value::from(());
    context! {
        messages => messages, add_generation_prompt => goes_on, bos_token => "<s>", eos_token => END_OF_TEXT,
        tools => none.clone(), documents => none,
    }
}

/// What a template writes behind an answer that ends a conversation, and behind one that does not; `None` where that cannot be known here.
pub(super) fn behind_answer(template: &str) -> Option<Vec<String>> {
    const ANSWER: &str = "Hello to you.";
    const TURNS: [(&str, &str); 3] = [("user", "Hello."), ("assistant", ANSWER), ("user", "Who are you?")];
    let known = renderable(template)?;
    let environment = environment();
    let compiled = environment.template_from_str(&known).ok()?;
    let behind = |turns: usize| {
        let text = compiled.render(given(TURNS.get(..turns)?, false)).ok()?;
        text.rsplit_once(ANSWER).map(|(_, behind)| behind.to_owned())
    };
    let found: Vec<String> = [2, 3].into_iter().filter_map(behind).collect();
    (!found.is_empty()).then_some(found)
}

/// Whether a text has something of what users say in a conversation, in letters of either case.
fn has_what_users_say(text: &str, messages: &[(&str, &str)]) -> bool {
    let text = text.to_lowercase();
    messages.iter().any(|(role, content)| *role == "user" && text.contains(&content.to_lowercase()))
}

/// Methods of Python's texts and dictionaries, which every engine that reads chat templates has, and minijinja has not.
fn method(state: &mut State<'_, '_>, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    if value.is_undefined() || value.is_none() {
        return Err(Error::new(ErrorKind::UndefinedError, format!("{name}() of a value that is not there")));
    }
    let unknown = || Error::new(ErrorKind::UnknownMethod, name.to_owned());
    let Some(text) = value.as_str() else { return of_dictionary(state, value, name, arguments).unwrap_or_else(|| Err(unknown())) };
    let given = arguments.first().and_then(Value::as_str);
    let is_one_of = |c: char| given.map_or(c.is_whitespace(), |given| given.contains(c));
    let filter = |state: &mut State<'_, '_>, name: &str| {
        let all: Vec<Value> = std::iter::once(value).chain(arguments).cloned().collect();
        state.apply_filter(name, &all)
    };
    let place = |found: Option<usize>| found.and_then(|found| i64::try_from(found).ok()).unwrap_or(-1);
    Ok(match (name, given) {
        ("strip", _) => Value::from(text.trim_matches(is_one_of)),
        ("lstrip", _) => Value::from(text.trim_start_matches(is_one_of)),
        ("rstrip", _) => Value::from(text.trim_end_matches(is_one_of)),
        ("startswith", Some(given)) => Value::from(text.starts_with(given)),
        ("endswith", Some(given)) => Value::from(text.ends_with(given)),
        ("removeprefix", Some(given)) => Value::from(text.strip_prefix(given).unwrap_or(text)),
        ("removesuffix", Some(given)) => Value::from(text.strip_suffix(given).unwrap_or(text)),
        ("find", Some(given)) => Value::from(place(text.find(given))),
        ("rfind", Some(given)) => Value::from(place(text.rfind(given))),
        ("upper" | "lower" | "title" | "capitalize" | "replace", _) => filter(state, name)?,
        ("split" | "rsplit" | "splitlines", _) if text.len() > MAX_DIVIDED => return Err(Error::from(ErrorKind::OutOfFuel)),
        ("splitlines", None) => text.lines().map(Value::from).collect(),
        ("split" | "rsplit", None) if arguments.is_empty() => text.split_whitespace().map(Value::from).collect(),
        ("split" | "rsplit", Some("")) => return Err(Error::new(ErrorKind::InvalidOperation, "split by an empty text")),
        ("split" | "rsplit", Some(given)) => divided(text, given, name == "rsplit", arguments.get(1)),
        _ => return Err(unknown()),
    })
}

/// The parts of a text, at most so many divisions from the left or from the right.
fn divided(text: &str, by: &str, from_right: bool, most: Option<&Value>) -> Value {
    let most = most.and_then(Value::as_i64).and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX).saturating_add(1);
    let mut parts: Vec<Value> = match from_right {
        true => text.rsplitn(most, by).map(Value::from).collect(),
        false => text.splitn(most, by).map(Value::from).collect(),
    };
    if from_right {
        parts.reverse();
    }
    Value::from(parts)
}

fn of_dictionary(state: &mut State<'_, '_>, value: &Value, name: &str, arguments: &[Value]) -> Option<Result<Value, Error>> {
    value.as_object()?;
    match name {
        "items" => Some(state.apply_filter("items", std::slice::from_ref(value))),
        "keys" => Some(state.apply_filter("list", std::slice::from_ref(value))),
        "get" => {
            let found = value.get_item(arguments.first()?).ok().filter(|found| !found.is_undefined());
            Some(Ok(found.or_else(|| arguments.get(1).cloned()).unwrap_or_else(|| Value::from(()))))
        }
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;
    use crate::words::{CHAT_FORMATS, check_template};

    fn failure(template: &str) -> String {
        check_template("t", template).unwrap();
        failure_of_template(template).unwrap_or_default()
    }

    #[test]
    fn every_format_makes_a_text() {
        for format in &CHAT_FORMATS {
            assert_eq!(failure(format.template()), "", "{}", format.name);
        }
        let chatml = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}\
                      {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
        assert_eq!(failure(chatml), "");
        let python = "{%- set ns = namespace(last=-1) -%}{%- for m in messages[::-1] -%}{%- set ns.last = loop.index0 -%}{%- endfor -%}\
                      {%- for m in messages -%}{%- if m.content.startswith('H') and m.get('tool_calls') is none -%}\
                      {{ m.content.split('</t>')[-1].lstrip('\n').rstrip().replace('a', 'b')|trim }}{%- endif -%}\
                      {%- for key, value in m.items() -%}{{ key }}{%- endfor -%}{%- endfor -%}{{ strftime_now('%d') }}";
        assert_eq!(failure(python), "");
    }

    #[test]
    fn the_conversation_that_fails_is_named() {
        let no_system = "{% if messages[0].role == 'system' %}{{ raise_exception('no system prompts here') }}{% endif %}";
        assert_eq!(failure(no_system), "fails for a conversation of a system prompt and a question: line 1: no system prompts here");
        let alternate = "{% for m in messages %}\n{% if loop.index0 == 1 and m.role == 'assistant' %}{{ m.text.x }}{% endif %}{% endfor %}";
        let found = failure(alternate);
        assert!(found.starts_with("fails for a conversation of a question, an answer and a question: line 2: "), "{found}");
        assert!(failure("{{ unheard_of(messages) }}").contains("one question"));
        assert!(failure("{% include 'other' %}").contains("one question"));
        // What Python or an engine may have and nobody knows here is no failure.
        assert_eq!(failure("{{ messages | unheard_of }}"), "");
        assert_eq!(failure("{{ messages[0].content.zfill(3) }}"), "");
    }

    #[test]
    fn a_conversation_of_which_nothing_is_made_is_named() {
        assert_eq!(failure("{% for m in [] %}{{ m.content }}{% endfor %}\n"), "makes an empty text of a conversation of one question");
        // As templates for other names of messages are, or of roles.
        let role = "{% for m in messages %}{% if m.role == 'ai' %}{{ m.content }}{% endif %}{% endfor %}";
        assert_eq!(failure(role), "makes an empty text of a conversation of one question");
        let answers = "{% for m in messages %}{% if m.role != 'user' %}{{ m.content }}{% endif %}{% endfor %}";
        assert!(failure(answers).contains("one question"), "{}", failure(answers));
        let first = "{% for m in messages %}{% if loop.first and m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}";
        assert_eq!(failure(first), "makes an empty text of a conversation of a system prompt and a question");
    }

    #[test]
    fn what_would_not_end_ends() {
        let doubled = format!("{{% set a = messages[0].content %}}{}{{{{ a }}}}", "{% set a = a ~ a %}".repeat(60));
        let texts = [
            doubled,
            "{% for i in range(99999) %}{% for j in range(99999) %}{{ j }}{% endfor %}{% endfor %}".to_owned(),
            "{{ 'x' * 1000000000 }}".to_owned(),
            "{{ 'x' * 10000000 }}".to_owned(),
            "{% set ns = namespace(a='aaaa') %}{% for i in range(50) %}{% set ns.a = ns.a.replace('a', ns.a) %}{% endfor %}".to_owned(),
            "{% set ns = namespace(a='a ') %}{% for i in range(18) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}{{ ns.a.split(' ') }}"
                .to_owned(),
            "{{ '%099999999d' | format(1) }}".to_owned(),
            "{{ range(100000) | list | join('x' * 1000) }}".to_owned(),
        ];
        for text in texts {
            let started = std::time::Instant::now();
            assert_ne!(failure(&text), "", "{}", &text[..60]);
            assert!(started.elapsed().as_secs() < 20, "{}", &text[..60]);
        }
        // What could grow without a text is not tried at all: values within values, within themselves, or doubled.
        for text in [
            format!("{}{{{{ s }}}}", "{% set s = [s, s] %}".repeat(60)),
            format!("{{% set ns = namespace(s=[1]) %}}{}{{{{ ns.s|length }}}}", "{% set ns.s = ns.s + ns.s %}".repeat(60)),
            "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}".to_owned(),
            "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns|tojson }}".to_owned(),
            "{% set ns = namespace() %}{% set ns.a = [ns] %}{% if ns == ns %}{% endif %}".to_owned(),
            "{% macro a(n) %}{{ a(n) }}{{ a(n) }}{% endmacro %}{{ a(1) }}".to_owned(),
        ] {
            assert_eq!(failure(&text), "", "{text}");
        }
        let captured = "{% set s %}{{ s }}{{ s }}x{% endset %}".repeat(60);
        assert_ne!(failure(&format!("{captured}{{{{ s }}}}")), "");
    }
}
