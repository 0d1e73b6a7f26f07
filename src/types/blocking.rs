//! Work that waits for a disk or keeps a core busy, off the threads that serve requests.

use crate::error::{Error, Result};

/// Runs `work` on a thread that may block.
///
/// # Errors
/// Those of `work`; [`Kind::Internal`](crate::error::Kind::Internal) where it panicked.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal(format!("a blocking call was lost: {e}")))?
}
