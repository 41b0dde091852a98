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
/// first under which it has what it is opened for.
pub(crate) struct Models<'a> {
    keys: &'a [String],
    options: OpenOptions,
    /// Whether it was the user who allowed holes.
    asked: bool,
    taken: BTreeSet<&'a str>,
    /// What the files without it say of a key.
    missing: BTreeMap<&'a str, Vec<BoxError>>,
    /// Notes about files that are opened for several models.
    noted: BTreeSet<String>,
}

/// How the refusal of a key begins the list of those that a file has.
const LISTS_KEYS: &str = "name one with --key: ";
/// The kind of what is refused as something else than a model.
const NO_MODEL: &str = "UnsupportedArchitecture";
/// Files whose words about a key that none has are repeated.
const REPEATED: usize = 4;

/// Which model of a folder was taken, and what lies beside it.
pub(super) fn note_folder(path: &Path, file: &OpenFile, terminal: &Terminal) {
    if let Some(name) = file.only() {
        terminal.note(&format!("the model of {} is {}, the only one in it", shown(path), shown(Path::new(name))));
    }
    for note in file.notes() {
        terminal.note(note);
    }
}

/// The keys that a refusal lists.
fn listed(message: &str) -> impl Iterator<Item = &str> {
    message.split(LISTS_KEYS).nth(1).unwrap_or_default().split('`').skip(1).step_by(2)
}

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

    /// Opens with the first key under which there is what is looked for, or without one what has none. [`Models::finish`] comes after the
    /// last.
    pub(crate) fn open_by<T>(&mut self, open: impl Fn(Option<&str>) -> Result<T, BoxError>) -> Result<T, Failure> {
        let mut refused: Vec<(&'a str, BoxError)> = Vec::new();
        let mut opened = None;
        for key in self.keys {
            match open(Some(key)) {
                Ok(found) => {
                    self.taken.insert(key);
                    opened = Some(found);
                    break;
                }
                // Nothing is there, or an adapter or a state in the place of a model.
                Err(error) if ["NoSuchKey", NO_MODEL].contains(&error.kind()) => refused.push((key, error)),
                Err(error) => return Err(error.into()),
            }
        }
        let opened = match opened {
            Some(found) => found,
            None => match open(None) {
                Ok(found) => found,
                Err(error) if error.kind() == "NotAStateDict" => return Err(self.unopened(refused, error)),
                Err(error) => return Err(error.into()),
            },
        };
        for (key, error) in refused {
            self.missing.entry(key).or_default().push(error);
        }
        Ok(opened)
    }

    /// Why a file that needs a key is not opened: what it says of the first one lists what there is in it.
    fn unopened(&self, refused: Vec<(&'a str, BoxError)>, without: BoxError) -> Failure {
        let Some((key, first)) = refused.into_iter().next() else { return without.into() };
        let said = without.to_string();
        let is_other = |name: &str| !self.keys.iter().any(|key| key == name);
        if first.kind() == NO_MODEL && listed(&said).any(is_other) {
            let first = Failure::from(first);
            return Failure { message: format!("under the key `{}`: {}; {said}", key.escape_default(), first.message), ..first };
        }
        first.into()
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
        note_folder(path, &model.file, terminal);
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
        let mut said: Vec<Failure> = self.missing.remove(key.as_str()).into_iter().flatten().map(Failure::from).collect();
        // Whoever mistyped it meant a file that has keys.
        if said.iter().any(|failure| failure.message.contains(LISTS_KEYS)) {
            said.retain(|failure| failure.message.contains(LISTS_KEYS));
        }
        said.dedup_by(|one, other| one.message == other.message);
        let messages: Vec<&str> = said.iter().take(REPEATED).map(|failure| failure.message.as_str()).collect();
        let message = messages.join("; ");
        match said.into_iter().next() {
            Some(first) => Err(Failure { message, ..first }),
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
