//! X.509 as data: requests, certificates, revocation lists and OCSP, between bytes and types.
//!
//! ```text
//! CSR bytes ─▶ Csr ─┐
//!                   ├─▶ Template ─▶ to-be-signed bytes ─▶ lint ─▶ (a device signs) ─▶ certificate bytes ─▶ read again
//! profile ──────────┘
//! ```
//!
//! Nothing here knows a key, a store or a caller: bytes go in, values come out, and back. What is signed is built here from
//! types and nothing else, so no field of a request reaches a certificate unread.

pub mod certificate;
pub mod certs_only;
pub mod constraints;
pub mod crl;
pub mod csr;
pub mod csr_attributes;
mod extensions;
pub mod key;
pub mod lint;
pub mod ocsp;
mod read_back;
pub mod request;
pub mod san;
pub mod signature;
pub mod subject;
pub mod template;
mod weak_key;

pub use crate::types::{Distribution, Subject};
pub use certificate::{Certificate, IssuerView};
pub use csr::Csr;
pub use key::KeyKind;
pub use san::{San, SanKind};
pub use subject::SubjectField;
pub use template::{Authority, ExtendedUsage, KeyUsage, NameConstraints, Serial, Subtree, Template, Validity};
