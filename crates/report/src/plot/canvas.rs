//! What all plots have in common: the frame, the axes with their ticks, guides, colours. Lengths are written with two decimals, so
//! that the same plot has the same bytes everywhere.

use std::fmt::Write;

use super::axis::{Placed, fits};
use super::labels::Rect;
use super::{Axis, Guide};
use crate::error::ReportError;
use crate::sink::html as escape;

/// Guess at the width of a character of 12 pixels in a proportional font, wide rather than narrow: digits of `DejaVu` Sans.
pub(super) const CHARACTER: f64 = 7.7;
/// Space below the axes for ticks and label.
const BOTTOM: f64 = 52.0;
/// Colours before they repeat.
pub(super) const COLOURS: usize = 8;

/// Where a plot is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    /// Units of the view box across.
    width: f64,
    /// Height of the rectangle between the axes.
    inner: f64,
    /// Whether it is a document of its own, which brings its title and style.
    standalone: bool,
    /// The class that tells the style sheet of a page when to show it.
    class: &'static str,
}

/// A document of its own.
pub(super) const STANDALONE: Frame = Frame { width: 720.0, inner: 340.0, standalone: true, class: "rf" };
/// In a page on a desk.
pub(crate) const WIDE: Frame = Frame { width: 940.0, inner: 400.0, standalone: false, class: "rf wide" };
/// In a page on a telephone, where the wide one would be too small to read.
pub(crate) const NARROW: Frame = Frame { width: 400.0, inner: 320.0, standalone: false, class: "rf narrow" };

impl Frame {
    /// Whether there is little room for words.
    pub(super) fn narrow(&self) -> bool {
        self.width < 500.0
    }
}

/// Colours of the series on white: told apart by people with any kind of colour vision, 3:1 or better.
const ON_LIGHT: [&str; COLOURS] = ["#0060a8", "#c04a00", "#00785a", "#a4448a", "#7a6a00", "#2b86c5", "#b3202c", "#5c5c5c"];
/// The same on black.
const ON_DARK: [&str; COLOURS] = ["#58a6ff", "#ff9e57", "#3ddbb0", "#e58fd0", "#e3d04d", "#8fcdf7", "#ff7b82", "#b8b8b8"];

const LIGHT: &str = "\
.rf{font:12px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;font-variant-numeric:tabular-nums;fill:#1f2328}
.rf .t{font-size:15px;font-weight:600}
.rf .s{fill:#57606a}
.rf .b{fill:#fff}
.rf .g{stroke:#e3e7ec;fill:none}
.rf .a{stroke:#8c959f;fill:none}
.rf .u{stroke:#57606a;stroke-dasharray:2 3;fill:none}
.rf .l{stroke-width:2;fill:none;stroke-linejoin:round;stroke-linecap:round}
.rf .d{stroke-dasharray:7 5}
.rf .w{stroke-dasharray:9 9;stroke-linecap:butt}
.rf .k{font-weight:600}
.rf .q text{paint-order:stroke;stroke:#fff;stroke-width:4px;stroke-linejoin:round}
.rf .e{stroke-width:1.5;fill:none}
.rf .h{stroke:#8c959f;fill:none}
.rf .o .p{fill:#9aa4af}
.rf .o .e{stroke:#b4bcc5}
.rf .o text{fill:#6a737d}
.rf .r .p{fill:#1a7f37}
.rf .r .e,.rf .r .ring{stroke:#1a7f37}
.rf .r .k{fill:#116329}
.rf .ring{fill:none;stroke-width:2}
";
const DARK: &str = "\
.rf{fill:#e6edf3}
.rf .s{fill:#9aa4af}
.rf .b{fill:#0d1117}
.rf .q text{stroke:#0d1117}
.rf .g{stroke:#262c34}
.rf .a,.rf .u,.rf .h{stroke:#7d8590}
.rf .o .p{fill:#6e7681}
.rf .o .e{stroke:#545c66}
.rf .o text{fill:#9198a1}
.rf .r .p{fill:#3fb950}
.rf .r .e,.rf .r .ring{stroke:#3fb950}
.rf .r .k{fill:#56d364}
";

/// Rules without variables, which not every renderer knows.
pub(crate) fn style() -> String {
    let colours = |colours: &[&str]| -> String {
        let rule = |(index, colour)| format!(".rf .c{index} .l,.rf .c{index} .e{{stroke:{colour}}}.rf .c{index} .p{{fill:{colour}}}\n");
        colours.iter().enumerate().map(rule).collect()
    };
    let (light, dark) = (colours(&ON_LIGHT), colours(&ON_DARK));
    // The rules for what is muted or recommended come last, since they have as much weight as those of the colours.
    format!("{light}{LIGHT}@media(prefers-color-scheme:dark){{\n{dark}{DARK}}}\n")
}

/// A straight line between two places.
pub(super) type Segment = ((f64, f64), (f64, f64));

/// Where the words of a guide are written.
#[derive(Clone, Copy)]
pub(super) struct GuideLabel {
    x: f64,
    y: f64,
    anchor: &'static str,
    pub(super) rect: Rect,
}

/// A guess at the width of words, with space at both ends.
fn width(label: &str) -> f64 {
    label.chars().count() as f64 * CHARACTER + 8.0
}

/// What a drawing is called.
pub(super) struct Heading<'a> {
    pub(super) title: &'a str,
    pub(super) description: &'a str,
}

/// A drawing under construction.
pub(super) struct Canvas {
    out: String,
    pub(super) frame: Frame,
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
    pub(super) x: Placed,
    pub(super) y: Placed,
}

impl Canvas {
    /// Lays out axes for these points and guides, all of which have a place on them.
    pub(super) fn new(frame: Frame, axes: (&Axis, &Axis), points: impl Iterator<Item = (f64, f64)>, guides: &[Guide]) -> Self {
        let (mut xs, mut ys): (Vec<f64>, Vec<f64>) = points.unzip();
        for guide in guides {
            match guide {
                Guide::Horizontal { at, .. } => ys.push(*at),
                Guide::Vertical { at, .. } => xs.push(*at),
            }
        }
        let top = if frame.standalone { 64.0 } else { 30.0 };
        let bottom = top + frame.inner;
        let y = Placed::new(axes.1, ys.into_iter(), bottom, top);
        let widest = y.ticks().iter().map(|(_, label)| label.chars().count()).max().unwrap_or(0);
        let (left, right) = (16.0 + CHARACTER * widest as f64, frame.width - if frame.narrow() { 14.0 } else { 24.0 });
        let x = Placed::new(axes.0, xs.into_iter(), left, right);
        Self { out: String::new(), frame, left, right, top, bottom, x, y }
    }

    /// Width of the whole drawing.
    pub(super) fn width(&self) -> f64 {
        self.frame.width
    }

    /// Adds an element, or several.
    pub(super) fn add(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }

    /// Draws grid, ticks and labels of both axes.
    pub(super) fn axes(&mut self, x: &str, y: &str) {
        let (left, right, top, bottom) = (self.left, self.right, self.top, self.bottom);
        let ticks = self.x.ticks();
        let labelled = self.x.labelled(&ticks, CHARACTER, 8.0);
        for ((value, label), labelled) in ticks.into_iter().zip(labelled) {
            let at = self.x.place(value);
            self.add(&format!(r#"<path class="g" d="M{at:.2} {top:.2}V{bottom:.2}"/>"#));
            if labelled {
                // At the ends the label moves inwards, so that it is not cut off.
                let half = CHARACTER * label.chars().count() as f64 / 2.0;
                self.add(&text("s", at.min(self.frame.width - half).max(half), bottom + 18.0, "middle", &label));
            }
        }
        for (value, label) in self.y.ticks() {
            let at = self.y.place(value);
            self.add(&format!(r#"<path class="g" d="M{left:.2} {at:.2}H{right:.2}"/>"#));
            self.add(&text("s", left - 8.0, at + 4.0, "end", &label));
        }
        self.add(&format!(r#"<path class="a" d="M{left:.2} {top:.2}V{bottom:.2}H{right:.2}"/>"#));
        self.add(&text("s", f64::midpoint(left, right), bottom + 40.0, "middle", x));
        self.add(&text("s", 8.0, top - 14.0, "start", y));
    }

    /// The line of a guide.
    pub(super) fn guide_line(&self, guide: &Guide) -> Segment {
        match guide {
            Guide::Horizontal { at, .. } => ((self.left, self.y.place(*at)), (self.right, self.y.place(*at))),
            Guide::Vertical { at, .. } => ((self.x.place(*at), self.top), (self.x.place(*at), self.bottom)),
        }
    }

    /// Where the words of a guide stand: at the end of its line at which the fewest of these lines go through them.
    pub(super) fn guide_label(&self, guide: &Guide, lines: &[Segment]) -> GuideLabel {
        let Self { left, right, top, bottom, .. } = *self;
        let candidates: Vec<GuideLabel> = match guide {
            Guide::Horizontal { at, label } => {
                let (at, width) = (self.y.place(*at), width(label));
                let beside = |anchor: &'static str, above: bool| {
                    let (x, left, right) =
                        if anchor == "end" { (right - 4.0, right - width, right) } else { (left + 4.0, left, left + width) };
                    let (y, top, bottom) = if above { (at - 4.0, at - 18.0, at + 2.0) } else { (at + 14.0, at - 2.0, at + 18.0) };
                    GuideLabel { x, y, anchor, rect: Rect { left, top, right, bottom } }
                };
                [("end", true), ("start", true), ("end", false), ("start", false)].map(|(anchor, above)| beside(anchor, above)).to_vec()
            }
            Guide::Vertical { at, label } => {
                let (at, width) = (self.x.place(*at), width(label));
                let beside = |after: bool, above: bool| {
                    let (x, anchor, left, right) =
                        if after { (at + 4.0, "start", at - 2.0, at + width) } else { (at - 4.0, "end", at - width, at + 2.0) };
                    let (y, top, bottom) = if above { (top + 12.0, top, top + 18.0) } else { (bottom - 6.0, bottom - 20.0, bottom) };
                    GuideLabel { x, y, anchor, rect: Rect { left, top, right, bottom } }
                };
                // Where there is more room: to the right of it, or to the left.
                let after = at < f64::midpoint(left, right);
                vec![beside(after, true), beside(after, false)]
            }
        };
        let crossed = |label: &GuideLabel| lines.iter().filter(|(from, to)| label.rect.crossed(*from, *to)).count();
        let inside = |label: &&GuideLabel| label.rect.top >= top - 18.0 && label.rect.bottom <= bottom;
        let best = candidates.iter().filter(inside).min_by_key(|label| crossed(label)).or(candidates.first()).copied();
        best.unwrap_or(GuideLabel { x: left, y: top, anchor: "start", rect: Rect::around((left, top), 0.0) })
    }

    /// Draws a guide, its words clear of these lines if possible.
    pub(super) fn guide(&mut self, guide: &Guide, lines: &[Segment]) {
        let (from, to) = self.guide_line(guide);
        let GuideLabel { x, y, anchor, .. } = self.guide_label(guide, lines);
        let (drawn, label) = match guide {
            Guide::Horizontal { label, .. } => (format!("H{:.2}", to.0), label),
            Guide::Vertical { label, .. } => (format!("V{:.2}", to.1), label),
        };
        let line = format!(r#"<path class="u" d="M{:.2} {:.2}{drawn}"/>"#, from.0, from.1);
        self.add(&(line + &text("s", x, y, anchor, label)));
    }

    /// The whole drawing, with `below` units under the axes for a legend.
    pub(super) fn finish(self, heading: &Heading<'_>, below: f64) -> String {
        let Frame { width, class, standalone, .. } = self.frame;
        let height = self.bottom + BOTTOM + below;
        let (title, description) = (escape(heading.title), escape(heading.description));
        let label = if description.is_empty() { title.clone() } else { format!("{title}. {description}") };
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = write!(out, r#"<svg xmlns="http://www.w3.org/2000/svg" class="{class}" role="img" aria-label="{label}""#);
        if standalone {
            let _ = write!(out, r#" width="{width:.0}" height="{height:.0}""#);
        }
        let _ = writeln!(out, r#" viewBox="0 0 {width:.0} {height:.0}">"#);
        if standalone {
            let _ = writeln!(out, "<title>{title}</title>");
            if !description.is_empty() {
                let _ = writeln!(out, "<desc>{description}</desc>");
            }
            let _ = writeln!(out, "<style>\n{}</style>", style());
            let _ = writeln!(out, r#"<rect class="b" width="{width:.0}" height="{height:.0}"/>"#);
            let _ = writeln!(out, "{}", text("t", 8.0, 24.0, "start", heading.title));
        }
        out + &self.out + "</svg>\n"
    }

    /// Where the space for a legend begins.
    pub(super) fn below(&self) -> f64 {
        self.bottom + BOTTOM
    }
}

/// Refuses a point without a place on these axes.
pub(super) fn check(axes: (&Axis, &Axis), name: &str, (x, y): (f64, f64)) -> Result<(), ReportError> {
    if fits(axes.0.scale, x) && fits(axes.1.scale, y) {
        return Ok(());
    }
    let axis = if x.is_finite() && y.is_finite() { "a logarithmic axis" } else { "a linear axis" };
    Err(ReportError::NoPlace { series: name.to_owned(), x, y, axis })
}

/// Refuses a guide without a place on these axes.
pub(super) fn check_guide((x, y): (&Axis, &Axis), guide: &Guide) -> Result<(), ReportError> {
    match guide {
        Guide::Horizontal { at, label } => check((&Axis::default(), y), label, (0.0, *at)),
        Guide::Vertical { at, label } => check((x, &Axis::default()), label, (*at, 0.0)),
    }
}

/// How far a height is uncertain.
pub(super) fn bar(x: f64, low: f64, high: f64) -> String {
    // Wider than a point, so that it is seen where it is no taller than one.
    let (left, right) = (x - 6.0, x + 6.0);
    format!(r#"<path class="e" d="M{x:.2} {low:.2}V{high:.2}M{left:.2} {low:.2}H{right:.2}M{left:.2} {high:.2}H{right:.2}"/>"#)
}

/// A line of text.
pub(super) fn text(class: &str, x: f64, y: f64, anchor: &str, content: &str) -> String {
    let class = if class.is_empty() { String::new() } else { format!(r#" class="{class}""#) };
    format!(r#"<text{class} x="{x:.2}" y="{y:.2}" text-anchor="{anchor}">{}</text>"#, escape(content))
}

/// A line through these places.
pub(super) fn path(class: &str, places: &[(f64, f64)]) -> String {
    let mut out = format!(r#"<path class="{class}" d=""#);
    for (index, (x, y)) in places.iter().enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        let _ = write!(out, "{command}{x:.2} {y:.2}");
    }
    out + r#""/>"#
}
