//! What was found as tables, for the terminal, the page and CSV.

use rwkv_forge_bench::Doubt;
use rwkv_forge_choose::{Candidate, Compared, Measured, Speed};
use rwkv_forge_eval::LayerError;
use rwkv_forge_report::{Cell, Column, Table, sink};
use rwkv_forge_score::{Evaluation, Interval, Slice};

use super::super::verdict::said;
use super::level_findings::LevelFindings;
use super::{Checked, Findings, Setting};
use crate::failure::Failure;
use crate::terminal::thousands;

/// Texts listed one by one; with more, only their categories are.
const LISTED: usize = 24;
/// Layers listed on the terminal.
const WORST: usize = 3;

/// `0.00157 [0.0015, 0.0016]`.
pub(crate) fn with_interval(value: f64, interval: Interval) -> Cell {
    let number = |value: f64| rwkv_forge_report::significant(value, 4);
    let text = match interval {
        Some([low, high]) => format!("{} [{}, {}]", number(value), number(low), number(high)),
        None => number(value),
    };
    Cell { text, value: Some(value) }
}

/// Why numbers have no intervals, where there are too few windows, texts or pairs for any.
pub(crate) fn no_interval<'e>(mut evaluations: impl Iterator<Item = &'e Evaluation>) -> Option<String> {
    // All went through the same schedule.
    Some(format!("No intervals: {}.", evaluations.next()?.no_interval?))
}

/// A share as percent.
pub(crate) fn percent(share: f64) -> Cell {
    Cell { text: format!("{:.2} %", share * 100.0), value: Some(share) }
}

pub(crate) fn maybe(value: Option<f64>, show: impl FnOnce(f64) -> Cell) -> Cell {
    value.map_or_else(|| Cell::text("-"), show)
}

/// How well each model predicts.
pub(crate) fn quality<'e>(rows: impl Iterator<Item = (&'e str, &'e Evaluation)>) -> Table {
    let columns = ["bits per byte", "perplexity", "bits per token", "NLL per token", "NLL"];
    let mut table = Table::new("Prediction", std::iter::once(Column::left("model")).chain(columns.map(Column::right)));
    for (name, evaluation) in rows {
        let e = evaluation;
        table.push([
            Cell::text(name),
            maybe(e.bits_per_byte, |bits| Cell::fixed(bits, 4)),
            Cell { text: format!("{:.4} +- {:.4}", e.perplexity, e.perplexity_standard_error), value: Some(e.perplexity) },
            Cell::fixed(e.bits_per_token, 4),
            Cell::fixed(e.nll_per_token, 5),
            Cell::fixed(e.nll, 1),
        ]);
    }
    table
}

/// How far each model is from the baseline; empty without one.
pub(crate) fn divergence(models: &[Measured]) -> Table {
    let columns = ["mean KL", "median", "99 %", "99.9 %", "max", "same top-1", "ppl ratio", "first difference"];
    let mut table = Table::new("Divergence from the baseline", std::iter::once(Column::left("model")).chain(columns.map(Column::right)));
    for measured in models {
        let e = &measured.evaluation;
        let (Some(kl), Some(ratio), Some(top1)) = (&e.kl, &e.perplexity_ratio, e.top1) else { continue };
        let first = e.first_divergence.as_ref().and_then(|first| first.min);
        table.push([
            Cell::text(&measured.name),
            with_interval(kl.mean, kl.interval),
            Cell::measured(kl.median, 3),
            Cell::measured(kl.p99, 3),
            Cell::measured(kl.p999, 3),
            Cell::measured(kl.max, 3),
            percent(top1),
            Cell { text: with_ratio(ratio.ratio, ratio.ratio_interval), value: Some(ratio.ratio) },
            first.map_or_else(|| Cell::text("none"), |first| Cell::text(format!("token {first}"))),
        ]);
    }
    table
}

/// Ratios are near 1, where significant digits say nothing.
pub(crate) fn with_ratio(ratio: f64, interval: Interval) -> String {
    match interval {
        Some([low, high]) => format!("{ratio:.5} [{low:.5}, {high:.5}]"),
        None => format!("{ratio:.5}"),
    }
}

/// Change of the probability of the token that follows.
pub(crate) fn delta_p(models: &[Measured]) -> Table {
    let columns = ["mean", "rms", "0.1 %", "1 %", "5 %", "median", "95 %", "99 %", "99.9 %"];
    let title = "Change of the probability of the token that follows, in percentage points";
    let mut table = Table::new(title, std::iter::once(Column::left("model")).chain(columns.map(Column::right)));
    for measured in models {
        let Some(p) = &measured.evaluation.delta_p else { continue };
        let numbers = [p.mean, p.rms, p.p01.value, p.p1.value, p.p5.value, p.median.value, p.p95.value, p.p99.value, p.p999.value];
        let cells = numbers.map(|value| Cell { text: format!("{:+.3}", value * 100.0), value: Some(value) });
        table.push(std::iter::once(Cell::text(&measured.name)).chain(cells));
    }
    table
}

/// Parts of the text side by side, one row a part. Of more than two models one number each: the divergence, or without a baseline how
/// well they predict.
fn slices(title: &str, head: &str, models: &[&Measured], of: impl Fn(&Evaluation) -> &[Slice]) -> Option<Table> {
    let first = models.first().map(|measured| of(&measured.evaluation))?;
    if first.len() < 2 {
        return None;
    }
    let compared = first.iter().all(|slice| slice.kl.is_some());
    let in_bytes = first.iter().all(|slice| slice.bits_per_byte.is_some());
    let quality = if in_bytes { "bits per byte" } else { "perplexity" };
    let kinds: &[&str] = match (compared, models.len() > 2) {
        (false, _) => &[quality],
        (true, true) => &["mean KL"],
        (true, false) => &[quality, "mean KL", "same top-1"],
    };
    let mut columns = vec![Column::left(head), Column::right("tokens")];
    for measured in models {
        let name = |kind: &&str| Column::right(if models.len() > 1 { format!("{}: {kind}", measured.name) } else { (*kind).to_owned() });
        columns.extend(kinds.iter().map(name));
    }
    let mut table = Table::new(title, columns);
    for (index, slice) in first.iter().enumerate() {
        let mut row = vec![Cell::text(&slice.name), Cell::count(slice.tokens)];
        for slice in models.iter().filter_map(|measured| of(&measured.evaluation).get(index)) {
            row.extend(kinds.iter().map(|kind| match *kind {
                "mean KL" if models.len() > 2 => maybe(slice.kl, |kl| Cell::measured(kl, 3)),
                "mean KL" => maybe(slice.kl, |kl| with_interval(kl, slice.kl_interval)),
                "same top-1" => maybe(slice.top1, percent),
                _ => Cell::fixed(slice.bits_per_byte.unwrap_or(slice.perplexity), 4),
            }));
        }
        table.push(row);
    }
    Some(table)
}

/// By position, by category, by text: those that say something.
pub(crate) fn parts(models: &[&Measured]) -> Vec<Table> {
    let by_position = slices("By position in the sequence", "position", models, |e| &e.by_position);
    let by_category = slices("By category", "category", models, |e| &e.by_category);
    let by_text = slices("By text", "text", models, |e| if e.by_document.len() > LISTED { &[] } else { &e.by_document });
    // Where every text is a category of its own, one of the tables is enough.
    let same = |table: &Table| by_category.as_ref().is_some_and(|categories| categories.rows.len() == table.rows.len());
    let by_text = by_text.filter(|table| !same(table));
    [by_position, by_category, by_text].into_iter().flatten().collect()
}

/// Scores of the uncheatable evaluation: one row a data set, then their mean.
pub(crate) fn uncheatable(models: &[Measured]) -> Option<Table> {
    let first = models.first()?.evaluation.uncheatable.as_ref()?;
    let mut columns = vec![Column::left("data set"), Column::right("texts"), Column::right("bytes"), Column::right("tokens")];
    columns.extend(models.iter().map(|measured| Column::right(format!("{}, %", measured.name))));
    let mut table = Table::new("Uncheatable evaluation: size after compression, lower is better", columns);
    for (index, set) in first.sets.iter().enumerate() {
        let mut row = vec![Cell::text(&set.name), Cell::count(set.texts), Cell::count(set.bytes), Cell::count(set.tokens)];
        for measured in models {
            let found = measured.evaluation.uncheatable.as_ref().and_then(|all| all.sets.get(index));
            row.push(maybe(found.map(|set| set.score), |score| Cell::fixed(score, 4)));
        }
        table.push(row);
    }
    let all = &first.total;
    let mut row = vec![Cell::text("mean of the sets"), Cell::count(all.texts), Cell::count(all.bytes), Cell::count(all.tokens)];
    let averages = models.iter().map(|measured| measured.evaluation.uncheatable.as_ref().map(|all| all.average));
    row.extend(averages.map(|average| maybe(average, |average| Cell::fixed(average, 4))));
    table.push(row);
    Some(table)
}

/// Conditional scores of pairs.
pub(crate) fn pairs(models: &[Measured]) -> Option<Table> {
    models.first()?.evaluation.pairs.as_ref()?;
    let columns = ["pairs", "log probability, nats", "per pair", "against the baseline, per pair"];
    let mut table =
        Table::new("Continuations given their contexts", std::iter::once(Column::left("model")).chain(columns.map(Column::right)));
    for measured in models {
        let Some(pairs) = &measured.evaluation.pairs else { continue };
        table.push([
            Cell::text(&measured.name),
            Cell::count(pairs.each.len() as u64),
            Cell::fixed(pairs.log_probability, 2),
            with_interval(pairs.per_pair, pairs.per_pair_interval),
            maybe(pairs.change_per_pair, |change| with_interval(change, pairs.change_per_pair_interval)),
        ]);
    }
    Some(table)
}

/// The layers with the largest errors, of the residual stream and of the state.
pub(crate) fn worst_layers(models: &[Measured]) -> Option<Table> {
    let columns = ["residual stream: worst layers", "state: worst layers"].map(Column::left);
    let mut table = Table::new("Relative error after layers", std::iter::once(Column::left("model")).chain(columns));
    for measured in models.iter().filter(|measured| !measured.layers.is_empty()) {
        let worst = |of: fn(&LayerError) -> Option<f64>| {
            let mut found: Vec<(usize, f64)> = measured.layers.iter().filter_map(|layer| Some((layer.layer, of(layer)?))).collect();
            found.sort_by(|a, b| b.1.total_cmp(&a.1));
            let list = found.iter().take(WORST).map(|(layer, error)| format!("{layer} ({})", rwkv_forge_report::significant(*error, 3)));
            list.collect::<Vec<_>>().join(", ")
        };
        table.push([&measured.name, &worst(|layer| layer.residual), &worst(|layer| layer.state)].map(Cell::text));
    }
    (!table.rows.is_empty()).then_some(table)
}

/// What the model that levels are made of is called beside them.
pub(super) const SOURCE: &str = "(the source)";

/// One row a model with all that is a single number: what becomes CSV.
pub(crate) fn all(setting: &Setting<'_>, rows: &[(&str, &Evaluation, u64, f64, Option<Speed>)]) -> Table {
    let columns = [
        "file_bytes",
        "bits_per_weight",
        "tokens",
        "bytes",
        "nll",
        "perplexity",
        "perplexity_standard_error",
        "bits_per_byte",
        "bits_per_token",
        "kl_mean",
        "kl_low",
        "kl_high",
        "kl_median",
        "kl_p99",
        "kl_p999",
        "kl_max",
        "top1",
        "ppl_ratio",
        "ppl_ratio_low",
        "ppl_ratio_high",
        "uncheatable",
        "tokens_per_second",
        "tokens_per_second_quartile_1",
        "tokens_per_second_quartile_3",
        "memory_bytes",
        "speed_doubts",
    ];
    let names = ["model", "protocol"].map(Column::left);
    let mut table = Table::new("All numbers", names.into_iter().chain(columns.map(Column::right)));
    let value = |value: Option<f64>| value.map_or_else(|| Cell::text(""), |value| Cell::measured(value, 6));
    for (name, e, bytes, bits, speed) in rows {
        let (kl, ratio) = (e.kl.as_ref(), e.perplexity_ratio.as_ref());
        let end = |interval: Option<Interval>, end: usize| value(interval.flatten().map(|ends| ends[end]));
        let (kl_ends, ratio_ends) = (kl.map(|kl| kl.interval), ratio.map(|ratio| ratio.ratio_interval));
        table.push([
            Cell::text(*name),
            Cell::text(setting.texts.schedule.protocol.name()),
            Cell::count(*bytes),
            value(Some(*bits)),
            Cell::count(e.tokens),
            Cell::count(e.bytes),
            value(Some(e.nll)),
            value(Some(e.perplexity)),
            value(Some(e.perplexity_standard_error)),
            value(e.bits_per_byte),
            value(Some(e.bits_per_token)),
            value(kl.map(|kl| kl.mean)),
            end(kl_ends, 0),
            end(kl_ends, 1),
            value(kl.map(|kl| kl.median)),
            value(kl.map(|kl| kl.p99)),
            value(kl.map(|kl| kl.p999)),
            value(kl.map(|kl| kl.max)),
            value(e.top1),
            value(ratio.map(|ratio| ratio.ratio)),
            end(ratio_ends, 0),
            end(ratio_ends, 1),
            value(e.uncheatable.as_ref().map(|uncheatable| uncheatable.average)),
            value(speed.as_ref().map(|speed| speed.tokens_per_second)),
            value(speed.as_ref().map(|speed| speed.quartile_1)),
            value(speed.as_ref().map(|speed| speed.quartile_3)),
            speed.as_ref().map_or_else(|| Cell::text(""), |speed| Cell::count(speed.memory_bytes)),
            Cell::text(speed.iter().flat_map(|speed| &speed.doubts).map(Doubt::name).collect::<Vec<_>>().join(" ")),
        ]);
    }
    table
}

/// A speed with the distance of its quartiles, and a mark if it was measured while something else ran.
fn rate(speed: &Speed) -> Cell {
    let mark = if speed.is_sound() { "" } else { " ?" };
    let text = format!("{:.1} ({:.0} %){mark}", speed.tokens_per_second, speed.spread() * 100.0);
    Cell { text, value: Some(speed.tokens_per_second) }
}

/// Levels, the source first: sizes, losses, speeds with the distance of their quartiles.
pub(crate) fn levels(findings: &LevelFindings<'_>) -> Table {
    let columns = ["bytes", "bits/weight", "mean KL", "99 % KL", "same top-1", "ppl ratio", "tokens/s", "memory, MB"];
    let title = format!("{} as {}", findings.source.name(), findings.container.name());
    let mut table = Table::new(title, std::iter::once(Column::left("level")).chain(columns.map(Column::right)));
    let speed = |speed: Option<&Speed>| {
        let rate = speed.map_or_else(|| Cell::text("-"), rate);
        [rate, maybe(speed.map(|speed| speed.memory_bytes as f64 / 1e6), |memory| Cell::fixed(memory, 1))]
    };
    let source = findings.source;
    let [rate, memory] = speed(findings.found.source_speed.as_ref());
    let same = ["0", "0", "100.00 %", "1"].map(Cell::text);
    let head = [Cell::text(SOURCE), Cell::count(source.bytes), Cell::fixed(source.bits_per_weight(), 2)];
    table.push(head.into_iter().chain(same).chain([rate, memory]));
    let Compared { results, speeds, front, .. } = findings.found;
    for (((level, found), on_front), own) in findings.levels.iter().zip(&results.models).zip(front).zip(speeds) {
        let e = &found.evaluation;
        let [rate, memory] = speed(own.as_ref());
        table.push([
            Cell::text(format!("{}{}", level.names[0], if *on_front && findings.levels.len() > 1 { " *" } else { "" })),
            Cell::count(level.bytes),
            Cell::fixed(level.bits_per_weight, 2),
            maybe(e.kl.as_ref().map(|kl| kl.mean), |mean| with_interval(mean, e.kl.as_ref().and_then(|kl| kl.interval))),
            maybe(e.kl.as_ref().map(|kl| kl.p99), |p99| Cell::measured(p99, 3)),
            maybe(e.top1, percent),
            maybe(e.perplexity_ratio.as_ref().map(|ratio| ratio.ratio), |ratio| Cell::fixed(ratio, 4)),
            rate,
            memory,
        ]);
    }
    table
}

/// The table of models for CSV.
pub(crate) fn models(findings: &Findings<'_>) -> Table {
    let sizes = findings.models.iter().map(|checked| (checked.bytes, checked.bits_per_weight()));
    let rows: Vec<_> = findings
        .results
        .models
        .iter()
        .zip(sizes)
        .map(|(measured, (bytes, bits))| (measured.name.as_str(), &measured.evaluation, bytes, bits, None))
        .collect();
    all(findings.setting, &rows)
}

impl Findings<'_> {
    /// Models with the baseline before them.
    pub(crate) fn evaluations(&self) -> impl Iterator<Item = (&str, &Evaluation)> {
        let baseline = self.baseline.zip(self.results.baseline.as_ref());
        let baseline = baseline.map(|(checked, evaluation)| (checked.name(), evaluation));
        baseline.into_iter().chain(self.results.models.iter().map(|measured| (measured.name.as_str(), &measured.evaluation)))
    }

    /// Everything for the terminal.
    pub(crate) fn text(&self) -> Result<String, Failure> {
        let mut out = String::new();
        if let Some(checked) = self.baseline.or(self.models.first()) {
            out.push_str(&format!("{}\n", super::super::model_line(checked.open.description())));
        }
        out.push_str(&format!("{}\n\n", self.setting.line()));
        let models = &self.results.models;
        let mut tables = vec![quality(self.evaluations())];
        if self.baseline.is_some() {
            tables.extend([divergence(models), delta_p(models)]);
        }
        tables.extend(uncheatable(models));
        tables.extend(pairs(models));
        tables.extend(parts(&models.iter().collect::<Vec<_>>()));
        tables.extend(worst_layers(models));
        for table in tables {
            out.push_str(&format!("{}:\n\n{}\n", table.title, table.to_markdown()?));
        }
        if let Some(why) = no_interval(self.evaluations().map(|(_, evaluation)| evaluation)) {
            out.push_str(&format!("{why}\n\n"));
        }
        for (checked, measured) in self.models.iter().zip(models) {
            out.push_str(&self.speed(checked, measured));
        }
        for measured in models {
            out.push_str(&self.loss(measured));
        }
        out.push_str(&self.printouts()?);
        Ok(out)
    }

    /// What the divergence means, as `convert` says it; nothing without a baseline.
    fn loss(&self, measured: &Measured) -> String {
        let Some(verdict) = super::verdict_of(&measured.evaluation) else { return String::new() };
        let unpredicted = self.predictions.baseline.as_ref().is_some_and(|prediction| !prediction.better).then_some("the baseline");
        let of = if self.results.models.len() > 1 { format!(" of {}", sink::word(&measured.name)) } else { String::new() };
        format!("loss{of}: {}\n", said(&verdict, "a longer text says more", unpredicted))
    }

    fn speed(&self, checked: &Checked, measured: &Measured) -> String {
        let fed = self.setting.texts.schedule.fed();
        let (bits, bytes) = (checked.bits_per_weight(), thousands(checked.bytes));
        let kept = if measured.kept_parts > 0 { ", partly by an earlier run" } else { "" };
        let speed = fed as f64 / measured.seconds.max(1e-9);
        format!(
            "{}: {bytes} bytes, {bits:.2} bits a weight; {:.1} s, {speed:.0} tokens/s{kept}\n",
            sink::word(&measured.name),
            measured.seconds
        )
    }

    /// What llama-perplexity would print.
    fn printouts(&self) -> Result<String, Failure> {
        let schedule = &self.setting.texts.schedule;
        let mut out = String::new();
        if !matches!(schedule.protocol, rwkv_forge_score::Protocol::Llama { .. }) {
            return Ok(out);
        }
        for measured in &self.results.models {
            let text = match measured.scores.compared {
                Some(_) => rwkv_forge_score::llama::divergence_text(schedule, &measured.scores)?,
                None => rwkv_forge_score::llama::perplexity_text(schedule, &measured.scores)?,
            };
            out.push_str(&format!("\n{}, as llama-perplexity prints it:\n{text}", sink::word(&measured.name)));
        }
        Ok(out)
    }
}
