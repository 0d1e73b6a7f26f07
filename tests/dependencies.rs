//! The rules of `deny.toml`, checked offline against the graph that is really built: licences, banned crates, two versions of
//! one crate, and where crates come from. `cargo deny check` reads the same file, and knows of advisories besides.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may stop")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

#[derive(Deserialize)]
struct Deny {
    graph: Graph,
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Entry>,
    skip: Vec<Entry>,
}

#[derive(Deserialize)]
struct Sources {
    #[serde(rename = "allow-registry")]
    registries: Vec<String>,
}

/// A crate, or one version of it, and why it is named.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

/// A crate of the graph.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    licence: String,
}

#[test]
fn licences_are_on_the_list() {
    let allow = deny().licenses.allow;
    let unknown: Vec<_> = graph()
        .into_iter()
        .filter(|package| !Expression::new(&package.licence).holds(&allow))
        .map(|Package { name, version, licence }| format!("{name} {version}: {licence:?}"))
        .collect();
    assert!(unknown.is_empty(), "\n{}", unknown.join("\n"));
    let used: String = graph().into_iter().map(|package| package.licence + "\n").collect();
    for licence in &allow {
        assert!(used.contains(licence.as_str()), "deny.toml allows {licence}, which nothing needs");
    }
}

#[test]
fn banned_crates_stay_out() {
    let names: BTreeSet<_> = graph().into_iter().map(|package| package.name).collect();
    for Entry { name, reason } in deny().bans.deny {
        assert!(!names.contains(&name), "{name} is banned: {reason}; `cargo tree -i {name}` shows who brings it");
    }
}

#[test]
fn second_versions_have_a_reason_with_a_date() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for Package { name, version, .. } in graph() {
        versions.entry(name).or_default().insert(version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    for Entry { name: entry, reason } in deny().bans.skip {
        let (name, version) = entry.split_once('@').expect("name@version");
        let dated = reason.split_once(": ").is_some_and(|(date, why)| {
            let numbers = date.split_once('-').map(|(year, month)| (year.len(), month.len()));
            numbers == Some((4, 2)) && date.bytes().all(|b| b.is_ascii_digit() || b == b'-') && !why.is_empty()
        });
        assert!(dated, "{entry}: the reason begins with year, month and a colon");
        let needed = versions.get_mut(name).is_some_and(|versions| versions.remove(version));
        assert!(needed, "{entry} is excused and not needed any more: take it out of deny.toml");
    }
    versions.retain(|_, versions| versions.len() > 1);
    assert!(versions.is_empty(), "several versions of one crate: {versions:?}");
}

#[test]
fn crates_come_from_known_registries() {
    let registries: Vec<_> = deny().sources.registries.into_iter().map(|url| format!("registry+{url}")).collect();
    let lock: toml::Table = toml::from_str(&read("Cargo.lock")).unwrap();
    let packages = lock["package"].as_array().unwrap();
    for package in packages {
        // Our own crates have no source.
        let Some(source) = package.get("source") else { continue };
        let known = registries.iter().any(|registry| source.as_str() == Some(registry));
        assert!(known, "{} comes from {source}", package["name"]);
        assert!(package.get("checksum").is_some(), "{} has no checksum", package["name"]);
    }
    assert!(packages.len() > 100);
}

/// All that is built for any target of `deny.toml`, with every feature, ourselves included.
fn graph() -> BTreeSet<Package> {
    let mut found = BTreeSet::new();
    for target in deny().graph.targets {
        let tree = Command::new(env!("CARGO"))
            .args(["tree", "--locked", "--offline", "--workspace", "--all-features", "--prefix", "none"])
            .args(["--edges", "normal,build,dev", "--format", "{p}\t{l}\t", "--target", &target])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        for line in String::from_utf8(tree.stdout).unwrap().lines().filter(|line| !line.is_empty()) {
            let mut parts = line.split('\t');
            let (package, licence) = (parts.next().unwrap(), parts.next().unwrap());
            let mut words = package.split(' ');
            found.insert(Package {
                name: words.next().unwrap().to_owned(),
                version: words.next().unwrap().trim_start_matches('v').to_owned(),
                licence: licence.to_owned(),
            });
        }
    }
    assert!(found.len() > 100);
    found
}

fn deny() -> Deny {
    toml::from_str(&read("deny.toml")).unwrap()
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// An SPDX licence expression: `OR` of `AND` of licences and brackets. `/` is the old way to write `OR`.
struct Expression<'a> {
    words: Vec<&'a str>,
    at: usize,
}

impl<'a> Expression<'a> {
    fn new(text: &'a str) -> Self {
        let mut words = Vec::new();
        for word in text.split_inclusive(['(', ')', '/', ' ']) {
            let (word, mark) = match word.char_indices().next_back() {
                Some((at, '(' | ')' | '/' | ' ')) => word.split_at(at),
                _ => (word, ""),
            };
            words.extend([word, mark.trim()].into_iter().filter(|word| !word.is_empty()));
        }
        Self { words, at: 0 }
    }

    /// Whether one of the ways to choose is wholly allowed. What cannot be read is not.
    fn holds(mut self, allow: &BTreeSet<String>) -> bool {
        let holds = self.any(allow);
        holds && self.at == self.words.len()
    }

    fn any(&mut self, allow: &BTreeSet<String>) -> bool {
        let mut holds = self.all(allow);
        while self.take("OR") || self.take("/") {
            holds |= self.all(allow);
        }
        holds
    }

    fn all(&mut self, allow: &BTreeSet<String>) -> bool {
        let mut holds = self.one(allow);
        while self.take("AND") {
            holds &= self.one(allow);
        }
        holds
    }

    fn one(&mut self, allow: &BTreeSet<String>) -> bool {
        if self.take("(") {
            let holds = self.any(allow);
            return self.take(")") && holds;
        }
        let mut licence = self.next();
        if self.take("WITH") {
            licence = format!("{licence} WITH {}", self.next());
        }
        allow.contains(&licence)
    }

    fn take(&mut self, word: &str) -> bool {
        let there = self.words.get(self.at) == Some(&word);
        self.at += usize::from(there);
        there
    }

    fn next(&mut self) -> String {
        let word = self.words.get(self.at).copied().unwrap_or_default();
        self.at += 1;
        word.to_owned()
    }
}

#[test]
fn licence_expressions_are_understood() {
    let allow = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    let holds = |text: &str| Expression::new(text).holds(&allow);
    assert!(
        ["MIT", "GPL-3.0 OR MIT", "Apache-2.0/MIT", "Apache-2.0 / MIT", "(A OR MIT) AND ISC"].map(holds) == [true; 5]
    );
    assert!(holds("Apache-2.0 WITH LLVM-exception OR A") && holds("ISC AND (MIT OR (A AND B))"));
    assert!(["", "MIT AND A", "A", "Apache-2.0", "(MIT", "MIT)", "MIT ISC", "A OR B AND MIT"].map(holds) == [false; 8]);
}

/// The fuzz targets are built alone and locked: a crate that their lock does not know stops `make fuzz`.
#[test]
fn the_lock_of_the_fuzz_targets_knows_every_crate_of_ours() {
    #[derive(Deserialize)]
    struct Manifest {
        dependencies: BTreeMap<String, toml::Value>,
    }
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Locked>,
    }
    #[derive(Deserialize)]
    struct Locked {
        name: String,
        #[serde(default)]
        dependencies: Vec<String>,
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| fs::read_to_string(root.join(file)).unwrap();
    let manifest: Manifest = toml::from_str(&read("Cargo.toml")).unwrap();
    let lock: Lock = toml::from_str(&read("fuzz/Cargo.lock")).unwrap();
    let own = lock.package.iter().find(|package| package.name == "signet").unwrap();
    let known: BTreeSet<_> = own.dependencies.iter().filter_map(|text| text.split(' ').next()).collect();
    // What is optional is left out there.
    let wanted = manifest.dependencies.iter().filter(|(_, what)| what.get("optional").is_none());
    let missing: Vec<_> = wanted.map(|(name, _)| name).filter(|name| !known.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "run `cargo update --workspace` in fuzz/: its lock does not know {missing:?}");
}
