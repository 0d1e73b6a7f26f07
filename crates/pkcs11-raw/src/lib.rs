#![deny(unsafe_op_in_unsafe_fn)]
//! A thin safe layer over the function list of a PKCS#11 library
//! ([OASIS PKCS#11 v3.0](https://docs.oasis-open.org/pkcs11/pkcs11-base/v3.0/os/pkcs11-base-v3.0-os.html)), and what version 3.2 adds for keys
//! that outlast quantum computers, where the library has it.
//!
//! One Rust method is one PKCS#11 call, or the shortest fixed sequence where the standard demands one (`C_SignInit` and one
//! `C_Sign`, the three calls of a search). Nothing is retried, cached or guessed; an [`Error`] is the name of the function
//! and the code it returned. What is offered is what a key service needs, so there is no call meant to bring key material in,
//! and none that takes it out other than wrapped, but for the secret that two keys agree on, or that is encapsulated to one.
//!
//! ```text
//! Module ── a loaded library, initialised; finalised when the last owner lets go
//!   Slot ── where a token is
//!     Session ── one conversation: Send, not Sync, closed on drop
//!       Object ── a number that means something to the token
//! ```
//!
//! It does not protect from a library that breaks the standard: such a library runs in our address space, which is why it
//! should run in a process of its own.

mod attribute;
mod code;
mod mechanism;
mod module;
mod session;

pub use attribute::Attribute;
pub use code::{CODES, name_of};
pub use mechanism::{Digest, Mechanism};
pub use module::{KeySizes, LoadError, Module, Slot, TokenFlags, TokenInfo};
pub use session::{InnerTemplate, Object, Session};

/// The constants of the standard that callers need.
pub mod ck {
    pub use cryptoki_sys::{
        CK_ATTRIBUTE_TYPE, CK_RV, CK_ULONG, CKA_ALLOWED_MECHANISMS, CKA_ALWAYS_SENSITIVE, CKA_APPLICATION, CKA_CLASS,
        CKA_COPYABLE, CKA_DECAPSULATE, CKA_DECRYPT, CKA_DERIVE, CKA_EC_PARAMS, CKA_EC_POINT, CKA_ENCAPSULATE,
        CKA_ENCRYPT, CKA_EXTRACTABLE, CKA_ID, CKA_KEY_GEN_MECHANISM, CKA_KEY_TYPE, CKA_LABEL, CKA_LOCAL,
        CKA_MODIFIABLE, CKA_MODULUS, CKA_MODULUS_BITS, CKA_NEVER_EXTRACTABLE, CKA_PARAMETER_SET, CKA_PRIVATE,
        CKA_PUBLIC_EXPONENT, CKA_SENSITIVE, CKA_SIGN, CKA_SIGN_RECOVER, CKA_TOKEN, CKA_TRUSTED, CKA_UNWRAP,
        CKA_UNWRAP_TEMPLATE, CKA_VALUE, CKA_VALUE_LEN, CKA_VERIFY, CKA_WRAP, CKA_WRAP_WITH_TRUSTED, CKK_AES, CKK_EC,
        CKK_EC_EDWARDS, CKK_GENERIC_SECRET, CKK_ML_DSA, CKK_ML_KEM, CKK_RSA, CKM_AES_ECB, CKM_AES_KEY_WRAP,
        CKM_ECDSA_SHA1, CKM_SHA_1_HMAC, CKO_DATA, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY, CKO_SECRET_KEY, CKP_ML_DSA_65,
        CKP_ML_KEM_768, CKR_ACTION_PROHIBITED, CKR_ARGUMENTS_BAD, CKR_ATTRIBUTE_READ_ONLY, CKR_ATTRIBUTE_SENSITIVE,
        CKR_ATTRIBUTE_TYPE_INVALID, CKR_ATTRIBUTE_VALUE_INVALID, CKR_BUFFER_TOO_SMALL,
        CKR_CRYPTOKI_ALREADY_INITIALIZED, CKR_CRYPTOKI_NOT_INITIALIZED, CKR_DEVICE_ERROR, CKR_DEVICE_MEMORY,
        CKR_DEVICE_REMOVED, CKR_FUNCTION_FAILED, CKR_FUNCTION_NOT_SUPPORTED, CKR_GENERAL_ERROR, CKR_KEY_HANDLE_INVALID,
        CKR_KEY_NOT_WRAPPABLE, CKR_MECHANISM_INVALID, CKR_OBJECT_HANDLE_INVALID, CKR_OK, CKR_OPERATION_ACTIVE,
        CKR_OPERATION_NOT_INITIALIZED, CKR_PIN_EXPIRED, CKR_PIN_INCORRECT, CKR_PIN_INVALID, CKR_PIN_LEN_RANGE,
        CKR_PIN_LOCKED, CKR_SESSION_CLOSED, CKR_SESSION_HANDLE_INVALID, CKR_TEMPLATE_INCONSISTENT,
        CKR_TOKEN_NOT_PRESENT, CKR_UNWRAPPING_KEY_HANDLE_INVALID, CKR_USER_ALREADY_LOGGED_IN, CKR_USER_NOT_LOGGED_IN,
        CKR_USER_PIN_NOT_INITIALIZED, CKR_WRAPPED_KEY_INVALID, CKR_WRAPPING_KEY_HANDLE_INVALID,
    };
}

/// A call that did not return `CKR_OK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// The function, such as `C_Sign`.
    pub function: &'static str,
    /// What it returned.
    pub code: ck::CK_RV,
}

/// The result of each call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match name_of(self.code) {
            Some(name) => write!(f, "{}: {name}", self.function),
            None => write!(f, "{}: {:#010x}", self.function, self.code),
        }
    }
}

impl std::error::Error for Error {}

/// Turns a return code into a result.
const fn check(function: &'static str, code: ck::CK_RV) -> Result<()> {
    if code == ck::CKR_OK { Ok(()) } else { Err(Error { function, code }) }
}

/// Calls a function of the list, or answers `CKR_FUNCTION_NOT_SUPPORTED` where the library left it out. To be used within
/// an `unsafe` block that says why the arguments are good.
macro_rules! call {
    ($module:expr, $name:ident($($argument:expr),* $(,)?)) => {
        match $module.functions().$name {
            Some(function) => $crate::check(stringify!($name), function($($argument),*)),
            None => $crate::check(stringify!($name), cryptoki_sys::CKR_FUNCTION_NOT_SUPPORTED),
        }
    };
}
use call;
