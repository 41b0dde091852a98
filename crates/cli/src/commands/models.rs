//! Opening the models that a command line names. Start at [`Models`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rwkv_forge_convert::{OpenFile, OpenModel, OpenOptions, Place};
use rwkv_forge_tensor::BoxError;

use super::{open_options, shown};
use crate::args::{Global, KeyArg, SourceArgs};
use crate::failure::Failure;
use crate::terminal::Terminal;

/// Opens the files of one command line. Each `--key` is meant for every file that has such a key, and for one at least; a file takes the
/// first that it has.
pub(crate) struct Models<'a> {
    keys: &'a [String],
    options: OpenOptions,
    /// Whether it was the user who allowed holes.
    asked: bool,
    taken: BTreeSet<&'a str>,
    /// What a file without it says of a key: the first that lists keys of its own, else the first.
    missing: BTreeMap<&'a str, BoxError>,
    /// Notes about files that are opened for several models.
    noted: BTreeSet<String>,
}

/// How the refusal of a key begins the list of those that a file has.
const LISTS_KEYS: &str = "name one with --key: ";

impl<'a> Models<'a> {
    /// For a command that computes with weights.
    pub(crate) fn new(args: &'a SourceArgs, global: &Global) -> Self {
        let options = OpenOptions { allow_zero_tensors: args.allow_zero_tensors, ..open_options(global) };
        Self { asked: args.allow_zero_tensors, options, ..Self::unweighed(&args.key, global) }
    }

    /// For a command that asks for sizes and times alone.
    pub(crate) fn unweighed(args: &'a KeyArg, global: &Global) -> Self {
        let options = OpenOptions { allow_zero_tensors: true, ..open_options(global) };
        Self { keys: &args.keys, options, asked: false, taken: BTreeSet::new(), missing: BTreeMap::new(), noted: BTreeSet::new() }
    }

    /// Opens with the first key that there is, or without one what has none. [`Models::finish`] comes after the last.
    pub(crate) fn open_by<T>(&mut self, open: impl Fn(Option<&str>) -> Result<T, BoxError>) -> Result<T, Failure> {
        let mut refused: Vec<(&'a str, BoxError)> = Vec::new();
        for key in self.keys {
            match open(Some(key)) {
                Ok(opened) => {
                    self.taken.insert(key);
                    return Ok(opened);
                }
                Err(error) if error.kind() == "NoSuchKey" => refused.push((key, error)),
                Err(error) => return Err(error.into()),
            }
        }
        match open(None) {
            Ok(opened) => {
                for (key, error) in refused {
                    self.keep(key, error);
                }
                Ok(opened)
            }
            // What this file says of the key lists what there is in it.
            Err(error) if error.kind() == "NotAStateDict" => Err(refused.into_iter().next().map_or(error, |(_, missing)| missing).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Remembers why a file has not been read under a key. Whoever mistyped it meant a file that has keys.
    fn keep(&mut self, key: &'a str, error: BoxError) {
        let lists = |error: &BoxError| error.to_string().contains(LISTS_KEYS);
        match self.missing.get(key) {
            Some(known) if lists(known) || !lists(&error) => {}
            Some(_) | None => {
                self.missing.insert(key, error);
            }
        }
    }

    /// A note that is said once, however many models it is about.
    pub(crate) fn note_once(&mut self, note: String, terminal: &Terminal) {
        if !self.noted.contains(&note) {
            terminal.note(&note);
            self.noted.insert(note);
        }
    }

    /// Opens a model; [`Models::finish`] comes after the last.
    pub(crate) fn open(&mut self, path: &Path, terminal: &Terminal) -> Result<OpenModel, Failure> {
        self.open_as(path, terminal, |key, options| rwkv_forge_convert::open_at(&place(path, key), options))
    }

    /// Opens what is made a model by `open`.
    fn open_as(
        &mut self,
        path: &Path,
        terminal: &Terminal,
        open: impl Fn(Option<&str>, OpenOptions) -> Result<OpenModel, BoxError>,
    ) -> Result<OpenModel, Failure> {
        let options = self.options;
        let model = self.open_by(|key| open(key, options))?;
        if let Some(name) = model.file.only() {
            terminal.note(&format!("the model of {} is {}, the only one in it", shown(path), shown(Path::new(name))));
        }
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
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        let Some(key) = self.keys.iter().find(|key| !self.taken.contains(key.as_str())) else { return Ok(()) };
        match self.missing.remove(key.as_str()) {
            Some(error) => Err(error.into()),
            None => {
                let message =
                    format!("--key {key}: every file has one of the keys before it, so nothing is read under this one: leave it out");
                Err(Failure::usage("NoSuchKey", message))
            }
        }
    }
}

pub(super) fn place(path: &Path, key: Option<&str>) -> Place {
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
    let open = |key: Option<&str>, options| rwkv_forge_convert::lora::open_with_own(&place(path, key), options, alpha, requantize);
    let model = models.open_as(path, terminal, open)?;
    models.finish()?;
    Ok(model)
}
