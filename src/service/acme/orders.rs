//! Orders: names, proofs, and the certificate at the end.

use std::sync::Arc;

use super::{
    Account, ChallengeKind, ChallengeState, Endpoint, Id, Identifier, Opened, Order, OrderState, ProblemKind, Recorded,
    Subproblem, only_own, put, refuse,
};
use crate::admission::{Details, Permit, Released};
use crate::ca::acme::{CertificateId, Holding, NewOrder, Quota, caa, refuse_names};
use crate::error::{Error, Kind, Result};
use crate::policy::{Facts, Target};
use crate::service::Service;
use crate::store::{Change, Expected, Record};
use crate::types::operation::UseAcme;
use crate::types::{Action, Algorithm, Caller, Resource};
use crate::x509::{Csr, San};

/// How many old orders are removed by one commit.
const TIDIED_AT_ONCE: usize = 500;

/// What a client orders.
#[derive(Clone, Debug)]
pub struct OrderWish {
    /// The names.
    pub identifiers: Vec<Identifier>,
    /// The profile, by the name that the directory gives.
    pub profile: Option<String>,
    /// The certificate that is to be replaced.
    pub replaces: Option<CertificateId>,
}

/// The certificate that an order replaces.
struct Predecessor {
    path: String,
    holding: Holding,
    revision: u64,
    /// Whether the order is its renewal, and goes first.
    renewal: bool,
}

impl Service {
    /// Makes an order.
    ///
    /// # Errors
    /// `rejectedIdentifier` with the names that no policy permits, `invalidProfile`, `alreadyReplaced`, `rateLimited`.
    pub async fn acme_new_order(&self, opened: &Opened, wish: OrderWish) -> Result<Released<Order>> {
        let (account, caller) = opened.account()?;
        let permit = self.acme_admit(caller, &opened.endpoint).await?;
        let result = self.acme_make_order(&permit, &opened.endpoint, account, caller, wish).await;
        let details = match &result {
            Ok(order) => of(order, "order made"),
            Err(_) => Details::default().fact("acme", "order refused"),
        };
        permit.close(result, details).await
    }

    async fn acme_make_order(
        &self,
        permit: &Permit<UseAcme>,
        endpoint: &Endpoint,
        account: &Account,
        caller: &Caller,
        wish: OrderWish,
    ) -> Result<Order> {
        let OrderWish { identifiers, profile, replaces } = wish;
        let now = self.parts.ledger.clock().now();
        let profile = endpoint.profile(profile.as_deref()).cloned();
        let profile = profile.ok_or_else(|| refuse(ProblemKind::InvalidProfile, "the endpoint has no such profile"))?;
        let replaced = match &replaces {
            Some(id) => Some(self.acme_predecessor(endpoint, account, id, &identifiers).await?),
            None => None,
        };
        // A renewal is not counted: RFC 9773, 5 says that it should go first.
        if !replaced.as_ref().is_some_and(|predecessor| predecessor.renewal) {
            self.parts.acme.quotas.take(Quota::ORDERS, &account.id.to_string(), now)?;
        }
        let new = NewOrder { identifiers, profile, replaces };
        let order = Order::new(endpoint, account.id, new, now)?;
        self.acme_permitted(endpoint, caller, &order)?;
        let path = Order::path(&endpoint.name, account.id, order.id);
        let mut changes = vec![put(path, Expected::Absent, &order)?];
        if let Some(Predecessor { path, mut holding, revision, renewal: _ }) = replaced {
            holding.replaced_by = Some(order.id);
            changes.push(put(path, Expected::Revision(revision), &holding)?);
        }
        self.acme_commit(permit, &of(&order, "order made"), changes).await?;
        self.parts.metrics.acme_ordered();
        Ok(order)
    }

    /// The certificate that an order replaces: the account's own, with a name of the order, and without a successor.
    async fn acme_predecessor(
        &self,
        endpoint: &Endpoint,
        account: &Account,
        id: &CertificateId,
        identifiers: &[Identifier],
    ) -> Result<Predecessor> {
        let unknown = || refuse(ProblemKind::Malformed, "the certificate to be replaced is not one of this account");
        let path = Holding::path(&endpoint.name, &id.serial.to_string());
        let found = self.acme_read::<Holding>(path.clone()).await?;
        let (holding, revision) = found.filter(|(holding, _)| holding.account == account.id).ok_or_else(unknown)?;
        // What it says, it says itself: its order is forgotten long before it ends.
        let absent = |error: Error| if error.kind() == Kind::NotFound { unknown() } else { error };
        let (_, certificate) = self.acme_identified(endpoint, id).await.map_err(absent)?;
        if let Some(successor) = holding.replaced_by {
            let path = Order::path(&endpoint.name, account.id, successor);
            let now = self.parts.ledger.clock().now();
            let alive = self.acme_read::<Order>(path).await?.is_some_and(|(mut order, _)| {
                order.look_at(now);
                order.state != OrderState::Invalid
            });
            if alive {
                let text = "another order replaces that certificate already";
                return Err(refuse(ProblemKind::AlreadyReplaced, text));
            }
        }
        let shared = identifiers.iter().any(|name| certificate.sans().contains(&name.san()));
        if !shared {
            return Err(refuse(ProblemKind::Malformed, "the certificate to be replaced has none of these names"));
        }
        let renewal = holding.renewed_by(certificate.sans(), identifiers);
        Ok(Predecessor { path, holding, revision, renewal })
    }

    /// Whether the profile has such names, and policy would let this caller have them, with some kind of key. The permit itself is asked for
    /// when the certificate is issued; this spares everybody proofs that lead nowhere.
    fn acme_permitted(&self, endpoint: &Endpoint, caller: &Caller, order: &Order) -> Result<()> {
        let (policies, now) = (self.parts.admission.policies(), self.parts.ledger.clock().now());
        let target = Target::named(Resource::Issuer(endpoint.issuer.clone()));
        let profile = self.parts.authority.profile(&order.profile)?.profile;
        let allowed = |name: &Identifier| {
            let name = name.san().to_string();
            Algorithm::ALL.iter().any(|algorithm| {
                let facts = Facts {
                    algorithm: Some(*algorithm),
                    profile: Some(&order.profile),
                    name: Some(&name),
                    // What the request for the certificate may add is not known yet.
                    subject: Some(&profile.subject.fixed),
                    time: Some(now),
                    ..Facts::default()
                };
                policies.decide(caller, Action::IssueCertificate, &target, &facts).allow
            })
        };
        let known = |name: &Identifier| {
            let san = name.san();
            (profile.wildcards || !name.wildcard()) && profile.names.iter().any(|pattern| pattern.matches(&san))
        };
        let refused: Vec<_> = order
            .identifiers
            .iter()
            .filter_map(|name| {
                let detail = match (allowed(name), known(name)) {
                    (true, true) => return None,
                    (true, false) => format!("the profile {} has no certificates for {name}", order.profile.name),
                    (false, _) => format!("no policy permits a certificate for {name}"),
                };
                let problem = Recorded { kind: ProblemKind::RejectedIdentifier, detail };
                Some(Subproblem { identifier: name.clone(), problem })
            })
            .collect();
        if refused.is_empty() {
            return Ok(());
        }
        Err(refuse_names(ProblemKind::RejectedIdentifier, "no certificate is issued for some of these names", refused))
    }

    /// Reads an order. What was interrupted goes on: a proof that nobody is looking for, a certificate that was not issued yet.
    ///
    /// # Errors
    /// `NotFound`, also for an order of another account.
    pub async fn acme_order(self: &Arc<Self>, opened: &Opened, id: Id, account_url: &str) -> Result<Released<Order>> {
        let (account, caller) = opened.account()?;
        let permit = self.acme_admit(caller, &opened.endpoint).await?;
        let result = async {
            let (mut order, _) = self.acme_load(&opened.endpoint, account, id).await?;
            if order.state == OrderState::Processing {
                let turn = self.parts.acme.turns.of(&id);
                // Whoever holds the turn is issuing it; whoever held it may have come to its end.
                if let Ok(_turn) = turn.try_lock() {
                    let (now, revision) = self.acme_load(&opened.endpoint, account, id).await?;
                    order = self.acme_issue(&permit, &opened.endpoint, caller, now, revision).await?;
                }
            }
            self.acme_look_again(opened, &order, account_url)?;
            Ok(order)
        };
        let result = result.await;
        permit.close(result, Details::default().fact("acme", "order read").fact("order", id)).await
    }

    /// The orders of the account with that id, newest last.
    ///
    /// # Errors
    /// `unauthorized` where another account has signed; where the store cannot be read.
    pub async fn acme_orders(&self, opened: &Opened, id: Id) -> Result<Released<Vec<Id>>> {
        let (account, caller) = opened.account()?;
        let permit = self.acme_admit(caller, &opened.endpoint).await?;
        let orders = async {
            only_own(account, id)?;
            let mut orders = self.acme_scan::<Order>(Order::folder(&opened.endpoint.name, account.id)).await?;
            orders.sort_by_key(|order| order.created);
            let now = self.parts.ledger.clock().now();
            orders.iter_mut().for_each(|order| order.look_at(now));
            // "SHOULD include pending orders and SHOULD NOT include orders that are invalid"
            Ok(orders.iter().filter(|order| order.state != OrderState::Invalid).map(|order| order.id).collect())
        };
        let orders = orders.await;
        permit.close(orders, Details::default().fact("acme", "orders read")).await
    }

    async fn acme_load(&self, endpoint: &Endpoint, account: &Account, id: Id) -> Result<(Order, u64)> {
        let none = || Error::new(Kind::NotFound, "there is no such order");
        let found = self.acme_read::<Order>(Order::path(&endpoint.name, account.id, id)).await?;
        let (mut order, revision) = found.ok_or_else(none)?;
        order.look_at(self.parts.ledger.clock().now());
        Ok((order, revision))
    }

    async fn acme_store(
        &self,
        permit: &Permit<UseAcme>,
        endpoint: &Endpoint,
        order: &Order,
        revision: u64,
        what: &'static str,
    ) -> Result<u64> {
        let path = Order::path(&endpoint.name, order.account, order.id);
        let change = put(path, Expected::Revision(revision), order)?;
        self.acme_commit(permit, &of(order, what), vec![change]).await
    }

    /// Gives up the authorization with that number.
    ///
    /// # Errors
    /// `NotFound`; `malformed` where it has ended.
    pub async fn acme_deactivate(&self, opened: &Opened, id: Id, number: usize) -> Result<Released<Order>> {
        let (account, caller) = opened.account()?;
        let permit = self.acme_admit(caller, &opened.endpoint).await?;
        let result = async {
            let turn = self.parts.acme.turns.of(&id);
            let _turn = turn.lock().await;
            let (mut order, revision) = self.acme_load(&opened.endpoint, account, id).await?;
            order.deactivate(number)?;
            self.acme_store(&permit, &opened.endpoint, &order, revision, "authorization deactivated").await?;
            Ok(order)
        };
        let result = result.await;
        permit.close(result, Details::default().fact("acme", "authorization deactivated").fact("order", id)).await
    }

    /// The client says that a proof is there: it is looked for from now on.
    ///
    /// # Errors
    /// `NotFound`; `malformed` where it is too late; `rateLimited` after too many failures.
    pub async fn acme_answer(
        self: &Arc<Self>,
        opened: &Opened,
        id: Id,
        number: usize,
        kind: ChallengeKind,
        account_url: &str,
    ) -> Result<Released<Order>> {
        let (account, caller) = opened.account()?;
        let permit = self.acme_admit(caller, &opened.endpoint).await?;
        let result = async {
            let turn = self.parts.acme.turns.of(&id);
            let _turn = turn.lock().await;
            let (mut order, revision) = self.acme_load(&opened.endpoint, account, id).await?;
            let now = self.parts.ledger.clock().now();
            let whom = failure_key(account, &order.authorization(number)?.identifier);
            if order.answer(number, kind)? {
                // What is looked for counts as not found until it is: else many orders at once would have as many tries.
                self.parts.acme.quotas.take(Quota::FAILURES, &whom, now)?;
                self.acme_store(&permit, &opened.endpoint, &order, revision, "challenge answered").await?;
            }
            self.acme_look_again(opened, &order, account_url)?;
            Ok(order)
        };
        let result = result.await;
        permit.close(result, Details::default().fact("acme", "challenge answered").fact("order", id)).await
    }

    /// Looks for the proofs that are to be looked for and that nobody looks for, as many as there is room for: the others' turn comes
    /// when somebody asks after them.
    fn acme_look_again(self: &Arc<Self>, opened: &Opened, order: &Order, account_url: &str) -> Result<()> {
        let (account, caller) = opened.account()?;
        for (number, authorization) in order.authorizations.iter().enumerate() {
            for challenge in authorization.challenges.iter().filter(|one| one.state == ChallengeState::Processing) {
                if self.parts.acme.begin((account.id, order.id, number, challenge.kind)) {
                    let look = Look {
                        service: self.clone(),
                        endpoint: opened.endpoint.clone(),
                        account: account.clone(),
                        account_url: account_url.to_owned(),
                        caller: caller.clone(),
                        order: order.id,
                        number,
                        kind: challenge.kind,
                    };
                    tokio::spawn(look.go());
                }
            }
        }
        Ok(())
    }

    /// Takes the request for the certificate and issues it. Whoever comes second finds the order finalized.
    ///
    /// # Errors
    /// `badCSR`, `orderNotReady`.
    pub async fn acme_finalize(&self, opened: &Opened, id: Id, csr: Vec<u8>) -> Result<Released<Order>> {
        let (account, caller) = opened.account()?;
        let permit = self.acme_admit(caller, &opened.endpoint).await?;
        let result = async {
            let turn = self.parts.acme.turns.of(&id);
            let _turn = turn.lock().await;
            let (mut order, revision) = self.acme_load(&opened.endpoint, account, id).await?;
            if order.state == OrderState::Ready {
                check_csr(&csr, &order, account)?;
            }
            order.finalize(csr)?;
            let revision = self.acme_store(&permit, &opened.endpoint, &order, revision, "order finalized").await?;
            self.acme_issue(&permit, &opened.endpoint, caller, order, revision).await
        };
        let result = result.await;
        let details = match &result {
            Ok(order) => of(order, "order finalized"),
            Err(_) => Details::default().fact("acme", "order finalized").fact("order", id),
        };
        permit.close(result, details).await
    }

    /// Removes orders that ended long ago. Nothing but orders is opened: accounts and what they hold are kept for ever.
    ///
    /// # Errors
    /// Where the store cannot be read or written.
    pub async fn acme_tidy(&self) -> Result<()> {
        let oldest = self.parts.ledger.clock().now().checked_sub(Order::KEEP).unwrap_or(jiff::Timestamp::MIN);
        for endpoint in self.acme_endpoints("acme/".to_owned()).await? {
            let store = self.parts.ledger.store();
            let old = super::blocking(move || {
                let records = store.scan(&Order::folder_of_all(&endpoint.name))?;
                let old =
                    |record: &Record| super::parse::<Order>(record).is_ok_and(|(order, _)| order.expires < oldest);
                Ok(records.into_iter().filter(old).map(|record| record.path).collect::<Vec<_>>())
            });
            for some in old.await?.chunks(TIDIED_AT_ONCE) {
                let removal = |path: &String| Change { path: path.clone(), expected: Expected::Any, value: None };
                let leaf = self.parts.admission.record_tidying("forget-orders");
                self.parts.ledger.commit(leaf, some.iter().map(removal).collect()).await?;
            }
        }
        Ok(())
    }
}

/// A look for one proof, on behalf of whoever said that it is there.
struct Look {
    service: Arc<Service>,
    endpoint: Endpoint,
    account: Account,
    account_url: String,
    caller: Caller,
    order: Id,
    number: usize,
    kind: ChallengeKind,
}

impl Look {
    async fn go(self) {
        if let Err(error) = self.look().await {
            // It is looked for again when the order is read.
            tracing::warn!(cause = error.chain(), "the end of a challenge could not be recorded");
        }
        self.service.parts.acme.end((self.account.id, self.order, self.number, self.kind));
    }

    async fn look(&self) -> Result<()> {
        let Self { service, endpoint, account, account_url, caller, order: id, number, kind } = self;
        let (order, _) = service.acme_load(endpoint, account, *id).await?;
        let authorization = order.authorization(*number)?;
        let proof = order.challenge(*number, *kind)?.proof(&account.key.thumbprint);
        let validator = &service.parts.acme.validator;
        let identifier = &authorization.identifier;
        let caa = !endpoint.caa.is_empty();
        let found = validator.check(&identifier.host(), &proof, &endpoint.networks, caa).await;
        let found = found
            .map_err(Recorded::from)
            .and_then(|records| caa::permit(&records, &endpoint.caa, authorization.wildcard, account_url, *kind));
        // A service that goes down writes nothing more; the next one looks again.
        if service.draining.load(std::sync::atomic::Ordering::Relaxed) {
            return Ok(());
        }
        let permit = service.acme_admit(caller, endpoint).await?;
        let what = if found.is_ok() { "proof found" } else { "proof not found" };
        let why = found.as_ref().err().map(|problem| problem.detail.clone()).unwrap_or_default();
        let result = async {
            let turn = service.parts.acme.turns.of(id);
            let _turn = turn.lock().await;
            let (mut order, revision) = service.acme_load(endpoint, account, *id).await?;
            let now = service.parts.ledger.clock().now();
            let proven = found.is_ok();
            let outcome = found.as_ref().err().map_or("valid", |problem| problem.kind.as_str());
            // A look that comes second finds the challenge at its end, and does not count.
            if order.conclude(*number, *kind, found, now) {
                if proven {
                    service.parts.acme.quotas.give_back(Quota::FAILURES, &failure_key(account, identifier));
                }
                service.acme_store(&permit, endpoint, &order, revision, what).await?;
                service.parts.metrics.acme_validated(kind.as_str(), outcome);
            }
            Ok(())
        };
        let result = result.await;
        let details = Details::default().fact("acme", what).fact("order", id).fact("name", identifier).fact("why", why);
        permit.close(result, details).await.map(Released::into_inner)
    }
}

fn failure_key(account: &Account, name: &Identifier) -> String {
    format!("{} {name}", account.id)
}

/// "The CSR MUST indicate the exact same set of requested identifiers as the initial newOrder request"
/// ([RFC 8555, 7.4](https://www.rfc-editor.org/rfc/rfc8555#section-7.4)).
fn check_csr(der: &[u8], order: &Order, account: &Account) -> Result<()> {
    let bad = |text: String| refuse(ProblemKind::BadCsr, text);
    let csr = Csr::parse(der).map_err(|e| bad(e.public().to_owned()))?;
    let mut names: Vec<San> = csr.sans().to_vec();
    if let Some(name) = csr.lone_common_name() {
        names.push(San::dns(name).map_err(|_| bad("the common name is none of the names of the order".to_owned()))?);
    }
    names.sort();
    names.dedup();
    let mut wanted: Vec<San> = order.identifiers.iter().map(Identifier::san).collect();
    wanted.sort();
    if names != wanted {
        return Err(bad("the request does not have exactly the names of the order".to_owned()));
    }
    if csr.wants_ca() {
        return Err(bad("the request is one of an authority".to_owned()));
    }
    // "The server … SHOULD … refuse … a CSR whose public key is an account key" (RFC 8555, 11.1)
    if csr.public_key() == &account.key.public {
        return Err(bad("the key of an account is never certified".to_owned()));
    }
    Ok(())
}

pub(super) fn of(order: &Order, what: &'static str) -> Details {
    let names: Vec<_> = order.identifiers.iter().map(ToString::to_string).collect();
    let names: String = names.join(" ").chars().take(1000).collect();
    Details::default()
        .fact("acme", what)
        .fact("order", order.id)
        .fact("account", order.account)
        .fact("state", order.state)
        .fact("serial", order.certificate.as_deref().unwrap_or_default())
        .fact("names", names)
}
