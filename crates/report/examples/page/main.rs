//! Writes a page with invented results, to be looked at: `cargo run -p rwkv-forge-report --example page -- FILE.html [FILE.md]`. Figures of
//! the Markdown go into the folder `figures` beside it.
#![allow(clippy::print_stderr, reason = "an example says how it is used")]

mod sample;

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let mut paths = std::env::args().skip(1).map(PathBuf::from);
    let Some(html) = paths.next() else {
        eprintln!("usage: page FILE.html [FILE.md]");
        return Ok(());
    };
    let page = sample::page();
    std::fs::write(html, page.to_html()?)?;
    if let Some(path) = paths.next() {
        std::fs::write(&path, page.to_markdown(Some("figures"))?)?;
        let folder = path.with_file_name("figures");
        std::fs::create_dir_all(&folder)?;
        for figure in page.figures()? {
            std::fs::write(folder.join(figure.name), figure.text)?;
        }
    }
    Ok(())
}
