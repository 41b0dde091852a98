//! Python `str` and `bytes` literals, as far as vocabulary files use them: what `repr` writes, nothing more.

/// Where and why a literal was refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LiteralError {
    /// Byte offset in the literal.
    pub(crate) offset: usize,
    /// What was found there.
    pub(crate) problem: String,
}

/// Decodes a literal to the token's bytes: `bytes` literals as they are, `str` literals as UTF-8.
pub(crate) fn decode(literal: &str) -> Result<Vec<u8>, LiteralError> {
    let (is_bytes, quoted) = match literal.strip_prefix('b') {
        Some(rest) => (true, rest),
        None => (false, literal),
    };
    let mut characters = quoted.char_indices();
    let quote = match characters.next() {
        Some((_, quote @ ('\'' | '"'))) => quote,
        _ => return Err(error(0, "no opening quote; a token is written as 'text', \"text\" or b'bytes'")),
    };
    let mut reader = Reader { characters, length: quoted.len(), prefix: usize::from(is_bytes), is_bytes, bytes: Vec::new() };
    reader.read(quote)?;
    Ok(reader.bytes)
}

struct Reader<'a> {
    characters: std::str::CharIndices<'a>,
    /// Bytes from the opening quote to the end.
    length: usize,
    /// Bytes before the opening quote.
    prefix: usize,
    is_bytes: bool,
    bytes: Vec<u8>,
}

impl Reader<'_> {
    fn read(&mut self, quote: char) -> Result<(), LiteralError> {
        while let Some((offset, character)) = self.characters.next() {
            let offset = offset.saturating_add(self.prefix);
            match character {
                '\\' => self.escape(offset)?,
                _ if character == quote => {
                    return match self.characters.next() {
                        None => Ok(()),
                        Some((after, _)) => Err(error(after.saturating_add(self.prefix), "text after the closing quote")),
                    };
                }
                '\0'..='\u{8}' | '\n'..='\u{1f}' | '\u{7f}' => return Err(error(offset, "a raw control character; write it as \\xNN")),
                _ if self.is_bytes && !character.is_ascii() => {
                    return Err(error(offset, "a character beyond ASCII in a b'' literal; write it as \\xNN"));
                }
                _ => self.push_char(character),
            }
        }
        Err(error(self.length.saturating_add(self.prefix), "no closing quote"))
    }

    fn escape(&mut self, offset: usize) -> Result<(), LiteralError> {
        let Some((_, escape)) = self.characters.next() else {
            return Err(error(offset, "a backslash at the end"));
        };
        match escape {
            '\\' | '\'' | '"' => self.push_char(escape),
            'n' => self.bytes.push(b'\n'),
            'r' => self.bytes.push(b'\r'),
            't' => self.bytes.push(b'\t'),
            'x' => self.code_point(offset, 2)?,
            'u' if !self.is_bytes => self.code_point(offset, 4)?,
            'U' if !self.is_bytes => self.code_point(offset, 8)?,
            _ => {
                let problem = format!(
                    "escape \\{}; accepted are \\\\ \\' \\\" \\n \\r \\t \\xNN, and \\uNNNN \\UNNNNNNNN in str",
                    escape.escape_debug()
                );
                return Err(error(offset, &problem));
            }
        }
        Ok(())
    }

    fn code_point(&mut self, offset: usize, digits: usize) -> Result<(), LiteralError> {
        let mut value = 0u32;
        for _ in 0..digits {
            let digit = self.characters.next().and_then(|(_, character)| character.to_digit(16));
            let Some(digit) = digit else {
                return Err(error(offset, &format!("an escape with fewer than {digits} hexadecimal digits")));
            };
            // At most eight digits, so nothing is shifted out before the last one is in.
            value = value.wrapping_shl(4) | digit;
        }
        if self.is_bytes {
            // Two digits: always a byte.
            self.bytes.extend(u8::try_from(value).ok());
            return Ok(());
        }
        let Some(character) = char::from_u32(value) else {
            return Err(error(offset, &format!("U+{value:04X}, which is no character that UTF-8 can hold")));
        };
        self.push_char(character);
        Ok(())
    }

    fn push_char(&mut self, character: char) {
        self.bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

fn error(offset: usize, problem: &str) -> LiteralError {
    LiteralError { offset, problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_literals() {
        for (literal, bytes) in [
            ("'a'", b"a".as_slice()),
            ("\"it's\"", b"it's"),
            ("'\\''", b"'"),
            ("'\\\\\\n\\r\\t'", b"\\\n\r\t"),
            ("'\\x7f'", b"\x7f"),
            ("'\\xe9'", "é".as_bytes()),
            ("'é'", "é".as_bytes()),
            ("b'\\xe9'", b"\xe9"),
            ("b'a\\\\'", b"a\\"),
            ("'\\u2028'", "\u{2028}".as_bytes()),
            ("'\\U000e0001'", "\u{e0001}".as_bytes()),
            ("''", b""),
            ("'\t '", b"\t "),
        ] {
            assert_eq!(decode(literal).as_deref(), Ok(bytes), "{literal}");
        }
    }

    #[test]
    fn refused_literals() {
        for (literal, offset) in [
            ("", 0),
            ("b", 0),
            ("a", 0),
            ("`a`", 0),
            ("u'a'", 0),
            ("rb'a'", 0),
            ("'a", 2),
            ("b'a", 3),
            ("'a\"", 3),
            ("'a'b'", 3),
            ("'a' 'b'", 3),
            ("'''a'''", 2),
            ("'\\", 1),
            ("'\\'", 3),
            ("'\\x4'", 1),
            ("'\\xg0'", 1),
            ("'\\x+1'", 1),
            ("'\\101'", 1),
            ("'\\a'", 1),
            ("'\\N{DASH}'", 1),
            ("'\\ud800'", 1),
            ("'\\U00110000'", 1),
            ("'\\Uffffffff'", 1),
            ("b'\\u0041'", 2),
            ("b'é'", 2),
            ("'\r'", 1),
            ("'\0'", 1),
        ] {
            let refused = decode(literal).expect_err(literal);
            assert_eq!(refused.offset, offset, "{literal}: {}", refused.problem);
        }
    }
}
