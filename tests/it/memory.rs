//! What processes give up, and what their memory keeps.

use std::fs::File;
use std::os::unix::fs::FileExt;

use futures_util::future::join_all;
use signet::config::Config;
use signet::server::{Server, create};
use signet::types::{Context, ManualClock};
use signet::wire::Sign;

use crate::process::{Installation, eventually};
use crate::proof::proven;
use crate::server::{Devices, client, lasting, name, new_key, options};
use crate::skip::skipped;
use crate::wrap::{plain, sealed};

/// How many requests, unless `SIGNET_TEST_REQUESTS` says otherwise.
const REQUESTS: usize = 2000;
/// How many clients send them.
const CLIENTS: usize = 8;

async fn installation(devices: Devices) -> Installation {
    let mut t = Installation::bare(devices);
    let config = Config::read(&t.config()).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the processes of these tests live in the time of the system")]
    let clock = ManualClock::at(jiff::Timestamp::now());
    let first = create(&config, &options(&clock)).await.unwrap().token.to_string();
    let server = Server::start(&config, options(&clock)).await.unwrap();
    t.token = lasting(&client(&server, Some(&first))).await;
    server.stop().await.unwrap();
    t
}

/// The value of a line of `/proc/PID/status`.
fn status(pid: u32, what: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':')).unwrap();
    line.trim().to_owned()
}

/// The processes that `pid` started.
fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let lists = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default());
    lists.flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).collect()
}

/// How often one of `needles` stands in the memory of a process; `None` where this test may not look.
fn count(pid: u32, needles: &[&[u8]]) -> Option<usize> {
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut found = 0;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, mode) = (words.next().unwrap(), words.next().unwrap());
        if !mode.starts_with('r') || line.ends_with("[vvar]") || line.ends_with("[vsyscall]") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        // What was given back in the meantime is no memory any more.
        let Ok(read) = memory.read_at(&mut bytes, from) else { continue };
        bytes.truncate(read);
        for needle in needles {
            let mut rest = bytes.as_slice();
            while let Some(at) = rest.iter().position(|byte| *byte == needle[0]) {
                found += usize::from(rest[at..].starts_with(needle));
                rest = &rest[at + 1..];
            }
        }
    }
    Some(found)
}

#[tokio::test]
async fn the_service_and_its_workers_give_up_what_they_do_not_need() {
    let t = installation(Devices::WithTpm).await;
    let service = t.serve().await;
    assert_eq!(status(service.pid(), "NoNewPrivs"), "1");
    // The key of the store is on a page that is never swapped out.
    assert_ne!(status(service.pid(), "VmLck"), "0 kB");
    let workers = children(service.pid());
    assert_eq!(workers.len(), 2, "one for each device");
    for worker in workers {
        assert_eq!((status(worker, "NoNewPrivs"), status(worker, "Seccomp")), ("1".to_owned(), "2".to_owned()));
    }
    service.kill().await;
}

#[tokio::test]
async fn nothing_of_past_requests_is_left_in_the_memory_of_the_service() {
    let t = installation(Devices::SoftHsm).await;
    let service = t.serve().await;
    if count(service.pid(), &[b"signet"]).is_none() {
        return skipped("the right to read the memory of another process, which only root has");
    }
    let administrator = t.client(Some(&t.token));
    administrator.create_key(&new_key("data", "aes256-gcm-derived")).await.unwrap();
    administrator.create_key(&new_key("cipher", "aes256-gcm")).await.unwrap();
    administrator.create_key(&new_key("inbox", "hpke-p256")).await.unwrap();
    administrator.create_key(&new_key("release", "ecdsa-p256-sha256")).await.unwrap();
    // Nine bytes are twelve of base64, so the same beginning shows in both forms.
    let mark = hex::encode(getrandom::u64().unwrap().to_be_bytes())[..9].to_owned();
    let encoded = signet::wire::Base64(mark.clone().into_bytes());
    let encoded = serde_json::to_value(&encoded).unwrap().as_str().unwrap().to_owned();
    let needles = [mark.as_bytes(), encoded.as_bytes(), t.token.as_bytes()];
    let requests = std::env::var("SIGNET_TEST_REQUESTS").ok().and_then(|n| n.parse().ok()).unwrap_or(REQUESTS);
    let none = Context::default();
    let work = async |number: usize| {
        let client = t.client(Some(&t.token));
        for turn in 0..requests / CLIENTS / 3 {
            let secret = format!("{mark} secret {number} {turn}");
            let key = name(["data", "cipher", "inbox"][turn % 3]);
            let blob = client.wrap(&key, &plain(secret.as_bytes(), &none)).await.unwrap().ciphertext;
            let opened = client.unwrap(&key, &sealed(&blob, &none)).await.unwrap();
            assert_eq!(opened.plaintext.0.expose(), secret.as_bytes());
            let message = Some(signet::wire::Base64(secret.into_bytes()));
            client.sign(&name("release"), &Sign { message, ..Sign::default() }).await.unwrap();
        }
        client
    };
    let clients = join_all((0..CLIENTS).map(work)).await;
    // The buffers of open connections still hold some of what went through them.
    let open = count(service.pid(), &needles).unwrap();
    println!("{requests} requests by {CLIENTS} connections, which are open: {open} traces");
    drop((clients, administrator));
    eventually("no trace of what was sent", async || (count(service.pid(), &needles)? == 0).then_some(())).await;
    proven(
        "requests with a secret text of their own",
        requests,
        "0 of the texts and tokens left in the memory of the service",
    );
    service.kill().await;
}
