//! `eval --levels`: which types are asked for, and what was found of them. Deciding, measuring and choosing are `rwkv-forge-choose`'s.

use std::path::Path;

use rwkv_forge_bench::Machine;
use rwkv_forge_choose::{Candidate, Level, LevelOptions, LevelSource, Measured, Predictions, Wish, compare_levels, container_for, levels};
use rwkv_forge_convert::OpenModel;
use rwkv_forge_convert::container::Container;
use rwkv_forge_report::Cell;
use serde_json::{Value, json};

use super::super::{open_options, vocabulary};
use super::level_findings::LevelFindings;
use super::{Checked, Outputs, Setting, merged, page, tables, to_value};
use crate::args::{self, Global};
use crate::failure::Failure;
use crate::terminal::Terminal;

/// More levels than this have no tables side by side on the terminal; the page has those of the best ones.
const DETAILED: usize = 4;

/// What files of the types that are asked for would be.
pub(crate) struct Decided {
    container: &'static dyn Container,
    levels: Vec<Level>,
}

impl Decided {
    pub(crate) fn new(args: &args::Eval, path: &Path, model: &OpenModel, global: &Global, terminal: &Terminal) -> Result<Self, Failure> {
        let container = container_for(model.description(), args.quantizing.to.as_deref())?;
        let words = rwkv_forge_convert::named_after(path);
        let vocabulary = vocabulary(&args.vocabulary)?;
        let options = LevelOptions { types: &args.levels, container, vocabulary: &vocabulary, words: &words, open: open_options(global) };
        Ok(Self { container, levels: levels(model, &options, terminal)? })
    }
}

/// What the mark of levels means.
pub(super) const FRONT: &str = "no other level is both as small and as close; the others are beaten by one of these";

/// Runs `eval --levels`.
pub(crate) fn run(
    setting: &Setting<'_>,
    source: &Checked,
    decided: &Decided,
    outputs: Outputs<'_>,
    terminal: &Terminal,
) -> Result<u8, Failure> {
    let Decided { container, levels } = decided;
    let timed = !setting.args.quantizing.no_speed && rwkv_forge_engine::supports(&source.open.description().mechanisms).is_ok();
    let wish = Wish { limits: setting.args.limits.limits(), max_size: setting.args.quantizing.max_size };
    let of = LevelSource { name: source.name(), model: &source.open, identity: source.identity(), bytes: source.bytes };
    let found = compare_levels(levels, of, &wish, setting.job, timed)?;
    let rows = source.open.description().hyperparameters.vocabulary;
    let predictions = Predictions::of(setting.job.schedule, rows, Some(source.name()), &found.results)?;
    predictions.warnings.iter().for_each(|warning| terminal.warn(warning));
    let findings = LevelFindings { setting, source, container: *container, levels, found: &found, predictions, wish };
    terminal.print(&findings.text()?);
    outputs.write(|| page::of_levels(&findings), || Ok(findings.csv()), terminal)?;
    terminal.print_json("eval", &findings.to_json()?)?;
    Ok(u8::from(wish.is_there() && found.recommended.is_none()))
}

impl LevelFindings<'_> {
    fn text(&self) -> Result<String, Failure> {
        let mut out = format!("{}\n{}\n", super::super::model_line(self.source.open.description()), self.setting.line());
        let table = tables::levels(self);
        out.push_str(&format!("\n{}:\n\n{}", table.title, table.to_markdown()?));
        out.push_str(&if self.levels.len() > 1 { format!("* {FRONT}\n\n") } else { "\n".to_owned() });
        for doubt in self.doubts() {
            out.push_str(&format!("? {doubt}\n\n"));
        }
        if let Some(why) = tables::no_interval(self.found.results.models.iter().map(|measured| &measured.evaluation)) {
            out.push_str(&format!("{why}\n\n"));
        }
        if self.levels.len() <= DETAILED {
            let models: Vec<&Measured> = self.found.results.models.iter().collect();
            for table in tables::parts(&models).into_iter().chain(tables::worst_layers(&self.found.results.models)) {
                out.push_str(&format!("{}:\n\n{}\n", table.title, table.to_markdown()?));
            }
        }
        if let Some(sentence) = self.sentence() {
            out.push_str(&format!("=> {sentence}\n"));
        }
        if let Some(command) = self.command() {
            out.push_str(&format!("   {command}\n"));
        }
        if let Some((sentence, command)) = self.best_buy().zip(self.best_buy_command()) {
            out.push_str(&format!("=> {sentence}\n   {command}\n"));
        }
        Ok(out)
    }

    fn csv(&self) -> rwkv_forge_report::Table {
        let source = self.found.results.baseline.as_ref().map(|evaluation| {
            (tables::SOURCE, evaluation, self.source.bytes, self.source.bits_per_weight(), self.found.source_speed.clone())
        });
        let mut rows: Vec<_> = source.into_iter().collect();
        for ((found, level), speed) in self.found.results.models.iter().zip(self.levels).zip(&self.found.speeds) {
            rows.push((found.name.as_str(), &found.evaluation, level.bytes, level.bits_per_weight, speed.clone()));
        }
        let mut table = tables::all(self.setting, &rows);
        // The source is itself, as the table for people says.
        let columns: Vec<String> = table.columns.iter().map(|column| column.name.clone()).collect();
        let source = table.rows.first_mut().filter(|_| self.found.results.baseline.is_some());
        for (name, cell) in columns.iter().zip(source.into_iter().flatten()) {
            match name.as_str() {
                "kl_mean" | "kl_median" | "kl_p99" | "kl_p999" | "kl_max" => *cell = Cell::count(0),
                "top1" | "ppl_ratio" => *cell = Cell::count(1),
                _ => {}
            }
        }
        table
    }

    fn to_json(&self) -> Result<Value, Failure> {
        let mut models = Vec::new();
        for (index, (level, found)) in self.levels.iter().zip(&self.found.results.models).enumerate() {
            let own = json!({
                "type": level.names[0],
                "same_as": &level.names[1..],
                "file_bytes": level.bytes,
                "bits_per_weight": level.bits_per_weight,
                "on_front": self.found.front[index],
                "meets_limits": self.found.meets[index],
                "verdict": super::verdict_of(&found.evaluation),
                "speed": self.found.speeds[index],
                "layers": found.layers,
                "seconds": found.seconds,
                "kept_parts": found.kept_parts,
            });
            models.push(merged([own, to_value(&found.evaluation)?]));
        }
        let baseline = match &self.found.results.baseline {
            Some(evaluation) => {
                let own = json!({ "speed": self.found.source_speed, "prediction": self.predictions.baseline });
                merged([self.source.to_json(), own, to_value(evaluation)?])
            }
            None => Value::Null,
        };
        let own = json!({
            "container": self.container.name(),
            "baseline": baseline,
            "models": models,
            "recommended": self.found.recommended.map(|index| &self.levels[index].names[0]),
            "recommendation": self.sentence(),
            "best_buy": self.found.best_buy.map(|index| &self.levels[index].names[0]),
            "best_buy_reason": self.best_buy(),
            "machine": Machine::this(),
        });
        Ok(merged([self.setting.to_json(), own]))
    }
}
