//! Memory of packed matrices: aligned to cache lines, in huge pages where the system has them.
//!
//! The system puts huge pages only where a whole one fits into a mapping, and most matrices are smaller than one or end within
//! one. So matrices that are made one after the other share a mapping, a slab, and the system takes it back when all of them are gone.
//! Without, four fifths of a 4-bit model lay in small pages, and its matrices were read a tenth slower.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use memmap2::{MmapOptions, MmapRaw};

/// A cache line: what packed weights are counted in.
pub(crate) type Line = [u8; 64];

/// Bytes a line.
pub(crate) const LINE: usize = size_of::<Line>();
/// Bytes of a huge page (x86-64, and aarch64 with small pages of 4 KiB). Elsewhere only speed would differ.
const HUGE: usize = 2 << 20;
/// Bytes of a slab. What does not fit has a mapping of its own.
const SLAB: usize = 32 << 20;

/// The slab that the next matrix goes into, while any of its matrices lives, and the lines of it that are taken.
static CURRENT: Mutex<(Weak<Slab>, usize)> = Mutex::new((Weak::new(), 0));

/// A mapping that begins at a huge page.
struct Slab {
    map: MmapRaw,
    /// Bytes before the first line.
    skip: usize,
}

impl Slab {
    /// Maps zeros for so many lines.
    fn new(lines: usize) -> std::io::Result<Arc<Self>> {
        let bytes = lines.saturating_mul(LINE).saturating_add(HUGE);
        let map = MmapRaw::from(MmapOptions::new().len(bytes).map_anon()?);
        // Only speed depends on the advice, and kernels built without huge pages refuse it.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        let skip = map.as_ptr().align_offset(HUGE).min(HUGE);
        Ok(Arc::new(Self { map, skip }))
    }
}

/// Zeroed lines.
pub(crate) struct Arena {
    slab: Option<Arc<Slab>>,
    /// Of the slab's lines.
    first: usize,
    count: usize,
}

impl Arena {
    /// Takes memory for so many lines.
    ///
    /// # Errors
    /// What the system says when it has no more.
    pub(crate) fn new(lines: usize) -> std::io::Result<Self> {
        if lines == 0 {
            return Ok(Self { slab: None, first: 0, count: 0 });
        }
        if lines > SLAB / LINE {
            return Ok(Self { slab: Some(Slab::new(lines)?), first: 0, count: lines });
        }
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        let (slab, first) = match current.0.upgrade() {
            Some(slab) if current.1 + lines <= SLAB / LINE => (slab, current.1),
            _ => (Slab::new(SLAB / LINE)?, 0),
        };
        *current = (Arc::downgrade(&slab), first + lines);
        Ok(Self { slab: Some(slab), first, count: lines })
    }

    /// Address of the first line.
    fn start(&self, slab: &Slab) -> *mut Line {
        // SAFETY: the mapping has `HUGE` bytes more than the lines of the slab; `skip` is at most that, and `first + count` is at
        // most the number of the slab's lines.
        unsafe { slab.map.as_mut_ptr().add(slab.skip).cast::<Line>().add(self.first) }
    }

    /// All lines.
    pub(crate) fn lines(&self) -> &[Line] {
        match &self.slab {
            // SAFETY: the lines lie in the mapping, which `self` keeps, and are initialised: the system gives zeros. Nobody else has
            // them: `new` gives out each line of a slab once, and a slab is never used again. A line is bytes, so any address is aligned.
            Some(slab) => unsafe { std::slice::from_raw_parts(self.start(slab), self.count) },
            None => &[],
        }
    }

    /// All lines, to be filled.
    pub(crate) fn lines_mut(&mut self) -> &mut [Line] {
        match &self.slab {
            // SAFETY: as in `lines`; `self` is borrowed exclusively.
            Some(slab) => unsafe { std::slice::from_raw_parts_mut(self.start(slab), self.count) },
            None => &mut [],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Arena, LINE, SLAB};

    #[test]
    fn lines_are_zero_aligned_and_as_many_as_asked_for() {
        for count in [0, 1, 63, 64, 100_000] {
            let mut arena = Arena::new(count).unwrap();
            assert_eq!(arena.lines().len(), count);
            assert_eq!(arena.lines().as_ptr().addr() % 64, if count == 0 { arena.lines().as_ptr().addr() % 64 } else { 0 });
            assert!(arena.lines().iter().all(|line| *line == [0; 64]));
            arena.lines_mut().fill([7; 64]);
            assert!(arena.lines().iter().all(|line| *line == [7; 64]));
        }
        assert!(Arena::new(usize::MAX / 64).is_err());
    }

    #[test]
    fn arenas_that_live_together_do_not_overlap() {
        let sizes = [1, 1000, SLAB / LINE, SLAB / LINE + 1, SLAB / LINE / 2 + 1, SLAB / LINE / 2 + 1, 3];
        let mut arenas: Vec<Arena> = sizes.iter().map(|count| Arena::new(*count).unwrap()).collect();
        for (number, arena) in (1u8..).zip(&mut arenas) {
            assert!(arena.lines().iter().all(|line| *line == [0; 64]));
            arena.lines_mut().fill([number; 64]);
        }
        for ((number, arena), count) in (1u8..).zip(&arenas).zip(sizes) {
            assert_eq!(arena.lines().len(), count);
            assert!(arena.lines().iter().all(|line| *line == [number; 64]));
        }
    }

    #[test]
    fn threads_get_lines_of_their_own_and_freed_ones_come_back_as_zeros() {
        std::thread::scope(|scope| {
            for number in 1..=8u8 {
                scope.spawn(move || {
                    for round in 0..50 {
                        let mut arena = Arena::new(1 + 37 * round).unwrap();
                        assert!(arena.lines().iter().all(|line| *line == [0; 64]));
                        arena.lines_mut().fill([number; 64]);
                        std::thread::yield_now();
                        assert!(arena.lines().iter().all(|line| *line == [number; 64]));
                    }
                });
            }
        });
    }
}
