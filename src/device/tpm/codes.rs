//! The one table of TPM response codes: what each means, what class of [`Fault`] it is, what we do, what the operator
//! does.
//!
//! A code has 32 bits ([TPM 2.0 Library, Part 2,
//! 6.6](https://trustedcomputinggroup.org/resource/tpm-library-specification/) and the TSS 2.0 overview): bits 16 to 23
//! name the layer that speaks, and the rest is that layer's own number.
//!
//! ```text
//! 0x000921   layer 0   the TPM, format zero: TPM_RC_LOCKOUT
//! 0x0001df   layer 0   the TPM, format one: number 0x1f (integrity), of parameter 1
//! 0x0b0902   layer 11  the kernel's resource manager, speaking for the TPM: as 0x902
//! 0x070007   layer 7   libtss2-esys: called in the wrong order, for ever after a broken transmission
//! 0x0a000a   layer 10  the transport (TCTI): input or output failed
//! ```
//!
//! The number is read from the text of the error, since the wrapper crate keeps it private, and knows no code of the
//! layers above the TPM.

use std::error::Error as _;

use tss_esapi::Error as TssError;

use crate::device::{Class, Fault};

/// What the driver itself does about a code, before it reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Drops all handles, the session and the context, opens anew, and tries once more.
    Rebuild,
    /// The TPM did nothing yet: waits a little and asks again, a few times.
    Wait,
    /// Nothing: the answer would be the same.
    Report,
}

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    /// The number, after the layer of a resource manager and the place of a format-one code are taken off.
    pub number: u32,
    /// Which bits of the number count.
    pub mask: u32,
    /// The name in the specification.
    pub name: &'static str,
    /// What it means, as a clause.
    pub meaning: &'static str,
    /// What a caller is to make of it, once the remedy did not help.
    pub class: Class,
    /// What the driver does first.
    pub remedy: Remedy,
    /// What the operator does.
    pub mend: &'static str,
}

const VALUE: u32 = 0x084;
const VALUE_OF_HANDLE: u32 = 0x184;
const HANDLE: u32 = 0x08b;
const AUTH_FAIL: u32 = 0x08e;
const BAD_AUTH: u32 = 0x0a2;
const SIZE: u32 = 0x095;
const POLICY_FAIL: u32 = 0x09d;
const FAILURE: u32 = 0x101;

/// The row of a response code.
#[must_use]
pub fn row(code: u32) -> &'static Row {
    let number = essence(code);
    TABLE.iter().find(|row| number & row.mask == row.number).unwrap_or(&UNKNOWN)
}

/// The code without what does not change its meaning: who relayed it, and which handle, session or parameter it is
/// about. Of one code it does change the meaning: a bad *value* of a parameter is a request the TPM cannot fulfil, a
/// bad value of a handle or session is one that is gone.
const fn essence(code: u32) -> u32 {
    const RELAYED_BY_KERNEL: u32 = 11;
    const RELAYED_BY_DAEMON: u32 = 12;
    const FORMAT_ONE: u32 = 0x80;
    const OF_PARAMETER: u32 = 0x40;
    const PLACE: u32 = 0xf00;
    let layer = (code >> 16) & 0xff;
    match layer {
        0 | RELAYED_BY_KERNEL | RELAYED_BY_DAEMON
            if code & 0xbf == VALUE && code & OF_PARAMETER == 0 && code & PLACE != 0 =>
        {
            VALUE_OF_HANDLE
        }
        0 | RELAYED_BY_KERNEL | RELAYED_BY_DAEMON if code & FORMAT_ONE != 0 => code & 0xbf,
        0 | RELAYED_BY_KERNEL | RELAYED_BY_DAEMON => code & 0xfff,
        _ => code & 0xff_ffff,
    }
}

/// A failure below this driver, before anything was done about it.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A layer of the TPM's software, or the TPM, answered a code to this command.
    Code(u32, &'static str),
    /// The wrapper crate failed by itself.
    Wrapper(TssError, &'static str),
    /// A handle of ours stands for another key than the one it was loaded for.
    Stale,
    /// One of our own checks failed, and the context is as good as before.
    Found(Fault),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Found(fault)
    }
}

impl Trouble {
    /// What the driver does about it.
    pub(super) fn remedy(&self) -> Remedy {
        match self {
            Self::Code(code, _) => row(*code).remedy,
            Self::Stale => Remedy::Rebuild,
            Self::Wrapper(..) | Self::Found(_) => Remedy::Report,
        }
    }

    /// Whether the TPM answered that it cannot do this at all.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Code(code, _) if row(*code).class == Class::Unsupported)
    }

    /// Whether the TPM has no object of that number.
    pub(super) fn is_no_handle(&self) -> bool {
        matches!(self, Self::Code(code, _) if essence(*code) == HANDLE)
    }

    /// Whether a TPM says this to a ciphertext that does not decrypt, among other things.
    pub(super) fn may_be_a_bad_ciphertext(&self) -> bool {
        matches!(self, Self::Code(code, _) if [VALUE, SIZE, FAILURE].contains(&essence(*code)))
    }

    /// Whether the policy of the object does not hold.
    pub(super) fn is_policy_failure(&self) -> bool {
        matches!(self, Self::Code(code, _) if essence(*code) == POLICY_FAIL)
    }

    /// Whether an authorisation value was wrong.
    pub(super) fn is_wrong_value(&self) -> bool {
        matches!(self, Self::Code(code, _) if [AUTH_FAIL, BAD_AUTH].contains(&essence(*code)))
    }

    /// What crosses the socket.
    pub(super) fn fault(self) -> Fault {
        match self {
            Self::Found(fault) => fault,
            Self::Wrapper(error, command) => Fault::new(Class::Internal, format!("{command}: {error}")),
            Self::Stale => Fault::new(Class::Retry, "a loaded key was replaced by another behind our back").hint(ALONE),
            Self::Code(code, command) => {
                let row = row(code);
                Fault {
                    class: row.class,
                    code: Some(format!("{} 0x{code:x}", row.name)),
                    text: format!("{command}: {}", row.meaning),
                    hint: Some(row.mend.to_owned()),
                    wait: None,
                }
            }
        }
    }
}

/// Turns an error of `command` into a [`Trouble`].
pub(super) fn during(command: &'static str) -> impl Fn(TssError) -> Trouble {
    move |error| match number(&error) {
        Some(code) => Trouble::Code(code, command),
        None => Trouble::Wrapper(error, command),
    }
}

/// The number of a code, from the end of the chain of causes: `Response code value: 0x921`.
fn number(error: &TssError) -> Option<u32> {
    let mut text = String::new();
    let mut next = error.source();
    while let Some(cause) = next {
        text = cause.to_string();
        next = cause.source();
    }
    let (_, digits) = text.split_once("0x")?;
    u32::from_str_radix(digits, 16).ok()
}

/// Builds a row whose every bit counts.
const fn exact(
    number: u32,
    name: &'static str,
    class: Class,
    remedy: Remedy,
    meaning: &'static str,
    mend: &'static str,
) -> Row {
    Row { number, mask: u32::MAX, name, meaning, class, remedy, mend }
}

/// Builds a row for a range of numbers.
const fn range(mask: u32, row: Row) -> Row {
    Row { mask, ..row }
}

const LOOK: &str =
    "run `tpm2_getcap properties-variable` and look at the kernel's log; if it stays, restart the machine";
const ALONE: &str = "something else uses this TPM without a resource manager; use /dev/tpmrm0, and nothing beside it";
const OURS: &str = "report it: the driver should never cause this";
const BLOB: &str = "restore the key's record from a backup; if other keys fail too, check the whole store";
const ROOM: &str =
    "list the indexes with `tpm2_getcap handles-nv-index` and remove one that nobody needs with `tpm2_nvundefine`";
const INDEX: &str =
    "somebody removed the anchor and made another in its place, or an installation was cut short: see docs/anchors.md";
const AGAIN: &str = "try again; the TPM is busy with itself";
/// What helps where the machine is not as it was.
pub(super) const REBIND: &str = "start the machine as it was when the version was made, or rotate the key: the new version is bound to what stands there now";
const UNABLE: &str = "choose another algorithm, or another device for this key; `signet doctor` lists what it can";

const UNKNOWN: Row = exact(
    0,
    "TPM_RC",
    Class::Internal,
    Remedy::Rebuild,
    "an answer this table does not know",
    "look the code up with `tpm2_rc_decode` and report it",
);

/// Format-one codes first (below 0x100), then errors, warnings and the layers above the TPM.
#[rustfmt::skip]
static TABLE: &[Row] = {
    use Class::{Busy, DeviceGone, Full, Internal, KeyDamaged, PcrsChanged, PinLocked, Refused, Retry, Unsupported};
    use Remedy::{Rebuild, Report, Wait};
    &[
        exact(0x081, "TPM_RC_ASYMMETRIC", Unsupported, Report, "this TPM does not know that asymmetric algorithm", UNABLE),
        exact(0x082, "TPM_RC_ATTRIBUTES", Internal, Report, "the attributes do not fit together", OURS),
        exact(0x083, "TPM_RC_HASH", Unsupported, Report, "this TPM does not know that hash", UNABLE),
        exact(VALUE, "TPM_RC_VALUE", Unsupported, Report, "this TPM does not take that value", UNABLE),
        exact(VALUE_OF_HANDLE, "TPM_RC_VALUE", Retry, Rebuild, "the handle or session is not there, most likely after a restart of the TPM", ALONE),
        exact(0x085, "TPM_RC_HIERARCHY", DeviceGone, Report, "the owner hierarchy is switched off", "switch it on in the firmware's set-up"),
        exact(0x087, "TPM_RC_KEY_SIZE", Unsupported, Report, "this TPM does not know that key size", UNABLE),
        exact(0x088, "TPM_RC_MGF", Unsupported, Report, "this TPM does not know that mask function", UNABLE),
        exact(0x089, "TPM_RC_MODE", Unsupported, Report, "this TPM does not know that cipher mode", UNABLE),
        exact(0x08a, "TPM_RC_TYPE", Internal, Rebuild, "the object is of another type", OURS),
        exact(HANDLE, "TPM_RC_HANDLE", Retry, Rebuild, "the handle is not there, most likely after a restart of the TPM", ALONE),
        exact(0x08c, "TPM_RC_KDF", Unsupported, Report, "this TPM does not know that key derivation", UNABLE),
        exact(0x08d, "TPM_RC_RANGE", Unsupported, Report, "this TPM does not take a value that large", UNABLE),
        exact(AUTH_FAIL, "TPM_RC_AUTH_FAIL", KeyDamaged, Rebuild, "the authorisation value is not this object's", BLOB),
        exact(0x08f, "TPM_RC_NONCE", Retry, Rebuild, "the session is out of step", ALONE),
        exact(0x090, "TPM_RC_PP", Internal, Report, "the command wants somebody at the machine", OURS),
        exact(0x092, "TPM_RC_SCHEME", Unsupported, Report, "this TPM does not know that signature scheme", UNABLE),
        exact(SIZE, "TPM_RC_SIZE", KeyDamaged, Report, "a structure has the wrong size", BLOB),
        exact(0x096, "TPM_RC_SYMMETRIC", Unsupported, Report, "this TPM has no AES with 256 bits", "use a TPM that has it"),
        exact(0x097, "TPM_RC_TAG", KeyDamaged, Report, "a structure has the wrong tag", BLOB),
        exact(0x098, "TPM_RC_SELECTOR", KeyDamaged, Report, "a structure has the wrong selector", BLOB),
        exact(0x09a, "TPM_RC_INSUFFICIENT", KeyDamaged, Report, "a structure is too short", BLOB),
        exact(0x09b, "TPM_RC_SIGNATURE", Internal, Report, "the signature is not valid", OURS),
        exact(0x09c, "TPM_RC_KEY", KeyDamaged, Report, "the key is not fit for this use", BLOB),
        exact(POLICY_FAIL, "TPM_RC_POLICY_FAIL", PcrsChanged, Report, "the machine's PCRs are not what the key was bound to", REBIND),
        exact(0x09f, "TPM_RC_INTEGRITY", KeyDamaged, Report, "the key's blob is not as this TPM made it", BLOB),
        exact(0x0a0, "TPM_RC_TICKET", KeyDamaged, Report, "the key signs only what the TPM hashed, which ours never do", BLOB),
        exact(0x0a1, "TPM_RC_RESERVED_BITS", KeyDamaged, Report, "a structure has bits set that must not be", BLOB),
        exact(BAD_AUTH, "TPM_RC_BAD_AUTH", KeyDamaged, Rebuild, "the authorisation value is not this object's", BLOB),
        exact(0x0a3, "TPM_RC_EXPIRED", Internal, Rebuild, "the authorisation has expired", OURS),
        exact(0x0a4, "TPM_RC_POLICY_CC", KeyDamaged, Report, "the key's policy is for another command", BLOB),
        exact(0x0a5, "TPM_RC_BINDING", KeyDamaged, Report, "the public and private halves are not of one key", BLOB),
        exact(0x0a6, "TPM_RC_CURVE", Unsupported, Report, "this TPM does not know that curve", UNABLE),
        exact(0x0a7, "TPM_RC_ECC_POINT", KeyDamaged, Report, "the public point is not on its curve", BLOB),

        exact(0x100, "TPM_RC_INITIALIZE", DeviceGone, Rebuild, "the TPM was reset and not started up", "the firmware, or the start command of a software TPM, must start it up"),
        exact(FAILURE, "TPM_RC_FAILURE", DeviceGone, Rebuild, "the TPM is in failure mode", "restart the machine; if it stays, replace the TPM and restore the keys from backup"),
        exact(0x103, "TPM_RC_SEQUENCE", Internal, Rebuild, "a sequence of hashing was broken off", OURS),
        exact(0x10b, "TPM_RC_PRIVATE", Internal, Rebuild, "not in use by the specification", OURS),
        exact(0x119, "TPM_RC_HMAC", Internal, Rebuild, "not in use by the specification", OURS),
        exact(0x120, "TPM_RC_DISABLED", DeviceGone, Report, "the command is switched off", "switch the TPM on in the firmware's set-up"),
        exact(0x121, "TPM_RC_EXCLUSIVE", Retry, Rebuild, "another user holds an exclusive session", ALONE),
        exact(0x124, "TPM_RC_AUTH_TYPE", Internal, Rebuild, "the authorisation is of the wrong kind", OURS),
        exact(0x125, "TPM_RC_AUTH_MISSING", Internal, Rebuild, "the authorisation is missing", OURS),
        exact(0x126, "TPM_RC_POLICY", KeyDamaged, Report, "the key's policy is not valid", BLOB),
        exact(0x127, "TPM_RC_PCR", Unsupported, Report, "this TPM does not have those PCRs", "`tpm2_getcap pcrs` lists the banks that it has"),
        exact(0x128, "TPM_RC_PCR_CHANGED", Retry, Wait, "a PCR was extended in the middle of the command", AGAIN),
        exact(0x12d, "TPM_RC_UPGRADE", Busy, Report, "the TPM is in the middle of a firmware upgrade", "finish the upgrade"),
        exact(0x12e, "TPM_RC_TOO_MANY_CONTEXTS", DeviceGone, Report, "the TPM has used up its context numbers", "restart the machine"),
        exact(0x12f, "TPM_RC_AUTH_UNAVAILABLE", KeyDamaged, Report, "the key does not take an authorisation value", BLOB),
        exact(0x130, "TPM_RC_REBOOT", DeviceGone, Report, "the TPM wants a restart of the machine", "restart the machine"),
        exact(0x131, "TPM_RC_UNBALANCED", Internal, Report, "the sizes of hash and key do not fit together", OURS),
        exact(0x142, "TPM_RC_COMMAND_SIZE", Internal, Rebuild, "the command has another length than it says", LOOK),
        exact(0x143, "TPM_RC_COMMAND_CODE", Unsupported, Report, "this TPM does not have that command", UNABLE),
        exact(0x144, "TPM_RC_AUTHSIZE", Internal, Rebuild, "the authorisation has another length than it says", LOOK),
        exact(0x145, "TPM_RC_AUTH_CONTEXT", Internal, Rebuild, "the command takes no authorisation", OURS),
        exact(0x146, "TPM_RC_NV_RANGE", Internal, Report, "outside the index of the anchor", OURS),
        exact(0x147, "TPM_RC_NV_SIZE", Unsupported, Report, "the anchor is too large for the TPM's memory", ROOM),
        exact(0x148, "TPM_RC_NV_LOCKED", KeyDamaged, Report, "the index of the anchor is locked, which ours never is", INDEX),
        exact(0x149, "TPM_RC_NV_AUTHORIZATION", KeyDamaged, Report, "the index of the anchor is not as it was made", INDEX),
        exact(0x14a, "TPM_RC_NV_UNINITIALIZED", KeyDamaged, Report, "the index of the anchor was never written", INDEX),
        exact(0x14b, "TPM_RC_NV_SPACE", Full, Report, "the TPM's memory is full", ROOM),
        exact(0x14c, "TPM_RC_NV_DEFINED", Refused, Report, "the index of the anchor is there already", INDEX),
        exact(0x150, "TPM_RC_BAD_CONTEXT", Retry, Rebuild, "a saved context is not of this boot", ALONE),
        exact(0x151, "TPM_RC_CPHASH", Internal, Rebuild, "the command is not the one that was authorised", OURS),
        exact(0x152, "TPM_RC_PARENT", Internal, Rebuild, "the parent is not a storage key", OURS),
        exact(0x153, "TPM_RC_NEEDS_TEST", Busy, Wait, "the TPM must test itself first", AGAIN),
        exact(0x154, "TPM_RC_NO_RESULT", Internal, Rebuild, "there is no answer to give", LOOK),
        exact(0x155, "TPM_RC_SENSITIVE", KeyDamaged, Report, "the private half cannot be read", BLOB),

        exact(0x901, "TPM_RC_CONTEXT_GAP", Busy, Rebuild, "too many sessions were saved since the oldest one", ALONE),
        exact(0x902, "TPM_RC_OBJECT_MEMORY", Busy, Rebuild, "all places for loaded keys are taken", ALONE),
        exact(0x903, "TPM_RC_SESSION_MEMORY", Busy, Rebuild, "all places for sessions are taken", ALONE),
        exact(0x904, "TPM_RC_MEMORY", Busy, Rebuild, "the TPM is out of memory", ALONE),
        exact(0x905, "TPM_RC_SESSION_HANDLES", Busy, Rebuild, "all session numbers are taken", ALONE),
        exact(0x906, "TPM_RC_OBJECT_HANDLES", Busy, Rebuild, "all object numbers are taken", ALONE),
        exact(0x907, "TPM_RC_LOCALITY", DeviceGone, Report, "the TPM does not serve this side of the machine", LOOK),
        exact(0x908, "TPM_RC_YIELDED", Busy, Wait, "the TPM paused in the middle of the command", AGAIN),
        exact(0x909, "TPM_RC_CANCELED", Retry, Rebuild, "the command was cancelled", ALONE),
        exact(0x90a, "TPM_RC_TESTING", Busy, Wait, "the TPM is testing itself", AGAIN),
        range(0xff8, exact(0x910, "TPM_RC_REFERENCE_H", Retry, Rebuild, "the loaded key is not there, most likely after a restart of the TPM", ALONE)),
        range(0xff8, exact(0x918, "TPM_RC_REFERENCE_S", Retry, Rebuild, "the session is not there, most likely after a restart of the TPM", ALONE)),
        exact(0x920, "TPM_RC_NV_RATE", Busy, Wait, "the TPM slows down writing, to save its memory", AGAIN),
        exact(0x921, "TPM_RC_LOCKOUT", PinLocked, Rebuild, "the TPM is in dictionary-attack lockout", "wait out the recovery time of `tpm2_getcap properties-variable`, or run `tpm2_dictionarylockout --clear-lockout`; keys made here do not count towards it and work on"),
        exact(0x922, "TPM_RC_RETRY", Busy, Wait, "the TPM could not begin the command", AGAIN),
        exact(0x923, "TPM_RC_NV_UNAVAILABLE", Busy, Wait, "the TPM's memory cannot be written just now", AGAIN),
        range(0xffff_f480, exact(0x400, "TPM_RC_VENDOR", Internal, Rebuild, "a code of the maker of this TPM", "look it up in the maker's documentation")),

        exact(0x07_0007, "ESYS_BAD_SEQUENCE", Retry, Rebuild, "the library is stuck after a broken transmission", LOOK),
        exact(0x07_001b, "ESYS_RSP_AUTH_FAILED", Retry, Rebuild, "an answer was not authenticated by the TPM: altered on its way, or of a restarted TPM", "if it comes again, someone may be altering the bus: take the machine out of service"),
        range(0xff_0000, exact(0x07_0000, "ESYS", Internal, Rebuild, "libtss2-esys refuses", LOOK)),
        range(0xff_0000, exact(0x08_0000, "SYS", Retry, Rebuild, "libtss2-sys could not read the answer", LOOK)),
        range(0xff_0000, exact(0x09_0000, "MU", KeyDamaged, Report, "a structure cannot be read", BLOB)),
        range(0xff_0000, exact(0x0a_0000, "TCTI", DeviceGone, Rebuild, "the TPM cannot be reached", "check that the device file exists and this user is in its group (tss), or that the software TPM runs on that port")),
    ]
};

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Remedy, TABLE, row};
    use crate::device::Class;

    #[test]
    fn codes_are_known_by_whoever_relays_them_and_whatever_they_are_about() {
        for (code, name) in [
            (0x921, "TPM_RC_LOCKOUT"),
            (0x0b_0902, "TPM_RC_OBJECT_MEMORY"),
            (0x0c_0902, "TPM_RC_OBJECT_MEMORY"),
            (0x1df, "TPM_RC_INTEGRITY"),
            (0x9a2, "TPM_RC_BAD_AUTH"),
            (0x98e, "TPM_RC_AUTH_FAIL"),
            (0x18b, "TPM_RC_HANDLE"),
            (0x2c4, "TPM_RC_VALUE"),
            (0x984, "TPM_RC_VALUE"),
            (0x910, "TPM_RC_REFERENCE_H"),
            (0x916, "TPM_RC_REFERENCE_H"),
            (0x918, "TPM_RC_REFERENCE_S"),
            (0x91e, "TPM_RC_REFERENCE_S"),
            (0x0b_0143, "TPM_RC_COMMAND_CODE"),
            (0x501, "TPM_RC_VENDOR"),
            (0x07_0007, "ESYS_BAD_SEQUENCE"),
            (0x07_000b, "ESYS"),
            (0x0a_000a, "TCTI"),
            (0x0a_0005, "TCTI"),
        ] {
            assert_eq!(row(code).name, name, "{code:#x}");
        }
    }

    #[test]
    fn a_bad_value_of_a_session_is_not_a_lack_of_the_tpm() {
        assert_eq!(row(0x2c4).class, Class::Unsupported);
        assert_eq!(row(0x984).remedy, Remedy::Rebuild);
        assert_eq!(row(0x184).remedy, Remedy::Rebuild);
    }

    #[test]
    fn an_unknown_code_is_not_taken_for_a_known_one() {
        for code in [0x1ff, 0x97f, 0x17f, 0x06_0001, 0xdead_beef] {
            assert_eq!(row(code).class, Class::Internal, "{code:#x}");
            assert_eq!(row(code).remedy, Remedy::Rebuild, "{code:#x}");
        }
    }

    #[test]
    fn rows_are_unique_and_say_what_to_do() {
        let mut seen = HashSet::new();
        for row in TABLE {
            assert!(seen.insert((row.number, row.mask)), "{} twice", row.name);
            assert_eq!(row.number & row.mask, row.number, "{} can never be met", row.name);
            assert!(!row.meaning.is_empty() && !row.mend.is_empty(), "{}", row.name);
        }
    }
}
