//! The older format, all little endian: number of entries, then for each the length of its name, the name, the number of evaluations
//! n, the number of values, and the values, means times n; then the number of evaluations of all, the length of the text's
//! name, and that name. Numbers are i32, values f32. Files before 2024 end with the entries.

use super::{Channels, Imatrix};

/// Bytes of the longest name accepted.
const NAME_BYTES: usize = 4096;

pub(super) fn read(bytes: &[u8]) -> Result<Imatrix, String> {
    let mut input = Input { bytes, at: 0 };
    let count = input.count("the number of entries")?;
    if count == 0 {
        return Err("no entries; expected one for each matrix of a model".to_owned());
    }
    let mut out = Imatrix { entries: std::collections::BTreeMap::new(), datasets: Vec::new(), chunk_count: 0, chunk_size: 0 };
    for index in 0..count {
        let name = input.text(&format!("the name of entry {index}"))?;
        let evaluations = input.number(&format!("the number of evaluations of {name}"))?;
        let evaluations = u32::try_from(evaluations).map_err(|_| format!("{name}: {evaluations} evaluations, expected 0 or more"))?;
        let values = input.count(&format!("the number of values of {name}"))?;
        let bytes = input.take(values.checked_mul(4).ok_or("a length beyond the memory")?, &format!("the values of {name}"))?;
        let mut sums: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if let Some(at) = sums.iter().position(|sum| !(sum.is_finite() && *sum >= 0.0)) {
            return Err(format!("{name}: value {at} is no sum of squares"));
        }
        let counts = vec![evaluations];
        sums.shrink_to_fit();
        if out.entries.insert(name.clone(), Channels { sums, counts }).is_some() {
            return Err(format!("two entries are named {name}"));
        }
    }
    if input.at < bytes.len() {
        let chunks = input.number("the number of evaluations")?;
        out.chunk_count = u32::try_from(chunks).map_err(|_| format!("{chunks} evaluations, expected 0 or more"))?;
        let dataset = input.text("the name of the text")?;
        if !dataset.is_empty() {
            out.datasets.push(dataset);
        }
    }
    match bytes.len().saturating_sub(input.at) {
        0 => Ok(out),
        rest => Err(format!("{rest} bytes after the end at offset {}", input.at)),
    }
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], String> {
        let taken = self.at.checked_add(count).and_then(|end| self.bytes.get(self.at..end));
        let left = self.bytes.len().saturating_sub(self.at);
        let taken = taken.ok_or_else(|| format!("offset {}: {what} needs {count} bytes, only {left} follow", self.at))?;
        self.at = self.at.saturating_add(count);
        Ok(taken)
    }

    fn number(&mut self, what: &str) -> Result<i32, String> {
        let bytes = self.take(4, what)?;
        Ok(i32::from_le_bytes(bytes.first_chunk().copied().unwrap_or_default()))
    }

    /// A number that cannot be negative.
    fn count(&mut self, what: &str) -> Result<usize, String> {
        let at = self.at;
        let number = self.number(what)?;
        usize::try_from(number).map_err(|_| format!("offset {at}: {what} is {number}, expected 0 or more"))
    }

    fn text(&mut self, what: &str) -> Result<String, String> {
        let at = self.at;
        let length = self.count(what)?;
        if length > NAME_BYTES {
            return Err(format!("offset {at}: {what} has {length} bytes, expected at most {NAME_BYTES}; this is no imatrix file"));
        }
        let text = std::str::from_utf8(self.take(length, what)?).map_err(|_| format!("offset {at}: {what} is not UTF-8"))?;
        Ok(text.to_owned())
    }
}

pub(super) fn write(imatrix: &Imatrix) -> Vec<u8> {
    let mut out = Vec::new();
    // Entries that saw nothing have no place in this format.
    let entries: Vec<_> = imatrix.entries.iter().filter(|(_, channels)| channels.counts.iter().any(|count| *count > 0)).collect();
    number(&mut out, entries.len());
    for (name, channels) in entries {
        text(&mut out, name);
        // Without the size of a chunk the counts are evaluations already.
        let most = channels.counts.iter().copied().max().unwrap_or(0);
        let evaluations = if imatrix.chunk_size == 0 { most } else { most.div_ceil(imatrix.chunk_size) };
        number(&mut out, evaluations as usize);
        number(&mut out, channels.sums.len());
        #[allow(clippy::cast_precision_loss, reason = "the product that llama-imatrix writes")]
        let values = channels.means().into_iter().map(|mean| mean * evaluations as f32);
        out.extend(values.flat_map(f32::to_le_bytes));
    }
    number(&mut out, imatrix.chunk_count as usize);
    text(&mut out, imatrix.datasets.last().map_or("", String::as_str));
    out
}

/// Lengths of what is in memory are far below 2^31 here.
fn number(out: &mut Vec<u8>, value: usize) {
    out.extend(i32::try_from(value).unwrap_or(i32::MAX).to_le_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    number(out, text.len());
    out.extend(text.as_bytes());
}
