//! nginx, PostgreSQL, Kubernetes and SPIFFE take the files of the agent as they are.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use rustix::process::{Pid, Signal, getuid, kill_process};
use signet::agent::{Agent, CURRENT, Home, KeyType, Pair, Settings, TRUST, Tell};
use signet::error::Kind;
use signet::types::Clock;
use signet::wire::RevokeCertificate;

use crate::agent::{agent, fleet, settings};
use crate::judges::judge;
use crate::process::eventually;
use crate::server::TestServer;
use crate::skip::skipped;
use crate::swtpm::{Swtpm, free_pair, pause};

/// A program that serves until it is told to end.
struct Serving(Child);

/// How long a program may take to end in order.
const GRACE: Duration = Duration::from_secs(10);

impl Serving {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Serving {
    /// In order: what it started itself ends with it. Under a shell that has its children ignore SIGINT, it does so by force.
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::INT);
        let begin = Instant::now();
        while begin.elapsed() < GRACE && matches!(self.0.try_wait(), Ok(None)) {
            pause(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Finds a program, or says that the test is skipped for want of it.
pub(crate) fn program(name: &str, more: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .chain(more.iter().cloned())
        .map(|folder| folder.join(name))
        .find(|path| path.exists());
    if found.is_none() {
        skipped(&format!("no {name}; .ci/deps installs it"));
    }
    found
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn file(folder: &Path, name: &str) -> String {
    folder.join(CURRENT).join(name).display().to_string()
}

/// The lists of both authorities, in PEM, as nginx and PostgreSQL want them.
async fn lists(t: &TestServer) -> String {
    t.clock.advance(SignedDuration::from_secs(11));
    t.server().service().revocation_status().tick().await;
    let mut all = String::new();
    for issuer in ["web", "root"] {
        let url = format!("https://{}/pki/fleet/{issuer}/1.crl", t.server().address());
        let der = t.http().get(url).send().await.unwrap().error_for_status().unwrap().bytes().await.unwrap();
        all += &der::pem::encode_string("X509 CRL", der::pem::LineEnding::LF, &der).unwrap();
    }
    all
}

async fn revoke(t: &TestServer, folder: &Path) {
    let serial = Pair::current(folder).unwrap().certificate.serial().to_string();
    let body = RevokeCertificate { reason: Some("key-compromise".to_owned()), proof: None };
    t.client.revoke(&serial, &body).await.unwrap();
}

#[tokio::test]
async fn nginx_serves_and_asks_by_the_files_and_refuses_the_revoked() {
    let Some(nginx) = program("nginx", &[]) else { return };
    let t = fleet().await;
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let (web, app) = (at("web"), at("app"));
    agent(&t, settings(web.clone(), "fleet:server", "dns:web.fleet.example")).look(false).await.unwrap();
    let mut wanted = settings(app.clone(), "fleet:client", "dns:app.fleet.example");
    agent(&t, wanted.clone()).look(false).await.unwrap();
    std::fs::write(at("lists.pem"), lists(&t).await).unwrap();
    // One server that asks clients for certificates, and one before it that is such a client.
    let port = free_pair();
    let front = port + 1;
    let [web_crt, web_key, trust] = ["tls.crt", "tls.key", TRUST].map(|name| file(&web, name));
    let [app_crt, app_key] = ["tls.crt", "tls.key"].map(|name| file(&app, name));
    let lists_file = at("lists.pem").display().to_string();
    let configuration = format!(
        "daemon off; pid nginx.pid; error_log error.log info; events {{}}\n\
         http {{ access_log off;\n\
           server {{ listen 127.0.0.1:{port} ssl;\n\
             ssl_certificate {web_crt}; ssl_certificate_key {web_key};\n\
             ssl_client_certificate {trust}; ssl_crl {lists_file}; ssl_verify_client on; ssl_verify_depth 2;\n\
             location / {{ return 200 \"$ssl_client_verify $ssl_client_serial\\n\"; }} }}\n\
           server {{ listen 127.0.0.1:{front};\n\
             location / {{ proxy_pass https://127.0.0.1:{port};\n\
               proxy_ssl_certificate {app_crt}; proxy_ssl_certificate_key {app_key};\n\
               proxy_ssl_trusted_certificate {trust}; proxy_ssl_crl {lists_file}; proxy_ssl_verify on;\n\
               proxy_ssl_verify_depth 2; proxy_ssl_name web.fleet.example; proxy_ssl_session_reuse off; }} }} }}\n"
    );
    std::fs::write(at("nginx.conf"), configuration).unwrap();
    let mut command = Command::new(nginx);
    let _serving = Serving::start(command.arg("-p").arg(place.path()).args(["-c", "nginx.conf", "-e", "error.log"]));

    let curl = |arguments: &[&str]| {
        let output =
            Command::new("curl").args(["-sS", "-w", "%{http_code}", "--noproxy", "*"]).args(arguments).output();
        said(&output.unwrap())
    };
    let through = || curl(&[&format!("http://127.0.0.1:{front}/")]);
    let resolve = format!("web.fleet.example:{port}:127.0.0.1");
    let own = format!("https://web.fleet.example:{port}/");
    let serial = |folder: &Path| Pair::current(folder).unwrap().certificate.serial().to_string().to_uppercase();
    let welcome = |folder: &Path| format!("SUCCESS {}\n200", serial(folder));
    // 1. Both roles.
    eventually("nginx serves", async || through().ends_with("200").then_some(())).await;
    assert_eq!(through(), welcome(&app));
    let known = ["--cacert", &trust, "--resolve", &resolve, "--cert", &app_crt, "--key", &app_key, &own];
    assert_eq!(curl(&known), welcome(&app));
    assert!(curl(&["--cacert", &trust, "--resolve", &resolve, &own]).ends_with("400"), "a certificate is required");
    // 2. The client is revoked, and nginx reads the next list.
    revoke(&t, &app).await;
    std::fs::write(at("lists.pem"), lists(&t).await).unwrap();
    let pid: i32 = std::fs::read_to_string(at("nginx.pid")).unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::HUP).unwrap();
    // The workers of before answer until they are gone.
    let refused = |said: String| said.contains("SSL certificate error") && said.ends_with("400");
    for _ in 0..5 {
        eventually("the proxy is refused", async || refused(through()).then_some(())).await;
        eventually("the client is refused", async || refused(curl(&known)).then_some(())).await;
    }
    // 3. The agent renews it and tells nginx: it is let in again.
    wanted.tell = Tell { pid_file: Some(at("nginx.pid")), ..Tell::default() };
    agent(&t, wanted).look(true).await.unwrap();
    eventually("the new client is let in", async || (through() == welcome(&app)).then_some(())).await;
}

/// What has OpenSSL use the TPM for keys, and nothing else. The page about the agent shows it.
const WITH_TPM: &str = "openssl_conf = init\n[init]\nproviders = providers\nalg_section = algorithms\n\
    [providers]\ndefault = usual\ntpm2 = hardware\n[usual]\nactivate = 1\n[hardware]\nactivate = 1\n\
    [algorithms]\ndefault_properties = ?provider=tpm2,tpm2.digest!=yes,tpm2.cipher!=yes\n";

#[tokio::test]
async fn openssl_and_nginx_serve_by_a_key_in_the_tpm() {
    let Some(nginx) = program("nginx", &[]) else { return };
    let modules = Command::new("openssl").args(["version", "-m"]).output().unwrap();
    let modules = String::from_utf8(modules.stdout).unwrap();
    let Some(_) = program("tpm2.so", &[PathBuf::from(modules.split('"').nth(1).unwrap())]) else { return };
    let [Some(bus), Some(manager)] = ["dbus-daemon", "tpm2-abrmd"].map(|name| program(name, &[])) else { return };
    let t = fleet().await;
    let (tpm, place) = (Swtpm::start(), tempfile::tempdir().unwrap());
    let at = |name: &str| place.path().join(name);
    let tcti = format!("swtpm:host=127.0.0.1,port={}", tpm.port());
    let (web, app) = (at("web"), at("app"));
    for kind in [KeyType::EcdsaP384, KeyType::EcdsaP256] {
        let mut wanted = settings(web.clone(), "fleet:server", "dns:web.fleet.example");
        (wanted.key_in, wanted.key_type) = (format!("tpm:{tcti}").parse().unwrap(), kind);
        let keeper = agent(&t, wanted);
        keeper.look(true).await.unwrap();
        // A second look finds that the pair fits, without asking the TPM.
        assert!(Pair::current(&web).unwrap().in_tpm && !keeper.look(false).await.unwrap().renewed);
        let key = std::fs::read_to_string(file(&web, "tls.key")).unwrap();
        assert!(key.starts_with("-----BEGIN TSS2 PRIVATE KEY-----\n"), "{key}");
        // Other programs agree on what it is, and on whose certificate it has.
        std::fs::write(at("openssl.cnf"), WITH_TPM).unwrap();
        let openssl = |arguments: &[&str]| {
            let mut command = Command::new("openssl");
            command.args(arguments).env("OPENSSL_CONF", at("openssl.cnf")).env("TPM2OPENSSL_TCTI", &tcti);
            let output = command.stdin(Stdio::null()).output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {}", said(&output));
            String::from_utf8(output.stdout).unwrap()
        };
        let of_key = openssl(&["pkey", "-in", &file(&web, "tls.key"), "-pubout"]);
        assert_eq!(of_key, openssl(&["x509", "-in", &file(&web, "tls.crt"), "-noout", "-pubkey"]));
        assert!(openssl(&["asn1parse", "-in", &file(&web, "tls.key")]).contains("2.23.133.10.1.3"));
    }
    agent(&t, settings(app.clone(), "fleet:client", "dns:app.fleet.example")).look(false).await.unwrap();

    let [web_crt, web_key, trust] = ["tls.crt", "tls.key", TRUST].map(|name| file(&web, name));
    let [app_crt, app_key] = ["tls.crt", "tls.key"].map(|name| file(&app, name));
    let (port, other) = (free_pair(), free_pair());
    let asks = |port: u16, with_certificate: bool| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--noproxy", "*", "--cacert", &trust]);
        command.args(["--resolve", &format!("web.fleet.example:{port}:127.0.0.1")]);
        if with_certificate {
            command.args(["--cert", &app_crt, "--key", &app_key]);
        }
        said(&command.arg(format!("https://web.fleet.example:{port}/")).output().unwrap())
    };
    // A TPM has room for three things, and programs share it by a resource manager. That of the kernel knows no software TPM.
    let mut bus = Command::new(bus);
    let mut bus = bus.args(["--session", "--nofork", "--print-address"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut address = String::new();
    BufReader::new(bus.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let (_bus, address) = (Serving(bus), address.trim().to_owned());
    let mut manager = Command::new(manager);
    manager.args(["--session", &format!("--tcti={tcti}")]).env("DBUS_SESSION_BUS_ADDRESS", &address);
    if getuid().is_root() {
        manager.arg("--allow-root");
    }
    let _manager = Serving::start(&mut manager);
    let with_tpm = |command: &mut Command| {
        command.env("OPENSSL_CONF", at("openssl.cnf")).env("TPM2OPENSSL_TCTI", "tabrmd:bus_type=session");
        command.env("DBUS_SESSION_BUS_ADDRESS", &address);
    };
    eventually("the resource manager serves", async || {
        let mut command = Command::new("openssl");
        with_tpm(command.args(["pkey", "-noout", "-in", &web_key]));
        command.output().unwrap().status.success().then_some(())
    })
    .await;
    // 1. openssl.
    let accept = format!("127.0.0.1:{port}");
    let mut server = Command::new("openssl");
    server.args(["s_server", "-accept", &accept, "-www", "-Verify", "3", "-verify_return_error"]);
    server.args(["-cert", &web_crt, "-cert_chain", &web_crt, "-key", &web_key, "-CAfile", &trust]);
    with_tpm(&mut server);
    let serving = Serving::start(&mut server);
    eventually("openssl serves", async || asks(port, true).contains("Verify return code: 0 (ok)").then_some(())).await;
    assert!(!asks(port, false).contains("Verify return code"));
    drop(serving);
    // 2. nginx.
    let configuration = format!(
        "daemon off; master_process off; env TPM2OPENSSL_TCTI; env DBUS_SESSION_BUS_ADDRESS; pid nginx.pid; error_log error.log info; events {{}}\n\
         http {{ access_log off;\n\
           server {{ listen 127.0.0.1:{other} ssl; ssl_protocols TLSv1.3; ssl_verify_client on; ssl_verify_depth 2;\n\
             ssl_certificate {web_crt}; ssl_certificate_key {web_key}; ssl_client_certificate {trust};\n\
             location / {{ return 200 \"$ssl_client_verify\\n\"; }} }} }}\n"
    );
    let page = include_str!("../../docs/agent.md");
    assert!(WITH_TPM.lines().all(|line| page.contains(line)), "docs/agent.md shows other words");
    std::fs::write(at("nginx.conf"), configuration).unwrap();
    let mut command = Command::new(nginx);
    command.arg("-p").arg(place.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
    with_tpm(&mut command);
    let serving = Serving::start(&mut command);
    eventually("nginx serves", async || (asks(other, true) == "SUCCESS\n").then_some(())).await;
    assert!(asks(other, false).contains("400"));
    drop(serving);
    // 3. Another TPM has no use for the file.
    let stranger = Swtpm::start();
    let tcti = format!("swtpm:host=127.0.0.1,port={}", stranger.port());
    let mut command = Command::new("openssl");
    command.args(["dgst", "-sign", &web_key, "-out"]).arg(at("signature")).arg(at("openssl.cnf"));
    command.env("OPENSSL_CONF", at("openssl.cnf")).env("TPM2OPENSSL_TCTI", &tcti);
    assert!(!command.output().unwrap().status.success());
}

#[tokio::test]
async fn what_a_tpm_cannot_do_is_refused_with_the_mend() {
    let t = fleet().await;
    let (mut tpm, place) = (Swtpm::start(), tempfile::tempdir().unwrap());
    let folder = place.path().join("web");
    let mut wanted = settings(folder.clone(), "fleet:server", "dns:web.fleet.example");
    wanted.key_in = format!("tpm:swtpm:host=127.0.0.1,port={}", tpm.port()).parse().unwrap();
    let client = t.impatient_client();
    let refused = |wanted: Settings| {
        let client = client.clone();
        Agent::new(wanted, move |_| Ok(client.clone()), Clock::Manual(t.clock.clone())).err().unwrap()
    };
    let cases: [fn(&mut Settings); 4] = [
        |it| it.key_type = KeyType::Ed25519,
        |it| it.kubernetes_secret = Some("web".to_owned()),
        |it| it.renew_by_certificate = true,
        |it| it.key_in = "tpm:libevil.so".parse().unwrap(),
    ];
    for spoil in cases {
        let mut spoilt = wanted.clone();
        spoil(&mut spoilt);
        let error = refused(spoilt);
        assert!(matches!(error.kind(), Kind::Unsupported | Kind::Invalid) && error.mend().is_some(), "{error}");
    }
    // A TPM that is away, and one whose owner has a password: nothing is written, and the last pair stays.
    let keeper = agent(&t, wanted.clone());
    keeper.look(true).await.unwrap();
    let before = std::fs::read(file(&folder, "tls.key")).unwrap();
    let tool = |arguments: &[&str]| {
        let tcti = format!("swtpm:host=127.0.0.1,port={}", tpm.port());
        let output = Command::new(arguments[0]).args(&arguments[1..]).env("TPM2TOOLS_TCTI", tcti).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    };
    tool(&["tpm2_changeauth", "-c", "owner", "secret"]);
    let error = keeper.look(true).await.unwrap_err();
    assert!(error.public().contains("the owner hierarchy of this TPM has a password"), "{error}");
    tool(&["tpm2_changeauth", "-c", "owner", "-p", "secret"]);
    keeper.look(true).await.unwrap();
    let after = std::fs::read(file(&folder, "tls.key")).unwrap();
    assert_ne!(before, after);
    tpm.kill();
    let error = keeper.look(true).await.unwrap_err();
    assert_eq!((error.kind(), std::fs::read(file(&folder, "tls.key")).unwrap()), (Kind::Unavailable, after), "{error}");
    // In a file again: that is another pair.
    wanted.key_in = Home::File;
    assert!(agent(&t, wanted).look(false).await.unwrap().renewed && !Pair::current(&folder).unwrap().in_tpm);
}

/// The folders where Debian puts the programs of PostgreSQL.
fn postgres_folders() -> Vec<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions.map(|version| version.path().join("bin")).collect()
}

#[tokio::test]
async fn postgres_takes_the_files_and_knows_its_users_by_their_certificates() {
    let folders = postgres_folders();
    let programs = ["initdb", "postgres", "psql"].map(|name| program(name, &folders));
    let [Some(initdb), Some(postgres), Some(psql)] = programs else { return };
    let t = fleet().await;
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    // PostgreSQL does not run as root; then it has a user of its own, as the agent beside it would.
    let user = getuid().is_root().then_some("postgres");
    let its_own = |path: &Path| {
        if user.is_some() {
            let id = |flag| Command::new("id").args([flag, "postgres"]).output().unwrap();
            let number = |flag| String::from_utf8(id(flag).stdout).unwrap().trim().parse().ok();
            chown(path, number("-u"), number("-g")).unwrap();
        }
    };
    let as_user = |program: &Path| match user {
        None => Command::new(program),
        Some(user) => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", user, "--regid", user, "--clear-groups", "--"]).arg(program);
            command.current_dir(place.path());
            command
        }
    };
    its_own(place.path());
    let (db, app, data) = (at("db"), at("app"), at("data"));
    let mut wanted = settings(db.clone(), "fleet:server", "dns:db.fleet.example");
    let hand_over = if user.is_some() { "chown -R postgres: $SIGNET_FOLDER" } else { "true" };
    wanted.tell.command = Some(hand_over.to_owned());
    agent(&t, wanted.clone()).look(false).await.unwrap();
    let mut client = settings(app.clone(), "fleet:client", "dns:app.fleet.example");
    client.names.push("dns:app".parse().unwrap());
    client.subject.common_name = Some("app".to_owned());
    agent(&t, client.clone()).look(false).await.unwrap();
    std::fs::write(at("lists.pem"), lists(&t).await).unwrap();

    let made =
        as_user(&initdb).args(["--auth=reject", "--username=app", "--no-sync", "-D"]).arg(&data).output().unwrap();
    assert!(made.status.success(), "{}", said(&made));
    let port = free_pair();
    let [certificate, key, trust] = ["tls.crt", "tls.key", TRUST].map(|name| file(&db, name));
    let settings = format!(
        "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\nfsync = off\nssl = on\n\
         ssl_cert_file = '{certificate}'\nssl_key_file = '{key}'\nssl_ca_file = '{trust}'\nssl_crl_file = '{}'\n",
        at("lists.pem").display()
    );
    std::fs::write(data.join("postgresql.conf"), settings).unwrap();
    std::fs::write(data.join("pg_hba.conf"), "hostssl all all 127.0.0.1/32 cert\n").unwrap();
    let _serving = Serving::start(as_user(&postgres).arg("-D").arg(&data));

    let asks = |user: &str, with_certificate: bool| {
        let mut command = Command::new(&psql);
        command.env_clear().env("PGHOST", "db.fleet.example").env("PGHOSTADDR", Ipv4Addr::LOCALHOST.to_string());
        command.env("PGPORT", port.to_string()).env("PGUSER", user).env("PGDATABASE", "postgres");
        command.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", file(&app, TRUST)).env("HOME", place.path());
        if with_certificate {
            command.env("PGSSLCERT", file(&app, "tls.crt")).env("PGSSLKEY", file(&app, "tls.key"));
        }
        let question = "select current_user, client_serial from pg_stat_ssl where pid = pg_backend_pid()";
        said(&command.args(["-XAtw", "-c", question]).output().unwrap())
    };
    // 1. The name in the certificate is the user.
    let answer = eventually("PostgreSQL serves", async || {
        Some(asks("app", true)).filter(|said| !said.contains("Connection refused") && !said.contains("starting up"))
    });
    let answer = answer.await;
    assert!(answer.starts_with("app|"), "{answer}");
    let refused = asks("app", false);
    assert!(refused.contains("requires a valid client certificate"), "{refused}");
    let refused = asks("other", true);
    assert!(refused.contains("certificate authentication failed"), "{refused}");
    // 2. The server's certificate is renewed, and it is told so by the agent.
    let before = Pair::current(&db).unwrap().certificate.serial().to_string();
    let reload = format!("{hand_over} && kill -HUP $(head -1 {})", data.join("postmaster.pid").display());
    wanted.tell.command = Some(reload);
    agent(&t, wanted).look(true).await.unwrap();
    let serves = || {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-starttls", "postgres", "-connect", &format!("127.0.0.1:{port}")]);
        let shown = command.stdin(Stdio::null()).output().unwrap();
        let leaf = String::from_utf8_lossy(&shown.stdout).into_owned();
        let (_, from) = leaf.split_once("-----BEGIN CERTIFICATE-----")?;
        let (middle, _) = from.split_once("-----END CERTIFICATE-----")?;
        let pem = format!("-----BEGIN CERTIFICATE-----{middle}-----END CERTIFICATE-----\n");
        let (_, der) = der::pem::decode_vec(pem.as_bytes()).unwrap();
        Some(signet::x509::Certificate::parse(&der).unwrap().serial().to_string())
    };
    let after = Pair::current(&db).unwrap().certificate.serial().to_string();
    assert_ne!(before, after);
    eventually("PostgreSQL has the new certificate", async || serves().filter(|serial| *serial == after)).await;
    assert!(asks("app", true).starts_with("app|"));
    // 3. The user's certificate is revoked.
    revoke(&t, &app).await;
    std::fs::write(at("lists.pem"), lists(&t).await).unwrap();
    let pid = std::fs::read_to_string(data.join("postmaster.pid")).unwrap();
    let pid = pid.lines().next().unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::HUP).unwrap();
    let refused = eventually("the revoked user is refused", async || {
        Some(asks("app", true)).filter(|said| !said.starts_with("app|"))
    });
    let refused = refused.await;
    assert!(refused.contains("revoked"), "{refused}");
    agent(&t, client).look(true).await.unwrap();
    assert!(asks("app", true).starts_with("app|"));
}

#[tokio::test]
async fn the_secret_is_the_one_that_kubectl_makes_of_the_files() {
    let Some(kubectl) = program("kubectl", &[]) else { return };
    let t = fleet().await;
    let place = tempfile::tempdir().unwrap();
    let mut wanted = settings(place.path().join("web"), "fleet:server", "dns:web.fleet.example");
    wanted.kubernetes_secret = Some("web-tls".to_owned());
    agent(&t, wanted.clone()).look(false).await.unwrap();
    let [certificate, key, secret, trust] =
        ["tls.crt", "tls.key", "secret.yaml", TRUST].map(|name| file(&wanted.folder, name));
    let kubectl = |arguments: &[&str]| -> serde_json::Value {
        let mut command = Command::new(&kubectl);
        let output = command.args(arguments).args(["-o", "json"]).env("HOME", place.path()).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    // kubectl refuses files that are not a certificate, leaf first, and its key.
    let of_files = ["create", "secret", "tls", "web-tls", "--cert", &certificate, "--key", &key, "--dry-run=client"];
    let its = kubectl(&of_files);
    let ours = kubectl(&["annotate", "--local", "-f", &secret, "read=by-kubectl"]);
    assert_eq!((&its["kind"], &its["type"], &its["apiVersion"]), (&ours["kind"], &ours["type"], &ours["apiVersion"]));
    assert_eq!(its["metadata"]["name"], ours["metadata"]["name"]);
    assert_eq!(its["data"].as_object().unwrap().len(), 2);
    for (name, value) in its["data"].as_object().unwrap() {
        assert_eq!(ours["data"][name], *value, "{name}");
    }
    // A third entry is for those who check others.
    use base64::Engine as _;
    let anchors = base64::engine::general_purpose::STANDARD.decode(ours["data"]["ca.crt"].as_str().unwrap()).unwrap();
    assert_eq!((anchors, ours["data"].as_object().unwrap().len()), (std::fs::read(trust).unwrap(), 3));
}

#[tokio::test]
async fn a_spiffe_library_reads_svid_and_bundle() {
    let Some(python) = judge("python") else { return };
    let t = fleet().await;
    let place = tempfile::tempdir().unwrap();
    let bundle = place.path().join("bundle.json");
    let url = format!("https://{}/pki/fleet/web/bundle.json", t.server().address());
    let answer = t.http().get(url).send().await.unwrap().error_for_status().unwrap();
    std::fs::write(&bundle, answer.bytes().await.unwrap()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/judges/spiffe_judge.py");
    let judges = async |profile: &str, name: &str| {
        let folder = place.path().join(profile.replace(':', "-"));
        agent(&t, settings(folder.clone(), profile, name)).look(false).await.unwrap();
        let mut command = Command::new(&python);
        let output = command.arg(&script).arg(folder.join(CURRENT)).arg(&bundle).output().unwrap();
        (output.status.success(), said(&output))
    };
    let id = "spiffe://fleet.example/billing/api";
    assert_eq!(judges("fleet:spiffe", &format!("uri:{id}")).await, (true, format!("{id}\n")));
    // The judge judges: another certificate of ours is no SVID to it.
    let (fine, said) = judges("fleet:server", "dns:web.fleet.example").await;
    assert!(!fine && said.contains("spiffe.svid.errors.InvalidLeafCertificateError"), "{said}");
}
