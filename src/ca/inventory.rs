//! Every certificate that was ever signed, or was about to be: found by serial number and by what it says.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use der::asn1::AnyRef;
use der::{Decode, Encode, Tag};
use jiff::Timestamp;

use super::Authority;
use crate::error::{Error, Kind, Result};
use crate::store::certificates::{Cursor, End, Found, Page, Reservation, Search};
use crate::types::{Caller, IssuerName, Resource, Version, sha256, words};
use crate::x509::{Serial, Validity};

/// What the certificates of roots are made from.
pub(super) const ROOT: &str = "(root)";
/// What those of responders are made from.
pub(super) const RESPONDER: &str = "[ocsp]";

words! {
    /// What became of a certificate.
    State: "state of a certificate" {
        /// It is being signed; or it was when the service died, and is closed at the next start.
        Reserved = "reserved",
        /// It was never signed, or nobody knows: its serial number counts as revoked.
        Lost = "lost",
        /// It was signed and given out.
        Issued = "issued",
    }
}

/// A certificate of the inventory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the inventory: later ones have greater ones.
    pub number: u64,
    /// Its serial number.
    pub serial: Serial,
    /// Who signed it.
    pub issuer: IssuerName,
    /// With which version.
    pub version: Version,
    /// What it was made from: the name of a profile, or a word of ours in brackets.
    pub profile: String,
    /// Who asked for it, as in the audit log.
    pub requester: String,
    /// Its subject, for people.
    pub subject: String,
    /// Its alternative names, as `dns:web.example.com`.
    pub names: Vec<String>,
    /// Its time.
    pub validity: Validity,
    /// When it was reserved.
    pub reserved: Timestamp,
    /// Its bytes, where it was signed.
    pub der: Option<Vec<u8>>,
    /// What became of it.
    pub state: State,
}

impl Entry {
    /// The certificate's bytes.
    ///
    /// # Errors
    /// [`Kind::State`] where it was never signed.
    pub fn certificate(&self) -> Result<&[u8]> {
        self.der.as_deref().ok_or_else(|| {
            Error::new(Kind::State, format!("certificate {} is {} and has no bytes", self.serial, self.state))
                .hint("ask for another one")
        })
    }

    /// Whether the issuer made it for itself, as a root or as a responder: it is not one of those that it vouches for.
    #[must_use]
    pub fn is_own(&self) -> bool {
        matches!(self.profile.as_str(), ROOT | RESPONDER)
    }

    /// SHA-256 of its bytes, in hex; empty where it was never signed.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.der.as_ref().map(|der| hex::encode(sha256(&[der]))).unwrap_or_default()
    }

    /// A row of the table.
    ///
    /// # Errors
    /// [`Kind::Internal`] for a row whose parts are no certificate, which its tag excludes.
    pub(super) fn new(found: Found) -> Result<Self> {
        let Found { reservation, end } = found;
        let Reservation {
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
        } = reservation;
        let (state, der) = match end {
            None => (State::Reserved, None),
            Some(End { signature: None, .. }) => (State::Lost, None),
            Some(End { signature: Some(signature), .. }) => (State::Issued, Some(join(&body, &signature)?)),
        };
        Ok(Self {
            number,
            serial: Serial::from_bytes(serial),
            issuer,
            version,
            profile,
            requester,
            subject,
            names,
            validity: Validity { not_before, not_after },
            reserved: at,
            der,
            state,
        })
    }
}

/// A certificate of its body and what follows it.
fn join(body: &[u8], signature: &[u8]) -> Result<Vec<u8>> {
    let content = [body, signature].concat();
    AnyRef::new(Tag::Sequence, &content)
        .and_then(|whole| whole.to_der())
        .map_err(|e| Error::internal(format!("a certificate of the inventory: {e}")))
}

/// What follows the body in a certificate.
pub(super) fn after_body(certificate: &[u8], body: &[u8]) -> Result<Vec<u8>> {
    let whole = AnyRef::from_der(certificate).map_err(|e| Error::internal(format!("a new certificate: {e}")))?;
    let rest = whole.value().strip_prefix(body);
    rest.map(<[u8]>::to_vec).ok_or_else(|| Error::internal("a new certificate does not begin with its body"))
}

impl Authority {
    /// The certificate with that serial number, of that issuer.
    ///
    /// # Errors
    /// `NotFound`, also for a certificate of another issuer; `Tampered` where its row was changed.
    pub async fn certificate(&self, issuer: &IssuerName, serial: &Serial) -> Result<Entry> {
        let entry = self.find(serial).await?.filter(|entry| entry.issuer == *issuer);
        entry.ok_or_else(|| no_certificate(serial))
    }

    /// The certificate with that serial number.
    ///
    /// # Errors
    /// `Tampered` where its row was changed.
    pub async fn find(&self, serial: &Serial) -> Result<Option<Entry>> {
        let serial = *serial.as_bytes();
        self.read(move |store| store.certificate(&serial)?.map(Entry::new).transpose()).await
    }

    /// A page of a search, and where the next one begins.
    ///
    /// # Errors
    /// `Tampered` where a row was changed.
    pub async fn search(&self, search: Search) -> Result<(Vec<Entry>, Option<Cursor>)> {
        self.read(move |store| {
            let Page { found, next } = store.certificates(&search)?;
            Ok((found.into_iter().map(Entry::new).collect::<Result<_>>()?, next))
        })
        .await
    }

    /// Closes the reservations that nobody is signing: those that a crash or a failing store left. Their serial numbers count as
    /// revoked from then on, because nobody knows what a device may have signed. Answers what it found, as sentences.
    ///
    /// # Errors
    /// Where the store or the log fails: then they stay open for the next time.
    pub async fn close_reservations(&self) -> Result<Vec<String>> {
        let under_way = self.signing_now.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
        if self.parts.ledger.unfinished().await? <= under_way {
            return Ok(Vec::new());
        }
        let open = self.read(|store| store.open_reservations()).await?;
        let now = self.signing_now.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut left: Vec<_> =
            open.into_iter().map(|one| one.reservation).filter(|one| !now.contains(&one.serial)).collect();
        if !left.is_empty() {
            // Those that were ended since they were read are nobody's any more, and closed.
            let open = self.read(|store| store.open_reservations()).await?;
            let open: BTreeSet<_> = open.into_iter().map(|one| one.reservation.number).collect();
            left.retain(|one| open.contains(&one.number));
        }
        let mut said = Vec::new();
        for some in left.chunks(super::issue::MAX_BATCH) {
            let leaf = self.parts.admission.record_tidying("close-reservations");
            self.abandon(leaf, some).await?;
            said.extend(some.iter().map(|one| {
                let serial = Serial::from_bytes(one.serial);
                format!(
                    "certificate {serial} of {} was being signed and never finished: its serial counts as revoked",
                    one.issuer
                )
            }));
        }
        if !said.is_empty() {
            let caller = Caller::system("close-reservations", "close-reservations");
            self.parts.admission.recovered(&caller, &Resource::Service, &said.join("; ")).await?;
        }
        Ok(said)
    }
}

/// The one answer for a serial number that nobody knows and for one of another issuer.
#[must_use]
pub fn no_certificate(serial: &Serial) -> Error {
    Error::new(Kind::NotFound, format!("there is no certificate {serial}"))
        .hint("`signet cert list` finds certificates by name, issuer, profile and requester")
}
