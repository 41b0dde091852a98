//! Picks one option for each item so that a sum is least while another sum stays within a budget: the multiple-choice knapsack.
//!
//! Items are tensors (or groups of them), options are types, with the bytes that they take and the harm that they do. Start at
//! [`least_harm`] and [`least_bytes`]. Both bound the optimum by Lagrange's multiplier over the convex hulls of the options, and
//! then search what the bound leaves open: see [`Solution::exact`].
mod file;
mod search;
mod trail;

use rwkv_forge_tensor::{Class, Diagnostic};
use serde::Serialize;
use strum::IntoStaticStr;
use thiserror::Error;

pub use file::least_harm_in_file;

/// What can be picked for an item.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// Bytes that it takes.
    pub bytes: u64,
    /// Harm that it does: finite, 0 or more.
    pub harm: f64,
}

/// A pick for every item.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Solution {
    /// Index of the option of each item.
    pub picked: Vec<usize>,
    /// Sum of bytes.
    pub bytes: u64,
    /// Sum of harms.
    pub harm: f64,
    /// No other pick is better. When the search had to give up states, `harm` (or `bytes`) is within `gap` of the best.
    pub exact: bool,
    /// How much better the best could be, in the unit that was minimised; 0 when `exact`.
    pub gap: f64,
}

/// Why nothing can be picked.
#[derive(Debug, Error, PartialEq, IntoStaticStr)]
pub enum AllocationError {
    /// An item has no options, or a harm that is no number.
    #[error("item {item} has {what}")]
    BadItem {
        /// Its index.
        item: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Even the smallest options together are too large.
    #[strum(serialize = "BudgetTooSmall")]
    #[error("the budget is {budget} bytes, but the smallest types need {least}")]
    TooSmall {
        /// Bytes that may be used.
        budget: u64,
        /// Bytes of the smallest options.
        least: u64,
    },
    /// Even the best options together do more harm.
    #[strum(serialize = "HarmUnreachable")]
    #[error("the harm may be {limit}, but the widest types do {least} already")]
    TooHarmful {
        /// What was allowed.
        limit: f64,
        /// Harm of the best options.
        least: f64,
    },
}

impl Diagnostic for AllocationError {
    fn kind(&self) -> &'static str {
        self.into()
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "what is not listed is of the class that most errors of this crate have")]
    fn class(&self) -> Class {
        match self {
            Self::BadItem { .. } => Class::Bug,
            _ => Class::Usage,
        }
    }
}

/// The pick of least harm that takes at most `budget` bytes. Among equal harms the one of fewer bytes.
///
/// # Errors
/// When an item has no valid options or the smallest options exceed the budget.
pub fn least_harm(items: &[Vec<Choice>], budget: u64) -> Result<Solution, AllocationError> {
    check(items)?;
    let least = smallest(items);
    if least > budget {
        return Err(AllocationError::TooSmall { budget, least });
    }
    let terms = terms(items, |option| search::Term { weight: option.bytes as f64, value: option.harm });
    Ok(solution(items, search::solve(&terms, budget as f64)))
}

/// The pick of fewest bytes that does at most `limit` harm.
///
/// # Errors
/// When an item has no valid options or the best options exceed the limit.
pub fn least_bytes(items: &[Vec<Choice>], limit: f64) -> Result<Solution, AllocationError> {
    check(items)?;
    let least: f64 = items.iter().map(|options| options.iter().map(|option| option.harm).fold(f64::INFINITY, f64::min)).sum();
    if limit.is_nan() || least > limit {
        return Err(AllocationError::TooHarmful { limit, least });
    }
    let terms = terms(items, |option| search::Term { weight: option.harm, value: option.bytes as f64 });
    Ok(solution(items, search::solve(&terms, limit)))
}

/// Bytes of the smallest options.
fn smallest(items: &[Vec<Choice>]) -> u64 {
    items.iter().filter_map(|options| options.iter().map(|option| option.bytes).min()).sum()
}

fn check(items: &[Vec<Choice>]) -> Result<(), AllocationError> {
    for (item, options) in items.iter().enumerate() {
        if options.is_empty() {
            return Err(AllocationError::BadItem { item, what: "no options" });
        }
        if options.iter().any(|option| !(0.0..f64::INFINITY).contains(&option.harm)) {
            return Err(AllocationError::BadItem { item, what: "a harm that is negative or no number" });
        }
    }
    Ok(())
}

fn terms(items: &[Vec<Choice>], term: impl Fn(&Choice) -> search::Term) -> Vec<Vec<search::Term>> {
    items.iter().map(|options| options.iter().map(&term).collect()).collect()
}

fn solution(items: &[Vec<Choice>], found: search::Found) -> Solution {
    let chosen = || items.iter().zip(&found.picked).map(|(options, picked)| options[*picked]);
    let (bytes, harm) = (chosen().map(|option| option.bytes).sum(), chosen().map(|option| option.harm).sum());
    Solution { bytes, harm, exact: found.gap == 0.0, gap: found.gap, picked: found.picked }
}

#[cfg(test)]
mod tests;
