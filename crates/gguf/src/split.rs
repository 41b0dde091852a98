//! A model in several files: `NAME-00001-of-00003.gguf` and its like, as llama.cpp's gguf-split names and marks them. Start at [`Split`]
//! for what a file says of it, at [`PartName`] for what its name says.
//!
//! Every part says which one it is, of how many, and how many tensors all of them have; the first alone has the model's metadata. Tensors stand
//! in the order of the whole file. A merged file keeps the keys, with a count of 0.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rwkv_forge_container::Value;

use crate::error::GgufError;
use crate::value::Metadata;

/// Number of the part, from 0.
pub(crate) const NUMBER: &str = "split.no";
/// Number of all parts.
pub(crate) const COUNT: &str = "split.count";
/// Number of the tensors of all parts.
pub(crate) const TENSORS: &str = "split.tensors.count";
/// Most parts of a model. Each is an open file.
pub(crate) const MAX_PARTS: u64 = 1000;
/// Missing parts that a message names.
const SHOWN: usize = 3;

/// What the name of a part ends with.
const EXTENSION: &[u8] = b".gguf";
/// What stands between its numbers, without the sign before the second.
const OF: &[u8] = b"-of";
/// Digits of a number in a name.
const DIGITS: usize = 5;

/// The end of the name of a part; `number` is from 1.
#[must_use]
pub fn part_suffix(number: u64, count: u64) -> String {
    format!("-{number:05}-of-{count:05}.gguf")
}

/// What a model is called whose part has this name: `m` for `m-00001-of-00003.gguf`. `None` for all other names.
#[must_use]
pub fn split_name(path: &Path) -> Option<OsString> {
    PartName::of(path).map(|name| name.stem)
}

/// The name of a part, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartName {
    /// What all parts begin with.
    pub(crate) stem: OsString,
    /// Number of the part, from 1.
    pub(crate) number: u64,
    /// Number of all parts.
    pub(crate) count: u64,
    /// `-of-` and `.gguf` as this name has them: in letters of either case, which all parts share.
    spelled: [OsString; 2],
}

impl PartName {
    /// `None` for a name that is none of a part.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let (name, extension) = without(path.file_name()?.as_bytes(), EXTENSION)?;
        let (rest, count) = number(name)?;
        let (rest, of) = without(rest, OF)?;
        let (rest, number) = number(rest)?;
        let is_one = !rest.is_empty() && (1..=count).contains(&number);
        let spelled = [of, extension].map(|text| OsString::from_vec(text.to_vec()));
        is_one.then(|| Self { stem: OsString::from_vec(rest.to_vec()), number, count, spelled })
    }

    /// The name of another part of the same model, from 1.
    pub(crate) fn part(&self, number: u64) -> OsString {
        let mut name = self.stem.clone();
        let [of, extension] = &self.spelled;
        name.push(format!("-{number:05}"));
        name.push(of);
        name.push(format!("-{:05}", self.count));
        name.push(extension);
        name
    }
}

/// What stands before an end in letters of either case, and that end as it is.
fn without<'n>(name: &'n [u8], end: &[u8]) -> Option<(&'n [u8], &'n [u8])> {
    let (rest, found) = name.split_at_checked(name.len().checked_sub(end.len())?)?;
    found.eq_ignore_ascii_case(end).then_some((rest, found))
}

/// What stands before `-NNNNN`, and the number.
fn number(name: &[u8]) -> Option<(&[u8], u64)> {
    let (rest, digits) = name.split_at_checked(name.len().checked_sub(DIGITS)?)?;
    let rest = rest.strip_suffix(b"-")?;
    let all = digits.iter().all(u8::is_ascii_digit);
    let value = std::str::from_utf8(digits).ok()?.parse().ok()?;
    all.then_some((rest, value))
}

/// What the metadata of a file say of the parts of its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    /// Number of the part, from 0.
    pub(crate) number: u64,
    /// Number of all parts.
    pub(crate) count: u64,
    /// Number of the tensors of all parts.
    pub(crate) tensors: u64,
}

impl Split {
    /// `None` for a file that is whole: it says nothing, or was merged, or is the only part.
    pub(crate) fn of(metadata: &Metadata) -> Result<Option<Self>, GgufError> {
        let number = metadata.u64(NUMBER)?;
        let why = || format!("{NUMBER} is {}", number.unwrap_or(0));
        match metadata.u64(COUNT)? {
            None if number.is_none_or(|number| number == 0) => Ok(None),
            None => Err(GgufError::MissingKey { key: COUNT.into(), why: why() }),
            Some(0 | 1) => match number {
                None | Some(0) => Ok(None),
                Some(number) => Err(contradiction(NUMBER, number, "the number of the only part", 0)),
            },
            Some(count) if count > MAX_PARTS => Err(GgufError::TooManyParts { count, most: MAX_PARTS }),
            Some(count) => {
                let why = format!("{COUNT} is {count}");
                let number = metadata.require_u64(NUMBER, &why)?;
                let tensors = metadata.require_u64(TENSORS, &why)?;
                if number >= count {
                    return Err(contradiction(NUMBER, number, "the number of the last part", count.saturating_sub(1)));
                }
                Ok(Some(Self { number, count, tensors }))
            }
        }
    }

    /// The name of this part must say what the part says: the others are found by it.
    pub(crate) fn name(&self, path: &Path) -> Result<PartName, GgufError> {
        let name = PartName::of(path);
        let number = self.number.saturating_add(1);
        let stem = name.as_ref().map_or_else(|| path.file_stem().unwrap_or(OsStr::new("NAME")), |name| name.stem.as_os_str());
        let wrong = GgufError::PartName {
            part: number,
            count: self.count,
            expected: format!("{}{}", stem.to_string_lossy(), part_suffix(number, self.count)),
        };
        name.filter(|name| name.number == number && name.count == self.count).ok_or(wrong)
    }

    /// What the part at this index says, from 0, must be about the same whole.
    pub(crate) fn check(&self, part: Result<Option<Self>, GgufError>, index: usize) -> Result<(), GgufError> {
        const BY_NAME: &str = "what the file's name says";
        let part = part?.ok_or_else(|| contradiction(COUNT, 0, BY_NAME, self.count))?;
        let index = u64::try_from(index).unwrap_or(u64::MAX);
        if part.count != self.count {
            return Err(contradiction(COUNT, part.count, BY_NAME, self.count));
        }
        if part.number != index {
            return Err(contradiction(NUMBER, part.number, BY_NAME, index));
        }
        if part.tensors != self.tensors {
            let what = format!("the same key in part {}", self.number.saturating_add(1));
            return Err(contradiction(TENSORS, part.tensors, &what, self.tensors));
        }
        Ok(())
    }

    /// The parts must have all tensors.
    pub(crate) fn check_tensors(&self, found: usize) -> Result<(), GgufError> {
        match u64::try_from(found).unwrap_or(u64::MAX) {
            found if found == self.tensors => Ok(()),
            found => Err(contradiction(TENSORS, self.tensors, "the number of tensors in all parts", found)),
        }
    }
}

/// Whether a file has no more than a part of the tensors, or none of the metadata.
pub(crate) fn is_part(metadata: &Metadata) -> Result<bool, GgufError> {
    let beyond = |key: &str, whole: u64| Ok::<_, GgufError>(metadata.u64(key)?.is_some_and(|value| value > whole));
    Ok(beyond(NUMBER, 0)? || beyond(COUNT, 1)?)
}

fn contradiction(key: &str, found: u64, what: &str, expected: u64) -> GgufError {
    GgufError::Contradiction { key: key.into(), found: found.to_string(), what: what.into(), expected: expected.to_string() }
}

/// The metadata of a part other than the first, which nobody reads: what is said there and in the first must be the same. Returns keys
/// that the first does not have.
pub(crate) fn compare_metadata(first: &Metadata, other: &Metadata) -> Result<Vec<String>, GgufError> {
    let mut alone = Vec::new();
    for (key, value) in other.entries() {
        // How the bytes of this file lie is its own affair.
        if [NUMBER, COUNT, TENSORS, "general.alignment"].contains(&key.as_str()) {
            continue;
        }
        match first.get(key) {
            None => alone.push(key.clone()),
            Some(said) if said == value => {}
            Some(said) => {
                let shorten = |value: &Value| match value.as_str() {
                    Some(text) => format!("\"{}\"", rwkv_forge_tensor::shorten(text)),
                    None => rwkv_forge_tensor::shorten(&value.to_string()),
                };
                return Err(GgufError::Contradiction {
                    key: key.clone(),
                    found: shorten(value),
                    what: "the same key in part 1".into(),
                    expected: shorten(said),
                });
            }
        }
    }
    Ok(alone)
}

/// The paths of all parts beside the one that was opened. A name is made of that one's, so it stays in its folder; a link of that name
/// is the user's, and is followed like the part that was given.
pub(crate) fn parts_beside(path: &Path, name: &PartName) -> Result<Vec<PathBuf>, GgufError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let all: Vec<PathBuf> = (1..=name.count).map(|number| folder.join(name.part(number))).collect();
    let missing: Vec<String> = all
        .iter()
        .filter(|path| path.metadata().is_err())
        .map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned())
        .collect();
    let Some(shown) = missing.get(..missing.len().min(SHOWN)).filter(|shown| !shown.is_empty()) else { return Ok(all) };
    let more = missing.len().saturating_sub(shown.len());
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    Err(GgufError::MissingPart { names: format!("{}{more}", shown.join(", ")), missing: missing.len(), count: name.count })
}

/// A part of each split model in a folder. Any part will do: where the first is missing, that is said of it.
pub(crate) fn splits_in(folder: &Path) -> Vec<PathBuf> {
    let names = rwkv_forge_io::names_in(folder, |name| PartName::of(Path::new(name)).is_some()).unwrap_or_default();
    let mut parts: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
    let model = |path: &PathBuf| PartName::of(path).map(|name| (name.stem, name.count));
    parts.dedup_by(|one, other| model(one) == model(other));
    parts
}

/// A part of the one split model in a folder.
pub(crate) fn only_split_in(folder: &Path) -> Result<PathBuf, GgufError> {
    match splits_in(folder).as_slice() {
        [part] => Ok(part.clone()),
        several => {
            let names = several.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
            Err(GgufError::SeveralModels { names: names.collect::<Vec<_>>().join(", ") }.at(folder))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{PartName, part_suffix, split_name};

    #[test]
    fn names_of_parts_are_known_and_made() {
        let name = PartName::of(Path::new("models/a-b-00002-of-00003.gguf")).unwrap();
        assert_eq!((name.stem.to_str().unwrap(), name.number, name.count), ("a-b", 2, 3));
        assert_eq!(name.part(1), *"a-b-00001-of-00003.gguf");
        // As systems that do not tell letters of either case apart leave them.
        let name = PartName::of(Path::new("M-00002-OF-00003.GGUF")).unwrap();
        assert_eq!((name.stem.to_str().unwrap(), name.part(1)), ("M", "M-00001-OF-00003.GGUF".into()));
        assert_eq!(part_suffix(12, 1000), "-00012-of-01000.gguf");
        assert_eq!(split_name(Path::new("x/m-00001-of-00001.gguf")).unwrap(), *"m");
        for other in [
            "m.gguf",
            "m-1-of-3.gguf",
            "m-00001-of-00003.bin",
            "-00001-of-00003.gguf",
            "m-00000-of-00003.gguf",
            "m-00004-of-00003.gguf",
            "m-0000x-of-00003.gguf",
            "m-+0001-of-00003.gguf",
            "m00001-of-00003.gguf",
            "m-000001-of-00003.gguf",
            "m-00001_of_00003.gguf",
        ] {
            assert_eq!(PartName::of(Path::new(other)), None, "{other}");
        }
    }
}
