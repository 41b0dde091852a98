//! What goes on, for people who wait: a bar where stderr is a terminal, a line now and then where it is a log.
//!
//! Start at [`Progress`], a piece of work. `board.rs` knows all pieces that are under way and has a thread that shows them, so that
//! nothing seems frozen however long a step takes; `estimate.rs` knows how long the rest takes, `words.rs` what is said.

mod board;
mod estimate;
mod words;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(crate) use board::Board;
use board::{Left, Task, lock};
use rwkv_forge_choose::{Observer, Steps, Unit, Work};

use crate::terminal::Terminal;

/// A piece of work that people may have to wait for. It ends when this is dropped.
pub(crate) struct Progress<'t> {
    board: &'t Board,
    /// None where nothing is shown.
    task: Option<Arc<Mutex<Task>>>,
}

impl<'t> Progress<'t> {
    /// Work whose amounts are counted in `unit`, once there are any.
    pub(crate) fn new(terminal: &'t Terminal, name: &'static str, unit: Unit) -> Self {
        let board = terminal.board();
        Self { board, task: board.begin(name, unit) }
    }

    /// The same of work that others follow: the time that is left is that of this step.
    pub(crate) fn step(terminal: &'t Terminal, name: &'static str, unit: Unit) -> Self {
        let out = Self::new(terminal, name, unit);
        out.change(|task| task.step = true);
        out
    }

    fn change(&self, change: impl FnOnce(&mut Task)) {
        if let Some(task) = &self.task {
            change(&mut lock(task));
        }
    }

    /// Adds to what is done; may be called from any thread.
    pub(crate) fn add(&self, amount: u64, total: u64) {
        self.change(|task| task.set(task.done.saturating_add(amount), total, Instant::now()));
    }

    /// Says how much is done.
    pub(crate) fn set(&self, done: u64, total: u64) {
        self.change(|task| task.set(done, total, Instant::now()));
    }

    /// Says what is at hand.
    pub(crate) fn at(&self, what: &str) {
        self.change(|task| {
            if task.at != what {
                what.clone_into(&mut task.at);
            }
        });
    }

    /// Goes on with other work, if it is another.
    pub(crate) fn turn(&self, name: &'static str, unit: Unit) {
        self.change(|task| {
            if task.name != name {
                *task = Task { step: task.step, ..Task::new(name, unit, Instant::now()) };
            }
        });
    }
}

impl Steps for Progress<'_> {
    fn set(&self, done: u64, total: u64) {
        Self::set(self, done, total);
    }

    fn at(&self, what: &str) {
        Self::at(self, what);
    }

    fn left(&self, seconds: f64) {
        let left = Duration::try_from_secs_f64(seconds).map_or(Left::Unknown, |left| Left::Told(left, Instant::now()));
        self.change(|task| task.left = left);
    }

    fn whole(&self) {
        self.change(|task| task.step = false);
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
        // Works of libraries follow each other; one that is all there is says so.
        Box::new(Progress::step(self, work.name(), work.unit()))
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            self.board.end(task);
        }
    }
}
