//! What `from_bytes` refuses, and that nothing makes it panic.

use proptest::prelude::*;
use rwkv_forge_tensor::Diagnostic;
use rwkv_forge_tokenizer::{MAX_FILE_BYTES, Tokenizer, TokenizerError};

fn kind(file: &[u8]) -> &'static str {
    Tokenizer::from_bytes("test", file).map_or_else(|error| error.kind(), |_| "accepted")
}

#[test]
fn line_ends_do_not_matter() {
    let lf = b"1 'a' 1\n2 ' ' 1\n3 \"'\" 1\n";
    let reference = Tokenizer::from_bytes("lf", lf).unwrap();
    for other in [b"1 'a' 1\r\n2 ' ' 1\r\n3 \"'\" 1\r\n".as_slice(), b"1 'a' 1\n2 ' ' 1\n3 \"'\" 1", b"1 'a' 1\r\n2 ' ' 1\r\n3 \"'\" 1"] {
        let read = Tokenizer::from_bytes("other", other).unwrap();
        assert_eq!(read.sha256(), reference.sha256());
        assert_eq!(read.encode(b"a 'a").unwrap(), [1, 2, 3, 1]);
    }
}

#[test]
fn str_escapes_beyond_ascii_are_code_points_and_bytes_escapes_are_bytes() {
    let tokenizer = Tokenizer::from_bytes("test", b"1 '\\xe9' 2\n2 b'\\xe9' 1\n").unwrap();
    assert_eq!(tokenizer.token_bytes(1), Some([0xc3, 0xa9].as_slice()));
    assert_eq!(tokenizer.token_bytes(2), Some([0xe9].as_slice()));
}

#[test]
fn bad_files_are_refused_by_kind() {
    for (file, expected) in [
        (b"".as_slice(), "EmptyVocabulary"),
        (b"\n", "EmptyVocabulary"),
        (b"\r\n\n", "EmptyVocabulary"),
        (b"\n1 'a' 1\n", "BadVocabularyLine"),
        (b"1 'a' 1\n \n2 'b' 1\n", "BadVocabularyLine"),
        (b" \t\r\n  \n", "EmptyVocabulary"),
        (b"1 'a' 1\n\n2 'b' 1\n", "BadVocabularyLine"),
        (b"hello", "BadVocabularyLine"),
        (b"1 'a'", "BadVocabularyLine"),
        (b"1 'a' ", "BadVocabularyLine"),
        (b"1 'a' 1 \n", "BadVocabularyLine"),
        (b" 1 'a' 1\n", "BadVocabularyLine"),
        (b"-1 'a' 1\n", "BadVocabularyLine"),
        (b"+1 'a' 1\n", "BadVocabularyLine"),
        (b"01 'a' 1\n", "BadVocabularyLine"),
        (b"1 'a' +1\n", "BadVocabularyLine"),
        (b"16777216 'a' 1\n", "BadVocabularyLine"),
        (b"99999999999999999999999 'a' 1\n", "BadVocabularyLine"),
        (b"1 'a' 99999999999999999999999\n", "BadVocabularyLine"),
        (b"\xef\xbb\xbf", "EmptyVocabulary"),
        (b"\xef\xbb\xbf\xef\xbb\xbf1 'a' 1\n", "BadVocabularyLine"),
        (b"\xff\xfe1 'a' 1\n", "BadVocabularyLine"),
        (b"1 '\xff' 1\n", "BadVocabularyLine"),
        (b"PK\x03\x04 this is a zip file", "BadVocabularyLine"),
        (b"1 '' 0\n", "BadVocabularyLine"),
        (b"1 a 1\n", "BadVocabularyLiteral"),
        (b"1 'a'*9 9\n", "BadVocabularyLiteral"),
        (b"1 'a' 2\n", "TokenLengthMismatch"),
        (b"1 '\\xe9' 1\n", "TokenLengthMismatch"),
        (b"1 'a' 18446744073709551615\n", "TokenLengthMismatch"),
        (b"2 'a' 1\n1 'b' 1\n2 'c' 1\n", "BadTokenOrder"),
        (b"2 'a' 1\n1 'b'\n", "BadVocabularyLine"),
        (b"1 'a' 1\n1 'b' 1\n", "BadTokenOrder"),
        (b"1 'a' 1\n2 b'a' 1\n", "DuplicateToken"),
    ] {
        assert_eq!(kind(file), expected, "{}", file.escape_ascii());
    }
}

/// What editors and other tools make of the file, each said where it is more than its end.
#[test]
fn copies_that_say_the_same_are_the_same() {
    let lf = b"1 'a' 1\n2 ' ' 1\n3 \"'\" 1\n";
    let reference = Tokenizer::from_bytes("lf", lf).unwrap();
    for (other, notes) in [
        (b"1 'a' 1\n2 ' ' 1\n3 \"'\" 1\n\n\r\n\n".as_slice(), 0),
        // Last lines with nothing but blanks, and a last token that is one.
        (b"1 'a' 1\n3 \"'\" 1\n2 ' ' 1\n ".as_slice(), 1),
        (b"1 'a' 1\r\n2 ' ' 1\r\n3 \"'\" 1\r\n \t \r\n\n  \n".as_slice(), 0),
        (b"\xef\xbb\xbf1 'a' 1\r\n2 ' ' 1\r\n3 \"'\" 1\r\n", 1),
        (b"3 \"'\" 1\n1 'a' 1\n2 ' ' 1\n", 1),
        (b"\xef\xbb\xbf2 ' ' 1\r\n3 \"'\" 1\r\n1 'a' 1\r\n\r\n", 2),
    ] {
        let read = Tokenizer::from_bytes("other", other).unwrap();
        assert_eq!((read.sha256(), read.notes().len()), (reference.sha256(), notes), "{:?}", read.notes());
        assert_eq!(read.encode(b"a 'a").unwrap(), [1, 2, 3, 1]);
    }
    let error = Tokenizer::from_bytes("v.txt", b"5 'a' 1\n1 'b' 1\n5 'c' 1\n").unwrap_err();
    assert_eq!(error, TokenizerError::IdOrder { name: "v.txt".into(), line: 3, other: 1, id: 5 });
}

#[test]
fn messages_name_the_line() {
    let error = Tokenizer::from_bytes("v.txt", b"1 'a' 1\n2 'bc' 3\n").unwrap_err();
    assert_eq!(error, TokenizerError::LengthMismatch { name: "v.txt".into(), line: 2, found: 2, stated: 3 });
    assert!(error.to_string().starts_with("vocabulary v.txt, line 2: the token has 2 bytes, the line says 3"), "{error}");
}

#[test]
fn limits() {
    assert_eq!(kind(&vec![b'a'; MAX_FILE_BYTES + 1]), "TooLarge");
    let token = "a".repeat(1025);
    assert_eq!(kind(format!("1 '{token}' 1025\n").as_bytes()), "TooLarge");
    assert_eq!(kind(format!("1 '{}' 1024\n", &token[1..]).as_bytes()), "accepted");
    assert_eq!(kind(b"16777215 'a' 1\n"), "accepted");
    // Duplicates are only looked for once the file is read, so that one token is enough to count lines with.
    let line = |id: u32| format!("{id} 'a' 1\n");
    assert_eq!(kind((1..=1 << 20).map(line).collect::<String>().as_bytes()), "DuplicateToken");
    assert_eq!(kind((1..=(1 << 20) + 1).map(line).collect::<String>().as_bytes()), "TooLarge");
}

#[test]
fn a_missing_single_byte_is_an_error_of_the_text() {
    let tokenizer = Tokenizer::from_bytes("test", b"1 'a' 1\n5 'bc' 2\n").unwrap();
    assert_eq!(tokenizer.encode(b"abca").unwrap(), [1, 5, 1]);
    let error = tokenizer.encode(b"abcab").unwrap_err();
    assert_eq!(error, TokenizerError::UncoveredByte { name: "test".into(), byte: b'b', offset: 4 });
    assert_eq!(error.kind(), "UncoveredByte");
}

#[test]
fn unknown_ids_are_errors() {
    let tokenizer = Tokenizer::from_bytes("test", b"1 'a' 1\n5 'bc' 2\n").unwrap();
    assert_eq!(tokenizer.decode(&[1, 0, 5]).unwrap(), b"abc");
    for id in [2, 4, 6, u32::MAX] {
        let error = tokenizer.decode(&[1, id]).unwrap_err();
        assert_eq!(error, TokenizerError::UnknownToken { name: "test".into(), id, position: 1, max_id: 5 });
    }
}

#[test]
fn a_file_with_an_id_0_of_its_own_keeps_it() {
    let tokenizer = Tokenizer::from_bytes("test", b"0 '<end>' 5\n1 'a' 1\n").unwrap();
    assert_eq!(tokenizer.end_of_text(), None);
    assert_eq!(tokenizer.decode(&[1, 0]).unwrap(), b"a<end>");
    let tokenizer = Tokenizer::from_bytes("test", b"0 '' 0\n1 'a' 1\n").unwrap();
    assert_eq!(tokenizer.decode(&[1, 0]).unwrap(), b"a");
    assert_eq!(tokenizer.encode(b"aa").unwrap(), [1, 1]);
}

/// The worst shape for the search tree: every token a node chain of its own.
#[test]
fn long_tokens_stay_cheap() {
    let file: String = (0..3000u32).map(|id| format!("{} '{id:04}{}' 1024\n", id + 1, "x".repeat(1020))).collect();
    let tokenizer = Tokenizer::from_bytes("test", file.as_bytes()).unwrap();
    assert_eq!(tokenizer.token_bytes(3000).map(<[u8]>::len), Some(1024));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(file in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = kind(&file);
    }

    #[test]
    fn arbitrary_lines_never_panic(lines in prop::collection::vec("[0-9]{1,3} b?['\"]([a-z \\\\'\"x0-9é]|\\\\x[0-9a-f]{2}){0,8}['\"] [0-9]{1,2}", 1..6)) {
        let file = lines.join("\n");
        if let Ok(tokenizer) = Tokenizer::from_bytes("test", file.as_bytes()) {
            for id in 0..=tokenizer.max_id() {
                if let Some(bytes) = tokenizer.token_bytes(id).filter(|bytes| !bytes.is_empty()) {
                    prop_assert_eq!(tokenizer.encode(bytes).unwrap(), vec![id]);
                }
            }
        }
    }
}
