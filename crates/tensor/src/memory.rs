//! Room whose size an input or an option decides, asked for so that a refusal becomes an error.

use std::cell::Cell;
use std::collections::TryReserveError;

thread_local! {
    static MAY_FAIL: Cell<bool> = const { Cell::new(false) };
}

/// Does what may find no room, and says so to the allocator: one that ends the program when memory runs out still lets `task` have
/// its error. See [`may_fail`].
fn fallibly<T>(task: impl FnOnce() -> Result<T, TryReserveError>) -> Result<T, TryReserveError> {
    // Should the task panic, the mark goes too.
    struct Mark(bool);
    impl Drop for Mark {
        fn drop(&mut self) {
            MAY_FAIL.set(self.0);
        }
    }
    let _mark = Mark(MAY_FAIL.replace(true));
    task()
}

/// Makes room for `additional` more elements, perhaps some more than that.
///
/// # Errors
/// When there is no such room, or its bytes cannot be counted.
pub fn reserve<T>(vec: &mut Vec<T>, additional: usize) -> Result<(), TryReserveError> {
    fallibly(|| vec.try_reserve(additional))
}

/// A vector of `len` times `value`, without room for more.
///
/// # Errors
/// As [`reserve`].
pub fn filled<T: Clone>(value: T, len: usize) -> Result<Vec<T>, TryReserveError> {
    let mut out = Vec::new();
    fallibly(|| out.try_reserve_exact(len))?;
    out.resize(len, value);
    Ok(out)
}

/// True while this thread asks for memory in [`reserve`] or [`filled`]: an allocator then answers that there is none instead of ending the program.
#[must_use]
pub fn may_fail() -> bool {
    MAY_FAIL.get()
}

#[cfg(test)]
mod tests {
    use super::{filled, may_fail, reserve};

    #[test]
    fn what_cannot_be_is_an_error_and_the_mark_is_taken_back() {
        let mut bytes = vec![1u8];
        assert!(reserve(&mut bytes, usize::MAX).is_err());
        assert!(!may_fail());
        reserve(&mut bytes, 10).unwrap();
        assert!(bytes.capacity() >= 11 && !may_fail());
        assert_eq!(filled(7u16, 3).unwrap(), [7, 7, 7]);
        assert!(filled(0u64, 1 << 61).is_err());
    }
}
