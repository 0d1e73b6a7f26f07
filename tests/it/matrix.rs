//! Every route crossed with every kind of stranger: refused, recorded, and nothing changed.
//!
//! The routes are those of the table that the router is made from, so a new one is here by itself.
//! `tests/golden/policy-matrix.txt` holds what each answers to whom; `make golden` renews it, and its diff is the review.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::SignedDuration;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use signet::api::rest::{open_routes, table};
use signet::api::{OPEN_ROUTES, SIGNED_ROUTES};
use signet::auth::token::Token;
use signet::client::PageRequest;
use signet::config::{Archive, Config, Retention};
use signet::types::{Action, Context};
use signet::wire::{CertificateMatch, CreateAcmeEndpoint, CreateEabKey, CreateToken, Identity, MakeMac, Policy, Sign};

use crate::acme_client::AccountKey;
use crate::golden;
use crate::proof::proven;
use crate::server::{Devices, TestServer, name};
use crate::wrap::plain;

/// Who asks. The order is that of the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// No credential at all.
    Nothing,
    /// A bearer token that is none.
    Malformed,
    /// A token of the right form that was never made here.
    Unknown,
    Expired,
    Revoked,
    /// A token whose last use is over.
    Exhausted,
    /// A good token of an identity that no policy speaks of.
    Nobody,
    /// A good token of an identity that may do everything in another namespace.
    Tenant,
    /// A certificate of an identity that no policy speaks of.
    Certificate,
    /// A good certificate that is no identity's.
    Unmapped,
    /// Certificates that the handshake refuses: of another authority, of a server, of the past.
    WrongCa,
    WrongUse,
    Past,
}

impl Kind {
    const ALL: [Self; 13] = [
        Self::Nothing,
        Self::Malformed,
        Self::Unknown,
        Self::Expired,
        Self::Revoked,
        Self::Exhausted,
        Self::Nobody,
        Self::Tenant,
        Self::Certificate,
        Self::Unmapped,
        Self::WrongCa,
        Self::WrongUse,
        Self::Past,
    ];

    /// Whether the service knows who asks.
    const fn known(self) -> bool {
        matches!(self, Self::Nobody | Self::Tenant | Self::Certificate)
    }

    const fn connects(self) -> bool {
        !matches!(self, Self::WrongCa | Self::WrongUse | Self::Past)
    }
}

/// How one kind asks: over which connection, with which header.
struct Asker {
    http: reqwest::Client,
    token: Option<String>,
}

/// An authority of client certificates.
struct Authority(Issuer<'static, KeyPair>, String);

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self(Issuer::new(params, key), pem)
    }

    /// A client certificate with its key, in PEM.
    fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> String {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        format!("{}{}", params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

/// What the routes are tried on, in a namespace that no asker has a right to.
struct Scene {
    t: TestServer,
    askers: Vec<(Kind, Asker)>,
    administrator: Asker,
    ciphertext: String,
    signature: String,
    mac: String,
    token_id: String,
    eab_id: String,
    announcement_id: String,
    serial: String,
}

impl Scene {
    async fn set() -> Self {
        // Another test may have done so before.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (authority, other, folder) = (Authority::new(), Authority::new(), tempfile::tempdir().unwrap());
        let file = folder.path().join("clients.pem");
        std::fs::write(&file, &authority.1).unwrap();
        // A folder that is there, and holds no archive.
        let archive = Archive::Folder(env!("CARGO_MANIFEST_DIR").into());
        let retention = Retention { archive, keep: None, automatic: false };
        let change = |config: &mut Config| {
            (config.client_authorities, config.retention) = (Some(file), Some(retention));
        };
        let t = TestServer::configured(Devices::SoftHsm, change).await;
        t.key("a:data", "aes256-gcm-derived").await;
        t.key("a:release", "ecdsa-p256-sha256").await;
        t.key("a:codes", "hmac-sha256").await;
        t.key("b:data", "aes256-gcm-derived").await;
        crate::issuers::root(&t, "a:ca").await;
        crate::issuers::root(&t, "a:other").await;
        let serial = crate::issuers::server(&t, "a:ca", "dns:host.example").await.serial;
        let message = signet::wire::Base64(b"m".to_vec());
        let wrapped = t.client.wrap(&name("a:data"), &plain(b"m", &Context::default())).await.unwrap();
        let sign = Sign { message: Some(message.clone()), ..Sign::default() };
        let signed = t.client.sign(&name("a:release"), &sign).await.unwrap();
        let made = t.client.mac(&name("a:codes"), &MakeMac { message }).await.unwrap();
        let text = r#"permit (principal == Signet::Identity::"tenant", action, resource in Signet::Namespace::"b");"#;
        let policy = Policy { name: None, text: text.to_owned(), etag: None };
        t.client.put_policy(&"tenant".parse().unwrap(), None, &policy).await.unwrap();
        let certificates = vec![CertificateMatch::Dns("host.example".to_owned())];
        let identity = Identity { name: None, groups: vec![], certificates };
        t.client.put_identity(&"host".parse().unwrap(), &identity).await.unwrap();

        let endpoint = CreateAcmeEndpoint {
            name: "a:web".parse().unwrap(),
            issuer: "a:ca".parse().unwrap(),
            profiles: vec!["a:server".parse().unwrap()],
            identity: None,
            groups: vec![],
            challenges: None,
            networks: vec![],
            terms: None,
            website: None,
            caa: vec![],
        };
        t.client.create_acme_endpoint(&endpoint).await.unwrap();
        let eab = CreateEabKey { identity: "host".parse().unwrap(), groups: vec![], ttl: None, uses: None };
        let far = signet::wire::Announce {
            version: None,
            profile: None,
            serials: vec![],
            at: "2100-01-01T00:00:00Z".parse().unwrap(),
            revoke: None,
            explanation: None,
        };
        let announcement_id = t.client.announce(&"a:ca".parse().unwrap(), &far).await.unwrap().id;
        let eab_id = t.client.create_eab_key(&endpoint.name, &eab).await.unwrap().info.id;

        let token = async |identity: &str, ttl: &str, uses| {
            let (identity, ttl) = (identity.parse().unwrap(), Some(ttl.parse().unwrap()));
            let made = t.client.create_token(&CreateToken { identity, groups: vec![], ttl, uses }).await.unwrap();
            (made.info.id, made.token.unwrap().0.clone())
        };
        let expired = token("nobody", "1h", None).await;
        let revoked = token("nobody", "30d", None).await;
        let exhausted = token("nobody", "30d", Some(1)).await;
        let (nobody, tenant) = (token("nobody", "30d", None).await, token("tenant", "30d", None).await);
        t.client.revoke_token(&revoked.0).await.unwrap();
        t.client(Some(&exhausted.1)).whoami().await.unwrap();
        t.clock.advance(SignedDuration::from_hours(2));
        // The tenant can do in its own namespace what it is refused elsewhere.
        t.client(Some(&tenant.1)).wrap(&name("b:data"), &plain(b"m", &Context::default())).await.unwrap();

        let server = std::fs::read(t.server().own_authority().unwrap()).unwrap();
        let asker = |kind: Kind| {
            let (token, certificate) = match kind {
                Kind::Nothing => (None, None),
                Kind::Malformed => (Some("sgt_nonsense".to_owned()), None),
                Kind::Unknown => (Some(Token::generate().unwrap().expose().to_string()), None),
                Kind::Expired => (Some(expired.1.clone()), None),
                Kind::Revoked => (Some(revoked.1.clone()), None),
                Kind::Exhausted => (Some(exhausted.1.clone()), None),
                Kind::Nobody => (Some(nobody.1.clone()), None),
                Kind::Tenant => (Some(tenant.1.clone()), None),
                Kind::Certificate => (None, Some(authority.issue("host.example", |_| {}))),
                Kind::Unmapped => (None, Some(authority.issue("other.example", |_| {}))),
                Kind::WrongCa => (None, Some(other.issue("host.example", |_| {}))),
                Kind::WrongUse => {
                    let server = |params: &mut CertificateParams| {
                        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                    };
                    (None, Some(authority.issue("host.example", server)))
                }
                Kind::Past => {
                    let past = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1);
                    (None, Some(authority.issue("host.example", past)))
                }
            };
            Asker { http: http(&server, certificate.as_deref()), token }
        };
        let askers = Kind::ALL.iter().map(|kind| (*kind, asker(*kind))).collect();
        let administrator = Asker { http: http(&server, None), token: Some(t.token().to_owned()) };
        Self {
            askers,
            administrator,
            ciphertext: STANDARD.encode(&wrapped.ciphertext.0),
            signature: signed.signature,
            mac: STANDARD.encode(&made.mac.0),
            token_id: nobody.0,
            eab_id,
            announcement_id,
            serial,
            t,
        }
    }

    /// The address of a row, with something that is there in each brace.
    fn address(&self, path: &str) -> String {
        let last = path.split('/').find_map(|part| part.strip_suffix("-batch")).unwrap_or(path);
        let last = last.rsplit('/').next().unwrap_or_default();
        let key = match last {
            "sign" | "verify" | "public-key" | "attestation" => "a:release",
            "mac" | "mac-verify" => "a:codes",
            _ => "a:data",
        };
        let named = if path.contains("policies") { "tenant" } else { "host" };
        let path = path.replace("eab-keys/{id}", &format!("eab-keys/{}", self.eab_id));
        let path = path.replace("announcements/{id}", &format!("announcements/{}", self.announcement_id));
        let path = path.replace("/acme/{namespace}/{endpoint}/", "/acme/a/web/").replace("{endpoint}", "a:web");
        path.replace("{key}", key)
            .replace("{version}", "1")
            .replace("{name}", named)
            .replace("{id}", &self.token_id)
            .replace("{issuer}", "a:ca")
            .replace("{profile}", "a:server")
            .replace("{index}", "0")
            .replace("{size}", "1")
            .replace("{level}", "0")
            .replace("{*tile}", "000.p/1")
            .replace("{serial}", &self.serial)
    }

    /// A body that would be accepted.
    fn body(&self, method: &str, path: &str) -> String {
        let last = path.rsplit('/').next().unwrap_or_default();
        let one = match (method, last.strip_suffix("-batch").unwrap_or(last)) {
            ("POST", "keys") => r#"{"name":"a:fresh","algorithm":"hmac-sha256"}"#.to_owned(),
            ("PATCH", "{key}") => r#"{"labels":{"team":"x"}}"#.to_owned(),
            ("POST", "rotate" | "datakey" | "revoke") => "{}".to_owned(),
            ("POST", "issuers") => {
                r#"{"name":"a:fresh","subject":{"common_name":"Fresh"},"algorithm":"ecdsa-p256-sha256"}"#.to_owned()
            }
            ("PATCH", "{issuer}") => r#"{"enabled":false}"#.to_owned(),
            ("POST", "activate") => r#"{"version":2}"#.to_owned(),
            ("POST", "import") => serde_json::json!({"chain": crate::issuers::strange_chain()}).to_string(),
            ("POST", "cross-sign") => r#"{"signer":"a:other"}"#.to_owned(),
            ("POST", "issue") if path.ends_with("-batch") => {
                serde_json::json!({"profile": "server", "items": [crate::issuers::wanted("dns:new.example")]}).to_string()
            }
            ("POST", "issue") => {
                serde_json::json!({"profile": "server", "request": crate::issuers::wanted("dns:new.example")}).to_string()
            }
            ("PUT", "{profile}") => {
                r#"{"profile":{"kind":"server","names":["dns:*.fleet.example"]}}"#.to_owned()
            }
            ("POST", "schedule-destruction") => r#"{"after":"7d"}"#.to_owned(),
            ("POST", "wrap") => r#"{"plaintext":"bQ=="}"#.to_owned(),
            ("POST", "unwrap" | "rewrap") => format!(r#"{{"ciphertext":"{}"}}"#, self.ciphertext),
            ("POST", "sign" | "mac") => r#"{"message":"bQ=="}"#.to_owned(),
            ("POST", "verify") => format!(r#"{{"message":"bQ==","signature":"{}"}}"#, self.signature),
            ("POST", "mac-verify") => format!(r#"{{"message":"bQ==","mac":"{}"}}"#, self.mac),
            ("POST", "tokens") => r#"{"identity":"fresh"}"#.to_owned(),
            ("PUT", "{name}") if path.contains("policies") => {
                r#"{"text":"permit (principal == Signet::Identity::\"tenant\", action, resource in Signet::Namespace::\"b\");"}"#.to_owned()
            }
            ("PUT", "{name}") => r#"{"certificates":[{"dns":"new.example"}]}"#.to_owned(),
            ("POST", "endpoints") => r#"{"name":"a:fresh","issuer":"a:ca","profiles":["a:server"]}"#.to_owned(),
            ("POST", "announcements") => r#"{"at":"2100-01-01T00:00:00Z"}"#.to_owned(),
            ("POST", "eab-keys") => r#"{"identity":"host"}"#.to_owned(),
            ("POST", "prune") => r#"{"below":1}"#.to_owned(),
            ("POST", "explain") => r#"{"identity":"nobody","action":"Sign"}"#.to_owned(),
            _ => panic!("no body for {method} {path}: give it one that would be accepted"),
        };
        if last.ends_with("-batch") && last != "issue-batch" { format!(r#"{{"items":[{one}]}}"#) } else { one }
    }

    /// The status of one request; none where the connection is refused.
    async fn ask(&self, asker: &Asker, method: &str, path: &str, with_body: bool, id: &str) -> Option<u16> {
        let url = format!("https://{}{}", self.t.server().address(), self.address(path));
        let mut request = asker.http.request(method.parse().unwrap(), url).header("Request-Id", id);
        if let Some(token) = &asker.token {
            request = request.bearer_auth(token);
        }
        if method == "PATCH" {
            let etag = match path.contains("issuers") {
                true => self.t.client.issuer(&"a:ca".parse().unwrap()).await.unwrap().etag,
                false => self.t.client.key(&name("a:data")).await.unwrap().etag,
            };
            request = request.header("If-Match", format!("\"{}\"", etag.trim_matches('"')));
        }
        if with_body {
            request = request.header("Content-Type", "application/json").body(self.body(method, path));
        }
        request.send().await.ok().map(|answer| answer.status().as_u16())
    }

    /// The status of one request that is well signed, by somebody whom the service does not know.
    async fn sign(&self, asker: &Asker, key: &AccountKey, path: &str, id: &str) -> Option<u16> {
        let base = format!("https://{}", self.t.server().address());
        let path = self.address(path).replace("{number}", "0").replace("{kind}", "http-01");
        let (url, endpoint) = (format!("{base}{path}"), format!("{base}/acme/a/web"));
        let nonce = asker.http.head(format!("{endpoint}/new-nonce")).send().await.ok()?;
        let nonce = nonce.headers()["replay-nonce"].to_str().unwrap();
        let mut header = serde_json::json!({"alg": "ES256", "nonce": nonce, "url": url});
        if path.ends_with("/new-account") {
            header["jwk"] = key.jwk();
        } else {
            header["kid"] = format!("{endpoint}/account/{}", "0".repeat(32)).into();
        }
        let body = key.sign(&header, "{}").to_string();
        let mut request = asker.http.post(url).header("Request-Id", id).header("Content-Type", "application/jose+json");
        if let Some(token) = &asker.token {
            request = request.bearer_auth(token);
        }
        request.body(body).send().await.ok().map(|answer| answer.status().as_u16())
    }

    /// Everything that a change would show in.
    async fn state(&self) -> String {
        let (client, page) = (&self.t.client, PageRequest { size: Some(1000), token: None });
        let mut state = String::new();
        for key in client.keys(None, &page).await.unwrap().items {
            writeln!(state, "{} {} {}", key.name, key.latest, key.etag).unwrap();
        }
        for issuer in client.issuers(None, &page).await.unwrap().items {
            writeln!(state, "{} {}", issuer.name, issuer.etag).unwrap();
        }
        let all = signet::client::CertificateQuery::default();
        writeln!(state, "{:?}", client.certificates(&all, &page).await.unwrap().items).unwrap();
        writeln!(state, "{:?}", client.profiles(None, &page).await.unwrap().items).unwrap();
        writeln!(state, "{:?}", client.policies(&page).await.unwrap().items).unwrap();
        writeln!(state, "{:?}", client.identities(&page).await.unwrap().items).unwrap();
        let tokens = client.tokens(&page).await.unwrap().items;
        let tokens: BTreeMap<_, _> = tokens.iter().map(|token| (&token.id, (token.revoked, token.uses_left))).collect();
        writeln!(state, "{tokens:?} {:?}", self.t.hsm.ids()).unwrap();
        state
    }
}

fn http(server: &[u8], certificate: Option<&str>) -> reqwest::Client {
    let mut builder = reqwest::Client::builder().tls_certs_only([reqwest::Certificate::from_pem(server).unwrap()]);
    if let Some(certificate) = certificate {
        builder = builder.identity(reqwest::Identity::from_pem(certificate.as_bytes()).unwrap());
    }
    builder.build().unwrap()
}

/// What everybody may do whom the service knows: ask who they are, and what the API is.
const FOR_ALL_KNOWN: &[(&str, &str)] = &[("GET", "/api/v1/whoami"), ("GET", "/api/v1/openapi.json")];

/// What is not in the table: no such route, or not with this method.
const ELSEWHERE: &[(&str, &str)] = &[
    ("GET", "/"),
    ("GET", "/health"),
    ("POST", "/health/live"),
    ("GET", "/api"),
    ("GET", "/api/v1"),
    ("GET", "/api/v1/nothing"),
    ("GET", "/api/v2/keys"),
    ("PUT", "/api/v1/keys"),
    ("DELETE", "/api/v1/keys"),
    ("PATCH", "/api/v1/tokens"),
    ("TRACE", "/api/v1/keys"),
    ("OPTIONS", "/api/v1/keys"),
    ("GET", "/api/v1/keys/{key}/nothing"),
    ("POST", "/api/v1/keys/{key}/"),
    ("GET", "/api/v1//keys"),
];

#[tokio::test]
async fn no_route_answers_a_stranger() {
    let scene = Scene::set().await;
    let before = scene.state().await;
    let mut matrix = format!("{:<64}", "");
    for (kind, _) in &scene.askers {
        write!(matrix, "{:>12}", format!("{kind:?}").to_lowercase()).unwrap();
    }
    let rows = table().iter().map(|row| (row.method.as_str(), row.path, row.request.is_some(), row.open()));
    let elsewhere = ELSEWHERE.iter().map(|(method, path)| (*method, *path, false, false));
    let (mut cells, mut refused) = (0, BTreeMap::new());
    for (method, path, with_body, open) in rows.chain(elsewhere) {
        write!(matrix, "\n{:<64}", format!("{method} {path}")).unwrap();
        for (kind, asker) in &scene.askers {
            cells += 1;
            let id = format!("cell-{cells}");
            let status = scene.ask(asker, method, path, with_body, &id).await;
            let what = format!("{method} {path} as {kind:?}");
            assert_eq!(status.is_some(), kind.connects(), "{what}");
            let Some(status) = status else {
                write!(matrix, "{:>12}", "-").unwrap();
                continue;
            };
            // Whether the service is ready at this moment says nothing of who may ask.
            let shown = if open { "open".to_owned() } else { status.to_string() };
            write!(matrix, "{shown:>12}").unwrap();
            let below_api = path == "/api" || path.starts_with("/api/");
            if kind.known() && FOR_ALL_KNOWN.contains(&(method, path)) {
                assert_eq!(status, 200, "{what}");
                continue;
            }
            match (open, below_api, kind.known()) {
                (true, ..) => assert!(matches!(status, 200 | 503), "{what}: {status}"),
                (false, false, _) => assert!(matches!(status, 404 | 405), "{what}: {status}"),
                (false, true, false) => assert_eq!(status, 401, "{what}"),
                (false, true, true) => assert!(matches!(status, 403..=405), "{what}: {status}"),
            }
            // A route that is none has nothing to be refused by a policy.
            let by_policy = kind.known() && ELSEWHERE.iter().all(|other| *other != (method, path));
            if !open && below_api && (!kind.known() || by_policy) {
                refused.insert(id, (what, status));
            }
        }
    }
    // Where the caller is who signed the body, no credential helps a stranger.
    let key = AccountKey::new();
    for (method, path) in SIGNED_ROUTES {
        write!(matrix, "\n{:<64}", format!("{method} {path}")).unwrap();
        for (kind, asker) in &scene.askers {
            cells += 1;
            let id = format!("cell-{cells}");
            let status = scene.sign(asker, &key, path, &id).await;
            let what = format!("{method} {path} as {kind:?}");
            assert_eq!(status.is_some(), kind.connects(), "{what}");
            write!(matrix, "{:>12}", status.map_or_else(|| "-".to_owned(), |status| status.to_string())).unwrap();
            if let Some(status) = status {
                assert!(matches!(status, 400 | 403), "{what}: {status}");
                refused.insert(id, (what, 401));
            }
        }
    }
    assert_eq!(scene.state().await, before, "a refusal changed something");
    let recorded = recorded(&scene).await;
    for (id, (what, status)) in &refused {
        let codes = recorded.get(id).unwrap_or_else(|| panic!("{what} is not in the audit log"));
        let code = match status {
            401 => "unauthenticated",
            403 => "forbidden",
            _ => "not_found",
        };
        assert_eq!(codes, &BTreeSet::from([code.to_owned()]), "{what}");
    }
    matrix.push('\n');
    golden::check("policy-matrix.txt", &matrix);
    println!("{} refusals on record", refused.len());
    proven("cells of who may do what", cells, "each answered as the table says, each refusal on record");
    // The requests are good ones: whoever may is not told that they are wrong.
    for row in table().iter().filter(|row| !row.open()) {
        let status =
            scene.ask(&scene.administrator, row.method.as_str(), row.path, row.request.is_some(), "control").await;
        assert!(matches!(status, Some(200..=299 | 409)), "{row:?}: {status:?}");
    }
}

/// The outcomes of refusals by request, from the files of the log.
async fn recorded(scene: &Scene) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let folder: &Path = &scene.t.data().join("audit");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            if record["phase"] == "refused" {
                let text = |field: &str| record[field].as_str().unwrap_or_default().to_owned();
                found.entry(text("request")).or_default().insert(text("outcome"));
            }
        }
    }
    found
}

#[test]
fn the_open_routes_are_these_and_no_others() {
    let expected = [("GET", "/health/live"), ("GET", "/health/ready"), ("GET", "/.well-known/jwks.json")];
    assert_eq!(open_routes().collect::<Vec<_>>(), expected);
    // Beside them only what relying parties fetch.
    assert!(OPEN_ROUTES.iter().all(|route| {
        let elsewhere = ["/pki/{namespace}/{issuer}/", "/acme/{namespace}/{endpoint}/", "/.well-known/est/"];
        expected.contains(route) || elsewhere.iter().any(|folder| route.1.starts_with(folder))
    }));
    let known = table().iter().filter(|row| row.actions == [Action::WhoAmI]);
    let known: Vec<_> = known.map(|row| (row.method.as_str(), row.path)).collect();
    assert_eq!(known, FOR_ALL_KNOWN);
}
