//! Sums and products against plain loops, the same bits for any number of threads, and the file that keeps them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

use std::sync::Mutex;

use crate::common::{Kept, Loaded, TestFile, options, tokens};
use rwkv_forge_calibrate::{
    CalibrateError, Hessians, InputStatistics, Options, Place, Progress, Receiver, Statistics, calibrate, calibrate_to_file,
};
use rwkv_forge_engine::{Arithmetic, EngineOptions, Inputs, Isa, LayerStream, Tap};
use rwkv_forge_tensor::Diagnostic;

/// All inputs of one weight, in order; of the first matrix of a tensor with several.
struct Watch<'a> {
    weight: &'a str,
    rows: Mutex<Vec<Vec<f32>>>,
}

impl Tap for Watch<'_> {
    fn inputs(&self, inputs: &Inputs<'_>) {
        if inputs.weights.contains(&self.weight) {
            self.rows.lock().unwrap().extend(inputs.rows.chunks_exact(inputs.columns).map(<[f32]>::to_vec));
        }
    }
}

/// The inputs of `weight` in layer `layer`, row by row.
fn inputs(model: &Loaded, sequences: &[&[u32]], layer: usize, weight: &str) -> Vec<Vec<f32>> {
    let options = EngineOptions { arithmetic: Arithmetic::Float, ..EngineOptions::default() };
    let mut stream = LayerStream::new(&model.model(), &options).unwrap();
    let mut batch = stream.embed(sequences).unwrap();
    let watch = Watch { weight, rows: Mutex::default() };
    for index in 0..=layer {
        let loaded = stream.load(index).unwrap();
        let mut states = stream.new_states(sequences.len());
        let tap = (index == layer).then_some(&watch as &dyn Tap);
        stream.forward(&loaded, &mut batch, &mut states, tap).unwrap();
    }
    watch.rows.into_inner().unwrap()
}

fn sequences(tokens: &[u32]) -> Vec<&[u32]> {
    // Of different lengths, so that blocks of the engine, sequences and pieces of a product begin at different places.
    vec![&tokens[..300], &tokens[300..301], &tokens[301..911], &tokens[911..1200]]
}

#[test]
fn sums_and_products_are_those_of_plain_loops() {
    let (model, tokens) = (Loaded::tiny(7), tokens(5000));
    let sequences = sequences(&tokens);
    let kept = Kept::of(&model, &sequences, &options(2, Hessians::All));
    for weight in ["blocks.1.att.value.weight", "blocks.1.att.v1", "blocks.1.ffn.value.weight", "blocks.1.att.w2"] {
        let rows = inputs(&model, &sequences, 1, weight);
        let found = kept.find(weight, 0);
        assert_eq!((rows.len(), found.tokens), (1200, 1200), "{weight}");
        let columns = rows[0].len();
        let hessian = found.hessian.as_ref().unwrap();
        assert_eq!((hessian.size, hessian.block, hessian.data.len()), (columns, columns, columns * columns));
        let means = found.means();
        for (left, right) in (0..columns).flat_map(|left| [(left, left), (left, (left * 7 + 3) % columns)]) {
            let exact: f64 = rows.iter().map(|row| f64::from(row[left]) * f64::from(row[right])).sum::<f64>() / 1200.0;
            let size: f64 = rows.iter().map(|row| (f64::from(row[left]) * f64::from(row[right])).abs()).sum::<f64>() / 1200.0;
            let product = f64::from(hessian.data[left * columns + right]);
            // f32 sums of 512 terms, three of them: at most 600 roundings of 6e-8 of the size of the terms. A row left out is 1/1200.
            assert!((product - exact).abs() <= 4e-5 * size + 1e-30, "{weight} [{left}, {right}]: {product} {exact}");
            assert_eq!(hessian.data[left * columns + right].to_bits(), hessian.data[right * columns + left].to_bits());
            if left == right {
                assert!((f64::from(means[left]) - exact).abs() <= 1e-6 * exact, "{weight} [{left}]");
            }
        }
    }
    // Inputs that weights share are kept once.
    let shared = kept.find("blocks.1.att.v1", 0);
    assert!(std::ptr::eq(shared, kept.find("blocks.1.att.value.weight", 0)));
    assert_eq!(kept.find("head.weight", 0).squares.len(), 128);
}

#[test]
fn kept_residuals_are_those_of_a_plain_run() {
    let (model, tokens) = (Loaded::tiny(7), tokens(3000));
    let sequences = [&tokens[..200]];
    let kept = Kept::of(&model, &sequences, &options(1, Hessians::None));
    let options = EngineOptions { arithmetic: Arithmetic::Float, ..EngineOptions::default() };
    let mut stream = LayerStream::new(&model.model(), &options).unwrap();
    let mut batch = stream.embed(&sequences).unwrap();
    for layer in 0..3 {
        assert_eq!(kept.residuals[layer], batch.x);
        let loaded = stream.load(layer).unwrap();
        let mut states = stream.new_states(1);
        stream.forward(&loaded, &mut batch, &mut states, None).unwrap();
    }
    assert_eq!(kept.residuals[3], batch.x);
    assert_eq!(kept.residuals.len(), 4);
}

fn bits(kept: &Kept) -> Vec<u64> {
    let of = |input: &InputStatistics| {
        let squares = input.squares.iter().map(|sum| sum.to_bits()).collect::<Vec<_>>();
        let products = input.hessian.iter().flat_map(|hessian| &hessian.data).map(|value| u64::from(value.to_bits()));
        [squares, products.collect()].concat()
    };
    kept.inputs.iter().flat_map(|(_, input)| of(input)).collect()
}

#[test]
fn threads_and_instruction_sets_change_no_bit() {
    let (model, tokens) = (Loaded::tiny(6), tokens(5000));
    let sequences = [&tokens[..700]];
    let first = bits(&Kept::of(&model, &sequences, &options(1, Hessians::All)));
    assert_eq!(first, bits(&Kept::of(&model, &sequences, &options(3, Hessians::All))));
    for isa in Isa::all() {
        // Without fused operations in hardware, fewer tokens are enough to see it.
        let short = [&tokens[..64]];
        let with = |isa| {
            let mut options = options(2, Hessians::Matrices);
            options.engine.isa = Some(isa);
            bits(&Kept::of(&model, &short, &options))
        };
        assert_eq!(with(isa), with(Isa::best()), "{isa}");
    }
    // The order of the sequences is part of the result, so the comparison can fail.
    let other = [&tokens[..300], &tokens[300..700]];
    assert_ne!(first, bits(&Kept::of(&model, &other, &options(1, Hessians::All))));
}

#[test]
fn the_five_matrices_of_one_tensor_are_told_apart() {
    let (model, tokens) = (Loaded::tiny(6), tokens(2000));
    let kept = Kept::of(&model, &[&tokens[..200], &tokens[200..333]], &options(2, Hessians::All));
    let parts: Vec<_> = (0..5).map(|part| kept.find("blocks.2.att.time_maa_w2", part)).collect();
    let rows = inputs(&model, &[&tokens[..200], &tokens[200..333]], 2, "blocks.2.att.time_maa_w2");
    assert_eq!(rows.len(), 5 * 333);
    assert!(parts.iter().all(|part| part.tokens == 333));
    let all: f64 = rows.iter().flatten().map(|value| f64::from(*value).powi(2)).sum();
    let sum: f64 = parts.iter().flat_map(|part| &part.squares).sum();
    assert!((all - sum).abs() < 1e-9 * all);
    assert!(parts.windows(2).all(|pair| pair[0].squares != pair[1].squares));
    assert_eq!(kept.inputs.iter().filter(|(_, input)| input.part == 5).count(), 0);
}

#[test]
fn every_version_has_statistics_of_every_matrix() {
    for version in [4, 5, 6, 7] {
        let (model, tokens) = (Loaded::tiny(version), tokens(600));
        // More than the engine takes at once, so that every input comes in several pieces.
        let kept = Kept::of(&model, &[&tokens[..170]], &options(1, Hessians::Matrices));
        assert!(kept.inputs.iter().all(|(_, input)| input.tokens == 170), "RWKV-{version}");
        for spec in &model.description.tensors {
            let is_matrix = spec.name.ends_with(".weight") && spec.shape.len() == 2 && spec.name != "emb.weight";
            if is_matrix {
                let found = kept.find(&spec.name, 0);
                let columns = usize::try_from(spec.shape[1]).unwrap();
                assert_eq!(found.squares.len(), columns, "RWKV-{version} {}", spec.name);
                assert!(found.hessian.is_some(), "RWKV-{version} {}", spec.name);
            }
        }
    }
}

#[test]
fn a_memory_limit_makes_blocks_along_the_diagonal() {
    let (model, tokens) = (Loaded::tiny(7), tokens(2000));
    let sequences = [&tokens[..300]];
    let all = options(2, Hessians::Matrices);
    let limited = Options { memory: 1 << 20, ..all };
    assert_eq!((all.block(&model.description), limited.block(&model.description)), (512, 256));
    let (full, blocks) = (Kept::of(&model, &sequences, &all), Kept::of(&model, &sequences, &limited));
    let name = "blocks.0.ffn.value.weight";
    let (full, blocks) = (full.find(name, 0).hessian.as_ref().unwrap(), blocks.find(name, 0).hessian.as_ref().unwrap());
    assert_eq!((blocks.size, blocks.block, blocks.data.len()), (512, 256, 2 * 256 * 256));
    for (range, block) in blocks.blocks() {
        for (row, values) in range.clone().zip(block.chunks_exact(range.len())) {
            assert_eq!(values, &full.data[row * 512 + range.start..row * 512 + range.end]);
        }
    }
    assert_eq!(full.diagonal(), blocks.diagonal());
}

/// Gathers nothing.
struct Deaf;

impl Receiver for Deaf {
    fn input(&mut self, _: usize, _: InputStatistics) -> Result<(), CalibrateError> {
        Ok(())
    }
}

#[test]
fn progress_goes_on_within_a_layer_to_the_end_of_the_text() {
    let (model, tokens) = (Loaded::tiny(6), tokens(2000));
    let sequences = [&tokens[..300], &tokens[300..900]];
    let heard = Mutex::new(Vec::new());
    let hear = |progress: Progress| heard.lock().unwrap().push(progress);
    calibrate(&model.model(), &sequences, &options(2, Hessians::All), &mut Deaf, &hear).unwrap();
    let heard = heard.into_inner().unwrap();
    let through: Vec<u64> = heard.iter().map(Progress::through).collect();
    assert!(
        through.windows(2).all(|pair| pair[0] <= pair[1]) && through.first() == Some(&0) && through.last() == Some(&900),
        "{through:?}"
    );
    let layers = heard.last().unwrap().layers;
    assert!(heard.len() > 2 * layers + 1 && heard.iter().any(|step| step.tokens_done == 900), "{heard:?}");
}

#[test]
fn a_file_gives_back_what_was_gathered_and_is_used_again() {
    let (model, tokens, file) = (Loaded::tiny(6), tokens(2000), TestFile::new("statistics"));
    let sequences = [&tokens[..300]];
    let options = options(2, Hessians::All);
    let kept = Kept::of(&model, &sequences, &options);
    let runs = Mutex::new(0);
    let ask = |place: &Place, source: &str, sequences: &[&[u32]], options: &Options| {
        let count = |progress: Progress| *runs.lock().unwrap() += usize::from(progress.layers_done == progress.layers);
        calibrate_to_file(place, source, &model.model(), sequences, options, &count)
    };
    let entry = Place::Kept(file.0.clone());
    let open = |source: &str, sequences: &[&[u32]], options: &Options| ask(&entry, source, sequences, options).unwrap();
    let statistics = open("digest", &sequences, &options);
    for (_, input) in &kept.inputs {
        for name in &input.weights {
            let hessian = statistics.hessian(name, input.part).unwrap();
            assert_eq!(hessian, input.hessian, "{name}");
            let columns = input.squares.len();
            let importance = statistics.importance(name).unwrap().unwrap();
            assert_eq!(importance[input.part * columns..][..columns], input.means());
        }
    }
    assert_eq!(statistics.parts("blocks.0.att.time_maa_w2"), 5);
    assert_eq!((statistics.importance("emb.weight").unwrap(), statistics.hessian("no", 0).unwrap()), (None, None));
    let first = std::fs::read(&file.0).unwrap();
    // Used again for the same, computed again for anything else, and the same bytes whenever they are computed.
    open("digest", &sequences, &options);
    assert_eq!(*runs.lock().unwrap(), 1);
    open("another digest", &sequences, &options);
    open("digest", &[&tokens[..299]], &options);
    open("digest", &sequences, &Options { hessians: Hessians::None, ..options });
    open("digest", &sequences, &options);
    // Statistics with Hessians have the importance too.
    open("digest", &sequences, &Options { hessians: Hessians::None, ..options });
    assert_eq!(*runs.lock().unwrap(), 5);
    assert_eq!(std::fs::read(&file.0).unwrap(), first);
    // A file that was named is theirs who named it.
    let named = Place::Named(file.0.clone());
    assert_eq!(ask(&named, "another digest", &sequences, &options).unwrap_err().kind(), "OtherStatistics");
    assert_eq!(ask(&named, "digest", &sequences, &options).unwrap().warnings(), [""; 0]);
    // Kept nowhere, they are the same.
    let nowhere = ask(&Place::Nowhere, "digest", &sequences, &options).unwrap();
    assert_eq!(nowhere.importance("head.weight").unwrap(), statistics.importance("head.weight").unwrap());
    assert_eq!(*runs.lock().unwrap(), 6);
}

#[test]
fn other_files_are_not_replaced_and_any_changed_byte_is_noticed() {
    let (model, tokens, file) = (Loaded::tiny(7), tokens(500), TestFile::new("damaged"));
    let sequences = [&tokens[..50]];
    let options = options(1, Hessians::Matrices);
    let named = Place::Named(file.0.clone());
    let run = || calibrate_to_file(&named, "digest", &model.model(), &sequences, &options, &|_| {});
    std::fs::write(&file.0, b"somebody's notes, not to be lost").unwrap();
    assert_eq!(run().unwrap_err().kind(), "BadStatistics");
    assert_eq!(std::fs::read(&file.0).unwrap(), b"somebody's notes, not to be lost");
    std::fs::remove_file(&file.0).unwrap();
    run().unwrap();
    let whole = std::fs::read(&file.0).unwrap();
    for length in (0..whole.len()).step_by(4001) {
        std::fs::write(&file.0, &whole[..length]).unwrap();
        let expected = if length == 0 { "BadStatistics" } else { "DamagedStatistics" };
        assert_eq!(Statistics::open(&file.0).unwrap_err().kind(), expected, "cut at {length}");
    }
    // Spaces that fill up the header, and bytes that no tensor has, are nobody's.
    let length = usize::try_from(u64::from_le_bytes(whole[..8].try_into().unwrap())).unwrap();
    let end = whole[..8 + length].iter().rposition(|byte| *byte == b'}').unwrap();
    for at in (0..=end).step_by(101).chain((8 + length..whole.len()).step_by(9973)) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&file.0, &bytes).unwrap();
        assert!(Statistics::open(&file.0).is_err(), "byte {at}");
    }
    std::fs::write(&file.0, [&whole[..whole.len() - 4], &[0xff; 4]].concat()).unwrap();
    assert_eq!(run().unwrap().warnings().len(), 1, "a damaged file of ours is replaced");
    assert_eq!(std::fs::read(&file.0).unwrap(), whole);
}

#[test]
fn no_tokens_and_no_numbers_are_errors() {
    let model = Loaded::tiny(7);
    let mut kept = Kept::default();
    let run = |sequences: &[&[u32]], kept: &mut Kept| {
        calibrate(&model.model(), sequences, &options(1, Hessians::None), kept, &|_| {}).unwrap_err()
    };
    assert_eq!(run(&[], &mut kept).kind(), "NoTokens");
    assert_eq!(run(&[&[]], &mut kept).kind(), "NoTokens");
    assert!(run(&[&[100_000]], &mut kept).to_string().contains("100000"));
}
