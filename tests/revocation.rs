//! What relying parties are told of revocation, over HTTP and by a key in a token, judged by OpenSSL and pkilint.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail as loudly as it likes"
)]

#[path = "support/house.rs"]
mod house;
#[path = "support/skip.rs"]
mod skip;
#[path = "support/softhsm.rs"]
#[allow(unused_macros, reason = "the macro is for other tests")]
mod softhsm;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use house::{House, issuer};
use signet::ca::issuer::Parent;
use signet::x509::Serial;

/// Status, headers, body.
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl House {
    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("GET", path, headers, Vec::new()).await
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let method = method.parse().unwrap();
        let mut request = client.request(method, format!("http://{}/pki/{path}", self.address)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
        let headers = response.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        Answer { status, headers, body: response.bytes().await.unwrap().to_vec() }
    }

    /// Fetches the list of the root and leaves it in a file for OpenSSL.
    async fn list(&self) -> Answer {
        let answer = self.get("default/root/1.crl", &[]).await;
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        fs::write(self.folder.path().join("root.crl"), &answer.body).unwrap();
        self.openssl("crl -inform DER -in root.crl -out root.crl.pem").await;
        answer
    }

    /// What OpenSSL says of the issuer below the root, and whether it was content.
    async fn openssl(&self, args: &str) -> (bool, String) {
        let (folder, args) = (self.folder.path().to_owned(), args.to_owned());
        let run = move || {
            let done = Command::new("openssl").current_dir(folder).args(args.split_whitespace()).output().unwrap();
            let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
            (done.status.success(), said)
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    async fn ocsp(&self, what: &str) -> String {
        let url = format!("http://{}/pki/default/root/ocsp", self.address);
        let ask = format!("ocsp -issuer root.pem -CAfile root.pem -url {url} {what}");
        let (_, said) = self.openssl(&ask).await;
        assert!(said.contains("Response verify OK"), "{said}");
        said
    }

    async fn post(&self, request: Vec<u8>) -> Vec<u8> {
        let answer =
            self.ask("POST", "default/root/ocsp", &[("content-type", "application/ocsp-request")], request).await;
        assert_eq!((answer.status, answer.headers["content-type"].as_str()), (200, "application/ocsp-response"));
        answer.body
    }

    fn lint(&self, judge: &str, options: &[&str], name: &str) {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/judges/bin").join(judge);
        if !program.exists() {
            return skip::skipped("pkilint is not installed: tests/judges/install");
        }
        let file = self.folder.path().join(name);
        let done = Command::new(program).arg("lint").args(options).args(["--severity", "WARNING"]).arg(file).output();
        let done = done.unwrap();
        assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stdout));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_is_told_by_ocsp_at_once_and_by_the_next_list() {
    let house = House::start().await;
    let verify = "verify -CAfile root.pem -crl_check -CRLfile root.crl.pem fleet.pem";
    // 1. Before it: the list is there and empty, the answer is good, with and without a nonce.
    let first = house.list().await;
    assert_eq!(first.headers["content-type"], "application/pkix-crl");
    let (_, said) = house.openssl("crl -inform DER -in root.crl -CAfile root.pem -verify -noout -text").await;
    assert!(said.contains("verify OK") && said.contains("No Revoked Certificates"), "{said}");
    assert_eq!(house.openssl(verify).await, (true, "fleet.pem: OK\n".to_owned()));
    for nonce in ["-nonce", "-no_nonce"] {
        let said = house.ocsp(&format!("{nonce} -cert fleet.pem -respout answer")).await;
        assert!(said.contains("fleet.pem: good"), "{said}");
        assert!(nonce == "-no_nonce" || !said.contains("WARNING"), "{said}");
    }
    let said = house.ocsp("-serial 0x1234").await;
    assert!(said.contains("0x1234: unknown"), "{said}");
    // 2. OCSP says it at once.
    house.revoke().await;
    let said = house.ocsp("-no_nonce -cert fleet.pem -respout revoked").await;
    assert!(said.contains("fleet.pem: revoked") && said.contains("Reason: keyCompromise"), "{said}");
    // 3. The list says it after its gap and a tick, under a greater number.
    house.tick_after(1).await;
    assert_eq!(house.list().await.body, first.body);
    house.tick_after(10).await;
    let second = house.list().await;
    assert_ne!(second.body, first.body);
    let (fine, said) = house.openssl(verify).await;
    assert!(!fine && said.contains("certificate revoked"), "{said}");
    // 4. Both judges agree, and whoever has the list is not sent it again.
    house.lint("lint_crl", &["--type", "CRL", "--profile", "PKIX"], "root.crl");
    house.lint("lint_ocsp_response", &[], "answer");
    house.lint("lint_ocsp_response", &[], "revoked");
    let again = house.get("default/root/1.crl", &[("if-none-match", &second.headers["etag"])]).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_given_while_the_token_is_away() {
    let house = House::start().await;
    let good = house.post(house.request(&house.serial())).await;
    house.hsm.take_out();
    // 1. Until it ends, a list is given, and so is an answer, once it could be newer.
    house.tick_after(13 * 3600).await;
    house.list().await;
    let house_again = || async { house.post(house.request(&house.serial())).await };
    assert_eq!(house_again().await, [0x30, 3, 0x0a, 1, 3], "an answer that has ended: try later");
    house.tick_after(11 * 3600).await;
    let ended = house.get("default/root/1.crl", &[]).await;
    assert_eq!((ended.status, ended.headers.contains_key("retry-after")), (503, true));
    // 2. With the token everything is back, without anybody's help.
    house.hsm.put_back();
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while house.get("default/root/1.crl", &[]).await.status != 200 {
        assert!(std::time::Instant::now() < until, "the list is not back");
        house.tick_after(1).await;
    }
    let back = house_again().await;
    assert!(back.len() > 100 && back != good);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_answer_is_the_same_for_all_and_says_how_long() {
    let house = House::start().await;
    let request = house.request(&house.serial());
    let first = house.post(request.clone()).await;
    assert_eq!(house.post(request.clone()).await, first);
    let path = format!("default/root/ocsp/{}", STANDARD.encode(&request).replace('+', "%2B").replace('/', "%2F"));
    let answer = house.get(&path, &[]).await;
    assert_eq!((answer.status, &answer.body), (200, &first));
    let headers = &answer.headers;
    assert_eq!(headers["cache-control"], "public, max-age=3600, no-transform, must-revalidate");
    assert!(["etag", "last-modified", "expires"].iter().all(|name| headers.contains_key(*name)), "{headers:?}");
    assert_eq!(house.get(&path, &[("if-none-match", &headers["etag"])]).await.status, 304);
    // The same bytes, whose slashes stand in the address as they are.
    let plain = format!("default/root/ocsp/{}", STANDARD.encode(&request));
    assert_eq!(house.get(&plain, &[]).await.body, first);
    // Half of its time later there is a newer one.
    house.tick_after(1801).await;
    assert_ne!(house.post(request).await, first);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_question_gets_the_answer_of_the_standard() {
    let house = House::start().await;
    let failure = |code: u8| vec![0x30, 3, 0x0a, 1, code];
    // 1. Not a request; a certificate of another issuer.
    assert_eq!(house.post(vec![1, 2, 3]).await, failure(1));
    let elsewhere = house.ask(
        "POST",
        "default/fleet/ocsp",
        &[("content-type", "application/ocsp-request")],
        house.request(&house.serial()),
    );
    assert_eq!(elsewhere.await.body, failure(6));
    assert_eq!(house.get("default/root/ocsp/%21%21", &[]).await.body, failure(1));
    // 2. What HTTP has words for.
    let ask = |kind: &'static str, body| house.ask("POST", "default/root/ocsp", kind_header(kind), body);
    assert_eq!(ask("text/plain", vec![0; 10]).await.status, 415);
    assert_eq!(ask("application/ocsp-request", vec![0; 4097]).await.status, 413);
    assert_eq!(ask("Application/OCSP-Request; x=y", vec![0; 10]).await.status, 200);
    let missing = [
        "default/nobody/ocsp/MAA=",
        "default/root/2.crl",
        "default/root/01.crl",
        "default/root/1.pem",
        "default/x.y/bundle.pem",
    ];
    for path in missing {
        assert_eq!(house.get(path, &[]).await.status, 404, "{path}");
    }
    assert_eq!(house.ask("DELETE", "default/root/1.crl", &[], Vec::new()).await.status, 405);
    // 3. Those who make up serial numbers run out of signatures; those who ask for what there is do not.
    let mut refused = 0;
    for _ in 0..=signet::ca::status::FRESH_BURST {
        refused += usize::from(house.post(house.request(&Serial::random().unwrap())).await == failure(3));
    }
    assert_eq!(refused, 1);
    assert!(house.post(house.request(&house.serial())).await.len() > 100);
    house.stop().await;
}

fn kind_header(kind: &'static str) -> &'static [(&'static str, &'static str)] {
    match kind {
        "text/plain" => &[("content-type", "text/plain")],
        _ => &[("content-type", "application/ocsp-request")],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_bundles_are_public() {
    let house = House::start().await;
    let own = |name: &str| fs::read_to_string(house.folder.path().join(format!("{name}.pem"))).unwrap();
    let bundle = house.get("default/fleet/bundle.pem", &[]).await;
    assert_eq!((bundle.status, String::from_utf8(bundle.body).unwrap()), (200, own("root")));
    let certificate = house.get("default/fleet/1.cer", &[]).await;
    assert_eq!(certificate.headers["content-type"], "application/pkix-cert");
    fs::write(house.folder.path().join("fleet.cer"), certificate.body).unwrap();
    house.openssl("x509 -inform DER -in fleet.cer -out fetched.pem").await;
    assert_eq!(own("fetched"), own("fleet"));
    let spiffe = house.get("default/fleet/bundle.json", &[]).await;
    let spiffe: serde_json::Value = serde_json::from_slice(&spiffe.body).unwrap();
    let key = &spiffe["keys"][0];
    assert_eq!((&key["use"], &key["kty"], &key["crv"]), (&"x509-svid".into(), &"EC".into(), &"P-256".into()));
    let root = own("root").lines().filter(|line| !line.starts_with("---")).collect::<String>();
    assert_eq!(key["x5c"], serde_json::json!([root]));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_signed_is_not_closed_as_lost() {
    let house = House::start().await;
    let (over, service) = (Arc::new(AtomicBool::new(false)), house.service.clone());
    let done = over.clone();
    // As the scheduler does, but without a pause.
    let closing = tokio::spawn(async move {
        let mut closed = Vec::new();
        while !done.load(Ordering::Relaxed) {
            closed.extend(service.authority().close_reservations().await.unwrap());
        }
        closed
    });
    let house = &house;
    for round in 0..4 {
        let names: Vec<_> = (0..8).map(|number| format!("many-{round}-{number}")).collect();
        join_all(names.iter().map(|name| house.make(name, Parent::Issuer(issuer("root"))))).await;
    }
    over.store(true, Ordering::Relaxed);
    assert_eq!(closing.await.unwrap(), [""; 0]);
}
