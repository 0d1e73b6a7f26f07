//! A server for one test, with its own devices, data folder, port and clock.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use signet::client::{Client, Options as ClientOptions};
use signet::config::Config;
use signet::keyring::{Scheduler, Tick};
use signet::server::{Options, Server, create};
use signet::types::{Clock, KeyName, ManualClock};
use signet::wire::{CreateKey, CreateToken, Key, SecretText};

use crate::softhsm::{MODULE, SoftHsm, fault_module};
use crate::swtpm::Swtpm;

/// The program under test, which is also the device worker.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_signet");

/// A running server and everything it stands on.
pub(crate) struct TestServer {
    pub(crate) hsm: SoftHsm,
    /// Ended with the server.
    pub(crate) tpm: Option<Swtpm>,
    pub(crate) clock: ManualClock,
    pub(crate) config: Config,
    server: Option<Server>,
    /// With an administrator's token.
    pub(crate) client: Client,
    token: String,
    _folder: tempfile::TempDir,
}

/// Which devices a test needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Devices {
    /// SoftHSM alone.
    SoftHsm,
    /// SoftHSM behind the fault module.
    Faulty,
    /// SoftHSM and a software TPM.
    WithTpm,
    /// SoftHSM behind the fault module, and a software TPM.
    FaultyWithTpm,
    /// A software TPM alone.
    Tpm,
}

impl Devices {
    /// Whether a software TPM is one of them.
    pub(crate) const fn has_tpm(self) -> bool {
        matches!(self, Self::WithTpm | Self::FaultyWithTpm | Self::Tpm)
    }
}

impl TestServer {
    /// A server on SoftHSM.
    pub(crate) async fn start() -> Self {
        Self::with(Devices::SoftHsm).await
    }

    /// A server on these devices.
    pub(crate) async fn with(devices: Devices) -> Self {
        Self::configured(devices, |_| {}).await
    }

    /// A server on these devices, with a configuration that is changed in something.
    pub(crate) async fn configured(devices: Devices, change: impl FnOnce(&mut Config)) -> Self {
        let (hsm, folder) = (SoftHsm::new(), tempfile::tempdir().unwrap());
        let tpm = devices.has_tpm().then(Swtpm::start);
        let mut config = Config::parse(&configuration(&hsm, tpm.as_ref(), devices, folder.path())).unwrap();
        change(&mut config);
        #[expect(clippy::disallowed_methods, reason = "the manual clock begins now, because certificates are checked")]
        let clock = ManualClock::at(Timestamp::now());
        let first = create(&config, &options(&clock)).await.unwrap().token.to_string();
        let server = Server::start(&config, options(&clock)).await.unwrap();
        let client = client(&server, Some(&first));
        let token = lasting(&client).await;
        let client = self::client(&server, Some(&token));
        Self { hsm, tpm, clock, config, server: Some(server), client, token, _folder: folder }
    }

    /// The server.
    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// Ends the server in order and starts it again on the same folder.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await.unwrap();
    }

    /// Ends the server in order.
    pub(crate) async fn stop(&mut self) {
        self.server.take().unwrap().stop().await.unwrap();
    }

    /// Ends the server, which may be unable to end in order.
    pub(crate) async fn stop_somehow(&mut self) {
        let _ = self.server.take().unwrap().stop().await;
    }

    /// Goes on from what is in the data folder, as `signet restore --accept-rollback` does. Answers what was accepted.
    pub(crate) async fn accept_rollback(&self) -> signet::error::Result<Option<String>> {
        signet::server::accept_rollback(&self.config, &options(&self.clock)).await
    }

    /// Starts it again; the client follows it to its new port.
    pub(crate) async fn start_again(&mut self) -> signet::error::Result<()> {
        let server = Server::start(&self.config, options(&self.clock)).await?;
        self.client = client(&server, Some(&self.token));
        self.server = Some(server);
        Ok(())
    }

    /// Makes a new administrator's token as `signet init --new-administrator` does, and starts again with it.
    pub(crate) async fn renew_administrator(&mut self) {
        let made = signet::server::new_administrator(&self.config, &options(&self.clock)).await.unwrap();
        self.token = made.to_string();
        self.start_again().await.unwrap();
        self.token = lasting(&self.client).await;
        self.client = client(self.server(), Some(&self.token));
    }

    /// A client with another credential, or none.
    pub(crate) fn client(&self, token: Option<&str>) -> Client {
        client(self.server(), token)
    }

    /// A client of the administrator that never tries again by itself.
    pub(crate) fn impatient_client(&self) -> Client {
        let authorities = std::fs::read(self.server().own_authority().unwrap()).unwrap();
        let mut options = ClientOptions::new(format!("https://{}", self.server().address()), authorities);
        options.token = Some(SecretText(self.token.clone()));
        options.retry_for = std::time::Duration::ZERO;
        Client::new(options).unwrap()
    }

    /// The administrator's token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// A bare HTTP client, for what the real one would not send.
    pub(crate) fn http(&self) -> reqwest::Client {
        // Another test may have done so before.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let authority = std::fs::read(self.server().own_authority().unwrap()).unwrap();
        let authority = reqwest::Certificate::from_pem(&authority).unwrap();
        reqwest::Client::builder().tls_certs_only([authority]).build().unwrap()
    }

    /// Posts `body` to a route below `/api/v1/` with an idempotency key, once; answers status and text.
    pub(crate) async fn post(&self, token: &str, key: &str, path: &str, body: &str) -> (u16, String) {
        let url = format!("https://{}/api/v1/{path}", self.server().address());
        let request = self.http().post(url).bearer_auth(token).header("Idempotency-Key", key);
        let answer = request.header("Content-Type", "application/json").body(body.to_owned()).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// The data folder.
    pub(crate) fn data(&self) -> &Path {
        &self.config.data
    }

    /// What the clock shows.
    pub(crate) fn clock_now(&self) -> Timestamp {
        Clock::Manual(self.clock.clone()).now()
    }

    /// Moves the clock and lets the scheduler look at it.
    pub(crate) async fn advance(&self, by: SignedDuration) -> Tick {
        self.clock.advance(by);
        Scheduler::new(self.server().service().keyring()).tick().await
    }

    /// Makes a key with the usual rules, without deletion protection.
    pub(crate) async fn key(&self, name: &str, algorithm: &str) -> Key {
        self.client.create_key(&new_key(name, algorithm)).await.unwrap()
    }
}

/// A lasting token of an administrator, for the one use of the first one.
pub(crate) async fn lasting(first: &Client) -> String {
    let body = CreateToken {
        identity: "administrator".parse().unwrap(),
        groups: vec!["administrators".parse().unwrap()],
        ttl: Some("365d".parse().unwrap()),
        uses: None,
    };
    first.create_token(&body).await.unwrap().token.unwrap().0.clone()
}

/// A key with the usual rules, without deletion protection.
pub(crate) fn new_key(name: &str, algorithm: &str) -> CreateKey {
    CreateKey {
        name: name.parse().unwrap(),
        algorithm: algorithm.parse().unwrap(),
        device: None,
        residency: None,
        pcrs: None,
        domain: None,
        rotation: Default::default(),
        retention: Default::default(),
        labels: Default::default(),
        deletion_protection: false,
    }
}

/// Parses the name of a key.
pub(crate) fn name(text: &str) -> KeyName {
    text.parse().unwrap()
}

/// A client that trusts the server's own authority.
pub(crate) fn client(server: &Server, token: Option<&str>) -> Client {
    let authorities = std::fs::read(server.own_authority().unwrap()).unwrap();
    let mut options = ClientOptions::new(format!("https://{}", server.address()), authorities);
    options.token = token.map(|token| SecretText(token.to_owned()));
    Client::new(options).unwrap()
}

pub(crate) fn options(clock: &ManualClock) -> Options {
    Options {
        program: PathBuf::from(PROGRAM),
        clock: Clock::Manual(clock.clone()),
        unattended: false,
        ..Options::new().unwrap()
    }
}

/// The text of a configuration for these devices. The first of them keeps the keys of the house, and all that name none.
pub(crate) fn configuration(hsm: &SoftHsm, tpm: Option<&Swtpm>, devices: Devices, folder: &Path) -> String {
    let (first, module) = match devices {
        Devices::Faulty | Devices::FaultyWithTpm => ("hsm", Some(fault_module())),
        Devices::SoftHsm | Devices::WithTpm => ("hsm", Some(MODULE.into())),
        Devices::Tpm => ("tpm", None),
    };
    let mut text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[storage]\ndata = {:?}\nroot_device = {first:?}\n\
         [keys]\ndefault_device = {first:?}\n",
        folder.join("data"),
    );
    if let Some(module) = module {
        text.push_str(&pkcs11_stanza("hsm", &module, hsm));
    }
    if let Some(tpm) = tpm {
        text.push_str(&tpm_stanza("tpm", tpm));
    }
    text
}

/// A SoftHSM token in a configuration.
pub(crate) fn pkcs11_stanza(name: &str, module: &Path, hsm: &SoftHsm) -> String {
    let environment: Vec<_> = hsm.environment().iter().map(|(name, value)| format!("{name} = {value:?}")).collect();
    format!(
        "[devices.{name}]\nkind = \"pkcs11\"\nmodule = {module:?}\ntoken_label = \"signet\"\npin_file = {:?}\n\
         sync_dir = {:?}\nenvironment = {{ {} }}\n",
        hsm.pin_file(),
        hsm.tokens(),
        environment.join(", "),
    )
}

/// A software TPM in a configuration.
pub(crate) fn tpm_stanza(name: &str, tpm: &Swtpm) -> String {
    format!("[devices.{name}]\nkind = \"tpm\"\ntcti = \"swtpm:host=127.0.0.1,port={}\"\n", tpm.port())
}
