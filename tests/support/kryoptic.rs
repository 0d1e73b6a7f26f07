//! A Kryoptic token for one test: the second PKCS#11 module, built by `tests/kryoptic/install`.
//!
//! Kryoptic keeps a token in one file of SQLite, and locks a PIN for ever after ten wrong ones.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use signet::device::{PinSource, Pkcs11Settings, TokenSelector};

use crate::skip::skipped;
use crate::softhsm::fault_module;

/// The label of the token.
const LABEL: &str = "signet";
const PIN: &str = "20398457";
/// Asks for the tests on the build that takes long to make.
const PQC: &str = "SIGNET_TEST_PQC";

/// A folder with a token in it.
#[derive(Debug)]
pub(crate) struct Kryoptic {
    folder: tempfile::TempDir,
    module: PathBuf,
}

impl Kryoptic {
    /// The PIN of its security officer.
    pub(crate) const OFFICER_PIN: &str = "83245019";

    /// Makes a token, or says that the test is skipped for want of the module.
    pub(crate) fn new() -> Option<Self> {
        Self::with("kryoptic", "")
    }

    /// Makes a token that lacks these mechanisms, such as `"CKM_ECDSA"`.
    pub(crate) fn without(mechanisms: &[&str]) -> Option<Self> {
        let list: Vec<_> = mechanisms.iter().map(|one| format!("{one:?}")).collect();
        Self::with("kryoptic", &format!("mechanisms = [\"DENY\", {}]\n", list.join(", ")))
    }

    /// Makes a token of the build that has an OpenSSL of its own, and with it ML-DSA, ML-KEM and Ed25519. It takes minutes to build, so the tests on
    /// it belong to the suite only where `SIGNET_TEST_PQC` asks for them: nothing is skipped where it does not.
    pub(crate) fn full() -> Option<Self> {
        if std::env::var_os(PQC).is_none_or(|asked| asked.is_empty()) {
            println!("not asked for: {PQC}=1 does");
            return None;
        }
        Self::with("kryoptic-full", "")
    }

    fn with(build: &str, more: &str) -> Option<Self> {
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(build).join("release/libkryoptic.so");
        if !module.exists() {
            skipped(&format!("no Kryoptic in target/{build}; tests/kryoptic/install builds it"));
            return None;
        }
        let token = Self { folder: tempfile::tempdir().unwrap(), module };
        let slot = format!("[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = {:?}\n{more}", token.database());
        fs::write(token.conf(), slot).unwrap();
        token.set_pin_file(PIN);
        let so = ["--so-pin", Self::OFFICER_PIN];
        token.tool(&[["--init-token", "--label", LABEL].as_slice(), &so].concat());
        token.tool(&[["--login", "--login-type", "so", "--init-pin", "--new-pin", PIN].as_slice(), &so].concat());
        Some(token)
    }

    /// The folder of everything.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file of the token.
    pub(crate) fn database(&self) -> PathBuf {
        self.folder.path().join("token.sql")
    }

    fn conf(&self) -> PathBuf {
        self.folder.path().join("token.conf")
    }

    /// The PIN file.
    pub(crate) fn pin_file(&self) -> PathBuf {
        self.folder.path().join("pin")
    }

    /// Writes a PIN into the PIN file.
    pub(crate) fn set_pin_file(&self, pin: &str) {
        fs::write(self.pin_file(), pin).unwrap();
        fs::set_permissions(self.pin_file(), Permissions::from_mode(0o600)).unwrap();
    }

    /// Puts the right PIN into the PIN file again.
    pub(crate) fn mend_pin_file(&self) {
        self.set_pin_file(PIN);
    }

    /// How to open the token.
    pub(crate) fn settings(&self) -> Pkcs11Settings {
        Pkcs11Settings {
            module: self.module.clone(),
            token: TokenSelector::Label(LABEL.to_owned()),
            pin: PinSource::File(self.pin_file()),
            threads: 2,
            loaded_keys: 100,
            sync_dir: None,
            environment: vec![("KRYOPTIC_CONF".to_owned(), self.conf().to_str().unwrap().to_owned())],
            network: false,
            anchor_writes_per_day: None,
        }
    }

    /// How to open the token through the fault module, which does what the plan says.
    pub(crate) fn faulty_settings(&self) -> Pkcs11Settings {
        let mut settings = Pkcs11Settings { module: fault_module(), ..self.settings() };
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        settings.environment.push(("SIGNET_FAULT_REAL".to_owned(), text(&self.module)));
        settings.environment.push(("SIGNET_FAULT_PLAN".to_owned(), text(&self.plan_file())));
        settings
    }

    fn plan_file(&self) -> PathBuf {
        self.folder.path().join("plan")
    }

    /// Sets the plan of the fault module; an empty one ends all faults.
    pub(crate) fn plan(&self, rules: &str) {
        // A new file each time, so that the module sees the change whatever the clock says.
        let new = self.folder.path().join("plan.new");
        fs::write(&new, rules).unwrap();
        fs::rename(&new, self.plan_file()).unwrap();
    }

    /// Runs `pkcs11-tool` on the token: another program that uses it.
    pub(crate) fn run_tool(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("pkcs11-tool");
        command.arg("--module").arg(&self.module).env("KRYOPTIC_CONF", self.conf());
        command.args(arguments).output().unwrap()
    }

    fn tool(&self, arguments: &[&str]) {
        let out = self.run_tool(arguments);
        assert!(out.status.success(), "pkcs11-tool {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// Logs in with a PIN, as another program. Answers what the token says of it.
    pub(crate) fn login(&self, pin: &str) -> Result<(), String> {
        self.list(pin).map(drop)
    }

    /// How many keys another program sees in the token.
    pub(crate) fn keys(&self) -> usize {
        self.list(PIN).unwrap().matches("Key Object").count()
    }

    fn list(&self, pin: &str) -> Result<String, String> {
        let out = self.run_tool(&["--token-label", LABEL, "--login", "--pin", pin, "--list-objects"]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
    }
}
