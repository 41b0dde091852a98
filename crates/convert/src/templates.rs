//! What templates of conversations say of a file beyond themselves: what is wrong with them, what ends their turns, which of their marks are
//! tokens. Start at [`with_end_of_turn`].

use rwkv_forge_container::{
    ChatFormat, Container, NAMED_TEMPLATE, Origin, Sourced, Word, Words, check_template, end_of_turn_of, failure_of_template,
    marks_of_template,
};
use rwkv_forge_tensor::shorten;
use rwkv_forge_tokenizer::SpecialId;

/// Most marks that a note lists.
const MAX_MARKS: usize = 8;

/// Sets the token that ends a turn: what somebody says of it, but a template that is chosen brings its own, unless it is the one of the source
/// (`own`). What is usual is that of the known formats; of another one that is chosen it is the token that it is seen to write behind an answer,
/// and else nobody knows it, which a note says.
pub(crate) fn with_end_of_turn(words: &mut Words, own: Option<&Sourced<String>>, container: &dyn Container) {
    const OF_THE_FORMAT: &str = "what ends a turn of the template's format";
    let Some(template) = &words.template else { return };
    let said = words.special.get(SpecialId::Eot).cloned();
    if said.as_ref().is_some_and(|said| matches!(said.origin, Origin::Option(_))) {
        return;
    }
    let is_own = own.is_some_and(|own| !own.is_default() && own.value.trim_end() == template.value.trim_end());
    let is_chosen = matches!(template.origin, Origin::Option(_));
    let is_said = said.as_ref().is_some_and(|said| !said.is_default());
    let chosen = |id| Sourced { value: id, origin: template.origin.clone() };
    let id = match ChatFormat::of(&template.value) {
        Some(_) if !is_chosen && is_said => return,
        Some(format) => {
            let id = words.tokenizer().and_then(|tokenizer| format.end_of_turn_in(tokenizer));
            id.map(|id| if is_chosen { chosen(id) } else { Sourced::default_of(OF_THE_FORMAT, id) })
        }
        // Whatever the source says goes with its own template.
        None if !is_chosen || is_own && is_said => said.filter(|said| !said.is_default()),
        None => {
            let eos = words.special.get(SpecialId::Eos).map(|said| said.value);
            let id = words.tokens.as_ref().and_then(|tokens| end_of_turn_of(&template.value, &tokens.value, eos));
            let note = id.is_none().then(|| unknown_end(template, said.as_ref()));
            let has_place = [Word::Template, Word::Special].iter().all(|word| container.words().contains(word));
            words.notes.extend(note.filter(|_| has_place && container.special().contains(&SpecialId::Eot)));
            id.map(chosen)
        }
    };
    words.special.set(SpecialId::Eot, id);
}

/// What is said of a template that is chosen and of which nobody knows by which token its turns end.
fn unknown_end(template: &Sourced<String>, said: Option<&Sourced<u32>>) -> String {
    let option = &template.origin;
    let lost = match said.filter(|said| !said.is_default()) {
        Some(said) => format!(" {} by {}, which ended turns so far, is not kept;", said.value, shorten(&said.origin.to_string())),
        None => String::new(),
    };
    format!(
        "no token is known that ends a turn of the template of {option}:{lost} programs stop at the end of texts, or where they are told to; \
         --meta tokenizer.ggml.eot_token_id=ID says a token"
    )
}

/// What is said of marks that a template writes and that are no tokens of the vocabulary that the file gets.
pub(crate) fn unknown_marks(words: &Words, container: &dyn Container) -> Option<String> {
    let template = words.template.as_ref().filter(|template| ChatFormat::of(&template.value).is_none())?;
    let tokens = &words.tokens.as_ref().filter(|tokens| container.carries_tokens(&tokens.value))?.value;
    let mut unknown = marks_of_template(&template.value);
    unknown.retain(|mark| tokens.id_of_text(mark).is_none());
    if unknown.is_empty() {
        return None;
    }
    let more = unknown.len().saturating_sub(MAX_MARKS);
    unknown.truncate(MAX_MARKS);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let (marks, from, vocabulary) = (unknown.join(", "), shorten(&template.origin.to_string()), tokens.summary());
    Some(format!(
        "the template of {from} writes marks that are no tokens of the vocabulary ({vocabulary}), so that models read them letter by letter: \
         {marks}{more}; give the vocabulary that has them with --vocab, or another template with --chat"
    ))
}

/// What is wrong with the templates that a file gets from its source, as they are.
pub(crate) fn problems(words: &Words) -> Vec<String> {
    let mut found = Vec::new();
    let way = "it is written as it is; --chat gives another";
    if let Some(Sourced { value, origin }) = &words.template {
        let name = shorten(&origin.to_string());
        found.extend(match check_template(&name, value) {
            // Which names the option.
            Err(error) => Some(format!("engines for Jinja cannot read the template, which is written as it is: {error}")),
            Ok(()) => failure_of_template(value).map(|problem| format!("the template of {name} {problem}; {way}")),
        });
    }
    let named = words.other.iter().filter(|(key, _)| key.starts_with(NAMED_TEMPLATE));
    for (key, said) in named {
        let unreadable = |text: &str| check_template(&shorten(key), text).err();
        found.extend(said.value.as_str().and_then(unreadable).map(|error| {
            let from = shorten(&said.origin.to_string());
            format!("engines for Jinja cannot read a template with a name: {error}; it is written as it is, from {from}")
        }));
    }
    found
}
