//! Why a command did not succeed, and messages to the user.

use std::fmt;
use std::io::{self, Write};

/// Why a command did not succeed, one line for the user that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The command cannot be what was meant; nothing was done.
    Usage(String),
    /// The operation failed. The text says if it may have happened all the same.
    Failed(String),
    /// Whoever reads standard output has closed it.
    PipeClosed,
}

impl Failure {
    /// What the process ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Failed(_) => 1,
            Self::PipeClosed => 0,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Failed(text) => f.write_str(text),
            Self::PipeClosed => f.write_str("standard output was closed"),
        }
    }
}

impl std::error::Error for Failure {}

/// Only for errors of standard output; other files are named in the failure.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::PipeClosed,
            _ => Self::Failed(format!("standard output cannot be written: {error}")),
        }
    }
}

/// A message to the user, one line on standard error.
pub(super) fn say(message: &str) {
    // There is nowhere left to complain about a closed standard error.
    let _ = writeln!(io::stderr(), "chordkv: {message}");
}
