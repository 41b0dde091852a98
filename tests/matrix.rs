//! The whole matrix, made from the registries: every container that carries a version, with every type that it holds, is
//! written, read back and compared through the binary. A container or format that is registered is in here by that alone.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use crate::support;

use crate::support::{Dir, json, safetensors_bytes};
use rwkv_forge_convert::container::CONTAINERS;
use rwkv_forge_model::Version;
use rwkv_forge_tensor::Encoding;
use rwkv_forge_testkit::models::{Options, Sizes, random_model_with};

/// Rows of whole blocks of every format, heads as fla wants them, and ranks of RWKV-6 as the classes of Hugging Face (32, 64)
/// or candle (number of heads, twice that) have them built in.
fn sizes(container: &str) -> Sizes {
    let mut ranks = [32, 64, 24, 48];
    if container.starts_with("candle") {
        (ranks[0], ranks[1]) = (4, 8);
    }
    Sizes { layers: 2, channels: 256, head_size: 64, ffn: 768, vocabulary: 320, ranks }
}

#[test]
fn every_container_carries_every_type_of_every_version_that_it_says() {
    let dir = Dir::new();
    let mut cases = 0;
    for version in Version::ALL {
        for container in CONTAINERS.iter().filter(|container| container.carries(version).is_ok()) {
            let options = Options { encoding: Encoding::BF16, ..Options::default() };
            let source = dir.join("source.safetensors");
            std::fs::write(&source, safetensors_bytes(&random_model_with(version, &sizes(container.name()), &options, 5))).unwrap();
            for format in rwkv_forge_quant::FORMATS.iter().filter(|format| container.holds(format.encoding())) {
                let encoding = format.encoding();
                let output = dir.join("output");
                let mut args = support::convert_args(&source, container.name(), encoding.name, &output);
                // Random weights forgive little, and 2 bits leave little: the point is the way there and back.
                args.extend(["--probe-tokens", "24", "--max-kl", "20", "--force"].map(str::to_owned));
                let record = json(&args, 0)["record"].clone();
                let case = format!("{version} to {} as {encoding}", container.name());
                let identical = record["agreement"]["identical"].as_bool().unwrap();
                assert_eq!(record["lossless"].as_bool(), Some(identical), "{case}");
                let kl = record["agreement"]["kl"]["mean"].as_f64().unwrap();
                match encoding.name {
                    // All of bf16 fits into f32, whatever the container does to names, orders and values.
                    "f32" => assert!(identical, "{case}: kl {kl}"),
                    "f16" | "bf16" => assert!(kl < 1e-3, "{case}: kl {kl}"),
                    _ => assert!(!identical && kl.is_finite(), "{case}: kl {kl}"),
                }
                if output.is_dir() {
                    std::fs::remove_dir_all(&output).unwrap();
                } else {
                    std::fs::remove_file(&output).unwrap();
                }
                cases += 1;
            }
        }
    }
    assert!(cases > 200, "{cases} cases");
}
