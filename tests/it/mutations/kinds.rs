//! The list: every kind of change that we could think of.

use super::*;

const DATABASE: &[&str] = &["signet.db"];
const LOG: &[&str] = &["audit"];
const ALL: &[&str] = &["signet.db", "audit", "root.json"];

pub(super) fn all() -> Vec<Mutation> {
    let mut all = Vec::new();
    let mut add = |family, what, by, named, make: Box<dyn Fn(&mut Scene)>| {
        all.push(Mutation { family, what, by, named, make });
    };
    macro_rules! add {
        ($family:literal, $by:ident, $what:literal, $named:literal, |$scene:ident| $make:expr) => {
            add(
                $family,
                $what,
                By::$by,
                $named,
                Box::new(|$scene: &mut Scene| {
                    let _ = $make;
                }),
            )
        };
    }
    // 1. Sealed records, row by row.
    add!("record", Start, "one bit of a sealed value", "keys/default/one does not open under its seal", |s| s
        .value(|b| b[40] ^= 1));
    add!("record", Start, "a sealed value cut short", "keys/default/one does not open under its seal", |s| s
        .value(|b| b.truncate(b.len() - 1)));
    add!("record", Start, "a sealed value emptied", "keys/default/one does not open under its seal", |s| s
        .value(Vec::clear));
    add!("record", Start, "the values of two keys exchanged", "keys/default/one does not open under its seal", |s| {
        s.sql(
        "CREATE TEMP TABLE t AS SELECT * FROM records WHERE path IN ('keys/default/one', 'keys/default/two');
         UPDATE records SET value = (SELECT value FROM t WHERE path = 'keys/default/two') WHERE path = 'keys/default/one';
         UPDATE records SET value = (SELECT value FROM t WHERE path = 'keys/default/one') WHERE path = 'keys/default/two'")
    });
    add!("record", Start, "the paths of two keys exchanged", "keys/default/one does not open under its seal", |s| s
        .sql(
            "UPDATE records SET path = 'x' WHERE path = 'keys/default/one';
         UPDATE records SET path = 'keys/default/one' WHERE path = 'keys/default/two';
         UPDATE records SET path = 'keys/default/two' WHERE path = 'x'"
        ));
    add!("record", Start, "a key under another name", "keys/default/four does not open under its seal", |s| s
        .sql("UPDATE records SET path = 'keys/default/four' WHERE path = 'keys/default/two'"));
    add!("record", Start, "a record copied to a new path", "keys/default/copy does not open under its seal", |s| {
        s.sql(
        "INSERT INTO records SELECT 'keys/default/copy', revision, value FROM records WHERE path = 'keys/default/one'"
    )
    });
    add!("record", Start, "another revision", "keys/default/one does not open under its seal", |s| s
        .sql("UPDATE records SET revision = revision - 1 WHERE path = 'keys/default/one'"));
    add!("record", Start, "a stranger's record", "keys/default/one does not open under its seal", |s| s.sql(&format!(
        "ATTACH {:?} AS other; DELETE FROM records WHERE path = 'keys/default/one';
         INSERT INTO records SELECT * FROM other.records WHERE path = 'keys/default/one'",
        s.other.data().join("signet.db").display()
    )));
    add!(
        "record",
        Start,
        "the older record of a key",
        "the records of the store are not those of its last change",
        |s| s.replay("path = 'keys/default/one'")
    );
    add!(
        "record",
        Start,
        "all older records of keys and versions",
        "the records of the store are not those of its last change",
        |s| s.replay("path LIKE 'keys/%' OR path LIKE 'versions/%'")
    );
    add!("record", Start, "the older policy", "the records of the store are not those of its last change", |s| s
        .replay("path LIKE 'policies/%'"));
    add!("record", Start, "the older identity", "the records of the store are not those of its last change", |s| s
        .replay("path LIKE 'identities/%'"));
    add!(
        "record",
        Start,
        "a revoked token as it was",
        "the records of the store are not those of its last change",
        |s| s.replay("path LIKE 'tokens/%'")
    );
    add!(
        "record",
        Start,
        "the older state of the ledger",
        "the records of the store are not those of its last change",
        |s| s.replay("path = 'ledger/open'")
    );
    add!(
        "record",
        Start,
        "everything older but the state of the ledger",
        "the records of the store are not those of its last change",
        |s| s.replay("path <> 'ledger/open'")
    );
    add!(
        "record",
        Start,
        "the older counts of certificates",
        "the records of the store are not those of its last change",
        |s| s.replay("path LIKE 'ledger/%' AND path <> 'ledger/open'")
    );
    add!("record", Start, "a key removed", "the records of the store are not those of its last change", |s| s
        .sql("DELETE FROM records WHERE path = 'keys/default/two'"));
    add!("record", Start, "a version removed", "the records of the store are not those of its last change", |s| s
        .sql("DELETE FROM records WHERE path = (SELECT max(path) FROM records WHERE path LIKE 'versions/%')"));
    add!(
        "record",
        Start,
        "what a device can do removed",
        "the records of the store are not those of its last change",
        |s| s.sql("DELETE FROM records WHERE path = 'trials/hsm'")
    );
    add!("record", Start, "what one device can do said of the other", "trials/tpm does not open under its seal", |s| s
        .sql(
            "UPDATE records SET value = (SELECT value FROM records WHERE path = 'trials/hsm') WHERE path = 'trials/tpm'"
        ));
    add!("record", Start, "a policy removed", "the records of the store are not those of its last change", |s| s
        .sql("DELETE FROM records WHERE path LIKE 'policies/%'"));
    add!(
        "record",
        Start,
        "the revocation of a token removed with it",
        "the records of the store are not those of its last change",
        |s| s.sql("DELETE FROM records WHERE path = (SELECT max(path) FROM records WHERE path LIKE 'tokens/%')")
    );
    add!("record", Start, "the state of the ledger removed", "the store at epoch 0", |s| s
        .sql("DELETE FROM records WHERE path = 'ledger/open'"));
    add!("record", Start, "all records removed", "root.json is not the one that this store vouches for", |s| s
        .sql("DELETE FROM records"));
    // 2. The public rows of certificates.
    add!("certificate", Reader, "the requester in a row edited", "was changed in the database", |s| s
        .certificates("UPDATE certificates SET requester = 'identity/somebody' WHERE number = 2"));
    add!("certificate", Start, "the last row removed", "the inventory of certificates holds", |s| s.certificates(
        "DELETE FROM certificate_ends WHERE number = (SELECT max(number) FROM certificates);
         DELETE FROM certificate_names WHERE number = (SELECT max(number) FROM certificates);
         DELETE FROM certificates WHERE number = (SELECT max(number) FROM certificates)"
    ));
    add!("certificate", Start, "a row copied to a new number", "the database file is damaged", |s| {
        s.certificates(
        "INSERT INTO certificates SELECT number + 100, randomblob(20), issuer, version, profile, requester, subject, names, not_before,
         not_after, at, body, tag FROM certificates WHERE number = 2")
    });
    add!("certificate", Reader, "the signatures of two rows exchanged", "was changed in the database", |s| s
        .certificates(
            "CREATE TEMP TABLE t AS SELECT * FROM certificate_ends WHERE number IN (1, 2);
         DELETE FROM certificate_ends WHERE number IN (1, 2);
         INSERT INTO certificate_ends SELECT 3 - number, at, signature, tag FROM t"
        ));
    add!("certificate", Start, "a name taken out of the index", "the inventory of certificates holds", |s| s
        .certificates("DELETE FROM certificate_names WHERE number = 2"));
    // 3. The file of the database.
    add!("database", Start, "one bit of a page", "the database file is damaged", |s| bytes(
        &s.data().join("signet.db"),
        |b| b[4096 + 3] ^= 4
    ));
    add!("database", Start, "the file cut in half", "the database file is damaged", |s| bytes(
        &s.data().join("signet.db"),
        |b| b.truncate(b.len() / 2)
    ));
    add!("database", Start, "an empty file", "not a database of signet", |s| bytes(
        &s.data().join("signet.db"),
        Vec::clear
    ));
    add!("database", Start, "no file", "the database is gone", |s| fs::remove_file(s.data().join("signet.db"))
        .unwrap());
    add!("database", Start, "a trigger that undoes what is written", "not those that signet makes", |s| s
        .sql("CREATE TRIGGER t AFTER INSERT ON records BEGIN DELETE FROM records WHERE path = new.path; END"));
    add!("database", Start, "a stranger's database", "house/root does not open under its seal", |s| put_back(
        s.other.data(),
        s.data(),
        DATABASE
    ));
    // 4. The log, its heads.
    add!("log", Auditor, "a word of a record", "was edited, moved, added or removed", |s| s.lines(|lines| {
        let line = lines.iter_mut().find(|line| line.contains("RevokeToken")).unwrap();
        *line = line.replace("RevokeToken", "CreateToken");
    }));
    add!("log", Start, "a record removed", "was edited, moved, added or removed", |s| s
        .lines(|lines| drop(lines.remove(5))));
    add!("log", Start, "a record put in", "was edited, moved, added or removed", |s| s
        .lines(|lines| lines.insert(5, lines[7].clone())));
    add!("log", Auditor, "two records in each other's place", "was edited, moved", |s| s
        .lines(|lines| lines.swap(4, 5)));
    add!("log", Auditor, "an older record in the place of a newer one", "was edited, moved", |s| s.lines(|lines| {
        let (a, b) = (0..lines.len())
            .flat_map(|a| (a + 1..lines.len()).map(move |b| (a, b)))
            .find(|(a, b)| lines[*a].len() == lines[*b].len() && lines[*a] != lines[*b])
            .unwrap();
        lines[b] = lines[a].clone();
    }));
    add!("log", Start, "the last records cut off", "but the log ends after", |s| s
        .lines(|lines| lines.truncate(lines.len() - 3)));
    add!("log", Start, "half a record at its end", "but the log ends after", |s| bytes(&s.segments().remove(0), |b| b
        .truncate(b.len() - 10)));
    add!("log", Start, "a segment removed", "the audit log is gone", |s| fs::remove_file(s.segments().remove(0))
        .unwrap());
    add!("log", Start, "a segment under another number", "are missing before it", |s| {
        let segment = s.segments().remove(0);
        fs::rename(&segment, segment.with_file_name("log-00000000000000000003.jsonl")).unwrap();
    });
    add!("log", Start, "the heads removed", "heads is missing", |s| fs::remove_file(s.data().join("audit/heads"))
        .unwrap());
    add!("log", Auditor, "the first lines of the heads cut away", "heads: what starts at byte 0 is no head", |s| edit(
        &s.data().join("audit/heads"),
        |lines| drop(lines.drain(..3))
    ));
    add!("log", Start, "a letter of the last head's signature", "is not signed by the key of this log", |s| bytes(
        &s.data().join("audit/heads"),
        |b| {
            let at = b.len() - 20;
            b[at] = if b[at] == b'A' { b'B' } else { b'A' };
        }
    ));
    add!("log", Start, "a stranger's log", "its heads are of", |s| put_back(s.other.data(), s.data(), LOG));
    // A log that was pruned: where it begins, the hashes of what is gone, and the archive that holds it.
    add!("pruned", PrunedStart, "the beginning removed", "are missing before it", |s| fs::remove_file(
        s.of_pruned("pruned")
    )
    .unwrap());
    add!("pruned", PrunedStart, "the beginning moved up", "what was written: pruned", |s| s
        .beginning(|words| words[2] = (words[2].parse::<u64>().unwrap() + 1).to_string()));
    add!("pruned", PrunedStart, "the beginning moved down, to where it was", "are missing before it", |s| {
        let once = s.kept("once").join("pruned");
        fs::copy(once, s.of_pruned("pruned")).unwrap()
    });
    add!("pruned", PrunedStart, "another number of bytes", "says that they have", |s| s
        .beginning(|words| words[3] = "1".into()));
    add!("pruned", PrunedStart, "another hash of what is gone in the beginning", "that do not lead to its head", |s| s
        .beginning(|words| {
            let other = if words[4].starts_with('A') { "B" } else { "A" };
            words[4].replace_range(..1, other);
        }));
    add!("pruned", PrunedStart, "the beginning of a stranger's making", "is not signed by the key of this log", |s| {
        bytes(&s.of_pruned("pruned"), |b| {
            let at = b.len() - 20;
            b[at] = if b[at] == b'A' { b'B' } else { b'A' };
        })
    });
    add!("pruned", PrunedStart, "a segment removed as if it was pruned", "are missing before it", |s| {
        let files = fs::read_dir(s.of_pruned("")).unwrap().map(|entry| entry.unwrap().path());
        fs::remove_file(files.filter(|file| file.extension().is_some_and(|end| end == "jsonl")).min().unwrap())
            .unwrap();
    });
    add!("pruned", PrunedStart, "the hashes of what is gone removed", "tiles-0 does not hold the hashes", |s| {
        fs::remove_file(s.of_pruned("tiles-0")).unwrap()
    });
    add!("pruned", PrunedAuditor, "a hash of what is gone", "tiles-0", |s| bytes(&s.of_pruned("tiles-0"), |b| b
        [70] ^=
        1));
    add!("pruned", PrunedStart, "the log of before, unpruned", "that the audit log, with", |s| {
        fs::remove_dir_all(s.of_pruned("")).unwrap();
        copy_all(&s.kept("unpruned"), &s.of_pruned(""));
    });
    add!("pruned", PrunedAuditor, "a piece of the archive removed", "are missing before it", |s| fs::remove_file(
        s.piece()
    )
    .unwrap());
    add!("pruned", PrunedAuditor, "a record in the archive", "was edited, moved, added or removed", |s| {
        let other =
            fs::read_dir(&s.archived).unwrap().map(|entry| entry.unwrap().path()).filter(|path| *path != s.piece());
        let other = other.filter(|path| path.extension().is_some_and(|end| end == "gz")).max().unwrap();
        fs::copy(other, s.piece()).unwrap();
    });
    // 5. What says which installation this is.
    add!(
        "root",
        Start,
        "the key of the log, for the attacker's own",
        "root.json is not the one that this store vouches for",
        |s| {
            let mut changed = root(s.data());
            changed["log_public"] = root(s.other.data())["log_public"].clone();
            fs::write(s.data().join("root.json"), serde_json::to_vec(&changed).unwrap()).unwrap();
        }
    );
    add!("root", Start, "a stranger's", "was enrolled", |s| put_back(s.other.data(), s.data(), &["root.json"]));
    add!("root", Start, "none", "is not the data folder of an installation", |s| fs::remove_file(
        s.data().join("root.json")
    )
    .unwrap());
    // 6. States of once, whole and mixed.
    add!("state", Start, "the whole folder of before", "rollback: the anchor in hsm", |s| s.put_back("old", ALL));
    add!("state", Start, "the whole folder of a moment ago", "rollback: the anchor in hsm", |s| s.put_back("mid", ALL));
    add!("state", Start, "the database of before", "rollback: the anchor in hsm", |s| s.put_back("old", DATABASE));
    add!("state", Start, "the log of before", "that the audit log, with", |s| s.put_back("old", LOG));
    add!("state", Start, "the database of once, the log of later", "rollback: the anchor in hsm", |s| {
        s.put_back("old", DATABASE);
        s.put_back("mid", LOG);
    });
    add!("state", Start, "the log of once, the database of later", "rollback: the anchor in hsm", |s| {
        s.put_back("mid", DATABASE);
        s.put_back("old", LOG);
    });
    add!("state", Start, "the whole folder of before, with its token", "rollback: the anchor in tpm", |s| {
        s.put_back("old", ALL);
        s.token("old");
    });
    add!("state", Start, "the token of before", "of another history than the store", |s| s.token("old"));
    // 7. Anchors.
    add!(
        "anchor",
        Start,
        "removed from the token",
        "the anchor in hsm cannot be read: the token holds no anchor",
        |s| remove_anchor(&s.t.hsm, s.data())
    );
    add!("anchor", Start, "garbage in the token", "the anchor in hsm holds nothing", |s| s.write_anchor(b"garbage"));
    add!("anchor", Start, "zeros in the token", "the anchor in hsm holds nothing", |s| s.write_anchor(&[0; 48]));
    add!("anchor", Start, "removed from the TPM", "the anchor in tpm cannot be read: the TPM holds no anchor", |s| {
        let (index, tcti) = s.index();
        tool("tpm2_nvundefine", &["--tcti", &tcti, "-C", "o", &index]);
    });
    add!(
        "anchor",
        Start,
        "another index in its place in the TPM",
        "the anchor in tpm cannot be read: TPM2_NV_Read",
        |s| {
            let (index, tcti) = s.index();
            tool("tpm2_nvundefine", &["--tcti", &tcti, "-C", "o", &index]);
            tool(
                "tpm2_nvdefine",
                &["--tcti", &tcti, "-C", "o", "-s", "96", "-a", "authread|authwrite|no_da", "-p", "other", &index],
            );
        }
    );
    add!("anchor", Start, "an empty token of that name", "was enrolled", |s| {
        exchange(&SoftHsm::new(), &s.t.hsm);
    });
    add!("anchor", Start, "a stranger's token", "was enrolled", |s| {
        exchange(&s.other.hsm, &s.t.hsm);
    });
    // 8. Backups.
    add!("backup", Restore, "of before, as it is", "rollback: the anchor in hsm", |s| fs::copy(
        s.kept("old.tar"),
        s.archive()
    )
    .unwrap());
    add!("backup", Restore, "one bit of its database", "its files are not those of its manifest", |s| {
        let mut database = unpacked(&s.archive(), "signet.db");
        database[5000] ^= 1;
        repack(&s.archive(), "signet.db", Some(&database));
    });
    add!("backup", Restore, "cut short", "it is cut off", |s| bytes(&s.archive(), |b| b.truncate(b.len() / 3)));
    add!("backup", Restore, "the database of an older backup", "its files are not those of its manifest", |s| {
        repack(&s.archive(), "signet.db", Some(&unpacked(&s.kept("old.tar"), "signet.db")));
    });
    add!("backup", Restore, "without its root", "its files are not those of its manifest", |s| repack(
        &s.archive(),
        "root.json",
        None
    ));
    add!("backup", Restore, "with a file too many", "its files are not those of its manifest", |s| repack(
        &s.archive(),
        "signet.db-wal",
        Some(b"more")
    ));
    add!(
        "backup",
        Restore,
        "the database of an older backup, and a manifest that says so",
        "rollback: the anchor in hsm",
        |s| {
            let old = s.kept("old.tar");
            repack(&s.archive(), "signet.db", Some(&unpacked(&old, "signet.db")));
            let (new, old) = (unpacked(&s.archive(), "manifest.json"), unpacked(&old, "manifest.json"));
            let (mut new, old): (serde_json::Value, serde_json::Value) =
                (serde_json::from_slice(&new).unwrap(), serde_json::from_slice(&old).unwrap());
            new["files"]["signet.db"] = old["files"]["signet.db"].clone();
            repack(&s.archive(), "manifest.json", Some(&serde_json::to_vec(&new).unwrap()));
        }
    );
    add!("backup", Restore, "a stranger's", "was enrolled", |s| fs::copy(s.kept("other.tar"), s.archive()).unwrap());
    all
}
