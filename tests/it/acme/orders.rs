//! Orders and the certificates that come of them.

use super::*;

#[tokio::test]
async fn a_certificate_is_issued_renewed_and_revoked() {
    let scene = Scene::set().await;
    let client = scene.client().await;
    let (address, order) = scene.ready(&client, &["a.test", "b.test"]).await;
    let finalize = order["finalize"].as_str().unwrap();
    // 1. Only a request for exactly these names, of another key than the account's, is taken.
    for names in [vec!["a.test"], vec!["a.test", "b.test", "c.test"], vec!["a.test", "c.test"], vec![]] {
        let refused = client.post(finalize, &json!({"csr": csr(&names).0})).await;
        assert_eq!(refused.problem(), "badCSR", "{names:?}");
    }
    assert_eq!(client.post(finalize, &json!({"csr": "AAAA"})).await.problem(), "badCSR");
    assert_eq!(client.read(&address).await["status"], "ready");
    // 2. The certificate, and what is above it.
    let (request, key) = csr(&["b.test", "a.test"]);
    let done = client.post(finalize, &json!({"csr": request})).await.json();
    assert_eq!(done["status"], "valid", "{done}");
    let chain = client.post(done["certificate"].as_str().unwrap(), &Value::Null).await;
    assert_eq!(chain.status, 200);
    let leaf = ders(&chain.text).remove(0);
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).unwrap();
    assert_eq!(parsed.public_key().raw, rustls_spki(&key));
    // 3. When to renew it, and that one order may.
    let id = renewal_id(&leaf);
    let info = format!("{}/{id}", client.url("renewalInfo"));
    let ask = async || scene.http().get(&info).send().await.unwrap();
    let answer = ask().await;
    assert!(answer.headers().contains_key("retry-after"));
    let window: Value = answer.json().await.unwrap();
    let times = ["start", "end"]
        .map(|part| window["suggestedWindow"][part].as_str().unwrap().parse::<jiff::Timestamp>().unwrap());
    let life = [parsed.validity().not_before, parsed.validity().not_after].map(|time| time.timestamp());
    assert!(life[0] < times[0].as_second() && times[0] < times[1] && times[1].as_second() < life[1], "{window}");
    let renew = json!({"identifiers": [{"type": "dns", "value": "a.test"}], "replaces": id});
    let other = scene.client().await;
    assert_eq!(other.post(&other.url("newOrder"), &renew).await.problem(), "malformed");
    let renewal = client.post(&client.url("newOrder"), &renew).await;
    assert_eq!((renewal.status, renewal.json()["replaces"].as_str()), (201, Some(id.as_str())));
    let again = client.post(&client.url("newOrder"), &renew).await;
    assert_eq!((again.status, again.problem().as_str()), (409, "alreadyReplaced"));
    // 4. Revoked by an account that controls the names, not by one that does not.
    let revoke = json!({"certificate": base64url(&leaf), "reason": 4});
    let url = client.url("revokeCert");
    assert_eq!(other.post(&url, &revoke).await.problem(), "unauthorized");
    let bad = json!({"certificate": base64url(&leaf), "reason": 2});
    assert_eq!(client.post(&url, &bad).await.problem(), "badRevocationReason");
    scene.ready(&other, &["a.test", "b.test"]).await;
    assert_eq!(other.post(&url, &revoke).await.status, 200);
    assert_eq!(client.post(&url, &revoke).await.problem(), "alreadyRevoked");
    let window: Value = ask().await.json().await.unwrap();
    let end: jiff::Timestamp = window["suggestedWindow"]["end"].as_str().unwrap().parse().unwrap();
    assert!(
        end <= jiff::Timestamp::from_second(signet::types::Clock::Manual(scene.t.clock.clone()).now().as_second() + 1)
            .unwrap()
    );
    for unknown in ["AAAA.AQ", "x", &format!("AAAA.{}", id.split_once('.').unwrap().1)] {
        let answer = scene.http().get(format!("{}/{unknown}", client.url("renewalInfo"))).send().await.unwrap();
        assert!(matches!(answer.status().as_u16(), 400 | 404), "{unknown}");
    }
}

fn rustls_spki(key: &KeyPair) -> Vec<u8> {
    use rcgen::PublicKeyData;
    key.subject_public_key_info()
}

/// An order that replaces a certificate.
fn replacing(names: &[&str], id: &str) -> Value {
    let identifiers: Vec<_> = names.iter().map(|name| json!({"type": "dns", "value": name})).collect();
    json!({"identifiers": identifiers, "replaces": id})
}

#[tokio::test]
async fn a_certificate_is_renewed_when_its_order_is_forgotten() {
    let scene = Scene::set().await;
    let client = scene.client().await;
    let (address, _) = client.order(&["other.test"]).await;
    let id = renewal_id(&scene.certificate(&client, &["a.test"]).await);
    scene.t.clock.advance(SignedDuration::from_hours(24 * 31));
    scene.t.server().service().acme_tidy().await.unwrap();
    assert_eq!(client.post(&address, &Value::Null).await.status, 404, "orders are forgotten by now");
    let url = client.url("newOrder");
    let (authority, serial) = id.split_once('.').unwrap();
    let stranger = format!("{}.{serial}", base64url(&[7; 20]));
    for (name, id) in [("a.test", stranger), ("a.test", format!("{authority}.AQ")), ("b.test", id.clone())] {
        assert_eq!(client.post(&url, &replacing(&[name], &id)).await.problem(), "malformed", "{name} {id}");
    }
    let renewal = client.post(&url, &replacing(&["a.test"], &id)).await;
    assert_eq!((renewal.status, renewal.json()["replaces"].as_str()), (201, Some(id.as_str())), "{renewal:?}");
}

#[tokio::test]
async fn a_certificate_is_replaced_out_of_quota_once() {
    let scene = Scene::set().await;
    let client = scene.client().await;
    let one = renewal_id(&scene.certificate(&client, &["a.test", "b.test"]).await);
    let two = renewal_id(&scene.certificate(&client, &["c.test"]).await);
    let url = client.url("newOrder");
    // The account's quota is used up by orders of which nothing comes.
    let rejected = json!({"identifiers": [{"type": "dns", "value": "a.elsewhere"}]});
    loop {
        let answers = futures_util::future::join_all((0..20).map(|_| client.post(&url, &rejected))).await;
        if answers.iter().any(|answer| answer.problem() == "rateLimited") {
            break;
        }
    }
    // A renewal goes first, where it is one: for the same names, and the first of its certificate.
    let other = ["d.test".to_owned(), "a.test".to_owned()];
    let others: Vec<_> = other.iter().map(String::as_str).collect();
    assert_eq!(client.post(&url, &replacing(&others, &one)).await.problem(), "rateLimited");
    assert_eq!(client.post(&url, &replacing(&["a.test"], &one)).await.problem(), "rateLimited");
    for (names, id) in [(vec!["b.test", "a.test"], &one), (vec!["c.test"], &two)] {
        let renewal = client.post(&url, &replacing(&names, id)).await;
        assert_eq!(renewal.status, 201, "{renewal:?}");
        let authorization = renewal.json()["authorizations"][0].as_str().unwrap().to_owned();
        assert_eq!(client.post(&authorization, &json!({"status": "deactivated"})).await.status, 200);
        assert_eq!(client.post(&url, &replacing(&names, id)).await.problem(), "rateLimited");
    }
    // Counted, it may be tried again: what became invalid replaces nothing.
    scene.t.clock.advance(SignedDuration::from_hours(3));
    assert_eq!(client.post(&url, &replacing(&["c.test"], &two)).await.status, 201);
    assert_eq!(client.post(&url, &replacing(&["c.test"], &two)).await.problem(), "alreadyReplaced");
    assert_eq!(client.post(&url, &replacing(&["a.test"], &one)).await.status, 201, "one name of two is enough");
}

#[tokio::test]
async fn nothing_is_issued_on_proofs_that_are_too_old() {
    let scene = Scene::at(Devices::Faulty, SignedDuration::ZERO).await;
    let client = scene.client().await;
    let mut orders = Vec::new();
    for name in ["soon.test", "late.test"] {
        orders.push((name, scene.ready(&client, &[name]).await));
    }
    // The device fails while they are finalized.
    scene.t.hsm.plan("C_Sign pre=0x30\n");
    for (name, (address, order)) in &orders {
        let finalize = order["finalize"].as_str().unwrap();
        let answer = client.post(finalize, &json!({"csr": csr(&[name]).0})).await;
        assert_eq!(answer.json()["status"], "processing", "{answer:?}");
        assert_eq!(client.read(address).await["status"], "processing");
    }
    scene.t.hsm.plan("");
    eventually("the device is sound", async || scene.t.client(None).ready().await.ok()).await;
    // Within its time an order goes on, after it there is nothing to go on with.
    scene.t.clock.advance(SignedDuration::from_hours(7));
    let soon = client.read(&orders[0].1.0).await;
    assert_eq!(soon["status"], "valid", "{soon}");
    scene.t.clock.advance(SignedDuration::from_hours(1));
    for _ in 0..2 {
        let late = client.read(&orders[1].1.0).await;
        assert_eq!((&late["status"], &late["error"]["detail"]), (&json!("invalid"), &json!("the order has expired")));
        assert!(late.get("certificate").is_none(), "{late}");
    }
    for (name, count) in [("soon.test", 1), ("late.test", 0)] {
        assert_eq!(scene.issued(name).await, count, "{name}");
    }
}

#[tokio::test]
async fn of_many_finalizations_at_once_comes_one_certificate() {
    let scene = Scene::set().await;
    let client = scene.client().await;
    let (address, order) = scene.ready(&client, &["one.test"]).await;
    let url = order["finalize"].as_str().unwrap();
    let requests: Vec<_> = (0..8).map(|_| json!({"csr": csr(&["one.test"]).0})).collect();
    let answers = futures_util::future::join_all(requests.iter().map(|request| client.post(url, request))).await;
    let won = answers.iter().filter(|answer| answer.status == 200).count();
    let late = answers.iter().filter(|answer| answer.problem() == "orderNotReady").count();
    assert_eq!((won, late), (1, 7), "{answers:?}");
    assert_eq!(client.read(&address).await["status"], "valid");
    let query = signet::client::CertificateQuery { name: Some("dns:one.test".to_owned()), ..Default::default() };
    let found = scene.t.client.certificates(&query, &Default::default()).await.unwrap().items;
    assert_eq!(found.len(), 1);
}

#[tokio::test]
async fn proofs_are_looked_for_by_a_few_at_a_time() {
    let scene = Scene::set().await;
    let (client, other) = (scene.client().await, scene.client().await);
    // Nobody takes the handshakes of tls-alpn-01: each look lasts until it is given up.
    let waiting = async |order: &Value, number: usize| {
        let challenge = client.challenge(&order["authorizations"][number], "tls-alpn-01").await;
        client.post(challenge["url"].as_str().unwrap(), &json!({})).await
    };
    // 1. What is under way for a name counts as failed until it is found.
    scene.dns.host("a.test");
    for _ in 0..10 {
        let (_, order) = client.order(&["a.test"]).await;
        assert_eq!(waiting(&order, 0).await.status, 200);
    }
    let (_, order) = client.order(&["a.test"]).await;
    let refused = waiting(&order, 0).await;
    assert_eq!((refused.status, refused.problem().as_str()), (429, "rateLimited"));
    // 2. An account has so many looks at once.
    let names: Vec<_> = (10..signet::service::acme::LOOKS_OF_ACCOUNT).map(|number| format!("h{number}.test")).collect();
    names.iter().for_each(|name| scene.dns.host(name));
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let (_, order) = client.order(&names).await;
    for number in 0..names.len() {
        assert_eq!(waiting(&order, number).await.status, 200);
    }
    scene.dns.host("b.test");
    let (_, order) = client.order(&["b.test"]).await;
    let late = client.challenge(&order["authorizations"][0], "http-01").await;
    scene.show(&client, &late);
    let url = late["url"].as_str().unwrap();
    assert_eq!(client.post(url, &json!({})).await.status, 200);
    // Another account's proof is looked for and found in the meantime.
    scene.ready(&other, &["b.test"]).await;
    assert_eq!(client.read(url).await["status"], "processing");
    // 3. Where a look has come to its end, the next one that is asked about begins.
    drop(scene.tls.accept().unwrap());
    assert_eq!(client.answer(&late).await["status"], "valid");
    // What was found is given back.
    for _ in 0..12 {
        scene.ready(&other, &["b.test"]).await;
    }
}

#[tokio::test]
async fn refusals_are_on_record() {
    let scene = Scene::set().await;
    let (mut client, other) = (scene.client().await, scene.client().await);
    let leaf = scene.certificate(&client, &["a.test"]).await;
    let (kid, revoke) = (client.kid.clone().unwrap(), client.url("revokeCert"));
    // Nobody else's account, certificate, list of orders.
    assert_eq!(other.post(&kid, &Value::Null).await.problem(), "unauthorized");
    assert_eq!(other.post(&format!("{kid}/orders"), &Value::Null).await.problem(), "unauthorized");
    let payload = json!({"certificate": base64url(&leaf)});
    assert_eq!(other.post(&revoke, &payload).await.problem(), "unauthorized");
    let stranger = scene.stranger().await;
    assert_eq!(stranger.post(&revoke, &payload).await.problem(), "unauthorized");
    // The key of an account that has ended makes no other.
    assert_eq!(client.post(&kid, &json!({"status": "deactivated"})).await.status, 200);
    client.kid = None;
    assert_eq!(client.post(&client.url("newAccount"), &json!({})).await.problem(), "unauthorized");
    let records = scene.t.client.audit_records(0, Some(1000)).await.unwrap().records;
    let told = |kind: &str, reason: &str| {
        let texts = records.iter().map(|record| serde_json::to_string(record).unwrap());
        texts.filter(|text| text.contains(kind) && text.contains(reason)).count()
    };
    assert_eq!(told("forbidden", "this is another account"), 2);
    assert_eq!(told("forbidden", "neither this account nor this key may revoke the certificate"), 2);
    assert_eq!(told("unauthenticated", "the account is deactivated"), 1);
}

#[tokio::test]
async fn old_orders_are_forgotten_and_nothing_else_is_opened() {
    let scene = Scene::set().await;
    let client = scene.client().await;
    let (old, _) = client.order(&["a.test"]).await;
    let orders = format!("{}/orders", client.kid.as_ref().unwrap());
    assert_eq!(client.read(&orders).await["orders"], json!([old]));
    // What has expired is not listed any more, and remembered for a month.
    scene.t.clock.advance(SignedDuration::from_hours(8));
    assert_eq!(client.read(&orders).await["orders"], json!([]));
    assert_eq!(client.read(&old).await["status"], "invalid");
    scene.t.clock.advance(SignedDuration::from_hours(24 * 30 + 1));
    let (new, _) = client.order(&["a.test"]).await;
    // A record that does not open, and is no order.
    let database = rusqlite::Connection::open(scene.t.data().join("signet.db")).unwrap();
    let changed = "UPDATE records SET value = x'00' WHERE path LIKE 'acme/%/eab/%'";
    let endpoint = "web".parse().unwrap();
    let body = CreateEabKey { identity: "hosts".parse().unwrap(), groups: vec![], ttl: None, uses: None };
    scene.t.client.create_eab_key(&endpoint, &body).await.unwrap();
    assert_eq!(database.execute(changed, []).unwrap(), 1);
    scene.t.server().service().acme_tidy().await.unwrap();
    assert_eq!(client.post(&old, &Value::Null).await.status, 404);
    assert_eq!(client.read(&new).await["status"], "pending");
}
