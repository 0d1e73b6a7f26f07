//! The three functions by which a caller gets all others, and what they give: the real module's lists with our functions in them.

use std::sync::OnceLock;

use cryptoki_sys::{
    CK_FLAGS, CK_FUNCTION_LIST_3_2, CK_FUNCTION_LIST_PTR_PTR, CK_INTERFACE, CK_INTERFACE_PTR, CK_INTERFACE_PTR_PTR,
    CK_RV, CK_ULONG, CK_ULONG_PTR, CK_UTF8CHAR_PTR, CK_VERSION_PTR, CKR_ARGUMENTS_BAD, CKR_BUFFER_TOO_SMALL,
    CKR_FUNCTION_FAILED, CKR_GENERAL_ERROR, CKR_OK,
};

use crate::forward;
use crate::real::{Real, real, standard};

/// What is offered, made once. Never written to afterwards.
struct Offered {
    /// The list of `C_GetFunctionList`.
    list: &'static CK_FUNCTION_LIST_3_2,
    /// Each interface, with the list of the real one that it stands for.
    interfaces: Vec<(usize, CK_INTERFACE)>,
}

// SAFETY: see above; what the pointers lead to lives for ever.
unsafe impl Send for Offered {}
// SAFETY: see above.
unsafe impl Sync for Offered {}

fn offered(real: &Real) -> &'static Offered {
    static OFFERED: OnceLock<Offered> = OnceLock::new();
    OFFERED.get_or_init(|| {
        // A caller of an older version reads the beginning.
        let list = ours(CK_FUNCTION_LIST_3_2 { version: real.version, ..real.functions });
        let own = CK_INTERFACE {
            pInterfaceName: c"PKCS 11".as_ptr().cast_mut().cast(),
            pFunctionList: std::ptr::from_ref(list).cast_mut().cast(),
            flags: 0,
        };
        let replaced = real.interfaces.iter().map(|theirs| {
            let mut interface = *theirs;
            if let Some(functions) = standard(theirs) {
                interface.pFunctionList = std::ptr::from_ref(ours(functions)).cast_mut().cast();
            }
            (theirs.pFunctionList.addr(), interface)
        });
        let mut interfaces: Vec<_> = replaced.collect();
        if interfaces.is_empty() {
            interfaces.push((0, own));
        }
        Offered { list, interfaces }
    })
}

/// A list with our functions in the places of those that it has.
fn ours(mut list: CK_FUNCTION_LIST_3_2) -> &'static CK_FUNCTION_LIST_3_2 {
    forward::install(&mut list);
    Box::leak(Box::new(list))
}

/// The entry of a PKCS#11 module.
///
/// # Safety
/// `list` is null or a pointer to write to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: CK_FUNCTION_LIST_PTR_PTR) -> CK_RV {
    forward::pass("C_GetFunctionList", |_| {
        if list.is_null() {
            return CKR_ARGUMENTS_BAD;
        }
        match real() {
            Ok(real) => {
                let ours = std::ptr::from_ref(offered(real).list).cast_mut().cast();
                // SAFETY: not null, checked above. The list is `*mut` by the C type alone: the standard forbids callers to write to it.
                unsafe { *list = ours };
                CKR_OK
            }
            Err(code) => code,
        }
    })
}

/// The interfaces of the real module; of one that knows none, its one list as the interface that the standard would have it be.
///
/// # Safety
/// `count` is null or a number to write to, and `list` null or room for that many interfaces.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetInterfaceList(list: CK_INTERFACE_PTR, count: CK_ULONG_PTR) -> CK_RV {
    forward::pass("C_GetInterfaceList", |_| {
        let real = match real() {
            Ok(_) if count.is_null() => return CKR_ARGUMENTS_BAD,
            Ok(real) => real,
            Err(code) => return code,
        };
        let interfaces = &offered(real).interfaces;
        let all = interfaces.len() as CK_ULONG;
        // SAFETY: not null, checked above.
        let room = unsafe { std::mem::replace(&mut *count, all) };
        if list.is_null() {
            return CKR_OK;
        }
        if room < all {
            return CKR_BUFFER_TOO_SMALL;
        }
        for (place, (_, interface)) in interfaces.iter().enumerate() {
            // SAFETY: there is room for all, by the comparison above.
            unsafe { list.add(place).write(*interface) };
        }
        CKR_OK
    })
}

/// The interface that the real module chooses.
///
/// # Safety
/// `name` is null or a text that ends with a zero, `version` null or a version, `interface` null or a pointer to write to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetInterface(
    name: CK_UTF8CHAR_PTR,
    version: CK_VERSION_PTR,
    interface: CK_INTERFACE_PTR_PTR,
    flags: CK_FLAGS,
) -> CK_RV {
    forward::pass("C_GetInterface", |_| {
        let real = match real() {
            Ok(_) if interface.is_null() => return CKR_ARGUMENTS_BAD,
            Ok(real) => real,
            Err(code) => return code,
        };
        let mut chosen = std::ptr::null_mut();
        let code = match real.choose {
            // SAFETY: the arguments are the caller's, passed on unchanged, but for a pointer to write to.
            Some(choose) => unsafe { choose(name, version, &raw mut chosen, flags) },
            // SAFETY: as the caller of this function promises.
            None if unsafe { is_old(real, name, version) } && flags == 0 => CKR_OK,
            None => CKR_FUNCTION_FAILED,
        };
        if code != CKR_OK {
            return code;
        }
        // SAFETY: null, or after a success an interface.
        let of = unsafe { chosen.as_ref() }.map_or(0, |chosen| chosen.pFunctionList.addr());
        let Some((_, ours)) = offered(real).interfaces.iter().find(|(theirs, _)| *theirs == of) else {
            return CKR_GENERAL_ERROR;
        };
        // SAFETY: not null, checked above; `*mut` by the C type alone.
        unsafe { *interface = std::ptr::from_ref(ours).cast_mut() };
        CKR_OK
    })
}

/// Whether somebody who asks for this gets the only interface of a module that knows none.
///
/// # Safety
/// As for [`C_GetInterface`].
unsafe fn is_old(real: &Real, name: CK_UTF8CHAR_PTR, version: CK_VERSION_PTR) -> bool {
    // SAFETY: null, or what the type says.
    unsafe {
        let named = name.is_null() || std::ffi::CStr::from_ptr(name.cast()) == c"PKCS 11";
        let of = real.version;
        named && version.as_ref().is_none_or(|wanted| (wanted.major, wanted.minor) == (of.major, of.minor))
    }
}
