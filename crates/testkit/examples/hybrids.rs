//! Writes made-up hybrids with Qwen, as their authors publish them, into the folder given: for comparisons with other
//! runtimes. One folder a model: `arwkv`, `arwkv-bare`, `qrwkv`, `qrwkv-bare`. A second argument is the number of layers (3).

use std::path::{Path, PathBuf};

use rwkv_forge_model::Version;
use rwkv_forge_tensor::{Encoding, TensorSource};
use rwkv_forge_testkit::hybrids::{Variant, config_json, random_hybrid, tokenizer_json};
use rwkv_forge_testkit::models::{MemorySource, Sizes};
use serde_json::{Map, json};

fn main() -> std::io::Result<()> {
    let Some(folder) = std::env::args().nth(1).map(PathBuf::from) else {
        return Err(std::io::Error::other("give the folder to write to"));
    };
    let layers = std::env::args().nth(2).and_then(|layers| layers.parse().ok()).unwrap_or(3);
    let sizes = |ranks| Sizes { layers, channels: 256, head_size: 64, ffn: 512, vocabulary: 320, ranks };
    let (seven, six) = ([64, 64, 32, 128], [32, 64, 0, 0]);
    let bf16 = Variant { encoding: Encoding::BF16, ..Variant::FULL };
    for (name, version, sizes, variant) in [
        ("arwkv", Version::ARwkv7, sizes(seven), bf16),
        ("arwkv-bare", Version::ARwkv7, sizes(seven), Variant::BARE),
        ("qrwkv", Version::QRwkv6, sizes(six), Variant { kv_heads: 2, ..bf16 }),
        ("qrwkv-bare", Version::QRwkv6, sizes(six), Variant::BARE),
    ] {
        write(&folder.join(name), version, &sizes, &variant)?;
    }
    Ok(())
}

fn write(folder: &Path, version: Version, sizes: &Sizes, variant: &Variant) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("model.safetensors"), safetensors(&random_hybrid(version, sizes, variant, 5)))?;
    std::fs::write(folder.join("config.json"), config_json(version, sizes, variant).to_string())?;
    std::fs::write(folder.join("tokenizer.json"), tokenizer_json().to_string())?;
    let special = json!({ "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>" });
    std::fs::write(folder.join("tokenizer_config.json"), special.to_string())
}

/// The model as a safetensors file.
fn safetensors(source: &MemorySource) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for info in source.tensors() {
        let begin = data.len();
        data.extend_from_slice(source.bytes(&info.name).unwrap_or_default());
        let kind = info.encoding.name.to_uppercase();
        header.insert(info.name.clone(), json!({ "dtype": kind, "shape": info.shape, "data_offsets": [begin, data.len()] }));
    }
    let mut text = serde_json::Value::Object(header).to_string();
    while !text.len().is_multiple_of(8) {
        text.push(' ');
    }
    [(text.len() as u64).to_le_bytes().as_slice(), text.as_bytes(), &data].concat()
}
