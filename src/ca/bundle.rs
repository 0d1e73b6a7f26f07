//! What relying parties trust, and what stands between that and a certificate.

use std::collections::BTreeSet;

use super::Authority;
use super::issuer::{Issuer, IssuerVersion, Parent, VersionState};
use crate::error::Result;
use crate::types::{IssuerName, Version, sha256};
use crate::x509::Certificate;

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
                .filter(living)
                .flat_map(IssuerVersion::certificate)
                .for_each(|one| add(one.der())),
            Parent::Outside => {
                for version in issuer.versions().iter().filter(living) {
                    if let Some(top) = version.record.above.last() {
                        add(&top.0);
                    }
                }
            }
            Parent::Issuer(above) if depth < MAX_DEPTH => self.anchors(above, depth + 1, add)?,
            Parent::Issuer(_) => {}
        }
        Ok(())
    }

    /// The certificates between one that this version signed and the anchor, nearest first, without the anchor.
    ///
    /// # Errors
    /// `NotFound` for a version that is not there.
    pub fn chain(&self, name: &IssuerName, version: Version) -> Result<Vec<Vec<u8>>> {
        let (mut name, mut version, mut chain) = (name.clone(), version, Vec::new());
        while chain.len() < MAX_DEPTH {
            let issuer = self.issuer(&name)?;
            let own = issuer.version(version)?;
            if issuer.record.parent == Parent::Itself {
                break;
            }
            chain.push(own.certificate()?.der().to_vec());
            match &own.record.signer {
                Some((above, by)) => (name, version) = (above.clone(), *by),
                None => {
                    // The last one is the anchor, where it signed itself.
                    let above: Vec<_> = own.record.above.iter().map(|der| der.0.clone()).collect();
                    chain.extend(above.into_iter().filter(|der| !signed_itself(der)));
                    break;
                }
            }
        }
        Ok(chain)
    }
}

fn living(version: &&IssuerVersion) -> bool {
    match version.record.state {
        VersionState::Prepared | VersionState::Active | VersionState::Retired => true,
        VersionState::Requested | VersionState::Ended => false,
    }
}

fn signed_itself(der: &[u8]) -> bool {
    Certificate::parse(der).is_ok_and(|one| one.issuer_der() == one.subject_der())
}

/// Whether the issuer stands at the top.
#[must_use]
pub fn is_root(issuer: &Issuer) -> bool {
    issuer.record.parent == Parent::Itself
}
