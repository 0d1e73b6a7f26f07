//! The next version of an issuer comes in time.

use super::*;

#[tokio::test]
async fn an_issuer_is_rolled_over_in_time_without_anybody() {
    let mut t = TestServer::start().await;
    let mut new = new_issuer("root", "hsm", "ecdsa-p256-sha256");
    new.rules.lifetime = Some("100d".parse().unwrap());
    t.client.create_issuer(&new).await.unwrap();
    let name = "root".parse().unwrap();
    let first = server(&t, "root", "dns:a.example").await;
    let states = async |t: &TestServer| {
        let issuer = t.client.issuer(&name).await.unwrap();
        issuer.versions.iter().map(|one| one.state.clone()).collect::<Vec<_>>()
    };
    let tick = async |t: &TestServer, days: i64| {
        t.clock.advance(SignedDuration::from_hours(24 * days));
        t.server().service().authority().tick().await
    };
    assert_eq!(tick(&t, 49).await, signet::ca::rollover::Tick::default());
    // At half of its life the next version is there and known, and issues nothing.
    assert_eq!(tick(&t, 2).await.prepared, 1);
    assert_eq!(states(&t).await, ["active", "prepared"]);
    assert_eq!(server(&t, "root", "dns:a.example").await.version.number(), 1);
    assert_eq!(t.server().service().authority().bundle(&name).unwrap().certificates.len(), 2);
    // At two thirds it issues, also where the service was down in between.
    t.restart().await;
    assert_eq!(tick(&t, 17).await.activated, 1);
    assert_eq!(states(&t).await, ["retired", "active"]);
    assert_eq!(server(&t, "root", "dns:a.example").await.version.number(), 2);
    // The old one ends once its last certificate, its own, is dead.
    assert_eq!(tick(&t, 1).await.ended, 0);
    assert_eq!(tick(&t, 40).await.ended, 1);
    assert_eq!(states(&t).await[0], "ended");
    let key = t.client.key(&"root".parse().unwrap()).await.unwrap();
    assert_eq!((key.latest.number(), key.primary.unwrap().number()), (3, 2), "the third is prepared by now");
    // An issuer's key is not rotated behind its back.
    let refused = t.client.rotate_key(&"root".parse().unwrap(), &Default::default()).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::State, "{refused}");
    assert_eq!(t.client.certificate(&first.serial).await.unwrap().version.number(), 1);
}

/// Its responders are renewed for as long as it is there, and do not keep it.
#[tokio::test]
async fn a_retired_intermediate_ends_with_its_last_leaf() {
    let t = TestServer::start().await;
    root(&t, "root").await;
    below(&t, "middle", "root", "hsm", "ecdsa-p256-sha256").await;
    server(&t, "middle", "dns:a.example").await;
    let name = "middle".parse().unwrap();
    let rotated = t.client.rotate_issuer(&name, &RotateIssuer::default()).await.unwrap();
    let body = ActivateIssuer { version: rotated.versions[1].version };
    t.client.activate_issuer(&name, &body).await.unwrap();
    let service = t.server().service();
    for (hours, state) in [(1, "retired"), (22, "retired"), (2, "ended")] {
        t.clock.advance(SignedDuration::from_hours(hours));
        service.revocation_status().tick().await;
        service.authority().tick().await;
        assert_eq!(t.client.issuer(&name).await.unwrap().versions[0].state, state, "after {hours} h more");
    }
    let query = CertificateQuery { profile: Some("[ocsp]".to_owned()), ..CertificateQuery::default() };
    let responders = t.client.certificates(&query, &PageRequest::default()).await.unwrap().items;
    let lasts = |one: &Certificate| one.issuer == name && one.version.number() == 1 && one.not_after > t.clock_now();
    assert!(responders.iter().any(lasts), "it still had a responder");
}

/// Below a parent that does not roll, a new version could not end later than the old one: it would be made for nothing, and soon
/// another one.
#[tokio::test]
async fn nothing_rolls_that_cannot_last_longer() {
    let t = TestServer::start().await;
    let mut new = new_issuer("root", "hsm", "ecdsa-p256-sha256");
    new.rules = IssuerRules { lifetime: Some("10d".parse().unwrap()), manual_rollover: true, ..IssuerRules::default() };
    t.client.create_issuer(&new).await.unwrap();
    below(&t, "middle", "root", "hsm", "ecdsa-p256-sha256").await;
    let mut stopped = new_issuer("stopped", "hsm", "ecdsa-p256-sha256");
    stopped.rules.lifetime = Some("10d".parse().unwrap());
    t.client.create_issuer(&stopped).await.unwrap();
    let enable = async |enabled: bool| {
        let name = "stopped".parse().unwrap();
        let etag = t.client.issuer(&name).await.unwrap().etag;
        let update = signet::wire::UpdateIssuer { enabled: Some(enabled), ..Default::default() };
        t.client.update_issuer(&name, &etag, &update).await.unwrap();
    };
    enable(false).await;
    let end = t.client.issuer(&"middle".parse().unwrap()).await.unwrap().versions[0].not_after.unwrap();
    for left in [SignedDuration::from_hours(72), SignedDuration::from_mins(4), SignedDuration::from_secs(60)] {
        t.clock.advance(end.duration_since(t.clock_now()) - left);
        for _ in 0..3 {
            assert_eq!(t.server().service().authority().tick().await, signet::ca::rollover::Tick::default(), "{left}");
        }
    }
    // Once the parent has a new version, what is below follows it.
    let name = "root".parse().unwrap();
    let rotated = t.client.rotate_issuer(&name, &RotateIssuer::default()).await.unwrap();
    let body = ActivateIssuer { version: rotated.versions[1].version };
    t.client.activate_issuer(&name, &body).await.unwrap();
    let tick = t.server().service().authority().tick().await;
    assert_eq!((tick.prepared, tick.activated), (1, 1));
    // And so does a stopped one that goes on.
    enable(true).await;
    assert_eq!(t.server().service().authority().tick().await.prepared, 1);
}

#[tokio::test]
async fn certificates_are_issued_while_their_issuer_is_rolled_over() {
    let t = TestServer::start().await;
    let root = root(&t, "root").await;
    let name = "root".parse().unwrap();
    let issuing = async {
        let all = (0..24).map(|number| issue(&t, "root", wanted(&format!("dns:h{number}.example"))));
        futures_util::future::join_all(all).await
    };
    let rolling = async {
        for expected in 1..=3 {
            let body = RotateIssuer { expected_version: Some(signet::types::Version::new(expected).unwrap()) };
            let rotated = t.client.rotate_issuer(&name, &body).await.unwrap();
            let version = rotated.versions.last().unwrap().version;
            t.client.activate_issuer(&name, &ActivateIssuer { version }).await.unwrap();
        }
    };
    let (issued, ()) = tokio::join!(issuing, rolling);
    let issuer = t.client.issuer(&name).await.unwrap();
    assert_eq!(issuer.versions.len(), 4);
    drop(root);
    let mut serials = std::collections::BTreeSet::new();
    for one in issued {
        let one = one.unwrap();
        let version = issuer.versions.iter().find(|version| version.version == one.version).unwrap();
        verify(version.certificate.as_deref().unwrap(), "", one.certificate.as_deref().unwrap()).unwrap();
        assert!(serials.insert(one.serial));
    }
}

#[tokio::test]
async fn a_new_root_is_trusted_by_those_who_know_the_old_one() {
    let t = TestServer::start().await;
    let old = root(&t, "root").await;
    let name = "root".parse().unwrap();
    t.client.rotate_issuer(&name, &RotateIssuer::default()).await.unwrap();
    let crossed = t.client.cross_sign(&name, &CrossSign { signer: name.clone() }).await.unwrap();
    let version = crossed.versions[1].version;
    t.client.activate_issuer(&name, &ActivateIssuer { version }).await.unwrap();
    let leaf = server(&t, "root", "dns:a.example").await;
    assert_eq!(leaf.version.number(), 2);
    verify(pem(&crossed), "", leaf.certificate.as_deref().unwrap()).unwrap();
    verify(pem(&old), &crossed.versions[1].cross, leaf.certificate.as_deref().unwrap()).unwrap();
}
