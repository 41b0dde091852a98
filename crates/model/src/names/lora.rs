//! Names of the tensors that a low-rank adaptation adds to a matrix, of RWKV-PEFT and of Hugging Face's PEFT. Start at [`LoraName::parse`].

/// What such a tensor is to the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LoraPart {
    /// `lora_A` `[rank, in]`.
    A,
    /// `lora_B` `[out, rank]`.
    B,
    /// `lora_embedding_A` `[rank, rows]`.
    EmbeddingA,
    /// `lora_embedding_B` `[columns, rank]`.
    EmbeddingB,
    /// `lora_magnitude_vector` of DoRA.
    Magnitude,
    /// A bias of `lora_B`.
    Bias,
}

impl LoraPart {
    /// Whether it adapts a table of rows by token.
    #[must_use]
    pub fn is_of_embedding(self) -> bool {
        match self {
            Self::EmbeddingA | Self::EmbeddingB => true,
            Self::A | Self::B | Self::Magnitude | Self::Bias => false,
        }
    }
}

/// Marks that no other tensor of a model has in its name.
const MARKS: [(&str, LoraPart); 5] = [
    (".lora_embedding_A", LoraPart::EmbeddingA),
    (".lora_embedding_B", LoraPart::EmbeddingB),
    (".lora_magnitude_vector", LoraPart::Magnitude),
    (".lora_A", LoraPart::A),
    (".lora_B", LoraPart::B),
];

/// A name taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoraName<'n> {
    /// The module: `blocks.0.att.key`, with whatever stands before that.
    pub stem: &'n str,
    /// What the tensor is.
    pub part: LoraPart,
    /// Which of several adapters it belongs to, where the name says so: `default`.
    pub adapter: Option<&'n str>,
}

impl<'n> LoraName<'n> {
    /// Takes `STEM.lora_A`, `STEM.lora_A.weight` and `STEM.lora_A.ADAPTER.weight` apart, and likewise for the other parts; `None` for the
    /// name of any other tensor.
    ///
    /// ```
    /// use rwkv_forge_model::names::{LoraName, LoraPart};
    /// let name = LoraName::parse("base_model.model.blocks.0.att.key.lora_B.default.weight").unwrap();
    /// assert_eq!((name.stem, name.part, name.adapter), ("base_model.model.blocks.0.att.key", LoraPart::B, Some("default")));
    /// assert_eq!(LoraName::parse("blocks.0.att.key.weight"), None);
    /// ```
    #[must_use]
    pub fn parse(name: &'n str) -> Option<Self> {
        let (stem, part, rest) = MARKS.into_iter().find_map(|(mark, part)| {
            let (stem, rest) = name.split_once(mark)?;
            (rest.is_empty() || rest.starts_with('.')).then_some((stem, part, rest))
        })?;
        let (rest, part) = match (rest.strip_suffix(".weight"), rest.strip_suffix(".bias")) {
            (Some(rest), _) => (rest, part),
            (None, Some(rest)) => (rest, LoraPart::Bias),
            (None, None) => (rest, part),
        };
        let adapter = rest.strip_prefix('.').filter(|adapter| !adapter.is_empty());
        (!stem.is_empty()).then_some(Self { stem, part, adapter })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_writers_are_taken_apart() {
        for (name, part, adapter) in [
            ("a.b.lora_A", LoraPart::A, None),
            ("a.b.lora_B.weight", LoraPart::B, None),
            ("a.b.lora_A.default.weight", LoraPart::A, Some("default")),
            ("a.b.lora_embedding_B", LoraPart::EmbeddingB, None),
            ("a.b.lora_embedding_A.default", LoraPart::EmbeddingA, Some("default")),
            ("a.b.lora_magnitude_vector", LoraPart::Magnitude, None),
            ("a.b.lora_magnitude_vector.default.weight", LoraPart::Magnitude, Some("default")),
            ("a.b.lora_B.bias", LoraPart::Bias, None),
            ("a.b.lora_B.default.bias", LoraPart::Bias, Some("default")),
        ] {
            assert_eq!(LoraName::parse(name), Some(LoraName { stem: "a.b", part, adapter }), "{name}");
        }
        for name in ["a.b.weight", "a.lora_Ab", "model.layers.0.attn.w_lora.lora.0.weight", ".lora_A", "lora_A"] {
            assert_eq!(LoraName::parse(name), None, "{name}");
        }
    }
}
