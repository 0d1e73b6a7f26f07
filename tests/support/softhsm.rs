//! A SoftHSM token for one test.
//!
//! SoftHSM reads its configuration from the process's environment and keeps one state per process, so each test that opens a
//! token runs in a process of its own: [`in_own_process`] makes a token, runs the test binary again for this test alone with
//! the environment set, and the copy does the work.
//!
//! ```ignore
//! softhsm_test!(a_key_signs, |hsm| {
//!     let token = pkcs11::open(&hsm.settings(), None).unwrap();
//! });
//! ```
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use signet::device::{PinSource, Pkcs11Settings, TokenSelector};

/// The real module.
pub(crate) const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
/// The label of the token.
pub(crate) const LABEL: &str = "signet";
/// Tells the copy of the test binary that it is one, and where its token is.
const FOLDER: &str = "SIGNET_TEST_SOFTHSM";

/// A folder with a token in it.
#[derive(Debug)]
pub(crate) struct SoftHsm {
    folder: PathBuf,
    /// Removes the folder at the end; `None` in the copy, which does not own it.
    _guard: Option<tempfile::TempDir>,
}

impl SoftHsm {
    /// Makes a token labelled [`LABEL`] in a new folder.
    pub(crate) fn new() -> Self {
        let guard = tempfile::tempdir().unwrap();
        let hsm = Self { folder: guard.path().to_owned(), _guard: Some(guard) };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("softhsm/token.sh");
        let made = Command::new(&script).arg(&hsm.folder).arg(LABEL).arg(hsm.pin_file()).status().unwrap();
        assert!(made.success(), "{}: no token; is softhsm2 installed?", script.display());
        hsm
    }

    /// A token that another process made.
    pub(crate) fn at(folder: PathBuf) -> Self {
        Self { folder, _guard: None }
    }

    /// A token that is the same as this one in all but its place.
    pub(crate) fn copy(&self) -> Self {
        let guard = tempfile::tempdir().unwrap();
        let copy = Self { folder: guard.path().to_owned(), _guard: Some(guard) };
        copy_all(&self.tokens(), &copy.tokens());
        fs::copy(self.pin_file(), copy.pin_file()).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let conf = fs::read_to_string(self.conf()).unwrap();
        fs::write(copy.conf(), conf.replace(&text(&self.folder), &text(&copy.folder))).unwrap();
        copy
    }

    /// The ids of all objects of the token, in hex, as another program sees them.
    pub(crate) fn ids(&self) -> BTreeSet<String> {
        let pin = fs::read_to_string(self.pin_file()).unwrap();
        let out = Command::new("pkcs11-tool")
            .args(["--module", MODULE, "--token-label", LABEL, "--login", "--pin", pin.trim(), "--list-objects"])
            .envs(self.environment())
            .output()
            .unwrap();
        assert!(out.status.success(), "pkcs11-tool: {}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        text.lines().filter_map(|line| line.trim().strip_prefix("ID:")).map(|id| id.trim().to_owned()).collect()
    }

    /// The folder of everything.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of the token's files.
    pub(crate) fn tokens(&self) -> PathBuf {
        self.folder.join("tokens")
    }

    /// The PIN file.
    pub(crate) fn pin_file(&self) -> PathBuf {
        self.folder.join("pin")
    }

    /// The configuration.
    pub(crate) fn conf(&self) -> PathBuf {
        self.folder.join("softhsm2.conf")
    }

    /// The plan of the fault module.
    pub(crate) fn plan_file(&self) -> PathBuf {
        self.folder.join("plan")
    }

    /// The trace of the fault module.
    pub(crate) fn trace_file(&self) -> PathBuf {
        self.folder.join("trace")
    }

    /// What a process must have in its environment to see this token, directly or through the fault module.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        vec![
            ("SOFTHSM2_CONF".to_owned(), text(self.conf())),
            ("SIGNET_FAULT_REAL".to_owned(), MODULE.to_owned()),
            ("SIGNET_FAULT_PLAN".to_owned(), text(self.plan_file())),
            ("SIGNET_FAULT_TRACE".to_owned(), text(self.trace_file())),
        ]
    }

    /// How to open the token.
    pub(crate) fn settings(&self) -> Pkcs11Settings {
        Pkcs11Settings {
            module: MODULE.into(),
            token: TokenSelector::Label(LABEL.to_owned()),
            pin: PinSource::File(self.pin_file()),
            threads: 2,
            loaded_keys: 100,
            sync_dir: Some(self.tokens()),
            environment: self.environment(),
            network: false,
            anchor_writes_per_day: None,
        }
    }

    /// How to open it with the fault module in between.
    pub(crate) fn faulty_settings(&self) -> Pkcs11Settings {
        Pkcs11Settings { module: fault_module(), ..self.settings() }
    }

    /// Sets the plan of the fault module; an empty one ends all faults. See the documentation of `fault-module`.
    pub(crate) fn plan(&self, rules: &str) {
        // A new file each time, so that the module sees the change whatever the clock says.
        let new = self.folder.join("plan.new");
        fs::write(&new, rules).unwrap();
        fs::rename(&new, self.plan_file()).unwrap();
    }

    /// How often each function was called since the last question.
    pub(crate) fn calls(&self) -> BTreeMap<String, usize> {
        let trace = fs::read_to_string(self.trace_file()).unwrap_or_default();
        let mut calls = BTreeMap::new();
        for function in trace.lines().filter_map(|line| line.split(' ').next()) {
            *calls.entry(function.to_owned()).or_insert(0) += 1;
        }
        // The module appends, so an emptied file goes on at its start.
        if !trace.is_empty() {
            fs::OpenOptions::new().write(true).truncate(true).open(self.trace_file()).unwrap();
        }
        calls
    }

    /// Writes a wrong PIN into the PIN file.
    pub(crate) fn spoil_pin(&self) {
        fs::write(self.pin_file(), "000000000\n").unwrap();
        fs::set_permissions(self.pin_file(), Permissions::from_mode(0o600)).unwrap();
    }

    /// Runs `pkcs11-tool`, logged in: another program that uses the token.
    pub(crate) fn pkcs11_tool(&self, arguments: &[&str]) {
        let pin = fs::read_to_string(self.pin_file()).unwrap();
        let common = ["--module", MODULE, "--token-label", LABEL, "--login", "--pin", pin.trim()];
        tool("pkcs11-tool", &[common.as_slice(), arguments].concat());
    }

    /// Takes the token out: moves its files away.
    pub(crate) fn take_out(&self) {
        move_all(&self.tokens(), &self.folder.join("taken-out"));
    }

    /// Puts it back.
    pub(crate) fn put_back(&self) {
        move_all(&self.folder.join("taken-out"), &self.tokens());
    }
}

/// Copies a folder with all that is in it.
pub(crate) fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_all(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Moves what is in a folder into another one.
fn move_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::rename(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Runs a program in the environment of the test, for its effect.
pub(crate) fn tool(program: &str, arguments: &[&str]) {
    let out = Command::new(program).args(arguments).output().unwrap();
    assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
}

/// The fault module, which cargo builds beside the test binary.
pub(crate) fn fault_module() -> PathBuf {
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let name = "libsignet_fault_module.so";
    let found = [folder.join(name), folder.join("..").join(name)].into_iter().find(|path| path.exists());
    found.unwrap_or_else(|| panic!("no {name} beside the test binary: cargo build -p fault-module"))
}

/// Runs `test` in a process of its own, with a token of its own. `name` is the full name of the test in its binary.
pub(crate) fn in_own_process(name: &str, test: impl FnOnce(&SoftHsm)) {
    if let Some(folder) = std::env::var_os(FOLDER) {
        test(&SoftHsm::at(folder.into()));
        return;
    }
    let hsm = SoftHsm::new();
    let copy = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .envs(hsm.environment())
        .env(FOLDER, hsm.folder())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&copy.stdout);
    let ran_one = out.contains("1 passed");
    assert!(copy.status.success() && ran_one, "{}\n{out}\n{}", copy.status, String::from_utf8_lossy(&copy.stderr));
}
