//! The whole matrix, made from the registries: every container that carries a version, with every type that it holds, is
//! written, read back and compared through the binary. A container or format that is registered is in here by that alone.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use std::path::Path;

use crate::support;

use crate::support::{Dir, json};
use rwkv_forge_convert::container::CONTAINERS;
use rwkv_forge_model::Version;
use rwkv_forge_quant::BlockFormat;
use rwkv_forge_tensor::{Encoding, SplitMix64};
use rwkv_forge_testkit::models::{MemorySource, Options, Sizes, random_model_with};

/// Rows of whole blocks of every format, heads as fla wants them, and ranks of RWKV-6 as the classes of Hugging Face (32, 64)
/// or candle (number of heads, twice that) have them built in.
fn sizes(container: &str) -> Sizes {
    let mut ranks = [32, 64, 24, 48];
    if container.starts_with("candle") {
        (ranks[0], ranks[1]) = (4, 8);
    }
    Sizes { layers: 2, channels: 256, head_size: 64, ffn: 768, vocabulary: 320, ranks }
}

/// A model of this version as `container` may have it.
fn model(version: Version, container: &str) -> MemorySource {
    random_model_with(version, &sizes(container), &Options { encoding: Encoding::BF16, deep: Options::RELEASED, ..Options::default() }, 5)
}

/// What becomes of lost weights in a version's predictions. With random weights the KL is almost linear in what a type loses, by a
/// factor that depends on the layers and on how many of the matrices a container leaves dense; where much is lost it stops growing.
struct Sensitivity {
    version: Version,
    /// KL over what is lost: half of the least, and 1.5 times the most, of all types and containers as measured (which is the same on
    /// all machines).
    factor: [f64; 2],
    /// 1.5 times the largest KL measured, that of the coarsest type.
    most: f64,
}

const SENSITIVITIES: [Sensitivity; 6] = [
    Sensitivity { version: Version::V4, factor: [0.26, 1.04], most: 0.08 },
    Sensitivity { version: Version::V5_0, factor: [2.0, 33.0], most: 0.54 },
    Sensitivity { version: Version::V5_1, factor: [0.92, 13.4], most: 0.48 },
    Sensitivity { version: Version::V5_2, factor: [0.77, 9.7], most: 0.48 },
    Sensitivity { version: Version::V6, factor: [0.73, 10.5], most: 0.55 },
    Sensitivity { version: Version::V7, factor: [2.3, 24.6], most: 1.15 },
];

impl Sensitivity {
    fn of(version: Version) -> &'static Self {
        SENSITIVITIES.iter().find(|known| known.version == version).unwrap_or_else(|| panic!("not measured: {version}"))
    }

    /// The largest KL that a type may have which loses this much of the weights.
    fn most(&self, lost: f64) -> f64 {
        (self.factor[1] * lost).min(self.most)
    }

    /// True for a KL that such a type may have.
    fn admits(&self, kl: f64, lost: f64) -> bool {
        (self.factor[0] * lost..=self.most(lost)).contains(&kl)
    }
}

/// The KL that f16 may have, which holds all values of these models but those too small for it: 2.2e-13 was the most. One
/// weight that is lost gives 2.6e-9 at least.
const F16: f64 = 1e-11;

/// What a format loses of weights as these models have them: the mean square of the error over that of normal numbers.
fn lost(format: &dyn BlockFormat) -> f64 {
    let (mut random, encoding) = (SplitMix64::new(11), format.encoding());
    let values: Vec<f32> = (0..1 << 14).map(|_| random.normal() / 16.0).collect();
    let mut bytes = vec![0; values.len() / encoding.block_len as usize * encoding.block_bytes as usize];
    format.encode(&values, &mut bytes).unwrap();
    let mut decoded = vec![0.0; values.len()];
    format.decode(&bytes, &mut decoded);
    let square = |value: f32| f64::from(value) * f64::from(value);
    let errors: f64 = values.iter().zip(&decoded).map(|(a, b)| square(a - b)).sum();
    errors / values.iter().map(|value| square(*value)).sum::<f64>()
}

/// A conversion's record; its output is left at `output`.
fn converted(source: &Path, container: &str, encoding: &str, output: &Path) -> serde_json::Value {
    let mut args = support::convert_args(source, container, encoding, output);
    // The bounds are this test's.
    args.extend(["--probe-tokens", "24", "--max-kl", "20", "--force"].map(str::to_owned));
    json(&args, 0)["record"].clone()
}

fn remove(output: &Path) {
    if output.is_dir() {
        std::fs::remove_dir_all(output).unwrap();
    } else {
        std::fs::remove_file(output).unwrap();
    }
}

#[test]
fn every_container_carries_every_type_of_every_version_that_it_says() {
    let dir = Dir::new();
    let (source, output) = (dir.join("source.safetensors"), dir.join("output"));
    let mut cases = 0;
    for version in Version::ALL {
        for container in CONTAINERS.iter().filter(|container| container.carries(version).is_ok()) {
            std::fs::write(&source, model(version, container.name()).to_safetensors()).unwrap();
            let mut measured: Vec<(f64, f64)> = Vec::new();
            for format in rwkv_forge_quant::FORMATS.iter().filter(|format| container.holds(format.encoding())) {
                let encoding = format.encoding();
                let record = converted(&source, container.name(), encoding.name, &output);
                let case = format!("{version} to {} as {encoding}", container.name());
                let identical = record["agreement"]["identical"].as_bool().unwrap();
                assert_eq!(record["lossless"].as_bool(), Some(identical), "{case}");
                let kl = record["agreement"]["kl"]["mean"].as_f64().unwrap();
                match encoding.name {
                    // All of bf16 fits into f32, whatever the container does to names, orders and values.
                    "f32" | "bf16" => assert!(identical, "{case}: kl {kl:e}"),
                    "f16" => assert!(kl < F16, "{case}: kl {kl:e}"),
                    _ => {
                        let (known, lost) = (Sensitivity::of(version), lost(*format));
                        assert!(!identical && known.admits(kl, lost), "{case}: kl {kl:e}, {lost:e} of the weights lost");
                        // A much finer type in the place of this one would be seen.
                        for (finer, kl) in measured.iter().filter(|(finer, _)| 50.0 * finer < lost) {
                            assert!(!known.admits(*kl, lost), "{case}: nobody would notice a type that loses {finer:e}");
                        }
                        measured.push((lost, kl));
                    }
                }
                remove(&output);
                cases += 1;
            }
        }
    }
    assert!(cases > 200, "{cases} cases");
}

/// The halves of every 32 columns exchanged in matrices with this in their names: what comes of codes that are unpacked in another order.
fn halves_exchanged(model: &MemorySource, of: &str) -> MemorySource {
    let mut tensors = model.clone().into_tensors();
    for tensor in tensors.iter_mut().filter(|tensor| tensor.info.shape.len() == 2 && tensor.info.name.contains(of)) {
        tensor.bytes.as_chunks_mut::<64>().0.iter_mut().for_each(|columns| columns.rotate_left(32));
    }
    MemorySource::from_tensors(tensors)
}

/// One weight of one matrix is zero.
fn one_lost(model: &MemorySource) -> MemorySource {
    let mut tensors = model.clone().into_tensors();
    let tensor = tensors.iter_mut().find(|tensor| tensor.info.name == "blocks.0.ffn.value.weight").unwrap();
    tensor.bytes[200..202].fill(0);
    MemorySource::from_tensors(tensors)
}

/// The bounds above are broken by one wrong weight in f16, by one matrix of the finest type with its columns in another order, and by
/// all matrices of the coarsest.
#[test]
fn faults_are_beyond_what_types_may_lose() {
    let dir = Dir::new();
    let (source, faulty, output) = (dir.join("source.safetensors"), dir.join("faulty.safetensors"), dir.join("output"));
    let kl = |good: &MemorySource, bad: &MemorySource, container: &str, encoding: &str| {
        std::fs::write(&source, good.to_safetensors()).unwrap();
        std::fs::write(&faulty, bad.to_safetensors()).unwrap();
        converted(&faulty, container, encoding, &output);
        let paths = [&source, &output, support::vocab()].map(|path| path.to_str().unwrap().to_owned());
        let args = ["verify", &paths[0], &paths[1], "--vocab", &paths[2], "--probe-tokens", "24", "--max-kl", "20"];
        let record = json(&args, 0);
        remove(&output);
        record["agreement"]["kl"]["mean"].as_f64().unwrap()
    };
    for version in Version::ALL {
        let holding = |encoding| CONTAINERS.iter().find(|container| container.carries(version).is_ok() && container.holds(encoding));
        let blocks = rwkv_forge_quant::encodable().filter(|format| !format.encoding().is_dense());
        let held = blocks.filter_map(|format| Some((lost(format), format.encoding().name, holding(format.encoding())?.name())));
        let mut held: Vec<_> = held.collect();
        held.sort_by(|a, b| a.0.total_cmp(&b.0));

        let good = model(version, "safetensors");
        let found = kl(&good, &one_lost(&good), "safetensors", "f16");
        assert!(found > F16, "{version}: one weight lost: kl {found:e}");
        // Of RWKV-7a and 7b every container that has them holds floats alone.
        let (Some(finest), Some(coarsest)) = (held.first().copied(), held.last().copied()) else {
            assert!([Version::V7a, Version::V7b].contains(&version), "{version}");
            continue;
        };
        let known = Sensitivity::of(version);
        for ((lost, encoding, container), of) in [(finest, "blocks.0.ffn.value."), (coarsest, "blocks.")] {
            let good = model(version, container);
            let found = kl(&good, &halves_exchanged(&good, of), container, encoding);
            let admitted = known.most(lost);
            assert!(found > 1.2 * admitted, "{version} to {container} as {encoding}, {of} out of order: kl {found:e} of {admitted:e}");
        }
    }
}
