//! The real module: its functions, whatever version of the standard it was made for, and the interfaces that it offers.

use std::ffi::{CStr, OsString};
use std::sync::OnceLock;

use cryptoki_sys::{
    CK_C_GetInterface, CK_C_GetInterfaceList, CK_FUNCTION_LIST, CK_FUNCTION_LIST_3_0, CK_FUNCTION_LIST_3_2,
    CK_FUNCTION_LIST_PTR_PTR, CK_INTERFACE, CK_RV, CK_VERSION, CKR_GENERAL_ERROR, CKR_LIBRARY_LOAD_FAILED, CKR_OK,
};
use libloading::Library;

use crate::{parameters, report};

const DEFAULT: &str = "/usr/lib/softhsm/libsofthsm2.so";
/// The interface of the standard.
const STANDARD: &CStr = c"PKCS 11";

/// What the real module offers. It is never written to once it is made, and its pointers lead into a library that stays loaded.
#[derive(Debug)]
pub(crate) struct Real {
    /// All its functions. Each list of functions of the standard begins as the one before it, so a list of the latest version holds
    /// those of any, and `None` for what its maker did not know of.
    pub(crate) functions: CK_FUNCTION_LIST_3_2,
    /// The version of the list of `C_GetFunctionList`.
    pub(crate) version: CK_VERSION,
    /// Its interfaces, in its order; none where it was made before there were any.
    pub(crate) interfaces: Vec<CK_INTERFACE>,
    /// How it chooses one of them.
    pub(crate) choose: CK_C_GetInterface,
}

// SAFETY: see above.
unsafe impl Send for Real {}
// SAFETY: see above.
unsafe impl Sync for Real {}

/// The real module, loaded for good at the first call.
pub(crate) fn real() -> Result<&'static Real, CK_RV> {
    static REAL: OnceLock<Result<Real, CK_RV>> = OnceLock::new();
    REAL.get_or_init(load).as_ref().map_err(|code| *code)
}

fn load() -> Result<Real, CK_RV> {
    type GetFunctionList = unsafe extern "C" fn(CK_FUNCTION_LIST_PTR_PTR) -> CK_RV;
    let path = std::env::var_os("SIGNET_FAULT_REAL").unwrap_or_else(|| OsString::from(DEFAULT));
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
        CKR_OK if !list.is_null() => {}
        CKR_OK => return Err(CKR_GENERAL_ERROR),
        code => return Err(code),
    }
    let interfaces = interfaces(library)?;
    let latest = interfaces.iter().filter_map(standard).max_by_key(|list| (list.version.major, list.version.minor));
    let mut functions = latest.unwrap_or_default();
    // SAFETY: not null, and by the standard a function list that lives as long as the library, which is leaked.
    let list = unsafe { *list };
    overlay(&mut functions, &list);
    parameters::install(&mut functions);
    // SAFETY: the standard gives the symbol this type.
    let choose = unsafe { library.get::<CK_C_GetInterface>(c"C_GetInterface") }.map_or(None, |entry| *entry);
    Ok(Real { functions, version: list.version, interfaces, choose })
}

/// What it answers to `C_GetInterfaceList`, which came with version 3.0.
fn interfaces(library: &Library) -> Result<Vec<CK_INTERFACE>, CK_RV> {
    // SAFETY: the standard gives the symbol this type.
    let Ok(entry) = (unsafe { library.get::<CK_C_GetInterfaceList>(c"C_GetInterfaceList") }) else {
        return Ok(Vec::new());
    };
    let Some(entry) = *entry else { return Ok(Vec::new()) };
    let mut count = 0;
    // SAFETY: null asks for the number.
    let code = unsafe { entry(std::ptr::null_mut(), &raw mut count) };
    if code != CKR_OK {
        return Err(code);
    }
    let mut all = vec![CK_INTERFACE::default(); usize::try_from(count).map_err(|_| CKR_GENERAL_ERROR)?];
    // SAFETY: room for `count` interfaces.
    let code = unsafe { entry(all.as_mut_ptr(), &raw mut count) };
    all.truncate(usize::try_from(count).unwrap_or(0));
    if code == CKR_OK { Ok(all) } else { Err(code) }
}

/// The functions of an interface of the standard; `None` for a maker's own.
pub(crate) fn standard(interface: &CK_INTERFACE) -> Option<CK_FUNCTION_LIST_3_2> {
    if interface.pInterfaceName.is_null() || interface.pFunctionList.is_null() {
        return None;
    }
    // SAFETY: not null, and by the standard a text that ends with a zero.
    if unsafe { CStr::from_ptr(interface.pInterfaceName.cast()) } != STANDARD {
        return None;
    }
    let list = interface.pFunctionList;
    // SAFETY: not null, and by the standard what any list begins with.
    let version = unsafe { *list.cast::<CK_VERSION>() };
    let mut functions = CK_FUNCTION_LIST_3_2::default();
    // SAFETY: a list of the version that it states, which lives as long as the library.
    unsafe {
        match (version.major, version.minor) {
            (3, 0 | 1) => overlay(&mut functions, &*list.cast::<CK_FUNCTION_LIST_3_0>()),
            (3.., _) => overlay(&mut functions, &*list.cast::<CK_FUNCTION_LIST_3_2>()),
            _ => overlay(&mut functions, &*list.cast::<CK_FUNCTION_LIST>()),
        }
    }
    Some(functions)
}

/// A list of functions of the standard, by the version that gave it its length.
trait List: Copy {}
impl List for CK_FUNCTION_LIST {}
impl List for CK_FUNCTION_LIST_3_0 {}
impl List for CK_FUNCTION_LIST_3_2 {}

/// Puts the functions of a list in their places.
fn overlay<L: List>(functions: &mut CK_FUNCTION_LIST_3_2, list: &L) {
    const { assert!(size_of::<L>() <= size_of::<CK_FUNCTION_LIST_3_2>(), "each version adds to the one before it") };
    // SAFETY: both are plain lists of pointers that begin alike, and the target is the longer one.
    unsafe { std::ptr::from_mut(functions).cast::<L>().write(*list) };
}
