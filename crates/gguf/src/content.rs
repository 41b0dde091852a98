//! What a file says that it holds: `general.type` is `model` or missing for models, and something else for what goes with one.

use std::path::Path;

use rwkv_forge_container::Value;
use rwkv_forge_io::InputFile;
use rwkv_forge_tensor::shorten;

use crate::header::{Header, Limits};
use crate::value::Metadata;

/// The key, which llama.cpp's converters write.
const TYPE: &str = "general.type";

/// Types that are known, and what they are.
const KNOWN: [(&str, &str); 3] = [
    ("adapter", "a LoRA adapter for llama.cpp"),
    ("imatrix", "the importance of columns, which --imatrix takes"),
    ("mmproj", "the projector of a model that sees or hears"),
];

/// What the metadata say that the file holds instead of a model, in words; `None` for those of a model.
pub(crate) fn other_than_model(metadata: &Metadata) -> Option<String> {
    let said = metadata.get(TYPE).and_then(Value::as_str).filter(|said| *said != "model")?;
    let what = KNOWN.iter().find(|(known, _)| *known == said).map_or("something that this program does not know", |(_, what)| *what);
    Some(format!("{what} ({TYPE} is {})", shorten(said)))
}

/// What a GGUF file holds, in words; `None` for any other file.
#[must_use]
pub fn content_of(path: &Path) -> Option<String> {
    let file = InputFile::open(path).ok()?;
    let mut magic = [0; 4];
    file.read_exact_at(0, &mut magic).ok().filter(|()| &magic == b"GGUF")?;
    let header = Header::parse(&file, &Limits::default()).ok();
    let other = header.and_then(|header| other_than_model(&header.metadata));
    Some(other.unwrap_or_else(|| "a model".to_owned()))
}
