//! Words from outside on their way to people: one function for each place where they are shown.
//!
//! Names of tensors, of files, keys of metadata and the like may hold anything. What could move the cursor, change colours, turn the
//! direction of a line, hide, or end the cell, tag or line that it stands in becomes visible: `\x1b`, `\u{202e}`. Letters of
//! every language stay.
//!
//! ```
//! use rwkv_forge_report::sink;
//!
//! let name = "head\u{1b}[2J.weight|<b>";
//! assert_eq!(sink::word(name), r"head\x1b[2J.weight|<b>");
//! assert_eq!(sink::markdown_cell("a|b"), r"a\|b");
//! assert_eq!(sink::html("a < b"), "a &lt; b");
//! ```

use std::borrow::Cow;
use std::fmt::Write;

/// True for characters that do something, or nothing visible, instead of being shown: controls (C0, DEL, C1), line and paragraph
/// separators, what changes the direction of text, and invisible format characters.
#[must_use]
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// The visible form of a character.
fn visible(out: &mut String, c: char) {
    // Writing to a String cannot fail.
    let _ = match c {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        c if u32::from(c) < 0x100 => write!(out, "\\x{:02x}", u32::from(c)),
        c => write!(out, "\\u{{{:x}}}", u32::from(c)),
    };
}

fn escape(text: &str, kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    let bad = |c: char| is_unsafe(c) && !kept(c);
    if !text.chars().any(bad) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if bad(c) { visible(&mut out, c) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// A name, or a sentence, on one line of anything: a cell of a table, a part of a message.
#[must_use]
pub fn word(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// Text of several lines on a terminal: the last step of everything that is printed.
#[must_use]
pub fn terminal(text: &str) -> Cow<'_, str> {
    escape(text, |c| c == '\n')
}

/// A message on a terminal. Its further lines are indented, so that none of them passes for a line of the program's own.
#[must_use]
pub fn message(text: &str) -> String {
    terminal(text.trim_end()).replace('\n', "\n  ")
}

/// A JSON document: such characters occur only inside of its strings, where `\u` and four digits mean the same.
#[must_use]
pub fn json(document: &str) -> Cow<'_, str> {
    let bad = |c: char| is_unsafe(c) && !matches!(c, '\n' | '\r' | '\t');
    if !document.chars().any(bad) {
        return Cow::Borrowed(document);
    }
    let mut out = String::with_capacity(document.len() + 16);
    for c in document.chars() {
        if bad(c) {
            let mut units = [0u16; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Text between tags and inside double quotes of HTML, SVG and XML, on one line.
#[must_use]
pub fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | '\r' => out.push(' '),
            c if is_unsafe(c) => visible(&mut out, c),
            c => out.push(c),
        }
    }
    out
}

/// Text of JUnit XML, whose writer escapes what XML wants escaped.
#[must_use]
pub fn junit(text: &str) -> Cow<'_, str> {
    terminal(text)
}

/// A cell of a Markdown table: on one line, with the character that ends cells escaped, and backslashes where they would escape
/// something.
#[must_use]
pub fn markdown_cell(text: &str) -> String {
    let line = text.replace(['\n', '\r'], " ");
    let safe = word(&line);
    let mut out = String::with_capacity(safe.len());
    let mut characters = safe.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '|' => out.push_str("\\|"),
            // Before anything else a backslash is a backslash.
            '\\' if characters.peek().is_none_or(char::is_ascii_punctuation) => out.push_str("\\\\"),
            c => out.push(c),
        }
    }
    out
}

/// A cell of CSV on one line, without the quotes that its writer adds. Spreadsheets compute what begins as a formula; a quote before it makes
/// it text. Numbers, and the dash that stands for nothing, stay as they are.
#[must_use]
pub fn csv(text: &str) -> Cow<'_, str> {
    let begins = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '|', '%', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}']);
    let safe = word(text);
    if begins && text != "-" && text.parse::<f64>().is_err() { Cow::Owned(format!("'{safe}")) } else { safe }
}

/// The message of a GitHub annotation: line ends would end the command, and `%` begins an escape.
#[must_use]
pub fn annotation_message(text: &str) -> String {
    escape(text, |c| matches!(c, '\n' | '\r')).replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property of a GitHub annotation, where `:` and `,` have a meaning, too.
#[must_use]
pub fn annotation_property(text: &str) -> String {
    annotation_message(text).replace(':', "%3A").replace(',', "%2C")
}

/// The text that a model writes, for a terminal: control characters other than line ends and tabs become visible. Bytes come in
/// pieces that may end inside of a character.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    pending: Vec<u8>,
}

impl Stream {
    /// What can be shown after these bytes.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut out = String::new();
        loop {
            let (good, bad) = match std::str::from_utf8(&self.pending) {
                Ok(text) => (text.len(), 0),
                Err(error) => (error.valid_up_to(), error.error_len().unwrap_or(0)),
            };
            let text = std::str::from_utf8(&self.pending[..good]).unwrap_or_default();
            out.push_str(&escape(text, |c| matches!(c, '\n' | '\t') || !c.is_control()));
            self.pending[good..good + bad].iter().for_each(|byte| {
                let _ = write!(out, "\\x{byte:02x}");
            });
            self.pending.drain(..good + bad);
            if bad == 0 {
                return out;
            }
        }
    }

    /// What is left of a character that was never finished.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.pending).iter().map(|byte| format!("\\x{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Escape sequences of terminals, in their 7-bit and 8-bit forms, everything invisible, and the ends of lines, cells and tags.
    const HOSTILE: &str = "a\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}31m\u{7f}\u{0}\u{85}\u{202e}b\u{2066}\u{200e}\u{61c}\u{2028}\u{2029}\u{200b}\u{feff}\u{ad}\
        \u{e0041}\u{fff9}\u{180e}\u{3164}|<&\">'\r";

    #[test]
    fn letters_of_every_language_stay() {
        let text = "blocks.0.att.w1 é ß 模型 модель مرحبا हिन्दी 🙂 -> = a|b \\ `x`";
        assert!(matches!(word(text), Cow::Borrowed(_)) && matches!(terminal(text), Cow::Borrowed(_)));
        assert_eq!((junit(text), csv(text)), (text.into(), text.into()));
    }

    #[test]
    fn no_sink_lets_an_unsafe_character_through() {
        let shown = [
            word(HOSTILE).into_owned(),
            terminal(HOSTILE).into_owned(),
            message(HOSTILE),
            json(HOSTILE).replace('\r', ""),
            html(HOSTILE),
            junit(HOSTILE).into_owned(),
            markdown_cell(HOSTILE),
            csv(HOSTILE).into_owned(),
            annotation_message(HOSTILE),
            annotation_property(HOSTILE),
        ];
        for text in shown {
            assert!(!text.chars().any(is_unsafe), "{text:?}");
        }
    }

    #[test]
    fn what_was_there_can_be_seen() {
        assert_eq!(word("a\u{1b}[0m\n\t\r\u{9b}\u{202e}b"), "a\\x1b[0m\\n\\t\\r\\x9b\\u{202e}b");
        assert_eq!(terminal("two\nlines\u{7}"), "two\nlines\\x07");
        assert_eq!(message("one\nerror[Bug]: forged\n"), "one\n  error[Bug]: forged");
        assert_eq!(html("a<b>&\"c\"'\n\u{1}é"), "a&lt;b&gt;&amp;&quot;c&quot;&#39; \\x01é");
        assert_eq!(markdown_cell("a|b\nc\u{1b}"), "a\\|b c\\x1b");
        assert_eq!(markdown_cell("\\| \\* \\"), "\\\\\\| \\\\* \\\\");
        assert_eq!(annotation_property("a,b:c%\n\u{1b}"), "a%2Cb%3Ac%25%0A\\x1b");
    }

    #[test]
    fn json_keeps_its_value() {
        let value = serde_json::Value::from(HOSTILE);
        let text = value.to_string();
        let safe = json(&text);
        assert!(!safe.chars().any(is_unsafe), "{safe}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
    }

    #[test]
    fn a_spreadsheet_computes_no_cell() {
        for text in ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "-0.5 x"] {
            assert!(csv(text).starts_with('\''), "{text:?}");
        }
        for text in ["-0.5", "+1e-3", "-inf", "-", "a=b", "", "5", "q4_k_m"] {
            assert_eq!(csv(text), text);
        }
    }

    #[test]
    fn a_model_says_nothing_to_the_terminal() {
        let text = "é\u{1b}[2J🙂\n\tzwj\u{200d}\u{85}".as_bytes();
        for size in 1..=text.len() {
            let mut stream = Stream::default();
            let shown: String = text.chunks(size).map(|piece| stream.push(piece)).collect();
            assert_eq!(shown + &stream.finish(), "é\\x1b[2J🙂\n\tzwj\u{200d}\\x85", "pieces of {size}");
        }
        let mut stream = Stream::default();
        assert_eq!(stream.push(b"a\x9b31m\xff\xf0\x9f"), "a\\x9b31m\\xff");
        assert_eq!(stream.finish(), "\\xf0\\x9f");
    }
}
