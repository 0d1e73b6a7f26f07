//! Mechanisms: the algorithms of the standard, with their parameters.

use cryptoki_sys::{
    CK_MECHANISM, CK_MECHANISM_TYPE, CK_RSA_PKCS_MGF_TYPE, CK_RSA_PKCS_OAEP_PARAMS, CK_RSA_PKCS_PSS_PARAMS,
    CK_SIGN_ADDITIONAL_CONTEXT, CK_ULONG, CKG_MGF1_SHA1, CKG_MGF1_SHA256, CKG_MGF1_SHA384, CKG_MGF1_SHA512,
    CKH_HEDGE_REQUIRED, CKM_AES_GCM, CKM_AES_KEY_GEN, CKM_AES_KEY_WRAP_KWP, CKM_AES_KEY_WRAP_PAD,
    CKM_EC_EDWARDS_KEY_PAIR_GEN, CKM_EC_KEY_PAIR_GEN, CKM_ECDH1_DERIVE, CKM_ECDSA, CKM_EDDSA,
    CKM_GENERIC_SECRET_KEY_GEN, CKM_ML_DSA, CKM_ML_DSA_KEY_PAIR_GEN, CKM_ML_KEM, CKM_ML_KEM_KEY_PAIR_GEN, CKM_RSA_PKCS,
    CKM_RSA_PKCS_KEY_PAIR_GEN, CKM_RSA_PKCS_OAEP, CKM_RSA_PKCS_PSS, CKM_SHA_1, CKM_SHA256, CKM_SHA256_HMAC, CKM_SHA384,
    CKM_SHA384_HMAC, CKM_SHA512, CKM_SHA512_HMAC, CKZ_DATA_SPECIFIED,
};

/// A hash function as a parameter of PSS or OAEP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// SHA-1, for OAEP alone, which asks of it no more than it still gives.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// What to do with a key. To add one: a variant, its number in [`Mechanism::number`], its parameter if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Makes a key pair on the curve of `CKA_EC_PARAMS`.
    EcKeyPairGen,
    /// Makes an Edwards key pair.
    EdwardsKeyPairGen,
    /// Makes an ML-DSA key pair of the size that `CKA_PARAMETER_SET` names.
    MlDsaKeyPairGen,
    /// Makes an ML-KEM key pair of the size that `CKA_PARAMETER_SET` names.
    MlKemKeyPairGen,
    /// Makes an RSA key pair.
    RsaPkcsKeyPairGen,
    /// Makes a generic secret of `CKA_VALUE_LEN` bytes.
    GenericSecretKeyGen,
    /// Makes an AES key of `CKA_VALUE_LEN` bytes.
    AesKeyGen,
    /// Agrees on a secret with a point ([`crate::Session::agree`] gives it as the parameter).
    Ecdh1Derive,
    /// AES-GCM ([`crate::Session::seal`] and [`crate::Session::open_sealed`] give its parameters).
    AesGcm,
    /// ECDSA over a digest; the signature is `r || s`.
    Ecdsa,
    /// Pure EdDSA over a message: without a parameter there is neither context nor pre-hash.
    Eddsa,
    /// Pure ML-DSA over a message ([FIPS 204, 5.2](https://doi.org/10.6028/NIST.FIPS.204)), with an empty context. The token has to draw
    /// randomness for each signature, or to refuse.
    MlDsa,
    /// ML-KEM ([FIPS 203](https://doi.org/10.6028/NIST.FIPS.203)): [`crate::Session::decapsulate`].
    MlKem,
    /// PKCS#1 v1.5 over a `DigestInfo`.
    RsaPkcs,
    /// PSS over a digest.
    RsaPss {
        /// What made the digest.
        hash: Digest,
        /// The hash of MGF1.
        mgf: Digest,
        /// The length of the salt.
        salt: usize,
    },
    /// OAEP with an empty label.
    RsaOaep {
        /// What hashes the label.
        hash: Digest,
        /// The hash of MGF1.
        mgf: Digest,
    },
    /// HMAC with SHA-256, whole.
    Sha256Hmac,
    /// HMAC with SHA-384, whole.
    Sha384Hmac,
    /// HMAC with SHA-512, whole.
    Sha512Hmac,
    /// 0x210A: [RFC 5649](https://www.rfc-editor.org/rfc/rfc5649) in SoftHSM and most others, a PKCS#7 padding in NSS. A blob
    /// must say which of the two numbers made it.
    AesKeyWrapPad,
    /// 0x210B: RFC 5649 by the letter of version 3 of the standard.
    AesKeyWrapKwp,
    /// Another one that has no parameter, by its number.
    Other(CK_MECHANISM_TYPE),
}

/// The C form of a parameter.
#[derive(Debug)]
pub(crate) enum Parameter {
    Pss(CK_RSA_PKCS_PSS_PARAMS),
    Oaep(CK_RSA_PKCS_OAEP_PARAMS),
    Context(CK_SIGN_ADDITIONAL_CONTEXT),
}

impl Digest {
    const fn mechanism(self) -> CK_MECHANISM_TYPE {
        match self {
            Self::Sha1 => CKM_SHA_1,
            Self::Sha256 => CKM_SHA256,
            Self::Sha384 => CKM_SHA384,
            Self::Sha512 => CKM_SHA512,
        }
    }

    const fn mask(self) -> CK_RSA_PKCS_MGF_TYPE {
        match self {
            Self::Sha1 => CKG_MGF1_SHA1,
            Self::Sha256 => CKG_MGF1_SHA256,
            Self::Sha384 => CKG_MGF1_SHA384,
            Self::Sha512 => CKG_MGF1_SHA512,
        }
    }
}

impl Mechanism {
    /// The number of the standard, as `CKA_ALLOWED_MECHANISMS` wants it.
    #[must_use]
    pub const fn number(self) -> CK_MECHANISM_TYPE {
        match self {
            Self::EcKeyPairGen => CKM_EC_KEY_PAIR_GEN,
            Self::EdwardsKeyPairGen => CKM_EC_EDWARDS_KEY_PAIR_GEN,
            Self::MlDsaKeyPairGen => CKM_ML_DSA_KEY_PAIR_GEN,
            Self::MlKemKeyPairGen => CKM_ML_KEM_KEY_PAIR_GEN,
            Self::RsaPkcsKeyPairGen => CKM_RSA_PKCS_KEY_PAIR_GEN,
            Self::GenericSecretKeyGen => CKM_GENERIC_SECRET_KEY_GEN,
            Self::AesKeyGen => CKM_AES_KEY_GEN,
            Self::Ecdh1Derive => CKM_ECDH1_DERIVE,
            Self::AesGcm => CKM_AES_GCM,
            Self::Ecdsa => CKM_ECDSA,
            Self::Eddsa => CKM_EDDSA,
            Self::MlDsa => CKM_ML_DSA,
            Self::MlKem => CKM_ML_KEM,
            Self::RsaPkcs => CKM_RSA_PKCS,
            Self::RsaPss { .. } => CKM_RSA_PKCS_PSS,
            Self::RsaOaep { .. } => CKM_RSA_PKCS_OAEP,
            Self::Sha256Hmac => CKM_SHA256_HMAC,
            Self::Sha384Hmac => CKM_SHA384_HMAC,
            Self::Sha512Hmac => CKM_SHA512_HMAC,
            Self::AesKeyWrapPad => CKM_AES_KEY_WRAP_PAD,
            Self::AesKeyWrapKwp => CKM_AES_KEY_WRAP_KWP,
            Self::Other(number) => number,
        }
    }

    /// The parameter, which must outlive the C form that points to it.
    pub(crate) fn parameter(self) -> Option<Parameter> {
        if let Self::RsaPss { hash, mgf, salt } = self {
            let (hash, mgf) = (hash.mechanism(), mgf.mask());
            Some(Parameter::Pss(CK_RSA_PKCS_PSS_PARAMS { hashAlg: hash, mgf, sLen: salt as CK_ULONG }))
        } else if let Self::RsaOaep { hash, mgf } = self {
            Some(Parameter::Oaep(CK_RSA_PKCS_OAEP_PARAMS {
                hashAlg: hash.mechanism(),
                mgf: mgf.mask(),
                source: CKZ_DATA_SPECIFIED,
                pSourceData: std::ptr::null_mut(),
                ulSourceDataLen: 0,
            }))
        } else if self == Self::MlDsa {
            Some(Parameter::Context(CK_SIGN_ADDITIONAL_CONTEXT {
                hedgeVariant: CKH_HEDGE_REQUIRED,
                pContext: std::ptr::null_mut(),
                ulContextLen: 0,
            }))
        } else {
            None
        }
    }

    /// The C form, pointing to `parameter`.
    pub(crate) fn raw(self, parameter: &mut Option<Parameter>) -> CK_MECHANISM {
        let (pointer, length) = match parameter {
            Some(Parameter::Pss(pss)) => (std::ptr::from_mut(pss).cast(), size_of::<CK_RSA_PKCS_PSS_PARAMS>()),
            Some(Parameter::Oaep(oaep)) => (std::ptr::from_mut(oaep).cast(), size_of::<CK_RSA_PKCS_OAEP_PARAMS>()),
            Some(Parameter::Context(context)) => {
                (std::ptr::from_mut(context).cast(), size_of::<CK_SIGN_ADDITIONAL_CONTEXT>())
            }
            None => (std::ptr::null_mut(), 0),
        };
        CK_MECHANISM { mechanism: self.number(), pParameter: pointer, ulParameterLen: length as CK_ULONG }
    }
}
