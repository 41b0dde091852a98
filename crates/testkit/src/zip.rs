//! Builds zip archives as `torch.save` writes them, and archives that break one rule each.
//!
//! [`Archive::torch`] gives the genuine form. Change its public fields for other forms; for lies that no field can tell,
//! [`Archive::build`] says where every record lies, so that a test can patch the bytes.
#![allow(clippy::cast_possible_truncation, reason = "test archives are small, and lying about sizes is the purpose")]

/// The record that follows an entry's data when flag 3 is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptor {
    /// None at all.
    Absent,
    /// CRC-32 and sizes of 4 bytes.
    Plain32,
    /// The same after a signature: what torch writes.
    Signed32,
    /// CRC-32 and sizes of 8 bytes.
    Plain64,
    /// The same after a signature: what torch writes for 4 GiB and more.
    Signed64,
}

/// One stored entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Name in both headers.
    pub name: Vec<u8>,
    /// The bytes.
    pub data: Vec<u8>,
    /// Flags in both headers.
    pub flags: u16,
    /// Compression method in both headers; the data are stored as they are.
    pub method: u16,
    /// What follows the data.
    pub descriptor: Descriptor,
    /// CRC-32 and sizes in the local header; zero otherwise, as torch leaves them.
    pub local_values: bool,
    /// Sizes and offset of the central record in a Zip64 field.
    pub zip64: bool,
    /// The offset alone in a Zip64 field, as torch writes small entries that begin beyond 4 GiB.
    pub zip64_offset: bool,
    /// Extra fields of the local header.
    pub local_extra: Vec<u8>,
    /// Alignment of the data by a padding field; 0 for none.
    pub align: usize,
    /// Version and system that made the entry.
    pub made_by: u16,
    /// External attributes.
    pub attributes: u32,
}

impl Entry {
    /// An entry as torch writes it.
    #[must_use]
    pub fn torch(name: &str, data: &[u8]) -> Self {
        Self {
            name: name.as_bytes().to_vec(),
            data: data.to_vec(),
            flags: 0x0808,
            method: 0,
            descriptor: if data.is_empty() { Descriptor::Absent } else { Descriptor::Signed32 },
            local_values: false,
            zip64: false,
            zip64_offset: false,
            local_extra: Vec::new(),
            align: 64,
            made_by: 0,
            attributes: 0,
        }
    }

    /// An entry as Python's `zipfile` stores it: everything in the local header, no descriptor.
    #[must_use]
    pub fn plain(name: &str, data: &[u8]) -> Self {
        Self { flags: 0, descriptor: Descriptor::Absent, local_values: true, align: 0, ..Self::torch(name, data) }
    }
}

/// A whole archive.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    /// Entries in the order of their data.
    pub entries: Vec<Entry>,
    /// Bytes before the first local header; offsets do not count them.
    pub prefix: Vec<u8>,
    /// Bytes between the last entry and the central directory.
    pub hole: Vec<u8>,
    /// Comment of the archive.
    pub comment: Vec<u8>,
    /// Whether Zip64 end records are written.
    pub zip64: bool,
}

/// The bytes of an archive and where its records begin.
#[derive(Clone, Debug, Default)]
pub struct Built {
    /// The archive.
    pub bytes: Vec<u8>,
    /// Local headers.
    pub locals: Vec<usize>,
    /// First byte of each entry's data.
    pub data: Vec<usize>,
    /// First byte after each entry's data.
    pub descriptors: Vec<usize>,
    /// Records of the central directory.
    pub centrals: Vec<usize>,
    /// Zip64 end record, or 0.
    pub zip64: usize,
    /// Zip64 locator, or 0.
    pub locator: usize,
    /// End record.
    pub end: usize,
}

impl Built {
    /// Overwrites bytes.
    pub fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.bytes.splice(at..at + bytes.len(), bytes.iter().copied());
        self
    }
}

impl Archive {
    /// A checkpoint as torch writes it: top folder `m`, the given pickle, storages `0`, `1`, ... in order.
    #[must_use]
    pub fn torch(pickle: &[u8], storages: &[&[u8]]) -> Self {
        let mut entries = vec![
            Entry::torch("m/data.pkl", pickle),
            Entry::torch("m/.format_version", b"1"),
            Entry::torch("m/.storage_alignment", b"64"),
            Entry::torch("m/byteorder", b"little"),
        ];
        for (key, data) in storages.iter().enumerate() {
            entries.push(Entry::torch(&format!("m/data/{key}"), data));
        }
        entries.push(Entry::torch("m/version", b"3\n"));
        Self { entries, zip64: true, ..Self::default() }
    }

    /// The entry with a name, to be changed.
    ///
    /// # Panics
    /// When there is none.
    pub fn entry(&mut self, name: &str) -> &mut Entry {
        match self.entries.iter_mut().find(|entry| entry.name == name.as_bytes()) {
            Some(entry) => entry,
            None => panic!("no entry {name}"),
        }
    }

    /// Writes all records.
    #[must_use]
    pub fn build(&self) -> Built {
        let mut built = Built { bytes: self.prefix.clone(), ..Built::default() };
        for entry in &self.entries {
            write_entry(&mut built, entry, self.prefix.len());
        }
        built.bytes.extend(&self.hole);
        let directory = built.bytes.len();
        for (entry, local) in self.entries.iter().zip(built.locals.clone()) {
            built.centrals.push(built.bytes.len());
            write_central(&mut built.bytes, entry, local - self.prefix.len());
        }
        self.write_end(&mut built, directory);
        built
    }

    fn write_end(&self, built: &mut Built, directory: usize) {
        let (count, len) = (self.entries.len(), built.bytes.len() - directory);
        let start = directory - self.prefix.len();
        if self.zip64 {
            built.zip64 = built.bytes.len();
            built.bytes.extend(b"PK\x06\x06");
            built.bytes.extend(44u64.to_le_bytes());
            built.bytes.extend([0x1e, 3, 0x2d, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            for value in [count, count, len, start] {
                built.bytes.extend((value as u64).to_le_bytes());
            }
            built.locator = built.bytes.len();
            built.bytes.extend(b"PK\x06\x07\0\0\0\0");
            built.bytes.extend(((built.zip64 - self.prefix.len()) as u64).to_le_bytes());
            built.bytes.extend(1u32.to_le_bytes());
        }
        built.end = built.bytes.len();
        built.bytes.extend(b"PK\x05\x06\0\0\0\0");
        built.bytes.extend((count as u16).to_le_bytes());
        built.bytes.extend((count as u16).to_le_bytes());
        built.bytes.extend((len as u32).to_le_bytes());
        built.bytes.extend((start as u32).to_le_bytes());
        built.bytes.extend((self.comment.len() as u16).to_le_bytes());
        built.bytes.extend(&self.comment);
    }
}

fn write_entry(built: &mut Built, entry: &Entry, prefix: usize) {
    built.locals.push(built.bytes.len());
    let (crc, len) = (crc32fast::hash(&entry.data), entry.data.len() as u32);
    let mut extra = entry.local_extra.clone();
    if entry.align > 0 {
        let unpadded = built.bytes.len() - prefix + 30 + entry.name.len() + extra.len() + 4;
        let padding = unpadded.next_multiple_of(entry.align) - unpadded;
        extra.extend(b"FB");
        extra.extend((padding as u16).to_le_bytes());
        extra.extend(vec![b'Z'; padding]);
    }
    let out = &mut built.bytes;
    out.extend(b"PK\x03\x04\0\0");
    out.extend(entry.flags.to_le_bytes());
    out.extend(entry.method.to_le_bytes());
    out.extend([0; 4]);
    for value in [crc, len, len] {
        out.extend(if entry.local_values { value } else { 0 }.to_le_bytes());
    }
    out.extend((entry.name.len() as u16).to_le_bytes());
    out.extend((extra.len() as u16).to_le_bytes());
    out.extend(&entry.name);
    out.extend(extra);
    built.data.push(out.len());
    out.extend(&entry.data);
    built.descriptors.push(out.len());
    if matches!(entry.descriptor, Descriptor::Signed32 | Descriptor::Signed64) {
        out.extend(b"PK\x07\x08");
    }
    match entry.descriptor {
        Descriptor::Absent => {}
        Descriptor::Plain32 | Descriptor::Signed32 => [crc, len, len].iter().for_each(|value| out.extend(value.to_le_bytes())),
        Descriptor::Plain64 | Descriptor::Signed64 => {
            out.extend(crc.to_le_bytes());
            [len, len].iter().for_each(|value| out.extend(u64::from(*value).to_le_bytes()));
        }
    }
}

fn write_central(out: &mut Vec<u8>, entry: &Entry, offset: usize) {
    let (crc, len) = (crc32fast::hash(&entry.data), entry.data.len());
    let mut extra = Vec::new();
    if entry.zip64 {
        extra.extend([1, 0, 24, 0]);
        [len, len, offset].iter().for_each(|value| extra.extend((*value as u64).to_le_bytes()));
    }
    if entry.zip64_offset {
        extra.extend([1, 0, 8, 0]);
        extra.extend((offset as u64).to_le_bytes());
    }
    let narrow = |value: usize| if entry.zip64 { u32::MAX } else { value as u32 };
    let narrow_offset = if entry.zip64 || entry.zip64_offset { u32::MAX } else { offset as u32 };
    out.extend(b"PK\x01\x02");
    out.extend(entry.made_by.to_le_bytes());
    out.extend([0; 2]);
    out.extend(entry.flags.to_le_bytes());
    out.extend(entry.method.to_le_bytes());
    out.extend([0; 4]);
    [crc, narrow(len), narrow(len)].iter().for_each(|value| out.extend(value.to_le_bytes()));
    out.extend((entry.name.len() as u16).to_le_bytes());
    out.extend((extra.len() as u16).to_le_bytes());
    out.extend([0; 6]);
    out.extend(entry.attributes.to_le_bytes());
    out.extend(narrow_offset.to_le_bytes());
    out.extend(&entry.name);
    out.extend(extra);
}
