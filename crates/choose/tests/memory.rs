//! What a search takes of memory.
#![allow(clippy::unwrap_used, reason = "test code: failing loudly is its purpose")]

use rwkv_forge_choose::allocation::{Choice, least_harm};
use rwkv_forge_testkit::memory::peak_of;

/// Options on one line, so that no bound and no dominance tells any apart: after some items there are as many states as are kept.
fn items(count: u64) -> Vec<Vec<Choice>> {
    let bytes = |item: u64, option: u64| (option << 20) + ((item * 3 + option + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44);
    let options = |item: u64| (0..3).map(move |option| bytes(item, option));
    (0..count).map(|item| options(item).map(|bytes| Choice { bytes, harm: 1e8 - bytes as f64 }).collect()).collect()
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "needs Linux, which tells the resident memory")]
fn a_search_holds_no_states_of_the_items_before() {
    let peak = peak_of("memory::a_search_holds_no_states_of_the_items_before", || {
        let items = items(80);
        let budget = items.iter().map(|options| options[1].bytes).sum();
        let found = least_harm(&items, budget).unwrap();
        assert!(found.bytes <= budget);
    });
    // 180,000 candidates of 24 bytes, what sorting them takes, and the ways to 60,000 states come to some 30 MB. The states of all items
    // are 115 MB more, and a model of 1,500 layers has 6,000 items.
    assert!(peak < 64 << 20, "{peak} bytes");
}
