//! The protocols: each turns its own words into a call of `service` and the answer back, and decides nothing.
//!
//! A protocol is one folder here. None knows of another.

pub mod pki;
pub mod rest;

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
        let open: Vec<_> = rest::open_routes().chain(pki::open_routes()).collect();
        assert_eq!(open, OPEN_ROUTES);
        assert_eq!(OPEN_ROUTES.len(), 8, "a route without authentication needs a commit of its own that says why");
    }
}
