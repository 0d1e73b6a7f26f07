//! The one table whose rows are not sealed: certificates are public, and are found by what they say.
//!
//! A row is written twice at most, and never changed: a [`Reservation`] holds all that is about to be signed, an [`End`] says
//! what came of it. So there is no signature whose certificate is not known here.
//!
//! What a database cannot do to them: each row carries a tag under a key derived from the storage key, checked whenever it is
//! read, so an edited, moved or invented row is [`crate::error::Kind::Tampered`]. The rows are numbered without a gap and counted in a sealed
//! record, which `ledger` compares at each start, so a row that was removed is missed. A certificate's own signature would not
//! do: it says nothing of requester and profile, and a database without the row would have nothing to verify.
//!
//! ```text
//! tag = HMAC-SHA-256(key, "R" || fields of a reservation) or HMAC-SHA-256(key, "E" || fields of an end)
//! key = HKDF-Expand-SHA-256(storage key, "signet certificate row v1", 32)
//! ```
//!
//! Fields stand in the order of the struct; numbers and times (seconds) have 8 bytes, big-endian, texts and bytes their length (4)
//! before them, lists their count (4).

use jiff::Timestamp;

use crate::types::{IssuerName, Name, Version};

/// How many certificates of one name are held against the further conditions of a search, for one page of it.
pub const LOOKED_AT: usize = 500;

/// The tag of a row; zeros until the sealed store sets it.
pub type Tag = [u8; 32];

/// The serial number of a certificate.
pub type Serial = [u8; 20];

/// A certificate that is about to be signed, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Its place in the table, from 1; `ledger` gives it.
    pub number: u64,
    /// Its serial number, never used twice.
    pub serial: Serial,
    /// Who signs it.
    pub issuer: IssuerName,
    /// With which version of the issuer's key.
    pub version: Version,
    /// What it was made from: the name of a profile, or a word of the service's own.
    pub profile: String,
    /// Who asked for it, as in the audit log.
    pub requester: String,
    /// Its subject, for people.
    pub subject: String,
    /// Its alternative names, as `dns:web.example.com`.
    pub names: Vec<String>,
    /// Its first second.
    pub not_before: Timestamp,
    /// Its last second.
    pub not_after: Timestamp,
    /// When it was reserved.
    pub at: Timestamp,
    /// What is signed.
    pub body: Vec<u8>,
    /// See the module.
    pub tag: Tag,
}

/// What came of a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The reservation.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// What follows the body in the certificate, algorithm and signature in DER; `None` where it was given up.
    pub signature: Option<Vec<u8>>,
    /// See the module.
    pub tag: Tag,
}

/// One row of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// A certificate that is about to be signed.
    Reserve(Reservation),
    /// What came of it.
    End(End),
}

/// A certificate as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What was to be signed.
    pub reservation: Reservation,
    /// What came of it; `None` while it is being signed, or was when the service died.
    pub end: Option<End>,
}

/// How many rows there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Reservations; also the number of the last.
    pub reserved: u64,
    /// Names of all reservations.
    pub names: u64,
    /// Ends.
    pub ended: u64,
}

/// Where a page goes on: after the certificate with that number and last second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Its number.
    pub number: u64,
    /// Its last second, in seconds since 1970.
    pub not_after: i64,
}

/// Which certificates are looked for; all conditions hold together. Newest first; where `ends` is given and no name, the one that
/// ends soonest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// Of this issuer.
    pub issuer: Option<IssuerName>,
    /// Of the issuers of this namespace.
    pub namespace: Option<Name>,
    /// Made from this.
    pub profile: Option<String>,
    /// Asked for by this one.
    pub requester: Option<String>,
    /// With this alternative name, as `dns:web.example.com`.
    pub name: Option<String>,
    /// Whose last second is at or after the first and before the second of these.
    pub ends: Option<(Timestamp, Timestamp)>,
    /// After this one.
    pub after: Option<Cursor>,
    /// How many at most.
    pub limit: usize,
}

/// Some of the certificates that a search finds, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The certificates: at most as many as were wanted, and perhaps fewer, or none, though there are more.
    pub found: Vec<Found>,
    /// Where the next page begins; `None` where this was the last.
    pub next: Option<Cursor>,
}

impl Search {
    /// Whether a certificate fulfils all conditions.
    #[must_use]
    pub fn fits(&self, one: &Reservation) -> bool {
        let Self { issuer, namespace, profile, requester, name, ends, after: _, limit: _ } = self;
        issuer.as_ref().is_none_or(|issuer| *issuer == one.issuer)
            && namespace.as_ref().is_none_or(|namespace| *namespace == one.issuer.namespace)
            && profile.as_ref().is_none_or(|profile| *profile == one.profile)
            && requester.as_ref().is_none_or(|requester| *requester == one.requester)
            && name.as_ref().is_none_or(|name| one.names.contains(name))
            && ends.is_none_or(|(from, until)| from <= one.not_after && one.not_after < until)
    }

    /// Its conditions alone.
    pub(super) fn without_place(&self) -> Self {
        Self { after: None, limit: 0, ..self.clone() }
    }
}

impl Row {
    /// The bytes that the tag is made over.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Reserve(reservation) => reservation.to_bytes(),
            Self::End(end) => end.to_bytes(),
        }
    }

    pub(super) const fn tag_mut(&mut self) -> &mut Tag {
        match self {
            Self::Reserve(Reservation { tag, .. }) | Self::End(End { tag, .. }) => tag,
        }
    }
}

impl Reservation {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let Self {
            number,
            serial,
            issuer,
            version,
            profile,
            requester,
            subject,
            names,
            not_before,
            not_after,
            at,
            body,
            tag: _,
        } = self;
        let mut out = Fields(b"R".to_vec());
        out.number(*number);
        out.bytes(serial);
        out.bytes(issuer.to_string().as_bytes());
        out.number(version.number().into());
        for text in [profile, requester, subject] {
            out.bytes(text.as_bytes());
        }
        out.length(names.len());
        for name in names {
            out.bytes(name.as_bytes());
        }
        for time in [not_before, not_after, at] {
            out.time(*time);
        }
        out.bytes(body);
        out.0
    }

    /// Where a page that ends here goes on.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor { number: self.number, not_after: self.not_after.as_second() }
    }
}

impl End {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let Self { number, at, signature, tag: _ } = self;
        let mut out = Fields(b"E".to_vec());
        out.number(*number);
        out.time(*at);
        out.length(usize::from(signature.is_some()));
        out.bytes(signature.as_deref().unwrap_or_default());
        out.0
    }
}

/// Fields one after the other, so that no two rows give the same bytes.
struct Fields(Vec<u8>);

impl Fields {
    fn number(&mut self, number: u64) {
        self.0.extend(number.to_be_bytes());
    }

    fn time(&mut self, time: Timestamp) {
        self.0.extend(time.as_second().to_be_bytes());
    }

    fn length(&mut self, length: usize) {
        // A row of 4 GiB does not fit into the database.
        self.0.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.extend(bytes);
    }
}
