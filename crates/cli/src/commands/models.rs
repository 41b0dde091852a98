//! Opening the models that a command line names. Start at [`Models`].

use std::path::Path;

use rwkv_forge_convert::{OpenFile, OpenModel, OpenOptions, Place};
use rwkv_forge_tensor::BoxError;

use super::open_options;
use crate::args::{Global, KeyArg, SourceArgs};
use crate::failure::Failure;
use crate::terminal::Terminal;

/// Opens the files of one command line, whose `--key` is meant for each of them that has such a key, and for one at least.
pub(crate) struct Models<'a> {
    key: Option<&'a str>,
    options: OpenOptions,
    /// Whether it was the user who allowed holes.
    asked: bool,
    taken: bool,
    missing: Option<BoxError>,
}

impl<'a> Models<'a> {
    /// For a command that computes with weights.
    pub(crate) fn new(args: &'a SourceArgs, global: &Global) -> Self {
        let options = OpenOptions { allow_zero_tensors: args.allow_zero_tensors, ..open_options(global) };
        Self { key: args.key.key.as_deref(), options, asked: args.allow_zero_tensors, taken: false, missing: None }
    }

    /// For a command that asks for sizes and times alone.
    pub(crate) fn unweighed(args: &'a KeyArg, global: &Global) -> Self {
        let options = OpenOptions { allow_zero_tensors: true, ..open_options(global) };
        Self { key: args.key.as_deref(), options, asked: false, taken: false, missing: None }
    }

    /// Opens with the key, or without it what has none. [`Models::finish`] comes after the last.
    pub(crate) fn open_by<T>(&mut self, open: impl Fn(Option<&str>) -> Result<T, BoxError>) -> Result<T, Failure> {
        let error = match open(self.key) {
            Ok(opened) => {
                self.taken = true;
                return Ok(opened);
            }
            Err(error) if self.key.is_some() && error.kind() == "NoSuchKey" => error,
            Err(error) => return Err(error.into()),
        };
        match open(None) {
            Ok(opened) => {
                self.missing.get_or_insert(error);
                Ok(opened)
            }
            // What is said of the key lists what there is.
            Err(_) => Err(error.into()),
        }
    }

    /// Opens a model; [`Models::finish`] comes after the last.
    pub(crate) fn open(&mut self, path: &Path, terminal: &Terminal) -> Result<OpenModel, Failure> {
        self.open_as(terminal, |key, options| rwkv_forge_convert::open_at(&place(path, key), options))
    }

    /// Opens what is made a model by `open`.
    fn open_as(
        &mut self,
        terminal: &Terminal,
        open: impl Fn(Option<&str>, OpenOptions) -> Result<OpenModel, BoxError>,
    ) -> Result<OpenModel, Failure> {
        let options = self.options;
        let model = self.open_by(|key| open(key, options))?;
        if let Some(first) = model.holes().next().filter(|_| self.asked) {
            let more = match model.holes().count() - 1 {
                0 => String::new(),
                more => format!(", and {more} more tensors are like it"),
            };
            terminal.note(&format!("{first}{more}: taken as it is, as asked for"));
        }
        Ok(model)
    }

    /// Opens a file whose tensors need be no model; [`Models::finish`] comes after the last.
    pub(crate) fn open_file(&mut self, path: &Path) -> Result<OpenFile, Failure> {
        let options = self.options;
        self.open_by(|key| rwkv_forge_convert::open_file_at(&place(path, key), options))
    }

    /// Refuses a key that none of the files has.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        match self.missing {
            Some(error) if !self.taken => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn place(path: &Path, key: Option<&str>) -> Place {
    let place = Place::of(path);
    match key {
        Some(key) => place.under(key),
        None => place,
    }
}

/// Opens the one model that a command computes with.
pub(crate) fn open_model(path: &Path, args: &SourceArgs, global: &Global, terminal: &Terminal) -> Result<OpenModel, Failure> {
    let mut models = Models::new(args, global);
    let model = models.open(path, terminal)?;
    models.finish()?;
    Ok(model)
}

/// Opens the one model of a command that merges its own pairs into it, scaled by alpha; `requantize` as for
/// [`rwkv_forge_convert::lora::merge`].
pub(crate) fn open_with_own(
    path: &Path,
    args: &SourceArgs,
    global: &Global,
    terminal: &Terminal,
    (alpha, requantize): (f64, bool),
) -> Result<OpenModel, Failure> {
    let mut models = Models::new(args, global);
    let model =
        models.open_as(terminal, |key, options| rwkv_forge_convert::lora::open_with_own(&place(path, key), options, alpha, requantize))?;
    models.finish()?;
    Ok(model)
}
