//! Writes a file with other metadata. Start at [`Edited::write`].

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rwkv_forge_io::{InputFile, OutputFile, OutputOptions, OutputParts, hex};
use rwkv_forge_tensor::{TensorInfo, TensorSource};
use sha2::{Digest, Sha256};

use super::error::EditError;
use super::{Edited, GgufFile};
use crate::error::GgufError;
use crate::header::{alignment, byte_len, padded};
use crate::split::{PartName, part_suffix, split_name};
use crate::types;
use crate::write::HeaderWriter;

/// Bytes that are copied in one step.
const STEP: u64 = 1 << 20;

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The files: one, or the parts in order.
    pub outputs: Vec<PathBuf>,
    /// Bytes of all of them.
    pub bytes: u64,
    /// [`tensors_sha256`] of the old file and of the new one.
    pub tensors_sha256: String,
}

/// One digest for all tensors: the SHA-256 of the lines `DIGEST  NAME` of all tensors in the order of the file, each with the SHA-256 of its bytes.
/// `progress` is called with the number of bytes just read.
///
/// # Errors
/// When a tensor cannot be read.
pub fn tensors_sha256(file: &GgufFile, progress: &(dyn Fn(u64) + Sync)) -> Result<String, EditError> {
    let (mut all, mut buffer) = (Sha256::new(), Vec::new());
    for (index, info) in file.tensors().iter().enumerate() {
        let mut tensor = Sha256::new();
        pieces(byte_len(info)?, &mut buffer, |start, piece| {
            file.read_at(index, start, piece).map_err(EditError::Io)?;
            tensor.update(&*piece);
            progress(u64::try_from(piece.len()).unwrap_or(0));
            Ok(())
        })?;
        all.update(format!("{}  {}\n", hex(&tensor.finalize()), info.name));
    }
    Ok(hex(&all.finalize()))
}

/// Calls with the start of each step, and so many bytes to be filled.
fn pieces(total: u64, buffer: &mut Vec<u8>, mut each: impl FnMut(u64, &mut [u8]) -> Result<(), EditError>) -> Result<(), EditError> {
    let mut done = 0u64;
    while done < total {
        let size = STEP.min(total.saturating_sub(done));
        buffer.resize(usize::try_from(size).unwrap_or(0), 0);
        each(done, buffer)?;
        done = done.saturating_add(size);
    }
    Ok(())
}

/// Where the bytes of a file go that has other metadata.
struct Plan<'f> {
    input: &'f InputFile,
    head: Vec<u8>,
    /// Offset in the old file, in the new one, and bytes of each tensor.
    tensors: Vec<(u64, u64, u64)>,
    len: u64,
}

impl Edited {
    /// Writes the file with these metadata and the same tensors, or its parts, of which the first has the metadata and the others are copied.
    /// `check` looks at what was written, by the name that it has meanwhile, before anything appears; its error leaves nothing behind.
    ///
    /// # Errors
    /// Those of `check`, of reading and of writing; [`EditError::NotKept`] when the tensors or the metadata are others than they should be.
    pub fn write(
        &self,
        file: &GgufFile,
        output: &Path,
        options: &OutputOptions<'_>,
        progress: &(dyn Fn(u64) + Sync),
        check: &mut dyn FnMut(&Path) -> Result<(), EditError>,
    ) -> Result<Rewritten, EditError> {
        let plan = self.plan(file)?;
        // Whoever may not write there need not wait for the digest.
        match file.inputs() {
            [_] => OutputFile::check(output, options)?,
            parts => OutputParts::check(output, &names(output, parts.len())?, options)?,
        }
        let tensors_sha256 = tensors_sha256(file, progress)?;
        let mut seen = |path: &Path| {
            self.look_at(path, &tensors_sha256, progress)?;
            check(path)
        };
        match file.inputs() {
            [_] => {
                let new = OutputFile::create(output, &OutputOptions { expected_bytes: plan.len, ..*options })?;
                plan.write(&new, progress)?;
                seen(new.temp_path())?;
                new.commit()?;
                Ok(Rewritten { outputs: vec![output.to_path_buf()], bytes: plan.len, tensors_sha256 })
            }
            inputs => {
                let (outputs, bytes) = write_parts(&plan, inputs, output, options, progress, &mut seen)?;
                Ok(Rewritten { outputs, bytes, tensors_sha256 })
            }
        }
    }

    /// What was written must be what was to be written.
    fn look_at(&self, path: &Path, tensors: &str, progress: &(dyn Fn(u64) + Sync)) -> Result<(), EditError> {
        // The wishes may have made it unreadable.
        let new = GgufFile::open(path).map_err(|error| EditError::AnotherModel { what: without_path(&error) })?;
        if new.metadata() != &self.metadata {
            return Err(EditError::NotKept("the metadata of the new file are others than were written".to_owned()));
        }
        match tensors_sha256(&new, progress)? {
            found if found == tensors => Ok(()),
            found => Err(EditError::NotKept(format!("the tensors of the new file have the digest {found}, those of the source {tensors}"))),
        }
    }

    /// The first file, or the only one.
    fn plan<'f>(&self, file: &'f GgufFile) -> Result<Plan<'f>, EditError> {
        let none = || GgufError::Internal("a model without files".to_owned());
        let input = file.inputs().first().ok_or_else(none)?;
        let new_alignment = alignment(&self.metadata)?;
        let mut header = HeaderWriter::default();
        for (key, value) in self.metadata.entries() {
            header.value(key, value);
        }
        let (mut offset, mut end, mut tensors) = (0u64, 0u64, Vec::new());
        for (info, from) in file.stored_in(0) {
            header.tensor(info, type_number(info)?, offset);
            let bytes = byte_len(info)?;
            tensors.push((from, offset, bytes));
            end = offset.saturating_add(bytes);
            offset = padded(end, new_alignment, &info.name)?;
        }
        let (head, _) = header.finish(usize::try_from(new_alignment).unwrap_or(usize::MAX));
        let start = u64::try_from(head.len()).unwrap_or(u64::MAX);
        tensors.iter_mut().for_each(|(_, to, _)| *to = to.saturating_add(start));
        let end = start.saturating_add(end);
        // Some programs fill up the last tensor, others do not.
        let old_end = file.stored_in(0).last().map(|(info, from)| byte_len(info).map(|bytes| from.saturating_add(bytes))).transpose()?;
        let len = if old_end == Some(input.len()) { end } else { padded(end, new_alignment, "")? };
        Ok(Plan { input, head, tensors, len })
    }
}

impl Plan<'_> {
    fn write(&self, new: &OutputFile, progress: &(dyn Fn(u64) + Sync)) -> Result<(), EditError> {
        new.set_len(self.len)?;
        new.write_all_at(0, &self.head)?;
        let mut buffer = Vec::new();
        for (from, to, bytes) in &self.tensors {
            pieces(*bytes, &mut buffer, |start, piece| {
                self.input.read_exact_at(from.saturating_add(start), piece)?;
                new.write_all_at(to.saturating_add(start), piece)?;
                progress(u64::try_from(piece.len()).unwrap_or(0));
                Ok(())
            })?;
        }
        Ok(self.input.check_unchanged()?)
    }
}

/// The parts in order, and the bytes of all.
fn write_parts(
    plan: &Plan<'_>,
    inputs: &[InputFile],
    output: &Path,
    options: &OutputOptions<'_>,
    progress: &(dyn Fn(u64) + Sync),
    check: &mut dyn FnMut(&Path) -> Result<(), EditError>,
) -> Result<(Vec<PathBuf>, u64), EditError> {
    let names = names(output, inputs.len())?;
    let (start, count) = (stem(output), names.len());
    let own = |name: &str| PartName::of(Path::new(name)).is_some_and(|part| part.stem == start && part.count == count as u64);
    let lengths: Vec<u64> = inputs.iter().enumerate().map(|(index, input)| if index == 0 { plan.len } else { input.len() }).collect();
    let bytes = lengths.iter().fold(0u64, |all, len| all.saturating_add(*len));
    let parts = OutputParts::create(output, &names, &OutputOptions { expected_bytes: bytes, ..*options }, own)?;
    let files = names.iter().zip(&lengths).map(|(name, len)| parts.file(name, *len)).collect::<Result<Vec<_>, _>>()?;
    for (index, (file, input)) in files.iter().zip(inputs).enumerate() {
        if index == 0 {
            plan.write(file, progress)?;
            continue;
        }
        let mut buffer = Vec::new();
        pieces(input.len(), &mut buffer, |start, piece| {
            input.read_exact_at(start, piece)?;
            file.write_all_at(start, piece)?;
            progress(u64::try_from(piece.len()).unwrap_or(0));
            Ok(())
        })?;
        input.check_unchanged()?;
    }
    let first = names.first().map(|name| parts.temp_path().join(name)).unwrap_or_default();
    check(&first)?;
    parts.commit(files)?;
    Ok((names.iter().map(|name| output.with_file_name(name)).collect(), bytes))
}

/// What the names of the parts begin with: the output's name is that of the whole, or of any part.
fn stem(output: &Path) -> OsString {
    split_name(output).unwrap_or_else(|| output.file_stem().unwrap_or_default().to_os_string())
}

fn names(output: &Path, count: usize) -> Result<Vec<OsString>, EditError> {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    let stem = stem(output);
    if stem.is_empty() {
        return Err(GgufError::Internal(format!("{} is no name of a file", output.display())).into());
    }
    let name = |number| {
        let mut name = stem.clone();
        name.push(part_suffix(number, count));
        name
    };
    Ok((1..=count).map(name).collect())
}

fn type_number(info: &TensorInfo) -> Result<u32, EditError> {
    types::stored_number(info.encoding)
        .ok_or_else(|| GgufError::Internal(format!("tensor {:?} has a type without a number", info.name)).into())
}

/// The error without the name of a file that nobody has seen.
fn without_path(error: &GgufError) -> String {
    if let GgufError::In { source, .. } = error { source.to_string() } else { error.to_string() }
}
