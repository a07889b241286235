//! `keygen`: makes a ring key.

use std::io;

use super::args::KeygenArgs;
use super::failure::{Failure, say};
use crate::driver::RingKeys;

/// Makes the file, or says why not.
pub(super) fn keygen(args: &KeygenArgs) -> Result<(), Failure> {
    let name = args.file.display();
    RingKeys::create(&args.file).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::Failed(format!("{name} is there already and stays as it is; name another file"))
        }
        _ => Failure::Failed(format!("{name} cannot be made: {error}")),
    })?;
    say(&format!("{name} has a new ring key: give it to every node of the ring, and to nobody else"));
    Ok(())
}
