//! rwkv-quant: files that the package writes, and what its own reader finds in them, against what rwkv-forge makes of them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::table::{Fact, Report};
use crate::tools::{Workshop, capture};

/// Runs all comparisons.
pub fn run() -> Result<Report, String> {
    let shop = Workshop::new("rwkvq", 1)?;
    let folder = shop.root.join("peers/python");
    let python = PathBuf::from(capture(Command::new(folder.join("setup.sh")).stderr(Stdio::inherit()))?.trim());
    let script = |words: &[&Path]| -> Result<Value, String> {
        let output = capture(Command::new("nice").arg(&python).arg(folder.join("rwkvq.py")).args(words))?;
        serde_json::from_str(&output).map_err(|error| format!("rwkvq.py: {error}"))
    };
    let mut report = Report {
        peer: "rwkv-quant 0.3.0".to_owned(),
        about: "A random RWKV-7 quantized by the package in every way that it has; every value of our f32 copy against its reader's."
            .to_owned(),
        rows: Vec::new(),
        facts: Vec::new(),
        bounds: vec![],
        remarks: vec![],
    };
    let files = script(&[Path::new("make"), &shop.work])?;
    for file in files.as_array().into_iter().flatten().filter_map(Value::as_str).map(Path::new) {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let written = shop.convert(file, "safetensors", "f32", &format!("{name}.safetensors"))?;
        let found = script(&[Path::new("compare"), file, &written])?;
        let count = |found: &Value, key: &str| found[key].as_array().map_or(0, Vec::len);
        let equal = found["equal"].as_u64().unwrap_or(0);
        let passed = equal > 0 && count(&found, "different") == 0 && count(&found, "missing") == 0;
        let text = format!("{equal} tensors equal bit for bit, {} different; {}", count(&found, "different"), found["kinds"]);
        report.facts.push(Fact { what: name.clone(), found: text, passed });
        let planted = script(&[Path::new("compare"), file, &written, Path::new("--plant")])?;
        let different = count(&planted, "different");
        report.facts.push(Fact {
            what: format!("{name}, one bit of the expected values turned"),
            found: format!("{different} different"),
            passed: different == 1,
        });
    }
    Ok(report)
}
