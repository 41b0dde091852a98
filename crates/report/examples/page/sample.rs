//! A page with everything that pages have, of invented numbers that look like those of a real evaluation.

use rwkv_forge_report::{
    Axis, Cell, Column, Dot, Figure, Guide, Marks, Page, PageTable, Pareto, Plot, Section, Table, Verdict, pareto_front,
};

/// Type, bytes, KL mean, KL 99 %, top-1, perplexity ratio, tokens/s.
const LEVELS: [(&str, u64, f64, f64, f64, f64, f64); 12] = [
    ("f16", 93_164_928, 0.0, 0.0, 1.0, 1.0, 88.1),
    ("q8_0", 53_843_328, 8.8e-5, 6.1e-4, 0.9946, 1.0013, 152.0),
    ("q6_k", 43_685_472, 6.03e-4, 4.05e-3, 0.9851, 1.0018, 171.3),
    ("q5_k_m", 38_393_440, 1.565e-3, 1.226e-2, 0.9775, 1.0023, 180.2),
    ("q5_k_s", 37_683_000, 1.81e-3, 1.4e-2, 0.9756, 1.0026, 182.9),
    ("q5_1", 40_120_000, 1.7e-3, 1.35e-2, 0.9761, 1.0027, 176.0),
    ("q4_k_m", 33_412_480, 5.566e-3, 4.509e-2, 0.9594, 1.0067, 196.4),
    ("q4_k_s", 32_400_000, 6.3e-3, 5.1e-2, 0.9569, 1.0071, 199.9),
    ("iq4_xs", 32_167_520, 6.017e-3, 4.895e-2, 0.9585, 1.0054, 164.8),
    ("q4_0", 33_412_480, 8.052e-3, 6.624e-2, 0.9520, 1.0079, 201.7),
    ("q3_k_m", 28_100_000, 2.31e-2, 0.17, 0.921, 1.0252, 192.2),
    ("q2_k", 24_500_000, 9.8e-2, 0.71, 0.852, 1.1048, 190.5),
];
const RECOMMENDED: usize = 3;

/// The page.
pub(crate) fn page() -> Page {
    let mut page = Page::new("What each level of small-rwkv7 loses");
    page.subtitle = "12 levels against the unquantized model on 240,128 tokens of held-out text, windows of 512".to_owned();
    page.verdict = Some(Verdict {
        headline: "Take q5_k_m".to_owned(),
        detail: "The smallest level with a mean KL under 0.002, as `--max-kl 0.002` asked for.".to_owned(),
        good: true,
        figures: [
            ("file size", "38.4 MB", "41 % of f16"),
            ("mean KL", "0.00157", "0.00149 to 0.00165"),
            ("same top-1", "97.8 %", "97.6 to 97.9 %"),
            ("perplexity", "+0.23 %", "+0.15 to +0.31 %"),
            ("speed", "180 tokens/s", "2.0 times f16"),
        ]
        .map(|(label, value, note)| Figure { label: label.to_owned(), value: value.to_owned(), note: note.to_owned() })
        .to_vec(),
    });
    page.sections = vec![levels(), positions(), layers(), method()];
    page.provenance = [
        ("baseline", "`small-rwkv7.pth`, sha256 3f9d2c4be1a65c9e41f5ff7d7a2f8d0f6f3a9b6a2a77be7e1c0ad5a0e6b1c2d3"),
        ("text", "eval-prose.txt, eval-refdocs.txt, eval-code.txt (72,000 bytes)"),
        ("program", "rwkv-forge 0.1.0"),
        ("command", "`rwkv-forge eval --levels q8_0,q6_k,q5_k_m,q4_k_m --text text/ small-rwkv7.pth --vocab vocab-4096.txt`"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    page
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn levels() -> Section {
    let mut section = Section::new("Size against loss");
    section.paragraph(
        "Every level that is not muted is the best that there is for its size. Lower is better, further to the left is smaller.",
    );
    let mut plot = Pareto::new("File size and mean KL of every level", Axis::linear("file size, MB"), Axis::log("mean KL, nats"));
    plot.description = "Points for 11 levels; the recommended one is q5_k_m at 38.4 MB".to_owned();
    for (index, (label, bytes, kl, .., speed)) in LEVELS.into_iter().enumerate() {
        plot.push(Dot {
            label: label.to_owned(),
            note: format!("{speed:.0} tokens/s"),
            x: megabytes(bytes),
            y: kl,
            interval: Some((kl * 0.94, kl * 1.06)),
            recommended: index == RECOMMENDED,
        });
    }
    plot.guides.push(Guide::Horizontal { at: 0.002, label: "--max-kl 0.002".to_owned() });
    section.pareto(plot);
    let columns = ["bytes", "bits/weight", "mean KL", "95 % interval", "99 % KL", "same top-1", "ppl ratio", "tokens/s", "memory, MB"];
    let mut table = Table::new("All levels", [Column::left("level")].into_iter().chain(columns.map(Column::right)));
    for (label, bytes, kl, p99, top1, ratio, speed) in LEVELS {
        table.push([
            Cell::text(label),
            Cell::count(bytes),
            Cell::fixed(bytes as f64 * 8.0 / 45_600_768.0, 2),
            Cell::fixed(kl, 6),
            Cell::text(format!("{:.6} to {:.6}", kl * 0.94, kl * 1.06)),
            Cell::fixed(p99, 5),
            Cell { text: format!("{:.2} %", top1 * 100.0), value: Some(top1) },
            Cell::fixed(ratio, 4),
            Cell::fixed(speed, 1),
            Cell::fixed(megabytes(bytes) + 21.0, 1),
        ]);
    }
    let front = pareto_front(&LEVELS.map(|level| (level.1 as f64, level.2)));
    let muted = front.iter().enumerate().filter_map(|(index, on)| (!on).then_some(index)).collect();
    section.table(PageTable { table, recommended: Some(RECOMMENDED), noted: Some((1, "best buy".to_owned())), muted });
    section.note("Intervals are paired bootstrap intervals over windows; KL is in nats per token.");
    section
}

fn positions() -> Section {
    let mut section = Section::new("Does it get worse with length?");
    section.paragraph("A state that carries an error from token to token would show as a line that rises.");
    let axis = Axis::named("position in the window, tokens", ["0-128", "128-512", "512-2k", "2k-8k"]);
    let mut plot = Plot::new("Mean KL by position", axis, Axis::log("mean KL, nats"));
    for (label, _, kl, ..) in LEVELS.into_iter().filter(|level| ["q8_0", "q6_k", "q5_k_m", "q4_k_m"].contains(&level.0)) {
        plot.push(label, Marks::LineAndPoints, [0.9, 1.0, 1.07, 1.1].into_iter().enumerate().map(|(x, factor)| (x as f64, kl * factor)));
    }
    // What is as good as another one lies on it.
    plot.push(
        "q5_k_s",
        Marks::LineAndPoints,
        [0.9, 1.0, 1.07, 1.1].into_iter().enumerate().map(|(x, factor)| (x as f64, 1.57e-3 * factor)),
    );
    section.plot(plot);
    section
}

fn layers() -> Section {
    let mut section = Section::new("Where the error arises");
    let mut plot = Plot::new("State error by layer", Axis::whole("layer"), Axis::from_zero("rms error over rms of the state"));
    for (label, scale) in [("q8_0", 0.002), ("q5_k_m", 0.009), ("q4_k_m", 0.021)] {
        plot.push(label, Marks::Line, (0..12).map(|layer| (f64::from(layer), scale * (1.0 + 0.11 * f64::from(layer * (13 - layer) % 7)))));
    }
    section.plot(plot);
    section
}

fn method() -> Section {
    let mut section = Section::new("Method");
    section.paragraph("Both models read the same tokens layer by layer; nothing is stored between them but the residuals.");
    section.command("rwkv-forge eval --levels q8_0,q6_k,q5_k_m,q4_k_m --text text/ small-rwkv7.pth --vocab vocab-4096.txt --max-kl 0.002 --html report.html\nrwkv-forge --help");
    section
}
