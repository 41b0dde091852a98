//! What is known to break runtimes, looked for in files that are valid as such: rules for all files. Those for the files of one format stand
//! with it. Start at [`lint`].
//!
//! A new rule is one line in `general`, or in those of a format, and one function.

use rayon::prelude::*;
use rwkv_forge_container::lint::{About, Rule, first_of};
use rwkv_forge_model::{GGML_NAME_LIMIT, ModelDescription, WhenConstant};
use rwkv_forge_quant::NonFinite;
use rwkv_forge_tensor::{BoxError, TensorInfo, TensorSource, shorten};
use rwkv_forge_weights::{Constant, ZeroRun};

pub use rwkv_forge_container::lint::{Lint, Severity};

use crate::companions::Companions;
use crate::container::FORMATS;
use crate::open::OpenFile;

/// What a rule looks at.
pub(crate) struct Facts<'a> {
    source: &'a dyn TensorSource,
    model: Option<&'a ModelDescription>,
    /// Tensors with values that are NaN or infinite.
    non_finite: Vec<NonFinite>,
    /// Tensors of one value.
    constants: Vec<Constant>,
    /// Matrices of which a part is zero.
    zero_runs: Vec<ZeroRun>,
    /// What is wrong with the files beside it.
    pub(crate) companions: Companions,
}

/// Rules for all files.
fn general<'a>() -> Vec<Rule<Facts<'a>>> {
    let of_tensors = [
        Rule::error("non-finite", "weights that are NaN or infinite", non_finite),
        Rule::error("zero-tensor", "norms of zeros and matrices of one value: holes of a download, or no training", zero_tensor),
        Rule::warning(
            "zero-run",
            "matrices with zeros in one run of an eighth or more (but embedding and head, which may have unused rows)",
            zero_run,
        ),
        Rule::warning("constant-tensor", "other vectors of one value, which training has not changed", constant_tensor),
        Rule::error("name-length", "names of tensors beyond the 63 bytes that ggml-based runtimes hold", name_length),
        Rule::warning("block-length", "rows of matrices that are no whole number of blocks of 32 or 256", block_length),
        Rule::warning("layer-0-value", "unused v0, v1, v2 in layer 0 of an RWKV-7 checkpoint", layer_0_value),
    ];
    of_tensors.into_iter().chain(Companions::rules()).collect()
}

/// Everything that is looked for in any file: rules for all files, then those of each format.
#[must_use]
pub fn rules() -> Vec<About> {
    general().into_iter().map(|rule| rule.about).chain(FORMATS.iter().flat_map(|format| format.lints())).collect()
}

/// Looks for everything in [`rules`]. Reads the whole file, since any value may be none, and of a directory that is a model the files that say
/// something of it.
///
/// # Errors
/// When a tensor cannot be read.
pub fn lint(file: &OpenFile, model: Option<&ModelDescription>) -> Result<Vec<Lint>, BoxError> {
    let source = file.source();
    // Inside the pool, where threads need not be woken up for each tensor.
    let (non_finite, ()) = rayon::join(|| rwkv_forge_quant::all_non_finite(source), || ());
    let (mut constants, mut zero_runs) = (Vec::new(), Vec::new());
    if let Some(description) = model {
        let model = file.with(description.clone());
        constants = model.constants()?;
        let runs: Result<Vec<_>, _> = description.tensors.par_iter().map(|spec| model.zero_run(spec)).collect();
        zero_runs = runs?.into_iter().flatten().collect();
    }
    let companions = model.map(|model| Companions::of(file, model)).unwrap_or_default();
    let facts = Facts { source, model, non_finite: non_finite?, constants, zero_runs, companions };
    let mut all: Vec<Lint> = general().iter().filter_map(|rule| rule.find(&facts)).collect();
    all.extend(file.opened().lints());
    Ok(all)
}

impl Facts<'_> {
    /// Tensors of one value of which that says this much.
    fn of(&self, when: WhenConstant) -> impl Iterator<Item = String> {
        self.constants.iter().filter(move |constant| constant.when == when).map(ToString::to_string)
    }

    fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.source.tensors().iter().find(|info| info.name == name)
    }
}

fn non_finite(facts: &Facts<'_>) -> Option<String> {
    let (first, others) = facts.non_finite.split_first()?;
    let names: Vec<&str> = others.iter().map(|found| found.tensor.as_str()).collect();
    Some(if names.is_empty() { first.to_string() } else { format!("{first}; so do {}", names.join(", ")) })
}

fn zero_tensor(facts: &Facts<'_>) -> Option<String> {
    let found = first_of(facts.of(WhenConstant::Hole))?;
    Some(format!(
        "{found}: no trained model has such a tensor; the download may have holes, and commands take it with --allow-zero-tensors alone"
    ))
}

fn zero_run(facts: &Facts<'_>) -> Option<String> {
    let found = first_of(facts.zero_runs.iter().map(ToString::to_string))?;
    Some(format!("{found}: the download may have a hole there; its digest (--hashes) can be compared with the published one"))
}

fn constant_tensor(facts: &Facts<'_>) -> Option<String> {
    let found = first_of(facts.of(WhenConstant::Untrained))?;
    Some(format!("{found}: nothing is wrong with it as such, but training has not changed it, or the download has a hole there"))
}

fn name_length(facts: &Facts<'_>) -> Option<String> {
    let long = facts.source.tensors().iter().filter(|info| info.name.len() > GGML_NAME_LIMIT);
    let long = first_of(long.map(|info| format!("{} has {} bytes", shorten(&info.name), info.name.len())))?;
    Some(format!("{long}: ggml-based runtimes hold names of up to {GGML_NAME_LIMIT} bytes"))
}

fn block_length(facts: &Facts<'_>) -> Option<String> {
    let model = facts.model?;
    let rows = |length: u64| {
        let matrices = model.tensors.iter().filter(|spec| spec.role.is_matrix());
        let odd = matrices.filter(move |spec| spec.shape.last().is_some_and(|row| !row.is_multiple_of(length)));
        first_of(odd.map(|spec| format!("{} has rows of {}", spec.name, spec.shape.last().copied().unwrap_or(0))))
    };
    if let Some(odd) = rows(32) {
        return Some(format!("{odd}, no multiple of 32: no block format holds it"));
    }
    rows(256).map(|odd| format!("{odd}, no multiple of 256: llama.cpp's K types cannot hold it, and its quantizer takes wider ones"))
}

fn layer_0_value(facts: &Facts<'_>) -> Option<String> {
    let present = ["blocks.0.att.v0", "blocks.0.att.v1", "blocks.0.att.v2"].into_iter().filter(|name| facts.tensor(name).is_some());
    let present = first_of(present.map(str::to_owned))?;
    Some(format!("{present}: never used, and a file of rwkv.cpp with them aborts that program; our conversions leave them out"))
}
