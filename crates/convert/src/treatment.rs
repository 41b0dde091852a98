//! What was done to a model besides its recipe: what a file's record says of it, and messages.

use std::path::Path;

/// For provenance: [`crate::ConvertOptions::treatment`] of what was merged ([`crate::OpenModel::merged`]), and of an imatrix of llama.cpp.
#[must_use]
pub fn treatment(merged: Option<&str>, imatrix: Option<&Path>) -> Option<String> {
    let lora = merged.map(str::to_owned);
    let imatrix = imatrix.map(|path| format!("imatrix={}", name(path)));
    let parts: Vec<String> = lora.into_iter().chain(imatrix).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Where importance came from, for [`crate::Preparation::importance`]: an imatrix, or a calibration text.
#[must_use]
pub fn origin_of_importance(imatrix: Option<&Path>, text: Option<&Path>) -> Option<String> {
    let imatrix = imatrix.map(|path| format!("the imatrix {}", name(path)));
    imatrix.or_else(|| text.map(|path| format!("the calibration text {}", name(path))))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
