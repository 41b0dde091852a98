//! What an observer hears of long work: every part by its name, with amounts that grow to their end and what is at hand.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rwkv_forge_choose::{
    Cache, CalibrationOptions, Goal, Job, LevelOptions, LevelSource, Limits, Observer, PlanTexts, Planner, ProbeOptions, Steps, Wish, Work,
    compare_levels, levels, model_identity, start,
};
use rwkv_forge_convert::container::by_name;
use rwkv_forge_convert::{ConvertOptions, OpenModel, OpenOptions, Vocabulary, Words, open};
use rwkv_forge_engine::Arithmetic;
use rwkv_forge_eval::{Kernel, PassOptions};
use rwkv_forge_quantizer::Quantizer;
use rwkv_forge_score::{Document, Precision, Protocol, Schedule, Tokens};

/// A part of the work: what it is, what is at hand, done, all.
type Heard = (Work, String, u64, u64);

/// Keeps all that is heard, in order.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<Heard>>>);

struct Part {
    ear: Ear,
    work: Work,
    now: Mutex<(String, u64, u64)>,
}

impl Part {
    fn heard(&self, change: impl FnOnce(&mut (String, u64, u64))) {
        let mut now = self.now.lock().unwrap();
        change(&mut now);
        let (at, done, total) = now.clone();
        self.ear.0.lock().unwrap().push((self.work, at, done, total));
    }
}

impl Steps for Part {
    fn set(&self, done: u64, total: u64) {
        self.heard(|now| (now.1, now.2) = (done, total));
    }

    fn at(&self, what: &str) {
        self.heard(|now| what.clone_into(&mut now.0));
    }

    fn left(&self, seconds: f64) {
        assert!(seconds >= 0.0);
    }
}

impl Observer for Ear {
    fn note(&self, _: &str) {}

    fn warn(&self, _: &str) {}

    fn detail(&self, _: &str) {}

    fn begin(&self, work: Work) -> Box<dyn Steps + '_> {
        Box::new(Part { ear: self.clone(), work, now: Mutex::default() })
    }
}

impl Ear {
    /// Whether some part was at this.
    fn was_at(&self, work: Work, what: &str) -> bool {
        self.0.lock().unwrap().iter().any(|(heard, at, ..)| *heard == work && at.contains(what))
    }

    /// The parts in the order in which they were heard.
    fn works(&self) -> Vec<Work> {
        let mut works: Vec<Work> = self.0.lock().unwrap().iter().map(|(work, ..)| *work).collect();
        works.dedup();
        works
    }

    fn amounts_are_sound(&self) {
        for (work, at, done, total) in self.0.lock().unwrap().iter() {
            assert!(done <= total, "{work:?} {at}: {done} of {total}");
        }
    }
}

fn source() -> OpenModel {
    open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/checkpoints/tiny-rwkv7.pth"), OpenOptions::default()).unwrap()
}

fn schedule(tokens: &[u32]) -> Schedule {
    let (name, category, bytes) = ("a text".to_owned(), String::new(), tokens.len() as u64);
    Protocol::Stream.schedule(&[Document { name, category, bytes, tokens: Tokens::from(tokens.to_vec()) }], &|_| Some(1)).unwrap()
}

fn tokens(count: u32) -> Vec<u32> {
    (0..count).map(|index| 1 + index * 37 % 300).collect()
}

#[test]
fn a_plan_says_what_it_is_at_from_beginning_to_end() {
    let (model, ear) = (source(), Ear::default());
    let container = by_name("rwkv-cpp").unwrap();
    let recipe = start(container).unwrap();
    let planner = Planner {
        model: &model,
        convert: ConvertOptions::new(container, &recipe, &Vocabulary::Bytes),
        quantizer: Quantizer::Search,
        goal: Goal::BitsPerWeight(9.0),
        probes: ProbeOptions { window: 32, windows: 1, ..ProbeOptions::default() },
        budget: Duration::from_secs(600),
        pass: PassOptions::default(),
    };
    let (text, cache) = (tokens(600), Cache::new(None, &ear));
    let options = CalibrationOptions { windows: NonZeroUsize::MIN, ..CalibrationOptions::default() };
    let statistics = options.gather(&model, &text, &cache, &ear).unwrap();
    let measured = schedule(&tokens(40));
    planner.run(PlanTexts { calibration: &text, measured: &measured }, &statistics, &cache, &ear, &mut |_| ()).unwrap();
    let expected = [
        Work::Checking,
        Work::Calibrating,
        Work::Checking,
        Work::Probing,
        Work::Rounding,
        Work::Probing,
        Work::Evaluating,
        Work::Quantizing,
        Work::Evaluating,
    ];
    assert_eq!(ear.works(), expected);
    for (work, what) in [
        (Work::Calibrating, "layer 3 of 3"),
        (Work::Calibrating, "the head"),
        (Work::Rounding, "blocks.2.ffn.value.weight"),
        (Work::Probing, "the source as it is"),
        (Work::Probing, "blocks.2.ffn.value.weight"),
        (Work::Quantizing, "recipe 1: blocks.2.ffn.value.weight"),
        (Work::Evaluating, "the source: layer 3 of 3"),
        (Work::Evaluating, "recipe 1: layer 3 of 3"),
        (Work::Evaluating, "recipe 1: the head"),
    ] {
        assert!(ear.was_at(work, what), "{work:?} {what}");
    }
    ear.amounts_are_sound();
}

#[test]
fn levels_are_steps_of_one_run_whose_end_is_known() {
    let (model, ear, words) = (source(), Ear::default(), Words::default());
    let types = ["q8_0", "q4_0"].map(str::to_owned);
    let container = by_name("rwkv-cpp").unwrap();
    let options = LevelOptions { types: &types, container, vocabulary: &Vocabulary::Bytes, words: &words, open: OpenOptions::default() };
    let decided = levels(&model, &options, &ear).unwrap();
    let (measured, cache) = (schedule(&tokens(40)), Cache::new(None, &ear));
    let job = Job {
        schedule: &measured,
        parts: std::slice::from_ref(&measured),
        vocabulary: "bytes",
        precision: Precision::F32,
        kernel: Kernel::Engine,
        arithmetic: Arithmetic::Float,
        max_memory: 1 << 28,
        cache: &cache,
        observer: &ear,
    };
    let identity = model_identity(&model).unwrap();
    let of = LevelSource { name: "tiny", model: &model, identity: &identity, bytes: model.source_bytes().unwrap() };
    compare_levels(&decided, of, &Wish { limits: Limits::default(), max_size: None }, &job, false).unwrap();
    assert_eq!(ear.works(), [Work::Evaluating, Work::Quantizing, Work::Evaluating, Work::Quantizing, Work::Evaluating]);
    for level in ["level 1 of 2, q8_0", "level 2 of 2, q4_0"] {
        assert!(ear.was_at(Work::Quantizing, &format!("{level}: head.weight")), "{level}");
        assert!(ear.was_at(Work::Evaluating, &format!("{level}: layer 3 of 3")), "{level}");
    }
    // One pass for the source and each level, of all of which the share is told.
    let (all, heard) = (measured.fed() as u64, ear.0.lock().unwrap().clone());
    let passes: Vec<_> = heard.iter().filter(|(work, ..)| *work == Work::Evaluating).collect();
    assert!(passes.iter().all(|(.., total)| *total == 3 * all), "{passes:?}");
    for done in [all, 2 * all, 3 * all] {
        assert!(passes.iter().any(|pass| pass.2 == done), "{done}: {passes:?}");
    }
    assert!(passes.windows(2).all(|pair| pair[0].2 <= pair[1].2), "{passes:?}");
    ear.amounts_are_sound();
}
