//! No file descriptor is left: the listener waits, serves who is there, and goes on once there is one.

use std::fs::File;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep, timeout};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use signet::server::listen::Limits;

use crate::{Server, WHO, answer, client};

/// Tells the copy of the test binary that it is one: file descriptors belong to a process.
const COPY: &str = "SIGNET_TEST_EXHAUSTION";
/// How many file descriptors the copy may have.
const FILES: u64 = 64;

#[test]
fn a_listener_without_file_descriptors_waits_and_goes_on() {
    if std::env::var_os(COPY).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        return runtime.unwrap().block_on(exhausted());
    }
    let copy = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "exhaustion::a_listener_without_file_descriptors_waits_and_goes_on", "--nocapture"])
        .env(COPY, "1")
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&copy.stdout);
    assert!(copy.status.success() && out.contains("1 passed"), "{out}\n{}", String::from_utf8_lossy(&copy.stderr));
}

/// Counts the warnings.
struct Warnings(Arc<AtomicUsize>);

impl<S: tracing::Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() == tracing::Level::WARN {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn exhausted() {
    let warnings = Arc::new(AtomicUsize::new(0));
    let counting = tracing_subscriber::registry().with(Warnings(warnings.clone()));
    tracing::subscriber::set_global_default(counting).unwrap();
    let limit = Rlimit { current: Some(FILES), maximum: getrlimit(Resource::Nofile).maximum };
    setrlimit(Resource::Nofile, limit).unwrap();
    let server = Server::start(Limits::default()).await;
    let mut there = server.http1().await;

    // 1. All are taken but the one of the next client.
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    drop(taken.pop());
    let waiting = server.tcp().await;

    // 2. The listener fails, and does not fail in a circle.
    let (began, wanted) = (Instant::now(), 5);
    let failing = async {
        while warnings.load(Ordering::SeqCst) < wanted {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), failing).await.expect("it never failed");
    let most = wanted + usize::try_from(began.elapsed().as_millis() / 100).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(350), "{wanted} failures in {:?}", began.elapsed());
    assert!(warnings.load(Ordering::SeqCst) <= most);

    // 3. Who is there is served meanwhile.
    there.write_all(WHO.as_bytes()).await.unwrap();
    answer(&mut there, "nobody").await;

    // 4. Who waited is served once there are some again.
    drop(taken);
    let mut served = Server::connect_by(&client(&server.authority, None), waiting).await.unwrap();
    served.write_all(WHO.as_bytes()).await.unwrap();
    answer(&mut served, "nobody").await;
}
