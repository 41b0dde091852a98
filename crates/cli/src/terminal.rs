//! Results go to stdout, everything else to stderr. A closed pipe ends the program quietly.

use std::io::{ErrorKind, IsTerminal, Write};

use comfy_table::{CellAlignment, Table, presets};
use forge_report::sink;
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::Failure;

/// Version of the JSON documents; raised when a field changes its meaning or disappears.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// Where and how to print.
pub(crate) struct Terminal {
    json: bool,
    quiet: bool,
    verbose: bool,
}

impl Terminal {
    pub(crate) fn new(json: bool, quiet: bool, verbose: bool) -> Self {
        Self { json, quiet, verbose }
    }

    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// True when the user wants to know more.
    pub(crate) fn verbose(&self) -> bool {
        self.verbose
    }

    /// Bars are for people: never in a pipe, never with --quiet.
    pub(crate) fn shows_progress(&self) -> bool {
        !self.quiet && std::io::stderr().is_terminal()
    }

    /// Prints a result for people.
    pub(crate) fn print(&self, text: &str) {
        if !self.json {
            write_or_exit(&mut std::io::stdout(), &sink::terminal(text));
        }
    }

    /// Prints a result for programs; `body` becomes an object with `schema_version` and `command` in front.
    pub(crate) fn print_json(&self, command: &str, body: &impl Serialize) -> Result<(), Failure> {
        if !self.json {
            return Ok(());
        }
        let bug = |message: String| Failure { kind: "Json".to_owned(), message, code: 5 };
        let Value::Object(fields) = serde_json::to_value(body).map_err(|error| bug(error.to_string()))? else {
            return Err(bug("the result is no JSON object".to_owned()));
        };
        let mut document = serde_json::Map::new();
        document.insert("schema_version".to_owned(), json!(SCHEMA_VERSION));
        document.insert("command".to_owned(), json!(command));
        document.extend(fields);
        let text = serde_json::to_string_pretty(&document).map_err(|error| bug(error.to_string()))?;
        write_or_exit(&mut std::io::stdout(), &sink::json(&(text + "\n")));
        Ok(())
    }

    /// Something worth knowing that is no result.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            write_or_exit(&mut std::io::stderr(), &format!("note: {}\n", sink::message(text)));
        }
    }

    /// Something that only --verbose users want.
    pub(crate) fn detail(&self, text: &str) {
        if self.verbose {
            write_or_exit(&mut std::io::stderr(), &format!("{}\n", sink::message(text)));
        }
    }

    /// Reports an error and returns the exit code.
    pub(crate) fn fail(&self, failure: &Failure) -> u8 {
        write_or_exit(&mut std::io::stderr(), &format!("error[{}]: {}\n", failure.kind, sink::message(&failure.message)));
        if self.json {
            let document = json!({
                "schema_version": SCHEMA_VERSION,
                "error": { "kind": failure.kind, "message": failure.message, "exit_code": failure.code },
            });
            write_or_exit(&mut std::io::stdout(), &sink::json(&format!("{document:#}\n")));
        }
        failure.code
    }
}

/// A reader that goes away early (`| head`) is no error.
pub(crate) fn write_or_exit(to: &mut dyn Write, text: &str) {
    write_bytes_or_exit(to, text.as_bytes());
}

/// As [`write_or_exit`], for bytes that may be no text.
pub(crate) fn write_bytes_or_exit(to: &mut dyn Write, bytes: &[u8]) {
    if let Err(error) = to.write_all(bytes).and_then(|()| to.flush()) {
        forge_io::remove_temporaries();
        std::process::exit(if error.kind() == ErrorKind::BrokenPipe { 0 } else { 4 });
    }
}

/// A table in the house style; columns in `right` are aligned right.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>, right: &[usize]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| sink::word(cell)));
    }
    for index in right {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{table}\n")
}

/// 12,345,678 as people read it.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
