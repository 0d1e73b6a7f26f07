//! The table of certificates: written once, found by what it says, and not to be changed unseen.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use signet::store::certificates::{Counts, End, Found, Page, Reservation, Row, Search};
use signet::types::Version;

use super::files::sql;
use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
}

/// The `number`th certificate, which ends in second `number * 10`.
fn reservation(number: u64, issuer: &str, names: &[&str]) -> Reservation {
    let mut serial = [7; 20];
    serial[12..].copy_from_slice(&number.to_be_bytes());
    Reservation {
        number,
        serial,
        issuer: issuer.parse().unwrap(),
        version: Version::FIRST,
        profile: "default:server".into(),
        requester: format!("identity/r{}", number % 2),
        subject: String::new(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        not_before: at(1),
        not_after: at(i64::try_from(number).unwrap() * 10),
        at: at(2),
        body: vec![1, 2, 3],
        tag: [0; 32],
    }
}

fn end(number: u64, signature: Option<&[u8]>) -> Row {
    Row::End(End { number, at: at(3), signature: signature.map(<[u8]>::to_vec), tag: [0; 32] })
}

/// Ten certificates of two issuers, of which the first seven are signed.
fn fill(store: &dyn Store) {
    for number in 1..=10 {
        let issuer = if number <= 5 { "a:one" } else { "b:two" };
        let own = format!("dns:h{number}.example");
        let row = Row::Reserve(reservation(number, issuer, &[own.as_str(), "dns:shared.example"]));
        store.commit_rows(&[put("ledger/x", Expected::Any, "1")], &[row]).unwrap();
    }
    let ends: Vec<_> = (1..=7).map(|number| end(number, Some(&[9, 9]))).collect();
    store.commit_rows(&[], &ends).unwrap();
}

fn numbers(found: &[Found]) -> Vec<u64> {
    found.iter().map(|one| one.reservation.number).collect()
}

#[test]
fn certificates_are_found_by_what_they_say() {
    each_driver(|store, _, _| {
        fill(store);
        let all = Search { limit: 100, ..Search::default() };
        let find = |search: Search| numbers(&store.certificates(&search).unwrap().found);
        assert_eq!(find(all.clone()), [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(find(Search { issuer: Some("a:one".parse().unwrap()), ..all.clone() }), [5, 4, 3, 2, 1]);
        assert_eq!(find(Search { namespace: Some("b".parse().unwrap()), ..all.clone() }), [10, 9, 8, 7, 6]);
        assert_eq!(find(Search { name: Some("dns:h3.example".into()), ..all.clone() }), [3]);
        assert!(find(Search { name: Some("dns:h3".into()), ..all.clone() }).is_empty());
        assert_eq!(find(Search { requester: Some("identity/r0".into()), ..all.clone() }), [10, 8, 6, 4, 2]);
        let both =
            Search { requester: Some("identity/r1".into()), issuer: Some("b:two".parse().unwrap()), ..all.clone() };
        assert_eq!(find(both), [9, 7]);
        assert_eq!(find(Search { ends: Some((at(30), at(60))), ..all.clone() }), [3, 4, 5]);
        let shared = Search { name: Some("dns:shared.example".into()), ends: Some((at(0), at(35))), ..all };
        assert_eq!(find(shared), [3, 2, 1]);
        let found = store.certificate(&reservation(3, "a:one", &[]).serial).unwrap().unwrap();
        assert_eq!(found.end.unwrap().signature, Some(vec![9, 9]));
        assert_eq!(store.certificate(&[0; 20]).unwrap(), None);
        assert_eq!(numbers(&store.open_reservations().unwrap()), [8, 9, 10]);
        assert_eq!(store.count_certificates().unwrap(), Counts { reserved: 10, names: 20, ended: 7 });
    });
}

#[test]
fn pages_of_a_search_follow_each_other_without_a_gap() {
    each_driver(|store, _, _| {
        fill(store);
        let searches = [
            Search { limit: 3, ..Search::default() },
            Search { limit: 3, name: Some("dns:shared.example".into()), ..Search::default() },
            Search { limit: 3, ends: Some((at(0), at(1000))), ..Search::default() },
        ];
        for search in searches {
            let mut seen = all_pages(store, &search);
            seen.sort_unstable();
            assert_eq!(seen, (1..=10).collect::<Vec<_>>(), "{search:?}");
        }
    });
}

/// The numbers on all pages of a search, in their order.
fn all_pages(store: &dyn Store, search: &Search) -> Vec<u64> {
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let Page { found, next } = store.certificates(&Search { after, ..search.clone() }).unwrap();
        assert!(found.len() <= search.limit);
        seen.extend(numbers(&found));
        if next.is_none() {
            return seen;
        }
        after = next;
    }
}

/// How many certificates the next test looks for.
const MANY: u64 = 10_000;

/// The `number`th of many: issuers, versions, profiles and requesters that go together in some ways and not in others, names
/// of few and of many, and ends of which many are the same.
fn one_of_many(number: u64) -> Reservation {
    let issuer = ["a:one", "a:two", "a-b:one", "b:one"][usize::try_from(number % 7 % 4).unwrap()];
    let own = format!("dns:h{}.example", number % 900);
    let all = "dns:all.example".to_owned();
    Reservation {
        version: Version::new(1 + u32::try_from(number / 4000).unwrap()).unwrap(),
        profile: format!("default:p{}", number % 3),
        // Who asks for one profile never asks for another.
        requester: format!("identity/r{}", number % 12),
        names: if number.is_multiple_of(5) { vec![own] } else { vec![own, all] },
        not_after: at(i64::try_from(number * 7919 % 10_007 / 100 * 100).unwrap()),
        ..reservation(number, issuer, &[])
    }
}

fn many(folder: &tempfile::TempDir) -> Sealed<Sqlite> {
    let store = Sealed::new(Sqlite::create(&folder.path().join("signet.db")).unwrap(), key());
    let rows: Vec<_> = (1..=MANY).map(|number| Row::Reserve(one_of_many(number))).collect();
    for rows in rows.chunks(1000) {
        store.commit_rows(&[], rows).unwrap();
    }
    store
}

/// Sometimes one of `texts`.
fn maybe(texts: &'static [&'static str]) -> impl Strategy<Value = Option<String>> {
    prop_oneof![Just(None), proptest::sample::select(texts).prop_map(|text| Some(text.to_owned()))]
}

#[test]
fn any_search_among_many_finds_what_a_plain_filter_finds() {
    let folder = tempfile::tempdir().unwrap();
    let store = many(&folder);
    let all: Vec<_> = (1..=MANY).map(one_of_many).collect();
    let conditions = (
        maybe(&["a:one", "a:two", "b:one", "b:none"]),
        maybe(&["a", "a-b", "b", "c"]),
        maybe(&["default:p0", "default:p2", "default:p"]),
        maybe(&["identity/r0", "identity/r11", "identity/r"]),
        maybe(&["dns:all.example", "dns:h7.example", "dns:h"]),
        proptest::option::of((0..10_100_i64, 0..10_100_i64)),
        150..=1000_usize,
    );
    // Each case reads up to ten thousand certificates.
    let config = ProptestConfig::with_cases(ProptestConfig::default().cases / 8);
    proptest!(ProptestConfig { failure_persistence: None, ..config }, |(conditions in conditions)| {
        let (issuer, namespace, profile, requester, name, ends, limit) = conditions;
        let search = Search {
            issuer: issuer.map(|issuer| issuer.parse().unwrap()),
            namespace: namespace.map(|namespace| namespace.parse().unwrap()),
            profile,
            requester,
            name,
            ends: ends.map(|(from, until)| (at(from), at(until))),
            after: None,
            limit,
        };
        let mut expected: Vec<_> = all.iter().filter(|one| search.fits(one)).collect();
        if search.ends.is_some() && search.name.is_none() {
            expected.sort_by_key(|one| (one.not_after, one.number));
        } else {
            expected.reverse();
        }
        let expected: Vec<_> = expected.into_iter().map(|one| one.number).collect();
        prop_assert_eq!(all_pages(&store, &search), expected, "{:?}", search);
    });
}

#[test]
fn the_last_end_of_a_version_is_that_of_all_its_profiles() {
    let folder = tempfile::tempdir().unwrap();
    let store = many(&folder);
    for (issuer, version) in [("a:one", 1), ("a:two", 2), ("b:one", 3), ("a:none", 1)] {
        let of = |one: &Reservation| one.issuer.to_string() == issuer && one.version.number() == version;
        let expected = (1..=MANY).map(one_of_many).filter(of).map(|one| one.not_after).max();
        let version = Version::new(version).unwrap();
        assert_eq!(
            store.last_end(&issuer.parse().unwrap(), version, "[ocsp]").unwrap(),
            expected,
            "{issuer} {version}"
        );
    }
}

/// What `tests/vectors/make.py` writes of the same two rows.
#[test]
fn the_tags_of_rows_are_as_they_are_drawn() {
    let golden = include_str!("../golden/certificate-row-v1.txt");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("signet.db");
    let store = Sealed::new(Sqlite::create(&file).unwrap(), key());
    let names = ["dns:web.example.com", "ip:10.0.0.1"];
    let row = Reservation { subject: "CN=web".into(), ..reservation(1, "fleet:root", &names) };
    store.commit_rows(&[], &[Row::Reserve(row.clone()), end(1, Some(&[9, 9]))]).unwrap();
    drop(store);
    let found = Sqlite::open(&file).unwrap().certificate(&row.serial).unwrap().unwrap();
    let tags =
        [found.reservation.tag, found.end.unwrap().tag].map(|tag| tag.map(|byte| format!("{byte:02x}")).concat());
    assert_eq!(golden.lines().collect::<Vec<_>>(), tags);
}

#[test]
fn a_serial_is_never_there_twice_and_an_end_is_final() {
    each_driver(|store, _, _| {
        fill(store);
        let again = Reservation { number: 11, ..reservation(3, "a:one", &[]) };
        let change = put("keys/a", Expected::Absent, "1");
        let refused = store.commit_rows(&[change], &[Row::Reserve(again)]).unwrap_err();
        assert_eq!(refused.kind(), Kind::Conflict);
        assert_eq!(value(store, "keys/a"), None, "a batch is made whole or not at all");
        assert_eq!(store.commit_rows(&[], &[end(3, None)]).unwrap_err().kind(), Kind::Conflict);
        store.commit_rows(&[], &[end(8, None)]).unwrap();
        let found = store.certificate(&reservation(8, "b:two", &[]).serial).unwrap().unwrap();
        assert_eq!(found.end.unwrap().signature, None);
    });
}

#[test]
fn a_copy_holds_the_certificates() {
    each_driver(|store, driver, file| {
        fill(store);
        let copy = file.with_extension("copy");
        store.copy_to(&copy).unwrap();
        let copied = (driver.open)(&copy).unwrap();
        let all = Search { limit: 100, ..Search::default() };
        assert_eq!(copied.certificates(&all).unwrap(), store.certificates(&all).unwrap());
    });
}

#[test]
fn rows_stay_as_they_are_and_whoever_changes_the_file_is_seen() {
    let changes = [
        "UPDATE certificates SET requester = 'identity/other' WHERE number = 3",
        "UPDATE certificates SET not_after = not_after + 1 WHERE number = 3",
        "UPDATE certificates SET names = 'dns:other.example' WHERE number = 3",
        "UPDATE certificates SET body = x'00' WHERE number = 3",
        "UPDATE certificate_ends SET signature = x'00' WHERE number = 3",
        "UPDATE certificate_ends SET signature = NULL WHERE number = 3",
        "UPDATE certificate_ends SET number = 10 WHERE number = 3",
        "UPDATE certificates SET tag = (SELECT tag FROM certificates WHERE number = 4) WHERE number = 3",
    ];
    for change in changes {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("signet.db");
        let store = Sealed::new(Sqlite::create(&file).unwrap(), key());
        fill(&store);
        drop(store);
        // The triggers hold whoever keeps to SQL...
        let refused = rusqlite::Connection::open(&file).unwrap().execute(change, []).unwrap_err();
        assert!(refused.to_string().contains("rows stay"), "{change}: {refused}");
        // ...and whoever does not is seen when the row is read.
        sql(&file, "DROP TRIGGER certificates_are_final; DROP TRIGGER certificate_ends_are_final");
        sql(&file, change);
        let triggers = "CREATE TRIGGER certificates_are_final BEFORE UPDATE ON certificates BEGIN SELECT RAISE(ABORT, 'rows stay'); END;
            CREATE TRIGGER certificate_ends_are_final BEFORE UPDATE ON certificate_ends BEGIN SELECT RAISE(ABORT, 'rows stay'); END;";
        sql(&file, triggers);
        let store = Sealed::new(Sqlite::open(&file).unwrap(), key());
        let moved = if change.contains("number = 10") { 10 } else { 3 };
        let serial = reservation(moved, "a:one", &[]).serial;
        assert_eq!(store.certificate(&serial).unwrap_err().kind(), Kind::Tampered, "{change}");
    }
}

#[test]
fn a_certificate_under_a_foreign_name_and_a_gap_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("signet.db");
    let store = Sealed::new(Sqlite::create(&file).unwrap(), key());
    fill(&store);
    drop(store);
    sql(&file, "INSERT INTO certificate_names VALUES ('dns:bank.example', 3)");
    let store = Sealed::new(Sqlite::open(&file).unwrap(), key());
    let search = Search { name: Some("dns:bank.example".into()), limit: 10, ..Search::default() };
    assert_eq!(store.certificates(&search).unwrap_err().kind(), Kind::Tampered);
    drop(store);
    sql(
        &file,
        "PRAGMA foreign_keys = OFF; DROP TRIGGER certificates_stay; DELETE FROM certificates WHERE number = 4;
        CREATE TRIGGER certificates_stay BEFORE DELETE ON certificates BEGIN SELECT RAISE(ABORT, 'rows stay'); END;",
    );
    let store = Sealed::new(Sqlite::open(&file).unwrap(), key());
    assert_eq!(store.count_certificates().unwrap_err().kind(), Kind::Tampered);
}
