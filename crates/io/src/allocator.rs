//! The end of memory as an orderly end of the program.
//!
//! Where Rust's collections cannot return an error, a refusal of the system's allocator aborts the program: outputs that are half written
//! stay behind, and the exit code says nothing. [`Allocator`] instead gives back a reserve that it holds, removes the temporaries and calls
//! what the program has set with [`when_exhausted`]. Room that is asked for through [`rwkv_forge_tensor::memory`] is refused as an error.
#![allow(unsafe_code, reason = "an allocator is an unsafe trait; it passes every call on to the system's")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::time::Duration;

/// Room for what has to happen at the end: names of temporaries, entries of directories, one line of text.
const RESERVE: Layout = Layout::new::<[u8; 4 << 20]>();

static HELD: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
static ENDING: AtomicBool = AtomicBool::new(false);
static LAST: OnceLock<fn(usize) -> u8> = OnceLock::new();

/// The system's allocator, for `#[global_allocator]` of a program that calls [`when_exhausted`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Allocator;

/// Takes the reserve, and sets what is done when memory has run out and the temporaries are gone: `last` gets the bytes that were
/// asked for, says so to the user and returns the exit code. It runs in whichever thread asked, perhaps with locks of others held, so it writes to
/// the system directly. Without this, or where there is no memory for the reserve already, a refusal aborts the program as ever.
pub fn when_exhausted(last: fn(usize) -> u8) {
    if LAST.set(last).is_ok() {
        // SAFETY: the layout has a size.
        let reserve = unsafe { System.alloc(RESERVE) };
        HELD.store(reserve, Ordering::Release);
    }
}

// SAFETY: every call goes to the system's allocator with what the caller has promised for it, and its answer is returned; a null
// pointer is either returned or ends the program. Nothing unwinds out of `given`.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is the system's condition.
        given(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`.
        given(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` comes from this allocator and so from the system's, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as for `dealloc`; the caller has checked that `size` is not zero and does not overflow.
        given(unsafe { System.realloc(pointer, layout, size) }, size)
    }
}

/// What the system gave, or the end.
fn given(pointer: *mut u8, bytes: usize) -> *mut u8 {
    if pointer.is_null() && !rwkv_forge_tensor::memory::may_fail() {
        exhausted(bytes);
    }
    pointer
}

/// Ends the program if that has been prepared.
#[cold]
fn exhausted(bytes: usize) {
    let Some(last) = LAST.get() else { return };
    if ENDING.swap(true, Ordering::AcqRel) {
        if HELD.load(Ordering::Acquire).is_null() && is_ending_thread() {
            // The reserve was not enough: there is nothing left to do in order.
            return;
        }
        // Another thread is ending the program.
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    THREAD.set(true);
    let reserve = HELD.swap(ptr::null_mut(), Ordering::AcqRel);
    if reserve.is_null() {
        return;
    }
    // SAFETY: the pointer comes from `when_exhausted`, with this layout, and was taken out of its place just now, so nobody frees it again.
    unsafe { System.dealloc(reserve, RESERVE) };
    let ended = catch_unwind(AssertUnwindSafe(|| {
        crate::temporary::remove_temporaries();
        std::process::exit(i32::from(last(bytes)));
    }));
    // Only a panic comes here; the caller then aborts.
    drop(ended);
}

thread_local! {
    static THREAD: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

fn is_ending_thread() -> bool {
    THREAD.get()
}
