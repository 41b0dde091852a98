//! The ways to the states of a search, of which those that led nowhere are forgotten.

/// The way to the state of nothing.
pub(crate) const START: u32 = 0;

/// A way is its last step and the way before it. Ways share what they have in common, so that a search of any length holds little more than
/// where its present states come from.
pub(crate) struct Trail {
    steps: Vec<Step>,
    /// Places in `steps` that hold none.
    free: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Step {
    before: u32,
    option: u32,
    /// Steps after it, and one while it is the last step of a state.
    uses: u32,
}

impl Trail {
    /// The way to the state of nothing alone.
    pub(crate) fn new() -> Self {
        Self { steps: vec![Step { before: START, option: 0, uses: 1 }], free: Vec::new() }
    }

    /// Steps that are held.
    pub(crate) fn len(&self) -> usize {
        self.steps.len() - self.free.len()
    }

    /// The way `before` and one more step; it is held until it is released.
    pub(crate) fn add(&mut self, before: u32, option: u32) -> u32 {
        self.steps[before as usize].uses += 1;
        let step = Step { before, option, uses: 1 };
        if let Some(place) = self.free.pop() {
            self.steps[place as usize] = step;
            return place;
        }
        self.steps.push(step);
        u32::try_from(self.steps.len() - 1).unwrap_or(u32::MAX)
    }

    /// A state that nobody needs any more: its steps go as far as no other way has them.
    pub(crate) fn release(&mut self, mut way: u32) {
        while way != START {
            let step = &mut self.steps[way as usize];
            step.uses -= 1;
            if step.uses > 0 {
                return;
            }
            self.free.push(way);
            way = step.before;
        }
    }

    /// The options of a way, from its last step on.
    pub(crate) fn options(&self, way: u32) -> impl Iterator<Item = usize> {
        let ways = std::iter::successors(Some(way), |way| Some(self.steps[*way as usize].before));
        ways.take_while(|way| *way != START).map(|way| self.steps[way as usize].option as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::{START, Trail};

    #[test]
    fn what_ways_share_is_held_once_and_what_none_has_is_forgotten() {
        let mut trail = Trail::new();
        let a = trail.add(START, 1);
        let (ab, ac) = (trail.add(a, 2), trail.add(a, 3));
        trail.release(a);
        assert_eq!(trail.len(), 4);
        let abd = trail.add(ab, 4);
        trail.release(ab);
        assert_eq!(trail.options(abd).collect::<Vec<_>>(), [4, 2, 1]);
        trail.release(ac);
        assert_eq!((trail.len(), trail.options(abd).collect::<Vec<_>>()), (4, vec![4, 2, 1]));
        // A place that is free again is taken again.
        assert_eq!(trail.add(abd, 5), ac);
        trail.release(ac);
        trail.release(abd);
        assert_eq!((trail.len(), trail.options(START).count()), (1, 0));
    }
}
