//! Where a conversion goes: one file, or a directory of files, that take their names only when all is done.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rwkv_forge_io::{OutputDirectory, OutputFile, OutputOptions, OutputParts};
use rwkv_forge_model::{FileLayout, OutputLayout};
use rwkv_forge_tensor::BoxError;

use crate::container::Container;

/// An output under construction.
pub(crate) struct Target<'a> {
    place: Place,
    files: Vec<(&'a FileLayout, OutputFile)>,
}

/// What the files lie in until they take their names.
enum Place {
    Alone,
    Directory(OutputDirectory),
    Parts(OutputParts),
}

/// Of a directory without a list of what was written into it nothing is ours: other programs call their files the same, so that a
/// `tokenizer.json` in it may be the only one that somebody has.
const LISTED_ALONE: fn(&str) -> bool = |_| false;

/// The paths that an output of this name is made of: its own, or those of its parts.
pub(crate) fn paths(output: &Path, layout: &OutputLayout, container: &dyn Container) -> Vec<PathBuf> {
    match layout {
        OutputLayout::File(_) | OutputLayout::Directory(_) => vec![output.to_path_buf()],
        OutputLayout::Parts(parts) => part_names(output, parts, container).into_iter().map(|name| output.with_file_name(name)).collect(),
    }
}

/// What the names of all parts begin with: the output's without the container's extension.
fn stem<'o>(output: &'o Path, container: &dyn Container) -> &'o OsStr {
    let whole = output.extension().is_some_and(|extension| extension == container.extension());
    let stem = if whole { output.file_stem() } else { output.file_name() };
    stem.unwrap_or_default()
}

fn part_names(output: &Path, parts: &[(String, FileLayout)], container: &dyn Container) -> Vec<OsString> {
    let stem = stem(output, container);
    let name = |(suffix, _): &(String, FileLayout)| [stem, OsStr::new(suffix)].into_iter().collect();
    parts.iter().map(name).collect()
}

impl<'a> Target<'a> {
    /// Creates the temporary file or directory: the earliest failure of an output that cannot be.
    pub(crate) fn create(
        output: &Path,
        layout: &'a OutputLayout,
        container: &'static dyn Container,
        options: &OutputOptions<'_>,
    ) -> Result<Self, BoxError> {
        match layout {
            OutputLayout::File(layout) => Ok(Self { place: Place::Alone, files: vec![(layout, OutputFile::create(output, options)?)] }),
            OutputLayout::Directory(named) => {
                OutputDirectory::check(output, options, &LISTED_ALONE)?;
                let directory = OutputDirectory::create(output, options, |name| container.writes(name))?;
                let files = named.iter().map(|(name, layout)| Ok((layout, directory.file(name, layout.total_bytes)?))).collect::<Result<
                    _,
                    BoxError,
                >>(
                )?;
                Ok(Self { place: Place::Directory(directory), files })
            }
            OutputLayout::Parts(layouts) => {
                let names = part_names(output, layouts, container);
                let (start, end) = (format!("{}-", stem(output, container).to_string_lossy()), format!(".{}", container.extension()));
                let parts = OutputParts::create(output, &names, options, |name| name.starts_with(&start) && name.ends_with(&end))?;
                let file = |(name, (_, layout)): (&OsString, &'a (String, FileLayout))| Ok((layout, parts.file(name, layout.total_bytes)?));
                let files = names.iter().zip(layouts).map(file).collect::<Result<_, BoxError>>()?;
                Ok(Self { place: Place::Parts(parts), files })
            }
        }
    }

    /// Checks and claims the output's name alone.
    pub(crate) fn check(
        output: &Path,
        layout: &OutputLayout,
        container: &dyn Container,
        options: &OutputOptions<'_>,
    ) -> Result<(), BoxError> {
        match layout {
            OutputLayout::File(_) => OutputFile::check(output, options)?,
            OutputLayout::Directory(_) => OutputDirectory::check(output, options, &LISTED_ALONE)?,
            OutputLayout::Parts(parts) => OutputParts::check(output, &part_names(output, parts, container), options)?,
        }
        Ok(rwkv_forge_io::has_folder(output)?)
    }

    /// Runs something for every file, in order.
    pub(crate) fn each_file(&self, mut run: impl FnMut(&FileLayout, &OutputFile) -> Result<(), BoxError>) -> Result<(), BoxError> {
        self.files.iter().try_for_each(|(layout, file)| run(layout, file))
    }

    /// Gives `read` a path at which readers find the output as it will be: a file, a directory with the files under
    /// their final names, or the first of several parts under theirs.
    pub(crate) fn staged<T>(&self, read: impl FnOnce(&Path) -> Result<T, BoxError>) -> Result<T, BoxError> {
        match (&self.place, self.files.first()) {
            (Place::Directory(directory), _) => read(directory.temp_path()),
            // A file of a directory has its final name from the beginning.
            (Place::Alone | Place::Parts(_), Some((_, file))) => read(file.temp_path()),
            (Place::Alone | Place::Parts(_), None) => Err(crate::ConvertError::Internal("an output without files".to_owned()).into()),
        }
    }

    /// Whether the one file still lies under the name of its temporary.
    pub(crate) fn is_renamed_later(&self) -> bool {
        match self.place {
            Place::Alone => true,
            Place::Directory(_) | Place::Parts(_) => false,
        }
    }

    /// Gives everything its name.
    pub(crate) fn commit(self) -> Result<(), BoxError> {
        let mut files = self.files.into_iter().map(|(_, file)| file);
        match self.place {
            Place::Alone => files.try_for_each(|file| Ok(file.commit()?)),
            Place::Directory(directory) => Ok(directory.commit(files.collect())?),
            Place::Parts(parts) => Ok(parts.commit(files.collect())?),
        }
    }
}
