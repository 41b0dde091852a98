//! What `eval --levels` has found, before it becomes tables and pages.

use rwkv_forge_choose::{Compared, Level, Limits, Predictions, Speed, Wish};
use rwkv_forge_convert::container::Container;

use super::super::{shell_path, shell_word};
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
        let (bytes, kl) = (self.levels[index].bytes as f64, self.found.results.models[index].kl());
        format!("{:.1} MB, mean KL {}", bytes / 1e6, super::super::number(kl))
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

    /// Speeds that were measured while something else ran, one sentence each.
    pub(crate) fn doubts(&self) -> Vec<String> {
        let levels = self.levels.iter().zip(&self.found.speeds).map(|(level, speed)| (level.names[0].as_str(), speed.as_ref()));
        let all = std::iter::once(("the source", self.found.source_speed.as_ref())).chain(levels);
        let told = all.filter_map(|(name, speed)| {
            let doubts: Vec<String> = speed?.doubts.iter().map(ToString::to_string).collect();
            (!doubts.is_empty()).then(|| format!("the speed of {name} is to be distrusted: {}", doubts.join("; ")))
        });
        told.collect()
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
        for key in &args.source_args.key.keys {
            command.push_str(&format!(" --key {}", shell_word(key)));
        }
        if let Some(path) = &args.vocabulary.vocab {
            command.push_str(&format!(" --vocab {}", shell_path(path)));
        }
        if args.source_args.allow_zero_tensors {
            command.push_str(" --allow-zero-tensors");
        }
        if self.source.open.source().tensors().iter().any(|tensor| !tensor.encoding.is_dense()) {
            command.push_str(" --requantize");
        }
        Some(command)
    }
}
