//! What makes a version of a key one of an issuer: its certificate, or a request for one.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::record::{Der, Parent, Record, Rules, VersionRecord, VersionState};
use super::{Issuer, IssuerVersion, path};
use crate::admission::{Details, Permit, Released};
use crate::audit::Phase;
use crate::ca::inventory::{Entry, ROOT};
use crate::ca::issue::{Signer, Wanted};
use crate::ca::{Authority, put};
use crate::crash_point;
use crate::error::{Error, Kind, Result};
use crate::store::{Change, Expected};
use crate::types::operation::{Builds, SignIntermediate};
use crate::types::{IssuerName, Period, PublicKey, Version};
use crate::x509::{Csr, Distribution, IssuerView, KeyUsage, Template, Validity, certificate, lint, request};

/// How far certificates begin before they were made, for clocks that are late.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
/// The most places that a list names.
const MAX_PLACES: usize = 32;

/// A version on its way into the record of its issuer.
pub(super) struct Next {
    pub(super) record: Record,
    pub(super) own: VersionRecord,
    pub(super) expected: Expected,
    pub(super) also: Option<Change>,
}

impl Next {
    /// What is committed with the certificate that was made for it.
    fn certified(mut self, made: &[Option<&Entry>]) -> Result<Vec<Change>> {
        let Some(Some(entry)) = made.first() else { return Ok(Vec::new()) };
        self.own.certificate = Some(Der(entry.certificate()?.to_vec()));
        self.changes()
    }

    fn changes(self) -> Result<Vec<Change>> {
        let Self { mut record, own, expected, also } = self;
        record.versions.push(own);
        Ok([put(path(&record.name), expected, &record)?].into_iter().chain(also).collect())
    }
}

impl Authority {
    /// Gives a version of the key what makes it one of the issuer: a certificate, or a request for one. The record is committed
    /// with it.
    pub(super) async fn equip<O: Builds>(
        &self,
        permit: &Permit<O>,
        parent: Option<&Permit<SignIntermediate>>,
        mut next: Next,
    ) -> Result<Arc<Issuer>> {
        let (name, version) = (next.record.name.clone(), next.own.version);
        let key = self.parts.keyring.find(&name.key())?;
        let public_key = key.version(version)?.public_key()?;
        let now = self.now();
        let places = self.distribution(&next.record, version).crl;
        next.own.places = Some(places).filter(|places| !places.is_empty() && next.record.parent != Parent::Itself);
        match next.record.parent.clone() {
            Parent::Itself => {
                let template = root(&next.record, public_key, now);
                let view = IssuerView::of_root(&template, next.record.algorithm)?;
                let signer = Signer { issuer: name.clone(), version, view, certificate: None };
                let wanted = Wanted { template, profile: ROOT.to_owned(), kind: lint::Kind::Root };
                only(self.certify(permit, &signer, vec![Ok(wanted)], |made| next.certified(made)).await?)?;
            }
            Parent::Issuer(above) => {
                let permit =
                    parent.ok_or_else(|| Error::internal("an intermediate without the right to certify it"))?;
                let above = self.issuer(&above)?;
                let signer = self.signer(&above, now)?;
                let template = self.below(&next.record, public_key, above.active()?, &above.record)?;
                next.own.signer = Some((signer.issuer.clone(), signer.version));
                let wanted = Wanted { template, profile: "(intermediate)".to_owned(), kind: lint::Kind::Intermediate };
                only(self.certify(permit, &signer, vec![Ok(wanted)], |made| next.certified(made)).await?)?;
            }
            Parent::Outside => {
                let Rules { powers, .. } = &next.record.rules;
                let body = request::to_be_signed(&next.record.subject, &public_key, &[], Some(powers))?;
                let signing = &self.parts.signing;
                crash_point!("issuer.before_request");
                let signature = signing.sign_structure(permit, &name.key(), version, body.clone()).await?;
                crash_point!("issuer.requested");
                let request = certificate::assemble(&body, next.record.algorithm, &signature)?;
                Csr::parse(&request)?;
                (next.own.state, next.own.activated) = (VersionState::Requested, None);
                next.own.request = Some(Der(request));
                let leaf = permit.record(Phase::Change, &Details::of(key.record.id, version));
                self.parts.ledger.commit(leaf, next.changes()?).await?;
            }
        }
        crash_point!("issuer.published");
        self.reload(&name).await
    }

    /// What a certificate for `record`'s key says that the active version of `above` signs.
    pub(super) fn below(
        &self,
        record: &Record,
        public_key: PublicKey,
        version: &IssuerVersion,
        above: &Record,
    ) -> Result<Template> {
        let (certificate, now) = (version.certificate()?, self.now());
        let mut powers = record.rules.powers.clone();
        if let Some(own) = self.powers(&above.name, version.record.version)?.path_length {
            let left = own.checked_sub(1).ok_or_else(|| {
                Error::new(
                    Kind::Invalid,
                    format!("issuer {} may certify no authorities: its path length is 0", above.name),
                )
                .hint("take another parent, or make one with a longer path")
            })?;
            if powers.path_length.is_some_and(|wanted| wanted > left) {
                let text = format!("below issuer {} the path length is at most {left}", above.name);
                return Err(Error::new(Kind::Invalid, text).hint("ask for less, or leave it out"));
            }
            powers.path_length = Some(powers.path_length.unwrap_or(left));
        }
        let parents = certificate.validity();
        Ok(Template {
            validity: Validity {
                not_before: backdated(now).max(parents.not_before),
                not_after: end(now, record.rules.lifetime).min(parents.not_after),
            },
            authority: Some(powers),
            distribution: self.distribution(above, version.record.version),
            ..root(record, public_key, now)
        })
    }

    /// What the certificates say that this version of an issuer signs.
    #[must_use]
    pub fn distribution(&self, issuer: &Record, version: Version) -> Distribution {
        if let Some(Distribution { crl, ocsp, issuer }) = &issuer.rules.distribution {
            let number = version.to_string();
            let fill = |places: &[String]| places.iter().map(|place| place.replace("{version}", &number)).collect();
            return Distribution { crl: fill(crl), ocsp: fill(ocsp), issuer: fill(issuer) };
        }
        let Some(url) = &self.parts.url else { return Distribution::default() };
        let IssuerName { namespace, name } = &issuer.name;
        let below = format!("{url}/pki/{namespace}/{name}");
        Distribution {
            crl: vec![format!("{below}/{version}.crl")],
            ocsp: vec![format!("{below}/ocsp")],
            issuer: vec![format!("{below}/{version}.cer")],
        }
    }
}

impl Authority {
    /// Remembers where the certificates that are about to be signed say that the list of their version is, because the list has to
    /// say the same: one that names other places does not count for them.
    pub(in crate::ca) async fn remember_places(&self, signer: &Signer, said: &[&[String]]) -> Result<()> {
        for _ in 0..3 {
            // A root that signs its own certificate is not there yet.
            let Ok(issuer) = self.issuer(&signer.issuer) else { return Ok(()) };
            let mut record = issuer.record.clone();
            let own = record.versions.iter_mut().find(|one| one.version == signer.version);
            let Some(known) = own.and_then(|own| own.places.is_some().then_some(&mut own.places)) else {
                return Ok(());
            };
            let places = known.as_deref().and_then(|known| with(known, said));
            if *known == places {
                return Ok(());
            }
            *known = places;
            let leaf = self.parts.admission.record_tidying("places");
            match self.replace(leaf, issuer.revision(), record, None).await {
                // Somebody else changed the issuer at this moment.
                Err(error) if error.kind() == Kind::Stale => {}
                changed => return changed.map(drop),
            }
        }
        Err(Error::new(Kind::Busy, format!("issuer {} is being changed", signer.issuer)).hint("ask again"))
    }
}

/// The places of a list, with those that further certificates name. None where one of them names none, or there are too many.
fn with(known: &[String], said: &[&[String]]) -> Option<Vec<String>> {
    let mut places = known.to_vec();
    for own in said {
        if own.is_empty() {
            return None;
        }
        if !own.iter().any(|place| places.contains(place)) {
            places.extend_from_slice(own);
        }
    }
    (places.len() <= MAX_PLACES).then_some(places)
}

/// Closes the right to have an issuer certified together with what it was for.
///
/// # Errors
/// `Unavailable` where it cannot be recorded: then nothing leaves.
pub async fn close_parent<T>(parent: Option<Permit<SignIntermediate>>, outcome: &Result<T>) -> Result<()> {
    let Some(parent) = parent else { return Ok(()) };
    let result = outcome.as_ref().map(drop).map_err(|e| Error::new(e.kind(), e.public().to_owned()));
    let failed = result.is_err();
    match parent.close(result, Details::default()).await {
        // The failure is answered by whoever closes the other permit.
        Err(_) if failed => Ok(()),
        closed => closed.map(Released::into_inner),
    }
}

/// The only result of a batch of one.
pub(super) fn only(mut made: Vec<Result<Entry>>) -> Result<Entry> {
    made.pop().unwrap_or_else(|| Err(Error::internal("a certificate was not made")))
}

fn backdated(now: Timestamp) -> Timestamp {
    now.checked_sub(BACKDATE).unwrap_or(now)
}

/// The last second of what lives for `lifetime` from now on; the last one that a certificate can name where that is sooner.
fn end(now: Timestamp, lifetime: Period) -> Timestamp {
    now.checked_add(lifetime.as_signed()).unwrap_or(Timestamp::MAX)
}

/// What a root says about itself.
fn root(record: &Record, public_key: PublicKey, now: Timestamp) -> Template {
    Template {
        subject: record.subject.clone(),
        sans: Vec::new(),
        public_key,
        validity: Validity { not_before: backdated(now), not_after: end(now, record.rules.lifetime) },
        usages: vec![KeyUsage::CertSign, KeyUsage::CrlSign],
        extended: Vec::new(),
        authority: Some(record.rules.powers.clone()),
        policies: record.rules.policies.clone(),
        distribution: Distribution::default(),
        must_staple: false,
        no_check: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_the_places_of_all_its_certificates_or_none() {
        let texts = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (a, b, both, none) = (texts(&["a"]), texts(&["b"]), texts(&["b", "a"]), texts(&[]));
        assert_eq!(with(&a, &[&a, &both]), Some(texts(&["a"])));
        assert_eq!(with(&a, &[&b, &a]), Some(texts(&["a", "b"])));
        assert_eq!(with(&a, &[&a, &none]), None);
        let many: Vec<_> = (0..40).map(|number| number.to_string()).collect();
        assert_eq!(with(&a, &[&many]), None);
    }
}
