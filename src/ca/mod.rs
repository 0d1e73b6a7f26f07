//! The certification authority: issuers, profiles, certificates, revocation.
//!
//! ```text
//! request ─▶ policy, per name ─▶ profile ─▶ Template ─▶ to-be-signed bytes ─▶ lint
//!   ─▶ reservation committed ─▶ the device signs ─▶ read back, compared, verified ─▶ certificate committed ─▶ released
//!                       └────── a crash in between leaves a reservation: its serial is closed at start and counts as revoked
//! ```
//!
//! **What it promises.** No serial number is used twice, and nothing was signed that the inventory does not know: the bytes
//! are durable before they are signed. A certificate leaves only after it was read back from its bytes by a parser that had
//! no part in writing it. It never outlives the issuer that signed it.
//!
//! **Issuers.** An issuer has a name for good and versions that come and go. A version is a version of the issuer's key, which
//! stays in its device, and a certificate for it. A key is born, used and destroyed by `keyring`; its domain is `x509`, so it
//! signs nothing that a caller sends. Which version may sign what is in one place, `signing::Signing::sign_structures`.
//!
//! ```text
//! requested ─▶ prepared ─▶ active ─▶ retired ─▶ ended
//!  (a request   (published) (issues)  (tells of   (its last
//!   is outside)                       revocation)  certificate is dead)
//! ```
//!
//! **What is stored.** Issuers, profiles and revocations are sealed records, read into memory at start; certificates are public
//! and stand in a table of their own, which is searched on disk.
//!
//! ```text
//! issuers/NAMESPACE/NAME                            issuer::Record
//! profiles/NAMESPACE/NAME                           profile::Profile
//! revocations/NAMESPACE/NAME/NNNNNNNNNN/SERIAL      revocation::Revocation
//! announcements/NAMESPACE/NAME/ID                   announcement::Announcement
//! notices/ID                                        notice::Notice
//! ```

pub mod acme;
pub mod announcement;
pub mod bundle;
pub mod expiry;
pub mod inventory;
pub mod issue;
pub mod issuer;
pub mod notice;
pub mod pattern;
pub mod profile;
pub mod profiles;
pub mod published;
pub mod renewal;
pub mod request;
pub mod revocation;
pub mod rollover;
pub mod software;
pub mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, OwnedMutexGuard};

use crate::admission::{Admission, no_issuer};
use crate::error::{Error, Kind, Result};
use crate::keyring::Keyring;
use crate::ledger::Ledger;
use crate::signing::Signing;
use crate::store::{Change, Expected, Record, Store};
use crate::telemetry::Metrics;
use crate::types::{IssuerName, Name, ProfileName, Turns};

use issuer::Issuer;

/// The format of all records here.
const FORMAT: u32 = 1;

/// What an authority stands on.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Changes.
    pub ledger: Arc<Ledger>,
    /// Permits, for its own jobs.
    pub admission: Arc<Admission>,
    /// Keys.
    pub keyring: Arc<Keyring>,
    /// Signatures.
    pub signing: Arc<Signing>,
    /// Metrics.
    pub metrics: Metrics,
    /// What stands before `/pki/` in the URLs that certificates carry; they carry none of ours where absent.
    pub url: Option<String>,
    /// Who is told of certificates that end.
    pub notices: Option<notice::Settings>,
}

/// All issuers and what they have issued.
pub struct Authority {
    parts: Parts,
    /// Snapshots by name. The lock protects the map; it is never held across an await.
    issuers: RwLock<BTreeMap<IssuerName, Arc<Issuer>>>,
    /// Stored profiles. Never held across an await.
    profiles: RwLock<BTreeMap<ProfileName, profiles::Known>>,
    /// What was revoked, and until when that has to be told. Never held across an await.
    revoked: RwLock<revocation::Known>,
    /// What will become of certificates. Never held across an await.
    announcements: RwLock<announcement::All>,
    /// Which certificates end while nothing stands ready in their place. Never held across an await.
    late: Mutex<expiry::Late>,
    /// What a receiver outside is told of them.
    notices: Option<notice::Notices>,
    /// One turn per issuer: whoever holds it may change it.
    turns: Turns<IssuerName>,
    /// The reservations whose certificates are being signed right now, by their serial numbers.
    signing_now: Mutex<BTreeSet<[u8; 20]>>,
    /// Told whenever some of them are not any more.
    signed: Notify,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({} issuers)", self.issuers().len())
    }
}

impl Authority {
    /// Reads all records from the store.
    ///
    /// # Errors
    /// `Tampered` where a record does not hold; `Unavailable` where the store cannot be read.
    pub fn load(parts: Parts) -> Result<Self> {
        let store = parts.ledger.store();
        let (issuers, profiles) = (issuer::read_all(&*store)?, profiles::read_all(&*store)?);
        let (revoked, announcements) = (revocation::read_all(&*store)?, announcement::read_all(&*store)?);
        let notices = parts.notices.clone().map(|settings| notice::Notices::load(&*store, settings)).transpose()?;
        Ok(Self {
            parts,
            issuers: RwLock::new(issuers),
            profiles: RwLock::new(profiles),
            revoked: RwLock::new(revoked),
            announcements: RwLock::new(announcements),
            late: Mutex::default(),
            notices,
            turns: Turns::default(),
            signing_now: Mutex::default(),
            signed: Notify::new(),
        })
    }

    /// The issuer with that name.
    ///
    /// # Errors
    /// [`Kind::NotFound`].
    pub fn issuer(&self, name: &IssuerName) -> Result<Arc<Issuer>> {
        let issuers = self.issuers.read().unwrap_or_else(PoisonError::into_inner);
        issuers.get(name).cloned().ok_or_else(|| no_issuer(name))
    }

    /// All issuers, in the order of their names.
    #[must_use]
    pub fn issuers(&self) -> Vec<Arc<Issuer>> {
        self.issuers.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// At most `limit` issuers after `after`, of one namespace or of all.
    #[must_use]
    pub fn list(&self, namespace: Option<&Name>, after: Option<&IssuerName>, limit: usize) -> Vec<Arc<Issuer>> {
        let wanted = |issuer: &Arc<Issuer>| {
            let name = &issuer.record.name;
            namespace.is_none_or(|namespace| &name.namespace == namespace) && after.is_none_or(|after| name > after)
        };
        self.issuers().into_iter().filter(wanted).take(limit).collect()
    }

    fn publish(&self, issuer: Arc<Issuer>) {
        let mut issuers = self.issuers.write().unwrap_or_else(PoisonError::into_inner);
        issuers.insert(issuer.record.name.clone(), issuer);
    }

    /// Waits for the turn to change an issuer, and gives it as it is then.
    async fn hold(&self, name: &IssuerName) -> Result<(OwnedMutexGuard<()>, Arc<Issuer>)> {
        let turn = self.turns.of(name).lock_owned().await;
        Ok((turn, self.issuer(name)?))
    }

    fn now(&self) -> jiff::Timestamp {
        let now = self.parts.ledger.clock().now();
        // Certificates know whole seconds.
        jiff::Timestamp::from_second(now.as_second()).unwrap_or(now)
    }

    /// The certificate table and the records, to read from off the request threads.
    async fn read<T: Send + 'static>(&self, work: impl FnOnce(&dyn Store) -> Result<T> + Send + 'static) -> Result<T> {
        let store = self.parts.ledger.store();
        tokio::task::spawn_blocking(move || work(&*store))
            .await
            .map_err(|e| Error::internal(format!("a store call was lost: {e}")))?
    }
}

/// A change that writes `value`.
fn put(path: String, expected: Expected, value: &impl Serialize) -> Result<Change> {
    let value = serde_json::to_vec(value).map_err(|e| Error::internal(format!("{path}: {e}")))?;
    Ok(Change { path, expected, value: Some(value) })
}

/// Reads a record of the store.
fn parse<T: DeserializeOwned>(record: &Record) -> Result<T> {
    serde_json::from_slice(&record.value).map_err(|e| {
        Error::new(Kind::Tampered, format!("the record {} cannot be read", record.path))
            .because(e)
            .hint("a newer program may have written it: start the version that did, or restore a backup")
    })
}
