//! What models and the parser of the command line say, on its way to a terminal.

use std::borrow::Cow;
use std::io::{IsTerminal, stdout};

use rwkv_forge_report::sink::{self, Stream};

/// The text of a model: as it is into a pipe or a file, without control characters on a terminal.
pub(crate) struct Screen(Option<Stream>);

impl Screen {
    /// For stdout.
    pub(crate) fn of_stdout() -> Self {
        Self(stdout().is_terminal().then(Stream::default))
    }

    /// What to write of these bytes, which may end inside of a character.
    pub(crate) fn shown<'b>(&mut self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        match &mut self.0 {
            Some(stream) => Cow::Owned(stream.push(bytes).into_bytes()),
            None => Cow::Borrowed(bytes),
        }
    }

    /// What is left at the end.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        self.0.as_mut().map_or_else(Vec::new, |stream| stream.finish().into_bytes())
    }
}

/// What the parser says of a command line with words that a terminal would obey, such as the name of a file that a shell has filled
/// in; `None` when it can print that itself, in colour.
pub(crate) fn harmless(answer: &clap::Error) -> Option<String> {
    let bad = std::env::args_os().any(|word| word.to_string_lossy().chars().any(sink::is_unsafe));
    bad.then(|| sink::message(&answer.render().to_string()) + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_speaks_raw_into_a_pipe_and_tamely_to_a_terminal() {
        let pieces: [&[u8]; 3] = [b"a\x1b[2J", b"\xc3", b"\xa9\n\xff"];
        let said = |mut screen: Screen| {
            let mut all: Vec<u8> = pieces.iter().flat_map(|piece| screen.shown(piece).into_owned()).collect();
            all.extend(screen.rest());
            all
        };
        assert_eq!(said(Screen(None)), pieces.concat());
        assert_eq!(said(Screen(Some(Stream::default()))), "a\\x1b[2Jé\n\\xff".as_bytes());
    }
}
