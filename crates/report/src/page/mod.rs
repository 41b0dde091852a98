//! A page of results: one document that a browser shows without a network and without scripts, and the same as Markdown.
//!
//! Start at [`Page`]. `html.rs` and `markdown.rs` write it, `page.css` is how it looks. All texts are plain: whatever they contain
//! is shown as it is, except that words between two backticks are set as code.

mod html;
mod markdown;

use serde::Serialize;

use crate::error::ReportError;
use crate::plot::{Pareto, Plot};
use crate::table::Table;

/// A document of results.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Page {
    /// What was measured.
    pub title: String,
    /// One line under the title; empty for none.
    pub subtitle: String,
    /// The answer, if there is one.
    pub verdict: Option<Verdict>,
    /// In reading order.
    pub sections: Vec<Section>,
    /// What the results came from, as names and values: files, digests, versions, commands. Shown last.
    pub provenance: Vec<(String, String)>,
}

/// The answer, before anything else.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verdict {
    /// A short line, such as the name of what is recommended.
    pub headline: String,
    /// A sentence or two; empty for none.
    pub detail: String,
    /// The few numbers that it rests on.
    pub figures: Vec<Figure>,
    /// Whether this is good news, which decides the colour.
    pub good: bool,
}

/// A number that stands alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figure {
    /// Quantity.
    pub label: String,
    /// Value and unit.
    pub value: String,
    /// In smaller type, such as the interval; empty for none.
    pub note: String,
}

/// A part of a page.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Section {
    /// Its heading.
    pub heading: String,
    /// In reading order.
    pub blocks: Vec<Block>,
}

/// Something in a section.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Block {
    /// Text.
    Paragraph(String),
    /// Text of less weight: how to read a figure, what limits it.
    Note(String),
    /// A command to be typed, shown line by line.
    Command(String),
    /// Rows under headings.
    Table(PageTable),
    /// Series over two axes.
    Plot(Plot),
    /// Candidates to choose from.
    Pareto(Pareto),
}

/// A table, and which of its rows stand out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PageTable {
    /// Title, columns, rows.
    pub table: Table,
    /// Index of the row to take.
    pub recommended: Option<usize>,
    /// Index of a row that stands out in another way, and in which: a few words.
    pub noted: Option<(usize, String)>,
    /// Indexes of rows that another one beats.
    pub muted: Vec<usize>,
}

impl From<Table> for PageTable {
    fn from(table: Table) -> Self {
        Self { table, ..Self::default() }
    }
}

/// A file that belongs to a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Lower-case letters, digits and hyphens, with an extension; unique within the page.
    pub name: String,
    /// Its content.
    pub text: String,
}

impl Section {
    /// A section without content.
    #[must_use]
    pub fn new(heading: impl Into<String>) -> Self {
        Self { heading: heading.into(), blocks: Vec::new() }
    }

    /// Adds text.
    pub fn paragraph(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Paragraph(text.into()));
    }

    /// Adds text of less weight.
    pub fn note(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Note(text.into()));
    }

    /// Adds a command.
    pub fn command(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Command(text.into()));
    }

    /// Adds a table.
    pub fn table(&mut self, table: impl Into<PageTable>) {
        self.blocks.push(Block::Table(table.into()));
    }

    /// Adds series over two axes.
    pub fn plot(&mut self, plot: Plot) {
        self.blocks.push(Block::Plot(plot));
    }

    /// Adds dots to choose from.
    pub fn pareto(&mut self, plot: Pareto) {
        self.blocks.push(Block::Pareto(plot));
    }
}

impl Page {
    /// A page without content.
    #[must_use]
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// One HTML document that refers to nothing outside of itself, runs no scripts, and is light or dark as the reader's system
    /// wants it. The same page has the same bytes everywhere.
    ///
    /// # Errors
    /// [`ReportError`] for a table with a short row or a plot without points.
    pub fn to_html(&self) -> Result<String, ReportError> {
        html::write(self)
    }

    /// Markdown as on GitHub and in model cards. With `figures`, the folder that the files of [`Self::figures`] lie in as seen from
    /// the document (empty for its own folder), plots are linked; without, they are left out.
    ///
    /// # Errors
    /// [`ReportError`] for a table with a short row.
    pub fn to_markdown(&self, figures: Option<&str>) -> Result<String, ReportError> {
        markdown::write(self, figures)
    }

    /// Every plot as a standalone SVG file.
    ///
    /// # Errors
    /// [`ReportError`] for a plot without points.
    pub fn figures(&self) -> Result<Vec<Attachment>, ReportError> {
        let mut out = Vec::new();
        for block in self.blocks() {
            let (title, text) = match block {
                Block::Plot(plot) => (&plot.title, plot.to_svg()?),
                Block::Pareto(plot) => (&plot.title, plot.to_svg()?),
                _ => continue,
            };
            out.push(Attachment { name: file_name(out.len(), title, "svg"), text });
        }
        Ok(out)
    }

    /// Every table as a CSV file with unrounded numbers.
    ///
    /// # Errors
    /// [`ReportError`] for a table with a short row.
    pub fn tables(&self) -> Result<Vec<Attachment>, ReportError> {
        let mut out = Vec::new();
        for block in self.blocks() {
            if let Block::Table(table) = block {
                out.push(Attachment { name: file_name(out.len(), &table.table.title, "csv"), text: table.table.to_csv()? });
            }
        }
        Ok(out)
    }

    fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.sections.iter().flat_map(|section| &section.blocks)
    }
}

/// Whether a file of this name could be one of [`Page::figures`]: two digits or more, perhaps words, `.svg`.
#[must_use]
pub fn is_figure(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(".svg") else { return false };
    let (number, words) = stem.split_once('-').unwrap_or((stem, "x"));
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    number.len() >= 2 && number.bytes().all(|byte| byte.is_ascii_digit()) && !words.is_empty() && words.chars().all(word)
}

/// A name that is good on every file system: a number, then what is left of the title.
fn file_name(index: usize, title: &str, extension: &str) -> String {
    let letters: String = title.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { ' ' }).collect();
    let mut name = format!("{:02}", index + 1);
    for word in letters.split_whitespace() {
        if name.len() + word.len() > 60 {
            break;
        }
        name.push('-');
        name.push_str(word);
    }
    format!("{name}.{extension}")
}

/// What was left out of a plot, as a sentence; none if nothing was.
fn left_out(plot: &Pareto) -> Option<String> {
    let names: Vec<String> = plot.left_out().iter().map(|dot| dot.label.replace('`', "'")).collect();
    match names.as_slice() {
        [] => None,
        names => Some(format!("Not drawn, since zero has no place on a logarithmic axis: {}.", names.join(", "))),
    }
}

/// Which dots of a plot have no room for their names, as a sentence; none if all have.
fn unnamed(labels: &[&str]) -> Option<String> {
    let names: Vec<String> = labels.iter().map(|label| label.replace('`', "'")).collect();
    (!names.is_empty()).then(|| {
        format!(
            "{} drawn without room for {}: {}.",
            names.len(),
            if names.len() == 1 { "its name" } else { "their names" },
            names.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_without_names_are_counted() {
        assert_eq!(unnamed(&[]), None);
        assert_eq!(unnamed(&["a"]).unwrap(), "1 drawn without room for its name: a.");
        assert_eq!(unnamed(&["a", "b`"]).unwrap(), "2 drawn without room for their names: a, b'.");
    }

    #[test]
    fn file_names_are_tame() {
        assert_eq!(file_name(0, "Size against loss: all types", "svg"), "01-size-against-loss-all-types.svg");
        assert_eq!(file_name(11, "../../\0é", "csv"), "12.csv");
        assert!(["Size against loss", "", "é", "3 x 4"].iter().all(|title| is_figure(&file_name(7, title, "svg"))));
        assert!(!["1-a.svg", "01-a.png", "01-A.svg", "photo.svg", "01-.svg", ".svg"].iter().any(|name| is_figure(name)));
        assert!(file_name(0, &"x".repeat(500), "csv").len() < 70 && file_name(0, &"word ".repeat(50), "csv").len() < 70);
    }
}
