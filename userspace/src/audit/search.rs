//! One question to the log: from the store where it can be used, else from the journals.

use std::io;

use super::layout::Layout;
use super::query::{Filter, Line, Reader};
use super::store::{Store, StoreError};

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
    // Without the folder there is nothing to search, and nothing is created.
    layout.journal_names()?;
    match from_store(layout, filter) {
        Ok(Some(found)) => return Ok(found),
        Ok(None) => {}
        Err(e) => tracing::debug!("searching the journals, not the store: {e}"),
    }
    let mut reader = Reader::new(layout);
    let lines = reader.read(filter)?;
    Ok(Found { lines, damaged: reader.damaged })
}

/// `None` when another process uses the store.
fn from_store(layout: &Layout, filter: &Filter) -> Result<Option<Found>, StoreError> {
    let Some(store) = Store::open(layout)? else { return Ok(None) };
    store.catch_up(|| false)?;
    let (lines, damaged) = store.select(filter)?;
    Ok(Some(Found { lines, damaged }))
}
