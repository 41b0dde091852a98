//! Builds GGUF files byte by byte, right or wrong on purpose. Start at [`GgufBuilder`]; it knows nothing of the reader
//! that the tests are about.

/// A metadata value as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawValue {
    /// Type number, as the file has it.
    pub kind: u32,
    /// The bytes after the type number.
    pub bytes: Vec<u8>,
}

impl RawValue {
    /// Type 4.
    #[must_use]
    pub fn u32(value: u32) -> Self {
        Self { kind: 4, bytes: value.to_le_bytes().to_vec() }
    }

    /// Type 6.
    #[must_use]
    pub fn f32(value: f32) -> Self {
        Self { kind: 6, bytes: value.to_le_bytes().to_vec() }
    }

    /// Type 8.
    #[must_use]
    pub fn text(value: &str) -> Self {
        Self { kind: 8, bytes: text(value.as_bytes()) }
    }

    /// Type 9: element type, count as claimed, bytes of the elements.
    #[must_use]
    pub fn array(kind: u32, count: u64, elements: &[u8]) -> Self {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(elements);
        Self { kind: 9, bytes }
    }

    /// `depth` arrays around an array of no bytes.
    #[must_use]
    pub fn nested(depth: u32) -> Self {
        let mut bytes = Vec::new();
        for _ in 1..depth {
            bytes.extend_from_slice(&9u32.to_le_bytes());
            bytes.extend_from_slice(&1u64.to_le_bytes());
        }
        bytes.extend_from_slice(&0u32.to_le_bytes());
        bytes.extend_from_slice(&0u64.to_le_bytes());
        Self { kind: 9, bytes }
    }
}

/// A tensor as the file will claim it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTensor {
    /// Name, any bytes.
    pub name: Vec<u8>,
    /// Dimensions, fastest first.
    pub dims: Vec<u64>,
    /// Claimed number of dimensions, when it is to differ.
    pub rank: Option<u32>,
    /// Type number.
    pub kind: u32,
    /// Claimed offset, when it is to differ from the right one.
    pub offset: Option<u64>,
    /// Data.
    pub data: Vec<u8>,
}

/// The parts of a file; every field can be made wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufBuilder {
    /// First four bytes.
    pub magic: [u8; 4],
    /// Version.
    pub version: u32,
    /// Claimed number of tensors, when it is to differ.
    pub tensor_count: Option<u64>,
    /// Claimed number of keys, when it is to differ.
    pub key_count: Option<u64>,
    /// Metadata in order.
    pub pairs: Vec<(Vec<u8>, RawValue)>,
    /// Tensors in order.
    pub tensors: Vec<RawTensor>,
    /// Alignment that the data really gets.
    pub alignment: usize,
    /// Whether the last tensor is padded too.
    pub final_padding: bool,
    /// Bytes after everything.
    pub trailing: Vec<u8>,
}

impl Default for GgufBuilder {
    /// A valid file without tensors and without keys.
    fn default() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            tensor_count: None,
            key_count: None,
            pairs: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            final_padding: true,
            trailing: Vec::new(),
        }
    }
}

impl GgufBuilder {
    /// A small valid file: architecture, quantization version, an f32 tensor `a` of 3 x 2 and a Q8_0 tensor `b` of 64 x 1.
    #[must_use]
    pub fn small() -> Self {
        let a = (1..=6u8).flat_map(|v| f32::from(v).to_le_bytes()).collect();
        let b = (0..2).flat_map(|_| [&[0x00, 0x3c][..], &[7; 32]].concat()).collect();
        Self::default()
            .key("general.architecture", RawValue::text("test"))
            .key("general.quantization_version", RawValue::u32(2))
            .tensor("a", &[3, 2], 0, a)
            .tensor("b", &[64], 8, b)
    }

    /// Adds a key.
    #[must_use]
    pub fn key(mut self, key: &str, value: RawValue) -> Self {
        self.pairs.push((key.as_bytes().to_vec(), value));
        self
    }

    /// Removes a key.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.pairs.retain(|(name, _)| name != key.as_bytes());
        self
    }

    /// Adds a tensor.
    #[must_use]
    pub fn tensor(mut self, name: &str, dims: &[u64], kind: u32, data: Vec<u8>) -> Self {
        self.tensors.push(RawTensor { name: name.as_bytes().to_vec(), dims: dims.to_vec(), rank: None, kind, offset: None, data });
        self
    }

    /// The bytes.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend_from_slice(&self.key_count.unwrap_or(self.pairs.len() as u64).to_le_bytes());
        for (key, value) in &self.pairs {
            out.extend(text(key));
            out.extend_from_slice(&value.kind.to_le_bytes());
            out.extend_from_slice(&value.bytes);
        }
        let mut running = 0u64;
        for tensor in &self.tensors {
            out.extend(text(&tensor.name));
            let rank = tensor.rank.unwrap_or(u32::try_from(tensor.dims.len()).unwrap_or(u32::MAX));
            out.extend_from_slice(&rank.to_le_bytes());
            tensor.dims.iter().for_each(|dim| out.extend_from_slice(&dim.to_le_bytes()));
            out.extend_from_slice(&tensor.kind.to_le_bytes());
            out.extend_from_slice(&tensor.offset.unwrap_or(running).to_le_bytes());
            running += tensor.data.len().next_multiple_of(self.alignment) as u64;
        }
        for (index, tensor) in self.tensors.iter().enumerate() {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
            out.extend_from_slice(&tensor.data);
            if self.final_padding && index + 1 == self.tensors.len() {
                out.resize(out.len().next_multiple_of(self.alignment), 0);
            }
        }
        out.extend_from_slice(&self.trailing);
        out
    }
}

/// Length and bytes.
fn text(bytes: &[u8]) -> Vec<u8> {
    let mut out = (bytes.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(bytes);
    out
}
