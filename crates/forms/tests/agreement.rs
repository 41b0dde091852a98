//! Both forms of trained and of random models agree.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "test code: failing loudly is its purpose")]

use crate::support::{TINY, forms, open, random, repository, tiny, tokens};
use rwkv_forge_forms::{FormsOptions, FormsReport, Quantity, Tier};
use rwkv_forge_model::Version;

fn check(label: &str, report: &FormsReport) {
    eprintln!(
        "{label}: {} comparisons, f64 {:.2e}, f32 {:.2e} of the bounds",
        report.comparisons,
        report.excess(Tier::F64),
        report.excess(Tier::F32)
    );
    for finding in &report.first_beyond {
        eprintln!("{label}: {}", finding.message);
    }
    assert!(report.agrees(), "{label}: {} of {} comparisons are beyond their bounds", report.beyond, report.comparisons);
    for quantity in [Quantity::Output, Quantity::AttShift, Quantity::FfnShift, Quantity::Logits] {
        let rows = report.worst.iter().filter(|row| row.quantity == quantity && row.measure.ratio.is_finite()).count();
        assert_eq!(rows, 3, "{label}: {quantity} in f64, and in f32 for both forms");
    }
}

#[test]
fn trained_models_agree_in_every_case() {
    for name in TINY {
        let model = tiny(name);
        check(name, &forms(&model, &tokens(&model, 512, 1), &FormsOptions::default()));
    }
}

#[test]
fn random_models_of_every_version_agree() {
    for version in Version::ALL {
        for seed in 0..3 {
            let model = random(version, seed);
            let options = FormsOptions { lengths: vec![1, 2, 3, 17, 64, 200], seed, ..FormsOptions::default() };
            check(&format!("{version}, seed {seed}"), &forms(&model, &tokens(&model, 200, seed), &options));
        }
    }
}

#[test]
#[ignore = "needs the data beside the repository"]
fn a_larger_trained_model_agrees() {
    let path = repository("../shared/data/checkpoints/small-rwkv7.pth");
    let model = open(&path);
    check("small-rwkv7", &forms(&model, &tokens(&model, 64, 1), &FormsOptions::quick()));
}
