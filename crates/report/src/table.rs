//! Tables without a format: Markdown for documents, CSV for spreadsheets.

use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use crate::error::ReportError;
use crate::number::significant;
use crate::sink::{self, markdown_cell};

/// Cells are filled up to the widest of their column, but to no more than this: a name of a megabyte would make each of its rows one.
const WIDEST: usize = 200;

/// Which side of its column a cell stands at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Align {
    /// Words.
    #[default]
    Left,
    /// Numbers.
    Right,
}

/// A column's heading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    /// The heading.
    pub name: String,
    /// Where its cells stand.
    pub align: Align,
}

impl Column {
    /// A column of words.
    #[must_use]
    pub fn left(name: impl Into<String>) -> Self {
        Self { name: name.into(), align: Align::Left }
    }

    /// A column of numbers.
    #[must_use]
    pub fn right(name: impl Into<String>) -> Self {
        Self { name: name.into(), align: Align::Right }
    }
}

/// What stands in one place: text for people, and for numbers the value that spreadsheets get.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// As people read it.
    pub text: String,
    /// The number behind it, unrounded.
    pub value: Option<f64>,
}

impl Cell {
    /// Words; also the empty cell.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), value: None }
    }

    /// A measured number, shown with `digits` significant digits.
    #[must_use]
    pub fn measured(value: f64, digits: usize) -> Self {
        Self { text: significant(value, digits), value: Some(value) }
    }

    /// A number shown with a fixed number of decimals.
    #[must_use]
    pub fn fixed(value: f64, decimals: usize) -> Self {
        Self { text: format!("{value:.decimals$}"), value: Some(value) }
    }

    /// A whole number, exact up to 2^53 in CSV.
    #[must_use]
    pub fn count(value: u64) -> Self {
        Self { text: crate::number::thousands(value), value: Some(value as f64) }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::text(text)
    }
}

/// Rows under headings.
///
/// ```
/// use rwkv_forge_report::{Cell, Column, Table};
///
/// let mut table = Table::new("Types", [Column::left("type"), Column::right("KL")]);
/// table.push([Cell::text("q4_0"), Cell::measured(0.041_234_5, 3)]);
/// assert_eq!(table.to_markdown()?, "| type |     KL |\n| ---- | -----: |\n| q4_0 | 0.0412 |\n");
/// // Spreadsheets get every digit.
/// assert_eq!(table.to_csv()?, "type,KL\nq4_0,0.0412345\n");
/// # Ok::<(), rwkv_forge_report::ReportError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Table {
    /// Heading of the whole; not part of the Markdown and CSV.
    pub title: String,
    /// Headings, from the left.
    pub columns: Vec<Column>,
    /// Rows, each with one cell a column.
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(title: impl Into<String>, columns: impl IntoIterator<Item = Column>) -> Self {
        Self { title: title.into(), columns: columns.into_iter().collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn push(&mut self, row: impl IntoIterator<Item = Cell>) {
        self.rows.push(row.into_iter().collect());
    }

    /// Markdown with columns of even width as a terminal shows them, ending in a newline. What is wider than 200 places is kept and
    /// stands out.
    ///
    /// # Errors
    /// [`ReportError::RowLength`].
    pub fn to_markdown(&self) -> Result<String, ReportError> {
        self.check()?;
        let header: Vec<String> = self.columns.iter().map(|column| markdown_cell(&column.name)).collect();
        let rows: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(|cell| markdown_cell(&cell.text)).collect()).collect();
        let width = |column: usize| {
            let cells = rows.iter().chain([&header]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.width()).max().unwrap_or(0).clamp(3, WIDEST)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let rule = self.columns.iter().zip(&widths).map(|(column, width)| match column.align {
            Align::Left => "-".repeat(*width),
            Align::Right => format!("{}:", "-".repeat(width - 1)),
        });
        let mut out = self.line(&header, &widths);
        out.push_str(&self.line(&rule.collect::<Vec<_>>(), &widths));
        for row in &rows {
            out.push_str(&self.line(row, &widths));
        }
        Ok(out)
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let mut out = "|".to_owned();
        for ((cell, width), column) in cells.iter().zip(widths).zip(&self.columns) {
            let space = " ".repeat(width.saturating_sub(cell.width()));
            match column.align {
                Align::Left => out.push_str(&format!(" {cell}{space} |")),
                Align::Right => out.push_str(&format!(" {space}{cell} |")),
            }
        }
        out.push('\n');
        out
    }

    /// CSV as in RFC 4180, with newlines of one byte and numbers unrounded. No cell begins as a formula.
    ///
    /// # Errors
    /// [`ReportError::RowLength`].
    pub fn to_csv(&self) -> Result<String, ReportError> {
        self.check()?;
        let mut writer = csv::Writer::from_writer(Vec::new());
        let failed = |message: String| ReportError::Format { format: "CSV", message };
        let words = |text: &str| sink::csv(text).into_owned();
        writer.write_record(self.columns.iter().map(|column| words(&column.name))).map_err(|error| failed(error.to_string()))?;
        for row in &self.rows {
            let cells = row.iter().map(|cell| cell.value.map_or_else(|| words(&cell.text), |value| value.to_string()));
            writer.write_record(cells).map_err(|error| failed(error.to_string()))?;
        }
        let bytes = writer.into_inner().map_err(|error| failed(error.to_string()))?;
        String::from_utf8(bytes).map_err(|error| failed(error.to_string()))
    }

    fn check(&self) -> Result<(), ReportError> {
        let expected = self.columns.len();
        match self.rows.iter().enumerate().find(|(_, row)| row.len() != expected) {
            Some((row, cells)) => Err(ReportError::RowLength { row, found: cells.len(), expected }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Table {
        let mut table = Table::new("t", [Column::left("name"), Column::right("ratio")]);
        table.push([Cell::text("a|b, \"c\""), Cell::measured(1.0 / 3.0, 3)]);
        table.push([Cell::text("two\nlines"), Cell::count(12_345)]);
        table
    }

    #[test]
    fn markdown_keeps_its_columns() {
        let want = "| name      |  ratio |\n| --------- | -----: |\n| a\\|b, \"c\" |  0.333 |\n| two lines | 12,345 |\n";
        assert_eq!(example().to_markdown().unwrap(), want);
    }

    #[test]
    fn wide_letters_take_two_places_and_a_giant_widens_no_other_row() {
        let mut table = Table::new("t", [Column::left("name"), Column::right("n")]);
        table.push([Cell::text("模型"), Cell::count(1)]);
        table.push([Cell::text("model"), Cell::count(2)]);
        assert_eq!(table.to_markdown().unwrap(), "| name  |   n |\n| ----- | --: |\n| 模型  |   1 |\n| model |   2 |\n");
        table.push([Cell::text("x".repeat(100_000)), Cell::count(3)]);
        let text = table.to_markdown().unwrap();
        assert!(text.contains(&"x".repeat(100_000)));
        assert!(text.lines().filter(|line| line.len() < 300).count() == 4, "{text:.2000}");
    }

    #[test]
    fn csv_quotes_what_needs_it_and_keeps_every_digit() {
        assert_eq!(example().to_csv().unwrap(), "name,ratio\n\"a|b, \"\"c\"\"\",0.3333333333333333\ntwo\\nlines,12345\n");
    }

    #[test]
    fn a_short_row_is_an_error() {
        let mut table = example();
        table.push([Cell::text("alone")]);
        let error = ReportError::RowLength { row: 2, found: 1, expected: 2 };
        assert_eq!(table.to_markdown(), Err(error.clone()));
        assert_eq!(table.to_csv(), Err(error));
    }
}
