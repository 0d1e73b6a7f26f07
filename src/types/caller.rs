//! Who asks.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::Name;

/// An authenticated identity, or a job of the house. Nothing runs as nobody.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// Somebody who proved who they are.
    Identity(Name),
    /// A background job of the service, by its name.
    System(&'static str),
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(name) => write!(f, "identity/{name}"),
            Self::System(job) => write!(f, "system/{job}"),
        }
    }
}

/// How they proved it, without any secret part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Credential {
    /// A bearer token, by its public id.
    Token(String),
    /// A client certificate, by the SHA-256 of its DER in hex.
    Certificate(String),
    /// An ACME account, by its id.
    AcmeAccount(String),
    /// The process itself.
    Process,
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(id) => write!(f, "token/{id}"),
            Self::Certificate(hash) => write!(f, "certificate/{hash}"),
            Self::AcmeAccount(id) => write!(f, "acme-account/{id}"),
            Self::Process => f.write_str("process"),
        }
    }
}

/// A caller whose credential was checked. Only `auth` makes one for a request; [`Caller::system`] is for the house's jobs.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who.
    pub principal: Principal,
    /// The groups that policies may name.
    pub groups: Arc<[Name]>,
    /// How they proved it.
    pub credential: Credential,
    /// From where.
    pub address: Option<IpAddr>,
    /// The request this is about: in the answer's header, the audit record and the logs.
    pub request_id: Arc<str>,
}

impl Caller {
    /// The caller of a background job.
    #[must_use]
    pub fn system(job: &'static str, request_id: impl Into<Arc<str>>) -> Self {
        Self {
            principal: Principal::System(job),
            groups: Arc::from([]),
            credential: Credential::Process,
            address: None,
            request_id: request_id.into(),
        }
    }
}
