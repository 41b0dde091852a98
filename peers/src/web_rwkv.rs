//! web-rwkv on a Vulkan driver, such as Mesa's for the processor: our `.st` and `.prefab` files, token by token.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::agreement::Bound;
use crate::npy::Matrix;
use crate::plant::{ROWS_SWAPPED, swap_rows};
use crate::table::{Fact, Report, Row};
use crate::tools::{Workshop, build, capture};

const TOKENS: usize = 128;

/// Activations in float32.
static WIDE: Bound = Bound {
    encoding: "activations in f32",
    max_abs: 1.2e-2,
    rms_ratio: 2e-4,
    top1: 0.98,
    kl_mean: 5e-7,
    why: "web-rwkv reads a token's embedding into f16 (11 bits) and normalises it there",
    planted: ROWS_SWAPPED,
};

/// Activations in float16.
static NARROW: Bound = Bound {
    encoding: "activations in f16",
    max_abs: 5e-2,
    rms_ratio: 1e-3,
    top1: 0.97,
    kl_mean: 5e-6,
    why: "web-rwkv rounds every intermediate vector to f16 (11 bits)",
    planted: ROWS_SWAPPED,
};

const REMARKS: &[&str] = &[
    "Prefabs byte by byte: web-rwkv quantizes and takes exponentials (the decay of RWKV-4 and RWKV-5) on the graphics adapter, whose division and exp are not ours to the last bit. In int8 RWKV-5 and RWKV-6 are not compared: the fixtures' rows of 448 values are no whole blocks of 128; web-rwkv lets blocks run across rows, we leave that matrix in f16, which web-rwkv reads as well.",
    "Mesa's driver now and then crashes while the process ends, after the result; the program here leaves without its destructors.",
];

/// Runs all comparisons.
pub fn run() -> Result<Report, String> {
    let shop = Workshop::new("web-rwkv", TOKENS)?;
    let program = build(&shop.root, "web_rwkv", "web-rwkv-logits")?;
    let mut peer = Peer { shop, program, adapter: String::new() };
    let (mut rows, mut facts) = (Vec::new(), Vec::new());
    for version in 4..=7 {
        peer.st(version, &mut rows)?;
    }
    for version in 4..=7 {
        peer.prefab(version, &mut rows)?;
        peer.same_prefabs(version, &mut facts)?;
    }
    Ok(Report {
        peer: format!("web-rwkv 0.10.20 on {}", peer.adapter),
        about: format!("Token by token, {TOKENS} tokens; both read the same file."),
        rows,
        facts,
        bounds: vec![&WIDE, &NARROW],
        remarks: REMARKS.to_vec(),
    })
}

struct Peer {
    shop: Workshop,
    program: PathBuf,
    /// The graphics adapter that web-rwkv took.
    adapter: String,
}

impl Peer {
    fn theirs(&mut self, file: &Path, version: u8, activations: &str) -> Result<Matrix, String> {
        let mut command = Command::new("nice");
        command.arg(&self.program).arg(file).args([&version.to_string(), activations]).arg(&self.shop.tokens);
        let (logits, adapter) = self.shop.theirs(&mut command)?;
        self.adapter = adapter;
        Ok(logits)
    }

    fn st(&mut self, version: u8, rows: &mut Vec<Row>) -> Result<(), String> {
        let model = format!("tiny-rwkv{version}");
        let file = self.shop.convert(&self.shop.fixture(version), "web-rwkv", "f16", &format!("{model}.st"))?;
        let ours = self.shop.logits(&file)?;
        let wrong = self.shop.work.join("planted.st");
        swap_rows(&file, &wrong, "blocks.1.att.output.weight")?;
        for (activations, bound) in [("f32", &WIDE), ("f16", &NARROW)] {
            let path = bound.encoding;
            rows.push(Row::new([&model, "f16", path], "web-rwkv", bound, &ours, &self.theirs(&file, version, activations)?)?);
            let row = Row::new([&model, "f16", path], "web-rwkv", bound, &ours, &self.theirs(&wrong, version, activations)?)?;
            rows.push(row.planted(ROWS_SWAPPED));
        }
        Ok(())
    }

    /// Each type, and each with another type's file as a planted fault.
    fn prefab(&mut self, version: u8, rows: &mut Vec<Row>) -> Result<(), String> {
        let model = format!("tiny-rwkv{version}");
        let mut all = Vec::new();
        for encoding in ["f16", "int8", "nf4", "sf4"] {
            let file = self.shop.convert(&self.shop.fixture(version), "prefab", encoding, &format!("{model}-{encoding}.prefab"))?;
            all.push((encoding, self.shop.logits(&file)?, self.theirs(&file, version, "f32")?));
        }
        for (encoding, ours, theirs) in &all {
            let name = [model.as_str(), encoding, WIDE.encoding];
            rows.push(Row::new(name, "prefab", &WIDE, ours, theirs)?);
            let (planted, what) = if *encoding == "nf4" { ("sf4", "the file of sf4") } else { ("nf4", "the file of nf4") };
            let (_, _, wrong) = all.iter().find(|(other, ..)| *other == planted).ok_or("a planted type that was not measured")?;
            rows.push(Row::new(name, "prefab", &WIDE, ours, wrong)?.planted(what));
        }
        Ok(())
    }

    /// Our prefabs against those that web-rwkv itself writes from our `.st`, and a planted fault.
    fn same_prefabs(&self, version: u8, facts: &mut Vec<Fact>) -> Result<(), String> {
        let read = |path: PathBuf| std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()));
        let file = |name: &str| self.shop.work.join(format!("tiny-rwkv{version}{name}"));
        for encoding in ["f16", "int8", "nf4", "sf4"] {
            if encoding == "int8" && (version == 5 || version == 6) {
                continue;
            }
            let written = file("-theirs.prefab");
            let mut command = Command::new("nice");
            command.arg(&self.program).arg(file(".st")).args([&version.to_string(), "prefab", encoding]).arg(&written);
            capture(&mut command)?;
            let (ours, theirs) = (read(file(&format!("-{encoding}.prefab")))?, read(written)?);
            let limit = different_bytes(version, encoding, ours.len());
            let what = format!("prefab of tiny-rwkv{version} in {encoding} against web-rwkv's own");
            facts.push(Fact::bytes(what, &ours, &theirs, |count| count <= limit));
            if encoding == "nf4" {
                let what = format!("prefab of tiny-rwkv{version} in sf4 against web-rwkv's own in nf4 (planted)");
                facts.push(Fact::bytes(what, &read(file("-sf4.prefab"))?, &theirs, |count| count > limit));
            }
        }
        Ok(())
    }
}

/// How many bytes of a prefab may differ from web-rwkv's own: the decays of three layers of 128 channels, which web-rwkv
/// computes from stored logarithms on the adapter, and of int8 one code in 200 next to a boundary between two codes.
fn different_bytes(version: u8, encoding: &str, size: usize) -> usize {
    let decays = if version < 6 { 3 * 128 * 4 } else { 0 };
    decays + if encoding == "int8" { size / 200 } else { 0 }
}
