//! The folder of an agent: one agent at a time keeps it, and knows that it can before anything is asked for.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::pair::{CURRENT, unwritable};
use crate::error::{Error, Kind, Result};

/// The file that is locked.
const LOCK: &str = "lock";

/// The right to write a folder, until it is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    lock: File,
}

impl Hold {
    /// Makes the folder where there is none, and takes it.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] where it cannot be written, [`Kind::Conflict`] where another agent has it, [`Kind::Invalid`] where something of
    /// another house stands in the place of the link.
    pub(super) fn take(folder: &Path) -> Result<Self> {
        let cannot = |e| unwritable(folder, &e);
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(cannot)?;
        let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(folder.join(LOCK)).map_err(cannot)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(Error::new(Kind::Conflict, format!("another agent keeps {}", folder.display()))
                    .hint("give each certificate a folder of its own, or end the other agent"));
            }
            Err(error) => return Err(cannot(error.into())),
        }
        let current = folder.join(CURRENT);
        if current.symlink_metadata().is_ok_and(|found| !found.is_symlink()) {
            return Err(Error::new(Kind::Invalid, format!("{} is not a link of the agent", current.display()))
                .hint("move it away, or give another folder"));
        }
        Ok(Self { lock })
    }
}

impl Drop for Hold {
    /// In words, rather than with the file: a program that is just being started has the file for a moment, too.
    fn drop(&mut self) {
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}
