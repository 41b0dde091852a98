//! Results for people and for machines: tables, Markdown, CSV, SVG plots, pages, JUnit, annotations.
//!
//! Start at [`Table`], [`Plot`] and [`Pareto`]: what was found, without a format; they know how to become text. A [`Page`] puts
//! them together into one HTML document, or Markdown. [`Suite`] is for
//! programs that read test results, [`Annotation`] for the log of a workflow on GitHub. Words from outside go through [`sink`]. Nothing here prints, reads the
//! clock or draws random numbers: the same results give the same bytes on every machine.
#![forbid(unsafe_code)]

mod annotation;
mod error;
mod junit;
mod number;
mod page;
mod plot;
pub mod sink;
mod table;

pub use annotation::{Annotation, AnnotationKind};
pub use error::ReportError;
pub use junit::{Case, Outcome, Suite};
pub use number::{significant, thousands};
pub use page::{Attachment, Block, Figure, Page, PageTable, Section, Verdict, is_figure};
pub use plot::{Axis, Dot, Guide, Marks, Pareto, Plot, Scale, Series, pareto_front};
pub use table::{Align, Cell, Column, Table};
