//! Memory stays within the file's size and 256 MiB, whatever a pickle claims or piles up. The peak is that of a whole
//! process, so the test starts one of its own.
#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use crate::common::{TempFile, with_pickle};
use rwkv_forge_checkpoint::{Limits, open};
use rwkv_forge_testkit::memory::peak_of;
use rwkv_forge_testkit::pickle::Pickle;

const ALLOWANCE: u64 = 256 << 20;

/// One view of storage `0`, its function in memo 0 and its arguments in memo 1.
fn tensor_in_memo() -> Pickle {
    let function = Pickle::new(2).global("torch._utils", "_rebuild_tensor_v2").raw(b"q\x000");
    function.raw(b"(").storage("FloatStorage", "0", 6).int(0).ints(&[6]).ints(&[1]).raw(b"\x89Ntq\x010")
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "needs Linux, which tells the resident memory")]
fn p4_p15_peak_memory_is_bounded() {
    let bombs = [
        ("small lists", Pickle::new(2).repeat(b"](K\x01e0", (1 << 20) + 1).stop(), "TooLarge"),
        ("tensors", tensor_in_memo().repeat(b"h\x00h\x01R0", (1 << 20) + 1).stop(), "TooLarge"),
        ("storages", Pickle::new(2).storage("FloatStorage", "0", 6).repeat(b"2", 900_000).repeat(b"t", 1).stop(), "StackShape"),
        ("one long list", Pickle::new(2).raw(b"]").repeat(&[&b"("[..], &b"N".repeat(900_000), b"e"].concat(), 17).stop(), "NotAStateDict"),
        ("opcodes", Pickle::new(2).repeat(b"N0", (32 << 20) - 2).stop(), "TooManyOpcodes"),
        ("memo", Pickle::new(2).raw(b"Nr\xff\xff\x3f\0").repeat(b"q\x00", 1000).stop(), "NotAStateDict"),
        ("announced bytes", Pickle::new(4).raw(b"\x8e\xff\xff\xff\xff\xff\0\0\0").unfinished(), "Truncated"),
    ];
    // What is asserted fails in the child, whose failure is this test's.
    let _judged_there = peak_of("memory::p4_p15_peak_memory_is_bounded", || {
        for (name, pickle, expected) in bombs {
            let bytes = with_pickle(&pickle, &[0; 24]);
            let len = bytes.len() as u64;
            drop(pickle);
            let file = TempFile::new(&bytes);
            drop(bytes);
            // Making the file took memory too; only what opening adds to the peak counts.
            let before = rwkv_forge_io::peak_memory_bytes().unwrap_or(0);
            let error = open(&file.0, &Limits::default()).err().unwrap();
            assert_eq!(error.refusal().unwrap().name(), expected, "{name}");
            let peak = rwkv_forge_io::peak_memory_bytes().unwrap_or(0);
            assert!(peak > 0 && peak <= before.max(len + ALLOWANCE), "{name}: {peak} bytes at the peak for a file of {len}");
        }
    });
}
