//! Which tensors a rule means: one by its whole name, or those whose names a regular expression matches.
//!
//! Recipes come from other people, and expressions of a few bytes compile to megabytes. So what all of them take together has a limit,
//! and a rule that names one tensor, as those of a plan do, is compared and never compiled.

use std::fmt;

use regex::{Regex, RegexBuilder};

/// Bytes that the compiled expressions of a recipe may take together. A thousand expressions of the usual kind take less.
const LIMIT: usize = 16 << 20;
/// Bytes of the smallest share of them, enough for nearly every expression; larger ones take a power of four as much.
const SHARE: usize = 16 << 10;
/// Bytes of what an expression remembers while it is matched.
const CACHE: usize = 64 << 10;

/// A compiled rule.
#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    /// The one name, without anchors and escapes.
    Name(String),
    /// An expression, which may match anywhere in a name.
    Expression(Regex),
}

/// Why an expression cannot be taken.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It is none.
    Syntax(String),
    /// With it the expressions would take more than the limit, in bytes.
    TooLarge(usize),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(reason) => f.write_str(reason),
            Self::TooLarge(limit) => write!(f, "with it the expressions take more than {limit} bytes when compiled"),
        }
    }
}

/// What is left for the expressions of a recipe.
#[derive(Debug)]
pub(crate) struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(LIMIT)
    }
}

impl Pattern {
    pub(crate) fn compile(text: &str, budget: &mut Budget) -> Result<Self, Refused> {
        if let Some(name) = whole_name(text) {
            return Ok(Self::Name(name));
        }
        // The sizes of expressions are not told, so that what one takes is bounded by the smallest limit that it keeps.
        let mut share = SHARE;
        loop {
            if share > budget.0 {
                return Err(Refused::TooLarge(LIMIT));
            }
            match RegexBuilder::new(text).size_limit(share).dfa_size_limit(CACHE).build() {
                Ok(expression) => {
                    budget.0 -= share;
                    return Ok(Self::Expression(expression));
                }
                Err(regex::Error::CompiledTooBig(_)) => share *= 4,
                Err(error) => return Err(Refused::Syntax(error.to_string())),
            }
        }
    }

    pub(crate) fn is_match(&self, name: &str) -> bool {
        match self {
            Self::Name(own) => own == name,
            Self::Expression(expression) => expression.is_match(name),
        }
    }
}

/// The only name that an expression matches, when it is `^NAME$` with every special character of the name escaped.
fn whole_name(text: &str) -> Option<String> {
    let inner = text.strip_prefix('^')?.strip_suffix('$')?;
    let mut name = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            // What follows is itself only where it means nothing else: `\d` is a class.
            '\\' => name.push(characters.next().filter(char::is_ascii_punctuation)?),
            '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' => return None,
            other => name.push(other),
        }
    }
    // `\<` and `\>` are borders of words.
    (!inner.contains("\\<") && !inner.contains("\\>")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::{Budget, LIMIT, Pattern, Refused, SHARE, whole_name};

    #[test]
    fn whole_names_are_not_compiled() {
        for name in ["blocks.11.att.key.weight", "emb.weight", "a-b_c#d&e~f", ""] {
            let text = format!("^{}$", regex::escape(name));
            assert_eq!(whole_name(&text).as_deref(), Some(name));
            assert!(regex::Regex::new(&text).unwrap().is_match(name), "the expression means the same");
        }
        for other in ["^blocks.0$", "^a", "a$", "^a\\d$", "^a|b$", "^(a)$", "^a\\$", "^\\<a\\>$", "^a\\nb$", "^a$b$"] {
            assert_eq!(whole_name(other), None, "{other}");
        }
        // However many there are, nothing is left of the budget that was not there before.
        let mut budget = Budget::default();
        (0..100_000).for_each(|index| drop(Pattern::compile(&format!("^blocks\\.{index}\\.att$"), &mut budget).unwrap()));
        assert_eq!(budget.0, LIMIT);
    }

    #[test]
    fn expressions_share_a_limit() {
        let mut budget = Budget::default();
        let usual = ["ffn\\.value", "blocks\\.(1[0-9]|2[0-3])\\.ffn\\.(key|value)\\.weight", "^blocks\\.0\\.", "att\\.(key|receptance)"];
        for text in usual {
            let before = budget.0;
            assert!(Pattern::compile(text, &mut budget).is_ok());
            assert_eq!(before - budget.0, SHARE, "{text}");
        }
        let refused = |budget: &mut Budget, text: &str| matches!(Pattern::compile(text, budget), Err(Refused::TooLarge(LIMIT)));
        // About a megabyte each: not all of a hundred.
        let taken = (0..100).take_while(|index| !refused(&mut budget, &format!("zz{index}(a{{250}}){{250}}"))).count();
        assert!((1..=16).contains(&taken), "{taken}");
        assert!(refused(&mut Budget::default(), "(((a{100}){100}){100}){100}"));
        assert!(matches!(Pattern::compile("(", &mut budget), Err(Refused::Syntax(_))));
    }
}
