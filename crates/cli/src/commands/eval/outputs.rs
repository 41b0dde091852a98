//! Files of results besides the terminal, begun before the work, so that a name that cannot be fails early.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use rwkv_forge_eval::{EvalError, LogitsRow};
use rwkv_forge_io::{IoError, OutputFile};
use rwkv_forge_report::{Page, Table};
use rwkv_forge_score::{Schedule, kl_base};

use super::super::logits::Appender;
use crate::args::{self, Global};
use crate::failure::Failure;
use crate::terminal::Terminal;

/// What the folder of plots is to the user.
const FIGURES: &str = "the plots of --markdown";

/// Bytes that logits are collected to before they are written.
const BUFFER: usize = 1 << 20;

/// The files.
pub(crate) struct Outputs<'a> {
    logits_file: Option<OutputFile>,
    /// The file of logits, once it is complete.
    logits: Option<PathBuf>,
    html: Option<OutputFile>,
    markdown: Option<OutputFile>,
    csv: Option<OutputFile>,
    /// Folder of the Markdown's plots.
    figures: PathBuf,
    force: bool,
    global: &'a Global,
}

impl<'a> Outputs<'a> {
    /// Begins the files that are asked for; none of them takes the place of anything else that is read or written.
    pub(crate) fn create(args: &args::Eval, global: &'a Global) -> Result<Self, Failure> {
        let outputs = &args.outputs;
        let create = |role: &str, path: &Option<PathBuf>| {
            path.as_ref().map(|path| OutputFile::create(path, &global.output(role, outputs.force))).transpose()
        };
        let figures = outputs.markdown.as_deref().map(figures_beside).unwrap_or_default();
        if outputs.markdown.is_some() {
            global.claims.output_directory(FIGURES, &figures)?;
            check_figures(&figures, outputs.force)?;
        }
        Ok(Self {
            logits_file: create("--save-logits", &outputs.save_logits)?,
            logits: None,
            html: create("--html", &outputs.html)?,
            markdown: create("--markdown", &outputs.markdown)?,
            csv: create("--csv", &outputs.csv)?,
            figures,
            force: outputs.force,
            global,
        })
    }

    /// Calls `task` with a receiver of logits if a file of them is wanted.
    pub(crate) fn logits<T>(
        &mut self,
        schedule: &Schedule,
        vocabulary: usize,
        task: impl FnOnce(Option<LogitsRow<'_>>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Some(file) = self.logits_file.take() else { return task(None) };
        let appender = BufWriter::with_capacity(BUFFER, Appender { file: &file, offset: 0 });
        let mut writer = kl_base::Writer::new(appender, schedule, vocabulary)?;
        let out = task(Some(&mut |row| writer.row(row).map_err(EvalError::from)))?;
        writer.finish()?.flush().map_err(EvalError::from)?;
        let path = file.path().to_path_buf();
        file.commit()?;
        self.logits = Some(path);
        Ok(out)
    }

    /// Writes the page in both forms and the table of all models, and makes them appear.
    pub(crate) fn write(
        self,
        page: impl FnOnce() -> Result<Page, Failure>,
        table: impl FnOnce() -> Result<Table, Failure>,
        terminal: &Terminal,
    ) -> Result<(), Failure> {
        if let Some(path) = &self.logits {
            terminal.wrote("--save-logits", path);
        }
        if self.html.is_some() || self.markdown.is_some() {
            let page = page()?;
            if let Some(file) = self.html {
                finish("--html", file, &page.to_html()?, terminal)?;
            }
            if let Some(file) = self.markdown {
                let figures = page.figures()?;
                let folder = self.figures.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if !figures.is_empty() {
                    make_folder(&self.figures)?;
                }
                for figure in &figures {
                    let options = self.global.output(FIGURES, self.force);
                    finish_unsaid(OutputFile::create(&self.figures.join(&figure.name), &options)?, &figure.text)?;
                }
                finish("--markdown", file, &page.to_markdown((!figures.is_empty()).then_some(folder.as_str()))?, terminal)?;
                if !figures.is_empty() {
                    terminal.wrote(FIGURES, &self.figures);
                }
            }
        }
        match self.csv {
            Some(file) => finish("--csv", file, &table()?.to_csv()?, terminal),
            None => Ok(()),
        }
    }
}

/// Refuses a folder in which plots would be replaced without `--force`. With it, plots of the page replace files of their own names
/// and nothing else: the folder may hold whatever its owner likes, and no name is removed from it.
fn check_figures(folder: &Path, force: bool) -> Result<(), Failure> {
    if folder.is_symlink() {
        return Err(IoError::OutputNotRegular { path: folder.to_path_buf(), found: "symbolic link" }.into());
    }
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    let is_figure = |name: &std::ffi::OsStr| name.to_str().is_some_and(rwkv_forge_report::is_figure);
    match entries.flatten().find(|entry| is_figure(&entry.file_name())).filter(|_| !force) {
        None => Ok(()),
        Some(entry) => Err(IoError::OutputExists { path: entry.path() }.into()),
    }
}

/// `NAME-figures` beside `NAME.md`.
fn figures_beside(markdown: &Path) -> PathBuf {
    let stem = markdown.file_stem().unwrap_or(markdown.as_os_str()).to_string_lossy();
    markdown.with_file_name(format!("{stem}-figures"))
}

fn make_folder(path: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(path).map_err(|error| Failure {
        kind: "WriteFailed".to_owned(),
        message: format!("{}: the folder of the plots cannot be made: {error}", path.display()),
        code: 4,
    })
}

fn finish(what: &str, file: OutputFile, text: &str, terminal: &Terminal) -> Result<(), Failure> {
    let path = file.path().to_path_buf();
    finish_unsaid(file, text)?;
    terminal.wrote(what, &path);
    Ok(())
}

fn finish_unsaid(file: OutputFile, text: &str) -> Result<(), Failure> {
    file.write_all_at(0, text.as_bytes())?;
    Ok(file.commit()?)
}
