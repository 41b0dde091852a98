//! Results for people and for machines: tables, Markdown, CSV, SVG plots, JUnit, annotations.
//!
//! Start at [`Table`] and [`Plot`]: what was found, without a format; both know how to become text. [`Suite`] is for
//! programs that read test results, [`Annotation`] for the log of a workflow on GitHub. Nothing here prints, reads the
//! clock or draws random numbers: the same results give the same bytes on every machine.
#![forbid(unsafe_code)]

mod annotation;
mod error;
mod junit;
mod number;
mod plot;
mod table;
mod xml;

pub use annotation::{Annotation, Level};
pub use error::ReportError;
pub use junit::{Case, Outcome, Suite};
pub use number::{significant, thousands};
pub use plot::{Axis, Guide, Marks, Plot, Scale, Series};
pub use table::{Align, Cell, Column, Table};
