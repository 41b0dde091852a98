//! Speed of encoding and decoding on one core. Throughput is in elements; an f32 has 4 bytes, a bf16 has 2.
#![allow(missing_docs, reason = "the macros of criterion make public items")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rwkv_forge_quant::FORMATS;

/// Elements an iteration: 1 MiB of f32, which stays in a second-level cache.
const ELEMENTS: usize = 256 * 1024;

fn values() -> Vec<f32> {
    let mut state = 1u64;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    // bf16 values, as checkpoints have them, so that ties of the largest magnitude are as frequent as they are there.
    (0..ELEMENTS).map(|_| f32::from_bits(((draw() + draw() + draw()) * 0.02).to_bits() & 0xffff_0000)).collect()
}

fn blocks(criterion: &mut Criterion) {
    let values = values();
    let importance: Vec<f32> = values[..1024].iter().map(|value| value * value).collect();
    for format in FORMATS {
        let encoding = format.encoding();
        let mut bytes = vec![0; ELEMENTS / encoding.block_len as usize * encoding.block_bytes as usize];
        let mut decoded = vec![0.0; ELEMENTS];
        let mut group = criterion.benchmark_group(encoding.name);
        group.throughput(Throughput::Elements(ELEMENTS as u64));
        group.bench_function("encode", |bencher| {
            bencher.iter(|| format.encode(black_box(&values), black_box(&mut bytes)).expect("finite values"));
        });
        group.bench_function("encode_weighted", |bencher| {
            bencher.iter(|| format.encode_weighted(black_box(&values), &importance, black_box(&mut bytes)).expect("finite values"));
        });
        group.bench_function("decode", |bencher| bencher.iter(|| format.decode(black_box(&bytes), black_box(&mut decoded))));
        group.finish();
    }
}

criterion_group!(benches, blocks);
criterion_main!(benches);
