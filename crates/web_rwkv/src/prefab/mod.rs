//! `.prefab`: the CBOR image of a model as web-rwkv 0.10 holds it once loaded.
//!
//! One map: `context` (an empty array), `info` (version and sizes), `rescale`, `sep`, and `tensor` with `embed`, `head` and the array
//! `layers`. A tensor is the map `{shape: [x, y, z, w], data: bytes}`, fastest dimension first. A matrix is a map of one entry that
//! names its type: `Fp16: tensor`, `Int8: {w, m}` with the codes in `w` and a minimum and maximum of each 128 in `m`, or `Fp4: {q, w, m}` with
//! a table of 16 values, codes, and the largest magnitude of each 64. Maps have the fields of web-rwkv's structures in
//! their order; the format has no version number of its own.
//!
//! Start at [`layout`](layout()) to write and at [`PrefabFile`] to read.

mod fields;
mod layout;
mod reader;
mod schema;

pub use layout::{constraint, holds, layout};
pub use reader::PrefabFile;
pub(crate) use schema::row;

/// Names of the types that matrices in a prefab may have.
pub(crate) const TYPES: &[&str] = &["f16", "int8", "nf4", "sf4"];

/// Bytes that [`is_prefab`] wants to see.
pub const MAGIC_BYTES: usize = 9;

/// Whether a file that begins like this is a prefab: a small map whose first key is `context`.
#[must_use]
pub fn is_prefab(start: &[u8]) -> bool {
    match start {
        [map, key @ ..] => (0xa1..0xb8).contains(map) && key.starts_with(b"\x67context"),
        [] => false,
    }
}

/// One part of each block of a quantized tensor, as [`rwkv_forge_model::Plane`] without the offset: first byte and number of bytes.
pub(crate) struct Parts {
    /// The codes.
    pub(crate) codes: (u32, u32),
    /// The scales.
    pub(crate) scales: (u32, u32),
}

/// Which bytes of an int8 block are stored where.
pub(crate) const INT8_PARTS: Parts = Parts { codes: (4, 128), scales: (0, 4) };

/// Which bytes of a block of four-bit codes are stored where.
pub(crate) const FLOAT4_PARTS: Parts = Parts { codes: (2, 32), scales: (0, 2) };
