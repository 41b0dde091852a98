//! What trainers put into files beside weights: values, types, objects, tensors of other devices. Each is read as what it is, or named.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use rwkv_forge_checkpoint::{Limits, Purpose, Refusal, open, open_at, open_for};
use rwkv_forge_io::Backend;
use rwkv_forge_tensor::Diagnostic;
use rwkv_forge_testkit::pickle::{Pickle, Tensor};
use rwkv_forge_testkit::zip::Archive;

use crate::common::{FIRST, TempFile, bytes_of, kind_at_open, with_pickle};

fn tensor(name: &str) -> Tensor {
    Tensor::dense(name, "FloatStorage", 0, &[2, 3])
}

/// `{extra: ..., model: {w: tensor}}` for what `extra` puts on the stack.
fn beside(protocol: u8, extra: impl FnOnce(Pickle) -> Pickle) -> Vec<u8> {
    let pickle = extra(Pickle::new(protocol).raw(b"}(").text("extra")).text("model").raw(b"}(").item(&tensor("w")).raw(b"uu");
    with_pickle(&pickle.stop(), &bytes_of(&FIRST))
}

fn notes(file: &[u8]) -> String {
    let file = TempFile::new(file);
    open(&file.0, &Limits::default()).unwrap().notes().join("\n")
}

fn message(file: &[u8]) -> String {
    let file = TempFile::new(file);
    open(&file.0, &Limits::default()).map(|_| ()).unwrap_err().to_string()
}

/// What makes the values that a dictionary lacks is named in the file and never called, in the words of protocol 2 and of later ones.
#[test]
fn p17_what_makes_missing_values_is_never_called() {
    let factory = |module: &'static str, name: &'static str| {
        move |p: Pickle| p.global("collections", "defaultdict").global(module, name).raw(b"\x85R").raw(b"(").text("a").raw(b"K\x01u")
    };
    for (module, name, said) in [
        ("__builtin__", "int", "builtins.int"),
        ("__builtin__", "long", "builtins.int"),
        ("builtins", "int", "builtins.int"),
        ("__builtin__", "unicode", "builtins.str"),
        ("__builtin__", "str", "builtins.str"),
        ("__builtin__", "bytes", "builtins.bytes"),
        ("__builtin__", "dict", "builtins.dict"),
        ("__builtin__", "list", "builtins.list"),
        ("builtins", "float", "builtins.float"),
        ("collections", "deque", "collections.deque"),
        ("collections", "defaultdict", "collections.defaultdict"),
        ("argparse", "Namespace", "argparse.Namespace"),
        ("collections", "OrderedDict", "collections.defaultdict"),
        ("collections", "Counter", "collections.defaultdict"),
        ("__builtin__", "set", "collections.defaultdict"),
        ("builtins", "bytearray", "collections.defaultdict"),
    ] {
        for protocol in [2, 4] {
            let notes = notes(&beside(protocol, factory(module, name)));
            assert!(notes.contains(said), "{module}.{name}: {notes}");
        }
        // Nothing is called but what makes values.
        if said.starts_with("builtins.") {
            assert_eq!(kind_at_open(&beside(2, |p| p.global(module, name).raw(b")R"))), "BadRebuild", "{module}.{name}");
        }
    }
    for (module, name) in [
        ("__builtin__", "eval"),
        ("os", "system"),
        ("functools", "partial"),
        ("__main__", "f"),
        ("builtins", "getattr"),
        ("builtins", "long"),
    ] {
        let file = beside(2, factory(module, name));
        assert_eq!(kind_at_open(&file), "ForbiddenGlobal", "{module}.{name}");
        assert!(message(&file).contains(&format!("`{module}.{name}`")));
    }
    // What is no type at all makes nothing, and neither does a function of torch's.
    for not_a_type in [&b"ctorch._utils\n_rebuild_tensor_v2\n"[..], b"K\x01", b"ctorch\nSize\n", b"ctorch\nfloat32\n"] {
        let file = beside(2, |p| p.global("collections", "defaultdict").raw(not_a_type).raw(b"\x85R"));
        assert_eq!(kind_at_open(&file), "BadRebuild", "{}", not_a_type.escape_ascii());
    }
}

/// The list of torch's weights_only is closed; what it has beyond tensors is inert here.
#[test]
fn types_and_constants_of_torch_are_admitted() {
    for (module, name) in [
        ("torch", "per_tensor_symmetric"),
        ("torch", "per_channel_symmetric"),
        ("torch", "FloatTensor"),
        ("torch.cuda", "HalfTensor"),
        ("torch.sparse", "LongTensor"),
        ("torch", "uint4"),
        ("torch", "int1"),
        ("torch", "bits2x4"),
        ("torch", "float8_e8m0fnu"),
    ] {
        assert_eq!(kind_at_open(&beside(2, |p| p.global(module, name))), "nothing", "{module}.{name}");
    }
    for (module, name) in [("torch", "load"), ("torch.cuda", "empty_cache"), ("torch.cuda", "Tensor"), ("torch", "uint8Tensor")] {
        assert_eq!(kind_at_open(&beside(2, |p| p.global(module, name))), "ForbiddenGlobal", "{module}.{name}");
    }
}

/// A tensor of a device that torch cannot store from is that of the CPU in it.
#[test]
fn tensors_of_other_devices_are_those_of_the_cpu() {
    let with = |dtype: &str, rest: &[u8]| {
        let item = Pickle::default().item(&tensor("w")).unfinished();
        // A name, and then what makes the tensor.
        let (name, made) = item.split_at(1 + 4 + 1);
        let pickle = Pickle::new(2).raw(b"}(").raw(name).global("torch._utils", "_rebuild_device_tensor_from_cpu_tensor");
        let pickle = pickle.raw(b"(").raw(made).global("torch", dtype).raw(rest).raw(b"tRu").stop();
        with_pickle(&pickle, &bytes_of(&FIRST))
    };
    let device = Pickle::default().text("xla:0").raw(b"\x89").unfinished();
    assert_eq!(kind_at_open(&with("float32", &device)), "nothing");
    let file = with("bfloat16", &device);
    assert_eq!(kind_at_open(&file), "UnsupportedDtype");
    assert!(message(&file).contains("save it from the CPU"), "{}", message(&file));
    assert_eq!(kind_at_open(&with("float32", b"K\x00\x89")), "BadRebuild");
    assert_eq!(kind_at_open(&with("Size", &device)), "BadRebuild");
}

/// Objects of other libraries are refused by name, with what makes a readable file.
#[test]
fn objects_of_known_libraries_say_what_to_do() {
    for (module, name, says) in [
        ("torch.nn.modules.linear", "Linear", ".state_dict(), OUT)"),
        ("torch.nn.modules.container", "ModuleDict", ".state_dict(), OUT)"),
        ("torchao.dtypes.affine_quantized_tensor", "AffineQuantizedTensor", "dequantize it there"),
        ("bitsandbytes.nn.modules", "Params4bit", "dequantize it there"),
        ("torch.ao.nn.quantized.modules.linear", "Linear", "dequantize it there"),
        ("torch.distributed.tensor", "DTensor", "dcp_to_torch"),
        ("omegaconf.dictconfig", "DictConfig", "model.state_dict()"),
        ("transformers.training_args", "TrainingArguments", "model.state_dict()"),
        ("__main__", "RWKV", "model.state_dict()"),
    ] {
        let file = beside(2, |p| p.global(module, name).raw(b")\x81"));
        let said = message(&file);
        assert_eq!(kind_at_open(&file), "ForbiddenGlobal", "{module}.{name}");
        assert!(said.contains(&format!("`{module}.{name}`")) && said.contains(says), "{said}");
    }
    // A tensor of a subclass is named by its class.
    let file = beside(2, |p| {
        let p = p.global("torch._tensor", "_rebuild_from_type_v2").raw(b"(").global("torch._utils", "_rebuild_wrapper_subclass");
        p.global("torchao.dtypes", "Quantized")
    });
    assert!(message(&file).contains("`torchao.dtypes.Quantized`"), "{}", message(&file));
}

/// Attributes of an object that only holds values are keys, at the root of a file and below it.
#[test]
fn attributes_are_keys() {
    let namespace = |p: Pickle| p.global("argparse", "Namespace").raw(b")\x81}(");
    let dict = |p: Pickle, key: &str| p.text(key).raw(b"}(").item(&tensor("a.weight")).raw(b"u");
    let opened = |pickle: Vec<u8>, key: Option<&str>| {
        let file = TempFile::new(&with_pickle(&pickle, &bytes_of(&FIRST)));
        let opened = open_at(&file.0, key, &Limits::default(), Backend::default());
        opened.map(|(_, source)| source.tensors().len()).map_err(|error| (error.kind(), error.to_string()))
    };
    // A trainer's arguments with the weights among them.
    let root = || dict(namespace(Pickle::new(2)), "model").text("lr").int(3).raw(b"ub").stop();
    assert_eq!(opened(root(), None), Ok(1));
    assert_eq!(opened(root(), Some("model")), Ok(1));
    let (kind, said) = opened(root(), Some("other")).unwrap_err();
    assert!(kind == "NoSuchKey" && said.contains("--key: `model` (1 tensor(s))"), "{said}");
    let two = || dict(dict(namespace(Pickle::new(2)), "model"), "ema").raw(b"ub").stop();
    let (kind, said) = opened(two(), None).unwrap_err();
    assert!(kind == "NotAStateDict" && said.contains("--key: `model` (1 tensor(s)), `ema` (1 tensor(s))"), "{said}");
    assert_eq!(opened(two(), Some("ema")), Ok(1));
    // Below a key, beside another model.
    let below = || dict(namespace(dict(Pickle::new(2).raw(b"}("), "model").text("args")), "best").raw(b"ubu").stop();
    let (kind, said) = opened(below(), None).unwrap_err();
    assert!(kind == "NotAStateDict" && said.contains("`model` (1 tensor(s)), `args.best` (1 tensor(s))"), "{said}");
    assert_eq!(opened(below(), Some("args.best")), Ok(1));
    // The weights themselves as attributes, and an object that has two states, or a path.
    let own = namespace(Pickle::new(2)).item(&tensor("a.weight")).raw(b"ub").stop();
    assert_eq!(opened(own, None), Ok(1));
    for (odd, kind) in [
        (namespace(Pickle::new(2)).item(&tensor("a.weight")).raw(b"ub}b").stop(), "NotAStateDict"),
        (Pickle::new(2).global("pathlib", "PosixPath").text("a").raw(b"\x85R").stop(), "NotAStateDict"),
        (Pickle::new(2).raw(b"](").int(1).raw(b"e").stop(), "NotAStateDict"),
    ] {
        let (found, said) = opened(odd, None).unwrap_err();
        assert!(found == kind && said.contains("save its weights alone"), "{said}");
    }
}

/// A key that is meant for something else in the same file is passed over, and said to be no such thing where it is the only one.
#[test]
fn a_key_for_something_else_names_no_adapter_and_no_state() {
    let dict = |p: Pickle, key: &str, name: &str, at: usize| {
        p.text(key).raw(b"}(").item(&Tensor::dense(name, "FloatStorage", at, &[2, 3])).raw(b"u")
    };
    let file = |parts: &[(&str, &str)]| {
        let pickle = parts.iter().enumerate().fold(Pickle::new(2).raw(b"}("), |p, (at, (key, name))| dict(p, key, name, at));
        let storages: Vec<Vec<u8>> = parts.iter().map(|_| bytes_of(&FIRST)).collect();
        let storages: Vec<&[u8]> = storages.iter().map(Vec::as_slice).collect();
        TempFile::new(&Archive::torch(&pickle.raw(b"u").stop(), &storages).build().bytes)
    };
    let opened = |file: &TempFile, key: &str, purpose| {
        let opened = open_for(&file.0, Some(key), purpose, &Limits::default(), Backend::default());
        let name = |source: &dyn rwkv_forge_tensor::TensorSource| source.tensors().first().unwrap().name.clone();
        opened.map(|(_, source)| name(source.as_ref())).map_err(|error| (error.kind(), error.to_string()))
    };
    let (weight, pair, state) = ("emb.weight", "blocks.0.att.key.lora_A", "blocks.0.att.time_state");
    let all = file(&[("model", weight), ("lora", pair), ("tuned", state)]);
    assert_eq!(opened(&all, "lora", Purpose::Adapter).unwrap(), pair);
    assert_eq!(opened(&all, "tuned", Purpose::State).unwrap(), state);
    for (key, purpose, what, listed) in [
        ("model", Purpose::Adapter, "no adapter", "--key: `lora` (1 tensor(s))"),
        ("tuned", Purpose::Adapter, "no adapter", "--key: `lora` (1 tensor(s))"),
        ("lora", Purpose::State, "no initial state", "--key: `tuned` (1 tensor(s))"),
    ] {
        let (kind, said) = opened(&all, key, purpose).unwrap_err();
        assert!(kind == "NoSuchKey" && said.contains(what) && said.ends_with(listed), "{said}");
    }
    // Where nothing else would do, the key is taken at its word: tensors that were trained in full have no other names than a model's.
    let full = file(&[("full", "blocks.0.ln1.weight"), ("model", weight)]);
    assert_eq!(opened(&full, "full", Purpose::Adapter).unwrap(), "blocks.0.ln1.weight");
    // A state among weights is one.
    let inside = file(&[("model", "blocks.0.att.time_state"), ("tuned", state)]);
    assert_eq!(opened(&inside, "model", Purpose::State).unwrap(), state);
}

/// Whatever is wrong with a file, its message ends in something that a user can do.
#[test]
fn p16_every_refusal_says_what_to_do() {
    let long = |p: Pickle| p.text(&"x".repeat(65_537));
    let deep = |p: Pickle| p.raw(b")").repeat(b"\x85", 40);
    for (file, kind) in [
        (beside(2, long), Refusal::TooLarge),
        (beside(2, deep), Refusal::TooDeep),
        (beside(2, |p| p.raw(b"]q\x00h\x00a")), Refusal::Cycle),
        (beside(2, |p| p.raw(b"h\x07")), Refusal::BadMemo),
        (beside(2, |p| p.global("torch", "Size").raw(b"NR")), Refusal::BadRebuild),
    ] {
        let said = message(&file);
        assert_eq!(kind_at_open(&file), kind.name());
        assert!(said.contains("save its weights alone: torch.save(torch.load(FILE)"), "{said}");
    }
    let mut cut = beside(2, |p| p.int(1));
    cut.truncate(cut.len() - 30);
    assert!(message(&cut).contains("download it again"), "{}", message(&cut));
    // What is said of the fault itself is not said again.
    let said = message(&beside(2, |p| p.global("os", "system")));
    assert!(said.contains("save the weights alone") && !said.contains(Refusal::ForbiddenGlobal.next_step()), "{said}");
}

/// What an optimizer keeps is no model, and is called what it is.
#[test]
fn optimizers_are_named() {
    let states = |p: Pickle| p.text("state").raw(b"}(K\x00}(").item(&tensor("exp_avg")).raw(b"uu");
    let groups = |p: Pickle| p.text("param_groups").raw(b"]}(").text("lr").int(1).raw(b"ua");
    for pickle in [groups(states(Pickle::new(2).raw(b"}("))), states(groups(Pickle::new(2).raw(b"}(")))] {
        let said = message(&with_pickle(&pickle.raw(b"u").stop(), &bytes_of(&FIRST)));
        assert!(said.contains("what an optimizer keeps") && said.contains("give the file of the model"), "{said}");
    }
}
