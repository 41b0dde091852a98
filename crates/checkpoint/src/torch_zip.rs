//! `torch.save` since 1.6: a zip archive with `data.pkl` and one entry a storage.

use std::collections::{BTreeMap, HashMap, HashSet};

use rwkv_forge_io::InputFile;

use crate::error::{Refusal, Result, refuse};
use crate::limits::Limits;
use crate::pickle::{self, Rules};
use crate::source::{Place, TorchFile, bind};
use crate::state_dict::{self, Wanted};
use crate::torch_write;
use crate::zip::{Archive, Entry};

/// Bytes of the small text entries beside the pickle.
const TEXT_BYTES: u64 = 64;

/// Bytes of the provenance that is shown.
const PROVENANCE_BYTES: u64 = 64 << 10;

/// What the pickle of a zip archive may do.
pub(crate) const RULES: Rules = Rules { persistent_id: 5, trailing: false };

/// The archive of a checkpoint and what its entries are for.
pub(crate) struct Contents {
    archive: Archive,
    top: String,
}

impl Contents {
    /// Opens the archive and finds its top folder.
    ///
    /// # Errors
    /// Those of [`Archive::open`], `NoPickle`, `AmbiguousPickle`, `BadEntryName`.
    pub(crate) fn open(file: &InputFile, limits: &Limits) -> Result<Self> {
        let archive = Archive::open(file, limits)?;
        let tops: HashSet<&str> = archive.entries.iter().filter_map(|entry| entry.name.split('/').next()).collect();
        let is_pickle = |entry: &&Entry| entry.name.split_once('/').is_some_and(|(_, rest)| rest == "data.pkl");
        let pickles: Vec<&Entry> = archive.entries.iter().filter(is_pickle).collect();
        let [pickle] = pickles.as_slice() else {
            if pickles.is_empty() {
                let message = "the zip archive has no `data.pkl` in a top folder; it is no file of torch.save";
                return refuse(Refusal::NoPickle, message);
            }
            let names: Vec<&str> = pickles.iter().map(|entry| entry.name.as_str()).collect();
            return refuse(Refusal::AmbiguousPickle, format!("the zip archive has several pickles: {}", names.join(", ")));
        };
        if tops.len() > 1 {
            let mut tops: Vec<&str> = tops.into_iter().take(4).collect();
            tops.sort_unstable();
            return refuse(
                Refusal::BadEntryName,
                format!("the zip archive has several top folders ({}); torch writes one", tops.join(", ")),
            );
        }
        let top = pickle.name.split('/').next().unwrap_or_default().to_owned();
        Ok(Self { archive, top })
    }

    /// An entry's name below the top folder.
    fn inner<'e>(&self, entry: &'e Entry) -> &'e str {
        entry.name.get(self.top.len().saturating_add(1)..).unwrap_or_default()
    }

    fn entry(&self, inner: &str) -> Option<&Entry> {
        self.archive.entries.iter().find(|entry| self.inner(entry) == inner)
    }

    /// The bytes of `data.pkl`, its CRC-32 checked.
    pub(crate) fn pickle(&self, file: &InputFile, limits: &Limits) -> Result<Vec<u8>> {
        match self.entry("data.pkl") {
            Some(entry) => Archive::read(file, entry, limits.pickle_bytes),
            None => refuse(Refusal::NoPickle, "the zip archive has no `data.pkl`"),
        }
    }

    /// Checks `byteorder`, `version` and `.format_version`, as far as they are there.
    ///
    /// Big-endian files are refused rather than swapped: no released checkpoint is one, so a swap would be code that
    /// no genuine file has ever tested.
    fn check_texts(&self, file: &InputFile) -> Result<()> {
        if let Some(entry) = self.entry("byteorder") {
            let text = if entry.len > TEXT_BYTES { Vec::new() } else { Archive::read(file, entry, TEXT_BYTES)? };
            if text.trim_ascii() != b"little" {
                let message = format!(
                    "the byte order is `{}` ({} bytes), only `little` is read; load the file with torch on the machine that made it, and save it on another",
                    text.escape_ascii(),
                    entry.len
                );
                return refuse(Refusal::UnsupportedByteOrder, message);
            }
        }
        for name in ["version", ".format_version"] {
            let Some(entry) = self.entry(name) else { continue };
            let text = if entry.len > TEXT_BYTES { Vec::new() } else { Archive::read(file, entry, TEXT_BYTES)? };
            let version = std::str::from_utf8(text.trim_ascii()).ok().and_then(|text| text.parse::<u32>().ok());
            // Torch reads archives of versions 1 to 10.
            if !version.is_some_and(|version| (1..=10).contains(&version)) {
                let message = format!("`{name}` says `{}` ({} bytes); expected a version from 1 to 10", text.escape_ascii(), entry.len);
                return refuse(Refusal::UnsupportedVersion, message);
            }
        }
        Ok(())
    }

    /// What this program wrote into the file about where it comes from; nothing in files of others. Text for people
    /// only, so a malformed one is passed over with a note.
    fn provenance(&self, file: &InputFile, notes: &mut Vec<String>) -> Result<Vec<(String, String)>> {
        let Some(entry) = self.entry(torch_write::PROVENANCE) else { return Ok(Vec::new()) };
        let parsed = if entry.len <= PROVENANCE_BYTES {
            serde_json::from_slice::<BTreeMap<String, String>>(&Archive::read(file, entry, PROVENANCE_BYTES)?).ok()
        } else {
            None
        };
        if parsed.is_none() {
            notes.push(format!("`{}` is no JSON object of texts, and was passed over", torch_write::PROVENANCE));
        }
        let shown = |(key, value): (String, String)| (rwkv_forge_tensor::shorten(&key), rwkv_forge_tensor::shorten(value.trim_end()));
        Ok(parsed.unwrap_or_default().into_iter().map(shown).collect())
    }

    /// Storage keys and their places.
    fn storages(&self) -> HashMap<&str, Place> {
        let data = self.archive.entries.iter().filter_map(|entry| Some((self.inner(entry).strip_prefix("data/")?, entry)));
        data.map(|(key, entry)| (key, Place { start: entry.start, len: entry.len })).collect()
    }
}

/// Opens a checkpoint in a zip archive.
///
/// # Errors
/// Every refusal of sections "ZIP container", "Pickle" and "Tensor semantics".
pub(crate) fn open(file: InputFile, limits: &Limits, wanted: Wanted<'_>) -> Result<TorchFile> {
    let contents = Contents::open(&file, limits)?;
    contents.check_texts(&file)?;
    let bytes = contents.pickle(&file, limits)?;
    let outcome = pickle::run(&bytes, limits, RULES)?;
    let mut notes = Vec::new();
    let metadata = contents.provenance(&file, &mut notes)?;
    let named = state_dict::find(&outcome.arena, outcome.root, limits, wanted, &mut notes)?;
    let places = contents.storages();
    let bound = bind(&outcome.arena, &named, &|key| places.get(key).copied())?;
    notes.extend(bound.note());
    notes.extend(outcome.ignored.notes());
    let used: HashSet<&str> = outcome.arena.storages.iter().map(|storage| storage.key).collect();
    let unused = places.keys().filter(|key| !used.contains(*key)).count();
    if unused > 0 {
        notes.push(format!("{unused} storages of the file are used by no tensor"));
    }
    drop(places);
    Ok(TorchFile::new(file, "torch zip", bound, contents.archive.entries, notes).with_metadata(metadata))
}
