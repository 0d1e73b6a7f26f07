//! Good certificates of every kind, under a root and an intermediate.

use std::sync::OnceLock;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use signet::x509::lint::{Kind, Subjectmatter};

use crate::der::{bits, content, integer, null, octets, oid, sequence, utc, value};
use crate::draft::{
    ACCESS, AUTHORITY_KEY_ID, BASIC, CLIENT_AUTH, CODE_SIGNING, Draft, LISTS, NO_CHECK, OCSP_SIGNING, POLICIES,
    SERVER_AUTH, SUBJECT_KEY_ID, access, common, point,
};

pub(crate) const OCSP: &str = "1.3.6.1.5.5.7.48.1";
pub(crate) const ISSUERS: &str = "1.3.6.1.5.5.7.48.2";

/// A key that signs, with the identifier that it has in certificates.
struct Signer {
    key: EcdsaKeyPair,
    id: [u8; 20],
}

/// Root and intermediate, and keys of leaves.
pub(crate) struct Keys {
    root: Signer,
    intermediate: Signer,
    pub(crate) leaf: Vec<u8>,
    pub(crate) ed25519: Vec<u8>,
    pub(crate) rsa: Vec<u8>,
}

pub(crate) fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let key = || EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let signer = |id| Signer { key: key(), id: [id; 20] };
        let rsa = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let ed25519 = Ed25519KeyPair::generate().unwrap();
        Keys {
            root: signer(1),
            intermediate: signer(2),
            leaf: spki(&key()),
            ed25519: sequence(&[sequence(&[oid("1.3.101.112")]), bits(ed25519.public_key().as_ref())]),
            rsa: sequence(&[sequence(&[oid("1.2.840.113549.1.1.1"), null()]), bits(rsa.public_key().as_ref())]),
        }
    })
}

fn spki(key: &EcdsaKeyPair) -> Vec<u8> {
    let der: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    der.as_ref().to_vec()
}

/// A good certificate of this kind.
pub(crate) fn good(kind: Kind) -> Draft {
    let keys = keys();
    let (subject, key, id) = match kind {
        Kind::Root => (common("Example Root"), spki(&keys.root.key), keys.root.id),
        Kind::Intermediate => (common("Example Intermediate"), spki(&keys.intermediate.key), keys.intermediate.id),
        Kind::OcspResponder => (common("Example Responder"), keys.leaf.clone(), [3; 20]),
        Kind::Client => (common("billing"), keys.leaf.clone(), [3; 20]),
        Kind::CodeSigning => (common("Example"), keys.leaf.clone(), [3; 20]),
        Kind::Server | Kind::Peer | Kind::Svid => (sequence(&[]), keys.leaf.clone(), [3; 20]),
    };
    let (issuer, issuer_id) = if kind.is_authority() {
        (common("Example Root"), keys.root.id)
    } else {
        (common("Example Intermediate"), keys.intermediate.id)
    };
    let mut draft = Draft {
        version: value(0xa0, &integer(&[2])),
        serial: integer(&[0x35; 20]),
        algorithm: sequence(&[oid("1.2.840.10045.4.3.2")]),
        issuer,
        validity: [utc("261121120000Z"), utc("261130115959Z")],
        subject,
        key,
        unique: Vec::new(),
        extensions: Vec::new(),
        tail: Vec::new(),
        outer: None,
        signature: None,
    };
    if kind != Kind::Root {
        draft.put(AUTHORITY_KEY_ID, false, sequence(&[value(0x80, &issuer_id)]));
    }
    draft.put(SUBJECT_KEY_ID, false, octets(&id));
    match kind {
        Kind::Root => {
            draft.usage(&[5, 6]);
            draft.authority(None);
            draft.valid("260101000000Z", "451231235959Z");
        }
        Kind::Intermediate => {
            draft.usage(&[5, 6]);
            draft.authority(Some(0));
            draft.valid("260101000000Z", "351231235959Z");
            draft.extended(&[SERVER_AUTH, CLIENT_AUTH]);
        }
        Kind::Server => draft.extended(&[SERVER_AUTH]),
        Kind::Client => draft.extended(&[CLIENT_AUTH]),
        Kind::Peer | Kind::Svid => draft.extended(&[SERVER_AUTH, CLIENT_AUTH]),
        Kind::CodeSigning => draft.extended(&[CODE_SIGNING]),
        Kind::OcspResponder => {
            draft.extended(&[OCSP_SIGNING]);
            draft.put(NO_CHECK, false, null());
        }
    }
    match kind {
        Kind::Server | Kind::Peer => draft.dns("web.example.com"),
        Kind::Svid => draft.names(&[(0x86, b"spiffe://example.com/billing")]),
        Kind::Root | Kind::Intermediate | Kind::Client | Kind::CodeSigning | Kind::OcspResponder => {}
    }
    if !kind.is_authority() {
        draft.usage(&[0]);
    }
    if !matches!(kind, Kind::Root | Kind::OcspResponder) {
        draft.put(POLICIES, false, sequence(&[sequence(&[oid("2.23.140.1.2.1")])]));
        draft.put(LISTS, false, sequence(&[point(&["http://pki.example.com/1.crl"])]));
        let urls = [(OCSP, 0x86, "http://pki.example.com/ocsp"), (ISSUERS, 0x86, "http://pki.example.com/1.cer")];
        draft.put(ACCESS, false, access(&urls));
    }
    if kind == Kind::CodeSigning {
        draft.put(BASIC, true, sequence(&[]));
    }
    draft
}

/// The issuer of certificates of this kind; nothing for a root.
pub(crate) fn issuer_of(kind: Kind) -> Option<Draft> {
    match kind {
        Kind::Root => None,
        Kind::Intermediate => Some(good(Kind::Root)),
        // Code is signed under another intermediate than TLS.
        Kind::CodeSigning => {
            let mut issuer = good(Kind::Intermediate);
            issuer.remove(crate::draft::EXTENDED);
            Some(issuer)
        }
        Kind::Server | Kind::Client | Kind::Peer | Kind::Svid | Kind::OcspResponder => Some(good(Kind::Intermediate)),
    }
}

/// Signs it with the key of whoever issues this kind.
pub(crate) fn sign(draft: &Draft, kind: Kind) -> Vec<u8> {
    let signer = if kind.is_authority() { &keys().root } else { &keys().intermediate };
    let tbs = draft.to_be_signed();
    let signature = signer.key.sign(&SystemRandom::new(), &tbs).unwrap();
    let algorithm = draft.outer.clone().unwrap_or_else(|| draft.algorithm.clone());
    let signature = draft.signature.clone().unwrap_or_else(|| bits(signature.as_ref()));
    sequence(&[tbs, algorithm, signature])
}

/// The issuer's certificate, whole.
pub(crate) fn issuer_certificate(kind: Kind) -> Option<Vec<u8>> {
    let above = if kind == Kind::Intermediate { Kind::Root } else { Kind::Intermediate };
    issuer_of(kind).map(|issuer| sign(&issuer, above))
}

/// What is to be linted of this kind.
pub(crate) fn matter(kind: Kind, issuer: Option<&[u8]>) -> Subjectmatter<'_> {
    Subjectmatter { kind, issuer }
}

/// Modulus and exponent of the RSA key.
pub(crate) fn rsa_numbers() -> [Vec<u8>; 2] {
    let key = crate::der::split(content(&keys().rsa))[1].clone();
    crate::der::split(content(&content(&key)[1..])).try_into().unwrap()
}
