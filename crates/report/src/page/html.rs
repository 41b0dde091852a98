//! Writes a page as HTML. Everything that comes from outside goes through [`escape`] or [`inline`].

use std::fmt::Write;

use super::{Block, Page, PageTable, Section, Verdict, left_out};
use crate::error::ReportError;
use crate::plot::{NARROW, WIDE, style};
use crate::sink::html as escape;
use crate::table::Align;

const CSS: &str = include_str!("page.css");
/// A page with as many sections has a list of them at its top.
const CONTENTS: usize = 4;

/// The whole document.
pub(super) fn write(page: &Page) -> Result<String, ReportError> {
    let title = escape(&page.title);
    // The policy makes sure that the page asks for nothing and runs nothing, whatever is in it.
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{CSS}{}</style>\n</head>\n<body>\n<main>\n",
        style()
    );
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(out, "<header>\n<h1>{}</h1>", inline(&page.title));
    if !page.subtitle.is_empty() {
        let _ = writeln!(out, "<p class=\"subtitle\">{}</p>", inline(&page.subtitle));
    }
    out.push_str("</header>\n");
    if let Some(verdict) = &page.verdict {
        write_verdict(&mut out, verdict);
    }
    if page.sections.len() >= CONTENTS {
        write_contents(&mut out, page);
    }
    let mut tables = page.tables()?.into_iter();
    for (index, section) in page.sections.iter().enumerate() {
        let _ = writeln!(out, "<section aria-labelledby=\"s{index}\">\n<h2 id=\"s{index}\">{}</h2>", inline(&section.heading));
        write_blocks(&mut out, section, &mut tables)?;
        out.push_str("</section>\n");
    }
    if !page.provenance.is_empty() {
        let _ = writeln!(out, "<section aria-labelledby=\"provenance\">\n<h2 id=\"provenance\">Provenance</h2>\n<dl>");
        for (name, value) in &page.provenance {
            let _ = writeln!(out, "<dt>{}</dt><dd>{}</dd>", inline(name), inline(value));
        }
        out.push_str("</dl>\n</section>\n");
    }
    out.push_str("</main>\n</body>\n</html>\n");
    Ok(out)
}

fn write_verdict(out: &mut String, verdict: &Verdict) {
    let class = if verdict.good { "verdict good" } else { "verdict" };
    let _ = writeln!(out, "<div class=\"{class}\">\n<p class=\"headline\">{}</p>", inline(&verdict.headline));
    if !verdict.detail.is_empty() {
        let _ = writeln!(out, "<p class=\"detail\">{}</p>", inline(&verdict.detail));
    }
    if !verdict.figures.is_empty() {
        out.push_str("<ul class=\"figures\">\n");
        for figure in &verdict.figures {
            let _ = write!(out, "<li><span class=\"label\">{}</span> <b>{}</b>", inline(&figure.label), inline(&figure.value));
            if !figure.note.is_empty() {
                let _ = write!(out, " <small>{}</small>", inline(&figure.note));
            }
            out.push_str("</li>\n");
        }
        out.push_str("</ul>\n");
    }
    out.push_str("</div>\n");
}

fn write_contents(out: &mut String, page: &Page) {
    out.push_str("<nav aria-label=\"Contents\"><ul>\n");
    for (index, section) in page.sections.iter().enumerate() {
        let _ = writeln!(out, "<li><a href=\"#s{index}\">{}</a></li>", inline(&section.heading));
    }
    if !page.provenance.is_empty() {
        out.push_str("<li><a href=\"#provenance\">Provenance</a></li>\n");
    }
    out.push_str("</ul></nav>\n");
}

fn write_blocks(out: &mut String, section: &Section, tables: &mut impl Iterator<Item = super::Attachment>) -> Result<(), ReportError> {
    for block in &section.blocks {
        match block {
            Block::Paragraph(text) => {
                let _ = writeln!(out, "<p>{}</p>", inline(text));
            }
            Block::Note(text) => {
                let _ = writeln!(out, "<p class=\"note\">{}</p>", inline(text));
            }
            Block::Command(text) => {
                // Line by line, since a line end inside of escaped text becomes a space.
                let lines: Vec<String> = text.lines().map(escape).collect();
                let _ = writeln!(out, "<pre tabindex=\"0\"><code>{}</code></pre>", lines.join("\n"));
            }
            Block::Table(table) => {
                write_table(out, table);
                if let Some(csv) = tables.next() {
                    let (name, data) = (escape(&csv.name), percent(&csv.text));
                    let _ = writeln!(
                        out,
                        "<p class=\"download\"><a download=\"{name}\" href=\"data:text/csv;charset=utf-8,{data}\">CSV</a></p></figure>"
                    );
                }
            }
            Block::Plot(plot) => {
                write_figure(out, &plot.title, [plot.to_figure(WIDE)?, plot.to_figure(NARROW)?], &[]);
            }
            Block::Pareto(plot) => {
                let unnamed = [("note wide", WIDE), ("note narrow", NARROW)]
                    .into_iter()
                    .filter_map(|(class, frame)| Some((class, super::unnamed(&plot.without_names(frame))?)));
                let remarks: Vec<(&str, String)> = left_out(plot).map(|words| ("note", words)).into_iter().chain(unnamed).collect();
                write_figure(out, &plot.title, [plot.to_figure(WIDE)?, plot.to_figure(NARROW)?], &remarks);
            }
        }
    }
    Ok(())
}

/// The table, inside of a figure that is left open for the link to its CSV.
fn write_table(out: &mut String, PageTable { table, recommended, noted, muted }: &PageTable) {
    let title = inline(&table.title);
    out.push_str("<figure class=\"table\">");
    if !title.is_empty() {
        let _ = write!(out, "<figcaption>{title}</figcaption>");
    }
    // The box scrolls where the table is wider than the page, and takes the focus so that keys can scroll it.
    let name = if table.title.is_empty() { "Table".to_owned() } else { escape(&table.title) };
    let _ = write!(out, "\n<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{name}\"><table>\n<thead><tr>");
    let class = |align: Align| if align == Align::Right { " class=\"n\"" } else { "" };
    for column in &table.columns {
        let _ = write!(out, "<th scope=\"col\"{}>{}</th>", class(column.align), inline(&column.name));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for (index, row) in table.rows.iter().enumerate() {
        out.push_str(match (*recommended == Some(index), muted.contains(&index)) {
            (true, _) => "<tr class=\"recommended\">",
            (false, true) => "<tr class=\"muted\">",
            (false, false) => "<tr>",
        });
        for (place, (cell, column)) in row.iter().zip(&table.columns).enumerate() {
            // Where a number and its interval do not fit into one line, the interval stays whole.
            let text = inline(&if column.align == Align::Right { cell.text.replace(", ", ",\u{a0}") } else { cell.text.clone() });
            let class = class(column.align);
            if place > 0 {
                let _ = write!(out, "<td{class}>{text}</td>");
                continue;
            }
            let _ = write!(out, "<th scope=\"row\"{class}>{text}");
            if *recommended == Some(index) {
                out.push_str(" <span class=\"badge\">recommended</span>");
            }
            if let Some((_, words)) = noted.as_ref().filter(|(row, _)| *row == index) {
                let _ = write!(out, " <span class=\"badge plain\">{}</span>", inline(words));
            }
            out.push_str("</th>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table></div>\n");
}

fn write_figure(out: &mut String, title: &str, drawings: [String; 2], remarks: &[(&str, String)]) {
    let _ = writeln!(out, "<figure class=\"plot\"><figcaption>{}</figcaption>", inline(title));
    drawings.iter().for_each(|drawing| out.push_str(drawing));
    for (class, words) in remarks {
        let _ = writeln!(out, "<p class=\"{class}\">{}</p>", inline(words));
    }
    out.push_str("</figure>\n");
}

/// Text in which words between two backticks are code.
fn inline(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, code, after)) = split_code(rest) {
        let _ = write!(out, "{}<code>{}</code>", escape(before), escape(code));
        rest = after;
    }
    out + &escape(rest)
}

/// What stands before, between and after the first two backticks.
pub(super) fn split_code(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once('`')?;
    let (code, after) = rest.split_once('`')?;
    (!code.is_empty()).then_some((before, code, after))
}

/// Text inside a `data:` address.
fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b',') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{Figure, Page, PageTable, Section, Verdict};
    use super::*;
    use crate::{Axis, Cell, Column, Dot, Marks, Pareto, Plot, Table};

    /// What a file name, a tensor name or a category could be.
    const HOSTILE: &str = "</td></style><script>alert(1)</script><img src=x onerror=alert(2)>\" onload='x' ]]>--> &lt; \u{202e}\u{0}";

    fn page(text: &str) -> Page {
        let mut page = Page::new(text);
        page.subtitle = text.to_owned();
        let figure = Figure { label: text.to_owned(), value: text.to_owned(), note: text.to_owned() };
        page.verdict = Some(Verdict { headline: text.to_owned(), detail: text.to_owned(), figures: vec![figure], good: true });
        let mut section = Section::new(text);
        section.paragraph(format!("{text} `{text}` {text}"));
        section.note(text);
        section.command(format!("{text}\n{text}"));
        let mut table = Table::new(text, [Column::left(text), Column::right(text)]);
        table.push([Cell::text(text), Cell::measured(0.5, 2)]);
        section.table(PageTable { table, recommended: Some(0), noted: Some((0, text.to_owned())), muted: vec![] });
        let mut plot = Plot::new(text, Axis::named(text, [text]), Axis::linear(text));
        plot.description = text.to_owned();
        plot.push(text, Marks::LineAndPoints, [(0.0, 1.0)]);
        plot.push(text, Marks::Line, [(0.0, 2.0)]);
        section.plot(plot);
        let mut plot = Pareto::new(text, Axis::linear(text), Axis::log(text));
        for y in [0.0, 1.0] {
            plot.push(Dot { label: text.to_owned(), note: text.to_owned(), y, ..Dot::default() });
        }
        section.pareto(plot);
        page.sections = vec![section];
        page.provenance = vec![(text.to_owned(), text.to_owned())];
        page
    }

    /// Names of the tags that a document opens, in order.
    fn tags(html: &str) -> Vec<String> {
        let after = html.split('<').skip(1).filter(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic()));
        after.map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric()).collect()).collect()
    }

    #[test]
    fn hostile_texts_add_no_tags_and_no_attributes() {
        let (tame, hostile) = (page("x").to_html().unwrap(), page(HOSTILE).to_html().unwrap());
        // A long label may find no place in a plot, which is said below it; everything else is the same document.
        let without_labels = |html: &str| {
            let mut html = html.to_owned();
            while let Some(begin) = html.find("<p class=\"note wide\">").or_else(|| html.find("<p class=\"note narrow\">")) {
                let end = html[begin..].find("</p>").map(|end| begin + end).unwrap();
                html.replace_range(begin..end, "");
            }
            tags(&html).into_iter().filter(|tag| tag != "text" && tag != "g").collect::<Vec<_>>()
        };
        assert_eq!(without_labels(&tame), without_labels(&hostile));
        for forbidden in ["<script", "<img", "\u{202e}", "\u{0}", "onload='"] {
            assert!(!hostile.contains(forbidden), "{forbidden:?}");
        }
        // Whatever stands inside of a tag has an even number of quotes: no text ended an attribute.
        for tag in hostile.split('<').skip(1).filter_map(|rest| rest.split_once('>')).map(|(tag, _)| tag) {
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        }
    }

    #[test]
    fn the_page_asks_for_nothing_and_runs_nothing() {
        let html = page("x").to_html().unwrap();
        assert!(html.contains("default-src 'none'") && html.contains("prefers-color-scheme: dark"));
        let addresses = html.match_indices("http").filter(|(at, _)| !html[*at..].starts_with("http-equiv"));
        for (at, _) in addresses {
            assert!(html[at..].starts_with("http://www.w3.org/2000/svg\""), "only the name space, which nobody fetches");
        }
        for forbidden in ["src=", "url(", "@import", "<link", "<script"] {
            assert!(!html.contains(forbidden), "{forbidden}");
        }
        assert_eq!(html, page("x").to_html().unwrap());
    }

    #[test]
    fn every_tag_that_opens_also_closes() {
        let html = page("x").to_html().unwrap();
        for tag in [
            "html", "body", "main", "section", "div", "p", "table", "tr", "th", "td", "figure", "svg", "g", "text", "title", "dl", "ul",
            "li",
        ] {
            let opened = html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count();
            assert!(opened > 0, "{tag}");
            assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }

    #[test]
    fn a_table_brings_its_csv_along() {
        let html = page("x").to_html().unwrap();
        assert!(html.contains("href=\"data:text/csv;charset=utf-8,x,x%0Ax,0.5%0A\"") && html.contains("download=\"01-x.csv\""), "{html}");
    }

    #[test]
    fn intervals_stay_whole() {
        let (mut page, mut section) = (Page::new("x"), Section::new("x"));
        let mut table = Table::new("x", [Column::left("a, b"), Column::right("n")]);
        table.push([Cell::text("a, b"), Cell::text("0.1 [0.05, 0.2]")]);
        section.table(PageTable { table, recommended: None, noted: None, muted: vec![] });
        page.sections.push(section);
        let html = page.to_html().unwrap();
        assert!(html.contains(">0.1 [0.05,\u{a0}0.2]</td>") && html.contains(">a, b</th>"), "{html}");
    }

    #[test]
    fn what_is_left_out_of_a_plot_is_named() {
        assert!(page("level").to_html().unwrap().contains("on a logarithmic axis: level."));
    }

    #[test]
    fn words_between_backticks_are_code() {
        assert_eq!(inline("a `b<` c ` d"), "a <code>b&lt;</code> c ` d");
        assert_eq!(inline("`` none"), "`` none");
    }

    #[test]
    fn a_short_row_is_an_error() {
        let mut broken = page("x");
        let Some(Block::Table(table)) = broken.sections[0].blocks.get_mut(3) else { panic!("the fourth block is the table") };
        table.table.push([Cell::text("alone")]);
        let error = ReportError::RowLength { row: 1, found: 1, expected: 2 };
        assert_eq!((broken.to_html(), broken.to_markdown(None)), (Err(error.clone()), Err(error)));
    }
}
