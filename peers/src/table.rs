//! The report of a check: comparisons of logits, each with its bound or as a planted fault, and facts that hold or don't.

use serde_json::json;

use crate::agreement::{Agreement, Bound};
use crate::npy::Matrix;

/// One file, or one that must not agree.
pub struct Row {
    pub model: String,
    pub container: &'static str,
    pub encoding: String,
    /// How the peer computes, where it has several ways.
    pub path: String,
    /// What was done to the file that the peer got, in a row that shows that the bound can fail.
    pub planted: Option<String>,
    pub agreement: Agreement,
    pub failures: Vec<String>,
}

impl Row {
    /// Compares our logits with the peer's.
    pub fn new(name: [&str; 3], container: &'static str, bound: &Bound, ours: &Matrix, theirs: &Matrix) -> Result<Self, String> {
        let [model, encoding, path] = name;
        let agreement = Agreement::between(ours, theirs).map_err(|error| format!("{model}, {container} {encoding}: {error}"))?;
        Ok(Self {
            model: model.to_owned(),
            container,
            encoding: encoding.to_owned(),
            path: path.to_owned(),
            planted: None,
            failures: agreement.failures(bound),
            agreement,
        })
    }

    /// The same as a fault that the bound has to find.
    pub fn planted(mut self, what: impl Into<String>) -> Self {
        self.planted = Some(what.into());
        self
    }

    fn passed(&self) -> bool {
        self.failures.is_empty() != self.planted.is_some()
    }

    fn verdict(&self) -> String {
        match (&self.planted, self.passed()) {
            (None, true) => "within bounds".to_owned(),
            (None, false) => format!("FAILED: {}", self.failures.join("; ")),
            (Some(what), true) => format!("planted ({what}): refused, as it must be"),
            (Some(what), false) => format!("FAILED: planted ({what}), and the bounds let it pass"),
        }
    }
}

/// Something that is so or is not.
pub struct Fact {
    pub what: String,
    pub found: String,
    pub passed: bool,
}

impl Fact {
    /// How many bytes of two files differ, and whether that many may.
    pub fn bytes(what: String, ours: &[u8], theirs: &[u8], admitted: impl Fn(usize) -> bool) -> Self {
        if ours.len() != theirs.len() {
            return Self { what, found: format!("{} bytes, but {}", ours.len(), theirs.len()), passed: false };
        }
        let different = ours.iter().zip(theirs).filter(|(ours, theirs)| ours != theirs).count();
        Self { what, found: format!("{different} of {} bytes differ", ours.len()), passed: admitted(different) }
    }
}

/// All comparisons with one peer.
pub struct Report {
    pub peer: String,
    /// What the comparisons with this peer are, in a sentence or two.
    pub about: String,
    pub rows: Vec<Row>,
    pub facts: Vec<Fact>,
    pub bounds: Vec<&'static Bound>,
    /// Known faults of the peer, and how its files get around them.
    pub remarks: Vec<&'static str>,
}

impl Report {
    /// Whether every file is within its bounds, every planted fault outside, and every fact so.
    pub fn passed(&self) -> bool {
        !(self.rows.is_empty() && self.facts.is_empty()) && self.rows.iter().all(Row::passed) && self.facts.iter().all(|fact| fact.passed)
    }

    /// Tables for people.
    pub fn markdown(&self) -> String {
        let mut text = format!("{}. {}\n\n", self.peer, self.about);
        if !self.rows.is_empty() {
            text += "| model | container | type | its path | max abs difference | rms ratio | top-1 | KL mean | KL max | |\n";
            text += "|---|---|---|---|---|---|---|---|---|---|\n";
        }
        for row in &self.rows {
            let a = row.agreement;
            text += &format!("| {} | {} | {} | {} | {:.2e} | ", row.model, row.container, row.encoding, row.path, a.max_abs);
            text += &format!("{:.2e} | {:.4} | {:.2e} | {:.2e} | {} |\n", a.rms_ratio, a.top1, a.kl_mean, a.kl_max, row.verdict());
        }
        if !self.facts.is_empty() {
            text += "\n| what | found | |\n|---|---|---|\n";
        }
        for fact in &self.facts {
            text += &format!("| {} | {} | {} |\n", fact.what, fact.found, if fact.passed { "as it must be" } else { "FAILED" });
        }
        if !self.bounds.is_empty() {
            text += "\nBounds:\n\n| file | max abs difference | rms ratio | top-1 | KL mean | because |\n|---|---|---|---|---|---|\n";
        }
        for bound in &self.bounds {
            let Bound { encoding, max_abs, rms_ratio, top1, kl_mean, why, .. } = bound;
            text += &format!("| {encoding} | {max_abs:.1e} | {rms_ratio:.1e} | {top1:.2} | {kl_mean:.1e} | {why} |\n");
        }
        for remark in &self.remarks {
            text += &format!("\n{remark}\n");
        }
        text
    }

    /// The same for programs.
    pub fn json(&self) -> String {
        let row = |row: &Row| {
            json!({
                "model": row.model, "container": row.container, "type": row.encoding, "planted": row.planted, "path": row.path,
                "tokens": row.agreement.tokens, "max_abs": row.agreement.max_abs, "rms_ratio": row.agreement.rms_ratio,
                "top1": row.agreement.top1, "clear_flips": row.agreement.clear_flips, "kl_mean": row.agreement.kl_mean,
                "kl_max": row.agreement.kl_max, "failures": row.failures, "passed": row.passed(),
            })
        };
        let rows: Vec<_> = self.rows.iter().map(row).collect();
        let facts: Vec<_> = self.facts.iter().map(|f| json!({ "what": f.what, "found": f.found, "passed": f.passed })).collect();
        let report = json!({ "schema_version": 1, "peer": self.peer, "passed": self.passed(), "rows": rows, "facts": facts, "remarks": self.remarks });
        format!("{report:#}\n")
    }
}
