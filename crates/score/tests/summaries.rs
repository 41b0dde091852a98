//! Summaries of made-up scores, whose numbers can be worked out by hand or by a plain loop.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "helpers of tests")]

use rwkv_forge_score::{
    Compared, Document, Evaluation, KlSummary, Pair, PerplexityRatio, Precision, Protocol, Row, Schedule, Scores, evaluate,
};

/// A number from 0 to 1 that depends on `index` only.
fn noise(index: usize, salt: u64) -> f64 {
    let mut z = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt.wrapping_mul(0xd6e8_feb8_6659_fd93);
    z = (z ^ (z >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    z = (z ^ (z >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    ((z ^ (z >> 32)) >> 11) as f64 / (1u64 << 53) as f64
}

fn documents(lengths: &[(&str, usize)]) -> Vec<Document> {
    let document = |(number, (category, tokens)): (usize, &(&str, usize))| Document {
        name: format!("text {number}"),
        category: (*category).to_owned(),
        bytes: 3 * *tokens as u64,
        tokens: vec![7; *tokens].into(),
    };
    lengths.iter().enumerate().map(document).collect()
}

fn schedule(protocol: Protocol, lengths: &[(&str, usize)]) -> Schedule {
    protocol.schedule(&documents(lengths), &|_| Some(3)).unwrap()
}

/// Of a candidate that follows its reference closely; both differ far more from token to token than from each other.
fn scores(schedule: &Schedule) -> Scores {
    let mut out = Scores::against_reference(Precision::F32);
    for index in 0..schedule.scored() {
        let reference = 4.0 * noise(index, 1);
        let nll = reference + 0.02 + 0.1 * (noise(index, 2) - 0.5);
        let row = |nll: f64, argmax: u32| Row { nll, argmax, p: (-nll).exp() };
        let argmax = u32::from(noise(index, 3) < 0.05);
        let kl = 0.01 * noise(index, 4) * noise(index, 5);
        out.push_compared(Compared { reference: row(reference, 0), candidate: row(nll.max(0.0), argmax), kl }).unwrap();
    }
    out
}

fn evaluated(protocol: Protocol, lengths: &[(&str, usize)]) -> (Schedule, Scores, Evaluation) {
    let schedule = schedule(protocol, lengths);
    let scores = scores(&schedule);
    let evaluation = evaluate(&schedule, &scores).unwrap();
    (schedule, scores, evaluation)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Numbers that a few thousand additions in two orders give.
fn close(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-12 * expected.abs().max(1e-3)
}

#[test]
fn the_numbers_are_those_of_plain_loops() {
    let (_, scores, found) = evaluated(Protocol::Stream, &[("a", 3000), ("b", 700)]);
    let compared = scores.compared.as_ref().unwrap();
    let nll = mean(&scores.nll);
    assert_eq!((found.tokens, found.bytes, found.windows, found.sequences, found.documents), (3700, 11_100, 8, 2, 2));
    assert!(close(found.nll, nll * 3700.0) && close(found.perplexity, nll.exp()) && close(found.nll_per_token, nll));
    assert!(close(found.bits_per_token, nll / 2f64.ln()) && close(found.bits_per_byte.unwrap(), nll / 2f64.ln() / 3.0));
    let reference = mean(&compared.nll_reference);
    let ratio = found.perplexity_ratio.unwrap();
    assert!(
        close(ratio.reference, reference.exp()) && close(ratio.ln_ratio, nll - reference) && close(ratio.ratio, (nll - reference).exp())
    );
    assert!(close(found.bits_per_byte_increase.unwrap(), (nll - reference) / 2f64.ln() / 3.0));
    let kl = found.kl.unwrap();
    let mut sorted = compared.kl.clone();
    sorted.sort_by(f64::total_cmp);
    assert!(close(kl.mean, mean(&sorted)));
    assert_eq!((kl.min, kl.median, kl.p99, kl.p999, kl.max), (sorted[0], sorted[1849], sorted[3662], sorted[3696], sorted[3699]));
    let same = compared.same_top1.iter().filter(|same| **same).count();
    assert!(close(found.top1.unwrap(), same as f64 / 3700.0));
    let delta = found.delta_p.unwrap();
    let mut sorted = compared.delta_p.clone();
    sorted.sort_by(f64::total_cmp);
    assert!(close(delta.mean, mean(&sorted)) && close(delta.rms, mean(&sorted.iter().map(|d| d * d).collect::<Vec<_>>()).sqrt()));
    let quantiles =
        [delta.p01, delta.p1, delta.p5, delta.p10, delta.p25, delta.median, delta.p75, delta.p90, delta.p95, delta.p99, delta.p999];
    let ranks = [4, 37, 185, 370, 925, 1850, 2775, 3330, 3515, 3663, 3697];
    assert_eq!(quantiles.map(|quantile| quantile.value), ranks.map(|rank: usize| sorted[rank - 1]));
    assert_eq!((delta.min, delta.max), (sorted[0], sorted[3699]));
}

#[test]
fn intervals_hold_their_numbers_and_are_paired() {
    let (schedule, _, found) = evaluated(Protocol::Stream, &[("a", 30_000)]);
    assert_eq!(schedule.windows.len(), 59);
    let inside = |value: f64, interval: Option<[f64; 2]>| interval.is_some_and(|[low, high]| low < value && value < high);
    let (kl, ratio, delta) = (found.kl.unwrap(), found.perplexity_ratio.unwrap(), found.delta_p.unwrap());
    for (value, interval) in [
        (found.perplexity, found.perplexity_interval),
        (found.bits_per_byte.unwrap(), found.bits_per_byte_interval),
        (found.bits_per_byte_increase.unwrap(), found.bits_per_byte_increase_interval),
        (found.top1.unwrap(), found.top1_interval),
        (kl.mean, kl.interval),
        (kl.median, kl.median_interval),
        (kl.p99, kl.p99_interval),
        (kl.p999, kl.p999_interval),
        (ratio.ratio, ratio.ratio_interval),
        (ratio.ln_ratio, ratio.ln_ratio_interval),
        (delta.mean, delta.mean_interval),
        (delta.rms, delta.rms_interval),
        (delta.p90.value, delta.p90.interval),
    ] {
        assert!(inside(value, interval), "{value} {interval:?}");
    }
    // Scores here do not depend on their neighbours, so that an interval is 3.92 standard errors wide, give or take that of 59 windows.
    let width = |interval: Option<[f64; 2]>| interval.map(|[low, high]| high - low).unwrap();
    let expected = 3.92 * kl.standard_error;
    assert!((0.6..1.5).contains(&(width(kl.interval) / expected)), "{} {expected}", width(kl.interval));
    let expected = 3.92 * ratio.ln_ratio_standard_error;
    assert!((0.6..1.5).contains(&(width(ratio.ln_ratio_interval) / expected)));
    // Unpaired, the interval of the ratio would be as wide as the one of the perplexity: 40 times this.
    assert!(width(ratio.ratio_interval) * 10.0 < width(found.perplexity_interval) / found.perplexity);
}

#[test]
fn too_few_to_draw_from_are_said_instead_of_an_interval() {
    let pair = |number: usize| Pair {
        name: number.to_string(),
        category: String::new(),
        context: vec![7; 5],
        continuation: vec![7; 4],
        bytes: 12,
    };
    let pairs = |count: usize| Protocol::pairs(&(0..count).map(pair).collect::<Vec<_>>(), &|_| Some(3)).unwrap();
    let texts = |count: usize| schedule(Protocol::Uncheatable, &vec![("a", 300); count]);
    let stream = |tokens: usize| schedule(Protocol::Stream, &[("a", tokens)]);
    for (few, enough, reason) in [
        (pairs(7), pairs(8), "7 of the 8 pairs that an interval needs"),
        (texts(7), texts(8), "7 of the 8 texts that an interval needs"),
        (stream(224), stream(225), "7 of the 8 windows that an interval needs"),
    ] {
        let found = evaluate(&few, &scores(&few)).unwrap();
        let json = serde_json::to_value(&found).unwrap();
        let null = [&json["kl"]["interval"], &json["kl"]["p99_interval"], &json["perplexity_interval"], &json["delta_p"]["mean_interval"]];
        assert!(null.iter().all(|interval| interval.is_null()), "{json:#}");
        assert_eq!(json["no_interval"], reason);
        let found = evaluate(&enough, &scores(&enough)).unwrap();
        let kl = found.kl.unwrap();
        assert!(found.no_interval.is_none() && kl.no_interval.is_none());
        assert!(kl.interval.is_some() && kl.p99_interval.is_some() && found.perplexity_interval.is_some());
    }
    let of = |count: usize| evaluate(&texts(count), &scores(&texts(count))).unwrap().uncheatable.unwrap().total;
    assert_eq!(
        (of(7).interval, of(7).no_interval.map(|reason| reason.to_string())),
        (None, Some("7 of the 8 texts that an interval needs".to_owned()))
    );
    assert!(of(8).interval.is_some() && of(8).no_interval.is_none());
}

#[test]
fn positions_of_one_sequence_are_summed_up_as_a_schedule_of_short_windows_is() {
    // 9 windows of 32 in both.
    let schedule = schedule(Protocol::Stream, &[("a", 288)]);
    let scores = scores(&schedule);
    let compared = scores.compared.as_ref().unwrap();
    let whole = evaluate(&schedule, &scores).unwrap();
    assert_eq!(schedule.windows.len(), 9);
    let (kl, expected) = (KlSummary::of_positions(&compared.kl), whole.kl.unwrap());
    assert_eq!(KlSummary { mean: expected.mean, ..kl }, expected);
    assert!(close(kl.mean, expected.mean));
    assert_eq!(PerplexityRatio::of_positions(&scores.nll, &compared.nll_reference), whole.perplexity_ratio);
    let [low, high] = kl.interval.unwrap();
    assert!(low < kl.mean && kl.mean < high);
    for (positions, reason) in [
        (256, None),
        (255, Some("7 of the 8 windows of 32 positions that an interval needs")),
        (1, Some("1 of the 8 windows of 32 positions that an interval needs")),
    ] {
        let found = KlSummary::of_positions(&compared.kl[..positions]);
        assert_eq!(found.interval.is_some(), reason.is_none());
        assert_eq!(found.no_interval.map(|reason| reason.to_string()), reason.map(str::to_owned));
        assert_eq!(found.max, compared.kl[..positions].iter().copied().fold(0.0, f64::max));
    }
    assert_eq!(PerplexityRatio::of_positions(&[], &[]), None);
    assert_eq!(PerplexityRatio::of_positions(&[1.0], &[]), None);
}

#[test]
fn windows_that_differ_widen_the_interval() {
    let schedule = schedule(Protocol::Windows { tokens: 100 }, &[("a", 5000)]);
    let mut scores = scores(&schedule);
    let tokens = evaluate(&schedule, &scores).unwrap();
    for (number, window) in schedule.windows.iter().enumerate() {
        let shift = 0.01 * noise(number, 9);
        scores.compared.as_mut().unwrap().kl[window.scores.clone()].iter_mut().for_each(|kl| *kl += shift);
    }
    let windows = evaluate(&schedule, &scores).unwrap();
    let width = |found: &Evaluation| found.kl.unwrap().interval.map(|[low, high]| high - low).unwrap();
    let error = |found: &Evaluation| found.kl.unwrap().standard_error;
    // As if tokens were independent the error grows by a half; really 50 windows are 50 shifts, not 5000.
    assert!(width(&windows) > 5.0 * width(&tokens) && error(&windows) < 2.5 * error(&tokens));
}

#[test]
fn slices_are_those_of_their_tokens() {
    let (schedule, scores, found) = evaluated(Protocol::Stream, &[("a", 9000), ("b", 100), ("a", 600)]);
    let kl = &scores.compared.as_ref().unwrap().kl;
    let of = |indices: &mut dyn Iterator<Item = usize>| mean(&indices.map(|index| kl[index]).collect::<Vec<_>>());
    let names: Vec<&str> = found.by_position.iter().map(|slice| slice.name.as_str()).collect();
    assert_eq!(names, ["0-128", "128-512", "512-2048", "2048-8192", "8192-"]);
    let tokens: Vec<u64> = found.by_position.iter().map(|slice| slice.tokens).collect();
    assert_eq!(tokens, [128 + 100 + 128, 384 + 384, 1536 + 88, 6144, 808]);
    assert!(close(found.by_position[0].kl.unwrap(), of(&mut (0..128).chain(9000..9100).chain(9100..9228))));
    assert!(close(found.by_position[4].kl.unwrap(), of(&mut (8192..9000))));
    // Three windows begin a text; twelve are of its tokens from 2048 to 8192.
    let part = |number: usize| {
        let slice = &found.by_position[number];
        (slice.bits_per_byte, slice.kl_interval.is_some(), slice.no_interval.map(|reason| reason.to_string()))
    };
    assert_eq!(part(0), (None, false, Some("3 of the 8 windows that an interval needs".to_owned())));
    assert_eq!(part(3), (None, true, None));
    let names: Vec<&str> = found.by_document.iter().map(|slice| slice.name.as_str()).collect();
    assert_eq!(names, ["text 0", "text 1", "text 2"]);
    assert!(close(found.by_document[1].perplexity, mean(&scores.nll[9000..9100]).exp()));
    // A text of one window has nothing to draw from.
    assert_eq!(found.by_document[1].kl_interval, None);
    let names: Vec<&str> = found.by_category.iter().map(|slice| slice.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert!(close(found.by_category[0].kl.unwrap(), of(&mut (0..9000).chain(9100..9700))));
    assert!(close(found.by_category[0].bits_per_byte.unwrap(), found.by_category[0].perplexity.ln() / 2f64.ln() / 3.0));
    assert_eq!(schedule.scored(), 9700);
}

#[test]
fn divergence_is_the_first_different_token_of_a_sequence() {
    let schedule = schedule(Protocol::Windows { tokens: 10 }, &[("a", 50)]);
    let mut scores = scores(&schedule);
    let mut found = |different: &[usize]| {
        let same = &mut scores.compared.as_mut().unwrap().same_top1;
        same.fill(true);
        different.iter().for_each(|index| same[*index] = false);
        let found = evaluate(&schedule, &scores).unwrap().first_divergence.unwrap();
        (found.min, found.median, found.diverged, found.sequences)
    };
    assert_eq!(found(&[]), (None, None, 0, 5));
    assert_eq!(found(&[7, 8, 13]), (Some(3), None, 2, 5));
    assert_eq!(found(&[7, 13, 20]), (Some(0), Some(7), 3, 5));
    assert_eq!(found(&[0, 10, 21, 32, 49]), (Some(0), Some(1), 5, 5));
}

#[test]
fn pairs_are_scored_each_and_together() {
    let pair = |number: usize| Pair {
        name: format!("pair {number}"),
        category: String::new(),
        context: vec![7; 5],
        continuation: vec![7; number % 4],
        bytes: 3 * (number % 4) as u64,
    };
    let schedule = Protocol::pairs(&(0..40).map(pair).collect::<Vec<_>>(), &|_| Some(3)).unwrap();
    let scores = scores(&schedule);
    let found = evaluate(&schedule, &scores).unwrap();
    let pairs = found.pairs.unwrap();
    assert_eq!((pairs.each.len(), found.windows, found.by_document.len()), (40, 30, 0));
    // Pairs have 0, 1, 2, 3, 0, 1, ... tokens: pair 3 has the scores 3, 4 and 5.
    let third = &pairs.each[3];
    let reference = &scores.compared.as_ref().unwrap().nll_reference;
    assert!(close(third.log_probability, -scores.nll[3..6].iter().sum::<f64>()));
    assert!(close(third.log_probability_reference.unwrap(), -reference[3..6].iter().sum::<f64>()));
    assert!(close(third.bits_per_byte.unwrap(), -third.log_probability / 2f64.ln() / 9.0));
    assert!(close(third.bits_per_token.unwrap(), -third.log_probability / 2f64.ln() / 3.0));
    let empty = &pairs.each[4];
    assert_eq!((empty.log_probability, empty.bits_per_byte, empty.tokens), (0.0, None, 0));
    assert!(close(pairs.log_probability, -found.nll) && close(pairs.per_pair, -found.nll / 30.0));
    let change = pairs.change_per_pair.unwrap();
    assert!(close(change, (reference.iter().sum::<f64>() - found.nll) / 30.0));
    let [low, high] = pairs.change_per_pair_interval.unwrap();
    assert!(low < change && change < high && pairs.per_pair_interval.unwrap()[0] < pairs.per_pair);
}

#[test]
fn the_fields_that_programs_read_are_there() {
    let (_, _, found) = evaluated(Protocol::Llama { context: 64, bos: None }, &[("a", 1000)]);
    let json = serde_json::to_value(&found).unwrap();
    for path in ["/bits_per_byte", "/perplexity", "/kl/mean", "/kl/p99", "/kl/p999", "/top1", "/nll", "/tokens", "/delta_p/p999/value"] {
        assert!(json.pointer(path).is_some_and(serde_json::Value::is_number), "{path} of {json:#}");
    }
    for path in ["/kl/interval/0", "/top1_interval/1", "/perplexity_ratio/ratio_interval/0", "/by_position/0/kl_interval/1"] {
        assert!(json.pointer(path).is_some_and(serde_json::Value::is_number), "{path} of {json:#}");
    }
    assert_eq!(json["protocol"], serde_json::json!({"name": "llama", "context": 64, "bos": null}));
    assert_eq!((&json["precision"], &json["uncheatable"]), (&serde_json::json!("f32"), &serde_json::Value::Null));
}

#[test]
fn a_model_alone_has_no_comparison() {
    let schedule = schedule(Protocol::Stream, &[("a", 600)]);
    let mut scores = scores(&schedule);
    scores.compared = None;
    let found = evaluate(&schedule, &scores).unwrap();
    assert!(found.kl.is_none() && found.top1.is_none() && found.delta_p.is_none() && found.by_position[0].kl.is_none());
    assert!(found.perplexity_interval.is_some() && found.perplexity_ratio.is_none() && found.first_divergence.is_none());
    scores.nll.pop();
    let error = evaluate(&schedule, &scores).unwrap_err();
    assert_eq!(error.to_string(), "scores for the scored tokens: 599 against 600");
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    for tokens in [32_000, 500_000] {
        let schedule = schedule(Protocol::Stream, &[("a", tokens)]);
        let scores = scores(&schedule);
        let start = std::time::Instant::now();
        std::hint::black_box(evaluate(&schedule, &scores).unwrap());
        println!("{tokens} tokens: {:?}", start.elapsed());
    }
}
