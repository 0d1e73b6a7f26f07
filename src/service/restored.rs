//! What follows from a restore, and from an older state that an operator accepted.

use std::sync::Arc;

use jiff::Timestamp;

use super::Service;
use crate::admission::Details;
use crate::audit::Phase;
use crate::error::{Error, Result};
use crate::keyring::{Key, resource};
use crate::policy::{Facts, Target};
use crate::store::{Change, Expected};
use crate::types::operation::{RevokeToken, RotateKey};
use crate::types::{Caller, Resource};

/// What was done after a restore.
#[derive(Debug, Default)]
pub struct Restoration {
    /// Tokens that were revoked.
    pub tokens: usize,
    /// Versions that a token shows and the backup did not know: their numbers are not given again.
    pub buried: usize,
    /// Counted keys that got a new version.
    pub rotated: usize,
}

impl Service {
    /// Records the gap, revokes every token, because nobody knows which were revoked after the backup, and makes a new version
    /// of every counted key, because its count went back. Doing it twice does no harm.
    ///
    /// # Errors
    /// Where it cannot be recorded, or a device fails: then the next start tries again.
    pub async fn after_restore(&self, taken: &str) -> Result<Restoration> {
        let caller = Caller::system("restore", "restore");
        let what = format!("started from a backup of {taken}: what came after it is not known");
        self.parts.admission.recovered(&caller, &Resource::Service, &what).await?;
        let tokens = self.revoke_all(&caller).await?;
        let buried = self.parts.keyring.bury_unknown().await?;
        let rotated = self.renew_counted(&caller, Timestamp::MAX).await?;
        Ok(Restoration { tokens, buried, rotated })
    }

    /// Makes a new version of every counted key whose present one is older than the last time that an operator accepted an older
    /// state: how often it was used since is not known. Answers how many.
    ///
    /// # Errors
    /// Where it cannot be recorded, or a device fails: then the next start tries again.
    pub async fn after_gap(&self) -> Result<usize> {
        let Some(gap) = self.parts.ledger.last_gap().await? else { return Ok(0) };
        self.renew_counted(&Caller::system("restore", "restore"), gap).await
    }

    /// Makes a new version of every counted key whose present one was made before then.
    async fn renew_counted(&self, caller: &Caller, until: Timestamp) -> Result<usize> {
        let mut rotated = 0;
        for key in self.parts.keyring.all() {
            let old = key.primary().is_ok_and(|primary| primary.record.created < until);
            if old && key.rotation().counts() {
                self.rotate_restored(caller, &key).await?;
                rotated += 1;
            }
        }
        Ok(rotated)
    }

    async fn revoke_all(&self, caller: &Caller) -> Result<usize> {
        let now = self.parts.ledger.clock().now();
        let mut count = 0;
        for known in self.parts.registry.tokens() {
            if known.record.revoked.is_some() {
                continue;
            }
            let resource = Resource::Token(known.record.id());
            let permit = self.admit::<RevokeToken>(caller, resource).await?;
            let mut record = known.record.clone();
            record.revoked = Some(now);
            let value = serde_json::to_vec(&record).map_err(|e| Error::internal(format!("token: {e}")))?;
            let change = Change { path: record.path(), expected: Expected::Any, value: Some(value) };
            let leaf = permit.record(Phase::Change, &Details::default());
            let revision = self.parts.ledger.commit(leaf, vec![change]).await?;
            self.parts.registry.put_token(record, revision);
            permit.close(Ok(()), Details::default()).await?.into_inner();
            count += 1;
        }
        Ok(count)
    }

    async fn rotate_restored(&self, caller: &Caller, key: &Arc<Key>) -> Result<()> {
        let name = &key.record.name;
        let target = Target { resource: resource(name), key: Some(key.facts()) };
        let permit = self.parts.admission.admit::<RotateKey>(caller, &target, &Facts::default()).await?;
        let rotated = self.parts.keyring.rotate(&permit, name, None, false, |_| Ok(None)).await;
        let details = Details { key_id: Some(key.record.id), ..Details::default() };
        permit.close(rotated.map(drop), details).await?.into_inner();
        Ok(())
    }
}
