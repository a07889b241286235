//! The data directory: what a node keeps beyond its process. Only one process uses it at a time.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::settings::RunError;

/// A data directory that this process alone uses.
#[derive(Debug)]
pub(super) struct DataDir {
    pub path: PathBuf,
    // Given up by the system when the process ends, however it ends.
    _lock: File,
}

const LOCK: &str = "lock";

impl DataDir {
    /// Takes the directory, made if it is missing.
    pub fn open(dir: &Path) -> Result<Self, RunError> {
        let fail = |text: String| RunError { message: format!("--data-dir {}: {text}", dir.display()) };
        let unusable = |error: io::Error| fail(format!("{error}; name a directory that this user may write to"));
        fs::create_dir_all(dir).map_err(unusable)?;
        let lock = File::options().create(true).truncate(false).write(true).open(dir.join(LOCK)).map_err(unusable)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            Errno::WOULDBLOCK => fail("another process uses it; give every node a directory of its own".to_owned()),
            other => unusable(other.into()),
        })?;
        Ok(Self { path: dir.to_owned(), _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_in_use_or_that_cannot_be_one_is_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let said = |dir: &Path| DataDir::open(dir).map(|_| ()).unwrap_err().message;
        let opened = DataDir::open(dir.path()).unwrap();
        assert!(said(dir.path()).contains("another process uses it"));
        drop(opened);
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(said(&file).contains("name a directory"), "{}", said(&file));
    }
}
