//! A model in memory and the state of the text so far.

use rwkv_forge_convert::OpenModel;
use rwkv_forge_kernel::{KernelOptions, RecurrentModel};
use rwkv_forge_weights::State;

use super::Error;

/// A model that reads tokens one after the other, by the reference kernel in f32: `parameters * 4` bytes of memory, and the same bits on
/// every machine. The engine, which is much faster and holds weights as they are stored, is [`rwkv_forge_engine::Engine`].
///
/// ```
/// # fn main() -> Result<(), rwkv_forge::Error> {
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/checkpoints/tiny-rwkv7.pth");
/// let model = rwkv_forge::open(path)?;
/// let mut session = rwkv_forge::Session::new(&model)?;
/// let logits = session.feed(&[72, 101, 108])?;
/// assert_eq!(logits.len(), 3 * model.description().hyperparameters.vocabulary);
/// let kept = session.state().clone();
/// let next = session.feed(&[108])?;
/// session.set_state(kept)?;
/// assert_eq!(session.feed(&[108])?, next);
/// # Ok(())
/// # }
/// ```
pub struct Session {
    model: RecurrentModel<f32>,
    state: State<f32>,
}

impl Session {
    /// Reads all weights; the state is that before any text: the tuned one that lies among the weights, else zeros.
    ///
    /// # Errors
    /// When a tensor has an encoding without decoder or values that are NaN or infinite, or reading fails.
    pub fn new(model: &OpenModel) -> Result<Self, Error> {
        let loaded = RecurrentModel::load(&model.model, &KernelOptions::default())?;
        Ok(Self { model: loaded, state: model.model.start_state()? })
    }

    /// Feeds tokens and returns the logits after each of them, `[tokens, vocabulary]`.
    ///
    /// # Errors
    /// When a token is outside the vocabulary; nothing is changed then.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<Vec<f32>, Error> {
        Ok(self.model.forward(tokens, &mut self.state)?)
    }

    /// The state after the text so far.
    #[must_use]
    pub fn state(&self) -> &State<f32> {
        &self.state
    }

    /// Goes on from another state.
    ///
    /// # Errors
    /// When the state belongs to another model; nothing is changed then.
    pub fn set_state(&mut self, state: State<f32>) -> Result<(), Error> {
        state.check(self.model.description())?;
        self.state = state;
        Ok(())
    }
}
