//! Why a secret could not be obtained, in words for the operator.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::{MAX_SECRET, MIN_SECRET};

/// A credential that cannot be used: which one, and why. Never carries the value.
#[derive(Debug, thiserror::Error)]
#[error("credential `{credential}`: {problem}")]
pub struct SecretError {
    /// The NAME of `[credentials.NAME]`.
    pub credential: Arc<str>,
    #[source]
    pub problem: SecretProblem,
}

/// What happened, and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum SecretProblem {
    #[error(
        "the environment variable {0} is not set; set it before starting egret \
         (sudo drops it unless told: sudo --preserve-env={0} …)"
    )]
    EnvUnset(String),
    #[error("the file {path} cannot be opened ({source}); check the path and that it is readable")]
    FileOpen { path: PathBuf, source: io::Error },
    #[error("the file {path} cannot be read: {source}")]
    FileRead { path: PathBuf, source: io::Error },
    #[error("{0} is not a regular file; name a file that holds the secret and nothing else")]
    FileKind(PathBuf),
    #[error(
        "the file {path} has mode {mode:04o} and must be 0600 or stricter, \
         so that nobody else can read it; run: chmod 600 {path}"
    )]
    FileMode { path: PathBuf, mode: u32 },
    #[error(
        "the file {path} belongs to uid {owner} and must belong to root or to uid {operator}; \
         run: chown {operator} {path}"
    )]
    FileOwner { path: PathBuf, owner: u32, operator: u32 },
    #[error(
        "the file {path} has {links} names (hard links), and an agent could read it under another; \
         find them with `find / -xdev -samefile {path}` and remove them"
    )]
    FileLinks { path: PathBuf, links: u64 },
    #[error("the command `{program}` could not be started: {source}")]
    ExecStart { program: String, source: io::Error },
    #[error("the command `{program}` did not answer within {seconds} s and was killed{stderr}")]
    ExecTimeout { program: String, seconds: u64, stderr: Stderr },
    #[error("the command `{program}` ended with {status}{stderr}")]
    ExecFailed { program: String, status: String, stderr: Stderr },
    #[error("the command `{program}` answered more than {limit} bytes and was killed{stderr}")]
    ExecOutput { program: String, limit: usize, stderr: Stderr },
    #[error(
        "the command `{program}` did not answer with one JSON object \
         {{\"version\":1,\"secret\":\"…\"}} or {{\"error\":\"…\"}}: {why}{stderr}"
    )]
    ExecAnswer { program: String, why: &'static str, stderr: Stderr },
    #[error("the command `{program}` refused: {message}")]
    ExecRefused { program: String, message: String },
    #[error("talking to the command `{program}` failed: {source}")]
    ExecIo { program: String, source: io::Error },
    #[error("the secret is empty; check that its source holds it")]
    Empty,
    #[error(
        "the secret contains a control character (a line break, NUL or the like) and could not \
         stand in a header; check that its source holds one line with the secret alone"
    )]
    ControlBytes,
    #[error("the secret begins or ends with white space; remove it at the source")]
    SpaceAtEdge,
    #[error(
        "the secret is shorter than {MIN_SECRET} bytes, too short to be recognised in answers; \
         use a longer one"
    )]
    TooShort,
    #[error("the secret is longer than {MAX_SECRET} bytes; check that its source is the right one")]
    TooLong,
    #[error("its kind cannot be attached: {0}")]
    Kind(String),
    #[error("its placeholder cannot be made: {0}")]
    Placeholder(String),
    #[error("it was not handed over by the process that reads secrets")]
    NotHandedOver,
    #[error("it was handed over, and the policy has no such credential or it came twice")]
    NotAsked,
    #[error("it was handed over with a placeholder that the policy's shape could not have made")]
    ForeignPlaceholder,
}

/// What a command wrote to its standard error: its last lines, control characters escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stderr(pub(super) String);

impl std::fmt::Display for Stderr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; it said: {}", self.0) }
    }
}
