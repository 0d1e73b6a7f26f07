//! Deaths of `signet agent cert`: a certificate is never seen with the key of another, and in the end the service is told.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use signet::agent::{CERTIFICATE, CURRENT, KEY, Pair};
use tokio::process::Command;

use super::past;
use crate::agent::fleet;
use crate::server::{PROGRAM, TestServer};

/// What a death leaves in force: the pair of before, or the new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Before,
    After,
}

/// The points on the way, of a first pair and of a later one. A file is the key, the certificate, the anchors, the Secret,
/// what was wanted, and last the note that the service was told.
const POINTS: &[(&str, Left)] = &[
    ("agent.before_request", Left::Before),
    ("agent.certified", Left::Before),
    ("agent.before_pair", Left::Before),
    ("agent.before_file:1", Left::Before),
    ("agent.file_empty:1", Left::Before),
    ("agent.file_written:1", Left::Before),
    ("agent.before_file:2", Left::Before),
    ("agent.file_empty:2", Left::Before),
    ("agent.file_written:2", Left::Before),
    ("agent.file_empty:3", Left::Before),
    ("agent.file_written:3", Left::Before),
    ("agent.file_empty:4", Left::Before),
    ("agent.file_written:4", Left::Before),
    ("agent.file_empty:5", Left::Before),
    ("agent.file_written:5", Left::Before),
    ("agent.before_name", Left::Before),
    ("agent.named", Left::Before),
    ("agent.linked", Left::Before),
    ("agent.in_force", Left::After),
    ("agent.cleared", Left::After),
    ("agent.before_tell", Left::After),
    ("agent.told", Left::After),
    ("agent.before_file:6", Left::After),
    ("agent.file_empty:6", Left::After),
    ("agent.file_written:6", Left::After),
];

/// Those where the oldest pair is removed, for which there have to be three.
const REMOVAL: &[(&str, Left)] = &[("agent.before_removal", Left::Before), ("agent.removed", Left::Before)];

/// All points of this module, for the register.
pub(super) fn points() -> impl Iterator<Item = &'static str> {
    POINTS.iter().chain(REMOVAL).map(|(point, _)| *point)
}

/// An agent's folder, and what its service was told.
struct Kept<'a> {
    t: &'a TestServer,
    place: tempfile::TempDir,
}

impl Kept<'_> {
    fn folder(&self) -> PathBuf {
        self.place.path().join("tls")
    }

    /// Runs the agent once; dies at the point.
    async fn run(&self, more: &[&str], point: Option<&str>) {
        let told = self.place.path().join("told");
        // The service reads its files again: what it has then is noted.
        let command = format!("cat $SIGNET_FOLDER/current/tls.key $SIGNET_FOLDER/current/tls.crt >{}", told.display());
        let mut agent = Command::new(PROGRAM);
        agent.args(["agent", "cert", "fleet:web", "fleet:server"]).arg(self.folder()).args(more);
        agent.args(["--name", "dns:web.fleet.example", "--kubernetes-secret", "web", "--once", "--command", &command]);
        agent.arg("--server").arg(format!("https://{}", self.t.server().address()));
        agent.arg("--ca").arg(self.t.server().own_authority().unwrap());
        agent.env("SIGNET_TOKEN", self.t.token()).env("SIGNET_PROFILE", self.place.path().join("none"));
        agent.env_remove("SIGNET_CRASH_POINT").stdin(Stdio::null());
        if let Some(point) = point {
            agent.env("SIGNET_CRASH_POINT", point);
        }
        let output = agent.output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        use std::os::unix::process::ExitStatusExt;
        match point {
            Some(point) => assert_eq!(output.status.signal(), Some(9), "{point} was not reached: {said}"),
            None => assert!(output.status.success(), "{said}"),
        }
    }

    /// What a service finds: nothing, or a key and the certificate of that key.
    fn in_force(&self) -> Option<Vec<u8>> {
        let current = self.folder().join(CURRENT);
        let read = |name: &str| std::fs::read(current.join(name)).unwrap();
        if std::fs::symlink_metadata(&current).is_err() {
            return None;
        }
        Pair::current(&self.folder()).expect("key and certificate belong together");
        Some([read(KEY), read(CERTIFICATE)].concat())
    }

    /// What its service has read.
    fn told(&self) -> Option<Vec<u8>> {
        std::fs::read(self.place.path().join("told")).ok()
    }

    fn names(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.folder()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

#[tokio::test]
async fn a_dead_agent_leaves_a_whole_pair_and_its_next_run_tells_the_service() {
    let t = fleet().await;
    let first = POINTS.iter().map(|case| (0, *case));
    let later = POINTS.iter().chain(REMOVAL).map(|case| (2, *case));
    let cases: Vec<_> = first.chain(later).collect();
    past::all(cases, async |(pairs, (point, left))| dies(&t, pairs, point, left).await).await;
}

/// Dies once there have been so many pairs.
async fn dies(t: &TestServer, pairs: usize, point: &str, left: Left) {
    let kept = Kept { t, place: tempfile::tempdir().unwrap() };
    for _ in 0..pairs {
        kept.run(&["--force"], None).await;
    }
    let before = kept.in_force();
    assert_eq!((before.is_some(), kept.told()), (pairs > 0, before.clone()));
    let more: &[&str] = if pairs > 0 { &["--force"] } else { &[] };
    kept.run(more, Some(point)).await;
    let now = kept.in_force();
    match left {
        Left::Before => assert_eq!((now, kept.told()), (before, kept.told()), "{point}"),
        Left::After => assert!(now.is_some() && now != before, "{point}"),
    }
    // The next run, due or not, leaves a pair of which the service was told, and nothing else of the dead one.
    kept.run(&[], None).await;
    assert_eq!(kept.told(), kept.in_force(), "{point}");
    kept.run(&["--force"], None).await;
    assert_eq!(kept.told(), kept.in_force(), "{point}");
    let names = kept.names();
    let whole = |name: &String| Path::new(&kept.folder()).join(name).join("told").exists();
    let pairs: Vec<_> = names.iter().filter(|name| !matches!(name.as_str(), CURRENT | "lock")).collect();
    assert!(pairs.len() <= 2 && pairs.into_iter().all(whole), "{point}: {names:?}");
}
