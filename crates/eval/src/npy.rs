//! NumPy's `.npy` files: float32 arrays out, float32 and uint16 arrays in.
//!
//! Layout: `\x93NUMPY`, version (2 bytes), header length (u16, or u32 from version 2.0), header (a Python dict literal
//! with the keys `descr`, `fortran_order`, `shape`, padded with spaces and a newline), then the elements, last
//! dimension fastest.

use std::io::{self, Write};

use rwkv_forge_tensor::Diagnostic;
use strum::IntoStaticStr;
use thiserror::Error;

const MAGIC: &[u8] = b"\x93NUMPY";
/// NumPy aligns the first element to this.
const ALIGNMENT: usize = 64;

/// Why bytes are no array that this crate reads.
#[derive(Clone, Debug, PartialEq, Eq, Error, IntoStaticStr)]
pub enum NpyError {
    /// Not the format, or cut off within the header.
    #[strum(serialize = "NotNpy")]
    #[error("not a NumPy array file: {0}")]
    Format(String),
    /// Another element type, order or number of dimensions.
    #[strum(serialize = "UnsupportedNpy")]
    #[error("unsupported NumPy array: {0}; expected little-endian float32 or uint16 of one or two dimensions in C order")]
    Unsupported(String),
    /// The data does not have the length that the shape implies.
    #[strum(serialize = "NpyLength")]
    #[error("the array has {found} bytes of data, its shape implies {expected}; the file is cut off or has something appended")]
    Length {
        /// Bytes after the header.
        found: usize,
        /// Bytes that the shape implies.
        expected: String,
    },
}

impl Diagnostic for NpyError {
    fn kind(&self) -> &'static str {
        self.into()
    }
}

/// The elements of an array.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// `<f4`.
    F32(Vec<f32>),
    /// `<u2`.
    U16(Vec<u16>),
}

/// An array of one or two dimensions, last dimension fastest.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// One or two dimensions.
    pub shape: Vec<usize>,
    /// As many as the shape implies.
    pub elements: Elements,
}

impl Array {
    /// Reads a whole file's bytes.
    ///
    /// # Errors
    /// When the header is malformed, the type or shape is another one, or the data has another length.
    pub fn parse(bytes: &[u8]) -> Result<Self, NpyError> {
        let (header, data) = split(bytes)?;
        let (descr, shape) = parse_header(header)?;
        let size = if descr == "<f4" { 4 } else { 2 };
        let expected = shape.iter().try_fold(size, |product: usize, dim| product.checked_mul(*dim));
        if expected != Some(data.len()) {
            let expected = expected.map_or_else(|| "more than fits in memory".to_owned(), |n| n.to_string());
            return Err(NpyError::Length { found: data.len(), expected });
        }
        let elements = if size == 4 {
            Elements::F32(data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
        } else {
            Elements::U16(data.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b)).collect())
        };
        Ok(Self { shape, elements })
    }
}

/// Header text and data.
fn split(bytes: &[u8]) -> Result<(&str, &[u8]), NpyError> {
    let cut = || NpyError::Format("it ends within the header".to_owned());
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| NpyError::Format("it does not begin with \\x93NUMPY".to_owned()))?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
    let (length, rest) = match version {
        [1, 0] => rest.split_first_chunk::<2>().map(|(n, rest)| (u32::from(u16::from_le_bytes(*n)), rest)),
        [2 | 3, 0] => rest.split_first_chunk::<4>().map(|(n, rest)| (u32::from_le_bytes(*n), rest)),
        [major, minor] => return Err(NpyError::Format(format!("format version {major}.{minor}, expected 1.0, 2.0 or 3.0"))),
    }
    .ok_or_else(cut)?;
    let length = usize::try_from(length).map_err(|_| cut())?;
    let (header, data) = rest.split_at_checked(length).ok_or_else(cut)?;
    let header = std::str::from_utf8(header).map_err(|_| NpyError::Format("the header is not text".to_owned()))?;
    Ok((header, data))
}

/// Element type and shape from `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`, keys in any order.
fn parse_header(header: &str) -> Result<(&str, Vec<usize>), NpyError> {
    let malformed = || NpyError::Format(format!("malformed header {:?}", header.trim_end()));
    let mut rest = header.trim().strip_prefix('{').and_then(|h| h.strip_suffix('}')).ok_or_else(malformed)?.trim();
    let (mut descr, mut order, mut shape) = (None, None, None);
    while !rest.is_empty() {
        let (key, after) = rest.strip_prefix('\'').and_then(|r| r.split_once('\'')).ok_or_else(malformed)?;
        let value = after.trim_start().strip_prefix(':').ok_or_else(malformed)?.trim_start();
        let end = if value.starts_with('(') { value.find(')').map(|i| i + 1) } else { value.find(',').or(Some(value.len())) };
        let (value, after) = value.split_at(end.ok_or_else(malformed)?);
        let slot = match key {
            "descr" => &mut descr,
            "fortran_order" => &mut order,
            "shape" => &mut shape,
            _ => return Err(malformed()),
        };
        if slot.replace(value.trim_end()).is_some() {
            return Err(malformed());
        }
        let after = after.trim_start();
        rest = if after.is_empty() { "" } else { after.strip_prefix(',').ok_or_else(malformed)?.trim_start() };
    }
    let (Some(descr), Some(order), Some(shape)) = (descr, order, shape) else { return Err(malformed()) };
    let descr = descr
        .strip_prefix('\'')
        .and_then(|d| d.strip_suffix('\''))
        .ok_or_else(|| NpyError::Unsupported(format!("element type {descr}")))?;
    if descr != "<f4" && descr != "<u2" {
        return Err(NpyError::Unsupported(format!("element type {descr}")));
    }
    match order {
        "False" => Ok((descr, parse_shape(shape).ok_or_else(malformed)??)),
        "True" => Err(NpyError::Unsupported("Fortran order".to_owned())),
        _ => Err(malformed()),
    }
}

/// `(3, 4)` or `(3,)`; `None` when it is no tuple of numbers.
fn parse_shape(text: &str) -> Option<Result<Vec<usize>, NpyError>> {
    let inner = text.strip_prefix('(')?.strip_suffix(')')?.trim();
    let inner = inner.strip_suffix(',').unwrap_or(inner);
    let dims: Vec<usize> =
        if inner.is_empty() { Vec::new() } else { inner.split(',').map(|dim| dim.trim().parse().ok()).collect::<Option<_>>()? };
    if dims.len() == 1 || dims.len() == 2 {
        return Some(Ok(dims));
    }
    Some(Err(NpyError::Unsupported(format!("{} dimensions", dims.len()))))
}

/// Writes a float32 array whose shape is known first, a few elements at a time.
pub struct Writer<W: Write> {
    out: W,
    remaining: u64,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Writes the header of an array of this shape, for example `[tokens, vocabulary]`.
    ///
    /// # Errors
    /// When the shape overflows or writing fails.
    pub fn new(mut out: W, shape: &[u64]) -> io::Result<Self> {
        let remaining = rwkv_forge_tensor::element_count(shape).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        let dims: String = shape.iter().map(|dim| format!("{dim}, ")).collect();
        let dims = if shape.len() > 1 { dims.trim_end_matches(", ") } else { dims.trim_end() };
        let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({dims}), }}");
        let prefix = MAGIC.len() + 4;
        let padded = (prefix + header.len() + 1).next_multiple_of(ALIGNMENT);
        header.extend(std::iter::repeat_n(' ', padded - prefix - header.len() - 1));
        header.push('\n');
        let length = u16::try_from(header.len()).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        out.write_all(MAGIC)?;
        out.write_all(&[1, 0])?;
        out.write_all(&length.to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        Ok(Self { out, remaining, buffer: Vec::new() })
    }

    /// Appends elements, last dimension fastest.
    ///
    /// # Errors
    /// When there are more than the shape has, or writing fails.
    pub fn write(&mut self, values: &[f32]) -> io::Result<()> {
        self.remaining =
            self.remaining.checked_sub(values.len() as u64).ok_or_else(|| io::Error::other("more elements than the shape has"))?;
        self.buffer.clear();
        self.buffer.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self.out.write_all(&self.buffer)
    }

    /// Checks that all elements were written and gives the output back.
    ///
    /// # Errors
    /// When elements are missing or flushing fails.
    pub fn finish(mut self) -> io::Result<W> {
        if self.remaining != 0 {
            return Err(io::Error::other(format!("{} elements are missing", self.remaining)));
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut out = [MAGIC, &[1, 0]].concat();
        out.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
        [out, header.as_bytes().to_vec(), data.to_vec()].concat()
    }

    #[test]
    fn what_is_written_is_read() {
        for (shape, count) in [(vec![2, 3], 6u8), (vec![5], 5), (vec![0, 7], 0)] {
            let values: Vec<f32> = (0..count).map(|i| f32::from(i) - 2.5).collect();
            let mut writer = Writer::new(Vec::new(), &shape).unwrap();
            values.chunks(2).for_each(|part| writer.write(part).unwrap());
            let bytes = writer.finish().unwrap();
            assert_eq!((bytes.len() - values.len() * 4) % ALIGNMENT, 0);
            let array = Array::parse(&bytes).unwrap();
            assert_eq!(array.shape.iter().map(|d| *d as u64).collect::<Vec<_>>(), shape);
            assert_eq!(array.elements, Elements::F32(values));
        }
    }

    #[test]
    fn the_header_is_numpys() {
        let bytes = Writer::new(Vec::new(), &[256, 320]).unwrap().out;
        let text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (256, 320), }";
        assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
        assert_eq!(&bytes[10..10 + text.len()], text);
        assert!(bytes.len() == 128 && bytes.ends_with(b" \n"));
        let one = Writer::new(Vec::new(), &[4]).unwrap().out;
        assert!(String::from_utf8_lossy(&one).contains("'shape': (4,), }"));
    }

    #[test]
    fn a_writer_counts() {
        let mut writer = Writer::new(Vec::new(), &[2]).unwrap();
        assert!(writer.write(&[1.0, 2.0, 3.0]).is_err());
        writer.write(&[1.0]).unwrap();
        assert!(writer.finish().is_err());
        assert!(Writer::new(Vec::new(), &[u64::MAX, 2]).is_err());
    }

    #[test]
    fn other_files_are_refused() {
        let good = "{'shape': (2,), 'fortran_order': False, 'descr': '<u2'}\n";
        assert_eq!(Array::parse(&file(good, &[1, 0, 2, 1])).unwrap().elements, Elements::U16(vec![1, 258]));
        let kind = |bytes: &[u8]| Array::parse(bytes).unwrap_err().kind();
        assert_eq!(kind(&file(good, &[1, 0, 2])), "NpyLength");
        assert_eq!(kind(&file(good, &[1, 0, 2, 1, 0])), "NpyLength");
        for cut in 0..10 + good.len() {
            assert_eq!(kind(&file(good, &[1, 0, 2, 1])[..cut]), "NotNpy", "cut at {cut}");
        }
        for bad in ["<f8", ">f4", "|u1", "<i4"] {
            assert_eq!(kind(&file(&good.replace("<u2", bad), &[0; 16])), "UnsupportedNpy", "{bad}");
        }
        assert_eq!(kind(&file(&good.replace("False", "True"), &[0; 4])), "UnsupportedNpy");
        for shape in ["()", "(1, 2, 1)"] {
            assert_eq!(kind(&file(&good.replace("(2,)", shape), &[0; 4])), "UnsupportedNpy", "{shape}");
        }
        assert_eq!(kind(&file(&good.replace("(2,)", "(18446744073709551615, 2)"), &[0; 4])), "NpyLength");
        for shape in ["(2", "(-2,)", "(a,)", "2", "(99999999999999999999,)"] {
            assert_eq!(kind(&file(&good.replace("(2,)", shape), &[0; 4])), "NotNpy", "{shape}");
        }
        assert_eq!(kind(&file("{'descr': '<u2', 'fortran_order': False}", &[])), "NotNpy");
        assert_eq!(kind(&file("{'descr': '<u2', 'descr': '<u2', 'fortran_order': False, 'shape': (2,)}", &[0; 4])), "NotNpy");
        let mut version = file(good, &[0; 4]);
        version[6] = 9;
        assert_eq!(kind(&version), "NotNpy");
    }
}
