//! Exclusive references for the threads of one region.
//!
//! Both types here keep the borrow of the slice that they were made from, so nobody else can reach it while they exist; what
//! they cannot know is that no two threads ask for the same element, which is their callers' duty.

use std::marker::PhantomData;
use std::ops::Range;

/// A slice whose elements go to different threads.
pub(crate) struct Spread<'a, T> {
    first: *mut T,
    count: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: through a shared `Spread`, other threads get `&mut T` only, to elements that no other thread has; sending those needs
// `T: Send`.
unsafe impl<T: Send> Sync for Spread<'_, T> {}

impl<'a, T> Spread<'a, T> {
    /// Over all of `values`.
    pub(crate) fn new(values: &'a mut [T]) -> Self {
        Self { first: values.as_mut_ptr(), count: values.len(), borrow: PhantomData }
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// While the reference is in use, nothing else asks for any of these elements.
    ///
    /// # Panics
    /// When the slice has no such elements.
    #[expect(clippy::mut_from_ref, reason = "the caller sees to it that no element is handed out twice")]
    pub(crate) unsafe fn range(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.count, "elements {range:?} of {}", self.count);
        // SAFETY: within the slice, whose borrow `self` holds; nobody else has these elements by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(range.start), range.len()) }
    }

    /// Element `index`.
    ///
    /// # Safety
    /// As [`Spread::range`].
    ///
    /// # Panics
    /// When there is no such element.
    #[expect(clippy::mut_from_ref, reason = "the caller sees to it that no element is handed out twice")]
    pub(crate) unsafe fn item(&self, index: usize) -> &mut T {
        assert!(index < self.count, "element {index} of {}", self.count);
        // SAFETY: as above.
        unsafe { &mut *self.first.add(index) }
    }
}

/// A slice that is divided into parts for different threads.
pub(crate) struct Parts<'a, T> {
    values: Spread<'a, T>,
    ends: &'a [usize],
}

impl<'a, T> Parts<'a, T> {
    /// Parts of `out` that end at `ends`.
    ///
    /// # Panics
    /// When `ends` is not ascending or does not end at `out.len()`.
    pub(crate) fn new(out: &'a mut [T], ends: &'a [usize]) -> Self {
        assert!(ends.is_sorted(), "the ends of a region's parts are not ascending");
        assert_eq!(ends.last().copied().unwrap_or(0), out.len(), "a region's parts do not end where its output does");
        Self { values: Spread::new(out), ends }
    }

    /// Part `index`.
    ///
    /// # Safety
    /// While the reference is in use, nobody else asks for the same part.
    ///
    /// # Panics
    /// When there is no such part.
    #[expect(clippy::mut_from_ref, reason = "the caller sees to it that no part is handed out twice")]
    pub(crate) unsafe fn part(&self, index: usize) -> &mut [T] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        // SAFETY: the ends ascend, so parts of different indices do not overlap.
        unsafe { self.values.range(start..self.ends[index]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_slice_without_overlap() {
        let mut values = [0u8; 10];
        let ends = [0, 3, 3, 9, 10];
        let parts = Parts::new(&mut values, &ends);
        for index in 0..ends.len() {
            // SAFETY: each index once.
            for value in unsafe { parts.part(index) } {
                *value += 1 + u8::try_from(index).unwrap();
            }
        }
        assert_eq!(values, [2, 2, 2, 4, 4, 4, 4, 4, 4, 5]);
    }

    #[test]
    #[should_panic(expected = "not ascending")]
    fn descending_ends_are_refused() {
        Parts::new(&mut [0; 4], &[3, 2, 4]);
    }

    #[test]
    #[should_panic(expected = "do not end where")]
    fn ends_beyond_the_slice_are_refused() {
        Parts::new(&mut [0; 4], &[3, 5]);
    }

    #[test]
    #[should_panic(expected = "do not end where")]
    fn ends_short_of_the_slice_are_refused() {
        Parts::new(&mut [0; 4], &[]);
    }
}
