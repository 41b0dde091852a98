use forge_quantizer::*;
fn cpu() -> f64 { std::fs::read_to_string("/proc/thread-self/schedstat").unwrap().split(' ').next().unwrap().parse::<f64>().unwrap()*1e-9 }
fn rng() -> impl FnMut() -> f32 { let mut s=7u64; move || { let mut t=0.0; for _ in 0..6 { s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407); t += (s >> 40) as f32 / 8_388_608.0 - 1.0; } t*0.7 } }
fn main() {
    rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global().unwrap();
    let args: Vec<String> = std::env::args().collect();
    let (rows, n): (usize, usize) = (args[1].parse().unwrap(), args[2].parse().unwrap());
    let mut r = rng();
    let values: Vec<f32>; let h: Vec<f32>;
    if args.len() > 3 && std::path::Path::new(&args[3]).exists() {
        let rd=|p:&str| -> Vec<f32> { std::fs::read(p).unwrap().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect() };
        values = rd(&args[3]); h = rd(&args[4]);
    } else {
        values = (0..rows*n).map(|_| r()*0.02).collect();
        // AR(1) + outliers
        let amp: Vec<f32> = (0..n).map(|i| if i%97==5 {20.0} else {1.0 + (i%7) as f32*0.2}).collect();
        h = (0..n*n).map(|k| { let (i,j)=(k/n,k%n); amp[i]*amp[j]*0.9f32.powi((i as i32-j as i32).abs()) }).collect();
    }
    let t=cpu();
    let factor = Factor::new(&Hessian{columns:n, block:n, values:&h}, 0.1).unwrap();
    println!("factor {n}: {:.3} s", (cpu()-t));
    let efactor = if args.len() > 5 { let e: Vec<f32> = std::fs::read(&args[5]).unwrap().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(); Factor::new(&Hessian{columns:n, block:n, values:&e}, 0.001).unwrap() } else { Factor::new(&Hessian{columns:n, block:n, values:&h}, 0.1).unwrap() };
    let imp = factor.importance().to_vec();
    let only = std::env::var("ONLY").ok();
    for f in supported(Quantizer::Gptq) {
        if n % f.block_len as usize != 0 { continue }
        if let Some(o)=&only { if !o.split(',').any(|o| o==f.name) {continue} }
        let target = Target{format:f, rows, columns:n, importance:Some(&imp)};
        let mut out = vec![0u8; rows*n/f.block_len as usize*f.block_bytes as usize];
        let w = rows as f64 * n as f64;
        let mut line = format!("{:7}", f.name);
        let mut base=(0.0,0.0);
        for q in Quantizer::ALL {
            let t=cpu();
            match q { Quantizer::Ggml => ggml(&values,&target,&mut out), Quantizer::Search => search(&values,&target,&mut out), Quantizer::Gptq => gptq(&values,&target,&factor,&mut out) }.unwrap();
            let ns = (cpu()-t)*1e9/w;
            let l = if std::env::var("NOLOSS").is_ok() { Loss{weighted_error:1.0,hessian_error:Some(1.0)} } else {loss(&values,&target,Some(&efactor),&out).unwrap()};
            if q==Quantizer::Ggml { base=(l.weighted_error, l.hessian_error.unwrap()); }
            line += &format!(" | {q} {ns:7.1} ns w {:.4} h {:.4}", l.weighted_error/base.0, l.hessian_error.unwrap()/base.1);
        }
        println!("{line}");
    }
}
