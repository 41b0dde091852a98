//! The kinds of tensors: which buffers each has, of which types and shapes, and what they are put together to. Start at [`Buffers::tensor`].
//!
//! | kind | buffers |
//! |---|---|
//! | dense | dense |
//! | sb6 | codes_packed, gw_qh from 5 bits, gw_qh2 from 6, gw_qsqm, gw_d, gw_dm |
//! | sym | codes of 8 bits, or codes_packed, gw_qh, gw_qh2; gw_qs, gw_d |
//! | asym | codes, gw_scale, gw_min |
//! | rtn | codes, or codes_packed up to 4 bits; scale; outlier_indices and outlier_values or neither |

use std::collections::{HashMap, HashSet};

use rwkv_forge_quant::{ASYM, ASYM_8, BlockFormat, INT4_ROW, RTN, SB6_4, SB6_5, SB6_6, SYM6, SYM8};
use rwkv_forge_tensor::{Encoding, TensorInfo, TensorSource, format_shape};

use super::manifest::Entry;
use crate::assembled::{self, Parts, Piece, Rule};
use crate::error::{Refusal, Result, refuse};

/// Weights of sb6 and sym that share numbers of f16.
const SUPER: u64 = 256;

/// The buffers of a file, and which of them a tensor has taken.
pub(super) struct Buffers<'a> {
    source: &'a dyn TensorSource,
    by_name: HashMap<&'a str, usize>,
    taken: HashSet<usize>,
}

/// One tensor on the way: what it says, and the fields it lists that no rule has asked for yet.
struct Wanted<'a> {
    name: &'a str,
    entry: &'a Entry,
    rows: u64,
    row: u64,
    left: Vec<&'a str>,
}

impl<'a> Buffers<'a> {
    pub(super) fn new(source: &'a dyn TensorSource) -> Self {
        let by_name = source.tensors().iter().enumerate().map(|(index, info)| (info.name.as_str(), index)).collect();
        Self { source, by_name, taken: HashSet::new() }
    }

    /// How a tensor is stored, its buffers checked against what its entry says.
    ///
    /// # Errors
    /// `UnsupportedKind`, `BadManifest`, `MissingBuffer`, `ExtraBuffer`, `BadBuffer`.
    pub(super) fn tensor(&mut self, name: &str, entry: &Entry) -> Result<(TensorInfo, Parts)> {
        let mut wanted = Wanted::new(name, entry)?;
        let (encoding, parts) = match entry.kind.as_str() {
            "dense" => self.dense(&mut wanted)?,
            "sb6" => self.sb6(&mut wanted)?,
            "sym" => self.sym(&mut wanted)?,
            "asym" => self.asym(&mut wanted)?,
            "rtn" => self.rtn(&mut wanted)?,
            other => {
                let what = format!(
                    "tensor `{name}` is of the kind \"{}\"; read here are dense, sb6, sym, asym and rtn",
                    rwkv_forge_tensor::shorten(other)
                );
                return refuse(Refusal::UnsupportedKind, what);
            }
        };
        if let Some(field) = wanted.left.first() {
            let what = format!(
                "tensor `{name}` lists the field \"{}\", which its kind of {} bits does not have",
                rwkv_forge_tensor::shorten(field),
                entry.bits
            );
            return refuse(Refusal::ExtraBuffer, what);
        }
        Ok((TensorInfo { name: name.to_owned(), shape: entry.shape.0.clone(), encoding }, parts))
    }

    /// Every buffer must be some tensor's.
    ///
    /// # Errors
    /// `ExtraBuffer`.
    pub(super) fn finish(&self) -> Result<()> {
        match self.source.tensors().iter().enumerate().find(|(index, _)| !self.taken.contains(index)) {
            None => Ok(()),
            Some((_, info)) => {
                refuse(Refusal::ExtraBuffer, format!("no tensor that the manifest describes has the buffer `{}`", info.name))
            }
        }
    }

    /// The buffer of a field, which must have one of these types and this shape.
    fn take(&mut self, wanted: &mut Wanted<'_>, field: &str, types: &[Encoding], shape: &[u64]) -> Result<(usize, Encoding)> {
        let name = format!("{}::{field}", wanted.name);
        let listed = wanted.left.iter().position(|left| *left == field).map(|at| wanted.left.remove(at)).is_some();
        let found = self.by_name.get(name.as_str()).and_then(|index| Some((*index, self.source.tensors().get(*index)?)));
        let Some((index, info)) = found.filter(|_| listed) else {
            let why = if listed { "the file does not have it" } else { "the manifest does not list it" };
            let what = format!(
                "tensor `{}` of the kind {} and {} bits needs the buffer `{name}`: {why}",
                wanted.name, wanted.entry.kind, wanted.entry.bits
            );
            return refuse(Refusal::MissingBuffer, what);
        };
        if !types.contains(&info.encoding) || info.shape != shape {
            let types = types.iter().map(|known| known.name).collect::<Vec<_>>().join(" or ");
            let what = format!(
                "the buffer `{name}` is {} of {}; expected {types} of {}",
                info.encoding,
                format_shape(&info.shape),
                format_shape(shape)
            );
            return refuse(Refusal::BadBuffer, what);
        }
        self.taken.insert(index);
        Ok((index, info.encoding))
    }

    fn dense(&mut self, wanted: &mut Wanted<'_>) -> Result<(Encoding, Parts)> {
        wanted.bits(16..=64)?;
        let shape = wanted.entry.shape.0.clone();
        let (index, encoding) = self.take(wanted, "dense", &[Encoding::BF16, Encoding::F16, Encoding::F32], &shape)?;
        Ok((encoding, Parts::Whole(index)))
    }

    /// Buffers of so many bytes for 256 weights, in the order of the block.
    fn planes(&mut self, wanted: &mut Wanted<'_>, fields: &[(&str, Encoding, u64)]) -> Result<Parts> {
        let supers = wanted.row.checked_div(SUPER).unwrap_or(0);
        let mut pieces = Vec::new();
        for (field, encoding, bytes) in fields {
            let each = bytes.checked_div(u64::from(encoding.block_bytes)).unwrap_or(0);
            let shape = match *field {
                "gw_qsqm" => vec![wanted.rows, supers, each],
                _ => vec![wanted.rows, supers.saturating_mul(each)],
            };
            let (tensor, _) = self.take(wanted, field, &[*encoding], &shape)?;
            // What multiplies codes has no sign; what is added to them has one of its own.
            let rule = if ["gw_d", "gw_dm"].contains(field) { Rule::Scales(*encoding) } else { Rule::Free };
            pieces.push(Piece::Each { tensor, bytes: *bytes, rule });
        }
        Ok(Parts::Blocks(pieces))
    }

    fn sb6(&mut self, wanted: &mut Wanted<'_>) -> Result<(Encoding, Parts)> {
        wanted.bits(4..=6)?;
        wanted.groups(32, 8)?;
        let (encoding, high): (Encoding, &[_]) = match wanted.entry.bits {
            4 => (SB6_4.encoding(), &[]),
            5 => (SB6_5.encoding(), &[("gw_qh", Encoding::U8, 32)]),
            _ => (SB6_6.encoding(), &[("gw_qh", Encoding::U8, 32), ("gw_qh2", Encoding::U8, 32)]),
        };
        let low =
            [("gw_d", Encoding::F16, 2), ("gw_dm", Encoding::F16, 2), ("gw_qsqm", Encoding::U8, 12), ("codes_packed", Encoding::U8, 128)];
        Ok((encoding, self.planes(wanted, &[&low[..], high].concat())?))
    }

    fn sym(&mut self, wanted: &mut Wanted<'_>) -> Result<(Encoding, Parts)> {
        wanted.groups(16, 16)?;
        let scales = [("gw_d", Encoding::F16, 2), ("gw_qs", Encoding::I8, 16)];
        let (encoding, codes): (Encoding, &[_]) = match wanted.entry.bits {
            8 => (SYM8.encoding(), &[("codes", Encoding::I8, 256)]),
            6 => (SYM6.encoding(), &[("codes_packed", Encoding::U8, 128), ("gw_qh", Encoding::U8, 32), ("gw_qh2", Encoding::U8, 32)]),
            _ => return wanted.unsupported("6 or 8 bits"),
        };
        Ok((encoding, self.planes(wanted, &[&scales[..], codes].concat())?))
    }

    fn asym(&mut self, wanted: &mut Wanted<'_>) -> Result<(Encoding, Parts)> {
        wanted.bits(1..=8)?;
        let (rows, row, group) = (wanted.rows, wanted.row, wanted.entry.gw_gs);
        if wanted.entry.shape.0.len() != 2 || group == 0 || !group.is_multiple_of(8) {
            return wanted.unsupported("a matrix in groups of a multiple of 8 weights");
        }
        if !row.is_multiple_of(8) {
            return assembled::odd_rows(wanted.name, row);
        }
        let groups = row.div_ceil(group);
        wanted.blocks(groups)?;
        let whole = group == 64 && row.is_multiple_of(64);
        let encoding = if whole { ASYM.encoding() } else { ASYM_8.encoding() };
        let mut pieces = Vec::new();
        for field in ["gw_scale", "gw_min"] {
            let (tensor, _) = self.take(wanted, field, &[Encoding::F32], &[rows, groups])?;
            let rule = if field == "gw_scale" { Rule::Scales(Encoding::F32) } else { Rule::Free };
            pieces.push(Piece::Shared { tensor, bytes: 4, row, group, groups, rule });
        }
        let (tensor, _) = self.take(wanted, "codes", &[Encoding::U8], &[rows, row])?;
        pieces.push(Piece::Each { tensor, bytes: u64::from(encoding.block_len), rule: Rule::Unsigned(wanted.entry.bits) });
        Ok((encoding, Parts::Blocks(pieces)))
    }

    fn rtn(&mut self, wanted: &mut Wanted<'_>) -> Result<(Encoding, Parts)> {
        wanted.bits(2..=8)?;
        let (rows, row, shape) = (wanted.rows, wanted.row, wanted.entry.shape.0.clone());
        let matrix = shape.len() == 2;
        if shape.len() < 2 || wanted.entry.bits <= 4 && !matrix {
            return wanted.unsupported("two dimensions");
        }
        let mut of_scale = vec![1; shape.len()];
        of_scale.iter_mut().take(1).for_each(|dim| *dim = rows);
        let (scale, _) = self.take(wanted, "scale", &[Encoding::F16], &of_scale)?;
        // A row of codes with one scale may be several of the tensor.
        let width = shape.last().copied().unwrap_or(0);
        let scale = Piece::Shared { tensor: scale, bytes: 2, row, group: row, groups: 1, rule: Rule::Scales(Encoding::F16) };
        let (encoding, mut pieces) = if wanted.entry.bits > 4 {
            let (codes, _) = self.take(wanted, "codes", &[Encoding::I8], &shape)?;
            assembled::by_row(wanted.name, width, scale, codes, wanted.entry.bits)?
        } else {
            let (tensor, _) = self.take(wanted, "codes_packed", &[Encoding::U8], &[rows, row.div_ceil(2)])?;
            let pairs = row.is_multiple_of(32) && !wanted.left.contains(&"outlier_indices");
            if !row.is_multiple_of(8) {
                return assembled::odd_rows(wanted.name, row);
            }
            let encoding = if pairs { INT4_ROW.encoding() } else { RTN.encoding() };
            (encoding, vec![scale, Piece::Halves { tensor, row, alone: !pairs, bits: wanted.entry.bits }])
        };
        // What else is left over is refused by whoever asked.
        if !wanted.left.iter().any(|left| ["outlier_indices", "outlier_values"].contains(left)) {
            return Ok((encoding, Parts::Blocks(pieces)));
        }
        if !matrix {
            return wanted.unsupported("two dimensions where there are outliers");
        }
        let (places, values, count) = self.outliers(wanted)?;
        if let Some(Piece::Each { bytes, .. }) = pieces.last_mut() {
            *bytes = u64::from(RTN.encoding().block_len);
        }
        pieces.push(Piece::Outliers { places, values, count, row });
        Ok((RTN.encoding(), Parts::Blocks(pieces)))
    }

    /// The two buffers of outliers, and how many there are: what one of them says, and the other must.
    fn outliers(&mut self, wanted: &mut Wanted<'_>) -> Result<(usize, usize, u64)> {
        let name = format!("{}::outlier_values", wanted.name);
        let of_values = self.by_name.get(name.as_str()).and_then(|index| self.source.tensors().get(*index));
        let count = of_values.and_then(|info| info.shape.first().copied()).unwrap_or(0);
        let (values, _) = self.take(wanted, "outlier_values", &[Encoding::BF16], &[count])?;
        let (places, _) = self.take(wanted, "outlier_indices", &[Encoding::I32], &[count, 2])?;
        Ok((places, values, count))
    }
}

impl<'a> Wanted<'a> {
    fn new(name: &'a str, entry: &'a Entry) -> Result<Self> {
        let bad = |what: String| refuse(Refusal::BadManifest, format!("tensor `{name}` {what}"));
        let shape = &entry.shape.0;
        let Some((rows, rest)) = shape.split_first().filter(|_| !shape.contains(&0)) else {
            return bad(format!("has the shape {}; expected dimensions of 1 or more", format_shape(shape)));
        };
        let Ok(row) = rwkv_forge_tensor::element_count(rest) else {
            return bad(format!("has the shape {}, whose size overflows 64 bits", format_shape(shape)));
        };
        let left: Vec<&str> = entry.fields.0.iter().map(String::as_str).collect();
        let distinct: HashSet<&str> = left.iter().copied().collect();
        if distinct.len() != left.len() {
            return bad("lists a field twice".to_owned());
        }
        Ok(Self { name, entry, rows: *rows, row, left })
    }

    fn unsupported<T>(&self, expected: &str) -> Result<T> {
        let Entry { kind, bits, gw_gs, gw_sb, shape, .. } = self.entry;
        let what = format!(
            "tensor `{}` {} is {kind} of {bits} bits in groups of {gw_gs} and {gw_sb}; read here is {kind} of {expected}, as rwkv-quant 0.3.0 writes it",
            self.name,
            format_shape(&shape.0)
        );
        refuse(Refusal::UnsupportedKind, what)
    }

    fn bits(&self, known: std::ops::RangeInclusive<u64>) -> Result<()> {
        match known.contains(&self.entry.bits) {
            true => Ok(()),
            false => self.unsupported(&format!("{} to {} bits", known.start(), known.end())),
        }
    }

    /// Matrices of whole groups of groups.
    fn groups(&self, group: u64, groups: u64) -> Result<()> {
        let fits = self.entry.shape.0.len() == 2 && self.row.is_multiple_of(SUPER);
        if !fits || (self.entry.gw_gs, self.entry.gw_sb) != (group, groups) {
            return self.unsupported(&format!("a matrix in groups of {group} and {groups}, rows a multiple of {SUPER}"));
        }
        self.blocks(self.row.checked_div(group).unwrap_or(0))
    }

    /// The number of groups in a row, where it is said.
    fn blocks(&self, expected: u64) -> Result<()> {
        match self.entry.n_blocks.filter(|said| *said != expected) {
            None => Ok(()),
            Some(said) => {
                let what = format!("tensor `{}` says that a row has {said} groups; its shape makes it {expected}", self.name);
                refuse(Refusal::BadManifest, what)
            }
        }
    }
}
