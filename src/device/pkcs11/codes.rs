//! The one table of return codes: what each means, what a failure with it is, and what the operator does about it.
//!
//! A code is judged twice, because the same answer means different things: after a call that changes nothing in the token
//! (a signature, a search, anything on session objects) it can be tried again; after one that makes or destroys a token
//! object it may have happened all the same. Codes that the standard gives out before the call acts
//! ([PKCS#11 v3.0, section 5.1](https://docs.oasis-open.org/pkcs11/pkcs11-base/v3.0/os/pkcs11-base-v3.0-os.html#_Toc29976592))
//! are never ambiguous.

use pkcs11_raw::{Error, ck, name_of};

use crate::device::Class::{
    self, Ambiguous, Config, DeviceGone, Full, Internal, KeyDamaged, KeyGone, PinLocked, PinRefused, Refused, Retry,
    Unsupported,
};
use crate::device::Fault;

/// What a call does to the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing that outlives the session.
    Idle,
    /// A token object is made or destroyed.
    Change,
}

/// One return code. The number belongs to the name in [`pkcs11_raw::CODES`].
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The name in the standard.
    pub name: &'static str,
    /// What it means here.
    pub meaning: &'static str,
    /// The class after a call that changes nothing.
    pub idle: Class,
    /// The class after a call that changes the token.
    pub change: Class,
    /// What the operator does.
    pub mend: &'static str,
}

const NONE: &str = "nothing: the service tries again by itself";
const VENDOR: &str = "if it stays, look into the device's own log and ask its maker";
const WORKER: &str = "nothing: the worker process is replaced; if it stays, check the device and its network";
const REPORT: &str = "please report this: the service should not have asked for it";
const ABILITY: &str = "use an algorithm that the description of this device lists";
const PRESENT: &str = "put the token back, or check the link to the HSM; the service goes on by itself";
const PIN: &str =
    "put the right PIN in place and restart; it is not tried again, because tokens lock after a few tries";
const DAMAGED: &str = "compare the token with its backup, and rotate the key";
const ROOM: &str = "destroy what is no longer needed, or use a larger token or wrapped keys";

/// All codes of the standard.
pub const ROWS: &[Row] = &[
    row("CKR_OK", "success", Internal, Internal, REPORT),
    row("CKR_CANCEL", "the call was cancelled", Retry, Ambiguous, NONE),
    row("CKR_HOST_MEMORY", "the library has no memory", Retry, Ambiguous, "give the worker process more memory"),
    row("CKR_SLOT_ID_INVALID", "the slot is gone", DeviceGone, DeviceGone, PRESENT),
    row("CKR_GENERAL_ERROR", "the library failed and does not say why", Retry, Ambiguous, VENDOR),
    row("CKR_FUNCTION_FAILED", "the call failed and the library does not say why", Retry, Ambiguous, VENDOR),
    row("CKR_ARGUMENTS_BAD", "the library refuses the arguments", Internal, Internal, REPORT),
    row("CKR_NO_EVENT", "nothing happened in a slot", Internal, Internal, REPORT),
    row("CKR_NEED_TO_CREATE_THREADS", "the library needs threads of its own", Config, Config, VENDOR),
    row("CKR_CANT_LOCK", "the library cannot be used by several threads", Config, Config, VENDOR),
    row(
        "CKR_ATTRIBUTE_READ_ONLY",
        "an attribute of the template is fixed by the token",
        Unsupported,
        Unsupported,
        ABILITY,
    ),
    row("CKR_ATTRIBUTE_SENSITIVE", "an attribute is not shown", Internal, Internal, REPORT),
    row("CKR_ATTRIBUTE_TYPE_INVALID", "the token does not know an attribute", Unsupported, Unsupported, ABILITY),
    row(
        "CKR_ATTRIBUTE_VALUE_INVALID",
        "the token refuses the value of an attribute",
        Unsupported,
        Unsupported,
        ABILITY,
    ),
    row("CKR_ACTION_PROHIBITED", "the token's policy forbids this", Unsupported, Unsupported, VENDOR),
    row("CKR_DATA_INVALID", "the token refuses the input", Refused, Refused, REPORT),
    row("CKR_DATA_LEN_RANGE", "the token refuses the length of the input", Refused, Refused, REPORT),
    row("CKR_DEVICE_ERROR", "the device failed, or the link to it", Retry, Ambiguous, VENDOR),
    row("CKR_DEVICE_MEMORY", "the device is full", Full, Full, ROOM),
    row("CKR_DEVICE_REMOVED", "the token was taken out during the call", DeviceGone, Ambiguous, PRESENT),
    row("CKR_ENCRYPTED_DATA_INVALID", "the ciphertext is damaged", Refused, Refused, DAMAGED),
    row("CKR_ENCRYPTED_DATA_LEN_RANGE", "the ciphertext has a wrong length", Refused, Refused, DAMAGED),
    row("CKR_AEAD_DECRYPT_FAILED", "the ciphertext does not open", Refused, Refused, DAMAGED),
    row("CKR_FUNCTION_CANCELED", "the call was cancelled", Retry, Ambiguous, NONE),
    row("CKR_FUNCTION_NOT_PARALLEL", "there is no such call any more", Internal, Internal, REPORT),
    row("CKR_FUNCTION_NOT_SUPPORTED", "the library does not have this call", Unsupported, Unsupported, ABILITY),
    row("CKR_KEY_HANDLE_INVALID", "the token does not show the key", KeyGone, Retry, DAMAGED),
    row("CKR_KEY_SIZE_RANGE", "the token refuses this key size", Unsupported, Unsupported, ABILITY),
    row("CKR_KEY_TYPE_INCONSISTENT", "the key in the token is of another type", KeyDamaged, Refused, DAMAGED),
    row("CKR_KEY_NOT_NEEDED", "the key was not expected", Internal, Internal, REPORT),
    row("CKR_KEY_CHANGED", "the key is not the same as before", KeyDamaged, KeyDamaged, DAMAGED),
    row("CKR_KEY_NEEDED", "a key was expected", Internal, Internal, REPORT),
    row("CKR_KEY_INDIGESTIBLE", "the key cannot be hashed", Internal, Internal, REPORT),
    row("CKR_KEY_FUNCTION_NOT_PERMITTED", "the key in the token may not do this", KeyDamaged, Refused, DAMAGED),
    row("CKR_KEY_NOT_WRAPPABLE", "the token cannot wrap keys of this type", Unsupported, Unsupported, ABILITY),
    row("CKR_KEY_UNEXTRACTABLE", "the key may not leave the token", Unsupported, Unsupported, ABILITY),
    row("CKR_MECHANISM_INVALID", "the token does not have this algorithm", Unsupported, Unsupported, ABILITY),
    row(
        "CKR_MECHANISM_PARAM_INVALID",
        "the token refuses the algorithm's parameters",
        Unsupported,
        Unsupported,
        ABILITY,
    ),
    row("CKR_OBJECT_HANDLE_INVALID", "the token does not show the object", KeyGone, Retry, DAMAGED),
    row("CKR_OPERATION_ACTIVE", "the session is stuck with an earlier call", Retry, Retry, NONE),
    row("CKR_OPERATION_NOT_INITIALIZED", "the session lost the operation", Retry, Retry, NONE),
    row("CKR_PIN_INCORRECT", "the PIN is wrong", PinRefused, PinRefused, PIN),
    row("CKR_PIN_INVALID", "the PIN has characters that the token refuses", PinRefused, PinRefused, PIN),
    row("CKR_PIN_LEN_RANGE", "the PIN is too short or too long", PinRefused, PinRefused, PIN),
    row(
        "CKR_PIN_EXPIRED",
        "the PIN has expired",
        PinRefused,
        PinRefused,
        "set a new PIN with the maker's tool, then put it in place",
    ),
    row(
        "CKR_PIN_LOCKED",
        "the PIN is locked",
        PinLocked,
        PinLocked,
        "unlock it with the security officer's PIN, for example `pkcs11-tool --init-pin --login --login-type so`",
    ),
    row("CKR_SESSION_CLOSED", "the session was closed during the call", Retry, Ambiguous, NONE),
    row(
        "CKR_SESSION_COUNT",
        "the token has no session left",
        Retry,
        Retry,
        "set fewer `threads`, or close other programs on the token",
    ),
    row("CKR_SESSION_HANDLE_INVALID", "the session is gone", Retry, Retry, NONE),
    row("CKR_SESSION_PARALLEL_NOT_SUPPORTED", "the token refuses the kind of session", Internal, Internal, REPORT),
    row(
        "CKR_SESSION_READ_ONLY",
        "the session cannot change the token",
        Config,
        Config,
        "the token is write-protected: see the maker's tool",
    ),
    row("CKR_SESSION_EXISTS", "a session is open", Internal, Internal, REPORT),
    row("CKR_SESSION_READ_ONLY_EXISTS", "a read-only session is open", Internal, Internal, REPORT),
    row(
        "CKR_SESSION_READ_WRITE_SO_EXISTS",
        "the security officer is logged in",
        Config,
        Config,
        "end the program that has the token open",
    ),
    row("CKR_SIGNATURE_INVALID", "the signature is wrong", Internal, Internal, REPORT),
    row("CKR_SIGNATURE_LEN_RANGE", "the signature has a wrong length", Internal, Internal, REPORT),
    row("CKR_TEMPLATE_INCOMPLETE", "the token wants more attributes", Unsupported, Unsupported, ABILITY),
    row("CKR_TEMPLATE_INCONSISTENT", "the token refuses the attributes", Unsupported, Unsupported, ABILITY),
    row("CKR_TOKEN_NOT_PRESENT", "the token is not in its slot", DeviceGone, DeviceGone, PRESENT),
    row("CKR_TOKEN_NOT_RECOGNIZED", "the slot does not know what is in it", DeviceGone, DeviceGone, PRESENT),
    row(
        "CKR_TOKEN_WRITE_PROTECTED",
        "the token is write-protected",
        Config,
        Config,
        "allow writing with the maker's tool",
    ),
    row("CKR_UNWRAPPING_KEY_HANDLE_INVALID", "the token does not show the key-encryption key", KeyGone, Retry, DAMAGED),
    row("CKR_UNWRAPPING_KEY_SIZE_RANGE", "the key-encryption key has a wrong size", KeyDamaged, KeyDamaged, DAMAGED),
    row(
        "CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT",
        "the key-encryption key is of another type",
        KeyDamaged,
        KeyDamaged,
        DAMAGED,
    ),
    row("CKR_USER_ALREADY_LOGGED_IN", "the token is logged in already", Internal, Internal, REPORT),
    row("CKR_USER_NOT_LOGGED_IN", "the token has logged the service out", DeviceGone, DeviceGone, WORKER),
    row(
        "CKR_USER_PIN_NOT_INITIALIZED",
        "the token has no user PIN yet",
        Config,
        Config,
        "set one, for example `pkcs11-tool --init-pin --login --login-type so`",
    ),
    row("CKR_USER_TYPE_INVALID", "the token does not know this kind of user", Internal, Internal, REPORT),
    row(
        "CKR_USER_ANOTHER_ALREADY_LOGGED_IN",
        "another user is logged in",
        Config,
        Config,
        "end the program that has the token open",
    ),
    row(
        "CKR_USER_TOO_MANY_TYPES",
        "too many kinds of users are logged in",
        Config,
        Config,
        "end the program that has the token open",
    ),
    row(
        "CKR_WRAPPED_KEY_INVALID",
        "the wrapped key is damaged, or is another token's",
        KeyDamaged,
        KeyDamaged,
        DAMAGED,
    ),
    row("CKR_WRAPPED_KEY_LEN_RANGE", "the wrapped key has a wrong length", KeyDamaged, KeyDamaged, DAMAGED),
    row("CKR_WRAPPING_KEY_HANDLE_INVALID", "the token does not show the key-encryption key", KeyGone, Retry, DAMAGED),
    row("CKR_WRAPPING_KEY_SIZE_RANGE", "the key-encryption key has a wrong size", KeyDamaged, KeyDamaged, DAMAGED),
    row(
        "CKR_WRAPPING_KEY_TYPE_INCONSISTENT",
        "the key-encryption key is of another type",
        KeyDamaged,
        KeyDamaged,
        DAMAGED,
    ),
    row("CKR_RANDOM_SEED_NOT_SUPPORTED", "the generator cannot be seeded", Internal, Internal, REPORT),
    row("CKR_RANDOM_NO_RNG", "the token has no random generator", Unsupported, Unsupported, ABILITY),
    row("CKR_DOMAIN_PARAMS_INVALID", "the token refuses the curve", Unsupported, Unsupported, ABILITY),
    row("CKR_CURVE_NOT_SUPPORTED", "the token does not have this curve", Unsupported, Unsupported, ABILITY),
    row("CKR_BUFFER_TOO_SMALL", "the answer is longer than any answer should be", Internal, Internal, REPORT),
    row("CKR_SAVED_STATE_INVALID", "the saved state is wrong", Internal, Internal, REPORT),
    row("CKR_INFORMATION_SENSITIVE", "the information is not shown", Internal, Internal, REPORT),
    row("CKR_STATE_UNSAVEABLE", "the state cannot be saved", Internal, Internal, REPORT),
    row("CKR_CRYPTOKI_NOT_INITIALIZED", "the library was closed behind our back", DeviceGone, DeviceGone, WORKER),
    row("CKR_CRYPTOKI_ALREADY_INITIALIZED", "the library is open already in this process", Internal, Internal, REPORT),
    row("CKR_MUTEX_BAD", "the library's locks are broken", Retry, Ambiguous, WORKER),
    row("CKR_MUTEX_NOT_LOCKED", "the library's locks are broken", Retry, Ambiguous, WORKER),
    row("CKR_NEW_PIN_MODE", "the token wants a new PIN", PinRefused, PinRefused, PIN),
    row("CKR_NEXT_OTP", "the token wants another one-time password", PinRefused, PinRefused, PIN),
    row("CKR_EXCEEDED_MAX_ITERATIONS", "the parameters cannot be made", Retry, Retry, VENDOR),
    row(
        "CKR_FIPS_SELF_TEST_FAILED",
        "the device failed its self-test and stands still",
        DeviceGone,
        DeviceGone,
        VENDOR,
    ),
    row("CKR_LIBRARY_LOAD_FAILED", "the library lacks another one", Config, Config, VENDOR),
    row("CKR_PIN_TOO_WEAK", "the PIN is too weak", PinRefused, PinRefused, PIN),
    row("CKR_PUBLIC_KEY_INVALID", "the public key is wrong", KeyDamaged, KeyDamaged, DAMAGED),
    row("CKR_FUNCTION_REJECTED", "somebody at the device refused", Retry, Retry, VENDOR),
    row("CKR_TOKEN_RESOURCE_EXCEEDED", "the token is full or too busy", Full, Full, ROOM),
    row("CKR_OPERATION_CANCEL_FAILED", "the operation could not be ended", Retry, Ambiguous, NONE),
    row("CKR_KEY_EXHAUSTED", "the key has no use left", KeyDamaged, KeyDamaged, "rotate the key"),
    row("CKR_PENDING", "the call has not ended", Internal, Ambiguous, REPORT),
    row("CKR_SESSION_ASYNC_NOT_SUPPORTED", "the token works in order only", Internal, Internal, REPORT),
    row("CKR_SEED_RANDOM_REQUIRED", "the generator wants a seed", Unsupported, Unsupported, VENDOR),
    row("CKR_OPERATION_NOT_VALIDATED", "the token's rules forbid the operation", Unsupported, Unsupported, ABILITY),
    row("CKR_TOKEN_NOT_INITIALIZED", "the token was never initialised", Config, Config, "initialise the token first"),
    row(
        "CKR_PARAMETER_SET_NOT_SUPPORTED",
        "the token does not have these parameters",
        Unsupported,
        Unsupported,
        ABILITY,
    ),
    row("CKR_VENDOR_DEFINED", "the maker's own code", Retry, Ambiguous, VENDOR),
];

const fn row(name: &'static str, meaning: &'static str, idle: Class, change: Class, mend: &'static str) -> Row {
    Row { name, meaning, idle, change, mend }
}

/// The row of a code by its name, such as `CKR_DEVICE_ERROR`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

/// What a failed call is.
pub(super) fn fault(error: Error, effect: Effect) -> Fault {
    let Error { function, code } = error;
    let Some(row) = name_of(code).and_then(find) else {
        // Above CKR_VENDOR_DEFINED each maker has codes of his own; without knowledge the worst is assumed.
        let class = match effect {
            Effect::Idle => Retry,
            Effect::Change => Ambiguous,
        };
        let fault = Fault::new(class, format!("{function}: a code that only the device's maker knows")).hint(VENDOR);
        return Fault { code: Some(format!("{code:#010x}")), ..fault };
    };
    let (class, mend) = match effect {
        // A template that only asks holds no value of ours: what is refused there is what the object holds.
        Effect::Idle if function == READS && ATTRIBUTE.contains(&code) => (KeyDamaged, DAMAGED),
        Effect::Idle => (row.idle, row.mend),
        Effect::Change => (row.change, row.mend),
    };
    Fault { code: Some(row.name.to_owned()), ..Fault::new(class, format!("{function}: {}", row.meaning)).hint(mend) }
}

/// The call that reads attributes, and what a library says there of a damaged object: SoftHSM answers for one whose
/// attributes have changed their type with a code that the standard does not give to this call.
const READS: &str = "C_GetAttributeValue";
const ATTRIBUTE: [ck::CK_RV; 3] =
    [ck::CKR_ATTRIBUTE_TYPE_INVALID, ck::CKR_ATTRIBUTE_VALUE_INVALID, ck::CKR_TEMPLATE_INCONSISTENT];

/// The calls that fail where what is opened is not what was closed, which tokens say in every way.
const OPENS: [&str; 2] = ["C_Decrypt", "C_UnwrapKey"];

/// What the driver itself can do about a failed call that changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// The call cannot have reached a key: once more on a new session.
    Again,
    /// The handle is no longer good: see whether the token is there, find the key anew, once more.
    Reload,
    /// The token does not say whether the key or itself is broken: see whether the token works, once more.
    Doubt,
    /// Nothing.
    Report,
}

/// The remedy for a failed call.
pub(super) fn remedy(error: Error) -> Remedy {
    match error.code {
        ck::CKR_SESSION_HANDLE_INVALID
        | ck::CKR_SESSION_CLOSED
        | ck::CKR_OPERATION_ACTIVE
        | ck::CKR_OPERATION_NOT_INITIALIZED => Remedy::Again,
        ck::CKR_KEY_HANDLE_INVALID
        | ck::CKR_OBJECT_HANDLE_INVALID
        | ck::CKR_UNWRAPPING_KEY_HANDLE_INVALID
        | ck::CKR_WRAPPING_KEY_HANDLE_INVALID => Remedy::Reload,
        ck::CKR_GENERAL_ERROR | ck::CKR_FUNCTION_FAILED => Remedy::Doubt,
        // Kryoptic says so of a ciphertext or a blob that does not open.
        ck::CKR_DEVICE_ERROR if OPENS.contains(&error.function) => Remedy::Doubt,
        _ => Remedy::Report,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_of_the_standard_has_one_row() {
        let rows: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        let codes: Vec<_> = pkcs11_raw::CODES.iter().map(|(_, name)| *name).collect();
        assert_eq!(rows, codes);
    }

    #[test]
    fn nothing_that_may_have_happened_is_called_safe() {
        let unsure = [
            "CKR_GENERAL_ERROR",
            "CKR_FUNCTION_FAILED",
            "CKR_DEVICE_ERROR",
            "CKR_DEVICE_REMOVED",
            "CKR_SESSION_CLOSED",
        ];
        assert!(unsure.iter().all(|name| find(name).unwrap().change == Ambiguous));
        let unknown = fault(Error { function: "C_GenerateKey", code: 0x8000_0123 }, Effect::Change);
        assert_eq!((unknown.class, unknown.code.as_deref()), (Ambiguous, Some("0x80000123")));
    }

    #[test]
    fn a_refused_attribute_is_the_objects_when_read_and_ours_when_written() {
        let code = ck::CKR_ATTRIBUTE_VALUE_INVALID;
        let class = |function, effect| fault(Error { function, code }, effect).class;
        assert_eq!(class("C_GetAttributeValue", Effect::Idle), KeyDamaged);
        assert_eq!(class("C_GenerateKey", Effect::Change), Unsupported);
        assert_eq!(class("C_UnwrapKey", Effect::Idle), Unsupported);
    }
}
