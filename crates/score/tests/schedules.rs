//! Which tokens the protocols feed and score.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use rwkv_forge_score::{Document, Pair, Protocol, Schedule, ScoreError};

fn document(name: &str, tokens: std::ops::Range<u32>) -> Document {
    Document {
        name: name.to_owned(),
        category: "set".to_owned(),
        bytes: 2 * u64::from(tokens.end - tokens.start),
        tokens: tokens.collect(),
    }
}

/// Every token is two bytes long; there are 100,000.
fn two(token: u32) -> Option<usize> {
    (token < 100_000).then_some(2)
}

fn schedule(protocol: Protocol, documents: &[Document]) -> Schedule {
    let schedule = protocol.schedule(documents, &two).unwrap();
    check(&schedule);
    schedule
}

/// What holds for every schedule.
fn check(schedule: &Schedule) {
    let mut column = 0;
    for sequence in &schedule.sequences {
        assert!(sequence.scored.start >= 1 && !sequence.scored.is_empty() && sequence.scored.end <= sequence.tokens.len());
        assert_eq!(sequence.first, column);
        assert_eq!(sequence.fed().len(), sequence.rows().end);
        for row in sequence.rows() {
            assert_eq!(sequence.column(row), Some(column));
            assert_eq!(sequence.targets(row..row + 1).unwrap(), sequence.tokens.read(row + 1..row + 2).unwrap());
            column += 1;
        }
        assert_eq!(sequence.column(sequence.rows().end), None);
    }
    assert_eq!(schedule.scored(), column);
    let mut end = 0;
    for window in &schedule.windows {
        assert!(window.scores.start == end && window.scores.end > end);
        end = window.scores.end;
        assert_eq!(window.bytes, 2 * window.scores.len() as u64);
    }
    assert_eq!(end, column);
    assert_eq!(schedule.positions().count(), column);
}

/// The scored tokens of every sequence.
fn scored(schedule: &Schedule) -> Vec<Vec<u32>> {
    schedule.sequences.iter().map(|sequence| sequence.tokens.read(sequence.scored.clone()).unwrap()).collect()
}

#[test]
fn a_stream_scores_every_token_after_a_leading_zero() {
    let schedule = schedule(Protocol::Stream, &[document("a", 10..4010), document("none", 5..5), document("b", 7..9)]);
    assert_eq!(scored(&schedule), [(10..4010).collect::<Vec<u32>>(), vec![7, 8]]);
    assert_eq!(schedule.sequences[0].fed().slice(0..1), [0]);
    assert_eq!((schedule.sequences[1].document, schedule.documents[2].name.as_str()), (2, "b"));
    assert_eq!(lengths(&schedule), [&[512; 7][..], &[416, 2]].concat());
    assert_eq!((schedule.bytes(), schedule.fed(), schedule.positions().last()), (2 * 4002, 4002, Some(1)));
}

fn lengths(schedule: &Schedule) -> Vec<usize> {
    schedule.windows.iter().map(|window| window.scores.len()).collect()
}

#[test]
fn texts_too_short_for_eight_windows_have_shorter_ones() {
    let short = schedule(Protocol::Stream, &[document("a", 10..1110), document("none", 5..5), document("b", 7..9)]);
    assert_eq!(lengths(&short), [&[32; 34][..], &[12, 2]].concat());
    assert_eq!((short.windows[34].document, short.windows[35].document, short.windows[35].bytes), (0, 2, 4));
    // Windows that somebody asked for are cut only as far as it takes.
    let long = schedule(Protocol::Windows { tokens: 1500 }, &[document("a", 0..4400)]);
    assert_eq!(lengths(&long), [512, 512, 476, 512, 512, 476, 512, 512, 376]);
    let llama = schedule(Protocol::Llama { context: 200, bos: None }, &[document("a", 0..800)]);
    assert_eq!(lengths(&llama), [[32, 32, 32, 3]; 4].concat());
    // Texts and pairs are not cut: they are what is drawn.
    let texts = schedule(Protocol::Uncheatable, &[document("a", 0..1000), document("b", 0..40)]);
    assert_eq!(lengths(&texts), [1000, 40]);
}

#[test]
fn windows_start_from_the_empty_state_and_keep_the_tail() {
    let schedule = schedule(Protocol::Windows { tokens: 4 }, &[document("a", 10..20)]);
    assert_eq!(
        schedule.sequences.iter().map(|s| s.tokens.to_vec().unwrap()).collect::<Vec<_>>(),
        [vec![0, 10, 11, 12, 13], vec![0, 14, 15, 16, 17], vec![0, 18, 19]]
    );
    assert_eq!(schedule.windows.len(), 3);
}

#[test]
fn llama_scores_second_halves_of_full_chunks() {
    let documents = [document("a", 0..13), document("b", 100..108)];
    let even = schedule(Protocol::Llama { context: 8, bos: None }, &documents);
    assert_eq!(scored(&even), [vec![5, 6, 7], vec![100, 101, 102]]);
    assert_eq!(even.sequences[1].tokens, [8, 9, 10, 11, 12, 100, 101, 102]);
    assert_eq!((even.documents.len(), even.documents[0].name.as_str(), even.windows.len()), (1, "2 texts", 2));
    let odd = schedule(Protocol::Llama { context: 5, bos: Some(9) }, &documents[..1]);
    assert_eq!(scored(&odd), [vec![3, 4], vec![8, 9]]);
    assert_eq!(odd.sequences[1].tokens, [9, 6, 7, 8, 9]);
    let error = Protocol::Llama { context: 11, bos: None }.schedule(&documents, &two).unwrap_err();
    assert!(error.to_string().contains("the text has 21 tokens, but llama needs at least 22"), "{error}");
}

#[test]
fn uncheatable_chunks_are_of_4000_and_were_of_1024() {
    let documents = [document("long", 0..8001), document("one", 3..4)];
    let new = schedule(Protocol::Uncheatable, &documents);
    assert_eq!(
        new.sequences.iter().map(|s| (s.tokens.len(), s.scored.clone())).collect::<Vec<_>>(),
        [(4001, 1..4001), (4001, 1..4001), (2, 1..2), (2, 1..2)]
    );
    assert_eq!(new.sequences[2].tokens, [0, 8000]);
    // The bootstrap draws texts.
    assert_eq!(new.windows.len(), 2);
    let old = schedule(Protocol::Uncheatable2024, &[document("edge", 0..2049), document("one", 3..4)]);
    assert_eq!(scored(&old), [(1..1024).collect::<Vec<u32>>(), (1025..2048).collect()]);
    assert_eq!((old.documents.len(), old.windows.len(), old.windows[0].bytes), (2, 1, 2 * 2046));
}

#[test]
fn pairs_score_the_continuation_only() {
    let pair = |name: &str, context: &[u32], continuation: &[u32]| Pair {
        name: name.to_owned(),
        category: String::new(),
        context: context.to_vec(),
        continuation: continuation.to_vec(),
        bytes: 2 * continuation.len() as u64,
    };
    let pairs = [pair("a", &[1, 2], &[3, 4, 5]), pair("empty", &[1], &[]), pair("no context", &[], &[6])];
    let schedule = Protocol::pairs(&pairs, &two).unwrap();
    check(&schedule);
    assert_eq!(scored(&schedule), [vec![3, 4, 5], vec![6]]);
    assert_eq!(schedule.sequences[0].tokens, [0, 1, 2, 3, 4, 5]);
    assert_eq!((schedule.documents.len(), schedule.windows[1].document), (3, 2));
    assert!(matches!(Protocol::pairs(&pairs[1..2], &two), Err(ScoreError::TooFewTokens { .. })));
}

#[test]
fn what_cannot_be_planned_is_said() {
    let error = Protocol::Stream.schedule(&[document("a", 0..0)], &two).unwrap_err();
    assert!(matches!(error, ScoreError::TooFewTokens { .. }), "{error}");
    let error = Protocol::Stream.schedule(&[document("a", 99_999..100_001)], &two).unwrap_err();
    assert_eq!(error.to_string(), "token 100000 of a is not in the vocabulary");
    for (name, window, kind) in [
        ("llama2", None, "no protocol \"llama2\"; known are stream, llama, uncheatable, uncheatable-2024"),
        ("stream", Some(0), "the window is 0, but must be at least 1"),
        ("llama", Some(3), "the context is 3, but must be at least 4"),
        ("uncheatable", Some(512), "the protocol uncheatable has its own chunks"),
    ] {
        let error = Protocol::by_name(name, window).unwrap_err();
        assert!(error.to_string().contains(kind), "{error}");
    }
    assert_eq!(Protocol::by_name("stream", Some(512)).unwrap(), Protocol::Windows { tokens: 512 });
    assert_eq!(Protocol::by_name("llama", None).unwrap(), Protocol::Llama { context: 512, bos: None });
    for name in Protocol::NAMES {
        assert_eq!(Protocol::by_name(name, None).unwrap().name(), name);
    }
}
