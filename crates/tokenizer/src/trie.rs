//! Longest match at a position: a trie whose nodes lie in breadth-first order.
//!
//! In that order the children of a node are neighbours and the children of the next node follow them, so one array
//! of first children is the whole structure: nine bytes a node, and never more nodes than the tokens have bytes.

use std::collections::VecDeque;
use std::ops::Range;

use crate::vocabulary::Vocabulary;

/// Stands for "no token ends at this node"; ids are below [`crate::MAX_ID`] + 1.
const NO_TOKEN: u32 = u32::MAX;
/// Stands for "no token begins with this byte"; the root itself is nobody's child.
const NO_NODE: u32 = 0;

#[derive(Clone, Debug)]
pub(crate) struct Trie {
    /// The child of the root for each byte, or [`NO_NODE`]: every match begins here.
    root: Box<[u32; 256]>,
    /// Node `n` has the children `first_child[n] .. first_child[n + 1]`. Length: nodes + 1.
    first_child: Vec<u32>,
    /// The byte that leads to each node; increasing among siblings.
    label: Vec<u8>,
    /// The id of the token that ends at each node, or [`NO_TOKEN`].
    token: Vec<u32>,
}

/// Two ids with the same bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Twins {
    pub(crate) first: u32,
    pub(crate) second: u32,
}

impl Trie {
    pub(crate) fn new(vocabulary: &Vocabulary) -> Result<Self, Twins> {
        let mut tokens: Vec<(&[u8], u32)> =
            vocabulary.tokens().map(|(id, bytes)| (bytes, id)).filter(|(bytes, _)| !bytes.is_empty()).collect();
        tokens.sort_unstable();
        for pair in tokens.windows(2) {
            if let [(left, first), (right, second)] = pair
                && left == right
            {
                return Err(Twins { first: *first, second: *second });
            }
        }
        Ok(Builder::default().build(&tokens))
    }

    pub(crate) fn of_single_bytes() -> Self {
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        let tokens: Vec<(&[u8], u32)> = bytes.chunks(1).zip(0..).collect();
        Builder::default().build(&tokens)
    }

    /// The id and length in bytes of the longest token at the beginning of `text`.
    pub(crate) fn longest_match(&self, text: &[u8]) -> Option<(u32, usize)> {
        let mut best = None;
        let mut bytes = text.iter();
        let mut node = *self.root.get(usize::from(*bytes.next()?))?;
        let mut length = 1usize;
        while node != NO_NODE {
            match self.token.get(usize::try_from(node).ok()?) {
                Some(&NO_TOKEN) | None => {}
                Some(&id) => best = Some((id, length)),
            }
            node = match bytes.next() {
                Some(byte) => self.child(node, *byte),
                None => NO_NODE,
            };
            length = length.saturating_add(1);
        }
        best
    }

    fn child(&self, node: u32, byte: u8) -> u32 {
        let find = || {
            let siblings = self.children(node)?;
            let index = self.label.get(siblings.clone())?.binary_search(&byte).ok()?;
            u32::try_from(siblings.start.checked_add(index)?).ok()
        };
        find().unwrap_or(NO_NODE)
    }

    fn children(&self, node: u32) -> Option<Range<usize>> {
        let node = usize::try_from(node).ok()?;
        let start = usize::try_from(*self.first_child.get(node)?).ok()?;
        let end = usize::try_from(*self.first_child.get(node.checked_add(1)?)?).ok()?;
        Some(start..end)
    }
}

/// Gives out nodes in breadth-first order while it walks ranges of the sorted tokens.
#[derive(Default)]
struct Builder {
    first_child: Vec<u32>,
    label: Vec<u8>,
    token: Vec<u32>,
}

/// The tokens that share the first `depth` bytes, which are the path to one node.
struct Group {
    tokens: Range<usize>,
    depth: usize,
}

impl Builder {
    fn build(mut self, tokens: &[(&[u8], u32)]) -> Trie {
        let mut queue = VecDeque::from([Group { tokens: 0..tokens.len(), depth: 0 }]);
        // The root: its label is never read.
        self.label.push(0);
        while let Some(group) = queue.pop_front() {
            self.node(&group, tokens, &mut queue);
        }
        self.first_child.push(self.next_node());
        let mut trie = Trie { root: Box::new([NO_NODE; 256]), first_child: self.first_child, label: self.label, token: self.token };
        for byte in 0..=u8::MAX {
            let child = trie.child(0, byte);
            if let Some(slot) = trie.root.get_mut(usize::from(byte)) {
                *slot = child;
            }
        }
        trie
    }

    /// Writes one node and queues its children; their labels are written now, the rest when their turn comes.
    fn node(&mut self, group: &Group, tokens: &[(&[u8], u32)], queue: &mut VecDeque<Group>) {
        self.first_child.push(self.next_node());
        let mut start = group.tokens.start;
        let mut ends_here = NO_TOKEN;
        while let Some((bytes, id)) = tokens.get(start).filter(|_| start < group.tokens.end) {
            let Some(byte) = bytes.get(group.depth).copied() else {
                ends_here = *id;
                start = start.saturating_add(1);
                continue;
            };
            let same = |(other, _): &(&[u8], u32)| other.get(group.depth) == Some(&byte);
            let run = tokens.get(start..group.tokens.end).unwrap_or(&[]).partition_point(same);
            let end = start.saturating_add(run);
            self.label.push(byte);
            queue.push_back(Group { tokens: start..end, depth: group.depth.saturating_add(1) });
            start = end;
        }
        self.token.push(ends_here);
    }

    /// The number of the node whose label is written next. Files are limited to 16 MiB, so it always fits.
    fn next_node(&self) -> u32 {
        u32::try_from(self.label.len()).unwrap_or(u32::MAX)
    }
}
