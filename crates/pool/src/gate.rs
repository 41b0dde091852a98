//! How helpers get into a region, and how the caller knows that all have left.
//!
//! One atomic word holds everything that has to agree: the number of the region, whether it is open, for how many threads, and
//! how many helpers are inside. Nobody waits for a helper to come. A helper gets in by adding itself to the word while it says
//! open; the caller closes it when no parts are left and waits until nobody is inside. A helper that the operating system does
//! not let run in between has missed the region, and nobody minds.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bits 0 to 15: helpers inside.
const INSIDE: u64 = 0xffff;
/// Helpers may come in.
const OPEN: u64 = 1 << 16;
/// The caller sleeps until the last helper inside wakes it.
const SLEEPS: u64 = 1 << 17;
/// The pool is being dropped.
const STOP: u64 = 1 << 18;
/// Bits 20 to 31: threads that the region is for.
const THREADS_AT: u32 = 20;
const THREADS: u64 = 0xfff;
/// Bits 32 to 63: the region's number.
const REGION_AT: u32 = 32;

/// How long a helper looks for the next region before it sleeps: longer than what lies between two regions of a token, and
/// between two tokens, so that waking threads (some microseconds each time) is not part of generating.
const HELPER_SPINS: Duration = Duration::from_micros(100);
/// How long the caller looks for the last helpers to leave before it sleeps. A helper that takes longer than this has most
/// likely been taken off its core; a sleeping caller leaves its own core for it.
const CALLER_SPINS: Duration = Duration::from_micros(50);
/// Looks between two looks at the clock.
const LOOKS: u32 = 32;

/// The meeting place of the caller and its helpers.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Gate {
    word: AtomicU64,
    /// Written by the caller while nobody is inside and the region is closed; read by helpers inside.
    job: UnsafeCell<Job>,
    /// Counts [`crate::Pool::lap`]s.
    lap: AtomicU32,
    slots: Box<[Slot]>,
    /// For the caller's sleep.
    lock: Mutex<()>,
    left: Condvar,
}

/// What the caller knows of one helper, and what that helper says of itself.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Slot {
    /// Sleeps, or is about to.
    pub(crate) parked: AtomicBool,
    /// The last lap that it noticed.
    pub(crate) lap: AtomicU32,
    /// Microseconds that it was awake (low half), and that it was not running while it should (high half), since last taken.
    pub(crate) spent: AtomicU64,
}

/// A region's closure without its type and lifetime.
#[derive(Clone, Copy, Debug)]
struct Job {
    call: unsafe fn(*const (), usize),
    work: *const (),
}

// SAFETY: `word` says who may touch `job`: the caller while nobody is inside and the region is closed, else those inside, who
// only read. What `work` points to is `Sync`, which `Gate::region` demands.
unsafe impl Sync for Gate {}
// SAFETY: as above; the pointer is not used but inside a region.
unsafe impl Send for Gate {}

/// What a helper is to do next.
pub(crate) enum Wait<'a> {
    /// It is inside a region.
    Enter(Entry<'a>),
    /// A lap began.
    Lap,
    /// Nothing came for a while.
    Idle,
    /// The pool is being dropped.
    Stop,
}

/// Proof that a helper is inside an open region.
pub(crate) struct Entry<'a> {
    gate: &'a Gate,
    region: u32,
}

impl Entry<'_> {
    /// Works on the region as helper `index`, leaves it and returns its number.
    pub(crate) fn work(self, index: usize) -> u32 {
        // SAFETY: this helper is inside, so the caller does not write.
        let job = unsafe { *self.gate.job.get() };
        // SAFETY: `region` made both fields from one closure, which lives until nobody is inside any more.
        unsafe { (job.call)(job.work, index) };
        self.region
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        // Release: what this helper wrote is there for the caller, who acquires the word.
        let before = self.gate.word.fetch_sub(1, Ordering::Release);
        if before & INSIDE == 1 && before & SLEEPS != 0 {
            // The lock is free only once the caller waits, so the notice cannot come too early.
            drop(self.gate.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.gate.left.notify_one();
        }
    }
}

impl Gate {
    /// For `threads` threads, the caller included.
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            word: AtomicU64::new(0),
            job: UnsafeCell::new(Job { call: nothing, work: std::ptr::null() }),
            lap: AtomicU32::new(0),
            slots: (0..threads).map(|_| Slot::default()).collect(),
            lock: Mutex::new(()),
            left: Condvar::new(),
        }
    }

    /// What is known of helper `index`.
    pub(crate) fn slot(&self, index: usize) -> &Slot {
        &self.slots[index]
    }

    /// The current lap.
    pub(crate) fn lap(&self) -> u32 {
        self.lap.load(Ordering::Relaxed)
    }

    /// Begins the next lap.
    pub(crate) fn next_lap(&self) {
        self.lap.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls `work(0)` here and `work(index)` on those of the first `threads - 1` helpers that come in time. Returns, when
    /// nobody is inside any more, how long the caller slept. `work` must not panic.
    pub(crate) fn region<F: Fn(usize) + Sync>(&self, helpers: &[JoinHandle<()>], threads: usize, work: &F) -> Duration {
        let job = Job { call: call::<F>, work: std::ptr::from_ref(work).cast() };
        // SAFETY: the caller closed the region before and saw nobody inside; helpers do not come in until it is opened below.
        unsafe { *self.job.get() = job };
        // Closes the region and waits, even if `work` should unwind: helpers may hold references into the caller's frame.
        let mut closing = Closing { gate: self, asleep: Duration::ZERO };
        self.open(threads);
        self.wake(helpers.iter().take(threads - 1));
        work(0);
        closing.close();
        closing.asleep
    }

    fn open(&self, threads: usize) {
        let region = region(self.word.load(Ordering::Relaxed)).wrapping_add(1);
        let word = u64::from(region) << REGION_AT | (threads as u64) << THREADS_AT | OPEN;
        // Release: the job is there for whoever comes in.
        self.word.store(word, Ordering::Release);
        // A helper says that it sleeps and looks at the word then; here it is the other way round. One of both sees the other.
        fence(Ordering::SeqCst);
    }

    /// Wakes those helpers that sleep.
    fn wake<'a>(&self, helpers: impl Iterator<Item = &'a JoinHandle<()>>) {
        for (slot, helper) in self.slots.iter().skip(1).zip(helpers) {
            if slot.parked.load(Ordering::Relaxed) {
                // So that it is not taken for a thread that does not get to run, before it could.
                slot.lap.store(self.lap(), Ordering::Relaxed);
                slot.parked.store(false, Ordering::Relaxed);
                helper.thread().unpark();
            }
        }
    }

    /// Ends all helpers.
    pub(crate) fn stop(&self, helpers: &[JoinHandle<()>]) {
        self.word.fetch_or(STOP, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.wake(helpers.iter());
    }

    /// Looks for something to do for helper `index`, whose last region was number `seen` and whose last lap was `lap`.
    pub(crate) fn wait(&self, index: usize, seen: u32, lap: u32) -> Wait<'_> {
        let mut begun = None;
        let mut looks = 0;
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if word & STOP != 0 {
                return Wait::Stop;
            }
            if invites(word, index, seen) {
                // Acquire: the job, and all that the caller wrote before, are there for this helper.
                if self.word.compare_exchange_weak(word, word + 1, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                    return Wait::Enter(Entry { gate: self, region: region(word) });
                }
                continue;
            }
            if lap != self.lap() {
                return Wait::Lap;
            }
            std::hint::spin_loop();
            looks += 1;
            if looks % LOOKS == 0 {
                let now = Instant::now();
                if now.duration_since(*begun.get_or_insert(now)) >= HELPER_SPINS {
                    return Wait::Idle;
                }
            }
        }
    }

    /// Sleeps until the caller wakes helper `index`.
    pub(crate) fn park(&self, index: usize, seen: u32) {
        let parked = &self.slot(index).parked;
        parked.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let word = self.word.load(Ordering::Relaxed);
        if word & STOP != 0 || invites(word, index, seen) {
            parked.store(false, Ordering::Relaxed);
        }
        while parked.load(Ordering::Relaxed) {
            std::thread::park();
        }
    }
}

/// Whether helper `index`, whose last region was number `seen`, may come in.
fn invites(word: u64, index: usize, seen: u32) -> bool {
    word & OPEN != 0 && region(word) != seen && (index as u64) < (word >> THREADS_AT & THREADS)
}

/// The region's number.
fn region(word: u64) -> u32 {
    (word >> REGION_AT) as u32
}

/// Closes a region at the latest when it is dropped.
struct Closing<'a> {
    gate: &'a Gate,
    asleep: Duration,
}

impl Closing<'_> {
    fn close(&mut self) {
        let gate = self.gate;
        // Acquire, here and below: what the helpers wrote before they left is there for the caller.
        let mut word = gate.word.fetch_and(!OPEN, Ordering::Acquire);
        let mut begun = None;
        let mut looks = 0;
        while word & INSIDE != 0 {
            std::hint::spin_loop();
            looks += 1;
            if looks % LOOKS == 0 {
                let now = Instant::now();
                if now.duration_since(*begun.get_or_insert(now)) >= CALLER_SPINS {
                    self.sleep();
                    self.asleep += now.elapsed();
                }
            }
            word = gate.word.load(Ordering::Acquire);
        }
    }

    /// Sleeps until nobody is inside.
    fn sleep(&self) {
        let mut lock = self.gate.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut word = self.gate.word.fetch_or(SLEEPS, Ordering::Acquire);
        while word & INSIDE != 0 {
            lock = self.gate.left.wait(lock).unwrap_or_else(PoisonError::into_inner);
            word = self.gate.word.load(Ordering::Acquire);
        }
    }
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.close();
    }
}

/// # Safety
/// `work` points to a living `F`.
unsafe fn call<F: Fn(usize) + Sync>(work: *const (), index: usize) {
    // SAFETY: the caller's promise.
    let work = unsafe { &*work.cast::<F>() };
    work(index);
}

/// The job before the first region, which nobody can enter.
fn nothing(_: *const (), _: usize) {}
