//! The type of a file when nobody names one. Start at [`Taken`].

use rwkv_forge_tensor::Encoding;
use rwkv_forge_weights::Model;

use crate::container::{Container, DefaultTypes};
use crate::preset::KEEP;

/// A type that was taken because none was asked for, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its name, as `--type` takes it.
    pub name: &'static str,
    /// Why it is this one, to stand after "since".
    pub why: String,
}

impl Taken {
    /// What a file of this container gets: the types of a source that is quantized, as far as the container holds them, else what the
    /// container's registration says.
    ///
    /// ```
    /// use std::path::Path;
    ///
    /// use rwkv_forge_convert::container::by_name;
    /// use rwkv_forge_convert::recipe::Taken;
    /// use rwkv_forge_convert::{OpenOptions, open};
    ///
    /// let model = open(Path::new("../../fixtures/checkpoints/tiny-rwkv7.pth"), OpenOptions::default())?;
    /// let taken = |container| Ok::<_, rwkv_forge_tensor::BoxError>(Taken::for_file(&model.model, by_name(container)?).name);
    /// assert_eq!((taken("gguf")?, taken("prefab")?), ("4bit", "int8"));
    /// // A file that can hold the source's own values loses none.
    /// assert_eq!(taken("safetensors")?, "bf16");
    /// # Ok::<(), rwkv_forge_tensor::BoxError>(())
    /// ```
    #[must_use]
    pub fn for_file(model: &Model, container: &dyn Container) -> Self {
        let held = Held::of(model);
        let name = container.name();
        let quantized = held.quantized.first();
        let (kept, others): (Vec<Encoding>, Vec<Encoding>) = held.quantized.iter().partition(|encoding| container.holds(**encoding));
        if !kept.is_empty() {
            let others = match others.as_slice() {
                [] => String::new(),
                others => format!("; what is {} becomes f16, since they do not hold it", list(others)),
            };
            return Self { name: KEEP, why: format!("the source is quantized, and {name} files hold {}{others}", list(&kept)) };
        }
        match (container.default_types(), held.floats.as_slice(), quantized) {
            (DefaultTypes::Named(taken), ..) => Self { name: taken, why: format!("that is what {name} files are mostly used with") },
            (DefaultTypes::OfSource, _, Some(encoding)) => {
                Self { name: F16, why: format!("the source has tensors of type {encoding}, which {name} files do not hold") }
            }
            (DefaultTypes::OfSource, [float], None) if container.holds(*float) => {
                Self { name: float.name, why: "that is the type of the source".to_owned() }
            }
            (DefaultTypes::OfSource, [_, _, ..], None) if held.floats.iter().all(|float| container.holds(*float)) => {
                Self { name: KEEP, why: format!("the source has several types, all of which {name} files hold") }
            }
            (DefaultTypes::OfSource, ..) => Self { name: F16, why: format!("{name} files do not hold all that the source has") },
        }
    }
}

fn list(encodings: &[Encoding]) -> String {
    encodings.iter().map(|encoding| encoding.name).collect::<Vec<_>>().join(", ")
}

const F16: &str = Encoding::F16.name;

/// The types that a model's tensors have in its file, each once, in the order in which they come.
struct Held {
    floats: Vec<Encoding>,
    quantized: Vec<Encoding>,
}

impl Held {
    fn of(model: &Model) -> Self {
        let mut held = Self { floats: Vec::new(), quantized: Vec::new() };
        let stored = model.source().tensors();
        for info in model.description().tensors.iter().filter_map(|spec| stored.get(spec.source_index)) {
            let known = if info.encoding.is_dense() { &mut held.floats } else { &mut held.quantized };
            if !known.contains(&info.encoding) {
                known.push(info.encoding);
            }
        }
        held
    }
}
