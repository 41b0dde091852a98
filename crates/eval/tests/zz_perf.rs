#![allow(warnings)]
mod support;
use forge_eval::*;
use forge_testkit::models::*;
use forge_model::*;
#[test]
fn perf() {
    let t = std::time::Instant::now();
    let sizes = Sizes { layers: 24, channels: 1024, head_size: 64, ffn: 4096, vocabulary: 65536, ranks: [64, 64, 32, 128] };
    let o = Options { encoding: forge_tensor::Encoding::BF16, ..Options::default() };
    let s = random_model_with(Version::V7, &sizes, &o, 1);
    let d = describe(forge_tensor::TensorSource::tensors(&s)).unwrap();
    eprintln!("made {:?} params {}", t.elapsed(), d.parameters());
    let tokens: Vec<u32> = (0..128u32).map(|i| i * 37 % 65000).collect();
    let m = Model::new(&s, &d);
    let t = std::time::Instant::now();
    let mut last = std::time::Instant::now();
    let r = compare(&m, &m, &CompareOptions::new(&tokens), &mut |p| { if p.done % 12 == 0 || p.stage == "head" { eprintln!("{p:?} {:?}", t.elapsed()); } }).unwrap();
    eprintln!("compare {:?} {}", t.elapsed(), r.identical);
    let x = vec![0.5f32; 128 * 1024];
    let t = std::time::Instant::now();
    let l = forge_kernel::Layer::<f32>::load(&s, &d, 3, &m.options).unwrap();
    eprintln!("load {:?}", t.elapsed());
    let mut x = x; let mut st = forge_kernel::LayerState::zero(&d); let mut c = forge_kernel::SequenceContext::new(); c.v_first = vec![0.1; 128*1024];
    let t = std::time::Instant::now();
    l.forward(&mut x, &mut st, &mut c);
    eprintln!("forward {:?}", t.elapsed());
}
