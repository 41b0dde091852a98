//! Memory of packed matrices: whole pages from the system, aligned to cache lines, in huge pages where it has them.

use memmap2::MmapMut;

/// A cache line: what packed weights are counted in.
pub(crate) type Line = [u8; 64];

/// Bytes a line.
pub(crate) const LINE: usize = size_of::<Line>();

/// Zeroed lines.
pub(crate) struct Arena(Option<MmapMut>);

impl Arena {
    /// Maps memory for so many lines.
    ///
    /// # Errors
    /// What the system says when it has no more.
    pub(crate) fn new(lines: usize) -> std::io::Result<Self> {
        if lines == 0 {
            return Ok(Self(None));
        }
        let map = MmapMut::map_anon(lines.saturating_mul(LINE))?;
        // Only speed depends on the advice, and kernels built without huge pages refuse it.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self(Some(map)))
    }

    /// All lines.
    pub(crate) fn lines(&self) -> &[Line] {
        self.0.as_ref().map_or(&[], |map| map.as_chunks().0)
    }

    /// All lines, to be filled.
    pub(crate) fn lines_mut(&mut self) -> &mut [Line] {
        self.0.as_mut().map_or(&mut [], |map| map.as_chunks_mut().0)
    }
}

#[cfg(test)]
mod tests {
    use super::Arena;

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
}
