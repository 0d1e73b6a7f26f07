//! What clients sign: the payloads, read into types.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::Result;
use crate::jose::strict;
use crate::service::acme::{AccountWish, Contacts, Identifier, NewAccount, OrderWish, ProblemKind, Revocation, refuse};

/// As [RFC 8555, 6.4](https://www.rfc-editor.org/rfc/rfc8555#section-6.4) wants it, members that are not known are not looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AccountBody {
    contact: Option<Vec<String>>,
    #[serde(default)]
    terms_of_service_agreed: bool,
    #[serde(default)]
    only_return_existing: bool,
    external_account_binding: Option<Map<String, Value>>,
    status: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OrderBody {
    identifiers: Vec<IdentifierBody>,
    not_before: Option<Value>,
    not_after: Option<Value>,
    profile: Option<String>,
    replaces: Option<String>,
}

#[derive(Deserialize)]
struct IdentifierBody {
    #[serde(rename = "type")]
    kind: String,
    value: String,
}

#[derive(Deserialize)]
struct StatusBody {
    status: String,
}

#[derive(Deserialize)]
struct FinalizeBody {
    csr: String,
}

#[derive(Deserialize)]
struct RevokeBody {
    certificate: String,
    reason: Option<u64>,
}

fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T> {
    strict(payload, "the payload")
}

fn decode(text: &str, what: &'static str) -> Result<Vec<u8>> {
    let wrong = || refuse(ProblemKind::Malformed, format!("{what} is not base64url without padding"));
    URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong())
}

pub(super) fn new_account(payload: &[u8]) -> Result<NewAccount> {
    let AccountBody {
        contact,
        terms_of_service_agreed: agreed,
        only_return_existing: only_existing,
        external_account_binding: binding,
        status: _,
    } = parse(payload)?;
    Ok(NewAccount { contacts: Contacts::parse(contact.unwrap_or_default())?, agreed, only_existing, binding })
}

/// An empty payload only reads.
pub(super) fn account(payload: &[u8]) -> Result<AccountWish> {
    if payload.is_empty() {
        return Ok(AccountWish::default());
    }
    let body: AccountBody = parse(payload)?;
    // "The server SHOULD ignore any updates to … or any other fields it does not recognize": clients send the status as it is.
    let deactivate = body.status.as_deref() == Some("deactivated");
    Ok(AccountWish { contacts: body.contact.map(Contacts::parse).transpose()?, deactivate })
}

pub(super) fn order(payload: &[u8]) -> Result<OrderWish> {
    let OrderBody { identifiers, not_before, not_after, profile, replaces } = parse(payload)?;
    if not_before.is_some() || not_after.is_some() {
        let text = "the profile decides how long a certificate lives: leave notBefore and notAfter out";
        return Err(refuse(ProblemKind::Malformed, text));
    }
    let identifiers = identifiers.iter().map(|one| Identifier::parse(&one.kind, &one.value)).collect::<Result<_>>()?;
    Ok(OrderWish { identifiers, profile, replaces: replaces.map(|id| id.parse()).transpose()? })
}

/// Whether an authorization is to be given up.
pub(super) fn authorization(payload: &[u8]) -> Result<bool> {
    if payload.is_empty() {
        return Ok(false);
    }
    only_deactivated(&parse::<StatusBody>(payload)?.status).map(|()| true)
}

fn only_deactivated(status: &str) -> Result<()> {
    if status == "deactivated" {
        return Ok(());
    }
    Err(refuse(ProblemKind::Malformed, "the only status that a client can ask for is deactivated"))
}

/// Whether the proof is there; an empty payload only reads.
pub(super) fn challenge(payload: &[u8]) -> Result<bool> {
    if payload.is_empty() {
        return Ok(false);
    }
    parse::<Map<String, Value>>(payload).map(|_| true)
}

/// The CSR, in DER.
pub(super) fn finalize(payload: &[u8]) -> Result<Vec<u8>> {
    decode(&parse::<FinalizeBody>(payload)?.csr, "the csr")
}

pub(super) fn revoke(payload: &[u8]) -> Result<Revocation> {
    let RevokeBody { certificate, reason } = parse(payload)?;
    let unknown = |_| refuse(ProblemKind::BadRevocationReason, "there is no such reason");
    let reason = reason.map(|reason| u8::try_from(reason).map_err(unknown)).transpose()?;
    Ok(Revocation { certificate: decode(&certificate, "the certificate")?, reason })
}

/// What only reads has no payload at all.
pub(super) fn nothing(payload: &[u8]) -> Result<()> {
    if payload.is_empty() {
        Ok(())
    } else {
        Err(refuse(ProblemKind::Malformed, "this only reads: send an empty payload"))
    }
}

/// Reads `payload` as each of the bodies; for fuzzing.
pub fn read(payload: &[u8]) {
    let _ = (new_account(payload), account(payload), order(payload), authorization(payload), challenge(payload));
    let _ = (finalize(payload), revoke(payload), nothing(payload));
}
