//! What the permitted calls mean: persistent ids become storages, `_rebuild_*` calls become tensors.
//!
//! Every argument is checked for its exact type. Nothing is looked up in the file here; that happens when the tensors
//! of the finished state dict are bound to their storages.

use std::collections::BTreeSet;

use super::globals::{Dtype, Global, Holder, HolderKind};
use super::value::{Arena, Id, Node, StorageRef, TensorSpec};
use crate::error::{Refusal, Result, refuse};
use crate::limits::Limits;

/// Most dimensions of a tensor.
const MAX_RANK: usize = 8;
/// Most parts of a path.
const MAX_PARTS: usize = 64;

/// Things that were read and not used, for the notes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ignored {
    /// Types that are admitted here and not by torch.
    pub(crate) holders: BTreeSet<&'static str>,
    /// Tensors that carried Python attributes.
    pub(crate) attributes: u64,
    /// Dictionaries that carried `_metadata`.
    pub(crate) metadata: u64,
}

impl Ignored {
    /// One sentence for each kind of thing.
    pub(crate) fn notes(&self) -> impl Iterator<Item = String> {
        let metadata = (self.metadata > 0).then(|| "the state dict's `_metadata` (versions of modules) is not used".to_owned());
        let attributes = (self.attributes > 0).then(|| format!("{} tensors carry Python attributes, which are not used", self.attributes));
        let holders: Vec<&str> = self.holders.iter().copied().collect();
        let holders = (!holders.is_empty()).then(|| {
            format!(
                "read as values without behaviour, which torch.load would refuse with weights_only=True: {}; nothing of the file was run",
                holders.join(", ")
            )
        });
        metadata.into_iter().chain(attributes).chain(holders)
    }
}

fn bad<T>(detail: impl std::fmt::Display) -> Result<T> {
    refuse(Refusal::BadRebuild, format!("{detail}; torch.save never writes that"))
}

/// Calls a permitted global with a tuple of arguments.
pub(crate) fn call(arena: &mut Arena<'_>, function: Id, args: Id, ignored: &mut Ignored) -> Result<Id> {
    let Node::Global(function) = arena.get(function) else {
        return bad(format!("the pickle calls {}", arena.get(function).describe()));
    };
    if !matches!(arena.get(args), Node::Tuple { .. }) {
        return bad(format!("the pickle calls {function:?} with {} instead of a tuple of arguments", arena.get(args).describe()));
    }
    if let Global::Holder(holder) = function {
        return call_holder(arena, holder, args);
    }
    let given: Vec<Id> = match arena.children(args) {
        few if few.len() <= MAX_RANK => few.to_vec(),
        many => return bad(format!("the pickle calls {function:?} with {} arguments", many.len())),
    };
    match (function, given.as_slice()) {
        (Global::RebuildFromType, [inner, kind, inner_args, _state]) => {
            if arena.get(*kind) != Node::Global(Global::TensorType) || arena.get(*inner) == Node::Global(Global::RebuildFromType) {
                return bad("_rebuild_from_type_v2 for something that is no tensor or parameter");
            }
            ignored.attributes = ignored.attributes.saturating_add(1);
            let inner_args: Vec<Id> = match arena.children(*inner_args) {
                few if few.len() <= MAX_RANK => few.to_vec(),
                _ => return bad("_rebuild_from_type_v2 with too many inner arguments"),
            };
            let Node::Global(inner) = arena.get(*inner) else {
                return bad("_rebuild_from_type_v2 without an inner function");
            };
            apply(arena, inner, &inner_args, ignored)
        }
        (function, given) => apply(arena, function, given, ignored),
    }
}

fn apply(arena: &mut Arena<'_>, function: Global, args: &[Id], ignored: &mut Ignored) -> Result<Id> {
    match (function, args) {
        (Global::OrderedDict | Global::Counter, []) => arena.add_dict(),
        (Global::Counter, [counts]) if matches!(arena.get(*counts), Node::Dict(_)) => Ok(*counts),
        // Of values that nobody reads, the first part stands for all.
        (Global::ByteArray, []) => arena.add_list(),
        (Global::ByteArray, [bytes] | [bytes, _]) if matches!(arena.get(*bytes), Node::Str(_) | Node::Bytes(_)) => Ok(*bytes),
        (Global::Complex, [real, imaginary]) if [real, imaginary].iter().all(|part| matches!(arena.get(**part), Node::Float(_))) => {
            Ok(*real)
        }
        (Global::Set, []) => arena.add_list(),
        (Global::Set, [values]) if matches!(arena.get(*values), Node::List(_) | Node::Tuple { .. }) => Ok(*values),
        (Global::Remark(_), [text] | [text, _]) if matches!(arena.get(*text), Node::Str(_)) => Ok(*text),
        (Global::Size, [tuple]) if arena.children(*tuple).len() <= MAX_RANK && arena.ints(*tuple).is_some() => Ok(*tuple),
        (Global::RebuildTensor, [storage, offset, size, stride]) => rebuild_tensor(arena, [*storage, *offset, *size, *stride], None),
        (Global::RebuildTensorV2, [storage, offset, size, stride, grad, hooks, rest @ ..]) if rest.len() <= 1 => {
            check_flags(arena, *grad, *hooks)?;
            check_metadata(arena, rest)?;
            rebuild_tensor(arena, [*storage, *offset, *size, *stride], None)
        }
        (Global::RebuildTensorV3, [storage, offset, size, stride, grad, hooks, dtype, rest @ ..]) if rest.len() <= 1 => {
            check_flags(arena, *grad, *hooks)?;
            check_metadata(arena, rest)?;
            let Node::Global(Global::ElementType(dtype)) = arena.get(*dtype) else {
                return bad(format!("_rebuild_tensor_v3 with {} as the element type", arena.get(*dtype).describe()));
            };
            rebuild_tensor(arena, [*storage, *offset, *size, *stride], Some(dtype))
        }
        (Global::RebuildParameter, [data, grad, hooks]) => {
            check_flags(arena, *grad, *hooks)?;
            parameter(arena, *data)
        }
        (Global::RebuildParameterWithState, [data, grad, hooks, _state]) => {
            check_flags(arena, *grad, *hooks)?;
            ignored.attributes = ignored.attributes.saturating_add(1);
            parameter(arena, *data)
        }
        (Global::RebuildFromCpu, [data, dtype, device, grad]) => from_cpu(arena, *data, [*dtype, *device, *grad]),
        (Global::ForeignTensor(kind), _) => arena.add(Node::Foreign(kind)),
        (Global::ForeignConstant, _) => arena.add(Node::Global(Global::ForeignConstant)),
        (function, args) => {
            let given: Vec<&str> = args.iter().map(|arg| arena.get(*arg).describe()).collect();
            let called = if let Global::Remark(name) = function { name.to_owned() } else { format!("{function:?}") };
            bad(format!("the pickle calls {called} with the {} arguments ({})", args.len(), given.join(", ")))
        }
    }
}

/// A new holder as NEWOBJ makes it; `None` for what is not made like this.
pub(crate) fn new_holder(arena: &mut Arena<'_>, holder: &Holder, args: Id) -> Result<Option<Id>> {
    if !matches!(arena.get(args), Node::Tuple { len: 0, .. }) {
        return Ok(None);
    }
    match holder.kind {
        HolderKind::Attributes => arena.add_object().map(Some),
        HolderKind::Dict => arena.add_dict().map(Some),
        HolderKind::Path | HolderKind::DefaultDict | HolderKind::Deque | HolderKind::Type => Ok(None),
    }
}

/// A holder that is called with a tuple of arguments.
fn call_holder(arena: &mut Arena<'_>, holder: &Holder, args: Id) -> Result<Id> {
    let given = arena.children(args);
    // Whatever makes a value of its own: it is never called.
    let is_type = |id: &Id| {
        matches!(
            arena.get(*id),
            Node::Global(Global::Holder(_) | Global::Set | Global::OrderedDict | Global::Counter | Global::ByteArray | Global::Complex)
        )
    };
    let is_empty = |id: &Id| matches!(arena.get(*id), Node::Tuple { len: 0, .. });
    let is_length = |id: &Id| matches!(arena.get(*id), Node::Int(_) | Node::None);
    match (holder.kind, given) {
        (HolderKind::Attributes, []) => arena.add_object(),
        (HolderKind::DefaultDict, []) => arena.add_dict(),
        (HolderKind::DefaultDict, [missing]) if is_type(missing) || arena.get(*missing) == Node::None => arena.add_dict(),
        (HolderKind::Deque, []) => arena.add_list(),
        (HolderKind::Deque, [elements, rest @ ..]) if is_empty(elements) && rest.len() <= 1 && rest.iter().all(is_length) => {
            arena.add_list()
        }
        (HolderKind::Path, parts) if parts.len() <= MAX_PARTS && parts.iter().all(|part| matches!(arena.get(*part), Node::Str(_))) => {
            let id = arena.add_object()?;
            if let Node::Object(container) = arena.get(id) {
                arena.extend(container, &[args]);
            }
            Ok(id)
        }
        (
            HolderKind::Attributes | HolderKind::Dict | HolderKind::Path | HolderKind::DefaultDict | HolderKind::Deque | HolderKind::Type,
            given,
        ) => {
            let given: Vec<&str> = given.iter().take(MAX_RANK).map(|arg| arena.get(*arg).describe()).collect();
            let detail = format!(
                "the pickle calls {} with ({}), which makes none that trainers keep beside weights; save the weights alone with torch",
                holder.name,
                given.join(", ")
            );
            refuse(Refusal::BadRebuild, detail)
        }
    }
}

fn parameter(arena: &Arena<'_>, data: Id) -> Result<Id> {
    match arena.get(data) {
        Node::Tensor(_) | Node::Foreign(_) => Ok(data),
        other => bad(format!("_rebuild_parameter around {}", other.describe())),
    }
}

/// A tensor of a device that torch cannot store from: that of the CPU, in the same type.
fn from_cpu(arena: &Arena<'_>, data: Id, [dtype, device, grad]: [Id; 3]) -> Result<Id> {
    let (Node::Global(Global::ElementType(dtype)), Node::Str(_), Node::Bool(_)) = (arena.get(dtype), arena.get(device), arena.get(grad))
    else {
        return bad("a tensor of another device without its element type, its device or its requires_grad");
    };
    match arena.get(data) {
        Node::Foreign(_) => Ok(data),
        Node::Tensor(index) => match arena.tensors.get(index as usize) {
            Some(spec) if spec.dtype == dtype => Ok(data),
            _ => refuse(
                Refusal::UnsupportedDtype,
                format!("a tensor of another device is stored in another element type than {dtype:?}; save it from the CPU: tensor.cpu()"),
            ),
        },
        other => bad(format!("a tensor of another device made of {}", other.describe())),
    }
}

fn check_flags(arena: &Arena<'_>, grad: Id, hooks: Id) -> Result<()> {
    if !matches!(arena.get(grad), Node::Bool(_)) {
        return bad(format!("a tensor with {} where requires_grad belongs", arena.get(grad).describe()));
    }
    if is_absent(arena, hooks) { Ok(()) } else { bad("a tensor with backward hooks") }
}

fn is_absent(arena: &Arena<'_>, value: Id) -> bool {
    match arena.get(value) {
        Node::None => true,
        Node::Dict(_) => arena.children(value).is_empty(),
        _ => false,
    }
}

/// The metadata of a tensor mark views whose stored values are to be negated or conjugated.
fn check_metadata(arena: &Arena<'_>, values: &[Id]) -> Result<()> {
    if values.iter().all(|value| is_absent(arena, *value)) {
        return Ok(());
    }
    let message =
        "a tensor with metadata: it is a negated or conjugated view, whose stored values are not its own; save clones of such tensors";
    refuse(Refusal::UnsupportedLayout, message)
}

/// `[storage, offset, size, stride]` and, for version 3, the element type of a view of untyped bytes.
fn rebuild_tensor(arena: &mut Arena<'_>, [storage, offset, size, stride]: [Id; 4], dtype: Option<Dtype>) -> Result<Id> {
    let (Node::Storage(storage), Node::Int(offset)) = (arena.get(storage), arena.get(offset)) else {
        let (storage, offset) = (arena.get(storage).describe(), arena.get(offset).describe());
        return bad(format!("a tensor made of {storage} at an offset that is {offset}; expected a storage and an int"));
    };
    let is_tuple = |id| matches!(arena.get(id), Node::Tuple { .. });
    if !is_tuple(size) || !is_tuple(stride) {
        return bad(format!("a tensor with {} as size and {} as stride", arena.get(size).describe(), arena.get(stride).describe()));
    }
    let (rank, strides) = (arena.children(size).len(), arena.children(stride).len());
    if rank > MAX_RANK || rank != strides {
        let message =
            format!("a tensor with {rank} dimensions and {strides} strides; expected as many strides as dimensions, at most {MAX_RANK}");
        return refuse(Refusal::UnsupportedLayout, message);
    }
    if arena.ints(size).is_none() || arena.ints(stride).is_none() {
        return bad("a tensor whose size or stride is not made of ints");
    }
    let stored = arena.storages.get(storage as usize).map_or(Dtype::Untyped, |storage| storage.dtype);
    let dtype = match (stored, dtype) {
        (Dtype::Untyped, Some(dtype)) => dtype,
        (Dtype::Untyped, None) => return bad("a tensor of an untyped storage without an element type"),
        (stored, None) => stored,
        (stored, Some(dtype)) if stored == dtype => stored,
        (stored, Some(dtype)) => return bad(format!("a {dtype:?} tensor of a {stored:?} storage")),
    };
    arena.add_tensor(TensorSpec { storage, dtype, offset, size, stride })
}

/// Turns the tuple of a persistent id into a storage. `width` is 5 in a zip archive, 6 in a legacy file.
pub(crate) fn persistent_id(arena: &mut Arena<'_>, id: Id, width: usize, limits: &Limits) -> Result<Id> {
    let bad = |detail: String| {
        refuse(
            Refusal::BadStorageId,
            format!("{detail}; expected ('storage', type, key, location, number of elements), as torch.save writes"),
        )
    };
    let parts = arena.children(id);
    if !matches!(arena.get(id), Node::Tuple { .. }) || parts.len() != width {
        return bad(format!("a persistent id that is {} of {} parts", arena.get(id).describe(), parts.len()));
    }
    let part = |index: usize| parts.get(index).map_or(Node::None, |part| arena.get(*part));
    let (Node::Str("storage"), Node::Global(Global::StorageType(dtype))) = (part(0), part(1)) else {
        return bad(format!("a persistent id that begins with {} and {}", part(0).describe(), part(1).describe()));
    };
    let (Node::Str(key), Node::Str(location), Node::Int(numel)) = (part(2), part(3), part(4)) else {
        let found = [part(2).describe(), part(3).describe(), part(4).describe()].join(", ");
        return bad(format!("a persistent id with the parts {found}"));
    };
    if width > 5 && part(5) != Node::None {
        return refuse(
            Refusal::UnsupportedLayout,
            "a storage that is a view of another one, as torch wrote before 0.4; load and save it anew with torch",
        );
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if key.is_empty() || key.len() > 64 || !key.bytes().all(plain) {
        let shown: String = key.chars().take(40).collect();
        return bad(format!("the storage key `{}`", shown.escape_default()));
    }
    if location.len() > limits.global_bytes {
        return bad(format!("a storage location of {} bytes", location.len()));
    }
    let Ok(numel) = u64::try_from(numel) else {
        return bad(format!("storage `{key}` with {numel} elements"));
    };
    arena.add_storage(StorageRef { key, dtype, numel })
}
