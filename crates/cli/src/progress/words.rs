//! What is said of work under way. Nothing here knows a clock or a terminal.

use std::time::Duration;

use rwkv_forge_choose::Unit;

/// How far a piece of work is, at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Moment {
    /// What is done.
    pub(super) name: &'static str,
    /// What amounts count.
    pub(super) unit: Unit,
    /// What is at hand; empty where that is not known.
    pub(super) at: String,
    /// Amount that is done.
    pub(super) done: u64,
    /// All of it; 0 where that is not known.
    pub(super) total: u64,
    /// How long it has taken.
    pub(super) elapsed: Duration,
    /// How long the rest takes, where that is known.
    pub(super) left: Option<Duration>,
    /// Whether other work follows.
    pub(super) step: bool,
}

/// Names of two and more of a unit; weights are told by their magnitude, as bytes are.
fn plural(unit: Unit) -> &'static str {
    match unit {
        Unit::Bytes => "B",
        Unit::Layers => "layers",
        Unit::Tensors => "tensors",
        Unit::Weights => "weights",
        Unit::Tokens => "tokens",
        Unit::Steps => "steps",
    }
}

fn singular(unit: Unit) -> &'static str {
    match unit {
        Unit::Bytes => "byte",
        Unit::Layers => "layer",
        Unit::Tensors => "tensor",
        Unit::Weights => "weight",
        Unit::Tokens => "token",
        Unit::Steps => "step",
    }
}

/// An amount with its unit: `1.25 GB`, `34.0 M weights`, `1,234 tokens`.
fn amount(value: f64, unit: Unit) -> String {
    let (large, space) = match unit {
        Unit::Bytes => (true, ""),
        Unit::Weights => (true, " "),
        Unit::Layers | Unit::Tensors | Unit::Tokens | Unit::Steps => (false, " "),
    };
    let name = plural(unit);
    if large {
        let (scaled, prefix) = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")]
            .into_iter()
            .find(|(size, _)| value >= *size)
            .map_or((value, ""), |(size, prefix)| (value / size, prefix));
        let digits = if prefix.is_empty() || scaled >= 100.0 {
            0
        } else if scaled >= 10.0 {
            1
        } else {
            2
        };
        return format!("{scaled:.digits$} {}", format!("{prefix}{space}{name}").trim_start());
    }
    if value < 10.0 && value.fract() != 0.0 { format!("{value:.1} {name}") } else { format!("{} {name}", whole(value)) }
}

fn whole(value: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an amount of work, rounded for people")]
    let value = value.round() as u64;
    rwkv_forge_report::thousands(value)
}

/// `42 s`, `5 min 20 s`, `1 h 20 min`.
pub(super) fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..100 => format!("{seconds} s"),
        100..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// Shorter work than this has no pace yet.
const PACE: Duration = Duration::from_millis(500);

impl Moment {
    /// Hundredths that are done, rounded down: 100 is the end.
    pub(super) fn percent(&self) -> Option<u64> {
        u64::try_from(u128::from(self.done.min(self.total)) * 100 / u128::from(self.total.max(1))).ok().filter(|_| self.total > 0)
    }

    /// `12 of 24 layers`.
    fn amounts(&self) -> Option<String> {
        let done = amount(self.done as f64, self.unit);
        let all = amount(self.total as f64, self.unit);
        // The same unit need not be said twice.
        let short = done.rsplit_once(' ').filter(|(_, unit)| all.ends_with(&format!(" {unit}"))).map_or(&*done, |(number, _)| number);
        (self.total > 0).then(|| format!("{short} of {all}"))
    }

    /// Amount a second, once some of it is done.
    fn pace(&self) -> Option<f64> {
        (self.total > 0 && self.done > 0 && self.elapsed >= PACE).then(|| self.done as f64 / self.elapsed.as_secs_f64())
    }

    /// `3.1 MB/s`, or `12 s a tensor` where that says more.
    fn rate(&self) -> Option<String> {
        let pace = self.pace()?;
        Some(if pace < 0.5 { format!("{:.1} s a {}", 1.0 / pace, singular(self.unit)) } else { format!("{}/s", amount(pace, self.unit)) })
    }

    /// How long the rest takes or, where no end is known, that it goes on.
    fn clock(&self) -> String {
        // A step that is done is not the end: nothing is left of it, and much may be of the rest.
        let is_over = self.step && self.total > 0 && self.done >= self.total;
        match self.left.filter(|_| !is_over) {
            None => format!("{} so far", time(self.elapsed)),
            Some(rest) if self.step => format!("{} left of this step", time(rest)),
            Some(rest) => format!("{} left", time(rest)),
        }
    }

    /// The same in a log, which says plainly what it does not know of the run.
    fn clock_of_run(&self) -> String {
        let clock = self.clock();
        match (clock.ends_with(" left"), clock.ends_with(" left of this step")) {
            (true, _) => clock,
            (false, true) => format!("{clock}, of the run unknown"),
            (false, false) => format!("{clock}, left unknown"),
        }
    }

    /// As a part of another piece of work: `quantizing 12 %: q4_0: head.weight`.
    fn short(&self) -> String {
        let percent = self.percent().map_or_else(String::new, |percent| format!(" {percent} %"));
        let at = if self.at.is_empty() { String::new() } else { format!(": {}", self.at) };
        format!("{}{percent}{at}", self.name)
    }
}

/// What is at hand: the innermost of the pieces under way, or what the only one says.
fn at_hand(moments: &[Moment]) -> String {
    match moments {
        [] => String::new(),
        [only] => only.at.clone(),
        [_, .., innermost] => innermost.short(),
    }
}

/// One line about all that is under way, the outermost piece of work first.
pub(super) fn line(moments: &[Moment]) -> Option<String> {
    let outermost = moments.first()?;
    let percent = outermost.percent().map(|percent| format!("{percent} %"));
    let numbers: Vec<String> =
        [percent, outermost.amounts(), outermost.rate(), Some(outermost.clock_of_run())].into_iter().flatten().collect();
    let at = at_hand(moments);
    let at = if at.is_empty() { at } else { format!("; {at}") };
    Some(format!("{}: {}{at}", outermost.name, numbers.join(", ")))
}

/// What stands beside a bar in so many places. Where there are few, numbers go before what is at hand does; the end may be cut off.
pub(super) fn beside(moments: &[Moment], places: usize) -> String {
    let Some(outermost) = moments.first() else { return String::new() };
    let percent = outermost.percent().map(|percent| format!("{percent} %"));
    let at = Some(at_hand(moments)).filter(|at| !at.is_empty());
    let clock = Some(outermost.clock());
    // Without anything at hand, the time is what moves.
    let least = if at.is_some() { None } else { clock.clone() };
    let forms = [
        [percent.clone(), clock.clone(), outermost.rate(), at.clone(), outermost.amounts()],
        [percent.clone(), clock.clone(), outermost.rate(), at.clone(), None],
        [percent.clone(), clock, None, at.clone(), None],
        [percent, least, None, at, None],
    ];
    let mut texts = forms.into_iter().map(|parts| parts.into_iter().flatten().collect::<Vec<_>>().join("  ")).peekable();
    while let Some(text) = texts.next() {
        if texts.peek().is_none() || text.chars().count() <= places {
            return text;
        }
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::super::estimate::Estimate;
    use super::*;

    fn moment(unit: Unit, done: u64, total: u64, seconds: f64) -> Moment {
        let elapsed = Duration::from_secs_f64(seconds);
        let mut estimate = Estimate::default();
        estimate.hear(done, total, elapsed);
        Moment { name: "working", unit, at: String::new(), done, total, elapsed, left: estimate.left(elapsed), step: false }
    }

    fn said(moment: &Moment) -> String {
        line(std::slice::from_ref(moment)).unwrap()
    }

    #[test]
    fn a_line_has_the_share_the_amounts_the_rate_and_the_rest() {
        let cases = [
            (moment(Unit::Tokens, 1234, 29_000, 4.0), "4 %, 1,234 of 29,000 tokens, 309 tokens/s, 90 s left"),
            (moment(Unit::Bytes, 1_250_000_000, 3_400_000_000, 2.5), "36 %, 1.25 of 3.40 GB, 500 MB/s, 4 s left"),
            (moment(Unit::Bytes, 900_000, 3_400_000_000, 1.0), "0 %, 900 kB of 3.40 GB, 900 kB/s, 1 h 2 min left"),
            (moment(Unit::Weights, 34_000_000, 430_000_000, 10.0), "7 %, 34.0 M of 430 M weights, 3.40 M weights/s, 116 s left"),
            (moment(Unit::Tensors, 5, 219, 60.0), "2 %, 5 of 219 tensors, 12.0 s a tensor, 42 min 48 s left"),
            (moment(Unit::Layers, 12, 24, 10.0), "50 %, 12 of 24 layers, 1.2 layers/s, 10 s left"),
            (moment(Unit::Steps, 3, 3, 1.0), "100 %, 3 of 3 steps, 3 steps/s, 0 s left"),
        ];
        for (moment, text) in cases {
            assert_eq!(said(&moment), format!("working: {}", text.replace("116 s", "1 min 56 s")));
        }
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        assert_eq!(said(&moment(Unit::Steps, 0, 0, 35.0)), "working: 35 s so far, left unknown");
        assert_eq!(said(&moment(Unit::Layers, 0, 24, 35.0)), "working: 0 %, 0 of 24 layers, 35 s so far, left unknown");
        assert_eq!(said(&moment(Unit::Layers, 1, 24, 0.1)), "working: 4 %, 1 of 24 layers, 0 s so far, left unknown", "no pace yet");
        assert_eq!(line(&[]), None);
    }

    #[test]
    fn the_end_alone_is_a_hundred_percent() {
        assert_eq!(moment(Unit::Bytes, 999_999, 1_000_000, 1.0).percent(), Some(99));
        assert_eq!(moment(Unit::Bytes, u64::MAX, u64::MAX, 1.0).percent(), Some(100));
        assert_eq!(moment(Unit::Bytes, 7, 5, 1.0).percent(), Some(100), "what was counted wrong is no more than all");
        assert_eq!(moment(Unit::Bytes, 7, 0, 1.0).percent(), None);
    }

    #[test]
    fn work_knows_its_own_rest_and_its_parts() {
        let outer = Moment { at: "q4_0".to_owned(), left: Some(Duration::from_secs(61)), ..moment(Unit::Tokens, 50, 100, 10.0) };
        let inner = Moment { name: "quantizing", at: "head.weight".to_owned(), ..moment(Unit::Weights, 1, 8, 2.0) };
        assert_eq!(said(&outer), "working: 50 %, 50 of 100 tokens, 5 tokens/s, 61 s left; q4_0");
        assert_eq!(line(&[outer, inner]).unwrap(), "working: 50 %, 50 of 100 tokens, 5 tokens/s, 61 s left; quantizing 12 %: head.weight");
    }

    #[test]
    fn beside_a_bar_the_amounts_come_last() {
        let outer = Moment { at: "q4_0: layer 1 of 2".to_owned(), ..moment(Unit::Tokens, 50, 100, 10.0) };
        assert_eq!(beside(&[outer], usize::MAX), "50 %  10 s left  5 tokens/s  q4_0: layer 1 of 2  50 of 100 tokens");
        assert_eq!(beside(&[moment(Unit::Steps, 0, 0, 3.0)], 5), "3 s so far");
        assert_eq!(beside(&[], 5), "");
    }

    #[test]
    fn where_there_is_little_room_what_is_done_stays() {
        let at = "level 2 of 5, 4bit: layer 3 of 12".to_owned();
        let step = Moment { at, step: true, ..moment(Unit::Tokens, 1_234, 29_000, 4.0) };
        let in_places = |places: usize| beside(std::slice::from_ref(&step), places);
        assert_eq!(in_places(200), "4 %  90 s left of this step  309 tokens/s  level 2 of 5, 4bit: layer 3 of 12  1,234 of 29,000 tokens");
        assert_eq!(in_places(80), "4 %  90 s left of this step  309 tokens/s  level 2 of 5, 4bit: layer 3 of 12");
        assert_eq!(in_places(70), "4 %  90 s left of this step  level 2 of 5, 4bit: layer 3 of 12");
        // A terminal of 60 places, less the name of the work.
        assert_eq!(in_places(47), "4 %  level 2 of 5, 4bit: layer 3 of 12");
        assert_eq!(in_places(0), in_places(47));
    }

    #[test]
    fn a_step_says_that_its_time_is_not_that_of_the_run() {
        let step = |done: u64| Moment { step: true, ..moment(Unit::Layers, done, 24, 10.0) };
        assert_eq!(said(&step(12)), "working: 50 %, 12 of 24 layers, 1.2 layers/s, 10 s left of this step, of the run unknown");
        assert_eq!(said(&step(24)), "working: 100 %, 24 of 24 layers, 2.4 layers/s, 10 s so far, left unknown");
    }

    #[test]
    fn times_are_short() {
        let of = |seconds: u64| time(Duration::from_secs(seconds));
        assert_eq!(
            [of(0), of(99), of(100), of(3599), of(3600), of(86_400)],
            ["0 s", "99 s", "1 min 40 s", "59 min 59 s", "1 h 0 min", "24 h 0 min"]
        );
    }
}
