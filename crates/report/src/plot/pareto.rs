//! Things between which one has to choose by two quantities, less being better in both: dots with names beside them, and a line
//! through those that no other one beats.

use std::fmt::Write;

use serde::Serialize;

use super::axis::fits;
use super::canvas::{CHARACTER, Canvas, Frame, Heading, STANDALONE, Segment, bar, check_guide, path, text};
use super::labels::{Place, Rect, Scene, Wanted, place};
use super::{Axis, Guide, Scale};
use crate::error::ReportError;
use crate::number::significant;
use crate::sink::html as escape;

/// One of several things to choose from.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Dot {
    /// Its name, written beside it.
    pub label: String,
    /// A few characters under the name, where there is room for them; empty for none.
    pub note: String,
    /// The cost to the right.
    pub x: f64,
    /// The cost upwards.
    pub y: f64,
    /// From and to: how far the cost upwards is uncertain.
    pub interval: Option<(f64, f64)>,
    /// Whether it is the one to take.
    pub recommended: bool,
}

/// A plot of dots.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pareto {
    /// Above the plot.
    pub title: String,
    /// For people who cannot see it; not drawn.
    pub description: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// In any order. Those without a place on the axes (a cost of 0 on a logarithmic axis) are not drawn; see [`Self::left_out`].
    #[serde(rename = "candidates")]
    pub dots: Vec<Dot>,
    /// Lines at fixed values, such as the most that may be lost.
    pub guides: Vec<Guide>,
}

/// Which of these pairs of costs no other pair beats: none is at most as large in both and smaller in one. NaN never is on the front.
#[must_use]
pub fn pareto_front(costs: &[(f64, f64)]) -> Vec<bool> {
    let beats = |a: &(f64, f64), b: &(f64, f64)| a.0 <= b.0 && a.1 <= b.1 && (a.0 < b.0 || a.1 < b.1);
    let on = |cost: &(f64, f64)| !cost.0.is_nan() && !cost.1.is_nan() && !costs.iter().any(|other| beats(other, cost));
    costs.iter().map(on).collect()
}

impl Pareto {
    /// A plot without dots.
    #[must_use]
    pub fn new(title: impl Into<String>, x: Axis, y: Axis) -> Self {
        Self { title: title.into(), x, y, ..Self::default() }
    }

    /// Adds a dot.
    pub fn push(&mut self, dot: Dot) {
        self.dots.push(dot);
    }

    /// Which dots no other one beats.
    #[must_use]
    pub fn front(&self) -> Vec<bool> {
        pareto_front(&self.dots.iter().map(|dot| (dot.x, dot.y)).collect::<Vec<_>>())
    }

    /// Candidates without a place on the axes.
    #[must_use]
    pub fn left_out(&self) -> Vec<&Dot> {
        self.dots.iter().filter(|dot| !self.has_place(dot)).collect()
    }

    /// A standalone SVG document, as [`super::Plot::to_svg`] makes it.
    ///
    /// # Errors
    /// [`ReportError::NoPoints`] when no dot has a place on the axes; [`ReportError::NoPlace`] for such a guide.
    pub fn to_svg(&self) -> Result<String, ReportError> {
        self.to_figure(STANDALONE)
    }

    /// Names of the dots that are drawn and have no room for their names.
    pub(crate) fn without_names(&self, frame: Frame) -> Vec<&str> {
        let drawn = self.drawn();
        let Some(canvas) = self.canvas(frame, &drawn) else { return Vec::new() };
        let line = front_line(&drawn, &canvas);
        let (_, places) = places(&drawn, &line, &self.guides, &canvas);
        drawn.iter().zip(places).filter(|(_, place)| place.is_none()).map(|(drawn, _)| drawn.dot.label.as_str()).collect()
    }

    /// The dots that have a place. What matters most is drawn over the rest, and gets its place for a label first.
    fn drawn(&self) -> Vec<Drawn<'_>> {
        let mut drawn: Vec<Drawn<'_>> = self.dots.iter().zip(self.front()).map(|(dot, front)| Drawn { dot, front }).collect();
        drawn.retain(|drawn| self.has_place(drawn.dot));
        drawn.sort_by_key(|drawn| (!drawn.dot.recommended, !drawn.front));
        drawn
    }

    fn canvas(&self, frame: Frame, drawn: &[Drawn<'_>]) -> Option<Canvas> {
        let points = drawn.iter().flat_map(|drawn| drawn.extent(self.y.scale));
        (!drawn.is_empty()).then(|| Canvas::new(frame, (&self.x, &self.y), points, &self.guides))
    }

    fn has_place(&self, dot: &Dot) -> bool {
        fits(self.x.scale, dot.x) && fits(self.y.scale, dot.y)
    }

    pub(crate) fn to_figure(&self, frame: Frame) -> Result<String, ReportError> {
        let axes = (&self.x, &self.y);
        self.guides.iter().try_for_each(|guide| check_guide(axes, guide))?;
        let drawn = self.drawn();
        let mut canvas = self.canvas(frame, &drawn).ok_or_else(|| ReportError::NoPoints { plot: self.title.clone() })?;
        canvas.axes(&self.x.label, &self.y.label);
        let line = front_line(&drawn, &canvas);
        let lines = segments(&drawn, &line, &canvas);
        for guide in &self.guides {
            canvas.guide(guide, &lines);
        }
        if line.len() > 1 {
            canvas.add(&format!(r#"<g class="c0">{}</g>"#, path("l", &line)));
        }
        for drawn in drawn.iter().rev() {
            let mark = drawn.mark(&canvas);
            canvas.add(&mark);
        }
        let labels = labels(&drawn, &line, &self.guides, &canvas);
        canvas.add(&labels);
        Ok(canvas.finish(&Heading { title: &self.title, description: &self.description }, 0.0))
    }
}

/// A dot that has a place.
struct Drawn<'a> {
    dot: &'a Dot,
    front: bool,
}

impl Drawn<'_> {
    /// The interval, as far as the axis can show it.
    fn interval(&self, scale: Scale) -> Option<(f64, f64)> {
        self.dot.interval.map(|(low, high)| {
            let inside = |value: f64| if fits(scale, value) { value } else { self.dot.y };
            (inside(low), inside(high))
        })
    }

    /// Points that the axes have to show.
    fn extent(&self, scale: Scale) -> Vec<(f64, f64)> {
        let (x, y) = (self.dot.x, self.dot.y);
        let ends = self.interval(scale).map_or([y, y], |(low, high)| [low, high]);
        [y, ends[0], ends[1]].map(|y| (x, y)).to_vec()
    }

    fn class(&self) -> &'static str {
        match (self.dot.recommended, self.front) {
            (true, _) => "r",
            (false, true) => "c0",
            (false, false) => "o",
        }
    }

    fn place(&self, canvas: &Canvas) -> (f64, f64) {
        (canvas.x.place(self.dot.x), canvas.y.place(self.dot.y))
    }

    fn mark(&self, canvas: &Canvas) -> String {
        let (x, y) = self.place(canvas);
        let Dot { label, note, .. } = self.dot;
        let mut tip = format!("{label}: {}, {}", canvas.x.name(self.dot.x), significant(self.dot.y, 3));
        if let Some((low, high)) = self.dot.interval {
            let _ = write!(tip, " ({} to {})", significant(low, 3), significant(high, 3));
        }
        if !note.is_empty() {
            let _ = write!(tip, ", {note}");
        }
        let mut out = format!(r#"<g class="{}"><title>{}</title>"#, self.class(), escape(&tip));
        if let Some((low, high)) = self.interval(canvas.y.scale()) {
            out.push_str(&bar(x, canvas.y.place(low), canvas.y.place(high)));
        }
        if self.dot.recommended {
            let _ = write!(out, r#"<circle class="ring" cx="{x:.2}" cy="{y:.2}" r="8"/>"#);
        }
        let radius = if self.front || self.dot.recommended { 4.5 } else { 3.5 };
        let _ = write!(out, r#"<circle class="p" cx="{x:.2}" cy="{y:.2}" r="{radius}"/>"#);
        out + "</g>"
    }
}

/// The places of the dots on the front, from the left.
fn front_line(drawn: &[Drawn<'_>], canvas: &Canvas) -> Vec<(f64, f64)> {
    let mut line: Vec<(f64, f64)> = drawn.iter().filter(|drawn| drawn.front).map(|drawn| drawn.place(canvas)).collect();
    line.sort_by(|a, b| a.0.total_cmp(&b.0));
    line
}

/// Bold characters are wider.
const BOLD: f64 = CHARACTER * 1.09;
const LABEL_LINE: f64 = 15.0;

/// Whether a dot has a note that this drawing has room for, if it has room for all of them.
fn is_noted(drawn: &Drawn<'_>, canvas: &Canvas) -> bool {
    !drawn.dot.note.is_empty() && (!canvas.frame.narrow() || drawn.dot.recommended)
}

/// All that is drawn of lines: through the front, and how far each dot is uncertain.
fn segments(drawn: &[Drawn<'_>], line: &[(f64, f64)], canvas: &Canvas) -> Vec<Segment> {
    let mut lines: Vec<Segment> = line.windows(2).map(|pair| (pair[0], pair[1])).collect();
    for drawn in drawn {
        let (x, _) = drawn.place(canvas);
        lines.extend(drawn.interval(canvas.y.scale()).map(|(low, high)| ((x, canvas.y.place(low)), (x, canvas.y.place(high)))));
    }
    lines
}

/// Where names go, if anywhere, and whether notes go with them.
fn places(drawn: &[Drawn<'_>], line: &[(f64, f64)], guides: &[Guide], canvas: &Canvas) -> (bool, Vec<Option<Place>>) {
    let noted = |drawn: &Drawn<'_>| is_noted(drawn, canvas);
    let wanted = |with_notes: bool| -> Vec<Wanted> {
        let size = |drawn: &Drawn<'_>| {
            let width = |text: &str, character: f64| text.chars().count() as f64 * character + 4.0;
            let note = with_notes && noted(drawn);
            let noted = if note { width(&drawn.dot.note, CHARACTER) } else { 0.0 };
            let height = if note { 2.0 * LABEL_LINE } else { LABEL_LINE };
            Wanted { at: drawn.place(canvas), width: width(&drawn.dot.label, BOLD).max(noted), height }
        };
        drawn.iter().map(size).collect()
    };
    let mut obstacles: Vec<Rect> = drawn.iter().map(|drawn| Rect::around(drawn.place(canvas), 6.0)).collect();
    let mut lines = segments(drawn, line, canvas);
    for guide in guides {
        obstacles.push(canvas.guide_label(guide, &lines).rect);
    }
    lines.extend(guides.iter().map(|guide| canvas.guide_line(guide)));
    let points: Vec<(f64, f64)> = drawn.iter().map(|drawn| drawn.place(canvas)).collect();
    let bounds = Rect { left: canvas.left + 2.0, top: canvas.top + 2.0, right: canvas.width() - 2.0, bottom: canvas.bottom - 2.0 };
    let scene = Scene { bounds, obstacles: &obstacles, lines: &lines, points: &points, strict: canvas.frame.narrow() };
    // Names without notes rather than notes and a name that has no place.
    let places = place(&wanted(true), &scene);
    if places.iter().all(Option::is_some) { (true, places) } else { (false, place(&wanted(false), &scene)) }
}

/// Names and notes beside their points.
fn labels(drawn: &[Drawn<'_>], line: &[(f64, f64)], guides: &[Guide], canvas: &Canvas) -> String {
    let (with_notes, places) = places(drawn, line, guides, canvas);
    let mut out = String::new();
    for (drawn, place) in drawn.iter().zip(places).filter_map(|(drawn, place)| Some((drawn, place?))) {
        let rect = place.rect;
        let at = drawn.place(canvas);
        let end = rect.nearest(at);
        let _ = write!(out, r#"<g class="q {}">"#, drawn.class());
        if place.leader {
            out.push_str(&path("h", &[at, end]));
        }
        let (x, anchor) = rect.text(at);
        out.push_str(&text("k", x, rect.top + 11.5, anchor, &drawn.dot.label));
        if with_notes && is_noted(drawn, canvas) {
            out.push_str(&text("s", x, rect.top + LABEL_LINE + 11.5, anchor, &drawn.dot.note));
        }
        out.push_str("</g>\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{NARROW, WIDE};
    use super::*;

    fn example() -> Pareto {
        let mut plot = Pareto::new("size <against> loss", Axis::from_zero("MB"), Axis::log("KL"));
        for (label, x, y) in
            [("q8_0", 53.8, 8.8e-5), ("q6_k", 43.7, 6e-4), ("q4_k_m", 33.4, 5.6e-3), ("q4_0 & co", 33.5, 8e-3), ("f16", 93.0, 0.0)]
        {
            let interval = Some((y * 0.9, y * 1.1));
            plot.push(Dot { label: label.to_owned(), note: "41 tokens/s".to_owned(), x, y, interval, recommended: label == "q6_k" });
        }
        plot.guides.push(Guide::Horizontal { at: 0.01, label: "bound".to_owned() });
        plot
    }

    #[test]
    fn the_front_has_what_nothing_beats() {
        assert_eq!(example().front(), [true, true, true, false, true]);
        assert_eq!(pareto_front(&[(1.0, 1.0), (1.0, 1.0), (1.0, 2.0), (f64::NAN, 0.0)]), [true, true, false, false]);
    }

    #[test]
    fn every_candidate_with_a_place_has_a_point_a_name_and_a_tip() {
        for frame in [STANDALONE, WIDE, NARROW] {
            let svg = example().to_figure(frame).unwrap();
            assert_eq!(svg.matches(r#"class="p""#).count(), 4);
            assert_eq!(svg.matches(r#"class="ring""#).count(), 1, "the recommended one");
            assert_eq!(svg.matches(r#"<text class="k""#).count(), 4, "{svg}");
            assert!(svg.contains("<title>q4_0 &amp; co: 33.5, 8.00e-3") || svg.contains("<title>q4_0 &amp; co: 33.5, 0.00800"), "{svg}");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "a cost of 0 has no place on a logarithmic axis");
        }
        assert_eq!(example().left_out().iter().map(|dot| dot.label.as_str()).collect::<Vec<_>>(), ["f16"]);
    }

    #[test]
    fn names_that_find_no_room_are_told() {
        assert_eq!(example().without_names(WIDE), [""; 0]);
        let mut plot = example();
        plot.dots.push(Dot { label: "a name far too long for a telephone".repeat(4), y: 1e-3, x: 40.0, ..Dot::default() });
        assert_eq!(plot.without_names(NARROW), [plot.dots[5].label.as_str()]);
        assert_eq!(plot.without_names(NARROW).len(), 5 - plot.to_figure(NARROW).unwrap().matches(r#"<text class="k""#).count());
    }

    /// As many levels as a container offers, most of them close to a line that falls, some at almost the same size.
    fn crowd() -> Pareto {
        let mut plot = Pareto::new("size against loss", Axis::from_zero("MB"), Axis::log("KL"));
        for index in 0..18_u32 {
            let x = 690.0 + 21.0 * f64::from(index / 2 * 2) + 3.0 * f64::from(index % 2);
            let y = 0.04 * libm::exp(-0.55 * f64::from(index / 2)) * if index % 2 == 0 { 1.0 } else { 1.35 };
            let interval = Some((y * 0.8, y * 1.25));
            plot.push(Dot { label: format!("q{index}_k_m"), note: String::new(), x, y, interval, recommended: index == 6 });
        }
        plot.guides.push(Guide::Horizontal { at: 0.01, label: "max mean KL 0.01".to_owned() });
        plot
    }

    #[test]
    fn names_belong_to_their_points_and_nothing_goes_through_them() {
        for frame in [STANDALONE, WIDE, NARROW] {
            let plot = crowd();
            let drawn = plot.drawn();
            let canvas = plot.canvas(frame, &drawn).unwrap();
            let line = front_line(&drawn, &canvas);
            let (_, places) = places(&drawn, &line, &plot.guides, &canvas);
            let mut lines = segments(&drawn, &line, &canvas);
            let guide = canvas.guide_label(&plot.guides[0], &lines).rect;
            assert!(lines.iter().all(|(from, to)| !guide.crossed(*from, *to)), "the words of the limit are struck through");
            lines.push(canvas.guide_line(&plot.guides[0]));
            let named = places.iter().flatten().count();
            assert!(named >= 6 && places[0].is_some(), "{named} names, the recommended one first");
            // What nothing beats gets a name before what is beaten.
            let front =
                |front: bool| drawn.iter().zip(&places).filter(move |(drawn, place)| drawn.front == front && place.is_some()).count();
            assert!(front(true) >= front(false), "{} {}", front(true), front(false));
            for (own, place) in drawn.iter().zip(&places).filter_map(|(own, place)| Some((own, (*place)?))) {
                let away = |other: &Drawn<'_>| {
                    let (point, near) = (other.place(&canvas), place.rect.nearest(other.place(&canvas)));
                    libm::hypot(point.0 - near.0, point.1 - near.1)
                };
                let others = drawn.iter().filter(|other| other.dot.label != own.dot.label);
                assert!(others.clone().all(|other| away(other) > away(own)), "{} is nearer to another point", own.dot.label);
                assert!(lines.iter().all(|(from, to)| !place.rect.crossed(*from, *to)), "{} is struck through", own.dot.label);
                assert!(!place.rect.overlaps(&guide));
            }
        }
    }

    #[test]
    fn an_interval_that_reaches_zero_ends_at_the_point() {
        let mut plot = example();
        plot.dots[0].interval = Some((0.0, 1e-4));
        assert!(plot.to_svg().is_ok());
    }

    #[test]
    fn nothing_to_draw_is_an_error() {
        let mut plot = example();
        plot.dots.retain(|dot| dot.y == 0.0);
        assert_eq!(plot.to_svg(), Err(ReportError::NoPoints { plot: plot.title.clone() }));
        let mut plot = example();
        plot.guides.push(Guide::Horizontal { at: 0.0, label: "zero".to_owned() });
        assert!(matches!(plot.to_svg(), Err(ReportError::NoPlace { .. })));
    }
}
