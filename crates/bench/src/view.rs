//! The report for people: tables and a plot.

use rwkv_forge_report::{Axis, Cell, Column, Marks, Plot, Series, Table};

use crate::error::BenchError;
use crate::noise::Doubt;
use crate::report::{ModelReport, Report};

const MB: f64 = 1e6;
const GB: f64 = 1e9;

/// A type with fewer hundredths of the bytes than this does not stand for the whole file.
const MAIN: u64 = 90;
/// A type with fewer is not named.
const NAMED: u64 = 5;

/// The types of a file in which none is that of nearly all: `mixed: q8_0 48 %, q4_k 45 %`.
fn mixed(shares: &[(String, u64)]) -> Option<String> {
    let (_, first) = shares.first()?;
    let named: Vec<String> = shares.iter().filter(|(_, share)| *share >= NAMED).map(|(name, share)| format!("{name} {share} %")).collect();
    (*first < MAIN && named.len() > 1).then(|| format!("mixed: {}", named.join(", ")))
}

/// The type of a model, and what it is decoded to where there is no kernel for it.
fn type_of(model: &ModelReport) -> String {
    let ModelReport { encoding, held, shares, .. } = model;
    if let Some(mixed) = mixed(shares) {
        return if encoding == held { mixed } else { format!("{mixed}; {encoding} held as {held}") };
    }
    if encoding == held { encoding.clone() } else { format!("{encoding}, held as {held}") }
}

impl Report {
    /// Speed: one row for each model. With `compare`, ratios to the first one as well.
    #[must_use]
    pub fn speed_table(&self, compare: bool) -> Table {
        let mut columns = vec![Column::left("model"), Column::left("type")];
        let numbers = ["threads", "decode tokens/s", "half within", "MB read/token", "GB/s", "of bandwidth"];
        columns.extend(numbers.map(Column::right));
        columns.extend(self.prompt_lengths().iter().map(|length| Column::right(format!("prompt {length} tokens/s"))));
        columns.push(Column::right("load s"));
        if compare {
            columns.push(Column::right("decode ratio"));
            columns.extend(self.prompt_lengths().iter().map(|length| Column::right(format!("prompt {length} ratio"))));
        }
        let mut table = Table::new("speed", columns);
        for model in &self.models {
            let decode = &model.decode;
            let mut row = vec![
                Cell::text(self.label(model)),
                Cell::text(type_of(model)),
                Cell::count(model.threads as u64),
                rate(decode.tokens_per_second.median),
                doubted(percent(decode.tokens_per_second.relative()), model.doubts.iter().any(|doubt| !doubt.is_of_bandwidth())),
                Cell::measured(decode.read_bytes_per_token as f64 / MB, 4),
                Cell::measured(decode.read_bytes_per_second / GB, 3),
                doubted(percent(decode.bandwidth_share), model.doubts.iter().any(Doubt::is_of_bandwidth)),
            ];
            row.extend(model.prompt.iter().map(|prompt| rate(prompt.tokens_per_second.median)));
            row.push(Cell::measured(model.load.seconds.median, 3));
            if let Some(first) = self.models.first().filter(|_| compare) {
                row.push(Cell::fixed(decode.tokens_per_second.median / first.decode.tokens_per_second.median, 2));
                let pairs = model.prompt.iter().zip(&first.prompt);
                row.extend(pairs.map(|(prompt, first)| Cell::fixed(prompt.tokens_per_second.median / first.tokens_per_second.median, 2)));
            }
            table.push(row);
        }
        table
    }

    /// Memory: one row for each model.
    #[must_use]
    pub fn memory_table(&self) -> Table {
        let numbers = ["threads", "file MB", "weights MB", "state MB", "scratch MB", "batch MB", "resident growth MB"];
        let columns = [Column::left("model")].into_iter().chain(numbers.map(Column::right));
        let mut table = Table::new("memory", columns);
        for model in &self.models {
            let used = &model.memory.used;
            let mb = |bytes: u64| Cell::fixed(bytes as f64 / MB, 1);
            let mut row = vec![Cell::text(self.label(model)), Cell::count(model.threads as u64)];
            row.extend([model.file_bytes, used.weights, used.state, used.scratch, used.batch].map(mb));
            row.push(model.memory.resident_growth_bytes.map_or_else(|| Cell::text("?"), mb));
            table.push(row);
        }
        table
    }

    /// Decoding against position; `None` if it was not measured.
    #[must_use]
    pub fn position_table(&self) -> Option<Table> {
        let first = self.models.first().filter(|model| !model.positions.is_empty())?;
        let numbers = first.positions.iter().map(|position| Column::right(format!("at {}", position.position)));
        let columns = [Column::left("model"), Column::right("threads")].into_iter().chain(numbers).chain([Column::right("spread")]);
        let mut table = Table::new("tokens/s by position", columns);
        for model in &self.models {
            let mut row = vec![Cell::text(self.label(model)), Cell::count(model.threads as u64)];
            row.extend(model.positions.iter().map(|position| rate(position.tokens_per_second.median)));
            row.push(model.position_spread.map_or_else(|| Cell::text(""), percent));
            table.push(row);
        }
        Some(table)
    }

    /// The machine and its bandwidth, in sentences.
    #[must_use]
    pub fn machine_text(&self) -> String {
        let machine = &self.machine;
        let memory = machine.memory_bytes.map_or_else(String::new, |bytes| format!(", {:.1} GB of memory", bytes as f64 / GB));
        let sets = machine.isa_available.join(", ");
        let mut text = format!(
            "{} ({}), {} processors{memory}, {}; instruction sets {sets}.\n",
            machine.cpu, machine.architecture, machine.processors, machine.system
        );
        for bandwidth in &self.bandwidth {
            let rate = bandwidth.bytes_per_second;
            text += &format!(
                "Read bandwidth with {} {}: {:.1} GB/s (half of {} passes over {:.2} GB within {:.1} %).\n",
                bandwidth.threads,
                if bandwidth.threads == 1 { "thread" } else { "threads" },
                rate.median / GB,
                rate.count,
                bandwidth.buffer_bytes as f64 / GB,
                rate.relative() * 100.0,
            );
        }
        if let Some(quiet) = self.quiet.line() {
            text += &format!("{quiet}\n");
        }
        for note in &self.notes {
            text += &format!("{note}.\n");
        }
        let others = self.models.iter().flat_map(|model| &model.doubts).find(|doubt| matches!(doubt, Doubt::OtherPrograms { .. }));
        if let Some(doubt) = others {
            text += &format!("To be distrusted (?): all speeds: {doubt}.\n");
        }
        for model in &self.models {
            // Of all models alike, and said above.
            for doubt in model.doubts.iter().filter(|doubt| !matches!(doubt, Doubt::OtherPrograms { .. })) {
                text += &format!("To be distrusted (?): {}, {}: {doubt}.\n", self.label(model), threads(model.threads));
            }
        }
        text
    }

    /// All of it as Markdown.
    ///
    /// # Errors
    /// [`BenchError::Report`] never for a report that [`crate::run`] made.
    pub fn to_markdown(&self, compare: bool) -> Result<String, BenchError> {
        let mut text = self.machine_text();
        for table in [Some(self.speed_table(compare)), Some(self.memory_table()), self.position_table()].into_iter().flatten() {
            text += &format!("\n{}", table.to_markdown()?);
        }
        Ok(text)
    }

    /// One row for each model with everything in base units.
    ///
    /// # Errors
    /// As [`Report::to_markdown`].
    pub fn to_csv(&self) -> Result<String, BenchError> {
        let mut names: Vec<String> = [
            "file",
            "format",
            "version",
            "type",
            "isa",
            "form",
            "threads",
            "parameters",
            "file_bytes",
            "decode_tokens_per_second",
            "decode_quartile_1",
            "decode_quartile_3",
            "read_bytes_per_token",
            "bandwidth_bytes_per_second",
            "bandwidth_share",
            "load_seconds",
            "weights_bytes",
            "state_bytes",
            "scratch_bytes",
            "batch_bytes",
            "resident_growth_bytes",
            "others_cpu_share",
            "doubts",
        ]
        .map(str::to_owned)
        .to_vec();
        names.extend(self.prompt_lengths().iter().map(|length| format!("prompt_{length}_tokens_per_second")));
        let positions = self.models.first().map(|model| model.positions.as_slice()).unwrap_or_default();
        names.extend(positions.iter().map(|position| format!("position_{}_tokens_per_second", position.position)));
        let mut table = Table::new("bench", names.into_iter().map(Column::left));
        for model in &self.models {
            let (decode, used) = (&model.decode, &model.memory.used);
            let exact = |value: f64| Cell { text: value.to_string(), value: Some(value) };
            let rate = decode.tokens_per_second;
            let mut row: Vec<Cell> = [&model.file, &model.format, &model.version, &model.encoding, &model.isa].map(Cell::text).to_vec();
            row.push(Cell::text(model.arithmetic));
            row.extend([model.threads as u64, model.parameters, model.file_bytes].map(Cell::count));
            row.extend([rate.median, rate.quartile_1, rate.quartile_3].map(exact));
            row.push(Cell::count(decode.read_bytes_per_token));
            row.extend(
                [decode.read_bytes_per_second / decode.bandwidth_share, decode.bandwidth_share, model.load.seconds.median].map(exact),
            );
            row.extend([used.weights, used.state, used.scratch, used.batch].map(Cell::count));
            row.push(model.memory.resident_growth_bytes.map_or_else(|| Cell::text(""), Cell::count));
            row.push(self.quiet.others_share.map_or_else(|| Cell::text(""), exact));
            row.push(Cell::text(model.doubts.iter().map(Doubt::name).collect::<Vec<_>>().join(" ")));
            row.extend(model.prompt.iter().map(|prompt| exact(prompt.tokens_per_second.median)));
            row.extend(model.positions.iter().map(|position| exact(position.tokens_per_second.median)));
            table.push(row);
        }
        Ok(table.to_csv()?)
    }

    /// If positions were measured, tokens a second against position; else against the bytes that a token reads, with the
    /// limit that the memory's bandwidth sets.
    ///
    /// # Errors
    /// As [`Report::to_markdown`].
    pub fn to_svg(&self) -> Result<String, BenchError> {
        let plot = if self.models.iter().any(|model| !model.positions.is_empty()) { self.position_plot() } else { self.bandwidth_plot() };
        Ok(plot.to_svg()?)
    }

    fn position_plot(&self) -> Plot {
        let mut plot = Plot::new("Decoding against position", Axis::log("position, tokens"), Axis::from_zero("tokens/s"));
        for model in &self.models {
            let points = model.positions.iter().map(|position| (position.position as f64, position.tokens_per_second.median));
            plot.push(format!("{}, {}", self.label(model), threads(model.threads)), Marks::LineAndPoints, points);
        }
        plot
    }

    fn bandwidth_plot(&self) -> Plot {
        let x = Axis::log("bytes of weights read per token");
        let y = Axis::log("tokens/s");
        let mut plot = Plot::new("Decoding and the limit that memory sets", x, y);
        for bandwidth in &self.bandwidth {
            let models = || self.models.iter().filter(|model| model.threads == bandwidth.threads);
            let point = |model: &ModelReport| (model.decode.read_bytes_per_token as f64, model.decode.tokens_per_second.median);
            let spread = |model: &ModelReport| (model.decode.tokens_per_second.quartile_1, model.decode.tokens_per_second.quartile_3);
            let points = Series::new(threads(bandwidth.threads), Marks::Points, models().map(point));
            plot.series.push(points.labelled(models().map(|model| self.label(model))).within(models().map(spread)));
            let bytes = models().map(|model| model.decode.read_bytes_per_token as f64);
            let (low, high) = bytes.fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), bytes| (low.min(bytes), high.max(bytes)));
            // A power of -1 is a straight line between logarithmic axes.
            let limit = [low, high].map(|bytes| (bytes, bandwidth.bytes_per_second.median / bytes));
            plot.push(format!("{}: read bandwidth", threads(bandwidth.threads)), Marks::Dashed, limit);
        }
        plot
    }

    /// The file, with what else tells its entries apart.
    fn label(&self, model: &ModelReport) -> String {
        let differs = |of: fn(&ModelReport) -> &str| self.models.iter().any(|other| of(other) != of(model));
        let mut label = model.file.clone();
        for (differs, text) in [(differs(|model| &model.isa), model.isa.as_str()), (differs(|model| model.arithmetic), model.arithmetic)] {
            if differs {
                label += &format!(" {text}");
            }
        }
        label
    }

    fn prompt_lengths(&self) -> Vec<usize> {
        self.models.first().map(|model| model.prompt.iter().map(|prompt| prompt.tokens).collect()).unwrap_or_default()
    }
}

/// Tokens a second, in full: an exponent would be hard to compare.
fn rate(value: f64) -> Cell {
    if value < 1000.0 { Cell::measured(value, 4) } else { Cell::fixed(value, 0) }
}

/// With a mark, if there is a reason to distrust it.
fn doubted(cell: Cell, is_doubted: bool) -> Cell {
    if is_doubted { Cell { text: format!("{} ?", cell.text), ..cell } } else { cell }
}

fn percent(share: f64) -> Cell {
    Cell { text: format!("{:.1} %", share * 100.0), value: Some(share) }
}

fn threads(count: usize) -> String {
    if count == 1 { "1 thread".to_owned() } else { format!("{count} threads") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_several_types_is_not_called_after_one() {
        let shares = |all: &[(&str, u64)]| all.iter().map(|(name, share)| ((*name).to_owned(), *share)).collect::<Vec<_>>();
        assert_eq!(mixed(&shares(&[("q8_0", 48), ("q4_k", 45), ("f16", 4)])).as_deref(), Some("mixed: q8_0 48 %, q4_k 45 %"));
        assert_eq!(mixed(&shares(&[("q4_k", 93), ("f16", 7)])), None);
        assert_eq!(mixed(&shares(&[("f16", 100)])), None);
        assert_eq!(mixed(&[]), None);
    }
}
