//! Tables of speeds and ratios.

use serde_json::{Value, json};

use super::{PROMPTS, Rates, Row, median};

/// All comparisons.
pub struct Report {
    machine: Value,
    /// Peer, remark, rows.
    tables: Vec<(String, &'static str, Vec<Row>)>,
}

impl Report {
    pub(super) fn new(machine: Value, tables: Vec<(String, &'static str, Vec<Row>)>) -> Self {
        Self { machine, tables }
    }

    /// For people.
    pub fn markdown(&self) -> String {
        let text = |field: &str| self.machine[field].as_str().unwrap_or("?").to_owned();
        let mut out = format!("{}, {} processors, {}.\n", text("cpu"), self.machine["processors"], text("system"));
        for (peer, remark, rows) in &self.tables {
            out += &format!(
                "\n{peer} and ours in turns; tokens a second, medians of {} rounds; in brackets the smallest and largest ratio of a round. {remark}\n\n",
                rows.first().map_or(0, |row| row.ours.len())
            );
            let mut header = "| model | type | threads | decode: theirs | ours | ratio | of bandwidth: theirs | ours |".to_owned();
            for length in PROMPTS {
                header += &format!(" prompt {length}: theirs | ours | ratio |");
            }
            out += &format!("{header}\n|{}\n", "---|".repeat(header.matches('|').count() - 1));
            for row in rows {
                out += &format!("{}\n", row.markdown());
            }
            let watched: Vec<&Row> = rows.iter().filter(|row| row.their_memory.is_some()).collect();
            if !watched.is_empty() {
                out += "\nResident memory while decoding, MB, and over the file's size:\n\n| model | type | threads | file | theirs | ours |\n|---|---|---|---|---|---|\n";
            }
            for row in watched {
                let over = |bytes: Option<u64>| {
                    bytes.map_or("?".to_owned(), |bytes| format!("{} ({:.2})", mb(bytes), bytes as f64 / row.file_bytes as f64))
                };
                out += &format!("| {} | {} | {} | {} | ", row.case.model, row.case.encoding, row.threads, mb(row.file_bytes));
                out += &format!("{} | {} |\n", over(row.their_memory), over(row.our_memory));
            }
        }
        out
    }

    /// For programs.
    pub fn json(&self) -> String {
        let table = |(peer, remark, rows): &(String, &'static str, Vec<Row>)| json!({ "peer": peer, "remark": remark, "rows": rows.iter().map(Row::json).collect::<Vec<_>>() });
        let tables: Vec<Value> = self.tables.iter().map(table).collect();
        format!("{:#}\n", json!({ "schema_version": 1, "machine": self.machine, "peers": tables }))
    }
}

/// One quantity in both programs: medians, and the ratio within each round.
struct Pair {
    ours: f64,
    theirs: f64,
    ratio: f64,
    low: f64,
    high: f64,
}

impl Row {
    fn pair(&self, of: impl Fn(&Rates) -> f64) -> Pair {
        let ratios: Vec<f64> = self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| of(ours) / of(theirs)).collect();
        Pair {
            ours: median(self.ours.iter().map(&of)),
            theirs: median(self.theirs.iter().map(&of)),
            low: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            high: ratios.iter().copied().fold(0.0, f64::max),
            ratio: median(ratios),
        }
    }

    fn pairs(&self) -> (Pair, Vec<Pair>) {
        (self.pair(|rates| rates.decode), (0..PROMPTS.len()).map(|index| self.pair(move |rates| rates.prompts[index])).collect())
    }

    fn markdown(&self) -> String {
        let (decode, prompts) = self.pairs();
        let share = median(self.shares.iter().copied()) * 100.0;
        let ratio = |pair: &Pair| format!("{:.2} ({:.2}-{:.2})", pair.ratio, pair.low, pair.high);
        let mut out =
            format!("| {} | {} | {} | {:.1} | {:.1} | ", self.case.model, self.case.encoding, self.threads, decode.theirs, decode.ours);
        out += &format!("{} | {:.0} % | {share:.0} % |", ratio(&decode), share * decode.theirs / decode.ours);
        for pair in &prompts {
            out += &format!(" {:.0} | {:.0} | {} |", pair.theirs, pair.ours, ratio(pair));
        }
        out
    }

    fn json(&self) -> Value {
        let (decode, prompts) = self.pairs();
        let pair = |pair: &Pair| json!({ "theirs": pair.theirs, "ours": pair.ours, "ratio": pair.ratio, "ratio_min": pair.low, "ratio_max": pair.high });
        let prompts: Vec<Value> =
            PROMPTS.iter().zip(&prompts).map(|(length, rates)| json!({ "tokens": length, "tokens_per_second": pair(rates) })).collect();
        json!({
            "model": self.case.model, "type": self.case.encoding, "threads": self.threads, "rounds": self.ours.len(),
            "decode": pair(&decode), "prompt": prompts, "our_bandwidth_share": median(self.shares.iter().copied()),
            "file_bytes": self.file_bytes, "our_resident_bytes": self.our_memory, "their_resident_bytes": self.their_memory,
        })
    }
}

fn mb(bytes: u64) -> String {
    format!("{:.0}", bytes as f64 / 1e6)
}
