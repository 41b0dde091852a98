//! Conversations for the chat template, for the tests here and for the comparison with llama.cpp in `peers/`, which includes this file.

/// Role and content.
pub(crate) type Message = (&'static str, &'static str);

/// One to five turns, with and without a system prompt and a last answer; contents that are empty, end in blanks or look like a
/// template among them.
pub(crate) fn conversations() -> Vec<Vec<Message>> {
    let turns = [
        ("hi", "Hello!"),
        ("  trailing blanks \n", "kept\n\nparagraphs \t"),
        ("", ""),
        ("{{ bos_token }} '\\n'", "{% raw %}"),
        ("Grüße 世界", "…"),
    ];
    let mut out = Vec::new();
    for count in 1..=turns.len() {
        for system in [None, Some(" Answer briefly. "), Some("")] {
            for answered in [false, true] {
                let mut messages: Vec<Message> = system.iter().map(|text| ("system", *text)).collect();
                messages.extend(turns[..count].iter().flat_map(|(user, assistant)| [("user", *user), ("assistant", *assistant)]));
                messages.truncate(messages.len() - usize::from(!answered));
                out.push(messages);
            }
        }
    }
    out
}
