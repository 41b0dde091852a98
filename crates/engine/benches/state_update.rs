//! The recurrences and the functions between the matrix products: `cargo bench -p rwkv-forge-engine --bench state_update`.
//!
//! One head of 64 channels a measurement, for each instruction set of this CPU: a single token, and 16 tokens of one head, whose
//! state then stays in the first-level cache.
#![allow(missing_docs, reason = "the macros of criterion make public items")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rwkv_forge_engine::{Isa, ops};
use rwkv_forge_matrix::Pass;
use rwkv_forge_testkit::models::SplitMix64;

/// Channels of a head.
const HEAD: usize = 64;
/// Channels of a layer.
const CHANNELS: usize = 768;

/// One head's state and the rows that it is updated with.
struct Head {
    tokens: usize,
    /// r, w, k, v, removal, replacement, each `[tokens, HEAD]`.
    rows: [Vec<f32>; 6],
    bonus: Vec<f32>,
    state: Vec<f32>,
    out: Vec<f32>,
}

impl Head {
    fn new(tokens: usize) -> Self {
        let mut rng = SplitMix64::new(1);
        let count = HEAD * tokens;
        let mut normals = |count: usize| -> Vec<f32> { (0..count).map(|_| 0.1 * rng.normal()).collect() };
        let (r, k, v, bonus, state) = (normals(count), normals(count), normals(count), normals(HEAD), normals(HEAD * HEAD));
        let mut removal = normals(count);
        removal.chunks_exact_mut(HEAD).for_each(ops::l2_normalise);
        let replacement = removal.iter().map(|removal| -0.5 * removal).collect();
        // Far enough from 1 that states neither grow nor become subnormal over millions of updates.
        let w = (0..count).map(|_| 0.6 + 0.39 * rng.uniform()).collect();
        Self { tokens, rows: [r, w, k, v, removal, replacement], bonus, state, out: vec![0.0; count] }
    }
}

struct Update5<'a>(&'a mut Head);

impl Pass for Update5<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Head { rows: [r, w, k, v, ..], bonus: u, state, out, .. } = self.0;
        ops::wkv::wkv5(state, HEAD, ops::wkv::Inputs5 { r, k, v, w, u }, out);
    }
}

struct Update7<'a>(&'a mut Head);

impl Pass for Update7<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Head { rows: [r, w, k, v, removal, replacement], state, out, .. } = self.0;
        ops::wkv::wkv7(state, HEAD, ops::wkv::Inputs7 { r, w, k, v, removal, replacement }, out);
    }
}

/// A layer's channels of RWKV-4.
struct Update4<'a> {
    rows: &'a [Vec<f32>; 4],
    sums: &'a mut [Vec<f32>; 3],
    out: &'a mut [f32],
}

impl Pass for Update4<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let [k, v, decay, bonus] = self.rows;
        let [aa, bb, pp] = self.sums;
        ops::wkv4::step(ops::wkv4::Inputs { k, v, decay, bonus }, ops::wkv4::Sums { aa, bb, pp }, self.out);
    }
}

struct Norm<'a>(&'a [f32], &'a mut [f32]);

impl Pass for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        ops::layer_norm(self.0, self.0, self.0, self.1);
    }
}

struct Silu<'a>(&'a mut [f32]);

impl Pass for Silu<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        ops::map(self.0, ops::silu);
    }
}

fn recurrences(criterion: &mut Criterion) {
    for (name, version) in [("RWKV-5 and 6", 5), ("RWKV-7", 7)] {
        let mut group = criterion.benchmark_group(format!("one head of 64, {name}"));
        for tokens in [1, 16] {
            let mut head = Head::new(tokens);
            group.throughput(Throughput::Elements(head.tokens as u64));
            for isa in Isa::all() {
                group.bench_function(BenchmarkId::new(isa.name(), format!("{tokens} tokens")), |bencher| {
                    bencher.iter(|| {
                        let head = black_box(&mut head);
                        if version == 5 { isa.run(Update5(head)) } else { isa.run(Update7(head)) }
                    });
                });
            }
        }
        group.finish();
    }
}

fn rows(criterion: &mut Criterion) {
    let mut rng = SplitMix64::new(2);
    let mut normals = || -> Vec<f32> { (0..CHANNELS).map(|_| rng.normal()).collect() };
    let rows: [Vec<f32>; 4] = std::array::from_fn(|_| normals());
    let decay = rows[2].iter().map(|value| -value.abs()).collect();
    let [k, v, _, bonus] = rows;
    let rows = [k, v, decay, bonus];
    let mut sums = [vec![0.0; CHANNELS], vec![0.0; CHANNELS], vec![-1e30; CHANNELS]];
    let mut out = vec![0.0; CHANNELS];
    let mut group = criterion.benchmark_group("768 channels");
    for isa in Isa::all() {
        group.bench_function(BenchmarkId::new("RWKV-4 state", isa.name()), |bencher| {
            bencher.iter(|| isa.run(Update4 { rows: black_box(&rows), sums: &mut sums, out: &mut out }));
        });
        group.bench_function(BenchmarkId::new("layer norm", isa.name()), |bencher| {
            bencher.iter(|| isa.run(Norm(black_box(&rows[0]), &mut out)));
        });
        group.bench_function(BenchmarkId::new("silu", isa.name()), |bencher| {
            bencher.iter(|| {
                out.copy_from_slice(&rows[0]);
                isa.run(Silu(black_box(&mut out)));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, recurrences, rows);
criterion_main!(benches);
