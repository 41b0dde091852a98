//! Assembles pickles opcode by opcode, and state dicts as `torch.save` pickles them.
#![allow(clippy::cast_possible_truncation, reason = "lying about lengths is the purpose")]

/// A pickle under construction. Every method appends and returns the pickle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pickle {
    bytes: Vec<u8>,
}

impl Pickle {
    /// Begins with a PROTO opcode.
    #[must_use]
    pub fn new(protocol: u8) -> Self {
        Self { bytes: vec![0x80, protocol] }
    }

    /// Appends bytes as they are.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    /// Appends bytes many times.
    #[must_use]
    pub fn repeat(mut self, bytes: &[u8], count: usize) -> Self {
        self.bytes.extend(bytes.repeat(count));
        self
    }

    /// GLOBAL.
    #[must_use]
    pub fn global(self, module: &str, name: &str) -> Self {
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }

    /// STACK_GLOBAL with its two strings.
    #[must_use]
    pub fn stack_global(self, module: &str, name: &str) -> Self {
        self.text(module).text(name).raw(b"\x93")
    }

    /// BINUNICODE.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.raw(b"X").raw(&(text.len() as u32).to_le_bytes()).raw(text.as_bytes())
    }

    /// An integer in its shortest form up to 32 bits, else LONG1 of 8 bytes.
    #[must_use]
    pub fn int(self, value: i64) -> Self {
        if let Ok(small) = u8::try_from(value) {
            return self.raw(&[b'K', small]);
        }
        match i32::try_from(value) {
            Ok(small) => self.raw(b"J").raw(&small.to_le_bytes()),
            Err(_) => self.raw(b"\x8a\x08").raw(&value.to_le_bytes()),
        }
    }

    /// MARK, the integers, TUPLE.
    #[must_use]
    pub fn ints(self, values: &[i64]) -> Self {
        values.iter().fold(self.raw(b"("), |pickle, value| pickle.int(*value)).raw(b"t")
    }

    /// An empty `OrderedDict`, as hooks are pickled.
    #[must_use]
    pub fn ordered_dict(self) -> Self {
        self.global("collections", "OrderedDict").raw(b")R")
    }

    /// A storage by its persistent id; 5 parts as in a zip archive.
    #[must_use]
    pub fn storage(self, kind: &str, key: &str, numel: i64) -> Self {
        let (module, name) = if kind == "UntypedStorage" { ("torch.storage", kind) } else { ("torch", kind) };
        self.raw(b"(").text("storage").global(module, name).text(key).text("cpu").int(numel).raw(b"tQ")
    }

    /// A tensor made by `_rebuild_tensor_v2`.
    #[must_use]
    pub fn tensor(self, tensor: &Tensor) -> Self {
        self.global("torch._utils", "_rebuild_tensor_v2")
            .raw(b"(")
            .storage(tensor.storage, &tensor.key, tensor.numel)
            .int(tensor.offset)
            .ints(&tensor.size)
            .ints(&tensor.stride)
            .raw(b"\x89")
            .ordered_dict()
            .raw(b"tR")
    }

    /// Key and tensor for SETITEMS.
    #[must_use]
    pub fn item(self, tensor: &Tensor) -> Self {
        self.text(&tensor.name).tensor(tensor)
    }

    /// STOP; the finished bytes.
    #[must_use]
    pub fn stop(self) -> Vec<u8> {
        self.raw(b".").bytes
    }

    /// The bytes without STOP.
    #[must_use]
    pub fn unfinished(self) -> Vec<u8> {
        self.bytes
    }
}

/// A tensor as a state dict describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Name in the state dict.
    pub name: String,
    /// Storage type, for example `FloatStorage`.
    pub storage: &'static str,
    /// Storage key.
    pub key: String,
    /// Elements of the storage.
    pub numel: i64,
    /// Elements before the first one.
    pub offset: i64,
    /// Shape.
    pub size: Vec<i64>,
    /// Strides in elements.
    pub stride: Vec<i64>,
}

impl Tensor {
    /// A contiguous tensor that fills its storage.
    #[must_use]
    pub fn dense(name: &str, storage: &'static str, key: usize, size: &[i64]) -> Self {
        let mut stride = vec![1i64; size.len()];
        for dim in (1..size.len()).rev() {
            stride[dim - 1] = stride[dim].saturating_mul(size[dim]);
        }
        let numel = size.iter().fold(1i64, |product, dim| product.saturating_mul(*dim));
        Self { name: name.to_owned(), storage, key: key.to_string(), numel, offset: 0, size: size.to_vec(), stride }
    }
}

/// A plain dict of tensors, protocol 2.
#[must_use]
pub fn state_dict(tensors: &[Tensor]) -> Vec<u8> {
    tensors.iter().fold(Pickle::new(2).raw(b"}("), Pickle::item).raw(b"u").stop()
}
