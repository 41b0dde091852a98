//! Names that a registry looks up: [`Names`].

use std::ffi::OsStr;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
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
