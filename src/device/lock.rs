//! The lock of a data folder. Device workers hold it too, so nobody begins on a folder while the worker of a dead process may still
//! be at work.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};

/// How long the workers of a process that was killed may live on, and a little more.
const LAST_WORKERS: Duration = Duration::from_secs(4);
/// How often it is tried meanwhile.
const LOOK: Duration = Duration::from_millis(10);

/// Takes the lock of `data` for a `user`, such as `service`; `maker` is the command that makes such a folder.
///
/// # Errors
/// [`Kind::Unavailable`] where there is no such folder, [`Kind::Conflict`] where another one works on it.
pub async fn lock(data: &Path, user: &str, maker: &str) -> Result<File> {
    let unusable = |e: std::io::Error| {
        Error::new(Kind::Unavailable, format!("the data folder {} cannot be used: {e}", data.display()))
            .hint(format!("`{maker}` makes one; the {user}'s user must own it"))
    };
    let file = File::options().create(true).append(true).open(data.join("lock")).map_err(unusable)?;
    let until = Instant::now() + LAST_WORKERS;
    while rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() > until {
            return Err(Error::new(Kind::Conflict, format!("another {user} uses {}", data.display()))
                .hint("end it first: two on one folder would undo each other's work"));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(file)
}
