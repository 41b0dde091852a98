//! Finding NaN and infinities in raw elements.

use crate::encoding::Encoding;

/// Elements between two looks at what was found: long enough for the widest instructions, which cannot stop in the middle.
const CHUNK: usize = 512;

/// Index of the first element that is NaN or infinite, in little-endian elements of a float type; `None` when all are
/// finite, or when `encoding` is no dense float. Elements of f64 count as they are used, rounded to f32. Signalling NaNs count.
#[must_use]
pub fn first_non_finite(encoding: Encoding, bytes: &[u8]) -> Option<usize> {
    match encoding {
        #[allow(clippy::cast_possible_truncation, reason = "rounding to f32 is what is asked about")]
        Encoding::F64 => position::<8>(bytes, |b| !(f64::from_le_bytes(b) as f32).is_finite()),
        Encoding::F32 => position::<4>(bytes, |b| u32::from_le_bytes(b) & 0x7f80_0000 == 0x7f80_0000),
        Encoding::F16 => position::<2>(bytes, |b| u16::from_le_bytes(b) & 0x7c00 == 0x7c00),
        Encoding::BF16 => position::<2>(bytes, |b| u16::from_le_bytes(b) & 0x7f80 == 0x7f80),
        _ => None,
    }
}

fn position<const N: usize>(bytes: &[u8], is_special: impl Fn([u8; N]) -> bool) -> Option<usize> {
    let elements = bytes.as_chunks::<N>().0;
    let any = |chunk: &[[u8; N]]| chunk.iter().fold(false, |found, element| found | is_special(*element));
    let start = elements.chunks(CHUNK).position(any)?.saturating_mul(CHUNK);
    let offset = elements.get(start..)?.iter().position(|element| is_special(*element))?;
    Some(start.saturating_add(offset))
}

#[cfg(test)]
mod tests {
    use super::{CHUNK, first_non_finite};
    use crate::Encoding;

    #[test]
    fn the_first_of_several_is_found_wherever_it_is() {
        let specials: [(Encoding, Vec<u8>, Vec<Vec<u8>>); 4] = [
            (Encoding::F64, 1.5f64.to_le_bytes().to_vec(), [f64::NAN, f64::INFINITY, -1e300].map(|v| v.to_le_bytes().to_vec()).to_vec()),
            (Encoding::F32, f32::MAX.to_le_bytes().to_vec(), [0x7f80_0001u32, 0xff80_0000].map(|v| v.to_le_bytes().to_vec()).to_vec()),
            (Encoding::F16, 0x7bffu16.to_le_bytes().to_vec(), [0x7c00u16, 0xfe00].map(|v| v.to_le_bytes().to_vec()).to_vec()),
            (Encoding::BF16, 0x7f7fu16.to_le_bytes().to_vec(), [0x7f80u16, 0xffff].map(|v| v.to_le_bytes().to_vec()).to_vec()),
        ];
        for (encoding, good, bad) in specials {
            let size = good.len();
            for place in [0, 1, CHUNK - 1, CHUNK, 2 * CHUNK + 3] {
                let mut bytes = good.repeat(2 * CHUNK + 5);
                assert_eq!(first_non_finite(encoding, &bytes), None, "{encoding}");
                for bad in &bad {
                    bytes[place * size..][..size].copy_from_slice(bad);
                    bytes[(2 * CHUNK + 4) * size..].copy_from_slice(bad);
                    assert_eq!(first_non_finite(encoding, &bytes), Some(place), "{encoding}");
                }
            }
        }
        assert_eq!(first_non_finite(Encoding::I32, &[0xff; 8]), None);
    }
}
