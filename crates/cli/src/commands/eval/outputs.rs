//! Files of results besides the terminal, begun before the work, so that a name that cannot be fails early.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use forge_eval::{EvalError, LogitsRow};
use forge_io::{OutputFile, OutputOptions};
use forge_report::{Page, Table};
use forge_score::{Plan, kl_base};

use super::super::logits::Appender;
use super::subject::Subject;
use crate::args;
use crate::failure::Failure;

/// Bytes that logits are collected to before they are written.
const BUFFER: usize = 1 << 20;

/// The files.
pub(crate) struct Outputs {
    logits: Option<OutputFile>,
    html: Option<OutputFile>,
    markdown: Option<OutputFile>,
    csv: Option<OutputFile>,
    /// Folder of the Markdown's plots.
    figures: PathBuf,
    force: bool,
}

impl Outputs {
    /// Begins the files that are asked for; none of them takes the place of a model.
    pub(crate) fn create(args: &args::Eval, models: &[&Subject]) -> Result<Self, Failure> {
        let mut inputs = Vec::new();
        for model in models {
            inputs.extend(model.open.input_identities()?);
        }
        let options = OutputOptions { force: args.outputs.force, inputs: &inputs, expected_bytes: 0 };
        let create = |path: &Option<PathBuf>| path.as_ref().map(|path| OutputFile::create(path, &options)).transpose();
        let outputs = &args.outputs;
        let figures = outputs.markdown.as_deref().map(figures_beside).unwrap_or_default();
        Ok(Self {
            logits: create(&outputs.save_logits)?,
            html: create(&outputs.html)?,
            markdown: create(&outputs.markdown)?,
            csv: create(&outputs.csv)?,
            figures,
            force: outputs.force,
        })
    }

    /// Calls `task` with a receiver of logits if a file of them is wanted.
    pub(crate) fn logits<T>(
        &mut self,
        plan: &Plan,
        vocabulary: usize,
        task: impl FnOnce(Option<LogitsRow<'_>>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Some(file) = self.logits.take() else { return task(None) };
        let appender = BufWriter::with_capacity(BUFFER, Appender { file: &file, offset: 0 });
        let mut writer = kl_base::Writer::new(appender, plan, vocabulary)?;
        let out = task(Some(&mut |row| writer.row(row).map_err(EvalError::from)))?;
        writer.finish()?.flush().map_err(EvalError::from)?;
        file.commit()?;
        Ok(out)
    }

    /// Writes the page in both forms and the table of all models, and makes them appear.
    pub(crate) fn write(
        self,
        page: impl FnOnce() -> Result<Page, Failure>,
        table: impl FnOnce() -> Result<Table, Failure>,
    ) -> Result<(), Failure> {
        if self.html.is_some() || self.markdown.is_some() {
            let page = page()?;
            if let Some(file) = self.html {
                finish(file, &page.to_html()?)?;
            }
            if let Some(file) = self.markdown {
                let figures = page.figures()?;
                let folder = self.figures.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if !figures.is_empty() {
                    make_folder(&self.figures)?;
                }
                for figure in &figures {
                    let options = OutputOptions { force: self.force, inputs: &[], expected_bytes: 0 };
                    finish(OutputFile::create(&self.figures.join(&figure.name), &options)?, &figure.text)?;
                }
                finish(file, &page.to_markdown((!figures.is_empty()).then_some(folder.as_str()))?)?;
            }
        }
        match self.csv {
            Some(file) => finish(file, &table()?.to_csv()?),
            None => Ok(()),
        }
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

fn finish(file: OutputFile, text: &str) -> Result<(), Failure> {
    file.write_all_at(0, text.as_bytes())?;
    Ok(file.commit()?)
}
