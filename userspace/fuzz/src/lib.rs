//! What several targets need: other readers to compare with, written as plainly as can be.

pub mod http1;
pub mod naive;

/// The first line and the rest: sizes of pieces, one byte each, and what is to be cut into them. So
/// that a seed can be written as text.
pub fn cut_at_line(data: &[u8]) -> (&[u8], &[u8]) {
    let line = data.iter().position(|b| *b == b'\n');
    line.map_or((&[], data), |at| (&data[..at], &data[at + 1..]))
}
