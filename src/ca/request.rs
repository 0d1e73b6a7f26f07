//! Requests for certificates: what a profile and an issuer make of them.

use super::Authority;
use super::bundle::Powers;
use super::inventory::Entry;
use super::issue::Wanted;
use super::issuer::Issuer;
use super::profile::{IssuerBounds, Requested};
use super::profiles::Known;
use super::software::SoftwareKey;
use crate::admission::Permit;
use crate::error::{Error, Kind, Result};
use crate::store::Change;
use crate::types::operation::Builds;
use crate::types::{IssuerName, ProfileName, PublicKey, SecretBytes};
use crate::x509::{Csr, KeyKind, San, Subject};

/// Whose key is certified.
#[derive(Debug)]
pub enum Source {
    /// The one that this request proves.
    Csr(Box<Csr>),
    /// One that is made now, outside any device, and handed out once.
    Software(KeyKind),
    /// One that the service itself holds, for a certificate of its own: there is nothing to prove, and nothing to hand out.
    Held {
        /// Its kind.
        kind: KeyKind,
        /// Its public half.
        public: PublicKey,
    },
}

/// A certificate that somebody asks for. What is absent is for the profile to say.
#[derive(Debug)]
pub struct Request {
    /// The key.
    pub source: Source,
    /// Alternative names beside those of the CSR.
    pub names: Vec<San>,
    /// The subject, beside that of the CSR.
    pub subject: Subject,
    /// How long it is to live.
    pub lifetime: Option<crate::types::Period>,
    /// When it is to begin.
    pub not_before: Option<jiff::Timestamp>,
    /// When it is to end, in place of a lifetime.
    pub not_after: Option<jiff::Timestamp>,
}

/// A certificate that was made, and its key where the service made that, too.
#[derive(Debug)]
pub struct Issued {
    /// The certificate.
    pub entry: Entry,
    /// The private key in PEM, shown once and kept nowhere.
    pub key: Option<SecretBytes>,
}

impl Request {
    /// A request for what the profile says, by a CSR.
    #[must_use]
    pub fn by_csr(csr: Csr) -> Self {
        Self::of(Source::Csr(Box::new(csr)))
    }

    /// A request for what the profile says.
    #[must_use]
    pub fn of(source: Source) -> Self {
        Self {
            source,
            names: Vec::new(),
            subject: Subject::default(),
            lifetime: None,
            not_before: None,
            not_after: None,
        }
    }

    /// The kind of its key.
    #[must_use]
    pub fn key_kind(&self) -> KeyKind {
        match &self.source {
            Source::Csr(csr) => csr.key_kind(),
            Source::Software(kind) | Source::Held { kind, .. } => *kind,
        }
    }

    /// The names that a policy has to allow: all that could come into the certificate, whatever the profile takes over. Those of
    /// the CSR count where the profile lets them, or is not known.
    #[must_use]
    pub fn names(&self, profile: Option<&Known>) -> Vec<San> {
        let of_csr = match &self.source {
            Source::Csr(csr) if profile.is_none_or(|known| known.profile.from_csr) => csr.sans(),
            Source::Csr(_) | Source::Software(_) | Source::Held { .. } => &[],
        };
        let mut names: Vec<_> = of_csr.iter().chain(&self.names).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    /// The subject that a policy has to allow: the one that the certificate will have. Where the profile is not known, it is all that is
    /// asked for.
    #[must_use]
    pub fn subject(&self, profile: Option<&Known>) -> Subject {
        let csr = match &self.source {
            Source::Csr(csr) => Some(&**csr),
            Source::Software(_) | Source::Held { .. } => None,
        };
        profile.map_or_else(|| self.subject.clone(), |known| known.profile.subject_of(csr, &self.subject))
    }
}

impl Issuer {
    /// What it leaves to the certificates below it.
    ///
    /// # Errors
    /// [`Kind::State`] where no version issues.
    fn bounds(&self, authority: &Authority) -> Result<IssuerBounds> {
        let active = self.active()?;
        let Powers { path_length, constraints } = authority.powers(&self.record.name, active.record.version)?;
        Ok(IssuerBounds {
            validity: active.certificate()?.validity(),
            path_length,
            constraints,
            distribution: authority.distribution(&self.record, active.record.version),
        })
    }
}

impl Authority {
    /// Issues each of `requests` from one profile, with one commit for all of their serial numbers and one for all of the
    /// certificates. `also` is committed with them.
    ///
    /// # Errors
    /// For all: `State` where the issuer does not issue, and those of the ledger. Per item: what the profile or the issuer does
    /// not allow, and those of [`Self::certify`].
    pub async fn issue<O: Builds>(
        &self,
        permit: &Permit<O>,
        issuer: &IssuerName,
        known: &Known,
        requests: &[Request],
        also: impl Fn(&[Option<&Entry>]) -> Result<Vec<Change>>,
    ) -> Result<Vec<Result<Issued>>> {
        permit.covers_issuer(issuer)?;
        self.check_at_home(issuer, &known.name)?;
        let mut keys = software_keys(requests).await?;
        let mut tries = 0;
        let made = loop {
            let (now, own) = (self.now(), self.issuer(issuer)?);
            let (signer, bounds) = (self.signer(&own, now)?, own.bounds(self)?);
            let wanted = requests.iter().zip(&keys).map(|(request, key)| {
                let template = known.profile.apply(&request.words(key.as_ref())?, now, &bounds)?;
                let asked = request.names(Some(known));
                if template.sans.iter().any(|name| !asked.contains(name)) {
                    return Err(Error::internal("a certificate would have a name that nobody allowed"));
                }
                if template.subject != request.subject(Some(known)) {
                    return Err(Error::internal("a certificate would have a subject that nobody allowed"));
                }
                Ok(Wanted { template, profile: known.name.to_string(), kind: known.profile.kind.rules() })
            });
            let made = self.certify(permit, &signer, wanted.collect(), &also).await;
            tries += 1;
            match made {
                // The issuer was rotated at this moment: its new version takes over.
                Err(error) if error.kind() == Kind::State && tries < 3 && self.rotated(issuer, &signer.version)? => {}
                made => break made?,
            }
        };
        let key = |at: usize| keys.get_mut(at).and_then(Option::take).map(|key| key.pem);
        let mut key = key;
        Ok(made.into_iter().enumerate().map(|(at, one)| one.map(|entry| Issued { entry, key: key(at) })).collect())
    }

    /// Whether a profile may be used with an issuer: it belongs to the same namespace, or to `default`. Who writes profiles of
    /// one namespace decides nothing about the certificates of another.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where not.
    pub fn check_at_home(&self, issuer: &IssuerName, profile: &ProfileName) -> Result<()> {
        if profile.namespace == issuer.namespace || profile.namespace.as_str() == ProfileName::DEFAULT_NAMESPACE {
            return Ok(());
        }
        let text = format!("the profile {profile} is of another namespace than the issuer {issuer}");
        Err(Error::new(Kind::Invalid, text).hint("take a profile of the issuer's namespace, or of `default`"))
    }

    fn rotated(&self, issuer: &IssuerName, version: &crate::types::Version) -> Result<bool> {
        Ok(self.issuer(issuer)?.active()?.record.version != *version)
    }
}

impl Request {
    /// In the words of profiles.
    fn words(&self, key: Option<&SoftwareKey>) -> Result<Requested<'_>> {
        let plain = match (&self.source, key) {
            (Source::Csr(csr), _) => Requested::by_csr(csr),
            (Source::Held { public, .. }, _) => Requested::for_key(public.clone()),
            (Source::Software(_), Some(key)) => Requested { software: true, ..Requested::for_key(key.public.clone()) },
            (Source::Software(_), None) => return Err(Error::internal("a key was not made")),
        };
        Ok(Requested {
            names: self.names.clone(),
            subject: self.subject.clone(),
            lifetime: self.lifetime,
            not_before: self.not_before,
            not_after: self.not_after,
            ..plain
        })
    }
}

/// The keys of the requests that bring none. An RSA key takes a while, so all are made off the request threads.
async fn software_keys(requests: &[Request]) -> Result<Vec<Option<SoftwareKey>>> {
    let kinds: Vec<_> = requests
        .iter()
        .map(|request| match &request.source {
            Source::Csr(_) | Source::Held { .. } => None,
            Source::Software(kind) => Some(*kind),
        })
        .collect();
    if kinds.iter().all(Option::is_none) {
        return Ok(kinds.into_iter().map(|_| None).collect());
    }
    let make = move || kinds.into_iter().map(|kind| kind.map(SoftwareKey::generate).transpose()).collect();
    tokio::task::spawn_blocking(make).await.map_err(|e| Error::internal(format!("keys were not made: {e}")))?
}
