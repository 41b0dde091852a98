//! Worst differences between the forms: of trained models, and of random models of every version over 100 seeds, with fast,
//! typical and slow decays. The bounds in `bounds.rs` are four times what this prints, and docs/verification.md shows it:
//!
//! ```text
//! cargo run --release -p rwkv-forge-forms --example figures -- fixtures/checkpoints/*.pth
//! ```
//!
//! Further arguments are model files; `--seeds N` chooses another number of seeds.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program whose result is what it prints")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use rwkv_forge_forms::{Form, FormsOptions, FormsReport, Quantity, Start, Tier, compare};
use rwkv_forge_model::{Version, describe};
use rwkv_forge_report::{Cell, Column, Table};
use rwkv_forge_tensor::{BoxError, TensorSource};
use rwkv_forge_testkit::models::{Decay, Options, Sizes, SplitMix64, random_model_with};

/// 3 layers of 64 channels in 4 heads, 50 tokens, every rank different.
const SIZES: Sizes = Sizes { layers: 3, channels: 64, head_size: 16, ffn: 96, vocabulary: 50, ranks: [8, 9, 7, 10] };
/// Tokens of most sequences of random models.
const LENGTH: usize = 512;
/// Tokens of those of every 25th seed.
const LONG: usize = 4096;

/// Worst ratio by precision and form, for outputs, states and logits.
#[derive(Default)]
struct Worst(BTreeMap<(Tier, Form), [f64; 3]>);

impl Worst {
    fn add(&mut self, report: &FormsReport) {
        for row in &report.worst {
            let column = match row.quantity {
                Quantity::Output => 0,
                Quantity::Logits => 2,
                _ => 1,
            };
            let place = &mut self.0.entry((row.case.tier, row.case.form)).or_default()[column];
            *place = place.max(row.measure.ratio);
        }
    }

    fn rows(&self, label: &str, table: &mut Table) {
        for ((tier, form), worst) in &self.0 {
            let mut row = vec![Cell::text(label), Cell::text(tier.to_string()), Cell::text(form.to_string())];
            row.extend(worst.map(|value| Cell::measured(value, 2)));
            table.push(row);
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut seeds = 100;
    let mut files = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seeds" => seeds = args.next().ok_or("--seeds needs a number")?.parse()?,
            _ => files.push(arg),
        }
    }
    let mut table = Table::new(
        "worst",
        [
            Column::left("model"),
            Column::left("precision"),
            Column::left("form"),
            Column::right("outputs of layers"),
            Column::right("states"),
            Column::right("logits"),
        ],
    );
    for file in &files {
        let begun = Instant::now();
        let (label, worst) = of_file(Path::new(file)).map_err(|error| format!("{file}: {error}"))?;
        worst.rows(&label, &mut table);
        eprintln!("{label}: {:.1} s", begun.elapsed().as_secs_f64());
    }
    for version in Version::ALL {
        let begun = Instant::now();
        let mut worst = Worst::default();
        for seed in 0..seeds {
            worst.add(&of_seed(version, seed).map_err(|error| format!("{version}, seed {seed}: {error}"))?);
        }
        worst.rows(&format!("{version}, {seeds} seeds"), &mut table);
        eprintln!("{version}: {:.1} s", begun.elapsed().as_secs_f64());
    }
    println!("{}", table.to_markdown()?);
    Ok(())
}

/// Every case of a file.
fn of_file(path: &Path) -> Result<(String, Worst), BoxError> {
    let source = rwkv_forge_checkpoint::open(path, &rwkv_forge_checkpoint::Limits::default())?;
    let description = describe(source.tensors())?;
    let tokens = tokens(description.hyperparameters.vocabulary, LENGTH, 1);
    let model = rwkv_forge_weights::Model::over(source.into(), description.clone());
    let mut worst = Worst::default();
    worst.add(&compare(&model, &model, &tokens, &FormsOptions::default(), &mut |_| ())?);
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    Ok((format!("{name} ({})", description.version), worst))
}

/// One random model: one start state and two chunk lengths by the seed.
fn of_seed(version: Version, seed: u64) -> Result<FormsReport, BoxError> {
    let by_seed = |count: usize, divisor: u64| usize::try_from(seed / divisor).unwrap_or(0) % count;
    let decay = [Decay::Typical, Decay::Fast, Decay::Slow][by_seed(3, 1)];
    let bonus_as_logarithm = [Version::V5_0, Version::V5_1].contains(&version);
    let source = random_model_with(version, &SIZES, &Options { decay, bonus_as_logarithm, ..Options::default() }, seed);
    let description = describe(source.tensors())?;
    let length = if seed % 25 == 24 { LONG } else { LENGTH };
    let options = FormsOptions {
        lengths: vec![length],
        chunks: [vec![7, 64], vec![16], vec![5, 33]][by_seed(3, 9)].clone(),
        starts: vec![Start::ALL[by_seed(3, 3)]],
        seed,
        ..FormsOptions::default()
    };
    let model = rwkv_forge_weights::Model::new(source, description.clone());
    Ok(compare(&model, &model, &tokens(SIZES.vocabulary, length, seed), &options, &mut |_| ())?)
}

fn tokens(vocabulary: usize, count: usize, seed: u64) -> Vec<u32> {
    let mut numbers = SplitMix64::new(seed);
    (0..count).filter_map(|_| u32::try_from(numbers.below(vocabulary)).ok()).collect()
}
