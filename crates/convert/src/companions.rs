//! What is wrong with the files of a directory that is a model, besides its tensors. Start at [`Companions::of`].

use rwkv_forge_container::lint::{Rule, first_of};
use rwkv_forge_container::{Given, NAMED_TEMPLATE, TokenTable, Words, check_template, failure_of_template, words_beside};
use rwkv_forge_model::ModelDescription;
use rwkv_forge_tensor::shorten;

use crate::lint::Facts;
use crate::open::OpenFile;
use crate::probe::check_size;
use crate::words::check_special;

/// What is found, by rule.
#[derive(Default)]
pub(crate) struct Companions {
    broken: Vec<String>,
    disagreements: Vec<String>,
    templates: Vec<String>,
    special: Vec<String>,
    vocabulary: Vec<String>,
}

impl Companions {
    /// What the files beside a model say, where they are its own: beside a single file may lie anybody's.
    pub(crate) fn of(file: &OpenFile, model: &ModelDescription) -> Self {
        if !file.beside().is_own() {
            return Self::default();
        }
        let words = match words_beside(file.beside(), model, Given::default()) {
            Ok(words) => words,
            Err(error) => return Self { broken: vec![error.to_string()], ..Self::default() },
        };
        let rows = model.hyperparameters.vocabulary;
        Self {
            broken: words.faults.iter().map(|fault| fault.error().to_string()).collect(),
            disagreements: words.disagreements.iter().map(|one| one.settled(Some(&one.heard))).collect(),
            templates: templates(&words),
            special: check_special(&words, rows).err().map(|error| error.to_string()).into_iter().collect(),
            vocabulary: vocabulary(&words, rows),
        }
    }

    /// The rules, for files of any format.
    pub(crate) fn rules<'a>() -> [Rule<Facts<'a>>; 5] {
        [
            Rule::error("companion-broken", "a file of a directory that no conversion can use", |facts| {
                first_of(facts.companions.broken.iter().cloned())
            }),
            Rule::warning("companion-disagreement", "files of a directory that do not say the same, of which one is taken", |facts| {
                first_of(facts.companions.disagreements.iter().cloned())
            }),
            Rule::warning("companion-template", "a directory's template that engines cannot read, or that makes no text", |facts| {
                first_of(facts.companions.templates.iter().cloned())
            }),
            Rule::error("companion-special-id", "a directory's special ids that are those of no token", |facts| {
                first_of(facts.companions.special.iter().cloned())
            }),
            Rule::warning("companion-vocabulary", "a directory's vocabulary of another size than the model", |facts| {
                first_of(facts.companions.vocabulary.iter().cloned())
            }),
        ]
    }
}

fn templates(words: &Words) -> Vec<String> {
    let own = words.template.iter().map(|said| (said.origin.to_string(), said.value.as_str(), true));
    let named = words.other.iter().filter(|(key, _)| key.starts_with(NAMED_TEMPLATE));
    let named = named.filter_map(|(_, said)| Some((said.origin.to_string(), said.value.as_str()?, false)));
    let problem = |(from, text, is_tried): (String, &str, bool)| match check_template(&shorten(&from), text) {
        Err(error) => Some(error.to_string()),
        Ok(()) if is_tried => failure_of_template(text).map(|problem| format!("{}: the template {problem}", shorten(&from))),
        Ok(()) => None,
    };
    own.chain(named).filter_map(problem).collect()
}

fn vocabulary(words: &Words, rows: usize) -> Vec<String> {
    let Some(said) = &words.tokens else { return Vec::new() };
    let too_large = match &said.value {
        TokenTable::LongestMatch(tokenizer) | TokenTable::Merges(tokenizer) => check_size(tokenizer, rows).err(),
        TokenTable::BytePairs(_) => None,
    };
    let too_small = said.value.shortfall(rows).map(|shortfall| shortfall.to_string());
    let found = too_large.map(|error| error.to_string()).or(too_small);
    found.map(|found| format!("{}: {found}", shorten(&said.origin.to_string()))).into_iter().collect()
}
