//! Speed: `rwkv-forge bench` and other people's programs on the same files with the same threads, in turns.
//!
//! Every round runs each program once on each file, ours first in every other round, so that whatever else the machine does
//! meets both alike; ratios are taken within a round. Start at [`run`]; [`Peer`] is what a program has to offer.

mod programs;
mod report;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::tools::{Workshop, capture};
use programs::{Llama, Package, RwkvCpp};
pub use report::Report;

/// What is measured, and how often.
pub struct Request {
    /// Readable models, each with its vocabulary if it needs one.
    pub models: Vec<(PathBuf, Option<PathBuf>)>,
    /// Numbers of threads.
    pub threads: Vec<usize>,
    /// Rounds.
    pub rounds: usize,
    /// Types of GGUF files.
    pub types: Vec<String>,
    /// Names of peers: llama, package, rwkv-cpp.
    pub peers: Vec<String>,
}

impl Default for Request {
    fn default() -> Self {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        Self {
            models: Vec::new(),
            threads: vec![1, 2],
            rounds: 3,
            types: names(&["f16", "q8_0", "q4_0", "q4_k_m", "q5_k_m", "q6_k", "iq4_xs"]),
            peers: names(&["llama", "package", "rwkv-cpp"]),
        }
    }
}

/// Tokens that are generated at a time.
const TOKENS: usize = 64;
/// Lengths of prompts.
const PROMPTS: [usize; 2] = [128, 512];
/// Measurements of each kind in one run of a program, besides one that does not count.
const REPEAT: usize = 3;

/// Tokens a second of one run of a program: medians over its measurements.
#[derive(Clone, Debug, Default)]
struct Rates {
    decode: f64,
    prompts: [f64; PROMPTS.len()],
}

/// A file that both programs read.
#[derive(Clone)]
struct Case {
    model: String,
    encoding: String,
    file: PathBuf,
}

/// Somebody else's program.
trait Peer {
    /// What it is called in the report.
    fn name(&self) -> String;
    /// What a reader should know about the comparison.
    fn remark(&self) -> &'static str;
    /// The files of a model that it reads; none if it does not know the model.
    fn cases(&self, shop: &Workshop, model: &Path, vocabulary: Option<&Path>, request: &Request) -> Result<Vec<Case>, String>;
    /// Runs it.
    fn rates(&self, file: &Path, threads: usize) -> Result<Rates, String>;
    /// Its peak of resident memory while it decodes a few tokens, if that is known.
    fn memory(&self, file: &Path, threads: usize) -> Result<Option<u64>, String>;
}

/// All rounds of one case with one number of threads.
struct Row {
    case: Case,
    threads: usize,
    ours: Vec<Rates>,
    theirs: Vec<Rates>,
    /// Our share of the machine's read bandwidth while decoding, of each round.
    shares: Vec<f64>,
    file_bytes: u64,
    our_memory: Option<u64>,
    their_memory: Option<u64>,
}

/// Builds and converts what is missing, runs all rounds.
pub fn run(request: &Request) -> Result<Report, String> {
    if request.models.is_empty() {
        return Err("speed needs at least one --model FILE; `just synthetic` makes a 0.4B".to_owned());
    }
    let shop = Workshop::new("speed", 1)?;
    let mut peers: Vec<Box<dyn Peer>> = Vec::new();
    for name in &request.peers {
        match name.as_str() {
            "llama" => peers.push(Box::new(Llama::new(&shop)?)),
            "package" => peers.push(Box::new(Package::new(&shop)?)),
            "rwkv-cpp" => match RwkvCpp::new(&shop)? {
                Some(peer) => peers.push(Box::new(peer)),
                None => eprintln!("note: RWKV_CPP names no build of rwkv.cpp, so it is left out"),
            },
            other => return Err(format!("no peer named {other}: expected llama, package or rwkv-cpp")),
        }
    }
    let mut tables = Vec::new();
    let mut machine = None;
    for peer in &peers {
        let mut rows = Vec::new();
        for (model, vocabulary) in &request.models {
            for case in peer.cases(&shop, model, vocabulary.as_deref(), request)? {
                rows.extend(request.threads.iter().map(|threads| Row::new(case.clone(), *threads)).collect::<Result<Vec<_>, _>>()?);
            }
        }
        for round in 0..request.rounds {
            for row in &mut rows {
                eprintln!("round {}, {}: {} {}, {} threads", round + 1, peer.name(), row.case.model, row.case.encoding, row.threads);
                row.round(&shop, peer.as_ref(), round, &mut machine)?;
            }
        }
        for row in &mut rows {
            row.memory(&shop, peer.as_ref())?;
        }
        tables.push((peer.name(), peer.remark(), rows));
    }
    Ok(Report::new(machine.unwrap_or_default(), tables))
}

impl Row {
    fn new(case: Case, threads: usize) -> Result<Self, String> {
        let file_bytes = case.file.metadata().map_err(|error| format!("{}: {error}", case.file.display()))?.len();
        let (ours, theirs, shares) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { case, threads, ours, theirs, shares, file_bytes, our_memory: None, their_memory: None })
    }

    fn round(&mut self, shop: &Workshop, peer: &dyn Peer, round: usize, machine: &mut Option<Value>) -> Result<(), String> {
        let file = &self.case.file;
        let before = if round % 2 == 1 { Some(peer.rates(file, self.threads)?) } else { None };
        let prompts = PROMPTS.map(|length| length.to_string()).join(",");
        let document =
            bench(shop, file, self.threads, &["--tokens", &TOKENS.to_string(), "--repeat", &REPEAT.to_string(), "--prompt", &prompts])?;
        let rate = |path: &str| number(&document, &format!("/models/0/{path}/tokens_per_second/median"));
        let mut ours = Rates { decode: rate("decode")?, ..Rates::default() };
        for (index, prompt) in ours.prompts.iter_mut().enumerate() {
            *prompt = rate(&format!("prompt/{index}"))?;
        }
        self.ours.push(ours);
        self.shares.push(number(&document, "/models/0/decode/bandwidth_share")?);
        self.theirs.push(before.map_or_else(|| peer.rates(file, self.threads), Ok)?);
        machine.get_or_insert_with(|| document["machine"].clone());
        Ok(())
    }

    fn memory(&mut self, shop: &Workshop, peer: &dyn Peer) -> Result<(), String> {
        let file = &self.case.file;
        self.their_memory = peer.memory(file, self.threads)?;
        if self.their_memory.is_some() {
            let document = bench(shop, file, self.threads, &["--tokens", "8", "--repeat", "1", "--prompt", "0"])?;
            self.our_memory = document["process_resident_bytes"].as_u64();
        }
        Ok(())
    }
}

/// Our program's JSON document.
fn bench(shop: &Workshop, file: &Path, threads: usize, options: &[&str]) -> Result<Value, String> {
    let mut command = Command::new(&shop.forge);
    command.args(["--quiet", "--json", "--threads", &threads.to_string(), "bench", "--loads", "1"]).arg(file).args(options);
    serde_json::from_str(&capture(&mut command)?).map_err(|error| format!("the document of {command:?}: {error}"))
}

fn number(document: &Value, pointer: &str) -> Result<f64, String> {
    document.pointer(pointer).and_then(Value::as_f64).ok_or_else(|| format!("the document has no number at {pointer}"))
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}
