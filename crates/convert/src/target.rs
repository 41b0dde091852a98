//! Where a conversion goes: one file, or a directory of files, that take their names only when all is done.

use std::path::Path;

use rwkv_forge_io::{OutputDirectory, OutputFile, OutputOptions};
use rwkv_forge_model::{FileLayout, OutputLayout};
use rwkv_forge_tensor::BoxError;

use crate::container::Container;

/// An output under construction.
pub(crate) struct Target<'a> {
    directory: Option<OutputDirectory>,
    files: Vec<(&'a FileLayout, OutputFile)>,
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
            OutputLayout::File(layout) => Ok(Self { directory: None, files: vec![(layout, OutputFile::create(output, options)?)] }),
            OutputLayout::Directory(named) => {
                let directory = OutputDirectory::create(output, options, |name| container.writes(name))?;
                let files = named.iter().map(|(name, layout)| Ok((layout, directory.file(name, layout.total_bytes)?))).collect::<Result<
                    _,
                    BoxError,
                >>(
                )?;
                Ok(Self { directory: Some(directory), files })
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
            OutputLayout::File(_) => Ok(OutputFile::check(output, options)?),
            OutputLayout::Directory(_) => Ok(OutputDirectory::check(output, options, &|name| container.writes(name))?),
        }
    }

    /// Runs something for every file, in order.
    pub(crate) fn each_file(&self, mut run: impl FnMut(&FileLayout, &OutputFile) -> Result<(), BoxError>) -> Result<(), BoxError> {
        self.files.iter().try_for_each(|(layout, file)| run(layout, file))
    }

    /// Gives `read` a path at which readers find the output as it will be: a file, or a directory with the files under
    /// their final names.
    pub(crate) fn staged<T>(&self, read: impl FnOnce(&Path) -> Result<T, BoxError>) -> Result<T, BoxError> {
        match (&self.directory, self.files.first()) {
            (Some(directory), _) => read(directory.temp_path()),
            (None, Some((_, file))) => read(file.temp_path()),
            (None, None) => Err(crate::ConvertError::Internal("an output without files".to_owned()).into()),
        }
    }

    /// Gives everything its name.
    pub(crate) fn commit(self) -> Result<(), BoxError> {
        let Some(directory) = self.directory else {
            return self.files.into_iter().try_for_each(|(_, file)| Ok(file.commit()?));
        };
        Ok(directory.commit(self.files.into_iter().map(|(_, file)| file).collect())?)
    }
}
