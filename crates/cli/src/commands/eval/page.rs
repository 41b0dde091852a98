//! The page of results: verdict, plots, tables, where they come from.

use rwkv_forge_choose::{Candidate, Measured};
use rwkv_forge_report::{Axis, Dot, Figure, Guide, Marks, Page, PageTable, Pareto, Plot, Section, Verdict};
use rwkv_forge_score::Slice;

use super::level_findings::LevelFindings;
use super::levels::FRONT;
use super::{Checked, Findings, Setting, tables};
use crate::failure::Failure;
use crate::terminal::thousands;

/// Series in one plot; more cannot be told apart.
const SERIES: usize = 6;

/// The page of `eval MODEL...`.
pub(crate) fn of_models(findings: &Findings<'_>, violations: &[Vec<String>]) -> Result<Page, Failure> {
    let models = &findings.results.models;
    let names = findings.models.iter().map(Candidate::name).collect::<Vec<_>>().join(", ");
    let mut page = Page::new(match findings.baseline {
        Some(baseline) => format!("{names} against {}", baseline.name()),
        None => format!("How well {names} predicts text"),
    });
    page.subtitle = findings.setting.line();
    page.verdict = verdict_of_models(findings, violations);
    let mut section = Section::new("Numbers");
    section.table(tables::quality(findings.evaluations()));
    if findings.baseline.is_some() {
        section.table(tables::divergence(models));
        section.table(tables::delta_p(models));
        section.note(intervals(models));
    }
    [tables::uncheatable(models), tables::pairs(models)].into_iter().flatten().for_each(|table| section.table(table));
    findings.predictions.warnings.iter().for_each(|warning| section.note(format!("Warning: {warning}.")));
    page.sections.push(section);
    if findings.baseline.is_some() && models.len() > 1 {
        page.sections.insert(0, sizes(findings));
    }
    let shown: Vec<&Measured> = models.iter().take(SERIES).collect();
    page.sections.extend(curves(&shown, not_among(models, &shown, &format!("here are the first {SERIES}"))));
    page.sections.push(method(findings.setting));
    let all = findings.baseline.iter().copied().chain(findings.models);
    page.provenance = provenance(findings.setting, all);
    Ok(page)
}

/// The page of `eval --levels`.
pub(crate) fn of_levels(findings: &LevelFindings<'_>) -> Result<Page, Failure> {
    let mut page = Page::new(format!("What each level of {} loses", findings.source.name()));
    let count = findings.levels.len();
    page.subtitle =
        format!("{count} {} against the model as it is; {}", if count == 1 { "level" } else { "levels" }, findings.setting.line());
    page.verdict = verdict_of_levels(findings);
    page.sections.push(size_against_loss(findings));
    let shown = chosen(findings);
    let all = &findings.found.results.models;
    let rule = "here are the recommended level, the best buy and, from the smallest to the largest, levels that no other one beats";
    page.sections.extend(curves(&shown, not_among(all, &shown, rule)));
    let mut section = Section::new("More numbers");
    section.table(tables::divergence(&findings.found.results.models));
    section.table(tables::delta_p(&findings.found.results.models));
    findings.predictions.warnings.iter().for_each(|warning| section.note(format!("Warning: {warning}.")));
    page.sections.push(section);
    page.sections.push(method(findings.setting));
    page.provenance = provenance(findings.setting, std::iter::once(findings.source));
    Ok(page)
}

const INTERVALS: &str =
    "In brackets: 95 % bootstrap intervals over windows of the text, both models drawn on the same windows. KL is in nats a token.";

/// What there is to know of the intervals.
fn intervals(models: &[Measured]) -> String {
    let none = tables::no_interval(models.iter().map(|measured| &measured.evaluation));
    none.map_or_else(|| INTERVALS.to_owned(), |why| format!("{why} KL is in nats a token."))
}

fn figure(label: &str, value: String, note: String) -> Figure {
    Figure { label: label.to_owned(), value, note }
}

/// The numbers on which a verdict rests.
fn loss_figures(measured: &Measured) -> Vec<Figure> {
    let e = &measured.evaluation;
    let interval = |interval: Option<[f64; 2]>, show: &dyn Fn(f64) -> String| {
        interval.map_or_else(String::new, |[low, high]| format!("{} to {}", show(low), show(high)))
    };
    let mut out = Vec::new();
    if let Some(kl) = &e.kl {
        let show = |value: f64| rwkv_forge_report::significant(value, 3);
        out.push(figure("mean KL", show(kl.mean), interval(kl.interval, &show)));
    }
    if let Some(top1) = e.top1 {
        let show = |value: f64| format!("{:.1} %", value * 100.0);
        out.push(figure("same top-1", show(top1), interval(e.top1_interval, &show)));
    }
    if let Some(ratio) = &e.perplexity_ratio {
        let show = |value: f64| format!("{:+.2} %", (value - 1.0) * 100.0);
        out.push(figure("perplexity", show(ratio.ratio), interval(ratio.ratio_interval, &show)));
    }
    out
}

fn verdict_of_models(findings: &Findings<'_>, violations: &[Vec<String>]) -> Option<Verdict> {
    let limited = findings.setting.args.limits;
    let asked = limited.max_kl.is_some() || limited.min_top1.is_some() || limited.max_ppl_ratio.is_some();
    let all: Vec<&str> = violations.iter().flatten().map(String::as_str).collect();
    // Numbers without a limit are no verdict: they stand in the first table.
    if !asked {
        return None;
    }
    let [measured] = findings.results.models.as_slice() else {
        let headline = if all.is_empty() { "All models are within the limits" } else { "Not all models are within the limits" };
        return Some(Verdict { headline: headline.to_owned(), detail: all.join("; "), figures: Vec::new(), good: all.is_empty() });
    };
    let e = &measured.evaluation;
    let mut figures = loss_figures(measured);
    if let Some(bits) = e.bits_per_byte {
        let interval = e.bits_per_byte_interval.map_or_else(String::new, |[low, high]| format!("{low:.4} to {high:.4}"));
        figures.push(figure("bits per byte", format!("{bits:.4}"), interval));
    }
    if let Some(uncheatable) = &e.uncheatable {
        figures.push(figure("uncheatable", format!("{:.3} %", uncheatable.average), "lower is better".to_owned()));
    }
    let headline = if all.is_empty() { "Within the limits" } else { "Beyond the limits" };
    Some(Verdict { headline: headline.to_owned(), detail: all.join("; "), figures, good: all.is_empty() })
}

fn verdict_of_levels(findings: &LevelFindings<'_>) -> Option<Verdict> {
    let sentence = findings.sentence()?;
    let Some(index) = findings.found.recommended else {
        let detail = "Allow more loss or a larger file.".to_owned();
        return Some(Verdict { headline: sentence, detail, figures: Vec::new(), good: false });
    };
    let (level, measured) = (&findings.levels[index], &findings.found.results.models[index]);
    let share = level.bytes as f64 / findings.source.bytes.max(1) as f64 * 100.0;
    let mut figures = vec![figure("file size", findings.megabytes(index), format!("{share:.0} % of the source"))];
    figures.extend(loss_figures(measured));
    if let Some(speed) = findings.sound_speed(index) {
        let source = findings.found.source_speed.as_ref().filter(|source| source.is_sound());
        let times =
            source.map_or_else(String::new, |source| format!("{:.1} times the source", speed.tokens_per_second / source.tokens_per_second));
        figures.push(figure("speed", format!("{:.0} tokens/s", speed.tokens_per_second), times));
    }
    // The figures beside it have its numbers.
    let mut detail = format!("{}.", capital(&findings.reason()));
    if let Some(best) = findings.best_buy() {
        detail += &format!(" {}.", capital(&best));
    }
    Some(Verdict { headline: format!("Take {}", level.names[0]), detail, figures, good: true })
}

/// With a large first letter.
fn capital(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The limit of the divergence as a line.
fn limit_of_kl(plot: &mut Pareto, max_kl: Option<f64>) {
    plot.guides.extend(max_kl.filter(|at| *at > 0.0).map(|at| Guide::Horizontal { at, label: format!("--max-kl {at}") }));
}

fn size_against_loss(findings: &LevelFindings<'_>) -> Section {
    let mut section = Section::new("Size against loss");
    let several = findings.levels.len() > 1;
    let line = if several { " No other level beats one on the line." } else { "" };
    section.paragraph(format!("Further down is closer to the model as it is, further to the left is smaller.{line}"));
    let mut plot = Pareto::new("File size and mean KL of every level", Axis::linear("file size, MB"), Axis::log("mean KL, nats a token"));
    plot.description = if several {
        format!("{} levels; on the line are those that no other one beats", findings.levels.len())
    } else {
        "1 level".to_owned()
    };
    for (index, (level, measured)) in findings.levels.iter().zip(&findings.found.results.models).enumerate() {
        plot.push(Dot {
            label: if findings.found.best_buy == Some(index) { format!("{} (best buy)", level.names[0]) } else { level.names[0].clone() },
            note: findings.sound_speed(index).map_or_else(String::new, |speed| format!("{:.0} tokens/s", speed.tokens_per_second)),
            x: level.bytes as f64 / 1e6,
            y: measured.kl(),
            interval: measured.evaluation.kl.as_ref().and_then(|kl| kl.interval).map(|[low, high]| (low, high)),
            recommended: findings.found.recommended == Some(index),
        });
    }
    limit_of_kl(&mut plot, findings.wish.limits.max_kl);
    let max_size = findings.wish.max_size.map(|bytes| bytes as f64 / 1e6);
    plot.guides.extend(max_size.map(|at| Guide::Vertical { at, label: format!("--max-size {at:.0} MB") }));
    section.pareto(plot);
    // The source is the first row of the table.
    let muted = findings.found.beaten().into_iter().map(|index| index + 1).collect();
    let recommended = findings.found.recommended.map(|index| index + 1);
    let noted = findings.found.best_buy.map(|index| (index + 1, "best buy".to_owned()));
    section.table(PageTable { table: tables::levels(findings), recommended, noted, muted });
    if several {
        section.note(format!("* {}.", capital(FRONT)));
    }
    for doubt in findings.doubts() {
        section.note(format!("? {}.", capital(&doubt)));
    }
    section.note(intervals(&findings.found.results.models));
    findings.command().into_iter().chain(findings.best_buy_command()).for_each(|command| section.command(command));
    section
}

/// Several files against one baseline.
fn sizes(findings: &Findings<'_>) -> Section {
    let mut section = Section::new("Size against loss");
    let mut plot = Pareto::new("File size and mean KL", Axis::linear("file size, MB"), Axis::log("mean KL, nats a token"));
    plot.description = format!("{} files", findings.models.len());
    for (checked, measured) in findings.models.iter().zip(&findings.results.models) {
        plot.push(Dot {
            label: measured.name.clone(),
            note: String::new(),
            x: checked.bytes as f64 / 1e6,
            y: measured.kl(),
            interval: measured.evaluation.kl.as_ref().and_then(|kl| kl.interval).map(|[low, high]| (low, high)),
            recommended: false,
        });
    }
    limit_of_kl(&mut plot, findings.setting.args.limits.max_kl);
    section.pareto(plot);
    section
}

/// The levels whose curves are drawn, from the largest to the smallest.
fn chosen<'f>(findings: &'f LevelFindings<'_>) -> Vec<&'f Measured> {
    let sizes: Vec<u64> = findings.levels.iter().map(|level| level.bytes).collect();
    let wanted: Vec<usize> = findings.found.recommended.into_iter().chain(findings.found.best_buy).collect();
    drawn(&sizes, &findings.found.front, &wanted).into_iter().map(|index| &findings.found.results.models[index]).collect()
}

/// Which of several are drawn, from the largest to the smallest: all, as long as they can be told apart; else the wanted ones and those on
/// the front, these thinned evenly with both ends kept.
fn drawn(sizes: &[u64], front: &[bool], wanted: &[usize]) -> Vec<usize> {
    let mut indices: Vec<usize> = if sizes.len() <= SERIES {
        (0..sizes.len()).collect()
    } else {
        let mut on: Vec<usize> = (0..sizes.len()).filter(|index| front[*index] && !wanted.contains(index)).collect();
        on.sort_by_key(|index| sizes[*index]);
        let room = SERIES.saturating_sub(wanted.len());
        if on.len() > room {
            let last = on.len() - 1;
            on = (0..room).map(|place| on[place * last / room.saturating_sub(1).max(1)]).collect();
        }
        wanted.iter().copied().chain(on).collect()
    };
    indices.sort_by_key(|index| std::cmp::Reverse(sizes[*index]));
    indices.dedup();
    indices
}

/// Which models are not drawn, and by which rule.
fn not_among(all: &[Measured], shown: &[&Measured], rule: &str) -> Option<String> {
    let is_shown = |measured: &&Measured| shown.iter().any(|other| std::ptr::eq(*other, *measured));
    let names: Vec<&str> = all.iter().filter(|measured| !is_shown(measured)).map(|measured| measured.name.as_str()).collect();
    (!names.is_empty()).then(|| {
        let count = format!("More than {SERIES} lines are hard to tell apart");
        format!("{count}: {rule}. Not drawn in these plots, nor in the tables by position and text: {}.", names.join(", "))
    })
}

/// Where in the text and where in the model errors are; what is not drawn is said once.
fn curves(shown: &[&Measured], mut left_out: Option<String>) -> Vec<Section> {
    let mut sections: Vec<Section> = parts_of(shown).into_iter().chain(layers_of(shown)).collect();
    if let (Some(section), Some(words)) = (sections.first_mut(), left_out.take()) {
        section.note(words);
    }
    sections
}

/// Which models have no place in a plot of logarithms.
fn without_loss(names: &[&str]) -> Option<String> {
    (!names.is_empty()).then(|| format!("Not drawn, since a loss of zero has no place on a logarithmic axis: {}.", names.join(", ")))
}

/// By position, category and text: a plot of the divergence by position, and tables.
fn parts_of(shown: &[&Measured]) -> Option<Section> {
    let mut section = Section::new("Where in the text");
    if let Some((plot, zeros)) = by_position(shown) {
        section.paragraph("A state that carries an error from token to token shows as a line that rises.");
        section.plot(plot);
        without_loss(&zeros).into_iter().for_each(|words| section.note(words));
    }
    for table in tables::parts(shown) {
        section.table(table);
    }
    if section.blocks.is_empty() {
        return None;
    }
    Some(section)
}

/// The plot, and which models have no point in it.
fn by_position<'m>(shown: &[&'m Measured]) -> Option<(Plot, Vec<&'m str>)> {
    let first: &[Slice] = &shown.first()?.evaluation.by_position;
    if first.len() < 2 || first.iter().any(|slice| slice.kl.is_none()) {
        return None;
    }
    let axis = Axis::named("position in the sequence, tokens", first.iter().map(|slice| slice.name.clone()));
    let mut plot = Plot::new("Mean KL by position", axis, Axis::log("mean KL, nats a token"));
    let mut zeros = Vec::new();
    for measured in shown {
        let points = measured.evaluation.by_position.iter().enumerate();
        let points: Vec<(f64, f64)> = points.filter_map(|(x, slice)| Some((x as f64, slice.kl.filter(|kl| *kl > 0.0)?))).collect();
        if points.is_empty() {
            zeros.push(measured.name.as_str());
        } else {
            plot.push(&measured.name, Marks::LineAndPoints, points);
        }
    }
    (!plot.series.is_empty()).then_some((plot, zeros))
}

/// Errors by layer, of the residual stream and of the state.
fn layers_of(shown: &[&Measured]) -> Option<Section> {
    let mut section = Section::new("Where the error arises");
    let kinds = [
        ("Error of the state by layer", "rms of the difference over rms of the state", true),
        ("Error of the residual stream by layer", "rms of the difference over rms of the stream", false),
    ];
    for (title, label, of_state) in kinds {
        let mut plot = Plot::new(title, Axis::whole("layer"), Axis::from_zero(label));
        for measured in shown {
            let points = measured.layers.iter().filter_map(|layer| {
                let error = if of_state { layer.state } else { layer.residual };
                Some((layer.layer as f64, error?))
            });
            let points: Vec<(f64, f64)> = points.collect();
            if !points.is_empty() {
                plot.push(&measured.name, Marks::LineAndPoints, points);
            }
        }
        if !plot.series.is_empty() {
            section.plot(plot);
        }
    }
    if section.blocks.is_empty() {
        return None;
    }
    section.note("Layers are numbered from 0. Over the first 1024 tokens, and over the final states of the first eight sequences.");
    Some(section)
}

fn method(setting: &Setting<'_>) -> Section {
    let mut section = Section::new("Method");
    let by = if setting.job.kernel == rwkv_forge_eval::Kernel::Reference {
        "the reference kernel"
    } else {
        "the engine, with weights decoded exactly"
    };
    section.paragraph(format!(
        "All models read the same tokens, layer by layer, computed by {by}; distributions are compared token by token. \
         docs/accuracy.md says what each number means."
    ));
    section.command(super::command_line());
    if let Some(leak) = &setting.texts.leak {
        section.note(format!("Compared with the calibration text, {}.", leak.sentence()));
    }
    section
}

fn provenance<'s>(setting: &Setting<'_>, all: impl Iterator<Item = &'s Checked>) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for checked in all {
        for (name, digest) in checked.digests() {
            out.push(("model".to_owned(), format!("`{name}`, sha256 {digest}")));
        }
    }
    for source in &setting.texts.sources {
        let (bytes, tokens) = (thousands(source.bytes), thousands(source.tokens));
        out.push(("text".to_owned(), format!("`{}`, {bytes} bytes, {tokens} tokens, digest {}", source.path, source.sha256)));
    }
    let machine = rwkv_forge_bench::Machine::this();
    out.push(("vocabulary".to_owned(), format!("{}, sha256 {}", setting.tokenizer.name(), setting.tokenizer.sha256())));
    out.push(("program".to_owned(), format!("rwkv-forge {}", env!("CARGO_PKG_VERSION"))));
    out.push(("machine".to_owned(), format!("{}, {} threads, {}", machine.cpu, rayon::current_num_threads(), machine.system)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_levels_are_drawn_as_long_as_they_can_be_told_apart() {
        assert_eq!(drawn(&[80, 60, 40, 41], &[true, true, true, false], &[2]), [0, 1, 3, 2]);
        assert_eq!(drawn(&[80, 40], &[false, true], &[]), [0, 1]);
        // Beyond that the wanted ones, and the front with both of its ends.
        let sizes: Vec<u64> = (0..12).map(|index| 100 + index).collect();
        let found = drawn(&sizes, &[true; 12], &[3, 5]);
        assert_eq!(found.len(), SERIES);
        assert!([0, 3, 5, 11].iter().all(|index| found.contains(index)), "{found:?}");
        assert!(found.is_sorted_by(|a, b| sizes[*a] > sizes[*b]), "{found:?}");
        assert_eq!(drawn(&sizes, &[false; 12], &[7]), [7]);
    }
}
