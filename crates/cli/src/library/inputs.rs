//! What the weights of a model are multiplied with on a text.

use rwkv_forge_choose::{Cache, CalibrationOptions, Silent, calibration_tokens};
use rwkv_forge_convert::{Calibrated, OpenModel, Vocabulary};

use super::Error;

/// Statistics of the inputs of a model's weights, gathered on a text: what tells which errors matter. A
/// [`Conversion::plan`](super::Conversion::plan) is made with them, quantizers are guided by them
/// ([`Conversion::inputs`](super::Conversion::inputs)), and a recipe that was made with them demands them again.
///
/// ```
/// # fn main() -> Result<(), rwkv_forge::Error> {
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/checkpoints/tiny-rwkv7.pth");
/// use rwkv_forge::{Inputs, Vocabulary};
/// let model = rwkv_forge::open(path)?;
/// let inputs = Inputs::on(&model, &Vocabulary::Bytes, &"It is a truth universally acknowledged, ".repeat(20))?;
/// assert_eq!(inputs.statistics().record().tokens, 512);
/// # Ok(())
/// # }
/// ```
pub struct Inputs {
    tokens: Vec<u32>,
    statistics: Calibrated,
}

impl Inputs {
    /// Reads the first 64 windows of 512 tokens of a text, as the program does with `--calibrate`. Nothing is kept for later runs.
    ///
    /// # Errors
    /// When the vocabulary is not known or does not belong to the model, the text is shorter than a window, or the engine cannot compute
    /// the model.
    pub fn on(model: &OpenModel, vocabulary: &Vocabulary, text: &str) -> Result<Self, Error> {
        Self::with(model, vocabulary, text, &CalibrationOptions::default())
    }

    /// The same with other windows, other memory, or kept in a file.
    ///
    /// # Errors
    /// As [`Inputs::on`], and those of the file.
    pub fn with(model: &OpenModel, vocabulary: &Vocabulary, text: &str, options: &CalibrationOptions) -> Result<Self, Error> {
        let tokens = calibration_tokens(model, vocabulary, [text.as_bytes()]).map_err(Error::of)?;
        let statistics = options.gather(model, &tokens, &Cache::new(None, &Silent), &Silent)?;
        Ok(Self { tokens, statistics })
    }

    /// The statistics.
    #[must_use]
    pub fn statistics(&self) -> &Calibrated {
        &self.statistics
    }

    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }
}
