//! Perplexity and divergence: `rwkv-forge eval --protocol llama` and llama-perplexity on the same files and the same text.
//!
//! For every model an f16 file is the baseline. Each other file is measured against it by both programs, and by llama-perplexity
//! against the logits that ours has saved of the very same file: that divergence is what the two runtimes differ by, and the bound
//! for everything else. Start at [`run`]; `programs.rs` runs the two, `checks.rs` says what has to hold, `report.rs` prints.

mod checks;
mod programs;
mod report;

use std::path::{Path, PathBuf};

use crate::tools::Workshop;
use checks::{Check, Measured};
use programs::{Cost, Eval, Llama};
pub use report::Report;

/// What is compared.
#[derive(Default)]
pub struct Request {
    /// A model and its vocabulary; without, the fixtures, and the trained RWKV-7 where it is there.
    pub model: Option<(PathBuf, Option<PathBuf>)>,
    /// The text; without, the oracles'.
    pub text: Option<PathBuf>,
    /// Bytes of the text that are read at most.
    pub bytes: Option<usize>,
    /// Types of the files besides f16.
    pub types: Vec<String>,
    /// Threads of both.
    pub threads: Option<usize>,
    /// Rounds of measuring speed and memory; none without.
    pub rounds: usize,
}

/// Tokens of a chunk: llama-perplexity's default.
const CONTEXT: usize = 512;
const BASELINE: &str = "f16";

/// One model with what is measured of it.
struct Subject {
    name: String,
    source: PathBuf,
    vocabulary: Option<PathBuf>,
    types: Vec<String>,
    /// Bytes of the text.
    bytes: usize,
}

/// Both programs' figures of one file.
struct Row {
    model: String,
    encoding: String,
    measured: Measured,
    checks: Vec<Check>,
}

/// Speed and memory of one file in both programs.
struct Speed {
    model: String,
    encoding: String,
    /// `perplexity`, or `divergence`: two models in one run of ours and in two of llama-perplexity.
    task: &'static str,
    tokens: f64,
    ours: Vec<Cost>,
    theirs: Vec<Cost>,
}

/// Builds and converts what is missing, runs both programs and compares.
pub fn run(request: &Request) -> Result<Report, String> {
    let shop = Workshop::new("perplexity", 1)?;
    let threads = request.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let mut llama = Llama::new(&shop, threads)?;
    let (mut rows, mut speeds) = (Vec::new(), Vec::new());
    for subject in subjects(&shop, request)? {
        let text = text(&shop, &subject, request)?;
        let files = subject.files(&shop)?;
        // Before anything is measured, so that all of it is measured with the same library.
        files.iter().try_for_each(|(_, file)| llama.probe(file, &text))?;
        let eval = Eval { forge: shop.forge.clone(), threads, vocabulary: subject.vocabulary.clone() };
        let bench = Bench { shop: &shop, llama: &llama, eval: &eval, text: &text };
        rows.extend(bench.compare(&subject, &files)?);
        for round in 0..request.rounds {
            bench.round(&subject, &files, round, &mut speeds)?;
        }
    }
    Ok(Report { threads, without_amx: llama.without_amx(), rows, speeds })
}

/// What the request asks for, or what there is.
fn subjects(shop: &Workshop, request: &Request) -> Result<Vec<Subject>, String> {
    let types = |default: &[&str]| {
        if request.types.is_empty() { default.iter().map(|name| (*name).to_owned()).collect() } else { request.types.clone() }
    };
    let subject = |source: PathBuf, vocabulary: Option<PathBuf>, default: &[&str], bytes: usize| Subject {
        name: source.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        types: types(default),
        bytes: request.bytes.unwrap_or(bytes),
        source,
        vocabulary,
    };
    if let Some((model, vocabulary)) = &request.model {
        return Ok(vec![subject(model.clone(), vocabulary.clone(), &["q8_0", "q4_k_m"], 12_000)]);
    }
    let fixtures = shop.root.join("fixtures/checkpoints");
    // Rows of 128 values are too short for blocks of 256.
    let tiny = |version| subject(shop.fixture(version), Some(fixtures.join("vocab-320.txt")), &["q8_0", "q5_1", "q4_0"], 8_000);
    let mut out = vec![tiny(6), tiny(7)];
    let data = shop.root.join("../shared/data/checkpoints");
    let trained = data.join("small-rwkv7.pth");
    if trained.exists() {
        out.push(subject(trained, Some(data.join("vocab-4096.txt")), &["q8_0", "q6_k", "q4_k_m"], 6_000));
    } else {
        eprintln!("note: {} is not there, so the fixtures alone are compared", trained.display());
    }
    Ok(out)
}

/// The beginning of the text as a file of its own, so that both programs read the same bytes.
fn text(shop: &Workshop, subject: &Subject, request: &Request) -> Result<PathBuf, String> {
    let path = request.text.clone().unwrap_or_else(|| shop.root.join("fixtures/text/public-domain-100k.txt"));
    let whole = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let end = whole.floor_char_boundary(subject.bytes.min(whole.len()));
    let out = shop.work.join(format!("{}.txt", subject.name));
    std::fs::write(&out, &whole[..end]).map_err(|error| format!("{}: {error}", out.display()))?;
    Ok(out)
}

impl Subject {
    /// The baseline and the other files, converted.
    fn files(&self, shop: &Workshop) -> Result<Vec<(String, PathBuf)>, String> {
        let convert = |encoding: &str| {
            let out = shop.work.join(format!("{}-{encoding}.gguf", self.name));
            programs::convert(&shop.forge, &self.source, self.vocabulary.as_deref(), encoding, &out)?;
            Ok((encoding.to_owned(), out))
        };
        [BASELINE].into_iter().chain(self.types.iter().map(String::as_str)).map(convert).collect()
    }
}

/// Both programs and what they read.
struct Bench<'a> {
    shop: &'a Workshop,
    llama: &'a Llama,
    eval: &'a Eval,
    text: &'a Path,
}

impl Bench<'_> {
    /// Measures every file by both programs, and says what does not hold.
    fn compare(&self, subject: &Subject, files: &[(String, PathBuf)]) -> Result<Vec<Row>, String> {
        let work = |name: &str| self.shop.work.join(format!("{}-{name}", subject.name));
        let baseline = &files[0].1;
        let their_base = work("theirs.kld");
        eprintln!("{}: llama-perplexity and eval on {} files", subject.name, files.len());
        let their_perplexity = self.llama.perplexity(baseline, self.text, Some(&their_base))?;
        let mut all = Vec::new();
        for (encoding, file) in files {
            let own = work(&format!("ours-{encoding}.kld"));
            // Each file's logits by ours, read by theirs on the same file.
            let alone = self.eval.alone(file, self.text, Some(&own))?;
            let runtimes = self.llama.divergence(file, &own)?;
            let against = if file == baseline {
                None
            } else {
                let theirs = self.llama.divergence(file, &their_base)?;
                let [ours, rounded] = [false, true].map(|int8| self.eval.against(file, baseline, self.text, int8));
                Some((theirs, ours?, rounded?))
            };
            let same_tokens = programs::same_tokens(&own, &their_base)?;
            all.push((encoding, Measured { perplexity: alone, their_perplexity: None, runtimes, against, same_tokens }));
        }
        all[0].1.their_perplexity = Some(their_perplexity);
        let baseline_flips = 1.0 - all[0].1.runtimes.top1.value;
        // Another file's figures in place of a file's own: the bounds have to notice.
        let planted = self.planted(files, &work)?;
        let mut rows: Vec<Row> = all
            .into_iter()
            .map(|(encoding, measured)| Row {
                model: subject.name.clone(),
                encoding: encoding.clone(),
                checks: checks::all(encoding, &measured, baseline_flips),
                measured,
            })
            .collect();
        if let Some((encoding, check)) = planted {
            rows.iter_mut().filter(|row| row.encoding == encoding).for_each(|row| row.checks.push(check.clone()));
        }
        Ok(rows)
    }

    /// llama-perplexity reads our logits of the first quantized file and computes the last.
    fn planted(&self, files: &[(String, PathBuf)], work: &impl Fn(&str) -> PathBuf) -> Result<Option<(String, Check)>, String> {
        let [_, first, .., last] = files else { return Ok(None) };
        let found = self.llama.divergence(&last.1, &work(&format!("ours-{}.kld", first.0)))?;
        Ok(Some((first.0.clone(), checks::planted(&first.0, &last.0, &found))))
    }

    /// One round of both tasks on every file, ours first in every other round.
    fn round(&self, subject: &Subject, files: &[(String, PathBuf)], round: usize, speeds: &mut Vec<Speed>) -> Result<(), String> {
        let baseline = &files[0].1;
        let base = self.shop.work.join(format!("{}-speed.kld", subject.name));
        for (encoding, file) in files {
            let tasks: &[&'static str] = if file == baseline { &["perplexity"] } else { &["perplexity", "divergence"] };
            for &task in tasks {
                eprintln!("round {}: {} {encoding}, {task}", round + 1, subject.name);
                let ours = || match task {
                    "perplexity" => self.eval.cost(&[file], None, self.text),
                    _ => self.eval.cost(&[file], Some(baseline), self.text),
                };
                let theirs = || match task {
                    "perplexity" => self.llama.cost_of_perplexity(file, self.text, None),
                    _ => {
                        let first = self.llama.cost_of_perplexity(baseline, self.text, Some(&base))?;
                        Ok::<_, String>(first.then(self.llama.cost_of_divergence(file, &base)?))
                    }
                };
                let (ours, theirs) = if round.is_multiple_of(2) {
                    let ours = ours()?;
                    (ours, theirs()?)
                } else {
                    let theirs = theirs()?;
                    (ours()?, theirs)
                };
                let same = |speed: &&mut Speed| speed.model == subject.name && speed.encoding == *encoding && speed.task == task;
                match speeds.iter_mut().find(same) {
                    Some(speed) => {
                        speed.ours.push(ours);
                        speed.theirs.push(theirs);
                    }
                    None => speeds.push(Speed {
                        model: subject.name.clone(),
                        encoding: encoding.clone(),
                        task,
                        tokens: theirs.tokens,
                        ours: vec![ours],
                        theirs: vec![theirs],
                    }),
                }
            }
        }
        Ok(())
    }
}
