//! The agent beside a service: it gets a certificate, keeps it, and the service can use the files.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use jiff::SignedDuration;
use signet::agent::{Agent, CERTIFICATE, CURRENT, Home, KEY, KeyType, Pair, Settings, TRUST, Tell};
use signet::client::{Certificate as Credential, Client, Options};
use signet::error::{Error, Kind, Result};
use signet::types::{Clock, Subject};
use signet::wire::{ActivateIssuer, CertificateMatch, CreateToken, Identity, Policy, RevokeCertificate, RotateIssuer};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::issuers::{new_issuer, root};
use crate::process::eventually;
use crate::server::{PROGRAM, TestServer};

pub(crate) fn settings(folder: PathBuf, profile: &str, name: &str) -> Settings {
    Settings {
        issuer: "fleet:web".parse().unwrap(),
        profile: profile.parse().unwrap(),
        names: vec![name.parse().unwrap()],
        subject: Subject::default(),
        lifetime: Some("10h".parse().unwrap()),
        folder,
        key_type: KeyType::EcdsaP256,
        key_in: Home::File,
        renew_at: 66,
        tell: Tell::default(),
        kubernetes_secret: None,
        renew_by_certificate: false,
    }
}

/// A root, and an issuer below it that certifies services.
pub(crate) async fn fleet() -> TestServer {
    let t = TestServer::start().await;
    root(&t, "fleet:root").await;
    let mut below = new_issuer("fleet:web", "hsm", "ecdsa-p256-sha256");
    below.parent = Some("fleet:root".parse().unwrap());
    t.client.create_issuer(&below).await.unwrap();
    t
}

/// An agent of the administrator.
pub(crate) fn agent(
    t: &TestServer,
    settings: Settings,
) -> Agent<impl Fn(Option<Credential>) -> Result<Client> + use<>> {
    let client = t.impatient_client();
    Agent::new(settings, move |_| Ok(client.clone()), Clock::Manual(t.clock.clone())).unwrap()
}

fn key(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join(CURRENT).join(KEY)).unwrap()
}

#[tokio::test]
async fn a_certificate_is_renewed_in_time_and_the_service_is_told_once() {
    let mut t = fleet().await;
    let place = tempfile::tempdir().unwrap();
    let (folder, told, fail) = (place.path().join("tls"), place.path().join("told"), place.path().join("fail"));
    let mut wanted = settings(folder.clone(), "fleet:server", "dns:web.fleet.example");
    let command = format!(
        "test ! -e {0} && test -s $SIGNET_FOLDER/current/tls.key && echo told >> {1}",
        fail.display(),
        told.display()
    );
    wanted.tell.command = Some(command);
    let told = || std::fs::read_to_string(&told).unwrap_or_default().lines().count();
    let keeper = agent(&t, wanted.clone());

    let first = keeper.look(false).await.unwrap();
    let now = t.clock_now();
    assert!(first.renewed && first.next > now + SignedDuration::from_hours(6) && first.next < first.ends);
    let (key1, certificate1) = (key(&folder), Pair::current(&folder).unwrap().certificate);
    assert_eq!(told(), 1);
    let again = keeper.look(false).await.unwrap();
    assert_eq!((again.renewed, again.next, told()), (false, first.next, 1));

    // Its moment has come: a new key, a new certificate, and the service is told of it.
    t.clock.advance(SignedDuration::from_mins(7 * 60 + 40));
    assert!(keeper.look(false).await.unwrap().renewed);
    assert_ne!((key(&folder), Pair::current(&folder).unwrap().certificate), (key1, certificate1));
    assert_eq!(told(), 2);

    // The service could not be told: the new pair is there, and the next look tells it, after a restart, too.
    std::fs::write(&fail, b"").unwrap();
    let error = keeper.look(true).await.unwrap_err();
    assert_eq!((error.kind(), told()), (Kind::Unavailable, 2));
    std::fs::remove_file(&fail).unwrap();
    let keeper = agent(&t, wanted.clone());
    assert_eq!((keeper.look(false).await.unwrap().renewed, told()), (false, 3));

    // The server is away: the last pair stays. Another name is another certificate.
    let key2 = key(&folder);
    t.stop().await;
    assert_eq!(keeper.look(true).await.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(key(&folder), key2);
    t.start_again().await.unwrap();
    wanted.names.push("dns:www.fleet.example".parse().unwrap());
    assert!(agent(&t, wanted.clone()).look(false).await.unwrap().renewed);
    assert_eq!(Pair::current(&folder).unwrap().certificate.sans().len(), 2);
    // What a crash tears apart is made anew.
    std::fs::write(folder.join(CURRENT).join(KEY), key2).unwrap();
    assert!(agent(&t, wanted).look(false).await.unwrap().renewed);
}

#[tokio::test]
async fn what_is_announced_is_renewed_before_it_happens_and_a_restart_changes_nothing() {
    let mut t = fleet().await;
    let place = tempfile::tempdir().unwrap();
    let issuer = "fleet:web".parse().unwrap();
    let wanted = settings(place.path().join("tls"), "fleet:server", "dns:web.fleet.example");
    let keeper = agent(&t, wanted.clone());
    let usual = keeper.look(false).await.unwrap();
    let ask_again = keeper.look(false).await.unwrap().ask_again.unwrap().as_secs();
    assert!((24 * 60..=26 * 60).contains(&ask_again), "{ask_again}: a 24th of ten hours");
    // 1. It will be revoked in four hours: the agent draws a moment before that, and another agent keeps to it.
    let revoked = t.clock_now() + SignedDuration::from_hours(4);
    let announce =
        serde_json::json!({ "at": revoked, "revoke": "superseded", "explanation": "https://status.fleet.example/1" });
    let told = t.client.announce(&issuer, &serde_json::from_value(announce).unwrap()).await.unwrap();
    let early = keeper.look(false).await.unwrap();
    assert!(!early.renewed && early.next < revoked && early.next < usual.next, "{early:?}");
    t.clock.advance(SignedDuration::from_mins(1));
    assert_eq!(agent(&t, wanted.clone()).look(false).await.unwrap().next, early.next);
    // 2. Taken back, and told again: that is another moment.
    t.client.cancel_announcement(&issuer, &told.id).await.unwrap();
    assert_eq!(keeper.look(false).await.unwrap().next, usual.next);
    let announce = serde_json::json!({ "at": revoked, "revoke": "superseded" });
    t.client.announce(&issuer, &serde_json::from_value(announce).unwrap()).await.unwrap();
    let early = keeper.look(false).await.unwrap();
    // 3. While the server is away, what it has said counts.
    t.stop().await;
    let alone = keeper.look(false).await.unwrap();
    assert_eq!((alone.renewed, alone.next, alone.ask_again), (false, early.next, None));
    t.start_again().await.unwrap();
    let keeper = agent(&t, wanted.clone());
    let left = early.next.duration_since(t.clock_now());
    t.clock.advance(left + SignedDuration::from_secs(1));
    let renewed = keeper.look(false).await.unwrap();
    let half_a_life = renewed.ends - SignedDuration::from_hours(5);
    assert!(renewed.renewed && t.clock_now() < revoked && renewed.next > half_a_life, "{renewed:?}");
    assert!(!keeper.look(false).await.unwrap().renewed, "the announcement is not about what came after it");
    // 4. Revoked at once: renewed at once.
    let serial = Pair::current(&wanted.folder).unwrap().certificate.serial().to_string();
    t.client.revoke(&serial, &RevokeCertificate::default()).await.unwrap();
    assert!(keeper.look(false).await.unwrap().renewed);
    assert!(!keeper.look(false).await.unwrap().renewed);
    // 5. A new version of the issuer: in the first half of what is left of the certificate.
    let before = keeper.look(false).await.unwrap();
    t.client.rotate_issuer(&issuer, &RotateIssuer::default()).await.unwrap();
    let version = signet::types::Version::FIRST.next().unwrap();
    t.client.activate_issuer(&issuer, &ActivateIssuer { version }).await.unwrap();
    let moved = keeper.look(false).await.unwrap();
    assert!(moved.next < before.next && moved.next < t.clock_now() + SignedDuration::from_hours(5), "{moved:?}");
}

#[tokio::test]
async fn a_fleet_is_spread_over_the_time_that_is_left() {
    const AGENTS: usize = 12;
    let t = fleet().await;
    let place = tempfile::tempdir().unwrap();
    let mut agents = Vec::new();
    for number in 0..AGENTS {
        let name = format!("dns:web{number}.fleet.example");
        agents.push(agent(&t, settings(place.path().join(number.to_string()), "fleet:server", &name)));
        agents[number].look(false).await.unwrap();
    }
    let at = t.clock_now() + SignedDuration::from_hours(4);
    let announce = serde_json::json!({ "at": at, "revoke": "superseded" });
    t.client.announce(&"fleet:web".parse().unwrap(), &serde_json::from_value(announce).unwrap()).await.unwrap();
    let mut moments = Vec::new();
    for one in &agents {
        moments.push(one.look(false).await.unwrap().next);
    }
    // The odds that chance alone puts all of them into one half are one in 2,048.
    let middle = t.clock_now() + SignedDuration::from_hours(4) * 7 / 8 / 2;
    let early = moments.iter().filter(|moment| **moment < middle).count();
    assert!((1..AGENTS).contains(&early) && moments.iter().all(|moment| *moment < at), "{moments:?}");
    // The scheduler revokes at the announced time; by then all have moved.
    t.clock.advance(SignedDuration::from_hours(4) * 7 / 8);
    for one in &agents {
        assert!(one.look(false).await.unwrap().renewed);
    }
}

#[tokio::test]
async fn a_certificate_is_the_credential_for_the_next_one() {
    let mut t = fleet().await;
    let place = tempfile::tempdir().unwrap();
    let mut wanted = settings(place.path().join("tls"), "fleet:peer", "dns:web.fleet.example");
    wanted.renew_by_certificate = true;
    agent(&t, wanted.clone()).look(false).await.unwrap();
    let certificates = vec![CertificateMatch::Dns("web.fleet.example".to_owned())];
    let identity = Identity { name: None, groups: vec![], certificates };
    t.client.put_identity(&"web".parse().unwrap(), &identity).await.unwrap();
    let text = r#"permit (principal == Signet::Identity::"web", action == Signet::Action::"IssueCertificate", resource)
        when { context has name && context.name == "dns:web.fleet.example" };"#;
    let policy = Policy { name: None, text: text.to_owned(), etag: None };
    t.client.put_policy(&"web".parse().unwrap(), None, &policy).await.unwrap();
    t.config.client_authorities = Some(place.path().join("tls").join(CURRENT).join(TRUST).canonicalize().unwrap());
    t.restart().await;
    let authorities = std::fs::read(t.server().own_authority().unwrap()).unwrap();
    let server = format!("https://{}", t.server().address());
    let connect = move |own: Option<Credential>| {
        let mut options = Options::new(server.clone(), authorities.clone());
        options.certificate = Some(own.expect("there is a certificate"));
        Client::new(options)
    };
    let keeper = Agent::new(wanted.clone(), connect.clone(), Clock::Manual(t.clock.clone())).unwrap();
    assert!(keeper.look(true).await.unwrap().renewed);
    assert!(keeper.look(true).await.unwrap().renewed, "by the one that was just made");
    // A certificate that was revoked, or is over, opens nothing; a token does, where there is one.
    let by_either = {
        let (connect, token) = (connect.clone(), t.impatient_client());
        move |own: Option<Credential>| if own.is_some() { connect(own) } else { Ok(token.clone()) }
    };
    let by_itself = move |own: Option<Credential>| match own {
        Some(_) => connect(own),
        None => Err(Error::new(Kind::Unauthenticated, "there is no credential for this server")),
    };
    let alone = Agent::new(wanted.clone(), by_itself, Clock::Manual(t.clock.clone())).unwrap();
    let helped = Agent::new(wanted.clone(), by_either, Clock::Manual(t.clock.clone())).unwrap();
    let stays = async |why: &str| {
        let before = key(&wanted.folder);
        for force in [false, true] {
            let error = alone.look(force).await.unwrap_err();
            let (text, mend) = (error.public().to_owned(), error.mend().unwrap().to_owned());
            assert!(
                error.kind() == Kind::Unauthenticated && text.contains("opens the server no more"),
                "{why}: {text}"
            );
            assert!(
                text.contains("tls/current") && mend.contains("signet token create NAME --uses 1"),
                "{text} {mend}"
            );
        }
        assert_eq!(key(&wanted.folder), before, "{why}");
    };
    let serial = Pair::current(&wanted.folder).unwrap().certificate.serial().to_string();
    t.client.revoke(&serial, &RevokeCertificate::default()).await.unwrap();
    stays("revoked").await;
    let renewed = helped.look(false).await.unwrap();
    assert_eq!(renewed.why.as_deref(), Some("the server asked for it"));
    assert!(alone.look(true).await.unwrap().renewed, "by the one that the token brought");
    t.clock.advance(SignedDuration::from_hours(11));
    stays("over").await;
    assert_eq!(helped.look(false).await.unwrap().why.as_deref(), Some("it was due"));
}

/// The program, with that token.
fn program(t: &TestServer, folder: &Path, token: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["agent", "cert", "fleet:web", "fleet:server"]).arg(folder);
    command.args(["--name", "dns:web.fleet.example", "--retry-for", "1s"]);
    command.arg("--server").arg(format!("https://{}", t.server().address()));
    command.arg("--ca").arg(t.server().own_authority().unwrap());
    command.env("SIGNET_TOKEN", token).env("SIGNET_PROFILE", "/nonexistent").kill_on_drop(true);
    command
}

/// Its exit code, and what it said.
async fn ended(command: &mut Command) -> (i32, String) {
    let output = command.output().await.unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_folder_that_cannot_be_kept_costs_no_token() {
    let t = fleet().await;
    let place = tempfile::tempdir().unwrap();
    let body = CreateToken {
        identity: "administrator".parse().unwrap(),
        groups: vec!["administrators".parse().unwrap()],
        ttl: None,
        uses: Some(1),
    };
    let token = t.client.create_token(&body).await.unwrap().token.unwrap().0.clone();
    let once = async |folder: &Path| ended(program(&t, folder, &token).arg("--once")).await;
    // 1. A file where a folder should be, and a folder where the link should be.
    let (file, taken) = (place.path().join("file"), place.path().join("taken"));
    std::fs::write(&file, "").unwrap();
    std::fs::create_dir_all(taken.join(CURRENT)).unwrap();
    let (code, said) = once(&file.join("tls")).await;
    assert!(code == 7 && said.contains("cannot be written"), "{code} {said}");
    let (code, said) = once(&taken).await;
    assert!(code == 2 && said.contains("taken/current is not a link of the agent"), "{code} {said}");
    // 2. A place where nobody can make a folder.
    let (code, said) = once(Path::new("/proc/self/tls")).await;
    assert!(code == 7 && said.contains("cannot be written"), "{code} {said}");
    // 3. Another agent is there, and keeps it as long as it runs.
    let busy = place.path().join("busy");
    let mut other = program(&t, &busy, t.token()).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the other agent has a certificate", async || Pair::current(&busy)).await;
    let (code, said) = once(&busy).await;
    assert!(code == 5 && said.contains(&format!("another agent keeps {}", busy.display())), "{code} {said}");
    let (code, said) = ended(&mut program(&t, &busy, &token)).await;
    assert_eq!(code, 5, "not for ever either: {said}");
    other.kill().await.unwrap();
    // 4. The token is as good as ever, and good once.
    let free = place.path().join("free");
    assert_eq!(once(&free).await.0, 0);
    assert_eq!(once(&free).await.0, 0, "nothing is due, so nothing is asked for");
    assert_eq!(once(&place.path().join("other")).await.0, 3);
}

#[tokio::test]
async fn other_settings_are_another_certificate_at_once() {
    let t = fleet().await;
    let mut other = new_issuer("fleet:other", "hsm", "ecdsa-p256-sha256");
    other.parent = Some("fleet:root".parse().unwrap());
    t.client.create_issuer(&other).await.unwrap();
    let place = tempfile::tempdir().unwrap();
    let mut wanted = settings(place.path().join("tls"), "fleet:server", "dns:web.fleet.example");
    let first = agent(&t, wanted.clone()).look(false).await.unwrap();
    assert_eq!(first.why.as_deref(), Some("there was none, or none that could be read"));
    type Change = fn(&mut Settings);
    let changes: [(Change, &str); 5] = [
        (|it| it.issuer = "fleet:other".parse().unwrap(), "issuer: \"fleet:other\", was \"fleet:web\""),
        (|it| it.profile = "fleet:peer".parse().unwrap(), "profile: \"fleet:peer\", was \"fleet:server\""),
        (|it| it.key_type = KeyType::EcdsaP384, "type of key: \"ecdsa-p384\", was \"ecdsa-p256\""),
        (
            |it| it.subject.common_name = Some("web.fleet.example".to_owned()),
            "subject: \"CN=web.fleet.example\", was \"\"",
        ),
        (
            |it| it.names.push("dns:www.fleet.example".parse().unwrap()),
            "names: \"dns:web.fleet.example dns:www.fleet.example\", was \"dns:web.fleet.example\"",
        ),
    ];
    for (change, why) in changes {
        change(&mut wanted);
        let keeper = agent(&t, wanted.clone());
        assert_eq!(keeper.look(false).await.unwrap().why.as_deref(), Some(why));
        assert_eq!(keeper.look(false).await.unwrap().why, None, "{why}");
    }
    let certificate = Pair::current(&wanted.folder).unwrap().certificate;
    let subject = certificate.subject_der();
    assert!(subject.windows(17).any(|part| part == b"web.fleet.example") && certificate.sans().len() == 2);
    // Another order of names is the same, and what only counts next time changes nothing now. So it is with the pair of an older
    // agent, which did not write down what it wanted.
    wanted.names.reverse();
    wanted.lifetime = Some("20h".parse().unwrap());
    assert!(!agent(&t, wanted.clone()).look(false).await.unwrap().renewed);
    std::fs::remove_file(wanted.folder.join(CURRENT).join("wanted")).unwrap();
    assert!(!agent(&t, wanted.clone()).look(false).await.unwrap().renewed);
    // The last pair stays where what is wanted now is refused.
    wanted.profile = "fleet:nothing".parse().unwrap();
    wanted.names.pop();
    let before = key(&wanted.folder);
    agent(&t, wanted.clone()).look(false).await.unwrap_err();
    assert_eq!(key(&wanted.folder), before);
    assert!(!files(&wanted.folder).iter().any(|name| name.starts_with("new")), "{:?}", files(&wanted.folder));
}

#[tokio::test]
async fn the_program_looks_once_and_says_how_it_went() {
    let t = fleet().await;
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("tls");
    let run = async |token: &str, more: &[&str]| {
        ended(program(&t, &folder, token).args(["--kubernetes-secret", "web-tls", "--once"]).args(more)).await
    };
    let (code, said) = run("sgt_wrong", &[]).await;
    assert_eq!((code, files(&folder)), (3, vec!["lock".to_owned()]), "{said}");
    let (code, said) = run(t.token(), &["--command", "exit 3"]).await;
    assert_eq!(code, 7, "{said}");
    assert!(said.contains("the new certificate is in place, but the command failed"), "{said}");
    let (code, said) = run(t.token(), &["--command", "true"]).await;
    assert!(code == 0 && said.contains("the certificate stays"), "{said}");
    let before = key(&folder);
    let (code, said) = run(t.token(), &["--force"]).await;
    assert!(code == 0 && said.contains("a new certificate is in place"), "{said}");
    assert_ne!(key(&folder), before);
    let secret = std::fs::read_to_string(folder.join(CURRENT).join("secret.yaml")).unwrap();
    assert!(secret.contains("name: web-tls"), "{secret}");
    assert!(!said.contains("sgt_") && !said.contains("PRIVATE"));
}

#[tokio::test]
async fn openssl_speaks_mutual_tls_by_the_files_in_both_roles() {
    let t = fleet().await;
    let place = tempfile::tempdir().unwrap();
    let (web, app) = (place.path().join("web"), place.path().join("app"));
    agent(&t, settings(web.clone(), "fleet:server", "dns:web.fleet.example")).look(false).await.unwrap();
    agent(&t, settings(app.clone(), "fleet:client", "dns:app.fleet.example")).look(false).await.unwrap();
    let files = |folder: &Path| {
        let file = |name: &str| folder.join(CURRENT).join(name).to_str().unwrap().to_owned();
        let pairs = [("-cert", CERTIFICATE), ("-cert_chain", CERTIFICATE), ("-key", KEY), ("-CAfile", TRUST)];
        pairs.iter().flat_map(|(option, name)| [(*option).to_owned(), file(name)]).collect::<Vec<_>>()
    };
    let mut server = Command::new("openssl")
        .args(["s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-Verify", "3", "-verify_return_error"])
        .args(files(&web))
        // It ends the connection where its own input ends.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let address = loop {
        let line = lines.next_line().await.unwrap().expect("the server ended");
        if let Some(address) = line.strip_prefix("ACCEPT ") {
            break address.to_owned();
        }
    };
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-verify_return_error", "-verify_hostname", "web.fleet.example"])
        .args(files(&app))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    client.stdin.as_mut().unwrap().write_all(b"hello\nQ\n").await.unwrap();
    let output = client.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("Verification: OK"), "{said}");
    assert!(server.wait().await.unwrap().success());
}
