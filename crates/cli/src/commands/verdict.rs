//! The verdict of a comparison in one line, with what to take instead.

use rwkv_forge_convert::preset::preset_by_name;
use rwkv_forge_convert::{Blueprint, Damage, Record, Verdict, better_types};
use serde_json::{Value, json};

use super::number;
use crate::terminal::thousands;

/// What is said of a written file.
pub(super) struct Judged {
    verdict: Verdict,
    /// Types of the container that lose less, where a reader would see the loss.
    instead: Vec<&'static str>,
    /// Whether tensors have types of their own, so that no other type for all is the answer.
    is_mixed: bool,
    /// Whether the source does not know the text either.
    is_unpredicted: bool,
}

/// Of all types that lose less the smallest, whose loss may be visible too, and the best that is no float.
fn named(better: &mut Vec<&'static str>) {
    let is_float = |name: &str| preset_by_name(name).is_ok_and(|preset| preset.ready.is_none() && preset.base.is_dense());
    let last = better.iter().skip(1).rev().find(|name| !is_float(name)).or(better.get(1)).copied();
    better.truncate(1);
    better.extend(last);
}

/// A verdict without the end of its line. `more` measures on more tokens where there are few; `unpredicted` is what does not predict the text.
pub(super) fn said(verdict: &Verdict, more: &str, unpredicted: Option<&str>) -> String {
    let Verdict { damage, at_most, mean_kl, tokens, identical, is_short } = *verdict;
    if identical {
        return format!("none; all logits are bit-identical, on {} tokens", thousands(tokens as u64));
    }
    let mut line = format!("{}; mean KL {} nats a token, on {} tokens", damage.name(), number(mean_kl), thousands(tokens as u64));
    if is_short {
        line.push_str(&format!(" alone: {more}"));
    }
    if let Some(worse) = at_most.filter(|worse| *worse > damage) {
        line.push_str(&format!("; on other texts it may be {}", worse.name()));
    }
    if let Some(whose) = unpredicted {
        line.push_str(&format!("; {whose} does not predict this text, so that says little"));
    }
    line
}

impl Judged {
    /// `None` without a comparison, and for models without a head. `is_mixed`: types come from a recipe or from rules.
    pub(super) fn of(record: &Record, blueprint: &Blueprint, preset: &rwkv_forge_convert::preset::Preset, is_mixed: bool) -> Option<Self> {
        let verdict = Verdict::of(record.agreement.as_ref()?)?;
        let mut instead = if verdict.asks_for_more() { better_types(preset, blueprint.container) } else { Vec::new() };
        named(&mut instead);
        let is_unpredicted = record.prediction.is_some_and(|prediction| !prediction.better);
        Some(Self { verdict, instead, is_mixed, is_unpredicted })
    }

    /// One line.
    pub(super) fn line(&self) -> String {
        let unpredicted = self.is_unpredicted.then_some("the source");
        let advice = if self.verdict.asks_for_more() { self.advice() } else { String::new() };
        format!("loss: {}{advice}\n", said(&self.verdict, "`rwkv-forge eval` measures on more", unpredicted))
    }

    /// What to take instead.
    fn advice(&self) -> String {
        let named = |types: &[&str]| types.iter().map(|name| format!("--type {name}")).collect::<Vec<_>>().join(" or ");
        match (self.is_mixed, self.instead.as_slice()) {
            (true, []) => "; give its tensors more bits (--set, a larger plan --size)".to_owned(),
            (true, types) => format!("; give its tensors more bits (--set, a larger plan --size), or take {} alone", named(types)),
            (false, []) if self.verdict.damage == Damage::Broken => {
                "; the container has no better type for it: take another with --to".to_owned()
            }
            (false, []) => "; the container has no type that loses less".to_owned(),
            (false, types) => format!("; take {}, which lose{} less", named(types), if types.len() == 1 { "s" } else { "" }),
        }
    }

    /// For programs.
    pub(super) fn to_json(&self) -> Value {
        let Verdict { damage, at_most, mean_kl, tokens, identical, is_short } = self.verdict;
        json!({
            "damage": damage, "at_most": at_most, "mean_kl": mean_kl, "tokens": tokens, "identical": identical, "is_short": is_short,
            "instead": self.instead,
        })
    }
}
