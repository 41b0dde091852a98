//! Arguments of `plan`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use rwkv_forge_convert::container::usual;

use super::range::{TIMES, count, loss};
use super::{Calibration, SourceArgs, VocabularyArg};

#[derive(Debug, Clone, Args)]
#[command(override_usage = "rwkv-forge plan [OPTIONS] <--size|--bpw|--max-kl|--max-ppl-ratio> <VALUE> <SOURCE>")]
#[command(group = clap::ArgGroup::new("goal").required(true).args(["size", "bpw", "max_kl", "max_ppl_ratio"]))]
pub(crate) struct Plan {
    /// Any readable model, best as it was released
    pub source: PathBuf,
    /// Largest file, as 33412704, 990M (10^6 bytes) or 1.5G
    #[arg(long, value_name = "BYTES", value_parser = decimal_size)]
    pub size: Option<u64>,
    /// Most bits of the file a parameter
    #[arg(long, value_name = "BITS", value_parser = loss)]
    pub bpw: Option<f64>,
    /// Largest mean KL divergence in nats a token, measured on --text
    #[arg(long, value_name = "NATS", value_parser = loss)]
    pub max_kl: Option<f64>,
    /// Largest ratio of the perplexities, measured on --text
    #[arg(long, value_name = "RATIO", value_parser = loss)]
    pub max_ppl_ratio: Option<f64>,
    /// Container that the recipe is for
    #[arg(long, value_name = "CONTAINER", default_value = usual().name(), value_parser = super::containers())]
    pub to: String,
    #[command(flatten)]
    pub calibration: Calibration,
    /// What chooses the codes: `gptq`, `search` or `ggml`
    #[arg(long, value_name = "QUANTIZER", default_value = "gptq", value_parser = super::Choice::of(["ggml", "search", "gptq"]))]
    pub quantizer: String,
    /// Text that the whole is measured on, `-` for stdin, which --calibrate must not repeat [default: a built-in text]
    #[arg(long = "text", value_name = "FILE|DIR")]
    pub texts: Vec<PathBuf>,
    /// Read only the first N bytes of each file of --text
    #[arg(long, value_name = "N")]
    pub bytes: Option<std::num::NonZeroU64>,
    /// Go on although --calibrate repeats --text
    #[arg(long)]
    pub allow_leak: bool,
    /// Time for probes, as 90s, 30m or 2h; one tensor of each kind is always probed, and those that it does not reach are judged
    /// by their neighbours
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = duration)]
    pub budget: Duration,
    /// Windows of 512 tokens that each probe reads
    #[arg(long, value_name = "N", default_value = "8", value_parser = count::<TIMES>)]
    pub probe_windows: NonZeroUsize,
    /// Memory for activations and loaded layers, as 512M or 2G
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = super::size)]
    pub max_memory: u64,
    /// Recipe file to write, `-` for stdout [default: SOURCE-plan.toml beside the source]
    #[arg(long, short, value_name = "FILE.toml")]
    pub output: Option<PathBuf>,
    /// Say how long the plan will take; measure and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Replace the recipe if it exists
    #[arg(long, short)]
    pub force: bool,
    #[command(flatten)]
    pub source_args: SourceArgs,
    #[command(flatten)]
    pub vocabulary: VocabularyArg,
}

/// Bytes of a file as people say them: powers of ten.
pub(super) fn decimal_size(text: &str) -> Result<u64, String> {
    let bad = || format!("'{text}' is no size: write 33412704, 990M or 1.5G");
    let unit = |letter: char| match letter.to_ascii_uppercase() {
        'K' => Some(1e3),
        'M' => Some(1e6),
        'G' => Some(1e9),
        _ => None,
    };
    let text_ = text.trim_end_matches(['B', 'b']);
    let factor = text_.chars().last().and_then(unit);
    let number: f64 = text_.trim_end_matches(|letter| unit(letter).is_some()).parse().map_err(|_| bad())?;
    let bytes = number * factor.unwrap_or(1.0);
    if !(1.0..1e15).contains(&bytes) {
        return Err(bad());
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    Ok(bytes as u64)
}

/// A time with its unit.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("'{text}' is no time: write 90s, 30m or 2h");
    let (number, seconds) = match text.chars().last() {
        Some('s') => (&text[..text.len() - 1], 1.0),
        Some('m') => (&text[..text.len() - 1], 60.0),
        Some('h') => (&text[..text.len() - 1], 3600.0),
        _ => return Err(bad()),
    };
    let number: f64 = number.parse().map_err(|_| bad())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::{decimal_size, duration};

    #[test]
    fn sizes_and_times_are_read() {
        assert_eq!(
            (decimal_size("33412704"), decimal_size("990M"), decimal_size("1.5GB")),
            (Ok(33_412_704), Ok(990_000_000), Ok(1_500_000_000))
        );
        assert!(decimal_size("-1").is_err() && decimal_size("many").is_err() && decimal_size("").is_err());
        assert_eq!((duration("90s").unwrap().as_secs(), duration("1.5h").unwrap().as_secs()), (90, 5400));
        assert!(duration("30").is_err() && duration("-1s").is_err() && duration("").is_err() && duration("é").is_err());
    }
}
