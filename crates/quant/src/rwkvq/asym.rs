//! asym: codes of eight bits with a scale and a minimum in f32. `[scale: f32] [minimum: f32] [codes: u8]`, value = code * scale + minimum.
//! Groups have 64 weights; where they don't, or rows end within one, they are read in pieces of 8, each with the scale of its group.

use rwkv_forge_tensor::Encoding;

use super::decodes_to_numbers;
use crate::block::{Block, Flushed, Job};
use crate::{Facts, Family};

macro_rules! asym {
    ($(#[$doc:meta])* $name:ident, $label:literal, $length:literal, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        #[allow(non_camel_case_types, reason = "kind and length")]
        pub struct $name;

        impl Block for $name {
            type Values = [f32; $length];
            type Stored = [u8; $bytes];
            const ENCODING: Encoding = Encoding::new($label, $length, $bytes);
            const FACTS: Facts = Facts::new(Family::Even).read_only();

            fn encode(job: Job) -> Result<Flushed, usize> {
                job.refused()
            }

            #[inline(always)]
            fn decode(stored: &[u8; $bytes], out: &mut [f32; $length]) {
                let scale = f32::from_le_bytes([stored[0], stored[1], stored[2], stored[3]]);
                let minimum = f32::from_le_bytes([stored[4], stored[5], stored[6], stored[7]]);
                for (value, code) in out.iter_mut().zip(&stored[8..]) {
                    *value = f32::from(*code) * scale + minimum;
                }
            }

            fn is_finite(stored: &[u8; $bytes]) -> bool {
                decodes_to_numbers::<Self, $length>(stored)
            }
        }
    };
}

asym!(
    /// 9 bits a weight.
    ASYM, "asym", 64, 72
);
asym!(
    /// asym in pieces of eight weights. 16 bits a weight as it is read, less in the file.
    ASYM_8, "asym_8", 8, 16
);
