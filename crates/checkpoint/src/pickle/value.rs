//! What a pickle makes: nodes in an arena that refer to each other by index.
//!
//! Nothing here owns another node, so neither dropping nor failing ever recurses, whatever the nesting.

use super::globals::{Dtype, Global};
use crate::error::{Refusal, Result, refuse};
use crate::limits::Limits;

/// Index of a node.
pub(crate) type Id = u32;

/// One value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Node<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(&'a str),
    Bytes(&'a [u8]),
    /// Children `start .. start + len` of the arena's items.
    Tuple {
        start: u32,
        len: u32,
    },
    /// Index of a container that holds the elements.
    List(u32),
    /// Index of a container that holds keys and values in turn.
    Dict(u32),
    /// Index of a container that holds whatever a Python object was given.
    Object(u32),
    Global(Global),
    /// Index of a storage reference.
    Storage(u32),
    /// Index of a tensor.
    Tensor(u32),
    /// A tensor of a kind that is not read here; the kind in words.
    Foreign(&'static str),
}

impl Node<'_> {
    /// What the value is, for messages.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a bool",
            Self::Int(_) => "an int",
            Self::Float(_) => "a float",
            Self::Str(_) => "a string",
            Self::Bytes(_) => "bytes",
            Self::Tuple { .. } => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dict",
            Self::Object(_) => "a Python object",
            Self::Global(_) => "a Python type or function",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
            Self::Foreign(_) => "a tensor of an unsupported kind",
        }
    }
}

/// A storage as a persistent id names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StorageRef<'a> {
    pub(crate) key: &'a str,
    pub(crate) dtype: Dtype,
    /// Elements; bytes for an untyped storage.
    pub(crate) numel: u64,
}

/// A tensor as its construction describes it; `size` and `stride` are tuples of at most 8 ints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TensorSpec {
    pub(crate) storage: u32,
    pub(crate) dtype: Dtype,
    /// Elements before the first one.
    pub(crate) offset: i64,
    pub(crate) size: Id,
    pub(crate) stride: Id,
}

/// All values of one pickle.
pub(crate) struct Arena<'a> {
    nodes: Vec<Node<'a>>,
    items: Vec<Id>,
    containers: Vec<Vec<Id>>,
    pub(crate) storages: Vec<StorageRef<'a>>,
    pub(crate) tensors: Vec<TensorSpec>,
    max_values: usize,
}

/// Ids of the values that are shared instead of stored again and again.
const NONE: Id = 0;
const FALSE: Id = 1;
const TRUE: Id = 2;
const EMPTY_TUPLE: Id = 3;
const FIRST_SMALL_INT: Id = 4;

impl<'a> Arena<'a> {
    pub(crate) fn new(limits: &Limits) -> Self {
        let mut nodes = vec![Node::None, Node::Bool(false), Node::Bool(true), Node::Tuple { start: 0, len: 0 }];
        nodes.extend((0..=255).map(Node::Int));
        let max_values = limits.values.saturating_add(nodes.len());
        Self { nodes, items: Vec::new(), containers: Vec::new(), storages: Vec::new(), tensors: Vec::new(), max_values }
    }

    /// Stores a value, or finds the shared one.
    pub(crate) fn add(&mut self, node: Node<'a>) -> Result<Id> {
        match node {
            Node::None => return Ok(NONE),
            Node::Bool(value) => return Ok(if value { TRUE } else { FALSE }),
            Node::Tuple { len: 0, .. } => return Ok(EMPTY_TUPLE),
            Node::Int(value) => {
                if let Ok(small) = u8::try_from(value) {
                    return Ok(FIRST_SMALL_INT.saturating_add(Id::from(small)));
                }
            }
            _ => {}
        }
        if self.nodes.len() >= self.max_values {
            return refuse(
                Refusal::TooLarge,
                format!("the pickle makes more than {} values; a state dict needs far fewer", self.max_values),
            );
        }
        let id = index_of(self.nodes.len())?;
        self.nodes.push(node);
        Ok(id)
    }

    pub(crate) fn get(&self, id: Id) -> Node<'a> {
        // Every id was handed out by `add`, so the default is never reached.
        self.nodes.get(id as usize).copied().unwrap_or(Node::None)
    }

    pub(crate) fn add_tuple(&mut self, children: &[Id]) -> Result<Id> {
        let node = Node::Tuple { start: index_of(self.items.len())?, len: index_of(children.len())? };
        let id = self.add(node)?;
        self.items.extend_from_slice(children);
        Ok(id)
    }

    pub(crate) fn add_list(&mut self) -> Result<Id> {
        let id = self.add(Node::List(index_of(self.containers.len())?))?;
        self.containers.push(Vec::new());
        Ok(id)
    }

    pub(crate) fn add_dict(&mut self) -> Result<Id> {
        let id = self.add(Node::Dict(index_of(self.containers.len())?))?;
        self.containers.push(Vec::new());
        Ok(id)
    }

    pub(crate) fn add_object(&mut self) -> Result<Id> {
        let id = self.add(Node::Object(index_of(self.containers.len())?))?;
        self.containers.push(Vec::new());
        Ok(id)
    }

    pub(crate) fn add_storage(&mut self, storage: StorageRef<'a>) -> Result<Id> {
        let id = self.add(Node::Storage(index_of(self.storages.len())?))?;
        self.storages.push(storage);
        Ok(id)
    }

    pub(crate) fn add_tensor(&mut self, spec: TensorSpec) -> Result<Id> {
        let id = self.add(Node::Tensor(index_of(self.tensors.len())?))?;
        self.tensors.push(spec);
        Ok(id)
    }

    /// Appends to the container of a list, a dict or an object.
    pub(crate) fn extend(&mut self, container: u32, children: &[Id]) {
        if let Some(target) = self.containers.get_mut(container as usize) {
            target.extend_from_slice(children);
        }
    }

    /// Elements of a tuple or list; keys and values in turn of a dict; what an object was given; nothing for other values.
    pub(crate) fn children(&self, id: Id) -> &[Id] {
        match self.get(id) {
            Node::Tuple { start, len } => {
                let start = start as usize;
                self.items.get(start..start.saturating_add(len as usize)).unwrap_or_default()
            }
            Node::List(container) | Node::Dict(container) | Node::Object(container) => {
                self.containers.get(container as usize).map(Vec::as_slice).unwrap_or_default()
            }
            _ => &[],
        }
    }

    /// A dict, or that of an object which has nothing but attributes.
    pub(crate) fn dict(&self, id: Id) -> Option<Id> {
        match (self.get(id), self.children(id)) {
            (Node::Dict(_), _) => Some(id),
            (Node::Object(_), [attributes]) if matches!(self.get(*attributes), Node::Dict(_)) => Some(*attributes),
            _ => None,
        }
    }

    /// Keys and values of a dict.
    pub(crate) fn pairs(&self, id: Id) -> impl Iterator<Item = (Id, Id)> + '_ {
        self.children(id).as_chunks::<2>().0.iter().map(|[key, value]| (*key, *value))
    }

    /// The ints of a tuple, if it consists of nothing else.
    pub(crate) fn ints(&self, tuple: Id) -> Option<Vec<i64>> {
        let ints = self.children(tuple).iter().map(|child| match self.get(*child) {
            Node::Int(value) => Some(value),
            _ => None,
        });
        ints.collect()
    }

    /// Checks nesting, cycles and the expanded size of everything that `root` reaches.
    pub(crate) fn check_graph(&self, root: Id, limits: &Limits) -> Result<()> {
        const OPEN: u32 = u32::MAX;
        // 0 = not seen, OPEN = on the path from the root, else the height of the finished value.
        let mut height = vec![0u32; self.nodes.len()];
        let mut size = vec![0u32; self.nodes.len()];
        let mut path: Vec<(Id, usize)> = vec![(root, 0)];
        while let Some((id, next)) = path.pop() {
            let (slot, children) = (id as usize, self.children(id));
            set(&mut height, slot, OPEN);
            if let Some(child) = children.get(next) {
                path.push((id, next.saturating_add(1)));
                match height.get(*child as usize) {
                    Some(0) => path.push((*child, 0)),
                    Some(&OPEN) => return refuse(Refusal::Cycle, format!("{} of the pickle contains itself", self.get(*child).describe())),
                    _ => {}
                }
                continue;
            }
            let (mut tallest, mut total) = (0u32, 1u64);
            for child in children {
                tallest = tallest.max(height.get(*child as usize).copied().unwrap_or(0));
                total = total.saturating_add(u64::from(size.get(*child as usize).copied().unwrap_or(0)));
            }
            if total > limits.expanded {
                let message =
                    format!("the pickle stands for more than {} values when written out; shared parts are nested", limits.expanded);
                return refuse(Refusal::TooLarge, message);
            }
            let tall = tallest.saturating_add(1);
            if !children.is_empty() && tall > limits.depth {
                return refuse(Refusal::TooDeep, format!("containers of the pickle are nested deeper than {}", limits.depth));
            }
            set(&mut height, slot, tall);
            set(&mut size, slot, u32::try_from(total).unwrap_or(u32::MAX));
        }
        Ok(())
    }
}

fn set(values: &mut [u32], slot: usize, value: u32) {
    if let Some(target) = values.get_mut(slot) {
        *target = value;
    }
}

fn index_of(len: usize) -> Result<u32> {
    match u32::try_from(len) {
        Ok(index) => Ok(index),
        Err(_) => refuse(Refusal::TooLarge, "the pickle makes more than 4,294,967,295 values"),
    }
}
