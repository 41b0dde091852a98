//! The worst agreement over 100 random models of each version, for the tables of the documentation:
//! `cargo test -p rwkv-forge-parallel --release --test tests seeds -- --ignored --nocapture`. Ten seeds run with the other tests.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests may fail loudly and say what they saw")]

use crate::support;

use crate::support::{Float, Run, Worst, parallel, random, random_states, recurrent, tokens};
use rwkv_forge_model::Version;
use rwkv_forge_parallel::{LayerState, ParallelOptions};
use rwkv_forge_testkit::models::{Decay, Sizes};

/// See `agreement.rs`.
const ALGEBRA: f64 = 1e-10;

/// See `agreement.rs`.
const SINGLE: f64 = 5e-5;

#[derive(Default)]
struct Table {
    double: Worst,
    single_to_double: Worst,
    single_to_single: Worst,
    recurrent_single: Worst,
}

fn seed(version: Version, seed: u64, table: &mut Table) {
    let at = |values: &[usize], divisor: u64| values[usize::try_from(seed / divisor).unwrap() % values.len()];
    let head_size = at(&[8, 16, 4, 64], 1);
    let channels = head_size * at(&[4, 2, 3], 2).min(128 / head_size);
    let sizes = Sizes { layers: at(&[2, 3, 4], 3), channels, head_size, ..Sizes::TINY };
    let decay = [Decay::Typical, Decay::Fast, Decay::Slow][at(&[0, 1, 2], 1)];
    let model = random(version, &sizes, decay, 1000 + seed);
    let length = at(&[512, 64, 17, 3, 2, 1, 333], 1);
    let options = ParallelOptions::default().with_chunk(at(&[16, 1, 3, 64, 32, 7, 128, 512], 1));
    let tokens = tokens(&model.description, length, seed);
    let layers = model.description.hyperparameters.layers;
    fn start<F: Float>(model: &support::Made, layers: usize, seed: u64) -> Vec<LayerState<F>> {
        match seed % 2 {
            0 => vec![LayerState::zero(&model.description); layers],
            _ => random_states(&model.description, seed),
        }
    }
    let exact = recurrent::<f64>(&model, &tokens, &start(&model, layers, seed));
    let double = Worst::of(&parallel::<f64>(&model, &tokens, &start(&model, layers, seed), &options), &exact);
    assert!(double.any() <= ALGEBRA, "{version}, seed {seed}: {double:?}");
    table.double.join(double);
    let single = wide(&parallel::<f32>(&model, &tokens, &start(&model, layers, seed), &options));
    let recurrent = wide(&recurrent::<f32>(&model, &tokens, &start(&model, layers, seed)));
    let to_double = Worst::of(&single, &exact);
    assert!(to_double.any() <= SINGLE, "{version}, seed {seed}: {to_double:?}");
    table.single_to_double.join(to_double);
    table.single_to_single.join(Worst::of(&single, &recurrent));
    table.recurrent_single.join(Worst::of(&recurrent, &exact));
}

fn wide(run: &Run<f32>) -> Run<f64> {
    let wide = |values: &Vec<f32>| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
    Run { layers: run.layers.iter().map(|(x, state)| (wide(x), wide(state))).collect(), logits: wide(&run.logits) }
}

fn seeds(count: u64) {
    println!("| version | tier | layer output | layer state | logits |\n|---|---|---|---|---|");
    for version in Version::ALL {
        let mut table = Table::default();
        (0..count).for_each(|number| seed(version, number, &mut table));
        let rows = [
            ("f64", table.double),
            ("f32 to f64 recurrent", table.single_to_double),
            ("f32 to f32 recurrent", table.single_to_single),
            ("recurrent f32 to f64", table.recurrent_single),
        ];
        for (name, worst) in rows {
            println!("| {version} | {name} | {:.1e} | {:.1e} | {:.1e} |", worst.output, worst.state, worst.logits);
        }
        assert!(table.double.any() > 0.0 && table.single_to_double.any() > 1e-8, "{version}: the two forms are one");
    }
}

#[test]
fn ten_random_models_agree() {
    seeds(10);
}

#[test]
#[ignore = "a minute; prints the table of the documentation"]
fn a_hundred_random_models_agree() {
    seeds(100);
}
