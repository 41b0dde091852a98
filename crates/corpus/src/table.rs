//! Parquet files: a column of texts, perhaps one of categories. Start at [`rows`].

use std::io::BufReader;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{ChunkReader, FileReader as _, Length, RowGroupReader, SerializedFileReader};
use rwkv_forge_io::InputFile;

use crate::error::CorpusError;
use crate::pages::{Problem, check_footer, check_pages};
use crate::sink::{Limits, Sink};
use crate::source::FileReader;

/// Rows decoded at a time. Values are parts of pages, so that more would not cost memory but hold pages longer.
const BATCH: usize = 64;

/// The file as the Parquet reader wants it.
struct Chunks(Arc<InputFile>);

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for Chunks {
    type T = BufReader<FileReader>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(BufReader::new(FileReader::new(Arc::clone(&self.0), start)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let bytes = self.0.read_vec(start, length as u64, self.0.len());
        bytes.map(Bytes::from).map_err(|error| ParquetError::External(Box::new(error)))
    }
}

/// Reads all rows. The Parquet reader is other people's code with many internal assumptions: should one of them fail on a
/// damaged file, that is reported as an error of the file.
pub(crate) fn rows(file: &Arc<InputFile>, limits: &Limits, sink: &mut Sink<'_>, notes: &mut Vec<String>) -> Result<(), CorpusError> {
    let table = Table { file, limits };
    catch_unwind(AssertUnwindSafe(|| table.read(sink, notes))).unwrap_or_else(|_| Err(table.bad("its parts contradict each other")))
}

struct Table<'a> {
    file: &'a Arc<InputFile>,
    limits: &'a Limits,
}

/// The columns that are read.
struct Columns {
    text: usize,
    text_name: String,
    category: Option<usize>,
}

impl Table<'_> {
    fn bad(&self, problem: impl ToString) -> CorpusError {
        CorpusError::BadParquet { path: self.file.path().to_path_buf(), problem: problem.to_string() }
    }

    fn check(&self, checked: Result<(), Problem>) -> Result<(), CorpusError> {
        checked.map_err(|problem| match problem {
            Problem::Io(error) => error.into(),
            Problem::Structure(problem) => self.bad(problem),
        })
    }

    fn read(&self, sink: &mut Sink<'_>, notes: &mut Vec<String>) -> Result<(), CorpusError> {
        self.check(check_footer(self.file))?;
        let reader = SerializedFileReader::new(Chunks(Arc::clone(self.file))).map_err(|error| self.bad(error))?;
        let columns = self.columns(reader.metadata(), notes)?;
        let mut first_row = 0u64;
        for index in 0..reader.num_row_groups() {
            if sink.full {
                break;
            }
            for column in [Some(columns.text), columns.category].into_iter().flatten() {
                let (start, bytes) = reader.metadata().row_group(index).column(column).byte_range();
                let end = start.saturating_add(bytes);
                self.check(check_pages(self.file, start, end, self.limits.page_bytes))?;
            }
            let group = reader.get_row_group(index).map_err(|error| self.bad(error))?;
            first_row = self.group(group.as_ref(), &columns, first_row, sink)?;
        }
        Ok(())
    }

    /// Finds the columns by name. Those inside lists and structures do not count.
    fn columns(&self, metadata: &ParquetMetaData, notes: &mut Vec<String>) -> Result<Columns, CorpusError> {
        let schema = metadata.file_metadata().schema_descr();
        let find = |name: &str| schema.columns().iter().position(|column| column.path().string() == name);
        let is_text = |index: &usize| {
            let column = schema.columns().get(*index);
            column.is_some_and(|column| {
                column.physical_type() == Type::BYTE_ARRAY && column.max_rep_level() == 0 && column.max_def_level() <= 1
            })
        };
        let named = ["content", "text"].into_iter().find_map(|name| Some((name, find(name).filter(is_text)?)));
        let Some((text_name, text)) = named else {
            let found: Vec<String> = schema.columns().iter().take(40).map(|column| column.path().string()).collect();
            return Err(CorpusError::MissingColumn { path: self.file.path().to_path_buf(), found: found.join(", ") });
        };
        let category = find("category");
        if category.is_some_and(|index| !is_text(&index)) {
            notes.push(format!("{}: the column category holds no strings and is not used", self.file.path().display()));
        }
        Ok(Columns { text, text_name: text_name.to_owned(), category: category.filter(is_text) })
    }

    /// Reads one row group and returns the number of the row after it.
    fn group(&self, group: &dyn RowGroupReader, columns: &Columns, first_row: u64, sink: &mut Sink<'_>) -> Result<u64, CorpusError> {
        let mut texts = self.column(group, columns.text)?;
        let mut categories = columns.category.map(|index| self.column(group, index)).transpose()?;
        let mut row = first_row;
        loop {
            let batch = texts.batch().map_err(|error| self.bad(error))?;
            let labels = match &mut categories {
                Some(column) => column.batch().map_err(|error| self.bad(error))?,
                None => vec![None; batch.len()],
            };
            if batch.is_empty() || labels.len() != batch.len() {
                break;
            }
            for (value, label) in batch.into_iter().zip(labels) {
                let text = value.ok_or_else(|| self.row(row, &columns.text_name, "no value, expected a text"))?;
                let text = self.string(&text, row, &columns.text_name)?;
                let label = label.map(|label| self.string(&label, row, "category")).transpose()?;
                sink.push(text.into_bytes(), label)?;
                if sink.full {
                    return Ok(row);
                }
                row = row.saturating_add(1);
            }
        }
        let expected = u64::try_from(group.metadata().num_rows()).unwrap_or(0);
        let found = row.saturating_sub(first_row);
        if found != expected {
            return Err(self.bad(format!("{found} rows from row {first_row} on, expected {expected}")));
        }
        Ok(row)
    }

    fn column(&self, group: &dyn RowGroupReader, index: usize) -> Result<Column, CorpusError> {
        let optional = group.metadata().column(index).column_descr().max_def_level() > 0;
        match group.get_column_reader(index).map_err(|error| self.bad(error))? {
            ColumnReader::ByteArrayColumnReader(reader) => Ok(Column { reader, optional }),
            _ => Err(self.bad("a column changes its type")),
        }
    }

    fn string(&self, value: &ByteArray, row: u64, column: &str) -> Result<String, CorpusError> {
        String::from_utf8(value.data().to_vec()).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            self.row(row, column, &format!("byte {at} of the text is not UTF-8, expected a string"))
        })
    }

    fn row(&self, row: u64, column: &str, problem: &str) -> CorpusError {
        CorpusError::BadRow { path: self.file.path().to_path_buf(), row, column: column.to_owned(), problem: problem.to_owned() }
    }
}

struct Column {
    reader: ColumnReaderImpl<ByteArrayType>,
    optional: bool,
}

impl Column {
    /// The next rows, at most [`BATCH`]; `None` for a row without value.
    fn batch(&mut self) -> ParquetResult<Vec<Option<ByteArray>>> {
        let (mut definitions, mut values) = (Vec::new(), Vec::new());
        let (rows, _, _) = self.reader.read_records(BATCH, Some(&mut definitions), None, &mut values)?;
        let mut values = values.into_iter();
        if !self.optional {
            return Ok(values.map(Some).collect());
        }
        let mut out = Vec::with_capacity(rows.min(BATCH));
        for definition in definitions {
            out.push(if definition > 0 {
                Some(values.next().ok_or_else(|| ParquetError::General("fewer values than rows".into()))?)
            } else {
                None
            });
        }
        Ok(out)
    }
}
