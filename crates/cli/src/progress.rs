//! Progress bars for what takes longer than a second.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rwkv_forge_choose::{Observer, Steps, Work};

use crate::terminal::Terminal;

/// A bar that appears only when the work turns out to be long.
pub(crate) struct Progress {
    shown: bool,
    label: &'static str,
    bytes: bool,
    started: Instant,
    done: AtomicU64,
    bar: Mutex<Option<ProgressBar>>,
}

/// Shorter work than this needs no bar.
const DELAY: Duration = Duration::from_millis(700);

impl Progress {
    /// `bytes`: amounts are bytes, otherwise steps.
    pub(crate) fn new(terminal: &Terminal, label: &'static str, bytes: bool) -> Self {
        Self { shown: terminal.shows_progress(), label, bytes, started: Instant::now(), done: AtomicU64::new(0), bar: Mutex::new(None) }
    }

    /// Adds to what is done; may be called from any thread.
    pub(crate) fn add(&self, amount: u64, total: u64) {
        let done = self.done.fetch_add(amount, Ordering::Relaxed).saturating_add(amount);
        self.set(done, total);
    }

    /// Says how much is done.
    pub(crate) fn set(&self, done: u64, total: u64) {
        if !self.shown || self.started.elapsed() < DELAY {
            return;
        }
        // A poisoned lock only means that another thread failed: the bar does not matter then.
        let Ok(mut bar) = self.bar.lock() else { return };
        bar.get_or_insert_with(|| self.make(total)).set_position(done);
    }

    fn make(&self, total: u64) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let template = if self.bytes {
            "{msg:10} {wide_bar:.cyan} {bytes}/{total_bytes} {bytes_per_sec} {eta}"
        } else {
            "{msg:10} {wide_bar:.cyan} {pos}/{len} {eta}"
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        bar.set_message(self.label);
        bar
    }
}

impl Steps for Progress {
    fn set(&self, done: u64, total: u64) {
        Self::set(self, done, total);
    }
}

/// Libraries say what goes on; people see bars, and lines on stderr.
impl Observer for Terminal {
    fn note(&self, text: &str) {
        Self::note(self, text);
    }

    fn warn(&self, text: &str) {
        Self::warn(self, text);
    }

    fn detail(&self, text: &str) {
        Self::detail(self, text);
    }

    fn begin(&self, work: Work) -> Box<dyn Steps + '_> {
        let label = match work {
            Work::Calibrating => "calibrating",
            Work::Probing => "probing",
            Work::Evaluating => "evaluating",
            Work::Measuring => "measuring",
        };
        Box::new(Progress::new(self, label, false))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Ok(mut bar) = self.bar.lock()
            && let Some(bar) = bar.take()
        {
            bar.finish_and_clear();
        }
    }
}
