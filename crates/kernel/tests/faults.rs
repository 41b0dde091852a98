//! Planted faults: every mistake here must move some logit of a trained model by ten times the tolerance of oracle.rs
//! or more, which shows that agreement with the recorded logits rules it out. Mistakes inside the RWKV-7 recurrence
//! are in independent.rs.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "test code: failing loudly is its purpose, numbers are small")]

use crate::support::{MemorySource, TINY, Trained, fixture, npy_f32, npy_tokens};
use rwkv_forge_kernel::{KernelOptions, RecurrentModel};
use rwkv_forge_model::ModelDescription;
use rwkv_forge_weights::{State, Wkv};

/// The tolerance of oracle.rs for these models.
const TOLERANCE: f32 = 3e-5;
const POSITIONS: usize = 256;

struct Case {
    name: &'static str,
    source: MemorySource,
    description: ModelDescription,
    recorded: Vec<f32>,
    tokens: Vec<u32>,
}

impl Case {
    fn new(name: &'static str) -> Self {
        let model = Trained::tiny(name);
        let (source, description) = MemorySource::copy_of(&model.model);
        let recorded = npy_f32(&fixture(&format!("oracles/{name}.{}.npy", model.logits)));
        let tokens = npy_tokens(&fixture("oracles/tokens-320.npy"))[..POSITIONS].to_vec();
        Self { name, source, description, recorded, tokens }
    }

    /// Largest difference from the recorded logits, `before_step` tampering with the state before every token.
    fn worst(&self, source: &MemorySource, options: &KernelOptions, before_step: impl Fn(&mut State<f32>)) -> f32 {
        let model = RecurrentModel::<f32>::load(&source.model(&self.description), options).unwrap();
        let vocabulary = self.description.hyperparameters.vocabulary;
        let mut state = State::zero(&self.description);
        let mut logits = vec![0f32; vocabulary];
        let mut worst = 0f32;
        for (token, want) in self.tokens.iter().zip(self.recorded.chunks(vocabulary)) {
            before_step(&mut state);
            model.step(*token, &mut state, &mut logits).unwrap();
            for (got, want) in logits.iter().zip(want) {
                let difference = (got - want).abs();
                worst = if difference.is_nan() { f32::INFINITY } else { worst.max(difference) };
            }
        }
        worst
    }

    fn seen(&self, fault: &str, worst: f32) {
        eprintln!("{}: {fault}: {worst:.3}", self.name);
        assert!(worst >= 10.0 * TOLERANCE, "{}: {fault} goes unseen: {worst:.2e}", self.name);
    }

    fn seen_in_weights(&self, fault: &str, change: impl Fn(&mut MemorySource)) {
        let mut source = self.source.clone();
        change(&mut source);
        self.seen(fault, self.worst(&source, &KernelOptions::default(), |_| ()));
    }

    fn seen_in_state(&self, fault: &str, change: impl Fn(&mut State<f32>)) {
        self.seen(fault, self.worst(&self.source, &KernelOptions::default(), change));
    }
}

fn transpose_matrices(state: &mut State<f32>, size: usize) {
    for layer in &mut state.layers {
        let Wkv::Matrix(matrix) = &mut layer.wkv else { continue };
        for head in matrix.chunks_mut(size * size) {
            for i in 0..size {
                for j in 0..i {
                    head.swap(i * size + j, j * size + i);
                }
            }
        }
    }
}

#[test]
fn without_a_fault_the_cases_agree() {
    for name in TINY {
        let case = Case::new(name);
        let worst = case.worst(&case.source, &KernelOptions::default(), |_| ());
        assert!(worst <= TOLERANCE, "{name}: {worst:.2e}");
    }
}

#[test]
fn faults_of_the_state_are_seen() {
    for name in TINY {
        let case = Case::new(name);
        case.seen_in_state("time mix without token shift", |s| s.layers.iter_mut().for_each(|l| l.att_shift.fill(0.0)));
        case.seen_in_state("channel mix without token shift", |s| s.layers.iter_mut().for_each(|l| l.ffn_shift.fill(0.0)));
        case.seen_in_state("time mix without memory", |s| {
            let zero = State::zero(&case.description);
            s.layers.iter_mut().zip(zero.layers).for_each(|(l, zero)| l.wkv = zero.wkv);
        });
        let size = case.description.hyperparameters.head_size;
        if size > 0 {
            case.seen_in_state("key and value index swapped", |s| transpose_matrices(s, size));
        }
    }
}

#[test]
fn faults_of_the_group_norm_epsilon_are_seen() {
    for name in &TINY[1..] {
        let case = Case::new(name);
        let worst = |eps| case.worst(&case.source, &KernelOptions { group_norm_eps: eps }, |_| ());
        case.seen("the head size divisor applied twice", worst(64.0 * 64e-5));
        // The heads of tiny-rwkv6 have a variance so large that this moves its logits by 6e-5, twice the tolerance.
        if *name != "tiny-rwkv6" {
            case.seen("group norm epsilon 1e-5", worst(1e-5));
        }
    }
}

#[test]
fn faults_of_the_weights_are_seen() {
    let case = Case::new("tiny-rwkv4");
    case.seen_in_weights("decay sign", |s| s.edit("att.time_decay", |d| -d));
    case.seen_in_weights("bonus missing", |s| s.edit("att.time_first", |_| 0.0));
    case.seen_in_weights("mixes of k and v swapped", |s| s.swap("att.time_mix_k", "att.time_mix_v"));

    let case = Case::new("tiny-rwkv5");
    case.seen_in_weights("decay sign", |s| s.edit("att.time_decay", |d| -d));
    case.seen_in_weights("exponential of a plain bonus", |s| s.edit("att.time_faaaa", f32::exp));
    case.seen_in_weights("mixes of r and g swapped", |s| s.swap("att.time_mix_r", "att.time_mix_g"));

    let case = Case::new("tiny-rwkv6");
    case.seen_in_weights("decay sign", |s| s.edit("att.time_decay", |d| -d));
    case.seen_in_weights("decay without its data-dependent part", |s| s.edit("att.time_decay_w2", |_| 0.0));
    case.seen_in_weights("slots of the mixes in the order r, w, k, v, g", rotate_slots);

    let case = Case::new("tiny-rwkv7");
    case.seen_in_weights("decay sign", |s| s.edit("att.w0", |w| -w));
    case.seen_in_weights("mixes in the order w, r, k, v, a, g", |s| s.swap("att.x_r", "att.x_w"));
    case.seen_in_weights("bonus missing", |s| s.edit("att.r_k", |_| 0.0));
    case.seen_in_weights("value residual always taken whole", |s| s.edit("att.v0", |_| 100.0));
    case.seen_in_weights("a low-rank factor read in the wrong orientation", |s| {
        for layer in 0..3 {
            let name = format!("blocks.{layer}.att.g1");
            let stored = s.values(&name);
            let (rows, columns) = (case.description.hyperparameters.channels, stored.len() / case.description.hyperparameters.channels);
            let turned: Vec<f32> = (0..stored.len()).map(|i| stored[(i % rows) * columns + i / rows]).collect();
            s.set(&name, &turned);
        }
    });
}

fn rotate_slots(source: &mut MemorySource) {
    for layer in 0..3 {
        let name = format!("blocks.{layer}.att.time_maa_w2");
        let mut values = source.values(&name);
        let slot = values.len() / 5;
        values[..4 * slot].rotate_left(3 * slot);
        source.set(&name, &values);
    }
}
