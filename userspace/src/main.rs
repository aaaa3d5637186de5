//! The `egret` binary: everything is in the library.

fn main() -> std::process::ExitCode {
    // A contained command's pid 1 is this program again; see `contain::init`.
    if let Some(code) = egret::contain::init::entry(std::env::args_os()) {
        return code;
    }
    // So is the daemon's interceptor; see `intercept`.
    if let Some(code) = egret::intercept::entry(std::env::args_os()) {
        return code;
    }
    egret::cli::main()
}
