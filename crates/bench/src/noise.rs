//! How quiet the machine was while something was measured, and which figures are to be distrusted. Start at [`Listener`] and [`doubts`].

use std::fmt;

use serde::Serialize;

use crate::report::Decode;
use crate::system::read;

/// Quartiles farther apart than this share of the median say that something else ran.
pub const WIDE_SPREAD: f64 = 0.10;
/// Other programs that took more than this share of the processors' time slow a measurement.
pub const BUSY_OTHERS: f64 = 0.05;
/// With fewer ticks of the system's clock than this nothing can be said of shares.
const TICKS: u64 = 50;

/// What else the machine did while something was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quiet {
    /// Programs that wanted to run in the minute before, as the system averages them; `None` where it does not say.
    pub load_average: Option<f64>,
    /// Share of the time of all processors that other programs took, and other machines on the same processors; `None` where the system does
    /// not say, or too little time has passed.
    pub others_share: Option<f64>,
}

/// Time of all processors so far, in ticks of the system's clock.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ticks {
    all: u64,
    busy: u64,
    own: u64,
}

impl Ticks {
    fn now() -> Option<Self> {
        Self::of(&read("/proc/stat")?, &read("/proc/self/stat")?)
    }

    /// From what Linux says of all processors and of this process.
    fn of(machine: &str, process: &str) -> Option<Self> {
        let numbers: Vec<u64> =
            machine.lines().next()?.strip_prefix("cpu ")?.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let [user, nice, system, idle, waiting, interrupts, soft, stolen, ..] = numbers[..] else { return None };
        let busy = [user, nice, system, interrupts, soft, stolen].into_iter().fold(0, u64::saturating_add);
        // The name of the program, in parentheses, may hold anything.
        let (_, fields) = process.rsplit_once(')')?;
        let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
        let own = times.next()?.ok()?.saturating_add(times.next()?.ok()?);
        Some(Self { all: busy.saturating_add(idle).saturating_add(waiting), busy, own })
    }

    /// Share of the time since `before` that was not this process's.
    fn others_since(&self, before: &Self) -> Option<f64> {
        let since = |now: u64, before: u64| now.saturating_sub(before);
        let (all, busy, own) = (since(self.all, before.all), since(self.busy, before.busy), since(self.own, before.own));
        (all >= TICKS).then(|| since(busy, own) as f64 / all as f64)
    }
}

/// Listens to the machine from its making on.
#[derive(Clone, Copy, Debug)]
pub struct Listener {
    load_average: Option<f64>,
    before: Option<Ticks>,
}

impl Listener {
    /// Begins to listen.
    #[must_use]
    pub fn begin() -> Self {
        let average = read("/proc/loadavg");
        let load_average = average.and_then(|text| text.split_whitespace().next()?.parse().ok());
        Self { load_average, before: Ticks::now() }
    }

    /// What was heard until now.
    #[must_use]
    pub fn heard(&self) -> Quiet {
        let others_share = self.before.zip(Ticks::now()).and_then(|(before, now)| now.others_since(&before));
        Quiet { load_average: self.load_average, others_share }
    }
}

impl Quiet {
    /// In one line; `None` where the system says nothing.
    #[must_use]
    pub fn line(&self) -> Option<String> {
        let others = self.others_share.map(|share| format!("other programs took {:.1} % of the processors' time", share * 100.0));
        let load = self.load_average.map(|load| format!("the load average before was {load:.2}"));
        let quiet: Vec<String> = others.into_iter().chain(load).collect();
        (!quiet.is_empty()).then(|| format!("While it measured: {}.", quiet.join("; ")))
    }

    /// Why everything that was measured meanwhile is to be distrusted.
    #[must_use]
    pub fn doubt(&self) -> Option<Doubt> {
        self.others_share.filter(|share| *share > BUSY_OTHERS).map(|share| Doubt::OtherPrograms { share })
    }
}

/// A reason to distrust the speed of a model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Doubt {
    /// More than the memory's bandwidth: what a token reads lies in a cache.
    InCache {
        /// Of the bandwidth.
        share: f64,
        /// Bytes that a token reads.
        bytes: u64,
        /// Bytes of the last-level cache.
        cache_bytes: u64,
    },
    /// More than the memory's bandwidth, and more than caches hold.
    BeyondMemory {
        /// Of the bandwidth.
        share: f64,
    },
    /// The rounds differ more than they do on a quiet machine.
    Spread {
        /// Distance of the quartiles over the median.
        relative: f64,
    },
    /// Other programs ran.
    OtherPrograms {
        /// Share of the processors' time that they took.
        share: f64,
    },
}

impl Doubt {
    /// A name for tables.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::InCache { .. } => "in_cache",
            Self::BeyondMemory { .. } => "beyond_memory",
            Self::Spread { .. } => "spread",
            Self::OtherPrograms { .. } => "other_programs",
        }
    }

    /// Whether it is about the share of the bandwidth, and not about the speed.
    #[must_use]
    pub fn is_of_bandwidth(&self) -> bool {
        matches!(self, Self::InCache { .. } | Self::BeyondMemory { .. })
    }
}

impl Doubt {
    /// The share that it is about.
    fn share(&self) -> f64 {
        match self {
            Self::InCache { share, .. } | Self::BeyondMemory { share } | Self::OtherPrograms { share } => *share,
            Self::Spread { relative } => *relative,
        }
    }

    /// In words, with its share as `shown`.
    fn said(&self, shown: &str) -> String {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        match self {
            Self::InCache { bytes, cache_bytes, .. } => format!(
                "{shown} % of the memory's bandwidth: the {:.1} MB that a token reads lie in the cache of {:.1} MB, which is faster; memory bounds \
                 larger models",
                mb(*bytes),
                mb(*cache_bytes)
            ),
            Self::BeyondMemory { .. } => format!(
                "{shown} % of the memory's bandwidth is more than there is: something else used the memory while its bandwidth was measured; \
                 measure again on a quiet machine"
            ),
            Self::Spread { .. } => format!(
                "half of the rounds spread over {shown} % of the median, more than {:.0} %: measure again on a quiet machine",
                WIDE_SPREAD * 100.0
            ),
            Self::OtherPrograms { .. } => format!(
                "other programs took {shown} % of the processors' time, more than {:.0} %: measure again on a quiet machine",
                BUSY_OTHERS * 100.0
            ),
        }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said(&format!("{:.0}", self.share() * 100.0)))
    }
}

/// The doubts about several things, each kind once, with the range of its numbers: the places of those that it is about, and why.
#[must_use]
pub fn together(all: &[&[Doubt]]) -> Vec<(Vec<usize>, String)> {
    let mut kinds: Vec<(String, Vec<(usize, &Doubt)>)> = Vec::new();
    for (place, doubt) in all.iter().enumerate().flat_map(|(place, doubts)| doubts.iter().map(move |doubt| (place, doubt))) {
        let kind = doubt.said("");
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, alike)) => alike.push((place, doubt)),
            None => kinds.push((kind, vec![(place, doubt)])),
        }
    }
    let told = kinds.into_iter().filter_map(|(_, alike)| {
        let shares = alike.iter().map(|(_, doubt)| doubt.share() * 100.0);
        let (low, high) = shares.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), share| (low.min(share), high.max(share)));
        let (low, high) = (format!("{low:.0}"), format!("{high:.0}"));
        let why = alike.first()?.1.said(&if low == high { low } else { format!("{low} to {high}") });
        Some((alike.iter().map(|(place, _)| *place).collect(), why))
    });
    told.collect()
}

/// Why figures of decoding are to be distrusted; empty where they are not.
#[must_use]
pub fn doubts(decode: &Decode, quiet: &Quiet, cache_bytes: Option<u64>) -> Vec<Doubt> {
    let (share, bytes, relative) = (decode.bandwidth_share, decode.read_bytes_per_token, decode.tokens_per_second.relative());
    let mut out = Vec::new();
    match cache_bytes.filter(|cache| bytes <= *cache) {
        _ if share <= 1.0 => {}
        Some(cache_bytes) => out.push(Doubt::InCache { share, bytes, cache_bytes }),
        None => out.push(Doubt::BeyondMemory { share }),
    }
    out.extend((relative > WIDE_SPREAD).then_some(Doubt::Spread { relative }));
    out.extend(quiet.doubt());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Spread;

    const MACHINE: &str = "cpu  100 10 50 800 20 5 5 10 7 0\ncpu0 1 2 3 4 5 6 7 8\n";

    #[test]
    fn ticks_are_read_as_linux_writes_them() {
        let process = "17 (a (strange) name) S 1 1 1 0 -1 4194560 9 0 0 0 30 12 0 0 20 0 3 0 99 1 1";
        let ticks = Ticks::of(MACHINE, process).unwrap();
        assert_eq!(ticks, Ticks { all: 1000, busy: 180, own: 42 });
        assert_eq!(Ticks::of("cpu 1 2 3", process), None);
        assert_eq!(Ticks::of(MACHINE, "17 (a) S 1 2"), None);
        assert_eq!(Ticks::of("", ""), None);
    }

    #[test]
    fn what_others_took_is_what_is_left() {
        let before = Ticks { all: 1000, busy: 180, own: 42 };
        let after = Ticks { all: 1200, busy: 330, own: 162 };
        assert_eq!(after.others_since(&before), Some(0.15));
        assert_eq!(Ticks { all: 1010, ..after }.others_since(&before), None, "too short to say");
        // Clocks that disagree by a tick make nothing negative.
        assert_eq!(Ticks { all: 1200, busy: 290, own: 155 }.others_since(&before), Some(0.0));
    }

    fn decode(share: f64, bytes: u64, rates: &[f64]) -> Decode {
        let spread = Spread::of(rates).unwrap();
        let (tokens_per_second, token_seconds) = (spread, spread);
        Decode { tokens_per_second, token_seconds, read_bytes_per_token: bytes, read_bytes_per_second: 1.0, bandwidth_share: share }
    }

    #[test]
    fn each_reason_has_its_bound() {
        let calm = [100.0, 101.0, 102.0];
        let names = |decode: &Decode, others: Option<f64>| -> Vec<&'static str> {
            let quiet = Quiet { load_average: None, others_share: others };
            doubts(decode, &quiet, Some(32 << 20)).iter().map(Doubt::name).collect()
        };
        assert_eq!(names(&decode(1.0, 1 << 30, &calm), Some(0.05)), [""; 0]);
        assert_eq!(names(&decode(1.36, 1 << 20, &calm), None), ["in_cache"]);
        assert_eq!(names(&decode(2.18, 1 << 30, &calm), None), ["beyond_memory"]);
        assert_eq!(names(&decode(0.5, 1 << 30, &[80.0, 100.0, 120.0]), Some(0.06)), ["spread", "other_programs"]);
        // Without a size of the cache it cannot be said that it is the cache.
        assert_eq!(doubts(&decode(1.36, 1, &calm), &Quiet::default(), None), [Doubt::BeyondMemory { share: 1.36 }]);
    }

    #[test]
    fn doubts_alike_are_told_once_with_their_range() {
        let others = |share| Doubt::OtherPrograms { share };
        let spread = Doubt::Spread { relative: 0.31 };
        let all: [&[Doubt]; 4] = [&[others(0.79)], &[], &[spread, others(0.85)], &[others(0.5)]];
        let told = together(&all);
        let why = "other programs took 50 to 85 % of the processors' time, more than 5 %: measure again on a quiet machine";
        assert_eq!(told[0], (vec![0, 2, 3], why.to_owned()));
        assert_eq!(told[1], (vec![2], spread.to_string()));
        assert_eq!((told.len(), together(&[&[], &[]]).len()), (2, 0));
        assert_eq!(together(&[&[others(0.8)], &[others(0.8)]])[0].1, others(0.8).to_string());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_says_something() {
        assert!(Ticks::now().is_some_and(|ticks| ticks.all > 0));
        let listener = Listener::begin();
        assert!(listener.heard().load_average.is_some());
        assert!(listener.heard().others_share.is_none_or(|share| (0.0..=1.0).contains(&share)));
    }
}
