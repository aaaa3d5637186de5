//! The client matrix: unmodified clients under `egret run` against real servers on loopback. Each does
//! one call that the policy allows, with a credential that only egret holds, and one that it refuses,
//! whose reason the client shows.
//!
//! The servers say what reached them: the allowed call with the credential, the refused one never,
//! though it would have been answered. Clients and servers are installed by `cargo xtask clients`;
//! what is missing is named, and counts as skipped.

mod catalogue;
mod play;
mod site;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::fixtures::Bench;
use catalogue::{CLIENTS, Client};

/// What the command line asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Where PyPI's, npm's and crates.io's clients were installed.
    pub tools: PathBuf,
    /// The real cargo, not a proxy that chooses one.
    pub cargo: Option<PathBuf>,
    /// Names of clients, or beginnings of them; none is all.
    pub only: Vec<String>,
}

/// Plays the clients and prints one JSON object for each; true if each works or is missing.
///
/// # Errors
/// When the servers do not start, or nothing was chosen.
pub fn run(bench: &Bench, wanted: &Wanted) -> Result<bool> {
    let chosen: Vec<&Client> = CLIENTS.iter().filter(|c| is_wanted(c, &wanted.only)).collect();
    ensure!(!chosen.is_empty(), "no client is called {}", wanted.only.join(", "));
    let site = site::Site::start(bench, wanted)?;
    play::keeps_the_secret(&site)?;
    let mut good = true;
    for client in chosen {
        let (status, detail) = match play::play(&site, client) {
            Ok(play::Played::Works) => ("works", String::new()),
            Ok(play::Played::Missing(what)) => ("missing", what),
            Err(error) => ("broken", format!("{error:#}")),
        };
        good &= status != "broken";
        let line = json!({
            "client": client.name, "from": client.from, "status": status, "detail": detail,
            "call": client.call, "shows": client.shows, "trust": client.trust,
        });
        println!("{line}");
    }
    Ok(good)
}

fn is_wanted(client: &Client, only: &[String]) -> bool {
    only.is_empty() || only.iter().any(|name| client.name.starts_with(name.as_str()))
}
