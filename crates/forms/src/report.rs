//! What was found: the worst of every quantity, and the first that is beyond its bound.

use rwkv_forge_report::{Annotation, Cell, Column, Outcome, Suite, Table, significant};
use serde::Serialize;

use crate::bounds::{Bounds, Quantity, vanishes};
use crate::cases::{Case, Form, FormsOptions, Start, Tier};
use crate::error::FormsError;
use crate::measure::{Measure, Meter};

/// Lines about one case in a JUnit document.
const DETAILS: usize = 20;

/// One comparison: a quantity of a layer in one case.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The sequence.
    pub case: Case,
    /// The layer, from 0; `None` for logits.
    pub layer: Option<usize>,
    /// What was compared.
    pub quantity: Quantity,
    /// How far it is from the recurrent form in f64.
    pub measure: Measure,
    /// How far it may be.
    pub bounds: Bounds,
    /// How many times the bound that is.
    pub excess: f64,
}

/// The first comparison beyond its bound of one form and precision: the lowest layer, in it the earliest position.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The comparison.
    #[serde(flatten)]
    pub row: Row,
    /// The earliest position beyond the bound; the number of tokens for a state, which belongs to the end of the sequence.
    pub position: usize,
    /// All of it in one sentence.
    pub message: String,
}

/// The result of comparing two forms.
#[derive(Clone, Debug, Serialize)]
pub struct FormsReport {
    /// Version of the model.
    pub version: String,
    /// L.
    pub layers: usize,
    /// Tokens of the longest sequence.
    pub tokens: usize,
    /// Seed of the random start state.
    pub seed: u64,
    /// Lengths of the sequences.
    pub lengths: Vec<usize>,
    /// Tokens a chunk.
    pub chunks: Vec<usize>,
    /// Start states.
    pub starts: Vec<Start>,
    /// Precisions.
    pub tiers: Vec<Tier>,
    /// Comparisons made.
    pub comparisons: usize,
    /// Comparisons beyond their bounds.
    pub beyond: usize,
    /// Comparisons of states so small that only their elements were judged.
    pub vanishing: usize,
    /// For each precision, form and quantity the comparison nearest to its bound or farthest beyond it.
    pub worst: Vec<Row>,
    /// The same for each layer.
    pub worst_by_layer: Vec<Row>,
    /// The first comparison beyond its bound of each precision and form that has one.
    pub first_beyond: Vec<Finding>,
    #[serde(skip)]
    cases: Vec<Case>,
    #[serde(skip)]
    entries: Vec<Entry>,
}

/// [`Row`] without the copies.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    case: usize,
    layer: Option<usize>,
    quantity: Quantity,
    measure: Measure,
    excess: f64,
    position: Option<usize>,
}

impl Entry {
    fn is_beyond(&self) -> bool {
        // NaN is beyond every bound.
        !matches!(self.excess.partial_cmp(&1.0), Some(std::cmp::Ordering::Less | std::cmp::Ordering::Equal))
    }

    fn row(&self, cases: &[Case]) -> Row {
        let case = cases[self.case].clone();
        let bounds = Bounds::of(case.tier, self.quantity);
        Row { case, layer: self.layer, quantity: self.quantity, measure: self.measure, bounds, excess: self.excess }
    }
}

/// Collects comparisons.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    cases: Vec<Case>,
    entries: Vec<Entry>,
}

impl Ledger {
    /// Registers a case and returns its number.
    pub(crate) fn case(&mut self, case: Case) -> usize {
        self.cases.push(case);
        self.cases.len() - 1
    }

    pub(crate) fn add(&mut self, case: usize, layer: Option<usize>, quantity: Quantity, meter: &Meter) {
        let bounds = Bounds::of(self.cases[case].tier, quantity);
        let measure = meter.measure();
        let excess = bounds.excess(quantity, &measure);
        let position = if quantity.is_state() { Some(self.cases[case].length) } else { meter.first_beyond(bounds.ratio, bounds.relative) };
        self.entries.push(Entry { case, layer, quantity, measure, excess, position });
    }

    pub(crate) fn finish(self, version: String, layers: usize, options: &FormsOptions) -> FormsReport {
        let Self { cases, entries } = self;
        let kind = |entry: &Entry| (cases[entry.case].tier, cases[entry.case].form);
        FormsReport {
            version,
            layers,
            tokens: options.lengths.iter().copied().max().unwrap_or(0),
            seed: options.seed,
            lengths: options.lengths.clone(),
            chunks: options.chunks.clone(),
            starts: options.starts.clone(),
            tiers: options.tiers.clone(),
            comparisons: entries.len(),
            beyond: entries.iter().filter(|entry| entry.is_beyond()).count(),
            vanishing: entries.iter().filter(|entry| entry.quantity.is_state() && vanishes(&entry.measure)).count(),
            worst: worst(&cases, &entries, |entry| (kind(entry), entry.quantity)),
            worst_by_layer: worst(&cases, &entries, |entry| (kind(entry), entry.layer.unwrap_or(usize::MAX), entry.quantity)),
            first_beyond: first_beyond(&cases, &entries),
            cases,
            entries,
        }
    }
}

/// The entry of largest excess for each key, in the order of the keys.
fn worst<K: Ord>(cases: &[Case], entries: &[Entry], key: impl Fn(&Entry) -> K) -> Vec<Row> {
    let mut worst: std::collections::BTreeMap<K, &Entry> = std::collections::BTreeMap::new();
    for entry in entries {
        let place = worst.entry(key(entry)).or_insert(entry);
        if entry.excess.total_cmp(&place.excess).is_gt() {
            *place = entry;
        }
    }
    worst.into_values().map(|entry| entry.row(cases)).collect()
}

fn first_beyond(cases: &[Case], entries: &[Entry]) -> Vec<Finding> {
    let mut first: std::collections::BTreeMap<(Tier, Form), &Entry> = std::collections::BTreeMap::new();
    let order = |entry: &Entry| {
        let position = entry.position.unwrap_or(usize::MAX);
        (entry.layer.unwrap_or(usize::MAX), position, entry.quantity, entry.case)
    };
    for entry in entries.iter().filter(|entry| entry.is_beyond()) {
        let place = first.entry((cases[entry.case].tier, cases[entry.case].form)).or_insert(entry);
        if order(entry) < order(place) {
            *place = entry;
        }
    }
    first.into_values().map(|entry| finding(entry, cases)).collect()
}

fn finding(entry: &Entry, cases: &[Case]) -> Finding {
    let row = entry.row(cases);
    let position = entry.position.unwrap_or(row.measure.worst.position);
    let message = sentence(&row, position);
    Finding { row, position, message }
}

/// `layer 2, position 17, output: ...`.
fn sentence(row: &Row, position: usize) -> String {
    let Row { case, layer, quantity, measure, bounds, excess } = row;
    let place = layer.map_or_else(String::new, |layer| format!("layer {layer}, "));
    let element = quantity.element();
    let position = if quantity.is_state() { format!("after {position} tokens") } else { format!("position {position}") };
    if let Some(bad) = measure.non_finite {
        return format!("{place}{position}, {quantity}: {element} {} is NaN or infinite ({case})", bad.element);
    }
    if vanishes(measure) && !quantity.is_state() {
        let rms = measure.reference_rms;
        return format!("{place}{position}, {quantity}: the reference vanishes (RMS {rms:.1e}), and zeros agree with anything ({case})");
    }
    let worst = measure.worst;
    let at = if quantity.is_state() { String::new() } else { format!("position {}, ", worst.position) };
    let relative = bounds.relative.map_or_else(String::new, |limit| format!(" and {limit:.0e} an element"));
    format!(
        "{place}{position}, {quantity}: {} times its bound: RMS ratio {} and at worst {} an element, allowed {:.1e}{relative}; \
         worst: {at}{element} {} is {:e}, should be {:e} ({case})",
        significant(*excess, 3),
        significant(measure.ratio, 3),
        significant(measure.relative, 3),
        bounds.ratio,
        worst.element,
        worst.candidate,
        worst.reference,
    )
}

impl FormsReport {
    /// True when every comparison is within its bounds.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.beyond == 0
    }

    /// The largest excess of a precision: how many times its bound the worst comparison is. 0 when nothing was compared.
    #[must_use]
    pub fn excess(&self, tier: Tier) -> f64 {
        let rows = self.worst.iter().filter(|row| row.case.tier == tier);
        rows.map(|row| row.excess).fold(0.0, |a, b| if b.is_nan() { f64::INFINITY } else { a.max(b) })
    }

    /// One row for each precision, form and quantity.
    #[must_use]
    pub fn table(&self) -> Table {
        rows_as_table("worst differences from the recurrent form in f64", &self.worst)
    }

    /// One row for each precision, form, layer and quantity.
    #[must_use]
    pub fn table_by_layer(&self) -> Table {
        rows_as_table("worst differences from the recurrent form in f64, by layer", &self.worst_by_layer)
    }

    /// One test for each case.
    #[must_use]
    pub fn junit(&self) -> Suite {
        let mut entries: Vec<Vec<&Entry>> = vec![Vec::new(); self.cases.len()];
        for entry in self.entries.iter().filter(|entry| entry.is_beyond()) {
            entries[entry.case].push(entry);
        }
        let cases = self.cases.iter().zip(entries).map(|(case, beyond)| rwkv_forge_report::Case {
            name: case.to_string(),
            group: format!("forms.{}.{}.{}", case.tier, case.form, case.start),
            time: None,
            outcome: outcome(&self.cases, &beyond),
        });
        Suite { name: "forms".to_owned(), cases: cases.collect() }
    }

    /// One error for each finding, about the model's file.
    #[must_use]
    pub fn annotations(&self, file: &str) -> Vec<Annotation> {
        let title = |finding: &Finding| format!("{} {} form of {}", finding.row.case.tier, finding.row.case.form, self.version);
        self.first_beyond.iter().map(|finding| Annotation::error(file, title(finding), finding.message.as_str())).collect()
    }

    /// All comparisons, each with its case.
    pub fn comparisons(&self) -> impl Iterator<Item = Row> + '_ {
        self.entries.iter().map(|entry| entry.row(&self.cases))
    }

    /// The table as Markdown.
    ///
    /// # Errors
    /// Never in practice: every row is as long as the header.
    pub fn to_markdown(&self) -> Result<String, FormsError> {
        Ok(self.table().to_markdown()?)
    }
}

fn outcome(cases: &[Case], beyond: &[&Entry]) -> Outcome {
    let findings = || beyond.iter().map(|entry| finding(entry, cases));
    let Some(first) = findings().min_by_key(|finding| (finding.row.layer.unwrap_or(usize::MAX), finding.position)) else {
        return Outcome::Passed;
    };
    let mut details: Vec<String> = findings().take(DETAILS).map(|finding| finding.message).collect();
    if beyond.len() > DETAILS {
        details.push(format!("and {} more", beyond.len() - DETAILS));
    }
    Outcome::Failed { kind: "BeyondBound".to_owned(), message: first.message, details: details.join("\n") }
}

fn rows_as_table(title: &str, rows: &[Row]) -> Table {
    let columns = [
        Column::left("precision"),
        Column::left("form"),
        Column::right("layer"),
        Column::left("quantity"),
        Column::right("rms ratio"),
        Column::right("bound"),
        Column::right("worst element"),
        Column::right("bound"),
        Column::left("case"),
    ];
    let mut table = Table::new(title, columns);
    for row in rows {
        let relative = row.bounds.relative.map_or_else(|| Cell::text("-"), |limit| Cell::measured(limit, 1));
        table.push([
            Cell::text(row.case.tier.to_string()),
            Cell::text(row.case.form.to_string()),
            row.layer.map_or_else(|| Cell::text(""), |layer| Cell::count(layer as u64)),
            Cell::text(row.quantity.to_string()),
            Cell::measured(row.measure.ratio, 2),
            Cell::measured(row.bounds.ratio, 2),
            Cell::measured(row.measure.relative, 2),
            relative,
            Cell::text(place(row)),
        ]);
    }
    table
}

/// The case without what other columns say.
fn place(row: &Row) -> String {
    let case = &row.case;
    let chunk = case.chunk.map_or_else(String::new, |chunk| format!(", chunk {chunk}"));
    let calls = if case.calls.len() > 1 { format!(", {} calls", case.calls.len()) } else { String::new() };
    let beyond = if row.excess <= 1.0 { "" } else { "  BEYOND" };
    format!("{} start, {} tokens{chunk}{calls}{beyond}", case.start, case.length)
}
