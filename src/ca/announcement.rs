//! Announcements: that certificates will be revoked at a time, or should be replaced until then.
//!
//! An announcement is about certificates of one issuer that were made before it: so whoever renews because of it has a certificate
//! that it is not about. Clients hear of it as they ask when to renew ([`super::renewal`]); at its time the scheduler revokes what
//! it is about. It stays until the last of these certificates is over, so that the explanation can still be read.
//!
//! ```text
//! told ─▶ (cancelled) ─▶ its time: revoked, in steps, each of which is durable ─▶ ended, with the last certificate
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::inventory::{Entry, State};
use super::rollover::Tick;
use super::{Authority, FORMAT, parse, put};
use crate::admission::{Details, Permit, Released};
use crate::audit::Phase;
use crate::crash_point;
use crate::error::{Error, Kind, Result};
use crate::policy::Facts;
use crate::store::certificates::Search;
use crate::store::{Change, Expected, Store};
use crate::types::operation::{DeleteAnnouncement, RevokeCertificate, WriteAnnouncement};
use crate::types::{IssuerName, ProfileName, Version};
use crate::x509::Serial;
use crate::x509::crl::Reason;

/// The most announcements of one issuer.
const MOST: usize = 100;
/// The most certificates that one names.
const MOST_SERIALS: usize = 1000;
/// The longest address of an explanation.
const MAX_URL: usize = 500;

/// What is stored of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    format: u32,
    /// Its random id.
    pub id: String,
    /// Whose certificates.
    pub issuer: IssuerName,
    /// Which of them, and what becomes of them.
    pub what: What,
    /// Since when it is told: certificates that were made later are not meant.
    pub told: Timestamp,
    /// Who said so, as in the audit log.
    pub by: String,
    /// Once its time has come: the last second of the last certificate that it is about.
    pub ended: Option<Timestamp>,
}

/// What is announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct What {
    /// Only certificates of this version.
    pub version: Option<Version>,
    /// Only certificates from this profile.
    pub profile: Option<ProfileName>,
    /// Only these, where there are any.
    pub serials: BTreeSet<Serial>,
    /// When.
    pub at: Timestamp,
    /// Why they are revoked then; where absent they are only to be replaced until then.
    pub revoke: Option<Reason>,
    /// Where people read about it.
    pub explanation: Option<String>,
}

/// An announcement at one moment.
#[derive(Debug)]
pub struct Known {
    /// What is stored of it.
    pub announcement: Announcement,
    revision: u64,
}

/// All of them, by issuer and id.
pub(super) type All = BTreeMap<(IssuerName, String), Arc<Known>>;

/// What a certificate is told by its announcement.
pub(super) struct Told {
    pub(super) told: Timestamp,
    pub(super) at: Timestamp,
    pub(super) explanation: Option<String>,
}

impl What {
    /// Looks whether it makes sense at `now`.
    fn check(&self, now: Timestamp) -> Result<()> {
        let Self { version: _, profile: _, serials, at, revoke: _, explanation } = self;
        if serials.len() > MOST_SERIALS {
            return Err(Error::new(Kind::Limit, format!("an announcement names at most {MOST_SERIALS} certificates"))
                .hint("leave them out and name the version or the profile"));
        }
        if *at <= now {
            return Err(Error::new(Kind::Invalid, "what is announced lies in the future")
                .hint("`signet cert revoke` and `signet issuer revoke` revoke now"));
        }
        let good = |url: &String| {
            let web = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
            url.len() <= MAX_URL
                && url.bytes().all(|b| b.is_ascii_graphic())
                && web.is_some_and(|rest| !rest.is_empty())
        };
        if !explanation.iter().all(good) {
            let text = format!("an explanation is an http or https address of at most {MAX_URL} characters");
            return Err(Error::new(Kind::Invalid, text));
        }
        Ok(())
    }
}

impl Announcement {
    /// Whether it is about a certificate. What an issuer made for itself is not meant.
    fn covers(&self, entry: &Entry) -> bool {
        let What { version, profile, serials, .. } = &self.what;
        self.issuer == entry.issuer
            && entry.reserved <= self.told
            && version.is_none_or(|version| version == entry.version)
            && profile.as_ref().is_none_or(|profile| profile.to_string() == entry.profile)
            && (serials.is_empty() || serials.contains(&entry.serial))
            && !entry.is_own()
    }

    fn path(&self) -> String {
        format!("announcements/{}/{}/{}", self.issuer.namespace, self.issuer.name, self.id)
    }
}

/// Reads all announcements.
pub(super) fn read_all(store: &dyn Store) -> Result<All> {
    let mut all = All::new();
    for record in store.scan("announcements/")? {
        let announcement: Announcement = parse(&record)?;
        let key = (announcement.issuer.clone(), announcement.id.clone());
        all.insert(key, Arc::new(Known { announcement, revision: record.revision }));
    }
    Ok(all)
}

impl Authority {
    /// Announces what will become of certificates of an issuer. `also` is committed with it.
    ///
    /// # Errors
    /// `NotFound` for a version or a certificate that is not of this issuer, `Invalid` for what makes no sense, `Limit` for too many.
    pub async fn announce(
        &self,
        permit: &Permit<WriteAnnouncement>,
        issuer: &IssuerName,
        what: What,
        also: impl FnOnce(&str) -> Result<Option<Change>>,
    ) -> Result<Arc<Known>> {
        permit.covers_issuer(issuer)?;
        let told = self.now();
        what.check(told)?;
        let known = self.issuer(issuer)?;
        what.version.map(|version| known.version(version)).transpose()?;
        for serial in &what.serials {
            self.certificate(issuer, serial).await?;
        }
        if self.announcements(issuer).len() >= MOST {
            return Err(Error::new(Kind::Limit, format!("issuer {issuer} has {MOST} announcements already"))
                .hint("cancel some: `signet announcement list` shows them"));
        }
        let mut id = [0; 8];
        getrandom::fill(&mut id).map_err(|e| Error::internal(format!("random bytes: {e}")))?;
        let (id, by) = (hex::encode(id), permit.caller().principal.to_string());
        let announcement = Announcement { format: FORMAT, id, issuer: issuer.clone(), what, told, by, ended: None };
        let details = Details::default().fact("announcement", &announcement.id).fact("at", announcement.what.at);
        let change = put(announcement.path(), Expected::Absent, &announcement)?;
        let changes = [change].into_iter().chain(also(&announcement.id)?).collect();
        crash_point!("announcement.before_write");
        let revision = self.parts.ledger.commit(permit.record(Phase::Change, &details), changes).await?;
        crash_point!("announcement.written");
        Ok(self.keep_announcement(Known { announcement, revision }))
    }

    /// Takes an announcement back before its time.
    ///
    /// # Errors
    /// `NotFound`; `State` once its time has come.
    pub async fn cancel_announcement(
        &self,
        permit: &Permit<DeleteAnnouncement>,
        issuer: &IssuerName,
        id: &str,
        also: Option<Change>,
    ) -> Result<()> {
        permit.covers_issuer(issuer)?;
        let known = self.announcement(issuer, id)?;
        if known.announcement.ended.is_some() || known.announcement.what.at <= self.now() {
            return Err(Error::new(Kind::State, "the time of this announcement has come")
                .hint("what was revoked stays so; the announcement goes with the last of its certificates"));
        }
        let details = Details::default().fact("announcement", id);
        self.forget_announcement(permit.record(Phase::Change, &details), &known, also).await
    }

    /// The announcement with that id.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn announcement(&self, issuer: &IssuerName, id: &str) -> Result<Arc<Known>> {
        let all = self.announcements.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&(issuer.clone(), id.to_owned())).cloned().ok_or_else(|| {
            Error::new(Kind::NotFound, format!("issuer {issuer} has no such announcement"))
                .hint("`signet announcement list` shows them")
        })
    }

    /// The announcements of an issuer, in the order of their ids.
    #[must_use]
    pub fn announcements(&self, issuer: &IssuerName) -> Vec<Arc<Known>> {
        let all = self.announcements.read().unwrap_or_else(PoisonError::into_inner);
        all.values().filter(|known| known.announcement.issuer == *issuer).cloned().collect()
    }

    /// What is announced of a certificate; of several the one whose time comes first.
    pub(super) fn announced(&self, entry: &Entry) -> Option<Told> {
        let all = self.announcements.read().unwrap_or_else(PoisonError::into_inner);
        let own = all.values().map(|known| &known.announcement).filter(|one| one.covers(entry));
        let Announcement { told, what: What { at, explanation, .. }, .. } = own.min_by_key(|one| one.what.at)?;
        Some(Told { told: *told, at: *at, explanation: explanation.clone() })
    }

    /// Does what was announced for now, and forgets announcements whose certificates are over.
    pub(super) async fn keep_announcements(&self, now: Timestamp, tick: &mut Tick) {
        let all: Vec<_> = {
            let all = self.announcements.read().unwrap_or_else(PoisonError::into_inner);
            all.values().filter(|known| due(&known.announcement, now)).cloned().collect()
        };
        for known in all {
            let Announcement { issuer, id, .. } = &known.announcement;
            match self.carry_out(&known, now).await {
                Ok(()) => tick.announced += 1,
                Err(error) => {
                    tracing::warn!(%issuer, id, cause = error.chain(), "what was announced could not be done");
                    tick.failed += 1;
                }
            }
        }
    }

    async fn carry_out(&self, known: &Known, now: Timestamp) -> Result<()> {
        let leaf = || self.parts.admission.record_tidying("announcement");
        let announcement = &known.announcement;
        if announcement.ended.is_some() {
            return self.forget_announcement(leaf(), known, None).await;
        }
        let last = match announcement.what.revoke {
            None => self.go_through(announcement, None, now).await?,
            Some(reason) => {
                let permit: Permit<RevokeCertificate> =
                    self.permit("announcement", &announcement.issuer, &Facts::default()).await?;
                let last = self.go_through(announcement, Some(&permit), now).await;
                let details = Details::default().fact("announcement", &announcement.id).fact("reason", reason);
                permit.close(last, details).await.map(Released::into_inner)?
            }
        };
        let Some(last) = last else { return self.forget_announcement(leaf(), known, None).await };
        let announcement = Announcement { ended: Some(last), ..announcement.clone() };
        let change = put(announcement.path(), Expected::Revision(known.revision), &announcement)?;
        crash_point!("announcement.before_end");
        let revision = self.parts.ledger.commit(leaf(), vec![change]).await?;
        crash_point!("announcement.ended");
        self.keep_announcement(Known { announcement, revision });
        Ok(())
    }

    /// Goes through the certificates that an announcement is about and that are not over, in steps, and revokes them by `permit`.
    /// Answers when the last one ends.
    async fn go_through(
        &self,
        announcement: &Announcement,
        permit: Option<&Permit<RevokeCertificate>>,
        now: Timestamp,
    ) -> Result<Option<Timestamp>> {
        let search = Search {
            issuer: Some(announcement.issuer.clone()),
            profile: announcement.what.profile.as_ref().map(ToString::to_string),
            ends: Some((now, Timestamp::MAX)),
            limit: super::issue::MAX_BATCH,
            ..Search::default()
        };
        let (mut after, mut last) = (None, None);
        loop {
            let (page, next) = self.search(Search { after, ..search.clone() }).await?;
            let meant = |entry: &Entry| entry.state == State::Issued && announcement.covers(entry);
            let some: Vec<_> = page.into_iter().filter(meant).collect();
            if let (Some(permit), Some(reason)) = (permit, announcement.what.revoke) {
                self.revoke_entries(permit, &some, reason, None).await?;
            }
            last = some.iter().map(|entry| entry.validity.not_after).max().max(last);
            if next.is_none() {
                return Ok(last);
            }
            after = next;
        }
    }

    async fn forget_announcement(&self, leaf: crate::audit::Record, known: &Known, also: Option<Change>) -> Result<()> {
        let Known { announcement, revision } = known;
        let change = Change { path: announcement.path(), expected: Expected::Revision(*revision), value: None };
        crash_point!("announcement.before_removal");
        self.parts.ledger.commit(leaf, [change].into_iter().chain(also).collect()).await?;
        crash_point!("announcement.removed");
        let key = (announcement.issuer.clone(), announcement.id.clone());
        self.announcements.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
        Ok(())
    }

    fn keep_announcement(&self, known: Known) -> Arc<Known> {
        let (key, known) = ((known.announcement.issuer.clone(), known.announcement.id.clone()), Arc::new(known));
        self.announcements.write().unwrap_or_else(PoisonError::into_inner).insert(key, known.clone());
        known
    }
}

/// Whether there is something to do about it.
fn due(announcement: &Announcement, now: Timestamp) -> bool {
    match announcement.ended {
        Some(ended) => ended < now,
        None => announcement.what.at <= now,
    }
}
