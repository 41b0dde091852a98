//! The two ends of a model: embedding with ln0, and ln_out with the head.

use rwkv_forge_matrix::{Isa, PANEL};

use crate::error::EngineError;
use crate::linear::{Group, Stage, gather, multiply};
use crate::load::{Loader, Norm};
use crate::machine::Machine;
use crate::norm::LayerNorm;
use crate::rows::Rows;
use crate::tap::Tap;

/// Positions whose logits are computed at once: a tile of the products.
pub(crate) const POSITIONS: usize = 24;

/// The embedding and ln0. Rows are read from the file when their token comes.
pub(crate) struct Embedding {
    norm: Norm,
    rows: Rows,
    /// The stored row, and its values.
    bytes: Vec<u8>,
    values: Vec<f32>,
}

impl Embedding {
    pub(crate) fn load(loader: &mut Loader<'_>) -> Result<Self, EngineError> {
        let sizes = loader.description.hyperparameters;
        let norm = loader.norm("blocks.0.ln0", sizes.channels)?;
        let rows = Rows::load(loader, "emb.weight", sizes.vocabulary, sizes.channels)?;
        Ok(Self { norm, bytes: vec![0; rows.row_bytes()], rows, values: vec![0.0; sizes.channels] })
    }

    /// The embedding of a token after ln0, `out [channels]`. The token has been checked; values that are NaN or infinite are refused.
    pub(crate) fn row(&mut self, isa: Isa, token: u32, out: &mut [f32]) -> Result<(), EngineError> {
        let values = &mut self.values;
        self.rows.read(token as usize, &mut self.bytes, values)?;
        isa.run(LayerNorm { x: values, weight: &self.norm.weight, bias: &self.norm.bias, out });
        Ok(())
    }

    pub(crate) fn bytes(&self) -> usize {
        self.rows.bytes() + (self.values.len() + self.norm.weight.len() * 2) * size_of::<f32>() + self.bytes.len()
    }
}

/// ln_out and the head.
pub(crate) struct Head {
    norm: Norm,
    group: Group,
    stage: Stage,
    vocabulary: usize,
    /// Logits of one position, gathered for the receiver.
    row: Vec<f32>,
}

impl Head {
    pub(crate) fn load(loader: &mut Loader<'_>) -> Result<Self, EngineError> {
        let sizes = loader.description.hyperparameters;
        let weight = loader.weight("head.weight", sizes.vocabulary, sizes.channels)?;
        Self::new(loader, weight)
    }

    /// Rows `first .. first + rows` of the head alone.
    pub(crate) fn load_rows(loader: &mut Loader<'_>, first: usize, rows: usize) -> Result<Self, EngineError> {
        let spec = loader.spec("head.weight")?;
        if first.checked_add(rows).is_none_or(|end| end > loader.description.hyperparameters.vocabulary) {
            return Err(loader.mismatch(spec, format!("at least {} rows", first.saturating_add(rows))));
        }
        let weight = loader.some_rows(spec, first, rows)?;
        Self::new(loader, weight)
    }

    fn new(loader: &Loader<'_>, weight: crate::linear::Weight) -> Result<Self, EngineError> {
        let norm = loader.norm("ln_out", loader.description.hyperparameters.channels)?;
        let vocabulary = weight.matrix.rows();
        let mut head =
            Self { norm, group: Group::new(vec![(weight, 0)], loader.threads), stage: Stage::default(), vocabulary, row: Vec::new() };
        head.stage.reserve(&head.group, 1);
        Ok(head)
    }

    /// Logits of one token, `x [channels]` being the residual stream after the last layer.
    pub(crate) fn one(&mut self, machine: &mut Machine, x: &[f32], logits: &mut [f32]) {
        self.fill(machine, x, &[0]);
        if self.vocabulary.is_multiple_of(PANEL) {
            multiply(machine, &self.group, &self.stage.inputs, 1, logits, |_, _| ());
            return;
        }
        self.stage.multiply(machine, &self.group, 1, |_, _| ());
        logits.copy_from_slice(&self.stage.out[..self.vocabulary]);
    }

    /// Logits of the tokens `wanted` of `x [tokens, channels]`: `sink(index, logits)` is called in the order of `wanted`.
    pub(crate) fn some(&mut self, machine: &mut Machine, x: &[f32], wanted: &[usize], mut sink: impl FnMut(usize, &[f32])) {
        for (chunk, wanted) in wanted.chunks(POSITIONS).enumerate() {
            let tokens = wanted.len();
            self.stage.reserve(&self.group, tokens);
            self.fill(machine, x, wanted);
            self.stage.multiply(machine, &self.group, tokens, |_, _| ());
            if tokens == 1 {
                sink(chunk * POSITIONS, &self.stage.out[..self.vocabulary]);
                continue;
            }
            self.row.resize(self.vocabulary, 0.0);
            for index in 0..tokens {
                gather(&self.stage.out, tokens, 0, index, &mut self.row);
                sink(chunk * POSITIONS + index, &self.row);
            }
        }
    }

    /// As [`Head::some`] for all tokens, into `out [tokens, rows]`.
    pub(crate) fn all(&mut self, machine: &mut Machine, x: &[f32], out: &mut [f32], tap: Option<&dyn Tap>) {
        let rows = self.vocabulary;
        let tokens: Vec<usize> = (0..x.len() / self.norm.weight.len()).collect();
        for (wanted, out) in tokens.chunks(POSITIONS).zip(out.chunks_mut(POSITIONS * rows)) {
            self.stage.reserve(&self.group, wanted.len());
            self.fill(machine, x, wanted);
            if let Some(tap) = tap {
                self.stage.show(&self.group, tap);
            }
            self.stage.multiply(machine, &self.group, wanted.len(), |_, _| ());
            let panels = &self.stage.out;
            machine.for_each_row(out, rows, |_, _, token, row| gather(panels, wanted.len(), 0, token, row));
        }
    }

    /// Number of logits.
    pub(crate) fn rows(&self) -> usize {
        self.vocabulary
    }

    fn fill(&mut self, machine: &mut Machine, x: &[f32], wanted: &[usize]) {
        let norm = &self.norm;
        let channels = norm.weight.len();
        self.stage.fill(machine, wanted.len(), |local, index, writer| {
            let [out] = local.rows(channels);
            let x = &x[wanted[index] * channels..(wanted[index] + 1) * channels];
            writer.isa.run(LayerNorm { x, weight: &norm.weight, bias: &norm.bias, out });
            writer.set(0, out);
        });
    }

    pub(crate) fn group(&self) -> &Group {
        &self.group
    }

    pub(crate) fn vector_bytes(&self) -> usize {
        self.norm.elements() * size_of::<f32>()
    }

    pub(crate) fn scratch_bytes(&self) -> usize {
        self.stage.bytes() + self.row.capacity() * size_of::<f32>()
    }
}
