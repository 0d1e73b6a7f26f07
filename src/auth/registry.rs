//! Who is known: tokens and identities, in memory as the store has them.
//!
//! ```text
//! tokens/ID            TokenRecord: the hash of a token, never the token
//! identities/NAME      IdentityRecord
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::certificate::{Claims, Match};
use super::token::{Token, TokenHash};
use crate::error::{Error, Kind, Result};
use crate::store::{Record, Store};
use crate::types::Name;

/// What is kept of a bearer token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    format: u32,
    /// Its hash: all that can recognise it.
    pub hash: TokenHash,
    /// Who it speaks for.
    pub identity: Name,
    /// The groups.
    pub groups: Arc<[Name]>,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// Requests left, where limited.
    pub uses_left: Option<u64>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
}

impl TokenRecord {
    /// A token that was made just now.
    #[must_use]
    pub const fn new(
        hash: TokenHash,
        identity: Name,
        groups: Arc<[Name]>,
        created: Timestamp,
        expires: Timestamp,
        uses_left: Option<u64>,
    ) -> Self {
        Self { format: 1, hash, identity, groups, created, expires, uses_left, revoked: None }
    }

    /// Its public id.
    #[must_use]
    pub fn id(&self) -> String {
        self.hash.id()
    }

    /// Where its record stands.
    #[must_use]
    pub fn path(&self) -> String {
        format!("tokens/{}", self.id())
    }

    /// Whether a use is left, where they are counted.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`], as of a token that is not known.
    pub fn has_use(&self) -> Result<()> {
        if self.uses_left == Some(0) { Err(refused("the token is used up")) } else { Ok(()) }
    }

    /// Takes one use off, where they are counted.
    ///
    /// # Errors
    /// Those of [`Self::has_use`].
    pub fn take_use(&mut self) -> Result<()> {
        self.has_use()?;
        self.uses_left = self.uses_left.map(|left| left.saturating_sub(1));
        Ok(())
    }

    /// Why it is refused now, if it is, but for its uses; for the audit record, never for the caller.
    fn refusal(&self, now: Timestamp) -> Option<&'static str> {
        if self.revoked.is_some() {
            Some("the token is revoked")
        } else if self.expires <= now {
            Some("the token has expired")
        } else {
            None
        }
    }
}

/// What is kept of an identity that proves itself by certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityRecord {
    format: u32,
    /// Its name.
    pub name: Name,
    /// The groups.
    pub groups: Arc<[Name]>,
    /// Which certificates are this identity.
    pub certificates: Vec<Match>,
}

impl IdentityRecord {
    /// The most certificates of one identity.
    pub const MAX_CERTIFICATES: usize = 32;

    /// An identity.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where nothing could ever prove it.
    pub fn new(name: Name, groups: Arc<[Name]>, certificates: Vec<Match>) -> Result<Self> {
        if certificates.is_empty() || certificates.len() > Self::MAX_CERTIFICATES {
            let text = format!("an identity has 1 to {} certificate rules", Self::MAX_CERTIFICATES);
            return Err(Error::new(Kind::Invalid, text));
        }
        Ok(Self { format: 1, name, groups, certificates })
    }

    /// Where its record stands.
    #[must_use]
    pub fn path(&self) -> String {
        format!("identities/{}", self.name)
    }
}

/// A record with the revision that a change of it must expect.
#[derive(Debug)]
pub struct Known<T> {
    /// The record.
    pub record: T,
    /// Its revision in the store.
    pub revision: u64,
}

/// All tokens and identities.
#[derive(Debug, Default)]
pub struct Registry {
    /// The locks protect the maps and are held for one look or one change.
    tokens: RwLock<HashMap<TokenHash, Arc<Known<TokenRecord>>>>,
    identities: RwLock<BTreeMap<Name, Arc<Known<IdentityRecord>>>>,
}

impl Registry {
    /// Reads all from `store`.
    ///
    /// # Errors
    /// `Tampered` where a record does not hold; `Unavailable` where the store cannot be read.
    pub fn load(store: &dyn Store) -> Result<Self> {
        let registry = Self::default();
        for record in store.scan("tokens/")? {
            registry.put_token(read(&record)?, record.revision);
        }
        for record in store.scan("identities/")? {
            registry.put_identity(read(&record)?, record.revision);
        }
        Ok(registry)
    }

    /// The record of a token that is good now. Whether it has a use left is for [`TokenRecord::has_use`] to say.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`], one sentence for all causes; the cause is private.
    pub fn token(&self, token: &Token, now: Timestamp) -> Result<Arc<Known<TokenRecord>>> {
        let known = self.tokens.read().unwrap_or_else(PoisonError::into_inner).get(&token.hash()).cloned();
        let known = known.ok_or_else(|| refused("no such token"))?;
        match known.record.refusal(now) {
            Some(why) => Err(refused(why)),
            None => Ok(known),
        }
    }

    /// The identity that a chain-verified certificate proves.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`] where it is none's, or more than one's, or outside its time.
    pub fn certificate(&self, claims: &Claims, now: Timestamp) -> Result<Arc<Known<IdentityRecord>>> {
        if !claims.valid_at(now) {
            return Err(refused("the certificate is outside its time"));
        }
        let identities = self.identities.read().unwrap_or_else(PoisonError::into_inner);
        let own = |known: &&Arc<Known<IdentityRecord>>| {
            known.record.certificates.iter().any(|rule| rule.matches(claims, now))
        };
        let mut found = identities.values().filter(own);
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one.clone()),
            (Some(_), Some(_)) => Err(refused("the certificate is that of more than one identity")),
            (None, _) => Err(refused("the certificate is no identity's")),
        }
    }

    /// All tokens, by their ids.
    #[must_use]
    pub fn tokens(&self) -> Vec<Arc<Known<TokenRecord>>> {
        let mut all: Vec<_> = self.tokens.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.sort_by_key(|known| known.record.id());
        all
    }

    /// The token with that public id.
    ///
    /// # Errors
    /// [`Kind::NotFound`].
    pub fn token_by_id(&self, id: &str) -> Result<Arc<Known<TokenRecord>>> {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        let found = tokens.values().find(|known| known.record.id() == id).cloned();
        found.ok_or_else(|| Error::new(Kind::NotFound, "there is no such token"))
    }

    /// All identities, by their names.
    #[must_use]
    pub fn identities(&self) -> Vec<Arc<Known<IdentityRecord>>> {
        self.identities.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The identity with that name.
    ///
    /// # Errors
    /// [`Kind::NotFound`].
    pub fn identity(&self, name: &Name) -> Result<Arc<Known<IdentityRecord>>> {
        let identities = self.identities.read().unwrap_or_else(PoisonError::into_inner);
        let none = || Error::new(Kind::NotFound, format!("there is no identity {name}"));
        identities.get(name).cloned().ok_or_else(none)
    }

    /// Takes in a token that was committed.
    pub fn put_token(&self, record: TokenRecord, revision: u64) {
        let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(record.hash, Arc::new(Known { record, revision }));
    }

    /// Takes in an identity that was committed.
    pub fn put_identity(&self, record: IdentityRecord, revision: u64) {
        let mut identities = self.identities.write().unwrap_or_else(PoisonError::into_inner);
        identities.insert(record.name.clone(), Arc::new(Known { record, revision }));
    }

    /// Forgets an identity whose record was removed.
    pub fn remove_identity(&self, name: &Name) {
        self.identities.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

/// The one answer to every credential that is not accepted.
/// One sentence for all causes of a credential that does not count; `why` is for the audit log.
#[must_use]
pub fn refused(why: &'static str) -> Error {
    Error::new(Kind::Unauthenticated, "the credential is not accepted")
        .hint("it may be wrong, expired, revoked or used up: ask an administrator for a new one")
        .because(why)
}

fn read<T: serde::de::DeserializeOwned>(record: &Record) -> Result<T> {
    serde_json::from_slice(&record.value)
        .map_err(|e| Error::new(Kind::Tampered, format!("the record {} cannot be read", record.path)).because(e))
}
