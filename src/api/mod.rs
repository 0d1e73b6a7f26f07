//! The protocols: each turns its own words into a call of `service` and the answer back, and decides nothing.
//!
//! A protocol is one folder here. None knows of another.

pub mod acme;
pub mod est;
pub mod pki;
pub mod rest;
mod work;

pub use work::{MAX_REQUEST_ID, Running};

use std::net::IpAddr;
use std::sync::Arc;

use crate::auth::certificate::Claims;

/// The only routes without authentication, of all protocols. The list grows only in a commit of its own that says why.
pub const OPEN_ROUTES: &[(&str, &str)] = &[
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/.well-known/jwks.json"),
    ("GET", "/pki/{namespace}/{issuer}/{file}"),
    ("GET", "/pki/{namespace}/{issuer}/bundle.pem"),
    ("GET", "/pki/{namespace}/{issuer}/bundle.json"),
    ("POST", "/pki/{namespace}/{issuer}/ocsp"),
    ("GET", "/pki/{namespace}/{issuer}/ocsp/{*request}"),
    // What an ACME client reads before it has an account (RFC 8555, 7.1.1 and 7.2), and when to renew, which is no secret and is
    // asked without one (RFC 9773, 4.1).
    ("GET", "/acme/{namespace}/{endpoint}/directory"),
    ("GET", "/acme/{namespace}/{endpoint}/new-nonce"),
    ("GET", "/acme/{namespace}/{endpoint}/renewal-info/{certificate}"),
    // What a client of EST needs before it can check us, and before it can make its request (RFC 7030, 4.1.2 and 4.5.1).
    ("GET", "/.well-known/est/cacerts"),
    ("GET", "/.well-known/est/csrattrs"),
    ("GET", "/.well-known/est/{label}/cacerts"),
    ("GET", "/.well-known/est/{label}/csrattrs"),
];

/// The routes whose caller is who signed the body, as ACME has it: no token and no certificate means anything to them. They are not
/// open, and the list grows like that of the open ones.
pub const SIGNED_ROUTES: &[(&str, &str)] = &[
    ("POST", "/acme/{namespace}/{endpoint}/new-account"),
    ("POST", "/acme/{namespace}/{endpoint}/account/{id}"),
    ("POST", "/acme/{namespace}/{endpoint}/account/{id}/orders"),
    ("POST", "/acme/{namespace}/{endpoint}/key-change"),
    ("POST", "/acme/{namespace}/{endpoint}/new-order"),
    ("POST", "/acme/{namespace}/{endpoint}/order/{id}"),
    ("POST", "/acme/{namespace}/{endpoint}/order/{id}/authorization/{number}"),
    ("POST", "/acme/{namespace}/{endpoint}/order/{id}/authorization/{number}/{kind}"),
    ("POST", "/acme/{namespace}/{endpoint}/order/{id}/finalize"),
    ("POST", "/acme/{namespace}/{endpoint}/order/{id}/certificate"),
    ("POST", "/acme/{namespace}/{endpoint}/order/{id}/certificate/{number}"),
    ("POST", "/acme/{namespace}/{endpoint}/revoke-cert"),
];

/// Who is at the other end of a connection. The listener puts one into the extensions of each request; a request without
/// one is refused, because it cannot be known where it came from.
#[derive(Clone, Debug)]
pub struct Peer {
    /// From where.
    pub address: IpAddr,
    /// The client certificate, whose chain was verified in the handshake.
    pub certificate: Option<Arc<Claims>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_listed_routes_are_open() {
        let open = rest::open_routes().chain(pki::open_routes()).chain(acme::open_routes()).chain(est::open_routes());
        let open: Vec<_> = open.collect();
        assert_eq!(open, OPEN_ROUTES);
        assert_eq!(acme::signed_routes().collect::<Vec<_>>(), SIGNED_ROUTES);
        assert_eq!(OPEN_ROUTES.len(), 15, "a route without authentication needs a commit of its own that says why");
    }
}
