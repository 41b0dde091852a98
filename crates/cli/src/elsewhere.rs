//! Sources that lie elsewhere: nothing is downloaded here, and who names one is told what downloads it. Start at [`check`].

use std::path::Path;

use clap::ArgMatches;

use crate::commands::shell_word;
use crate::failure::Failure;

/// What addresses of repositories on the Hub begin with.
const HUB: [&str; 4] = ["https://huggingface.co/", "http://huggingface.co/", "https://hf.co/", "hf://"];
/// What stands between a repository and the name of a file in addresses of the Hub, with a revision after it.
const VIEWS: [&str; 4] = ["resolve", "blob", "tree", "raw"];

/// How something that lies elsewhere gets here.
#[derive(Debug, PartialEq, Eq)]
struct Elsewhere {
    /// What it is.
    what: String,
    /// The command that downloads it.
    download: String,
    /// Where it then lies.
    local: String,
}

/// Refuses addresses and names of repositories in the place of files.
///
/// # Errors
/// For the first of them.
pub(crate) fn check(matches: &ArgMatches) -> Result<(), Failure> {
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    for (path, is_model) in crate::inputs::read(matches) {
        let Some(named) = path.to_str() else { continue };
        let found = of_address(named).or_else(|| of_repository(named).filter(|_| is_model && is_absent(&path)));
        if let Some(found) = found {
            return Err(Failure::usage("NotDownloaded", found.message(named, &words)));
        }
    }
    Ok(())
}

/// Whether neither the path nor its folder exists: in a folder that does, a file may be called otherwise.
fn is_absent(path: &Path) -> bool {
    path.symlink_metadata().is_err() && path.parent().is_none_or(|folder| folder.symlink_metadata().is_err())
}

impl Elsewhere {
    fn of_hub(what: String, repository: &str, file: Option<&str>) -> Self {
        let name = repository.rsplit('/').next().unwrap_or(repository);
        let (wanted, local) = match file {
            Some(file) => (format!(" {}", shell_word(file)), format!("{name}/{file}")),
            None => (String::new(), name.to_owned()),
        };
        let download = format!("hf download {}{wanted} --local-dir {}", shell_word(repository), shell_word(name));
        Self { what, download, local }
    }

    fn message(&self, named: &str, words: &[String]) -> String {
        let Self { what, download, local } = self;
        let meant = |word: &String| match word.split_once('=') {
            _ if word == named => shell_word(local),
            Some((option, value)) if value == named && option.starts_with('-') => format!("{option}={}", shell_word(local)),
            Some(_) | None => shell_word(word),
        };
        let again = words.iter().map(meant).collect::<Vec<_>>().join(" ");
        format!("{what}, and nothing is downloaded by this program: run `{download}`, then `rwkv-forge {again}`")
    }
}

/// Of an address.
fn of_address(named: &str) -> Option<Elsewhere> {
    let page = |address: &str| address.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/').to_owned();
    if let Some(rest) = HUB.iter().find_map(|hub| named.strip_prefix(hub)) {
        let rest = page(rest);
        let parts: Vec<&str> = rest.split('/').collect();
        if let [organisation, name, rest @ ..] = parts.as_slice() {
            let file = match rest {
                [view, _, file @ ..] if VIEWS.contains(view) && !file.is_empty() => Some(file.join("/")),
                _ => None,
            };
            let repository = format!("{organisation}/{name}");
            return Some(Elsewhere::of_hub(format!("{named} is on the Hub"), &repository, file.as_deref()));
        }
    }
    let rest = named.strip_prefix("https://").or_else(|| named.strip_prefix("http://"))?;
    let local = page(rest).rsplit('/').next().filter(|_| rest.contains('/')).map_or_else(|| "FILE".to_owned(), str::to_owned);
    let download = format!("curl --location --output {} {}", shell_word(&local), shell_word(named));
    Some(Elsewhere { what: format!("{named} is an address"), download, local })
}

/// Of the name of a repository on the Hub, `ORG/NAME`, which is no path of a file by its ending.
fn of_repository(named: &str) -> Option<Elsewhere> {
    let (organisation, name) = named.split_once('/')?;
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphanumeric()) && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let ends_like_a_file =
        Path::new(name).extension().is_some_and(|ending| ending.len() > 1 && ending.to_string_lossy().chars().all(char::is_alphabetic));
    let what = || format!("no file or folder is called {named}, which may be a repository of the Hub");
    (is_word(organisation) && is_word(name) && !ends_like_a_file).then(|| Elsewhere::of_hub(what(), named, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_is_downloaded_and_then_given() {
        let said = |named: &str, words: &[&str]| {
            let found = of_address(named)
                .or_else(|| of_repository(named))
                .map(|found| found.message(named, &words.iter().map(ToString::to_string).collect::<Vec<_>>()));
            found.map(|said| said.split_once("run ").map(|(_, steps)| steps.to_owned()).unwrap_or_default())
        };
        let convert = |named| said(named, &["convert", named, "--to", "gguf"]);
        assert_eq!(
            convert("fla-hub/rwkv7-0.1B-g1").as_deref(),
            Some("`hf download fla-hub/rwkv7-0.1B-g1 --local-dir rwkv7-0.1B-g1`, then `rwkv-forge convert rwkv7-0.1B-g1 --to gguf`")
        );
        for address in
            ["https://huggingface.co/org/name", "https://huggingface.co/org/name/", "https://hf.co/org/name/tree/main", "hf://org/name"]
        {
            assert_eq!(
                convert(address).as_deref(),
                Some("`hf download org/name --local-dir name`, then `rwkv-forge convert name --to gguf`")
            );
        }
        let file = "https://huggingface.co/org/name/resolve/main/a/rwkv7.pth?download=true";
        assert_eq!(
            said(file, &["inspect", file]).as_deref(),
            Some("`hf download org/name a/rwkv7.pth --local-dir name`, then `rwkv-forge inspect name/a/rwkv7.pth`")
        );
        let other = "http://example.org/models/x.gguf";
        assert_eq!(
            said(other, &["eval", "a.pth", &format!("--baseline={other}")]).as_deref(),
            Some("`curl --location --output x.gguf http://example.org/models/x.gguf`, then `rwkv-forge eval a.pth --baseline=x.gguf`")
        );
        // Paths.
        for path in ["model.pth", "models/rwkv7.pth", "a/b/c", "./model", "../x", "/tmp/x", "models/x.gguf", "org/"] {
            assert_eq!(convert(path), None, "{path}");
        }
    }
}
