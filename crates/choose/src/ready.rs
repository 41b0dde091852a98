//! Types that need no planning: each tensor gets what it needs within the bytes of a plain type.
//!
//! llama-quantize leaves the low-rank factors of RWKV-6 and RWKV-7 in 16 or 32 bits, and gives all matrices of the body one type.
//! Here the factors are stored as Q8_0, which costs about a millionth of a nat, and the bytes that this frees go to the matrices
//! that need them most. How much a matrix needs is known from its role and its place: measured with `plan` on trained models
//! of RWKV-4, 6 and 7 (docs/accuracy.md). A plan made for the model at hand does better; these are for those who want none.

use std::collections::HashMap;

use rwkv_forge_convert::container::Container;
use rwkv_forge_convert::preset::Ready;
use rwkv_forge_convert::{Blueprint, ConvertOptions, Draft, OpenModel, is_unfit};
use rwkv_forge_model::{Choice, ModelDescription, TensorRole, TensorSpec};
use rwkv_forge_quant::{BlockFormat, Q8_0};
use rwkv_forge_tensor::{BoxError, Encoding};
use rwkv_forge_weights::Weight;

use crate::allocation::{AllocationError, Choice as Option_, Solution, least_harm_in_file};

/// Decides everything about an output without writing a byte: [`rwkv_forge_convert::blueprint`], for ready types too.
///
/// ```
/// use std::collections::BTreeSet;
/// use std::path::Path;
///
/// use rwkv_forge_choose::decide;
/// use rwkv_forge_convert::container::by_name;
/// use rwkv_forge_convert::recipe::Recipe;
/// use rwkv_forge_convert::{ConvertOptions, OpenOptions, Vocabulary, open};
///
/// let model = open(Path::new("../../fixtures/checkpoints/tiny-rwkv7.pth"), OpenOptions::default())?;
/// let vocabulary = std::fs::read("../../fixtures/checkpoints/vocab-320.txt").expect("a fixture");
/// let vocabulary = Vocabulary::File("vocab-320.txt".to_owned(), vocabulary);
/// let recipe = Recipe::new(None, Some("4bit"), &[])?;
/// let decided = decide(&model, &ConvertOptions::new(by_name("gguf")?, &recipe, &vocabulary))?;
///
/// // Matrices get what they need, so their types differ.
/// let types: BTreeSet<&str> = decided.choices.iter().map(|choice| choice.encoding.name).collect();
/// assert!(types.contains("q8_0") && types.len() > 2, "{types:?}");
/// # Ok::<(), rwkv_forge_tensor::BoxError>(())
/// ```
///
/// # Errors
/// As [`rwkv_forge_convert::blueprint`].
pub fn decide(model: &OpenModel, options: &ConvertOptions<'_>) -> Result<Blueprint, BoxError> {
    let draft = rwkv_forge_convert::draft(model, options)?;
    match draft.ready() {
        None => draft.blueprint(),
        Some(ready) => {
            let choices = improve(&draft, ready)?;
            draft.with(choices)?.blueprint()
        }
    }
}

/// The choices of a ready type: better ones than those of its plain type, in a file that is no larger.
fn improve(draft: &Draft<'_>, ready: &Ready) -> Result<Vec<Choice>, BoxError> {
    let (model, container) = (draft.model().description(), draft.container());
    let fixed = |spec: &TensorSpec| draft.is_fixed(spec);
    let limit = draft.plain_bytes()?;
    let extra = extra(ready, model, container, draft.choices(), &fixed);
    let open = open(ready, model, container, draft.choices(), &fixed, extra);
    // Metadata and padding depend on the types too.
    open.allocate(|choices| Ok(draft.bytes(choices)?.saturating_sub(limit + extra)))
}

/// The types that may be chosen, those that say what harm they do, in the order of bytes; of as many bytes the more harmful first.
fn judged_types() -> Vec<(Encoding, f64)> {
    let mut types: Vec<_> = rwkv_forge_quant::encodable().filter_map(|format| Some((format, format.facts().harm?))).collect();
    types.sort_by(|(a, harm_a), (b, harm_b)| a.bits().total_cmp(&b.bits()).then(harm_b.total_cmp(harm_a)));
    types.into_iter().map(|(format, harm)| (format.encoding(), harm)).collect()
}

/// Low-rank factors are stored in this type where rows are whole blocks.
const FACTORS: &dyn BlockFormat = &Q8_0;

/// Share of a role in the divergence when everything is Q4_K, over all layers.
fn share(role: TensorRole) -> f64 {
    match role {
        TensorRole::Head => 24.0,
        TensorRole::Embedding => 14.0,
        TensorRole::FfnKey => 22.0,
        TensorRole::FfnValue => 18.0,
        TensorRole::AttOutput => 9.0,
        TensorRole::AttValue => 7.0,
        TensorRole::AttReceptance
        | TensorRole::AttKey
        | TensorRole::AttGate
        | TensorRole::FfnReceptance
        | TensorRole::FfnGate
        | TensorRole::DeepTable
        | TensorRole::DeepRest
        | TensorRole::DeepQuery
        // No plain type rounds these to few bits.
        | TensorRole::LayerNorm
        | TensorRole::GroupNorm
        | TensorRole::TokenShift
        | TensorRole::TokenShiftLora
        | TensorRole::Decay
        | TensorRole::DecayLora
        | TensorRole::Bonus
        | TensorRole::Vector
        | TensorRole::IclrLora
        | TensorRole::ValueLora
        | TensorRole::GateLora
        | TensorRole::DeepLora
        | TensorRole::AttBias => 3.5,
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

/// What a ready type has still to decide.
struct Open<'a> {
    ready: &'a Ready,
    /// Those of the reference, and of factors.
    choices: Vec<Choice>,
    /// Index of each tensor that has a choice, with the types to choose from.
    items: Vec<(usize, Vec<Encoding>)>,
    options: Vec<Vec<Option_>>,
    /// Bytes that these tensors may take.
    budget: u64,
}

impl Open<'_> {
    /// The best choices whose file is not too large; `excess` says by how many bytes the file of some choices is. What does not fit even with
    /// the smallest types, or leaves nothing to choose, is left as the reference has it.
    fn allocate<E>(self, mut excess: impl FnMut(&[Choice]) -> Result<u64, E>) -> Result<Vec<Choice>, E> {
        let found = least_harm_in_file(&self.options, self.budget, |solution| excess(&self.picked(solution)).map_err(Refused::Elsewhere));
        match found {
            Ok(solution) => Ok(self.picked(&solution)),
            Err(Refused::Nothing) => Ok(self.choices),
            Err(Refused::Elsewhere(error)) => Err(error),
        }
    }

    fn picked(&self, solution: &Solution) -> Vec<Choice> {
        let mut choices = self.choices.clone();
        for ((index, encodings), picked) in self.items.iter().zip(&solution.picked) {
            choices[*index] = Choice { encoding: encodings[*picked], reason: format!("{}: what its role needs", self.ready.name) };
        }
        choices
    }
}

/// Why there is no pick: none fits, or laying a file out failed.
enum Refused<E> {
    Nothing,
    Elsewhere(E),
}

impl<E> From<AllocationError> for Refused<E> {
    fn from(_: AllocationError) -> Self {
        Self::Nothing
    }
}

/// Bytes by which a file may exceed that of the plain type, for containers that lack the one that is meant.
fn extra(ready: &Ready, model: &ModelDescription, container: &dyn Container, plain: &[Choice], fixed: &dyn Fn(&TensorSpec) -> bool) -> u64 {
    let lacks = ready.reference_in(container).is_ok_and(|preset| preset != ready.reference());
    let Some(sixteenths) = ready.sixteenths.filter(|_| lacks) else { return 0 };
    let tensors = model.tensors.iter().zip(plain).filter(|(spec, choice)| !fixed(spec) && !choice.encoding.is_dense());
    tensors.map(|(spec, choice)| (spec.elements() * sixteenths / 128).saturating_sub(bytes(spec, choice.encoding))).sum()
}

/// What there is to improve of `plain`, the choices of the reference, within its bytes and `extra` ones. Tensors for which
/// `fixed` is true keep their choice.
fn open<'r>(
    ready: &'r Ready,
    model: &ModelDescription,
    container: &dyn Container,
    plain: &[Choice],
    fixed: &dyn Fn(&TensorSpec) -> bool,
    extra: u64,
) -> Open<'r> {
    let mut open = Open { ready, choices: plain.to_vec(), items: Vec::new(), options: Vec::new(), budget: extra };
    let alike = count_roles(model);
    for (index, (spec, choice)) in model.tensors.iter().zip(plain).enumerate() {
        if fixed(spec) {
            continue;
        }
        let before = bytes(spec, choice.encoding);
        if let Some(encoding) = factor(spec, model, container).filter(|encoding| bytes(spec, *encoding) < before) {
            open.choices[index] = Choice { encoding, reason: format!("{}: factors need no more", ready.name) };
            open.budget += before - bytes(spec, encoding);
        } else if spec.role.is_matrix() {
            let least = if ready.floor { before } else { 0 };
            let weight =
                share(spec.role) * depth(spec, model.hyperparameters.layers) / alike.get(&spec.role).map_or(1.0, |count| *count as f64);
            let (encodings, options) = choices(spec, model, container, least, weight);
            if options.len() > 1 {
                open.budget += before;
                open.items.push((index, encodings));
                open.options.push(options);
            }
        }
    }
    open
}

/// The type of a low-rank factor.
fn factor(spec: &TensorSpec, model: &ModelDescription, container: &dyn Container) -> Option<Encoding> {
    if !spec.role.is_lora() || !container.constraint(model, spec).is_open() {
        return None;
    }
    let encoding = FACTORS.encoding();
    (container.holds(encoding) && row_fits(spec, encoding)).then_some(encoding)
}

/// Whether rows, as linear layers use them, are whole blocks.
fn row_fits(spec: &TensorSpec, encoding: Encoding) -> bool {
    Weight::of(spec).is_ok_and(|weight| encoding.row_bytes(weight.columns as u64).is_ok())
}

fn bytes(spec: &TensorSpec, encoding: Encoding) -> u64 {
    spec.elements() / u64::from(encoding.block_len) * u64::from(encoding.block_bytes)
}

/// How many tensors have each role.
fn count_roles(model: &ModelDescription) -> HashMap<TensorRole, usize> {
    let mut counts = HashMap::new();
    for spec in &model.tensors {
        *counts.entry(spec.role).or_default() += 1;
    }
    counts
}

/// What a tensor of this weight in the divergence may get, of `least` bytes or more.
fn choices(
    spec: &TensorSpec,
    model: &ModelDescription,
    container: &dyn Container,
    least: u64,
    weight: f64,
) -> (Vec<Encoding>, Vec<Option_>) {
    let open = container.constraint(model, spec).is_open();
    let (mut encodings, mut options) = (Vec::new(), Vec::new());
    for (encoding, harm) in judged_types() {
        let fits = container.holds(encoding)
            && row_fits(spec, encoding)
            && !is_unfit(model.mechanisms.time_mix, encoding)
            && bytes(spec, encoding) >= least;
        if fits && (open || encoding.is_float()) {
            encodings.push(encoding);
            options.push(Option_ { bytes: bytes(spec, encoding), harm: weight * harm });
        }
    }
    (encodings, options)
}

#[cfg(test)]
mod tests {
    use super::judged_types;

    /// A type that says nothing of its harm is never chosen: with more formats registered, ready types choose as before.
    #[test]
    fn types_are_chosen_by_consent() {
        let found: Vec<(&str, f64)> = judged_types().into_iter().map(|(encoding, harm)| (encoding.name, harm)).collect();
        let expected = [
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
        assert_eq!(found, expected);
    }
}
