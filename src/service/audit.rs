//! The audit log, read through the service.

use super::Service;
use crate::admission::{Details, Released};
use crate::audit::proof::{Consistency, Proof};
use crate::audit::tile::Tile;
use crate::audit::{HeadSigner, Record, Tree};
use crate::error::{Error, Kind, Result};
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
    /// The ECDSA P-256 key that signs heads.
    pub key: PublicKey,
    /// The Ed25519 key that signs them as well, where there is one.
    pub second: Option<PublicKey>,
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
            // What was pruned is left out: the answer says where it begins.
            let first = first.unwrap_or_else(|| size.saturating_sub(limit as u64)).max(log.first()).min(size);
            let records = some(crate::audit::read(log.folder(), first)?, limit)?;
            Ok(Records { first, records, size })
        });
        permit.close(read.await, Details::default()).await
    }

    /// The newest signed head, and the keys that sign.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn read_audit_head(&self, caller: &Caller) -> Result<Released<SignedHead>> {
        let permit = self.admit::<ReadAudit>(caller, Resource::Service).await?;
        let note = self.parts.log.last_head().map(|head| head.note().to_owned()).unwrap_or_default();
        let second = self.parts.heads.second().map(|second| second.public_key().clone());
        permit.close(Ok(SignedHead { note, key: self.log_key().clone(), second }), Details::default()).await
    }
}

impl Service {
    /// A record, and the proof that it is below a signed head.
    ///
    /// # Errors
    /// `Forbidden`; `NotFound` for a record that the log does not have or that was pruned; `Unavailable` while no head is signed above it.
    pub async fn prove_record(&self, caller: &Caller, index: u64) -> Result<Released<Proof>> {
        let size = self.parts.log.size();
        self.with_tree(caller, "record", index, move |tree| {
            if index >= tree.head().size() && index < size {
                return Err(Error::new(Kind::Unavailable, format!("no head is signed above record {index} yet"))
                    .hint("heads are signed each second: try again"));
            }
            tree.prove(index)
        })
        .await
    }

    /// The proof that the log of the first `old` records is the beginning of the one below the newest head.
    ///
    /// # Errors
    /// `Forbidden`; `NotFound` where the log never had so many below a head.
    pub async fn prove_consistency(&self, caller: &Caller, old: u64) -> Result<Released<Consistency>> {
        self.with_tree(caller, "old", old, move |tree| tree.consistency(old)).await
    }

    /// A tile of the log.
    ///
    /// # Errors
    /// `Forbidden`; `NotFound` where it is not there; `Limit` for a bundle with a record that is too long for one.
    pub async fn read_tile(&self, caller: &Caller, tile: Tile) -> Result<Released<Vec<u8>>> {
        self.with_tree(caller, "tile", tile, move |tree| tree.tile(tile)).await
    }

    /// The signed head that tiles are given out for.
    ///
    /// # Errors
    /// `Forbidden`; `Unavailable` before the first head was signed.
    pub async fn read_checkpoint(&self, caller: &Caller) -> Result<Released<String>> {
        self.with_tree(caller, "tile", "checkpoint", |tree| Ok(tree.head().note().to_owned())).await
    }

    /// The ECDSA P-256 key that signs the heads of the log.
    #[must_use]
    pub fn log_key(&self) -> &PublicKey {
        self.parts.heads.public_key()
    }

    async fn with_tree<T: Send + 'static>(
        &self,
        caller: &Caller,
        fact: &'static str,
        value: impl ToString,
        make: impl FnOnce(&Tree) -> Result<T> + Send + 'static,
    ) -> Result<Released<T>> {
        let permit = self.admit::<ReadAudit>(caller, Resource::Service).await?;
        let made = self.parts.log.with_tree(make).await;
        permit.close(made, Details::default().fact(fact, value)).await
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
