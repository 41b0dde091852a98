//! Logits of every token by candle's RWKV models, one token at a time from the empty state.
//!
//! ```text
//! candle-logits DIRECTORY TOKENS.json OUT.f32
//! ```
//!
//! DIRECTORY has `config.json` and either safetensors or one `.gguf`; which model it is for, the names of the tensors say.
//! OUT.f32 gets float32 `[tokens, vocabulary]` in little-endian byte order. Weights are computed with in float32.

use std::error::Error;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{quantized_rwkv_v5, quantized_rwkv_v6, rwkv_v5, rwkv_v6, rwkv_v7};
use candle_transformers::quantized_var_builder::VarBuilder as QuantizedBuilder;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, tokens, out] = arguments.as_slice() else {
        return Err("usage: candle-logits DIRECTORY TOKENS.json OUT.f32".into());
    };
    let tokens: Vec<u32> = serde_json::from_slice(&std::fs::read(tokens)?)?;
    let mut next = open(Path::new(directory))?;
    let mut logits = Vec::new();
    for token in tokens {
        for value in next(token)? {
            logits.extend_from_slice(&value.to_le_bytes());
        }
    }
    std::fs::write(out, logits)?;
    Ok(())
}

/// Reads one token and gives the logits after it, `[vocabulary]`.
type Next = Box<dyn FnMut(u32) -> Result<Vec<f32>>>;

/// The model in `directory`, in the empty state.
fn open(directory: &Path) -> Result<Next> {
    let config = std::fs::read(directory.join("config.json"))?;
    let files = |extension: &str| -> Result<Vec<PathBuf>> {
        let mut files: Vec<PathBuf> = std::fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        files.retain(|file| file.extension().is_some_and(|found| found == extension));
        files.sort();
        Ok(files)
    };
    if let [file, ..] = files("gguf")?.as_slice() {
        return quantized(file, &config);
    }
    let files = files("safetensors")?;
    if files.is_empty() {
        return Err(format!("{}: neither .safetensors nor .gguf in it", directory.display()).into());
    }
    // SAFETY: nobody changes the files while this program, which maps them, runs.
    let weights = unsafe { VarBuilder::from_mmaped_safetensors(&files, DType::F32, &Device::Cpu)? };
    if weights.contains_tensor("blocks.0.att.r_k") {
        return seven(&config, weights);
    }
    if weights.contains_tensor("rwkv.blocks.0.attention.time_mix_w1") { six(&config, weights) } else { five(&config, weights) }
}

/// RWKV-5 and RWKV-6 have the same interface in four modules; only the types differ.
macro_rules! earlier {
    ($module:ident, $config:expr, $weights:expr) => {{
        let config: rwkv_v5::Config = serde_json::from_slice($config)?;
        let model = $module::Model::new(&config, $weights)?;
        let mut state = rwkv_v5::State::new(1, &config, &Device::Cpu)?;
        Ok(Box::new(move |token| {
            let logits = model.forward(&Tensor::new(&[[token]], &Device::Cpu)?, &mut state)?;
            Ok(logits.flatten_all()?.to_vec1()?)
        }))
    }};
}

fn five(config: &[u8], weights: VarBuilder) -> Result<Next> {
    earlier!(rwkv_v5, config, weights)
}

fn six(config: &[u8], weights: VarBuilder) -> Result<Next> {
    earlier!(rwkv_v6, config, weights)
}

fn seven(config: &[u8], weights: VarBuilder<'static>) -> Result<Next> {
    let config: rwkv_v7::Config = serde_json::from_slice(config)?;
    let model = rwkv_v7::Model::new(&config, weights)?;
    let mut state = rwkv_v7::State::new(&config, &Device::Cpu)?;
    Ok(Box::new(move |token| Ok(model.forward(&Tensor::new(&[[token]], &Device::Cpu)?, &mut state, &[token])?.to_vec1()?)))
}

fn quantized(file: &Path, config: &[u8]) -> Result<Next> {
    let content = gguf_file::Content::read(&mut std::fs::File::open(file)?)?;
    let weights = QuantizedBuilder::from_gguf(file, &Device::Cpu)?;
    if content.tensor_infos.contains_key("rwkv.blocks.0.attention.time_mix_w1") {
        earlier!(quantized_rwkv_v6, config, weights)
    } else {
        earlier!(quantized_rwkv_v5, config, weights)
    }
}
