//! The conversation formats that RWKV's models are trained with. Start at [`CHAT_FORMATS`].

use rwkv_forge_tokenizer::Tokenizer;

use super::WORLD_TEMPLATE;

/// A conversation format, and how programs know that an answer is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChatFormat {
    /// Name on the command line.
    pub name: &'static str,
    /// What it is for, in a few words.
    pub about: &'static str,
    /// In Jinja, as files carry it.
    template: &'static str,
    /// The text whose token ends a turn; `None` where no single token does.
    pub end_of_turn: Option<&'static str>,
    /// Where an answer is over, as a text.
    pub stop: &'static str,
    /// What templates of this format write and those of others do not.
    marks: &'static [&'static str],
}

/// All formats. What is said is cleaned as the models' author publishes it: line ends are `\n`, and systems and users write no empty line.
///
/// ```
/// use rwkv_forge_container::{CHAT_FORMATS, ChatFormat};
///
/// let bot = ChatFormat::by_name("bot").expect("it is registered");
/// assert_eq!((bot.end_of_turn, bot.stop), (Some("✿"), "✿"));
/// assert!(CHAT_FORMATS.iter().all(|format| ChatFormat::of(format.template()) == Some(format)));
/// ```
pub static CHAT_FORMATS: [ChatFormat; 4] = [
    ChatFormat {
        name: "assistant",
        about: "`User: ...`, `Assistant: ...`, answers that begin with a thought",
        template: concat!(include_str!("clean.jinja"), include_str!("assistant.jinja")),
        end_of_turn: Some("\n\n"),
        stop: "\n\nUser:",
        marks: &["<think"],
    },
    ChatFormat {
        name: "bot",
        about: "`User✿...✿`, `Bot✿...✿`, from about G1h on",
        template: concat!(include_str!("clean.jinja"), include_str!("bot.jinja")),
        end_of_turn: Some("✿"),
        stop: "✿",
        marks: &["✿", r"\u273f", r"\u273F"],
    },
    ChatFormat {
        name: "tools",
        about: "`### User`, `### Assistant`, with tools, calls and their outputs",
        template: concat!(include_str!("clean.jinja"), include_str!("tools.jinja")),
        end_of_turn: None,
        stop: "\n### User",
        marks: &["### User", "### Assistant"],
    },
    ChatFormat {
        name: "world",
        about: "`User: ...`, `Assistant: ...`, of World models before G1",
        template: WORLD_TEMPLATE,
        end_of_turn: Some("\n\n"),
        stop: "\n\n",
        marks: &["rwkv-world"],
    },
];

impl ChatFormat {
    /// The format of this name, in letters of either case.
    #[must_use]
    pub fn by_name(name: &str) -> Option<&'static Self> {
        CHAT_FORMATS.iter().find(|format| format.name.eq_ignore_ascii_case(name))
    }

    /// The format whose name may be meant by a word that is none.
    ///
    /// ```
    /// use rwkv_forge_container::ChatFormat;
    ///
    /// assert_eq!(ChatFormat::nearest("assistent").map(|format| format.name), Some("assistant"));
    /// assert_eq!(ChatFormat::nearest("chatml"), None);
    /// ```
    #[must_use]
    pub fn nearest(word: &str) -> Option<&'static Self> {
        let word = word.to_lowercase();
        let (steps, format) =
            CHAT_FORMATS.iter().map(|format| (steps_between(&word, format.name), format)).min_by_key(|(steps, _)| *steps)?;
        // A third of a word may be wrong.
        (steps.saturating_mul(3) <= format.name.len()).then_some(format)
    }

    /// The format that a template is, byte for byte but for the end of its last line.
    #[must_use]
    pub fn of(template: &str) -> Option<&'static Self> {
        CHAT_FORMATS.iter().find(|format| format.template() == template.trim_end())
    }

    /// The format that the name of a file speaks for, where that is another than World: models of the G1 series from G1h on, and those
    /// before. `rwkv7-g1h-2.9b` and `rwkv-g1k-3b` are such names.
    #[must_use]
    pub fn suggested_by(file: &str) -> Option<&'static Self> {
        let series = |part: &str| match part.to_ascii_lowercase().strip_prefix("g1")?.as_bytes() {
            [] => Some("assistant"),
            // A digit behind the letter is another release of the same series: `g1a3`.
            [letter, release @ ..] if release.iter().all(u8::is_ascii_digit) => match letter {
                b'a'..=b'g' => Some("assistant"),
                b'h'..=b'z' => Some("bot"),
                _ => None,
            },
            _ => None,
        };
        file.split(|char: char| !char.is_ascii_alphanumeric()).find_map(series).and_then(Self::by_name)
    }

    /// Whether a template is this format's, as far as can be seen: byte for byte, or by what no other format writes.
    ///
    /// ```
    /// use rwkv_forge_container::{ChatFormat, WORLD_TEMPLATE};
    ///
    /// let bot = ChatFormat::by_name("bot").expect("it is registered");
    /// assert!(bot.is_that_of("{{ 'User✿' + messages[0].content + '✿' }}"));
    /// assert!(!bot.is_that_of(WORLD_TEMPLATE));
    /// ```
    #[must_use]
    pub fn is_that_of(&self, template: &str) -> bool {
        let is_marked = || self.marks.iter().any(|mark| template.contains(mark));
        Self::of(template).map_or_else(is_marked, |format| format.name == self.name)
    }

    /// The template, as files carry it.
    #[must_use]
    pub fn template(&self) -> &'static str {
        self.template.trim_end()
    }

    /// The token that ends a turn, where one does in this vocabulary.
    #[must_use]
    pub fn end_of_turn_in(&self, tokenizer: &Tokenizer) -> Option<u32> {
        tokenizer.id_of(self.end_of_turn?.as_bytes())
    }

    /// Names of all formats, for messages: `assistant, bot, tools, world`.
    #[must_use]
    pub fn names() -> String {
        CHAT_FORMATS.map(|format| format.name).join(", ")
    }
}

/// How many characters have to be put in, taken out or exchanged to make one word of the other.
fn steps_between(one: &str, other: &str) -> usize {
    // Row by row: what it takes from the beginning of `one` to each beginning of `other`.
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (done, from) in one.chars().enumerate() {
        let mut diagonal = done;
        let mut left = done.saturating_add(1);
        let first = row.iter_mut().take(1);
        first.for_each(|steps| *steps = left);
        for (to, steps) in other.chars().zip(row.iter_mut().skip(1)) {
            let exchanged = diagonal.saturating_add(usize::from(from != to));
            diagonal = *steps;
            left = exchanged.min(left.saturating_add(1)).min(diagonal.saturating_add(1));
            *steps = left;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn words_are_as_many_steps_apart_as_characters_are_wrong() {
        for (one, other, steps) in
            [("", "", 0), ("a", "", 1), ("", "ab", 2), ("bot", "bots", 1), ("tolos", "tools", 2), ("kitten", "sitting", 3)]
        {
            assert_eq!((steps_between(one, other), steps_between(other, one)), (steps, steps), "{one} {other}");
        }
        for (word, meant) in
            [("Bot", Some("bot")), ("toools", Some("tools")), ("wold", Some("world")), ("b", None), ("x", None), ("jinja", None)]
        {
            assert_eq!(ChatFormat::nearest(word).map(|format| format.name), meant, "{word}");
        }
    }

    #[test]
    fn turns_of_world_models_end_with_known_tokens() {
        let ends = CHAT_FORMATS.map(|format| (format.name, format.end_of_turn_in(&Tokenizer::world())));
        assert_eq!(ends, [("assistant", Some(261)), ("bot", Some(10060)), ("tools", None), ("world", Some(261))]);
        assert_eq!(ChatFormat::by_name("bot").unwrap().end_of_turn_in(&Tokenizer::raw_bytes()), None);
    }

    #[test]
    fn names_of_files_speak_for_formats() {
        let of = |name: &str| ChatFormat::suggested_by(name).map(|format| format.name);
        for (name, format) in [
            ("rwkv7-g1h-2.9b-20260710-ctx10240", Some("bot")),
            ("rwkv7-g1j-13.3b-20260831-ctx16384", Some("bot")),
            ("rwkv-g1k-3b-temp-5441", Some("bot")),
            ("RWKV7_G1K_3B", Some("bot")),
            ("rwkv7-g1g-1.5b-20260523-ctx8192", Some("assistant")),
            ("rwkv7a-g1d-0.1b-20260212-ctx8192", Some("assistant")),
            ("rwkv7-g1-0.1b-20250307-ctx4096", Some("assistant")),
            ("RWKV-x070-World-0.1B-v2.8-20241210-ctx4096", None),
            ("rwkv7-g1a3-1.5b-20251015-ctx8192", Some("assistant")),
            ("rwkv7-G1a2-1.5b", Some("assistant")),
            ("rwkv7-g1a4-2.9b", Some("assistant")),
            ("rwkv7-g1h2-2.9b", Some("bot")),
            ("rwkv7-g1a3b-2.9b", None),
            ("rwkv7-g0a3-7.2b-20251020-ctx8192", None),
            ("model", None),
            ("rwkv7-g10-1b", None),
            ("rwkv7-g1hh", None),
            ("rwkv7-g2a-1b", None),
        ] {
            assert_eq!(of(name), format, "{name}");
        }
    }
}
