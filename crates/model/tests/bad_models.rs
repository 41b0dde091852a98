//! Sets of tensors that are no model: each is refused with an error that names what is wrong.

use crate::common::{assert_refused, find, info, model, model_with, refused, without};
use rwkv_forge_model::{GGML_NAME_LIMIT, ModelError, Version, check_name_for_ggml, describe, describe_mapped, map_by_convention};
use rwkv_forge_tensor::{Diagnostic, Encoding, TensorInfo};
use rwkv_forge_testkit::models::{Options, Sizes, random_model, to_fla, to_hugging_face};

#[test]
fn m1_each_tensor_missing_is_named() {
    for version in Version::ALL {
        let infos = model(version);
        for tensor in infos.iter().filter(|tensor| tensor.name != "head.weight") {
            match refused(&without(&infos, &tensor.name)) {
                ModelError::MissingTensor { name, layer, version: found, more } => {
                    assert_eq!((&name, found, more), (&tensor.name, version, 0));
                    let expected = tensor.name.strip_prefix("blocks.").map(|rest| usize::from(rest.starts_with('1')));
                    assert_eq!(layer, expected, "{name}");
                }
                other => panic!("{version} without {}: {other}", tensor.name),
            }
        }
    }
}

/// Embedding models have no head. Containers that end where they end cannot say whether it was cut off.
#[test]
fn m8_only_a_checkpoint_may_lack_the_head() {
    for version in Version::ALL {
        let whole = model(version);
        let infos = without(&whole, "head.weight");
        let found = describe(&infos).unwrap();
        assert!(!found.has_head() && describe(&whole).unwrap().has_head(), "{version}");
        assert_eq!((found.outputs(), found.tensors.len()), (found.hyperparameters.channels, infos.len()));
        assert!(found.summary().ends_with(", no head"));
        let error = describe_mapped(&infos, map_by_convention(&infos).unwrap()).unwrap_err();
        assert_eq!(error.kind(), "MissingTensor", "{version}");
    }
}

#[test]
fn m1_missing_layer_in_the_middle() {
    for version in Version::ALL {
        let infos = model_with(version, &Sizes { layers: 4, ..Sizes::TINY }, &Options::default());
        let gap: Vec<TensorInfo> = infos.iter().filter(|info| !info.name.starts_with("blocks.2.")).cloned().collect();
        assert_refused(&gap, "MissingTensor", "layer 2 has no tensors, although the file has layer 3");
        let headless: Vec<TensorInfo> = infos.iter().filter(|info| !info.name.starts_with("blocks.0.")).cloned().collect();
        assert_refused(&headless, "MissingTensor", "layer 0");
    }
}

/// What stands above a complete model is no sign of a download that broke off.
#[test]
fn m6_stray_layers_above_a_model() {
    for version in Version::ALL {
        let whole = model_with(version, &Sizes { layers: 3, ..Sizes::TINY }, &Options::default());
        let shape = whole.iter().find(|info| info.name == "blocks.1.att.key.weight").unwrap().shape.clone();
        for (strays, layer) in [(&["blocks.7.att.key.weight"][..], 7), (&["blocks.3.att.key.weight", "blocks.9.ffn.key.weight"], 3)] {
            let mut infos = whole.clone();
            infos.extend(strays.iter().map(|name| info(name, &shape)));
            assert_refused(&infos, "StrayLayer", &format!("layer {layer} has 1 tensor(s) such as '{}'", strays[0]));
            assert_refused(&infos, "StrayLayer", "while the 3 layer(s) from 0 on have");
            // What it says to do works.
            assert!(describe(&infos[..whole.len()]).is_ok());
        }
        // Half a layer and more may be what a download left.
        let half = whole.iter().filter(|info| info.name.starts_with("blocks.2.")).count() * 2 / 3;
        let mut kept = 0;
        let cut: Vec<TensorInfo> = whole
            .into_iter()
            .filter(|info| {
                kept += usize::from(info.name.starts_with("blocks.2."));
                !info.name.starts_with("blocks.2.") || kept <= half
            })
            .collect();
        // Without its tables the last layer looks like one of RWKV-7.
        let (kind, says) = if [Version::V7a, Version::V7b].contains(&version) {
            ("AmbiguousVersion", "give a file that holds one model")
        } else {
            ("MissingTensor", "downloaded or saved completely")
        };
        assert_refused(&cut, kind, says);
    }
}

#[test]
fn m1_bad_layer_numbers() {
    for version in [Version::V4, Version::V7] {
        for number in ["007", "-1", "+1", "4294967296", "99999999999999999999999", "", "1a", "0x1", " 1", "\u{661}"] {
            let mut infos = model(version);
            let name = format!("blocks.{number}.att.key.weight");
            find(&mut infos, "blocks.1.att.key.weight").name.clone_from(&name);
            let error = refused(&infos);
            assert_eq!(error.kind(), "BadName", "{name}: {error}");
            assert!(matches!(error, ModelError::BadName { name: found, .. } if found == name));
        }
    }
    let mut infos = model(Version::V7);
    infos.push(info("blocks.3", &[32]));
    assert_refused(&infos, "BadName", "'blocks.3'");
}

#[test]
fn m1_bad_layer_numbers_in_other_conventions() {
    let mut infos = rwkv_forge_tensor::TensorSource::tensors(&to_fla(random_model(Version::V7, &Sizes::TINY, 1), false)).to_vec();
    find(&mut infos, "model.layers.1.attn.k_k").name = "model.layers.01.attn.k_k".to_owned();
    assert_refused(&infos, "BadName", "model.layers.01.attn.k_k");
}

#[test]
fn m1_enormous_layer_numbers_cost_nothing() {
    let infos: Vec<TensorInfo> = model(Version::V7)
        .into_iter()
        .map(|mut info| {
            info.name = info.name.replace("blocks.1.", "blocks.4000000000.");
            info
        })
        .collect();
    assert_refused(&infos, "MissingTensor", "layer 1 has no tensors, although the file has layer 4000000000");
    let only = [info("blocks.4000000000.att.x_r", &[1, 1, 32])];
    assert_refused(&only, "MissingTensor", "layer 0");
}

#[test]
fn m1_very_many_nearly_empty_layers_cost_little() {
    let infos: Vec<TensorInfo> = (0..100_000).map(|layer| info(&format!("blocks.{layer}.att.x_r"), &[1, 1, 32])).collect();
    assert_refused(&infos, "MissingTensor", "1000 or more others");
    // Three million tensors are missing; no more are counted than that sentence says.
}

#[test]
fn m2_each_unknown_tensor_is_named() {
    for version in Version::ALL {
        for name in ["blocks.0.att.surprise", "blocks.1.ffn.key.bias", "surprise", "blocks.1.ln0.weight", "ln_out.weight2", "emb.bias"] {
            let mut infos = model(version);
            infos.insert(3, info(name, &[32]));
            assert_refused(&infos, "UnknownTensor", &format!("'{name}'"));
        }
    }
}

#[test]
fn m2_unknown_tensors_of_other_conventions_are_named_as_in_the_file() {
    use rwkv_forge_tensor::TensorSource;
    let mut fla = to_fla(random_model(Version::V7, &Sizes::TINY, 1), false).tensors().to_vec();
    fla.push(info("model.layers.0.attn.g_lora.lora.2.bias", &[32]));
    assert_refused(&fla, "UnknownTensor", "'model.layers.0.attn.g_lora.lora.2.bias'");
    let mut hugging_face = to_hugging_face(random_model(Version::V6, &Sizes::TINY, 1)).tensors().to_vec();
    hugging_face.push(info("rwkv.blocks.0.attention.key.bias", &[32]));
    assert_refused(&hugging_face, "UnknownTensor", "'rwkv.blocks.0.attention.key.bias'");
}

#[test]
fn m2_long_lists_are_cut_and_counted() {
    let mut infos = model(Version::V7);
    infos.extend((0..20).map(|number| info(&format!("extra.{number}"), &[32])));
    assert_refused(&infos, "UnknownTensor", "20 tensor(s)");
    assert_refused(&infos, "UnknownTensor", "and 12 more");
}

#[test]
fn m2_names_from_hostile_files_do_not_reach_the_terminal_raw() {
    let mut infos = model(Version::V7);
    infos.push(info(&format!("evil\u{1b}[2J\n{}", "x".repeat(100_000)), &[32]));
    let message = refused(&infos).to_string();
    assert!(message.contains("evil\\u{1b}[2J\\n"), "{message}");
    assert!(message.len() < 1000, "{} bytes", message.len());
}

#[test]
fn m2_mixture_of_versions() {
    for (one, other) in [(Version::V4, Version::V7), (Version::V6, Version::V7), (Version::V5_2, Version::V6), (Version::V4, Version::V6)] {
        let mut layers = model(one);
        layers.retain(|info| !info.name.starts_with("blocks.1."));
        layers.extend(model(other).into_iter().filter(|info| info.name.starts_with("blocks.1.")));
        let error = refused(&layers);
        assert!(
            matches!(&error, ModelError::AmbiguousVersion { first, second, .. } if *first == one && *second == other),
            "{one} and {other}: {error}"
        );
        let mut all = model(one);
        all.extend(model(other).into_iter().filter(|info| !model(one).iter().any(|have| have.name == info.name)));
        assert_eq!(refused(&all).kind(), "AmbiguousVersion", "{one} and {other}");
    }
}

#[test]
fn m2_both_names_of_the_bonus() {
    let mut infos = model(Version::V5_2);
    infos.push(info("blocks.0.att.time_first", &[4, 8]));
    assert_refused(&infos, "UnknownTensor", "blocks.0.att.time_first");
    let mut mixed = model(Version::V5_2);
    find(&mut mixed, "blocks.1.att.time_faaaa").name = "blocks.1.att.time_first".to_owned();
    assert_refused(&mixed, "MissingTensor", "blocks.1.att.time_faaaa");
}

#[test]
fn m2_initial_state_merged_into_a_model() {
    let with = |version: Version, states: &[(usize, &[u64])]| {
        let mut infos = model(version);
        infos.extend(states.iter().map(|(layer, shape)| info(&format!("blocks.{layer}.att.time_state"), shape)));
        infos
    };
    let matrices: &[u64] = &[4, 8, 8];
    // A state for every layer is no weight, and is kept apart; one for some of them is none.
    for version in [Version::V5_0, Version::V5_1, Version::V5_2, Version::V6, Version::V7, Version::V7a] {
        let found = describe(&with(version, &[(1, matrices), (0, matrices)])).unwrap();
        assert_eq!((found.start.len(), found.tensors.len()), (2, describe(&model(version)).unwrap().tensors.len()));
        assert!(found.start.iter().enumerate().all(|(layer, start)| start.spec.layer == Some(layer) && start.spec.shape == matrices));
        assert_eq!(found.part(found.tensors.len() + 1), Some(&found.start[1].spec));
        assert_refused(&with(version, &[(0, matrices)]), "MissingStart", "layer 1");
        assert_refused(&with(version, &[(0, matrices), (1, &[8, 4, 8])]), "ShapeMismatch", "blocks.1.att.time_state");
    }
    // RWKV-4 has no matrices to start from, and RWKV-7b remembers more than matrices.
    for version in [Version::V4, Version::V7b] {
        assert_refused(&with(version, &[(0, matrices), (1, matrices)]), "UnknownTensor", "initial state");
    }
}

#[test]
fn m2_two_tensors_for_one() {
    use rwkv_forge_tensor::TensorSource;
    let mut infos = to_fla(random_model(Version::V7, &Sizes::TINY, 1), true).tensors().to_vec();
    infos.push(info("model.layers.1.attn.x_k", &[1, 1, 32]));
    assert_refused(&infos, "DuplicateTensor", "'model.layers.1.attn.x_x'");
    let mut infos = model(Version::V7);
    infos.push(infos[5].clone());
    assert_eq!(refused(&infos).kind(), "DuplicateTensor");
}

#[test]
fn m3_each_dimension_of_each_tensor_changed() {
    for version in Version::ALL {
        let infos = model(version);
        for tensor in 0..infos.len() {
            for dimension in 0..infos[tensor].shape.len() {
                for change in [1i64, -1, 7] {
                    let mut changed = infos.clone();
                    let dim = &mut changed[tensor].shape[dimension];
                    *dim = dim.saturating_add_signed(change);
                    if *dim == 0 {
                        continue;
                    }
                    let error = refused(&changed);
                    assert_eq!(error.kind(), "ShapeMismatch", "{version}, {:?}: {error}", changed[tensor]);
                }
            }
        }
    }
}

#[test]
fn m3_both_shapes_are_given() {
    let mut infos = model(Version::V7);
    find(&mut infos, "blocks.1.ffn.value.weight").shape = vec![32, 47];
    match refused(&infos) {
        ModelError::ShapeMismatch { name, found, expected, formula, .. } => {
            assert_eq!(
                (name.as_str(), found, expected, formula.as_str()),
                ("blocks.1.ffn.value.weight", vec![32, 47], vec![32, 48], "[C, F]")
            );
        }
        other => panic!("{other}"),
    }
    let mut infos = model(Version::V7);
    find(&mut infos, "head.weight").shape = vec![41, 32];
    assert_refused(&infos, "ShapeMismatch", "[41, 32], expected [40, 32]");
}

#[test]
fn m3_transposed_matrices_are_not_taken_silently() {
    for (name, shape) in [("blocks.0.ffn.key.weight", [32, 48]), ("blocks.1.att.w1", [6, 32]), ("emb.weight", [32, 40])] {
        let mut infos = model(Version::V7);
        find(&mut infos, name).shape = shape.to_vec();
        assert_eq!(refused(&infos).kind(), "ShapeMismatch", "{name}");
    }
}

#[test]
fn m3_heads_that_do_not_divide() {
    for (version, name, shape) in [
        (Version::V5_0, "att.time_decay", vec![5]),
        (Version::V5_1, "att.time_decay", vec![33]),
        (Version::V5_2, "att.time_decay", vec![4, 9]),
        (Version::V6, "att.time_faaaa", vec![3, 8]),
        (Version::V7, "att.r_k", vec![32]),
        (Version::V7, "att.r_k", vec![8, 8]),
        (Version::V7, "att.r_k", vec![2, 4, 8]),
    ] {
        let mut infos = model(version);
        for layer in 0..2 {
            find(&mut infos, &format!("blocks.{layer}.{name}")).shape.clone_from(&shape);
        }
        let error = refused(&infos);
        assert_eq!(error.kind(), "ShapeMismatch", "{version} {shape:?}: {error}");
        assert!(error.to_string().contains(name), "{version} {shape:?}: {error}");
    }
}

#[test]
fn m3_head_count_of_zero() {
    let mut infos = model(Version::V7);
    find(&mut infos, "blocks.0.att.r_k").shape = vec![0, 8];
    assert_refused(&infos, "BadShape", "blocks.0.att.r_k");
}

#[test]
fn m3_ranks_that_differ_between_factors_or_layers() {
    for name in ["att.w2", "att.a2", "att.g2", "att.v2"] {
        let mut infos = model(Version::V7);
        find(&mut infos, &format!("blocks.1.{name}")).shape[0] += 1;
        assert_refused(&infos, "ShapeMismatch", &format!("blocks.1.{name}"));
    }
    let mut infos = model(Version::V7);
    find(&mut infos, "blocks.1.att.g1").shape[1] += 2;
    find(&mut infos, "blocks.1.att.g2").shape[0] += 2;
    assert_refused(&infos, "ShapeMismatch", "blocks.1.att.g1");
}

#[test]
fn m3_attention_width_other_than_the_channels() {
    let mut infos = model(Version::V4);
    for layer in 0..2 {
        for name in ["key", "value", "receptance"] {
            find(&mut infos, &format!("blocks.{layer}.att.{name}.weight")).shape[0] = 64;
        }
        find(&mut infos, &format!("blocks.{layer}.att.output.weight")).shape[1] = 64;
    }
    assert_refused(&infos, "ShapeMismatch", "[A, C]");
}

#[test]
fn m5_names_that_ggml_cannot_store() {
    assert_eq!(GGML_NAME_LIMIT, 63);
    assert!(check_name_for_ggml(&"x".repeat(63)).is_ok());
    let error = check_name_for_ggml(&"x".repeat(64)).unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains("64 bytes")), ("NameTooLong", true));
    // Bytes count, not characters.
    assert_eq!(check_name_for_ggml(&"\u{e9}".repeat(32)).unwrap_err().kind(), "NameTooLong");
    for name in ["a\nb", "a\0b", "\u{7f}", "\u{85}", ""] {
        assert_eq!(check_name_for_ggml(name).unwrap_err().kind(), "BadName", "{name:?}");
    }
}

#[test]
fn t6_integer_weights() {
    for encoding in [Encoding::I64, Encoding::I32, Encoding::I16, Encoding::I8, Encoding::U8] {
        let mut infos = model(Version::V6);
        find(&mut infos, "blocks.1.att.key.weight").encoding = encoding;
        assert_refused(&infos, "UnsupportedDtype", "blocks.1.att.key.weight");
    }
    for encoding in [Encoding::F64, Encoding::F32, Encoding::F16, Encoding::BF16] {
        let mut infos = model(Version::V6);
        find(&mut infos, "blocks.1.att.key.weight").encoding = encoding;
        assert!(describe(&infos).is_ok(), "{encoding}");
    }
}

#[test]
fn t7_shapes_that_no_weight_has() {
    for version in Version::ALL {
        let infos = model(version);
        for tensor in 0..infos.len() {
            let mut shapes = vec![vec![], vec![0], vec![1 << 40, 1 << 40]];
            for dimension in 0..infos[tensor].shape.len() {
                let mut shape = infos[tensor].shape.clone();
                shape[dimension] = 0;
                shapes.push(shape);
            }
            for shape in shapes {
                let mut changed = infos.clone();
                changed[tensor].shape = shape;
                let error = refused(&changed);
                assert!(matches!(&error, ModelError::BadShape { name, .. } if *name == infos[tensor].name), "{error}");
            }
        }
    }
}

#[test]
fn t7_value_residual_of_layer_0_must_be_plausible_though_unused() {
    let options = Options { value_in_layer_0: true, ..Options::default() };
    let mut infos = model_with(Version::V7, &Sizes::TINY, &options);
    find(&mut infos, "blocks.0.att.v0").shape = vec![0];
    assert_refused(&infos, "BadShape", "blocks.0.att.v0");
    find(&mut infos, "blocks.0.att.v0").shape = vec![1, 1, 31];
    assert_refused(&infos, "ShapeMismatch", "blocks.0.att.v0");
}

#[test]
fn sizes_beyond_this_machine_do_not_overflow() {
    let mut infos = model(Version::V7);
    let huge = u64::MAX / 64;
    find(&mut infos, "emb.weight").shape[0] = huge;
    find(&mut infos, "head.weight").shape[0] = huge;
    // 32 * (2^64 / 64) elements fit in 64 bits for each tensor, their sum and their bytes do not.
    let description = describe(&infos).unwrap();
    assert_eq!(description.hyperparameters.vocabulary as u64, huge);
    assert_eq!(description.parameters(), u64::MAX);
}

#[test]
fn not_rwkv_at_all() {
    assert_refused(&[], "NotRwkv", "0 tensor(s)");
    assert_refused(&[info("fc1.weight", &[3, 3])], "NotRwkv", "'fc1.weight'");
    assert_refused(&[info("emb.weight", &[40, 32]), info("head.weight", &[40, 32])], "NotRwkv", "'emb.weight'");
    assert_refused(&[info("blocks.0.att.key.weight", &[32, 32])], "NotRwkv", "blocks.0.att.key.weight");
}
