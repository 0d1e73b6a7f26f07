//! Loading the library and finding the token.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pkcs11_raw::{LoadError, Module, Slot, TokenInfo};

use crate::device::pkcs11::codes::{self, Effect};
use crate::device::{Class, Fault, Pkcs11Settings, TokenSelector};

/// How long a token may stay unseen at start. Four SoftHSM processes that start at once hide the token from each other in a
/// quarter of all starts, for some milliseconds; only a library that is initialised anew looks again.
const PATIENCE: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// A library and the one token in it that was asked for.
#[derive(Debug)]
pub(super) struct Selected {
    pub(super) module: Arc<Module>,
    pub(super) slot: Slot,
    pub(super) info: TokenInfo,
}

/// Loads the library and finds the token. One that says of a wrong PIN is taken only if we `insist`.
pub(super) fn select(settings: &Pkcs11Settings, insist: bool) -> Result<Selected, Fault> {
    let end = Instant::now() + PATIENCE;
    let mut pause = FIRST_PAUSE;
    loop {
        let module = load(settings)?;
        let seen = tokens(&module)?;
        let mut chosen = seen.iter().filter(|(_, info)| is_chosen(&settings.token, info));
        match (chosen.next(), chosen.next()) {
            (Some((slot, info)), None) => return usable(Selected { slot: *slot, info: info.clone(), module }, insist),
            (Some(_), Some(_)) => return Err(ambiguous(&settings.token, &seen)),
            (None, _) if Instant::now() + pause > end => return Err(missing(&settings.token, &seen)),
            (None, _) => {}
        }
        // Dropped here, the library is finalised, and looks again when it is loaded next.
        drop(module);
        #[expect(
            clippy::disallowed_methods,
            reason = "another process's write is waited for: there is no condition to wait on"
        )]
        std::thread::sleep(pause);
        pause *= 2;
    }
}

fn load(settings: &Pkcs11Settings) -> Result<Arc<Module>, Fault> {
    let path = settings.module.display();
    Module::load(&settings.module).map_err(|error| match error {
        LoadError::Library(_) | LoadError::NotPkcs11 => {
            let hint = "give the full path of the maker's PKCS#11 library, such as /usr/lib/softhsm/libsofthsm2.so";
            Fault::new(Class::Config, format!("cannot load the PKCS#11 module {path}: {error}")).hint(hint)
        }
        LoadError::Call(error) => {
            let fault = codes::fault(error, Effect::Idle);
            // A library that does not start has no token to be gone: SoftHSM answers so where its configuration is missing.
            let class = if fault.class == Class::Internal { Class::Internal } else { Class::Config };
            let hint = "check the library's own configuration, such as SOFTHSM2_CONF in `environment`";
            Fault { class, text: format!("the PKCS#11 module {path} does not start: {}", fault.text), ..fault }
                .hint(hint)
        }
    })
}

fn tokens(module: &Module) -> Result<Vec<(Slot, TokenInfo)>, Fault> {
    let slots = module.slots().map_err(|error| codes::fault(error, Effect::Idle))?;
    // A slot that does not tell what is in it is not the one asked for; another program's broken token must not stop us.
    Ok(slots.into_iter().filter_map(|slot| Some((slot, module.token_info(slot).ok()?))).collect())
}

fn is_chosen(selector: &TokenSelector, info: &TokenInfo) -> bool {
    info.flags.initialised
        && match selector {
            TokenSelector::Serial(serial) => info.serial == *serial,
            TokenSelector::Label(label) => info.label == *label,
        }
}

fn name(selector: &TokenSelector) -> String {
    match selector {
        TokenSelector::Serial(serial) => format!("with the serial number {serial:?}"),
        TokenSelector::Label(label) => format!("labelled {label:?}"),
    }
}

fn list(seen: &[(Slot, TokenInfo)]) -> String {
    let describe = |info: &TokenInfo| {
        if info.flags.initialised {
            format!("{:?} (serial {}, {} {})", info.label, info.serial, info.manufacturer, info.model)
        } else {
            format!("an uninitialised {} {}", info.manufacturer, info.model)
        }
    };
    let all: Vec<_> = seen.iter().map(|(_, info)| describe(info)).collect();
    if all.is_empty() { "no token at all".to_owned() } else { all.join(", ") }
}

fn missing(selector: &TokenSelector, seen: &[(Slot, TokenInfo)]) -> Fault {
    let text = format!("there is no initialised token {}; the module shows {}", name(selector), list(seen));
    Fault::new(Class::Config, text).hint(
        "set `token_label` or `token_serial` to one of these, or initialise a token with `pkcs11-tool --init-token`",
    )
}

fn ambiguous(selector: &TokenSelector, seen: &[(Slot, TokenInfo)]) -> Fault {
    let text = format!("several tokens are {}; the module shows {}", name(selector), list(seen));
    Fault::new(Class::Config, text).hint("set `token_serial`, which is unique, instead of `token_label`")
}

/// Looks at the flags before the PIN is tried.
fn usable(selected: Selected, insist: bool) -> Result<Selected, Fault> {
    let (flags, label) = (selected.info.flags, &selected.info.label);
    let refuse = |class, code, text: String| {
        let mend = codes::find(code).map(|row| row.mend).unwrap_or_default();
        Err(Fault { code: Some(code.to_owned()), ..Fault::new(class, text).hint(mend) })
    };
    if !flags.pin_set {
        return refuse(
            Class::Config,
            "CKR_USER_PIN_NOT_INITIALIZED",
            format!("the token {label:?} has no user PIN yet"),
        );
    }
    if flags.pin_locked {
        return refuse(Class::PinLocked, "CKR_PIN_LOCKED", format!("the PIN of the token {label:?} is locked"));
    }
    if flags.pin_final_try {
        // The last try is a person's: were ours wrong, the token would lock, and some erase themselves.
        let text = format!("the PIN of the token {label:?} has one try left, and the service does not spend it");
        let hint = "log in once with the maker's tool, for example `pkcs11-tool --login --list-objects`, then restart";
        return Err(Fault::new(Class::PinRefused, text).hint(hint));
    }
    if flags.pin_count_low && !insist {
        // All who share the token read this, wherever they are: so that each of them does not spend a try on the same wrong PIN.
        let text =
            format!("somebody entered a wrong PIN at the token {label:?} since its last login: ours is not tried");
        let hint = "log in once with the maker's tool, for example `pkcs11-tool --login --list-objects`, or SIGHUP a running service";
        return Err(Fault::new(Class::PinRefused, text).hint(hint));
    }
    if flags.write_protected {
        return refuse(Class::Config, "CKR_TOKEN_WRITE_PROTECTED", format!("the token {label:?} is write-protected"));
    }
    Ok(selected)
}
