//! The two quantizers for rows of one format, compiled for the widest instructions of the CPU.

use rwkv_forge_quant::EncodeError;
use rwkv_forge_simd::Isa;

use crate::factor::{Factor, FeedbackLoss};
use crate::feedback::Feedback;
use crate::format::{Format, Kind};
use crate::rows::Rows;
use crate::search::Search;

/// Searches the scales of rows of blocks; never worse than the reference encoder with `importance`, by `importance`.
pub(crate) fn search(isa: Isa, format: &'static Format, rows: Rows, importance: Option<&[f32]>) -> Result<(), EncodeError> {
    match importance {
        Some(importance) => format.stored.encode_weighted(rows.values, importance, rows.out)?,
        None => format.stored.encode(rows.values, rows.out)?,
    };
    // Without importance, or where it is zero, the reference with these weights finds other scales.
    let mut start = vec![0; rows.out.len()];
    format.stored.encode_weighted(rows.values, rows.weights, &mut start)?;
    match format.points {
        Kind::Even(points) => isa.run(Search { format, points, rows, importance, start: &start }),
        Kind::Shares(points) => isa.run(Search { format, points, rows, importance, start: &start }),
        Kind::Table(points) => isa.run(Search { format, points, rows, importance, start: &start }),
    }
    Ok(())
}

/// Quantizes rows column by column and moves their errors on to the columns not yet quantized.
pub(crate) fn feedback(isa: Isa, format: &'static Format, rows: Rows, factor: &Factor) -> Result<FeedbackLoss, EncodeError> {
    match format.points {
        Kind::Even(points) => isa.run(Feedback::new(format, points, rows, factor)),
        Kind::Shares(points) => isa.run(Feedback::new(format, points, rows, factor)),
        Kind::Table(points) => isa.run(Feedback::new(format, points, rows, factor)),
    }
}
