//! Issuers.

use std::sync::Arc;

use super::answer::Reply;
use super::call::{Call, token};
use super::pem;
use crate::error::{Error, Kind, Result};
use crate::service::{Issuer, IssuerRules, IssuerState, IssuerUpdate, IssuerVersion, NewIssuer, Parent, Released};
use crate::types::{Name, Period, Rollover};
use crate::wire::{self, Page};
use crate::x509::{Authority, Certificate, NameConstraints};

/// How long certificates of roots and of others live, where nobody says.
const ROOT_LIFE: Period = Period::seconds(3650 * 86_400);
const OTHER_LIFE: Period = Period::seconds(1825 * 86_400);

pub(super) async fn create(call: Call, body: wire::CreateIssuer) -> Result<Released<Reply<wire::Issuer>>> {
    let wire::CreateIssuer { name, subject: wanted, parent, outside, algorithm, device, residency, rules: said } = body;
    let parent = match (parent, outside) {
        (None, false) => Parent::Itself,
        (Some(parent), false) => Parent::Issuer(parent),
        (None, true) => Parent::Outside,
        (Some(_), true) => {
            return Err(Error::new(Kind::Invalid, "an issuer has a parent of ours, or an outside one")
                .hint("leave parent or outside out"));
        }
    };
    let life = if parent == Parent::Itself { ROOT_LIFE } else { OTHER_LIFE };
    let device = device.unwrap_or_else(|| call.service.default_device().clone());
    let new = NewIssuer { name, subject: wanted, parent, algorithm, device, residency, rules: rules(said, life)? };
    let made = call.service.create_issuer(&call.caller, new, &call.idempotency).await?;
    made.try_map(|issuer| {
        let path = format!("/api/v1/issuers/{}", issuer.record.name);
        Ok(reply(&call, &issuer)?.location(path))
    })
}

pub(super) async fn list(call: Call) -> Result<Released<Reply<Page<wire::Issuer>>>> {
    let namespace = call.query("namespace", Name::new)?;
    let page = call.page()?;
    let found = call.service.list_issuers(&call.caller, namespace, page.after()?, page.size).await?;
    found.try_map(|found| {
        let items = found.issuers.iter().map(|issuer| words(&call, issuer)).collect::<Result<_>>()?;
        Ok(Page { items, next_page_token: found.next.as_ref().map(token) }.into())
    })
}

pub(super) async fn read(call: Call) -> Result<Released<Reply<wire::Issuer>>> {
    let issuer = call.service.read_issuer(&call.caller, &call.issuer()?).await?;
    issuer.try_map(|issuer| reply(&call, &issuer))
}

pub(super) async fn update(call: Call, body: wire::UpdateIssuer) -> Result<Released<Reply<wire::Issuer>>> {
    let etag = call.if_match()?.ok_or_else(|| {
        Error::new(Kind::Invalid, "a change of an issuer needs the header If-Match")
            .hint("read the issuer first, and send its etag in double quotes")
    })?;
    let etag = format!("\"{etag}\"");
    let wire::UpdateIssuer { enabled, rules: said } = body;
    let complete = |said: wire::IssuerRules| {
        let life = said.lifetime.ok_or_else(|| {
            Error::new(Kind::Invalid, "the new rules take the place of all old ones, and name no lifetime")
                .hint("read the issuer, change its rules, and send all of them")
        })?;
        rules(said, life)
    };
    let update = IssuerUpdate { enabled, rules: said.map(complete).transpose()? };
    let name = call.issuer()?;
    let issuer = call.service.update_issuer(&call.caller, &name, Some(&etag), update, &call.idempotency).await?;
    issuer.try_map(|issuer| reply(&call, &issuer))
}

pub(super) async fn rotate(call: Call, body: wire::RotateIssuer) -> Result<Released<Reply<wire::Issuer>>> {
    let wire::RotateIssuer { expected_version } = body;
    let name = call.issuer()?;
    let issuer = call.service.rotate_issuer(&call.caller, &name, expected_version, &call.idempotency).await?;
    issuer.try_map(|issuer| reply(&call, &issuer))
}

pub(super) async fn activate(call: Call, body: wire::ActivateIssuer) -> Result<Released<Reply<wire::Issuer>>> {
    let wire::ActivateIssuer { version } = body;
    let name = call.issuer()?;
    let issuer = call.service.activate_issuer(&call.caller, &name, version, &call.idempotency).await?;
    issuer.try_map(|issuer| reply(&call, &issuer))
}

pub(super) async fn import(call: Call, body: wire::ImportIssuer) -> Result<Released<Reply<wire::Issuer>>> {
    let wire::ImportIssuer { chain } = body;
    let chain = pem::certificates(&chain)?.iter().map(|der| Certificate::parse(der)).collect::<Result<_>>()?;
    let name = call.issuer()?;
    let issuer = call.service.import_issuer(&call.caller, &name, chain, &call.idempotency).await?;
    issuer.try_map(|issuer| reply(&call, &issuer))
}

pub(super) async fn cross_sign(call: Call, body: wire::CrossSign) -> Result<Released<Reply<wire::Issuer>>> {
    let wire::CrossSign { signer } = body;
    let name = call.issuer()?;
    let issuer = call.service.cross_sign(&call.caller, &name, &signer, &call.idempotency).await?;
    issuer.try_map(|issuer| reply(&call, &issuer))
}

fn rules(rules: wire::IssuerRules, life: Period) -> Result<IssuerRules> {
    let wire::IssuerRules {
        lifetime,
        path_length,
        permitted,
        excluded,
        policies,
        distribution,
        rollover,
        manual_rollover,
    } = rules;
    if rollover.is_some() && manual_rollover {
        return Err(Error::new(Kind::Invalid, "a rollover is by itself or by hand").hint("leave one of both out"));
    }
    let trees = |texts: &[String]| texts.iter().map(|text| text.parse()).collect::<Result<Vec<_>>>();
    let policy = |text: &String| {
        text.parse().map_err(|_| {
            Error::new(Kind::Invalid, "a policy is an object identifier").hint("written as 1.3.6.1.4.1.99999.1")
        })
    };
    Ok(IssuerRules {
        lifetime: lifetime.unwrap_or(life),
        powers: Authority {
            path_length,
            constraints: NameConstraints { permitted: trees(&permitted)?, excluded: trees(&excluded)? },
        },
        policies: policies.iter().map(policy).collect::<Result<_>>()?,
        distribution,
        rollover: if manual_rollover { None } else { Some(rollover.unwrap_or_else(Rollover::default)) },
    })
}

fn reply(call: &Call, issuer: &Arc<Issuer>) -> Result<Reply<wire::Issuer>> {
    let words = words(call, issuer)?;
    let etag = words.etag.clone();
    Ok(Reply::from(words).etag(&etag))
}

/// An issuer in the words of the API. The ETag stands without its quotes, which belong to the header.
fn words(call: &Call, issuer: &Issuer) -> Result<wire::Issuer> {
    let record = &issuer.record;
    let (parent, outside) = match &record.parent {
        Parent::Itself => (None, false),
        Parent::Issuer(parent) => (Some(parent.clone()), false),
        Parent::Outside => (None, true),
    };
    let issues = |version: &&IssuerVersion| version.record.state == IssuerState::Active && !fell(call, issuer, version);
    let active = issuer.versions().iter().find(issues);
    Ok(wire::Issuer {
        name: record.name.clone(),
        subject: record.subject.to_string(),
        parent,
        outside,
        algorithm: record.algorithm,
        device: record.device.clone(),
        enabled: record.enabled,
        active: active.map(|version| version.record.version),
        rules: rules_in_words(&record.rules),
        versions: issuer.versions().iter().map(|one| version(call, issuer, one)).collect::<Result<_>>()?,
        created: record.created,
        etag: issuer.etag().trim_matches('"').to_owned(),
    })
}

fn rules_in_words(rules: &IssuerRules) -> wire::IssuerRules {
    let IssuerRules { lifetime, powers: Authority { path_length, constraints }, policies, distribution, rollover } =
        rules;
    let texts = |trees: &[crate::x509::Subtree]| trees.iter().map(ToString::to_string).collect();
    wire::IssuerRules {
        lifetime: Some(*lifetime),
        path_length: *path_length,
        permitted: texts(&constraints.permitted),
        excluded: texts(&constraints.excluded),
        policies: policies.iter().map(ToString::to_string).collect(),
        distribution: distribution.clone(),
        rollover: *rollover,
        manual_rollover: rollover.is_none(),
    }
}

/// Whether the key of a version is compromised, which is worse than whatever else its state is.
fn fell(call: &Call, issuer: &Issuer, version: &IssuerVersion) -> bool {
    call.service.authority().fell(&issuer.record.name, version.record.version).is_some()
}

fn version(call: &Call, issuer: &Issuer, version: &IssuerVersion) -> Result<wire::IssuerVersion> {
    let (record, certificate) = (&version.record, version.certificate().ok());
    let state = if fell(call, issuer, version) { "compromised" } else { record.state.as_str() };
    let chain = call.service.authority().chain(&issuer.record.name, record.version).unwrap_or_default();
    let cross: Vec<_> = record.cross.iter().map(|der| der.0.clone()).collect();
    Ok(wire::IssuerVersion {
        version: record.version,
        state: state.to_string(),
        created: record.created,
        activated: record.activated,
        retired: record.retired,
        certificate: certificate.map(Certificate::to_pem).transpose()?,
        chain: pem::chain(chain.get(1..).unwrap_or_default())?,
        cross: pem::chain(&cross)?,
        not_before: certificate.map(|one| one.validity().not_before),
        not_after: certificate.map(|one| one.validity().not_after),
        request: record.request.as_ref().map(|der| pem::request(&der.0)).transpose()?,
    })
}
