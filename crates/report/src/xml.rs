//! Text inside XML.

/// Text as it may stand between tags and inside double quotes. Characters that XML 1.0 does not have
/// become U+FFFD, and so do control characters and those that change the direction of the text around them.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | '\r' => out.push(' '),
            '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}' => {
                out.push('\u{fffd}');
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_ends_a_tag_or_an_attribute() {
        assert_eq!(super::escape("a<b>&\"c\"'\n\u{1}é"), "a&lt;b&gt;&amp;&quot;c&quot;&#39; \u{fffd}é");
    }
}
