//! The closed list of Python globals, and what each of them stands for.

use rwkv_forge_tensor::Encoding;

/// Element type of a storage or tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dtype {
    /// Readable elements.
    Known(Encoding),
    /// Bytes without a type of their own (`UntypedStorage`).
    Untyped,
    /// Known by name, not readable here.
    Unsupported(&'static str),
}

/// What a permitted global stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Global {
    OrderedDict,
    Counter,
    ByteArray,
    Complex,
    /// A set, of which a list is made: no weight lies in one.
    Set,
    /// `torch.device`, and the bytes that protocol 2 writes as text: the first argument stands for them.
    Remark(&'static str),
    Size,
    RebuildTensor,
    RebuildTensorV2,
    RebuildTensorV3,
    RebuildParameter,
    RebuildParameterWithState,
    RebuildFromType,
    /// A tensor of another device, stored as one of the CPU.
    RebuildFromCpu,
    /// `torch.Tensor` and `torch.nn.Parameter`, as the type argument of `_rebuild_from_type_v2`.
    TensorType,
    StorageType(Dtype),
    ElementType(Dtype),
    /// Makes a tensor of a kind that is not read here; the kind in words.
    ForeignTensor(&'static str),
    /// A constant that appears only in the arguments of a foreign tensor, or beside all tensors.
    ForeignConstant,
    /// Something of Python's that holds values, or says what another one holds.
    Holder(&'static Holder),
}

/// A type that trainers keep beside weights and torch's own list of what weights need does not have. None has a behaviour that is of use
/// here: what is made of it is a value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Module and name.
    pub(crate) name: &'static str,
    pub(crate) kind: HolderKind,
}

/// How a pickle makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HolderKind {
    /// A new object without arguments, attributes set later.
    Attributes,
    /// A new dictionary without arguments, keys set later.
    Dict,
    /// Called with the parts of a path.
    Path,
    /// Called with the type of its missing values, keys set later.
    DefaultDict,
    /// Called with nothing, or an empty tuple and a length; elements come later.
    Deque,
    /// Never made: it stands for itself, as the type of a value.
    Type,
}

/// All of them.
static HOLDERS: [Holder; 26] = [
    holder("argparse.Namespace", HolderKind::Attributes),
    holder("types.SimpleNamespace", HolderKind::Attributes),
    holder("pytorch_lightning.utilities.parsing.AttributeDict", HolderKind::Dict),
    holder("lightning.pytorch.utilities.parsing.AttributeDict", HolderKind::Dict),
    holder("lightning_fabric.utilities.data.AttributeDict", HolderKind::Dict),
    holder("lightning.fabric.utilities.data.AttributeDict", HolderKind::Dict),
    holder("pathlib.PosixPath", HolderKind::Path),
    holder("pathlib.WindowsPath", HolderKind::Path),
    holder("pathlib.PurePath", HolderKind::Path),
    holder("pathlib.PurePosixPath", HolderKind::Path),
    holder("pathlib.PureWindowsPath", HolderKind::Path),
    // Where Python 3.13 has them.
    holder("pathlib._local.PosixPath", HolderKind::Path),
    holder("pathlib._local.WindowsPath", HolderKind::Path),
    holder("pathlib._local.PurePath", HolderKind::Path),
    holder("pathlib._local.PurePosixPath", HolderKind::Path),
    holder("pathlib._local.PureWindowsPath", HolderKind::Path),
    holder("collections.defaultdict", HolderKind::DefaultDict),
    holder("collections.deque", HolderKind::Deque),
    holder("builtins.bool", HolderKind::Type),
    holder("builtins.bytes", HolderKind::Type),
    holder("builtins.dict", HolderKind::Type),
    holder("builtins.float", HolderKind::Type),
    holder("builtins.int", HolderKind::Type),
    holder("builtins.list", HolderKind::Type),
    holder("builtins.str", HolderKind::Type),
    holder("builtins.tuple", HolderKind::Type),
];

const fn holder(name: &'static str, kind: HolderKind) -> Holder {
    Holder { name, kind }
}

fn holder_of(module: &str, name: &str) -> Option<Global> {
    // Protocol 2 has the names of Python 2, also of what they mean in Python 3.
    let (module, name) = match (module, name) {
        ("__builtin__", "long") => ("builtins", "int"),
        ("__builtin__", "unicode") => ("builtins", "str"),
        ("__builtin__", name) => ("builtins", name),
        other => other,
    };
    HOLDERS.iter().find(|holder| holder.name.rsplit_once('.') == Some((module, name))).map(Global::Holder)
}

/// The permitted meaning of `module.name`, if it has one.
pub(crate) fn resolve(module: &str, name: &str) -> Option<Global> {
    match module {
        "collections" if name == "OrderedDict" => Some(Global::OrderedDict),
        // What schedulers keep milestones in.
        "collections" if name == "Counter" => Some(Global::Counter),
        "builtins" | "__builtin__" if name == "bytearray" => Some(Global::ByteArray),
        "builtins" | "__builtin__" if name == "complex" => Some(Global::Complex),
        // Protocol 2 has the name of Python 2.
        "builtins" | "__builtin__" if name == "set" => Some(Global::Set),
        "_codecs" if name == "encode" => Some(Global::Remark("_codecs.encode")),
        "torch" => torch_global(name),
        "torch.cuda" | "torch.sparse" | "torch.cuda.sparse" if TENSOR_TYPES.contains(&name) => Some(Global::ForeignConstant),
        "torch._utils" => match name {
            "_rebuild_tensor" => Some(Global::RebuildTensor),
            "_rebuild_tensor_v2" => Some(Global::RebuildTensorV2),
            "_rebuild_tensor_v3" => Some(Global::RebuildTensorV3),
            "_rebuild_parameter" => Some(Global::RebuildParameter),
            "_rebuild_parameter_with_state" => Some(Global::RebuildParameterWithState),
            "_rebuild_device_tensor_from_cpu_tensor" => Some(Global::RebuildFromCpu),
            "_rebuild_wrapper_subclass" => Some(Global::ForeignTensor("of a subclass of torch.Tensor")),
            "_rebuild_qtensor" => Some(Global::ForeignTensor("quantized")),
            "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor" => Some(Global::ForeignTensor("sparse")),
            "_rebuild_nested_tensor" => Some(Global::ForeignTensor("nested")),
            "_rebuild_meta_tensor_no_storage" => Some(Global::ForeignTensor("meta (without data)")),
            _ => None,
        },
        "torch._tensor" if name == "_rebuild_from_type_v2" => Some(Global::RebuildFromType),
        "torch.nn.parameter" if name == "Parameter" => Some(Global::TensorType),
        "torch.storage" if name == "UntypedStorage" => Some(Global::StorageType(Dtype::Untyped)),
        "torch.serialization" if name == "_get_layout" => Some(Global::ForeignConstant),
        _ => holder_of(module, name),
    }
}

/// What settings call the types of tensors.
const TENSOR_TYPES: [&str; 10] = [
    "BFloat16Tensor",
    "BoolTensor",
    "ByteTensor",
    "CharTensor",
    "DoubleTensor",
    "FloatTensor",
    "HalfTensor",
    "IntTensor",
    "LongTensor",
    "ShortTensor",
];

fn torch_global(name: &str) -> Option<Global> {
    match name {
        "Size" => return Some(Global::Size),
        "Tensor" => return Some(Global::TensorType),
        "device" => return Some(Global::Remark("torch.device")),
        "per_tensor_affine"
        | "per_tensor_symmetric"
        | "per_channel_affine"
        | "per_channel_symmetric"
        | "per_channel_affine_float_qparams" => {
            return Some(Global::ForeignConstant);
        }
        name if TENSOR_TYPES.contains(&name) => return Some(Global::ForeignConstant),
        _ => {}
    }
    storage_type(name).map(Global::StorageType).or_else(|| element_type(name).map(Global::ElementType))
}

fn storage_type(name: &str) -> Option<Dtype> {
    Some(match name {
        "BFloat16Storage" => Dtype::Known(Encoding::BF16),
        "HalfStorage" => Dtype::Known(Encoding::F16),
        "FloatStorage" => Dtype::Known(Encoding::F32),
        "DoubleStorage" => Dtype::Known(Encoding::F64),
        "ByteStorage" => Dtype::Known(Encoding::U8),
        "CharStorage" => Dtype::Known(Encoding::I8),
        "ShortStorage" => Dtype::Known(Encoding::I16),
        "IntStorage" => Dtype::Known(Encoding::I32),
        "LongStorage" => Dtype::Known(Encoding::I64),
        "BoolStorage" => Dtype::Unsupported("bool"),
        "ComplexFloatStorage" => Dtype::Unsupported("complex64"),
        "ComplexDoubleStorage" => Dtype::Unsupported("complex128"),
        "QInt8Storage" => Dtype::Unsupported("qint8"),
        "QInt32Storage" => Dtype::Unsupported("qint32"),
        "QUInt8Storage" => Dtype::Unsupported("quint8"),
        "QUInt4x2Storage" => Dtype::Unsupported("quint4x2"),
        "QUInt2x4Storage" => Dtype::Unsupported("quint2x4"),
        _ => return None,
    })
}

fn element_type(name: &str) -> Option<Dtype> {
    const OTHERS: [&str; 39] = [
        "bool",
        "complex32",
        "complex64",
        "complex128",
        "cfloat",
        "cdouble",
        "qint8",
        "qint32",
        "quint8",
        "quint4x2",
        "quint2x4",
        "uint16",
        "uint32",
        "uint64",
        "float8_e4m3fn",
        "float8_e4m3fnuz",
        "float8_e5m2",
        "float8_e5m2fnuz",
        "float8_e8m0fnu",
        "float4_e2m1fn_x2",
        "bits1x8",
        "bits2x4",
        "bits4x2",
        "bits8",
        "bits16",
        "int1",
        "int2",
        "int3",
        "int4",
        "int5",
        "int6",
        "int7",
        "uint1",
        "uint2",
        "uint3",
        "uint4",
        "uint5",
        "uint6",
        "uint7",
    ];
    Some(match name {
        "bfloat16" => Dtype::Known(Encoding::BF16),
        "float16" | "half" => Dtype::Known(Encoding::F16),
        "float32" | "float" => Dtype::Known(Encoding::F32),
        "float64" | "double" => Dtype::Known(Encoding::F64),
        "uint8" => Dtype::Known(Encoding::U8),
        "int8" => Dtype::Known(Encoding::I8),
        "int16" | "short" => Dtype::Known(Encoding::I16),
        "int32" | "int" => Dtype::Known(Encoding::I32),
        "int64" | "long" => Dtype::Known(Encoding::I64),
        _ => Dtype::Unsupported(OTHERS.into_iter().find(|other| *other == name)?),
    })
}
