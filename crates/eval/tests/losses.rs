//! Losses over schedules: however tokens are divided, whatever computes, alone or against a baseline.
#![allow(clippy::unwrap_used, reason = "test code: failing loudly is its purpose")]

use crate::support;

use std::num::NonZeroUsize;

use crate::support::{Loaded, hybrid, npy_f32, random, recorded_tokens, tokens};
use rwkv_forge_eval::{
    Baseline, CompareOptions, EvalError, Kernel, LayerSink, Loss, LossOptions, Pass, PassOptions, Piece, TokenWriter, compare, loss,
};
use rwkv_forge_kernel::RecurrentModel;
use rwkv_forge_model::Version;
use rwkv_forge_score::{Document, Precision, Protocol, Schedule, Scorer, Sequence, Tokens};
use rwkv_forge_tensor::Diagnostic;
use rwkv_forge_weights::{LayerState, State};

/// Bytes of activations a token takes in the models of [`random`].
const TOKEN_BYTES: u64 = 64 * 8;

/// Texts of these lengths, each a sequence.
fn schedule(lengths: &[usize], protocol: Protocol) -> Schedule {
    let document = |(index, length): (usize, &usize)| Document {
        name: format!("text {index}"),
        category: String::new(),
        bytes: *length as u64,
        // Different texts, so that a row in the wrong place is seen.
        tokens: tokens(*length + index).split_off(index).into(),
    };
    let documents: Vec<Document> = lengths.iter().enumerate().map(document).collect();
    protocol.schedule(&documents, &|_| Some(1)).unwrap()
}

fn options(kernel: Kernel, threads: usize, tokens_in_memory: u64) -> LossOptions {
    let threads = NonZeroUsize::new(threads).unwrap();
    let pass = PassOptions { kernel, threads, max_memory: tokens_in_memory * TOKEN_BYTES, ..PassOptions::default() };
    LossOptions { pass, precision: Precision::F32 }
}

fn alone(model: &Loaded, schedule: &Schedule, options: &LossOptions) -> Loss {
    loss(model.runnable(), schedule, options, None, &mut |_| ()).unwrap()
}

fn against(baseline: &Loaded, candidate: &Loaded, schedule: &Schedule, kernels: [Kernel; 2]) -> Loss {
    let of = |kernel| options(kernel, 2, 1 << 20);
    let mut baseline = Baseline::new(baseline.runnable(), schedule, &of(kernels[0]), &mut |_| ()).unwrap();
    baseline.compare(candidate.runnable(), &of(kernels[1]).pass, &mut |_| ()).unwrap()
}

/// Engine and reference; hybrids have the latter alone.
fn kernels(version: Version) -> &'static [Kernel] {
    if Version::HYBRIDS.contains(&version) || version == Version::V7b { &[Kernel::Reference] } else { &[Kernel::Engine, Kernel::Reference] }
}

fn every() -> impl Iterator<Item = (Version, Loaded)> {
    let plain = Version::ALL.into_iter().map(|version| (version, random(version, 11)));
    plain.chain(Version::HYBRIDS.into_iter().map(|version| (version, hybrid(version, 12))))
}

#[test]
fn groups_spilling_and_threads_change_no_bit() {
    let schedule = schedule(&[700, 1, 30, 290], Protocol::Stream);
    for (version, model) in every() {
        for kernel in kernels(version) {
            let whole = alone(&model, &schedule, &options(*kernel, 1, 1 << 20));
            assert_eq!(whole.scores.len(), 700 + 1 + 30 + 290);
            // 600: groups of 144 tokens on the disk, as there are more tokens than that. 6000: the same in memory.
            for (threads, memory) in [(1, 600), (2, 600), (3, 6000), (2, 40)] {
                let divided = alone(&model, &schedule, &options(*kernel, threads, memory));
                assert_eq!(divided.scores, whole.scores, "{version} by {} with {threads} threads, {memory} tokens", kernel.name());
            }
        }
    }
}

#[test]
fn tokens_on_the_disk_change_no_bit() {
    let texts: Vec<Vec<u32>> = [700, 1, 30, 290].map(tokens).to_vec();
    let of = |limit: u64, protocol: Protocol| {
        let mut writer = TokenWriter::new(limit, None);
        let mut ends = vec![0];
        for text in &texts {
            writer.push(text).unwrap();
            ends.push(usize::try_from(writer.len()).unwrap());
        }
        let all = writer.finish().unwrap();
        let document = |range: &[usize]| Document {
            name: range[0].to_string(),
            category: String::new(),
            bytes: 0,
            tokens: all.slice(range[0]..range[1]),
        };
        protocol.schedule(&ends.windows(2).map(document).collect::<Vec<_>>(), &|_| Some(1)).unwrap()
    };
    let model = random(Version::V7, 11);
    for protocol in
        [Protocol::Stream, Protocol::Windows { tokens: 100 }, Protocol::Llama { context: 64, bos: Some(3) }, Protocol::Uncheatable2024]
    {
        let (memory, disk) = (of(1 << 20, protocol), of(0, protocol));
        assert_eq!(memory, disk);
        let scores = |schedule: &Schedule| alone(&model, schedule, &options(Kernel::Engine, 2, 600)).scores;
        assert_eq!(scores(&memory), scores(&disk), "{protocol:?}");
        let compared = |schedule: &Schedule| against(&model, &model, schedule, [Kernel::Engine; 2]).scores;
        assert_eq!(compared(&memory), compared(&disk), "{protocol:?}");
    }
}

/// What the test before would not see if states did not matter: a sequence that begins anew where a group ends.
#[test]
fn a_state_that_is_lost_between_groups_is_seen() {
    let whole = schedule(&[400], Protocol::Stream);
    let mut cut = whole.clone();
    let all = whole.sequences[0].tokens.clone();
    cut.sequences = vec![
        Sequence { document: 0, tokens: all.slice(0..145), scored: 1..145, first: 0 },
        Sequence { document: 0, tokens: all.slice(144..all.len()), scored: 1..257, first: 144 },
    ];
    for (version, model) in every() {
        let of = |schedule: &Schedule| alone(&model, schedule, &options(kernels(version)[0], 2, 600)).scores.nll;
        let (right, wrong) = (of(&whole), of(&cut));
        assert_eq!(right[..144], wrong[..144], "{version}");
        let worst = right[144..].iter().zip(&wrong[144..]).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst > 1e-2, "{version}: {worst:e}");
    }
}

/// Rows of logits by another way through the models: the kernel with all layers and all tokens in memory.
fn rows_at_once(model: &Loaded, tokens: &[u32]) -> Vec<Vec<f32>> {
    let runnable = model.runnable();
    let description = runnable.description();
    let kernel = RecurrentModel::<f32>::load(&runnable.model, &runnable.options).unwrap();
    let logits = kernel.forward(tokens, &mut State::zero(description)).unwrap();
    logits.chunks_exact(description.hyperparameters.vocabulary).map(<[f32]>::to_vec).collect()
}

#[test]
fn every_token_is_scored_by_the_row_before_it() {
    for protocol in [Protocol::Stream, Protocol::Llama { context: 32, bos: None }, Protocol::Uncheatable2024] {
        let schedule = schedule(&[90, 40], protocol);
        for (version, model) in every() {
            let mut given = Vec::new();
            let mut receive = |row: &[f32]| {
                given.push(row.to_vec());
                Ok(())
            };
            let found =
                loss(model.runnable(), &schedule, &options(Kernel::Reference, 2, 1 << 20), Some(&mut receive), &mut |_| ()).unwrap();
            let (mut rows, mut want, mut shifted) = (Vec::new(), Vec::new(), 0.0f64);
            let mut scorer = Scorer::new(Precision::F32);
            for sequence in &schedule.sequences {
                let all = rows_at_once(&model, &sequence.fed().to_vec().unwrap());
                let tokens = sequence.tokens.to_vec().unwrap();
                for row in sequence.rows() {
                    let logits = all[row].clone();
                    want.push(scorer.row(&logits, tokens[row + 1]).unwrap().nll);
                    let wrong = scorer.row(&logits, tokens[row]).unwrap().nll;
                    shifted = shifted.max((wrong - want[want.len() - 1]).abs());
                    rows.push(logits);
                }
            }
            assert_eq!(given, rows, "{version}");
            assert_eq!(found.scores.nll, want, "{version}");
            // The token of another place has another loss.
            assert!(shifted > 0.1, "{version}: {shifted}");
        }
    }
}

#[test]
fn the_engine_gives_the_losses_of_the_reference() {
    let schedule = schedule(&[200, 60], Protocol::Stream);
    for version in Version::ALL.into_iter().filter(|version| kernels(*version).contains(&Kernel::Engine)) {
        let model = random(version, 13);
        let found = against(&model, &model, &schedule, [Kernel::Reference, Kernel::Engine]);
        let compared = found.scores.compared.as_ref().unwrap();
        // Logits differ by about 1e-6 of their size, losses by as much, and divergences by its square.
        let worst = found.scores.nll.iter().zip(&compared.nll_reference).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-5, "{version}: {worst:e}");
        assert!(compared.kl.iter().all(|kl| *kl < 1e-10), "{version}");
        assert!(found.layers.iter().all(|layer| layer.residual.unwrap() < 1e-5 && layer.state.unwrap() < 1e-5), "{version}");
        // A thousandth in one vector of one layer is beyond that, from that layer on.
        let faulty = model.edited("blocks.1.ln2.weight", |_, value| value * 1.001);
        let found = against(&model, &faulty, &schedule, [Kernel::Reference, Kernel::Engine]);
        assert!(found.scores.compared.as_ref().unwrap().kl.iter().any(|kl| *kl > 1e-10), "{version}");
        assert!(found.layers[0].residual.unwrap() < 1e-5 && found.layers[1].residual.unwrap() > 1e-5, "{version}");
    }
}

#[test]
fn a_model_does_not_differ_from_itself() {
    let schedule = schedule(&[150, 150, 7], Protocol::Windows { tokens: 64 });
    for (version, model) in every() {
        for kernel in kernels(version) {
            let found = against(&model, &model, &schedule, [*kernel; 2]);
            let compared = found.scores.compared.as_ref().unwrap();
            assert!(compared.kl.iter().all(|kl| *kl == 0.0) && compared.same_top1.iter().all(|same| *same), "{version}");
            assert_eq!(found.scores.nll, compared.nll_reference);
            assert_eq!(found.layers.len(), 3);
            assert!(found.layers.iter().all(|layer| (layer.residual, layer.state) == (Some(0.0), Some(0.0))), "{version}");
        }
    }
}

#[test]
fn divergences_are_those_of_the_comparison_token_by_token() {
    let schedule = schedule(&[120], Protocol::Stream);
    for version in Version::ALL {
        let model = random(version, 14);
        let candidate = model.edited("blocks.1.att.output.weight", |index, value| if index % 7 == 0 { value * 1.1 } else { value });
        let found = against(&model, &candidate, &schedule, [Kernel::Reference; 2]);
        let fed = schedule.sequences[0].fed().to_vec().unwrap();
        let options = CompareOptions::new(&fed, Kernel::Reference);
        let want = compare(&model.runnable(), &candidate.runnable(), &options, &mut |_| ()).unwrap();
        let evaluation = rwkv_forge_score::evaluate(&schedule, &found.scores).unwrap();
        let kl = evaluation.kl.unwrap();
        // The same numbers position by position; the mean is added up by windows in one of them.
        assert_eq!(found.scores.compared.as_ref().unwrap().kl, want.per_position.kl, "{version}");
        assert!((kl.mean - want.kl.mean).abs() < 1e-14 * want.kl.mean && kl.mean > 1e-6, "{version}: {} {}", kl.mean, want.kl.mean);
        assert_eq!((kl.max, kl.p99, kl.median), (want.kl.max, want.kl.p99, want.kl.median), "{version}");
        let nll = want.perplexity.unwrap().reference.ln();
        let reference = &found.scores.compared.as_ref().unwrap().nll_reference[..want.positions - 1];
        assert!((nll - reference.iter().sum::<f64>() / reference.len() as f64).abs() < 1e-13, "{version}");
        assert_eq!(evaluation.top1, Some(want.top1.fraction), "{version}");
        for (found, want) in found.layers.iter().zip(&want.layers) {
            let close = |found: Option<f64>, want: f64| (found.unwrap() - want).abs() <= 1e-9 * want.max(1e-9);
            assert!(close(found.residual, want.residual.as_ref().unwrap().rms_ratio), "{version} {found:?}");
            assert!(close(found.state, want.state.as_ref().unwrap().rms_ratio), "{version} {found:?}");
        }
    }
}

/// Log-probabilities that the official package computed, 4096 tokens from one state.
#[test]
fn trained_models_have_the_recorded_losses() {
    let recorded = recorded_tokens();
    let document = Document { name: String::new(), category: String::new(), bytes: 0, tokens: recorded.into() };
    let schedule = Protocol::Stream.schedule(&[document], &|_| Some(1)).unwrap();
    for (name, oracle) in [
        ("tiny-rwkv4", "tiny-rwkv4.logprobs4096-from-f32-file"),
        ("tiny-rwkv5", "tiny-rwkv5.logprobs4096-from-f32-file"),
        ("tiny-rwkv6", "tiny-rwkv6.logprobs4096-from-f32-file"),
        ("tiny-rwkv7", "tiny-rwkv7.logprobs4096"),
    ] {
        let want = npy_f32(&format!("oracles/{oracle}.npy"));
        let model = Loaded::fixture(name);
        let found = alone(&model, &schedule, &options(Kernel::Engine, 2, 1000));
        let worst = found.scores.nll.iter().zip(&want).map(|(nll, want)| (nll + f64::from(*want)).abs()).fold(0.0, f64::max);
        // f32 by both, in another order of summation; a wrong epsilon or a lost state shows as hundredths.
        assert!(found.scores.len() == want.len() && worst < 1e-3, "{name}: {worst:e}");
    }
}

#[test]
fn models_that_cannot_be_compared_are_refused() {
    let schedule = schedule(&[20], Protocol::Stream);
    let (small, large) = (random(Version::V7, 15), support::random_with_vocabulary(Version::V7, 15, 51));
    let mut baseline = Baseline::new(small.runnable(), &schedule, &options(Kernel::Engine, 1, 1 << 20), &mut |_| ()).unwrap();
    let error = baseline.compare(large.runnable(), &PassOptions::default(), &mut |_| ()).unwrap_err();
    assert_eq!(error.kind(), "VocabularyMismatch");
    // Another number of layers can be compared, but not layer by layer.
    let deeper = support::random_with_layers(Version::V7, 15, 4);
    let found = baseline.compare(deeper.runnable(), &PassOptions::default(), &mut |_| ()).unwrap();
    assert!(found.layers.is_empty() && found.scores.len() == 20);
    let outside = Document { name: String::new(), category: String::new(), bytes: 2, tokens: vec![50, 3].into() };
    let outside = Protocol::Stream.schedule(&[outside], &|_| Some(1)).unwrap();
    let error = loss(small.runnable(), &outside, &options(Kernel::Engine, 1, 9), None, &mut |_| ()).unwrap_err();
    assert!(matches!(error, EvalError::Model { .. }), "{error}");
}

#[test]
fn numbers_that_are_not_finite_are_found_with_their_place() {
    let model = random(Version::V7, 16).edited("blocks.1.ffn.value.weight", |_, _| 3e38);
    let schedule = schedule(&[170, 20], Protocol::Stream);
    for kernel in [Kernel::Engine, Kernel::Reference] {
        let error = loss(model.runnable(), &schedule, &options(kernel, 2, 600), None, &mut |_| ()).unwrap_err();
        let EvalError::NonFinite { place, .. } = &error else { panic!("{error}") };
        assert_eq!(place, "the output of layer 1", "{error}");
    }
}

/// Keeps which pieces and states it is shown.
#[derive(Default)]
struct Seen {
    pieces: Vec<(usize, Piece)>,
    states: Vec<(usize, usize)>,
}

impl LayerSink for Seen {
    fn residual(&mut self, layer: usize, pieces: &[Piece], x: &[f32]) -> Result<(), EvalError> {
        let tokens: usize = pieces.iter().map(|piece| piece.tokens.len()).sum();
        assert_eq!(x.len(), tokens * 64);
        self.pieces.extend(pieces.iter().map(|piece| (layer, piece.clone())));
        Ok(())
    }

    fn state(
        &mut self,
        layer: usize,
        sequence: usize,
        state: &mut dyn FnMut() -> Result<LayerState<f32>, EvalError>,
    ) -> Result<(), EvalError> {
        assert!(state()?.values().any(|value| value != 0.0));
        self.states.push((layer, sequence));
        Ok(())
    }
}

#[test]
fn those_who_look_see_every_token_of_every_layer_once() {
    let model = random(Version::V6, 17);
    let fed: Vec<Tokens> = [200, 3, 100].map(|count| tokens(count).into()).to_vec();
    let mut pass = Pass::new("model", &model.runnable(), &options(Kernel::Engine, 2, 600).pass).unwrap();
    let mut seen = Seen::default();
    let mut steps = Vec::new();
    pass.run(&fed, &mut seen, &mut |done, total| steps.push((done, total))).unwrap();
    assert_eq!(steps, [(1, 3), (2, 3), (3, 3)]);
    assert_eq!(seen.states, (0..3).flat_map(|layer| (0..3).map(move |sequence| (layer, sequence))).collect::<Vec<_>>());
    for layer in 0..3 {
        for (sequence, tokens) in fed.iter().enumerate() {
            let own = seen.pieces.iter().filter(|(of, piece)| *of == layer && piece.sequence == sequence);
            let positions: Vec<usize> = own.flat_map(|(_, piece)| piece.tokens.clone()).collect();
            assert_eq!(positions, (0..tokens.len()).collect::<Vec<_>>());
        }
    }
}
