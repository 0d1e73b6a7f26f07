//! A server in a process of its own, as an operator starts it: `signet init`, then `signet serve`.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use signet::client::{Client, Options};
use signet::device::TpmSettings;
use signet::wire::{CreateToken, SecretText};

use crate::process::{children, cpu};
use crate::softhsm::{LABEL, MODULE, SoftHsm};

/// The program that is measured where `BENCH_PROGRAM` names no other.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_signet");

/// A server at work.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    /// Its configuration.
    text: String,
    token: String,
    serving: Option<Serving>,
}

struct Serving {
    child: Child,
    address: SocketAddr,
    /// From the start of the process until it listened.
    started: Duration,
}

/// The processor time of both sides of the service.
#[derive(Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) server: Duration,
    pub(crate) workers: Duration,
}

/// The section of the configuration for a SoftHSM.
pub(crate) fn softhsm_section(hsm: &SoftHsm) -> String {
    let environment: Vec<_> = hsm.environment().iter().map(|(name, value)| format!("{name} = {value:?}")).collect();
    format!(
        "kind = \"pkcs11\"\nmodule = {MODULE:?}\ntoken_label = {LABEL:?}\npin_file = {:?}\nsync_dir = {:?}\n\
         environment = {{ {} }}\n",
        hsm.pin_file(),
        hsm.tokens(),
        environment.join(", "),
    )
}

/// The section of the configuration for a TPM.
pub(crate) fn tpm_section(settings: &TpmSettings) -> String {
    let TpmSettings { tcti, sessions, .. } = settings;
    format!("kind = \"tpm\"\ntcti = {tcti:?}\nsessions = {sessions}\n")
}

impl Place {
    /// Goes on from the store as it is, while nobody serves it.
    pub(crate) fn accept_what_is_there(&self) {
        let mut accept = command(self.folder.path(), "restore");
        let said = accept.arg("--accept-rollback").output().expect("signet starts");
        assert!(said.status.success(), "signet restore: {}", String::from_utf8_lossy(&said.stderr));
    }

    /// A new installation on one device, serving.
    pub(crate) async fn start(device: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = folder.path().join("data");
        let text =
            format!("[server]\nlisten = \"127.0.0.1:0\"\n[storage]\ndata = {data:?}\n[devices.device]\n{device}");
        std::fs::write(folder.path().join("signet.toml"), &text).expect("a configuration");
        let made = command(folder.path(), "init").output().expect("signet starts");
        assert!(made.status.success(), "signet init: {}", String::from_utf8_lossy(&made.stderr));
        let token = String::from_utf8(made.stdout).expect("a token").trim().to_owned();
        let serving = Some(Serving::start(folder.path()));
        let mut place = Self { folder, text, token, serving };
        // The first token is good for one thing: making a lasting one.
        let lasting = CreateToken {
            identity: "administrator".parse().expect("a name"),
            groups: vec!["administrators".parse().expect("a name")],
            ttl: Some("1d".parse().expect("a period")),
            uses: None,
        };
        let made = place.client().create_token(&lasting).await.expect("a token");
        place.token = made.token.expect("its text").0.clone();
        place
    }

    /// Ends the server.
    pub(crate) fn stop(&mut self) {
        self.serving.take();
    }

    /// Adds to its configuration, in place of what was added before, and starts it again.
    pub(crate) fn configure(&mut self, more: &str) {
        self.stop();
        let path = self.folder.path().join("signet.toml");
        std::fs::write(path, format!("{}{more}", self.text)).expect("a configuration");
        self.restart();
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Ends the server, where it runs, and starts it again.
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.serving = Some(Serving::start(self.folder.path()));
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.serving().address
    }

    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// The authority of the server's certificate, in PEM.
    pub(crate) fn authority(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("data/tls/ca.pem")).expect("the server made its authority")
    }

    /// The client of the API, for everything that is not measured.
    pub(crate) fn client(&self) -> Client {
        self.patient_client(Duration::from_secs(60))
    }

    /// One that waits so long for an answer.
    pub(crate) fn patient_client(&self, patience: Duration) -> Client {
        let mut options = Options::new(format!("https://{}", self.address()), self.authority());
        options.token = Some(SecretText(self.token.clone()));
        options.timeout = patience;
        Client::new(options).expect("a client")
    }

    /// How long the last start took.
    pub(crate) fn started(&self) -> Duration {
        self.serving().started
    }

    /// The server's process.
    pub(crate) fn server(&self) -> u32 {
        self.serving().child.id()
    }

    /// Its device workers.
    pub(crate) fn workers(&self) -> Vec<u32> {
        children(self.server())
    }

    pub(crate) fn spent(&self) -> Spent {
        Spent { server: cpu(self.server()), workers: self.workers().into_iter().map(cpu).sum() }
    }

    fn serving(&self) -> &Serving {
        self.serving.as_ref().expect("it serves")
    }
}

impl Serving {
    fn start(folder: &Path) -> Self {
        let began = Instant::now();
        let mut child = command(folder, "serve").stderr(Stdio::piped()).spawn().expect("signet starts");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe"));
        let address = address(&mut lines);
        let started = began.elapsed();
        // What it says from now on must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Self { child, address, started }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// Reads what the server says until it says where it listens.
fn address(lines: &mut BufReader<ChildStderr>) -> SocketAddr {
    let mut said = String::new();
    loop {
        let before = said.len();
        let read = lines.read_line(&mut said).expect("the server says something");
        assert!(read > 0, "signet serve: {said}");
        let address = said.get(before..).and_then(|line| line.trim().strip_prefix("signet serves on https://"));
        if let Some(address) = address {
            return address.parse().expect("an address");
        }
    }
}

fn command(folder: &Path, verb: &str) -> Command {
    let mut command = Command::new(std::env::var_os("BENCH_PROGRAM").map_or_else(|| PROGRAM.into(), PathBuf::from));
    command.arg(verb).arg("--config").arg(folder.join("signet.toml")).stdin(Stdio::null());
    command
}
