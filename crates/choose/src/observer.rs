//! How work that takes minutes is heard of: libraries print nothing.

/// Hears what goes on while something is computed.
pub trait Observer {
    /// Something worth knowing that is no result.
    fn note(&self, text: &str);
    /// Something that makes a result doubtful, or costs time in the next run.
    fn warn(&self, text: &str);
    /// Something that only the curious want to know.
    fn detail(&self, text: &str);
    /// A part of the work begins; it ends when what is returned is dropped.
    fn begin(&self, work: Work) -> Box<dyn Steps + '_>;
}

/// How far a part of the work is.
pub trait Steps: Sync {
    /// So much of so much is done.
    fn set(&self, done: u64, total: u64);
}

/// A part of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Statistics of the inputs are gathered, in layers.
    Calibrating,
    /// Tensors are changed one at a time, in probes.
    Probing,
    /// Models are sent through texts, in tokens.
    Evaluating,
    /// A whole recipe is quantized and measured, in steps.
    Measuring,
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn note(&self, _: &str) {}

    fn warn(&self, _: &str) {}

    fn detail(&self, _: &str) {}

    fn begin(&self, _: Work) -> Box<dyn Steps + '_> {
        Box::new(Self)
    }
}

impl Steps for Silent {
    fn set(&self, _: u64, _: u64) {}
}
