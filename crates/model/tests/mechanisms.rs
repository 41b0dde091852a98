//! The mechanisms of every version, resolved for the model at hand.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use rwkv_forge_model::architecture::{ARCHITECTURES, HYBRIDS};
use rwkv_forge_model::{
    Attention, Axis, ChannelMix, Configuration, Epsilon, Mechanisms, ModelDescription, Norm, NormKind, Norms, Per, StoredBonus, TimeMix,
    TokenShift, Version, VocabularyFamily, describe, describe_with,
};
use rwkv_forge_tensor::TensorSource;
use rwkv_forge_testkit::hybrids::{Variant, random_hybrid};
use rwkv_forge_testkit::models::{Options, Sizes};

use crate::common::{model, model_with};

fn of(version: Version) -> ModelDescription {
    describe(&model(version)).unwrap()
}

fn hybrid(version: Version, variant: &Variant) -> ModelDescription {
    let infos = random_hybrid(version, &Sizes::TINY, variant, 3).tensors().to_vec();
    let configuration = Configuration {
        rms_epsilon: Epsilon::new(1e-6),
        heads: Some(4),
        kv_heads: Some(variant.kv_heads as u64),
        ..Configuration::default()
    };
    describe_with(&infos, &configuration).unwrap()
}

#[test]
fn time_mixes_with_their_options() {
    let wkv5 = |decay, gate, bonus| TimeMix::Wkv5 { decay, gate, bonus };
    let seven = TimeMix::Wkv7 { decay: 6, iclr: 7, value: Some(3), gate: Some(9) };
    let expected = [
        (Version::V4, TimeMix::Wkv4),
        (Version::V5_0, wkv5(Per::Head, false, StoredBonus::Value)),
        (Version::V5_1, wkv5(Per::Head, true, StoredBonus::Value)),
        (Version::V5_2, wkv5(Per::Channel, true, StoredBonus::Value)),
        (Version::V6, TimeMix::Wkv6 { mix: 6, decay: 7 }),
        (Version::V7, seven),
        (Version::V7a, seven),
        (Version::V7b, seven),
    ];
    assert_eq!(expected.map(|(version, _)| version), Version::ALL);
    for (version, time_mix) in expected {
        assert_eq!(of(version).mechanisms.time_mix, time_mix, "{version}");
    }
    let stored =
        |version| describe(&model_with(version, &Sizes::TINY, &Options { bonus_as_logarithm: true, ..Options::default() })).unwrap();
    for version in [Version::V5_0, Version::V5_1] {
        let description = stored(version);
        assert!(description.mechanisms.time_mix.has_logarithmic_bonus(), "{version}");
        let of_layer = description.layer_tensors(1);
        let logarithms: Vec<&str> =
            of_layer.iter().filter(|spec| description.is_logarithmic_bonus(spec)).map(|spec| spec.suffix()).collect();
        assert_eq!(logarithms, ["att.time_first"], "{version}");
        let per_head: Vec<&str> = of_layer.iter().filter(|spec| description.is_per_head(spec)).map(|spec| spec.suffix()).collect();
        assert_eq!(per_head, ["att.time_decay", "att.time_first"], "{version}");
    }
    // RWKV-4 has the name too, and computes with what it stores.
    let four = of(Version::V4);
    assert!(four.tensors.iter().all(|spec| !four.is_logarithmic_bonus(spec) && !four.is_per_head(spec)));
    let one_layer = describe(&model_with(Version::V7, &Sizes { layers: 1, ..Sizes::TINY }, &Options::default())).unwrap();
    assert_eq!(one_layer.mechanisms.time_mix, TimeMix::Wkv7 { decay: 6, iclr: 7, value: None, gate: Some(9) });
    assert!(!one_layer.mechanisms.time_mix.has_value_residual() && of(Version::V7).mechanisms.time_mix.has_value_residual());
}

#[test]
fn hybrids_with_what_they_may_lack() {
    let epsilon = Epsilon::new(1e-6).unwrap();
    let norms = |group| Norms { kind: Norm::Rms { epsilon }, ln0: false, group };
    let full = hybrid(Version::ARwkv7, &Variant::FULL).mechanisms;
    let expected = Mechanisms {
        time_mix: TimeMix::Wkv7 { decay: 6, iclr: 7, value: Some(3), gate: Some(9) },
        time_shift: TokenShift::Lerp { factors: &["att.x_r", "att.x_w", "att.x_k", "att.x_v", "att.x_a", "att.x_g"], lora: None },
        channel_mix: ChannelMix::SwiGlu,
        channel_shift: TokenShift::None,
        attention: Attention::None,
        norms: norms(true),
        vocabulary: VocabularyFamily::Qwen,
    };
    assert_eq!(full, expected);
    let bare = hybrid(Version::ARwkv7, &Variant { stacked: true, ..Variant::BARE }).mechanisms;
    assert_eq!(bare.time_mix, TimeMix::Wkv7 { decay: 6, iclr: 7, value: Some(3), gate: None });
    assert_eq!((bare.time_shift.factors().len(), bare.norms), (5, norms(false)));
    let q = hybrid(Version::QRwkv6, &Variant { kv_heads: 2, ..Variant::FULL }).mechanisms;
    assert_eq!(q.time_mix, TimeMix::Qrwkv6 { mix: 6, decay: 7, kv_heads: 2 });
    assert_eq!((q.norms, q.token_shifts()), (norms(false), 1));
}

/// Every vector that a token shift is said to mix with is a tensor of the model, and there are no others.
#[test]
fn factors_of_token_shifts_are_the_tensors_of_that_role() {
    let mut all: Vec<ModelDescription> = Version::ALL.into_iter().map(of).collect();
    all.extend(Version::HYBRIDS.map(|version| hybrid(version, &Variant::FULL)));
    all.push(hybrid(Version::ARwkv7, &Variant { stacked: true, ..Variant::BARE }));
    for description in all {
        let mechanisms = description.mechanisms;
        let mut named: Vec<&str> =
            [mechanisms.time_shift, mechanisms.channel_shift].iter().flat_map(|shift| shift.factors()).copied().collect();
        // What the pairs of RWKV-6 see is mixed by a vector of its own, which is no factor of an input.
        if matches!(mechanisms.time_shift, TokenShift::Lerp { lora: Some(_), .. }) {
            named.push("att.time_maa_x");
        }
        named.sort_unstable();
        let shifts = description.layer_tensors(1).iter().filter(|spec| spec.role == rwkv_forge_model::TensorRole::TokenShift);
        let mut stored: Vec<&str> = shifts.map(|spec| spec.suffix()).collect();
        stored.sort_unstable();
        assert_eq!(named, stored, "{}", description.version);
    }
}

#[test]
fn states_with_their_axes() {
    let names = |version| of(version).mechanisms.state().map(|buffer| buffer.name).collect::<Vec<_>>();
    assert_eq!(names(Version::V4), ["att_shift", "ffn_shift", "aa", "bb", "pp"]);
    assert_eq!(names(Version::V7), ["att_shift", "ffn_shift", "wkv"]);
    let bare = hybrid(Version::ARwkv7, &Variant::FULL);
    assert_eq!(bare.mechanisms.state().map(|buffer| buffer.name).collect::<Vec<_>>(), ["att_shift", "wkv"]);
    let four = of(Version::V4);
    let initial: Vec<f64> = four.mechanisms.time_mix.memory().iter().map(|buffer| buffer.initial).collect();
    assert_eq!(initial, [0.0, 0.0, -1e30]);
    assert!(four.mechanisms.time_mix.memory().iter().all(|buffer| buffer.values(&four.hyperparameters) == 32));
    for version in [Version::V5_0, Version::V5_1, Version::V5_2, Version::V6, Version::V7] {
        let description = of(version);
        let [wkv] = description.mechanisms.time_mix.memory() else { panic!("{version} has one matrix a head") };
        let is_7 = version == Version::V7;
        let order = if is_7 { [Axis::Head, Axis::Value, Axis::Key] } else { [Axis::Head, Axis::Key, Axis::Value] };
        assert_eq!(wkv.axes, order, "{version}");
        assert_eq!(description.mechanisms.time_mix.is_value_first(), is_7);
        assert_eq!(wkv.shape(&description.hyperparameters), [4, 8, 8]);
    }
}

/// 7a and 7b are RWKV-7 and what their names say; a file with a part of it is neither.
#[test]
fn tables_and_attention_are_recognised_by_any_of_their_names() {
    let [seven, with_tables, with_attention] = [Version::V7, Version::V7a, Version::V7b].map(of);
    let deep = ChannelMix::DeepEmbed { rank: 5 };
    assert_eq!(seven.mechanisms.channel_mix, ChannelMix::ReluSquared { receptance: false });
    assert_eq!((with_tables.mechanisms.channel_mix, with_tables.mechanisms.attention), (deep, Attention::None));
    let attention = Attention::Deep { rank: 4, width: 10 };
    assert_eq!(with_attention.mechanisms, Mechanisms { attention, ..with_tables.mechanisms });
    assert!(!seven.mechanisms.looks_tokens_up() && with_tables.mechanisms.looks_tokens_up());
    let grows: Vec<bool> = [&seven, &with_tables, &with_attention].iter().map(|model| model.mechanisms.remembers_tokens()).collect();
    assert_eq!((grows, attention.growth(&with_attention.hyperparameters)), (vec![false, false, true], 10 + 32));
    let names = |version| model(version).into_iter().map(|info| info.name).collect::<Vec<_>>();
    for (version, base) in [(Version::V7a, Version::V7), (Version::V7b, Version::V7a)] {
        let known = names(base);
        for added in names(version).into_iter().filter(|name| !known.contains(name)) {
            let mut one: Vec<_> = model(base);
            one.extend(model(version).into_iter().filter(|info| info.name == added));
            let error = describe(&one).unwrap_err().to_string();
            // Small vectors of the attention alone are unknown tensors of RWKV-7a.
            let told = error.contains(&version.to_string()) || error.contains(&added);
            assert!(told, "{added}: {error}");
        }
    }
}

#[test]
fn every_version_is_one_row() {
    let all: Vec<Version> = ARCHITECTURES.iter().chain(HYBRIDS).map(|row| row.version).collect();
    assert_eq!(all, [Version::ALL.as_slice(), Version::HYBRIDS.as_slice()].concat());
    for row in ARCHITECTURES.iter().chain(HYBRIDS) {
        assert!(std::ptr::eq(row.version.architecture(), *row), "{}", row.version);
        let is_world = row.vocabulary == VocabularyFamily::World;
        assert_eq!((row.norm == NormKind::Layer, row.ln0), (is_world, is_world), "{}", row.version);
    }
}
