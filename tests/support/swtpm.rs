//! A software TPM of its own for each test: swtpm on two ports of the loopback, its state in a temporary folder.
//!
//! The ports lie below those the system hands out, since each TPM command of tpm2-tss is a new connection and takes one
//! of these. Ready means: the pid file in our own folder holds our own child's number, and the control port answers.
//! The data port is never probed, since an idle connection there blocks everybody.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use signet::device::TpmSettings;

/// A running software TPM. Dropping it kills it; its state goes with the folder.
#[derive(Debug)]
pub(crate) struct Swtpm {
    child: Child,
    port: u16,
    folder: PathBuf,
    _temporary: tempfile::TempDir,
}

impl Swtpm {
    /// Starts a new TPM on free ports.
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary folder"))
    }

    /// Another TPM that is the same as this one, as only a software TPM can be. This one must have nothing to do.
    pub(crate) fn copy(&self) -> Self {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        self.save(temporary.path());
        Self::start_in(temporary)
    }

    /// Copies its state into a folder. It must have nothing to do.
    pub(crate) fn save(&self, to: &Path) {
        for entry in fs::read_dir(&self.folder).expect("our own folder") {
            let name = entry.expect("our own folder").file_name();
            // `tpm2-00.permall` is the state; the rest belongs to the process.
            if name.to_string_lossy().starts_with("tpm2") {
                fs::copy(self.folder.join(&name), to.join(&name)).expect("a copy of the state");
            }
        }
    }

    /// Starts a new TPM whose endorsement keys are certified by the authority in that folder, which is made there at its first use: a
    /// root in `swtpm-localca-rootca-cert.pem`, and below it `issuercert.pem`.
    pub(crate) fn certified(authority: &Path) -> Self {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| authority.join(name).display().to_string();
        let files = [
            (
                "setup.conf",
                format!(
                    "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = {}\n\
                     create_certs_tool_options = {}\nactive_pcr_banks = sha256\n",
                    at("localca.conf"),
                    at("localca.options")
                ),
            ),
            (
                "localca.conf",
                format!(
                    "statedir = {}\nsigningkey = {}\nissuercert = {}\ncertserial = {}\n",
                    authority.display(),
                    at("signkey.pem"),
                    at("issuercert.pem"),
                    at("certserial")
                ),
            ),
            (
                "localca.options",
                "--platform-manufacturer Example\n--platform-version 1.0\n--platform-model Test\n".to_owned(),
            ),
        ];
        for (name, text) in files {
            fs::write(authority.join(name), text).expect("our own folder");
        }
        let mut setup = Command::new("swtpm_setup");
        setup.args(["--tpm2", "--create-ek-cert", "--create-platform-cert", "--lock-nvram", "--overwrite"]);
        setup.arg("--tpmstate").arg(temporary.path()).args(["--config", &at("setup.conf"), "--logfile", &at("log")]);
        let done = setup.stdin(Stdio::null()).output().expect("swtpm_setup is installed");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
        Self::start_in(temporary)
    }

    fn start_in(temporary: tempfile::TempDir) -> Self {
        let folder = temporary.path().to_owned();
        for _ in 0..20 {
            let port = free_pair();
            if let Some(child) = launch(&folder, port) {
                return Self { child, port, folder, _temporary: temporary };
            }
        }
        panic!("swtpm does not start: is it installed?");
    }

    /// How the driver finds it.
    pub(crate) fn settings(&self, sessions: bool) -> TpmSettings {
        TpmSettings { tcti: format!("swtpm:host=127.0.0.1,port={}", self.port), sessions, anchor_writes_per_day: None }
    }

    /// The data port; the control port is the next one.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Kills it at once, as a power cut would.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends the process in order. It sends no TPM2_Shutdown by itself.
    pub(crate) fn terminate(&mut self) {
        self.signal(Signal::TERM);
        let _ = self.child.wait();
    }

    /// Starts it again on the same ports with the same state.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = launch(&self.folder, self.port).expect("swtpm starts again on its ports");
    }

    /// Puts another TPM in its place, whose state is in `folder`; [`Self::restart`] puts this one back.
    pub(crate) fn exchange(&mut self, folder: &Path) {
        self.kill();
        self.child = launch(folder, self.port).expect("another swtpm starts on the same ports");
    }

    /// Stops it in the middle of whatever it does.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process number");
        kill_process(pid, signal).expect("our own child can be signalled");
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An even port and the next one, both free a moment ago.
pub(crate) fn free_pair() -> u16 {
    const LOWEST: u16 = 10_000;
    const PAIRS: u16 = 11_000;
    loop {
        let draw = getrandom::u32().expect("random bytes") % u32::from(PAIRS);
        let port = LOWEST + 2 * u16::try_from(draw).expect("below 11,000");
        let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if free(port) && free(port + 1) {
            return port;
        }
    }
}

/// Starts swtpm and waits until it serves; `None` where another took the ports first.
fn launch(folder: &Path, port: u16) -> Option<Child> {
    let pid_file = folder.join("pid");
    let _ = fs::remove_file(&pid_file);
    let mut child = Command::new("swtpm")
        .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
        .arg("--tpmstate")
        .arg(format!("dir={}", folder.display()))
        .arg("--server")
        .arg(format!("type=tcp,port={port},bindaddr=127.0.0.1"))
        .arg("--ctrl")
        .arg(format!("type=tcp,port={},bindaddr=127.0.0.1", port + 1))
        .arg("--pid")
        .arg(format!("file={}", pid_file.display()))
        .arg("--log")
        .arg(format!("file={},level=1", folder.join("log").display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("swtpm is installed");
    let given_up = Instant::now() + Duration::from_secs(10);
    while child.try_wait().expect("our own child can be waited for").is_none() && Instant::now() < given_up {
        let ours = fs::read_to_string(&pid_file).is_ok_and(|text| text.trim() == child.id().to_string());
        if ours && TcpStream::connect((Ipv4Addr::LOCALHOST, port + 1)).is_ok() {
            return Some(child);
        }
        pause(Duration::from_millis(2));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// A wait that nobody cuts short.
pub(crate) fn pause(time: Duration) {
    let (_silent, nothing) = mpsc::channel::<()>();
    let _ = nothing.recv_timeout(time);
}
