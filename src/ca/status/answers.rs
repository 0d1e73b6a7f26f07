//! The OCSP answers that were given, up to a number.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::ca::published::Published;
use crate::x509::ocsp::{CertificateId, Status};

/// How many answers of one generation are kept; there are two generations. An answer has one or two kilobytes.
const GENERATION: usize = 16 * 1024;

/// An answer that can be given again.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// What it says.
    pub(super) status: Status,
    /// From when on a newer one is wanted.
    pub(super) renew: Timestamp,
    pub(super) published: Published,
}

/// Answers by certificate. When the young generation is full it becomes the old one, whose place it takes: what is asked for
/// stays, and nothing is ever searched for what to drop.
#[derive(Debug, Default)]
pub(super) struct Answers {
    young: HashMap<CertificateId, Kept>,
    old: HashMap<CertificateId, Kept>,
}

impl Answers {
    pub(super) fn find(&mut self, id: &CertificateId) -> Option<Kept> {
        if let Some(kept) = self.young.get(id) {
            return Some(kept.clone());
        }
        let kept = self.old.remove(id)?;
        self.keep(id.clone(), kept.clone());
        Some(kept)
    }

    pub(super) fn keep(&mut self, id: CertificateId, kept: Kept) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Algorithm, PublicKey};
    use crate::x509::Serial;
    use crate::x509::certificate::IssuerView;
    use crate::x509::ocsp::{IssuerHash, IssuerId};

    #[test]
    fn what_is_asked_for_stays_and_the_number_is_bounded() {
        let view = IssuerView {
            subject: vec![0x30, 0],
            key_id: vec![1],
            public_key: PublicKey::ed25519(&[7; 32]).unwrap(),
            algorithm: Algorithm::Ed25519,
        };
        let issuer = IssuerId::new(IssuerHash::Sha1, &view).unwrap();
        let id = |n: u64| {
            let mut bytes = [0; 20];
            bytes[12..].copy_from_slice(&n.to_be_bytes());
            CertificateId::new(issuer.clone(), &Serial::from_bytes(bytes))
        };
        let now = Timestamp::UNIX_EPOCH;
        let kept = Kept { status: Status::Good, renew: now, published: Published::new(vec![1]) };
        let mut answers = Answers::default();
        for n in 0..5 * GENERATION as u64 {
            answers.keep(id(n), kept.clone());
            assert!(answers.find(&id(0)).is_some(), "{n}");
            assert!(answers.young.len() + answers.old.len() <= 2 * GENERATION);
        }
        assert!(answers.find(&id(1)).is_none());
    }
}
