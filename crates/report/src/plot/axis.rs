//! Where values lie along an axis, and which of them get a tick.

use super::{Axis, Scale};

/// An axis of known length in pixels, from `start` to `end` (which may be the smaller one).
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    scale: Scale,
    low: f64,
    high: f64,
    /// Distance of the ticks of a linear axis.
    step: f64,
    start: f64,
    end: f64,
    names: Vec<String>,
}

/// Ticks of a linear axis, about.
const TICKS: f64 = 6.0;

impl Placed {
    /// An axis that shows all `values`, which are finite and, for a logarithmic axis, positive.
    pub(crate) fn new(axis: &Axis, values: impl Iterator<Item = f64>, start: f64, end: f64) -> Self {
        let shown = axis.show.iter().copied().filter(|value| fits(axis.scale, *value));
        let (mut low, mut high) = values.chain(shown).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        let mut step = 0.0;
        match axis.scale {
            Scale::Linear => {
                if low == high {
                    let around = if low == 0.0 { 1.0 } else { low.abs() * 0.5 };
                    (low, high) = (low - around, high + around);
                }
                if !axis.names.is_empty() {
                    // Half a place at both ends, so that the outer names are not at the corners.
                    let last = axis.names.len() as f64 - 1.0;
                    let (low, high) = (low.min(0.0) - 0.5, high.max(last) + 0.5);
                    return Self { scale: axis.scale, low, high, step: 1.0, start, end, names: axis.names.clone() };
                }
                step = tick_distance(high - low);
                if axis.whole {
                    step = step.max(1.0);
                    return Self { scale: axis.scale, low, high, step, start, end, names: Vec::new() };
                }
                (low, high) = (libm::floor(low / step + 1e-9) * step, libm::ceil(high / step - 1e-9) * step);
            }
            Scale::Log => {
                let all = log_ticks(libm::floor(libm::log10(low)) - 1.0, libm::ceil(libm::log10(high)) + 1.0, &[1.0, 2.0, 5.0]);
                low = all.iter().copied().rfind(|tick| *tick <= low * 1.000_001).unwrap_or(low);
                high = all.iter().copied().find(|tick| *tick >= high * 0.999_999).unwrap_or(high);
                if low == high {
                    (low, high) = (low / 2.0, high * 2.0);
                }
            }
        }
        Self { scale: axis.scale, low, high, step, start, end, names: Vec::new() }
    }

    /// Pixels of a value.
    pub(crate) fn place(&self, value: f64) -> f64 {
        let fraction = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => libm::log10(value / self.low) / libm::log10(self.high / self.low),
        };
        self.start + fraction * (self.end - self.start)
    }

    /// How values become lengths.
    pub(crate) fn scale(&self) -> Scale {
        self.scale
    }

    /// A value as people read it on this axis.
    pub(crate) fn name(&self, value: f64) -> String {
        let named = self.names.iter().enumerate().find(|(index, _)| *index as f64 == value);
        named.map_or_else(|| label(value), |(_, name)| name.clone())
    }

    /// Values with a tick and their labels, ascending.
    pub(crate) fn ticks(&self) -> Vec<(f64, String)> {
        if !self.names.is_empty() {
            return self.names.iter().enumerate().map(|(index, name)| (index as f64, name.clone())).collect();
        }
        let values = match self.scale {
            Scale::Linear => {
                let (first, last) = (libm::ceil(self.low / self.step - 1e-9), libm::floor(self.high / self.step + 1e-9));
                let numbers = std::iter::successors(Some(first), |n| Some(n + 1.0)).take_while(|n| *n <= last);
                numbers.map(|n| n * self.step).collect()
            }
            Scale::Log => {
                let (first, last) = (libm::floor(libm::log10(self.low) + 1e-9), libm::ceil(libm::log10(self.high) - 1e-9));
                let digits: &[f64] = if last - first <= 3.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let every = libm::ceil((last - first) / 10.0).max(1.0);
                let inside = |tick: &f64| *tick >= self.low * 0.999_999 && *tick <= self.high * 1.000_001;
                let on = |tick: &f64| libm::fmod(libm::floor(libm::log10(*tick) + 1e-9) - first, every) == 0.0;
                log_ticks(first, last, digits).into_iter().filter(inside).filter(on).collect::<Vec<f64>>()
            }
        };
        values.into_iter().map(|value| (value, label(value))).collect()
    }
}

impl Placed {
    /// Which of these ticks have their labels written, so that no two of them come closer than `gap` pixels where a character is
    /// `character` pixels wide: the powers of ten first on a logarithmic axis, every second or third elsewhere.
    pub(crate) fn labelled(&self, ticks: &[(f64, String)], character: f64, gap: f64) -> Vec<bool> {
        let spans: Vec<(f64, f64)> = ticks
            .iter()
            .map(|(value, label)| {
                let half = label.chars().count() as f64 * character / 2.0;
                (self.place(*value) - half, self.place(*value) + half)
            })
            .collect();
        let apart = |a: (f64, f64), b: (f64, f64)| a.1 + gap <= b.0 || b.1 + gap <= a.0;
        if self.scale == Scale::Log {
            let power = |value: f64| libm::fabs(libm::log10(value) - libm::round(libm::log10(value))) < 1e-9;
            let mut order: Vec<usize> = (0..ticks.len()).collect();
            order.sort_by_key(|index| !power(ticks[*index].0));
            let mut kept: Vec<usize> = Vec::new();
            for index in order {
                if kept.iter().all(|other| apart(spans[index], spans[*other])) {
                    kept.push(index);
                }
            }
            return (0..ticks.len()).map(|index| kept.contains(&index)).collect();
        }
        let fits = |every: &usize| {
            let kept: Vec<_> = spans.iter().step_by(*every).collect();
            kept.windows(2).all(|pair| apart(*pair[0], *pair[1]))
        };
        let every = (1..ticks.len()).find(fits).unwrap_or(ticks.len().max(1));
        (0..ticks.len()).map(|index| index % every == 0).collect()
    }
}

/// Whether a value has a place on an axis.
pub(crate) fn fits(scale: Scale, value: f64) -> bool {
    value.is_finite() && (scale == Scale::Linear || value > 0.0)
}

/// The distance of ticks: 1, 2 or 5 times a power of ten.
fn tick_distance(span: f64) -> f64 {
    let rough = span / TICKS;
    let power = ten_to(libm::floor(libm::log10(rough)));
    let digit = rough / power;
    power
        * if digit <= 1.0 {
            1.0
        } else if digit <= 2.0 {
            2.0
        } else if digit <= 5.0 {
            5.0
        } else {
            10.0
        }
}

fn log_ticks(first: f64, last: f64, digits: &[f64]) -> Vec<f64> {
    let decades = std::iter::successors(Some(first), |n| Some(n + 1.0)).take_while(|n| *n <= last);
    decades.flat_map(|decade| digits.iter().map(move |digit| digit * ten_to(decade))).collect()
}

/// Read from text, so that it is the number nearest to the power of ten.
fn ten_to(exponent: f64) -> f64 {
    format!("1e{exponent:.0}").parse().unwrap_or(f64::NAN)
}

/// Up to four digits; thousands, millions and so on as k, M, G, T.
fn label(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e15).contains(&size) {
        return trimmed(&format!("{value:.2e}"));
    }
    let (unit, suffix) = match size {
        _ if size < 1e4 => (1.0, ""),
        _ if size < 1e6 => (1e3, "k"),
        _ if size < 1e9 => (1e6, "M"),
        _ if size < 1e12 => (1e9, "G"),
        _ => (1e12, "T"),
    };
    trimmed(&format!("{:.4}", value / unit)) + suffix
}

/// Without zeros at the end of the fraction; `-0` is 0.
fn trimmed(number: &str) -> String {
    let (mantissa, exponent) = number.split_once('e').map_or((number, String::new()), |(m, e)| (m, format!("e{e}")));
    let mantissa = if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    if mantissa == "-0" { "0".to_owned() } else { format!("{mantissa}{exponent}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis, values: &[f64]) -> Vec<String> {
        Placed::new(axis, values.iter().copied(), 0.0, 100.0).ticks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_numbers_around_the_values() {
        assert_eq!(labels(&Axis::linear(""), &[0.13, 0.87]), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(labels(&Axis::from_zero(""), &[9e9, 31e9]), ["0", "10G", "20G", "30G", "40G"]);
        assert_eq!(labels(&Axis::linear(""), &[7.0]), ["2", "4", "6", "8", "10", "12"]);
        assert_eq!(labels(&Axis::log(""), &[1.0, 512.0]), ["1", "2", "5", "10", "20", "50", "100", "200", "500", "1000"]);
        assert_eq!(labels(&Axis::log(""), &[30.0, 80.0]), ["20", "50", "100"]);
        assert_eq!(labels(&Axis::log(""), &[3e-12, 2e-3]), ["1e-11", "1e-10", "1e-9", "1e-8", "1e-7", "1e-6", "1e-5", "1e-4", "0.001"]);
    }

    #[test]
    fn names_and_whole_numbers() {
        assert_eq!(labels(&Axis::named("", ["a", "b", "c"]), &[1.0]), ["a", "b", "c"]);
        let named = Placed::new(&Axis::named("", ["a", "b"]), [0.0].into_iter(), 0.0, 100.0);
        assert_eq!((named.place(0.0), named.place(1.0)), (25.0, 75.0));
        assert_eq!((named.name(1.0), named.name(3.0)), ("b".to_owned(), "3".to_owned()));
        assert_eq!(labels(&Axis::whole(""), &[0.0, 2.0]), ["0", "1", "2"]);
        // Layers are numbered as they are: a model of 24 has none that is called 24 or 25.
        assert_eq!(labels(&Axis::whole(""), &[0.0, 23.0]), ["0", "5", "10", "15", "20"]);
        assert_eq!(labels(&Axis::whole(""), &[0.0, 11.0]), ["0", "2", "4", "6", "8", "10"]);
        let whole = Placed::new(&Axis::whole(""), [0.0, 23.0].into_iter(), 0.0, 230.0);
        assert_eq!((whole.place(0.0), whole.place(23.0)), (0.0, 230.0));
    }

    #[test]
    fn written_labels_keep_their_distance() {
        for (axis, values, width) in [
            (Axis::log(""), vec![1.0, 1e4], 200.0),
            (Axis::linear(""), vec![0.0, 9e5], 150.0),
            (Axis::named("", ["first", "second", "third"]), vec![], 100.0),
        ] {
            let placed = Placed::new(&axis, values.into_iter(), 0.0, width);
            let ticks = placed.ticks();
            let kept = placed.labelled(&ticks, 8.0, 6.0);
            assert!(kept.iter().any(|kept| *kept));
            let spans: Vec<(f64, f64)> = ticks
                .iter()
                .zip(kept)
                .filter(|(_, kept)| *kept)
                .map(|((value, label), _)| (placed.place(*value), label.len() as f64 * 4.0))
                .map(|(at, half)| (at - half, at + half))
                .collect();
            assert!(spans.windows(2).all(|pair| pair[0].1 + 6.0 <= pair[1].0), "{spans:?}");
        }
    }

    #[test]
    fn places_are_proportional() {
        let linear = Placed::new(&Axis::linear(""), [0.0, 10.0].into_iter(), 100.0, 0.0);
        assert_eq!((linear.place(0.0), linear.place(5.0), linear.place(10.0)), (100.0, 50.0, 0.0));
        let log = Placed::new(&Axis::log(""), [1.0, 1e4].into_iter(), 0.0, 400.0);
        assert!((log.place(100.0) - 200.0).abs() < 1e-9);
    }

    #[test]
    fn one_value_still_makes_an_axis() {
        for axis in [Axis::linear(""), Axis::log("")] {
            for value in [1e-9, 0.5, 1.0, 7.0, 1e12] {
                let placed = Placed::new(&axis, [value].into_iter(), 0.0, 100.0);
                assert!((0.0..=100.0).contains(&placed.place(value)), "{value} lies at {}", placed.place(value));
                assert!(placed.ticks().len() >= 2, "{value}: {:?}", placed.ticks());
            }
        }
    }
}
