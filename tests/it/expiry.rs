//! Certificates that end while nothing stands ready in their place are counted, and said once they are late.

use jiff::SignedDuration;
use signet::wire::RevokeCertificate;

use crate::issuers::{root, server};
use crate::server::TestServer;

/// What the metrics say of the certificates of the issuer `fleet` that end within a day, and what the status says of late ones.
async fn look(t: &TestServer) -> (Option<u64>, Option<String>) {
    t.server().service().authority().look_at_ends().await;
    let metrics = t.client.metrics().await.unwrap();
    let labels = r#"signet_certificates_ending{issuer="default:fleet",profile="default:server",within="1d"} "#;
    let count = metrics.lines().find_map(|line| line.strip_prefix(labels)).map(|count| count.parse().unwrap());
    let problems = t.client.status().await.unwrap().problems;
    (count, problems.into_iter().find(|problem| problem.contains("no successor")))
}

#[tokio::test]
async fn what_ends_without_a_successor_is_counted_and_said() {
    let t = TestServer::start().await;
    root(&t, "fleet").await;
    let hours = SignedDuration::from_hours;
    let revoke = async |serial: &str| t.client.revoke(serial, &RevokeCertificate::default()).await.unwrap();
    assert_eq!(look(&t).await, (None, None));
    // 1. Each counts; none is late while an eighth of its life is left.
    let first = server(&t, "fleet", "dns:a.example").await;
    let other = server(&t, "fleet", "dns:b.example").await;
    assert_eq!(look(&t).await, (Some(2), None));
    let metrics = t.client.metrics().await.unwrap();
    let next = format!(
        r#"signet_certificates_next_end{{issuer="default:fleet",profile="default:server"}} {}"#,
        first.not_after.as_second().min(other.not_after.as_second())
    );
    assert!(metrics.lines().any(|line| line == next), "{metrics}");
    // 2. Late.
    t.clock.advance(hours(22));
    let (count, late) = look(&t).await;
    let late = late.unwrap();
    assert!(count == Some(2) && late.starts_with("2 certificates end soon"), "{count:?} {late}");
    // 3. One is renewed and one revoked: nobody has to care for either.
    let second = server(&t, "fleet", "dns:a.example").await;
    revoke(&other.serial).await;
    assert_eq!(look(&t).await, (Some(1), None));
    // 4. A successor that is revoked is none; one for other names was never one.
    server(&t, "fleet", "dns:c.example").await;
    revoke(&second.serial).await;
    let (count, late) = look(&t).await;
    assert!(count == Some(2) && late.is_some_and(|late| late.contains("dns:a.example of default:fleet")), "{count:?}");
    // 5. What is over is not said any more.
    t.clock.advance(hours(3));
    assert_eq!(look(&t).await, (Some(1), None));
}
