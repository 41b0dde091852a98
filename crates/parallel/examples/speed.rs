//! Prompt speed of the parallel form: `speed FILE [TOKENS [CHUNK [RUNS]]]`, tokens a second of the best of RUNS runs over
//! TOKENS tokens, logits of the last one only, in f32 on the CPU; and the CPU time of the run that took least of it, of all
//! threads together, which other programs on the machine disturb less. Threads: environment variables `RAYON_NUM_THREADS`,
//! and `CANDLE_NUM_THREADS` for what candle computes element by element.
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use rwkv_forge_checkpoint::Limits;
use rwkv_forge_parallel::{ParallelModel, ParallelOptions};
use rwkv_forge_weights::Model;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, numbers @ ..] = arguments.as_slice() else {
        return Err("usage: speed FILE [TOKENS [CHUNK [RUNS]]]".into());
    };
    let number = |index: usize, default: usize| numbers.get(index).map_or(Ok(default), |text| text.parse());
    let (count, chunk, runs) = (number(0, 512)?, number(1, ParallelOptions::DEFAULT_CHUNK)?, number(2, 5)?);
    let source = rwkv_forge_checkpoint::open(Path::new(file), &Limits::default())?;
    let description = rwkv_forge_model::describe(source.tensors())?;
    let model = Model::over(source.into(), description.clone());
    let vocabulary = u32::try_from(description.hyperparameters.vocabulary)?;
    let tokens: Vec<u32> = (0..u32::try_from(count)?).map(|index| index.wrapping_mul(7919) % vocabulary).collect();
    let begin = Instant::now();
    let parallel = ParallelModel::<f32>::load(&model, &ParallelOptions::default().with_chunk(chunk))?;
    println!("{}; loaded in {:.2} s", description.summary(), begin.elapsed().as_secs_f64());
    let start = parallel.zero_states();
    let (mut best, mut least) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..runs {
        let (begin, cpu) = (Instant::now(), cpu_seconds());
        parallel.last_logits(&tokens, &start)?;
        best = best.min(begin.elapsed().as_secs_f64());
        least = least.min(cpu_seconds() - cpu);
    }
    println!(
        "{count} tokens, chunks of {chunk}: {:.1} tokens/s ({:.1} ms), CPU time {:.1} ms",
        count as f64 / best,
        best * 1e3,
        least * 1e3
    );
    Ok(())
}

fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
