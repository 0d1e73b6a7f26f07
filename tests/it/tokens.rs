//! Bearer tokens and client certificates: who is let in, for how long, to do what.

use jiff::SignedDuration;
use signet::error::Kind;
use signet::wire::{CreateToken, Policy};

use crate::process::eventually;
use crate::server::{Devices, TestServer, name};

fn for_identity(identity: &str) -> CreateToken {
    CreateToken { identity: identity.parse().unwrap(), groups: vec![], ttl: None, uses: None }
}

#[tokio::test]
async fn a_token_ends_by_time_by_uses_and_by_revocation() {
    let mut t = TestServer::start().await;
    let policy = Policy {
        name: None,
        text: r#"permit (principal, action == Signet::Action::"WhoAmI", resource);"#.to_owned(),
        etag: None,
    };
    t.client.put_policy(&"everybody".parse().unwrap(), None, &policy).await.unwrap();
    let short = CreateToken { ttl: Some("1h".parse().unwrap()), ..for_identity("short") };
    let counted = CreateToken { uses: Some(3), ..for_identity("counted") };
    let mut tokens = Vec::new();
    for body in [short, counted, for_identity("revoked")] {
        let made = t.client.create_token(&body).await.unwrap();
        tokens.push((made.info.id.clone(), made.token.unwrap().0.clone()));
    }
    let who = async |t: &TestServer, token: &str| t.client(Some(token)).whoami().await;
    for (_, token) in &tokens {
        who(&t, token).await.unwrap();
    }
    who(&t, &tokens[1].1).await.unwrap();
    t.client.revoke_token(&tokens[2].0).await.unwrap();
    assert_eq!(who(&t, &tokens[2].1).await.unwrap_err().kind(), Kind::Unauthenticated);
    // What was used and revoked stays so after a restart.
    t.restart().await;
    assert_eq!(who(&t, &tokens[2].1).await.unwrap_err().kind(), Kind::Unauthenticated);
    who(&t, &tokens[1].1).await.unwrap();
    assert_eq!(who(&t, &tokens[1].1).await.unwrap_err().kind(), Kind::Unauthenticated);
    t.clock.advance(SignedDuration::from_hours(2));
    assert_eq!(who(&t, &tokens[0].1).await.unwrap_err().kind(), Kind::Unauthenticated);
    for wrong in ["", "sgt_", "sgt_wrong", "Bearer", &tokens[0].1[..20]] {
        assert_eq!(who(&t, wrong).await.unwrap_err().kind(), Kind::Unauthenticated, "{wrong}");
    }
    // Each refusal is on record, with its precise reason, and no record holds a token.
    let records = t.client.audit_records(0, Some(1000)).await.unwrap().records;
    let text = serde_json::to_string(&records).unwrap();
    for reason in ["revoked", "expired", "used up"] {
        assert!(text.contains(reason), "{reason}");
    }
    assert!(!text.contains("sgt_"));
}

#[tokio::test]
async fn the_last_use_of_a_token_goes_to_one_of_many() {
    let t = TestServer::start().await;
    let policy = Policy {
        name: None,
        text: r#"permit (principal, action == Signet::Action::"WhoAmI", resource);"#.to_owned(),
        etag: None,
    };
    t.client.put_policy(&"everybody".parse().unwrap(), None, &policy).await.unwrap();
    let body = CreateToken { uses: Some(5), ..for_identity("counted") };
    let token = t.client.create_token(&body).await.unwrap().token.unwrap().0.clone();
    let clients: Vec<_> = (0..12).map(|_| t.client(Some(&token))).collect();
    let results = futures_util::future::join_all(clients.iter().map(|client| client.whoami())).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 5, "{results:?}");
}

/// An administrator's token for `uses` requests: its id and its text.
async fn counted(t: &TestServer, uses: u64) -> (String, String) {
    let groups = vec!["administrators".parse().unwrap()];
    let made = t.client.create_token(&CreateToken { groups, uses: Some(uses), ..for_identity("first") }).await.unwrap();
    (made.info.id, made.token.unwrap().0.clone())
}

#[tokio::test]
async fn the_only_use_of_a_token_is_good_for_repetitions_of_its_request_and_nothing_else() {
    let mut t = TestServer::with(Devices::Faulty).await;
    let (id, once) = counted(&t, 1).await;
    let body = r#"{"name":"data","algorithm":"hmac-sha256"}"#;
    // It failed, so the same request may try again; it was done, so the same request gets its answer.
    t.hsm.plan("C_GenerateKey pre=0x30\n");
    assert_eq!(t.post(&once, "k1", "keys", body).await.0, 503);
    t.hsm.plan("");
    eventually("the device is sound", async || t.client(None).ready().await.ok()).await;
    let first = t.post(&once, "k1", "keys", body).await;
    assert_eq!(first.0, 201, "{first:?}");
    t.restart().await;
    assert_eq!(t.post(&once, "k1", "keys", body).await, first);
    let other = body.replace("data", "more");
    let message = r#"{"message":"eA=="}"#;
    let (_, twin) = counted(&t, 1).await;
    assert_eq!(t.post(&twin, "other", "keys/data/mac", message).await.0, 200);
    for (token, key, path, body) in [
        (&once, "k1", "keys", &*other),
        (&once, "k2", "keys", body),
        (&once, "k1", "keys?x=1", body),
        (&once, "k1", "keys/data/rotate", "{}"),
        (&once, "k1", "keys/data/mac", message),
        (&once, "k1", "nothing", body),
        // Used up as well, of the same identity.
        (&twin, "k1", "keys", body),
        // What is no change is charged each time.
        (&twin, "other", "keys/data/mac", message),
    ] {
        assert_eq!(t.post(token, key, path, body).await.0, 401, "{key} {path} {body}");
    }
    assert_eq!(t.client(Some(&once)).whoami().await.unwrap_err().kind(), Kind::Unauthenticated);
    assert_eq!(t.client.key(&name("data")).await.unwrap().latest.number(), 1);
    t.client.revoke_token(&id).await.unwrap();
    assert_eq!(t.post(&once, "k1", "keys", body).await.0, 401);
    // One use is one change, however often and at once it is sent.
    let (id, twice) = counted(&t, 2).await;
    let rotate = async || t.post(&twice, "r1", "keys/data/rotate", "{}").await;
    let answers = futures_util::future::join_all([rotate(), rotate(), rotate(), rotate()]).await;
    assert!(answers.iter().all(|answer| answer.0 == 200 && answer == &answers[0]), "{answers:?}");
    assert_eq!(t.client.token(&id).await.unwrap().uses_left, Some(1));
    // The same key for something else is refused, and costs the use.
    assert_eq!(t.post(&twice, "r1", "keys/data/rotate", r#"{"prepare":true}"#).await.0, 409);
    assert_eq!(t.client.token(&id).await.unwrap().uses_left, Some(0));
    assert_eq!(rotate().await, answers[0]);
    // Neither a forgotten outcome nor a token that has ended lets it in again.
    t.clock.advance(SignedDuration::from_hours(25));
    assert_eq!(rotate().await.0, 401);
}

#[tokio::test]
async fn a_use_that_was_charged_is_forgotten_with_its_outcome() {
    let t = TestServer::start().await;
    let (groups, ttl) = (vec!["administrators".parse().unwrap()], Some("30d".parse().unwrap()));
    let body = CreateToken { groups, ttl, uses: Some(1), ..for_identity("first") };
    let once = t.client.create_token(&body).await.unwrap().token.unwrap().0.clone();
    let create = async || t.post(&once, "k1", "keys", r#"{"name":"data","algorithm":"hmac-sha256"}"#).await.0;
    assert_eq!(create().await, 201);
    t.clock.advance(SignedDuration::from_hours(47));
    assert_eq!(create().await, 201);
    // Not forgotten yet, and too old all the same: nothing can come between the look at it and its end.
    t.clock.advance(SignedDuration::from_hours(2));
    assert_eq!(create().await, 401);
    t.server().service().forget_outcomes().await.unwrap();
    assert_eq!(create().await, 401);
}

#[tokio::test]
async fn nobody_hands_out_a_group_that_they_are_not_in() {
    let t = TestServer::start().await;
    let policy = Policy {
        name: None,
        text: r#"permit (principal == Signet::Identity::"issuer", action == Signet::Action::"CreateToken", resource);"#
            .to_owned(),
        etag: None,
    };
    t.client.put_policy(&"issuer".parse().unwrap(), None, &policy).await.unwrap();
    let body = CreateToken { groups: vec!["builders".parse().unwrap()], ..for_identity("issuer") };
    let token = t.client.create_token(&body).await.unwrap().token.unwrap().0.clone();
    let issuer = t.client(Some(&token));
    let ask = |group: &str| CreateToken { groups: vec![group.parse().unwrap()], ..for_identity("ci") };
    issuer.create_token(&ask("builders")).await.unwrap();
    assert_eq!(issuer.create_token(&ask("administrators")).await.unwrap_err().kind(), Kind::Forbidden);
}

#[tokio::test]
async fn policy_decides_and_what_may_not_be_seen_is_not_found() {
    let t = TestServer::start().await;
    t.key("payments:card-data", "aes256-gcm-derived").await;
    t.key("payments:release", "ecdsa-p256-sha256").await;
    let text = r#"
        permit (principal == Signet::Identity::"signer", action in [Signet::Action::"Sign", Signet::Action::"ReadKey"],
                resource == Signet::Key::"payments:release");
    "#;
    let policy = Policy { name: None, text: text.to_owned(), etag: None };
    t.client.put_policy(&"signer".parse().unwrap(), None, &policy).await.unwrap();
    let made = t.client.create_token(&for_identity("signer")).await.unwrap();
    let signer = t.client(Some(&made.token.unwrap().0));
    let message = signet::wire::Base64(b"m".to_vec());
    let body = signet::wire::Sign { message: Some(message), ..Default::default() };
    signer.sign(&name("payments:release"), &body).await.unwrap();
    // Seen, but not allowed: forbidden. Not to be seen, or not there: not found, in the same words.
    let forbidden = signer.rotate_key(&name("payments:release"), &Default::default()).await.unwrap_err();
    assert_eq!(forbidden.kind(), Kind::Forbidden);
    let hidden = signer.key(&name("payments:card-data")).await.unwrap_err();
    let missing = signer.key(&name("payments:nothing")).await.unwrap_err();
    assert_eq!((hidden.kind(), missing.kind()), (Kind::NotFound, Kind::NotFound));
    let words = |error: &signet::error::Error, key: &str| error.public().split(" (").next().unwrap().replace(key, "");
    assert_eq!(words(&hidden, "card-data"), words(&missing, "nothing"));
    // A policy that is gone permits nothing from the answer on.
    t.client.delete_policy(&"signer".parse().unwrap()).await.unwrap();
    assert_eq!(signer.sign(&name("payments:release"), &body).await.unwrap_err().kind(), Kind::NotFound);
}
