//! Tables of both programs' figures side by side.

use serde_json::{Value, json};

use super::programs::{Divergence, Ours};
use super::{CONTEXT, Row, Speed};

/// All comparisons.
pub struct Report {
    pub(super) threads: usize,
    pub(super) without_amx: bool,
    pub(super) rows: Vec<Row>,
    pub(super) speeds: Vec<Speed>,
}

impl Report {
    /// Whether everything holds.
    pub fn passed(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(Row::passed)
    }

    /// For people.
    pub fn markdown(&self) -> String {
        let mut out = format!("llama-perplexity and `eval --protocol llama`, chunks of {CONTEXT} tokens, {} threads.", self.threads);
        if self.without_amx {
            out += " llama.cpp's kernels for AMX, which this processor announces, crash here: it ran without them.";
        }
        out += "\n\nPerplexity of each file, and llama.cpp's logits against those that `eval --save-logits` wrote of the same file:\n\n";
        out += "| model | type | perplexity: theirs | ours | KL theirs from ours | same top-1 | |\n|---|---|---|---|---|---|---|\n";
        for row in &self.rows {
            let runtimes = &row.measured.runtimes;
            out += &format!("| {} | {} | {:.4} ± {:.4} ", row.model, row.encoding, runtimes.perplexity.value, runtimes.perplexity.error);
            out += &format!("| {:.4} | {:.6} | {:.2} % ", row.measured.perplexity, runtimes.kl.value.max(0.0), runtimes.top1.value * 100.0);
            out += &format!("| {} |\n", row.verdict());
        }
        out += "\nAgainst the f16 file, by llama-perplexity, by `eval`, and by `eval --activations int8`:\n\n";
        out += "| model | type | KL mean: theirs | ours | ours, int8 | KL 99 %: theirs | ours | ours, int8 | same top-1: theirs | ours | ours, int8 |\n";
        out += &format!("|{}\n", "---|".repeat(11));
        for row in &self.rows {
            let Some((theirs, ours, rounded)) = &row.measured.against else { continue };
            out += &format!("| {} | {} | {:.6} ± {:.6} ", row.model, row.encoding, theirs.kl.value, theirs.kl.error);
            out += &format!("| {:.6} | {:.6} | {:.5} | {:.5} | {:.5} ", ours.kl, rounded.kl, theirs.kl_p99, ours.kl_p99, rounded.kl_p99);
            let percent = [theirs.top1.value, ours.top1, rounded.top1].map(|share| format!("{:.2} %", share * 100.0));
            out += &format!("| {} |\n", percent.join(" | "));
        }
        out += "\n| model | type | what has to hold | found | |\n|---|---|---|---|---|\n";
        for row in &self.rows {
            for check in &row.checks {
                let verdict = if check.passed { "holds" } else { "FAILED" };
                out += &format!("| {} | {} | {} | {} | {verdict} |\n", row.model, row.encoding, check.what, check.found);
            }
        }
        if !self.speeds.is_empty() {
            out += &speeds(&self.speeds);
        }
        out
    }

    /// For programs.
    pub fn json(&self) -> String {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        let speeds: Vec<Value> = self.speeds.iter().map(Speed::json).collect();
        let report = json!({
            "schema_version": 1, "peer": "llama-perplexity", "passed": self.passed(), "context": CONTEXT, "threads": self.threads,
            "without_amx": self.without_amx, "rows": rows, "speeds": speeds,
        });
        format!("{report:#}\n")
    }
}

fn speeds(speeds: &[Speed]) -> String {
    let mut out =
        "\nSpeed of whole runs, tokens a second of the text, best of the rounds, and peaks of resident memory. For the divergence \
        llama-perplexity runs twice, once for each model; ours once.\n\n"
            .to_owned();
    out += "| model | type | task | tokens | theirs | ours | ratio | memory, MB: theirs | ours |\n|---|---|---|---|---|---|---|---|---|\n";
    for speed in speeds {
        let [theirs, ours] = speed.rates();
        let mb = |bytes: Option<u64>| bytes.map_or("?".to_owned(), |bytes| format!("{:.0}", bytes as f64 / 1e6));
        let [their_peak, our_peak] = speed.peaks().map(mb);
        out += &format!("| {} | {} | {} | {} ", speed.model, speed.encoding, speed.task, speed.tokens);
        out += &format!("| {theirs:.0} | {ours:.0} | {:.2} | {their_peak} | {our_peak} |\n", ours / theirs);
    }
    out
}

impl Speed {
    /// Tokens a second of the fastest round: theirs, ours.
    fn rates(&self) -> [f64; 2] {
        [&self.theirs, &self.ours].map(|costs| self.tokens / costs.iter().map(|cost| cost.seconds).fold(f64::INFINITY, f64::min))
    }

    /// Largest peaks: theirs, ours.
    fn peaks(&self) -> [Option<u64>; 2] {
        [&self.theirs, &self.ours].map(|costs| costs.iter().filter_map(|cost| cost.peak).max())
    }

    fn json(&self) -> Value {
        let [theirs, ours] = self.rates();
        let [their_peak, our_peak] = self.peaks();
        json!({
            "model": self.model, "type": self.encoding, "task": self.task, "tokens": self.tokens, "rounds": self.ours.len(),
            "theirs_tokens_per_second": theirs, "ours_tokens_per_second": ours, "ratio": ours / theirs,
            "theirs_peak_bytes": their_peak, "ours_peak_bytes": our_peak,
        })
    }
}

impl Row {
    fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }

    fn verdict(&self) -> String {
        let failed: Vec<&str> = self.checks.iter().filter(|check| !check.passed).map(|check| check.what).collect();
        if failed.is_empty() { "agrees".to_owned() } else { format!("FAILED: {}", failed.join("; ")) }
    }

    fn json(&self) -> Value {
        let theirs = |d: &Divergence| {
            json!({
                "perplexity": d.perplexity.value, "base_perplexity": d.base.value, "kl_mean": d.kl.value, "kl_mean_error": d.kl.error,
                "kl_p99": d.kl_p99, "top1": d.top1.value,
            })
        };
        let ours = |o: &Ours| json!({ "perplexity": o.perplexity, "kl_mean": o.kl, "kl_p99": o.kl_p99, "top1": o.top1 });
        let against = self.measured.against.as_ref().map(|(t, o, r)| json!({ "theirs": theirs(t), "ours": ours(o), "ours_int8": ours(r) }));
        let checks: Vec<Value> = self.checks.iter().map(|c| json!({ "what": c.what, "found": c.found, "passed": c.passed })).collect();
        json!({
            "model": self.model, "type": self.encoding, "perplexity": self.measured.perplexity,
            "theirs_from_ours_same_file": theirs(&self.measured.runtimes), "against_f16": against, "checks": checks, "passed": self.passed(),
        })
    }
}
