//! `cargo xtask`: the one door to building, testing and showing egret.
//!
//! Everything it makes goes to `target/`; nothing it does needs root except the rungs of the
//! test ladder that load kernel programs, and those run inside a VM where the host cannot.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool that reports")]

mod attacks;
mod build;
mod clients;
mod demo;
mod ebpf;
mod fuzz;
mod host;
mod ladder;
mod report;
mod sh;
mod tidy;
mod vm;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the kernel programs and target/release/egret
    Build {
        /// Build target/debug/egret instead
        #[arg(long)]
        debug: bool,
    },
    /// Run the whole test ladder and end with one table
    Test {
        /// Leave the VM rungs out
        #[arg(long)]
        no_vm: bool,
        /// Run this rung only (repeatable)
        #[arg(long, value_name = "RUNG")]
        only: Vec<String>,
    },
    /// Check the rules of this repository that no compiler knows
    Tidy,
    /// Run the end-to-end tests inside VMs with Debian's kernels
    Vm {
        #[command(subcommand)]
        action: Option<VmAction>,
        /// 6.1, 6.12 or all
        #[arg(long, default_value = "all")]
        kernel: String,
        /// Take the binaries in target/ as they are
        #[arg(long)]
        no_build: bool,
        /// Handed to the test binary, for example a filter
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Play the catalogue of attacks and compare with the tables in SECURITY.md
    Attacks {
        /// As the agent of `egret run`, of `egret attach`, or one after the other
        #[arg(long, value_enum, default_value_t = attacks::Mode::Both)]
        mode: attacks::Mode,
        /// One JSON object per line of the catalogue instead of the table
        #[arg(long)]
        json: bool,
        /// Inside the VM with this kernel: 6.1 or 6.12
        #[arg(long, value_name = "KERNEL")]
        vm: Option<String>,
        /// These lines of the catalogue only
        #[arg(long, value_name = "N,N", value_delimiter = ',')]
        only: Vec<u8>,
        /// Replace the tables of this kernel and these modes in SECURITY.md
        #[arg(long)]
        write: bool,
        /// Take the binaries in target/ as they are (on this machine: egret's debug build)
        #[arg(long)]
        no_build: bool,
    },
    /// Play unmodified clients against real servers and compare with the table in README.md
    Clients {
        /// Clients whose name begins so (repeatable)
        #[arg(long, value_name = "NAME")]
        only: Vec<String>,
        /// One JSON object per client instead of the table
        #[arg(long)]
        json: bool,
        /// Replace the table in README.md
        #[arg(long)]
        write: bool,
        /// Install what is missing: from Debian's packages as root, the rest below target/
        #[arg(long)]
        install: bool,
    },
    /// Show on one screen what egret does to unmodified clients
    Demo {
        /// Run it inside the VM even if this machine could
        #[arg(long)]
        vm: bool,
    },
}

#[derive(Subcommand)]
enum VmAction {
    /// Boot the VM and open a root shell on its console
    Shell {
        /// 6.1 or 6.12
        #[arg(long, default_value = "6.12")]
        kernel: String,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let workspace = workspace();
    let result = match args.command {
        Command::Build { debug } => build::egret(&workspace, debug).map(|binary| {
            println!("{}", binary.display());
            true
        }),
        Command::Test { no_vm, only } => ladder::run(&workspace, &ladder::Wanted { no_vm, only }),
        Command::Tidy => tidy::run(&workspace),
        Command::Vm { action: Some(VmAction::Shell { kernel }), .. } => {
            vm::shell(&workspace, &kernel)
        }
        Command::Vm { action: None, kernel, no_build, args } => {
            vm::e2e(&workspace, &kernel, no_build, &args)
        }
        Command::Attacks { mode, json, vm, only, write, no_build } => {
            attacks::run(&workspace, &attacks::Wanted { mode, json, vm, only, write, no_build })
        }
        Command::Clients { only, json, write, install } => {
            clients::run(&workspace, &clients::Wanted { only, json, write, install })
        }
        Command::Demo { vm } => demo::run(&workspace, vm),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the workspace, wherever the command was started.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}
