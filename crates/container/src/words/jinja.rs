//! Templates in Jinja: whether an engine can read one. They come from anybody, so they are read and never run. Start at [`check_template`].

use minijinja::{Environment, Error};

use super::ChatFormat;
use crate::error::ContainerError;

/// Longest template that is read, in bytes; published ones have a few thousand.
pub const MAX_TEMPLATE_BYTES: usize = 1 << 20;
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
    if template.len() > MAX_TEMPLATE_BYTES {
        return Err(bad(None, format!("the template has {} bytes, at most {MAX_TEMPLATE_BYTES} are read", template.len())));
    }
    let known = without_marks(template);
    match Environment::new().template_from_str(&known) {
        Ok(_) => Ok(()),
        Err(error) => Err(bad(error.line(), said(&error))),
    }
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
