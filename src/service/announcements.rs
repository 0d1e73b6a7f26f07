//! What is announced of certificates.

use std::sync::Arc;

use super::{Idempotency, Outcome, Service};
use crate::admission::{Details, Released};
use crate::ca::announcement::{Known, What};
use crate::error::{Error, Result};
use crate::types::operation::{DeleteAnnouncement, ReadAnnouncement, WriteAnnouncement};
use crate::types::{Caller, IssuerName, Resource};

impl Service {
    /// Announces what will become of certificates of an issuer.
    ///
    /// # Errors
    /// Those of [`crate::ca::Authority::announce`].
    pub async fn announce(
        &self,
        caller: &Caller,
        issuer: &IssuerName,
        what: What,
        idempotency: &Idempotency,
    ) -> Result<Released<Arc<Known>>> {
        let permit = self.admit::<WriteAnnouncement>(caller, Resource::Issuer(issuer.clone())).await?;
        let result = async {
            let turn = match self.once(caller, idempotency).await? {
                Ok(Outcome::Announcement(issuer, id)) => return self.parts.authority.announcement(&issuer, &id),
                Ok(_) => return Err(Error::internal("another outcome under this idempotency key")),
                Err(turn) => turn,
            };
            let also = |id: &str| turn.record(Outcome::Announcement(issuer.clone(), id.to_owned()));
            self.parts.authority.announce(&permit, issuer, what, also).await
        };
        let result = result.await;
        permit.close(result, Details::default()).await
    }

    /// Lists the announcements of an issuer.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn list_announcements(&self, caller: &Caller, issuer: &IssuerName) -> Result<Released<Vec<Arc<Known>>>> {
        let permit = self.admit::<ReadAnnouncement>(caller, Resource::Issuer(issuer.clone())).await?;
        let authority = &self.parts.authority;
        let result = authority.issuer(issuer).map(|_| authority.announcements(issuer));
        permit.close(result, Details::default()).await
    }

    /// Takes an announcement back before its time.
    ///
    /// # Errors
    /// Those of [`crate::ca::Authority::cancel_announcement`].
    pub async fn cancel_announcement(
        &self,
        caller: &Caller,
        issuer: &IssuerName,
        id: &str,
        idempotency: &Idempotency,
    ) -> Result<Released<()>> {
        let permit = self.admit::<DeleteAnnouncement>(caller, Resource::Issuer(issuer.clone())).await?;
        let result = async {
            let Err(turn) = self.once(caller, idempotency).await? else { return Ok(()) };
            let also = turn.record(Outcome::Announcement(issuer.clone(), id.to_owned()))?;
            self.parts.authority.cancel_announcement(&permit, issuer, id, also).await
        };
        let result = result.await;
        permit.close(result, Details::default()).await
    }
}
