//! Draws size against loss from lines of `series,bytes,kl`: `bytes_and_loss TABLE.csv > PLOT.svg`.

use rwkv_forge_report::{Axis, Marks, Plot};

#[allow(clippy::print_stdout, reason = "an example for the terminal")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("bytes_and_loss TABLE.csv")?;
    let text = std::fs::read_to_string(path)?;
    let mut series: Vec<(&str, Vec<(f64, f64)>)> = Vec::new();
    for line in text.lines().skip(1) {
        let mut fields = line.split(',');
        let (Some(name), Some(bytes), Some(kl)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(format!("'{line}' is no series,bytes,kl").into());
        };
        let point = (bytes.parse::<f64>()? / 1e6, kl.parse()?);
        match series.iter_mut().find(|(known, _)| *known == name) {
            Some((_, points)) => points.push(point),
            None => series.push((name, vec![point])),
        }
    }
    let mut plot = Plot::new("Size against loss", Axis::linear("size, MB"), Axis::log("mean KL, nats a token"));
    for (name, points) in series {
        plot.push(name, Marks::LineAndPoints, points);
    }
    print!("{}", plot.to_svg()?);
    Ok(())
}
