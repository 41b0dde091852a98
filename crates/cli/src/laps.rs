//! How long the parts of a run took. Start at [`Laps`].

use std::time::Instant;

use serde_json::{Map, Value, json};

/// The parts of a run, one after the other, so that their seconds add up to the whole.
pub(crate) struct Laps {
    last: Instant,
    parts: Vec<(&'static str, f64)>,
}

impl Laps {
    /// From now on.
    pub(crate) fn start() -> Self {
        Self { last: Instant::now(), parts: Vec::new() }
    }

    /// What was done since the last part ended was `part`.
    pub(crate) fn end(&mut self, part: &'static str) {
        let seconds = self.last.elapsed().as_secs_f64();
        self.last = Instant::now();
        self.add(part, seconds);
    }

    /// The same, for what consisted of several parts with known times, and of what is left of it: `rest`.
    pub(crate) fn end_of(&mut self, known: &[(&'static str, f64)], rest: &'static str) {
        let seconds = self.last.elapsed().as_secs_f64();
        self.last = Instant::now();
        known.iter().for_each(|(part, seconds)| self.add(part, *seconds));
        let known: f64 = known.iter().map(|(_, seconds)| seconds).sum();
        self.add(rest, (seconds - known).max(0.0));
    }

    fn add(&mut self, part: &'static str, seconds: f64) {
        match self.parts.iter_mut().find(|(known, _)| *known == part) {
            Some((_, known)) => *known += seconds,
            None => self.parts.push((part, seconds)),
        }
    }

    fn total(&self) -> f64 {
        self.parts.iter().map(|(_, seconds)| seconds).sum()
    }

    /// `61.32 s: opening 0.21 s, calibrating 60.02 s, ...`, with a remark behind the part that it is about.
    pub(crate) fn text(&self, of: &str, remark: &str) -> String {
        let part = |(name, seconds): &(&'static str, f64)| {
            let remark = if *name == of { remark } else { "" };
            format!("{name} {seconds:.2} s{remark}")
        };
        format!("{:.2} s: {}", self.total(), self.parts.iter().map(part).collect::<Vec<_>>().join(", "))
    }

    /// `total`, and each part by its name.
    pub(crate) fn to_json(&self) -> Value {
        let mut out = Map::new();
        out.insert("total".to_owned(), json!(self.total()));
        out.extend(self.parts.iter().map(|(part, seconds)| ((*part).to_owned(), json!(seconds))));
        Value::Object(out)
    }
}

#[cfg(test)]
mod tests {
    use super::Laps;

    #[test]
    fn parts_add_up_to_the_whole() {
        let mut laps = Laps::start();
        laps.parts.extend([("opening", 0.25), ("calibrating", 60.0)]);
        laps.end_of(&[("writing", 0.5), ("comparing", 1.0)], "finishing");
        let text = laps.text("writing", " (12 MB/s of source)");
        assert_eq!(
            text,
            "61.75 s: opening 0.25 s, calibrating 60.00 s, writing 0.50 s (12 MB/s of source), comparing 1.00 s, finishing 0.00 s"
        );
        assert_eq!((laps.to_json()["total"].as_f64(), laps.to_json()["calibrating"].as_f64()), (Some(61.75), Some(60.0)));
        laps.add("opening", 1.0);
        assert_eq!(laps.to_json()["opening"], 1.25);
    }
}
