//! Templates in Jinja: whether an engine can read one. They come from anybody, so what they may make an engine do is looked at first. Start at
//! [`check_template`]; `render` tries them.

use minijinja::{Environment, Error};

use super::ChatFormat;
use crate::error::ContainerError;

/// Longest template that is read, in bytes; published ones have a few thousand.
pub const MAX_TEMPLATE_BYTES: usize = 1 << 20;
/// Most characters of a tag outside of its texts; published ones have some hundreds. Engines descend into an operator's operands, so that a
/// chain of many thousand ends with their stack, and takes the square of its length before.
const MAX_TAG: usize = 1024;
/// Transformers' mark of what a model is trained on, which changes nothing in the text.
const GENERATION: [(&str, &str); 2] = [("generation", "if true"), ("endgeneration", "endif")];

/// Refuses a template that no engine for Jinja can read. `name` is what it is called in the message.
///
/// ```
/// use rwkv_forge_container::check_template;
///
/// check_template("chat.jinja", "{% for message in messages %}{{ message.content }}{% endfor %}")?;
/// let error = check_template("chat.jinja", "{{ bos_token }}\n{{ messages[ }}").expect_err("a bracket is open");
/// assert!(error.to_string().starts_with("chat.jinja, line 2: "));
/// # Ok::<(), rwkv_forge_container::ContainerError>(())
/// ```
///
/// # Errors
/// [`ContainerError::BadTemplate`] for one that is empty, too long, or no Jinja.
pub fn check_template(name: &str, template: &str) -> Result<(), ContainerError> {
    let bad = |line, problem| ContainerError::BadTemplate { name: name.to_owned(), line, problem, formats: ChatFormat::names() };
    if template.trim().is_empty() {
        return Err(bad(None, "the template is empty".to_owned()));
    }
    if template.len() <= MAX_TEMPLATE_BYTES && is_json_around(template) {
        let problem = "this is JSON with the template under chat_template, and not the template: write its value into a file of its own";
        return Err(bad(None, problem.to_owned()));
    }
    if template.len() > MAX_TEMPLATE_BYTES {
        return Err(bad(None, format!("the template has {} bytes, at most {MAX_TEMPLATE_BYTES} are read", template.len())));
    }
    if let Some(line) = overlong_tag(template) {
        return Err(bad(Some(line), format!("a tag has more than {MAX_TAG} characters outside of texts, at most that many are read")));
    }
    let known = without_marks(template);
    match Environment::new().template_from_str(&known) {
        Ok(_) => Ok(()),
        Err(error) => Err(bad(error.line(), said(&error))),
    }
}

/// Whether a text is not a template but a file of JSON that has one.
fn is_json_around(text: &str) -> bool {
    text.trim_start().starts_with('{')
        && serde_json::from_str::<serde_json::Value>(text).is_ok_and(|value| value.get("chat_template").is_some())
}

/// The line on which a tag begins that is too long to be read.
fn overlong_tag(template: &str) -> Option<usize> {
    let mut rest = template;
    while let Some((tag, after)) = next_tag(rest) {
        if !tag.starts_with("{#") && outside_of_texts(tag).count() > MAX_TAG {
            let before = template.len().saturating_sub(tag.len()).saturating_sub(after.len());
            return Some(template.bytes().take(before).filter(|byte| *byte == b'\n').count().saturating_add(1));
        }
        rest = after;
    }
    None
}

/// The next tag or comment, to its end or the template's, and what follows it.
pub(super) fn next_tag(text: &str) -> Option<(&str, &str)> {
    let start = ["{{", "{%", "{#"].iter().filter_map(|tag| text.find(tag)).min()?;
    let text = text.get(start..)?;
    let end = if text.starts_with("{#") {
        text.find("#}")
    } else {
        let close = if text.starts_with("{{") { "}}" } else { "%}" };
        outside_of_texts(text).skip(2).find(|at| text.get(*at..).is_some_and(|rest| rest.starts_with(close)))
    };
    text.split_at_checked(end.map_or(text.len(), |end| end.saturating_add(2)))
}

/// Places of the characters of a tag that are in none of its texts.
pub(super) fn outside_of_texts(tag: &str) -> impl Iterator<Item = usize> {
    let (mut text, mut is_escaped) = (None, false);
    tag.char_indices().filter_map(move |(at, c)| match text {
        Some(_) if is_escaped => {
            is_escaped = false;
            None
        }
        Some(quote) => {
            is_escaped = c == '\\';
            text = (c != quote).then_some(quote);
            None
        }
        None => {
            text = ['"', '\''].contains(&c).then_some(c);
            Some(at)
        }
    })
}

/// What an engine says of a failure, without its own words around it.
pub(super) fn said(error: &Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), str::to_owned)
}

/// The template with the blocks of Transformers that no other engine knows as blocks that all do.
pub(super) fn without_marks(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{%") {
        out.push_str(before);
        out.push_str("{%");
        let name = after.trim_start_matches(['-', '+']).trim_start();
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;
    use crate::words::CHAT_FORMATS;
    use rwkv_forge_tensor::Diagnostic;

    fn refused(template: &str) -> String {
        let error = check_template("chat.jinja", template).unwrap_err();
        assert_eq!(error.kind(), "BadTemplate");
        error.to_string()
    }

    #[test]
    fn chains_that_end_an_engines_stack_are_refused_before_it() {
        let chains = ["|trim", "+a", ".a", "~a", "**a"].map(|link| format!("x\n{{{{ a{} }}}}", link.repeat(40_000)));
        let before = ["not ", "-"].map(|link| format!("\n{{% if {}a %}}{{% endif %}}", link.repeat(40_000)));
        for template in chains.iter().chain(&before) {
            let error = check_template("chat.jinja", template).unwrap_err().to_string();
            assert!(error.starts_with("chat.jinja, line 2: a tag has more than 1024"), "{error}");
        }
        // Texts and comments may be long, and what looks like an end in a text is none.
        let long = "x }} %} ".repeat(1_000);
        check_template("t", &format!("{{# {long} #}}{{{{ '{long}\\'' ~ \"{long}\" }}}}{{%- set a = 1 -%}}")).unwrap();
        let many = "{{ a.b.c|trim }}\n".repeat(2_000);
        check_template("t", &many).unwrap();
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
        let text = "{% for m in messages %}{%- generation -%}{{ m['content'].strip().split('</t>')[-1] }}{% endgeneration %}\
                    {% if loop.last %}{% break %}{% endif %}{% endfor %}{{ eos_token | unheard_of }}";
        check_template("t", text).unwrap();
        assert_eq!(without_marks("{%- generation -%}a{% endgeneration %}"), "{%- if true -%}a{% endif %}");
        assert_eq!(without_marks("{% generations %}{{ generation }}{%"), "{% generations %}{{ generation }}{%");
    }

    #[test]
    fn every_format_can_be_read() {
        for format in &CHAT_FORMATS {
            check_template(format.name, format.template()).unwrap();
        }
    }
}
