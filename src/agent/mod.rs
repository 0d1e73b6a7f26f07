//! What runs beside a service and keeps it in certificates: it makes the key here, has it certified, puts both in place, tells the
//! service, and does it again in time.
//!
//! ```text
//! look ─▶ is there a pair that fits and is young enough? ─▶ yes: when to look again
//!           │ no
//!           ▼
//!         key here, in a new folder ─▶ CSR ─▶ the server certifies ─▶ checked ─▶ one rename ─▶ the service is told
//! ```
//!
//! One agent at a time keeps a folder. It is tried before anything is asked for, so that no token is spent for nothing.
//!
//! The server is asked now and then whether a certificate should be renewed before its time: because it will be revoked, or its
//! issuer is replaced. The private key never leaves this machine; where it is made in the TPM, not even that. Whatever fails leaves the last pair in place; a pair that the service was not told of
//! is told of at the next look.

mod advice;
mod folder;
mod key;
mod pair;
mod tell;
mod wanted;

pub use key::{Home, KeyType};
pub use pair::{CERTIFICATE, CURRENT, Files, KEY, Pair, TRUST};
pub use tell::{Signal, Tell};

pub use crate::x509::San;

use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use advice::Advice;
use folder::Hold;
use pair::Draft;
use wanted::Wanted;

use crate::client::{Certificate as Credential, Client};
use crate::crash_point;
use crate::error::{Error, Kind, Result};
use crate::types::{Clock, IssuerName, Period, ProfileName, Subject};
use crate::wire::{CertificateWanted, IssueCertificate, Renewal};
use crate::x509::Certificate;

/// One certificate that is kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Who signs.
    pub issuer: IssuerName,
    /// What it looks like.
    pub profile: ProfileName,
    /// Its names.
    pub names: Vec<San>,
    /// Its subject, as far as the profile lets it be asked for.
    #[serde(default)]
    pub subject: Subject,
    /// How long it is to live; as the profile says where absent.
    pub lifetime: Option<Period>,
    /// Where it is put.
    pub folder: PathBuf,
    /// The type of its key.
    #[serde(default = "usual_key")]
    pub key_type: KeyType,
    /// Where its key is made.
    #[serde(default)]
    pub key_in: Home,
    /// After how many hundredths of its life the next one is asked for.
    #[serde(default = "usual_share")]
    pub renew_at: u8,
    /// How the service is told.
    #[serde(default)]
    pub tell: Tell,
    /// Also write a Secret of Kubernetes with this name.
    pub kubernetes_secret: Option<String>,
    /// Whether the certificate is the credential for the next one.
    #[serde(default)]
    pub renew_by_certificate: bool,
}

/// What [`Settings`] say where nothing is said.
#[must_use]
pub const fn usual_key() -> KeyType {
    KeyType::EcdsaP256
}

/// As [`usual_key`]: two thirds, so that a third is left for whatever goes wrong.
#[must_use]
pub const fn usual_share() -> u8 {
    66
}

impl Settings {
    /// That they make sense.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with the mend.
    pub fn check(&self) -> Result<()> {
        if !(1..=90).contains(&self.renew_at) {
            return Err(Error::new(Kind::Invalid, "renew_at is 1 to 90")
                .hint("in hundredths of the certificate's life; a tenth of it is left to spread renewals over"));
        }
        self.names.iter().try_for_each(San::check)?;
        self.tell.check()?;
        self.key_in.check(self.key_type)?;
        if let Home::Tpm(_) = self.key_in {
            // What would come of it is not what it looks like.
            let refused = |what: &'static str, mend: &'static str| Err(Error::new(Kind::Unsupported, what).hint(mend));
            if self.kubernetes_secret.is_some() {
                return refused("a key in a TPM is of no use in a Secret", "leave kubernetes_secret out, or key_in");
            }
            if self.renew_by_certificate {
                let mend = "renew by a token: leave renew_by_certificate out; or leave key_in out";
                return refused("a key in a TPM cannot speak TLS for the agent itself", mend);
            }
        }
        let dns = |name: &String| {
            (1..=253).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
        };
        if self.kubernetes_secret.as_ref().is_some_and(|name| !dns(name)) {
            return Err(Error::new(Kind::Invalid, "the name of a Secret has a-z, 0-9, '-' and '.'"));
        }
        Ok(())
    }
}

/// What a look has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// Whether there is a new certificate.
    pub renewed: bool,
    /// Why there is one.
    pub why: Option<String>,
    /// When the certificate ends.
    pub ends: Timestamp,
    /// When the next one is asked for.
    pub next: Timestamp,
    /// How long the server asks to wait before the next look.
    pub ask_again: Option<Duration>,
}

/// The longest time between two looks: clocks jump, and machines sleep.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// The shortest: an issuer that is about to end gives certificates that are due at once.
const SHORTEST_WAIT: Duration = Duration::from_secs(60);
/// The first wait after a failure; each further one is twice as long, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(5);

/// Keeps one certificate.
#[derive(Debug)]
pub struct Agent<C> {
    settings: Settings,
    /// Makes a client, with the certificate as its credential where there is one to renew by.
    connect: C,
    clock: Clock,
}

impl<C: Fn(Option<Credential>) -> Result<Client>> Agent<C> {
    /// An agent for one certificate.
    ///
    /// # Errors
    /// As [`Settings::check`].
    pub fn new(settings: Settings, connect: C, clock: Clock) -> Result<Self> {
        settings.check()?;
        Ok(Self { settings, connect, clock })
    }

    /// Looks once, and renews where that is due, or where `force` says so.
    ///
    /// # Errors
    /// Those of the client; `Invalid` for an answer that does not fit; `Unavailable` where files cannot be written or the service
    /// was not told; `Conflict` where another agent keeps the folder.
    pub async fn look(&self, force: bool) -> Result<Looked> {
        let _hold = Hold::take(&self.settings.folder)?;
        self.look_at_held(force).await
    }

    /// Looks for ever.
    ///
    /// # Errors
    /// `Conflict` where another agent keeps the folder, `Unavailable` where it cannot be written: at the start, and never later.
    pub async fn run(&self) -> Result<()> {
        let _hold = Hold::take(&self.settings.folder)?;
        let mut failures = 0_u32;
        loop {
            let wait = match self.look_at_held(false).await {
                Ok(Looked { renewed: _, why, ends, next, ask_again }) => {
                    failures = 0;
                    if let Some(why) = why {
                        tracing::info!(why, %ends, %next, folder = %self.settings.folder.display(), "a new certificate is in place");
                    }
                    let left = next.duration_since(self.clock.now());
                    let wait = Duration::try_from(left).unwrap_or_default().min(ask_again.unwrap_or(LONGEST_WAIT));
                    wait.clamp(SHORTEST_WAIT, LONGEST_WAIT)
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    let wait = back_off(failures, error.wait());
                    let (cause, hint) = (error.chain(), error.mend().unwrap_or_default());
                    tracing::error!(cause, hint, again_in = wait.as_secs(), "no new certificate: the last one stays");
                    wait
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    async fn look_at_held(&self, force: bool) -> Result<Looked> {
        let now = self.clock.now();
        let good = match Pair::current(&self.settings.folder) {
            None => Err("there was none, or none that could be read".to_owned()),
            Some(_) if force => Err("it was asked for".to_owned()),
            Some(pair) => self.unfit(&pair).map_or(Ok(pair), Err),
        };
        let good = good.and_then(|pair| if now < self.next(&pair) { Ok(pair) } else { Err("it was due".to_owned()) });
        let (good, ask_again) = match good {
            // It is not due by what is known here; but the server may know more.
            Ok(pair) => {
                let ask_again = self.ask(&pair).await?;
                let early = || "the server asked for it".to_owned();
                (if now < self.next(&pair) { Ok(pair) } else { Err(early()) }, ask_again)
            }
            Err(why) => (Err(why), None),
        };
        let (pair, why) = match good {
            Ok(pair) => (pair, None),
            Err(why) => (self.renew().await?, Some(why)),
        };
        if !pair.was_told() {
            crash_point!("agent.before_tell");
            self.settings.tell.run(&self.settings.folder).await?;
            crash_point!("agent.told");
            pair.told()?;
        }
        let ends = pair.certificate.validity().not_after;
        Ok(Looked { renewed: why.is_some(), why, ends, next: self.next(&pair), ask_again })
    }

    /// Whether it is what is wanted, as far as a certificate shows that.
    fn fits(&self, certificate: &Certificate, in_tpm: bool) -> bool {
        let sorted = |names: &[San]| {
            let mut names = names.to_vec();
            names.sort();
            names
        };
        in_tpm == matches!(self.settings.key_in, Home::Tpm(_))
            && sorted(certificate.sans()) == sorted(&self.settings.names)
    }

    /// Why a pair is not what is wanted: other settings mean another certificate.
    fn unfit(&self, pair: &Pair) -> Option<String> {
        let changed = pair.wanted().and_then(|before| Wanted::of(&self.settings).change(&before));
        let unfit = || {
            (!self.fits(&pair.certificate, pair.in_tpm))
                .then(|| "other names are wanted, or another home of the key".to_owned())
        };
        changed.or_else(unfit)
    }

    /// Asks the server when to renew, and keeps what it says. That it cannot be asked changes nothing, unless the certificate is the
    /// credential, is refused, and there is no other. Answers when to ask again.
    async fn ask(&self, pair: &Pair) -> Result<Option<Duration>> {
        let serial = pair.certificate.serial().to_string();
        let own = self.credential();
        let by_own = own.is_some();
        let answer = async { (self.connect)(own)?.renewal(&serial).await };
        let answer = match answer.await {
            Err(refusal) if by_own && refusal.kind() == Kind::Unauthenticated => {
                self.by_token(&refusal)?.renewal(&serial).await
            }
            answer => answer,
        };
        let renewal: Renewal = match answer {
            Ok(renewal) => renewal,
            Err(error) => {
                let cause = error.chain();
                tracing::debug!(cause, "the server did not say when to renew");
                return Ok(None);
            }
        };
        let kept = pair.advice();
        let advice = Advice::of(&renewal, kept);
        if advice != kept {
            let why = renewal.explanation.as_deref().unwrap_or_default();
            match advice {
                Some(advice) => {
                    tracing::info!(until = %renewal.end, at = %advice.moment, why, "the server asks for an early renewal");
                }
                None => tracing::info!("the server no longer asks for an early renewal"),
            }
            if let Err(error) = pair.follow(advice) {
                tracing::error!(cause = error.chain(), "the moment of an early renewal cannot be kept");
            }
        }
        Ok(Some(Duration::from_secs(renewal.ask_again)))
    }

    /// When the next certificate is asked for: by its age, or earlier where the server has said so.
    fn next(&self, pair: &Pair) -> Timestamp {
        let usual = self.by_age(&pair.certificate);
        pair.advice().map_or(usual, |advice| usual.min(advice.moment))
    }

    /// At its share of the life of a certificate, and up to a tenth of the life later, so that a fleet that was started together
    /// does not come back together. Each certificate has its own moment, which a restart does not change.
    fn by_age(&self, certificate: &Certificate) -> Timestamp {
        let validity = certificate.validity();
        let life = validity.not_after.duration_since(validity.not_before).as_secs().max(0);
        let [spread, ..] = certificate.fingerprint();
        let after = life / 100 * i64::from(self.settings.renew_at) + life / 10 * i64::from(spread) / 256;
        validity.not_before.checked_add(SignedDuration::from_secs(after)).unwrap_or(validity.not_before)
    }

    /// The certificate in force, where it is to be the credential and is not over.
    fn credential(&self) -> Option<Credential> {
        let pair = Pair::current(&self.settings.folder).filter(|_| self.settings.renew_by_certificate)?;
        let alive = self.clock.now() < pair.certificate.validity().not_after;
        if alive { pair.credential().ok() } else { None }
    }

    /// A client with another credential than the certificate, which is refused.
    fn by_token(&self, refusal: &Error) -> Result<Client> {
        (self.connect)(None).map_err(|none| {
            let text = format!(
                "the certificate in {} opens the server no more, and there is no other credential: {}",
                self.settings.folder.join(CURRENT).display(),
                refusal.public()
            );
            Error::new(Kind::Unauthenticated, text).because(none).hint(
                "where you may: signet token create NAME --uses 1 --ttl 15m; then start the agent with it in SIGNET_TOKEN or --token-file",
            )
        })
    }

    async fn renew(&self) -> Result<Pair> {
        let Settings { folder, key_type, key_in, kubernetes_secret, .. } = &self.settings;
        let (key, csr) = key_in.make(*key_type).await?.request().await?;
        let secret = key.pem();
        let draft = Draft::begin(folder, &secret)?;
        let made = self.certify(csr).await.and_then(|Certified { chain, trust }| {
            let files = Files { key: &secret, chain: &chain, trust: &trust };
            let (certificate, in_tpm) = files.read()?;
            if !self.fits(&certificate, in_tpm) {
                let text = "the server certified other names than those that were asked for";
                return Err(Error::new(Kind::Invalid, text));
            }
            draft.install(&files, kubernetes_secret.as_deref(), &Wanted::of(&self.settings))
        });
        if made.is_err() {
            draft.discard();
        }
        made
    }

    /// Has a request certified: by the certificate in force where that is the credential, and by the other one where it is refused.
    async fn certify(&self, csr: String) -> Result<Certified> {
        let Settings { issuer, profile, names, subject, lifetime, .. } = &self.settings;
        let request = CertificateWanted {
            csr: Some(csr),
            names: names.iter().map(ToString::to_string).collect(),
            subject: subject.clone(),
            lifetime: *lifetime,
            ..CertificateWanted::default()
        };
        let body = IssueCertificate { profile: profile.clone(), request };
        let (mut client, may_be_refused) = match self.credential() {
            Some(own) => ((self.connect)(Some(own))?, true),
            None if self.is_over() => (self.by_token(&Error::new(Kind::Unauthenticated, "it is over"))?, false),
            None => ((self.connect)(None)?, false),
        };
        crash_point!("agent.before_request");
        let made = match client.issue(issuer, &body).await {
            Err(refusal) if may_be_refused && refusal.kind() == Kind::Unauthenticated => {
                client = self.by_token(&refusal)?;
                tracing::warn!(cause = refusal.chain(), "the certificate opens the server no more: by the token");
                client.issue(issuer, &body).await?
            }
            made => made?,
        };
        crash_point!("agent.certified");
        let leaf = made.certificate.ok_or_else(|| Error::internal("the server sent no certificate"))?;
        let trust = client.trust_bundle(issuer).await?;
        Ok(Certified { chain: format!("{leaf}{}", made.chain), trust })
    }

    /// Whether the certificate in force was to be the credential, and has ended.
    fn is_over(&self) -> bool {
        self.settings.renew_by_certificate && Pair::current(&self.settings.folder).is_some()
    }
}

/// What a server makes of a request, in PEM.
struct Certified {
    chain: String,
    trust: String,
}

/// Twice as long after each failure, and some of it by chance; never sooner than the server has asked for.
fn back_off(failures: u32, asked: Option<Duration>) -> Duration {
    let whole = FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_WAIT);
    let mut chance = [0; 1];
    // Where there is no chance, the wait is only less spread.
    let _ = getrandom::fill(&mut chance);
    let wait = whole / 2 + whole / 2 * u32::from(chance[0]) / 256;
    asked.map_or(wait, |asked| wait.max(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_the_documentation_is_true() {
        let page = include_str!("../../docs/agent.md");
        let (_, text) = page.split_once("```toml\n").unwrap();
        let (text, _) = text.split_once("```").unwrap();
        let settings: Settings = toml::from_str(text).unwrap();
        settings.check().unwrap();
        assert_eq!((settings.names.len(), settings.tell.command.as_deref()), (2, Some("nginx -s reload")));
        for wrong in [text.replace("renew_at = 66", "renew_at = 91"), text.replace("\"web-tls\"", "\"a\\nb\"")] {
            assert_eq!(toml::from_str::<Settings>(&wrong).unwrap().check().unwrap_err().kind(), Kind::Invalid);
        }
        assert!(toml::from_str::<Settings>(&text.replace("lifetime", "life")).is_err());
    }

    #[test]
    fn waits_grow_to_an_hour_and_heed_the_server() {
        for failures in 1..40 {
            let whole = FIRST_WAIT.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST_WAIT);
            assert!((whole / 2..=whole).contains(&back_off(failures, None)));
        }
        assert_eq!(back_off(1, Some(LONGEST_WAIT)), LONGEST_WAIT);
    }
}
