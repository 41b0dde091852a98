//! Products of each format with one token, from memory and from the cache, and with a batch.
//!
//! `cargo bench -p rwkv-forge-matrix -- one/cache/q4_k` for some of them. `throughput` is bytes of packed weights for one token, products of
//! a weight and an activation for a batch. The narrower instruction sets are measured from the cache and in batches only: from memory
//! they are as fast as the widest.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rwkv_forge_matrix::{Activations, Arithmetic, Isa, Matrix, PANEL};
use rwkv_forge_quant::{BlockFormat, FORMATS};
use rwkv_forge_testkit::models::SplitMix64;

/// Bytes of a matrix that no cache holds, and of one that the second level holds.
const FROM_MEMORY: usize = 768 << 20;
const FROM_CACHE: usize = 700 << 10;

/// Tokens of a batch.
const BATCH: usize = 128;

/// Columns of all matrices.
const COLUMNS: usize = 2048;

/// Bytes of a row, and rows of a matrix of about so many bytes.
fn size(format: &dyn BlockFormat, bytes: usize) -> (usize, usize) {
    let encoding = format.encoding();
    let row_bytes = COLUMNS / encoding.block_len as usize * encoding.block_bytes as usize;
    (row_bytes, (bytes / row_bytes).div_ceil(PANEL) * PANEL)
}

fn packed_bytes(format: &dyn BlockFormat, bytes: usize) -> u64 {
    Matrix::packed_bytes(size(format, bytes).1, COLUMNS, format.encoding()) as u64
}

/// Such a matrix; its rows repeat from panel to panel.
fn matrix(format: &dyn BlockFormat, bytes: usize) -> Matrix {
    let encoding = format.encoding();
    let (row_bytes, rows) = size(format, bytes);
    let mut random = SplitMix64::new(1);
    let values: Vec<f32> = (0..PANEL * COLUMNS).map(|_| random.normal() * 0.02).collect();
    let mut stored = vec![0; PANEL * row_bytes];
    format.encode(&values, &mut stored).expect("weights as models have them");
    let read = |_, out: &mut [u8]| {
        for out in out.chunks_mut(stored.len()) {
            out.copy_from_slice(&stored[..out.len()]);
        }
        Ok(())
    };
    Matrix::pack(rows, COLUMNS, encoding, &read).expect("memory for the matrix")
}

fn activations(tokens: usize) -> Activations {
    let mut random = SplitMix64::new(2);
    let mut x = Activations::new(tokens, COLUMNS, Arithmetic::Int8);
    for token in 0..tokens {
        let row: Vec<f32> = (0..COLUMNS).map(|_| random.normal()).collect();
        x.set_row(Isa::best(), token, &row);
    }
    x
}

fn formats() -> impl Iterator<Item = &'static dyn BlockFormat> {
    FORMATS.iter().copied().filter(|format| Matrix::packs(format.encoding(), COLUMNS))
}

fn one_token(criterion: &mut Criterion) {
    let x = activations(1);
    for (place, bytes) in [("memory", FROM_MEMORY), ("cache", FROM_CACHE)] {
        let mut group = criterion.benchmark_group(format!("one/{place}"));
        group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
        for format in formats() {
            group.throughput(Throughput::Bytes(packed_bytes(format, bytes)));
            let isas = if place == "memory" { vec![Isa::best()] } else { Isa::all() };
            let mut made = None;
            for isa in isas {
                group.bench_function(BenchmarkId::new(format.encoding().name, isa), |bencher| {
                    let matrix = made.get_or_insert_with(|| matrix(format, bytes));
                    let mut out = vec![0.0; matrix.panels() * PANEL];
                    bencher.iter(|| matrix.product(isa, 0..matrix.panels(), &x, black_box(&mut out)));
                });
            }
        }
        group.finish();
    }
}

fn batch(criterion: &mut Criterion) {
    let x = activations(BATCH);
    let mut group = criterion.benchmark_group("batch");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for format in formats() {
        let matrix = matrix(format, FROM_CACHE);
        group.throughput(Throughput::Elements((matrix.rows() * COLUMNS * BATCH) as u64));
        for isa in Isa::all() {
            let mut out = vec![0.0; matrix.panels() * PANEL * BATCH];
            group.bench_function(BenchmarkId::new(format.encoding().name, isa), |bencher| {
                bencher.iter(|| matrix.product(isa, 0..matrix.panels(), &x, black_box(&mut out)));
            });
        }
    }
    group.finish();
}

fn set_row(criterion: &mut Criterion) {
    let mut random = SplitMix64::new(3);
    let row: Vec<f32> = (0..COLUMNS).map(|_| random.normal()).collect();
    let mut x = Activations::new(1, COLUMNS, Arithmetic::Int8);
    let mut group = criterion.benchmark_group("set_row");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(COLUMNS as u64));
    for isa in Isa::all() {
        group.bench_function(isa.name(), |bencher| bencher.iter(|| x.set_row(isa, 0, black_box(&row))));
    }
    group.finish();
}

criterion_group!(benches, one_token, batch, set_row);
criterion_main!(benches);
