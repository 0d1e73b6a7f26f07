//! EST, by a client that consists of `curl` and `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

use signet::wire::{CertificateMatch, CreateToken, Identity, Policy, RevokeCertificate};

use crate::issuers::{new_issuer, root};
use crate::server::TestServer;

/// A service with a root and an issuer below it, whose certificates open its own door; and an identity that may have names below
/// `fleet.example`.
struct Fleet {
    t: TestServer,
    folder: tempfile::TempDir,
    token: String,
    /// The version of HTTP that is spoken, as an option of curl.
    http: &'static str,
}

const HTTP1: &str = "--http1.1";
const HTTP2: &str = "--http2";

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Fleet {
    async fn start(http: &'static str) -> Self {
        let (mut t, folder) = (TestServer::start().await, tempfile::tempdir().unwrap());
        root(&t, "fleet:root").await;
        let mut below = new_issuer("fleet:devices", "hsm", "ecdsa-p256-sha256");
        below.parent = Some("fleet:root".parse().unwrap());
        let devices = t.client.create_issuer(&below).await.unwrap();
        let text = r#"permit (principal == Signet::Identity::"gateway", action == Signet::Action::"IssueCertificate",
            resource == Signet::Issuer::"fleet:devices")
            when { context has profile && context.profile == "fleet:peer" && context has name && context.name like "dns:*.fleet.example" };"#;
        let policy = Policy { name: None, text: text.to_owned(), etag: None };
        t.client.put_policy(&"gateway".parse().unwrap(), None, &policy).await.unwrap();
        let certificates = vec![CertificateMatch::Dns("gw1.fleet.example".to_owned())];
        let identity = Identity { name: None, groups: vec![], certificates };
        t.client.put_identity(&"gateway".parse().unwrap(), &identity).await.unwrap();
        let new = CreateToken { identity: "gateway".parse().unwrap(), groups: vec![], ttl: None, uses: None };
        let token = t.client.create_token(&new).await.unwrap().token.unwrap().0.clone();
        let anchor = devices.versions[0].certificate.clone().unwrap();
        let clients = folder.path().join("clients.pem");
        std::fs::write(&clients, anchor).unwrap();
        t.config.client_authorities = Some(clients);
        t.config.est = Some("fleet:devices:peer".parse().unwrap());
        t.restart().await;
        Self { t, folder, token, http }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.file(name), bytes).unwrap();
        self.file(name).to_str().unwrap().to_owned()
    }

    /// Asks with curl; `path` follows `/.well-known/est/`.
    async fn curl(&self, path: &str, arguments: &[&str]) -> Answer {
        let (head, body) = (self.file("head"), self.file("body"));
        let _ = std::fs::remove_file(&body);
        let output = tokio::process::Command::new("curl")
            .args(["--silent", "--show-error", self.http, "--tlsv1.3", "--write-out", "%{http_code}", "--cacert"])
            .arg(self.t.server().own_authority().unwrap())
            .arg("--dump-header")
            .arg(&head)
            .arg("--output")
            .arg(&body)
            .args(arguments)
            .arg(format!("https://{}/.well-known/est/{path}", self.t.server().address()))
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Answer {
            status: String::from_utf8(output.stdout).unwrap().parse().unwrap(),
            head: std::fs::read_to_string(head).unwrap().to_lowercase(),
            body: std::fs::read(body).unwrap_or_default(),
        }
    }

    /// Asks for a certificate, with a token.
    async fn enrol(&self, path: &str, csr: &str) -> Answer {
        // As docs/est.md says: a token has no place among the arguments.
        let config = self.write("curl.conf", format!("user = \"gw1:{}\"\n", self.token).as_bytes());
        self.post(path, csr, &["--config", &config]).await
    }

    async fn post(&self, path: &str, body: &str, credential: &[&str]) -> Answer {
        let body = format!("@{}", self.write("request", body.as_bytes()));
        let request = ["--header", "content-type: application/pkcs10", "--data-binary", &body];
        self.curl(path, &[&request[..], credential].concat()).await
    }

    /// A new key under `name`, and a request by it in base64.
    fn request(&self, name: &str, subject: &str, more: &[&str]) -> String {
        let key = self.file(&format!("{name}.key"));
        let key = key.to_str().unwrap();
        openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key], b"");
        let made = openssl(&[&["req", "-new", "-key", key, "-subj", subject, "-outform", "DER"], more].concat(), b"");
        text(openssl(&["base64"], &made))
    }

    /// The certificates of a certs-only answer, in PEM.
    fn certificates(&self, answer: &Answer) -> Vec<String> {
        let der = openssl(&["base64", "-d"], &answer.body);
        let pem = text(openssl(&["pkcs7", "-inform", "DER", "-print_certs"], &der));
        pem.split_inclusive("-----END CERTIFICATE-----")
            .filter(|one| one.contains("BEGIN"))
            .map(str::to_owned)
            .collect()
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// What `openssl` answers.
fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("input");
    std::fs::write(&file, input).unwrap();
    let mut openssl = Command::new("openssl");
    openssl.args(arguments).stdin(std::fs::File::open(&file).unwrap());
    let output = openssl.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn verify(anchors: &Path, certificate: &str) {
    let folder = tempfile::tempdir().unwrap();
    let leaf = folder.path().join("leaf");
    std::fs::write(&leaf, certificate).unwrap();
    let (anchors, leaf) = (anchors.to_str().unwrap(), leaf.to_str().unwrap());
    openssl(&["verify", "-x509_strict", "-CAfile", anchors, leaf], b"");
}

const GW1: &[&str] = &["-addext", "subjectAltName=DNS:gw1.fleet.example"];

#[tokio::test]
async fn a_device_enrols_enrols_again_and_is_revoked() {
    life_of_a_device(HTTP1).await;
}

#[tokio::test]
async fn a_device_enrols_enrols_again_and_is_revoked_over_http2() {
    life_of_a_device(HTTP2).await;
}

async fn life_of_a_device(http: &'static str) {
    let fleet = Fleet::start(http).await;
    // What everybody may read: the certificates above, and which keys are taken.
    let answer = fleet.curl("fleet:devices:peer/cacerts", &[]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.head.contains("content-type: application/pkcs7-mime\r\n"), "{}", answer.head);
    assert!(answer.head.contains("content-transfer-encoding: base64\r\n"), "{}", answer.head);
    let above = fleet.certificates(&answer);
    assert_eq!(above.len(), 2);
    let anchors = fleet.file("anchors.pem");
    std::fs::write(&anchors, above.concat()).unwrap();
    let attributes = fleet.curl("fleet:devices:peer/csrattrs", &[]).await;
    assert!(attributes.head.contains("content-type: application/csrattrs\r\n"), "{}", attributes.head);
    let attributes = openssl(&["base64", "-d"], &attributes.body);
    let attributes = text(openssl(&["asn1parse", "-inform", "DER"], &attributes));
    assert!(attributes.contains("prime256v1") && attributes.contains("rsaEncryption"), "{attributes}");

    // The first certificate, by a token.
    let csr = fleet.request("gw1", "/CN=gw1.fleet.example", GW1);
    let answer = fleet.enrol("fleet:devices:peer/simpleenroll", &csr).await;
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    assert!(answer.head.contains("content-type: application/pkcs7-mime; smime-type=certs-only\r\n"), "{}", answer.head);
    let [first] = fleet.certificates(&answer).try_into().unwrap();
    verify(&anchors, &first);
    let certified = openssl(&["x509", "-pubkey", "-noout"], first.as_bytes());
    let key = fleet.file("gw1.key");
    assert_eq!(certified, openssl(&["pkey", "-pubout", "-in", key.to_str().unwrap()], b""));

    // The next one, by the first, with and without a label, for another key.
    let certificate = fleet.write("gw1.pem", first.as_bytes());
    let shown = ["--cert", certificate.as_str(), "--key", key.to_str().unwrap()];
    let csr = fleet.request("next", "/CN=gw1.fleet.example", GW1);
    let mut serials = vec![serial(&first)];
    for path in ["fleet:devices:peer/simplereenroll", "simplereenroll", "simpleenroll"] {
        let answer = fleet.post(path, &csr, &shown).await;
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
        let [next] = fleet.certificates(&answer).try_into().unwrap();
        verify(&anchors, &next);
        serials.push(serial(&next));
    }
    serials.sort();
    serials.dedup();
    assert_eq!(serials.len(), 4, "each is another certificate");

    // Other names, or another subject, are not those of the certificate; without one there is nothing to replace.
    let more = &["-addext", "subjectAltName=DNS:gw1.fleet.example,DNS:gw2.fleet.example"][..];
    for (subject, names) in [("/CN=gw1.fleet.example", more), ("/", GW1), ("/CN=gw1.fleet.example", &[])] {
        let csr = fleet.request("other", subject, names);
        assert_eq!(fleet.post("simplereenroll", &csr, &shown).await.status, 403);
    }
    assert_eq!(fleet.enrol("simplereenroll", &csr).await.status, 403);

    // What is revoked opens nothing any more.
    let hex = serial(&first).to_lowercase();
    let hex = format!("{hex:0>40}");
    fleet.t.client.revoke(&hex, &RevokeCertificate::default()).await.unwrap();
    for path in ["simplereenroll", "simpleenroll"] {
        assert_eq!(fleet.post(path, &csr, &shown).await.status, 401);
    }
    let records = fleet.t.client.audit_records(0, Some(1000)).await.unwrap().records;
    let records = serde_json::to_string(&records).unwrap();
    assert!(records.contains("the certificate is revoked") && records.contains("fleet:peer"));
    assert!(!records.contains("sgt_"), "no token is written down");
}

fn serial(certificate: &str) -> String {
    let line = text(openssl(&["x509", "-noout", "-serial"], certificate.as_bytes()));
    line.trim().strip_prefix("serial=").unwrap().to_owned()
}

#[tokio::test]
async fn what_must_not_be_enrolled_is_refused() {
    refusals(HTTP1).await;
}

#[tokio::test]
async fn what_must_not_be_enrolled_is_refused_over_http2() {
    refusals(HTTP2).await;
}

/// What is answered before a body was read is heard by who is still sending it.
#[tokio::test]
async fn a_refusal_is_heard_whatever_is_still_being_sent() {
    for http in [HTTP1, HTTP2] {
        let fleet = Fleet::start(http).await;
        for bytes in [1_000, 80_000, 130_000, 4_000_000] {
            let body = "A".repeat(bytes);
            for _ in 0..10 {
                assert_eq!(fleet.post("simpleenroll", &body, &[]).await.status, 401, "{http} {bytes}");
            }
            if bytes > signet::api::est::MAX_BODY {
                assert_eq!(fleet.enrol("simpleenroll", &body).await.status, 413, "{http} {bytes}");
            }
        }
    }
}

async fn refusals(http: &'static str) {
    let fleet = Fleet::start(http).await;
    let good = fleet.request("good", "/CN=gw1.fleet.example", GW1);
    // Who is nobody learns nothing, also where there is nothing.
    for path in ["simpleenroll", "simplereenroll", "fullcmc", "a:b:c/simpleenroll", "serverkeygen"] {
        for credential in [&[][..], &["--user", "gw1:sgt_wrong"], &["--header", "authorization: Bearer x"]] {
            let answer = fleet.post(path, &good, credential).await;
            assert_eq!(answer.status, 401, "{path} {credential:?}");
            assert!(answer.head.contains("www-authenticate: basic realm=\"signet\""), "{}", answer.head);
        }
    }
    let bearer = format!("authorization: Bearer {}", fleet.token);
    assert_eq!(fleet.post("simpleenroll", &good, &["--header", &bearer]).await.status, 401, "only Basic is spoken");
    for path in ["fullcmc", "fleet:devices:peer/serverkeygen"] {
        assert_eq!(fleet.enrol(path, &good).await.status, 501, "{path}");
    }
    for path in ["nobody:peer/simpleenroll", "fleet:devices:nothing/simpleenroll", "x/simpleenroll"] {
        let status = fleet.enrol(path, &good).await.status;
        assert!(matches!(status, 403 | 404), "{path}: {status}");
    }
    for path in ["nobody:peer/cacerts", "x/cacerts", "fleet:devices:nothing/csrattrs"] {
        assert_eq!(fleet.curl(path, &[]).await.status, 404, "{path}");
    }
    // Bodies that are none.
    let (user, body) = (format!("gw1:{}", fleet.token), format!("@{}", fleet.write("json", good.as_bytes())));
    let typed = ["--user", &user, "--header", "content-type: application/json", "--data-binary", &body];
    assert_eq!(fleet.curl("simpleenroll", &typed).await.status, 415);
    let pem = text(openssl(&["req", "-inform", "DER"], &openssl(&["base64", "-d"], good.as_bytes())));
    let long = "A".repeat(signet::api::est::MAX_BODY + 4);
    for (body, status) in [("", 400), ("AAAA", 400), (&pem, 400), (&long, 413)] {
        assert_eq!(fleet.enrol("simpleenroll", body).await.status, status, "{:.20}", body);
    }
    // Requests that are hostile: a name that is not allowed, an authority, a key of somebody else, a weak key, a password.
    let named = |names: &'static str| ["-addext", names];
    let cases = [
        (fleet.request("x", "/", &named("subjectAltName=DNS:gw1.elsewhere.example")), &[403, 404][..]),
        (fleet.request("x", "/", &named("subjectAltName=DNS:gw1.fleet.example,DNS:elsewhere.example")), &[403, 404]),
        (fleet.request("x", "/", &[GW1, &["-addext", "basicConstraints=CA:TRUE"]].concat()), &[400]),
        (fleet.request("x", "/O=Other/CN=gw1.fleet.example", GW1), &[400]),
        (fleet.request("x", "/CN=gw2.fleet.example", GW1), &[400]),
        (forged(&good), &[400]),
    ];
    for (at, (csr, statuses)) in cases.iter().enumerate() {
        let answer = fleet.enrol("simpleenroll", csr).await;
        assert!(statuses.contains(&answer.status), "{at}: {answer:?}");
        assert!(answer.head.contains("content-type: text/plain"), "{}", answer.head);
    }
    let weak = fleet.file("weak.key");
    let weak = weak.to_str().unwrap();
    openssl(&["genrsa", "-out", weak, "1024"], b"");
    let der = openssl(&[&["req", "-new", "-key", weak, "-subj", "/", "-outform", "DER"], GW1].concat(), b"");
    assert_eq!(fleet.enrol("simpleenroll", &text(openssl(&["base64"], &der))).await.status, 400);
    let asks = "[req]\nprompt=no\ndistinguished_name=d\nattributes=a\nreq_extensions=e\n[d]\nCN=gw1.fleet.example\n\
                [a]\nchallengePassword=tls-unique\n[e]\nsubjectAltName=DNS:gw1.fleet.example\n";
    let (config, key) = (fleet.write("req.conf", asks.as_bytes()), fleet.file("good.key"));
    let der = openssl(&["req", "-new", "-config", &config, "-key", key.to_str().unwrap(), "-outform", "DER"], b"");
    let answer = fleet.enrol("simpleenroll", &text(openssl(&["base64"], &der))).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(text(answer.body).contains("tls-unique"));
    // And after all of that it still works.
    assert_eq!(fleet.enrol("simpleenroll", &good).await.status, 200);
}

/// The request with another signature than its own.
fn forged(csr: &str) -> String {
    let mut der = openssl(&["base64", "-d"], csr.as_bytes());
    let last = der.len() - 1;
    der[last] ^= 1;
    text(openssl(&["base64"], &der))
}
