//! The chain that an outside authority gave.

use jiff::Timestamp;

use crate::error::{Error, Kind, Result};
use crate::types::PublicKey;
use crate::x509::{Certificate, Validity};

/// The most certificates between ours and an outside root, and the most cross-certificates of a version.
pub(super) const MAX_CHAIN: usize = 8;

/// Whether the first of `chain` certifies `key` as an authority, each is signed by the next, and all of them live.
pub(super) fn check_chain(chain: &[Certificate], key: &PublicKey, now: Timestamp) -> Result<()> {
    let invalid = |text: String| Error::new(Kind::Invalid, text);
    let Some(own) = chain.first() else { return Err(invalid("there is no certificate".to_owned())) };
    if own.public_key() != key {
        return Err(invalid("the first certificate is for another key than that of this issuer".to_owned())
            .hint("send the answer to the request of `signet issuer csr`, and above it the chain, nearest first"));
    }
    if chain.len() < 2 || chain.len() > MAX_CHAIN {
        return Err(invalid(format!("a chain has 2 to {MAX_CHAIN} certificates"))
            .hint("put the certificate of the authority that signed, and those above it, below ours in the file"));
    }
    for (below, one) in chain.iter().enumerate() {
        let Some(authority) = one.authority() else {
            return Err(invalid(format!("certificate {} of the chain is not that of an authority", below + 1)));
        };
        // Our own counts for nothing: a path length says how many authorities may stand below.
        if below > 0 && authority.path_length.is_some_and(|length| usize::from(length) < below) {
            return Err(invalid(format!("certificate {} of the chain allows fewer authorities below it", below + 1)));
        }
        let Validity { not_before, not_after } = one.validity();
        if now < not_before || not_after < now {
            return Err(invalid(format!("certificate {} of the chain is over, or not valid yet", below + 1)));
        }
    }
    for (below, above) in chain.iter().zip(chain.iter().skip(1)) {
        if below.issuer_der() != above.subject_der() {
            return Err(invalid("a certificate of the chain names another issuer than the next one".to_owned())
                .hint("the order is: ours, the one that signed it, and so on up"));
        }
        below.verify(above.public_key()).map_err(|e| e.context("the chain"))?;
    }
    Ok(())
}
