//! The types that a tensor may get, and what they do to its weights.

use rwkv_forge_convert::container::Container;
use rwkv_forge_model::{ModelDescription, TensorRole, TensorSpec, TimeMix};
use rwkv_forge_quant::{BlockFormat, Family, Q6_K, Rows};
use rwkv_forge_quantizer::{Quantizer, Target};
use rwkv_forge_tensor::{BoxError, Encoding};
use rwkv_forge_weights::{Model, ReplaceError, Weight};
use serde::Serialize;

/// Rows of a tensor on which the error of a type is measured.
const ROWS: usize = 96;

/// Evenly spaced points of no more bits a weight than this are too few for the second factor of the decay.
const FEW_BITS: f64 = 5.0;

/// A type for a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TensorType {
    /// The type.
    #[serde(serialize_with = "name")]
    pub encoding: Encoding,
    /// Bytes of the tensor.
    pub bytes: u64,
    /// Squared error of the weights, each column weighted by its mean squared input, relative to the weights' own weighted square.
    pub error: f64,
}

fn name<S: serde::Serializer>(encoding: &Encoding, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(encoding.name)
}

/// Whether a container lets a plan choose this tensor's type.
#[must_use]
pub fn is_open(model: &ModelDescription, container: &dyn Container, spec: &TensorSpec) -> bool {
    container.constraint(model, spec).is_open() && (spec.role.is_matrix() || spec.role.is_lora())
}

/// The types that a tensor of a model with this time mix may get in a container, from the fewest bytes on, with the bytes of the tensor in each.
///
/// # Errors
/// When the tensor is no matrix.
pub fn tensor_types(time_mix: TimeMix, spec: &TensorSpec, container: &dyn Container) -> Result<Vec<(Encoding, u64)>, ReplaceError> {
    let weight = Weight::of(spec)?;
    let mut out = Vec::new();
    for format in planned(container, weight.columns) {
        let encoding = format.encoding();
        let Ok(row_bytes) = encoding.row_bytes(weight.columns as u64) else { continue };
        // The second factor of the decay is never worth so little.
        let decay = spec.role == TensorRole::DecayLora
            && weight.columns < 256
            && format.facts().family == Family::Even
            && format.bits() <= FEW_BITS;
        if !decay && container.holds(encoding) && !rwkv_forge_convert::is_unfit(time_mix, encoding) {
            out.push((encoding, row_bytes * weight.all_rows() as u64));
        }
    }
    Ok(out)
}

/// As [`tensor_types`], with their errors.
///
/// # Errors
/// When the tensor cannot be read or encoded.
pub fn tensor_types_with_errors(
    model: &Model,
    time_mix: TimeMix,
    spec: &TensorSpec,
    container: &dyn Container,
    importance: Option<&[f32]>,
) -> Result<Vec<TensorType>, BoxError> {
    let weight = Weight::of(spec)?;
    let values = Weight::read(model, spec)?;
    let step = (weight.all_rows() / ROWS).max(1);
    let rows: Vec<f32> = values.chunks_exact(weight.columns).step_by(step).take(ROWS).flatten().copied().collect();
    drop(values);
    // Judged once for all types, by the finest: errors that are compared must be weighed alike.
    let judged = importance.and_then(|importance| rwkv_forge_quantizer::judge(importance, Q6_K.encoding()).neutral);
    let importance = judged.as_deref();
    let own = square(&rows, weight.columns, importance);
    let mut out: Vec<TensorType> = Vec::new();
    for (encoding, bytes) in tensor_types(time_mix, spec, container)? {
        let error = if encoding.is_dense() { 0.0 } else { relative_error(&rows, weight.columns, encoding, importance)? / own.max(1e-30) };
        out.push(TensorType { encoding, bytes, error });
    }
    Ok(out)
}

/// The types that say that they are for rows like these, from the fewest bytes on. Those of long blocks serve rows of whole blocks of 256
/// in containers that have such types.
fn planned(container: &dyn Container, columns: usize) -> Vec<&'static dyn BlockFormat> {
    let long = rwkv_forge_quant::encodable().any(|format| format.facts().planned == Some(Rows::Long) && container.holds(format.encoding()));
    let rows = if long && columns.is_multiple_of(256) { Rows::Long } else { Rows::Short };
    let fits = |format: &&dyn BlockFormat| format.facts().planned.is_some_and(|planned| planned == rows || planned == Rows::All);
    let mut found: Vec<_> = rwkv_forge_quant::encodable().filter(fits).collect();
    found.sort_by(|a, b| a.bits().total_cmp(&b.bits()));
    found
}

fn square(rows: &[f32], columns: usize, importance: Option<&[f32]>) -> f64 {
    let row = |row: &[f32]| -> f64 {
        let weight = |column: usize| importance.map_or(1.0, |importance| f64::from(importance[column]));
        row.iter().enumerate().map(|(column, value)| weight(column) * f64::from(*value) * f64::from(*value)).sum()
    };
    rows.chunks_exact(columns).map(row).sum()
}

fn relative_error(rows: &[f32], columns: usize, encoding: Encoding, importance: Option<&[f32]>) -> Result<f64, BoxError> {
    let target = Target { format: encoding, rows: rows.len() / columns, columns, importance };
    let bytes = encoding.byte_len(&[target.rows as u64, columns as u64]).unwrap_or(0);
    let mut out = vec![0; usize::try_from(bytes).unwrap_or(0)];
    let by_search = rwkv_forge_quantizer::supports(Quantizer::Search, encoding);
    let loss =
        if by_search { rwkv_forge_quantizer::search(rows, &target, &mut out) } else { rwkv_forge_quantizer::ggml(rows, &target, &mut out) };
    Ok(loss?.weighted_error)
}

#[cfg(test)]
mod tests {
    use rwkv_forge_convert::container::by_name;

    /// A type that does not ask for it is in no plan: with more formats registered, planners try the types that they tried before.
    #[test]
    fn types_are_planned_by_consent() {
        let names = |container: &str, columns: usize| -> Vec<&str> {
            super::planned(by_name(container).unwrap(), columns).into_iter().map(|format| format.encoding().name).collect()
        };
        let short = ["nf4", "q4_0", "q4_1", "q5_0", "q5_1", "int8", "q8_0", "f16"];
        assert_eq!(names("gguf", 512), ["q2_k", "q3_k", "iq4_xs", "q4_k", "q5_k", "q6_k", "q8_0", "f16"]);
        assert_eq!(names("gguf", 96), short);
        assert_eq!(names("prefab", 512), short);
    }
}
