//! Pruning: records go that an archive holds; all that vouches for them stays, and whoever moves the beginning of a log is named.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use signet::audit::checkpoint::HeadKeys;
use signet::audit::{
    ArchivePlace, Log, PRUNED_BELOW, Phase, Prune, Receipts, Record, Report, Wanted, archive, export, read, verify,
    verify_archived, verify_export,
};
use signet::error::{Error, Kind};

use super::{Bench, record, segments};

/// A log of many segments with its archive, and receipts of all records.
pub(super) struct Scene {
    pub(super) bench: Bench,
    pub(super) archive: PathBuf,
    pub(super) receipts: String,
}

impl Scene {
    async fn new() -> (Self, Log) {
        let bench = Bench::new().small_segments();
        let archive = bench.home.path().join("archive");
        fs::create_dir(&archive).unwrap();
        let mut scene = Self { bench, archive, receipts: String::new() };
        let log = scene.bench.create();
        scene.grow(&log, 60).await;
        (scene, log)
    }

    /// Adds records, a head after every ten, and their segments to the archive.
    async fn grow(&mut self, log: &Log, records: u64) {
        for n in 0..records {
            self.receipts.push_str(&format!("{}\n", log.append_for(&record(n)).await.unwrap()));
            if n % 10 == 9 {
                log.sign_head(&self.bench.signer).await.unwrap();
                log.tend().await.unwrap();
            }
        }
        archive(&self.bench.settings.folder, &self.archive, Some(&self.bench.signer.public)).unwrap();
    }

    fn plan(&self, log: &Log, below: u64) -> Prune {
        let limits = BTreeMap::from([("request".to_owned(), below)]);
        Prune::plan(log, Wanted { archive: ArchivePlace::Folder(self.archive.clone()), before: None, limits }).unwrap()
    }

    /// Prunes as the service does. Answers where the log begins.
    pub(super) async fn prune(&self, log: &Log, below: u64) -> Result<u64, Error> {
        let plan = self.plan(log, below);
        let checked = plan.clone();
        log.with_tree(move |tree| checked.check(tree)).await?;
        let act = self.act(log, plan.below()).await;
        log.prune(&plan, act).await?;
        Ok(plan.below())
    }

    /// The record that says so, below a head.
    async fn act(&self, log: &Log, below: u64) -> u64 {
        let facts = BTreeMap::from([(PRUNED_BELOW.to_owned(), below.to_string())]);
        let act = Record { phase: Phase::Intent, action: "PruneAudit".into(), facts, ..record(0) };
        let act = log.append(&act).await.unwrap();
        log.sign_head(&self.bench.signer).await.unwrap();
        log.tend().await.unwrap();
        act
    }

    fn folder(&self) -> &Path {
        &self.bench.settings.folder
    }

    fn verify(&self, folder: &Path, archive: Option<&Path>) -> Report {
        let receipts = Receipts::parse("receipts", &self.receipts).unwrap();
        verify_archived(folder, Some(&self.bench.signer.public), receipts, archive).unwrap()
    }

    /// Good in itself, and with the archive.
    fn good(&self) {
        for archive in [None, Some(self.archive.as_path())] {
            let report = self.verify(self.folder(), archive);
            assert!(report.is_good(), "{report:?}");
            assert_eq!(report.receipts, self.receipts.lines().count() as u64);
            assert_eq!(report.gone.unwrap().archived, archive.is_some());
        }
    }
}

#[tokio::test]
async fn what_stays_proves_all_that_was_ever_there() {
    let (mut scene, log) = Scene::new().await;
    let (old, old_root) = log.root();
    let whole = log.tree().unwrap();
    let old_tiles: Vec<_> = ["tile/0/000.p/60"].map(|tile| whole.tile(tile.parse().unwrap()).unwrap()).into();
    // 1. Whole segments go, and the plan says what keeps the rest.
    let plan = scene.plan(&log, 31);
    assert!(plan.below() <= 31 && plan.below() > 25 && plan.first() == 0, "{plan:?}");
    let below = scene.prune(&log, 31).await.unwrap();
    assert_eq!(
        (log.first(), segments(scene.folder())[0].clone()),
        (below, scene.bench.path(&format!("log-{below:020}.jsonl")))
    );
    scene.good();
    log.scrub().await.unwrap();
    log.inspect().await.unwrap();
    // 2. Proofs: of what stays, from every size there ever was, and of nothing that is gone. All tiles of hashes, too.
    let tree = log.tree().unwrap();
    assert!(tree.prove(below).unwrap().holds() && tree.prove(59).unwrap().holds());
    for size in 1..=old {
        tree.consistency(size).unwrap();
    }
    assert!(log.goes_on_from(old, &old_root).await.unwrap() && log.goes_on_from(0, &[0; 32]).await.is_ok());
    assert_eq!(old_tiles[0], tree.tile("tile/0/000.p/60".parse().unwrap()).unwrap());
    assert_eq!(tree.prove(below - 1).unwrap_err().kind(), Kind::NotFound);
    assert!(read(scene.folder(), below - 1).unwrap_err().public().contains("was pruned"));
    assert_eq!(tree.tile("tile/entries/000.p/60".parse().unwrap()).unwrap_err().kind(), Kind::NotFound);
    // 3. It goes on, is archived and pruned again, opened and opened again.
    scene.grow(&log, 40).await;
    let later = scene.prune(&log, 80).await.unwrap();
    assert!(later > below);
    scene.good();
    drop(log);
    let opened = scene.bench.open().unwrap();
    assert_eq!((opened.recovered, opened.log.first()), (Vec::<String>::new(), later));
    opened.log.tend().await.unwrap();
    scene.grow(&opened.log, 20).await;
    scene.good();
    assert!(verify(&scene.archive, Some(&scene.bench.signer.public)).unwrap().is_good());
    // 4. As a tiled log, begun now or over one that was begun before.
    let to = scene.bench.home.path().join("tiled");
    let key = HeadKeys::new([&scene.bench.signer.public]).unwrap();
    export(scene.folder(), &to, Some(&key)).unwrap();
    let report = verify_export(&to, Some(&key)).unwrap();
    assert!(report.is_good() && report.records == export(scene.folder(), &to, None).unwrap().head.size(), "{report:?}");
    // 5. A file of that name that appears beside a log of which nothing was pruned is another's.
    let other = Bench::new();
    let running = other.filled(1).await;
    fs::copy(scene.bench.path("pruned"), other.path("pruned")).unwrap();
    assert_eq!(running.inspect().await.unwrap_err().kind(), Kind::Tampered);
    // 6. The stored hashes above what was pruned are made anew; those below cannot be.
    let stored = fs::read(scene.bench.path("tiles-0")).unwrap();
    drop(opened.log);
    fs::write(scene.bench.path("tiles-0"), &stored[..usize::try_from(later).unwrap() * 32]).unwrap();
    let log = scene.bench.open().unwrap().log;
    log.tend().await.unwrap();
    assert!(log.tree().unwrap().prove(later).unwrap().holds());
    drop(log);
    fs::write(scene.bench.path("tiles-0"), &stored[..usize::try_from(later).unwrap() * 32 - 1]).unwrap();
    let error = scene.bench.open().unwrap_err();
    assert!(error.kind() == Kind::Tampered && error.public().contains("tiles-0"), "{error}");
}

#[tokio::test]
async fn nothing_goes_that_something_keeps() {
    let (scene, log) = Scene::new().await;
    // 1. What is not archived, closed, signed or old.
    let last: u64 = 60;
    let plan = scene.plan(&log, u64::MAX);
    assert!(plan.below() < last && plan.limits()["segments that are closed"] == plan.below(), "{plan:?}");
    let wanted = |before: &str| Wanted {
        archive: ArchivePlace::Folder(scene.archive.clone()),
        before: Some(before.parse().unwrap()),
        limits: BTreeMap::new(),
    };
    assert_eq!(Prune::plan(&log, wanted("2026-01-02T03:04:05Z")).unwrap().segments(), 0);
    assert!(Prune::plan(&log, wanted("2026-01-02T03:04:06Z")).unwrap().segments() > 0);
    let empty = scene.bench.home.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let wanted = Wanted { archive: ArchivePlace::Folder(empty), before: None, limits: BTreeMap::new() };
    let plan = Prune::plan(&log, wanted).unwrap();
    assert_eq!((plan.segments(), plan.limits()["archive"]), (0, 0));
    // 2. Not while somebody needs the files.
    let staying = log.stay().await;
    assert_eq!(scene.prune(&log, 30).await.unwrap_err().kind(), Kind::Busy);
    drop(staying);
    assert_eq!(log.first(), 0);
    // 3. Pieces of the archive that are missing, altered, another's or cut, and its heads.
    let names = segments_packed(&scene.archive);
    let (second, third) = (&names[1], &names[2]);
    let (kept, other) = (fs::read(second).unwrap(), fs::read(third).unwrap());
    let heads = scene.archive.join("heads");
    let kept_heads = fs::read(&heads).unwrap();
    let mut bit = kept.clone();
    let middle = bit.len() / 2;
    bit[middle] ^= 1;
    for (altered, what) in [(bit, "a bit"), (other, "another's"), (kept[..kept.len() / 2].to_vec(), "cut")] {
        fs::write(second, altered).unwrap();
        let error = scene.prune(&log, 30).await.unwrap_err();
        let name = second.file_name().unwrap().to_str().unwrap();
        assert!(error.kind() == Kind::Tampered && error.public().contains(name), "{what}: {error}");
    }
    fs::remove_file(second).unwrap();
    assert_eq!(scene.plan(&log, 30).segments(), 1);
    fs::write(second, kept).unwrap();
    fs::write(&heads, &kept_heads[1..]).unwrap();
    assert!(scene.prune(&log, 30).await.unwrap_err().public().contains("heads"));
    fs::write(&heads, kept_heads).unwrap();
    // 4. A record of ours that a stored hash contradicts: the hashes are made anew first.
    let stored = fs::read(scene.bench.path("tiles-0")).unwrap();
    let mut altered = stored.clone();
    altered[3] ^= 1;
    fs::write(scene.bench.path("tiles-0"), altered).unwrap();
    assert_eq!(scene.prune(&log, 30).await.unwrap_err().kind(), Kind::Unavailable);
    log.tend().await.unwrap();
    assert_eq!(fs::read(scene.bench.path("tiles-0")).unwrap(), stored);
    assert_eq!(log.first(), 0);
    scene.prune(&log, 30).await.unwrap();
    scene.good();
}

/// What is done to the folder of a pruned log, and what is said of it, by an auditor and at a start.
type Spoil = (&'static str, fn(&Scene, &Path), &'static str);

#[tokio::test]
async fn whoever_moves_the_beginning_or_alters_what_vouches_for_it_is_named() {
    let (mut scene, log) = Scene::new().await;
    scene.bench.copy("unpruned");
    scene.prune(&log, 20).await.unwrap();
    scene.bench.copy("once");
    let below = scene.prune(&log, 40).await.unwrap();
    scene.grow(&log, 20).await;
    drop(log);
    let spoils: [Spoil; 12] = [
        ("the beginning removed", |_, f| fs::remove_file(f.join("pruned")).unwrap(), "are missing before it"),
        ("moved up by a record", |_, f| first_number(f, 1), "not of the form"),
        ("moved down by a record", |_, f| first_number(f, -1), "not of the form"),
        ("other bytes", |_, f| words(f, |words| words[3] = "17".into()), "bytes"),
        (
            "the beginning of before",
            |s, f| assert!(fs::copy(s.home("once").join("pruned"), f.join("pruned")).is_ok()),
            "are missing before it",
        ),
        ("a record of another act", |_, f| line(f, 3, |line| line.replace("extra ", "extra e30")), "not of the form"),
        ("another hash of its edge", |_, f| words(f, |words| words[4] = flipped(&words[4])), "pruned"),
        ("another signature", |_, f| spoil_end(&f.join("pruned")), "pruned"),
        ("a hash of what is gone", |_, f| flip(&f.join("tiles-0"), 40), "tiles-0"),
        ("the hashes gone", |_, f| fs::remove_file(f.join("tiles-0")).unwrap(), "tiles-0"),
        (
            "a segment removed without a record",
            |_, f| fs::remove_file(&segments(f)[0]).unwrap(),
            "are missing before it",
        ),
        ("a record that stayed", |_, f| flip(&segments(f)[1], 60), "edited, moved"),
    ];
    for (n, (what, spoil, named)) in spoils.into_iter().enumerate() {
        let folder = scene.bench.copy(&format!("spoiled-{n}"));
        spoil(&scene, &folder);
        let report = scene.verify(&folder, None);
        let said = report.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        assert!(said.contains(named), "{what}: {said}");
        let settings = signet::audit::Settings { folder: folder.clone(), ..scene.bench.settings.clone() };
        match Log::open(settings, Some(&scene.bench.signer.public)) {
            Err(error) => assert_eq!(error.kind(), Kind::Tampered, "{what}: {error}"),
            // What lies below the last head is read by the next look at all of it.
            Ok(opened) => assert_eq!(opened.log.scrub().await.unwrap_err().kind(), Kind::Tampered, "{what}"),
        }
    }

    // Any bit of what says where it begins.
    let folder = scene.bench.copy("bits");
    let kept = fs::read(folder.join("pruned")).unwrap();
    for at in (0..kept.len()).step_by(4) {
        flip(&folder.join("pruned"), at);
        assert!(!scene.verify(&folder, None).is_good(), "{}", String::from_utf8_lossy(&kept[at..]));
        fs::write(folder.join("pruned"), &kept).unwrap();
    }
    assert!(scene.verify(&folder, None).is_good());

    // The whole folder of before, unpruned: it is whole in itself, and the head that somebody else knows is not in it.
    let folder = scene.home("unpruned");
    assert!(verify(&folder, Some(&scene.bench.signer.public)).unwrap().is_good());
    let settings = signet::audit::Settings { folder, ..scene.bench.settings.clone() };
    let last = scene.bench.open().unwrap().head.unwrap();
    let back = Log::open(settings, Some(&scene.bench.signer.public)).unwrap().log;
    assert_eq!(back.knows(last.size(), last.root()).unwrap_err().kind(), Kind::Tampered);

    // An archive that was altered or lost a piece, against a log that is whole.
    let name = format!("log-{:020}.jsonl.gz", 0);
    let piece = scene.archive.join(&name);
    let kept = fs::read(&piece).unwrap();
    for altered in [None, Some(fs::read(&segments_packed(&scene.archive)[1]).unwrap())] {
        match altered {
            None => fs::remove_file(&piece).unwrap(),
            Some(bytes) => fs::write(&piece, bytes).unwrap(),
        }
        let report = scene.verify(scene.folder(), Some(&scene.archive));
        assert!(report.problems.iter().any(|problem| problem.file.starts_with("log-")), "{report:?}");
    }
    fs::write(&piece, kept).unwrap();
    scene.good();
    // Segments that were put back below the beginning are nobody's: the next start says so and removes them.
    fs::write(scene.bench.path(&format!("log-{:020}.jsonl", 0)), "{}\n").unwrap();
    scene.good();
    let opened = scene.bench.open().unwrap();
    assert!(opened.recovered[0].contains("were pruned and still there"), "{:?}", opened.recovered);
    assert_eq!(opened.log.first(), below);
}

/// The log after a crash at each step: opened, it is pruned or not, and never tampered with.
#[tokio::test]
async fn a_crash_at_any_step_leaves_a_log_that_opens() {
    let (scene, log) = Scene::new().await;
    let before = scene.bench.copy("before");
    let below = scene.prune(&log, 30).await.unwrap();
    drop(log);
    let after = scene.bench.copy("after");
    let gone: Vec<_> =
        segments(&before).into_iter().filter(|path| !after.join(path.file_name().unwrap()).exists()).collect();
    assert!(gone.len() > 3);
    for left in 0..=gone.len() {
        // The beginning is durable, and so many segments are still there; first of all there is only half a file of it.
        let folder = scene.bench.copy(&format!("crash-{left}"));
        for path in &gone[gone.len() - left..] {
            fs::copy(path, folder.join(path.file_name().unwrap())).unwrap();
        }
        let torn = left == gone.len();
        if torn {
            fs::rename(folder.join("pruned"), folder.join("pruned.part")).unwrap();
        }
        let report = verify(&folder, Some(&scene.bench.signer.public)).unwrap();
        assert!(report.is_good() && report.gone.is_none() == torn, "{left}: {report:?}");
        let settings = signet::audit::Settings { folder: folder.clone(), ..scene.bench.settings.clone() };
        let opened = Log::open(settings, Some(&scene.bench.signer.public)).unwrap();
        assert_eq!(opened.recovered.len(), usize::from(left > 0 && !torn), "{:?}", opened.recovered);
        assert_eq!(opened.log.first(), if torn { 0 } else { below });
        opened.log.tend().await.unwrap();
        opened.log.scrub().await.unwrap();
        opened.log.append(&record(0)).await.unwrap();
        opened.log.sign_head(&scene.bench.signer).await.unwrap();
        let report = scene.verify(&folder, (!torn).then_some(scene.archive.as_path()));
        assert!(report.is_good(), "{left}: {report:?}");
    }
}

#[tokio::test]
async fn a_copy_that_is_begun_later_has_the_hashes_of_what_is_gone() {
    let (mut scene, log) = Scene::new().await;
    let below = scene.prune(&log, 30).await.unwrap();
    drop(log);
    let copy = scene.bench.home.path().join("copy");
    fs::create_dir(&copy).unwrap();
    let sink = signet::audit::SinkSettings {
        name: "nas".parse().unwrap(),
        kind: signet::audit::SinkKind::Folder(copy.clone()),
        required: true,
    };
    scene.bench.settings.sinks = vec![sink];
    let log = scene.bench.open().unwrap().log;
    log.tend().await.unwrap();
    scene.grow(&log, 30).await;
    // Pruned again: the copy keeps what it has.
    let later = scene.prune(&log, 60).await.unwrap();
    log.held().await.unwrap();
    drop(log);
    let report = scene.verify(&copy, Some(&scene.archive));
    assert!(report.is_good() && report.gone.unwrap().records == below && later > below, "{:?}", report.problems);
    assert_eq!(scene.bench.open().unwrap().log.first(), later);
    // A collector that comes now begins where the log does.
    assert_eq!(signet::audit::sent(scene.folder(), &"new".parse().unwrap()).unwrap().size, later);
}

impl Scene {
    fn home(&self, name: &str) -> PathBuf {
        self.bench.home.path().join(name)
    }
}

fn segments_packed(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|end| end == "gz"));
    found.sort();
    found
}

/// Changes a line of the file `pruned`.
fn line(folder: &Path, number: usize, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(folder.join("pruned")).unwrap();
    let mut lines: Vec<_> = text.split('\n').map(str::to_owned).collect();
    lines[number] = change(lines[number].clone());
    fs::write(folder.join("pruned"), lines.join("\n")).unwrap();
}

/// Changes the words of its first line.
fn words(folder: &Path, change: impl FnOnce(&mut Vec<String>)) {
    line(folder, 0, |line| {
        let mut words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        change(&mut words);
        words.join(" ")
    });
}

fn first_number(folder: &Path, by: i64) {
    words(folder, |words| words[2] = (words[2].parse::<i64>().unwrap() + by).to_string());
}

fn flipped(hashes: &str) -> String {
    let first = if hashes.starts_with('A') { 'B' } else { 'A' };
    format!("{first}{}", &hashes[1..])
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn spoil_end(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() - 20;
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    fs::write(path, bytes).unwrap();
}
