//! The registries: what can be written and what can be read. A new container is one line here; a new format or naming, one line each. The
//! command line's help, the tables in the documentation and the test matrix follow from them.

pub use rwkv_forge_container::{Container, DefaultTypes, Format, Naming, Registry};

use std::path::Path;

use rwkv_forge_model::Version;

use crate::error::ConvertError;

/// All containers.
pub static CONTAINERS: &[&dyn Container] = &[
    &rwkv_forge_hf::Candle,
    &rwkv_forge_hf::CandleGguf,
    &rwkv_forge_gguf::Gguf,
    &rwkv_forge_hf::HuggingFace,
    &rwkv_forge_hf::HuggingFaceNative,
    &rwkv_forge_checkpoint::Pth,
    &rwkv_forge_ggml::RwkvCpp,
    &rwkv_forge_checkpoint::Safetensors,
    &rwkv_forge_web_rwkv::St,
    &rwkv_forge_web_rwkv::Prefab,
];

/// All formats, in the order in which messages list them.
pub static FORMATS: &[&dyn Format] = &[
    &rwkv_forge_checkpoint::Torch,
    &rwkv_forge_checkpoint::Safetensors,
    &rwkv_forge_gguf::Gguf,
    &rwkv_forge_ggml::RwkvCpp,
    &rwkv_forge_web_rwkv::Prefab,
];

/// All namings that a format does not know of itself.
pub static NAMINGS: &[&dyn Naming] = &[&rwkv_forge_hf::CandleInSafetensors, &rwkv_forge_hf::CandleInGguf];

/// Everything that can be read.
pub static READERS: Registry<'static> = Registry { formats: FORMATS, namings: NAMINGS };

/// What a file is by its bytes, for messages of whoever expected something else; `None` for what nobody reads.
pub(crate) fn described(path: &Path) -> Option<String> {
    let format = READERS.format_of(path).ok()?;
    Some(match rwkv_forge_gguf::content_of(path) {
        Some(content) => format!("a GGUF file: {content}"),
        None => format!("a file of the format {}", format.name()),
    })
}

/// Those that are meant when none is named.
static USUAL: &[&dyn Container] = &[&rwkv_forge_gguf::Gguf, &rwkv_forge_ggml::RwkvCpp];

/// The container that is meant when none is named and no model is known.
#[must_use]
pub fn usual() -> &'static dyn Container {
    USUAL[0]
}

/// The container that is meant when none is named: the first of the usual ones that carries models of this version, or the last of them,
/// which then says why not.
#[must_use]
pub fn usual_for(version: Version) -> &'static dyn Container {
    let carries = |container: &&&'static dyn Container| container.carries(version).is_ok();
    USUAL.iter().find(carries).or(USUAL.last()).copied().unwrap_or_else(usual)
}

/// Finds a container by name.
///
/// # Errors
/// [`ConvertError::UnknownContainer`] with the names that exist.
pub fn by_name(name: &str) -> Result<&'static dyn Container, ConvertError> {
    rwkv_forge_container::by_name(CONTAINERS, name).ok_or_else(|| {
        let all = CONTAINERS.iter().flat_map(|container| std::iter::once(container.name()).chain(container.aliases().iter().copied()));
        let meant = rwkv_forge_container::nearest(name, all).map_or_else(String::new, |near| format!("did you mean {near}? "));
        ConvertError::UnknownContainer { name: name.to_owned(), answer: format!("{meant}there are {}", names()) }
    })
}

/// The container that is named, or else the one whose files are called like the output.
///
/// # Errors
/// [`ConvertError::UnknownContainer`], and [`ConvertError::ContainerNeeded`] where neither says it.
pub fn named_or_implied(name: Option<&str>, output: Option<&Path>) -> Result<&'static dyn Container, ConvertError> {
    let implied = || output.and_then(|path| rwkv_forge_container::by_extension(CONTAINERS, path));
    let needed = || ConvertError::ContainerNeeded { output: output.map(Path::to_path_buf), known: names() };
    name.map_or_else(|| implied().ok_or_else(needed), by_name)
}

/// What to say of an output whose name is that of another container's files, which programs and people would then take it for.
///
/// ```
/// use std::path::Path;
/// use rwkv_forge_convert::container::{by_name, called_otherwise};
///
/// let gguf = by_name("gguf")?;
/// assert!(called_otherwise(gguf, Path::new("model.pth")).is_some());
/// assert_eq!(called_otherwise(gguf, Path::new("model.gguf")), None);
/// assert!(called_otherwise(gguf, Path::new("model.ckpt")).is_some_and(|note| note.contains(".ckpt")));
/// assert_eq!(called_otherwise(by_name("pth")?, Path::new("model.pt")), None);
/// # Ok::<(), rwkv_forge_convert::ConvertError>(())
/// ```
#[must_use]
pub fn called_otherwise(container: &dyn Container, output: &Path) -> Option<String> {
    let other = rwkv_forge_container::by_extension(CONTAINERS, output)?;
    let (own, theirs) = (container.extension(), other.extension());
    let name = container.name();
    let ending = output.extension().map_or_else(|| theirs.into(), |ending| ending.to_string_lossy());
    (!own.eq_ignore_ascii_case(theirs))
        .then(|| format!("the output is of {name} (.{own}), though its name ends in .{ending} as that of {}", other.name()))
}

/// The names of all containers, with what else each answers to.
fn names() -> String {
    let name = |container: &&dyn Container| match container.aliases() {
        [] => container.name().to_owned(),
        aliases => format!("{} (or {})", container.name(), aliases.join(", ")),
    };
    CONTAINERS.iter().map(name).collect::<Vec<_>>().join(", ")
}
