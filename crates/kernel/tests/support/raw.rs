use super::*;
use forge_model::*;
pub fn open(dir: &str) -> (MemorySource, ModelDescription) {
    let index = std::fs::read_to_string(format!("{dir}/index.txt")).unwrap();
    let data = std::fs::read(format!("{dir}/data")).unwrap();
    let mut s = MemorySource { tensors: vec![], bytes: vec![] };
    let mut at = 0;
    let mut specs = vec![];
    for line in index.lines() {
        let mut it = line.split(' ');
        let name = it.next().unwrap().to_owned();
        let encoding = if it.next() == Some("bf16") { Encoding::BF16 } else { Encoding::F32 };
        let shape: Vec<u64> = it.map(|d| d.parse().unwrap()).collect();
        let n = encoding.byte_len(&shape).unwrap() as usize;
        specs.push(TensorSpec {
            name: name.clone(),
            shape: shape.clone(),
            role: TensorRole::LayerNorm,
            layer: None,
            source_index: s.tensors.len(),
            recover: Recover::AS_IS,
        });
        s.tensors.push(TensorInfo { name, shape, encoding });
        s.bytes.push(data[at..at + n].to_vec());
        at += n;
    }
    let get = |n: &str| specs.iter().find(|s| s.name == n).map(|s| s.shape.clone());
    let layers = (0..).take_while(|i| get(&format!("blocks.{i}.ln1.weight")).is_some()).count();
    let emb = get("emb.weight").unwrap();
    let ffn = get("blocks.0.ffn.key.weight").unwrap()[0] as usize;
    let d = |n: &str, i: usize| get(n).unwrap()[i] as usize;
    let (version, heads, head_size, ranks) = if get("blocks.0.att.r_k").is_some() {
        (
            Version::V7,
            d("blocks.0.att.r_k", 0),
            d("blocks.0.att.r_k", 1),
            Ranks::V7 {
                decay: d("blocks.0.att.w1", 1),
                iclr: d("blocks.0.att.a1", 1),
                value: d("blocks.1.att.v1", 1),
                gate: d("blocks.0.att.g1", 1),
            },
        )
    } else if get("blocks.0.att.time_maa_x").is_some() {
        (
            Version::V6,
            d("blocks.0.att.time_faaaa", 0),
            d("blocks.0.att.time_faaaa", 1),
            Ranks::V6 { mix: d("blocks.0.att.time_maa_w2", 1), decay: d("blocks.0.att.time_decay_w1", 1) },
        )
    } else if get("blocks.0.att.ln_x.weight").is_some() {
        (Version::V5_2, d("blocks.0.att.time_faaaa", 0), d("blocks.0.att.time_faaaa", 1), Ranks::None {})
    } else {
        (Version::V4, 0, 0, Ranks::None {})
    };
    let c = emb[1] as usize;
    let h = Hyperparameters { layers, channels: c, attention: c, ffn, vocabulary: emb[0] as usize, heads, head_size, ranks };
    (s, ModelDescription { version, hyperparameters: h, tensors: specs, unused: vec![] })
}
