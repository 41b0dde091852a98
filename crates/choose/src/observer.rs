//! How work that takes minutes is heard of: libraries print nothing.

/// Hears what goes on while something is computed.
pub trait Observer {
    /// Something worth knowing that is no result.
    fn note(&self, text: &str);
    /// Something that makes a result doubtful, or costs time in the next run.
    fn warn(&self, text: &str);
    /// Something that only the curious want to know.
    fn detail(&self, text: &str);
    /// A part of the work begins; it ends when what is returned is dropped. What begins before it ends is a part of it.
    fn begin(&self, work: Work) -> Box<dyn Steps + '_>;
}

/// How far a part of the work is.
pub trait Steps: Sync {
    /// So much of so much is done, in the unit of the work.
    fn set(&self, done: u64, total: u64);
    /// What is at hand from here on: a level, a tensor, a layer.
    fn at(&self, what: &str);
    /// Seconds that the rest takes, where the work knows that better than its pace so far tells; infinite where nothing is known yet and
    /// the pace says nothing of it.
    fn left(&self, seconds: f64);
    /// Says that this is the whole of what takes time, and not one step of several: when it ends is when the run ends.
    fn whole(&self) {}
}

/// A part of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Files are read, for their digests and for values that are none.
    Checking,
    /// Statistics of the inputs are gathered.
    Calibrating,
    /// Tensors are rounded to each of the types that they may have.
    Rounding,
    /// Tensors are changed one at a time, and what that does to predictions is measured.
    Probing,
    /// Tensors become what a file would hold.
    Quantizing,
    /// Models are sent through texts.
    Evaluating,
    /// Models are decoded with, for their speed.
    Timing,
}

impl Work {
    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Checking => "checking",
            Self::Calibrating => "calibrating",
            Self::Rounding => "rounding",
            Self::Probing => "probing",
            Self::Quantizing => "quantizing",
            Self::Evaluating => "evaluating",
            Self::Timing => "timing",
        }
    }

    /// What its amounts count.
    #[must_use]
    pub fn unit(self) -> Unit {
        match self {
            Self::Checking => Unit::Bytes,
            Self::Rounding | Self::Probing => Unit::Tensors,
            Self::Quantizing => Unit::Weights,
            Self::Calibrating | Self::Evaluating => Unit::Tokens,
            Self::Timing => Unit::Steps,
        }
    }
}

/// What an amount of work counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes of files.
    Bytes,
    /// Layers of a model.
    Layers,
    /// Tensors, whatever their sizes.
    Tensors,
    /// Elements of tensors.
    Weights,
    /// Tokens sent through a model.
    Tokens,
    /// Parts of about the same length.
    Steps,
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

    fn at(&self, _: &str) {}

    fn left(&self, _: f64) {}
}
