//! Accounts: a key, and for whom it speaks.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Id;
use super::endpoint::Endpoint;
use super::problem::{ProblemKind, refuse, refuse_account};
use crate::error::Result;
use crate::jose::SignerKey;
use crate::types::{EndpointName, sha256, words};

words! {
    /// The state of an account ([RFC 8555, 7.1.6](https://www.rfc-editor.org/rfc/rfc8555#section-7.1.6)).
    AccountState: "state of an account" {
        /// In use.
        Valid = "valid",
        /// Ended by its owner, for ever.
        Deactivated = "deactivated",
    }
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    format: u32,
    /// Its name, the end of its address.
    pub id: Id,
    /// Its state.
    pub state: AccountState,
    /// Its key.
    pub key: SignerKey,
    /// How its owner is reached.
    pub contacts: Contacts,
    /// When its owner agreed to the terms, and to which.
    pub agreed: Option<(Timestamp, String)>,
    /// The key that bound it to an identity, where the endpoint asks for one.
    pub bound_by: Option<Id>,
    /// When it was made.
    pub created: Timestamp,
}

/// Mail addresses of an account, at most ten.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Contacts(Vec<String>);

impl Contacts {
    const MAX: usize = 10;
    const MAX_LENGTH: usize = 254;

    /// Reads what a client sent: `mailto:` with one address and nothing else.
    ///
    /// # Errors
    /// `unsupportedContact` for other schemes, `invalidContact` for what is no such address.
    pub fn parse(contacts: Vec<String>) -> Result<Self> {
        if contacts.len() > Self::MAX {
            return Err(refuse(ProblemKind::Malformed, "an account has at most ten contacts"));
        }
        for contact in &contacts {
            let (scheme, rest) = contact.split_once(':').unwrap_or((contact, ""));
            if scheme != "mailto" {
                return Err(refuse(ProblemKind::UnsupportedContact, "contacts are mailto: addresses"));
            }
            // "Servers MUST reject such requests": those with header fields, or with more than one address.
            let plain = |part: &str| {
                !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic() && !b"?,;<>()[]\\\"@".contains(&b))
            };
            let good =
                rest.split_once('@').is_some_and(|(name, host)| plain(name) && plain(host) && host.contains('.'));
            if !good || rest.len() > Self::MAX_LENGTH {
                return Err(refuse(ProblemKind::InvalidContact, "a contact is mailto: and one plain mail address"));
            }
        }
        Ok(Self(contacts))
    }

    /// The contacts, as they were sent.
    #[must_use]
    pub fn list(&self) -> &[String] {
        &self.0
    }
}

impl Account {
    /// A new account.
    #[must_use]
    pub const fn new(
        id: Id,
        key: SignerKey,
        contacts: Contacts,
        agreed: Option<(Timestamp, String)>,
        bound_by: Option<Id>,
        created: Timestamp,
    ) -> Self {
        Self { format: 1, id, state: AccountState::Valid, key, contacts, agreed, bound_by, created }
    }

    /// Whether it may do anything at all.
    ///
    /// # Errors
    /// `unauthorized` where it has ended.
    pub fn alive(&self) -> Result<()> {
        match self.state {
            AccountState::Valid => Ok(()),
            AccountState::Deactivated => Err(refuse_account("the account is deactivated")),
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn path(endpoint: &EndpointName, id: Id) -> String {
        format!("{}/account/{id}", Endpoint::folder(endpoint))
    }

    /// Where it stands which account has a key: one key is one account.
    #[must_use]
    pub fn key_path(endpoint: &EndpointName, key: &SignerKey) -> String {
        format!("{}/key/{}", Endpoint::folder(endpoint), hex::encode(sha256(&[key.thumbprint.as_bytes()])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_are_plain_mail_addresses() {
        let parse = |contact: &str| Contacts::parse(vec![contact.to_owned()]).map_err(|e| ProblemKind::of(&e));
        assert!(parse("mailto:admin@example.test").is_ok());
        for bad in [
            "mailto:",
            "mailto:a",
            "mailto:a@",
            "mailto:a@b.c,d@e.f",
            "mailto:a@b.c?subject=x",
            "mailto:\"a\"@b.c",
            "mailto:a@@b.c",
            "mailto:a b@c.d",
        ] {
            assert_eq!(parse(bad), Err(ProblemKind::InvalidContact), "{bad}");
        }
        for bad in ["tel:+1", "a@b.c", "", "MAILTO:a@b.c"] {
            assert_eq!(parse(bad), Err(ProblemKind::UnsupportedContact), "{bad}");
        }
        assert!(Contacts::parse(vec!["mailto:a@b.c".to_owned(); 11]).is_err());
    }
}
