//! Whoever changes the database, the log, an anchor, the root or a backup behind the service's back is noticed, and what was done is
//! named: every kind of change that we could think of, each on a real installation, with the devices it belongs to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use signet::audit::{Receipts, verify, verify_archived};
use signet::client::{CertificateQuery, PageRequest};
use signet::error::{Error, Kind};
use signet::server::restore;
use signet::types::PublicKey;
use signet::wire::{CertificateMatch, CreateToken, Identity, Policy, RotateKey};

use crate::backup::download;
use crate::issuers;
use crate::process::log_keys;
use crate::proof::proven;
use crate::prune;
use crate::rollback::{instance, put_back, remove_anchor};
use crate::server::{Devices, TestServer, name};
use crate::softhsm::{LABEL, MODULE, SoftHsm, copy_all, tool};

mod kinds;

/// Who notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// The service, when it starts.
    Start,
    /// `signet audit verify`; the running service reads its log again every ten minutes, with the same result.
    Auditor,
    /// Whoever asks the running service for what was changed: what is public is not read as a whole at a start.
    Reader,
    /// `signet restore`, or the start after it.
    Restore,
    /// The service whose log was pruned, when it starts.
    PrunedStart,
    /// `signet audit verify` of that log, with its archive.
    PrunedAuditor,
}

/// A change: of what, which, who notices it, what it is called in the error, and how it is done.
struct Mutation {
    family: &'static str,
    what: &'static str,
    by: By,
    named: &'static str,
    make: Box<dyn Fn(&mut Scene)>,
}

/// An installation with a past, and a stranger's.
struct Scene {
    t: TestServer,
    other: TestServer,
    /// One whose log was pruned twice, and its archive.
    pruned: TestServer,
    archived: PathBuf,
    folder: tempfile::TempDir,
    log_keys: Vec<PublicKey>,
}

impl Scene {
    /// Three states of one installation, each with its backup: `old`, `mid` and `new`, the present one.
    async fn make() -> Self {
        let mut t = TestServer::with(Devices::WithTpm).await;
        let folder = tempfile::tempdir().unwrap();
        for key in ["one", "two", "three"] {
            t.key(key, "aes256-gcm-derived").await;
        }
        issuers::root(&t, "root").await;
        let body =
            |identity: &str| CreateToken { identity: identity.parse().unwrap(), groups: vec![], ttl: None, uses: None };
        let token = t.client.create_token(&body("leaver")).await.unwrap().info.id;
        put(&t, "before").await;
        issuers::server(&t, "root", "dns:a.example").await;
        issuers::server(&t, "root", "dns:b.example").await;
        t.server().service().keyring().record_trials().await;
        keep(&mut t, folder.path(), "old").await;
        t.client.rotate_key(&name("one"), &RotateKey::default()).await.unwrap();
        issuers::server(&t, "root", "dns:c.example").await;
        keep(&mut t, folder.path(), "mid").await;
        t.client.rotate_key(&name("one"), &RotateKey::default()).await.unwrap();
        t.client.revoke_token(&token).await.unwrap();
        put(&t, "after").await;
        issuers::server(&t, "root", "dns:d.example").await;
        keep(&mut t, folder.path(), "new").await;
        t.stop().await;
        // What the start after the backup changed belongs to the present state.
        copy(&t, folder.path(), "new");
        let log_keys = log_keys(t.data());

        fs::copy(t.hsm.pin_file(), folder.path().join("pin")).unwrap();
        let mut other = TestServer::with(Devices::WithTpm).await;
        other.key("one", "aes256-gcm-derived").await;
        fs::write(folder.path().join("other.tar"), download(&other.client).await).unwrap();
        other.stop().await;
        let (pruned, archived) = Self::pruned(folder.path()).await;
        Self { t, other, pruned, archived, folder, log_keys }
    }

    /// A service whose log was pruned twice: the log `unpruned`, `once` and as it is, its token, and its archive.
    async fn pruned(folder: &Path) -> (TestServer, PathBuf) {
        let (mut t, home, archive) = prune::server().await;
        for state in ["unpruned", "once"] {
            prune::grow(&t, &archive).await;
            t.stop().await;
            copy_all(&t.data().join("audit"), &folder.join(state));
            t.start_again().await.unwrap();
            assert!(t.client.audit_prune(&prune::all()).await.unwrap().done);
        }
        prune::grow(&t, &archive).await;
        t.stop().await;
        let kept = folder.join("pruned");
        copy_all(t.data(), &kept.join("data"));
        copy_all(&t.hsm.tokens(), &kept.join("token"));
        copy_all(&archive, &kept.join("archive"));
        drop(home);
        (t, folder.join("pruned.archive"))
    }

    /// A file of the log that was pruned.
    fn of_pruned(&self, file: &str) -> PathBuf {
        self.pruned.data().join("audit").join(file)
    }

    /// Changes the words of the first line of what says where it begins.
    fn beginning(&self, change: impl FnOnce(&mut Vec<String>)) {
        edit(&self.of_pruned("pruned"), |lines| {
            let mut words: Vec<_> = lines[0].split(' ').map(str::to_owned).collect();
            change(&mut words);
            lines[0] = words.join(" ");
        });
    }

    /// The first piece of its archive.
    fn piece(&self) -> PathBuf {
        self.archived.join("log-00000000000000000000.jsonl.gz")
    }

    fn data(&self) -> &Path {
        self.t.data()
    }

    fn kept(&self, state: &str) -> PathBuf {
        self.folder.path().join(state)
    }

    /// Where backups are restored to.
    fn elsewhere(&self) -> PathBuf {
        self.kept("elsewhere")
    }

    /// The archive that is restored, after it was changed.
    fn archive(&self) -> PathBuf {
        self.kept("archive.tar")
    }

    /// Puts these parts of a state in the place of the present ones.
    fn put_back(&self, state: &str, parts: &[&str]) {
        put_back(&self.kept(state), self.data(), parts);
    }

    /// Puts the whole present state back, with its devices.
    fn repair(&mut self) {
        let data = self.data().to_owned();
        fs::remove_dir_all(&data).unwrap();
        copy_all(&self.kept("new"), &data);
        self.token("new");
        let (kept, used) = (self.kept("tpm"), self.kept("tpm.used"));
        let tpm = self.t.tpm.as_mut().unwrap();
        tpm.kill();
        let _ = fs::remove_dir_all(&used);
        copy_all(&kept, &used);
        tpm.exchange(&used);
        let kept = self.kept("pruned");
        let places = [
            ("data", self.pruned.data().to_owned()),
            ("token", self.pruned.hsm.tokens()),
            ("archive", self.archived.clone()),
        ];
        for (name, place) in places {
            let _ = fs::remove_dir_all(&place);
            copy_all(&kept.join(name), &place);
        }
        let _ = fs::remove_dir_all(self.elsewhere());
        fs::copy(self.kept("new.tar"), self.archive()).unwrap();
    }

    /// Puts the token of a state in.
    fn token(&self, state: &str) {
        let tokens = self.t.hsm.tokens();
        fs::remove_dir_all(&tokens).unwrap();
        copy_all(&self.kept(&format!("{state}.token")), &tokens);
        fs::copy(self.kept("pin"), self.t.hsm.pin_file()).unwrap();
    }

    fn sql(&self, statements: &str) {
        let database = rusqlite::Connection::open(self.data().join("signet.db")).unwrap();
        database.execute_batch(statements).unwrap();
    }

    /// Changes the sealed bytes of a key.
    fn value(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let database = rusqlite::Connection::open(self.data().join("signet.db")).unwrap();
        let path = "keys/default/one";
        let select = "SELECT value FROM records WHERE path = ?1";
        let mut value: Vec<u8> = database.query_row(select, [path], |row| row.get(0)).unwrap();
        change(&mut value);
        database.execute("UPDATE records SET value = ?2 WHERE path = ?1", (path, value)).unwrap();
    }

    /// Rows of the older database in the place of the present ones.
    fn replay(&self, condition: &str) {
        let old = self.kept("old").join("signet.db");
        self.sql(&format!(
            "ATTACH {:?} AS old; DELETE FROM records WHERE {condition};
             INSERT INTO records SELECT * FROM old.records WHERE {condition};",
            old.display()
        ));
    }

    /// Statements over the table of certificates, whose triggers whoever has the file takes away and puts back.
    fn certificates(&self, statements: &str) {
        let database = rusqlite::Connection::open(self.data().join("signet.db")).unwrap();
        let mut triggers = Vec::new();
        let mut rows = database.prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").unwrap();
        for row in rows.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).unwrap() {
            triggers.push(row.unwrap());
        }
        for (trigger, _) in &triggers {
            database.execute_batch(&format!("DROP TRIGGER {trigger}")).unwrap();
        }
        database.execute_batch(statements).unwrap();
        for (_, sql) in triggers {
            database.execute_batch(&sql).unwrap();
        }
    }

    /// Changes the lines of the first segment of the log.
    fn lines(&self, change: impl FnOnce(&mut Vec<String>)) {
        let file = self.segments().remove(0);
        edit(&file, change);
    }

    fn segments(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.data().join("audit")).unwrap().map(|entry| entry.unwrap().path());
        let mut segments: Vec<_> = files.filter(|file| file.extension().is_some_and(|end| end == "jsonl")).collect();
        segments.sort();
        segments
    }

    /// Writes bytes into the anchor in the token, as whoever has the PIN can.
    fn write_anchor(&self, bytes: &[u8]) {
        remove_anchor(&self.t.hsm, self.data());
        let (pin, file) = (fs::read_to_string(self.t.hsm.pin_file()).unwrap(), self.kept("anchor"));
        fs::write(&file, bytes).unwrap();
        let label = format!("signet anchor {}", instance(self.data()));
        let mut tool = Command::new("pkcs11-tool");
        tool.env("SOFTHSM2_CONF", self.t.hsm.conf());
        tool.args(["--module", MODULE, "--token-label", LABEL, "--login", "--pin", pin.trim(), "--private"]);
        tool.args(["--write-object", file.to_str().unwrap(), "--type", "data"]);
        tool.args(["--application-label", &label, "--label", &label]);
        assert!(tool.output().unwrap().status.success());
    }

    /// The anchor's index in the TPM, and how tools reach it.
    fn index(&self) -> (String, String) {
        let handle = u32::from_str_radix(&instance(self.data())[..8], 16).unwrap() % 0x40_0000 + 0x180_0000;
        (format!("{handle:#x}"), self.t.tpm.as_ref().unwrap().settings(true).tcti)
    }

    /// What is said of the change; nothing where nobody notices.
    async fn noticed(&mut self, by: By) -> Option<Error> {
        match by {
            By::Start => self.t.start_again().await.err(),
            By::Auditor => {
                let report = verify(&self.data().join("audit"), &self.log_keys).unwrap();
                report.problems.first().map(|problem| Error::new(Kind::Tampered, problem.to_string()))
            }
            By::PrunedStart => {
                let error = self.pruned.start_again().await.err();
                if error.is_none() {
                    self.pruned.stop_somehow().await;
                }
                error
            }
            By::PrunedAuditor => {
                let report =
                    verify_archived(&self.of_pruned(""), None, Receipts::default(), Some(&self.archived)).unwrap();
                report.problems.first().map(|problem| Error::new(Kind::Tampered, problem.to_string()))
            }
            By::Reader => {
                self.t.start_again().await.unwrap();
                let all = self.t.client.certificates(&CertificateQuery::default(), &PageRequest::default()).await;
                self.t.stop().await;
                all.err()
            }
            By::Restore => {
                let (archive, elsewhere) = (self.archive(), self.elsewhere());
                if let Err(error) = restore(&archive, &elsewhere) {
                    return Some(error);
                }
                let data = std::mem::replace(&mut self.t.config.data, elsewhere);
                let started = self.t.start_again().await;
                self.t.config.data = data;
                started.err()
            }
        }
    }
}

/// Policy and identity as they were at a time.
async fn put(t: &TestServer, time: &str) {
    let text = format!(r#"permit (principal in Signet::Group::"{time}", action, resource);"#);
    let everybody = "everybody".parse().unwrap();
    let etag = t.client.policy(&everybody).await.ok().and_then(|policy| policy.etag);
    t.client.put_policy(&everybody, etag.as_deref(), &Policy { name: None, text, etag: None }).await.unwrap();
    let certificates = vec![CertificateMatch::Dns(format!("{time}.example"))];
    let identity = Identity { name: None, groups: vec![], certificates };
    t.client.put_identity(&"host".parse().unwrap(), &identity).await.unwrap();
}

/// Keeps a state: the folder, the token and a backup.
async fn keep(t: &mut TestServer, folder: &Path, state: &str) {
    fs::write(folder.join(format!("{state}.tar")), download(&t.client).await).unwrap();
    t.stop().await;
    copy(t, folder, state);
    t.start_again().await.unwrap();
}

fn copy(t: &TestServer, folder: &Path, state: &str) {
    for (from, to) in
        [(t.data().to_owned(), folder.join(state)), (t.hsm.tokens(), folder.join(format!("{state}.token")))]
    {
        let _ = fs::remove_dir_all(&to);
        copy_all(&from, &to);
    }
    let tpm = folder.join("tpm");
    let _ = fs::remove_dir_all(&tpm);
    fs::create_dir(&tpm).unwrap();
    t.tpm.as_ref().unwrap().save(&tpm);
}

fn root(data: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(data.join("root.json")).unwrap()).unwrap()
}

fn edit(file: &Path, change: impl FnOnce(&mut Vec<String>)) {
    let mut lines: Vec<String> = fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect();
    change(&mut lines);
    fs::write(file, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

/// Changes the bytes of a file.
fn bytes(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).unwrap();
    change(&mut bytes);
    fs::write(file, bytes).unwrap();
}

/// Puts one token in the place of another, with its PIN.
fn exchange(one: &SoftHsm, other: &SoftHsm) {
    fs::remove_dir_all(other.tokens()).unwrap();
    copy_all(&one.tokens(), &other.tokens());
    fs::copy(one.pin_file(), other.pin_file()).unwrap();
}

/// The same archive with one file made another, left out (`None`) or added.
fn repack(archive: &Path, file: &str, content: Option<&[u8]>) {
    let whole = fs::read(archive).unwrap();
    let mut made = tar::Builder::new(Vec::new());
    let mut append = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_cksum();
        made.append_data(&mut header, name, content).unwrap();
    };
    let mut there = false;
    for entry in tar::Archive::new(whole.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut own = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut own).unwrap();
        if name == file {
            there = true;
            if let Some(content) = content {
                append(&name, content);
            }
        } else {
            append(&name, &own);
        }
    }
    if let (false, Some(content)) = (there, content) {
        append(file, content);
    }
    fs::write(archive, made.into_inner().unwrap()).unwrap();
}

/// A file of an archive.
fn unpacked(archive: &Path, file: &str) -> Vec<u8> {
    let whole = fs::read(archive).unwrap();
    for entry in tar::Archive::new(whole.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().display().to_string() == file {
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            return content;
        }
    }
    panic!("no {file} in {}", archive.display());
}

#[tokio::test]
async fn every_kind_of_change_behind_its_back_is_noticed_and_named() {
    let mut scene = Scene::make().await;
    let mut wrong = Vec::new();
    let all = kinds::all();
    for mutation in &all {
        scene.repair();
        (mutation.make)(&mut scene);
        let who = format!("{}: {}", mutation.family, mutation.what);
        match scene.noticed(mutation.by).await {
            None => {
                wrong.push(format!("{who}: nobody noticed"));
                if mutation.by == By::Start || mutation.by == By::Reader || mutation.by == By::Restore {
                    scene.t.stop_somehow().await;
                }
            }
            Some(error) if !error.public().contains(mutation.named) => {
                wrong.push(format!("{who}: {:?} {error}", error.kind()));
            }
            Some(_) => {}
        }
    }
    // As it was, it starts, and an auditor finds nothing: nothing above was noticed for another reason.
    scene.repair();
    assert!(scene.noticed(By::Auditor).await.is_none());
    assert!(scene.noticed(By::PrunedAuditor).await.is_none());
    assert!(scene.noticed(By::PrunedStart).await.is_none());
    scene.t.start_again().await.unwrap();
    assert_eq!(scene.t.client.status().await.unwrap().problems, [""; 0]);
    scene.t.stop().await;
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n"));
    proven("kinds of changes behind its back", all.len(), "all noticed and named, 0 false alarms");
}
