//! Draws size against loss from lines of `series,bytes,kl,kl_low,kl_high`: `bytes_and_loss TABLE.csv > PLOT.svg`.

use rwkv_forge_report::{Axis, Marks, Plot, Series};

#[allow(clippy::print_stdout, reason = "an example for the terminal")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("bytes_and_loss TABLE.csv")?;
    let text = std::fs::read_to_string(path)?;
    let mut plot = Plot::new("Size against loss", Axis::linear("size, MB"), Axis::log("mean KL, nats a token"));
    plot.description = "Bars are 95 % intervals".to_owned();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let [name, bytes, kl, low, high] = fields[..] else {
            return Err(format!("'{line}' is no series,bytes,kl,kl_low,kl_high").into());
        };
        let (point, interval) = ((bytes.parse::<f64>()? / 1e6, kl.parse()?), (low.parse()?, high.parse()?));
        match plot.series.iter_mut().find(|known| known.name == name) {
            Some(known) => {
                known.points.push(point);
                known.intervals.push(interval);
            }
            None => plot.series.push(Series::new(name, Marks::LineAndPoints, [point]).within([interval])),
        }
    }
    print!("{}", plot.to_svg()?);
    Ok(())
}
