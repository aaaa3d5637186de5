//! The `egret` binary: everything is in the library.

fn main() -> std::process::ExitCode {
    egret::cli::main()
}
