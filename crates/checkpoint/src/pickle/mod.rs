//! A pickle machine that builds data and nothing else.
//!
//! It executes the opcodes that `torch.save` writes (protocols 2 to 5) over an arena of indices, calls no code, and
//! knows a closed list of Python globals. `opcodes` decodes the stream, `machine` runs it, `value` holds what it
//! makes, `globals` is the list, `rebuild` is the meaning of the few permitted calls. Start at [`run`].

mod globals;
mod machine;
mod opcodes;
mod rebuild;
mod scan;
mod value;

pub(crate) use globals::Dtype;
pub(crate) use machine::{Outcome, Rules, run};
pub(crate) use scan::{list_first_globals, list_globals};
pub(crate) use value::{Arena, Id, Node, StorageRef};
