//! The models in a folder: files that are one by themselves, and sets of files that are one together. Start at [`ModelsIn::of`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rwkv_forge_io::{InputFile, IoError};
use rwkv_forge_tensor::BoxError;

use crate::format::{Claim, Format};
use crate::head::{ADAPTER_MODEL, Head};

/// How the name of an index of shards ends.
const INDEX: &str = ".index.json";
/// Most bytes of an index that are looked at for the names of its shards.
const MAX_INDEX_BYTES: u64 = 1 << 28;
/// How the file is called that has the state which the model in the file of the same stem starts from.
const STATE: &str = ".state.pth";
/// The two names under which the Hub has one model in two formats, the one that is read first.
const PUBLISHED: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// One file, or all that are one model together.
#[derive(Clone, Debug)]
pub(crate) struct OneModel {
    /// What it has in common: the name of the file, or that of the whole whose shards they are.
    key: String,
    /// Its name without what tells shards and formats apart.
    stem: String,
    /// The file by which it is opened: the index, the only file, or the first of the set.
    pub(crate) name: String,
    /// The index that is missing, for shards that have none.
    pub(crate) lacks: Option<String>,
}

/// The models of a folder, in the order of their names.
#[derive(Debug, Default)]
pub(crate) struct ModelsIn {
    pub(crate) models: Vec<OneModel>,
    /// What lies beside them and is not read, for whoever takes the one model.
    pub(crate) notes: Vec<String>,
}

/// What a file of a set is called: `STEM-00001-of-00003.ENDING`.
struct Shard<'a> {
    stem: &'a str,
    count: &'a str,
    ending: &'a str,
}

impl<'a> Shard<'a> {
    fn of(name: &'a str) -> Option<Self> {
        let (whole, ending) = name.rsplit_once('.')?;
        let (rest, count) = whole.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let is_number = |text: &str| text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
        (is_number(number) && is_number(count) && !stem.is_empty()).then_some(Self { stem, count, ending })
    }

    /// The whole that it is a part of: `STEM.ENDING`.
    fn whole(&self) -> String {
        format!("{}.{}", self.stem, self.ending)
    }

    /// Whether its format keeps all of a set in an index, and it is not the only one.
    fn needs_index(&self) -> bool {
        let is_of = |ending: &str| self.ending.eq_ignore_ascii_case(ending);
        (is_of("safetensors") || is_of("bin")) && self.count.trim_start_matches('0') != "1"
    }
}

/// The index that is missing beside a file that is called as one of several: `model.safetensors.index.json` for
/// `model-00001-of-00003.safetensors`. `None` for other names, and where the index is there.
///
/// ```
/// use rwkv_forge_container::missing_index;
/// use std::path::Path;
///
/// let missing = missing_index(Path::new("nowhere/model-00001-of-00003.safetensors"));
/// assert_eq!(missing.as_deref(), Some("model.safetensors.index.json"));
/// assert_eq!(missing_index(Path::new("nowhere/model.safetensors")), None);
/// ```
#[must_use]
pub fn missing_index(path: &Path) -> Option<String> {
    let shard = Shard::of(path.file_name()?.to_str()?)?;
    let index = format!("{}{INDEX}", shard.whole());
    (shard.needs_index() && path.with_file_name(&index).symlink_metadata().is_err()).then_some(index)
}

/// What to do where an index is missing, after its name.
pub(crate) const FROM_WHERE: &str = "download it from the repository that the shards are from, into their folder, and give the folder";

/// What an index says, in the place of a model that may have it.
struct Index {
    name: String,
    key: String,
    text: Vec<u8>,
}

impl Index {
    fn names(&self, file: &str) -> bool {
        let quoted = format!("\"{file}\"");
        self.text.windows(quoted.len()).any(|window| window == quoted.as_bytes())
    }
}

impl ModelsIn {
    /// Looks at the files of a folder that by their names may be models: the first bytes of each tell whether it is one.
    ///
    /// # Errors
    /// A failure to read.
    pub(crate) fn of(head: &Head, formats: &[&dyn Format]) -> Result<Self, BoxError> {
        let mut found = Self::default();
        let (mut seen, mut files) = (BTreeSet::new(), Vec::new());
        let is_link = |name: &String| head.path().join(name).symlink_metadata().is_ok_and(|meta| meta.is_symlink());
        let mut called = head.models();
        // Of a file and a link to it the file is meant.
        called.sort_by_cached_key(|name| (is_link(name), name.clone()));
        for name in called {
            let path = head.path().join(&name);
            let file = match Head::read(&path) {
                // A link that leads nowhere is no model that could be meant.
                Err(IoError::NotFound { .. }) => continue,
                file => file?,
            };
            let is_model = |format: &&dyn Format| format.recognise(&file) == Some(Claim::Bytes) && !format.is_companion(&file);
            if !file.is_directory() && formats.iter().any(is_model) && seen.insert(real(&path)) {
                files.push(name);
            }
        }
        files.sort();
        let indices = if files.len() > 1 || files.iter().any(|name| Shard::of(name).is_some()) { indices(head)? } else { Vec::new() };
        for name in &files {
            found.add(one_of(name, &indices));
        }
        found.without_states(&files);
        found.without_published_twice();
        found.notes.extend(head.adapters().into_iter().map(|name| {
            format!("{name} beside the model is an adapter, which is not merged: --lora with the folder of an adapter does that")
        }));
        Ok(found)
    }

    /// The models' names, for whoever must name one.
    pub(crate) fn names(&self) -> Vec<String> {
        self.models.iter().map(|model| model.name.clone()).collect()
    }

    fn add(&mut self, model: OneModel) {
        if !self.models.iter().any(|known| known.key == model.key) {
            self.models.push(model);
        }
    }

    /// A state that `convert` has written beside its output belongs to that.
    fn without_states(&mut self, files: &[String]) {
        let stems: Vec<String> = self.models.iter().map(|model| model.stem.clone()).collect();
        self.models.retain(|model| {
            let whose = model.name.len().checked_sub(STATE.len()).and_then(|at| Some((model.name.get(..at)?, model.name.get(at..)?)));
            let is_state =
                |(stem, end): (&str, &str)| end.eq_ignore_ascii_case(STATE) && files.len() > 1 && stems.iter().any(|other| other == stem);
            !whose.is_some_and(is_state)
        });
    }

    /// What the Hub has of one model in two formats is one model.
    fn without_published_twice(&mut self) {
        let [first, second] = PUBLISHED;
        if !self.models.iter().any(|model| model.key == first) {
            return;
        }
        if let Some(at) = self.models.iter().position(|model| model.key == second) {
            let other = self.models.remove(at).name;
            self.notes.push(format!("{other} in the same folder is taken for the same model in another format, and not read: {first} is"));
        }
    }
}

/// Where a file really lies, so that a link beside it is no second model.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

/// The indices of shards of a folder.
fn indices(head: &Head) -> Result<Vec<Index>, BoxError> {
    let is_index = |name: &str| name.ends_with(".safetensors.index.json") || name.ends_with(".bin.index.json");
    let mut all = Vec::new();
    for name in rwkv_forge_io::names_in(head.path(), is_index)? {
        let file = match InputFile::open(&head.path().join(&name)) {
            Err(IoError::NotFound { .. }) => continue,
            file => file?,
        };
        let text = file.read_vec(0, file.len().min(MAX_INDEX_BYTES), MAX_INDEX_BYTES)?;
        all.push(Index { key: name.trim_end_matches(INDEX).to_owned(), name, text });
    }
    Ok(all)
}

/// The model that a file is, or is a part of.
fn one_of(name: &str, indices: &[Index]) -> OneModel {
    let shard = Shard::of(name);
    let whole = shard.as_ref().map_or_else(|| name.to_owned(), Shard::whole);
    let stem = whole.rsplit_once('.').map_or(whole.as_str(), |(stem, _)| stem).to_owned();
    if let Some(index) = indices.iter().find(|index| index.key == whole || index.names(name)) {
        return OneModel { key: index.key.clone(), stem, name: index.name.clone(), lacks: None };
    }
    let key = shard.as_ref().map_or_else(|| name.to_owned(), |shard| format!("{whole} of {}", shard.count));
    let lacks = shard.filter(Shard::needs_index).map(|shard| format!("{}{INDEX}", shard.whole()));
    OneModel { key, stem, name: name.to_owned(), lacks }
}

impl Head {
    /// Files of a directory that are adapters of PEFT's.
    fn adapters(&self) -> Vec<String> {
        let is_adapter = |name: &str| name.starts_with(ADAPTER_MODEL) && (name.ends_with(".safetensors") || name.ends_with(".bin"));
        rwkv_forge_io::names_in(self.path(), is_adapter).unwrap_or_default()
    }
}
