//! The machine and this process, as the operating system describes them.

use rwkv_forge_matrix::Isa;
use serde::Serialize;

/// What was measured on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// As the processor names itself; the architecture where it does not say.
    pub cpu: String,
    /// Such as `x86_64`.
    pub architecture: &'static str,
    /// Instruction sets that the engine can use here, narrow to wide.
    pub isa_available: Vec<&'static str>,
    /// Logical processors that this process may run on.
    pub processors: usize,
    /// Bytes of the last-level cache, as the system says.
    pub last_level_cache_bytes: Option<u64>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Name and version of the operating system.
    pub system: String,
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn this() -> Self {
        let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: cpu().unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            architecture: std::env::consts::ARCH,
            isa_available: Isa::all().into_iter().map(Isa::name).collect(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            last_level_cache_bytes: last_level_cache(),
            memory_bytes: kilobytes("/proc/meminfo", "MemTotal:"),
            system: format!("{} {}", std::env::consts::OS, release.trim()).trim_end().to_owned(),
        }
    }
}

/// What the system says under this path of `/proc`.
pub(crate) fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn cpu() -> Option<String> {
    let info = read("/proc/cpuinfo")?;
    let line = info.lines().find_map(|line| line.strip_prefix("model name").or_else(|| line.strip_prefix("Model")))?;
    Some(line.trim_start_matches([' ', '\t', ':']).trim().to_owned())
}

/// The largest cache of the first processor.
fn last_level_cache() -> Option<u64> {
    let size = |index: u32| {
        let text = read(&format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size"))?;
        text.trim().strip_suffix('K')?.parse::<u64>().ok()?.checked_mul(1024)
    };
    (0..8).filter_map(size).max()
}

/// Bytes of a line such as `VmRSS:   1234 kB`.
fn kilobytes(path: &str, field: &str) -> Option<u64> {
    let text = read(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Bytes of memory that programs can have without others being swapped out; `None` where the system does not say.
#[must_use]
pub fn available_memory() -> Option<u64> {
    kilobytes("/proc/meminfo", "MemAvailable:")
}

/// Resident bytes of this process; `None` where the system does not say.
#[must_use]
pub fn resident_memory() -> Option<u64> {
    kilobytes("/proc/self/status", "VmRSS:")
}

/// The most bytes of this process that were resident since [`restart_peak_resident_memory`].
#[cfg(feature = "curve")]
pub(crate) fn peak_resident_memory() -> Option<u64> {
    kilobytes("/proc/self/status", "VmHWM:")
}

/// Makes the system forget the peak so far. Where it does not, the peak is that of the whole run, which is an upper bound.
#[cfg(feature = "curve")]
pub(crate) fn restart_peak_resident_memory() {
    // "5" asks Linux for exactly that; a refusal leaves a larger number, never a wrong one.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_a_name_and_an_instruction_set() {
        let machine = Machine::this();
        assert!(!machine.cpu.is_empty() && machine.processors > 0);
        assert_eq!(machine.isa_available.first(), Some(&"scalar"));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_that_was_written_is_resident() {
        const TEST: &str = "system::tests::memory_that_was_written_is_resident";
        const CHILD: &str = "FORGE_BENCH_TEST_CHILD";
        if std::env::var_os(CHILD).is_none() {
            // In a process of its own: other tests of this program free memory at any time.
            let child =
                std::process::Command::new(std::env::current_exe().unwrap()).args(["--exact", TEST]).env(CHILD, "1").output().unwrap();
            let said = String::from_utf8_lossy(&child.stdout).into_owned();
            assert!(child.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&child.stderr));
            return;
        }
        let before = resident_memory().unwrap();
        let block = vec![1u8; 64 << 20];
        let after = resident_memory().unwrap();
        // The kernel counts pages by processor, and adds up to some hundred of each later.
        assert!(after > before + (60 << 20), "{before} to {after}");
        assert_eq!(std::hint::black_box(block).len(), 64 << 20);
        assert!(available_memory().unwrap() <= Machine::this().memory_bytes.unwrap());
    }
}
