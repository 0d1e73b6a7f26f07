//! The functions themselves: each asks the plan, calls the real one, spoils its output if told so, and leaves a line in the
//! trace. All functions of the standard are here but the three of `interfaces.rs`.

#![expect(non_snake_case, reason = "the names are the standard's")]

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cryptoki_sys::{
    CK_ASYNC_DATA, CK_ATTRIBUTE, CK_BBOOL, CK_BYTE, CK_FLAGS, CK_FUNCTION_LIST_3_2, CK_INFO, CK_MECHANISM,
    CK_MECHANISM_INFO, CK_MECHANISM_TYPE, CK_NOTIFY, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SESSION_INFO,
    CK_SESSION_VALIDATION_FLAGS_TYPE, CK_SLOT_ID, CK_SLOT_INFO, CK_TOKEN_INFO, CK_TRUE, CK_ULONG, CK_USER_TYPE,
    CK_UTF8CHAR, CK_VOID_PTR, CKR_FUNCTION_NOT_SUPPORTED, CKR_OK,
};

use crate::plan::{self, Fault};
use crate::real::real;
use crate::spoil::{self, Output};
use crate::{interfaces, trace};

type Session = CK_SESSION_HANDLE;
type Object = CK_OBJECT_HANDLE;
type NewObject = *mut CK_OBJECT_HANDLE;
type Mechanism = *mut CK_MECHANISM;
type Template = *mut CK_ATTRIBUTE;
type Bytes = *mut CK_BYTE;
type Text = *mut CK_UTF8CHAR;
type Number = CK_ULONG;
type NumberOut = *mut CK_ULONG;
type Pointer = CK_VOID_PTR;

/// The code with which everything fails until the library is finalised; `None` while it works.
static STUCK: Mutex<Option<CK_RV>> = Mutex::new(None);

/// Does to one call what the plan says.
pub(crate) fn pass(function: &'static str, real: impl FnOnce(&Fault) -> CK_RV) -> CK_RV {
    let fault = plan::fault(function).unwrap_or_default();
    let code = match before(function, &fault) {
        Some(code) => code,
        None => {
            let code = real(&fault);
            after(function, &fault, code)
        }
    };
    trace::line(function, &format!("{code:#010x}"));
    code
}

/// What happens before the real call: `Some` code to return at once.
fn before(function: &'static str, fault: &Fault) -> Option<CK_RV> {
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
    let mut stuck = STUCK.lock().unwrap_or_else(PoisonError::into_inner);
    if function == "C_Finalize" {
        *stuck = None;
    } else if fault.stuck.is_some() {
        *stuck = fault.stuck;
    }
    if stuck.is_some() {
        return *stuck;
    }
    drop(stuck);
    if fault.close_sessions {
        close_sessions();
    }
    fault.pre
}

/// What happens after the real call: the code to return.
fn after(function: &'static str, fault: &Fault, code: CK_RV) -> CK_RV {
    if fault.abort_after {
        trace::line(function, "abort_after");
        std::process::abort();
    }
    fault.post.unwrap_or(code)
}

/// Has the real token end all sessions of this process, and its login with them.
fn close_sessions() {
    /// More than any test has.
    const SLOTS: usize = 64;
    let Ok(real) = real() else { return };
    let (Some(list), Some(close)) = (real.functions.C_GetSlotList, real.functions.C_CloseAllSessions) else { return };
    let (mut slots, mut count) = ([0; SLOTS], SLOTS as CK_ULONG);
    // SAFETY: room for `count` slots.
    if unsafe { list(CK_TRUE, slots.as_mut_ptr(), &raw mut count) } == CKR_OK {
        for slot in slots.iter().take(usize::try_from(count).unwrap_or(0)) {
            // SAFETY: a number.
            unsafe { close(*slot) };
        }
    }
}

/// Writes the functions, their list for the plan, and what puts them into a function list.
macro_rules! forward {
    ($(
        $name:ident($($argument:ident: $type:ty),* $(,)?)
        $(takes $($template:ident $count:ident),+)?
        $(gives $output:ident($($part:ident),*))?;
    )*) => {
        /// All functions that the plan may name, with what of their output can be spoilt and whether they take a template.
        pub(crate) const FUNCTIONS: &[(&str, Output, bool)] = &[
            ("C_GetFunctionList", Output::None, false),
            ("C_GetInterfaceList", Output::None, false),
            ("C_GetInterface", Output::None, false),
            $((stringify!($name), forward!(@output $($output)?), forward!(@takes $($($template)+)?)),)*
        ];

        mod functions {
            use super::*;
            $(pub(super) unsafe extern "C" fn $name($($argument: $type),*) -> CK_RV {
                pass(stringify!($name), |fault| {
                    let _ = &fault;
                    let real = match real() {
                        Ok(real) => &real.functions,
                        Err(code) => return code,
                    };
                    let Some(function) = real.$name else { return CKR_FUNCTION_NOT_SUPPORTED };
                    $($(
                        // SAFETY: a template of so many attributes, by the contract of the module.
                        let mut shorter = unsafe { spoil::template(fault, $template, $count) };
                        let ($template, $count) = match fault.without {
                            Some(_) => (shorter.as_mut_ptr(), shorter.len() as CK_ULONG),
                            None => ($template, $count),
                        };
                    )+)?
                    // SAFETY: the arguments are the caller's, passed on unchanged, or a part of them that lives as long.
                    let code = unsafe { function($($argument),*) };
                    $(if code == CKR_OK {
                        // SAFETY: the call succeeded.
                        unsafe { spoil::output::$output(stringify!($name), fault, $($part),*) };
                    })?
                    code
                })
            })*
        }

        /// Puts the functions in the places of those that the list has.
        pub(crate) fn install(list: &mut CK_FUNCTION_LIST_3_2) {
            list.C_GetFunctionList = list.C_GetFunctionList.and(Some(interfaces::C_GetFunctionList));
            list.C_GetInterfaceList = list.C_GetInterfaceList.and(Some(interfaces::C_GetInterfaceList));
            list.C_GetInterface = list.C_GetInterface.and(Some(interfaces::C_GetInterface));
            $(list.$name = list.$name.and(Some(functions::$name));)*
        }
    };
    (@output) => { Output::None };
    (@output $output:ident) => { Output::$output };
    (@takes) => { false };
    (@takes $($template:ident)+) => { true };
}

forward! {
    // Version 2.40.
    C_Initialize(arguments: Pointer);
    C_Finalize(reserved: Pointer);
    C_GetInfo(info: *mut CK_INFO);
    C_GetSlotList(present: CK_BBOOL, slots: *mut CK_SLOT_ID, count: NumberOut) gives Count(count);
    C_GetSlotInfo(slot: CK_SLOT_ID, info: *mut CK_SLOT_INFO);
    C_GetTokenInfo(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) gives Token(info);
    C_GetMechanismList(slot: CK_SLOT_ID, list: *mut CK_MECHANISM_TYPE, count: NumberOut) gives Count(count);
    C_GetMechanismInfo(slot: CK_SLOT_ID, mechanism: CK_MECHANISM_TYPE, info: *mut CK_MECHANISM_INFO);
    C_InitToken(slot: CK_SLOT_ID, pin: Text, length: Number, label: Text);
    C_InitPIN(session: Session, pin: Text, length: Number);
    C_SetPIN(session: Session, old: Text, old_length: Number, new: Text, new_length: Number);
    C_OpenSession(slot: CK_SLOT_ID, flags: CK_FLAGS, data: Pointer, notify: CK_NOTIFY, session: *mut CK_SESSION_HANDLE);
    C_CloseSession(session: Session);
    C_CloseAllSessions(slot: CK_SLOT_ID);
    C_GetSessionInfo(session: Session, info: *mut CK_SESSION_INFO);
    C_GetOperationState(session: Session, out: Bytes, length: NumberOut) gives Bytes(out, length);
    C_SetOperationState(session: Session, state: Bytes, length: Number, encryption: Object, authentication: Object);
    C_Login(session: Session, user: CK_USER_TYPE, pin: Text, length: Number);
    C_Logout(session: Session);
    C_CreateObject(session: Session, template: Template, count: Number, object: NewObject) takes template count;
    C_CopyObject(
        session: Session,
        object: Object,
        template: Template,
        count: Number,
        copy: NewObject
    ) takes template count;
    C_DestroyObject(session: Session, object: Object);
    C_GetObjectSize(session: Session, object: Object, size: NumberOut);
    C_GetAttributeValue(
        session: Session,
        object: Object,
        template: Template,
        count: Number
    ) gives Attribute(template, count);
    C_SetAttributeValue(session: Session, object: Object, template: Template, count: Number) takes template count;
    C_FindObjectsInit(session: Session, template: Template, count: Number);
    C_FindObjects(session: Session, objects: NewObject, room: Number, count: NumberOut) gives Count(count);
    C_FindObjectsFinal(session: Session);
    C_EncryptInit(session: Session, mechanism: Mechanism, key: Object);
    C_Encrypt(session: Session, data: Bytes, size: Number, out: Bytes, length: NumberOut) gives Bytes(out, length);
    C_EncryptUpdate(
        session: Session,
        data: Bytes,
        size: Number,
        out: Bytes,
        length: NumberOut
    ) gives Bytes(out, length);
    C_EncryptFinal(session: Session, out: Bytes, length: NumberOut) gives Bytes(out, length);
    C_DecryptInit(session: Session, mechanism: Mechanism, key: Object);
    C_Decrypt(session: Session, data: Bytes, size: Number, out: Bytes, length: NumberOut) gives Bytes(out, length);
    C_DecryptUpdate(
        session: Session,
        data: Bytes,
        size: Number,
        out: Bytes,
        length: NumberOut
    ) gives Bytes(out, length);
    C_DecryptFinal(session: Session, out: Bytes, length: NumberOut) gives Bytes(out, length);
    C_DigestInit(session: Session, mechanism: Mechanism);
    C_Digest(session: Session, data: Bytes, size: Number, out: Bytes, length: NumberOut) gives Bytes(out, length);
    C_DigestUpdate(session: Session, part: Bytes, size: Number);
    C_DigestKey(session: Session, key: Object);
    C_DigestFinal(session: Session, out: Bytes, length: NumberOut) gives Bytes(out, length);
    C_SignInit(session: Session, mechanism: Mechanism, key: Object);
    C_Sign(session: Session, data: Bytes, size: Number, out: Bytes, length: NumberOut) gives Bytes(out, length);
    C_SignUpdate(session: Session, part: Bytes, size: Number);
    C_SignFinal(session: Session, out: Bytes, length: NumberOut) gives Bytes(out, length);
    C_SignRecoverInit(session: Session, mechanism: Mechanism, key: Object);
    C_SignRecover(session: Session, data: Bytes, size: Number, out: Bytes, length: NumberOut) gives Bytes(out, length);
    C_VerifyInit(session: Session, mechanism: Mechanism, key: Object);
    C_Verify(session: Session, data: Bytes, size: Number, signature: Bytes, length: Number);
    C_VerifyUpdate(session: Session, part: Bytes, size: Number);
    C_VerifyFinal(session: Session, signature: Bytes, length: Number);
    C_VerifyRecoverInit(session: Session, mechanism: Mechanism, key: Object);
    C_VerifyRecover(
        session: Session,
        data: Bytes,
        size: Number,
        out: Bytes,
        length: NumberOut
    ) gives Bytes(out, length);
    C_DigestEncryptUpdate(
        session: Session,
        data: Bytes,
        size: Number,
        out: Bytes,
        length: NumberOut
    ) gives Bytes(out, length);
    C_DecryptDigestUpdate(
        session: Session,
        data: Bytes,
        size: Number,
        out: Bytes,
        length: NumberOut
    ) gives Bytes(out, length);
    C_SignEncryptUpdate(
        session: Session,
        data: Bytes,
        size: Number,
        out: Bytes,
        length: NumberOut
    ) gives Bytes(out, length);
    C_DecryptVerifyUpdate(
        session: Session,
        data: Bytes,
        size: Number,
        out: Bytes,
        length: NumberOut
    ) gives Bytes(out, length);
    C_GenerateKey(
        session: Session,
        mechanism: Mechanism,
        template: Template,
        count: Number,
        key: NewObject
    ) takes template count;
    C_GenerateKeyPair(
        session: Session,
        mechanism: Mechanism,
        public: Template,
        public_count: Number,
        private: Template,
        private_count: Number,
        public_key: NewObject,
        private_key: NewObject
    ) takes public public_count, private private_count;
    C_WrapKey(
        session: Session,
        mechanism: Mechanism,
        wrapper: Object,
        key: Object,
        out: Bytes,
        length: NumberOut
    ) gives Bytes(out, length);
    C_UnwrapKey(
        session: Session,
        mechanism: Mechanism,
        wrapper: Object,
        blob: Bytes,
        size: Number,
        template: Template,
        count: Number,
        key: NewObject
    ) takes template count;
    C_DeriveKey(
        session: Session,
        mechanism: Mechanism,
        base: Object,
        template: Template,
        count: Number,
        key: NewObject
    ) takes template count;
    C_SeedRandom(session: Session, seed: Bytes, length: Number);
    C_GenerateRandom(session: Session, out: Bytes, length: Number) gives Fixed(out, length);
    C_GetFunctionStatus(session: Session);
    C_CancelFunction(session: Session);
    C_WaitForSlotEvent(flags: CK_FLAGS, slot: *mut CK_SLOT_ID, reserved: Pointer);
    // Version 3.0.
    C_LoginUser(session: Session, user: CK_USER_TYPE, pin: Text, length: Number, name: Text, name_length: Number);
    C_SessionCancel(session: Session, flags: CK_FLAGS);
    C_MessageEncryptInit(session: Session, mechanism: Mechanism, key: Object);
    C_EncryptMessage(
        session: Session,
        parameter: Pointer,
        parameter_size: Number,
        aad: Bytes,
        aad_size: Number,
        data: Bytes,
        size: Number,
        out: Bytes,
        length: NumberOut
    ) gives Bytes(out, length);
    C_EncryptMessageBegin(session: Session, parameter: Pointer, parameter_size: Number, aad: Bytes, aad_size: Number);
    C_EncryptMessageNext(
        session: Session,
        parameter: Pointer,
        parameter_size: Number,
        data: Bytes,
        size: Number,
        out: Bytes,
        length: NumberOut,
        flags: CK_FLAGS
    ) gives Bytes(out, length);
    C_MessageEncryptFinal(session: Session);
    C_MessageDecryptInit(session: Session, mechanism: Mechanism, key: Object);
    C_DecryptMessage(
        session: Session,
        parameter: Pointer,
        parameter_size: Number,
        aad: Bytes,
        aad_size: Number,
        data: Bytes,
        size: Number,
        out: Bytes,
        length: NumberOut
    ) gives Bytes(out, length);
    C_DecryptMessageBegin(session: Session, parameter: Pointer, parameter_size: Number, aad: Bytes, aad_size: Number);
    C_DecryptMessageNext(
        session: Session,
        parameter: Pointer,
        parameter_size: Number,
        data: Bytes,
        size: Number,
        out: Bytes,
        length: NumberOut,
        flags: CK_FLAGS
    ) gives Bytes(out, length);
    C_MessageDecryptFinal(session: Session);
    C_MessageSignInit(session: Session, mechanism: Mechanism, key: Object);
    C_SignMessage(
        session: Session,
        parameter: Pointer,
        parameter_size: Number,
        data: Bytes,
        size: Number,
        out: Bytes,
        length: NumberOut
    ) gives Bytes(out, length);
    C_SignMessageBegin(session: Session, parameter: Pointer, parameter_size: Number);
    C_SignMessageNext(
        session: Session,
        parameter: Pointer,
        parameter_size: Number,
        data: Bytes,
        size: Number,
        out: Bytes,
        length: NumberOut
    ) gives Bytes(out, length);
    C_MessageSignFinal(session: Session);
    C_MessageVerifyInit(session: Session, mechanism: Mechanism, key: Object);
    C_VerifyMessage(
        session: Session,
        parameter: Pointer,
        parameter_size: Number,
        data: Bytes,
        size: Number,
        signature: Bytes,
        length: Number
    );
    C_VerifyMessageBegin(session: Session, parameter: Pointer, parameter_size: Number);
    C_VerifyMessageNext(
        session: Session,
        parameter: Pointer,
        parameter_size: Number,
        data: Bytes,
        size: Number,
        signature: Bytes,
        length: Number
    );
    C_MessageVerifyFinal(session: Session);
    // Version 3.2.
    C_EncapsulateKey(
        session: Session,
        mechanism: Mechanism,
        public: Object,
        template: Template,
        count: Number,
        out: Bytes,
        length: NumberOut,
        key: NewObject
    ) takes template count gives Bytes(out, length);
    C_DecapsulateKey(
        session: Session,
        mechanism: Mechanism,
        private: Object,
        template: Template,
        count: Number,
        blob: Bytes,
        size: Number,
        key: NewObject
    ) takes template count;
    C_VerifySignatureInit(session: Session, mechanism: Mechanism, key: Object, signature: Bytes, length: Number);
    C_VerifySignature(session: Session, data: Bytes, size: Number);
    C_VerifySignatureUpdate(session: Session, part: Bytes, size: Number);
    C_VerifySignatureFinal(session: Session);
    C_GetSessionValidationFlags(session: Session, kind: CK_SESSION_VALIDATION_FLAGS_TYPE, flags: *mut CK_FLAGS);
    C_AsyncComplete(session: Session, function: Text, result: *mut CK_ASYNC_DATA);
    C_AsyncGetID(session: Session, function: Text, id: NumberOut);
    C_AsyncJoin(session: Session, function: Text, id: Number, data: Bytes, size: Number);
    C_WrapKeyAuthenticated(
        session: Session,
        mechanism: Mechanism,
        wrapper: Object,
        key: Object,
        aad: Bytes,
        aad_size: Number,
        out: Bytes,
        length: NumberOut
    ) gives Bytes(out, length);
    C_UnwrapKeyAuthenticated(
        session: Session,
        mechanism: Mechanism,
        wrapper: Object,
        blob: Bytes,
        size: Number,
        template: Template,
        count: Number,
        aad: Bytes,
        aad_size: Number,
        key: NewObject
    ) takes template count;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of a list of functions: its version, and a pointer for each.
    const WORDS: usize = size_of::<CK_FUNCTION_LIST_3_2>() / size_of::<usize>();

    fn words(list: &CK_FUNCTION_LIST_3_2) -> [usize; WORDS] {
        // SAFETY: a version of one word, of which two bytes are set, and pointers.
        unsafe { std::mem::transmute_copy(list) }
    }

    #[test]
    fn no_function_of_the_standard_is_left_out() {
        let mut words_of_a_full_list = [1_usize; WORDS];
        words_of_a_full_list[0] = 0;
        // SAFETY: the words are a version and pointers that are never called.
        let mut list: CK_FUNCTION_LIST_3_2 = unsafe { std::mem::transmute_copy(&words_of_a_full_list) };
        install(&mut list);
        assert!(words(&list)[1..].iter().all(|word| *word > 1));
        assert_eq!(FUNCTIONS.len(), WORDS - 1);
        let mut none = CK_FUNCTION_LIST_3_2::default();
        install(&mut none);
        assert!(words(&none)[1..].iter().all(|word| *word == 0));
    }
}
