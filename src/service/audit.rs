//! The audit log, read through the service.

use super::Service;
use crate::admission::{Details, Released};
use crate::audit::Record;
use crate::error::Result;
use crate::types::operation::ReadAudit;
use crate::types::{Caller, PublicKey, Resource, blocking};

/// The most records of one answer.
pub const MAX_RECORDS: usize = 1000;
/// The most bytes of them, as they stand in the log: an answer ends before the record that would pass it. A record that is
/// longer is an answer by itself.
pub const MAX_RECORD_BYTES: usize = 8 * 1024 * 1024;

/// Records of the log.
#[derive(Debug)]
pub struct Records {
    /// The index of the first.
    pub first: u64,
    /// The records.
    pub records: Vec<Record>,
    /// How many the log has.
    pub size: u64,
}

/// The newest signed head.
#[derive(Debug)]
pub struct SignedHead {
    /// The signed note; empty before the first head was signed.
    pub note: String,
    /// The key that signs heads.
    pub key: PublicKey,
}

impl Service {
    /// Reads records from index `first` on; where it is absent, from where the last `limit` begin.
    ///
    /// # Errors
    /// `Forbidden`; `Tampered` where the log cannot be read.
    pub async fn read_audit(&self, caller: &Caller, first: Option<u64>, limit: usize) -> Result<Released<Records>> {
        let permit = self.admit::<ReadAudit>(caller, Resource::Service).await?;
        let log = self.parts.log.clone();
        let read = blocking(move || {
            let size = log.size();
            let first = first.unwrap_or_else(|| size.saturating_sub(limit as u64)).min(size);
            let records = some(crate::audit::read(log.folder(), first)?, limit)?;
            Ok(Records { first, records, size })
        });
        permit.close(read.await, Details::default()).await
    }

    /// The newest signed head, and the key that signs.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn read_audit_head(&self, caller: &Caller) -> Result<Released<SignedHead>> {
        let permit = self.admit::<ReadAudit>(caller, Resource::Service).await?;
        let note = self.parts.log.last_head().map(|head| head.note().to_owned()).unwrap_or_default();
        permit.close(Ok(SignedHead { note, key: self.parts.log_key.clone() }), Details::default()).await
    }
}

/// The next records, up to the limits of an answer.
fn some(mut log: crate::audit::Records, limit: usize) -> Result<Vec<Record>> {
    let (mut records, mut bytes) = (Vec::new(), 0);
    while records.len() < limit {
        let Some(record) = log.next() else { break };
        let (_, record) = record?;
        bytes += log.length();
        if bytes > MAX_RECORD_BYTES && !records.is_empty() {
            break;
        }
        records.push(record);
    }
    Ok(records)
}
