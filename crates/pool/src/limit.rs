//! How many threads are of any use here.

use std::num::NonZeroUsize;

/// Threads of any use, for each processor: more only take turns. Those beyond one help where reading a file waits for a disk.
const PER_PROCESSOR: usize = 4;
/// So many are always granted, so that results can be compared between numbers of threads on small machines too.
const ALWAYS: usize = 16;

/// The most threads that help on this machine: four for each processor that the process may use, and 16 in any case.
#[must_use]
pub fn most_threads() -> NonZeroUsize {
    most_threads_of(std::thread::available_parallelism().map_or(1, NonZeroUsize::get))
}

/// As many threads as were asked for, at most [`most_threads`].
///
/// ```
/// use std::num::NonZeroUsize;
///
/// use rwkv_forge_pool::{most_threads, useful_threads};
///
/// assert_eq!(useful_threads(NonZeroUsize::MIN).get(), 1);
/// // Somebody asks for a thread for each of a million things to do.
/// let asked = NonZeroUsize::new(1_000_000).expect("it is not 0");
/// assert_eq!(useful_threads(asked), most_threads().min(asked));
/// ```
#[must_use]
pub fn useful_threads(asked: NonZeroUsize) -> NonZeroUsize {
    asked.min(most_threads())
}

fn most_threads_of(processors: usize) -> NonZeroUsize {
    NonZeroUsize::new(processors.saturating_mul(PER_PROCESSOR).max(ALWAYS)).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::{NonZeroUsize, most_threads, most_threads_of, useful_threads};

    #[test]
    fn threads_that_help_no_more_are_not_granted() {
        assert_eq!([1, 2, 4, 5, 64, usize::MAX].map(|processors| most_threads_of(processors).get()), [16, 16, 16, 20, 256, usize::MAX]);
        let asked = |count: usize| useful_threads(NonZeroUsize::new(count).unwrap()).get();
        assert_eq!((asked(1), asked(16), asked(usize::MAX)), (1, 16, most_threads().get()));
    }
}
