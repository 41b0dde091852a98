//! What two files say besides their tensors, held against each other as far as it can be read. Start at [`compare_words`].

use rwkv_forge_container::{Origin, Sourced, TokenTable, WordDifference, Words};
use rwkv_forge_tensor::BoxError;
use rwkv_forge_tokenizer::Tokenizer;

use crate::open::OpenModel;
use crate::probe::{Vocabulary, known_vocabulary};

/// How errors of vocabularies say that another one may be given, which is said where it helps.
const HINTS: [&str; 2] = ["; give the model's vocabulary with --vocab", "; or give the model's vocabulary with --vocab"];

/// What two files say, and not the same.
pub struct ComparedWords {
    /// Everything in which they differ.
    pub differences: Vec<WordDifference>,
    /// What could not be compared, and why: a sentence each.
    pub notes: Vec<String>,
}

/// Compares what two files say besides their tensors. Where the list of tokens of one cannot be read, one that is given (`choice`) stands in its
/// place, and without one the lists are not compared: ids, templates and all else need none.
#[must_use]
pub fn compare_words(first: &OpenModel, second: &OpenModel, choice: &Vocabulary) -> ComparedWords {
    let mut notes = Vec::new();
    let given = |model: &OpenModel| match choice {
        Vocabulary::Auto => None,
        Vocabulary::World | Vocabulary::Bytes | Vocabulary::File(..) => {
            known_vocabulary(choice, model.description().hyperparameters.vocabulary).ok().flatten()
        }
    };
    let [mut one, mut other] = [(first, second), (second, first)].map(|(model, other)| {
        // Texts that stand for ids are read with the tokens of the same model.
        let known = given(model);
        let stand_in = || known.clone().or_else(|| other.words().ok()?.tokenizer().cloned()).unwrap_or_else(Tokenizer::raw_bytes);
        said(model, known.as_ref(), &stand_in, &mut notes)
    });
    if one.is_without_list || other.is_without_list {
        one.words.tokens = None;
        other.words.tokens = None;
    }
    if one.is_unreadable || other.is_unreadable {
        return ComparedWords { differences: Vec::new(), notes };
    }
    for fault in one.words.faults.iter().chain(&other.words.faults) {
        notes.push(format!("what a file says of {} is not compared: {}", fault.key, fault.error()));
    }
    ComparedWords { differences: one.words.compare(&other.words), notes }
}

/// What one file says.
#[derive(Default)]
struct Said {
    words: Words,
    /// Whether its tokens are not known, although it has some.
    is_without_list: bool,
    /// Whether nothing of it is known.
    is_unreadable: bool,
}

fn said(model: &OpenModel, given: Option<&Tokenizer>, stand_in: &dyn Fn() -> Tokenizer, notes: &mut Vec<String>) -> Said {
    let error = match model.words() {
        Ok(words) => return Said { words: words.clone(), ..Said::default() },
        Err(error) => error,
    };
    // Of a folder the list that lies there may be what cannot be read.
    let around = model.words_around(None).or_else(|_| model.words_around(Some(&stand_in())));
    let path = model.source().path().display().to_string();
    let Ok(around) = around else {
        notes.push(format!("what {path} says besides its tensors is not compared: {}", problem(&error, &path)));
        return Said { is_unreadable: true, ..Said::default() };
    };
    match given {
        Some(given) => {
            notes.push(format!(
                "the tokens of {path} cannot be read, and those of --vocab stand in their place: {}",
                problem(&error, &path)
            ));
            let tokens = Some(Sourced { value: TokenTable::of(given.clone()), origin: Origin::Option("--vocab") });
            Said { words: Words { tokens, ..around }, ..Said::default() }
        }
        None => {
            let way = "the tokens of the two files are not compared, all else is; --vocab FILE compares those of FILE in their place";
            notes.push(format!("the tokens of {path} cannot be read: {}; {way}", problem(&error, &path)));
            Said { words: Words { tokens: None, ..around }, is_without_list: true, ..Said::default() }
        }
    }
}

/// An error without the hint, which is given where it is one, and without the file that was named.
fn problem(error: &BoxError, path: &str) -> String {
    let text = error.to_string();
    let text = HINTS.iter().find_map(|hint| text.strip_suffix(hint)).unwrap_or(&text);
    text.strip_prefix(&format!("{path}: ")).unwrap_or(text).to_owned()
}
