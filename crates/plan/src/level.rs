//! The types that a tensor may get, and what they do to its weights.

use rwkv_forge_convert::container::Container;
use rwkv_forge_model::{Constraint, ModelDescription, TensorRole, TensorSpec, Version};
use rwkv_forge_overlay::Weight;
use rwkv_forge_quant::{BlockFormat, Q6_K};
use rwkv_forge_quantizer::{Quantizer, Target};
use rwkv_forge_tensor::{BoxError, Encoding, TensorSource};
use serde::Serialize;

/// Rows of a tensor on which the error of a type is measured.
const ROWS: usize = 96;

/// Types from the fewest bytes on. Those of 32 elements a block serve rows that are no whole blocks of 256.
const LONG: &[&str] = &["q2_k", "q3_k", "iq4_xs", "q4_k", "q5_k", "q6_k", "q8_0", "f16"];
const SHORT: &[&str] = &["nf4", "q4_0", "q4_1", "q5_0", "q5_1", "int8", "q8_0", "f16"];

/// A type for a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Level {
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
    let constraint = container.constraint(model, spec);
    let open = matches!(constraint, Constraint::Any | Constraint::FloatUnlessAsked(_) | Constraint::F32UnlessAsked(_));
    open && (spec.role.is_matrix() || spec.role.is_lora())
}

/// The types that a tensor may get in a container, from the fewest bytes on, with their errors.
///
/// # Errors
/// When the tensor cannot be read or encoded.
pub fn levels(
    source: &dyn TensorSource,
    version: Version,
    spec: &TensorSpec,
    container: &dyn Container,
    importance: Option<&[f32]>,
) -> Result<Vec<Level>, BoxError> {
    let weight = Weight::of(spec)?;
    let values = Weight::read(source, spec)?;
    let step = (weight.all_rows() / ROWS).max(1);
    let rows: Vec<f32> = values.chunks_exact(weight.columns).step_by(step).take(ROWS).flatten().copied().collect();
    drop(values);
    let long = rwkv_forge_quant::by_name("q4_k").is_some_and(|format| container.holds(format.encoding()));
    let names = if long && weight.columns.is_multiple_of(256) { LONG } else { SHORT };
    // Judged once for all types, by the finest: errors that are compared must be weighed alike.
    let judged = importance.and_then(|importance| rwkv_forge_quantizer::judge(importance, Q6_K.encoding()).neutral);
    let importance = judged.as_deref();
    let own = square(&rows, weight.columns, importance);
    let mut out: Vec<Level> = Vec::new();
    for name in names {
        let Some(format) = rwkv_forge_quant::by_name(name) else { continue };
        let encoding = format.encoding();
        let Ok(row_bytes) = encoding.row_bytes(weight.columns as u64) else { continue };
        // The second factor of the decay is never worth so little.
        let decay = spec.role == TensorRole::DecayLora && weight.columns < 256 && name.starts_with("q4");
        if decay || !container.holds(encoding) || rwkv_forge_convert::is_unfit(version, encoding) {
            continue;
        }
        let error = if encoding.is_dense() { 0.0 } else { relative_error(&rows, weight.columns, encoding, importance)? / own.max(1e-30) };
        out.push(Level { encoding, bytes: row_bytes * weight.all_rows() as u64, error });
    }
    Ok(out)
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
