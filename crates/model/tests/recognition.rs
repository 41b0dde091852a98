//! Every version in every naming convention is recognised, with the right sizes, roles and sources.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests fail loudly")]

use crate::common;

use crate::common::{find, info, model, model_with};
use rwkv_forge_model::architecture::ARCHITECTURES;
use rwkv_forge_model::{LoraRanks, MappedTensor, Recover, TensorRole, TensorSpec, Version, describe, describe_mapped};
use rwkv_forge_tensor::{Encoding, TensorInfo, TensorSource, format_shape};
use rwkv_forge_testkit::models::{
    MemorySource, Options, Sizes, SplitMix64, random_model, random_model_with, to_fla, to_hugging_face, to_prefixed,
};

fn ranks_of_7(decay: usize, iclr: usize, value: usize, gate: usize) -> LoraRanks {
    LoraRanks { mix: None, decay: Some(decay), iclr: Some(iclr), value: Some(value), gate: Some(gate), ..LoraRanks::default() }
}

#[test]
fn every_version_with_its_sizes() {
    for version in Version::ALL {
        let description = describe(&model(version)).unwrap();
        let sizes = description.hyperparameters;
        assert_eq!(description.version, version);
        assert_eq!((sizes.layers, sizes.channels, sizes.attention, sizes.ffn, sizes.vocabulary), (2, 32, 32, 48, 40), "{version}");
        let heads = if version == Version::V4 { (0, 0) } else { (4, 8) };
        assert_eq!((sizes.heads, sizes.head_size), heads, "{version}");
        let six = LoraRanks { mix: Some(6), decay: Some(7), ..LoraRanks::default() };
        let seven = ranks_of_7(6, 7, 3, 9);
        let of = [
            (Version::V6, six),
            (Version::V7, seven),
            (Version::V7a, LoraRanks { deep: Some(5), ..seven }),
            (Version::V7b, LoraRanks { deep: Some(5), kept: Some(4), ..seven }),
        ];
        assert_eq!(sizes.query, (version == Version::V7b).then_some(10), "{version}");
        let ranks = of.into_iter().find(|(of, _)| *of == version).map_or_else(LoraRanks::default, |(_, ranks)| ranks);
        assert_eq!(sizes.ranks, ranks, "{version}");
        assert!(description.unused.is_empty());
    }
}

#[test]
fn every_tensor_once_with_the_stored_shape() {
    for version in Version::ALL {
        let infos = model(version);
        let description = describe(&infos).unwrap();
        let mut sources: Vec<usize> = description.tensors.iter().map(|spec| spec.source_index).collect();
        sources.sort_unstable();
        assert_eq!(sources, (0..infos.len()).collect::<Vec<_>>());
        for spec in &description.tensors {
            let stored = &infos[spec.source_index];
            assert_eq!((&spec.name, &spec.shape, spec.recover), (&stored.name, &stored.shape, Recover::AS_IS));
        }
        let elements: u64 = infos.iter().map(|info| info.elements().unwrap()).sum();
        assert_eq!(description.parameters(), elements);
        let layers: u64 = (0..2).map(|layer| description.layer_bytes_f32(layer)).sum();
        let outer: u64 = description.outer_tensors().map(|spec| 4 * spec.elements()).sum();
        assert_eq!(layers + outer, 4 * elements);
    }
}

#[test]
fn the_order_of_the_file_does_not_matter() {
    for version in Version::ALL {
        let infos = model(version);
        let names = |infos: &[TensorInfo]| {
            let description = describe(infos).unwrap();
            let specs = description.tensors.iter().map(|spec| {
                assert_eq!(infos[spec.source_index].name, spec.name);
                (spec.name.clone(), spec.shape.clone(), spec.role, spec.layer)
            });
            (description.hyperparameters, specs.collect::<Vec<_>>())
        };
        let expected = names(&infos);
        assert_eq!(expected.1.first().unwrap().0, "emb.weight");
        assert_eq!(expected.1.last().unwrap().0, "head.weight");
        for seed in 0..20 {
            let mut shuffled = infos.clone();
            SplitMix64::new(seed).shuffle(&mut shuffled);
            assert_eq!(names(&shuffled), expected, "{version}, seed {seed}");
        }
    }
}

/// Asserts that a renamed model gives the description of the original, and that recovering each tensor from its
/// source gives the original's bytes.
fn assert_same_model(original: &MemorySource, renamed: &MemorySource) {
    let (expected, actual) = (describe(original.tensors()).unwrap(), describe(renamed.tensors()).unwrap());
    assert_eq!(actual.version, expected.version);
    assert_eq!(actual.hyperparameters, expected.hyperparameters);
    assert_eq!(actual.tensors.len(), expected.tensors.len());
    for (spec, wanted) in actual.tensors.iter().zip(&expected.tensors) {
        assert_eq!((&spec.name, &spec.shape, spec.role, spec.layer), (&wanted.name, &wanted.shape, wanted.role, wanted.layer));
        let stored = renamed.bytes(&renamed.tensors()[spec.source_index].name).unwrap();
        assert_eq!(recover(stored, &spec.shape, spec.recover), original.bytes(&spec.name).unwrap(), "{}", spec.name);
    }
}

/// Bytes of the canonical f32 tensor.
fn recover(stored: &[u8], shape: &[u64], recover: Recover) -> Vec<u8> {
    let (part, of) = recover.part;
    let length = stored.len() / of as usize;
    let bytes = &stored[part as usize * length..][..length];
    if !recover.transposed {
        return bytes.to_vec();
    }
    let [rows, columns] = [2, 1].map(|from_end| usize::try_from(shape[shape.len() - from_end]).unwrap());
    (0..rows).flat_map(|row| (0..columns).flat_map(move |column| bytes[(column * rows + row) * 4..][..4].to_vec())).collect()
}

#[test]
fn hugging_face_names() {
    for version in [Version::V4, Version::V5_0, Version::V5_1, Version::V5_2, Version::V6] {
        let original = random_model(version, &Sizes::TINY, 7);
        let renamed = to_hugging_face(original.clone());
        assert!(renamed.tensors().iter().any(|info| info.name == "rwkv.blocks.0.pre_ln.weight"));
        assert_same_model(&original, &renamed);
    }
    let names: Vec<String> =
        to_hugging_face(random_model(Version::V5_2, &Sizes::TINY, 7)).tensors().iter().map(|info| info.name.clone()).collect();
    for name in ["rwkv.blocks.1.attention.time_mix_gate", "rwkv.blocks.1.feed_forward.time_mix_receptance", "rwkv.embeddings.weight"] {
        assert!(names.iter().any(|have| have == name), "{name}");
    }
}

#[test]
fn fla_names_with_single_and_stacked_token_shift() {
    let original = random_model(Version::V7, &Sizes::TINY, 8);
    for stacked in [false, true] {
        let renamed = to_fla(original.clone(), stacked);
        assert_eq!(renamed.tensors().iter().any(|info| info.name == "model.layers.1.attn.x_x" && info.shape == [6, 32]), stacked);
        assert!(renamed.tensors().iter().any(|info| info.name == "model.layers.1.attn.g_lora.lora.0.weight" && info.shape == [9, 32]));
        assert_same_model(&original, &renamed);
    }
}

#[test]
fn fla_stack_of_a_wrong_number_of_vectors_is_refused() {
    let mut infos = to_fla(random_model(Version::V7, &Sizes::TINY, 8), true).tensors().to_vec();
    find(&mut infos, "model.layers.1.attn.x_x").shape = vec![5, 32];
    common::assert_refused(&infos, "BadShape", "model.layers.1.attn.x_x");
    find(&mut infos, "model.layers.1.attn.x_x").shape = vec![12, 32];
    common::assert_refused(&infos, "ShapeMismatch", "model.layers.1.attn.x_x");
}

#[test]
fn prefixed_names() {
    for version in Version::ALL {
        let original = random_model(version, &Sizes::TINY, 9);
        assert_same_model(&original, &to_prefixed(original.clone()));
    }
}

#[test]
fn prefixed_names_with_long_words() {
    let original = random_model(Version::V7, &Sizes::TINY, 9);
    let renamed = MemorySource::from_tensors(original.clone().into_tensors().into_iter().map(|mut tensor| {
        let name = tensor.info.name.replace(".att.", ".attention.").replace("emb.weight", "embeddings.weight");
        let name = name.replace("blocks.0.ln0", "pre_ln");
        tensor.info.name = if name == "head.weight" { name } else { format!("model.{name}") };
        tensor
    }));
    assert_same_model(&original, &renamed);
}

#[test]
fn other_dimensions_of_size_1_are_accepted() {
    for version in Version::ALL {
        let infos = model(version);
        let expected = describe(&infos).unwrap();
        let forms: [fn(&mut Vec<u64>); 4] = [
            |shape| shape.retain(|dim| *dim != 1),
            |shape| shape.push(1),
            |shape| shape.insert(0, 1),
            |shape| shape.splice(0..0, [1, 1]).for_each(drop),
        ];
        for (number, form) in forms.iter().enumerate() {
            let mut changed = infos.clone();
            changed.iter_mut().for_each(|info| form(&mut info.shape));
            let description = describe(&changed).unwrap_or_else(|error| panic!("{version}, form {number}: {error}"));
            assert_eq!(description, expected, "{version}, form {number}");
        }
    }
}

#[test]
fn one_head_tells_5_1_from_5_2() {
    let sizes = Sizes { channels: 8, head_size: 8, ..Sizes::TINY };
    for version in [Version::V5_0, Version::V5_1, Version::V5_2, Version::V6, Version::V7] {
        let description = describe(&model_with(version, &sizes, &Options::default())).unwrap();
        assert_eq!(description.version, version);
        assert_eq!((description.hyperparameters.heads, description.hyperparameters.head_size), (1, 8), "{version}");
    }
}

#[test]
fn bonus_of_rwkv_5_keeps_the_name_it_has() {
    for version in [Version::V5_0, Version::V5_1, Version::V5_2] {
        for (logarithm, name) in [(true, "time_first"), (false, "time_faaaa")] {
            let infos = model_with(version, &Sizes::TINY, &Options { bonus_as_logarithm: logarithm, ..Options::default() });
            let description = describe(&infos).unwrap();
            assert_eq!(description.version, version);
            let spec = description.find(&format!("blocks.1.att.{name}")).unwrap();
            assert_eq!(spec.role, TensorRole::Bonus);
        }
    }
}

#[test]
fn layer_0_may_have_the_value_residual_of_rwkv_7() {
    let options = Options { value_in_layer_0: true, ..Options::default() };
    let mut infos = model_with(Version::V7, &Sizes::TINY, &options);
    let description = describe(&infos).unwrap();
    let unused: Vec<&str> = description.unused.iter().map(|index| infos[*index].name.as_str()).collect();
    assert_eq!(unused, ["blocks.0.att.v0", "blocks.0.att.v1", "blocks.0.att.v2"]);
    assert!(description.find("blocks.0.att.v1").is_none());
    assert_eq!(description.tensors.len() + 3, infos.len());

    // Some containers fill the place with copies of a0, a1, a2, whose rank is another.
    find(&mut infos, "blocks.0.att.v1").shape = vec![32, 7];
    assert_eq!(describe(&infos).unwrap().hyperparameters.ranks, ranks_of_7(6, 7, 3, 9));
    find(&mut infos, "blocks.0.att.v1").shape = vec![31, 7];
    common::assert_refused(&infos, "ShapeMismatch", "blocks.0.att.v1");
}

#[test]
fn one_layer_of_rwkv_7_has_no_value_rank() {
    let infos = model_with(Version::V7, &Sizes { layers: 1, ..Sizes::TINY }, &Options::default());
    let description = describe(&infos).unwrap();
    assert_eq!(description.hyperparameters.ranks, ranks_of_7(6, 7, 0, 9));
}

#[test]
fn more_than_ten_layers_are_in_numeric_order() {
    let infos = model_with(Version::V7, &Sizes { layers: 12, ..Sizes::TINY }, &Options::default());
    let description = describe(&infos).unwrap();
    let layers: Vec<usize> = description.tensors.iter().filter_map(|spec| spec.layer).collect();
    assert!(layers.is_sorted());
    assert_eq!(layers.last(), Some(&11));
    assert!(description.layer_tensors(10).iter().all(|spec| spec.name.starts_with("blocks.10.")));
    assert!(description.layer_tensors(12).is_empty());
}

#[test]
fn a_tensor_is_looked_for_in_its_layer_alone() {
    let infos = model_with(Version::V7, &Sizes { layers: 1800, ..Sizes::TINY }, &Options::default());
    let description = describe(&infos).unwrap();
    // Slices of the list, by their types: nothing else of the model is looked at. Layer 0 has a norm more and no value residual.
    let sizes: Vec<usize> = (0..1800).map(|layer| <[TensorSpec]>::len(description.layer_tensors(layer))).collect();
    assert!(sizes[1..].iter().all(|size| *size == sizes[1]) && sizes[1] < 40, "{}", sizes[1]);
    assert_eq!(sizes.iter().sum::<usize>() + description.outer_tensors().count(), description.tensors.len());
    for (index, spec) in description.tensors.iter().enumerate() {
        assert_eq!(description.find_index(&spec.name), Some(index));
        if let Some(layer) = spec.layer {
            assert!(description.layer_tensors(layer).iter().any(|other| std::ptr::eq(other, spec)));
        }
    }
    for missing in ["blocks.1800.att.x_r", "blocks.7.att.x_q", "blocks.07.att.x_r", "blocks.x.att.x_r", "head.bias", ""] {
        assert_eq!(description.find(missing), None, "{missing}");
    }
    let stored = description.stored_counts(infos.len());
    assert_eq!(stored.iter().sum::<u32>() as usize, description.tensors.len());
}

#[test]
fn a_container_with_its_own_names() {
    let mut infos = model(Version::V7);
    let mapped: Vec<MappedTensor> = infos
        .iter()
        .enumerate()
        .map(|(source_index, info)| MappedTensor { name: info.name.clone(), source_index, recover: Recover::AS_IS })
        .collect();
    let expected = describe(&infos).unwrap();
    infos.iter_mut().enumerate().for_each(|(number, info)| info.name = format!("t{number}"));
    // A quantized encoding says nothing against a weight.
    find(&mut infos, "t0").encoding = Encoding::new("q8_0", 32, 34);
    assert_eq!(describe_mapped(&infos, mapped.clone()).unwrap(), expected);

    let mut outside = mapped.clone();
    outside[3].source_index = infos.len();
    assert_eq!(kind(describe_mapped(&infos, outside)), "BadMapping");
    let mut twice = mapped.clone();
    twice[3].name.clone_from(&mapped[4].name);
    assert_eq!(kind(describe_mapped(&infos, twice)), "DuplicateTensor");
    infos.push(info("t_extra", &[32]));
    assert_eq!(kind(describe_mapped(&infos, mapped)), "UnknownTensor");
}

fn kind(result: Result<rwkv_forge_model::ModelDescription, rwkv_forge_model::ModelError>) -> &'static str {
    rwkv_forge_tensor::Diagnostic::kind(&result.unwrap_err())
}

#[test]
fn the_registry_has_every_version_once() {
    let versions: Vec<Version> = ARCHITECTURES.iter().map(|architecture| architecture.version).collect();
    assert_eq!(versions, Version::ALL);
    for version in Version::ALL {
        let architecture = version.architecture();
        let mut names: Vec<&str> = architecture.layer_rows().map(|row| row.suffix).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "{version} lists a tensor twice");
    }
}

#[test]
fn role_names_are_those_of_the_serialization() {
    for role in TensorRole::ALL {
        assert_eq!(serde_json::to_value(role).unwrap(), role.name());
    }
    let mut names: Vec<&str> = TensorRole::ALL.iter().map(|role| role.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), TensorRole::ALL.len());
}

#[test]
fn a_summary_for_people() {
    assert_eq!(describe(&model(Version::V7)).unwrap().summary(), "RWKV-7, 2 layers, 32 channels, 4 heads of 8, ffn 48, vocabulary 40");
    assert_eq!(describe(&model(Version::V4)).unwrap().summary(), "RWKV-4, 2 layers, 32 channels, ffn 48, vocabulary 40");
}

#[test]
fn made_up_models_depend_on_the_seed_alone() {
    let options = Options { encoding: Encoding::BF16, ..Options::default() };
    let make = |seed| random_model_with(Version::V7, &Sizes::TINY, &options, seed).into_tensors();
    assert_eq!(make(5), make(5));
    assert_ne!(make(5), make(6));
    let tensor = &make(5)[0];
    assert_eq!((tensor.info.encoding, format_shape(&tensor.info.shape).as_str()), (Encoding::BF16, "[40, 32]"));
    assert_eq!(tensor.bytes.len(), 40 * 32 * 2);
}

#[test]
fn trained_checkpoints() {
    use rwkv_forge_checkpoint::{Limits, open};
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/checkpoints");
    for (file, version, expected) in [
        ("tiny-rwkv4.pth", Version::V4, (0, 0, 512, 725_632)),
        ("tiny-rwkv5.pth", Version::V5_2, (2, 64, 448, 726_784)),
        ("tiny-rwkv6.pth", Version::V6, (2, 64, 448, 899_584)),
        ("tiny-rwkv7.pth", Version::V7, (2, 64, 512, 802_432)),
    ] {
        let source = open(&fixtures.join(file), &Limits::default()).unwrap_or_else(|error| panic!("{file}: {error}"));
        let description = describe(source.tensors()).unwrap_or_else(|error| panic!("{file}: {error}"));
        let sizes = description.hyperparameters;
        assert_eq!(description.version, version);
        assert_eq!((sizes.layers, sizes.channels, sizes.vocabulary), (3, 128, 320), "{file}");
        // The published numbers of parameters count everything in the file, v0, v1, v2 of layer 0 too.
        let unused: u64 = description.unused.iter().map(|index| source.tensors()[*index].elements().unwrap()).sum();
        assert_eq!((sizes.heads, sizes.head_size, sizes.ffn, description.parameters() + unused), expected, "{file}");
        assert_eq!(description.unused.len(), if version == Version::V7 { 3 } else { 0 });
        for spec in &description.tensors {
            assert_eq!(spec.shape, source.tensors()[spec.source_index].shape, "{file}: {}", spec.name);
        }
        if version == Version::V6 {
            assert!(matches!(
                sizes.ranks,
                LoraRanks { mix: Some(32), decay: Some(_), iclr: None, value: None, gate: None, deep: None, kept: None }
            ));
        } else if version == Version::V7 {
            assert_eq!(sizes.ranks, ranks_of_7(32, 32, 32, 64));
        } else {
            assert_eq!(sizes.ranks, LoraRanks::default());
        }
    }
}

/// The names of `RwkvForCausalLM` as its model card lists them, not as the reader's table has them.
#[test]
fn transformers_own_layout_is_read() {
    let names = [
        ("emb.weight", "model.embed_tokens.weight"),
        ("blocks.0.ln0.", "model.embedding_norm."),
        ("ln_out.", "model.norm."),
        ("head.weight", "lm_head.weight"),
        (".ln1.", ".input_layernorm."),
        (".ln2.", ".post_attention_layernorm."),
        (".att.receptance.", ".linear_attn.r_proj."),
        (".att.key.", ".linear_attn.k_proj."),
        (".att.value.", ".linear_attn.v_proj."),
        (".att.output.", ".linear_attn.o_proj."),
        (".att.ln_x.", ".linear_attn.g_norm."),
        (".att.", ".linear_attn."),
        (".ffn.", ".mlp."),
        ("blocks.", "model.layers."),
    ];
    let original = random_model(Version::V7, &Sizes::TINY, 3);
    let expected = describe(original.tensors()).unwrap();
    let renamed =
        original.tensors().iter().filter(|info| !["blocks.0.att.v0", "blocks.0.att.v1", "blocks.0.att.v2"].contains(&info.name.as_str()));
    let renamed = renamed.map(|info| {
        let name = names.iter().fold(info.name.clone(), |name, (from, to)| name.replace(from, to));
        // Vectors are flat; the factors lie as they are, unlike those of flash-linear-attention.
        let shape = info.shape.iter().copied().skip_while(|dim| *dim == 1).collect();
        TensorInfo { name, shape, ..info.clone() }
    });
    let infos: Vec<TensorInfo> = renamed.collect();
    let found = describe(&infos).unwrap();
    assert_eq!((found.version, &found.hyperparameters), (Version::V7, &expected.hyperparameters));
    assert!(found.tensors.iter().all(|spec| !spec.recover.transposed));
    // The words of a draft for the channel mix.
    let draft = |info: &TensorInfo| TensorInfo {
        name: info.name.replace("mlp.key.", "mlp.up_proj.").replace("mlp.value.", "mlp.down_proj."),
        ..info.clone()
    };
    assert_eq!(describe(&infos.iter().map(draft).collect::<Vec<_>>()).unwrap().tensors.len(), found.tensors.len());
}
