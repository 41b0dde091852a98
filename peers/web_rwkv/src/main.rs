//! web-rwkv on one file: logits of every token, one token at a time from the empty state, or the prefab that it writes.
//!
//! ```text
//! web-rwkv-logits MODEL.st|MODEL.prefab VERSION f32|f16 TOKENS.json OUT.f32
//! web-rwkv-logits MODEL.st VERSION prefab f16|int8|nf4|sf4 OUT.prefab
//! ```
//!
//! VERSION is 4 to 7, since a prefab has to be read as one of four types; f32 or f16 is what activations are kept in.
//! OUT.f32 gets float32 `[tokens, vocabulary]` in little-endian byte order. The adapter's name goes to stdout.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use half::f16;
use safetensors::SafeTensors;
use serde::Serialize;
use serde::de::DeserializeSeed;
use web_rwkv::context::{Context, ContextBuilder, InstanceExt};
use web_rwkv::num::Float;
use web_rwkv::runtime::infer::{Rnn, RnnInput, RnnInputBatch, RnnOption};
use web_rwkv::runtime::loader::Loader;
use web_rwkv::runtime::model::{Bundle, ModelBuilder, Quant};
use web_rwkv::runtime::{TokioRuntime, v4, v5, v6, v7};
use web_rwkv::tensor::serialization::Seed;
use web_rwkv::wgpu;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, version, what, with, out] = arguments.as_slice() else {
        bail!("usage: web-rwkv-logits MODEL VERSION f32|f16|prefab TOKENS.json|TYPE OUT");
    };
    let tokens = || -> Result<Vec<u32>> { Ok(serde_json::from_slice(&std::fs::read(with)?)?) };
    let bytes = std::fs::read(file)?;
    let adapter = wgpu::Instance::default().adapter(wgpu::PowerPreference::HighPerformance).await.context("no Vulkan adapter")?;
    println!("{}", adapter.get_info().name);
    std::io::stdout().flush()?;
    let limits = adapter.limits();
    let context = ContextBuilder::new(adapter).limits(limits).build().await?;
    let model = Source { bytes: &bytes, is_prefab: Path::new(file).extension().is_some_and(|end| end == "prefab"), context: &context };
    let little_endian = |logits: Vec<f32>| -> Vec<u8> { logits.iter().flat_map(|value| value.to_le_bytes()).collect() };
    let result = match what.as_str() {
        "f32" => little_endian(model.logits::<f32>(version, &tokens()?).await?),
        "f16" => little_endian(model.logits::<f16>(version, &tokens()?).await?),
        "prefab" => model.write_prefab(version, with).await?,
        _ => bail!("{what} is nothing that can be had"),
    };
    std::fs::write(out, result)?;
    // Mesa's driver for the processor ends its threads and frees their memory at the same time, and crashes now and then.
    // SAFETY: ends the process without running anybody's destructors; the result is written.
    unsafe { libc::_exit(0) }
}

/// A file's content, and where its model is to be built.
struct Source<'a> {
    bytes: &'a [u8],
    is_prefab: bool,
    context: &'a Context,
}

/// Builds the model of one version and runs it; the versions have the same interface, but no trait has all of it.
macro_rules! run {
    ($source:expr, $build:ident, $module:ident, $float:ty, $tokens:expr) => {{
        let model = if $source.is_prefab {
            $source.prefab::<$module::Model>()?
        } else {
            ModelBuilder::new($source.context, SafeTensors::deserialize($source.bytes)?).$build().await?
        };
        let bundle = $module::Bundle::<$float>::new(model, 1);
        let vocabulary = bundle.info().num_vocab;
        let runtime = TokioRuntime::<Rnn>::new(bundle).await;
        token_by_token(&runtime, $tokens, vocabulary).await
    }};
}

impl Source<'_> {
    /// Logits after each token, `[tokens, vocabulary]`.
    async fn logits<F: Float>(&self, version: &str, tokens: &[u32]) -> Result<Vec<f32>> {
        match version {
            "4" => run!(self, build_v4, v4, F, tokens),
            "5" => run!(self, build_v5, v5, F, tokens),
            "6" => run!(self, build_v6, v6, F, tokens),
            "7" => run!(self, build_v7, v7, F, tokens),
            _ => bail!("version {version}"),
        }
    }

    /// What web-rwkv quantizes on the adapter and writes as a prefab.
    async fn write_prefab(&self, version: &str, encoding: &str) -> Result<Vec<u8>> {
        let safetensors = SafeTensors::deserialize(self.bytes)?;
        let quant = match encoding {
            "f16" => Quant::None,
            "int8" => Quant::Int8,
            "nf4" => Quant::NF4,
            "sf4" => Quant::SF4,
            _ => bail!("type {encoding}"),
        };
        let layers = Loader::info(&safetensors)?.num_layer;
        let builder = ModelBuilder::new(self.context, safetensors).quant((0..layers).map(|layer| (layer, quant)).collect());
        match version {
            "4" => serialized(builder.build_v4().await?).await,
            "5" => serialized(builder.build_v5().await?).await,
            "6" => serialized(builder.build_v6().await?).await,
            "7" => serialized(builder.build_v7().await?).await,
            _ => bail!("version {version}"),
        }
    }

    fn prefab<M>(&self) -> Result<M>
    where
        for<'de> Seed<'de, Context, M>: DeserializeSeed<'de, Value = M>,
    {
        let reader = cbor4ii::core::utils::SliceReader::new(self.bytes);
        let mut deserializer = cbor4ii::serde::Deserializer::new(reader);
        Ok(Seed::<Context, M>::new(self.context).deserialize(&mut deserializer)?)
    }
}

/// Reads the tensors back from the adapter, which blocks the thread.
async fn serialized(model: impl Serialize + Send + 'static) -> Result<Vec<u8>> {
    Ok(tokio::task::spawn_blocking(move || cbor4ii::serde::to_vec(Vec::new(), &model)).await??)
}

async fn token_by_token(runtime: &TokioRuntime<Rnn>, tokens: &[u32], vocabulary: usize) -> Result<Vec<f32>> {
    let mut logits = Vec::with_capacity(tokens.len() * vocabulary);
    let mut input = RnnInput::new(vec![RnnInputBatch::new(Vec::<u32>::new(), RnnOption::Last)], 32);
    for token in tokens {
        input.batches[0].push(*token);
        let before = logits.len();
        while logits.len() == before {
            let (rest, output) = runtime.infer(input).await?;
            input = rest;
            let output = output[0].0.clone().to_vec();
            // Rows are padded to whole groups of the shaders.
            logits.extend(output.iter().take(vocabulary));
            ensure!(!input.batches[0].tokens.is_empty() || logits.len() == before + vocabulary, "no logits after token {token}");
        }
    }
    Ok(logits)
}
