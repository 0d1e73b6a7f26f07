//! The program against a server that answers by a script: what it sends, writes and exits with.

#![expect(clippy::unwrap_used, reason = "a test may stop")]

#[path = "support/scripted.rs"]
mod scripted;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use http::Method;
use scripted::{Answer, Scripted};
use signet::types::{Hash, sha256};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

struct Shell {
    server: Scripted,
    home: tempfile::TempDir,
}

impl Shell {
    async fn start(answers: &[Answer]) -> Self {
        let server = Scripted::start(answers).await;
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("ca.pem"), &server.authority).unwrap();
        Self { server, home }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    async fn run(&self, words: &str, input: &[u8]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_signet"));
        command.args(words.split_whitespace()).current_dir(self.home.path()).env_clear().env("HOME", self.home.path());
        command.env("SIGNET_SERVER", format!("https://localhost:{}", self.server.port)).env("SIGNET_CA", "ca.pem");
        if !words.starts_with("login") {
            command.env("SIGNET_TOKEN", "sgt_example");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let _ = stdin.write_all(input).await;
        drop(stdin);
        child.wait_with_output().await.unwrap()
    }
}

/// Exit code, standard output, standard error.
fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

const RAW_KEY: &str = r#"{"name":"default:release","id":"00112233445566778899aabbccddeeff","purpose":"sign",
    "algorithm":"ecdsa-p384-sha384","domain":"raw","device":"a","protection":"hsm","primary":1,"latest":1,"rotation":{},
    "retention":{},"labels":{"note":"\u001b[2J"},"deletion_protection":true,"created":"2026-01-02T03:04:05Z","etag":"e1"}"#;
const SIGNED: &str = r#"{"signature":"AAEC","version":1,"algorithm":"ecdsa-p384-sha384","kid":"k"}"#;
const ME: &str = r#"{"principal":"identity/ci","groups":["builders"],"credential":"token/1"}"#;
const TOKEN: &str = r#"{"token":"sgt_new","id":"1f","identity":"ci","groups":[],"created":"2026-01-02T03:04:05Z",
    "expires":"2026-01-03T03:04:05Z"}"#;
const ABSENT: &str = r#"{"type":"t","status":404,"code":"not_found","title":"no such policy"}"#;

#[tokio::test]
async fn a_key_of_the_domain_raw_signs_the_digest_of_a_large_file() {
    let shell = Shell::start(&[(200, &[], RAW_KEY), (200, &[], SIGNED)]).await;
    let content = vec![7; 300_000];
    let output = shell.run("sign release --out app.sig", &content).await;
    assert_eq!(told(&output), (0, String::new(), String::new()));
    assert_eq!(std::fs::read(shell.file("app.sig")).unwrap(), [0, 1, 2]);
    let sent: serde_json::Value = serde_json::from_slice(&shell.server.seen().last().unwrap().body).unwrap();
    let digest = signet::wire::Base64(Hash::Sha384.digest(&content));
    let expected = serde_json::json!({"digest": {"hash": "sha384", "value": digest}, "format": "der"});
    assert_eq!(sent, expected);
}

#[tokio::test]
async fn without_a_receipt_there_is_a_signature_and_no_bundle() {
    let shell = Shell::start(&[(200, &[], RAW_KEY), (200, &[], SIGNED)]).await;
    let (code, _, said) = told(&shell.run("sign release --out app.sig --bundle app.bundle", b"app").await);
    assert!(code != 0 && said.contains("gave no receipt") && said.contains("hint: "), "{code} {said}");
    assert!(!shell.file("app.bundle").exists());
}

#[tokio::test]
async fn a_wrong_signature_prints_invalid_and_exits_with_6() {
    for (answer, word) in [
        (r#"{"valid":true,"version":1,"state":"deactivated"}"#, "VALID"),
        (r#"{"valid":false,"version":1,"state":"active"}"#, "INVALID"),
        (r#"{"valid":true,"version":1,"state":"compromised"}"#, "COMPROMISED"),
    ] {
        let shell = Shell::start(&[(200, &[], answer), (200, &[], answer)]).await;
        std::fs::write(shell.file("app.sig"), [0, 1, 2]).unwrap();
        let expected = if word == "VALID" { 0 } else { 6 };
        let (code, stdout, _) = told(&shell.run("verify release --hash sha384 --signature app.sig", b"app").await);
        assert!(code == expected && stdout.starts_with(&format!("{word} version 1")), "{code} {stdout}");
        let json = shell.run("verify release --hash sha384 --signature app.sig --json", b"app").await;
        assert_eq!((json.status.code(), told(&json).1), (Some(expected), format!("{answer}\n")));
    }
}

#[tokio::test]
async fn a_plaintext_passes_through_a_pipe_unchanged() {
    let shell = Shell::start(&[(200, &[], r#"{"plaintext":"AP8K","version":1}"#)]).await;
    let output = shell.run("unwrap card-data --base64 --context tenant=acme", b"AA\nEC\n").await;
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &[0, 255, 10][..]));
    let seen = shell.server.seen();
    assert_eq!(seen.first().unwrap().body, r#"{"ciphertext":"AAEC","context":{"tenant":"acme"}}"#);
}

#[tokio::test]
async fn what_a_label_holds_does_not_reach_the_terminal() {
    let shell = Shell::start(&[(200, &[], RAW_KEY)]).await;
    let (code, stdout, _) = told(&shell.run("key show release", b"").await);
    assert!(code == 0 && stdout.contains("note=?[2J") && !stdout.contains('\u{1b}'), "{stdout}");
}

#[tokio::test]
async fn login_keeps_a_token_that_works() {
    let shell = Shell::start(&[(200, &[], ME), (200, &[], ME)]).await;
    let (code, stdout, stderr) = told(&shell.run("login", b"sgt_fresh\n").await);
    assert!(code == 0 && stdout.contains("identity/ci") && stderr.contains("client.toml"), "{stdout}{stderr}");
    let token = shell.file(".config/signet/token");
    assert_eq!(std::fs::read(&token).unwrap(), b"sgt_fresh");
    assert_eq!(token.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // From now on nothing needs to be named.
    let mut command = Command::new(env!("CARGO_BIN_EXE_signet"));
    let output = command.arg("whoami").current_dir("/").env_clear().env("HOME", shell.home.path()).output().await;
    assert_eq!(output.unwrap().status.code(), Some(0));
    let tokens: Vec<_> =
        shell.server.seen().iter().map(|seen| seen.header("authorization").unwrap().to_owned()).collect();
    assert_eq!(tokens, ["Bearer sgt_fresh", "Bearer sgt_fresh"]);
}

#[tokio::test]
async fn the_secret_of_a_token_is_written_once_and_alone() {
    let lost =
        r#"{"id":"1f","identity":"ci","groups":[],"created":"2026-01-02T03:04:05Z","expires":"2026-01-03T03:04:05Z"}"#;
    let shell = Shell::start(&[(201, &[], TOKEN), (201, &[], lost)]).await;
    let (code, stdout, stderr) = told(&shell.run("token create ci --ttl 24h", b"").await);
    assert_eq!((code, stdout.as_str()), (0, "sgt_new\n"));
    assert!(stderr.contains("token 1f, until 2026-01-03") && !stderr.contains("sgt_new"), "{stderr}");
    let (code, stdout, stderr) = told(&shell.run("token create ci", b"").await);
    assert!(code == 7 && stdout.is_empty() && stderr.contains("signet token revoke 1f"), "{stderr}");
}

#[tokio::test]
async fn a_policy_is_written_over_what_was_read() {
    let stored = r#"{"name":"builders","text":"permit(principal, action, resource);","etag":"e7"}"#;
    let shell = Shell::start(&[(200, &[], stored), (200, &[], stored), (404, &[], ABSENT), (200, &[], stored)]).await;
    for _ in 0..2 {
        let (code, _, stderr) =
            told(&shell.run("policy set builders -", b"forbid(principal, action, resource);").await);
        assert_eq!((code, stderr.as_str()), (0, ""));
    }
    let seen = shell.server.seen();
    let puts: Vec<_> = seen.iter().filter(|seen| seen.method == Method::PUT).collect();
    let matched: Vec<_> = puts.iter().map(|put| put.header("if-match")).collect();
    assert_eq!(matched, [Some("\"e7\""), None]);
    assert!(puts.iter().all(|put| put.target == "/api/v1/policies/builders"));
}

#[tokio::test]
async fn lists_follow_their_pages() {
    let first = r#"{"items":[{"name":"a","groups":[],"certificates":[{"dns":"a.example"}]}],"next_page_token":"x"}"#;
    let last = r#"{"items":[{"name":"b","groups":["g"],"certificates":[]}]}"#;
    let shell = Shell::start(&[(200, &[], first), (200, &[], last)]).await;
    let (_, stdout, _) = told(&shell.run("identity list", b"").await);
    assert_eq!(stdout, "NAME  GROUPS  CERTIFICATES\na     -       dns a.example\nb     g       -\n");
    assert_eq!(shell.server.seen().last().unwrap().target, "/api/v1/identities?page_token=x");
}

#[tokio::test]
async fn the_tail_of_the_log_ends_at_its_newest_record() {
    let size = r#"{"first":0,"records":[{"action":"Start"}],"next":1,"size":3}"#;
    let tail = r#"{"first":1,"records":[{"action":"Sign"},{"action":"Wrap"}],"next":3,"size":3}"#;
    let shell = Shell::start(&[(200, &[], size), (200, &[], tail)]).await;
    let (code, stdout, _) = told(&shell.run("audit tail -n 2 --json", b"").await);
    assert_eq!((code, stdout.as_str()), (0, "{\"action\":\"Sign\"}\n{\"action\":\"Wrap\"}\n"));
    assert_eq!(shell.server.seen().last().unwrap().target, "/api/v1/audit/records?first=1&limit=1000");
}

#[tokio::test]
async fn records_are_shown_in_full_where_an_answer_ends_early() {
    let first = r#"{"first":4,"records":[{"action":"Sign"}],"next":5,"size":9}"#;
    let rest = r#"{"first":5,"records":[{"action":"Wrap"},{"action":"Mac"}],"next":7,"size":9}"#;
    let shell = Shell::start(&[(200, &[], first), (200, &[], rest)]).await;
    let (code, stdout, stderr) = told(&shell.run("audit show 4 --limit 3 --json", b"").await);
    let whole =
        r#"{"first":4,"records":[{"action":"Sign"},{"action":"Wrap"},{"action":"Mac"}],"next":7,"size":9}"#.to_owned();
    assert_eq!((code, stdout), (0, whole + "\n"), "{stderr}");
    assert_eq!(shell.server.seen().last().unwrap().target, "/api/v1/audit/records?first=5&limit=2");
}

#[tokio::test]
async fn a_backup_that_is_not_whole_is_thrown_away() {
    let shell = Shell::start(&[(200, &[], "not a tar archive")]).await;
    let (code, _, stderr) = told(&shell.run("backup --out b.tar", b"").await);
    assert!(code == 1 && stderr.contains("not whole"), "{stderr}");
    assert!(!shell.file("b.tar").exists());
}

#[tokio::test]
async fn data_keys_go_to_two_places() {
    let key = r#"{"plaintext":"AAAA","ciphertext":"AQEB","version":1}"#;
    let shell = Shell::start(&[(200, &[], key)]).await;
    let output = shell.run("datakey card-data --wrapped-out key.wrapped --out key", b"").await;
    assert_eq!(told(&output).0, 0, "{output:?}");
    assert_eq!(sha256(&[&std::fs::read(shell.file("key")).unwrap()]), sha256(&[&[0, 0, 0]]));
    assert_eq!(std::fs::read(shell.file("key.wrapped")).unwrap(), [1, 1, 1]);
    assert_eq!(shell.file("key").metadata().unwrap().permissions().mode() & 0o777, 0o600);
}
