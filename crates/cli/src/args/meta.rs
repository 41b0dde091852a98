//! Arguments of `meta`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Meta {
    #[command(subcommand)]
    pub kind: MetaKind,
}

/// What is done with metadata.
#[derive(Debug, Subcommand)]
pub(crate) enum MetaKind {
    /// Show the metadata of a GGUF file, with their types
    Show(MetaShow),
    /// Write a copy of a GGUF file in which keys have other values
    Set(MetaSet),
    /// Write a copy of a GGUF file without some keys
    Remove(MetaRemove),
    /// Write a copy of a GGUF file with keys of another one
    Copy(MetaCopy),
}

#[derive(Debug, Args)]
pub(crate) struct MetaShow {
    /// A GGUF file, any part of one, or a directory with one
    pub file: PathBuf,
    /// Only keys that match a regular expression
    #[arg(long = "match", value_name = "REGEX")]
    pub matching: Option<String>,
}

/// The new file.
#[derive(Debug, Args)]
pub(crate) struct MetaOutput {
    /// File to write; nothing is changed in place. Of a file in parts NAME.gguf stands for NAME-00001-of-0000N.gguf and so on
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace the output if it exists
    #[arg(long, short)]
    pub force: bool,
    /// Also change keys that decide the model or how the file lies, such as general.architecture or the tokens; the new file must be read as
    /// the same model all the same
    #[arg(long)]
    pub allow_structure: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MetaSet {
    /// A GGUF file, any part of one, or a directory with one
    pub file: PathBuf,
    /// Keys with their values, for example general.name=Goose
    ///
    /// KEY:TYPE=VALUE gives the type: u8 to u64, i8 to i64, f32, f64, bool, string, and each of these as a list (string[]=a,b or JSON's); without
    /// one it is that which the key has, or is read in by programs. KEY=@FILE takes the text of a file (@@ stands for one @),
    /// KEY:token=TEXT the id of a token, KEY:chat=NAME the template of a conversation format
    #[arg(value_name = "KEY=VALUE", required = true)]
    pub values: Vec<String>,
    /// Also leave out a key; may be repeated
    #[arg(long = "remove", value_name = "KEY")]
    pub removed: Vec<String>,
    #[command(flatten)]
    pub out: MetaOutput,
}

#[derive(Debug, Args)]
pub(crate) struct MetaRemove {
    /// A GGUF file, any part of one, or a directory with one
    pub file: PathBuf,
    /// Keys to leave out
    #[arg(value_name = "KEY", required = true)]
    pub names: Vec<String>,
    /// Also leave out keys of the record of how the file was made and verified (rwkv_forge.*)
    #[arg(long)]
    pub allow_record: bool,
    #[command(flatten)]
    pub out: MetaOutput,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["wanted", "matching"]))]
pub(crate) struct MetaCopy {
    /// The GGUF file whose metadata are taken
    pub from: PathBuf,
    /// The GGUF file with the tensors
    pub file: PathBuf,
    /// A key to take; may be repeated
    #[arg(long = "key", value_name = "KEY")]
    pub wanted: Vec<String>,
    /// Take all keys that match a regular expression, but for those that need leave
    #[arg(long = "match", value_name = "REGEX")]
    pub matching: Option<String>,
    #[command(flatten)]
    pub out: MetaOutput,
}
