//! The audit log on a bad day, through the front: its folder vanishes, hangs, is full or is changed while the service runs. Nothing
//! is acknowledged that is not durable, nothing waits for ever, and what can go on goes on without a restart.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use signet::audit::verify;
use signet::client::Client;
use signet::error::{Error, Kind, Result};
use signet::wire::{Base64, Sign};

use crate::process::eventually;
use crate::server::{TestServer, name};
use crate::skip::skipped;

/// The longest wait for an answer while the log is in trouble: its own deadline, and as much again for a machine that is busy.
pub(crate) const BOUND: Duration = Duration::from_secs(10);

/// Signs a text of its own; answers whether that was acknowledged.
pub(crate) async fn sign(client: &Client, text: &str) -> Result<()> {
    let body = Sign { message: Some(Base64(text.as_bytes().to_vec())), ..Sign::default() };
    client.sign(&name("release"), &body).await.map(drop)
}

/// As [`sign`], refused within the bound.
pub(crate) async fn refused(client: &Client, text: &str) -> Error {
    let began = Instant::now();
    let error = sign(client, text).await.unwrap_err();
    assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
    error
}

/// How many signatures are on record as done.
async fn signatures(client: &Client) -> usize {
    let (mut next, mut count) = (0, 0);
    loop {
        let page = client.audit_records(next, Some(1000)).await.unwrap();
        count += page
            .records
            .iter()
            .filter(|one| one["action"] == "Sign" && one["phase"] == "done" && one["outcome"] == "ok")
            .count();
        if page.next >= page.size {
            return count;
        }
        next = page.next;
    }
}

/// What the log says of its own mending.
async fn mended(client: &Client) -> Vec<String> {
    let records = client.audit_records(0, Some(1000)).await.unwrap().records;
    let of_log = records.iter().filter(|one| one["principal"] == "system/log" && one["phase"] == "recovered");
    of_log.map(|one| one["reason"].as_str().unwrap().to_owned()).collect()
}

/// The value of a metric.
async fn metric(client: &Client, name: &str) -> i64 {
    let text = client.metrics().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("signet_")?.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

fn segment(folder: &Path) -> std::path::PathBuf {
    folder.join("log-00000000000000000000.jsonl")
}

#[tokio::test]
async fn a_log_folder_that_vanishes_is_refused_at_once_and_goes_on_where_it_is_put_back() {
    let t = TestServer::start().await;
    t.key("release", "ecdsa-p256-sha256").await;
    let client = t.impatient_client();
    sign(&client, "before").await.unwrap();
    let (folder, aside) = (t.data().join("audit"), t.data().join("aside"));
    // 1. The next operation finds it gone, though the file that is open could be written to.
    std::fs::rename(&folder, &aside).unwrap();
    let error = refused(&client, "gone").await;
    assert_eq!(error.kind(), Kind::Tampered, "{error}");
    assert!(error.public().contains("is gone") && error.mend().unwrap().contains("put back"), "{error:?}");
    client.ready().await.unwrap_err();
    let unready = t.server().service().ready().unwrap_err();
    assert!(unready.public().contains("audit log"), "{unready:?}");
    // 2. An empty folder is none, and nothing is made in it.
    std::fs::create_dir(&folder).unwrap();
    refused(&client, "empty").await;
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    std::fs::remove_dir(&folder).unwrap();
    // 3. Put back, it goes on by itself: what was acknowledged is there, and so is what had happened.
    std::fs::rename(&aside, &folder).unwrap();
    eventually("it goes on by itself", async || sign(&client, "after").await.ok()).await;
    let told = eventually("it is recorded", async || mended(&client).await.into_iter().next()).await;
    assert!(told.contains("is gone") && told.contains("holds all that was acknowledged"), "{told}");
    assert_eq!(signatures(&client).await, 2);
    eventually("it is ready", async || client.ready().await.ok()).await;
    eventually("it says so", async || (metric(&client, "audit_up").await == 1).then_some(())).await;
    assert_eq!(metric(&client, "audit_reopened_total").await, 1);
    assert!(verify(&folder, None).unwrap().is_good());
}

#[tokio::test]
async fn a_segment_that_is_unlinked_must_be_put_back_as_it_was() {
    let t = TestServer::start().await;
    t.key("release", "ecdsa-p256-sha256").await;
    let client = t.impatient_client();
    sign(&client, "before").await.unwrap();
    let path = segment(&t.data().join("audit"));
    eventually("a head above it", async || client.audit_head().await.ok().filter(|head| !head.note.is_empty())).await;
    // 1. A copy is put in its place that lacks what came after it was taken, or has another byte.
    let early = std::fs::read(&path).unwrap();
    sign(&client, "acknowledged").await.unwrap();
    let whole = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(refused(&client, "unlinked").await.kind(), Kind::Tampered);
    let mut edited = whole.clone();
    *edited.iter_mut().rfind(|byte| **byte == b'k').unwrap() = b'K';
    for wrong in [early, edited] {
        std::fs::write(&path, &wrong).unwrap();
        // As often as it is tried.
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(2500) {
            assert_eq!(refused(&client, "other").await.kind(), Kind::Tampered);
        }
        assert_eq!(std::fs::read(&path).unwrap(), wrong, "what is not the log is not touched");
    }
    // 2. The very bytes.
    std::fs::write(&path, &whole).unwrap();
    eventually("it goes on by itself", async || sign(&client, "after").await.ok()).await;
    assert_eq!(signatures(&client).await, 3);
    eventually("it is recorded", async || mended(&client).await.into_iter().next()).await;
    assert!(verify(&t.data().join("audit"), None).unwrap().is_good());
}

/// A disk that can be made to hang: an ext4 file system in a file, frozen by `fsfreeze`, so that each write waits.
pub(crate) struct Disk<'p> {
    folder: &'p Path,
    frozen: bool,
}

impl<'p> Disk<'p> {
    /// At a folder, with what stood there before.
    pub(crate) fn under(folder: &'p Path) -> Option<Self> {
        let (image, aside) = (folder.with_extension("image"), folder.with_extension("aside"));
        std::fs::File::create(&image).unwrap().set_len(24 << 20).unwrap();
        std::fs::rename(folder, &aside).unwrap();
        std::fs::create_dir(folder).unwrap();
        let made = run("mkfs.ext4", &["-q", "-F"], &image) && mount(&image, folder);
        if !made {
            skipped("no right to mount a loop device");
            return None;
        }
        let copied = Command::new("cp").arg("-a").arg(aside.join(".")).arg(folder).status();
        assert!(copied.unwrap().success());
        Some(Self { folder, frozen: false })
    }

    /// At a data folder, whose log stays where it was.
    fn under_all_but_the_log(data: &'p Path) -> Option<Self> {
        let disk = Self::under(data)?;
        let log = data.with_extension("aside").join("audit");
        assert!(Command::new("mount").arg("--bind").arg(log).arg(data.join("audit")).status().unwrap().success());
        Some(disk)
    }

    pub(crate) fn freeze(&mut self, frozen: bool) {
        assert!(run("fsfreeze", &[if frozen { "-f" } else { "-u" }], self.folder));
        self.frozen = frozen;
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        if self.frozen {
            run("fsfreeze", &["-u"], self.folder);
        }
        run("umount", &["-l"], &self.folder.join("audit"));
        run("umount", &["-l"], self.folder);
    }
}

fn run(program: &str, options: &[&str], last: &Path) -> bool {
    Command::new(program).args(options).arg(last).output().is_ok_and(|output| output.status.success())
}

fn mount(image: &Path, folder: &Path) -> bool {
    Command::new("mount").args(["-o", "loop"]).arg(image).arg(folder).output().is_ok_and(|done| done.status.success())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_under_the_log_is_an_answer_in_time_and_passes() {
    let mut t = TestServer::start().await;
    t.key("release", "ecdsa-p256-sha256").await;
    t.stop().await;
    let folder = t.data().join("audit");
    let Some(mut disk) = Disk::under(&folder) else { return };
    t.start_again().await.unwrap();
    let client = t.impatient_client();
    sign(&client, "before").await.unwrap();
    // 1. The one who meets it waits for the deadline, all others not even that.
    disk.freeze(true);
    let error = refused(&client, "hung").await;
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(refused(&client, "behind").await.kind(), Kind::Unavailable);
    }
    assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
    client.ready().await.unwrap_err();
    let unready = t.server().service().ready().unwrap_err();
    assert!(unready.public().contains("does not answer"), "{unready:?}");
    // 2. It passes, and nothing has to be read again: nothing had failed.
    disk.freeze(false);
    eventually("it goes on by itself", async || sign(&client, "after").await.ok()).await;
    eventually("it is ready", async || client.ready().await.ok()).await;
    assert_eq!(metric(&client, "audit_reopened_total").await, 0);
    let done = signatures(&client).await;
    // Whether the one that hung came to stand in the log is open, and nobody was told that it did.
    assert!((2..=3).contains(&done), "{done}");
    t.stop().await;
    assert!(verify(&folder, None).unwrap().is_good());
    drop(disk);
}

#[tokio::test]
async fn a_full_disk_under_the_store_refuses_changes_and_passes() {
    let mut t = TestServer::start().await;
    t.key("release", "ecdsa-p256-sha256").await;
    t.stop().await;
    let data = t.data().to_owned();
    let Some(disk) = Disk::under_all_but_the_log(&data) else { return };
    t.start_again().await.unwrap();
    let client = t.impatient_client();
    let ballast = data.join("ballast");
    // 1. Until no change finds room; what does not change the store goes on.
    let mut made = Vec::new();
    let mut file = std::fs::File::create(&ballast).unwrap();
    while std::io::Write::write_all(&mut file, &[7; 1024]).is_ok() {}
    let full = loop {
        let new = format!("key-{}", made.len());
        match client.create_key(&crate::server::new_key(&new, "ecdsa-p256-sha256")).await {
            Ok(_) => made.push(new),
            Err(error) => break error,
        }
        assert!(made.len() < 200, "the disk was never full");
    };
    assert_eq!(full.kind(), Kind::Unavailable, "{full:?}");
    sign(&client, "full").await.unwrap();
    // 2. With room it goes on by itself, and all that was acknowledged is there.
    drop(file);
    std::fs::remove_file(&ballast).unwrap();
    let new = crate::server::new_key("with-room", "ecdsa-p256-sha256");
    eventually("it goes on by itself", async || client.create_key(&new).await.ok()).await;
    for key in made.iter().map(String::as_str).chain(["release", "with-room"]) {
        client.key(&name(key)).await.unwrap();
    }
    t.restart().await;
    for key in made.iter().map(String::as_str).chain(["release", "with-room"]) {
        t.client.key(&name(key)).await.unwrap();
    }
    t.stop().await;
    drop(disk);
}
