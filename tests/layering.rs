//! The import rules of ARCHITECTURE.md, checked against the source.
//!
//! If a test here fails, move the code rather than the row.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may stop")]

#[path = "support/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use source::{code, read, rust_files, without_tests};

/// Each row names a module of `src/` and the modules that it may import. A row may only name rows above it, so the table
/// itself cannot hold a cycle. Rows for modules that are not there yet keep their place.
#[rustfmt::skip]
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("types", &[]),
    ("telemetry", &[]),
    ("confine", &[]),
    ("jose", &[]),
    ("outbound", &[]),
    ("bucket", &["outbound"]),
    ("otlp", &["outbound"]),
    ("validation", &[]),
    ("webhook", &["outbound"]),
    ("x509", &[]),
    ("ciphertext", &[]),
    ("attestation", &["x509"]),
    ("wire", &[]),
    ("client", &["attestation", "wire"]),
    ("device", &["confine", "attestation"]),
    // What is true of a device is a value of `device`, and `config` makes it of what was written.
    ("config", &["outbound", "bucket", "otlp", "webhook", "device"]),
    ("store", &[]),
    ("policy", &[]),
    ("auth", &["store"]),
    ("audit", &["outbound", "bucket", "otlp", "device", "store"]),
    ("ledger", &["device", "store", "audit"]),
    ("admission", &["store", "policy", "audit", "ledger"]),
    // Whoever asks `admission` speaks the words of `policy` (what is asked for) and `audit` (which phase is recorded).
    ("keyring", &["attestation", "device", "store", "policy", "audit", "ledger", "admission"]),
    ("envelope", &["ciphertext", "admission", "keyring"]),
    // `device` for the type of a failure, item by item.
    ("signing", &["device", "admission", "keyring"]),
    ("ca", &["jose", "validation", "webhook", "x509", "store", "policy", "audit", "ledger", "admission", "keyring", "signing"]),
    ("service", &["jose", "validation", "x509", "attestation", "device", "store", "policy", "auth", "audit", "ledger", "admission", "keyring", "envelope", "signing", "ca"]),
    ("doctor", &["bucket", "otlp", "webhook", "x509", "config", "device", "store", "audit", "service"]),
    ("api", &["jose", "x509", "ciphertext", "attestation", "wire", "auth", "service"]),
    ("server", &["validation", "webhook", "ciphertext", "attestation", "config", "device", "store", "policy", "auth", "audit", "ledger", "admission", "keyring", "envelope", "signing", "ca", "service", "doctor", "api"]),
    // `device` for the file of a key that was made in the TPM beside the agent, which is `device::tpm::keyfile` and nothing else.
    ("agent", &["x509", "wire", "client", "device"]),
    ("file", &["wire", "client"]),
    ("bundle", &["attestation", "audit"]),
    ("witness", &["config", "device", "audit", "server"]),
    // `device` for the verb `device-worker`, which is that module and nothing else.
    ("cli", &["confine", "bucket", "ciphertext", "attestation", "wire", "config", "client", "device", "audit", "doctor", "server", "agent", "file", "bundle", "witness"]),
];

/// Free to all.
const COMMON: &[&str] = &["error", "types", "telemetry"];

/// Macros stand at the root of the crate, whatever module declares them.
const MACROS: &[(&str, &str)] = &[("crash_point", "types")];

/// Crates that speak for the outside world stay behind one module of ours.
#[rustfmt::skip]
const ONLY_IN: &[(&str, &[&str])] = &[
    ("pkcs11_raw", &["src/device/pkcs11"]),
    ("tss_esapi", &["src/device/tpm"]),
    ("seccompiler", &["src/confine"]),
    ("postcard", &["src/device"]),
    ("rusqlite", &["src/store"]),
    ("cedar_policy", &["src/policy"]),
    ("axum", &["src/api", "src/server", "src/witness"]),
    ("hyper", &["src/outbound", "src/validation", "src/server"]),
    ("hyper_util", &["src/outbound", "src/validation", "src/server"]),
    ("tokio_rustls", &["src/outbound", "src/validation", "src/server"]),
    ("tower", &["src/api", "src/server"]),
    ("reqwest", &["src/client"]),
    ("clap", &["src/cli"]),
    ("clap_complete", &["src/cli"]),
    ("comfy_table", &["src/cli"]),
    ("indicatif", &["src/cli"]),
    ("prometheus_client", &["src/telemetry"]),
    ("tracing_subscriber", &["src/telemetry"]),
    ("utoipa", &["src/types", "src/wire", "src/api"]),
    ("aead_stream", &["src/file"]),
    // Only the crates beside this one load C libraries and call them.
    ("libloading", &[]),
    ("cryptoki_sys", &[]),
];

#[test]
fn rows_name_only_rows_above_them() {
    let mut above = BTreeSet::new();
    for (module, imports) in MAY_IMPORT {
        for import in *imports {
            assert!(above.contains(import), "{module} names {import}, which is not above it");
        }
        assert!(above.insert(*module), "{module} has two rows");
    }
}

#[test]
fn modules_stand_in_lib_rs_in_the_order_of_the_table() {
    let lib = code(&read("src/lib.rs"));
    let declared: Vec<_> = lib.split("mod ").skip(1).map(first_word).collect();
    let mut rows = MAY_IMPORT.iter().map(|(module, _)| *module);
    for module in &declared {
        assert!(rows.any(|row| row == module), "src/lib.rs: {module} has no row, or stands in the wrong place");
    }
    assert!(declared.len() > 10, "{declared:?}");
}

#[test]
fn imports_point_down() {
    let mut broken = Vec::new();
    for (module, allowed) in MAY_IMPORT {
        for file in rust_files(module) {
            for used in imports(&file) {
                let free = used == *module || COMMON.contains(&used.as_str()) || allowed.contains(&used.as_str());
                // What is free to all must itself stand on its feet: it is bound to the rows above it.
                let below = COMMON.contains(module) && position(&used) > position(module);
                if !free || below {
                    broken.push(format!("{}: {module} must not import {used}", file.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn crates_stay_home() {
    let mut broken = Vec::new();
    for (name, homes) in ONLY_IN {
        for file in MAY_IMPORT.iter().flat_map(|(module, _)| rust_files(module)) {
            let at_home = homes.iter().any(|home| file.starts_with(home) || file.with_extension("") == Path::new(home));
            if !at_home && names_crate(&code(&read(&file)), name) {
                broken.push(format!("{}: {name} belongs in {homes:?}", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn protocols_do_not_know_each_other() {
    let mut broken = Vec::new();
    for file in rust_files("api") {
        let own = file.iter().nth(2).map(|name| Path::new(name).with_extension(""));
        for used in first_segments(&code(&read(&file)), "crate::api::") {
            // What is shared by all protocols stands in `api` itself, in `mod.rs`, and is not a folder.
            let folder = Path::new("src/api").join(&used);
            if own.as_deref() != Some(Path::new(&used)) && folder.is_dir() {
                broken.push(format!("{}: imports the protocol {used}", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// The modules of `src/` that a file names: by `crate::`, in groups as well, or by enough `super::` to get to the root. Unit tests
/// may look anywhere.
fn imports(file: &Path) -> BTreeSet<String> {
    let source = code(&read(file));
    let source = without_tests(&source);
    let mut found = first_segments(source, "crate::");
    let climb = "super::".repeat(depth(file));
    found.extend(first_segments(source, &climb).into_iter().filter(|word| position(word).is_some()));
    let home = |word: String| MACROS.iter().find(|(name, _)| *name == word).map_or(word, |(_, at)| (*at).to_owned());
    found.into_iter().map(home).collect()
}

/// How many steps it is from a file's module up to the root: `src/a.rs` and `src/a/mod.rs` are one below it.
fn depth(file: &Path) -> usize {
    let module: PathBuf = file.iter().skip(1).collect();
    let own = module.file_name().is_some_and(|name| name != "mod.rs");
    module.iter().count() - usize::from(!own)
}

fn position(module: &str) -> Option<usize> {
    MAY_IMPORT.iter().position(|(row, _)| *row == module)
}

/// The words that follow `prefix`; for `prefix{a::b, c}` these are `a` and `c`.
fn first_segments(source: &str, prefix: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in source.match_indices(prefix) {
        let rest = &source[at + prefix.len()..];
        let items = rest.strip_prefix('{').map_or_else(|| vec![rest.to_owned()], top_level_items);
        found.extend(items.iter().map(|item| first_word(item)).filter(|word| !word.is_empty()));
    }
    found
}

/// Splits `a::{b, c}, d} ...` into `a::{b, c}` and `d`, stopping at the closing brace.
fn top_level_items(group: &str) -> Vec<String> {
    let (mut items, mut depth) = (vec![String::new()], 0);
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => {
                items.push(String::new());
                continue;
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        items.last_mut().unwrap().push(c);
    }
    items
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Whether `name` stands in `source` as a crate: followed by `::`, or whole in a `use`.
fn names_crate(source: &str, name: &str) -> bool {
    source.match_indices(name).any(|(at, _)| {
        let before = source[..at].chars().next_back();
        let after = &source[at + name.len()..];
        let begins = !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.');
        let of_path = source[..at].ends_with("::") && !source[..at].ends_with(" ::");
        let used = source[..at].trim_end().ends_with("use") && (after.starts_with(';') || after.starts_with(" as "));
        begins && !of_path && (after.starts_with("::") || used)
    })
}

#[test]
fn groups_and_climbs_are_seen() {
    let words = |source, prefix| first_segments(source, prefix).into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(words("use crate::{a::{b, c}, d};\nuse crate::e::f; g(crate::h::i)", "crate::"), "a d e h");
    assert_eq!(depth(Path::new("src/admission.rs")), 1);
    assert_eq!(depth(Path::new("src/keyring/mod.rs")), 1);
    assert_eq!(depth(Path::new("src/device/tpm/link.rs")), 3);
    assert!(names_crate("use clap::Parser;", "clap") && names_crate("#[derive(clap::Args)]", "clap"));
    assert!(!names_crate("self.clap::<A>() my_clap::b a::clap::b", "clap"));
}
