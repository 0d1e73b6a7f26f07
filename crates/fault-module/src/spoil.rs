//! What goes into the real call and comes out of it, changed as the plan says.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use cryptoki_sys::{CK_ATTRIBUTE, CK_ATTRIBUTE_PTR, CK_BYTE_PTR, CK_TOKEN_INFO_PTR, CK_ULONG, CK_ULONG_PTR};

use crate::plan::Fault;

/// What of a function's output can be spoilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Nothing.
    None,
    /// Bytes with a length.
    Bytes,
    /// Bytes of a length that the caller chose.
    Fixed,
    /// A number of handles, slots or mechanisms.
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

    pub(crate) const fn can_replay(self) -> bool {
        matches!(self, Self::Bytes)
    }

    pub(crate) const fn has_flags(self) -> bool {
        matches!(self, Self::Token)
    }
}

/// The template that the real module gets: the caller's, but for the attribute that the token is to ignore.
///
/// # Safety
/// `template` is null, or `count` attributes.
pub(crate) unsafe fn template(fault: &Fault, template: CK_ATTRIBUTE_PTR, count: CK_ULONG) -> Vec<CK_ATTRIBUTE> {
    let Ok(count) = usize::try_from(count) else { return Vec::new() };
    if template.is_null() {
        return Vec::new();
    }
    // SAFETY: not null, and by the contract of the module so many attributes.
    let all = unsafe { std::slice::from_raw_parts(template, count) };
    all.iter().filter(|one| fault.without != Some(one.type_)).copied().collect()
}

/// The last answer of each function, while a plan wants to give it again.
fn last() -> &'static Mutex<HashMap<&'static str, Vec<u8>>> {
    // Protects the answers; nothing else is locked while it is held.
    static LAST: std::sync::OnceLock<Mutex<HashMap<&'static str, Vec<u8>>>> = std::sync::OnceLock::new();
    LAST.get_or_init(Mutex::default)
}

/// The outputs of functions, as the macro names them. The caller promises that the pointers are those of a call that
/// succeeded, so that what they point to is as the standard says.
#[expect(non_snake_case, reason = "they are named as the kinds of output")]
pub(crate) mod output {
    use super::{CK_ATTRIBUTE_PTR, CK_BYTE_PTR, CK_TOKEN_INFO_PTR, CK_ULONG, CK_ULONG_PTR, Fault, PoisonError, last};

    pub(crate) unsafe fn Bytes(function: &'static str, fault: &Fault, out: CK_BYTE_PTR, length: CK_ULONG_PTR) {
        if out.is_null() || length.is_null() {
            return;
        }
        // SAFETY: not null, and by the contract of the module a length and that many bytes.
        unsafe {
            if fault.remember {
                let size = usize::try_from(*length).unwrap_or(0);
                let answer = std::slice::from_raw_parts_mut(out, size);
                let before = last().lock().unwrap_or_else(PoisonError::into_inner).insert(function, answer.to_vec());
                if let Some(before) = before.filter(|before| fault.replay && before.len() <= size)
                    && let Some(place) = answer.get_mut(..before.len())
                {
                    place.copy_from_slice(&before);
                    *length = before.len() as CK_ULONG;
                }
            }
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

    pub(crate) unsafe fn Fixed(_: &'static str, fault: &Fault, out: CK_BYTE_PTR, length: CK_ULONG) {
        if fault.flip && !out.is_null() && length > 0 {
            // SAFETY: not null, and by the contract of the module `length` bytes.
            unsafe { *out ^= 1 };
        }
    }

    pub(crate) unsafe fn Count(_: &'static str, fault: &Fault, count: CK_ULONG_PTR) {
        if fault.empty && !count.is_null() {
            // SAFETY: not null, and by the contract of the module a number.
            unsafe { *count = 0 };
        }
    }

    pub(crate) unsafe fn Token(_: &'static str, fault: &Fault, info: CK_TOKEN_INFO_PTR) {
        if !info.is_null() {
            // SAFETY: not null, and by the contract of the module a CK_TOKEN_INFO.
            unsafe { (*info).flags |= fault.flags };
        }
    }

    pub(crate) unsafe fn Attribute(_: &'static str, fault: &Fault, template: CK_ATTRIBUTE_PTR, count: CK_ULONG) {
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
