//! The measurements as tables and plots.

use rwkv_forge_report::{Axis, Cell, Column, Marks, Plot, Table};

use super::{Curve, Law, Point, Series, Slope};

/// Cumulative time against position, both logarithmic.
#[must_use]
pub fn time_plot(curve: &Curve) -> Plot {
    let title = format!("{}: time to generate p tokens", curve.model);
    let mut plot = plot(curve, title, "seconds, cumulative", |point| point.cumulative_seconds);
    plot.description = format!("Seconds for all tokens up to a position, {} threads; measured at powers of two.", curve.threads);
    plot
}

/// Bytes of state, cache or intermediate tensors against position, both logarithmic.
#[must_use]
pub fn memory_plot(curve: &Curve) -> Plot {
    let title = format!("{}: memory beside the weights", curve.model);
    let mut plot = plot(curve, title, "bytes of state, cache or stream", |point| point.bytes as f64);
    plot.description = "Bytes of the tensors that a form keeps or needs for the token at a position, counted.".to_owned();
    plot
}

fn plot(curve: &Curve, title: String, label: &str, y: impl Fn(&Point) -> f64) -> Plot {
    let mut plot = Plot::new(title, Axis::log("position p, tokens"), Axis::log(label));
    for series in &curve.series {
        // What is zero has no place on a logarithmic axis.
        let points = series.points.iter().map(|point| (point.position as f64, y(point))).filter(|point| point.1 > 0.0);
        plot.push(series.form, Marks::LineAndPoints, points);
    }
    plot
}

/// Every measurement, for spreadsheets.
#[must_use]
pub fn points(curve: &Curve) -> Table {
    let names = [
        "form",
        "position",
        "seconds_per_token",
        "fastest_seconds",
        "runs",
        "spread",
        "cumulative_seconds",
        "bytes",
        "resident_peak_bytes",
        "resident_before_bytes",
    ];
    let mut table = Table::new("measurements", names.map(Column::right));
    let count = |value: Option<u64>| value.map_or_else(|| Cell::text(""), Cell::count);
    let seconds = |value: f64| Cell::measured(value, 4);
    for series in &curve.series {
        for point in &series.points {
            table.push([
                Cell::text(series.form),
                Cell::count(point.position),
                seconds(point.seconds),
                seconds(point.fastest),
                Cell::count(point.runs as u64),
                Cell::measured(point.spread, 3),
                seconds(point.cumulative_seconds),
                Cell::count(point.bytes),
                count(point.resident),
                count(series.resident_before),
            ]);
        }
    }
    table
}

/// What each form costs at the first and at its last position.
#[must_use]
pub fn costs(curve: &Curve) -> Table {
    let columns = [
        Column::left("form"),
        Column::right("last p"),
        Column::right("ms a token, p = 1"),
        Column::right("ms a token, last p"),
        Column::right("s for all tokens"),
        Column::right("bytes beside the weights, p = 1"),
        Column::right("last p"),
        Column::right("process grew by, MB"),
        Column::right("weights, MB"),
    ];
    let mut table = Table::new("what each form costs", columns);
    for series in &curve.series {
        let (Some(first), Some(last)) = (series.points.first(), series.points.last()) else { continue };
        table.push([
            Cell::text(series.form),
            Cell::count(last.position),
            Cell::measured(first.seconds * 1e3, 3),
            Cell::measured(last.seconds * 1e3, 3),
            Cell::measured(last.cumulative_seconds, 3),
            Cell::count(first.bytes),
            Cell::count(last.bytes),
            grown(series).map_or_else(|| Cell::text("-"), |bytes| Cell::fixed(bytes as f64 / 1e6, 1)),
            Cell::fixed(series.weight_bytes as f64 / 1e6, 1),
        ]);
    }
    table
}

/// How much larger the process was at any sampled position than before the first token.
fn grown(series: &Series) -> Option<u64> {
    let peak = series.points.iter().filter_map(|point| point.resident).max()?;
    Some(peak.saturating_sub(series.resident_before?))
}

/// The table of complexities, with the slopes that it comes from.
#[must_use]
pub fn laws(curve: &Curve) -> Table {
    let columns = [
        Column::left("form"),
        Column::left("quantity"),
        Column::left("grows as"),
        Column::left("positions of the fit"),
        Column::right("slope"),
        Column::right("residual"),
        Column::right("times its first share"),
        Column::right("slope of the growing part"),
        Column::right("residual"),
    ];
    let mut table = Table::new("complexities, from slopes of logarithms", columns);
    for series in &curve.series {
        let laws = [("time, a token", series.seconds_law()), ("time, all tokens", series.cumulative_law()), ("memory", series.bytes_law())];
        for (quantity, law) in laws {
            table.push(law_row(series.form, quantity, law.as_ref()));
        }
    }
    table
}

fn law_row(form: &str, quantity: &str, law: Option<&Law>) -> Vec<Cell> {
    let dash = || Cell::text("-");
    let mut row = vec![Cell::text(form), Cell::text(quantity)];
    let Some(law) = law else {
        row.extend([Cell::text("too few positions"), dash(), dash(), dash(), dash(), dash(), dash()]);
        return row;
    };
    let slope = |slope: &Slope| Cell { text: format!("{:.2} ± {:.2}", slope.exponent, slope.standard_error), value: Some(slope.exponent) };
    let off = |slope: &Slope| Cell { text: format!("{:.1} %", slope.residual * 100.0), value: Some(slope.residual) };
    row.extend([
        Cell::text(law.order()),
        Cell::text(format!("{} to {}", law.total.from, law.total.to)),
        slope(&law.total),
        off(&law.total),
        Cell::measured(law.growth, 3),
        law.growing_part.as_ref().map_or_else(dash, slope),
        law.growing_part.as_ref().map_or_else(dash, off),
    ]);
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Quiet;

    fn curve() -> Curve {
        let series = |form, bytes: fn(u64) -> u64, seconds: fn(u64) -> f64| {
            let mut cumulative_seconds = 0.0;
            let points = (0..8).map(|k| {
                let (position, seconds) = (1 << k, seconds(1 << k));
                cumulative_seconds += seconds * (position - position / 2) as f64;
                let resident = (k > 0).then_some(1000 + bytes(position));
                Point {
                    position,
                    seconds,
                    fastest: seconds / 2.0,
                    runs: 3,
                    spread: 0.2,
                    cumulative_seconds,
                    bytes: bytes(position),
                    resident,
                }
            });
            Series { form, method: "", weight_bytes: 1, resident_before: Some(1000), cut_short: false, points: points.collect() }
        };
        let series = vec![series("recurrent", |_| 512, |_| 2e-3), series("attention, cached", |p| 64 * p, |p| 2e-3 + 1e-4 * p as f64)];
        Curve { model: "RWKV-7".to_owned(), threads: 2, series, quiet: Quiet { load_average: Some(1.5), others_share: Some(0.2) } }
    }

    #[test]
    fn noise_is_said_and_what_it_touches() {
        let mut curve = curve();
        let said = curve.quietness();
        assert!(
            said.starts_with("While it measured: other programs took 20.0 % of the processors' time; the load average before was 1.50.\n")
        );
        assert!(said.contains("To be distrusted (?): all times: other programs took 20 %"), "{said}");
        assert_eq!(
            said.matches("half of the runs spread over more than 10 % of the median, up to 20 %").count(),
            curve.series.len(),
            "{said}"
        );
        // A quiet machine gives nothing to distrust.
        curve.series.iter_mut().flat_map(|series| &mut series.points).for_each(|point| point.spread = 0.02);
        curve.quiet = Quiet { load_average: Some(0.1), others_share: Some(0.001) };
        assert_eq!(curve.quietness().lines().count(), 1);
        curve.quiet = Quiet::default();
        assert_eq!(curve.quietness(), "");
    }

    #[test]
    fn the_csv_has_every_number_unrounded() {
        let csv = points(&curve()).to_csv().unwrap();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines.len(), 1 + 16);
        assert_eq!(lines[0].split(',').count(), 10);
        assert_eq!(lines[1], "recurrent,1,0.002,0.001,3,0.2,0.002,512,,1000");
        assert_eq!(lines[16].split(',').next_back(), Some("1000"));
        assert!(lines[16].starts_with("\"attention, cached\",128,") && lines[16].contains(",8192,9192,"), "{}", lines[16]);
    }

    #[test]
    fn the_plots_show_every_point_of_every_form() {
        for plot in [time_plot(&curve()), memory_plot(&curve())] {
            let svg = plot.to_svg().unwrap();
            // Two series of eight points, and their samples in the legend.
            assert_eq!(svg.matches(r#"class="p""#).count(), 2 * 8 + 2);
            assert_eq!(svg.matches("<circle").count(), 8 + 1, "each series has a shape of its own");
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("attention, cached"));
        }
        let mut empty = curve();
        empty.series[0].points.iter_mut().for_each(|point| point.bytes = 0);
        assert_eq!(memory_plot(&empty).series[0].points, []);
        assert!(memory_plot(&empty).to_svg().is_ok());
    }

    #[test]
    fn the_complexities_follow_the_measurements() {
        let orders = |curve: &Curve| laws(curve).rows.iter().map(|row| row[2].text.clone()).collect::<Vec<_>>();
        assert_eq!(orders(&curve()), ["1", "p", "1", "p", "p^2", "p"]);
        // With the two forms' figures exchanged, so are their laws: nothing goes by the name.
        let mut exchanged = curve();
        let (first, second) = exchanged.series.split_at_mut(1);
        std::mem::swap(&mut first[0].points, &mut second[0].points);
        assert_eq!(orders(&exchanged), ["p", "p^2", "p", "1", "p", "1"]);
        let mut short = curve();
        short.series[0].points.truncate(2);
        assert_eq!(orders(&short)[..3], ["too few positions", "too few positions", "too few positions"]);
        assert!(laws(&short).to_markdown().is_ok() && costs(&short).to_markdown().is_ok());
        assert_eq!(costs(&curve()).rows[1][6].text, "8,192");
    }
}
