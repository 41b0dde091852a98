//! A pool of threads for hundreds of short parallel regions a token.
//!
//! Start at [`Pool`]. A region ([`Pool::run`]) is divided into parts; whichever thread is free takes the next one from a shared
//! counter, so that a thread which the operating system keeps from running holds up at most the one part it has. The calling
//! thread works too. Helpers spin for a while between regions and then sleep.
//!
//! | module | holds |
//! |---|---|
//! | `gate` | how helpers get into a region and how the caller knows that all have left; the erased lifetime of a region |
//! | `parts` | the exclusive references that the threads of a region get: one local each, one part each |
//! | `limit` | how many threads are of any use on this machine |
//! | `balance` | how many threads are worth using while other programs need the processor |
#![warn(missing_docs)]

mod balance;
mod gate;
mod limit;
mod parts;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use balance::{Balance, Meter};
use gate::{Gate, Wait};
use parts::{Parts, Spread};

pub use limit::{most_threads, useful_threads};

/// Threads beyond this number are not started.
pub const MAX_THREADS: usize = 1024;

/// Persistent threads that the caller divides work among.
///
/// A pool can be sent to another thread but not shared, so that no task can hold a reference to its own pool:
///
/// ```compile_fail
/// let pool = rwkv_forge_pool::Pool::new(std::num::NonZeroUsize::MIN);
/// pool.for_each(&mut [()], &mut [0], |_| (), |_, _, _| {
///     pool.for_each(&mut [()], &mut [0], |_| (), |_, _, _| ());
/// });
/// ```
///
/// ```
/// use std::num::NonZeroUsize;
///
/// let pool = rwkv_forge_pool::Pool::new(NonZeroUsize::MIN.saturating_add(1));
/// // How many parts each thread has done.
/// let mut done = vec![0; pool.threads()];
/// let mut out = [0; 10];
/// pool.run(&mut done, &mut out, &[3, 6, 10], |_done| (), |done, part, out| {
///     out.fill(part);
///     *done += 1;
/// });
/// assert_eq!(out, [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]);
/// assert_eq!(done.iter().sum::<usize>(), 3);
/// ```
#[derive(Debug)]
pub struct Pool {
    gate: Arc<Gate>,
    helpers: Vec<JoinHandle<()>>,
    balance: RefCell<Balance>,
    running: Cell<bool>,
    /// Not `Sync`.
    owner: PhantomData<Cell<()>>,
}

impl Pool {
    /// Starts `threads - 1` helpers; the thread that calls [`Pool::run`] is the remaining one.
    ///
    /// If the operating system grants fewer threads, the pool works with those: see [`Pool::threads`].
    #[must_use]
    pub fn new(threads: NonZeroUsize) -> Self {
        let wanted = threads.get().min(MAX_THREADS);
        let gate = Arc::new(Gate::new(wanted));
        let mut helpers = Vec::with_capacity(wanted - 1);
        for index in 1..wanted {
            let gate = Arc::clone(&gate);
            let builder = std::thread::Builder::new().name(format!("pool-{index}"));
            match builder.spawn(move || serve(&gate, index)) {
                Ok(helper) => helpers.push(helper),
                Err(_) => break,
            }
        }
        let balance = RefCell::new(Balance::new(helpers.len() + 1, Instant::now()));
        Self { gate, helpers, balance, running: Cell::new(false), owner: PhantomData }
    }

    /// Threads that may work on a region, the calling one included.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Threads that the next region will use: fewer than [`Pool::threads`] while other programs keep some from running.
    #[must_use]
    pub fn active_threads(&self) -> usize {
        self.balance.borrow().limit()
    }

    /// One parallel region over the parts of `out`.
    ///
    /// Part `i` is `out[ends[i - 1]..ends[i]]`, the first one beginning at 0. `task(local, i, part)` runs once for each part, on
    /// whichever thread is free. A thread that got its first part of this region runs `begin(local)` before it: preparation
    /// that every thread does for itself costs less than waiting for one thread to do it. Each thread has one of `locals` to
    /// itself; which part meets which local is not determined, so results must not depend on what a local held before `begin`.
    ///
    /// Returns when all parts are done. A panic of `begin` or `task` is passed on to the caller once every thread has left the
    /// region; parts that nobody had begun are then left undone. The pool stays usable.
    ///
    /// # Panics
    /// When `ends` is not ascending or does not end at `out.len()`, when there are fewer locals than [`Pool::threads`], when
    /// called by a task of this pool, and when a task panicked.
    pub fn run<L: Send, T: Send>(
        &self,
        locals: &mut [L],
        out: &mut [T],
        ends: &[usize],
        begin: impl Fn(&mut L) + Sync,
        task: impl Fn(&mut L, usize, &mut [T]) + Sync,
    ) {
        let parts = Parts::new(out, ends);
        // SAFETY: `region` hands out each index below `ends.len()` once, and `parts` lives until it returns.
        self.region(locals, ends.len(), begin, |local, index| task(local, index, unsafe { parts.part(index) }));
    }

    /// The same over items: `task(local, i, item)` runs once for each item.
    ///
    /// # Panics
    /// As [`Pool::run`].
    pub fn for_each<L: Send, T: Send>(
        &self,
        locals: &mut [L],
        items: &mut [T],
        begin: impl Fn(&mut L) + Sync,
        task: impl Fn(&mut L, usize, &mut T) + Sync,
    ) {
        let count = items.len();
        let items = Spread::new(items);
        // SAFETY: `region` hands out each index below `count` once, and `items` lives until it returns.
        self.region(locals, count, begin, |local, index| task(local, index, unsafe { items.item(index) }));
    }

    /// To be called once a token or batch: compares the processor time of the threads with the time that went by, and goes on
    /// with fewer threads for a while if other programs kept some from running. The results do not depend on it.
    pub fn lap(&self) {
        if !self.helpers.is_empty() {
            self.balance.borrow_mut().lap(&self.gate, Instant::now());
        }
    }

    /// Calls `task(local, index)` once for each index below `count`.
    fn region<L: Send>(&self, locals: &mut [L], count: usize, begin: impl Fn(&mut L) + Sync, task: impl Fn(&mut L, usize) + Sync) {
        assert!(locals.len() >= self.threads(), "{} locals for {} threads", locals.len(), self.threads());
        assert!(!self.running.replace(true), "a task called the pool that it runs in");
        let running = Running(&self.running);
        let threads = self.active_threads().min(count);
        if threads <= 1 {
            if let (Some(local), true) = (locals.first_mut(), count > 0) {
                begin(local);
                (0..count).for_each(|index| task(local, index));
            }
        } else {
            self.shared(threads, locals, count, &begin, &task);
        }
        drop(running);
    }

    /// The region with helpers.
    fn shared<L: Send>(
        &self,
        threads: usize,
        locals: &mut [L],
        count: usize,
        begin: &(impl Fn(&mut L) + Sync),
        task: &(impl Fn(&mut L, usize) + Sync),
    ) {
        let started = Instant::now();
        let next = Counter(AtomicUsize::new(0));
        let failure = Mutex::new(None);
        let locals = Spread::new(locals);
        let work = |thread: usize| {
            let result = catch_unwind(AssertUnwindSafe(|| {
                let mut index = next.0.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return;
                }
                // SAFETY: the gate calls this once a region for each helper's own number, the caller alone is 0, and the
                // numbers are below `Pool::threads`, which is at most the number of locals.
                let local = unsafe { locals.item(thread) };
                begin(local);
                while index < count {
                    task(local, index);
                    index = next.0.fetch_add(1, Ordering::Relaxed);
                }
            }));
            if let Err(payload) = result {
                // Nobody begins another part of a region that has failed.
                next.0.store(count, Ordering::Relaxed);
                keep(&failure, payload);
            }
        };
        let asleep = self.gate.region(&self.helpers, threads, &work);
        self.balance.borrow_mut().worked(started.elapsed().saturating_sub(asleep));
        if let Some(payload) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(payload);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.gate.stop(&self.helpers);
        for helper in self.helpers.drain(..) {
            // A helper's own panics are caught in its region; there is nobody to tell about others here.
            let _ = helper.join();
        }
    }
}

/// Takes back the mark that a region runs, also when it panics.
struct Running<'a>(&'a Cell<bool>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// Alone on its cache lines: every thread writes it, while the closure beside it is only read.
#[repr(align(128))]
struct Counter(AtomicUsize);

/// Keeps the first failure of a region.
fn keep(failure: &Mutex<Option<Box<dyn Any + Send>>>, payload: Box<dyn Any + Send>) {
    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
}

/// The life of helper `index`.
fn serve(gate: &Gate, index: usize) {
    let mut meter = Meter::start(gate.slot(index), gate.lap());
    let mut seen = 0;
    loop {
        match gate.wait(index, seen, meter.lap()) {
            Wait::Enter(entry) => seen = entry.work(index),
            Wait::Lap => meter.mark(gate.lap()),
            Wait::Idle => {
                meter.mark(gate.lap());
                gate.park(index, seen);
                meter = Meter::start(gate.slot(index), gate.lap());
            }
            Wait::Stop => return,
        }
    }
}
