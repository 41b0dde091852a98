use proptest::prelude::*;

use super::{AllocationError, Choice, Solution, least_bytes, least_harm, least_harm_in_file};

/// All picks, one after the other.
fn enumerate(items: &[Vec<Choice>]) -> Vec<(u64, f64)> {
    let mut sums = vec![(0, 0.0)];
    for options in items {
        sums = sums.iter().flat_map(|(bytes, harm)| options.iter().map(move |option| (bytes + option.bytes, harm + option.harm))).collect();
    }
    sums
}

fn items() -> impl Strategy<Value = Vec<Vec<Choice>>> {
    let option = (1u64..60, 0u32..1000).prop_map(|(bytes, harm)| Choice { bytes, harm: f64::from(harm) / 64.0 });
    prop::collection::vec(prop::collection::vec(option, 1..5), 1..7)
}

proptest! {
    /// Against every pick there is. Harms are multiples of 1/64, so sums are exact.
    #[test]
    fn the_best_pick_is_found(items in items(), share in 0u64..=100) {
        let all = enumerate(&items);
        let (low, high) = all.iter().fold((u64::MAX, 0), |(low, high), (bytes, _)| (low.min(*bytes), high.max(*bytes)));
        let budget = low + (high - low) * share / 100;
        let best = all.iter().filter(|(bytes, _)| *bytes <= budget).map(|(_, harm)| *harm).fold(f64::INFINITY, f64::min);
        let found = least_harm(&items, budget).unwrap();
        prop_assert!(found.exact && found.bytes <= budget);
        prop_assert_eq!(found.harm, best);
        let least = all.iter().filter(|(_, harm)| *harm <= best).map(|(bytes, _)| *bytes).min().unwrap();
        let found = least_bytes(&items, best).unwrap();
        prop_assert!(found.harm <= best);
        prop_assert_eq!(found.bytes, least);
    }
}

/// A model of 200 tensors with seven types: the search stays exact or says how far it may be off, and is not far.
#[test]
fn a_whole_model_is_solved() {
    let items: Vec<Vec<Choice>> = (0..200u64)
        .map(|item| {
            let size = 1000 * (1 + item % 17);
            let weight = 0.1 + (item * 7919 % 101) as f64;
            let bits = [26u64, 34, 45, 55, 66, 85, 160];
            bits.iter().zip(0..).map(|(bits, option)| Choice { bytes: size * bits, harm: weight * 0.25f64.powi(option) }).collect()
        })
        .collect();
    let smallest: u64 = items.iter().map(|options| options[0].bytes).sum();
    for percent in [105, 130, 200, 400] {
        let found = least_harm(&items, smallest * percent / 100).unwrap();
        assert!(found.bytes <= smallest * percent / 100);
        assert!(found.gap <= 1e-3 * found.harm, "{percent} %: gap {} of {}", found.gap, found.harm);
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let item = vec![Choice { bytes: 10, harm: 1.0 }, Choice { bytes: 20, harm: 0.5 }];
    assert_eq!(least_harm(&[item.clone(), item.clone()], 19), Err(AllocationError::TooSmall { budget: 19, least: 20 }));
    assert_eq!(least_bytes(std::slice::from_ref(&item), 0.4), Err(AllocationError::TooHarmful { limit: 0.4, least: 0.5 }));
    assert_eq!(least_harm(&[Vec::new()], 5), Err(AllocationError::BadItem { item: 0, what: "no options" }));
    let odd = vec![Choice { bytes: 1, harm: f64::NAN }];
    assert!(matches!(least_harm(&[odd], 5), Err(AllocationError::BadItem { .. })));
}

/// A file of a pick's bytes and 100 others may have `limit`.
fn in_file(items: &[Vec<Choice>], limit: u64) -> (Result<Solution, AllocationError>, usize) {
    let mut rounds = 0;
    let found = least_harm_in_file(items, limit, |solution| {
        rounds += 1;
        assert!(rounds < 100, "a search that doesn't end");
        Ok((solution.bytes + 100).saturating_sub(limit))
    });
    (found, rounds)
}

#[test]
fn a_search_with_nothing_to_pick_ends() {
    // No items, and items that leave no choice: the file is too large whatever is done.
    assert_eq!(in_file(&[], 99), (Err(AllocationError::TooSmall { budget: 99, least: 100 }), 1));
    assert_eq!(in_file(&[], 100).0.map(|solution| solution.bytes), Ok(0));
    let one = vec![Choice { bytes: 10, harm: 1.0 }];
    assert_eq!(in_file(&[one.clone(), one], 119), (Err(AllocationError::TooSmall { budget: 119, least: 120 }), 1));
    // Items of no bytes at all.
    let free = vec![Choice { bytes: 0, harm: 1.0 }, Choice { bytes: 0, harm: 0.5 }];
    assert_eq!(in_file(&[free], 50), (Err(AllocationError::TooSmall { budget: 50, least: 100 }), 1));
    // The other searches.
    assert_eq!(least_harm(&[], 0).map(|solution| solution.picked), Ok(Vec::new()));
    assert_eq!(least_bytes(&[], 0.0).map(|solution| solution.picked), Ok(Vec::new()));
}

#[test]
fn what_a_budget_leaves_unused_takes_no_rounds() {
    // The pick leaves 1,000,000 bytes unused; a file that is too large by one byte of them asks for another pick at once.
    let item = vec![Choice { bytes: 10, harm: 1.0 }, Choice { bytes: 2_000_000, harm: 0.5 }];
    let mut rounds = 0;
    let found = least_harm_in_file(&[item], 3_000_000, |solution| {
        rounds += 1;
        Ok::<_, AllocationError>(u64::from(solution.bytes > 10))
    });
    assert_eq!((found.map(|solution| solution.bytes), rounds), (Ok(10), 2));
}
