//! Pages of results in a real browser: nothing overflows, overlaps, fades into its background or asks for anything, on a telephone and
//! on a desk, light and dark.
//!
//! Needs Chromium (`apt-get install chromium`; `CHROMIUM=path` names another). The tests are ignored unless they are asked for, as
//! `.ci/run` does. `SCREENSHOTS=folder` keeps the pictures. Start at [`Browser::examine`].
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may fail loudly")]

#[path = "../crates/report/examples/page/sample.rs"]
mod sample;
use crate::support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::Dir;
use serde_json::Value;

const WIDTHS: [u32; 3] = [400, 800, 1400];
/// Values of Blink's `preferredColorScheme`.
const SCHEMES: [(&str, &str); 2] = [("light", "1"), ("dark", "0")];

/// Runs in a page around the one under test, since a window cannot be as narrow as a telephone, and since that page's own policy
/// admits no scripts. What it finds goes into the document, which the browser then prints.
const MEASURE: &str = r#"
function luminance(colour) {
  const linear = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const [r, g, b] = colour.match(/[\d.]+/g).map(Number);
  return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
}
function contrast(a, b) {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}
function background(view, element) {
  for (; element; element = element.parentElement) {
    const colour = view.getComputedStyle(element).backgroundColor;
    if (!/, 0\)$|^transparent$/.test(colour)) return colour;
  }
  return 'rgb(255, 255, 255)';
}
function examine(frame) {
  const view = frame.contentWindow, page = frame.contentDocument, root = page.documentElement;
  const name = e => e.tagName + '.' + (e.className.baseVal ?? e.className) + ' ' + e.textContent.trim().slice(0, 40);
  const shown = e => e.checkVisibility() && e.getBoundingClientRect().width > 0;
  const scrolls = e => { for (e = e.parentElement; e; e = e.parentElement) if (/auto|scroll/.test(view.getComputedStyle(e).overflowX)) return true; };
  const outside = [], overlaps = [], cut = [], faint = [];
  let texts = 0;
  for (const e of page.body.querySelectorAll('*')) {
    if (!shown(e)) continue;
    const rect = e.getBoundingClientRect();
    if (!scrolls(e) && (rect.right > view.innerWidth + 0.5 || rect.left < -0.5)) outside.push(name(e));
    if ([...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && e.tagName !== 'title') {
      const style = view.getComputedStyle(e);
      const ratio = contrast(e.ownerSVGElement ? style.fill : style.color, background(view, e));
      if (ratio < 4.5) faint.push(ratio.toFixed(2) + ' ' + name(e));
    }
  }
  for (const svg of page.querySelectorAll('svg')) {
    if (!shown(svg)) continue;
    const frame = svg.getBoundingClientRect();
    const all = [...svg.querySelectorAll('text')].map(e => [e.textContent, e.getBoundingClientRect()]);
    texts += all.length;
    all.forEach(([text, a], i) => {
      if (a.left < frame.left || a.right > frame.right || a.top < frame.top || a.bottom > frame.bottom) cut.push(text);
      for (const [other, b] of all.slice(0, i)) {
        // A line of text is taller than its letters.
        if (a.left < b.right && b.left < a.right && a.top + 3 < b.bottom && b.top + 3 < a.bottom) overlaps.push(text + ' | ' + other);
      }
    });
  }
  return {
    width: view.innerWidth, client: root.clientWidth, scroll: root.scrollWidth, height: root.scrollHeight, outside, overlaps, cut, faint, texts,
    dark: view.matchMedia('(prefers-color-scheme: dark)').matches, ground: luminance(background(view, page.body)),
    requests: view.performance.getEntriesByType('resource').map(entry => entry.name),
  };
}
addEventListener('load', () => {
  const found = JSON.stringify([...document.querySelectorAll('iframe')].map(examine));
  document.getElementById('found').textContent = found.replace(/[<>&]/g, c => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'));
});
"#;

/// Chromium, and a folder for its profile and its pictures.
struct Browser {
    program: PathBuf,
    dir: Dir,
}

impl Browser {
    /// The browser.
    fn find() -> Self {
        let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
        let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
        let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
        let found = || names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|path| path.exists());
        let program = named.or_else(found).expect("no Chromium in PATH, and CHROMIUM names none: apt-get install chromium");
        Self { program, dir: Dir::new() }
    }

    /// Runs the browser on a file and returns what it prints.
    fn run(&self, scheme: &str, options: &[String], page: &Path) -> String {
        let mut command = Command::new(&self.program);
        // The sandbox cannot be had by root, as which tests in containers run; the pages are our own.
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-dev-shm-usage"]);
        command.arg(format!("--user-data-dir={}", self.dir.join("profile").display()));
        command.arg(format!("--blink-settings=preferredColorScheme={scheme}"));
        command.args(options).arg(format!("file://{}", page.display()));
        let output = self.dir.join("stdout");
        let stdout = std::fs::File::create(&output).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{}: {status}", self.program.display());
                break;
            }
            if Instant::now() > deadline {
                child.kill().unwrap();
                panic!("{} did not end", self.program.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        std::fs::read_to_string(output).unwrap()
    }

    /// A page that shows `html` at these widths, one above the other.
    fn frames(&self, html: &str, widths: &[u32], height: u64, script: &str) -> PathBuf {
        let source = html.replace('&', "&amp;").replace('"', "&quot;");
        let frame = |width: &u32| {
            format!("<iframe style=\"display:block;border:0;width:{width}px;height:{height}px\" srcdoc=\"{source}\"></iframe>")
        };
        let frames: String = widths.iter().map(frame).collect();
        let path = self.dir.join("frames.html");
        let head = "<!DOCTYPE html><meta charset=\"utf-8\"><meta name=\"color-scheme\" content=\"light dark\">";
        std::fs::write(&path, format!("{head}<body style=\"margin:0\">{frames}<pre id=\"found\"></pre><script>{script}</script></body>"))
            .unwrap();
        path
    }

    /// What [`MEASURE`] finds at each of [`WIDTHS`].
    fn measure(&self, html: &str, scheme: &str) -> Vec<Value> {
        let page = self.frames(html, &WIDTHS, 900, MEASURE);
        let printed = self.run(scheme, &["--dump-dom".to_owned(), "--window-size=1400,900".to_owned()], &page);
        let found = printed.rsplit_once("<pre id=\"found\">").and_then(|(_, rest)| rest.split_once("</pre>")).map(|(found, _)| found);
        let found = found.filter(|found| !found.is_empty()).unwrap_or_else(|| panic!("the script did not run: {printed:.2000}"));
        serde_json::from_str(found).unwrap()
    }

    /// A picture of the whole page.
    fn screenshot(&self, html: &str, scheme: &str, width: u32, height: u64, file: &Path) -> Vec<u8> {
        let page = self.frames(html, &[width], height, "");
        let options = [format!("--screenshot={}", file.display()), format!("--window-size={},{height}", width.max(500))];
        self.run(scheme, &options, &page);
        std::fs::read(file).unwrap()
    }

    /// Takes a picture of the page, and complains if there is nothing to be seen in it.
    fn blank(&self, html: &str, scheme: &str, width: u32, height: u64, file: &Path) -> Option<String> {
        let picture = self.screenshot(html, scheme, width, height, file).len();
        let empty = self.screenshot("<!DOCTYPE html>", scheme, width, height, &self.dir.join("empty.png")).len();
        // One colour compresses to next to nothing; a page of text has ten times as much to say.
        (picture < 10 * empty).then(|| format!("the picture is as good as blank: {picture} bytes, an empty page {empty}"))
    }

    /// Everything that is wrong with a page, in words; nothing if nothing is.
    fn examine(&self, name: &str, html: &str) -> Vec<String> {
        let keep = std::env::var_os("SCREENSHOTS").map(PathBuf::from);
        let folder = keep.unwrap_or_else(|| self.dir.path().to_owned());
        std::fs::create_dir_all(&folder).unwrap();
        let mut wrong = Vec::new();
        for (scheme, setting) in SCHEMES {
            for (found, width) in self.measure(html, setting).iter().zip(WIDTHS) {
                let mut complain = |what: String| wrong.push(format!("{name} at {width} pixels, {scheme}: {what}"));
                faults(found, width, scheme == "dark").into_iter().for_each(&mut complain);
                let height = found["height"].as_u64().unwrap();
                let file = folder.join(format!("{name}-{width}-{scheme}.png"));
                self.blank(html, setting, width, height, &file).into_iter().for_each(&mut complain);
            }
        }
        wrong
    }
}

/// What the measurements of one page at one width say against it.
fn faults(found: &Value, width: u32, dark: bool) -> Vec<String> {
    assert_eq!(found["width"], width, "the frame has the width that it was given");
    assert_eq!(found["dark"], dark, "the browser wants the scheme that it was told to want");
    let mut wrong = Vec::new();
    if found["scroll"].as_u64() > found["client"].as_u64() {
        wrong.push(format!("the page is {} pixels wide", found["scroll"]));
    }
    if (found["ground"].as_f64().unwrap() < 0.2) != dark {
        wrong.push(format!("the ground has a luminance of {}", found["ground"]));
    }
    let lists = [
        ("outside", "beyond the edge"),
        ("overlaps", "texts overlap"),
        ("cut", "text leaves its plot"),
        ("faint", "too little contrast"),
        ("requests", "asked for"),
    ];
    for (key, what) in lists {
        for entry in found[key].as_array().unwrap().iter().take(5) {
            wrong.push(format!("{what}: {entry}"));
        }
    }
    wrong
}

/// With `head` before the end of the head, and `body` before the end of the body.
fn planted(html: &str, head: &str, body: &str) -> String {
    html.replacen("</head>", &format!("{head}</head>"), 1).replacen("</main>", &format!("{body}</main>"), 1)
}

#[test]
#[ignore = "needs Chromium"]
fn a_page_with_everything_is_in_order() {
    let browser = Browser::find();
    let html = sample::page().to_html().unwrap();
    assert_eq!(browser.examine("sample", &html), Vec::<String>::new());
    let found = browser.measure(&html, SCHEMES[0].1);
    assert!(found.iter().all(|found| found["texts"].as_u64() > Some(30)), "the plots have their words: {found:?}");
}

#[test]
#[ignore = "needs Chromium"]
fn long_names_and_many_levels_still_fit() {
    let browser = Browser::find();
    let mut page = sample::page();
    page.title = "a-model-name-without-any-place-to-break-".repeat(4);
    page.sections.iter_mut().for_each(|section| section.heading = format!("{} {}", section.heading, "x".repeat(120)));
    page.provenance.push(("digest".to_owned(), "0123456789abcdef".repeat(16)));
    for block in page.sections.iter_mut().flat_map(|section| &mut section.blocks) {
        if let rwkv_forge_report::Block::Pareto(plot) = block {
            // As many again right beside the others.
            let more: Vec<_> = plot.dots.iter().cloned().map(|c| rwkv_forge_report::Dot { x: c.x * 1.01, y: c.y * 1.1, ..c }).collect();
            plot.dots.extend(more);
        }
    }
    assert_eq!(browser.examine("crowded", &page.to_html().unwrap()), Vec::<String>::new());
}

#[test]
#[ignore = "needs Chromium"]
fn the_page_of_a_real_run_is_in_order() {
    let browser = Browser::find();
    let folder = Dir::new();
    let (levels, one) = (folder.join("levels.html"), folder.join("one.html"));
    let (model, vocabulary) = (support::checkpoint("7").to_str().unwrap(), support::vocab().to_str().unwrap());
    let common = ["--vocab", vocabulary, "--bytes", "6000", "--no-cache"];
    let run = |args: &[&str]| support::json(&[args, &common[..]].concat(), 0);
    run(&["eval", model, "--levels", "all", "--max-kl", "0.1", "--html", levels.to_str().unwrap()]);
    run(&["eval", support::checkpoint("6").to_str().unwrap(), "--baseline", model, "--html", one.to_str().unwrap()]);
    for (name, page) in [("levels", levels), ("one", one)] {
        assert_eq!(browser.examine(name, &std::fs::read_to_string(page).unwrap()), Vec::<String>::new());
    }
}

#[test]
#[ignore = "needs Chromium"]
fn planted_faults_are_found() {
    let browser = Browser::find();
    let html = sample::page().to_html().unwrap();
    let text = "<text x=\"10\" y=\"20\" style=\"fill:gray\">one</text>";
    let cases = [
        ("the page is 2", planted(&html, "", "<div style=\"width:2000px\">wide</div>")),
        ("beyond the edge", planted(&html, "<style>html{overflow:hidden}</style>", "<div style=\"width:2000px\">wide</div>")),
        ("texts overlap", planted(&html, "", &format!("<svg viewBox=\"0 0 400 40\">{text}{text}</svg>"))),
        ("leaves its plot", planted(&html, "", "<svg viewBox=\"0 0 400 40\"><text x=\"-20\" y=\"20\">one</text></svg>")),
        ("too little contrast", planted(&html, "<style>p{color:#888 !important}</style>", "")),
        ("the ground", planted(&html, "<style>body{background:#777 !important}</style>", "")),
    ];
    let (scheme, setting) = SCHEMES[0];
    for (what, html) in cases {
        let found = browser.measure(&html, setting);
        let wrong: Vec<String> = found.iter().zip(WIDTHS).flat_map(|(found, width)| faults(found, width, scheme == "dark")).collect();
        assert!(wrong.iter().any(|wrong| wrong.contains(what)), "{what}: {wrong:?}");
    }
    let hidden = planted(&html, "<style>main{visibility:hidden}</style>", "");
    assert!(browser.blank(&hidden, setting, WIDTHS[0], 3000, &browser.dir.join("hidden.png")).is_some());
}
