//! The protocols: each turns its own words into a call of `service` and the answer back, and decides nothing.
//!
//! A protocol is one folder here. None knows of another.

pub mod acme;
pub mod rest;
mod work;

pub use work::{MAX_REQUEST_ID, Running};

use std::net::IpAddr;
use std::sync::Arc;

use crate::auth::certificate::Claims;

/// Who is at the other end of a connection. The listener puts one into the extensions of each request; a request without
/// one is refused, because it cannot be known where it came from.
#[derive(Clone, Debug)]
pub struct Peer {
    /// From where.
    pub address: IpAddr,
    /// The client certificate, whose chain was verified in the handshake.
    pub certificate: Option<Arc<Claims>>,
}
