//! Plots without a format, drawn as SVG: `axis.rs` places values and ticks, `canvas.rs` draws what all plots have in common,
//! `lines.rs` series of points, `pareto.rs` dots with names, which `labels.rs` keeps apart.

mod axis;
mod canvas;
mod labels;
mod lines;
mod pareto;

use serde::Serialize;

pub(crate) use canvas::{Frame, NARROW, WIDE, style};
pub use pareto::{Dot, Pareto, pareto_front};

use crate::error::ReportError;

/// How values become lengths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Scale {
    /// Equal differences are equal lengths.
    #[default]
    Linear,
    /// Equal ratios are equal lengths; values must be positive.
    Log,
}

/// One of the two axes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Axis {
    /// Quantity and unit.
    pub label: String,
    /// How values become lengths.
    pub scale: Scale,
    /// Values that the axis must show even if no point needs them.
    pub show: Vec<f64>,
    /// What is written at the values 0, 1, 2, ... of a linear axis in place of numbers; empty for numbers.
    pub names: Vec<String>,
    /// Whether only whole numbers get a tick, and none that is beyond the points: there is no layer 24 of 24.
    pub whole: bool,
}

impl Axis {
    /// A linear axis as long as the points need.
    #[must_use]
    pub fn linear(label: impl Into<String>) -> Self {
        Self { label: label.into(), ..Self::default() }
    }

    /// A linear axis that begins at 0 (or ends there).
    #[must_use]
    pub fn from_zero(label: impl Into<String>) -> Self {
        Self { show: vec![0.0], ..Self::linear(label) }
    }

    /// A logarithmic axis as long as the points need.
    #[must_use]
    pub fn log(label: impl Into<String>) -> Self {
        Self { label: label.into(), scale: Scale::Log, ..Self::default() }
    }
}

impl Axis {
    /// A linear axis of things that are counted, such as layers.
    #[must_use]
    pub fn whole(label: impl Into<String>) -> Self {
        Self { whole: true, ..Self::linear(label) }
    }

    /// An axis with these names at 0, 1, 2 and so on, all of them shown.
    #[must_use]
    pub fn named<S: Into<String>>(label: impl Into<String>, names: impl IntoIterator<Item = S>) -> Self {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let show = (0..names.len()).map(|index| index as f64).collect();
        Self { names, show, ..Self::linear(label) }
    }
}

/// What is drawn for the points of a series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Marks {
    /// A line through them in their order.
    #[default]
    Line,
    /// A dot at each.
    Points,
    /// Both.
    LineAndPoints,
    /// A dashed line: predictions and fits.
    Dashed,
}

/// Points of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Series {
    /// In the legend.
    pub name: String,
    /// What is drawn.
    pub marks: Marks,
    /// (x, y), finite, and positive on logarithmic axes.
    pub points: Vec<(f64, f64)>,
    /// What is written beside each point where there is room, and said of it in any case; empty for nothing.
    pub labels: Vec<String>,
    /// From and to, how far each point's height is uncertain; empty where that is not known.
    pub intervals: Vec<(f64, f64)>,
}

impl Series {
    /// Points without labels and intervals.
    #[must_use]
    pub fn new(name: impl Into<String>, marks: Marks, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let points = points.into_iter().collect();
        Self { name: name.into(), marks, points, labels: Vec::new(), intervals: Vec::new() }
    }

    /// The same with a label for each point.
    #[must_use]
    pub fn labelled<S: Into<String>>(self, labels: impl IntoIterator<Item = S>) -> Self {
        Self { labels: labels.into_iter().map(Into::into).collect(), ..self }
    }

    /// The same with an interval for each point.
    #[must_use]
    pub fn within(self, intervals: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Self { intervals: intervals.into_iter().collect(), ..self }
    }
}

/// A straight line across the plot at one value, such as a bound.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Guide {
    /// At this y.
    Horizontal {
        /// The value.
        at: f64,
        /// Written along it.
        label: String,
    },
    /// At this x.
    Vertical {
        /// The value.
        at: f64,
        /// Written along it.
        label: String,
    },
}

/// A plot of points over two axes.
///
/// ```
/// use rwkv_forge_report::{Axis, Marks, Plot};
///
/// let mut plot = Plot::new("Memory", Axis::whole("position"), Axis::linear("MiB"));
/// plot.push("state", Marks::Line, [(1.0, 4.0), (1000.0, 4.0)]);
/// plot.push("cache", Marks::Line, [(1.0, 0.1), (1000.0, 96.0)]);
/// let svg = plot.to_svg()?;
/// assert!(svg.starts_with("<svg") && svg.contains(">Memory<") && svg.contains(">cache<"));
///
/// // A plot of nothing is an error.
/// assert!(Plot::new("Memory", Axis::whole("position"), Axis::linear("MiB")).to_svg().is_err());
/// # Ok::<(), rwkv_forge_report::ReportError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Plot {
    /// Above the plot.
    pub title: String,
    /// For people who cannot see it; not drawn.
    pub description: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// In the order of the legend; colours go by this order and repeat after eight.
    pub series: Vec<Series>,
    /// Lines at fixed values.
    pub guides: Vec<Guide>,
}

impl Plot {
    /// A plot without points.
    #[must_use]
    pub fn new(title: impl Into<String>, x: Axis, y: Axis) -> Self {
        Self { title: title.into(), x, y, ..Self::default() }
    }

    /// Adds a series.
    pub fn push(&mut self, name: impl Into<String>, marks: Marks, points: impl IntoIterator<Item = (f64, f64)>) {
        self.series.push(Series::new(name, marks, points));
    }

    /// The drawing for a page, whose style sheet it needs.
    pub(crate) fn to_figure(&self, frame: Frame) -> Result<String, ReportError> {
        lines::draw(self, frame)
    }

    /// A standalone SVG document of 720 pixels in width, light or dark as the reader's system wants it. It refers to
    /// nothing outside of itself, has no ids (so that several fit into one page), and has the same bytes for the same
    /// plot on every machine.
    ///
    /// # Errors
    /// [`ReportError::NoPoints`] and [`ReportError::NoPlace`].
    pub fn to_svg(&self) -> Result<String, ReportError> {
        lines::draw(self, canvas::STANDALONE)
    }
}
