//! The program without a server: help, usage, what it refuses, and what it says when nobody answers.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may stop")]

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A home of its own, so that no profile of the person who runs the tests takes part.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.cert.pem()).unwrap();
        std::fs::write(folder.path().join("token"), "sgt_example\n").unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_signet"));
        command.args(words.split_whitespace()).current_dir(self.path()).env_clear().env("HOME", self.path());
        command
    }

    fn run(&self, words: &str) -> Output {
        self.command(words).stdin(Stdio::null()).output().unwrap()
    }

    fn run_with(&self, words: &str, input: &[u8]) -> Output {
        let mut command = self.command(words);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A program that refuses before it reads closes the pipe.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    /// Options for a port where nobody listens.
    fn nobody(&self) -> String {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        format!("--server https://localhost:{port} --ca ca.pem --token-file token --retry-for 0s")
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Checks the exit code, the two lines on standard error, and that standard output is empty.
fn refused(output: &Output, code: i32, error: &str, hint: &str) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("error: ") && lines[1].starts_with("hint: "), "{text}");
    assert!(lines[0].contains(error) && lines[1].contains(hint), "{text}");
    assert_eq!(stdout(output), "");
}

#[test]
fn help_teaches_and_ends_with_the_exit_codes() {
    let home = Home::new();
    let help = home.run("--help");
    assert_eq!(help.status.code(), Some(0));
    assert!(stdout(&help).contains("Exit codes:") && stdout(&help).contains("7  busy or unavailable"));
    let verb = home.run("key create -h");
    assert!(stdout(&verb).contains("Examples:") && stdout(&verb).contains("aes256-gcm-derived"));
    assert_eq!(home.run("--version").status.code(), Some(0));
}

#[test]
fn wrong_usage_exits_with_2() {
    let home = Home::new();
    for words in [
        "",
        "key",
        "nonsense",
        "key create Bad:Name --algorithm ed25519",
        "key create a --algorithm rot13",
        "key suspend a 0",
        "key update a --never-rotate --rotate-every 1d",
        "wrap a --context novalue",
        "identity set a",
        "datakey a",
        "datakey a --length 8 --wrapped-out x",
        "whoami --token sgt_secret",
    ] {
        let output = home.run(words);
        assert_eq!(output.status.code(), Some(2), "{words}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{words}");
    }
}

#[test]
fn a_bad_value_says_what_a_good_one_is() {
    let home = Home::new();
    let output = home.run("key create a --algorithm ed25519 --rotate-every soon");
    assert!(stderr(&output).contains("such as 30s, 15m"), "{}", stderr(&output));
}

#[test]
fn each_missing_piece_is_named() {
    let home = Home::new();
    refused(&home.run("whoami"), 2, "no server is known", "--server");
    refused(&home.run("whoami --server localhost"), 2, "no authority", "--ca");
    refused(&home.run("whoami --server localhost --ca ca.pem"), 3, "no credential", "signet login");
    refused(&home.run("whoami --server localhost --ca ca.pem --cert ca.pem"), 2, "both its parts", "--key");
    refused(&home.run("whoami --server http://localhost --ca ca.pem --token-file token"), 2, "https://", "for example");
    refused(&home.run("whoami --server localhost --ca token --token-file token"), 2, "not PEM", "BEGIN");
}

#[test]
fn nobody_answers_exits_with_7() {
    let home = Home::new();
    let nobody = home.nobody();
    refused(&home.run(&format!("key list {nobody}")), 7, "no connection to the server", "check --server");
    refused(&home.run_with(&format!("wrap a {nobody}"), b"plaintext"), 7, "no connection", "check --server");
    std::fs::write(home.path().join("f"), "x").unwrap();
    refused(&home.run(&format!("file encrypt a f {nobody}")), 7, "no connection", "check --server");
    refused(&home.run(&format!("backup --out b.tar {nobody}")), 7, "no connection", "check --server");
    let left: Vec<_> = home.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "nothing half-done is left: {left:?}");
}

#[test]
fn something_that_is_not_signet_is_told_apart() {
    let home = Home::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let talk = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.write_all(b"220 mail.example ESMTP\r\n");
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let words = format!("whoami --server https://127.0.0.1:{port} --ca ca.pem --token-file token --retry-for 0s");
    refused(&home.run(&words), 8, "no TLS 1.3 connection", "--server");
    talk.join().unwrap();
}

#[test]
fn the_profile_replaces_the_options() {
    let home = Home::new();
    let folder = home.path().join(".config/signet");
    std::fs::create_dir_all(&folder).unwrap();
    let profile = "server = 'https://localhost:1'\nca = '../../ca.pem'\ntoken_file = '../../token'\n";
    std::fs::write(folder.join("client.toml"), profile).unwrap();
    refused(&home.run("whoami --retry-for 0s"), 7, "https://localhost:1/", "check --server");
    // Another server gets nothing of the profile, not even its authority.
    refused(&home.run("whoami --server https://localhost:2"), 2, "no authority", "--ca");
    std::fs::write(folder.join("client.toml"), "tokn = 'sgt_secret'\n").unwrap();
    let output = home.run("whoami");
    assert_eq!(output.status.code(), Some(2));
    assert!(!stderr(&output).contains("sgt_secret"), "{}", stderr(&output));
}

#[test]
fn a_failed_login_keeps_nothing() {
    let home = Home::new();
    let words = home.nobody().replace("--token-file token", "");
    refused(&home.run_with(&format!("login {words}"), b"sgt_secret\n"), 7, "no connection", "check --server");
    refused(&home.run_with(&format!("login {words}"), b"\n"), 2, "not a token", "sgt_");
    assert!(!home.path().join(".config").exists());
}

#[test]
fn what_cannot_be_undone_must_be_confirmed() {
    let home = Home::new();
    let nobody = home.nobody();
    for words in ["key compromise a 1", "key destroy a 1", "key delete a", "policy delete a", "identity delete a"] {
        refused(&home.run(&format!("{words} {nobody}")), 2, "not confirmed", "--yes");
        refused(&home.run(&format!("{words} --yes {nobody}")), 7, "no connection", "check --server");
    }
}

#[test]
fn limits_and_bad_input_are_found_before_anything_is_sent() {
    let home = Home::new();
    let nobody = home.nobody();
    let long = home.run_with(&format!("wrap a {nobody}"), &vec![0; (64 << 10) + 1]);
    assert_eq!(long.status.code(), Some(8), "{}", stderr(&long));
    assert_eq!(home.run(&format!("unwrap a absent {nobody}")).status.code(), Some(2));
    assert_eq!(home.run_with(&format!("unwrap a --base64 {nobody}"), b"%%%").status.code(), Some(2));
    assert_eq!(home.run_with(&format!("wrap a --context x=1 --context x=2 {nobody}"), b"").status.code(), Some(2));
    refused(&home.run(&format!("token revoke sgt_secret {nobody}")), 2, "secret of a token", "revoke it by its id");
}

#[test]
fn completions_name_the_verbs() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = home.run(&format!("completions {shell}"));
        assert!(output.status.success() && stdout(&output).contains("datakey"), "{shell}");
    }
}
