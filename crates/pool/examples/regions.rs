//! What a region costs, and what a core that is busy elsewhere costs.
//!
//!     cargo run --release -p rwkv-forge-pool --example regions [THREADS]
//!
//! "Token" stands for 120 regions, as many as a 24-layer model has, that either compute or read 256 MiB of memory. The busy
//! core is a child process that spins, held to core 0 by `taskset` (util-linux).
#![allow(clippy::print_stdout, reason = "a measuring program")]

use std::num::NonZeroUsize;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rwkv_forge_pool::Pool;

const REGIONS: usize = 120;
const PARTS: usize = 16;

fn main() {
    let threads = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(NonZeroUsize::MIN.saturating_add(1));
    let [empty_alone, empty_shared] = [1, threads.get()].map(|threads| region(threads, 0));
    println!("an empty region of {PARTS} parts: {empty_alone:.0} ns with 1 thread, {empty_shared:.0} ns with {threads}");
    let [alone, shared] = [1, threads.get()].map(|threads| region(threads, 1000));
    let lost = shared - alone / threads.get() as f64;
    println!("{PARTS} parts of {:.0} ns: {lost:.0} ns more with {threads} threads than a division without loss", alone / PARTS as f64);
    let memory: Vec<u64> = (0..32 << 20).collect();
    for (name, memory) in [("computing", &[][..]), ("reading", &memory[..])] {
        // Taken in turns, so that a drift of the machine meets all alike.
        let mut rates = [[0.0; 2]; 2];
        for _ in 0..3 {
            for (row, busy) in rates.iter_mut().zip([false, true]) {
                let spinner = busy.then(Spinner::new);
                for (rate, threads) in row.iter_mut().zip([1, threads.get()]) {
                    *rate += tokens(threads, memory) / 3.0;
                }
                drop(spinner);
            }
        }
        for (rates, state) in rates.iter().zip(["quiet", "one core busy elsewhere"]) {
            let [one, many] = rates;
            println!("{name}, {state}: {one:.1} tokens/s with 1 thread, {many:.1} with {threads}: {:.2}", many / one);
        }
    }
}

fn pool(threads: usize) -> Pool {
    Pool::new(NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN))
}

/// Nanoseconds of a region whose parts take `steps` steps each: the median of the better half of some hundred rounds, since
/// nothing but other programs makes a round slower.
fn region(threads: usize, steps: u64) -> f64 {
    let pool = pool(threads);
    let mut locals = vec![(); threads];
    let mut items = [1u64; PARTS];
    let round = || {
        let begun = Instant::now();
        for _ in 0..REGIONS {
            pool.for_each(&mut locals, &mut items, |()| (), |(), _, item| *item = work(*item, steps));
        }
        begun.elapsed().as_nanos() as f64 / REGIONS as f64
    };
    let mut rounds: Vec<f64> = std::iter::repeat_with(round).take(400).collect();
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 4]
}

/// Steps of which each needs the one before it.
fn work(start: u64, steps: u64) -> u64 {
    (0..steps).fold(start, |x, _| (x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9))
}

/// Tokens a second over about two seconds.
fn tokens(threads: usize, memory: &[u64]) -> f64 {
    let pool = pool(threads);
    let mut locals = vec![(); threads];
    let mut sums = [0u64; PARTS];
    let size = memory.len() / REGIONS / PARTS;
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < Duration::from_secs(2) {
        for region in 0..REGIONS {
            let task = |(): &mut (), index: usize, sum: &mut u64| {
                if memory.is_empty() {
                    *sum = work(*sum, 5000);
                } else {
                    let start = (region * PARTS + index) * size;
                    *sum = memory[start..start + size].iter().fold(*sum, |sum, &value| sum.wrapping_add(value));
                }
            };
            pool.for_each(&mut locals, &mut sums, |()| (), task);
        }
        pool.lap();
        count += 1;
    }
    std::hint::black_box(sums);
    f64::from(count) / begun.elapsed().as_secs_f64()
}

/// A process that keeps core 0 busy until dropped.
struct Spinner(Child);

impl Spinner {
    fn new() -> Self {
        let mut command = Command::new("taskset");
        command.args(["-c", "0", "sh", "-c", "while :; do :; done"]);
        Self(command.spawn().unwrap_or_else(|error| panic!("taskset: {error}")))
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
