//! Lists the globals that a pickle names, without building or running anything.

use std::collections::HashSet;

use super::opcodes::{Lexer, Op};
use crate::limits::Limits;

/// Module and name of each global, in order of first appearance; also those after the first STOP.
///
/// A malformed stream ends the list: what was found before it is returned. Names that the stream computes rather than
/// spells out appear as `?`.
pub(crate) fn list_globals(bytes: &[u8], limits: &Limits) -> Vec<(String, String)> {
    let mut found = Found::default();
    let mut rest = bytes;
    let mut budget = limits.opcodes;
    while !rest.is_empty() {
        let consumed = scan_one(rest, limits, &mut budget, &mut found);
        match rest.get(consumed..) {
            Some(next) if consumed > 0 && budget > 0 => rest = next,
            _ => break,
        }
    }
    found.list
}

/// Like [`list_globals`], but only up to the first STOP: what follows in a legacy file is not all pickles.
pub(crate) fn list_first_globals(bytes: &[u8], limits: &Limits) -> Vec<(String, String)> {
    let (mut found, mut budget) = (Found::default(), limits.opcodes);
    scan_one(bytes, limits, &mut budget, &mut found);
    found.list
}

/// Scans up to a STOP; returns the bytes up to there, or 0 when there is none.
fn scan_one(bytes: &[u8], limits: &Limits, budget: &mut u64, found: &mut Found) -> usize {
    let mut lexer = Lexer::new(bytes, limits);
    // Strings as they are pushed or fetched, newest last: enough to resolve STACK_GLOBAL in what picklers write.
    let mut recent: [Option<&str>; 2] = [None, None];
    let mut memo: Vec<Option<&str>> = Vec::new();
    while *budget > 0 {
        *budget = budget.saturating_sub(1);
        let Ok((_, op)) = lexer.next() else { return 0 };
        let [_, last] = recent;
        match op {
            Op::Stop => return lexer.position(),
            Op::Global { module, name } | Op::Inst { module, name } => found.note(module, name),
            Op::StackGlobal => {
                let [module, name] = recent;
                found.note(module.unwrap_or("?"), name.unwrap_or("?"));
                recent = [None, None];
            }
            Op::Extension(code) => found.note("copyreg", &format!("extension {code}")),
            Op::Str(text) => recent = [last, Some(text)],
            Op::Get(index) => recent = [last, memo.get(index as usize).copied().flatten()],
            Op::Memoize if memo.len() < limits.memo => memo.push(last),
            Op::Put(index) => remember(&mut memo, index, last, limits),
            Op::Proto(_) | Op::Frame | Op::Memoize => {}
            _ => recent = [last, None],
        }
    }
    0
}

fn remember<'a>(memo: &mut Vec<Option<&'a str>>, index: u32, text: Option<&'a str>, limits: &Limits) {
    let index = index as usize;
    if index >= limits.memo {
        return;
    }
    if index >= memo.len() {
        memo.resize(index.saturating_add(1), None);
    }
    if let Some(slot) = memo.get_mut(index) {
        *slot = text;
    }
}

/// Globals in order of first appearance.
#[derive(Default)]
struct Found {
    list: Vec<(String, String)>,
    seen: HashSet<(String, String)>,
}

impl Found {
    fn note(&mut self, module: &str, name: &str) {
        // More than this many different globals tell a reader nothing more.
        const MOST: usize = 1000;
        let global = (module.to_owned(), name.to_owned());
        if self.list.len() < MOST && self.seen.insert(global.clone()) {
            self.list.push(global);
        }
    }
}
