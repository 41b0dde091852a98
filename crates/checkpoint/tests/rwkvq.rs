//! Quantized checkpoints of other programs (R1 to R8 of `docs/bad-inputs.md`): .rwkvq, against the values that the package's own reader
//! finds (`fixtures/rwkvq`).
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::cast_possible_truncation, reason = "tests may fail loudly")]

use std::path::Path;

use rwkv_forge_checkpoint::Safetensors;
use rwkv_forge_container::{Format, OpenOptions, Opened, Place};
use rwkv_forge_model::Version;
use rwkv_forge_quant::{all_non_finite, decode_rows};
use rwkv_forge_tensor::{BoxError, Class, SplitMix64, TensorSource};
use rwkv_forge_testkit::models::{Sizes, random_model};
use rwkv_forge_testkit::pickle::Pickle;
use serde_json::{Value, json};

use crate::common::{FIRST, TempFile, bytes_of, read_all, with_pickle};

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/rwkvq").join(name)).unwrap()
}

/// A file of this format, to be broken.
#[derive(Clone)]
struct Made {
    manifest: Value,
    /// Name, type, shape, bytes.
    buffers: Vec<(String, String, Vec<u64>, Vec<u8>)>,
    metadata: Option<String>,
}

impl Made {
    fn kinds() -> Self {
        let bytes = fixture("kinds.rwkvq");
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        let data = &bytes[8 + length..];
        let mut buffers: Vec<_> = header.as_object().unwrap().iter().filter(|(name, _)| *name != "__metadata__").collect();
        buffers.sort_by_key(|(_, entry)| entry["data_offsets"][0].as_u64());
        let buffer = |(name, entry): (&String, &Value)| {
            let place = |at: usize| entry["data_offsets"][at].as_u64().unwrap() as usize;
            let shape = entry["shape"].as_array().unwrap().iter().map(|dim| dim.as_u64().unwrap()).collect();
            (name.clone(), entry["dtype"].as_str().unwrap().to_owned(), shape, data[place(0)..place(1)].to_vec())
        };
        let manifest = serde_json::from_str(header["__metadata__"]["rwkvq"].as_str().unwrap()).unwrap();
        Self { manifest, buffers: buffers.into_iter().map(buffer).collect(), metadata: None }
    }

    /// These tensors alone.
    fn only(names: &[&str]) -> Self {
        let mut made = Self::kinds();
        made.manifest["tensors"].as_object_mut().unwrap().retain(|name, _| names.contains(&name.as_str()));
        made.buffers.retain(|(name, ..)| names.contains(&name.split("::").next().unwrap()));
        made
    }

    fn entry(&mut self, name: &str) -> &mut Value {
        &mut self.manifest["tensors"][name]
    }

    fn buffer(&mut self, name: &str) -> &mut (String, String, Vec<u64>, Vec<u8>) {
        self.buffers.iter_mut().find(|(known, ..)| known == name).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        let text = self.metadata.clone().unwrap_or_else(|| self.manifest.to_string());
        let mut header = serde_json::Map::new();
        header.insert("__metadata__".to_owned(), json!({ "rwkvq": text }));
        let mut data = Vec::new();
        for (name, dtype, shape, bytes) in &self.buffers {
            let offsets = [data.len(), data.len() + bytes.len()];
            data.extend_from_slice(bytes);
            header.insert(name.clone(), json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets }));
        }
        let header = Value::Object(header).to_string();
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
    }
}

fn open(file: &TempFile) -> Result<Box<dyn Opened>, BoxError> {
    Safetensors.open(&Place::of(&file.0), OpenOptions::default())
}

/// The error that these bytes are refused with.
fn refused(bytes: &[u8]) -> BoxError {
    let error = open(&TempFile::new(bytes)).err().expect("a refusal");
    let said = error.to_string();
    assert!(said.contains("forge-checkpoint-") && !said.ends_with('.') && !said.contains('\n') && said.len() < 1200, "{said}");
    assert_eq!(error.class(), Class::Refused, "{said}");
    error
}

/// One change, what it is refused as, and what the message names.
fn broken(names: &[&str], change: impl FnOnce(&mut Made), kind: &str, says: &[&str]) {
    let mut made = Made::only(names);
    assert!(open(&TempFile::new(&made.bytes())).is_ok(), "{names:?} is good before");
    change(&mut made);
    let error = refused(&made.bytes());
    assert_eq!(error.kind(), kind, "{error}");
    for word in says {
        assert!(error.to_string().contains(word), "{word} in {error}");
    }
}

fn values(file: &dyn TensorSource, index: usize) -> Vec<f32> {
    let info = &file.tensors()[index];
    let mut bytes = vec![0; info.byte_len().unwrap() as usize];
    file.read_at(index, 0, &mut bytes).unwrap();
    let mut values = Vec::new();
    decode_rows(info.encoding, &bytes, &mut values).unwrap();
    values
}

#[test]
fn every_kind_has_the_values_of_the_package() {
    let file = TempFile::new(&fixture("kinds.rwkvq"));
    let opened = open(&file).unwrap();
    let expected: Vec<f32> = fixture("kinds.f32").as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
    let mut rest = expected.as_slice();
    let mut seen = Vec::new();
    for (index, info) in opened.tensors().iter().enumerate() {
        let found = values(opened.as_ref(), index);
        let (now, later) = rest.split_at(found.len());
        for (place, (found, expected)) in found.iter().zip(now).enumerate() {
            assert_eq!(found.to_bits(), expected.to_bits(), "{} element {place}: {found} instead of {expected}", info.name);
        }
        rest = later;
        seen.push(format!("{} {}", info.name, info.encoding));
    }
    assert!(rest.is_empty());
    assert_eq!(
        seen,
        [
            "sb6.4 sb6_4",
            "sb6.5 sb6_5",
            "sb6.6 sb6_6",
            "sym.6 sym6",
            "sym.8 sym8",
            "asym.whole asym",
            "asym.short asym_8",
            "asym.narrow asym_8",
            "asym.other asym_8",
            "rtn.8 int8_row",
            "rtn.7 rtn",
            "rtn.vector int8_row",
            "rtn.deep int8_row",
            "rtn.4 int4_row",
            "rtn.3 rtn",
            "rtn.outliers rtn",
            "rtn.4.outliers rtn",
            "dense.vector bf16",
            "dense.matrix bf16"
        ]
    );
    assert_eq!(opened.format(), "rwkvq v2");
    assert_eq!(opened.files(), std::slice::from_ref(&file.0));
    let note = opened.notes().concat();
    assert!(note.contains("`asym.short`, `asym.narrow`, `asym.other`, `rtn.7` and 3 more"), "{note}");
    let said = |key: &str| opened.metadata().into_iter().find(|(known, _)| known == key).map(|(_, value)| value);
    assert_eq!(said("rwkvq.config_repr").as_deref(), Some("every kind once"));
    assert_eq!((said("rwkvq.format_version").as_deref(), said("rwkvq")), (Some("2"), None));
    assert!(all_non_finite(opened.as_ref()).unwrap().is_empty());
}

/// Whatever range is read, its bytes are those of the whole, and beyond the end is nothing.
#[test]
fn ranges_are_parts_of_the_whole() {
    let file = TempFile::new(&fixture("kinds.rwkvq"));
    let opened = open(&file).unwrap();
    let mut random = SplitMix64::new(5);
    for (index, info) in opened.tensors().iter().enumerate() {
        let length = info.byte_len().unwrap();
        let mut whole = vec![0; length as usize];
        opened.read_at(index, 0, &mut whole).unwrap();
        for _ in 0..60 {
            let start = random.next_u64() % length;
            let mut part = vec![0; (random.next_u64() % (length - start + 1)) as usize];
            opened.read_at(index, start, &mut part).unwrap();
            assert_eq!(part, whole[start as usize..][..part.len()], "{} from {start}", info.name);
        }
        for (start, count) in [(length, 1), (length - 1, 2), (u64::MAX, 1)] {
            assert_eq!(opened.read_at(index, start, &mut vec![0; count]).unwrap_err().kind(), "OutOfBounds", "{}", info.name);
        }
        opened.read_at(index, length, &mut []).unwrap();
    }
    assert!(opened.read_at(opened.tensors().len(), 0, &mut [0]).is_err());
}

/// Tensors of more blocks than are put together at once.
#[test]
fn large_tensors_are_read_piece_by_piece() {
    let (rows, row) = (700u64, 96u64);
    let mut made = Made::only(&["rtn.outliers"]);
    made.entry("rtn.outliers")["shape"] = json!([rows, row]);
    let mut random = SplitMix64::new(8);
    let codes: Vec<u8> = (0..rows * row).map(|_| random.next_u64() as u8).collect();
    let scales: Vec<u8> = (0..rows).flat_map(|row| (0x1c00 + row as u16).to_le_bytes()).collect();
    let places: Vec<u64> = (0..rows * row).filter(|_| random.next_u64().is_multiple_of(20)).collect();
    let pairs = places.iter().flat_map(|place| [(place / row) as i32, (place % row) as i32]).flat_map(i32::to_le_bytes).collect();
    let outliers: Vec<u8> = (0..places.len()).flat_map(|at| (0x3f80 + (at % 128) as u16).to_le_bytes()).collect();
    let count = places.len() as u64;
    *made.buffer("rtn.outliers::codes") = ("rtn.outliers::codes".to_owned(), "I8".to_owned(), vec![rows, row], codes.clone());
    *made.buffer("rtn.outliers::scale") = ("rtn.outliers::scale".to_owned(), "F16".to_owned(), vec![rows, 1], scales);
    *made.buffer("rtn.outliers::outlier_indices") = ("rtn.outliers::outlier_indices".to_owned(), "I32".to_owned(), vec![count, 2], pairs);
    *made.buffer("rtn.outliers::outlier_values") = ("rtn.outliers::outlier_values".to_owned(), "BF16".to_owned(), vec![count], outliers);
    let file = TempFile::new(&made.bytes());
    let found = values(open(&file).unwrap().as_ref(), 0);
    for (place, found) in found.iter().enumerate() {
        let scale = rwkv_forge_tensor::f16_to_f32(0x1c00 + (place as u64 / row) as u16);
        let expected = match places.binary_search(&(place as u64)) {
            Ok(at) => rwkv_forge_tensor::bf16_to_f32(0x3f80 + (at % 128) as u16),
            Err(_) => f32::from(codes[place].cast_signed()) * scale,
        };
        assert_eq!(found.to_bits(), expected.to_bits(), "element {place}");
    }
}

/// The first version says less of each tensor; what it does not say is in the shapes.
#[test]
fn the_first_version_reads_the_same() {
    let mut made = Made::kinds();
    made.manifest["format_version"] = json!(1);
    for entry in made.manifest["tensors"].as_object_mut().unwrap().values_mut() {
        entry.as_object_mut().unwrap().retain(|key, _| !["n_blocks", "transposed"].contains(&key.as_str()));
    }
    let (first, second) = (TempFile::new(&made.bytes()), TempFile::new(&Made::kinds().bytes()));
    let (first, second) = (open(&first).unwrap(), open(&second).unwrap());
    assert_eq!((first.format(), first.tensors()), ("rwkvq v1", second.tensors()));
    (0..first.tensors().len()).for_each(|index| assert_eq!(values(first.as_ref(), index), values(second.as_ref(), index)));
}

#[test]
fn r1_manifests_that_are_none() {
    let with = |text: &str| Made { metadata: Some(text.to_owned()), ..Made::only(&["dense.matrix"]) }.bytes();
    let good = Made::only(&["dense.matrix"]).manifest.to_string();
    let deep = format!("{{\"format\":\"rwkvq\",\"config\":{}", "[".repeat(1 << 20));
    let twice = good
        .replace("\"tensors\":{", "\"tensors\":{\"dense.matrix\":{\"kind\":\"dense\",\"shape\":[3,8],\"bits\":16,\"fields\":[\"dense\"]},");
    let long = good.replace("[3,8]", &format!("[{}3,8]", "1,".repeat(1 << 20)));
    let negative = good.replace("\"bits\":16", "\"bits\":-16");
    let cases: [(&str, &str); 11] = [
        ("", "EOF"),
        ("no JSON", "expected"),
        ("[]", "tensors"),
        ("{}", "format"),
        (&good[..good.len() - 1], "EOF"),
        (&deep, "EOF"),
        (&twice, "described twice"),
        (&long, "more than 8 values"),
        (&negative, "dense.matrix"),
        (&good.replace("\"format\":\"rwkvq\"", "\"format\":\"other\""), "other"),
        (&good.replace("\"n_embd\":24,", ""), "n_embd"),
    ];
    for (text, says) in cases {
        let error = refused(&with(text));
        assert_eq!(error.kind(), "BadManifest", "{error}");
        assert!(says == "tensors" || error.to_string().contains(says), "{says} in {error}");
    }
    // More than the metadata of a file may be.
    assert_eq!(refused(&with(&" ".repeat(17 << 20))).kind(), "BadEntry");
    let sizes = |key: &str, value: u64| {
        let mut made = Made::only(&["dense.matrix"]);
        made.manifest["tensors"] = json!({ "emb.weight": made.manifest["tensors"]["dense.matrix"] });
        made.buffer("dense.matrix::dense").0 = "emb.weight::dense".to_owned();
        made.manifest["n_embd"] = json!(8);
        assert!(open(&TempFile::new(&made.bytes())).is_ok());
        made.manifest[key] = json!(value);
        refused(&made.bytes())
    };
    for key in ["n_embd", "vocab_size"] {
        let error = sizes(key, 7);
        assert_eq!(error.kind(), "BadManifest");
        assert!(error.to_string().contains(&format!("{key} is 7")), "{error}");
    }
}

#[test]
fn r2_versions_kinds_bits_and_groups_that_are_not_read() {
    for version in [0, 3, u64::MAX] {
        broken(
            &["dense.matrix"],
            |made| made.manifest["format_version"] = json!(version),
            "UnsupportedVersion",
            &[&version.to_string(), "0.3.0"],
        );
    }
    let set = |name: &'static str, key: &'static str, value: Value, says: &[&str]| {
        broken(&[name], |made| made.entry(name)[key] = value, "UnsupportedKind", &[&[name], says].concat());
    };
    set("sb6.4", "kind", json!("mxfp4"), &["mxfp4", "sym"]);
    set("sb6.4", "kind", json!("\u{1b}[2J"), &["\\u{1b}"]);
    for bits in [0, 3, 7, u64::MAX] {
        set("sb6.5", "bits", json!(bits), &["4 to 6"]);
    }
    for bits in [0, 4, 7, 9] {
        set("sym.8", "bits", json!(bits), &["6 or 8"]);
    }
    for bits in [0, 9] {
        set("asym.whole", "bits", json!(bits), &["1 to 8"]);
    }
    for bits in [0, 1, 9, 16] {
        set("rtn.8", "bits", json!(bits), &["2 to 8"]);
    }
    set("dense.matrix", "bits", json!(8), &["16"]);
    for (name, group) in
        [("sb6.4", 0), ("sb6.4", 64), ("sb6.4", u64::MAX), ("sym.6", 0), ("sym.6", 32), ("asym.whole", 0), ("asym.whole", 12)]
    {
        set(name, "gw_gs", json!(group), &[&group.to_string()]);
    }
    for (name, groups) in [("sb6.4", 0), ("sb6.4", 16), ("sym.8", 8), ("sym.8", u64::MAX)] {
        set(name, "gw_sb", json!(groups), &[&groups.to_string()]);
    }
    // Rows that no block divides.
    let narrow = |made: &mut Made| {
        made.entry("asym.narrow")["shape"] = json!([18, 12]);
        made.buffer("asym.narrow::codes").2 = vec![18, 12];
    };
    broken(&["asym.narrow"], narrow, "UnsupportedKind", &["rows of 12", "multiple of 8"]);
    set("sb6.4", "shape", json!([3, 384]), &["256"]);
    set("sb6.4", "shape", json!([3, 2, 256]), &["a matrix"]);
    set("rtn.8", "shape", json!([256]), &["two dimensions"]);
    set("rtn.4", "shape", json!([5, 3, 32]), &["two dimensions"]);
}

#[test]
fn r3_parts_that_are_missing_superfluous_or_of_another_shape() {
    let fields: [(&str, &[&str]); 9] = [
        ("sb6.6", &["codes_packed", "gw_qsqm", "gw_d", "gw_dm", "gw_qh", "gw_qh2"]),
        ("sb6.4", &["codes_packed", "gw_qsqm", "gw_d", "gw_dm"]),
        ("sym.6", &["codes_packed", "gw_qh", "gw_qh2", "gw_qs", "gw_d"]),
        ("sym.8", &["codes", "gw_qs", "gw_d"]),
        ("asym.short", &["codes", "gw_scale", "gw_min"]),
        ("rtn.7", &["codes", "scale"]),
        ("rtn.4", &["codes_packed", "scale"]),
        ("rtn.outliers", &["codes", "scale", "outlier_indices", "outlier_values"]),
        ("dense.vector", &["dense"]),
    ];
    for (name, fields) in fields {
        for field in fields {
            let buffer = format!("{name}::{field}");
            let listed =
                |made: &mut Made, change: &mut dyn FnMut(&mut Vec<Value>)| change(made.entry(name)["fields"].as_array_mut().unwrap());
            broken(&[name], |made| made.buffers.retain(|(known, ..)| *known != buffer), "MissingBuffer", &[&buffer]);
            broken(&[name], |made| listed(made, &mut |fields| fields.retain(|known| known != field)), "MissingBuffer", &[&buffer, "list"]);
            broken(&[name], |made| listed(made, &mut |fields| fields.push(json!(field))), "BadManifest", &[name, "twice"]);
            let flat = |made: &mut Made| {
                let shape = &mut made.buffer(&buffer).2;
                *shape = vec![1, shape.iter().product()];
            };
            if !["outlier_values"].contains(field) {
                broken(&[name], flat, "BadBuffer", &[&buffer, "expected"]);
            }
            let short = |made: &mut Made| {
                let (_, _, shape, bytes) = made.buffer(&buffer);
                bytes.truncate(bytes.len() / shape[0] as usize * (shape[0] as usize - 1));
                shape[0] -= 1;
            };
            if made_of_rows(name) {
                broken(&[name], short, "BadBuffer", &[]);
            }
            let other_type = |made: &mut Made| {
                let (_, dtype, _, bytes) = made.buffer(&buffer);
                (*dtype, *bytes) = match dtype.as_str() {
                    "U8" => ("I8".to_owned(), bytes.clone()),
                    "I8" => ("U8".to_owned(), bytes.clone()),
                    "F16" => ("I16".to_owned(), bytes.clone()),
                    "BF16" => ("I16".to_owned(), bytes.clone()),
                    "F32" => ("I32".to_owned(), bytes.clone()),
                    _ => ("F32".to_owned(), bytes.clone()),
                };
            };
            broken(&[name], other_type, "BadBuffer", &[&buffer]);
        }
        let foreign = |made: &mut Made| made.entry(name)["fields"].as_array_mut().unwrap().push(json!("gw_other"));
        broken(&[name], foreign, "ExtraBuffer", &[name, "gw_other"]);
        let left_over = |made: &mut Made| made.buffers.push((format!("{name}::other"), "U8".to_owned(), vec![2], vec![0; 2]));
        broken(&[name], left_over, "ExtraBuffer", &["::other"]);
        let nameless = |made: &mut Made| drop(made.manifest["tensors"].as_object_mut().unwrap().remove(name));
        broken(&[name], nameless, "ExtraBuffer", &[name]);
    }
    // Bits of another number have other parts.
    broken(&["sb6.4"], |made| made.entry("sb6.4")["bits"] = json!(5), "MissingBuffer", &["gw_qh"]);
    broken(&["sb6.6"], |made| made.entry("sb6.6")["bits"] = json!(5), "ExtraBuffer", &["gw_qh2"]);
    broken(&["rtn.8"], |made| made.entry("rtn.8")["bits"] = json!(4), "MissingBuffer", &["codes_packed"]);
    // A part of one tensor is not another's.
    broken(&["sb6.4", "sb6.5"], |made| drop(made.manifest["tensors"].as_object_mut().unwrap().remove("sb6.5")), "ExtraBuffer", &["sb6.5"]);
    for (name, blocks) in [("sb6.4", 8), ("sb6.4", u64::MAX), ("sym.8", 0), ("asym.short", 1), ("asym.whole", 3)] {
        broken(&[name], |made| made.entry(name)["n_blocks"] = json!(blocks), "BadManifest", &[name, &blocks.to_string()]);
    }
    for shape in [json!([]), json!([0, 512]), json!([3, 0]), json!([2, u64::MAX, u64::MAX])] {
        broken(&["sb6.4"], |made| made.entry("sb6.4")["shape"] = shape, "BadManifest", &["sb6.4"]);
    }
    // Sizes beyond 64 bits: no part can have them, and nothing is taken for them.
    for shape in [json!([u64::MAX, 256]), json!([3, u64::MAX - 255])] {
        let change = |made: &mut Made| {
            made.entry("sb6.4")["shape"] = shape.clone();
            made.entry("sb6.4").as_object_mut().unwrap().remove("n_blocks");
        };
        broken(&["sb6.4"], change, "BadBuffer", &["gw_d"]);
    }
}

/// Whether a part with a row less is one with another shape.
fn made_of_rows(name: &str) -> bool {
    !["dense.vector", "rtn.outliers"].contains(&name)
}

#[test]
fn r4_outliers_outside_or_out_of_order() {
    let places = |change: &dyn Fn(&mut [[u8; 8]])| {
        let change = |made: &mut Made| change(made.buffer("rtn.outliers::outlier_indices").3.as_chunks_mut().0);
        broken(&["rtn.outliers"], change, "BadOutlier", &["rtn.outliers", "row", "column"]);
    };
    let place = |row: i32, column: i32| [row.to_le_bytes(), column.to_le_bytes()].concat().try_into().unwrap();
    places(&|all| all[3] = place(-1, 0));
    places(&|all| all[3] = place(0, i32::MIN));
    places(&|all| *all.last_mut().unwrap() = place(6, 0));
    places(&|all| *all.last_mut().unwrap() = place(5, 96));
    places(&|all| all.swap(0, 1));
    places(&|all| all[1] = all[0]);
    let shorter = |made: &mut Made| {
        let (_, _, shape, bytes) = made.buffer("rtn.outliers::outlier_values");
        shape[0] -= 1;
        bytes.truncate(bytes.len() - 2);
    };
    broken(&["rtn.outliers"], shorter, "BadBuffer", &["outlier_indices"]);
    // None at all are as good as no lists of them.
    let mut made = Made::only(&["rtn.outliers"]);
    for (field, shape) in [("outlier_indices", vec![0, 2]), ("outlier_values", vec![0])] {
        let (_, _, found, bytes) = made.buffer(&format!("rtn.outliers::{field}"));
        (*found, *bytes) = (shape, Vec::new());
    }
    assert!(open(&TempFile::new(&made.bytes())).is_ok());
}

#[test]
fn r5_scales_that_are_no_numbers() {
    let cases: [(&str, &str, &[u8]); 9] = [
        ("sb6.4", "gw_d", &[0x00, 0x7e]),
        ("sb6.5", "gw_dm", &[0x00, 0x7c]),
        // Finite, and beyond f16 once it is multiplied.
        ("sb6.6", "gw_d", &[0xff, 0x7b]),
        ("sym.6", "gw_d", &[0x00, 0xfe]),
        ("sym.8", "gw_d", &[0xff, 0x7b]),
        ("asym.short", "gw_scale", &[0x00, 0x00, 0x80, 0x7f]),
        ("asym.whole", "gw_min", &[0xff; 4]),
        ("rtn.4", "scale", &[0x00, 0x7e]),
        ("rtn.outliers", "outlier_values", &[0x80, 0x7f]),
    ];
    for (name, field, special) in cases {
        let mut made = Made::only(&[name]);
        made.buffer(&format!("{name}::{field}")).3[..special.len()].copy_from_slice(special);
        let file = TempFile::new(&made.bytes());
        let found = all_non_finite(open(&file).unwrap().as_ref()).unwrap();
        assert_eq!(found.iter().map(|found| found.tensor.as_str()).collect::<Vec<_>>(), [name], "{field}");
    }
}

#[test]
fn r7_the_pickled_form_is_named() {
    for name in ["QuantizedCheckpoint", "QuantizedTensor"] {
        for global in [Pickle::global, Pickle::stack_global] {
            let pickle = global(Pickle::new(2), "rwkv_quant.formats.schema", name).raw(b")\x81").stop();
            let error = read_all(&with_pickle(&pickle, &bytes_of(&FIRST))).unwrap_err();
            assert_eq!(error.kind(), "LegacyFormat", "{error}");
            let said = error.to_string();
            assert!(
                said.contains(".rwkvq") && said.contains("save_rwkvq(reader.load_raw(") && said.contains("nothing was executed"),
                "{said}"
            );
        }
    }
    let other = Pickle::new(2).global("rwkv_quantum", "System").raw(b")\x81").stop();
    assert_eq!(read_all(&with_pickle(&other, &bytes_of(&FIRST))).unwrap_err().kind(), "ForbiddenGlobal");
}

/// A model with nothing quantized, its factors turned or not.
fn model(ranks: [usize; 4], turned: bool, transposed: Option<bool>) -> Vec<u8> {
    let sizes = Sizes { channels: 64, head_size: 16, ranks, ..Sizes::TINY };
    let mut made = Made { manifest: Made::kinds().manifest, buffers: Vec::new(), metadata: None };
    let mut entries = serde_json::Map::new();
    for tensor in random_model(Version::V7, &sizes, 4).into_tensors() {
        let mut shape = tensor.info.shape.clone();
        let suffix = tensor.info.name.rsplit('.').next().unwrap();
        let factor = suffix.len() == 2 && suffix.starts_with(['w', 'a', 'v', 'g']) && suffix.ends_with(['1', '2']);
        if factor && turned {
            shape.reverse();
        }
        let mut entry = json!({ "kind": "dense", "shape": shape, "bits": 16, "group": "other", "fields": ["dense"] });
        if let Some(transposed) = transposed {
            entry["transposed"] = json!(factor && transposed);
        }
        let dtype = tensor.info.encoding.name.to_uppercase();
        made.buffers.push((format!("{}::dense", tensor.info.name), dtype, shape, tensor.bytes));
        entries.insert(tensor.info.name, entry);
    }
    made.manifest["tensors"] = Value::Object(entries);
    for (key, value) in [("n_layer", sizes.layers), ("n_embd", 64), ("vocab_size", sizes.vocabulary), ("head_size", 16)] {
        made.manifest[key] = json!(value);
    }
    made.bytes()
}

/// Which way a low-rank factor lies is in its shape; where both sides are equal, the file says it.
#[test]
fn factors_lie_as_shapes_and_the_file_say() {
    let ways = |bytes: &[u8]| -> Result<Vec<bool>, BoxError> {
        let file = TempFile::new(bytes);
        let mapped = open(&file)?.mapped()?;
        let factors = mapped.iter().filter(|tensor| tensor.name.contains(".att.w1") || tensor.name.contains(".att.g2"));
        Ok(factors.map(|tensor| tensor.recover.transposed).collect())
    };
    let (narrow, square) = ([8, 8, 8, 24], [64, 64, 64, 64]);
    for (ranks, turned, transposed, expected) in [
        (narrow, true, Some(false), true),
        (narrow, false, Some(true), false),
        // Of an older version, and of a package that was told otherwise: the shapes say it.
        (narrow, false, None, false),
        (narrow, true, None, true),
        (narrow, false, Some(false), false),
        (square, true, Some(false), true),
        (square, false, Some(true), false),
        (square, false, None, false),
        // One factor of four is square.
        ([8, 8, 8, 64], true, Some(false), true),
        ([64, 8, 8, 8], false, Some(true), false),
    ] {
        let found = ways(&model(ranks, turned, transposed)).unwrap();
        assert!(!found.is_empty() && found.iter().all(|way| *way == expected), "{ranks:?} {turned} {transposed:?}: {found:?}");
    }
    let error = ways(&model(narrow, true, Some(true))).unwrap_err();
    assert_eq!(error.kind(), "BadManifest");
    assert!(error.to_string().contains("att.") && error.to_string().contains("transposed"), "{error}");
    // The sizes that are said are those of the tensors.
    for (key, says) in [("\\\"n_layer\\\":", "n_layer"), ("\\\"head_size\\\":", "head_size")] {
        let bytes = model(narrow, true, Some(false));
        let at = bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap() + key.len();
        let mut changed = bytes.clone();
        changed[at] = b'9';
        let error = ways(&changed).unwrap_err();
        assert!(error.kind() == "BadManifest" && error.to_string().contains(&format!("{says} is 9")), "{error}");
    }
}

/// The first error of reading all tensors.
fn first_error(bytes: &[u8]) -> Option<String> {
    let file = TempFile::new(bytes);
    let opened = open(&file).unwrap();
    opened.tensors().iter().enumerate().find_map(|(index, info)| {
        let mut bytes = vec![0; info.byte_len().unwrap() as usize];
        let error = opened.read_at(index, 0, &mut bytes).err()?;
        assert_eq!((error.kind(), error.class()), ("BadBuffer", Class::Refused));
        Some(error.to_string())
    })
}

/// Every code has as many bits as the manifest says, and no scale a sign.
#[test]
fn r8_codes_beyond_their_bits_and_negative_scales() {
    let good = Made::kinds();
    assert_eq!(first_error(&good.bytes()), None);
    let names: Vec<String> = good.buffers.iter().map(|(name, ..)| name.clone()).collect();
    let mut seen = std::collections::BTreeMap::<&str, usize>::new();
    for name in &names {
        let (tensor, field) = name.split_once("::").unwrap();
        let entry = good.manifest["tensors"][tensor].clone();
        let (kind, bits) = (entry["kind"].as_str().unwrap(), entry["bits"].as_u64().unwrap());
        let mut made = good.clone();
        let (_, _, shape, bytes) = made.buffer(name);
        let columns = *shape.last().unwrap() as usize;
        let (place, expected) = match (kind, field) {
            ("sb6", "gw_d" | "gw_dm") | ("sym", "gw_d") | ("rtn", "scale") => {
                let at = bytes.len() / 2 - 1;
                bytes[2 * at + 1] |= 0x80;
                // A scale of zero has no sign that means anything.
                if bytes[2 * at] == 0 && bytes[2 * at + 1] == 0x80 {
                    bytes[2 * at] = 1;
                }
                (at, "scales that are not negative")
            }
            ("asym", "gw_scale") => {
                let at = bytes.len() / 4 - 1;
                bytes[4 * at..][..4].copy_from_slice(&(-0.5f32).to_le_bytes());
                (at, "scales that are not negative")
            }
            ("asym", "codes") if bits < 8 => {
                let at = bytes.len() - 1;
                bytes[at] = 1 << bits;
                (at, "from 0 to")
            }
            ("rtn", "codes") if bits < 8 => {
                let at = bytes.len() / 2;
                bytes[at] = (-(1i16 << (bits - 1)) - 1) as u8;
                (at, "from -")
            }
            ("rtn", "codes_packed") if bits < 4 => {
                bytes[0] = 0xf0 | bytes[0] & 15;
                (0, "from -")
            }
            _ => continue,
        };
        let said = first_error(&made.bytes()).unwrap_or_else(|| panic!("{name} is taken silently"));
        let at = format!("`{name}` has");
        let place = format!("in row {}, column {}", place / columns, place % columns);
        assert!(said.contains(&at) && said.contains(&place) && said.contains(expected), "{name}: {said}");
        *seen.entry(if expected.starts_with("scales") { "scales" } else { "codes" }).or_default() += 1;
    }
    assert!(seen["scales"] >= 4, "{seen:?}");
}

/// The same of Albatross's scales.
#[test]
fn r8_negative_scales_of_rows() {
    let tensors = [
        ("blocks.0.att.key.weight", "I8", vec![2u64, 8], vec![1u8; 16]),
        ("blocks.0.att.key.weight_scale", "F16", vec![2], vec![0, 0x3c, 0, 0xbc]),
    ];
    let buffers = tensors.map(|(name, dtype, shape, bytes)| (name.to_owned(), dtype.to_owned(), shape, bytes)).to_vec();
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in &buffers {
        header.insert(name.clone(), json!({ "dtype": dtype, "shape": shape, "data_offsets": [data.len(), data.len() + bytes.len()] }));
        data.extend_from_slice(bytes);
    }
    let header = Value::Object(header).to_string();
    let said = first_error(&[&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()).unwrap();
    assert!(said.contains("the scale -1 in row 0, column 1"), "{said}");
}
