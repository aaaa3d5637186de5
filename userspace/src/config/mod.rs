//! Beside the flow: from what a person wrote (files, flags) to checked values.

mod args;
mod load;
mod shorthand;

pub use args::PolicyArgs;
pub use load::{LoadError, Loaded, load_policy};
pub use shorthand::{parse_allow, parse_bearer, parse_resolve};
