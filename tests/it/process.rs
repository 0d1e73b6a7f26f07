//! Signet as a process of its own that can be killed, on an installation that can be copied.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use signet::client::{Client, Options as ClientOptions};
use signet::types::PublicKey;
use signet::wire::SecretText;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::server::{Devices, PROGRAM, configuration};
use crate::softhsm::{SoftHsm, copy_all};
use crate::swtpm::{Swtpm, free_pair};

/// How long anything may take that should happen by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `look` finds something.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("never came to pass: {what}"))
}

/// Devices, a data folder and a configuration; whether a service runs on them is another matter.
#[derive(Debug)]
pub(crate) struct Installation {
    /// Where the service has no token, one that stays empty.
    pub(crate) hsm: SoftHsm,
    tpm: Option<Swtpm>,
    folder: tempfile::TempDir,
    devices: Devices,
    port: u16,
    /// Of an administrator, where one was made.
    pub(crate) token: String,
}

impl Installation {
    /// Devices that hold nothing yet, and no data folder.
    pub(crate) fn bare(devices: Devices) -> Self {
        Self::on(SoftHsm::new(), devices.has_tpm().then(Swtpm::start), devices, String::new())
    }

    fn on(hsm: SoftHsm, tpm: Option<Swtpm>, devices: Devices, token: String) -> Self {
        let it = Self { hsm, tpm, folder: tempfile::tempdir().unwrap(), devices, port: free_pair(), token };
        let text = configuration(&it.hsm, it.tpm.as_ref(), devices, it.folder.path());
        let text = text.replace("127.0.0.1:0", &format!("127.0.0.1:{}", it.port));
        std::fs::write(it.config(), text).unwrap();
        it
    }

    /// The same in another place, on another port.
    pub(crate) fn copy(&self) -> Self {
        self.copy_with(self.devices)
    }

    /// The same with its token behind the fault module.
    pub(crate) fn copy_with(&self, devices: Devices) -> Self {
        let tpm = self.tpm.as_ref().map(Swtpm::copy);
        let copy = Self::on(self.hsm.copy(), tpm, devices, self.token.clone());
        copy_all(&self.data(), &copy.data());
        copy
    }

    /// The configuration.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("signet.toml")
    }

    /// The folder of everything but the devices.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Where a service on it listens.
    pub(crate) fn address(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The authority of the server's certificate.
    pub(crate) fn authority(&self) -> Vec<u8> {
        std::fs::read(self.data().join("tls/ca.pem")).unwrap()
    }

    /// A client that does not try again by itself.
    pub(crate) fn client(&self, token: Option<&str>) -> Client {
        self.patient_client(token, Duration::ZERO)
    }

    /// A client that tries again for so long.
    pub(crate) fn patient_client(&self, token: Option<&str>, retry_for: Duration) -> Client {
        let mut options = ClientOptions::new(self.address(), self.authority());
        options.token = token.map(|token| SecretText(token.to_owned()));
        options.retry_for = retry_for;
        Client::new(options).unwrap()
    }

    /// A command of this program; `crash_point` is where it kills itself.
    pub(crate) fn command(&self, words: &[&str], crash_point: Option<&str>) -> Process {
        let mut command = Command::new(PROGRAM);
        command.args(words).env_remove("SIGNET_CRASH_POINT").env_remove("SIGNET_CONFIG").env("RUST_LOG", "info");
        if let Some(point) = crash_point {
            command.env("SIGNET_CRASH_POINT", point);
        }
        Process::spawn(command)
    }

    /// A service on it that is told to die at a point; ask [`Process::serves`] whether it got up.
    pub(crate) fn serve_until(&self, crash_point: &str) -> Process {
        self.command(&["serve", "--config", self.config().to_str().unwrap()], Some(crash_point))
    }

    /// A service on it, once it serves.
    pub(crate) async fn serve(&self) -> Process {
        let mut process = self.command(&["serve", "--config", self.config().to_str().unwrap()], None);
        if let Err(status) = process.serves().await {
            panic!("the service did not start by itself ({status}):\n{}", process.said());
        }
        process
    }

    /// The keys that sign the heads of its audit log.
    fn log_keys(&self) -> Vec<PublicKey> {
        log_keys(&self.data())
    }

    /// Checks the audit log as an auditor would.
    pub(crate) fn audit_is_good(&self) {
        let report = signet::audit::verify(&self.data().join("audit"), &self.log_keys()).unwrap();
        assert!(report.is_good(), "{:?}", report.problems);
    }

    /// The ids of the objects that belong to the service itself.
    pub(crate) fn house_ids(&self) -> BTreeSet<String> {
        house_ids(&self.data())
    }
}

fn root(data: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(data.join("root.json")).unwrap()).unwrap()
}

/// The keys that sign the heads of the audit log of `data`.
pub(crate) fn log_keys(data: &Path) -> Vec<PublicKey> {
    let root = root(data);
    let keys = [root.pointer("/log_public"), root.pointer("/log_ed25519/public")];
    keys.into_iter().flatten().map(|key| serde_json::from_value(key.clone()).unwrap()).collect()
}

/// The ids of the objects in the token that belong to the service on `data` itself.
pub(crate) fn house_ids(data: &Path) -> BTreeSet<String> {
    let root = root(data);
    let device = &root["devices"]["hsm"];
    if device.is_null() {
        return BTreeSet::new();
    }
    let mut ids = vec![&root["root_key"]["id"], &root["log_key"]["id"], &device["sentinel"]["id"]];
    ids.extend(root.get("log_ed25519").filter(|own| own["device"] == "hsm").map(|own| &own["key"]["id"]));
    ids.extend(device["keks"].as_array().unwrap().iter().map(|kek| &kek["id"]));
    ids.extend(device.get("attestation_key").map(|own| &own["key"]["id"]));
    ids.into_iter().map(|id| format!("{}00000001", id.as_str().unwrap())).collect()
}

/// A running process of this program, killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    said: Arc<Mutex<String>>,
    listener: JoinHandle<()>,
}

impl Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Process({:?})", self.child.id())
    }
}

impl Process {
    /// Starts one.
    pub(crate) fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (mut lines, log) = (BufReader::new(child.stderr.take().unwrap()).lines(), said.clone());
        let listener = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let mut log = log.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self { child, said, listener }
    }

    /// Where it says that it serves.
    pub(crate) fn url(&self) -> String {
        let said = self.said();
        let (_, rest) = said.split_once("signet serves on ").unwrap();
        rest.split_whitespace().next().unwrap().to_owned()
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// What it wrote to standard error so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until it serves, or has ended before.
    pub(crate) async fn serves(&mut self) -> Result<(), ExitStatus> {
        let (child, said) = (&mut self.child, &self.said);
        eventually("the service serves", async || {
            if said.lock().unwrap().contains("signet serves on") {
                return Some(Ok(()));
            }
            child.try_wait().unwrap().map(Err)
        })
        .await
    }

    /// Waits for its end, and all that it wrote.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let both = async { (self.child.wait().await.unwrap(), (&mut self.listener).await.unwrap()).0 };
        tokio::time::timeout(PATIENCE, both).await.expect("the process should have ended")
    }

    /// Waits for its death at a crash point.
    pub(crate) async fn dies(mut self, point: &str) {
        use std::os::unix::process::ExitStatusExt;
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("{point} was not reached:\n{}", self.said())).unwrap();
        assert_eq!(status.signal(), Some(9), "{point}: {status}\n{}", self.said());
    }

    /// Kills it, as `kill -9` does.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for its good end, and answers what it printed.
    pub(crate) async fn succeeds(mut self) -> String {
        let status = self.ended().await;
        let mut out = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
        assert!(status.success(), "{status}\n{}", self.said());
        out
    }
}
