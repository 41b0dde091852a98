//! Lines in the log of a GitHub workflow that become annotations of the run.

use std::fmt;

use crate::sink::{annotation_message, annotation_property};

/// Which command it is: how bad the thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnotationKind {
    /// Worth knowing.
    Notice,
    /// Not wrong yet.
    Warning,
    /// Wrong.
    Error,
}

/// A workflow command, written by `Display` as one line without a newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// How bad it is.
    pub kind: AnnotationKind,
    /// File that the annotation belongs to, relative to the repository.
    pub file: Option<String>,
    /// Line in that file, from 1; written only with a file.
    pub line: Option<u64>,
    /// Short heading; empty for none.
    pub title: String,
    /// What to say; may have several lines.
    pub message: String,
}

impl Annotation {
    /// An error about a file.
    #[must_use]
    pub fn error(file: impl Into<String>, title: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: AnnotationKind::Error, file: Some(file.into()), line: None, title: title.into(), message: message.into() }
    }
}

impl fmt::Display for Annotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            AnnotationKind::Notice => "::notice",
            AnnotationKind::Warning => "::warning",
            AnnotationKind::Error => "::error",
        })?;
        let line = self.file.as_ref().and(self.line).map(|line| line.to_string());
        let title = Some(&self.title).filter(|title| !title.is_empty());
        let properties = [("file", self.file.as_ref()), ("line", line.as_ref()), ("title", title)];
        let mut separator = ' ';
        for (name, value) in properties.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            write!(f, "{separator}{name}={}", annotation_property(value))?;
            separator = ',';
        }
        write!(f, "::{}", annotation_message(&self.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_end_the_command_or_a_property() {
        let annotation = Annotation::error("a,b:c.pth", "100 %::", "first\r\n::error::second: 5 %");
        assert_eq!(annotation.to_string(), "::error file=a%2Cb%3Ac.pth,title=100 %25%3A%3A::first%0D%0A::error::second: 5 %25");
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let bare = Annotation { kind: AnnotationKind::Notice, file: None, line: Some(3), title: String::new(), message: "m".to_owned() };
        assert_eq!(bare.to_string(), "::notice::m");
        let placed = Annotation { file: Some("f".to_owned()), kind: AnnotationKind::Warning, ..bare };
        assert_eq!(placed.to_string(), "::warning file=f,line=3::m");
    }
}
