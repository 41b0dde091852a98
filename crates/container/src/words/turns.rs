//! What a template writes that is meant to be one token: its marks, and the one that ends a turn. Start at [`end_of_turn_of`].

use rwkv_forge_tokenizer::bpe::TokenKind;

use super::jinja::next_tag;
use super::render::{END_OF_TEXT, behind_answer};
use super::{CHAT_FORMATS, TokenTable};

/// How marks begin and end: those of ChatML and Llama, and the same with wide bars.
const BRACKETS: [(&str, &str); 2] = [("<|", "|>"), ("<｜", "｜>")];
/// Most bytes between the two.
const MAX_NAME: usize = 64;

/// What a template writes that stands for one token in the vocabulary that it was made for: `<|im_start|>`, each once, in its order.
///
/// ```
/// let template = "{# <|none|> #}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{{ '<|im_end|>' }}{% endfor %}";
/// assert_eq!(rwkv_forge_container::marks_of_template(template), ["<|im_start|>", "<|im_end|>"]);
/// ```
#[must_use]
pub fn marks_of_template(template: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut rest = template;
    // Comments say what is written nowhere.
    while let Some((tag, after)) = next_tag(rest) {
        let before = rest.len().saturating_sub(tag.len()).saturating_sub(after.len());
        marks_in(rest.get(..before).unwrap_or_default(), &mut found);
        if !tag.starts_with("{#") {
            marks_in(tag, &mut found);
        }
        rest = after;
    }
    marks_in(rest, &mut found);
    found
}

fn marks_in(text: &str, found: &mut Vec<String>) {
    for (at, _) in text.match_indices('<') {
        if let Some(mark) = text.get(at..).and_then(mark_at).filter(|mark| !found.iter().any(|known| known == mark)) {
            found.push(mark.to_owned());
        }
    }
}

/// The mark that a text begins with.
fn mark_at(text: &str) -> Option<&str> {
    BRACKETS.iter().find_map(|(open, close)| {
        let inner = text.strip_prefix(open)?;
        let end = inner.find(close)?;
        let name = inner.get(..end)?;
        // What is put together from parts is not known as a text.
        let is_name = |c: char| c.is_alphanumeric() || "_-▁.:".contains(c);
        let is_mark = !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(is_name);
        let length = open.len().saturating_add(end).saturating_add(close.len());
        text.get(..length).filter(|_| is_mark)
    })
}

/// The token that ends an answer in conversations of a template, where it is seen: the mark that the template writes behind one, the end of texts
/// (which is `eos` then), or what ends a turn of the known formats. Nothing where there is none in the vocabulary.
#[must_use]
pub fn end_of_turn_of(template: &str, tokens: &TokenTable, eos: Option<u32>) -> Option<u32> {
    behind_answer(template)?.iter().find_map(|behind| {
        let text = behind.trim_start();
        if text.starts_with(END_OF_TEXT) {
            return eos;
        }
        let known = || CHAT_FORMATS.iter().filter_map(|format| format.end_of_turn).find(|end| behind.starts_with(end));
        match mark_at(text) {
            Some(mark) => tokens.id_of_text(mark),
            None => tokens.mark_before(text).or_else(|| tokens.id_of_text(known()?)),
        }
    })
}

impl TokenTable {
    /// The token that is this text.
    #[must_use]
    pub fn id_of_text(&self, text: &str) -> Option<u32> {
        match self {
            Self::LongestMatch(tokenizer) | Self::Merges(tokenizer) => {
                let is_unused = |id: &u32| tokenizer.mark(*id).is_some_and(|mark| mark.kind == TokenKind::Unused);
                tokenizer.id_of(text.as_bytes()).filter(|id| !is_unused(id))
            }
            Self::BytePairs(vocabulary) => {
                let is_it = |(known, kind): (&String, &TokenKind)| known == text && *kind != TokenKind::Unused;
                vocabulary.tokens.iter().zip(&vocabulary.kinds).position(is_it).and_then(|id| u32::try_from(id).ok())
            }
        }
    }

    /// The token that a text begins with, among those that are found before anything else; the longest.
    fn mark_before(&self, text: &str) -> Option<u32> {
        let begins = |mark: &str, kind| !mark.is_empty() && text.starts_with(mark) && is_mark(kind);
        match self {
            Self::LongestMatch(tokenizer) | Self::Merges(tokenizer) => {
                let all = tokenizer.marks().filter(|(_, mark)| begins(&mark.text, mark.kind));
                all.max_by_key(|(_, mark)| mark.text.len()).map(|(id, _)| id)
            }
            Self::BytePairs(vocabulary) => {
                let all = (0u32..).zip(vocabulary.tokens.iter().zip(&vocabulary.kinds));
                let all = all.filter(|(_, (mark, kind))| begins(mark, **kind));
                all.max_by_key(|(_, (mark, _))| mark.len()).map(|(id, _)| id)
            }
        }
    }
}

fn is_mark(kind: TokenKind) -> bool {
    match kind {
        TokenKind::Control | TokenKind::UserDefined => true,
        TokenKind::Normal | TokenKind::Unused => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;
    use rwkv_forge_tokenizer::{ListedToken, Mark, Tokenizer};

    const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";

    fn with(marks: &[&str]) -> TokenTable {
        let mark = |text: &&str| Mark { text: (*text).to_owned(), kind: TokenKind::Control };
        TokenTable::of(Tokenizer::world().with_marks((65_530..).zip(marks.iter().map(mark)).collect()).unwrap())
    }

    #[test]
    fn marks_are_told_from_texts_and_from_what_is_put_together() {
        let texts: [(&str, &[&str]); 6] = [
            (CHATML, &["<|im_start|>", "<|im_end|>"]),
            ("{{ '<|' + message.role + '|>' }}<| a |><||>a < b", &[]),
            ("<｜User｜>{{ x }}<｜end▁of▁sentence｜>", &["<｜User｜>", "<｜end▁of▁sentence｜>"]),
            ("{# <|a|> #}{{ '<|b|>' ~ \"<|c.d|>\" }}<|b|>", &["<|b|>", "<|c.d|>"]),
            ("<|never ends", &[]),
            ("<|<|a|>", &["<|a|>"]),
        ];
        for (template, marks) in texts {
            assert_eq!(marks_of_template(template), marks, "{template}");
        }
        // Those of the formats that come with the program are plain texts.
        for format in &CHAT_FORMATS {
            assert_eq!(marks_of_template(format.template()), [""; 0], "{}", format.name);
        }
    }

    #[test]
    fn what_ends_an_answer_is_seen() {
        let (world, chatml) = (with(&[]), with(&["<|im_start|>", "<|im_end|>"]));
        let plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ '\n\n' }}{% endfor %}";
        let only_between = "{% for m in messages %}{{ m.content }}{% if not loop.last %}<|im_end|>{% endif %}{% endfor %}";
        let eos = "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}";
        for (template, tokens, end) in [
            (CHATML, &chatml, Some(65_531)),
            (only_between, &chatml, Some(65_531)),
            (CHATML, &world, None),
            (plain, &world, Some(261)),
            ("{% for m in messages %}{{ m.role }}✿{{ m.content }}✿{% endfor %}", &world, Some(10_060)),
            (eos, &world, Some(7)),
            ("{% for m in messages %}{{ m.content }}{% endfor %}", &chatml, None),
            ("{% for m in messages %}{{ m.content }} and so on{% endfor %}", &chatml, None),
            // What nobody can render here.
            ("{% macro a(m) %}{{ m.content }}<|im_end|>{% endmacro %}{{ a(messages[0]) }}", &chatml, None),
            ("{{ messages[9].content.x }}", &chatml, None),
        ] {
            assert_eq!(end_of_turn_of(template, tokens, Some(7)), end, "{template}");
        }
        assert_eq!(end_of_turn_of(eos, &world, None), None);
        // Marks of any look, where the vocabulary has them; the longest that begins there.
        let own = with(&["</t", "</turn>", "n"]);
        assert_eq!(end_of_turn_of("{% for m in messages %}{{ m.content }}</turn>{% endfor %}", &own, None), Some(65_531));
    }

    #[test]
    fn a_list_without_the_mark_has_no_id_for_it() {
        let list = [(b"<".to_vec(), TokenKind::Normal), (b"<|a|>".to_vec(), TokenKind::Unused)];
        let list: Vec<ListedToken> = list.map(|(bytes, kind)| ListedToken { bytes, kind }).into();
        let table = TokenTable::of(Tokenizer::from_list("a list", &list).unwrap());
        assert_eq!((table.id_of_text("<"), table.id_of_text("<|a|>")), (Some(0), None));
    }
}
