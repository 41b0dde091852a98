//! The registries as a whole: who reads a file, and who is called what. Start at [`Registry::open`].

use std::path::Path;

use rwkv_forge_tensor::BoxError;

use crate::container::Container;
use crate::error::ContainerError;
use crate::folder::{ModelsIn, OneModel};
use crate::format::{Format, Naming, OpenOptions, Opened, Place};
use crate::head::Head;

/// The container that has this name, or an alias of it, in letters of either case and with any sign or none between words: `llama_cpp`.
#[must_use]
pub fn by_name<'a>(containers: &[&'a dyn Container], name: &str) -> Option<&'a dyn Container> {
    let letters = |name: &str| name.chars().filter(|c| !"-_. ".contains(*c)).collect::<String>().to_lowercase();
    let asked = letters(name);
    let is_it = |known: &&str| letters(known) == asked;
    containers.iter().copied().find(|container| is_it(&container.name()) || container.aliases().iter().any(is_it))
}

/// The container whose files are called like this one: `model.gguf`.
#[must_use]
pub fn by_extension<'a>(containers: &[&'a dyn Container], file: &Path) -> Option<&'a dyn Container> {
    let extension = file.extension()?;
    let is_it = |known: &&str| extension.eq_ignore_ascii_case(known);
    containers.iter().copied().find(|container| is_it(&container.extension()) || container.other_extensions().iter().any(&is_it))
}

/// All formats and namings.
///
/// ```
/// use rwkv_forge_container::{Format, OpenOptions, Place, Registry};
/// # use rwkv_forge_container::{Claim, Head, Opened};
/// # use rwkv_forge_container::Words;
/// # use rwkv_forge_model::{MappedTensor, ModelDescription, ModelFile, Version, map_by_convention};
/// # use rwkv_forge_tensor::{BoxError, TensorSource, Wrapper};
/// # use rwkv_forge_testkit::models::{MemorySource, Sizes, random_model};
/// # struct File(MemorySource);
/// # impl Wrapper for File { fn wrapped(&self) -> &dyn TensorSource { &self.0 } }
/// # impl ModelFile for File {
/// #     fn mapped(&self) -> Result<Vec<MappedTensor>, BoxError> { Ok(map_by_convention(self.tensors())?) }
/// # }
/// # impl Opened for File {
/// #     fn words(&self, _model: &ModelDescription) -> Result<Words, BoxError> { Ok(Words::default()) }
/// # }
/// # struct Begins(&'static str);
/// # impl Format for Begins {
/// #     fn name(&self) -> &'static str { self.0 }
/// #     fn recognise(&self, head: &Head) -> Option<Claim> { head.start().starts_with(self.0.as_bytes()).then_some(Claim::Bytes) }
/// #     fn open(&self, _: &Place, _: OpenOptions) -> Result<Box<dyn Opened>, BoxError> {
/// #         Ok(Box::new(File(random_model(Version::V7, &Sizes::TINY, 1))))
/// #     }
/// # }
/// # const NOTES: Begins = Begins("NOTE");
/// # const OTHER: Begins = Begins("OTHER");
///
/// # let folder = std::env::temp_dir();
/// # let path = folder.join(format!("rwkv-forge-registry-{}", std::process::id()));
/// // `NOTES` and `OTHER` know files by the words at their beginning.
/// let registry = Registry { formats: &[&NOTES, &OTHER], namings: &[] };
/// std::fs::write(&path, "NOTE 1").unwrap();
/// let found = registry.open(&Place::of(&path), OpenOptions::default())?;
/// assert_eq!(found.format.name(), "NOTE");
/// assert!(!found.file.tensors().is_empty());
///
/// // What nobody knows is an error that says who was asked.
/// std::fs::write(&path, "something else").unwrap();
/// let error = registry.open(&Place::of(&path), OpenOptions::default()).err().expect("nobody claims it");
/// assert!(error.to_string().contains("NOTE, OTHER"));
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), rwkv_forge_tensor::BoxError>(())
/// ```
#[derive(Clone, Copy)]
pub struct Registry<'a> {
    /// Formats: their order decides nothing but the order of messages.
    pub formats: &'a [&'a dyn Format],
    /// Namings, likewise.
    pub namings: &'a [&'a dyn Naming],
}

/// What [`Registry::open`] has opened.
pub struct Found<'a> {
    /// Its format.
    pub format: &'a dyn Format,
    /// The file.
    pub file: Box<dyn Opened>,
    /// The name of the one model in a directory that no format knows as a whole, which that then stands for.
    pub only: Option<String>,
    /// What lies beside the model in a directory and is not read, where somebody may think otherwise.
    pub notes: Vec<String>,
}

/// What stands for a directory.
#[derive(Default)]
struct Chosen {
    only: Option<String>,
    notes: Vec<String>,
}

impl<'a> Registry<'a> {
    /// The format of a file.
    ///
    /// # Errors
    /// [`ContainerError::Unrecognised`] with the formats that there are, [`ContainerError::Ambiguous`], or a failure to read.
    pub fn format_of(&self, path: &Path) -> Result<&'a dyn Format, BoxError> {
        let head = Head::read(path)?;
        let claims: Vec<_> = self.formats.iter().filter_map(|format| Some((format.recognise(&head)?, *format))).collect();
        let strongest = claims.iter().map(|(claim, _)| *claim).max();
        let best: Vec<&dyn Format> = claims.into_iter().filter(|(claim, _)| Some(*claim) == strongest).map(|(_, format)| format).collect();
        match best.as_slice() {
            [format] => Ok(*format),
            [] => Err(self.unrecognised(path, head.looks())),
            several => {
                let remedy = if head.is_directory() { "give the path of the one file that is meant" } else { "make it anew" };
                let claimants = names(several.iter().map(|format| format.name()));
                Err(ContainerError::Ambiguous { path: path.to_path_buf(), claimants, remedy }.into())
            }
        }
    }

    /// What the model of a directory is: the only one in it, one file or one set of files, as a download leaves it. Nothing for a file, and
    /// where there is none.
    ///
    /// # Errors
    /// [`ContainerError::Unrecognised`] for several models, and for shards without an index; a failure to read.
    fn model_in(&self, directory: &Path) -> Result<Chosen, BoxError> {
        let head = Head::read(directory)?;
        let is_known = self.formats.iter().any(|format| format.recognise(&head).is_some());
        if !head.is_directory() || (!is_known && head.is_of_something_else()) {
            return Ok(Chosen::default());
        }
        let ModelsIn { models, notes } = match ModelsIn::of(&head, self.formats)? {
            found if found.models.len() > 1 => return Err(self.unrecognised(directory, Head::several(&found.names()))),
            found => found,
        };
        match models.into_iter().next() {
            None => Ok(Chosen::default()),
            Some(_) if is_known => Ok(Chosen { only: None, notes }),
            Some(OneModel { lacks: Some(index), .. }) => Err(self.unrecognised(directory, Head::lacks(&index))),
            Some(OneModel { name, .. }) => Ok(Chosen { only: Some(name), notes }),
        }
    }

    fn unrecognised(&self, path: &Path, found: String) -> BoxError {
        let known = self.formats.iter().map(|format| format.called()).collect::<Vec<_>>().join(", ");
        ContainerError::Unrecognised { path: path.to_path_buf(), found, known }.into()
    }

    /// Opens a file by its bytes, and finds out whose names it has. A directory that no format knows stands for the one model in it; one
    /// with several is refused.
    ///
    /// # Errors
    /// As [`Registry::format_of`], failures to read a directory, and the reader's own.
    pub fn open(&self, place: &Place, options: OpenOptions) -> Result<Found<'a>, BoxError> {
        let Chosen { only, notes } = self.model_in(place.path())?;
        let inside = only.as_ref().map(|name| place.inside(name));
        let place = inside.as_ref().unwrap_or(place);
        let format = self.format_of(place.path())?;
        if let Some(key) = place.key().filter(|_| !format.has_keys()) {
            let key = rwkv_forge_tensor::shorten(key);
            return Err(ContainerError::NoKeys { path: place.path().to_path_buf(), format: format.name(), key }.into());
        }
        let file = format.open(place, options)?;
        // Names are what registered things are told apart by: each is there once.
        let namings = self.namings.iter().filter(|naming| naming.format().name() == format.name());
        let found: Vec<&&dyn Naming> = namings.filter(|naming| naming.recognise(file.as_ref())).collect();
        match found.as_slice() {
            [] => Ok(Found { format, file, only, notes }),
            [naming] => Ok(Found { format, file: naming.apply(file), only, notes }),
            several => {
                let claimants = names(several.iter().map(|naming| naming.name()));
                let remedy = "its metadata contradict each other; make it anew";
                Err(ContainerError::Ambiguous { path: place.path().to_path_buf(), claimants, remedy }.into())
            }
        }
    }
}

fn names<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}
