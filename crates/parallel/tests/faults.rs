//! Every planted fault shows: far above the bound on algebra for each version that it concerns, and not at all for others.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use crate::support::{Worst, parallel, random, random_states, recurrent, tokens};
use rwkv_forge_model::Version;
use rwkv_forge_parallel::{Fault, ParallelOptions};
use rwkv_forge_testkit::models::{Decay, Sizes};

/// Of the bound of 1e-10 that the algebra is held to, and ten times over.
const TEN_TIMES: f64 = 1e-9;

/// Rounding in f64, as the tests of agreement see it.
const RIGHT: f64 = 1e-13;

#[test]
fn every_fault_changes_what_it_should() {
    for version in Version::ALL {
        let model = random(version, &Sizes { layers: 3, ..Sizes::TINY }, Decay::Typical, 1);
        let tokens = tokens(&model.description, 37, 2);
        let start = random_states::<f64>(&model.description, 3);
        let expected = recurrent(&model, &tokens, &start);
        for fault in Fault::ALL {
            let options = ParallelOptions::default().with_chunk(8).with_fault(fault);
            let worst = Worst::of(&parallel(&model, &tokens, &start, &options), &expected);
            if fault.concerns(&model.description.mechanisms) {
                println!("{version} {fault:?}: output {:.1e}, state {:.1e}, logits {:.1e}", worst.output, worst.state, worst.logits);
                assert!(worst.any() >= TEN_TIMES, "{version}, {fault:?}: {worst:?}");
            } else {
                assert!(worst.any() <= RIGHT, "{version}, {fault:?}: {worst:?}");
            }
        }
    }
}
