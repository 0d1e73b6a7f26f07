//! An installation with a history, and the checks that nothing of it is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jiff::{SignedDuration, Timestamp};
use signet::client::{Client, PageRequest};
use signet::config::Config;
use signet::error::Kind;
use signet::server::{Server, create};
use signet::types::{Context, Domain, ManualClock, Protection, Purpose, Residency, Rotation, State, Version};
use signet::wire::{
    Base64, CertificateMatch, CreateToken, Identity, MacMade, MakeMac, Policy, RotateKey, ScheduleDestruction, Sign,
    Signed, Verify, VerifyMac,
};

use crate::process::{Installation, eventually};
use crate::proof::proven;
use crate::server::{Devices, client, lasting, name, new_key, options};
use crate::wrap::{plain, sealed};

/// How many cases run at once: each is mostly waiting for processes.
const AT_ONCE: usize = 3;

/// An installation that is copied for each case, and what it acknowledged.
pub(super) struct Past {
    pub(super) installation: Installation,
    blobs: Vec<(&'static str, Base64)>,
    signature: Signed,
    code: MacMade,
    /// Public ids and texts of a token that is good, and of one that was revoked.
    pub(super) spare_token: (String, String),
    revoked_token: (String, String),
    /// The ETag of the key `data`.
    pub(super) etag: String,
}

/// A change as it goes over the wire, under an idempotency key that the test knows.
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) body: String,
    pub(super) if_match: Option<String>,
}

impl Request {
    /// Sends it once; an error means that no answer came.
    pub(super) async fn send(&self, t: &Installation, key: &str) -> Result<(u16, String), reqwest::Error> {
        // Another test may have done so before.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let authority = reqwest::Certificate::from_pem(&t.authority()).unwrap();
        let http = reqwest::Client::builder().tls_certs_only([authority]).timeout(Duration::from_secs(20)).build();
        let url = format!("{}/api/v1/{}", t.address(), self.path);
        let mut request = http.unwrap().request(self.method.parse().unwrap(), url);
        request = request.bearer_auth(&t.token).header("Idempotency-Key", key);
        if let Some(etag) = &self.if_match {
            request = request.header("If-Match", format!("\"{etag}\""));
        }
        if !self.body.is_empty() {
            request = request.header("Content-Type", "application/json").body(self.body.clone());
        }
        let answer = request.send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }
}

impl Past {
    /// Makes it on SoftHSM.
    pub(super) async fn make(due: bool) -> Self {
        Self::make_on(Devices::SoftHsm, due).await
    }

    /// Makes it, a day and a half ago. With `due`, a version's destruction has fallen due in the meantime.
    pub(super) async fn make_on(devices: Devices, due: bool) -> Self {
        let mut installation = Installation::bare(devices);
        let config = Config::read(&installation.config()).unwrap();
        #[expect(clippy::disallowed_methods, reason = "the processes of these tests live in the time of the system")]
        let clock = ManualClock::at(Timestamp::now().checked_sub(SignedDuration::from_hours(36)).unwrap());
        let first = create(&config, &options(&clock)).await.unwrap().token.to_string();
        let server = Server::start(&config, options(&clock)).await.unwrap();
        installation.token = lasting(&client(&server, Some(&first))).await;
        let client = client(&server, Some(&installation.token));
        let none = Context::default();
        let token = async || {
            let ttl = Some("365d".parse().unwrap());
            let body = CreateToken { identity: "somebody".parse().unwrap(), groups: vec![], ttl, uses: None };
            let made = client.create_token(&body).await.unwrap();
            (made.info.id, made.token.unwrap().0.clone())
        };
        let (spare_token, revoked_token) = (token().await, token().await);
        client.revoke_token(&revoked_token.0).await.unwrap();
        let everybody = r#"permit (principal, action == Signet::Action::"WhoAmI", resource);"#;
        let nobody = r#"forbid (principal, action == Signet::Action::"UnwrapCompromised", resource);"#;
        for (name, text) in [("everybody", everybody), ("spare", nobody)] {
            let policy = Policy { name: None, text: text.to_owned(), etag: None };
            client.put_policy(&name.parse().unwrap(), None, &policy).await.unwrap();
        }
        let certificates = vec![CertificateMatch::Dns("host.example".to_owned())];
        let identity = Identity { name: None, groups: vec![], certificates };
        client.put_identity(&"host".parse().unwrap(), &identity).await.unwrap();

        let mut keys = vec![
            new_key("data", "aes256-gcm-derived"),
            new_key("wrapped", "aes256-gcm-derived"),
            new_key("counted", "aes256-gcm-derived"),
            new_key("release", "ecdsa-p256-sha256"),
            new_key("codes", "hmac-sha256"),
        ];
        keys[1].residency = Some(Residency::Wrapped);
        keys[2].rotation = Rotation { after_uses: Some(1000), ..Rotation::default() };
        for key in &keys {
            client.create_key(key).await.unwrap();
        }
        let mut blobs = Vec::new();
        for _ in 0..2 {
            for key in ["data", "wrapped", "counted"] {
                let wrapped = client.wrap(&name(key), &plain(b"past", &none)).await.unwrap();
                blobs.push((key, wrapped.ciphertext));
            }
            if blobs.len() == 3 {
                client.rotate_key(&name("data"), &RotateKey::default()).await.unwrap();
            }
        }
        let sign = Sign { message: Some(Base64(b"past".to_vec())), ..Sign::default() };
        let signature = client.sign(&name("release"), &sign).await.unwrap();
        let code = client.mac(&name("codes"), &MakeMac { message: Base64(b"past".to_vec()) }).await.unwrap();
        if due {
            client.create_key(&new_key("due", "ecdsa-p256-sha256")).await.unwrap();
            client.rotate_key(&name("due"), &RotateKey::default()).await.unwrap();
            let wait = ScheduleDestruction { after: Some("1d".parse().unwrap()) };
            client.schedule_destruction(&name("due"), Version::FIRST, &wait).await.unwrap();
        }
        let etag = client.key(&name("data")).await.unwrap().etag;
        drop(client);
        server.stop().await.unwrap();
        Self { installation, blobs, signature, code, spare_token, revoked_token, etag }
    }

    /// Whether all that was acknowledged is there, and nothing is amiss.
    pub(super) async fn is_there(&self, t: &Installation, client: &Client) {
        eventually("the service is ready", async || client.ready().await.ok()).await;
        // A device that is taken out of the configuration is no loss, and is told.
        let amiss = |problem: &&String| !problem.starts_with("not configured, so its anchor is not compared");
        eventually("nothing is amiss", async || {
            let status = client.status().await.ok()?;
            let found = status.problems.iter().find(amiss);
            found.inspect(|problem| println!("{problem}"));
            found.is_none().then_some(())
        })
        .await;
        let none = Context::default();
        for (key, blob) in &self.blobs {
            let opened = client.unwrap(&name(key), &sealed(blob, &none)).await.unwrap();
            assert_eq!(opened.plaintext.0.expose(), b"past", "{key}");
        }
        let verify = Verify {
            message: Some(Base64(b"past".to_vec())),
            signature: self.signature.signature.clone(),
            ..Verify::default()
        };
        assert!(client.verify(&name("release"), &verify).await.unwrap().valid);
        let state = client.version(&name("codes"), Version::FIRST).await.unwrap().state;
        if state != State::Suspended {
            let verify = VerifyMac { message: Base64(b"past".to_vec()), mac: self.code.mac.clone(), version: None };
            assert!(client.verify_mac(&name("codes"), &verify).await.unwrap().valid);
        }
        let revoked = t.client(Some(&self.revoked_token.1)).whoami().await.unwrap_err();
        assert_eq!(revoked.kind(), Kind::Unauthenticated);
        let spare = t.client(Some(&self.spare_token.1)).whoami().await;
        let revoked = client.token(&self.spare_token.0).await.unwrap().revoked.is_some();
        assert_eq!(spare.is_err(), revoked);
    }
}

/// Whether each key that is listed can do what it is for, with all its versions.
pub(crate) async fn all_keys_work(client: &Client) {
    let none = Context::default();
    for key in client.keys(None, &PageRequest::default()).await.unwrap().items {
        let versions = client.versions(&key.name, &PageRequest { size: Some(1000), token: None }).await.unwrap().items;
        assert_eq!(versions.len(), key.latest.number() as usize, "{}", key.name);
        // The key of an issuer signs nothing that a client sends.
        if key.primary.is_none() || key.domain == Some(Domain::X509) {
            continue;
        }
        match key.purpose {
            Purpose::Wrap => {
                let wrapped = client.wrap(&key.name, &plain(b"now", &none)).await.unwrap();
                let opened = client.unwrap(&key.name, &sealed(&wrapped.ciphertext, &none)).await.unwrap();
                assert_eq!(opened.plaintext.0.expose(), b"now");
            }
            Purpose::Sign => {
                let message = Some(Base64(b"now".to_vec()));
                let signed = client.sign(&key.name, &Sign { message: message.clone(), ..Sign::default() }).await;
                let signature = signed.unwrap().signature;
                let verify = Verify { message, signature, ..Verify::default() };
                assert!(client.verify(&key.name, &verify).await.unwrap().valid);
            }
            Purpose::Mac => {
                let message = Base64(b"now".to_vec());
                let mac = client.mac(&key.name, &MakeMac { message: message.clone() }).await.unwrap().mac;
                let verify = VerifyMac { message, mac, version: None };
                assert!(client.verify_mac(&key.name, &verify).await.unwrap().valid);
            }
        }
    }
}

/// The ids that objects in the token should have, by what the service lists.
pub(crate) async fn resident_ids(client: &Client) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let page = PageRequest { size: Some(1000), token: None };
    for key in client.keys(None, &page).await.unwrap().items {
        for version in client.versions(&key.name, &page).await.unwrap().items {
            if version.protection == Protection::Hsm && version.state != State::Destroyed {
                ids.insert(format!("{}{:08x}", key.id, version.version.number()));
            }
        }
    }
    ids
}

/// Runs all cases, each of which ends a process at a named point, and says how many there were.
pub(super) async fn all<C: std::fmt::Debug + Clone>(cases: Vec<C>, run: impl AsyncFn(C)) {
    let count = cases.len();
    each(cases, run).await;
    proven("deaths at named points", count, "0 acknowledged changes lost");
}

/// Runs all cases, a few at once, and names those that failed.
pub(super) async fn each<C: std::fmt::Debug + Clone>(cases: Vec<C>, run: impl AsyncFn(C)) {
    use std::panic::AssertUnwindSafe;
    let mut waiting = cases.into_iter();
    let (mut running, mut failed) = (FuturesUnordered::new(), Vec::new());
    loop {
        while running.len() < AT_ONCE
            && let Some(case) = waiting.next()
        {
            let run = &run;
            running.push(async move {
                let name = format!("{case:?}");
                let work = futures_util::FutureExt::catch_unwind(AssertUnwindSafe(run(case)));
                (name, work.await.is_ok())
            });
        }
        match running.next().await {
            Some((_, true)) => {}
            Some((name, false)) => failed.push(name),
            None => break,
        }
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}
