//! Results go to stdout, everything else to stderr. What becomes of either never changes what was found: see [`Terminal::verdict`].

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rwkv_forge_io::Passage;
pub(crate) use rwkv_forge_report::thousands;
use rwkv_forge_report::{Cell, Column, Table, sink};
use serde::Serialize;
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

use crate::args::Global;
use crate::failure::{Failure, exit_code};
use crate::progress::Board;

/// Version of the JSON documents; raised when a field changes its meaning or disappears.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// Where and how to print.
pub(crate) struct Terminal {
    json: bool,
    quiet: bool,
    verbose: bool,
    /// Whether stdout is the output's, so that results go to stderr.
    delivers: bool,
    results: Mutex<Results>,
    board: Board,
    said: Mutex<Said>,
}

/// What a run has to tell besides its result.
#[derive(Debug, Default)]
struct Said {
    notes: Vec<String>,
    written: Vec<Written>,
}

/// A file, or a directory, that a run has written.
#[derive(Clone, Debug, Serialize)]
struct Written {
    /// What it is to the user, such as `--html`.
    what: String,
    path: String,
    /// Whether the result says so itself.
    #[serde(skip)]
    is_said: bool,
}

/// What has become of stdout.
#[derive(Debug)]
enum Results {
    /// All of the results so far are there.
    Whole,
    /// Whoever read them went away, which is their affair.
    Closed,
    /// Something of them is lost.
    Lost(io::Error),
}

impl Terminal {
    /// With `delivers`, stdout is the output's.
    pub(crate) fn new(global: &Global, delivers: bool) -> Self {
        let Global { json, quiet, verbose, .. } = *global;
        let (board, wrong) = Board::new(quiet);
        let terminal = Self { json, quiet, verbose, delivers, results: Mutex::new(Results::Whole), board, said: Mutex::default() };
        if let Some(wrong) = wrong {
            terminal.warn(&wrong);
        }
        terminal
    }

    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// True when the user wants to know more.
    pub(crate) fn verbose(&self) -> bool {
        self.verbose
    }

    /// Where work under way is shown.
    pub(crate) fn board(&self) -> &Board {
        &self.board
    }

    /// Writes to stderr, where progress may stand.
    fn say(&self, text: &str) {
        self.board.aside(|| say(text));
    }

    /// Prints a result for people.
    pub(crate) fn print(&self, text: &str) {
        if !self.json {
            self.print_bytes(sink::terminal(text).as_bytes());
        }
    }

    /// Prints bytes that may be no text, whatever the form of results is. False when nobody reads them any more, so that further
    /// ones are not worth computing. An error is kept until [`Terminal::verdict`].
    pub(crate) fn print_bytes(&self, bytes: &[u8]) -> bool {
        if self.delivers {
            // As everything else that goes there.
            let _unheard = write_all(&mut io::stderr(), bytes);
            return true;
        }
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*results, Results::Whole) {
            return false;
        }
        // Both streams may be on one screen.
        *results = match self.board.aside(|| write_all(&mut io::stdout(), bytes)) {
            Ok(()) => return true,
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Results::Closed,
            Err(error) => Results::Lost(error),
        };
        false
    }

    /// Sends a finished file to stdout. It is the result, so that a reader who leaves is an error here.
    pub(crate) fn hand_on(&self, passage: &Passage) -> Result<(), Failure> {
        passage.hand_on(&mut |bytes| write_all(&mut io::stdout(), bytes))?;
        Ok(())
    }

    /// A file, or a directory, of this role (`--html`) is complete.
    pub(crate) fn wrote(&self, what: &str, path: &Path) {
        self.add_written(what, path, false);
    }

    /// The same, where the result for people says so itself.
    pub(crate) fn wrote_result(&self, path: &Path) {
        self.add_written("--output", path, true);
    }

    fn add_written(&self, what: &str, path: &Path, is_said: bool) {
        let written = Written { what: what.to_owned(), path: path.display().to_string(), is_said };
        let mut said = self.said();
        if !said.written.iter().any(|known| known.what == written.what && known.path == written.path) {
            said.written.push(written);
        }
    }

    /// Says what was written and no result has told.
    pub(crate) fn say_written(&self) {
        let written = self.said().written.clone();
        for Written { what, path, .. } in written.iter().filter(|written| !written.is_said) {
            self.print(&format!("wrote {} ({what})\n", sink::word(path)));
        }
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints a result for programs; `body` becomes an object with `schema_version` and `command` in front, and behind it all notes and
    /// what was written.
    pub(crate) fn print_json(&self, command: &str, body: &impl Serialize) -> Result<(), Failure> {
        if !self.json {
            return Ok(());
        }
        let bug = |message: String| Failure::bug("Json", message);
        let Value::Object(fields) = serde_json::to_value(body).map_err(|error| bug(error.to_string()))? else {
            return Err(bug("the result is no JSON object".to_owned()));
        };
        let mut document = serde_json::Map::new();
        document.insert("schema_version".to_owned(), json!(SCHEMA_VERSION));
        document.insert("command".to_owned(), json!(command));
        document.extend(fields);
        {
            let said = self.said();
            if !document.contains_key("notes") {
                document.insert("notes".to_owned(), json!(said.notes));
            }
            document.insert("written".to_owned(), json!(said.written));
        }
        let text = serde_json::to_string_pretty(&document).map_err(|error| bug(error.to_string()))?;
        self.print_bytes(sink::json(&(text + "\n")).as_bytes());
        Ok(())
    }

    /// Something worth knowing that is no result.
    pub(crate) fn note(&self, text: &str) {
        self.said().notes.push(text.to_owned());
        if !self.quiet {
            self.say(&format!("note: {}\n", sink::message(text)));
        }
    }

    /// What was done or seen and asks nothing of anybody: for --verbose users, and in documents.
    pub(crate) fn aside(&self, text: &str) {
        self.said().notes.push(text.to_owned());
        if self.verbose {
            self.say(&format!("note: {}\n", sink::message(text)));
        }
    }

    /// Something that makes a result doubtful: shown even with --quiet.
    pub(crate) fn warn(&self, text: &str) {
        self.said().notes.push(text.to_owned());
        self.say(&format!("warning: {}\n", sink::message(text)));
    }

    /// Something that only --verbose users want.
    pub(crate) fn detail(&self, text: &str) {
        if self.verbose {
            self.say(&format!("{}\n", sink::message(text)));
        }
    }

    /// Lines for the program that runs this one, such as annotations: they may stand on either stream, and go to the one that carries
    /// no document.
    pub(crate) fn print_beside(&self, lines: &str) {
        if self.json {
            self.say(&sink::terminal(lines));
        } else {
            self.print_bytes(sink::terminal(lines).as_bytes());
        }
    }

    /// Reports an error and returns the exit code.
    pub(crate) fn fail(&self, failure: &Failure) -> u8 {
        let message = crate::steps::complete(failure);
        self.say(&format!("error[{}]: {}\n", failure.kind, sink::message(&message)));
        if self.json {
            let document = json!({
                "schema_version": SCHEMA_VERSION,
                "error": { "kind": failure.kind, "message": message, "exit_code": failure.code },
            });
            self.print_bytes(sink::json(&format!("{document:#}\n")).as_bytes());
        }
        failure.code
    }

    /// The exit code of a run that has found `code`. Whatever became of the output, a code other than 0 stands. In the place of 0 comes
    /// the code of a failed write if something of the results was lost, unless that is because the reader went away.
    pub(crate) fn verdict(&self, code: u8) -> u8 {
        let results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        let Results::Lost(error) = &*results else { return code };
        say(&lost(error));
        if code == 0 { exit_code(rwkv_forge_tensor::Class::Io) } else { code }
    }
}

/// Prints what the parser has to say and returns the exit code: help and versions are results, mistakes are not.
pub(crate) fn parsed(answer: &clap::Error) -> u8 {
    // With words that a terminal would obey, it is printed without colour.
    let printed = match crate::screen::harmless(answer) {
        Some(text) if answer.use_stderr() => write_all(&mut io::stderr(), text.as_bytes()),
        _ => answer.print().and_then(|()| io::stdout().flush()),
    };
    let code = u8::try_from(answer.exit_code()).unwrap_or(exit_code(rwkv_forge_tensor::Class::Usage));
    if answer.use_stderr() && wants_document() {
        // As of every other mistake. What becomes of it changes no code.
        let message = answer.render().to_string();
        let message = message.trim().strip_prefix("error: ").unwrap_or(message.trim()).to_owned();
        let document = json!({
            "schema_version": SCHEMA_VERSION,
            "error": { "kind": "Usage", "message": message, "exit_code": code },
        });
        let text = sink::json(&format!("{document:#}\n")).into_owned();
        let to: &mut dyn Write = if wants_delivery() { &mut io::stderr() } else { &mut io::stdout() };
        let _unheard = write_all(to, text.as_bytes());
    }
    match printed {
        Err(error) if !answer.use_stderr() && error.kind() != ErrorKind::BrokenPipe => {
            say(&lost(&error));
            exit_code(rwkv_forge_tensor::Class::Io)
        }
        _ => code,
    }
}

/// Whether the command line asks for documents, as far as that can be said of one that is wrong.
fn wants_document() -> bool {
    std::env::args_os().skip(1).take_while(|word| word != "--").any(|word| word == "--json")
}

/// The same for an output on stdout, which then has no document in its place.
fn wants_delivery() -> bool {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let is_option = |word: &std::ffi::OsStr| word == "-o" || word == "--output";
    words.windows(2).any(|pair| matches!(pair, [option, dash] if is_option(option) && dash == "-"))
        || words.iter().any(|word| word == "--output=-" || word == "-o-" || word == "-o=-")
}

fn lost(error: &io::Error) -> String {
    format!("error[ResultsLost]: stdout: {error}; what was to be printed is not all there (files are written): send it to another place\n")
}

/// Writes to stderr. Nobody can be told that it is closed or full, and no result is lost with it. Progress is in its way: see [`Terminal`].
pub(crate) fn say(text: &str) {
    let _unheard = write_all(&mut io::stderr(), text.as_bytes());
}

/// Writes and flushes. A descriptor that another program has made non-blocking is waited for.
fn write_all(to: &mut dyn Write, mut bytes: &[u8]) -> io::Result<()> {
    loop {
        let done = if bytes.is_empty() { to.flush().map(|()| 0) } else { to.write(bytes) };
        match done {
            Ok(_) if bytes.is_empty() => return Ok(()),
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => return Err(error),
        }
    }
}

/// A table that is Markdown too, with the empty line after it that ends it there; columns in `right` are aligned right.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>, right: &[usize]) -> Result<String, Failure> {
    let align = |(index, name): (usize, &&str)| if right.contains(&index) { Column::right(*name) } else { Column::left(*name) };
    let mut table = Table::new("", header.iter().enumerate().map(align));
    rows.into_iter().for_each(|row| table.push(row.into_iter().map(Cell::from)));
    Ok(format!("{}\n", table.to_markdown()?))
}

/// As [`table`], no wider than the terminal: what is too long in the columns `cut`, the first of them first, ends in a mark with the number of
/// characters that are left out. Where stdout is no terminal, COLUMNS says the width, and without it only what is very long is cut.
pub(crate) fn fitting(header: &[&str], mut rows: Vec<Vec<String>>, right: &[usize], cut: &[usize]) -> Result<String, Failure> {
    let widest = |rows: &[Vec<String>], column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| shown_width(cell)).max().unwrap_or(0)
    };
    let mut widths: Vec<usize> = header.iter().enumerate().map(|(column, name)| widest(&rows, column).max(name.width()).max(3)).collect();
    for column in cut {
        // A cell has a bar before it and a space at either side, and the last bar ends the line.
        let all = widths.iter().sum::<usize>() + 3 * header.len() + 1;
        let over = columns().map_or(0, |columns| all.saturating_sub(columns));
        let room = widths[*column].saturating_sub(over).max(NARROWEST).min(widths[*column]).min(LONGEST);
        widths[*column] = room;
        // Names of tensors differ at their ends.
        let shorten = if header.get(*column) == Some(&"tensor") { shortened_within } else { shortened };
        rows.iter_mut().filter_map(|row| row.get_mut(*column)).for_each(|cell| *cell = shorten(cell, room));
    }
    table(header, rows, right)
}

/// Text whose lines are no wider than the terminal: a word that is longer than a line is cut within, with a mark; tables are left as they are. Where stdout is no terminal and
/// COLUMNS says nothing, lines are whole.
pub(crate) fn folded(text: &str) -> String {
    columns().map_or_else(|| text.to_owned(), |columns| folded_to(text, columns))
}

fn folded_to(text: &str, columns: usize) -> String {
    let fold = |line: &str| {
        if line.starts_with('|') || line.width() <= columns {
            return line.to_owned();
        }
        let (mut out, mut place) = (String::new(), 0);
        // What goes on stands further to the right than where it began.
        let indent = line.len() - line.trim_start_matches(' ').len();
        for word in line.trim_start_matches(' ').split(' ') {
            let word = shortened_within(word, columns.saturating_sub(indent + 2));
            let (space, fits) = if place == 0 { (indent, true) } else { (1, place + 1 + word.width() <= columns) };
            if fits {
                out.push_str(&" ".repeat(space));
                place += space + word.width();
            } else {
                out.push('\n');
                out.push_str(&" ".repeat(indent + 2));
                place = indent + 2 + word.width();
            }
            out.push_str(&word);
        }
        out
    };
    text.split('\n').map(fold).collect::<Vec<_>>().join("\n")
}

/// Places of the longest cell that is shown whole, wherever it goes.
const LONGEST: usize = 160;
/// Places that a cut column keeps on the narrowest terminal.
const NARROWEST: usize = 12;
/// Widths that tables are fitted to; on wider terminals lines are read no better.
const WIDTHS: std::ops::RangeInclusive<usize> = 60..=200;

/// Places of a line, where the user says or the terminal does.
fn columns() -> Option<usize> {
    let said = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let asked = || io::stdout().is_terminal().then(console_width).flatten();
    said.or_else(asked).map(|columns: usize| columns.clamp(*WIDTHS.start(), *WIDTHS.end()))
}

fn console_width() -> Option<usize> {
    rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Places of a cell as the table shows it.
fn shown_width(cell: &str) -> usize {
    sink::markdown_cell(cell).width()
}

/// The beginning of what does not fit, with a mark that says how much is left out.
fn shortened(cell: &str, room: usize) -> String {
    if shown_width(cell) <= room {
        return cell.to_owned();
    }
    let all = cell.chars().count();
    let (mut text, mut kept) = (String::new(), 0);
    let mark = |kept: usize| format!("… +{}", all - kept);
    let most = room.saturating_sub(mark(0).width());
    for c in cell.chars() {
        let mut longer = text.clone();
        longer.push(c);
        if shown_width(&longer) > most {
            break;
        }
        (text, kept) = (longer, kept + 1);
    }
    text + &mark(kept)
}

/// As [`shortened`], with the end kept as well as the beginning: `model.layers…+9…key.weight`.
fn shortened_within(cell: &str, room: usize) -> String {
    let all: Vec<char> = cell.chars().collect();
    if shown_width(cell) <= room {
        return cell.to_owned();
    }
    // Two thirds of what is kept are the end.
    let text = |kept: usize| {
        let (begin, end) = (kept / 3, kept - kept / 3);
        let of = |part: &[char]| part.iter().collect::<String>();
        format!("{}…+{}…{}", of(&all[..begin]), all.len() - kept, of(&all[all.len() - end..]))
    };
    (0..all.len()).rev().map(text).find(|text| shown_width(text) <= room).unwrap_or_else(|| text(0))
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind, Write};
    use std::sync::Mutex;

    use unicode_width::UnicodeWidthStr;

    use super::{Results, Terminal, folded_to, shortened, shown_width, write_all};

    #[test]
    fn what_is_too_long_ends_in_a_mark_that_says_how_much_is_missing() {
        assert_eq!(shortened("short", 16), "short");
        let cut = shortened(&"a|b ".repeat(1000), 16);
        assert!(shown_width(&cut) <= 16 && cut.contains("… +3"), "{cut}");
        let wide = shortened(&"日本語".repeat(40), 20);
        assert!(shown_width(&wide) <= 20 && wide.starts_with('日'), "{wide}");
    }

    #[test]
    fn a_line_is_folded_between_words() {
        assert_eq!(folded_to("a short line", 60), "a short line");
        let line = "RWKV-7: 3 layers, 128 channels, 2 heads of 64, ffn 512, vocabulary 320, 794,112 parameters";
        let folded = folded_to(line, 60);
        assert!(folded.lines().all(|part| part.width() <= 60) && folded.lines().count() == 2, "{folded}");
        assert_eq!(folded.replace("\n ", ""), line, "no word is lost");
        let long = folded_to(&format!("{}.gguf: GGUF v3", "m".repeat(90)), 60);
        assert!(
            long.lines().all(|part| part.width() <= 60) && long.contains("…+") && long.replace("\n ", "").contains(".gguf: GGUF v3"),
            "{long}"
        );
    }

    /// Takes a few bytes at a time, and is not ready or interrupted in between.
    struct Awkward {
        taken: Vec<u8>,
        calls: usize,
        fails: Option<ErrorKind>,
    }

    impl Write for Awkward {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.calls += 1;
            match (self.calls % 3, self.fails) {
                (0, _) => Err(ErrorKind::WouldBlock.into()),
                (1, _) => Err(ErrorKind::Interrupted.into()),
                (_, Some(kind)) => Err(kind.into()),
                _ => {
                    let count = bytes.len().min(3);
                    self.taken.extend_from_slice(&bytes[..count]);
                    Ok(count)
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stream_that_is_not_ready_loses_nothing() {
        let mut stream = Awkward { taken: Vec::new(), calls: 0, fails: None };
        write_all(&mut stream, b"all of this").unwrap();
        assert_eq!(stream.taken, b"all of this");
        let mut stream = Awkward { taken: Vec::new(), calls: 0, fails: Some(ErrorKind::StorageFull) };
        assert_eq!(write_all(&mut stream, b"x").unwrap_err().kind(), ErrorKind::StorageFull);
    }

    #[test]
    fn lost_results_change_a_zero_and_nothing_else() {
        let with = |results: Results| {
            let said = Mutex::default();
            let terminal = Terminal {
                json: false,
                quiet: true,
                verbose: false,
                delivers: false,
                results: Mutex::new(Results::Whole),
                board: super::Board::new(true).0,
                said,
            };
            *terminal.results.lock().unwrap() = results;
            [0, 1, 3, 5].map(|code| terminal.verdict(code))
        };
        assert_eq!(with(Results::Whole), [0, 1, 3, 5]);
        assert_eq!(with(Results::Closed), [0, 1, 3, 5]);
        assert_eq!(with(Results::Lost(ErrorKind::StorageFull.into())), [4, 1, 3, 5]);
    }
}
