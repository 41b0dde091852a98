//! x
#![allow(clippy::unwrap_used, missing_docs, reason="x")]
use forge_calibrate::*;
use std::time::Instant;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let source = forge_checkpoint::open(a[1].as_ref(), &forge_checkpoint::Limits::default()).unwrap();
    let d = forge_model::describe(source.tensors()).unwrap();
    let v = d.hyperparameters.vocabulary as u32;
    let tokens: Vec<u32> = match a.get(5) {
        Some(vocab) => forge_tokenizer::Tokenizer::from_bytes("v", &std::fs::read(vocab).unwrap()).unwrap().encode(&std::fs::read("/work/shared/data/text/calib.txt").unwrap()).unwrap(),
        None => (0..200_000u64).map(|i| (((i * 2_654_435_761) >> 7) % u64::from(v)) as u32).collect(),
    };
    let n: usize = a[2].parse().unwrap();
    let seqs: Vec<&[u32]> = tokens.chunks_exact(512).take(n).collect();
    let h = match a[3].as_str() { "none" => Hessians::None, "all" => Hessians::All, _ => Hessians::Matrices };
    let o = Options { hessians: h, ..Options::default() };
    let s = Instant::now();
    let st = calibrate_to_file(a[4].as_ref(), "x", source.as_ref(), &d, &seqs, &o, &|p| eprintln!("{:?} {:.1}", p, s.elapsed().as_secs_f64())).unwrap();
    println!("{} sequences, {:.1} s, {} weights, {} bytes", seqs.len(), s.elapsed().as_secs_f64(), st.names().count(), std::fs::metadata(&a[4]).unwrap().len());
}
