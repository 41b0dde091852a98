//! From texts to a schedule, by the rules of each protocol. Start at [`Protocol::schedule`].

use std::ops::Range;

use crate::bootstrap::{MIN_WINDOWS, SHORT_RUN};
use crate::error::ScoreError;
use crate::protocol::{Protocol, RUN, UNCHEATABLE_2024_CHUNK, UNCHEATABLE_CHUNK};
use crate::schedule::{Document, DocumentInfo, Pair, Schedule, Sequence, Window};
use crate::tokens::Tokens;

/// Token that starts a sequence where a protocol has one: end of text in the vocabularies of RWKV.
const START: u32 = 0;

impl Protocol {
    /// What to feed and to score of these texts. `bytes` is the length of a token in bytes, `None` for ids that the vocabulary lacks.
    ///
    /// # Errors
    /// [`ScoreError::TooFewTokens`] when nothing would be scored, for `llama` below two contexts, as there;
    /// [`ScoreError::UnknownToken`]; [`ScoreError::BadLength`]; [`ScoreError::UnknownProtocol`] for `pairs`, see [`Protocol::pairs`].
    pub fn schedule(self, documents: &[Document], bytes: &dyn Fn(u32) -> Option<usize>) -> Result<Schedule, ScoreError> {
        self.check()?;
        let mut scheduler = Scheduler::new(self, bytes);
        match self {
            Self::Llama { context, bos } => llama(&mut scheduler, documents, context, bos)?,
            Self::Pairs => return Err(ScoreError::UnknownProtocol { name: "pairs for texts".to_owned(), known: Self::NAMES.join(", ") }),
            Self::Stream | Self::Windows { .. } | Self::Uncheatable | Self::Uncheatable2024 => {
                for document in documents {
                    scheduler.document(&document.name, &document.category, document.bytes, document.tokens.len());
                    self.text(&mut scheduler, &document.tokens)?;
                }
            }
        }
        if matches!(self, Self::Stream | Self::Windows { .. } | Self::Llama { .. }) {
            scheduler.shorten_windows()?;
        }
        let schedule = scheduler.finish();
        if schedule.sequences.is_empty() {
            let tokens = documents.iter().map(|document| document.tokens.len()).sum();
            return Err(ScoreError::TooFewTokens { protocol: self.name(), tokens, least: 2, hint: "" });
        }
        Ok(schedule)
    }

    /// Sequences and windows of one text.
    fn text(self, scheduler: &mut Scheduler<'_>, tokens: &Tokens) -> Result<(), ScoreError> {
        let (chunk, leading, run) = match self {
            Self::Windows { tokens } => (tokens, true, tokens),
            Self::Uncheatable => (UNCHEATABLE_CHUNK, true, usize::MAX),
            Self::Uncheatable2024 => (UNCHEATABLE_2024_CHUNK, false, usize::MAX),
            Self::Stream | Self::Llama { .. } | Self::Pairs => (usize::MAX, true, RUN),
        };
        for start in (0..tokens.len()).step_by(chunk) {
            let part = tokens.slice(start..start.saturating_add(chunk).min(tokens.len()));
            let fed = if leading { part.after(START)? } else { part };
            let scored = 1..fed.len();
            scheduler.sequence(fed, scored);
        }
        scheduler.windows(run)
    }

    /// What to feed and to score of pairs. `bytes` is as for [`Protocol::schedule`].
    ///
    /// # Errors
    /// [`ScoreError::TooFewTokens`] when nothing would be scored; [`ScoreError::UnknownToken`].
    pub fn pairs(pairs: &[Pair], bytes: &dyn Fn(u32) -> Option<usize>) -> Result<Schedule, ScoreError> {
        let mut scheduler = Scheduler::new(Self::Pairs, bytes);
        for pair in pairs {
            scheduler.document(&pair.name, &pair.category, pair.bytes, pair.continuation.len());
            let scored = 1 + pair.context.len()..1 + pair.context.len() + pair.continuation.len();
            scheduler.sequence(Tokens::from([&pair.context[..], &pair.continuation[..]].concat()).after(START)?, scored);
            scheduler.windows(usize::MAX)?;
        }
        let schedule = scheduler.finish();
        if schedule.sequences.is_empty() {
            return Err(ScoreError::TooFewTokens { protocol: "pairs", tokens: 0, least: 1, hint: "" });
        }
        Ok(schedule)
    }
}

fn llama(scheduler: &mut Scheduler<'_>, documents: &[Document], context: usize, bos: Option<u32>) -> Result<(), ScoreError> {
    let tokens = Tokens::joined(documents.iter().map(|document| &document.tokens))?;
    if tokens.len() / 2 < context {
        let least = context.saturating_mul(2);
        return Err(ScoreError::TooFewTokens { protocol: "llama", tokens: tokens.len(), least, hint: " or a shorter context" });
    }
    let name = match documents {
        [only] => only.name.clone(),
        _ => format!("{} texts", documents.len()),
    };
    let category = documents.first().map(|first| first.category.as_str()).unwrap_or_default();
    let category = if documents.iter().all(|document| document.category == category) { category } else { "" };
    scheduler.document(&name, category, documents.iter().map(|document| document.bytes).sum(), tokens.len());
    for start in (0..tokens.len() / context).map(|chunk| chunk * context) {
        let chunk = match bos {
            Some(bos) => tokens.slice(start + 1..start + context).after(bos)?,
            None => tokens.slice(start..start + context),
        };
        scheduler.sequence(chunk, context / 2 + 1..context);
        scheduler.windows(usize::MAX)?;
    }
    Ok(())
}

/// Puts sequences and windows together.
pub(crate) struct Scheduler<'a> {
    schedule: Schedule,
    bytes: &'a dyn Fn(u32) -> Option<usize>,
}

impl<'a> Scheduler<'a> {
    pub(crate) fn new(protocol: Protocol, bytes: &'a dyn Fn(u32) -> Option<usize>) -> Self {
        Self { schedule: Schedule { protocol, documents: Vec::new(), sequences: Vec::new(), windows: Vec::new() }, bytes }
    }

    /// Adds a text and returns its index.
    pub(crate) fn document(&mut self, name: &str, category: &str, bytes: u64, tokens: usize) -> usize {
        let (name, category) = (name.to_owned(), category.to_owned());
        self.schedule.documents.push(DocumentInfo { name, category, bytes, tokens: tokens as u64 });
        self.schedule.documents.len() - 1
    }

    /// Adds a sequence of the last text, unless nothing of it is scored.
    pub(crate) fn sequence(&mut self, tokens: Tokens, scored: Range<usize>) {
        if scored.is_empty() {
            return;
        }
        let first = self.schedule.sequences.last().map_or(0, |last| last.first + last.scored.len());
        self.schedule.sequences.push(Sequence { document: self.schedule.documents.len() - 1, tokens, scored, first });
    }

    /// Makes one window of what was scored since the last one, or several of at most `longest` tokens.
    pub(crate) fn windows(&mut self, longest: usize) -> Result<(), ScoreError> {
        let document = self.schedule.documents.len() - 1;
        let start = self.schedule.scored();
        let new = self.schedule.sequences.iter().rposition(|sequence| sequence.first < start).map_or(0, |last| last + 1);
        let Self { schedule, bytes } = self;
        let mut window = Window { scores: start..start, document, bytes: 0 };
        let mut windows = Vec::new();
        for sequence in schedule.sequences.iter().skip(new) {
            sequence.tokens.slice(sequence.scored.clone()).pieces(|piece| {
                for token in piece {
                    let unknown = || ScoreError::UnknownToken { token: *token, document: schedule.documents[document].name.clone() };
                    if window.scores.len() >= longest.max(1) {
                        let end = window.scores.end;
                        windows.push(std::mem::replace(&mut window, Window { scores: end..end, document, bytes: 0 }));
                    }
                    window.scores.end += 1;
                    window.bytes += bytes(*token).ok_or_else(unknown)? as u64;
                }
                Ok(())
            })?;
        }
        windows.extend((!window.scores.is_empty()).then_some(window));
        schedule.windows.extend(windows);
        Ok(())
    }

    /// Where there are too few windows for an interval, cuts them into shorter ones. Not for windows that are things of their own, as
    /// texts or pairs are.
    pub(crate) fn shorten_windows(&mut self) -> Result<(), ScoreError> {
        for run in [RUN, SHORT_RUN] {
            if self.schedule.windows.len() >= MIN_WINDOWS {
                break;
            }
            for Window { scores, document, .. } in std::mem::take(&mut self.schedule.windows) {
                for start in scores.clone().step_by(run) {
                    let scores = start..scores.end.min(start + run);
                    let bytes = self.bytes_of(&scores)?;
                    self.schedule.windows.push(Window { scores, document, bytes });
                }
            }
        }
        Ok(())
    }

    /// Bytes of scored tokens, all of which are in the vocabulary.
    fn bytes_of(&self, scores: &Range<usize>) -> Result<u64, ScoreError> {
        let mut sum = 0;
        for sequence in &self.schedule.sequences {
            let start = scores.start.max(sequence.first);
            let end = scores.end.min(sequence.first + sequence.scored.len());
            if start < end {
                let first = sequence.scored.start;
                let tokens = first + start - sequence.first..first + end - sequence.first;
                sum += sequence.tokens.read(tokens)?.iter().map(|token| (self.bytes)(*token).unwrap_or(0) as u64).sum::<u64>();
            }
        }
        Ok(sum)
    }

    pub(crate) fn finish(self) -> Schedule {
        self.schedule
    }
}
