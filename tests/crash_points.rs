//! Every call that changes something stands between two crash points, and no point is lost.
//!
//! `tests/it/crash.rs` ends the service at each point of `tests/golden/crash-points.txt`, so a change that is made between
//! points is tried there without anybody having to remember it. `make golden` renews that file; its diff is the review.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may stop")]

#[path = "support/golden.rs"]
mod golden;
#[path = "support/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::ops::Range;

use source::{code, read, rust_files, rust_files_below, without_tests};

/// The modules whose calls change the state of the service, or the files beside one. The store, the log and the drivers below them are broken at each
/// system call by tests of their own.
const WATCHED: &[&str] = &["ledger", "admission", "keyring", "ca", "service", "server", "agent", "witness"];

/// The calls that change a device, the store, the log or a file. Making a folder is none: one that is there already is as
/// good as a new one.
const CALLS: &[(&str, On)] = &[
    // A method of ours of that name has the points itself.
    (".commit(", On::AllBut(&["ledger"])),
    (".destroy(", On::AllBut(&["self", "keyring"])),
    (".append(", On::Only(&["log"])),
    // What is said of certificates, by `ledger`.
    (".reserve(", On::Only(&["ledger"])),
    (".end(", On::Only(&["ledger"])),
    (".sign_structure(", On::Any),
    (".sign_structures(", On::AllBut(&["self"])),
    (".generate(", On::Any),
    (".make_anchor(", On::Any),
    (".make_attestation_key(", On::Any),
    (".make_missing_keks(", On::Any),
    (".make_shared(", On::Any),
    (".pass_on_shared(", On::Any),
    (".take_shared(", On::Any),
    (".write(", On::Only(&["anchor"])),
    (".enrol(", On::AllBut(&["self"])),
    (".persist(", On::Any),
    (".persist_noclobber(", On::Any),
    ("File::create(", On::Any),
    ("File::create_new(", On::Any),
    ("fs::copy(", On::Any),
    ("fs::hard_link(", On::Any),
    ("fs::remove_dir_all(", On::Any),
    ("fs::remove_file(", On::Any),
    ("fs::rename(", On::Any),
    ("fs::write(", On::Any),
];

/// On which receivers a call counts, by the last word before it.
#[derive(Clone, Copy)]
enum On {
    Any,
    Only(&'static [&'static str]),
    AllBut(&'static [&'static str]),
}

/// Functions whose call needs no points, and why.
const EXEMPT: &[(&str, &str, &str)] = &[
    ("src/admission.rs", "refuse", "a refusal changes nothing, and nothing is answered before it is recorded"),
    ("src/admission.rs", "unauthenticated", "as a refusal"),
    (
        "src/ledger/mod.rs",
        "commit",
        "its callers stand between points: changes and checkpoints end at points of their own",
    ),
    ("src/admission.rs", "recovered", "tells what was mended before; told again after a crash or not, nothing changes"),
    ("src/server/mod.rs", "clear", "removes what nobody points to; what a crash leaves of it the next start removes"),
    ("src/admission.rs", "alarmed", "tells what is so whether it is told or not"),
    ("src/admission.rs", "told_of_device", "as that one"),
    ("src/admission.rs", "drop", "the caller is gone, and nothing waits for this record"),
    ("src/agent/pair.rs", "follow", "what a crash tears cannot be read, and is drawn again"),
    ("src/agent/pair.rs", "clear", "as that one: its points stand around both ways to remove something"),
    ("src/ca/status.rs", "make_list", "a list that nobody has seen is made again, under a greater number"),
    ("src/ca/status.rs", "sign", "an answer that nobody has seen is signed again"),
];

/// Names that stand in several places because the same thing has just happened there.
const SHARED: &[&str] = &["issuer.published", "keyring.published"];

/// What a function does that matters here, in order.
#[derive(Debug)]
enum Event {
    Point(String),
    Call(&'static str, usize),
}

/// A function with its events.
struct Function {
    file: String,
    name: String,
    events: Vec<Event>,
}

#[test]
fn changes_stand_between_crash_points() {
    let mut bare = Vec::new();
    for Function { file, name, events } in functions() {
        if EXEMPT.iter().any(|(of, function, _)| *of == file && *function == name) {
            continue;
        }
        let point = |at: Option<usize>| at.and_then(|at| events.get(at)).is_some_and(|e| matches!(e, Event::Point(_)));
        for (at, event) in events.iter().enumerate() {
            let Event::Call(call, line) = event else { continue };
            for (side, there) in [("before", point(at.checked_sub(1))), ("after", point(Some(at + 1)))] {
                if !there {
                    bare.push(format!("{file}:{line}: no crash point {side} `{call}..)` in {name}"));
                }
            }
        }
    }
    assert!(bare.is_empty(), "\n{}", bare.join("\n"));
}

#[test]
fn every_point_is_in_the_register_once() {
    let mut register = String::new();
    let mut seen = BTreeSet::new();
    for Function { file, name, events } in functions() {
        for event in events {
            let Event::Point(point) = event else { continue };
            assert!(seen.insert(point.clone()) || SHARED.contains(&point.as_str()), "{point} stands in two places");
            register.push_str(&format!("{point:<30} {file} {name}\n"));
        }
    }
    golden::check("crash-points.txt", &register);
}

#[test]
fn exemptions_are_needed() {
    let all = functions();
    for (file, name, _) in EXEMPT {
        let function = all.iter().find(|function| function.file == *file && function.name == *name);
        let calls = function.is_some_and(|found| found.events.iter().any(|event| matches!(event, Event::Call(..))));
        assert!(calls, "{file}: {name} has no such call any more");
    }
    for name in SHARED {
        let places = all.iter().flat_map(|function| &function.events);
        let count = places.filter(|event| matches!(event, Event::Point(point) if point == name)).count();
        assert!(count > 1, "{name} is not shared any more");
    }
}

/// All functions that have events. Points count wherever they stand, calls in the watched modules.
fn functions() -> Vec<Function> {
    let watched: Vec<_> = WATCHED.iter().flat_map(|module| rust_files(module)).collect();
    let mut found = Vec::new();
    for file in rust_files_below("src") {
        let text = read(&file);
        let code = code(&text);
        let code = without_tests(&code);
        let bodies = bodies(code);
        let mut events = events(&text, code);
        events.retain(|(_, event)| matches!(event, Event::Point(_)) || watched.contains(&file));
        events.sort_by_key(|(at, _)| *at);
        let mut own: Vec<Function> = bodies
            .iter()
            .map(|(name, _)| Function { file: file.display().to_string(), name: name.clone(), events: Vec::new() })
            .collect();
        for (at, event) in events {
            let innermost = bodies.iter().enumerate().filter(|(_, (_, body))| body.contains(&at));
            let (index, _) = innermost.min_by_key(|(_, (_, body))| body.len()).expect("code stands in a function");
            own[index].events.push(event);
        }
        found.extend(own.into_iter().filter(|function| !function.events.is_empty()));
    }
    found
}

fn events(text: &str, code: &str) -> Vec<(usize, Event)> {
    const POINT: &str = "crash_point!(";
    let mut events = Vec::new();
    for (at, _) in code.match_indices(POINT) {
        // The name is text, so it is blank in the code.
        let name = text[at + POINT.len()..].trim_start().trim_start_matches('"');
        events.push((at, Event::Point(name.split('"').next().unwrap().to_owned())));
    }
    for (call, on) in CALLS {
        for (at, _) in code.match_indices(call) {
            let receiver = receiver(&code[..at]);
            let counts = match on {
                On::Any => true,
                On::Only(names) => names.contains(&receiver),
                On::AllBut(names) => !names.contains(&receiver),
            };
            if counts {
                let line = code[..at].matches('\n').count() + 1;
                events.push((at, Event::Call(call, line)));
            }
        }
    }
    events
}

/// The last word before a call: `ledger` in `self.parts.ledger`.
fn receiver(before: &str) -> &str {
    let before = before.trim_end();
    let word = |c: char| c.is_alphanumeric() || c == '_';
    &before[before.trim_end_matches(word).len()..]
}

/// Names and bodies of all functions.
fn bodies(code: &str) -> Vec<(String, Range<usize>)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let whole_word = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let name: String = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if whole_word
            && !name.is_empty()
            && let Some(body) = body(code, at)
        {
            found.push((name, body));
        }
    }
    found
}

/// From the first brace outside the parameters to its partner; a declaration without a body has none.
fn body(code: &str, from: usize) -> Option<Range<usize>> {
    let (mut round, mut curly, mut start) = (0, 0, None);
    for (at, c) in code[from..].char_indices() {
        match c {
            '(' | '[' => round += 1,
            ')' | ']' => round -= 1,
            ';' if round == 0 && start.is_none() => return None,
            '{' if start.is_some() || round == 0 => {
                start = start.or(Some(from + at));
                curly += 1;
            }
            '}' if start.is_some() => {
                curly -= 1;
                if curly == 0 {
                    return start.map(|start| start..from + at);
                }
            }
            _ => {}
        }
    }
    None
}

#[test]
fn calls_are_found_with_their_functions() {
    let text = "fn a<T>(b: fn(u8), c: [u8; 2]) where T: D { x.store\n  .commit(1); self.ledger.commit(2) }\ntrait E { fn f(); }";
    let code = code(text);
    let bodies = bodies(&code);
    assert_eq!(bodies.len(), 1);
    assert_eq!(bodies[0].0, "a");
    let events = events(text, &code);
    assert!(matches!(events.as_slice(), [(at, Event::Call(".commit(", 2))] if bodies[0].1.contains(at)), "{events:?}");
}
