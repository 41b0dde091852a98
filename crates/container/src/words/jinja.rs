//! Templates in Jinja: whether one can be read, and what it makes of a conversation. They come from anybody, so an engine with a budget reads
//! them: about [`FUEL`] times 64 bytes of memory, and as many steps. Start at [`check_template`] and [`rendered`].

use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, State, context};

use super::ChatFormat;
use crate::error::ContainerError;

/// Longest template that is read, in bytes; published ones have a few thousand.
pub const MAX_TEMPLATE_BYTES: usize = 1 << 20;
/// What a conversation of three turns may cost.
const FUEL: u64 = 500_000;
/// Longest text that a method makes.
const MAX_TEXT_BYTES: usize = 4 << 20;
/// Transformers' mark of what a model is trained on, which changes nothing in the text.
const GENERATION: [(&str, &str); 2] = [("generation", "if true"), ("endgeneration", "endif")];

/// Why there is no text of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unrendered {
    /// The template fails: an engine for Jinja says this.
    Fails(String),
    /// It asks for more than the engine here has, which says nothing of others.
    Beyond(String),
}

/// Refuses a template that no engine for Jinja can read. `name` is what it is called in the message.
///
/// # Errors
/// [`ContainerError::BadTemplate`] for one that is empty, too long, or no Jinja.
pub fn check_template(name: &str, template: &str) -> Result<(), ContainerError> {
    let bad = |line, problem| ContainerError::BadTemplate { name: name.to_owned(), line, problem, formats: ChatFormat::names() };
    if template.trim().is_empty() {
        return Err(bad(None, "the template is empty".to_owned()));
    }
    if template.len() > MAX_TEMPLATE_BYTES {
        return Err(bad(None, format!("the template has {} bytes, at most {MAX_TEMPLATE_BYTES} are read", template.len())));
    }
    let known = without_marks(template);
    match Environment::new().template_from_str(&known) {
        Ok(_) => Ok(()),
        Err(error) => Err(bad(error.line(), said(&error))),
    }
}

/// What a template makes of a conversation of roles and contents. `bos` and `eos` are the texts of those tokens.
///
/// ```
/// use rwkv_forge_container::{ChatFormat, rendered};
///
/// let bot = ChatFormat::by_name("bot").expect("it is registered");
/// let text = rendered(bot.template(), &[("user", "hi")], ["", ""], true);
/// assert_eq!(text.as_deref(), Ok("User✿hi✿\nBot✿<think"));
/// ```
///
/// # Errors
/// [`Unrendered`].
pub fn rendered(template: &str, conversation: &[(&str, &str)], [bos, eos]: [&str; 2], begin_answer: bool) -> Result<String, Unrendered> {
    check_template("the template", template).map_err(|error| Unrendered::Fails(error.to_string()))?;
    let environment = environment();
    let messages: Vec<Value> = conversation.iter().map(|(role, content)| context! { role => *role, content => *content }).collect();
    let values = context! { messages => messages, bos_token => bos, eos_token => eos, add_generation_prompt => begin_answer };
    environment.render_str(&without_marks(template), values).map_err(|error| match error.kind() {
        ErrorKind::OutOfFuel
        | ErrorKind::UnknownFilter
        | ErrorKind::UnknownFunction
        | ErrorKind::UnknownTest
        | ErrorKind::UnknownMethod
        | ErrorKind::TemplateNotFound => Unrendered::Beyond(said(&error)),
        _ => Unrendered::Fails(said(&error)),
    })
}

/// An engine with what Transformers adds to Jinja, and with those methods of Python's texts and mappings that templates use.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.add_function("raise_exception", |message: String| Err::<String, _>(Error::new(ErrorKind::InvalidOperation, message)));
    environment.set_unknown_method_callback(method);
    environment
}

/// What an engine says of a failure, without its own words around it.
fn said(error: &Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), str::to_owned)
}

/// The template with the blocks of Transformers that no other engine knows as blocks that all do.
fn without_marks(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{%") {
        out.push_str(before);
        out.push_str("{%");
        let inner = after.trim_start_matches(['-', '+']);
        let name = inner.trim_start();
        let mark = GENERATION.iter().find_map(|(mark, instead)| {
            let end = name.strip_prefix(mark)?;
            end.trim_start().trim_start_matches(['-', '+']).starts_with("%}").then_some((*instead, end))
        });
        rest = match mark {
            None => after,
            Some((instead, end)) => {
                out.push_str(after.get(..after.len().saturating_sub(name.len())).unwrap_or_default());
                out.push_str(instead);
                end
            }
        };
    }
    out.push_str(rest);
    out
}

/// Methods of Python's `str` and `dict`.
fn method(_: &mut State<'_, '_>, value: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    let unknown = || Error::new(ErrorKind::UnknownMethod, format!("there is no method {method} here"));
    let given: Vec<Option<&str>> = arguments.iter().map(Value::as_str).collect();
    if let Some(text) = value.as_str() {
        return of_text(text, method, &given).ok_or_else(unknown)?;
    }
    let argument = |place: usize| arguments.get(place);
    match (method, arguments.len()) {
        ("get", 1 | 2) => {
            let found = argument(0).map_or(Ok(Value::UNDEFINED), |key| value.get_item(key))?;
            Ok(if found.is_undefined() { argument(1).cloned().unwrap_or_else(|| Value::from(())) } else { found })
        }
        ("keys", 0) => Ok(Value::from(value.try_iter()?.collect::<Vec<_>>())),
        ("values" | "items", 0) => {
            let entry = |key: Value| {
                let of_key = value.get_item(&key)?;
                Ok::<_, Error>(if method == "values" { of_key } else { Value::from(vec![key, of_key]) })
            };
            Ok(Value::from(value.try_iter()?.map(entry).collect::<Result<Vec<_>, _>>()?))
        }
        _ => Err(unknown()),
    }
}

/// `None` for what a text has no method for.
fn of_text(text: &str, method: &str, given: &[Option<&str>]) -> Option<Result<Value, Error>> {
    let is_in = |set: &str| {
        let set = set.to_owned();
        move |char: char| set.contains(char)
    };
    let value = match (method, given) {
        ("strip", []) => Value::from(text.trim()),
        ("lstrip", []) => Value::from(text.trim_start()),
        ("rstrip", []) => Value::from(text.trim_end()),
        ("strip", [Some(set)]) => Value::from(text.trim_matches(is_in(set))),
        ("lstrip", [Some(set)]) => Value::from(text.trim_start_matches(is_in(set))),
        ("rstrip", [Some(set)]) => Value::from(text.trim_end_matches(is_in(set))),
        ("upper", []) => Value::from(text.to_uppercase()),
        ("lower", []) => Value::from(text.to_lowercase()),
        ("startswith", [Some(start)]) => Value::from(text.starts_with(start)),
        ("endswith", [Some(end)]) => Value::from(text.ends_with(end)),
        ("split", []) => Value::from(text.split_whitespace().map(Value::from).collect::<Vec<_>>()),
        ("split", [Some(between)]) if !between.is_empty() => Value::from(text.split(between).map(Value::from).collect::<Vec<_>>()),
        ("splitlines", []) => Value::from(text.lines().map(Value::from).collect::<Vec<_>>()),
        ("replace", [Some(from), Some(to)]) if !from.is_empty() => {
            // As much as it can become, before it does.
            let places = text.matches(from).count();
            if places.saturating_mul(to.len()).saturating_add(text.len()) > MAX_TEXT_BYTES {
                return Some(Err(Error::new(ErrorKind::OutOfFuel, "a text becomes too long")));
            }
            Value::from(text.replace(from, to))
        }
        _ => return None,
    };
    Some(Ok(value))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;
    use rwkv_forge_tensor::Diagnostic;

    fn refused(template: &str) -> String {
        let error = check_template("chat.jinja", template).unwrap_err();
        assert_eq!(error.kind(), "BadTemplate");
        error.to_string()
    }

    #[test]
    fn what_is_no_template_is_refused_with_its_line() {
        assert!(refused(" \n").starts_with("chat.jinja: the template is empty; "));
        let cut = refused("{{ bos_token }}\n{% for m in messages %}\n{{ m.content }}");
        assert!(cut.starts_with("chat.jinja, line 3: ") && cut.contains("assistant, bot, tools, world"), "{cut}");
        assert!(refused("a\nb {{ x + }}").starts_with("chat.jinja, line 2: "));
        assert!(refused("{% unheard of %}").contains("line 1"));
        assert!(refused(&"x".repeat(MAX_TEMPLATE_BYTES + 1)).contains("1048577 bytes"));
        assert!(refused(&"{% if a %}".repeat(10_000)).contains("line 1"));
    }

    #[test]
    fn what_transformers_and_python_add_is_known() {
        let text = "{% for m in messages %}{%- generation -%}{{ m['content'].strip().split('</t>')[-1] }}{% endgeneration %}{% if loop.last %}{% break %}{% endif %}{% endfor %}{{ eos_token }}";
        check_template("t", text).unwrap();
        assert_eq!(rendered(text, &[("user", " a</t>b ")], ["", "!"], false), Ok("b!".to_owned()));
        let more = "{{ messages[0].get('x', 'd') }}{{ 'aXb'.lower().replace('x', '-') }}{{ messages[0].keys()|join }}{{ ' a'.lstrip() }}";
        assert_eq!(rendered(more, &[("user", "")], ["", ""], false), Ok("da-brolecontenta".to_owned()));
    }

    #[test]
    fn failures_are_told_from_what_is_not_known_here() {
        let of = |text: &str| rendered(text, &[("user", "hi")], ["", ""], true).unwrap_err();
        assert_eq!(of("{{ raise_exception('no') }}"), Unrendered::Fails("no".to_owned()));
        assert!(matches!(of("{{ 'a' + 1 }}"), Unrendered::Fails(_)));
        assert!(matches!(of("{{ x }"), Unrendered::Fails(_)));
        for beyond in ["{{ strftime_now('%d') }}", "{{ 'a'.zfill(3) }}", "{{ 'a'|wrapped }}", "{{ 1 is prime }}"] {
            assert!(matches!(of(beyond), Unrendered::Beyond(_)), "{beyond}: {:?}", of(beyond));
        }
    }

    /// Each doubles a text many times over.
    #[test]
    fn memory_is_bounded_whatever_a_template_wants() {
        for text in [
            "{% set n = namespace(x='abcdefgh') %}{% for _ in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
            "{% set n = namespace(x='abcdefgh') %}{% for _ in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
            "{% set n = namespace(x='abcdefgh') %}{% for _ in range(60) %}{% set n.x = n.x.replace('a', n.x) %}{% endfor %}",
            "{% set n = namespace(x='abcdefgh') %}{% for _ in range(60) %}{% set n.x = n.x|replace('a', n.x) %}{% endfor %}",
            "{{ 'x' * 90000000 }}",
            "{% set n = namespace(x=[1]) %}{% for _ in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x|length }}",
            "{% for _ in range(99999) %}{% for _ in range(99999) %}x{% endfor %}{% endfor %}",
            "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        ] {
            assert!(rendered(text, &[("user", "hi")], ["", ""], true).is_err(), "{text}");
        }
    }
}
