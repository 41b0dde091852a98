//! Writes a page as Markdown. A model card is shown by programs that admit HTML inside of Markdown, so what comes from outside is
//! kept from becoming any.

use std::fmt::Write;

use super::html::split_code;
use super::{Block, Page, Section, Verdict, left_out};
use crate::error::ReportError;
use crate::sink;
use crate::table::{Cell, Column, Table};

/// The whole document.
pub(super) fn write(page: &Page, figures: Option<&str>) -> Result<String, ReportError> {
    // Writing to a String cannot fail, here and below.
    let mut out = format!("# {}\n", inline(&page.title));
    if !page.subtitle.is_empty() {
        let _ = write!(out, "\n{}\n", inline(&page.subtitle));
    }
    if let Some(verdict) = &page.verdict {
        write_verdict(&mut out, verdict);
    }
    let mut names = match figures {
        Some(_) => page.figures()?.into_iter().map(|figure| figure.name).collect(),
        None => Vec::new(),
    }
    .into_iter();
    for section in &page.sections {
        let _ = write!(out, "\n## {}\n", inline(&section.heading));
        write_blocks(&mut out, section, figures, &mut names)?;
    }
    if !page.provenance.is_empty() {
        let mut table = Table::new("", [Column::left("what"), Column::left("value")]);
        page.provenance.iter().for_each(|(name, value)| table.push([Cell::text(name), Cell::text(value)]));
        let _ = write!(out, "\n## Provenance\n\n{}", cells(&table).to_markdown()?);
    }
    Ok(out)
}

fn write_verdict(out: &mut String, verdict: &Verdict) {
    let _ = write!(out, "\n> **{}**", inline(&verdict.headline));
    if !verdict.detail.is_empty() {
        let _ = write!(out, "  \n> {}", inline(&verdict.detail));
    }
    for figure in &verdict.figures {
        let note = if figure.note.is_empty() { String::new() } else { format!(" ({})", inline(&figure.note)) };
        let _ = write!(out, "  \n> {}: **{}**{note}", inline(&figure.label), inline(&figure.value));
    }
    out.push('\n');
}

fn write_blocks(
    out: &mut String,
    section: &Section,
    figures: Option<&str>,
    names: &mut impl Iterator<Item = String>,
) -> Result<(), ReportError> {
    let mut figure = |out: &mut String, title: &str| {
        if let Some(name) = names.next() {
            let folder = figures.unwrap_or_default().trim_end_matches('/');
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            // Between angle brackets a path may hold spaces and brackets.
            let path = sink::word(&path.replace(['<', '>', '\n', '\r'], "_")).into_owned();
            let _ = write!(out, "\n![{}](<{path}>)\n", inline(title));
        }
    };
    for block in &section.blocks {
        match block {
            Block::Paragraph(text) => {
                let _ = write!(out, "\n{}\n", inline(text));
            }
            Block::Note(text) => {
                let _ = write!(out, "\n*{}*\n", inline(text));
            }
            Block::Command(text) => {
                // Indented rather than fenced: no line can end it.
                out.push('\n');
                text.lines().for_each(|line| out.push_str(&format!("    {}\n", sink::word(line))));
            }
            Block::Table(table) => {
                if !table.table.title.is_empty() {
                    let _ = write!(out, "\n**{}**\n", inline(&table.table.title));
                }
                let mut shown = cells(&table.table);
                let recommended = table.recommended.and_then(|row| shown.rows.get_mut(row));
                for cell in recommended.into_iter().flatten().filter(|cell| !cell.text.is_empty()) {
                    // A mark after a space stays outside: with it the bold would not end.
                    cell.text = match cell.text.strip_suffix(" *") {
                        Some(text) => format!("**{text}** *"),
                        None => format!("**{}**", cell.text),
                    };
                }
                let noted = table.noted.as_ref().and_then(|(row, words)| Some((shown.rows.get_mut(*row)?.first_mut()?, words)));
                if let Some((cell, words)) = noted {
                    let _ = write!(cell.text, " ({})", harmless(words, false));
                }
                let _ = write!(out, "\n{}", shown.to_markdown()?);
            }
            Block::Plot(plot) => figure(out, &plot.title),
            Block::Pareto(plot) => {
                figure(out, &plot.title);
                if let Some(remark) = left_out(plot).filter(|_| figures.is_some()) {
                    let _ = write!(out, "\n*{}*\n", inline(&remark));
                }
            }
        }
    }
    Ok(())
}

/// The table with everything in it made harmless, but for what [`Table::to_markdown`] sees to itself.
fn cells(table: &Table) -> Table {
    let mut out = table.clone();
    out.columns.iter_mut().for_each(|column| column.name = harmless(&column.name, false));
    out.rows.iter_mut().flatten().for_each(|cell| cell.text = harmless(&cell.text, false));
    out
}

/// Text of one line in which words between two backticks are code, and nothing else is markup.
fn inline(text: &str) -> String {
    harmless(text, true)
}

/// The same, with backslashes and bars escaped or, for a cell of a table, left to the table.
fn harmless(text: &str, whole: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, code, after)) = split_code(rest) {
        out.push_str(&escape(before, whole));
        let _ = write!(out, "`{}`", sink::word(&code.replace(['\n', '\r'], " ")));
        rest = after;
    }
    out.push_str(&escape(rest, whole));
    out
}

fn escape(text: &str, whole: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let line = text.trim_start().replace(['\n', '\r', '\t'], " ");
    let characters: Vec<char> = sink::word(&line).chars().collect();
    for (index, c) in characters.iter().copied().enumerate() {
        let next = characters.get(index + 1).copied().unwrap_or(' ');
        let before = index.checked_sub(1).and_then(|index| characters.get(index)).copied().unwrap_or(' ');
        // At the beginning of a line these make headings, lists, rules and fences.
        let begins = whole && index == 0 && (next.is_whitespace() || next == c);
        match c {
            '#' | '+' | '-' | '=' | '~' | '*' if begins => {
                out.push('\\');
                out.push(c);
            }
            '.' | ')' if whole && next.is_whitespace() && characters[..index].iter().all(char::is_ascii_digit) => {
                out.push('\\');
                out.push(c);
            }
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' if next.is_ascii_alphabetic() || next == '#' => out.push_str("&amp;"),
            // Alone between spaces, and inside of a word such as q4_k_m, these mean nothing.
            '*' | '_' if before.is_whitespace() && next.is_whitespace() => out.push(c),
            '_' if before.is_alphanumeric() && next.is_alphanumeric() => out.push('_'),
            // Entities, since a cell of a table has its backslashes escaped.
            '*' => out.push_str("&#42;"),
            '_' => out.push_str("&#95;"),
            '`' => out.push_str("&#96;"),
            // What a link needs after its text.
            ']' if matches!(next, '(' | '[' | ':') => out.push_str("&#93;"),
            '\\' if whole => out.push_str("\\\\"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_stays_as_it_is() {
        let text = "q4_k_m of model-v2.gguf: 5.3e-3 nats (± 0.1 %), 3 x 4 & 5; `a*b|c`";
        assert_eq!(inline(text), text);
        assert_eq!(inline("a|b \\ c"), "a|b \\\\ c");
        for text in ["0.0216 [0.0208, 0.0223]", "q8_0 *", "+1.96 %", "-3", "#1", "~ 5", "1.5 times", "a _ b", "- 3"] {
            let kept = if text.starts_with(['~', '-']) && text.contains(' ') { format!("\\{text}") } else { text.to_owned() };
            assert_eq!(inline(text), kept);
        }
    }

    #[test]
    fn nothing_becomes_markup() {
        assert_eq!(
            inline("<script>x</script> &lt; [a](javascript:b) **c** _d_"),
            "&lt;script&gt;x&lt;/script&gt; &amp;lt; [a&#93;(javascript:b) &#42;&#42;c&#42;&#42; &#95;d&#95;"
        );
        assert_eq!(inline("# not\na heading"), "\\# not a heading");
        assert_eq!(inline("* not a list"), "\\* not a list");
        assert_eq!(inline("12. not a list"), "12\\. not a list");
        assert_eq!(inline("--- not a rule"), "\\--- not a rule");
        assert_eq!(inline("[a]: not a definition"), "[a&#93;: not a definition");
        assert_eq!(inline("one ` alone"), "one &#96; alone");
    }

    #[test]
    fn the_document_has_all_parts_in_order() {
        let mut page = Page::new("Title");
        page.verdict = Some(Verdict { headline: "Take b".to_owned(), ..Verdict::default() });
        let mut section = Section::new("Part");
        let mut table = Table::new("Rows", [Column::left("name"), Column::right("n")]);
        table.push([Cell::text("a"), Cell::count(1)]);
        table.push([Cell::text("b *"), Cell::count(1234)]);
        section.table(crate::PageTable { table, recommended: Some(1), noted: Some((0, "best|buy".to_owned())), muted: vec![0] });
        let mut plot = crate::Plot::new("A plot", crate::Axis::linear("x"), crate::Axis::linear("y"));
        plot.push("s", crate::Marks::Line, [(0.0, 1.0)]);
        section.plot(plot);
        section.command("run <this>");
        page.sections.push(section);
        page.provenance.push(("file".to_owned(), "a|b".to_owned()));
        let head = "# Title\n\n> **Take b**\n\n## Part\n\n**Rows**\n\n";
        let rows =
            "| name          |         n |\n| ------------- | --------: |\n| a (best\\|buy) |         1 |\n| **b** *       | **1,234** |\n";
        let tail = "\n    run <this>\n\n## Provenance\n\n| what | value |\n| ---- | ----- |\n| file | a\\|b  |\n";
        assert_eq!(page.to_markdown(None).unwrap(), format!("{head}{rows}{tail}"));
        let linked = format!("{head}{rows}\n![A plot](<out/01-a-plot.svg>)\n{tail}");
        assert_eq!(page.to_markdown(Some("out/")).unwrap(), linked);
    }
}
