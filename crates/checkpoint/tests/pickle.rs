//! The pickle machine: P1 to P15 and P17 of `docs/bad-inputs.md`, each broken on its own.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may fail loudly")]

use crate::common;

use crate::common::{FIRST, bytes_of, kind_at_open, read_all, with_pickle};
use rwkv_forge_checkpoint::{Limits, globals};
use rwkv_forge_testkit::pickle::{Pickle, Tensor, state_dict};
use rwkv_forge_testkit::zip::Archive;

/// The kind of error of an archive with this pickle and one storage of 24 bytes.
fn kind(pickle: Vec<u8>) -> &'static str {
    kind_at_open(&with_pickle(&pickle, &bytes_of(&FIRST)))
}

fn message(pickle: &[u8]) -> String {
    read_all(&with_pickle(pickle, &bytes_of(&FIRST))).unwrap_err().to_string()
}

fn tensor() -> Tensor {
    Tensor::dense("w", "FloatStorage", 0, &[2, 3])
}

/// A good state dict with something put before its end.
fn good_then(extra: impl FnOnce(Pickle) -> Pickle) -> Vec<u8> {
    extra(Pickle::new(2).raw(b"}(").item(&tensor()).raw(b"u")).stop()
}

#[test]
fn good_pickles_read() {
    let expected = read_all(&with_pickle(&state_dict(&[tensor()]), &bytes_of(&FIRST))).unwrap();
    assert_eq!(expected, [("w".to_owned(), bytes_of(&FIRST))]);
    // Protocols 2 to 5, OrderedDict with _metadata, unused values that are popped.
    for protocol in 2..=5 {
        let metadata = |p: Pickle| p.raw(b"}").text("_metadata").ordered_dict().raw(b"sb");
        let pickle = metadata(Pickle::new(protocol).ordered_dict().raw(b"(").item(&tensor()).raw(b"u")).raw(b"N0(K\x01K\x021").stop();
        assert_eq!(read_all(&with_pickle(&pickle, &bytes_of(&FIRST))).unwrap(), expected, "protocol {protocol}");
    }
}

#[test]
fn what_torch_admits_beside_weights_is_admitted() {
    let set = |p: Pickle| p.global("__builtin__", "set").raw(b"]\x85R0").global("builtins", "set").raw(b")R0");
    let device = |p: Pickle| p.global("torch", "device").text("cuda").raw(b"K\x00\x86R0");
    let encoded = |p: Pickle| p.global("_codecs", "encode").text("a").text("latin1").raw(b"\x86R0");
    assert_eq!(kind(good_then(|p| encoded(device(set(p))))), "nothing");
    let counter = |p: Pickle| p.global("collections", "Counter").raw(b"}K\x05K\x01s\x85R0").global("collections", "Counter").raw(b")R0");
    let bytes = |p: Pickle| p.global("builtins", "bytearray").raw(b"C\x01a\x85R0").global("builtins", "bytearray").raw(b")R0");
    let complex = |p: Pickle| p.global("builtins", "complex").raw(b"G\0\0\0\0\0\0\0\0G\0\0\0\0\0\0\0\0\x86R0");
    let own_set = |p: Pickle| p.raw(b"\x8f(K\x01K\x02\x900");
    assert_eq!(kind(good_then(|p| own_set(complex(bytes(counter(p)))))), "nothing");
    for call in [&b"K\x01\x85R0"[..], b"N\x85R0"] {
        for name in ["bytearray", "complex"] {
            assert_eq!(kind(good_then(|p| p.global("builtins", name).raw(call))), "BadRebuild");
        }
        assert_eq!(kind(good_then(|p| p.global("collections", "Counter").raw(call))), "BadRebuild");
    }
    // Nothing else may be called with their names.
    assert_eq!(kind(good_then(|p| p.global("builtins", "set").raw(b"K\x01\x85R0"))), "BadRebuild");
    assert_eq!(kind(good_then(|p| p.global("torch", "device").raw(b"N\x85R0"))), "BadRebuild");
}

/// What pickle.dumps of Python 3.11 writes for each, but for its first two bytes and the last.
const HOLDERS: [(&str, &[u8], &[u8]); 8] = [
    (
        "argparse.Namespace, pathlib.PurePosixPath",
        b"cargparse\nNamespace\nq\x00)\x81q\x01}q\x02(X\x02\x00\x00\x00lrq\x03K\x01X\x03\x00\x00\x00outq\x04cpathlib\nPurePosixPath\nq\x05X\x01\x00\x00\x00/q\x06X\x01\x00\x00\x00aq\x07X\x01\x00\x00\x00bq\x08\x87q\tRq\nub",
        b"\x8c\x08argparse\x94\x8c\tNamespace\x94\x93\x94)\x81\x94}\x94(\x8c\x02lr\x94K\x01\x8c\x03out\x94\x8c\x07pathlib\x94\x8c\rPurePosixPath\x94\x93\x94\x8c\x01/\x94\x8c\x01a\x94\x8c\x01b\x94\x87\x94R\x94ub",
    ),
    (
        "types.SimpleNamespace",
        b"ctypes\nSimpleNamespace\nq\x00)Rq\x01}q\x02X\x01\x00\x00\x00aq\x03K\x01sb",
        b"\x8c\x05types\x94\x8c\x0fSimpleNamespace\x94\x93\x94)R\x94}\x94\x8c\x01a\x94K\x01sb",
    ),
    (
        "pathlib.PosixPath",
        b"cpathlib\nPosixPath\nq\x00X\x01\x00\x00\x00aq\x01X\x01\x00\x00\x00bq\x02\x86q\x03Rq\x04",
        b"\x8c\x07pathlib\x94\x8c\tPosixPath\x94\x93\x94\x8c\x01a\x94\x8c\x01b\x94\x86\x94R\x94",
    ),
    (
        "builtins.list, collections.defaultdict",
        b"ccollections\ndefaultdict\nq\x00c__builtin__\nlist\nq\x01\x85q\x02Rq\x03X\x01\x00\x00\x00aq\x04]q\x05K\x01as",
        b"\x8c\x0bcollections\x94\x8c\x0bdefaultdict\x94\x93\x94\x8c\x08builtins\x94\x8c\x04list\x94\x93\x94\x85\x94R\x94\x8c\x01a\x94]\x94K\x01as",
    ),
    ("collections.defaultdict", b"ccollections\ndefaultdict\nq\x00)Rq\x01", b"\x8c\x0bcollections\x94\x8c\x0bdefaultdict\x94\x93\x94)R\x94"),
    (
        "collections.deque",
        b"ccollections\ndeque\nq\x00)K\x03\x86q\x01Rq\x02(K\x01K\x02e",
        b"\x8c\x0bcollections\x94\x8c\x05deque\x94\x93\x94)K\x03\x86\x94R\x94(K\x01K\x02e",
    ),
    ("collections.deque", b"ccollections\ndeque\nq\x00)Rq\x01K\x01a", b"\x8c\x0bcollections\x94\x8c\x05deque\x94\x93\x94)R\x94K\x01a"),
    (
        "pytorch_lightning.utilities.parsing.AttributeDict",
        b"cpytorch_lightning.utilities.parsing\nAttributeDict\nq\x00)\x81q\x01X\x02\x00\x00\x00lrq\x02K\x01s",
        b"\x8c#pytorch_lightning.utilities.parsing\x94\x8c\rAttributeDict\x94\x93\x94)\x81\x94\x8c\x02lr\x94K\x01s",
    ),
];

/// Plain holders of values are read, beside the weights of a trainer's file and below them, and are named; nothing else may be made of them.
#[test]
fn p17_holders_of_values_are_values() {
    let notes = |pickle: &[u8]| {
        let file = common::TempFile::new(&with_pickle(pickle, &bytes_of(&FIRST)));
        rwkv_forge_checkpoint::open(&file.0, &Limits::default()).unwrap().notes().join("\n")
    };
    for (names, two, four) in HOLDERS {
        for (protocol, bytes) in [(2, two), (4, four)] {
            let model = Pickle::new(protocol).raw(b"}(").text("args").raw(bytes).text("model").raw(b"}(").item(&tensor()).raw(b"uu").stop();
            let notes = notes(&model);
            assert!(notes.contains(&format!("weights_only=True: {names};")) && notes.contains("`args`"), "{protocol}: {notes}");
            // By itself it is no state dict, and no weight of one.
            assert_ne!(kind(Pickle::new(protocol).raw(bytes).stop()), "nothing", "{names}");
            assert_eq!(
                kind(good_then(|p| p.text("w2").raw(bytes).raw(b"s"))),
                if names.to_lowercase().contains("dict") { "NotAStateDict" } else { "UnsupportedEntry" }
            );
        }
    }
    // What holds tensors with the names of modules could be a model.
    let held = Pickle::new(2).raw(b"}(").text("model").raw(b"}(").item(&tensor()).raw(b"u").text("args").global("argparse", "Namespace");
    let held = held.raw(b")\x81}").text("ema").raw(b"}(").item(&Tensor::dense("a.weight", "FloatStorage", 0, &[2, 3])).raw(b"usbu").stop();
    assert_eq!(kind(held), "NotAStateDict");
    // Arguments that none of them takes, and calls of what is only a type.
    for (module, name, call) in [
        ("argparse", "Namespace", &b"K\x01\x85R0"[..]),
        ("types", "SimpleNamespace", b"}\x85R0"),
        ("collections", "defaultdict", b"K\x01\x85R0"),
        ("collections", "deque", b"(K\x01t\x85R0"),
        ("collections", "deque", b")NN\x87R0"),
        ("pathlib", "PosixPath", b"K\x01\x85R0"),
        ("builtins", "list", b")R0"),
        ("__builtin__", "int", b"K\x01\x85R0"),
        ("lightning.pytorch.utilities.parsing", "AttributeDict", b")R0"),
    ] {
        assert_eq!(kind(good_then(|p| p.global(module, name).raw(call))), "BadRebuild", "{module}.{name}");
    }
    let long = Pickle::default().repeat(b"X\x01\x00\x00\x00a", 65).unfinished();
    assert_eq!(kind(good_then(|p| p.global("pathlib", "PosixPath").raw(b"(").raw(&long).raw(b"tR0"))), "BadRebuild");
    for (module, name, new) in [
        ("argparse", "Namespace", &b"K\x01\x85\x81"[..]),
        ("pathlib", "PosixPath", b")\x81"),
        ("builtins", "list", b")\x81"),
        ("argparse", "Namespace", b")}\x92"),
    ] {
        assert_eq!(kind(good_then(|p| p.global(module, name).raw(new))), "ForbiddenGlobal", "{module}.{name}");
    }
    // One that is its own attribute, and one that is given attributes without end.
    assert_eq!(kind(Pickle::new(2).global("argparse", "Namespace").raw(b")\x81q\x00h\x00b").stop()), "Cycle");
    let many = Pickle::new(2).raw(b"}(").text("model").raw(b"}(").item(&tensor()).raw(b"u").text("args").global("argparse", "Namespace");
    assert_eq!(kind(many.raw(b")\x81").repeat(b"Nb", 2_000_000).raw(b"u").stop()), "nothing");
}

#[test]
fn p1_forbidden_globals() {
    let module_names = [
        ("os", "system"),
        ("builtins", "eval"),
        ("posix", "system"),
        ("torch", "load"),
        ("torch._utils", "_rebuild"),
        ("collections", "ChainMap"),
        ("pathlib", "Path"),
        ("argparse", "ArgumentParser"),
    ];
    for (module, name) in module_names {
        assert_eq!(kind(good_then(|p| p.global(module, name).raw(b"0"))), "ForbiddenGlobal", "{module}.{name}");
        assert_eq!(kind(good_then(|p| p.stack_global(module, name).raw(b"0"))), "ForbiddenGlobal", "{module}.{name}");
        assert!(message(&good_then(|p| p.global(module, name).raw(b"0"))).contains(&format!("{module}.{name}")));
        // Before garbage, and after an apparent end.
        assert_eq!(kind(Pickle::new(2).global(module, name).raw(&[0xff; 9]).unfinished()), "ForbiddenGlobal");
        let after = Pickle::default().raw(&state_dict(&[tensor()])).global(module, name).text("id").raw(b"\x85R").stop();
        assert_eq!(kind(after), "ForbiddenGlobal", "after STOP");
    }
    let list: [&[u8]; 7] = [
        b"(S'id'\nios\nsystem\n",
        b"(ios\nsystem\n",
        b"\x82\x01",
        b"\x83\x01\x02",
        b"\x84\x01\x02\x03\x04",
        b"ccollections\nOrderedDict\n)}\x92",
        b"(ccollections\nOrderedDict\no",
    ];
    for bytes in &list[1..] {
        assert_eq!(kind(good_then(|p| p.raw(bytes))), "ForbiddenGlobal", "{}", bytes.escape_ascii());
    }
    assert_eq!(kind(good_then(|p| p.raw(list[0]))), "BadStream");
    assert_eq!(kind(good_then(|p| p.global("collections", "OrderedDict").raw(b")\x81"))), "ForbiddenGlobal");
}

#[test]
fn p2_innocent_globals_get_the_weights_only_hint() {
    for (module, name) in
        [("omegaconf.dictconfig", "DictConfig"), ("numpy.core.multiarray", "scalar"), ("torch.optim.adam", "Adam"), ("numpy", "dtype")]
    {
        let pickle = good_then(|p| p.global(module, name).raw(b"0"));
        assert_eq!(kind(pickle.clone()), "ForbiddenGlobal");
        // Since torch refuses such a file too unless it is told to run it.
        assert!(message(&pickle).contains("weights_only=False") && message(&pickle).contains("state_dict()"), "{}", message(&pickle));
    }
    let file = common::TempFile::new(&with_pickle(&good_then(|p| p.stack_global("omegaconf", "DictConfig").raw(b"0")), &[0; 24]));
    let listed = globals(&file.0, &Limits::default()).unwrap();
    assert_eq!(listed.last().unwrap(), &("omegaconf".to_owned(), "DictConfig".to_owned()));
    assert!(listed.contains(&("torch".to_owned(), "FloatStorage".to_owned())));
}

#[test]
fn p3_malformed_globals() {
    let long = "x".repeat(1 << 20);
    let names = [
        ("os\rsystem", "x"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("collections", "OrderedDict.fromkeys"),
        ("", "system"),
        ("os", ""),
        ("torch..storage", "UntypedStorage"),
        ("torch ", "FloatStorage"),
        ("os\0", "system"),
        ("\u{43e}s", "system"),
        (long.as_str(), "x"),
        ("x", long.as_str()),
    ];
    for (module, name) in names {
        assert_eq!(kind(good_then(|p| p.global(module, name))), "BadGlobal", "{:.20}", module);
        let stacked = kind(good_then(|p| p.stack_global(module, name)));
        assert!(stacked == "BadGlobal" || (stacked == "TooLarge" && module.len() + name.len() > 1 << 16), "{stacked}");
    }
    assert_eq!(kind(Pickle::new(2).raw(b"c\xff\xfe\nx\n").stop()), "BadGlobal");
    assert_eq!(kind(Pickle::new(2).raw(b"cos").stop()), "BadGlobal");
    assert_eq!(kind(Pickle::new(2).raw(b"cos\nsystem").unfinished()), "BadGlobal");
    assert_eq!(kind(Pickle::new(4).int(1).int(2).raw(b"\x93").stop()), "BadGlobal");
}

#[test]
fn p4_bombs_and_cycles() {
    // 2^40 values from 40 times (get, get, TUPLE2, put).
    let memo = Pickle::new(2).raw(b"}q\x00K\x01q\x010").repeat(b"h\x01h\x01\x86q\x010", 40).text("w").raw(b"h\x01s").stop();
    assert_eq!(kind(memo), "TooLarge");
    let lists = Pickle::new(2).raw(b"}").text("w").raw(b"]q\x000").repeat(b"](h\x00h\x00eq\x000", 40).raw(b"h\x00s").stop();
    assert_eq!(kind(lists), "TooLarge");
    assert_eq!(kind(Pickle::new(2).raw(b"K\x01").repeat(b"2", 2_000_000).stop()), "TooLarge");
    assert_eq!(kind(Pickle::new(2).raw(b"]q\x00(h\x00e").stop()), "Cycle");
    assert_eq!(kind(Pickle::new(2).raw(b"]q\x00h\x00a").stop()), "Cycle");
    assert_eq!(kind(Pickle::new(2).raw(b"}q\x00").text("w").raw(b"h\x00s").stop()), "Cycle");
    assert_eq!(kind(Pickle::new(2).raw(b"]q\x00(h\x00tq\x010h\x01a").stop()), "Cycle");
}

#[test]
fn p5_deep_nesting() {
    let cases: [(&[u8], &[u8]); 3] = [(b")", b"\x85"), (b")", b"q\x00]h\x00a"), (b")", b"(h\x00t")];
    assert_eq!(kind(Pickle::new(2).raw(cases[0].0).repeat(b"\x85", 1_000_000).stop()), "TooDeep");
    let appended = Pickle::new(2).repeat(b"]", 1_000_000).repeat(b"a", 999_999).stop();
    assert_eq!(kind(appended), "TooDeep");
    let put = Pickle::new(2).raw(b"]q\x00").repeat(b"0]h\x00aq\x00", 1_000_000).stop();
    assert_eq!(kind(put), "TooDeep");
    let dicts = Pickle::new(2).raw(b"}q\x00").repeat(b"0}K\x01h\x00sq\x00", 1_000_000).stop();
    assert_eq!(kind(dicts), "TooDeep");
    // A depth of 31 is no fault of its own.
    assert_eq!(kind(Pickle::new(2).raw(b")").repeat(b"\x85", 31).stop()), "NotAStateDict");
    // An error after a deep structure was built: nothing recurses while it is dropped.
    assert_eq!(kind(Pickle::new(2).raw(b")").repeat(b"\x85", 1_000_000).raw(b"\xff").stop()), "BadStream");
}

#[test]
fn p6_lengths_without_bytes() {
    let cases: [&[u8]; 8] = [
        b"X\xff\xff\xff\xffabc",
        b"\x8d\0\0\0\0\0\0\0\x80abc",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\xffabc",
        b"B\xff\xff\xff\xffabc",
        b"C\x09abc",
        b"\x8c\xffabc",
        b"M\x01",
        b"\x8a\x08\x01",
    ];
    for bytes in cases {
        assert_eq!(kind(Pickle::new(2).raw(bytes).unfinished()), "Truncated", "{}", bytes.escape_ascii());
    }
    // Bytes are there, but longer than any name.
    assert_eq!(kind(Pickle::new(2).text(&"x".repeat(65_537)).stop()), "TooLarge");
}

#[test]
fn p7_integers() {
    for width in 33..=255u8 {
        assert_eq!(kind(Pickle::new(2).raw(&[0x8a, width]).repeat(&[1], usize::from(width)).stop()), "BadInteger");
    }
    let long = [b"L".to_vec(), vec![b'9'; 10 << 20], b"L\n.".to_vec()].concat();
    let cases: [&[u8]; 10] = [
        b"\x8b\xff\xff\xff\xff",
        b"\x8b\x09\0\0\x00123456789",
        b"I1e999\n",
        b"I\n",
        b"I12",
        b"I9223372036854775808\n",
        b"L0x10L\n",
        b"I 1\n",
        b"L1_000L\n",
        &long,
    ];
    for bytes in cases {
        assert_eq!(
            kind(Pickle::new(2).raw(bytes).unfinished()),
            "BadInteger",
            "{:.20}",
            bytes[..bytes.len().min(20)].escape_ascii().to_string()
        );
    }
    // Wider ones, as the seeds of generators are, may lie beside weights and are the size of nothing.
    for width in 9..=32u8 {
        let wide = |p: Pickle| p.raw(&[0x8a, width]).repeat(&[1], usize::from(width));
        assert_eq!(kind(good_then(|p| wide(p).raw(b"0"))), "nothing", "{width}");
        let size = |p: Pickle| {
            let p = p.global("torch._utils", "_rebuild_tensor").raw(b"(").storage("FloatStorage", "0", 6);
            wide(p).ints(&[1]).ints(&[1]).raw(b"tR")
        };
        assert_ne!(kind(size(Pickle::new(2).raw(b"}").text("w")).raw(b"s").stop()), "nothing", "{width}");
    }
    // The widest integers that fit are read; here they make a tensor's offset.
    for (bytes, value) in
        [(&b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"[..], i64::MAX), (b"\x8a\x01\xff", -1), (b"L-1L\n", -1), (b"I77\n", 77)]
    {
        let built = |p: Pickle| {
            p.global("torch._utils", "_rebuild_tensor")
                .raw(b"(")
                .storage("FloatStorage", "0", 6)
                .raw(bytes)
                .ints(&[1])
                .ints(&[1])
                .raw(b"tR")
        };
        let pickle = built(Pickle::new(2).raw(b"}").text("w")).raw(b"s").stop();
        assert!(message(&pickle).contains(&value.to_string()), "{}", message(&pickle));
    }
}

#[test]
fn p8_stack_shape() {
    // Every opcode that needs something, on an empty stack and right above a mark.
    let needy: [&[u8]; 23] = [
        b"0",
        b"1",
        b"2",
        b"a",
        b"e",
        b"s",
        b"u",
        b"t",
        b"l",
        b"d",
        b"\x85",
        b"\x86",
        b"\x87",
        b"R",
        b"b",
        b"Q",
        b"q\0",
        b"r\0\0\0\0",
        b"\x94",
        b"\x93",
        b"o",
        b"\x81",
        b"\x92",
    ];
    for op in needy {
        assert_eq!(kind(Pickle::new(2).raw(op).stop()), "StackShape", "{}", op.escape_ascii());
        let marked = kind(Pickle::new(2).raw(b"N(").raw(op).raw(b"NN").stop());
        // POP removes the mark; the others close it, or find nothing above it.
        assert!(marked == "StackShape", "{} above a mark: {marked}", op.escape_ascii());
    }
    assert_eq!(kind(Pickle::new(2).stop()), "StackShape");
    assert_eq!(kind(Pickle::new(2).raw(b"NN").stop()), "StackShape");
    assert_eq!(kind(Pickle::new(2).raw(b"N(").stop()), "StackShape");
    assert_eq!(kind(Pickle::new(2).raw(b"}(K\x01u").stop()), "StackShape");
    assert_eq!(kind(Pickle::new(2).raw(b"(K\x01d").stop()), "StackShape");
    assert_eq!(kind(Pickle::new(2).raw(b"]K\x00K\x01s").stop()), "StackShape");
    assert_eq!(kind(Pickle::new(2).raw(b"}K\x01a").stop()), "StackShape");
    // SETITEM on a tensor (CVE-2026-24747), and on a storage.
    assert_eq!(kind(Pickle::new(2).tensor(&tensor()).raw(b"K\x00K\x01s").stop()), "StackShape");
    assert_eq!(kind(Pickle::new(2).storage("FloatStorage", "0", 6).raw(b"(K\x00K\x01u").stop()), "StackShape");
}

#[test]
fn p9_memo() {
    for bytes in [&b"h\x00"[..], b"h\xff", b"j\xff\xff\xff\xff", b"Nr\xff\xff\xff\xff", b"Nr\0\0\x40\0", b"Nq\x05h\x04"] {
        assert_eq!(kind(Pickle::new(2).raw(bytes).stop()), "BadMemo", "{}", bytes.escape_ascii());
    }
    // Entries far apart are no fault below the limit.
    assert_eq!(kind(Pickle::new(2).raw(b"Nr\xff\xff\x3f\0").raw(b"j\xff\xff\x3f\x000").stop()), "NotAStateDict");
}

#[test]
fn p10_streams() {
    let good = state_dict(&[tensor()]);
    assert_eq!(kind(good[..good.len() - 1].to_vec()), "BadStream");
    assert_eq!(kind(Vec::new()), "BadStream");
    assert_eq!(kind([&good[..], b"."].concat()), "BadStream");
    assert_eq!(kind([&good[..], &good].concat()), "BadStream");
    for protocol in [0, 1, 6, 255] {
        let mut changed = good.clone();
        changed[1] = protocol;
        assert_eq!(kind(changed), "BadStream", "protocol {protocol}");
    }
    assert_eq!(kind(good[2..].to_vec()), "BadStream");
    assert_eq!(kind(Pickle::new(2).raw(b"\x80\x02}").stop()), "BadStream");
    for frame in [u64::MAX, 1 << 40, 3, 4] {
        // "N" and STOP follow: 2 bytes.
        assert_eq!(kind(Pickle::new(4).raw(b"\x95").raw(&frame.to_le_bytes()).raw(b"N").stop()), "BadStream", "frame of {frame}");
    }
    // A frame that ends inside of an opcode, and one inside of another.
    assert_eq!(kind(Pickle::new(4).raw(b"\x95\x02\0\0\0\0\0\0\0M\x01\x02").stop()), "BadStream");
    assert_eq!(kind(Pickle::new(4).raw(b"\x95\x0b\0\0\0\0\0\0\0\x95\x01\0\0\0\0\0\0\0N").stop()), "BadStream");
    // Every opcode that torch never writes.
    let unknown = (0..=255u8).filter(|code| {
        !b"\x80\x95.(012N\x88\x89KMJIL\x8a\x8bGX\x8c\x8dBC\x8e)\x85\x86\x87t]lae}dsuhjqr\x94ci\x93QRbo\x81\x92\x82\x83\x84\x8f\x90"
            .contains(code)
    });
    for code in unknown {
        assert_eq!(kind(Pickle::new(2).raw(&[code, 0, 0, 0, 0, b'\n', b'\n']).stop()), "BadStream", "opcode {code:#x}");
    }
    // Truncated anywhere: refused as one of the kinds that an end of input can have.
    for len in 0..good.len() {
        let found = kind(good[..len].to_vec());
        assert!(["BadStream", "Truncated", "BadGlobal"].contains(&found), "cut at {len}: {found}");
    }
}

#[test]
fn p11_rebuild() {
    let call = |function: &str, args: &dyn Fn(Pickle) -> Pickle| {
        let begun = Pickle::new(2).raw(b"}").text("w").global("torch._utils", function).raw(b"(");
        kind(args(begun).raw(b"tRs").stop())
    };
    let parts: [&dyn Fn(Pickle) -> Pickle; 6] =
        [&|p| p.storage("FloatStorage", "0", 6), &|p| p.int(0), &|p| p.ints(&[2, 3]), &|p| p.ints(&[3, 1]), &|p| p.raw(b"\x89"), &|p| {
            p.raw(b"N")
        }];
    for count in 0..=10 {
        // Six arguments are right, a seventh may be None (no metadata).
        let expected = if matches!(count, 6 | 7) { "nothing" } else { "BadRebuild" };
        let args = |p: Pickle| (0..count).fold(p, |p, index| parts[index.min(5)](p));
        assert_eq!(call("_rebuild_tensor_v2", &args), expected, "{count} arguments");
    }
    // Each argument replaced by something of another type.
    for wrong in 0..6 {
        for other in
            [&|p: Pickle| p.text("x"), &|p: Pickle| p.raw(b"G\0\0\0\0\0\0\0\0"), &|p: Pickle| p.raw(b"]"), &|p: Pickle| p.raw(b"\x88")]
                as [&dyn Fn(Pickle) -> Pickle; 4]
        {
            let args = |p: Pickle| (0..6).fold(p, |p, index| if index == wrong { other(p) } else { parts[index](p) });
            let found = call("_rebuild_tensor_v2", &args);
            assert!(found == "BadRebuild" || (wrong == 4 && found == "nothing"), "argument {wrong}: {found}");
        }
    }
    // A tuple as the offset, a bool and a float among the sizes.
    assert_eq!(call("_rebuild_tensor_v2", &|p| (0..6).fold(p, |p, i| if i == 1 { p.ints(&[0]) } else { parts[i](p) })), "BadRebuild");
    assert_eq!(
        call("_rebuild_tensor_v2", &|p| (0..6).fold(p, |p, i| if i == 2 { p.raw(b"K\x02\x88\x86") } else { parts[i](p) })),
        "BadRebuild"
    );
    assert_eq!(
        call("_rebuild_tensor_v2", &|p| (0..6).fold(p, |p, i| if i == 3 { p.raw(b"K\x03N\x86") } else { parts[i](p) })),
        "BadRebuild"
    );
    assert_eq!(call("_rebuild_parameter", &|p| p.int(1).raw(b"\x88N")), "BadRebuild");
    assert_eq!(call("_rebuild_parameter", &|p| p.tensor(&tensor()).raw(b"\x88")), "BadRebuild");
    assert_eq!(call("_rebuild_tensor_v3", &|p| (0..6).fold(p, |p, i| parts[i](p)).int(1)), "BadRebuild");
    // Calls of what is no function, and without a tuple.
    assert_eq!(kind(Pickle::new(2).raw(b"N)R").stop()), "BadRebuild");
    assert_eq!(kind(Pickle::new(2).global("torch", "FloatStorage").raw(b")R").stop()), "BadRebuild");
    assert_eq!(kind(Pickle::new(2).global("collections", "OrderedDict").raw(b"]R").stop()), "BadRebuild");
    assert_eq!(kind(Pickle::new(2).global("collections", "OrderedDict").raw(b"]\x85R").stop()), "BadRebuild");
    // BUILD with anything but `_metadata`, and on a tensor.
    assert_eq!(kind(good_then(|p| p.raw(b"}").text("__class__").raw(b"Nsb"))), "BadRebuild");
    assert_eq!(kind(Pickle::new(2).tensor(&tensor()).raw(b"}b").stop()), "BadRebuild");
    assert_eq!(kind(good_then(|p| p.raw(b")b"))), "BadRebuild");
}

#[test]
fn p12_storage_ids() {
    let id = |parts: &dyn Fn(Pickle) -> Pickle| kind(parts(Pickle::new(2).raw(b"(")).raw(b"tQ").stop());
    let with_key = |key: &str| kind(Pickle::new(2).storage("FloatStorage", key, 6).stop());
    for key in ["../0", "0\0", "", "a/b", ".", &"1".repeat(10_000), "\u{660}"] {
        assert_eq!(with_key(key), "BadStorageId", "{key:.20}");
    }
    assert_eq!(kind(Pickle::new(2).text("0").raw(b"Q").stop()), "BadStorageId");
    assert_eq!(kind(Pickle::new(2).raw(b")Q").stop()), "BadStorageId");
    assert_eq!(id(&|p| p.text("module").global("torch", "FloatStorage").text("0").text("cpu").int(6)), "BadStorageId");
    assert_eq!(id(&|p| p.text("storage").text("FloatStorage").text("0").text("cpu").int(6)), "BadStorageId");
    assert_eq!(id(&|p| p.text("storage").global("torch", "Size").text("0").text("cpu").int(6)), "BadStorageId");
    assert_eq!(id(&|p| p.text("storage").global("torch", "FloatStorage").int(0).text("cpu").int(6)), "BadStorageId");
    assert_eq!(id(&|p| p.text("storage").global("torch", "FloatStorage").text("0").int(0).int(6)), "BadStorageId");
    assert_eq!(id(&|p| p.text("storage").global("torch", "FloatStorage").text("0").text("cpu").text("6")), "BadStorageId");
    assert_eq!(id(&|p| p.text("storage").global("torch", "FloatStorage").text("0").text("cpu").int(-6)), "BadStorageId");
    // Six parts are the legacy form, which has no place in a zip archive.
    assert_eq!(id(&|p| p.text("storage").global("torch", "FloatStorage").text("0").text("cpu").int(6).raw(b"N")), "BadStorageId");
}

#[test]
fn p13_no_state_dict() {
    for bytes in [&b"N"[..], b"]", b")", b"K\x01", b"}", b"(K\x01K\x02d"] {
        assert_eq!(kind(Pickle::new(2).raw(bytes).stop()), "NotAStateDict", "{}", bytes.escape_ascii());
    }
    assert_eq!(kind(Pickle::new(2).tensor(&tensor()).stop()), "NotAStateDict");
    assert_eq!(kind(Pickle::new(2).raw(b"}K\x01").tensor(&tensor()).raw(b"s").stop()), "NotAStateDict");
    let nested =
        |keys: &[&str]| keys.iter().fold(Pickle::new(2).raw(b"}"), |p, key| p.text(key).raw(b"}(").item(&tensor()).raw(b"us")).stop();
    for keys in [&["weights"][..], &["generator", "discriminator"], &["state_dict", "model"], &["state_dict", "ema"]] {
        assert_eq!(kind(nested(keys)), "NotAStateDict", "{keys:?}");
        assert!(message(&nested(keys)).contains(keys[0]), "{}", message(&nested(keys)));
    }
    // A tensor beside the wrapped dict that has a module's name could be a weight: never skipped. Others are no weights of any module.
    let beside = |name: &str, size: &[i64]| {
        let other = Tensor { numel: 6, ..Tensor::dense(name, "FloatStorage", 0, size) };
        Pickle::new(2).raw(b"}").text("state_dict").raw(b"}(").item(&tensor()).raw(b"us(").item(&other).raw(b"u").stop()
    };
    assert_eq!(kind(beside("head.weight", &[2, 3])), "NotAStateDict");
    assert_eq!([kind(beside("loss", &[2, 3])), kind(beside("loss", &[])), kind(beside("train.loss", &[]))], ["nothing"; 3]);
    assert_eq!(kind(nested(&["state_dict"])), "nothing");
    assert_eq!(kind(nested(&["model"])), "nothing");
    // What a trainer keeps to go on with is not the model's, and named; two that may be the model are refused.
    assert_eq!(kind(nested(&["model_state_dict", "optimizer_state_dict"])), "nothing");
    assert_eq!(kind(nested(&["optimizer_states", "state_dict", "lr_schedulers"])), "nothing");
    assert_eq!(kind(nested(&["model", "optimizer", "ema"])), "NotAStateDict");
    assert!(message(&nested(&["optimizer_state_dict", "param_shapes"])).contains("zero_to_fp32.py"));
    // Of the third stage every file has the names, and no weights.
    let third = |beside: &str| {
        let nothing = Tensor { numel: 0, ..Tensor::dense("0", "FloatStorage", 0, &[0]) };
        Pickle::new(2).raw(b"}").text("module").raw(b"}(").item(&nothing).raw(b"us").text(beside).raw(b"}s").stop()
    };
    assert!(message(&third("param_shapes")).contains("zero_to_fp32.py") && message(&third("ds_version")).contains("zero_to_fp32.py"));
    assert_eq!(kind(third("param_shapes")), "NotAStateDict");
    assert!(!message(&third("epoch")).contains("zero_to_fp32.py"), "{}", message(&third("epoch")));
    // 2 million keys.
    let quarter = [b"(".to_vec(), b"K\x01N".repeat(500_000), b"u".to_vec()].concat();
    let many = Pickle::new(2).raw(b"}").repeat(&quarter, 4).stop();
    assert_eq!(kind(many), "TooManyTensors");
}

#[test]
fn p13_entries_that_are_no_tensors() {
    for (name, value) in [("_strategy", &b"X\x08\0\0\0cpu fp32"[..]), ("_rescale_layer", b"K\x06"), ("_version", b"X\x03\0\0\x000.7")] {
        let pickle = good_then(|p| p.text(name).raw(value).raw(b"s"));
        assert_eq!(kind(pickle.clone()), "UnsupportedEntry");
        assert!(message(&pickle).contains(name) && message(&pickle).contains("rwkv pip package"));
    }
    assert_eq!(kind(good_then(|p| p.text("epoch").int(3).raw(b"s"))), "UnsupportedEntry");
    assert_eq!(kind(good_then(|p| p.text(&"n".repeat(1025)).tensor(&tensor()).raw(b"s"))), "TooLarge");
}

#[test]
fn p14_duplicate_tensor() {
    let twice = Pickle::new(2).raw(b"}(").item(&tensor()).item(&tensor()).raw(b"u").stop();
    assert_eq!(kind(twice), "DuplicateTensor");
    let memo = Pickle::new(2).raw(b"}").text("w").raw(b"q\x00").tensor(&tensor()).raw(b"q\x01sh\x00h\x01s").stop();
    assert_eq!(kind(memo), "DuplicateTensor");
}

#[test]
fn p15_opcode_flood() {
    let flood = Pickle::new(2).repeat(b"N0", (32 << 20) - 2).stop();
    assert_eq!(kind(flood), "TooManyOpcodes");
    // One byte over the limit of the pickle.
    assert_eq!(kind(vec![b'N'; (64 << 20) + 1]), "TooLarge");
    // Values that are not shared: stopped by their number.
    assert_eq!(kind(Pickle::new(2).repeat(b"])0", 1 << 21).stop()), "TooLarge");
}

/// Random damage to a genuine pickle: never a panic, and if it still opens, within the limits of the file.
#[test]
fn p_random_mutations_never_panic() {
    let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/torch-savings/legacy.pth");
    let legacy = std::fs::read(fixture).unwrap();
    let mut archive = Archive::torch(&state_dict(&[tensor(), Tensor::dense("b", "HalfStorage", 1, &[4])]), &[&bytes_of(&FIRST), &[0; 8]]);
    let pickle = archive.entries[0].data.clone();
    // A fixed linear congruential generator: the same mutations on every run.
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let mut refused = 0;
    for round in 0..20_000 {
        let genuine = if round % 2 == 0 { &pickle } else { &legacy };
        let mut bytes = genuine.clone();
        for _ in 0..=next(4) {
            let at = next(bytes.len());
            match next(4) {
                0 => bytes[at] = u8::try_from(next(256)).unwrap(),
                1 => bytes[at] ^= 1 << next(8),
                2 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"(tQR0)}]uX\x86."[next(12)]),
            }
        }
        if round % 2 == 0 {
            archive.entries[0].data = bytes;
            bytes = archive.build().bytes;
        }
        refused += u32::from(read_all(&bytes).is_err());
    }
    assert!(refused > 10_000, "{refused} of 20000 refused");
}
