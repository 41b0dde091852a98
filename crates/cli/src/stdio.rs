//! `-` on the command line: stdin where a text is read, stdout in the place of `--output`. Start at [`Streams`].

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rwkv_forge_io::{Claims, IoError, Passage};

use crate::commands::shown;
use crate::failure::Failure;
use crate::terminal::Terminal;

/// What stands for stdin and stdout. A file of this name is `./-`.
pub(crate) const DASH: &str = "-";
/// What stdin is called where a text has a name.
pub(crate) const STDIN: &str = "stdin";

/// Arguments that are read as one text, and may be stdin.
const TEXTS: [&str; 9] = ["calibrate", "calibration", "chat", "pairs", "paths", "recipe", "text", "texts", "tokens"];
/// Arguments that are models, or are read like them.
const MODELS: [&str; 10] = ["baseline", "candidate", "file", "imatrix", "lora", "model", "models", "reference", "source", "state"];
/// Commands whose `--output` is one file; `copy`, `remove` and `set` are those of `meta`.
const ONE_FILE: [&str; 7] = ["convert", "copy", "logits", "plan", "remove", "set", "state"];

/// Whether a path is a stream.
pub(crate) fn is_dash(path: &Path) -> bool {
    path.as_os_str() == DASH
}

/// The streams that a command line names.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// Whether stdout gets the output, so that all that is said goes to stderr.
    pub delivers: bool,
    /// What stdin is to the user, such as `--text`.
    reads: Vec<String>,
    refusal: Option<Failure>,
}

impl Streams {
    /// An argument of `command` that is read is `-`.
    pub(crate) fn read(&mut self, id: &str, role: &str, claims: &Claims) {
        if !TEXTS.contains(&id) {
            let why =
                if MODELS.contains(&id) { ": a model is read in many places, and more than once, which no stream allows" } else { "" };
            self.refuse("NoStdin", format!("{role} -: only texts are read from stdin{why}; write it into a file and give its name"));
        } else if let Some(first) = self.reads.first() {
            self.refuse("StdinTwice", format!("{role} -: stdin is {first} already, and can be read once; write one of them into a file"));
        }
        // A file that is redirected into it is an input like any other.
        claims.input(STDIN, Path::new("/dev/stdin"));
        self.reads.push(format!("{role} -"));
    }

    /// An argument of `command` that is written is `-`.
    pub(crate) fn write(&mut self, command: &str, id: &str, role: &str) {
        if id != "output" {
            let message = format!("{role} -: stdout is for results and for --output; give {role} the name of a file");
            self.refuse("NoStdout", message);
        } else if ONE_FILE.contains(&command) {
            self.delivers = true;
        } else {
            self.refuse("NoStdout", format!("{role} -: {command} writes several files, and stdout takes one; give a name for them"));
        }
    }

    /// Nothing is delivered after all.
    pub(crate) fn only_planned(&mut self) {
        self.delivers = false;
    }

    fn refuse(&mut self, kind: &str, message: String) {
        self.refusal.get_or_insert_with(|| Failure::usage(kind, message));
    }

    /// Refuses streams that cannot be, before anything is read.
    pub(crate) fn check(&mut self, command: &str, terminal: &Terminal) -> Result<(), Failure> {
        if let Some(refusal) = self.refusal.take() {
            return Err(refusal);
        }
        if self.delivers && is_closed() {
            let message = "--output -: stdout is closed, so the file would be lost; send it on (> FILE, | PROGRAM), or name a file";
            return Err(Failure::usage("NoStdout", message.to_owned()));
        }
        if self.delivers && command != "plan" && std::io::stdout().is_terminal() {
            let message = "--output -: stdout is a terminal, and the file is no text; send it on (> FILE, | PROGRAM), or name a file";
            return Err(Failure::usage("BinaryToTerminal", message.to_owned()));
        }
        if let Some(role) = self.reads.first().filter(|_| std::io::stdin().is_terminal()) {
            terminal.note(&format!("{role} is what is typed here; Ctrl-D at the beginning of a line ends it"));
        }
        Ok(())
    }
}

/// Whether the program was started without a stdout. Rust opens `/dev/null` in the place of a stream that is closed, for reading and writing,
/// while who sends it there opens it for writing alone.
fn is_closed() -> bool {
    use rustix::fs::{OFlags, fcntl_getfl, fstat, stat};
    let stdout = std::io::stdout();
    let is_both = fcntl_getfl(&stdout).is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDWR);
    let null = || Ok::<_, rustix::io::Errno>(fstat(&stdout)?.st_rdev == stat("/dev/null")?.st_rdev);
    is_both && null().unwrap_or(false)
}

/// What stdin gives, up to `limit` bytes: read when it is first asked for, and kept.
pub(crate) fn stdin(limit: u64) -> Result<&'static [u8], Failure> {
    static CONTENT: OnceLock<Vec<u8>> = OnceLock::new();
    if let Some(content) = CONTENT.get() {
        return Ok(content);
    }
    let mut content = Vec::new();
    let read = std::io::stdin().lock().take(limit).read_to_end(&mut content);
    read.map_err(|source| IoError::Read { path: PathBuf::from(STDIN), offset: content.len() as u64, source })?;
    Ok(CONTENT.get_or_init(|| content))
}

/// As [`stdin`], for what is refused when it is longer than `limit`.
pub(crate) fn small_stdin(limit: u64) -> Result<&'static [u8], Failure> {
    let content = stdin(limit.saturating_add(1))?;
    let bytes = content.len() as u64;
    if bytes > limit { Err(IoError::TooLarge { path: PathBuf::from(STDIN), offset: 0, bytes, limit }.into()) } else { Ok(content) }
}

/// Where `--output` goes.
pub(crate) enum Destination {
    /// Under its name.
    File(PathBuf),
    /// Through a temporary file to stdout.
    Stdout(Passage),
}

impl Destination {
    /// The place for what the user calls `asked`, or without a name `default`, which a temporary file is called after too.
    pub(crate) fn new(asked: Option<&Path>, default: &Path) -> Result<Self, Failure> {
        match asked {
            Some(path) if is_dash(path) => {
                let name = default.file_name().unwrap_or(default.as_os_str()).to_string_lossy();
                Ok(Self::Stdout(Passage::create(&name)?))
            }
            Some(path) => Ok(Self::File(path.to_path_buf())),
            None => Ok(Self::File(default.to_path_buf())),
        }
    }

    /// Where the file is made.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Stdout(passage) => passage.path(),
        }
    }

    /// What the user knows it as.
    pub(crate) fn named(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Stdout(_) => Path::new(DASH),
        }
    }

    /// The same in a sentence.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::File(path) => shown(path),
            Self::Stdout(_) => "stdout".to_owned(),
        }
    }

    /// Sends the finished file on, if it is for stdout.
    pub(crate) fn deliver(&self, terminal: &Terminal) -> Result<(), Failure> {
        match self {
            Self::File(_) => Ok(()),
            Self::Stdout(passage) => terminal.hand_on(passage),
        }
    }
}
