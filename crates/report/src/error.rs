//! What can be wrong with results that are to be shown.

use rwkv_forge_tensor::{Class, Diagnostic};
use strum::IntoStaticStr;
use thiserror::Error;

/// Why results could not be turned into a document. All of these are mistakes of the program that made them.
#[derive(Clone, Debug, Error, PartialEq, IntoStaticStr)]
pub enum ReportError {
    /// A plot without any point has no axes.
    #[error("the plot {plot:?} has no points; leave it out instead")]
    NoPoints {
        /// Title of the plot.
        plot: String,
    },
    /// A point that has no place on its axes.
    #[error("series {series:?} has the point ({x}, {y}), which has no place on {axis}; leave such points out before plotting")]
    NoPlace {
        /// Name of the series, or the label of a guide.
        series: String,
        /// Value on the x axis.
        x: f64,
        /// Value on the y axis.
        y: f64,
        /// `a linear axis` or `a logarithmic axis`.
        axis: &'static str,
    },
    /// A row that does not fit the header.
    #[error("row {row} has {found} cells, expected {expected}, one for each column")]
    RowLength {
        /// Index of the row, from 0.
        row: usize,
        /// Cells found.
        found: usize,
        /// Columns.
        expected: usize,
    },
    /// The library that writes the format failed.
    #[error("cannot write {format}: {message}")]
    Format {
        /// Name of the format.
        format: &'static str,
        /// What the library said.
        message: String,
    },
}

impl Diagnostic for ReportError {
    fn kind(&self) -> &'static str {
        self.into()
    }

    fn class(&self) -> Class {
        Class::Bug
    }
}
