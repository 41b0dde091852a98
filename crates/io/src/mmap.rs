//! A read-only memory map that is only ever copied from. The one module of the workspace's file code with `unsafe`.
//!
//! No reference into the map leaves this module, and none is formed inside it: another process may write to the file
//! at any moment, and a `&[u8]` over bytes that change is undefined behaviour.
#![allow(unsafe_code, reason = "copying out of a mapping that others can change needs raw pointers; proof at the block")]

use std::fs::File;

use memmap2::{MmapOptions, MmapRaw};

/// The first `len` bytes of a file, mapped.
pub(crate) struct Map {
    raw: MmapRaw,
}

impl Map {
    /// Maps a file of `len` bytes. `None` when the file is empty or the system cannot map it (network mounts, address
    /// space limits): the caller then reads through the handle.
    pub(crate) fn new(file: &File, len: u64) -> Option<Self> {
        let len = usize::try_from(len).ok().filter(|len| *len > 0)?;
        let raw = MmapOptions::new().len(len).map_raw_read_only(file).ok()?;
        Some(Self { raw })
    }

    /// Copies bytes `offset .. offset + out.len()`; false, and nothing copied, when they are not inside the map.
    pub(crate) fn copy(&self, offset: u64, out: &mut [u8]) -> bool {
        let Ok(offset) = usize::try_from(offset) else { return false };
        let inside = offset.checked_add(out.len()).is_some_and(|end| end <= self.raw.len());
        if inside {
            // SAFETY: `offset + out.len() <= raw.len()` was just checked, so the source lies inside one live mapping
            // (`raw` is borrowed for the call) and its address cannot wrap. The destination is a `&mut` slice, so it
            // is writable for `out.len()` bytes and cannot overlap a read-only map. u8 has no alignment and no
            // invalid values. No reference to the mapped bytes exists, so a change by another process can only give
            // other bytes, which the caller's comparison of length and modification time then reports. If the file
            // shrinks in the moment between that check and the copy, the kernel ends the process with SIGBUS:
            // that is no memory error, and the reason why mapping must be asked for.
            unsafe { std::ptr::copy_nonoverlapping(self.raw.as_ptr().add(offset), out.as_mut_ptr(), out.len()) };
        }
        inside
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::Map;

    #[test]
    fn w10_nothing_outside_the_map_is_copied() {
        let path = std::env::temp_dir().join(format!("forge-io-map-{}", std::process::id()));
        std::fs::write(&path, b"0123456789").unwrap();
        let map = Map::new(&File::open(&path).unwrap(), 10).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut out = [b'.'; 4];
        for offset in [7, 10, 4096, u64::MAX - 3, u64::MAX] {
            assert!(!map.copy(offset, &mut out), "{offset}");
            assert_eq!(&out, b"....", "{offset}");
        }
        assert!(map.copy(6, &mut out));
        assert_eq!(&out, b"6789");
        assert!(map.copy(10, &mut []));
    }
}
