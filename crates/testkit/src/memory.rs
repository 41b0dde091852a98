//! What a piece of work takes of memory, measured in a process that does nothing else.

use std::io::Write;
use std::process::Command;

/// Set in the process that does the work.
const CHILD: &str = "FORGE_MEASURE_MEMORY_OF";
/// What that process prints before its number.
const MARK: &str = "peak of resident memory:";

/// The most bytes that were resident while `work` ran, in a process of its own: the test `test`, which calls this, is started once more
/// and does the work there, where no other test runs.
///
/// # Panics
/// When the process cannot be started or the work fails, and where the system does not tell (only Linux does).
#[must_use]
pub fn peak_of(test: &str, work: impl FnOnce()) -> u64 {
    if std::env::var_os(CHILD).is_some() {
        work();
        let peak = peak().expect("the system tells the peak of resident memory");
        // A number that cannot be written is missed by the parent.
        let _ = writeln!(std::io::stdout(), "\n{MARK}{peak}.");
        // The parent alone judges.
        std::process::exit(0);
    }
    let program = std::env::current_exe().expect("the test's own program");
    let output = Command::new(program).args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, test).output();
    let output = output.expect("the test's own program runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    let found = printed.split_once(MARK).and_then(|(_, after)| after.split_once('.')).and_then(|(bytes, _)| bytes.parse().ok());
    found.unwrap_or_else(|| panic!("the work failed: {printed}{}", String::from_utf8_lossy(&output.stderr)))
}

/// The most bytes of this process that were resident at once.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
