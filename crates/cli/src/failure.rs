//! Errors on their way to the user: a kind, a message, an exit code.

use rwkv_forge_tensor::{BoxError, Class};

/// An error and its exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Stable CamelCase name.
    pub kind: String,
    /// One or more sentences.
    pub message: String,
    /// Exit code of the program.
    pub code: u8,
}

impl Failure {
    /// A mistake on the command line.
    pub(crate) fn usage(kind: &str, message: String) -> Self {
        Self { kind: kind.to_owned(), message, code: exit_code(Class::Usage) }
    }

    /// A mistake of this program.
    pub(crate) fn bug(kind: &str, message: String) -> Self {
        Self { kind: kind.to_owned(), message, code: exit_code(Class::Bug) }
    }

    /// An input that cannot be used.
    pub(crate) fn refused(kind: &str, message: String) -> Self {
        Self { kind: kind.to_owned(), message, code: exit_code(Class::Refused) }
    }
}

/// The meaning of each class for scripts.
pub(crate) fn exit_code(class: Class) -> u8 {
    match class {
        Class::Threshold => 1,
        Class::Usage => 2,
        Class::Refused => 3,
        Class::Io => 4,
        Class::Bug => 5,
    }
}

impl From<BoxError> for Failure {
    fn from(error: BoxError) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let text = inner.to_string();
            // Transparent wrappers repeat the text of what they wrap.
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = inner.source();
        }
        Self { kind: error.kind().to_owned(), message, code: exit_code(error.class()) }
    }
}

/// Errors of the libraries become failures through their common trait. A blanket implementation is not possible next to the
/// one for boxes, so the types that this crate meets are listed.
macro_rules! failures {
    ($($error:ty),+ $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::from(BoxError::from(error))
            }
        }
    )+};
}

failures!(
    rwkv_forge_bench::BenchError,
    rwkv_forge_choose::ChooseError,
    rwkv_forge_calibrate::CalibrateError,
    rwkv_forge_checkpoint::CheckpointError,
    rwkv_forge_convert::ConvertError,
    rwkv_forge_convert::state::StateError,
    rwkv_forge_corpus::CorpusError,
    rwkv_forge_engine::EngineError,
    rwkv_forge_eval::EvalError,
    rwkv_forge_forms::FormsError,
    rwkv_forge_io::IoError,
    rwkv_forge_kernel::KernelError,
    rwkv_forge_matrix::SimdError,
    rwkv_forge_weights::WeightsError,
    rwkv_forge_weights::ReplaceError,
    rwkv_forge_report::ReportError,
    rwkv_forge_score::ScoreError,
    rwkv_forge_tokenizer::TokenizerError,
);
