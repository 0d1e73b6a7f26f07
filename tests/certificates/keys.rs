//! Keys in software, and requests made with them byte by byte.

use std::sync::{Arc, LazyLock};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self as lc, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use der::asn1::{AnyRef, ObjectIdentifier};
use der::{Decode, Encode, Tag, TagNumber};
use signet::types::{Algorithm, Curve, PublicKey};
use signet::x509::Subject;
use signet::x509::signature::assemble;

/// Every algorithm that signs certificates.
pub(crate) const ALGORITHMS: [Algorithm; 10] = [
    Algorithm::EcdsaP256,
    Algorithm::EcdsaP384,
    Algorithm::EcdsaP521,
    Algorithm::Ed25519,
    Algorithm::Rsa2048Pkcs1,
    Algorithm::Rsa3072Pkcs1,
    Algorithm::Rsa4096Pkcs1,
    Algorithm::Rsa2048Pss,
    Algorithm::Rsa3072Pss,
    Algorithm::Rsa4096Pss,
];

/// A key in software.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) algorithm: Algorithm,
    secret: Secret,
}

#[derive(Clone)]
enum Secret {
    Ecdsa(Arc<EcdsaKeyPair>),
    Ed25519(Arc<Ed25519KeyPair>),
    Rsa(Arc<RsaKeyPair>),
}

impl Key {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        // These take seconds to make.
        static RSA_2048: LazyLock<Arc<RsaKeyPair>> = LazyLock::new(|| rsa(KeySize::Rsa2048));
        static RSA_3072: LazyLock<Arc<RsaKeyPair>> = LazyLock::new(|| rsa(KeySize::Rsa3072));
        static RSA_4096: LazyLock<Arc<RsaKeyPair>> = LazyLock::new(|| rsa(KeySize::Rsa4096));
        let secret = match algorithm {
            Algorithm::EcdsaP256 => ecdsa(&lc::ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::EcdsaP384 => ecdsa(&lc::ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::EcdsaP521 => ecdsa(&lc::ECDSA_P521_SHA512_FIXED_SIGNING),
            Algorithm::Ed25519 => Secret::Ed25519(Arc::new(Ed25519KeyPair::generate().unwrap())),
            Algorithm::Rsa2048Pkcs1 | Algorithm::Rsa2048Pss => Secret::Rsa(RSA_2048.clone()),
            Algorithm::Rsa3072Pkcs1 | Algorithm::Rsa3072Pss => Secret::Rsa(RSA_3072.clone()),
            Algorithm::Rsa4096Pkcs1 | Algorithm::Rsa4096Pss => Secret::Rsa(RSA_4096.clone()),
            other => panic!("{other} has no public key"),
        };
        Self { algorithm, secret }
    }

    pub(crate) fn public(&self) -> PublicKey {
        match (&self.secret, self.algorithm.curve()) {
            (Secret::Ecdsa(key), Some(curve)) => PublicKey::ec(curve, key.public_key().as_ref()).unwrap(),
            (Secret::Ed25519(key), _) => PublicKey::ed25519(key.public_key().as_ref()).unwrap(),
            (Secret::Rsa(key), _) => {
                let key = key.public_key();
                PublicKey::rsa(
                    key.modulus().big_endian_without_leading_zero(),
                    key.exponent().big_endian_without_leading_zero(),
                )
                .unwrap()
            }
            (Secret::Ecdsa(_), None) => unreachable!(),
        }
    }

    /// As a device would.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.secret {
            Secret::Ecdsa(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Secret::Ed25519(key) => key.sign(message).as_ref().to_vec(),
            Secret::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                let padding: &dyn lc::RsaEncoding =
                    if self.algorithm.is_pss() { &lc::RSA_PSS_SHA256 } else { &lc::RSA_PKCS1_SHA256 };
                key.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }

    /// Signs `body`, which is of any DER.
    pub(crate) fn finish(&self, body: &[u8]) -> Vec<u8> {
        self.try_finish(body).unwrap()
    }

    /// Signs `body`, unless it is no DER at all.
    pub(crate) fn try_finish(&self, body: &[u8]) -> Option<Vec<u8>> {
        assemble(body, self.algorithm, &self.sign(body)).ok()
    }
}

fn ecdsa(algorithm: &'static lc::EcdsaSigningAlgorithm) -> Secret {
    Secret::Ecdsa(Arc::new(EcdsaKeyPair::generate(algorithm).unwrap()))
}

fn rsa(size: KeySize) -> Arc<RsaKeyPair> {
    Arc::new(RsaKeyPair::generate(size).unwrap())
}

/// A point on P-256, for whoever wants to bend it.
pub(crate) fn point(key: &Key) -> Vec<u8> {
    assert_eq!(key.algorithm.curve(), Some(Curve::P256));
    key.public().raw().unwrap()
}

/// A value with a universal tag.
pub(crate) fn tlv(tag: Tag, parts: &[&[u8]]) -> Vec<u8> {
    AnyRef::new(tag, &parts.concat()).unwrap().to_der().unwrap()
}

/// A value with a tag of the context.
pub(crate) fn tagged(number: u32, constructed: bool, value: &[u8]) -> Vec<u8> {
    tlv(Tag::ContextSpecific { constructed, number: TagNumber(number) }, &[value])
}

pub(crate) fn oid(text: &str) -> Vec<u8> {
    ObjectIdentifier::new_unwrap(text).to_der().unwrap()
}

pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(Tag::Sequence, parts)
}

/// What a request is made of, each part in DER and free to be wrong.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) version: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    pub(crate) public_key: Vec<u8>,
    pub(crate) attributes: Vec<Vec<u8>>,
}

impl Parts {
    /// A sound request for a host.
    pub(crate) fn of(key: &Key) -> Self {
        Self {
            version: vec![2, 1, 0],
            subject: Subject::default().to_der().unwrap(),
            public_key: key.public().as_der().to_vec(),
            attributes: vec![names(&[dns("web.example.com")])],
        }
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        let attributes = tagged(0, true, &self.attributes.concat());
        sequence(&[&self.version, &self.subject, &self.public_key, &attributes])
    }

    pub(crate) fn signed(&self, key: &Key) -> Vec<u8> {
        key.finish(&self.body())
    }
}

pub(crate) fn dns(name: &str) -> Vec<u8> {
    tagged(2, false, name.as_bytes())
}

/// An attribute extensionRequest that asks for these alternative names.
pub(crate) fn names(names: &[Vec<u8>]) -> Vec<u8> {
    extensions(&[extension("2.5.29.17", false, &sequence(&[&names.concat()]))])
}

pub(crate) fn extensions(all: &[Vec<u8>]) -> Vec<u8> {
    attribute("1.2.840.113549.1.9.14", &[sequence(&[&all.concat()])])
}

pub(crate) fn attribute(kind: &str, values: &[Vec<u8>]) -> Vec<u8> {
    sequence(&[&oid(kind), &tlv(Tag::Set, &[&values.concat()])])
}

pub(crate) fn extension(kind: &str, critical: bool, value: &[u8]) -> Vec<u8> {
    let flag: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    sequence(&[&oid(kind), flag, &tlv(Tag::OctetString, &[value])])
}

/// A name of attributes, each a type of string and a value.
pub(crate) fn subject(attributes: &[(&str, Tag, &[u8])]) -> Vec<u8> {
    let one = |(kind, tag, value): &(&str, Tag, &[u8])| {
        // Not `AnyRef`: the value may be no string at all.
        let value = AnyRef::from_der(&tlv(*tag, &[value])).unwrap().to_der().unwrap();
        tlv(Tag::Set, &[&sequence(&[&oid(kind), &value])])
    };
    sequence(&[&attributes.iter().map(one).collect::<Vec<_>>().concat()])
}
