//! What relying parties are told of revocation: lists that are ready before they are asked for, and OCSP answers that are
//! signed once and kept.
//!
//! | what | when it is made | how long it lasts |
//! | --- | --- | --- |
//! | list of a version | after each revocation, at most one in [`LIST_GAP`]; and once half its time is over | [`LIST_LIFE`] |
//! | answer for a certificate | when it is first asked for, and again once half its time is over | [`ANSWER_LIFE`] |
//! | certificate of the responder | once half its time is over, and with each new key | [`RESPONDER_LIFE`] |
//!
//! The scheduler makes lists and responders; whoever asks a new issuer before that has them made at once, and everybody who asks
//! meanwhile waits for the same ones. The certificate of a responder stands in the inventory and is used again after a restart.
//!
//! Nothing has to be told of a revocation: an answer is given only while it says what is true, and a list shows by the number of
//! revocations it was made from that it is out of date. While a device is away, what is there is given until it ends.
//!
//! What strangers can cause is bounded. A nonce, a certificate that does not exist and a request for several need a signature
//! each time: there are at most [`FRESH_BURST`] of them at once and [`FRESH_PER_SECOND`] in the long run. Beyond that, a nonce is
//! not repeated, as [RFC 5019, 4](https://www.rfc-editor.org/rfc/rfc5019#section-4) allows, and the others are to try later.
//!
//! Answers are signed by a key of their own, in the issuer's device and named `ISSUER.ocsp`, with a certificate by each version of
//! the issuer that lives for days: the issuer's key signs lists and little else.

mod answers;
mod bucket;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use self::answers::{Answers, Kept};
use self::bucket::Bucket;
use super::inventory::{RESPONDER, State};
use super::issue::{Signer, Wanted};
use super::issuer::{Issuer, VersionState};
use super::published::Published;
use super::{Authority, Parts};
use crate::admission::{Admission, Details, Permit, Released};
use crate::error::{Error, Kind, Result};
use crate::keyring::{Keyring, NewKey};
use crate::policy::{Facts, Target};
use crate::signing::Signing;
use crate::store::certificates::Search;
use crate::telemetry::Metrics;
use crate::types::operation::SignStatus;
use crate::types::{
    Algorithm, Caller, Clock, Domain, IssuerName, KeyName, Name, PublicKey, Resource, Retention, Rotation, Turns,
    Version,
};
use crate::x509::crl::{self, Head, Revoked};
use crate::x509::ocsp::{self, Answer, CertificateId, Failure, IssuerHash, IssuerId, Request};
use crate::x509::{
    Certificate, Distribution, ExtendedUsage, KeyUsage, Serial, Subject, Template, Validity, lint, signature,
};

pub use crate::x509::ocsp::MAX_REQUEST;

/// How long a list lasts.
pub const LIST_LIFE: SignedDuration = SignedDuration::from_hours(24);
/// The shortest time between two lists of one version: a revocation is in the list after this time and a tick of the scheduler.
pub const LIST_GAP: SignedDuration = SignedDuration::from_secs(10);
/// How long an OCSP answer lasts.
pub const ANSWER_LIFE: SignedDuration = SignedDuration::from_hours(1);
/// How long the certificate of a responder lasts: its own revocation is not looked up.
pub const RESPONDER_LIFE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How far the clock of a relying party may be behind: a list begins that much earlier.
const SKEW: SignedDuration = SignedDuration::from_secs(60);
/// How many answers that nobody else can use are signed in a second, in the long run.
pub const FRESH_PER_SECOND: u32 = 10;
/// How many of them at once.
pub const FRESH_BURST: u32 = 100;
/// How many answers are signed at the same time.
const LANES: usize = 16;
/// Among how many of the newest certificates of an issuer's responders one is looked for that can be used again.
const LOOK_BACK: usize = 64;

/// The answer to an OCSP request.
#[derive(Clone, Debug)]
pub enum StatusAnswer {
    /// One that others may be given as well.
    Lasting(Published),
    /// One for this request alone, or a failure.
    Once(Bytes),
}

/// The engine.
#[derive(Debug)]
pub struct Status {
    authority: Arc<Authority>,
    keyring: Arc<Keyring>,
    signing: Arc<Signing>,
    admission: Arc<Admission>,
    clock: Clock,
    metrics: Metrics,
    /// What is ready, by version. The lock protects the maps, and is held for one look or change.
    ready: RwLock<Ready>,
    /// What could not be made last time, and when that was: each try is recorded, so a device that is away for long is not asked at
    /// each tick. The lock is held for one look or change.
    failed: Mutex<HashMap<Place, Timestamp>>,
    /// The answers that were given, and how many more may be signed for one request alone. Each lock is held for one look or change.
    answers: Mutex<Answers>,
    spare: Mutex<Bucket>,
    /// Who wants an answer signed waits here: those for one certificate for each other.
    lanes: [tokio::sync::Mutex<()>; LANES],
    /// Whoever makes the list or the responder of a version holds its turn.
    turns: Turns<Place>,
}

/// A version of an issuer that tells of revocation.
#[derive(Debug)]
struct Voice {
    signer: Signer,
    /// The last second of its certificate.
    until: Timestamp,
    /// Where its certificates say that its list is.
    places: Vec<String>,
}

type Place = (IssuerName, Version);

#[derive(Debug, Default)]
struct Ready {
    lists: HashMap<Place, List>,
    responders: HashMap<Place, Arc<Responder>>,
    issuers: HashMap<IssuerId, Arc<Voice>>,
    /// The issuers that these names are of, at which revision.
    seen: HashMap<IssuerName, u64>,
}

#[derive(Clone, Debug)]
struct List {
    published: Published,
    number: u64,
    revocations: usize,
    places: Vec<String>,
    made: Timestamp,
}

/// A response, and from when until when it holds.
struct Signed {
    bytes: Bytes,
    this_update: Timestamp,
    next_update: Timestamp,
}

/// A responder of one version of an issuer.
#[derive(Debug)]
struct Responder {
    key: KeyName,
    version: Version,
    public: PublicKey,
    algorithm: Algorithm,
    certificate: Vec<u8>,
    serial: Serial,
    validity: Validity,
}

impl Status {
    /// An engine over what `authority` knows.
    #[must_use]
    pub fn new(authority: Arc<Authority>) -> Self {
        let Parts { ledger, admission, keyring, signing, metrics, url: _, notices: _ } = authority.parts.clone();
        let clock = ledger.clock().clone();
        Self {
            authority,
            signing,
            keyring,
            admission,
            metrics,
            ready: RwLock::default(),
            failed: Mutex::default(),
            answers: Mutex::default(),
            spare: Mutex::new(Bucket::new(FRESH_PER_SECOND, FRESH_BURST, clock.now())),
            clock,
            lanes: Default::default(),
            turns: Turns::default(),
        }
    }

    /// The list of a version, made now where there is none.
    ///
    /// # Errors
    /// `NotFound` for a version that has none, `Unavailable` where none can be signed.
    pub async fn list(&self, issuer: &IssuerName, version: Version) -> Result<Published> {
        let place = (issuer.clone(), version);
        if let Some(list) = self.good_list(&place) {
            return Ok(list);
        }
        let none = || Error::new(Kind::NotFound, "there is no such list");
        let own = self.authority.issuer(issuer).map_err(|_| none())?;
        let voice = voices_of(&own).into_iter().find(|one| one.place() == place).ok_or_else(none)?;
        let turn = self.turns.of(&place);
        let _turn = turn.lock().await;
        if let Some(list) = self.good_list(&place) {
            return Ok(list);
        }
        self.make(&voice, self.renew_list(&voice)).await?;
        let ended = || Error::new(Kind::Unavailable, "the revocation list has ended, and no new one could be signed");
        self.good_list(&place).ok_or_else(ended)
    }

    fn good_list(&self, place: &Place) -> Option<Published> {
        let list = self.ready.read().unwrap_or_else(PoisonError::into_inner).lists.get(place)?.published.clone();
        list.until.is_none_or(|until| self.clock.now() < until).then_some(list)
    }

    /// The responder of a version, made now where there is none.
    async fn responder(&self, voice: &Arc<Voice>) -> Result<Arc<Responder>> {
        let place = voice.place();
        if let Some(responder) = self.good_responder(&place) {
            return Ok(responder);
        }
        let turn = self.turns.of(&place);
        let _turn = turn.lock().await;
        if let Some(responder) = self.good_responder(&place) {
            return Ok(responder);
        }
        let made = self.make(voice, self.renew_responder(voice)).await;
        if let Some(responder) = self.good_responder(&place) {
            // It lasts, though it should have been renewed.
            return Ok(responder);
        }
        made?;
        Err(Error::new(Kind::Unavailable, "the certificate of this version is over, and so is its responder"))
    }

    /// Whether nobody can speak for a version any more: its key is compromised, so that it signs no responder, and the last one is over.
    fn is_silent(&self, voice: &Voice) -> bool {
        let (issuer, version) = voice.place();
        self.authority.fell(&issuer, version).is_some() && self.good_responder(&(issuer, version)).is_none()
    }

    fn good_responder(&self, place: &Place) -> Option<Arc<Responder>> {
        let responder = self.ready.read().unwrap_or_else(PoisonError::into_inner).responders.get(place).cloned();
        responder.filter(|one| self.clock.now() <= one.validity.not_after)
    }

    /// Makes something because a stranger asked for it, unless that failed a moment ago.
    async fn make(&self, voice: &Voice, work: impl Future<Output = Result<()>>) -> Result<()> {
        let (now, place) = (self.clock.now(), voice.place());
        if self.failed_lately(&place, now) {
            return Err(Error::new(Kind::Unavailable, "it could not be signed a moment ago").hint("ask again later"));
        }
        let made = work.await;
        if let Err(error) = &made {
            let (issuer, version) = &place;
            tracing::warn!(%issuer, %version, cause = error.chain(), "revocation cannot be told yet");
            self.failed().insert(place, now);
        }
        made
    }

    /// The versions that tell of revocation: those that issue or did, until their last certificate is dead.
    fn voices(&self) -> Vec<Arc<Voice>> {
        self.authority.issuers().iter().flat_map(|issuer| voices_of(issuer)).collect()
    }

    /// Makes what is due: lists, responders and their certificates. What fails is tried again at the next tick.
    pub async fn tick(&self) {
        let voices = self.voices();
        self.forget(&voices);
        let mut overdue = 0;
        for voice in &voices {
            let (now, place) = (self.clock.now(), voice.place());
            // Its key signs nothing more. The responder that is there says so, as long as its certificate lasts.
            if self.authority.fell(&place.0, place.1).is_some() {
                continue;
            }
            if self.failed_lately(&place, now) {
                overdue += 1;
                continue;
            }
            let turn = self.turns.of(&place);
            let _turn = turn.lock().await;
            for done in [self.renew_list(voice).await, self.renew_responder(voice).await] {
                if let Err(error) = done {
                    let (issuer, version) = &place;
                    tracing::warn!(%issuer, %version, cause = error.chain(), "revocation cannot be told anew");
                    self.failed().insert(place.clone(), now);
                    overdue += 1;
                }
            }
        }
        self.metrics.status_overdue(overdue);
    }

    fn failed(&self) -> std::sync::MutexGuard<'_, HashMap<Place, Timestamp>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed_lately(&self, place: &Place, now: Timestamp) -> bool {
        self.failed().get(place).is_some_and(|last| now.duration_since(*last).abs() < LIST_GAP)
    }

    /// Drops what belongs to versions that are gone, and learns the names of those that are there.
    fn forget(&self, voices: &[Arc<Voice>]) {
        let seen = self.authority.issuers().iter().map(|one| (one.record.name.clone(), one.revision())).collect();
        let mut issuers = HashMap::new();
        for voice in voices {
            for hash in IssuerHash::ALL {
                match IssuerId::new(*hash, &voice.signer.view) {
                    Ok(id) => drop(issuers.insert(id, voice.clone())),
                    Err(error) => tracing::warn!(cause = error.chain(), "an issuer has no name for OCSP"),
                }
            }
        }
        let lives = |place: &Place| voices.iter().any(|one| one.place() == *place);
        let mut ready = self.ready.write().unwrap_or_else(PoisonError::into_inner);
        ready.lists.retain(|place, _| lives(place));
        ready.responders.retain(|place, _| lives(place));
        (ready.issuers, ready.seen) = (issuers, seen);
        drop(ready);
        self.failed().retain(|place, _| lives(place));
    }

    async fn renew_list(&self, voice: &Arc<Voice>) -> Result<()> {
        let (now, place) = (self.clock.now(), voice.place());
        let revocations = self.authority.revocations(&place.0, place.1);
        let last = self.ready.read().unwrap_or_else(PoisonError::into_inner).lists.get(&place).cloned();
        if let Some(last) = &last {
            let age = now.duration_since(last.made);
            let other = last.revocations != revocations || last.places != voice.places;
            let changed = other && (age >= LIST_GAP || age.is_negative());
            if !changed && age < LIST_LIFE / 2 && !age.is_negative() {
                return Ok(());
            }
        }
        // A time is a number that grows: a list is never made twice in a millisecond, and nothing needs to be stored.
        let by_clock = u64::try_from(now.as_millisecond()).unwrap_or(0);
        let number = last.map_or(by_clock, |last| by_clock.max(last.number + 1));
        let permit = self.admit(&voice.signer.issuer, "revocation-list").await?;
        let made = self.make_list(&permit, voice, number, revocations, now).await;
        let details = Details { version: Some(voice.signer.version), ..Details::default() }.fact("list", number);
        let list = permit.close(made, details).await.map(Released::into_inner)?;
        self.ready.write().unwrap_or_else(PoisonError::into_inner).lists.insert(place, list);
        Ok(())
    }

    async fn make_list(
        &self,
        permit: &Permit<SignStatus>,
        voice: &Arc<Voice>,
        number: u64,
        revocations: usize,
        now: Timestamp,
    ) -> Result<List> {
        let Signer { issuer, version, .. } = &voice.signer;
        // "An entry MUST NOT be removed from the CRL until it appears on one regularly scheduled CRL issued beyond the revoked
        // certificate's validity period."
        let revoked = self.authority.revoked(issuer, *version, now - LIST_LIFE);
        let (this_update, next_update) = (second(now - SKEW)?, second(now + LIST_LIFE)?);
        let next_update = next_update.min(voice.until.max(this_update + SKEW + SignedDuration::from_secs(1)));
        let (own, entries) = (voice.clone(), revoked.clone());
        // A long list is not built on a thread of requests.
        let body = blocking(move || crl::to_be_signed(&own.head(number, this_update, next_update), entries)).await?;
        let raw = self.signing.sign_structure(permit, &issuer.key(), *version, body.clone()).await?;
        let own = voice.clone();
        let bytes = blocking(move || {
            let bytes = signature::assemble(&body, own.signer.view.algorithm, &raw)?;
            crl::check(&bytes, &own.head(number, this_update, next_update), revoked)?;
            Ok(bytes)
        })
        .await?;
        let (published, places) = (Published::between(bytes, this_update, next_update), voice.places.clone());
        Ok(List { published, number, revocations, places, made: now })
    }

    /// Makes the key of a responder where there is none, and its certificate where it is none of that key, is half over or revoked.
    async fn renew_responder(&self, voice: &Arc<Voice>) -> Result<()> {
        let (now, place) = (self.clock.now(), voice.place());
        if voice.until <= now {
            return Ok(());
        }
        let key = voice.signer.issuer.responder()?;
        let mut last = self.ready.read().unwrap_or_else(PoisonError::into_inner).responders.get(&place).cloned();
        if last.is_none() {
            last = self.find_responder(voice, &key, now).await?.map(Arc::new);
            if let Some(found) = &last {
                let mut ready = self.ready.write().unwrap_or_else(PoisonError::into_inner);
                ready.responders.insert(place.clone(), found.clone());
            }
        }
        // The key of a version that fell signs no other one.
        if self.authority.fell(&place.0, place.1).is_some() {
            return Ok(());
        }
        let primary = self.keyring.find(&key).ok().and_then(|key| key.primary().ok().map(|version| version.number()));
        if let (Some(last), Some(primary)) = (&last, primary) {
            let Validity { not_before, not_after } = last.validity;
            let half = not_before + not_after.duration_since(not_before) / 2;
            let (issuer, version) = &place;
            let stands = self.authority.revocation(issuer, *version, &last.serial).is_none();
            if stands && last.version == primary && not_before <= now && (now < half || not_after >= voice.until) {
                return Ok(());
            }
        }
        let permit = self.admit(&voice.signer.issuer, "ocsp-responder").await?;
        let made = self.make_responder(&permit, voice, &key, now).await;
        let details = Details { version: Some(voice.signer.version), ..Details::default() }.fact("responder", &key);
        let responder = permit.close(made, details).await.map(Released::into_inner)?;
        self.ready.write().unwrap_or_else(PoisonError::into_inner).responders.insert(place, Arc::new(responder));
        Ok(())
    }

    /// The newest certificate of the responder's key that was made before a restart and still holds.
    async fn find_responder(&self, voice: &Voice, name: &KeyName, now: Timestamp) -> Result<Option<Responder>> {
        let Ok(key) = self.keyring.find(name) else { return Ok(None) };
        let Signer { issuer, version, .. } = &voice.signer;
        let search = Search {
            issuer: Some(issuer.clone()),
            profile: Some(RESPONDER.to_owned()),
            limit: LOOK_BACK,
            ..Search::default()
        };
        for entry in self.authority.search(search).await?.0 {
            let (validity, revoked) = (entry.validity, self.authority.recorded(issuer, *version, &entry.serial));
            let holds = validity.not_before <= now && now <= validity.not_after && revoked.is_none();
            let (true, Some(der)) = (holds && entry.version == *version, entry.der) else { continue };
            let own = Certificate::parse(&der)?;
            let public = own.public_key();
            let of_key = key.versions().iter().find(|one| {
                one.state() == crate::types::State::Active && one.public_key().is_ok_and(|known| known == *public)
            });
            if let Some(of_key) = of_key {
                return Ok(Some(Responder {
                    key: name.clone(),
                    version: of_key.number(),
                    public: public.clone(),
                    algorithm: key.record.algorithm,
                    certificate: der,
                    serial: entry.serial,
                    validity,
                }));
            }
        }
        Ok(None)
    }

    async fn make_responder(
        &self,
        permit: &Permit<SignStatus>,
        voice: &Voice,
        name: &KeyName,
        now: Timestamp,
    ) -> Result<Responder> {
        let key = match self.keyring.find(name) {
            Ok(key) => key,
            Err(_) => {
                let own = self.keyring.find(&voice.signer.issuer.key())?;
                let new = responder_key(name.clone(), own.record.algorithm, own.record.device.clone());
                self.keyring.create(permit, new, |_| Ok(None)).await?
            }
        };
        let (version, algorithm) = (key.primary()?, key.record.algorithm);
        let public = version.public_key()?;
        let validity =
            Validity { not_before: second(now - SKEW)?, not_after: second(now + RESPONDER_LIFE)?.min(voice.until) };
        let template = responder_template(&voice.signer.issuer, public.clone(), validity);
        let wanted = Wanted { template, profile: RESPONDER.to_owned(), kind: lint::Kind::OcspResponder };
        let mut made = self.authority.certify(permit, &voice.signer, vec![Ok(wanted)], |_| Ok(Vec::new())).await?;
        let entry = made.pop().unwrap_or_else(|| Err(Error::internal("no certificate was made")))?;
        let (serial, certificate) = (entry.serial, entry.certificate()?.to_vec());
        Ok(Responder { key: name.clone(), version: version.number(), public, algorithm, certificate, serial, validity })
    }

    /// Answers an OCSP request that came to `issuer`.
    ///
    /// # Errors
    /// `NotFound` for an issuer that does not exist. All else is an answer.
    pub async fn answer(&self, issuer: &IssuerName, bytes: &[u8]) -> Result<StatusAnswer> {
        self.authority.issuer(issuer)?;
        let Ok(request) = Request::parse(bytes) else { return Ok(self.fail(Failure::MalformedRequest)) };
        let Some(voice) = self.voice(issuer, &request) else { return Ok(self.fail(Failure::Unauthorized)) };
        if voice.signer.issuer != *issuer {
            return Ok(self.fail(Failure::Unauthorized));
        }
        match self.answer_for(&voice, &request).await {
            Ok(answer) => Ok(answer),
            // "The response 'unauthorized' is returned in cases where ... the server is not capable of responding authoritatively"
            // (RFC 6960, 2.3): nobody will be again, and `tryLater` would say that somebody is.
            Err(_) if self.is_silent(&voice) => Ok(self.fail(Failure::Unauthorized)),
            Err(error) => {
                if error.kind() == Kind::Internal || error.kind() == Kind::Tampered {
                    tracing::error!(%issuer, cause = error.chain(), "an OCSP request could not be answered");
                    return Ok(self.fail(Failure::InternalError));
                }
                tracing::debug!(%issuer, cause = error.chain(), "an OCSP request is to come again");
                Ok(self.fail(Failure::TryLater))
            }
        }
    }

    /// The one version that all certificates of a request are of. An issuer that is new, or has a new version, is looked at first.
    fn voice(&self, issuer: &IssuerName, request: &Request) -> Option<Arc<Voice>> {
        if let Some(known) = self.known_voice(request) {
            return Some(known);
        }
        let revision = self.authority.issuer(issuer).ok()?.revision();
        if self.ready.read().unwrap_or_else(PoisonError::into_inner).seen.get(issuer) == Some(&revision) {
            return None;
        }
        self.forget(&self.voices());
        self.known_voice(request)
    }

    fn known_voice(&self, request: &Request) -> Option<Arc<Voice>> {
        let ready = self.ready.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = request.certificates.iter().map(|one| ready.issuers.get(one.issuer()));
        let first = found.next()??;
        found.all(|next| next.is_some_and(|next| Arc::ptr_eq(next, first))).then(|| first.clone())
    }

    async fn answer_for(&self, voice: &Arc<Voice>, request: &Request) -> Result<StatusAnswer> {
        let [id] = request.certificates.as_slice() else {
            self.spend("several")?;
            return self.sign_for(voice, request).await.map(StatusAnswer::Once);
        };
        if request.nonce.is_some() && self.spend("nonce").is_ok() {
            // Where it cannot be signed, the answer that is there is better than none.
            if let Ok(bytes) = self.sign_for(voice, request).await {
                return Ok(StatusAnswer::Once(bytes));
            }
        }
        if let Some(kept) = self.kept(voice, id).filter(|kept| self.clock.now() < kept.renew) {
            self.metrics.ocsp_answered("cached");
            return Ok(StatusAnswer::Lasting(kept.published));
        }
        let _turn = self.lane(id).lock().await;
        // Somebody else may have had it signed meanwhile.
        let kept = self.kept(voice, id);
        if let Some(kept) = kept.as_ref().filter(|kept| self.clock.now() < kept.renew) {
            self.metrics.ocsp_answered("cached");
            return Ok(StatusAnswer::Lasting(kept.published.clone()));
        }
        let request = Request { certificates: vec![id.clone()], nonce: None };
        match self.renew_answer(voice, &request, id).await {
            Ok(answer) => Ok(answer),
            Err(error) => match kept {
                // The device is away; what it said last is still so.
                Some(kept) => {
                    self.metrics.ocsp_answered("kept");
                    Ok(StatusAnswer::Lasting(kept.published))
                }
                None => Err(error),
            },
        }
    }

    async fn renew_answer(&self, voice: &Arc<Voice>, request: &Request, id: &CertificateId) -> Result<StatusAnswer> {
        let (status, now) = (self.status(voice, id).await?, self.clock.now());
        if status == ocsp::Status::Unknown {
            self.spend("unknown")?;
            return Ok(StatusAnswer::Once(self.sign(voice, request, &[status], now).await?.bytes));
        }
        let Signed { bytes, this_update, next_update } = self.sign(voice, request, &[status], now).await?;
        let published = Published::between(bytes, this_update, next_update);
        let kept = Kept { status, renew: now + ANSWER_LIFE / 2, published: published.clone() };
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).keep(id.clone(), kept);
        Ok(StatusAnswer::Lasting(published))
    }

    /// The answer that is there, where it is still true and has not ended.
    fn kept(&self, voice: &Voice, id: &CertificateId) -> Option<Kept> {
        let kept = self.answers.lock().unwrap_or_else(PoisonError::into_inner).find(id)?;
        let Signer { issuer, version, .. } = &voice.signer;
        let revoked = self.authority.revocation(issuer, *version, &id.serial()?);
        let is_true = match (kept.status, revoked) {
            (ocsp::Status::Good, None) => true,
            (ocsp::Status::Revoked { at, reason }, Some(now)) => now.at == at && now.reason == reason,
            (ocsp::Status::Good, Some(_)) | (ocsp::Status::Revoked { .. }, None) | (ocsp::Status::Unknown, _) => false,
        };
        (is_true && kept.published.until.is_some_and(|until| self.clock.now() < until)).then_some(kept)
    }

    fn lane(&self, id: &CertificateId) -> &tokio::sync::Mutex<()> {
        use std::hash::BuildHasher;
        let hash = std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default().hash_one(id);
        let [first, ..] = &self.lanes;
        usize::try_from(hash % LANES as u64).ok().and_then(|lane| self.lanes.get(lane)).unwrap_or(first)
    }

    async fn status(&self, voice: &Voice, id: &CertificateId) -> Result<ocsp::Status> {
        // What cannot be a serial number of ours was not issued here.
        let Some(serial) = id.serial() else { return Ok(ocsp::Status::Unknown) };
        let (issuer, version) = voice.place();
        if let Some(Revoked { at, reason, .. }) = self.authority.revocation(&issuer, version, &serial) {
            return Ok(ocsp::Status::Revoked { at, reason });
        }
        let entry = self.authority.find(&serial).await?;
        match entry.filter(|entry| entry.issuer == issuer && entry.version == version).map(|entry| entry.state) {
            None => Ok(ocsp::Status::Unknown),
            Some(State::Issued) => Ok(ocsp::Status::Good),
            // What is lost is revoked, and what is being signed will be one or the other in a moment.
            Some(State::Lost | State::Reserved) => {
                Err(Error::new(Kind::Unavailable, "the certificate is being signed"))
            }
        }
    }

    async fn sign_for(&self, voice: &Arc<Voice>, request: &Request) -> Result<Bytes> {
        let now = self.clock.now();
        let mut statuses = Vec::new();
        for id in &request.certificates {
            statuses.push(self.status(voice, id).await?);
        }
        let [first, ..] = request.certificates.as_slice() else { return Err(Error::internal("a request for nothing")) };
        let _turn = self.lane(first).lock().await;
        Ok(self.sign(voice, request, &statuses, now).await?.bytes)
    }

    /// Signs an answer for each certificate of a request.
    async fn sign(
        &self,
        voice: &Arc<Voice>,
        request: &Request,
        statuses: &[ocsp::Status],
        now: Timestamp,
    ) -> Result<Signed> {
        let responder = self.responder(voice).await?;
        let (this_update, next_update) = (second(now)?, second(now + ANSWER_LIFE)?.min(responder.validity.not_after));
        let certificates = request.certificates.iter().zip(statuses);
        let answers: Vec<_> = certificates
            .map(|(certificate, status)| Answer { certificate, status: *status, this_update, next_update })
            .collect();
        let body = ocsp::to_be_signed(&ocsp::Answers {
            responder: &responder.public,
            produced_at: this_update,
            answers: &answers,
            nonce: request.nonce.as_deref(),
        })?;
        let permit = self.admit(&voice.signer.issuer, "ocsp").await?;
        let signed = self.signing.sign_structure(&permit, &responder.key, responder.version, body.clone()).await;
        let serials: Vec<_> =
            request.certificates.iter().filter_map(CertificateId::serial).map(|one| one.to_string()).collect();
        let details =
            Details { version: Some(voice.signer.version), ..Details::default() }.fact("serials", serials.join(" "));
        let raw = permit.close(signed, details).await.map(Released::into_inner)?;
        self.metrics.ocsp_answered("signed");
        let bytes = ocsp::respond(&body, responder.algorithm, &raw, &responder.certificate)?;
        Ok(Signed { bytes: bytes.into(), this_update, next_update })
    }

    /// Takes one of the signatures that strangers may cause.
    fn spend(&self, what: &'static str) -> Result<()> {
        if self.spare.lock().unwrap_or_else(PoisonError::into_inner).take(self.clock.now()) {
            return Ok(());
        }
        self.metrics.ocsp_answered("refused");
        Err(Error::new(Kind::Busy, format!("too many OCSP requests that need a signature of their own: {what}")))
    }

    fn fail(&self, failure: Failure) -> StatusAnswer {
        self.metrics.ocsp_answered("failure");
        StatusAnswer::Once(Bytes::copy_from_slice(&failure.response()))
    }

    async fn admit(&self, issuer: &IssuerName, job: &'static str) -> Result<Permit<SignStatus>> {
        let caller = Caller::system(job, job);
        self.admission.admit(&caller, &Target::named(Resource::Issuer(issuer.clone())), &Facts::default()).await
    }
}

impl Voice {
    fn place(&self) -> Place {
        (self.signer.issuer.clone(), self.signer.version)
    }

    fn head(&self, number: u64, this_update: Timestamp, next_update: Timestamp) -> Head<'_> {
        Head { issuer: &self.signer.view, number, this_update, next_update, places: &self.places }
    }
}

/// The versions of an issuer that tell of revocation.
fn voices_of(issuer: &Issuer) -> Vec<Arc<Voice>> {
    let mut voices = Vec::new();
    for version in issuer.versions() {
        let speaks = match version.record.state {
            VersionState::Active | VersionState::Retired => true,
            VersionState::Requested | VersionState::Prepared | VersionState::Ended => false,
        };
        if let (true, Ok(signer), Ok(certificate)) =
            (speaks, version.signer(&issuer.record.name), version.certificate())
        {
            let places = version.record.places.clone().unwrap_or_default();
            voices.push(Arc::new(Voice { signer, until: certificate.validity().not_after, places }));
        }
    }
    voices
}

/// The key of the responders of an issuer: of its algorithm and in its device, so that whoever believes the one can read the other.
fn responder_key(name: KeyName, algorithm: Algorithm, device: Name) -> NewKey {
    NewKey {
        name,
        algorithm,
        device,
        residency: None,
        pcrs: None,
        domain: Some(Domain::X509),
        rotation: Rotation { every: Some(crate::types::Period::seconds(90 * 86_400)), ..Rotation::default() },
        retention: Retention { versions: Some(1), ..Retention::default() },
        labels: [("signet.use".to_owned(), "ocsp".to_owned())].into(),
        deletion_protection: false,
    }
}

/// "the OCSP signing delegation SHALL be designated by the inclusion of id-kp-OCSPSigning", and a short life with `nocheck` in
/// place of its own revocation ([RFC 6960, 4.2.2.2](https://www.rfc-editor.org/rfc/rfc6960#section-4.2.2.2)).
fn responder_template(issuer: &IssuerName, public_key: PublicKey, validity: Validity) -> Template {
    Template {
        subject: Subject { common_name: Some(format!("{} OCSP responder", issuer.name)), ..Subject::default() },
        sans: Vec::new(),
        public_key,
        validity,
        usages: vec![KeyUsage::DigitalSignature],
        extended: vec![ExtendedUsage::OcspSigning],
        authority: None,
        policies: Vec::new(),
        distribution: Distribution::default(),
        must_staple: false,
        no_check: true,
    }
}

/// Without what is below a second, which none of these structures can hold.
fn second(time: Timestamp) -> Result<Timestamp> {
    Timestamp::from_second(time.as_second()).map_err(|e| Error::internal(format!("a time: {e}")))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal(format!("work was lost: {e}")))?
}
