//! How many threads are worth using while other programs need the processor.
//!
//! A thread of the pool either works or spins, and both use processor time; if less of it went by on a thread's clock than on
//! the wall, something else ran on its core. While it is off its core with a part of a region, all others wait for it. So when
//! a thread lost a good share of its time, the pool goes on without as many threads as lost time, and tries again later.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::gate::{Gate, Slot};

/// Time that is looked at as one: some slices that schedulers give (about 1 to 4 ms).
const WINDOW: Duration = Duration::from_millis(20);
/// A thread is kept from running if it lost at least one part in this many of its time. Where two threads are bound by memory,
/// the second one brings about a quarter; it is not worth more loss than half of that.
const LOST: u32 = 8;
/// How long to do with fewer threads at first.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause: trying costs up to one window in it.
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// The caller's knowledge of all threads' time.
#[derive(Debug)]
pub(crate) struct Balance {
    throttle: Throttle,
    window: Instant,
    /// The lap in which the window began.
    lap: u32,
    /// The caller's processor time when the window began.
    own: Option<Duration>,
    /// Time that the caller spent in regions in this window, awake.
    worked: Duration,
}

impl Balance {
    pub(crate) fn new(threads: usize, now: Instant) -> Self {
        Self { throttle: Throttle::new(threads, now), window: now, lap: 0, own: None, worked: Duration::ZERO }
    }

    /// Threads for the next region.
    pub(crate) fn limit(&self) -> usize {
        self.throttle.limit
    }

    /// The caller spent so much time in a region.
    pub(crate) fn worked(&mut self, time: Duration) {
        self.worked += time;
    }

    /// A lap ends.
    pub(crate) fn lap(&mut self, gate: &Gate, now: Instant) {
        if now.duration_since(self.window) >= WINDOW {
            let own = thread_time();
            let mut lost = usize::from(self.own.zip(own).is_some_and(|(then, now)| kept_waiting(self.worked, now.saturating_sub(then))));
            for index in 1..self.throttle.limit {
                lost += usize::from(self.helper_lost(gate.slot(index)));
            }
            self.throttle.observe(lost, now);
            (self.window, self.lap, self.own, self.worked) = (now, gate.lap().wrapping_add(1), own, Duration::ZERO);
        } else if self.own.is_none() {
            self.own = thread_time();
            self.worked = Duration::ZERO;
        }
        gate.next_lap();
    }

    /// Whether a helper did not get to run as it should in this window.
    fn helper_lost(&self, slot: &Slot) -> bool {
        let spent = slot.spent.swap(0, Ordering::Relaxed);
        if slot.parked.load(Ordering::Relaxed) {
            return false;
        }
        // Neither asleep nor aware of a single lap of this window: it has not run at all.
        let unaware = (slot.lap.load(Ordering::Relaxed).wrapping_sub(self.lap) as i32) < 0;
        let (awake, lost) = (spent & u64::from(u32::MAX), spent >> 32);
        unaware || kept_waiting(Duration::from_micros(awake), Duration::from_micros(awake.saturating_sub(lost)))
    }
}

/// Whether a thread that should have run for `wall` ran so much less.
fn kept_waiting(wall: Duration, ran: Duration) -> bool {
    // A few milliseconds say nothing about the share.
    let lost = wall.saturating_sub(ran);
    wall >= WINDOW / 4 && lost * LOST >= wall
}

/// When to use how many threads: the part of the balance that has no clocks.
#[derive(Debug)]
struct Throttle {
    threads: usize,
    limit: usize,
    /// How long the next pause is.
    pause: Duration,
    /// When to use all threads again.
    resume: Option<Instant>,
    /// Since when all threads have been in use.
    since: Instant,
}

impl Throttle {
    fn new(threads: usize, now: Instant) -> Self {
        Self { threads, limit: threads, pause: FIRST_PAUSE, resume: None, since: now }
    }

    /// In the window that ended `now`, `lost` threads were kept from running.
    fn observe(&mut self, lost: usize, now: Instant) {
        if lost > 0 {
            self.limit = self.limit.saturating_sub(lost).max(1);
            if self.resume.is_none() {
                self.resume = Some(now + self.pause);
                self.pause = (self.pause * 2).min(LAST_PAUSE);
            }
        } else if self.resume.is_some_and(|resume| now >= resume) {
            (self.limit, self.resume, self.since) = (self.threads, None, now);
        } else if self.resume.is_none() && now.duration_since(self.since) >= self.pause {
            // All well for as long as the next pause would be: what was in the way has gone.
            self.pause = FIRST_PAUSE;
        }
    }
}

/// A helper's account of its time.
pub(crate) struct Meter<'a> {
    slot: &'a Slot,
    lap: u32,
    wall: Instant,
    ran: Option<Duration>,
}

impl<'a> Meter<'a> {
    /// The helper is awake.
    pub(crate) fn start(slot: &'a Slot, lap: u32) -> Self {
        slot.lap.store(lap, Ordering::Relaxed);
        Self { slot, lap, wall: Instant::now(), ran: thread_time() }
    }

    /// The last lap that the helper noticed.
    pub(crate) fn lap(&self) -> u32 {
        self.lap
    }

    /// Accounts for the time since the last mark.
    pub(crate) fn mark(&mut self, lap: u32) {
        let (then, ran) = (self.wall, self.ran);
        *self = Self::start(self.slot, lap);
        if let Some((before, after)) = ran.zip(self.ran) {
            let awake = self.wall.duration_since(then);
            let lost = awake.saturating_sub(after.saturating_sub(before));
            // Halves of 32 bits: over an hour each, while the caller takes them many times a second or does not care.
            let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(u64::from(u32::MAX / 2));
            self.slot.spent.fetch_add(micros(lost) << 32 | micros(awake), Ordering::Relaxed);
        }
    }
}

/// Processor time of the calling thread; none where the system does not say.
#[cfg(unix)]
fn thread_time() -> Option<Duration> {
    Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime)).ok()
}

/// Processor time of the calling thread; none where the system does not say.
#[cfg(not(unix))]
fn thread_time() -> Option<Duration> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows of 20 ms; `busy` says for each whether other programs need the core of one of two threads.
    fn play(busy: impl Fn(u32) -> bool, windows: u32) -> Vec<usize> {
        let begun = Instant::now();
        let mut throttle = Throttle::new(2, begun);
        let window = |index: u32| {
            let lost = usize::from(throttle.limit == 2 && busy(index));
            throttle.observe(lost, begun + WINDOW * (index + 1));
            throttle.limit
        };
        (0..windows).map(window).collect()
    }

    #[test]
    fn all_threads_while_nothing_is_in_the_way() {
        assert!(play(|_| false, 1000).iter().all(|&limit| limit == 2));
    }

    #[test]
    fn a_busy_core_is_tried_ever_more_rarely() {
        let limits = play(|_| true, 1000);
        // The first second: pauses of 50, 100, 200, 400 ms. Later one window a second.
        assert_eq!(limits[..50].iter().filter(|&&limit| limit == 2).count(), 4, "{limits:?}");
        let late = limits[500..].iter().filter(|&&limit| limit == 2).count();
        assert!((9..=11).contains(&late), "{late} of 500 windows, 10 s");
    }

    #[test]
    fn a_core_that_is_free_again_is_used_again() {
        let limits = play(|index| index < 500, 700);
        // At most the longest pause goes by; a single bad window later costs the first pause only.
        assert!(limits[551..].iter().all(|&limit| limit == 2), "{limits:?}");
        let limits = play(|index| index < 500 || index == 650, 700);
        assert_eq!(limits[551..].iter().filter(|&&limit| limit == 1).count(), 3, "{limits:?}");
    }

    #[test]
    fn a_lucky_window_does_not_shorten_the_pauses() {
        // Every other try goes well for one window.
        let tries = std::cell::Cell::new(0);
        let busy = |_| {
            tries.set(tries.get() + 1);
            tries.get() % 2 == 0
        };
        let begun = Instant::now();
        let mut throttle = Throttle::new(2, begun);
        let mut used = 0;
        for index in 0..1000 {
            let lost = usize::from(throttle.limit == 2 && busy(index));
            throttle.observe(lost, begun + WINDOW * (index + 1));
            used += u32::from(throttle.limit == 2 && index >= 500);
        }
        assert!(used <= 22, "{used} of 500 windows, 10 s");
    }

    #[test]
    fn as_many_threads_less_as_lost_time() {
        let begun = Instant::now();
        let mut throttle = Throttle::new(8, begun);
        throttle.observe(3, begun + WINDOW);
        assert_eq!(throttle.limit, 5);
        throttle.observe(1, begun + WINDOW * 2);
        assert_eq!(throttle.limit, 4, "fewer still while it is bad");
        throttle.observe(9, begun + WINDOW * 3);
        assert_eq!(throttle.limit, 1);
        throttle.observe(0, begun + WINDOW * 10);
        assert_eq!(throttle.limit, 8);
    }

    #[test]
    fn an_eighth_of_the_time() {
        let ms = Duration::from_millis;
        assert!(kept_waiting(ms(20), ms(17)) && !kept_waiting(ms(20), ms(18)));
        assert!(!kept_waiting(ms(4), ms(0)), "too short to say");
        assert!(!kept_waiting(ms(20), ms(30)), "work outside of regions");
    }

    #[test]
    #[cfg(unix)]
    fn processor_time_stands_still_while_asleep() {
        let slot = Slot::default();
        let mut meter = Meter::start(&slot, 0);
        std::thread::sleep(Duration::from_millis(30));
        meter.mark(1);
        let spent = slot.spent.load(Ordering::Relaxed);
        let (awake, lost) = (spent & u64::from(u32::MAX), spent >> 32);
        assert!(awake >= 30_000 && lost * 10 > awake * 9, "{lost} of {awake} µs");
    }
}
