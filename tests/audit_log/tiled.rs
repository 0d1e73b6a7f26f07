//! The log as a tiled log and as proofs in files, read by a program of others: the crate `tlog_tiles`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use signet::audit::checkpoint::{Head, HeadKeys};
use signet::audit::merkle::{Hash, leaf_hash};
use signet::audit::proof::{Consistency, Proof};
use signet::audit::{CHECKPOINT, Exported, Item, Log, Record, Report, Tree, entries, export, verify_export};
use signet::error::Kind;
use tlog_tiles::{HashReader, Tile, TileHashReader, TileReader};

use super::{Bench, record};

type Get<'a> = Box<dyn Fn(&str) -> Vec<u8> + 'a>;

/// A client of tiled logs, which believes nothing but the root of a head.
struct Judge<'a> {
    get: Get<'a>,
    asked: RefCell<BTreeSet<String>>,
}

impl<'a> Judge<'a> {
    fn new(get: impl Fn(&str) -> Vec<u8> + 'a) -> Self {
        Self { get: Box::new(get), asked: RefCell::default() }
    }

    fn of_folder(folder: &'a Path) -> Self {
        Self::new(|path| fs::read(folder.join(path)).unwrap_or_else(|e| panic!("{path}: {e}")))
    }

    fn of_tree(tree: &'a Tree) -> Self {
        Self::new(|path| tree.tile(path.parse().unwrap()).unwrap())
    }
}

impl TileReader for Judge<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        // The crate writes the height into a path, as the first such log did; C2SP has only one.
        let path = |tile: &Tile| tile.path().replacen("tile/8/", "tile/", 1);
        self.asked.borrow_mut().extend(tiles.iter().map(path));
        Ok(tiles.iter().map(|tile| (self.get)(&path(tile))).collect())
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

fn theirs(hash: &Hash) -> tlog_tiles::Hash {
    tlog_tiles::Hash(*hash)
}

fn path(hashes: &[Hash]) -> Vec<tlog_tiles::Hash> {
    hashes.iter().map(theirs).collect()
}

/// The judge finds each of these records below the head, by tiles alone.
fn judge(judge: &Judge<'_>, note: &str, lines: &[Vec<u8>], indexes: impl IntoIterator<Item = u64>) {
    let (text, _) = note.split_once("\n\n").unwrap();
    let head = tlog_tiles::Checkpoint::from_bytes(format!("{text}\n").as_bytes()).unwrap();
    assert_eq!(head.size(), lines.len() as u64);
    let tiles = TileHashReader::new(head.size(), *head.hash(), judge);
    let root = tlog_tiles::tree_hash(head.size(), &tiles).unwrap();
    assert_eq!(root.0, head.hash().0);
    for index in indexes {
        let hash = tlog_tiles::record_hash(&lines[usize::try_from(index).unwrap()]);
        let found = tiles.read_hashes(&[tlog_tiles::stored_hash_index(0, index)]).unwrap();
        assert_eq!(found[0].0, hash.0, "record {index}");
        let proof = tlog_tiles::prove_record(head.size(), index, &tiles).unwrap();
        tlog_tiles::check_record(&proof, head.size(), *head.hash(), index, hash).unwrap();
    }
}

/// A log of `count` records below one head for each of `sizes`, and their lines.
async fn filled(bench: &Bench, sizes: &[u64]) -> (Log, Vec<Head>, Vec<Vec<u8>>) {
    let log = bench.create();
    let (mut heads, mut n) = (Vec::new(), 0);
    for size in sizes {
        let mut waiting = Vec::new();
        while n < *size {
            waiting.push(log.append(&record(n)));
            n += 1;
        }
        for record in waiting {
            record.await.unwrap();
        }
        heads.push(log.sign_head(&bench.signer).await.unwrap());
        log.tend().await.unwrap();
    }
    (log, heads, (0..n).map(|n| serde_json::to_vec(&record(n)).unwrap()).collect())
}

fn key(bench: &Bench) -> HeadKeys {
    HeadKeys::new([&bench.signer.public]).unwrap()
}

fn exported(bench: &Bench, name: &str) -> (PathBuf, Exported) {
    let to = bench.home.path().join(name);
    let done = export(&bench.settings.folder, &to, Some(&key(bench))).unwrap();
    (to, done)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_foreign_client_reads_the_log_by_tiles() {
    let bench = Bench::new();
    let (log, heads, lines) = filled(&bench, &[1, 255, 256, 257, 70_000]).await;
    // 1. As the service gives them out.
    let tree = log.tree().unwrap();
    assert_eq!(tree.head(), heads.last().unwrap());
    let served = Judge::of_tree(&tree);
    judge(&served, tree.head().note(), &lines, [0, 1, 255, 256, 65_535, 65_536, 69_887, 69_888, 69_999]);
    let partial = ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"].map(str::to_owned);
    assert!(partial.iter().all(|path| served.asked.borrow().contains(path)), "{:?}", served.asked);
    // 2. As a folder, with every record in a bundle.
    let (folder, done) = exported(&bench, "www");
    assert_eq!((&done.head, done.too_long.as_slice()), (tree.head(), [].as_slice()));
    let note = fs::read_to_string(folder.join(CHECKPOINT)).unwrap();
    judge(&Judge::of_folder(&folder), &note, &lines, (0..70_000).step_by(997));
    let mut index = 0;
    for file in files(&folder.join("tile/entries")) {
        for entry in entries(&fs::read(file).unwrap()).unwrap() {
            assert_eq!(entry, lines[index]);
            index += 1;
        }
    }
    assert_eq!(index, lines.len());
    for tile in ["tile/entries/000", "tile/entries/273.p/112", "tile/0/272", "tile/1/000"] {
        assert_eq!(tree.tile(tile.parse().unwrap()).unwrap(), fs::read(folder.join(tile)).unwrap(), "{tile}");
    }
    let report = verify_export(&folder, Some(&key(&bench))).unwrap();
    assert!(report.is_good() && report.records == 70_000, "{report:?}");
    // 3. A second export writes what is new, and only that.
    assert_eq!(exported(&bench, "www").1.written, 0);
    // 4. Each head is the beginning of the last one, and the judge says so too.
    for head in &heads {
        let proof = tree.consistency(head.size()).unwrap();
        proof.verify(head, Some(&key(&bench))).unwrap();
        let (new, old) = (theirs(tree.head().root()), theirs(head.root()));
        tlog_tiles::check_tree(&path(&proof.path), 70_000, new, head.size(), old).unwrap();
    }
    // 5. What is not there is not made up.
    for tile in ["tile/0/273", "tile/0/273.p/113", "tile/3/000.p/1", "tile/entries/274.p/1"] {
        assert_eq!(tree.tile(tile.parse().unwrap()).unwrap_err().kind(), Kind::NotFound, "{tile}");
    }
    assert_eq!(tree.prove(70_000).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(tree.consistency(70_001).unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_proof_is_one_small_file_that_a_foreign_checker_accepts() {
    let bench = Bench::new();
    let (log, heads, lines) = filled(&bench, &[3000]).await;
    let (tree, head) = (log.tree().unwrap(), &heads[0]);
    for index in [0, 1, 255, 256, 2047, 2048, 2999] {
        let text = tree.prove(index).unwrap().encode();
        assert!(text.len() < 4096, "{}", text.len());
        let proof = Proof::parse(&text).unwrap();
        proof.verify(Some(&key(&bench))).unwrap();
        assert_eq!((proof.index, &proof.record), (index, &lines[usize::try_from(index).unwrap()]));
        let hash = tlog_tiles::record_hash(&proof.record);
        tlog_tiles::check_record(&path(&proof.path), 3000, theirs(head.root()), index, hash).unwrap();
    }
    let text = tree.prove(7).unwrap().encode();
    // Each character of it counts: with another one it is no proof, or one that does not hold.
    for at in (0..text.len()).step_by(3) {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        let accepted = String::from_utf8(bytes)
            .is_ok_and(|text| Proof::parse(&text).is_ok_and(|proof| proof.verify(Some(&key(&bench))).is_ok()));
        assert!(!accepted, "byte {at} of\n{text}");
    }
    // Lines that are swapped, repeated or gone; another index; another record.
    let rows: Vec<&str> = text.lines().collect();
    let join = |rows: &[&str]| rows.iter().map(|row| format!("{row}\n")).collect::<String>();
    for at in 1..rows.len() {
        let (mut swapped, mut twice, mut gone) = (rows.clone(), rows.clone(), rows.clone());
        swapped.swap(at, at - 1);
        twice.insert(at, rows[at]);
        gone.remove(at);
        for changed in [swapped, twice, gone] {
            let accepted = Proof::parse(&join(&changed)).is_ok_and(|proof| proof.verify(Some(&key(&bench))).is_ok());
            // One signature that is there twice is as good as once.
            assert!(!accepted || changed.len() == rows.len() + 1 && at == rows.len() - 1, "{}", join(&changed));
        }
    }
    let good = Proof::parse(&text).unwrap();
    let other = Proof { index: 8, ..good.clone() };
    assert_eq!(other.verify(None).unwrap_err().kind(), Kind::DoesNotOpen);
    let other = Proof { record: lines[8].clone(), ..good.clone() };
    assert_eq!(other.verify(None).unwrap_err().kind(), Kind::DoesNotOpen);
    // A node of the tree is no record.
    let node: Vec<u8> = [leaf_hash(&lines[6]), leaf_hash(&lines[7])].concat();
    let posed = Proof { index: 3, record: node, path: good.path[1..].to_vec(), ..good };
    assert!(posed.verify(None).is_err());
    let stranger = HeadKeys::new([&super::Signer::new().public]).unwrap();
    assert!(
        Proof::parse(&text).unwrap().verify(Some(&stranger)).unwrap_err().public().contains("not signed by the key")
    );
}

#[tokio::test]
async fn a_log_that_was_rewritten_has_no_proof_to_an_earlier_head() {
    let bench = Bench::new();
    let (log, heads, _) = filled(&bench, &[100, 1000]).await;
    let proof = log.tree().unwrap().consistency(100).unwrap();
    let text = proof.encode();
    assert_eq!(Consistency::parse(&text).unwrap(), proof);
    proof.verify(&heads[0], Some(&key(&bench))).unwrap();
    for at in (0..text.len()).step_by(3) {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        let accepted = String::from_utf8(bytes).is_ok_and(|text| {
            Consistency::parse(&text).is_ok_and(|proof| proof.verify(&heads[0], Some(&key(&bench))).is_ok())
        });
        assert!(!accepted, "byte {at} of\n{text}");
    }
    // The same key signs another history: of equal length, and of one record less.
    let other = Bench { signer: super::Signer::new(), ..Bench::new() };
    let log = other.create();
    for n in 0..1000 {
        log.append(&record(n + 1)).await.unwrap();
    }
    log.sign_head(&bench.signer).await.unwrap();
    log.tend().await.unwrap();
    let forged = log.tree().unwrap().consistency(100).unwrap();
    assert!(forged.verify(&heads[0], Some(&key(&bench))).unwrap_err().public().contains("was rewritten"));
    // A replayed proof of another pair of heads.
    assert!(proof.verify(&heads[1], None).unwrap_err().public().contains("begins at 100"));
    assert!(log.tree().unwrap().consistency(1001).is_err(), "a log that was cut has no proof");
}

/// Spoils an export of 600 records, and says what is found.
async fn spoiled(spoil: impl Fn(&Path)) -> Report {
    let bench = Bench::new().small_segments();
    drop(filled(&bench, &[600]).await);
    let (folder, _) = exported(&bench, "www");
    spoil(&folder);
    verify_export(&folder, Some(&key(&bench))).unwrap()
}

fn named(report: &Report, file: &str, what: &str) {
    let found = report.problems.iter().any(|problem| problem.file == file && problem.what.contains(what));
    assert!(found, "no {file}: {what} in {report:#?}");
}

#[tokio::test]
async fn whatever_is_changed_in_an_export_is_named() {
    let bench = Bench::new().small_segments();
    drop(filled(&bench, &[600]).await);
    let (folder, done) = exported(&bench, "www");
    assert_eq!(done.written, 3 + 1 + 3 + 1, "level 0, level 1, bundles, the head");
    for file in files(&folder) {
        let good = fs::read(&file).unwrap();
        let name = file.strip_prefix(&folder).unwrap().display().to_string();
        for at in (0..good.len()).step_by(1 + good.len() / 40).chain([good.len() - 1]) {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            fs::write(&file, &bytes).unwrap();
            let report = verify_export(&folder, Some(&key(&bench))).unwrap();
            // A changed record shows in the hash of its bundle's tile, and in the root.
            let hashes = name.replace("entries", "0");
            assert!(
                report.problems.iter().any(|problem| problem.file == name || problem.file == hashes),
                "{name} byte {at}: {report:?}"
            );
        }
        fs::write(&file, &good[..good.len() - 1]).unwrap();
        assert!(!verify_export(&folder, None).unwrap().is_good(), "{name} cut");
        fs::write(&file, [good.as_slice(), b"\0"].concat()).unwrap();
        assert!(!verify_export(&folder, None).unwrap().is_good(), "{name} longer");
        fs::remove_file(&file).unwrap();
        match verify_export(&folder, None) {
            Ok(report) => named(&report, &name, "is missing"),
            Err(e) => assert_eq!((e.kind(), name.as_str()), (Kind::NotFound, CHECKPOINT)),
        }
        fs::write(&file, &good).unwrap();
    }
    assert!(verify_export(&folder, Some(&key(&bench))).unwrap().is_good());
}

#[tokio::test]
async fn pieces_of_an_export_cannot_change_places() {
    let swap = |a: &'static str, b: &'static str| {
        move |folder: &Path| {
            let (first, second) = (fs::read(folder.join(a)).unwrap(), fs::read(folder.join(b)).unwrap());
            fs::write(folder.join(a), second).unwrap();
            fs::write(folder.join(b), first).unwrap();
        }
    };
    named(&spoiled(swap("tile/0/000", "tile/0/001")).await, "tile/0/000", "another hash 0");
    named(&spoiled(swap("tile/entries/000", "tile/entries/001")).await, CHECKPOINT, "signs other records");
    // Both together: what is consistent in itself is not what was signed.
    let both = |folder: &Path| {
        swap("tile/0/000", "tile/0/001")(folder);
        swap("tile/entries/000", "tile/entries/001")(folder);
        swap("tile/entries/000", "tile/entries/001")(folder);
    };
    assert!(!spoiled(both).await.is_good());
    let reorder = |folder: &Path| {
        let path = folder.join("tile/entries/001");
        let bundle = fs::read(&path).unwrap();
        let mut lines = entries(&bundle).unwrap();
        lines.swap(3, 4);
        let frame = |line: &&[u8]| [&u16::try_from(line.len()).unwrap().to_be_bytes()[..], line].concat();
        fs::write(&path, lines.iter().flat_map(frame).collect::<Vec<u8>>()).unwrap();
    };
    named(&spoiled(reorder).await, "tile/0/001", "another hash 3");
    // The whole export of an earlier day is whole in itself: that is what kept heads are for.
    let bench = Bench::new();
    let (log, heads, _) = filled(&bench, &[300]).await;
    let (folder, _) = exported(&bench, "www");
    let older = fs::read_to_string(folder.join(CHECKPOINT)).unwrap();
    for n in 300..600 {
        log.append(&record(n)).await.unwrap();
    }
    log.sign_head(&bench.signer).await.unwrap();
    let (folder, _) = exported(&bench, "www");
    assert!(verify_export(&folder, Some(&key(&bench))).unwrap().is_good());
    // The old head over the new tiles: the partial tiles of that size are still there, so it holds, and is the older one.
    fs::write(folder.join(CHECKPOINT), older).unwrap();
    let report = verify_export(&folder, Some(&key(&bench))).unwrap();
    assert_eq!(report.head.as_ref(), heads.first());
}

#[tokio::test]
async fn an_export_of_a_log_that_was_changed_gets_no_head() {
    let bench = Bench::new();
    drop(filled(&bench, &[300]).await);
    let copy = bench.copy("copy");
    let segment = super::segments(&copy).remove(0);
    let text = fs::read_to_string(&segment).unwrap().replacen("request-7\"", "request-8\"", 1);
    fs::write(&segment, text).unwrap();
    let to = bench.home.path().join("www");
    assert_eq!(export(&copy, &to, None).unwrap_err().kind(), Kind::Tampered);
    assert!(!to.join(CHECKPOINT).exists());
    let stranger = HeadKeys::new([&super::Signer::new().public]).unwrap();
    assert!(export(&bench.settings.folder, &to, Some(&stranger)).is_err());
    assert_eq!(export(bench.home.path(), &to, None).unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn stored_hashes_that_were_changed_are_never_shown_and_made_anew() {
    let bench = Bench::new().small_segments();
    let (log, heads, lines) = filled(&bench, &[700]).await;
    for (name, at) in [("tiles-0", 32 * 5), ("tiles-0", 32 * 600), ("tiles-1", 0), ("tiles-1", 33)] {
        let path = bench.path(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        // Whatever is made of what is there holds, or is refused.
        let mut refused = 0;
        for index in 0..700 {
            match log.with_tree(move |tree| tree.prove(index)).await {
                Ok(proof) => proof.verify(Some(&key(&bench))).unwrap(),
                Err(e) => {
                    assert_eq!(e.kind(), Kind::Unavailable, "{e}");
                    refused += 1;
                    log.tend().await.unwrap();
                }
            }
        }
        assert_eq!(refused, 1, "{name} byte {at}: found once, then made anew");
        let tree = log.tree().unwrap();
        judge(&Judge::of_tree(&tree), heads[0].note(), &lines, (0..700).step_by(50));
    }
    // Gone, cut and empty files.
    for spoil in [|path: &Path| fs::remove_file(path).unwrap(), |path: &Path| fs::write(path, b"").unwrap()] {
        spoil(&bench.path("tiles-0"));
        assert_eq!(log.with_tree(|tree| tree.prove(3)).await.unwrap_err().kind(), Kind::Unavailable);
        log.tend().await.unwrap();
        log.with_tree(|tree| tree.prove(3)).await.unwrap();
    }
}

#[tokio::test]
async fn stored_hashes_follow_the_log_over_starts() {
    let bench = Bench::new();
    drop(filled(&bench, &[300]).await);
    for (round, spoil) in ["nothing", "a tail that was never written", "no files", "another log's"].iter().enumerate() {
        match round {
            1 => fs::File::options().write(true).open(bench.path("tiles-0")).unwrap().set_len(32 * 270 + 5).unwrap(),
            2 => fs::remove_file(bench.path("tiles-0")).unwrap(),
            3 => fs::write(bench.path("tiles-0"), [7; 32 * 2000]).unwrap(),
            _ => {}
        }
        let opened = bench.open().unwrap();
        let log = opened.log;
        assert!(opened.recovered.is_empty(), "{spoil}: {:?}", opened.recovered);
        assert_eq!(log.tree().unwrap_err().kind(), Kind::Unavailable, "nothing is shown before it was compared");
        log.tend().await.unwrap();
        let size = log.tree().unwrap().head().size();
        for n in size..size + 50 {
            log.append(&record(n)).await.unwrap();
        }
        log.sign_head(&bench.signer).await.unwrap();
        let tree = log.tree().unwrap();
        assert_eq!(tree.head().size(), size + 50, "{spoil}: the hashes come with the head");
        tree.prove(size + 49).unwrap().verify(Some(&key(&bench))).unwrap();
        tree.consistency(size).unwrap();
    }
    assert!(bench.verify().is_good());
}

#[tokio::test]
async fn a_log_changed_before_its_hashes_were_made_is_found_while_they_are() {
    let bench = Bench::new();
    drop(filled(&bench, &[300]).await);
    fs::remove_file(bench.path("tiles-0")).unwrap();
    let segment = bench.segments().remove(0);
    let text = fs::read_to_string(&segment).unwrap().replacen("request-7\"", "request-8\"", 1);
    fs::write(&segment, text).unwrap();
    let log = bench.open().unwrap().log;
    assert_eq!(log.tend().await.unwrap_err().kind(), Kind::Tampered);
    assert_eq!(log.append(&record(300)).await.unwrap_err().kind(), Kind::Tampered);
    assert!(log.tree().is_err());
}

#[tokio::test]
async fn a_record_too_long_for_a_bundle_is_proven_all_the_same() {
    let bench = Bench::new();
    let log = bench.create();
    let item = Item { outcome: "x".repeat(70_000), reason: String::new(), version: 1, context: Default::default() };
    let long = Record { items: vec![item], ..record(0) };
    log.append(&long).await.unwrap();
    log.append(&record(1)).await.unwrap();
    log.sign_head(&bench.signer).await.unwrap();
    log.tend().await.unwrap();
    let tree = log.tree().unwrap();
    let refused = tree.tile("tile/entries/000.p/2".parse().unwrap()).unwrap_err();
    assert!(refused.kind() == Kind::Limit && refused.public().contains("record 0 has 70"), "{refused}");
    tree.prove(0).unwrap().verify(Some(&key(&bench))).unwrap();
    let (folder, done) = exported(&bench, "www");
    assert_eq!(done.too_long, [0]);
    let report = verify_export(&folder, Some(&key(&bench))).unwrap();
    named(&report, "tile/entries/000.p/2", "is missing");
    assert_eq!(report.problems.len(), 1, "the rest is still compared: {report:#?}");
}

#[tokio::test]
async fn a_foreign_client_reads_a_log_that_was_pruned() {
    let mut bench = Bench::new();
    bench.settings.segment_bytes = 500_000;
    let (log, _, mut lines) = filled(&bench, &[1, 300, 20_000]).await;
    let archive = bench.home.path().join("archive");
    fs::create_dir(&archive).unwrap();
    // Begun before, an export goes on to hold the records; begun later, it has their hashes.
    let (before, _) = exported(&bench, "before");
    signet::audit::archive(&bench.settings.folder, &archive, None).unwrap();
    let scene = super::prune::Scene { bench, archive, receipts: String::new() };
    let below = scene.prune(&log, 15_000).await.unwrap();
    assert!(below > 10_000);
    let act = signet::audit::read(&scene.bench.settings.folder, 20_000).unwrap().next().unwrap().unwrap().1;
    lines.push(serde_json::to_vec(&act).unwrap());
    let tree = log.tree().unwrap();
    let records = [0, 1, 255, 256, below - 1, below, 19_999, 20_000];
    judge(&Judge::of_tree(&tree), tree.head().note(), &lines, records);
    for name in ["before", "after"] {
        let (folder, _) = exported(&scene.bench, name);
        let note = fs::read_to_string(folder.join(CHECKPOINT)).unwrap();
        judge(&Judge::of_folder(&folder), &note, &lines, records);
        let report = verify_export(&folder, Some(&key(&scene.bench))).unwrap();
        assert!(report.is_good(), "{name}: {report:?}");
    }
    assert!(before.join("tile/entries/000").exists());
    let after = scene.bench.home.path().join("after");
    assert!(!after.join("tile/entries/000").exists() && after.join("tile/0/000").exists());
    // Without the record that they were pruned, the missing ones are missing.
    fs::remove_file(after.join("pruned")).unwrap();
    let report = verify_export(&after, Some(&key(&scene.bench))).unwrap();
    assert!(report.problems.iter().any(|problem| problem.file == "tile/entries/000"), "{report:?}");
}
