//! How the bytes of a small text stand for its characters. Start at [`in_utf8`].

/// The bytes of a text in UTF-8: without the byte order mark that editors begin files with, and from UTF-16, which some shells write what is
/// sent into a file in. UTF-16 is known by its mark, or by the zeros of its first two characters. What is neither stays as it is, for whoever
/// reads it to refuse.
///
/// ```
/// use rwkv_forge_container::in_utf8;
///
/// assert_eq!(in_utf8(b"\xef\xbb\xbf{}".to_vec()), b"{}");
/// assert_eq!(in_utf8(b"\xff\xfe{\0}\0".to_vec()), b"{}");
/// assert_eq!(in_utf8(b"\0{\0}".to_vec()), b"{}");
/// assert_eq!(in_utf8(b"{\xff}".to_vec()), b"{\xff}");
/// ```
#[must_use]
pub fn in_utf8(bytes: Vec<u8>) -> Vec<u8> {
    let (rest, is_little) = match bytes.as_slice() {
        [0xef, 0xbb, 0xbf, rest @ ..] => return rest.to_vec(),
        [0xff, 0xfe, rest @ ..] => (rest, true),
        [0xfe, 0xff, rest @ ..] => (rest, false),
        rest @ [1..=255, 0, 1..=255, 0, ..] => (rest, true),
        rest @ [0, 1..=255, 0, 1..=255, ..] => (rest, false),
        _ => return bytes,
    };
    let (pairs, odd) = rest.as_chunks::<2>();
    let number = |pair: &[u8; 2]| if is_little { u16::from_le_bytes(*pair) } else { u16::from_be_bytes(*pair) };
    let text: Option<String> = char::decode_utf16(pairs.iter().map(number)).map(Result::ok).collect();
    text.filter(|_| odd.is_empty()).map_or(bytes, String::into_bytes)
}
