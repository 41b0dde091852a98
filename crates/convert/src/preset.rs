//! Types that can be asked for by name: what `llama-quantize` calls a type, and every block format by its own name.
//!
//! For RWKV, `llama-quantize` has no mixtures: all quantizable matrices get the base type and the head gets Q6_K (under
//! Q8_0 and the float types the base type too), so that its S, M and L names differ only in a number of the metadata.
//! The presets here mean exactly that. Of the hybrids with Qwen it knows one tensor by its name, the down projection of
//! the feed-forward part, and its mixtures give some layers' a wider type; see [`Preset::ffn_down`].

use rwkv_forge_model::TimeMix;
use rwkv_forge_quant::{BlockFormat, F16, IQ4_NL, IQ4_XS, Int8, NF4, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_1, Q5_K, Q6_K, Q8_0};
use rwkv_forge_tensor::Encoding;

use crate::better::{bits, bits_in};
use crate::container::Container;
use crate::error::ConvertError;

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
    /// Whether each tensor keeps the type that it has in the source, where the container holds that; the types above are for all others.
    pub keeps: bool,
    /// What some layers of hybrids get.
    down: Down,
}

impl Preset {
    /// Encoding of the down projection in layer `layer` of a hybrid of `layers` layers, for presets that have a special
    /// one.
    #[must_use]
    pub fn ffn_down(&self, layer: usize, layers: usize) -> Option<Encoding> {
        // The first and last eighth, and of the layers between them every third.
        let early = layer < layers / 8;
        let many = early || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
        let format = match self.down {
            Down::Base => None,
            Down::All(format) => Some(format),
            Down::Beginning(first, rest) => Some(if layer < layers / 16 { first } else { rest }),
            Down::Many(format) => Some(format).filter(|_| many),
            Down::Early(format) => Some(format).filter(|_| early),
        };
        format.map(BlockFormat::encoding)
    }
}

/// The type of the down projections of hybrids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Down {
    /// As all matrices.
    Base,
    /// Another one in all layers.
    All(&'static dyn BlockFormat),
    /// One in the first sixteenth of the layers, another in all others.
    Beginning(&'static dyn BlockFormat, &'static dyn BlockFormat),
    /// Another one in the first and last eighth of the layers, and in every third between them.
    Many(&'static dyn BlockFormat),
    /// Another one in the first eighth.
    Early(&'static dyn BlockFormat),
}

/// What llama-quantize makes of a block format, where it is more than that format.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mix {
    name: &'static str,
    base: &'static dyn BlockFormat,
    /// The number of the file type; `None` for that of the format.
    file_type: Option<u32>,
    down: Down,
}

const fn mix(name: &'static str, base: &'static dyn BlockFormat, file_type: Option<u32>, down: Down) -> Mix {
    Mix { name, base, file_type, down }
}

pub(crate) static Q4_K_M: Mix = mix("q4_k_m", &Q4_K, Some(15), Down::Many(&Q6_K));
pub(crate) static Q5_K_M: Mix = mix("q5_k_m", &Q5_K, Some(17), Down::Many(&Q6_K));

/// Those that are called as their format take the place of it.
static MIXES: &[&Mix] = &[
    &mix("q2_k", &Q2_K, None, Down::All(&Q3_K)),
    &mix("q3_k_s", &Q3_K, Some(11), Down::Base),
    &mix("q3_k_m", &Q3_K, Some(12), Down::Beginning(&Q5_K, &Q4_K)),
    &mix("q3_k_l", &Q3_K, Some(13), Down::All(&Q5_K)),
    &mix("q4_k_s", &Q4_K, Some(14), Down::Early(&Q5_K)),
    &Q4_K_M,
    &mix("q5_k_s", &Q5_K, Some(16), Down::Base),
    &Q5_K_M,
    &mix("iq4_nl", &IQ4_NL, None, Down::Early(&Q5_K)),
    &mix("iq4_xs", &IQ4_XS, None, Down::Early(&Q5_K)),
];

/// A type that is no ready one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plain {
    /// A format, with what llama-quantize makes of it.
    Format(&'static dyn BlockFormat),
    /// A row of the table of mixes.
    Mix(&'static Mix),
}

impl Plain {
    pub(crate) fn preset(self) -> Preset {
        let (name, base, file_type, down) = match self {
            Self::Mix(mix) => (mix.name, mix.base, mix.file_type, mix.down),
            Self::Format(format) => {
                let name = format.encoding().name;
                let down = MIXES.iter().find(|mix| mix.name == name).map_or(Down::Base, |mix| mix.down);
                (name, format, None, down)
            }
        };
        Preset { name, base: base.encoding(), head: head_of(base).encoding(), file_type, ready: None, keeps: false, down }
    }
}

/// A ready type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Name on the command line.
    pub name: &'static str,
    /// What it was called before: accepted everywhere, and what older recipes and records say.
    pub alias: &'static str,
    /// The plain type whose bytes it does not exceed, where the container has it.
    pub(crate) reference: Plain,
    /// What stands in for it in other containers, the first that a container has.
    pub(crate) elsewhere: &'static [&'static dyn BlockFormat],
    /// Sixteenths of a bit of a weight of the plain type. A container whose own types leave a gap there gets a mixture of as many bits; `None`
    /// keeps to the bytes of what stands in.
    pub sixteenths: Option<u64>,
    /// No tensor gets less than the plain type gives it. Of errors as small as those of 8 bits the shares below say too little for
    /// taking bytes from one role for another.
    pub floor: bool,
}

/// All ready types.
pub(crate) const READY: &[Ready] = &[
    Ready { name: "4bit", alias: "rwkv-q4", reference: Plain::Mix(&Q4_K_M), elsewhere: &[&Q4_1, &NF4], sixteenths: None, floor: false },
    Ready { name: "5bit", alias: "rwkv-q5", reference: Plain::Mix(&Q5_K_M), elsewhere: &[&Q5_1, &NF4], sixteenths: Some(88), floor: false },
    Ready { name: "6bit", alias: "rwkv-q6", reference: Plain::Format(&Q6_K), elsewhere: &[&NF4], sixteenths: Some(105), floor: false },
    Ready { name: "8bit", alias: "rwkv-q8", reference: Plain::Format(&Q8_0), elsewhere: &[&Int8], sixteenths: None, floor: true },
];

impl Ready {
    /// The plain type that is meant.
    #[must_use]
    pub fn reference(&self) -> Preset {
        self.reference.preset()
    }

    /// The plain type that a container has: the one that is meant, or what stands in for it.
    ///
    /// # Errors
    /// [`ConvertError::TypeNotCarried`] where it has neither.
    pub fn reference_in(&self, container: &dyn Container) -> Result<Preset, ConvertError> {
        let elsewhere = self.elsewhere.iter().map(|format| Plain::Format(*format));
        let presets = std::iter::once(self.reference).chain(elsewhere).map(Plain::preset);
        presets.into_iter().find(|preset| container.holds(preset.base)).ok_or_else(|| {
            let carried = rwkv_forge_quant::encodable().map(BlockFormat::encoding).filter(|encoding| container.holds(*encoding));
            ConvertError::TypeNotCarried {
                container: container.name(),
                encoding: self.name,
                carried: carried.map(|encoding| encoding.name).collect::<Vec<_>>().join(", "),
                // Where none stands in, there are no blocks at all.
                instead: String::new(),
            }
        })
    }
}

/// True for a type that models with this time mix never get without being asked for.
#[must_use]
pub fn is_unfit(time_mix: TimeMix, encoding: Encoding) -> bool {
    let unfit: &[&dyn BlockFormat] = match time_mix {
        // Its matrices have outlier channels: a block of Q4_0 that holds one has a single step for all 32 values and no offset, and a
        // model of 3B came out at a perplexity of 109 instead of 8.
        TimeMix::Wkv4 => &[&Q4_0],
        TimeMix::Wkv5 { .. } | TimeMix::Wkv6 { .. } | TimeMix::Wkv7 { .. } | TimeMix::Qrwkv6 { .. } => &[],
    };
    unfit.iter().any(|format| format.encoding() == encoding)
}

/// The types of the source, kept.
pub const KEEP: &str = "keep";

/// Names of all types that can be asked for: block formats, then the other presets. Each is there once, so that older names of the ready
/// types ([`Ready::alias`]) are not among them.
#[must_use]
pub fn type_names() -> Vec<&'static str> {
    let formats = rwkv_forge_quant::encodable().map(|format| format.encoding().name);
    let mixes = MIXES.iter().map(|mix| mix.name).filter(|name| rwkv_forge_quant::by_name(name).is_none());
    let ready = READY.iter().map(|ready| ready.name);
    formats.chain(mixes).chain(ready).chain([KEEP]).collect()
}

/// Older names of types, each with the name that it has now.
pub fn aliases() -> impl Iterator<Item = (&'static str, &'static str)> {
    READY.iter().map(|ready| (ready.alias, ready.name))
}

/// The block format of this name, in letters of either case. What is said of an unknown name is about `container`, where one is known.
///
/// # Errors
/// [`ConvertError::UnknownType`] with what was probably meant, [`ConvertError::ReadOnlyType`].
pub fn format_by_name(name: &str, container: Option<&dyn Container>) -> Result<Encoding, ConvertError> {
    let names = Names { known: rwkv_forge_quant::encodable().map(|format| format.encoding().name).collect(), container };
    writable(name, &names).map(BlockFormat::encoding)
}

/// The preset of this name, in letters of either case.
///
/// # Errors
/// [`ConvertError::UnknownType`] with the names that exist, [`ConvertError::ReadOnlyType`].
pub fn preset_by_name(name: &str) -> Result<Preset, ConvertError> {
    preset_for(name, None)
}

/// As [`preset_by_name`], for a file of `container`: what is said of an unknown name is about its types.
///
/// # Errors
/// As [`preset_by_name`].
pub fn preset_for(name: &str, container: Option<&dyn Container>) -> Result<Preset, ConvertError> {
    let name = name.trim();
    let is = |known: &str| known.eq_ignore_ascii_case(name);
    if let Some(ready) = READY.iter().find(|ready| is(ready.name) || is(ready.alias)) {
        return Ok(Preset { name: ready.name, ready: Some(ready), down: Down::Base, ..ready.reference.preset() });
    }
    if is(KEEP) {
        return Ok(Preset { name: KEEP, keeps: true, ..Plain::Format(&F16).preset() });
    }
    let plain = match MIXES.iter().find(|mix| is(mix.name)) {
        Some(mix) => Plain::Mix(mix),
        None => Plain::Format(writable(name, &Names { known: type_names(), container })?),
    };
    Ok(plain.preset())
}

/// Names that other programs have for formats.
const ELSEWHERE: &[(&str, &str)] =
    &[("float32", "f32"), ("fp32", "f32"), ("float16", "f16"), ("fp16", "f16"), ("half", "f16"), ("bfloat16", "bf16")];

/// A format that can be written.
fn writable(name: &str, names: &Names<'_>) -> Result<&'static dyn BlockFormat, ConvertError> {
    let name = name.trim();
    let ours = ELSEWHERE.iter().find(|(theirs, _)| theirs.eq_ignore_ascii_case(name)).map_or(name, |(_, ours)| ours);
    match rwkv_forge_quant::by_name(&ours.to_ascii_lowercase()) {
        Some(format) if format.facts().encodes => Ok(format),
        Some(format) => Err(ConvertError::ReadOnlyType { name: format.encoding().name, known: names.list() }),
        None => Err(names.unknown(name)),
    }
}

/// The names among which one is looked for.
pub(crate) struct Names<'a> {
    /// All that could be meant.
    known: Vec<&'static str>,
    /// The container whose types are asked for, if it is known.
    container: Option<&'a dyn Container>,
}

impl<'a> Names<'a> {
    /// Of the types of a container.
    pub(crate) fn of(container: &'a dyn Container) -> Self {
        Self { known: type_names(), container: Some(container) }
    }

    /// Those that the container holds.
    fn offered(&self) -> impl Iterator<Item = &'static str> {
        self.known.iter().copied().filter(|name| self.container.is_none_or(|container| is_held(name, container)))
    }

    /// Those with as many bits as `name` has, by the number in it: what is meant by `int4`, `4-bit` or `Q4`.
    fn of_as_many_bits(&self, name: &str) -> Option<(u32, Vec<&'static str>)> {
        let bits = bits_named(name)?;
        let found: Vec<&str> = self.offered().filter(|known| bits_named(known) == Some(bits)).collect();
        (!found.is_empty()).then_some((bits, found))
    }

    fn list(&self) -> String {
        self.offered().collect::<Vec<_>>().join(", ")
    }

    /// What to take where a container has no place for a type: those of as many bits. Begins with a semicolon, or is empty.
    pub(crate) fn instead_of(&self, name: &str) -> String {
        self.of_as_many_bits(name).map_or_else(String::new, |(bits, names)| format!("; of {bits} bits it has {}", self.best_first(names)))
    }

    /// The ready type first, which is the one to take; none that is larger than it, since that loses more.
    fn best_first(&self, mut names: Vec<&'static str>) -> String {
        let ready = |name: &str| READY.iter().find(|ready| ready.name == name);
        let best = names.iter().find_map(|name| ready(name)).zip(self.container).and_then(|(ready, container)| bits_in(ready, container));
        let is_larger =
            |name: &str| preset_by_name(name).ok().and_then(|preset| bits(preset.base)).zip(best).is_some_and(|(own, best)| own > best);
        names.retain(|name| ready(name).is_some() || !is_larger(name));
        names.sort_by_key(|name| ready(name).is_none());
        names.join(", ")
    }

    /// The refusal of a name that no type has.
    fn unknown(&self, name: &str) -> ConvertError {
        let whose = self.container.map_or_else(|| "there are".to_owned(), |container| format!("{} has", container.name()));
        let alike = self.of_as_many_bits(name);
        // Of names with a number those with the same number are meant first, and of `7bit` none is.
        let near = match &alike {
            Some((_, names)) => rwkv_forge_container::nearest(name, names.iter().copied()),
            None if bits_named(name).is_some() && name.to_ascii_lowercase().ends_with("bit") => None,
            None => rwkv_forge_container::nearest(name, self.offered()),
        };
        let meant = near.map_or_else(String::new, |near| format!("did you mean {near}? "));
        let answer = match alike {
            Some((bits, names)) => format!("{meant}of {bits} bits {whose} {}", self.best_first(names)),
            None => format!("{meant}{whose} {}", self.list()),
        };
        ConvertError::UnknownType { name: name.to_owned(), answer }
    }
}

/// Whether files of a container can have the type of this name.
fn is_held(name: &str, container: &dyn Container) -> bool {
    let Ok(preset) = preset_by_name(name) else { return false };
    preset.ready.map_or_else(|| container.holds(preset.base), |ready| ready.reference_in(container).is_ok())
}

/// The number in a name: `q4_k_m` and `4bit` are of 4 bits.
pub(crate) fn bits_named(name: &str) -> Option<u32> {
    let digits: String = name.chars().skip_while(|letter| !letter.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Heads of few bits cost more accuracy than their bytes are worth, so quantized bases but Q8_0 come with a wider one. Only
/// formats that GGUF files carry: those of other containers have no Q6_K beside them.
fn head_of(base: &'static dyn BlockFormat) -> &'static dyn BlockFormat {
    let in_gguf = base.facts().ggml.is_some();
    if in_gguf && !base.encoding().is_dense() && base.encoding() != Q8_0.encoding() { &Q6_K } else { base }
}

/// What stands in when rows are no whole number of blocks of a format: the format of shorter blocks nearest above it.
#[must_use]
pub fn stand_in(encoding: Encoding) -> Option<Encoding> {
    rwkv_forge_quant::by_encoding(encoding)?.facts().stand_in.map(BlockFormat::encoding)
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
