//! Draws a plot as SVG. Lengths are written with two decimals, so that the same plot has the same bytes everywhere.

use std::fmt::Write;

use super::axis::{Placed, fits};
use super::{Guide, Marks, Plot, Series};
use crate::error::ReportError;
use crate::xml::escape;

const WIDTH: f64 = 720.0;
/// Height of the rectangle between the axes.
const INNER: f64 = 340.0;
const TOP: f64 = 44.0;
const RIGHT: f64 = 24.0;
/// Space below the axes for ticks and label.
const BOTTOM: f64 = 52.0;
const LEGEND_LINE: f64 = 20.0;
/// Guess at the width of a character of 12 pixels in a proportional font, wide rather than narrow.
const CHARACTER: f64 = 7.0;
/// Colours before they repeat.
const COLOURS: usize = 8;

/// Colours of the series on white: told apart by people with any kind of colour vision, 3:1 or better.
const ON_LIGHT: [&str; COLOURS] = ["#0060a8", "#c04a00", "#00785a", "#a4448a", "#7a6a00", "#2b86c5", "#b3202c", "#5c5c5c"];
/// The same on black.
const ON_DARK: [&str; COLOURS] = ["#58a6ff", "#ff9e57", "#3ddbb0", "#e58fd0", "#e3d04d", "#8fcdf7", "#ff7b82", "#b8b8b8"];

const LIGHT: &str = "\
.rf{font:12px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;fill:#1f2328}
.rf .t{font-size:15px;font-weight:600}
.rf .b{fill:#fff}
.rf .g{stroke:#d8dee4;fill:none}
.rf .a{stroke:#57606a;fill:none}
.rf .u{stroke:#57606a;stroke-dasharray:2 3;fill:none}
.rf .l{stroke-width:2;fill:none;stroke-linejoin:round;stroke-linecap:round}
.rf .d{stroke-dasharray:7 5}
";
const DARK: &str = "\
.rf{fill:#e6edf3}
.rf .b{fill:#0d1117}
.rf .g{stroke:#30363d}
.rf .a,.rf .u{stroke:#9aa4af}
";

/// Rules without variables, which not every renderer knows.
fn style() -> String {
    let colours = |colours: &[&str]| -> String {
        let rule = |(index, colour)| format!(".rf .c{index} .l{{stroke:{colour}}}.rf .c{index} .p{{fill:{colour}}}\n");
        colours.iter().enumerate().map(rule).collect()
    };
    format!("{LIGHT}{}@media(prefers-color-scheme:dark){{\n{DARK}{}}}\n", colours(&ON_LIGHT), colours(&ON_DARK))
}

/// The whole document.
pub(super) fn draw(plot: &Plot) -> Result<String, ReportError> {
    check(plot)?;
    let points = || plot.series.iter().flat_map(|series| series.points.iter());
    let (mut xs, mut ys): (Vec<f64>, Vec<f64>) = points().copied().unzip();
    for guide in &plot.guides {
        match guide {
            Guide::Horizontal { at, .. } => ys.push(*at),
            Guide::Vertical { at, .. } => xs.push(*at),
        }
    }
    let (top, bottom) = (TOP, TOP + INNER);
    let y = Placed::new(&plot.y, ys.into_iter(), bottom, top);
    let y_ticks = y.ticks();
    let widest = y_ticks.iter().map(|(_, label)| label.chars().count()).max().unwrap_or(0);
    let left = 40.0 + CHARACTER * widest as f64;
    let right = WIDTH - RIGHT;
    let x = Placed::new(&plot.x, xs.into_iter(), left, right);

    let (legend, legend_height) = legend(plot, left, right, bottom + BOTTOM);
    let height = bottom + BOTTOM + legend_height + 8.0;
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    let label = escape(&plot.title);
    line(format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" class="rf" role="img" aria-label="{label}" width="{WIDTH:.0}" height="{height:.0}" viewBox="0 0 {WIDTH:.0} {height:.0}">"#
    ));
    line(format!("<title>{label}</title>"));
    if !plot.description.is_empty() {
        line(format!("<desc>{}</desc>", escape(&plot.description)));
    }
    line(format!("<style>\n{}</style>", style()));
    line(format!(r#"<rect class="b" width="{WIDTH:.0}" height="{height:.0}"/>"#));
    line(text("t", WIDTH / 2.0, 24.0, "middle", &plot.title));
    for (value, label) in x.ticks() {
        let at = x.place(value);
        line(format!(r#"<path class="g" d="M{at:.2} {top:.2}V{bottom:.2}"/>"#));
        line(text("", at, bottom + 18.0, "middle", &label));
    }
    for (value, label) in y_ticks {
        let at = y.place(value);
        line(format!(r#"<path class="g" d="M{left:.2} {at:.2}H{right:.2}"/>"#));
        line(text("", left - 8.0, at + 4.0, "end", &label));
    }
    line(format!(r#"<path class="a" d="M{left:.2} {top:.2}V{bottom:.2}H{right:.2}"/>"#));
    line(text("", f64::midpoint(left, right), bottom + 40.0, "middle", &plot.x.label));
    let middle = f64::midpoint(top, bottom);
    line(format!(r#"<text transform="translate(18 {middle:.2}) rotate(-90)" text-anchor="middle">{}</text>"#, escape(&plot.y.label)));
    for guide in &plot.guides {
        line(draw_guide(guide, &x, &y, [left, right, top, bottom]));
    }
    for (index, series) in plot.series.iter().enumerate() {
        line(draw_series(series, index % COLOURS, &x, &y));
    }
    line(legend);
    out.push_str("</svg>\n");
    Ok(out)
}

fn check(plot: &Plot) -> Result<(), ReportError> {
    if plot.series.iter().all(|series| series.points.is_empty()) {
        return Err(ReportError::NoPoints { plot: plot.title.clone() });
    }
    let no_place = |series: &str, x: f64, y: f64, log: bool| {
        let axis = if log { "a logarithmic axis" } else { "a linear axis" };
        Err(ReportError::NoPlace { series: series.to_owned(), x, y, axis })
    };
    let (x_scale, y_scale) = (plot.x.scale, plot.y.scale);
    for series in &plot.series {
        for (x, y) in &series.points {
            if !(fits(x_scale, *x) && fits(y_scale, *y)) {
                return no_place(&series.name, *x, *y, x.is_finite() && y.is_finite());
            }
        }
    }
    for guide in &plot.guides {
        match guide {
            Guide::Horizontal { at, label } if !fits(y_scale, *at) => return no_place(label, 0.0, *at, at.is_finite()),
            Guide::Vertical { at, label } if !fits(x_scale, *at) => return no_place(label, *at, 0.0, at.is_finite()),
            _ => {}
        }
    }
    Ok(())
}

fn text(class: &str, x: f64, y: f64, anchor: &str, content: &str) -> String {
    let class = if class.is_empty() { String::new() } else { format!(r#" class="{class}""#) };
    format!(r#"<text{class} x="{x:.2}" y="{y:.2}" text-anchor="{anchor}">{}</text>"#, escape(content))
}

fn draw_guide(guide: &Guide, x: &Placed, y: &Placed, [left, right, top, bottom]: [f64; 4]) -> String {
    match guide {
        Guide::Horizontal { at, label } => {
            let at = y.place(*at);
            format!(r#"<path class="u" d="M{left:.2} {at:.2}H{right:.2}"/>"#) + &text("", right - 4.0, at - 4.0, "end", label)
        }
        Guide::Vertical { at, label } => {
            let at = x.place(*at);
            format!(r#"<path class="u" d="M{at:.2} {top:.2}V{bottom:.2}"/>"#) + &text("", at + 4.0, top + 12.0, "start", label)
        }
    }
}

fn draw_series(series: &Series, colour: usize, x: &Placed, y: &Placed) -> String {
    let mut out = format!(r#"<g class="c{colour}"><title>{}</title>"#, escape(&series.name));
    let places: Vec<(f64, f64)> = series.points.iter().map(|(px, py)| (x.place(*px), y.place(*py))).collect();
    if series.marks != Marks::Points && !places.is_empty() {
        let dashed = if series.marks == Marks::Dashed { " d" } else { "" };
        write_path(&mut out, dashed, &places);
    }
    if matches!(series.marks, Marks::Points | Marks::LineAndPoints) {
        for (cx, cy) in &places {
            // Writing to a String cannot fail.
            let _ = write!(out, r#"<circle class="p" cx="{cx:.2}" cy="{cy:.2}" r="3"/>"#);
        }
    }
    out + "</g>"
}

fn write_path(out: &mut String, dashed: &str, places: &[(f64, f64)]) {
    let _ = write!(out, r#"<path class="l{dashed}" d=""#);
    for (index, (px, py)) in places.iter().enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        let _ = write!(out, "{command}{px:.2} {py:.2}");
    }
    out.push_str(r#""/>"#);
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
        if series.marks != Marks::Points {
            let dashed = if series.marks == Marks::Dashed { " d" } else { "" };
            write_path(&mut out, dashed, &[(x, y - 4.0), (x + 24.0, y - 4.0)]);
        }
        if matches!(series.marks, Marks::Points | Marks::LineAndPoints) {
            let _ = write!(out, r#"<circle class="p" cx="{:.2}" cy="{:.2}" r="3"/>"#, x + 12.0, y - 4.0);
        }
        out.push_str("</g>");
        out.push_str(&text("", x + 32.0, y, "start", &series.name));
        x += width;
    }
    (out, y - top + 4.0)
}

#[cfg(test)]
mod tests {
    use super::super::Axis;
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
        let svg = example().to_svg().unwrap();
        let number = |text: &str, name: &str| -> f64 {
            let rest = text.split_once(name).unwrap().1;
            rest.split_once('"').unwrap().0.parse().unwrap()
        };
        for circle in svg.split("<circle").skip(1).take(3) {
            let (x, y) = (number(circle, "cx=\""), number(circle, "cy=\""));
            assert!((40.0..=WIDTH - RIGHT).contains(&x) && (TOP..=TOP + INNER).contains(&y), "{x} {y}");
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
