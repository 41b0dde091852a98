//! What `eval --levels` has found, before it becomes tables and pages.

use rwkv_forge_choose::{Compared, Level, Limits, Predictions, Wish};
use rwkv_forge_convert::container::Container;

use super::super::shown;
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
        let (level, found) = (&self.levels[index], &self.found.results.models[index]);
        let why = if self.wish.max_size.is_some() { "the least loss" } else { "the smallest file" };
        Some(format!(
            "take {}: {why} within {} ({:.1} MB, mean KL {})",
            level.names[0],
            wish_text(&self.wish),
            level.bytes as f64 / 1e6,
            super::super::number(found.kl()),
        ))
    }

    /// What to type to get the recommended file.
    pub(crate) fn command(&self) -> Option<String> {
        let level = &self.levels[self.found.recommended?];
        let vocabulary = self.setting.args.vocabulary.vocab.as_ref().map_or_else(String::new, |path| format!(" --vocab {}", shown(path)));
        let (source, container) = (shown(&self.source.path), self.container.name());
        Some(format!("rwkv-forge convert {source} --to {container} --type {}{vocabulary}", level.names[0]))
    }
}
