//! What the values of a part must be. Start at [`Rule`].

use rwkv_forge_tensor::{BoxError, Encoding, TensorSource, decode_dense};

use crate::error::{CheckpointError, Refusal};

/// Most bits of a code.
const MOST_BITS: u64 = 8;

/// What the values of a part must be, where not everything that its type holds can be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Anything.
    Free,
    /// Codes of so many bits in a byte each, from 0 on.
    Unsigned(u64),
    /// The same, from -2^(bits - 1) on.
    Signed(u64),
    /// Scales of this type, from 0 on.
    Scales(Encoding),
}

impl Rule {
    /// Bytes of a value.
    fn unit(self) -> u64 {
        match self {
            Self::Free | Self::Unsigned(_) | Self::Signed(_) => 1,
            Self::Scales(encoding) => u64::from(encoding.block_bytes).max(1),
        }
    }

    /// The first value that breaks the rule: its index, what it is, and what would be right.
    fn broken(self, bytes: &[u8]) -> Option<(usize, String, String)> {
        let beyond = |bits: u64, low: i16, code: &dyn Fn(u8) -> i16| {
            let high = low.saturating_add(1i16.checked_shl(u32::try_from(bits).ok()?)?.saturating_sub(1));
            let (index, code) = bytes.iter().map(|byte| code(*byte)).enumerate().find(|(_, code)| !(low..=high).contains(code))?;
            Some((index, format!("the code {code}"), format!("codes of {bits} bits, from {low} to {high}")))
        };
        match self {
            Self::Free => None,
            Self::Unsigned(bits) | Self::Signed(bits) if bits >= MOST_BITS => None,
            Self::Unsigned(bits) => beyond(bits, 0, &|byte| i16::from(byte)),
            Self::Signed(bits) => {
                let half = 1i16.checked_shl(u32::try_from(bits.saturating_sub(1)).ok()?)?;
                beyond(bits, half.saturating_neg(), &|byte| i16::from(byte.cast_signed()))
            }
            Self::Scales(encoding) => {
                let mut values = Vec::new();
                decode_dense(encoding, bytes, &mut values);
                let (index, scale) = values.iter().enumerate().find(|(_, scale)| **scale < 0.0)?;
                Some((index, format!("the scale {scale}"), "scales that are not negative".to_owned()))
            }
        }
    }

    /// Refuses values that break the rule. `bytes` are those from byte `first` of a tensor on.
    ///
    /// # Errors
    /// `BadBuffer`, which says where the value is.
    pub(super) fn check(self, source: &dyn TensorSource, tensor: usize, first: u64, bytes: &[u8]) -> Result<(), BoxError> {
        let Some((index, found, expected)) = self.broken(bytes) else { return Ok(()) };
        let place = first.checked_div(self.unit()).unwrap_or(0).saturating_add(u64::try_from(index).unwrap_or(u64::MAX));
        let (name, columns) =
            source.tensors().get(tensor).map_or(("", 1), |info| (info.name.as_str(), info.shape.last().copied().unwrap_or(1)));
        let (row, column) = (place.checked_div(columns).unwrap_or(0), place.checked_rem(columns).unwrap_or(0));
        let what = format!(
            "the buffer `{name}` has {found} in row {row}, column {column}; expected {expected}: the file is damaged, or was not written by what \
             it names; get it again, or make it anew"
        );
        Err(CheckpointError::refused(Refusal::BadBuffer, what).in_file(source.path()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_bits_and_scales_no_sign() {
        let first = |rule: Rule, bytes: &[u8]| rule.broken(bytes).map(|(index, found, _)| (index, found));
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(first(Rule::Free, &all), None);
        for (bits, code) in [(1, 2), (5, 32), (7, 128)] {
            assert_eq!(first(Rule::Unsigned(bits), &all), Some((code, format!("the code {code}"))));
        }
        for (bits, code) in [(2, 2), (5, 16), (7, 64)] {
            assert_eq!(first(Rule::Signed(bits), &all), Some((code, format!("the code {code}"))));
            let low = -i16::try_from(code).unwrap_or(0);
            let bytes = [low, low - 1].map(|code| code.to_le_bytes()[0]);
            assert_eq!(first(Rule::Signed(bits), &bytes), Some((1, format!("the code {}", low - 1))));
        }
        assert_eq!([first(Rule::Unsigned(8), &all), first(Rule::Signed(8), &all)], [None, None]);
        let scales: Vec<u8> = [0.0f32, -0.0, 1.5, -2.0].iter().flat_map(|scale| scale.to_le_bytes()).collect();
        assert_eq!(first(Rule::Scales(Encoding::F32), &scales), Some((3, "the scale -2".to_owned())));
        assert_eq!(first(Rule::Scales(Encoding::F16), &[0, 0x3c, 0, 0xbc]), Some((1, "the scale -1".to_owned())));
    }
}
