//! Draws series of points over two axes, with a legend.

use std::fmt::Write;

use super::canvas::{CHARACTER, COLOURS, Canvas, Frame, Heading, check, check_guide, path, text};
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
    }
    plot.guides.iter().try_for_each(|guide| check_guide(axes, guide))?;

    let mut canvas = Canvas::new(frame, axes, points(), &plot.guides);
    canvas.axes(&plot.x.label, &plot.y.label);
    for guide in &plot.guides {
        canvas.guide(guide);
    }
    for (index, series) in plot.series.iter().enumerate() {
        let drawn = draw_series(series, index % COLOURS, &canvas);
        canvas.add(&drawn);
    }
    let (legend, height) = legend(plot, canvas.left, canvas.right, canvas.below());
    if !legend.is_empty() {
        canvas.add(&legend);
    }
    Ok(canvas.finish(&Heading { title: &plot.title, description: &plot.description }, height))
}

fn line_class(marks: Marks) -> Option<&'static str> {
    match marks {
        Marks::Points => None,
        Marks::Dashed => Some("l d"),
        Marks::Line | Marks::LineAndPoints => Some("l"),
    }
}

fn draw_series(series: &Series, colour: usize, canvas: &Canvas) -> String {
    let name = escape(&series.name);
    let mut out = format!(r#"<g class="c{colour}"><title>{name}</title>"#);
    let places: Vec<(f64, f64)> = series.points.iter().map(|(x, y)| (canvas.x.place(*x), canvas.y.place(*y))).collect();
    if let Some(class) = line_class(series.marks).filter(|_| !places.is_empty()) {
        out.push_str(&path(class, &places));
    }
    if matches!(series.marks, Marks::Points | Marks::LineAndPoints) {
        for ((x, y), (cx, cy)) in series.points.iter().zip(&places) {
            let at = format!("{}: {}, {}", series.name, canvas.x.name(*x), significant(*y, 4));
            // Writing to a String cannot fail.
            let _ = write!(out, r#"<circle class="p" cx="{cx:.2}" cy="{cy:.2}" r="3"><title>{}</title></circle>"#, escape(&at));
        }
    }
    out + "</g>"
}

/// Samples and names of the series in as many lines as they need, and their height. One series needs no legend.
fn legend(plot: &Plot, left: f64, right: f64, top: f64) -> (String, f64) {
    if plot.series.len() < 2 {
        return (String::new(), 0.0);
    }
    let mut out = String::new();
    let (mut x, mut y) = (left, top + 12.0);
    for (index, series) in plot.series.iter().enumerate() {
        let width = 34.0 + CHARACTER * series.name.chars().count() as f64 + 14.0;
        if x > left && x + width > right {
            (x, y) = (left, y + LEGEND_LINE);
        }
        let _ = write!(out, r#"<g class="c{}">"#, index % COLOURS);
        if let Some(class) = line_class(series.marks) {
            out.push_str(&path(class, &[(x, y - 4.0), (x + 24.0, y - 4.0)]));
        }
        if matches!(series.marks, Marks::Points | Marks::LineAndPoints) {
            let _ = write!(out, r#"<circle class="p" cx="{:.2}" cy="{:.2}" r="3"/>"#, x + 12.0, y - 4.0);
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
