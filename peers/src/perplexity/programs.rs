//! Runs llama-perplexity and `eval`, reads what they print, and watches what they take.

use std::cell::OnceCell;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::CONTEXT;
use crate::llama::build_llama;
use crate::tools::{Workshop, capture};

/// What a run took.
#[derive(Clone, Copy, Default)]
pub(super) struct Cost {
    pub(super) seconds: f64,
    /// Peak of resident memory, if the system says.
    pub(super) peak: Option<u64>,
    /// Tokens that a model was given; 0 where the program does not say.
    pub(super) tokens: f64,
}

impl Cost {
    /// Of this run and another one after it.
    pub(super) fn then(self, next: Self) -> Self {
        Self { seconds: self.seconds + next.seconds, peak: self.peak.max(next.peak), tokens: self.tokens.max(next.tokens) }
    }
}

/// A value and its standard error, both as printed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Estimate {
    pub(super) value: f64,
    pub(super) error: f64,
}

/// llama-perplexity's statistics of a file against saved logits.
#[derive(Clone, Debug)]
pub(super) struct Divergence {
    pub(super) perplexity: Estimate,
    /// The perplexity of the saved logits.
    pub(super) base: Estimate,
    /// Mean logarithm of the ratio of the two.
    pub(super) log_ratio: Estimate,
    pub(super) kl: Estimate,
    pub(super) kl_p99: f64,
    /// Share of tokens with the same most probable token.
    pub(super) top1: Estimate,
}

/// What `eval` says of one file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ours {
    pub(super) perplexity: f64,
    pub(super) kl: f64,
    pub(super) kl_p99: f64,
    /// Share of tokens with the same most probable token.
    pub(super) top1: f64,
}

/// llama-perplexity.
pub(super) struct Llama {
    root: PathBuf,
    folder: PathBuf,
    work: PathBuf,
    threads: usize,
    /// Sees to it that all is printed.
    drain: PathBuf,
    /// Where its library without AMX is, once the one with AMX has crashed.
    without_amx: OnceCell<PathBuf>,
}

impl Llama {
    pub(super) fn new(shop: &Workshop, threads: usize) -> Result<Self, String> {
        let folder = build_llama(&shop.root, &["llama-perplexity"])?;
        let drain = shop.work.join("drain.so");
        let mut compiler = Command::new(std::env::var_os("CXX").unwrap_or_else(|| "g++".into()));
        capture(compiler.args(["-O2", "-shared", "-fPIC"]).arg(shop.root.join("peers/llama/drain.cpp")).arg("-o").arg(&drain))?;
        Ok(Self { root: shop.root.clone(), work: shop.work.clone(), folder, threads, drain, without_amx: OnceCell::new() })
    }

    pub(super) fn without_amx(&self) -> bool {
        self.without_amx.get().is_some()
    }

    /// Lets it read a little, and turns its AMX off if it crashes.
    pub(super) fn probe(&mut self, file: &Path, text: &Path) -> Result<(), String> {
        let little = || {
            let mut command = self.command(file);
            command.arg("-f").arg(text).args(["-c", "128", "-b", "512", "--chunks", "4"]);
            run(&mut command)
        };
        match little() {
            Err(message) if message.contains("signal: ") && !self.without_amx() => {
                eprintln!("note: llama-perplexity crashes on {}: it runs without AMX", file.display());
                let script = self.root.join("peers/llama/build-without-amx.sh");
                let folder = capture(Command::new(script).arg(&self.folder).stderr(Stdio::inherit()))?;
                self.without_amx.get_or_init(|| PathBuf::from(folder.trim()));
                little().map(drop)
            }
            other => other.map(drop),
        }
    }

    fn command(&self, file: &Path) -> Command {
        let mut command = Command::new(self.folder.join("build/bin/llama-perplexity"));
        if let Some(library) = self.without_amx.get() {
            command.env("LD_LIBRARY_PATH", library);
        }
        command.arg("-m").arg(file).args(["-t", &self.threads.to_string()]);
        // Whatever else it writes.
        command.current_dir(&self.work);
        command
    }

    /// Perplexity of a text; `save` gets the logits.
    pub(super) fn perplexity(&self, file: &Path, text: &Path, save: Option<&Path>) -> Result<Estimate, String> {
        estimate(&run(self.reading(file, text, save).env("LD_PRELOAD", &self.drain))?.0, "Final estimate: PPL =")
    }

    /// What that takes.
    pub(super) fn cost_of_perplexity(&self, file: &Path, text: &Path, save: Option<&Path>) -> Result<Cost, String> {
        let (printed, mut cost) = run(&mut self.reading(file, text, save))?;
        let chunks: f64 = between(&printed, "perplexity over ", " chunks").ok_or("llama-perplexity names no chunks")?;
        cost.tokens = chunks * CONTEXT as f64;
        Ok(cost)
    }

    /// Statistics of a file against logits that either program has saved.
    pub(super) fn divergence(&self, file: &Path, base: &Path) -> Result<Divergence, String> {
        parse(&run(self.against(file, base).env("LD_PRELOAD", &self.drain))?.0)
    }

    /// What that takes.
    pub(super) fn cost_of_divergence(&self, file: &Path, base: &Path) -> Result<Cost, String> {
        Ok(run(&mut self.against(file, base))?.1)
    }

    fn reading(&self, file: &Path, text: &Path, save: Option<&Path>) -> Command {
        let mut command = self.command(file);
        command.arg("-f").arg(text).args(["-c", &CONTEXT.to_string()]);
        if let Some(save) = save {
            command.arg("--kl-divergence-base").arg(save);
        }
        command
    }

    fn against(&self, file: &Path, base: &Path) -> Command {
        let mut command = self.command(file);
        command.args(["-c", &CONTEXT.to_string(), "--kl-divergence", "--kl-divergence-base"]).arg(base);
        command
    }
}

/// `rwkv-forge eval`.
pub(super) struct Eval {
    pub(super) forge: PathBuf,
    pub(super) threads: usize,
    /// The models' vocabulary, if it is not the World one.
    pub(super) vocabulary: Option<PathBuf>,
}

impl Eval {
    fn command(&self, models: &[&Path], text: &Path) -> Command {
        let mut command = Command::new(&self.forge);
        command.args(["--quiet", "--json", "--threads", &self.threads.to_string(), "eval"]).args(models);
        command.arg("--text").arg(text).args(["--protocol", "llama", "--context", &CONTEXT.to_string(), "--no-cache"]);
        if let Some(vocabulary) = &self.vocabulary {
            command.arg("--vocab").arg(vocabulary);
        }
        command
    }

    /// Perplexity of a text, with the logits in `save`.
    pub(super) fn alone(&self, file: &Path, text: &Path, save: Option<&Path>) -> Result<f64, String> {
        let mut command = self.command(&[file], text);
        if let Some(save) = save {
            command.arg("--force").arg("--save-logits").arg(save);
        }
        let document = document(&run(&mut command)?.0)?;
        number(&document, "/models/0/perplexity")
    }

    /// A file against the baseline, with activations as they are or rounded as llama.cpp rounds them.
    pub(super) fn against(&self, file: &Path, baseline: &Path, text: &Path, int8: bool) -> Result<Ours, String> {
        let mut command = self.command(&[file], text);
        command.arg("--baseline").arg(baseline).args(["--activations", if int8 { "int8" } else { "float" }]);
        let document = document(&run(&mut command)?.0)?;
        let value = |field: &str| number(&document, &format!("/models/0/{field}"));
        Ok(Ours { perplexity: value("perplexity")?, kl: value("kl/mean")?, kl_p99: value("kl/p99")?, top1: value("top1")? })
    }

    /// What a run takes.
    pub(super) fn cost(&self, models: &[&PathBuf], baseline: Option<&Path>, text: &Path) -> Result<Cost, String> {
        let models: Vec<&Path> = models.iter().map(|path| path.as_path()).collect();
        let mut command = self.command(&models, text);
        if let Some(baseline) = baseline {
            command.arg("--baseline").arg(baseline);
        }
        Ok(run(&mut command)?.1)
    }
}

/// Converts to GGUF unless an earlier run has left the file.
pub(super) fn convert(forge: &Path, source: &Path, vocabulary: Option<&Path>, encoding: &str, out: &Path) -> Result<(), String> {
    let changed = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
    if changed(out) > changed(source) && changed(out) > changed(forge) {
        return Ok(());
    }
    let mut command = Command::new(forge);
    command.args(["--quiet", "convert"]).arg(source).args(["--to", "gguf", "--type", encoding, "--force", "--no-verify", "-o"]).arg(out);
    if let Some(vocabulary) = vocabulary {
        command.arg("--vocab").arg(vocabulary);
    }
    capture(&mut command).map(drop)
}

/// Whether two files of saved logits are of the same tokens: their beginnings, up to the logits, are the same bytes.
pub(super) fn same_tokens(ours: &Path, theirs: &Path) -> Result<bool, String> {
    // Eight letters, then context, vocabulary and chunks, then a token for each place of each chunk, all in four bytes.
    let beginning = |path: &Path| -> Result<Vec<u8>, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let mut file = File::open(path).map_err(failed)?;
        let mut head = [0; 20];
        file.read_exact(&mut head).map_err(failed)?;
        let field = |at: usize| u64::from(u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
        let length = field(8) * field(16) * 4;
        let mut out = head.to_vec();
        file.take(length).read_to_end(&mut out).map_err(failed)?;
        Ok(out)
    };
    let length = |path: &Path| path.metadata().map(|data| data.len()).map_err(|error| format!("{}: {error}", path.display()));
    Ok(beginning(ours)? == beginning(theirs)? && length(ours)? == length(theirs)?)
}

/// Runs to the end; what was printed to both streams, and what it took.
fn run(command: &mut Command) -> Result<(String, Cost), String> {
    let begun = Instant::now();
    let failed = |error: std::io::Error| error.to_string();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    // One after the other: written to one pipe, they would be cut where a buffer is full.
    let readers = [child.stdout.take().map(reading), child.stderr.take().map(reading)];
    let mut peak = None;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        peak = peak.max(resident(child.id()));
        std::thread::sleep(Duration::from_millis(5));
    };
    let seconds = begun.elapsed().as_secs_f64();
    let mut printed = String::new();
    for reader in readers.into_iter().flatten() {
        printed += &reader.join().map_err(|_| "reading what a program printed failed".to_owned())?.map_err(failed)?;
        printed.push('\n');
    }
    if !status.success() {
        let tail: Vec<&str> = printed.lines().rev().take(12).collect();
        return Err(format!("{command:?}: {status}\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n")));
    }
    Ok((printed, Cost { seconds, peak, tokens: 0.0 }))
}

/// Reads a stream to its end, so that the program never waits for room in it.
fn reading(mut stream: impl Read + Send + 'static) -> std::thread::JoinHandle<std::io::Result<String>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    })
}

/// The peak of a process so far, in bytes.
fn resident(id: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// `eval`'s document, between whatever else was printed.
fn document(printed: &str) -> Result<Value, String> {
    let start = printed.find('{').ok_or("eval printed no document")?;
    let first = serde_json::Deserializer::from_str(&printed[start..]).into_iter().next();
    first.ok_or("eval printed no document")?.map_err(|error| format!("eval's document: {error}"))
}

fn number(document: &Value, pointer: &str) -> Result<f64, String> {
    document.pointer(pointer).and_then(Value::as_f64).ok_or_else(|| format!("eval's document has no number at {pointer}"))
}

/// The number between two pieces of text.
fn between(text: &str, before: &str, after: &str) -> Option<f64> {
    text.split_once(before)?.1.split_once(after)?.0.trim().parse().ok()
}

/// The first numbers after a label, whose spaces may be as wide as they like.
fn numbers(printed: &str, label: &str) -> Result<Vec<f64>, String> {
    let found = printed.lines().find_map(|line| {
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        line.split_once(label).map(|(_, rest)| rest.to_owned())
    });
    let tail = || printed.trim_end().lines().rev().take(4).collect::<Vec<_>>().join("\n");
    let rest =
        found.ok_or_else(|| format!("llama-perplexity printed no line with {label:?}; its last lines, the last one first:\n{}", tail()))?;
    Ok(rest.split_whitespace().filter_map(|word| word.trim_end_matches('%').parse().ok()).collect())
}

fn estimate(printed: &str, label: &str) -> Result<Estimate, String> {
    match numbers(printed, label)?[..] {
        [value, error, ..] => Ok(Estimate { value, error }),
        _ => Err(format!("llama-perplexity printed no value and error after {label:?}")),
    }
}

fn parse(printed: &str) -> Result<Divergence, String> {
    let top1 = estimate(printed, "Same top p:")?;
    Ok(Divergence {
        perplexity: estimate(printed, "Mean PPL(Q) :")?,
        base: estimate(printed, "Mean PPL(base) :")?,
        log_ratio: estimate(printed, "Mean ln(PPL(Q)/PPL(base)) :")?,
        kl: estimate(printed, "Mean KLD:")?,
        kl_p99: numbers(printed, "99.0% KLD:")?.first().copied().ok_or("llama-perplexity printed no 99 % KLD")?,
        top1: Estimate { value: top1.value / 100.0, error: top1.error / 100.0 },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_llama_perplexity_prints_is_read() {
        let printed = "0.1 I perplexity: calculating perplexity over 13 chunks, n_ctx=512\n0.35.756.705 I Final estimate: PPL = 6.4550 +/- 0.21057\n\
            Mean PPL(Q)                   :   6.505273 ±   0.212611\nMean PPL(base)                :   6.454964 ±   0.210571\n\
            Mean ln(PPL(Q)/PPL(base))     :   0.007764 ±   0.001799\nMean    KLD:   0.005528 ±   0.000170\n99.9%   KLD:   0.101794\n\
            99.0%   KLD:   0.045337\nSame top p: 94.691 ± 0.389 %\n";
        assert_eq!(estimate(printed, "Final estimate: PPL =").unwrap(), Estimate { value: 6.455, error: 0.21057 });
        assert_eq!(between(printed, "perplexity over ", " chunks"), Some(13.0));
        let found = parse(printed).unwrap();
        assert_eq!((found.perplexity.value, found.base.value, found.log_ratio.error), (6.505273, 6.454964, 0.001799));
        assert_eq!((found.kl, found.kl_p99), (Estimate { value: 0.005528, error: 0.00017 }, 0.045337));
        assert!((found.top1.value - 0.94691).abs() < 1e-12 && (found.top1.error - 0.00389).abs() < 1e-12);
        assert!(parse("nothing").is_err());
    }
}
