//! Agreement of two P-256 keys on a secret (ECDH), as far as it needs no device.

use aws_lc_rs::agreement::{ECDH_P256, EphemeralPrivateKey, ParsedPublicKey, UnparsedPublicKey, agree_ephemeral};
use aws_lc_rs::rand::SystemRandom;

use super::{PublicKey, SecretBytes};
use crate::error::{Error, Kind, Result};

/// A point that was drawn for one use, and what it and a public key agree on.
#[derive(Debug)]
pub struct Agreed {
    /// The point, `04 || X || Y`: whoever has the private key finds the secret by it.
    pub point: [u8; Self::POINT],
    /// The x-coordinate of the common point, 32 bytes.
    pub secret: SecretBytes,
}

impl Agreed {
    /// The length of a point in bytes.
    pub const POINT: usize = 65;
    /// The length of a secret in bytes.
    pub const SECRET: usize = 32;

    /// Draws a key of P-256, agrees with `public` on a secret, and forgets the key.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for another key than one of P-256; [`Kind::Internal`] where the generator fails.
    pub fn with(public: &PublicKey) -> Result<Self> {
        let other = Error::new(Kind::Invalid, "not a public key of P-256");
        let theirs = public.raw()?;
        if !is_point(&theirs) {
            return Err(other);
        }
        let failed = |_| Error::internal("a one-time key of P-256 cannot be made");
        let own = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new()).map_err(failed)?;
        let point = own.compute_public_key().map_err(failed)?;
        let point = point.as_ref().try_into().map_err(|_| Error::internal("a point of another length"))?;
        let theirs = UnparsedPublicKey::new(&ECDH_P256, theirs);
        let secret = agree_ephemeral(own, theirs, other, |secret| Ok(SecretBytes::new(secret.to_vec())))?;
        Ok(Self { point, secret })
    }
}

/// Whether these bytes are a point of P-256, written without compression: what a device may be asked to agree with. A point of
/// another curve would tell about the private key.
#[must_use]
pub fn is_point(bytes: &[u8]) -> bool {
    bytes.len() == Agreed::POINT
        && bytes.first() == Some(&4)
        && ParsedPublicKey::try_from(UnparsedPublicKey::new(&ECDH_P256, bytes)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Curve;

    /// The generator of P-256 (SP 800-186, 3.2.1.3).
    const G: &str = "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";

    #[test]
    fn a_point_is_whole_and_on_the_curve() {
        let good = hex::decode(G).unwrap();
        assert!(is_point(&good));
        for at in 1..good.len() {
            let mut off = good.clone();
            off[at] ^= 1;
            assert!(!is_point(&off), "byte {at}");
        }
        let compressed = [&[3], &good[1..33]].concat();
        let hybrid = [&[7], &good[1..]].concat();
        let zero = [[4].as_slice(), &[0; 64]].concat();
        let over = [[4].as_slice(), &[255; 64]].concat();
        for bad in [&[][..], &[0], &compressed, &hybrid, &zero, &over, &good[..64], &[&good[..], &[0]].concat()] {
            assert!(!is_point(bad), "{}", hex::encode(bad));
        }
    }

    #[test]
    fn no_point_is_drawn_twice() {
        let public = PublicKey::ec(Curve::P256, &hex::decode(G).unwrap()).unwrap();
        let (one, other) = (Agreed::with(&public).unwrap(), Agreed::with(&public).unwrap());
        assert_ne!(one.point, other.point);
        // The private key of the generator is 1: the secret is the x-coordinate of the point.
        assert_eq!(one.secret.expose(), &one.point[1..33]);
    }
}
