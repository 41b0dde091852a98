//! What `eval --levels` has found, before it becomes tables and pages.

use rwkv_forge_bench::{Doubt, together};
use rwkv_forge_choose::{Compared, Level, Limits, Predictions, Speed, Wish};
use rwkv_forge_convert::container::Container;

use super::super::{options_again, shell_path};
use super::{Checked, Setting};

/// What was found of all levels.
pub(crate) struct LevelFindings<'a> {
    /// What the run has in common.
    pub setting: &'a Setting<'a>,
    /// The model.
    pub source: &'a Checked,
    /// Its container.
    pub container: &'static dyn Container,
    /// Levels, in the order of the command line.
    pub levels: &'a [Level],
    /// Numbers, in the same order, and what to take.
    pub found: &'a Compared,
    /// Whether the model predicts the text.
    pub predictions: Predictions,
    /// What was asked for.
    pub wish: Wish,
}

/// The wish as on the command line.
fn wish_text(wish: &Wish) -> String {
    let Limits { max_kl, min_top1, max_ppl_ratio } = wish.limits;
    let parts = [
        max_kl.map(|limit| format!("--max-kl {limit}")),
        min_top1.map(|limit| format!("--min-top1 {limit}")),
        max_ppl_ratio.map(|limit| format!("--max-ppl-ratio {limit}")),
        wish.max_size.map(|limit| format!("--max-size {limit}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// `the speed of 4bit is`, `the speeds of the source, 4bit and q4_k_m are`, `all speeds are`: those at `places`.
fn speeds_of(names: &[&str], places: &[usize]) -> String {
    let told: Vec<&str> = places.iter().filter_map(|place| names.get(*place).copied()).collect();
    match told.as_slice() {
        [only] => format!("the speed of {only} is"),
        all if all.len() == names.len() => "all speeds are".to_owned(),
        [before @ .., last] => format!("the speeds of {} and {last} are", before.join(", ")),
        [] => "no speed is".to_owned(),
    }
}

/// Megabytes with one digit after the point, or as many as it takes to be another number than each of `others` that is another size.
fn megabytes(bytes: u64, others: &[u64]) -> String {
    let shown = |bytes: u64, digits: usize| format!("{:.digits$} MB", bytes as f64 / 1e6);
    let differs = |digits: &usize| others.iter().all(|other| *other == bytes || shown(*other, *digits) != shown(bytes, *digits));
    shown(bytes, (1..6).find(differs).unwrap_or(6))
}

impl LevelFindings<'_> {
    /// The answer in one sentence; `None` when nothing was asked.
    pub(crate) fn sentence(&self) -> Option<String> {
        if !self.wish.is_there() {
            return None;
        }
        let Some(index) = self.found.recommended else {
            return Some(format!("no level meets {}", wish_text(&self.wish)));
        };
        let level = &self.levels[index];
        Some(format!("take {}: {} ({})", level.names[0], self.reason(), self.size_and_loss(index)))
    }

    /// Why it is that level.
    pub(crate) fn reason(&self) -> String {
        let why = if self.wish.max_size.is_some() { "the least loss" } else { "the smallest file" };
        format!("{why} within {}", wish_text(&self.wish))
    }

    fn size_and_loss(&self, index: usize) -> String {
        format!("{}, mean KL {}", self.megabytes(index), super::super::number(self.found.results.models[index].kl()))
    }

    /// The size of a level, in as many digits as tell it from the other one that is named beside it.
    pub(crate) fn megabytes(&self, index: usize) -> String {
        let named = [self.found.recommended, self.found.best_buy].into_iter().flatten();
        megabytes(self.levels[index].bytes, &named.map(|other| self.levels[other].bytes).collect::<Vec<_>>())
    }

    /// What a little more size buys, in one sentence; `None` where it does not buy much.
    pub(crate) fn best_buy(&self) -> Option<String> {
        let (taken, best) = (self.found.recommended?, self.found.best_buy?);
        let kl = |index: usize| self.found.results.models[index].kl();
        let larger = (self.levels[best].bytes as f64 / self.levels[taken].bytes as f64 - 1.0) * 100.0;
        let share = kl(best) / kl(taken) * 100.0;
        let name = &self.levels[best].names[0];
        Some(format!("best buy: {name}, {larger:.0} % larger with {share:.0} % of that loss ({})", self.size_and_loss(best)))
    }

    /// Why speeds are to be distrusted, each reason once.
    pub(crate) fn doubts(&self) -> Vec<String> {
        let levels = self.levels.iter().zip(&self.found.speeds).map(|(level, speed)| (level.names[0].as_str(), speed.as_ref()));
        let all: Vec<(&str, &Speed)> = std::iter::once(("the source", self.found.source_speed.as_ref()))
            .chain(levels)
            .filter_map(|(name, speed)| Some((name, speed?)))
            .collect();
        let doubts: Vec<&[Doubt]> = all.iter().map(|(_, speed)| speed.doubts.as_slice()).collect();
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        together(&doubts).into_iter().map(|(places, why)| format!("{} to be distrusted: {why}", speeds_of(&names, &places))).collect()
    }

    /// The speed of a level, unless something speaks against it.
    pub(crate) fn sound_speed(&self, index: usize) -> Option<&Speed> {
        self.found.speeds.get(index)?.as_ref().filter(|speed| speed.is_sound())
    }

    /// What to type to get the recommended file.
    pub(crate) fn command(&self) -> Option<String> {
        self.command_for(self.found.recommended?)
    }

    /// What to type to get the best buy.
    pub(crate) fn best_buy_command(&self) -> Option<String> {
        self.command_for(self.found.best_buy?)
    }

    fn command_for(&self, index: usize) -> Option<String> {
        let level = self.levels.get(index)?;
        let (source, container, args) = (shell_path(&self.source.path), self.container.name(), &self.setting.args);
        let mut command = format!("rwkv-forge convert {source} --to {container} --type {}", level.names[0]);
        // What the levels were made with, so that the file is the one that was measured.
        command.push_str(&options_again(&args.source_args, &args.vocabulary, shell_path));
        if self.source.open.source().tensors().iter().any(|tensor| !tensor.encoding.is_dense()) {
            command.push_str(" --requantize");
        }
        Some(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_differ_are_different_numbers() {
        assert_eq!(megabytes(33_329_056, &[33_329_056]), "33.3 MB");
        assert_eq!([megabytes(783_648, &[812_000]), megabytes(812_000, &[783_648])], ["0.78 MB", "0.81 MB"]);
        assert_eq!([megabytes(783_648, &[783_649]), megabytes(783_649, &[783_648])], ["0.783648 MB", "0.783649 MB"]);
    }

    #[test]
    fn doubtful_speeds_are_named_together() {
        let names = ["the source", "8bit", "4bit", "q4_k_m"];
        assert_eq!(speeds_of(&names, &[2]), "the speed of 4bit is");
        assert_eq!(speeds_of(&names, &[0, 1, 3]), "the speeds of the source, 8bit and q4_k_m are");
        assert_eq!(speeds_of(&names, &[0, 1, 2, 3]), "all speeds are");
    }
}
