//! Whether a template can only make values that are as large as its input: an engine counts steps and bytes of texts, but one step can go
//! through a list of lists for hours, and a namespace that holds itself has no end. Start at [`is_bounded`].

use super::jinja::{next_tag, outside_of_texts};

/// Names with which values of values are made, or whose calls keep values from step to step.
const MAKERS: [&str; 9] = ["zip", "chain", "batch", "slice", "dict", "recursive", "macro", "call", "caller"];
/// Words that look like names and stand for no value.
const WORDS: [&str; 15] = ["and", "else", "elif", "false", "for", "if", "in", "is", "none", "not", "or", "set", "true", "with", "ignore"];

/// Whether everything that the template keeps is a part of its input, a number, a constant or a text. Told by its words alone, so that `false`
/// stands for many that would be so, such as all with macros; what most models have is `true`.
pub(super) fn is_bounded(template: &str) -> bool {
    let mut tags = Vec::new();
    let mut rest = template;
    while let Some((tag, after)) = next_tag(rest) {
        if !tag.starts_with("{#") {
            tags.push((tag.starts_with("{%"), tokens(tag)));
        }
        rest = after;
    }
    let kept: Vec<&str> = tags.iter().filter_map(|(_, tokens)| namespace(tokens)).collect();
    tags.iter().all(|(is_statement, tokens)| {
        let are_plain = !tokens.iter().any(|token| MAKERS.contains(token)) && names_are_plain(tokens, &kept);
        are_plain && operators_are_plain(tokens, *is_statement) && (!*is_statement || literals_are_plain(tokens))
    })
}

/// Names, numbers and signs of a tag, with `"` for each of its texts.
fn tokens(tag: &str) -> Vec<&str> {
    let inner = tag.get(2..tag.len().saturating_sub(2)).unwrap_or_default();
    let inner = inner.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']);
    let mut out: Vec<&str> = Vec::new();
    // Where the last name ends, so that its next letter belongs to it.
    let mut end = None;
    let mut start = 0;
    for at in outside_of_texts(inner) {
        let Some(c) = inner.get(at..).and_then(|rest| rest.chars().next()) else { continue };
        let next = at.saturating_add(c.len_utf8());
        let is_letter = c.is_alphanumeric() || c == '_';
        if is_letter && end == Some(at) {
            out.pop();
        } else {
            start = at;
        }
        end = is_letter.then_some(next);
        match c {
            '"' | '\'' => out.push("\""),
            c if c.is_whitespace() => {}
            _ => out.extend(inner.get(start..next)),
        }
    }
    out
}

/// The name of `set NAME = namespace(...)`.
fn namespace<'t>(tokens: &[&'t str]) -> Option<&'t str> {
    match tokens {
        ["set", name, "=", "namespace", ..] => Some(*name),
        _ => None,
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_') && !WORDS.contains(&token)
}

/// Whether a value ends with this, so that a bracket behind it is a call or an index.
fn ends_value(token: Option<&&str>) -> bool {
    token.is_some_and(|token| is_name(token) || ["]", ")", "}", "\""].contains(token) || token.starts_with(|c: char| c.is_ascii_digit()))
}

/// Whether namespaces are made where they get a name, and used by what they hold alone: nothing then holds one.
fn names_are_plain(tokens: &[&str], kept: &[&str]) -> bool {
    tokens.iter().enumerate().all(|(place, token)| {
        let before = place.checked_sub(1).and_then(|place| tokens.get(place));
        let after = tokens.get(place.saturating_add(1));
        match *token {
            "namespace" => place == 3 && namespace(tokens).is_some(),
            name if kept.contains(&name) => before == Some(&".") || after == Some(&".") || namespace(tokens) == Some(name) && place == 1,
            _ => true,
        }
    })
}

/// Whether `+` and `*` have a text or, for `+`, a number at a side: lists would grow by them.
fn operators_are_plain(tokens: &[&str], is_statement: bool) -> bool {
    tokens.iter().enumerate().all(|(place, token)| {
        let sides =
            [place.checked_sub(1), place.checked_add(1)].map(|place| place.and_then(|place| tokens.get(place)).copied().unwrap_or(""));
        let has_text = sides.contains(&"\"");
        match *token {
            "*" => has_text,
            "+" => !is_statement || has_text || sides.iter().any(|side| side.starts_with(|c: char| c.is_ascii_digit())),
            _ => true,
        }
    })
}

/// A bracket that is open: whether it makes a list of what is in it, and what is.
#[derive(Default)]
struct Open {
    makes: bool,
    is_group: bool,
    has_name: bool,
    has_comma: bool,
}

/// Whether lists that are written out hold constants alone.
fn literals_are_plain(tokens: &[&str]) -> bool {
    // What is assigned or gone through without brackets is a list where it has a comma.
    let counts_from = match tokens.first() {
        Some(&"for") => tokens.iter().position(|token| *token == "in"),
        Some(&"set") => tokens.iter().position(|token| *token == "="),
        _ => None,
    };
    let mut open = Vec::new();
    for (place, token) in tokens.iter().enumerate() {
        let before = place.checked_sub(1).and_then(|place| tokens.get(place));
        match *token {
            "{" => return false,
            "[" => open.push(Open { makes: !ends_value(before), ..Open::default() }),
            "(" => open.push(Open { is_group: !ends_value(before), ..Open::default() }),
            "]" | ")" => {
                let Some(closed) = open.pop() else { return false };
                if closed.has_name && (closed.makes || closed.is_group && closed.has_comma) {
                    return false;
                }
                if let Some(outer) = open.last_mut() {
                    outer.has_name |= closed.has_name;
                }
            }
            "," => match open.last_mut() {
                Some(inner) => inner.has_comma = true,
                None if counts_from.is_some_and(|from| place > from) => return false,
                None => {}
            },
            name if is_name(name) => open.iter_mut().for_each(|outer| outer.has_name = true),
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::is_bounded;
    use crate::words::CHAT_FORMATS;

    #[test]
    fn what_models_have_is_bounded() {
        assert!(is_bounded(CHAT_FORMATS.iter().find(|format| format.name == "world").map_or("", |format| format.template())));
        for template in [
            "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>'}}{% endfor %}",
            "{%- set ns = namespace(last=-1, found=false) -%}{%- for m in messages[::-1] -%}{%- set ns.last = loop.index0 + 1 -%}{%- endfor -%}{{ ns.last }}",
            "{% for key, value in m.items() %}{% if m.role in ['user', \"tool\"] and (a or b) %}{{ [m, m] }}{% endif %}{% endfor %}",
            "{% set s = '[' + m.content + ', (' + m.role ~ ')' %}{{- s -}}{# [s, s] * 2 #} [s, s] * 2",
            "{% set a = range(3, n) %}{% set b = m.content.replace('a', \"it's\") %}",
        ] {
            assert!(is_bounded(template), "{template}");
        }
    }

    #[test]
    fn what_can_grow_is_not() {
        for template in [
            "{% set ns=namespace() %}{% set ns.a=ns %}{{ ns }}",
            "{% set ns=namespace() %}{% set ns.a=[ns] %}{{ ns==ns }}",
            "{% set ns=namespace() %}{% set x = ns %}{% set ns.a = x %}",
            "{% for n in [namespace()] %}{% set n.a = n %}{% endfor %}",
            "{% set s = [s, s] %}",
            "{% set s = (s, s) %}",
            "{% set s = s, s %}",
            "{% set s = {'a': s} %}",
            "{% set s = s + s %}",
            "{% set s = s * 2 %}",
            "{{ messages * 1000000000 }}",
            "{% set s = s|zip(s) %}",
            "{% set s = dict(a=s, b=s) %}",
            "{% for a in [[x, x]] %}{% for b in [[a, a]] %}{{ b }}{% endfor %}{% endfor %}",
            "{% for a in x, x %}{% endfor %}",
            "{% with a = [x, x] %}{{ a }}{% endwith %}",
            "{% if [x] and (x, [y]) %}{% endif %}",
            "{% macro m(s) %}{{ m([s, s]) }}{% endmacro %}",
        ] {
            assert!(!is_bounded(template), "{template}");
        }
    }
}
