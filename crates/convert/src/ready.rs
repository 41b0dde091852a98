//! Types that need no planning: each tensor gets what it needs within the bytes of a plain type.
//!
//! llama-quantize leaves the low-rank factors of RWKV-6 and RWKV-7 in 16 or 32 bits, and gives all matrices of the body one type.
//! Here the factors are stored as Q8_0, which costs about a millionth of a nat, and the bytes that this frees go to the matrices
//! that need them most. How much a matrix needs is known from its role and its place: measured with `plan` on trained models
//! of RWKV-4, 6 and 7 (docs/accuracy.md). A plan made for the model at hand does better; these are for those who want none.

use forge_allocation::{Choice as Option_, least_harm};
use forge_model::{Choice, Constraint, ModelDescription, TensorRole, TensorSpec};
use forge_tensor::Encoding;

use crate::container::Container;
use crate::error::ConvertError;

/// A ready type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Name on the command line.
    pub name: &'static str,
    /// What people call it.
    pub alias: &'static str,
    /// The plain type whose bytes it does not exceed, where the container has it.
    pub(crate) reference: &'static str,
    /// The plain type whose bytes it does not exceed in other containers, the first that a container has.
    pub(crate) elsewhere: &'static [&'static str],
}

/// All ready types.
pub(crate) const READY: &[Ready] = &[
    Ready { name: "rwkv-q4", alias: "4bit", reference: "q4_k_m", elsewhere: &["q4_1", "nf4"] },
    Ready { name: "rwkv-q5", alias: "5bit", reference: "q5_k_m", elsewhere: &["q5_1", "nf4"] },
    Ready { name: "rwkv-q6", alias: "6bit", reference: "q6_k", elsewhere: &["q5_1", "int8"] },
    Ready { name: "rwkv-q8", alias: "8bit", reference: "q8_0", elsewhere: &["int8"] },
];

/// Harm of a type relative to that of Q4_K, from measured divergences; in the order of bytes.
const LEVELS: &[(&str, f64)] = &[
    ("nf4", 1.3),
    ("q4_0", 1.5),
    ("q4_k", 1.0),
    ("q4_1", 1.1),
    ("q5_0", 0.45),
    ("q5_k", 0.29),
    ("q5_1", 0.32),
    ("q6_k", 0.085),
    ("int8", 0.02),
    ("q8_0", 0.012),
    ("f16", 2e-5),
];

/// Low-rank factors are stored in this type where rows are whole blocks.
const FACTORS: &str = "q8_0";

/// Share of a role in the divergence when everything is Q4_K, over all layers.
fn share(role: TensorRole) -> f64 {
    match role {
        TensorRole::Head => 24.0,
        TensorRole::Embedding => 14.0,
        TensorRole::FfnKey => 22.0,
        TensorRole::FfnValue => 18.0,
        TensorRole::AttOutput => 9.0,
        TensorRole::AttValue => 7.0,
        _ => 3.5,
    }
}

/// How much more the first and the last layer matter.
fn depth(spec: &TensorSpec, layers: usize) -> f64 {
    match spec.layer {
        // A channel of the first layer's output carries millions of times the energy of the others in larger models.
        Some(0) if spec.role == TensorRole::AttOutput => 4.0,
        Some(layer) if layer == 0 || layer + 1 == layers => 1.5,
        _ => 1.0,
    }
}

/// What is still to be decided of one tensor.
struct Item {
    index: usize,
    encodings: Vec<Encoding>,
    options: Vec<Option_>,
}

impl Ready {
    /// The plain type that a container has.
    pub(crate) fn reference_in(&self, container: &dyn Container) -> Result<&'static str, ConvertError> {
        let base = |name: &str| crate::preset::preset_by_name(name).ok().map(|preset| preset.base);
        let holds = |name: &&&'static str| base(name).is_some_and(|encoding| container.holds(encoding));
        let names = std::iter::once(&self.reference).chain(self.elsewhere);
        names.into_iter().find(|name| holds(&name)).copied().ok_or_else(|| {
            let carried = forge_quant::FORMATS.iter().map(|format| format.encoding()).filter(|encoding| container.holds(*encoding));
            ConvertError::TypeNotCarried {
                container: container.name(),
                encoding: self.name,
                carried: carried.map(|encoding| encoding.name).collect::<Vec<_>>().join(", "),
            }
        })
    }

    /// Improves `plain`, the choices of the reference, within its bytes less `spare`. Tensors for which `fixed` is true keep
    /// their choice.
    pub(crate) fn allocate(
        &self,
        model: &ModelDescription,
        container: &dyn Container,
        plain: &[Choice],
        fixed: &dyn Fn(&TensorSpec) -> bool,
        spare: u64,
    ) -> Result<Vec<Choice>, ConvertError> {
        let mut choices = plain.to_vec();
        let mut budget = 0;
        let mut items = Vec::new();
        for (index, (spec, choice)) in model.tensors.iter().zip(plain).enumerate() {
            if fixed(spec) {
                continue;
            }
            let before = bytes(spec, choice.encoding);
            if let Some(encoding) = self.factor(spec, model, container).filter(|encoding| bytes(spec, *encoding) < before) {
                choices[index] = Choice { encoding, reason: format!("{}: factors need no more", self.name) };
                budget += before - bytes(spec, encoding);
            } else if spec.role.is_matrix() {
                let item = item(index, spec, model, container);
                if item.options.len() > 1 {
                    budget += before;
                    items.push(item);
                }
            }
        }
        let options: Vec<Vec<Option_>> = items.iter().map(|item| item.options.clone()).collect();
        // What does not fit even with the smallest types is left as the reference has it.
        let Ok(found) = least_harm(&options, budget.saturating_sub(spare)) else { return Ok(plain.to_vec()) };
        for (item, picked) in items.iter().zip(&found.picked) {
            let encoding = item.encodings[*picked];
            choices[item.index] = Choice { encoding, reason: format!("{}: what its role needs", self.name) };
        }
        Ok(choices)
    }

    /// The type of a low-rank factor.
    fn factor(&self, spec: &TensorSpec, model: &ModelDescription, container: &dyn Container) -> Option<Encoding> {
        let constraint = container.constraint(model.version, spec);
        let open = matches!(constraint, Constraint::FloatUnlessAsked(_) | Constraint::F32UnlessAsked(_) | Constraint::Any);
        if !spec.role.is_lora() || !open {
            return None;
        }
        let encoding = forge_quant::by_name(FACTORS)?.encoding();
        (container.holds(encoding) && row_fits(spec, encoding)).then_some(encoding)
    }
}

/// Whether rows, as linear layers use them, are whole blocks.
fn row_fits(spec: &TensorSpec, encoding: Encoding) -> bool {
    forge_overlay::Weight::of(spec).is_ok_and(|weight| encoding.row_bytes(weight.columns as u64).is_ok())
}

fn bytes(spec: &TensorSpec, encoding: Encoding) -> u64 {
    spec.elements() / u64::from(encoding.block_len) * u64::from(encoding.block_bytes)
}

fn item(index: usize, spec: &TensorSpec, model: &ModelDescription, container: &dyn Container) -> Item {
    let layers = model.hyperparameters.layers;
    let alike = model.tensors.iter().filter(|other| other.role == spec.role).count().max(1);
    let weight = share(spec.role) * depth(spec, layers) / alike as f64;
    let open = match container.constraint(model.version, spec) {
        Constraint::Any | Constraint::FloatUnlessAsked(_) | Constraint::F32UnlessAsked(_) => true,
        Constraint::Float(_) | Constraint::F32Only(_) => false,
    };
    let mut item = Item { index, encodings: Vec::new(), options: Vec::new() };
    for (name, harm) in LEVELS {
        let Some(encoding) = forge_quant::by_name(name).map(|format| format.encoding()) else { continue };
        if container.holds(encoding) && row_fits(spec, encoding) && (open || encoding.is_float()) {
            item.encodings.push(encoding);
            item.options.push(Option_ { bytes: bytes(spec, encoding), harm: weight * harm });
        }
    }
    item
}
