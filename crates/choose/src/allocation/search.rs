//! Lagrange's bound, and the search within it.

use super::trail::{START, Trail};

/// Weight and value of an option: the sum of values is minimised, that of weights is limited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Term {
    pub(crate) weight: f64,
    pub(crate) value: f64,
}

/// A pick and how much better the best could be.
pub(crate) struct Found {
    pub(crate) picked: Vec<usize>,
    pub(crate) gap: f64,
}

/// States kept after each item.
const STATES: usize = 60_000;
/// Steps of the ways to these states that are held: 96 MB. Ways have most of their steps in common, so that this is enough for models of
/// thousands of layers; where it is not, states are given up.
const HELD: usize = 8_000_000;
/// Steps of the search for the multiplier.
const STEPS: usize = 200;

/// Something picked for the first items.
#[derive(Clone, Copy)]
struct State {
    weight: f64,
    value: f64,
    /// The way to it; while its item is looked at, the way before, and the option added.
    way: u32,
    option: u32,
}

/// Minimises the value within `limit`. The lightest options together are within it.
pub(crate) fn solve(items: &[Vec<Term>], limit: f64) -> Found {
    let multiplier = multiplier(items, limit);
    let reduced: Vec<f64> = items.iter().map(|options| best(options, multiplier).1).collect();
    let bound = reduced.iter().sum::<f64>() - multiplier * limit;
    let mut incumbent = improve(items, pick(items, multiplier), limit);
    let upper = total(items, &incumbent).1;
    // Items with the largest spread of reduced values first: their choice is decided soonest.
    let mut order: Vec<usize> = (0..items.len()).collect();
    let spread = |item: usize| {
        let mut values: Vec<f64> = items[item].iter().map(|term| term.value + multiplier * term.weight - reduced[item]).collect();
        values.sort_by(f64::total_cmp);
        values.get(1).copied().unwrap_or(f64::INFINITY)
    };
    order.sort_by(|a, b| spread(*b).total_cmp(&spread(*a)).then(a.cmp(b)));
    let search = Search { items, order: &order, reduced: &reduced, multiplier, limit, held: HELD };
    let (found, dropped) = search.run(upper);
    if let Some(found) = found
        && total(items, &found).1 < upper
    {
        incumbent = found;
    }
    let value = total(items, &incumbent).1;
    let gap = if dropped { (value - bound).max(0.0) } else { 0.0 };
    Found { picked: incumbent, gap }
}

/// The option of least value + multiplier * weight, the lighter one of equals, and that sum.
fn best(options: &[Term], multiplier: f64) -> (usize, f64) {
    let mut found = (0, f64::INFINITY);
    for (index, term) in options.iter().enumerate() {
        let sum = term.value + multiplier * term.weight;
        if sum < found.1 || (sum == found.1 && term.weight < options[found.0].weight) {
            found = (index, sum);
        }
    }
    found
}

fn pick(items: &[Vec<Term>], multiplier: f64) -> Vec<usize> {
    items.iter().map(|options| best(options, multiplier).0).collect()
}

fn total(items: &[Vec<Term>], picked: &[usize]) -> (f64, f64) {
    let terms = items.iter().zip(picked).map(|(options, picked)| options[*picked]);
    terms.fold((0.0, 0.0), |(weight, value), term| (weight + term.weight, value + term.value))
}

/// The smallest multiplier whose picks are within the limit, by bisection over the logarithm; 0 when no weight matters.
fn multiplier(items: &[Vec<Term>], limit: f64) -> f64 {
    let fits = |multiplier: f64| total(items, &pick(items, multiplier)).0 <= limit;
    if fits(0.0) {
        return 0.0;
    }
    let (mut low, mut high) = (f64::MIN_POSITIVE, 1.0);
    while !fits(high) && high < 1e300 {
        (low, high) = (high, high * 1e3);
    }
    for _ in 0..STEPS {
        let middle = low.sqrt() * high.sqrt();
        if fits(middle) {
            high = middle
        } else {
            low = middle
        }
        if high <= low * (1.0 + 1e-15) {
            break;
        }
    }
    high
}

/// Exchanges options one at a time while the value falls within the limit.
fn improve(items: &[Vec<Term>], mut picked: Vec<usize>, limit: f64) -> Vec<usize> {
    let mut weight = total(items, &picked).0;
    if weight > limit {
        // Rounding of the multiplier: the lightest options fit always.
        picked = items
            .iter()
            .map(|options| (0..options.len()).min_by(|a, b| options[*a].weight.total_cmp(&options[*b].weight)).unwrap_or(0))
            .collect();
        weight = total(items, &picked).0;
    }
    loop {
        let mut step: Option<(f64, usize, usize)> = None;
        for (item, options) in items.iter().enumerate() {
            let now = options[picked[item]];
            for (index, term) in options.iter().enumerate() {
                let gain = now.value - term.value;
                if gain > 0.0 && weight - now.weight + term.weight <= limit && step.is_none_or(|(best, ..)| gain > best) {
                    step = Some((gain, item, index));
                }
            }
        }
        let Some((_, item, option)) = step else { return picked };
        picked[item] = option;
        weight = total(items, &picked).0;
    }
}

struct Search<'a> {
    items: &'a [Vec<Term>],
    order: &'a [usize],
    /// Least value + multiplier * weight of each item.
    reduced: &'a [f64],
    multiplier: f64,
    limit: f64,
    /// Steps that are held at most.
    held: usize,
}

impl Search<'_> {
    /// Adds item after item to all states that are neither dominated nor worse than `upper` in the best case. Returns the best
    /// complete pick, and whether states had to be given up.
    fn run(&self, upper: f64) -> (Option<Vec<usize>>, bool) {
        let mut states = vec![State { weight: 0.0, value: 0.0, way: START, option: 0 }];
        let mut trail = Trail::new();
        let mut rest: f64 = self.order.iter().map(|item| self.reduced[*item]).sum();
        let mut lightest: f64 = self.items.iter().map(|options| least(options)).sum();
        let mut dropped = false;
        // Sums in another order differ in the last digits, which must not cut off an equal solution.
        let slack = 1.0 + 1e-12;
        for item in self.order {
            rest -= self.reduced[*item];
            lightest -= least(&self.items[*item]);
            let mut next = Vec::new();
            for state in &states {
                for (option, term) in self.items[*item].iter().enumerate() {
                    let (weight, value) = (state.weight + term.weight, state.value + term.value);
                    let bound = value + rest - self.multiplier * (self.limit - weight);
                    if weight + lightest <= self.limit * slack && bound <= upper * slack {
                        next.push(State { weight, value, way: state.way, option: u32::try_from(option).unwrap_or(u32::MAX) });
                    }
                }
            }
            let mut next = undominated(next);
            if next.len() > STATES {
                dropped = true;
                drop(self.give_up(&mut next, STATES));
            }
            next.iter_mut().for_each(|state| state.way = trail.add(state.way, state.option));
            states.iter().for_each(|state| trail.release(state.way));
            states = next;
            while trail.len() > self.held && states.len() > 1 {
                dropped = true;
                let half = states.len() / 2;
                self.give_up(&mut states, half).iter().for_each(|state| trail.release(state.way));
            }
        }
        (self.trace(&states, &trail), dropped)
    }

    /// Keeps the `most` most promising states and returns the others.
    fn give_up(&self, states: &mut Vec<State>, most: usize) -> Vec<State> {
        states.sort_by(|a, b| self.promise(a).total_cmp(&self.promise(b)).then(a.weight.total_cmp(&b.weight)));
        let others = states.split_off(most);
        states.sort_by(|a, b| a.weight.total_cmp(&b.weight));
        others
    }

    fn promise(&self, state: &State) -> f64 {
        state.value + self.multiplier * state.weight
    }

    /// The best complete state's options, in the order of the items.
    fn trace(&self, states: &[State], trail: &Trail) -> Option<Vec<usize>> {
        let fitting = states.iter().filter(|state| state.weight <= self.limit);
        let best = fitting.min_by(|a, b| a.value.total_cmp(&b.value).then(a.weight.total_cmp(&b.weight)))?;
        let mut picked = vec![0; self.items.len()];
        for (item, option) in self.order.iter().rev().zip(trail.options(best.way)) {
            picked[*item] = option;
        }
        Some(picked)
    }
}

fn least(options: &[Term]) -> f64 {
    options.iter().map(|term| term.weight).fold(f64::INFINITY, f64::min)
}

/// States sorted by weight, each of less value than all lighter ones.
fn undominated(mut states: Vec<State>) -> Vec<State> {
    states.sort_by(|a, b| a.weight.total_cmp(&b.weight).then(a.value.total_cmp(&b.value)));
    let mut least = f64::INFINITY;
    states.retain(|state| {
        let better = state.value < least;
        if better {
            least = state.value;
        }
        better
    });
    states
}

#[cfg(test)]
mod tests {
    use super::{Search, Term};

    /// Options on one line, of which the bound tells none apart: the states double until they are given up.
    #[test]
    fn ways_beyond_what_may_be_held_are_given_up() {
        let items: Vec<Vec<Term>> =
            (0..24u32).map(|item| [1.0, 2.0 + f64::from(1 << item)].map(|weight| Term { weight, value: 2e8 - weight }).to_vec()).collect();
        let (order, reduced): (Vec<usize>, Vec<f64>) = (0..24).map(|item| (item, 2e8)).unzip();
        let run =
            |held: usize| Search { items: &items, order: &order, reduced: &reduced, multiplier: 1.0, limit: 1e7, held }.run(f64::INFINITY);
        let value = |found: &Option<Vec<usize>>| super::total(&items, found.as_ref().unwrap());
        // Any state is as good as the others but for what its weight leaves of the limit.
        for held in [100, 5000] {
            let (found, dropped) = run(held);
            let (weight, _) = value(&found);
            assert!(dropped && weight <= 1e7, "{held}: {weight}");
        }
    }
}
