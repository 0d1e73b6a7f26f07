//! Certificates.

use jiff::Timestamp;

use super::answer::Reply;
use super::batch::{items, results};
use super::call::{Call, token};
use super::pem;
use crate::error::{Error, Kind, Result};
use crate::service::{
    CertificateCursor, CertificateRequest, CertificateSearch, Certified, Entry, KeySource, Released, Renewal,
    RevocationRight,
};
use crate::types::{IssuerName, Name, Version};
use crate::wire::{self, BatchResults, Page};
use crate::x509::crl::Reason;
use crate::x509::{Csr, San, Serial};

pub(super) async fn issue(call: Call, body: wire::IssueCertificate) -> Result<Released<Reply<wire::Certificate>>> {
    let wire::IssueCertificate { profile, request } = body;
    let (request, issuer) = (wanted(request)?, call.issuer()?);
    let made = call.service.issue(&call.caller, &issuer, &profile, request, &call.idempotency).await?;
    made.try_map(|made| {
        let words = words(made)?;
        let path = format!("/api/v1/certificates/{}", words.serial);
        Ok(Reply::from(words).location(path))
    })
}

pub(super) async fn issue_batch(
    call: Call,
    body: wire::IssueCertificates,
) -> Result<Released<Reply<BatchResults<wire::Certificate>>>> {
    let wire::IssueCertificates { profile, items: asked } = body;
    let (requests, issuer) = (items(asked, wanted)?, call.issuer()?);
    let made = call.service.issue_batch(&call.caller, &issuer, &profile, requests, &call.idempotency).await?;
    Ok(made.map(|made| {
        let made = made.into_iter().map(|one| one.and_then(words)).collect();
        results(&call, made, |one| one).into()
    }))
}

pub(super) async fn read(call: Call) -> Result<Released<Reply<wire::Certificate>>> {
    let found = call.service.read_certificate(&call.caller, &serial(&call)?).await?;
    found.try_map(|found| Ok(words(found)?.into()))
}

pub(super) async fn renewal(call: Call) -> Result<Released<Reply<wire::Renewal>>> {
    let found = call.service.certificate_renewal(&call.caller, &serial(&call)?).await?;
    Ok(found.map(|found| {
        let Renewal { window, ask_again, early, explanation } = found;
        let ask_again = ask_again.as_secs();
        wire::Renewal { start: window.start, end: window.end, early, ask_again, explanation }.into()
    }))
}

pub(super) async fn search(call: Call) -> Result<Released<Reply<Page<wire::Certificate>>>> {
    let page = call.page()?;
    let before = call.query("expires_before", time)?;
    let after = call.query("expires_after", time)?;
    let ends = call.service.span(after, before);
    let text = |name| call.query(name, |text: &str| Ok(text.to_owned()));
    let search = CertificateSearch {
        issuer: call.query("issuer", str::parse::<IssuerName>)?,
        namespace: call.query("namespace", Name::new)?,
        profile: text("profile")?.map(|profile| full_name(&profile)),
        requester: text("requester")?,
        name: call.query("name", str::parse::<San>)?.map(|name| name.to_string()),
        ends,
        after: page.after::<Place>()?.map(|place| place.0),
        limit: page.size,
    };
    let found = call.service.search_certificates(&call.caller, search).await?;
    found.try_map(|found| {
        let items = found.certificates.into_iter().map(words).collect::<Result<_>>()?;
        Ok(Page { items, next_page_token: found.next.map(|next| token(&Place(next))) }.into())
    })
}

pub(super) async fn revoke(call: Call, body: wire::RevokeCertificate) -> Result<Released<Reply<wire::Certificate>>> {
    let wire::RevokeCertificate { reason: why, proof } = body;
    let right = proof.map_or(RevocationRight::Policy, |proof| RevocationRight::Proof(proof.0));
    let (serial, reason) = (serial(&call)?, reason(why.as_deref())?);
    let revoked = call.service.revoke_certificate(&call.caller, &serial, reason, right, &call.idempotency).await?;
    revoked.try_map(|revoked| Ok(words(revoked)?.into()))
}

pub(super) async fn revoke_all(
    call: Call,
    body: wire::RevokeCertificates,
) -> Result<Released<Reply<wire::RevokedCount>>> {
    let wire::RevokeCertificates { version, reason: why } = body;
    let (issuer, reason): (IssuerName, Reason) = (call.issuer()?, reason(why.as_deref())?);
    let version: Option<Version> = version;
    let revoked = call.service.revoke_certificates(&call.caller, &issuer, version, reason).await?;
    Ok(revoked.map(|revoked| wire::RevokedCount { revoked }.into()))
}

fn wanted(wanted: wire::CertificateWanted) -> Result<CertificateRequest> {
    let wire::CertificateWanted { csr, key, names, subject: asked, lifetime, not_before, not_after } = wanted;
    let source = match (csr, key) {
        (Some(csr), None) => KeySource::Csr(Box::new(Csr::parse(csr.as_bytes())?)),
        (None, Some(kind)) => KeySource::Software(kind.parse()?),
        (Some(_), Some(_)) | (None, None) => {
            return Err(Error::new(Kind::Invalid, "a request has a CSR, or the kind of a key to be made")
                .hint("send csr in PEM; key is for profiles that let the service make it"));
        }
    };
    let names = names.iter().map(|name| name.parse()).collect::<Result<_>>()?;
    Ok(CertificateRequest { source, names, subject: asked, lifetime, not_before, not_after })
}

fn reason(text: Option<&str>) -> Result<Reason> {
    text.map_or(Ok(Reason::Unspecified), str::parse)
}

fn serial(call: &Call) -> Result<Serial> {
    call.path("serial")?.parse()
}

fn time(text: &str) -> Result<Timestamp> {
    text.parse().map_err(|_| Error::new(Kind::Invalid, "this is no time").hint("written as 2026-07-01T00:00:00Z"))
}

/// A profile without a namespace is one of the namespace `default`; words of ours stand in brackets and have none.
fn full_name(profile: &str) -> String {
    profile.parse::<crate::types::ProfileName>().map_or_else(|_| profile.to_owned(), |name| name.to_string())
}

/// A certificate in the words of the API.
fn words(certified: Certified) -> Result<wire::Certificate> {
    let Certified { entry, chain, revoked, key } = certified;
    let fingerprint = entry.fingerprint();
    let Entry { serial, issuer, version, profile, requester, subject, names, validity, der, state, .. } = entry;
    let key = key.map(|key| String::from_utf8(key.expose().to_vec())).transpose();
    Ok(wire::Certificate {
        serial: serial.to_string(),
        issuer,
        version,
        profile,
        requester,
        subject,
        names,
        not_before: validity.not_before,
        not_after: validity.not_after,
        state: state.to_string(),
        revoked: revoked.map(|revoked| revoked.at),
        reason: revoked.map(|revoked| revoked.reason.to_string()),
        fingerprint,
        certificate: der.as_deref().map(pem::certificate).transpose()?,
        chain: if der.is_some() { pem::chain(&chain)? } else { String::new() },
        private_key: key.map_err(|_| Error::internal("a key is no PEM"))?.map(wire::PrivateKeyText),
    })
}

/// Where a page ends, as a text.
struct Place(CertificateCursor);

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0.number, self.0.not_after)
    }
}

impl std::str::FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (number, not_after) = text.split_once('.')?;
            Some(Self(CertificateCursor { number: number.parse().ok()?, not_after: not_after.parse().ok()? }))
        };
        parse().ok_or_else(|| Error::new(Kind::Invalid, "not a place in a list of certificates"))
    }
}
