//! Deaths while certificates are made: no serial number is used twice, and nothing was signed that the inventory does not know.

use std::collections::BTreeSet;

use signet::client::{CertificateQuery, Client, PageRequest};
use signet::wire::{ActivateIssuer, Announce, Announcement, Certificate, IssueCertificate, RotateIssuer};

use super::past::{self, Past, Request};
use crate::issuers::{new_issuer, wanted};
use crate::process::{Installation, Process, eventually};

/// A change that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Issue,
    IssueMany,
    CreateRoot,
    CreateBelow,
    CreateOutside,
    Rotate,
    Activate,
    CrossSign,
    Stop,
    PutProfile,
    DeleteProfile,
    Announce,
    CancelAnnouncement,
}

/// What a death leaves in the inventory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// Nothing of the change.
    Nothing,
    /// Serial numbers whose certificates are lost: nobody knows what the device signed.
    Lost,
    /// The change was made.
    Done,
}

/// The points on the way of a change, the functions they stand in, and what a death there leaves.
type Way = &'static [(&'static str, &'static str, Left)];

/// The points on the way of a certificate.
const ISSUE: Way = &[
    ("issue.before_reserve", "sign", Left::Nothing),
    ("issue.reserved", "sign", Left::Lost),
    ("issue.signed", "sign", Left::Lost),
    ("issue.before_end", "sign", Left::Lost),
    ("issue.recorded", "sign", Left::Done),
];
const CERTIFIED: Way = &[("issuer.published", "equip", Left::Done)];
const REQUESTED: Way = &[
    ("issuer.before_request", "equip", Left::Nothing),
    ("issuer.requested", "equip", Left::Nothing),
    ("issuer.published", "equip", Left::Done),
];
const ACTIVATED: Way = &[("issuer.published", "activate", Left::Done)];
const CROSSED: Way = &[("issuer.published", "cross_sign", Left::Done)];
const REPLACED: Way = &[("issuer.published", "replace", Left::Done)];
const WRITTEN: Way =
    &[("profile.before_write", "write_profile", Left::Nothing), ("profile.written", "write_profile", Left::Done)];
const REMOVED: Way =
    &[("profile.before_removal", "delete_profile", Left::Nothing), ("profile.removed", "delete_profile", Left::Done)];

const ANNOUNCED: Way =
    &[("announcement.before_write", "announce", Left::Nothing), ("announcement.written", "announce", Left::Done)];
const CANCELLED: Way = &[
    ("announcement.before_removal", "forget_announcement", Left::Nothing),
    ("announcement.removed", "forget_announcement", Left::Done),
];

const WAYS: &[(Change, Way)] = &[
    (Change::Issue, ISSUE),
    (Change::IssueMany, ISSUE),
    (Change::CreateRoot, ISSUE),
    (Change::CreateRoot, CERTIFIED),
    (Change::CreateBelow, ISSUE),
    (Change::CreateOutside, REQUESTED),
    (Change::Rotate, ISSUE),
    (Change::Activate, ACTIVATED),
    (Change::CrossSign, ISSUE),
    (Change::CrossSign, CROSSED),
    (Change::Stop, REPLACED),
    (Change::PutProfile, WRITTEN),
    (Change::DeleteProfile, REMOVED),
    (Change::Announce, ANNOUNCED),
    (Change::CancelAnnouncement, CANCELLED),
];

/// Deaths while a start closes what an earlier death left.
const CLOSING: &[&str] = &["issue.before_abandon", "issue.abandoned"];

/// Deaths while what was announced is done.
const COMING: &[&str] = &["announcement.before_end", "announcement.ended"];

/// All points of this module with their functions, for the register.
pub(super) fn points() -> impl Iterator<Item = (&'static str, &'static str)> {
    let closing = CLOSING.iter().map(|point| (*point, "abandon"));
    let coming = COMING.iter().map(|point| (*point, "carry_out"));
    let ways = WAYS.iter().flat_map(|(_, way)| way.iter().map(|(point, function, _)| (*point, *function)));
    ways.chain(closing).chain(coming)
}

/// An installation with issuers, whose jobs have done what is due.
struct Scene {
    past: Past,
    base: Installation,
    etag: String,
    announcement: String,
    issued: usize,
}

impl Scene {
    async fn make() -> Self {
        let past = Past::make(false).await;
        let base = past.installation.copy();
        let service = base.serve().await;
        let client = base.client(Some(&base.token));
        eventually("the service is ready", async || client.ready().await.ok()).await;
        for name in ["ca", "next"] {
            client.create_issuer(&new_issuer(name, "hsm", "ecdsa-p256-sha256")).await.unwrap();
        }
        client.rotate_issuer(&"next".parse().unwrap(), &RotateIssuer::default()).await.unwrap();
        let profile = signet::wire::Profile {
            name: None,
            profile: serde_json::json!({"kind": "client"}),
            built_in: false,
            etag: None,
        };
        client.put_profile(&"spare".parse().unwrap(), None, &profile).await.unwrap();
        let far = announce("2100-01-01T00:00:00Z".parse().unwrap());
        let announcement = client.announce(&"next".parse().unwrap(), &far).await.unwrap().id;
        responders(&client, 2).await;
        let etag = client.issuer(&"ca".parse().unwrap()).await.unwrap().etag;
        let issued = certificates(&client).await.len();
        service.kill().await;
        Self { past, base, etag, announcement, issued }
    }

    /// Starts a service that dies where the *client's* certificate comes to that point: at each start the two issuers get a
    /// certificate for their OCSP responders first.
    async fn serve_until(&self, t: &Installation, point: &str) -> (Process, String) {
        let point = if point.starts_with("issue.") { format!("{point}:3") } else { point.to_owned() };
        let mut first = t.serve_until(&point);
        first.serves().await.unwrap();
        responders(&t.client(Some(&t.token)), 4).await;
        (first, point)
    }

    fn request(&self, change: Change) -> Request {
        let wanted = |number: u32| serde_json::to_value(wanted(&format!("dns:h{number}.example"))).unwrap();
        let issuer = |outside: bool, parent: Option<&str>| {
            let mut new = new_issuer("fresh", "hsm", "ecdsa-p256-sha256");
            (new.outside, new.parent) = (outside, parent.map(|parent| parent.parse().unwrap()));
            serde_json::to_value(new).unwrap()
        };
        let cancel = format!("issuers/next/announcements/{}", self.announcement);
        let (method, path, body) = match change {
            Change::Issue => {
                ("POST", "issuers/ca/issue", serde_json::json!({"profile": "server", "request": wanted(0)}))
            }
            Change::IssueMany => {
                let items: Vec<_> = (0..3).map(wanted).collect();
                ("POST", "issuers/ca/issue-batch", serde_json::json!({"profile": "server", "items": items}))
            }
            Change::CreateRoot => ("POST", "issuers", issuer(false, None)),
            Change::CreateBelow => ("POST", "issuers", issuer(false, Some("ca"))),
            Change::CreateOutside => ("POST", "issuers", issuer(true, None)),
            Change::Rotate => ("POST", "issuers/ca/rotate", serde_json::json!({})),
            Change::Activate => ("POST", "issuers/next/activate", serde_json::json!({"version": 2})),
            Change::CrossSign => ("POST", "issuers/next/cross-sign", serde_json::json!({"signer": "ca"})),
            Change::Stop => ("PATCH", "issuers/ca", serde_json::json!({"enabled": false})),
            Change::PutProfile => ("PUT", "profiles/fresh", serde_json::json!({"profile": {"kind": "client"}})),
            Change::DeleteProfile => ("DELETE", "profiles/spare", serde_json::Value::Null),
            Change::Announce => {
                let body = announce("2100-01-01T00:00:00Z".parse().unwrap());
                ("POST", "issuers/ca/announcements", serde_json::to_value(body).unwrap())
            }
            Change::CancelAnnouncement => ("DELETE", cancel.as_str(), serde_json::Value::Null),
        };
        Request {
            method: method.to_owned(),
            path: path.to_owned(),
            body: if body.is_null() { String::new() } else { body.to_string() },
            if_match: (change == Change::Stop).then(|| self.etag.clone()),
        }
    }
}

/// Waits until there are that many certificates for OCSP responders.
async fn responders(client: &Client, count: usize) {
    eventually("the OCSP responders have certificates", async || {
        let page = PageRequest { size: Some(1000), token: None };
        let all = client.certificates(&CertificateQuery::default(), &page).await.ok()?.items;
        let made = all.iter().filter(|one| one.profile.starts_with('[') && one.state == "issued").count();
        (made >= count).then_some(())
    })
    .await;
}

/// All certificates but those that the service makes for itself in between.
async fn certificates(client: &Client) -> Vec<Certificate> {
    let page = PageRequest { size: Some(1000), token: None };
    let all = client.certificates(&CertificateQuery::default(), &page).await.unwrap().items;
    all.into_iter().filter(|one| !one.profile.starts_with('[')).collect()
}

/// An announcement of revocation.
fn announce(at: jiff::Timestamp) -> Announce {
    let revoke = Some("superseded".to_owned());
    Announce { version: None, profile: None, serials: vec![], at, revoke, explanation: None }
}

async fn announcements(client: &Client, issuer: &str) -> Vec<Announcement> {
    client.announcements(&issuer.parse().unwrap(), &PageRequest::default()).await.unwrap().items
}

/// Whether the change shows, whole and once.
async fn shows(change: Change, client: &Client, issued: usize) -> bool {
    let signed = certificates(client).await.iter().filter(|one| one.state == "issued").count() - issued;
    let versions = async |name: &str| client.issuer(&name.parse().unwrap()).await.map(|one| one.versions);
    match change {
        Change::Issue | Change::IssueMany => {
            let all = if change == Change::Issue { 1 } else { 3 };
            assert!(signed == 0 || signed == all, "{signed} certificates for {all}");
            signed == all
        }
        Change::CreateRoot | Change::CreateBelow | Change::CreateOutside => {
            let made = versions("fresh").await;
            assert!(made.as_ref().is_ok_and(|versions| versions.len() == 1) || made.is_err());
            assert_eq!(signed, usize::from(made.is_ok() && change != Change::CreateOutside));
            made.is_ok()
        }
        Change::Rotate => versions("ca").await.unwrap().len() == 2,
        Change::Activate => versions("next").await.unwrap()[1].state == "active",
        Change::CrossSign => !versions("next").await.unwrap()[1].cross.is_empty(),
        Change::Stop => !client.issuer(&"ca".parse().unwrap()).await.unwrap().enabled,
        Change::PutProfile => client.profile(&"fresh".parse().unwrap()).await.is_ok(),
        Change::DeleteProfile => client.profile(&"spare".parse().unwrap()).await.is_err(),
        Change::Announce => {
            let made = announcements(client, "ca").await.len();
            assert!(made <= 1, "announced twice");
            made == 1
        }
        Change::CancelAnnouncement => announcements(client, "next").await.is_empty(),
    }
}

#[tokio::test]
async fn a_certificate_that_is_cut_short_is_known_and_its_serial_is_never_used_again() {
    let scene = Scene::make().await;
    let mut cases = Vec::new();
    for (change, way) in WAYS {
        cases.extend(way.iter().map(|(point, _, left)| (*change, *point, *left)));
    }
    past::all(cases, async |(change, point, left)| cut_short(&scene, change, point, left).await).await;
}

async fn cut_short(scene: &Scene, change: Change, point: &str, left: Left) {
    // 1. The service dies while it works on the change.
    let t = scene.base.copy();
    let (first, point) = scene.serve_until(&t, point).await;
    let request = scene.request(change);
    let answer = request.send(&t, "once").await;
    assert!(answer.is_err(), "an answer in spite of a death at {point}: {answer:?}");
    first.dies(&point).await;
    // 2. It starts again. What was about to be signed is known, closed, and counts as revoked.
    let second = t.serve().await;
    let client = t.client(Some(&t.token));
    scene.past.is_there(&t, &client).await;
    let after = certificates(&client).await;
    let lost: Vec<_> = after.iter().filter(|one| one.state == "lost").collect();
    assert!(after.iter().all(|one| one.state != "reserved"), "a reservation is open");
    assert_eq!(!lost.is_empty(), left == Left::Lost, "{lost:?}");
    assert!(lost.iter().all(|one| one.revoked.is_some() && one.certificate.is_none()));
    let recovered = client.status().await.unwrap().recovered;
    let closed = recovered.iter().filter(|text| text.contains("its serial counts as revoked")).count();
    assert_eq!(closed, lost.len(), "{recovered:?}");
    assert_eq!(shows(change, &client, scene.issued).await, left == Left::Done);
    // 3. The same request again gets the first result, or it happens now; and not once more after that.
    for _ in 0..2 {
        let (status, answer) = request.send(&t, "once").await.unwrap();
        assert!((200..300).contains(&status), "{status} {answer}");
        assert!(shows(change, &client, scene.issued).await);
    }
    let all = certificates(&client).await;
    let serials: BTreeSet<_> = all.iter().map(|one| &one.serial).collect();
    assert_eq!(serials.len(), all.len(), "a serial number was used twice");
    past::all_keys_work(&client).await;
    // 4. An auditor sees a whole log.
    second.kill().await;
    t.audit_is_good();
}

#[tokio::test]
async fn a_death_while_reservations_are_closed_is_made_good_by_the_start_after_it() {
    let scene = Scene::make().await;
    past::all(CLOSING.to_vec(), async |point| closing(&scene, point).await).await;
}

async fn closing(scene: &Scene, point: &str) {
    let t = scene.base.copy();
    let (first, signed) = scene.serve_until(&t, "issue.signed").await;
    let request = scene.request(Change::IssueMany);
    assert!(request.send(&t, "once").await.is_err());
    first.dies(&signed).await;
    t.serve_until(point).dies(point).await;
    let last = t.serve().await;
    let client = t.client(Some(&t.token));
    eventually("the service is ready", async || client.ready().await.ok()).await;
    let all = certificates(&client).await;
    assert_eq!(all.iter().filter(|one| one.state == "lost" && one.revoked.is_some()).count(), 3);
    let body = ActivateIssuer { version: signet::types::Version::new(2).unwrap() };
    client.activate_issuer(&"next".parse().unwrap(), &body).await.unwrap();
    last.kill().await;
    t.audit_is_good();
}

#[tokio::test]
async fn what_was_announced_is_done_by_the_start_after_a_death() {
    let scene = Scene::make().await;
    past::all(COMING.to_vec(), async |point| coming(&scene, point).await).await;
}

async fn coming(scene: &Scene, point: &str) {
    let t = scene.base.copy();
    let mut first = t.serve_until(point);
    first.serves().await.unwrap();
    let client = t.client(Some(&t.token));
    let body = IssueCertificate { profile: "server".parse().unwrap(), request: wanted("dns:a.example") };
    let issued = client.issue(&"ca".parse().unwrap(), &body).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "the service has the clock of the machine")]
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
    client.announce(&"ca".parse().unwrap(), &announce(soon)).await.unwrap();
    first.dies(point).await;
    let last = t.serve().await;
    let client = t.client(Some(&t.token));
    eventually("what was announced is done", async || announcements(&client, "ca").await[0].done.then_some(())).await;
    let revoked = client.certificate(&issued.serial).await.unwrap();
    assert_eq!(revoked.reason.as_deref(), Some("superseded"));
    last.kill().await;
    t.audit_is_good();
}
