//! How much memory this process has needed.

/// The largest resident size of this process so far, in bytes: `VmHWM` of `/proc/self/status`. `None` on systems
/// without it.
#[must_use]
pub fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_os = "linux")]
    fn the_peak_grows_with_what_is_touched() {
        let before = super::peak_memory_bytes().unwrap();
        let touched = std::hint::black_box(vec![1u8; 64 << 20]);
        let after = super::peak_memory_bytes().unwrap();
        assert!(touched.len() == 64 << 20 && after >= before, "{before} then {after}");
        assert!(after >= 64 << 20, "{after} bytes cannot hold the 64 MiB just touched");
    }
}
