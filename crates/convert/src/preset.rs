//! Types that can be asked for by name: what `llama-quantize` calls a type, and every block format by its own name.
//!
//! For RWKV, `llama-quantize` has no mixtures: all quantizable matrices get the base type and the head gets Q6_K (under
//! Q8_0 and the float types the base type too), so that its S, M and L names differ only in a number of the metadata.
//! The presets here mean exactly that. Of the hybrids with Qwen it knows one tensor by its name, the down projection of
//! the feed-forward part, and its mixtures give some layers' a wider type; see [`Preset::ffn_down`].

use rwkv_forge_tensor::Encoding;

use crate::error::ConvertError;
use crate::ready::{READY, Ready};

/// A type for a whole file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// Name on the command line.
    pub name: &'static str,
    /// Encoding of the quantizable matrices.
    pub base: Encoding,
    /// Encoding of the head.
    pub head: Encoding,
    /// `general.file_type` of a GGUF with this preset; `None` when the container's own table decides.
    pub file_type: Option<u32>,
    /// For the types that give each tensor what it needs within the bytes of a plain one.
    pub ready: Option<&'static Ready>,
}

impl Preset {
    /// Encoding of the down projection in layer `layer` of a hybrid of `layers` layers, for presets that have a special
    /// one.
    #[must_use]
    pub fn ffn_down(&self, layer: usize, layers: usize) -> Option<Encoding> {
        // The first and last eighth, and of the layers between them every third.
        let early = layer < layers / 8;
        let many = early || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
        let name = match self.name {
            "q2_k" => "q3_k",
            "q3_k_m" if layer < layers / 16 => "q5_k",
            "q3_k_m" => "q4_k",
            "q3_k_l" => "q5_k",
            "q4_k_m" | "q5_k_m" if many => "q6_k",
            "q4_k_s" | "iq4_nl" | "iq4_xs" if early => "q5_k",
            _ => return None,
        };
        rwkv_forge_quant::by_name(name).map(|format| format.encoding())
    }
}

/// Names that differ from the name of their block format: (name, block format, number of the file type).
const NAMED: &[(&str, &str, u32)] = &[
    ("q3_k_s", "q3_k", 11),
    ("q3_k_m", "q3_k", 12),
    ("q3_k_l", "q3_k", 13),
    ("q4_k_s", "q4_k", 14),
    ("q4_k_m", "q4_k", 15),
    ("q5_k_s", "q5_k", 16),
    ("q5_k_m", "q5_k", 17),
];

/// Encoding of the head under a quantized base.
const HEAD: &str = "q6_k";

/// Names of all types that can be asked for: block formats, then the other presets.
#[must_use]
pub fn type_names() -> Vec<&'static str> {
    let formats = rwkv_forge_quant::FORMATS.iter().map(|format| format.encoding().name);
    let named = NAMED.iter().filter(|(_, base, _)| rwkv_forge_quant::by_name(base).is_some()).map(|(name, ..)| *name);
    let ready = READY.iter().flat_map(|ready| [ready.alias, ready.name]);
    formats.chain(named).chain(ready).collect()
}

/// The block format of this name.
///
/// # Errors
/// [`ConvertError::UnknownType`] with the names that exist.
pub fn format_by_name(name: &str) -> Result<Encoding, ConvertError> {
    rwkv_forge_quant::by_name(name).map(|format| format.encoding()).ok_or_else(|| ConvertError::UnknownType {
        name: name.to_owned(),
        known: rwkv_forge_quant::FORMATS.iter().map(|format| format.encoding().name).collect::<Vec<_>>().join(", "),
    })
}

/// The preset of this name.
///
/// # Errors
/// [`ConvertError::UnknownType`] with the names that exist.
pub fn preset_by_name(name: &str) -> Result<Preset, ConvertError> {
    let unknown = || ConvertError::UnknownType { name: name.to_owned(), known: type_names().join(", ") };
    if let Some(ready) = READY.iter().find(|ready| ready.name == name || ready.alias == name) {
        let plain = preset_by_name(ready.reference)?;
        return Ok(Preset { name: ready.name, ready: Some(ready), ..plain });
    }
    let (name, base, file_type) = match NAMED.iter().find(|(named, ..)| *named == name) {
        Some((named, base, number)) => (*named, rwkv_forge_quant::by_name(base).ok_or_else(unknown)?.encoding(), Some(*number)),
        None => {
            let base = rwkv_forge_quant::by_name(name).ok_or_else(unknown)?.encoding();
            (base.name, base, None)
        }
    };
    Ok(Preset { name, base, head: head_of(base), file_type, ready: None })
}

/// Heads of few bits cost more accuracy than their bytes are worth, so quantized bases but Q8_0 come with a wider one. Only
/// formats that GGUF files carry: those of other containers have no Q6_K beside them.
fn head_of(base: Encoding) -> Encoding {
    let in_gguf = rwkv_forge_quant::by_encoding(base).is_some_and(|format| format.ggml_type().is_some());
    match rwkv_forge_quant::by_name(HEAD) {
        Some(head) if in_gguf && !base.is_dense() && base.name != "q8_0" => head.encoding(),
        _ => base,
    }
}

/// What stands in when rows are no whole number of blocks of a format: the 32-element format nearest above it.
#[must_use]
pub fn stand_in(encoding: Encoding) -> Option<Encoding> {
    let name = match encoding.name {
        "q2_k" | "q3_k" => "q4_0",
        "q4_k" => "q5_0",
        "q5_k" => "q5_1",
        "q6_k" => "q8_0",
        "iq4_xs" => "iq4_nl",
        _ => return None,
    };
    rwkv_forge_quant::by_name(name).map(|format| format.encoding())
}

#[cfg(test)]
mod tests {
    use super::preset_by_name;

    #[test]
    fn mixtures_of_hybrids_widen_some_layers() {
        let wide = |name: &str, layers: usize| -> Vec<usize> {
            let preset = preset_by_name(name).unwrap();
            (0..layers).filter(|layer| preset.ffn_down(*layer, layers).is_some()).collect()
        };
        // What llama-quantize does to a model of 18 layers.
        assert_eq!(wide("q4_k_m", 18), [0, 1, 4, 7, 10, 13, 15, 16, 17]);
        assert_eq!(wide("q4_k_s", 18), [0, 1]);
        assert_eq!(wide("q5_k_m", 3), [2]);
        assert!(wide("q8_0", 18).is_empty() && wide("q6_k", 18).is_empty() && wide("q4_k", 18).is_empty());
        let q3 = preset_by_name("q3_k_m").unwrap();
        assert_eq!((q3.ffn_down(0, 18).unwrap().name, q3.ffn_down(1, 18).unwrap().name), ("q5_k", "q4_k"));
    }
}
