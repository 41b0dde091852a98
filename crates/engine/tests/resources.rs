//! Memory: what is predicted, what is held, and what becomes resident; and that a token allocates nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails should fail loudly")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rwkv_forge_engine::{Arithmetic, Logits, memory};
use rwkv_forge_model::Version;
use rwkv_forge_testkit::models::Sizes;
use support::{Loaded, options, tokens, versions};

/// The system's allocator with a counter.
struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract; the counter touches no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Tests of one binary run at the same time, and the counter is for all of them.
static ALONE: Mutex<()> = Mutex::new(());

/// Small, but with weights that outweigh everything else.
const SIZES: Sizes = Sizes { layers: 3, channels: 256, head_size: 64, ffn: 1024, vocabulary: 2000, ranks: [32, 32, 32, 64] };

fn models() -> Vec<(String, Loaded)> {
    let formats = ["f16", "q8_0", "q4_k", "q6_k", "f32", "nf4", "q8_0"];
    let pairs = versions().zip(formats);
    pairs
        .map(|(version, format)| {
            let encoding = rwkv_forge_quant::by_name(format).unwrap().encoding();
            (format!("{version} {format}"), Loaded::random(version, &SIZES, 1).stored_as(encoding))
        })
        .collect()
}

/// Resident memory of this process in bytes; `None` where the system does not say.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux tells it");
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).expect("a number").parse::<f64>().expect("a number") * 1024.0
}

#[test]
fn what_is_predicted_is_what_is_held() {
    let _alone = ALONE.lock();
    for (name, model) in models() {
        let options = options(Arithmetic::Int8, 2);
        let predicted = memory(&model.model(), &options).unwrap();
        let mut engine = model.engine(&options);
        let mut state = engine.new_state();
        let mut logits = vec![0.0; SIZES.vocabulary];
        engine.step(1, &mut state, &mut logits).unwrap();
        let one = engine.memory();
        // Buffers for a row of the embedding and the vectors that versions expand.
        let slack = 64.0 * 1024.0;
        let close = |found: u64, expected: u64, share: f64| (found as f64 - expected as f64).abs() <= share * expected as f64 + slack;
        assert!(close(one.weights, predicted.weights, 0.001), "{name}: {one:?} {predicted:?}");
        assert_eq!(one.state, state.bytes() as u64, "{name}");
        assert!(close(one.scratch + one.batch, predicted.scratch, 0.2), "{name}: {one:?} {predicted:?}");
        let prompt = tokens(400, SIZES.vocabulary);
        engine.forward(&[&prompt], std::slice::from_mut(&mut state), Logits::All, |_, _, _| ()).unwrap();
        let many = engine.memory();
        assert!(close(many.scratch + many.batch, predicted.batch, 0.2), "{name}: {many:?} {predicted:?}");
    }
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "needs Linux, which tells the resident memory")]
fn what_is_predicted_is_what_becomes_resident() {
    let _alone = ALONE.lock();
    // 27 million parameters.
    let sizes = Sizes { layers: 6, channels: 512, head_size: 64, ffn: 2048, vocabulary: 8192, ranks: [32, 32, 32, 64] };
    let random = Loaded::random(Version::V7, &sizes, 1);
    for format in ["f16", "q8_0", "q4_k"] {
        let model = random.stored_as(rwkv_forge_quant::by_name(format).unwrap().encoding());
        let options = options(Arithmetic::Int8, 2);
        let predicted = memory(&model.model(), &options).unwrap();
        let before = resident();
        let mut engine = model.engine(&options);
        let mut state = engine.new_state();
        engine.step(1, &mut state, &mut vec![0.0; sizes.vocabulary]).unwrap();
        let grown = resident() - before;
        let sum = (predicted.weights + predicted.state + predicted.scratch) as f64;
        // Packing threads keep buffers of half a MiB, the allocator some pages; what others freed before is used again.
        let slack = 3.0 * 1024.0 * 1024.0;
        assert!((grown - sum).abs() < 0.05 * sum + slack, "{format}: grew by {grown}, predicted {sum}");
        // What the comparison can see: a second copy of the weights would show.
        assert!(grown + predicted.weights as f64 > sum * 1.05 + slack, "{format}");
    }
}

#[test]
fn a_token_allocates_nothing() {
    let _alone = ALONE.lock();
    for (name, model) in models() {
        for threads in [1, 2] {
            let mut engine = model.engine(&options(Arithmetic::Int8, threads));
            let mut state = engine.new_state();
            let mut logits = vec![0.0; SIZES.vocabulary];
            // The first tokens size the scratch of each thread, whenever it takes its first part.
            for token in 0..20 {
                engine.step(token, &mut state, &mut logits).unwrap();
            }
            // The harness may print between two tests' lines; a token that allocates does so each time.
            let least = (0..20u32).map(|token| {
                let before = CALLS.load(Ordering::Relaxed);
                engine.step(token, &mut state, &mut logits).unwrap();
                CALLS.load(Ordering::Relaxed) - before
            });
            assert_eq!(least.min(), Some(0), "{name}, {threads} threads");
        }
    }
}

#[test]
fn a_token_reads_the_weights_as_stored() {
    for (name, model) in models() {
        let predicted = memory(&model.model(), &options(Arithmetic::Int8, 1)).unwrap();
        let stored = |spec: &rwkv_forge_model::TensorSpec| model.source.tensors()[spec.source_index].byte_len().unwrap();
        // Of what is looked up by a token, one row.
        let is_table = |name: &str| name == "emb.weight" || name.ends_with("_emb.weight");
        let rows = |name: &str| if is_table(name) { SIZES.vocabulary as u64 } else { 1 };
        let read: u64 = model.description.tensors.iter().map(|spec| stored(spec) / rows(&spec.name)).sum();
        let all: u64 = model.description.tensors.iter().map(stored).sum();
        assert_eq!(predicted.read_per_token, read, "{name}");
        assert!(read < all, "{name} has an embedding");
    }
}
