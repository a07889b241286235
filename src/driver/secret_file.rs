//! Files with secrets: read only if nobody else on the host could have.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Mode bits that let others than owner and group at a file, or the group write it.
const OTHERS: u32 = 0o027;

/// The text of a file of at most `bytes_max`. The error names the file and says what to do.
pub(super) fn read(path: &Path, bytes_max: u64) -> Result<String, String> {
    let failed = |error: io::Error| format!("{} cannot be read: {error}", path.display());
    if !fs::metadata(path).map_err(failed)?.is_file() {
        // A pipe would be waited for, and a node that waits does nothing else.
        return Err(format!("{} is no regular file", path.display()));
    }
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode();
    if mode & OTHERS != 0 {
        return Err(format!(
            "{} may be used or changed by others on this host (mode {:03o}): chmod 600 it, and make new secrets if others could \
             have read them",
            path.display(),
            mode & 0o777
        ));
    }
    let mut text = String::new();
    let count = file.take(bytes_max + 1).read_to_string(&mut text).map_err(failed)?;
    if count as u64 > bytes_max {
        return Err(format!("{} is larger than {bytes_max} bytes", path.display()));
    }
    Ok(text)
}
