#![deny(unsafe_op_in_unsafe_fn)]
//! A PKCS#11 module for tests: it forwards each call to a real module, and on the way fails, delays or falsifies the calls
//! that a plan names. It shows what a service makes of a device on a bad day, with a real token behind it.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `SIGNET_FAULT_REAL` | the real module; absent: `/usr/lib/softhsm/libsofthsm2.so` |
//! | `SIGNET_FAULT_PARAMETERS` | what the real module is told at its start, as NSS wants it; absent: nothing |
//! | `SIGNET_FAULT_PLAN` | the plan, a text file, read again whenever it changes; absent, or no such file: no faults |
//! | `SIGNET_FAULT_TRACE` | a file to which a line per call is appended, such as `C_Sign 0x00000000`; absent: no trace |
//!
//! # The plan
//!
//! One rule per line: a function, or `*` for any, and then words. Empty lines and lines that start with `#` mean nothing.
//!
//! ```text
//! C_Sign after=3 count=1 pre=0x30     # the fourth signature fails without reaching the token (CKR_DEVICE_ERROR)
//! C_GenerateKeyPair post=0x30         # each key pair is made, yet reported as failed
//! C_Sign delay_ms=300                 # slow
//! C_Login pre=0xA4                    # CKR_PIN_LOCKED
//! C_FindObjects empty                 # the token shows nothing, and says CKR_OK
//! * after=17 count=1 pre=0x05         # the eighteenth call, whichever it is
//! ```
//!
//! | word | what happens |
//! | --- | --- |
//! | `after=N` | the rule sleeps for the first N calls that its function gets since the plan was read; absent: 0 |
//! | `count=N` | it holds for N calls after that; absent: for ever |
//! | `once` | it holds for one call of all processes together, so that the one that replaces a dead one lives; the mark is a file beside the plan |
//! | `delay_ms=N` | the call waits first |
//! | `hang` | the call never returns |
//! | `abort` | the process dies before the real call |
//! | `abort_after` | the process dies after the real call |
//! | `pre=CODE` | the real call is not made, the code is returned |
//! | `post=CODE` | the real call is made, the code is returned instead of its own |
//! | `flip` | the lowest bit of the first byte of the output is flipped, where the real call succeeded |
//! | `short` | the output lacks its last byte, where the real call succeeded |
//! | `empty` | the output has length zero, where the real call succeeded |
//! | `flags=BITS` | the token shows these flags too, such as `0x40000` for a locked PIN; for `C_GetTokenInfo` |
//!
//! Of several rules that hold for one call, the first is taken. Numbers are decimal, or hexadecimal with `0x`. `flip` works on
//! signatures, ciphertexts, plaintexts, wrapped keys, random bytes and the first value of `C_GetAttributeValue`; `short` and `empty`
//! on the first four, and `empty` on the handles of `C_FindObjects` too. A line that is not understood, or names a function or word that does not
//! work, is printed and ends the process: a fault that silently does not happen makes a test pass that should not.
//!
//! The trace holds names and codes, never data. It is written with one `write` per line in append mode, so several processes
//! may share one file.

mod forward;
mod parameters;
mod plan;
mod trace;

use std::ffi::OsString;
use std::sync::OnceLock;

use cryptoki_sys::{
    CK_FUNCTION_LIST, CK_FUNCTION_LIST_PTR_PTR, CK_RV, CKR_ARGUMENTS_BAD, CKR_GENERAL_ERROR, CKR_LIBRARY_LOAD_FAILED,
    CKR_OK,
};
use libloading::Library;

const DEFAULT_REAL: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// The real module's functions.
static REAL: OnceLock<CK_FUNCTION_LIST> = OnceLock::new();
/// The same list with ours put in their places.
static OURS: OnceLock<CK_FUNCTION_LIST> = OnceLock::new();

/// The entry of a PKCS#11 module.
///
/// # Safety
/// `list` is null or a pointer to write to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: CK_FUNCTION_LIST_PTR_PTR) -> CK_RV {
    if list.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    let real = match load() {
        Ok(real) => REAL.get_or_init(|| real),
        Err(code) => return code,
    };
    let ours = OURS.get_or_init(|| {
        let mut ours = *real;
        forward::install(&mut ours);
        ours
    });
    // SAFETY: not null, checked above. The list is `*mut` by the C type alone: the standard forbids callers to write to it.
    unsafe { *list = std::ptr::from_ref(ours).cast_mut() };
    CKR_OK
}

/// Loads the real module for good.
fn load() -> Result<CK_FUNCTION_LIST, CK_RV> {
    type GetFunctionList = unsafe extern "C" fn(CK_FUNCTION_LIST_PTR_PTR) -> CK_RV;
    let path = std::env::var_os("SIGNET_FAULT_REAL").unwrap_or_else(|| OsString::from(DEFAULT_REAL));
    // SAFETY: the one who runs the test chose the library.
    let library = unsafe { Library::new(&path) }.map_err(|error| {
        report(&format!("{}: {error}", path.display()));
        CKR_LIBRARY_LOAD_FAILED
    })?;
    let library: &'static Library = Box::leak(Box::new(library));
    // SAFETY: the standard gives the symbol this type.
    let entry = unsafe { library.get::<GetFunctionList>(c"C_GetFunctionList") }.map_err(|_| CKR_GENERAL_ERROR)?;
    let mut list = std::ptr::null_mut();
    // SAFETY: `list` is a pointer to write to.
    match unsafe { entry(&raw mut list) } {
        // SAFETY: by the standard a function list that lives as long as the library, which is leaked.
        CKR_OK if !list.is_null() => Ok(parameters::install(unsafe { *list })),
        CKR_OK => Err(CKR_GENERAL_ERROR),
        code => Err(code),
    }
}

/// Says something to the one who runs the test.
fn report(text: &str) {
    use std::io::Write;
    // Nobody is left to tell where standard error does not work.
    let _ = writeln!(std::io::stderr(), "signet_fault_module: {text}");
}
