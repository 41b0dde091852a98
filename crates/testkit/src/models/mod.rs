//! Models made up from a seed: tiny, complete, in every version and naming, with values for which activations stay of
//! order 1. Start at [`random_model`].
//!
//! Values come from integer arithmetic, additions, products and square roots only, so that every machine makes the
//! same model.

mod deep;

use std::path::{Path, PathBuf};

use rwkv_forge_model::Version;
pub use rwkv_forge_tensor::SplitMix64;
use rwkv_forge_tensor::{BoxError, Class, Diagnostic, Encoding, TensorInfo, TensorSource, f32_to_bf16, f32_to_f16};

/// A named tensor with its bytes: row-major, little endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryTensor {
    /// Name, shape and encoding.
    pub info: TensorInfo,
    /// Content, as long as shape and encoding say.
    pub bytes: Vec<u8>,
}

/// Tensors in memory that are read like a file.
#[derive(Clone, Debug)]
pub struct MemorySource {
    path: PathBuf,
    infos: Vec<TensorInfo>,
    data: Vec<Vec<u8>>,
}

/// A read outside of a tensor.
#[derive(Debug)]
pub struct OutOfRange;

impl std::fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the range is not inside the tensor")
    }
}

impl std::error::Error for OutOfRange {}

impl Diagnostic for OutOfRange {
    fn kind(&self) -> &'static str {
        "OutOfRange"
    }

    fn class(&self) -> Class {
        Class::Usage
    }
}

impl MemorySource {
    /// Tensors as (name, shape, encoding, bytes).
    ///
    /// # Panics
    /// When the number of bytes is not what shape and encoding say.
    #[must_use]
    pub fn new(tensors: Vec<(String, Vec<u64>, Encoding, Vec<u8>)>) -> Self {
        let tensors = tensors.into_iter();
        Self::from_tensors(tensors.map(|(name, shape, encoding, bytes)| MemoryTensor { info: TensorInfo { name, shape, encoding }, bytes }))
    }

    /// Tensors as (name, shape, values), stored as f32.
    ///
    /// # Panics
    /// When the number of values is not what the shape says.
    #[must_use]
    pub fn from_f32(tensors: Vec<(String, Vec<u64>, Vec<f32>)>) -> Self {
        Self::from_tensors(tensors.into_iter().map(|(name, shape, values)| MemoryTensor {
            info: TensorInfo { name, shape, encoding: Encoding::F32 },
            bytes: encode(Encoding::F32, &values),
        }))
    }

    /// As [`MemorySource::new`].
    ///
    /// # Panics
    /// When the number of bytes is not what shape and encoding say.
    #[must_use]
    pub fn from_tensors(tensors: impl IntoIterator<Item = MemoryTensor>) -> Self {
        let mut source = Self { path: PathBuf::from("memory"), infos: Vec::new(), data: Vec::new() };
        for tensor in tensors {
            assert_eq!(tensor.info.byte_len().ok(), Some(tensor.bytes.len() as u64), "bytes of {}", tensor.info.name);
            source.infos.push(tensor.info);
            source.data.push(tensor.bytes);
        }
        source
    }

    /// All tensors, to be changed and made into another source.
    #[must_use]
    pub fn into_tensors(self) -> Vec<MemoryTensor> {
        self.infos.into_iter().zip(self.data).map(|(info, bytes)| MemoryTensor { info, bytes }).collect()
    }

    /// The bytes of the tensor with this name.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        let index = self.infos.iter().position(|info| info.name == name)?;
        self.data.get(index).map(Vec::as_slice)
    }
}

impl MemorySource {
    /// These tensors as a safetensors file, written by the simplest code that can be right.
    ///
    /// # Panics
    /// Never: every tensor has bytes.
    #[must_use]
    pub fn to_safetensors(&self) -> Vec<u8> {
        let mut header = serde_json::Map::new();
        let mut data = Vec::new();
        for info in self.tensors() {
            let bytes = self.bytes(&info.name).expect("every tensor has bytes");
            let offsets = [data.len(), data.len() + bytes.len()];
            data.extend_from_slice(bytes);
            let dtype = info.encoding.name.to_uppercase();
            header.insert(info.name.clone(), serde_json::json!({ "dtype": dtype, "shape": info.shape, "data_offsets": offsets }));
        }
        let header = serde_json::Value::Object(header).to_string();
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
    }
}

impl TensorSource for MemorySource {
    fn path(&self) -> &Path {
        &self.path
    }

    fn format(&self) -> &'static str {
        "memory"
    }

    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn read_at(&self, index: usize, start: u64, out: &mut [u8]) -> Result<(), BoxError> {
        let range = usize::try_from(start).ok().and_then(|start| Some(start..start.checked_add(out.len())?));
        let bytes = self.data.get(index).zip(range).and_then(|(data, range)| data.get(range)).ok_or(OutOfRange)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn check_integrity(&self, _progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<String>, BoxError> {
        Ok(Vec::new())
    }
}

/// Little-endian bytes of the values in f64, f32, f16 or bf16.
///
/// # Panics
/// For other encodings.
#[must_use]
pub fn encode(encoding: Encoding, values: &[f32]) -> Vec<u8> {
    match encoding {
        Encoding::F64 => values.iter().flat_map(|value| f64::from(*value).to_le_bytes()).collect(),
        Encoding::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Encoding::F16 => values.iter().flat_map(|value| f32_to_f16(*value).to_le_bytes()).collect(),
        Encoding::BF16 => values.iter().flat_map(|value| f32_to_bf16(*value).to_le_bytes()).collect(),
        other => panic!("{other} is no dense float"),
    }
}

/// Sizes of a model to make up. Head size and ranks count only where the version has them.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// L.
    pub layers: usize,
    /// C, a multiple of `head_size`.
    pub channels: usize,
    /// N.
    pub head_size: usize,
    /// F.
    pub ffn: usize,
    /// V.
    pub vocabulary: usize,
    /// Inner widths: decay, iclr, value and gate of RWKV-7; mix (D) and decay (D2) of RWKV-6 are `ranks[0]` and
    /// `ranks[1]`.
    pub ranks: [usize; 4],
}

impl Sizes {
    /// 2 layers of 32 channels in heads of 8, ffn 48, vocabulary 40, ranks 6, 7, 3, 9: every size differs from every
    /// other, so that a mix-up of dimensions shows.
    pub const TINY: Self = Self { layers: 2, channels: 32, head_size: 8, ffn: 48, vocabulary: 40, ranks: [6, 7, 3, 9] };
}

/// Where the decay lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// From fast to slow over the channels, as trainers initialise it.
    Typical,
    /// As fast as the version can: w near 0 (near 0.545 for RWKV-7).
    Fast,
    /// w near 1: states never forget.
    Slow,
}

/// What to vary in a made-up model.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Where the decay lies.
    pub decay: Decay,
    /// Dense float that all tensors are stored in.
    pub encoding: Encoding,
    /// RWKV-7: also store v0, v1, v2 in layer 0, as trainers do.
    pub value_in_layer_0: bool,
    /// RWKV-5: store the bonus as `time_first` (logarithms) rather than as `time_faaaa`.
    pub bonus_as_logarithm: bool,
    /// RWKV-7a and 7b: rank of the pairs around tables, rank of keys and values, width of queries.
    pub deep: [usize; 3],
}

impl Options {
    /// Sizes of [`Options::deep`] that differ from all of [`Sizes::TINY`].
    pub const DEEP: [usize; 3] = [5, 4, 10];
    /// Those of the released models, which other programs have built in.
    pub const RELEASED: [usize; 3] = [32, 32, 256];
}

impl Default for Options {
    fn default() -> Self {
        Self { decay: Decay::Typical, encoding: Encoding::F32, value_in_layer_0: false, bonus_as_logarithm: false, deep: Self::DEEP }
    }
}

/// A complete model in BlinkDL names and f32.
#[must_use]
pub fn random_model(version: Version, sizes: &Sizes, seed: u64) -> MemorySource {
    random_model_with(version, sizes, &Options::default(), seed)
}

/// A complete model in BlinkDL names, in the shapes that trainers save.
///
/// # Panics
/// When the encoding is no dense float, and for hybrids, which `crate::hybrids` makes.
#[must_use]
pub fn random_model_with(version: Version, sizes: &Sizes, options: &Options, seed: u64) -> MemorySource {
    let mut maker = Maker { rng: SplitMix64::new(seed), sizes: *sizes, options: *options, layer: 0, tensors: Vec::new() };
    maker.model(version);
    MemorySource::from_tensors(maker.tensors)
}

/// What makes the tensors of a layer.
type MakeLayer = fn(&mut Maker);

/// What makes a layer of each version.
static LAYERS: &[(Version, MakeLayer)] = &[
    (Version::V4, Maker::layer_4),
    (Version::V5_0, |maker| maker.layer_5(false, false)),
    (Version::V5_1, |maker| maker.layer_5(false, true)),
    (Version::V5_2, |maker| maker.layer_5(true, true)),
    (Version::V6, Maker::layer_6),
    (Version::V7, Maker::layer_7),
    (Version::V7a, Maker::layer_7a),
    (Version::V7b, Maker::layer_7b),
];

struct Maker {
    rng: SplitMix64,
    sizes: Sizes,
    options: Options,
    layer: usize,
    tensors: Vec<MemoryTensor>,
}

impl Maker {
    fn put(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let info =
            TensorInfo { name: name.to_owned(), shape: shape.iter().map(|dim| *dim as u64).collect(), encoding: self.options.encoding };
        self.tensors.push(MemoryTensor { info, bytes: encode(self.options.encoding, values) });
    }

    fn put_in_layer(&mut self, suffix: &str, shape: &[usize], values: &[f32]) {
        self.put(&format!("blocks.{}.{suffix}", self.layer), shape, values);
    }

    /// `count` normal numbers around `mean`.
    fn normals(&mut self, count: usize, mean: f32, deviation: f32) -> Vec<f32> {
        (0..count).map(|_| mean + deviation * self.rng.normal()).collect()
    }

    /// A linear layer's weight `[rows, columns]` whose outputs have `gain` times the deviation of its inputs.
    fn matrix(&mut self, suffix: &str, rows: usize, columns: usize, gain: f32) {
        let values = self.normals(rows * columns, 0.0, gain / (columns as f32).sqrt());
        self.put_in_layer(suffix, &[rows, columns], &values);
    }

    /// A low-rank factor `[inputs, outputs]`.
    fn factor(&mut self, suffix: &str, inputs: usize, outputs: usize, gain: f32) {
        let values = self.normals(inputs * outputs, 0.0, gain / (inputs as f32).sqrt());
        self.put_in_layer(suffix, &[inputs, outputs], &values);
    }

    fn norm(&mut self, name: &str) {
        let channels = self.sizes.channels;
        let (weight, bias) = (self.normals(channels, 1.0, 0.1), self.normals(channels, 0.0, 0.02));
        self.put(&format!("{name}.weight"), &[channels], &weight);
        self.put(&format!("{name}.bias"), &[channels], &bias);
    }

    fn norm_in_layer(&mut self, name: &str) {
        self.norm(&format!("blocks.{}.{name}", self.layer));
    }

    /// Token-shift coefficients `[1, 1, C]` between 0 and 1.
    fn mix(&mut self, suffix: &str) {
        let values: Vec<f32> = (0..self.sizes.channels).map(|_| self.rng.uniform()).collect();
        self.wide(suffix, &values);
    }

    fn wide(&mut self, suffix: &str, values: &[f32]) {
        self.put_in_layer(suffix, &[1, 1, values.len()], values);
    }

    /// `count` numbers from `low` to `high` with a little noise.
    fn ramp(&mut self, count: usize, low: f32, high: f32) -> Vec<f32> {
        let step = (high - low) / (count.max(2) - 1) as f32;
        (0..count).map(|i| low + step * i as f32 + 0.05 * self.rng.normal()).collect()
    }

    /// time_decay of RWKV-4 to 6: the decay is exp(-exp(value)).
    fn exponential_decay(&mut self, count: usize) -> Vec<f32> {
        match self.options.decay {
            Decay::Typical => self.ramp(count, -6.0, 1.0),
            Decay::Fast => self.ramp(count, 3.0, 3.5),
            Decay::Slow => self.ramp(count, -12.0, -9.0),
        }
    }

    /// Gain of what is added to the residual stream, so that its size does not grow with the layers.
    fn residual_gain(&self) -> f32 {
        1.0 / (2.0 * self.sizes.layers.max(1) as f32).sqrt()
    }

    fn projections(&mut self) {
        let (channels, residual) = (self.sizes.channels, self.residual_gain());
        for (name, gain) in [("receptance", 1.0), ("key", 0.6), ("value", 1.0), ("output", residual)] {
            self.matrix(&format!("att.{name}.weight"), channels, channels, gain);
        }
    }

    fn channel_mix(&mut self, with_receptance: bool) {
        let (channels, ffn, residual) = (self.sizes.channels, self.sizes.ffn, self.residual_gain());
        self.matrix("ffn.key.weight", ffn, channels, 1.0);
        if with_receptance {
            self.matrix("ffn.receptance.weight", channels, channels, 1.0);
        }
        self.matrix("ffn.value.weight", channels, ffn, residual);
    }

    fn model(&mut self, version: Version) {
        let maker = LAYERS.iter().find(|(of, _)| *of == version);
        let Some((_, layer_of)) = maker else { panic!("there are no random layers of {version}; hybrids are made by random_hybrid") };
        let Sizes { layers, channels, vocabulary, .. } = self.sizes;
        let embedding = self.normals(vocabulary * channels, 0.0, 0.5);
        self.put("emb.weight", &[vocabulary, channels], &embedding);
        for layer in 0..layers {
            self.layer = layer;
            self.norm_in_layer("ln1");
            self.norm_in_layer("ln2");
            if layer == 0 {
                self.norm_in_layer("ln0");
            }
            layer_of(self);
        }
        self.norm("ln_out");
        let head = self.normals(vocabulary * channels, 0.0, 2.0 / (channels as f32).sqrt());
        self.put("head.weight", &[vocabulary, channels], &head);
    }

    fn layer_4(&mut self) {
        let channels = self.sizes.channels;
        let decay = self.exponential_decay(channels);
        let bonus = self.normals(channels, -1.2, 0.5);
        self.put_in_layer("att.time_decay", &[channels], &decay);
        self.put_in_layer("att.time_first", &[channels], &bonus);
        for name in ["att.time_mix_k", "att.time_mix_v", "att.time_mix_r"] {
            self.mix(name);
        }
        self.projections();
        self.mix("ffn.time_mix_k");
        self.mix("ffn.time_mix_r");
        self.channel_mix(true);
    }

    fn layer_5(&mut self, per_channel: bool, gate: bool) {
        let Sizes { channels, head_size, .. } = self.sizes;
        let heads = channels / head_size.max(1);
        let shape = if per_channel { vec![heads, head_size] } else { vec![heads] };
        let count = shape.iter().product();
        let decay = self.exponential_decay(count);
        self.put_in_layer("att.time_decay", &shape, &decay);
        if self.options.bonus_as_logarithm {
            let bonus = self.normals(count, -1.0, 0.3);
            self.put_in_layer("att.time_first", &shape, &bonus);
        } else {
            let bonus = self.normals(count, 0.4, 0.1);
            self.put_in_layer("att.time_faaaa", &shape, &bonus);
        }
        for name in ["att.time_mix_k", "att.time_mix_v", "att.time_mix_r"] {
            self.mix(name);
        }
        self.projections();
        if gate {
            self.mix("att.time_mix_g");
            self.matrix("att.gate.weight", channels, channels, 1.0);
        }
        self.norm_in_layer("att.ln_x");
        self.mix("ffn.time_mix_k");
        self.mix("ffn.time_mix_r");
        self.channel_mix(true);
    }

    fn layer_6(&mut self) {
        let Sizes { channels, head_size, ranks: [mix, rank, ..], .. } = self.sizes;
        for name in ["x", "w", "k", "v", "r", "g"] {
            self.mix(&format!("att.time_maa_{name}"));
        }
        self.factor("att.time_maa_w1", channels, 5 * mix, 0.3);
        let second = self.normals(5 * mix * channels, 0.0, 0.3 / (mix.max(1) as f32).sqrt());
        self.put_in_layer("att.time_maa_w2", &[5, mix, channels], &second);
        let decay = self.exponential_decay(channels);
        self.wide("att.time_decay", &decay);
        self.factor("att.time_decay_w1", channels, rank, 1.0);
        self.factor("att.time_decay_w2", rank, channels, 0.3);
        let bonus = self.normals(channels, 0.3, 0.3);
        self.put_in_layer("att.time_faaaa", &[channels / head_size.max(1), head_size], &bonus);
        self.projections();
        self.matrix("att.gate.weight", channels, channels, 1.0);
        self.norm_in_layer("att.ln_x");
        self.mix("ffn.time_maa_k");
        self.mix("ffn.time_maa_r");
        self.channel_mix(true);
    }

    fn layer_7(&mut self) {
        let Sizes { channels, head_size, ranks: [decay, iclr, value, gate], .. } = self.sizes;
        for name in ["r", "w", "k", "v", "a", "g"] {
            self.mix(&format!("att.x_{name}"));
        }
        // w = exp(-0.6065 * sigmoid(w0 + ...)), so the sign is the opposite of the older versions'.
        let w0 = match self.options.decay {
            Decay::Typical => self.ramp(channels, -6.0, 2.0),
            Decay::Fast => self.ramp(channels, 8.0, 9.0),
            Decay::Slow => self.ramp(channels, -14.0, -12.0),
        };
        self.wide("att.w0", &w0);
        self.factor("att.w1", channels, decay, 1.0);
        self.factor("att.w2", decay, channels, 0.5);
        let a0 = self.normals(channels, -0.2, 0.3);
        self.wide("att.a0", &a0);
        self.factor("att.a1", channels, iclr, 1.0);
        self.factor("att.a2", iclr, channels, 0.5);
        if self.layer > 0 || self.options.value_in_layer_0 {
            let v0 = self.normals(channels, 0.7, 0.2);
            self.wide("att.v0", &v0);
            self.factor("att.v1", channels, value, 1.0);
            self.factor("att.v2", value, channels, 0.5);
        }
        self.factor("att.g1", channels, gate, 1.0);
        self.factor("att.g2", gate, channels, 2.0);
        let (k_k, k_a) = (self.normals(channels, 0.7, 0.05), self.normals(channels, 1.0, 0.05));
        self.wide("att.k_k", &k_k);
        self.wide("att.k_a", &k_a);
        let bonus = self.normals(channels, -0.04, 0.2);
        self.put_in_layer("att.r_k", &[channels / head_size.max(1), head_size], &bonus);
        self.projections();
        self.norm_in_layer("att.ln_x");
        self.mix("ffn.x_k");
        self.channel_mix(false);
    }
}

/// The same model under Hugging Face's names of RWKV-4 to 6.
#[must_use]
pub fn to_hugging_face(model: MemorySource) -> MemorySource {
    let long = |name: &str| {
        let name = name.replace(".att.", ".attention.").replace(".ffn.", ".feed_forward.").replace(".ln0.", ".pre_ln.");
        let pairs = [("time_mix_k", "key"), ("time_mix_v", "value"), ("time_mix_r", "receptance"), ("time_mix_g", "gate")];
        let mixes = pairs.iter().find(|(short, _)| name.ends_with(short));
        match (name.as_str(), mixes) {
            ("head.weight", _) => name,
            ("emb.weight", _) => "rwkv.embeddings.weight".to_owned(),
            (_, Some((short, word))) => format!("rwkv.{}time_mix_{word}", name.trim_end_matches(short)),
            _ => format!("rwkv.{name}"),
        }
    };
    MemorySource::from_tensors(model.into_tensors().into_iter().map(|mut tensor| {
        tensor.info.name = long(&tensor.info.name);
        tensor
    }))
}

/// The same RWKV-6 model under candle's names: those of Hugging Face with RWKV-5's words for the token shift.
#[must_use]
pub fn to_candle_6(model: MemorySource) -> MemorySource {
    let words = [("_k", "_key"), ("_v", "_value"), ("_r", "_receptance"), ("_g", "_gate")];
    MemorySource::from_tensors(to_hugging_face(model).into_tensors().into_iter().map(|mut tensor| {
        if tensor.info.name.contains("time_maa") {
            let name = tensor.info.name.replace("time_maa", "time_mix");
            let long = words.iter().find_map(|(short, word)| Some(format!("{}{word}", name.strip_suffix(short)?)));
            tensor.info.name = long.unwrap_or(name);
        }
        tensor
    }))
}

/// The same RWKV-7 model in ports that number `model.layers` and keep the original names within them; `module` (such as
/// `time_mixer.`) stands between the time mix and its tensors.
#[must_use]
pub fn to_layers(model: MemorySource, module: &str) -> MemorySource {
    MemorySource::from_tensors(model.into_tensors().into_iter().map(|mut tensor| {
        let name = tensor.info.name.replace("blocks.", "layers.").replace(".att.", &format!(".attention.{module}"));
        let name = name.replace(".ffn.", ".feed_forward.").replace("layers.0.ln0.", "pre_ln.").replace("emb.", "embeddings.");
        tensor.info.name = if name.starts_with("head") { format!("lm_{name}") } else { format!("model.{name}") };
        tensor
    }))
}

/// The same model with `model.` in front of every name.
#[must_use]
pub fn to_prefixed(model: MemorySource) -> MemorySource {
    MemorySource::from_tensors(model.into_tensors().into_iter().map(|mut tensor| {
        tensor.info.name.insert_str(0, "model.");
        tensor
    }))
}

/// An RWKV-7 model under flash-linear-attention's names: low-rank factors transposed, vectors as `[C]`. With
/// `stacked`, the six token-shift vectors of a layer are one tensor `attn.x_x` [6, C], as in its older files.
///
/// # Panics
/// When the model is no RWKV-7 model of [`random_model_with`].
#[must_use]
pub fn to_fla(model: MemorySource, stacked: bool) -> MemorySource {
    let mut out: Vec<MemoryTensor> = Vec::new();
    for mut tensor in model.into_tensors() {
        let (layer, suffix) = match tensor.info.name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.')) {
            Some((layer, suffix)) => (layer.to_owned(), suffix.to_owned()),
            None => (String::new(), tensor.info.name.clone()),
        };
        let mix = suffix.strip_prefix("att.x_");
        if stacked && mix.is_some() {
            let name = format!("model.layers.{layer}.attn.x_x");
            match out.last_mut().filter(|last| last.info.name == name) {
                Some(stack) => {
                    stack.info.shape[0] += 1;
                    stack.bytes.extend(tensor.bytes);
                }
                None => {
                    let channels = tensor.info.shape[2];
                    tensor.info = TensorInfo { name, shape: vec![1, channels], encoding: tensor.info.encoding };
                    out.push(tensor);
                }
            }
            continue;
        }
        if is_factor(&suffix) {
            transpose(&mut tensor);
        } else if mix.is_none() {
            tensor.info.shape = tensor.info.shape.split_off(tensor.info.shape.iter().take_while(|dim| **dim == 1).count());
        }
        tensor.info.name = fla_name(&layer, &suffix);
        out.push(tensor);
    }
    MemorySource::from_tensors(out)
}

/// True for w1, w2, a1, ... g2.
fn is_factor(suffix: &str) -> bool {
    matches!(suffix.strip_prefix("att.").map(str::as_bytes), Some([b'w' | b'a' | b'v' | b'g', b'1' | b'2']))
}

fn fla_name(layer: &str, suffix: &str) -> String {
    let inner = match suffix {
        "emb.weight" => return "model.embeddings.weight".to_owned(),
        "ln_out.weight" => return "model.norm.weight".to_owned(),
        "ln_out.bias" => return "model.norm.bias".to_owned(),
        "head.weight" => return "lm_head.weight".to_owned(),
        "att.receptance.weight" => "attn.r_proj.weight".to_owned(),
        "att.key.weight" => "attn.k_proj.weight".to_owned(),
        "att.value.weight" => "attn.v_proj.weight".to_owned(),
        "att.output.weight" => "attn.o_proj.weight".to_owned(),
        other => match other.strip_prefix("att.").map(|name| (name, name.as_bytes())) {
            Some((_, [which @ (b'w' | b'a' | b'v' | b'g'), digit @ b'0'..=b'2'])) => {
                let part = ["2.bias", "0.weight", "2.weight"][usize::from(digit - b'0')];
                format!("attn.{}_lora.lora.{part}", char::from(*which))
            }
            Some((name, _)) => format!("attn.{}", name.replace("ln_x", "g_norm")),
            None => other.replace("ln0.", "pre_norm.").replace("ln1.", "attn_norm.").replace("ln2.", "ffn_norm."),
        },
    };
    format!("model.layers.{layer}.{inner}")
}

/// Swaps the two dimensions of a dense matrix.
fn transpose(tensor: &mut MemoryTensor) {
    let columns = usize::try_from(tensor.info.shape[1]).unwrap_or(usize::MAX);
    let size = tensor.info.encoding.block_bytes as usize;
    let rows = tensor.bytes.len() / size / columns;
    let element = |row: usize, column: usize| &tensor.bytes[(row * columns + column) * size..][..size];
    let swapped: Vec<u8> = (0..columns).flat_map(|column| (0..rows).flat_map(move |row| element(row, column).iter().copied())).collect();
    tensor.bytes = swapped;
    tensor.info.shape.swap(0, 1);
}
