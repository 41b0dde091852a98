//! Finds places for labels beside their points: no two overlap, none is nearer to another point than to its own, none is struck through.

/// A rectangle, in the drawing's units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rect {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) right: f64,
    pub(super) bottom: f64,
}

type Point = (f64, f64);

impl Rect {
    /// A square around a point.
    pub(super) fn around((x, y): Point, reach: f64) -> Self {
        Self { left: x - reach, top: y - reach, right: x + reach, bottom: y + reach }
    }

    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    fn within(&self, bounds: &Self) -> bool {
        self.left >= bounds.left && self.top >= bounds.top && self.right <= bounds.right && self.bottom <= bounds.bottom
    }

    /// The nearest of its points.
    pub(super) fn nearest(&self, (x, y): Point) -> Point {
        (x.clamp(self.left, self.right), y.clamp(self.top, self.bottom))
    }

    /// Where text in it begins or ends, and which of both: towards the point, so that the eye finds it.
    pub(super) fn text(&self, at: Point) -> (f64, &'static str) {
        if self.left >= at.0 {
            (self.left + 2.0, "start")
        } else if self.right <= at.0 {
            (self.right - 2.0, "end")
        } else {
            (f64::midpoint(self.left, self.right), "middle")
        }
    }

    /// Whether a straight line meets it (Liang and Barsky's clipping).
    pub(super) fn crossed(&self, from: Point, to: Point) -> bool {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let (mut enter, mut leave) = (0.0_f64, 1.0_f64);
        for (step, distance) in [(-dx, from.0 - self.left), (dx, self.right - from.0), (-dy, from.1 - self.top), (dy, self.bottom - from.1)]
        {
            if step == 0.0 {
                if distance < 0.0 {
                    return false;
                }
            } else if step < 0.0 {
                enter = enter.max(distance / step);
            } else {
                leave = leave.min(distance / step);
            }
        }
        enter <= leave
    }
}

/// Where a label goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) rect: Rect,
    /// Whether a line has to say which point it belongs to: it is far from it, or about as near to another one.
    pub(super) leader: bool,
}

/// A label that wants a place.
pub(super) struct Wanted {
    /// Its point.
    pub(super) at: Point,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// What labels keep clear of.
pub(super) struct Scene<'a> {
    /// Labels stay within these.
    pub(super) bounds: Rect,
    /// No label may cover these.
    pub(super) obstacles: &'a [Rect],
    /// No label may be struck through by these.
    pub(super) lines: &'a [(Point, Point)],
    /// All that is drawn, also what has no label: none of them is nearer to a label than the label's own point.
    pub(super) points: &'a [Point],
    /// Whether a label that is about as near to another point as to its own is left out rather than joined to its own by a line: where
    /// there is little room, such lines are lost among the points.
    pub(super) strict: bool,
}

/// Distances between a point and its label that are tried.
const GAPS: [f64; 6] = [8.0, 14.0, 24.0, 38.0, 56.0, 80.0];
/// Directions, the ones that read best first. Above a curve that falls to the right there is most room to the right and above.
const DIRECTIONS: [Point; 12] = [
    (1.0, -1.0),
    (1.0, 0.0),
    (0.0, -1.0),
    (0.0, 1.0),
    (-1.0, 0.0),
    (-1.0, -1.0),
    (1.0, 1.0),
    (-1.0, 1.0),
    (0.5, -1.0),
    (-0.5, -1.0),
    (0.5, 1.0),
    (-0.5, 1.0),
];
/// A label farther away than this has a line to its point.
const LEADER: f64 = 15.0;
/// A label that is nearer to its point than to any other by no more than this could be taken for the other's.
const AMBIGUOUS: f64 = 3.0;

/// A place for each label, those first that come first; none for a label for which there is no place.
pub(super) fn place(wanted: &[Wanted], scene: &Scene<'_>) -> Vec<Option<Place>> {
    let mut placed: Vec<Option<Place>> = Vec::with_capacity(wanted.len());
    for (index, label) in wanted.iter().enumerate() {
        let mut best: Option<(f64, Place)> = None;
        for (ring, gap) in GAPS.into_iter().enumerate() {
            for (order, direction) in DIRECTIONS.into_iter().enumerate() {
                let rect = beside(label, direction, gap);
                let leader = distance(&rect, label.at) > LEADER;
                if !is_free(&rect, leader, label, &wanted[..index], &placed, scene) {
                    continue;
                }
                let others = scene.points.iter().filter(|point| !is_same(**point, label.at));
                let nearest = others.map(|point| distance(&rect, *point)).fold(f64::INFINITY, f64::min);
                let own = distance(&rect, label.at);
                let ambiguous = nearest <= own + AMBIGUOUS;
                if nearest <= own || scene.strict && ambiguous {
                    continue;
                }
                let cost = 5.0 * ring as f64 + if ambiguous { 14.0 } else { 0.0 } + 0.5 * order as f64;
                if best.is_none_or(|(least, _)| cost < least) {
                    best = Some((cost, Place { rect, leader: leader || ambiguous }));
                }
            }
        }
        placed.push(best.map(|(_, place)| place));
    }
    placed
}

/// Points that are drawn over each other; a label beside one is beside the other.
fn is_same(a: Point, b: Point) -> bool {
    (a.0 - b.0).abs() < 1.0 && (a.1 - b.1).abs() < 1.0
}

/// Whether a label can be here: within bounds, over no point, no line and no label, its own line over no other point, and no label and
/// its line in each other's way.
fn is_free(rect: &Rect, leader: bool, label: &Wanted, before: &[Wanted], placed: &[Option<Place>], scene: &Scene<'_>) -> bool {
    if !rect.within(&scene.bounds) || scene.obstacles.iter().any(|other| rect.overlaps(other)) {
        return false;
    }
    if scene.lines.iter().any(|(from, to)| rect.crossed(*from, *to)) {
        return false;
    }
    let passes = |point: &Point| !is_same(*point, label.at) && Rect::around(*point, 5.0).crossed(label.at, rect.nearest(label.at));
    if leader && scene.points.iter().any(passes) {
        return false;
    }
    let mut others = before.iter().zip(placed).filter_map(|(other, place)| Some((other.at, (*place)?)));
    !others.any(|(at, other)| {
        let over_its_line = other.leader && rect.crossed(at, other.rect.nearest(at));
        let line_over_it = leader && other.rect.crossed(label.at, rect.nearest(label.at));
        rect.overlaps(&other.rect) || over_its_line || line_over_it
    })
}

fn distance(rect: &Rect, point: Point) -> f64 {
    let (x, y) = rect.nearest(point);
    libm::hypot(x - point.0, y - point.1)
}

/// The label's rectangle in this direction from its point.
fn beside(label: &Wanted, (dx, dy): Point, gap: f64) -> Rect {
    // Diagonals come nearer, so that all places of a ring are about as far from the point.
    let gap = if dx != 0.0 && dy != 0.0 { gap * 0.7 } else { gap };
    let x = label.at.0 + dx * (gap + label.width / 2.0);
    let y = label.at.1 + dy * (gap + label.height / 2.0);
    Rect { left: x - label.width / 2.0, right: x + label.width / 2.0, top: y - label.height / 2.0, bottom: y + label.height / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Rect = Rect { left: 0.0, top: 0.0, right: 800.0, bottom: 400.0 };

    #[test]
    fn labels_of_close_points_do_not_overlap() {
        // Two dozen points along a curve, some of them 3 units apart.
        let points: Vec<Point> =
            (0..24).map(|i| (60.0 + 30.0 * f64::from(i / 2) + 3.0 * f64::from(i % 2), 40.0 + 12.0 * f64::from(i))).collect();
        let wanted: Vec<Wanted> = points.iter().map(|at| Wanted { at: *at, width: 60.0, height: 14.0 }).collect();
        let obstacles: Vec<Rect> = points.iter().map(|at| Rect::around(*at, 5.0)).collect();
        let placed = place(&wanted, &Scene { bounds: BOUNDS, obstacles: &obstacles, lines: &[], points: &points, strict: false });
        let found: Vec<Rect> = placed.into_iter().flatten().map(|place| place.rect).collect();
        assert!(found.len() >= 20, "there is room for {} of 24", found.len());
        for (index, rect) in found.iter().enumerate() {
            assert!(rect.within(&BOUNDS) && obstacles.iter().all(|obstacle| !rect.overlaps(obstacle)));
            assert!(found[..index].iter().all(|other| !rect.overlaps(other)), "{rect:?}");
        }
    }

    #[test]
    fn a_label_without_room_is_left_out() {
        let scene = Scene { bounds: Rect::around((0.0, 0.0), 30.0), obstacles: &[], lines: &[], points: &[], strict: false };
        assert_eq!(place(&[Wanted { at: (0.0, 0.0), width: 70.0, height: 10.0 }], &scene), [None]);
    }

    #[test]
    fn a_label_is_nearest_to_its_own_point() {
        let points = [(400.0, 200.0), (414.0, 201.0), (402.0, 214.0), (430.0, 190.0)];
        let wanted: Vec<Wanted> = points.iter().map(|at| Wanted { at: *at, width: 50.0, height: 15.0 }).collect();
        let obstacles: Vec<Rect> = points.iter().map(|at| Rect::around(*at, 6.0)).collect();
        let placed = place(&wanted, &Scene { bounds: BOUNDS, obstacles: &obstacles, lines: &[], points: &points, strict: false });
        assert!(placed.iter().filter(|place| place.is_some()).count() >= 3, "{placed:?}");
        for (index, place) in placed.iter().enumerate().filter_map(|(index, place)| Some((index, (*place)?))) {
            let away = |point: &Point| distance(&place.rect, *point);
            let others = points.iter().enumerate().filter(|(other, _)| *other != index);
            let other = others.map(|(_, point)| away(point)).fold(f64::INFINITY, f64::min);
            assert!(away(&points[index]) < other && (place.leader || away(&points[index]) + AMBIGUOUS < other), "{index}: {place:?}");
        }
    }

    #[test]
    fn where_room_is_scarce_no_label_is_nearer_to_another_point() {
        // A cloud in which most labels have no place that is theirs alone.
        let points: Vec<Point> = (0..20).map(|i| (100.0 + 9.0 * f64::from(i % 5), 100.0 + 11.0 * f64::from(i / 5))).collect();
        let wanted: Vec<Wanted> = points.iter().map(|at| Wanted { at: *at, width: 50.0, height: 15.0 }).collect();
        let obstacles: Vec<Rect> = points.iter().map(|at| Rect::around(*at, 6.0)).collect();
        let placed = place(&wanted, &Scene { bounds: BOUNDS, obstacles: &obstacles, lines: &[], points: &points, strict: true });
        assert!(placed.iter().any(Option::is_some) && placed.iter().any(Option::is_none));
        for (index, place) in placed.iter().enumerate().filter_map(|(index, place)| Some((index, (*place)?))) {
            let away = |point: &Point| distance(&place.rect, *point);
            assert!(
                points.iter().enumerate().all(|(other, point)| other == index || away(point) > away(&points[index])),
                "{index}: {place:?}"
            );
        }
    }

    #[test]
    fn labels_are_struck_through_by_no_line() {
        let wanted = [Wanted { at: (400.0, 200.0), width: 60.0, height: 14.0 }];
        let lines = [((400.0, 200.0), (600.0, 0.0)), ((400.0, 200.0), (200.0, 400.0))];
        let placed = place(&wanted, &Scene { bounds: BOUNDS, obstacles: &[], lines: &lines, points: &[], strict: false });
        let rect = placed[0].unwrap().rect;
        assert!(lines.iter().all(|(from, to)| !rect.crossed(*from, *to)), "{rect:?}");
        // Where lines are everywhere, there is no label.
        let lines: Vec<(Point, Point)> = (0..40).map(|i| ((0.0, 10.0 * f64::from(i)), (800.0, 10.0 * f64::from(i)))).collect();
        assert_eq!(place(&wanted, &Scene { bounds: BOUNDS, obstacles: &[], lines: &lines, points: &[], strict: false }), [None]);
    }

    #[test]
    fn lines_meet_rectangles_that_they_cross() {
        let rect = Rect { left: 10.0, top: 10.0, right: 20.0, bottom: 20.0 };
        for (from, to, meets) in [
            ((0.0, 15.0), (30.0, 15.0), true),
            ((0.0, 5.0), (30.0, 5.0), false),
            ((15.0, 15.0), (15.0, 15.0), true),
            ((0.0, 25.0), (25.0, 0.0), true),
            ((0.0, 15.0), (5.0, 15.0), false),
        ] {
            assert_eq!(rect.crossed(from, to), meets, "{from:?} {to:?}");
        }
    }
}
