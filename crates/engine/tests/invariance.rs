//! The same bits on every instruction set, with any number of threads, and however sequences are divided into calls.
#![allow(clippy::expect_used, reason = "a test that fails should fail loudly")]

use crate::support::{Loaded, ODD, WIDE, bits, on, options, tokens, versions};
use rwkv_forge_engine::{Arithmetic, Engine, EngineOptions, Isa, LayerStream, Logits, State};
use rwkv_forge_model::Version;

/// One model a version, its matrices of different types, so that integer and float products meet.
fn models() -> Vec<Loaded> {
    let formats = ["q4_k", "q8_0", "q6_k", "nf4", "q5_1", "q4_0", "q5_k"];
    let encodings = formats.map(|name| rwkv_forge_quant::by_name(name).expect("a known format").encoding());
    assert_eq!(versions().count(), encodings.len());
    let quantized = versions().zip(encodings);
    let mut models: Vec<Loaded> = quantized.map(|(version, encoding)| Loaded::random(version, &WIDE, 7).stored_as(encoding)).collect();
    models.push(Loaded::random(Version::V7, &ODD, 8));
    models.push(Loaded::random(Version::V6, &ODD, 9));
    models
}

fn name(model: &Loaded) -> String {
    model.description.summary()
}

/// Everything that a run gives, as bits.
fn run(model: &Loaded, options: &EngineOptions, tokens: &[u32]) -> (Vec<u32>, State) {
    let (logits, state) = model.steps(options, tokens);
    (bits(&logits), state)
}

#[test]
fn instruction_sets_give_the_same_bits() {
    for model in models() {
        let tokens = tokens(5, model.description.hyperparameters.vocabulary);
        for arithmetic in [Arithmetic::Int8, Arithmetic::Float] {
            let expected = run(&model, &on(Isa::best(), arithmetic), &tokens);
            for isa in Isa::all() {
                assert!(run(&model, &on(isa, arithmetic), &tokens) == expected, "{} {arithmetic:?} {isa}", name(&model));
            }
        }
    }
}

/// Logits of all tokens of some sequences, fed `parts` tokens at a time, each sequence's one after the other.
fn forward(engine: &mut Engine, sequences: &[Vec<u32>], part: usize) -> (Vec<Vec<f32>>, Vec<State>) {
    let mut states = vec![engine.new_state(); sequences.len()];
    let mut logits = vec![Vec::new(); sequences.len()];
    let longest = sequences.iter().map(Vec::len).max().unwrap_or(0);
    for start in (0..longest).step_by(part) {
        let batch: Vec<&[u32]> =
            sequences.iter().map(|tokens| &tokens[start.min(tokens.len())..(start + part).min(tokens.len())]).collect();
        let sink = |sequence: usize, _: usize, row: &[f32]| logits[sequence].extend_from_slice(row);
        engine.forward(&batch, &mut states, Logits::All, sink).expect("the batch runs");
    }
    (logits, states)
}

#[test]
fn threads_and_batches_give_the_same_bits() {
    for model in models() {
        let vocabulary = model.description.hyperparameters.vocabulary;
        // One sequence is longer than a block, one is empty, one a single token.
        let sequences: Vec<Vec<u32>> = [170, 0, 1, 23].iter().map(|length| tokens(*length, vocabulary)).collect();
        let expected: Vec<_> = sequences.iter().map(|tokens| run(&model, &options(Arithmetic::Int8, 1), tokens)).collect();
        for (threads, part) in [(1, 1000), (2, 1000), (3, 7), (4, 64), (2, 1)] {
            let mut engine = model.engine(&options(Arithmetic::Int8, threads));
            let (logits, states) = forward(&mut engine, &sequences, part);
            for (index, (expected, state)) in expected.iter().enumerate() {
                let same = bits(&logits[index]) == *expected && states[index] == *state;
                assert!(same, "{} threads {threads}, parts of {part}, sequence {index}", name(&model));
            }
        }
    }
}

#[test]
fn wanted_positions_have_the_same_bits() {
    let model = Loaded::random(Version::V7, &ODD, 8);
    let sequences = [tokens(50, 50), tokens(3, 50)];
    let mut engine = model.engine(&options(Arithmetic::Int8, 2));
    let (all, expected) = forward(&mut engine, &sequences, 1000);
    let batch: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    for wanted in [Logits::Last, Logits::None] {
        let mut states = vec![engine.new_state(); 2];
        let mut calls = Vec::new();
        let sink = |sequence: usize, position: usize, row: &[f32]| calls.push((sequence, position, row.to_vec()));
        engine.forward(&batch, &mut states, wanted, sink).expect("the batch runs");
        assert_eq!(states, expected);
        let positions: Vec<_> = calls.iter().map(|(sequence, position, _)| (*sequence, *position)).collect();
        if wanted == Logits::None {
            assert!(positions.is_empty());
            continue;
        }
        assert_eq!(positions, [(0, 49), (1, 2)]);
        for (sequence, _, row) in calls {
            assert_eq!(bits(&row), bits(&all[sequence][all[sequence].len() - 50..]));
        }
    }
}

#[test]
fn one_layer_at_a_time_gives_the_same_bits() {
    for model in models() {
        let sizes = model.description.hyperparameters;
        let sequences = [tokens(150, sizes.vocabulary), tokens(5, sizes.vocabulary)];
        let mut engine = model.engine(&options(Arithmetic::Float, 2));
        let (expected, states) = forward(&mut engine, &sequences, 1000);
        let mut stream = LayerStream::new(&model.model(), &options(Arithmetic::Float, 1)).expect("a known version");
        // The first sequence goes through in two batches.
        let mut batches = [
            stream.embed(&[&sequences[0][..70]]).expect("tokens are in the vocabulary"),
            stream.embed(&[&sequences[0][70..], &sequences[1]]).expect("tokens are in the vocabulary"),
        ];
        for index in 0..sizes.layers {
            let layer = stream.load(index).expect("the layer loads");
            let mut found = stream.new_states(2);
            stream.forward(&layer, &mut batches[0], &mut found[..1], None).expect("a state for each sequence");
            stream.forward(&layer, &mut batches[1], &mut found, None).expect("a state for each sequence");
            for (state, found) in states.iter().zip(&found) {
                let found = stream.to_kernel(found).expect("a state of one layer");
                assert_eq!(state.to_kernel(&model.description).layers[index], found, "{} layer {index}", name(&model));
            }
        }
        let x = [batches[0].x.as_slice(), &batches[1].x].concat();
        // Ranges that do not begin at panels.
        for (first, rows) in [(0, sizes.vocabulary), (3, 20), (sizes.vocabulary - 1, 1)] {
            let mut head = stream.load_head(first, rows).expect("the head loads");
            let mut found = vec![0.0; 155 * rows];
            stream.logits(&mut head, &x, &mut found, None).expect("the buffer fits");
            let all = expected.iter().flat_map(|logits| logits.chunks_exact(sizes.vocabulary));
            let wanted: Vec<f32> = all.flat_map(|row| &row[first..first + rows]).copied().collect();
            assert_eq!(bits(&found), bits(&wanted), "{} rows {first} +{rows}", name(&model));
        }
    }
}

/// What the comparisons above can see: the smallest change of one number in the model changes bits.
#[test]
fn a_changed_number_changes_bits() {
    let model = Loaded::random(Version::V7, &ODD, 8);
    let changed = model.edited("blocks.2.ln2.weight", |value| f32::from_bits(value.to_bits() + 1));
    let tokens = tokens(5, 50);
    let expected = run(&model, &options(Arithmetic::Float, 1), &tokens);
    assert!(run(&changed, &options(Arithmetic::Float, 1), &tokens) != expected);
}
