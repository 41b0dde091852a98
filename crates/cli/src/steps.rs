//! What to do about an error whose own words do not say it: a step for every kind. Start at [`complete`].

use rwkv_forge_tensor::Class;

use crate::failure::{Failure, exit_code};

/// Words that begin something that a user can do. Messages have them for no other reason.
const WORDS: [&str; 45] = [
    " --",
    "`--",
    " add ",
    " ask ",
    " calibrate the ",
    " check ",
    " choose ",
    " close ",
    " compare models ",
    " convert ",
    " correct ",
    " decrypt ",
    " delete ",
    " did you mean ",
    " download it ",
    " download the ",
    " drop ",
    " fetch it ",
    " free ",
    " get it ",
    " give ",
    " leave ",
    " let the ",
    " load ",
    " make it ",
    " merge ",
    " mkdir ",
    " name one ",
    " pass the ",
    " please report ",
    " put ",
    " raise the ",
    " remove ",
    " rename ",
    " repair ",
    " rewrite ",
    " run `",
    " save ",
    " say ",
    " set ",
    " start from ",
    " store this ",
    " take ",
    " use ",
    " write ",
];

/// What to do, and the kinds of errors that it is the answer to.
static STEPS: &[(&str, &[&str])] = &[
    (
        "look at what there is with `rwkv-forge meta show FILE`, and give the keys as `rwkv-forge meta set --help` shows them",
        &[
            "AmbiguousType",
            "AnotherModel",
            "AskedTwice",
            "BadValueText",
            "BadWish",
            "Breaks",
            "KeyType",
            "NoSuchMetadataKey",
            "NoSuchToken",
            "NotGguf",
            "RecordKey",
            "StructureKey",
            "PartsKey",
            "TokenOutside",
            "UnknownValueType",
        ],
    ),
    (
        "download the file again, or make it anew with the program that wrote it",
        &[
            "BadAlignment",
            "BadBlock",
            "BadBuffer",
            "BadEntry",
            "BadEntryName",
            "BadHeader",
            "BadImatrix",
            "BadKey",
            "BadMagic",
            "BadManifest",
            "BadName",
            "BadOffset",
            "BadOutlier",
            "BadShape",
            "BadShardName",
            "BadStatistics",
            "BadValue",
            "BadVocabulary",
            "BadZip64",
            "BigEndian",
            "CompressedEntry",
            "Contradiction",
            "CountTooLarge",
            "Crc",
            "Damaged",
            "DamagedState",
            "DuplicateEntry",
            "DuplicateTensor",
            "ExtraBuffer",
            "HeaderMismatch",
            "HeaderTooLarge",
            "InputChanged",
            "Length",
            "MissingBuffer",
            "MissingEntry",
            "MissingKey",
            "MissingPart",
            "MissingShard",
            "MissingStorage",
            "MissingTensor",
            "NotNpy",
            "NpyLength",
            "OutOfBounds",
            "Overlap",
            "PartName",
            "PrefixData",
            "ScaleBeside",
            "SizeMismatch",
            "SizeOverflow",
            "StorageSize",
            "TooDeep",
            "TooManyEntries",
            "TooManyParts",
            "TooManyTensors",
            "TrailingData",
            "Truncated",
            "UnknownEntry",
            "UnsupportedRescale",
        ],
    ),
    (
        "give the checkpoint as it was published or trained, or save it again from the model with torch",
        &[
            "AliasedTensors",
            "AmbiguousOrientation",
            "AmbiguousPickle",
            "AmbiguousVersion",
            "BadGlobal",
            "BadInteger",
            "BadMemo",
            "BadRebuild",
            "BadStorageId",
            "BadStream",
            "Cycle",
            "Encrypted",
            "ForbiddenGlobal",
            "LegacyFormat",
            "MissingStart",
            "NoPickle",
            "NotAModel",
            "NotAStateDict",
            "NotRwkv",
            "OneShard",
            "ShapeMismatch",
            "StackShape",
            "StrayLayer",
            "TooManyOpcodes",
            "TorchScript",
            "UnknownTensor",
            "UnknownType",
            "UnsupportedByteOrder",
            "UnsupportedDtype",
            "UnsupportedEncoding",
            "UnsupportedEntry",
            "UnsupportedKind",
            "UnsupportedLayout",
            "UnsupportedType",
            "UnsupportedArchitecture",
            "UnsupportedConfiguration",
        ],
    ),
    (
        "give the file of a model, an adapter or a state as its own program saved it",
        &[
            "AmbiguousFormat",
            "GgufOfNoModel",
            "NotACheckpoint",
            "NotARegularFile",
            "NotAState",
            "SeveralModels",
            "NoModel",
            "StateOtherFile",
            "TooLarge",
        ],
    ),
    (
        "use a file whose values are finite: an earlier checkpoint of the training, or the download once more",
        &["NonFinite", "VanishingReference"],
    ),
    ("choose a container that carries it with --to", &["CannotCarry", "FixedSize", "HeadMissing", "NotInParts", "UnknownContainer"]),
    ("choose one of them with --type", &["EncodingNotAllowed", "ReadOnlyType", "ReadyType", "TypeNotCarried"]),
    ("give a model or a file of another version", &["UnsupportedVersion"]),
    ("choose another one with --quantizer", &["Quantizer"]),
    ("choose another type for it with --set", &["BlockLength", "Overflow", "UnsupportedFormat"]),
    ("take one of these names in the rule of --set", &["RuleMatchesNothing", "RuleViolatesContainer"]),
    ("correct the file, or take it away from beside the model", &["BadCompanion", "BadTemplate", "ConfigurationNeeded"]),
    ("correct the recipe as docs/conversions.md has it, or let `plan` write one", &["BadRecipe", "PatternsTooLarge", "OtherCalibration"]),
    ("allow more: a larger --size or --bpw, or another limit", &["BudgetTooSmall", "HarmUnreachable"]),
    ("take a type of more bits, or other limits", &["ThresholdNotMet", "F16Loss"]),
    (
        "give another text, in UTF-8 and as .txt, .json, .jsonl or .parquet",
        &[
            "BadJson",
            "BadParquet",
            "BadRow",
            "Directory",
            "EmptyText",
            "LfsPointer",
            "MissingColumn",
            "NotText",
            "NotUtf8",
            "EmptyPrompt",
            "TextNotUtf8",
            "TooFewTokens",
            "TooLittleText",
            "UncoveredByte",
            "NoTokens",
            "BadLength",
            "DuplicateName",
        ],
    ),
    ("give the ids of tokens of this model's vocabulary", &["BadTokens", "TokenOutOfRange", "UnknownToken"]),
    (
        "give the vocabulary that came with the model with --vocab",
        &[
            "BadListedToken",
            "BadTokenOrder",
            "BadTokenizerJson",
            "BadVocabularyLine",
            "BadVocabularyLiteral",
            "DuplicateToken",
            "EmptyVocabulary",
            "SpecialOutside",
            "TokenLengthMismatch",
            "VocabularyIsNoList",
            "VocabularyMismatch",
            "VocabularyNeeded",
            "VocabularyTooLarge",
            "VocabularyTooSmall",
        ],
    ),
    (
        "give the adapter that was trained on this model, as its trainer saved it",
        &[
            "AdapterContradiction",
            "AdapterNotFound",
            "BadAdapterConfig",
            "BadLoraAlpha",
            "LoraAlphaContradiction",
            "LoraAlphaMissing",
            "LoraAlphaUnused",
            "LoraConflict",
            "LoraIsAModel",
            "LoraOtherFile",
            "LoraPairIncomplete",
            "LoraShapeMismatch",
            "LoraTooLarge",
            "SeveralAdapters",
            "UnknownLoraTensor",
            "UnmergedLora",
            "UnsupportedAdapter",
        ],
    ),
    (
        "give a tuned initial state of this model, as its trainer saved it",
        &[
            "NoMatrixState",
            "NotInLlama",
            "ShiftsNotCarried",
            "StateGrows",
            "StateHasTokens",
            "StateLoss",
            "StateNotInRuntime",
            "StateNotInRwkvCpp",
            "StateSizeMismatch",
            "StateSizesNeeded",
            "UnknownStateFormat",
        ],
    ),
    ("give two files of the same model", &["DifferentModels", "Mismatch", "VocabulariesDiffer", "NothingToCompare"]),
    (
        "choose one of those that are known",
        &["NoSuchPage", "UnknownChatFormat", "UnknownIsa", "UnknownProtocol", "WrongProtocol", "UnsupportedNpy"],
    ),
    (
        "leave the option out, or give it another value",
        &[
            "BadDamping",
            "BadMeta",
            "BinaryToTerminal",
            "MetaType",
            "NoStdout",
            "NothingToCopy",
            "BadPattern",
            "BaselineNeeded",
            "CalibrationLeak",
            "LlamaNeeded",
            "OneModel",
            "ReferenceIsExact",
            "Temperature",
            "TopP",
            "BadHessian",
            "BadImportance",
            "BadMapping",
            "FixedLength",
            "Heads",
            "HessianBlock",
            "ImportanceLength",
            "NoName",
            "NoPlace",
            "NoPoints",
            "NoSuchKey",
            "NoSuchLayer",
            "NoTypes",
            "OwnKey",
            "PartsTooSmall",
            "Setting",
            "LayerOutOfRange",
            "CalibrationNeeded",
            "ContainerNeeded",
            "NotPositiveDefinite",
            "OtherStatistics",
            "Requantize",
            "ZeroTensor",
            "Attention",
        ],
    ),
    ("give the path of the one that is meant", &["AmbiguousFiles", "ForeignFiles", "NotDownloaded", "NotFound", "OutputTwice"]),
    (
        "check the disk and the rights of the file, and run the command again",
        &[
            "CacheDamaged",
            "CacheUnreadable",
            "CacheUnwritable",
            "DamagedStatistics",
            "NotHandedOn",
            "Io",
            "NoSpace",
            "OutputDirectory",
            "PermissionDenied",
            "Read",
            "Write",
            "WriteFailed",
            "OutputExists",
            "OutputIsInput",
            "OutputNotRegular",
        ],
    ),
    ("give the program less to do at once: a smaller model or type, fewer --threads", &["OutOfMemory", "Threads"]),
    ("test the machine's memory before anything is measured on it", &["FaultyMemory"]),
    (
        "this is a mistake of rwkv-forge: please report it with the command line and this message",
        &[
            "BadItem",
            "BufferMismatch",
            "EmptyChunk",
            "Encode",
            "Format",
            "Internal",
            "Json",
            "Matrix",
            "NameTooLong",
            "NoSuchRows",
            "NoSuchTensor",
            "NotAMatrix",
            "NotLossless",
            "PartialBlock",
            "RoundedInputs",
            "RowLength",
            "TensorLibrary",
            "Unpackable",
            "NotKept",
            "WordsNotKept",
        ],
    ),
];

/// Kinds that say of a command line which names there are, and mean something else of a file.
const NAMED: [&str; 2] = ["TypeNotCarried", "UnknownType"];

/// What to do about errors of a kind, where their own words do not say it.
fn of(kind: &str, is_usage: bool) -> Option<&'static str> {
    let found = STEPS.iter().find(|(_, kinds)| kinds.contains(&kind)).map(|(step, _)| *step);
    found.filter(|_| !(is_usage && NAMED.contains(&kind)))
}

/// A message that says what to do: its own words, or those for all errors of its kind.
pub(crate) fn complete(failure: &Failure) -> String {
    let Failure { kind, message, code } = failure;
    // An option that a message begins with is what it is about.
    let begins = |word: &str| message.starts_with(word) && !word.starts_with("--");
    let says = WORDS.iter().any(|word| message.contains(word) || begins(word.trim_start()));
    match of(kind, *code == exit_code(Class::Usage)).filter(|_| !says) {
        Some(step) => format!("{message}; {step}"),
        None => message.clone(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may fail loudly")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn completed(kind: &str, message: &str) -> String {
        complete(&Failure::refused(kind, message.to_owned()))
    }

    fn word(text: &str) -> String {
        text.chars().take_while(char::is_ascii_alphanumeric).collect()
    }

    /// Whoever adds a kind of error says what to do about it.
    #[test]
    fn every_kind_has_a_step() {
        let recorded = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/kinds.txt");
        let recorded = std::fs::read_to_string(recorded).unwrap();
        let kinds: BTreeSet<&str> = recorded.lines().map(|line| line.split_once(' ').unwrap().1).filter(|kind| *kind != "->").collect();
        let mut kinds: BTreeSet<String> = kinds.into_iter().map(str::to_owned).collect();
        let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(path).unwrap();
                let own = ["Failure::usage(\"", "Failure::refused(\""].map(|call| text.split(call).skip(1).map(word).collect::<Vec<_>>());
                kinds.extend(own.into_iter().flatten().filter(|kind| kind.starts_with(char::is_uppercase)));
            }
        }
        let without: Vec<&String> = kinds.iter().filter(|kind| of(kind, false).is_none()).collect();
        assert!(without.is_empty(), "add them to STEPS: {without:?}");
        // Steps are read as steps, and none is there for a kind that is not.
        for (step, kinds) in STEPS {
            assert!(!kinds.is_empty() && completed(kinds.first().unwrap(), "x").ends_with(step), "{step}");
        }
    }

    #[test]
    fn what_a_message_says_itself_is_not_said_again() {
        for (kind, message) in [
            ("Truncated", "the file ends at 7: it is cut off, fetch it again"),
            ("Requantize", "quantizing it again adds a second loss; start from the original checkpoint, or say --requantize"),
            ("NotFound", "no such file; check the path"),
            ("NoKindOfOurs", "whatever"),
        ] {
            assert_eq!(completed(kind, message), message);
        }
        assert_eq!(
            completed("BadOffset", "tensor 'a' has offset 3 in the data, expected 0"),
            "tensor 'a' has offset 3 in the data, expected 0; download the file again, or make it anew with the program that wrote it"
        );
        assert!(completed("TopP", "--top-p 3 is not in (0, 1]").ends_with("give it another value"));
        // A name on the command line is no fault of a file.
        let typed = complete(&Failure::usage("UnknownType", "no type is called 'x': pth has f32".to_owned()));
        assert!(
            typed.ends_with("pth has f32") && completed("UnknownType", "tensor a has type 77").contains("give the checkpoint"),
            "{typed}"
        );
    }
}
