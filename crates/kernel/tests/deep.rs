//! RWKV-7a and 7b against recorded logits: of the official package (7a), of candle-transformers (both), and of a script in float64
//! (fixtures/deep/make.py). None of them shares code with the kernel or with each other.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "test code: failing loudly is its purpose, numbers are small")]

use crate::support::{MemorySource, Trained, fixture, npy_f32, npy_tokens};
use rwkv_forge_kernel::{KernelOptions, RecurrentModel};
use rwkv_forge_weights::{Past, State};

/// Both sides compute in f32 with different orders of sums; logits are up to 7.6. The recordings differ from float64 by up to 6.4e-6.
const TOLERANCE: f32 = 3e-5;

const NAMES: [&str; 2] = ["tiny-rwkv7a", "tiny-rwkv7b"];

fn open(name: &str) -> Trained {
    Trained::open(&fixture(&format!("deep/{name}.safetensors")), "logits")
}

fn recorded(name: &str, by: &str) -> Vec<f32> {
    npy_f32(&fixture(&format!("deep/{name}.{by}.npy")))
}

fn worst(found: &[f32], wanted: &[f32]) -> f32 {
    assert_eq!(found.len(), wanted.len());
    found
        .iter()
        .zip(wanted)
        .map(|(found, wanted)| (found - wanted).abs())
        .fold(0.0, |worst, one| if one.is_nan() { one } else { one.max(worst) })
}

#[test]
fn logits_are_those_of_other_programs() {
    let tokens = npy_tokens(&fixture("deep/tokens.npy"));
    for (name, by) in NAMES.map(|name| (name, "logits")).into_iter().chain(NAMES.map(|name| (name, "candle"))).chain([(NAMES[0], "rwkv")]) {
        let model = open(name).model;
        let wanted = recorded(name, by);
        let kernel = RecurrentModel::<f32>::load(&model, &KernelOptions::default()).unwrap();
        let found = kernel.forward(&tokens, &mut State::zero(model.description())).unwrap();
        let difference = worst(&found, &wanted);
        eprintln!("{name}, {by}: {difference:.1e}");
        assert!(difference <= TOLERANCE, "{name}, {by}: {difference:.1e}");
        let exact = RecurrentModel::<f64>::load(&model, &KernelOptions::default()).unwrap();
        let exact = exact.forward(&tokens, &mut State::zero(model.description())).unwrap();
        if by == "logits" {
            // Two computations in float64, one of them rounded to f32 for the recording.
            let off = exact.iter().zip(&wanted).map(|(exact, wanted)| (exact - f64::from(*wanted)).abs()).fold(0.0, f64::max);
            assert!(off <= 5e-7, "{name}: {off:.1e}");
        }
    }
}

/// Mistakes that implementations make or could make; each moves some logit by more than ten times the tolerance.
#[test]
fn planted_faults_are_seen() {
    let tokens = npy_tokens(&fixture("deep/tokens.npy"));
    type Change = fn(&mut MemorySource);
    let faults: &[(&str, usize, Change)] = &[
        ("the table alone", 0, |source| source.edit("ffn.s_emb_x.weight", |_| 0.0)),
        ("the rest alone", 0, |source| source.edit("ffn.s_emb.weight", |_| 0.0)),
        ("no bias of the scale", 0, |source| source.edit("ffn.s0", |_| 0.0)),
        ("rows of the next token", 0, |source| rotate(source, "ffn.s_emb.weight", 32 * 32)),
        ("keys of the next token", 1, |source| rotate(source, "qkv.k_emb.weight", 256)),
        ("values of the next token", 1, |source| rotate(source, "qkv.v_emb.weight", 32)),
        ("keys without the rest", 1, |source| source.edit("qkv.k_emb_x.weight", |_| 0.0)),
        ("values without the rest", 1, |source| source.edit("qkv.v_emb_x.weight", |_| 0.0)),
        ("queries not shifted", 1, |source| source.edit("qkv.x_q", |_| 0.0)),
        ("keys not shifted", 1, |source| source.edit("qkv.x_k", |_| 0.0)),
        ("values not shifted", 1, |source| source.edit("qkv.x_v", |_| 0.0)),
        ("queries and keys swapped", 1, |source| source.swap("qkv.lnq.weight", "qkv.lnk.weight")),
    ];
    for (fault, which, plant) in faults {
        let (mut source, description) = MemorySource::copy_of(&open(NAMES[*which]).model);
        plant(&mut source);
        let kernel = RecurrentModel::<f32>::load(&source.model(&description), &KernelOptions::default()).unwrap();
        let found = kernel.forward(&tokens, &mut State::zero(&description)).unwrap();
        let difference = worst(&found, &recorded(NAMES[*which], "logits"));
        assert!(difference >= 10.0 * TOLERANCE, "{fault} goes unseen: {difference:.1e}");
    }
}

/// Each token gets the row of the one after it.
fn rotate(source: &mut MemorySource, suffix: &str, width: usize) {
    for layer in 0..2 {
        let name = format!("blocks.{layer}.{suffix}");
        let mut values = source.values(&name);
        values.rotate_left(width);
        source.set(&name, &values);
    }
}

/// What is remembered of a token is all of it: each part of it changes what comes later.
#[test]
fn what_the_attention_remembers_grows_and_counts() {
    let model = open(NAMES[1]).model;
    let (description, tokens) = (model.description(), npy_tokens(&fixture("deep/tokens.npy")));
    let kernel = RecurrentModel::<f32>::load(&model, &KernelOptions::default()).unwrap();
    let mut state = State::zero(description);
    let empty = state.layers[0].values().count();
    kernel.residual(&tokens[..20], &mut state).unwrap();
    let growth = description.mechanisms.attention.growth(&description.hyperparameters);
    assert_eq!((growth, state.layers[1].values().count()), (256 + 32, empty + 20 * growth));
    assert!(state.check(description).is_ok());
    let next = kernel.forward(&tokens[20..21], &mut state.clone()).unwrap();
    type Part = fn(&mut Past<f32>) -> &mut Vec<f32>;
    let parts: [Part; 5] =
        [|past| &mut past.query, |past| &mut past.key, |past| &mut past.value, |past| &mut past.keys, |past| &mut past.values];
    for (index, part) in parts.iter().enumerate() {
        let mut other = state.clone();
        part(&mut other.layers[1].past).fill(0.0);
        assert_ne!(kernel.forward(&tokens[20..21], &mut other).unwrap(), next, "part {index}");
        // A part of another size belongs to another model.
        let mut other = state.clone();
        part(&mut other.layers[1].past).pop();
        assert_eq!(rwkv_forge_tensor::Diagnostic::kind(&kernel.forward(&tokens[20..21], &mut other).unwrap_err()), "BufferMismatch");
    }
}

/// A row is read when its token comes, and no other.
#[test]
fn tables_stay_in_the_file() {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    static OPEN: AtomicBool = AtomicBool::new(false);
    static READ: Mutex<Vec<(String, u64, usize)>> = Mutex::new(Vec::new());
    struct Watched(MemorySource);
    impl rwkv_forge_tensor::TensorSource for Watched {
        fn path(&self) -> &std::path::Path {
            self.0.path()
        }
        fn format(&self) -> &'static str {
            self.0.format()
        }
        fn files(&self) -> Vec<std::path::PathBuf> {
            self.0.files()
        }
        fn tensors(&self) -> &[rwkv_forge_tensor::TensorInfo] {
            self.0.tensors()
        }
        fn read_at(&self, index: usize, start: u64, out: &mut [u8]) -> Result<(), rwkv_forge_tensor::BoxError> {
            READ.lock().unwrap().push((self.tensors()[index].name.clone(), start, out.len()));
            if OPEN.load(Ordering::Relaxed) && start == 0 { self.0.read_at(usize::MAX, 0, out) } else { self.0.read_at(index, start, out) }
        }
        fn check_integrity(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<String>, rwkv_forge_tensor::BoxError> {
            self.0.check_integrity(progress)
        }
    }
    let (source, description) = MemorySource::copy_of(&open(NAMES[1]).model);
    let model = rwkv_forge_weights::Model::new(Watched(source), description.clone());
    let kernel = RecurrentModel::<f32>::load(&model, &KernelOptions::default()).unwrap();
    let of_tables = |name: &str| ["ffn.s_emb.weight", "qkv.k_emb.weight", "qkv.v_emb.weight"].iter().any(|table| name.ends_with(table));
    assert!(READ.lock().unwrap().iter().all(|(name, ..)| !of_tables(name)), "loading reads no table");
    READ.lock().unwrap().clear();
    let mut state = State::zero(&description);
    kernel.forward(&[7, 3], &mut state).unwrap();
    let read = std::mem::take(&mut *READ.lock().unwrap());
    assert_eq!(read.len(), 2 * 3 * 2, "{read:?}");
    let widths = [("s_emb.weight", 1024), ("k_emb.weight", 256), ("v_emb.weight", 32)];
    for (name, start, len) in read {
        let (_, width) = widths.iter().find(|(table, _)| name.ends_with(table)).unwrap();
        assert!(len == width * 4 && [7, 3].map(|token| token * len as u64).contains(&start), "{name}: {len} bytes at {start}");
    }
    // A row that cannot be read is an error and no wrong number.
    OPEN.store(true, Ordering::Relaxed);
    assert_eq!(rwkv_forge_tensor::Diagnostic::kind(&kernel.forward(&[0], &mut state).unwrap_err()), "OutOfRange");
}
