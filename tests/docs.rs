//! Tables in the documentation that come from the registries must be what the registries say. After a change:
//! `UPDATE_DOCS=1 cargo test -p rwkv-forge --test tests docs`.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::fmt::Write;
use std::path::Path;

use rwkv_forge_convert::container::{CONTAINERS, DefaultTypes, FORMATS, NAMINGS};
use rwkv_forge_convert::published::{LAYOUTS, Reading};
use rwkv_forge_model::Version;

const BEGIN: &str = "<!-- generated from the registries -->";
const END: &str = "<!-- end of the generated part -->";

/// All versions, then the hybrids with Qwen.
static EVERY: std::sync::LazyLock<Vec<Version>> = std::sync::LazyLock::new(|| [&Version::ALL[..], &Version::HYBRIDS].concat());

/// What goes where, which types, and why not.
fn matrix() -> String {
    let mut text = String::new();
    let versions: Vec<String> = EVERY.iter().map(|version| version.name().to_owned()).collect();
    writeln!(text, "| `--to` | also called | read by | without `--type` | {} |", versions.join(" | ")).unwrap();
    writeln!(text, "|---|---|---|---|{}", "---|".repeat(versions.len())).unwrap();
    let mut reasons = String::new();
    for container in CONTAINERS {
        let aliases: Vec<String> = container.aliases().iter().map(|alias| format!("`{alias}`")).collect();
        let taken = match container.default_types() {
            DefaultTypes::Named(name) => format!("`{name}`"),
            DefaultTypes::OfSource => "the source's float type, else `f16`".to_owned(),
        };
        write!(text, "| `{}` | {} | {} | {taken} |", container.name(), aliases.join(", "), container.summary()).unwrap();
        for version in EVERY.iter().copied() {
            match container.carries(version) {
                Ok(()) => text.push_str(" yes |"),
                Err(error) => {
                    text.push_str(" - |");
                    writeln!(reasons, "- `{}`, {version}: {error}", container.name()).unwrap();
                }
            }
        }
        text.push('\n');
    }
    text.push_str("\n| type | bits a weight | ");
    text.push_str(&CONTAINERS.iter().map(|container| format!("`{}`", container.name())).collect::<Vec<_>>().join(" | "));
    writeln!(text, " |\n|---|---|{}", "---|".repeat(CONTAINERS.len())).unwrap();
    for format in rwkv_forge_quant::FORMATS {
        let encoding = format.encoding();
        let only = if format.facts().encodes { "" } else { " (read only)" };
        write!(text, "| `{encoding}`{only} | {} |", format.bits()).unwrap();
        for container in CONTAINERS {
            text.push_str(if container.holds(encoding) { " yes |" } else { " - |" });
        }
        text.push('\n');
    }
    text.push_str("\nWhy not:\n\n");
    text.push_str(&reasons);
    text.push_str(&layouts());
    text
}

/// Every published layout.
fn layouts() -> String {
    let mut text =
        "\nLayouts in which models are published:\n\n| layout | whose | read | written by | checked against |\n|---|---|---|---|---|\n"
            .to_owned();
    for layout in LAYOUTS {
        let read = match layout.reading {
            Reading::As(_) => "yes",
            Reading::Merged => "by `--lora`",
            Reading::Refused => "no, by name",
        };
        let written = layout.written.map_or_else(|| "-".to_owned(), |container| format!("`--to {}`", container.name()));
        writeln!(text, "| {} | {} | {read} | {written} | {} |", layout.name, layout.whose, layout.checked).unwrap();
    }
    text
}

/// What can be read or written, and stands in no row, is missing in the table.
#[test]
fn every_registration_is_in_a_published_layout() {
    let names: Vec<&str> = LAYOUTS.iter().flat_map(|layout| layout.naming).copied().collect();
    let conventions = rwkv_forge_model::names::CONVENTIONS.iter().map(|convention| convention.name);
    let known: Vec<&str> = conventions.chain(NAMINGS.iter().map(|naming| naming.name())).collect();
    for name in &known {
        assert!(names.contains(name), "{name} is in no row of LAYOUTS");
    }
    for name in names {
        assert!(known.contains(&name), "{name} names nothing");
    }
    for container in CONTAINERS {
        let is_it = |layout: &&rwkv_forge_convert::published::Layout| layout.written.is_some_and(|one| one.name() == container.name());
        assert!(LAYOUTS.iter().any(|layout| is_it(&layout)), "{} is in no row of LAYOUTS", container.name());
    }
    for format in FORMATS {
        let is_it =
            |layout: &rwkv_forge_convert::published::Layout| matches!(layout.reading, Reading::As(one) if one.name() == format.name());
        assert!(LAYOUTS.iter().any(is_it), "{} is in no row of LAYOUTS", format.name());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for layout in LAYOUTS {
        let (file, function) = layout.test;
        let source = std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(source.contains(&format!("#[test]\nfn {function}()")), "{}: {file} has no test {function}", layout.name);
    }
}

#[test]
fn the_table_of_conversions_is_what_the_registries_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/conversions.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let current = format!("{before}{BEGIN}\n\n{}\n{END}{after}", matrix());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &current).unwrap();
    }
    assert!(
        document == current || std::env::var_os("UPDATE_DOCS").is_some(),
        "docs/conversions.md is out of date: UPDATE_DOCS=1 cargo test -p rwkv-forge --test tests docs"
    );
}

/// The relative links of a page that lead nowhere.
fn dead_links(page: &Path, text: &str) -> Vec<String> {
    let folder = page.parent().unwrap();
    let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
    let local = links.filter(|link| !link.contains("://") && !link.starts_with('#') && !link.contains(' '));
    let dead = local.filter(|link| !folder.join(link.split('#').next().unwrap()).exists());
    dead.map(|link| format!("{}: {link}", page.display())).collect()
}

#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages: Vec<_> = ["README.md", "CONTRIBUTING.md", "peers/README.md"].iter().map(|name| root.join(name)).collect();
    pages.extend(
        std::fs::read_dir(root.join("docs"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "md")),
    );
    let mut count = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        count += text.matches("](").count();
        assert_eq!(dead_links(&page, &text), Vec::<String>::new());
    }
    assert!(count > 20, "{count} links");
    // The planted fault.
    assert_eq!(dead_links(&root.join("README.md"), "see [this](docs/none.md), [that](docs/accuracy.md#x)").len(), 1);
}
