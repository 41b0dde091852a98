//! All that is under way in a run, and the thread that shows it. When something is shown is decided by [`State::paint`], which is told the time.

use std::io::IsTerminal;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rwkv_forge_choose::Unit;
use rwkv_forge_report::sink;

use super::estimate::Estimate;
use super::words::{self, Moment};

/// Seconds between two lines in a log, where nobody says otherwise.
const LINES: Duration = Duration::from_secs(30);
/// Shorter work than this needs no bar.
const DELAY: Duration = Duration::from_millis(700);
/// A bar is drawn anew so often, whether there is news or not: what moves is alive.
const PERIOD: Duration = Duration::from_millis(500);
/// A pause between two pieces of work that nobody notices.
const MOMENT: Duration = Duration::from_secs(1);
/// What takes the place of [`LINES`], in seconds.
const INTERVAL: &str = "RWKV_FORGE_PROGRESS_SECONDS";

/// Where progress is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Manner {
    /// Nowhere.
    Hidden,
    /// A bar for people, of work that takes longer than this.
    Bar(Duration),
    /// A line in a log, each time that so much has passed.
    Lines(Duration),
}

/// What tells how long the rest takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Left {
    /// The pace so far.
    #[default]
    ByPace,
    /// The work, which said so at that moment.
    Told(Duration, Instant),
    /// Nothing as yet, and the pace would be wrong.
    Unknown,
}

/// A piece of work that is under way.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) name: &'static str,
    pub(super) unit: Unit,
    pub(super) at: String,
    pub(super) done: u64,
    pub(super) total: u64,
    pub(super) started: Instant,
    pub(super) left: Left,
    /// By the pace.
    pub(super) estimate: Estimate,
    /// Whether other work follows, which its time is not that of.
    pub(super) step: bool,
}

impl Task {
    /// Work that begins.
    pub(super) fn new(name: &'static str, unit: Unit, started: Instant) -> Self {
        let (left, estimate) = (Left::default(), Estimate::default());
        Self { name, unit, at: String::new(), done: 0, total: 0, started, left, estimate, step: false }
    }

    /// Says how much is done now.
    pub(super) fn set(&mut self, done: u64, total: u64, now: Instant) {
        (self.done, self.total) = (done, total);
        self.estimate.hear(done, total, now.saturating_duration_since(self.started));
    }

    fn moment(&self, now: Instant) -> Moment {
        let elapsed = now.saturating_duration_since(self.started);
        let left = match self.left {
            Left::ByPace => self.estimate.left(elapsed),
            Left::Told(left, since) => Some(left.saturating_sub(now.saturating_duration_since(since))),
            Left::Unknown => None,
        };
        Moment {
            name: self.name,
            unit: self.unit,
            at: sink::word(&self.at).into_owned(),
            done: self.done,
            total: self.total,
            elapsed,
            left,
            step: self.step,
        }
    }
}

/// What is drawn on.
pub(super) trait Surface: Send {
    /// Shows these words, with a bar if a share is known, in the place of what was shown before.
    fn draw(&mut self, name: &str, percent: Option<u64>, text: &str);
    /// Takes away what was drawn.
    fn clear(&mut self);
    /// Adds a line.
    fn line(&mut self, text: &str);
    /// Places for the text beside a bar with this name.
    fn room(&self, _name: &str) -> usize {
        usize::MAX
    }
}

/// All that is under way, the outermost piece first.
pub(super) struct State {
    pub(super) tasks: Vec<Arc<Mutex<Task>>>,
    manner: Manner,
    surface: Box<dyn Surface>,
    /// Since when there has been something under way, but for moments.
    busy: Instant,
    /// When the last piece ended.
    idle: Instant,
    /// When the last line was written, or the run began.
    said: Instant,
    /// Whether a bar is on the screen.
    drawn: bool,
    painting: bool,
}

impl State {
    pub(super) fn new(manner: Manner, surface: Box<dyn Surface>, now: Instant) -> Self {
        Self { tasks: Vec::new(), manner, surface, busy: now, idle: now, said: now, drawn: false, painting: false }
    }

    pub(super) fn push(&mut self, task: Arc<Mutex<Task>>, now: Instant) {
        if self.tasks.is_empty() && now.saturating_duration_since(self.idle) > MOMENT {
            self.busy = now;
        }
        self.tasks.push(task);
    }

    pub(super) fn remove(&mut self, task: &Arc<Mutex<Task>>, now: Instant) {
        self.tasks.retain(|other| !Arc::ptr_eq(other, task));
        if self.tasks.is_empty() {
            self.idle = now;
            self.hide();
            self.drawn = false;
        }
    }

    /// Takes the bar away, until it is painted again.
    fn hide(&mut self) {
        if self.drawn {
            self.surface.clear();
        }
    }

    /// Shows what is to be shown now, and says when to come again.
    pub(super) fn paint(&mut self, now: Instant) -> Duration {
        let moments: Vec<Moment> = self.tasks.iter().map(|task| lock(task).moment(now)).collect();
        let Some(outermost) = moments.first() else { return PERIOD };
        match self.manner {
            Manner::Hidden => PERIOD,
            Manner::Bar(delay) => {
                let busy = now.saturating_duration_since(self.busy);
                if busy < delay && !self.drawn {
                    return delay.saturating_sub(busy);
                }
                self.surface.draw(outermost.name, outermost.percent(), &words::beside(&moments, self.surface.room(outermost.name)));
                self.drawn = true;
                PERIOD
            }
            Manner::Lines(interval) => {
                let quiet = now.saturating_duration_since(self.said);
                if quiet < interval {
                    return interval.saturating_sub(quiet);
                }
                if let Some(line) = words::line(&moments) {
                    self.surface.line(&format!("progress: {line}"));
                }
                self.said = now;
                interval
            }
        }
    }
}

/// What a poisoned lock guards is shown all the same: that another thread failed is said elsewhere.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Shared {
    state: Mutex<State>,
    news: Condvar,
}

/// The progress of a run.
pub(crate) struct Board {
    manner: Manner,
    shared: Arc<Shared>,
}

impl Board {
    /// For stderr. The second part is what is wrong with the interval that the user names.
    pub(crate) fn new(quiet: bool) -> (Self, Option<String>) {
        let named = std::env::var(INTERVAL).ok();
        let (interval, wrong) = interval(named.as_deref());
        let plain = std::env::var_os("TERM").is_some_and(|name| name == "dumb");
        let manner = match interval {
            _ if quiet => Manner::Hidden,
            interval if std::io::stderr().is_terminal() && !plain => Manner::Bar(interval.map_or(DELAY, |interval| interval.min(DELAY))),
            Some(interval) => Manner::Lines(interval),
            None => Manner::Hidden,
        };
        (Self::with(manner, Box::new(Stderr::default())), wrong)
    }

    pub(super) fn with(manner: Manner, surface: Box<dyn Surface>) -> Self {
        let state = Mutex::new(State::new(manner, surface, Instant::now()));
        Self { manner, shared: Arc::new(Shared { state, news: Condvar::new() }) }
    }

    /// Puts a piece of work on the board.
    pub(super) fn begin(&self, name: &'static str, unit: Unit) -> Option<Arc<Mutex<Task>>> {
        if self.manner == Manner::Hidden {
            return None;
        }
        let started = Instant::now();
        let task = Arc::new(Mutex::new(Task::new(name, unit, started)));
        let mut state = lock(&self.shared.state);
        state.push(Arc::clone(&task), started);
        if !state.painting {
            let shared = Arc::clone(&self.shared);
            // Where there is no thread to be had, nothing is shown and nothing is lost.
            state.painting = std::thread::Builder::new().name("progress".to_owned()).spawn(move || paint(&shared)).is_ok();
        }
        drop(state);
        self.shared.news.notify_all();
        Some(task)
    }

    /// Takes it away again.
    pub(super) fn end(&self, task: &Arc<Mutex<Task>>) {
        lock(&self.shared.state).remove(task, Instant::now());
    }

    /// Does something that writes on the same screen.
    pub(crate) fn aside<T>(&self, task: impl FnOnce() -> T) -> T {
        // Nobody paints while it writes.
        let mut state = lock(&self.shared.state);
        state.hide();
        let out = task();
        drop(state);
        out
    }
}

/// The seconds that the user names, `None` for no lines at all, and what is wrong with them.
fn interval(named: Option<&str>) -> (Option<Duration>, Option<String>) {
    let Some(text) = named else { return (Some(LINES), None) };
    match text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
        Some(Duration::ZERO) => (None, None),
        Some(interval) => (Some(interval), None),
        None => {
            let wrong = format!("{INTERVAL}={text} is no number of seconds: a line of progress comes each {} s", LINES.as_secs());
            (Some(LINES), Some(wrong))
        }
    }
}

/// Paints as long as the program runs; without work it sleeps.
fn paint(shared: &Shared) {
    let mut state = lock(&shared.state);
    loop {
        state = if state.tasks.is_empty() {
            shared.news.wait(state).unwrap_or_else(PoisonError::into_inner)
        } else {
            let pause = state.paint(Instant::now());
            shared.news.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0
        };
    }
}

/// Terminals of fewer places have no room for a bar.
const SPACIOUS: usize = 80;

/// Places of a line of the terminal.
fn width() -> usize {
    let asked = rustix::termios::tcgetwinsize(std::io::stderr()).ok().map(|size| usize::from(size.ws_col));
    asked.filter(|columns| *columns > 0).unwrap_or(SPACIOUS)
}

/// The stream that is no result.
#[derive(Default)]
struct Stderr {
    bar: Option<ProgressBar>,
    share: bool,
}

impl Surface for Stderr {
    fn draw(&mut self, name: &str, percent: Option<u64>, text: &str) {
        // Where there is little room, words say more than a bar.
        let share = percent.is_some() && width() >= SPACIOUS;
        if self.bar.is_none() || self.share != share {
            let template = if share { "{spinner} {prefix} {bar:12.cyan} {wide_msg}" } else { "{spinner} {prefix} {wide_msg}" };
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = self.bar.get_or_insert_with(|| ProgressBar::with_draw_target(Some(100), ProgressDrawTarget::stderr()));
            bar.set_style(style);
            self.share = share;
        }
        if let Some(bar) = &self.bar {
            bar.set_prefix(name.to_owned());
            bar.set_message(text.to_owned());
            bar.set_position(percent.unwrap_or(0));
            bar.tick();
        }
    }

    fn room(&self, name: &str) -> usize {
        // What moves, the name, and spaces; the bar.
        let beside = 3 + name.len() + if width() >= SPACIOUS { 13 } else { 0 };
        width().saturating_sub(beside)
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn line(&mut self, text: &str) {
        crate::terminal::say(&format!("{text}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps what is shown.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<String>>>);

    impl Surface for Paper {
        fn draw(&mut self, name: &str, percent: Option<u64>, text: &str) {
            lock(&self.0).push(format!("{name} {percent:?} {text}"));
        }

        fn clear(&mut self) {
            lock(&self.0).push("cleared".to_owned());
        }

        fn line(&mut self, text: &str) {
            lock(&self.0).push(text.to_owned());
        }
    }

    /// A state at a time zero, and what it shows.
    fn state(manner: Manner) -> (State, Paper, Instant) {
        let (paper, zero) = (Paper::default(), Instant::now());
        (State::new(manner, Box::new(paper.clone()), zero), paper, zero)
    }

    fn task(name: &'static str, started: Instant) -> Arc<Mutex<Task>> {
        Arc::new(Mutex::new(Task::new(name, Unit::Layers, started)))
    }

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_log_gets_a_line_each_interval_whatever_is_under_way() {
        let (mut state, paper, zero) = state(Manner::Lines(Duration::from_secs(30)));
        let first = task("first", zero);
        state.push(Arc::clone(&first), zero);
        assert_eq!(state.paint(zero + millis(29_000)), millis(1000));
        // Work that is short on its own counts all the same.
        state.remove(&first, zero + millis(29_500));
        let second = task("second", zero + millis(29_500));
        lock(&second).set(0, 24, zero + millis(29_500));
        state.push(Arc::clone(&second), zero + millis(29_500));
        assert_eq!(state.paint(zero + millis(30_000)), Duration::from_secs(30));
        assert_eq!(state.paint(zero + millis(59_999)), millis(1));
        lock(&second).set(12, 24, zero + millis(59_500));
        state.paint(zero + millis(60_000));
        let said = lock(&paper.0).clone();
        assert_eq!(said[0], "progress: second: 0 %, 0 of 24 layers, 0 s so far, left unknown");
        assert_eq!(said[1], "progress: second: 50 %, 12 of 24 layers, 2.5 s a layer, 29 s left");
        assert_eq!(said.len(), 2);
    }

    #[test]
    fn a_bar_moves_even_where_nothing_is_finished() {
        let (mut state, paper, zero) = state(Manner::Bar(DELAY));
        let long = task("long", zero);
        state.push(Arc::clone(&long), zero);
        assert_eq!(state.paint(zero + millis(200)), millis(500), "nothing yet");
        assert!(lock(&paper.0).is_empty());
        // However long a step takes, it comes again within two seconds, with another time.
        let mut now = zero + DELAY;
        for _ in 0..5 {
            let pause = state.paint(now);
            assert!(pause <= Duration::from_secs(2));
            now += pause.max(Duration::from_secs(1));
        }
        let mut said = lock(&paper.0).clone();
        assert_eq!(said.len(), 5);
        said.dedup();
        assert_eq!(said.len(), 5, "{said:?}");
        assert_eq!(said[2], "long None 2 s so far");
    }

    #[test]
    fn what_follows_at_once_goes_on_with_the_bar_and_short_work_has_none() {
        let (mut state, paper, zero) = state(Manner::Bar(DELAY));
        let first = task("first", zero);
        state.push(Arc::clone(&first), zero);
        state.paint(zero + millis(800));
        state.remove(&first, zero + millis(900));
        let second = task("second", zero + millis(901));
        state.push(Arc::clone(&second), zero + millis(901));
        state.paint(zero + millis(901));
        state.remove(&second, zero + millis(1000));
        let third = task("third", zero + millis(9000));
        state.push(third, zero + millis(9000));
        state.paint(zero + millis(9100));
        let names: Vec<String> = lock(&paper.0).iter().filter_map(|said| said.split(' ').next().map(str::to_owned)).collect();
        assert_eq!(names, ["first", "cleared", "second", "cleared"], "the third one is too short");
    }

    #[test]
    fn a_part_is_shown_within_the_whole() {
        let (mut state, paper, zero) = state(Manner::Lines(millis(1)));
        let whole = task("evaluating", zero);
        lock(&whole).total = 4;
        let part = task("quantizing", zero);
        lock(&part).at = "q4_0: head\u{1b}[2J".to_owned();
        state.push(whole, zero);
        state.push(Arc::clone(&part), zero);
        state.paint(zero + millis(2000));
        state.remove(&part, zero + millis(2500));
        state.paint(zero + millis(3000));
        let said = lock(&paper.0).clone();
        assert_eq!(said[0], "progress: evaluating: 0 %, 0 of 4 layers, 2 s so far, left unknown; quantizing: q4_0: head\\x1b[2J");
        assert_eq!(said[1], "progress: evaluating: 0 %, 0 of 4 layers, 3 s so far, left unknown");
    }

    #[test]
    fn the_interval_is_a_number_of_seconds() {
        assert_eq!(interval(None), (Some(LINES), None));
        assert_eq!(interval(Some("0.5")), (Some(millis(500)), None));
        assert_eq!(interval(Some("0")), (None, None));
        for wrong in ["soon", "-1", "nan", ""] {
            let (found, said) = interval(Some(wrong));
            assert!(found == Some(LINES) && said.is_some_and(|said| said.contains("is no number of seconds")), "{wrong}");
        }
    }

    #[test]
    fn what_is_written_beside_a_bar_makes_room_for_itself() {
        let paper = Paper::default();
        let board = Board::with(Manner::Bar(DELAY), Box::new(paper.clone()));
        assert_eq!(board.aside(|| 3), 3);
        assert!(lock(&paper.0).is_empty(), "there is no bar");
        lock(&board.shared.state).drawn = true;
        assert_eq!(board.aside(|| 4), 4);
        assert_eq!(*lock(&paper.0), ["cleared"]);
    }
}
