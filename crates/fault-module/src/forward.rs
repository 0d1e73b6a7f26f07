//! The functions themselves: each asks the plan, calls the real one, spoils its output if told so, and leaves a line in the
//! trace. What is not listed here goes straight to the real module.

#![expect(non_snake_case, reason = "the names are the standard's")]

use std::time::Duration;

use cryptoki_sys::{
    CK_ATTRIBUTE_PTR, CK_BBOOL, CK_BYTE_PTR, CK_FLAGS, CK_FUNCTION_LIST, CK_MECHANISM_INFO_PTR, CK_MECHANISM_PTR,
    CK_MECHANISM_TYPE, CK_MECHANISM_TYPE_PTR, CK_NOTIFY, CK_OBJECT_HANDLE, CK_OBJECT_HANDLE_PTR, CK_RV,
    CK_SESSION_HANDLE, CK_SESSION_HANDLE_PTR, CK_SLOT_ID, CK_SLOT_ID_PTR, CK_TOKEN_INFO_PTR, CK_ULONG, CK_ULONG_PTR,
    CK_USER_TYPE, CK_UTF8CHAR_PTR, CK_VOID_PTR, CKR_CRYPTOKI_NOT_INITIALIZED, CKR_FUNCTION_NOT_SUPPORTED, CKR_OK,
};

use crate::plan::{self, Fault};
use crate::{REAL, trace};

/// What of a function's output can be spoilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Nothing.
    None,
    /// Bytes with a length.
    Bytes,
    /// Bytes of a length that the caller chose.
    Fixed,
    /// A number of handles.
    Count,
    /// The first attribute of a template.
    Attribute,
    /// The state of a token.
    Token,
}

impl Output {
    pub(crate) const fn can_flip(self) -> bool {
        matches!(self, Self::Bytes | Self::Fixed | Self::Attribute)
    }

    pub(crate) const fn can_empty(self) -> bool {
        matches!(self, Self::Bytes | Self::Count)
    }

    pub(crate) const fn can_shorten(self) -> bool {
        matches!(self, Self::Bytes)
    }

    pub(crate) const fn has_flags(self) -> bool {
        matches!(self, Self::Token)
    }
}

/// What happens before the real call: `Some` code to return at once.
fn before(function: &str, fault: &Fault) -> Option<CK_RV> {
    if fault.delay_ms > 0 {
        #[expect(clippy::disallowed_methods, reason = "a slow device is the very thing that is played here")]
        std::thread::sleep(Duration::from_millis(fault.delay_ms));
    }
    if fault.hang {
        trace::line(function, "hang");
        loop {
            std::thread::park();
        }
    }
    if fault.abort {
        trace::line(function, "abort");
        std::process::abort();
    }
    fault.pre
}

/// What happens after the real call: the code to return.
fn after(function: &str, fault: &Fault, code: CK_RV) -> CK_RV {
    if fault.abort_after {
        trace::line(function, "abort_after");
        std::process::abort();
    }
    fault.post.unwrap_or(code)
}

/// The outputs of functions, as the macro names them. The caller promises that the pointers are those of a call that
/// succeeded, so that what they point to is as the standard says.
mod spoil {
    use super::{CK_ATTRIBUTE_PTR, CK_BYTE_PTR, CK_TOKEN_INFO_PTR, CK_ULONG, CK_ULONG_PTR, Fault};

    pub(super) unsafe fn Bytes(fault: &Fault, out: CK_BYTE_PTR, length: CK_ULONG_PTR) {
        if out.is_null() || length.is_null() {
            return;
        }
        // SAFETY: not null, and by the contract of the module a length and that many bytes.
        unsafe {
            if fault.flip && *length > 0 {
                *out ^= 1;
            }
            if fault.short && *length > 0 {
                *length -= 1;
            }
            if fault.empty {
                *length = 0;
            }
        }
    }

    pub(super) unsafe fn Fixed(fault: &Fault, out: CK_BYTE_PTR, length: CK_ULONG) {
        if fault.flip && !out.is_null() && length > 0 {
            // SAFETY: not null, and by the contract of the module `length` bytes.
            unsafe { *out ^= 1 };
        }
    }

    pub(super) unsafe fn Count(fault: &Fault, count: CK_ULONG_PTR) {
        if fault.empty && !count.is_null() {
            // SAFETY: not null, and by the contract of the module a number.
            unsafe { *count = 0 };
        }
    }

    pub(super) unsafe fn Token(fault: &Fault, info: CK_TOKEN_INFO_PTR) {
        if !info.is_null() {
            // SAFETY: not null, and by the contract of the module a CK_TOKEN_INFO.
            unsafe { (*info).flags |= fault.flags };
        }
    }

    pub(super) unsafe fn Attribute(fault: &Fault, template: CK_ATTRIBUTE_PTR, count: CK_ULONG) {
        if !fault.flip || template.is_null() || count == 0 {
            return;
        }
        // SAFETY: not null, and by the contract of the module at least one attribute.
        let first = unsafe { *template };
        if !first.pValue.is_null() && first.ulValueLen > 0 {
            // SAFETY: not null, and after a success `ulValueLen` bytes.
            unsafe { *first.pValue.cast::<u8>() ^= 1 };
        }
    }
}

/// Writes the functions, their list for the plan, and what puts them into a function list.
macro_rules! forward {
    ($($name:ident($($argument:ident: $type:ty),*) $($output:ident($($part:ident),*))?;)*) => {
        /// All functions that the plan may name, with what of their output can be spoilt.
        pub(crate) const FUNCTIONS: &[(&str, Output)] =
            &[$((stringify!($name), forward!(@output $($output)?)),)*];

        mod functions {
            use super::*;
            $(pub(super) unsafe extern "C" fn $name($($argument: $type),*) -> CK_RV {
                let fault = plan::fault(stringify!($name)).unwrap_or_default();
                let code = before(stringify!($name), &fault).unwrap_or_else(|| {
                    let code = match REAL.get() {
                        // SAFETY: the arguments are the caller's, passed on unchanged.
                        Some(real) => real.$name.map_or(CKR_FUNCTION_NOT_SUPPORTED, |f| unsafe { f($($argument),*) }),
                        None => CKR_CRYPTOKI_NOT_INITIALIZED,
                    };
                    $(if code == CKR_OK {
                        // SAFETY: the call succeeded.
                        unsafe { spoil::$output(&fault, $($part),*) };
                    })?
                    after(stringify!($name), &fault, code)
                });
                trace::line(stringify!($name), &format!("{code:#010x}"));
                code
            })*
        }

        /// Puts the functions in their places.
        pub(crate) fn install(list: &mut CK_FUNCTION_LIST) {
            $(list.$name = Some(functions::$name);)*
        }
    };
    (@output) => { Output::None };
    (@output $output:ident) => { Output::$output };
}

forward! {
    C_Initialize(arguments: CK_VOID_PTR);
    C_Finalize(reserved: CK_VOID_PTR);
    C_GetSlotList(present: CK_BBOOL, slots: CK_SLOT_ID_PTR, count: CK_ULONG_PTR);
    C_GetTokenInfo(slot: CK_SLOT_ID, info: CK_TOKEN_INFO_PTR) Token(info);
    C_GetMechanismList(slot: CK_SLOT_ID, list: CK_MECHANISM_TYPE_PTR, count: CK_ULONG_PTR);
    C_GetMechanismInfo(slot: CK_SLOT_ID, mechanism: CK_MECHANISM_TYPE, info: CK_MECHANISM_INFO_PTR);
    C_OpenSession(slot: CK_SLOT_ID, flags: CK_FLAGS, data: CK_VOID_PTR, notify: CK_NOTIFY, session: CK_SESSION_HANDLE_PTR);
    C_CloseSession(session: CK_SESSION_HANDLE);
    C_Login(session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: CK_UTF8CHAR_PTR, length: CK_ULONG);
    C_Logout(session: CK_SESSION_HANDLE);
    C_CreateObject(session: CK_SESSION_HANDLE, template: CK_ATTRIBUTE_PTR, count: CK_ULONG, object: CK_OBJECT_HANDLE_PTR);
    C_DestroyObject(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE);
    C_GetAttributeValue(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, template: CK_ATTRIBUTE_PTR, count: CK_ULONG)
        Attribute(template, count);
    C_FindObjectsInit(session: CK_SESSION_HANDLE, template: CK_ATTRIBUTE_PTR, count: CK_ULONG);
    C_FindObjects(session: CK_SESSION_HANDLE, objects: CK_OBJECT_HANDLE_PTR, room: CK_ULONG, count: CK_ULONG_PTR)
        Count(count);
    C_FindObjectsFinal(session: CK_SESSION_HANDLE);
    C_EncryptInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE);
    C_Encrypt(session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, size: CK_ULONG, out: CK_BYTE_PTR, length: CK_ULONG_PTR)
        Bytes(out, length);
    C_DecryptInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE);
    C_Decrypt(session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, size: CK_ULONG, out: CK_BYTE_PTR, length: CK_ULONG_PTR)
        Bytes(out, length);
    C_SignInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE);
    C_Sign(session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, size: CK_ULONG, out: CK_BYTE_PTR, length: CK_ULONG_PTR)
        Bytes(out, length);
    C_GenerateKey(
        session: CK_SESSION_HANDLE,
        mechanism: CK_MECHANISM_PTR,
        template: CK_ATTRIBUTE_PTR,
        count: CK_ULONG,
        key: CK_OBJECT_HANDLE_PTR
    );
    C_GenerateKeyPair(
        session: CK_SESSION_HANDLE,
        mechanism: CK_MECHANISM_PTR,
        public: CK_ATTRIBUTE_PTR,
        public_count: CK_ULONG,
        private: CK_ATTRIBUTE_PTR,
        private_count: CK_ULONG,
        public_key: CK_OBJECT_HANDLE_PTR,
        private_key: CK_OBJECT_HANDLE_PTR
    );
    C_WrapKey(
        session: CK_SESSION_HANDLE,
        mechanism: CK_MECHANISM_PTR,
        wrapper: CK_OBJECT_HANDLE,
        key: CK_OBJECT_HANDLE,
        out: CK_BYTE_PTR,
        length: CK_ULONG_PTR
    ) Bytes(out, length);
    C_UnwrapKey(
        session: CK_SESSION_HANDLE,
        mechanism: CK_MECHANISM_PTR,
        wrapper: CK_OBJECT_HANDLE,
        blob: CK_BYTE_PTR,
        size: CK_ULONG,
        template: CK_ATTRIBUTE_PTR,
        count: CK_ULONG,
        key: CK_OBJECT_HANDLE_PTR
    );
    C_GenerateRandom(session: CK_SESSION_HANDLE, out: CK_BYTE_PTR, length: CK_ULONG) Fixed(out, length);
}
