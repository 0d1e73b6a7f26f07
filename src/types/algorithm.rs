//! What keys can do, and how. One name fixes key type, hash and padding, so that no request can choose them.

/// Writes an enum whose variants have one stable text each.
macro_rules! words {
    ($(#[$doc:meta])* $type:ident: $what:literal { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $type { $($(#[$variant_doc])* $variant,)* }

        impl $type {
            /// All of them, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The stable text, the same in the API, the command line, the store and the audit log.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::error::Error;
            fn from_str(text: &str) -> $crate::error::Result<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == text).ok_or_else(|| {
                    let known: Vec<_> = Self::ALL.iter().map(|one| one.as_str()).collect();
                    $crate::error::Error::new($crate::error::Kind::Invalid, concat!("unknown ", $what)).hint(format!("one of: {}", known.join(", ")))
                })
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use words;

words! {
    /// What a key is, and does: the one decision made at its birth.
    Algorithm: "algorithm" {
        /// ECDSA over NIST P-256 with SHA-256 ([FIPS 186-5](https://doi.org/10.6028/NIST.FIPS.186-5)).
        EcdsaP256 = "ecdsa-p256-sha256",
        /// ECDSA over NIST P-384 with SHA-384.
        EcdsaP384 = "ecdsa-p384-sha384",
        /// ECDSA over NIST P-521 with SHA-512.
        EcdsaP521 = "ecdsa-p521-sha512",
        /// Pure Ed25519 ([RFC 8032](https://www.rfc-editor.org/rfc/rfc8032)).
        Ed25519 = "ed25519",
        /// Pure ML-DSA-65 ([FIPS 204](https://doi.org/10.6028/NIST.FIPS.204)) with an empty context, its signatures drawn with fresh
        /// randomness: for those who verify on a day when there are quantum computers.
        MlDsa65 = "ml-dsa-65",
        /// RSA 2048, PKCS#1 v1.5 with SHA-256 ([RFC 8017](https://www.rfc-editor.org/rfc/rfc8017#section-8.2)).
        Rsa2048Pkcs1 = "rsa2048-pkcs1-sha256",
        /// RSA 3072, PKCS#1 v1.5 with SHA-256.
        Rsa3072Pkcs1 = "rsa3072-pkcs1-sha256",
        /// RSA 4096, PKCS#1 v1.5 with SHA-256.
        Rsa4096Pkcs1 = "rsa4096-pkcs1-sha256",
        /// RSA 2048, PSS with SHA-256, MGF1 with SHA-256 and a salt of 32 bytes ([RFC 8017](https://www.rfc-editor.org/rfc/rfc8017#section-8.1)).
        Rsa2048Pss = "rsa2048-pss-sha256",
        /// RSA 3072, PSS with SHA-256.
        Rsa3072Pss = "rsa3072-pss-sha256",
        /// RSA 4096, PSS with SHA-256.
        Rsa4096Pss = "rsa4096-pss-sha256",
        /// HMAC with SHA-256 ([RFC 2104](https://www.rfc-editor.org/rfc/rfc2104)), key of 32 bytes.
        HmacSha256 = "hmac-sha256",
        /// HMAC with SHA-384, key of 48 bytes.
        HmacSha384 = "hmac-sha384",
        /// HMAC with SHA-512, key of 64 bytes.
        HmacSha512 = "hmac-sha512",
        /// The default to wrap with: one device HMAC derives a one-time AES-256-GCM key per ciphertext.
        Aes256GcmDerived = "aes256-gcm-derived",
        /// AES-256-GCM ([SP 800-38D](https://doi.org/10.6028/NIST.SP.800-38D)) by the device itself, with nonces of 96 random bits: a
        /// version serves so many uses and no more ([`Algorithm::uses`]).
        Aes256Gcm = "aes256-gcm",
        /// HPKE in base mode ([RFC 9180](https://www.rfc-editor.org/rfc/rfc9180)): DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.
        /// Whoever has the public key wraps, without the service.
        HpkeP256 = "hpke-p256",
        /// HPKE in base mode with ML-KEM-768 ([FIPS 203](https://doi.org/10.6028/NIST.FIPS.203)) as its KEM
        /// ([draft-ietf-hpke-pq](https://datatracker.ietf.org/doc/html/draft-ietf-hpke-pq-05)), HKDF-SHA256 and AES-256-GCM: as `hpke-p256`, for
        /// what must stay closed on a day when there are quantum computers.
        MlKem768 = "ml-kem-768",
        /// RSA-OAEP with SHA-256 ([RFC 8017](https://www.rfc-editor.org/rfc/rfc8017#section-7.1)), 2048 bits, of a seed from which each
        /// ciphertext has a key of its own: for clients that demand RSA.
        Rsa2048Oaep = "rsa2048-oaep-sha256",
        /// RSA-OAEP with SHA-256, 3072 bits.
        Rsa3072Oaep = "rsa3072-oaep-sha256",
        /// RSA-OAEP with SHA-256, 4096 bits.
        Rsa4096Oaep = "rsa4096-oaep-sha256",
    }
}

words! {
    /// What a key is for.
    Purpose: "purpose" {
        /// Wrap, unwrap, rewrap, data keys.
        Wrap = "wrap",
        /// Sign and verify.
        Sign = "sign",
        /// Make and check message authentication codes.
        Mac = "mac",
    }
}

words! {
    /// The one thing that a device does with a key.
    Role: "role" {
        /// Signs.
        Sign = "sign",
        /// Makes HMACs.
        Mac = "mac",
        /// Agrees with a point on a secret (ECDH).
        Agree = "agree",
        /// Decrypts what was encrypted to its public half.
        Decrypt = "decrypt",
        /// Finds the secret that was encapsulated to its public half.
        Decapsulate = "decapsulate",
        /// Encrypts, and decrypts what it encrypted.
        Cipher = "cipher",
    }
}

words! {
    /// What a signing key may sign, fixed at birth, so that nobody gets one kind of signature out of a key of another kind.
    Domain: "domain" {
        /// Messages that are not one of the structures below.
        Artifact = "artifact",
        /// JWS signing inputs whose header names this key's algorithm.
        Jwt = "jwt",
        /// Certificates, CRLs and OCSP answers, built by the service itself.
        X509 = "x509",
        /// SSH certificates and signatures, built by the service itself.
        Ssh = "ssh",
        /// Heads of the audit log, built by the service itself.
        Log = "log",
        /// Handshakes of the service's own TLS server, and nothing else.
        Tls = "tls",
        /// Digests of anything: the caller vouches for what was hashed.
        Raw = "raw",
    }
}

words! {
    /// Where the private part of a version stays.
    Residency: "residency" {
        /// An object in the token that never moves.
        Resident = "resident",
        /// Wrapped by a key-encryption key of the token, unwrapped into the token for use.
        Wrapped = "wrapped",
        /// Wrapped by a key-encryption key that several tokens share, unwrapped into any of them for use.
        Shared = "shared",
    }
}

words! {
    /// What protects a version: shown with every key.
    Protection: "protection" {
        /// A token object in a PKCS#11 device.
        Hsm = "hsm",
        /// A blob that only the PKCS#11 device can open.
        HsmWrapped = "hsm (wrapped)",
        /// A blob that only the PKCS#11 devices can open which share its key-encryption key.
        HsmShared = "hsm (shared)",
        /// A blob that only the TPM can load.
        Tpm = "tpm",
    }
}

words! {
    /// A hash function.
    Hash: "hash" {
        /// SHA-256.
        Sha256 = "sha256",
        /// SHA-384.
        Sha384 = "sha384",
        /// SHA-512.
        Sha512 = "sha512",
    }
}

words! {
    /// A curve of NIST SP 800-186.
    Curve: "curve" {
        /// P-256.
        P256 = "P-256",
        /// P-384.
        P384 = "P-384",
        /// P-521.
        P521 = "P-521",
    }
}

words! {
    /// The state of a version, after NIST SP 800-57 part 1 section 7.
    State: "state" {
        /// Made ahead of time; does nothing yet.
        PreActive = "pre-active",
        /// The primary one protects; others of this state open and verify.
        Active = "active",
        /// Does nothing until it is resumed.
        Suspended = "suspended",
        /// Superseded: opens and verifies only.
        Deactivated = "deactivated",
        /// Opens only with an explicit override; verification says so.
        Compromised = "compromised",
        /// Waits for its destruction; does nothing, and can be brought back.
        DestroyScheduled = "destroy-scheduled",
        /// Gone for good.
        Destroyed = "destroyed",
    }
}

words! {
    /// How a signature is written.
    SignatureFormat: "signature format" {
        /// ASN.1 DER for ECDSA; the plain bytes for the others. What openssl reads.
        Der = "der",
        /// `r || s` for ECDSA (IEEE P1363); the plain bytes for the others.
        Raw = "raw",
        /// As `raw`, in base64url without padding: the third part of a compact JWS.
        Jws = "jws",
    }
}

/// How often a version protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uses {
    /// After so many another version is made in its place.
    pub rotates: u64,
    /// After so many it protects nothing more, whether there is another one or not.
    pub stops: u64,
}

impl Hash {
    /// The length of a digest in bytes.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Hashes `message`.
    #[must_use]
    pub fn digest(self, message: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => &aws_lc_rs::digest::SHA256,
            Self::Sha384 => &aws_lc_rs::digest::SHA384,
            Self::Sha512 => &aws_lc_rs::digest::SHA512,
        };
        aws_lc_rs::digest::digest(algorithm, message).as_ref().to_vec()
    }
}

impl Residency {
    /// Those of a device that shares nothing with another one, the first choice first.
    pub const ALONE: [Self; 2] = [Self::Resident, Self::Wrapped];
}

impl Curve {
    /// The length of a coordinate, and of half a raw signature, in bytes.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

impl Algorithm {
    /// What keys of this algorithm are for.
    #[must_use]
    pub const fn purpose(self) -> Purpose {
        match self {
            Self::EcdsaP256 | Self::EcdsaP384 | Self::EcdsaP521 | Self::Ed25519 | Self::MlDsa65 => Purpose::Sign,
            Self::Rsa2048Pkcs1 | Self::Rsa3072Pkcs1 | Self::Rsa4096Pkcs1 => Purpose::Sign,
            Self::Rsa2048Pss | Self::Rsa3072Pss | Self::Rsa4096Pss => Purpose::Sign,
            Self::HmacSha256 | Self::HmacSha384 | Self::HmacSha512 => Purpose::Mac,
            Self::Aes256GcmDerived | Self::Aes256Gcm | Self::HpkeP256 | Self::MlKem768 => Purpose::Wrap,
            Self::Rsa2048Oaep | Self::Rsa3072Oaep | Self::Rsa4096Oaep => Purpose::Wrap,
        }
    }

    /// What a device does with keys of this algorithm.
    #[must_use]
    pub const fn role(self) -> Role {
        match self {
            Self::EcdsaP256 | Self::EcdsaP384 | Self::EcdsaP521 | Self::Ed25519 | Self::MlDsa65 => Role::Sign,
            Self::Rsa2048Pkcs1 | Self::Rsa3072Pkcs1 | Self::Rsa4096Pkcs1 => Role::Sign,
            Self::Rsa2048Pss | Self::Rsa3072Pss | Self::Rsa4096Pss => Role::Sign,
            Self::HmacSha256 | Self::HmacSha384 | Self::HmacSha512 | Self::Aes256GcmDerived => Role::Mac,
            Self::HpkeP256 => Role::Agree,
            Self::MlKem768 => Role::Decapsulate,
            Self::Rsa2048Oaep | Self::Rsa3072Oaep | Self::Rsa4096Oaep => Role::Decrypt,
            Self::Aes256Gcm => Role::Cipher,
        }
    }

    /// How often a version of such keys protects, where there is an end to it.
    #[must_use]
    pub const fn uses(self) -> Option<Uses> {
        match self.role() {
            // "The total number of invocations of the authenticated encryption function shall not exceed 2^32" with nonces that
            // are drawn (SP 800-38D, 8.3). Half of that leaves the chance of two alike at 2^-35.
            Role::Cipher => Some(Uses { rotates: 1 << 30, stops: 1 << 31 }),
            Role::Sign | Role::Mac | Role::Agree | Role::Decrypt | Role::Decapsulate => None,
        }
    }

    /// The hash that is part of the algorithm; Ed25519, ML-DSA and ML-KEM hash by themselves, and AES-GCM does not.
    #[must_use]
    pub const fn hash(self) -> Option<Hash> {
        match self {
            Self::EcdsaP384 | Self::HmacSha384 => Some(Hash::Sha384),
            Self::EcdsaP521 | Self::HmacSha512 => Some(Hash::Sha512),
            Self::Ed25519 | Self::MlDsa65 | Self::MlKem768 | Self::Aes256Gcm => None,
            Self::EcdsaP256 | Self::HmacSha256 | Self::Aes256GcmDerived | Self::HpkeP256 => Some(Hash::Sha256),
            Self::Rsa2048Pkcs1 | Self::Rsa3072Pkcs1 | Self::Rsa4096Pkcs1 => Some(Hash::Sha256),
            Self::Rsa2048Pss | Self::Rsa3072Pss | Self::Rsa4096Pss => Some(Hash::Sha256),
            Self::Rsa2048Oaep | Self::Rsa3072Oaep | Self::Rsa4096Oaep => Some(Hash::Sha256),
        }
    }

    /// The curve of a key of ECDSA or ECDH.
    #[must_use]
    pub const fn curve(self) -> Option<Curve> {
        match self {
            Self::EcdsaP256 | Self::HpkeP256 => Some(Curve::P256),
            Self::EcdsaP384 => Some(Curve::P384),
            Self::EcdsaP521 => Some(Curve::P521),
            Self::Ed25519 | Self::MlDsa65 | Self::HmacSha256 | Self::HmacSha384 | Self::HmacSha512 => None,
            Self::Aes256GcmDerived | Self::Aes256Gcm | Self::MlKem768 => None,
            Self::Rsa2048Pkcs1 | Self::Rsa3072Pkcs1 | Self::Rsa4096Pkcs1 => None,
            Self::Rsa2048Pss | Self::Rsa3072Pss | Self::Rsa4096Pss => None,
            Self::Rsa2048Oaep | Self::Rsa3072Oaep | Self::Rsa4096Oaep => None,
        }
    }

    /// The modulus length of an RSA key, in bits.
    #[must_use]
    pub const fn rsa_bits(self) -> Option<u32> {
        match self {
            Self::Rsa2048Pkcs1 | Self::Rsa2048Pss | Self::Rsa2048Oaep => Some(2048),
            Self::Rsa3072Pkcs1 | Self::Rsa3072Pss | Self::Rsa3072Oaep => Some(3072),
            Self::Rsa4096Pkcs1 | Self::Rsa4096Pss | Self::Rsa4096Oaep => Some(4096),
            Self::EcdsaP256 | Self::EcdsaP384 | Self::EcdsaP521 | Self::HpkeP256 => None,
            Self::Ed25519 | Self::MlDsa65 | Self::MlKem768 => None,
            Self::HmacSha256 | Self::HmacSha384 | Self::HmacSha512 => None,
            Self::Aes256GcmDerived | Self::Aes256Gcm => None,
        }
    }

    /// Whether an RSA key pads by PSS.
    #[must_use]
    pub const fn is_pss(self) -> bool {
        matches!(self, Self::Rsa2048Pss | Self::Rsa3072Pss | Self::Rsa4096Pss)
    }

    /// The length of a symmetric key in bytes; the device key behind `aes256-gcm-derived` is an HMAC-SHA-256 key.
    #[must_use]
    pub const fn secret_len(self) -> Option<usize> {
        match self.role() {
            Role::Sign | Role::Agree | Role::Decrypt | Role::Decapsulate => None,
            Role::Cipher => Some(32),
            Role::Mac => match self.hash() {
                Some(hash) => Some(hash.size()),
                None => None,
            },
        }
    }

    /// The `alg` of JOSE ([RFC 7518](https://www.rfc-editor.org/rfc/rfc7518#section-3.1), [RFC 8037](https://www.rfc-editor.org/rfc/rfc8037),
    /// [RFC 9964](https://www.rfc-editor.org/rfc/rfc9964)) for a signature key.
    #[must_use]
    pub const fn jose(self) -> Option<&'static str> {
        match self {
            Self::EcdsaP256 => Some("ES256"),
            Self::EcdsaP384 => Some("ES384"),
            Self::EcdsaP521 => Some("ES512"),
            Self::Ed25519 => Some("EdDSA"),
            Self::MlDsa65 => Some("ML-DSA-65"),
            Self::Rsa2048Pkcs1 | Self::Rsa3072Pkcs1 | Self::Rsa4096Pkcs1 => Some("RS256"),
            Self::Rsa2048Pss | Self::Rsa3072Pss | Self::Rsa4096Pss => Some("PS256"),
            Self::HmacSha256 | Self::HmacSha384 | Self::HmacSha512 => None,
            Self::Aes256GcmDerived | Self::Aes256Gcm | Self::HpkeP256 | Self::MlKem768 => None,
            Self::Rsa2048Oaep | Self::Rsa3072Oaep | Self::Rsa4096Oaep => None,
        }
    }
}
