//! What the parallel form refuses, and how it says so.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use crate::support::{Made, random};
use rwkv_forge_model::{ChannelMix, Mechanisms, Norms, TimeMix, TokenShift, Version, describe};
use rwkv_forge_parallel::{Layer, LayerState, ParallelError, ParallelModel, ParallelOptions, Wkv, embed, supports};
use rwkv_forge_tensor::{Class, Diagnostic, TensorSource};
use rwkv_forge_testkit::models::{Decay, MemorySource, Sizes, random_model};
use rwkv_forge_weights::Parts;

fn model() -> Made {
    random(Version::V7, &Sizes::TINY, Decay::Typical, 1)
}

fn kind<T>(result: Result<T, ParallelError>) -> (&'static str, Class, String) {
    match result {
        Ok(_) => panic!("not refused"),
        Err(error) => (error.kind(), error.class(), error.to_string()),
    }
}

#[test]
fn callers_mistakes_are_usage_errors() {
    let Made { source, description } = model();
    let options = ParallelOptions::default();
    let (kind_of, class, _) = kind(Layer::<f32>::load(
        &Made { source: source.clone(), description: description.clone() }.model(),
        0,
        &options.clone().with_chunk(0),
    ));
    assert_eq!((kind_of, class), ("EmptyChunk", Class::Usage));
    let (kind_of, class, text) =
        kind(Layer::<f32>::load(&Made { source: source.clone(), description: description.clone() }.model(), 2, &options));
    assert_eq!((kind_of, class), ("LayerOutOfRange", Class::Usage));
    assert!(text.contains("layer 2"), "{text}");
    assert_eq!(kind(embed::<f32>(&Made { source: source.clone(), description: description.clone() }.model(), &[], &options)).0, "NoTokens");
    let (kind_of, class, text) =
        kind(embed::<f32>(&Made { source: source.clone(), description: description.clone() }.model(), &[0, 40], &options));
    assert_eq!((kind_of, class), ("TokenOutOfRange", Class::Usage));
    assert!(text.contains("position 1"), "{text}");
}

#[test]
fn buffers_of_another_model_are_refused() {
    let Made { source, description } = model();
    let layer =
        Layer::<f32>::load(&Made { source: source.clone(), description: description.clone() }.model(), 1, &ParallelOptions::default())
            .unwrap();
    let zero = LayerState::zero(&description);
    let x = vec![0.5; 2 * 32];
    let first = Parts { first: vec![0.5; 2 * 32], ..Parts::default() };
    assert!(layer.forward(&x, &zero, &mut first.clone()).is_ok());
    assert_eq!(kind(layer.forward(&[], &zero, &mut first.clone())).0, "NoTokens");
    assert_eq!(kind(layer.forward(&x[1..], &zero, &mut first.clone())).0, "BufferMismatch");
    assert_eq!(kind(layer.forward(&x, &zero, &mut Parts::default())).0, "BufferMismatch");
    let short = LayerState { att_shift: vec![0.0; 31], ..zero.clone() };
    assert_eq!(kind(layer.forward(&x, &short, &mut first.clone())).0, "BufferMismatch");
    let other = LayerState { wkv: Wkv::Scalars { aa: vec![0.0; 32], bb: vec![0.0; 32], pp: vec![0.0; 32] }, ..zero.clone() };
    assert_eq!(kind(layer.forward(&x, &other, &mut first.clone())).0, "BufferMismatch");
    let whole =
        ParallelModel::<f32>::load(&Made { source: source.clone(), description: description.clone() }.model(), &ParallelOptions::default())
            .unwrap();
    assert_eq!(kind(whole.forward(&[1], &[zero])).0, "BufferMismatch");
}

#[test]
fn missing_tensors_are_named() {
    let Made { source, mut description } = model();
    description.tensors.retain(|spec| spec.name != "blocks.0.att.k_a");
    let (kind, class, text) = kind(Layer::<f32>::load(
        &Made { source: source.clone(), description: description.clone() }.model(),
        0,
        &ParallelOptions::default(),
    ));
    assert_eq!((kind, class), ("MissingTensor", Class::Refused));
    assert!(text.contains("blocks.0.att.k_a"), "{text}");
}

#[test]
fn a_shorter_file_than_described_is_refused() {
    let Made { source, description } = model();
    let mut tensors = source.into_tensors();
    let index = tensors.iter().position(|tensor| tensor.info.name == "blocks.1.ffn.key.weight").unwrap();
    tensors[index].info.shape = vec![48, 31];
    tensors[index].bytes.truncate(48 * 31 * 4);
    let source = MemorySource::from_tensors(tensors);
    let (kind, class, text) = kind(Layer::<f32>::load(
        &Made { source: source.clone(), description: description.clone() }.model(),
        1,
        &ParallelOptions::default(),
    ));
    assert_eq!((kind, class), ("ShapeMismatch", Class::Refused));
    assert!(text.contains("1488") && text.contains("1536"), "{text}");
}

#[test]
fn hybrids_are_refused_by_name() {
    for (version, name) in [(Version::QRwkv6, "QRWKV6"), (Version::ARwkv7, "ARWKV")] {
        let Made { source, mut description } = model();
        description.version = version;
        description.mechanisms.channel_mix = ChannelMix::SwiGlu;
        let (kind, class, text) = kind(Layer::<f32>::load(
            &Made { source: source.clone(), description: description.clone() }.model(),
            0,
            &ParallelOptions::default(),
        ));
        assert_eq!((kind, class), ("UnsupportedVersion", Class::Refused));
        assert!(text.contains(name) && text.contains("SwiGLU"), "{text}");
    }
}

#[test]
fn what_is_supported_is_said_by_mechanism() {
    for version in Version::ALL {
        let mechanisms = describe(random_model(version, &Sizes::TINY, 1).tensors()).unwrap().mechanisms;
        assert_eq!(supports(&mechanisms), Ok(()), "{version}");
        let without = Mechanisms { norms: Norms { ln0: false, ..mechanisms.norms }, ..mechanisms };
        assert_eq!(supports(&without), Err("an embedding without a norm"), "{version}");
        let regrouped = Mechanisms { norms: Norms { group: !mechanisms.norms.group, ..mechanisms.norms }, ..mechanisms };
        assert!(supports(&regrouped).unwrap_err().contains("group norm"), "{version}");
        let still = Mechanisms { time_shift: TokenShift::None, ..mechanisms };
        assert_eq!(supports(&still), Err(TokenShift::None.name()), "{version}");
        let attention = TimeMix::Qrwkv6 { mix: 6, decay: 7, kv_heads: 4 };
        assert_eq!(supports(&Mechanisms { time_mix: attention, ..mechanisms }), Err(attention.name()), "{version}");
        assert_eq!(supports(&Mechanisms { channel_mix: ChannelMix::SwiGlu, ..mechanisms }), Err(ChannelMix::SwiGlu.name()), "{version}");
    }
}
