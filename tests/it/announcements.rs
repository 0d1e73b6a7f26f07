//! What is announced of certificates is told to those who ask when to renew, and done when its time has come.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use signet::client::{PageRequest, Transition};
use signet::error::Kind;
use signet::types::Version;
use signet::wire::{ActivateIssuer, Announce, Announcement, Policy, RotateIssuer};

use crate::acme::{Certbot, Scene, csr, ders, free_port, renewal_id};
use crate::issuers::{root, server};
use crate::server::TestServer;

/// An announcement about all certificates of an issuer.
fn about_all(at: Timestamp) -> Announce {
    Announce { version: None, profile: None, serials: vec![], at, revoke: None, explanation: None }
}

fn hours(count: i64) -> SignedDuration {
    SignedDuration::from_hours(count)
}

async fn list(t: &TestServer, issuer: &str) -> Vec<Announcement> {
    t.client.announcements(&issuer.parse().unwrap(), &PageRequest::default()).await.unwrap().items
}

/// When a certificate should be renewed, in the one answer of the authority.
async fn renewal(t: &TestServer, serial: &str) -> signet::service::Renewal {
    let authority = t.server().service().authority();
    let entry = authority.find(&serial.parse().unwrap()).await.unwrap().unwrap();
    authority.renewal(&entry).unwrap()
}

#[tokio::test]
async fn what_is_announced_is_told_and_done_and_those_who_renewed_are_safe() {
    let mut t = TestServer::start().await;
    root(&t, "fleet").await;
    let (fleet, start) = ("fleet".parse().unwrap(), t.clock_now());
    let old = server(&t, "fleet", "dns:a.example").await;
    let usual = renewal(&t, &old.serial).await;
    t.clock.advance(hours(1));
    // 1. Told: from now on, and over an eighth before its time.
    let at = t.clock_now() + hours(8);
    let explanation = Some("https://wiki.example/17".to_owned());
    let body = Announce { revoke: Some("superseded".to_owned()), explanation: explanation.clone(), ..about_all(at) };
    let made = t.client.announce(&fleet, &body).await.unwrap();
    assert_eq!((made.done, made.by.as_str()), (false, "identity/administrator"));
    t.clock.advance(hours(1));
    let told = renewal(&t, &old.serial).await;
    assert_eq!((told.window.start.as_second(), told.explanation), (t.clock_now().as_second(), explanation));
    assert!(told.window.end <= at - hours(1) && told.window.end > at - hours(2), "{:?}", told.window);
    assert!(told.window.end < usual.window.start && told.ask_again <= usual.ask_again);
    // 2. Who renews has a certificate that it is not about.
    let new = server(&t, "fleet", "dns:a.example").await;
    assert_eq!(renewal(&t, &new.serial).await.explanation, None);
    // 3. Not before its time; and at the first tick after it, though the service was down.
    let tick = async |t: &TestServer| t.server().service().authority().tick().await;
    assert_eq!(tick(&t).await.announced, 0);
    t.stop().await;
    t.clock.advance(hours(8));
    t.start_again().await.unwrap();
    assert_eq!(tick(&t).await.announced, 1);
    let revoked = t.client.certificate(&old.serial).await.unwrap();
    assert_eq!(revoked.reason.as_deref(), Some("superseded"));
    assert!(t.client.certificate(&new.serial).await.unwrap().revoked.is_none());
    assert!(t.server().service().authority().certificate(&fleet, &old.serial.parse().unwrap()).await.is_ok());
    let gone = renewal(&t, &old.serial).await;
    assert!(gone.window.end <= t.clock_now() + SignedDuration::from_secs(1));
    assert_eq!(gone.explanation.as_deref(), Some("https://wiki.example/17"));
    assert!(list(&t, "fleet").await[0].done);
    let late = t.client.cancel_announcement(&fleet, &made.id).await.unwrap_err();
    assert_eq!(late.kind(), Kind::State);
    // 4. Once, and forgotten with the last of its certificates.
    assert_eq!(tick(&t).await.announced, 0);
    t.clock.advance((start + hours(25)).duration_since(t.clock_now()));
    assert_eq!(tick(&t).await.announced, 1);
    assert!(list(&t, "fleet").await.is_empty());
}

#[tokio::test]
async fn conditions_hold_together_and_what_is_cancelled_does_not_happen() {
    let t = TestServer::start().await;
    root(&t, "fleet").await;
    root(&t, "other").await;
    let fleet = "fleet".parse().unwrap();
    let (a, b) = (server(&t, "fleet", "dns:a.example").await, server(&t, "fleet", "dns:b.example").await);
    let foreign = server(&t, "other", "dns:a.example").await;
    let at = t.clock_now() + hours(4);
    let told = async |serial: &str| renewal(&t, serial).await.window.end < at;
    // 1. What makes no sense is refused.
    let wrong = [
        (Announce { at: t.clock_now() - hours(1), ..about_all(at) }, Kind::Invalid),
        (Announce { version: Some(Version::new(7).unwrap()), ..about_all(at) }, Kind::NotFound),
        (Announce { serials: vec![foreign.serial.clone()], ..about_all(at) }, Kind::NotFound),
        (Announce { serials: vec!["x".to_owned()], ..about_all(at) }, Kind::Invalid),
        (Announce { revoke: Some("boredom".to_owned()), ..about_all(at) }, Kind::Invalid),
        (Announce { explanation: Some("javascript:alert(1)".to_owned()), ..about_all(at) }, Kind::Invalid),
        (Announce { explanation: Some(format!("https://{}", "x".repeat(500))), ..about_all(at) }, Kind::Invalid),
    ];
    for (body, kind) in wrong {
        assert_eq!(t.client.announce(&fleet, &body).await.unwrap_err().kind(), kind, "{body:?}");
    }
    let unknown = t.client.cancel_announcement(&fleet, "0123456789abcdef").await.unwrap_err();
    assert_eq!(unknown.kind(), Kind::NotFound);
    // 2. One certificate, one profile, one version.
    let cases = [
        (Announce { serials: vec![a.serial.clone()], ..about_all(at) }, true),
        (Announce { profile: Some("server".parse().unwrap()), ..about_all(at) }, true),
        (Announce { profile: Some("client".parse().unwrap()), ..about_all(at) }, false),
        (Announce { version: Some(Version::FIRST), ..about_all(at) }, true),
        (Announce { serials: vec![b.serial.clone()], version: Some(Version::FIRST), ..about_all(at) }, false),
    ];
    for (body, about_a) in cases {
        let made = t.client.announce(&fleet, &body).await.unwrap();
        assert_eq!(told(&a.serial).await, about_a, "{body:?}");
        assert!(!told(&foreign.serial).await);
        t.client.cancel_announcement(&fleet, &made.id).await.unwrap();
        assert!(!told(&a.serial).await, "{body:?}");
    }
    // 3. Only to be replaced: nothing is revoked.
    t.client.announce(&fleet, &about_all(at)).await.unwrap();
    t.clock.advance(hours(5));
    assert_eq!(t.server().service().authority().tick().await.announced, 1);
    assert!(t.client.certificate(&a.serial).await.unwrap().revoked.is_none());
    assert!(list(&t, "fleet").await[0].done && told(&a.serial).await);
    // 4. Who may announce is policy, and to revoke is another right.
    let text = r#"permit (principal == Signet::Identity::"revoker", action == Signet::Action::"RevokeCertificate", resource);
        permit (principal == Signet::Identity::"revoker", action == Signet::Action::"ReadIssuer", resource);"#;
    let policy = Policy { name: None, text: text.to_owned(), etag: None };
    t.client.put_policy(&"revoker".parse().unwrap(), None, &policy).await.unwrap();
    let body =
        signet::wire::CreateToken { identity: "revoker".parse().unwrap(), groups: vec![], ttl: None, uses: None };
    let revoker = t.client(Some(&t.client.create_token(&body).await.unwrap().token.unwrap().0));
    let later = about_all(t.clock_now() + hours(1));
    assert_eq!(revoker.announce(&fleet, &later).await.unwrap_err().kind(), Kind::Forbidden);
}

#[tokio::test]
async fn hosts_of_an_old_version_move_to_the_new_one_and_at_once_from_one_that_fell() {
    let t = TestServer::start().await;
    root(&t, "fleet").await;
    let fleet = "fleet".parse().unwrap();
    let old = server(&t, "fleet", "dns:a.example").await;
    t.client.rotate_issuer(&fleet, &RotateIssuer::default()).await.unwrap();
    let version = Version::new(2).unwrap();
    t.client.activate_issuer(&fleet, &ActivateIssuer { version }).await.unwrap();
    let told = renewal(&t, &old.serial).await.window;
    assert!(told.start <= t.clock_now() && told.end > t.clock_now() + hours(11), "{told:?}");
    t.client.change_version(&"fleet".parse().unwrap(), Version::FIRST, Transition::Compromise).await.unwrap();
    let told = renewal(&t, &old.serial).await.window;
    assert!(told.end <= t.clock_now() + SignedDuration::from_secs(1), "{told:?}");
}

#[tokio::test]
async fn acme_clients_hear_of_it() {
    let scene = Scene::set().await;
    let client = scene.client().await;
    let (_, order) = scene.ready(&client, &["a.test"]).await;
    let done = client.post(order["finalize"].as_str().unwrap(), &json!({"csr": csr(&["a.test"]).0})).await.json();
    let chain = client.post(done["certificate"].as_str().unwrap(), &Value::Null).await;
    let info = format!("{}/{}", client.url("renewalInfo"), renewal_id(&ders(&chain.text)[0]));
    let ask = async || scene.http().get(&info).send().await.unwrap().json::<Value>().await.unwrap();
    assert!(ask().await.get("explanationURL").is_none());
    let at = scene.t.clock_now() + hours(8);
    let body = Announce { explanation: Some("https://wiki.example/17".to_owned()), ..about_all(at) };
    scene.t.client.announce(&"fleet".parse().unwrap(), &body).await.unwrap();
    let said = ask().await;
    assert_eq!(said["explanationURL"], "https://wiki.example/17");
    let time = |part: &str| said["suggestedWindow"][part].as_str().unwrap().parse::<Timestamp>().unwrap();
    assert!(time("start") <= scene.t.clock_now() && time("start") < time("end") && time("end") < at);
}

#[tokio::test]
async fn certbot_renews_before_the_time_that_was_announced() {
    let Some(program) = crate::judges::judge("certbot") else { return };
    // certbot has the clock of the machine. For the service it is three hours ago, so that all of the window is over for certbot.
    let scene = Scene::set_earlier(hours(3)).await;
    let port = free_port();
    scene.web.forward(port);
    scene.dns.host("bot.test");
    let (certbot, port) = (Certbot::new(&scene, program), port.to_string());
    let get =
        ["certonly", "--standalone", "--http-01-port", &port, "--agree-tos", "-m", "a@bot.test", "-d", "bot.test"];
    certbot.run(&get).await;
    let renew = ["renew", "--http-01-port", &port, "--no-random-sleep-on-renew"];
    let first = certbot.live("bot.test");
    let at = scene.t.clock_now() + hours(2);
    let body = Announce { revoke: Some("superseded".to_owned()), ..about_all(at) };
    scene.t.client.announce(&"fleet".parse().unwrap(), &body).await.unwrap();
    scene.t.clock.advance(SignedDuration::from_mins(1));
    certbot.run(&renew).await;
    let second = certbot.live("bot.test");
    assert_ne!(second, first);
    // It is not about the new one, which outlives it.
    certbot.run(&renew).await;
    assert_eq!(certbot.live("bot.test"), second);
    scene.t.clock.advance(hours(2));
    assert_eq!(scene.t.server().service().authority().tick().await.announced, 1);
    let name = Some("dns:bot.test".to_owned());
    let query = signet::client::CertificateQuery { name, ..Default::default() };
    let found = scene.t.client.certificates(&query, &Default::default()).await.unwrap().items;
    let revoked: Vec<_> = found.iter().map(|one| one.revoked.is_some()).collect();
    assert_eq!(revoked, [false, true], "the newest first");
}
