//! The clients of others: the python library, and certbot.

use super::*;

#[tokio::test]
async fn the_python_client_goes_all_ways() {
    let Some(python) = crate::judges::judge("python") else { return };
    let scene = Scene::set().await;
    scene.endpoint("bound", |_| {}).await;
    let body = CreateEabKey { identity: "hosts".parse().unwrap(), groups: vec![], ttl: None, uses: None };
    let made = scene.t.client.create_eab_key(&"bound".parse().unwrap(), &body).await.unwrap();
    let port = free_port();
    scene.web.forward(port);
    for name in ["py.test", "www.py.test"] {
        scene.dns.host(name);
    }
    let mut flows = tokio::process::Command::new(python);
    flows
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judges/acme_flows.py"))
        .args([
            scene.directory("bound"),
            port.to_string(),
            made.info.id,
            made.key.unwrap().0.clone(),
            "py.test".to_owned(),
        ])
        .env("REQUESTS_CA_BUNDLE", scene.t.server().own_authority().unwrap());
    let output = flows.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.ends_with("deactivated\n"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// certbot with folders of its own, and what every call of it is given.
pub(crate) struct Certbot {
    program: std::path::PathBuf,
    folder: tempfile::TempDir,
    common: Vec<String>,
    authority: std::path::PathBuf,
}

impl Certbot {
    pub(crate) fn new(scene: &Scene, program: std::path::PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut common = vec!["-n".to_owned(), "--server".to_owned(), scene.directory("web")];
        for (option, name) in [("--config-dir", "config"), ("--work-dir", "work"), ("--logs-dir", "logs")] {
            common.extend([option.to_owned(), path(name)]);
        }
        let authority = scene.t.server().own_authority().unwrap().to_owned();
        Self { program, folder, common, authority }
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> String {
        let mut certbot = tokio::process::Command::new(&self.program);
        certbot.args(arguments).args(&self.common).env("REQUESTS_CA_BUNDLE", &self.authority);
        let output = certbot.output().await.unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let log = || std::fs::read_to_string(self.folder.path().join("logs/letsencrypt.log")).unwrap_or_default();
        assert!(output.status.success(), "certbot {arguments:?}\n{said}\n{}", log());
        said
    }

    pub(crate) fn live(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("config/live/{name}/fullchain.pem"))).unwrap()
    }
}

#[tokio::test]
async fn certbot_gets_renews_and_revokes() {
    let Some(program) = crate::judges::judge("certbot") else { return };
    let scene = Scene::set().await;
    let (texts, port) = (tempfile::tempdir().unwrap(), free_port());
    scene.web.forward(port);
    scene.dns.read_from(texts.path());
    let certbot = Certbot::new(&scene, program);
    // 1. http-01, by its own web server.
    scene.dns.host("bot.test");
    let port = port.to_string();
    let get =
        ["certonly", "--standalone", "--http-01-port", &port, "--agree-tos", "-m", "a@bot.test", "-d", "bot.test"];
    certbot.run(&get).await;
    let first = certbot.live("bot.test");
    assert_eq!(ders(&first).len(), 2);
    // 2. Renewed by its own rules: not yet, and then by force.
    certbot.run(&["renew", "--http-01-port", &port, "--no-random-sleep-on-renew"]).await;
    assert_eq!(certbot.live("bot.test"), first);
    certbot.run(&["renew", "--http-01-port", &port, "--no-random-sleep-on-renew", "--force-renewal"]).await;
    assert_ne!(certbot.live("bot.test"), first);
    // 3. dns-01 for a wildcard, by hooks.
    let hook =
        format!("echo \"$CERTBOT_VALIDATION\" >> {}/_acme-challenge.\"$CERTBOT_DOMAIN\"", texts.path().display());
    let wild = ["certonly", "--manual", "--preferred-challenges", "dns", "--manual-auth-hook", &hook];
    let names = ["-d", "*.bot.test", "-d", "bot.test", "--cert-name", "wild", "--required-profile", "wild"];
    certbot.run(&[wild.as_slice(), &names].concat()).await;
    let wild = ders(&certbot.live("wild")).remove(0);
    let (_, parsed) = x509_parser::parse_x509_certificate(&wild).unwrap();
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 2);
    // 4. Revoked.
    certbot.run(&["revoke", "--cert-name", "wild", "--reason", "superseded", "--no-delete-after-revoke"]).await;
    let query = signet::client::CertificateQuery { name: Some("dns:*.bot.test".to_owned()), ..Default::default() };
    let found = scene.t.client.certificates(&query, &Default::default()).await.unwrap().items;
    assert_eq!(found.len(), 1);
    assert!(found[0].revoked.is_some(), "{found:?}");
    // 5. Its account ends.
    certbot.run(&["unregister"]).await;
}
