//! The programs that ours is compared with.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{Case, PROMPTS, Peer, REPEAT, Rates, Request, TOKENS, median};
use crate::llama::build_llama;
use crate::tools::{Workshop, capture};

/// llama-bench, llama.cpp's own measuring program, on our GGUF files.
pub(super) struct Llama {
    root: PathBuf,
    folder: PathBuf,
    /// Where its library without AMX is, once the one with AMX has crashed.
    without_amx: OnceCell<PathBuf>,
}

impl Llama {
    pub(super) fn new(shop: &Workshop) -> Result<Self, String> {
        let folder = build_llama(&shop.root, &["llama-bench"])?;
        Ok(Self { root: shop.root.clone(), folder, without_amx: OnceCell::new() })
    }

    /// Lets llama.cpp read a prompt, and turns its AMX off if it crashes.
    fn probe(&self, file: &Path) -> Result<(), String> {
        let prompt = || capture(&mut self.command(file, 1, ["-r", "1", "-n", "0", "-p", "128"]));
        match prompt() {
            Err(message) if message.contains("signal: ") && self.without_amx.get().is_none() => {
                eprintln!("note: llama-bench crashes on {}: it runs without AMX", file.display());
                let script = self.root.join("peers/llama/build-without-amx.sh");
                let folder = capture(Command::new(script).arg(&self.folder).stderr(Stdio::inherit()))?;
                self.without_amx.get_or_init(|| PathBuf::from(folder.trim()));
                prompt().map(drop)
            }
            other => other.map(drop),
        }
    }

    fn command(&self, file: &Path, threads: usize, options: [&str; 6]) -> Command {
        let mut command = Command::new(self.folder.join("build/bin/llama-bench"));
        if let Some(library) = self.without_amx.get() {
            command.env("LD_LIBRARY_PATH", library);
        }
        command.args(["-t", &threads.to_string(), "-o", "json", "-m"]).arg(file).args(options);
        command
    }
}

impl Peer for Llama {
    fn name(&self) -> String {
        "llama.cpp (llama-bench)".to_owned()
    }

    fn remark(&self) -> &'static str {
        match self.without_amx.get() {
            None => "Both read the same GGUF file.",
            Some(_) => {
                "Both read the same GGUF file. llama.cpp's kernels for AMX, which this processor announces, crash here: it ran without them."
            }
        }
    }

    fn cases(&self, shop: &Workshop, model: &Path, vocabulary: Option<&Path>, request: &Request) -> Result<Vec<Case>, String> {
        let types = request.types.iter().map(String::as_str).collect::<Vec<_>>();
        let cases = converted(shop, model, vocabulary, "gguf", &types)?;
        // Before anything is measured, so that all of it is measured with the same library.
        cases.iter().try_for_each(|case| self.probe(&case.file))?;
        Ok(cases)
    }

    fn rates(&self, file: &Path, threads: usize) -> Result<Rates, String> {
        let [repeat, tokens, prompts] = [REPEAT.to_string(), TOKENS.to_string(), PROMPTS.map(|length| length.to_string()).join(",")];
        let output = capture(&mut self.command(file, threads, ["-r", &repeat, "-n", &tokens, "-p", &prompts]))?;
        let document: Value = serde_json::from_str(&output).map_err(|error| format!("what llama-bench printed: {error}"))?;
        let test = |generated: usize, prompt: usize| {
            let tests = document.as_array().into_iter().flatten();
            let found = tests.into_iter().find(|test| test["n_gen"] == generated && test["n_prompt"] == prompt);
            let samples = found.and_then(|test| test["samples_ts"].as_array()).ok_or("llama-bench printed no samples")?;
            Ok::<_, String>(median(samples.iter().filter_map(Value::as_f64)))
        };
        let mut rates = Rates { decode: test(TOKENS, 0)?, ..Rates::default() };
        for (rate, length) in rates.prompts.iter_mut().zip(PROMPTS) {
            *rate = test(0, length)?;
        }
        Ok(rates)
    }

    fn memory(&self, file: &Path, threads: usize) -> Result<Option<u64>, String> {
        let mut command = self.command(file, threads, ["-r", "1", "-n", "8", "-p", "0"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(|error| format!("llama-bench: {error}"))?;
        peak(child)
    }
}

/// The rwkv package on the original checkpoint.
pub(super) struct Package {
    python: PathBuf,
    script: PathBuf,
    forge: PathBuf,
}

impl Package {
    pub(super) fn new(shop: &Workshop) -> Result<Self, String> {
        let python = capture(Command::new(shop.root.join("peers/python/setup.sh")).stderr(Stdio::inherit()))?;
        let script = shop.root.join("peers/python/speed.py");
        Ok(Self { python: PathBuf::from(python.trim()), script, forge: shop.forge.clone() })
    }
}

impl Peer for Package {
    fn name(&self) -> String {
        "the rwkv package".to_owned()
    }

    fn remark(&self) -> &'static str {
        "Both read the same .pth; the package computes with weights in float32, ours with those that the file holds."
    }

    fn cases(&self, _: &Workshop, model: &Path, _: Option<&Path>, _: &Request) -> Result<Vec<Case>, String> {
        if model.extension().is_none_or(|extension| extension != "pth") {
            eprintln!("note: the rwkv package reads .pth alone: {} is left out", model.display());
            return Ok(Vec::new());
        }
        Ok(vec![Case { model: stem(model), encoding: "pth".to_owned(), file: model.to_owned() }])
    }

    fn rates(&self, file: &Path, threads: usize) -> Result<Rates, String> {
        let document = capture(Command::new(&self.forge).args(["--json", "inspect"]).arg(file))?;
        let document: Value = serde_json::from_str(&document).map_err(|error| format!("{}: {error}", file.display()))?;
        // "RWKV-7", "RWKV-5.2": the package asks for the first digit.
        let version = document["model"]["version"].as_str().unwrap_or_default();
        let version = version.chars().find(char::is_ascii_digit).ok_or_else(|| format!("{}: of which version?", file.display()))?;
        let prompts = PROMPTS.map(|length| length.to_string()).join(",");
        let mut command = Command::new(&self.python);
        command.arg(&self.script).arg(file).arg(version.to_string());
        command.args([threads, TOKENS, REPEAT].map(|number| number.to_string())).arg(prompts);
        let document: Value = serde_json::from_str(&capture(&mut command)?).map_err(|error| format!("what speed.py printed: {error}"))?;
        let rate = |samples: &Value| median(samples.as_array().into_iter().flatten().filter_map(Value::as_f64));
        Ok(Rates { decode: rate(&document["decode"]), prompts: PROMPTS.map(|length| rate(&document["prompt"][length.to_string()])) })
    }

    fn memory(&self, _: &Path, _: usize) -> Result<Option<u64>, String> {
        Ok(None)
    }
}

/// rwkv.cpp, if `$RWKV_CPP` is the folder of a build: `include` or the root with `rwkv.h`, and `librwkv.so`.
pub(super) struct RwkvCpp {
    program: PathBuf,
}

impl RwkvCpp {
    pub(super) fn new(shop: &Workshop) -> Result<Option<Self>, String> {
        let Some(folder) = std::env::var_os("RWKV_CPP").map(PathBuf::from) else { return Ok(None) };
        let find = |name: &str| {
            let places = ["", "include", "build", "build/bin", "bin/Release"].map(|place| folder.join(place));
            places.into_iter().find(|place| place.join(name).exists()).ok_or_else(|| format!("RWKV_CPP: no {name} in {}", folder.display()))
        };
        let (header, library) = (find("rwkv.h")?, find("librwkv.so")?);
        let program = shop.work.join("rwkv-cpp-speed");
        let mut compiler = Command::new(std::env::var_os("CXX").unwrap_or_else(|| "g++".into()));
        compiler.args(["-O2", "-std=c++17"]).arg(shop.root.join("peers/rwkv_cpp/speed.cpp")).arg("-o").arg(&program);
        compiler.arg("-I").arg(header).arg("-L").arg(&library).arg("-lrwkv").arg(format!("-Wl,-rpath,{}", library.display()));
        capture(&mut compiler)?;
        Ok(Some(Self { program }))
    }
}

impl Peer for RwkvCpp {
    fn name(&self) -> String {
        "rwkv.cpp".to_owned()
    }

    fn remark(&self) -> &'static str {
        "Both read the same .bin file."
    }

    fn cases(&self, shop: &Workshop, model: &Path, vocabulary: Option<&Path>, _: &Request) -> Result<Vec<Case>, String> {
        converted(shop, model, vocabulary, "rwkv-cpp", &["f16", "q8_0", "q4_0"])
    }

    fn rates(&self, file: &Path, threads: usize) -> Result<Rates, String> {
        let mut command = Command::new(&self.program);
        command.arg(file).args([threads, TOKENS, REPEAT].map(|number| number.to_string())).args(PROMPTS.map(|length| length.to_string()));
        let rates: Vec<f64> = capture(&mut command)?.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        match rates[..] {
            [decode, a, b] => Ok(Rates { decode, prompts: [a, b] }),
            _ => Err(format!("rwkv.cpp's program printed {rates:?}")),
        }
    }

    fn memory(&self, _: &Path, _: usize) -> Result<Option<u64>, String> {
        Ok(None)
    }
}

/// The files of a model in a container, converted unless an earlier run has left them.
fn converted(shop: &Workshop, model: &Path, vocabulary: Option<&Path>, container: &str, types: &[&str]) -> Result<Vec<Case>, String> {
    let convert = |encoding: &&str| {
        let file = shop.work.join(format!("{}-{encoding}.{container}", stem(model)));
        let changed = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
        if changed(&file) <= changed(model) {
            let mut command = Command::new(&shop.forge);
            command.args(["--quiet", "convert"]).arg(model).args(["--to", container, "--type", encoding, "--force", "--no-verify", "-o"]);
            command.arg(&file);
            if let Some(vocabulary) = vocabulary {
                command.arg("--vocab").arg(vocabulary);
            }
            capture(&mut command)?;
        }
        Ok(Case { model: stem(model), encoding: (*encoding).to_owned(), file })
    };
    types.iter().map(convert).collect()
}

fn stem(model: &Path) -> String {
    model.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The peak of a program's resident memory, looked at until it ends; `None` where the system does not say.
fn peak(mut child: Child) -> Result<Option<u64>, String> {
    let mut peak = None;
    loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            return if status.success() { Ok(peak) } else { Err(format!("the program whose memory was watched ended with {status}")) };
        }
        let text = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let bytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).map(|kilobytes| kilobytes * 1024);
        peak = peak.max(bytes);
        std::thread::sleep(Duration::from_millis(5));
    }
}
