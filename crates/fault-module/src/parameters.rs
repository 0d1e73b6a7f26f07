//! Parameters that some modules want at their start, in a place that the standard keeps free: NSS cannot be started without.

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;
use std::sync::OnceLock;

use cryptoki_sys::{
    CK_C_INITIALIZE_ARGS, CK_C_Initialize, CK_FUNCTION_LIST_3_2, CK_RV, CK_VOID_PTR, CKF_OS_LOCKING_OK,
    CKR_CRYPTOKI_NOT_INITIALIZED,
};

/// The real function, and what it is to be told.
static REAL: OnceLock<(CK_C_Initialize, CString)> = OnceLock::new();

/// The arguments with one more field, which NSS has behind the one that it takes for its parameters.
#[repr(C)]
struct Arguments {
    standard: CK_C_INITIALIZE_ARGS,
    reserved: CK_VOID_PTR,
}

/// Has a real module be told its parameters, where there are any.
pub(crate) fn install(real: &mut CK_FUNCTION_LIST_3_2) {
    let Some(text) = std::env::var_os("SIGNET_FAULT_PARAMETERS") else { return };
    let Ok(text) = CString::new(text.into_vec()) else { return };
    REAL.get_or_init(|| (real.C_Initialize, text));
    real.C_Initialize = Some(initialise);
}

unsafe extern "C" fn initialise(_: CK_VOID_PTR) -> CK_RV {
    let Some((Some(real), text)) = REAL.get() else { return CKR_CRYPTOKI_NOT_INITIALIZED };
    let mut arguments = Arguments {
        standard: CK_C_INITIALIZE_ARGS {
            flags: CKF_OS_LOCKING_OK,
            pReserved: text.as_ptr().cast_mut().cast(),
            ..CK_C_INITIALIZE_ARGS::default()
        },
        reserved: std::ptr::null_mut(),
    };
    // SAFETY: the arguments and the text outlive the call.
    unsafe { real(std::ptr::from_mut(&mut arguments).cast()) }
}
