//! ACME: who asks is who signed the request, and on whose behalf is what the endpoint or the account's binding says.
//!
//! Each request is opened here: form, address, nonce, signature, account. What is opened has a caller, and goes on like every
//! other operation: admit, act, close. What policies decide for it is `UseAcme`, which everybody may who has an account, and
//! `IssueCertificate` for each name, asked as the account's identity when an order is made and again when it is finalized.

mod accounts;
mod bindings;
mod certificates;
mod endpoints;
mod orders;

pub use crate::ca::acme::{
    Account, AccountState, Authorization, AuthorizationState, Challenge, ChallengeKind, ChallengeState, Contacts,
    EabKey, Endpoint, Id, Identifier, Order, OrderState, Problem, ProblemKind, Recorded, Speaker, Subproblem, refuse,
};
pub use crate::validation::Networks;
pub use accounts::{AccountWish, NewAccount};
pub use bindings::NewEabKey;
pub use certificates::Revocation;
pub use orders::OrderWish;
use orders::of;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Service;
use crate::admission::{Details, Permit, Released};
use crate::audit::Phase;
use crate::ca::acme::{Nonces, Quotas};
use crate::error::{Error, Kind, Result};
use crate::jose::{Jws, KeyReference, SignerKey};
use crate::store::{Change, Expected};
use crate::types::operation::{Operation, UseAcme};
use crate::types::{Caller, Credential, EndpointName, Principal, Resource, Turns, blocking};
use crate::validation::Validator;

/// What ACME keeps in memory.
#[derive(Debug)]
pub struct Desk {
    nonces: Nonces,
    quotas: Quotas,
    validator: Validator,
    /// Whoever holds the turn of an order may change it: held from its reading to the commit, and while its certificate is issued.
    turns: Turns<Id>,
    /// Held while an account is made or gets another key, so that one key is one account, and a binding is used once.
    enrolling: tokio::sync::Mutex<()>,
    /// The proofs that are being looked for. Held for one look at the table.
    looking: Mutex<HashSet<Sought>>,
}

/// A proof that is looked for: account, order, number of the authorization, and kind.
type Sought = (Id, Id, usize, ChallengeKind);

/// How many proofs are looked for at once.
pub const LOOKS: usize = 256;
/// How many of them for one account.
pub const LOOKS_OF_ACCOUNT: usize = 32;

impl Desk {
    /// An empty desk.
    ///
    /// # Errors
    /// [`Kind::Internal`] where the generator of random bytes fails.
    pub fn new(validator: Validator) -> Result<Self> {
        Ok(Self {
            nonces: Nonces::new()?,
            quotas: Quotas::default(),
            validator,
            turns: Turns::default(),
            enrolling: tokio::sync::Mutex::default(),
            looking: Mutex::default(),
        })
    }
}

/// A signed request as it came.
#[derive(Clone, Debug)]
pub struct SignedRequest<'a> {
    /// To which endpoint.
    pub endpoint: &'a EndpointName,
    /// The body.
    pub body: &'a [u8],
    /// Its own address, as the service is known outside.
    pub url: &'a str,
    /// What stands before the ids of accounts in their addresses.
    pub accounts: &'a str,
    /// From where.
    pub address: Option<IpAddr>,
    /// The request.
    pub request_id: Arc<str>,
    /// Method and route, for the record of a refusal.
    pub what: &'a str,
    /// Who may have signed it.
    pub signer: WhoSigns,
}

/// Who may sign a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhoSigns {
    /// An account.
    Account,
    /// A key that says so itself.
    Key,
    /// One or the other.
    Either,
}

/// A request whose signature holds.
#[derive(Debug)]
pub struct Opened {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Who signed it.
    pub signer: Signer,
    /// What was signed.
    pub payload: Vec<u8>,
    /// From where.
    pub address: Option<IpAddr>,
    /// The request.
    pub request_id: Arc<str>,
}

/// Who signed a request.
#[derive(Debug)]
pub enum Signer {
    /// An account that is alive.
    Account(Box<Account>, Caller),
    /// A key of which nothing else is known yet.
    Key(Box<SignerKey>),
}

impl Opened {
    /// The account that signed, and its caller.
    ///
    /// # Errors
    /// [`Kind::Internal`] on routes where a key may sign.
    pub fn account(&self) -> Result<(&Account, &Caller)> {
        match &self.signer {
            Signer::Account(account, caller) => Ok((account, caller)),
            Signer::Key(_) => Err(Error::internal("a route for accounts was opened by a key")),
        }
    }
}

impl Service {
    /// A nonce for the next request of a client.
    #[must_use]
    pub fn acme_nonce(&self) -> String {
        self.parts.acme.nonces.draw()
    }

    /// The endpoint with that name, for everybody: its directory is public.
    ///
    /// # Errors
    /// [`Kind::NotFound`].
    pub async fn acme_endpoint(&self, name: &EndpointName) -> Result<Endpoint> {
        let found: Option<(Endpoint, _)> = self.acme_read(Endpoint::path(name)).await?;
        found.map(|(endpoint, _)| endpoint).ok_or_else(|| no_endpoint(name))
    }

    /// Opens a request: its nonce is gone, whatever becomes of it. A refusal is recorded before it is answered.
    ///
    /// # Errors
    /// What ACME has a word for, each with its problem as the cause.
    pub async fn acme_open(&self, request: SignedRequest<'_>) -> Result<Opened> {
        match self.acme_examine(&request).await {
            Ok(opened) => Ok(opened),
            Err(error) => {
                let address = request.address.map(|address| address.to_string()).unwrap_or_default();
                let admission = &self.parts.admission;
                admission.unauthenticated(&request.request_id, &address, request.what, &error).await?;
                Err(error)
            }
        }
    }

    async fn acme_examine(&self, request: &SignedRequest<'_>) -> Result<Opened> {
        let endpoint = self.acme_endpoint(request.endpoint).await?;
        let jws = Jws::parse(request.body)?;
        // "the server MUST … check … that the "url" field of the JWS … matches", or answer with "unauthorized"
        if jws.url != request.url {
            let text = "the url that was signed is not that of the request";
            return Err(refuse(ProblemKind::Unauthorized, text));
        }
        let nonce = jws.nonce.as_deref().ok_or_else(|| refuse(ProblemKind::BadNonce, "the request has no nonce"))?;
        self.parts.acme.nonces.take(nonce)?;
        let (address, request_id) = (request.address, request.request_id.clone());
        let (signer, payload) = match (&jws.key, request.signer) {
            (KeyReference::Own(key), WhoSigns::Key | WhoSigns::Either) => {
                (Signer::Key(Box::new(key.clone())), jws.verify(key)?.to_vec())
            }
            (KeyReference::Named(kid), WhoSigns::Account | WhoSigns::Either) => {
                let account = self.acme_named(&endpoint.name, request.accounts, kid).await?;
                // First the signature: what an account is, is told to whoever has its key.
                let payload = jws.verify(&account.key)?.to_vec();
                account.alive()?;
                let caller = self.acme_caller(&endpoint, &account, address, &request_id).await?;
                (Signer::Account(Box::new(account), caller), payload)
            }
            (KeyReference::Own(_), WhoSigns::Account) => {
                return Err(refuse(ProblemKind::Malformed, "this request is signed by an account: send kid, not jwk"));
            }
            (KeyReference::Named(_), WhoSigns::Key) => {
                return Err(refuse(ProblemKind::Malformed, "this request is signed by a new key: send jwk, not kid"));
            }
        };
        Ok(Opened { endpoint, signer, payload, address, request_id })
    }

    /// The account that a `kid` names.
    async fn acme_named(&self, endpoint: &EndpointName, accounts: &str, kid: &str) -> Result<Account> {
        let none = || refuse(ProblemKind::AccountDoesNotExist, "there is no such account");
        let id: Id = kid.strip_prefix(accounts).and_then(|id| id.parse().ok()).ok_or_else(none)?;
        let found: Option<(Account, _)> = self.acme_read(Account::path(endpoint, id)).await?;
        found.map(|(account, _)| account).ok_or_else(none)
    }

    /// On whose behalf an account asks.
    async fn acme_caller(
        &self,
        endpoint: &Endpoint,
        account: &Account,
        address: Option<IpAddr>,
        request_id: &Arc<str>,
    ) -> Result<Caller> {
        let speaker = match (&account.bound_by, &endpoint.open_to) {
            (Some(id), _) => {
                let key: Option<(EabKey, _)> = self.acme_read(EabKey::path(&endpoint.name, *id)).await?;
                let (key, _) = key
                    .filter(|(key, _)| key.revoked.is_none())
                    .ok_or_else(|| refuse(ProblemKind::Unauthorized, "the key that bound this account was revoked"))?;
                key.speaker
            }
            (None, Some(speaker)) => speaker.clone(),
            (None, None) => {
                let text = "this endpoint asks for an external account binding now, and the account has none";
                return Err(refuse(ProblemKind::ExternalAccountRequired, text));
            }
        };
        let credential = Credential::AcmeAccount(account.id.to_string());
        Ok(caller(speaker, credential, address, request_id))
    }

    async fn acme_admit(&self, caller: &Caller, endpoint: &Endpoint) -> Result<Permit<UseAcme>> {
        self.admit(caller, Resource::AcmeEndpoint(endpoint.name.clone())).await
    }

    /// Records a refusal and answers it: one of the account, or of nobody where a key has signed that is none.
    async fn acme_refuse<T>(&self, opened: &Opened, what: &'static str, error: Error) -> Result<T> {
        match &opened.signer {
            Signer::Account(_, caller) => {
                let permit = self.acme_admit(caller, &opened.endpoint).await?;
                permit.close(Err(error), Details::default().fact("acme", what)).await.map(Released::into_inner)
            }
            Signer::Key(_) => {
                let address = opened.address.map(|address| address.to_string()).unwrap_or_default();
                let what = format!("{what} at acme-endpoint/{}", opened.endpoint.name);
                self.parts.admission.unauthenticated(&opened.request_id, &address, &what, &error).await?;
                Err(error)
            }
        }
    }

    /// A record, and its revision.
    async fn acme_read<T: DeserializeOwned + Send + 'static>(&self, path: String) -> Result<Option<(T, u64)>> {
        let store = self.parts.ledger.store();
        blocking(move || store.get(&path)?.map(|record| parse(&record)).transpose()).await
    }

    /// All records of a folder.
    async fn acme_scan<T: DeserializeOwned + Send + 'static>(&self, folder: String) -> Result<Vec<T>> {
        let store = self.parts.ledger.store();
        blocking(move || store.scan(&folder)?.iter().map(|record| Ok(parse(record)?.0)).collect()).await
    }

    async fn acme_commit<O: Operation>(
        &self,
        permit: &Permit<O>,
        details: &Details,
        changes: Vec<Change>,
    ) -> Result<u64> {
        self.parts.ledger.commit(permit.record(Phase::Change, details), changes).await
    }
}

fn caller(speaker: Speaker, credential: Credential, address: Option<IpAddr>, request_id: &Arc<str>) -> Caller {
    let Speaker { identity, groups } = speaker;
    Caller { principal: Principal::Identity(identity), groups, credential, address, request_id: request_id.clone() }
}

/// Only an account itself may look at it.
fn only_own(account: &Account, id: Id) -> Result<()> {
    if account.id == id { Ok(()) } else { Err(refuse(ProblemKind::Unauthorized, "this is another account")) }
}

fn no_endpoint(name: &EndpointName) -> Error {
    Error::new(Kind::NotFound, format!("there is no ACME endpoint {name}"))
}

fn put(path: String, expected: Expected, value: &impl Serialize) -> Result<Change> {
    let value = serde_json::to_vec(value).map_err(|e| Error::internal(format!("{path}: {e}")))?;
    Ok(Change { path, expected, value: Some(value) })
}

fn parse<T: DeserializeOwned>(record: &crate::store::Record) -> Result<(T, u64)> {
    let value = serde_json::from_slice(&record.value)
        .map_err(|e| Error::new(Kind::Tampered, format!("the record {} cannot be read", record.path)).because(e))?;
    Ok((value, record.revision))
}

/// Of an address, what its quota is counted by: networks of 64 bits are handed out to one host.
fn origin(address: Option<IpAddr>) -> String {
    match address {
        None => String::new(),
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => hex::encode(address.octets().get(..8).unwrap_or_default()),
    }
}

impl Desk {
    /// Whether a proof is to be looked for now: not where somebody does, and not where as many as may be are.
    fn begin(&self, sought: Sought) -> bool {
        let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let of_account = looking.iter().filter(|other| other.0 == sought.0).count();
        looking.len() < LOOKS && of_account < LOOKS_OF_ACCOUNT && looking.insert(sought)
    }

    fn end(&self, sought: Sought) {
        self.looking.lock().unwrap_or_else(PoisonError::into_inner).remove(&sought);
    }
}
