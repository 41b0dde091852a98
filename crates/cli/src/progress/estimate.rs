//! How long the rest of a piece of work takes, from its pace so far. Nothing here knows a clock: times are those since it began.

use std::time::Duration;

/// A pace is no pace before this time.
const PACE: Duration = Duration::from_millis(500);
/// A new estimate that is larger than the one before by less than this share is noise: the one before goes on.
const NOISE: f64 = 0.15;
/// So much of a larger difference is taken over at once: one slow piece does not make the rest as slow.
const WEIGHT: f64 = 0.5;

/// The estimate, made anew each time that something is finished and counted down in between: while a long step is under way, nothing
/// is known that was not known before.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Estimate {
    /// Amount that was done when it was made.
    done: u64,
    /// What was left, and when that was.
    made: Option<(Duration, Duration)>,
}

impl Estimate {
    /// Hears how much is done after so long.
    pub(super) fn hear(&mut self, done: u64, total: u64, elapsed: Duration) {
        if done == self.done || done == 0 || total == 0 || elapsed < PACE {
            return;
        }
        let rest = total.saturating_sub(done) as f64;
        let found = elapsed.as_secs_f64() * rest / done as f64;
        let left = match self.left(elapsed).map(|left| left.as_secs_f64()) {
            Some(before) if found > before && found <= before * (1.0 + NOISE) => before,
            Some(before) if found > before => before + (found - before) * WEIGHT,
            _ => found,
        };
        self.made = Duration::try_from_secs_f64(left).ok().map(|left| (left, elapsed));
        self.done = done;
    }

    /// What is left after so long, if anything is known.
    pub(super) fn left(&self, elapsed: Duration) -> Option<Duration> {
        self.made.map(|(left, since)| left.saturating_sub(elapsed.saturating_sub(since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn time_left_does_not_run_backwards_while_work_goes_on_evenly() {
        // 24 layers of about 25 s each, looked at each second.
        let mut estimate = Estimate::default();
        let mut last = f64::INFINITY;
        for second in 0..600_u32 {
            let elapsed = seconds(f64::from(second));
            // A layer takes a second more or less than the one before.
            let done = (1..=24_u32).filter(|layer| second >= 25 * layer + layer % 2).count() as u64;
            estimate.hear(done, 24, elapsed);
            let Some(left) = estimate.left(elapsed) else {
                assert!(second < 26, "known once a layer is done");
                continue;
            };
            let left = left.as_secs_f64();
            assert!(left <= last, "{left} after {last} at {second} s");
            assert!((left - f64::from(600 - second)).abs() < 40.0, "{left} at {second} s");
            last = left;
        }
    }

    #[test]
    fn slower_work_makes_it_grow_by_and_by() {
        let mut estimate = Estimate::default();
        estimate.hear(1, 10, seconds(10.0));
        assert_eq!(estimate.left(seconds(10.0)), Some(seconds(90.0)));
        estimate.hear(2, 10, seconds(40.0));
        // By its pace 160 s, counted down 60 s.
        assert_eq!(estimate.left(seconds(40.0)), Some(seconds(110.0)));
        estimate.hear(10, 10, seconds(41.0));
        assert_eq!(estimate.left(seconds(41.0)), Some(Duration::ZERO));
    }

    #[test]
    fn nothing_is_known_without_a_pace() {
        let mut estimate = Estimate::default();
        estimate.hear(0, 10, seconds(10.0));
        estimate.hear(1, 10, seconds(0.1));
        estimate.hear(1, 0, seconds(10.0));
        assert_eq!(estimate.left(seconds(10.0)), None);
    }
}
