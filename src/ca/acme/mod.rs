//! ACME ([RFC 8555](https://www.rfc-editor.org/rfc/rfc8555)) as records and rules, without network, store or clock.
//!
//! ```text
//! acme/NS/ENDPOINT/endpoint                  Endpoint: which issuer, which profiles, whose names
//! acme/NS/ENDPOINT/eab/ID                    EabKey: binds an account to an identity
//! acme/NS/ENDPOINT/account/ID                Account
//! acme/NS/ENDPOINT/key/HASH                  the id of the account that has this key
//! acme/NS/ENDPOINT/order/ACCOUNT/ID          Order, with its authorizations and their challenges
//! acme/NS/ENDPOINT/certificate/SERIAL        Holding: whose certificate it is, and which order replaces it
//! ```
//!
//! An order is one record, so that each step of it is one change: a challenge that ends, the authorization that ends with it and
//! the order that becomes ready cannot come apart. An order stands below its account, so another account cannot even name it.

mod account;
pub mod caa;
mod challenge;
mod eab;
mod endpoint;
mod identifier;
mod nonce;
mod order;
mod problem;
mod quota;
pub mod renewal;

pub use account::{Account, AccountState, Contacts};
pub use challenge::{Challenge, ChallengeKind, ChallengeState};
pub use eab::{EabKey, unbound};
pub use endpoint::{Endpoint, Speaker};
pub use identifier::Identifier;
pub use nonce::Nonces;
pub use order::{Authorization, AuthorizationState, Holding, NewOrder, Order, OrderState};
pub use problem::{Problem, ProblemKind, Recorded, Subproblem, refuse, refuse_names};
pub use quota::{Quota, Quotas};
pub use renewal::CertificateId;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Kind, Result};
use crate::types::lower_hex;

/// The random name of an account, an order or a key: 16 bytes in hex. Nobody guesses one, and knowing one proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id([u8; 16]);

impl Id {
    /// Draws a new one.
    ///
    /// # Errors
    /// [`Kind::Internal`] where the generator fails.
    pub fn random() -> Result<Self> {
        random().map(Self)
    }
}

impl FromStr for Id {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        lower_hex(text).map(Self).ok_or_else(|| Error::new(Kind::NotFound, "there is no such thing here"))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| Error::internal(format!("random bytes: {e}")))?;
    Ok(bytes)
}
