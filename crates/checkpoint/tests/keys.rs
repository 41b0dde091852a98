//! Files of torch.save with several state dicts, of which a key names one; and heads that are the embedding.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use rwkv_forge_checkpoint::{Limits, Purpose, Safetensors, Torch, open, open_at, open_for};
use rwkv_forge_container::{Format, OpenOptions, Place, Registry};
use rwkv_forge_io::Backend;
use rwkv_forge_tensor::{BoxError, Diagnostic, TensorSource};
use rwkv_forge_testkit::pickle::{Pickle, Tensor, state_dict};
use rwkv_forge_testkit::zip::Archive;

use crate::common::{TempFile, kind_at_open};

/// `{name: {tensors of four floats}}` for each; a name with a slash is `{a: {b: ...}}`. Values count up from 1.
fn nested(dicts: &[(&str, &[&str])], beside: &[&str]) -> TempFile {
    let mut key = 0;
    let mut pickle = Pickle::new(2).raw(b"}(");
    let dict = |pickle: Pickle, tensors: &[&str], key: &mut usize| {
        let pickle = tensors.iter().fold(pickle.raw(b"}("), |pickle, name| {
            *key += 1;
            pickle.item(&Tensor::dense(name, "FloatStorage", *key - 1, &[4]))
        });
        pickle.raw(b"u")
    };
    for (name, tensors) in dicts {
        pickle = match name.split_once('/') {
            None => dict(pickle.text(name), tensors, &mut key),
            Some((outer, inner)) => dict(pickle.text(outer).raw(b"}(").text(inner), tensors, &mut key).raw(b"u"),
        };
    }
    pickle = beside.iter().fold(pickle, |pickle, name| pickle.text(name).int(7));
    let storages: Vec<Vec<u8>> = (0u8..).take(key).map(|index| f32::from(index + 1).to_le_bytes().repeat(4)).collect();
    let storages: Vec<&[u8]> = storages.iter().map(Vec::as_slice).collect();
    TempFile::new(&Archive::torch(&pickle.raw(b"u").stop(), &storages).build().bytes)
}

type Found = Result<(Vec<(String, f32)>, Vec<String>), (&'static str, String)>;

/// Names and first values of the tensors under a key, and notes.
fn under(file: &TempFile, key: Option<&str>) -> Found {
    let (_, source) = open_at(&file.0, key, &Limits::default(), Backend::default()).map_err(|error| (error.kind(), error.to_string()))?;
    Ok((values(source.as_ref()), source.notes().to_vec()))
}

fn values(source: &dyn TensorSource) -> Vec<(String, f32)> {
    let value = |index: usize| {
        let mut bytes = [0; 4];
        source.read_at(index, 0, &mut bytes).unwrap();
        f32::from_le_bytes(bytes)
    };
    source.tensors().iter().enumerate().map(|(index, info)| (info.name.clone(), value(index))).collect()
}

fn one(name: &str, value: f32) -> Vec<(String, f32)> {
    vec![(name.to_owned(), value)]
}

/// The keys that a refusal lists.
fn listed(said: &str) -> Vec<&str> {
    said.split("--key: ").nth(1).unwrap_or_default().split('`').skip(1).step_by(2).collect()
}

#[test]
fn each_key_that_a_refusal_lists_takes_its_own() {
    for (dicts, keys) in [
        (&[("model", &["a"][..]), ("ema", &["a"])][..], &["model", "ema"][..]),
        (&[("generator", &["a"]), ("critic", &["a"])], &["generator", "critic"]),
        (&[("model", &["a"]), ("model_ema", &["a"]), ("optimizer", &["a"])], &["model", "model_ema"]),
        (&[("weights", &["a"])], &["weights"]),
        (&[("generator/ema", &["a"]), ("critic/ema", &["a"])], &["generator.ema", "critic.ema"]),
        (&[("gan/state_dict", &["a"]), ("judge", &["a"])], &["judge", "gan.state_dict"]),
    ] {
        let file = nested(dicts, &["epoch"]);
        let (kind, said) = under(&file, None).unwrap_err();
        assert_eq!((kind, listed(&said)), ("NotAStateDict", keys.to_vec()), "{said}");
        for key in listed(&said) {
            let (found, notes) = under(&file, Some(key)).unwrap();
            let position = dicts.iter().position(|(name, _)| name.replace('/', ".") == key).unwrap();
            assert_eq!(found, one("a", position as f32 + 1.0), "{key}");
            assert!(notes[0].contains(&format!("`{key}`")), "{notes:?}");
            assert_eq!(keys.len() > 1, notes.iter().any(|note| note.contains("not used") && note.contains("other")), "{notes:?}");
        }
    }
    // Who cannot give a key is not told to.
    let file = nested(&[("model", &["a"]), ("ema", &["a"])], &[]);
    let said = open(&file.0, &Limits::default()).map(|_| ()).unwrap_err().to_string();
    assert!(said.contains("`ema` (1 tensor(s))") && said.contains("save the one that is meant alone") && !said.contains("--key"), "{said}");
}

/// What has no names of modules is no model beside one that has, and nobody is asked for a key.
#[test]
fn what_has_no_names_of_modules_is_no_candidate() {
    for (dicts, rivals) in [
        (&[("model_state_dict", &["a.weight"][..]), ("loss", &["train", "test"])][..], "`loss`"),
        (&[("model", &["blocks.0.w"]), ("history/epochs", &["first"]), ("metrics", &["m"])], "`history`, `metrics`"),
    ] {
        let (found, notes) = under(&nested(dicts, &["epoch"]), None).unwrap();
        assert_eq!(found, one(dicts[0].1[0], 1.0));
        assert!(notes.iter().any(|note| note.ends_with(&format!("no modules' were left out: {rivals}"))), "{notes:?}");
    }
    // Where several have such names, those alone are listed.
    let file = nested(&[("model", &["a.weight"]), ("ema", &["a.weight"]), ("loss", &["train"])], &[]);
    let (kind, said) = under(&file, None).unwrap_err();
    assert_eq!((kind, listed(&said)), ("NotAStateDict", vec!["model", "ema"]), "{said}");
    // An empty dictionary under a usual key is in nobody's way.
    let (found, notes) = under(&nested(&[("model", &[]), ("state_dict", &["a.weight"])], &[]), None).unwrap();
    assert_eq!(found, one("a.weight", 1.0));
    assert!(notes.iter().any(|note| note.contains("without tensors") && note.contains("`model`")), "{notes:?}");
}

/// Whoever looks for an adapter or a state takes the only one there is.
#[test]
fn the_only_state_dict_of_use_is_taken() {
    let opened = |file: &TempFile, purpose| {
        let opened = open_for(&file.0, None, purpose, &Limits::default(), Backend::default());
        opened.map(|(_, source)| (values(source.as_ref()), source.notes().join("\n"))).map_err(|error| error.kind())
    };
    let weights: &[&str] = &["emb.weight", "blocks.0.att.key.weight"];
    let pair: &[&str] = &["blocks.0.att.key.lora_A", "blocks.0.att.key.lora_B"];
    let state: &[&str] = &["blocks.0.att.time_state"];
    let file = nested(&[("model", weights), ("lora", pair), ("tuned/state", state)], &["epoch"]);
    let (found, notes) = opened(&file, Purpose::Adapter).unwrap();
    assert!(found.len() == 2 && found[0] == (pair[0].to_owned(), 3.0), "{found:?}");
    assert!(notes.contains("`lora` is taken, the only one that holds an adapter") && notes.contains("`tuned.state`"), "{notes}");
    let (found, notes) = opened(&file, Purpose::State).unwrap();
    assert_eq!(found, one(state[0], 5.0));
    assert!(notes.contains("`tuned.state` is taken, the only one that holds an initial state"), "{notes}");
    assert_eq!(opened(&file, Purpose::Weights).map(drop), Err("NotAStateDict"));
    // A state that was tuned with an adapter, in the words of another trainer.
    let file = nested(&[("model", weights), ("tuned", &["model.layers.0.linear_attn.initial_wkv_state", "x.lora_A.default.weight"])], &[]);
    assert_eq!(opened(&file, Purpose::State).unwrap().0.len(), 2);
    // Two of a kind must be told apart by whoever knows.
    let file = nested(&[("mean", state), ("last", state)], &[]);
    assert_eq!(opened(&file, Purpose::State).map(drop), Err("NotAStateDict"));
    let taken = open_for(&file.0, Some("last"), Purpose::State, &Limits::default(), Backend::default()).unwrap();
    assert_eq!(values(taken.1.as_ref()), one(state[0], 2.0));
}

#[test]
fn what_stands_under_a_key_is_unwrapped_too() {
    let file = nested(&[("a/state_dict", &["w"]), ("b/state_dict", &["w"])], &[]);
    assert_eq!(under(&file, Some("b")).unwrap().0, one("w", 2.0));
    assert_eq!(under(&file, Some("b.state_dict")).unwrap().0, one("w", 2.0));
    // A key with a dot of its own stands before one in another.
    let file = nested(&[("a.b", &["w"]), ("a/b", &["w"])], &[]);
    assert_eq!(under(&file, Some("a.b")).unwrap().0, one("w", 1.0));
    // Several in what the key names: listed with the whole way to each.
    let inner = |pickle: Pickle, name: &str, key: usize| {
        pickle.text(name).raw(b"}(").item(&Tensor::dense("w", "FloatStorage", key, &[4])).raw(b"u")
    };
    let pickle = inner(inner(Pickle::new(2).raw(b"}(").text("out").raw(b"}("), "x", 0), "y", 1).raw(b"uu").stop();
    let file = TempFile::new(&Archive::torch(&pickle, &[&[0; 16], &1f32.to_le_bytes().repeat(4)]).build().bytes);
    let (kind, said) = under(&file, Some("out")).unwrap_err();
    assert_eq!((kind, listed(&said)), ("NotAStateDict", vec!["out.x", "out.y"]), "{said}");
    assert_eq!(under(&file, Some("out.y")).unwrap().0, one("w", 1.0));
}

#[test]
fn p16_a_key_that_is_not_there_is_an_error_that_says_what_is() {
    let file = nested(&[("model", &["a"]), ("ema", &["a"])], &["epoch"]);
    for key in ["other", "model.ema", "", ".", "model.", "epoch", "model.a", "\u{1b}[2J"] {
        let (kind, said) = under(&file, Some(key)).unwrap_err();
        assert_eq!((kind, listed(&said)), ("NoSuchKey", vec!["model", "ema"]), "{key}: {said}");
        assert!(!said.contains('\u{1b}'), "{said}");
    }
    let plain = TempFile::new(&Archive::torch(&state_dict(&[Tensor::dense("a", "FloatStorage", 0, &[4])]), &[&[0; 16]]).build().bytes);
    let (kind, said) = under(&plain, Some("ema")).unwrap_err();
    assert!(kind == "NoSuchKey" && said.contains("leave --key out"), "{said}");
    // What it says works.
    assert!(under(&plain, None).is_ok());
    let class = open_at(&plain.0, Some("ema"), &Limits::default(), Backend::default()).map(|_| ()).unwrap_err().class();
    assert_eq!(class, rwkv_forge_tensor::Class::Usage);
    // Other formats have none.
    let file = TempFile::new(b"\x02\0\0\0\0\0\0\0{}");
    let formats: [&dyn Format; 2] = [&Torch, &Safetensors];
    let registry = Registry { formats: &formats, namings: &[] };
    let opened: Result<_, BoxError> = registry.open(&Place::of(&file.0).under("ema"), OpenOptions::default());
    let error = opened.map(|_| ()).unwrap_err();
    assert!(error.kind() == "NoSuchKey" && error.to_string().contains("leave --key out"), "{error}");
    assert_eq!(open_at(&file.0, Some("ema"), &Limits::default(), Backend::default()).map(|_| ()).unwrap_err().kind(), "NoSuchKey");
}

/// `{a: {b: {c: ...}}}` with the same dictionary many times: the search ends.
#[test]
fn a_search_for_keys_is_bounded() {
    let mut pickle = Pickle::new(2).raw(b"}q\x00").raw(b"0").raw(b"}(");
    for index in 0..5000 {
        pickle = pickle.text(&format!("k{index}")).raw(b"}").text("x").raw(b"h\x00s");
    }
    let file = TempFile::new(&Archive::torch(&pickle.raw(b"u").stop(), &[]).build().bytes);
    let begun = std::time::Instant::now();
    assert_eq!(under(&file, None).unwrap_err().0, "NotAStateDict");
    assert_eq!(under(&file, Some("k1.x.y.z")).unwrap_err().0, "NoSuchKey");
    assert!(begun.elapsed().as_secs() < 10);
}

#[test]
fn a_head_that_is_the_embedding_is_read_twice() {
    let view = |name: &str, key: usize, size: &[i64]| Tensor::dense(name, "FloatStorage", key, size);
    let storage: Vec<u8> = (0..6u8).flat_map(|value| f32::from(value).to_le_bytes()).collect();
    let file = |tensors: &[Tensor]| Archive::torch(&state_dict(tensors), &[&storage, &storage]).build().bytes;
    for (embedding, head) in [
        ("emb.weight", "head.weight"),
        ("model.embeddings.weight", "lm_head.weight"),
        ("model.llm.model.embed_tokens.weight", "model.llm.lm_head.weight"),
    ] {
        let file = TempFile::new(&file(&[view(embedding, 0, &[3, 2]), view("x", 1, &[6]), view(head, 0, &[3, 2])]));
        let source = open(&file.0, &Limits::default()).unwrap();
        let read = |index: usize| {
            let mut bytes = [0; 24];
            source.read_at(index, 0, &mut bytes).unwrap();
            bytes
        };
        assert!(read(0) == storage[..] && read(2) == storage[..], "{head}");
        let notes = source.notes().join("\n");
        assert!(notes.contains(&format!("`{head}` and `{embedding}` are one tensor")), "{notes}");
        source.check_integrity(&|_| ()).unwrap();
    }
    // Only these two, only whole and only once: everything else that shares elements gives more than there is.
    let shifted = Tensor { offset: 2, numel: 6, ..view("head.weight", 0, &[2, 2]) };
    for tensors in [
        &[view("emb.weight", 0, &[3, 2]), view("head.weight", 0, &[2, 3])][..],
        &[view("emb.weight", 0, &[3, 2]), view("blocks.0.att.key.weight", 0, &[3, 2])],
        &[view("emb.weight", 0, &[3, 2]), view("head.weight", 0, &[3, 2]), view("lm_head.weight", 0, &[3, 2])],
        &[view("emb.weight", 0, &[3, 2]), shifted],
    ] {
        assert_eq!(kind_at_open(&file(tensors)), "AliasedTensors", "{tensors:?}");
    }
}
