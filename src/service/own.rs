//! The service's own TLS certificate, from one of its own issuers.
//!
//! ```text
//! tick ─▶ due? ─▶ issuer and profile are there? ─▶ key ─▶ policy, profile, lint, reservation, signature: as for everybody
//!      ─▶ certificate and key committed together ─▶ the listener takes them for new connections
//! ```
//!
//! **When.** At a moment around two thirds of its life that its serial number draws; at once where it is revoked, where it was
//! announced that it will be, where its issuer has a new version or a key that is not to be trusted, and where the configuration
//! asks for something else. There is no timer: each tick looks at the clock.
//!
//! **What it promises.** Certificate and private key are one record of the sealed store, committed with the certificate itself:
//! whatever dies when, the next start serves the old pair or the new one, and a start issues nothing by itself. What cannot be
//! had now keeps the old one in force, is told by `status`, metrics and log, and is tried again: at each tick where only
//! something is missing, and in growing steps of up to [`LONGEST_WAIT`] where a try failed, because each try is recorded.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::keys::close_key;
use super::{Service, only};
use crate::admission::{Details, Permit, Released};
use crate::ca::inventory::Entry;
use crate::ca::profiles::Known;
use crate::ca::renewal::Window;
use crate::ca::request::{Request, Source};
use crate::ca::software::SoftwareKey;
use crate::error::{Error, Kind, Result};
use crate::keyring::{Key, NewKey, job_id, resource};
use crate::policy::{Facts, KeyFacts, Target};
use crate::store::{Change, Expected};
use crate::types::operation::{CreateKey, IssueCertificate};
use crate::types::{
    Algorithm, Caller, Domain, IssuerName, KeyName, Name, Period, ProfileName, PublicKey, Retention, Rotation,
    SecretBytes, Version, words,
};
use crate::x509::{Certificate, KeyKind, San, Serial, Subject, SubjectField};

/// Where the certificate and its key stand.
const PATH: &str = "own/tls";
/// The job, as policies and the audit log name it.
const JOB: &str = "tls";
const FORMAT: u32 = 1;
/// Of the key in a device.
const NAMESPACE: &str = "signet";
/// How long after a first failure it is tried again; then twice as long each time.
const FIRST_WAIT: SignedDuration = SignedDuration::from_secs(5);
/// The longest time between two tries.
const LONGEST_WAIT: SignedDuration = SignedDuration::from_secs(300);
/// The kinds of keys that it may have, the first that the profile certifies.
const KEYS: [KeyKind; 2] = [KeyKind::EcdsaP256, KeyKind::EcdsaP384];

/// The certificate that the configuration asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnWish {
    /// Who is to sign it.
    pub issuer: IssuerName,
    /// What it looks like.
    pub profile: ProfileName,
    /// Its names.
    pub names: Vec<San>,
    /// The device that is to keep its key; the sealed store where absent.
    pub device: Option<Name>,
}

impl OwnWish {
    /// Takes names as the configuration has them: hosts and addresses.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for what is neither, or none at all.
    pub fn new(issuer: IssuerName, profile: ProfileName, names: &[String], device: Option<Name>) -> Result<Self> {
        let parse = |name: &String| name.parse::<IpAddr>().map_or_else(|_| San::dns(name), San::ip);
        let mut names = names.iter().map(parse).collect::<Result<Vec<_>>>().map_err(|e| e.context("tls.names"))?;
        names.sort();
        names.dedup();
        if names.is_empty() {
            return Err(Error::new(Kind::Invalid, "the service's own certificate needs a name")
                .hint("list the hosts and addresses that clients use in tls.names"));
        }
        Ok(Self { issuer, profile, names, device })
    }
}

words! {
    /// Where the certificate comes from that the listener shows.
    CertificateSource: "source of the certificate" {
        /// The files that the configuration names.
        Files = "files",
        /// The service made it itself, with an authority that nobody else uses.
        SelfMade = "self-made",
        /// One of the service's issuers.
        Issued = "issued",
    }
}

/// The certificate that the listener shows, for those who ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Where it comes from.
    pub source: CertificateSource,
    /// Its serial number, its names and its end; absent for one from a file that this program cannot read.
    pub certificate: Option<Shown>,
}

/// What everybody sees of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The serial number.
    pub serial: Serial,
    /// Its names, as `dns:kms.example.com`.
    pub names: Vec<String>,
    /// When it ends.
    pub until: Timestamp,
}

/// A certificate that was issued, and its key.
#[derive(Debug)]
pub struct Held {
    /// What the inventory has of it.
    pub entry: Entry,
    /// The certificate and those between it and the anchor, in PEM.
    pub chain: String,
    /// The private key.
    pub key: OwnKey,
    wish: OwnWish,
}

/// The private key of the service's own certificate.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnKey {
    /// In PEM, kept in the sealed store.
    Stored(SecretBytes),
    /// A version of a key in a device, whose domain is `tls`.
    Device {
        /// The key.
        name: KeyName,
        /// The version.
        version: Version,
        /// Its public half.
        public: PublicKey,
    },
}

/// How it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    format: u32,
    issuer: IssuerName,
    profile: ProfileName,
    names: Vec<San>,
    device: Option<Name>,
    serial: Serial,
    key: OwnKey,
}

/// Why there is not what should be.
#[derive(Clone, Debug)]
struct Trouble {
    since: Timestamp,
    last_try: Timestamp,
    tries: u32,
    sentence: String,
}

/// What the service knows of its own certificate.
#[derive(Debug, Default)]
pub(super) struct Own {
    wish: Option<OwnWish>,
    held: ArcSwapOption<Held>,
    /// What the listener shows. The lock is held for one look or change.
    served: Mutex<Option<Served>>,
    /// The lock is held for one look or change.
    trouble: Mutex<Option<Trouble>>,
    /// Whoever holds it may ask for a certificate.
    turn: tokio::sync::Mutex<()>,
}

impl Own {
    pub(super) fn new(wish: Option<OwnWish>) -> Self {
        Self { wish, ..Self::default() }
    }

    /// Whether a failure is too fresh to try again. A clock that went back waits no longer for that.
    fn waits(&self, now: Timestamp) -> bool {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.as_ref().is_some_and(|trouble| now.duration_since(trouble.last_try).abs() < wait_after(trouble.tries))
    }

    /// Remembers what stands in the way, and says so once; `tried` where it cost a record.
    fn stumbled(&self, error: &Error, tried: bool, now: Timestamp) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, tries) = trouble.as_ref().map_or((now, 0), |before| (before.since, before.tries));
        let sentence = match error.mend() {
            Some(mend) => format!("{error}: {mend}"),
            None => error.to_string(),
        };
        if tried || trouble.as_ref().is_none_or(|before| before.sentence != sentence) {
            tracing::warn!(cause = error.chain(), "the service's own certificate cannot be had");
        }
        let tries = if tried { tries.saturating_add(1) } else { 0 };
        *trouble = Some(Trouble { since, last_try: now, tries, sentence });
    }
}

/// Nothing where nothing was tried.
fn wait_after(tries: u32) -> SignedDuration {
    match tries.checked_sub(1) {
        None => SignedDuration::ZERO,
        Some(doublings) => (FIRST_WAIT * 2_i32.pow(doublings.min(8))).min(LONGEST_WAIT),
    }
}

impl Service {
    /// Takes from the store what was issued before the start.
    ///
    /// # Errors
    /// `Tampered` for a record that cannot be read, and those of the store.
    pub async fn open_own_certificate(&self) -> Result<()> {
        let store = self.parts.ledger.store();
        let Some(record) = crate::types::blocking(move || store.get(PATH)).await? else { return Ok(()) };
        let stored: Stored = serde_json::from_slice(&record.value).map_err(|e| {
            Error::new(Kind::Tampered, "the record of the service's own certificate cannot be read")
                .because(e)
                .hint("a newer program may have written it: start the version that did, or restore a backup")
        })?;
        let Stored { format: _, issuer, profile, names, device, serial, key } = stored;
        if let Some(entry) = self.parts.authority.find(&serial).await? {
            let held = self.hold(entry, key, OwnWish { issuer, profile, names, device })?;
            self.own.held.store(Some(Arc::new(held)));
        }
        Ok(())
    }

    /// The certificate to show now. Nothing where none was asked for or issued, or where it is over: then the self-made one
    /// opens the door for whoever mends it.
    #[must_use]
    pub fn own_certificate(&self) -> Option<Arc<Held>> {
        let now = self.parts.ledger.clock().now();
        self.own.wish.as_ref()?;
        self.own.held.load_full().filter(|held| now <= held.entry.validity.not_after)
    }

    /// The certificates that clients need to believe what is issued, in PEM; empty while there is no issuer.
    #[must_use]
    pub fn own_anchors(&self) -> String {
        let bundle = self.own.wish.as_ref().and_then(|wish| self.parts.authority.bundle(&wish.issuer).ok());
        let pem = |der: &Vec<u8>| Certificate::parse(der).and_then(|one| one.to_pem()).ok();
        bundle.map(|bundle| bundle.certificates.iter().filter_map(pem).collect()).unwrap_or_default()
    }

    /// Notes what the listener shows from now on, by the DER of its leaf.
    pub fn shows(&self, source: CertificateSource, leaf: &[u8]) {
        let certificate = Certificate::parse(leaf).ok().map(|leaf| Shown {
            serial: *leaf.serial(),
            names: leaf.sans().iter().map(ToString::to_string).collect(),
            until: leaf.validity().not_after,
        });
        let until = certificate.as_ref().map(|shown| shown.until.as_second());
        self.parts.metrics.own_certificate_ends(source.as_str(), until);
        *self.own.served.lock().unwrap_or_else(PoisonError::into_inner) = Some(Served { source, certificate });
    }

    /// What the listener shows.
    #[must_use]
    pub fn served(&self) -> Option<Served> {
        self.own.served.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What an operator should know of the certificate, as sentences.
    pub(super) fn own_problems(&self) -> Vec<String> {
        let now = self.parts.ledger.clock().now();
        let trouble = self.own.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut problems = Vec::new();
        if let Some(Trouble { since, sentence, .. }) = trouble {
            problems.push(format!("no certificate for the service itself since {since}: {sentence}"));
        }
        if let Some(Served { source, certificate: Some(shown) }) = self.served()
            && shown.until < now
        {
            problems.push(format!("the server's certificate ({source}) is over since {}", shown.until));
        }
        problems
    }

    /// Gets a certificate where one is due. What fails is told, and tried again at a later tick.
    pub async fn renew_own_certificate(&self) {
        let Some(wish) = &self.own.wish else { return };
        let _turn = self.own.turn.lock().await;
        let now = self.parts.ledger.clock().now();
        let held = self.own.held.load_full();
        let Some(why) = self.own_due(wish, held.as_deref(), now) else {
            *self.own.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.parts.metrics.own_certificate_overdue(false);
            return;
        };
        if self.own.waits(now) {
            return;
        }
        let (known, kind) = match self.own_obstacle(wish, now) {
            Ok(known) => known,
            Err(error) => {
                self.own.stumbled(&error, false, now);
                return self.parts.metrics.own_certificate_overdue(true);
            }
        };
        match self.get_own_certificate(wish, &known, kind).await {
            Ok(held) => {
                let Entry { serial, validity, .. } = &held.entry;
                tracing::info!(%serial, issuer = %wish.issuer, until = %validity.not_after, why, "a certificate for the service itself");
                self.own.held.store(Some(Arc::new(held)));
                *self.own.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
                self.parts.metrics.own_certificate_overdue(false);
                self.parts.metrics.own_certificate_renewed("issued");
            }
            Err(error) => {
                self.own.stumbled(&error, true, now);
                self.parts.metrics.own_certificate_overdue(true);
                self.parts.metrics.own_certificate_renewed("failed");
            }
        }
    }

    /// Why another certificate is wanted now.
    fn own_due(&self, wish: &OwnWish, held: Option<&Held>, now: Timestamp) -> Option<&'static str> {
        let Some(held) = held else { return Some("there is none") };
        let Entry { serial, validity, .. } = &held.entry;
        if held.wish != *wish {
            return Some("the configuration asks for another one");
        }
        if let OwnKey::Device { name, version, .. } = &held.key {
            let newest = self.parts.keyring.find(name).and_then(|key| Ok(key.primary()?.number()));
            if newest.map_or(true, |newest| newest != *version) {
                return Some("its key has a new version");
            }
        }
        // A single client need not be spread. What cannot be found out any more is no reason to trust it.
        let usual = Window::usual(validity);
        if self.parts.authority.renewal(&held.entry).map_or(true, |renewal| renewal.window != usual) {
            return Some("it is revoked, or is to be replaced");
        }
        let moment = usual.start + drawn(serial, usual.end.duration_since(usual.start));
        let lives = validity.not_before <= now && now < moment;
        (!lives).then_some("it is old")
    }

    /// The profile to ask by and the kind of key, where nothing is in the way that can be seen without trying.
    fn own_obstacle(&self, wish: &OwnWish, now: Timestamp) -> Result<(Known, KeyKind)> {
        self.parts.authority.signer(&*self.parts.authority.issuer(&wish.issuer)?, now)?;
        let known = self.parts.authority.profile(&wish.profile)?;
        if !known.profile.is_for_servers() {
            return Err(Error::new(Kind::Invalid, format!("profile {} is not for servers", known.name))
                .hint("name another one in tls.profile, of the kind server or peer"));
        }
        let kinds = if wish.device.is_some() { 1 } else { KEYS.len() };
        let kind = KEYS.into_iter().take(kinds).find(|kind| known.profile.keys.contains(kind));
        let kind = kind.ok_or_else(|| {
            Error::new(Kind::Invalid, format!("profile {} certifies no key that the server could have", known.name))
                .hint(format!("it should certify {}", KEYS[0]))
        })?;
        Ok((known, kind))
    }

    async fn get_own_certificate(&self, wish: &OwnWish, known: &Known, kind: KeyKind) -> Result<Held> {
        let caller = Caller::system(JOB, job_id());
        let (public, key) = self.own_key(&caller, wish, kind).await?;
        let request = Request {
            names: wish.names.clone(),
            subject: subject(known, &wish.names),
            ..Request::of(Source::Held { kind, public })
        };
        let requests = [request];
        let permit: Permit<IssueCertificate> =
            self.admit_names(&caller, &wish.issuer, &wish.profile, &requests, Some(known)).await?;
        let mut details = Details::default().fact("profile", &wish.profile);
        let stored = |serial| Stored {
            format: FORMAT,
            issuer: wish.issuer.clone(),
            profile: wish.profile.clone(),
            names: wish.names.clone(),
            device: wish.device.clone(),
            serial,
            key: key.copy(),
        };
        let also = |made: &[Option<&Entry>]| {
            let Some(Some(entry)) = made.first() else { return Ok(Vec::new()) };
            let value = serde_json::to_vec(&stored(entry.serial))
                .map_err(|e| Error::internal(format!("own certificate: {e}")))?;
            Ok(vec![Change { path: PATH.to_owned(), expected: Expected::Any, value: Some(value) }])
        };
        let made = self.parts.authority.issue(&permit, &wish.issuer, known, &requests, also).await.and_then(only);
        if let Ok(issued) = &made {
            details.version = Some(issued.entry.version);
            details = details.fact("serials", issued.entry.serial);
        }
        let issued = permit.close(made, details).await.map(Released::into_inner)?;
        self.hold(issued.entry, key, wish.clone())
    }

    /// A new key for each certificate; in a device, the newest version of the one that is there for that.
    async fn own_key(&self, caller: &Caller, wish: &OwnWish, kind: KeyKind) -> Result<(PublicKey, OwnKey)> {
        let Some(device) = &wish.device else {
            let SoftwareKey { public, pem } = SoftwareKey::generate(kind)?;
            return Ok((public, OwnKey::Stored(pem)));
        };
        let name: KeyName = format!("{NAMESPACE}:tls.{device}").parse()?;
        let key = match self.parts.keyring.find(&name) {
            Ok(key) => key,
            Err(_) => self.make_own_key(caller, device_key(name.clone(), device.clone())).await?,
        };
        if key.record.domain != Some(Domain::Tls) || key.record.algorithm != Algorithm::EcdsaP256 {
            return Err(Error::new(
                Kind::Conflict,
                format!("the key {name} is not one for the service's own certificate"),
            ));
        }
        let version = key.primary()?;
        let public = version.public_key()?;
        Ok((public.clone(), OwnKey::Device { name, version: version.number(), public }))
    }

    async fn make_own_key(&self, caller: &Caller, new: NewKey) -> Result<Arc<Key>> {
        let facts = KeyFacts {
            purpose: new.algorithm.purpose(),
            algorithm: new.algorithm,
            domain: new.domain,
            device: &new.device,
            labels: &new.labels,
        };
        let target = Target { resource: resource(&new.name), key: Some(facts) };
        let asked = Facts { algorithm: Some(new.algorithm), ..Facts::default() };
        let permit = self.parts.admission.admit::<CreateKey>(caller, &target, &asked).await?;
        let made = self.parts.keyring.create(&permit, new, |_| Ok(None)).await;
        close_key(made, permit).await.map(Released::into_inner)
    }

    /// Signs a handshake with a key of a device: see [`crate::signing::Signing::sign_handshake`].
    ///
    /// # Errors
    /// As said there.
    pub async fn sign_handshake(&self, key: &KeyName, version: Version, message: Vec<u8>) -> Result<Vec<u8>> {
        self.signing.sign_handshake(key, version, message).await
    }

    fn hold(&self, entry: Entry, key: OwnKey, wish: OwnWish) -> Result<Held> {
        let above = self.parts.authority.chain(&entry.issuer, entry.version)?;
        let mut chain = Certificate::parse(entry.certificate()?)?.to_pem()?;
        for der in above {
            chain.push_str(&Certificate::parse(&der)?.to_pem()?);
        }
        Ok(Held { entry, chain, key, wish })
    }
}

impl OwnKey {
    fn copy(&self) -> Self {
        match self {
            Self::Stored(pem) => Self::Stored(SecretBytes::new(pem.expose().to_vec())),
            Self::Device { name, version, public } => {
                Self::Device { name: name.clone(), version: *version, public: public.clone() }
            }
        }
    }
}

/// A key that signs handshakes. It gets a new version now and then, as nobody looks after it by hand.
fn device_key(name: KeyName, device: Name) -> NewKey {
    NewKey {
        name,
        algorithm: Algorithm::EcdsaP256,
        device,
        residency: None,
        pcrs: None,
        domain: Some(Domain::Tls),
        rotation: Rotation { every: Some(Period::seconds(90 * 86_400)), ..Rotation::default() },
        retention: Retention { versions: Some(1), ..Retention::default() },
        labels: [("signet.use".to_owned(), "tls".to_owned())].into(),
        deletion_protection: false,
    }
}

/// A common name, the first of its names, where the profile wants one.
fn subject(known: &Known, names: &[San]) -> Subject {
    let rule = &known.profile.subject;
    let wanted = rule.required.contains(&SubjectField::CommonName) && rule.fixed.common_name.is_none();
    let common_name = names.first().filter(|_| wanted).map(San::value);
    Subject { common_name, ..Subject::default() }
}

/// A moment of `span` that the certificate itself draws: the same after each start, another one for each certificate.
fn drawn(serial: &Serial, span: SignedDuration) -> SignedDuration {
    let last = serial.as_bytes().last().copied().unwrap_or_default();
    span / 256 * i32::from(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end_growing() {
        let seconds: Vec<_> = (0..9).map(|tries| wait_after(tries).as_secs()).collect();
        assert_eq!(seconds, [0, 5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(wait_after(u32::MAX), LONGEST_WAIT);
    }

    #[test]
    fn the_moment_lies_in_its_window() {
        let span = SignedDuration::from_hours(2);
        let of = |last| {
            let mut bytes = [1; 20];
            bytes[19] = last;
            drawn(&Serial::from_bytes(bytes), span)
        };
        assert_eq!(of(0), SignedDuration::ZERO);
        assert_eq!(of(128), SignedDuration::from_hours(1));
        assert!(of(255) < span);
    }

    #[test]
    fn names_are_hosts_and_addresses() {
        let wish = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            OwnWish::new("default:a".parse().unwrap(), "default:server".parse().unwrap(), &names, None)
        };
        let made = wish(&["KMS.example", "127.0.0.1", "kms.example", "::1"]).unwrap();
        let names: Vec<_> = made.names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["dns:kms.example", "ip:127.0.0.1", "ip:::1"]);
        for bad in [&[][..], &["k\u{e9}y"], &["a b"], &["0.0.0.0"]] {
            assert_eq!(wish(bad).unwrap_err().kind(), Kind::Invalid, "{bad:?}");
        }
    }
}
