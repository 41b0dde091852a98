//! Which tokens go through the layers together, and the rows that belong to them.

/// Tokens that go through the layers together at most: bounds the memory between the products.
pub(crate) const BLOCK: usize = 144;

/// Tokens of one sequence within a block, next to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Index of the sequence, and of its state.
    pub(crate) sequence: usize,
    /// Index in the block of its first token.
    pub(crate) first: usize,
    /// Number of tokens, at least 1.
    pub(crate) len: usize,
}

/// Tokens that go through a layer together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Block {
    tokens: usize,
    spans: Vec<Span>,
    /// For each token the index of its span.
    span_of: Vec<usize>,
}

impl Block {
    /// One token of sequence 0.
    pub(crate) fn one() -> Self {
        let mut block = Self::default();
        block.push(0, 1);
        block
    }

    /// Adds the next `len` tokens (at least 1) of a sequence that the block does not have yet.
    pub(crate) fn push(&mut self, sequence: usize, len: usize) {
        self.span_of.extend(std::iter::repeat_n(self.spans.len(), len));
        self.spans.push(Span { sequence, first: self.tokens, len });
        self.tokens += len;
    }

    /// Number of tokens.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    pub(crate) fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The row of the token before `token`: from the block, or for the first token of a span from the state of its
    /// sequence. `rows` is `[tokens, width]`.
    pub(crate) fn before<'a>(&self, token: usize, rows: &'a [f32], width: usize, state: impl FnOnce(usize) -> &'a [f32]) -> &'a [f32] {
        let span = self.spans[self.span_of[token]];
        if token == span.first { state(span.sequence) } else { &rows[(token - 1) * width..token * width] }
    }

    /// Puts the heads of `token` next to each other: `by_head [spans, heads, span.len, head_size]`, `row [heads * head_size]`.
    pub(crate) fn head_row(&self, by_head: &[f32], head_size: usize, token: usize, row: &mut [f32]) {
        let span = self.spans[self.span_of[token]];
        let own = &by_head[span.first * row.len()..(span.first + span.len) * row.len()];
        let at = (token - span.first) * head_size;
        for (to, from) in row.chunks_exact_mut(head_size).zip(own.chunks_exact(span.len * head_size)) {
            to.copy_from_slice(&from[at..at + head_size]);
        }
    }
}

/// Divides sequences of these lengths into blocks of nearly the same size, at most [`BLOCK`] tokens each, with the position in
/// its sequence where each span begins. Results do not depend on the division.
pub(crate) fn blocks(lengths: &[usize]) -> Vec<(Block, Vec<usize>)> {
    let total: usize = lengths.iter().sum();
    let size = total.div_ceil(total.div_ceil(BLOCK).max(1));
    let mut out = Vec::new();
    let (mut block, mut starts) = (Block::default(), Vec::new());
    for (sequence, length) in lengths.iter().enumerate() {
        let mut position = 0;
        while position < *length {
            let len = (length - position).min(size - block.tokens());
            block.push(sequence, len);
            starts.push(position);
            position += len;
            if block.tokens() == size {
                out.push((std::mem::take(&mut block), std::mem::take(&mut starts)));
            }
        }
    }
    if block.tokens() > 0 {
        out.push((block, starts));
    }
    out
}
