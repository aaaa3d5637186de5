//! The command line. One file per subcommand; this file is the map.

pub mod check;
pub mod explain;
pub mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Transparent egress enforcement for AI agents.
#[derive(Debug, Parser)]
#[command(name = "egret", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {}

/// Runs the command line; errors are printed here and nowhere else.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {}
}
