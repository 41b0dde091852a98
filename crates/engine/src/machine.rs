//! The threads and the instruction set that everything runs on, and scratch that belongs to a thread.

use rwkv_forge_matrix::Isa;
use rwkv_forge_pool::Pool;

use crate::block::{Block, Span};
use crate::options::EngineOptions;
use crate::state::State;

/// Declares a [`rwkv_forge_matrix::Pass`]: a struct of slices and a loop over them that is compiled for every instruction set.
macro_rules! pass {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),+ $(,)? } $body:block) => {
        $(#[$doc])*
        pub(crate) struct $name<'a> { $(pub(crate) $field: $type),+ }

        impl<'a> rwkv_forge_matrix::Pass for $name<'a> {
            type Output = ();

            #[inline(always)]
            fn run(self) {
                let Self { $($field),+ } = self;
                $body
            }
        }
    };
}
pub(crate) use pass;

pass! {
    /// x += y.
    Add { x: &'a mut [f32], y: &'a [f32] } { crate::ops::add(x, y) }
}

/// Scratch of one thread. What it holds is of no meaning between two uses.
#[derive(Debug, Default)]
pub(crate) struct Local {
    buffer: Vec<f32>,
}

impl Local {
    /// `K` rows of `len` elements, of any content. Allocates only when more is asked for than ever before.
    pub(crate) fn rows<const K: usize>(&mut self, len: usize) -> [&mut [f32]; K] {
        if self.buffer.len() < K * len {
            self.buffer.resize(K * len, 0.0);
        }
        let mut rest = self.buffer.as_mut_slice();
        std::array::from_fn(|_| {
            let (row, later) = std::mem::take(&mut rest).split_at_mut(len);
            rest = later;
            row
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.buffer.capacity() * size_of::<f32>()
    }
}

/// One head of one sequence.
pub(crate) struct HeadPart<'a> {
    pub(crate) span: Span,
    pub(crate) head: usize,
    /// `[key, value]`.
    pub(crate) state: &'a mut [f32],
    /// `[span.len, head_size]`.
    pub(crate) out: &'a mut [f32],
}

/// What layers compute with.
pub(crate) struct Machine {
    pub(crate) pool: Pool,
    pub(crate) isa: Isa,
    pub(crate) locals: Vec<Local>,
    /// Ends of parts of the region that is being prepared; kept for its memory.
    pub(crate) ends: Vec<usize>,
    heads: Vec<HeadPart<'static>>,
}

impl Machine {
    pub(crate) fn new(options: &EngineOptions) -> Self {
        let pool = Pool::new(options.threads);
        let locals = (0..pool.threads()).map(|_| Local::default()).collect();
        Self { pool, isa: options.isa.unwrap_or_else(Isa::best), locals, ends: Vec::new(), heads: Vec::new() }
    }

    /// Runs `task(isa, local, token, row)` for every row of `rows [tokens, width]`, in parallel when there are several.
    pub(crate) fn for_each_row(&mut self, rows: &mut [f32], width: usize, task: impl Fn(Isa, &mut Local, usize, &mut [f32]) + Sync) {
        let isa = self.isa;
        if rows.len() <= width {
            task(isa, &mut self.locals[0], 0, rows);
            return;
        }
        self.ends.clear();
        self.ends.extend((1..=rows.len() / width).map(|row| row * width));
        self.pool.run(&mut self.locals, rows, &self.ends, |_| (), |local, row, part| task(isa, local, row, part));
    }

    /// Runs `task(isa, local, part)` for every head of every sequence. Layer `slot` of the states is used; `out` is
    /// `[spans, heads, span.len, head_size]`.
    pub(crate) fn for_each_head(
        &mut self,
        block: &Block,
        states: &mut [State],
        slot: usize,
        head_size: usize,
        out: &mut [f32],
        task: impl Fn(Isa, &mut Local, &mut HeadPart<'_>) + Sync,
    ) {
        let mut parts = reuse(std::mem::take(&mut self.heads));
        let heads = out.len() / (block.tokens() * head_size);
        let mut rest = out;
        // Spans are in the order of their sequences, so each state is met once.
        let mut spans = block.spans().iter().peekable();
        for (sequence, state) in states.iter_mut().enumerate() {
            let Some(span) = spans.next_if(|span| span.sequence == sequence) else { continue };
            let (own, later) = std::mem::take(&mut rest).split_at_mut(heads * span.len * head_size);
            rest = later;
            let matrices = state.layers[slot].wkv.chunks_exact_mut(head_size * head_size);
            let outs = own.chunks_exact_mut(span.len * head_size);
            parts.extend(matrices.zip(outs).enumerate().map(|(head, (state, out))| HeadPart { span: *span, head, state, out }));
        }
        let isa = self.isa;
        self.pool.for_each(&mut self.locals, &mut parts, |_| (), |local, _, part| task(isa, local, part));
        self.heads = reuse(parts);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.locals.iter().map(Local::bytes).sum()
    }
}

/// The memory of a list without its items, for items of another lifetime.
fn reuse<'b>(mut parts: Vec<HeadPart<'_>>) -> Vec<HeadPart<'b>> {
    parts.clear();
    // The list is empty: nothing is converted, and the standard library keeps the allocation of such a conversion.
    parts.into_iter().map_while(|_| None).collect()
}
