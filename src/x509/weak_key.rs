//! Keys that are well formed and give their secret away.
//!
//! What is not looked for: the Debian keys of 2008 (CVE-2008-0166). They are some hundred thousand per size and have no rule
//! but a list; 2048-bit ones were a minority then, larger ones and EC keys hardly existed. docs/certificates.md tells why there is none.

use std::sync::LazyLock;

use der::Decode;
use num_bigint::BigUint;

use crate::error::{Error, Kind, Result};

/// Refuses an RSAPublicKey ([RFC 8017, A.1.1](https://www.rfc-editor.org/rfc/rfc8017#appendix-A.1.1)) whose numbers are weak.
///
/// # Errors
/// [`Kind::Invalid`] with the reason.
pub(super) fn rsa(key: &[u8]) -> Result<()> {
    let key = pkcs1::RsaPublicKeyRef::from_der(key)
        .map_err(|e| Error::new(Kind::Invalid, "not an RSAPublicKey").because(e))?;
    exponent(key.public_exponent.as_bytes())?;
    let modulus = key.modulus.as_bytes();
    if let Some(prime) = small_factor(modulus) {
        return Err(weak(format!("its modulus is divisible by {prime}")));
    }
    if is_roca(modulus) {
        return Err(
            weak("it has the mark of ROCA, CVE-2017-15361".to_owned()).hint("make it outside that Infineon chip")
        );
    }
    if close_primes(modulus) {
        return Err(weak("its primes are almost the same".to_owned()));
    }
    Ok(())
}

/// [FIPS 186-5, A.1.1](https://doi.org/10.6028/NIST.FIPS.186-5): "2^16 < e < 2^256", and odd.
fn exponent(bytes: &[u8]) -> Result<()> {
    let odd = bytes.last().is_some_and(|last| last & 1 == 1);
    let above = bytes.len() > 3 || bytes > [1, 0, 0].as_slice() && bytes.len() == 3;
    if odd && above && bytes.len() <= 32 {
        return Ok(());
    }
    Err(weak("its exponent is even, below 65537 or above 2^256".to_owned()).hint("the usual exponent is 65537"))
}

fn weak(why: String) -> Error {
    Error::new(Kind::Invalid, format!("the public key is weak: {why}")).hint("make a new key")
}

/// The smallest prime below 752 that divides the number: whoever makes keys properly never makes such a one
/// ([SP 800-89, 5.3.3](https://doi.org/10.6028/NIST.SP.800-89)).
fn small_factor(number: &[u8]) -> Option<u32> {
    static PRIMES: LazyLock<Vec<u32>> = LazyLock::new(|| primes(2, 752));
    // Three at once fit 32 bits, which makes a third of the divisions.
    PRIMES.chunks(3).find_map(|three| {
        let rest = rest(number, three.iter().product());
        three.iter().copied().find(|prime| rest.is_multiple_of(*prime))
    })
}

/// Whether the modulus was made by the library of CVE-2017-15361, whose primes are 65537^a modulo the product of small primes:
/// then the modulus is a power of 65537 modulo each of them. One in 2^27 of the others is taken for one of those
/// ([Nemec et al., 2017](https://doi.org/10.1145/3133956.3133969)).
fn is_roca(modulus: &[u8]) -> bool {
    static PRIMES: LazyLock<Vec<u32>> = LazyLock::new(|| primes(3, 168));
    PRIMES.iter().all(|prime| {
        let rest = rest(modulus, *prime);
        let powers = std::iter::successors(Some(1), |power| Some(power * 65537 % u64::from(*prime)));
        powers.take(*prime as usize).any(|power| power == u64::from(rest))
    })
}

/// Whether Fermat's method finds the primes in a hundred steps, because they are almost the same (CVE-2022-26320): the modulus
/// is a² - b² for a just above its root, or the square of one.
fn close_primes(modulus: &[u8]) -> bool {
    let modulus = BigUint::from_bytes_be(modulus);
    let root = modulus.sqrt();
    &root * &root == modulus
        || (1..=100_u32).any(|step| {
            let above = &root + step;
            is_square(&(&above * &above - &modulus))
        })
}

/// Squares leave few of the remainders; so a root is seldom taken.
fn is_square(number: &BigUint) -> bool {
    let leaves = |modulus: u32| {
        let rest = number % modulus;
        (0..modulus).any(|root| BigUint::from(root * root % modulus) == rest)
    };
    leaves(64) && leaves(63) && leaves(65) && leaves(11) && {
        let root = number.sqrt();
        &root * &root == *number
    }
}

fn primes(from: u32, below: u32) -> Vec<u32> {
    (from..below).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d))).collect()
}

/// `number`, big-endian, modulo `divisor`.
fn rest(number: &[u8], divisor: u32) -> u32 {
    let divisor = u64::from(divisor);
    // The first word is the short one.
    let (first, words) = number.split_at_checked(number.len() % 4).unwrap_or((number, &[]));
    let step = |rest: u64, bytes: &[u8]| bytes.iter().fold(rest, |rest, byte| rest << 8 | u64::from(*byte)) % divisor;
    let rest = words.chunks_exact(4).fold(step(0, first), step);
    u32::try_from(rest).unwrap_or(u32::MAX)
}

/// Refuses the points of small order, in all their spellings, and every y that is not below 2^255 - 19: a signature by such a
/// key verifies for many messages ([RFC 8032, 5.1.3](https://www.rfc-editor.org/rfc/rfc8032#section-5.1.3)).
///
/// # Errors
/// [`Kind::Invalid`] with the reason.
pub(super) fn ed25519(key: &[u8]) -> Result<()> {
    let mut y = key.to_vec();
    // The highest bit is the sign of x.
    if let Some(last) = y.last_mut() {
        *last &= 0x7f;
    }
    y.reverse();
    let number = |text: &str| hex::decode(text).unwrap_or_default();
    let prime = number("7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed");
    let small = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000001",
        "05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826",
        "7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7",
        "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffec",
    ];
    if y >= prime || small.into_iter().any(|point| number(point) == y) {
        return Err(weak("its point is of small order or not reduced".to_owned()));
    }
    Ok(())
}
