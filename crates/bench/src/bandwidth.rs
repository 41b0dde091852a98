//! How fast the machine reads memory: what decoding, which reads every weight once a token, is bound by.
//!
//! A buffer larger than every cache is summed from beginning to end by the pool that the engine uses, in parts of 1 MiB which
//! the threads take in turns, with the widest loads of this CPU at four places at once, so that nothing but memory is waited for.
//! The buffer lies in huge pages where the system has them, as the engine's weights do.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use rwkv_forge_matrix::{Isa, Pass};
use rwkv_forge_pool::Pool;
use serde::Serialize;

use crate::error::BenchError;
use crate::statistics::Spread;
use crate::system::{Machine, available_memory};

/// Read at least; more where the last-level cache is larger than half of it.
const SIZE: u64 = 1 << 30;
/// What a thread takes at a time.
const PART: usize = 1 << 20;

/// The read bandwidth of some threads.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bandwidth {
    /// Threads that read.
    pub threads: usize,
    /// Size of the buffer.
    pub buffer_bytes: usize,
    /// Bytes a second, over the passes.
    pub bytes_per_second: Spread,
}

/// Memory that is read, and what its sum is.
pub struct Buffer {
    memory: MmapMut,
    sum: u64,
}

impl Buffer {
    /// As large as `machine` needs: 1 GiB, or twice its last-level cache, but a quarter of the available memory at most.
    ///
    /// # Errors
    /// [`BenchError::Memory`] when the system has no more.
    pub fn new(machine: &Machine) -> Result<Self, BenchError> {
        let wanted = SIZE.max(machine.last_level_cache_bytes.unwrap_or(0).saturating_mul(2));
        let bytes = wanted.min(available_memory().unwrap_or(u64::MAX) / 4);
        Self::with_bytes(usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// Of this size, rounded up to a multiple of 1 MiB.
    ///
    /// # Errors
    /// As [`Buffer::new`].
    pub fn with_bytes(bytes: usize) -> Result<Self, BenchError> {
        let rounded = bytes.max(1).checked_next_multiple_of(PART).unwrap_or(usize::MAX);
        let mut memory = MmapMut::map_anon(rounded).map_err(|error| BenchError::Memory { bytes, reason: error.to_string() })?;
        // Only speed depends on the advice.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        // Pages that were never written share one page of zeros, which would be read from the cache.
        let mut sum = 0u64;
        let mut value = 0u64;
        for word in memory.as_chunks_mut::<8>().0 {
            value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            sum = sum.wrapping_add(value);
            *word = value.to_le_bytes();
        }
        Ok(Self { memory, sum })
    }

    /// Size of the buffer.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.memory.len()
    }
}

/// Threads that read.
pub struct Reader {
    pool: Pool,
    isa: Isa,
    locals: Vec<u64>,
    passes: Vec<f64>,
}

impl Reader {
    /// So many threads, reading as wide as this CPU can.
    #[must_use]
    pub fn new(threads: NonZeroUsize) -> Self {
        let pool = Pool::new(threads);
        Self { locals: vec![0; pool.threads()], pool, isa: Isa::best(), passes: Vec::new() }
    }

    /// Threads asked for.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Reads the whole buffer once and says how long it took.
    ///
    /// # Errors
    /// [`BenchError::Sum`] when something else was read than had been written.
    pub fn pass(&mut self, buffer: &Buffer) -> Result<Duration, BenchError> {
        let mut parts: Vec<&[u8]> = buffer.memory.chunks(PART).collect();
        self.locals.fill(0);
        let isa = self.isa;
        let begun = Instant::now();
        let sum = |local: &mut u64, _: usize, part: &mut &[u8]| *local = local.wrapping_add(isa.run(Sum(part)));
        self.pool.for_each(&mut self.locals, &mut parts, |_| (), sum);
        let time = begun.elapsed();
        self.pool.lap();
        let found = self.locals.iter().fold(0u64, |sum, local| sum.wrapping_add(*local));
        if found != buffer.sum {
            return Err(BenchError::Sum { found, expected: buffer.sum });
        }
        self.passes.push(buffer.bytes() as f64 / time.as_secs_f64());
        Ok(time)
    }

    /// Forgets the passes so far.
    pub fn forget(&mut self) {
        self.passes.clear();
    }

    /// The result of the passes so far; `None` without any.
    #[must_use]
    pub fn bandwidth(&self, buffer: &Buffer) -> Option<Bandwidth> {
        let bytes_per_second = Spread::of(&self.passes)?;
        Some(Bandwidth { threads: self.threads(), buffer_bytes: buffer.bytes(), bytes_per_second })
    }
}

/// The sum of all words of 8 bytes, read at four places at once: one place alone does not keep memory as busy.
struct Sum<'a>(&'a [u8]);

impl Pass for Sum<'_> {
    type Output = u64;

    // One sum and one index: the compiler widens that on every instruction set, which it does not with sums of our own making.
    #[inline(always)]
    fn run(self) -> u64 {
        let words = self.0.as_chunks::<8>().0;
        let quarter = words.len() / 4;
        let (first, rest) = words.split_at(quarter);
        let (second, rest) = rest.split_at(quarter);
        let (third, rest) = rest.split_at(quarter);
        let (fourth, rest) = rest.split_at(quarter);
        let mut sum = 0u64;
        for index in 0..quarter {
            let pairs = [first[index], second[index], third[index], fourth[index]].map(u64::from_le_bytes);
            sum = pairs.into_iter().fold(sum, u64::wrapping_add);
        }
        rest.iter().map(|word| u64::from_le_bytes(*word)).fold(sum, u64::wrapping_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_buffer_is_read() {
        let mut buffer = Buffer::with_bytes(3 * PART).unwrap();
        for threads in 1..=3 {
            let mut reader = Reader::new(NonZeroUsize::new(threads).unwrap());
            reader.pass(&buffer).unwrap();
            let bandwidth = reader.bandwidth(&buffer).unwrap();
            assert_eq!((bandwidth.threads, bandwidth.buffer_bytes, bandwidth.bytes_per_second.count), (threads, 3 * PART, 1));
            reader.forget();
            assert_eq!(reader.bandwidth(&buffer), None);
        }
        // A byte that nobody reads would not be missed: change each part once.
        for part in 0..3 {
            buffer.memory[part * PART + 12_345] ^= 1;
            let error = Reader::new(NonZeroUsize::MIN).pass(&buffer).unwrap_err();
            assert!(matches!(error, BenchError::Sum { .. }), "part {part}");
            buffer.memory[part * PART + 12_345] ^= 1;
        }
    }

    #[test]
    fn sums_do_not_depend_on_the_instruction_set() {
        let bytes: Vec<u8> = (0..2000u32).map(|index| index.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        let expected = bytes.chunks_exact(8).fold(0u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(word.try_into().unwrap())));
        for isa in Isa::all() {
            assert_eq!(isa.run(Sum(&bytes)), expected, "{isa}");
        }
    }
}
