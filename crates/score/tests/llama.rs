//! Files and printouts that llama-perplexity itself made: see `fixtures/score/make_llama.sh`.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::PathBuf;

use rwkv_forge_score::kl_base::{Reader, Writer};
use rwkv_forge_score::{Document, Precision, Protocol, Schedule, Scorer, Scores, llama};

fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/score").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn text(name: &str) -> String {
    String::from_utf8(fixture(name)).unwrap()
}

/// The schedule and the rows of log-probabilities of a file.
fn read(name: &str) -> (Schedule, Vec<Vec<f32>>) {
    let bytes = fixture(name);
    let mut reader = Reader::new(bytes.as_slice()).unwrap();
    assert_eq!((reader.context(), reader.vocabulary(), reader.rows_left()), (16, 320, 140));
    let document = Document { name: "text".to_owned(), category: String::new(), bytes: 330, tokens: reader.tokens().to_vec().into() };
    let schedule = Protocol::Llama { context: 16, bos: None }.schedule(&[document], &|_| Some(1)).unwrap();
    let (mut rows, mut row) = (Vec::new(), Vec::new());
    while reader.row(&mut row).unwrap() {
        rows.push(row.clone());
    }
    assert_eq!(rows.len(), schedule.scored());
    (schedule, rows)
}

fn targets(schedule: &Schedule) -> Vec<u32> {
    schedule.sequences.iter().flat_map(|sequence| sequence.tokens.read(sequence.scored.clone()).unwrap()).collect()
}

/// All numbers of a printout, and what is left of it without them.
fn numbers(text: &str) -> (Vec<f64>, String) {
    let number = |c: char| c.is_ascii_digit() || c == '.' || c == '-';
    let mut frame = String::new();
    let mut out = Vec::new();
    for word in text.split_inclusive(|c| !number(c)) {
        let found = word.trim_end_matches(|c| !number(c));
        match found.parse() {
            Ok(value) => out.push(value),
            Err(_) => frame.push_str(found),
        }
        frame.push_str(word[found.len()..].trim_end_matches(' '));
    }
    (out, frame)
}

/// The largest difference of two numbers, relative above 1; everything else must be the same.
fn difference(found: &str, expected: &str) -> f64 {
    let ((found, found_frame), (expected, frame)) = (numbers(found), numbers(expected));
    assert_eq!(found_frame, frame);
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(found, expected)| (found - expected).abs() / (1.0 + expected.abs())).fold(0.0, f64::max)
}

/// The files store log-probabilities in steps of up to 16 / 65535, so that each is off by up to 1.2e-4, and perplexities after one chunk
/// by as much relatively; a wrong row, token or formula is off by a tenth. Measured: 3e-5.
const STORED: f64 = 2e-4;

#[test]
fn perplexities_are_those_that_llama_perplexity_prints() {
    for name in ["llama-f16", "llama-q4_0"] {
        let (schedule, rows) = read(&format!("{name}.kld"));
        let mut scorer = Scorer::new(Precision::F32);
        let mut printed = |rows: &[Vec<f32>]| {
            let mut scores = Scores::new(Precision::F32);
            for (row, target) in rows.iter().zip(targets(&schedule)) {
                scores.push(scorer.row(row, target).unwrap()).unwrap();
            }
            llama::perplexity_text(&schedule, &scores).unwrap()
        };
        let expected = text(&format!("{name}.txt"));
        let found = difference(&printed(&rows), &expected);
        assert!(found <= STORED, "{name}: {found}");
        // Two rows in each other's places.
        let mut faulty = rows.clone();
        faulty.swap(70, 71);
        assert!(difference(&printed(&faulty), &expected) > 10.0 * STORED);
    }
}

#[test]
fn divergences_are_those_that_llama_perplexity_prints() {
    let ((schedule, base), (_, rows)) = (read("llama-f16.kld"), read("llama-q4_0.kld"));
    let mut scorer = Scorer::new(Precision::F32);
    let mut scores = Scores::against_reference(Precision::F32);
    for ((base, row), target) in base.iter().zip(&rows).zip(targets(&schedule)) {
        scores.push_compared(scorer.reference(base, target).unwrap().compare(row).unwrap()).unwrap();
    }
    let found = llama::divergence_text(&schedule, &scores).unwrap();
    let expected = text("llama-divergence.txt");
    // Changes of probability are printed in percent: their numbers are off by up to 100 times as much. Measured: 4e-4.
    let off = difference(found.trim_start(), &expected);
    assert!(off <= 10.0 * STORED, "{off}");
    let column = |text: &str, start: &str| numbers(text.lines().find(|line| line.starts_with(start)).unwrap()).0;
    for start in ["Mean PPL(Q)  ", "Mean PPL(base)", "Mean ln", "Mean    KLD", "Maximum KLD", "99.0%   KLD", "Median  KLD", " 0.1%   KLD"] {
        for (found, expected) in column(&found, start).iter().zip(column(&expected, start)) {
            assert!((found - expected).abs() <= STORED * (1.0 + expected), "{start}: {found} {expected}");
        }
    }
    assert_eq!(column(&found, "Same top p"), column(&expected, "Same top p"));
}

/// Reading a row and writing it again keeps every code: log-probabilities are logits, and the steps are the same but for rounding.
#[test]
fn files_of_llama_perplexity_are_written_as_they_were_read() {
    for name in ["llama-f16.kld", "llama-q4_0.kld"] {
        let (schedule, rows) = read(name);
        let mut writer = Writer::new(Vec::new(), &schedule, 320).unwrap();
        rows.iter().for_each(|row| writer.row(row).unwrap());
        let (found, expected) = (writer.finish().unwrap(), fixture(name));
        let (head, length) = (20 + 4 * 320, 8 + 2 * 320);
        assert_eq!((found.len(), &found[..head]), (expected.len(), &expected[..head]));
        for (found, expected) in found[head..].chunks(length).zip(expected[head..].chunks(length)) {
            let float = |bytes: &[u8], at: usize| f32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
            let (step, smallest) = (float(found, 0) / float(expected, 0) - 1.0, float(found, 4) - float(expected, 4));
            // Read back, the probabilities add up to one only within the steps.
            assert!(step.abs() < 1e-5 && smallest.abs() < 2e-4, "{step} {smallest}");
            let code = |bytes: &[u8], index: usize| i32::from(u16::from_le_bytes([bytes[8 + 2 * index], bytes[9 + 2 * index]]));
            assert!((0..320).all(|index| (code(found, index) - code(expected, index)).abs() <= 1));
        }
    }
}
