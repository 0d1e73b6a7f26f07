//! What relying parties trust, what stands between that and a certificate, and what all of it leaves to the certificate.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Authority;
use super::issuer::{Issuer, IssuerVersion, Parent, VersionState};
use crate::error::{Error, Kind, Result};
use crate::types::{IssuerName, Version, sha256};
use crate::x509::{Certificate, NameConstraints};

/// How many issuers may stand above each other.
const MAX_DEPTH: usize = 8;

/// The certificates to trust for an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Each in DER, oldest first.
    pub certificates: Vec<Vec<u8>>,
    /// Changes with them.
    pub etag: String,
}

/// What a version of an issuer may certify, by its own certificate and all of those above it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Powers {
    /// How many authorities may stand below it; any number where absent.
    pub path_length: Option<u8>,
    /// A name has to be permitted by each of these.
    pub constraints: Vec<NameConstraints>,
}

impl Authority {
    /// The anchors that certificates of this issuer lead to: the roots above it, those that are only prepared too, so that they
    /// are known before they are used. Where an outside authority stands above, the topmost certificate that came with it.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn bundle(&self, name: &IssuerName) -> Result<Bundle> {
        let (mut seen, mut certificates) = (BTreeSet::new(), Vec::new());
        self.anchors(name, 0, &mut |der: &[u8]| {
            if seen.insert(der.to_vec()) {
                certificates.push(der.to_vec());
            }
        })?;
        let hashes: Vec<_> = certificates.iter().flat_map(|der| sha256(&[der])).collect();
        Ok(Bundle { certificates, etag: hex::encode(sha256(&[&hashes])) })
    }

    fn anchors(&self, name: &IssuerName, depth: usize, add: &mut dyn FnMut(&[u8])) -> Result<()> {
        let issuer = self.issuer(name)?;
        match &issuer.record.parent {
            Parent::Itself => issuer
                .versions()
                .iter()
                .filter(|one| self.stands(name, one))
                .flat_map(IssuerVersion::certificate)
                .for_each(|one| add(one.der())),
            Parent::Outside => {
                for version in issuer.versions().iter().filter(|one| self.stands(name, one)) {
                    if let Some(top) = version.record.above.last() {
                        add(&top.0);
                    }
                }
            }
            Parent::Issuer(above) if depth < MAX_DEPTH => self.anchors(above, depth + 1, add)?,
            Parent::Issuer(_) => return Err(too_deep()),
        }
        Ok(())
    }

    /// Whether relying parties are told of a version: it lives, and its key is not compromised.
    #[must_use]
    pub fn stands(&self, issuer: &IssuerName, version: &IssuerVersion) -> bool {
        let lives = match version.record.state {
            VersionState::Prepared | VersionState::Active | VersionState::Retired => true,
            VersionState::Requested | VersionState::Ended => false,
        };
        lives && self.fell(issuer, version.record.version).is_none()
    }

    /// The certificates between one that this version signed and the anchor, nearest first, without the anchor.
    ///
    /// # Errors
    /// `NotFound` for a version that is not there.
    pub fn chain(&self, name: &IssuerName, version: Version) -> Result<Vec<Vec<u8>>> {
        let (mut chain, mut anchored) = (Vec::new(), false);
        self.climb(name, version, &mut |one| {
            chain.push(one.der().to_vec());
            anchored = one.issuer_der() == one.subject_der();
        })?;
        // The last one is the anchor, where it signed itself.
        if anchored {
            chain.pop();
        }
        Ok(chain)
    }

    /// What is left to certify for a version: each certificate above it counts, the anchor's, too. Whoever checks a chain holds a name
    /// against the constraints of all of them ([RFC 5280, 6.1.4](https://www.rfc-editor.org/rfc/rfc5280#section-6.1.4)).
    ///
    /// # Errors
    /// As [`Self::chain`].
    pub fn powers(&self, name: &IssuerName, version: Version) -> Result<Powers> {
        let (mut powers, mut below) = (Powers::default(), 0);
        self.climb(name, version, &mut |one| {
            if let Some(own) = one.authority() {
                // What stands below it already is taken off.
                let left = own.path_length.map(|length| length.saturating_sub(below));
                powers.path_length = left.into_iter().chain(powers.path_length).min();
                powers.constraints.push(own.constraints.clone());
            }
            below = below.saturating_add(1);
        })?;
        Ok(powers)
    }

    /// Shows each certificate from that of a version up to its anchor.
    fn climb(&self, name: &IssuerName, version: Version, see: &mut dyn FnMut(&Certificate)) -> Result<()> {
        for (issuer, version) in self.line(name, version)? {
            let own = issuer.version(version)?;
            see(own.certificate()?);
            own.above().iter().for_each(&mut *see);
        }
        Ok(())
    }

    /// A version, the one of ours that certified it, and so on up to the last of ours.
    pub(super) fn line(&self, name: &IssuerName, version: Version) -> Result<Vec<(Arc<Issuer>, Version)>> {
        let (mut line, mut next) = (Vec::new(), Some((name.clone(), version)));
        while let Some((name, version)) = next {
            if line.len() > MAX_DEPTH {
                return Err(too_deep());
            }
            let issuer = self.issuer(&name)?;
            next = issuer.version(version)?.record.signer.clone();
            line.push((issuer, version));
        }
        Ok(line)
    }
}

fn too_deep() -> Error {
    Error::new(Kind::State, format!("more than {MAX_DEPTH} issuers stand above this one"))
        .hint("make it below one that stands higher up")
}

/// Whether the issuer stands at the top.
#[must_use]
pub fn is_root(issuer: &Issuer) -> bool {
    issuer.record.parent == Parent::Itself
}
