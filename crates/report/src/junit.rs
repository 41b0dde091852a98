//! Results as JUnit XML, which most systems for continuous integration show.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::error::ReportError;
use crate::sink::junit;

/// What became of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Passed,
    /// Measured, and not as it should be.
    Failed {
        /// Stable name of what is wrong.
        kind: String,
        /// One line.
        message: String,
        /// Everything else, any number of lines.
        details: String,
    },
    /// Could not be measured.
    Broken {
        /// Stable name of the error.
        kind: String,
        /// One line.
        message: String,
    },
    /// Left out, and why.
    Skipped(String),
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What is checked; unique within its group.
    pub name: String,
    /// The group, shown as the class.
    pub group: String,
    /// How long it took, when that is known and wanted in the document.
    pub time: Option<Duration>,
    /// What became of it.
    pub outcome: Outcome,
}

/// The checks of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suite {
    /// Name of the run.
    pub name: String,
    /// The checks, in the order to be shown.
    pub cases: Vec<Case>,
}

impl Suite {
    /// The document: one suite, without time stamps and host names.
    ///
    /// # Errors
    /// When the library that writes the XML fails.
    pub fn to_xml(&self) -> Result<String, ReportError> {
        let mut report = Report::new(&*junit(&self.name));
        let mut suite = TestSuite::new(&*junit(&self.name));
        suite.add_test_cases(self.cases.iter().map(test_case));
        report.add_test_suite(suite);
        report.to_string().map_err(|error| ReportError::Format { format: "JUnit XML", message: error.to_string() })
    }
}

fn test_case(case: &Case) -> TestCase {
    let status = match &case.outcome {
        Outcome::Passed => TestCaseStatus::success(),
        Outcome::Failed { kind, message, details } => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_type(&*junit(kind)).set_message(&*junit(message)).set_description(&*junit(details));
            status
        }
        Outcome::Broken { kind, message } => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            status.set_type(&*junit(kind)).set_message(&*junit(message));
            status
        }
        Outcome::Skipped(why) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(&*junit(why));
            status
        }
    };
    let mut out = TestCase::new(&*junit(&case.name), status);
    out.set_classname(&*junit(&case.group));
    if let Some(time) = case.time {
        out.set_time(time);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_is_counted_and_escaped() {
        let case = |name: &str, outcome| Case { name: name.to_owned(), group: "g <1>".to_owned(), time: None, outcome };
        let failed = Outcome::Failed { kind: "Bound".to_owned(), message: "1 < 2 & \"3\"".to_owned(), details: "a]]>b\u{1}".to_owned() };
        let broken = Outcome::Broken { kind: "NonFinite".to_owned(), message: "NaN".to_owned() };
        let cases =
            vec![case("a", Outcome::Passed), case("b", failed), case("c", broken), case("d", Outcome::Skipped("not asked for".to_owned()))];
        let xml = Suite { name: "forms".to_owned(), cases }.to_xml().unwrap();
        assert!(xml.contains(r#"tests="4" skipped="1" failures="1" errors="1""#), "{xml}");
        assert!(xml.contains(r#"message="1 &lt; 2 &amp; &quot;3&quot;""#), "{xml}");
        assert!(xml.contains("g &lt;1&gt;") && !xml.contains("a]]>b") && !xml.contains('\u{1}'), "{xml}");
        assert!(!xml.contains("timestamp") && !xml.contains("uuid"), "{xml}");
    }

    #[test]
    fn times_are_written_when_given() {
        let case = Case { name: "a".to_owned(), group: "g".to_owned(), time: Some(Duration::from_millis(1500)), outcome: Outcome::Passed };
        let xml = Suite { name: "s".to_owned(), cases: vec![case] }.to_xml().unwrap();
        assert!(xml.contains(r#"<testcase name="a" classname="g" time="1.500"/>"#), "{xml}");
    }
}
