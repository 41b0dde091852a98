//! Products of each format with one token, from memory and from the cache, and with a batch.
//!
//! `cargo bench -p rwkv-forge-matrix -- one/cache/q4_k` for some of them. `throughput` is bytes of packed weights for one token, products of
//! a weight and an activation for a batch. The narrower instruction sets are measured from the cache and in batches only: from memory
//! they are as fast as the widest.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rwkv_forge_matrix::{Activations, Arithmetic, Band, Columns, Isa, Matrix, PANEL};
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

/// One token from memory, of matrices as a channel mix has them: 1024 rows of 4096 columns, of which some inputs are not zero. In panels,
/// and by columns with all columns read or those that are needed.
fn columns(criterion: &mut Criterion) {
    const ROWS: usize = 1024;
    const WIDTH: usize = 4096;
    const MATRICES: usize = 48;
    let mut random = SplitMix64::new(4);
    let inputs: Vec<(u32, Activations)> = [1, 7, 20, 50, 100]
        .into_iter()
        .map(|percent| {
            let mut x = Activations::new(1, WIDTH, Arithmetic::Int8);
            let row: Vec<f32> =
                (0..WIDTH).map(|_| if random.uniform() * 100.0 < percent as f32 { 0.1 + random.uniform() } else { 0.0 }).collect();
            x.set_row(Isa::best(), 0, &row);
            (percent, x)
        })
        .collect();
    let mut group = criterion.benchmark_group("columns");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for format in formats().filter(|format| Matrix::packs_columns(format.encoding(), WIDTH)) {
        let encoding = format.encoding();
        let row_bytes = WIDTH / encoding.block_len as usize * encoding.block_bytes as usize;
        let values: Vec<f32> = (0..PANEL * WIDTH).map(|_| random.normal() * 0.02).collect();
        let mut stored = vec![0; PANEL * row_bytes];
        format.encode(&values, &mut stored).expect("weights as models have them");
        let read = |_, out: &mut [u8]| {
            for out in out.chunks_mut(stored.len()) {
                out.copy_from_slice(&stored[..out.len()]);
            }
            Ok(())
        };
        let mut out = vec![0.0; ROWS];
        let mut measure = |name: String, matrices: &[Matrix], x: &Activations, columns: Columns| {
            group.bench_function(BenchmarkId::new(encoding.name, name), |bencher| {
                bencher.iter(|| {
                    for matrix in matrices {
                        matrix.product_of(Isa::best(), 0..matrix.panels(), x, columns, black_box(&mut out));
                    }
                });
            });
        };
        let panels: Vec<Matrix> =
            (0..MATRICES).map(|_| Matrix::pack(ROWS, WIDTH, encoding, &read).expect("memory for the matrix")).collect();
        measure("panels".to_owned(), &panels, &inputs[4].1, Columns::All);
        drop(panels);
        for band in Band::ALL {
            let pack = |_| Matrix::pack_columns(ROWS, WIDTH, encoding, band, &read).expect("memory for the matrix");
            let matrices: Vec<Matrix> = (0..MATRICES).map(pack).collect();
            measure(format!("{}/all", band.rows()), &matrices, &inputs[4].1, Columns::All);
            for (percent, x) in &inputs {
                measure(format!("{}/{percent}%", band.rows()), &matrices, x, Columns::Active);
            }
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

criterion_group!(benches, one_token, batch, columns, set_row);
criterion_main!(benches);
