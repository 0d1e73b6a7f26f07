//! Issuers and certificates from the command line, with openssl at both ends.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use jiff::SignedDuration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::server::{PROGRAM, TestServer};

/// A folder where commands are typed.
struct Shell {
    t: TestServer,
    folder: tempfile::TempDir,
}

impl Shell {
    async fn start() -> Self {
        Self { t: TestServer::start().await, folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, line: &str) -> Command {
        let mut words = line.split_whitespace();
        let program = words.next().unwrap();
        let mut command = Command::new(if program == "signet" { PROGRAM } else { program });
        command.args(words).current_dir(self.folder.path()).kill_on_drop(true);
        command.env("HOME", self.folder.path()).env("SIGNET_SERVER", format!("https://{}", self.t.server().address()));
        command.env("SIGNET_CA", self.t.server().own_authority().unwrap()).env("SIGNET_TOKEN", self.t.token());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Exit code, standard output, standard error.
    async fn told(&self, line: &str) -> (i32, String, String) {
        let output = self.command(line).output().await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// What a command writes that has to succeed.
    async fn run(&self, line: &str) -> String {
        let (code, stdout, stderr) = self.told(line).await;
        assert_eq!(code, 0, "{line}: {stdout}{stderr}");
        stdout
    }

    /// What a command complains of that has to fail.
    async fn refused(&self, line: &str, expected: i32) -> String {
        let (code, stdout, stderr) = self.told(line).await;
        assert_eq!(code, expected, "{line}: {stdout}{stderr}");
        stderr
    }

    async fn json(&self, line: &str) -> serde_json::Value {
        serde_json::from_str(&self.run(&format!("{line} --json")).await).unwrap()
    }

    /// A root, an issuer below it, and the file of what to trust.
    async fn authorities(&self) {
        self.run("signet issuer create root --subject CN=Root,O=Example --algorithm ecdsa-p384-sha384 --path-length 1")
            .await;
        self.run("signet issuer create fleet --subject CN=Fleet --parent root --algorithm ecdsa-p256-sha256 --permit dns:fleet.example")
            .await;
        self.run("signet issuer bundle root --out root.pem").await;
    }

    /// An openssl that serves one connection to a client with a certificate, and its port.
    async fn serves(&self) -> (Child, String) {
        let line = "openssl s_server -accept 127.0.0.1:0 -naccept 1 -www -cert web.pem -cert_chain web.pem -key web.key \
                    -CAfile root.pem -Verify 3 -verify_return_error";
        let mut server = self.command(line).spawn().unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some((_, port)) = line.strip_prefix("ACCEPT ").and_then(|address| address.rsplit_once(':')) {
                // Nobody reads what else it says; it is little.
                return (server, port.to_owned());
            }
        }
        panic!("openssl does not serve");
    }

    /// What openssl gets from there with these options.
    async fn asks(&self, options: &str) -> String {
        let (_server, port) = self.serves().await;
        let line = format!(
            "openssl s_client -quiet -connect 127.0.0.1:{port} -CAfile root.pem -verify_return_error \
             -verify_hostname web.fleet.example {options}"
        );
        let mut client = self.command(&line).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = client.stdin.take().unwrap();
        // A server that has refused already does not read it.
        let _ = stdin.write_all(b"GET / HTTP/1.0\r\n\r\n").await;
        let output = client.wait_with_output().await.unwrap();
        drop(stdin);
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }
}

#[tokio::test]
async fn a_server_and_a_client_know_each_other_until_one_is_revoked() {
    let shell = Shell::start().await;
    shell.authorities().await;
    // 1. Two certificates with keys that are made here.
    shell.run("signet cert issue fleet server --new-key web.key --name dns:web.fleet.example --out web.pem").await;
    let robot = "signet cert issue fleet client --new-key robot.key --name dns:robot.fleet.example --out robot.pem";
    let (code, stdout, stderr) = shell.told(robot).await;
    assert!(code == 0 && stdout.is_empty() && stderr.starts_with("certificate "), "{stdout}{stderr}");
    assert_eq!(shell.file("robot.key").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    shell.run("openssl verify -x509_strict -CAfile root.pem -untrusted web.pem -purpose sslserver web.pem").await;
    shell.run("openssl verify -x509_strict -CAfile root.pem -untrusted robot.pem -purpose sslclient robot.pem").await;
    // 2. What is there is not replaced, and what is refused leaves nothing behind.
    let stderr = shell.refused(robot, 2).await;
    assert!(stderr.contains("hint: choose another name, or --force"), "{stderr}");
    let other = "signet cert issue fleet server --new-key other.key --name dns:web.elsewhere.example --out other.pem";
    let stderr = shell.refused(other, 2).await;
    assert!(stderr.starts_with("error: the issuer may not certify") && stderr.lines().count() == 2, "{stderr}");
    assert!(!shell.file("other.key").exists() && !shell.file("other.pem").exists());
    // 3. Both ends of a connection.
    let page = shell.asks("-cert robot.pem -cert_chain robot.pem -key robot.key").await;
    assert!(page.contains("Verify return code: 0 (ok)") && page.contains("robot.fleet.example"), "{page}");
    let refused = shell.asks("").await;
    assert!(!refused.contains("Verify return code") && refused.contains("certificate required"), "{refused}");
    // 4. Found by its name, renewed for another key.
    let found = shell.json("signet cert list --name dns:robot.fleet.example").await;
    let serial = found["items"][0]["serial"].as_str().unwrap().to_owned();
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    let new = shell.json(&format!("signet cert renew {serial} --new-key new.key")).await;
    assert_eq!((&new["names"], &new["profile"]), (&found["items"][0]["names"], &found["items"][0]["profile"]));
    assert_ne!(new["serial"], found["items"][0]["serial"]);
    let soon = shell.run("signet cert list --expires-within 2d --from client").await;
    assert_eq!(soon.lines().count(), 3, "{soon}");
    assert_eq!(
        shell.run(&format!("signet cert show {serial} --pem")).await,
        std::fs::read_to_string(shell.file("robot.pem")).unwrap()
    );
    // 5. Revoked, once that is confirmed; OpenSSL reads it in the next list.
    let revoke = format!("signet cert revoke {serial} --reason key-compromise");
    assert!(shell.refused(&revoke, 2).await.contains("hint: add --yes"));
    assert!(shell.run(&format!("{revoke} --yes")).await.contains("reason       key-compromise"));
    let listed = shell.run("signet cert list --name dns:robot.fleet.example").await;
    assert!(listed.lines().any(|line| line.contains(&serial) && line.ends_with("revoked")), "{listed}");
    shell.t.clock.advance(SignedDuration::from_secs(11));
    shell.t.server().service().revocation_status().tick().await;
    let authority = shell.t.server().own_authority().unwrap().display().to_string();
    let address = shell.t.server().address();
    shell
        .run(&format!(
            "curl -sSf --noproxy * --cacert {authority} -o fleet.der https://{address}/pki/default/fleet/1.crl"
        ))
        .await;
    shell.run("openssl crl -inform DER -in fleet.der -out fleet.crl").await;
    shell.run("signet issuer show fleet --pem --out fleet.pem").await;
    let verify = "openssl verify -CAfile root.pem -untrusted fleet.pem -CRLfile fleet.crl -crl_check";
    shell.run(&format!("{verify} web.pem")).await;
    let said = shell.refused(&format!("{verify} robot.pem"), 2).await;
    assert!(said.contains("certificate revoked"), "{said}");
}

#[tokio::test]
async fn an_issuer_below_an_outside_authority_issues_and_moves_to_its_next_version() {
    let shell = Shell::start().await;
    // 1. The outside authority is openssl's.
    let subject =
        "-subj /CN=Outside -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign";
    let curve = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    shell.run(&format!("openssl req -x509 {curve} -keyout outside.key -out outside.pem {subject}")).await;
    shell.run("signet issuer create office --subject CN=Office --outside --algorithm ecdsa-p256-sha256").await;
    shell.run("signet issuer request office --out office.csr").await;
    std::fs::write(
        shell.file("office.ext"),
        "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n\
         authorityKeyIdentifier=keyid\n",
    )
    .unwrap();
    shell
        .run("openssl x509 -req -in office.csr -CA outside.pem -CAkey outside.key -days 30 -extfile office.ext -out office.pem")
        .await;
    let stderr = shell.refused("signet issuer import office office.pem", 2).await;
    assert!(stderr.contains("hint: put the certificate of the authority that signed"), "{stderr}");
    // The service's clock stands still, and openssl's certificates begin by another one.
    shell.t.clock.advance(SignedDuration::from_secs(30));
    let chain = ["office.pem", "outside.pem"].map(|name| std::fs::read_to_string(shell.file(name)).unwrap());
    std::fs::write(shell.file("office-chain.pem"), chain.concat()).unwrap();
    let office = shell.json("signet issuer import office office-chain.pem").await;
    assert_eq!((&office["active"], &office["versions"][0]["state"]), (&1.into(), &"active".into()));
    // 2. A profile from one to start with; a CSR of openssl's.
    std::fs::write(shell.file("desk.json"), r#"{"names": ["dns:*.office.example"], "lifetime": "2h"}"#).unwrap();
    shell.run("signet profile set desk desk.json --from server").await;
    let desk: serde_json::Value = serde_json::from_str(&shell.run("signet profile show desk").await).unwrap();
    assert_eq!((&desk["kind"], &desk["lifetime"], &desk["longest"]), (&"server".into(), &"2h".into(), &"90d".into()));
    shell.run(&format!("openssl req -new {curve} -keyout a.key -out a.csr -subj /CN=ignored")).await;
    let issue = "signet cert issue office desk --csr a.csr --name";
    std::fs::write(shell.file("a.pem"), shell.run(&format!("{issue} dns:a.office.example")).await).unwrap();
    shell.run("openssl verify -x509_strict -CAfile outside.pem -untrusted a.pem a.pem").await;
    let stderr = shell.refused(&format!("{issue} dns:a.example"), 2).await;
    assert!(stderr.contains("hint: it allows: dns:*.office.example"), "{stderr}");
    shell.run("signet profile delete desk --yes").await;
    shell.refused(&format!("{issue} dns:a.office.example"), 4).await;
    // 3. A root of ours moves on, and the old one vouches for the new.
    shell.authorities().await;
    let root = shell.json("signet issuer rotate root --expected-version 1 --activate").await;
    assert_eq!((&root["active"], root["versions"].as_array().unwrap().len()), (&2.into(), 2));
    shell.refused("signet issuer rotate root --expected-version 1", 5).await;
    assert!(shell.run("signet issuer bundle root").await.matches("BEGIN CERTIFICATE").count() > 1);
    shell.run("signet issuer update fleet --disable").await;
    shell.refused("signet cert issue fleet server --csr a.csr --name dns:a.fleet.example", 5).await;
    shell.run("signet issuer update fleet --enable").await;
    shell.run("signet cert issue fleet server --csr a.csr --name dns:a.fleet.example").await;
    assert_eq!(shell.run("signet issuer revoke fleet --yes").await, "revoked 1\n");
    let issuers = shell.run("signet issuer list").await;
    assert!(issuers.lines().count() == 4 && issuers.contains("(outside)"), "{issuers}");
}

#[tokio::test]
async fn what_the_api_can_do_with_certificates_the_command_line_can_do() {
    let shell = Shell::start().await;
    // 1. An issuer says where its lists are and under which policies it stands; and takes that back.
    shell.run("signet issuer create root --subject CN=Root --algorithm ecdsa-p256-sha256 --path-length 1").await;
    let fleet = shell
        .json(
            "signet issuer create fleet --subject CN=Fleet --parent root --algorithm ecdsa-p256-sha256 \
             --policy 1.3.6.1.4.1.99999.1 --crl-url http://pki.fleet.example/fleet-{version}.crl --ocsp-url http://ocsp.fleet.example/",
        )
        .await;
    assert_eq!(fleet["rules"]["distribution"]["crl"][0], "http://pki.fleet.example/fleet-{version}.crl");
    shell.run("signet issuer bundle root --out root.pem").await;
    shell.run("signet cert issue fleet server --new-key web.key --name dns:web.fleet.example --out web.pem").await;
    let text = shell.run("openssl x509 -in web.pem -noout -text").await;
    assert!(text.contains("URI:http://pki.fleet.example/fleet-1.crl"), "{text}");
    assert!(text.contains("OCSP - URI:http://ocsp.fleet.example/"), "{text}");
    let own = shell.run("signet issuer show fleet --pem").await;
    std::fs::write(shell.file("fleet.pem"), own).unwrap();
    assert!(shell.run("openssl x509 -in fleet.pem -noout -text").await.contains("Policy: 1.3.6.1.4.1.99999.1"));
    assert!(shell.refused("signet issuer update fleet --policy any", 2).await.contains("1.3.6.1.4.1.99999.1"));
    shell.refused("signet issuer update fleet --crl-url https://pki.fleet.example/1.crl", 2).await;
    assert!(shell.run("signet issuer update fleet --no-urls").await.contains("distribution  (none)"));
    let back = shell.json("signet issuer update fleet --service-urls").await;
    assert!(back["rules"].get("distribution").is_none(), "{back}");
    // 2. A key that the service makes: for profiles that say so, once, in its file alone.
    let soft = "signet cert issue fleet server --software-key box.key --name dns:box.fleet.example --out box.pem";
    assert!(shell.refused(soft, 2).await.contains("hint:"), "the profile does not allow it");
    assert!(!shell.file("box.key").exists());
    std::fs::write(shell.file("soft.json"), r#"{"software": true, "names": ["dns:*.fleet.example"]}"#).unwrap();
    shell.run("signet profile set soft soft.json --from server").await;
    let made = shell
        .json("signet cert issue fleet soft --software-key box.key --key-type ecdsa-p384 --name dns:box.fleet.example")
        .await;
    assert!(made.get("private_key").is_none(), "it stands in its file alone: {made}");
    assert_eq!(shell.file("box.key").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::write(shell.file("box.pem"), made["certificate"].as_str().unwrap()).unwrap();
    let of_key = shell.run("openssl pkey -in box.key -pubout").await;
    assert_eq!(of_key, shell.run("openssl x509 -in box.pem -noout -pubkey").await);
    // 3. Many at once: one that fails does not hold up the others.
    let curve = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=ignored";
    for name in ["a", "b", "c"] {
        shell.run(&format!("openssl req -new {curve} -keyout {name}.key -out {name}.csr")).await;
    }
    std::fs::create_dir(shell.file("made")).unwrap();
    let many = "signet cert issue-many fleet server a.csr=dns:a.fleet.example,ip:10.0.0.1 b.csr=dns:b.fleet.example --into made";
    let told = shell.run(many).await;
    assert_eq!(told.lines().count(), 3, "{told}");
    for name in ["a", "b"] {
        shell
            .run(&format!("openssl verify -x509_strict -CAfile root.pem -untrusted made/{name}.pem made/{name}.pem"))
            .await;
    }
    assert!(shell.refused(many, 2).await.contains("hint:"), "files are not replaced");
    let (code, stdout, stderr) =
        shell.told("signet cert issue-many fleet server c.csr=dns:c.fleet.example a.csr=email:a@b.example --into made --force --json").await;
    let list: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert!(code == 2 && stderr.contains("1 of 2 were not issued"), "{code} {stderr}");
    assert!(list[0]["certificate"]["serial"].is_string() && list[1]["error"].is_string(), "{list}");
    assert!(shell.file("made/c.pem").exists());
    shell.refused("signet cert issue-many fleet server a.csr a.csr --into made", 2).await;
    // 4. When it is due; and revoked by who has its key, who may do nothing else.
    let serial = shell.json("signet cert list --name dns:web.fleet.example").await["items"][0]["serial"].clone();
    let serial = serial.as_str().unwrap();
    assert_eq!(shell.json(&format!("signet cert due {serial}")).await["early"], false);
    let token = shell.json("signet token create nobody").await["token"].as_str().unwrap().to_owned();
    let stranger = async |line: &str| {
        let output = shell.command(line).env("SIGNET_TOKEN", &token).output().await.unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let revoke = format!("signet cert revoke {serial} --issuer fleet --reason key-compromise --yes");
    assert_eq!(stranger(&format!("signet cert due {serial}")).await.0, 4);
    assert_eq!(stranger(&revoke).await.0, 2, "--issuer is for proofs");
    assert_eq!(stranger(&format!("{revoke} --proof-key a.key")).await.0, 4, "another key proves nothing");
    let (code, stderr) = stranger(&format!("{revoke} --proof-key web.pem")).await;
    assert!(code == 2 && stderr.contains("holds no private key"), "{stderr}");
    assert_eq!(stranger(&format!("{revoke} --proof-key web.key")).await, (0, String::new()));
    assert!(shell.run(&format!("signet cert show {serial}")).await.contains("reason       key-compromise"));
    assert_eq!(shell.json(&format!("signet cert due {serial}")).await["early"], true);
    // 5. Why somebody may have a certificate for a name.
    let text = r#"permit (principal == Signet::Identity::"web", action == Signet::Action::"IssueCertificate", resource == Signet::Issuer::"default:fleet")
        when { context has profile && context.profile == "default:server" && context has name && context.name == "dns:web.fleet.example" };"#;
    std::fs::write(shell.file("web.cedar"), text).unwrap();
    shell.run("signet policy set web web.cedar").await;
    let asked = "signet policy explain web IssueCertificate --issuer fleet --from server --name";
    let allowed = shell.run(&format!("{asked} dns:web.fleet.example")).await;
    assert!(allowed.contains("decision       allowed") && allowed.contains("web#"), "{allowed}");
    assert!(shell.run(&format!("{asked} dns:db.fleet.example")).await.contains("refused"));
    assert_eq!(shell.json("signet policy explain web WriteProfile --from fleet:server").await["allowed"], false);
    shell.refused(&format!("{asked} web.fleet.example"), 2).await;
    shell.refused("signet policy explain web Sign release --issuer fleet", 2).await;
}

#[tokio::test]
async fn an_auditor_gets_a_proof_a_history_and_an_export_and_verifies_them_offline() {
    let shell = Shell::start().await;
    let write = |name: &str, text: &str| std::fs::write(shell.file(name), text).unwrap();
    // 1. What is trusted: the key, and the head of a day.
    write("log.pem", &shell.run("signet audit head --public-key").await);
    shell.run("signet audit proof 0").await;
    write("monday.txt", &shell.run("signet audit head").await);
    shell.run("signet key create release --algorithm ecdsa-p256-sha256").await;
    // 2. One record, in one small file.
    let proof = shell.run("signet audit proof 1").await;
    assert!(proof.starts_with("c2sp.org/tlog-proof@v1\n") && proof.len() < 4096, "{proof}");
    write("1.tlog-proof", &proof);
    let offline = "--public-key log.pem";
    let told = shell.run(&format!("signet audit verify 1.tlog-proof {offline}")).await;
    assert!(told.contains("RECORDED") && told.contains("\"action\":"), "{told}");
    let record = shell.json(&format!("signet audit verify 1.tlog-proof {offline}")).await;
    assert_eq!((&record["index"], &record["signatures_checked"]), (&1.into(), &true.into()));
    let line = proof.lines().nth(1).unwrap();
    write("forged.tlog-proof", &proof.replacen(line, "extra e30=", 1));
    let said = shell.refused(&format!("signet audit verify forged.tlog-proof {offline}"), 6).await;
    assert!(said.contains("the record is not the one"), "{said}");
    // 3. The log of today goes on where that of Monday ended.
    write("since.txt", &shell.run("signet audit consistency monday.txt").await);
    let told = shell.run(&format!("signet audit verify since.txt --since monday.txt {offline}")).await;
    assert!(told.contains("GROWN: from "), "{told}");
    assert!(shell.refused("signet audit verify since.txt", 2).await.contains("--since FILE"));
    // A head of a longer log than this one is: it was cut, or put back.
    let monday = std::fs::read_to_string(shell.file("monday.txt")).unwrap();
    let mut lines: Vec<_> = monday.lines().collect();
    lines[1] = "99999";
    write("longer.txt", &(lines.join("\n") + "\n"));
    assert!(shell.refused("signet audit consistency longer.txt", 6).await.contains("it was cut or put back"));
    // 4. The whole log as static files.
    let folder = shell.t.data().join("audit").display().to_string();
    let told = shell.run(&format!("signet audit export {folder} www {offline}")).await;
    assert!(told.contains("files written"), "{told}");
    let told = shell.run(&format!("signet audit verify www {offline}")).await;
    assert!(told.contains("WHOLE"), "{told}");
    let bundle = std::fs::read_dir(shell.file("www/tile/entries/000.p")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&bundle).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&bundle, bytes).unwrap();
    let (code, stdout, _) = shell.told(&format!("signet audit verify www {offline}")).await;
    assert!(code == 6 && stdout.contains("problem: tile/0/000.p/"), "{stdout}");
    shell.run(&format!("signet audit verify {folder} {offline}")).await;
}

#[tokio::test]
async fn each_client_is_a_witness_by_its_receipts() {
    let shell = Shell::start().await;
    let folder = shell.t.data().join("audit");
    std::fs::write(shell.file("log.pem"), shell.run("signet audit head --public-key").await).unwrap();
    // 1. Who is told to keeps the receipt of each answer; a stranger gets none.
    shell.run("signet key create release --algorithm ecdsa-p256-sha256 --keep-receipts receipts.txt").await;
    shell.run("signet audit proof 0").await;
    let older = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, older.path().join(path.file_name().unwrap())).unwrap();
    }
    shell.run("signet whoami --keep-receipts receipts.txt").await;
    let kept = std::fs::read_to_string(shell.file("receipts.txt")).unwrap();
    assert!(kept.lines().count() == 2 && kept.lines().all(|line| line.starts_with("log=\"signet/")), "{kept}");
    assert_eq!(shell.file("receipts.txt").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(kept.lines().last().unwrap().contains(", root=:"), "{kept}");
    let bare =
        shell.t.http().get(format!("https://{}/api/v1/whoami", shell.t.server().address())).send().await.unwrap();
    assert_eq!((bare.status().as_u16(), bare.headers().get("signet-log")), (401, None));
    // 2. The log honours them.
    let verify = |folder: &std::path::Path| {
        format!("signet audit verify {} --public-key log.pem --receipts receipts.txt", folder.display())
    };
    let report = shell.json(&verify(&folder)).await;
    assert_eq!((&report["receipts"], report["problems"].as_array().unwrap().len()), (&2.into(), 0));
    // 3. An older state of it, which is whole in itself, does not.
    let (code, stdout, _) = shell.told(&verify(older.path())).await;
    assert!(code == 6 && stdout.contains("problem: receipts.txt line 2: record "), "{stdout}");
    let (code, stdout, _) =
        shell.told(&format!("signet audit verify {} --public-key log.pem", older.path().display())).await;
    assert!(code == 0 && stdout.contains("WHOLE"), "{stdout}");
    // 4. A file where they cannot be kept is said before anything is done.
    let said = shell.refused("signet whoami --keep-receipts no/such/folder/r.txt", 2).await;
    assert!(said.contains("receipts cannot be kept in"), "{said}");
}

#[tokio::test]
async fn a_collector_of_syslog_understands_each_record() {
    let shell = Shell::start().await;
    shell.run("signet key create release --algorithm ecdsa-p256-sha256 --label name=größe").await;
    shell.refused("signet key show nothing", 4).await;
    let text = shell.run("signet audit tail --syslog --from 1").await;
    let Some(python) = crate::judges::judge("python") else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judges/syslog_judge.py");
    let mut judge = Command::new(python);
    let mut judge =
        judge.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    judge.stdin.take().unwrap().write_all(text.as_bytes()).await.unwrap();
    let said = judge.wait_with_output().await.unwrap();
    assert!(said.status.success(), "{}\n{text}", String::from_utf8_lossy(&said.stderr));
    let read = String::from_utf8(said.stdout).unwrap();
    let read: Vec<serde_json::Value> = read.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // The collector has what the log has, from the index on that was asked for.
    let listed = shell.json("signet audit show 1 --limit 1000").await;
    for (message, record) in read.iter().zip(listed["records"].as_array().unwrap()) {
        let mut own = message["record"].as_object().unwrap().clone();
        own.remove("index").unwrap();
        assert_eq!(serde_json::Value::from(own), *record);
    }
    assert_eq!(read[0]["record"]["index"], 1);
    let missed = read.iter().find(|message| message["record"]["action"] == "ReadKey").unwrap();
    assert_eq!(missed["severity"], "notice");
}

#[tokio::test]
async fn a_public_key_in_a_file_wraps_without_a_service() {
    let shell = Shell::start().await;
    shell.run("signet key create inbox --algorithm hpke-p256").await;
    shell.run("signet key create data --algorithm aes256-gcm-derived").await;
    std::fs::write(shell.file("inbox.json"), shell.run("signet key public-key inbox --json").await).unwrap();
    std::fs::write(shell.file("secret.txt"), "hunter2").unwrap();
    let nowhere = "signet --server https://127.0.0.1:1 wrap inbox secret.txt --context a=b --out secret.wrapped";
    shell.run(&format!("{nowhere} --public-key inbox.json")).await;
    let opened = shell.run("signet unwrap inbox secret.wrapped --context a=b").await;
    assert_eq!(opened, "hunter2");
    shell.refused("signet unwrap inbox secret.wrapped", 6).await;
    shell.refused("signet wrap data secret.txt --public-key inbox.json --out x", 2).await;
    shell.refused("signet wrap inbox secret.txt --public-key secret.txt --out x", 2).await;
}

#[tokio::test]
async fn a_file_of_ciphertexts_is_moved_and_goes_on_where_it_stopped() {
    let shell = Shell::start().await;
    shell.run("signet key create old --algorithm aes256-gcm-derived").await;
    shell.run("signet key create new --algorithm hpke-p256").await;
    std::fs::write(shell.file("secret.txt"), "hunter2").unwrap();
    let mut lines = Vec::new();
    for n in 0..1002 {
        // A thousand of them are alike: what counts is the number of calls.
        if n < 3 {
            let line = format!("signet --json wrap old secret.txt --context n={n}");
            let ciphertext = shell.json(&line).await["ciphertext"].clone();
            lines.push(
                serde_json::json!({"ciphertext": ciphertext, "context": {"n": n.to_string()}, "row": n}).to_string(),
            );
        } else {
            lines.push(lines[2].clone());
        }
    }
    let write = |lines: &[String]| std::fs::write(shell.file("old.jsonl"), lines.join("\n") + "\n").unwrap();
    let read = || std::fs::read_to_string(shell.file("new.jsonl")).unwrap();
    write(&lines);
    let job = "signet rewrap old --to new --in old.jsonl --out new.jsonl";
    // 1. All of it, in order, each with its own context.
    shell.run(job).await;
    let whole = read();
    assert_eq!(whole.lines().count(), 1002);
    for n in [0, 1, 2, 1001] {
        let moved: serde_json::Value = serde_json::from_str(whole.lines().nth(n).unwrap()).unwrap();
        std::fs::write(shell.file("one.b64"), moved["ciphertext"].as_str().unwrap()).unwrap();
        let opened = shell.run(&format!("signet unwrap new one.b64 --base64 --context n={}", n.min(2))).await;
        assert_eq!(opened, "hunter2");
    }
    // 2. Cut short in the middle of a line, it goes on with that line, and touches none before it.
    let cut = whole.lines().take(2).map(str::len).sum::<usize>() + 2;
    std::fs::write(shell.file("new.jsonl"), &whole[..cut + 40]).unwrap();
    shell.run(job).await;
    let again = read();
    assert_eq!(again.lines().count(), 1002);
    assert_eq!(again[..cut], whole[..cut]);
    assert_ne!(again.lines().nth(2), whole.lines().nth(2), "made anew");
    // 3. Done is done.
    shell.run(job).await;
    assert_eq!(read(), again);
    // 4. The results of another job are not added to.
    lines.swap(0, 1);
    write(&lines);
    shell.refused(job, 5).await;
    assert_eq!(read(), again);
    // 5. What does not open says so in its place, and the others move.
    let mut wrong: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    wrong["context"] = serde_json::json!({"n": "another"});
    write(&[lines[1].clone(), wrong.to_string(), lines[2].clone()]);
    shell.refused("signet rewrap old --to new --in old.jsonl --out other.jsonl", 6).await;
    let other = std::fs::read_to_string(shell.file("other.jsonl")).unwrap();
    let codes: Vec<_> = other
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["error"]["code"].as_str().map(str::to_owned)
        })
        .collect();
    assert_eq!(codes, [None, Some("does_not_open".to_owned()), None]);
    // 6. A line that is none, and a job without a place to go on from.
    std::fs::write(shell.file("old.jsonl"), "no JSON\n").unwrap();
    shell.refused("signet rewrap old --to new --in old.jsonl --out third.jsonl", 2).await;
    shell.refused("signet rewrap old --to new --in old.jsonl", 2).await;
}
