//! Orders: names, the proofs that are asked for them, and the one certificate that comes of it
//! ([RFC 8555, 7.1.6](https://www.rfc-editor.org/rfc/rfc8555#section-7.1.6)).
//!
//! ```text
//! pending ──all proven──▶ ready ──CSR accepted──▶ processing ──issued──▶ valid
//!    │                      │                         │
//!    └──failed, expired, ───┴──expired, given up──────┴──refused──▶ invalid
//!       given up
//! ```

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::challenge::{Challenge, ChallengeEvent, ChallengeKind, ChallengeState};
use super::endpoint::Endpoint;
use super::problem::{ProblemKind, Recorded, Subproblem, refuse, refuse_names};
use super::{CertificateId, Id, Identifier};
use crate::error::Result;
use crate::types::{EndpointName, ProfileName, words};
use crate::x509::{San, Serial};

words! {
    /// The state of an order.
    OrderState: "state of an order" {
        /// Proofs are missing.
        Pending = "pending",
        /// All are there.
        Ready = "ready",
        /// The certificate is being issued.
        Processing = "processing",
        /// It is issued.
        Valid = "valid",
        /// Nothing will come of it.
        Invalid = "invalid",
    }
}

words! {
    /// The state of an authorization.
    AuthorizationState: "state of an authorization" {
        /// A proof is missing.
        Pending = "pending",
        /// It was found.
        Valid = "valid",
        /// It was not.
        Invalid = "invalid",
        /// Given up by its account.
        Deactivated = "deactivated",
        /// It was found too long ago.
        Expired = "expired",
    }
}

/// What happens to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OrderEvent {
    /// The last of its authorizations became valid.
    Proven,
    /// One of them came to an end.
    Failed,
    /// Its time is over.
    Expired,
    /// A CSR was accepted.
    Finalized,
    /// The certificate is issued.
    Issued,
    /// It will not be.
    Refused,
}

/// What happens to an authorization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthorizationEvent {
    /// A proof was found.
    Proven,
    /// A proof was not found.
    Failed,
    /// Its account gives it up.
    Deactivated,
    /// Its time is over.
    Expired,
}

impl OrderState {
    /// All that can happen.
    pub(super) const TABLE: &[(Self, OrderEvent, Self)] = &[
        (Self::Pending, OrderEvent::Proven, Self::Ready),
        (Self::Pending, OrderEvent::Failed, Self::Invalid),
        (Self::Pending, OrderEvent::Expired, Self::Invalid),
        (Self::Ready, OrderEvent::Failed, Self::Invalid),
        (Self::Ready, OrderEvent::Expired, Self::Invalid),
        (Self::Ready, OrderEvent::Finalized, Self::Processing),
        (Self::Processing, OrderEvent::Issued, Self::Valid),
        (Self::Processing, OrderEvent::Refused, Self::Invalid),
    ];

    fn after(self, event: OrderEvent) -> Option<Self> {
        Self::TABLE.iter().find(|(from, on, _)| (*from, *on) == (self, event)).map(|(_, _, to)| *to)
    }
}

impl AuthorizationState {
    /// All that can happen.
    pub(super) const TABLE: &[(Self, AuthorizationEvent, Self)] = &[
        (Self::Pending, AuthorizationEvent::Proven, Self::Valid),
        (Self::Pending, AuthorizationEvent::Failed, Self::Invalid),
        (Self::Pending, AuthorizationEvent::Expired, Self::Invalid),
        (Self::Pending, AuthorizationEvent::Deactivated, Self::Deactivated),
        (Self::Valid, AuthorizationEvent::Expired, Self::Expired),
        (Self::Valid, AuthorizationEvent::Deactivated, Self::Deactivated),
    ];

    fn after(self, event: AuthorizationEvent) -> Option<Self> {
        Self::TABLE.iter().find(|(from, on, _)| (*from, *on) == (self, event)).map(|(_, _, to)| *to)
    }
}

/// Whether an account controls a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorization {
    /// The name, without wildcard.
    pub identifier: Identifier,
    /// Whether it is about all names below.
    pub wildcard: bool,
    /// Its state.
    pub state: AuthorizationState,
    /// The ways to show it: one is enough.
    pub challenges: Vec<Challenge>,
}

/// An order with its authorizations. They are its own: a proof is good for one order, and as long as the order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    format: u32,
    /// Its name, the end of its address.
    pub id: Id,
    /// Whose it is.
    pub account: Id,
    /// Its state.
    pub state: OrderState,
    /// From which profile.
    pub profile: ProfileName,
    /// For which names.
    pub identifiers: Vec<Identifier>,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends, where nothing has come of it.
    pub expires: Timestamp,
    /// One for each name, in their order.
    pub authorizations: Vec<Authorization>,
    /// Which certificate it is to replace.
    pub replaces: Option<String>,
    /// Why it became invalid.
    pub error: Option<Recorded>,
    /// The request that was accepted, in DER.
    pub csr: Option<Vec<u8>>,
    /// What came of it.
    pub certificate: Option<String>,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOrder {
    /// The names.
    pub identifiers: Vec<Identifier>,
    /// The profile.
    pub profile: ProfileName,
    /// Which certificate it replaces.
    pub replaces: Option<CertificateId>,
}

/// Whose a certificate is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    format: u32,
    /// The account.
    pub account: Id,
    /// The order that it came of.
    pub order: Id,
    /// The order that replaces it.
    pub replaced_by: Option<Id>,
}

impl Order {
    /// The most names of one order.
    pub const MAX_NAMES: usize = 100;
    /// How long an order and its proofs last: as long as CAA records may be remembered
    /// ([RFC 8659, 5.6](https://www.rfc-editor.org/rfc/rfc8659)).
    pub const LIFETIME: SignedDuration = SignedDuration::from_hours(8);
    /// How long it is kept after its end.
    pub const KEEP: SignedDuration = SignedDuration::from_hours(30 * 24);

    /// A new order of `account`, with challenges for each name.
    ///
    /// # Errors
    /// `malformed` for no names, too many, or one twice; `rejectedIdentifier` for a name that no challenge of the endpoint fits.
    pub fn new(endpoint: &Endpoint, account: Id, new: NewOrder, now: Timestamp) -> Result<Self> {
        let NewOrder { identifiers, profile, replaces } = new;
        let distinct: BTreeSet<_> = identifiers.iter().collect();
        if identifiers.is_empty() || identifiers.len() > Self::MAX_NAMES || distinct.len() != identifiers.len() {
            let text = format!("an order has 1 to {} names, each once", Self::MAX_NAMES);
            return Err(refuse(ProblemKind::Malformed, text));
        }
        let unfit: Vec<_> = identifiers
            .iter()
            .filter(|name| !endpoint.challenges.iter().any(|kind| kind.fits(name)))
            .map(|name| Subproblem {
                identifier: name.clone(),
                problem: Recorded {
                    kind: ProblemKind::RejectedIdentifier,
                    detail: format!("no challenge of this endpoint can show control of {name}"),
                },
            })
            .collect();
        if !unfit.is_empty() {
            return Err(refuse_names(ProblemKind::RejectedIdentifier, "some names cannot be proven here", unfit));
        }
        let authorize = |name: &Identifier| {
            let kinds = endpoint.challenges.iter().filter(|kind| kind.fits(name));
            Ok(Authorization {
                identifier: name.base(),
                wildcard: name.wildcard(),
                state: AuthorizationState::Pending,
                challenges: kinds.map(|kind| Challenge::new(*kind)).collect::<Result<_>>()?,
            })
        };
        Ok(Self {
            format: 1,
            id: Id::random()?,
            account,
            state: OrderState::Pending,
            profile,
            authorizations: identifiers.iter().map(authorize).collect::<Result<_>>()?,
            identifiers,
            created: now,
            expires: now.checked_add(Self::LIFETIME).unwrap_or(now),
            replaces: replaces.map(|id| id.to_string()),
            error: None,
            csr: None,
            certificate: None,
        })
    }

    /// Draws what follows from the time.
    pub fn look_at(&mut self, now: Timestamp) {
        let open = matches!(self.state, OrderState::Pending | OrderState::Ready);
        if now < self.expires || !(open || self.authorizations.iter().any(|one| one.state == AuthorizationState::Valid))
        {
            return;
        }
        for authorization in &mut self.authorizations {
            if let Some(state) = authorization.state.after(AuthorizationEvent::Expired) {
                authorization.state = state;
            }
        }
        if let Some(state) = self.state.after(OrderEvent::Expired) {
            self.state = state;
            self.error = Some(expired());
        }
    }

    /// The request of the certificate that is to be issued now, where one is: an order that is not being processed has come to its
    /// end, or not yet to that point. What fails for a moment is tried again, but not on proofs and CAA records of yesterday
    /// ([RFC 8659, 5.6](https://www.rfc-editor.org/rfc/rfc8659)).
    #[must_use]
    pub fn due(&self, now: Timestamp) -> Option<Result<&[u8], Recorded>> {
        let csr = self.csr.as_deref().filter(|_| self.state == OrderState::Processing)?;
        Some(if now < self.expires { Ok(csr) } else { Err(expired()) })
    }

    /// An authorization by its number.
    ///
    /// # Errors
    /// [`crate::error::Kind::NotFound`].
    pub fn authorization(&self, number: usize) -> Result<&Authorization> {
        self.authorizations.get(number).ok_or_else(none)
    }

    /// A challenge by authorization and kind.
    ///
    /// # Errors
    /// [`crate::error::Kind::NotFound`].
    pub fn challenge(&self, number: usize, kind: ChallengeKind) -> Result<&Challenge> {
        self.authorization(number)?.challenges.iter().find(|challenge| challenge.kind == kind).ok_or_else(none)
    }

    /// The client says that a proof is there. Answers whether it must be looked for now: a second answer changes nothing.
    ///
    /// # Errors
    /// `malformed` where it is too late for it; [`crate::error::Kind::NotFound`].
    pub fn answer(&mut self, number: usize, kind: ChallengeKind) -> Result<bool> {
        let authorization = self.authorizations.get_mut(number).ok_or_else(none)?;
        let state = authorization.state;
        let challenge = authorization.challenges.iter_mut().find(|one| one.kind == kind).ok_or_else(none)?;
        match challenge.state {
            ChallengeState::Processing | ChallengeState::Valid | ChallengeState::Invalid => return Ok(false),
            ChallengeState::Pending => {}
        }
        if state != AuthorizationState::Pending || self.state != OrderState::Pending {
            return Err(refuse(
                ProblemKind::Malformed,
                format!("the authorization is {state}, the order {}", self.state),
            ));
        }
        if let Some(next) = challenge.state.after(ChallengeEvent::Answered) {
            challenge.state = next;
        }
        Ok(true)
    }

    /// A proof was looked for. Answers whether anything changed: a challenge that is not being looked at any more stays as it is.
    pub fn conclude(
        &mut self,
        number: usize,
        kind: ChallengeKind,
        found: Result<(), Recorded>,
        now: Timestamp,
    ) -> bool {
        let Some(authorization) = self.authorizations.get_mut(number) else { return false };
        let Some(challenge) = authorization.challenges.iter_mut().find(|one| one.kind == kind) else { return false };
        let (on, then) = match &found {
            Ok(()) => (ChallengeEvent::Proven, AuthorizationEvent::Proven),
            Err(_) => (ChallengeEvent::Failed, AuthorizationEvent::Failed),
        };
        let Some(next) = challenge.state.after(on) else { return false };
        challenge.state = next;
        challenge.validated = found.is_ok().then_some(now);
        challenge.error = found.as_ref().err().cloned();
        if let Some(next) = authorization.state.after(then) {
            authorization.state = next;
        }
        self.follow(found.err());
        true
    }

    /// Its account gives an authorization up.
    ///
    /// # Errors
    /// `malformed` where it has ended already; [`crate::error::Kind::NotFound`].
    pub fn deactivate(&mut self, number: usize) -> Result<()> {
        let authorization = self.authorizations.get_mut(number).ok_or_else(none)?;
        let next = authorization.state.after(AuthorizationEvent::Deactivated).ok_or_else(|| {
            refuse(ProblemKind::Malformed, format!("the authorization is {} already", authorization.state))
        })?;
        authorization.state = next;
        let detail = format!("the authorization for {} was deactivated", authorization.identifier);
        self.follow(Some(Recorded { kind: ProblemKind::Unauthorized, detail }));
        Ok(())
    }

    /// The order follows its authorizations.
    fn follow(&mut self, error: Option<Recorded>) {
        let all = self.authorizations.iter().all(|one| one.state == AuthorizationState::Valid);
        let ended = self.authorizations.iter().any(|one| match one.state {
            AuthorizationState::Pending | AuthorizationState::Valid => false,
            AuthorizationState::Invalid | AuthorizationState::Deactivated | AuthorizationState::Expired => true,
        });
        let event = match (all, ended) {
            (true, _) => OrderEvent::Proven,
            (_, true) => OrderEvent::Failed,
            (false, false) => return,
        };
        if let Some(next) = self.state.after(event) {
            self.state = next;
            self.error = error;
        }
    }

    /// Takes the request for the certificate. From here on there is one certificate, or none.
    ///
    /// # Errors
    /// `orderNotReady` in every other state.
    pub fn finalize(&mut self, csr: Vec<u8>) -> Result<()> {
        let next = self.state.after(OrderEvent::Finalized);
        self.state = next.ok_or_else(|| refuse(ProblemKind::OrderNotReady, format!("the order is {}", self.state)))?;
        self.csr = Some(csr);
        Ok(())
    }

    /// The certificate is there, or will never be. Answers whether anything changed.
    pub fn issued(&mut self, result: Result<Serial, Recorded>) -> bool {
        let event = if result.is_ok() { OrderEvent::Issued } else { OrderEvent::Refused };
        let Some(next) = self.state.after(event) else { return false };
        self.state = next;
        match result {
            Ok(serial) => self.certificate = Some(serial.to_string()),
            Err(error) => self.error = Some(error),
        }
        true
    }

    /// Where the orders of an account stand.
    #[must_use]
    pub fn folder(endpoint: &EndpointName, account: Id) -> String {
        format!("{}{account}/", Self::folder_of_all(endpoint))
    }

    /// Where the orders of all accounts stand.
    #[must_use]
    pub fn folder_of_all(endpoint: &EndpointName) -> String {
        format!("{}/order/", Endpoint::folder(endpoint))
    }

    /// Where one stands.
    #[must_use]
    pub fn path(endpoint: &EndpointName, account: Id, id: Id) -> String {
        format!("{}{id}", Self::folder(endpoint, account))
    }
}

impl Holding {
    /// A certificate that came of an order just now.
    #[must_use]
    pub const fn new(account: Id, order: Id) -> Self {
        Self { format: 1, account, order, replaced_by: None }
    }

    /// Whether an order for `asked` is the renewal of this certificate for `own`, which goes first: for the same names, and before any
    /// other. Who gives it up and tries again is counted, or it could be tried for ever.
    #[must_use]
    pub fn renewed_by(&self, own: &[San], asked: &[Identifier]) -> bool {
        let set = |names: &mut dyn Iterator<Item = San>| names.collect::<BTreeSet<_>>();
        self.replaced_by.is_none() && set(&mut own.iter().cloned()) == set(&mut asked.iter().map(Identifier::san))
    }

    /// Where it stands.
    #[must_use]
    pub fn path(endpoint: &EndpointName, serial: &str) -> String {
        format!("{}/certificate/{serial}", Endpoint::folder(endpoint))
    }
}

fn expired() -> Recorded {
    Recorded { kind: ProblemKind::Malformed, detail: "the order has expired".to_owned() }
}

fn none() -> crate::error::Error {
    crate::error::Error::new(crate::error::Kind::NotFound, "there is no such authorization or challenge")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ChallengeKind::{Dns01, Http01, TlsAlpn01};

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn order(names: &[&str]) -> Result<Order> {
        let name: ProfileName = "default:server".parse().unwrap();
        let endpoint =
            Endpoint::new("default:web".parse().unwrap(), "default:ca".parse().unwrap(), vec![name.clone()], now());
        let dns = |name: &&str| name.parse().map_or_else(|_| Identifier::Dns((*name).to_owned()), Identifier::Ip);
        let identifiers = names.iter().map(dns).collect();
        let new = NewOrder { identifiers, profile: name, replaces: None };
        Order::new(&endpoint, Id::random().unwrap(), new, now())
    }

    fn failure() -> Recorded {
        Recorded { kind: ProblemKind::Connection, detail: "no".to_owned() }
    }

    /// Walks a table: every event in every state, and where the ways lead.
    fn walk<S: Copy + PartialEq + std::fmt::Debug, E: Copy + PartialEq + std::fmt::Debug>(
        table: &[(S, E, S)],
        states: &[S],
        events: &[E],
        start: S,
        ends: &[S],
        after: impl Fn(S, E) -> Option<S>,
    ) {
        for state in states {
            for event in events {
                let rows: Vec<_> = table.iter().filter(|(from, on, _)| from == state && on == event).collect();
                assert!(rows.len() <= 1, "{state:?} {event:?}");
                assert_eq!(after(*state, *event), rows.first().map(|(_, _, to)| *to));
            }
            assert_eq!(ends.contains(state), !table.iter().any(|(from, _, _)| from == state), "{state:?}");
        }
        let mut reached = vec![start];
        while let Some((_, _, to)) = table.iter().find(|(from, _, to)| reached.contains(from) && !reached.contains(to))
        {
            reached.push(*to);
        }
        for (from, _, to) in table {
            assert!(reached.contains(from) && reached.contains(to), "{from:?} {to:?}");
        }
    }

    #[test]
    fn the_tables_are_whole() {
        use {AuthorizationState as A, ChallengeState as C, OrderState as O};
        let events = [
            OrderEvent::Proven,
            OrderEvent::Failed,
            OrderEvent::Expired,
            OrderEvent::Finalized,
            OrderEvent::Issued,
            OrderEvent::Refused,
        ];
        walk(O::TABLE, O::ALL, &events, O::Pending, &[O::Valid, O::Invalid], O::after);
        let events = [
            AuthorizationEvent::Proven,
            AuthorizationEvent::Failed,
            AuthorizationEvent::Deactivated,
            AuthorizationEvent::Expired,
        ];
        let ends = [A::Invalid, A::Deactivated, A::Expired];
        walk(A::TABLE, A::ALL, &events, A::Pending, &ends, A::after);
        let events = [ChallengeEvent::Answered, ChallengeEvent::Proven, ChallengeEvent::Failed];
        walk(C::TABLE, C::ALL, &events, C::Pending, &[C::Valid, C::Invalid], C::after);
    }

    #[test]
    fn an_order_goes_its_way_to_a_certificate() {
        let mut order = order(&["a.test", "*.a.test"]).unwrap();
        assert_eq!(order.finalize(vec![1]).map_err(|e| ProblemKind::of(&e)), Err(ProblemKind::OrderNotReady));
        assert!(order.answer(0, Http01).unwrap());
        assert!(!order.answer(0, Http01).unwrap(), "a second answer starts nothing");
        assert!(order.conclude(0, Http01, Ok(()), now()));
        assert_eq!((order.state, order.authorizations[0].state), (OrderState::Pending, AuthorizationState::Valid));
        assert!(!order.conclude(0, Http01, Err(failure()), now()), "what is proven stays proven");
        assert!(order.answer(1, Http01).is_err(), "a wildcard has no http-01");
        assert!(order.answer(1, Dns01).unwrap());
        assert!(order.conclude(1, Dns01, Ok(()), now()));
        assert_eq!(order.state, OrderState::Ready);
        order.finalize(vec![1]).unwrap();
        assert!(order.finalize(vec![2]).is_err());
        assert_eq!(order.due(now()), Some(Ok(&[1][..])));
        assert!(order.issued(Ok(Serial::from_bytes([7; 20]))));
        assert!(!order.issued(Ok(Serial::from_bytes([8; 20]))), "one certificate");
        assert_eq!((order.state, order.certificate), (OrderState::Valid, Some("07".repeat(20))));
    }

    #[test]
    fn one_failure_ends_an_order() {
        let mut order = order(&["a.test", "b.test"]).unwrap();
        order.answer(1, TlsAlpn01).unwrap();
        assert!(order.conclude(1, TlsAlpn01, Err(failure()), now()));
        assert_eq!((order.state, order.error.clone()), (OrderState::Invalid, Some(failure())));
        assert!(order.answer(0, Http01).is_err());
        assert!(order.answer(1, Http01).is_err(), "the authorization is invalid, too");
        assert!(!order.conclude(0, Http01, Ok(()), now()), "a challenge that was not answered has no end");
    }

    #[test]
    fn what_is_given_up_or_too_old_ends() {
        let mut one = order(&["a.test"]).unwrap();
        one.answer(0, Http01).unwrap();
        one.conclude(0, Http01, Ok(()), now());
        one.deactivate(0).unwrap();
        assert_eq!((one.state, one.authorizations[0].state), (OrderState::Invalid, AuthorizationState::Deactivated));
        assert!(one.deactivate(0).is_err() && one.finalize(vec![]).is_err());
        let mut old = order(&["a.test"]).unwrap();
        old.answer(0, Http01).unwrap();
        old.look_at(now() + Order::LIFETIME - SignedDuration::from_secs(1));
        assert_eq!(old.state, OrderState::Pending);
        old.look_at(now() + Order::LIFETIME);
        assert_eq!((old.state, old.authorizations[0].state), (OrderState::Invalid, AuthorizationState::Invalid));
        // The proof that comes too late changes no state but its own.
        old.conclude(0, Http01, Ok(()), now());
        assert_eq!((old.state, old.authorizations[0].state), (OrderState::Invalid, AuthorizationState::Invalid));
    }

    #[test]
    fn a_certificate_is_due_while_its_proofs_are_good() {
        let mut order = order(&["a.test"]).unwrap();
        order.answer(0, Http01).unwrap();
        order.conclude(0, Http01, Ok(()), now());
        assert_eq!(order.due(now()), None);
        order.finalize(vec![1]).unwrap();
        let end = now() + Order::LIFETIME;
        assert_eq!(order.due(end - SignedDuration::from_secs(1)), Some(Ok(&[1][..])));
        let late = order.due(end).unwrap().unwrap_err();
        assert!(order.issued(Err(late)));
        assert_eq!((order.state, order.due(now())), (OrderState::Invalid, None));
    }

    #[test]
    fn a_renewal_has_the_same_names_and_is_the_first() {
        let id = Id::random().unwrap();
        let mut holding = Holding::new(id, id);
        let names = |names: &[&str]| names.iter().map(|name| Identifier::Dns((*name).to_owned())).collect::<Vec<_>>();
        let own: Vec<_> = names(&["a.test", "b.test"]).iter().map(Identifier::san).collect();
        assert!(holding.renewed_by(&own, &names(&["b.test", "a.test"])));
        for others in [&["a.test"][..], &["a.test", "b.test", "c.test"], &["a.test", "*.b.test"], &[]] {
            assert!(!holding.renewed_by(&own, &names(others)), "{others:?}");
        }
        holding.replaced_by = Some(id);
        assert!(!holding.renewed_by(&own, &names(&["a.test", "b.test"])));
    }

    #[test]
    fn names_get_the_challenges_that_fit() {
        let kinds = |order: &Order, number: usize| {
            order.authorizations[number].challenges.iter().map(|one| one.kind).collect::<Vec<_>>()
        };
        let order_of = order(&["a.test", "*.a.test", "192.0.2.1"]).unwrap();
        assert_eq!(kinds(&order_of, 0), [Http01, Dns01, TlsAlpn01]);
        assert_eq!(kinds(&order_of, 1), [Dns01]);
        assert_eq!(kinds(&order_of, 2), [Http01, TlsAlpn01]);
        assert!(order(&[]).is_err() && order(&["a.test", "a.test"]).is_err());
        let many: Vec<_> = (0..101).map(|number| format!("h{number}.test")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert!(order(&many).is_err());
        let large = serde_json::to_vec(&order(&many[..100]).unwrap()).unwrap();
        assert!(large.len() < 128 * 1024, "{}", large.len());
    }
}
