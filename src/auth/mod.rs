//! From a credential to who it belongs to: the parts that need no store.
//!
//! [`token`] makes and reads bearer tokens; [`certificate`] reads what a verified client certificate claims and matches it
//! with what an identity's record expects.

pub mod certificate;
pub mod registry;
pub mod token;
