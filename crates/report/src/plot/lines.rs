//! Draws series of points over two axes, with a legend.

use std::fmt::Write;

use super::canvas::{CHARACTER, COLOURS, Canvas, Frame, Heading, Segment, bar, check, check_guide, path, text};
use super::labels::{Rect, Scene, Wanted, place};
use super::{Marks, Plot, Series};
use crate::error::ReportError;
use crate::number::significant;
use crate::sink::html as escape;

const LEGEND_LINE: f64 = 20.0;

/// The whole drawing.
pub(super) fn draw(plot: &Plot, frame: Frame) -> Result<String, ReportError> {
    let axes = (&plot.x, &plot.y);
    let points = || plot.series.iter().flat_map(|series| series.points.iter().copied());
    if points().next().is_none() {
        return Err(ReportError::NoPoints { plot: plot.title.clone() });
    }
    for series in &plot.series {
        series.points.iter().try_for_each(|point| check(axes, &series.name, *point))?;
        let ends = series.points.iter().zip(&series.intervals).flat_map(|((x, _), (low, high))| [(*x, *low), (*x, *high)]);
        ends.into_iter().try_for_each(|end| check(axes, &series.name, end))?;
    }
    plot.guides.iter().try_for_each(|guide| check_guide(axes, guide))?;

    let ends = |series: &Series| {
        series.points.iter().zip(&series.intervals).flat_map(|((x, _), (low, high))| [(*x, *low), (*x, *high)]).collect::<Vec<_>>()
    };
    let mut canvas = Canvas::new(frame, axes, points().chain(plot.series.iter().flat_map(ends)), &plot.guides);
    canvas.axes(&plot.x.label, &plot.y.label);
    let lines = segments(plot, &canvas);
    for guide in &plot.guides {
        canvas.guide(guide, &lines);
    }
    let hidden: Vec<bool> = (0..plot.series.len()).map(|index| lies_on_another(plot, index, &canvas)).collect();
    for (index, series) in plot.series.iter().enumerate() {
        let drawn = draw_series(series, Look::of(index, hidden[index]), &canvas);
        canvas.add(&drawn);
    }
    let labels = labels(plot, &canvas);
    canvas.add(&labels);
    let (legend, height) = legend(plot, &hidden, (canvas.left, canvas.right), canvas.below());
    if !legend.is_empty() {
        canvas.add(&legend);
    }
    Ok(canvas.finish(&Heading { title: &plot.title, description: &plot.description }, height))
}

/// Points of two curves that are no farther apart than this are drawn as one.
const SAME: f64 = 2.0;

/// Whether most of a series lies on an earlier one, so that it would hide it.
fn lies_on_another(plot: &Plot, index: usize, canvas: &Canvas) -> bool {
    let places = |series: &Series| series.points.iter().map(|(x, y)| (canvas.x.place(*x), canvas.y.place(*y))).collect::<Vec<_>>();
    let own = places(&plot.series[index]);
    let near = |a: &(f64, f64), b: &(f64, f64)| (a.0 - b.0).abs() <= SAME && (a.1 - b.1).abs() <= SAME;
    let covers = |other: &Series| {
        let other = places(other);
        2 * own.iter().filter(|place| other.iter().any(|place_of_other| near(place, place_of_other))).count() > own.len()
    };
    plot.series[..index].iter().any(covers)
}

/// How a series is drawn.
#[derive(Clone, Copy)]
struct Look {
    /// Which colour and which shape.
    index: usize,
    /// Over another series, which must stay visible: gaps in its line, rings for its points.
    over: bool,
}

impl Look {
    fn of(index: usize, over: bool) -> Self {
        Self { index, over }
    }

    fn group(self) -> String {
        format!("c{}", self.index % COLOURS)
    }

    fn line(self, marks: Marks) -> Option<&'static str> {
        match (marks, self.over) {
            (Marks::Points, _) => None,
            (Marks::Dashed, _) => Some("l d"),
            (Marks::Line | Marks::LineAndPoints, false) => Some("l"),
            (Marks::Line | Marks::LineAndPoints, true) => Some("l w"),
        }
    }

    /// A point. Shapes change from series to series, for those who see no colours.
    fn mark(self, x: f64, y: f64, title: &str) -> String {
        let (class, size) = if self.over { ("e", 6.0) } else { ("p", 3.4) };
        let shape = |d: String| format!(r#"<path class="{class}" d="{d}""#);
        let drawn = match self.index % 4 {
            0 => format!(r#"<circle class="{class}" cx="{x:.2}" cy="{y:.2}" r="{size}""#),
            1 => shape(format!("M{:.2} {:.2}h{s:.2}v{s:.2}h-{s:.2}z", x - size * 0.9, y - size * 0.9, s = size * 1.8)),
            2 => shape(format!("M{x:.2} {:.2}l{s:.2} {d:.2}h-{w:.2}z", y - size * 1.25, s = size * 1.15, d = size * 2.0, w = size * 2.3)),
            _ => shape(format!("M{x:.2} {:.2}l{s:.2} {s:.2}l-{s:.2} {s:.2}l-{s:.2} -{s:.2}z", y - size * 1.3, s = size * 1.3)),
        };
        let tag = if self.index.is_multiple_of(4) { "circle" } else { "path" };
        if title.is_empty() { drawn + "/>" } else { format!("{drawn}><title>{}</title></{tag}>", escape(title)) }
    }
}

fn draw_series(series: &Series, look: Look, canvas: &Canvas) -> String {
    let name = escape(&series.name);
    let mut out = format!(r#"<g class="{}"><title>{name}</title>"#, look.group());
    let places: Vec<(f64, f64)> = series.points.iter().map(|(x, y)| (canvas.x.place(*x), canvas.y.place(*y))).collect();
    if let Some(class) = look.line(series.marks).filter(|_| !places.is_empty()) {
        out.push_str(&path(class, &places));
    }
    for ((x, _), (low, high)) in places.iter().zip(&series.intervals) {
        out.push_str(&bar(*x, canvas.y.place(*low), canvas.y.place(*high)));
    }
    if matches!(series.marks, Marks::Points | Marks::LineAndPoints) {
        for (index, ((x, y), (left, top))) in series.points.iter().zip(&places).enumerate() {
            let label = series.labels.get(index).map_or_else(String::new, |label| format!(", {label}"));
            let mut tip = format!("{}{label}: {}, {}", series.name, canvas.x.name(*x), significant(*y, 4));
            if let Some((low, high)) = series.intervals.get(index) {
                let _ = write!(tip, " ({} to {})", significant(*low, 4), significant(*high, 4));
            }
            out.push_str(&look.mark(*left, *top, &tip));
        }
    }
    out + "</g>"
}

/// All that is drawn of lines: the curves, and how far points are uncertain.
fn segments(plot: &Plot, canvas: &Canvas) -> Vec<Segment> {
    let place = |(x, y): (f64, f64)| (canvas.x.place(x), canvas.y.place(y));
    let mut lines = Vec::new();
    for series in &plot.series {
        if series.marks != Marks::Points {
            lines.extend(series.points.windows(2).map(|pair| (place(pair[0]), place(pair[1]))));
        }
        let intervals = series.points.iter().zip(&series.intervals);
        lines.extend(intervals.map(|((x, _), (low, high))| (place((*x, *low)), place((*x, *high)))));
    }
    lines
}

/// Names beside the points that have one, kept apart and off the lines; those without room are left to the tips.
fn labels(plot: &Plot, canvas: &Canvas) -> String {
    let named = |series: &Series| -> Vec<(String, (f64, f64))> {
        let places = series.points.iter().map(|(x, y)| (canvas.x.place(*x), canvas.y.place(*y)));
        series.labels.iter().cloned().zip(places).filter(|(label, _)| !label.is_empty()).collect()
    };
    let all: Vec<(String, (f64, f64))> = plot.series.iter().flat_map(named).collect();
    let wanted = all.iter().map(|(label, at)| Wanted { at: *at, width: label.chars().count() as f64 * CHARACTER + 4.0, height: 15.0 });
    let wanted: Vec<Wanted> = wanted.collect();
    let points = plot.series.iter().flat_map(|series| &series.points).map(|(x, y)| (canvas.x.place(*x), canvas.y.place(*y)));
    let points: Vec<(f64, f64)> = points.collect();
    let mut obstacles: Vec<Rect> = points.iter().map(|at| Rect::around(*at, 6.0)).collect();
    let mut lines = segments(plot, canvas);
    for guide in &plot.guides {
        obstacles.push(canvas.guide_label(guide, &lines).rect);
    }
    lines.extend(plot.guides.iter().map(|guide| canvas.guide_line(guide)));
    let bounds = Rect { left: canvas.left + 2.0, top: canvas.top + 2.0, right: canvas.width() - 2.0, bottom: canvas.bottom - 2.0 };
    let mut out = String::new();
    for ((label, at), found) in all
        .iter()
        .zip(place(&wanted, &Scene { bounds, obstacles: &obstacles, lines: &lines, points: &points, strict: canvas.frame.narrow() }))
    {
        let Some(found) = found else { continue };
        out.push_str(r#"<g class="q">"#);
        if found.leader {
            out.push_str(&path("h", &[*at, found.rect.nearest(*at)]));
        }
        let (x, anchor) = found.rect.text(*at);
        out.push_str(&text("", x, found.rect.top + 11.5, anchor, label));
        out.push_str("</g>\n");
    }
    out
}

/// Samples and names of the series in as many lines as they need, and their height. One line alone has its name as well: what it is
/// of is not said elsewhere in the drawing.
fn legend(plot: &Plot, hidden: &[bool], (left, right): (f64, f64), top: f64) -> (String, f64) {
    if plot.series.iter().all(|series| series.name.is_empty()) {
        return (String::new(), 0.0);
    }
    let mut out = String::new();
    let (mut x, mut y) = (left, top + 12.0);
    for (index, series) in plot.series.iter().enumerate() {
        let width = 34.0 + CHARACTER * series.name.chars().count() as f64 + 14.0;
        if x > left && x + width > right {
            (x, y) = (left, y + LEGEND_LINE);
        }
        let look = Look::of(index, hidden[index]);
        let _ = write!(out, r#"<g class="{}">"#, look.group());
        if let Some(class) = look.line(series.marks) {
            out.push_str(&path(class, &[(x, y - 4.0), (x + 24.0, y - 4.0)]));
        }
        if matches!(series.marks, Marks::Points | Marks::LineAndPoints) {
            out.push_str(&look.mark(x + 12.0, y - 4.0, ""));
        }
        out.push_str("</g>");
        out.push_str(&text("", x + 32.0, y, "start", &series.name));
        x += width;
    }
    (out, y - top + 12.0)
}

#[cfg(test)]
mod tests {
    use super::super::{Axis, Guide};
    use super::*;

    fn example() -> Plot {
        let mut plot = Plot::new("time <per> token & more", Axis::log("tokens"), Axis::from_zero("ms"));
        plot.description = "a \"test\"".to_owned();
        plot.push("recurrent", Marks::LineAndPoints, [(1.0, 2.0), (64.0, 2.1), (1024.0, 2.0)]);
        plot.push("attention </svg>", Marks::Dashed, [(1.0, 1.0), (1024.0, 30.0)]);
        plot.guides.push(Guide::Horizontal { at: 10.0, label: "bound".to_owned() });
        plot
    }

    #[test]
    fn the_document_is_closed_complete_and_points_nowhere() {
        let svg = example().to_svg().unwrap();
        assert_eq!(svg.matches("<svg").count(), 1);
        assert_eq!(svg.matches("</svg>").count(), 1, "names are escaped");
        assert_eq!(svg.matches("<circle").count(), 3 + 1, "three points and their sample in the legend");
        assert_eq!(svg.matches("class=\"l d\"").count(), 2, "a dashed line and its sample");
        assert!(svg.contains("time &lt;per&gt; token &amp; more") && svg.contains("prefers-color-scheme:dark") && svg.contains(">bound<"));
        assert_eq!(svg.matches("http").count(), 1, "only the name space, which nobody fetches");
        assert!(!svg.contains(" id=") && !svg.contains("url(") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(svg, example().to_svg().unwrap());
        // Every tag that opens also closes.
        let opened = |tag: &str| svg.matches(&format!("<{tag}>")).count() + svg.matches(&format!("<{tag} ")).count();
        for tag in ["text", "g", "title", "desc", "style"] {
            assert_eq!(opened(tag), svg.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn all_points_lie_between_the_axes() {
        for frame in [super::super::canvas::STANDALONE, super::super::WIDE, super::super::NARROW] {
            let svg = example().to_figure(frame).unwrap();
            let number = |text: &str, name: &str| -> f64 {
                let rest = text.split_once(name).unwrap().1;
                rest.split_once('"').unwrap().0.parse().unwrap()
            };
            let plot = example();
            let canvas = Canvas::new(frame, (&plot.x, &plot.y), [(1.0, 1.0), (1024.0, 30.0)].into_iter(), &[]);
            for circle in svg.split("<circle").skip(1).take(3) {
                let (x, y) = (number(circle, "cx=\""), number(circle, "cy=\""));
                assert!((canvas.left..=canvas.right).contains(&x) && (canvas.top..=canvas.bottom).contains(&y), "{x} {y}");
            }
        }
    }

    #[test]
    fn curves_that_coincide_are_both_to_be_seen() {
        let mut plot = example();
        assert!(!plot.to_svg().unwrap().contains("l w"), "these do not");
        plot.push("again", Marks::LineAndPoints, [(1.0, 2.01), (64.0, 2.1), (1024.0, 2.0)]);
        let svg = plot.to_svg().unwrap();
        assert_eq!(svg.matches(r#"class="l w""#).count(), 2, "gaps in the line that is above, and in its sample");
        assert_eq!(svg.matches(r#"<path class="e""#).count(), 3 + 1, "its points are rings around the others, as is their sample");
        // For those who see no colours, every series has a shape of its own.
        let shapes: Vec<String> = (0..4).map(|index| Look::of(index, false).mark(10.0, 10.0, "")).collect();
        assert!((0..4).all(|a| (0..a).all(|b| shapes[a] != shapes[b])), "{shapes:?}");
    }

    #[test]
    fn one_line_alone_has_its_name() {
        let mut plot = example();
        plot.series.truncate(1);
        assert!(plot.to_svg().unwrap().contains(">recurrent</text>"));
        plot.series[0].name = String::new();
        assert_eq!(plot.to_svg().unwrap().matches("<circle").count(), 3, "no sample of what has no name");
    }

    #[test]
    fn points_have_their_names_beside_them_and_their_intervals() {
        let mut plot = Plot::new("t", Axis::log("bytes"), Axis::log("tokens/s"));
        let series = Series::new("2 threads", Marks::Points, [(1e6, 100.0), (1e6, 100.0), (4e6, 30.0)]);
        plot.series.push(series.labelled(["q4_0 & co", "q4_1", "q8_0"]).within([(90.0, 110.0), (99.0, 101.0), (10.0, 31.0)]));
        let svg = plot.to_svg().unwrap();
        for label in ["q4_0 &amp; co", "q4_1", "q8_0"] {
            assert!(svg.contains(&format!(">{label}</text>")) && svg.contains(&format!("2 threads, {label}: ")), "{label}: {svg}");
        }
        assert_eq!(svg.matches(r#"<path class="e""#).count(), 3);
        assert!(svg.contains("30.00 (10.00 to 31.00)"), "{svg}");
        plot.series[0].intervals[0].0 = 0.0;
        assert!(matches!(plot.to_svg(), Err(ReportError::NoPlace { .. })), "an interval has a place as well");
    }

    #[test]
    fn points_without_a_place_are_errors() {
        let mut plot = example();
        plot.series[1].points.push((0.0, 1.0));
        let place = ReportError::NoPlace { series: "attention </svg>".to_owned(), x: 0.0, y: 1.0, axis: "a logarithmic axis" };
        assert_eq!(plot.to_svg(), Err(place));
        plot.series[1].points[2] = (1.0, f64::NAN);
        assert!(matches!(plot.to_svg(), Err(ReportError::NoPlace { .. })));
        plot.series.clear();
        assert_eq!(plot.to_svg(), Err(ReportError::NoPoints { plot: plot.title.clone() }));
    }
}
