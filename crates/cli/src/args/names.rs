//! Names as values of options: [`Names`] of a registry, and [`Choice`] of a few that the command line itself knows.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, PossibleValuesParser, StringValueParser, TypedValueParser};
use clap::error::Error;
use clap::{Arg, Command};

/// A name of a registry. Help and completions show those that there are; any other is handed on, since the registry answers it better than
/// the parser of the command line: in either case, by other names, with what was probably meant.
#[derive(Clone)]
pub(crate) struct Names(Vec<PossibleValue>);

impl Names {
    pub(crate) fn new(known: impl IntoIterator<Item = PossibleValue>) -> Self {
        Self(known.into_iter().collect())
    }
}

impl TypedValueParser for Names {
    type Value = String;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<String, Error> {
        StringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().cloned()))
    }
}

/// One of these names, typed in letters of either case or as one of its other names; the value is the name as it stands here.
#[derive(Clone)]
pub(crate) struct Choice(Vec<PossibleValue>);

impl Choice {
    pub(crate) fn of(known: impl IntoIterator<Item = impl Into<PossibleValue>>) -> Self {
        Self(known.into_iter().map(Into::into).collect())
    }
}

impl TypedValueParser for Choice {
    type Value = String;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<String, Error> {
        let typed = value.to_string_lossy();
        match self.0.iter().find(|known| known.matches(typed.trim(), true)) {
            Some(known) => Ok(known.get_name().to_owned()),
            None => PossibleValuesParser::new(self.0.clone()).parse_ref(command, arg, value),
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().cloned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_the_name_that_it_stands_for() {
        let choice = Choice::of([PossibleValue::new("ggml"), PossibleValue::new("web-rwkv").alias("ai00")]);
        let parsed = |text: &str| choice.parse_ref(&Command::new("test"), None, OsStr::new(text));
        for (typed, want) in [("ggml", "ggml"), ("GGML", "ggml"), ("Ai00", "web-rwkv"), (" Web-RWKV", "web-rwkv")] {
            assert_eq!(parsed(typed).ok().as_deref(), Some(want), "{typed}");
        }
        assert!(parsed("ggm").is_err());
    }
}
