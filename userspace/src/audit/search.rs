//! One question to the log.

use std::io;

use super::layout::Layout;
use super::query::{Filter, Line, Reader};

/// What a search found.
#[derive(Debug, Default)]
pub struct Found {
    /// In the order of time.
    pub lines: Vec<Line>,
    /// Lines of the journals that could not be believed.
    pub damaged: u64,
}

/// The records that match.
pub fn search(layout: &Layout, filter: &Filter) -> io::Result<Found> {
    let mut reader = Reader::new(layout);
    let lines = reader.read(filter)?;
    Ok(Found { lines, damaged: reader.damaged })
}
