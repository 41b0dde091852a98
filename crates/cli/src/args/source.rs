//! Arguments about what is taken of a model's file.

use clap::Args;

/// For commands to which a model's weights do not matter.
#[derive(Debug, Clone, Args)]
pub(crate) struct KeyArg {
    /// Which state dict of a file of torch.save that holds several, as `ema`, or `generator.ema` for one in another; where several
    /// files are given, those of --lora and --state among them, of each that has it. May be repeated: each file takes the first under which it has what it is given for
    #[arg(long = "key", value_name = "NAME")]
    pub keys: Vec<String>,
}

/// For commands that compute with a model's weights.
#[derive(Debug, Clone, Args)]
pub(crate) struct SourceArgs {
    #[command(flatten)]
    pub key: KeyArg,
    /// Take a model with norms of zeros or matrices of one value, which a download with holes has, or a model that was never trained
    #[arg(long)]
    pub allow_zero_tensors: bool,
}
