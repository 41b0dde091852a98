//! Runs the opcodes: a stack, marks, a memo, and the arena.

use super::globals::{Global, resolve};
use super::opcodes::{Lexer, Op, check_global};
use super::rebuild::{self, Ignored};
use super::scan::list_globals;
use super::value::{Arena, Id, Node};
use crate::error::{CheckpointError, Refusal, Result, refuse};
use crate::limits::Limits;

/// How one pickle is to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Parts of a persistent id: 5 in a zip archive, 6 in a legacy file, 0 where none may occur.
    pub(crate) persistent_id: usize,
    /// Whether bytes may follow the STOP opcode.
    pub(crate) trailing: bool,
}

/// A finished pickle.
pub(crate) struct Outcome<'a> {
    pub(crate) arena: Arena<'a>,
    pub(crate) root: Id,
    /// Bytes up to and including STOP.
    pub(crate) consumed: usize,
    pub(crate) ignored: Ignored,
}

/// Executes one pickle.
///
/// # Errors
/// The refusals of the pickle rules. Nothing of the pickle is ever called or imported.
pub(crate) fn run<'a>(bytes: &'a [u8], limits: &Limits, rules: Rules) -> Result<Outcome<'a>> {
    let mut machine = Machine::new(limits, rules);
    let mut lexer = Lexer::new(bytes, limits);
    let mut executed = 0u64;
    loop {
        let (at, op) = lexer.next()?;
        executed = executed.saturating_add(1);
        if executed > limits.opcodes {
            return refuse(
                Refusal::TooManyOpcodes,
                format!("the pickle has more than {} opcodes; a state dict needs far fewer", limits.opcodes),
            );
        }
        if at == 0 && !matches!(op, Op::Proto(_)) {
            return refuse(Refusal::BadStream, "the pickle does not begin with a protocol from 2 to 5, as torch.save writes it");
        }
        if op == Op::Stop {
            break;
        }
        machine.step(op, at).map_err(|error| located(error, at))?;
    }
    let consumed = lexer.position();
    let left = bytes.get(consumed..).unwrap_or_default();
    if !rules.trailing && !left.is_empty() {
        return Err(trailing(left, consumed, limits));
    }
    let root = machine.finish()?;
    machine.arena.check_graph(root, limits)?;
    Ok(Outcome { arena: machine.arena, root, consumed, ignored: machine.ignored })
}

/// Modules of whose objects files with a part of a model, or with a model of another kind, consist, and what makes a readable file of them.
const KNOWN: [(&str, &str); 6] = [
    ("deepspeed.", "This is a shard of DeepSpeed's ZeRO: put all of them together with the script zero_to_fp32.py that lies beside them"),
    (
        "torch.distributed.",
        "This is a shard of FSDP: let the trainer save a full state dict, or put the shards together with `python -m \
         torch.distributed.checkpoint.format_utils dcp_to_torch DIRECTORY OUT.pth`",
    ),
    ("torch.nn.modules.", WHOLE_MODULE),
    ("torch.ao.", QUANTIZED),
    ("torchao.", QUANTIZED),
    ("bitsandbytes.", QUANTIZED),
];
/// A module pickled with its code.
const WHOLE_MODULE: &str = "The file holds a whole model as torch.save(model, FILE) pickles it, with the names of its code: if you trust it, save \
     the weights alone where that code is at hand: torch.save(torch.load(FILE, weights_only=False).state_dict(), OUT)";
/// Weights in few bits, as another library has them.
const QUANTIZED: &str = "The weights are quantized by another library, whose types are not read here: give the model as it was before that, or \
     dequantize it there and save its state_dict()";

/// Bytes after STOP are always refused; a forbidden global among them is the better reason.
fn trailing(left: &[u8], consumed: usize, limits: &Limits) -> CheckpointError {
    let hidden = list_globals(left, limits).into_iter().find(|(module, name)| resolve(module, name).is_none());
    match hidden {
        Some((module, name)) => forbidden(&format!("{module}.{name}")),
        None => {
            CheckpointError::refused(Refusal::BadStream, format!("{} bytes follow the end of the pickle at byte {consumed}", left.len()))
        }
    }
}

fn forbidden(what: &str) -> CheckpointError {
    if what.starts_with("rwkv_quant.") {
        return CheckpointError::refused(Refusal::LegacyFormat, crate::rwkvq::PICKLED);
    }
    let shown: String = what.chars().take(200).collect();
    if let Some((_, advice)) = KNOWN.iter().find(|(module, _)| what.starts_with(module)) {
        let detail =
            format!("the pickle asks for `{}`, which a state dict does not need; nothing was executed. {advice}", shown.escape_default());
        return CheckpointError::refused(Refusal::ForbiddenGlobal, detail);
    }
    let detail = format!(
        "the pickle asks for `{}`, which a state dict does not need; nothing was executed. If you trust the file, load it with torch, which \
         runs what it asks for, and save the weights alone: saved = torch.load(FILE, weights_only=False), then torch.save(NAME, OUT) where \
         NAME is the dictionary of weights in it, such as saved[\"model\"] or model.state_dict()",
        shown.escape_default()
    );
    CheckpointError::refused(Refusal::ForbiddenGlobal, detail)
}

/// Adds where in the pickle an opcode failed.
fn located(error: CheckpointError, at: usize) -> CheckpointError {
    match error {
        CheckpointError::Refused { kind, path, detail } if !detail.contains("of the pickle") => {
            CheckpointError::Refused { kind, path, detail: format!("{detail} (opcode at byte {at} of the pickle)") }
        }
        other => other,
    }
}

/// Marks a memo slot that was never written.
const EMPTY_SLOT: Id = Id::MAX;

struct Machine<'a, 'l> {
    arena: Arena<'a>,
    stack: Vec<Id>,
    /// Heights of the stack at which marks lie.
    marks: Vec<usize>,
    memo: Vec<Id>,
    memo_entries: usize,
    ignored: Ignored,
    rules: Rules,
    limits: &'l Limits,
}

impl<'a, 'l> Machine<'a, 'l> {
    fn new(limits: &'l Limits, rules: Rules) -> Self {
        Self {
            arena: Arena::new(limits),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Vec::new(),
            memo_entries: 0,
            ignored: Ignored::default(),
            rules,
            limits,
        }
    }

    fn step(&mut self, op: Op<'a>, at: usize) -> Result<()> {
        match op {
            Op::Proto(_) | Op::Frame | Op::Stop => Ok(()),
            Op::Mark => self.mark(),
            Op::Pop => self.pop_or_unmark(),
            Op::PopMark => self.pop_to_mark().map(|_| ()),
            Op::Dup => self.top().and_then(|id| self.push(id)),
            Op::None => self.push_node(Node::None),
            Op::Bool(value) => self.push_node(Node::Bool(value)),
            Op::Int(value) => self.push_node(Node::Int(value)),
            Op::Float(value) => self.push_node(Node::Float(value)),
            Op::Str(text) => self.push_node(Node::Str(text)),
            Op::Bytes(bytes) => self.push_node(Node::Bytes(bytes)),
            Op::EmptyTuple => self.push_tuple(&[]),
            Op::TupleN(count) => self.tuple_of(count),
            Op::Tuple => self.pop_to_mark().and_then(|children| self.push_tuple(&children)),
            Op::EmptyList => self.container(false, &[]),
            Op::List => self.pop_to_mark().and_then(|children| self.container(false, &children)),
            Op::EmptyDict => self.container(true, &[]),
            Op::Dict => self.pop_to_mark().and_then(|children| self.container(true, &children)),
            Op::Append => self.pop().and_then(|child| self.append(&[child])),
            Op::Appends => self.pop_to_mark().and_then(|children| self.append(&children)),
            Op::SetItem => self.set_item(),
            Op::SetItems => self.pop_to_mark().and_then(|children| self.set_items(&children)),
            Op::Get(index) => self.get(index),
            Op::Put(index) => self.top().and_then(|id| self.put(index as usize, id)),
            Op::Memoize => self.top().and_then(|id| self.put(self.memo_entries, id)),
            Op::Global { module, name } => self.global(module, name),
            Op::StackGlobal => self.stack_global(at),
            Op::PersistentId => self.persistent_id(),
            Op::Reduce => self.reduce(),
            Op::Build => self.build(),
            Op::Inst { module, name } => Err(forbidden(&format!("{module}.{name}"))),
            Op::Obj => self.pop_to_mark().and_then(|children| Err(self.object(children.first().copied()))),
            Op::NewObj => self.new_object(2),
            Op::NewObjEx => self.new_object(3),
            Op::Extension(code) => Err(forbidden(&format!("extension {code} of the copyreg module"))),
        }
    }

    /// The result: the one value left.
    fn finish(&mut self) -> Result<Id> {
        let root = self.pop()?;
        if !self.stack.is_empty() || !self.marks.is_empty() {
            return refuse(Refusal::StackShape, format!("{} values are left over at the end of the pickle", self.stack.len()));
        }
        Ok(root)
    }

    fn underflow<T>(&self) -> Result<T> {
        refuse(Refusal::StackShape, format!("an opcode needs more values than lie on the stack ({})", self.stack.len()))
    }

    fn push(&mut self, id: Id) -> Result<()> {
        if self.stack.len() >= self.limits.stack {
            return refuse(Refusal::TooLarge, format!("the pickle piles more than {} values on its stack", self.limits.stack));
        }
        self.stack.push(id);
        Ok(())
    }

    fn push_node(&mut self, node: Node<'a>) -> Result<()> {
        let id = self.arena.add(node)?;
        self.push(id)
    }

    fn push_tuple(&mut self, children: &[Id]) -> Result<()> {
        let id = self.arena.add_tuple(children)?;
        self.push(id)
    }

    fn mark(&mut self) -> Result<()> {
        if self.marks.len() >= self.limits.stack {
            return refuse(Refusal::TooLarge, format!("the pickle piles more than {} marks on its stack", self.limits.stack));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// Values above the last mark; an opcode that has no business with a mark may use these alone.
    fn available(&self) -> usize {
        self.stack.len().saturating_sub(self.marks.last().copied().unwrap_or(0))
    }

    fn top(&self) -> Result<Id> {
        match self.stack.last() {
            Some(id) if self.available() > 0 => Ok(*id),
            _ => self.underflow(),
        }
    }

    fn pop(&mut self) -> Result<Id> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    fn pop_or_unmark(&mut self) -> Result<()> {
        if self.available() == 0 && self.marks.pop().is_some() {
            return Ok(());
        }
        self.pop().map(|_| ())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark.min(self.stack.len()))),
            None => refuse(Refusal::StackShape, "an opcode needs a mark on the stack, and there is none"),
        }
    }

    fn tuple_of(&mut self, count: usize) -> Result<()> {
        if self.available() < count {
            return self.underflow();
        }
        let children = self.stack.split_off(self.stack.len().saturating_sub(count));
        self.push_tuple(&children)
    }

    fn container(&mut self, dict: bool, children: &[Id]) -> Result<()> {
        let id = if dict { self.arena.add_dict()? } else { self.arena.add_list()? };
        self.push(id)?;
        if dict { self.set_items(children) } else { self.append(children) }
    }

    fn append(&mut self, children: &[Id]) -> Result<()> {
        match self.top().map(|id| self.arena.get(id))? {
            Node::List(container) => {
                self.arena.extend(container, children);
                Ok(())
            }
            other => refuse(Refusal::StackShape, format!("the pickle appends to {}", other.describe())),
        }
    }

    fn set_item(&mut self) -> Result<()> {
        let value = self.pop()?;
        let key = self.pop()?;
        self.set_items(&[key, value])
    }

    fn set_items(&mut self, children: &[Id]) -> Result<()> {
        if !children.len().is_multiple_of(2) {
            return refuse(Refusal::StackShape, format!("the pickle sets {} keys and values, an odd number", children.len()));
        }
        match self.top().map(|id| self.arena.get(id))? {
            Node::Dict(container) => {
                self.arena.extend(container, children);
                Ok(())
            }
            other => refuse(Refusal::StackShape, format!("the pickle sets keys of {}", other.describe())),
        }
    }

    fn get(&mut self, index: u32) -> Result<()> {
        match self.memo.get(index as usize) {
            Some(id) if *id != EMPTY_SLOT => self.push(*id),
            _ => refuse(Refusal::BadMemo, format!("the pickle uses memo entry {index}, which it never wrote")),
        }
    }

    fn put(&mut self, index: usize, id: Id) -> Result<()> {
        if index >= self.limits.memo {
            return refuse(Refusal::BadMemo, format!("memo entry {index}; the limit is {}", self.limits.memo));
        }
        if index >= self.memo.len() {
            self.memo.resize(index.saturating_add(1), EMPTY_SLOT);
        }
        if let Some(slot) = self.memo.get_mut(index) {
            if *slot == EMPTY_SLOT {
                self.memo_entries = self.memo_entries.saturating_add(1);
            }
            *slot = id;
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        match resolve(module, name) {
            Some(global) => {
                if let Global::Holder(holder) = global {
                    self.ignored.holders.insert(holder.name);
                }
                self.push_node(Node::Global(global))
            }
            None => Err(forbidden(&format!("{module}.{name}"))),
        }
    }

    fn stack_global(&mut self, at: usize) -> Result<()> {
        let name = self.pop()?;
        let module = self.pop()?;
        let (Node::Str(module), Node::Str(name)) = (self.arena.get(module), self.arena.get(name)) else {
            return refuse(Refusal::BadGlobal, "a global whose names are not strings");
        };
        check_global(module, name, at, self.limits)?;
        self.global(module, name)
    }

    fn persistent_id(&mut self) -> Result<()> {
        let id = self.pop()?;
        if self.rules.persistent_id == 0 {
            return refuse(Refusal::BadStorageId, "a reference to a storage where none belongs");
        }
        let storage = rebuild::persistent_id(&mut self.arena, id, self.rules.persistent_id, self.limits)?;
        self.push(storage)
    }

    fn reduce(&mut self) -> Result<()> {
        let args = self.pop()?;
        let function = self.pop()?;
        let result = rebuild::call(&mut self.arena, function, args, &mut self.ignored)?;
        self.push(result)
    }

    /// BUILD attaches attributes to an object. State dicts carry `_metadata` (module versions), which no weight needs; what holds nothing but
    /// attributes keeps them.
    fn build(&mut self) -> Result<()> {
        let state = self.pop()?;
        let target = self.arena.get(self.top()?);
        if let Node::Object(container) = target {
            self.arena.extend(container, &[state]);
            return Ok(());
        }
        if !matches!(target, Node::Dict(_)) {
            return refuse(Refusal::BadRebuild, format!("the pickle sets attributes of {}", target.describe()));
        }
        let only_metadata = |id: Id| matches!(self.arena.get(id), Node::Str("_metadata"));
        let acceptable = match self.arena.get(state) {
            Node::None => true,
            // At most one pair: a long state that is set again and again must not take quadratic time.
            Node::Dict(_) => self.arena.children(state).len() <= 2 && self.arena.pairs(state).all(|(key, _)| only_metadata(key)),
            _ => false,
        };
        if !acceptable {
            return refuse(Refusal::BadRebuild, "a dict with attributes other than `_metadata`; save the plain state_dict() with torch");
        }
        self.ignored.metadata = self.ignored.metadata.saturating_add(1);
        Ok(())
    }

    fn new_object(&mut self, parts: usize) -> Result<()> {
        if self.available() < parts {
            return self.underflow();
        }
        let taken = self.stack.split_off(self.stack.len().saturating_sub(parts));
        let class = taken.first().copied();
        if let ([_, args], Some(Node::Global(Global::Holder(holder)))) = (taken.as_slice(), class.map(|id| self.arena.get(id)))
            && let Some(id) = rebuild::new_holder(&mut self.arena, holder, *args)?
        {
            return self.push(id);
        }
        Err(self.object(class))
    }

    fn object(&self, class: Option<Id>) -> CheckpointError {
        match class.map(|id| self.arena.get(id)) {
            Some(Node::Global(Global::OrderedDict)) => forbidden("a new object of collections.OrderedDict"),
            Some(Node::Global(Global::Holder(holder))) => forbidden(&format!("a new object of {} with arguments", holder.name)),
            Some(Node::Global(global)) => forbidden(&format!("a new object of {global:?}")),
            Some(other) => forbidden(&format!("a new object of {}", other.describe())),
            None => CheckpointError::refused(Refusal::StackShape, "the pickle makes an object of nothing"),
        }
    }
}
