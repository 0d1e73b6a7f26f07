//! nginx, PostgreSQL, Kubernetes and SPIFFE take the files of the agent as they are.

use std::net::Ipv4Addr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use jiff::SignedDuration;
use rustix::process::{Pid, Signal, getuid, kill_process};
use signet::agent::{CURRENT, Pair, TRUST, Tell};
use signet::wire::RevokeCertificate;

use crate::agent::{agent, fleet, settings};
use crate::judges::judge;
use crate::process::eventually;
use crate::server::TestServer;
use crate::skip::skipped;
use crate::swtpm::free_pair;

/// A program that serves until it is told to end.
struct Serving(Child);

impl Serving {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Serving {
    /// In order: what it started itself ends with it.
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::INT);
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
